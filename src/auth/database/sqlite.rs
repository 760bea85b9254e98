//! SQLite: a file, read by the server and written by `ringftpd user`.
//!
//! It stays in SQLite's default mode, with a rollback journal, and not in WAL: a reader then needs
//! nothing but read permission for the file, while WAL wants a reader to write beside it. Whoever reads
//! is held up for no longer than a commit takes. A database that somebody else has put into WAL mode is
//! read as well, if the server may write to its folder.

use std::fs::{self, OpenOptions, Permissions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rusqlite::types::ValueRef;
use rusqlite::{ErrorCode, OpenFlags, params_from_iter};

use super::{Connection, Purpose, Record};
use crate::auth::store::Readers;

/// An open file.
pub(super) struct Sqlite {
    connection: rusqlite::Connection,
    path: PathBuf,
    /// Device and inode: another file may take the name, from a backup for example.
    identity: (u64, u64),
    only_reads: bool,
}

impl Sqlite {
    pub(super) fn open(path: &Path, timeout: Duration, purpose: Purpose) -> Result<Self, String> {
        let told = |error: &dyn std::fmt::Display| format!("sqlite:{}: {error}", path.display());
        let access = match purpose {
            Purpose::Read => OpenFlags::SQLITE_OPEN_READ_ONLY,
            Purpose::Write(readers) => {
                make(path, readers).map_err(|error| told(&error))?;
                OpenFlags::SQLITE_OPEN_READ_WRITE
            }
        };
        // Before it is opened: if another one takes its place meanwhile, it is opened again.
        let identity = identity(path).map_err(|error| told(&error))?;
        let flags = access | OpenFlags::SQLITE_OPEN_NO_MUTEX;
        let connection = rusqlite::Connection::open_with_flags(path, flags)
            .and_then(|connection| connection.busy_timeout(timeout).map(|()| connection))
            .map_err(|error| told(&error))?;
        Ok(Self {
            connection,
            path: path.to_owned(),
            identity,
            only_reads: purpose == Purpose::Read,
        })
    }

    fn told(&self, error: &rusqlite::Error) -> String {
        let told = format!("sqlite:{}: {error}", self.path.display());
        match error.sqlite_error_code() {
            Some(ErrorCode::ReadOnly) if self.only_reads => {
                format!("{told}: a change broke off; `ringftpd user migrate` takes it back")
            }
            _ => told,
        }
    }
}

impl Connection for Sqlite {
    fn query(&mut self, sql: &str, parameters: &[Option<&str>]) -> Result<Vec<Record>, String> {
        let answer = || {
            let mut statement = self.connection.prepare_cached(sql)?;
            let columns = statement.column_count();
            let mut rows = statement.query(params_from_iter(parameters))?;
            let mut records = Vec::new();
            while let Some(row) = rows.next()? {
                let cells = (0..columns).map(|column| match row.get_ref(column)? {
                    ValueRef::Text(text) => Ok(Some(String::from_utf8_lossy(text).into_owned())),
                    ValueRef::Integer(number) => Ok(Some(number.to_string())),
                    _ => Ok(None),
                });
                records.push(cells.collect::<Result<Record, rusqlite::Error>>()?);
            }
            Ok(records)
        };
        answer().map_err(|error| self.told(&error))
    }

    fn execute(&mut self, sql: &str, parameters: &[Option<&str>]) -> Result<u64, String> {
        let changed = self
            .connection
            .prepare_cached(sql)
            .and_then(|mut statement| statement.execute(params_from_iter(parameters)));
        match changed {
            Ok(rows) => Ok(rows as u64),
            Err(error) => Err(self.told(&error)),
        }
    }

    fn batch(&mut self, sql: &str) -> Result<(), String> {
        let done = self.connection.execute_batch(sql);
        done.map_err(|error| self.told(&error))
    }

    fn begin(&mut self) -> Result<(), String> {
        self.batch("BEGIN IMMEDIATE")
    }

    fn has_table(&mut self, name: &str) -> Result<bool, String> {
        let sql = "SELECT name FROM sqlite_master WHERE name = $1";
        Ok(!self.query(sql, &[Some(name)])?.is_empty())
    }

    fn is_alive(&self) -> bool {
        identity(&self.path).is_ok_and(|identity| identity == self.identity)
    }
}

fn identity(path: &Path) -> io::Result<(u64, u64)> {
    fs::metadata(path).map(|metadata| (metadata.dev(), metadata.ino()))
}

/// Makes an empty file and its directory, unless there is one.
fn make(path: &Path, readers: Readers) -> io::Result<()> {
    if let Some(directory) = path.parent() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)?;
    }
    let new = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(path);
    match (new, readers) {
        (Err(error), _) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        (Err(error), _) => Err(error),
        (Ok(_), Readers::Owner) => Ok(()),
        (Ok(file), Readers::Group(group)) => {
            std::os::unix::fs::fchown(&file, None, Some(group))?;
            file.set_permissions(Permissions::from_mode(0o640))
        }
    }
}
