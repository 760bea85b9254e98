//! A database of users: connections to SQLite and PostgreSQL, which understand the same statements.
//!
//! All values cross as text and are cast by the database, so that nothing above depends on which one it
//! is. Everything here blocks, within a bound: it belongs on a worker, never on a core.

mod postgresql;
mod rows;
mod schema;
mod sqlite;

use std::path::PathBuf;
use std::time::Duration;

use super::store::Readers;
use crate::config::{self, Database};
pub(super) use rows::{
    ADD, COUNT, FIND, PAGE, REMOVE, SAMPLE, UPDATE, WIDEST, name_of, table_of, values_of,
};
pub(super) use schema::{check, migrate};

/// One row; `None`: NULL.
pub(super) type Record = Vec<Option<String>>;

/// How a database is reached.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Access {
    /// Where it is.
    pub database: Database,
    /// The file with the password for it; empty: none is needed.
    pub password_file: PathBuf,
    /// The file with the certificates of the authorities that vouch for its server; empty: no TLS.
    pub ca: PathBuf,
    /// How long a connection, and the answer to a login's question, may take.
    pub timeout: Duration,
}

impl Access {
    /// That of the configuration, if it has a database.
    pub fn of(users: &config::Users) -> Option<Self> {
        Some(Self {
            database: users.database.clone()?,
            password_file: users.database_password_file.clone(),
            ca: users.database_ca.clone(),
            timeout: users.source_timeout,
        })
    }
}

/// What a connection is for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Purpose {
    /// To look users up. Nothing can be changed.
    Read,
    /// To change users. A file of SQLite is made, for these readers, if it does not exist.
    Write(Readers),
}

/// A connection to a database. Errors are for the operator: they name the database and hold neither
/// passwords nor hashes.
pub(super) trait Connection: Send {
    /// All rows of the answer to a query. Its parameters are called `$1`, `$2` and so on, in the order of
    /// their first use.
    fn query(&mut self, sql: &str, parameters: &[Option<&str>]) -> Result<Vec<Record>, String>;

    /// Makes a change; says how many rows it was about.
    fn execute(&mut self, sql: &str, parameters: &[Option<&str>]) -> Result<u64, String>;

    /// Runs several statements.
    fn batch(&mut self, sql: &str) -> Result<(), String>;

    /// Begins a transaction that no other one of this program overlaps.
    fn begin(&mut self) -> Result<(), String>;

    /// Whether there is a table (or a view) of this name.
    fn has_table(&mut self, name: &str) -> Result<bool, String>;

    /// Whether it still leads to the database: it is worth a try.
    fn is_alive(&self) -> bool;
}

/// Connects, and has a look at the tables unless they are about to be changed.
pub(super) fn open(access: &Access, purpose: Purpose) -> Result<Box<dyn Connection>, String> {
    let mut connection: Box<dyn Connection> = match &access.database {
        Database::Sqlite(path) => Box::new(sqlite::Sqlite::open(path, access.timeout, purpose)?),
        Database::PostgreSql(url) => {
            let password = match access.password_file.as_os_str().is_empty() {
                true => None,
                false => Some(postgresql::password(&access.password_file)?),
            };
            let tls = match access.ca.as_os_str().is_empty() {
                true => None,
                false => Some(postgresql::tls(&access.ca)?),
            };
            let timeout = access.timeout;
            let client = postgresql::PostgreSql::open(url, password, tls, timeout, purpose)?;
            Box::new(client)
        }
    };
    if purpose == Purpose::Read {
        check(connection.as_mut(), &access.database)?;
    }
    Ok(connection)
}

#[cfg(test)]
mod tests;
