//! Changes to the users file by `ringftpd user`: whole or not at all, one at a time.
//!
//! The text is changed in place, so comments and order survive; what comes out is parsed and
//! compared with what was meant before it replaces the file.

use std::fs::{self, File, OpenOptions, Permissions};
use std::io::{self, Write};
use std::os::unix::fs::{DirBuilderExt, MetadataExt, OpenOptionsExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::thread;
use std::time::{Duration, Instant};

use nix::fcntl::{Flock, FlockArg};

use super::name::UserName;
use super::password::StoredHash;
use super::users::{self, User, UserList};
use crate::config::rights;
use crate::proto::rights::Pattern;

/// Why the users file was not changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EditError {
    /// A file operation failed.
    #[error("{operation} {}: {source}", path.display())]
    Io {
        /// What was tried.
        operation: &'static str,
        /// On what.
        path: PathBuf,
        /// How it failed.
        #[source]
        source: io::Error,
    },
    /// The file is not valid as it is.
    #[error("{0}")]
    Invalid(String),
    /// The user to add exists.
    #[error("user {0} exists; `ringftpd user passwd {0}` changes the password")]
    Exists(UserName),
    /// The user to change does not exist.
    #[error("there is no user {name} in {}", path.display())]
    Unknown {
        /// The user.
        name: UserName,
        /// The users file.
        path: PathBuf,
    },
    /// The directory cannot be written with its bytes in a TOML string.
    #[error("the directory {} is not UTF-8", .0.display())]
    RootNotUtf8(PathBuf),
    /// The file is written in a way that this program does not dare to change.
    #[error("{}: user {name} is not written as a [user.{name}] section; edit the file by hand",
        path.display())]
    Unusual {
        /// The user.
        name: UserName,
        /// The users file.
        path: PathBuf,
    },
    /// Another run holds the file.
    #[error("{}: another ringftpd user command is still changing it", .0.display())]
    Busy(PathBuf),
}

/// Who may read a users file that does not exist yet.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Readers {
    /// Its owner, who makes it: mode 0600.
    Owner,
    /// Its owner, and the group that the server runs in: mode 0640.
    Group(u32),
}

/// Adds `user`. Makes the file and its directory when there is none.
///
/// # Errors
/// The user exists, or anything of [`EditError`].
pub fn add(path: &Path, readers: Readers, user: User) -> Result<(), EditError> {
    let name = user.name.clone();
    match add_all(path, readers, vec![user])?.is_empty() {
        true => Ok(()),
        false => Err(EditError::Exists(name)),
    }
}

/// Adds all users but those who exist, in one change; says who that is.
///
/// # Errors
/// Anything of [`EditError`]; nobody is added then.
pub fn add_all(
    path: &Path,
    readers: Readers,
    users: Vec<User>,
) -> Result<Vec<UserName>, EditError> {
    let Some(first) = users.first().map(|user| user.name.clone()) else {
        return Ok(Vec::new());
    };
    let mut known = Vec::new();
    change(path, Some(readers), &first, |text, list| {
        let mut text = text.to_owned();
        for user in users {
            if list.get(&user.name).is_some() {
                known.push(user.name);
                continue;
            }
            let separator = match &text[..] {
                "" => HEADER,
                text if text.ends_with('\n') => "\n",
                _ => "\n\n",
            };
            text.push_str(separator);
            text.push_str(&section_of(&user)?);
            list.insert(user);
        }
        Ok(text)
    })?;
    Ok(known)
}

/// The section of a user without rules, folders and times, which are written by hand.
fn section_of(user: &User) -> Result<String, EditError> {
    let root = user
        .root
        .to_str()
        .ok_or_else(|| EditError::RootNotUtf8(user.root.clone()))?;
    let (access, denied) = rights::words(user.rights.everywhere);
    let mut section = format!(
        "[user.{}]\npassword = {}\nroot = {}\naccess = {}\n",
        table_key(&user.name),
        quoted(user.password.as_text()),
        quoted(root),
        quoted(access),
    );
    let hidden = user.rights.hidden.iter().map(Pattern::as_str);
    let lists = [("deny", denied), ("hide", hidden.collect())];
    for (key, words) in lists.iter().filter(|(_, words)| !words.is_empty()) {
        let words: Vec<String> = words.iter().map(|word| quoted(word)).collect();
        section.push_str(&format!("{key} = [{}]\n", words.join(", ")));
    }
    let (quota, rates) = (user.quota, user.allowance.rates);
    let values = [
        ("quota", quota.bytes.map(|bytes| format!("\"{bytes} B\""))),
        ("quota_files", quota.files.map(|files| files.to_string())),
        ("down", rates.down.map(|rate| format!("\"{rate} B/s\""))),
        ("up", rates.up.map(|rate| format!("\"{rate} B/s\""))),
        ("sessions", user.allowance.sessions.map(|it| it.to_string())),
        ("system", user.system.as_deref().map(quoted)),
    ];
    for (key, value) in values {
        section.extend(value.map(|value| format!("{key} = {value}\n")));
    }
    Ok(section)
}

/// Gives the user `name` another password.
///
/// # Errors
/// There is no such user, or anything of [`EditError`].
pub fn set_password(path: &Path, name: &UserName, password: StoredHash) -> Result<(), EditError> {
    change(path, None, name, |text, list| {
        let Some(user) = list.get(name) else {
            return Err(unknown(path, name));
        };
        let user = User {
            password,
            ..user.clone()
        };
        let Some(place) = users::password_place(text, name) else {
            return Err(unusual(path, name));
        };
        let text = format!(
            "{}{}{}",
            &text[..place.start],
            quoted(user.password.as_text()),
            &text[place.end..]
        );
        list.insert(user);
        Ok(text)
    })
}

/// Deletes the user `name`; the user's files stay.
///
/// # Errors
/// There is no such user, or anything of [`EditError`].
pub fn delete(path: &Path, name: &UserName) -> Result<(), EditError> {
    change(path, None, name, |text, list| {
        if list.remove(name).is_none() {
            return Err(unknown(path, name));
        }
        let headers = [
            format!("[user.{name}]"),
            format!("[user.{}]", quoted(name.as_str())),
        ];
        let mut kept = String::with_capacity(text.len());
        let mut inside = false;
        for line in text.split_inclusive('\n') {
            let start = line.trim_start();
            if start.starts_with('[') {
                inside = headers.iter().any(|header| start.starts_with(header));
            }
            if !inside {
                kept.push_str(line);
            }
        }
        Ok(kept)
    })
}

/// All users of the file; none when it does not exist.
///
/// # Errors
/// The file cannot be read or is not valid.
pub fn list(path: &Path) -> Result<UserList, EditError> {
    let text = read(path)?.unwrap_or_default();
    UserList::parse(&text, &path.display().to_string()).map_err(EditError::Invalid)
}

/// Reads, changes, verifies and replaces the file, alone. `edit` returns the new text and brings
/// the list to what that text must mean. With `readers`, a missing file is made.
fn change(
    path: &Path,
    readers: Option<Readers>,
    name: &UserName,
    edit: impl FnOnce(&str, &mut UserList) -> Result<String, EditError>,
) -> Result<(), EditError> {
    // A link to the file stays a link: what it leads to is replaced.
    let path = &fs::canonicalize(path).unwrap_or_else(|_| path.to_owned());
    let directory = path.parent().unwrap_or_else(|| Path::new("/"));
    if readers.is_some() {
        fs::DirBuilder::new()
            .recursive(true)
            .mode(0o755)
            .create(directory)
            .map_err(|source| failure("make the directory", directory, source))?;
    }
    let lock = lock(directory, path)?;
    let text = match (read(path)?, readers) {
        (Some(text), _) => text,
        (None, Some(_)) => String::new(),
        (None, None) => return Err(unknown(path, name)),
    };
    let title = path.display().to_string();
    let mut wanted = UserList::parse(&text, &title).map_err(EditError::Invalid)?;
    let text = edit(&text, &mut wanted)?;
    if UserList::parse(&text, &title).as_ref() != Ok(&wanted) {
        return Err(unusual(path, name));
    }
    replace(path, directory, &text, readers.unwrap_or(Readers::Owner))?;
    drop(lock);
    Ok(())
}

/// Locks the directory: the file itself is replaced by every change, so a lock on it would guard
/// a file that is no longer there.
fn lock(directory: &Path, path: &Path) -> Result<Flock<File>, EditError> {
    let mut file = File::open(directory).map_err(|source| failure("open", directory, source))?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() >= deadline => {
                return Err(EditError::Busy(path.to_owned()));
            }
            Err((unlocked, nix::errno::Errno::EWOULDBLOCK)) => {
                file = unlocked;
                thread::sleep(LOCK_PAUSE);
            }
            Err((_, errno)) => return Err(failure("lock", directory, errno.into())),
        }
    }
}

/// The text of the file; `None` when it does not exist.
fn read(path: &Path) -> Result<Option<String>, EditError> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.len() > users::FILE_LENGTH_MAX => {
            let source = io::Error::from(io::ErrorKind::FileTooLarge);
            return Err(failure("read", path, source));
        }
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        _ => {}
    }
    fs::read_to_string(path)
        .map(Some)
        .map_err(|source| failure("read", path, source))
}

/// Puts `text` in the place of the file: at every moment, also after a crash, the file is the old
/// one or the new one. Owner and mode stay; a new file is for `readers`.
fn replace(path: &Path, directory: &Path, text: &str, readers: Readers) -> Result<(), EditError> {
    let temporary = directory.join(format!(
        ".{}.{}.new",
        path.file_name().unwrap_or_default().to_string_lossy(),
        std::process::id()
    ));
    let written = write_new(&temporary, path, text, readers).and_then(|()| {
        fs::rename(&temporary, path).map_err(|source| failure("rename to", path, source))
    });
    if written.is_err() {
        // It may not have been made at all; the first failure is the one to tell.
        let _ = fs::remove_file(&temporary);
    }
    written?;
    // The new name is on disk only when its directory is.
    File::open(directory)
        .and_then(|directory| directory.sync_all())
        .map_err(|source| failure("sync", directory, source))
}

fn write_new(temporary: &Path, path: &Path, text: &str, readers: Readers) -> Result<(), EditError> {
    let failed = |source| failure("write", temporary, source);
    // A file of this name is left over from a run that was killed and had the same process id.
    let _ = fs::remove_file(temporary);
    let mut file = OpenOptions::new()
        .write(true)
        .create_new(true)
        .mode(0o600)
        .open(temporary)
        .map_err(failed)?;
    let (mode, owner, group) = match (fs::metadata(path), readers) {
        (Ok(old), _) => (old.mode() & 0o777, Some(old.uid()), Some(old.gid())),
        (Err(_), Readers::Owner) => (0o600, None, None),
        (Err(_), Readers::Group(group)) => (0o640, None, Some(group)),
    };
    let made = file.metadata().map_err(failed)?;
    let same = owner.is_none_or(|owner| owner == made.uid())
        && group.is_none_or(|group| group == made.gid());
    if !same {
        std::os::unix::fs::fchown(&file, owner, group)
            .map_err(|source| failure("keep the owner of", path, source))?;
    }
    file.set_permissions(Permissions::from_mode(mode))
        .map_err(failed)?;
    file.write_all(text.as_bytes()).map_err(failed)?;
    file.sync_all().map_err(failed)
}

/// A TOML basic string.
fn quoted(text: &str) -> String {
    let mut out = String::with_capacity(text.len() + 2);
    out.push('"');
    for c in text.chars() {
        match c {
            '"' | '\\' => out.extend(['\\', c]),
            c if c.is_control() => out.push_str(&format!("\\u{:04X}", u32::from(c))),
            c => out.push(c),
        }
    }
    out.push('"');
    out
}

/// A name as a TOML key: bare where TOML allows, quoted where it has a dot or an `@`.
fn table_key(name: &UserName) -> String {
    let text = name.as_str();
    let bare = text
        .bytes()
        .all(|byte| byte.is_ascii_alphanumeric() || b"_-".contains(&byte));
    if bare { text.to_owned() } else { quoted(text) }
}

fn failure(operation: &'static str, path: &Path, source: io::Error) -> EditError {
    EditError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn unknown(path: &Path, name: &UserName) -> EditError {
    EditError::Unknown {
        name: name.clone(),
        path: path.to_owned(),
    }
}

fn unusual(path: &Path, name: &UserName) -> EditError {
    EditError::Unusual {
        name: name.clone(),
        path: path.to_owned(),
    }
}

/// The first lines of a new users file.
const HEADER: &str = "\
# ringftpd users. `ringftpd user add | passwd | list | del` keeps this file; what else you write in
# it stays. The server reads it again when it has changed.

";

/// A change takes milliseconds: whoever holds the lock for longer hangs.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Short beside a change's two syncs.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
