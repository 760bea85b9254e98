//! TLS for measuring: any certificate is taken, since nobody's secrets are at stake; what comes is
//! decrypted, and so checked, where it was received.

use std::fmt;
use std::ops::Range;
use std::sync::Arc;

use rustls::client::danger::{HandshakeSignatureValid, ServerCertVerified, ServerCertVerifier};
use rustls::client::{Resumption, UnbufferedClientConnection};
use rustls::crypto::aws_lc_rs::{cipher_suite, default_provider, kx_group};
use rustls::pki_types::{CertificateDer, ServerName, UnixTime};
use rustls::unbuffered::{ConnectionState, EncodeError, EncryptError, UnbufferedStatus};
use rustls::{
    ClientConfig, DigitallySignedStruct, HandshakeKind, SignatureScheme, SupportedProtocolVersion,
    version,
};

use super::{Doing, Error, Result};

/// What the connections of a session have in common.
#[derive(Clone, Debug)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
    server: ServerName<'static>,
}

/// What has been agreed upon, in the words of the RFCs.
pub(crate) type Protocol = (&'static str, &'static str);

impl Tls {
    /// TLS 1.3 or 1.2 with a server. There is one cipher, so that all servers have the same to do.
    pub(crate) fn new(version: &'static SupportedProtocolVersion, server: &str) -> Result<Self> {
        let mut provider = default_provider();
        provider.cipher_suites = vec![
            cipher_suite::TLS13_AES_128_GCM_SHA256,
            cipher_suite::TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256,
        ];
        provider.kx_groups = vec![kx_group::X25519, kx_group::SECP256R1];
        let schemes = provider
            .signature_verification_algorithms
            .supported_schemes();
        let config = ClientConfig::builder_with_provider(provider.into())
            .with_protocol_versions(&[version])
            .doing("TLS")?
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(Anyone(schemes)))
            .with_no_client_auth();
        Ok(Self {
            config: config.into(),
            server: ServerName::try_from(server.to_owned()).doing("TLS")?,
        })
    }

    /// The version of that name.
    pub(crate) fn version(name: &str) -> Option<&'static SupportedProtocolVersion> {
        match name {
            "1.2" => Some(&version::TLS12),
            "1.3" => Some(&version::TLS13),
            _ => None,
        }
    }

    /// The same for a session of its own, whose data connections resume it and no other one.
    pub(crate) fn for_session(&self) -> Self {
        let mut config = ClientConfig::clone(&self.config);
        config.resumption = Resumption::in_memory_sessions(1);
        Self {
            config: config.into(),
            server: self.server.clone(),
        }
    }
}

/// The server's certificate and signature are not looked at.
#[derive(Debug)]
struct Anyone(Vec<SignatureScheme>);

impl ServerCertVerifier for Anyone {
    fn verify_server_cert(
        &self,
        _: &CertificateDer<'_>,
        _: &[CertificateDer<'_>],
        _: &ServerName<'_>,
        _: &[u8],
        _: UnixTime,
    ) -> std::result::Result<ServerCertVerified, rustls::Error> {
        Ok(ServerCertVerified::assertion())
    }

    fn verify_tls12_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn verify_tls13_signature(
        &self,
        _: &[u8],
        _: &CertificateDer<'_>,
        _: &DigitallySignedStruct,
    ) -> std::result::Result<HandshakeSignatureValid, rustls::Error> {
        Ok(HandshakeSignatureValid::assertion())
    }

    fn supported_verify_schemes(&self) -> Vec<SignatureScheme> {
        self.0.clone()
    }
}

/// One end of a connection, without its socket: rustls's interface that has no buffers of its own,
/// because those cost as much as the decryption.
pub(crate) struct Channel {
    connection: UnbufferedClientConnection,
    incoming: Vec<u8>,
    /// What of `incoming` has not been decrypted.
    unread: Range<usize>,
    outgoing: Vec<u8>,
    /// What of `outgoing` has not been sent.
    unsent: Range<usize>,
    /// Whether the handshake is over on this side.
    is_ready: bool,
    /// Whether the peer has said that nothing more comes.
    pub(crate) is_over: bool,
}

/// What is to be done once nothing stands before it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Next<'a> {
    Nothing,
    Send(&'a [u8]),
    Close,
}

impl Channel {
    pub(crate) fn new(tls: &Tls) -> Result<Self> {
        let config = Arc::clone(&tls.config);
        Ok(Self {
            connection: UnbufferedClientConnection::new(config, tls.server.clone()).doing("TLS")?,
            incoming: vec![0; BUFFER_BYTES],
            unread: 0..0,
            outgoing: vec![0; BUFFER_BYTES],
            unsent: 0..0,
            is_ready: false,
            is_over: false,
        })
    }

    /// Where to receive to; tell [`Channel::received`].
    pub(crate) fn room(&mut self) -> &mut [u8] {
        // What is left is part of a record.
        self.incoming.copy_within(self.unread.clone(), 0);
        self.unread = 0..self.unread.len();
        &mut self.incoming[self.unread.end..]
    }

    pub(crate) fn received(&mut self, count: usize) {
        self.unread.end += count;
        // Where much comes at once, more may come the next time.
        if self.unread.end == self.incoming.len() && self.incoming.len() < BUFFER_BYTES_MAX {
            self.incoming.resize(2 * self.incoming.len(), 0);
        }
    }

    /// What is to be sent; tell [`Channel::sent`].
    pub(crate) fn output(&self) -> &[u8] {
        &self.outgoing[self.unsent.clone()]
    }

    pub(crate) fn sent(&mut self, count: usize) {
        self.unsent.start += count;
        if self.unsent.is_empty() {
            self.unsent = 0..0;
        }
    }

    /// Decrypts all that came, hands it to `plain`, and then encrypts what is next.
    pub(crate) fn advance(&mut self, next: Next<'_>, mut plain: impl FnMut(&[u8])) -> Result<()> {
        let doing = "TLS";
        loop {
            let input = &mut self.incoming[self.unread.clone()];
            let UnbufferedStatus { discard, state, .. } =
                self.connection.process_tls_records(input);
            self.unread.start += discard;
            let (output, end) = (&mut self.outgoing, &mut self.unsent.end);
            match state.doing(doing)? {
                ConnectionState::ReadTraffic(mut traffic) => {
                    while let Some(record) = traffic.next_record() {
                        let record = record.doing(doing)?;
                        self.unread.start += record.discard;
                        plain(record.payload);
                    }
                }
                ConnectionState::EncodeTlsData(mut data) => {
                    put(output, end, |room| data.encode(room))?;
                }
                // Whoever calls this sends it.
                ConnectionState::TransmitTlsData(data) => data.done(),
                ConnectionState::PeerClosed => self.is_over = true,
                ConnectionState::WriteTraffic(mut traffic) => {
                    self.is_ready = true;
                    return match next {
                        Next::Nothing => Ok(()),
                        Next::Send(bytes) => put(output, end, |room| traffic.encrypt(bytes, room)),
                        Next::Close => put(output, end, |room| traffic.queue_close_notify(room)),
                    };
                }
                ConnectionState::BlockedHandshake | ConnectionState::Closed
                    if next == Next::Nothing =>
                {
                    return Ok(());
                }
                other => return Err(Error::new(format!("TLS: {other:?}"))),
            }
        }
    }

    /// Whether the session resumes another one, and what it is like, once the handshake is over.
    pub(crate) fn agreed(&self) -> Option<(bool, Protocol)> {
        if !self.is_ready {
            return None;
        }
        let resumed = self.connection.handshake_kind() == Some(HandshakeKind::Resumed);
        let version = self.connection.protocol_version();
        let suite = self.connection.negotiated_cipher_suite();
        let suite = suite.and_then(|suite| suite.suite().as_str());
        Some((resumed, (version?.as_str()?, suite?)))
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel")
    }
}

/// Has something written behind what is there, with as much room as it needs.
fn put<E: Needs>(
    output: &mut Vec<u8>,
    end: &mut usize,
    mut write: impl FnMut(&mut [u8]) -> std::result::Result<usize, E>,
) -> Result<()> {
    loop {
        match write(&mut output[*end..]) {
            Ok(count) => {
                *end += count;
                return Ok(());
            }
            Err(error) => match error.needs() {
                Some(size) => output.resize(*end + size, 0),
                None => return Err(Error::new("TLS: nothing more can be encrypted")),
            },
        }
    }
}

/// What rustls says when there is too little room.
trait Needs {
    fn needs(&self) -> Option<usize>;
}

impl Needs for EncodeError {
    fn needs(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(error) => Some(error.required_size),
            Self::AlreadyEncoded => None,
        }
    }
}

impl Needs for EncryptError {
    fn needs(&self) -> Option<usize> {
        match self {
            Self::InsufficientSize(error) => Some(error.required_size),
            Self::EncryptExhausted => None,
        }
    }
}

/// A record and its overhead (RFC 8446 §5.2).
const BUFFER_BYTES: usize = 20 << 10;

/// Stays in the CPU's second cache.
const BUFFER_BYTES_MAX: usize = 8 * BUFFER_BYTES;
