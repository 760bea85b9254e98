//! Who a client is: anonymous, or a virtual user with a password.
//!
//! Verifying a password takes tens of milliseconds and 19 MiB of memory on purpose, so
//! [`Authenticator::verify`] belongs on a worker thread, never on a core. What a stranger can
//! learn from it is bounded: unknown names cost the same time as wrong passwords of most users, and
//! all get the same answer.

mod counts;
pub mod edit;
mod guard;
pub mod import;
mod name;
mod password;
mod recent;
mod remembered;
mod users;
mod validity;

use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use counts::Counts;
pub use name::{NAME_LENGTH_MAX, NameError, UserName, is_anonymous};
pub use password::{PASSWORD_LENGTH_MAX, PasswordError, StoredHash};
pub use users::{User, UserList};
pub use validity::Validity;

use crate::config::{self, Allowance, Folder, GuardLimits, QuotaLimits};
use crate::proto::rights::Rights;
use guard::Guard;
use remembered::Remembered;
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
    /// It may not log in; why is the operator's business, and never the client's.
    Refused(Reason),
    /// It could not be found out. The text is for the operator's log, not for the client; it holds
    /// no secrets.
    Unavailable(String),
}

/// Why a login is refused, for the log.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Reason {
    /// There is no such user.
    UnknownUser,
    /// The password is another one.
    WrongPassword,
    /// The account has `enabled = false`.
    Disabled,
    /// The account has expired.
    Expired,
    /// The account's `networks` do not have the client.
    WrongNetwork,
    /// The account's `hours` do not have this moment.
    OutsideHours,
    /// The client has failed too often.
    ClientLocked,
    /// Too many logins with this name have failed, and the client is a stranger.
    UserLocked,
}

impl Reason {
    /// Whether it is a lockout, in which no password is looked at.
    pub fn is_lockout(self) -> bool {
        matches!(self, Self::ClientLocked | Self::UserLocked)
    }
}

impl fmt::Display for Reason {
    /// One word, for programs that read the log.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::UnknownUser => "unknown-user",
            Self::WrongPassword => "wrong-password",
            Self::Disabled => "disabled",
            Self::Expired => "expired",
            Self::WrongNetwork => "wrong-network",
            Self::OutsideHours => "outside-hours",
            Self::ClientLocked => "client-locked-out",
            Self::UserLocked => "user-locked-out",
        })
    }
}

/// Decides who may log in. Shared by all cores.
#[derive(Debug)]
pub struct Authenticator {
    /// What a reload replaces.
    sources: Mutex<Arc<Sources>>,
    guard: Mutex<Guard>,
    counts: Counts,
}

/// Where users come from.
#[derive(Debug)]
struct Sources {
    anonymous: Option<Identity>,
    users: Option<UsersFile>,
    remembered: Remembered,
}

impl Sources {
    fn new(anonymous: &config::Anonymous, users: &config::Users) -> Self {
        let anonymous = anonymous.enabled.then(|| Identity {
            name: name::ANONYMOUS.to_owned(),
            root: anonymous.root.clone(),
            rights: Arc::new(anonymous.rights.clone()),
            quota: anonymous.quota,
            folders: anonymous.folders.clone().into(),
            // A reload may change it.
            allowance: None,
        });
        Self {
            anonymous,
            remembered: Remembered::new(users.remember),
            users: users.enabled.then(|| UsersFile::new(users.file.clone())),
        }
    }
}

impl Authenticator {
    /// Reads nothing yet: the users file may appear, change and vanish while the server runs.
    pub fn new(anonymous: &config::Anonymous, users: &config::Users) -> Self {
        Self {
            sources: Mutex::new(Arc::new(Sources::new(anonymous, users))),
            guard: Mutex::new(Guard::new()),
            counts: Counts::default(),
        }
    }

    /// Lets others log in from now on. What is known of those who guess stays known.
    pub fn reload(&self, anonymous: &config::Anonymous, users: &config::Users) {
        let sources = Arc::new(Sources::new(anonymous, users));
        *self.sources.lock().unwrap_or_else(PoisonError::into_inner) = sources;
    }

    fn sources(&self) -> Arc<Sources> {
        Arc::clone(&self.sources.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// What has become of the logins so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The identity behind USER `anonymous` or `ftp`, in any case of letters, if anonymous access
    /// is on (RFC 1635). Neither hashes nor blocks.
    pub fn anonymous(&self, user: &[u8]) -> Option<Identity> {
        if is_anonymous(user) {
            self.sources().anonymous.clone()
        } else {
            None
        }
    }

    /// What can be said at once, on a core: that the client or the name is locked out, or that the
    /// password was verified a while ago and nothing has changed since. `None`: ask
    /// [`Authenticator::verify`].
    pub fn verify_at_once(&self, user: &[u8], password: &[u8], client: IpAddr) -> Option<Outcome> {
        let (name, now) = (UserName::parse(user).ok(), Instant::now());
        if let Some(reason) = self.guard().locked(client, name.as_ref(), now) {
            return Some(Outcome::Refused(reason));
        }
        let sources = self.sources();
        let name = name.filter(|_| sources.remembered.is_on())?;
        let (users, zone) = sources.users.as_ref()?.unchanged()?;
        let found = users.get(&name)?;
        let stored = found.password.as_text();
        if !sources.remembered.holds(&name, password, stored, now) {
            return None;
        }
        // A refusal is left to the worker, which hashes nothing for it but takes the same way as others.
        found.validity.judge(client, Timestamp::now(), &zone).ok()?;
        Counts::add(&self.counts.remembered);
        Some(Outcome::Accepted(found.identity()))
    }

    /// Whether `password` is that of `user`, who may log in from `client` now. Blocks for a hash's time
    /// and reads the users file when it has changed: call it on a worker.
    pub fn verify(&self, user: &[u8], password: &[u8], client: IpAddr) -> Outcome {
        if let Some(identity) = self.anonymous(user) {
            return Outcome::Accepted(identity);
        }
        let sources = self.sources();
        let Some(file) = &sources.users else {
            return Outcome::Refused(Reason::UnknownUser);
        };
        let users = match file.current() {
            Ok(users) => users,
            Err(reason) => return Outcome::Unavailable(reason),
        };
        let known = UserName::parse(user).ok().and_then(|name| users.get(&name));
        let Some(found) = known else {
            // The time of a refusal must not tell which names exist.
            Counts::add(&self.counts.hashes);
            // The result must be used, or the work could be optimised away.
            std::hint::black_box(users.nobody().matches(password));
            return Outcome::Refused(Reason::UnknownUser);
        };
        if !self.is_password_of(&sources.remembered, found, password) {
            return Outcome::Refused(Reason::WrongPassword);
        }
        // Last, so that an account that is closed takes as long as one that is not.
        let zone = TimeZone::system();
        match found.validity.judge(client, Timestamp::now(), &zone) {
            Ok(()) => Outcome::Accepted(found.identity()),
            Err(reason) => Outcome::Refused(reason),
        }
    }

    /// Whether `user`, whom something else than a password has proved, may log in from `client` now. May
    /// read the users file: call it on a worker.
    pub fn admit(&self, user: &[u8], client: IpAddr) -> Outcome {
        let sources = self.sources();
        let Some(file) = &sources.users else {
            return Outcome::Refused(Reason::UnknownUser);
        };
        let users = match file.current() {
            Ok(users) => users,
            Err(reason) => return Outcome::Unavailable(reason),
        };
        let known = UserName::parse(user).ok().and_then(|name| users.get(&name));
        let Some(found) = known else {
            return Outcome::Refused(Reason::UnknownUser);
        };
        match found
            .validity
            .judge(client, Timestamp::now(), &TimeZone::system())
        {
            Ok(()) => Outcome::Accepted(found.identity()),
            Err(reason) => Outcome::Refused(reason),
        }
    }

    fn is_password_of(&self, remembered: &Remembered, user: &User, password: &[u8]) -> bool {
        let stored = user.password.as_text();
        if remembered.holds(&user.name, password, stored, Instant::now()) {
            Counts::add(&self.counts.remembered);
            return true;
        }
        Counts::add(&self.counts.hashes);
        let matches = user.password.matches(password);
        if matches {
            remembered.add(&user.name, password, stored, Instant::now());
        }
        matches
    }

    /// Has the last word on an outcome, and counts it: while a password was looked at, its client may
    /// have been locked out for others that it tried at the same time.
    ///
    /// # Errors
    /// Why the client may not log in, and how long after its question it is told.
    pub fn judge(
        &self,
        user: &[u8],
        client: IpAddr,
        outcome: Result<Identity, Reason>,
        limits: &GuardLimits,
    ) -> Result<Identity, (Reason, Duration)> {
        let (name, now) = (UserName::parse(user).ok(), Instant::now());
        let mut guard = self.guard();
        if let Some(reason) = guard.locked(client, name.as_ref(), now) {
            Counts::add(&self.counts.locked_out);
            return Err((reason, limits.delay_max));
        }
        let reason = match outcome {
            Ok(identity) => {
                if let Some(name) = &name {
                    guard.accepted(client, name, now);
                }
                return Ok(identity);
            }
            Err(reason) => reason,
        };
        let consequence = guard.failed(client, name.as_ref(), limits, now);
        drop(guard);
        Counts::add(&self.counts.refused);
        let seconds = limits.lockout.as_secs();
        match consequence.locks_out {
            Some(Reason::UserLocked) => {
                let user = name.as_ref().map(UserName::as_str);
                tracing::warn!(user, seconds, "strangers are locked out of a user");
            }
            Some(_) => tracing::warn!(peer = %client, seconds, "a client is locked out"),
            None => {}
        }
        Err((reason, consequence.delay))
    }

    fn guard(&self) -> MutexGuard<'_, Guard> {
        // After a panic elsewhere a count may be one too low; that is no reason to let nobody in.
        self.guard.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Names and directories of all virtual users, for a start-up check; empty when they are off
    /// or the file does not exist.
    ///
    /// # Errors
    /// What is wrong with the users file.
    pub fn users(&self) -> Result<Vec<Identity>, String> {
        let sources = self.sources();
        let Some(file) = &sources.users else {
            return Ok(Vec::new());
        };
        file.current()
            .map(|users| users.iter().map(User::identity).collect())
    }
}

#[cfg(test)]
mod tests;
