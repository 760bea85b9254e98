//! `[tls]`: who may and who must use TLS, and with which certificates.

use std::path::PathBuf;
use std::time::Duration;

use super::limits::wait;
use super::section::{Section, Value, Wrong};
use super::units;
use super::{Config, Problem, TlsStart};

/// TLS on control and data connections.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Tls {
    /// Who may and who must use it. Without a certificate it is off.
    pub policy: TlsPolicy,
    /// The certificates with their keys, without repetition; which one a client gets depends on the
    /// name that it asks for.
    pub certificates: Vec<CertificateFiles>,
    /// The oldest version of TLS.
    pub min_version: TlsVersion,
    /// Whether data connections have to resume the session of their control connection.
    pub data_resumption: DataResumption,
    /// Whether the control connection may do without it after the login (CCC).
    pub clear_commands: bool,
    /// Who has to show a certificate.
    pub client_certificates: ClientCertificates,
    /// The authorities whose certificates are good, as PEM.
    pub client_ca: Option<PathBuf>,
    /// What they have revoked, as PEM.
    pub client_crls: Vec<PathBuf>,
    /// What a certificate is worth at the login.
    pub client_login: ClientLogin,
    /// How long a handshake may take; at least 1 s.
    pub handshake_timeout: Duration,
    /// Whether the kernel seals what is sent, where it can.
    pub kernel: KernelTls,
    /// How many bytes a data connection sends with the same keys, if it has a way to others.
    pub renew_keys_after: u64,
    /// The certificates of virtual hosts that have their own.
    pub hosts: Vec<HostCertificates>,
}

/// The certificates of a virtual host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct HostCertificates {
    /// The name of its section.
    pub host: String,
    /// The names by which clients ask for it, in lower case.
    pub names: Vec<String>,
    /// The certificates with their keys.
    pub certificates: Vec<CertificateFiles>,
}

/// Who has to show a certificate.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientCertificates {
    /// Nobody is asked.
    Off,
    /// Clients are asked, and need not have one.
    Optional,
    /// Clients without a good one get no connection.
    Require,
}

/// What a certificate is worth at the login.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ClientLogin {
    /// Nothing: the password decides.
    Password,
    /// USER must be one of its names; the password decides all the same.
    Name,
    /// The user whom it names needs no password.
    Certificate,
}

/// Who may and who must use TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsPolicy {
    /// It is not offered.
    Off,
    /// Whoever wants to.
    Optional,
    /// Whoever logs in.
    RequireLogin,
    /// Whoever logs in, and on every data connection.
    RequireData,
}

/// Whether the kernel seals what is sent.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum KernelTls {
    /// Where it can.
    Auto,
    /// Never.
    Off,
}

/// A version of TLS.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsVersion {
    /// TLS 1.2.
    V12,
    /// TLS 1.3.
    V13,
}

/// Whether data connections have to resume the session of their control connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum DataResumption {
    /// They cannot.
    Off,
    /// They may, and it is told if they do not.
    Prefer,
    /// They have to.
    Require,
}

/// A certificate with its key, as PEM.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CertificateFiles {
    /// The certificate, and behind it those that lead to the root.
    pub certificate: PathBuf,
    /// The private key; it may be the same file.
    pub key: PathBuf,
}

impl Tls {
    /// Whether TLS is offered.
    pub fn is_on(&self) -> bool {
        self.policy != TlsPolicy::Off && !self.certificates.is_empty()
    }

    /// All files that it is made of.
    pub fn files(&self) -> impl Iterator<Item = &PathBuf> {
        let of_hosts = self.hosts.iter().flat_map(|host| &host.certificates);
        let certificates = self.certificates.iter().chain(of_hosts);
        let pairs = certificates.flat_map(|files| [&files.certificate, &files.key]);
        pairs.chain(&self.client_ca).chain(&self.client_crls)
    }

    /// Whether nobody logs in without it.
    pub fn is_required(&self) -> bool {
        matches!(
            self.policy,
            TlsPolicy::RequireLogin | TlsPolicy::RequireData
        )
    }

    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("policy", &mut self.policy, |value| {
            units::choice(
                value,
                &[
                    ("off", TlsPolicy::Off),
                    ("optional", TlsPolicy::Optional),
                    ("require-login", TlsPolicy::RequireLogin),
                    ("require-data", TlsPolicy::RequireData),
                ],
            )
        });
        section.read("certificates", &mut self.certificates, certificates);
        section.read("min_version", &mut self.min_version, |value| {
            units::choice(value, &[("1.2", TlsVersion::V12), ("1.3", TlsVersion::V13)])
        });
        section.read("data_resumption", &mut self.data_resumption, |value| {
            units::choice(
                value,
                &[
                    ("off", DataResumption::Off),
                    ("prefer", DataResumption::Prefer),
                    ("require", DataResumption::Require),
                ],
            )
        });
        section.read("clear_commands", &mut self.clear_commands, units::switch);
        section.read(
            "client_certificates",
            &mut self.client_certificates,
            |value| {
                units::choice(
                    value,
                    &[
                        ("off", ClientCertificates::Off),
                        ("optional", ClientCertificates::Optional),
                        ("require", ClientCertificates::Require),
                    ],
                )
            },
        );
        section.read("client_ca", &mut self.client_ca, |value| {
            units::absolute_path(value).map(Some)
        });
        section.read("client_crls", &mut self.client_crls, paths);
        section.read("client_login", &mut self.client_login, |value| {
            units::choice(
                value,
                &[
                    ("password", ClientLogin::Password),
                    ("name", ClientLogin::Name),
                    ("certificate", ClientLogin::Certificate),
                ],
            )
        });
        section.read("handshake_timeout", &mut self.handshake_timeout, wait);
        section.read("kernel", &mut self.kernel, |value| {
            units::choice(value, &[("auto", KernelTls::Auto), ("off", KernelTls::Off)])
        });
        section.read(
            "renew_keys_after",
            &mut self.renew_keys_after,
            renew_keys_after,
        );
    }

    fn contradictions(&self) -> Option<Problem> {
        (self.is_required() && self.certificates.is_empty()).then(|| {
            Problem::new("tls.policy", "TLS is required, but there is no certificate").hint(
                "set tls.certificates; 'ringftpd cert self-signed' makes one to try it out with",
            )
        })
    }
}

impl Config {
    /// How TLS begins at the listener of this number in `server.listen`.
    pub fn tls_start(&self, listener: usize) -> TlsStart {
        let address = self.server.listen.get(listener);
        let mut listeners = self.listeners.iter();
        let own = listeners.find(|listener| Some(&listener.address) == address);
        own.map_or(TlsStart::Explicit, |listener| listener.tls)
    }

    pub(super) fn tls_contradictions(&self) -> Vec<Problem> {
        let mut problems = Vec::from_iter(self.tls.contradictions());
        if self.tls.client_certificates != ClientCertificates::Off && self.tls.client_ca.is_none() {
            let problem = Problem::new(
                "tls.client_certificates",
                "nothing says whose certificates are good",
            );
            problems.push(problem.hint("set tls.client_ca"));
        }
        if self.tls.client_certificates == ClientCertificates::Off
            && self.tls.client_login != ClientLogin::Password
        {
            let problem = Problem::new("tls.client_login", "nobody is asked for a certificate");
            problems.push(problem.hint("set tls.client_certificates"));
        }
        for host in &self.tls.hosts {
            if !self.tls.is_on() {
                let key = format!("host.{}.certificates", host.host);
                let problem = Problem::new(key, "TLS is off without a certificate of the server");
                problems.push(problem.hint("set tls.certificates, for who asks for another name"));
            }
        }
        for listener in &self.listeners {
            if listener.tls == TlsStart::Implicit && !self.tls.is_on() {
                let key = format!("listener.{}.tls", listener.name);
                let problem = Problem::new(key, "TLS is off, so nobody could connect there");
                problems.push(problem.hint("set tls.certificates"));
            }
        }
        problems
    }
}

/// `["/etc/ringftpd/ftp.pem"]`, or `[{ certificate = "…", key = "…" }]`.
pub(super) fn certificates(value: &Value<'_>) -> Result<Vec<CertificateFiles>, Wrong> {
    let Some(list) = value.get_ref().as_array() else {
        return Err(units::wrong_type(
            value,
            "a list, such as [{ certificate = \"/etc/ringftpd/ftp.pem\", key = \
             \"/etc/ringftpd/ftp.key\" }]",
        ));
    };
    let mut certificates = Vec::new();
    for element in list.iter() {
        let files = files(element).map_err(|wrong| wrong.at(element.span()))?;
        if certificates.contains(&files) {
            let path = files.certificate.display();
            return Err(Wrong::new(format!("{path} is listed twice")).at(element.span()));
        }
        certificates.push(files);
    }
    if certificates.len() > CERTIFICATES_MAX {
        let count = certificates.len();
        return Err(Wrong::new(format!(
            "{count} certificates are more than {CERTIFICATES_MAX}"
        )));
    }
    Ok(certificates)
}

fn renew_keys_after(value: &Value<'_>) -> Result<u64, Wrong> {
    let bytes = units::size(value)?;
    match (RENEW_KEYS_MIN..=RENEW_KEYS_MAX).contains(&bytes) {
        true => Ok(bytes),
        false => Err(Wrong::new("must be from 1 MiB to 256 GiB")),
    }
}

fn paths(value: &Value<'_>) -> Result<Vec<PathBuf>, Wrong> {
    let Some(list) = value.get_ref().as_array() else {
        let example = "a list of files, such as [\"/etc/ringftpd/clients.crl\"]";
        return Err(units::wrong_type(value, example));
    };
    let path = |element| units::absolute_path(element).map_err(|wrong| wrong.at(element.span()));
    list.iter().map(path).collect()
}

fn files(value: &Value<'_>) -> Result<CertificateFiles, Wrong> {
    let Some(table) = value.get_ref().as_table() else {
        let path = units::absolute_path(value)?;
        return Ok(CertificateFiles {
            certificate: path.clone(),
            key: path,
        });
    };
    let (mut certificate, mut key) = (None, None);
    for (name, value) in table.iter() {
        let path = match name.get_ref().as_ref() {
            "certificate" => &mut certificate,
            "key" => &mut key,
            other => {
                let wrong = Wrong::new(format!("{other:?} is neither certificate nor key"));
                return Err(wrong.at(name.span()));
            }
        };
        *path = Some(units::absolute_path(value).map_err(|wrong| wrong.at(value.span()))?);
    }
    let certificate = certificate.ok_or_else(|| Wrong::new("has no certificate"))?;
    Ok(CertificateFiles {
        key: key.unwrap_or_else(|| certificate.clone()),
        certificate,
    })
}

/// Less would be busy with keys alone; AES-GCM with one key is good for 2^24 records (RFC 8446 §5.5 allows
/// 2^24.5), of 16 KiB each.
const RENEW_KEYS_MIN: u64 = 1 << 20;
pub(super) const RENEW_KEYS_MAX: u64 = 1 << (24 + 14);

/// Each is looked at when it changes.
const CERTIFICATES_MAX: usize = 1024;
