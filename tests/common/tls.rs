//! Certificates for the tests, and a client of TLS that says exactly what it is told to.

use std::fs;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;

use rcgen::{CertificateParams, KeyPair, RsaKeySize};
use rustls::pki_types::pem::PemObject;
use rustls::pki_types::{CertificateDer, ServerName};
use rustls::{ClientConfig, ClientConnection, RootCertStore, StreamOwned};

use super::{Client, DEADLINE, Setup};

impl Setup {
    /// With a certificate for `localhost` and the addresses of loopback: see [`certificate_of`].
    pub(crate) fn tls(self) -> Self {
        let folder = self.folder().to_owned();
        write_certificate(
            &folder,
            "localhost",
            &["localhost", "127.0.0.1", "::1"],
            Kind::Ecdsa,
        );
        let files = files(&folder, "localhost");
        self.set("tls.certificates", format!("[{files}]"))
    }
}

/// What is signed with.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Kind {
    Ecdsa,
    Rsa,
}

/// Where the certificate of that name is.
pub(crate) fn certificate_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.pem"))
}

/// Where its key is.
pub(crate) fn key_of(folder: &Path, name: &str) -> PathBuf {
    folder.join(format!("{name}.key"))
}

/// Both, as the configuration names them.
pub(crate) fn files(folder: &Path, name: &str) -> String {
    let (certificate, key) = (certificate_of(folder, name), key_of(folder, name));
    format!("{{ certificate = {certificate:?}, key = {key:?} }}")
}

/// Makes a self-signed certificate for these hosts, and its key.
pub(crate) fn write_certificate(folder: &Path, name: &str, hosts: &[&str], kind: Kind) {
    let hosts: Vec<String> = hosts.iter().map(|host| (*host).to_owned()).collect();
    let parameters = CertificateParams::new(hosts).expect("hosts");
    write_certificate_of(folder, name, parameters, kind);
}

/// The same, with whatever is in the parameters.
pub(crate) fn write_certificate_of(
    folder: &Path,
    name: &str,
    parameters: CertificateParams,
    kind: Kind,
) {
    let key = match kind {
        Kind::Ecdsa => KeyPair::generate(),
        Kind::Rsa => KeyPair::generate_rsa_for(&rcgen::PKCS_RSA_SHA256, RsaKeySize::_2048),
    };
    let key = key.expect("a key");
    let certificate = parameters.self_signed(&key).expect("a certificate");
    fs::write(certificate_of(folder, name), certificate.pem()).expect("a file");
    fs::write(key_of(folder, name), key.serialize_pem()).expect("a file");
}

/// Whoever talks TLS to the server.
#[derive(Clone)]
pub(crate) struct TlsClient {
    pub(crate) config: Arc<ClientConfig>,
}

impl TlsClient {
    /// Trusts this certificate.
    pub(crate) fn trusting(certificate: &Path) -> Self {
        Self::with(certificate, rustls::ALL_VERSIONS)
    }

    /// The same, in these versions only.
    pub(crate) fn with(
        certificate: &Path,
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let certificate = CertificateDer::from_pem_file(certificate).expect("a certificate");
        Self::new(&[certificate], versions)
    }

    /// Trusts these certificates.
    pub(crate) fn trusting_all(certificates: &[CertificateDer<'static>]) -> Self {
        Self::new(certificates, rustls::ALL_VERSIONS)
    }

    fn new(
        certificates: &[CertificateDer<'static>],
        versions: &[&'static rustls::SupportedProtocolVersion],
    ) -> Self {
        let mut roots = RootCertStore::empty();
        for certificate in certificates {
            roots.add(certificate.clone()).expect("a certificate");
        }
        let provider = Arc::new(rustls::crypto::aws_lc_rs::default_provider());
        let config = ClientConfig::builder_with_provider(provider)
            .with_protocol_versions(versions)
            .expect("versions")
            .with_root_certificates(roots)
            .with_no_client_auth();
        Self {
            config: Arc::new(config),
        }
    }

    /// A session that has read its greeting and begun TLS.
    #[track_caller]
    pub(crate) fn connect(&self, address: SocketAddr) -> TlsSession {
        let mut client = Client::connect(address);
        client.expect("AUTH TLS", 234);
        let stream = client.stream().try_clone().expect("a descriptor");
        TlsSession {
            stream: self.wrap(stream),
            received: Vec::new(),
        }
    }

    /// A session in which anonymous is logged in and data connections are protected.
    #[track_caller]
    pub(crate) fn login(&self, address: SocketAddr) -> TlsSession {
        let mut session = self.connect(address);
        session.expect("USER anonymous", 331);
        session.expect("PASS x", 230);
        session.expect("PBSZ 0", 200);
        session.expect("PROT P", 200);
        session.expect("TYPE I", 200);
        session
    }

    /// TLS over a connection.
    pub(crate) fn wrap(&self, stream: TcpStream) -> StreamOwned<ClientConnection, TcpStream> {
        self.wrap_for("localhost", stream)
    }

    /// The same with the server of that name.
    pub(crate) fn wrap_for(
        &self,
        host: &str,
        stream: TcpStream,
    ) -> StreamOwned<ClientConnection, TcpStream> {
        stream.set_read_timeout(Some(DEADLINE)).expect("a timeout");
        let name = ServerName::try_from(host.to_owned()).expect("a name");
        let connection = ClientConnection::new(Arc::clone(&self.config), name);
        StreamOwned::new(connection.expect("a client"), stream)
    }
}

/// A control connection over TLS.
pub(crate) struct TlsSession {
    pub(crate) stream: StreamOwned<ClientConnection, TcpStream>,
    received: Vec<u8>,
}

impl TlsSession {
    /// Over what is there already.
    pub(crate) fn over(stream: StreamOwned<ClientConnection, TcpStream>) -> Self {
        Self {
            stream,
            received: Vec::new(),
        }
    }

    /// Sends a line, and reads the reply, which must have this code.
    #[track_caller]
    pub(crate) fn expect(&mut self, line: &str, code: u16) -> String {
        let sent = self.stream.write_all(format!("{line}\r\n").as_bytes());
        sent.expect("the line is sent");
        let reply = self.reply();
        assert!(reply.starts_with(&code.to_string()), "{line}: {reply}");
        reply
    }

    /// The last line of the next reply.
    #[track_caller]
    pub(crate) fn reply(&mut self) -> String {
        loop {
            let Some(end) = self.received.windows(2).position(|pair| pair == b"\r\n") else {
                let mut buffer = [0; 4096];
                let read = self.stream.read(&mut buffer).expect("a reply");
                assert!(read > 0, "the connection has ended");
                self.received.extend_from_slice(&buffer[..read]);
                continue;
            };
            let line: Vec<u8> = self.received.drain(..end + 2).collect();
            let line = String::from_utf8(line).expect("UTF-8");
            if line.as_bytes().get(3) == Some(&b' ') && line.as_bytes()[0].is_ascii_digit() {
                return line.trim_end().to_owned();
            }
        }
    }

    /// A data connection by EPSV, for this command, whose 150 has come.
    #[track_caller]
    pub(crate) fn begin(&mut self, command: &str) -> TcpStream {
        let reply = self.expect("EPSV", 229);
        let port = reply.split('|').nth(3).expect("a port");
        let mut address = self.stream.sock.peer_addr().expect("connected");
        address.set_port(port.parse().expect("a port"));
        let data = TcpStream::connect(address).expect("the passive port");
        self.expect(command, 150);
        data
    }
}
