//! Who a client is: anonymous, or a virtual user with a password.
//!
//! Verifying a password takes tens of milliseconds and 19 MiB of memory on purpose, so
//! [`Authenticator::verify`] belongs on a worker thread, never on a core. What a stranger can
//! learn from it is bounded: unknown names cost the same time as wrong passwords of most users, and
//! all get the same answer.

pub mod edit;
mod name;
mod password;
mod users;

use std::path::PathBuf;
use std::sync::Arc;

pub use name::{NAME_LENGTH_MAX, NameError, UserName, is_anonymous};
pub use password::{PASSWORD_LENGTH_MAX, PasswordError, StoredHash};
pub use users::{User, UserList};

use crate::config::{self, Allowance, Folder, QuotaLimits};
use crate::proto::rights::Rights;
use users::UsersFile;

/// Who logged in, and what is theirs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The name; `anonymous` for all who came without an account.
    pub name: String,
    /// The directory that they see as `/`; absolute.
    pub root: PathBuf,
    /// What they may do there.
    pub rights: Arc<Rights>,
    /// How much they may store there.
    pub quota: QuotaLimits,
    /// Other directories that are found there.
    pub folders: Arc<[Folder]>,
    /// What all the user's sessions may take together; `None`, for anonymous ones: as configured.
    pub allowance: Option<Allowance>,
}

/// The verdict on a name and a password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Outcome {
    /// The client is who it says.
    Accepted(Identity),
    /// Unknown name or wrong password; which one is nobody's business.
    Refused,
    /// It could not be found out. The text is for the operator's log, not for the client; it holds
    /// no secrets.
    Unavailable(String),
}

/// Decides who may log in. Shared by all cores.
#[derive(Debug)]
pub struct Authenticator {
    anonymous: Option<Identity>,
    users: Option<UsersFile>,
}

impl Authenticator {
    /// Reads nothing yet: the users file may appear, change and vanish while the server runs.
    pub fn new(anonymous: &config::Anonymous, users: &config::Users) -> Self {
        let anonymous = anonymous.enabled.then(|| Identity {
            name: name::ANONYMOUS.to_owned(),
            root: anonymous.root.clone(),
            rights: Arc::new(anonymous.rights.clone()),
            quota: anonymous.quota,
            folders: anonymous.folders.clone().into(),
            // A reload may change it.
            allowance: None,
        });
        let users = users.enabled.then(|| UsersFile::new(users.file.clone()));
        Self { anonymous, users }
    }

    /// The identity behind USER `anonymous` or `ftp`, in any case of letters, if anonymous access
    /// is on (RFC 1635). Neither hashes nor blocks.
    pub fn anonymous(&self, user: &[u8]) -> Option<Identity> {
        if is_anonymous(user) {
            self.anonymous.clone()
        } else {
            None
        }
    }

    /// Whether `password` is that of `user`. Blocks for a hash's time and reads the users file
    /// when it has changed: call it on a worker.
    pub fn verify(&self, user: &[u8], password: &[u8]) -> Outcome {
        if let Some(identity) = self.anonymous(user) {
            return Outcome::Accepted(identity);
        }
        let Some(file) = &self.users else {
            return Outcome::Refused;
        };
        let users = match file.current() {
            Ok(users) => users,
            Err(reason) => return Outcome::Unavailable(reason),
        };
        let known = UserName::parse(user).ok().and_then(|name| users.get(&name));
        match known {
            Some(found) if found.password.matches(password) => Outcome::Accepted(found.identity()),
            Some(_) => Outcome::Refused,
            None => {
                // The time of a refusal must not tell which names exist.
                // The result must be used, or the work could be optimised away.
                std::hint::black_box(users.nobody().matches(password));
                Outcome::Refused
            }
        }
    }

    /// Names and directories of all virtual users, for a start-up check; empty when they are off
    /// or the file does not exist.
    ///
    /// # Errors
    /// What is wrong with the users file.
    pub fn users(&self) -> Result<Vec<Identity>, String> {
        let Some(file) = &self.users else {
            return Ok(Vec::new());
        };
        file.current()
            .map(|users| users.iter().map(User::identity).collect())
    }
}

#[cfg(test)]
mod tests;
