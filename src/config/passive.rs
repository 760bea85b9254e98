//! Which passive ports are bound where: `server.listen`, `[data]` and `[listener.NAME]` together.

use std::net::{IpAddr, SocketAddr};

use super::listener::{Addressing, Announce, Own};
use super::port_set::{PortSet, Slices};
use super::{Config, Problem};

/// The passive ports on one address.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PassivePool {
    /// The address they are bound to.
    pub address: IpAddr,
    /// The ports; `None`: the ones on the wildcard address serve this address too, or passive mode
    /// is off.
    pub ports: Option<PortSet>,
    /// How cores share them.
    pub slices: Slices,
    /// The key that decides, for messages.
    pub key: String,
}

impl PassivePool {
    /// The ports of each core.
    pub fn parts(&self, cores: usize) -> Vec<Vec<u16>> {
        match &self.ports {
            Some(ports) => ports.slices(&self.slices, cores),
            None => vec![Vec::new(); cores],
        }
    }

    /// How many ports it has.
    pub fn count(&self) -> usize {
        self.ports.as_ref().map_or(0, PortSet::count)
    }

    /// The ranges.
    pub fn ranges(&self) -> &[super::PortRange] {
        self.ports.as_ref().map_or(&[], PortSet::ranges)
    }
}

impl Config {
    /// A pool for each address of `server.listen`, in that order, whatever else is set and also for those
    /// that a reload has left: so another reload finds the same ones.
    pub fn passive_pools(&self) -> Vec<PassivePool> {
        let mut pools: Vec<PassivePool> = Vec::new();
        for address in &self.server.listen {
            if pools.iter().all(|pool| pool.address != address.ip()) {
                pools.push(self.passive_pool(address.ip()));
            }
        }
        pools
    }

    fn passive_pool(&self, address: IpAddr) -> PassivePool {
        let listener = self
            .listeners
            .iter()
            .filter(|listener| listener.address.ip() == address)
            .find(|listener| listener.own.passive_ports.is_some());
        let own = listener.and_then(|listener| listener.own.passive_ports.clone());
        let is_served_by_wildcard = !address.is_unspecified()
            && self.server.listeners().any(|(_, other)| {
                other.ip().is_unspecified() && other.is_ipv4() == address.is_ipv4()
            });
        let is_left = !self
            .server
            .listeners()
            .any(|(_, other)| other.ip() == address);
        let ports = match own {
            _ if is_left => None,
            Some(ports) => Some(ports),
            None if is_served_by_wildcard => None,
            None => Some(self.data.passive_ports()),
        };
        let slices = match listener {
            Some(listener) => listener.own.passive_slices.clone(),
            None => self.data.own.passive_slices.clone(),
        };
        PassivePool {
            address,
            ports: ports.filter(|_| self.data.passive),
            slices: slices.unwrap_or(Slices::Even),
            key: match listener {
                Some(listener) => format!("listener.{}.passive_ports", listener.name),
                None => "data.passive_ports".to_owned(),
            },
        }
    }

    /// Which of [`Config::passive_pools`] serves the listener of this number in `server.listen`.
    pub fn pool_of(&self, pools: &[PassivePool], listener: usize) -> Option<usize> {
        let address = self.server.listen.get(listener)?.ip();
        let with_ports = |wanted: IpAddr| {
            let is_it = |pool: &PassivePool| pool.address == wanted && pool.ports.is_some();
            pools.iter().position(is_it)
        };
        let wildcard: IpAddr = match address {
            IpAddr::V4(_) => std::net::Ipv4Addr::UNSPECIFIED.into(),
            IpAddr::V6(_) => std::net::Ipv6Addr::UNSPECIFIED.into(),
        };
        with_ports(address).or_else(|| with_ports(wildcard))
    }

    /// How data connections of the listener of this number in `server.listen` are announced.
    pub fn addressing(&self, listener: usize) -> Addressing {
        let address = self.server.listen.get(listener);
        let own = self
            .listeners
            .iter()
            .find(|other| Some(&other.address) == address)
            .map_or_else(Own::default, |listener| listener.own.clone());
        let data = &self.data.own;
        let pools = self.passive_pools();
        let bound = self
            .pool_of(&pools, listener)
            .and_then(|pool| pools[pool].ports.clone());
        let external = own.external_ports.or_else(|| data.external_ports.clone());
        Addressing {
            announce: own
                .passive_address
                .or_else(|| data.passive_address.clone())
                .unwrap_or(Announce::Control),
            announce_for: own
                .passive_address_for
                .or_else(|| data.passive_address_for.clone())
                .unwrap_or_default(),
            external: bound.zip(external),
            proxy_from: own
                .proxy_from
                .or_else(|| data.proxy_from.clone())
                .unwrap_or_default(),
        }
    }

    /// Every name that is announced somewhere.
    pub fn announced_names(&self) -> Vec<String> {
        let mut names = Vec::new();
        let owns = self.listeners.iter().map(|listener| &listener.own);
        for own in owns.chain([&self.data.own]) {
            let rules = own.passive_address_for.iter().flatten();
            let announced = rules
                .map(|(_, announce)| announce)
                .chain(&own.passive_address);
            for announce in announced {
                if let Announce::Name(name) = announce
                    && !names.contains(name)
                {
                    names.push(name.clone());
                }
            }
        }
        names
    }

    /// What contradicts itself about passive ports, whatever the machine.
    pub(super) fn passive_contradictions(&self) -> Vec<Problem> {
        let mut problems = self.listener_contradictions();
        let pools = self.passive_pools();
        for (index, pool) in pools.iter().enumerate() {
            let Some(ports) = &pool.ports else { continue };
            problems.extend(self.control_port_contradiction(pool, ports));
            problems.extend(slice_contradiction(pool, ports));
            for other in &pools[..index] {
                let port = other.ports.as_ref().and_then(|others| others.meets(ports));
                if let Some(port) = port
                    && is_same_place(pool.address, other.address)
                {
                    let message = format!(
                        "port {port} would be bound on {} and on {}, which is the same place",
                        other.address, pool.address
                    );
                    problems.push(Problem::new(&pool.key, message).hint("choose other ports"));
                }
            }
        }
        for (listener, _) in self.server.listeners() {
            if let Some((bound, external)) = self.addressing(listener).external
                && bound.count() != external.count()
            {
                let message = format!(
                    "{external} has {} ports, the ports that are bound ({bound}) are {}",
                    external.count(),
                    bound.count()
                );
                let hint = "each bound port needs the one that stands for it outside";
                problems.push(Problem::new(self.external_key(listener), message).hint(hint));
            }
        }
        problems.dedup();
        problems
    }

    fn external_key(&self, listener: usize) -> String {
        let address = self.server.listen[listener];
        let own = self.listeners.iter().find(|other| other.address == address);
        match own.filter(|listener| listener.own.external_ports.is_some()) {
            Some(listener) => format!("listener.{}.external_ports", listener.name),
            None => "data.external_ports".to_owned(),
        }
    }

    fn listener_contradictions(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        for (index, listener) in self.listeners.iter().enumerate() {
            let key = format!("listener.{}.address", listener.name);
            if !self.server.listen.contains(&listener.address) {
                let listed: Vec<String> = self
                    .server
                    .listen
                    .iter()
                    .map(SocketAddr::to_string)
                    .collect();
                let message = format!("{} is not listened on", listener.address);
                let hint = format!("server.listen has {}", listed.join(", "));
                problems.push(Problem::new(&key, message).hint(hint));
            }
            let before = &self.listeners[..index];
            let same = |other: &&super::Listener| other.address == listener.address;
            if let Some(other) = before.iter().find(same) {
                let message = format!("[listener.{}] is about this address already", other.name);
                problems.push(Problem::new(&key, message));
            }
            let shares = |other: &&super::Listener| {
                other.address.ip() == listener.address.ip()
                    && other.own.passive_ports.is_some()
                    && listener.own.passive_ports.is_some()
                    && (&other.own.passive_ports, &other.own.passive_slices)
                        != (&listener.own.passive_ports, &listener.own.passive_slices)
            };
            if let Some(other) = before.iter().find(shares) {
                let message = format!(
                    "listeners on {} share their passive ports, and [listener.{}] has others",
                    listener.address.ip(),
                    other.name
                );
                let key = format!("listener.{}.passive_ports", listener.name);
                problems.push(Problem::new(key, message).hint("set the same ports in both"));
            }
            problems.extend(self.balancer_contradiction(listener));
            if listener.own.passive_slices.is_some() && listener.own.passive_ports.is_none() {
                let key = format!("listener.{}.passive_slices", listener.name);
                let problem = Problem::new(key, "has no effect without passive_ports here");
                problems.push(problem.hint("set passive_ports in the same section"));
            }
        }
        problems
    }

    /// A passive port does not know through which listener its client came.
    fn balancer_contradiction(&self, listener: &super::Listener) -> Option<Problem> {
        let pools = self.passive_pools();
        let place = self
            .server
            .listen
            .iter()
            .position(|it| *it == listener.address)?;
        let pool = self.pool_of(&pools, place)?;
        let others = self.server.listeners().map(|(other, _)| other);
        let others = others.filter(|other| *other != place);
        let mut shares = others.filter(|other| self.pool_of(&pools, *other) == Some(pool));
        let own = self.addressing(place).proxy_from;
        let other = shares.find(|other| self.addressing(*other).proxy_from != own)?;
        let message = format!(
            "differs from that of {}, which shares the passive ports",
            self.server.listen[other]
        );
        let key = format!("listener.{}.proxy_from", listener.name);
        let hint = "set passive_ports here too, or the same proxy_from for both";
        listener
            .own
            .proxy_from
            .is_some()
            .then(|| Problem::new(key, message).hint(hint))
    }

    fn control_port_contradiction(&self, pool: &PassivePool, ports: &PortSet) -> Vec<Problem> {
        let mut problems = Vec::new();
        let clash = |address: &&SocketAddr| {
            ports.contains(address.port()) && is_same_place(address.ip(), pool.address)
        };
        let addresses: Vec<SocketAddr> = self.server.listeners().map(|(_, it)| it).collect();
        for address in addresses.iter().filter(clash) {
            let message = format!(
                "{ports} overlaps the control connection's port {}",
                address.port()
            );
            problems.push(Problem::new(&pool.key, message).hint("choose a range without it"));
        }
        let source = self.data.active_source_port;
        if self.data.active && ports.contains(source) {
            let message = format!("{source} is one of the passive ports {ports}");
            problems.push(
                Problem::new("data.active_source_port", message)
                    .hint("choose 20, 0 (any), or a port outside that range"),
            );
        }
        problems
    }

    /// What does not suit so many cores.
    pub(super) fn slices_for(&self, cores: usize) -> Vec<Problem> {
        let mut problems = Vec::new();
        for pool in self.passive_pools() {
            let Some(ports) = &pool.ports else { continue };
            if let Some(slices) = pool.slices.cores()
                && slices != cores
            {
                let message = format!("{slices} slices for {cores} cores");
                let hint = "one for each core, in order; \"even\" suits any number";
                problems.push(Problem::new(pool.slices_key(), message).hint(hint));
                continue;
            }
            if pool.parts(cores).iter().any(Vec::is_empty) {
                let message = format!(
                    "{ports} has {} ports for {cores} cores; each needs its own",
                    ports.count()
                );
                problems.push(
                    Problem::new(&pool.key, message).hint("widen the range, or lower server.cores"),
                );
            }
        }
        problems.dedup();
        problems
    }
}

impl PassivePool {
    fn slices_key(&self) -> String {
        self.key.replace("passive_ports", "passive_slices")
    }
}

/// Explicit slices are a partition of the ports.
fn slice_contradiction(pool: &PassivePool, ports: &PortSet) -> Option<Problem> {
    let Slices::Explicit(sets) = &pool.slices else {
        return None;
    };
    let foreign = sets
        .iter()
        .flat_map(PortSet::iter)
        .find(|port| !ports.contains(*port));
    let missing = ports
        .iter()
        .find(|port| !sets.iter().any(|set| set.contains(*port)));
    let message = match (foreign, missing) {
        (Some(port), _) => format!("port {port} is none of the passive ports {ports}"),
        (None, Some(port)) => format!("port {port} of {ports} is in no slice"),
        (None, None) => return None,
    };
    let hint = "the slices together are the passive ports";
    Some(Problem::new(pool.slices_key(), message).hint(hint))
}

/// Whether a socket on the one address keeps one on the other from the same port (bind(2)).
fn is_same_place(a: IpAddr, b: IpAddr) -> bool {
    a == b || (a.is_ipv4() == b.is_ipv4() && (a.is_unspecified() || b.is_unspecified()))
}
