//! `[data]`: data connections.

use std::net::Ipv4Addr;
use std::time::Duration;

use super::limits;
use super::ports::{self, PortRange};
use super::section::{Section, Value, Wrong};
use super::units;

/// How data connections come about.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Data {
    /// PASV and EPSV are offered.
    pub passive: bool,
    /// The ports that passive data connections use; the cores share them in disjoint slices.
    pub passive_ports: PortRange,
    /// The IPv4 address that PASV announces; `None`: the one at which the client reached the server.
    pub passive_address: Option<Ipv4Addr>,
    /// How long a passive port waits for its client; at least 1 s.
    pub accept_timeout: Duration,
    /// Passive ports that may wait for one client address at a time, on each core: 1 to 65 535.
    pub ports_per_client: usize,
    /// Whose passive data connection is accepted.
    pub peer_check: PeerCheck,
    /// PORT and EPRT are offered.
    pub active: bool,
    /// The port that active data connections come from (RFC 959 §3.2: 20); 0: any.
    pub active_source_port: u16,
    /// How long connecting to the client may take; at least 1 s.
    pub connect_timeout: Duration,
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

impl Data {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("passive", &mut self.passive, units::switch);
        section.read("passive_ports", &mut self.passive_ports, ports::port_range);
        section.read("passive_address", &mut self.passive_address, |value| {
            public_address(value).map(Some)
        });
        section.read("accept_timeout", &mut self.accept_timeout, limits::wait);
        section.read("ports_per_client", &mut self.ports_per_client, |value| {
            units::number(value, 1, u64::from(u16::MAX)).map(|ports| ports as usize)
        });
        section.read("peer_check", &mut self.peer_check, |value| {
            units::choice(
                value,
                &[
                    ("strict", PeerCheck::Strict),
                    ("subnet", PeerCheck::Subnet),
                    ("off", PeerCheck::Off),
                ],
            )
        });
        section.read("active", &mut self.active, units::switch);
        section.read(
            "active_source_port",
            &mut self.active_source_port,
            |value| units::number(value, 0, u64::from(u16::MAX)).map(|port| port as u16),
        );
        section.read("connect_timeout", &mut self.connect_timeout, limits::wait);
    }
}

/// An address that a client can connect to.
fn public_address(value: &Value<'_>) -> Result<Ipv4Addr, Wrong> {
    let text = units::text(value, "203.0.113.7")?;
    let wrong = |what: &str| Wrong::new(format!("{text:?} is not {what}"));
    let address: Ipv4Addr = text.parse().map_err(|_| {
        wrong("an IPv4 address").hint("EPSV, which IPv6 clients use, announces no address")
    })?;
    match address.is_unspecified() || address.is_multicast() || address.is_broadcast() {
        true => Err(wrong("an address that a client can connect to")),
        false => Ok(address),
    }
}
