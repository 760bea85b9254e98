//! Values with units and words: durations, sizes, switches, choices, paths.

use std::num::NonZeroU64;
use std::path::{Path, PathBuf};
use std::time::Duration;

use toml::de::DeValue;

use super::keys;
use super::section::{Value, Wrong};

/// `true` or `false`.
pub(crate) fn switch(value: &Value<'_>) -> Result<bool, Wrong> {
    value
        .get_ref()
        .as_bool()
        .ok_or_else(|| wrong_type(value, "true or false"))
}

/// A string.
pub(crate) fn text<'v>(value: &'v Value<'_>, example: &str) -> Result<&'v str, Wrong> {
    value
        .get_ref()
        .as_str()
        .ok_or_else(|| wrong_type(value, &format!("a string, such as {example:?}")))
}

/// A whole number within bounds.
pub(crate) fn number(value: &Value<'_>, min: u64, max: u64) -> Result<u64, Wrong> {
    let DeValue::Integer(integer) = value.get_ref() else {
        return Err(wrong_type(
            value,
            &format!("a whole number from {min} to {max}"),
        ));
    };
    match i128::from_str_radix(integer.as_str(), integer.radix()) {
        Ok(number) if (i128::from(min)..=i128::from(max)).contains(&number) => {
            u64::try_from(number).map_err(|_| Wrong::new("too large"))
        }
        _ => Err(Wrong::new(format!(
            "{} is not from {min} to {max}",
            integer.as_str()
        ))),
    }
}

/// A duration with its unit, from `min` to [`DURATION_MAX`].
pub(crate) fn duration(value: &Value<'_>, min: Duration) -> Result<Duration, Wrong> {
    let text = text(value, "30 s")?;
    let parsed = parse_duration(text)?;
    if parsed < min {
        return Err(Wrong::new(format!("{text} is too short"))
            .hint(format!("at least {}", duration_text(min))));
    }
    Ok(parsed)
}

/// A size in bytes with its unit.
pub(crate) fn size(value: &Value<'_>) -> Result<u64, Wrong> {
    parse_size(text(value, "4 KiB")?)
}

/// Bytes per second, such as "10 MiB/s"; "0": no limit.
pub(crate) fn rate(value: &Value<'_>) -> Result<Option<NonZeroU64>, Wrong> {
    parse_rate(text(value, "10 MiB/s")?).map(NonZeroU64::new)
}

/// One of a few words.
pub(crate) fn choice<T: Copy>(value: &Value<'_>, choices: &[(&str, T)]) -> Result<T, Wrong> {
    let names: Vec<&str> = choices.iter().map(|(name, _)| *name).collect();
    let word = text(value, names[0])?;
    if let Some((_, choice)) = choices.iter().find(|(name, _)| *name == word) {
        return Ok(*choice);
    }
    let quoted: Vec<String> = names.iter().map(|name| format!("{name:?}")).collect();
    let wrong = Wrong::new(format!("{word:?} is not one of {}", quoted.join(", ")));
    let near = names
        .iter()
        .find(|name| name.replace('-', "_") == word.to_lowercase());
    match near.copied().or_else(|| keys::nearest(word, &names)) {
        Some(name) => Err(wrong.hint(format!("did you mean {name:?}?"))),
        None => Err(wrong),
    }
}

/// A path that means the same wherever the server is started.
pub(crate) fn absolute_path(value: &Value<'_>) -> Result<PathBuf, Wrong> {
    let path = text(value, "/srv/ftp")?;
    if path.contains('\0') {
        return Err(Wrong::new("a path cannot hold a NUL byte"));
    }
    if !Path::new(path).is_absolute() {
        return Err(Wrong::new(format!("{path:?} is not an absolute path"))
            .hint("start it with /: a relative path would depend on where the server is started"));
    }
    Ok(PathBuf::from(path))
}

/// A value of the wrong TOML type.
pub(crate) fn wrong_type(value: &Value<'_>, expected: &str) -> Wrong {
    let found = match value.get_ref().type_str() {
        "integer" => "a whole number",
        "array" => "a list",
        "boolean" => "true or false",
        "float" => "a fraction",
        "table" => "a section",
        "datetime" => "a date",
        other => other,
    };
    let found = if found == "string" { "a string" } else { found };
    Wrong::new(format!("expected {expected}, found {found}"))
}

/// `30 s`, `500 ms`, `5 min`, `1 h`, `2 d`.
pub(crate) fn parse_duration(text: &str) -> Result<Duration, Wrong> {
    let (number, unit) = split(text);
    let (Ok(number), Some((_, milliseconds))) = (
        number.parse::<u64>(),
        DURATION_UNITS.iter().find(|(name, _)| *name == unit),
    ) else {
        return Err(Wrong::new(format!("{text:?} is not a duration"))
            .hint("a whole number and ms, s, min, h or d, such as \"30 s\" or \"5 min\""));
    };
    number
        .checked_mul(*milliseconds)
        .map(Duration::from_millis)
        .filter(|duration| *duration <= DURATION_MAX)
        .ok_or_else(|| {
            Wrong::new(format!("{text} is too long"))
                .hint(format!("at most {}", duration_text(DURATION_MAX)))
        })
}

/// `4096 B`, `4 KiB`, `10 MiB`, `1 GiB`, and `kB`, `MB`, `GB` of 1000.
fn parse_size(text: &str) -> Result<u64, Wrong> {
    let (number, unit) = split(text);
    let (Ok(number), Some((_, bytes))) = (
        number.parse::<u64>(),
        SIZE_UNITS.iter().find(|(name, _)| *name == unit),
    ) else {
        return Err(Wrong::new(format!("{text:?} is not a size"))
            .hint("a whole number and B, KiB, MiB or GiB, such as \"4 KiB\""));
    };
    number
        .checked_mul(*bytes)
        .ok_or_else(|| Wrong::new(format!("{text} is too large")))
}

/// `10 MiB/s`, `500 kB/s`, `100 Mbit/s`, in bytes per second; `0` alone needs no unit.
fn parse_rate(text: &str) -> Result<u64, Wrong> {
    let malformed = || {
        Wrong::new(format!("{text:?} is not a rate"))
            .hint("such as \"10 MiB/s\", \"500 kB/s\" or \"100 Mbit/s\"; \"0\" is no limit")
    };
    if text.trim() == "0" {
        return Ok(0);
    }
    let amount = text.trim().strip_suffix("/s").ok_or_else(malformed)?;
    let (number, unit) = split(amount);
    let number: u64 = number.parse().map_err(|_| malformed())?;
    let bits = BIT_UNITS.iter().find(|(name, _)| *name == unit);
    let bytes = SIZE_UNITS.iter().find(|(name, _)| *name == unit);
    let rate = match (bits, bytes) {
        // Less than a byte is not no limit.
        (Some((_, bits)), _) => number.checked_mul(*bits).map(|bits| bits.div_ceil(8)),
        (_, Some((_, bytes))) => number.checked_mul(*bytes),
        _ => return Err(malformed()),
    };
    rate.filter(|rate| *rate <= RATE_MAX)
        .ok_or_else(|| Wrong::new(format!("{text} is too fast")).hint("\"0\" is no limit"))
}

/// The number and the unit after it, with or without a blank between.
fn split(text: &str) -> (&str, &str) {
    let text = text.trim();
    let end = text
        .find(|c: char| !c.is_ascii_digit())
        .unwrap_or(text.len());
    (&text[..end], text[end..].trim_start())
}

/// A duration as a configuration would write it: in the largest unit that is exact.
pub fn duration_text(duration: Duration) -> String {
    let milliseconds = duration.as_millis();
    let (unit, factor) = DURATION_UNITS
        .iter()
        .rev()
        .find(|(_, factor)| milliseconds.is_multiple_of(u128::from(*factor)))
        .copied()
        .unwrap_or(DURATION_UNITS[0]);
    match milliseconds {
        0 => "0 s".to_owned(),
        _ => format!("{} {unit}", milliseconds / u128::from(factor)),
    }
}

const DURATION_UNITS: [(&str, u64); 5] = [
    ("ms", 1),
    ("s", 1000),
    ("min", 60_000),
    ("h", 3_600_000),
    ("d", 86_400_000),
];
const SIZE_UNITS: [(&str, u64); 9] = [
    ("B", 1),
    ("KiB", 1 << 10),
    ("MiB", 1 << 20),
    ("GiB", 1 << 30),
    ("TiB", 1 << 40),
    ("kB", 1000),
    ("MB", 1_000_000),
    ("TB", 1_000_000_000_000),
    ("GB", 1_000_000_000),
];

const BIT_UNITS: [(&str, u64); 4] = [
    ("bit", 1),
    ("kbit", 1000),
    ("Mbit", 1_000_000),
    ("Gbit", 1_000_000_000),
];

/// More than any network card moves, and far from where arithmetic with it would overflow.
const RATE_MAX: u64 = 1 << 40;

/// Longer waits mean "for ever"; that a deadline never overflows a clock also rests on it.
pub(crate) const DURATION_MAX: Duration = Duration::from_secs(7 * 24 * 3600);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn durations_have_units() {
        for (text, milliseconds) in [
            ("30 s", Some(30_000)),
            ("30s", Some(30_000)),
            ("5 min", Some(300_000)),
            ("1 h", Some(3_600_000)),
            ("7 d", Some(604_800_000)),
            ("250 ms", Some(250)),
            ("0 s", Some(0)),
            ("8 d", None),
            ("30", None),
            ("-1 s", None),
            ("1.5 s", None),
            ("5 minutes", None),
            ("99999999999999999999 s", None),
            ("18446744073709551615 d", None),
            ("", None),
        ] {
            let parsed = parse_duration(text).ok();
            assert_eq!(parsed, milliseconds.map(Duration::from_millis), "{text}");
        }
    }

    #[test]
    fn sizes_have_units() {
        for (text, bytes) in [
            ("4 KiB", Some(4096)),
            ("4096B", Some(4096)),
            ("10 MiB", Some(10 << 20)),
            ("1 GB", Some(1_000_000_000)),
            ("4K", None),
            ("4096", None),
            ("99999999999 GiB", None),
        ] {
            assert_eq!(parse_size(text).ok(), bytes, "{text}");
        }
    }

    #[test]
    fn rates_are_sizes_or_bits_per_second() {
        for (text, rate) in [
            ("10 MiB/s", Some(10 << 20)),
            ("500kB/s", Some(500_000)),
            ("1 B/s", Some(1)),
            ("100 Mbit/s", Some(12_500_000)),
            ("1 bit/s", Some(1)),
            ("0", Some(0)),
            ("0 B/s", Some(0)),
            ("10 MiB", None),
            ("10", None),
            ("-1 B/s", None),
            ("1.5 MiB/s", None),
            ("10 MiB/min", None),
            ("2 TiB/s", None),
            ("18446744073709551615 GiB/s", None),
            ("/s", None),
        ] {
            assert_eq!(parse_rate(text).ok(), rate, "{text}");
        }
    }

    #[test]
    fn durations_are_told_in_their_largest_exact_unit() {
        for (milliseconds, text) in [
            (0, "0 s"),
            (1, "1 ms"),
            (1500, "1500 ms"),
            (30_000, "30 s"),
            (90_000, "90 s"),
        ] {
            assert_eq!(duration_text(Duration::from_millis(milliseconds)), text);
        }
    }
}
