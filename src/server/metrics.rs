//! The report as OpenMetrics text, which Prometheus and its like read.

use std::fmt::{Display, Write};

use crate::data::report::{CoreReport, PoolReport, RangeReport, Report};

/// All metrics of a report.
pub(super) fn text(report: &Report) -> String {
    let mut out = Metrics::default();
    out.family(
        "ringftpd_uptime_seconds",
        "gauge",
        "Seconds since the start.",
    );
    out.sample("", &[], report.uptime_seconds);
    for (name, kind, help, figure) in RANGE_FIGURES {
        out.family(name, kind, help);
        for (core, pool, range) in ranges(report) {
            let span = format!("{}-{}", range.first, range.last);
            let labels = labels(core, pool);
            out.sample(
                total(kind),
                &[&labels[..], &[("range", span)]].concat(),
                figure(range),
            );
        }
    }
    for (name, kind, help, figure) in POOL_FIGURES {
        out.family(name, kind, help);
        for (core, pool) in pools(report) {
            out.sample(total(kind), &labels(core, pool), figure(pool));
        }
    }
    for (name, kind, help, figure) in CORE_FIGURES {
        out.family(name, kind, help);
        for core in &report.cores {
            out.sample(
                total(kind),
                &[("core", core.core.to_string())],
                figure(core),
            );
        }
    }
    out.waits(report);
    out.0.push_str("# EOF\n");
    out.0
}

/// Name, kind, meaning, figure.
type Figure<T> = (&'static str, &'static str, &'static str, fn(&T) -> u64);

const RANGE_FIGURES: &[Figure<RangeReport>] = &[
    ("ringftpd_passive_ports", "gauge", "Passive ports.", |it| {
        it.ports as u64
    }),
    (
        "ringftpd_passive_ports_free",
        "gauge",
        "Passive ports without a reservation.",
        |it| it.free as u64,
    ),
    (
        "ringftpd_passive_ports_unavailable",
        "gauge",
        "Passive ports that other programs hold.",
        |it| it.unavailable.len() as u64,
    ),
    (
        "ringftpd_passive_ports_leaving",
        "gauge",
        "Passive ports that will go after a reload.",
        |it| it.leaving as u64,
    ),
    (
        "ringftpd_passive_reservations",
        "gauge",
        "Reservations that wait for clients.",
        |it| it.reserved as u64,
    ),
    (
        "ringftpd_passive_reservations_max",
        "gauge",
        "The most reservations at a time.",
        |it| it.high_water as u64,
    ),
    (
        "ringftpd_passive_reservations_made",
        "counter",
        "Reservations.",
        |it| it.handed_out,
    ),
    (
        "ringftpd_passive_reservations_used",
        "counter",
        "Reservations whose client came.",
        |it| it.used,
    ),
    (
        "ringftpd_passive_reservations_abandoned",
        "counter",
        "Reservations whose client did not come.",
        |it| it.abandoned,
    ),
    (
        "ringftpd_passive_strangers",
        "counter",
        "Connections that nobody waited for, reset.",
        |it| it.strangers,
    ),
    (
        "ringftpd_passive_stale",
        "counter",
        "Connections that came too late, reset.",
        |it| it.stale,
    ),
];

const POOL_FIGURES: &[Figure<PoolReport>] = &[
    (
        "ringftpd_pasv",
        "counter",
        "PASV that named a port.",
        |it| it.pasv.total,
    ),
    (
        "ringftpd_epsv",
        "counter",
        "EPSV that named a port.",
        |it| it.epsv.total,
    ),
    (
        "ringftpd_passive_refused_dry",
        "counter",
        "PASV and EPSV without a port left.",
        |it| it.refusals.dry,
    ),
    (
        "ringftpd_passive_refused_limit",
        "counter",
        "PASV and EPSV beyond a client's limit.",
        |it| it.refusals.client_limit,
    ),
    (
        "ringftpd_passive_refused_address",
        "counter",
        "PASV without an address to announce.",
        |it| it.refusals.address_unknown,
    ),
    (
        "ringftpd_passive_borrowed",
        "counter",
        "Ports taken from other cores.",
        |it| it.borrowed.taken,
    ),
    (
        "ringftpd_passive_lent",
        "counter",
        "Ports given to other cores.",
        |it| it.borrowed.given,
    ),
];

const CORE_FIGURES: &[Figure<CoreReport>] = &[
    ("ringftpd_sessions", "gauge", "Sessions.", |it| {
        it.sessions as u64
    }),
    (
        "ringftpd_transfers",
        "gauge",
        "Transfers under way.",
        |it| it.transfers as u64,
    ),
    (
        "ringftpd_handed_over",
        "counter",
        "Clients given to other cores.",
        |it| it.handed_over,
    ),
    (
        "ringftpd_taken_over",
        "counter",
        "Clients taken from other cores.",
        |it| it.taken_over,
    ),
    (
        "ringftpd_port",
        "counter",
        "PORT commands accepted.",
        |it| it.active.port.total,
    ),
    (
        "ringftpd_eprt",
        "counter",
        "EPRT commands accepted.",
        |it| it.active.eprt.total,
    ),
    (
        "ringftpd_active_connected",
        "counter",
        "Active data connections made.",
        |it| it.active.connected,
    ),
    (
        "ringftpd_active_refused",
        "counter",
        "Active data connections refused.",
        |it| it.active.refused,
    ),
    (
        "ringftpd_active_failed",
        "counter",
        "Active data connections that failed.",
        |it| it.active.failed,
    ),
    (
        "ringftpd_active_other_port",
        "counter",
        "Active data connections from another port.",
        |it| it.active.other_source_port,
    ),
    (
        "ringftpd_bounces_refused",
        "counter",
        "PORT and EPRT to a foreign address, refused.",
        |it| it.active.bounces,
    ),
];

/// OpenMetrics: the samples of a counter have a suffix that its name has not.
fn total(kind: &str) -> &'static str {
    match kind {
        "counter" => "_total",
        _ => "",
    }
}

fn pools(report: &Report) -> impl Iterator<Item = (&CoreReport, &PoolReport)> {
    let cores = report.cores.iter();
    cores.flat_map(|core| core.pools.iter().map(move |pool| (core, pool)))
}

fn ranges(report: &Report) -> impl Iterator<Item = (&CoreReport, &PoolReport, &RangeReport)> {
    pools(report).flat_map(|(core, pool)| pool.ranges.iter().map(move |range| (core, pool, range)))
}

fn labels(core: &CoreReport, pool: &PoolReport) -> Vec<(&'static str, String)> {
    vec![
        ("core", core.core.to_string()),
        ("address", pool.address.to_string()),
    ]
}

#[derive(Default)]
struct Metrics(String, &'static str);

impl Metrics {
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        self.1 = name;
        // Writing to a String does not fail.
        let _ = writeln!(self.0, "# TYPE {name} {kind}\n# HELP {name} {help}");
    }

    fn sample(&mut self, suffix: &str, labels: &[(&str, String)], value: impl Display) {
        let labels: Vec<String> = labels
            .iter()
            .map(|(key, value)| format!("{key}=\"{value}\""))
            .collect();
        let labels = match labels.is_empty() {
            true => String::new(),
            false => format!("{{{}}}", labels.join(",")),
        };
        let _ = writeln!(self.0, "{}{suffix}{labels} {value}", self.1);
    }

    /// From reservation to connection: cumulative buckets, their ends in seconds.
    fn waits(&mut self, report: &Report) {
        let help = "From the reply that names a passive port to the client's connection.";
        self.family("ringftpd_passive_wait_seconds", "histogram", help);
        for (core, pool) in pools(report) {
            let labels = labels(core, pool);
            let mut sum = 0;
            for (bucket, count) in pool.waits.buckets.iter().enumerate() {
                sum += count;
                let end = match bucket + 1 == pool.waits.buckets.len() {
                    true => "+Inf".to_owned(),
                    false => ((1u64 << bucket) as f64 / 1000.0).to_string(),
                };
                self.sample("_bucket", &[&labels[..], &[("le", end)]].concat(), sum);
            }
            self.sample("_count", &labels, sum);
            self.sample("_sum", &labels, pool.waits.sum_us as f64 / 1e6);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::report::{Borrowed, Histogram, Rate, Refusals};

    #[test]
    fn every_family_is_described_before_its_samples() {
        let mut waits = Histogram::default();
        waits.buckets[0] = 3;
        waits.buckets[5] = 4;
        waits.sum_us = 1_500_000;
        let report = Report {
            cores: vec![CoreReport {
                pools: vec![PoolReport {
                    address: [192, 0, 2, 1].into(),
                    ranges: vec![RangeReport {
                        first: 30_000,
                        last: 30_999,
                        handed_out: 7,
                        ..RangeReport::default()
                    }],
                    pasv: Rate::default(),
                    epsv: Rate::default(),
                    refusals: Refusals::default(),
                    borrowed: Borrowed::default(),
                    waits,
                    top_clients: Vec::new(),
                }],
                ..CoreReport::default()
            }],
            ..Report::default()
        };
        let told = text(&report);
        let mut family = "";
        for line in told.lines() {
            match line.strip_prefix("# TYPE ") {
                Some(rest) => family = rest.split(' ').next().expect("a name"),
                None if line.starts_with('#') => {}
                None => assert!(line.starts_with(family), "{line} in {family}"),
            }
        }
        for line in [
            "ringftpd_passive_reservations_made_total{core=\"0\",address=\"192.0.2.1\",\
             range=\"30000-30999\"} 7",
            "ringftpd_passive_wait_seconds_bucket{core=\"0\",address=\"192.0.2.1\",le=\"0.016\"} 3",
            "ringftpd_passive_wait_seconds_bucket{core=\"0\",address=\"192.0.2.1\",le=\"0.032\"} 7",
            "ringftpd_passive_wait_seconds_bucket{core=\"0\",address=\"192.0.2.1\",le=\"+Inf\"} 7",
            "ringftpd_passive_wait_seconds_sum{core=\"0\",address=\"192.0.2.1\"} 1.5",
        ] {
            assert!(told.contains(&format!("{line}\n")), "no {line} in\n{told}");
        }
        assert!(told.ends_with("# EOF\n"));
    }
}
