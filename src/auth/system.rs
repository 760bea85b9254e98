//! Accounts of this host that users act as (`system` in the users file).

use std::sync::Arc;

use super::Identity;
use crate::config;
use crate::sys::ids::{Ids, SystemUser};

pub use crate::sys::acting::is_allowed as may_act_as_others;

/// Which accounts of this host there may be.
#[derive(Clone, Copy, Debug)]
pub(super) struct SystemAccounts {
    /// The lowest user ID; `None`: nobody acts as any.
    uid_min: Option<u32>,
}

impl SystemAccounts {
    pub(super) fn new(users: &config::Users) -> Self {
        Self {
            uid_min: users.system.then_some(users.system_uid_min),
        }
    }

    /// An identity with the account of this name, if there is one. May ask a directory service: not for
    /// a core.
    ///
    /// # Errors
    /// As [`SystemAccounts::find`].
    pub(super) fn complete(
        self,
        identity: Identity,
        account: Option<String>,
    ) -> Result<Identity, String> {
        let Some(account) = account else {
            return Ok(identity);
        };
        let found = self.find(&identity.name, &account)?;
        Ok(Identity {
            account: Some(found),
            ..identity
        })
    }

    /// The account that a user acts as. May ask a directory service: not for a core.
    ///
    /// # Errors
    /// Why the user cannot, for the operator.
    pub(super) fn find(self, user: &str, account: &str) -> Result<Arc<Ids>, String> {
        let Some(uid_min) = self.uid_min else {
            return Err(format!(
                "user {user} acts as the account {account:?} of this host, and users.system is off"
            ));
        };
        let found = SystemUser::lookup(account).map_err(|error| format!("user {user}: {error}"))?;
        let uid = found.ids.uid;
        if uid < uid_min {
            return Err(format!(
                "user {user} acts as the account {account:?} of this host, whose uid {uid} is below \
                 users.system_uid_min ({uid_min})"
            ));
        }
        Ok(found.ids)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn accounts_are_found_where_they_may_be() {
        let find = |uid_min, account| SystemAccounts { uid_min }.find("alice", account);
        let nobody = find(Some(1), "nobody").unwrap();
        assert_eq!(find(Some(nobody.uid), "nobody").unwrap(), nobody);
        for (uid_min, account, text) in [
            (None, "nobody", "users.system is off"),
            (Some(nobody.uid + 1), "nobody", "below users.system_uid_min"),
            (Some(1), "root", "root itself"),
            (Some(1), "ringftpd-no-such-name", "no user"),
        ] {
            let reason = find(uid_min, account).unwrap_err();
            assert!(reason.contains(text), "{reason}");
            assert!(reason.contains("alice"), "{reason}");
        }
    }
}
