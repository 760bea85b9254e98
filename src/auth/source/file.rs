//! Files of users: read as a whole, read again when they have changed.

use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::tz::TimeZone;

use super::super::users::{FILE_LENGTH_MAX, UserList};
use crate::sys;

/// The users file as it is now.
pub(in crate::auth) type UsersFile = Watched<UserList>;

/// A file as it is now.
#[derive(Debug)]
pub(in crate::auth) struct Watched<T> {
    path: PathBuf,
    /// Of a text, with the name that errors have for the file.
    parse: fn(&str, &str) -> Result<T, String>,
    last: Mutex<Option<Loaded<T>>>,
}

#[derive(Debug)]
struct Loaded<T> {
    stamp: Stamp,
    /// Shared, because a refusal is repeated as often as somebody tries to log in.
    content: Result<Arc<T>, String>,
    /// The host's time zone, which takes reading a file too.
    zone: TimeZone,
    looked: Instant,
}

impl UsersFile {
    /// The users file at this path.
    pub(in crate::auth) fn of_users(path: PathBuf) -> Self {
        Self::new(path, |text, name| {
            let users = UserList::parse(text, name)?;
            // Now, not when the first unknown name comes, which it would delay.
            users.usual();
            let count = users.iter().count();
            tracing::info!(file = name, users = count, "users file read");
            Ok(users)
        })
    }
}

impl<T: Default> Watched<T> {
    pub(in crate::auth) fn new(path: PathBuf, parse: fn(&str, &str) -> Result<T, String>) -> Self {
        Self {
            path,
            parse,
            last: Mutex::new(None),
        }
    }

    /// What it holds; read again if the file has changed. A file that does not exist holds nothing.
    ///
    /// A file that cannot be read or understood lets nobody in, not even with what was read
    /// before: the change may have been meant to lock somebody out.
    pub(in crate::auth) fn current(&self) -> Result<Arc<T>, String> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::debug!(file = %self.path.display(), "users file does not exist");
                return Ok(Arc::default());
            }
            Err(error) => return Err(self.failure(&error)),
        };
        let metadata = file.metadata().map_err(|error| self.failure(&error))?;
        let stamp = Stamp::of(&metadata);
        // A panic elsewhere cannot leave a half-written value: it is replaced as a whole.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = last.as_mut().filter(|loaded| loaded.stamp == stamp) {
            loaded.zone = TimeZone::system();
            loaded.looked = Instant::now();
            return loaded.content.clone();
        }
        let content = self.read(file).map(Arc::new);
        *last = stamp.settled(&metadata).then(|| Loaded {
            stamp,
            content: content.clone(),
            zone: TimeZone::system(),
            looked: Instant::now(),
        });
        content
    }

    /// The content, with the time zone, if it is known to be that of the file as it is now. Never
    /// waits, neither for a disk nor for a worker: fit for a core.
    ///
    /// The file's attributes are looked at on the spot, so that a change counts with the next login.
    /// That is enough for a local file system. Another host's may answer from what it remembers: hence
    /// a worker must have opened the file not long ago, too.
    pub(in crate::auth) fn unchanged(&self) -> Option<(Arc<T>, TimeZone)> {
        let found = sys::file::find_cached(&self.path).and_then(|file| file.metadata());
        let stamp = Stamp::of(&found.ok()?);
        // Who holds the lock may be reading the file.
        let last = self.last.try_lock().ok()?;
        let loaded = last
            .as_ref()
            .filter(|loaded| loaded.stamp == stamp && loaded.looked.elapsed() < LOOKED_MAX)?;
        let content = loaded.content.as_ref().ok()?;
        Some((Arc::clone(content), loaded.zone.clone()))
    }

    fn read(&self, file: File) -> Result<T, String> {
        let mut text = String::new();
        let name = self.path.display().to_string();
        match file.take(FILE_LENGTH_MAX + 1).read_to_string(&mut text) {
            Ok(length) if length as u64 > FILE_LENGTH_MAX => {
                Err(format!("{name}: larger than {} MiB", FILE_LENGTH_MAX >> 20))
            }
            Ok(_) => (self.parse)(&text, &name),
            Err(error) => Err(self.failure(&error)),
        }
    }

    fn failure(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.path.display())
    }
}

/// What changes when a file changes: another inode by rename, size and times by writing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the stamp can be relied on: a second write within one tick of the file system's
    /// clock would leave it the same, so a file changed just now is read again next time.
    fn settled(&self, metadata: &Metadata) -> bool {
        metadata
            .modified()
            .ok()
            .and_then(|modified| SystemTime::now().duration_since(modified).ok())
            .is_some_and(|age| age > CLOCK_TICK_MAX)
    }
}

/// How long the core goes by its own look at the file. NFS attributes are remembered for 3 s and more
/// (nfs(5), acregmin), and a worker's look costs no more than a trip to its thread.
const LOOKED_MAX: Duration = Duration::from_secs(2);

/// Ten times the coarsest clock tick of Linux (CONFIG_HZ=100), and network file systems' slack.
const CLOCK_TICK_MAX: Duration = Duration::from_millis(100);
