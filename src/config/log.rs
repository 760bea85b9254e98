//! `[log]`: what is told, and how.

use super::section::Section;
use super::units;

/// What is told on standard error, and how.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Log {
    /// The least important event that is told; the environment variable RUST_LOG overrides it.
    pub level: LogLevel,
    /// The form of a line.
    pub format: LogFormat,
}

/// Importance of events, falling.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogLevel {
    /// The server cannot do what it was asked to.
    Error,
    /// Something an operator should look at.
    Warn,
    /// Start, stop, sessions, transfers.
    Info,
    /// Every command.
    Debug,
    /// Everything.
    Trace,
}

/// The form of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum LogFormat {
    /// For people.
    Text,
    /// One JSON object per line.
    Json,
}

impl Log {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("level", &mut self.level, |value| {
            units::choice(
                value,
                &[
                    ("error", LogLevel::Error),
                    ("warn", LogLevel::Warn),
                    ("info", LogLevel::Info),
                    ("debug", LogLevel::Debug),
                    ("trace", LogLevel::Trace),
                ],
            )
        });
        section.read("format", &mut self.format, |value| {
            units::choice(
                value,
                &[("text", LogFormat::Text), ("json", LogFormat::Json)],
            )
        });
    }
}

impl LogLevel {
    /// The level as RUST_LOG writes it.
    pub const fn as_str(self) -> &'static str {
        match self {
            Self::Error => "error",
            Self::Warn => "warn",
            Self::Info => "info",
            Self::Debug => "debug",
            Self::Trace => "trace",
        }
    }
}
