//! What keeps clients from taking more of the server than their share: rates of transfers and of events,
//! and the number of a user's sessions; for all cores together.
//!
//! Rates are buckets (`bucket`) that cores share without a lock. A transfer looks at its beginning
//! which of them it is held to ([`Throttle::pace`]); with none it does not look again.

mod arrivals;
mod bucket;
mod hits;

use std::collections::HashMap;
use std::hash::Hash;
use std::net::IpAddr;
use std::num::NonZeroU64;
use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError, Weak};
use std::time::{Duration, Instant};

pub use hits::{Hits, Limit, Seldom};

use crate::config::{Allowance, Config, Rates};
use crate::proto::failure::Failure;
use crate::proto::network;
pub use crate::quota::Direction;
use crate::quota::Volume;

use arrivals::Arrivals;
use bucket::{Bucket, Events};

/// The limits of the server, and who has used how much of them. Shared by all cores.
#[derive(Debug)]
pub struct Throttle {
    /// From which times are counted.
    base: Instant,
    /// What each client address may.
    each_client: Pair,
    total: Arc<Pair>,
    clients: Mutex<HashMap<IpAddr, Weak<Pair>>>,
    users: Mutex<HashMap<String, Weak<Group>>>,
    hosts: Mutex<HashMap<String, Weak<Group>>>,
    connections_per_minute: AtomicU32,
    arrivals: Mutex<Arrivals>,
    /// How long transfers have waited for their rates, in microseconds, down and up.
    waited: [AtomicU64; 2],
    /// How often limits were hit.
    pub hits: Hits,
}

impl Throttle {
    /// With the limits of a configuration.
    pub fn new(config: &Config) -> Self {
        let throttle = Self {
            base: Instant::now(),
            each_client: Pair::default(),
            total: Arc::default(),
            clients: Mutex::default(),
            users: Mutex::default(),
            hosts: Mutex::default(),
            connections_per_minute: AtomicU32::default(),
            arrivals: Mutex::default(),
            waited: Default::default(),
            hits: Hits::default(),
        };
        throttle.set(config);
        throttle
    }

    /// Goes on with the limits of another configuration: transfers that are held to a rate are held to
    /// the new one from their next piece on.
    pub fn set(&self, config: &Config) {
        let limits = &config.limits;
        self.total.set(limits.total_rates);
        self.each_client.set(limits.ip_rates);
        for client in locked(&self.clients).values().filter_map(Weak::upgrade) {
            client.set(limits.ip_rates);
        }
        let hosts = locked(&self.hosts);
        for host in &config.hosts {
            if let Some(group) = hosts.get(&host.name).and_then(Weak::upgrade) {
                group.pair.set(host.allowance.rates);
            }
        }
        let connections = limits.connections_per_minute;
        self.connections_per_minute
            .store(connections, Ordering::Relaxed);
    }

    /// Whether a control connection may come from `client` now.
    pub fn admits(&self, client: IpAddr) -> bool {
        let per_minute = self.connections_per_minute.load(Ordering::Relaxed);
        if per_minute == 0 {
            return true;
        }
        let (network, now) = (network::of_client(client), self.now());
        locked(&self.arrivals).admit(network, per_minute, now)
    }

    /// Lets a session of a user begin.
    ///
    /// # Errors
    /// The limit that has been reached: there are as many sessions as there may be.
    pub fn enter(&self, entry: Entry<'_>) -> Result<Member, Limit> {
        let host = entry.host.map(|(name, allowance)| {
            let host = living(&mut locked(&self.hosts), name.to_owned(), Group::default);
            host.pair.set(allowance.rates);
            (host, allowance.sessions.unwrap_or(0))
        });
        let mut users = locked(&self.users);
        let user = living(&mut users, entry.user.to_owned(), || Group {
            host: host.as_ref().map(|(host, _)| Arc::clone(host)),
            ..Group::default()
        });
        // Whoever leaves meanwhile does not need the lock.
        drop(users);
        user.pair.set(entry.allowance.rates);
        let sessions_max = entry.allowance.sessions.unwrap_or(entry.sessions_max);
        let limit = match host {
            Some((host, sessions_max)) if !host.enter(sessions_max) => Some(Limit::SessionsPerHost),
            host if !user.enter(sessions_max) => {
                if let Some((host, _)) = host {
                    host.leave();
                }
                Some(Limit::SessionsPerUser)
            }
            _ => None,
        };
        if let Some(limit) = limit {
            self.hits.count(limit);
            return Err(limit);
        }
        let (rates, volume) = (entry.session_rates, entry.volume);
        Ok(Member {
            user,
            // Most have neither, and room for a pointer is all that they have for it.
            own: (rates.are_set() || volume.is_some()).then(|| {
                let pair = Arc::<Pair>::default();
                pair.set(rates);
                Box::new(Own { pair, volume })
            }),
        })
    }

    /// The rates that a transfer which begins now is held to; `None`: it may go as fast as it can.
    /// `counts`: for the user's volume.
    ///
    /// # Errors
    /// The volume is used up.
    pub fn pace(
        self: &Arc<Self>,
        client: IpAddr,
        member: Option<&Member>,
        direction: Direction,
        counts: bool,
    ) -> Result<Option<Pace>, Failure> {
        let own = member.and_then(|member| member.own.as_ref());
        let session = own.map(|own| &own.pair);
        let volume = own.and_then(|own| own.volume.as_ref()).filter(|_| counts);
        if volume.is_some_and(|volume| volume.left(direction) == 0) {
            self.hits.count(Limit::Volume);
            return Err(Failure::VolumeUsedUp);
        }
        let user = member.map(|member| &member.user.pair);
        let host = member.and_then(|member| member.user.host.as_ref());
        let host = host.map(|host| &host.pair);
        // Only what has a rate is touched: what cores share costs them time.
        let has_rate = |pair: &Pair| pair.way(direction).rate() > 0;
        let shared = [session, user, host, Some(&self.total)]
            .into_iter()
            .flatten();
        let shared = shared.filter(|pair| has_rate(pair));
        let mut pairs: Vec<Arc<Pair>> = shared.map(Arc::clone).collect();
        if has_rate(&self.each_client) {
            let mut clients = locked(&self.clients);
            let new = || self.each_client.copy();
            pairs.push(living(&mut clients, network::of_client(client), new));
        }
        if pairs.is_empty() && volume.is_none() {
            return Ok(None);
        }
        pairs.iter().for_each(|pair| pair.way(direction).enter());
        Ok(Some(Pace {
            throttle: Arc::clone(self),
            direction,
            session_rate: session.and_then(|pair| NonZeroU64::new(pair.way(direction).rate())),
            pairs,
            volume: volume.map(Arc::clone),
            left: 0,
        }))
    }

    /// The time of the buckets, whose credit reaches back a round.
    fn now(&self) -> Duration {
        self.base.elapsed() + bucket::ROUND
    }

    /// How long transfers have waited for their rates since the start.
    pub fn waited(&self, direction: Direction) -> Duration {
        Duration::from_micros(self.waited[direction as usize].load(Ordering::Relaxed))
    }
}

/// A rate for each direction.
#[derive(Debug, Default)]
struct Pair {
    down: Bucket,
    up: Bucket,
}

impl Pair {
    fn set(&self, rates: Rates) {
        self.down.set_rate(rates.down.map_or(0, NonZeroU64::get));
        self.up.set_rate(rates.up.map_or(0, NonZeroU64::get));
    }

    /// Another one with the same rates.
    fn copy(&self) -> Self {
        let copy = Self::default();
        copy.down.set_rate(self.down.rate());
        copy.up.set_rate(self.up.rate());
        copy
    }

    fn way(&self, direction: Direction) -> &Bucket {
        match direction {
            Direction::Down => &self.down,
            Direction::Up => &self.up,
        }
    }
}

/// A session that is about to begin.
#[derive(Clone, Debug)]
pub struct Entry<'e> {
    /// The user's name, which no user of another host has.
    pub user: &'e str,
    /// What all the user's sessions may take from now on.
    pub allowance: Allowance,
    /// How many of them there may be if the allowance says nothing; 0: any number.
    pub sessions_max: u32,
    /// What the session may take for itself.
    pub session_rates: Rates,
    /// The virtual host that the user is of, and what all its sessions may take.
    pub host: Option<(&'e str, Allowance)>,
    /// How much the user may move in a period.
    pub volume: Option<Arc<Volume>>,
}

/// Sessions that share rates and are counted: those of a user, or of a virtual host.
#[derive(Debug, Default)]
struct Group {
    pair: Arc<Pair>,
    sessions: AtomicU32,
    /// The host of a user.
    host: Option<Arc<Self>>,
}

impl Group {
    /// Counts one more session; false if there are as many as there may be (0: any number).
    fn enter(&self, sessions_max: u32) -> bool {
        let sessions_max = match sessions_max {
            0 => u32::MAX,
            some => some,
        };
        let count = |sessions| (sessions < sessions_max).then_some(sessions + 1);
        self.sessions
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, count)
            .is_ok()
    }

    fn leave(&self) {
        self.sessions.fetch_sub(1, Ordering::Relaxed);
    }
}

/// A session of a user. Dropped, it makes room for the next one.
#[derive(Debug)]
pub struct Member {
    user: Arc<Group>,
    own: Option<Box<Own>>,
}

/// What a session is held to for itself.
#[derive(Debug)]
struct Own {
    pair: Arc<Pair>,
    volume: Option<Arc<Volume>>,
}

impl Drop for Member {
    fn drop(&mut self) {
        self.user.leave();
        if let Some(host) = &self.user.host {
            host.leave();
        }
    }
}

/// The rates that one transfer is held to.
#[derive(Debug)]
pub struct Pace {
    throttle: Arc<Throttle>,
    direction: Direction,
    pairs: Vec<Arc<Pair>>,
    session_rate: Option<NonZeroU64>,
    volume: Option<Arc<Volume>>,
    left: u64,
}

impl Pace {
    /// Bytes that may be moved now; with 0 [`Pace::take`] gives more.
    pub fn left(&self) -> u64 {
        self.left
    }

    /// Bytes were moved.
    pub fn spend(&mut self, bytes: u64) {
        self.left = self.left.saturating_sub(bytes);
    }

    /// Takes the next piece; says how long it has to wait. It is there from then on.
    ///
    /// # Errors
    /// The volume is used up.
    pub fn take(&mut self) -> Result<Duration, Failure> {
        let now = self.throttle.now();
        let ways = self.pairs.iter().map(|pair| pair.way(self.direction));
        let mut piece = ways.clone().map(Bucket::piece).min().unwrap_or(u64::MAX);
        if let Some(volume) = &self.volume {
            piece = volume.take(self.direction, piece.min(PIECE_BYTES_MAX));
            if piece == 0 {
                self.throttle.hits.count(Limit::Volume);
                return Err(Failure::VolumeUsedUp);
            }
        }
        let start = ways.map(|way| way.take(piece, now)).max();
        self.left = piece.min(PIECE_BYTES_MAX);
        let wait = start.unwrap_or(now).saturating_sub(now);
        let waited = u64::try_from(wait.as_micros()).unwrap_or(u64::MAX);
        self.throttle.waited[self.direction as usize].fetch_add(waited, Ordering::Relaxed);
        Ok(wait)
    }

    /// The rate of the session alone, if it has one.
    pub fn session_rate(&self) -> Option<NonZeroU64> {
        self.session_rate
    }
}

impl Drop for Pace {
    fn drop(&mut self) {
        for way in self.pairs.iter().map(|pair| pair.way(self.direction)) {
            way.give_back(self.left);
            way.leave();
        }
        if let Some(volume) = &self.volume {
            volume.give_back(self.direction, self.left);
        }
    }
}

/// How fast the commands of one session may come.
#[derive(Debug)]
pub struct Tempo {
    per_second: u32,
    base: Instant,
    events: Events,
    state: Duration,
    is_told: bool,
}

impl Tempo {
    /// So many in a second; `None` for 0, which is no limit.
    pub fn new(per_second: u32, now: Instant) -> Option<Self> {
        Some(Self {
            per_second,
            base: now,
            events: Events::new(per_second, Duration::from_secs(1))?,
            state: Duration::ZERO,
            is_told: false,
        })
    }

    /// How many may come in a second.
    pub fn per_second(&self) -> u32 {
        self.per_second
    }

    /// A command has come.
    pub fn count(&mut self, now: Instant) {
        let now = now.saturating_duration_since(self.base);
        self.state = self.events.after(self.state, now);
    }

    /// Until when the next one has to wait.
    pub fn next(&self) -> Instant {
        self.base + self.events.next(self.state)
    }

    /// Whether this is the first time that one has to wait.
    pub fn is_news(&mut self) -> bool {
        !std::mem::replace(&mut self.is_told, true)
    }
}

/// What a map has under `key`, or makes under it. Bounds the map by what lives in it, give or take a
/// factor of two.
fn living<K: Eq + Hash, V>(
    map: &mut HashMap<K, Weak<V>>,
    key: K,
    new: impl FnOnce() -> V,
) -> Arc<V> {
    if let Some(found) = map.get(&key).and_then(Weak::upgrade) {
        return found;
    }
    let is_full = map.len() == map.capacity();
    if is_full {
        map.retain(|_, value| value.strong_count() > 0);
    }
    let made = Arc::new(new());
    map.insert(key, Arc::downgrade(&made));
    made
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these, and what they hold is valid at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// Where a reload has taken all rates away: when the transfer looks again whether there are any.
const PIECE_BYTES_MAX: u64 = 1 << 30;

#[cfg(test)]
mod tests;
