//! TLS (RFC 4217): on control and data connections, with the clients that people use, and with those
//! that nobody should.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::SocketAddr;
use std::path::Path;
use std::process::Command;

use common::{
    Client, DEADLINE, Kind, Run, Setup, TestServer, TlsClient, certificate_of, noise, run,
    run_with_input, write_certificate,
};

/// A server on both families that offers TLS, with a file of 20 MB.
fn server() -> TestServer {
    let server = Setup::new().on_both_families().tls().start();
    server.put("big", noise(BIG, 1));
    server
}

const BIG: usize = 20_000_003;

fn ca(server: &TestServer) -> String {
    certificate_of(server.folder(), "localhost")
        .display()
        .to_string()
}

/// Nobody's settings but the test's.
fn client(program: &str, here: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(here)
        .env("HOME", here)
        .env("LC_ALL", "C.UTF-8");
    command
}

fn curl(server: &TestServer, arguments: &[&str]) -> Run {
    let ca = ca(server);
    let always = [
        "--globoff",
        "--silent",
        "--show-error",
        "--max-time",
        "60",
        "--ssl-reqd",
        "--cacert",
        &ca,
    ];
    run(client("curl", server.folder()).args(always).args(arguments))
}

#[test]
fn curl_gets_puts_and_lists() {
    let server = server();
    let big = noise(BIG, 1);
    fs::write(server.folder().join("up"), &big).expect("a file to send");
    for address in [server.address(), server.address_v6()] {
        for version in ["1.2", "1.3"] {
            let url = |name: &str| format!("ftp://{address}/{name}");
            let way = ["--tlsv1.2", "--tls-max", version];
            let got = curl(&server, &[&way[..], &[&url("big")]].concat()).success();
            assert!(got == big, "{address} TLS {version}");
            let name = format!("up-{version}-{}", address.is_ipv6());
            let put = ["--upload-file", "up", &url(&name)];
            curl(&server, &[&way[..], &put].concat()).success();
            assert!(
                server.get(&name).as_ref() == Some(&big),
                "{address} TLS {version}"
            );
            let list = curl(&server, &[&way[..], &[&url("")]].concat()).success();
            assert!(String::from_utf8_lossy(&list).contains(" big"), "{list:?}");
        }
    }
    assert!(
        !server.log().contains("tls=\"not resumed\""),
        "{}",
        server.log()
    );
}

#[test]
fn files_come_whole_whoever_seals_them_and_with_whichever_keys() {
    let big = noise(BIG, 1);
    for kernel in ["auto", "off"] {
        let setup = Setup::new().tls().set("tls.kernel", format!("{kernel:?}"));
        let server = setup.set("tls.renew_keys_after", "\"1 MiB\"").start();
        server.put("big", &big);
        // Whether this kernel has TLS is its own affair; it is told in any case.
        assert!(server.log().contains("kernel TLS: "), "{}", server.log());
        assert!(kernel == "auto" || server.log().contains("kernel TLS: off (tls.kernel)"));
        let url = format!("ftp://{}/big", server.address());
        for suite in ["TLS_AES_128_GCM_SHA256", "TLS_CHACHA20_POLY1305_SHA256"] {
            let got = curl(&server, &["--tls13-ciphers", suite, &url]).success();
            assert!(got == big, "{kernel} {suite}");
        }
        let got = curl(&server, &["--tls-max", "1.2", &url]).success();
        assert!(got == big, "{kernel} TLS 1.2");
        let rest = curl(&server, &["--continue-at", "12345678", &url]).success();
        assert!(rest == big[12_345_678..], "{kernel}");
    }
}

/// Python's ftplib, with and without resumption of the control connection's session.
const FTPLIB: &str = r#"
import ftplib, io, ssl, sys

host, port, ca, version, way, reuse, name = sys.argv[1:]

class Reusing(ftplib.FTP_TLS):
    def ntransfercmd(self, cmd, rest=None):
        data, size = ftplib.FTP.ntransfercmd(self, cmd, rest)
        if self._prot_p:
            session = self.sock.session if reuse == "reuse" else None
            data = self.context.wrap_socket(data, server_hostname="localhost", session=session)
        return data, size

context = ssl.create_default_context(cafile=ca)
context.minimum_version = context.maximum_version = {
    "1.2": ssl.TLSVersion.TLSv1_2, "1.3": ssl.TLSVersion.TLSv1_3}[version]
ftp = Reusing(context=context, timeout=60)
ftp.connect(host, int(port))
ftp.host = "localhost"
ftp.login()
ftp.prot_p()
ftp.set_pasv(way == "passive")
got = io.BytesIO()
try:
    ftp.retrbinary("RETR big", got.write)
except (ftplib.Error, OSError) as error:
    try:
        print(error if isinstance(error, ftplib.Error) else ftp.voidresp())
    except ftplib.Error as error:
        print(error)
    sys.exit()
assert ftp.nlst() and "big" in ftp.nlst()
ftp.storbinary("STOR " + name, io.BytesIO(got.getvalue()))
ftp.storlines("STOR text", io.BytesIO(b"one\ntwo\n"))
lines = []
ftp.retrlines("RETR text", lines.append)
assert lines == ["one", "two"], lines
ftp.prot_c()
lines = []
ftp.dir(lines.append)
assert lines
print(ftp.quit())
"#;

fn ftplib(server: &TestServer, address: SocketAddr, arguments: [&str; 4]) -> String {
    let [version, way, reuse, name] = arguments;
    let mut command = client("python3", server.folder());
    command.args(["-c", FTPLIB, &address.ip().to_string()]);
    command.args([
        &address.port().to_string(),
        &ca(server),
        version,
        way,
        reuse,
        name,
    ]);
    String::from_utf8_lossy(&run(&mut command).success()).into_owned()
}

#[test]
fn ftplib_moves_files_over_every_data_connection() {
    let server = server();
    for address in [server.address(), server.address_v6()] {
        for version in ["1.2", "1.3"] {
            for way in ["passive", "active"] {
                let name = format!("{version}-{way}-{}", address.is_ipv6());
                let told = ftplib(&server, address, [version, way, "reuse", &name]);
                assert!(told.starts_with("221"), "{name}: {told}");
                assert!(server.get(&name) == Some(noise(BIG, 1)), "{name}");
            }
        }
    }
    let told = ftplib(&server, server.address(), ["1.3", "passive", "no", "x"]);
    assert!(told.starts_with("221"), "{told}");
    assert!(server.log().contains("tls=\"not resumed\""));
}

#[test]
fn a_data_connection_has_to_resume_the_session_if_that_is_required() {
    let setup = Setup::new().tls().set("tls.data_resumption", "\"require\"");
    let server = setup.start();
    server.put("big", noise(BIG, 1));
    for version in ["1.2", "1.3"] {
        let told = ftplib(
            &server,
            server.address(),
            [version, "passive", "reuse", "a"],
        );
        assert!(told.starts_with("221"), "TLS {version}: {told}");
        let told = ftplib(&server, server.address(), [version, "passive", "no", "a"]);
        assert!(
            told.starts_with("522 The data connection must resume"),
            "TLS {version}: {told}"
        );
    }
    // curl resumes by itself, for each of several transfers.
    let url = format!("ftp://{}/big", server.address());
    let arguments = ["--output", "/dev/null", "--output", "/dev/null", &url, &url];
    curl(&server, &arguments).success();
}

#[test]
fn a_session_of_somebody_else_is_not_good_for_a_data_connection() {
    let setup = Setup::new().tls().set("tls.data_resumption", "\"require\"");
    let server = setup.start();
    server.put("file", "content");
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let trusted = certificate_of(server.folder(), "localhost");
        let one = TlsClient::with(&trusted, &[version]);
        let other = TlsClient::with(&trusted, &[version]);
        let _other = other.login(server.address());
        let mut session = one.login(server.address());
        let mut data = other.wrap(session.begin("RETR file"));
        let mut got = Vec::new();
        let _ = data.read_to_end(&mut got);
        assert!(got.is_empty(), "{version:?}");
        assert!(session.reply().starts_with("522 "), "{version:?}");
        let mut data = one.wrap(session.begin("RETR file"));
        data.read_to_end(&mut got)
            .expect("the file and close_notify");
        assert_eq!(got, b"content", "{version:?}");
        assert!(session.reply().starts_with("226 "), "{version:?}");
    }
}

#[test]
fn sessions_are_resumed_on_every_core() {
    let server = Setup::new().tls().set("server.cores", 2).start();
    let tls = TlsClient::trusting(&certificate_of(server.folder(), "localhost"));
    let mut kinds = Vec::new();
    for _ in 0..8 {
        let mut session = tls.login(server.address());
        session.expect("NOOP", 200);
        kinds.push(session.stream.conn.handshake_kind());
        session.expect("QUIT", 221);
    }
    let resumed = Some(rustls::HandshakeKind::Resumed);
    assert!(kinds[1..].iter().all(|kind| *kind == resumed), "{kinds:?}");
}

#[test]
fn an_upload_that_is_cut_short_does_not_become_visible() {
    let server = server();
    for version in [&rustls::version::TLS12, &rustls::version::TLS13] {
        let trusted = certificate_of(server.folder(), "localhost");
        let tls = TlsClient::with(&trusted, &[version]);
        let mut session = tls.login(server.address());
        let mut data = tls.wrap(session.begin("STOR new"));
        data.write_all(&noise(300_000, 2)).expect("bytes");
        data.flush().expect("bytes");
        // The connection ends in good order, and the session does not.
        data.sock
            .shutdown(std::net::Shutdown::Write)
            .expect("a FIN");
        let reply = session.reply();
        assert!(
            reply.starts_with("426 Data connection closed without"),
            "{reply}"
        );
        assert_eq!(server.get("new"), None, "{version:?}");
        // The same with its end.
        let mut data = tls.wrap(session.begin("STOR new"));
        data.write_all(&noise(300_000, 2)).expect("bytes");
        data.conn.send_close_notify();
        data.flush().expect("bytes");
        assert!(session.reply().starts_with("226 "), "{version:?}");
        assert!(server.get("new") == Some(noise(300_000, 2)), "{version:?}");
        fs::remove_file(server.path("new")).expect("the file");
    }
}

#[test]
fn what_is_pipelined_behind_auth_is_not_carried_out() {
    let server = server();
    server.put("precious", "content");
    for behind in [
        "USER anonymous\r\nPASS x\r\nDELE precious\r\n",
        "NOOP\r\n",
        "DELE prec",
    ] {
        let mut client = Client::connect(server.address());
        client.send_bytes(format!("AUTH TLS\r\n{behind}"));
        client.reply(234);
        let tls = TlsClient::trusting(&certificate_of(server.folder(), "localhost"));
        let stream = client.stream().try_clone().expect("a descriptor");
        let mut session = common::TlsSession::over(tls.wrap(stream));
        // The first reply is that to the first command of the session.
        let reply = session.expect("PWD", 530);
        assert!(reply.contains("log in"), "{behind:?}: {reply}");
    }
    assert!(server.get("precious").is_some());
}

#[test]
fn auth_forgets_who_was_logged_in() {
    let server = server();
    let mut client = server.login();
    client.expect("AUTH TLS", 234);
    let tls = TlsClient::trusting(&certificate_of(server.folder(), "localhost"));
    let stream = client.stream().try_clone().expect("a descriptor");
    let mut session = common::TlsSession::over(tls.wrap(stream));
    session.expect("PWD", 530);
    session.expect("USER anonymous", 331);
    session.expect("PASS x", 230);
    session.expect("PWD", 257);
}

#[test]
fn a_handshake_has_to_come_to_an_end() {
    let setup = Setup::new().tls().set("tls.handshake_timeout", "\"1 s\"");
    let server = setup.start();
    server.put("file", "content");
    let mut client = server.connect();
    client.expect("AUTH TLS", 234);
    client.ended();
    let tls = TlsClient::trusting(&certificate_of(server.folder(), "localhost"));
    let mut session = tls.login(server.address());
    let _data = session.begin("RETR file");
    assert!(session.reply().starts_with("522 TLS negotiation failed"));
    // Plain bytes are no handshake.
    let mut data = session.begin("STOR new");
    data.write_all(&noise(100_000, 1)).expect("bytes");
    assert!(session.reply().starts_with("522 TLS negotiation failed"));
    assert_eq!(server.get("new"), None);
    // An abort does not wait for it.
    let _data = session.begin("RETR file");
    session.expect("ABOR", 426);
    assert!(session.reply().starts_with("226 "));
}

#[test]
fn what_is_required_is_asked_for() {
    let server = Setup::new()
        .tls()
        .set("tls.policy", "\"require-data\"")
        .start();
    server.put("file", "content");
    let mut client = server.connect();
    client.expect("USER anonymous", 530);
    let tls = TlsClient::trusting(&certificate_of(server.folder(), "localhost"));
    let mut session = tls.connect(server.address());
    session.expect("USER anonymous", 331);
    session.expect("PASS x", 230);
    session.expect("EPSV", 229);
    session.expect("RETR file", 521);
    session.expect("PBSZ 0", 200);
    session.expect("PROT C", 534);
    session.expect("PROT P", 200);
    let mut data = tls.wrap(session.begin("RETR file"));
    let mut got = Vec::new();
    data.read_to_end(&mut got).expect("the file");
    assert_eq!(got, b"content");
}

#[test]
fn s_client_logs_in_and_other_protocols_do_not() {
    let server = server();
    let address = format!("localhost:{}", server.address().port());
    let ca = ca(&server);
    let arguments = [
        "s_client",
        "-starttls",
        "ftp",
        "-connect",
        &address,
        "-CAfile",
        &ca,
        "-quiet",
        "-verify_return_error",
        "-crlf",
        "-4",
    ];
    let mut command = client("openssl", server.folder());
    command.args(arguments);
    let script = "USER anonymous\nPASS x\nPWD\nQUIT\n";
    let told = run_with_input(&mut command, script);
    let told = String::from_utf8_lossy(&told.out).into_owned();
    for reply in ["331 ", "230 ", "257 ", "221 "] {
        assert!(told.contains(reply), "{reply}\n{told}");
    }
    for (protocol, is_taken) in [("ftp", true), ("http/1.1", false)] {
        let mut command = client("openssl", server.folder());
        command.args(arguments).args(["-alpn", protocol]);
        let told = run_with_input(&mut command, script);
        let told = String::from_utf8_lossy(&told.out).into_owned();
        assert_eq!(told.contains("230 "), is_taken, "{protocol}\n{told}");
    }
}

#[test]
fn lftp_mirrors_a_tree() {
    let server = server();
    fs::create_dir(server.path("tree")).expect("a folder");
    common::make_tree(&server.path("tree"));
    let ca = ca(&server);
    for (number, passive) in ["yes", "no"].into_iter().enumerate() {
        let script = format!(
            "set net:max-retries 1; set net:timeout 30; set cmd:fail-exit yes; set ftp:ssl-force yes; \
             set ftp:ssl-allow-anonymous yes; \
             set ftp:ssl-protect-data yes; set ftp:ssl-protect-list yes; set ssl:ca-file {ca}; \
             set ftp:passive-mode {passive}; open ftp://localhost:{}/; \
             mirror --parallel=4 tree down{number}; mirror -R --parallel=4 down{number} up{number}; ls",
            server.address().port()
        );
        let mut command = client("lftp", server.folder());
        run(command.args(["--norc", "-c", &script])).success();
        let down = server.folder().join(format!("down{number}"));
        common::same_trees(&server.path("tree"), &down);
        common::same_trees(&server.path("tree"), &server.path(&format!("up{number}")));
    }
    let log = server.log();
    let transfers = || {
        log.lines()
            .filter(|line| line.contains("transfer complete"))
    };
    assert!(transfers().count() > 100);
    assert!(
        transfers().all(|line| line.contains("tls=\"resumed\"")),
        "{log}"
    );
}

#[test]
fn rclone_copies_both_ways() {
    let server = server();
    let port = server.address().port().to_string();
    let remote = format!(
        ":ftp,host=localhost,port={port},user=anonymous,pass={},explicit_tls,no_check_certificate:",
        String::from_utf8_lossy(&run(Command::new("rclone").args(["obscure", "x"])).success())
            .trim()
    );
    fs::create_dir(server.folder().join("from")).expect("a folder");
    fs::write(server.folder().join("from/file"), noise(BIG, 3)).expect("a file");
    let mut command = client("rclone", server.folder());
    run(command.args(["copy", "from", &format!("{remote}/there")])).success();
    assert!(server.get("there/file") == Some(noise(BIG, 3)));
    let mut command = client("rclone", server.folder());
    run(command.args(["copy", &format!("{remote}/there"), "back"])).success();
    assert!(fs::read(server.folder().join("back/file")).ok() == Some(noise(BIG, 3)));
}

#[test]
fn a_certificate_that_cannot_be_used_is_told_with_its_file() {
    let folder = tempfile::tempdir().expect("a folder");
    let folder = folder.path();
    write_certificate(folder, "one", &["one"], Kind::Ecdsa);
    write_certificate(folder, "two", &["two"], Kind::Ecdsa);
    fs::write(folder.join("empty"), "").expect("a file");
    let one = folder.join("one.pem").display().to_string();
    let refusal = |certificates: &str| {
        let setup = Setup::new().set("tls.certificates", format!("[{certificates}]"));
        let mut command = Command::new(common::program());
        let checked = run(command.arg("check").arg("--config").arg(setup.write()));
        assert_ne!(checked.code, Some(0), "{}", checked.err);
        checked.err
    };
    let pair = |certificate: &str, key: &str| {
        let (certificate, key) = (folder.join(certificate), folder.join(key));
        format!("{{ certificate = {certificate:?}, key = {key:?} }}")
    };
    for (certificates, told) in [
        (
            pair("one.pem", "two.key"),
            format!("two.key: not the key of the certificate in {one}"),
        ),
        (
            pair("missing.pem", "two.key"),
            "missing.pem: No such file".to_owned(),
        ),
        (
            pair("empty", "two.key"),
            "empty: no certificate in it".to_owned(),
        ),
        (
            pair("one.pem", "one.pem"),
            "one.pem: no private key in it".to_owned(),
        ),
    ] {
        let refusal = refusal(&certificates);
        assert!(refusal.contains(&told), "{told}\n{refusal}");
    }
    // All of them at once.
    let both = format!(
        "{}, {}",
        pair("empty", "two.key"),
        pair("one.pem", "two.key")
    );
    let refusal = refusal(&both);
    assert!(
        refusal.contains("empty: ") && refusal.contains("two.key: "),
        "{refusal}"
    );
}

#[test]
fn commands_are_clear_after_ccc_and_files_are_not() {
    let server = Setup::new()
        .tls()
        .set("tls.clear_commands", true)
        .set("tls.data_resumption", "\"require\"")
        .start();
    server.put("file", "content");
    for says_so in [true, false] {
        let tls = TlsClient::trusting(&certificate_of(server.folder(), "localhost"));
        let mut session = tls.login(server.address());
        session.expect("CCC", 200);
        let common::TlsSession { mut stream, .. } = session;
        // The server's end of the session comes, and then plain text.
        let mut rest = Vec::new();
        assert_eq!(stream.read_to_end(&mut rest).expect("close_notify"), 0);
        if says_so {
            stream.conn.send_close_notify();
            stream.flush().expect("close_notify");
        }
        let mut clear = Client::over(stream.sock);
        clear.expect("NOOP", 200);
        let address = clear.passive(common::Way::Epsv);
        let data = std::net::TcpStream::connect(address).expect("the passive port");
        clear.expect("RETR file", 150);
        let mut data = tls.wrap(data);
        let mut got = Vec::new();
        data.read_to_end(&mut got).expect("the file");
        assert_eq!(got, b"content");
        clear.reply(226);
        clear.expect("AUTH TLS", 503);
        clear.expect("QUIT", 221);
    }
}

#[test]
fn rein_ends_tls() {
    let server = server();
    let tls = TlsClient::trusting(&certificate_of(server.folder(), "localhost"));
    let mut session = tls.login(server.address());
    session.expect("REIN", 220);
    let common::TlsSession { mut stream, .. } = session;
    stream.conn.send_close_notify();
    stream.flush().expect("close_notify");
    let mut rest = Vec::new();
    assert_eq!(stream.read_to_end(&mut rest).expect("close_notify"), 0);
    let mut clear = Client::over(stream.sock);
    clear.expect("PWD", 530);
    clear.expect("AUTH TLS", 234);
    let stream = clear.stream().try_clone().expect("a descriptor");
    let mut session = common::TlsSession::over(tls.wrap(stream));
    session.expect("USER anonymous", 331);
    session.expect("PASS x", 230);
}

/// A message of the handshake that claims to be longer than any buffer, in records of 1000 bytes.
fn endless_message() -> Vec<u8> {
    let mut message = vec![1, 0, 0xff, 0xf0];
    message.resize(70_000, 0);
    let records = message.chunks(1000).map(|part| {
        let [high, low] = u16::try_from(part.len()).expect("short").to_be_bytes();
        [&[22, 3, 1, high, low], part].concat()
    });
    records.collect::<Vec<_>>().concat()
}

#[test]
fn a_handshake_message_without_end_does_not_hang_the_core() {
    let server = Setup::new().tls().set("server.cores", 1).start();
    let mut client = server.connect();
    client.expect("AUTH TLS", 234);
    // The server may have hung up before it has read all.
    let _ = client.stream().write_all(&endless_message());
    server.connect().expect("NOOP", 200);
    // The same on a data connection.
    let tls = TlsClient::trusting(&certificate_of(server.folder(), "localhost"));
    let mut session = tls.login(server.address());
    let mut data = session.begin("NLST");
    let _ = data.write_all(&endless_message());
    let reply = session.reply();
    assert!(reply.starts_with("522 "), "{reply}");
    session.expect("NOOP", 200);
    server.connect().expect("NOOP", 200);
}

#[test]
fn rein_gives_nobody_more_time_to_log_in() {
    let server = Setup::new().set("limits.login_timeout", "\"1 s\"").start();
    let mut client = server.connect();
    let begun = std::time::Instant::now();
    loop {
        client.send("REIN");
        if client.next_reply().code == 421 {
            break;
        }
        assert!(begun.elapsed() < DEADLINE, "REIN lengthens the wait");
        std::thread::yield_now();
    }
}
