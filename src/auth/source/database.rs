//! A database of users: asked once for each login that a core does not know by itself.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::thread;
use std::time::{Duration, Instant};

use super::{Found, Login, Source};
use crate::auth::database::{self, Access, COUNT, Connection, FIND, PAGE, Purpose, Record, SAMPLE};
use crate::auth::name::UserName;
use crate::auth::store;
use crate::auth::{Identity, StoredHash, User, UserList};
use crate::config::SourceKind;

/// Users of a table that others write.
pub(in crate::auth) struct OfDatabase {
    access: Access,
    /// Connections that nobody uses at the moment: never more than there are workers.
    idle: Mutex<Vec<Box<dyn Connection>>>,
    usual: Mutex<Option<Usual>>,
}

/// What passwords cost that are in the table.
#[derive(Clone)]
struct Usual {
    seen: Instant,
    hash: Option<(usize, StoredHash)>,
}

impl OfDatabase {
    pub(in crate::auth) fn new(access: Access) -> Self {
        Self {
            access,
            idle: Mutex::new(Vec::new()),
            usual: Mutex::new(None),
        }
    }

    /// The one of `others` with the same access, or a new one.
    pub(in crate::auth) fn shared(access: Access, others: &mut Vec<Arc<Self>>) -> Arc<Self> {
        if let Some(same) = others.iter().find(|other| other.access == access) {
            return Arc::clone(same);
        }
        let new = Arc::new(Self::new(access));
        others.push(Arc::clone(&new));
        new
    }

    /// Asks on a connection that is there, or on a new one: one that was left open may have died since.
    fn ask<T>(
        &self,
        question: impl Fn(&mut dyn Connection) -> Result<T, String>,
    ) -> Result<T, String> {
        let begun = Instant::now();
        let left = lock(&self.idle).pop();
        if let Some(mut connection) = left.filter(|connection| connection.is_alive()) {
            match question(connection.as_mut()) {
                Ok(answer) => {
                    lock(&self.idle).push(connection);
                    return Ok(answer);
                }
                // There is no time for a second try.
                Err(reason) if begun.elapsed() >= self.access.timeout => return Err(reason),
                Err(_) => {}
            }
        }
        let mut connection = database::open(&self.access, Purpose::Read)?;
        let answer = question(connection.as_mut())?;
        lock(&self.idle).push(connection);
        Ok(answer)
    }

    /// Sees now and then what the users' passwords cost; for known names and unknown ones alike.
    fn look_at_costs(&self) -> Result<(), String> {
        let seen = lock(&self.usual).as_ref().map(|usual| usual.seen);
        if seen.is_some_and(|seen| seen.elapsed() < COSTS_GOOD_FOR) {
            return Ok(());
        }
        let sample = self.ask(|connection| connection.query(SAMPLE, &[]))?;
        let hashes = sample.into_iter().flatten().flatten();
        let hashes: Vec<StoredHash> = hashes
            .filter_map(|text| StoredHash::parse(&text).ok())
            .collect();
        *lock(&self.usual) = Some(Usual {
            seen: Instant::now(),
            hash: StoredHash::usual(hashes.iter()),
        });
        Ok(())
    }
}

impl Source for OfDatabase {
    fn kind(&self) -> SourceKind {
        SourceKind::Database
    }

    fn find(&self, login: &Login<'_>) -> Result<Found, String> {
        self.look_at_costs()?;
        let name = login.name.as_str();
        let rows = self.ask(|connection| connection.query(&FIND, &[Some(name)]))?;
        match rows.into_iter().next() {
            None => Ok(Found::Unknown),
            Some(row) => {
                let user = user_of(login.users, login.name, database::table_of(row))?;
                Ok(Found::User(Box::new(user)))
            }
        }
    }

    /// Those of the first page: each of them costs the start some time.
    fn list(&self, users: &UserList) -> Result<Vec<Identity>, String> {
        let rows = self.ask(|connection| connection.query(&PAGE, &[Some("")]))?;
        let identity = |row: Record| {
            let name = store::parse_name(database::name_of(&row))?;
            user_of(users, &name, database::table_of(row)).map(|user| user.identity())
        };
        rows.into_iter().map(identity).collect()
    }

    fn count(&self, listed: usize) -> usize {
        let answer = self.ask(|connection| connection.query(COUNT, &[]));
        let count = answer
            .ok()
            .and_then(|rows| rows.into_iter().next()?.into_iter().next()?);
        count.and_then(|count| count.parse().ok()).unwrap_or(listed)
    }

    fn usual(&self, _users: &UserList) -> Option<(usize, StoredHash)> {
        lock(&self.usual)
            .as_ref()
            .and_then(|usual| usual.hash.clone())
    }
}

impl Drop for OfDatabase {
    /// Closing a connection waits for the network, and whoever drops this last may be a core.
    fn drop(&mut self) {
        let idle = std::mem::take(&mut *lock(&self.idle));
        if !idle.is_empty() {
            thread::spawn(move || drop(idle));
        }
    }
}

impl fmt::Debug for OfDatabase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("OfDatabase")
            .field("access", &self.access)
            .finish_non_exhaustive()
    }
}

fn user_of(users: &UserList, name: &UserName, keys: toml::Table) -> Result<User, String> {
    users
        .describe(name, &keys, "the database")?
        .into_user()
        .ok_or_else(|| format!("user {name} of the database has no password hash"))
}

fn lock<T>(mutex: &Mutex<T>) -> MutexGuard<'_, T> {
    // What they hold is replaced as a whole.
    mutex.lock().unwrap_or_else(PoisonError::into_inner)
}

/// How often it is looked what passwords cost: they change when users get new ones.
const COSTS_GOOD_FOR: Duration = Duration::from_secs(600);
