//! What has become of the logins since the start.

use std::sync::atomic::{AtomicU64, Ordering};

/// Counted by all cores and workers.
#[derive(Debug, Default)]
pub struct Counts {
    /// Logins that led into a session.
    pub accepted: AtomicU64,
    /// Logins refused for what they brought.
    pub refused: AtomicU64,
    /// Logins refused, whatever they brought, in a lockout.
    pub locked_out: AtomicU64,
    /// Logins that could not be judged: a source did not answer, or too many waited.
    pub unavailable: AtomicU64,
    /// Password hashes computed.
    pub hashes: AtomicU64,
    /// Passwords found right without a hash.
    pub remembered: AtomicU64,
}

impl Counts {
    /// Counts one more.
    pub fn add(count: &AtomicU64) {
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// How many so far.
    pub fn get(count: &AtomicU64) -> u64 {
        count.load(Ordering::Relaxed)
    }
}
