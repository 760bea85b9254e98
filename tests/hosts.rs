//! Virtual hosts: found by name or by address, each with its own users, roots, greeting and limits.

mod common;

use std::fs;
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::process::Command;

use common::{
    Client, Kind, PASSWORD, Setup, TestServer, TlsClient, TlsSession, certificate_of, eventually,
    files, program, run, run_with_input, write_certificate,
};

/// A server on 127.0.0.1 with the user alice, the host `shop` by name and the host `lab` on 127.0.0.2,
/// each with a user alice of its own.
fn setup() -> Setup {
    let setup = Setup::new()
        .set("server.listen", "[\"127.0.0.1:0\", \"127.0.0.2:0\"]")
        .set("limits.login_delay", "\"1 ms\"")
        .set("limits.login_delay_max", "\"2 ms\"")
        .set(
            "host.shop.names",
            "[\"ftp.shop.example\", \"shop.example\"]",
        )
        .set("host.shop.greeting", "\"The shop.\"")
        .set("host.lab.names", "[\"lab.example\"]")
        .set("host.lab.addresses", "[\"127.0.0.2:0\"]")
        .set("host.lab.greeting", "\"The lab.\"")
        .set("host.lab.anonymous.enabled", false)
        .user("alice", "read-write");
    let setup = with_users(setup, "shop", "host.shop.users.file");
    with_users(setup, "lab", "host.lab.users.file")
}

/// Gives a host a users file of its own with a user alice, whose root is the folder of that name.
fn with_users(setup: Setup, host: &str, key: &'static str) -> Setup {
    let file = setup.folder().join(format!("{host}.toml"));
    let root = setup.folder().join(host);
    fs::create_dir(&root).expect("a root");
    let mut add = Command::new(program());
    add.args(["user", "add", "alice", "--password-stdin", "--file"])
        .arg(&file)
        .arg("--root")
        .arg(root);
    run_with_input(&mut add, &format!("{host} secret\n")).success();
    setup.set(key, format!("{file:?}"))
}

fn lab(server: &TestServer) -> Client {
    Client::connect(server.addresses()[1])
}

fn login(client: &mut Client, password: &str) -> u16 {
    client.expect("USER alice", 331);
    client.ask(format!("PASS {password}")).code
}

#[test]
fn a_host_is_found_by_its_name_or_by_its_address() {
    let server = setup().start();
    let mut client = server.connect();
    for (name, reply) in [
        ("FTP.Shop.Example", "220 The shop."),
        ("shop.example.", "220 The shop."),
        ("other.example", "504 There is no such host here."),
        ("lab.example", "220 The lab."),
        ("shop.example", "220 The shop."),
    ] {
        assert_eq!(client.ask(format!("HOST {name}")).text(), reply, "{name}");
    }
    assert_eq!(login(&mut client, PASSWORD), 530, "the server's alice");
    assert_eq!(login(&mut client, "shop secret"), 230);
    client.stor("mine", b"of the shop");
    let at = |host: &str| server.folder().join(host).join("mine");
    assert_eq!(fs::read(at("shop")).expect("stored"), b"of the shop");
    client.expect("HOST lab.example", 503);
    // REIN leads back to where the client came to.
    client.expect("REIN", 220);
    assert_eq!(login(&mut client, "shop secret"), 530);
    assert_eq!(login(&mut client, PASSWORD), 230);
    client.stor("mine", b"of the server");
    assert_eq!(fs::read(at("alice")).expect("stored"), b"of the server");

    let mut client = lab(&server);
    assert_eq!(login(&mut client, PASSWORD), 530);
    assert_eq!(login(&mut client, "lab secret"), 230);
    client.stor("mine", b"of the lab");
    assert_eq!(fs::read(at("lab")).expect("stored"), b"of the lab");
    let mut client = lab(&server);
    client.expect("USER anonymous", 331);
    client.expect("PASS x", 530);
    client.expect("HOST shop.example", 220);
    client.expect("USER anonymous", 331);
    client.expect("PASS x", 230);
}

#[test]
fn stock_clients_find_a_host_by_its_address() {
    let server = setup().start();
    let url = format!("ftp://{}/up", server.addresses()[1]);
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-u", "alice:lab secret", "-T", "-", &url]);
    run_with_input(&mut curl, "from curl").success();
    let mut curl = Command::new("curl");
    curl.args(["-sS", "-u", "alice:lab secret", &url]);
    assert_eq!(run(&mut curl).success(), b"from curl");
    assert!(server.folder().join("lab/up").exists());
}

#[test]
fn sessions_of_a_host_are_limited_together() {
    let server = setup().set("host.lab.sessions", 2).start();
    let mut clients = [lab(&server), lab(&server), lab(&server)];
    for client in &mut clients[..2] {
        assert_eq!(login(client, "lab secret"), 230);
    }
    clients[2].expect("USER alice", 331);
    let reply = clients[2].ask("PASS lab secret");
    assert_eq!(
        reply.text(),
        "421 Too many sessions on this host, try again later."
    );
    server.wait_for_log("limit=\"sessions_per_host\"");
    // The others are not concerned.
    let _elsewhere = server.login();
    let [first, ..] = &mut clients;
    first.expect("QUIT", 221);
    first.ended();
    eventually("room on the host", || {
        let mut client = lab(&server);
        login(&mut client, "lab secret") == 230
    });
}

#[test]
fn whoever_guesses_on_one_host_locks_nobody_out_on_another() {
    let server = setup()
        .set("limits.login_failures", 0)
        .set("limits.login_failures_per_user", 2)
        .start();
    let from = |number| {
        let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, number));
        Client::connect_from(source, server.address())
    };
    for number in [11, 12] {
        let mut client = from(number);
        client.expect("HOST shop.example", 220);
        assert_eq!(login(&mut client, "guess"), 530);
    }
    let log = server.wait_for_log("strangers are locked out of a user");
    assert!(log.contains("shop/alice"), "{log}");
    let mut client = from(13);
    client.expect("HOST shop.example", 220);
    assert_eq!(login(&mut client, "shop secret"), 530, "locked out");
    let mut client = from(13);
    assert_eq!(login(&mut client, PASSWORD), 230);
}

#[test]
fn users_of_hosts_have_their_own_quotas_and_are_told_apart() {
    let server = setup();
    for users in ["users.toml", "shop.toml"] {
        let path = server.folder().join(users);
        let mut text = fs::read_to_string(&path).expect("users");
        text.push_str("quota = \"1000 B\"\n");
        fs::write(&path, text).expect("written");
    }
    let server = server.start();
    let socket = server.folder().join("admin.sock");
    let ringftpd = |arguments: &[&str]| {
        let mut command = Command::new(program());
        let output = run(command.args(arguments).arg("--socket").arg(&socket)).success();
        String::from_utf8(output).expect("UTF-8")
    };
    let mut shop = server.connect();
    shop.expect("HOST shop.example", 220);
    assert_eq!(login(&mut shop, "shop secret"), 230);
    shop.stor("a", &[0; 900]);
    let mut own = server.connect();
    assert_eq!(login(&mut own, PASSWORD), 230);
    own.stor("a", &[0; 800]);
    let listed = ringftpd(&["quota", "list"]);
    let line = |name: &str| listed.lines().find(|line| line.ends_with(name));
    assert!(
        line("shop/alice").is_some_and(|line| line.contains("900")),
        "{listed}"
    );
    assert!(
        line(" alice").is_some_and(|line| line.contains("800")),
        "{listed}"
    );
    ringftpd(&["quota", "rescan", "shop/alice"]);
    shop.stor("b", &[0; 100]);
    let who = ringftpd(&["who"]);
    assert!(who.contains(" shop/alice "), "{who}");
    ringftpd(&["kick", "--user", "shop/alice"]);
    shop.reply(421);
    shop.ended();
    own.expect("NOOP", 200);
}

#[test]
fn hosts_come_change_and_go_by_a_reload() {
    let mut server = setup().start();
    let mut before = server.connect();
    before.expect("HOST shop.example", 220);
    server.set("host.shop.names", "[\"new.example\"]");
    server.set("host.shop.greeting", "\"The new shop.\"");
    server.reload().success();
    let mut client = server.connect();
    client.expect("HOST shop.example", 504);
    let reply = client.ask("HOST new.example");
    assert_eq!(reply.text(), "220 The new shop.");
    assert_eq!(login(&mut client, "shop secret"), 230);
    // It has found the host already.
    assert_eq!(login(&mut before, "shop secret"), 230);
}

#[test]
fn a_host_is_found_by_the_name_in_the_tls_handshake_and_has_its_own_certificate() {
    let setup = setup().tls();
    let folder = setup.folder().to_owned();
    write_certificate(&folder, "shop-tls", &["ftp.shop.example"], Kind::Ecdsa);
    write_certificate(&folder, "lab-tls", &["127.0.0.2"], Kind::Ecdsa);
    let own = |name| format!("[{}]", files(&folder, name));
    let server = setup
        .set("host.shop.certificates", own("shop-tls"))
        .set("host.lab.certificates", own("lab-tls"))
        .start();
    let curl = |host: &str, trusted: &str, password: &str| {
        let mut curl = Command::new("curl");
        let address = match host {
            "127.0.0.2" => server.addresses()[1],
            _ => server.address(),
        };
        let (ip, port) = (address.ip(), address.port());
        curl.args(["-sS", "--ssl-reqd", "--cacert"])
            .arg(certificate_of(&folder, trusted))
            .args(["--resolve", &format!("{host}:{port}:{ip}")])
            .args(["-u", &format!("alice:{password}")])
            .arg(format!("ftp://{host}:{port}/who"));
        run(&mut curl)
    };
    for host in ["alice", "shop", "lab"] {
        fs::write(folder.join(host).join("who"), host).expect("written");
    }
    // By name; by address, for which nothing is named; and the server itself.
    let shop = curl("ftp.shop.example", "shop-tls", "shop secret");
    assert_eq!(shop.success(), b"shop");
    let lab = curl("127.0.0.2", "lab-tls", "lab secret");
    assert_eq!(lab.success(), b"lab");
    let own = curl("localhost", "localhost", PASSWORD);
    assert_eq!(own.success(), b"alice");
    let wrong = curl("ftp.shop.example", "localhost", "shop secret");
    assert_eq!(wrong.code, Some(60), "another certificate: {}", wrong.err);

    // The TLS session is that of the shop, and HOST cannot lead elsewhere.
    let mut client = server.connect();
    client.expect("AUTH TLS", 234);
    let tls = TlsClient::trusting(&certificate_of(&folder, "shop-tls"));
    let stream = client.stream().try_clone().expect("a descriptor");
    let mut client = TlsSession::over(tls.wrap_for("ftp.shop.example", stream));
    client.expect("HOST lab.example", 504);
    let greeting = client.expect("HOST shop.example", 220);
    assert_eq!(greeting, "220 The shop.");
    client.expect("USER alice", 331);
    client.expect("PASS shop secret", 230);
}

#[test]
fn where_tls_comes_first_the_greeting_is_that_of_the_host_named_in_the_handshake() {
    let setup = setup()
        .set("listener.secure.address", "\"127.0.0.1:0\"")
        .set("listener.secure.tls", "\"implicit\"");
    let folder = setup.folder().to_owned();
    let names = ["localhost", "ftp.shop.example"];
    write_certificate(&folder, "both", &names, Kind::Ecdsa);
    let certificates = format!("[{}]", files(&folder, "both"));
    let server = setup.set("tls.certificates", certificates).start();
    let tls = TlsClient::trusting(&certificate_of(&folder, "both"));
    for (name, greeting) in names.iter().zip(["220 ringftpd ready.", "220 The shop."]) {
        let stream = TcpStream::connect(server.address()).expect("connected");
        let mut client = TlsSession::over(tls.wrap_for(name, stream));
        assert_eq!(client.reply(), greeting);
        client.expect("NOOP", 200);
    }
}

#[test]
fn check_looks_at_hosts_as_at_the_server() {
    let setup = setup()
        .set("host.lab.anonymous.enabled", true)
        .set("host.lab.anonymous.root", "\"/nonexistent\"");
    fs::write(setup.folder().join("shop.toml"), "garbage [").expect("written");
    let config = setup.write();
    let checked = run(Command::new(program())
        .args(["check", "--config"])
        .arg(&config));
    assert_ne!(checked.code, Some(0));
    for part in [
        "host.shop.users.file",
        "host.lab.anonymous.root",
        "/nonexistent",
    ] {
        assert!(checked.err.contains(part), "no {part:?} in {}", checked.err);
    }
}
