//! Acting as an account of this host, on one thread, for one job.
//!
//! What changes are the thread's file system IDs, its supplementary groups and its effective
//! capabilities, by raw system calls: the functions of libc change all threads of the process. The
//! real, effective and saved IDs stay the server's, so that the account can neither signal nor trace
//! the server meanwhile (kill(2), ptrace(2)).
//!
//! Never on a core: the ring does work of other sessions whenever its thread returns from a system
//! call, and new workers of the ring take the credentials that the thread has at that moment. A core
//! gives each entry a personality instead (`uring::personality`).

use std::cell::{Cell, OnceCell};
use std::io::{self, Write};
use std::rc::Rc;

use nix::unistd::{Gid, getgroups};

use super::capability::{self, Capabilities};
use super::check;
use super::ids::Ids;

/// Whether this process may act as other accounts: it is root, or was started with CAP_SETUID and
/// CAP_SETGID.
pub fn is_allowed() -> bool {
    Capabilities::of_thread().is_ok_and(|held| held.permitted & SWITCH == SWITCH)
}

/// Takes CAP_SETUID and CAP_SETGID, which a process that was started with them has in effect, back
/// into reserve, and hands no capability on to programs that it starts. To be called before the first
/// thread is started.
///
/// # Errors
/// As capset(2) and prctl(2).
pub fn hold_back() -> io::Result<()> {
    let (clear_all, none): (libc::c_ulong, libc::c_ulong) = (AMBIENT_CLEAR_ALL, 0);
    // SAFETY: PR_CAP_AMBIENT takes numbers only.
    check(unsafe { libc::prctl(libc::PR_CAP_AMBIENT, clear_all, none, none, none) })?;
    let held = Capabilities::of_thread()?;
    let lowered = Capabilities {
        effective: held.effective & !SWITCH,
        ..held
    };
    lowered.set()
}

/// Does a job as this account, or as the server itself. The kernel judges each path of the job, and
/// each change of a file's attributes, by the account's rights alone.
///
/// # Errors
/// EPERM when the process may not act as others: nothing was done then.
///
/// # Panics
/// Inside of such a job. When the thread cannot become the server's again, the process aborts: it
/// would serve one user with the rights of another.
pub fn within<T>(ids: Option<&Ids>, job: impl FnOnce() -> T) -> io::Result<T> {
    let Some(ids) = ids else {
        return Ok(job());
    };
    let acting = Acting::begin(ids)?;
    let done = job();
    drop(acting);
    Ok(done)
}

/// The same on a thread of its own, which is waited for: for the few moments in which a thread that
/// must not change has a job and cannot await.
///
/// # Errors
/// As [`within`]; EAGAIN when no thread can be started.
pub fn on_own_thread<T: Send + 'static>(
    ids: &std::sync::Arc<Ids>,
    job: impl FnOnce() -> T + Send + 'static,
) -> io::Result<T> {
    let ids = std::sync::Arc::clone(ids);
    let thread = std::thread::Builder::new()
        .name("acting".to_owned())
        .spawn(move || within(Some(&ids), job))?;
    thread
        .join()
        .unwrap_or_else(|panic| std::panic::resume_unwind(panic))
}

thread_local! {
    /// What this thread is when it acts as nobody else. It is asked for once: nothing but what is
    /// here changes it, once the server serves.
    static OWN: OnceCell<Rc<Own>> = const { OnceCell::new() };
    static IS_ACTING: Cell<bool> = const { Cell::new(false) };
}

/// A thread's own credentials.
#[derive(Debug)]
struct Own {
    uid: u32,
    gid: u32,
    groups: Vec<u32>,
    capabilities: Capabilities,
}

impl Own {
    fn of_thread() -> io::Result<Rc<Self>> {
        OWN.with(|own| {
            if let Some(own) = own.get() {
                return Ok(Rc::clone(own));
            }
            let capabilities = Capabilities::of_thread()?;
            if capabilities.permitted & SWITCH != SWITCH {
                return Err(io::Error::from_raw_os_error(libc::EPERM));
            }
            let groups = getgroups()?.into_iter().map(Gid::as_raw).collect();
            let found = Self {
                uid: file_uid(),
                gid: file_gid(),
                groups,
                capabilities,
            };
            Ok(Rc::clone(own.get_or_init(|| Rc::new(found))))
        })
    }

    /// With the right to change IDs in effect.
    fn raised(&self) -> Capabilities {
        Capabilities {
            effective: self.capabilities.effective | SWITCH,
            ..self.capabilities
        }
    }

    /// With nothing in effect.
    fn lowered(&self) -> Capabilities {
        Capabilities {
            effective: 0,
            ..self.capabilities
        }
    }

    fn restore(&self) -> io::Result<()> {
        let raised = self.raised();
        raised.set()?;
        set_file_uid(self.uid)?;
        set_file_gid(self.gid)?;
        set_groups(&self.groups)?;
        if raised != self.capabilities {
            self.capabilities.set()?;
        }
        Ok(())
    }
}

/// This thread acts as somebody else until this is dropped.
struct Acting(Rc<Own>);

impl Acting {
    fn begin(ids: &Ids) -> io::Result<Self> {
        assert!(!IS_ACTING.get(), "a thread acts as one account at a time");
        let own = Own::of_thread()?;
        IS_ACTING.set(true);
        // From here on whatever was changed is undone, also after an error.
        let acting = Self(own);
        let own = &acting.0;
        if own.raised() != own.capabilities {
            own.raised().set()?;
        }
        set_groups(&ids.groups)?;
        set_file_gid(ids.gid)?;
        set_file_uid(ids.uid)?;
        own.lowered().set()?;
        Ok(acting)
    }
}

impl Drop for Acting {
    fn drop(&mut self) {
        if let Err(error) = self.0.restore() {
            // The log would come too late.
            let _ = writeln!(
                io::stderr(),
                "ringftpd: a thread cannot become the server's again ({error}): aborting"
            );
            std::process::abort();
        }
        IS_ACTING.set(false);
    }
}

fn set_groups(groups: &[u32]) -> io::Result<()> {
    // SAFETY: setgroups(2) reads so many IDs of 32 bits from the slice.
    let result = unsafe { libc::syscall(libc::SYS_setgroups, groups.len(), groups.as_ptr()) };
    check(result as libc::c_int).map(drop)
}

/// setfsuid(2) tells of no failure: the ID is asked for again.
fn set_file_uid(uid: u32) -> io::Result<()> {
    // SAFETY: takes a number only. Other than most functions of libc it changes one thread.
    unsafe { libc::setfsuid(uid) };
    became(file_uid() == uid)
}

fn set_file_gid(gid: u32) -> io::Result<()> {
    // SAFETY: as above.
    unsafe { libc::setfsgid(gid) };
    became(file_gid() == gid)
}

/// setfsuid(2): an ID that is none changes nothing, and the current one is the answer.
fn file_uid() -> u32 {
    // SAFETY: takes a number only.
    unsafe { libc::setfsuid(u32::MAX) }.cast_unsigned()
}

fn file_gid() -> u32 {
    // SAFETY: takes a number only.
    unsafe { libc::setfsgid(u32::MAX) }.cast_unsigned()
}

fn became(done: bool) -> io::Result<()> {
    match done {
        true => Ok(()),
        false => Err(io::Error::from_raw_os_error(libc::EPERM)),
    }
}

/// `PR_CAP_AMBIENT_CLEAR_ALL` of linux/prctl.h.
const AMBIENT_CLEAR_ALL: libc::c_ulong = 4;

/// What it takes to act as others.
const SWITCH: u64 = capability::SETUID | capability::SETGID;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{MetadataExt, PermissionsExt};
    use std::panic::{AssertUnwindSafe, catch_unwind};

    use super::*;

    fn account() -> Ids {
        Ids {
            uid: 61_234,
            gid: 61_235,
            groups: [61_236, 61_237].into(),
        }
    }

    fn status() -> Vec<String> {
        let status = fs::read_to_string("/proc/thread-self/status").unwrap();
        let kept = ["Uid:", "Gid:", "Groups:", "CapEff:", "CapPrm:", "CapInh:"];
        let lines = status.lines();
        let lines = lines.filter(|line| kept.iter().any(|key| line.starts_with(key)));
        lines.map(str::to_owned).collect()
    }

    #[test]
    fn the_kernel_judges_by_the_account_and_the_thread_is_itself_again() {
        if !is_allowed() {
            return; // The tests as root show it.
        }
        let folder = tempfile::tempdir().unwrap();
        fs::set_permissions(folder.path(), fs::Permissions::from_mode(0o777)).unwrap();
        let path = |name: &str| folder.path().join(name);
        fs::write(path("root's"), "x").unwrap();
        fs::set_permissions(path("root's"), fs::Permissions::from_mode(0o600)).unwrap();
        let before = status();
        let within = within(Some(&account()), || {
            let denied = fs::read(path("root's")).unwrap_err();
            fs::write(path("own"), "x").unwrap();
            (denied.kind(), status())
        });
        let (denied, during) = within.unwrap();
        assert_eq!(status(), before);
        assert_eq!(denied, io::ErrorKind::PermissionDenied);
        let own = fs::metadata(path("own")).unwrap();
        assert_eq!((own.uid(), own.gid()), (61_234, 61_235));
        // Real, effective and saved IDs stay; the last column is that of files.
        let [uid, gid, groups] = [&during[0], &during[1], &during[2]];
        let columns = |line: &str| line.split_whitespace().skip(1).map(str::to_owned).collect();
        let (before_uid, uid): (Vec<String>, Vec<String>) = (columns(&before[0]), columns(uid));
        assert_eq!((&uid[..3], &uid[3][..]), (&before_uid[..3], "61234"));
        assert!(gid.ends_with("\t61235"), "{gid}");
        assert_eq!(groups.trim_end(), "Groups:\t61236 61237");
        let effective = during.iter().find(|line| line.starts_with("CapEff:"));
        assert_eq!(effective.unwrap(), "CapEff:\t0000000000000000");
    }

    #[test]
    fn other_threads_see_nothing_of_it() {
        if !is_allowed() {
            return; // The tests as root show it.
        }
        let before = status();
        let (ask, asked) = std::sync::mpsc::channel::<()>();
        let (answer, answered) = std::sync::mpsc::channel();
        let other = std::thread::spawn(move || {
            asked.recv().unwrap();
            answer.send(status()).unwrap();
        });
        let seen = within(Some(&account()), || {
            ask.send(()).unwrap();
            answered.recv().unwrap()
        });
        assert_eq!(seen.unwrap(), before);
        other.join().unwrap();
    }

    #[test]
    fn a_panic_does_not_keep_the_thread_in_the_account() {
        if !is_allowed() {
            return; // The tests as root show it.
        }
        let before = status();
        let panicked = catch_unwind(AssertUnwindSafe(|| {
            within(Some(&account()), || std::panic::resume_unwind(Box::new(())))
        }));
        let panicked: Result<io::Result<()>, _> = panicked;
        assert!(panicked.is_err());
        assert_eq!(status(), before);
        let ids = std::sync::Arc::new(account());
        let seen = on_own_thread(&ids, file_uid).unwrap();
        assert_eq!(seen, 61_234);
        assert_eq!(within(None, file_uid).unwrap(), file_uid());
    }

    #[test]
    fn an_account_within_another_is_a_mistake() {
        if !is_allowed() {
            return; // The tests as root show it.
        }
        let before = status();
        let nested =
            catch_unwind(|| within(Some(&account()), || within(Some(&account()), || ()).is_ok()));
        assert!(nested.is_err());
        assert_eq!(status(), before);
    }
}
