//! What a user is, in the words of the users file; other sources use the same ones.

use std::collections::BTreeMap;
use std::ops::Range;
use std::path::{Path, PathBuf};
use std::sync::{Arc, OnceLock};

use jiff::Timestamp;
use jiff::tz::TimeZone;

use super::name::UserName;
use super::password::StoredHash;
use super::source::Member;
use super::validity::Validity;
use super::{Identity, Reason};
use crate::config::section::{Document, Section, Value, Wrong};
use crate::config::{Allowance, Folder, QuotaLimits, Schema, folders, rights, units};
use crate::proto::rights::{RightSet, Rights};

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
    pub(super) fn member(&self) -> Member {
        Member {
            identity: self.identity(),
            validity: self.validity.clone(),
            system: self.system.clone(),
        }
    }

    /// Who it is that logs in as this user.
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
}

/// All virtual users, by name.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct UserList {
    users: BTreeMap<UserName, User>,
    default: Shared,
    usual: OnceLock<Option<(usize, StoredHash)>>,
}

impl UserList {
    /// Parses the text of a users file; `name` is what errors call it.
    ///
    /// # Errors
    /// What is wrong, with line and column; never with the text of a line, which may be a secret.
    pub fn parse(text: &str, name: &str) -> Result<Self, String> {
        let mut document = Document::new(text, name, SCHEMA).secret();
        let (default, users) = read_users(&mut document);
        document.finish().map_err(|error| error.to_string())?;
        Ok(Self {
            users,
            default,
            usual: OnceLock::new(),
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

    /// A hash of the cost that most users' hashes have, and how many that are.
    pub(super) fn usual(&self) -> Option<&(usize, StoredHash)> {
        let hashes = || StoredHash::usual(self.iter().map(|user| &user.password));
        self.usual.get_or_init(hashes).as_ref()
    }

    /// Whether the section `default` says what users see as `/`.
    pub(super) fn has_root(&self) -> bool {
        self.default.root.is_some()
    }

    pub(super) fn insert(&mut self, user: User) {
        self.users.insert(user.name.clone(), user);
    }

    pub(super) fn remove(&mut self, name: &UserName) -> Option<User> {
        self.users.remove(name)
    }
}

fn read_users(document: &mut Document<'_>) -> (Shared, BTreeMap<UserName, User>) {
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
                    own.into_user(&name, password)
                        .map(|user| (user.name.clone(), user)),
                );
            }
            // Refused above.
            (Ok(_), None) => {}
        }
        document.close(section);
    }
    (default, users)
}

/// What the section `default` may say for all users, and each user's section for that one.
#[derive(Clone, Debug, Eq, PartialEq)]
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
        self.allowance.volume.read(section);
        self.validity.read(section);
        section.read("system", &mut self.system, |value| {
            units::text(value, "the name of an account of this host")
                .map(|name| Some(name.to_owned()))
        });
    }

    /// The user of this name; `None`: there is no root.
    fn into_user(self, name: &UserName, password: StoredHash) -> Option<User> {
        let described = Described {
            password: Some(password),
            member: self.into_member(name)?,
        };
        described.into_user()
    }

    /// Who it is that logs in with this name; `None`: there is no root.
    fn into_member(self, name: &UserName) -> Option<Member> {
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
        let identity = Identity {
            name: name.as_str().to_owned(),
            root,
            rights: Arc::new(self.rights),
            quota: self.quota,
            folders: folders.collect(),
            allowance: Some(self.allowance),
            account: None,
        };
        let system = self.system;
        let system = system.map(|account| account.replace(USER_IN_PATH, name.as_str()));
        Some(Member {
            identity,
            validity: self.validity,
            system,
        })
    }
}

/// A user whom another source than the users file describes, in the same words.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Described {
    /// The hash of the password, if the source has one.
    pub(super) password: Option<StoredHash>,
    /// The user without the password.
    pub(super) member: Member,
}

impl Described {
    /// The user, if there is a hash of the password.
    pub(super) fn into_user(self) -> Option<User> {
        let Member {
            identity,
            validity,
            system,
        } = self.member;
        Some(User {
            name: UserName::parse(identity.name.as_bytes()).ok()?,
            password: self.password?,
            root: identity.root,
            rights: identity.rights,
            quota: identity.quota,
            folders: identity.folders,
            allowance: identity.allowance.unwrap_or_default(),
            validity,
            system,
        })
    }
}

impl UserList {
    /// The user `name` with the keys of a user's section; where they say nothing, the section `default`
    /// of this list does. `origin` is what errors call the source.
    ///
    /// # Errors
    /// What is wrong with the keys; never with a value that may be a secret.
    pub(super) fn describe(
        &self,
        name: &UserName,
        keys: &toml::Table,
        origin: &str,
    ) -> Result<Described, String> {
        // Below a section, so that tables in it stand there as well.
        let keys = toml::Value::Table(keys.clone());
        let document = toml::Table::from_iter([("user".to_owned(), keys)]);
        let text = toml::to_string(&document).map_err(|error| format!("{origin}: {error}"))?;
        let origin = format!("user {name} of {origin}");
        let mut document = Document::new(&text, &origin, SCHEMA).secret();
        let mut section = document.section("user", USER_KEYS);
        let mut password = None;
        section.read("password", &mut password, |value| hash(value).map(Some));
        let mut own = self.default.clone();
        own.read(&mut section);
        document.close(section);
        document.finish().map_err(|error| error.to_string())?;
        let member = own.into_member(name).ok_or_else(|| {
            format!("{origin} has no root, and neither has the section [default] of the users file")
        })?;
        Ok(Described { password, member })
    }
}

fn hash(value: &Value<'_>) -> Result<StoredHash, Wrong> {
    // The value itself never goes into the message: it may be a password in the clear.
    let text = units::text(value, "$argon2id$…")?;
    StoredHash::parse(text).map_err(|error| {
        Wrong::new(error.to_string()).hint("set it by `ringftpd user passwd NAME`")
    })
}

/// Where the values of the keys of a user stand in `text`.
pub(super) fn places(text: &str, name: &UserName) -> Vec<(&'static str, Range<usize>)> {
    let mut document = Document::new(text, "", SCHEMA).secret();
    read_users(&mut document);
    let place = |key: &&'static str| Some((*key, document.place(&format!("user.{name}.{key}"))?));
    USER_KEYS.iter().filter_map(place).collect()
}

/// The sections and keys of a users file.
const SCHEMA: Schema = &[("default", DEFAULT_KEYS), ("user", USER_KEYS)];

pub(super) const USER_KEYS: &[&str] = &[
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
    "volume",
    "volume_down",
    "volume_up",
    "volume_period",
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
