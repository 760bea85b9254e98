//! Certificates: which one a client gets, how they are renewed under a server that runs, implicit TLS,
//! and `ringftpd cert`.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use common::{
    Client, Kind, PASSWORD, Setup, TestServer, TlsClient, TlsSession, certificate_of, eventually,
    files, noise, program, run, write_certificate,
};
use rcgen::{CertificateParams, KeyPair};
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;

/// The certificate in a file.
fn der(server: &TestServer, name: &str) -> CertificateDer<'static> {
    let file = certificate_of(server.folder(), name);
    CertificateDer::from_pem_file(file).expect("a certificate")
}

/// The certificate that a client gets who trusts all of these, and asks for this host.
fn offered(server: &TestServer, host: &str, trusted: &[&str]) -> CertificateDer<'static> {
    let trusted: Vec<_> = trusted.iter().map(|name| der(server, name)).collect();
    let mut client = Client::connect(server.address());
    client.expect("AUTH TLS", 234);
    let stream = client.stream().try_clone().expect("a descriptor");
    let mut session = TlsSession::over(TlsClient::trusting_all(&trusted).wrap_for(host, stream));
    session.expect("NOOP", 200);
    let chain = session.stream.conn.peer_certificates().expect("a chain");
    chain[0].clone().into_owned()
}

#[test]
fn a_client_gets_the_certificate_of_the_host_it_asks_for() {
    let setup = Setup::new();
    let folder = setup.folder().to_owned();
    let all = [
        ("first", &["first.example"][..], Kind::Rsa),
        ("rsa", &["two.example", "*.two.example"][..], Kind::Rsa),
        ("ecdsa", &["two.example", "*.two.example"][..], Kind::Ecdsa),
    ];
    for (name, hosts, kind) in all {
        write_certificate(&folder, name, hosts, kind);
    }
    let list: Vec<String> = all.iter().map(|(name, ..)| files(&folder, name)).collect();
    let server = setup
        .set("tls.certificates", format!("[{}]", list.join(", ")))
        .start();
    let names = ["first", "rsa", "ecdsa"];
    for (host, name) in [
        ("first.example", "first"),
        ("two.example", "ecdsa"),
        ("TWO.example", "ecdsa"),
        ("a.two.example", "ecdsa"),
    ] {
        assert!(
            offered(&server, host, &names) == der(&server, name),
            "{host}"
        );
    }
    // openssl knows how to be old: no ECDSA.
    let address = format!("localhost:{}", server.address().port());
    for (host, signatures, name) in [
        ("two.example", "RSA-PSS+SHA256", "rsa"),
        ("unknown.example", "RSA-PSS+SHA256:ECDSA+SHA256", "first"),
        ("a.b.two.example", "RSA-PSS+SHA256:ECDSA+SHA256", "first"),
    ] {
        let ca = certificate_of(&folder, name).display().to_string();
        let arguments = [
            "s_client",
            "-starttls",
            "ftp",
            "-connect",
            &address,
            "-CAfile",
            &ca,
            "-servername",
            host,
            "-sigalgs",
            signatures,
            "-verify_return_error",
            "-4",
        ];
        let told = run(Command::new("openssl").args(arguments)).success();
        let told = String::from_utf8_lossy(&told).into_owned();
        assert!(
            told.contains("Verify return code: 0 (ok)"),
            "{host}\n{told}"
        );
    }
}

#[test]
fn a_renewed_certificate_is_taken_over_and_no_session_notices() {
    let server = Setup::new().tls().start();
    server.put("file", "content");
    let old = der(&server, "localhost");
    let tls = TlsClient::trusting_all(std::slice::from_ref(&old));
    let mut session = tls.login(server.address());
    let renew = || {
        let hosts = ["localhost", "127.0.0.1"];
        write_certificate(server.folder(), "localhost", &hosts, Kind::Ecdsa);
    };
    let renewed = |old: &CertificateDer<'static>| {
        let new = der(&server, "localhost");
        assert!(new != *old);
        eventually("the new certificate", || {
            let mut client = Client::connect(server.address());
            client.expect("AUTH TLS", 234);
            let stream = client.stream().try_clone().expect("a descriptor");
            let tls = TlsClient::trusting_all(&[old.clone(), new.clone()]);
            let mut session = TlsSession::over(tls.wrap(stream));
            session.expect("NOOP", 200);
            session.stream.conn.peer_certificates().expect("it")[0] == new
        });
        new
    };
    renew();
    let new = renewed(&old);
    // By an order, too.
    renew();
    let told = server.reload();
    assert_eq!(told.code, Some(0), "{}", told.err);
    let new = renewed(&new);
    // One that is broken is refused, by whichever way, and the old one stays.
    fs::write(common::key_of(server.folder(), "localhost"), "").expect("a file");
    server.wait_for_log("no private key in it");
    let told = server.reload();
    assert_ne!(told.code, Some(0));
    assert!(told.err.contains("no private key in it"), "{}", told.err);
    assert!(offered(&server, "localhost", &["localhost"]) == new);
    // The session of the beginning goes on, and so do its data connections.
    let mut data = tls.wrap(session.begin("RETR file"));
    let mut got = Vec::new();
    std::io::Read::read_to_end(&mut data, &mut got).expect("the file");
    assert_eq!(got, b"content");
    assert!(session.reply().starts_with("226 "));
    let resumed = Some(rustls::HandshakeKind::Resumed);
    assert_eq!(data.conn.handshake_kind(), resumed);
}

#[test]
fn implicit_tls_begins_with_the_first_byte() {
    let server = Setup::new()
        .tls()
        .set("server.listen", "[\"127.0.0.1:0\", \"127.0.0.2:0\"]")
        .set("listener.ftps.address", "\"127.0.0.2:0\"")
        .set("listener.ftps.tls", "\"implicit\"")
        .start();
    let [explicit, implicit]: [SocketAddr; 2] = server.addresses().try_into().expect("two");
    server.put("file", noise(2_000_003, 1));
    let url = format!("ftps://{implicit}/file");
    let arguments = ["--silent", "--show-error", "--insecure", "--max-time", "60"];
    let got = run(Command::new("curl").args(arguments).arg(&url)).success();
    assert!(got == noise(2_000_003, 1));
    let up = server.folder().join("up");
    fs::write(&up, noise(2_000_003, 2)).expect("a file");
    let url = format!("ftps://{implicit}/up");
    let mut put = Command::new("curl");
    put.args(arguments).arg("--upload-file").arg(&up).arg(&url);
    run(&mut put).success();
    assert!(server.get("up") == Some(noise(2_000_003, 2)));
    // PBSZ 0 and PROT P are as if they had been sent.
    let tls = TlsClient::trusting(&certificate_of(server.folder(), "localhost"));
    let stream = std::net::TcpStream::connect(implicit).expect("a connection");
    let mut session = TlsSession::over(tls.wrap(stream));
    assert!(session.reply().starts_with("220 "));
    session.expect("USER anonymous", 331);
    session.expect("PASS x", 230);
    session.expect("AUTH TLS", 503);
    let mut data = tls.wrap(session.begin("NLST"));
    let mut got = Vec::new();
    std::io::Read::read_to_end(&mut data, &mut got).expect("the names");
    assert_eq!(got, b"file\r\nup\r\n");
    // At the other address nothing has changed.
    Client::connect(explicit).expect("USER anonymous", 331);
}

#[test]
fn cert_self_signed_makes_what_the_server_takes() {
    let folder = tempfile::tempdir().expect("a folder");
    let file = folder.path().join("ftp.pem");
    let make = || {
        let mut command = Command::new(program());
        command.args([
            "cert",
            "self-signed",
            "--host",
            "localhost",
            "--host",
            "127.0.0.1",
        ]);
        run(command.args(["--days", "30", "--file"]).arg(&file))
    };
    let told = String::from_utf8(make().success()).expect("UTF-8");
    assert!(
        told.contains(&format!("certificates = [{file:?}]")),
        "{told}"
    );
    let mode = fs::metadata(&file).expect("a file").permissions().mode();
    assert_eq!(mode & 0o777, 0o600);
    let server = Setup::new()
        .set("tls.certificates", format!("[{file:?}]"))
        .start();
    let mut session = TlsClient::trusting(&file).login(server.address());
    session.expect("PWD", 257);
    // A key that is in use is not written over.
    let again = make();
    assert_ne!(again.code, Some(0));
    assert!(again.err.contains("File exists"), "{}", again.err);
}

#[test]
fn what_is_amiss_with_a_certificate_is_told() {
    let setup = Setup::new();
    let folder = setup.folder().to_owned();
    let mut parameters = CertificateParams::new(["old".to_owned()]).expect("a host");
    parameters.not_after = rcgen::date_time_ymd(2020, 1, 1);
    common::write_certificate_of(&folder, "old", parameters, Kind::Ecdsa);
    let key = common::key_of(&folder, "old");
    fs::set_permissions(&key, fs::Permissions::from_mode(0o644)).expect("a mode");
    let setup = setup.set("tls.certificates", format!("[{}]", files(&folder, "old")));
    let mut command = Command::new(program());
    let told = run(command.arg("check").arg("--config").arg(setup.write())).success();
    let told = String::from_utf8(told).expect("UTF-8");
    assert!(told.contains("old.pem: the certificate expired "), "{told}");
    assert!(
        told.contains("old.key: everybody on this host can read the key"),
        "{told}"
    );
}

/// An authority of its own, with two users and a list on which one of them is.
struct Authority {
    folder: std::path::PathBuf,
}

impl Authority {
    fn new(folder: &std::path::Path) -> Self {
        let mut parameters = CertificateParams::new(Vec::new()).expect("no hosts");
        parameters.is_ca = rcgen::IsCa::Ca(rcgen::BasicConstraints::Unconstrained);
        parameters.key_usages = vec![
            rcgen::KeyUsagePurpose::KeyCertSign,
            rcgen::KeyUsagePurpose::CrlSign,
        ];
        let key = KeyPair::generate().expect("a key");
        let issuer = rcgen::CertifiedIssuer::self_signed(parameters, key).expect("an authority");
        fs::write(folder.join("ca.pem"), issuer.pem()).expect("a file");
        for (name, serial) in [("alice", 1_u64), ("bob", 2)] {
            let mut parameters = CertificateParams::new(Vec::new()).expect("no hosts");
            let names = &mut parameters.distinguished_name;
            *names = rcgen::DistinguishedName::new();
            names.push(rcgen::DnType::CommonName, name);
            parameters.serial_number = Some(serial.into());
            parameters.extended_key_usages = vec![rcgen::ExtendedKeyUsagePurpose::ClientAuth];
            let key = KeyPair::generate().expect("a key");
            let certificate = parameters.signed_by(&key, &issuer).expect("a certificate");
            let pem = certificate.pem() + &key.serialize_pem();
            fs::write(folder.join(format!("{name}.pem")), pem).expect("a file");
        }
        let list = rcgen::CertificateRevocationListParams {
            this_update: rcgen::date_time_ymd(2024, 1, 1),
            next_update: rcgen::date_time_ymd(2124, 1, 1),
            crl_number: 1_u64.into(),
            issuing_distribution_point: None,
            revoked_certs: vec![rcgen::RevokedCertParams {
                serial_number: 2_u64.into(),
                revocation_time: rcgen::date_time_ymd(2024, 1, 1),
                reason_code: None,
                invalidity_date: None,
            }],
            key_identifier_method: rcgen::KeyIdMethod::Sha256,
        };
        let list = list.signed_by(&issuer).expect("a list");
        fs::write(folder.join("crl.pem"), list.pem().expect("PEM")).expect("a file");
        Self {
            folder: folder.to_owned(),
        }
    }

    /// What curl says to a download as this user, with the certificate of that one.
    fn curl(&self, server: &TestServer, user: &str, certificate: Option<&str>) -> common::Run {
        let mut command = Command::new("curl");
        command.args([
            "--silent",
            "--show-error",
            "--insecure",
            "--ssl-reqd",
            "--user",
            user,
        ]);
        if let Some(name) = certificate {
            command
                .arg("--cert")
                .arg(self.folder.join(format!("{name}.pem")));
        }
        run(command.arg(format!("ftp://{}/file", server.address())))
    }
}

fn with_authority(login: &str) -> (TestServer, Authority) {
    let setup = Setup::new();
    let folder = setup.folder().to_owned();
    let authority = Authority::new(&folder);
    let server = setup
        .tls()
        .user("alice", "read-write")
        .user("bob", "read-write")
        .set("tls.client_ca", format!("{:?}", folder.join("ca.pem")))
        .set("tls.client_crls", format!("[{:?}]", folder.join("crl.pem")))
        .set("tls.client_login", format!("{login:?}"))
        .set("tls.client_certificates", "\"optional\"")
        .set("limits.login_delay", "\"0 s\"")
        .start();
    fs::write(folder.join("alice/file"), "of alice").expect("a file");
    fs::write(folder.join("bob/file"), "of bob").expect("a file");
    (server, authority)
}

#[test]
fn a_certificate_logs_its_user_in() {
    let (mut server, authority) = with_authority("certificate");
    let alice = format!("alice:{PASSWORD}");
    let bob = format!("bob:{PASSWORD}");
    assert_eq!(
        authority
            .curl(&server, "alice:wrong", Some("alice"))
            .success(),
        b"of alice"
    );
    // 67: the login is denied (curl(1)).
    assert_eq!(
        authority.curl(&server, "bob:wrong", Some("alice")).code,
        Some(67)
    );
    assert_eq!(
        authority.curl(&server, &bob, Some("alice")).success(),
        b"of bob"
    );
    assert_eq!(authority.curl(&server, &alice, None).success(), b"of alice");
    // It has been revoked.
    let revoked = authority.curl(&server, &bob, Some("bob"));
    assert!(revoked.err.contains("revoked"), "{}", revoked.err);
    server.set("tls.client_certificates", "\"require\"");
    assert_eq!(server.reload().code, Some(0));
    assert_eq!(
        authority
            .curl(&server, "alice:wrong", Some("alice"))
            .success(),
        b"of alice"
    );
    assert_ne!(authority.curl(&server, &alice, None).code, Some(0));
}

#[test]
fn a_certificate_says_which_user_may_log_in() {
    let (server, authority) = with_authority("name");
    let alice = format!("alice:{PASSWORD}");
    let bob = format!("bob:{PASSWORD}");
    assert_eq!(
        authority.curl(&server, &alice, Some("alice")).success(),
        b"of alice"
    );
    assert_eq!(
        authority.curl(&server, "alice:wrong", Some("alice")).code,
        Some(67)
    );
    assert_ne!(authority.curl(&server, &bob, Some("alice")).code, Some(0));
}
