//! Users in a database: the same list of tests over SQLite and PostgreSQL.

mod common;

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::Command;

use common::{
    Client, Database, PASSWORD, PostgreSql, Run, Setup, Sqlite, TestServer, Way, eventually, noise,
    program, run, run_with_input,
};

/// A server whose users are in a database.
fn setup(database: &dyn Database) -> Setup {
    Setup::new()
        .set("users.enabled", true)
        .set("users.sources", "[\"database\"]")
        .set("users.database", format!("\"{}\"", database.url()))
        .set("users.source_timeout", "\"3 s\"")
        .set("limits.login_attempts", 100)
        .set("limits.login_delay", "\"1 ms\"")
        .set("limits.login_delay_max", "\"2 ms\"")
        .set("limits.login_failures", 0)
        .set("limits.login_failures_per_user", 0)
}

/// `ringftpd user` with the configuration of the server.
fn user(folder: &Path, arguments: &[&str], input: &str) -> Run {
    let mut command = Command::new(program());
    command.arg("user").args(arguments).arg("--config");
    run_with_input(command.arg(folder.join("ringftpd.toml")), input)
}

#[track_caller]
fn told(run: Run) -> String {
    String::from_utf8(run.success()).expect("text")
}

/// The code of the reply to a login.
fn login(server: &TestServer, user: &str, password: &str) -> u16 {
    let mut client = Client::connect(server.address());
    client.expect(format!("USER {user}"), 331);
    client.ask(format!("PASS {password}")).code
}

fn on_both(test: fn(&mut dyn Database)) {
    test(&mut Sqlite::new());
    if let Some(mut server) = PostgreSql::start_new() {
        test(&mut server);
    }
}

#[test]
fn users_are_added_log_in_change_and_go() {
    on_both(|database| {
        let setup = setup(database);
        setup.write();
        let folder = setup.folder().to_owned();
        let line = format!("{PASSWORD}\n");
        for name in ["alice", "bob"] {
            let root = folder.join(name);
            fs::create_dir(&root).expect("a folder");
            let root = root.to_str().expect("UTF-8");
            let added = told(user(&folder, &["add", name, "--root", root], &line));
            assert!(added.contains(&database.url()), "{added}");
        }
        let again = user(&folder, &["add", "bob", "--root", "/"], &line);
        assert_eq!(again.code, Some(1), "{}", again.err);
        assert!(again.err.contains("user bob exists"), "{}", again.err);
        let listed = told(user(&folder, &["list"], ""));
        let names: Vec<&str> = listed
            .lines()
            .filter_map(|it| it.split(' ').next())
            .collect();
        assert_eq!(names, ["alice", "bob"]);

        let server = setup.start();
        assert!(server.summary().contains(&database.url()));
        assert_eq!(login(&server, "alice", PASSWORD), 230);
        assert_eq!(login(&server, "alice", "wrong"), 530);
        assert_eq!(login(&server, "nobody", PASSWORD), 530);
        server.wait_for_log("user=\"nobody\" reason=unknown-user");
        let hashes = server.report().logins.hashes;
        assert_eq!(hashes, 3, "an unknown user costs as much as a known one");

        // What changes counts with the next login, also for a password that is remembered.
        assert_eq!(login(&server, "alice", PASSWORD), 230);
        assert_eq!(server.report().logins.remembered, 1);
        told(user(&folder, &["passwd", "alice"], "another\n"));
        assert_eq!(login(&server, "alice", PASSWORD), 530);
        assert_eq!(login(&server, "alice", "another"), 230);
        told(user(&folder, &["set", "alice", "enabled=false"], ""));
        assert_eq!(login(&server, "alice", "another"), 530);
        server.wait_for_log("user=\"alice\" reason=disabled");
        let listed = told(user(&folder, &["list"], ""));
        assert!(listed.contains("alice  (disabled)"), "{listed}");
        told(user(&folder, &["set", "alice", "enabled="], ""));
        assert_eq!(login(&server, "alice", "another"), 230);
        // Others write there, too.
        database.sql("UPDATE ringftpd_users SET expires = '2020-01-01' WHERE name = 'alice'");
        assert_eq!(login(&server, "alice", "another"), 530);
        told(user(&folder, &["del", "bob"], ""));
        assert_eq!(login(&server, "bob", PASSWORD), 530);
        let gone = user(&folder, &["del", "bob"], "");
        assert_eq!(gone.code, Some(1));
        assert!(gone.err.contains("there is no user bob"), "{}", gone.err);
        assert!(!server.log().contains("ERROR"), "{}", server.log());
    });
}

#[test]
fn keys_of_users_hold() {
    on_both(|database| {
        let setup = setup(database);
        setup.write();
        let folder = setup.folder().to_owned();
        let template = folder.join("{user}");
        let default = format!("[default]\nroot = {template:?}\nquota = \"1 MB\"\n");
        fs::write(folder.join("users.toml"), default).expect("written");
        fs::create_dir_all(folder.join("alice/pub")).expect("a folder");
        let arguments = [
            "add",
            "alice",
            "--quota",
            "100 kB",
            "--deny",
            "rename",
            "--set",
            "rules=/pub read-only",
            "--set",
            "sessions=2",
        ];
        told(user(&folder, &arguments, &format!("{PASSWORD}\n")));
        let shown = told(user(&folder, &["show", "alice"], ""));
        for line in [
            "quota = \"100 kB\"\n",
            "rules = [\"/pub read-only\"]\n",
            "sessions = 2\n",
            "# of the section [default] of the users file\nroot = ",
        ] {
            assert!(shown.contains(line), "{line}{shown}");
        }
        assert!(!shown.contains("argon2"), "{shown}");
        let wrong = user(&folder, &["set", "alice", "quota=much"], "");
        assert_eq!(wrong.code, Some(1));
        assert!(wrong.err.contains("is not a size"), "{}", wrong.err);

        let server = setup.start();
        let mut client = Client::login_as(server.address(), "alice");
        client.stor("file", &noise(60_000, 1));
        client.expect("RNFR file", 550);
        client.passive(Way::Epsv);
        client.expect("STOR pub/x", 550);
        assert_eq!(client.expect("AVBL", 213).text().trim(), "213 40000");
        let quota = |arguments: &[&str]| {
            let mut command = Command::new(program());
            command.arg("quota").args(arguments).arg("--socket");
            told(run(command.arg(server.folder().join("admin.sock"))))
        };
        assert!(quota(&["list"]).contains("60000             1  alice"));
        fs::write(server.folder().join("alice/others"), noise(30_000, 2)).expect("a file");
        quota(&["rescan", "alice"]);
        client.stor("small", b"1234");
        assert!(quota(&["list"]).contains("90004             3  alice"));
        let mut curl = Command::new("curl");
        curl.args(["-sS", "-u"]).arg(format!("alice:{PASSWORD}"));
        let fetched = run(curl.arg(format!("ftp://{}/small", server.address()))).success();
        assert_eq!(fetched, b"1234");

        let mut check = Command::new(program());
        check
            .arg("check")
            .arg("--config")
            .arg(folder.join("ringftpd.toml"));
        let checked = told(run(&mut check));
        let expected = format!("1 user of {}", database.url());
        assert!(checked.contains(&expected), "{checked}");
    });
}

#[test]
fn a_database_that_is_down_refuses_nobody_for_good() {
    on_both(|database| {
        let setup = setup(database);
        setup.write();
        let folder = setup.folder().to_owned();
        let root = folder.to_str().expect("UTF-8");
        let add = ["add", "alice", "--root", root];
        told(user(&folder, &add, &format!("{PASSWORD}\n")));
        // Not even the start of the server waits for it.
        database.stop();
        let server = setup.start();
        assert_eq!(login(&server, "alice", PASSWORD), 421);
        database.start();
        assert_eq!(login(&server, "alice", PASSWORD), 230);
        for _ in 0..2 {
            database.stop();
            // Neither a password that is remembered nor an unknown name is judged.
            assert_eq!(login(&server, "alice", PASSWORD), 421);
            assert_eq!(login(&server, "nobody", PASSWORD), 421);
            server.wait_for_log("logins cannot be verified");
            let mut anonymous = Client::login(server.address());
            anonymous.expect("NOOP", 200);
            database.start();
            assert_eq!(login(&server, "alice", PASSWORD), 230);
        }
        assert!(!server.log().contains("unknown-user"), "{}", server.log());
        // The tables are taken away: that is no answer either.
        database.sql("ALTER TABLE ringftpd_users RENAME TO elsewhere");
        assert_eq!(login(&server, "alice", PASSWORD), 421);
        database.sql("ALTER TABLE elsewhere RENAME TO ringftpd_users");
        assert_eq!(login(&server, "alice", PASSWORD), 230);
        let log = server.log();
        assert!(!log.contains(PASSWORD) && !log.contains("argon2"), "{log}");
    });
}

#[test]
fn users_move_from_the_file_to_a_database() {
    on_both(|database| {
        let setup = setup(database)
            .user("alice", "read-write")
            .user_keys("rules = [\"/in upload-only\"]\nenabled = true\nquota = \"1 GiB\"")
            .user("bob", "read-only");
        setup.write();
        let folder = setup.folder().to_owned();
        let copy = ["copy", "--from", "file", "--to", "database"];
        let before = user(&folder, &["list"], "");
        assert_eq!(before.code, Some(1), "no tables yet");
        let copied = told(user(&folder, &copy, ""));
        assert!(copied.starts_with("2 users added to "), "{copied}");
        let again = told(user(&folder, &copy, ""));
        assert!(
            again.contains("bob exists and is left alone\n0 users"),
            "{again}"
        );
        let listed = |store: &str| told(user(&folder, &["list", "--store", store], ""));
        assert_eq!(listed("file"), listed("database"));
        let fields = "SELECT rules, CAST(enabled AS INTEGER), quota FROM ringftpd_users \
            WHERE name = 'alice'";
        let row = database.sql(&format!("{fields};"));
        assert_eq!(row.trim(), "[\"/in upload-only\"]|1|1 GiB");

        // Another server's users, and a user in plain SQL.
        let htpasswd = folder.join("htpasswd");
        let hash = "$1$MlHWYg5L$2yULtJYQOaJVFojxqly1r.";
        fs::write(&htpasswd, format!("carol:{hash}\nbob:{hash}\n")).expect("written");
        let htpasswd = htpasswd.to_str().expect("UTF-8");
        let import = ["import", "htpasswd", htpasswd, "--root", "/srv/{user}"];
        let imported = told(user(&folder, &import, ""));
        assert!(imported.starts_with("bob exists and is left alone\n1 user added"));
        let root = folder.join("alice");
        database.sql(&format!(
            "INSERT INTO ringftpd_users (name, password, root, access)
             SELECT 'dave', password, '{}', 'read-only' FROM ringftpd_users WHERE name = 'alice';",
            root.display()
        ));
        let migrated = told(user(&folder, &["migrate"], ""));
        assert!(migrated.contains("as it should be"), "{migrated}");
        let server = setup.start();
        for name in ["alice", "bob", "dave"] {
            assert_eq!(login(&server, name, PASSWORD), 230, "{name}");
        }
    });
}

#[test]
fn fifty_thousand_users_are_no_matter() {
    on_both(|database| {
        let setup = setup(database);
        setup.write();
        let folder = setup.folder().to_owned();
        let root = folder.to_str().expect("UTF-8");
        let add = ["add", "alice", "--root", root];
        told(user(&folder, &add, &format!("{PASSWORD}\n")));
        database.sql(&format!(
            "WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 50000)
             INSERT INTO ringftpd_users (name, password, root, access)
             SELECT 'user' || n, password, '{root}', 'read-only'
             FROM numbers, ringftpd_users WHERE name = 'alice';"
        ));
        let server = setup.start();
        for name in ["user1", "user49999", "alice"] {
            assert_eq!(login(&server, name, PASSWORD), 230, "{name}");
        }
        let mut check = Command::new(program());
        check
            .arg("check")
            .arg("--config")
            .arg(folder.join("ringftpd.toml"));
        let checked = told(run(&mut check));
        assert!(checked.contains("50001 users of "), "{checked}");
        // Page by page: whoever has seen enough does not wait for the rest.
        let mut head = Command::new("sh");
        let list = "exec \"$0\" user list --config \"$1\" | head -n 2";
        head.args(["-c", list]).arg(program());
        let first = told(run(head.arg(folder.join("ringftpd.toml"))));
        assert!(first.starts_with("alice      read-write"), "{first}");
        assert_eq!(first.lines().count(), 2);
    });
}

#[test]
fn a_role_that_may_only_read_is_enough_for_the_server() {
    let Some(mut database) = PostgreSql::start_new() else {
        return;
    };
    let admin = database.url();
    let folder = tempfile::tempdir().expect("a temporary folder");
    let command = |url: &str, arguments: &[&str]| {
        let mut command = Command::new(program());
        command.args(["user", "--database", url]).args(arguments);
        told(run_with_input(&mut command, &format!("{PASSWORD}\n")))
    };
    command(&admin, &["add", "alice", "--root", "/"]);
    // Another schema is another database.
    database.sql("CREATE SCHEMA shop;");
    let shop = format!("{admin}&options=-csearch_path%3Dshop");
    command(&shop, &["add", "bob", "--root", "/"]);
    assert!(command(&shop, &["list"]).starts_with("bob "));
    assert!(command(&admin, &["list"]).starts_with("alice "));
    database.sql(
        "CREATE ROLE reader LOGIN PASSWORD 'hunter2';
         GRANT SELECT ON ringftpd_users, ringftpd_schema TO reader;",
    );
    // By peer authentication no password is needed.
    database.set_access("local all ringftpd trust\nlocal all reader peer map=here");
    let url = admin.replace("ringftpd@", "reader@");
    let peer = setup(&database).set("users.database", format!("\"{url}\""));
    assert_eq!(login(&peer.start(), "alice", PASSWORD), 230);
    database.set_access("local all ringftpd trust\nlocal all reader scram-sha-256");
    let secret = folder.path().join("password");
    fs::write(&secret, "hunter2\n").expect("written");
    fs::set_permissions(&secret, fs::Permissions::from_mode(0o640)).expect("changed");
    let mut server = setup(&database)
        .set("users.database", format!("\"{url}\""))
        .set("users.database_password_file", format!("{secret:?}"))
        .start();
    assert_eq!(login(&server, "alice", PASSWORD), 230);
    // Its role may not write; that is told, and nothing is done.
    let config = server.folder().to_owned();
    let refused = user(&config, &["set", "alice", "enabled=false"], "");
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("permission denied"), "{}", refused.err);
    assert!(!refused.err.contains("hunter2"), "{}", refused.err);
    assert_eq!(login(&server, "alice", PASSWORD), 230);

    // A wrong password of the role lets nobody in, and is not told.
    fs::write(&secret, "hunter3\n").expect("written");
    server.reload().success();
    assert_eq!(login(&server, "alice", PASSWORD), 421);
    server.wait_for_log("password authentication failed");
    fs::write(&secret, "hunter2\n").expect("written");
    assert_eq!(login(&server, "alice", PASSWORD), 230);
    let log = server.log();
    assert!(!log.contains("hunter"), "{log}");
    server.set("users.sources", "[\"file\"]");
    server.set("users.database", "\"\"");
    server.set("users.database_password_file", "\"\"");
    server.reload().success();
    let open = "SELECT count(*) FROM pg_stat_activity WHERE usename = 'reader'";
    eventually("connections are closed", || {
        database.sql(open).trim() == "0"
    });
}

#[test]
fn users_come_by_tls_from_a_server_that_a_known_authority_vouches_for() {
    let Some(database) = PostgreSql::start_with_tls() else {
        return;
    };
    let url = database.url_at("localhost");
    let ca = database.ca();
    let ca_text = ca.to_str().expect("UTF-8");
    let place = ["--database", &url, "--database-ca", ca_text];
    let command = |place: &[&str], arguments: &[&str]| {
        let mut command = Command::new(program());
        command.arg("user").args(place).args(arguments);
        run_with_input(&mut command, &format!("{PASSWORD}\n"))
    };
    told(command(&place, &["add", "alice", "--root", "/"]));
    let ways = "SELECT ssl FROM pg_stat_ssl JOIN pg_stat_activity USING (pid)
                WHERE application_name = 'ringftpd'";
    let mut server = setup(&database)
        .set("users.database", format!("\"{url}\""))
        .set("users.database_ca", format!("{ca:?}"))
        .start();
    assert_eq!(login(&server, "alice", PASSWORD), 230);
    assert_eq!(database.sql(ways).lines().next(), Some("t"));
    assert!(!database.sql(ways).contains('f'));

    // Its certificate is for another name.
    let elsewhere = database.url_at("127.0.0.1");
    let other_name = ["--database", &elsewhere, "--database-ca", ca_text];
    let refused = command(&other_name, &["list"]);
    assert_eq!(refused.code, Some(1));
    assert!(refused.err.contains("certificate"), "{}", refused.err);
    // Nobody vouches for it.
    let folder = server.folder().to_owned();
    common::write_certificate(&folder, "other", &["localhost"], common::Kind::Ecdsa);
    let other = common::certificate_of(&folder, "other");
    server.set("users.database_ca", format!("{other:?}"));
    server.reload().success();
    assert_eq!(login(&server, "alice", PASSWORD), 421);
    server.wait_for_log("certificate");
    // It asks for TLS, and so may the address, but then somebody has to vouch.
    let refused = command(&["--database", &url], &["list"]);
    assert!(refused.err.contains("pg_hba.conf"), "{}", refused.err);
    let asking = format!("{url}?sslmode=require");
    let refused = command(&["--database", &asking], &["list"]);
    assert!(refused.err.contains("--database-ca"), "{}", refused.err);
    // A file without a certificate is told.
    let empty = folder.join("empty.pem");
    fs::write(&empty, "").expect("written");
    let empty = empty.to_str().expect("UTF-8");
    let refused = command(&["--database", &url, "--database-ca", empty], &["list"]);
    assert!(refused.err.contains("no certificate"), "{}", refused.err);
}

#[test]
fn a_server_without_tls_is_not_talked_to_in_clear() {
    let Some(mut database) = PostgreSql::start_with_tls() else {
        return;
    };
    let ca = database.ca();
    database.set_tls(false);
    let url = database.url_at("localhost");
    let mut command = Command::new(program());
    command.args(["user", "list", "--database", &url, "--database-ca"]);
    let refused = run(command.arg(ca));
    assert_eq!(refused.code, Some(1));
    let told = "server does not support TLS";
    assert!(refused.err.contains(told), "{}", refused.err);
}
