//! What could be better about the passive ports of a running server, in words, with the arithmetic.

use std::fmt::Write;

use super::table::all_waits;
use crate::config::ports_text;
use crate::data::report::{CoreReport, PoolReport, RangeReport, Report};
use crate::data::sizing::servers_for;

/// All advice there is, or that there is none.
pub(super) fn text(report: &Report) -> String {
    let figures = Figures::of(report);
    let mut out = figures.text(report);
    let advice: Vec<String> = RULES
        .iter()
        .filter_map(|rule| rule(report, &figures))
        .collect();
    if advice.is_empty() {
        let verdict = match figures.is_telling() {
            true => "Nothing to change: no client was refused, and every core has room.",
            false => "Nothing to say yet: too few clients have come to judge by. Ask again later.",
        };
        let _ = writeln!(out, "\n{verdict}");
    }
    for (number, advice) in (1..).zip(advice) {
        let _ = writeln!(out, "\n{number}. {advice}");
    }
    out
}

/// A rule looks at the figures and says something, or nothing.
type Rule = fn(&Report, &Figures) -> Option<String>;

const RULES: &[Rule] = &[
    dry,
    client_limit,
    abandoned_dominate,
    waits_near_timeout,
    stale,
    uneven,
    strangers,
    unavailable,
    much_too_many,
    address_unknown,
    source_port,
    active_fails,
];

/// Sums and shares that several rules need.
#[derive(Debug)]
struct Figures {
    ports: usize,
    handed_out: u64,
    abandoned: u64,
    high_water: usize,
    /// The busiest second of PASV and EPSV, summed over the cores.
    peak: f64,
    /// r: the share of reservations abandoned.
    share: f64,
    /// T: the mean wait of the others, in seconds.
    wait: f64,
    /// t: the timeout, in seconds.
    timeout: f64,
    /// L at the busiest second.
    pending: f64,
}

impl Figures {
    fn of(report: &Report) -> Self {
        let sum = |figure: fn(&RangeReport) -> u64| ranges(report).map(figure).sum::<u64>();
        let handed_out = sum(|range| range.handed_out);
        let abandoned = sum(|range| range.abandoned);
        let peak = pools(report).map(|(_, pool)| pool.pasv.peak_second + pool.epsv.peak_second);
        let peak = peak.sum::<u64>() as f64;
        let share = abandoned as f64 / handed_out.max(1) as f64;
        let wait = all_waits(report).mean_ms().unwrap_or(0.0) / 1000.0;
        let timeout = report.settings.accept_timeout_ms as f64 / 1000.0;
        Self {
            ports: ranges(report).map(|range| range.ports).sum(),
            handed_out,
            abandoned,
            high_water: ranges(report).map(|range| range.high_water).sum(),
            peak,
            share,
            wait,
            timeout,
            pending: peak * (wait * (1.0 - share) + timeout * share),
        }
    }

    fn is_telling(&self) -> bool {
        self.handed_out >= TELLING
    }

    fn text(&self, report: &Report) -> String {
        format!(
            "{} ports on {} cores; {} handed out, {} abandoned (r = {:.1} %), at most {} pending.\n\
             In the busiest second {:.0} were asked for: L = rate x (T x (1 - r) + timeout x r)\n\
             \x20 = {:.0} x ({:.3} s x {:.3} + {} s x {:.3}) = {:.1} ports pending in the mean, if it \
             lasted.\n",
            self.ports,
            report.cores.len(),
            self.handed_out,
            self.abandoned,
            100.0 * self.share,
            self.high_water,
            self.peak,
            self.peak,
            self.wait,
            1.0 - self.share,
            self.timeout,
            self.share,
            self.pending,
        )
    }
}

fn pools(report: &Report) -> impl Iterator<Item = (&CoreReport, &PoolReport)> {
    let cores = report.cores.iter();
    cores.flat_map(|core| core.pools.iter().map(move |pool| (core, pool)))
}

fn ranges(report: &Report) -> impl Iterator<Item = &RangeReport> {
    pools(report).flat_map(|(_, pool)| &pool.ranges)
}

fn dry(report: &Report, figures: &Figures) -> Option<String> {
    let refused: u64 = pools(report).map(|(_, pool)| pool.refusals.dry).sum();
    if refused == 0 {
        return None;
    }
    let cores = report.cores.len().max(1);
    // Whoever was refused was one of few addresses, or ports are exclusive: then all compete.
    let needed = servers_for(figures.pending / cores as f64, LOSS)? * cores;
    let wanted = needed.max(figures.ports + figures.ports / 2);
    let shared = match report.settings.peer_check.as_str() {
        "strict" => {
            " With peer_check = \"strict\" a port is dry only for a client that waits on all of them \
             already: few addresses hold very many ports, see the last line of 'ringftpd ports'."
        }
        _ => "",
    };
    Some(format!(
        "Add ports: {refused} PASV or EPSV found none (425). {:.1} pending in the busiest second, on \
         {cores} cores, take {needed} ports so that no more than one in a million is refused \
         (Erlang B); you have {}. Widen data.passive_ports to {wanted}, in the firewall too.{shared}",
        figures.pending, figures.ports
    ))
}

fn client_limit(report: &Report, _: &Figures) -> Option<String> {
    let refused: u64 = pools(report)
        .map(|(_, pool)| pool.refusals.client_limit)
        .sum();
    if refused == 0 {
        return None;
    }
    let cap = report.settings.ports_per_client;
    let top = pools(report).flat_map(|(_, pool)| &pool.top_clients);
    let top = top.max_by_key(|(_, held)| *held);
    let who = match top {
        Some((client, held)) => format!(" At the moment {client} holds most, {held} on one core."),
        None => String::new(),
    };
    Some(format!(
        "Look who asks: {refused} PASV or EPSV were refused because their address held {cap} ports of \
         a core already (data.ports_per_client).{who} If that is a network of many users behind one \
         address, double it to {}; if it is one host that asks and never connects, leave it: the \
         limit keeps it from the others.",
        2 * cap
    ))
}

fn abandoned_dominate(report: &Report, figures: &Figures) -> Option<String> {
    let lost = figures.timeout * figures.share;
    let used = figures.wait * (1.0 - figures.share);
    let p99 = all_waits(report).quantile_ms(0.99)? as f64 / 1000.0;
    // Four times what all but one in a hundred need, and never less than a lost SYN takes.
    let better = (4.0 * p99).ceil().max(TIMEOUT_MIN);
    if !figures.is_telling() || lost < used || better >= figures.timeout || figures.pending < 1.0 {
        return None;
    }
    let after = figures.peak * (used + better * figures.share);
    Some(format!(
        "Lower data.accept_timeout from {} s to {better} s: abandoned ports make {:.0} % of those \
         pending (timeout x r = {:.3} s against T x (1 - r) = {:.3} s), and 99 % of the clients that \
         come do so within {p99:.3} s. Pending in the busiest second: {after:.1} instead of {:.1}.",
        figures.timeout,
        100.0 * lost / (lost + used),
        lost,
        used,
        figures.pending,
    ))
}

fn waits_near_timeout(report: &Report, figures: &Figures) -> Option<String> {
    let p99 = all_waits(report).quantile_ms(0.99)? as f64 / 1000.0;
    (figures.is_telling() && p99 > figures.timeout / 2.0).then(|| {
        format!(
            "Raise data.accept_timeout from {} s to {} s: one client in a hundred takes {p99} s to \
             connect, and some may have come too late already.",
            figures.timeout,
            (3.0 * p99).ceil()
        )
    })
}

fn stale(report: &Report, figures: &Figures) -> Option<String> {
    let stale: u64 = ranges(report).map(|range| range.stale).sum();
    (stale * 100 > figures.abandoned.max(1)).then(|| {
        format!(
            "Clients come late: {stale} connections came for a port that had been told to the next \
             client of the same address already, and were reset. More ports, or a longer \
             data.accept_timeout than {} s, keep the two apart.",
            figures.timeout
        )
    })
}

fn uneven(report: &Report, figures: &Figures) -> Option<String> {
    let by_core: Vec<(u64, u64)> = report
        .cores
        .iter()
        .map(|core| {
            let handed = core.pools.iter().flat_map(|pool| &pool.ranges);
            let handed = handed.map(|range| range.handed_out).sum();
            let taken = core.pools.iter().map(|pool| pool.borrowed.taken).sum();
            (handed, taken)
        })
        .collect();
    let taken: u64 = by_core.iter().map(|(_, taken)| taken).sum();
    let most = by_core.iter().map(|(handed, _)| *handed).max()?;
    let least = by_core.iter().map(|(handed, _)| *handed).min()?;
    if !figures.is_telling() || taken == 0 || most < 2 * least.max(1) {
        return None;
    }
    // Shares of ten, and at least one for each core.
    let weight = |handed: u64| (10 * handed).div_ceil(figures.handed_out).max(1);
    let weights: Vec<String> = by_core
        .iter()
        .map(|(handed, _)| weight(*handed).to_string())
        .collect();
    let shares: Vec<String> = by_core
        .iter()
        .enumerate()
        .map(|(core, (handed, _))| {
            let share = 100.0 * *handed as f64 / figures.handed_out as f64;
            format!("core {core} {share:.0} %")
        })
        .collect();
    Some(format!(
        "Cut the slices by use: the cores hand out {}, and {taken} ports had to be borrowed. \
         data.passive_slices = [{}] saves the borrowing. Look also why clients gather there: \
         server.balance = true spreads sessions that are new.",
        shares.join(", "),
        weights.join(", ")
    ))
}

fn strangers(report: &Report, figures: &Figures) -> Option<String> {
    let strangers: u64 = ranges(report).map(|range| range.strangers).sum();
    if strangers < TELLING || strangers * 20 < figures.handed_out {
        return None;
    }
    let as_many = figures.abandoned * 2 > strangers && strangers * 2 > figures.abandoned;
    Some(match as_many && report.settings.peer_check == "strict" {
        true => format!(
            "Look where data connections come from: {strangers} came from addresses that were not \
             waited for, and about as many ports ({}) were abandoned. Those may be clients with \
             several addresses: data.peer_check = \"subnet\" takes neighbours in a /24; or a balancer \
             in between that should be in data.proxy_from.",
            figures.abandoned
        ),
        false => format!(
            "Somebody tries your ports: {strangers} connections from addresses that were not waited \
             for were reset. That harms nobody, and costs some 30 µs each; a firewall can limit it.",
        ),
    })
}

fn unavailable(report: &Report, _: &Figures) -> Option<String> {
    let ports: Vec<u16> = ranges(report)
        .flat_map(|range| range.unavailable.iter().copied())
        .collect();
    let first = ports.first()?;
    Some(format!(
        "Free {} ports that other programs hold: {}. 'ss -tanp sport = :{first}' names who holds the \
         first. If these are outgoing connections, the range meets those of the kernel: sysctl -w \
         net.ipv4.ip_local_reserved_ports=… with it. They are taken as soon as they are free.",
        ports.len(),
        ports_text(ports.iter().copied())
    ))
}

fn much_too_many(report: &Report, figures: &Figures) -> Option<String> {
    let is_long = report.uptime_seconds >= 7 * 86_400 && figures.is_telling();
    let wanted = (10 * figures.high_water).max(16 * report.cores.len());
    (is_long && figures.ports > 10 * wanted).then(|| {
        format!(
            "You could do with less: in {} days no more than {} ports were pending at a time, and you \
             have {}. {wanted} would be ten times as many as needed, with {} descriptors and holes in \
             the firewall less.",
            report.uptime_seconds / 86_400,
            figures.high_water,
            figures.ports,
            figures.ports - wanted
        )
    })
}

fn address_unknown(report: &Report, _: &Figures) -> Option<String> {
    let refused: u64 = pools(report)
        .map(|(_, pool)| pool.refusals.address_unknown)
        .sum();
    (refused > 0).then(|| {
        format!(
            "Look at the name in data.passive_address: {refused} PASV were refused because it had no \
             address yet. Is the DNS reachable from this host when the server starts?"
        )
    })
}

fn source_port(report: &Report, _: &Figures) -> Option<String> {
    let other: u64 = report
        .cores
        .iter()
        .map(|core| core.active.other_source_port)
        .sum();
    let all: u64 = report.cores.iter().map(|core| core.active.connected).sum();
    (other > 0).then(|| {
        format!(
            "{other} of {all} active data connections left from another port than \
             data.active_source_port, because clients named the same port again within the minute \
             that the kernel remembers a connection (TIME_WAIT). Clients behind a firewall that knows \
             only port 20 should use passive mode; net.ipv4.tcp_tw_reuse = 1 shortens it to a second."
        )
    })
}

fn active_fails(report: &Report, _: &Figures) -> Option<String> {
    let failed: u64 = report
        .cores
        .iter()
        .map(|core| core.active.refused + core.active.failed)
        .sum();
    let connected: u64 = report.cores.iter().map(|core| core.active.connected).sum();
    (failed > 20 && failed * 5 > connected).then(|| {
        format!(
            "Active mode does not reach many clients: {failed} connections failed, {connected} stood. \
             They are behind address translators or firewalls and should use passive mode; \
             data.active = false makes them change at once instead of after a timeout."
        )
    })
}

/// Fewer events say nothing.
const TELLING: u64 = 200;

/// The share of requests that may be refused.
const LOSS: f64 = 1e-6;

/// In seconds. A SYN that is lost is sent again after 1 s, and again after 2 (RFC 6298 §2).
const TIMEOUT_MIN: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::report::{ActiveReport, Borrowed, Histogram, Rate, Refusals, Settings};

    /// Two cores with 500 ports each, 10 000 handed out, hardly any abandoned.
    fn healthy() -> Report {
        let mut waits = Histogram::default();
        waits.buckets[6] = 5000;
        waits.sum_us = 5000 * 40_000;
        let core = |core: usize| CoreReport {
            core,
            pools: vec![PoolReport {
                address: [0, 0, 0, 0].into(),
                ranges: vec![RangeReport {
                    first: 30_000,
                    last: 30_999,
                    ports: 500,
                    free: 490,
                    high_water: 60,
                    handed_out: 5000,
                    used: 4999,
                    abandoned: 1,
                    ..RangeReport::default()
                }],
                pasv: Rate {
                    peak_second: 50,
                    ..Rate::default()
                },
                epsv: Rate::default(),
                refusals: Refusals::default(),
                borrowed: Borrowed::default(),
                waits,
                top_clients: Vec::new(),
            }],
            ..CoreReport::default()
        };
        Report {
            uptime_seconds: 3600,
            settings: Settings {
                accept_timeout_ms: 30_000,
                ports_per_client: 64,
                peer_check: "strict".to_owned(),
                borrow: true,
            },
            cores: vec![core(0), core(1)],
            ..Report::default()
        }
    }

    #[test]
    fn a_healthy_server_is_left_alone() {
        let told = text(&healthy());
        assert!(told.contains("Nothing to change"), "{told}");
        assert!(told.contains("10000 handed out, 2 abandoned"), "{told}");
        let told = text(&Report::default());
        assert!(told.contains("Nothing to say yet"), "{told}");
    }

    #[test]
    fn every_trouble_has_its_advice() {
        type Change = fn(&mut Report);
        let pool: fn(&mut Report) -> &mut PoolReport = |report| &mut report.cores[0].pools[0];
        let _ = pool;
        let cases: &[(Change, &str)] = &[
            (
                |it| it.cores[0].pools[0].refusals.dry = 3,
                "Add ports: 3 PASV",
            ),
            (
                |it| {
                    it.cores[0].pools[0].refusals.client_limit = 9;
                    it.cores[0].pools[0].top_clients = vec![([192, 0, 2, 1].into(), 64)];
                },
                "192.0.2.1 holds most, 64 on one core",
            ),
            (
                |it| it.cores[0].pools[0].ranges[0].abandoned = 1000,
                "Lower data.accept_timeout from 30 s to 5 s",
            ),
            (
                |it| {
                    it.cores[0].pools[0].waits.buckets = Histogram::default().buckets;
                    it.cores[0].pools[0].waits.buckets[15] = 900;
                },
                "Raise data.accept_timeout from 30 s",
            ),
            (
                |it| it.cores[0].pools[0].ranges[0].stale = 5,
                "Clients come late: 5",
            ),
            (
                |it| {
                    it.cores[0].pools[0].ranges[0].handed_out = 45_000;
                    it.cores[0].pools[0].borrowed.taken = 8;
                },
                "data.passive_slices = [9, 1]",
            ),
            (
                |it| it.cores[0].pools[0].ranges[0].strangers = 3000,
                "Somebody tries your ports: 3000",
            ),
            (
                |it| {
                    it.cores[0].pools[0].ranges[0].strangers = 3000;
                    it.cores[0].pools[0].ranges[0].abandoned = 2900;
                },
                "data.peer_check = \"subnet\"",
            ),
            (
                |it| it.cores[0].pools[0].ranges[0].unavailable = vec![30_007, 30_008],
                "Free 2 ports that other programs hold: 30007-30008",
            ),
            (
                |it| {
                    it.uptime_seconds = 30 * 86_400;
                    it.cores[0].pools[0].ranges[0].ports = 60_000;
                },
                "You could do with less",
            ),
            (
                |it| it.cores[1].pools[0].refusals.address_unknown = 2,
                "Look at the name in data.passive_address: 2",
            ),
            (
                |it| {
                    it.cores[1].active = ActiveReport {
                        connected: 90,
                        other_source_port: 7,
                        ..ActiveReport::default()
                    }
                },
                "7 of 90 active data connections",
            ),
            (
                |it| it.cores[1].active.failed = 99,
                "Active mode does not reach many clients: 99",
            ),
        ];
        for (change, part) in cases {
            let mut report = healthy();
            change(&mut report);
            let told = text(&report);
            assert!(told.contains(part), "no {part:?} in\n{told}");
        }
    }
}
