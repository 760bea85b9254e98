//! Users of other servers: their files, read line by line.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use super::name::UserName;
use super::password::StoredHash;
use super::users::User;
use super::validity::Validity;
use crate::config::{Allowance, QuotaLimits, Rates, VolumeLimits};
use crate::proto::rights::RightSet;

/// What kind of file it is.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// `pureftpd.passwd`, as pure-pw writes it.
    PureFtpd,
    /// passwd(5) with hashes: ProFTPD's AuthUserFile, as ftpasswd writes it.
    Passwd,
    /// A name and a hash: htpasswd(1), and what pam_pwdfile reads.
    Htpasswd,
    /// A name, a line further its password in the clear: what db_load makes vsftpd's user database of.
    Vsftpd,
}

/// What a file of another server holds.
#[derive(Debug, Default)]
pub struct Imported {
    /// The users that can be taken over.
    pub users: Vec<User>,
    /// Why lines cannot be taken over, with their numbers.
    pub refused: Vec<(usize, String)>,
    /// What has no counterpart, and how many users have it.
    pub dropped: BTreeMap<&'static str, usize>,
}

/// Reads a file. `home` is the home of a user whom the file gives none, by name.
pub fn read(
    format: Format,
    text: &str,
    access: RightSet,
    home: impl Fn(&UserName) -> Option<PathBuf>,
) -> Imported {
    let mut imported = Imported::default();
    let mut lines = text.lines().enumerate();
    while let Some((index, line)) = lines.next() {
        if line.trim().is_empty() || (format != Format::Vsftpd && line.starts_with('#')) {
            continue;
        }
        let account = match format {
            Format::PureFtpd => pure_ftpd(line, &mut imported.dropped),
            Format::Passwd => passwd(line),
            Format::Htpasswd => htpasswd(line),
            Format::Vsftpd => {
                let password = lines.next().map_or("", |(_, password)| password);
                vsftpd(line, password)
            }
        };
        match account.and_then(|account| account.into_user(access, &home)) {
            Ok(user) => imported.users.push(user),
            Err(reason) => imported.refused.push((index + 1, reason)),
        }
    }
    imported
}

/// One user as the other server has it.
struct Account {
    name: String,
    password: StoredHash,
    home: Option<PathBuf>,
    quota: QuotaLimits,
    allowance: Allowance,
}

impl Account {
    fn new(name: &str, password: StoredHash) -> Self {
        Self {
            name: name.to_owned(),
            password,
            home: None,
            quota: QuotaLimits::default(),
            allowance: Allowance::default(),
        }
    }

    fn into_user(
        self,
        access: RightSet,
        home: impl Fn(&UserName) -> Option<PathBuf>,
    ) -> Result<User, String> {
        let name = UserName::parse(self.name.as_bytes()).map_err(|error| error.to_string())?;
        let root = self.home.or_else(|| home(&name));
        let root = root.ok_or("the file has no home for this user: --root names one")?;
        if !root.is_absolute() {
            return Err(format!("{} is not an absolute path", root.display()));
        }
        Ok(User {
            name,
            password: self.password,
            root,
            rights: Arc::new(access.into()),
            quota: self.quota,
            folders: Arc::default(),
            allowance: self.allowance,
            validity: Validity::default(),
            system: None,
        })
    }
}

fn hash(text: &str) -> Result<StoredHash, String> {
    StoredHash::parse(text).map_err(|error| error.to_string())
}

fn htpasswd(line: &str) -> Result<Account, String> {
    let mut fields = line.split(':');
    match (fields.next(), fields.next()) {
        (Some(name), Some(text)) => Ok(Account::new(name, hash(text)?)),
        _ => Err("not NAME:HASH".to_owned()),
    }
}

fn passwd(line: &str) -> Result<Account, String> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, text, _uid, _gid, _gecos, home, ..] = fields[..] else {
        return Err("not a line of passwd(5)".to_owned());
    };
    Ok(Account {
        home: (!home.is_empty()).then(|| PathBuf::from(home)),
        ..Account::new(name, hash(text)?)
    })
}

/// `account:password:uid:gid:gecos:home:up:down:up ratio:down ratio:sessions:files:bytes:` and then
/// allowed and denied addresses on both sides, and hours.
fn pure_ftpd(line: &str, dropped: &mut BTreeMap<&'static str, usize>) -> Result<Account, String> {
    let fields: Vec<&str> = line.split(':').collect();
    let [name, text, _uid, _gid, _gecos, home, rest @ ..] = &fields[..] else {
        return Err("not a line of pureftpd.passwd".to_owned());
    };
    let number = |index: usize, what: &str| match rest.get(index) {
        None | Some(&"") => Ok(None),
        Some(text) => match text.parse::<u64>() {
            Ok(number) => Ok(Some(number).filter(|number| *number > 0)),
            Err(_) => Err(format!("{text:?} is no {what}")),
        },
    };
    let (up, down) = (number(0, "bandwidth")?, number(1, "bandwidth")?);
    let sessions = number(4, "number of sessions")?;
    let account = Account {
        // "/./" ends the part that the user does not see.
        home: Some(PathBuf::from(home.split("/./").next().unwrap_or(home))),
        quota: QuotaLimits {
            files: number(5, "number of files")?,
            bytes: number(6, "number of bytes")?,
        },
        allowance: Allowance {
            rates: Rates {
                down: down.and_then(NonZeroU64::new),
                up: up.and_then(NonZeroU64::new),
            },
            sessions: sessions.and_then(|sessions| u32::try_from(sessions).ok()),
            volume: VolumeLimits::default(),
        },
        ..Account::new(name, hash(text)?)
    };
    let is_set = |index: usize| rest.get(index).is_some_and(|field| !field.is_empty());
    let without = [
        ("ratios", is_set(2) || is_set(3)),
        ("allowed and denied addresses", (7..=10).any(is_set)),
        ("hours", is_set(11)),
    ];
    for (what, _) in without.into_iter().filter(|(_, is_set)| *is_set) {
        *dropped.entry(what).or_default() += 1;
    }
    Ok(account)
}

fn vsftpd(name: &str, password: &str) -> Result<Account, String> {
    let password = StoredHash::create(password.as_bytes()).map_err(|error| error.to_string())?;
    Ok(Account::new(name, password))
}

#[cfg(test)]
mod tests {
    use super::*;

    fn here(name: &UserName) -> Option<PathBuf> {
        Some(PathBuf::from(format!("/srv/{name}")))
    }

    #[test]
    fn lines_are_taken_or_refused_by_number() {
        let md5 = "$1$MlHWYg5L$2yULtJYQOaJVFojxqly1r.";
        let text = format!(
            "# users\nalice:{md5}:1:1::/home/alice:/bin/false\n\nbob:x:1:1::/home/bob:\n\
             ftp:{md5}:1:1::/x:\ncarol:{md5}\n"
        );
        let imported = read(Format::Passwd, &text, RightSet::READ_ONLY, |_| None);
        assert_eq!(imported.users.len(), 1);
        assert_eq!(imported.users[0].root, PathBuf::from("/home/alice"));
        let lines: Vec<usize> = imported.refused.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [4, 5, 6]);
        let told = format!("{:?}", imported.refused);
        assert!(!told.contains(md5), "{told}");
        let text = format!("dave:{md5}\nerin:{{SHA}}L55TUjtiq8FBorTWAZ0jy6g129A=\n");
        let imported = read(Format::Htpasswd, &text, RightSet::READ_WRITE, here);
        assert_eq!(imported.users[0].root, PathBuf::from("/srv/dave"));
        assert_eq!(imported.refused.len(), 1);
    }

    #[test]
    fn what_pure_ftpd_limits_is_limited() {
        let md5 = "$1$MlHWYg5L$2yULtJYQOaJVFojxqly1r.";
        let text = format!(
            "bob:{md5}:1:1:Bob:/srv/bob/./::::::1000:10485760:::::\n\
             eve:{md5}:1:1::/srv/eve:204800:102400:1:5:3:::10.0.0.1::192.168.0.0/24::900-1800\n\
             x:{md5}:1:1::/x:much\n"
        );
        let imported = read(Format::PureFtpd, &text, RightSet::READ_WRITE, here);
        let [bob, eve] = &imported.users[..] else {
            panic!("{imported:?}");
        };
        assert_eq!(bob.root, PathBuf::from("/srv/bob"));
        assert_eq!(
            (bob.quota.files, bob.quota.bytes),
            (Some(1000), Some(10 << 20))
        );
        let rates = eve.allowance.rates;
        assert_eq!(rates.up.map(NonZeroU64::get), Some(204_800));
        assert_eq!(rates.down.map(NonZeroU64::get), Some(102_400));
        assert_eq!(eve.allowance.sessions, Some(3));
        let dropped: Vec<_> = imported.dropped.into_iter().collect();
        let expected = [
            ("allowed and denied addresses", 1),
            ("hours", 1),
            ("ratios", 1),
        ];
        assert_eq!(dropped, expected);
        assert_eq!(imported.refused.len(), 1);
    }

    #[test]
    fn passwords_in_the_clear_are_hashed() {
        let text = "frank\ncorrect horse\ngina\n\n";
        let imported = read(Format::Vsftpd, text, RightSet::READ_WRITE, here);
        assert!(imported.users[0].password.matches(b"correct horse"));
        assert_eq!(imported.refused.len(), 1, "an empty password");
    }
}
