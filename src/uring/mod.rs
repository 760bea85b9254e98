//! io_uring, in operations that may be dropped at any time.
//!
//! This is the only place that names `tokio_uring` and `io_uring`, and with [`crate::sys`] the only
//! one with `unsafe`. tokio-uring 0.5 owns the ring, its `user_data` and its completions; every
//! operation here goes through its hook for single-completion operations. What that runtime leaves
//! open is closed here:
//!
//! * A dropped operation stays in flight there. Here, whoever drops a wait for a socket or a pipe
//!   withdraws it (IORING_ASYNC_CANCEL by descriptor, Linux 5.19). Such a cancel hits every
//!   operation on that file; those whose owner still waits are submitted again.
//! * A dropped operation that returns a descriptor leaks it there. Here, [`open()`] is owned by a
//!   task that always sees its end, and [`accept()`] is a wait followed by accept4(2).
//! * The runtime's end frees buffers the kernel may still write to. Here, they are kept until the
//!   ring is gone (see `runtime`).
//! * Submissions wait until the thread parks, which a loop of `yield_now` never does: [`pause()`].
//!
//! What has a path, or changes a file, says whose rights it has: [`Handle`].
//!
//! Buffers are given to an operation and come back with its result. Descriptors are shared as
//! [`Fd`], so that a number cannot be closed and used anew while an operation names it.

mod accept;
mod chain;
mod exchange;
mod file;
mod names;
mod open;
mod operation;
mod personality;
mod pipe;
mod probe;
mod readiness;
mod runtime;
#[cfg(test)]
mod tests;

use std::os::fd::OwnedFd;
use std::rc::Rc;

pub use accept::{accept, connect};
pub use chain::{Naming, Step, write_and_name};
pub use exchange::{Receive, Sending, receive, send, send_all};
pub use file::{read_at, read_scattered_at, reserve, splice, write_all_at};
pub use names::{link, link_file, make_directory, rename, unlink};
pub use open::open;
pub use personality::{Handle, Personality};
pub use pipe::{Pipe, PipePool};
pub use probe::{KERNEL_MIN, ProbeError, probe};
pub use readiness::{Readiness, pause, readable, writable};
pub use runtime::{JoinHandle, RingOptions, spawn, start};

/// A descriptor, shared between its owner and the operations in flight on it.
pub type Fd = Rc<OwnedFd>;
