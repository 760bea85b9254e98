//! A range of TCP ports.

use std::fmt;
use std::str::FromStr;

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
}
