//! How many passive ports a server needs, told before it runs: arithmetic, without I/O and clock.
//!
//! A PASV that finds no port is refused at once (425), it does not queue. Such a loss system is
//! Erlang's: requests that come at random (Poisson), `n` servers, and a share B(n, a) of requests
//! refused, where the load `a` is the mean number of servers that would be busy if there were
//! enough. B depends on the holding times only through their mean (Sevast'yanov 1957), which is
//! what allows for ports that are held for milliseconds by clients that come, and for
//! `data.accept_timeout` by those that do not.
//!
//! What the servers are depends on `data.peer_check`. Exclusive ports (`subnet`, `off`) are the
//! servers of all clients of a core. Under `strict` a port waits for any number of clients, once
//! for each address: every address is a loss system of its own, with all ports of the core as its
//! servers, and the busiest address decides.
//!
//! `data.ports_per_client` is a second loss system, of one address under both kinds of ports. Where
//! a request needs both a port and to be below that bound, the share refused is at most the sum of
//! the two shares (Whitt 1985).
//!
//! Assumed: sessions are spread evenly over the cores. The kernel does that by a hash of addresses
//! and ports (SO_REUSEPORT, socket(7)), hence for connections and not for clients: of an address
//! with many sessions, every core has its part. An address with few sessions may have them all on
//! one core; [`Sizing::for_loss_gathered`] is the figure for that.

use std::time::Duration;

use crate::config::PortRange;

/// What is known or assumed about the traffic and the server.
#[derive(Clone, Debug, PartialEq)]
pub struct Plan {
    /// PASV and EPSV commands per second, on all cores together.
    pub rate: f64,
    /// From the server to a client and back.
    pub rtt: Duration,
    /// What a client waits by itself: between the 227 and connecting, and before it sends the
    /// command that uses the connection.
    pub think: Duration,
    /// The share (0 to 1) of reservations whose clients never come.
    pub abandoned: f64,
    /// `data.accept_timeout`.
    pub timeout: Duration,
    /// Cores; each has its own ports.
    pub cores: usize,
    /// The share (0 to 1) of all requests that comes from the busiest client address.
    pub busiest: f64,
    /// Whom a port can wait for at a time.
    pub peers: Peers,
    /// `data.ports_per_client`: for one client address on one core.
    pub per_client_max: usize,
    /// The share (0 to 1) of requests that may be refused.
    pub loss: f64,
}

/// Whom a port can wait for at a time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Peers {
    /// One client of each address: `data.peer_check = "strict"`.
    Strict,
    /// One client: `subnet` and `off`.
    Exclusive,
}

/// The answer, with what it was worked out from. "Load" is a mean number of reservations.
#[derive(Clone, Debug, PartialEq)]
pub struct Sizing {
    /// How long a reservation lives whose client comes, in seconds.
    pub used_seconds: f64,
    /// How long a reservation lives on average, in seconds.
    pub mean_seconds: f64,
    /// The load on the whole server.
    pub load: f64,
    /// The share of it (0 to 1) that abandoned reservations make.
    pub load_abandoned: f64,
    /// The load on one core.
    pub load_core: f64,
    /// The load that the busiest address puts on one core.
    pub load_busiest: f64,
    /// Of the two, the one that the ports of a core are sized for.
    pub load_sized: f64,
    /// Ports per core for [`Plan::loss`]; `None`: more than [`PORTS_MAX`].
    pub for_loss: Option<usize>,
    /// The same, should all sessions of the busiest address be on one core.
    pub for_loss_gathered: Option<usize>,
    /// Ports per core that let a port rest for `stray_seconds`, on average.
    pub for_rest: f64,
    /// PASV and EPSV commands per second on one core.
    pub rate_core: f64,
    /// How long after its 227 a reservation's connection can come, in seconds.
    pub stray_seconds: f64,
    /// The recommendation.
    pub per_core: usize,
    /// The recommendation for all cores: at most [`PORTS_MAX`].
    pub total: usize,
    /// What the recommendation follows from.
    pub reason: Reason,
    /// The share of requests (0 to 1) refused with the recommended ports, as far as they decide.
    pub refused: f64,
    /// How long a port rests with the recommended ports, on average, in seconds.
    pub rest_seconds: f64,
    /// The share of its requests (0 to 1) that the busiest address is refused because of
    /// [`Plan::per_client_max`].
    pub per_client_refused: f64,
    /// What `data.ports_per_client` has to be for [`Plan::loss`]; `None`: more than [`PORTS_MAX`].
    pub per_client_needed: Option<usize>,
    /// Where to put the ports.
    pub range: PortRange,
}

/// What a number of ports follows from.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// The share of requests that may be refused.
    Loss,
    /// The rest of a port until it is handed out again.
    Rest,
    /// [`PER_CORE_MIN`].
    Floor,
    /// There are no more ports; more than [`Plan::loss`] are refused.
    Exhausted,
}

impl Plan {
    /// Works the ports out.
    pub fn size(&self) -> Sizing {
        let timeout = self.timeout.as_secs_f64();
        let used_seconds = self.used_seconds().min(timeout);
        let used = used_seconds * (1.0 - self.abandoned);
        // An abandoned reservation ends sooner if the client asks for another port or leaves. The
        // timeout is the worst case, and the usual one for a client behind a firewall.
        let abandoned = timeout * self.abandoned;
        let mean_seconds = used + abandoned;
        // Little's law: the mean number of those that wait is rate × mean wait.
        let load = self.rate * mean_seconds;
        let cores = self.cores.clamp(1, PORTS_MAX);
        let load_core = load / cores as f64;
        let load_busiest = load_core * self.busiest;
        let (load_sized, gathered) = match self.peers {
            Peers::Strict => (load_busiest, load * self.busiest),
            // The others keep to their cores.
            Peers::Exclusive => (
                load_core,
                load * self.busiest + load_core * (1.0 - self.busiest),
            ),
        };
        let rate_core = self.rate / cores as f64;
        let stray_seconds = (self.rtt + self.think + STRAY_SYN).as_secs_f64();
        let for_loss = servers_for(load_sized, self.loss);
        let for_rest = (load_sized + rate_core * stray_seconds).ceil();
        let (per_core, reason) = recommend(for_loss, for_rest, cores);
        let total = per_core * cores;
        Sizing {
            used_seconds,
            mean_seconds,
            load,
            load_abandoned: share_of(abandoned, mean_seconds),
            load_core,
            load_busiest,
            load_sized,
            for_loss,
            for_loss_gathered: servers_for(gathered, self.loss),
            for_rest,
            rate_core,
            stray_seconds,
            per_core,
            total,
            reason,
            refused: erlang_b(per_core, load_sized),
            rest_seconds: (per_core as f64 - load_sized).max(0.0) / rate_core,
            per_client_refused: erlang_b(self.per_client_max, load_busiest),
            per_client_needed: servers_for(load_busiest, self.loss),
            range: place(total),
        }
    }

    /// How long a reservation lives whose client comes, on the server's clock: from its 227 to the
    /// accept that takes the connection.
    ///
    /// The 227 takes half a round trip to the client, the client's SYN another half back. The
    /// connection can be accepted when the ACK of the SYN-ACK is there (RFC 9293 §3.5), a round
    /// trip later. RETR goes out right behind that ACK, so that the reservation ends then also if
    /// it waits for the command. A lost SYN costs a second more: its share belongs to `think`.
    pub fn used_seconds(&self) -> f64 {
        2.0 * self.rtt.as_secs_f64() + self.think.as_secs_f64()
    }
}

/// The share (0 to 1) of requests that `servers` servers refuse under `load` (Erlang's B).
///
/// B(0) = 1, B(n) = a·B(n−1) / (n + a·B(n−1)): all terms are positive, so that nothing cancels, and
/// a share too small for a float becomes 0. The closed form aⁿ/n! overflows beyond n = 170.
pub fn erlang_b(servers: usize, load: f64) -> f64 {
    (1..=servers).fold(1.0, |refused, servers| one_more(refused, servers, load))
}

/// The least number of servers that refuse at most the share `loss`; `None`: more than
/// [`PORTS_MAX`].
pub fn servers_for(load: f64, loss: f64) -> Option<usize> {
    let mut refused = 1.0;
    (1..=PORTS_MAX).find(|servers| {
        refused = one_more(refused, *servers, load);
        refused <= loss
    })
}

/// Erlang's B for `servers` from that for one less.
fn one_more(refused: f64, servers: usize, load: f64) -> f64 {
    let carried_on = load * refused;
    carried_on / (servers as f64 + carried_on)
}

/// Ports per core, and why so many.
fn recommend(for_loss: Option<usize>, for_rest: f64, cores: usize) -> (usize, Reason) {
    let most = PORTS_MAX / cores;
    let Some(for_loss) = for_loss.filter(|ports| *ports <= most) else {
        return (most, Reason::Exhausted);
    };
    // Refusals are felt at once, a stray is rare: just for a rest, neither the ports of services
    // nor those of outgoing connections are taken.
    let harmless = usize::from(EPHEMERAL_FIRST - SERVICES_END) / cores;
    let for_rest = (for_rest as usize).min(harmless);
    let floor = PER_CORE_MIN.min(most);
    if for_loss >= for_rest.max(floor) {
        (for_loss, Reason::Loss)
    } else if for_rest >= floor {
        (for_rest, Reason::Rest)
    } else {
        (floor, Reason::Floor)
    }
}

/// Where `total` ports fit best, 1 to [`PORTS_MAX`]: where the default is, else below the ports of
/// outgoing connections, else at the upper end, so that one range is left for those.
fn place(total: usize) -> PortRange {
    let below = usize::from(EPHEMERAL_FIRST);
    let (min, default) = (usize::from(PORT_MIN), usize::from(DEFAULT_FIRST));
    let first = if default + total <= below {
        default
    } else if min + total <= below {
        ((below - total) / ROUND * ROUND).max(min)
    } else {
        usize::from(u16::MAX) + 1 - total
    };
    let last = (first + total).saturating_sub(1);
    let range = u16::try_from(first)
        .ok()
        .zip(u16::try_from(last).ok())
        .and_then(|(first, last)| PortRange::new(first, last));
    // In each of the cases above 1024 ≤ first ≤ last ≤ 65535, since 1 ≤ total ≤ PORTS_MAX.
    range.expect("a range of as many ports as there are")
}

fn share_of(part: f64, whole: f64) -> f64 {
    if whole > 0.0 { part / whole } else { 0.0 }
}

/// All ports that are not privileged: 1024 to 65535.
pub const PORTS_MAX: usize = 64_512;

/// Fewer ports on a core save nothing and make the next one easy to guess (RFC 2577 §8).
pub const PER_CORE_MIN: usize = 16;

/// How long after its first SYN a client's SYN can still come: three retransmissions after 1, 2 and
/// 4 s (RFC 6298 §2.1, §5.5), or six of Linux 6.5 or newer, whose first five come at intervals of
/// 1 s (ip-sysctl: tcp_syn_linear_timeouts). More than three losses in a row mean that the way is
/// blocked.
pub const STRAY_SYN: Duration = Duration::from_secs(1 + 2 + 4);

/// The first port that Linux gives to outgoing connections (ip-sysctl: ip_local_port_range).
pub const EPHEMERAL_FIRST: u16 = 32_768;

/// Most services have registered lower ports (RFC 6335 §6).
pub const SERVICES_END: u16 = 10_000;

const PORT_MIN: u16 = 1024;
const DEFAULT_FIRST: u16 = 30_000;

/// Ranges begin at a round number where they can.
const ROUND: usize = 1000;

#[cfg(test)]
mod tests;
