//! TLS without I/O: certificates and their keys ([`Tls::load`]), which control session a data
//! connection belongs to ([`SessionTls`]), and the protocol itself as machines that turn bytes into
//! bytes: [`Stream`] for control connections; for data connections [`Handshake`], and [`Channel`] behind it.
//!
//! The protocol is rustls with the cryptography of aws-lc-rs; records of data connections are ours. What is loaded here is shared by all
//! cores and does not change: a reload loads it anew, and sessions keep what they began with. The keys
//! of session tickets are the process's, so that sessions are resumed on whichever core.

mod certificates;
mod channel;
mod handshake;
mod records;
mod resumption;
mod stream;

use std::cell::OnceCell;
use std::collections::HashMap;
use std::sync::Arc;
use std::time::{Duration, SystemTime};

use rustls::ServerConfig;
use rustls::crypto::{CryptoProvider, aws_lc_rs};
use rustls::server::danger::ClientCertVerifier;

pub use certificates::CertificateError;
pub use channel::{CLOSE, Channel, KEY_UPDATE, Message, TransmitKeys};
pub use handshake::Handshake;
pub use records::{CONTENT_BYTES_MAX, Content, Opened, Opener, RecordError, Sealer};
pub use resumption::Keys;
pub use stream::{Stream, TlsError};

use crate::config::{self, CertificateFiles, ClientCertificates, DataResumption, TlsVersion};
use certificates::{Certificate, Certificates, Resolver, client_verifier};
use resumption::Face;

/// What is needed to serve TLS: certificates, keys, rules.
#[derive(Debug)]
pub struct Tls {
    /// Of control connections; what is particular to a session is set in a copy.
    config: ServerConfig,
    /// What chooses the certificates of virtual hosts that have their own, by their sections.
    resolvers: HashMap<String, Arc<Resolver>>,
    /// Clients show certificates.
    asks_clients: bool,
    keys: Arc<Keys>,
    data_resumption: DataResumption,
    handshake_timeout: Duration,
    renew_keys_after: u64,
    notes: Vec<String>,
}

impl Tls {
    /// Loads what a configuration names; `None` if it offers no TLS.
    ///
    /// # Errors
    /// Everything that is wrong with the certificates and their keys.
    pub fn load(
        config: &config::Tls,
        keys: &Arc<Keys>,
    ) -> Result<Option<Self>, Vec<CertificateError>> {
        if !config.is_on() {
            return Ok(None);
        }
        let mut errors = Vec::new();
        let mut load = |files: &Vec<CertificateFiles>| -> Vec<Certificate> {
            let loaded = files
                .iter()
                .map(|files| Certificate::load(files, &keys.provider));
            loaded
                .filter_map(|loaded| loaded.map_err(|error| errors.push(error)).ok())
                .collect()
        };
        let of_server = load(&config.certificates);
        let of_hosts = config.hosts.iter();
        let of_hosts: Vec<_> = of_hosts
            .map(|host| (host, load(&host.certificates)))
            .collect();
        let verifier = client_verifier(config, &keys.provider);
        let verifier = match verifier {
            Ok(verifier) if errors.is_empty() => verifier,
            Ok(_) => return Err(errors),
            Err(error) => {
                errors.push(error);
                return Err(errors);
            }
        };
        let certificates = Certificates::new(of_server, of_hosts);
        let notes = certificates.notes(SystemTime::now());
        let (resolver, resolvers) = Resolver::all(certificates);
        Ok(Some(Self {
            config: server_config(config.min_version, verifier, resolver, &keys.provider),
            resolvers,
            asks_clients: config.client_certificates != ClientCertificates::Off,
            keys: Arc::clone(keys),
            data_resumption: config.data_resumption,
            handshake_timeout: config.handshake_timeout,
            renew_keys_after: config.renew_keys_after,
            notes,
        }))
    }

    /// What is worth telling the operator: certificates that have expired, keys that others can read.
    pub fn notes(&self) -> &[String] {
        &self.notes
    }

    /// The TLS of the control session with this number, which no other session of the process has, on the
    /// virtual host of this section.
    pub fn session(self: &Arc<Self>, number: u64, host: &str) -> SessionTls {
        SessionTls {
            resolver: self.resolvers.get(host).map(Arc::clone),
            tls: Arc::clone(self),
            number,
            down: OnceCell::new(),
            up: OnceCell::new(),
        }
    }
}

/// The TLS of one control session and its data connections.
#[derive(Debug)]
pub struct SessionTls {
    tls: Arc<Tls>,
    /// That of a virtual host.
    resolver: Option<Arc<Resolver>>,
    number: u64,
    down: OnceCell<Arc<ServerConfig>>,
    up: OnceCell<Arc<ServerConfig>>,
}

impl SessionTls {
    /// How long a handshake may take.
    pub fn handshake_timeout(&self) -> Duration {
        self.tls.handshake_timeout
    }

    /// The engine of the control connection.
    ///
    /// # Errors
    /// None that is known.
    pub fn control(&self) -> Result<Stream, TlsError> {
        // A certificate may have been revoked since an earlier session began.
        let face = match self.tls.asks_clients {
            true => Face::data(&self.tls.keys, self.number),
            false => Face::control(&self.tls.keys, self.number),
        };
        let config = self.config(face);
        Stream::new(Arc::new(config))
    }

    /// What the data connections of this session go by, for files that go down or up.
    pub fn data(&self, is_upload: bool) -> DataTls {
        let resumption = self.tls.data_resumption;
        let config = match is_upload {
            true => &self.up,
            false => &self.down,
        };
        let config = config.get_or_init(|| {
            let face = match resumption {
                DataResumption::Off => Face::none(&self.tls.keys),
                _ => Face::data(&self.tls.keys, self.number),
            };
            let mut config = self.config(face);
            // One for clients that use each ticket once (curl 8.12). None where the client only sends:
            // one that closes its socket without having read it resets the connection, and what is on
            // its way is lost (Go's crypto/tls, and thus rclone 1.60).
            config.send_tls13_tickets = usize::from(!is_upload);
            // The keys are for the records of `Channel`.
            config.enable_secret_extraction = true;
            Arc::new(config)
        });
        DataTls {
            config: Arc::clone(config),
            resumption,
            handshake_timeout: self.tls.handshake_timeout,
            renew_keys_after: self.tls.renew_keys_after,
        }
    }

    fn config(&self, face: Face) -> ServerConfig {
        let mut config = self.tls.config.clone();
        if let Some(resolver) = &self.resolver {
            config.cert_resolver = Arc::clone(resolver) as _;
        }
        let face = Arc::new(face);
        config.ticketer = Arc::clone(&face) as _;
        config.session_storage = face;
        config
    }
}

/// How the data connections of a session are protected.
#[derive(Clone, Debug)]
pub struct DataTls {
    config: Arc<ServerConfig>,
    resumption: DataResumption,
    handshake_timeout: Duration,
    renew_keys_after: u64,
}

impl DataTls {
    /// The engine of a data connection's handshake.
    ///
    /// # Errors
    /// None that is known.
    pub fn handshake(&self) -> Result<Handshake, TlsError> {
        Handshake::new(Arc::clone(&self.config))
    }

    /// How long its handshake may take.
    pub fn handshake_timeout(&self) -> Duration {
        self.handshake_timeout
    }

    /// After how many records this side changes its keys, in TLS 1.3.
    pub fn records_max(&self) -> u64 {
        self.renew_keys_after / CONTENT_BYTES_MAX as u64
    }

    /// Whether a data connection may be used that did, or did not, resume the session of its control
    /// connection.
    pub fn accepts(&self, resumed: bool) -> bool {
        resumed || self.resumption != DataResumption::Require
    }
}

fn server_config(
    min_version: TlsVersion,
    verifier: Arc<dyn ClientCertVerifier>,
    resolver: Resolver,
    provider: &Arc<CryptoProvider>,
) -> ServerConfig {
    let versions = match min_version {
        TlsVersion::V12 => rustls::ALL_VERSIONS,
        TlsVersion::V13 => &[&rustls::version::TLS13],
    };
    let mut config = ServerConfig::builder_with_provider(Arc::clone(provider))
        .with_protocol_versions(versions)
        // The provider has cipher suites of both versions.
        .expect("cipher suites for every version")
        .with_client_cert_verifier(verifier)
        .with_cert_resolver(Arc::new(resolver));
    // A client that means to speak something else, as a browser that was led here, is refused in the
    // handshake (ALPACA). Most FTP clients name no protocol.
    config.alpn_protocols = vec![b"ftp".to_vec()];
    // The suite that costs least (see `provider`), not the one that the client names first.
    config.ignore_client_order = has_aes();
    config
}

/// rustls's choice of what is sound; AES with keys of 128 bits comes first, which takes a fifth less
/// CPU than with 256.
fn provider() -> CryptoProvider {
    let mut provider = aws_lc_rs::default_provider();
    provider.cipher_suites.sort_by_key(|suite| {
        let name = format!("{:?}", suite.suite());
        (!name.starts_with("TLS13"), !name.contains("AES_128"))
    });
    provider
}

/// Whether the CPU computes AES by itself. If not, ChaCha20 is faster, which clients of such CPUs
/// name first, too.
fn has_aes() -> bool {
    #[cfg(target_arch = "x86_64")]
    let has = std::arch::is_x86_feature_detected!("aes");
    #[cfg(target_arch = "aarch64")]
    let has = std::arch::is_aarch64_feature_detected!("aes");
    #[cfg(not(any(target_arch = "x86_64", target_arch = "aarch64")))]
    let has = false;
    has
}
