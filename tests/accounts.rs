//! What users may do, and how much they may store: through the real server, with real clients too.

mod common;

use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{
    Client, PASSWORD, Setup, TestServer, Way, eventually, noise, program, run, run_with_input,
};
use nix::sys::signal::Signal;

fn login(server: &TestServer, user: &str) -> Client {
    Client::login_as(server.address(), user)
}

/// A connection whose greeting, or refusal, has not been read.
fn unread(server: &TestServer) -> Client {
    Client::over(TcpStream::connect(server.address()).expect("a control connection"))
}

fn names(lines: &[Vec<u8>]) -> Vec<String> {
    let mut names: Vec<String> = lines
        .iter()
        .map(|line| String::from_utf8_lossy(line).into_owned())
        .collect();
    names.sort();
    names
}

#[test]
fn a_drop_box_takes_files_and_shows_nothing() {
    let setup = Setup::new().user("alice", "upload-only");
    let server = setup.start();
    let tree = server.folder().join("alice");
    fs::write(tree.join("there"), "another's").expect("a file");
    let mut client = login(&server, "alice");
    client.stor("new", b"mine");
    assert_eq!(fs::read(tree.join("new")).expect("stored"), b"mine");
    for verb in ["RETR there", "LIST", "NLST", "MLSD"] {
        client.passive(Way::Epsv);
        client.expect(verb, 550);
    }
    for command in [
        "SIZE there",
        "MDTM there",
        "MLST there",
        "DELE new",
        "STAT /",
    ] {
        client.expect(command, 550);
    }
    client.expect("MKD folder", 257);
    client.expect("CWD folder", 250);
    client.stor("inside", b"1");
    client.expect("CDUP", 250);
    // Neither what was there before nor what came just now is replaced, by whatever command.
    for command in ["STOR there", "APPE there", "STOR new"] {
        client.passive(Way::Epsv);
        client.expect(command, 553);
    }
    client.expect("RNFR there", 550);
    assert_eq!(fs::read(tree.join("there")).expect("there"), b"another's");
}

#[test]
fn an_upload_replaces_nothing_that_came_meanwhile_without_the_right_to() {
    let setup = Setup::new()
        .user("alice", "read-write")
        .user_keys("deny = [\"overwrite\"]");
    let server = setup.start();
    let tree = server.folder().join("alice");
    let mut one = login(&server, "alice");
    let mut two = login(&server, "alice");
    let mut stream = one.begin(Way::Epsv, "STOR file");
    stream.write_all(b"first").expect("the server reads");
    one.wait_for_progress(5);
    two.stor("file", b"second");
    drop(stream);
    one.reply(553);
    assert_eq!(fs::read(tree.join("file")).expect("stored"), b"second");
    two.stor("other", b"x");
    two.expect("RNFR other", 350);
    two.expect("RNTO file", 550);
    two.expect("RNFR other", 350);
    two.expect("RNTO third", 250);
    let files = names(&two.list("NLST"));
    assert_eq!(files, ["file", "third"]);
}

#[test]
fn what_is_hidden_is_not_there() {
    let setup = Setup::new().user("alice", "read-write").user_keys(
        "deny = [\"dotfiles\"]\nhide = [\"/private\", \"*.bak\"]\nrules = [\"/pub read-only\"]",
    );
    let server = setup.start();
    let tree = server.folder().join("alice");
    for folder in ["private", "pub", "sub/.git"] {
        fs::create_dir_all(tree.join(folder)).expect("a folder");
    }
    for file in [
        "private/x",
        "a.bak",
        ".profile",
        "sub/b.bak",
        "sub/c",
        "sub/.git/x",
        "pub/d",
    ] {
        fs::write(tree.join(file), "x").expect("a file");
    }
    let mut client = login(&server, "alice");
    for (command, expected) in [
        ("NLST -a", &[".", "..", "pub", "sub"][..]),
        ("NLST -R", &["pub", "pub/d", "sub", "sub/c"]),
        ("NLST *.bak", &[]),
        ("NLST sub", &["sub/c"]),
    ] {
        let mut listed = names(&client.list(command));
        listed.retain(|name| !name.is_empty() && !name.ends_with(':'));
        assert_eq!(listed, expected, "{command}");
    }
    let facts = names(&client.list("MLSD"));
    // The directory itself, and what is not hidden in it.
    assert_eq!(facts.len(), 3, "{facts:?}");
    let of_pub = facts.iter().find(|line| line.ends_with(" pub"));
    assert!(of_pub.expect("pub").contains("perm=el;"), "{facts:?}");
    for command in [
        "CWD private",
        "SIZE a.bak",
        "MLST .profile",
        "DELE sub/b.bak",
        "RNFR private/x",
    ] {
        client.expect(command, 550);
    }
    client.expect("DELE pub/d", 550);
    for name in ["x.bak", ".ssh"] {
        client.passive(Way::Epsv);
        client.expect(format!("STOR {name}"), 550);
    }
    assert_eq!(client.retr("pub/d"), b"x");
}

#[test]
fn lftp_and_curl_work_within_their_rights() {
    let setup = Setup::new()
        .user("alice", "read-write")
        .user_keys("rules = [\"/in upload-only\", \"/out read-only\"]");
    let server = setup.start();
    let tree = server.folder().join("alice");
    fs::create_dir(tree.join("in")).expect("a folder");
    fs::create_dir(tree.join("out")).expect("a folder");
    let content = noise(300_000, 3);
    fs::write(tree.join("out/file"), &content).expect("a file");
    let local = server.folder().join("local");
    fs::write(&local, &content).expect("a file");
    let url = format!("ftp://{}", server.address());
    let script = format!(
        "set net:max-retries 1; set xfer:clobber yes; open -u 'alice,{PASSWORD}' {url}; put -O in {0} && get out/file -o {0}.got",
        local.display()
    );
    run(Command::new("lftp").arg("-c").arg(script)).success();
    assert!(fs::read(tree.join("in/local")).expect("stored") == content);
    assert!(fs::read(server.folder().join("local.got")).expect("fetched") == content);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-u"]).arg(format!("alice:{PASSWORD}"));
    curl.arg("-T").arg(&local).arg(format!("{url}/out/x"));
    let refused = run(&mut curl);
    assert_eq!(refused.code, Some(25), "{}", refused.err);
}

#[test]
fn nobody_stores_more_than_the_quota() {
    let setup = Setup::new()
        .user("alice", "read-write")
        .user_keys("quota = \"100 kB\"\nquota_files = 3");
    let server = setup.start();
    let tree = server.folder().join("alice");
    fs::write(tree.join("old"), noise(20_000, 1)).expect("a file");
    let mut one = login(&server, "alice");
    let mut two = login(&server, "alice");
    one.stor("a", &noise(50_000, 2));
    let refused = |client: &mut Client, command: &str, size| {
        let mut stream = client.begin(Way::Epsv, command);
        // Refused in its midst, it may be reset.
        let _ = stream.write_all(&noise(size, 3));
        drop(stream);
        let reply = client.reply(552);
        assert!(reply.text().contains("quota"), "{}", reply.text());
    };
    refused(&mut two, "STOR b", 30_001);
    assert!(!tree.join("b").exists());
    assert_eq!(one.expect("AVBL", 213).text().trim(), "213 30000");
    two.stor("b", &noise(30_000, 4));
    // At the limit of both; what is replaced makes room.
    refused(&mut one, "APPE b", 1);
    two.stor("b", &noise(30_000, 5));
    two.expect("DELE old", 250);
    two.stor("c", b"");
    two.passive(Way::Epsv);
    two.expect("STOR d", 552);
    one.expect("DELE c", 250);
    assert_eq!(listed(&server), ["80000 2 alice"]);
    let metrics = run(Command::new("curl")
        .args(["-sS", "--unix-socket"])
        .arg(server.folder().join("admin.sock"))
        .arg("http://localhost/metrics"));
    let metrics = String::from_utf8(metrics.success()).expect("text");
    assert!(
        metrics.contains("ringftpd_quota_refusals_total 3\n"),
        "{metrics}"
    );
}

#[test]
fn a_stou_leaves_alone_what_others_store_under_its_name() {
    let setup = Setup::new()
        .user("alice", "read-write")
        .user_keys("quota = \"100 kB\"\ndeny = [\"overwrite\"]");
    let server = setup.start();
    let tree = server.folder().join("alice");
    let mut one = login(&server, "alice");
    let mut two = login(&server, "alice");
    for aborts in [false, true] {
        let mut stream = one.begin(Way::Epsv, "STOU k");
        stream.write_all(&noise(1000, 1)).expect("the server reads");
        one.wait_for_progress(1000);
        // There is nothing to be removed or renamed. Other STOUs find the name taken.
        two.expect("DELE k", 550);
        two.expect("RNFR k", 550);
        let data = two.data(Way::Epsv);
        let told = two.expect("STOU k", 150);
        assert_eq!(told.argument(), b"FILE: k.1");
        drop(data.stream());
        two.reply(226);
        two.stor("k", &noise(500, 2));
        if aborts {
            one.send("ABOR");
            one.replies(&[426, 226]);
        } else {
            drop(stream);
            one.reply(553);
        }
        assert_eq!(fs::read(tree.join("k")).expect("stored"), noise(500, 2));
        assert_eq!(listed(&server), ["500 2 alice"]);
        two.expect("DELE k", 250);
        two.expect("DELE k.1", 250);
    }
}

/// `ringftpd quota list`, a line for each user, without its heading.
fn listed(server: &TestServer) -> Vec<String> {
    let table = quota(server, &["list"]);
    let lines = table.lines().skip(1);
    lines
        .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "))
        .collect()
}

fn quota(server: &TestServer, arguments: &[&str]) -> String {
    let mut command = Command::new(program());
    command.arg("quota").args(arguments).arg("--socket");
    let told = run(command.arg(server.folder().join("admin.sock"))).success();
    String::from_utf8(told).expect("text")
}

#[test]
fn a_quota_is_counted_again_after_a_crash_and_when_it_is_wanted() {
    let setup = Setup::new()
        .user("alice", "read-write")
        .user_keys("quota = \"100 kB\"");
    let mut server = setup.start();
    let tree = server.folder().join("alice");
    let ledger = server.folder().join("quota-alice");
    let mut client = login(&server, "alice");
    client.stor("a", &noise(60_000, 1));
    assert!(
        fs::read_to_string(&ledger)
            .expect("a ledger")
            .contains("open")
    );
    client.expect("QUIT", 221);
    eventually("the ledger is closed", || {
        fs::read_to_string(&ledger).expect("a ledger") == "60000 1 closed\n"
    });

    // What others do is not seen until the administrator says so.
    fs::write(tree.join("others"), noise(30_000, 2)).expect("a file");
    let mut client = login(&server, "alice");
    client.stor("b", &noise(20_000, 3));
    assert_eq!(listed(&server), ["80000 2 alice"]);
    quota(&server, &["rescan", "alice"]);
    assert_eq!(listed(&server), ["- - alice"]);
    client.passive(Way::Epsv);
    let mut stream = client.begin(Way::Epsv, "STOR c");
    let _ = stream.write_all(&noise(10, 4));
    drop(stream);
    client.reply(552);
    assert_eq!(listed(&server), ["110000 3 alice"]);

    // A server that is killed leaves a ledger that nobody relies on.
    server.signal(Signal::SIGKILL);
    server.wait_for_exit();
    assert!(
        fs::read_to_string(&ledger)
            .expect("a ledger")
            .contains("open")
    );
    fs::remove_file(tree.join("others")).expect("there");
    let server = server.start_again();
    let mut client = login(&server, "alice");
    client.stor("c", &noise(20_000, 5));
    assert_eq!(listed(&server), ["100000 3 alice"]);
}

#[test]
fn a_server_that_stops_closes_the_ledgers_of_its_users() {
    let setup = Setup::new()
        .user("alice", "read-write")
        .user_keys("quota = \"1 MB\"");
    let mut server = setup.start();
    let ledger = server.folder().join("quota-alice");
    let mut client = login(&server, "alice");
    client.stor("a", &noise(1234, 1));
    server.signal(Signal::SIGTERM);
    server.wait_for_exit();
    assert_eq!(
        fs::read_to_string(&ledger).expect("a ledger"),
        "1234 1 closed\n"
    );
}

#[test]
fn folders_of_the_host_are_found_in_the_tree() {
    let setup = Setup::new();
    let shared = setup.folder().join("shared");
    fs::create_dir_all(shared.join("sub")).expect("a folder");
    fs::write(shared.join("sub/file"), "shared").expect("a file");
    fs::write(shared.join(".hidden"), "").expect("a file");
    let keys = format!(
        "folders = {{ \"/shared\" = {shared:?}, \"/a/b/gone\" = \"/nonexistent\" }}\n\
         rules = [\"/shared/sub read-only\"]\nquota = \"10 B\"\nhide = [\".*\"]"
    );
    let setup = setup.user("alice", "read-write").user_keys(&keys);
    let server = setup.start();
    let tree = server.folder().join("alice");
    fs::write(tree.join("own"), "own").expect("a file");
    let mut client = login(&server, "alice");
    server.wait_for_log("a folder is not in the tree");
    for (command, expected) in [
        ("NLST", &["a", "own", "shared"][..]),
        ("NLST shared", &["shared/sub"]),
        ("NLST /shared/s*", &["/shared/sub"]),
        ("NLST /shared/sub/file", &["/shared/sub/file"]),
        ("NLST -d shared", &["shared"]),
    ] {
        assert_eq!(names(&client.list(command)), expected, "{command}");
    }
    client.expect("CWD shared", 250);
    let facts = names(&client.list("MLSD"));
    let sub = facts.iter().find(|line| line.ends_with(" sub"));
    assert!(sub.expect("sub").contains("perm=el;"), "{facts:?}");
    client.expect("CWD sub", 250);
    assert_eq!(client.retr("file"), b"shared");
    assert_eq!(client.retr("../../own"), b"own");
    client.expect("DELE file", 550);
    client.expect("CWD ..", 250);

    // What is stored there does not count for the quota.
    client.stor("new", &noise(100, 1));
    assert_eq!(fs::read(shared.join("new")).expect("stored").len(), 100);
    client.expect("MKD made", 257);
    client.expect("RNFR new", 350);
    client.expect("RNTO made/moved", 250);
    assert!(shared.join("made/moved").exists());
    client.stor("/within", &noise(7, 2));
    assert_eq!(listed(&server), ["10 2 alice"]);
    client.expect("DELE made/moved", 250);
    assert_eq!(listed(&server), ["10 2 alice"]);
    // Nor does the quota tell what may be stored there.
    assert_eq!(client.expect("AVBL /", 213).text(), "213 0");
    for folder in ["AVBL /shared", "AVBL /shared/made"] {
        assert_ne!(client.expect(folder, 213).text(), "213 0", "{folder}");
    }

    // Folders stay where they are, and what is in them.
    for command in ["RMD /shared", "RNFR /shared", "DELE /shared"] {
        let reply = client.ask(command);
        if reply.code == 350 {
            client.expect("RNTO /elsewhere", 550);
        } else {
            assert_eq!(reply.code, 550, "{command}");
        }
    }
    client.expect("RNFR /own", 350);
    client.expect("RNTO /shared/own", 550);
    client.expect("RNFR /shared/made", 350);
    client.expect("RNTO /made", 550);
    assert!(tree.join("own").exists() && shared.join("made").exists());
    for outside in ["/shared/../../etc/passwd", "/shared/../secret"] {
        client.expect(format!("SIZE {outside}"), 550);
    }
    std::os::unix::fs::symlink("/etc/passwd", shared.join("link")).expect("a link");
    client.expect("SIZE /shared/link", 550);
}

#[test]
fn a_reload_changes_who_may_log_in_and_leaves_who_has() {
    let setup = Setup::new().user("alice", "read-write");
    let mut server = setup.start();
    let mut anonymous = server.login();
    let mut alice = login(&server, "alice");
    server.set("anonymous.enabled", false);
    server.set("anonymous.access", "\"read-only\"");
    server.set("limits.sessions_per_ip", 3);
    let told = server.reload();
    assert_eq!(told.code, Some(0), "{}", told.err);
    anonymous.stor("still", b"here");
    alice.stor("still", b"here");
    let mut client = server.connect();
    client.expect("USER anonymous", 331);
    client.expect("PASS x", 530);
    let mut fourth = unread(&server);
    assert!(fourth.next_line().expect("an answer").starts_with(b"421"));
    drop(client);

    server.set("anonymous.enabled", true);
    server.set("users.enabled", false);
    server.set("limits.sessions_per_ip", 64);
    let told = server.reload();
    assert_eq!(told.code, Some(0), "{}", told.err);
    let mut client = server.login();
    client.passive(Way::Epsv);
    client.expect("STOR refused", 550);
}

#[test]
fn curl_tells_why_an_upload_was_refused_in_its_midst() {
    let setup = Setup::new()
        .user("alice", "read-write")
        .user_keys("quota = \"100 kB\"");
    let server = setup.start();
    let local = server.folder().join("local");
    // More than fits into the sockets' buffers: it is refused while curl still sends.
    fs::write(&local, noise(20_000_000, 1)).expect("a file");
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-u"]).arg(format!("alice:{PASSWORD}"));
    curl.arg("-T").arg(&local);
    let refused = run(curl.arg(format!("ftp://{}/x", server.address())));
    // CURLE_REMOTE_DISK_FULL: that is what 552 is to it.
    assert_eq!(refused.code, Some(70), "{}", refused.err);
    // Nothing of it stays open.
    let before = server.descriptors();
    eventually("the connection is closed", || {
        server.descriptors() <= before
    });
}

/// The files were made by ftpasswd (ProFTPD 1.3.8), htpasswd (Apache 2.4) and pure-pw (Pure-FTPd
/// 1.0.50); every password is that of all users of these tests.
#[test]
fn users_of_other_servers_log_in_with_their_passwords() {
    let setup = Setup::new().user("alice", "read-write");
    let folder = setup.folder().to_owned();
    let users = folder.join("users.toml");
    let homes = folder.join("homes");
    let import = |format: &str, file: &std::path::Path| {
        let mut command = Command::new(program());
        command.args(["user", "import", format]).arg(file);
        command.arg("--root").arg(homes.join("{user}"));
        run(command.arg("--file").arg(&users))
    };
    let fixture = |name: &str| {
        let path = std::path::Path::new("tests/fixtures").join(name);
        fs::read_to_string(path).expect("a fixture")
    };
    let passwd = folder.join("ftpd.passwd");
    let homes_of_passwd = homes.to_str().expect("UTF-8");
    fs::write(
        &passwd,
        fixture("ftpd.passwd").replace("/srv/ftp", homes_of_passwd),
    )
    .expect("a file");
    let told = String::from_utf8(import("proftpd", &passwd).success()).expect("text");
    assert!(told.starts_with("3 users added"), "{told}");
    let again = String::from_utf8(import("proftpd", &passwd).success()).expect("text");
    assert!(again.contains("md5 exists and is left alone"), "{again}");

    // Names of its own; one hash is of a kind that nobody should have any more.
    let htpasswd = folder.join("htpasswd");
    let lines = fixture("htpasswd");
    let lines: Vec<String> = lines.lines().map(|line| format!("apache-{line}")).collect();
    fs::write(&htpasswd, lines.join("\n")).expect("a file");
    let run_of_htpasswd = import("htpasswd", &htpasswd);
    assert_eq!(run_of_htpasswd.code, Some(1), "{}", run_of_htpasswd.err);
    assert!(
        run_of_htpasswd.err.contains("not a password hash"),
        "{}",
        run_of_htpasswd.err
    );
    let refused = run_of_htpasswd.err.lines().count();

    let vsftpd = folder.join("vsftpd.txt");
    fs::write(&vsftpd, format!("frank\n{PASSWORD}\n")).expect("a file");
    import("vsftpd", &vsftpd).success();
    let pure = folder.join("pureftpd.passwd");
    fs::write(
        &pure,
        fixture("pureftpd.passwd").replace("alice:", "pure-alice:"),
    )
    .expect("a file");
    // Whoever may log in from fewer places than can be said here is not let in from all of them.
    let run_of_pure = import("pure-ftpd", &pure);
    assert_eq!(run_of_pure.code, Some(1), "{}", run_of_pure.err);
    let told = "pureftpd.passwd:3: carol has denied addresses";
    assert!(run_of_pure.err.contains(told), "{}", run_of_pure.err);
    let text = fs::read_to_string(&users).expect("users");
    assert!(
        text.contains("quota = \"10485760 B\"\nquota_files = 1000\n"),
        "{text}"
    );

    let server = setup.start();
    let mut names = vec!["md5", "sha256", "sha512", "frank"];
    let apache: Vec<String> = lines
        .iter()
        .filter_map(|line| line.split(':').next().map(str::to_owned))
        .filter(|name| text.contains(&format!("[user.{name}]")))
        .collect();
    assert_eq!(apache.len() + refused, lines.len());
    names.extend(apache.iter().map(String::as_str));
    for name in names {
        fs::create_dir_all(homes.join(name)).expect("a home");
        let mut client = login(&server, name);
        client.stor("file", b"content");
        assert!(homes.join(name).join("file").exists(), "{name}");
    }
}

/// A file that other programs write stays where it is.
#[test]
fn users_of_a_file_of_names_and_hashes_log_in() {
    let setup = Setup::new().user("alice", "read-write");
    let folder = setup.folder().to_owned();
    let hash = {
        let text = fs::read_to_string(folder.join("users.toml")).expect("users");
        let line = text
            .lines()
            .find_map(|line| line.strip_prefix("password = "));
        line.expect("a hash").trim_matches('"').to_owned()
    };
    let users = format!(
        "[default]\nroot = {:?}\naccess = \"read-write\"\n",
        folder.join("{user}")
    );
    fs::write(folder.join("users.toml"), users).expect("written");
    for name in ["bob", "carol"] {
        fs::create_dir(folder.join(name)).expect("a home");
    }
    let file = folder.join("htpasswd");
    let write = |text: String| fs::write(&file, text).expect("written");
    write(format!("# users\nbob:{hash}\ncarol:!{hash}\n"));
    let server = setup
        .set("users.sources", "[\"file\", \"htpasswd\"]")
        .set("users.htpasswd", format!("{file:?}"))
        .set("limits.login_delay", "\"1 ms\"")
        .start();
    let code = |name: &str| {
        let mut client = server.connect();
        client.expect(format!("USER {name}"), 331);
        client.ask(format!("PASS {PASSWORD}")).code
    };
    let mut bob = login(&server, "bob");
    bob.stor("file", b"content");
    assert!(folder.join("bob/file").exists());
    assert_eq!(code("carol"), 530);
    server.wait_for_log("user=\"carol\" reason=disabled");
    server.wait_for_log("nobody can log in as this user");
    assert_eq!(code("dave"), 530);
    // Changes count with the next login, also for passwords that are remembered.
    write(format!("carol:{hash}\n"));
    assert_eq!((code("bob"), code("carol")), (530, 230));
    write("nonsense\n".to_owned());
    assert_eq!(code("carol"), 421);
    server.wait_for_log("htpasswd:1: not NAME:HASH");
    assert_eq!(server.report().logins.unavailable, 1);
}

#[test]
fn users_of_a_host_are_added_by_its_name() {
    let setup = Setup::new().user("alice", "read-write");
    let folder = setup.folder().to_owned();
    let shop = folder.join("shop.toml");
    let setup = setup
        .set("host.shop.names", "[\"shop.example\"]")
        .set("host.shop.users.file", format!("{shop:?}"));
    setup.write();
    let user = |arguments: &[&str]| {
        let mut command = Command::new(program());
        command.arg("user").args(arguments).arg("--config");
        run_with_input(command.arg(folder.join("ringftpd.toml")), "a secret\n")
    };
    user(&["--host", "shop", "add", "bob", "--root", "/"]).success();
    let users = fs::read_to_string(&shop).expect("the host's users");
    assert!(users.contains("[user.bob]"));
    let listed = String::from_utf8(user(&["list"]).success()).expect("text");
    assert!(
        listed.starts_with("alice ") && !listed.contains("bob"),
        "{listed}"
    );
    let refused = user(&["--host", "shap", "list"]);
    assert!(
        refused.err.contains("[host.shap]; it has shop"),
        "{}",
        refused.err
    );
    // Named as a file it is the same one, with the same readers.
    fs::remove_file(&shop).expect("removed");
    let path = shop.to_str().expect("UTF-8");
    user(&["--file", path, "add", "bob", "--root", "/"]).success();
    let users = fs::read_to_string(&shop).expect("the host's users");
    assert!(users.contains("[user.bob]"));
}

#[test]
fn a_state_directory_that_is_not_there_is_told_at_once() {
    let setup = Setup::new()
        .user("alice", "read-write")
        .user_keys("quota = \"1 MB\"");
    let missing = setup.folder().join("missing");
    let setup = setup.set("users.state", format!("{missing:?}"));
    setup.write();
    let check = run(Command::new(program())
        .args(["check", "--config"])
        .arg(setup.folder().join("ringftpd.toml")));
    let said = String::from_utf8(check.success()).expect("text");
    let told = format!("users.state: {}: No such file", missing.display());
    assert!(
        said.contains(&told) && said.contains("alice has a quota"),
        "{said}"
    );
    let server = setup.start();
    server.wait_for_log("alice has a quota or a volume");
}

#[test]
fn files_of_a_user_come_into_being_as_the_user_is_configured() {
    let setup = Setup::new()
        .user("alice", "read-write")
        .user_keys("umask = \"077\"\nuploads = \"in-place\"")
        .user("bob", "read-write");
    let server = setup.start();
    let mode = |path: &str| {
        let path = server.folder().join(path);
        fs::metadata(path).expect("there").permissions().mode() & 0o777
    };
    for (user, file, directory) in [("alice", 0o600, 0o700), ("bob", 0o644, 0o755)] {
        let mut client = Client::login_as(server.address(), user);
        client.stor("file", b"x");
        client.expect("MKD directory", 257);
        assert_eq!(mode(&format!("{user}/file")), file);
        assert_eq!(mode(&format!("{user}/directory")), directory);
        let mut data = client.begin(Way::Epsv, "STOR growing");
        data.write_all(b"the beginning").expect("sent");
        let path = server.folder().join(user).join("growing");
        match user {
            "alice" => eventually("the file grows in place", || path.exists()),
            _ => {
                client.wait_for_progress(13);
                assert!(!path.exists(), "visible when whole");
            }
        }
        drop(data);
        client.reply(226);
        // What SITE UMASK says comes before.
        client.expect("SITE UMASK 002", 200);
        client.stor("other", b"x");
        assert_eq!(mode(&format!("{user}/other")), 0o664);
    }
}

#[test]
fn a_user_who_is_added_has_the_default_access_and_comments_of_others_stay() {
    let setup = Setup::new();
    let file = setup.folder().join("users.toml");
    let text = "[default]\nroot = \"/srv/{user}\"\naccess = \"read-only\"\n";
    fs::write(&file, text).expect("written");
    let user = |arguments: &[&str]| {
        let mut command = Command::new(program());
        command.arg("user").args(arguments).arg("--file").arg(&file);
        let told = run_with_input(&mut command, "secret word\n").success();
        String::from_utf8(told).expect("UTF-8")
    };
    let told = user(&["add", "alice", "--password-stdin"]);
    assert!(told.contains("read-only in /srv/alice"), "{told}");
    let denied = ["--access", "none", "--deny", "dotfiles"];
    user(&[&["add", "bob", "--password-stdin"][..], &denied].concat());
    let text = fs::read_to_string(&file).expect("users");
    assert!(text.contains("deny = [\"dotfiles\"]"), "{text}");
    let camera = "\n# The camera in the hall\n[user.cam]\npassword = \"$1$MlHWYg5L$2yULtJYQOaJVFojxqly1r.\"\n";
    fs::write(&file, text + camera).expect("written");
    user(&["del", "bob"]);
    let text = fs::read_to_string(&file).expect("users");
    assert!(
        text.ends_with(camera) && !text.contains("user.bob"),
        "{text}"
    );
}
