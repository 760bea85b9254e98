//! Counts what is stored in a tree, in steps on worker threads.

use std::io;
use std::os::fd::OwnedFd;

use crate::proto::failure::Failure;
use crate::quota::Usage;
use crate::sys::directory::{DirectoryReader, EntryKind};
use crate::sys::file::{self, FileKind};
use crate::sys::flag::{O_DIRECTORY, O_NOFOLLOW, O_RDONLY};
use crate::sys::worker::Workers;

use super::root::{Root, open_now};
use super::work::Work;

impl Root {
    /// Counts all files of the tree. Links are not followed.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] for a tree with too many directories in one place; what the file
    /// system said otherwise.
    pub async fn count(&self, workers: &Workers) -> Result<Usage, Failure> {
        let root = self.directory.fd().try_clone();
        let root = root.map_err(|error| failed(&error))?;
        let mut work = Work::new(workers, self.ids(), Walk::new(root));
        loop {
            if let Some(usage) = work.step(Walk::step).await?? {
                return Ok(usage);
            }
        }
    }
}

#[derive(Debug)]
struct Walk {
    root: OwnedFd,
    reader: Option<DirectoryReader>,
    /// The directory that is read, as a path from the root.
    here: Vec<u8>,
    /// Those still to be read.
    pending: Vec<Vec<u8>>,
    pending_bytes: usize,
    usage: Usage,
}

impl Walk {
    fn new(root: OwnedFd) -> Self {
        let first = b".".to_vec();
        Self {
            root,
            reader: None,
            here: Vec::new(),
            pending_bytes: first.len(),
            pending: vec![first],
            usage: Usage::default(),
        }
    }

    /// Looks at a bounded number of names; the sum when there are no more.
    fn step(&mut self) -> Result<Option<Usage>, Failure> {
        for _ in 0..NAMES_PER_STEP {
            let Some(reader) = &mut self.reader else {
                match self.open_next() {
                    Ok(true) => continue,
                    Ok(false) => return Ok(Some(self.usage)),
                    Err(error) => return Err(failed(&error)),
                }
            };
            let entry = match reader.next_entry() {
                Ok(Some(entry)) => entry,
                Ok(None) => {
                    self.reader = None;
                    continue;
                }
                Err(error) => return Err(failed(&error)),
            };
            let name = entry.name.to_bytes();
            let may_count = matches!(
                entry.kind,
                EntryKind::File | EntryKind::Directory | EntryKind::Unknown
            );
            if !may_count || matches!(name, b"." | b"..") {
                continue;
            }
            // ENOENT: it has gone since.
            let Ok(status) = file::status_at(&entry.directory, entry.name) else {
                continue;
            };
            match status.kind {
                FileKind::File => {
                    self.usage.files += 1;
                    self.usage.bytes = self.usage.bytes.saturating_add(status.size);
                }
                FileKind::Directory => {
                    let path = [&self.here[..], b"/", name].concat();
                    self.pending_bytes += path.len();
                    if self.pending_bytes > PENDING_BYTES_MAX {
                        tracing::error!(limit = PENDING_BYTES_MAX, "too many directories to count");
                        return Err(Failure::Overloaded);
                    }
                    self.pending.push(path);
                }
                _ => {}
            }
        }
        Ok(None)
    }

    /// Opens the next directory; false when there is none.
    fn open_next(&mut self) -> io::Result<bool> {
        while let Some(path) = self.pending.pop() {
            self.pending_bytes -= path.len();
            match open_now(&self.root, &path, O_RDONLY | O_DIRECTORY | O_NOFOLLOW) {
                Ok(directory) => {
                    self.reader = Some(DirectoryReader::new(directory));
                    self.here = path;
                    return Ok(true);
                }
                // Gone or replaced since; or nobody's who works here.
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(error) => {
                    tracing::debug!(%error, "a directory is not counted");
                }
            }
        }
        Ok(false)
    }
}

fn failed(error: &io::Error) -> Failure {
    tracing::error!(%error, "what a user stores cannot be counted");
    error
        .raw_os_error()
        .map_or(Failure::LocalError, Failure::from_errno)
}

/// Some 5 ms of one thread: other users' listings come in between.
const NAMES_PER_STEP: usize = 4096;

/// Memory for directories that wait to be read.
const PENDING_BYTES_MAX: usize = 16 * 1024 * 1024;
