//! `volume`, `volume_down`, `volume_up` and `volume_period`: how much a user may move in a period.

use jiff::ToSpan;
use jiff::civil::{Date, DateTime, Weekday};

use super::section::{Section, Value, Wrong};
use super::units;

/// How many bytes all sessions of a user may move in a period; `None`: any number.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct VolumeLimits {
    /// From the server to the client.
    pub down: Option<u64>,
    /// From the client to the server.
    pub up: Option<u64>,
    /// Both together.
    pub both: Option<u64>,
    /// After which it begins anew.
    pub period: Period,
}

/// A period of the calendar, in the time zone of the host.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Period {
    /// From midnight.
    Day,
    /// From Monday.
    Week,
    /// From the first.
    #[default]
    Month,
}

impl VolumeLimits {
    /// Reads the keys.
    pub(crate) fn read(&mut self, section: &mut Section<'_>) {
        section.read("volume", &mut self.both, bytes);
        section.read("volume_down", &mut self.down, bytes);
        section.read("volume_up", &mut self.up, bytes);
        section.read("volume_period", &mut self.period, |value| {
            units::choice(value, PERIODS)
        });
    }

    /// Whether there is any.
    pub fn are_set(&self) -> bool {
        [self.down, self.up, self.both].iter().any(Option::is_some)
    }
}

impl Period {
    /// The first day of the period that `day` is in, and when the next one begins; `None`: at the end of
    /// time.
    pub(crate) fn around(self, day: Date) -> (Date, Option<DateTime>) {
        let (first, next) = match self {
            Self::Day => (day, day.tomorrow()),
            Self::Week => {
                let first = match day.weekday() {
                    Weekday::Monday => day,
                    _ => day.nth_weekday(-1, Weekday::Monday).unwrap_or(day),
                };
                (first, first.checked_add(1.week()))
            }
            Self::Month => {
                let first = day.first_of_month();
                (first, first.checked_add(1.month()))
            }
        };
        (first, next.ok().map(|next| next.at(0, 0, 0, 0)))
    }
}

fn bytes(value: &Value<'_>) -> Result<Option<u64>, Wrong> {
    units::size(value).map(|bytes| Some(bytes).filter(|bytes| *bytes > 0))
}

const PERIODS: &[(&str, Period)] = &[
    ("day", Period::Day),
    ("week", Period::Week),
    ("month", Period::Month),
];
