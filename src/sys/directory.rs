//! Reading a directory: names by `getdents64(2)` in large pieces, and what a listing asks of each.
//!
//! Why not `readdir(3)`: it holds a `DIR` with an allocation of its own and hands out one entry a
//! call; here names stay where the kernel wrote them, NUL-terminated, ready for `statx(2)`, so
//! that an entry costs neither an allocation nor a copy.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};

/// Reads the names of a directory, in the order in which the file system keeps them.
#[derive(Debug)]
pub struct DirectoryReader {
    directory: OwnedFd,
    /// Space for one `getdents64`; `used` bytes of it hold records, the first `taken` are done.
    buffer: Box<[u8]>,
    used: usize,
    taken: usize,
}

impl DirectoryReader {
    /// Reads `directory`, which must be open for reading (`O_PATH` does not do).
    pub fn new(directory: OwnedFd) -> Self {
        let buffer = vec![0; READ_BYTES].into_boxed_slice();
        Self {
            directory,
            buffer,
            used: 0,
            taken: 0,
        }
    }

    /// Goes on with another directory, in the same buffer.
    pub fn restart(&mut self, directory: OwnedFd) {
        self.directory = directory;
        self.used = 0;
        self.taken = 0;
    }

    /// The directory that is read.
    pub fn directory(&self) -> &OwnedFd {
        &self.directory
    }

    /// The next entry, `.` and `..` among them; `None` at the end, or when the directory itself
    /// has been removed meanwhile (`ENOENT`, getdents64(2)).
    ///
    /// # Errors
    /// What the file system said, for instance `EIO`.
    #[allow(unsafe_code)]
    pub fn next_entry(&mut self) -> io::Result<Option<DirectoryEntry<'_>>> {
        if self.taken == self.used && !self.read()? {
            return Ok(None);
        }
        let record = &self.buffer[self.taken..self.used];
        let malformed = || io::Error::from(io::ErrorKind::InvalidData);
        let header = record.first_chunk::<NAME_OFFSET>().ok_or_else(malformed)?;
        let length = usize::from(u16::from_ne_bytes([header[16], header[17]]));
        let name = record.get(NAME_OFFSET..length).ok_or_else(malformed)?;
        let end = memchr::memchr(0, name).ok_or_else(malformed)?;
        // SAFETY: the first NUL is the last byte. (`from_bytes_until_nul` looks at one byte after the
        // other: 2 % of a list of 100 000 names.)
        let name = unsafe { CStr::from_bytes_with_nul_unchecked(&name[..=end]) };
        self.taken += length;
        let kind = EntryKind::from_d_type(header[18]);
        Ok(Some(DirectoryEntry {
            directory: self.directory.as_fd(),
            name,
            kind,
        }))
    }

    /// Fills the buffer; false at the end of the directory.
    #[allow(unsafe_code)]
    fn read(&mut self) -> io::Result<bool> {
        // SAFETY: the kernel writes at most `buffer.len()` bytes to the buffer, which is borrowed
        // mutably until the call has returned; the descriptor is open as long as `self` lives.
        let read = unsafe {
            libc::syscall(
                libc::SYS_getdents64,
                self.directory.as_raw_fd(),
                self.buffer.as_mut_ptr(),
                self.buffer.len(),
            )
        };
        match usize::try_from(read) {
            Ok(read) => {
                self.taken = 0;
                self.used = read;
                Ok(read > 0)
            }
            Err(_) => match io::Error::last_os_error() {
                error if error.raw_os_error() == Some(libc::ENOENT) => Ok(false),
                error => Err(error),
            },
        }
    }
}

/// One name of a directory.
#[derive(Clone, Copy, Debug)]
pub struct DirectoryEntry<'a> {
    /// The directory.
    pub directory: BorrowedFd<'a>,
    /// The name.
    pub name: &'a CStr,
    /// What it names, as far as the file system tells without a look at the file itself.
    pub kind: EntryKind,
}

/// What a name of a directory names (`d_type` of getdents64(2)).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EntryKind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A device, a FIFO or a socket.
    Other,
    /// The file system does not tell: `statx(2)` will.
    Unknown,
}

impl EntryKind {
    fn from_d_type(d_type: u8) -> Self {
        match d_type {
            libc::DT_REG => Self::File,
            libc::DT_DIR => Self::Directory,
            libc::DT_LNK => Self::Symlink,
            libc::DT_UNKNOWN => Self::Unknown,
            _ => Self::Other,
        }
    }
}

/// Writes where the symbolic link `name` leads over what `target` holds.
///
/// # Errors
/// `EINVAL` when it is no symbolic link, `ENOENT` when it is gone.
#[allow(unsafe_code)]
pub fn read_link(directory: BorrowedFd<'_>, name: &CStr, target: &mut Vec<u8>) -> io::Result<()> {
    target.resize(LINK_BYTES_MAX, 0);
    // SAFETY: `name` is NUL-terminated, and the kernel writes at most `target.len()` bytes to
    // `target`, which is borrowed mutably until the call has returned.
    let length = unsafe {
        libc::readlinkat(
            directory.as_raw_fd(),
            name.as_ptr(),
            target.as_mut_ptr().cast(),
            target.len(),
        )
    };
    match usize::try_from(length) {
        Ok(length) => {
            target.truncate(length);
            Ok(())
        }
        Err(_) => {
            target.clear();
            Err(io::Error::last_os_error())
        }
    }
}

/// What one `getdents64` may return: about 2000 names of common length.
const READ_BYTES: usize = 64 * 1024;

/// Where `d_name` begins in `struct linux_dirent64` (getdents64(2)): after `d_ino` and `d_off` of
/// 8 bytes each, `d_reclen` of 2 and `d_type` of 1.
const NAME_OFFSET: usize = 19;

/// The longest target of a link that Linux stores (`PATH_MAX`, symlink(2)).
const LINK_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod tests {
    use super::*;
    use std::collections::BTreeMap;
    use std::fs::{self, File};

    #[test]
    fn a_directory_of_many_reads_is_read_whole() {
        let folder = tempfile::tempdir().unwrap();
        for number in 0..3000 {
            File::create(folder.path().join(format!("{number:0>40}"))).unwrap();
        }
        fs::create_dir(folder.path().join("directory")).unwrap();
        std::os::unix::fs::symlink("nowhere", folder.path().join("link")).unwrap();
        let mut reader = DirectoryReader::new(File::open(folder.path()).unwrap().into());
        let mut seen = BTreeMap::new();
        while let Some(entry) = reader.next_entry().unwrap() {
            let name = entry.name.to_str().unwrap().to_owned();
            assert!(seen.insert(name, entry.kind).is_none(), "a name came twice");
        }
        assert_eq!(seen.len(), 3000 + 4);
        assert_eq!(seen["directory"], EntryKind::Directory);
        assert_eq!(seen["link"], EntryKind::Symlink);
        assert_eq!(seen["."], EntryKind::Directory);
        assert_eq!(seen[&format!("{:0>40}", 7)], EntryKind::File);
        reader.restart(File::open(folder.path()).unwrap().into());
        assert!(reader.next_entry().unwrap().is_some());
    }

    #[test]
    fn a_directory_that_is_removed_while_it_is_read_ends() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("gone");
        fs::create_dir(&path).unwrap();
        let mut reader = DirectoryReader::new(File::open(&path).unwrap().into());
        fs::remove_dir(&path).unwrap();
        assert!(reader.next_entry().unwrap().is_none());
    }

    #[test]
    fn a_file_is_no_directory() {
        let file = tempfile::tempfile().unwrap();
        let error = DirectoryReader::new(file.into()).next_entry().unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::ENOTDIR));
    }

    #[test]
    fn links_are_read_to_their_end() {
        let folder = tempfile::tempdir().unwrap();
        let long = "x".repeat(4000);
        std::os::unix::fs::symlink(&long, folder.path().join("link")).unwrap();
        let directory = File::open(folder.path()).unwrap();
        let mut target = Vec::new();
        read_link(directory.as_fd(), c"link", &mut target).unwrap();
        assert_eq!(target, long.as_bytes());
        let error = read_link(directory.as_fd(), c".", &mut target).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EINVAL));
        assert!(target.is_empty());
    }
}
