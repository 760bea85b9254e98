//! The users file: read as a whole, read again when it has changed.

use std::collections::BTreeMap;
use std::fs::{File, Metadata};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex, OnceLock, PoisonError};
use std::time::{Duration, Instant, SystemTime};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::name::UserName;
use super::password::StoredHash;
use super::system::SystemAccounts;
use super::validity::Validity;
use super::{Identity, Reason};
use crate::config::section::{Document, Section, Value, Wrong};
use crate::config::{Allowance, Folder, QuotaLimits, Schema, folders, rights, units};
use crate::proto::rights::{RightSet, Rights};
use crate::sys;
use crate::sys::ids::Ids;

/// One virtual user.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct User {
    /// The name.
    pub name: UserName,
    /// The hash of the password.
    pub password: StoredHash,
    /// The directory that the user sees as `/`; absolute.
    pub root: PathBuf,
    /// What the user may do there.
    pub rights: Arc<Rights>,
    /// How much the user may store there.
    pub quota: QuotaLimits,
    /// Other directories that are found there.
    pub folders: Arc<[Folder]>,
    /// What all the user's sessions may take together.
    pub allowance: Allowance,
    /// When and from where the user may log in.
    pub validity: Validity,
    /// The account of this host that the user acts as; `None`: the server's own.
    pub system: Option<String>,
}

impl User {
    /// Why nobody can log in as this user at the moment, from wherever.
    ///
    /// # Errors
    /// The reason.
    pub fn judge_now(&self) -> Result<(), Reason> {
        self.validity
            .judge_time(Timestamp::now(), &TimeZone::system())
    }

    /// The user without the password.
    pub fn identity(&self) -> Identity {
        Identity {
            name: self.name.as_str().to_owned(),
            root: self.root.clone(),
            rights: Arc::clone(&self.rights),
            quota: self.quota,
            folders: Arc::clone(&self.folders),
            allowance: Some(self.allowance),
            account: None,
        }
    }

    /// The same with the account of this host, which is looked up: not on a core.
    pub(super) fn identity_with_account(
        &self,
        accounts: SystemAccounts,
    ) -> Result<Identity, String> {
        Ok(Identity {
            account: self.account(accounts)?,
            ..self.identity()
        })
    }

    pub(super) fn account(&self, accounts: SystemAccounts) -> Result<Option<Arc<Ids>>, String> {
        let account = self.system.as_deref();
        let found = account.map(|account| accounts.find(&self.name, account));
        found.transpose()
    }
}

/// All virtual users, by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UserList {
    users: BTreeMap<UserName, User>,
    nobody: OnceLock<StoredHash>,
}

impl UserList {
    /// Parses the text of a users file; `name` is what errors call it.
    ///
    /// # Errors
    /// What is wrong, with line and column; never with the text of a line, which may be a secret.
    pub fn parse(text: &str, name: &str) -> Result<Self, String> {
        let mut document = Document::new(text, name, SCHEMA).secret();
        let users = read_users(&mut document);
        document.finish().map_err(|error| error.to_string())?;
        Ok(Self {
            users,
            nobody: OnceLock::new(),
        })
    }

    /// The user of this name.
    pub fn get(&self, name: &UserName) -> Option<&User> {
        self.users.get(name)
    }

    /// All users, by name.
    pub fn iter(&self) -> impl Iterator<Item = &User> {
        self.users.values()
    }

    /// The hash to verify for a name that is not in the list, so that the time of a refusal does not
    /// tell which names are: a hash of the cost that most users' hashes have. Whoever has another one
    /// stands out by the time, which no single choice can avoid; new passwords make all alike. It is
    /// one of the users' own, as only that costs the same to the last byte; whether it matches is not
    /// looked at.
    pub(super) fn nobody(&self) -> &StoredHash {
        self.nobody.get_or_init(|| {
            let mut costs: BTreeMap<&str, (usize, &StoredHash)> = BTreeMap::new();
            for user in self.iter() {
                let hash = &user.password;
                costs.entry(hash.cost()).or_insert((0, hash)).0 += 1;
            }
            let most = costs.into_values().max_by_key(|(count, _)| *count);
            most.map_or_else(StoredHash::of_nobody, |(_, hash)| hash.clone())
        })
    }

    pub(super) fn insert(&mut self, user: User) {
        self.users.insert(user.name.clone(), user);
    }

    pub(super) fn remove(&mut self, name: &UserName) -> Option<User> {
        self.users.remove(name)
    }
}

fn read_users(document: &mut Document<'_>) -> BTreeMap<UserName, User> {
    let mut section = document.section("default", SCHEMA[0].1);
    let mut default = Shared::default();
    default.read(&mut section);
    document.close(section);
    let mut users = BTreeMap::new();
    for (name, mut section) in document.subsections("user", SCHEMA[1].1) {
        let mut password = None;
        section.read("password", &mut password, |value| hash(value).map(Some));
        let mut own = default.clone();
        own.read(&mut section);
        let needed = [("password", false), ("root", default.root.is_some())];
        for (key, is_given) in needed {
            if !is_given && !section.has(key) {
                section.refuse(
                    &format!("lacks the key `{key}`"),
                    "set a user up by `ringftpd user add`",
                );
            }
        }
        match (UserName::parse(name.as_bytes()), password) {
            (Err(error), _) => section.refuse(&error.to_string(), "rename or delete this user"),
            (Ok(name), Some(password)) => {
                users.extend(
                    own.into_user(name, password)
                        .map(|user| (user.name.clone(), user)),
                );
            }
            // Refused above.
            (Ok(_), None) => {}
        }
        document.close(section);
    }
    users
}

/// What the section `default` may say for all users, and each user's section for that one.
#[derive(Clone, Debug)]
struct Shared {
    /// `{user}` stands for the name.
    root: Option<PathBuf>,
    rights: Rights,
    quota: QuotaLimits,
    folders: Vec<Folder>,
    allowance: Allowance,
    validity: Validity,
    /// `{user}` stands for the name.
    system: Option<String>,
}

impl Default for Shared {
    fn default() -> Self {
        Self {
            root: None,
            rights: RightSet::READ_ONLY.into(),
            quota: QuotaLimits::default(),
            folders: Vec::new(),
            allowance: Allowance::default(),
            validity: Validity::default(),
            system: None,
        }
    }
}

impl Shared {
    fn read(&mut self, section: &mut Section<'_>) {
        section.read("root", &mut self.root, |value| {
            units::absolute_path(value).map(Some)
        });
        rights::read(section, &mut self.rights);
        self.quota.read(section);
        section.read("folders", &mut self.folders, folders::folders);
        self.allowance.read(section);
        self.validity.read(section);
        section.read("system", &mut self.system, |value| {
            units::text(value, "the name of an account of this host")
                .map(|name| Some(name.to_owned()))
        });
    }

    /// The user of this name; `None`: there is no root.
    fn into_user(self, name: UserName, password: StoredHash) -> Option<User> {
        let named = |path: &Path| match path.to_str() {
            // Names have neither slashes nor dots alone: they lead nowhere else.
            Some(text) => PathBuf::from(text.replace(USER_IN_PATH, name.as_str())),
            None => path.to_owned(),
        };
        let root = named(&self.root?);
        let folders = self.folders.into_iter().map(|folder| Folder {
            directory: named(&folder.directory),
            ..folder
        });
        let folders = folders.collect();
        let system = self.system;
        let system = system.map(|account| account.replace(USER_IN_PATH, name.as_str()));
        Some(User {
            name,
            password,
            root,
            rights: Arc::new(self.rights),
            quota: self.quota,
            folders,
            allowance: self.allowance,
            validity: self.validity,
            system,
        })
    }
}

fn hash(value: &Value<'_>) -> Result<StoredHash, Wrong> {
    // The value itself never goes into the message: it may be a password in the clear.
    let text = units::text(value, "$argon2id$…")?;
    StoredHash::parse(text).map_err(|error| {
        Wrong::new(error.to_string()).hint("set it by `ringftpd user passwd NAME`")
    })
}

/// Where the value of `user.NAME.password` stands in `text`.
pub(super) fn password_place(text: &str, name: &UserName) -> Option<std::ops::Range<usize>> {
    let mut document = Document::new(text, "", SCHEMA).secret();
    read_users(&mut document);
    document.place(&format!("user.{name}.password"))
}

/// The users file as it is now.
#[derive(Debug)]
pub(super) struct UsersFile {
    path: PathBuf,
    last: Mutex<Option<Loaded>>,
}

#[derive(Debug)]
struct Loaded {
    stamp: Stamp,
    /// Shared, because a refusal is repeated as often as somebody tries to log in.
    users: Result<Arc<UserList>, String>,
    /// The host's time zone, which takes reading a file too.
    zone: TimeZone,
    looked: Instant,
}

impl UsersFile {
    pub(super) fn new(path: PathBuf) -> Self {
        Self {
            path,
            last: Mutex::new(None),
        }
    }

    /// The users; read again if the file has changed. A file that does not exist has none.
    ///
    /// A file that cannot be read or understood lets nobody in, not even with what was read
    /// before: the change may have been meant to lock somebody out.
    pub(super) fn current(&self) -> Result<Arc<UserList>, String> {
        let file = match File::open(&self.path) {
            Ok(file) => file,
            Err(error) if error.kind() == io::ErrorKind::NotFound => {
                tracing::debug!(file = %self.path.display(), "users file does not exist");
                return Ok(Arc::default());
            }
            Err(error) => return Err(self.failure(&error)),
        };
        let metadata = file.metadata().map_err(|error| self.failure(&error))?;
        let stamp = Stamp::of(&metadata);
        // A panic elsewhere cannot leave a half-written value: it is replaced as a whole.
        let mut last = self.last.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(loaded) = last.as_mut().filter(|loaded| loaded.stamp == stamp) {
            loaded.zone = TimeZone::system();
            loaded.looked = Instant::now();
            return loaded.users.clone();
        }
        let users = read(file, &self.path).map(Arc::new);
        if let Ok(users) = &users {
            let count = users.iter().count();
            // Now, not when the first unknown name comes, which it would delay.
            users.nobody();
            tracing::info!(file = %self.path.display(), users = count, "users file read");
        }
        *last = stamp.settled(&metadata).then(|| Loaded {
            stamp,
            users: users.clone(),
            zone: TimeZone::system(),
            looked: Instant::now(),
        });
        users
    }

    /// The users, with the time zone, if they are known to be those of the file as it is now. Never
    /// waits, neither for a disk nor for a worker: fit for a core.
    ///
    /// The file's attributes are looked at on the spot, so that a change counts with the next login.
    /// That is enough for a local file system. Another host's may answer from what it remembers: hence
    /// a worker must have opened the file not long ago, too.
    pub(super) fn unchanged(&self) -> Option<(Arc<UserList>, TimeZone)> {
        let found = sys::file::find_cached(&self.path).and_then(|file| file.metadata());
        let stamp = Stamp::of(&found.ok()?);
        // Who holds the lock may be reading the file.
        let last = self.last.try_lock().ok()?;
        let loaded = last
            .as_ref()
            .filter(|loaded| loaded.stamp == stamp && loaded.looked.elapsed() < LOOKED_MAX)?;
        let users = loaded.users.as_ref().ok()?;
        Some((Arc::clone(users), loaded.zone.clone()))
    }

    fn failure(&self, error: &io::Error) -> String {
        format!("{}: {error}", self.path.display())
    }
}

/// Reads and parses an open users file.
fn read(file: File, path: &Path) -> Result<UserList, String> {
    let mut text = String::new();
    let name = path.display().to_string();
    match file.take(FILE_LENGTH_MAX + 1).read_to_string(&mut text) {
        Ok(length) if length as u64 > FILE_LENGTH_MAX => {
            Err(format!("{name}: larger than {} MiB", FILE_LENGTH_MAX >> 20))
        }
        Ok(_) => UserList::parse(&text, &name),
        Err(error) => Err(format!("{name}: {error}")),
    }
}

/// What changes when a file changes: another inode by rename, size and times by writing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Stamp {
    device: u64,
    inode: u64,
    size: u64,
    modified: (i64, i64),
    changed: (i64, i64),
}

impl Stamp {
    fn of(metadata: &Metadata) -> Self {
        Self {
            device: metadata.dev(),
            inode: metadata.ino(),
            size: metadata.size(),
            modified: (metadata.mtime(), metadata.mtime_nsec()),
            changed: (metadata.ctime(), metadata.ctime_nsec()),
        }
    }

    /// Whether the stamp can be relied on: a second write within one tick of the file system's
    /// clock would leave it the same, so a file changed just now is read again next time.
    fn settled(&self, metadata: &Metadata) -> bool {
        metadata
            .modified()
            .ok()
            .and_then(|modified| SystemTime::now().duration_since(modified).ok())
            .is_some_and(|age| age > CLOCK_TICK_MAX)
    }
}

/// The sections and keys of a users file.
const SCHEMA: Schema = &[("default", DEFAULT_KEYS), ("user", USER_KEYS)];

const USER_KEYS: &[&str] = &[
    "password",
    "root",
    "access",
    "deny",
    "hide",
    "rules",
    "quota",
    "quota_files",
    "folders",
    "down",
    "up",
    "sessions",
    "enabled",
    "expires",
    "networks",
    "hours",
    "system",
];

/// All but the password, which nobody shares.
const DEFAULT_KEYS: &[&str] = match USER_KEYS {
    [_, shared @ ..] => shared,
    [] => &[],
};

/// Stands for the user's name in the path of a directory, and in the name of an account.
const USER_IN_PATH: &str = "{user}";

/// Some 50 000 users. More belong into a directory service.
pub(super) const FILE_LENGTH_MAX: u64 = 16 << 20;

/// How long the core goes by its own look at the file. NFS attributes are remembered for 3 s and more
/// (nfs(5), acregmin), and a worker's look costs no more than a trip to its thread.
const LOOKED_MAX: Duration = Duration::from_secs(2);

/// Ten times the coarsest clock tick of Linux (CONFIG_HZ=100), and network file systems' slack.
const CLOCK_TICK_MAX: Duration = Duration::from_millis(100);
