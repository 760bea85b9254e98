//! RFC 3659: SIZE, MDTM, REST, MLST and MLSD; and RFC 959 §3.1.1.1, TYPE A, to the byte.

mod common;

use std::collections::BTreeMap;
use std::fs::{self, File, FileTimes};
use std::os::unix::fs::{MetadataExt, symlink};
use std::path::Path;
use std::time::{Duration, SystemTime};

use common::{Client, Random, Setup, TestServer, Way, noise};

/// 2026-01-02 03:04:05 UTC.
const SOME_TIME: u64 = 1_767_323_045;

fn set_modified(path: &Path, seconds: u64) {
    let time = SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
    let file = File::open(path).expect("a file");
    file.set_times(FileTimes::new().set_modified(time))
        .expect("a time");
}

/// A line of MLSD or MLST: facts by their names, and the name.
#[track_caller]
fn facts(line: &[u8]) -> (BTreeMap<String, String>, Vec<u8>) {
    let space = line
        .iter()
        .position(|&byte| byte == b' ')
        .expect("facts, a space, a name");
    let text = std::str::from_utf8(&line[..space]).expect("facts in ASCII");
    let mut facts = BTreeMap::new();
    for fact in text.split_terminator(';') {
        let (name, value) = fact.split_once('=').expect("name=value");
        let twice = facts.insert(name.to_ascii_lowercase(), value.to_owned());
        assert_eq!(twice, None, "{text}");
    }
    assert!(
        text.is_empty() || text.ends_with(';'),
        "RFC 3659 §7.2: {text}"
    );
    (facts, line[space + 1..].to_vec())
}

/// The entries of a directory by their names.
#[track_caller]
fn mlsd(client: &mut Client, command: &str) -> BTreeMap<Vec<u8>, BTreeMap<String, String>> {
    let lines = client.list(command);
    lines
        .iter()
        .map(|line| facts(line))
        .map(|(facts, name)| (name, facts))
        .collect()
}

/// What TYPE A makes of a file of this system: LF becomes CRLF, unless a CR stands before it.
fn in_type_a(local: &[u8]) -> Vec<u8> {
    let mut network = Vec::new();
    for (index, &byte) in local.iter().enumerate() {
        if byte == b'\n' && (index == 0 || local[index - 1] != b'\r') {
            network.push(b'\r');
        }
        network.push(byte);
    }
    network
}

#[test]
fn size_is_what_a_transfer_would_have() {
    let server = TestServer::start();
    fs::create_dir(server.path("dir")).expect("a directory");
    let mut client = server.login();
    for content in [
        b"".as_slice(),
        b"x",
        b"a\nb\n",
        b"a\r\nb\r\n",
        b"\n\n\n\r",
        &noise(70_000, 1),
    ] {
        server.put("file", content);
        for (kind, expected) in [("TYPE I", content.to_vec()), ("TYPE A", in_type_a(content))] {
            client.expect(kind, 200);
            let size = client.expect("SIZE file", 213).argument().to_vec();
            assert_eq!(size, expected.len().to_string().as_bytes(), "{kind}");
            assert!(client.retr("file") == expected, "{kind}");
        }
    }
    // RFC 3659 §4.2: 550 for what has no size.
    for line in ["SIZE dir", "SIZE missing", "SIZE /"] {
        client.expect(line, 550);
    }
    client.expect("SIZE", 501);
}

#[test]
fn sizes_beyond_4_gib_are_exact() {
    let server = TestServer::start();
    let length = (5_u64 << 30) + 7;
    File::create(server.path("large"))
        .and_then(|file| file.set_len(length))
        .expect("a file");
    let mut client = server.login();
    assert_eq!(
        client.expect("SIZE large", 213).argument(),
        length.to_string().as_bytes()
    );
    client.expect(format!("REST {}", length - 3), 350);
    assert_eq!(client.retr("large"), [0; 3]);
    client.expect(format!("REST {length}"), 350);
    client.upload(Way::Epsv, "STOR large", b"end");
    assert_eq!(
        fs::metadata(server.path("large")).expect("the file").len(),
        length + 3
    );
}

#[test]
fn mdtm_tells_the_time_in_utc() {
    let server = TestServer::start();
    server.put("file", "content");
    fs::create_dir(server.path("dir")).expect("a directory");
    let mut client = server.login();
    for (seconds, text) in [
        (SOME_TIME, "20260102030405"),
        (0, "19700101000000"),
        (951_782_400, "20000229000000"),
        (4_102_444_800, "21000101000000"),
    ] {
        set_modified(&server.path("file"), seconds);
        assert_eq!(client.expect("MDTM file", 213).argument(), text.as_bytes());
    }
    client.expect("MDTM missing", 550);
    client.expect("MDTM", 501);
}

#[test]
fn mlst_tells_the_facts_of_one_entry() {
    let server = TestServer::start();
    fs::create_dir(server.path("dir")).expect("a directory");
    server.put("dir/file", "12345");
    set_modified(&server.path("dir/file"), SOME_TIME);
    let mut client = server.login();
    let reply = client.expect("MLST dir/file", 250);
    // RFC 3659 §7.2: one line, behind one space.
    let [line] = reply.body() else {
        panic!("one line: {}", reply.text());
    };
    let (found, name) = facts(line.strip_prefix(b" ").expect("a space in front"));
    assert_eq!(name, b"/dir/file");
    assert_eq!(found["type"], "file");
    assert_eq!(found["size"], "5");
    assert_eq!(found["modify"], "20260102030405");
    assert_eq!(found["unix.mode"], "0644");
    for letter in ['r', 'w', 'a', 'd', 'f'] {
        assert!(found["perm"].contains(letter), "{found:?}");
    }
    client.expect("CWD dir", 250);
    for (line, name) in [("MLST", "/dir"), ("MLST .", "/dir"), ("MLST /", "/")] {
        let reply = client.expect(line, 250);
        let (found, path) = facts(&reply.body()[0][1..]);
        assert_eq!(
            (found["type"].as_str(), path),
            ("dir", name.as_bytes().to_vec()),
            "{line}"
        );
        assert!(!found.contains_key("size"), "§7.5.7: {found:?}");
    }
    client.expect("MLST missing", 550);
}

#[test]
fn mlsd_lists_a_directory_and_nothing_else() {
    let server = TestServer::start();
    for directory in ["dir", "dir/sub"] {
        fs::create_dir(server.path(directory)).expect("a directory");
    }
    server.put("dir/file", "12345");
    server.put("dir/.hidden", "");
    server.put("outside-of-dir", "");
    fs::hard_link(server.path("dir/file"), server.path("dir/same")).expect("a hard link");
    symlink("file", server.path("dir/link")).expect("a link");
    symlink("nowhere", server.path("dir/broken")).expect("a link");
    let mut client = server.login();
    let entries = mlsd(&mut client, "MLSD dir");
    let of_type = |wanted: &str| {
        let found = entries
            .iter()
            .filter(|(_, facts)| facts["type"].starts_with(wanted));
        found
            .map(|(name, _)| String::from_utf8_lossy(name).into_owned())
            .collect::<Vec<_>>()
    };
    assert_eq!(of_type("file"), [".hidden", "file", "link", "same"]);
    assert_eq!(of_type("dir"), ["sub"]);
    assert_eq!(of_type("OS.unix=slink"), ["broken"]);
    assert!(of_type("cdir").len() <= 1 && of_type("pdir").len() <= 1);
    let name = |name: &str| &entries[name.as_bytes()];
    // §7.5.2: the same for names of the same file, different for others.
    assert_eq!(name("file")["unique"], name("same")["unique"]);
    assert_ne!(name("file")["unique"], name(".hidden")["unique"]);
    assert_eq!(name("link")["size"], "5");
    for letter in ['c', 'd', 'e', 'f', 'l', 'm', 'p'] {
        assert!(name("sub")["perm"].contains(letter), "{:?}", name("sub"));
    }
    for (line, codes) in [("MLSD dir/file", [501, 550]), ("MLSD missing", [550, 550])] {
        client.passive(Way::Epsv);
        let reply = client.ask(line);
        assert!(codes.contains(&reply.code), "{line}: {}", reply.text());
    }
    assert!(
        mlsd(&mut client, "MLSD dir/sub")
            .values()
            .all(|facts| facts["type"].len() == 4)
    );
}

#[test]
fn perm_tells_what_the_user_may_do() {
    let server = Setup::new()
        .set("anonymous.access", "\"read-only\"")
        .start();
    server.put("file", "12345");
    fs::create_dir(server.path("dir")).expect("a directory");
    let mut client = server.login();
    let entries = mlsd(&mut client, "MLSD");
    assert_eq!(entries[b"file".as_slice()]["perm"], "r");
    assert_eq!(entries[b"dir".as_slice()]["perm"], "el");
}

#[test]
fn opts_mlst_chooses_facts() {
    let server = TestServer::start();
    server.put("file", "12345");
    let mut client = server.login();
    let text = client.expect("OPTS MLST size;Type;nonsense;", 200).text();
    // RFC 3659 §7.9.
    assert_eq!(text.to_ascii_lowercase(), "200 mlst opts type;size;");
    let reply = client.expect("MLST file", 250);
    assert_eq!(
        reply.body()[0].to_ascii_lowercase(),
        b" type=file;size=5; /file"
    );
    let feature = |client: &mut Client| {
        let text = client.expect("FEAT", 211).text();
        let line = text
            .lines()
            .find(|line| line.starts_with(" MLST "))
            .map(str::to_ascii_lowercase);
        line.expect("MLST in FEAT")
    };
    let line = feature(&mut client);
    assert!(line.contains("type*;size*;modify;"), "{line}");
    assert_eq!(line.matches('*').count(), 2, "{line}");
    client.expect("OPTS MLST", 200);
    assert_eq!(client.list("MLSD"), [b" file"]);
    assert_eq!(feature(&mut client).matches('*').count(), 0);
    // A new session has all facts.
    assert!(feature(&mut server.login()).matches('*').count() >= 6);
}

#[test]
fn type_a_converts_line_ends_and_nothing_else() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.expect("USER anonymous", 331);
    client.expect("PASS x", 230);
    let bytes: Vec<u8> = (0..=255).collect();
    let cases: [(&[u8], &[u8]); 8] = [
        (b"", b""),
        (b"a\r\nb\r\n", b"a\nb\n"),
        (b"no end", b"no end"),
        (b"\r\n\r\n\r\n", b"\n\n\n"),
        (b"a\rb\r", b"a\rb\r"),
        (b"a\nb", b"a\nb"),
        (b"\r\r\n", b"\r\n"),
        (&bytes, &bytes),
    ];
    for (network, local) in cases {
        client.stor("file", network);
        let stored = server.get("file").expect("stored");
        assert_eq!(stored, local, "STOR of {}", network.escape_ascii());
        assert_eq!(
            client.retr("file"),
            in_type_a(local),
            "RETR of {}",
            local.escape_ascii()
        );
    }
    client.upload(Way::Port, "APPE file2", b"one\r\n");
    client.upload(Way::Port, "APPE file2", b"two\r\n");
    assert_eq!(server.get("file2"), Some(b"one\ntwo\n".to_vec()));
}

/// Lines of every length, so that line ends fall on every edge of every buffer.
fn text(length: usize) -> Vec<u8> {
    let mut random = Random::new(9);
    let mut text = Vec::with_capacity(length + 300);
    while text.len() < length {
        text.resize(text.len() + random.below(120), b'x');
        text.push(b'\n');
    }
    text
}

#[test]
fn type_a_is_exact_for_large_files() {
    let server = TestServer::start();
    let mut client = server.login();
    client.expect("TYPE A", 200);
    for local in [text(3_000_000), vec![b'\n'; 1_200_000], noise(2_000_000, 3)] {
        let network = in_type_a(&local);
        server.put("file", &local);
        assert!(client.retr("file") == network, "RETR");
        assert_eq!(
            client.expect("SIZE file", 213).argument(),
            network.len().to_string().as_bytes()
        );
    }
    let local = text(3_000_000);
    client.stor("copy", &in_type_a(&local));
    assert!(server.get("copy") == Some(local), "STOR");
}

#[test]
fn cr_and_lf_of_an_upload_in_type_a_may_come_in_separate_packets() {
    use std::io::Write;
    let server = TestServer::start();
    let mut client = server.login();
    client.expect("TYPE A", 200);
    let mut stream = client.begin(Way::Epsv, "STOR file");
    stream.set_nodelay(true).expect("TCP_NODELAY");
    let mut sent = 0;
    for piece in ["a\r", "\nb\r", "\r", "\n", "\r"] {
        stream
            .write_all(piece.as_bytes())
            .expect("the server reads");
        sent += piece.len() as u64;
        client.wait_for_progress(sent);
    }
    drop(stream);
    client.reply(226);
    assert_eq!(server.get("file"), Some(b"a\nb\r\n\r".to_vec()));
}

#[test]
fn rest_in_type_a_counts_what_is_transferred() {
    let server = TestServer::start();
    let local = b"one\ntwo\r\n\n\nthree\rfour\n";
    let network = in_type_a(local);
    server.put("file", local);
    let mut client = server.login();
    client.expect("TYPE A", 200);
    for offset in 0..=network.len() {
        // RFC 3659 §5.3: offsets count bytes of the transfer.
        client.expect(format!("REST {offset}"), 350);
        let rest = client.retr("file");
        assert_eq!(rest, network[offset..], "RETR from {offset}");
    }
    client.expect(format!("REST {}", network.len() + 1), 350);
    client.data(Way::Epsv);
    let mut reply = client.ask("RETR file");
    if reply.code == 150 {
        reply = client.next_reply();
    }
    assert_eq!(reply.code, 554, "{}", reply.text());
}

#[test]
fn uploads_in_type_a_can_be_resumed() {
    let server = TestServer::start();
    let network = b"one\r\ntwo\r\n\r\n\r\nthree\r\n";
    let local = b"one\ntwo\n\n\nthree\n";
    let mut client = server.login();
    client.expect("TYPE A", 200);
    for offset in 1..network.len() {
        if network[offset] == b'\n' {
            continue;
        }
        server.put("file", local);
        client.expect(format!("REST {offset}"), 350);
        client.upload(Way::Epsv, "STOR file", &network[offset..]);
        let stored = server.get("file").expect("the file");
        assert_eq!(stored, local, "STOR from {offset}");
    }
}

#[test]
fn a_listing_of_100_000_entries_is_whole() {
    let server = TestServer::start();
    fs::create_dir(server.path("dir")).expect("a directory");
    let mut expected: Vec<Vec<u8>> = Vec::new();
    for number in 0..100_000 {
        let name = format!("{number:06}");
        File::create(server.path("dir").join(&name)).expect("an entry");
        expected.push(name.into_bytes());
    }
    let mut client = server.login();
    client.expect("CWD dir", 250);
    let mut names = client.list("NLST");
    names.sort();
    assert!(names == expected, "NLST has {} names", names.len());
    assert_eq!(client.list("LIST").len(), expected.len());
    client.expect("OPTS MLST type;", 200);
    let mut files = client.list("MLSD");
    files.retain(|line| line.starts_with(b"type=file;"));
    assert_eq!(files.len(), expected.len());
    let root = fs::metadata(server.path("dir")).expect("the directory");
    assert!(root.nlink() >= 2);
}
