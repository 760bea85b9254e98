//! Counting what happens to passive ports, without a clock: who counts brings the time.

use std::time::Duration;

use super::report::{BUCKETS, Histogram, Rate};

/// How often something happens. Seconds are counted from any fixed moment, and never go back.
#[derive(Clone, Debug)]
pub(super) struct Meter {
    /// The last [`SECONDS`] seconds, each in the bucket of its number modulo their count.
    buckets: [u32; SECONDS as usize],
    /// The second that was counted in last.
    latest: u64,
    total: u64,
    peak: u64,
}

impl Meter {
    /// One more, in this second.
    pub(super) fn count(&mut self, second: u64) {
        self.forget_until(second);
        let bucket = &mut self.buckets[(self.latest % SECONDS) as usize];
        *bucket += 1;
        self.peak = self.peak.max(u64::from(*bucket));
        self.total += 1;
    }

    /// The rates in this second, which itself is not over yet and does not count.
    pub(super) fn rate(&mut self, second: u64) -> Rate {
        self.forget_until(second);
        Rate {
            total: self.total,
            last_10_seconds: self.mean(second, 10),
            last_minute: self.mean(second, 60),
            peak_second: self.peak,
        }
    }

    /// Clears the buckets of the seconds in which nothing was counted.
    fn forget_until(&mut self, second: u64) {
        let gone = second.saturating_sub(self.latest).min(SECONDS);
        for step in 0..gone {
            self.buckets[((second - step) % SECONDS) as usize] = 0;
        }
        self.latest = self.latest.max(second);
    }

    fn mean(&self, second: u64, seconds: u64) -> f64 {
        // Before that many seconds have passed, those that have.
        let seconds = seconds.min(second);
        let counted = (1..=seconds).map(|ago| self.buckets[((second - ago) % SECONDS) as usize]);
        let counted: u64 = counted.map(u64::from).sum();
        counted as f64 / seconds.max(1) as f64
    }
}

impl Default for Meter {
    fn default() -> Self {
        Self {
            buckets: [0; SECONDS as usize],
            latest: 0,
            total: 0,
            peak: 0,
        }
    }
}

impl Histogram {
    /// Counts a duration.
    pub(super) fn count_in(&mut self, duration: Duration) {
        let milliseconds = u64::try_from(duration.as_millis()).unwrap_or(u64::MAX);
        let bucket = (u64::BITS - milliseconds.leading_zeros()) as usize;
        self.buckets[bucket.min(BUCKETS - 1)] += 1;
        let microseconds = u64::try_from(duration.as_micros()).unwrap_or(u64::MAX);
        self.sum_us = self.sum_us.saturating_add(microseconds);
    }
}

/// A minute, the second under way, and a few to spare.
const SECONDS: u64 = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rates_are_those_of_the_last_seconds() {
        let mut meter = Meter::default();
        for second in 0..30 {
            for _ in 0..5 {
                meter.count(second);
            }
        }
        let rate = meter.rate(30);
        assert_eq!((rate.last_10_seconds, rate.last_minute), (5.0, 5.0));
        assert_eq!((rate.total, rate.peak_second), (150, 5));
        // The second under way does not count yet.
        meter.count(30);
        assert_eq!(meter.rate(30).last_10_seconds, 5.0);
        let rate = meter.rate(70);
        assert_eq!(rate.last_10_seconds, 0.0);
        // 20 full seconds are within the last minute, and one count of the second 30.
        assert_eq!(rate.last_minute, (20.0 * 5.0 + 1.0) / 60.0);
        assert_eq!(meter.rate(10_000).last_minute, 0.0);
        assert_eq!(meter.rate(10_000).peak_second, 5);
    }

    #[test]
    fn the_first_second_divides_by_nothing() {
        let mut meter = Meter::default();
        meter.count(0);
        assert_eq!(meter.rate(0).last_minute, 0.0);
        assert_eq!(meter.rate(1).last_minute, 1.0);
    }

    #[test]
    fn durations_are_counted_by_powers_of_two() {
        let mut histogram = Histogram::default();
        for (micros, bucket) in [(0, 0), (999, 0), (1000, 1), (1999, 1), (2000, 2), (3999, 2)] {
            let before = histogram.buckets[bucket];
            histogram.count_in(Duration::from_micros(micros));
            assert_eq!(histogram.buckets[bucket], before + 1, "{micros} µs");
        }
        histogram.count_in(Duration::from_secs(1 << 40));
        assert_eq!(histogram.buckets[BUCKETS - 1], 1);
        assert_eq!(histogram.count(), 7);
        assert_eq!(histogram.quantile_ms(0.5), Some(2));
    }
}
