//! How often each limit was hit, and how often that is worth a line in the log.

use std::cell::Cell;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, Instant};

/// A limit that clients can run into.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Limit {
    /// `limits.sessions`, or the descriptors.
    Sessions,
    /// `limits.sessions_per_ip`.
    SessionsPerIp,
    /// `users.sessions_per_user`, or a user's own `sessions`.
    SessionsPerUser,
    /// `sessions` of a virtual host.
    SessionsPerHost,
    /// `limits.connections_per_minute`.
    ConnectionsPerMinute,
    /// `limits.commands_per_second`.
    CommandsPerSecond,
    /// `files.min_free`.
    MinFree,
    /// `volume` of a user, or one of its directions.
    Volume,
    /// `limits.login_attempts`.
    LoginAttempts,
}

impl Limit {
    /// All of them, with their names in the metrics.
    pub const ALL: [(Self, &str); 9] = [
        (Self::Sessions, "sessions"),
        (Self::SessionsPerIp, "sessions_per_ip"),
        (Self::SessionsPerUser, "sessions_per_user"),
        (Self::SessionsPerHost, "sessions_per_host"),
        (Self::ConnectionsPerMinute, "connections_per_minute"),
        (Self::CommandsPerSecond, "commands_per_second"),
        (Self::MinFree, "min_free"),
        (Self::Volume, "volume"),
        (Self::LoginAttempts, "login_attempts"),
    ];

    /// What it is called in metrics and in the log.
    pub fn name(self) -> &'static str {
        Self::ALL[self as usize].1
    }
}

/// Counts since the start.
#[derive(Debug, Default)]
pub struct Hits([AtomicU64; Limit::ALL.len()]);

impl Hits {
    /// One more.
    pub fn count(&self, limit: Limit) {
        self.0[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn of(&self, limit: Limit) -> u64 {
        self.0[limit as usize].load(Ordering::Relaxed)
    }
}

/// Lets one line through in `QUIET`, and counts the others.
#[derive(Debug, Default)]
pub struct Seldom {
    last: Cell<Option<Instant>>,
    unsaid: Cell<u64>,
}

impl Seldom {
    /// Whether to write a line now: then how many were left out before it.
    pub fn say(&self, now: Instant) -> Option<u64> {
        let last = self.last.get();
        if last.is_some_and(|last| now.saturating_duration_since(last) < QUIET) {
            self.unsaid.set(self.unsaid.get() + 1);
            return None;
        }
        self.last.set(Some(now));
        Some(self.unsaid.take())
    }
}

const QUIET: Duration = Duration::from_secs(1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_limit_is_counted_by_itself() {
        let hits = Hits::default();
        for (index, (limit, _)) in Limit::ALL.into_iter().enumerate() {
            assert_eq!(limit as usize, index);
            hits.count(limit);
            assert_eq!(hits.of(limit), 1);
        }
    }

    #[test]
    fn a_flood_is_one_line_a_second() {
        let (seldom, start) = (Seldom::default(), Instant::now());
        assert_eq!(seldom.say(start), Some(0));
        assert_eq!(seldom.say(start + QUIET / 3), None);
        assert_eq!(seldom.say(start + QUIET / 2), None);
        assert_eq!(seldom.say(start + QUIET), Some(2));
        assert_eq!(seldom.say(start + QUIET * 9), Some(0));
    }
}
