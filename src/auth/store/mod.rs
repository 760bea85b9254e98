//! Where `ringftpd user` keeps users: the users file or a database, behind one interface.
//!
//! A user is a table of keys, as in the users file, whichever store it is in. What is about to be
//! written is read first, by the one reader that logins go by.

mod database;
mod file;

use std::io;
use std::ops::ControlFlow;
use std::path::PathBuf;

use toml::{Table, Value};

use super::name::UserName;
use super::users::{User, UserList};
pub use database::DatabaseStore;
pub use file::FileStore;

/// Why users were not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StoreError {
    /// A file operation failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// What is there, or what would be, is not valid; or the database cannot tell.
    #[error("{0}")]
    Invalid(String),
    /// The user to add exists.
    #[error("user {0} exists; `ringftpd user passwd {0}` changes the password")]
    Exists(UserName),
    /// The user to change does not exist.
    #[error("there is no user {name} in {place}")]
    Unknown {
        /// The user.
        name: UserName,
        /// The title of the store.
        place: String,
    },
    /// The file is written in a way that this program does not dare to change.
    #[error("{}: user {name} is not written as a [user.{name}] section; edit the file by hand",
        path.display())]
    Unusual {
        /// The user.
        name: UserName,
        /// The users file.
        path: PathBuf,
    },
    /// Another run holds the file.
    #[error("{}: another ringftpd user command is still changing it", .0.display())]
    Busy(PathBuf),
}

/// Who may read a store that does not exist yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Readers {
    /// Its owner, who makes it: mode 0600.
    Owner,
    /// Its owner, and the group that the server runs in: mode 0640.
    Group(u32),
}

/// A user with its keys.
pub type Entry = (UserName, Table);

/// A key and its new value; `None`: the key is no longer given.
pub type Change = (String, Option<Value>);

/// Takes one user after the other, until it breaks.
pub type Take<'t> = dyn FnMut(&str, Result<&User, String>) -> ControlFlow<()> + 't;

/// A place that keeps users.
pub trait Store {
    /// What messages call it.
    fn title(&self) -> String;

    /// The section `default` of the users file, as it is written there.
    ///
    /// # Errors
    /// Anything of [`StoreError`].
    fn default_keys(&mut self) -> Result<Table, StoreError>;

    /// Makes what is missing of it, or brings it up to date; whether there was anything to do.
    ///
    /// # Errors
    /// Anything of [`StoreError`].
    fn migrate(&mut self) -> Result<bool, StoreError>;

    /// The keys of a user.
    ///
    /// # Errors
    /// Anything of [`StoreError`].
    fn find(&mut self, name: &UserName) -> Result<Option<Table>, StoreError>;

    /// Adds all users but those who exist, in one change; says who that is. Makes what is missing of the
    /// store.
    ///
    /// # Errors
    /// Anything of [`StoreError`]; nobody is added then.
    fn add_all(&mut self, users: Vec<Entry>) -> Result<Vec<UserName>, StoreError>;

    /// Changes keys of a user.
    ///
    /// # Errors
    /// There is no such user, or anything of [`StoreError`].
    fn change(&mut self, name: &UserName, changes: &[Change]) -> Result<(), StoreError>;

    /// Deletes a user; the user's files stay.
    ///
    /// # Errors
    /// There is no such user, or anything of [`StoreError`].
    fn delete(&mut self, name: &UserName) -> Result<(), StoreError>;

    /// The length of the longest name.
    ///
    /// # Errors
    /// Anything of [`StoreError`].
    fn widest(&mut self) -> Result<usize, StoreError>;

    /// Gives all users, one after the other, with their names; or why one cannot be understood.
    ///
    /// # Errors
    /// Anything of [`StoreError`].
    fn each(&mut self, take: &mut Take<'_>) -> Result<(), StoreError>;

    /// All users with their keys.
    ///
    /// # Errors
    /// Anything of [`StoreError`].
    fn entries(&mut self) -> Result<Vec<Entry>, StoreError>;

    /// Adds one user.
    ///
    /// # Errors
    /// The user exists, or anything of [`StoreError`].
    fn add(&mut self, name: &UserName, keys: Table) -> Result<(), StoreError> {
        match self.add_all(vec![(name.clone(), keys)])?.is_empty() {
            true => Ok(()),
            false => Err(StoreError::Exists(name.clone())),
        }
    }
}

/// The keys after changes.
fn changed(mut keys: Table, changes: &[Change]) -> Table {
    for (key, value) in changes {
        match value {
            Some(value) => keys.insert(key.clone(), value.clone()),
            None => keys.remove(key),
        };
    }
    keys
}

/// The user that these keys describe; the list has the section `default`.
pub(super) fn user_of(
    list: &UserList,
    name: &UserName,
    keys: &Table,
    place: &str,
) -> Result<User, StoreError> {
    let described = list
        .describe(name, keys, place)
        .map_err(StoreError::Invalid)?;
    described
        .into_user()
        .ok_or_else(|| StoreError::Invalid(format!("user {name} of {place} has no password hash")))
}

/// A name in a store.
pub(super) fn parse_name(name: &str) -> Result<UserName, String> {
    UserName::parse(name.as_bytes()).map_err(|error| format!("{name:?}: {error}"))
}
