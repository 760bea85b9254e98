//! How much a user stores, and how much it may be: exact for all sessions of the user on all cores.
//!
//! Bytes are counted before they are written, so that the limit holds whoever writes at the same time.
//! What gives a name to a file, or takes one, waits for its turn ([`Quota::turn`]): what it replaced
//! is known then.
//!
//! The figures are kept in a file for each user (`ledger`), which says `open` while they may change.
//! After a crash it still says so, and the tree is counted again before the next change.

mod ledger;
mod volume;

use std::collections::{BTreeMap, HashMap};
use std::future::Future;
use std::hash::{BuildHasher, RandomState};
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Condvar, Mutex, MutexGuard, PoisonError, Weak};
use std::time::Duration;

pub use volume::{Direction, Moved, Volume};

use crate::config::QuotaLimits;
use crate::proto::failure::Failure;
use crate::sys::worker::Workers;

/// What is stored.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Usage {
    /// The sizes of all files, in bytes; a file with two names counts twice.
    pub bytes: u64,
    /// Names of files. Directories and links do not count.
    pub files: u64,
}

/// The quotas of the users who are logged in, shared by all cores.
#[derive(Debug)]
pub struct Quotas {
    /// Where the figures are kept.
    directory: PathBuf,
    workers: Workers,
    users: Mutex<HashMap<String, Weak<Quota>>>,
    volumes: Arc<volume::Known>,
    refusals: Arc<AtomicU64>,
    closing: Arc<Closing>,
}

/// Ledgers that are being closed.
#[derive(Debug, Default)]
struct Closing {
    count: Mutex<usize>,
    none: Condvar,
}

impl Quotas {
    /// Keeps the figures in files in `directory`; the files are written on `workers`.
    pub fn new(directory: &Path, workers: Workers) -> Self {
        Self {
            directory: directory.to_owned(),
            workers,
            users: Mutex::default(),
            volumes: Arc::default(),
            refusals: Arc::default(),
            closing: Arc::default(),
        }
    }

    /// The quota of a user, one for all of the user's sessions, with these limits from now on.
    pub fn of(&self, user: &str, limits: QuotaLimits) -> Arc<Quota> {
        let mut users = locked(&self.users);
        if let Some(quota) = users.get(user).and_then(Weak::upgrade) {
            locked(&quota.inner).limits = limits;
            return quota;
        }
        // Bounds the map by the users who are logged in, give or take a factor of two.
        let living = users.values().filter(|user| user.strong_count() > 0);
        if users.len() >= 2 * living.count() + 16 {
            users.retain(|_, quota| quota.strong_count() > 0);
        }
        let quota = Arc::new(Quota {
            ledger: ledger::path(&self.directory, user),
            // A number that nobody can foresee: std seeds its hash maps with such.
            mark: RandomState::new().hash_one(()),
            workers: self.workers.clone(),
            turn: tokio::sync::Mutex::default(),
            inner: Mutex::new(Inner {
                limits,
                known: None,
                pending: Usage::default(),
                written_to: HashMap::new(),
            }),
            refusals: Arc::clone(&self.refusals),
            closing: Arc::clone(&self.closing),
        });
        users.insert(user.to_owned(), Arc::downgrade(&quota));
        quota
    }

    /// Lets what a user stores be counted again before the next change.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn forget(&self, user: &str) -> std::io::Result<()> {
        ledger::forget(&ledger::path(&self.directory, user))?;
        if let Some(quota) = locked(&self.users).get(user).and_then(Weak::upgrade) {
            locked(&quota.inner).known = None;
        }
        Ok(())
    }

    /// What every user with a ledger stores, by name; `None`: it has to be counted.
    ///
    /// # Errors
    /// As opendir(3).
    pub fn report(&self) -> std::io::Result<BTreeMap<String, Option<Usage>>> {
        let mut users = ledger::all(&self.directory)?;
        for (name, quota) in locked(&self.users).iter() {
            if let Some(quota) = quota.upgrade() {
                users.insert(name.clone(), locked(&quota.inner).known);
            }
        }
        Ok(users)
    }

    /// Waits until the ledgers of all users who have left are closed, so that they can be relied on
    /// after the end of the process.
    pub fn wait_until_closed(&self, patience: Duration) {
        let count = locked(&self.closing.count);
        let wait = self
            .closing
            .none
            .wait_timeout_while(count, patience, |count| *count > 0);
        // Those that take longer are counted again.
        drop(wait);
    }

    /// How often something was refused because of a quota.
    pub fn refusals(&self) -> u64 {
        self.refusals.load(Ordering::Relaxed)
    }
}

/// How much one user stores, and may store.
#[derive(Debug)]
pub struct Quota {
    ledger: PathBuf,
    /// Whose the ledger is while it is open.
    mark: u64,
    workers: Workers,
    /// Whoever gives or takes the name of a file.
    turn: tokio::sync::Mutex<()>,
    inner: Mutex<Inner>,
    refusals: Arc<AtomicU64>,
    closing: Arc<Closing>,
}

#[derive(Debug)]
struct Inner {
    limits: QuotaLimits,
    /// What has a name; `None`: it has to be counted.
    known: Option<Usage>,
    /// What uploads under way count for in addition.
    pending: Usage,
    /// Files that have their names already while an upload writes to them, and which size of each
    /// is among what is known; `None`: it is not.
    written_to: HashMap<FileId, Option<u64>>,
}

/// Device and inode.
pub type FileId = (u64, u64);

impl Quota {
    /// Makes sure that it is known how much is stored; `count` counts it if need be.
    ///
    /// # Errors
    /// What `count` or the ledger said.
    pub async fn learn(
        &self,
        count: impl Future<Output = Result<Usage, Failure>>,
    ) -> Result<(), Failure> {
        if locked(&self.inner).known.is_some() {
            return Ok(());
        }
        // One counts, the others wait for it.
        let _turn = self.turn.lock().await;
        if locked(&self.inner).known.is_some() {
            return Ok(());
        }
        let path = self.ledger.clone();
        let closed = self.workers.run(move || ledger::read_closed(&path)).await;
        let closed = closed.map_err(|_| Failure::Overloaded)?;
        let usage = match closed.map_err(|error| self.failed(&error))? {
            Some(usage) => usage,
            None => count.await?,
        };
        let (path, mark) = (self.ledger.clone(), self.mark);
        let opened = self.workers.run(move || ledger::open(&path, usage, mark));
        let opened = opened.await.map_err(|_| Failure::Overloaded)?;
        opened.map_err(|error| self.failed(&error))?;
        locked(&self.inner).known = Some(usage);
        Ok(())
    }

    fn failed(&self, error: &std::io::Error) -> Failure {
        let path = self.ledger.display();
        tracing::error!(%path, %error, "a quota cannot be kept: see users.state");
        Failure::LocalError
    }

    /// Waits until nobody else gives or takes the name of a file of this user.
    pub async fn turn(&self) -> tokio::sync::MutexGuard<'_, ()> {
        self.turn.lock().await
    }

    /// Counts what is about to be stored.
    fn take(&self, more: Usage) -> Result<(), Failure> {
        let mut inner = locked(&self.inner);
        let limits = inner.limits;
        // Without figures, somebody wants them counted again just now.
        let known = inner.known.unwrap_or_default();
        let pending = Usage {
            bytes: inner.pending.bytes.saturating_add(more.bytes),
            files: inner.pending.files.saturating_add(more.files),
        };
        let is_beyond = |more, known: u64, pending, max: Option<u64>| {
            more > 0 && max.is_some_and(|max| known.saturating_add(pending) > max)
        };
        if is_beyond(more.bytes, known.bytes, pending.bytes, limits.bytes)
            || is_beyond(more.files, known.files, pending.files, limits.files)
        {
            drop(inner);
            self.refusals.fetch_add(1, Ordering::Relaxed);
            return Err(Failure::QuotaReached);
        }
        inner.pending = pending;
        Ok(())
    }

    /// An upload is over that counted for so much.
    fn end(&self, taken: Usage) {
        let pending = &mut locked(&self.inner).pending;
        pending.bytes = pending.bytes.saturating_sub(taken.bytes);
        pending.files = pending.files.saturating_sub(taken.files);
    }

    /// What a file counts for that has this size at the moment. To be asked in one's turn.
    pub fn counted(&self, file: FileId, size: u64) -> Usage {
        let counted = locked(&self.inner).written_to.get(&file).copied();
        match counted.unwrap_or(Some(size)) {
            Some(bytes) => Usage { bytes, files: 1 },
            None => Usage::default(),
        }
    }

    /// Counts what has lost its name, and what has got one. In one's turn.
    pub fn exchange(&self, gone: Usage, come: Usage) {
        if let Some(known) = &mut locked(&self.inner).known {
            let bytes = known.bytes.saturating_add(come.bytes);
            let files = known.files.saturating_add(come.files);
            known.bytes = bytes.saturating_sub(gone.bytes);
            known.files = files.saturating_sub(gone.files);
        }
    }

    /// What is stored, if that is known, and what may be.
    pub fn usage(&self) -> (Option<Usage>, QuotaLimits) {
        let inner = locked(&self.inner);
        (inner.known, inner.limits)
    }

    /// Bytes that may still be stored.
    pub fn left(&self) -> u64 {
        let (known, limits) = self.usage();
        let stored = known.map_or(0, |usage| usage.bytes);
        limits
            .bytes
            .map_or(u64::MAX, |max| max.saturating_sub(stored))
    }
}

/// The last session has ended: the figures are final.
impl Drop for Quota {
    fn drop(&mut self) {
        let inner = self.inner.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(usage) = inner.known else {
            return;
        };
        let (path, mark) = (std::mem::take(&mut self.ledger), self.mark);
        let closing = Ending::begin(&self.closing);
        let close = move || {
            // Should it fail, the tree is counted again, no more.
            if let Err(error) = ledger::close(&path, usage, mark) {
                tracing::warn!(path = %path.display(), %error, "the figures of a quota are not kept");
            }
            drop(closing);
        };
        let _ = self.workers.hand_over(close);
    }
}

/// One ledger that is being closed.
struct Ending(Arc<Closing>);

impl Ending {
    fn begin(closing: &Arc<Closing>) -> Self {
        *locked(&closing.count) += 1;
        Self(Arc::clone(closing))
    }
}

impl Drop for Ending {
    fn drop(&mut self) {
        *locked(&self.0.count) -= 1;
        self.0.none.notify_all();
    }
}

/// What one upload counts for. Dropped, it gives back what it took.
#[derive(Debug)]
pub struct Charge {
    quota: Arc<Quota>,
    taken: Usage,
    /// Size of the file that is replaced or written to: as much need not be counted before.
    credit: u64,
    /// The file, if it has its name already.
    written_to: Option<FileId>,
    /// What has become of the file is known.
    is_over: bool,
}

impl Charge {
    /// For an upload that replaces or goes on with a file of the size `existing`, or (`None`) makes
    /// one. `written_to`: the file has its name already.
    ///
    /// # Errors
    /// [`Failure::QuotaReached`].
    pub fn begin(
        quota: &Arc<Quota>,
        existing: Option<u64>,
        written_to: Option<FileId>,
    ) -> Result<Self, Failure> {
        let taken = Usage {
            bytes: 0,
            files: u64::from(existing.is_none()),
        };
        quota.take(taken)?;
        if let Some(file) = written_to {
            locked(&quota.inner).written_to.insert(file, existing);
        }
        Ok(Self {
            quota: Arc::clone(quota),
            taken,
            credit: existing.unwrap_or_default(),
            written_to,
            is_over: false,
        })
    }

    /// Before the file grows to this size.
    ///
    /// # Errors
    /// [`Failure::QuotaReached`].
    pub fn grow(&mut self, size: u64) -> Result<(), Failure> {
        let needed = size.saturating_sub(self.credit);
        let more = Usage {
            bytes: needed.saturating_sub(self.taken.bytes),
            files: 0,
        };
        self.quota.take(more)?;
        self.taken.bytes = self.taken.bytes.max(needed);
        Ok(())
    }

    /// The file has its name and this size, in the stead of what counted for `gone`. In one's turn.
    pub fn settle(mut self, size: u64, gone: Usage) {
        let come = Usage {
            bytes: size,
            files: 1,
        };
        self.quota.exchange(gone, come);
        self.is_over = true;
    }

    /// Nothing is left of the upload.
    pub fn end(mut self) {
        self.is_over = true;
    }

    /// The quota it counts for.
    pub fn quota(&self) -> &Arc<Quota> {
        &self.quota
    }
}

impl Drop for Charge {
    fn drop(&mut self) {
        self.quota.end(self.taken);
        if let Some(file) = self.written_to {
            let mut inner = locked(&self.quota.inner);
            inner.written_to.remove(&file);
            if !self.is_over {
                // The server ends in the midst of it: the ledger stays open.
                inner.known = None;
            }
        }
    }
}

fn locked<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // Nothing panics while it holds one of these, and what they hold is valid at every step.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}
