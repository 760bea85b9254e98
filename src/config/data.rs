//! `[data]`: data connections.

use std::time::Duration;

use super::limits;
use super::listener::{self, Own};
use super::port_set::PortSet;
use super::section::Section;
use super::units;
use crate::proto::network::Network;

/// How data connections come about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Data {
    /// PASV and EPSV are offered.
    pub passive: bool,
    /// What listeners may have for themselves.
    pub own: Own,
    /// How often names that are announced are looked up again; at least 1 s.
    pub passive_address_refresh: Duration,
    /// How long a passive port waits for its client; at least 1 s.
    pub accept_timeout: Duration,
    /// Passive ports that may wait for one client address at a time, on each core: 1 to 65 535.
    pub ports_per_client: usize,
    /// Whose passive data connection is accepted.
    pub peer_check: PeerCheck,
    /// A core that has no passive port left takes some of another core.
    pub borrow: bool,
    /// PORT and EPRT are offered.
    pub active: bool,
    /// The port that active data connections come from (RFC 959 §3.2: 20); 0: any.
    pub active_source_port: u16,
    /// How long connecting to the client may take; at least 1 s.
    pub connect_timeout: Duration,
    /// Other servers to and from which clients may have files sent (FXP).
    pub fxp_networks: Vec<Network>,
}

/// Whose passive data connection is accepted for a client.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum PeerCheck {
    /// That of the address of its control connection. Only then can a port wait for many clients.
    Strict,
    /// That of an address in the same network: IPv4 /24, IPv6 /64.
    Subnet,
    /// Whichever comes first.
    Off,
}

impl PeerCheck {
    /// The word for it.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Strict => "strict",
            Self::Subnet => "subnet",
            Self::Off => "off",
        }
    }
}

impl Data {
    /// The ports that passive data connections use, where a listener has none of its own.
    pub fn passive_ports(&self) -> PortSet {
        let set = self.own.passive_ports.clone();
        set.unwrap_or_else(|| super::defaults::PASSIVE_PORTS.into())
    }

    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("passive", &mut self.passive, units::switch);
        self.own.read(section);
        section.read(
            "passive_address_refresh",
            &mut self.passive_address_refresh,
            limits::wait,
        );
        section.read("accept_timeout", &mut self.accept_timeout, limits::wait);
        section.read("ports_per_client", &mut self.ports_per_client, |value| {
            units::number(value, 1, u64::from(u16::MAX)).map(|ports| ports as usize)
        });
        section.read("peer_check", &mut self.peer_check, |value| {
            let checks = [PeerCheck::Strict, PeerCheck::Subnet, PeerCheck::Off];
            units::choice(value, &checks.map(|check| (check.name(), check)))
        });
        section.read("borrow", &mut self.borrow, units::switch);
        section.read("active", &mut self.active, units::switch);
        section.read(
            "active_source_port",
            &mut self.active_source_port,
            |value| units::number(value, 0, u64::from(u16::MAX)).map(|port| port as u16),
        );
        section.read("connect_timeout", &mut self.connect_timeout, limits::wait);
        section.read("fxp_networks", &mut self.fxp_networks, listener::networks);
    }
}
