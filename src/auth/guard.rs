//! Against guessing: every failure makes the next one slower, and too many end in a lockout.
//!
//! Failures are counted for the client's network and for the name it tried, whether or not a user
//! has that name: otherwise a lockout would tell which names exist. A verdict is asked for twice:
//! before a password is looked at, so that a locked-out client costs no hash, and after it, so
//! that guesses under way at the same time do not get past the bound together.

use std::net::IpAddr;
use std::time::{Duration, Instant};

use super::Reason;
use super::name::QualifiedName;
use super::recent::Recent;
use crate::config::GuardLimits;
use crate::proto::network;

/// Who has failed to log in, and from where users have come. Shared by all cores, behind a lock.
#[derive(Debug)]
pub(super) struct Guard {
    clients: Recent<IpAddr, Failures>,
    users: Recent<QualifiedName, Failures>,
    /// When a user last logged in from a network.
    good: Recent<(IpAddr, QualifiedName), Instant>,
}

/// The failures of one client, or those with one name.
#[derive(Clone, Copy, Debug)]
struct Failures {
    count: u32,
    since: Instant,
    locked_until: Option<Instant>,
}

/// What follows from a failure.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Consequence {
    /// How long after its question the client is answered.
    pub(super) delay: Duration,
    /// Who is locked out from now on: [`Reason::ClientLocked`] or [`Reason::UserLocked`].
    pub(super) locks_out: Option<Reason>,
}

impl Guard {
    pub(super) fn new() -> Self {
        Self {
            clients: Recent::new(CLIENTS_MAX),
            users: Recent::new(USERS_MAX),
            good: Recent::new(GOOD_MAX),
        }
    }

    /// Whether a client, or everybody who comes under a name, is locked out.
    pub(super) fn locked(
        &self,
        client: IpAddr,
        user: Option<&QualifiedName>,
        now: Instant,
    ) -> Option<Reason> {
        let client = network::of_client(client);
        let holds = |failures: Option<&Failures>| {
            failures.is_some_and(|failures| failures.locked_until.is_some_and(|end| now < end))
        };
        if holds(self.clients.get(&client)) {
            return Some(Reason::ClientLocked);
        }
        let user = user?;
        let is_locked = holds(self.users.get(user)) && !self.is_good(client, user, now);
        is_locked.then_some(Reason::UserLocked)
    }

    /// Counts a failure. `user` is `None` for a name that no user can have.
    pub(super) fn failed(
        &mut self,
        client: IpAddr,
        user: Option<&QualifiedName>,
        limits: &GuardLimits,
        now: Instant,
    ) -> Consequence {
        let client = network::of_client(client);
        let new = || Failures::new(now);
        let failures = self.clients.entry(&client, new);
        let mut locks_out = failures
            .add(limits.failures.map(u32::from), limits, now)
            .then_some(Reason::ClientLocked);
        let mut count = failures.count;
        // A user's own device that has the old password must not lock the user out elsewhere.
        let strange = user.filter(|user| !self.is_good(client, user, now));
        if let Some(user) = strange {
            let failures = self.users.entry(user, new);
            if failures.add(limits.failures_per_user.map(u32::from), limits, now) {
                locks_out = locks_out.or(Some(Reason::UserLocked));
            }
            count = count.max(failures.count);
        }
        Consequence {
            delay: delay(count, limits),
            locks_out,
        }
    }

    /// Notes that a user has logged in from here. Takes no failure back: otherwise whoever has one
    /// account could try the passwords of others without end.
    pub(super) fn accepted(&mut self, client: IpAddr, user: &QualifiedName, now: Instant) {
        let key = (network::of_client(client), user.clone());
        *self.good.entry(&key, || now) = now;
    }

    fn is_good(&self, client: IpAddr, user: &QualifiedName, now: Instant) -> bool {
        let last = self.good.get(&(client, user.clone()));
        last.is_some_and(|last| now.saturating_duration_since(*last) < GOOD_FOR)
    }
}

impl Failures {
    fn new(now: Instant) -> Self {
        Self {
            count: 0,
            since: now,
            locked_until: None,
        }
    }

    /// Counts one more; true when it is the one too many.
    fn add(&mut self, failures_max: Option<u32>, limits: &GuardLimits, now: Instant) -> bool {
        let is_past = now.saturating_duration_since(self.since) >= limits.window
            || self.locked_until.is_some_and(|end| now >= end);
        if is_past {
            *self = Self::new(now);
        }
        self.count = self.count.saturating_add(1);
        let locks_out =
            self.locked_until.is_none() && failures_max.is_some_and(|max| self.count >= max);
        if locks_out {
            self.locked_until = Some(now + limits.lockout);
        }
        locks_out
    }
}

/// How long the answer to the failure of this number takes: the second takes twice as long as the
/// first, and so on.
fn delay(count: u32, limits: &GuardLimits) -> Duration {
    let doublings = count.saturating_sub(1).min(DOUBLINGS_MAX);
    limits
        .delay
        .saturating_mul(1 << doublings)
        .min(limits.delay_max)
}

/// Clients whose failures are known, some 100 B each. To be forgotten, a client has to wait until
/// so many others have failed after it.
const CLIENTS_MAX: usize = 65_536;
/// Names under which logins have failed, some 200 B each.
const USERS_MAX: usize = 16_384;
/// Users and the networks they came from, some 250 B each.
const GOOD_MAX: usize = 16_384;
/// Long enough for who comes once a week, and short enough for an address to change hands.
const GOOD_FOR: Duration = Duration::from_secs(14 * 24 * 3600);
/// Twice as long so many times is longer than any delay that can be set.
const DOUBLINGS_MAX: u32 = 30;

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;

    const LIMITS: GuardLimits = GuardLimits {
        delay: Duration::from_secs(1),
        delay_max: Duration::from_secs(10),
        failures: NonZeroU32::new(5),
        failures_per_user: NonZeroU32::new(8),
        window: Duration::from_secs(600),
        lockout: Duration::from_secs(300),
    };

    fn address(text: &str) -> IpAddr {
        text.parse().expect("an address")
    }

    fn name(text: &str) -> QualifiedName {
        QualifiedName::new("", text)
    }

    fn seconds(seconds: u64) -> Duration {
        Duration::from_secs(seconds)
    }

    /// As many strangers, from a network each.
    fn strangers(count: u8) -> impl Iterator<Item = IpAddr> {
        (0..count).map(|number| IpAddr::from([198, 51, 100, number]))
    }

    #[test]
    fn every_failure_is_answered_later_than_the_one_before() {
        let (mut guard, now) = (Guard::new(), Instant::now());
        let limits = GuardLimits {
            failures: None,
            ..LIMITS
        };
        let client = address("192.0.2.1");
        let delays: Vec<u64> = (0..6)
            .map(|_| guard.failed(client, None, &limits, now).delay.as_secs())
            .collect();
        assert_eq!(delays, [1, 2, 4, 8, 10, 10]);
        // Another client's first, and this one's first in another window.
        let other = guard.failed(address("192.0.2.2"), None, &limits, now);
        assert_eq!(other.delay, seconds(1));
        let later = guard.failed(client, None, &limits, now + limits.window);
        assert_eq!(later.delay, seconds(1));
        for count in [0, 1, 31, 32, 33, u32::MAX] {
            assert!(delay(count, &limits) <= limits.delay_max, "{count}");
        }
    }

    #[test]
    fn a_name_that_many_clients_try_is_answered_later_too() {
        let (mut guard, now) = (Guard::new(), Instant::now());
        let alice = name("alice");
        let delays: Vec<u64> = strangers(4)
            .map(|client| guard.failed(client, Some(&alice), &LIMITS, now))
            .map(|consequence| consequence.delay.as_secs())
            .collect();
        assert_eq!(delays, [1, 2, 4, 8]);
    }

    #[test]
    fn a_client_that_fails_too_often_is_locked_out_for_a_while() {
        let (mut guard, now) = (Guard::new(), Instant::now());
        let client = address("192.0.2.1");
        let users = ["a", "b", "c", "d", "e"].map(name);
        for (index, user) in users.iter().enumerate() {
            assert_eq!(guard.locked(client, Some(user), now), None);
            let locks_out = guard.failed(client, Some(user), &LIMITS, now).locks_out;
            assert_eq!(locks_out, (index == 4).then_some(Reason::ClientLocked));
        }
        let locked = |guard: &Guard, client, after| {
            guard.locked(address(client), Some(&name("z")), now + after)
        };
        let (is, end) = (Some(Reason::ClientLocked), LIMITS.lockout);
        assert_eq!(locked(&guard, "192.0.2.1", end - seconds(1)), is);
        assert_eq!(locked(&guard, "::ffff:192.0.2.1", seconds(0)), is);
        assert_eq!(locked(&guard, "192.0.2.2", seconds(0)), None);
        assert_eq!(locked(&guard, "192.0.2.1", end), None);
        // After it, counting begins anew.
        let after = guard.failed(client, None, &LIMITS, now + end);
        assert_eq!((after.delay, after.locks_out), (seconds(1), None));
    }

    #[test]
    fn an_ipv6_network_is_one_client() {
        let (mut guard, now) = (Guard::new(), Instant::now());
        for host in 1..=5 {
            let client = address(&format!("2001:db8::{host}"));
            guard.failed(client, None, &LIMITS, now);
        }
        let locked = |client| guard.locked(address(client), None, now).is_some();
        assert!(locked("2001:db8::ffff"));
        assert!(!locked("2001:db8:0:1::1"));
    }

    #[test]
    fn failures_count_only_within_the_window() {
        let (mut guard, now) = (Guard::new(), Instant::now());
        let client = address("192.0.2.1");
        for round in 0..10 {
            let then = now + LIMITS.window * round;
            for _ in 0..4 {
                assert_eq!(guard.failed(client, None, &LIMITS, then).locks_out, None);
            }
            assert_eq!(guard.locked(client, None, then), None);
        }
    }

    #[test]
    fn a_user_is_locked_out_for_strangers_only() {
        let (mut guard, now) = (Guard::new(), Instant::now());
        let (alice, home) = (name("alice"), address("192.0.2.1"));
        guard.accepted(home, &alice, now);
        for (index, client) in strangers(8).enumerate() {
            assert_eq!(guard.locked(client, Some(&alice), now), None);
            let locks_out = guard.failed(client, Some(&alice), &LIMITS, now).locks_out;
            assert_eq!(locks_out, (index == 7).then_some(Reason::UserLocked));
        }
        let locked = |client, user, after| guard.locked(client, Some(user), now + after);
        let (abroad, is) = (address("203.0.113.9"), Some(Reason::UserLocked));
        assert_eq!(locked(abroad, &alice, seconds(0)), is);
        assert_eq!(locked(abroad, &alice, LIMITS.lockout), None);
        assert_eq!(locked(home, &alice, seconds(0)), None);
        // The address is good for the user who came from it, not for others.
        assert_eq!(locked(abroad, &name("bob"), seconds(0)), None);
    }

    #[test]
    fn a_good_address_counts_for_its_user_and_not_for_ever() {
        let (mut guard, now) = (Guard::new(), Instant::now());
        let (alice, home) = (name("alice"), address("192.0.2.1"));
        guard.accepted(home, &alice, now);
        let limits = GuardLimits {
            failures: None,
            ..LIMITS
        };
        // The device at home has an old password: no lockout anywhere else.
        for _ in 0..20 {
            guard.failed(home, Some(&alice), &limits, now);
        }
        assert_eq!(
            guard.locked(address("203.0.113.9"), Some(&alice), now),
            None
        );
        let then = now + GOOD_FOR;
        for _ in 0..8 {
            guard.failed(home, Some(&alice), &limits, then);
        }
        let is = Some(Reason::UserLocked);
        assert_eq!(guard.locked(home, Some(&alice), then), is);
    }

    #[test]
    fn without_limits_nobody_is_locked_out() {
        let (mut guard, now) = (Guard::new(), Instant::now());
        let limits = GuardLimits {
            failures: None,
            failures_per_user: None,
            ..LIMITS
        };
        let (alice, client) = (name("alice"), address("192.0.2.1"));
        for _ in 0..1000 {
            let consequence = guard.failed(client, Some(&alice), &limits, now);
            assert_eq!(consequence.locks_out, None);
        }
        assert_eq!(guard.locked(client, Some(&alice), now), None);
    }
}
