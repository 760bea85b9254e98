//! Rates as pure arithmetic: when something that has a rate may happen next. The time is an argument.

use std::sync::atomic::{AtomicU32, AtomicU64, Ordering};
use std::time::Duration;

/// A rate that transfers share, on whichever cores they are.
///
/// A transfer takes a bounded piece and is told when it may move it: pieces follow each other in the
/// order in which they were taken, each for as long as the rate makes it. So those who share a rate move
/// a piece each in turn, which gives them equal parts, and nobody has to wake anybody.
#[derive(Debug, Default)]
pub(super) struct Bucket {
    /// Bytes per second; 0: no limit.
    rate: AtomicU64,
    /// When the next piece may go, in nanoseconds of the clock that callers have.
    next: AtomicU64,
    /// Transfers that share it.
    sharers: AtomicU32,
}

impl Bucket {
    /// From the next piece on, so many bytes per second; 0: no limit.
    pub(super) fn set_rate(&self, rate: u64) {
        self.rate.store(rate, Ordering::Relaxed);
    }

    /// Bytes per second; 0: no limit.
    pub(super) fn rate(&self) -> u64 {
        self.rate.load(Ordering::Relaxed)
    }

    /// One more shares it.
    pub(super) fn enter(&self) {
        self.sharers.fetch_add(1, Ordering::Relaxed);
    }

    /// One less shares it.
    pub(super) fn leave(&self) {
        self.sharers.fetch_sub(1, Ordering::Relaxed);
    }

    /// How much a transfer should take at a time: all who share the bucket have their turn within
    /// [`ROUND`], unless their pieces would become too small to be worth a system call.
    pub(super) fn piece(&self) -> u64 {
        let rate = self.rate();
        if rate == 0 {
            return u64::MAX;
        }
        let sharers = self.sharers.load(Ordering::Relaxed).max(1);
        let fair = rate / ROUNDS_PER_SECOND / u64::from(sharers);
        fair.max(PIECE_BYTES_MIN.min(rate))
    }

    /// Takes a piece of so many bytes; says when it may be moved.
    pub(super) fn take(&self, bytes: u64, now: Duration) -> Duration {
        let cost = self.cost(bytes);
        if cost == 0 {
            return now;
        }
        let earliest = nanoseconds(now).saturating_sub(nanoseconds(ROUND));
        let take = |next: u64| Some(next.max(earliest).saturating_add(cost));
        // Fails only if `take` says None.
        let next = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, take)
            .unwrap_or_default();
        Duration::from_nanos(next.max(earliest))
    }

    /// Gives back what was taken and not moved.
    pub(super) fn give_back(&self, bytes: u64) {
        let cost = self.cost(bytes);
        let give = |next: u64| Some(next.saturating_sub(cost));
        let _ = self
            .next
            .fetch_update(Ordering::Relaxed, Ordering::Relaxed, give);
    }

    /// How long bytes take, in nanoseconds.
    fn cost(&self, bytes: u64) -> u64 {
        let cost = u128::from(bytes) * 1_000_000_000;
        let cost = cost.checked_div(u128::from(self.rate()));
        cost.map_or(0, |cost| u64::try_from(cost).unwrap_or(u64::MAX))
    }
}

/// When events of one source, each counting for an interval, may happen: as many at once as fit into a
/// burst, and then one in each interval.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Events {
    pub(super) interval: Duration,
    pub(super) burst: Duration,
}

impl Events {
    /// So many in `burst`, and at once; `None` for 0, which is no limit.
    pub(super) fn new(count: u32, burst: Duration) -> Option<Self> {
        let interval = burst.checked_div(count)?;
        Some(Self { interval, burst })
    }

    /// The state after an event at `now`, from that before. A source is new when its state is in the
    /// past.
    pub(super) fn after(&self, state: Duration, now: Duration) -> Duration {
        state.max(now) + self.interval
    }

    /// When a source may have its next event.
    pub(super) fn next(&self, state: Duration) -> Duration {
        (state + self.interval).saturating_sub(self.burst)
    }
}

fn nanoseconds(time: Duration) -> u64 {
    // 584 years.
    u64::try_from(time.as_nanos()).unwrap_or(u64::MAX)
}

/// Within so much time everybody who shares a rate has a turn. It is also the credit of a bucket that
/// nobody used, which makes up for timers that are late: they know milliseconds, and a core may be busy.
pub(super) const ROUND: Duration = Duration::from_millis(50);
const ROUNDS_PER_SECOND: u64 = 20;

/// Smaller pieces would cost more than they even out.
const PIECE_BYTES_MIN: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u64 = 1 << 20;

    fn bucket(rate: u64) -> Bucket {
        let bucket = Bucket::default();
        bucket.set_rate(rate);
        bucket
    }

    /// Lets transfers of so many buckets each move bytes for `seconds`, every wait rounded up to whole
    /// milliseconds as the runtime does it; returns what each has moved.
    fn simulate(transfers: &[Vec<&Bucket>], seconds: u64) -> Vec<u64> {
        let mut due = vec![Duration::from_secs(1); transfers.len()];
        let mut moved = vec![0; transfers.len()];
        let mut held = vec![0; transfers.len()];
        let end = Duration::from_secs(1 + seconds);
        transfers.iter().flatten().for_each(|bucket| bucket.enter());
        loop {
            let (now, who) = due.iter().copied().zip(0..).min().unwrap();
            if now >= end {
                return moved;
            }
            moved[who] += std::mem::take(&mut held[who]);
            let buckets = &transfers[who];
            let piece = buckets.iter().map(|it| it.piece()).min().unwrap();
            let starts = buckets.iter().map(|it| it.take(piece, now));
            let start = starts.max().unwrap().max(now);
            held[who] = piece;
            due[who] = Duration::from_millis(start.as_micros().div_ceil(1000) as u64);
        }
    }

    fn is_near(value: u64, wanted: u64) -> bool {
        value.abs_diff(wanted) <= wanted / 10
    }

    #[test]
    fn a_rate_is_kept() {
        for rate in [1, 1000, 10_000, MIB, 100 * MIB, 10_000 * MIB] {
            let bucket = bucket(rate);
            let [moved] = simulate(&[vec![&bucket]], 20)[..] else {
                panic!("one transfer");
            };
            assert!(is_near(moved, 20 * rate), "{rate} B/s: {moved} in 20 s");
        }
    }

    #[test]
    fn those_who_share_a_rate_get_equal_parts() {
        for sharers in [2, 10, 200] {
            let bucket = bucket(10 * MIB);
            let transfers = vec![vec![&bucket]; sharers];
            let moved = simulate(&transfers, 20);
            let part = 200 * MIB / sharers as u64;
            // The first one has what an idle bucket saves.
            assert!(moved[0] < part + part / 10 + MIB / 2, "{moved:?}");
            assert!(moved[1..].iter().all(|it| is_near(*it, part)), "{moved:?}");
        }
    }

    #[test]
    fn the_tightest_of_several_rates_holds_and_the_rest_is_for_the_others() {
        let (total, user) = (bucket(10 * MIB), bucket(MIB));
        let transfers = [vec![&total, &user], vec![&total, &user], vec![&total]];
        let moved = simulate(&transfers, 20);
        assert!(is_near(moved[0] + moved[1], 20 * MIB), "{moved:?}");
        assert!(is_near(moved[0], moved[1]), "{moved:?}");
        assert!(is_near(moved[2], 180 * MIB), "{moved:?}");
    }

    #[test]
    fn what_was_not_moved_is_given_back() {
        let bucket = bucket(1000);
        let now = Duration::from_secs(9);
        let first = bucket.take(1000, now);
        assert_eq!(first, now - ROUND);
        bucket.give_back(600);
        assert_eq!(bucket.take(1, now), first + Duration::from_millis(400));
    }

    #[test]
    fn an_idle_bucket_saves_one_round_and_no_more() {
        let bucket = bucket(1000);
        for now in [1, 1000].map(Duration::from_secs) {
            assert_eq!(bucket.take(100, now), now - ROUND);
            assert_eq!(bucket.take(100, now), now + ROUND);
        }
    }

    #[test]
    fn a_new_rate_holds_from_the_next_piece_on() {
        let bucket = bucket(1000);
        let now = Duration::from_secs(9);
        bucket.take(1000, now);
        bucket.set_rate(100);
        let second = bucket.take(100, now);
        assert_eq!(second, now - ROUND + Duration::from_secs(1));
        assert_eq!(bucket.take(1, now), second + Duration::from_secs(1));
        bucket.set_rate(0);
        assert_eq!((bucket.take(MIB, now), bucket.piece()), (now, u64::MAX));
    }

    #[test]
    fn events_come_in_a_burst_and_then_at_their_rate() {
        assert_eq!(Events::new(0, ROUND), None);
        let events = Events::new(10, Duration::from_secs(1)).unwrap();
        let start = Duration::from_secs(100);
        let mut state = Duration::ZERO;
        for _ in 0..10 {
            assert!(events.next(state) <= start);
            state = events.after(state, start);
        }
        assert_eq!(events.next(state), start + events.interval);
        let later = start + Duration::from_secs(1);
        assert!(events.next(state) <= later && state <= later);
    }
}
