//! What all operations share: withdrawal, giving way, the end of the ring; and a place to test in.

use std::cell::Cell;
use std::fs;
use std::future::Future;
use std::os::unix::net::UnixStream;
use std::rc::Rc;
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use super::*;
use crate::sys::socket;

/// Runs a test on a ring, on a thread with a descriptor table of its own, so that descriptors can
/// be counted and closed without regard to the tests beside it. A hang is a failure.
pub(super) fn on_ring<F, T>(test: impl FnOnce() -> F + Send + 'static) -> T
where
    F: Future<Output = T>,
    T: Send + 'static,
{
    alone(|| {
        start(&RingOptions::default(), || async {
            tokio::time::timeout(HANG, test())
                .await
                .expect("the test hangs")
        })
        .unwrap()
    })
}

/// Runs a function on a thread with an empty descriptor table of its own.
pub(super) fn alone<T: Send + 'static>(test: impl FnOnce() -> T + Send + 'static) -> T {
    let thread = std::thread::spawn(|| {
        let flags = libc::CLOSE_RANGE_UNSHARE.cast_signed();
        // SAFETY: takes numbers only; what it closes are this thread's copies of descriptors that
        // other threads own, in a table of its own.
        let result = unsafe { libc::close_range(3, u32::MAX, flags) };
        assert_eq!(result, 0, "close_range");
        test()
    });
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

/// Descriptors of this thread's table.
pub(super) fn descriptors() -> usize {
    // The directory that is being read is one of them.
    fs::read_dir("/proc/thread-self/fd").unwrap().count() - 1
}

/// Waits until this thread's table has `expected` descriptors again; fails when it never does.
pub(super) async fn expect_descriptors(expected: usize) {
    for _ in 0..10_000 {
        if descriptors() == expected {
            return;
        }
        pause().await;
    }
    assert_eq!(descriptors(), expected, "descriptors");
}

/// Polls once; the future must not be ready.
pub(super) fn expect_pending<F: Future + Unpin>(future: &mut F) {
    let mut context = Context::from_waker(Waker::noop());
    assert!(
        std::pin::Pin::new(future).poll(&mut context).is_pending(),
        "ready too early"
    );
}

/// A connected pair of non-blocking sockets.
pub(super) fn pair() -> (Fd, Fd) {
    let (one, other) = UnixStream::pair().unwrap();
    one.set_nonblocking(true).unwrap();
    other.set_nonblocking(true).unwrap();
    (Fd::new(one.into()), Fd::new(other.into()))
}

const HANG: Duration = Duration::from_secs(60);

#[test]
fn a_dropped_readiness_is_withdrawn_and_releases_its_file() {
    on_ring(|| async {
        let before = descriptors();
        for _ in 0..20 {
            let (one, other) = pair();
            let mut wait = readable(&one);
            expect_pending(&mut wait);
            pause().await;
            drop(wait);
            drop(one);
            // The end of the stream comes when the last reference to the file is gone.
            readable(&other).await.unwrap();
            assert_eq!(socket::receive(&other, &mut [0]).unwrap(), 0);
        }
        expect_descriptors(before).await;
    });
}

#[test]
fn a_readiness_dropped_before_it_was_submitted_is_withdrawn() {
    on_ring(|| async {
        let (one, other) = pair();
        let mut wait = readable(&one);
        expect_pending(&mut wait);
        drop(wait);
        drop(readable(&one));
        drop(one);
        readable(&other).await.unwrap();
        assert_eq!(socket::receive(&other, &mut [0]).unwrap(), 0);
    });
}

#[test]
fn withdrawing_one_operation_leaves_its_siblings_on_the_file() {
    on_ring(|| async {
        let (one, other) = pair();
        let mut reception = receive(&one, Vec::with_capacity(8));
        let mut kept = readable(&one);
        for _ in 0..50 {
            expect_pending(&mut reception);
            expect_pending(&mut kept);
            let mut dropped = readable(&one);
            expect_pending(&mut dropped);
            pause().await;
            drop(dropped);
            pause().await;
        }
        let task = spawn(async move {
            let (result, bytes) = reception.await;
            assert_eq!(result.unwrap(), 5);
            bytes
        });
        assert_eq!(send_all(&other, b"still".to_vec()).await.1, b"still");
        assert_eq!(task.await.unwrap(), b"still");
        send_all(&other, b"here".to_vec()).await.0.unwrap();
        kept.await.unwrap();
    });
}

#[test]
fn a_busy_loop_that_pauses_starves_nobody() {
    on_ring(|| async {
        let done = Rc::new(Cell::new(false));
        let turns = Rc::new(Cell::new(0u32));
        let busy = spawn({
            let (done, turns) = (Rc::clone(&done), Rc::clone(&turns));
            async move {
                while !done.get() {
                    turns.set(turns.get() + 1);
                    pause().await;
                }
            }
        });
        let (one, other) = pair();
        for round in 0..100u8 {
            let (result, _) = send_all(&one, vec![round]).await;
            result.unwrap();
            let (result, bytes) = receive(&other, Vec::with_capacity(1)).await;
            assert_eq!((result.unwrap(), bytes), (1, vec![round]));
        }
        // Submissions of the others go out with those of the loop: it turns a few times for each.
        assert!(
            turns.get() > 0 && turns.get() < 10_000,
            "{} turns",
            turns.get()
        );
        done.set(true);
        busy.await.unwrap();
    });
}

#[test]
fn the_ring_ends_with_operations_in_flight() {
    alone(|| {
        let before = descriptors();
        let outlived = start(&RingOptions::default(), || async {
            let (one, other) = pair();
            let (silent, kept) = (Fd::clone(&one), Fd::clone(&other));
            spawn(async move {
                // In a task, awaited.
                let (result, _) = receive(&one, vec![0; 4096]).await;
                drop((result, kept));
            });
            for _ in 0..20 {
                let silent = Fd::clone(&silent);
                spawn(async move { readable(&silent).await });
            }
            pause().await;
            // Submitted, then abandoned at the end; and abandoned before.
            let mut reception = receive(&silent, vec![0; 4096]);
            expect_pending(&mut reception);
            let mut abandoned = receive(&other, vec![0; 4096]);
            expect_pending(&mut abandoned);
            drop(abandoned);
            // Data that comes while the ring ends must find its buffers.
            send_all(&other, vec![1; 4096]).await.0.unwrap();
            (reception, readable(&silent))
        });
        drop(outlived.unwrap());
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn waits_that_were_never_polled_need_no_ring() {
    let (one, _other) = pair();
    drop(readable(&one));
    drop(receive(&one, vec![0; 1]));
}

#[test]
fn one_thread_may_run_one_ring_after_the_other() {
    alone(|| {
        let before = descriptors();
        for round in 0..3 {
            let output = start(
                &RingOptions {
                    entries: 4,
                    ..RingOptions::default()
                },
                || async move {
                    pause().await;
                    // More than the submission queue holds.
                    let tasks: Vec<_> = (0..40).map(|_| spawn(pause())).collect();
                    for task in tasks {
                        task.await.unwrap();
                    }
                    round
                },
            );
            assert_eq!(output.unwrap(), round);
        }
        assert_eq!(descriptors(), before);
    });
}

#[test]
fn rings_of_many_threads_are_told_apart() {
    let threads: Vec<_> = (0..8)
        .map(|_| std::thread::spawn(|| start(&RingOptions::default(), pause).unwrap()))
        .collect();
    for thread in threads {
        thread.join().unwrap();
    }
}

#[test]
fn a_task_can_be_abandoned_and_awaited() {
    on_ring(|| async {
        let ran = Rc::new(Cell::new(0));
        let count = |ran: &Rc<Cell<u32>>| {
            let ran = Rc::clone(ran);
            async move {
                pause().await;
                ran.set(ran.get() + 1);
            }
        };
        drop(spawn(count(&ran)));
        spawn(count(&ran)).await.unwrap();
        while ran.get() < 2 {
            pause().await;
        }
    });
}

#[test]
fn a_panic_in_a_task_ends_the_task_alone() {
    on_ring(|| async {
        let task = spawn(async {
            pause().await;
            std::panic::resume_unwind(Box::new("task"));
        });
        assert!(task.await.unwrap_err().is_panic());
        pause().await;
        assert!(std::future::poll_fn(|_| Poll::Ready(true)).await);
    });
}
