//! How an upload becomes visible, all at once.
//!
//! It is written to a file without a name (`O_TMPFILE`, open(2)), or with a hidden one where the
//! file system knows none without, in the directory where it will be. At its end that file is
//! linked under its name, or renamed over the file that has it. Both are atomic: nobody ever sees
//! half a file, and two uploads to one name end with one of them, whole.

use std::ffi::{CStr, CString};
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use crate::proto::printable;
use crate::quota::FileId;
use crate::sys::acting;
use crate::sys::file::{self, FileKind, FileStatus};
use crate::sys::flag::{
    O_CREAT, O_EXCL, O_NOCTTY, O_NOFOLLOW, O_PATH, O_TMPFILE, O_WRONLY, RENAME_NOREPLACE,
};
use crate::sys::tree;
use crate::uring::{self, Handle, Naming, Step};

use super::root::{INSIDE, Unsuitable};
use super::upload::off_core;

/// An upload that is not visible yet.
#[derive(Debug)]
pub(super) struct Unseen {
    target: Name,
    /// The name of the file meanwhile, where it cannot be without.
    hidden: Option<Name>,
    replaces: Replaces,
    /// The file whose name it has taken, and the size of that.
    replaced: Option<(FileId, u64)>,
}

/// Whether an upload replaces a file of its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Replaces {
    /// There was one when the upload began.
    Likely,
    /// There was none; one that has come since is replaced.
    Maybe,
    /// There was none; one that has come since stays, and the upload fails.
    Never,
}

/// What became of an attempt to write and publish at once.
enum AtOnce {
    Published,
    /// All bytes are in the file, but it has not got its name.
    Written,
}

/// A name in a directory.
#[derive(Clone, Debug)]
pub(super) struct Name {
    pub(super) parent: Handle,
    pub(super) name: Vec<u8>,
}

/// A name that is left over when nothing becomes of an upload.
#[derive(Debug)]
pub(super) struct Leftover {
    name: Name,
    /// Device and inode of the file: somebody may have stored another one under the name.
    identity: Option<FileId>,
}

impl Unseen {
    /// Makes the file in which an upload to `target` waits for its end.
    pub(super) async fn make(
        target: Name,
        replaces: Replaces,
        mode: u32,
    ) -> io::Result<(OwnedFd, Self)> {
        let (file, hidden) = target.make_unnamed(mode).await?;
        Ok((
            file,
            Self {
                target,
                hidden,
                replaces,
                replaced: None,
            },
        ))
    }

    /// The file whose name it has taken, and the size of that; `None`: there was none.
    pub(super) fn replaced(&self) -> Option<(FileId, u64)> {
        self.replaced
    }

    /// Writes the last bytes, if there are any, and gives the file its name; the bytes come back. In
    /// one trip to a worker of the ring, unless something is in the way.
    pub(super) async fn write_and_publish(
        &mut self,
        file: &Handle,
        bytes: Vec<u8>,
        offset: u64,
    ) -> (Result<(), Unsuitable>, Vec<u8>) {
        let bytes = if self.hidden.is_none() {
            match self.try_at_once(file, bytes, offset).await {
                (Ok(AtOnce::Written), bytes) => bytes,
                (Ok(AtOnce::Published), bytes) => return (Ok(()), bytes),
                (Err(error), bytes) => return (Err(error), bytes),
            }
        } else {
            match uring::write_all_at(file, bytes, offset).await {
                (Ok(()), bytes) => bytes,
                (Err(error), bytes) => return (Err(Unsuitable::Unwritten(error)), bytes),
            }
        };
        (self.publish(file).await, bytes)
    }

    async fn try_at_once(
        &mut self,
        file: &Handle,
        bytes: Vec<u8>,
        offset: u64,
    ) -> (Result<AtOnce, Unsuitable>, Vec<u8>) {
        if self.replaces == Replaces::Likely {
            match self.take_over(file).await {
                // Until it has its name it is left over.
                Ok(true) => self.hidden = Some(self.target.hidden()),
                Ok(false) => {}
                Err(error) => return (Err(error), bytes),
            }
        }
        let naming = Naming {
            parent: &self.target.parent,
            name: &self.target.name,
            through: self.hidden.as_ref().map(|hidden| &hidden.name[..]),
        };
        let (outcome, bytes) = uring::write_and_name(file, bytes, offset, naming).await;
        if !matches!(outcome, Err(Step::Rename(_))) {
            self.hidden = None;
        }
        let outcome = match outcome {
            Ok(()) => Ok(AtOnce::Published),
            Err(Step::Write(error)) => Err(Unsuitable::Unwritten(error)),
            // The name was taken meanwhile, or whatever it is will be met again.
            Err(Step::Link(_) | Step::Rename(_)) => Ok(AtOnce::Written),
        };
        (outcome, bytes)
    }

    /// Lets the file take over the permissions of the one that it is to replace; says whether there
    /// is one.
    async fn take_over(&mut self, file: &Handle) -> Result<bool, Unsuitable> {
        self.replaced = None;
        match self.target.status().await.map_err(Unsuitable::Unknown)? {
            None => Ok(false),
            Some(status) if status.kind == FileKind::File => {
                hand_on(&status, file).await.map_err(Unsuitable::Unknown)?;
                self.replaced = Some((identity(&status), status.size));
                Ok(true)
            }
            Some(status) => Err(Unsuitable::Kind(status.kind)),
        }
    }

    /// Gives the file its name. A file that has it is replaced and hands on its permissions.
    pub(super) async fn publish(&mut self, file: &Handle) -> Result<(), Unsuitable> {
        if self.replaces != Replaces::Likely && self.publish_new(file).await {
            return Ok(());
        }
        if self.replaces == Replaces::Never {
            return Err(Unsuitable::Taken);
        }
        self.take_over(file).await?;
        let hidden = match self.hidden.take() {
            Some(hidden) => hidden,
            None => self
                .target
                .link_hidden(file)
                .await
                .map_err(Unsuitable::Unknown)?,
        };
        // Until it has its name it is left over.
        let hidden = self.hidden.insert(hidden);
        let Name { parent, name } = &self.target;
        uring::rename(&hidden.parent, &hidden.name, parent, name, 0)
            .await
            .map_err(Unsuitable::Unknown)?;
        self.hidden = None;
        Ok(())
    }

    /// Gives the file its name unless that is taken; says whether it did.
    pub(super) async fn publish_new(&mut self, file: &Handle) -> bool {
        let Name { parent, name } = &self.target;
        let Some(hidden) = &self.hidden else {
            return uring::link_file(file, parent, name).await.is_ok();
        };
        let (from, to) = (&hidden.name, name);
        match uring::rename(parent, from, parent, to, RENAME_NOREPLACE).await {
            Ok(()) => {
                self.hidden = None;
                true
            }
            // EINVAL: not every file system knows the flag (rename(2)), NFS for one. A link does
            // not overwrite either; the hidden name is left over then.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                uring::link(parent, from, parent, to, 0).await.is_ok()
            }
            Err(_) => false,
        }
    }

    pub(super) fn into_leftover(self) -> Option<Leftover> {
        self.hidden.map(|name| Leftover {
            name,
            identity: None,
        })
    }
}

impl Name {
    pub(super) fn new(parent: &Handle, name: &[u8]) -> Self {
        Self {
            parent: parent.clone(),
            name: name.to_vec(),
        }
    }

    /// What has this name. Not followed if it is a link.
    pub(super) async fn status(&self) -> io::Result<Option<FileStatus>> {
        match uring::open(&self.parent, &self.name, O_PATH | O_NOFOLLOW, 0, INSIDE).await {
            Ok(file) => file::status(&file).map(Some),
            Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Makes a file without a name next to this one, or with a hidden one where the file system
    /// knows no files without (open(2): `EOPNOTSUPP`, or `EISDIR` from one that ignores the flag).
    async fn make_unnamed(&self, mode: u32) -> io::Result<(OwnedFd, Option<Self>)> {
        match uring::open(&self.parent, b".", O_TMPFILE | O_WRONLY, mode, INSIDE).await {
            Ok(file) => return Ok((file, None)),
            Err(error) if is_without_unnamed_files(&error) => {}
            Err(error) => return Err(error),
        }
        self.make_hidden(mode)
            .await
            .map(|(file, hidden)| (file, Some(hidden)))
    }

    /// A hidden name next to this one.
    fn hidden(&self) -> Self {
        let mut name = HIDDEN_PREFIX.to_vec();
        name.extend_from_slice(format!("{:016x}", random()).as_bytes());
        name.extend_from_slice(HIDDEN_SUFFIX);
        Self {
            parent: self.parent.clone(),
            name,
        }
    }

    async fn make_hidden(&self, mode: u32) -> io::Result<(OwnedFd, Self)> {
        let flags = O_WRONLY | O_NOCTTY | O_CREAT | O_EXCL;
        for _ in 0..HIDDEN_ATTEMPTS_MAX {
            let hidden = self.hidden();
            match uring::open(&hidden.parent, &hidden.name, flags, mode, INSIDE).await {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                made => return made.map(|file| (file, hidden)),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }

    /// Links a file without a name under a hidden one.
    async fn link_hidden(&self, file: &Handle) -> io::Result<Self> {
        for _ in 0..HIDDEN_ATTEMPTS_MAX {
            let hidden = self.hidden();
            match uring::link_file(file, &hidden.parent, &hidden.name).await {
                Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
                linked => return linked.map(|()| hidden),
            }
        }
        Err(io::ErrorKind::AlreadyExists.into())
    }
}

impl Leftover {
    /// A name to be removed while it shows this file.
    pub(super) fn file(name: Name, status: &FileStatus) -> Self {
        Self {
            name,
            identity: Some(identity(status)),
        }
    }

    pub(super) async fn remove(self) {
        let Self {
            name,
            identity: wanted,
        } = self;
        if wanted.is_some() {
            match name.status().await {
                Ok(Some(status)) if wanted == Some(identity(&status)) => {}
                _ => return,
            }
        }
        if let Err(error) = uring::unlink(&name.parent, &name.name, 0).await {
            let name = printable(&name.name);
            tracing::debug!(name, %error, "leftover of an upload was not removed");
        }
    }

    /// The same on this thread. Nobody is left to hear of a failure; a hidden name that stays
    /// is hidden.
    pub(super) fn remove_now(self) {
        let Self {
            name: Name { parent, name },
            identity,
        } = self;
        let Ok(name) = CString::new(name) else {
            return;
        };
        match (parent.ids(), parent.fd().try_clone()) {
            (None, _) => remove_if(&parent, &name, identity),
            (Some(ids), Ok(parent)) => {
                let _ = acting::on_own_thread(ids, move || remove_if(&parent, &name, identity));
            }
            (Some(_), Err(_)) => {}
        }
    }
}

/// Removes a name that shows this file, or any.
fn remove_if(parent: &impl AsFd, name: &CStr, wanted: Option<FileId>) {
    if wanted.is_some() {
        match file::status_at(parent, name) {
            Ok(status) if wanted == Some(identity(&status)) => {}
            _ => return,
        }
    }
    let _ = tree::unlink_now(parent, name);
}

/// Lets a new file take over the permissions of the one that it replaces, and its group, which for a
/// server that works for all is the same everywhere.
async fn hand_on(old: &FileStatus, file: &Handle) -> io::Result<()> {
    // The bits that make a program run as its owner are not inherited: write(2) would have cleared
    // them, too.
    let (mode, gid) = (old.mode & 0o777, old.gid);
    let Some(ids) = file.ids() else {
        return file::set_mode(file, mode);
    };
    let new = file::status(file)?;
    if (new.mode, new.gid) == (mode, gid) {
        return Ok(());
    }
    let file = file.fd().try_clone()?;
    let set = move || {
        if new.gid != gid {
            tree::set_group(&file, gid)?;
        }
        file::set_mode(&file, mode)
    };
    off_core(Some(ids), set).await
}

fn identity(status: &FileStatus) -> FileId {
    (status.device, status.inode)
}

/// Whether a listing passes over this name: it holds an upload that is not whole.
pub(super) fn is_hidden_name(name: &[u8]) -> bool {
    name.strip_prefix(HIDDEN_PREFIX)
        .and_then(|rest| rest.strip_suffix(HIDDEN_SUFFIX))
        .is_some_and(|random| random.len() == 16 && random.iter().all(u8::is_ascii_hexdigit))
}

/// A number that nobody can foresee: std seeds its hash maps with such.
pub(super) fn random() -> u64 {
    RandomState::new().hash_one(())
}

fn is_without_unnamed_files(error: &io::Error) -> bool {
    use io::ErrorKind::{InvalidInput, IsADirectory, Unsupported};
    matches!(error.kind(), InvalidInput | IsADirectory | Unsupported)
}

/// How many random names are tried for a hidden file.
const HIDDEN_ATTEMPTS_MAX: u32 = 8;

const HIDDEN_PREFIX: &[u8] = b".ringftpd-";
const HIDDEN_SUFFIX: &[u8] = b".part";

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::uring::RingOptions;

    /// A file system without `O_TMPFILE` is not at hand: the file gets its hidden name here.
    async fn hidden(target: &Name, replaces: Replaces) -> (Handle, Unseen) {
        let (file, hidden) = target.make_hidden(0o644).await.unwrap();
        let target = target.clone();
        (
            Handle::from(file),
            Unseen {
                target,
                hidden: Some(hidden),
                replaces,
                replaced: None,
            },
        )
    }

    fn handle(file: fs::File) -> Handle {
        Handle::from(OwnedFd::from(file))
    }

    fn names(folder: &tempfile::TempDir) -> Vec<Vec<u8>> {
        use std::os::unix::ffi::OsStringExt;
        let entries = fs::read_dir(folder.path()).unwrap();
        entries
            .map(|entry| entry.unwrap().file_name().into_vec())
            .collect()
    }

    #[test]
    fn where_files_need_names_theirs_are_hidden_and_do_not_stay() {
        let folder = tempfile::tempdir().unwrap();
        uring::start(&RingOptions::default(), || async {
            let parent = handle(fs::File::open(folder.path()).unwrap());
            let target = Name::new(&parent, b"file");

            let (file, mut first) = hidden(&target, Replaces::Maybe).await;
            assert!(names(&folder).iter().all(|name| is_hidden_name(name)));
            let (second_file, mut second) = hidden(&target, Replaces::Maybe).await;
            assert_eq!(names(&folder).len(), 2);
            first.publish(&file).await.unwrap();
            assert!(first.into_leftover().is_none());

            // The name is taken meanwhile: the file there is replaced, and keeps its mode.
            let mode = fs::Permissions::from_mode(0o600);
            fs::set_permissions(folder.path().join("file"), mode).unwrap();
            assert!(!second.publish_new(&second_file).await);
            second.publish(&second_file).await.unwrap();
            assert!(second.into_leftover().is_none());
            assert_eq!(names(&folder), [b"file"]);
            let mode = fs::metadata(folder.path().join("file"))
                .unwrap()
                .permissions()
                .mode();
            assert_eq!(mode & 0o777, 0o600);

            let (_, third) = hidden(&target, Replaces::Likely).await;
            third.into_leftover().unwrap().remove().await;
            let (_, fourth) = hidden(&target, Replaces::Likely).await;
            fourth.into_leftover().unwrap().remove_now();
            assert_eq!(names(&folder), [b"file"]);
        })
        .unwrap();
    }

    #[test]
    fn hidden_names_are_told_from_others() {
        let parent = handle(tempfile::tempfile().unwrap());
        let name = Name::new(&parent, b"x").hidden().name;
        for (name, expected) in [
            (&name[..], true),
            (b".ringftpd-0123456789abcdef.part", true),
            (b".ringftpd-0123456789abcdeg.part", false),
            (b".ringftpd-0123.part", false),
            (b".ringftpd-.part", false),
            (b"ringftpd-0123456789abcdef.part", false),
            (b".ringftpd-0123456789abcdef", false),
        ] {
            assert_eq!(is_hidden_name(name), expected, "{}", printable(name));
        }
    }
}
