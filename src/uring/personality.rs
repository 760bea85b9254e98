//! Whose rights an operation has: credentials registered with the ring (io_uring_register(2),
//! IORING_REGISTER_PERSONALITY), which an entry names.
//!
//! The thread that submits never changes its own: the kernel takes those of the entry for this one
//! operation, inline as well as on a worker of the ring. They are registered by a thread that
//! [acts](crate::sys::acting) as the account for that moment, which is why such a ring takes
//! registrations from other threads ([`super::RingOptions::personalities`]).

use std::cell::RefCell;
use std::collections::HashMap;
use std::io;
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, OwnedFd};
use std::rc::{Rc, Weak};
use std::sync::Arc;

use io_uring::squeue::Entry;

use super::{Fd, runtime};
use crate::sys::acting;
use crate::sys::ids::Ids;
use crate::sys::worker::Workers;

/// An account of this host, as the ring of this core knows it. Clones share it; the ring forgets it
/// with the last one, and an operation that names it keeps one.
#[derive(Clone, Debug)]
pub struct Personality(Rc<Registered>);

#[derive(Debug)]
struct Registered {
    ids: Arc<Ids>,
    id: u16,
}

thread_local! {
    /// Those of this core's ring, each once.
    static REGISTERED: RefCell<HashMap<Arc<Ids>, Weak<Registered>>> = RefCell::default();
}

impl Personality {
    /// The account in this core's ring; one that is not there yet is registered by a worker.
    ///
    /// # Errors
    /// EPERM when the process may not act as others; when all workers are busy, or
    /// 16 384 accounts are at work here.
    pub async fn of(ids: &Arc<Ids>, workers: &Workers) -> io::Result<Self> {
        if let Some(known) = known(ids) {
            return Ok(known);
        }
        if REGISTERED.with_borrow(HashMap::len) >= PERSONALITIES_MAX {
            return Err(io::Error::other(format!(
                "{PERSONALITIES_MAX} accounts of this host are at work on this core already"
            )));
        }
        let ring = runtime::ring()
            .ok_or_else(|| io::Error::other("the descriptor of the core's ring is not known"))?;
        let job = {
            let (ids, ring) = (Arc::clone(ids), ring.try_clone_to_owned()?);
            move || Kept::register(&ids, ring)
        };
        let kept = workers.run(job).await.map_err(io::Error::other)??;
        // Another session of the same user may have been faster.
        if let Some(known) = known(ids) {
            return Ok(known);
        }
        let registered = Rc::new(Registered {
            ids: Arc::clone(ids),
            id: kept.into_id(),
        });
        REGISTERED.with_borrow_mut(|all| all.insert(Arc::clone(ids), Rc::downgrade(&registered)));
        Ok(Self(registered))
    }

    /// Which account it is.
    pub fn ids(&self) -> &Arc<Ids> {
        &self.0.ids
    }
}

fn known(ids: &Arc<Ids>) -> Option<Personality> {
    REGISTERED.with_borrow(|all| all.get(ids)?.upgrade().map(Personality))
}

impl Drop for Registered {
    fn drop(&mut self) {
        // At the end of the thread both are gone already.
        let _ = REGISTERED.try_with(|all| all.borrow_mut().remove(&self.ids));
        // A ring that ends forgets all.
        if let Some(ring) = runtime::ring() {
            unregister(ring, self.id);
        }
    }
}

/// What a worker has registered, until the core takes it; if that has gone, it is given up.
struct Kept {
    ring: OwnedFd,
    id: Option<u16>,
}

impl Kept {
    fn register(ids: &Ids, ring: OwnedFd) -> io::Result<Self> {
        let id = acting::within(Some(ids), || register(&ring))??;
        Ok(Self { ring, id: Some(id) })
    }

    fn into_id(mut self) -> u16 {
        // Invariant: only this takes it.
        self.id.take().expect("taken once")
    }
}

impl Drop for Kept {
    fn drop(&mut self) {
        if let Some(id) = self.id {
            unregister(self.ring.as_fd(), id);
        }
    }
}

/// A descriptor, and whose rights operations by it have: the server's own, or a user's.
///
/// A directory, with the paths and names that begin there, or a file, with what is written to it.
#[derive(Clone, Debug)]
pub struct Handle {
    fd: Fd,
    personality: Option<Personality>,
}

impl Handle {
    /// A descriptor for whom it was opened for; `None`: for the server itself.
    pub fn new(fd: OwnedFd, personality: Option<Personality>) -> Self {
        let fd = Rc::new(fd);
        Self { fd, personality }
    }

    /// Another descriptor for the same account.
    pub fn with(&self, fd: OwnedFd) -> Self {
        Self::new(fd, self.personality.clone())
    }

    /// Whose it is; `None`: the server's.
    pub fn personality(&self) -> Option<&Personality> {
        self.personality.as_ref()
    }

    /// The descriptor.
    pub fn fd(&self) -> &Fd {
        &self.fd
    }

    /// The descriptor alone.
    pub fn into_fd(self) -> Fd {
        self.fd
    }

    /// Whose rights operations have; `None`: the server's.
    pub fn ids(&self) -> Option<&Arc<Ids>> {
        self.personality.as_ref().map(Personality::ids)
    }

    /// Whether both are the same descriptor.
    pub fn is(&self, other: &Self) -> bool {
        Rc::ptr_eq(&self.fd, &other.fd)
    }

    pub(super) fn is_personal(&self) -> bool {
        self.personality.is_some()
    }

    /// An entry that the kernel judges as this.
    pub(super) fn sign(&self, entry: Entry) -> Entry {
        match &self.personality {
            Some(personality) => entry.personality(personality.0.id),
            None => entry,
        }
    }
}

impl AsFd for Handle {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.fd.as_fd()
    }
}

impl From<OwnedFd> for Handle {
    /// For the server itself.
    fn from(fd: OwnedFd) -> Self {
        Self::new(fd, None)
    }
}

/// Has a ring keep the credentials of the calling thread; the number by which entries name them.
fn register(ring: &OwnedFd) -> io::Result<u16> {
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: Linux 5.6: IORING_REGISTER_PERSONALITY takes no memory.
    let id = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            REGISTER_PERSONALITY,
            none,
            0,
        )
    };
    u16::try_from(id).map_err(|_| io::Error::last_os_error())
}

/// Has a ring forget them.
fn unregister(ring: BorrowedFd<'_>, id: u16) {
    let none = std::ptr::null::<libc::c_void>();
    // SAFETY: Linux 5.6: IORING_UNREGISTER_PERSONALITY takes no memory.
    let result = unsafe {
        libc::syscall(
            libc::SYS_io_uring_register,
            ring.as_raw_fd(),
            UNREGISTER_PERSONALITY,
            none,
            libc::c_uint::from(id),
        )
    };
    debug_assert_eq!(result, 0, "a personality was not registered");
}

/// Accounts at work on one core. The kernel has numbers for 65 535, at some 200 bytes each.
const PERSONALITIES_MAX: usize = 16_384;

/// `IORING_REGISTER_PERSONALITY` and `IORING_UNREGISTER_PERSONALITY` of linux/io_uring.h.
const REGISTER_PERSONALITY: libc::c_uint = 9;
const UNREGISTER_PERSONALITY: libc::c_uint = 10;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::future::poll_fn;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::path::Path;
    use std::task::Poll;

    use super::super::tests::{alone, expect_pending};
    use super::super::{
        Naming, RingOptions, link, link_file, make_directory, open, pause, rename, start, unlink,
        write_all_at, write_and_name,
    };
    use super::*;
    use crate::sys::flag::{
        AT_REMOVEDIR, O_CREAT, O_DIRECTORY, O_EXCL, O_NONBLOCK, O_PATH, O_RDONLY, O_TMPFILE,
        O_WRONLY,
    };

    fn ids(uid: u32) -> Arc<Ids> {
        Arc::new(Ids {
            uid,
            gid: uid + 1,
            groups: [uid + 2].into(),
        })
    }

    /// A ring that takes personalities, in a directory in which everybody may write.
    fn on_personal_ring<F: Future<Output = ()>>(
        test: impl FnOnce(tempfile::TempDir, Workers) -> F + Send + 'static,
    ) {
        if !acting::is_allowed() {
            // Without the right there is nothing to see; the tests as root show it.
            return;
        }
        alone(|| {
            let tree = tempfile::tempdir().unwrap();
            let mode = fs::Permissions::from_mode(0o777);
            fs::set_permissions(tree.path(), mode).unwrap();
            let workers = Workers::start("acting-test", 1, 64).unwrap();
            let options = RingOptions {
                personalities: true,
                ..RingOptions::default()
            };
            start(&options, || async {
                let test = test(tree, workers);
                let limit = std::time::Duration::from_secs(60);
                tokio::time::timeout(limit, test).await.expect("a hang");
            })
            .unwrap();
        });
    }

    async fn handle(path: &Path, uid: u32, workers: &Workers) -> Handle {
        let file = fs::File::open(path).unwrap().into();
        Handle::new(
            file,
            Some(Personality::of(&ids(uid), workers).await.unwrap()),
        )
    }

    fn owner(path: &Path) -> (u32, u32) {
        let status = fs::metadata(path).unwrap();
        (status.uid(), status.gid())
    }

    async fn own(handle: &Handle, name: &[u8], flags: i32) -> Handle {
        handle.with(open(handle, name, flags, 0o600, 0).await.unwrap())
    }

    #[test]
    fn what_is_made_is_the_accounts_and_what_it_may_not_is_refused() {
        on_personal_ring(|tree, workers| async move {
            let path = |name: &str| tree.path().join(name);
            let user = handle(tree.path(), 61_000, &workers).await;
            own(&user, b"file", O_WRONLY | O_CREAT | O_EXCL).await;
            let unnamed = own(&user, b".", O_WRONLY | O_TMPFILE).await;
            write_all_at(&unnamed, b"x".to_vec(), 0).await.0.unwrap();
            link_file(&unnamed, &user, b"named").await.unwrap();
            let chained = own(&user, b".", O_WRONLY | O_TMPFILE).await;
            let naming = Naming {
                parent: &user,
                name: b"chained",
                through: Some(b"hidden"),
            };
            let (done, _) = write_and_name(&chained, b"x".to_vec(), 0, naming).await;
            done.unwrap();
            make_directory(&user, b"directory", 0o700).await.unwrap();
            for name in ["file", "named", "chained", "directory"] {
                assert_eq!(owner(&path(name)), (61_000, 61_001), "{name}");
            }

            let other = handle(tree.path(), 62_000, &workers).await;
            let mode = fs::Permissions::from_mode(0o1777);
            fs::set_permissions(tree.path(), mode).unwrap();
            let inside = Handle::new(
                fs::File::open(path("directory")).unwrap().into(),
                other.personality().cloned(),
            );
            let flags = [O_RDONLY, O_RDONLY | O_NONBLOCK, O_WRONLY];
            for (directory, name, flags) in [
                (&other, &b"file"[..], flags[0]),
                (&other, b"file", flags[1]),
                (&other, b"file", flags[2]),
                (&other, b"directory", O_RDONLY | O_DIRECTORY),
                (&other, b"directory/.", O_PATH),
                (&inside, b".", O_WRONLY | O_TMPFILE),
                (&inside, b"x", O_WRONLY | O_CREAT),
            ] {
                let error = open(directory, name, flags, 0o600, 0).await.unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::PermissionDenied, "{name:?}");
            }
            let refusals = [
                make_directory(&inside, b"x", 0o700).await,
                unlink(&other, b"file", 0).await,
                unlink(&other, b"directory", AT_REMOVEDIR).await,
                rename(&other, b"file", &other, b"x", 0).await,
                rename(&other, b"file", &inside, b"x", 0).await,
                link(&other, b"file", &inside, b"x", 0).await,
                link_file(
                    &other.with(unnamed.fd().try_clone().unwrap()),
                    &inside,
                    b"x",
                )
                .await,
            ];
            for (index, refused) in refusals.into_iter().enumerate() {
                let kind = refused.unwrap_err().kind();
                assert_eq!(kind, io::ErrorKind::PermissionDenied, "refusal {index}");
            }
            // The server may, on the same ring at the same time.
            let server = Handle::from(OwnedFd::from(fs::File::open(tree.path()).unwrap()));
            own(&server, b"file", O_RDONLY).await;
            own(&server, b"server's", O_WRONLY | O_CREAT).await;
            assert_eq!(owner(&path("server's")).0, 0);
        });
    }

    #[test]
    fn a_group_opens_what_it_may() {
        on_personal_ring(|tree, workers| async move {
            let file = tree.path().join("file");
            fs::write(&file, "x").unwrap();
            std::os::unix::fs::chown(&file, Some(0), Some(61_002)).unwrap();
            fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
            let member = handle(tree.path(), 61_000, &workers).await;
            own(&member, b"file", O_RDONLY).await;
            let stranger = handle(tree.path(), 61_003, &workers).await;
            let error = open(&stranger, b"file", O_RDONLY, 0, 0).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::PermissionDenied);
        });
    }

    #[test]
    fn an_account_is_registered_once_and_until_its_last_operation() {
        on_personal_ring(|tree, workers| async move {
            let count = || REGISTERED.with_borrow(HashMap::len);
            let of = |uid| {
                let workers = workers.clone();
                async move { Personality::of(&ids(uid), &workers).await.unwrap() }
            };
            let (one, same, other) = tokio::join!(of(61_000), of(61_000), of(62_000));
            assert_eq!(one.0.id, same.0.id);
            assert_ne!(one.0.id, other.0.id);
            assert_eq!(count(), 2);
            drop((one, other));
            assert_eq!(count(), 1);
            let directory = fs::File::open(tree.path()).unwrap().into();
            let user = Handle::new(directory, Some(same));
            let flags = O_WRONLY | O_CREAT;
            let mut dropped = Box::pin(open(&user, b"file", flags, 0o600, 0));
            expect_pending(&mut dropped);
            drop(dropped);
            drop(user);
            assert_eq!(count(), 1, "the entry was not yet submitted");
            while count() > 0 {
                pause().await;
            }
            assert_eq!(owner(&tree.path().join("file")), (61_000, 61_001));
            // As often as anybody logs in: the numbers of the kernel come round.
            for round in 0..70_000 {
                let registered = Kept::register(
                    &ids(61_000),
                    runtime::ring().unwrap().try_clone_to_owned().unwrap(),
                );
                let id = registered.unwrap().id.unwrap();
                assert!(id > 0, "round {round}");
                if round > 300 && id < 300 {
                    return;
                }
            }
            panic!("the numbers did not come round");
        });
    }

    #[test]
    fn whoever_does_not_wait_leaves_nothing_registered() {
        on_personal_ring(|_, workers| async move {
            for uid in 61_000..61_050 {
                let ids = ids(uid);
                let mut of = Box::pin(async {
                    let personality = Personality::of(&ids, &workers).await;
                    personality.map(drop)
                });
                // Most of these are dropped before the worker has begun, or while it registers.
                poll_fn(|context| Poll::Ready(of.as_mut().poll(context).is_ready())).await;
            }
            // The workers have done all that was begun before.
            let last = Personality::of(&ids(62_000), &workers).await.unwrap();
            assert_eq!(REGISTERED.with_borrow(HashMap::len), 1);
            drop(last);
            workers.run(|| ()).await.unwrap();
            // Numbers that are in use cannot be had again: none is.
            let ring = runtime::ring().unwrap();
            for id in 1..=200 {
                let none = std::ptr::null::<libc::c_void>();
                // SAFETY: takes no memory.
                let result = unsafe {
                    libc::syscall(
                        libc::SYS_io_uring_register,
                        ring.as_raw_fd(),
                        UNREGISTER_PERSONALITY,
                        none,
                        id,
                    )
                };
                assert_eq!(result, -1, "{id} is still registered");
            }
        });
    }

    #[test]
    fn a_ring_that_takes_none_says_so() {
        if !acting::is_allowed() {
            return;
        }
        alone(|| {
            let workers = Workers::start("acting-test", 1, 4).unwrap();
            start(&RingOptions::default(), || async {
                let error = Personality::of(&ids(61_000), &workers).await.unwrap_err();
                assert_eq!(error.raw_os_error(), Some(libc::EEXIST), "{error}");
            })
            .unwrap();
        });
    }
}
