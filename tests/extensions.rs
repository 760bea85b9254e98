//! What has no RFC, or only a draft: MFMT MFF MFCT, SITE, HASH and the X digests, AVBL, CLNT, CSID;
//! and HOST (RFC 7151).

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::process::Command;

use common::{TestServer, Way, noise, run};

/// 2026-01-02 03:04:05 UTC.
const SOME_TIME: i64 = 1_767_323_045;

fn status(server: &TestServer, name: &str) -> fs::Metadata {
    fs::metadata(server.path(name)).expect("a file")
}

#[test]
fn mfmt_sets_the_time() {
    let server = TestServer::start();
    server.put("two words", "content");
    let mut client = server.login();
    let reply = client.expect("MFMT 20260102030405 two words", 213);
    // draft-somers-ftp-mfxx-04 §3.
    assert_eq!(reply.argument(), b"Modify=20260102030405; two words");
    assert_eq!(status(&server, "two words").mtime(), SOME_TIME);
    assert_eq!(
        client.expect("MDTM two words", 213).argument(),
        b"20260102030405"
    );
    fs::create_dir(server.path("dir")).expect("a directory");
    client.expect("MFMT 20260102030405 dir", 213);
    assert_eq!(status(&server, "dir").mtime(), SOME_TIME);
    for (line, code) in [
        ("MFMT 20260102030405 missing", 550),
        ("MFMT 20261301000000 two words", 501),
        ("MFMT 2026 two words", 501),
        ("MFMT 20260102030405", 501),
        ("MFCT 20260102030405 two words", 504),
    ] {
        client.expect(line, code);
    }
    assert_eq!(status(&server, "two words").mtime(), SOME_TIME);
}

#[test]
fn mff_sets_all_facts_or_none() {
    let server = TestServer::start();
    server.put("file", "content");
    let mut client = server.login();
    client.expect("MFF UNIX.mode=0600;Modify=20260102030405; file", 213);
    assert_eq!(status(&server, "file").mtime(), SOME_TIME);
    assert_eq!(status(&server, "file").mode() & 0o7777, 0o600);
    for line in [
        "MFF UNIX.mode=0644;Size=1; file",
        "MFF UNIX.mode=0644;Modify=never; file",
        "MFF UNIX.mode=9999; file",
        "MFF Create=20260102030405; file",
        "MFF file",
    ] {
        let reply = client.ask(line);
        assert!([501, 504].contains(&reply.code), "{line}: {}", reply.text());
    }
    assert_eq!(status(&server, "file").mode() & 0o7777, 0o600);
}

#[test]
fn site_chmod_and_utime() {
    let server = TestServer::start();
    server.put("two words", "content");
    let mut client = server.login();
    client.expect("SITE CHMOD 640 two words", 200);
    assert_eq!(status(&server, "two words").mode() & 0o7777, 0o640);
    client.expect("site chmod 0755 two words", 200);
    assert_eq!(status(&server, "two words").mode() & 0o7777, 0o755);
    client.expect("SITE UTIME 20260102030405 two words", 200);
    assert_eq!(status(&server, "two words").mtime(), SOME_TIME);
    client.expect(
        "SITE UTIME two words 20250101000000 20200101000000 20250101000000 UTC",
        200,
    );
    assert_eq!(status(&server, "two words").mtime(), 1_577_836_800);
    for (line, code) in [
        ("SITE CHMOD 888 two words", 501),
        ("SITE CHMOD 77777 two words", 501),
        ("SITE CHMOD 644", 501),
        ("SITE CHMOD 644 missing", 550),
        ("SITE UTIME never two words", 501),
        ("SITE NONSENSE", 500),
        ("SITE EXEC id", 500),
        ("SITE", 501),
        ("SITE HELP", 214),
    ] {
        client.expect(line, code);
    }
}

#[test]
fn site_umask_holds_for_new_files_of_the_session() {
    let server = TestServer::start();
    let mut client = server.login();
    client.stor("default", b"");
    client.expect("MKD default-dir", 257);
    client.expect("SITE UMASK 077", 200);
    assert!(client.expect("SITE UMASK", 200).text().contains("077"));
    client.stor("private", b"");
    client.upload(Way::Epsv, "APPE appended", b"x");
    client.expect("MKD private-dir", 257);
    client.expect("SITE UMASK 000", 200);
    client.stor("open", b"");
    for (name, mode) in [
        ("default", 0o644),
        ("default-dir", 0o755),
        ("private", 0o600),
        ("appended", 0o600),
        ("private-dir", 0o700),
        ("open", 0o666),
    ] {
        let found = status(&server, name).permissions().mode() & 0o7777;
        assert_eq!(found, mode, "{name}: {found:o}");
    }
    client.expect("SITE UMASK 1000", 501);
    server.login().stor("other", b"");
    assert_eq!(
        status(&server, "other").permissions().mode() & 0o7777,
        0o644
    );
}

#[test]
fn site_idle_shortens_the_patience() {
    let server = TestServer::start();
    let mut client = server.login();
    client.expect("SITE IDLE", 200);
    client.expect("SITE IDLE 60", 200);
    assert!(client.expect("SITE IDLE", 200).text().contains("60"));
    client.expect("SITE IDLE 100000", 501);
    client.expect("SITE IDLE 0", 501);
}

/// What all of CRC-32, MD5 and SHA have as their check value: the digests of "123456789".
const CHECKS: [(&str, &str, &str); 5] = [
    ("CRC32", "XCRC", "cbf43926"),
    ("MD5", "XMD5", "25f9e794323b453885f5181f1b624d0b"),
    ("SHA-1", "XSHA1", "f7c3bc1d808e04732adf679965ccc34ca7ae3441"),
    (
        "SHA-256",
        "XSHA256",
        "15e2b0d3c33891ebb0f1ef609ec419420c20e320ce94c65fbc8c3312448eb225",
    ),
    (
        "SHA-512",
        "XSHA512",
        "d9e6762dd1c8eaf6d61b3c6192fc408d4d6d5f1176d0c29169bc24e71c3f274a\
         d27fcd5811b313d681f7e55ec02d73d499c95455b6b5bb503acf574fba8ffe85",
    ),
];

#[test]
fn digests_have_their_check_values() {
    let server = TestServer::start();
    server.put("two words", "123456789");
    let mut client = server.login();
    for (algorithm, verb, check) in CHECKS {
        client.expect(format!("OPTS HASH {algorithm}"), 200);
        // draft-bryan-ftpext-hash-02 §3.2.
        let text = client.expect("HASH two words", 213).text();
        assert_eq!(text, format!("213 {algorithm} 0-9 {check} two words"));
        let text = client.expect(format!("{verb} two words"), 250).text();
        assert_eq!(text.to_ascii_lowercase(), format!("250 {check}"));
        let feat = client.expect("FEAT", 211).text();
        assert!(feat.contains(&format!("{algorithm}*")), "{feat}");
    }
    client.expect("OPTS HASH SHA-3", 504);
    for (line, code) in [
        ("HASH missing", 550),
        ("HASH /", 550),
        ("XCRC missing", 550),
        ("XCRC", 501),
    ] {
        client.expect(line, code);
    }
}

#[test]
fn digests_of_parts() {
    let server = TestServer::start();
    server.put("file", "xx123456789yy");
    let mut client = server.login();
    for line in ["XCRC file 2 11", "XCRC \"file\" 2 11"] {
        let text = client.expect(line, 250).text();
        assert_eq!(text.to_ascii_lowercase(), "250 cbf43926", "{line}");
    }
    server.put("tail", "xx123456789");
    assert_eq!(
        client
            .expect("XCRC tail 2", 250)
            .text()
            .to_ascii_lowercase(),
        "250 cbf43926"
    );
    for line in ["XCRC file 12 3", "XCRC file 0 99", "XCRC file 99"] {
        assert_eq!(client.ask(line).code / 100, 5, "{line}");
    }
}

#[test]
fn digests_of_large_files_agree_with_other_programs() {
    let server = TestServer::start();
    server.put("large", noise(20_000_001, 1));
    let mut client = server.login();
    for (verb, program) in [
        ("XMD5", "md5sum"),
        ("XSHA1", "sha1sum"),
        ("XSHA256", "sha256sum"),
    ] {
        let out = run(Command::new(program).arg(server.path("large"))).success();
        let expected = String::from_utf8_lossy(&out[..out.len().min(200)]).into_owned();
        let expected = expected.split(' ').next().expect("a digest").to_owned();
        let text = client
            .expect(format!("{verb} large"), 250)
            .text()
            .to_ascii_lowercase();
        assert_eq!(text, format!("250 {expected}"), "{verb}");
    }
}

#[test]
fn avbl_tells_what_the_file_system_has() {
    let server = TestServer::start();
    fs::create_dir(server.path("dir")).expect("a directory");
    let mut client = server.login();
    let system = nix::sys::statvfs::statvfs(&server.root()).expect("statvfs");
    let expected = system.blocks_available() as f64 * system.fragment_size() as f64;
    for line in ["AVBL", "AVBL dir", "AVBL /"] {
        let reply = client.expect(line, 213);
        let text = String::from_utf8_lossy(reply.argument()).into_owned();
        let told: f64 = text.parse().expect("a number of bytes");
        // Others write to the same disk meanwhile.
        assert!(
            (0.8..1.25).contains(&(told / expected)),
            "{line}: {told}, not {expected}"
        );
    }
    client.expect("AVBL missing", 550);
}

#[test]
fn clients_and_hosts_introduce_themselves() {
    let server = TestServer::start();
    let mut client = server.connect();
    // RFC 7151 §3.2: before USER.
    client.expect("HOST ftp.example.org", 220);
    client.expect("HOST [::1]", 220);
    client.expect("HOST", 501);
    client.expect("CLNT NcFTP 3.2.6", 200);
    let text = client.expect("CSID Name=test; Version=1;", 200).text();
    assert!(text.contains("Name=ringftpd;"), "{text}");
    client.expect("USER anonymous", 331);
    client.expect("HOST ftp.example.org", 503);
    client.expect("PASS x", 230);
    client.expect("HOST ftp.example.org", 503);
}
