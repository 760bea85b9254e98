//! Threads for work that would block a core: password hashes, listings, checksums, log files.
//!
//! Few threads and a short queue, both bounded: when the queue is full the caller is told at once
//! and answers its client, instead of letting work and memory pile up.

use std::collections::VecDeque;
use std::future::Future;
use std::io;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError};
use std::thread;

use thiserror::Error;
use tokio::sync::oneshot;

/// A small, bounded set of threads. Clones share it; the threads end with the last clone, after
/// what is still queued.
#[derive(Clone, Debug)]
pub struct Workers {
    // The threads hold `Shared`, only clones hold `Owner`: its end is the threads' end.
    owner: Arc<Owner>,
}

/// Why a job has no result.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum WorkerError {
    /// The queue is full; nothing was done.
    #[error("all workers are busy and their queue is full")]
    Busy,
    /// The job panicked; its thread goes on with the next one.
    #[error("the job panicked")]
    Panicked,
}

impl Workers {
    /// Starts `threads` threads named `name`, which take jobs from a queue of at most `queue_max`.
    ///
    /// # Errors
    /// EAGAIN when the limit of threads is reached; those already started end again.
    ///
    /// # Panics
    /// When `threads` or `queue_max` is 0: nothing could ever run.
    pub fn start(name: &str, threads: usize, queue_max: usize) -> io::Result<Self> {
        assert!(
            threads > 0 && queue_max > 0,
            "workers need a thread and a queue"
        );
        let state = State {
            jobs: VecDeque::with_capacity(queue_max),
            ended: false,
            running: 0,
            wanted: threads,
        };
        let shared = Arc::new(Shared {
            state: Mutex::new(state),
            wake: Condvar::new(),
            queue_max,
            name: name.to_owned(),
        });
        let workers = Self {
            owner: Arc::new(Owner { shared }),
        };
        workers.set_threads(threads)?;
        Ok(workers)
    }

    /// Goes on with so many threads. Those too many end when they have done the job that they are at.
    ///
    /// # Errors
    /// EAGAIN when the limit of threads is reached; it goes on with what there is.
    ///
    /// # Panics
    /// When `threads` is 0: nothing could ever run.
    pub fn set_threads(&self, threads: usize) -> io::Result<()> {
        assert!(threads > 0, "workers need a thread");
        let shared = &self.owner.shared;
        let mut state = shared.lock();
        state.wanted = threads;
        while state.running < state.wanted {
            let worker = Arc::clone(shared);
            thread::Builder::new()
                .name(shared.name.clone())
                .spawn(move || worker.work())
                .inspect_err(|_| state.wanted = state.running)?;
            state.running += 1;
        }
        drop(state);
        // Those too many may be asleep.
        shared.wake.notify_all();
        Ok(())
    }

    /// Hands over a job whose end nobody waits for.
    ///
    /// # Errors
    /// [`WorkerError::Busy`]; the job is dropped.
    pub fn hand_over(&self, job: impl FnOnce() + Send + 'static) -> Result<(), WorkerError> {
        self.owner.shared.push(Box::new(move || {
            // AssertUnwindSafe: what the job captured is gone after a panic, nobody sees it.
            let _ = catch_unwind(AssertUnwindSafe(job));
        }))
    }

    /// Hands a job to the workers, at once; the future waits for its result.
    ///
    /// Dropping the future drops a job that has not begun; one that has begun runs to its end and
    /// its result is dropped on the worker's thread.
    pub fn run<T, J>(&self, job: J) -> impl Future<Output = Result<T, WorkerError>> + use<T, J>
    where
        T: Send + 'static,
        J: FnOnce() -> T + Send + 'static,
    {
        let (sender, receiver) = oneshot::channel();
        let queued = self.owner.shared.push(Box::new(move || {
            if sender.is_closed() {
                return;
            }
            // AssertUnwindSafe: what the job captured is gone after a panic, nobody sees it.
            let result = catch_unwind(AssertUnwindSafe(job)).map_err(|_| WorkerError::Panicked);
            // The caller may have gone meanwhile.
            let _ = sender.send(result);
        }));
        async move {
            queued?;
            // The job always answers while this future lives; without an answer it did not run.
            receiver.await.unwrap_or(Err(WorkerError::Busy))
        }
    }
}

type Job = Box<dyn FnOnce() + Send>;

#[derive(Debug)]
struct Owner {
    shared: Arc<Shared>,
}

impl Drop for Owner {
    fn drop(&mut self) {
        self.shared.lock().ended = true;
        self.shared.wake.notify_all();
    }
}

struct Shared {
    state: Mutex<State>,
    wake: Condvar,
    queue_max: usize,
    name: String,
}

struct State {
    jobs: VecDeque<Job>,
    ended: bool,
    /// Threads there are, and how many there should be.
    running: usize,
    wanted: usize,
}

impl Shared {
    fn push(&self, job: Job) -> Result<(), WorkerError> {
        let mut state = self.lock();
        if state.jobs.len() >= self.queue_max {
            return Err(WorkerError::Busy);
        }
        state.jobs.push_back(job);
        drop(state);
        self.wake.notify_one();
        Ok(())
    }

    fn work(&self) {
        while let Some(job) = self.next() {
            job();
        }
    }

    fn next(&self) -> Option<Job> {
        let mut state = self.lock();
        loop {
            if state.running > state.wanted {
                state.running -= 1;
                return None;
            }
            if let Some(job) = state.jobs.pop_front() {
                return Some(job);
            }
            if state.ended {
                return None;
            }
            state = self
                .wake
                .wait(state)
                .unwrap_or_else(PoisonError::into_inner);
        }
    }

    fn lock(&self) -> MutexGuard<'_, State> {
        // No code that can panic runs under the lock, and the queue is valid at every step.
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl std::fmt::Debug for Shared {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Shared")
            .field("queue_max", &self.queue_max)
            .finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        tokio::runtime::Builder::new_current_thread()
            .build()
            .unwrap()
            .block_on(future)
    }

    #[test]
    fn a_job_runs_elsewhere_and_answers() {
        let workers = Workers::start("worker-test", 2, 4).unwrap();
        let here = thread::current().id();
        let (there, name) = block_on(workers.run(|| {
            let current = thread::current();
            (current.id(), current.name().map(str::to_owned))
        }))
        .unwrap();
        assert_ne!(there, here);
        assert_eq!(name.as_deref(), Some("worker-test"));
    }

    #[test]
    fn a_full_queue_is_told_at_once() {
        let workers = Workers::start("worker-test", 1, 2).unwrap();
        let (started, wait_started) = mpsc::channel();
        let (release, wait_release) = mpsc::channel::<()>();
        let running = workers.run(move || {
            started.send(()).unwrap();
            wait_release.recv().unwrap();
            0
        });
        wait_started.recv().unwrap();
        let queued = [1, 2].map(|number| workers.run(move || number));
        assert_eq!(block_on(workers.run(|| 3)), Err(WorkerError::Busy));
        release.send(()).unwrap();
        assert_eq!(block_on(running), Ok(0));
        for (index, job) in queued.into_iter().enumerate() {
            assert_eq!(block_on(job), Ok(index + 1));
        }
        assert_eq!(block_on(workers.run(|| 4)), Ok(4));
    }

    #[test]
    fn threads_come_and_go() {
        let workers = Workers::start("worker-test", 1, 8).unwrap();
        let (started, wait_started) = mpsc::channel();
        let hold = |release: mpsc::Receiver<()>| {
            let started = started.clone();
            workers.run(move || {
                started.send(()).unwrap();
                let _ = release.recv();
            })
        };
        workers.set_threads(3).unwrap();
        let (releases, jobs): (Vec<_>, Vec<_>) = (0..3)
            .map(|_| {
                let (release, wait) = mpsc::channel();
                (release, hold(wait))
            })
            .unzip();
        for _ in 0..3 {
            wait_started.recv().unwrap();
        }
        workers.set_threads(1).unwrap();
        drop(releases);
        for job in jobs {
            block_on(job).unwrap();
        }
        // Whoever has ended does not take the next jobs: one thread does them all.
        while workers.owner.shared.lock().running > 1 {
            thread::yield_now();
        }
        let ids = [(); 4].map(|()| block_on(workers.run(|| thread::current().id())).unwrap());
        assert!(ids.iter().all(|id| *id == ids[0]));
    }

    #[test]
    fn a_panic_ends_the_job_not_the_thread() {
        let workers = Workers::start("worker-test", 1, 2).unwrap();
        for _ in 0..3 {
            let panicked =
                block_on(workers.run(|| -> u8 { std::panic::resume_unwind(Box::new(())) }));
            assert_eq!(panicked, Err(WorkerError::Panicked));
        }
        assert_eq!(block_on(workers.run(|| 7)), Ok(7));
    }

    #[test]
    fn a_job_whose_caller_went_before_it_began_is_dropped() {
        let workers = Workers::start("worker-test", 1, 4).unwrap();
        let (started, wait_started) = mpsc::channel();
        let (release, wait_release) = mpsc::channel::<()>();
        let running = workers.run(move || {
            started.send(()).unwrap();
            wait_release.recv().unwrap();
        });
        wait_started.recv().unwrap();
        let (ran, wait_ran) = mpsc::channel::<()>();
        drop(workers.run(move || ran.send(()).unwrap()));
        release.send(()).unwrap();
        block_on(running).unwrap();
        block_on(workers.run(|| ())).unwrap();
        // The sender was dropped unused.
        assert!(wait_ran.recv().is_err());
    }

    #[test]
    fn threads_end_with_the_last_clone_after_the_queue() {
        struct Flag(mpsc::Sender<&'static str>);
        impl Drop for Flag {
            fn drop(&mut self) {
                self.0.send("thread ended").unwrap();
            }
        }
        thread_local! {
            static FLAG: std::cell::RefCell<Option<Flag>> = const { std::cell::RefCell::new(None) };
        }
        let (events, received) = mpsc::channel();
        let workers = Workers::start("worker-test", 1, 4).unwrap();
        let flag = Flag(events.clone());
        let first = workers.run(move || FLAG.set(Some(flag)));
        let second = workers.run(move || events.send("job ran").unwrap());
        drop(workers.clone());
        drop(workers);
        assert_eq!(received.recv().unwrap(), "job ran");
        assert_eq!(received.recv().unwrap(), "thread ended");
        assert_eq!(block_on(first), Ok(()));
        assert_eq!(block_on(second), Ok(()));
    }
}
