//! The log: `tracing` events, written to standard error by a thread of its own.
//!
//! A core must never wait for a terminal, a pipe or journald. Events go into a bounded queue; when
//! it is full they are dropped and counted, and the count is told at the end.

use std::io::{self, IsTerminal, Write};
use std::sync::OnceLock;

use nix::sys::signal::{SigSet, SigmaskHow};
use tracing_appender::non_blocking::{ErrorCounter, NonBlocking, NonBlockingBuilder, WorkerGuard};
use tracing_subscriber::EnvFilter;
use tracing_subscriber::fmt::SubscriberBuilder;
use tracing_subscriber::util::SubscriberInitExt;

/// The form of a log line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// For people; in colour on a terminal, unless NO_COLOR is set (no-color.org).
    Text,
    /// One JSON object per line, with the event's fields at its top level.
    Json,
}

/// Keeps the log going. Dropping it writes what is queued, for one second at most, and ends it.
#[must_use = "the log ends when this is dropped"]
#[derive(Debug)]
pub struct Guard {
    dropped: ErrorCounter,
    /// After `dropped`: the count is told first, then the queue is written out.
    _worker: WorkerGuard,
}

impl Guard {
    /// Events lost so far because the reader of standard error was too slow.
    pub fn dropped_events(&self) -> usize {
        self.dropped.dropped_lines()
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        let count = self.dropped_events();
        if count > 0 {
            // Not through the queue that was too short already.
            let _ = writeln!(
                io::stderr(),
                "{count} log events were dropped: standard error is slow"
            );
        }
    }
}

/// Starts the log. `level` is `error`, `warn`, `info`, `debug` or `trace`; the environment
/// variable RUST_LOG overrides it and may set levels by module.
///
/// # Errors
/// RUST_LOG or `level` cannot be understood, or the log was started before.
pub fn init(level: &str, format: Format) -> Result<Guard, LogError> {
    let filter = match std::env::var(FILTER_VARIABLE) {
        Ok(text) if !text.is_empty() => {
            EnvFilter::try_new(&text).map_err(|error| LogError::Filter {
                text,
                reason: error.to_string(),
            })?
        }
        _ => EnvFilter::try_new(level).map_err(|error| LogError::Filter {
            text: level.to_owned(),
            reason: error.to_string(),
        })?,
    };
    let (writer, worker) = start_writer().map_err(LogError::Signals)?;
    let dropped = writer.error_counter();
    let builder = builder(filter, writer);
    let started = match format {
        Format::Text => {
            let builder = builder.with_filter_reloading();
            let handle = builder.reload_handle();
            let started = builder.finish().try_init();
            started.map(|()| setter(move |filter| handle.reload(filter)))
        }
        Format::Json => {
            let builder = builder.json().flatten_event(true).with_filter_reloading();
            let handle = builder.reload_handle();
            let started = builder.finish().try_init();
            started.map(|()| setter(move |filter| handle.reload(filter)))
        }
    };
    let setter = started.map_err(|_| LogError::Started)?;
    // A process has one log.
    let _ = SET_FILTER.set(setter);
    Ok(Guard {
        dropped,
        _worker: worker,
    })
}

/// Goes on with this level, unless RUST_LOG says which.
///
/// # Errors
/// The log was not started.
pub fn set_level(level: &str) -> Result<(), LogError> {
    if std::env::var_os(FILTER_VARIABLE).is_some_and(|text| !text.is_empty()) {
        return Ok(());
    }
    let filter = EnvFilter::try_new(level).map_err(|error| LogError::Filter {
        text: level.to_owned(),
        reason: error.to_string(),
    })?;
    match SET_FILTER.get().is_some_and(|set| set(filter)) {
        true => Ok(()),
        false => Err(LogError::NotStarted),
    }
}

type Setter = Box<dyn Fn(EnvFilter) -> bool + Send + Sync>;

fn setter(
    reload: impl Fn(EnvFilter) -> Result<(), tracing_subscriber::reload::Error> + Send + Sync + 'static,
) -> Setter {
    Box::new(move |filter| reload(filter).is_ok())
}

/// Changes the filter of the log that was started.
static SET_FILTER: OnceLock<Setter> = OnceLock::new();

/// Starts the writing thread, which takes no signals: one that it took would end the process by
/// its default action, past the thread that waits for them (signal(7): any thread that does not
/// block a signal may get it).
fn start_writer() -> io::Result<(NonBlocking, WorkerGuard)> {
    let before = SigSet::all().thread_swap_mask(SigmaskHow::SIG_BLOCK)?;
    let started = NonBlockingBuilder::default()
        .buffered_lines_limit(QUEUE_LINES_MAX)
        .lossy(true)
        .thread_name("ringftpd-log")
        .finish(io::stderr());
    before.thread_set_mask()?;
    Ok(started)
}

type Builder = SubscriberBuilder<
    tracing_subscriber::fmt::format::DefaultFields,
    tracing_subscriber::fmt::format::Format,
    EnvFilter,
    NonBlocking,
>;

fn builder(filter: EnvFilter, writer: NonBlocking) -> Builder {
    // An escape sequence in a log file, or from a client in a terminal, does harm: colour only
    // where a person looks.
    let colour = io::stderr().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    tracing_subscriber::fmt()
        .with_env_filter(filter)
        .with_writer(writer)
        .with_ansi(colour)
        .with_target(false)
}

/// Why the log could not be started.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LogError {
    /// The filter cannot be understood.
    #[error("{text:?} is not a log filter: {reason}\n  hint: RUST_LOG=debug, or ringftpd=debug")]
    Filter {
        /// The filter.
        text: String,
        /// Why.
        reason: String,
    },
    /// The signals of the writing thread could not be blocked.
    #[error("the log's thread could not block signals: {0}")]
    Signals(#[source] io::Error),
    /// A process has one log.
    #[error("the log was started before")]
    Started,
    /// There is no log.
    #[error("the log was not started")]
    NotStarted,
}

const FILTER_VARIABLE: &str = "RUST_LOG";

/// About 2 MiB of lines: a second of a busy server at `info`.
const QUEUE_LINES_MAX: usize = 16 << 10;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_writing_thread_takes_no_signals() {
        let _guard = init("error", Format::Text).expect("the first log of this process");
        assert!(matches!(
            init("error", Format::Json),
            Err(LogError::Started)
        ));
        let blocked = std::fs::read_dir("/proc/self/task")
            .expect("proc(5)")
            .filter_map(|task| std::fs::read_to_string(task.ok()?.path().join("status")).ok())
            .filter(|status| status.starts_with("Name:\tringftpd-log\n"))
            .filter_map(|status| {
                let mask = status
                    .lines()
                    .find_map(|line| line.strip_prefix("SigBlk:\t"))?;
                u64::from_str_radix(mask, 16).ok()
            });
        let blocked: Vec<u64> = blocked.collect();
        assert!(!blocked.is_empty());
        for mask in blocked {
            // Bit n − 1 is signal n: SIGHUP 1, SIGINT 2, SIGTERM 15 (proc(5)).
            assert_eq!(
                mask & (1 | 1 << 1 | 1 << 14),
                1 | 1 << 1 | 1 << 14,
                "{mask:x}"
            );
        }
    }

    #[test]
    fn a_level_that_is_none_is_refused() {
        assert!(matches!(
            init("a=b=c", Format::Text),
            Err(LogError::Filter { .. })
        ));
    }
}
