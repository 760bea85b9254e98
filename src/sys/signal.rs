//! Signals as plain events of one thread: sigprocmask(2), sigtimedwait(2).
//!
//! The signals the server acts on are blocked before any other thread exists (threads inherit the
//! mask), so no handler ever runs and no system call of a core is interrupted; the supervisor
//! waits for them.

use std::io;
use std::time::Duration;

use nix::sys::signal::{SigSet, Signal as Number};

/// What the operator asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Signal {
    /// SIGTERM: end.
    Terminate,
    /// SIGINT, Ctrl-C on a terminal: end.
    Interrupt,
    /// SIGHUP: read the configuration again.
    Hangup,
}

/// The signals of the server, blocked on this thread and on those it will start.
#[derive(Debug)]
pub struct Signals {
    set: SigSet,
}

impl Signals {
    /// Blocks the signals. To be called before the first thread is started.
    ///
    /// # Errors
    /// As pthread_sigmask(3).
    pub fn block() -> io::Result<Self> {
        let set: SigSet = [Number::SIGTERM, Number::SIGINT, Number::SIGHUP]
            .into_iter()
            .collect();
        set.thread_block()?;
        Ok(Self { set })
    }

    /// Waits for the next signal, at most `timeout`. `None`: none came.
    ///
    /// # Errors
    /// As sigtimedwait(2).
    pub fn wait(&self, timeout: Duration) -> io::Result<Option<Signal>> {
        let timeout = libc::timespec {
            tv_sec: libc::time_t::try_from(timeout.as_secs()).unwrap_or(libc::time_t::MAX),
            tv_nsec: timeout.subsec_nanos().into(),
        };
        // SAFETY: the set and the timeout live through the call; the kernel is not asked for
        // details of the signal (null).
        let number = unsafe {
            libc::sigtimedwait(self.set.as_ref(), std::ptr::null_mut(), &raw const timeout)
        };
        match number {
            libc::SIGTERM => Ok(Some(Signal::Terminate)),
            libc::SIGINT => Ok(Some(Signal::Interrupt)),
            libc::SIGHUP => Ok(Some(Signal::Hangup)),
            _ => match io::Error::last_os_error() {
                // EINTR: a signal outside the set, such as SIGCONT; the caller's loop waits again.
                error if matches!(error.raw_os_error(), Some(libc::EAGAIN | libc::EINTR)) => {
                    Ok(None)
                }
                error => Err(error),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn blocked_signals_arrive_as_values() {
        // A thread of its own: the mask is the thread's, and raise(3) sends to the thread.
        std::thread::spawn(|| {
            let signals = Signals::block().unwrap();
            assert_eq!(signals.wait(Duration::ZERO).unwrap(), None);
            for (number, expected) in [
                (Number::SIGTERM, Signal::Terminate),
                (Number::SIGINT, Signal::Interrupt),
                (Number::SIGHUP, Signal::Hangup),
            ] {
                nix::sys::signal::raise(number).unwrap();
                assert_eq!(
                    signals.wait(Duration::from_secs(5)).unwrap(),
                    Some(expected)
                );
            }
            assert_eq!(signals.wait(Duration::from_millis(1)).unwrap(), None);
        })
        .join()
        .unwrap();
    }
}
