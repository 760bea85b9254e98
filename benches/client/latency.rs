//! How long things took.

use std::time::Duration;

/// Durations, and what of them is told.
#[derive(Debug, Default)]
pub(crate) struct Latencies {
    nanoseconds: Vec<u64>,
}

/// In microseconds.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(crate) struct Summary {
    pub(crate) count: usize,
    pub(crate) p50: f64,
    pub(crate) p99: f64,
    pub(crate) p999: f64,
    pub(crate) max: f64,
}

impl Latencies {
    /// With room for so many, that none is slower because of those before it.
    pub(crate) fn with_capacity(count: usize) -> Self {
        Self {
            nanoseconds: Vec::with_capacity(count),
        }
    }

    pub(crate) fn record(&mut self, duration: Duration) {
        let nanoseconds = u64::try_from(duration.as_nanos()).unwrap_or(u64::MAX);
        self.nanoseconds.push(nanoseconds);
    }

    /// `None` if nothing was recorded. Forgets everything.
    pub(crate) fn summary(&mut self) -> Option<Summary> {
        self.nanoseconds.sort_unstable();
        let summary = self.nanoseconds.last().map(|max| Summary {
            count: self.nanoseconds.len(),
            p50: self.quantile(0.5),
            p99: self.quantile(0.99),
            p999: self.quantile(0.999),
            max: *max as f64 / 1e3,
        });
        self.nanoseconds.clear();
        summary
    }

    /// By the nearest rank: a duration that was really measured.
    fn quantile(&self, part: f64) -> f64 {
        let count = self.nanoseconds.len();
        let rank = (part * count as f64).ceil() as usize;
        self.nanoseconds[rank.clamp(1, count) - 1] as f64 / 1e3
    }
}
