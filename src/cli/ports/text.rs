//! Numbers, ports and durations as an operator reads them, and lines no longer than wanted.

use std::fmt::Write;
use std::net::IpAddr;

use crate::data::report::{BUCKETS, Histogram};

/// A number of at most `width` characters: whole if it fits, else in thousands, millions and so on,
/// with as many decimals as fit.
pub(super) fn short(number: u64, width: usize) -> String {
    let whole = number.to_string();
    if whole.len() <= width {
        return whole;
    }
    let mut scaled = number as f64;
    for unit in ["k", "M", "G", "T", "P", "E"] {
        scaled /= 1000.0;
        if scaled >= 999.5 {
            continue;
        }
        for decimals in [2, 1, 0] {
            let text = format!("{scaled:.decimals$}{unit}");
            if text.len() <= width {
                return text;
            }
        }
    }
    whole
}

/// The share of `part` in `whole`, in percent; 0 if there is no whole.
pub(super) fn percent(part: u64, whole: u64) -> f64 {
    match whole {
        0 => 0.0,
        _ => part as f64 * 100.0 / whole as f64,
    }
}

/// A share in percent with a decimal where it matters: `0.4 %`, `12 %`.
pub(super) fn percent_text(percent: f64) -> String {
    match percent {
        p if p > 0.0 && p < 0.1 => "< 0.1 %".to_owned(),
        p if p > 0.0 && p < 9.95 => format!("{p:.1} %"),
        p => format!("{p:.0} %"),
    }
}

/// `3 d 4 h`: the two greatest units of a duration in seconds.
pub(super) fn age(seconds: u64) -> String {
    let units = [
        ("d", seconds / 86_400),
        ("h", seconds / 3600 % 24),
        ("min", seconds / 60 % 60),
        ("s", seconds % 60),
    ];
    let first = units.iter().position(|(_, n)| *n > 0).unwrap_or(3);
    let parts: Vec<String> = units[first..]
        .iter()
        .take(2)
        .filter(|(_, n)| *n > 0)
        .map(|(unit, n)| format!("{n} {unit}"))
        .collect();
    match parts.is_empty() {
        true => "0 s".to_owned(),
        false => parts.join(" "),
    }
}

/// A duration in milliseconds: `0.42 ms`, `12.3 ms`, `512 ms`, `1.5 s`, `30 s`.
pub(super) fn milliseconds(ms: f64) -> String {
    match ms {
        ms if ms < 1.0 => format!("{ms:.2} ms"),
        ms if ms < 99.95 => format!("{} ms", trimmed(ms)),
        ms if ms < 1000.0 => format!("{ms:.0} ms"),
        ms => format!("{} s", trimmed(ms / 1000.0)),
    }
}

/// One decimal, unless it is 0.
pub(super) fn trimmed(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").unwrap_or(&text).to_owned()
}

/// Where a quantile of a histogram lies: below the end of its bucket, or beyond the last but one.
pub(super) fn quantile(histogram: &Histogram, quantile: f64) -> String {
    match histogram.quantile_ms(quantile) {
        None => "-".to_owned(),
        Some(end) if end >> (BUCKETS - 1) > 0 => {
            format!(">= {}", milliseconds((1_u64 << (BUCKETS - 2)) as f64))
        }
        Some(end) => format!("< {}", milliseconds(end as f64)),
    }
}

/// Ports with runs of neighbours compressed: `30012, 30040-30044`.
pub(super) fn ports(ports: &[u16]) -> String {
    let runs: Vec<String> = runs(ports)
        .iter()
        .map(|(first, last)| match first == last {
            true => first.to_string(),
            false => format!("{first}-{last}"),
        })
        .collect();
    runs.join(", ")
}

/// The runs of neighbours among ports in any order.
pub(super) fn runs(ports: &[u16]) -> Vec<(u16, u16)> {
    let mut ports = ports.to_vec();
    ports.sort_unstable();
    let mut runs: Vec<(u16, u16)> = Vec::new();
    for port in ports {
        match runs.last_mut() {
            Some((_, last)) if port - *last <= 1 => *last = port,
            _ => runs.push((port, port)),
        }
    }
    runs
}

/// Clients with how many reservations each has.
pub(super) fn clients(clients: &[(IpAddr, usize)]) -> String {
    let texts: Vec<String> = clients
        .iter()
        .map(|(address, pending)| format!("{address} ({pending})"))
        .collect();
    texts.join(", ")
}

/// `1 port`, `2 ports`.
pub(super) fn counted(count: u64, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}

/// `text` after `label`, broken at blanks so that no line is longer than `width`; what follows the
/// first line begins below the text.
pub(super) fn paragraph(label: &str, text: &str, width: usize) -> String {
    let indent = label.chars().count();
    let mut out = label.to_owned();
    let mut column = indent;
    for (index, word) in text.split(' ').enumerate() {
        let length = word.chars().count();
        if index > 0 && column + 1 + length > width {
            let _ = write!(out, "\n{:indent$}", "");
            column = indent;
        } else if index > 0 {
            out.push(' ');
            column += 1;
        }
        out.push_str(word);
        column += length;
    }
    let lines: Vec<&str> = out.lines().map(str::trim_end).collect();
    lines.join("\n") + "\n"
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn numbers_fit_their_column() {
        for (number, width, text) in [
            (0, 4, "0"),
            (9999, 4, "9999"),
            (10_000, 4, "10k"),
            (12_345, 5, "12345"),
            (123_456, 5, "123k"),
            (999_999, 4, "1.0M"),
            (999_999, 6, "999999"),
            (1_234_567, 6, "1.23M"),
            (1_234_567, 4, "1.2M"),
            (987_654_321, 6, "987.7M"),
            (u64::MAX, 6, "18.45E"),
        ] {
            let found = short(number, width);
            assert!(found.len() <= width, "{found}");
            assert_eq!(found, text);
        }
    }

    #[test]
    fn neighbours_are_compressed() {
        for (list, text) in [
            (&[][..], ""),
            (&[5], "5"),
            (&[7, 5, 6], "5-7"),
            (
                &[30012, 30040, 30041, 30042, 65535],
                "30012, 30040-30042, 65535",
            ),
            (&[5, 5, 6], "5-6"),
        ] {
            assert_eq!(ports(list), text);
        }
    }

    #[test]
    fn durations_are_told_in_two_units() {
        for (seconds, text) in [
            (0, "0 s"),
            (59, "59 s"),
            (60, "1 min"),
            (3661, "1 h 1 min"),
            (273_600, "3 d 4 h"),
            (86_460, "1 d"),
        ] {
            assert_eq!(age(seconds), text);
        }
        for (ms, text) in [
            (0.421, "0.42 ms"),
            (12.0, "12 ms"),
            (12.34, "12.3 ms"),
            (512.4, "512 ms"),
            (1500.0, "1.5 s"),
            (30_000.0, "30 s"),
        ] {
            assert_eq!(milliseconds(ms), text);
        }
    }

    #[test]
    fn shares_have_a_decimal_where_it_matters() {
        for (share, text) in [
            (0.0, "0 %"),
            (0.01, "< 0.1 %"),
            (0.44, "0.4 %"),
            (9.96, "10 %"),
            (100.0, "100 %"),
        ] {
            assert_eq!(percent_text(share), text);
        }
        assert_eq!(percent(1, 0), 0.0);
    }

    #[test]
    fn quantiles_are_told_by_the_end_of_their_bucket() {
        let mut waits = Histogram::default();
        assert_eq!(quantile(&waits, 0.5), "-");
        waits.buckets[4] = 99;
        assert_eq!(quantile(&waits, 0.5), "< 16 ms");
        waits.buckets[16] = 99;
        assert_eq!(quantile(&waits, 0.99), ">= 32.8 s");
    }

    #[test]
    fn paragraphs_keep_to_their_width() {
        let text = paragraph("    a  ", "one two three four", 16);
        assert_eq!(text, "    a  one two\n       three\n       four\n");
        assert_eq!(paragraph("a ", "wider-than-all", 8), "a wider-than-all\n");
    }
}
