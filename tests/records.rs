//! The records of protected data connections: all suites with other people's TLS, keys that change in the
//! midst, clients that are no good, and rates.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::process::{Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use common::{Setup, TestServer, TlsClient, certificate_of, noise, run};
use rustls::version::{TLS12, TLS13};

const BIG: usize = 20_000_003;

fn server() -> TestServer {
    let server = Setup::new().tls().start();
    server.put("big", noise(BIG, 1));
    server
}

fn client(server: &TestServer) -> TlsClient {
    TlsClient::with(&certificate_of(server.folder(), "localhost"), &[&TLS13])
}

#[test]
fn curl_moves_files_with_every_suite() {
    let server = server();
    let big = noise(BIG, 1);
    fs::write(server.folder().join("up"), &big).expect("a file to send");
    let ca = certificate_of(server.folder(), "localhost");
    for (version, option, suite) in [
        ("1.3", "--tls13-ciphers", "TLS_AES_128_GCM_SHA256"),
        ("1.3", "--tls13-ciphers", "TLS_AES_256_GCM_SHA384"),
        ("1.3", "--tls13-ciphers", "TLS_CHACHA20_POLY1305_SHA256"),
        ("1.2", "--ciphers", "ECDHE-ECDSA-AES128-GCM-SHA256"),
        ("1.2", "--ciphers", "ECDHE-ECDSA-AES256-GCM-SHA384"),
        ("1.2", "--ciphers", "ECDHE-ECDSA-CHACHA20-POLY1305"),
    ] {
        let curl = |arguments: &[&str]| {
            let mut command = Command::new("curl");
            command
                .current_dir(server.folder())
                .args(["--silent", "--show-error", "--max-time", "60"])
                .args(["--ssl-reqd", "--tlsv1.2", "--tls-max", version])
                .args([option, suite, "--cacert"])
                .arg(&ca)
                .args(arguments);
            run(&mut command).success()
        };
        let url = format!("ftp://{}/", server.address());
        assert!(curl(&[&format!("{url}big")]) == big, "{suite}");
        curl(&["--upload-file", "up", &format!("{url}{suite}")]);
        assert!(server.get(suite) == Some(big.clone()), "{suite}");
    }
}

#[test]
fn sizes_around_records_and_pieces_are_whole() {
    let server = server();
    let tls = client(&server);
    let mut session = tls.login(server.address());
    let record = 16_384;
    for size in [
        0,
        1,
        record - 1,
        record,
        record + 1,
        16 * record,
        16 * record + 1,
        31 * record + 1,
    ] {
        let content = noise(size, 4);
        let mut data = tls.wrap(session.begin("STOR sized"));
        // There is nothing to write in an empty file, and so nothing would begin.
        data.conn.complete_io(&mut data.sock).expect("a handshake");
        data.write_all(&content).expect("bytes");
        data.conn.send_close_notify();
        data.flush().expect("bytes");
        assert!(session.reply().starts_with("226 "), "{size}");
        assert!(server.get("sized").as_ref() == Some(&content), "{size}");
        for from in [0, size / 2] {
            session.expect(&format!("REST {from}"), 350);
            let mut data = tls.wrap(session.begin("RETR sized"));
            let mut got = Vec::new();
            data.read_to_end(&mut got).expect("close_notify");
            assert!(got == content[from..], "{size} from {from}");
            assert!(session.reply().starts_with("226 "), "{size}");
        }
    }
}

#[test]
fn keys_change_in_the_midst_of_an_upload() {
    let server = server();
    let tls = client(&server);
    let mut session = tls.login(server.address());
    let big = noise(BIG, 2);
    let mut data = tls.wrap(session.begin("STOR new"));
    for part in big.chunks(3_000_000) {
        data.write_all(part).expect("bytes");
        // It asks for the keys of the server as well.
        data.conn.refresh_traffic_keys().expect("TLS 1.3");
    }
    data.conn.send_close_notify();
    data.flush().expect("bytes");
    // The server's KeyUpdate, and its end.
    assert_eq!(data.read(&mut [0; 16]).expect("close_notify"), 0);
    assert!(session.reply().starts_with("226 "));
    assert!(server.get("new") == Some(big));
}

#[test]
fn keys_change_in_the_midst_of_a_download() {
    let setup = Setup::new().tls();
    // So that the server still listens when the client speaks.
    let server = setup.set("limits.session_down", "\"4 MiB/s\"").start();
    let content = noise(6_000_000, 1);
    server.put("slow", &content);
    let tls = client(&server);
    let mut session = tls.login(server.address());
    let mut data = tls.wrap(session.begin("RETR slow"));
    let mut got = vec![0; 3_000_000];
    for part in got.chunks_mut(1_000_000) {
        data.read_exact(part).expect("bytes");
        data.conn.refresh_traffic_keys().expect("TLS 1.3");
        data.flush().expect("a KeyUpdate");
    }
    data.read_to_end(&mut got).expect("close_notify");
    assert!(got == content);
    assert!(session.reply().starts_with("226 "));
}

#[test]
fn openssl_changes_its_keys_in_the_midst_of_an_upload() {
    let server = server();
    let tls = client(&server);
    let mut session = tls.login(server.address());
    let reply = session.expect("EPSV", 229);
    let port = reply.split('|').nth(3).expect("a port");
    let mut openssl = Command::new("openssl")
        .args([
            "s_client",
            "-tls1_3",
            "-connect",
            &format!("127.0.0.1:{port}"),
        ])
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .expect("openssl");
    session.expect("STOR typed", 150);
    let mut keys = openssl.stdin.take().expect("a piped stdin");
    // s_client takes a letter at the beginning of what it reads at a time for a command: K changes the keys
    // of both sides, k its own, Q ends.
    for typed in [
        "one\n", "K\n", "two\n", "k\n", "three\n", "K\n", "four\n", "Q\n",
    ] {
        thread::sleep(Duration::from_millis(300));
        keys.write_all(typed.as_bytes()).expect("it listens");
    }
    assert!(session.reply().starts_with("226 "));
    let stored = server.get("typed");
    assert_eq!(stored.as_deref(), Some(&b"one\ntwo\nthree\nfour\n"[..]));
    openssl.wait().expect("openssl ends");
}

#[test]
fn an_upload_with_a_record_that_is_no_good_does_not_become_visible() {
    let server = server();
    for version in [&TLS12, &TLS13] {
        let trusted = certificate_of(server.folder(), "localhost");
        let tls = TlsClient::with(&trusted, &[version]);
        let mut session = tls.login(server.address());
        let forged = [&b"\x17\x03\x03\x00\x40"[..], &[7; 64]].concat();
        let too_long = b"\x17\x03\x03\xff\xff".to_vec();
        let not_sealed = b"\x16\x03\x03\x00\x01\x01".to_vec();
        for bad in [forged, too_long, not_sealed] {
            let mut data = tls.wrap(session.begin("STOR new"));
            data.write_all(&noise(200_000, 2)).expect("bytes");
            data.flush().expect("bytes");
            data.sock.write_all(&bad).expect("bytes");
            let reply = session.reply();
            assert!(reply.starts_with("426 "), "{version:?} {bad:?}: {reply}");
            assert_eq!(server.get("new"), None, "{version:?} {bad:?}");
        }
        session.expect("NOOP", 200);
    }
}

#[test]
fn what_comes_behind_the_end_of_an_upload_is_not_looked_at() {
    let server = server();
    let tls = client(&server);
    let mut session = tls.login(server.address());
    let mut data = tls.wrap(session.begin("STOR new"));
    data.write_all(b"content").expect("bytes");
    data.conn.send_close_notify();
    data.flush().expect("bytes");
    let _ = data.sock.write_all(b"anything");
    assert!(session.reply().starts_with("226 "));
    assert_eq!(server.get("new").as_deref(), Some(&b"content"[..]));
}

#[test]
fn rates_are_kept_over_tls() {
    let server = Setup::new()
        .tls()
        .set("limits.session_down", "\"100 KiB/s\"")
        .set("limits.session_up", "\"100 KiB/s\"")
        .start();
    let content = noise(200 * 1024, 3);
    server.put("down", &content);
    let tls = client(&server);
    let mut session = tls.login(server.address());
    let kept = |begun: Instant| {
        let seconds = begun.elapsed().as_secs_f64();
        assert!((1.7..4.0).contains(&seconds), "{seconds} s");
    };
    let mut data = tls.wrap(session.begin("RETR down"));
    let (begun, mut got) = (Instant::now(), Vec::new());
    data.read_to_end(&mut got).expect("close_notify");
    kept(begun);
    assert!(got == content);
    assert!(session.reply().starts_with("226 "));
    let mut data = tls.wrap(session.begin("STOR up"));
    let begun = Instant::now();
    data.write_all(&content).expect("bytes");
    data.conn.send_close_notify();
    data.flush().expect("bytes");
    assert!(session.reply().starts_with("226 "));
    kept(begun);
    assert!(server.get("up") == Some(content));
}

#[test]
fn a_client_that_sends_on_a_download_does_not_hold_it_up() {
    let server = server();
    let tls = client(&server);
    let mut session = tls.login(server.address());
    let mut data = tls.wrap(session.begin("RETR big"));
    data.write_all(&noise(50_000, 1))
        .expect("bytes nobody asked for");
    data.flush().expect("bytes nobody asked for");
    let mut got = Vec::new();
    data.read_to_end(&mut got).expect("close_notify");
    assert!(got == noise(BIG, 1));
    assert!(session.reply().starts_with("226 "));
}

#[test]
fn a_client_that_sends_no_records_on_a_download_ends_it() {
    let server = server();
    let tls = client(&server);
    let mut session = tls.login(server.address());
    let mut data = tls.wrap(session.begin("RETR big"));
    let mut some = vec![0; 100_000];
    data.read_exact(&mut some).expect("the beginning");
    data.sock.write_all(&[0; 64]).expect("bytes");
    let mut rest = Vec::new();
    let ended = data.read_to_end(&mut rest);
    let kind = ended.expect_err("no whole file").kind();
    let kinds = [
        ErrorKind::ConnectionReset,
        ErrorKind::InvalidData,
        ErrorKind::UnexpectedEof,
    ];
    assert!(kinds.contains(&kind), "{kind:?}");
    assert!(session.reply().starts_with("426 "));
}
