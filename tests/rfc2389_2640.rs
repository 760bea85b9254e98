//! RFC 2389 (FEAT, OPTS) and RFC 2640 (UTF-8, LANG): what is offered, and names as bytes.

mod common;

use std::ffi::OsStr;
use std::fs;
use std::os::unix::ffi::OsStrExt;
use std::os::unix::fs::symlink;
use std::path::PathBuf;

use common::{Client, TestServer, Way};

/// Names that clients have; what cannot stand in a line of FTP is not among them.
fn names() -> Vec<Vec<u8>> {
    let longest = "x".repeat(255);
    let utf8_longest = "é".repeat(127);
    let mut names: Vec<Vec<u8>> = [
        "plain",
        "two words",
        " leading space",
        "  two leading spaces",
        "trailing space ",
        "quo\"te",
        "\"",
        "\"\"",
        "it's",
        "back\\slash",
        "per%20cent%s%n",
        "ümläut",
        "日本語",
        "🦀",
        "e\u{301}",
        "a;b=c;",
        "type=dir; x",
        "~",
        "~root",
        "...",
        "..hidden",
        ".dot",
        "$HOME",
        "`id`",
        "a|b",
        "226 Transfer complete.",
        "213 End",
        "a:b",
        "#",
        "*",
        "a*b?c[d]e",
        &longest,
        &utf8_longest,
    ]
    .iter()
    .map(|name| name.as_bytes().to_vec())
    .collect();
    // ISO 8859-1, bytes that are never UTF-8, and the Telnet IAC, which has to be doubled.
    names.extend([
        b"caf\xe9".to_vec(),
        b"\xc3\x28\xfe".to_vec(),
        b"a\xffb\xff".to_vec(),
    ]);
    names
}

/// As it stands in a command.
fn sent(name: &[u8]) -> Vec<u8> {
    let bytes = name.iter().flat_map(|&byte| match byte {
        255 => vec![255, 255],
        byte => vec![byte],
    });
    bytes.collect()
}

fn line(verb: &str, name: &[u8]) -> Vec<u8> {
    [verb.as_bytes(), b" ", &sent(name)].concat()
}

#[track_caller]
fn path(server: &TestServer, name: &[u8]) -> PathBuf {
    server.root().join(OsStr::from_bytes(name))
}

#[test]
fn feat_lists_what_is_there() {
    let server = TestServer::start();
    // RFC 2389 §3: also before login.
    let reply = server.connect().expect("FEAT", 211);
    for line in reply.body() {
        assert!(
            line.starts_with(b" ") && !line.starts_with(b"  "),
            "{}",
            line.escape_ascii()
        );
    }
    let text = reply.text();
    for feature in [
        " UTF8",
        " EPRT",
        " EPSV",
        " SIZE",
        " MDTM",
        " REST STREAM",
        " TVFS",
        " MFMT",
        " LANG EN*",
        " HOST",
        " AVBL",
        " CLNT",
        " CSID",
        " XCRC",
        " XMD5",
        " XSHA1",
        " XSHA256",
    ] {
        assert!(
            text.lines().any(|line| line == feature),
            "{feature:?} in\n{text}"
        );
    }
    for feature in [" MLST type*;size*;modify*;", " HASH ", " MFF "] {
        assert!(
            text.lines().any(|line| line.starts_with(feature)),
            "{feature:?} in\n{text}"
        );
    }
    for absent in ["AUTH", "PBSZ", "PROT"] {
        assert!(!text.contains(absent), "{absent} in\n{text}");
    }
}

#[test]
fn options_and_languages() {
    let server = TestServer::start();
    let mut client = server.login();
    for (line, code) in [
        ("OPTS UTF8 ON", 200),
        ("OPTS utf8 on", 200),
        ("OPTS UTF8 OFF", 200),
        ("OPTS UTF-8 NLST", 200),
        ("OPTS UTF8 MAYBE", 501),
        ("OPTS RETR fast", 501),
        ("OPTS", 501),
        ("LANG", 200),
        ("LANG EN", 200),
        ("LANG en-GB", 200),
        ("LANG FR", 504),
    ] {
        client.expect(line, code);
    }
}

#[test]
fn files_have_any_name() {
    let server = TestServer::start();
    let mut client = server.login();
    for name in names() {
        let shown = name.escape_ascii();
        client.stor(sent(&name), &name);
        assert_eq!(
            fs::read(path(&server, &name)).ok().as_ref(),
            Some(&name),
            "STOR {shown}"
        );
        assert_eq!(client.retr(sent(&name)), name, "RETR {shown}");
        client.expect(line("SIZE", &name), 213);
        client.expect(line("MDTM", &name), 213);
        let reply = client.expect(line("MLST", &name), 250);
        let told = &reply.body()[0];
        assert!(
            told.ends_with(&[b"; /", &name[..]].concat()),
            "MLST {shown}: {}",
            reply.text()
        );
        assert_eq!(
            client
                .list("NLST -a")
                .iter()
                .filter(|line| **line == name)
                .count(),
            1,
            "{shown}"
        );
        let ends_with = |line: &Vec<u8>| line.ends_with(&[b" ", &name[..]].concat());
        assert_eq!(
            client
                .list("MLSD")
                .iter()
                .filter(|line| ends_with(line))
                .count(),
            1,
            "{shown}"
        );
        assert_eq!(
            client
                .list("LIST -a")
                .iter()
                .filter(|line| ends_with(line))
                .count(),
            1
        );
        let renamed = [b"r".as_slice(), &name[..name.len().min(254)]].concat();
        client.expect(line("RNFR", &name), 350);
        client.expect(line("RNTO", &renamed), 250);
        assert!(path(&server, &renamed).exists(), "RNTO {shown}");
        client.expect(line("DELE", &renamed), 250);
        assert_eq!(
            fs::read_dir(server.root()).expect("the root").count(),
            0,
            "DELE {shown}"
        );
    }
}

#[test]
fn directories_have_any_name() {
    let server = TestServer::start();
    let mut client = server.login();
    for name in names() {
        let shown = name.escape_ascii();
        let doubled = String::from_utf8_lossy(&name).replace('"', "\"\"");
        // RFC 959 Appendix II: quotes are doubled.
        let quoted = format!("257 \"/{doubled}\" ");
        let text = client.expect(line("MKD", &name), 257).text();
        assert!(text.starts_with(&quoted), "MKD {shown}: {text}");
        client.expect(line("CWD", &name), 250);
        let text = client.expect("PWD", 257).text();
        assert!(text.starts_with(&quoted), "PWD {shown}: {text}");
        client.stor("inner", b"x");
        client.expect("CDUP", 250);
        let listed = client.list(line("NLST -a", &[b"./", &name[..]].concat()));
        assert!(
            listed.iter().any(|line| line.ends_with(b"inner")),
            "NLST {shown}"
        );
        client.expect([&line("DELE", &name)[..], b"/inner"].concat(), 250);
        client.expect(line("RMD", &name), 250);
    }
}

#[test]
fn names_that_are_too_long_are_refused() {
    let server = TestServer::start();
    let mut client = server.login();
    let name = "x".repeat(256);
    for verb in ["MKD", "CWD", "SIZE", "DELE", "RNFR"] {
        let reply = client.ask(format!("{verb} {name}"));
        assert!([550, 553].contains(&reply.code), "{verb}: {}", reply.text());
    }
    client.passive(Way::Epsv);
    client.expect(format!("STOR {name}"), 553);
    assert_eq!(common::snapshot(&server.root()).len(), 0);
}

/// Expects that the name on the disk, which no client could have given, stays in its line.
#[track_caller]
fn shows_once(client: &mut Client, command: &str, part: &str, total: usize) {
    let lines = client.list(command);
    assert_eq!(lines.len(), total, "{command}: {lines:?}");
    let shown = lines
        .iter()
        .filter(|line| String::from_utf8_lossy(line).contains(part))
        .count();
    assert_eq!(shown, 1, "{command}: {lines:?}");
}

#[test]
fn newlines_of_names_on_the_disk_forge_nothing() {
    let server = TestServer::start();
    fs::create_dir(server.path("dir")).expect("a directory");
    let forged = "x\r\n226 Forged reply.\r\ntype=dir; y";
    server.put(&format!("dir/{forged}"), "content");
    symlink("a\r\n213 Forged end.\r\nb", server.path("dir/link")).expect("a link");
    let mut client = server.login();
    shows_once(&mut client, "LIST dir", "226 Forged", 2);
    shows_once(&mut client, "NLST dir", "226 Forged", 2);
    client.expect("OPTS MLST size;", 200);
    let lines = client.list("MLSD dir");
    let with_size = lines
        .iter()
        .filter(|line| line.starts_with(b"size="))
        .count();
    assert_eq!(with_size, lines.len(), "{lines:?}");
    let reply = client.expect("STAT dir", 213);
    assert_eq!(reply.body().len(), 2, "{}", reply.text());
    assert_eq!(client.expect("NOOP", 200).lines.len(), 1);
    client.expect("MLST dir", 250);
    client.expect("SYST", 215);
}

#[test]
fn a_reply_cannot_be_forged_by_a_greeting_of_bytes() {
    let server = TestServer::start();
    // The file's line in a listing of STAT begins with what looks like the end of the reply.
    server.put("213 End of status.", "");
    fs::create_dir(server.path("d")).expect("a directory");
    server.put("d/213 End of status.", "");
    let mut client = server.login();
    for command in ["STAT .", "STAT d", "STAT -l d", "STAT -1 d"] {
        client.expect(command, 213);
        client.expect("SYST", 215);
    }
}
