//! A range of TCP ports.

use std::fmt;
use std::str::FromStr;

use super::section::{Value, Wrong};
use super::units;

/// An unbroken range of ports from 1024 on; never empty.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct PortRange {
    first: u16,
    last: u16,
}

impl PortRange {
    /// The range from `first` to `last`, both included; `None` if it is inverted or privileged.
    pub const fn new(first: u16, last: u16) -> Option<Self> {
        if first < PORT_MIN || last < first {
            None
        } else {
            Some(Self { first, last })
        }
    }

    /// The lowest port.
    pub const fn first(self) -> u16 {
        self.first
    }

    /// The highest port.
    pub const fn last(self) -> u16 {
        self.last
    }

    /// How many ports: 1 to 64 512.
    pub const fn count(self) -> usize {
        (self.last - self.first) as usize + 1
    }

    /// Whether `port` is one of them.
    pub const fn contains(self, port: u16) -> bool {
        self.first <= port && port <= self.last
    }

    /// The part of core `index` when `parts` cores share the range: disjoint, together the whole,
    /// sizes differing by at most one. `None` when there are fewer ports than parts (then some
    /// core would have none) or no such core.
    ///
    /// Why disjoint: the same port bound on two cores with SO_REUSEPORT would split connections at
    /// random, and half of them would reach a core that knows nothing of them.
    pub fn slice(self, index: usize, parts: usize) -> Option<Self> {
        let count = self.count();
        if index >= parts || parts > count {
            return None;
        }
        let first = usize::from(self.first) + index * count / parts;
        let end = usize::from(self.first) + (index + 1) * count / parts;
        Self::new(u16::try_from(first).ok()?, u16::try_from(end - 1).ok()?)
    }
}

impl fmt::Display for PortRange {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}-{}", self.first, self.last)
    }
}

impl FromStr for PortRange {
    type Err = String;

    /// `50000-50999`, or one port.
    fn from_str(text: &str) -> Result<Self, String> {
        let (first, last) = text.split_once('-').unwrap_or((text, text));
        let (Ok(first), Ok(last)) = (first.trim().parse::<u16>(), last.trim().parse::<u16>())
        else {
            return Err(format!(
                "{text:?} is not a range of ports such as \"50000-50999\""
            ));
        };
        if last < first {
            return Err(format!("{text} is upside down; write {last}-{first}"));
        }
        Self::new(first, last).ok_or_else(|| {
            format!("{text} reaches below {PORT_MIN}, where ports are privileged and for services")
        })
    }
}

pub(super) fn port_range(value: &Value<'_>) -> Result<PortRange, Wrong> {
    units::text(value, "50000-50999")?
        .parse()
        .map_err(Wrong::new)
}

/// Ports below are privileged (ip(7)) and assigned to services (RFC 6335 §6).
const PORT_MIN: u16 = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ranges_are_parsed_or_refused_with_a_reason() {
        for (text, expected) in [
            ("50000-50999", Ok((50000, 50999))),
            (" 2000 - 2000 ", Ok((2000, 2000))),
            ("2121", Ok((2121, 2121))),
            ("1024-65535", Ok((1024, 65535))),
            ("50999-50000", Err("upside down")),
            ("1000-2000", Err("below 1024")),
            ("50000-70000", Err("not a range")),
            ("50000:50999", Err("not a range")),
            ("-5", Err("not a range")),
            ("", Err("not a range")),
        ] {
            match (text.parse::<PortRange>(), expected) {
                (Ok(range), Ok(ends)) => assert_eq!((range.first(), range.last()), ends, "{text}"),
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }

    #[test]
    fn slices_are_disjoint_and_together_the_whole() {
        for (first, last, parts) in [(50000, 50999, 3), (2000, 2000, 1), (1024, 65535, 64)] {
            let range = PortRange::new(first, last).expect("a valid range");
            let mut next = usize::from(first);
            for index in 0..parts {
                let slice = range.slice(index, parts).expect("every core has ports");
                assert_eq!(usize::from(slice.first()), next);
                assert!(slice.count().abs_diff(range.count() / parts) <= 1);
                next = usize::from(slice.last()) + 1;
            }
            assert_eq!(next, usize::from(last) + 1);
            assert_eq!(range.slice(parts, parts), None);
        }
        let small = PortRange::new(2000, 2001).expect("a valid range");
        assert_eq!(small.slice(0, 3), None);
        assert_eq!(small.slice(0, 0), None);
    }
}
