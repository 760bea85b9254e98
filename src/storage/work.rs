//! Work in steps on the threads of [`Workers`]: a slow client, or a big file, never holds one.

use std::io;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::Duration;

use crate::proto::failure::Failure;
use crate::sys::acting;
use crate::sys::ids::Ids;
use crate::sys::worker::{WorkerError, Workers};

/// A state that steps on a worker work on, one at a time.
#[derive(Debug)]
pub(super) struct Work<S> {
    workers: Workers,
    /// Whose rights the steps have; `None`: the server's.
    ids: Option<Arc<Ids>>,
    /// Held by the job while it runs, so that a job that found the queue full loses nothing.
    state: Arc<Mutex<S>>,
    /// A step was begun and its result never fetched: what it did is lost.
    interrupted: bool,
}

impl<S: Send + 'static> Work<S> {
    pub(super) fn new(workers: &Workers, ids: Option<Arc<Ids>>, state: S) -> Self {
        let state = Arc::new(Mutex::new(state));
        Self {
            workers: workers.clone(),
            ids,
            state,
            interrupted: false,
        }
    }

    /// Touches the state between two steps.
    ///
    /// # Errors
    /// [`Failure::Aborted`] while a step that nobody waits for may still be at work.
    pub(super) fn with<T>(&self, touch: impl FnOnce(&mut S) -> T) -> Result<T, Failure> {
        if self.interrupted {
            return Err(Failure::Aborted);
        }
        // Nobody else holds the lock: steps have ended when `interrupted` is false.
        Ok(touch(
            &mut self.state.lock().unwrap_or_else(PoisonError::into_inner),
        ))
    }

    /// Does one step. While the workers are busy it waits its turn, up to about ten seconds.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] after that; [`Failure::Aborted`] when the call before was dropped.
    pub(super) async fn step<T, F>(&mut self, step: F) -> Result<T, Failure>
    where
        T: Send + 'static,
        F: Fn(&mut S) -> T + Copy + Send + 'static,
    {
        if self.interrupted {
            return Err(Failure::Aborted);
        }
        self.interrupted = true;
        for _ in 0..BUSY_RETRIES_MAX {
            let (state, ids) = (Arc::clone(&self.state), self.ids.clone());
            let done = self.workers.run(move || {
                acting::within(ids.as_deref(), || {
                    // After a panic no step follows, see `interrupted`.
                    step(&mut state.lock().unwrap_or_else(PoisonError::into_inner))
                })
            });
            match done.await {
                Ok(done) => {
                    self.interrupted = false;
                    return done.map_err(|error| not_acting(&error));
                }
                Err(WorkerError::Busy) => tokio::time::sleep(BUSY_PAUSE).await,
                Err(WorkerError::Panicked) => {
                    tracing::error!("a step of a listing or a digest panicked");
                    return Err(Failure::LocalError);
                }
            }
        }
        self.interrupted = false;
        Err(Failure::Overloaded)
    }
}

/// What the protocol is told when a thread cannot act as the account it should.
pub(super) fn not_acting(error: &io::Error) -> Failure {
    tracing::error!(%error, "a worker cannot act as an account of this host");
    Failure::LocalError
}

/// How long, and how often, a step waits for a place in the workers' queue.
const BUSY_PAUSE: Duration = Duration::from_millis(20);
const BUSY_RETRIES_MAX: u32 = 500;

#[cfg(test)]
mod tests {
    use std::sync::mpsc;

    use super::*;

    fn block_on<F: Future>(future: F) -> F::Output {
        let mut runtime = tokio::runtime::Builder::new_current_thread();
        runtime.enable_time().build().unwrap().block_on(future)
    }

    #[test]
    fn a_full_queue_is_waited_for() {
        let workers = Workers::start("work-test", 1, 1).unwrap();
        let (release, wait) = mpsc::channel::<()>();
        let (started, begun) = mpsc::channel();
        let running = workers.run(move || {
            started.send(()).unwrap();
            wait.recv().unwrap();
        });
        begun.recv().unwrap();
        let queued = workers.run(|| ());
        let mut work = Work::new(&workers, None, 1_u32);
        block_on(async {
            let step = work.step(|state| {
                *state += 1;
                *state
            });
            let freed = async {
                tokio::task::yield_now().await;
                release.send(()).unwrap();
            };
            let (stepped, ()) = tokio::join!(step, freed);
            assert_eq!(stepped, Ok(2));
            running.await.unwrap();
            queued.await.unwrap();
        });
    }

    #[test]
    fn a_step_whose_result_was_not_fetched_is_the_last() {
        let workers = Workers::start("work-test", 1, 4).unwrap();
        let mut work = Work::new(&workers, None, 0_u32);
        block_on(async {
            // The only worker does something else, so that the step cannot end first.
            let (release, wait) = mpsc::channel::<()>();
            let other = workers.run(move || wait.recv());
            tokio::select! {
                biased;
                _ = work.step(|state| *state += 1) => panic!("the worker does two things at once"),
                () = std::future::ready(()) => {}
            }
            release.send(()).unwrap();
            other.await.unwrap().unwrap();
            assert_eq!(work.step(|state| *state).await, Err(Failure::Aborted));
            assert_eq!(work.with(|state| *state), Err(Failure::Aborted));
        });
    }
}
