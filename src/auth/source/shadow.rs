//! The accounts of this host, with the passwords of /etc/shadow (shadow(5)).

use std::io;
use std::path::PathBuf;
use std::time::SystemTime;

use super::accounts::{Account, Accounts};
use super::{Found, Hashed, Login, Source};
use crate::auth::password::StoredHash;
use crate::auth::{Identity, Reason, UserList};
use crate::config::{self, SourceKind};
use crate::sys::guarded;

/// Looked at anew for each login, so that a change counts with the next one.
#[derive(Debug)]
pub(in crate::auth) struct Shadow {
    accounts: Accounts,
    file: PathBuf,
}

impl Shadow {
    pub(in crate::auth) fn new(users: &config::Users) -> Self {
        Self {
            accounts: Accounts::new(users),
            file: PathBuf::from(FILE),
        }
    }

    fn read(&self) -> Result<Vec<u8>, String> {
        guarded::read(&self.file, FILE_LENGTH_MAX).map_err(|error| {
            let path = self.file.display();
            let hint = match error.kind() {
                io::ErrorKind::PermissionDenied => {
                    "; let its group read it (chgrp shadow FILE && chmod 640 FILE), and start the \
                     server as root or with CAP_SETUID and CAP_SETGID"
                }
                _ => "",
            };
            format!("{path}: {error}{hint}")
        })
    }

    /// What is known of a login to this account on a day since 1970.
    fn judge(&self, login: &Login<'_>, account: Account, today: i64) -> Result<Found, String> {
        let content = self.read()?;
        let content = String::from_utf8_lossy(&content);
        let name = login.name.as_str();
        let Some(entry) = content.lines().find_map(|line| Entry::of(line, name)) else {
            // Its password is elsewhere.
            return Ok(Found::Unknown);
        };
        let password = StoredHash::parse(entry.password);
        if let (false, Err(error)) = (entry.is_locked(), &password) {
            tracing::warn!(user = name, %error, "the password in the shadow file is not taken");
        }
        let password = password.ok().filter(|_| !entry.is_locked());
        let closed = match &password {
            None => Some(Reason::Disabled),
            Some(_) => entry.expiry(today),
        };
        let account = Account {
            closed: account.closed.or(closed),
            ..account
        };
        let member = account.member(login, self.kind())?;
        Ok(Found::Hashed(Box::new(Hashed { password, member })))
    }
}

impl Source for Shadow {
    fn kind(&self) -> SourceKind {
        SourceKind::Shadow
    }

    fn find(&self, login: &Login<'_>) -> Result<Found, String> {
        match self.accounts.find(login.name)? {
            Some(account) => self.judge(login, account, today()),
            None => Ok(Found::Unknown),
        }
    }

    fn list(&self, _users: &UserList) -> Result<Vec<Identity>, String> {
        self.read().map(|_| Vec::new())
    }

    fn usual(&self, _users: &UserList) -> Option<(usize, StoredHash)> {
        let content = self.read().ok()?;
        let content = String::from_utf8_lossy(&content);
        let passwords = content.lines().filter_map(|line| line.split(':').nth(1));
        let hashes: Vec<StoredHash> = passwords
            .filter_map(|password| StoredHash::parse(password).ok())
            .collect();
        StoredHash::usual(hashes.iter())
    }
}

/// A line of shadow(5); numbers are days, since 1970 or of a span.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Entry<'l> {
    password: &'l str,
    changed: Option<i64>,
    age_max: Option<i64>,
    expires: Option<i64>,
}

impl<'l> Entry<'l> {
    /// The entry in a line, if it is that of this account.
    fn of(line: &'l str, name: &str) -> Option<Self> {
        let fields: Vec<&str> = line.split(':').collect();
        // Negative numbers stand for none, as empty fields do.
        let days = |place: usize| {
            let days = fields.get(place)?.trim().parse().ok();
            days.filter(|days| *days >= 0)
        };
        (fields.first() == Some(&name)).then(|| Self {
            password: fields.get(1).copied().unwrap_or_default(),
            changed: days(2),
            age_max: days(4),
            expires: days(7),
        })
    }

    /// Whether the account has no password that anybody could know: by passwd(1), or because it never
    /// had one. An empty one lets nobody in either.
    fn is_locked(&self) -> bool {
        self.password.is_empty() || self.password.starts_with(['!', '*'])
    }

    /// Why the account cannot be used on this day, as pam_unix(8) judges.
    fn expiry(&self, today: i64) -> Option<Reason> {
        if self.expires.is_some_and(|expires| today >= expires) {
            return Some(Reason::Expired);
        }
        match (self.changed, self.age_max) {
            // shadow(5): it is to be changed at the next login, which FTP cannot do.
            (Some(0), _) => Some(Reason::PasswordExpired),
            (Some(changed), Some(age_max)) if today - changed > age_max => {
                Some(Reason::PasswordExpired)
            }
            _ => None,
        }
    }
}

/// Days since 1970, in UTC as passwd(1) counts them.
fn today() -> i64 {
    let now = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    now.map_or(0, |now| (now.as_secs() / DAY_SECONDS).cast_signed())
}

const FILE: &str = "/etc/shadow";

/// Some 100 000 accounts. More belong into a directory service.
const FILE_LENGTH_MAX: u64 = 16 << 20;

const DAY_SECONDS: u64 = 24 * 60 * 60;

#[cfg(test)]
mod tests {
    use std::fs;
    use std::net::{IpAddr, Ipv4Addr};
    use std::path::Path;
    use std::sync::Arc;

    use super::*;
    use crate::auth::UserName;
    use crate::sys::ids::{Ids, SystemUser};

    /// Of "correct horse", by crypt(3).
    const HASH: &str = "$y$j9T$RingftpdSalt$tD1HaUeMfuWfzZToOhVDiaeIf65s.KJ25Urk4eciqqA";

    const TODAY: i64 = 20_000;

    fn account() -> Account {
        Account {
            user: Some(SystemUser {
                name: "alice".to_owned(),
                ids: Arc::new(Ids {
                    uid: 61_234,
                    gid: 61_235,
                    groups: [].into(),
                }),
                home: "/home/alice".into(),
                shell: "/bin/sh".into(),
            }),
            closed: None,
        }
    }

    /// What is known of alice with these lines of a shadow file and this users file.
    fn judge(lines: &str, users: &str, account: Account) -> Result<Found, String> {
        let folder = tempfile::tempdir().expect("a temporary directory");
        let file = folder.path().join("shadow");
        fs::write(&file, lines).expect("written");
        let shadow = Shadow {
            file,
            ..Shadow::new(&config::Users::default())
        };
        let name = UserName::parse(b"alice").expect("valid");
        let users = UserList::parse(users, "users.toml").expect("valid");
        let login = Login {
            name: &name,
            password: b"correct horse",
            client: IpAddr::V4(Ipv4Addr::LOCALHOST),
            host: "",
            users: &users,
        };
        shadow.judge(&login, account, TODAY)
    }

    fn hashed(lines: &str, users: &str) -> Hashed {
        match judge(lines, users, account()) {
            Ok(Found::Hashed(hashed)) => *hashed,
            other => panic!("{lines}: {other:?}"),
        }
    }

    #[test]
    fn an_account_has_its_own_ids_and_what_the_users_file_says_for_all() {
        let line = format!("bob:*:1::::::\nalice:{HASH}:19000:0:99999:7:::\nalice:!:::::::\n");
        let hashed = hashed(
            &line,
            "[default]\naccess = \"read-write\"\nsystem = \"x\"\n",
        );
        assert!(hashed.password.expect("a hash").matches(b"correct horse"));
        let member = hashed.member.expect("open");
        assert_eq!(member.system, None);
        let identity = member.identity;
        assert_eq!(identity.root, Path::new("/home/alice"));
        assert_eq!(identity.account.expect("an account").uid, 61_234);
        let hashed = self::hashed(&line, "[default]\nroot = \"/srv/{user}\"\n");
        let identity = hashed.member.expect("open").identity;
        assert_eq!(identity.root, Path::new("/srv/alice"));
    }

    #[test]
    fn the_fields_of_the_line_close_an_account() {
        use Reason::{Disabled, Expired, PasswordExpired};
        for (fields, reason) in [
            ("HASH:19000:0:99999:7:::", None),
            ("HASH", None),
            ("HASH:::::::", None),
            ("HASH:-1:-1:-1:-1:-1:-1:", None),
            ("HASH:20001:0:5:7:::", None),
            ("!HASH:19000:0:99999:7:::", Some(Disabled)),
            ("*:19000:0:99999:7:::", Some(Disabled)),
            (":19000:0:99999:7:::", Some(Disabled)),
            // DES, and a form that nobody knows.
            ("ab01FAX.bQRSU:19000:0:99999:7:::", Some(Disabled)),
            ("$9$x$y:19000:0:99999:7:::", Some(Disabled)),
            ("HASH:19000:0:99999:7::20001:", None),
            ("HASH:19000:0:99999:7::20000:", Some(Expired)),
            ("HASH:0:0:99999:7:::", Some(PasswordExpired)),
            ("HASH:19990:0:10:7:::", None),
            ("HASH:19989:0:10:7:30::", Some(PasswordExpired)),
        ] {
            let line = format!("alice:{}\n", fields.replace("HASH", HASH));
            let hashed = hashed(&line, "");
            assert_eq!(hashed.member.err(), reason, "{fields}");
            assert_eq!(
                hashed.password.is_none(),
                reason == Some(Disabled),
                "{fields}"
            );
        }
    }

    #[test]
    fn an_account_without_a_line_is_for_another_source() {
        for lines in ["", "alic:x:::::::\nalicee:x:::::::\n"] {
            assert_eq!(judge(lines, "", account()), Ok(Found::Unknown));
        }
        let root = Account {
            user: None,
            closed: Some(Reason::ServiceAccount),
        };
        let line = format!("alice:{HASH}:19000:0:99999:7::1:\n");
        let Ok(Found::Hashed(hashed)) = judge(&line, "", root) else {
            panic!("it has a line");
        };
        assert_eq!(hashed.member, Err(Reason::ServiceAccount));
        assert!(hashed.password.is_some());
    }

    #[test]
    fn a_file_that_cannot_be_read_lets_nobody_in() {
        let shadow = Shadow {
            file: "/nonexistent/shadow".into(),
            ..Shadow::new(&config::Users::default())
        };
        let error = shadow.list(&UserList::default()).expect_err("no file");
        assert!(error.contains("/nonexistent/shadow"), "{error}");
        assert!(shadow.usual(&UserList::default()).is_none());
    }
}
