//! How many passive ports a server needs, before it serves: the arithmetic behind
//! `ringftpd ports --plan`.
//!
//! A reservation lives from the reply that names the port until its client has connected, or until
//! `data.accept_timeout` if it never does. With λ of them a second, a share r of which is abandoned,
//! a mean wait T of the others and the timeout t, Little's law gives the mean number pending:
//!
//! ```text
//! L = λ · (T · (1 − r) + t · r)
//! ```
//!
//! A PASV that finds no port is refused and gone, so the ports are a loss system (M/G/c/c), and the
//! share refused is Erlang's B of the ports and L, whatever the distribution of the times. Which
//! requests compete for a port depends on `data.peer_check`: with `strict` a port waits for one
//! reservation of *each* client address, so that every address is a loss system by itself; with
//! `subnet` and `off` a port waits for one client, and all of them compete.

use std::time::Duration;

/// What is known of the load.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Load {
    /// PASV and EPSV a second, on all cores together.
    pub rate: f64,
    /// The round-trip time between a client and the server.
    pub rtt: Duration,
    /// What a client takes between reading the reply and connecting.
    pub think: Duration,
    /// The share of reservations whose clients never come, 0 to 1.
    pub abandoned: f64,
    /// `data.accept_timeout`.
    pub timeout: Duration,
    /// Cores that serve.
    pub cores: usize,
    /// The share of all requests that come from the busiest client address, 0 to 1.
    pub busiest: f64,
    /// A port waits for one client at a time (`data.peer_check` is not `strict`).
    pub exclusive: bool,
    /// `data.ports_per_client`.
    pub per_client_max: usize,
    /// The share of requests that may be refused.
    pub loss: f64,
}

/// What the load needs.
#[derive(Clone, Copy, Debug, PartialEq)]
pub struct Sizing {
    /// T: the mean wait of a reservation whose client comes, in seconds.
    pub wait: f64,
    /// L: the mean number of reservations pending, on all cores.
    pub pending: f64,
    /// The same on one core.
    pub pending_per_core: f64,
    /// Of these, those of the busiest client address.
    pub pending_of_busiest: f64,
    /// Reservations that compete for the ports of one core, in the mean.
    pub competing: f64,
    /// Ports that one core needs for them.
    pub for_load: usize,
    /// The share of requests refused with that many.
    pub refused: f64,
    /// Reservations that one client address must be able to hold on one core.
    pub per_client_needed: usize,
    /// Ports that one core needs so that none is told again within [`STRAY`].
    pub for_reuse: usize,
    /// Ports that one core should have.
    pub per_core: usize,
    /// Ports that the server should have.
    pub total: usize,
    /// Seconds after which a port is told again, in the mean.
    pub reuse_after: f64,
}

/// How late the first packet of a client that has given up may come: Linux sends a SYN again after 1,
/// 2 and 4 seconds (RFC 6298 §2, §5.5), and clients seldom wait longer.
pub const STRAY: Duration = Duration::from_secs(7);

/// Fewer ports on a core are easily guessed (RFC 2577 §8), and save nothing.
pub const PER_CORE_MIN: usize = 16;

/// Beyond this, a port that comes round sooner than [`STRAY`] is put up with: a late connection is
/// still told from the next one by its address, and what waits in the queue is thrown away.
pub const FOR_REUSE_MAX: usize = 1000;

/// More ports than this a server cannot have: 1024 to 65535.
pub const PORTS_MAX: usize = 64_512;

impl Load {
    /// What this load needs; `None` if more than [`PORTS_MAX`] ports on a core.
    pub fn sizing(&self) -> Option<Sizing> {
        let cores = self.cores.max(1) as f64;
        // On the server's clock: the reply travels half a round trip, the client's SYN another half;
        // accept(2) has the connection when the answer to the SYN-ACK has come, one more.
        let wait = 2.0 * self.rtt.as_secs_f64() + self.think.as_secs_f64();
        let used = 1.0 - self.abandoned;
        let pending = self.rate * (wait * used + self.timeout.as_secs_f64() * self.abandoned);
        let pending_per_core = pending / cores;
        // A client that matters has many sessions, and the kernel spreads sessions over the cores.
        let pending_of_busiest = pending_per_core * self.busiest;
        let competing = match self.exclusive {
            true => pending_per_core,
            false => pending_of_busiest,
        };
        let for_load = servers_for(competing, self.loss)?;
        let per_client_needed = servers_for(pending_of_busiest, self.loss)?;
        let rate_per_core = self.rate / cores;
        let for_reuse = (rate_per_core * STRAY.as_secs_f64()).ceil() as usize;
        let per_core = for_load.max(for_reuse.min(FOR_REUSE_MAX)).max(PER_CORE_MIN);
        Some(Sizing {
            wait,
            pending,
            pending_per_core,
            pending_of_busiest,
            competing,
            for_load,
            refused: erlang_b(for_load, competing),
            per_client_needed,
            for_reuse,
            per_core,
            total: per_core * self.cores.max(1),
            reuse_after: per_core as f64 / rate_per_core,
        })
    }
}

/// Erlang's B: the share of arrivals that find all of `servers` busy when `load` would be busy in the
/// mean. By the recursion B(0) = 1, B(n) = a·B(n−1) / (n + a·B(n−1)), which is stable.
pub fn erlang_b(servers: usize, load: f64) -> f64 {
    (1..=servers).fold(1.0, |blocked, server| {
        load * blocked / (server as f64 + load * blocked)
    })
}

/// The fewest servers that turn away no more than `loss`; `None` if more than [`PORTS_MAX`].
pub fn servers_for(load: f64, loss: f64) -> Option<usize> {
    let mut blocked = 1.0;
    for server in 1..=PORTS_MAX {
        blocked = load * blocked / (server as f64 + load * blocked);
        if blocked <= loss {
            return Some(server);
        }
    }
    None
}

#[cfg(test)]
mod tests;
