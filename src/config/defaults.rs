//! The single place of defaults; `config/ringftpd.toml` repeats them, and a test compares.

use std::net::{Ipv4Addr, Ipv6Addr, SocketAddr};
use std::num::{NonZeroU32, NonZeroUsize};
use std::path::PathBuf;
use std::time::Duration;

use super::tls::RENEW_KEYS_MAX;
use super::{
    Admin, Allowance, Announce, Anonymous, ClientCertificates, ClientLogin, Cores, Data,
    DataResumption, FailedUpload, Files, GuardLimits, KernelTls, Limits, Log, LogFormat, LogLevel,
    Own, OwnFiles, PeerCheck, PortRange, QuotaLimits, Rates, Server, Slices, SourceKind, Steering,
    Tls, TlsPolicy, TlsVersion, UploadPolicy, Users,
};
use crate::proto::rights::RightSet;

impl Default for Server {
    fn default() -> Self {
        Self {
            left: Vec::new(),
            listen: vec![
                SocketAddr::from((Ipv4Addr::UNSPECIFIED, 21)),
                SocketAddr::from((Ipv6Addr::UNSPECIFIED, 21)),
            ],
            cores: Cores::All,
            user: None,
            group: None,
            greeting: "ringftpd ready.".to_owned(),
            drain_timeout: Duration::from_secs(30),
            steering: Steering::Hash,
            balance: true,
        }
    }
}

impl Default for Limits {
    fn default() -> Self {
        Self {
            sessions: None,
            sessions_per_ip: NonZeroUsize::new(64),
            sessions_waiting: 1024,
            line_length: 4 << 10,
            login_timeout: Duration::from_secs(60),
            login_attempts: 3,
            guard: GuardLimits::default(),
            idle_timeout: Duration::from_secs(300),
            reply_timeout: Duration::from_secs(60),
            stall_timeout: Duration::from_secs(300),
            connections_per_minute: 0,
            commands_per_second: 0,
            session_rates: Rates::default(),
            ip_rates: Rates::default(),
            total_rates: Rates::default(),
        }
    }
}

impl Default for GuardLimits {
    fn default() -> Self {
        Self {
            delay: Duration::from_secs(1),
            delay_max: Duration::from_secs(10),
            failures: NonZeroU32::new(20),
            failures_per_user: NonZeroU32::new(50),
            window: Duration::from_secs(600),
            lockout: Duration::from_secs(600),
        }
    }
}

impl Default for Data {
    fn default() -> Self {
        Self {
            passive: true,
            own: Own {
                passive_ports: Some(PASSIVE_PORTS.into()),
                passive_slices: Some(Slices::Even),
                passive_address: Some(Announce::Control),
                passive_address_for: Some(Vec::new()),
                external_ports: None,
                proxy_from: Some(Vec::new()),
            },
            passive_address_refresh: Duration::from_secs(60),
            accept_timeout: Duration::from_secs(30),
            ports_per_client: 64,
            peer_check: PeerCheck::Strict,
            borrow: true,
            active: true,
            active_source_port: 20,
            connect_timeout: Duration::from_secs(30),
            fxp_networks: Vec::new(),
        }
    }
}

/// Below the ports that the kernel gives to outgoing connections (32768 and up, ip(7)).
// In order and above 1023: the compiler has evaluated it.
pub(super) const PASSIVE_PORTS: PortRange = PortRange::new(30_000, 30_999).expect("a range");

impl Default for Admin {
    fn default() -> Self {
        Self {
            enabled: true,
            socket: PathBuf::from("/run/ringftpd/admin.sock"),
        }
    }
}

impl Default for Tls {
    fn default() -> Self {
        Self {
            policy: TlsPolicy::Optional,
            certificates: Vec::new(),
            min_version: TlsVersion::V12,
            data_resumption: DataResumption::Prefer,
            clear_commands: false,
            client_certificates: ClientCertificates::Off,
            client_ca: None,
            client_crls: Vec::new(),
            client_login: ClientLogin::Password,
            handshake_timeout: Duration::from_secs(10),
            kernel: KernelTls::Auto,
            renew_keys_after: RENEW_KEYS_MAX,
            hosts: Vec::new(),
        }
    }
}

impl Default for Files {
    fn default() -> Self {
        Self {
            umask: 0o022,
            uploads: UploadPolicy::Whole,
            failed_upload: FailedUpload::Discard,
            min_free: 0,
        }
    }
}

impl Default for Anonymous {
    fn default() -> Self {
        Self {
            enabled: false,
            root: PathBuf::from("/srv/ftp"),
            rights: RightSet::READ_ONLY.into(),
            quota: QuotaLimits::default(),
            folders: Vec::new(),
            files: OwnFiles::default(),
            allowance: Allowance {
                // All strangers together are not one user.
                sessions: Some(0),
                ..Allowance::default()
            },
        }
    }
}

impl Default for Users {
    fn default() -> Self {
        Self {
            enabled: true,
            sources: vec![SourceKind::File],
            file: PathBuf::from("/etc/ringftpd/users.toml"),
            htpasswd: PathBuf::new(),
            program: PathBuf::new(),
            http: String::new(),
            database: None,
            database_password_file: PathBuf::new(),
            database_ca: PathBuf::new(),
            source_timeout: Duration::from_secs(5),
            hash_threads: 2,
            sessions_per_user: 0,
            remember: Duration::from_secs(300),
            state: PathBuf::from("/var/lib/ringftpd"),
            system: false,
            // UID_MIN of login.defs(5), in every distribution of note.
            system_uid_min: 1000,
            require_shell: true,
            pam_service: "ringftpd".to_owned(),
        }
    }
}

impl Default for Log {
    fn default() -> Self {
        Self {
            level: LogLevel::Info,
            format: LogFormat::Text,
        }
    }
}
