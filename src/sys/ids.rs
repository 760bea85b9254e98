//! Accounts of this host that clients act as: what the kernel knows of them, and what the user
//! database does.

use std::ffi::CString;
use std::io;
use std::path::PathBuf;
use std::sync::Arc;

use nix::unistd::{Gid, User, getgrouplist};

use super::credentials::AccountError;

/// By what the kernel judges whoever opens a file, and what a new file is owned by (credentials(7)).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Ids {
    /// User ID.
    pub uid: u32,
    /// Group ID.
    pub gid: u32,
    /// Supplementary group IDs, ascending, each once.
    pub groups: Box<[u32]>,
}

/// An account of this host, as its user database has it (passwd(5), or whatever nsswitch.conf(5)
/// names).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct SystemUser {
    /// The name, as the user database writes it.
    pub name: String,
    /// By what the kernel judges.
    pub ids: Arc<Ids>,
    /// The home directory.
    pub home: PathBuf,
    /// The shell.
    pub shell: PathBuf,
}

impl Ids {
    /// Whether the account is in this group.
    pub fn is_in(&self, gid: u32) -> bool {
        self.gid == gid || self.groups.binary_search(&gid).is_ok()
    }
}

impl SystemUser {
    /// Looks an account up, with its groups. May ask a directory service over the network: not for a
    /// core.
    ///
    /// # Errors
    /// See [`AccountError`]: root is none that anybody acts as.
    pub fn lookup(name: &str) -> Result<Self, AccountError> {
        let failed = |errno: nix::Error| AccountError::Lookup(io::Error::from(errno));
        let no_such = || AccountError::NoSuchUser(name.to_owned());
        let c_name = CString::new(name).map_err(|_| no_such())?;
        let user = User::from_name(name).map_err(failed)?.ok_or_else(no_such)?;
        let (uid, gid) = (user.uid.as_raw(), user.gid.as_raw());
        // -1 means "no change" to the calls that take an ID (setfsuid(2)).
        if uid == 0 || uid == u32::MAX || gid == u32::MAX {
            return Err(AccountError::Privileged(name.to_owned()));
        }
        let groups = getgrouplist(&c_name, user.gid).map_err(failed)?;
        let mut groups: Vec<u32> = groups.into_iter().map(Gid::as_raw).collect();
        groups.sort_unstable();
        groups.dedup();
        let groups = groups.into();
        Ok(Self {
            name: user.name,
            ids: Arc::new(Ids { uid, gid, groups }),
            home: user.dir,
            shell: user.shell,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_come_with_their_groups_and_never_as_root() {
        let nobody = SystemUser::lookup("nobody").unwrap();
        assert_ne!(nobody.ids.uid, 0);
        assert!(nobody.ids.is_in(nobody.ids.gid));
        assert!(!nobody.ids.is_in(nobody.ids.gid - 1));
        for (name, word) in [
            ("root", "root itself"),
            ("ringftpd-no-such-name", "no user"),
            ("no\0body", "no user"),
        ] {
            let error = SystemUser::lookup(name).unwrap_err().to_string();
            assert!(error.contains(word), "{name:?}: {error}");
        }
    }
}
