//! The figures of a [`Report`] for machines: OpenMetrics 1.0 text, which Prometheus reads
//! (<https://prometheus.io/docs/specs/om/open_metrics_spec/>).
//!
//! Rates are left out, since who scrapes makes them from the totals; so are the clients' addresses,
//! which would make a series for each and outlive them in somebody's database.

use std::fmt::{Display, Write};

use crate::data::report::{BUCKETS, CoreReport, PoolReport, RangeReport, Report};
use crate::throttle::{Direction, Limit, Throttle};

/// What the text is, for HTTP.
pub(super) const CONTENT_TYPE: &str = "application/openmetrics-text; version=1.0.0; charset=utf-8";

/// The report as OpenMetrics text.
pub(super) fn text(report: &Report, throttle: &Throttle) -> String {
    let mut page = Page::default();
    server(&mut page, report);
    logins(&mut page, report);
    cores(&mut page, report);
    ranges(&mut page, report);
    range_totals(&mut page, report);
    pools(&mut page, report);
    waits(&mut page, report);
    active(&mut page, report);
    quotas(&mut page, report);
    limits(&mut page, throttle);
    page.out.push_str("# EOF\n");
    page.out
}

#[derive(Debug, Default)]
struct Page {
    out: String,
    /// The metric family that samples belong to.
    family: &'static str,
}

/// Names and values of a sample's labels.
type Labels<'l> = &'l [(&'l str, &'l dyn Display)];

impl Page {
    /// Begins a metric family. All its samples follow before the next one (OpenMetrics "MetricFamily":
    /// they must not be interleaved).
    fn family(&mut self, name: &'static str, kind: &str, help: &str) {
        // Writing to a String does not fail.
        let _ = writeln!(self.out, "# HELP {name} {help}\n# TYPE {name} {kind}");
        self.family = name;
    }

    /// A sample of the family; `suffix` is `_total` for counters, and the like.
    fn sample(&mut self, suffix: &str, labels: Labels<'_>, value: impl Display) {
        let _ = write!(self.out, "{}{suffix}", self.family);
        for (index, (name, value)) in labels.iter().enumerate() {
            let before = if index == 0 { '{' } else { ',' };
            let _ = write!(self.out, "{before}{name}=\"{}\"", escaped(*value));
        }
        let end = if labels.is_empty() { "" } else { "}" };
        let _ = writeln!(self.out, "{end} {value}");
    }
}

fn server(page: &mut Page, report: &Report) {
    page.family("ringftpd_build", "info", "The version that runs.");
    page.sample("_info", &[("version", &report.version)], 1);
    page.family("ringftpd_uptime_seconds", "gauge", "Since the start.");
    page.sample("", &[], report.uptime_seconds);
    page.family(
        "ringftpd_accept_timeout_seconds",
        "gauge",
        "How long a passive port waits for its client: data.accept_timeout.",
    );
    let timeout = report.settings.accept_timeout_ms as f64 / 1000.0;
    page.sample("", &[], timeout);
    page.family(
        "ringftpd_ports_per_client",
        "gauge",
        "Passive ports that may wait for one client address on one core: data.ports_per_client.",
    );
    page.sample("", &[], report.settings.ports_per_client);
}

fn quotas(page: &mut Page, report: &Report) {
    page.family(
        "ringftpd_quota_refusals",
        "counter",
        "Uploads that a user's quota had no room for.",
    );
    page.sample("_total", &[], report.quota_refusals);
}

fn logins(page: &mut Page, report: &Report) {
    let logins = &report.logins;
    page.family(
        "ringftpd_logins",
        "counter",
        "Logins by what became of them; locked_out ones were refused whatever they brought, unavailable \
         ones could not be judged.",
    );
    for (result, count) in [
        ("accepted", logins.accepted),
        ("refused", logins.refused),
        ("locked_out", logins.locked_out),
        ("unavailable", logins.unavailable),
    ] {
        page.sample("_total", &[("result", &result)], count);
    }
    page.family(
        "ringftpd_passwords",
        "counter",
        "Passwords looked at: by a hash, or found right in memory (users.remember).",
    );
    for (by, count) in [("hash", logins.hashes), ("memory", logins.remembered)] {
        page.sample("_total", &[("by", &by)], count);
    }
}

fn cores(page: &mut Page, report: &Report) {
    type Figure = (
        &'static str,
        &'static str,
        fn(&CoreReport) -> u64,
        &'static str,
    );
    let figures: [Figure; 5] = [
        (
            "ringftpd_sessions",
            "gauge",
            |core| core.sessions as u64,
            "Control connections now.",
        ),
        (
            "ringftpd_sessions_logged_in",
            "gauge",
            |core| core.logged_in as u64,
            "Control connections now whose user is logged in.",
        ),
        (
            "ringftpd_transfers",
            "gauge",
            |core| core.transfers as u64,
            "Transfers now.",
        ),
        (
            "ringftpd_handed_over",
            "counter",
            |core| core.handed_over,
            "Control connections given to a core with less to do.",
        ),
        (
            "ringftpd_taken_over",
            "counter",
            |core| core.taken_over,
            "Control connections taken over from busier cores.",
        ),
    ];
    for (name, kind, figure, help) in figures {
        page.family(name, kind, help);
        let suffix = suffix(kind);
        for core in &report.cores {
            page.sample(suffix, &[("core", &core.core)], figure(core));
        }
    }
}

/// What the ports are now.
fn ranges(page: &mut Page, report: &Report) {
    page.family(
        "ringftpd_passive_ports",
        "gauge",
        "Passive ports by what they are now: free, busy (with a reservation), leaving (gone after it), \
         unavailable (held by another program).",
    );
    each_range(report, |labels, range| {
        for (state, ports) in [
            ("free", range.free),
            ("busy", range.busy()),
            ("leaving", range.leaving),
            ("unavailable", range.unavailable.len()),
        ] {
            page.sample("", &[labels, &[("state", &state)]].concat(), ports);
        }
    });
    page.family(
        "ringftpd_passive_reserved",
        "gauge",
        "Reservations that wait for their clients now.",
    );
    each_range(report, |labels, range| {
        page.sample("", labels, range.reserved)
    });
    page.family(
        "ringftpd_passive_reserved_peak",
        "gauge",
        "The most reservations at a time since the start.",
    );
    each_range(report, |labels, range| {
        page.sample("", labels, range.high_water)
    });
}

/// What has become of the ports since the start.
fn range_totals(page: &mut Page, report: &Report) {
    type Figure = (&'static str, fn(&RangeReport) -> u64, &'static str);
    let figures: [Figure; 5] = [
        (
            "ringftpd_passive_handed_out",
            |range| range.handed_out,
            "Reservations made.",
        ),
        (
            "ringftpd_passive_used",
            |range| range.used,
            "Reservations whose client came.",
        ),
        (
            "ringftpd_passive_abandoned",
            |range| range.abandoned,
            "Reservations that ended without their client.",
        ),
        (
            "ringftpd_passive_strangers",
            |range| range.strangers,
            "Connections from addresses that no reservation waited for.",
        ),
        (
            "ringftpd_passive_stale",
            |range| range.stale,
            "Connections that came for a reservation that had ended before.",
        ),
    ];
    for (name, figure, help) in figures {
        page.family(name, "counter", help);
        each_range(report, |labels, range| {
            page.sample("_total", labels, figure(range));
        });
    }
}

fn pools(page: &mut Page, report: &Report) {
    page.family(
        "ringftpd_passive_commands",
        "counter",
        "PASV and EPSV commands that named a port.",
    );
    each_pool(report, |labels, pool| {
        for (command, rate) in [("PASV", &pool.pasv), ("EPSV", &pool.epsv)] {
            let labels = [labels, &[("command", &command)]].concat();
            page.sample("_total", &labels, rate.total);
        }
    });
    page.family(
        "ringftpd_passive_commands_peak",
        "gauge",
        "PASV and EPSV commands in the busiest second since the start.",
    );
    each_pool(report, |labels, pool| {
        for (command, rate) in [("PASV", &pool.pasv), ("EPSV", &pool.epsv)] {
            let labels = [labels, &[("command", &command)]].concat();
            page.sample("", &labels, rate.peak_second);
        }
    });
    page.family(
        "ringftpd_passive_refusals",
        "counter",
        "PASV and EPSV commands that named no port, by reason.",
    );
    each_pool(report, |labels, pool| {
        for (reason, count) in [
            ("client_limit", pool.refusals.client_limit),
            ("dry", pool.refusals.dry),
            ("address_unknown", pool.refusals.address_unknown),
        ] {
            let labels = [labels, &[("reason", &reason)]].concat();
            page.sample("_total", &labels, count);
        }
    });
    page.family(
        "ringftpd_passive_borrowed",
        "counter",
        "Ports that came from other cores (taken) or went to them (given), and times that none could \
         be had (refused).",
    );
    each_pool(report, |labels, pool| {
        for (way, count) in [
            ("taken", pool.borrowed.taken),
            ("given", pool.borrowed.given),
            ("refused", pool.borrowed.refused),
        ] {
            let labels = [labels, &[("way", &way)]].concat();
            page.sample("_total", &labels, count);
        }
    });
}

fn waits(page: &mut Page, report: &Report) {
    page.family(
        "ringftpd_passive_wait_seconds",
        "histogram",
        "From the reply that named the port to the client's connection.",
    );
    each_pool(report, |labels, pool| {
        let mut below = 0;
        for (bucket, count) in pool.waits.buckets.iter().enumerate() {
            below += count;
            // Bucket n ends before 2^n ms, and the last one never.
            let le = match bucket + 1 < BUCKETS {
                true => format!("{:?}", f64::from(1_u32 << bucket) / 1000.0),
                false => "+Inf".to_owned(),
            };
            page.sample("_bucket", &[labels, &[("le", &le)]].concat(), below);
        }
        page.sample("_sum", labels, pool.waits.sum_us as f64 / 1e6);
        page.sample("_count", labels, below);
    });
}

fn active(page: &mut Page, report: &Report) {
    page.family(
        "ringftpd_active_commands",
        "counter",
        "PORT and EPRT commands.",
    );
    for core in &report.cores {
        let active = &core.active;
        for (command, rate) in [("PORT", &active.port), ("EPRT", &active.eprt)] {
            let labels: Labels<'_> = &[("core", &core.core), ("command", &command)];
            page.sample("_total", labels, rate.total);
        }
    }
    page.family(
        "ringftpd_active_connections",
        "counter",
        "Connections to clients by what became of them.",
    );
    for core in &report.cores {
        let active = &core.active;
        for (result, count) in [
            ("connected", active.connected),
            ("refused", active.refused),
            ("failed", active.failed),
        ] {
            let labels: Labels<'_> = &[("core", &core.core), ("result", &result)];
            page.sample("_total", labels, count);
        }
    }
    page.family(
        "ringftpd_active_other_source_port",
        "counter",
        "Connections to clients that left from another port than data.active_source_port.",
    );
    for core in &report.cores {
        let count = core.active.other_source_port;
        page.sample("_total", &[("core", &core.core)], count);
    }
    page.family(
        "ringftpd_active_bounces",
        "counter",
        "PORT and EPRT with a foreign address or a port below 1024.",
    );
    for core in &report.cores {
        page.sample("_total", &[("core", &core.core)], core.active.bounces);
    }
}

/// What clients ran into.
fn limits(page: &mut Page, throttle: &Throttle) {
    page.family(
        "ringftpd_limit_hits",
        "counter",
        "Connections, logins and uploads refused, and commands that had to wait, by the limit that they \
         ran into.",
    );
    for (limit, name) in Limit::ALL {
        page.sample("_total", &[("limit", &name)], throttle.hits.of(limit));
    }
    page.family(
        "ringftpd_rate_wait_seconds",
        "counter",
        "How long transfers have waited because of a rate, all together.",
    );
    for (direction, name) in [(Direction::Down, "down"), (Direction::Up, "up")] {
        let waited = throttle.waited(direction).as_secs_f64();
        page.sample("_total", &[("direction", &name)], waited);
    }
}

fn each_pool(report: &Report, mut tell: impl FnMut(Labels<'_>, &PoolReport)) {
    for core in &report.cores {
        for pool in &core.pools {
            tell(&[("core", &core.core), ("address", &pool.address)], pool);
        }
    }
}

fn each_range(report: &Report, mut tell: impl FnMut(Labels<'_>, &RangeReport)) {
    each_pool(report, |labels, pool| {
        for range in &pool.ranges {
            let name = format!("{}-{}", range.first, range.last);
            tell(&[labels, &[("range", &name)]].concat(), range);
        }
    });
}

fn suffix(kind: &str) -> &'static str {
    match kind {
        "counter" => "_total",
        _ => "",
    }
}

/// A label's value (OpenMetrics ABNF, `escaped-string`).
fn escaped(value: &dyn Display) -> String {
    value
        .to_string()
        .replace('\\', "\\\\")
        .replace('"', "\\\"")
        .replace('\n', "\\n")
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use super::*;

    fn example() -> Report {
        serde_json::from_str(include_str!("../cli/ports/examples/two_cores.json"))
            .expect("a report")
    }

    fn throttle() -> Throttle {
        Throttle::new(&crate::config::Config::default())
    }

    /// A sample's name, its labels as they are written, and its value.
    fn parts(line: &str) -> (&str, &str, f64) {
        let (series, value) = line.rsplit_once(' ').expect("a value");
        let (name, labels) = series.split_once('{').unwrap_or((series, "}"));
        let labels = labels.strip_suffix('}').expect("closed labels");
        (name, labels, value.parse().expect("a number"))
    }

    #[test]
    fn every_family_has_help_and_type_before_its_samples() {
        let text = text(&example(), &throttle());
        let mut families: HashMap<&str, &str> = HashMap::new();
        let (mut helped, mut family) = ("", "");
        let mut samples = 0;
        for line in text.lines().take_while(|line| *line != "# EOF") {
            if let Some(help) = line.strip_prefix("# HELP ") {
                helped = help.split_once(' ').expect("a text").0;
            } else if let Some(kind) = line.strip_prefix("# TYPE ") {
                let (name, kind) = kind.split_once(' ').expect("a type");
                assert_eq!(name, helped, "HELP comes before TYPE");
                assert_eq!(families.insert(name, kind), None, "{name} comes twice");
                family = name;
            } else {
                let (name, labels, _) = parts(line);
                let suffixes: &[&str] = match families[family] {
                    "counter" => &["_total"],
                    "info" => &["_info"],
                    "histogram" => &["_bucket", "_sum", "_count"],
                    _ => &[""],
                };
                let suffix = name.strip_prefix(family).expect("of this family");
                assert!(suffixes.contains(&suffix), "{line}");
                assert!(labels.is_empty() || labels.ends_with('"'), "{line}");
                samples += 1;
            }
        }
        assert!(text.ends_with("\n# EOF\n"));
        assert!(families.len() > 20 && samples > 100, "{text}");
    }

    #[test]
    fn no_series_comes_twice() {
        let text = text(&example(), &throttle());
        let mut seen = std::collections::HashSet::new();
        for line in text.lines().filter(|line| !line.starts_with('#')) {
            let series = line.rsplit_once(' ').expect("a value").0;
            assert!(seen.insert(series), "{series}");
        }
    }

    #[test]
    fn the_histogram_is_cumulative() {
        let report = example();
        let text = text(&report, &throttle());
        let labels = "core=\"0\",address=\"0.0.0.0\"";
        let of_pool = |name: &str| -> Vec<(String, f64)> {
            text.lines()
                .filter(|line| line.starts_with(&format!("{name}{{{labels}")))
                .map(|line| {
                    let (_, labels, value) = parts(line);
                    let le = labels.rsplit_once("le=").map_or("", |(_, le)| le);
                    (le.trim_matches('"').to_owned(), value)
                })
                .collect()
        };
        let buckets = of_pool("ringftpd_passive_wait_seconds_bucket");
        assert_eq!(buckets.len(), BUCKETS);
        assert_eq!(buckets[0].0, "0.001");
        assert_eq!(buckets[10].0, "1.024");
        assert_eq!(buckets[BUCKETS - 2].0, "32.768");
        assert_eq!(buckets[BUCKETS - 1].0, "+Inf");
        assert!(buckets.is_sorted_by(|a, b| a.1 <= b.1), "{buckets:?}");
        let waits = &report.cores[0].pools[0].waits;
        let count = of_pool("ringftpd_passive_wait_seconds_count");
        assert_eq!(count[0].1, buckets[BUCKETS - 1].1);
        assert_eq!(count[0].1, waits.count() as f64);
        let sum = of_pool("ringftpd_passive_wait_seconds_sum");
        assert_eq!(sum[0].1, waits.sum_us as f64 / 1e6);
    }

    #[test]
    fn samples_are_written_as_the_specification_says() {
        let mut report = example();
        report.version = "1\"\\\n".to_owned();
        let text = text(&report, &throttle());
        for line in [
            "ringftpd_build_info{version=\"1\\\"\\\\\\n\"} 1",
            "ringftpd_uptime_seconds 273600",
            "ringftpd_accept_timeout_seconds 30",
            "ringftpd_passive_ports{core=\"0\",address=\"0.0.0.0\",range=\"30000-30999\",state=\"free\"} \
             71",
            "ringftpd_passive_ports{core=\"0\",address=\"0.0.0.0\",range=\"30000-30999\",\
             state=\"unavailable\"} 1",
            "ringftpd_passive_refusals_total{core=\"0\",address=\"0.0.0.0\",reason=\"dry\"} 3",
            "ringftpd_active_connections_total{core=\"0\",result=\"failed\"} 14",
        ] {
            assert!(text.lines().any(|found| found == line), "{line}\n{text}");
        }
    }

    #[test]
    fn no_client_is_named() {
        assert!(!text(&example(), &throttle()).contains("192.0.2.7"));
    }
}
