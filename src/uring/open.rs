//! Opening a path below a directory: openat2(2), inline when that cannot wait for a disk.

use std::ffi::CString;
use std::io;
use std::os::fd::{AsRawFd, FromRawFd, OwnedFd};

use io_uring::{opcode, types};
use tokio::sync::oneshot;

use super::operation::{Operation, submit};
use super::{Handle, spawn};
use crate::sys::file::{OpenHow, open_cstr};

/// Opens `path`, relative to `directory`, with the flags of [`crate::sys::flag`]; `O_CLOEXEC` is
/// added, `mode` counts only when a file can be created.
///
/// Dropping the future leaves nothing open, though a file that was to be created may exist. Name
/// `O_NONBLOCK` unless the path can be no FIFO: a worker of the ring would wait there for a writer.
///
/// # Errors
/// EINVAL when the path holds a NUL; ELOOP, EXDEV and EAGAIN as openat2(2) explains them for
/// `resolve` (EAGAIN only after 32 attempts that each met a rename); otherwise as open(2).
pub async fn open(
    directory: &Handle,
    path: &[u8],
    flags: i32,
    mode: u32,
    resolve: u64,
) -> io::Result<OwnedFd> {
    let path = CString::new(path)?;
    // What the thread itself opens, it opens with its own rights.
    if never_waits(flags) && !directory.is_personal() {
        // Linux 5.12: RESOLVE_CACHED fails with EAGAIN unless every component is in the cache of
        // names. The ring would try the same first, but costs a task and a trip.
        match open_cstr(
            directory,
            &path,
            flags,
            mode,
            resolve | libc::RESOLVE_CACHED,
        ) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
            result => return result,
        }
    }
    let mut path = path;
    let mut attempt = 1;
    loop {
        let operation = open_in_ring(directory, path, flags, mode, resolve);
        let (sender, receiver) = oneshot::channel();
        // The task sees the completion in any case: tokio-uring 0.5 would throw away that of a
        // dropped operation, with the descriptor in it.
        spawn(async move {
            let (result, lent) = operation.await;
            let opened = result.map(|raw| {
                // SAFETY: a result of OPENAT2 that is not negative is a new descriptor (they are
                // below 2³¹), which nobody else owns.
                unsafe { OwnedFd::from_raw_fd(raw.cast_signed()) }
            });
            // When the receiver is gone the descriptor comes back here and is closed.
            let _ = sender.send((opened, lent.path));
        });
        let Ok((opened, returned)) = receiver.await else {
            // The task ends without an answer only with the whole runtime.
            return Err(io::Error::from_raw_os_error(libc::ECANCELED));
        };
        path = returned;
        match opened {
            // openat2(2): under a confining `resolve`, EAGAIN means that a rename or a mount raced
            // with `..`, and that the caller may try again.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock && attempt < ATTEMPTS_MAX => {
                attempt += 1;
            }
            result => return result,
        }
    }
}

struct LentPath {
    path: CString,
    _how: Box<types::OpenHow>,
    _directory: Handle,
}

fn open_in_ring(
    directory: &Handle,
    path: CString,
    flags: i32,
    mode: u32,
    resolve: u64,
) -> Operation<LentPath> {
    let (flags, mode, resolve) = OpenHow::new(flags, mode, resolve).as_parts();
    let how = Box::new(
        types::OpenHow::new()
            .flags(flags)
            .mode(mode)
            .resolve(resolve),
    );
    let directory_raw = types::Fd(directory.fd().as_raw_fd());
    let entry = opcode::OpenAt2::new(directory_raw, path.as_ptr(), &raw const *how).build();
    let entry = directory.sign(entry);
    let lent = LentPath {
        path,
        _how: how,
        _directory: directory.clone(),
    };
    // SAFETY: path and `how` are heap blocks that `data` owns and that stay where they are when it
    // moves; it keeps the directory open.
    unsafe { submit(lent, entry) }
}

/// Whether an open can be tried inline. It must change nothing on a disk, and must not wait for the
/// other side of a FIFO (open(2): O_NONBLOCK; O_PATH and O_DIRECTORY open none). The ring would do
/// the same.
fn never_waits(flags: i32) -> bool {
    let changes = libc::O_CREAT | libc::O_TRUNC | (libc::O_TMPFILE & !libc::O_DIRECTORY);
    let no_fifo = flags & (libc::O_PATH | libc::O_DIRECTORY | libc::O_NONBLOCK) != 0;
    flags & changes == 0 && no_fifo
}

/// Attempts at a path while renames race with its resolution. A client that can rename without
/// pause could otherwise hold an open for ever.
const ATTEMPTS_MAX: u32 = 32;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, symlink};
    use std::path::Path;
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};

    use super::super::pause;
    use super::super::tests::{descriptors, expect_descriptors, expect_pending, on_ring};
    use super::*;
    use crate::sys::file;
    use crate::sys::flag::{
        O_CREAT, O_DIRECTORY, O_EXCL, O_NONBLOCK, O_PATH, O_RDONLY, O_TMPFILE, O_WRONLY,
        RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS,
    };

    const CONFINED: u64 = RESOLVE_IN_ROOT | RESOLVE_NO_MAGICLINKS;

    fn directory(path: &Path) -> Handle {
        Handle::from(OwnedFd::from(fs::File::open(path).unwrap()))
    }

    #[test]
    fn fifty_dropped_opens_leak_no_descriptor() {
        on_ring(|| async {
            let tree = tempfile::tempdir().unwrap();
            let root = directory(tree.path());
            let before = descriptors();
            for number in 0..50 {
                let name = format!("file-{number}");
                let mut dropped = Box::pin(open(
                    &root,
                    name.as_bytes(),
                    O_WRONLY | O_CREAT,
                    0o600,
                    CONFINED,
                ));
                expect_pending(&mut dropped);
                if number % 7 == 0 {
                    pause().await;
                }
            }
            // All of them were carried out, so there were fifty descriptors to close.
            while fs::read_dir(tree.path()).unwrap().count() < 50 {
                pause().await;
            }
            expect_descriptors(before).await;
            // Not merely before the first completion came: the task of each has run by now.
            for _ in 0..50 {
                pause().await;
            }
            assert_eq!(descriptors(), before);
        });
    }

    #[test]
    fn cached_paths_open_without_the_ring() {
        on_ring(|| async {
            let tree = tempfile::tempdir().unwrap();
            fs::write(tree.path().join("file"), "content").unwrap();
            let root = directory(tree.path());
            // A future that is ready at its first poll has not been through the ring.
            let mut cached = Box::pin(open(&root, b"file", O_RDONLY | O_NONBLOCK, 0, CONFINED));
            let polled = std::future::poll_fn(|context| {
                std::task::Poll::Ready(cached.as_mut().poll(context))
            })
            .await;
            let std::task::Poll::Ready(Ok(file)) = polled else {
                panic!("not inline")
            };
            assert_eq!(file::status(&file).unwrap().size, 7);
        });
    }

    #[test]
    fn flags_and_modes_arrive_as_given() {
        on_ring(|| async {
            let tree = tempfile::tempdir().unwrap();
            let root = directory(tree.path());
            let new = O_WRONLY | O_CREAT | O_EXCL;
            let file = open(&root, b"new", new, 0o4600, CONFINED).await.unwrap();
            assert_eq!(file::status(&file).unwrap().mode, 0o4600);
            let error = open(&root, b"new", new, 0o600, CONFINED).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::AlreadyExists);
            for (path, flags, expected) in [
                (&b"none"[..], O_RDONLY, libc::ENOENT),
                (b"none", O_PATH, libc::ENOENT),
                (b"new", O_PATH | O_DIRECTORY, libc::ENOTDIR),
                (b"new/x", O_PATH, libc::ENOTDIR),
                (b".", O_WRONLY, libc::EISDIR),
                (b"a\0b", O_PATH, libc::EINVAL),
                (&[b'n'; 256], O_PATH, libc::ENAMETOOLONG),
                (b"", O_PATH, libc::ENOENT),
            ] {
                let error = open(&root, path, flags, 0, CONFINED).await.unwrap_err();
                let code = error.raw_os_error().unwrap_or(libc::EINVAL);
                assert_eq!(code, expected, "{path:?}");
            }
            let unnamed = open(&root, b".", O_WRONLY | O_TMPFILE, 0o600, CONFINED).await;
            match unnamed {
                Ok(file) => assert_eq!(file::status(&file).unwrap().links, 0),
                Err(error) => assert_eq!(error.raw_os_error(), Some(libc::EOPNOTSUPP)),
            }
        });
    }

    /// `root/…` and beside it `outside/secret`.
    fn tree_with_a_secret() -> (tempfile::TempDir, Handle, u64) {
        let tree = tempfile::tempdir().unwrap();
        let (root, outside) = (tree.path().join("root"), tree.path().join("outside"));
        fs::create_dir_all(root.join("a/b")).unwrap();
        fs::create_dir(&outside).unwrap();
        fs::write(outside.join("secret"), "secret").unwrap();
        fs::write(root.join("a/file"), "inside").unwrap();
        symlink("../../../../../outside/secret", root.join("a/up")).unwrap();
        symlink(outside.join("secret"), root.join("a/absolute")).unwrap();
        symlink(&outside, root.join("directory")).unwrap();
        symlink("/proc/self/root", root.join("magic")).unwrap();
        symlink("/a/file", root.join("inside")).unwrap();
        let secret = fs::metadata(outside.join("secret")).unwrap().ino();
        let root = directory(&root);
        (tree, root, secret)
    }

    #[test]
    fn no_path_leaves_the_root() {
        on_ring(|| async {
            let (tree, root, secret) = tree_with_a_secret();
            let absolute = tree.path().join("outside/secret");
            for path in [
                &b"../outside/secret"[..],
                b"../../../../../../outside/secret",
                b"a/b/../../../outside/secret",
                b"a/up",
                b"a/absolute",
                b"directory/secret",
                b"magic/etc/passwd",
                absolute.as_os_str().as_encoded_bytes(),
            ] {
                for flags in [O_RDONLY, O_RDONLY | O_NONBLOCK, O_PATH] {
                    let error = open(&root, path, flags, 0, CONFINED).await.unwrap_err();
                    let known = [libc::ENOENT, libc::ELOOP, libc::EXDEV];
                    assert!(
                        known.contains(&error.raw_os_error().unwrap()),
                        "{path:?}: {error}"
                    );
                }
            }
            // ".." and "/" stop at the root; links inside lead on.
            for path in [
                &b"../a/file"[..],
                b"/a/file",
                b"inside",
                b"a/../a/b/../file",
            ] {
                let file = open(&root, path, O_RDONLY, 0, CONFINED).await.unwrap();
                let status = file::status(&file).unwrap();
                assert_eq!(status.size, 6);
                assert_ne!(status.inode, secret);
            }
        });
    }

    #[test]
    fn no_path_leaves_the_root_while_directories_are_renamed() {
        on_ring(|| async {
            let (tree, root, secret) = tree_with_a_secret();
            let stop = Arc::new(AtomicBool::new(false));
            let renamer = std::thread::spawn({
                let (stop, root) = (Arc::clone(&stop), tree.path().join("root"));
                move || {
                    // "a/b" moves up while ".." is being taken from inside it.
                    let mut renames = 0u64;
                    while !stop.load(Ordering::Relaxed) {
                        fs::rename(root.join("a/b"), root.join("b")).unwrap();
                        fs::rename(root.join("b"), root.join("a/b")).unwrap();
                        fs::rename(root.join("directory"), root.join("a/d")).unwrap();
                        fs::rename(root.join("a/d"), root.join("directory")).unwrap();
                        renames += 4;
                    }
                    renames
                }
            });
            let (mut opened, mut refused) = (0, 0);
            for round in 0..1000 {
                let path: &[u8] = match round % 4 {
                    0 => b"a/b/../../../outside/secret",
                    1 => b"a/b/../file",
                    2 => b"a/d/../outside/secret",
                    _ => b"b/../../outside/secret",
                };
                let flags = if round % 8 < 4 {
                    O_RDONLY
                } else {
                    O_RDONLY | O_NONBLOCK
                };
                match open(&root, path, flags, 0, CONFINED).await {
                    Ok(file) => {
                        opened += 1;
                        let status = file::status(&file).unwrap();
                        assert_ne!(status.inode, secret, "escaped by {path:?}");
                        assert_eq!(status.size, 6);
                    }
                    Err(error) => {
                        refused += 1;
                        let known = [
                            libc::ENOENT,
                            libc::ELOOP,
                            libc::EXDEV,
                            libc::EAGAIN,
                            libc::ENOTDIR,
                        ];
                        assert!(known.contains(&error.raw_os_error().unwrap()), "{error}");
                    }
                }
            }
            stop.store(true, Ordering::Relaxed);
            assert!(renamer.join().unwrap() > 0);
            assert_eq!(opened + refused, 1000);
        });
    }
}
