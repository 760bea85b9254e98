//! Files by descriptor: status, attributes, the lock of an upload, and the calls of the download
//! path that never wait for a disk.
//!
//! All calls here run inline on the caller's thread. Those on a descriptor that is already open
//! read or change an inode in memory and are fit for a core; [`status_at`], [`open`] and
//! [`truncate`] may wait for a disk.

use std::ffi::{CStr, CString};
use std::fs::File;
use std::io::{self, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::os::unix::ffi::OsStrExt;
use std::path::Path;

use super::{check, check_count};

/// What a name in a directory stands for.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FileKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link (only seen when links are not followed).
    Symlink,
    /// A FIFO.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A block device.
    BlockDevice,
    /// A character device, or something this program has no word for.
    CharacterDevice,
}

/// The attributes of a file: statx(2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FileStatus {
    /// What it is.
    pub kind: FileKind,
    /// Permission bits, with set-user-ID, set-group-ID and sticky: at most `0o7777`.
    pub mode: u32,
    /// Number of hard links.
    pub links: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Last change of the content, Unix seconds.
    pub modified: i64,
    /// Nanoseconds after [`Self::modified`], below 10⁹.
    pub modified_nanoseconds: u32,
    /// Last read, Unix seconds.
    pub accessed: i64,
    /// Birth, Unix seconds; not every file system keeps it.
    pub created: Option<i64>,
    /// The file system, as one number.
    pub device: u64,
    /// The file on its file system.
    pub inode: u64,
}

/// The attributes of an open file; an `O_PATH` descriptor will do.
///
/// # Errors
/// As statx(2).
pub fn status(file: &impl AsFd) -> io::Result<FileStatus> {
    statx(file, c"", libc::AT_EMPTY_PATH)
}

/// The attributes of one name in a directory, without following it if it is a link.
///
/// The name must be a single component: this call knows no root.
///
/// # Errors
/// As statx(2).
pub fn status_at(directory: &impl AsFd, name: &CStr) -> io::Result<FileStatus> {
    statx(directory, name, libc::AT_SYMLINK_NOFOLLOW)
}

/// Opens a path below a directory with openat2(2), on this thread. `O_CLOEXEC` is added.
///
/// `path` is relative (`.` for the directory itself); `resolve` says what it may pass through.
///
/// # Errors
/// EINVAL when the path holds a NUL; EAGAIN when a rename raced with `..` under a confining
/// `resolve`, or when `RESOLVE_CACHED` finds that a disk is needed; otherwise as openat2(2).
pub fn open(
    directory: &impl AsFd,
    path: &[u8],
    flags: i32,
    mode: u32,
    resolve: u64,
) -> io::Result<OwnedFd> {
    open_cstr(directory, &CString::new(path)?, flags, mode, resolve)
}

/// Finds an absolute path without ever waiting for a disk. Nothing can be read through the file, but
/// its attributes can.
///
/// # Errors
/// EAGAIN when a part of the path is not in memory (`RESOLVE_CACHED`); otherwise as openat2(2).
pub fn find_cached(path: &Path) -> io::Result<File> {
    let path = CString::new(path.as_os_str().as_bytes())?;
    // SAFETY: AT_FDCWD is no descriptor that anybody could close, and an absolute path ignores it.
    let directory = unsafe { BorrowedFd::borrow_raw(libc::AT_FDCWD) };
    open_cstr(&directory, &path, libc::O_PATH, 0, libc::RESOLVE_CACHED).map(File::from)
}

/// As [`open`], for a path that is a C string already.
pub(crate) fn open_cstr(
    directory: &impl AsFd,
    path: &CStr,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> io::Result<OwnedFd> {
    let how = OpenHow::new(flags, mode, resolve);
    // SAFETY: the path is a C string and `how` has the size given; the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_openat2,
            directory.as_fd().as_raw_fd(),
            path.as_ptr(),
            &raw const how,
            size_of::<OpenHow>(),
        )
    };
    let raw = check(result as libc::c_int)?;
    // SAFETY: openat2 returned a new descriptor, which nobody else owns.
    Ok(unsafe { OwnedFd::from_raw_fd(raw) })
}

/// `struct open_how` of openat2(2) as of Linux 5.6.
#[repr(C)]
pub(crate) struct OpenHow {
    flags: u64,
    mode: u64,
    resolve: u64,
}

impl OpenHow {
    pub(crate) fn new(flags: i32, mode: u32, resolve: u64) -> Self {
        let flags = flags | libc::O_CLOEXEC;
        // openat2(2) refuses a mode when nothing can be created.
        let creates = flags & (libc::O_CREAT | TMPFILE_BIT) != 0;
        let mode = if creates {
            u64::from(mode & MODE_BITS)
        } else {
            0
        };
        Self {
            flags: u64::from(flags.cast_unsigned()),
            mode,
            resolve,
        }
    }

    pub(crate) fn as_parts(&self) -> (u64, u64, u64) {
        (self.flags, self.mode, self.resolve)
    }
}

/// Sends up to `count` bytes of a file from `offset` to a socket with sendfile(2), and moves the
/// offset behind what was sent. 0: the file ends here.
///
/// Waits for the disk when the pages are not in memory; ask [`residency`] first.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when the socket's buffer is full; otherwise as sendfile(2).
pub fn send_file(
    file: &impl AsFd,
    socket: &impl AsFd,
    offset: &mut u64,
    count: usize,
) -> io::Result<usize> {
    let mut position = offset_of(*offset)?;
    // SAFETY: the kernel updates the offset behind the pointer, which outlives the call.
    let result = unsafe {
        libc::sendfile(
            socket.as_fd().as_raw_fd(),
            file.as_fd().as_raw_fd(),
            &raw mut position,
            count,
        )
    };
    let sent = check_count(result)?;
    *offset += sent as u64;
    Ok(sent)
}

/// Reads bytes of a file from `offset` into `places`, one after the other, if they are in memory; may be
/// fewer than fit. 0: the file ends here.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when the first byte is not in memory, or its file system cannot tell;
/// otherwise as preadv2(2).
pub fn read_resident(
    file: &impl AsFd,
    places: &mut [IoSliceMut<'_>],
    offset: u64,
) -> io::Result<usize> {
    let (file, offset) = (file.as_fd(), offset_of(offset)?);
    // IOV_MAX of Linux; the kernel refuses more.
    let count = places.len().min(1024) as libc::c_int;
    let mut read = |flags| {
        let places = places.as_mut_ptr().cast();
        // SAFETY: an IoSliceMut has the layout of an iovec (std documents it), and the places are borrowed
        // mutably for the call.
        let result = unsafe { libc::preadv2(file.as_raw_fd(), places, count, offset, flags) };
        check_count(result)
    };
    let result = read(libc::RWF_NOWAIT);
    let cannot_tell = |error: &io::Error| error.raw_os_error() == Some(libc::EOPNOTSUPP);
    if result.as_ref().is_err_and(cannot_tell) {
        // tmpfs does not know the flag (as of Linux 6.18), and never waits.
        return match file_system(&file) {
            FileSystem::Tmpfs => read(0),
            _ => Err(io::ErrorKind::WouldBlock.into()),
        };
    }
    result
}

/// Where a window of a file is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Residency {
    /// In memory.
    Resident,
    /// Not in memory, or its file system cannot tell: the way for cold files is right for every
    /// file, only slower.
    Missing,
    /// In memory with all the rest of the file: there is no disk behind it.
    Diskless,
}

/// Where a window of a file is, judged by its first and its last byte.
pub fn residency(file: &impl AsFd, offset: u64, length: u64) -> Residency {
    if length == 0 {
        return Residency::Resident;
    }
    let last = offset.saturating_add(length - 1);
    match byte_residency(file, offset) {
        // Within one page, of 4 KiB at the least, the first byte speaks for the last.
        Residency::Resident if last / PAGE_BYTES_MIN != offset / PAGE_BYTES_MIN => {
            byte_residency(file, last)
        }
        residency => residency,
    }
}

fn byte_residency(file: &impl AsFd, offset: u64) -> Residency {
    let Ok(offset) = offset_of(offset) else {
        return Residency::Resident;
    };
    let mut byte = 0u8;
    let slice = libc::iovec {
        iov_base: (&raw mut byte).cast(),
        iov_len: 1,
    };
    // SAFETY: one iovec of one byte, which outlives the call.
    let result = unsafe {
        libc::preadv2(
            file.as_fd().as_raw_fd(),
            &raw const slice,
            1,
            offset,
            libc::RWF_NOWAIT,
        )
    };
    // Past the end nothing is read, thus nothing is missing.
    if result >= 0 {
        return Residency::Resident;
    }
    // tmpfs cannot tell (no RWF_NOWAIT as of Linux 6.18, preadv2(2)).
    let cannot_tell = io::Error::last_os_error().raw_os_error() == Some(libc::EOPNOTSUPP);
    match cannot_tell && file_system(file) == FileSystem::Tmpfs {
        true => Residency::Diskless,
        false => Residency::Missing,
    }
}

/// File systems that are treated in their own way.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FileSystem {
    /// In memory.
    Tmpfs,
    /// ext4, or its predecessors, which have the same number.
    Ext4,
    /// Any other, or none that can be told.
    Other,
}

/// The file system that a file is on (fstatfs(2)).
pub fn file_system(file: &impl AsFd) -> FileSystem {
    use nix::sys::statfs::{EXT4_SUPER_MAGIC, TMPFS_MAGIC, fstatfs};
    match fstatfs(file).map(|status| status.filesystem_type()) {
        Ok(TMPFS_MAGIC) => FileSystem::Tmpfs,
        Ok(EXT4_SUPER_MAGIC) => FileSystem::Ext4,
        _ => FileSystem::Other,
    }
}

/// Sets the permission bits of an open file, also of an `O_PATH` descriptor.
///
/// # Errors
/// As fchmodat2(2).
pub fn set_mode(file: &impl AsFd, mode: u32) -> io::Result<()> {
    let raw = file.as_fd().as_raw_fd();
    let mode = mode & MODE_BITS;
    // SAFETY: an empty C string and numbers; the kernel only reads them.
    let result = unsafe {
        libc::syscall(
            libc::SYS_fchmodat2,
            raw,
            c"".as_ptr(),
            mode,
            libc::AT_EMPTY_PATH,
        )
    };
    match check(result as libc::c_int) {
        // Linux before 6.6 has no fchmodat2; seccomp profiles older than it say EPERM.
        Err(error) if matches!(error.raw_os_error(), Some(libc::ENOSYS | libc::EPERM)) => {
            let path = descriptor_path(raw);
            // SAFETY: the path is a C string; the kernel only reads it.
            check(unsafe { libc::chmod(path.as_ptr(), mode) }).map(drop)
        }
        result => result.map(drop),
    }
}

/// Sets the times of an open file, also of an `O_PATH` descriptor, in Unix seconds; `None` leaves
/// a time as it is.
///
/// # Errors
/// As utimensat(2).
pub fn set_times(file: &impl AsFd, accessed: Option<i64>, modified: Option<i64>) -> io::Result<()> {
    let time = |seconds: Option<i64>| match seconds {
        Some(tv_sec) => libc::timespec { tv_sec, tv_nsec: 0 },
        None => libc::timespec {
            tv_sec: 0,
            tv_nsec: libc::UTIME_OMIT,
        },
    };
    let times = [time(accessed), time(modified)];
    let raw = file.as_fd().as_raw_fd();
    // SAFETY: an empty C string and two timespecs, as utimensat reads them.
    let result = unsafe { libc::utimensat(raw, c"".as_ptr(), times.as_ptr(), libc::AT_EMPTY_PATH) };
    check(result).map(drop)
}

/// Bytes an unprivileged user can still write to the file system the file is on.
///
/// # Errors
/// As fstatvfs(3).
pub fn free_bytes(file: &impl AsFd) -> io::Result<u64> {
    let status = nix::sys::statvfs::fstatvfs(file)?;
    Ok(status
        .blocks_available()
        .saturating_mul(status.fragment_size()))
}

/// Tries to lock a file for this open description alone (flock(2)); `false`: somebody else has it.
/// The lock ends with the last descriptor of the open.
///
/// # Errors
/// As flock(2), such as ENOLCK on a network file system.
pub fn lock_exclusive(file: &impl AsFd) -> io::Result<bool> {
    lock(file, libc::LOCK_EX)
}

/// As [`lock_exclusive`], but others may have the file in this way too.
///
/// # Errors
/// As [`lock_exclusive`].
pub fn lock_shared(file: &impl AsFd) -> io::Result<bool> {
    lock(file, libc::LOCK_SH)
}

fn lock(file: &impl AsFd, kind: libc::c_int) -> io::Result<bool> {
    // SAFETY: flock takes numbers only.
    let result = unsafe { libc::flock(file.as_fd().as_raw_fd(), kind | libc::LOCK_NB) };
    match check(result) {
        Ok(_) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::WouldBlock => Ok(false),
        Err(error) => Err(error),
    }
}

/// Sets the length of a file open for writing; it grows by zeros, as a hole.
///
/// # Errors
/// As ftruncate(2).
pub fn truncate(file: &impl AsFd, length: u64) -> io::Result<()> {
    let length = offset_of(length)?;
    // SAFETY: ftruncate takes numbers only.
    check(unsafe { libc::ftruncate(file.as_fd().as_raw_fd(), length) }).map(drop)
}

/// `/proc/thread-self/fd/N`: a descriptor as a path, for calls that take nothing else.
///
/// The thread's own directory, not `/proc/self`: that shows the descriptors of the first thread,
/// which are others when a thread has a table of its own.
pub(crate) fn descriptor_path(raw: libc::c_int) -> CString {
    // A number and a constant hold no NUL.
    CString::new(format!("/proc/thread-self/fd/{raw}")).unwrap_or_default()
}

/// File offsets are signed in the kernel's interfaces.
fn offset_of(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

fn statx(directory: &impl AsFd, name: &CStr, flags: libc::c_int) -> io::Result<FileStatus> {
    // SAFETY: all zeros is a valid statx, which is made of integers.
    let mut raw: libc::statx = unsafe { std::mem::zeroed() };
    let mask = libc::STATX_BASIC_STATS | libc::STATX_BTIME;
    // SAFETY: the kernel reads the C string and fills the struct, which outlives the call.
    let result = unsafe {
        libc::statx(
            directory.as_fd().as_raw_fd(),
            name.as_ptr(),
            flags | libc::AT_NO_AUTOMOUNT,
            mask,
            &raw mut raw,
        )
    };
    check(result)?;
    let mode = u32::from(raw.stx_mode);
    let created = (raw.stx_mask & libc::STATX_BTIME != 0).then_some(raw.stx_btime.tv_sec);
    Ok(FileStatus {
        kind: kind_of(mode),
        mode: mode & MODE_BITS,
        links: raw.stx_nlink.into(),
        uid: raw.stx_uid,
        gid: raw.stx_gid,
        size: raw.stx_size,
        modified: raw.stx_mtime.tv_sec,
        modified_nanoseconds: raw.stx_mtime.tv_nsec,
        accessed: raw.stx_atime.tv_sec,
        created,
        device: libc::makedev(raw.stx_dev_major, raw.stx_dev_minor),
        inode: raw.stx_ino,
    })
}

fn kind_of(mode: u32) -> FileKind {
    match mode & libc::S_IFMT {
        libc::S_IFREG => FileKind::File,
        libc::S_IFDIR => FileKind::Directory,
        libc::S_IFLNK => FileKind::Symlink,
        libc::S_IFIFO => FileKind::Fifo,
        libc::S_IFSOCK => FileKind::Socket,
        libc::S_IFBLK => FileKind::BlockDevice,
        _ => FileKind::CharacterDevice,
    }
}

/// Permission, set-ID and sticky bits of a mode.
const MODE_BITS: u32 = 0o7777;

/// The smallest page of any architecture.
const PAGE_BYTES_MIN: u64 = 4096;

/// `O_TMPFILE` without the `O_DIRECTORY` it contains (open(2)).
const TMPFILE_BIT: i32 = libc::O_TMPFILE & !libc::O_DIRECTORY;

#[cfg(test)]
mod tests {
    use std::fs::{self, File};
    use std::io::{Read, Seek, Write};
    use std::os::unix::fs::{MetadataExt, PermissionsExt, symlink};

    use super::*;
    use crate::sys::flag::{O_CREAT, O_PATH, O_RDONLY, O_RDWR, RESOLVE_BENEATH};

    #[test]
    fn status_agrees_with_the_standard_library() {
        let tree = tempfile::tempdir().unwrap();
        let path = tree.path().join("file");
        fs::write(&path, "content").unwrap();
        fs::set_permissions(&path, fs::Permissions::from_mode(0o4751)).unwrap();
        fs::hard_link(&path, tree.path().join("other")).unwrap();
        symlink("file", tree.path().join("link")).unwrap();
        nix::unistd::mkfifo(&tree.path().join("fifo"), nix::sys::stat::Mode::S_IRWXU).unwrap();
        let root = File::open(tree.path()).unwrap();
        let ours = status(&File::open(&path).unwrap()).unwrap();
        let theirs = fs::metadata(&path).unwrap();
        assert_eq!(ours.kind, FileKind::File);
        assert_eq!((ours.mode, ours.links, ours.size), (0o4751, 2, 7));
        assert_eq!((ours.uid, ours.gid), (theirs.uid(), theirs.gid()));
        assert_eq!((ours.device, ours.inode), (theirs.dev(), theirs.ino()));
        assert_eq!(
            (ours.modified, ours.accessed),
            (theirs.mtime(), theirs.atime())
        );
        assert_eq!(i64::from(ours.modified_nanoseconds), theirs.mtime_nsec());
        let created = theirs.created().ok().map(|time| {
            time.duration_since(std::time::UNIX_EPOCH)
                .unwrap()
                .as_secs()
                .cast_signed()
        });
        assert_eq!(ours.created, created);
        assert_eq!(status_at(&root, c"file").unwrap(), ours);
        let kinds = [c"link", c"fifo", c"."].map(|name| status_at(&root, name).unwrap().kind);
        assert_eq!(
            kinds,
            [FileKind::Symlink, FileKind::Fifo, FileKind::Directory]
        );
        let null = status(&File::open("/dev/null").unwrap()).unwrap();
        assert_eq!(null.kind, FileKind::CharacterDevice);
        let error = status_at(&root, c"none").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn attributes_are_set_through_path_descriptors() {
        let tree = tempfile::tempdir().unwrap();
        fs::write(tree.path().join("file"), "content").unwrap();
        let root = File::open(tree.path()).unwrap();
        for flags in [O_PATH, O_RDONLY] {
            let file = open(&root, b"file", flags, 0, RESOLVE_BENEATH).unwrap();
            set_mode(&file, 0o640).unwrap();
            set_times(&file, Some(1_000_000_000), Some(-5)).unwrap();
            set_times(&file, None, Some(951_782_400)).unwrap();
            let now = status(&file).unwrap();
            assert_eq!(now.mode, 0o640);
            assert_eq!((now.accessed, now.modified), (1_000_000_000, 951_782_400));
            assert_eq!(now.modified_nanoseconds, 0);
            assert!(free_bytes(&file).is_ok());
            set_mode(&file, 0o755).unwrap();
        }
    }

    #[test]
    fn opening_and_truncating() {
        let tree = tempfile::tempdir().unwrap();
        let root = File::open(tree.path()).unwrap();
        let file = open(&root, b"new", O_RDWR | O_CREAT, 0o600, RESOLVE_BENEATH).unwrap();
        truncate(&file, 1000).unwrap();
        assert_eq!(status(&file).unwrap().size, 1000);
        truncate(&file, 3).unwrap();
        assert_eq!(status(&file).unwrap().size, 3);
        assert!(truncate(&file, u64::MAX).is_err());
        let error = open(&root, b"../x", O_PATH, 0, RESOLVE_BENEATH).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EXDEV));
        let error = open(&root, b"a\0b", O_PATH, 0, RESOLVE_BENEATH).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
    }

    #[test]
    fn a_lock_belongs_to_one_open() {
        let tree = tempfile::tempdir().unwrap();
        let path = tree.path().join("file");
        let one = File::create(&path).unwrap();
        let other = File::open(&path).unwrap();
        assert!(lock_exclusive(&one).unwrap());
        assert!(lock_exclusive(&one).unwrap());
        assert!(!lock_exclusive(&other).unwrap());
        drop(one);
        assert!(lock_exclusive(&other).unwrap());
    }

    #[test]
    fn send_file_moves_the_offset_and_stops_at_the_end() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(b"0123456789").unwrap();
        file.rewind().unwrap();
        let (mut reader, writer) = std::os::unix::net::UnixStream::pair().unwrap();
        let mut offset = 3;
        assert_eq!(send_file(&file, &writer, &mut offset, 4).unwrap(), 4);
        assert_eq!(offset, 7);
        assert_eq!(send_file(&file, &writer, &mut offset, 100).unwrap(), 3);
        assert_eq!(send_file(&file, &writer, &mut offset, 100).unwrap(), 0);
        assert_eq!(offset, 10);
        drop(writer);
        let mut received = String::new();
        reader.read_to_string(&mut received).unwrap();
        assert_eq!(received, "3456789");
        // The file's own position is not used.
        assert_eq!(file.stream_position().unwrap(), 0);
        let mut beyond = u64::MAX;
        assert!(send_file(&file, &reader, &mut beyond, 1).is_err());
    }

    #[test]
    fn files_on_tmpfs_are_resident() {
        let Ok(mut file) = tempfile::tempfile_in("/dev/shm") else {
            return; // No tmpfs here.
        };
        file.write_all(b"x").unwrap();
        assert_eq!(residency(&file, 0, 1), Residency::Diskless);
    }

    #[test]
    fn pages_just_written_are_resident_where_the_file_system_can_tell() {
        let mut file = tempfile::tempfile().unwrap();
        file.write_all(&[1; 100_000]).unwrap();
        // On a file system without RWF_NOWAIT the answer is another one, but always the same.
        let expected = residency(&file, 0, 1);
        assert_eq!(residency(&file, 0, 100_000), expected);
        // Beyond the end nothing is missing; nothing is nothing.
        assert_eq!(residency(&file, 0, 1 << 40), expected);
        assert_eq!(residency(&file, 5, 0), Residency::Resident);
        assert_eq!(residency(&file, u64::MAX, 10), Residency::Resident);
        if nix::sys::statfs::fstatfs(&file).unwrap().filesystem_type()
            == nix::sys::statfs::EXT4_SUPER_MAGIC
        {
            assert_eq!(expected, Residency::Resident);
        }
    }
}
