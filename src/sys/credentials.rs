//! Giving up root: to one user and group, for good, with no more rights than the configuration needs.
//!
//! To be called once, before the threads that serve are started: capabilities belong to threads
//! (capabilities(7)), and rings take the credentials of the thread that makes them. A thread that
//! exists already changes its user with the others and keeps no capability.

use std::ffi::CString;
use std::io;

use nix::unistd::{Gid, Group, Uid, User, getegid, geteuid};

use super::capability::{self, Capabilities};
use super::check;

/// An account of this host, looked up by name.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Account {
    name: CString,
    uid: Uid,
    gid: Gid,
}

/// Why a name is no account to run as.
#[derive(Debug, thiserror::Error)]
pub enum AccountError {
    /// The host knows no such user.
    #[error("there is no user {0:?} on this host")]
    NoSuchUser(String),
    /// The host knows no such group.
    #[error("there is no group {0:?} on this host")]
    NoSuchGroup(String),
    /// The user is root, which gives nothing up.
    #[error("user {0:?} is root itself; name an account without privileges")]
    Privileged(String),
    /// The user database could not be read.
    #[error("the user database cannot be read: {0}")]
    Lookup(#[source] io::Error),
}

/// One of root's rights that may be left after [`Account::become_permanently`].
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Keep {
    /// CAP_NET_BIND_SERVICE: active data connections come from port 20 (RFC 959 §3.2).
    BindLowPorts,
    /// CAP_SETUID and CAP_SETGID, in reserve: [`super::acting`] puts them into effect.
    ActAsUsers,
}

impl Keep {
    fn capabilities(self) -> Capabilities {
        let (effective, permitted) = match self {
            Self::BindLowPorts => (capability::NET_BIND_SERVICE, capability::NET_BIND_SERVICE),
            Self::ActAsUsers => (0, capability::SETUID | capability::SETGID),
        };
        Capabilities {
            effective,
            permitted,
            inheritable: 0,
        }
    }
}

impl Account {
    /// Looks a user up, and the group if it shall not be the user's own.
    ///
    /// # Errors
    /// See [`AccountError`].
    pub fn lookup(user: &str, group: Option<&str>) -> Result<Self, AccountError> {
        let lookup_failed = |errno: nix::Error| AccountError::Lookup(errno.into());
        let entry = User::from_name(user)
            .map_err(lookup_failed)?
            .ok_or_else(|| AccountError::NoSuchUser(user.to_owned()))?;
        let gid = match group {
            None => entry.gid,
            Some(group) => {
                Group::from_name(group)
                    .map_err(lookup_failed)?
                    .ok_or_else(|| AccountError::NoSuchGroup(group.to_owned()))?
                    .gid
            }
        };
        if entry.uid.is_root() {
            return Err(AccountError::Privileged(user.to_owned()));
        }
        let name = CString::new(user).map_err(|_| AccountError::NoSuchUser(user.to_owned()))?;
        Ok(Self {
            name,
            uid: entry.uid,
            gid,
        })
    }

    /// Becomes this account: its groups, its group, its user; no way back and no new privileges
    /// through exec.
    ///
    /// # Errors
    /// EPERM when the process is not root. After an error the process may be half-way and must end.
    pub fn become_permanently(&self, keep: &[Keep]) -> io::Result<()> {
        // Without this the change of user ID clears every capability (capabilities(7)).
        prctl(libc::PR_SET_KEEPCAPS, libc::c_ulong::from(!keep.is_empty()))?;
        nix::unistd::initgroups(&self.name, self.gid)?;
        nix::unistd::setresgid(self.gid, self.gid, self.gid)?;
        nix::unistd::setresuid(self.uid, self.uid, self.uid)?;
        let nothing = Capabilities {
            effective: 0,
            permitted: 0,
            inheritable: 0,
        };
        let kept = keep.iter().fold(nothing, |kept, keep| Capabilities {
            effective: kept.effective | keep.capabilities().effective,
            permitted: kept.permitted | keep.capabilities().permitted,
            ..kept
        });
        kept.set()?;
        prctl(libc::PR_SET_KEEPCAPS, 0)?;
        set_no_new_privileges()?;
        let root = Uid::from_raw(0);
        // The saved IDs are gone too, so this must fail; if it does not, the rest is worth nothing.
        assert!(
            nix::unistd::setresuid(root, root, root).is_err(),
            "root could be regained"
        );
        assert_eq!(
            (geteuid(), getegid()),
            (self.uid, self.gid),
            "the account was not taken"
        );
        Ok(())
    }
}

/// Whether this process runs as root.
pub fn is_root() -> bool {
    geteuid().is_root()
}

/// Forbids this process and its children to gain privileges by exec (PR_SET_NO_NEW_PRIVS).
///
/// # Errors
/// As prctl(2).
pub fn set_no_new_privileges() -> io::Result<()> {
    prctl(libc::PR_SET_NO_NEW_PRIVS, 1)
}

fn prctl(option: libc::c_int, argument: libc::c_ulong) -> io::Result<()> {
    let none: libc::c_ulong = 0;
    // SAFETY: the options used here take numbers only.
    check(unsafe { libc::prctl(option, argument, none, none, none) }).map(drop)
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, TcpListener};
    use std::os::unix::fs::MetadataExt;
    use std::process::Command;

    use super::super::acting;
    use super::super::ids::Ids;
    use super::*;

    #[test]
    fn accounts_are_looked_up_by_name() {
        let missing = "ringftpd-no-such-name";
        let rows = [
            (missing, None, "no user"),
            ("nobody", Some(missing), "no group"),
            ("root", None, "without privileges"),
            ("no\0body", None, ""),
        ];
        for (user, group, word) in rows {
            let error = Account::lookup(user, group).unwrap_err().to_string();
            assert!(error.contains(word), "{user:?} {group:?}: {error}");
        }
        let nobody = Account::lookup("nobody", None).unwrap();
        assert!(!nobody.uid.is_root());
    }

    /// The change concerns the whole process, so each case runs this test again in a child.
    #[test]
    fn an_account_is_taken_for_good() {
        match std::env::var("RINGFTPD_TEST_KEEP").as_deref() {
            Ok("nothing") => return become_nobody(&[]),
            Ok("bind") => return become_nobody(&[Keep::BindLowPorts]),
            Ok("act") => return become_nobody(&[Keep::ActAsUsers]),
            _ => {}
        }
        if !is_root() {
            return; // There is nothing to give up.
        }
        for keep in ["nothing", "bind", "act"] {
            let name = "sys::credentials::tests::an_account_is_taken_for_good";
            let output = Command::new(std::env::current_exe().unwrap())
                .args(["--exact", name, "--nocapture", "--test-threads=1"])
                .env("RINGFTPD_TEST_KEEP", keep)
                .output()
                .unwrap();
            let text = String::from_utf8_lossy(&output.stdout);
            assert!(output.status.success(), "{keep}: {text}");
            assert!(text.contains("1 passed"), "{keep}: {text}");
        }
    }

    fn become_nobody(keep: &[Keep]) {
        let nobody = Account::lookup("nobody", None).unwrap();
        nobody.become_permanently(keep).unwrap();
        assert!(!is_root());
        let status = std::fs::read_to_string("/proc/thread-self/status").unwrap();
        let line = |key: &str| {
            let line = status.lines().find(|line| line.starts_with(key)).unwrap();
            line[key.len()..]
                .split_whitespace()
                .map(str::to_owned)
                .collect::<Vec<_>>()
        };
        let uid = nobody.uid.to_string();
        assert_eq!(line("Uid:"), [uid.as_str(); 4]);
        let gid = nobody.gid.to_string();
        assert_eq!(line("Gid:"), [gid.as_str(); 4]);
        assert!(!line("Groups:").contains(&"0".to_owned()));
        assert_eq!(line("NoNewPrivs:"), ["1"]);
        let (effective, permitted) = match keep {
            [Keep::BindLowPorts] => ("0000000000000400", "0000000000000400"),
            [Keep::ActAsUsers] => ("0000000000000000", "00000000000000c0"),
            _ => ("0000000000000000", "0000000000000000"),
        };
        assert_eq!(line("CapEff:"), [effective]);
        assert_eq!(line("CapPrm:"), [permitted]);
        act_as_somebody(keep == [Keep::ActAsUsers]);
        assert_eq!(line("CapEff:"), [effective]);
        // Threads started later have the same.
        let bound = std::thread::spawn(|| {
            (1..1024).any(|port| TcpListener::bind((Ipv4Addr::LOCALHOST, port)).is_ok())
        });
        let start: u32 = std::fs::read_to_string("/proc/sys/net/ipv4/ip_unprivileged_port_start")
            .map_or(1024, |text| text.trim().parse().unwrap());
        if start >= 1024 {
            assert_eq!(bound.join().unwrap(), keep == [Keep::BindLowPorts]);
        }
        assert!(nobody.become_permanently(keep).is_err());
    }

    /// On another thread too, which takes the capabilities of the one that starts it.
    fn act_as_somebody(can: bool) {
        let ids = std::sync::Arc::new(Ids {
            uid: 61_234,
            gid: 61_235,
            groups: [61_236].into(),
        });
        assert_eq!(acting::is_allowed(), can);
        let folder = tempfile::tempdir_in("/dev/shm").unwrap();
        let mode = std::os::unix::fs::PermissionsExt::from_mode(0o777);
        std::fs::set_permissions(folder.path(), mode).unwrap();
        let (one, other) = (folder.path().join("one"), folder.path().join("other"));
        let write = |path: &std::path::Path| std::fs::write(path, "x");
        let made = acting::within(Some(&ids), || write(&one));
        let made_there = acting::on_own_thread(&ids, {
            let other = other.clone();
            move || write(&other)
        });
        assert_eq!(made.is_ok(), can, "{made:?}");
        assert_eq!(made_there.is_ok(), can, "{made_there:?}");
        for path in [one, other] {
            let owner = std::fs::metadata(path).map(|file| file.uid()).ok();
            assert_eq!(owner, can.then_some(61_234));
        }
    }
}
