//! What an operator is told at the start.

use std::fmt;
use std::net::{IpAddr, SocketAddr};

use super::Ground;
use super::passive::Bound;
use crate::config::{Announce, Config, PassivePool, duration_text, ports_text, rights};
use crate::data::pool::PassiveListener;

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
    tls: Option<String>,
    descriptors: u64,
    descriptors_short: bool,
}

/// Sessions that there may be at a time: as many as the configuration says, or the descriptor limit
/// bears.
pub(super) fn sessions_max(config: &Config, cores: usize, descriptors: u64) -> usize {
    let wanted = config.limits.sessions.map(Into::into);
    wanted.unwrap_or_else(|| affordable_sessions(config, cores, descriptors))
}

fn affordable_sessions(config: &Config, cores: usize, descriptors: u64) -> usize {
    let left = usize::try_from(descriptors)
        .unwrap_or(usize::MAX)
        .saturating_sub(fixed_descriptors(config, cores));
    (left / DESCRIPTORS_PER_SESSION).max(1)
}

/// Descriptors that the server needs before the first client comes.
pub(super) fn fixed_descriptors(config: &Config, cores: usize) -> usize {
    let pools = config.passive_pools();
    let passive: usize = pools.iter().map(PassivePool::count).sum();
    passive
        + config.server.listeners().count() * cores
        + cores * DESCRIPTORS_PER_CORE
        + DESCRIPTORS_REST
}

impl Summary {
    pub(super) fn new(config: &Config, ground: &Ground, active_source_port: u16) -> Self {
        let Ground {
            cpus,
            descriptors,
            listeners,
            bound,
            kernel_tls,
            ..
        } = ground;
        let (control, descriptors) = (&listeners.addresses, *descriptors);
        let affordable = affordable_sessions(config, cpus.len(), descriptors);
        let sessions_max = sessions_max(config, cpus.len(), descriptors);
        Self {
            control: control.clone(),
            sessions_max,
            cpus: cpus.clone(),
            passive: passive_text(config, bound),
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
            tls: kernel_tls.as_ref().map(ToString::to_string),
            descriptors,
            descriptors_short: sessions_max > affordable,
        }
    }

    /// Logs what is amiss though the server starts, and whether the kernel seals.
    pub(super) fn log(&self) {
        if let Some(tls) = &self.tls {
            tracing::info!("{tls}");
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
        write!(f, "  limits     {}", self.limits)?;
        match &self.tls {
            Some(tls) => write!(f, "\n  tls        {tls}"),
            None => Ok(()),
        }
    }
}

/// The ports of each core, for each address that has its own.
fn passive_text(config: &Config, bound: &Bound) -> String {
    if !config.data.passive {
        return "off".to_owned();
    }
    let pools = config.passive_pools();
    let with_ports: Vec<usize> = (0..pools.len())
        .filter(|pool| pools[*pool].ports.is_some())
        .collect();
    let texts = with_ports.iter().map(|&pool| {
        let numbers = |ports: &Vec<Vec<PassiveListener>>| {
            ports_text(ports[pool].iter().map(|port| port.number))
        };
        let slices: Vec<String> = bound.ports.iter().map(numbers).collect();
        let count: usize = bound.ports.iter().map(|ports| ports[pool].len()).sum();
        (
            format!("{count} ports: {}", slices.join(" | ")),
            pools[pool].address,
        )
    });
    let texts: Vec<(String, IpAddr)> = texts.collect();
    let ports = match &texts[..] {
        [(first, _), rest @ ..] if rest.iter().all(|(text, _)| text == first) => first.clone(),
        all => {
            let lines = all
                .iter()
                .map(|(text, address)| format!("{text} on {address}"));
            lines.collect::<Vec<_>>().join("\n             ")
        }
    };
    let announced = match &config.data.own.passive_address {
        None | Some(Announce::Control) => String::new(),
        Some(announce) => format!(", announced as {announce}"),
    };
    ports + &announced
}

fn access_text(config: &Config) -> String {
    let mut parts = Vec::new();
    if config.anonymous.enabled {
        let rights = rights::text(config.anonymous.rights.everywhere);
        parts.push(format!(
            "anonymous {rights} in {}",
            config.anonymous.root.display()
        ));
    }
    if config.users.enabled {
        parts.push(format!("users of {}", config.users.places()));
    }
    parts.join("; ")
}

/// A ring, an epoll, an event descriptor, the spare one.
const DESCRIPTORS_PER_CORE: usize = 8;

/// Standard streams, log, user file, what libraries open.
const DESCRIPTORS_REST: usize = 64;

/// Control connection, data connection, file.
const DESCRIPTORS_PER_SESSION: usize = 3;
