//! The root of a user's tree, and what only looks at it.

use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::ffi::OsStrExt;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;

use crate::config::{Files, Folder};
use crate::proto::failure::Failure;
use crate::proto::path::VirtualPath;
use crate::proto::printable;
use crate::sys::file::{self, FileKind, FileStatus};
use crate::sys::flag::{
    O_DIRECTORY, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY, RESOLVE_IN_ROOT,
    RESOLVE_NO_MAGICLINKS,
};
use crate::sys::ids::Ids;
use crate::sys::tree;
use crate::uring::{self, Fd, Handle, Personality};

/// The root of a user's tree. Clones are cheap and share it; it stays on its core.
#[derive(Clone, Debug)]
pub struct Root {
    /// With whose rights everything in the tree is done.
    pub(super) directory: Handle,
    pub(super) settings: Files,
    /// Other directories of the host, and where they are found in the tree.
    pub(super) folders: Rc<[Mounted]>,
}

/// A directory of the host that is found in a tree.
#[derive(Debug)]
pub(super) struct Mounted {
    at: VirtualPath,
    directory: Handle,
}

impl Root {
    /// Opens the directory `path` of this host as the root of a tree, in which everything is done
    /// with the rights of this account; `None`: with those of the server.
    ///
    /// # Errors
    /// `ENOENT`, `ENOTDIR`, `EACCES` and whatever else open(2) says.
    pub async fn open(
        path: &Path,
        settings: Files,
        account: Option<Personality>,
    ) -> io::Result<Self> {
        Ok(Self {
            directory: open_on_host(path, account).await?,
            settings,
            folders: Rc::new([]),
        })
    }

    /// The same tree with other directories of the host in it. Each is found at a path where the
    /// tree has a directory of its own, as a mount point; what is missing is made. One that cannot
    /// be had is left out, and told in the log.
    pub async fn with_folders(mut self, folders: &[Folder]) -> Self {
        let mut mounted: Vec<Mounted> = Vec::new();
        for Folder { at, directory } in folders {
            match self.mount(at, directory).await {
                Ok(directory) => mounted.push(Mounted {
                    at: at.clone(),
                    directory,
                }),
                Err(error) => {
                    let at = printable(at.as_bytes());
                    let directory = directory.display();
                    tracing::error!(at, %directory, %error, "a folder is not in the tree");
                }
            }
        }
        // Of two that a path is in, the inner one counts.
        mounted.sort_by_key(|mounted| std::cmp::Reverse(mounted.at.as_bytes().len()));
        self.folders = mounted.into();
        self
    }

    async fn mount(&self, at: &VirtualPath, directory: &Path) -> io::Result<Handle> {
        let path = at.as_bytes();
        let ends = path.iter().enumerate().skip(1);
        let ends = ends.filter(|(_, byte)| **byte == b'/').map(|(end, _)| end);
        for end in ends.chain([path.len()]) {
            let part = VirtualPath::root().join(&path[..end]);
            let part = part.map_err(|_| io::ErrorKind::InvalidInput)?;
            match self.make_directory(&part, None).await {
                Ok(()) | Err(Failure::Exists) => {}
                Err(failure) => return Err(io::Error::other(failure)),
            }
        }
        let account = self.directory.personality().cloned();
        open_on_host(directory, account).await
    }

    /// The directory that a path begins in, and the way from there.
    fn place<'p>(&self, path: &'p VirtualPath) -> (&Handle, &'p [u8]) {
        let folders = self.folders.iter();
        let mut found =
            folders.filter_map(|folder| Some((&folder.directory, path.below(&folder.at)?)));
        found
            .next()
            .unwrap_or_else(|| (&self.directory, path.relative()))
    }

    /// Opens what `path` leads to, following links where it begins.
    pub(super) async fn open_at(
        &self,
        path: &VirtualPath,
        flags: i32,
        mode: u32,
    ) -> io::Result<OwnedFd> {
        let (directory, way) = self.place(path);
        uring::open(directory, way, flags, mode, INSIDE).await
    }

    /// The directory that a path begins in, for a worker's thread, and where in the tree that is.
    pub(super) fn place_for_worker(&self, path: &VirtualPath) -> io::Result<Place> {
        let folder = self.folders.iter().find(|folder| folder.at.contains(path));
        let (directory, at) = match folder {
            Some(folder) => (&folder.directory, folder.at.clone()),
            None => (&self.directory, VirtualPath::root()),
        };
        Ok(Place {
            directory: directory.fd().try_clone()?,
            at,
        })
    }

    /// Whose rights a worker's thread has to take for what it does in the tree.
    pub(super) fn ids(&self) -> Option<Arc<Ids>> {
        self.directory.ids().cloned()
    }

    /// Whether two paths begin in the same directory of the host.
    pub(super) fn are_together(&self, one: &VirtualPath, other: &VirtualPath) -> bool {
        self.place(one).0.is(self.place(other).0)
    }

    /// Whether a path is in the user's own tree, which counts for a quota, and not in a folder of others.
    pub fn is_own(&self, path: &VirtualPath) -> bool {
        self.place(path).0.is(&self.directory)
    }

    /// Whether other directories are found at this path or below: it must stay where it is.
    pub(super) fn has_folders_in(&self, path: &VirtualPath) -> bool {
        self.folders.iter().any(|folder| path.contains(&folder.at))
    }

    /// How files come into being in this tree.
    pub fn settings(&self) -> Files {
        self.settings
    }

    /// What `path` leads to. Links are followed, inside the tree.
    ///
    /// # Errors
    /// [`Failure::NotFound`] when there is nothing, also behind a link that leads nowhere.
    pub async fn status(&self, path: &VirtualPath) -> Result<FileStatus, Failure> {
        let file = self.resolve("status", path, O_PATH).await?;
        file::status(&file).map_err(|error| failure("status", path, &error))
    }

    /// What the name itself is: a link in the last component is not followed.
    ///
    /// # Errors
    /// [`Failure::NotFound`] when the name does not exist.
    pub async fn name_status(&self, path: &VirtualPath) -> Result<FileStatus, Failure> {
        let file = self.resolve("status", path, O_PATH | O_NOFOLLOW).await?;
        file::status(&file).map_err(|error| failure("status", path, &error))
    }

    /// Whether `path` is a directory that may be entered.
    ///
    /// # Errors
    /// [`Failure::NotADirectory`], [`Failure::NotFound`], [`Failure::Denied`].
    pub async fn enter(&self, path: &VirtualPath) -> Result<(), Failure> {
        // The right to search a directory is asked for only when a name is looked up in it, and
        // "." is one (path_resolution(7)).
        let (directory, way) = self.place(path);
        let inside = [way, b"/."].concat();
        let entered = uring::open(directory, &inside, O_PATH | O_DIRECTORY, 0, INSIDE).await;
        entered
            .map(drop)
            .map_err(|error| failure("enter", path, &error))
    }

    /// Opens a regular file for reading: inline, by a worker thread, or by a splice. For a read
    /// through the ring it has to be made blocking ([`tree::set_blocking`]).
    ///
    /// # Errors
    /// [`Failure::IsADirectory`] and [`Failure::NotAFile`] for everything else that can be found.
    pub async fn open_for_reading(&self, path: &VirtualPath) -> Result<(Fd, FileStatus), Failure> {
        let (file, status) = self.open_regular(path).await?;
        Ok((Rc::new(file), status))
    }

    /// Bytes that may still be stored where `path` is.
    ///
    /// # Errors
    /// [`Failure::NotFound`] and what the file system says.
    pub async fn free_bytes(&self, path: &VirtualPath) -> Result<u64, Failure> {
        let file = self.resolve("free bytes", path, O_PATH).await?;
        file::free_bytes(&file).map_err(|error| failure("free bytes", path, &error))
    }

    pub(super) async fn open_regular(
        &self,
        path: &VirtualPath,
    ) -> Result<(OwnedFd, FileStatus), Failure> {
        // O_NONBLOCK: opening a FIFO would wait for its other end (open(2)); O_NOCTTY: a terminal
        // would become ours.
        let flags = O_RDONLY | O_NONBLOCK | O_NOCTTY;
        let file = self.resolve("open", path, flags).await?;
        let status = regular(&file).map_err(|error| error.into_failure("open", path))?;
        Ok((file, status))
    }

    /// Opens `path`, following links inside the tree.
    pub(super) async fn resolve(
        &self,
        operation: &'static str,
        path: &VirtualPath,
        flags: i32,
    ) -> Result<OwnedFd, Failure> {
        self.open_at(path, flags, 0)
            .await
            .map_err(|error| failure(operation, path, &error))
    }

    /// Opens the directory that holds the last component of `path`, and says which that is.
    pub(super) async fn parent<'a>(
        &self,
        operation: &'static str,
        path: &'a VirtualPath,
    ) -> Result<(Handle, &'a [u8]), Failure> {
        // The root has no name in its own tree: it can be neither made, removed nor renamed.
        let (Some(parent), Some(name)) = (path.parent(), path.name()) else {
            return Err(Failure::Denied);
        };
        // Nor has a folder that is found there.
        if self.folders.iter().any(|folder| folder.at == *path) {
            return Err(Failure::Denied);
        }
        let (directory, way) = self.place(&parent);
        if way == b"." {
            return Ok((directory.clone(), name));
        }
        let parent = uring::open(directory, way, O_PATH | O_DIRECTORY, 0, INSIDE)
            .await
            .map_err(|error| failure(operation, path, &error))?;
        Ok((directory.with(parent), name))
    }
}

/// Opens a directory of this host, if this account may.
async fn open_on_host(path: &Path, account: Option<Personality>) -> io::Result<Handle> {
    // The two places where a path can begin are always in memory: these opens wait for
    // nothing, the walk from there may.
    let (start, rest) = match path.strip_prefix("/") {
        Ok(rest) => ("/", rest),
        Err(_) => (".", path),
    };
    let start = Handle::new(tree::open_start(start)?, account);
    let rest = if rest.as_os_str().is_empty() {
        Path::new(".")
    } else {
        rest
    };
    let flags = O_PATH | O_DIRECTORY;
    let resolve = RESOLVE_NO_MAGICLINKS;
    let directory = uring::open(&start, rest.as_os_str().as_bytes(), flags, 0, resolve).await?;
    Ok(start.with(directory))
}

/// A directory of the host in which paths of a tree begin.
#[derive(Debug)]
pub(super) struct Place {
    pub(super) directory: OwnedFd,
    /// Where in the tree it is.
    pub(super) at: VirtualPath,
}

impl Place {
    pub(super) fn try_clone(&self) -> io::Result<Self> {
        Ok(Self {
            directory: self.directory.try_clone()?,
            at: self.at.clone(),
        })
    }

    /// The way to a path of the tree that begins here.
    pub(super) fn way<'p>(&self, path: &'p VirtualPath) -> &'p [u8] {
        path.below(&self.at).unwrap_or(b".")
    }
}

/// Why a file that was opened will not do.
#[derive(Debug)]
pub(super) enum Unsuitable {
    /// It is something else than a regular file.
    Kind(FileKind),
    /// It has no name any more.
    Gone,
    /// Another has got its name, and is not to be replaced.
    Taken,
    /// It cannot be asked.
    Unknown(io::Error),
    /// It does not take what is to be written.
    Unwritten(io::Error),
}

impl Unsuitable {
    pub(super) fn into_failure(self, operation: &'static str, path: &VirtualPath) -> Failure {
        match self {
            Self::Kind(FileKind::Directory) => Failure::IsADirectory,
            Self::Kind(_) => Failure::NotAFile,
            Self::Gone => Failure::NotFound,
            Self::Taken => Failure::Exists,
            Self::Unknown(error) => failure(operation, path, &error),
            Self::Unwritten(error) => unwritten(&error),
        }
    }
}

/// The status of a file just opened, if it is a regular one.
pub(super) fn regular(file: &OwnedFd) -> Result<FileStatus, Unsuitable> {
    let status = file::status(file).map_err(Unsuitable::Unknown)?;
    if status.kind != FileKind::File {
        return Err(Unsuitable::Kind(status.kind));
    }
    Ok(status)
}

/// What the protocol is told of an error; what the system said goes to the log.
pub(super) fn failure(operation: &'static str, path: &VirtualPath, error: &io::Error) -> Failure {
    tracing::debug!(operation, path = printable(path.as_bytes()), %error, "file operation failed");
    error
        .raw_os_error()
        .map_or(Failure::LocalError, Failure::from_errno)
}

/// What the protocol is told when a file does not take bytes. This is for the operator to know.
pub(super) fn unwritten(error: &io::Error) -> Failure {
    let failure = error
        .raw_os_error()
        .map_or(Failure::LocalError, Failure::from_errno);
    tracing::warn!(%error, ?failure, "upload failed on this side");
    failure
}

/// Opens a path inside the tree on this thread, a worker's: it may wait for a disk.
pub(super) fn open_now(root: &OwnedFd, path: &[u8], flags: i32) -> io::Result<OwnedFd> {
    let mut attempts = 1;
    loop {
        match file::open(root, path, flags, 0, INSIDE) {
            // openat2(2): a rename raced with "..", which only a link can have brought here.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && attempts < ATTEMPTS_MAX => {
                attempts += 1;
            }
            opened => return opened,
        }
    }
}

/// How every path of a tree is resolved (openat2(2), Linux 5.6).
pub(super) const INSIDE: u64 = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;

/// Attempts at a path while renames race with its resolution.
const ATTEMPTS_MAX: u32 = 32;
