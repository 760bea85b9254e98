//! How a file arrives (RFC 959 §4.1.3 STOR, STOU, APPE; RFC 3659 §5 REST).
//!
//! *Whole* uploads are seen by nobody before their end ([`publish`](super::publish)). *In place*
//! are APPE, REST, and uploads through a symbolic link; they hold `flock(2)` on the file, so that
//! two of them never mix.
//!
//! Nothing is synced: like other servers, this one answers for what the kernel has accepted.

use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::{FailedUpload, UploadPolicy};
use crate::proto::failure::Failure;
use crate::proto::path::VirtualPath;
use crate::quota::{Charge, FileId, Quota, Usage};
use crate::sys::acting;
use crate::sys::file::{self, FileKind, FileStatus};
use crate::sys::flag::{O_CREAT, O_EXCL, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_WRONLY};
use crate::sys::ids::Ids;
use crate::sys::tree;
use crate::uring::{self, Handle, Pipe};

use super::publish::{Leftover, Name, Replaces, Unseen};
use super::root::{INSIDE, Root, Unsuitable, failure, regular, unwritten};
use super::space::{Floor, Space};
use super::unique::Reserved;

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UploadKind {
    /// It is replaced (STOR).
    Replace,
    /// It is written from this offset on, and ends where the upload ends (REST and STOR).
    ReplaceFrom(u64),
    /// It is added to (APPE).
    Append,
    /// It stays, and the upload gets another name (STOU).
    Unique,
}

/// How a user may store files.
#[derive(Clone, Debug)]
pub struct UploadRules {
    /// Permission bits that new files do not get; `None`: as the settings have it.
    pub umask: Option<u32>,
    /// Whether files that are there may be replaced or written to.
    pub overwrites: bool,
    /// What it counts for; [`Quota::learn`] has been called.
    pub quota: Option<Arc<Quota>>,
    /// Bytes that it leaves free on its file system.
    pub min_free: u64,
}

impl Default for UploadRules {
    fn default() -> Self {
        Self {
            umask: None,
            overwrites: true,
            quota: None,
            min_free: 0,
        }
    }
}

/// A file that arrives. Dropped without an end, it leaves what [`FailedUpload::Discard`] leaves.
#[derive(Debug)]
pub struct Upload {
    pub(super) file: Handle,
    position: u64,
    path: VirtualPath,
    failed: FailedUpload,
    space: Space,
    /// How it becomes visible at its end; `None`: it is written in place.
    pub(super) unseen: Option<Unseen>,
    /// The name that was chosen for it (STOU), until its end.
    pub(super) reserved: Option<Reserved>,
    /// The file that was made under that name to be written in place; it goes with a broken upload.
    pub(super) own: Option<Leftover>,
    /// The size from which a file written in place has to be cut down to `position`.
    cut_from: Option<u64>,
    /// The empty file that was made to be written in place.
    made: Option<Leftover>,
    /// The size of the file that is replaced or written to, if there is one.
    replaced: Option<u64>,
    /// The file, if it has its name already.
    pub(super) named: Option<FileId>,
    /// What it counts for.
    charge: Option<Charge>,
    /// What it has to leave free.
    floor: Option<Floor>,
}

impl Root {
    /// Begins an upload to `path`. New files get the permissions 0666 without `umask` (or that of
    /// the settings); a file that is replaced hands on its own.
    ///
    /// # Errors
    /// [`Failure::Busy`] while another upload writes to the file in place;
    /// [`Failure::IsADirectory`], [`Failure::NotAFile`] when the name cannot be a file's;
    /// [`Failure::OffsetBeyondEnd`] when REST points behind the end of the file, and
    /// [`Failure::NotFound`] when it points into none; [`Failure::Exists`] when the file is there
    /// and `rules` do not let it be replaced.
    pub async fn upload(
        &self,
        path: &VirtualPath,
        kind: UploadKind,
        rules: UploadRules,
    ) -> Result<Upload, Failure> {
        let UploadRules {
            umask,
            overwrites,
            quota,
            min_free,
        } = rules;
        let quota = quota.filter(|_| self.is_own(path));
        let mode = 0o666 & !umask.unwrap_or(self.settings.umask);
        // Nobody sees a file with its name that is not counted yet.
        let turn = turn_of(&quota).await;
        let mut upload = self.begin_as(path, kind, mode, overwrites).await?;
        upload.floor = Floor::new(min_free, upload.position);
        if let Err(failure) = upload.look_at_floor(upload.position).await {
            drop(turn);
            upload.abandon().await;
            return Err(failure);
        }
        if let Some(quota) = &quota {
            let charge = Charge::begin(quota, upload.replaced, upload.named);
            drop(turn);
            match charge {
                Ok(charge) => upload.charge = Some(charge),
                Err(failure) => {
                    upload.abandon().await;
                    return Err(failure);
                }
            }
        }
        Ok(upload)
    }

    async fn begin_as(
        &self,
        path: &VirtualPath,
        kind: UploadKind,
        mode: u32,
        overwrites: bool,
    ) -> Result<Upload, Failure> {
        match kind {
            UploadKind::Replace | UploadKind::ReplaceFrom(0) => {
                self.replace(path, mode, overwrites).await
            }
            UploadKind::ReplaceFrom(_) if !overwrites => Err(Failure::Denied),
            UploadKind::ReplaceFrom(offset) => {
                self.write_at(path, Some(offset), mode, overwrites).await
            }
            UploadKind::Append => self.write_at(path, None, mode, overwrites).await,
            UploadKind::Unique => self.write_unique(path, mode).await,
        }
    }

    async fn replace(
        &self,
        path: &VirtualPath,
        mode: u32,
        overwrites: bool,
    ) -> Result<Upload, Failure> {
        if self.settings.uploads == UploadPolicy::InPlace {
            return self.write_at(path, Some(0), mode, overwrites).await;
        }
        let (parent, name) = self.parent("upload", path).await?;
        let target = Name::new(&parent, name);
        let status = target.status().await;
        let status = status.map_err(|error| failure("upload", path, &error))?;
        let replaced = status.as_ref().map(|status| status.size);
        let is_new = match status.as_ref().map(|status| status.kind) {
            None => true,
            Some(FileKind::File | FileKind::Symlink) if !overwrites => {
                return Err(Failure::Exists);
            }
            // Written in place it stays whose it is; another file in its place would not.
            Some(FileKind::File) if self.is_of_others(status.as_ref()) => {
                return self.write_at(path, Some(0), mode, overwrites).await;
            }
            Some(FileKind::File) => {
                self.may_write(&target, path).await?;
                false
            }
            // Through the link, inside the tree: the link itself is not ours to replace.
            Some(FileKind::Symlink) => return self.write_at(path, Some(0), mode, overwrites).await,
            Some(kind) => return Err(Unsuitable::Kind(kind).into_failure("upload", path)),
        };
        let replaces = match is_new {
            true if overwrites => Replaces::Maybe,
            true => Replaces::Never,
            false => Replaces::Likely,
        };
        match Unseen::make(target, replaces, mode).await {
            Ok((file, unseen)) => {
                let mut upload = self.begin(file, 0, path);
                upload.unseen = Some(unseen);
                upload.replaced = replaced;
                Ok(upload)
            }
            // The file may be written, but its directory may not.
            Err(error) if error.kind() == io::ErrorKind::PermissionDenied && !is_new => {
                self.write_at(path, Some(0), mode, overwrites).await
            }
            Err(error) => Err(failure("upload", path, &error)),
        }
    }

    /// Whether a file that this user uploads could not be owned as this one is.
    fn is_of_others(&self, status: Option<&FileStatus>) -> bool {
        let ids = self.directory.ids();
        ids.zip(status)
            .is_some_and(|(ids, status)| status.uid != ids.uid || !ids.is_in(status.gid))
    }

    pub(super) fn begin(&self, file: OwnedFd, position: u64, path: &VirtualPath) -> Upload {
        Upload {
            file: self.directory.with(file),
            position,
            path: path.clone(),
            failed: self.settings.failed_upload,
            space: Space::default(),
            unseen: None,
            reserved: None,
            own: None,
            cut_from: None,
            made: None,
            replaced: None,
            named: None,
            charge: None,
            floor: None,
        }
    }

    /// To replace a file takes only the right to write its directory. Whoever took away the right
    /// to write the file meant that too, and whoever writes to it in place would lose it.
    async fn may_write(&self, target: &Name, path: &VirtualPath) -> Result<(), Failure> {
        let flags = O_WRONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW;
        match uring::open(&target.parent, &target.name, flags, 0, INSIDE).await {
            // Shared: two that look at the same time are not in each other's way.
            Ok(file) => locked(file::lock_shared(&file), path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failure("upload", path, &error)),
        }
    }

    /// Opens the file itself for writing at `offset`, or at its end.
    async fn write_at(
        &self,
        path: &VirtualPath,
        offset: Option<u64>,
        mode: u32,
        overwrites: bool,
    ) -> Result<Upload, Failure> {
        // A restart in the middle of nothing would leave an empty file behind.
        let may_make = matches!(offset, None | Some(0));
        let (file, is_made) = match overwrites {
            true => self.open_in_place(path, may_make, mode).await?,
            false => (self.open_new(path, mode).await?, true),
        };
        regular(&file).map_err(|error| error.into_failure("upload", path))?;
        tree::set_blocking(&file).map_err(|error| failure("upload", path, &error))?;
        lock(&file, path)?;
        // Only now nobody else of this server changes its size.
        let status = file::status(&file).map_err(|error| failure("upload", path, &error))?;
        let position = offset.unwrap_or(status.size);
        if position > status.size {
            return Err(Failure::OffsetBeyondEnd);
        }
        let mut upload = self.begin(file, position, path);
        upload.cut_from = (status.size > position).then_some(status.size);
        upload.replaced = (!is_made).then_some(status.size);
        upload.named = Some((status.device, status.inode));
        if is_made {
            let (parent, name) = self.parent("upload", path).await?;
            upload.made = Some(Leftover::file(Name::new(&parent, name), &status));
        }
        Ok(upload)
    }

    /// Makes a file where there is none.
    async fn open_new(&self, path: &VirtualPath, mode: u32) -> Result<OwnedFd, Failure> {
        let flags = O_WRONLY | O_NONBLOCK | O_NOCTTY | O_CREAT | O_EXCL;
        self.open_at(path, flags, mode)
            .await
            .map_err(|error| failure("upload", path, &error))
    }

    /// Opens a file for writing, or makes it; whether it was made is in the answer.
    async fn open_in_place(
        &self,
        path: &VirtualPath,
        may_make: bool,
        mode: u32,
    ) -> Result<(OwnedFd, bool), Failure> {
        let flags = O_WRONLY | O_NONBLOCK | O_NOCTTY;
        // Found; made; and, if the name is a link to nothing or was made meanwhile, either.
        let tries = [
            (flags, false),
            (flags | O_CREAT | O_EXCL, true),
            (flags | O_CREAT, false),
        ];
        let mut last = Failure::LocalError;
        for (flags, is_made) in tries {
            let mode = if flags & O_CREAT == 0 { 0 } else { mode };
            match self.open_at(path, flags, mode).await {
                Ok(file) => return Ok((file, is_made)),
                Err(error) => last = failure("upload", path, &error),
            }
            let goes_on = matches!(last, Failure::NotFound | Failure::Exists);
            if !may_make || !goes_on {
                break;
            }
        }
        Err(last)
    }
}

impl Upload {
    /// The file, to be written to from [`position`](Self::position) on.
    pub fn file(&self) -> &Handle {
        &self.file
    }

    /// Where the first byte goes, as an offset from the beginning of the file.
    pub fn position(&self) -> u64 {
        self.position
    }

    /// The name under which the file will be found: for [`UploadKind::Unique`] the one chosen.
    pub fn name(&self) -> &[u8] {
        self.path.name().unwrap_or_default()
    }

    /// Begins to write. Until then nothing has been changed that [`abandon`](Self::abandon) does
    /// not undo: a client whose data connection never stands must not cost a file its content.
    ///
    /// # Errors
    /// As ftruncate(2).
    pub async fn start(&mut self) -> Result<(), Failure> {
        self.made = None;
        match self.cut_from.take() {
            Some(size) => cut(&self.file, size, self.position)
                .await
                .map_err(|error| failure("upload", &self.path, &error)),
            None => Ok(()),
        }
    }

    /// Writes bytes at `offset`; they come back, also with a failure. What comes before `offset` was
    /// written before.
    ///
    /// # Errors
    /// [`Failure::StorageFull`] and whatever else the file system says.
    pub async fn write(&mut self, bytes: Vec<u8>, offset: u64) -> (Result<(), Failure>, Vec<u8>) {
        if let Err(failure) = self.grow(offset, bytes.len()).await {
            return (Err(failure), bytes);
        }
        // What is reserved for a file in place would stay if the server died.
        let may_reserve = self.unseen.is_some();
        let (written, bytes) = self
            .space
            .write(&self.file, bytes, offset, may_reserve)
            .await;
        (written.map_err(|error| unwritten(&error)), bytes)
    }

    /// Whether a pipe pays: not for a small file, or where the file system takes none.
    pub fn takes_pipes(&self) -> bool {
        self.space.takes_pipes()
    }

    /// From now on a pipe does not pay.
    pub fn stop_pipes(&mut self) {
        self.space.stop_pipes();
    }

    /// Writes the `length` bytes that are in a pipe at `offset`; after a failure it may hold some of them. What
    /// comes before `offset` was written before.
    ///
    /// # Errors
    /// As [`Upload::write`].
    pub async fn write_from(
        &mut self,
        pipe: &Pipe,
        offset: u64,
        length: u32,
    ) -> Result<(), Failure> {
        self.grow(offset, length as usize).await?;
        let written = self.space.write_from(&self.file, pipe, offset, length);
        written.await.map_err(|error| unwritten(&error))
    }

    /// Counts bytes before they are written.
    async fn grow(&mut self, offset: u64, length: usize) -> Result<(), Failure> {
        let size = offset.saturating_add(length as u64);
        self.look_at_floor(size).await?;
        self.charge
            .as_mut()
            .map_or(Ok(()), |charge| charge.grow(size))
    }

    /// Before the file grows to `size`: whether the file system stays as free as it should.
    async fn look_at_floor(&mut self, size: u64) -> Result<(), Failure> {
        match &mut self.floor {
            Some(floor) if floor.is_due(size) => floor.look(&self.file, size).await,
            _ => Ok(()),
        }
    }

    /// Writes the last bytes, if any are left, at `offset`, where the file ends so far, and ends the
    /// upload. The bytes come back.
    ///
    /// # Errors
    /// As [`Upload::write`]; [`Failure::NotFound`] when somebody has removed the file, or its
    /// directory, meanwhile; [`Failure::Exists`] when somebody else has got a name that is not to be
    /// replaced; [`Failure::IsADirectory`], [`Failure::NotAFile`] when the name has
    /// become something that is not to be replaced. A whole upload leaves nothing then.
    pub async fn finish(mut self, bytes: Vec<u8>, offset: u64) -> (Result<(), Failure>, Vec<u8>) {
        let size = offset.saturating_add(bytes.len() as u64);
        if let Err(failure) = self.grow(offset, bytes.len()).await {
            self.abandon().await;
            return (Err(failure), bytes);
        }
        let quota = self.quota();
        let turn = turn_of(&quota).await;
        let (ended, bytes) = match &mut self.unseen {
            Some(unseen) if self.space.is_as_needed() => {
                unseen.write_and_publish(&self.file, bytes, offset).await
            }
            _ => {
                let (written, bytes) = self.write(bytes, offset).await;
                if let Err(failure) = written {
                    drop(turn);
                    self.abandon().await;
                    return (Err(failure), bytes);
                }
                (self.end_written().await, bytes)
            }
        };
        if ended.is_ok() {
            self.settle(size);
            self.own = None;
        }
        drop(turn);
        if let Err(Unsuitable::Unwritten(error)) = ended {
            let failure = unwritten(&error);
            self.abandon().await;
            return (Err(failure), bytes);
        }
        let path = self.path.clone();
        self.discard(size).await;
        (
            ended.map_err(|error| error.into_failure("upload", &path)),
            bytes,
        )
    }

    fn quota(&self) -> Option<Arc<Quota>> {
        let charge = self.charge.as_ref()?;
        Some(Arc::clone(charge.quota()))
    }

    /// The file has its name and this size: that is what it counts for.
    fn settle(&mut self, size: u64) {
        let Some(charge) = self.charge.take() else {
            return;
        };
        let gone = match &self.unseen {
            Some(unseen) => unseen
                .replaced()
                .map(|(file, size)| charge.quota().counted(file, size)),
            None => self.replaced.map(|bytes| Usage { bytes, files: 1 }),
        };
        charge.settle(size, gone.unwrap_or_default());
    }

    /// Ends the upload: all its bytes have been written.
    async fn end_written(&mut self) -> Result<(), Unsuitable> {
        self.space.give_back(&self.file).await;
        match &mut self.unseen {
            Some(unseen) => unseen.publish(&self.file).await,
            None => match file::status(&self.file) {
                Ok(status) if status.links == 0 => Err(Unsuitable::Gone),
                status => status.map(drop).map_err(Unsuitable::Unknown),
            },
        }
    }

    /// Ends an upload that broke off; what remains is what the settings say.
    pub async fn abandon(mut self) {
        let quota = self.quota();
        let turn = turn_of(&quota).await;
        let arrived = file::status(&self.file).map_or(0, |status| status.size);
        let keep = self.failed == FailedUpload::Keep && arrived > 0 && self.made.is_none();
        if keep {
            self.space.give_back(&self.file).await;
        }
        let kept = match &mut self.unseen {
            Some(unseen) => keep && unseen.publish_new(&self.file).await,
            None => {
                if keep {
                    self.own = None;
                }
                self.remove_leftovers().await;
                // Written in place, it is there whatever becomes of the upload, unless it had no
                // other name than the one just removed.
                file::status(&self.file).is_ok_and(|status| status.links > 0)
            }
        };
        if kept {
            self.settle(arrived);
        }
        drop(turn);
        self.discard(arrived).await;
    }

    /// Removes the names that exist for its sake only, and closes the file.
    async fn discard(mut self, size: u64) {
        self.remove_leftovers().await;
        if let Some(charge) = self.charge.take() {
            charge.end();
        }
        let file = self.file.clone();
        drop(self);
        release(file, size).await;
    }

    async fn remove_leftovers(&mut self) {
        for leftover in self.leftovers() {
            leftover.remove().await;
        }
    }

    fn leftovers(&mut self) -> impl Iterator<Item = Leftover> + use<> {
        let hidden = self.unseen.take().and_then(Unseen::into_leftover);
        hidden
            .into_iter()
            .chain(self.own.take())
            .chain(self.made.take())
    }
}

/// Why not the ring: a task that is dropped may be the last one of a runtime that ends. The names
/// are few, and were used a moment ago.
impl Drop for Upload {
    fn drop(&mut self) {
        for leftover in self.leftovers() {
            leftover.remove_now();
        }
    }
}

/// The turn to give or take names, where a quota counts them.
async fn turn_of(quota: &Option<Arc<Quota>>) -> Option<tokio::sync::MutexGuard<'_, ()>> {
    match quota {
        Some(quota) => Some(quota.turn().await),
        None => None,
    }
}

/// Takes the right to write in place, until the file is closed.
pub(super) fn lock(file: &OwnedFd, path: &VirtualPath) -> Result<(), Failure> {
    locked(file::lock_exclusive(file), path)
}

fn locked(lock: io::Result<bool>, path: &VirtualPath) -> Result<(), Failure> {
    match lock {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Busy),
        Err(error) => Err(failure("lock", path, &error)),
    }
}

/// Cuts a file of `size` bytes down to `length`.
async fn cut(file: &Handle, size: u64, length: u64) -> io::Result<()> {
    if size == length {
        return Ok(());
    }
    let ids = file.ids();
    if size - length <= FREED_INLINE_BYTES_MAX && ids.is_none() {
        return file::truncate(file, length);
    }
    let file = file.fd().try_clone()?;
    // Bits of the mode that have to go depend on who cuts it.
    off_core(ids, move || file::truncate(&file, length)).await
}

/// Closes a file of `size` bytes. That frees its blocks if it has no name; and ext4 begins to write a file that
/// was cut to nothing before (its mount option `auto_da_alloc`). Both take a while if it is large.
async fn release(file: Handle, size: u64) {
    // Whoever else holds the file, an operation in flight for instance, closes it then.
    let Ok(file) = Rc::try_unwrap(file.into_fd()) else {
        return;
    };
    if size > FREED_INLINE_BYTES_MAX {
        // If no thread could be started, it is closed here. The end is waited for, since it is
        // also that of the lock.
        let close = move || {
            drop(file);
            Ok(())
        };
        let _ = off_core(None, close).await;
    }
}

/// Does a job on another thread, with the rights of this account; `None`: with the server's.
pub(super) async fn off_core<T: Send + 'static>(
    ids: Option<&Arc<Ids>>,
    job: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> io::Result<T> {
    let ids = ids.cloned();
    let done = tokio::task::spawn_blocking(move || acting::within(ids.as_deref(), job));
    done.await.map_err(io::Error::other)??
}

/// How much of a file is freed, or closed, on the core itself. ext4 frees extents of up to 128 MiB each, in
/// microseconds as long as they are few.
const FREED_INLINE_BYTES_MAX: u64 = 16 * 1024 * 1024;
