//! Users of a file of names and hashes, as htpasswd(1) and pam_pwdfile have it. What else there is to a
//! user the section `default` of the users file says.

use std::collections::BTreeMap;
use std::path::PathBuf;

use toml::Table;

use super::file::Watched;
use super::{Found, Hashed, Login, Source};
use crate::auth::import::name_and_hash;
use crate::auth::name::UserName;
use crate::auth::{Identity, Reason, StoredHash, User, UserList};
use crate::config::SourceKind;

/// The users of such a file.
#[derive(Debug)]
pub(in crate::auth) struct OfHtpasswd {
    path: PathBuf,
    file: Watched<Passwords>,
}

/// What the file says.
#[derive(Debug, Default)]
struct Passwords {
    /// `None`: nobody gets in by this name.
    hashes: BTreeMap<UserName, Option<StoredHash>>,
    usual: Option<(usize, StoredHash)>,
}

impl OfHtpasswd {
    pub(in crate::auth) fn new(path: PathBuf) -> Self {
        Self {
            file: Watched::new(path.clone(), parse),
            path,
        }
    }

    fn user(&self, users: &UserList, name: &UserName, hash: StoredHash) -> Result<User, String> {
        let origin = self.path.display().to_string();
        let mut described = users.describe(name, &Table::new(), &origin)?;
        described.password = Some(hash);
        described
            .into_user()
            .ok_or_else(|| format!("user {name} of {origin} has no name"))
    }
}

impl Source for OfHtpasswd {
    fn kind(&self) -> SourceKind {
        SourceKind::Htpasswd
    }

    fn find(&self, login: &Login<'_>) -> Result<Found, String> {
        match self.file.current()?.hashes.get(login.name) {
            None => Ok(Found::Unknown),
            Some(None) => Ok(Found::Hashed(Box::new(Hashed {
                password: None,
                member: Err(Reason::Disabled),
            }))),
            Some(Some(hash)) => {
                let user = self.user(login.users, login.name, hash.clone())?;
                Ok(Found::User(Box::new(user)))
            }
        }
    }

    /// The first ones: each of them costs the start some time.
    fn list(&self, users: &UserList) -> Result<Vec<Identity>, String> {
        if let Err(error) = self.path.metadata() {
            return Err(format!("{}: {error}", self.path.display()));
        }
        let passwords = self.file.current()?;
        let all = passwords.hashes.iter();
        let all = all.filter_map(|(name, hash)| Some((name, hash.clone()?)));
        all.take(LISTED_MAX)
            .map(|(name, hash)| self.user(users, name, hash).map(|user| user.identity()))
            .collect()
    }

    fn count(&self, listed: usize) -> usize {
        let passwords = self.file.current();
        passwords.map_or(listed, |passwords| passwords.hashes.len())
    }

    fn usual(&self, _users: &UserList) -> Option<(usize, StoredHash)> {
        self.file.current().ok()?.usual.clone()
    }
}

/// A line that cannot be read lets nobody in: it may have been meant to lock somebody out. A hash of an
/// unknown kind is its user's matter.
fn parse(text: &str, file: &str) -> Result<Passwords, String> {
    let mut hashes = BTreeMap::new();
    for (index, line) in text.lines().enumerate() {
        if line.trim().is_empty() || line.starts_with('#') {
            continue;
        }
        let number = index + 1;
        let wrong = |reason: &dyn std::fmt::Display| format!("{file}:{number}: {reason}");
        let (name, hash) = name_and_hash(line).map_err(|reason| wrong(&reason))?;
        let name = UserName::parse(name.as_bytes()).map_err(|reason| wrong(&reason))?;
        let hash = hash.inspect_err(|reason| {
            tracing::warn!(
                file,
                line = number,
                reason,
                "nobody can log in as this user"
            );
        });
        if hashes.insert(name, hash.ok()).is_some() {
            return Err(wrong(&"this user is there twice"));
        }
    }
    tracing::info!(file, users = hashes.len(), "users file read");
    let usual = StoredHash::usual(hashes.values().flatten());
    Ok(Passwords { hashes, usual })
}

/// As many as a page of a database has.
const LISTED_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    const MD5: &str = "$1$MlHWYg5L$2yULtJYQOaJVFojxqly1r.";

    #[test]
    fn lines_are_names_and_hashes() {
        let text =
            format!("# comment\n\nalice:{MD5}\nbob:!{MD5}\ncarol:{{SHA}}x\ndave:{MD5}:more\n");
        let passwords = parse(&text, "file").expect("a file");
        let able: Vec<&str> = passwords
            .hashes
            .iter()
            .filter(|(_, hash)| hash.is_some())
            .map(|(name, _)| name.as_str())
            .collect();
        assert_eq!(able, ["alice", "dave"]);
        assert_eq!(passwords.hashes.len(), 4);
        for (text, told) in [
            ("alice\n", "file:1: "),
            ("\n:x\n", "file:2: "),
            (
                &format!("a:{MD5}\na:{MD5}\n"),
                "file:2: this user is there twice",
            ),
        ] {
            let error = parse(text, "file").expect_err(text);
            assert!(error.starts_with(told), "{error}");
            assert!(!error.contains(MD5));
        }
    }
}
