//! Binds the control listeners: at the start before privileges are given up and before a thread is
//! started, and when a reload brings new addresses.

use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::ServeError;
use crate::config::{Config, Steering};
use crate::sys::socket::{self, ListenOptions};
use crate::sys::tcp;

/// The control listeners of all cores.
#[derive(Debug)]
pub(super) struct Listeners {
    /// For each core, with their places in `server.listen`.
    pub(super) cores: Vec<Vec<(usize, OwnedFd)>>,
    /// Where control connections are accepted, with the ports that the kernel chose.
    pub(super) addresses: Vec<SocketAddr>,
}

/// Binds a listener of each core to each address on which a server that runs with `running` does not
/// listen. `cpus` are those of the cores.
pub(super) fn bind(
    config: &Config,
    running: Option<&Config>,
    cpus: &[usize],
) -> Result<Listeners, ServeError> {
    let mut listeners = Listeners {
        cores: cpus.iter().map(|_| Vec::new()).collect(),
        addresses: Vec::new(),
    };
    let options = ListenOptions {
        reuse_port: true,
        backlog: config.limits.sessions_waiting,
    };
    let there: Vec<_> = running
        .iter()
        .flat_map(|it| it.server.listeners())
        .collect();
    for (place, address) in config.server.listeners() {
        if there.contains(&(place, address)) {
            continue;
        }
        let failed = |source| ServeError::Listen { address, source };
        // SO_REUSEPORT would let a second server of the same user take half of the clients away;
        // a bind without it finds out, unless this server's own listeners are in its way.
        let probe = ListenOptions {
            reuse_port: false,
            ..options
        };
        if !there.iter().any(|(_, own)| own.port() == address.port()) {
            drop(socket::listen(address, &probe).map_err(failed)?);
        }
        let mut bound = address;
        for core in &mut listeners.cores {
            let socket = socket::listen(bound, &options).map_err(failed)?;
            bound = socket::local_address(&socket).map_err(failed)?;
            // Inherited by what is accepted. A control connection is silent during a long transfer,
            // and address translators on its way forget silent connections.
            tcp::set_keepalive(
                &socket,
                KEEPALIVE_IDLE,
                KEEPALIVE_INTERVAL,
                KEEPALIVE_PROBES,
            )
            .map_err(failed)?;
            core.push((place, socket));
        }
        if config.server.steering == Steering::Cpu
            && let Some((_, member)) = listeners.cores.first().and_then(|core| core.last())
        {
            socket::steer_by_cpu(member, cpus).map_err(failed)?;
        }
        listeners.addresses.push(bound);
    }
    Ok(listeners)
}

/// Address translators should keep a silent connection for two hours (RFC 5382 §5); many keep it for
/// five minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 4;
