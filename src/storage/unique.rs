//! The name of an upload that the server chooses (RFC 959 §4.1.3 STOU).
//!
//! The reply that begins the transfer has to tell it (RFC 1123 §4.1.2.9), so it is chosen first and
//! kept until the end: in the memory of this process, for all cores. A file that kept it would be one
//! that others see, rename, remove and write to. Only other STOUs heed a name that is kept; whoever
//! else takes it has it, and the upload fails at its end, since it never replaces anything.

use std::collections::BTreeSet;
use std::io;
use std::sync::{Mutex, MutexGuard, PoisonError};

use crate::config::UploadPolicy;
use crate::proto::failure::Failure;
use crate::proto::path::{NAME_BYTES_MAX, VirtualPath};
use crate::quota::FileId;
use crate::sys::file;
use crate::sys::flag::{O_CREAT, O_EXCL, O_NOCTTY, O_WRONLY};
use crate::uring;

use super::publish::{Leftover, Name, Replaces, Unseen, random};
use super::root::{INSIDE, Root, failure};
use super::upload::{Upload, lock};

impl Root {
    /// Begins an upload to a name that is free, as near to the one wanted as can be had.
    pub(super) async fn write_unique(
        &self,
        path: &VirtualPath,
        mode: u32,
    ) -> Result<Upload, Failure> {
        let (parent, wanted) = self.parent("upload", path).await?;
        let directory = path.parent().unwrap_or_else(VirtualPath::root);
        let place = file::status(&parent).map_err(|error| failure("upload", path, &error))?;
        for attempt in 0..UNIQUE_ATTEMPTS_MAX {
            let name = unique_name(wanted, attempt);
            let Some(reserved) = Reserved::take((place.device, place.inode), &name) else {
                continue;
            };
            let path = directory.join(&name).map_err(|_| Failure::NameInvalid)?;
            let target = Name::new(&parent, &name);
            let begun = match self.settings.uploads {
                UploadPolicy::Whole => self.begin_unseen(target, &path, mode).await?,
                UploadPolicy::InPlace => self.begin_own(target, &path, mode).await?,
            };
            if let Some(mut upload) = begun {
                upload.reserved = Some(reserved);
                return Ok(upload);
            }
        }
        Err(Failure::Exists)
    }

    /// `None`: the name is taken.
    async fn begin_unseen(
        &self,
        target: Name,
        path: &VirtualPath,
        mode: u32,
    ) -> Result<Option<Upload>, Failure> {
        let failed = |error| failure("upload", path, &error);
        if target.status().await.map_err(failed)?.is_some() {
            return Ok(None);
        }
        let made = Unseen::make(target, Replaces::Never, mode).await;
        let (file, unseen) = made.map_err(failed)?;
        let mut upload = self.begin(file, 0, path);
        upload.unseen = Some(unseen);
        Ok(Some(upload))
    }

    /// The same for one that is written in place.
    async fn begin_own(
        &self,
        target: Name,
        path: &VirtualPath,
        mode: u32,
    ) -> Result<Option<Upload>, Failure> {
        let flags = O_WRONLY | O_NOCTTY | O_CREAT | O_EXCL;
        let file = match uring::open(&target.parent, &target.name, flags, mode, INSIDE).await {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => return Ok(None),
            Err(error) => return Err(failure("upload", path, &error)),
        };
        let status = file::status(&file).map_err(|error| failure("upload", path, &error))?;
        let mut upload = self.begin(file, 0, path);
        upload.own = Some(Leftover::file(target, &status));
        upload.named = Some((status.device, status.inode));
        lock(upload.file.fd(), path)?;
        Ok(Some(upload))
    }
}

/// A name that no other STOU of this process gets meanwhile. Its upload has the directory open, which
/// so stays the one of this number.
#[derive(Debug)]
pub(super) struct Reserved(Key);

/// A name in a directory, by whichever root one gets there.
type Key = (FileId, Vec<u8>);

impl Reserved {
    /// `None`: another one has it.
    fn take(directory: FileId, name: &[u8]) -> Option<Self> {
        let key = (directory, name.to_vec());
        let is_free = names().insert(key.clone());
        // Not `then_some`: what it is given is dropped if there is no need for it, and gives the name back.
        is_free.then(|| Self(key))
    }
}

impl Drop for Reserved {
    fn drop(&mut self) {
        names().remove(&self.0);
    }
}

fn names() -> MutexGuard<'static, BTreeSet<Key>> {
    // Nothing panics while it holds it, and a set is valid at every step.
    NAMES.lock().unwrap_or_else(PoisonError::into_inner)
}

/// The name of the `attempt`th try: as wanted, then numbered, then random.
fn unique_name(wanted: &[u8], attempt: u32) -> Vec<u8> {
    let suffix = match attempt {
        0 => String::new(),
        1..=UNIQUE_NUMBERED_MAX => format!(".{attempt}"),
        _ => format!(".{:016x}", random()),
    };
    let mut end = wanted.len().min(NAME_BYTES_MAX - suffix.len());
    // Not in the midst of a character, of which UTF-8 has up to three bytes after the first.
    for _ in 0..3 {
        if wanted.get(end).is_some_and(|byte| byte & 0xC0 == 0x80) {
            end -= 1;
        }
    }
    let mut name = wanted[..end].to_vec();
    name.extend_from_slice(suffix.as_bytes());
    name
}

/// The names of uploads under way, at most one for each session. They are names of the file system, so
/// the process has one table, whoever's the roots are.
static NAMES: Mutex<BTreeSet<Key>> = Mutex::new(BTreeSet::new());

/// How many names are tried for STOU: the one wanted, numbered ones, and then random ones, of
/// which hardly any is ever taken.
const UNIQUE_ATTEMPTS_MAX: u32 = UNIQUE_NUMBERED_MAX + 8;
const UNIQUE_NUMBERED_MAX: u32 = 99;
