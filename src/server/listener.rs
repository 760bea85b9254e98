//! Binds everything before privileges are given up and before a thread is started.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::time::Duration;

use super::ServeError;
use crate::config::Config;
use crate::data::pool::PassiveListener;
use crate::sys::socket::{self, ListenOptions};

/// The listening sockets of one core.
#[derive(Debug, Default)]
pub(super) struct CoreSockets {
    pub(super) control: Vec<OwnedFd>,
    pub(super) passive: Vec<PassiveListener>,
}

/// The listening sockets of all cores, and what an operator wants to know of them.
#[derive(Debug)]
pub(super) struct Sockets {
    pub(super) cores: Vec<CoreSockets>,
    /// Where control connections are accepted, with the ports that the kernel chose.
    pub(super) control: Vec<SocketAddr>,
    /// Passive ports that another program holds.
    pub(super) taken: BTreeSet<u16>,
}

/// Binds the control listeners of each core to the same addresses, and the passive ports in
/// disjoint slices.
pub(super) fn bind(config: &Config, cores: usize) -> Result<Sockets, ServeError> {
    let mut sockets = Sockets {
        cores: (0..cores).map(|_| CoreSockets::default()).collect(),
        control: Vec::new(),
        taken: BTreeSet::new(),
    };
    let options = ListenOptions {
        reuse_port: true,
        backlog: config.limits.sessions_waiting,
    };
    for &address in &config.server.listen {
        let failed = |source| ServeError::Listen { address, source };
        // SO_REUSEPORT would let a second server of the same user take half of the clients away;
        // a bind without it finds out.
        let probe = ListenOptions {
            reuse_port: false,
            ..options
        };
        drop(socket::listen(address, &probe).map_err(failed)?);
        let mut bound = address;
        for core in &mut sockets.cores {
            let socket = socket::listen(bound, &options).map_err(failed)?;
            bound = socket::local_address(&socket).map_err(failed)?;
            // Inherited by what is accepted. A control connection is silent during a long transfer,
            // and address translators on its way forget silent connections.
            socket::set_keepalive(
                &socket,
                KEEPALIVE_IDLE,
                KEEPALIVE_INTERVAL,
                KEEPALIVE_PROBES,
            )
            .map_err(failed)?;
            core.control.push(socket);
        }
        sockets.control.push(bound);
    }
    if config.data.passive {
        bind_passive(config, &mut sockets)?;
    }
    Ok(sockets)
}

fn bind_passive(config: &Config, sockets: &mut Sockets) -> Result<(), ServeError> {
    let addresses: BTreeSet<IpAddr> = config.server.listen.iter().map(SocketAddr::ip).collect();
    let range = config.data.passive_ports;
    let options = ListenOptions {
        reuse_port: false,
        backlog: PASSIVE_BACKLOG,
    };
    let parts = sockets.cores.len();
    for (index, core) in sockets.cores.iter_mut().enumerate() {
        let slice = range.slice(index, parts).ok_or(ServeError::TooFewPorts {
            range,
            cores: parts,
        })?;
        for port in slice.first()..=slice.last() {
            for &ip in &addresses {
                let address = SocketAddr::new(ip, port);
                match socket::listen(address, &options) {
                    Ok(socket) => core.passive.push(PassiveListener { socket, address }),
                    Err(error) if error.kind() == io::ErrorKind::AddrInUse => {
                        sockets.taken.insert(port);
                    }
                    Err(source) => return Err(ServeError::Passive { address, source }),
                }
            }
        }
        if core.passive.is_empty() {
            return Err(ServeError::PortsTaken { slice });
        }
    }
    Ok(())
}

/// Address translators should keep a silent connection for two hours (RFC 5382 §5); many keep it for
/// five minutes.
const KEEPALIVE_IDLE: Duration = Duration::from_secs(120);
const KEEPALIVE_INTERVAL: Duration = Duration::from_secs(30);
const KEEPALIVE_PROBES: u32 = 4;

/// Connections that wait on one passive port: each is one client that has just been told the port.
const PASSIVE_BACKLOG: u32 = 64;
