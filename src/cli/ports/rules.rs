//! The rules that have no queueing in them: what was refused, who came, what another program holds,
//! which core has the work, and active connections.

use std::collections::BTreeMap;
use std::net::IpAddr;

use super::advice::{Advice, Facts, Rule};
use super::text::{clients, counted, percent, percent_text, ports, runs};
use crate::data::report::ActiveReport;

/// `data.passive_address` is a name without an address.
pub(super) fn address_unknown(facts: &Facts<'_>) -> Option<Advice> {
    let pools = facts.pools.iter();
    let refused: u64 = pools.map(|p| p.report.refusals.address_unknown).sum();
    (refused > 0).then(|| {
        Advice::new(
            Rule::AddressUnknown,
            "See why the name of passive_address has no address.",
        )
        .why(format!(
            "{refused} PASV were refused since the server could not name its address; EPSV needs none \
             and was not. Ask the resolver of this host (getent ahostsv4 NAME, /etc/resolv.conf); the \
             log has its answer. Where the address never changes, write it instead of the name."
        ))
    })
}

/// Ports that another program holds.
pub(super) fn unavailable(facts: &Facts<'_>) -> Option<Advice> {
    let mut by_address: BTreeMap<IpAddr, Vec<u16>> = BTreeMap::new();
    for pool in &facts.pools {
        let taken = pool
            .report
            .ranges
            .iter()
            .flat_map(|range| &range.unavailable);
        by_address
            .entry(pool.report.address)
            .or_default()
            .extend(taken);
    }
    by_address.retain(|_, taken| !taken.is_empty());
    let count: usize = by_address.values().map(Vec::len).sum();
    if count == 0 {
        return None;
    }
    let mut advice = Advice::new(
        Rule::Unavailable,
        format!(
            "Free {} that another program holds, or leave {} out of passive_ports.",
            counted(count as u64, "port"),
            if count == 1 { "it" } else { "them" }
        ),
    );
    for (address, taken) in &by_address {
        advice = advice.why(format!("On {address}: {}.", ports(taken)));
    }
    let mut all: Vec<u16> = by_address.into_values().flatten().collect();
    all.dedup();
    for (first, _) in runs(&all).iter().take(COMMANDS_MAX) {
        advice = advice.why(format!("Who holds it: ss -ltnp 'sport = :{first}'"));
    }
    Some(advice.why(
        "If nobody listens there, an outgoing connection has the port (ss -tan 'sport = :PORT'): take the range out of net.ipv4.ip_local_port_range, or reserve it by \
         net.ipv4.ip_local_reserved_ports.",
    ))
}

/// Clients that asked for more ports than one may hold.
pub(super) fn client_limit(facts: &Facts<'_>) -> Option<Advice> {
    let limit = facts.report.settings.ports_per_client;
    let refusing: Vec<_> = facts
        .pools
        .iter()
        .filter(|pool| pool.report.refusals.client_limit > 0)
        .collect();
    let refused: u64 = refusing
        .iter()
        .map(|p| p.report.refusals.client_limit)
        .sum();
    let smallest = facts.pools.iter().map(|pool| pool.sums.ports).min()?;
    if refused == 0 {
        return None;
    }
    let mut top: Vec<(IpAddr, usize)> = refusing
        .iter()
        .flat_map(|pool| pool.report.top_clients.iter().copied())
        .collect();
    top.sort_by_key(|(_, pending)| std::cmp::Reverse(*pending));
    top.truncate(CLIENTS_TOLD_MAX);
    let who = match top.is_empty() {
        true => "None waits at the moment.".to_owned(),
        false => format!("Most wait for: {}.", clients(&top)),
    };
    // One client cannot hold a port twice.
    let more = (limit * 2).min(smallest);
    let what = match more > limit {
        true => format!(
            "See which client wants more than {limit} ports, and raise ports_per_client if it may."
        ),
        false => format!(
            "See which client wants more than {limit} ports; ports_per_client cannot help above the \
             {smallest} ports of a core."
        ),
    };
    let advice = Advice::new(Rule::ClientLimit, what)
        .why(format!(
            "{refused} refused because an address had {limit} reservations on one core already. {who}"
        ))
        .why(format!(
            "Many people behind one translated address, or a mirror with many sessions, may need more. \
             A client that asks and never connects ({} of the reservations are abandoned) is broken or \
             an abuser: no limit will be enough, limits.sessions_per_ip or the firewall helps.",
            percent_text(facts.sums.abandoned_share() * 100.0)
        ));
    Some(match more > limit {
        true => advice.setting(format!("ports_per_client = {more}")),
        false => advice,
    })
}

/// One core has much more to do with its ports than another.
pub(super) fn uneven(facts: &Facts<'_>) -> Option<Advice> {
    let cores: Vec<Core> = Core::all(facts);
    let by_fill = |a: &&Core, b: &&Core| a.fill.total_cmp(&b.fill);
    let fullest = cores.iter().max_by(by_fill)?;
    let emptiest = cores.iter().min_by(by_fill)?;
    let borrower = cores.iter().max_by_key(|core| core.taken)?;
    let others = facts.report.cores.len().checked_sub(1).filter(|n| *n > 0)? as u64;
    let taken_by_others = cores.iter().map(|core| core.taken).sum::<u64>() - borrower.taken;
    let fills_differ = fullest.fill >= UNEVEN_FILL_MIN && fullest.fill > 2.0 * emptiest.fill;
    let borrows = borrower.taken >= BORROWED_MIN && borrower.taken * others > 4 * taken_by_others;
    let weights = weights(&cores.iter().map(|core| core.handed_out).collect::<Vec<_>>());
    let all_same = weights.iter().all(|weight| *weight == weights[0]);
    if !facts.enough || !(fills_differ || borrows) || all_same {
        return None;
    }
    let handed_out: u64 = cores.iter().map(|core| core.handed_out).sum();
    let all: usize = cores.iter().map(|core| core.ports).sum();
    let sum: usize = weights.iter().sum();
    let mut advice = Advice::new(
        Rule::Uneven,
        "Give the cores with more work a larger slice of the ports.",
    );
    for (core, weight) in cores.iter().zip(&weights).take(CORES_TOLD_MAX) {
        advice = advice.why(format!(
            "Core {}: {} handed out ({}), high-water mark {:.0} % of its ports, {} borrowed and {} \
             lent; {} now, {} with weight {weight}.",
            core.number,
            core.handed_out,
            percent_text(percent(core.handed_out, handed_out)),
            core.fill * 100.0,
            core.taken,
            core.given,
            counted(core.ports as u64, "port"),
            all * weight / sum
        ));
    }
    let told: Vec<String> = weights.iter().map(ToString::to_string).collect();
    let advice = advice.why(
        "The weights are the shares of what was handed out. The kernel spreads clients over the cores \
         by a hash; a few clients with much work stay uneven.",
    );
    Some(advice.setting(format!("passive_slices = [{}]", told.join(", "))))
}

/// What `uneven` compares.
#[derive(Debug)]
struct Core {
    number: usize,
    /// On the address with most of them.
    ports: usize,
    handed_out: u64,
    taken: u64,
    given: u64,
    /// High-water mark by ports, of the fullest pool.
    fill: f64,
}

impl Core {
    fn all(facts: &Facts<'_>) -> Vec<Self> {
        let cores = facts.report.cores.iter().map(|core| {
            let pools = || {
                facts
                    .pools
                    .iter()
                    .filter(|pool| pool.core.core == core.core)
            };
            let fill = |pool: &super::advice::Pool<'_>| {
                percent(pool.sums.high_water as u64, pool.sums.ports as u64) / 100.0
            };
            Self {
                number: core.core,
                ports: pools().map(|pool| pool.sums.ports).max().unwrap_or(0),
                handed_out: pools().map(|pool| pool.sums.handed_out).sum(),
                taken: pools().map(|pool| pool.report.borrowed.taken).sum(),
                given: pools().map(|pool| pool.report.borrowed.given).sum(),
                fill: pools().map(fill).fold(0.0, f64::max),
            }
        });
        cores.collect()
    }
}

/// Small whole numbers in about the proportion of `counts`: the least is 1 to 3, none more than
/// [`WEIGHT_MAX`] times that.
fn weights(counts: &[u64]) -> Vec<usize> {
    let greatest = counts.iter().copied().max().unwrap_or(0).max(1) as f64;
    let least = counts.iter().copied().min().unwrap_or(0) as f64;
    let unit = least.max(greatest / WEIGHT_MAX);
    let exact: Vec<f64> = counts.iter().map(|n| (*n as f64 / unit).max(1.0)).collect();
    let scaled = |scale: f64| exact.iter().map(move |weight| weight * scale);
    let close = |weight: f64| (weight.round() - weight).abs() <= weight * WEIGHT_ERROR;
    let scale = [1.0, 2.0, 3.0]
        .into_iter()
        .find(|scale| scaled(*scale).all(close));
    scaled(scale.unwrap_or(1.0))
        .map(|weight| weight.round() as usize)
        .collect()
}

/// Connections from addresses that nobody waited for.
pub(super) fn strangers(facts: &Facts<'_>) -> Option<Advice> {
    let sums = &facts.sums;
    let share = percent(sums.strangers, sums.handed_out);
    if !facts.enough || sums.strangers < STRANGERS_MIN || share < STRANGERS_PERCENT {
        return None;
    }
    let figures = format!(
        "{} came from an address that no reservation waited for ({} of {} reservations), {} reservations \
         ({}) were abandoned.",
        counted(sums.strangers, "connection"),
        percent_text(share),
        sums.handed_out,
        sums.abandoned,
        percent_text(sums.abandoned_share() * 100.0)
    );
    let named = "At log.level debug, the log names each: \"stranger on a passive port reset\".";
    let as_many = (sums.abandoned / 2..=sums.abandoned * 2).contains(&sums.strangers);
    if !as_many {
        let what = "Strangers try the passive ports; nothing to do but in the firewall.";
        return Some(Advice::new(Rule::Strangers, what).why(figures).why(format!(
            "They are not as many as abandoned reservations, so hardly clients under another \
                     address: rather a scan. Each was reset, and no reservation was harmed. {named}"
        )));
    }
    let why = format!(
        "As many strangers as abandoned reservations: the clients themselves seem to come from another \
         address than that of their control connection, as behind a NAT with several addresses, or \
         behind a proxy or load balancer before one of the two connections. {named}"
    );
    let strict = facts.report.settings.peer_check == "strict";
    let advice = Advice::new(
        Rule::Strangers,
        match strict {
            true => "Let clients connect from a neighbouring address, or keep their address.",
            false => "See why clients do not connect from the network of their control connection.",
        },
    )
    .why(figures)
    .why(why);
    Some(match strict {
        true => advice
            .why(
                "If the log shows addresses of the same network (IPv4 /24, IPv6 /64), accept those; a \
                 port then waits for one client only, so see that there are enough. Otherwise let the \
                 translator or proxy keep one address for a client (iptables: SNAT --persistent; \
                 ipvs: a persistent service).",
            )
            .setting("peer_check = \"subnet\""),
        false => advice.why(
            "Let the translator or proxy keep one address for a client. peer_check = \"off\" would take \
             them too, and whoever is first at a port.",
        ),
    })
}

/// Connections to clients that did not come about.
pub(super) fn active_failed(facts: &Facts<'_>) -> Option<Advice> {
    let active = active(facts);
    let bad = active.refused + active.failed;
    let tried = active.connected + bad;
    (bad >= ACTIVE_MIN && percent(bad, tried) >= ACTIVE_PERCENT).then(|| {
        Advice::new(
            Rule::ActiveFailed,
            "Let clients use passive mode: they cannot be reached in active mode.",
        )
        .why(format!(
            "Of {} to clients (PORT, EPRT), {} ({}) got no answer in connect_timeout or failed \
             otherwise, and {} ({}) were refused.",
            counted(tried, "connection"),
            active.failed,
            percent_text(percent(active.failed, tried)),
            active.refused,
            percent_text(percent(active.refused, tried))
        ))
        .why(
            "No answer: a firewall at the client, or an address translator that knows nothing of the \
             connection. Refused: the client no longer listens, or the translator answers for it. \
             Nothing on this side helps; if this host's firewall bounds outgoing connections, let \
             those from active_source_port out.",
        )
    })
}

/// Connections that did not leave from the port that was wanted.
pub(super) fn source_port(facts: &Facts<'_>) -> Option<Advice> {
    let active = active(facts);
    (active.other_source_port > 0).then(|| {
        Advice::new(
            Rule::SourcePort,
            "Active connections left from another port than active_source_port; mostly harmless.",
        )
        .why(format!(
            "{} of {} made: two connections cannot have the same ports and addresses at both ends, so \
             one to a client's port that has just been used (TIME_WAIT, 60 s) leaves from any port.",
            active.other_source_port,
            counted(active.connected, "connection")
        ))
        .why(
            "Old firewalls at clients let data in from port 20 only (RFC 959 section 3.2). If it is \
             nearly all, the server may not bind the port: start it as root with server.user, or give \
             it CAP_NET_BIND_SERVICE.",
        )
    })
}

/// PORT and EPRT that wanted a connection to somebody else.
pub(super) fn bounces(facts: &Facts<'_>) -> Option<Advice> {
    let active = active(facts);
    let asked = active.port.total + active.eprt.total;
    let share = percent(active.bounces, asked.max(active.bounces));
    (active.bounces >= ACTIVE_MIN && share >= ACTIVE_PERCENT).then(|| {
        Advice::new(
            Rule::Bounces,
            "Clients ask for connections to other addresses than their own; all were refused.",
        )
        .why(format!(
            "{} of {asked} PORT and EPRT commands ({}). They are attempts at bouncing (RFC 2577 section \
             3), or clients behind an address translator that name their private address: those \
             should use passive mode.",
            active.bounces,
            percent_text(share)
        ))
    })
}

/// The active connections of all cores, but for their rates.
fn active(facts: &Facts<'_>) -> ActiveReport {
    let mut sum = ActiveReport::default();
    for active in facts.report.cores.iter().map(|core| &core.active) {
        sum.port.total += active.port.total;
        sum.eprt.total += active.eprt.total;
        sum.connected += active.connected;
        sum.refused += active.refused;
        sum.failed += active.failed;
        sum.other_source_port += active.other_source_port;
        sum.bounces += active.bounces;
    }
    sum
}

/// Commands and clients that an advice names; the table has all of them.
const COMMANDS_MAX: usize = 3;
const CLIENTS_TOLD_MAX: usize = 3;
const CORES_TOLD_MAX: usize = 16;

/// Below, no core lacks anything, however uneven they are.
const UNEVEN_FILL_MIN: f64 = 0.2;
/// Fewer borrowed ports are a passing thing.
const BORROWED_MIN: u64 = 10;

/// A core with hardly any work keeps such a part of the busiest one's ports.
const WEIGHT_MAX: f64 = 16.0;
/// Weights need not be closer: the work of a core changes more from day to day.
const WEIGHT_ERROR: f64 = 0.1;

/// Fewer strangers are strays.
const STRANGERS_MIN: u64 = 20;
const STRANGERS_PERCENT: f64 = 1.0;

/// Fewer failures are those of single clients.
const ACTIVE_MIN: u64 = 10;
const ACTIVE_PERCENT: f64 = 5.0;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn weights_are_small_and_in_proportion() {
        for (counts, expected) in [
            (&[300, 100][..], &[3, 1][..]),
            (&[1_359_552, 422_337], &[3, 1]),
            (&[150, 100], &[3, 2]),
            (&[100, 100], &[1, 1]),
            (&[105, 100], &[1, 1]),
            (&[1_000_000, 0], &[16, 1]),
            (&[0, 0], &[1, 1]),
            (&[400, 100, 133], &[12, 3, 4]),
        ] {
            let found = weights(counts);
            assert_eq!(found, expected, "{counts:?}");
        }
    }
}
