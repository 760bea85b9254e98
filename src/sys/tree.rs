//! Small calls on the files of a user's tree, for [`crate::storage`].

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};

use nix::fcntl::{FcntlArg, OFlag, fcntl, open};
use nix::sys::stat::Mode;
use nix::sys::uio::pread;
use nix::unistd::{Gid, UnlinkatFlags, fchown, unlinkat};

/// Opens `/` or `.`, the two directories that are always in memory.
///
/// # Errors
/// `EMFILE`, `ENFILE`, and `EACCES` for a working directory that may not be searched.
pub fn open_start(path: &str) -> io::Result<OwnedFd> {
    let flags = OFlag::O_PATH | OFlag::O_DIRECTORY | OFlag::O_CLOEXEC;
    Ok(open(path, flags, Mode::empty())?)
}

/// Takes `O_NONBLOCK` from a descriptor, before the ring reads or writes it: on a file system
/// without `FMODE_NOWAIT` it would answer `EAGAIN` instead of waiting in a worker (io_uring/rw.c,
/// `io_rw_init_file`).
///
/// # Errors
/// None that fcntl(2) knows for an open file.
pub fn set_blocking(file: impl AsFd) -> io::Result<()> {
    fcntl(file, FcntlArg::F_SETFL(OFlag::empty()))?;
    Ok(())
}

/// Removes a name at once, on this thread.
///
/// # Errors
/// Those of unlink(2).
pub fn unlink_now(directory: impl AsFd, name: &CStr) -> io::Result<()> {
    Ok(unlinkat(directory, name, UnlinkatFlags::NoRemoveDir)?)
}

/// Gives an open file to a group.
///
/// # Errors
/// `EPERM` when the file is somebody else's, or its owner is not in the group.
pub fn set_group(file: impl AsFd, gid: u32) -> io::Result<()> {
    Ok(fchown(file, None, Some(Gid::from_raw(gid)))?)
}

/// Reads from a file at an offset, on this thread, which may wait for a disk. 0: the file ends here.
///
/// # Errors
/// As pread(2).
pub fn read_now(file: impl AsFd, buffer: &mut [u8], offset: u64) -> io::Result<usize> {
    let offset = i64::try_from(offset).map_err(|_| io::ErrorKind::InvalidInput)?;
    Ok(pread(file, buffer, offset)?)
}
