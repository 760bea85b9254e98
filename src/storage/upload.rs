//! How a file arrives (RFC 959 §4.1.3 STOR, STOU, APPE; RFC 3659 §5 REST).
//!
//! *Whole* uploads are written to a file without a name (`O_TMPFILE`, open(2)), or with a hidden
//! one where the file system knows none without, in the directory where the file will be. At
//! their end that file is linked under its name, or renamed over the file that has it: both are
//! atomic, so that nobody ever sees half a file, and two uploads to one name end with one of
//! them, whole. *In place* are APPE, REST, and uploads through a symbolic link; they hold
//! `flock(2)` on the file, so that two of them never mix.
//!
//! Nothing is synced: like other servers, this one answers for what the kernel has accepted.

use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;

use crate::proto::failure::Failure;
use crate::proto::path::VirtualPath;
use crate::proto::printable;
use crate::sys::file::{self, FileKind, FileStatus};
use crate::sys::flag::{
    O_CREAT, O_EXCL, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_TMPFILE, O_WRONLY,
    RENAME_NOREPLACE,
};
use crate::sys::tree;
use crate::uring::{self, Fd};

use super::root::{FailedUpload, INSIDE, Root, Unsuitable, UploadPolicy, failure, regular};

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

/// A file that arrives. Dropped without an end, it leaves what [`FailedUpload::Discard`] leaves.
#[derive(Debug)]
pub struct Upload {
    file: Fd,
    position: u64,
    path: VirtualPath,
    failed: FailedUpload,
    target: Target,
}

/// Where an upload will be found.
#[derive(Debug)]
enum Target {
    /// It is being written there.
    InPlace,
    /// It is being written there, under a name that exists for its sake.
    Reserved(Name, Identity),
    /// It will get this name at its end.
    Whole(Whole),
    /// Nothing is left to be done.
    Settled,
}

/// A name in a directory.
#[derive(Debug)]
struct Name {
    parent: Fd,
    name: Vec<u8>,
}

/// Device and inode: which file a name showed.
type Identity = (u64, u64);

/// An upload that is not visible yet.
#[derive(Debug)]
struct Whole {
    target: Name,
    /// The name of the file meanwhile, where it cannot be without.
    hidden: Option<Vec<u8>>,
    /// What the name showed when the upload began.
    before: Before,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Before {
    Nothing,
    File,
    /// An empty file that keeps the name for this upload.
    Placeholder(Identity),
}

impl Root {
    /// Begins an upload to `path`. New files get the permissions 0666 without `umask` (or that of
    /// the settings); a file that is replaced hands on its own.
    ///
    /// # Errors
    /// [`Failure::Busy`] while another upload writes to the file in place;
    /// [`Failure::IsADirectory`], [`Failure::NotAFile`] when the name cannot be a file's;
    /// [`Failure::OffsetBeyondEnd`] when REST points behind the end of the file, and
    /// [`Failure::NotFound`] when it points into none.
    pub async fn upload(
        &self,
        path: &VirtualPath,
        kind: UploadKind,
        umask: Option<u32>,
    ) -> Result<Upload, Failure> {
        let mode = 0o666 & !umask.unwrap_or(self.settings.umask);
        match kind {
            UploadKind::Replace | UploadKind::ReplaceFrom(0) => self.replace(path, mode).await,
            UploadKind::ReplaceFrom(offset) => self.write_at(path, Some(offset), mode).await,
            UploadKind::Append => self.write_at(path, None, mode).await,
            UploadKind::Unique => self.write_unique(path, mode).await,
        }
    }

    async fn replace(&self, path: &VirtualPath, mode: u32) -> Result<Upload, Failure> {
        if self.settings.uploads == UploadPolicy::InPlace {
            return self.write_at(path, Some(0), mode).await;
        }
        let (parent, name) = self.parent("upload", path).await?;
        let target = Name {
            parent,
            name: name.to_vec(),
        };
        let status = target
            .status()
            .await
            .map_err(|error| failure("upload", path, &error))?;
        let before = match status.map(|status| status.kind) {
            None => Before::Nothing,
            Some(FileKind::File) => {
                self.may_write(&target, path).await?;
                Before::File
            }
            // Through the link, inside the tree: the link itself is not ours to replace.
            Some(FileKind::Symlink) => return self.write_at(path, Some(0), mode).await,
            Some(kind) => return Err(Unsuitable::Kind(kind).into_failure("upload", path)),
        };
        match self.write_whole(path, target, before, mode).await {
            // The file may be written, but its directory may not.
            Err(Failure::Denied) if before == Before::File => {
                self.write_at(path, Some(0), mode).await
            }
            begun => begun,
        }
    }

    /// To replace a file takes only the right to write its directory. Whoever took away the right
    /// to write the file meant that too, and whoever writes to it in place would lose it.
    async fn may_write(&self, target: &Name, path: &VirtualPath) -> Result<(), Failure> {
        let flags = O_WRONLY | O_NONBLOCK | O_NOCTTY | O_NOFOLLOW;
        match uring::open(&target.parent, &target.name, flags, 0, INSIDE).await {
            Ok(file) => lock(&file, path),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(()),
            Err(error) => Err(failure("upload", path, &error)),
        }
    }

    async fn write_whole(
        &self,
        path: &VirtualPath,
        target: Name,
        before: Before,
        mode: u32,
    ) -> Result<Upload, Failure> {
        let made = target.make_unnamed(mode).await;
        let (file, hidden) = made.map_err(|error| failure("upload", path, &error))?;
        Ok(Upload {
            file: Rc::new(file),
            position: 0,
            path: path.clone(),
            failed: self.settings.failed_upload,
            target: Target::Whole(Whole {
                target,
                hidden,
                before,
            }),
        })
    }

    /// Opens the file itself for writing at `offset`, or at its end.
    async fn write_at(
        &self,
        path: &VirtualPath,
        offset: Option<u64>,
        mode: u32,
    ) -> Result<Upload, Failure> {
        let flags = O_WRONLY | O_NONBLOCK | O_NOCTTY;
        // A restart in the middle of nothing would leave an empty file behind.
        let (flags, mode) = match offset {
            Some(1..) => (flags, 0),
            None | Some(0) => (flags | O_CREAT, mode),
        };
        let file = uring::open(&self.directory, path.relative(), flags, mode, INSIDE)
            .await
            .map_err(|error| failure("upload", path, &error))?;
        regular(&file).map_err(|error| error.into_failure("upload", path))?;
        lock(&file, path)?;
        // Only now nobody else of this server changes its size.
        let status = file::status(&file).map_err(|error| failure("upload", path, &error))?;
        let position = offset.unwrap_or(status.size);
        if position > status.size {
            return Err(Failure::OffsetBeyondEnd);
        }
        cut(&file, status.size, position)
            .await
            .map_err(|error| failure("upload", path, &error))?;
        Ok(Upload {
            file: Rc::new(file),
            position,
            path: path.clone(),
            failed: self.settings.failed_upload,
            target: Target::InPlace,
        })
    }

    /// Finds a name that is free, and keeps it with an empty file: the reply that begins the
    /// transfer has to tell it (RFC 1123 §4.1.2.9).
    async fn write_unique(&self, path: &VirtualPath, mode: u32) -> Result<Upload, Failure> {
        let (parent, wanted) = self.parent("upload", path).await?;
        let directory = path.parent().unwrap_or_else(VirtualPath::root);
        let flags = O_WRONLY | O_NOCTTY | O_CREAT | O_EXCL;
        for attempt in 0..UNIQUE_ATTEMPTS_MAX {
            let name = unique_name(wanted, attempt);
            let file = match uring::open(&parent, &name, flags, mode, INSIDE).await {
                Ok(file) => file,
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => continue,
                Err(error) => return Err(failure("upload", path, &error)),
            };
            let path = directory.join(&name).map_err(|_| Failure::NameInvalid)?;
            let status = file::status(&file).map_err(|error| failure("upload", &path, &error))?;
            let identity = (status.device, status.inode);
            let target = Name {
                parent: Rc::clone(&parent),
                name,
            };
            if self.settings.uploads == UploadPolicy::Whole {
                let before = Before::Placeholder(identity);
                return self.write_whole(&path, target, before, mode).await;
            }
            let upload = Upload {
                file: Rc::new(file),
                position: 0,
                path: path.clone(),
                failed: self.settings.failed_upload,
                target: Target::Reserved(target, identity),
            };
            lock(&upload.file, &path)?;
            return Ok(upload);
        }
        Err(Failure::Exists)
    }
}

impl Upload {
    /// The file, to be written to from [`position`](Self::position) on.
    pub fn file(&self) -> &Fd {
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

    /// Ends the upload: all its bytes have been written.
    ///
    /// # Errors
    /// [`Failure::NotFound`] when somebody has removed the file, or its directory, meanwhile;
    /// [`Failure::IsADirectory`], [`Failure::NotAFile`] when the name has become something that
    /// is not to be replaced. A whole upload leaves nothing then.
    pub async fn finish(mut self) -> Result<(), Failure> {
        let Target::Whole(whole) = &mut self.target else {
            self.target = Target::Settled;
            let status = file::status(&self.file);
            let status = status.map_err(|error| failure("upload", &self.path, &error))?;
            return if status.links == 0 {
                Err(Failure::NotFound)
            } else {
                Ok(())
            };
        };
        match whole.publish(&self.file).await {
            Ok(()) => {
                self.target = Target::Settled;
                Ok(())
            }
            Err(error) => {
                let failure = error.into_failure("upload", &self.path);
                self.discard().await;
                Err(failure)
            }
        }
    }

    /// Ends an upload that broke off; what remains is what the settings say.
    pub async fn abandon(mut self) {
        let arrived = file::status(&self.file).map_or(0, |status| status.size);
        if self.failed == FailedUpload::Discard || arrived == 0 {
            return self.discard().await;
        }
        let kept = match &mut self.target {
            Target::Whole(whole) => match whole.before {
                Before::Nothing => whole.publish_new(&self.file).await,
                Before::Placeholder(_) => whole.publish(&self.file).await.is_ok(),
                Before::File => false,
            },
            Target::InPlace | Target::Reserved(..) | Target::Settled => true,
        };
        if kept {
            self.target = Target::Settled;
        } else {
            self.discard().await;
        }
    }

    async fn discard(mut self) {
        for leftover in self.leftovers() {
            leftover.remove().await;
        }
        let file = Rc::clone(&self.file);
        drop(self);
        release(file).await;
    }

    /// The names that exist for the sake of this upload, if it has not been settled.
    fn leftovers(&mut self) -> impl Iterator<Item = Leftover> + use<> {
        let (reserved, hidden) = match std::mem::replace(&mut self.target, Target::Settled) {
            Target::InPlace | Target::Settled => (None, None),
            Target::Reserved(name, identity) => (Some((name, identity)), None),
            Target::Whole(Whole {
                target,
                hidden,
                before,
            }) => {
                let parent = Rc::clone(&target.parent);
                let hidden = hidden.map(|name| Name { parent, name });
                match before {
                    Before::Placeholder(identity) => (Some((target, identity)), hidden),
                    Before::Nothing | Before::File => (None, hidden),
                }
            }
        };
        let hidden = hidden.map(|name| Leftover {
            name,
            identity: None,
        });
        let reserved = reserved.map(|(name, identity)| Leftover {
            name,
            identity: Some(identity),
        });
        hidden.into_iter().chain(reserved)
    }
}

/// Why not the ring: a task that is dropped may be the last one of a runtime that ends. The names
/// are few, and were used a moment ago.
impl Drop for Upload {
    fn drop(&mut self) {
        for Leftover { name, .. } in self.leftovers() {
            // Nobody is left to hear of a failure; a hidden name that stays is hidden.
            let _ = tree::unlink_now(&name.parent, &name.name);
        }
    }
}

/// A name that an upload leaves when nothing becomes of it.
struct Leftover {
    name: Name,
    /// Remove it only while it shows this file: somebody may have stored another one there.
    identity: Option<Identity>,
}

impl Leftover {
    async fn remove(self) {
        let Self { name, identity } = self;
        if identity.is_some() {
            match name.status().await {
                Ok(Some(status)) if Some((status.device, status.inode)) == identity => {}
                _ => return,
            }
        }
        if let Err(error) = uring::unlink(&name.parent, &name.name, 0).await {
            let name = printable(&name.name);
            tracing::debug!(name, %error, "leftover of an upload was not removed");
        }
    }
}

impl Whole {
    /// Gives the file its name.
    async fn publish(&mut self, file: &Fd) -> Result<(), Unsuitable> {
        if self.before == Before::Nothing && self.publish_new(file).await {
            return Ok(());
        }
        match self.target.status().await.map_err(Unsuitable::Unknown)? {
            None => {}
            Some(status) if status.kind == FileKind::File => {
                // The bits that make a program run as its owner are not inherited: write(2) would
                // have cleared them, too.
                file::set_mode(file, status.mode & 0o777).map_err(Unsuitable::Unknown)?;
            }
            Some(status) => return Err(Unsuitable::Kind(status.kind)),
        }
        if self.hidden.is_none() {
            self.hidden = Some(
                self.target
                    .link_hidden(file)
                    .await
                    .map_err(Unsuitable::Unknown)?,
            );
        }
        let hidden = self.hidden.as_deref().unwrap_or_default();
        let Name { parent, name } = &self.target;
        uring::rename(parent, hidden, parent, name, 0)
            .await
            .map_err(Unsuitable::Unknown)?;
        self.hidden = None;
        Ok(())
    }

    /// Gives the file its name unless that is taken; says whether it did.
    async fn publish_new(&mut self, file: &Fd) -> bool {
        let Name { parent, name } = &self.target;
        let Some(hidden) = self.hidden.as_deref() else {
            return uring::link_file(file, parent, name).await.is_ok();
        };
        match uring::rename(parent, hidden, parent, name, RENAME_NOREPLACE).await {
            Ok(()) => {
                self.hidden = None;
                true
            }
            // EINVAL: not every file system knows the flag (rename(2)), NFS for one. A link
            // does not overwrite either.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                let linked = uring::link(parent, hidden, parent, name, 0).await.is_ok();
                if linked && uring::unlink(parent, hidden, 0).await.is_ok() {
                    self.hidden = None;
                }
                linked
            }
            Err(_) => false,
        }
    }
}

impl Name {
    /// What has this name. Not followed if it is a link.
    async fn status(&self) -> io::Result<Option<FileStatus>> {
        match uring::open(&self.parent, &self.name, O_PATH | O_NOFOLLOW, 0, INSIDE).await {
            Ok(file) => file::status(&file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a file without a name next to this one, or with a hidden one where the file system
    /// knows no files without (open(2): `EOPNOTSUPP`, or `EISDIR` from one that ignores the flag).
    async fn make_unnamed(&self, mode: u32) -> io::Result<(OwnedFd, Option<Vec<u8>>)> {
        match uring::open(&self.parent, b".", O_TMPFILE | O_WRONLY, mode, INSIDE).await {
            Ok(file) => return Ok((file, None)),
            Err(error) if is_without_unnamed_files(&error) => {}
            Err(error) => return Err(error),
        }
        self.make_hidden(mode)
            .await
            .map(|(file, name)| (file, Some(name)))
    }

    async fn make_hidden(&self, mode: u32) -> io::Result<(OwnedFd, Vec<u8>)> {
        let flags = O_WRONLY | O_NOCTTY | O_CREAT | O_EXCL;
        for _ in 1..HIDDEN_ATTEMPTS_MAX {
            let name = hidden_name();
            match uring::open(&self.parent, &name, flags, mode, INSIDE).await {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|file| (file, name)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Links a file without a name under a hidden one.
    async fn link_hidden(&self, file: &Fd) -> io::Result<Vec<u8>> {
        for _ in 1..HIDDEN_ATTEMPTS_MAX {
            let name = hidden_name();
            match uring::link_file(file, &self.parent, &name).await {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                linked => return linked.map(|()| name),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

/// Whether a listing passes over this name: it holds an upload that is not whole.
pub(super) fn is_hidden_name(name: &[u8]) -> bool {
    name.strip_prefix(HIDDEN_PREFIX)
        .and_then(|rest| rest.strip_suffix(HIDDEN_SUFFIX))
        .is_some_and(|random| random.len() == 16 && random.iter().all(u8::is_ascii_hexdigit))
}

fn hidden_name() -> Vec<u8> {
    let mut name = HIDDEN_PREFIX.to_vec();
    name.extend_from_slice(format!("{:016x}", random()).as_bytes());
    name.extend_from_slice(HIDDEN_SUFFIX);
    name
}

/// The name of the `attempt`th try: as wanted, then numbered, then random.
fn unique_name(wanted: &[u8], attempt: u32) -> Vec<u8> {
    let suffix = match attempt {
        0 => String::new(),
        1..=UNIQUE_NUMBERED_MAX => format!(".{attempt}"),
        _ => format!(".{:016x}", random()),
    };
    // NAME_MAX: a component has at most 255 bytes (limits.h).
    let mut name = wanted[..wanted.len().min(255 - suffix.len())].to_vec();
    name.extend_from_slice(suffix.as_bytes());
    name
}

/// A number that nobody can foresee: std seeds its hash maps with such.
fn random() -> u64 {
    RandomState::new().hash_one(())
}

fn is_without_unnamed_files(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, IsADirectory, Unsupported};
    matches!(error.kind(), InvalidInput | IsADirectory | Unsupported)
}

/// Takes the right to write in place, until the file is closed.
fn lock(file: &OwnedFd, path: &VirtualPath) -> Result<(), Failure> {
    match file::lock_exclusive(file) {
        Ok(true) => Ok(()),
        Ok(false) => Err(Failure::Busy),
        Err(error) => Err(failure("lock", path, &error)),
    }
}

/// Cuts a file of `size` bytes down to `length`.
async fn cut(file: &OwnedFd, size: u64, length: u64) -> io::Result<()> {
    if size == length {
        return Ok(());
    }
    if size - length <= FREED_INLINE_BYTES_MAX {
        return file::truncate(file, length);
    }
    let file = file.try_clone()?;
    off_core(move || file::truncate(&file, length)).await?
}

/// Closes a file that may have no name: its blocks are freed then, which takes a while for many.
async fn release(file: Fd) {
    let large = file::status(&file)
        .is_ok_and(|status| status.links == 0 && status.size > FREED_INLINE_BYTES_MAX);
    // Whoever else holds the file, an operation in flight for instance, closes it then.
    let Ok(file) = Rc::try_unwrap(file) else {
        return;
    };
    if large {
        // The result tells only whether the thread could be started; if not, it is closed here.
        let _ = off_core(move || drop(file)).await;
    }
}

async fn off_core<T: Send + 'static>(job: impl FnOnce() -> T + Send + 'static) -> io::Result<T> {
    tokio::task::spawn_blocking(job)
        .await
        .map_err(io::Error::other)
}

/// How much of a file is freed on the core itself. ext4 frees extents of up to 128 MiB each, in
/// microseconds as long as they are few.
const FREED_INLINE_BYTES_MAX: u64 = 16 * 1024 * 1024;

/// How many names are tried for STOU: the one wanted, numbered ones, and then random ones, of
/// which hardly any is ever taken.
const UNIQUE_ATTEMPTS_MAX: u32 = UNIQUE_NUMBERED_MAX + 8;
const UNIQUE_NUMBERED_MAX: u32 = 99;

/// How many random names are tried for a hidden file.
const HIDDEN_ATTEMPTS_MAX: u32 = 8;

const HIDDEN_PREFIX: &[u8] = b".ringftpd-";
const HIDDEN_SUFFIX: &[u8] = b".part";
