//! Users of other servers: their files, read line by line.

use std::collections::BTreeMap;
use std::num::NonZeroU64;
use std::path::PathBuf;
use std::sync::Arc;

use super::name::UserName;
use super::password::StoredHash;
use super::users::User;
use super::validity::{self, Validity};
use crate::config::{Allowance, OwnFiles, QuotaLimits, Rates, VolumeLimits};
use crate::proto::network::Network;
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
    pub users: Vec<(User, Restrictions)>,
    /// Why lines cannot be taken over, with their numbers.
    pub refused: Vec<(usize, String)>,
    /// What has no counterpart, and how many users have it.
    pub dropped: BTreeMap<&'static str, usize>,
}

/// From where and when a user may log in, in the words of the users file.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Restrictions {
    /// `networks`.
    pub networks: Vec<String>,
    /// `hours`.
    pub hours: Vec<String>,
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
        let user = account.and_then(|account| {
            let restrictions = account.restrictions.clone();
            let user = account.into_user(access, &home)?;
            Ok((user, restrictions))
        });
        match user {
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
    restrictions: Restrictions,
}

impl Account {
    fn new(name: &str, password: StoredHash) -> Self {
        Self {
            name: name.to_owned(),
            password,
            home: None,
            quota: QuotaLimits::default(),
            allowance: Allowance::default(),
            restrictions: Restrictions::default(),
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
            files: OwnFiles::default(),
            validity: Validity::default(),
            system: None,
        })
    }
}

fn hash(text: &str) -> Result<StoredHash, String> {
    // usermod -L, ftpasswd --lock: the hash is kept for the day when it is taken away again.
    if text.starts_with(['!', '*']) {
        return Err(
            "the account is locked, and has no password by which it could log in".to_owned(),
        );
    }
    StoredHash::parse(text).map_err(|error| error.to_string())
}

fn htpasswd(line: &str) -> Result<Account, String> {
    let (name, hash) = name_and_hash(line)?;
    Ok(Account::new(name, hash?))
}

/// The first two fields of a line; or what is wrong with the line, or with the hash in it.
pub(super) fn name_and_hash(line: &str) -> Result<(&str, Result<StoredHash, String>), String> {
    let mut fields = line.split(':');
    match (fields.next(), fields.next()) {
        (Some(name), Some(text)) => Ok((name, hash(text))),
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
        restrictions: pure_ftpd_restrictions(name, rest.get(7..).unwrap_or_default())?,
        ..Account::new(name, hash(text)?)
    };
    let is_set = |index: usize| rest.get(index).is_some_and(|field| !field.is_empty());
    if is_set(2) || is_set(3) {
        *dropped.entry("ratios").or_default() += 1;
    }
    Ok(account)
}

/// Addresses of the server that are allowed and denied, those of the client, and hours. Whoever has a
/// restriction that cannot be kept is not taken over: nobody shall get in by a move who did not before.
fn pure_ftpd_restrictions(name: &str, fields: &[&str]) -> Result<Restrictions, String> {
    let field = |index: usize| fields.get(index).copied().unwrap_or_default();
    if [0, 1, 3].into_iter().any(|index| !field(index).is_empty()) {
        return Err(format!(
            "{name} has denied addresses, or addresses of the server, which users here do not have: add \
             {name} by hand, with the networks that may log in"
        ));
    }
    let mut restrictions = Restrictions::default();
    for text in field(2).split(',').filter(|text| !text.is_empty()) {
        text.parse::<Network>()
            .map_err(|error| format!("{name} may log in from {text:?}: {error}"))?;
        restrictions.networks.push(text.to_owned());
    }
    if !field(4).is_empty() {
        let time = |text: &str| {
            let number = text.parse::<u16>().ok().filter(|number| *number <= 2400);
            number.map(|number| format!("{:02}:{:02}", number / 100, number % 100))
        };
        let times = field(4).split_once('-');
        let times = times.and_then(|(from, until)| time(from).zip(time(until)));
        let hours = times.map(|(from, until)| format!("{from}-{until}"));
        let hours = hours.filter(|hours| validity::check_hours(hours).is_ok());
        let wrong = || format!("{name} may log in at {:?}, which are no hours", field(4));
        restrictions.hours.push(hours.ok_or_else(wrong)?);
    }
    Ok(restrictions)
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
        assert_eq!(imported.users[0].0.root, PathBuf::from("/home/alice"));
        let lines: Vec<usize> = imported.refused.iter().map(|(line, _)| *line).collect();
        assert_eq!(lines, [4, 5, 6]);
        let told = format!("{:?}", imported.refused);
        assert!(!told.contains(md5), "{told}");
        let text = format!("dave:{md5}\nerin:{{SHA}}L55TUjtiq8FBorTWAZ0jy6g129A=\n");
        let imported = read(Format::Htpasswd, &text, RightSet::READ_WRITE, here);
        assert_eq!(imported.users[0].0.root, PathBuf::from("/srv/dave"));
        assert_eq!(imported.refused.len(), 1);
        let text = format!("gina:!{md5}:1:1::/home/gina:\n");
        let imported = read(Format::Passwd, &text, RightSet::READ_ONLY, |_| None);
        assert!(imported.refused[0].1.contains("locked"));
    }

    #[test]
    fn what_pure_ftpd_limits_is_limited() {
        let md5 = "$1$MlHWYg5L$2yULtJYQOaJVFojxqly1r.";
        let text = format!(
            "bob:{md5}:1:1:Bob:/srv/bob/./::::::1000:10485760:::::\n\
             eve:{md5}:1:1::/srv/eve:204800:102400:1:5:3:::::192.168.0.0/24,10.1.2.3::900-1800\n\
             x:{md5}:1:1::/x:much\n\
             pe:{md5}:1:1::/x:::::::::::192.168.1.1:\n\
             pf:{md5}:1:1::/x::::::::::::9999-1\n\
             pg:{md5}:1:1::/x::::::::::nowhere.example::\n"
        );
        let imported = read(Format::PureFtpd, &text, RightSet::READ_WRITE, here);
        let [(bob, everywhere), (eve, restricted)] = &imported.users[..] else {
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
        assert_eq!(*everywhere, Restrictions::default());
        assert_eq!(restricted.networks, ["192.168.0.0/24", "10.1.2.3"]);
        assert_eq!(restricted.hours, ["09:00-18:00"]);
        let dropped: Vec<_> = imported.dropped.into_iter().collect();
        assert_eq!(dropped, [("ratios", 1)]);
        let refused = imported.refused.iter();
        let told: Vec<String> = refused
            .map(|(line, why)| format!("{line}: {why}"))
            .collect();
        for (told, part) in told.iter().zip([
            "3: \"much\" is no bandwidth",
            "4: pe has denied addresses",
            "5: pf may log in at \"9999-1\"",
            "6: pg may log in from \"nowhere.example\"",
        ]) {
            assert!(told.starts_with(part), "{told}");
        }
        assert_eq!(told.len(), 4);
    }

    #[test]
    fn passwords_in_the_clear_are_hashed() {
        let text = "frank\ncorrect horse\ngina\n\n";
        let imported = read(Format::Vsftpd, text, RightSet::READ_WRITE, here);
        assert!(imported.users[0].0.password.matches(b"correct horse"));
        assert_eq!(imported.refused.len(), 1, "an empty password");
    }
}
