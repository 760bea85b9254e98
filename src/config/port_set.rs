//! Several ranges of ports, and how cores share them.

use std::fmt;
use std::str::FromStr;

use toml::de::DeValue;

use super::ports::PortRange;
use super::section::{Value, Wrong};
use super::units;

/// Disjoint ranges of ports, in the order of the configuration; never empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct PortSet(Vec<PortRange>);

/// How cores share the ports of a [`PortSet`].
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Slices {
    /// Each as many as the other, give or take one.
    Even,
    /// In these proportions, one number for each core.
    Weighted(Vec<u32>),
    /// These ports, one set for each core.
    Explicit(Vec<PortSet>),
}

impl PortSet {
    /// The ranges.
    pub fn ranges(&self) -> &[PortRange] {
        &self.0
    }

    /// How many ports: 1 to 64 512.
    pub fn count(&self) -> usize {
        self.0.iter().map(|range| range.count()).sum()
    }

    /// Whether `port` is one of them.
    pub fn contains(&self, port: u16) -> bool {
        self.0.iter().any(|range| range.contains(port))
    }

    /// The ports, range after range.
    pub fn iter(&self) -> impl Iterator<Item = u16> {
        self.0.iter().flat_map(|range| range.first()..=range.last())
    }

    /// A port that is in both.
    pub fn meets(&self, other: &Self) -> Option<u16> {
        let pairs = self
            .0
            .iter()
            .flat_map(|a| other.0.iter().map(move |b| (a, b)));
        pairs
            .map(|(a, b)| (a.first().max(b.first()), a.last().min(b.last())))
            .find_map(|(first, last)| (first <= last).then_some(first))
    }

    /// How many ports stand before `port`; `None` if it is none of them.
    pub fn position(&self, port: u16) -> Option<usize> {
        let mut before = 0;
        for range in &self.0 {
            if range.contains(port) {
                return Some(before + usize::from(port - range.first()));
            }
            before += range.count();
        }
        None
    }

    /// The port before which `position` others stand.
    pub fn nth(&self, mut position: usize) -> Option<u16> {
        for range in &self.0 {
            if position < range.count() {
                // Less than a range has ports.
                return Some(range.first() + position as u16);
            }
            position -= range.count();
        }
        None
    }

    /// The ports of each of `cores` cores, in order: disjoint, together all of them. A core may have
    /// none, when there are too few.
    ///
    /// Why disjoint: the same port bound on two cores with SO_REUSEPORT would split connections at
    /// random, and half of them would reach a core that knows nothing of them.
    pub fn slices(&self, slices: &Slices, cores: usize) -> Vec<Vec<u16>> {
        let ports: Vec<u16> = self.iter().collect();
        let weights: Vec<u32> = match slices {
            Slices::Explicit(sets) => {
                let mut parts: Vec<Vec<u16>> =
                    sets.iter().map(|set| set.iter().collect()).collect();
                parts.resize(cores, Vec::new());
                return parts;
            }
            Slices::Even => vec![1; cores],
            Slices::Weighted(weights) => weights.clone(),
        };
        let whole: u64 = weights.iter().copied().map(u64::from).sum::<u64>().max(1);
        let mut sum = 0;
        let mut first = 0;
        let mut parts = Vec::new();
        for weight in weights {
            sum += u64::from(weight);
            // A share of the whole; no more than there are ports.
            let end = (sum * ports.len() as u64 / whole) as usize;
            parts.push(ports[first..end].to_vec());
            first = end;
        }
        parts.resize(cores, Vec::new());
        parts
    }
}

impl Slices {
    /// How many cores it speaks of; `None` when it is any number.
    pub fn cores(&self) -> Option<usize> {
        match self {
            Self::Even => None,
            Self::Weighted(weights) => Some(weights.len()),
            Self::Explicit(sets) => Some(sets.len()),
        }
    }
}

impl From<PortRange> for PortSet {
    fn from(range: PortRange) -> Self {
        Self(vec![range])
    }
}

impl fmt::Display for PortSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, range) in self.0.iter().enumerate() {
            let comma = if index == 0 { "" } else { "," };
            write!(f, "{comma}{range}")?;
        }
        Ok(())
    }
}

impl FromStr for PortSet {
    type Err = String;

    /// `50000-50999`, or several with commas between them.
    fn from_str(text: &str) -> Result<Self, String> {
        let ranges: Result<Vec<PortRange>, String> = text.split(',').map(str::parse).collect();
        Self::new(ranges?)
    }
}

impl PortSet {
    fn new(ranges: Vec<PortRange>) -> Result<Self, String> {
        for (index, range) in ranges.iter().enumerate() {
            let overlaps =
                |other: &&PortRange| range.contains(other.first()) || other.contains(range.first());
            if let Some(other) = ranges[..index].iter().find(overlaps) {
                return Err(format!("{other} and {range} have ports in common"));
            }
        }
        match ranges.len() {
            0 => Err("no range of ports, such as \"50000-50999\"".to_owned()),
            count if count > RANGES_MAX => {
                Err(format!("{count} ranges are more than {RANGES_MAX}"))
            }
            _ => Ok(Self(ranges)),
        }
    }
}

/// Ports as text, runs of them as ranges: `30000-30003,30007`.
pub fn ports_text(ports: impl IntoIterator<Item = u16>) -> String {
    let mut ports: Vec<u16> = ports.into_iter().collect();
    ports.sort_unstable();
    let runs = ports.chunk_by(|a, b| a.checked_add(1) == Some(*b));
    let runs: Vec<String> = runs
        .map(|run| match run {
            [first, .., last] => format!("{first}-{last}"),
            [one] => one.to_string(),
            [] => String::new(),
        })
        .collect();
    runs.join(",")
}

/// A range, ranges with commas between them, or a list of such.
pub(super) fn port_set(value: &Value<'_>) -> Result<PortSet, Wrong> {
    let Some(list) = value.get_ref().as_array() else {
        return one_set(value);
    };
    let mut ranges = Vec::new();
    for element in list.iter() {
        let set = one_set(element).map_err(|wrong| wrong.at(element.span()))?;
        ranges.extend(set.0);
    }
    PortSet::new(ranges).map_err(Wrong::new)
}

fn one_set(value: &Value<'_>) -> Result<PortSet, Wrong> {
    units::text(value, "50000-50999")?
        .parse()
        .map_err(Wrong::new)
}

/// `"even"`, weights, or a set of ports for each core.
pub(super) fn slices(value: &Value<'_>) -> Result<Slices, Wrong> {
    let list = match value.get_ref() {
        DeValue::String(word) if word == "even" => return Ok(Slices::Even),
        DeValue::Array(list) => list,
        _ => {
            return Err(units::wrong_type(
                value,
                "\"even\", a list of weights such as [2, 1], or a list of ranges, one for each core",
            ));
        }
    };
    let weights = list
        .iter()
        .any(|element| matches!(element.get_ref(), DeValue::Integer(_)));
    if weights {
        let weight = |element| units::number(element, 1, WEIGHT_MAX).map(|weight| weight as u32);
        let weights: Result<Vec<u32>, Wrong> = list
            .iter()
            .map(|element| weight(element).map_err(|wrong| wrong.at(element.span())))
            .collect();
        return weights.map(Slices::Weighted);
    }
    let mut sets: Vec<PortSet> = Vec::new();
    for element in list.iter() {
        let set = port_set(element).map_err(|wrong| wrong.at(element.span()))?;
        if let Some(port) = sets.iter().find_map(|other| other.meets(&set)) {
            let wrong = Wrong::new(format!("two cores cannot share port {port}"));
            return Err(wrong.at(element.span()));
        }
        sets.push(set);
    }
    match sets.is_empty() {
        true => Err(Wrong::new("no slice at all").hint("\"even\" gives each core as many")),
        false => Ok(Slices::Explicit(sets)),
    }
}

/// More ranges than this are a mistake; each is looked at when a port is added.
const RANGES_MAX: usize = 64;

/// Weights are proportions: more than this says nothing more.
const WEIGHT_MAX: u64 = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn set(text: &str) -> PortSet {
        text.parse().expect("ports")
    }

    #[test]
    fn ranges_are_one_set_in_their_order() {
        let ports = set("4000-4009, 2000-2009,3000");
        assert_eq!(ports.count(), 21);
        assert_eq!(ports.to_string(), "4000-4009,2000-2009,3000-3000");
        for (position, port) in [(0, 4000), (9, 4009), (10, 2000), (20, 3000)] {
            assert_eq!(ports.position(port), Some(position));
            assert_eq!(ports.nth(position), Some(port));
        }
        assert_eq!((ports.position(2010), ports.nth(21)), (None, None));
        assert_eq!(ports.meets(&set("2009-2500")), Some(2009));
        assert_eq!(ports.meets(&set("2010-2500")), None);
        assert!("2000-2010,2010-2020".parse::<PortSet>().is_err());
        assert!("".parse::<PortSet>().is_err());
    }

    #[test]
    fn ports_are_told_in_runs() {
        assert_eq!(ports_text([5, 3, 1, 2, 9, 8]), "1-3,5,8-9");
        assert_eq!(ports_text([65535, 65534]), "65534-65535");
        assert_eq!(ports_text([]), "");
    }

    #[test]
    fn slices_are_disjoint_and_together_the_whole() {
        for (ports, slices, cores) in [
            ("50000-50999", Slices::Even, 3),
            ("2000", Slices::Even, 1),
            ("1024-65535", Slices::Even, 64),
            ("2000-2001", Slices::Even, 3),
            ("2000-2009,3000-3003", Slices::Weighted(vec![3, 1, 1]), 3),
        ] {
            let ports = set(ports);
            let parts = ports.slices(&slices, cores);
            assert_eq!(parts.len(), cores);
            assert!(parts.concat().iter().copied().eq(ports.iter()));
            if slices == Slices::Even {
                let even = |part: &Vec<u16>| part.len().abs_diff(ports.count() / cores) <= 1;
                assert!(parts.iter().all(even), "{parts:?}");
            }
        }
        let parts = set("2000-2399").slices(&Slices::Weighted(vec![3, 1]), 2);
        assert_eq!((parts[0].len(), parts[1].len()), (300, 100));
        let explicit = Slices::Explicit(vec![set("2000-2001"), set("2002-2009")]);
        let parts = set("2000-2009").slices(&explicit, 2);
        assert_eq!((parts[0].len(), parts[1].len()), (2, 8));
    }
}
