//! Names in directories: making, removing, renaming and linking them.
//!
//! Each acts on a parent directory that is open and on one name in it, so that no path is resolved
//! here (the caller resolved it with [`super::open()`]). The ring always gives these to a worker. A
//! dropped future leaves the change to its end.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::{opcode, squeue, types};

use super::Handle;
use super::operation::submit;
use crate::sys::file::descriptor_path;

/// Makes a directory; `mode` is subject to the umask.
///
/// # Errors
/// As mkdirat(2); EINVAL when the name holds a NUL.
pub async fn make_directory(parent: &Handle, name: &[u8], mode: u32) -> io::Result<()> {
    let name = CString::new(name)?;
    let entry = opcode::MkDirAt::new(raw(parent), name.as_ptr())
        .mode(mode)
        .build();
    let entry = parent.sign(entry);
    // SAFETY: the name is a heap block that `data` owns; `data` keeps the parent open.
    let (result, _) = unsafe { submit((parent.clone(), name), entry) }.await;
    result.map(drop)
}

/// Removes a name: a file or link, or with `AT_REMOVEDIR` an empty directory.
///
/// # Errors
/// As unlinkat(2); EINVAL when the name holds a NUL.
pub async fn unlink(parent: &Handle, name: &[u8], flags: i32) -> io::Result<()> {
    let name = CString::new(name)?;
    let entry = opcode::UnlinkAt::new(raw(parent), name.as_ptr())
        .flags(flags)
        .build();
    let entry = parent.sign(entry);
    // SAFETY: the name is a heap block that `data` owns; `data` keeps the parent open.
    let (result, _) = unsafe { submit((parent.clone(), name), entry) }.await;
    result.map(drop)
}

/// Renames; with `RENAME_NOREPLACE` only to a name that is free.
///
/// # Errors
/// As renameat2(2); EINVAL when a name holds a NUL.
pub async fn rename(
    from_parent: &Handle,
    from: &[u8],
    to_parent: &Handle,
    to: &[u8],
    flags: u32,
) -> io::Result<()> {
    let (from, to) = (CString::new(from)?, CString::new(to)?);
    let (names, entry) = Names::rename(from_parent, from, to_parent, to, flags);
    // SAFETY: as `Names` has it.
    let (result, _) = unsafe { submit(names, entry) }.await;
    result.map(drop)
}

/// Gives a file a further name, which must be free; `AT_SYMLINK_FOLLOW` links what `from` points
/// to.
///
/// # Errors
/// As linkat(2); EINVAL when a name holds a NUL.
pub async fn link(
    from_parent: &Handle,
    from: &[u8],
    to_parent: &Handle,
    to: &[u8],
    flags: i32,
) -> io::Result<()> {
    let from = CString::new(from)?;
    link_at(from_parent, from, to_parent, to, flags).await
}

/// Gives an open file a name, which must be free; for files opened with `O_TMPFILE`, which have
/// none (open(2)). Needs /proc.
///
/// # Errors
/// As linkat(2); EINVAL when the name holds a NUL.
pub async fn link_file(file: &Handle, to_parent: &Handle, to: &[u8]) -> io::Result<()> {
    let path = descriptor_path(file.fd().as_raw_fd());
    link_at(file, path, to_parent, to, libc::AT_SYMLINK_FOLLOW).await
}

async fn link_at(
    from_parent: &Handle,
    from: CString,
    to_parent: &Handle,
    to: &[u8],
    flags: i32,
) -> io::Result<()> {
    let to = CString::new(to)?;
    let (names, entry) = Names::link(from_parent, from, to_parent, to, flags);
    // SAFETY: as `Names` has it.
    let (result, _) = unsafe { submit(names, entry) }.await;
    result.map(drop)
}

/// What an entry that names two files points to: the names are heap blocks, which stay where they
/// are when this moves, and the directories are kept open.
pub(super) struct Names {
    _from: (Handle, CString),
    _to: (Handle, CString),
}

impl Names {
    pub(super) fn link(
        from_parent: &Handle,
        from: CString,
        to_parent: &Handle,
        to: CString,
        flags: i32,
    ) -> (Self, squeue::Entry) {
        let (from_raw, to_raw) = (raw(from_parent), raw(to_parent));
        let entry = opcode::LinkAt::new(from_raw, from.as_ptr(), to_raw, to.as_ptr())
            .flags(flags)
            .build();
        let entry = to_parent.sign(entry);
        (Self::new(from_parent, from, to_parent, to), entry)
    }

    pub(super) fn rename(
        from_parent: &Handle,
        from: CString,
        to_parent: &Handle,
        to: CString,
        flags: u32,
    ) -> (Self, squeue::Entry) {
        let (from_raw, to_raw) = (raw(from_parent), raw(to_parent));
        let entry = opcode::RenameAt::new(from_raw, from.as_ptr(), to_raw, to.as_ptr())
            .flags(flags)
            .build();
        let entry = to_parent.sign(entry);
        (Self::new(from_parent, from, to_parent, to), entry)
    }

    fn new(from_parent: &Handle, from: CString, to_parent: &Handle, to: CString) -> Self {
        Self {
            _from: (from_parent.clone(), from),
            _to: (to_parent.clone(), to),
        }
    }
}

fn raw(handle: &Handle) -> types::Fd {
    types::Fd(handle.fd().as_raw_fd())
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::on_ring;
    use super::super::{open, write_all_at};
    use super::*;
    use crate::sys::flag::{AT_REMOVEDIR, O_TMPFILE, O_WRONLY, RENAME_NOREPLACE};

    fn directory_of(path: &std::path::Path) -> Handle {
        Handle::from(std::os::fd::OwnedFd::from(fs::File::open(path).unwrap()))
    }

    #[test]
    fn names_are_made_renamed_linked_and_removed() {
        on_ring(|| async {
            let tree = tempfile::tempdir().unwrap();
            let path = |name: &str| tree.path().join(name);
            let root = directory_of(tree.path());
            make_directory(&root, b"directory", 0o700).await.unwrap();
            let error = make_directory(&root, b"directory", 0o700)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            fs::write(path("one"), "1").unwrap();
            fs::write(path("two"), "2").unwrap();
            let error = rename(&root, b"one", &root, b"two", RENAME_NOREPLACE)
                .await
                .unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            rename(&root, b"one", &root, b"two", 0).await.unwrap();
            assert_eq!(fs::read(path("two")).unwrap(), b"1");
            let directory = directory_of(&path("directory"));
            rename(&root, b"two", &directory, b"inside \xff", 0)
                .await
                .unwrap();
            link(&directory, b"inside \xff", &root, b"linked", 0)
                .await
                .unwrap();
            assert_eq!(fs::read(path("linked")).unwrap(), b"1");
            let error = unlink(&root, b"directory", AT_REMOVEDIR).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::DirectoryNotEmpty);
            unlink(&directory, b"inside \xff", 0).await.unwrap();
            unlink(&root, b"directory", AT_REMOVEDIR).await.unwrap();
            unlink(&root, b"linked", 0).await.unwrap();
            assert_eq!(fs::read_dir(tree.path()).unwrap().count(), 0);
            let error = unlink(&root, b"linked", 0).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::NotFound);
            let error = unlink(&root, b"a\0b", 0).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::InvalidInput);
        });
    }

    #[test]
    fn an_unnamed_file_gets_its_name_when_it_is_whole() {
        on_ring(|| async {
            let tree = tempfile::tempdir().unwrap();
            let root = directory_of(tree.path());
            let file = match open(&root, b".", O_WRONLY | O_TMPFILE, 0o600, 0).await {
                Ok(file) => Handle::from(file),
                // The file system of the temporary directory has none.
                Err(error) if error.raw_os_error() == Some(libc::EOPNOTSUPP) => return,
                Err(error) => panic!("{error}"),
            };
            write_all_at(&file, b"whole".to_vec(), 0).await.0.unwrap();
            assert_eq!(fs::read_dir(tree.path()).unwrap().count(), 0);
            link_file(&file, &root, b"named").await.unwrap();
            assert_eq!(fs::read(tree.path().join("named")).unwrap(), b"whole");
            let error = link_file(&file, &root, b"named").await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
        });
    }
}
