//! `[limits]`: bounds on sessions, lines and waits.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::section::{Section, Value, Wrong};
use super::{Rates, units};

/// Bounds that keep one client, or many, from taking the server from the others.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Limits {
    /// Sessions at a time, on all cores together; `None`: as many as the descriptor limit bears.
    pub sessions: Option<NonZeroUsize>,
    /// Sessions at a time from one client address; `None`: no bound of its own.
    pub sessions_per_ip: Option<NonZeroUsize>,
    /// Connections that the kernel may hold before they are accepted: listen(2)'s backlog, per
    /// listener and core, 1 to 65 535. The kernel cuts it to net.core.somaxconn.
    pub sessions_waiting: u32,
    /// The longest control line in bytes, its end included: [`LINE_LENGTH_MIN`] to
    /// [`LINE_LENGTH_MAX`].
    pub line_length: usize,
    /// From the connection to a successful login; at least 1 s.
    pub login_timeout: Duration,
    /// Wrong passwords before the connection is closed: 1 to 100.
    pub login_attempts: u32,
    /// How guessing of passwords is slowed down and stopped.
    pub guard: GuardLimits,
    /// Without a command and without a transfer; at least 1 s.
    pub idle_timeout: Duration,
    /// For a client that does not read its replies; at least 1 s.
    pub reply_timeout: Duration,
    /// Without a byte moved on a data connection; at least 1 s.
    pub stall_timeout: Duration,
    /// New control connections in a minute from one client address; 0: any number.
    pub connections_per_minute: u32,
    /// Commands in a second from one session; 0: any number.
    pub commands_per_second: u32,
    /// How fast one session may move files.
    pub session_rates: Rates,
    /// How fast all sessions from one client address together may.
    pub ip_rates: Rates,
    /// How fast all sessions together may.
    pub total_rates: Rates,
}

/// How guessing of passwords is slowed down and stopped, over all sessions.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct GuardLimits {
    /// From a wrong password to its answer, the first time; each further one takes twice as long.
    pub delay: Duration,
    /// The longest that an answer takes.
    pub delay_max: Duration,
    /// Failures of one client until it is locked out; `None`: never.
    pub failures: Option<NonZeroU32>,
    /// Failures with one name until strangers who use it are locked out; `None`: never.
    pub failures_per_user: Option<NonZeroU32>,
    /// Failures are counted for so long after the first; at least 1 s.
    pub window: Duration,
    /// How long a lockout lasts; at least 1 s.
    pub lockout: Duration,
}

impl GuardLimits {
    fn read(&mut self, section: &mut Section<'_>) {
        section.read("login_delay", &mut self.delay, |value| {
            units::duration(value, Duration::ZERO)
        });
        section.read("login_delay_max", &mut self.delay_max, |value| {
            units::duration(value, Duration::ZERO)
        });
        section.read("login_failures", &mut self.failures, failures);
        section.read(
            "login_failures_per_user",
            &mut self.failures_per_user,
            failures,
        );
        section.read("login_failure_window", &mut self.window, wait);
        section.read("lockout", &mut self.lockout, wait);
    }
}

impl Limits {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("sessions", &mut self.sessions, sessions);
        section.read("sessions_per_ip", &mut self.sessions_per_ip, sessions);
        section.read("sessions_waiting", &mut self.sessions_waiting, |value| {
            bounded(value, 1, BACKLOG_MAX)
        });
        section.read("line_length", &mut self.line_length, line_length);
        section.read("login_timeout", &mut self.login_timeout, wait);
        section.read("login_attempts", &mut self.login_attempts, |value| {
            bounded(value, 1, LOGIN_ATTEMPTS_MAX)
        });
        self.guard.read(section);
        section.read("idle_timeout", &mut self.idle_timeout, wait);
        section.read("reply_timeout", &mut self.reply_timeout, wait);
        section.read("stall_timeout", &mut self.stall_timeout, wait);
        let events = |value: &Value<'_>| bounded(value, 0, EVENTS_MAX);
        let connections = &mut self.connections_per_minute;
        section.read("connections_per_minute", connections, events);
        section.read("commands_per_second", &mut self.commands_per_second, events);
        self.session_rates
            .read(section, "session_down", "session_up");
        self.ip_rates.read(section, "ip_down", "ip_up");
        self.total_rates.read(section, "total_down", "total_up");
    }
}

/// A wait that a working client can meet.
pub(super) fn wait(value: &Value<'_>) -> Result<Duration, Wrong> {
    units::duration(value, WAIT_MIN)
}

fn sessions(value: &Value<'_>) -> Result<Option<NonZeroUsize>, Wrong> {
    Ok(NonZeroUsize::new(bounded(value, 0, SESSIONS_MAX)? as usize))
}

fn failures(value: &Value<'_>) -> Result<Option<NonZeroU32>, Wrong> {
    bounded(value, 0, FAILURES_MAX).map(NonZeroU32::new)
}

pub(super) fn bounded(value: &Value<'_>, min: u32, max: u32) -> Result<u32, Wrong> {
    let number = units::number(value, u64::from(min), u64::from(max))?;
    u32::try_from(number).map_err(|_| Wrong::new("too large"))
}

fn line_length(value: &Value<'_>) -> Result<usize, Wrong> {
    let bytes = units::size(value)?;
    usize::try_from(bytes)
        .ok()
        .filter(|bytes| (LINE_LENGTH_MIN..=LINE_LENGTH_MAX).contains(bytes))
        .ok_or_else(|| {
            Wrong::new(format!("{bytes} bytes is out of bounds")).hint(format!(
                "from {LINE_LENGTH_MIN} B to {} KiB",
                LINE_LENGTH_MAX >> 10
            ))
        })
}

/// The shortest maximum: a verb with a name of 255 bytes, all of them escaped Telnet IAC, fits.
pub const LINE_LENGTH_MIN: usize = 512;
/// The longest maximum: a path of PATH_MAX (4096) bytes, all of them escaped, fits.
pub const LINE_LENGTH_MAX: usize = 8 << 10;
/// More descriptors than any one process gets by default (fs.nr_open, proc_sys_fs(5)).
pub(super) const SESSIONS_MAX: u32 = 1 << 20;
/// More events than any client makes.
const EVENTS_MAX: u32 = 1_000_000;
/// Larger backlogs are beyond what kernels before 4.1 could hold, and of no use.
const BACKLOG_MAX: u32 = 65_535;
/// More guesses per connection serve only who guesses.
const LOGIN_ATTEMPTS_MAX: u32 = 100;
/// More guesses are as good as no bound.
const FAILURES_MAX: u32 = 1_000_000;
/// Shorter waits would cut off clients across a satellite link or a lossy one.
const WAIT_MIN: Duration = Duration::from_secs(1);
