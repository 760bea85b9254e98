//! Which accounts of this host may log in, whoever verifies their passwords.

use std::io;
use std::path::{Path, PathBuf};

use super::{Login, Member};
use crate::auth::name::UserName;
use crate::auth::{Identity, Reason};
use crate::config::{self, SourceKind};
use crate::sys::credentials::AccountError;
use crate::sys::guarded;
use crate::sys::ids::SystemUser;

/// The accounts of this host, with what the host's own files say about them.
#[derive(Clone, Debug)]
pub(super) struct Accounts {
    /// Lower user IDs are those of services.
    pub(super) uid_min: u32,
    /// Whether the shell must be one of `shells`.
    pub(super) require_shell: bool,
    /// shells(5)
    pub(super) shells: PathBuf,
    /// Names that may not log in by FTP; need not be there.
    pub(super) refused: PathBuf,
}

impl Accounts {
    pub(super) fn new(users: &config::Users) -> Self {
        Self {
            uid_min: users.system_uid_min,
            require_shell: users.require_shell,
            shells: PathBuf::from(SHELLS),
            refused: PathBuf::from(FTPUSERS),
        }
    }

    /// The account of this name; `None`: the host has none. May ask a directory service (nsswitch.conf(5)).
    ///
    /// # Errors
    /// Why it cannot be found out.
    pub(super) fn find(&self, name: &UserName) -> Result<Option<Account>, String> {
        let user = match SystemUser::lookup(name.as_str()) {
            // Directory services may ignore case: the same account would have several quotas.
            Ok(user) if user.name != name.as_str() => return Ok(None),
            Ok(user) => user,
            Err(AccountError::NoSuchUser(_)) => return Ok(None),
            Err(AccountError::Privileged(_)) => {
                return Ok(Some(Account {
                    user: None,
                    closed: Some(Reason::ServiceAccount),
                }));
            }
            Err(error) => return Err(format!("account {name}: {error}")),
        };
        let closed = self.judge(name, &user)?;
        let user = Some(user);
        Ok(Some(Account { user, closed }))
    }

    /// Why nobody may log in as this account; `None`: somebody may.
    fn judge(&self, name: &UserName, user: &SystemUser) -> Result<Option<Reason>, String> {
        if user.ids.uid < self.uid_min {
            return Ok(Some(Reason::ServiceAccount));
        }
        let refused = lines(&self.refused)?;
        if refused.iter().any(|refused| refused == name.as_str()) {
            return Ok(Some(Reason::NotByFtp));
        }
        if self.require_shell && !self.has_shell(user)? {
            return Ok(Some(Reason::NoShell));
        }
        Ok(None)
    }

    fn has_shell(&self, user: &SystemUser) -> Result<bool, String> {
        // passwd(5): an empty field stands for this one.
        let shell = match user.shell.as_os_str().is_empty() {
            true => Path::new(DEFAULT_SHELL),
            false => &user.shell,
        };
        Ok(lines(&self.shells)?
            .iter()
            .any(|line| shell == Path::new(line)))
    }
}

/// An account of this host.
#[derive(Clone, Debug, Eq, PartialEq)]
pub(super) struct Account {
    /// `None`: root, as whom nobody may act.
    pub(super) user: Option<SystemUser>,
    /// Why nobody may log in as it, whatever the password.
    pub(super) closed: Option<Reason>,
}

impl Account {
    /// Who it is that logs in: the section `default` of the users file says what is theirs, and where it
    /// has no root, that is the home directory.
    ///
    /// # Errors
    /// Why nobody may log in as the account; what is wrong with its home directory.
    pub(super) fn member(
        self,
        login: &Login<'_>,
        kind: SourceKind,
    ) -> Result<Result<Member, Reason>, String> {
        let user = match (self.user, self.closed) {
            (_, Some(reason)) => return Ok(Err(reason)),
            (None, None) => return Ok(Err(Reason::ServiceAccount)),
            (Some(user), None) => user,
        };
        let mut keys = toml::Table::new();
        if !login.users.has_root() {
            let home = user.home.to_str().ok_or_else(|| {
                format!("account {}: the home directory is not UTF-8", login.name)
            })?;
            keys.insert("root".to_owned(), home.into());
        }
        let described = login.users.describe(login.name, &keys, kind.name())?;
        let identity = Identity {
            account: Some(user.ids),
            ..described.member.identity
        };
        Ok(Ok(Member {
            identity,
            // Whatever the section says for virtual users.
            system: None,
            ..described.member
        }))
    }
}

/// The lines of a file without comments; none if it does not exist.
fn lines(path: &Path) -> Result<Vec<String>, String> {
    let content = match guarded::read(path, LISTS_LENGTH_MAX) {
        Ok(content) => content,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(Vec::new()),
        Err(error) => return Err(format!("{}: {error}", path.display())),
    };
    let text = String::from_utf8_lossy(&content);
    let lines = text
        .lines()
        .map(|line| line.split('#').next().unwrap_or_default().trim());
    let lines = lines.filter(|line| !line.is_empty());
    Ok(lines.map(str::to_owned).collect())
}

/// Which shells are those of people.
const SHELLS: &str = "/etc/shells";

/// Whom FTP servers do not let in, since 4.2BSD.
const FTPUSERS: &str = "/etc/ftpusers";

/// passwd(5)
const DEFAULT_SHELL: &str = "/bin/sh";

/// Lists of shells and names are far shorter.
const LISTS_LENGTH_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::sync::Arc;

    use super::*;
    use crate::sys::ids::Ids;

    #[test]
    fn the_lists_of_the_host_close_accounts() {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let list = |name: &str, text: &str| {
            let path = folder.path().join(name);
            fs::write(&path, text).expect("written");
            path
        };
        let accounts = Accounts {
            uid_min: 1000,
            require_shell: true,
            shells: list("shells", "# shells\n\n/bin/sh\n /usr/bin/fish # new\n"),
            refused: list("ftpusers", "#bob\ncarol\n\tdave \n"),
        };
        let free = Accounts {
            require_shell: false,
            refused: "/nonexistent".into(),
            ..accounts.clone()
        };
        let judge = |accounts: &Accounts, name: &str, uid, shell: &str| {
            let user = SystemUser {
                name: name.to_owned(),
                ids: Arc::new(Ids {
                    uid,
                    gid: 1,
                    groups: [].into(),
                }),
                home: "/".into(),
                shell: shell.into(),
            };
            let name = UserName::parse(name.as_bytes()).expect("valid");
            accounts.judge(&name, &user).expect("readable")
        };
        for (name, uid, shell, expected) in [
            ("alice", 1000, "/bin/sh", None),
            ("alice", 1000, "", None),
            ("bob", 1000, "/usr/bin/fish", None),
            ("alice", 999, "/bin/sh", Some(Reason::ServiceAccount)),
            ("carol", 1000, "/bin/sh", Some(Reason::NotByFtp)),
            ("dave", 1000, "/bin/sh", Some(Reason::NotByFtp)),
            ("alice", 1000, "/bin/false", Some(Reason::NoShell)),
        ] {
            assert_eq!(judge(&accounts, name, uid, shell), expected, "{name}");
        }
        assert_eq!(judge(&free, "carol", 1000, "/bin/false"), None);
        let unreadable = lines(folder.path()).expect_err("a folder");
        assert!(unreadable.contains("directory"), "{unreadable}");
    }

    #[test]
    fn accounts_are_those_of_the_user_database() {
        let accounts = Accounts::new(&config::Users::default());
        let find = |name: &[u8]| accounts.find(&UserName::parse(name).expect("valid"));
        assert_eq!(find(b"ringftpd-no-such-name"), Ok(None));
        let root = find(b"root").expect("looked up").expect("found");
        assert_eq!(root.closed, Some(Reason::ServiceAccount));
    }
}
