//! What an operator is told at the start.

use std::fmt;
use std::net::SocketAddr;

use super::listener::Sockets;
use crate::config::{Config, duration_text};

/// The server as it has started.
#[derive(Clone, Debug)]
pub struct Summary {
    /// Where control connections are accepted.
    pub control: Vec<SocketAddr>,
    /// Sessions at a time.
    pub sessions_max: usize,
    cpus: Vec<usize>,
    passive: String,
    active: String,
    access: String,
    limits: String,
    descriptors: u64,
    descriptors_short: bool,
    taken: usize,
}

impl Summary {
    pub(super) fn new(
        config: &Config,
        cpus: &[usize],
        sockets: &Sockets,
        descriptors: u64,
        active_source_port: u16,
    ) -> Self {
        let fixed = sockets
            .cores
            .iter()
            .map(|core| core.control.len() + core.passive.len());
        let fixed = fixed.sum::<usize>() + cpus.len() * DESCRIPTORS_PER_CORE + DESCRIPTORS_REST;
        let left = usize::try_from(descriptors)
            .unwrap_or(usize::MAX)
            .saturating_sub(fixed);
        let affordable = (left / DESCRIPTORS_PER_SESSION).max(1);
        let sessions_max = config.limits.sessions.map_or(affordable, Into::into);
        Self {
            control: sockets.control.clone(),
            sessions_max,
            cpus: cpus.to_vec(),
            passive: passive_text(config, sockets),
            active: match (config.data.active, active_source_port) {
                (false, _) => "off".to_owned(),
                (true, 0) => "from any port".to_owned(),
                (true, port) => format!("from port {port}"),
            },
            access: access_text(config),
            limits: format!(
                "{sessions_max} sessions, {} per address, idle {}, {descriptors} descriptors",
                config
                    .limits
                    .sessions_per_ip
                    .map_or_else(|| "any number".to_owned(), |max| max.to_string()),
                duration_text(config.limits.idle_timeout),
            ),
            descriptors,
            descriptors_short: sessions_max > affordable,
            taken: sockets.taken.len(),
        }
    }

    /// Logs what is amiss though the server starts.
    pub(super) fn warn(&self) {
        if self.taken > 0 {
            tracing::warn!(
                ports = self.taken,
                "passive ports are held by other programs and left out; see 'ss -ltnp'"
            );
        }
        if self.descriptors_short {
            tracing::warn!(
                sessions = self.sessions_max,
                descriptors = self.descriptors,
                "the descriptor limit bears fewer sessions that all transfer at once: raise \
                 LimitNOFILE or lower limits.sessions"
            );
        }
    }
}

impl fmt::Display for Summary {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let cpus: Vec<String> = self.cpus.iter().map(usize::to_string).collect();
        let control: Vec<String> = self.control.iter().map(SocketAddr::to_string).collect();
        writeln!(f, "ringftpd {}", env!("CARGO_PKG_VERSION"))?;
        writeln!(f, "  cores      {} (CPU {})", cpus.len(), cpus.join(", "))?;
        writeln!(f, "  control    {}", control.join(", "))?;
        writeln!(f, "  passive    {}", self.passive)?;
        writeln!(f, "  active     {}", self.active)?;
        writeln!(f, "  access     {}", self.access)?;
        write!(f, "  limits     {}", self.limits)
    }
}

fn passive_text(config: &Config, sockets: &Sockets) -> String {
    if !config.data.passive {
        return "off".to_owned();
    }
    let range = config.data.passive_ports;
    let parts = sockets.cores.len();
    let slices: Vec<String> = (0..parts)
        .filter_map(|index| range.slice(index, parts))
        .map(|slice| slice.to_string())
        .collect();
    let announced = config.data.passive_address;
    let announced =
        announced.map_or_else(String::new, |address| format!(", announced as {address}"));
    format!(
        "{} ports: {}{announced}",
        range.count() - sockets.taken.len(),
        slices.join(" | ")
    )
}

fn access_text(config: &Config) -> String {
    let mut parts = Vec::new();
    if config.anonymous.enabled {
        let rights = match config.anonymous.access {
            crate::proto::listing::Access::ReadOnly => "read-only",
            crate::proto::listing::Access::ReadWrite => "read-write",
        };
        parts.push(format!(
            "anonymous {rights} in {}",
            config.anonymous.root.display()
        ));
    }
    if config.users.enabled {
        parts.push(format!("users of {}", config.users.file.display()));
    }
    parts.join("; ")
}

/// A ring, an epoll, an event descriptor, the spare one.
const DESCRIPTORS_PER_CORE: usize = 8;

/// Standard streams, log, user file, what libraries open.
const DESCRIPTORS_REST: usize = 64;

/// Control connection, data connection, file.
const DESCRIPTORS_PER_SESSION: usize = 3;
