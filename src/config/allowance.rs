//! `down`, `up` and `sessions`: how much of the server one user may take, and rates in general.

use std::num::NonZeroU64;

use super::VolumeLimits;
use super::section::Section;
use super::units;

/// Bytes per second in each direction; `None`: as fast as it goes.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Rates {
    /// From the server to the client.
    pub down: Option<NonZeroU64>,
    /// From the client to the server.
    pub up: Option<NonZeroU64>,
}

impl Rates {
    /// Reads the two keys of these names.
    pub(crate) fn read(&mut self, section: &mut Section<'_>, down: &str, up: &str) {
        section.read(down, &mut self.down, units::rate);
        section.read(up, &mut self.up, units::rate);
    }

    /// Whether there is any.
    pub fn are_set(&self) -> bool {
        self.down.is_some() || self.up.is_some()
    }
}

/// What all sessions of one user may take together, whichever cores they are on.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Allowance {
    /// How fast they may move files.
    pub rates: Rates,
    /// How many there may be at a time; 0: any number; `None`: as many as users have by default.
    pub sessions: Option<u32>,
    /// How much they may move in a period.
    pub volume: VolumeLimits,
}

impl Allowance {
    /// Reads `down`, `up` and `sessions`; the volume has keys of its own.
    pub(crate) fn read(&mut self, section: &mut Section<'_>) {
        self.rates.read(section, "down", "up");
        section.read("sessions", &mut self.sessions, |value| {
            super::limits::bounded(value, 0, super::limits::SESSIONS_MAX).map(Some)
        });
    }
}
