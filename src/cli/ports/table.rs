//! The report as a table with bars.

use std::fmt::Write;

use crate::data::report::{BUCKETS, CoreReport, Histogram, PoolReport, RangeReport, Rate, Report};

/// The whole report.
pub(super) fn text(report: &Report) -> String {
    let mut out = String::new();
    let settings = &report.settings;
    // Writing to a String does not fail.
    let _ = writeln!(
        out,
        "ringftpd {}, process {}, up {}; accept_timeout {} s, ports_per_client {}, peer_check {}, \
         borrow {}",
        report.version,
        report.pid,
        uptime(report.uptime_seconds),
        settings.accept_timeout_ms as f64 / 1000.0,
        settings.ports_per_client,
        settings.peer_check,
        settings.borrow,
    );
    ports(&mut out, report);
    requests(&mut out, report);
    waits(&mut out, report);
    clients(&mut out, report);
    out
}

/// Every range of every core, and their sum.
fn ports(out: &mut String, report: &Report) {
    let bar = format!("{:BAR$}", "busy # of free . (gone x)");
    let _ = writeln!(
        out,
        "\n{:<4} {:<28} {bar} {:>6} {:>6} {:>6} {:>7} {:>9} {:>9} {:>6}",
        "core", "ports", "free", "busy", "resrvd", "highest", "handed", "abandoned", "reset"
    );
    let mut sum = RangeReport::default();
    let mut lines = 0;
    for core in &report.cores {
        for pool in &core.pools {
            for range in pool.ranges.iter().filter(|range| is_of_interest(range)) {
                let name = match range.first {
                    0 => format!("{} others", pool.address),
                    first => format!("{} {first}-{}", pool.address, range.last),
                };
                row(out, &core.core.to_string(), &name, range);
                add(&mut sum, range);
                lines += 1;
            }
        }
    }
    if lines > 1 {
        row(out, "all", "", &sum);
    }
    for core in &report.cores {
        for pool in &core.pools {
            for range in pool
                .ranges
                .iter()
                .filter(|range| !range.unavailable.is_empty())
            {
                let ports = crate::config::ports_text(range.unavailable.iter().copied());
                let first = range.unavailable[0];
                let _ = writeln!(
                    out,
                    "core {}: {} {ports} are held by other programs: ss -tanp 'sport = :{first}'",
                    core.core, pool.address
                );
            }
        }
    }
}

fn is_of_interest(range: &RangeReport) -> bool {
    range.ports + range.unavailable.len() > 0 || range.handed_out > 0
}

fn row(out: &mut String, core: &str, name: &str, range: &RangeReport) {
    let _ = writeln!(
        out,
        "{core:<4} {name:<28} {} {:>6} {:>6} {:>6} {:>7} {:>9} {:>9} {:>6}",
        bar(range),
        range.free,
        busy(range),
        range.reserved,
        range.high_water,
        range.handed_out,
        share(range.abandoned, range.handed_out),
        range.strangers + range.stale,
    );
}

fn busy(range: &RangeReport) -> usize {
    range.ports.saturating_sub(range.free + range.leaving)
}

/// Busy, leaving, unavailable and free ports in proportion; whatever is there is seen.
fn bar(range: &RangeReport) -> String {
    let all = range.ports + range.unavailable.len();
    let cells = |count: usize| match (count, all) {
        (0, _) | (_, 0) => 0,
        _ => (count * BAR / all).max(1),
    };
    let busy = "#".repeat(cells(busy(range)));
    let leaving = "-".repeat(cells(range.leaving));
    let gone = "x".repeat(cells(range.unavailable.len()));
    let mut bar = format!("{busy}{leaving}");
    let left = BAR.saturating_sub(bar.len() + gone.len());
    bar.push_str(&".".repeat(left));
    bar.push_str(&gone);
    bar.truncate(BAR);
    bar
}

fn add(sum: &mut RangeReport, range: &RangeReport) {
    sum.ports += range.ports;
    sum.free += range.free;
    sum.reserved += range.reserved;
    sum.high_water += range.high_water;
    sum.unavailable.extend(&range.unavailable);
    sum.leaving += range.leaving;
    sum.handed_out += range.handed_out;
    sum.used += range.used;
    sum.abandoned += range.abandoned;
    sum.strangers += range.strangers;
    sum.stale += range.stale;
}

/// What clients asked for, and what they were refused.
fn requests(out: &mut String, report: &Report) {
    let _ = writeln!(
        out,
        "\n{:<4} {:<28} {:>9} {:>8} {:>8} {:>8}   refused; moved",
        "core", "requests", "total", "10 s /s", "60 s /s", "peak /s"
    );
    for core in &report.cores {
        for pool in &core.pools {
            let name = |verb: &str| format!("{verb} on {}", pool.address);
            rate(out, core, &name("PASV"), &pool.pasv, &refused(pool));
            rate(out, core, &name("EPSV"), &pool.epsv, &moved(pool));
        }
        let active = &core.active;
        let failed = match active.refused + active.failed {
            0 => String::new(),
            _ => format!("{} refused, {} failed", active.refused, active.failed),
        };
        rate(out, core, "PORT", &active.port, &failed);
        let mut notes = Vec::new();
        if active.bounces > 0 {
            notes.push(format!("{} bounces refused", active.bounces));
        }
        if active.other_source_port > 0 {
            notes.push(format!(
                "{} from another source port",
                active.other_source_port
            ));
        }
        rate(out, core, "EPRT", &active.eprt, &notes.join(", "));
        let name = format!("sessions {}, transfers {}", core.sessions, core.transfers);
        let _ = writeln!(
            out,
            "{:<4} {name:<28} {:>9} {:>8} {:>8} {:>8}   clients handed over {}, taken over {}",
            core.core, "", "", "", "", core.handed_over, core.taken_over
        );
    }
}

/// A line, unless there is nothing to tell.
fn rate(out: &mut String, core: &CoreReport, name: &str, rate: &Rate, note: &str) {
    if rate.total == 0 && note.is_empty() {
        return;
    }
    let line = format!(
        "{:<4} {name:<28} {:>9} {:>8.1} {:>8.1} {:>8}   {note}",
        core.core, rate.total, rate.last_10_seconds, rate.last_minute, rate.peak_second
    );
    let _ = writeln!(out, "{}", line.trim_end());
}

fn refused(pool: &PoolReport) -> String {
    let refusals = &pool.refusals;
    let mut parts = Vec::new();
    for (count, reason) in [
        (refusals.dry, "dry"),
        (refusals.client_limit, "client's limit"),
        (refusals.address_unknown, "address unknown"),
    ] {
        if count > 0 {
            parts.push(format!("{count} {reason}"));
        }
    }
    parts.join(", ")
}

fn moved(pool: &PoolReport) -> String {
    let borrowed = &pool.borrowed;
    match (borrowed.taken, borrowed.given, borrowed.refused) {
        (0, 0, 0) => String::new(),
        (taken, given, refused) => {
            format!("ports borrowed {taken}, lent {given}, not to be had {refused}")
        }
    }
}

/// How long ports waited for their clients, over all cores.
fn waits(out: &mut String, report: &Report) {
    let waits = all_waits(report);
    let (Some(mean), Some(half), Some(most)) = (
        waits.mean_ms(),
        waits.quantile_ms(0.5),
        waits.quantile_ms(0.99),
    ) else {
        return;
    };
    let _ = writeln!(
        out,
        "\nfrom 227 or 229 to the client's connection: mean {mean:.1} ms, half within {half} ms, \
         99 % within {most} ms"
    );
    let greatest = waits.buckets.iter().copied().max().unwrap_or(1).max(1);
    let used = |bucket: &usize| waits.buckets[*bucket] > 0;
    let first = (0..BUCKETS).find(used).unwrap_or(0);
    let last = (0..BUCKETS).rfind(used).unwrap_or(0);
    for bucket in first..=last {
        let count = waits.buckets[bucket];
        let length = (count as f64 / greatest as f64 * 40.0).ceil() as usize;
        let line = format!(
            "  {:>8} {:<40} {count}",
            match bucket {
                _ if bucket == BUCKETS - 1 => "longer".to_owned(),
                _ => format!("< {} ms", 1u64 << bucket),
            },
            "#".repeat(length)
        );
        let _ = writeln!(out, "{}", line.trim_end());
    }
}

/// The waits of all cores and addresses together.
pub(super) fn all_waits(report: &Report) -> Histogram {
    let mut sum = Histogram::default();
    for pool in report.cores.iter().flat_map(|core| &core.pools) {
        for (sum, count) in sum.buckets.iter_mut().zip(pool.waits.buckets) {
            *sum += count;
        }
        sum.sum_us += pool.waits.sum_us;
    }
    sum
}

/// Who holds most ports at the moment.
fn clients(out: &mut String, report: &Report) {
    let mut all = Vec::new();
    for core in &report.cores {
        for (client, held) in core.pools.iter().flat_map(|pool| &pool.top_clients) {
            all.push((*held, *client, core.core));
        }
    }
    all.sort_by_key(|(held, client, core)| (usize::MAX - held, *client, *core));
    if all.is_empty() {
        return;
    }
    let shown = all.iter().take(5);
    let shown = shown.map(|(held, client, core)| format!("{client} {held} (core {core})"));
    let _ = writeln!(
        out,
        "\nports that wait, by client: {}",
        shown.collect::<Vec<_>>().join(", ")
    );
}

fn share(part: u64, whole: u64) -> String {
    match whole {
        0 => "0".to_owned(),
        _ => format!("{part} {:>2.0}%", 100.0 * part as f64 / whole as f64),
    }
}

fn uptime(seconds: u64) -> String {
    let (days, hours, minutes) = (seconds / 86_400, seconds / 3600 % 24, seconds / 60 % 60);
    match (days, hours, minutes) {
        (0, 0, 0) => format!("{seconds} s"),
        (0, 0, minutes) => format!("{minutes} min"),
        (0, hours, minutes) => format!("{hours} h {minutes} min"),
        (days, hours, _) => format!("{days} d {hours} h"),
    }
}

/// Characters of a bar.
const BAR: usize = 25;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::data::report::{Borrowed, Refusals, Settings};

    fn range(first: u16, ports: usize, free: usize) -> RangeReport {
        RangeReport {
            first,
            last: first + 499,
            ports,
            free,
            reserved: 2 * (ports - free),
            high_water: 300,
            handed_out: 200,
            used: 180,
            abandoned: 20,
            strangers: 3,
            ..RangeReport::default()
        }
    }

    fn report() -> Report {
        let mut waits = Histogram::default();
        waits.buckets[3] = 100;
        waits.buckets[5] = 50;
        waits.sum_us = 1_500_000;
        let pool = |range: RangeReport| PoolReport {
            address: [0, 0, 0, 0].into(),
            ranges: vec![range],
            pasv: Rate {
                total: 200,
                last_10_seconds: 12.5,
                last_minute: 3.25,
                peak_second: 40,
            },
            epsv: Rate::default(),
            refusals: Refusals {
                dry: 4,
                ..Refusals::default()
            },
            borrowed: Borrowed::default(),
            waits,
            top_clients: vec![([192, 0, 2, 7].into(), 9)],
        };
        let second = RangeReport {
            unavailable: vec![30_700, 30_701, 30_705],
            ..range(30_500, 497, 497)
        };
        let core = |core: usize, range: RangeReport| CoreReport {
            core,
            sessions: 7,
            pools: vec![pool(range)],
            ..CoreReport::default()
        };
        Report {
            version: "1.2.3".to_owned(),
            pid: 42,
            uptime_seconds: 3700,
            settings: Settings {
                accept_timeout_ms: 30_000,
                ports_per_client: 64,
                peer_check: "strict".to_owned(),
                borrow: true,
            },
            cores: vec![core(0, range(30_000, 500, 250)), core(1, second)],
        }
    }

    #[test]
    fn the_table_shows_every_core_and_the_sum() {
        let shown = text(&report());
        assert!(shown.lines().all(|line| line.len() <= 120), "{shown}");
        for part in [
            "ringftpd 1.2.3, process 42, up 1 h 1 min; accept_timeout 30 s",
            "0    0.0.0.0 30000-30499          ############.............    250    250    500",
            "1    0.0.0.0 30500-30999          ........................x    497      0      0",
            "all                               ######",
            "core 1: 0.0.0.0 30700-30701,30705 are held by other programs",
            "0    PASV on 0.0.0.0                    200     12.5      3.2       40   4 dry",
            "mean 10.0 ms, half within 8 ms, 99 % within 32 ms",
            "< 8 ms ######################################## 200",
            "ports that wait, by client: 192.0.2.7 9 (core 0), 192.0.2.7 9 (core 1)",
        ] {
            assert!(shown.contains(part), "no {part:?} in\n{shown}");
        }
    }

    #[test]
    fn a_server_without_ports_has_a_table_too() {
        let shown = text(&Report::default());
        assert!(shown.contains("ringftpd"), "{shown}");
    }
}
