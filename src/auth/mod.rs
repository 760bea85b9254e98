//! Who a client is: anonymous, or a user with a password whom one of several sources knows.
//!
//! Verifying a password takes tens of milliseconds and 19 MiB of memory on purpose, so
//! [`Authenticator::verify`] belongs on a worker thread, never on a core. What a stranger can
//! learn from it is bounded: unknown names cost the same time as wrong passwords of most users, and
//! all get the same answer.

mod counts;
mod database;
mod guard;
mod helpers;
pub mod import;
mod keys;
mod name;
#[cfg(feature = "pam")]
pub mod pam;
mod password;
mod recent;
mod remembered;
mod source;
pub mod store;
mod system;
mod users;
mod validity;

use std::collections::HashMap;
use std::fmt;
use std::net::IpAddr;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::{Duration, Instant};

use jiff::Timestamp;
use jiff::tz::TimeZone;

pub use counts::Counts;
pub use database::Access;
pub use helpers::Helpers;
pub use keys::{keys_of, value_of};
pub use name::{NAME_LENGTH_MAX, NameError, UserName, check_identity_name, is_anonymous};
pub use password::{PASSWORD_LENGTH_MAX, PasswordError, StoredHash};
pub use system::may_act_as_others;
pub use users::{User, UserList};
pub use validity::Validity;

use crate::config::{
    self, Allowance, Config, Folder, GuardLimits, OwnFiles, QuotaLimits, SourceKind,
};
use crate::proto::rights::Rights;
use crate::sys::ids::Ids;
use guard::Guard;
use name::QualifiedName;
use remembered::Remembered;
use source::{
    Found, Hashed, Http, Login, Member, OfDatabase, OfFile, OfHtpasswd, Program, Shadow, Source,
    UsersFile,
};
use system::SystemAccounts;

/// Who logged in, and what is theirs.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Identity {
    /// The name; `anonymous` for all who came without an account. On a virtual host its name stands
    /// before it: `shop/alice`.
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
    /// The account of this host by which the kernel judges them; `None`: that of the server.
    pub account: Option<Arc<Ids>>,
    /// How their files come into being, where it differs from what is configured.
    pub files: OwnFiles,
}

/// Who a client says it is.
#[derive(Clone, Copy, Debug)]
pub struct Claim<'c> {
    /// The virtual host that it wants, by the name of its section; empty: the server itself.
    pub host: &'c str,
    /// What USER said.
    pub user: &'c [u8],
    /// Where it is.
    pub client: IpAddr,
}

impl Claim<'_> {
    /// What failures are counted for; `None`: no user can have that name.
    fn qualified(&self) -> Option<QualifiedName> {
        let name = UserName::parse(self.user).ok()?;
        Some(QualifiedName::new(self.host, name.as_str()))
    }
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
    /// The account has `enabled = false`, or the host has locked it.
    Disabled,
    /// The account has expired.
    Expired,
    /// The account's `networks` do not have the client.
    WrongNetwork,
    /// The account's `hours` do not have this moment.
    OutsideHours,
    /// The password of the host's account is to be changed first.
    PasswordExpired,
    /// The host's account has a shell that is not in /etc/shells.
    NoShell,
    /// The host's account is in /etc/ftpusers.
    NotByFtp,
    /// The host's account is root, or a service's: its uid is too low.
    ServiceAccount,
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
            Self::PasswordExpired => "password-expired",
            Self::NoShell => "no-shell",
            Self::NotByFtp => "not-by-ftp",
            Self::ServiceAccount => "service-account",
            Self::ClientLocked => "client-locked-out",
            Self::UserLocked => "user-locked-out",
        })
    }
}

/// How a password was found to be right.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum By {
    /// At once: it was right a moment ago.
    Memory,
    /// By a hash, or by asking whoever knows; that takes its time.
    Work,
}

/// Decides who may log in. Shared by all cores.
#[derive(Debug)]
pub struct Authenticator {
    /// What a reload replaces.
    hosts: Mutex<Arc<Hosts>>,
    guard: Mutex<Guard>,
    counts: Counts,
    helpers: Helpers,
}

/// Where the users of each host come from, by the name of its section; that of the server is empty.
type Hosts = HashMap<String, Arc<Sources>>;

fn hosts(config: &Config, helpers: &Helpers) -> Hosts {
    let mut databases = Vec::new();
    let mut sources = |host: &str, anonymous, users| {
        let sources = Sources::new(host, anonymous, users, helpers, &mut databases);
        (host.to_owned(), Arc::new(sources))
    };
    let server = sources("", &config.anonymous, &config.users);
    let others = config.hosts.iter();
    let others = others.map(|host| sources(&host.name, &host.anonymous, &host.users));
    others.chain([server]).collect()
}

/// Where users come from.
#[derive(Debug)]
struct Sources {
    anonymous: Option<Identity>,
    /// `None`: nobody but anonymous clients may log in.
    users: Option<UserSources>,
    system: SystemAccounts,
    remembered: Remembered,
}

/// Where users with passwords come from.
#[derive(Debug)]
struct UserSources {
    /// Also what is the same for the users of all sources.
    file: UsersFile,
    /// In the order in which they are asked.
    chain: Vec<Arc<dyn Source>>,
    /// Whether the file is the first of them.
    begins_with_file: bool,
}

impl UserSources {
    /// `databases`: those that hosts before this one have; the same one is shared, with its connections.
    #[cfg_attr(
        not(feature = "pam"),
        expect(unused_variables, reason = "PAM's is the only helper")
    )]
    fn new(users: &config::Users, helpers: &Helpers, databases: &mut Vec<Arc<OfDatabase>>) -> Self {
        let chain = users.sources.iter().filter_map(|kind| {
            let timeout = users.source_timeout;
            Some::<Arc<dyn Source>>(match kind {
                SourceKind::File => Arc::new(OfFile),
                SourceKind::Htpasswd => Arc::new(OfHtpasswd::new(users.htpasswd.clone())),
                SourceKind::Program => Arc::new(Program::new(users.program.clone(), timeout)),
                SourceKind::Http => Arc::new(Http::new(users.http.clone(), timeout)),
                SourceKind::Shadow => Arc::new(Shadow::new(users)),
                #[cfg(feature = "pam")]
                SourceKind::Pam => Arc::new(source::Pam::new(users, helpers.pam.clone())),
                // A configuration without its place is refused.
                SourceKind::Database => OfDatabase::shared(Access::of(users)?, databases),
            })
        });
        Self {
            file: UsersFile::of_users(users.file.clone()),
            chain: chain.collect(),
            begins_with_file: users.sources.first() == Some(&SourceKind::File),
        }
    }

    /// The hash to verify for a name that no source has, so that the time of a refusal does not tell
    /// which names there are: one of the cost that most users' hashes have. Whoever has another one
    /// stands out by the time, which no single choice can avoid; new passwords make all alike. It is
    /// one of the users' own, as only that costs the same to the last byte.
    fn nobody(&self, users: &UserList) -> StoredHash {
        let usual = self.chain.iter().filter_map(|source| source.usual(users));
        let most = usual.max_by_key(|(count, _)| *count);
        most.map_or_else(StoredHash::of_nobody, |(_, hash)| hash)
    }

    /// Hashes a password that nobody has, for the time that it takes.
    fn hash_for_nobody(&self, users: &UserList, password: &[u8]) {
        // The result must be used, or the work could be optimised away.
        std::hint::black_box(self.nobody(users).matches(password));
    }
}

impl Sources {
    fn new(
        host: &str,
        anonymous: &config::Anonymous,
        users: &config::Users,
        helpers: &Helpers,
        databases: &mut Vec<Arc<OfDatabase>>,
    ) -> Self {
        let anonymous = anonymous.enabled.then(|| Identity {
            name: QualifiedName::new(host, name::ANONYMOUS).into_string(),
            root: anonymous.root.clone(),
            rights: Arc::new(anonymous.rights.clone()),
            quota: anonymous.quota,
            folders: anonymous.folders.clone().into(),
            // A reload may change it.
            allowance: None,
            account: None,
            files: anonymous.files,
        });
        Self {
            anonymous,
            system: SystemAccounts::new(users),
            remembered: Remembered::new(users.remember),
            users: users
                .enabled
                .then(|| UserSources::new(users, helpers, databases)),
        }
    }
}

impl Sources {
    /// Lets in who has proved who it is, if the account is open: last, so that one that is closed takes
    /// as long as one that is not.
    fn accept(&self, claim: Claim<'_>, member: Member) -> Outcome {
        let Member {
            identity,
            validity,
            system,
        } = member;
        match validity.judge(claim.client, Timestamp::now(), &TimeZone::system()) {
            Ok(()) => match self.system.complete(identity, system) {
                Ok(identity) => Outcome::Accepted(identity.on(claim.host)),
                Err(reason) => Outcome::Unavailable(reason),
            },
            Err(reason) => Outcome::Refused(reason),
        }
    }
}

impl Authenticator {
    /// Reads nothing yet: the users file may appear, change and vanish while the server runs.
    pub fn new(config: &Config) -> Self {
        Self::with_helpers(config, Helpers::default())
    }

    /// The same with processes that keep root.
    pub fn with_helpers(config: &Config, helpers: Helpers) -> Self {
        Self {
            hosts: Mutex::new(Arc::new(hosts(config, &helpers))),
            guard: Mutex::new(Guard::new()),
            counts: Counts::default(),
            helpers,
        }
    }

    /// Lets others log in from now on. What is known of those who guess stays known.
    pub fn reload(&self, config: &Config) {
        let hosts = Arc::new(hosts(config, &self.helpers));
        *self.hosts.lock().unwrap_or_else(PoisonError::into_inner) = hosts;
    }

    fn hosts(&self) -> Arc<Hosts> {
        Arc::clone(&self.hosts.lock().unwrap_or_else(PoisonError::into_inner))
    }

    /// The users of a host; `None`: a reload has taken it away.
    fn sources(&self, host: &str) -> Option<Arc<Sources>> {
        self.hosts().get(host).map(Arc::clone)
    }

    /// What has become of the logins so far.
    pub fn counts(&self) -> &Counts {
        &self.counts
    }

    /// The identity behind USER `anonymous` or `ftp`, in any case of letters, if anonymous access
    /// is on (RFC 1635). Neither hashes nor blocks.
    pub fn anonymous(&self, claim: Claim<'_>) -> Option<Identity> {
        match is_anonymous(claim.user) {
            true => self.sources(claim.host)?.anonymous.clone(),
            false => None,
        }
    }

    /// What can be said at once, on a core: that the client or the name is locked out, or that the
    /// password was verified a while ago and nothing has changed since. `None`: ask
    /// [`Authenticator::verify`].
    pub fn verify_at_once(&self, claim: Claim<'_>, password: &[u8]) -> Option<Outcome> {
        let (client, now) = (claim.client, Instant::now());
        let name = claim.qualified();
        if let Some(reason) = self.guard().locked(client, name.as_ref(), now) {
            return Some(Outcome::Refused(reason));
        }
        let sources = self.sources(claim.host)?;
        let name = UserName::parse(claim.user).ok();
        let name = name.filter(|_| sources.remembered.is_on())?;
        let chain = sources.users.as_ref()?;
        // Whoever comes before the file may know the name, too.
        let (users, zone) = chain.begins_with_file.then(|| chain.file.unchanged())??;
        // An account of this host is looked up off the core.
        let found = users.get(&name).filter(|user| user.system.is_none())?;
        let stored = found.password.as_text();
        if !sources.remembered.holds(&name, password, stored, now) {
            return None;
        }
        // A refusal is left to the worker, which hashes nothing for it but takes the same way as others.
        found.validity.judge(client, Timestamp::now(), &zone).ok()?;
        Counts::add(&self.counts.remembered);
        Some(Outcome::Accepted(found.identity().on(claim.host)))
    }

    /// Whether `password` is that of `user`, who may log in from `client` now. Blocks for a hash's time
    /// and for what the sources take: call it on a worker.
    pub fn verify(&self, claim: Claim<'_>, password: &[u8]) -> Outcome {
        if let Some(identity) = self.anonymous(claim) {
            return Outcome::Accepted(identity);
        }
        let Some(sources) = self.sources(claim.host) else {
            return Outcome::Unavailable(format!("there is no host {} any more", claim.host));
        };
        let client = claim.client;
        let Some(chain) = &sources.users else {
            return Outcome::Refused(Reason::UnknownUser);
        };
        let users = match chain.file.current() {
            Ok(users) => users,
            Err(reason) => return Outcome::Unavailable(reason),
        };
        let found = match UserName::parse(claim.user) {
            Ok(name) => self.find(
                &sources.remembered,
                chain,
                &Login {
                    name: &name,
                    password,
                    client,
                    host: claim.host,
                    users: &users,
                },
            ),
            Err(_) => Ok(Err(Reason::UnknownUser)),
        };
        match found {
            Ok(Ok((member, by))) => {
                let outcome = sources.accept(claim, member);
                if by == By::Memory && matches!(outcome, Outcome::Refused(_)) {
                    // A quick refusal would tell that the password is right.
                    Counts::add(&self.counts.hashes);
                    chain.hash_for_nobody(&users, password);
                }
                outcome
            }
            Ok(Err(reason)) => {
                if reason == Reason::UnknownUser {
                    Counts::add(&self.counts.hashes);
                    chain.hash_for_nobody(&users, password);
                }
                Outcome::Refused(reason)
            }
            Err(reason) => Outcome::Unavailable(reason),
        }
    }

    /// Whether this user, whom something else than a password has proved, may log in now. Only users of
    /// files and of a database are known without a password. May wait for them: call it on a worker.
    pub fn admit(&self, claim: Claim<'_>) -> Outcome {
        let Some(sources) = self.sources(claim.host) else {
            return Outcome::Unavailable(format!("there is no host {} any more", claim.host));
        };
        let (Some(chain), Ok(name)) = (&sources.users, UserName::parse(claim.user)) else {
            return Outcome::Refused(Reason::UnknownUser);
        };
        let users = match chain.file.current() {
            Ok(users) => users,
            Err(reason) => return Outcome::Unavailable(reason),
        };
        let login = Login {
            name: &name,
            password: b"",
            client: claim.client,
            host: claim.host,
            users: &users,
        };
        use SourceKind::{Database, File, Htpasswd};
        let keeps_users = |kind| matches!(kind, File | Htpasswd | Database);
        let mut chain = chain.chain.iter();
        let found = chain
            .by_ref()
            // Whoever comes later may not know that one who comes first has locked the user out.
            .take_while(|source| keeps_users(source.kind()))
            .map(|source| source.find(&login))
            .find(|found| !matches!(found, Ok(Found::Unknown)));
        match found {
            Some(Ok(Found::User(user))) => sources.accept(claim, user.member()),
            Some(Err(reason)) => Outcome::Unavailable(reason),
            _ => Outcome::Refused(Reason::UnknownUser),
        }
    }

    /// Asks one source after the other for a user with this password.
    fn find(
        &self,
        remembered: &Remembered,
        chain: &UserSources,
        login: &Login<'_>,
    ) -> Result<Result<(Member, By), Reason>, String> {
        let (name, password) = (login.name, login.password);
        for source in &chain.chain {
            let known = remembered.verified(source.kind(), name, password);
            if let Some(member) = known.filter(|member| source.still_has(login, member)) {
                Counts::add(&self.counts.remembered);
                return Ok(Ok((member, By::Memory)));
            }
            return match source.find(login)? {
                Found::Unknown => continue,
                Found::User(user) => {
                    match self.is_password(remembered, name, &user.password, password) {
                        Some(by) => Ok(Ok((user.member(), by))),
                        None => Ok(Err(Reason::WrongPassword)),
                    }
                }
                Found::Hashed(account) => {
                    Ok(self.verify_hashed(remembered, chain, login, *account))
                }
                Found::Verified(member) => {
                    remembered.add_verified(source.kind(), name, password, &member);
                    Ok(Ok((*member, By::Work)))
                }
                Found::Refused(reason) => Ok(Err(reason)),
            };
        }
        Ok(Err(Reason::UnknownUser))
    }

    fn verify_hashed(
        &self,
        remembered: &Remembered,
        chain: &UserSources,
        login: &Login<'_>,
        account: Hashed,
    ) -> Result<(Member, By), Reason> {
        let (name, password) = (login.name, login.password);
        match account.password {
            Some(stored) => {
                let by = self.is_password(remembered, name, &stored, password);
                let by = by.ok_or(Reason::WrongPassword)?;
                if by == By::Memory && account.member.is_err() {
                    Counts::add(&self.counts.hashes);
                    chain.hash_for_nobody(login.users, password);
                }
                account.member.map(|member| (member, by))
            }
            None => {
                Counts::add(&self.counts.hashes);
                chain.hash_for_nobody(login.users, password);
                Err(account.member.err().unwrap_or(Reason::Disabled))
            }
        }
    }

    fn is_password(
        &self,
        remembered: &Remembered,
        name: &UserName,
        stored: &StoredHash,
        password: &[u8],
    ) -> Option<By> {
        if remembered.holds(name, password, stored.as_text(), Instant::now()) {
            Counts::add(&self.counts.remembered);
            return Some(By::Memory);
        }
        Counts::add(&self.counts.hashes);
        stored.matches(password).then(|| {
            remembered.add(name, password, stored.as_text(), Instant::now());
            By::Work
        })
    }

    /// Has the last word on an outcome, and counts it: while a password was looked at, its client may
    /// have been locked out for others that it tried at the same time.
    ///
    /// # Errors
    /// Why the client may not log in, and how long after its question it is told.
    pub fn judge(
        &self,
        claim: Claim<'_>,
        outcome: Result<Identity, Reason>,
        limits: &GuardLimits,
    ) -> Result<Identity, (Reason, Duration)> {
        let (client, now) = (claim.client, Instant::now());
        let name = claim.qualified();
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
                let user = name.as_ref().map(QualifiedName::as_str);
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

    /// What the sources can list of their users, for a check at the start; empty when they are off.
    pub fn users(&self) -> Vec<Listed> {
        let mut all = Vec::new();
        let mut seen = Vec::new();
        for (host, sources) in &*self.hosts() {
            let Some(chain) = &sources.users else {
                continue;
            };
            let users = match chain.file.current() {
                Ok(users) => users,
                Err(reason) => {
                    all.push(Listed {
                        host: host.clone(),
                        source: SourceKind::File,
                        count: 0,
                        users: Err(reason),
                    });
                    continue;
                }
            };
            for source in &chain.chain {
                // Hosts may share a database.
                let place = Arc::as_ptr(source).cast::<()>();
                if seen.contains(&place) {
                    continue;
                }
                seen.push(place);
                let listed = source.list(&users);
                let on_host = |identity: Identity| identity.on(host);
                all.push(Listed {
                    host: host.clone(),
                    source: source.kind(),
                    count: source.count(listed.as_ref().map_or(0, Vec::len)),
                    users: listed.map(|users| users.into_iter().map(on_host).collect()),
                });
            }
        }
        all
    }

    /// Why virtual users cannot act as the accounts of this host that they should, for a start-up check:
    /// at least the first of them.
    pub fn account_problems(&self) -> Vec<String> {
        let mut problems = Vec::new();
        for sources in self.hosts().values() {
            let users = sources.users.as_ref().map(|chain| chain.file.current());
            let Some(Ok(users)) = users else {
                continue;
            };
            let accounts = users
                .iter()
                .filter_map(|user| Some((user.name.as_str(), user.system.as_deref()?)));
            let found = accounts.map(|(user, account)| sources.system.find(user, account));
            problems.extend(found.take(ACCOUNTS_CHECKED_MAX).filter_map(Result::err));
        }
        problems
    }
}

/// What a source can list of its users.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Listed {
    /// The virtual host, by the name of its section; empty: the server itself.
    pub host: String,
    /// Which source it is.
    pub source: SourceKind,
    /// How many users it has.
    pub count: usize,
    /// Names and directories of all of them, or of many, or why they cannot be listed.
    pub users: Result<Vec<Identity>, String>,
}

impl Identity {
    /// The same as a user of a host.
    fn on(self, host: &str) -> Self {
        let name = QualifiedName::new(host, &self.name).into_string();
        Self { name, ..self }
    }
}

/// Accounts that are looked up at the start for each virtual host, which may ask a directory service for each.
const ACCOUNTS_CHECKED_MAX: usize = 256;

#[cfg(test)]
mod tests;
