//! The configuration as typed data: what an operator may set, with its defaults and its checks.
//!
//! A file is TOML and is read in one step from spanned TOML values to typed fields, so that every
//! refusal names file, line, column and key. There is no untyped middle layer: a [`PortRange`] or
//! a [`Cores`] exists only if it is valid. This module is a leaf; it reads the file it is told to
//! read and otherwise touches neither system nor network.

mod admin;
mod allowance;
mod check;
mod cores;
mod data;
mod database;
mod defaults;
mod error;
mod files;
pub(crate) mod folders;
mod host;
mod keys;
mod limits;
mod listener;
mod log;
mod passive;
mod port_set;
mod ports;
mod quota;
mod reload;
pub(crate) mod rights;
pub(crate) mod section;
mod server;
mod tls;
pub(crate) mod units;
pub(crate) mod users;
mod volume;

use std::path::Path;

pub use admin::Admin;
pub use allowance::{Allowance, Rates};
pub use check::{Checked, Host};
pub use cores::{CPUS_MAX, Cores, CpuSet};
pub use data::{Data, PeerCheck};
pub use database::Database;
pub use error::{ConfigError, Problem};
pub use files::{FailedUpload, Files, OwnFiles, UploadPolicy};
pub use folders::Folder;
pub use host::VirtualHost;
pub(crate) use keys::nearest;
pub use keys::{KEYS, Schema};
pub use limits::{GuardLimits, LINE_LENGTH_MAX, LINE_LENGTH_MIN, Limits};
pub use listener::{Addressing, Announce, Listener, Own, TlsStart};
pub use log::{Log, LogFormat, LogLevel};
pub use passive::PassivePool;
pub use port_set::{PortSet, Slices, ports_text};
pub use ports::PortRange;
pub use quota::QuotaLimits;
pub use server::{GREETING_LENGTH_MAX, LISTENERS_MAX, Server, Steering};
pub use tls::{
    CertificateFiles, ClientCertificates, ClientLogin, DataResumption, HostCertificates, KernelTls,
    Tls, TlsPolicy, TlsVersion,
};
pub use units::duration_text;
pub use users::{Anonymous, HASH_THREADS_MAX, SourceKind, Users};
pub use volume::{Period, VolumeLimits};

use section::Document;

/// Everything an operator may set. [`Config::default`] is the single place of defaults.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Config {
    /// `[server]`: addresses, cores, the user to run as.
    pub server: Server,
    /// `[limits]`: bounds on sessions, lines and waits.
    pub limits: Limits,
    /// `[data]`: data connections.
    pub data: Data,
    /// `[listener.NAME]`: what is different for one of the addresses that are listened on.
    pub listeners: Vec<Listener>,
    /// `[tls]`: who may and who must use TLS, and with which certificates.
    pub tls: Tls,
    /// `[files]`: how files come into being.
    pub files: Files,
    /// `[anonymous]`: access without an account.
    pub anonymous: Anonymous,
    /// `[users]`: virtual users with passwords.
    pub users: Users,
    /// `[host.NAME]`: virtual hosts.
    pub hosts: Vec<VirtualHost>,
    /// `[log]`: what is told, and how.
    pub log: Log,
    /// `[admin]`: where the running server is asked and told.
    pub admin: Admin,
}

impl Config {
    /// Where `ringftpd serve` looks when it is given neither a directory nor a file.
    pub const DEFAULT_PATH: &str = "/etc/ringftpd/ringftpd.toml";

    /// Reads and parses the file at `path`.
    ///
    /// # Errors
    /// The file cannot be read, is not UTF-8 or larger than 1 MiB, or [`Config::parse`] refuses it.
    pub fn load(path: &Path) -> Result<Self, ConfigError> {
        let name = path.display().to_string();
        let text = error::read_text(path)?;
        Self::parse(&text, &name)
    }

    /// Parses `text`; `name` is what errors call it.
    ///
    /// # Errors
    /// All problems found, not only the first: syntax, unknown sections and keys, values out of
    /// bounds, and keys that contradict each other.
    pub fn parse(text: &str, name: &str) -> Result<Self, ConfigError> {
        let mut document = Document::new(text, name, KEYS);
        let mut config = Self::default();
        for (section, keys) in KEYS {
            if *section == "listener" {
                for (name, mut values) in document.subsections(section, keys) {
                    config.listeners.extend(Listener::read(name, &mut values));
                    document.close(values);
                }
                continue;
            }
            if *section == "host" {
                config.hosts = VirtualHost::read_all(&mut document, keys, &config);
                let certificates = config
                    .hosts
                    .iter()
                    .filter_map(VirtualHost::own_certificates);
                config.tls.hosts = certificates.collect();
                continue;
            }
            let mut values = document.section(section, keys);
            match *section {
                "server" => config.server.read(&mut values),
                "limits" => config.limits.read(&mut values),
                "data" => config.data.read(&mut values),
                "tls" => config.tls.read(&mut values),
                "files" => config.files.read(&mut values),
                "anonymous" => config.anonymous.read(&mut values),
                "users" => config.users.read(&mut values),
                "log" => config.log.read(&mut values),
                "admin" => config.admin.read(&mut values),
                other => unreachable!("KEYS names a section that nothing reads: {other}"),
            }
            document.close(values);
        }
        // Contradictions between values that were themselves refused would only confuse.
        if document.is_sound() {
            document.refuse_all(config.contradictions());
        }
        document.finish().map(|()| config)
    }

    /// What is wrong with this configuration for a server that runs on so many cores.
    pub fn check_running(&self, cores: usize) -> Vec<Problem> {
        let mut problems = self.contradictions();
        problems.extend(self.slices_for(cores));
        problems.dedup();
        problems
    }

    /// What is wrong with this configuration on this machine, and what is merely unwise.
    ///
    /// [`Config::parse`] cannot know: it depends on the CPUs allowed and on being root, and on
    /// what the command line has changed since.
    pub fn check(&self, host: &Host) -> Checked {
        let mut checked = self.check_host(host);
        checked.problems.extend(self.contradictions());
        checked
    }
}

#[cfg(test)]
mod tests;
