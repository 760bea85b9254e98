//! A database as a store of users.

use std::ops::ControlFlow;
use std::path::PathBuf;

use toml::Table;

use super::{
    Change, Entry, FileStore, Readers, Store, StoreError, Take, changed, parse_name, user_of,
};
use crate::auth::database::{self, Access, Connection, Purpose, Record};
use crate::auth::name::UserName;

/// The users of a database. Connected when it is asked for the first time.
pub struct DatabaseStore {
    access: Access,
    readers: Readers,
    /// Where the section `default` is.
    file: FileStore,
    /// Whether the connection may write.
    connection: Option<(bool, Box<dyn Connection>)>,
}

impl DatabaseStore {
    /// `file`: the users file, whose section `default` is for the users of the database, too.
    pub fn new(access: Access, readers: Readers, file: PathBuf) -> Self {
        Self {
            access,
            readers,
            file: FileStore::new(file, readers),
            connection: None,
        }
    }

    fn reader(&mut self) -> Result<&mut dyn Connection, StoreError> {
        if self.connection.is_none() {
            let connection = database::open(&self.access, Purpose::Read);
            self.connection = Some((false, connection.map_err(StoreError::Invalid)?));
        }
        self.connected()
    }

    /// With tables as they have to be; one that is not there is made.
    fn writer(&mut self) -> Result<&mut dyn Connection, StoreError> {
        if !self.connection.as_ref().is_some_and(|(writes, _)| *writes) {
            let purpose = Purpose::Write(self.readers);
            let opened = database::open(&self.access, purpose).and_then(|mut connection| {
                database::migrate(connection.as_mut(), &self.access.database)?;
                Ok(connection)
            });
            self.connection = Some((true, opened.map_err(StoreError::Invalid)?));
        }
        self.connected()
    }

    fn connected(&mut self) -> Result<&mut dyn Connection, StoreError> {
        let title = self.title();
        match &mut self.connection {
            Some((_, connection)) => Ok(connection.as_mut()),
            None => Err(StoreError::Invalid(format!("{title}: not open"))),
        }
    }

    /// Changes something, as a whole or not at all.
    fn transact<T>(
        &mut self,
        change: impl FnOnce(&mut dyn Connection) -> Result<T, StoreError>,
    ) -> Result<T, StoreError> {
        let connection = self.writer()?;
        connection.begin().map_err(StoreError::Invalid)?;
        let done = change(connection);
        let end = match &done {
            Ok(_) => "COMMIT",
            Err(_) => "ROLLBACK",
        };
        let ended = connection.batch(end).map_err(StoreError::Invalid);
        // The first failure is the one to tell.
        done.and_then(|done| ended.map(|()| done))
    }

    fn unknown(&self, name: &UserName) -> StoreError {
        StoreError::Unknown {
            name: name.clone(),
            place: self.title(),
        }
    }

    /// Gives all rows, a page at a time.
    fn rows(&mut self, take: &mut dyn FnMut(Record) -> ControlFlow<()>) -> Result<(), StoreError> {
        let connection = self.reader()?;
        let mut after = String::new();
        loop {
            let page = connection.query(&database::PAGE, &[Some(after.as_str())]);
            let page = page.map_err(StoreError::Invalid)?;
            let Some(last) = page.last() else {
                return Ok(());
            };
            after = database::name_of(last).to_owned();
            for record in page {
                if take(record).is_break() {
                    return Ok(());
                }
            }
        }
    }
}

impl Store for DatabaseStore {
    fn title(&self) -> String {
        self.access.database.to_string()
    }

    fn default_keys(&mut self) -> Result<Table, StoreError> {
        self.file.default_keys()
    }

    fn migrate(&mut self) -> Result<bool, StoreError> {
        let purpose = Purpose::Write(self.readers);
        let connection = database::open(&self.access, purpose);
        let mut connection = connection.map_err(StoreError::Invalid)?;
        database::migrate(connection.as_mut(), &self.access.database).map_err(StoreError::Invalid)
    }

    fn find(&mut self, name: &UserName) -> Result<Option<Table>, StoreError> {
        find(self.reader()?, name)
    }

    fn add_all(&mut self, users: Vec<Entry>) -> Result<Vec<UserName>, StoreError> {
        let (list, title) = (self.file.list()?, self.title());
        for (name, keys) in &users {
            user_of(&list, name, keys, &title)?;
        }
        self.transact(|connection| {
            let mut known = Vec::new();
            for (name, keys) in users {
                if write(connection, &database::ADD, &name, &keys)? == 0 {
                    known.push(name);
                }
            }
            Ok(known)
        })
    }

    fn change(&mut self, name: &UserName, changes: &[Change]) -> Result<(), StoreError> {
        // Changing makes no database that is not there.
        self.reader()?;
        let (list, title) = (self.file.list()?, self.title());
        let unknown = self.unknown(name);
        self.transact(|connection| {
            let keys = changed(find(connection, name)?.ok_or(unknown)?, changes);
            user_of(&list, name, &keys, &title)?;
            write(connection, &database::UPDATE, name, &keys).map(drop)
        })
    }

    fn delete(&mut self, name: &UserName) -> Result<(), StoreError> {
        self.reader()?;
        let unknown = self.unknown(name);
        self.transact(|connection| {
            let removed = connection.execute(database::REMOVE, &[Some(name.as_str())]);
            match removed.map_err(StoreError::Invalid)? {
                0 => Err(unknown),
                _ => Ok(()),
            }
        })
    }

    fn widest(&mut self) -> Result<usize, StoreError> {
        let answer = self.reader()?.query(database::WIDEST, &[]);
        let width = answer.map_err(StoreError::Invalid)?.into_iter().flatten();
        let width = width.flatten().next();
        Ok(width
            .and_then(|width| width.parse().ok())
            .unwrap_or_default())
    }

    fn each(&mut self, take: &mut Take<'_>) -> Result<(), StoreError> {
        let list = self.file.list()?;
        let described = |name: &str, keys: &Table| {
            let parsed = parse_name(name)?;
            let user = user_of(&list, &parsed, keys, "the database");
            user.map_err(|error| error.to_string())
        };
        self.rows(&mut |record| {
            let name = database::name_of(&record).to_owned();
            match described(&name, &database::table_of(record)) {
                Ok(user) => take(&name, Ok(&user)),
                Err(reason) => take(&name, Err(reason)),
            }
        })
    }

    fn entries(&mut self) -> Result<Vec<Entry>, StoreError> {
        let mut entries = Vec::new();
        let mut wrong = None;
        self.rows(&mut |record| match parse_name(database::name_of(&record)) {
            Ok(name) => {
                entries.push((name, database::table_of(record)));
                ControlFlow::Continue(())
            }
            Err(reason) => {
                wrong = Some(StoreError::Invalid(reason));
                ControlFlow::Break(())
            }
        })?;
        wrong.map_or(Ok(entries), Err)
    }
}

impl std::fmt::Debug for DatabaseStore {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("DatabaseStore")
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

fn find(connection: &mut dyn Connection, name: &UserName) -> Result<Option<Table>, StoreError> {
    let rows = connection.query(&database::FIND, &[Some(name.as_str())]);
    let row = rows.map_err(StoreError::Invalid)?.into_iter().next();
    Ok(row.map(database::table_of))
}

fn write(
    connection: &mut dyn Connection,
    sql: &str,
    name: &UserName,
    keys: &Table,
) -> Result<u64, StoreError> {
    let record = database::values_of(name, keys).map_err(StoreError::Invalid)?;
    let parameters: Vec<Option<&str>> = record.iter().map(Option::as_deref).collect();
    connection
        .execute(sql, &parameters)
        .map_err(StoreError::Invalid)
}
