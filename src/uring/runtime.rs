//! The ring of one core: its making, its tasks, its end.

use std::any::Any;
use std::cell::{Cell, RefCell};
use std::collections::HashSet;
use std::fs;
use std::future::Future;
use std::io;
use std::os::fd::{BorrowedFd, RawFd};
use std::sync::{Mutex, PoisonError};

use tokio_uring::Runtime;

/// A task of this core. Dropping it leaves the task running.
pub use tokio::task::JoinHandle;

/// How the ring of a core is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct RingOptions {
    /// Entries of the submission queue, a power of two. When it is full it is submitted at once,
    /// so this bounds the size of a batch, not the number of operations in flight.
    pub entries: u32,
    /// Whether operations may have the rights of accounts of this host
    /// ([`Personality`](super::Personality)).
    pub personalities: bool,
}

impl Default for RingOptions {
    /// 256 entries: 64 bytes each, and a batch no load has been seen to exceed.
    fn default() -> Self {
        Self {
            entries: 256,
            personalities: false,
        }
    }
}

/// Makes a ring and runs a future on it, on the calling thread, with all the tasks it spawns. Tasks
/// that still run when the future ends are dropped.
///
/// # Errors
/// When the ring cannot be made; [`super::probe()`] explains why.
///
/// # Panics
/// When this thread already runs a ring.
pub fn start<F: Future>(
    options: &RingOptions,
    future: impl FnOnce() -> F,
) -> io::Result<F::Output> {
    assert!(PHASE.get() == Phase::NoRing, "one ring per thread");
    // Locals are dropped in reverse: first the mark, so that nothing is submitted any more, then the
    // runtime with its tasks and its ring, at last what the ring may have used until its end.
    let _ended = Ended;
    let runtime = create(options)?;
    let _running = Running::mark();
    Ok(runtime.block_on(async move { future().await }))
}

/// Starts a task on this core.
///
/// # Panics
/// Outside of [`start`].
pub fn spawn<F: Future + 'static>(future: F) -> JoinHandle<F::Output> {
    tokio_uring::spawn(future)
}

/// Whether this thread's ring takes operations.
pub(super) fn is_running() -> bool {
    PHASE.get() == Phase::Running
}

/// Submits what waits to be submitted, so that the submission queue is empty: entries pushed now, no
/// more than it has room for, are submitted together. False when it could not be done.
pub(super) fn flush() -> bool {
    RING.get().is_some_and(|(ring, entries)| {
        // SAFETY: without a signal mask io_uring_enter(2) points to no memory of ours. The ring is
        // that of this thread, and no other submits; its runtime reads the head of the queue before each
        // use of it.
        let submitted = unsafe {
            libc::syscall(
                libc::SYS_io_uring_enter,
                ring,
                entries,
                0,
                0,
                std::ptr::null::<libc::sigset_t>(),
                0,
            )
        };
        // What is left over, if anything, was refused (EAGAIN, EBUSY), and that is an error.
        submitted >= 0
    })
}

/// The ring of this thread, as long as it takes operations.
pub(super) fn ring() -> Option<BorrowedFd<'static>> {
    let (ring, _) = RING.get().filter(|_| is_running())?;
    // SAFETY: the runtime keeps the ring open until after it has stopped running on this thread; a
    // borrow is used up within a call here.
    Some(unsafe { BorrowedFd::borrow_raw(ring) })
}

/// Drops what was lent to the kernel, or keeps it while the ring is ending, which is when the
/// kernel may still use it.
pub(super) fn drop_or_keep<D: 'static>(data: D) {
    if PHASE.get() == Phase::Ending {
        KEPT.with_borrow_mut(|kept| kept.push(Box::new(data)));
    }
}

#[derive(Clone, Copy, Eq, PartialEq)]
enum Phase {
    NoRing,
    Running,
    Ending,
}

thread_local! {
    static PHASE: Cell<Phase> = const { Cell::new(Phase::NoRing) };
    /// The descriptor of the ring, and the entries of its submission queue.
    static RING: Cell<Option<(RawFd, u32)>> = const { Cell::new(None) };
    static KEPT: RefCell<Vec<Box<dyn Any>>> = const { RefCell::new(Vec::new()) };
}

struct Running;

impl Running {
    fn mark() -> Self {
        PHASE.set(Phase::Running);
        Self
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        PHASE.set(Phase::Ending);
    }
}

/// Frees what was kept, once the ring is gone.
struct Ended;

impl Drop for Ended {
    fn drop(&mut self) {
        PHASE.set(Phase::NoRing);
        RING.set(None);
        drop(KEPT.take());
    }
}

/// Makes the runtime and bounds its workers.
fn create(options: &RingOptions) -> io::Result<Runtime> {
    // One at a time, so that the one new ring among the process's descriptors is ours.
    let _one_at_a_time = CREATION.lock().unwrap_or_else(PoisonError::into_inner);
    let before = ring_descriptors();
    let mut builder = tokio_uring::builder();
    builder
        .entries(options.entries)
        .uring_builder(&match options.personalities {
            // Other threads register them.
            true => flags_of_all(options.entries),
            false => flags(options.entries),
        });
    let runtime = Runtime::new(&builder)?;
    let after = ring_descriptors();
    let mut new = after.difference(&before);
    if let (Some(&ring), None) = (new.next(), new.next()) {
        // The kernel's own bound is only looser, so the ring is as good without.
        let _ = limit_workers(ring, [WORKERS_BOUNDED_MAX, WORKERS_UNBOUNDED_MAX]);
        RING.set(Some((ring, options.entries)));
    }
    Ok(runtime)
}

/// The flags of a ring; [`super::probe()`] tries them.
pub(super) fn flags(entries: u32) -> io_uring::Builder {
    let mut builder = flags_of_all(entries);
    // Linux 6.0: only this thread submits, or registers anything. That spares the kernel a look at
    // each submission, no more, without DEFER_TASKRUN.
    builder.setup_single_issuer();
    builder
}

/// The flags that every ring of this program has.
fn flags_of_all(entries: u32) -> io_uring::Builder {
    let mut builder = tokio_uring::uring_builder();
    builder
        // Linux 5.19: completions are taken up when the thread enters the kernel anyway, instead of
        // by interrupting it. (DEFER_TASKRUN is not for tokio-uring 0.5, which never waits inside
        // io_uring_enter.)
        .setup_coop_taskrun()
        // Linux 5.18: one bad entry does not hold back those behind it.
        .setup_submit_all()
        // Every session has an operation in flight, and all may complete at once. The kernel keeps
        // what does not fit, but slowly.
        .setup_cqsize(entries.saturating_mul(COMPLETIONS_PER_ENTRY));
    builder
}

/// The descriptors of this thread that are rings.
fn ring_descriptors() -> HashSet<RawFd> {
    let Ok(directory) = fs::read_dir("/proc/thread-self/fd") else {
        return HashSet::new();
    };
    directory
        .flatten()
        .filter(|entry| {
            fs::read_link(entry.path()).is_ok_and(|target| target.as_os_str() == RING_LINK)
        })
        .filter_map(|entry| entry.file_name().to_str()?.parse().ok())
        .collect()
}

/// Sets the limits of bounded and unbounded workers where they are not 0, and returns what they
/// were. Linux 5.15: IORING_REGISTER_IOWQ_MAX_WORKERS, io_uring_register(2).
fn limit_workers(ring: RawFd, limits: [libc::c_uint; 2]) -> io::Result<[libc::c_uint; 2]> {
    let mut limits = limits;
    // SAFETY: this operation reads and writes an array of two unsigned ints, which outlives it.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring,
            REGISTER_IOWQ_MAX_WORKERS,
            limits.as_mut_ptr(),
            limits.len(),
        )
    };
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(limits)
    }
}

/// Serialises the making of rings in this process.
pub(super) static CREATION: Mutex<()> = Mutex::new(());

/// What the kernel calls a ring in /proc (anon_inode).
const RING_LINK: &str = "anon_inode:[io_uring]";

/// Completion entries (16 bytes each) per submission entry.
const COMPLETIONS_PER_ENTRY: u32 = 16;

/// Kernel threads per core for opens, names and file reads and writes. They sleep in the disk; more
/// of them than a disk has queue slots worth using gain nothing.
const WORKERS_BOUNDED_MAX: libc::c_uint = 16;

/// Kernel threads per core for splices, one for each cold download that reads at the moment. The
/// kernel's own bound is the limit of processes.
const WORKERS_UNBOUNDED_MAX: libc::c_uint = 32;

/// `IORING_REGISTER_IOWQ_MAX_WORKERS` of linux/io_uring.h.
const REGISTER_IOWQ_MAX_WORKERS: libc::c_uint = 19;

#[cfg(test)]
mod tests {
    use super::super::pause;
    use super::super::tests::alone;
    use super::*;

    #[test]
    fn workers_are_bounded() {
        let limits = alone(|| {
            start(&RingOptions::default(), || async {
                pause().await;
                let rings = ring_descriptors();
                assert_eq!(rings.len(), 1);
                limit_workers(rings.into_iter().next().unwrap(), [0, 0]).unwrap()
            })
        });
        assert_eq!(
            limits.unwrap(),
            [WORKERS_BOUNDED_MAX, WORKERS_UNBOUNDED_MAX]
        );
    }

    #[test]
    fn a_future_that_panics_leaves_the_thread_fit_for_the_next_ring() {
        alone(|| {
            let panicked = std::panic::catch_unwind(|| {
                start(&RingOptions::default(), || async {
                    pause().await;
                    std::panic::resume_unwind(Box::new(()));
                })
            });
            assert!(panicked.is_err());
            start(&RingOptions::default(), pause).unwrap();
        });
    }
}
