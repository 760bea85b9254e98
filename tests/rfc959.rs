//! RFC 959: access control, parameters, transfers both ways and over both kinds of data connection,
//! and the commands of the tree.

mod common;

use std::fs;
use std::net::{TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt;

use common::{Client, Setup, TestServer, Way, eventually, noise};

#[test]
fn nothing_works_before_login_but_what_must() {
    let server = TestServer::start();
    server.put("file", "content");
    let mut client = server.connect();
    for line in [
        "PWD",
        "CWD /",
        "CDUP",
        "LIST",
        "NLST",
        "MLSD",
        "MLST",
        "RETR file",
        "STOR new",
        "APPE file",
        "STOU",
        "DELE file",
        "RMD d",
        "MKD d",
        "RNFR file",
        "RNTO new",
        "SIZE file",
        "MDTM file",
        "PASV",
        "EPSV",
        "PORT 127,0,0,1,200,1",
        "EPRT |1|127.0.0.1|51201|",
        "STAT",
        "STAT file",
        "REST 1",
        "SITE CHMOD 777 file",
        "MFMT 20260101000000 file",
        "HASH file",
        "XCRC file",
        "AVBL",
        "ALLO 1",
        "TYPE I",
        "MODE S",
        "STRU F",
    ] {
        client.expect(line, 530);
    }
    for (line, code) in [
        ("NOOP", 200),
        ("SYST", 215),
        ("FEAT", 211),
        ("HELP", 214),
        ("OPTS UTF8 ON", 200),
        ("PASS too early", 503),
        ("ACCT x", 503),
        ("NONSENSE", 500),
        ("USER anonymous", 331),
        ("RETR file", 530),
        ("PASS x", 230),
        ("PWD", 257),
    ] {
        client.expect(line, code);
    }
    assert_eq!(server.get("file"), Some(b"content".to_vec()));
}

#[test]
fn users_have_passwords_and_trees_of_their_own() {
    let server = Setup::new()
        .set("anonymous.enabled", false)
        .user("alice", "read-write")
        .user("bob", "read-only")
        .start();
    let mut alice = Client::login_as(server.address(), "alice");
    alice.stor("hers", b"secret");
    assert_eq!(
        fs::read(server.folder().join("alice/hers")).expect("stored"),
        b"secret"
    );
    let mut bob = Client::login_as(server.address(), "bob");
    bob.expect("SIZE hers", 550);
    bob.expect("SIZE ../alice/hers", 550);
    bob.expect("MKD d", 550);
    // A user who does not exist is refused as one with a wrong password is.
    for user in ["alice", "carol", "anonymous"] {
        let mut stranger = server.connect();
        stranger.expect(format!("USER {user}"), 331);
        stranger.expect("PASS wrong", 530);
        stranger.expect("PWD", 530);
    }
}

#[test]
fn wrong_passwords_end_the_session() {
    let server = Setup::new()
        .user("alice", "read-write")
        .set("limits.login_attempts", 2)
        .start();
    let mut client = server.connect();
    client.expect("USER alice", 331);
    client.expect("PASS wrong", 530);
    client.expect("USER alice", 331);
    client.expect("PASS wrong again", 421);
    client.ended();
}

#[test]
fn rein_returns_to_the_state_of_the_beginning() {
    let server = Setup::new().user("alice", "read-write").start();
    let mut client = Client::login_as(server.address(), "alice");
    client.expect("MKD d", 257);
    client.expect("CWD d", 250);
    client.expect("REST 5", 350);
    client.expect("EPSV ALL", 200);
    client.expect("REIN", 220);
    client.expect("PWD", 530);
    client.expect("USER anonymous", 331);
    client.expect("PASS x", 230);
    assert!(client.expect("PWD", 257).text().contains("\"/\""));
    // TYPE A is the default again, EPSV ALL and REST are forgotten.
    server.put("file", "a\nb\n");
    assert_eq!(client.download(Way::Pasv, "RETR file"), b"a\r\nb\r\n");
}

#[test]
fn quit_says_goodbye_and_closes() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.expect("QUIT", 221);
    client.ended();
    let mut client = server.login();
    client.expect("QUIT", 221);
    client.ended();
}

#[test]
fn parameters_are_answered_by_what_is_served() {
    let server = TestServer::start();
    let mut client = server.login();
    for (line, code) in [
        // RFC 959 §4.1.2 and §5.4.
        ("TYPE A", 200),
        ("TYPE A N", 200),
        ("type i", 200),
        ("TYPE L 8", 200),
        ("TYPE E", 504),
        ("TYPE A T", 504),
        ("TYPE A C", 504),
        ("TYPE L 7", 504),
        ("TYPE X", 501),
        ("TYPE", 501),
        ("STRU F", 200),
        ("STRU R", 504),
        ("STRU P", 504),
        ("STRU X", 501),
        ("MODE S", 200),
        ("MODE B", 504),
        ("MODE C", 504),
        ("MODE", 501),
        ("ALLO 1000", 202),
        ("ALLO 1000 R 10", 202),
        ("ALLO many", 501),
        ("NOOP", 200),
        ("NOOP with junk", 200),
        ("SYST", 215),
        ("HELP", 214),
        ("HELP RETR", 214),
        ("HELP NONSENSE", 501),
        ("STAT", 211),
        ("ACCT x", 202),
        ("SMNT /", 502),
        ("AUTH TLS", 502),
        ("USER", 501),
        ("REST", 501),
        ("REST -1", 501),
        ("REST 1x", 501),
        ("REST 99999999999999999999999", 501),
        ("NONSENSE", 500),
        ("", 500),
    ] {
        let reply = client.ask(line);
        assert_eq!(reply.code, code, "{line:?}: {}", reply.text());
    }
    assert!(client.expect("SYST", 215).text().contains("UNIX Type: L8"));
}

#[test]
fn the_verbs_of_before_rfc_959_still_work() {
    let server = TestServer::start();
    let mut client = server.login();
    // RFC 1123 §4.1.3.1.
    client.expect("XMKD old", 257);
    client.expect("XCWD old", 250);
    assert!(client.expect("XPWD", 257).text().contains("\"/old\""));
    client.expect("XCUP", 250);
    client.expect("XRMD old", 250);
    assert!(!server.path("old").exists());
}

#[test]
fn files_of_all_sizes_go_both_ways_over_every_data_connection() {
    let server = TestServer::start();
    let mut client = server.login();
    for way in Way::ALL {
        for length in [0, 1, 511, 4096, 65_537, 1024 * 1024, 5 * 1024 * 1024 + 3] {
            let content = noise(length, length as u64 + 1);
            let name = format!("{way:?}{length}");
            client.upload(way, format!("STOR {name}"), &content);
            assert!(server.get(&name).expect("stored") == content, "STOR {name}");
            assert!(
                client.download(way, format!("RETR {name}")) == content,
                "RETR {name}"
            );
        }
    }
}

#[test]
fn the_active_source_port_is_the_configured_one() {
    let free = TcpListener::bind("127.0.0.1:0").expect("a free port");
    let port = free.local_addr().expect("an address").port();
    drop(free);
    let server = Setup::new().set("data.active_source_port", port).start();
    server.put("file", "content");
    let mut client = server.login();
    // Twice: the port must be usable again at once, also while it is in use.
    let first = client.begin(Way::Port, "RETR file");
    client.reply(226);
    let second = client.begin(Way::Eprt, "RETR file");
    client.reply(226);
    for stream in [first, second] {
        assert_eq!(stream.peer_addr().expect("an address").port(), port);
    }
}

#[test]
fn a_transfer_needs_a_data_connection() {
    let server = TestServer::start();
    server.put("file", "content");
    let mut client = server.login();
    for line in [
        "RETR file",
        "LIST",
        "NLST",
        "MLSD",
        "STOR new",
        "APPE new",
        "STOU",
    ] {
        client.expect(line, 425);
    }
    // A prepared one serves a single transfer.
    assert_eq!(client.retr("file"), b"content");
    client.expect("RETR file", 425);
    // A client that does not listen where it said.
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    let port = listener.local_addr().expect("an address").port();
    drop(listener);
    client.expect(format!("PORT 127,0,0,1,{},{}", port >> 8, port & 255), 200);
    client.expect("STOR new", 425);
    assert_eq!(server.get("new"), None);
}

#[test]
fn a_client_that_does_not_connect_gets_425_in_time() {
    let server = Setup::new().set("data.accept_timeout", "\"1 s\"").start();
    server.put("file", "content");
    let mut client = server.login();
    client.passive(Way::Pasv);
    client.expect("RETR file", 425);
    client.passive(Way::Epsv);
    client.expect("STOR new", 425);
    assert_eq!(server.get("new"), None);
    assert_eq!(client.retr("file"), b"content");
}

#[test]
fn port_goes_only_to_the_client_itself() {
    let server = TestServer::start();
    server.put("file", "content");
    let mut client = server.login();
    for (line, code) in [
        // RFC 2577 §3: no third parties, no system ports.
        ("PORT 127,0,0,2,200,1", 504),
        ("PORT 192,0,2,1,200,1", 504),
        ("PORT 127,0,0,1,0,25", 504),
        ("PORT 127,0,0,1,3,255", 504),
        ("PORT", 501),
        ("PORT 127,0,0,1,200", 501),
        ("PORT 127,0,0,1,200,1,1", 501),
        ("PORT 127,0,0,1,256,1", 501),
        ("PORT 127,0,0,1,-1,1", 501),
        ("PORT 127.0.0.1,200,1", 501),
        ("PORT a,b,c,d,e,f", 501),
    ] {
        client.expect(line, code);
        client.expect("RETR file", 425);
    }
}

#[test]
fn a_new_port_or_pasv_replaces_the_one_before() {
    let server = TestServer::start();
    server.put("file", "content");
    let mut client = server.login();
    let old = client.passive(Way::Pasv);
    let new = client.passive(Way::Epsv);
    assert_ne!(old, new);
    let mut stream = TcpStream::connect(new).expect("the new port");
    client.expect("RETR file", 150);
    assert_eq!(common::read_all(&mut stream), b"content");
    client.reply(226);
    client.passive(Way::Pasv);
    assert_eq!(client.download(Way::Port, "RETR file"), b"content");
}

#[test]
fn appe_adds_to_what_is_there() {
    let server = TestServer::start();
    let mut client = server.login();
    client.upload(Way::Epsv, "APPE log", b"one ");
    client.upload(Way::Port, "APPE log", b"two ");
    client.upload(Way::Pasv, "APPE log", &[b'x'; 300_000]);
    let expected = [b"one two ".as_slice(), &[b'x'; 300_000]].concat();
    assert!(server.get("log") == Some(expected));
}

#[test]
fn stou_finds_a_name_and_tells_it() {
    let server = TestServer::start();
    let mut client = server.login();
    let mut names = Vec::new();
    for (number, command) in ["STOU", "STOU", "STOU taken", "STOU taken"]
        .iter()
        .enumerate()
    {
        let data = client.data(Way::Epsv);
        let reply = client.expect(command, 150);
        // RFC 1123 §4.1.2.9: exactly this form.
        let name = reply
            .argument()
            .strip_prefix(b"FILE: ")
            .expect("FILE: name")
            .to_vec();
        let mut stream = data.stream();
        std::io::Write::write_all(&mut stream, &[number as u8]).expect("the server reads");
        drop(stream);
        client.reply(226);
        names.push(String::from_utf8(name).expect("a name in ASCII"));
    }
    for (number, name) in names.iter().enumerate() {
        assert_eq!(server.get(name), Some(vec![number as u8]), "{name}");
    }
    assert_eq!(names[2], "taken");
    assert!(names[3].starts_with("taken"), "{names:?}");
}

#[test]
fn rest_begins_in_the_middle() {
    let server = TestServer::start();
    let content = noise(300_000, 7);
    server.put("file", &content);
    let mut client = server.login();
    for offset in [0, 1, 4096, 299_999, 300_000] {
        client.expect(format!("REST {offset}"), 350);
        assert!(
            client.retr("file") == content[offset..],
            "RETR from {offset}"
        );
        // It holds for one transfer.
        assert!(
            client.retr("file") == content,
            "RETR after that from {offset}"
        );
    }
    client.expect("REST 300001", 350);
    client.data(Way::Epsv);
    client.expect("RETR file", 554);
    for offset in [1_usize, 150_000, 300_000] {
        server.put("file", &content[..offset]);
        client.expect(format!("REST {offset}"), 350);
        client.upload(Way::Pasv, "STOR file", &content[offset..]);
        assert!(
            server.get("file").as_ref() == Some(&content),
            "STOR from {offset}"
        );
    }
    // What lies behind the end of a restarted upload is gone.
    client.expect("REST 10", 350);
    client.upload(Way::Epsv, "STOR file", b"end");
    assert!(server.get("file").expect("the file") == [&content[..10], b"end"].concat());
    client.expect("REST 14", 350);
    client.data(Way::Epsv);
    client.expect("STOR file", 554);
    client.expect("REST 14", 350);
    client.data(Way::Epsv);
    client.expect("STOR missing", 553);
    assert_eq!(server.get("missing"), None);
}

#[test]
fn directories_are_made_entered_and_removed() {
    let server = TestServer::start();
    server.put("file", "content");
    let mut client = server.login();
    for (line, code) in [
        ("MKD a", 257),
        ("MKD a", 550),
        ("MKD a/b", 257),
        ("MKD missing/b", 550),
        ("MKD", 501),
        ("CWD a/b", 250),
        ("CWD missing", 550),
        ("CWD /file", 550),
        ("CDUP", 250),
        ("RMD missing", 550),
        ("RMD /file", 550),
        ("RMD /a", 550),
        ("RMD b", 250),
        ("CDUP", 250),
        ("RMD a", 250),
        ("RMD /", 550),
        ("DELE missing", 550),
        ("DELE file", 250),
        ("DELE file", 550),
        ("CWD ..", 250),
        ("CWD ../../..", 250),
    ] {
        client.expect(line, code);
    }
    assert!(client.expect("PWD", 257).text().starts_with("257 \"/\""));
    assert_eq!(fs::read_dir(server.root()).expect("the root").count(), 0);
}

#[test]
fn a_name_changes_by_rnfr_and_rnto() {
    let server = TestServer::start();
    server.put("old", "content");
    fs::create_dir(server.path("d")).expect("a directory");
    let mut client = server.login();
    client.expect("RNTO new", 503);
    client.expect("RNFR missing", 550);
    client.expect("RNTO new", 503);
    client.expect("RNFR old", 350);
    // RFC 959 §4.1.3: RNTO must follow at once.
    client.expect("NOOP", 200);
    client.expect("RNTO new", 503);
    client.expect("RNFR old", 350);
    client.expect("NONSENSE", 500);
    client.expect("RNTO new", 503);
    client.expect("RNFR old", 350);
    client.expect("RNTO d/new", 250);
    assert_eq!(server.get("d/new"), Some(b"content".to_vec()));
    assert_eq!(server.get("old"), None);
    client.expect("RNFR d", 350);
    client.expect("RNTO d/below", 553);
    client.expect("RNFR d", 350);
    client.expect("RNTO e", 250);
    assert_eq!(server.get("e/new"), Some(b"content".to_vec()));
}

#[test]
fn list_is_that_of_ls() {
    let server = TestServer::start();
    server.put("b", "12345");
    server.put("a", "");
    server.put(".hidden", "");
    fs::create_dir(server.path("dir")).expect("a directory");
    server.put("dir/inner", "1");
    std::os::unix::fs::symlink("b", server.path("link")).expect("a link");
    fs::set_permissions(server.path("b"), fs::Permissions::from_mode(0o640)).expect("a mode");
    let mut client = server.login();
    let lines = client.list("LIST");
    let lines: Vec<String> = lines
        .iter()
        .map(|l| String::from_utf8_lossy(l).into())
        .collect();
    assert_eq!(lines.len(), 4, "{lines:?}");
    let b = lines
        .iter()
        .find(|line| line.ends_with(" b"))
        .expect("a line for b");
    assert!(b.starts_with("-rw-r----- "), "{b}");
    assert_eq!(b.split_whitespace().nth(4), Some("5"), "{b}");
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with('d') && line.ends_with(" dir")),
        "{lines:?}"
    );
    assert!(
        lines
            .iter()
            .any(|line| line.starts_with('l') && line.ends_with(" link -> b"))
    );
    let all = client.list("LIST -la");
    assert!(all.iter().any(|line| line.ends_with(b" .hidden")));
    assert!(all.iter().any(|line| line.ends_with(b" .")));
    let count = |client: &mut Client, line: &str| client.list(line).len();
    for (line, lines) in [
        ("LIST dir", 1),
        ("LIST /dir/", 1),
        ("LIST b", 1),
        ("LIST -d dir", 1),
        ("LIST *", 4),
        ("LIST [ab]", 2),
        ("LIST nothing*", 0),
        ("NLST", 4),
        ("NLST -a", 7),
        ("NLST dir", 1),
        ("NLST b", 1),
        ("NLST -CF", 4),
    ] {
        assert_eq!(count(&mut client, line), lines, "{line}");
    }
    for line in [
        "LIST missing",
        "NLST missing",
        "MLSD missing",
        "STAT missing",
    ] {
        client.data(Way::Epsv);
        let reply = client.ask(line);
        assert!([450, 550].contains(&reply.code), "{line}: {}", reply.text());
    }
}

#[test]
fn names_of_nlst_can_be_used_as_they_are() {
    let server = TestServer::start();
    fs::create_dir(server.path("dir")).expect("a directory");
    server.put("dir/one", "1");
    server.put("dir/two", "22");
    let mut client = server.login();
    for command in [
        "NLST dir",
        "NLST dir/",
        "NLST /dir",
        "NLST dir/*",
        "NLST dir/one",
    ] {
        let names = client.list(command);
        assert!(!names.is_empty(), "{command}");
        for name in names {
            // RFC 1123 §4.1.2.7.
            assert!(
                !client.retr(&name).is_empty(),
                "{command}: {}",
                name.escape_ascii()
            );
        }
    }
}

#[test]
fn stat_with_a_name_lists_over_the_control_connection() {
    let server = TestServer::start();
    fs::create_dir(server.path("dir")).expect("a directory");
    for number in 0..2000 {
        server.put(&format!("dir/{number}"), "");
    }
    let mut client = server.login();
    let reply = client.expect("STAT dir", 213);
    assert_eq!(reply.body().len(), 2000, "{}", reply.text());
    let reply = client.expect("STAT dir/7", 213);
    assert_eq!(reply.body().len(), 1, "{}", reply.text());
    assert!(client.expect("STAT", 211).text().contains("anonymous"));
}

#[test]
fn a_silent_session_ends_with_421() {
    let server = Setup::new()
        .set("limits.login_timeout", "\"1 s\"")
        .set("limits.idle_timeout", "\"2 s\"")
        .start();
    let mut stranger = server.connect();
    let mut client = server.login();
    stranger.reply(421);
    stranger.ended();
    client.reply(421);
    client.ended();
}

#[test]
fn a_transfer_is_no_silence() {
    let server = Setup::new().set("limits.idle_timeout", "\"1 s\"").start();
    let mut client = server.login();
    let mut stream = client.begin(Way::Epsv, "STOR slow");
    let started = std::time::Instant::now();
    eventually("the idle timeout has passed twice", || {
        std::io::Write::write_all(&mut stream, b".").expect("the server reads");
        started.elapsed().as_millis() > 2000
    });
    drop(stream);
    client.reply(226);
    client.expect("NOOP", 200);
    client.reply(421);
}

#[test]
fn who_may_only_read_changes_nothing() {
    let server = Setup::new()
        .set("anonymous.access", "\"read-only\"")
        .start();
    server.put("file", "content");
    fs::create_dir(server.path("dir")).expect("a directory");
    let before = common::snapshot(&server.root());
    let mut client = server.login();
    for line in [
        "STOR new",
        "STOR file",
        "APPE file",
        "STOU",
        "DELE file",
        "RMD dir",
        "MKD new",
        "RNFR file",
        "SITE CHMOD 777 file",
        "SITE UTIME 20200101000000 file",
        "MFMT 20200101000000 file",
        "MFF Modify=20200101000000; file",
    ] {
        if line.starts_with(['S', 'A']) {
            client.passive(Way::Epsv);
        }
        client.expect(line, 550);
    }
    client.expect("RNTO new", 503);
    assert_eq!(common::snapshot(&server.root()), before);
    assert_eq!(client.retr("file"), b"content");
}
