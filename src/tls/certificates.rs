//! Certificates and their keys: read, checked, and chosen by the name that a client asks for.

use std::collections::HashMap;
use std::fs::{self, Metadata};
use std::io;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{SystemTime, UNIX_EPOCH};

use rustls::crypto::CryptoProvider;
use rustls::pki_types::pem::{self, PemObject};
use rustls::pki_types::{CertificateDer, CertificateRevocationListDer, PrivateKeyDer};
use rustls::server::danger::ClientCertVerifier;
use rustls::server::{ClientHello, ResolvesServerCert, WebPkiClientVerifier};
use rustls::sign::CertifiedKey;
use rustls::{InconsistentKeys, RootCertStore, SignatureAlgorithm};
use thiserror::Error;
use x509_parser::extensions::GeneralName;
use x509_parser::prelude::{FromDer, X509Certificate};

use crate::config::{self, CertificateFiles, ClientCertificates, HostCertificates};

/// Why a certificate cannot be used. The texts say what to change.
#[derive(Debug, Error)]
pub enum CertificateError {
    /// A file cannot be read.
    #[error("{}: {source}{}", .path.display(), hint(.source))]
    Unreadable {
        /// The file.
        path: PathBuf,
        /// Why.
        source: io::Error,
    },
    /// A file holds no certificate.
    #[error("{}: no certificate in it (PEM: -----BEGIN CERTIFICATE-----)", .0.display())]
    NoCertificate(PathBuf),
    /// A file holds no key.
    #[error("{}: no private key in it (PEM: -----BEGIN PRIVATE KEY-----)", .0.display())]
    NoKey(PathBuf),
    /// The key needs a passphrase.
    #[error(
        "{0}: the private key is encrypted, and nobody could type its passphrase; decrypt it: \
         openssl pkey -in {0} -out NEW-FILE"
    )]
    EncryptedKey(String),
    /// A file is not what it should be.
    #[error("{}: {reason}", .path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// Why.
        reason: String,
    },
    /// They do not belong together.
    #[error("{}: not the key of the certificate in {}", .key.display(), .certificate.display())]
    Mismatch {
        /// The file of the certificate.
        certificate: PathBuf,
        /// The file of the key.
        key: PathBuf,
    },
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::PermissionDenied => {
            "; the server's user must be able to read it, and the folders on the way to it to enter"
        }
        io::ErrorKind::NotFound => "; 'ringftpd cert self-signed' makes one to try it out with",
        _ => "",
    }
}

/// A certificate with its key.
#[derive(Debug)]
pub(super) struct Certificate {
    files: CertificateFiles,
    certified: Arc<CertifiedKey>,
    /// The names that it is for, in small letters; `*.` stands for one label.
    names: Vec<String>,
    not_before: i64,
    not_after: i64,
    /// Others than the owner and the group may read the key.
    key_is_open: bool,
}

impl Certificate {
    pub(super) fn load(
        files: &CertificateFiles,
        provider: &CryptoProvider,
    ) -> Result<Self, CertificateError> {
        let (text, _) = read(&files.certificate)?;
        let malformed = |path: &Path, reason: String| CertificateError::Malformed {
            path: path.to_owned(),
            reason,
        };
        let chain: Result<Vec<CertificateDer<'static>>, pem::Error> =
            CertificateDer::pem_slice_iter(&text).collect();
        let chain = chain.map_err(|error| malformed(&files.certificate, error.to_string()))?;
        let Some(leaf) = chain.first() else {
            return Err(CertificateError::NoCertificate(files.certificate.clone()));
        };
        let (_, parsed) = X509Certificate::from_der(leaf)
            .map_err(|error| malformed(&files.certificate, error.to_string()))?;
        let (names, validity) = (names(&parsed), parsed.validity().clone());
        let (text, metadata) = read(&files.key)?;
        let key = match PrivateKeyDer::from_pem_slice(&text) {
            Ok(key) => key,
            Err(pem::Error::NoItemsFound) if is_encrypted(&text) => {
                let path = files.key.display().to_string();
                return Err(CertificateError::EncryptedKey(path));
            }
            Err(pem::Error::NoItemsFound) => {
                return Err(CertificateError::NoKey(files.key.clone()));
            }
            Err(error) => return Err(malformed(&files.key, error.to_string())),
        };
        let certified = CertifiedKey::from_der(chain, key, provider);
        let certified = certified.map_err(|error| match error {
            rustls::Error::InconsistentKeys(InconsistentKeys::KeyMismatch) => {
                CertificateError::Mismatch {
                    certificate: files.certificate.clone(),
                    key: files.key.clone(),
                }
            }
            error => malformed(&files.key, error.to_string()),
        })?;
        Ok(Self {
            files: files.clone(),
            certified: Arc::new(certified),
            names,
            not_before: validity.not_before.timestamp(),
            not_after: validity.not_after.timestamp(),
            key_is_open: metadata.permissions().mode() & 0o007 != 0,
        })
    }

    /// What is not as it should be, though it can be used.
    pub(super) fn notes(&self, now: SystemTime) -> Vec<String> {
        let now = now.duration_since(UNIX_EPOCH).unwrap_or_default().as_secs();
        let now = i64::try_from(now).unwrap_or(i64::MAX);
        let certificate = self.files.certificate.display();
        let mut notes = Vec::new();
        if now > self.not_after {
            let days = (now - self.not_after) / DAY;
            notes.push(format!(
                "{certificate}: the certificate expired {days} days ago, and clients will refuse it"
            ));
        } else if now + EXPIRES_SOON > self.not_after {
            let days = (self.not_after - now) / DAY;
            notes.push(format!(
                "{certificate}: the certificate expires in {days} days"
            ));
        }
        if now < self.not_before {
            notes.push(format!(
                "{certificate}: the certificate is not valid yet; is the clock of this host right?"
            ));
        }
        if self.key_is_open {
            let key = self.files.key.display();
            notes.push(format!(
                "{key}: everybody on this host can read the key: chmod o= {key}"
            ));
        }
        notes
    }

    fn is_rsa(&self) -> bool {
        self.certified.key.algorithm() == SignatureAlgorithm::RSA
    }
}

fn read(path: &Path) -> Result<(Vec<u8>, Metadata), CertificateError> {
    let read = || {
        let metadata = fs::metadata(path)?;
        if !metadata.is_file() || metadata.len() > FILE_LENGTH_MAX {
            return Err(io::Error::other("not a file of PEM"));
        }
        Ok((fs::read(path)?, metadata))
    };
    read().map_err(|source| CertificateError::Unreadable {
        path: path.to_owned(),
        source,
    })
}

fn is_encrypted(text: &[u8]) -> bool {
    let text = String::from_utf8_lossy(text);
    text.contains("BEGIN ENCRYPTED PRIVATE KEY") || text.contains("Proc-Type: 4,ENCRYPTED")
}

/// RFC 6125 §6.4.4: the alternative names; the common name only if there are none.
fn names(certificate: &X509Certificate<'_>) -> Vec<String> {
    let alternative = certificate.subject_alternative_name().ok().flatten();
    if let Some(alternative) = alternative {
        let names = alternative.value.general_names.iter();
        return names
            .filter_map(|name| match name {
                GeneralName::DNSName(name) => Some(name.to_ascii_lowercase()),
                _ => None,
            })
            .collect();
    }
    let common = certificate.subject().iter_common_name();
    common
        .filter_map(|name| name.as_str().ok())
        .map(str::to_ascii_lowercase)
        .collect()
}

/// What decides whether a client's certificate is good.
pub(super) fn client_verifier(
    config: &config::Tls,
    provider: &Arc<CryptoProvider>,
) -> Result<Arc<dyn ClientCertVerifier>, CertificateError> {
    let Some(path) = &config.client_ca else {
        return Ok(WebPkiClientVerifier::no_client_auth());
    };
    if config.client_certificates == ClientCertificates::Off {
        return Ok(WebPkiClientVerifier::no_client_auth());
    }
    let malformed = |path: &Path, reason: String| CertificateError::Malformed {
        path: path.to_owned(),
        reason,
    };
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_slice_iter(&read(path)?.0) {
        let certificate = certificate.map_err(|error| malformed(path, error.to_string()))?;
        let added = roots.add(certificate);
        added.map_err(|error| malformed(path, error.to_string()))?;
    }
    if roots.is_empty() {
        return Err(CertificateError::NoCertificate(path.clone()));
    }
    let mut lists = Vec::new();
    for path in &config.client_crls {
        for list in CertificateRevocationListDer::pem_slice_iter(&read(path)?.0) {
            lists.push(list.map_err(|error| malformed(path, error.to_string()))?);
        }
    }
    let mut builder =
        WebPkiClientVerifier::builder_with_provider(Arc::new(roots), Arc::clone(provider))
            .with_crls(lists)
            .only_check_end_entity_revocation();
    if config.client_certificates == ClientCertificates::Optional {
        builder = builder.allow_unauthenticated();
    }
    let verifier = builder.build();
    verifier.map_err(|error| malformed(path, format!("client_ca and client_crls: {error}")))
}

/// Whom a certificate names: by its common name and its e-mail addresses.
pub(super) fn subjects(certificate: &CertificateDer<'_>) -> Vec<String> {
    let Ok((_, parsed)) = X509Certificate::from_der(certificate) else {
        return Vec::new();
    };
    let common = parsed.subject().iter_common_name();
    let common = common.filter_map(|name| name.as_str().ok());
    let mut names: Vec<String> = common.map(str::to_owned).collect();
    if let Ok(Some(alternative)) = parsed.subject_alternative_name() {
        for name in &alternative.value.general_names {
            if let GeneralName::RFC822Name(address) = name {
                names.push((*address).to_owned());
            }
        }
    }
    names
}

/// All certificates, by the names that clients ask for.
#[derive(Debug)]
pub(super) struct Certificates {
    all: Vec<Certificate>,
    /// By name, those that are for it, the one that costs least to sign with first. A virtual host's own
    /// are all that there are for its names.
    by_name: HashMap<String, Vec<usize>>,
    /// By the section of a virtual host, its own.
    by_host: HashMap<String, Vec<usize>>,
    /// For who asks for no name, or for an unknown one.
    otherwise: Vec<usize>,
}

impl Certificates {
    /// Those of the server, which has at least one, and those of hosts.
    pub(super) fn new(
        of_server: Vec<Certificate>,
        of_hosts: Vec<(&HostCertificates, Vec<Certificate>)>,
    ) -> Self {
        let mut by_name: HashMap<String, Vec<usize>> = HashMap::new();
        for (index, certificate) in of_server.iter().enumerate() {
            for name in &certificate.names {
                by_name.entry(name.clone()).or_default().push(index);
            }
        }
        for indices in by_name.values_mut() {
            indices.sort_by_key(|&index| of_server[index].is_rsa());
            indices.dedup();
        }
        let otherwise = first_first(&of_server, 0);
        let mut by_host = HashMap::new();
        let mut all = of_server;
        for (host, certificates) in of_hosts {
            let indices = first_first(&certificates, all.len());
            for name in &host.names {
                by_name.insert(name.clone(), indices.clone());
            }
            by_host.insert(host.host.clone(), indices);
            all.extend(certificates);
        }
        Self {
            all,
            by_name,
            by_host,
            otherwise,
        }
    }

    pub(super) fn notes(&self, now: SystemTime) -> Vec<String> {
        self.all.iter().flat_map(|one| one.notes(now)).collect()
    }

    /// Those for a host name, best first.
    fn named(&self, name: &str) -> Option<&Vec<usize>> {
        let name = name.to_ascii_lowercase();
        // RFC 6125 §6.4.3: a wildcard is the whole of the first label.
        let wildcard = || name.split_once('.').map(|(_, rest)| format!("*.{rest}"));
        let exact = self.by_name.get(&name);
        exact.or_else(|| self.by_name.get(&wildcard()?))
    }
}

/// Those for the same names as the first, then the others; counted from `start`.
fn first_first(certificates: &[Certificate], start: usize) -> Vec<usize> {
    let names = certificates.first().map(|first| &first.names);
    let mut indices: Vec<usize> = (0..certificates.len()).collect();
    indices.sort_by_key(|&index| {
        let is_like_first = index == 0 || Some(&certificates[index].names) == names;
        let is_rsa = is_like_first && certificates[index].is_rsa();
        (!is_like_first, is_rsa)
    });
    indices.iter().map(|index| start + index).collect()
}

/// Chooses a certificate for a client of a host.
#[derive(Debug)]
pub(super) struct Resolver {
    certificates: Arc<Certificates>,
    /// The section of a virtual host, whose certificates are for who asks for no name, or for an unknown
    /// one.
    host: Option<String>,
}

impl Resolver {
    /// The one of the server itself, and those of hosts with certificates of their own.
    pub(super) fn all(certificates: Certificates) -> (Self, HashMap<String, Arc<Self>>) {
        let certificates = Arc::new(certificates);
        let resolver = |host: Option<&String>| Self {
            certificates: Arc::clone(&certificates),
            host: host.cloned(),
        };
        let hosts = certificates.by_host.keys();
        let hosts = hosts.map(|host| (host.clone(), Arc::new(resolver(Some(host)))));
        (resolver(None), hosts.collect())
    }

    fn candidates(&self, name: Option<&str>) -> &[usize] {
        let certificates = &self.certificates;
        let own = || certificates.by_host.get(self.host.as_ref()?);
        let known = name.and_then(|name| certificates.named(name)).or_else(own);
        known.unwrap_or(&certificates.otherwise)
    }
}

impl ResolvesServerCert for Resolver {
    fn resolve(&self, hello: ClientHello<'_>) -> Option<Arc<CertifiedKey>> {
        let candidates = self.candidates(hello.server_name()).iter();
        let mut certified = candidates.map(|&index| &self.certificates.all[index].certified);
        let suits = |certified: &&Arc<CertifiedKey>| {
            let scheme = certified.key.choose_scheme(hello.signature_schemes());
            scheme.is_some()
        };
        certified.find(suits).map(Arc::clone)
    }
}

/// Long chains take some 20 KiB.
const FILE_LENGTH_MAX: u64 = 1 << 20;

/// In seconds.
const DAY: i64 = 24 * 3600;

/// When it is told that a certificate expires: what renews itself has done so by then (certbot: 30 days
/// before).
const EXPIRES_SOON: i64 = 14 * DAY;
