//! Where users come from: several sources, asked in order. The first one that knows a name decides.

mod accounts;
mod database;
mod file;
mod hook;
mod htpasswd;
mod http;
#[cfg(feature = "pam")]
mod pam;
mod program;
mod shadow;

use std::fmt;
use std::net::IpAddr;

use super::name::UserName;
use super::users::{User, UserList};
use super::validity::Validity;
use super::{Identity, Reason, StoredHash};
use crate::config::SourceKind;
pub(super) use database::OfDatabase;
pub(super) use file::UsersFile;
pub(super) use htpasswd::OfHtpasswd;
pub(super) use http::Http;
#[cfg(feature = "pam")]
pub(super) use pam::Pam;
pub(super) use program::Program;
pub(super) use shadow::Shadow;

/// What one source is asked.
#[derive(Clone, Copy)]
pub(super) struct Login<'l> {
    /// Who the client says it is.
    pub(super) name: &'l UserName,
    /// What it gave for a password: for sources that look at it themselves.
    pub(super) password: &'l [u8],
    /// Where it is.
    pub(super) client: IpAddr,
    /// The virtual host that it wants, by the name of its section; empty: the server itself.
    pub(super) host: &'l str,
    /// The users file: its section `default` is for the users of all sources.
    pub(super) users: &'l UserList,
}

impl fmt::Debug for Login<'_> {
    /// Without the password.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Login")
            .field("name", &self.name)
            .field("client", &self.client)
            .finish_non_exhaustive()
    }
}

/// Who may log in, without how that is proved.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Member {
    /// Who it is, and what is theirs.
    pub(super) identity: Identity,
    /// When and from where they may log in.
    pub(super) validity: Validity,
    /// The name of the account of this host that they act as, unless the identity has it already.
    pub(super) system: Option<String>,
}

/// What a source knows of a login.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) enum Found {
    /// It has nobody of this name; the next source is asked.
    Unknown,
    /// It has the hash of the password, which is still to be looked at.
    User(Box<User>),
    /// The same of an account that has more to it than the users file can say.
    Hashed(Box<Hashed>),
    /// It has looked at the password: the client is who it says.
    Verified(Box<Member>),
    /// It has looked at the login: the client may not.
    Refused(Reason),
}

/// An account with the hash of its password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Hashed {
    /// `None`: there is none that could match. Another one is looked at for the time it takes.
    pub(super) password: Option<StoredHash>,
    /// Who it is; or why nobody may log in, which counts when the password is right.
    pub(super) member: Result<Member, Reason>,
}

/// A place that knows users.
pub(super) trait Source: fmt::Debug + Send + Sync {
    /// Which one it is.
    fn kind(&self) -> SourceKind;

    /// What this source knows of a login. Called on a worker, by several at once; it may wait, for a
    /// bounded time.
    ///
    /// # Errors
    /// Why it cannot tell, for the operator's log, without secrets. Nobody gets in then, nor is another
    /// source asked: this one may be where a user has been locked out.
    fn find(&self, login: &Login<'_>) -> Result<Found, String>;

    /// Whether whom it has found a while ago may still be remembered. As [`Source::find`], but asks nobody
    /// about the password.
    fn still_has(&self, _login: &Login<'_>, _member: &Member) -> bool {
        true
    }

    /// All users that it can list, or many of them, for a check at the start.
    ///
    /// # Errors
    /// As [`Source::find`].
    fn list(&self, users: &UserList) -> Result<Vec<Identity>, String>;

    /// How many users it has, of which it has just listed so many.
    fn count(&self, listed: usize) -> usize {
        listed
    }

    /// A hash of the cost that most of its users' hashes have, and how many it knows of that have it;
    /// `None`: it has none that it knows of.
    fn usual(&self, _users: &UserList) -> Option<(usize, StoredHash)> {
        None
    }
}

/// The users of the users file itself.
#[derive(Debug)]
pub(super) struct OfFile;

impl Source for OfFile {
    fn kind(&self) -> SourceKind {
        SourceKind::File
    }

    fn find(&self, login: &Login<'_>) -> Result<Found, String> {
        let user = login.users.get(login.name).cloned();
        Ok(user.map_or(Found::Unknown, |user| Found::User(Box::new(user))))
    }

    fn list(&self, users: &UserList) -> Result<Vec<Identity>, String> {
        Ok(users.iter().map(User::identity).collect())
    }

    fn usual(&self, users: &UserList) -> Option<(usize, StoredHash)> {
        users.usual().cloned()
    }
}
