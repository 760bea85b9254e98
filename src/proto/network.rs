//! Networks in CIDR notation (RFC 4632 §3.1, RFC 4291 §2.3).

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::str::FromStr;

/// All addresses that begin with the same bits.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct Network {
    /// The bits beyond the prefix are zero.
    address: IpAddr,
    prefix: u8,
}

impl Network {
    /// Whether an address is in the network. An IPv4 address that came mapped into IPv6 counts as
    /// what it is; otherwise the families never meet.
    pub fn contains(&self, address: IpAddr) -> bool {
        let address = address.to_canonical();
        address.is_ipv4() == self.is_ipv4() && masked(address, self.prefix) == self.address
    }

    /// How many bits all addresses share.
    pub fn prefix_length(&self) -> u8 {
        self.prefix
    }

    /// Whether it is a network of IPv4 addresses.
    pub fn is_ipv4(&self) -> bool {
        self.address.is_ipv4()
    }
}

/// What belongs to the smallest of the networks that contain an address.
pub fn longest_match<T>(networks: &[(Network, T)], address: IpAddr) -> Option<&T> {
    let containing = networks
        .iter()
        .filter(|(network, _)| network.contains(address));
    let smallest = containing.max_by_key(|(network, _)| network.prefix);
    smallest.map(|(_, value)| value)
}

/// The address that stands for a client whose misdeeds are counted. RFC 4291 §2.5.1: an IPv6 host may
/// take any address of its /64; an IPv4 address that came mapped into IPv6 counts as what it is.
pub fn of_client(client: IpAddr) -> IpAddr {
    match client.to_canonical() {
        IpAddr::V4(address) => address.into(),
        IpAddr::V6(address) => Ipv6Addr::from_bits(address.to_bits() & !0 << 64).into(),
    }
}

impl fmt::Display for Network {
    /// A single address without its prefix.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self.prefix == bits(self.address) {
            true => write!(f, "{}", self.address),
            false => write!(f, "{}/{}", self.address, self.prefix),
        }
    }
}

impl FromStr for Network {
    type Err = String;

    /// `10.0.0.0/8`, or a single address.
    fn from_str(text: &str) -> Result<Self, String> {
        let malformed =
            || format!("{text:?} is not a network such as \"10.0.0.0/8\" or \"2001:db8::/32\"");
        let (address, prefix) = match text.split_once('/') {
            Some((address, prefix)) => (address, Some(prefix)),
            None => (text, None),
        };
        let address: IpAddr = address.trim().parse().map_err(|_| malformed())?;
        let most = bits(address);
        let prefix = match prefix.map(str::trim) {
            None => most,
            Some(digits) => {
                let is_number = !digits.is_empty() && digits.bytes().all(|it| it.is_ascii_digit());
                let number: Option<u8> = digits.parse().ok();
                match number.filter(|prefix| is_number && *prefix <= most) {
                    Some(prefix) => prefix,
                    None if is_number => {
                        return Err(format!("{text}: an address has {most} bits, not {digits}"));
                    }
                    None => return Err(malformed()),
                }
            }
        };
        if let (IpAddr::V4(mapped), 96..) = (address.to_canonical(), prefix)
            && address.is_ipv6()
        {
            let own = prefix - 96;
            return Err(format!("{text} are IPv4 addresses: write {mapped}/{own}"));
        }
        let network = Self {
            address: masked(address, prefix),
            prefix,
        };
        match network.address == address {
            true => Ok(network),
            false => Err(format!(
                "{text} has bits beyond its prefix; write {network}, or {address}"
            )),
        }
    }
}

fn bits(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(_) => 32,
        IpAddr::V6(_) => 128,
    }
}

/// The first bits of an address; `prefix` is at most their number.
fn masked(address: IpAddr, prefix: u8) -> IpAddr {
    let cleared = u32::from(bits(address) - prefix);
    match address {
        IpAddr::V4(address) => {
            let mask = u32::MAX.checked_shl(cleared).unwrap_or(0);
            Ipv4Addr::from_bits(address.to_bits() & mask).into()
        }
        IpAddr::V6(address) => {
            let mask = u128::MAX.checked_shl(cleared).unwrap_or(0);
            Ipv6Addr::from_bits(address.to_bits() & mask).into()
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    #[test]
    fn networks_contain_what_begins_like_them() {
        for (network, inside, outside) in [
            ("10.0.0.0/8", "10.255.0.1", "11.0.0.0"),
            ("10.0.0.0/8", "::ffff:10.1.2.3", "::a00:1"),
            ("192.0.2.7", "192.0.2.7", "192.0.2.6"),
            ("0.0.0.0/0", "255.255.255.255", "::"),
            ("192.0.2.128/25", "192.0.2.255", "192.0.2.127"),
            ("2001:db8::/32", "2001:db8:ffff::1", "2001:db9::"),
            ("::/0", "ffff::", "0.0.0.0"),
            ("::1", "::1", "::2"),
        ] {
            let parsed: Network = network.parse().expect(network);
            assert_eq!(parsed.to_string(), network);
            assert!(parsed.contains(address(inside)), "{inside} in {network}");
            assert!(!parsed.contains(address(outside)), "{outside} in {network}");
        }
    }

    #[test]
    fn what_is_no_network_is_refused_with_a_reason() {
        for (text, part) in [
            ("10.0.0.1/8", "write 10.0.0.0/8, or 10.0.0.1"),
            ("2001:db8::1/64", "write 2001:db8::/64"),
            ("10.0.0.0/33", "has 32 bits"),
            ("10.0.0.0/256", "has 32 bits"),
            ("10.0.0.0/+8", "not a network"),
            ("::/129", "has 128 bits"),
            ("::ffff:10.0.0.0/104", "write 10.0.0.0/8"),
            ("::ffff:10.1.2.3", "write 10.1.2.3/32"),
            ("10.0.0.0/", "not a network"),
            ("10.0.0.0/-1", "not a network"),
            ("10.0/8", "not a network"),
            ("example.org", "not a network"),
            ("", "not a network"),
        ] {
            let error = text.parse::<Network>().expect_err(text);
            assert!(error.contains(part), "{text}: {error}");
        }
    }

    #[test]
    fn the_longest_prefix_wins() {
        let rules = ["0.0.0.0/0", "10.0.0.0/8", "10.1.0.0/16", "10.1.2.3"];
        let rules: Vec<(Network, &str)> = rules
            .map(|text| (text.parse().expect("a network"), text))
            .to_vec();
        for (client, rule) in [
            ("192.0.2.1", Some("0.0.0.0/0")),
            ("10.2.0.1", Some("10.0.0.0/8")),
            ("10.1.2.4", Some("10.1.0.0/16")),
            ("10.1.2.3", Some("10.1.2.3")),
            ("::1", None),
        ] {
            assert_eq!(
                longest_match(&rules, address(client)).copied(),
                rule,
                "{client}"
            );
        }
    }
}
