//! `[listener.NAME]`: what is different for one of the addresses that are listened on; and the keys
//! that `[data]` shares with it.

use std::net::{IpAddr, SocketAddr};

use super::port_set::{self, PortSet, Slices};
use super::section::{Section, Value, Wrong};
use super::units;
use crate::proto::network::{self, Network};

/// One of the addresses that are listened on, and how it differs from `[data]`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listener {
    /// The name of its section.
    pub name: String,
    /// Which address of `server.listen`.
    pub address: SocketAddr,
    /// What it sets.
    pub own: Own,
    /// How TLS begins there.
    pub tls: TlsStart,
}

/// How TLS begins on a control connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TlsStart {
    /// By AUTH TLS, if the client wants it (RFC 4217).
    Explicit,
    /// At once, before the greeting.
    Implicit,
}

/// Keys of `[data]` that a listener may have for itself; `None`: as `[data]` has it.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Own {
    /// The ports that passive data connections use.
    pub passive_ports: Option<PortSet>,
    /// How cores share them.
    pub passive_slices: Option<Slices>,
    /// The address that PASV announces.
    pub passive_address: Option<Announce>,
    /// The address that PASV announces to clients of these networks.
    pub passive_address_for: Option<Vec<(Network, Announce)>>,
    /// The ports that stand for `passive_ports` on the outside of an address translator.
    pub external_ports: Option<PortSet>,
    /// Balancers that begin each connection with a PROXY header.
    pub proxy_from: Option<Vec<Network>>,
}

/// The address that PASV announces.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub enum Announce {
    /// The one at which the client reached the server.
    Control,
    /// This one.
    Address(IpAddr),
    /// The one that this name has in the DNS.
    Name(String),
}

impl Own {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("passive_ports", &mut self.passive_ports, |value| {
            port_set::port_set(value).map(Some)
        });
        section.read("passive_slices", &mut self.passive_slices, |value| {
            port_set::slices(value).map(Some)
        });
        section.read("passive_address", &mut self.passive_address, |value| {
            announce(value).map(Some)
        });
        section.read(
            "passive_address_for",
            &mut self.passive_address_for,
            |value| announce_for(value).map(Some),
        );
        section.read("external_ports", &mut self.external_ports, |value| {
            port_set::port_set(value).map(Some)
        });
        section.read("proxy_from", &mut self.proxy_from, |value| {
            networks(value).map(Some)
        });
    }
}

impl Listener {
    /// Reads a section; `None` when it names no address.
    pub(super) fn read(name: String, section: &mut Section<'_>) -> Option<Self> {
        let mut address = None;
        let mut own = Own::default();
        let said = section.has("address");
        section.read("address", &mut address, |value| {
            super::server::listen_address(value).map(Some)
        });
        own.read(section);
        let mut tls = TlsStart::Explicit;
        section.read("tls", &mut tls, |value| {
            units::choice(
                value,
                &[
                    ("explicit", TlsStart::Explicit),
                    ("implicit", TlsStart::Implicit),
                ],
            )
        });
        if !said {
            let hint = "address = \"192.0.2.1:21\": the one of server.listen that it is about";
            section.refuse("has no address", hint);
        }
        Some(Self {
            name,
            address: address?,
            own,
            tls,
        })
    }
}

impl Announce {
    /// Whether a client is on the other side of an address translator. Who is told the control
    /// connection's own address is on this side, and so is who speaks IPv6 where an IPv4 address is
    /// announced.
    pub fn is_outside(&self, client: IpAddr) -> bool {
        match self {
            Self::Control => false,
            Self::Address(address) => address.is_ipv4() == client.is_ipv4(),
            Self::Name(_) => client.is_ipv4(),
        }
    }
}

impl std::fmt::Display for Announce {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Control => f.write_str("control"),
            Self::Address(address) => write!(f, "{address}"),
            Self::Name(name) => f.write_str(name),
        }
    }
}

/// `"control"`, an address, or a name that is looked up.
fn announce(value: &Value<'_>) -> Result<Announce, Wrong> {
    let text = units::text(value, "203.0.113.7")?;
    if text == "control" {
        return Ok(Announce::Control);
    }
    match text.parse::<IpAddr>() {
        Ok(address) if is_reachable(address) => Ok(Announce::Address(address)),
        Ok(_) => Err(Wrong::new(format!(
            "{text:?} is not an address that a client can connect to"
        ))),
        Err(_) if is_host_name(text) => Ok(Announce::Name(text.to_owned())),
        Err(_) => Err(
            Wrong::new(format!("{text:?} is neither an address nor a name")).hint(
                "\"203.0.113.7\", \"ftp.example.org\", or \"control\" for the address at which the \
             client reached the server",
            ),
        ),
    }
}

fn is_reachable(address: IpAddr) -> bool {
    let is_broadcast = matches!(address, IpAddr::V4(address) if address.is_broadcast());
    !(address.is_unspecified() || address.is_multicast() || is_broadcast)
}

/// RFC 1123 §2.1: letters, digits and hyphens between dots, and not only digits, which would be a
/// slip in an address.
fn is_host_name(text: &str) -> bool {
    let label = |label: &str| {
        (1..=63).contains(&label.len())
            && !label.starts_with('-')
            && !label.ends_with('-')
            && label
                .bytes()
                .all(|byte| byte.is_ascii_alphanumeric() || byte == b'-')
    };
    let name = text.strip_suffix('.').unwrap_or(text);
    let last = name.rsplit('.').next().unwrap_or_default();
    name.len() <= 253
        && name.split('.').all(label)
        && !last.bytes().all(|byte| byte.is_ascii_digit())
}

/// `{ "10.0.0.0/8" = "control" }`.
fn announce_for(value: &Value<'_>) -> Result<Vec<(Network, Announce)>, Wrong> {
    let Some(table) = value.get_ref().as_table() else {
        return Err(units::wrong_type(
            value,
            "networks with addresses, such as { \"10.0.0.0/8\" = \"control\" }",
        ));
    };
    let mut rules: Vec<(Network, Announce)> = Vec::new();
    for (key, value) in table.iter() {
        let network: Network = key
            .get_ref()
            .parse()
            .map_err(|error: String| Wrong::new(error).at(key.span()))?;
        let announced = announce(value).map_err(|wrong| wrong.at(value.span()))?;
        if let Announce::Address(address) = announced
            && address.is_ipv4() != network.is_ipv4()
        {
            let wrong = Wrong::new(format!("clients of {network} cannot connect to {address}"));
            return Err(wrong.at(value.span()));
        }
        if rules.iter().any(|(other, _)| *other == network) {
            return Err(Wrong::new(format!("{network} is listed twice")).at(key.span()));
        }
        rules.push((network, announced));
    }
    Ok(rules)
}

/// A list of networks.
pub(super) fn networks(value: &Value<'_>) -> Result<Vec<Network>, Wrong> {
    let Some(list) = value.get_ref().as_array() else {
        return Err(units::wrong_type(
            value,
            "a list of networks, such as [\"192.0.2.0/24\"]",
        ));
    };
    let mut networks = Vec::new();
    for element in list.iter() {
        let network = units::text(element, "192.0.2.0/24").and_then(|text| {
            text.parse::<Network>()
                .map_err(|error: String| Wrong::new(error))
        });
        networks.push(network.map_err(|wrong| wrong.at(element.span()))?);
    }
    Ok(networks)
}

/// How data connections of one listener are announced and taken: `[data]` with what the listener has
/// for itself.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Addressing {
    /// The address that PASV announces to clients of no network in `announce_for`.
    pub announce: Announce,
    /// The same for clients of these networks; the longest prefix wins.
    pub announce_for: Vec<(Network, Announce)>,
    /// The bound ports with those that stand for them outside, where that is not the same.
    pub external: Option<(PortSet, PortSet)>,
    /// Balancers that begin each connection with a PROXY header.
    pub proxy_from: Vec<Network>,
}

impl Addressing {
    /// What is announced to a client.
    pub fn announce(&self, client: IpAddr) -> &Announce {
        network::longest_match(&self.announce_for, client).unwrap_or(&self.announce)
    }

    /// The port that is announced to a client in the place of a bound one.
    pub fn external_port(&self, announce: &Announce, client: IpAddr, port: u16) -> u16 {
        let external = self.external.as_ref();
        let Some((bound, external)) = external.filter(|_| announce.is_outside(client)) else {
            return port;
        };
        let outside = bound.position(port).and_then(|at| external.nth(at));
        outside.unwrap_or(port)
    }

    /// Whether connections from there begin with a PROXY header.
    pub fn is_balancer(&self, peer: IpAddr) -> bool {
        self.proxy_from.iter().any(|network| network.contains(peer))
    }
}
