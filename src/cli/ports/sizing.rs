//! How many ports, and how long each waits: Little's law over what was measured.
//!
//! Reservations that wait at a time are L = rate × (T × (1 − r) + timeout × r): those whose client
//! comes hold their port for the mean wait T, the share r that is abandoned for up to
//! `accept_timeout`. (J. D. C. Little, A Proof for the Queuing Formula L = λW, 1961.)

use super::advice::{Advice, Facts, Pool, Rule};
use super::text::{counted, milliseconds, percent, percent_text, quantile, trimmed};
use crate::config::duration_text;
use crate::data::report::Settings;

/// What Little's law is fed with.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) struct Load {
    /// Ports handed out in the busiest second: PASV and EPSV may have had theirs at different times,
    /// so this is on the safe side.
    pub(super) rate: f64,
    /// The mean wait for clients that came, in seconds.
    pub(super) wait: f64,
    /// The share of reservations that ended without their client.
    pub(super) abandoned: f64,
    /// Seconds.
    pub(super) timeout: f64,
}

impl Load {
    pub(super) fn of(pool: &Pool<'_>, settings: &Settings) -> Self {
        let report = pool.report;
        Self {
            rate: (report.pasv.peak_second + report.epsv.peak_second) as f64,
            wait: report.waits.mean_ms().unwrap_or(0.0) / 1000.0,
            abandoned: pool.sums.abandoned_share(),
            timeout: settings.accept_timeout_ms as f64 / 1000.0,
        }
    }

    /// Reservations at a time.
    pub(super) fn pending(&self) -> f64 {
        self.rate * (self.wait * (1.0 - self.abandoned)) + self.pending_abandoned()
    }

    /// Of these, those whose client will not come.
    fn pending_abandoned(&self) -> f64 {
        self.rate * self.timeout * self.abandoned
    }

    /// The arithmetic.
    fn shown(&self) -> String {
        format!(
            "L = rate * (T * (1 - r) + timeout * r) = {}/s * ({:.4} s * (1 - {:.4}) + {} s * {:.4}) = \
             {}",
            self.rate,
            self.wait,
            self.abandoned,
            trimmed(self.timeout),
            self.abandoned,
            trimmed(self.pending())
        )
    }
}

/// More ports, where some were missing or nearly so. `others`: what is advised besides.
pub(super) fn add_ports(facts: &Facts<'_>, others: &[Rule]) -> Option<Advice> {
    let settings = &facts.report.settings;
    let mut short: Vec<(&Pool<'_>, usize)> = facts
        .pools
        .iter()
        .filter(|pool| is_short(pool, settings))
        .map(|pool| (pool, wanted(pool, settings)))
        .filter(|(pool, wanted)| *wanted > pool.sums.ports)
        .collect();
    short.sort_by_key(|(_, wanted)| std::cmp::Reverse(*wanted));
    let (fullest, per_core) = short.first().copied()?;
    let cores = facts.report.cores.len();
    let total = per_core * cores;
    let mut advice = Advice::new(
        Rule::AddPorts,
        format!(
            "Add ports: {per_core} for each core instead of {}; {total} for all {}.",
            fullest.sums.ports,
            counted(cores as u64, "core")
        ),
    );
    for (pool, wanted) in short.iter().take(POOLS_TOLD_MAX) {
        advice = advice.why(told(pool, *wanted, settings));
    }
    if short.len() > POOLS_TOLD_MAX {
        advice = advice.why(format!("And {} more.", short.len() - POOLS_TOLD_MAX));
    }
    advice = advice.why(
        "rate is the busiest second, T the mean wait for clients that came, r the share of \
         reservations that were abandoned, each counted as if it had waited for its whole time.",
    );
    if others.contains(&Rule::LowerTimeout) {
        advice = advice.why("Lower accept_timeout first (below): it may be enough.");
    }
    if others.contains(&Rule::Uneven) {
        advice =
            advice.why("Weighted slices (below) may do instead: other cores have ports to spare.");
    } else if !settings.borrow && cores > 1 {
        advice =
            advice.why("borrow = true lets a dry core take free ports of the others meanwhile.");
    }
    let advice = advice.why(
        "Open the new ports in the firewall. Keep them out of net.ipv4.ip_local_port_range, or \
         reserve them there.",
    );
    Some(match range(facts, total) {
        Some(range) => advice.setting(format!("passive_ports = \"{range}\"")),
        None => advice,
    })
}

/// A port was refused because none was left, or nearly so.
fn is_short(pool: &Pool<'_>, settings: &Settings) -> bool {
    let most = match is_strict(settings) {
        // A port waits for any number of clients, but for each only once.
        true => pool.report.top_clients.first().map_or(0, |(_, n)| *n),
        false => pool.sums.high_water,
    };
    let full = percent(most as u64, pool.sums.ports as u64);
    pool.report.refusals.dry > 0 || pool.sums.ports > 0 && full >= NEARLY_FULL_PERCENT
}

/// How many ports this core needs on this address.
fn wanted(pool: &Pool<'_>, settings: &Settings) -> usize {
    let load = Load::of(pool, settings).pending().ceil() as usize;
    let ports = pool.sums.ports;
    match is_strict(settings) {
        false => with_reserve(load.max(pool.sums.high_water)),
        // What one client may hold at most: with so many, that bound comes before a dry pool.
        true if ports < settings.ports_per_client => {
            with_reserve(load.max(ports)).min(settings.ports_per_client)
        }
        true => with_reserve(ports),
    }
}

fn told(pool: &Pool<'_>, wanted: usize, settings: &Settings) -> String {
    let place = format!("Core {} on {}", pool.core.core, pool.report.address);
    let ports = counted(pool.sums.ports as u64, "port");
    let dry = pool.report.refusals.dry;
    let found = match (is_strict(settings), dry) {
        (true, 0) => format!("one client address holds nearly all of the {ports}."),
        (true, _) => format!(
            "{dry} refused because one client address waited on all of the {ports} (a port serves \
             many addresses, but each once)."
        ),
        (false, _) => format!(
            "{dry} refused; at most {} at a time on {ports}, each for one client (peer_check is not \
             strict).",
            counted(pool.sums.high_water as u64, "reservation")
        ),
    };
    let reason = match is_strict(settings) {
        true if wanted == settings.ports_per_client => format!(
            "no more than ports_per_client = {wanted} can wait for one address, so {wanted} ports are \
             never dry"
        ),
        true => format!("a quarter more than there are: {wanted}"),
        false => format!("the greater of L and what was seen, and a quarter more: {wanted}"),
    };
    format!(
        "{place}: {found} {}; {reason}.",
        Load::of(pool, settings).shown()
    )
}

/// A shorter `accept_timeout`, where abandoned reservations hold a good part of the ports.
pub(super) fn lower_timeout(facts: &Facts<'_>) -> Option<Advice> {
    let settings = &facts.report.settings;
    let p99 = facts.waits.quantile_ms(0.99).filter(|_| facts.enough)?;
    let (pool, load) = facts
        .pools
        .iter()
        .map(|pool| (pool, Load::of(pool, settings)))
        .filter(|(pool, load)| {
            let used = load.pending() - load.pending_abandoned();
            load.pending_abandoned() >= ABANDONED_DOMINATE * used
                && load.pending_abandoned() >= pool.sums.ports as f64 * ABANDONED_PORTS_SHARE
        })
        .max_by(|(_, a), (_, b)| a.pending_abandoned().total_cmp(&b.pending_abandoned()))?;
    let seconds = (4 * p99).div_ceil(1000).max(TIMEOUT_SECONDS_MIN);
    let shorter = Load {
        timeout: seconds as f64,
        ..load
    };
    if seconds * 1000 >= settings.accept_timeout_ms {
        return None;
    }
    let now = milliseconds(settings.accept_timeout_ms as f64);
    let advice = Advice::new(
        Rule::LowerTimeout,
        format!("Lower accept_timeout from {now} to {seconds} s: abandoned reservations hold the ports."),
    )
    .why(format!(
        "Core {} on {}: {} of {} reservations ({}) ended without their client, and each holds its \
         port for up to {now}: {}/s * {} s * {:.4} = {} of the {} that wait in the busiest second. Those \
         that are used hold theirs for {} in the mean.",
        pool.core.core,
        pool.report.address,
        pool.sums.abandoned,
        pool.sums.used + pool.sums.abandoned,
        percent_text(load.abandoned * 100.0),
        load.rate,
        trimmed(load.timeout),
        load.abandoned,
        trimmed(load.pending_abandoned()),
        trimmed(load.pending()),
        milliseconds(load.wait * 1000.0)
    ))
    .why(format!(
        "99 % of the clients that come do so in {}; 4 times that is {}. Less than \
         {TIMEOUT_SECONDS_MIN} s would lose clients whose first two SYNs got lost (sent again after 1 \
         and 3 s, RFC 6298).",
        quantile(&facts.waits, 0.99),
        milliseconds((4 * p99) as f64)
    ))
    .why(format!(
        "With {seconds} s: {}; that is {} fewer.",
        shorter.shown(),
        trimmed(load.pending() - shorter.pending())
    ));
    Some(advice.setting(format!("accept_timeout = \"{seconds} s\"")))
}

/// A longer `accept_timeout`, where clients come near its end or after it.
pub(super) fn raise_timeout(facts: &Facts<'_>) -> Option<Advice> {
    if !facts.enough {
        return None;
    }
    let timeout = facts.report.settings.accept_timeout_ms;
    let p99 = facts.waits.quantile_ms(0.99).unwrap_or(0);
    let late = p99 * 2 >= timeout;
    let stale = percent(facts.sums.stale, facts.sums.handed_out);
    let many = facts.sums.stale >= STALE_MIN && stale >= STALE_PERCENT;
    if !late && !many {
        return None;
    }
    let longer = std::time::Duration::from_millis(timeout * 2);
    let now = milliseconds(timeout as f64);
    let mut advice = Advice::new(
        Rule::RaiseTimeout,
        format!(
            "Raise accept_timeout from {now} to {}: clients come too late.",
            duration_text(longer)
        ),
    )
    .why(format!(
        "99 % of the clients that came in time did so in {}; {} ({} of {} reservations) came after the \
         end of their reservation and were reset.",
        quantile(&facts.waits, 0.99),
        facts.sums.stale,
        percent_text(stale),
        facts.sums.handed_out
    ));
    if !late {
        advice = advice.why(
            "Since those in time come quickly, the late ones may rather be clients that ask for \
             another port and then use the first; if the number grows on, set it back.",
        );
    }
    let (before, after) = facts
        .pools
        .iter()
        .fold((0.0, 0.0), |(before, after), pool| {
            let load = Load::of(pool, &facts.report.settings);
            let longer = Load {
                timeout: load.timeout * 2.0,
                ..load
            };
            (before + load.pending(), after + longer.pending())
        });
    let advice = advice.why(format!(
        "It costs ports where reservations are abandoned ({}): L over all cores grows from {} to {}.",
        percent_text(facts.sums.abandoned_share() * 100.0),
        trimmed(before),
        trimmed(after)
    ));
    Some(advice.setting(format!("accept_timeout = \"{}\"", duration_text(longer))))
}

/// Fewer ports, where hardly any was used in a day.
pub(super) fn shrink(facts: &Facts<'_>) -> Option<Advice> {
    let settings = &facts.report.settings;
    let unused = |pool: &Pool<'_>| {
        percent(pool.sums.high_water as u64, pool.sums.ports as u64) < UNUSED_PERCENT
    };
    if !facts.enough
        || facts.report.uptime_seconds <= UNUSED_SECONDS
        || !facts.pools.iter().all(unused)
    {
        return None;
    }
    let high = facts.pools.iter().map(|pool| pool.sums.high_water).max()?;
    let now = facts.pools.iter().map(|pool| pool.sums.ports).min()?;
    let per_core = (high * 4).max(settings.ports_per_client).max(PORTS_MIN);
    if per_core * 2 > now {
        return None;
    }
    let cores = facts.report.cores.len();
    let sockets = facts.sums.ports - per_core * facts.pools.len();
    let total = per_core * cores;
    let advice = Advice::new(
        Rule::Shrink,
        format!("Fewer ports would do: {per_core} for each core instead of {now}, {total} in all."),
    )
    .why(format!(
        "In {} no core had more than {} on an address, {} of its ports. Four times that, and no fewer \
         than ports_per_client = {} and {PORTS_MIN}, make {per_core}.",
        super::text::age(facts.report.uptime_seconds),
        counted(high as u64, "reservation"),
        percent_text(percent(high as u64, now as u64)),
        settings.ports_per_client
    ))
    .why(format!(
        "It saves {sockets} descriptors and some {} MiB of kernel memory ({SOCKET_KIB} KiB for each \
         listening socket), and holes in the firewall. It is no fault to leave it.",
        trimmed((sockets * SOCKET_KIB) as f64 / 1024.0)
    ));
    Some(match range(facts, total) {
        Some(range) => advice.setting(format!("passive_ports = \"{range}\"")),
        None => advice,
    })
}

/// A range of so many ports that begins where the only one does now.
fn range(facts: &Facts<'_>, ports: usize) -> Option<String> {
    let mut ranges = facts.pools.iter().flat_map(|pool| &pool.report.ranges);
    let first = ranges.next()?;
    let only = ranges.all(|range| (range.first, range.last) == (first.first, first.last));
    let last = usize::from(first.first) + ports - 1;
    (only && last <= usize::from(u16::MAX)).then(|| format!("{}-{last}", first.first))
}

fn is_strict(settings: &Settings) -> bool {
    settings.peer_check == "strict"
}

/// A quarter more than was seen.
fn with_reserve(ports: usize) -> usize {
    (ports * 5).div_ceil(4)
}

/// So much of a pool in use at a time is too much: the next busy day is busier.
const NEARLY_FULL_PERCENT: f64 = 80.0;

/// Pools that an advice tells of one by one.
const POOLS_TOLD_MAX: usize = 4;

/// So many times what used reservations hold, abandoned ones must hold to be the matter,
const ABANDONED_DOMINATE: f64 = 4.0;
/// and such a share of the ports.
const ABANDONED_PORTS_SHARE: f64 = 0.25;

/// Three SYNs: Linux and others send them at 0, 1 and 3 s.
const TIMEOUT_SECONDS_MIN: u64 = 5;

/// Fewer stale connections are those of single clients.
const STALE_MIN: u64 = 10;
const STALE_PERCENT: f64 = 1.0;

/// A pool of which less was used, in more than a day, is far too large.
const UNUSED_PERCENT: f64 = 5.0;
const UNUSED_SECONDS: u64 = 24 * 3600;

/// Fewer ports on a core would be used again too soon (RFC 2577 §8).
const PORTS_MIN: usize = 32;

/// Measured on Linux 6.18 (x86-64): slab memory of 6000 listening TCP sockets.
const SOCKET_KIB: usize = 4;
