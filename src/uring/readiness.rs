//! Waiting until a descriptor can be read or written, and giving way.

use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use io_uring::{opcode, types};

use super::Fd;
use super::operation::{Guarded, hit_by_withdrawal, submit};

/// Waits until there is something to read, the peer has closed its side, or an error is pending.
pub fn readable(fd: &Fd) -> Readiness {
    Readiness::new(fd, libc::POLLIN | libc::POLLRDHUP)
}

/// Waits until something can be written, or an error is pending.
pub fn writable(fd: &Fd) -> Readiness {
    Readiness::new(fd, libc::POLLOUT)
}

/// Gives way: to every task that is ready, and to the ring, whose submissions go out meanwhile.
///
/// To be called between turns of work that never waits by itself. (`tokio::task::yield_now` would
/// let tasks run, but tokio-uring submits only when the thread parks, and a yielding loop never
/// lets it.)
pub async fn pause() {
    // SAFETY: a NOP uses no memory and no descriptor.
    let _ = unsafe { submit((), opcode::Nop::new().build()) }.await;
}

/// A wait for readiness: IORING_OP_POLL_ADD. It may be polled, kept and dropped at any time;
/// dropping withdraws it.
#[must_use = "a wait does nothing unless it is awaited"]
pub struct Readiness {
    fd: Fd,
    events: u32,
    wait: Option<Guarded<Fd>>,
}

impl Readiness {
    fn new(fd: &Fd, events: libc::c_short) -> Self {
        let events = u32::from(events.cast_unsigned());
        Self {
            fd: Fd::clone(fd),
            events,
            wait: None,
        }
    }
}

impl Future for Readiness {
    /// An error is the ring's; errors of the descriptor make it ready.
    type Output = io::Result<()>;

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        let this = &mut *self;
        loop {
            let wait = this
                .wait
                .get_or_insert_with(|| poll_add(&this.fd, this.events));
            let (result, _) = ready!(Pin::new(wait).poll(context));
            this.wait = None;
            if !hit_by_withdrawal(&result) {
                return Poll::Ready(result.map(drop));
            }
        }
    }
}

fn poll_add(fd: &Fd, events: u32) -> Guarded<Fd> {
    let entry = opcode::PollAdd::new(types::Fd(fd.as_raw_fd()), events).build();
    // SAFETY: the entry points to no memory and `data` keeps its descriptor open.
    let operation = unsafe { submit(Fd::clone(fd), entry) };
    Guarded::new(operation, Fd::clone(fd))
}
