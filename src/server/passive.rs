//! The supervisor's part of the passive ports: binding them, at the start and after a reload, and
//! binding those anew that other programs held.

use std::collections::BTreeSet;
use std::io;
use std::net::{IpAddr, SocketAddr};

use super::ServeError;
use super::mailbox::Ports;
use crate::config::{Config, PassivePool, ports_text};
use crate::data::pool::{Layout, PassiveListener, Policy};
use crate::data::table::Rules;
use crate::sys;
use crate::sys::socket::{self, ListenOptions};

/// The ports of every core: those that listen, and those that other programs hold.
#[derive(Debug)]
pub(super) struct Bound {
    /// For each core and address.
    pub(super) ports: Vec<Vec<Vec<PassiveListener>>>,
    /// For each core and address.
    pub(super) missing: Vec<Ports>,
    /// Why a port is missing, if for another reason than that it is taken.
    pub(super) error: Option<(SocketAddr, io::Error)>,
}

/// Binds every port of the configuration that is not in `held`.
pub(super) fn bind(pools: &[PassivePool], cores: usize, held: &[BTreeSet<u16>]) -> Bound {
    let mut bound = Bound {
        ports: (0..cores)
            .map(|_| pools.iter().map(|_| Vec::new()).collect())
            .collect(),
        missing: vec![vec![Vec::new(); pools.len()]; cores],
        error: None,
    };
    let options = ListenOptions {
        reuse_port: false,
        backlog: PASSIVE_BACKLOG,
    };
    for (index, pool) in pools.iter().enumerate() {
        for (core, ports) in pool.parts(cores).into_iter().enumerate() {
            for number in ports {
                if held.get(index).is_some_and(|held| held.contains(&number)) {
                    continue;
                }
                let address = SocketAddr::new(pool.address, number);
                if bound.is_out_of_descriptors() {
                    // No other port can be had either.
                    bound.missing[core][index].push(number);
                    continue;
                }
                match socket::listen(address, &options) {
                    Ok(socket) => {
                        bound.ports[core][index].push(PassiveListener { socket, number });
                    }
                    Err(error) => {
                        bound.missing[core][index].push(number);
                        if error.kind() != io::ErrorKind::AddrInUse {
                            bound.error.get_or_insert((address, error));
                        }
                    }
                }
            }
        }
    }
    bound
}

impl Bound {
    /// Whether some core has nothing to hand out though it should.
    pub(super) fn verdict(self, pools: &[PassivePool], borrow: bool) -> Result<Self, ServeError> {
        if let Some((address, source)) = self.error {
            return Err(ServeError::Passive { address, source });
        }
        for (index, pool) in pools.iter().enumerate() {
            let cores = self.ports.iter().zip(&self.missing);
            let dry = |(ports, missing): &(&Vec<Vec<PassiveListener>>, &Ports)| {
                ports[index].is_empty() && !missing[index].is_empty()
            };
            let all_dry = cores.clone().all(|core| dry(&core));
            let taken = cores.filter(dry).flat_map(|(_, missing)| &missing[index]);
            let taken: Vec<u16> = taken.copied().collect();
            if !taken.is_empty() && (all_dry || !borrow) {
                return Err(ServeError::PortsTaken {
                    address: pool.address,
                    key: pool.key.clone(),
                    ports: ports_text(taken),
                });
            }
        }
        Ok(self)
    }

    fn is_out_of_descriptors(&self) -> bool {
        let error = self.error.as_ref();
        error.is_some_and(|(_, error)| sys::is_out_of_descriptors(error))
    }

    /// How many ports cannot be had.
    pub(super) fn missing_count(&self) -> usize {
        self.missing.iter().flatten().map(Vec::len).sum()
    }

    /// The missing ports of each address.
    pub(super) fn taken(&self, pools: &[PassivePool]) -> Vec<(IpAddr, Vec<u16>)> {
        let taken = |(index, pool): (usize, &PassivePool)| {
            let ports = self.missing.iter().flat_map(|core| &core[index]);
            (pool.address, ports.copied().collect::<Vec<u16>>())
        };
        let all = pools.iter().enumerate().map(taken);
        all.filter(|(_, ports)| !ports.is_empty()).collect()
    }
}

/// Tells the operator which ports other programs hold, and how to find these.
pub(super) fn warn_of_taken(taken: &[(IpAddr, Vec<u16>)]) {
    for (address, ports) in taken {
        let count = ports.len();
        let first = ports.iter().min().copied().unwrap_or_default();
        tracing::warn!(
            %address,
            count,
            ports = ports_text(ports.iter().copied()),
            "passive ports are held by other programs and left out until these let go: \
             ss -tanp 'sport = :{first}' names them"
        );
    }
}

/// What the cores' pools go by.
pub(super) fn policy(config: &Config, cores: usize) -> Policy {
    let data = &config.data;
    let pools = config.passive_pools();
    let layouts = pools.iter().enumerate().map(|(index, pool)| {
        let parts = pool.parts(cores).into_iter().enumerate();
        let listeners = 0..config.server.listen.len();
        let served = listeners.filter(|listener| config.pool_of(&pools, *listener) == Some(index));
        Layout {
            address: pool.address,
            ranges: pool.ranges().to_vec(),
            homes: parts
                .flat_map(|(core, ports)| ports.into_iter().map(move |port| (port, core)))
                .collect(),
            balancers: served
                .flat_map(|listener| config.addressing(listener).proxy_from)
                .collect(),
        }
    });
    Policy {
        rules: Rules {
            timeout: data.accept_timeout,
            per_client_max: data.ports_per_client,
            peer_check: data.peer_check,
        },
        borrow: data.borrow,
        fxp: data.fxp_networks.clone(),
        layouts: layouts.collect(),
    }
}

/// Whether the descriptor limit bears the listening sockets.
pub(super) fn check_descriptors(
    config: &Config,
    cores: usize,
    limit: u64,
) -> Result<(), ServeError> {
    let ports = config.passive_pools().iter().map(PassivePool::count).sum();
    let needed = super::summary::fixed_descriptors(config, cores);
    match u64::try_from(needed).is_ok_and(|needed| needed < limit) {
        true => Ok(()),
        false => Err(ServeError::Descriptors {
            ports,
            needed,
            limit,
        }),
    }
}

/// What to do about an error of a bind.
pub(super) fn hint(error: &io::Error) -> &'static str {
    match sys::is_out_of_descriptors(error) {
        true => super::DESCRIPTOR_HINT,
        false => "",
    }
}

/// Connections that wait on one passive port: each is one client that has just been told the port.
const PASSIVE_BACKLOG: u32 = 64;
