//! `ringftpd ports --plan`: words about the load in, the number of ports out, with the arithmetic.

use std::fmt::Write;
use std::time::Duration;

use crate::cli::Failure;
use crate::config::{PeerCheck, nearest_word};
use crate::data::sizing::{FOR_REUSE_MAX, Load, PORTS_MAX, STRAY, Sizing};

/// The plan for `rate=200 rtt=80ms …`.
pub(super) fn text(words: &[String]) -> Result<String, Failure> {
    let (load, clients) = parse(words).map_err(|error| {
        let hint = "'ringftpd ports --help' tells the keys";
        Failure::usage(format!("ringftpd ports --plan: {error}\n  hint: {hint}"))
    })?;
    let sizing = load.sizing().ok_or_else(|| {
        Failure::usage(format!(
            "ringftpd ports --plan: this load would take more than {PORTS_MAX} ports on each core: \
             lower data.accept_timeout, or serve it with more cores or hosts"
        ))
    })?;
    Ok(told(&load, &sizing, clients))
}

/// The load, and the number of clients if it was told.
fn parse(words: &[String]) -> Result<(Load, Option<f64>), String> {
    let mut rate = None;
    let mut clients = None;
    let mut busiest = None;
    let mut load = Load {
        rate: 0.0,
        rtt: Duration::from_millis(100),
        think: Duration::ZERO,
        abandoned: 0.05,
        timeout: Duration::from_secs(30),
        cores: 1,
        busiest: 1.0,
        exclusive: false,
        per_client_max: 64,
        loss: 1e-6,
    };
    for word in words {
        let (key, value) = word
            .split_once('=')
            .ok_or_else(|| format!("{word:?} is not KEY=VALUE, such as rate=200"))?;
        let wrong = |expected: &str| format!("{word:?}: {expected} is expected");
        let number = || positive(value).ok_or_else(|| wrong("a number above 0"));
        let part = || share(value).ok_or_else(|| wrong("a share such as 5% or 0.05"));
        let time = || duration(value).ok_or_else(|| wrong("a time such as 80ms or 30s"));
        match key {
            "rate" => rate = Some(number()?),
            "rtt" => load.rtt = time()?,
            "think" => load.think = time()?,
            "abandoned" => load.abandoned = part()?,
            "timeout" => load.timeout = time()?,
            "cores" => load.cores = count(value).ok_or_else(|| wrong("a count from 1 on"))?,
            "clients" => clients = Some(number()?.max(1.0)),
            "busiest" => busiest = Some(part()?),
            "cap" => {
                load.per_client_max = count(value).ok_or_else(|| wrong("a count from 1 on"))?
            }
            "loss" => {
                load.loss = part()?;
                if load.loss <= 0.0 {
                    return Err(wrong("a share above 0"));
                }
            }
            "peer" => {
                let checks = [PeerCheck::Strict, PeerCheck::Subnet, PeerCheck::Off];
                let check = checks.into_iter().find(|check| check.name() == value);
                let check = check.ok_or_else(|| wrong("strict, subnet or off"))?;
                load.exclusive = check != PeerCheck::Strict;
            }
            _ => return Err(unknown(key)),
        }
    }
    load.rate = rate.ok_or("rate= is needed: PASV and EPSV a second, on all cores together")?;
    load.busiest = busiest
        .or_else(|| clients.map(|clients| 1.0 / clients))
        .unwrap_or(1.0);
    Ok((load, clients))
}

fn unknown(key: &str) -> String {
    match nearest_word(key, &KEYS) {
        Some(meant) => format!("there is no {key:?}; did you mean {meant}=?"),
        None => format!("there is no {key:?}; the keys are {}", KEYS.join(", ")),
    }
}

fn told(load: &Load, sizing: &Sizing, clients: Option<f64>) -> String {
    let mut lines = pending_lines(load, sizing);
    lines.push(competing_line(load, sizing, clients));
    lines.push(format!(
        "for the load      Erlang B({}, {:.3}) = {:.1e}, no more than loss = {:.1e}: {} ports per core",
        sizing.for_load, sizing.competing, sizing.refused, load.loss, sizing.for_load
    ));
    let stray = STRAY.as_secs();
    lines.push(format!(
        "for late clients  a connection given up may come {stray} s later; until a port is told \
         again:\n{INDENT}{:.1}/s x {stray} s = {} ports per core (beyond {FOR_REUSE_MAX} not asked \
         for)",
        load.rate / load.cores as f64,
        sizing.for_reuse
    ));
    lines.push(format!(
        "so                {} ports per core, {} in all; each is told again after {:.1} s",
        sizing.per_core, sizing.total, sizing.reuse_after
    ));
    if sizing.per_client_needed > load.per_client_max {
        lines.push(format!(
            "cap               one address holds {:.2} ports of a core in the mean and needs {}: more \
             than cap = {}",
            sizing.pending_of_busiest, sizing.per_client_needed, load.per_client_max
        ));
    }
    lines.join("\n") + "\n" + &recommendation(load, sizing)
}

/// From the load to the ports that are pending on one core.
fn pending_lines(load: &Load, sizing: &Sizing) -> Vec<String> {
    let (rtt, think) = (millis(load.rtt), millis(load.think));
    let (timeout, percent) = (load.timeout.as_secs_f64(), 100.0 * load.abandoned);
    let abandoned = load.rate * timeout * load.abandoned / sizing.pending.max(f64::MIN_POSITIVE);
    vec![
        format!(
            "wait of a port    T = 2 x rtt + think = 2 x {rtt} ms + {think} ms = {:.0} ms",
            1000.0 * sizing.wait
        ),
        format!(
            "ports pending     L = rate x (T x (1 - r) + timeout x r)\n\
             {INDENT}  = {} x ({:.3} s x {:.3} + {timeout} s x {:.3}) = {:.1}, {:.0} % of it abandoned \
             ones ({percent} % of all)",
            load.rate,
            sizing.wait,
            1.0 - load.abandoned,
            load.abandoned,
            sizing.pending,
            100.0 * abandoned,
        ),
        format!(
            "on each core      {:.1} / {} = {:.2}",
            sizing.pending, load.cores, sizing.pending_per_core
        ),
    ]
}

/// Which of the pending ones are in each other's way.
fn competing_line(load: &Load, sizing: &Sizing, clients: Option<f64>) -> String {
    if load.exclusive {
        return format!(
            "peer_check off    a port waits for one client, so all {:.2} compete",
            sizing.competing
        );
    }
    let source = match clients {
        Some(clients) if (load.busiest - 1.0 / clients).abs() < 1e-9 => {
            format!("{clients} addresses, each as busy as the others")
        }
        _ if load.busiest >= 1.0 => {
            "all from one address: the worst case; say clients= or busiest=".to_owned()
        }
        _ => "the busiest address".to_owned(),
    };
    format!(
        "peer_check strict a port waits for many addresses, so only those of one address compete:\n\
         {INDENT}{:.2} x {:.3} % = {:.3} ({source})",
        sizing.pending_per_core,
        100.0 * load.busiest,
        sizing.competing
    )
}

fn recommendation(load: &Load, sizing: &Sizing) -> String {
    let mut out = String::from("\n[data]\n");
    if sizing.total > PORTS_MAX {
        return format!(
            "\n{} ports are more than the {PORTS_MAX} there are: lower data.accept_timeout ({} s), or \
             share the load among hosts.\n",
            sizing.total,
            load.timeout.as_secs_f64()
        );
    }
    // Below the ports of outgoing connections (32768 and up, ip(7)), if there is room.
    let first = match BELOW_EPHEMERAL.checked_sub(sizing.total) {
        Some(first) => first.clamp(1024, DEFAULT_FIRST),
        None => 1024,
    };
    let last = first + sizing.total - 1;
    let _ = writeln!(out, "passive_ports = \"{first}-{last}\"");
    if sizing.per_client_needed > load.per_client_max {
        let _ = writeln!(out, "ports_per_client = {}", sizing.per_client_needed);
    }
    let _ = writeln!(
        out,
        "\nThey take {} descriptors for each address that is listened on (LimitNOFILE=).",
        sizing.total
    );
    if last >= BELOW_EPHEMERAL {
        let _ = writeln!(
            out,
            "They meet the ports of outgoing connections: sysctl -w \
             net.ipv4.ip_local_reserved_ports={first}-{last}"
        );
    }
    out
}

fn millis(duration: Duration) -> f64 {
    1000.0 * duration.as_secs_f64()
}

fn positive(text: &str) -> Option<f64> {
    let number: f64 = text.parse().ok()?;
    (number > 0.0 && number <= 1e9).then_some(number)
}

fn count(text: &str) -> Option<usize> {
    text.parse()
        .ok()
        .filter(|count| (1..=65_535).contains(count))
}

/// `5%` or `0.05`.
fn share(text: &str) -> Option<f64> {
    let share = match text.strip_suffix('%') {
        Some(percent) => percent.trim().parse::<f64>().ok()? / 100.0,
        None => text.parse().ok()?,
    };
    (0.0..=1.0).contains(&share).then_some(share)
}

/// `80ms`, `0.5s`, `30 s`, `2min`.
fn duration(text: &str) -> Option<Duration> {
    let unit = text.find(|c: char| c.is_ascii_alphabetic())?;
    let (number, unit) = text.split_at(unit);
    let number: f64 = number.trim().parse().ok()?;
    let seconds = match unit {
        "ms" => number / 1000.0,
        "s" => number,
        "min" => number * 60.0,
        _ => return None,
    };
    (0.0..=86_400.0)
        .contains(&seconds)
        .then(|| Duration::from_secs_f64(seconds))
}

/// Below the words at the beginning of a line.
const INDENT: &str = "                  ";

const KEYS: [&str; 11] = [
    "rate",
    "rtt",
    "think",
    "abandoned",
    "timeout",
    "cores",
    "clients",
    "busiest",
    "peer",
    "cap",
    "loss",
];

/// ip(7): ip_local_port_range begins here unless it was changed.
const BELOW_EPHEMERAL: usize = 32_768;

/// Where the default range begins.
const DEFAULT_FIRST: usize = 30_000;

#[cfg(test)]
mod tests {
    use super::*;

    fn plan(words: &str) -> Result<String, Failure> {
        let words: Vec<String> = words.split_whitespace().map(str::to_owned).collect();
        text(&words)
    }

    #[test]
    fn a_plan_shows_its_arithmetic() {
        let told = plan("rate=200 rtt=80ms abandoned=5% cores=4 peer=off").expect("a plan");
        for part in [
            "T = 2 x rtt + think = 2 x 80 ms + 0 ms = 160 ms",
            "= 200 x (0.160 s x 0.950 + 30 s x 0.050) = 330.4, 91 % of it",
            "330.4 / 4 = 82.60",
            "all 82.60 compete",
            "50.0/s x 7 s = 350 ports per core",
            "350 ports per core, 1400 in all",
            "passive_ports = \"30000-31399\"",
        ] {
            assert!(told.contains(part), "no {part:?} in\n{told}");
        }
        let told = plan("rate=20 clients=500 cores=2").expect("a plan");
        assert!(told.contains("500 addresses, each as busy"), "{told}");
        assert!(told.contains("per core, 140 in all"), "{told}");
        let told = plan("rate=50 busiest=80% cores=1").expect("a plan");
        assert!(told.contains("ports_per_client = "), "{told}");
        let told =
            plan("rate=9000 cores=2 abandoned=20% clients=9000 peer=subnet").expect("a plan");
        assert!(told.contains("ip_local_reserved_ports="), "{told}");
    }

    #[test]
    fn a_word_that_is_wrong_is_named() {
        for (words, part) in [
            ("rtt=80ms", "rate= is needed"),
            ("rate", "is not KEY=VALUE"),
            ("rate=0", "a number above 0"),
            ("rate=1 abandoned=120%", "a share such as"),
            ("rate=1 rtt=80", "a time such as"),
            ("rate=1 core=4", "did you mean cores=?"),
            ("rate=1 colour=4", "the keys are rate, rtt"),
            ("rate=1 peer=all", "strict, subnet or off"),
            ("rate=1 loss=0", "a share above 0"),
            ("rate=1 cores=0", "a count from 1 on"),
            ("rate=90000000 abandoned=50%", "more than 64512 ports"),
        ] {
            let failure = plan(words).expect_err(words);
            assert!(failure.text.contains(part), "{words}: {}", failure.text);
        }
    }
}
