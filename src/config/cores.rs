//! Which CPUs get a thread of their own.

use std::fmt;
use std::num::NonZeroUsize;
use std::str::FromStr;

use toml::de::DeValue;

use super::section::{Value, Wrong};
use super::units;

/// How many threads serve, and on which CPUs they are pinned: one thread per core.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Cores {
    /// Every CPU that the process may run on.
    All,
    /// This many threads on the first of the CPUs allowed.
    Count(NonZeroUsize),
    /// One thread on each of these CPUs.
    Set(CpuSet),
}

impl Cores {
    /// The CPU of each thread, given the CPUs the process may run on (sched_getaffinity(2)).
    ///
    /// A count larger than `allowed` begins again with the first CPU. An explicit set is taken as
    /// it is: `Config::check` has refused CPUs that are not allowed.
    pub fn cpus(&self, allowed: &[usize]) -> Vec<usize> {
        match self {
            Self::All => allowed.to_vec(),
            Self::Count(count) => allowed.iter().cycle().take(count.get()).copied().collect(),
            Self::Set(set) => set.cpus().to_vec(),
        }
    }
}

impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::All => f.write_str("all"),
            Self::Count(count) => write!(f, "{count}"),
            Self::Set(set) => write!(f, "{set}"),
        }
    }
}

impl FromStr for Cores {
    type Err = String;

    /// `all`, a count as in `4`, or a CPU set as in `0-3,6`. One CPU by itself is written `6-6`.
    fn from_str(text: &str) -> Result<Self, String> {
        let text = text.trim();
        if text == "all" {
            return Ok(Self::All);
        }
        match text.parse::<NonZeroUsize>() {
            Ok(count) if count.get() <= CPUS_MAX => Ok(Self::Count(count)),
            Ok(_) => Err(format!("{text} is more than {CPUS_MAX} cores")),
            Err(_) if text == "0" => Err("0 cores cannot serve; \"all\" takes every CPU".into()),
            Err(_) => text.parse().map(Self::Set),
        }
    }
}

/// A set of CPU numbers, ascending, without repetition; never empty.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct CpuSet(Vec<usize>);

impl CpuSet {
    /// The CPU numbers, ascending.
    pub fn cpus(&self) -> &[usize] {
        &self.0
    }
}

impl fmt::Display for CpuSet {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (index, run) in self.0.chunk_by(|a, b| a + 1 == *b).enumerate() {
            let comma = if index == 0 { "" } else { "," };
            match run {
                [one] if self.0.len() > 1 => write!(f, "{comma}{one}")?,
                [first, .., last] => write!(f, "{comma}{first}-{last}")?,
                [first] => write!(f, "{comma}{first}-{first}")?,
                [] => {}
            }
        }
        Ok(())
    }
}

impl FromStr for CpuSet {
    type Err = String;

    /// The kernel's list format (cpuset(7)): numbers and ranges, separated by commas.
    fn from_str(text: &str) -> Result<Self, String> {
        let malformed =
            || format!("{text:?} is neither \"all\", a count nor a CPU set like \"0-3,6\"");
        let mut cpus = Vec::new();
        for part in text.split(',') {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            let first: usize = first.trim().parse().map_err(|_| malformed())?;
            let last: usize = last.trim().parse().map_err(|_| malformed())?;
            if last < first {
                return Err(format!(
                    "{first}-{last} is upside down; write {last}-{first}"
                ));
            }
            if last >= CPUS_MAX {
                return Err(format!(
                    "CPU {last} does not exist: CPUs are 0 to {}",
                    CPUS_MAX - 1
                ));
            }
            cpus.extend(first..=last);
        }
        cpus.sort_unstable();
        if cpus.windows(2).any(|pair| pair[0] == pair[1]) {
            return Err(format!("{text:?} names a CPU twice"));
        }
        Ok(Self(cpus))
    }
}

pub(super) fn cores(value: &Value<'_>) -> Result<Cores, Wrong> {
    match value.get_ref() {
        DeValue::Integer(_) => {
            let count = units::number(value, 1, CPUS_MAX as u64)?;
            let count = usize::try_from(count).ok().and_then(NonZeroUsize::new);
            count
                .map(Cores::Count)
                .ok_or_else(|| Wrong::new("0 cores cannot serve"))
        }
        DeValue::String(text) => text.parse().map_err(Wrong::new),
        _ => Err(units::wrong_type(
            value,
            "\"all\", a count or a CPU set like \"0-3,6\"",
        )),
    }
}

/// CPUs are numbered below this: the size of glibc's cpu_set_t (CPU_SET(3)).
pub const CPUS_MAX: usize = 1024;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn cores_are_all_or_a_count_or_a_set() {
        let allowed = [0, 2, 4];
        for (text, cpus) in [
            ("all", Ok(vec![0, 2, 4])),
            ("2", Ok(vec![0, 2])),
            ("5", Ok(vec![0, 2, 4, 0, 2])),
            ("0-1,6", Ok(vec![0, 1, 6])),
            ("6-6", Ok(vec![6])),
            ("6, 1", Ok(vec![1, 6])),
            ("0", Err("cannot serve")),
            ("3-1", Err("upside down")),
            ("1,1", Err("twice")),
            ("0-99999", Err("does not exist")),
            ("2000", Err("more than")),
            ("some", Err("neither")),
            ("1,", Err("neither")),
            ("", Err("neither")),
        ] {
            match (text.parse::<Cores>(), cpus) {
                (Ok(cores), Ok(cpus)) => {
                    assert_eq!(cores.cpus(&allowed), cpus, "{text}");
                    assert_eq!(cores.to_string().parse(), Ok(cores), "{text}");
                }
                (Err(error), Err(part)) => assert!(error.contains(part), "{text}: {error}"),
                (found, _) => panic!("{text}: {found:?}"),
            }
        }
    }
}
