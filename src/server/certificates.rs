//! Whether the files of certificates and their keys have changed.

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::time::{Duration, Instant};

use crate::config::Tls;

/// The files as they were when they were last looked at.
#[derive(Debug)]
pub(super) struct Watched {
    seen: Vec<Option<Look>>,
    next: Instant,
}

/// Device, inode, length, and time of the last change: a file that was replaced or written to differs.
type Look = (u64, u64, u64, i64, i64);

impl Watched {
    /// As they are now.
    pub(super) fn new(config: &Tls) -> Self {
        Self {
            seen: look(config),
            next: Instant::now() + INTERVAL,
        }
    }

    /// Whether they are others than at the last look. Looks every few seconds only.
    pub(super) fn have_changed(&mut self, config: &Tls) -> bool {
        if Instant::now() < self.next || !config.is_on() {
            return false;
        }
        self.next = Instant::now() + INTERVAL;
        let now = look(config);
        let changed = now != self.seen;
        self.seen = now;
        changed
    }
}

fn look(config: &Tls) -> Vec<Option<Look>> {
    config.files().map(|path| look_at(path)).collect()
}

fn look_at(path: &Path) -> Option<Look> {
    let metadata = fs::metadata(path).ok()?;
    Some((
        metadata.dev(),
        metadata.ino(),
        metadata.len(),
        metadata.ctime(),
        metadata.ctime_nsec(),
    ))
}

/// Certificates are renewed a day or a week ahead; a person who looks whether it has worked waits.
const INTERVAL: Duration = Duration::from_secs(2);
