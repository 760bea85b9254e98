//! What the passive ports of a running server look like: the vocabulary between the cores, which
//! count, and whoever shows it (`ringftpd ports`, the metrics).

use std::net::IpAddr;

use serde::{Deserialize, Serialize};

/// The whole server at one moment.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Report {
    /// The server's version.
    pub version: String,
    /// Its process.
    pub pid: u32,
    /// Since its start.
    pub uptime_seconds: u64,
    /// The settings in force.
    pub settings: Settings,
    /// Every core, in order.
    pub cores: Vec<CoreReport>,
    /// How often something was refused because of a quota.
    pub quota_refusals: u64,
    /// What has become of the logins.
    #[serde(default)]
    pub logins: LoginReport,
}

/// The logins of all cores, since the start.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct LoginReport {
    /// Logins that led into a session.
    pub accepted: u64,
    /// Logins refused for what they brought.
    pub refused: u64,
    /// Logins refused, whatever they brought, in a lockout.
    pub locked_out: u64,
    /// Logins that could not be judged.
    #[serde(default)]
    pub unavailable: u64,
    /// Password hashes computed.
    pub hashes: u64,
    /// Passwords found right without a hash.
    pub remembered: u64,
}

/// The settings of `[data]` that explain the figures.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Settings {
    /// `data.accept_timeout`.
    pub accept_timeout_ms: u64,
    /// `data.ports_per_client`: for one client address on one core.
    pub ports_per_client: usize,
    /// `data.peer_check`: `strict`, `subnet` or `off`.
    pub peer_check: String,
    /// `data.borrow`: a dry core takes ports of others.
    pub borrow: bool,
}

/// One core.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct CoreReport {
    /// Its number, from 0.
    pub core: usize,
    /// The CPU it is pinned to.
    pub cpu: usize,
    /// Sessions now.
    pub sessions: usize,
    /// Sessions now whose user is logged in.
    #[serde(default)]
    pub logged_in: usize,
    /// Transfers now.
    pub transfers: usize,
    /// Control connections given to a core with less to do, before their greeting.
    pub handed_over: u64,
    /// Control connections taken over from busier cores.
    pub taken_over: u64,
    /// Its passive ports, one pool for each address that is listened on.
    pub pools: Vec<PoolReport>,
    /// Its active data connections.
    pub active: ActiveReport,
}

/// The passive ports of one core on one address.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct PoolReport {
    /// The address the ports are bound to.
    pub address: IpAddr,
    /// The ranges of the configuration, as far as this core has, or should have, ports of them.
    pub ranges: Vec<RangeReport>,
    /// PASV commands that named a port.
    pub pasv: Rate,
    /// EPSV commands that named a port.
    pub epsv: Rate,
    /// PASV and EPSV that named none.
    pub refusals: Refusals,
    /// Ports that came from other cores or went to them, since the start.
    pub borrowed: Borrowed,
    /// From the reply that named the port to the client's connection.
    pub waits: Histogram,
    /// The client addresses with most reservations, the greatest first.
    pub top_clients: Vec<(IpAddr, usize)>,
}

/// The ports of one range that one core has.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct RangeReport {
    /// The lowest port of the range.
    pub first: u16,
    /// The highest port of the range.
    pub last: u16,
    /// Ports that this core has now, borrowed ones included.
    pub ports: usize,
    /// Of these, ports without a reservation.
    pub free: usize,
    /// Reservations that wait for their clients; one port can wait for many clients.
    pub reserved: usize,
    /// The most reservations at a time since the start.
    pub high_water: usize,
    /// Ports of this core's slice that another program holds; not among `ports`.
    pub unavailable: Vec<u16>,
    /// Of `ports`, those that will go as soon as their last reservation has ended (after a reload).
    pub leaving: usize,
    /// Reservations since the start.
    pub handed_out: u64,
    /// Reservations whose client came.
    pub used: u64,
    /// Reservations that ended without their client: timed out, replaced by another PASV, or given
    /// up with the session.
    pub abandoned: u64,
    /// Connections from addresses that no reservation waited for; all were reset.
    pub strangers: u64,
    /// Connections that came for a reservation that had ended before; all were reset.
    pub stale: u64,
}

/// How often something happened.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Rate {
    /// Since the start.
    pub total: u64,
    /// Per second, over the last 10 seconds.
    pub last_10_seconds: f64,
    /// Per second, over the last minute.
    pub last_minute: f64,
    /// The busiest second since the start.
    pub peak_second: u64,
}

/// Why passive ports were refused, since the start.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Refusals {
    /// The client address held as many ports as one may (`data.ports_per_client`).
    pub client_limit: u64,
    /// No port was left for the client, and no other core could lend one.
    pub dry: u64,
    /// The name of `data.passive_address` has no address yet.
    pub address_unknown: u64,
}

/// Ports that moved between cores, since the start.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Borrowed {
    /// Ports taken from other cores.
    pub taken: u64,
    /// Ports given to other cores.
    pub given: u64,
    /// Times that this core was dry and no other core had a port to spare.
    pub refused: u64,
}

/// Durations counted by powers of two: bucket 0 has those below 1 ms, bucket n those from 2^(n−1)
/// to below 2^n ms, the last one all the rest.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Histogram {
    /// The counts.
    pub buckets: [u64; BUCKETS],
    /// The sum of all durations, in microseconds.
    pub sum_us: u64,
}

/// Buckets of a [`Histogram`]; the last one begins at 32.8 s.
pub const BUCKETS: usize = 17;

/// The active data connections of one core, since the start.
#[derive(Clone, Copy, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct ActiveReport {
    /// PORT commands.
    pub port: Rate,
    /// EPRT commands.
    pub eprt: Rate,
    /// Connections made.
    pub connected: u64,
    /// Connections that the client's side refused.
    pub refused: u64,
    /// Connections that did not come about within `data.connect_timeout`, or failed otherwise.
    pub failed: u64,
    /// Connections that had to leave from another port than `data.active_source_port`.
    pub other_source_port: u64,
    /// PORT and EPRT with a foreign address or a port below 1024, refused.
    pub bounces: u64,
}

impl RangeReport {
    /// Ports with a reservation that stay after it.
    pub fn busy(&self) -> usize {
        self.ports.saturating_sub(self.free + self.leaving)
    }
}

impl Refusals {
    /// For whatever reason.
    pub fn all(&self) -> u64 {
        self.client_limit + self.dry + self.address_unknown
    }
}

impl Histogram {
    /// Counts the durations of another one too.
    pub fn add(&mut self, other: &Self) {
        for (count, more) in self.buckets.iter_mut().zip(other.buckets) {
            *count += more;
        }
        self.sum_us += other.sum_us;
    }

    /// How many durations.
    pub fn count(&self) -> u64 {
        self.buckets.iter().sum()
    }

    /// The upper end, in milliseconds, of the bucket in which the share `quantile` (0 to 1) of the
    /// durations ends; `None` when there are none.
    pub fn quantile_ms(&self, quantile: f64) -> Option<u64> {
        let wanted = (quantile * self.count() as f64).ceil().max(1.0) as u64;
        let mut seen = 0;
        self.buckets.iter().enumerate().find_map(|(bucket, count)| {
            seen += count;
            (seen >= wanted).then_some(1 << bucket)
        })
    }

    /// The mean, in milliseconds; `None` when there are none.
    pub fn mean_ms(&self) -> Option<f64> {
        let count = self.count();
        (count > 0).then(|| self.sum_us as f64 / 1000.0 / count as f64)
    }
}
