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

use toml::{Table, Value};

use super::{Change, Entry, Readers, Store, StoreError, Take, changed, user_of};
use crate::auth::name::UserName;
use crate::auth::users::{self, USER_KEYS, UserList};

/// The users of a users file.
#[derive(Clone, Debug)]
pub struct FileStore {
    path: PathBuf,
    readers: Readers,
}

impl FileStore {
    /// `readers`: who may read a file that does not exist yet.
    pub fn new(path: PathBuf, readers: Readers) -> Self {
        Self { path, readers }
    }

    /// All users of the file; none when it does not exist.
    ///
    /// # Errors
    /// The file cannot be read or is not valid.
    pub fn list(&self) -> Result<UserList, StoreError> {
        let text = read(&self.path)?.unwrap_or_default();
        UserList::parse(&text, &self.title()).map_err(StoreError::Invalid)
    }

    fn tables(&self) -> Result<Table, StoreError> {
        // What is not valid is told with its place.
        self.list()?;
        let text = read(&self.path)?.unwrap_or_default();
        // Without the text of the error, which may show a hash.
        toml::from_str(&text).map_err(|_| StoreError::Invalid(format!("{}: changed", self.title())))
    }

    fn unknown(&self, name: &UserName) -> StoreError {
        StoreError::Unknown {
            name: name.clone(),
            place: self.title(),
        }
    }
}

impl Store for FileStore {
    fn title(&self) -> String {
        self.path.display().to_string()
    }

    fn default_keys(&mut self) -> Result<Table, StoreError> {
        Ok(table_in(&mut self.tables()?, "default"))
    }

    fn migrate(&mut self) -> Result<bool, StoreError> {
        Ok(false)
    }

    fn find(&mut self, name: &UserName) -> Result<Option<Table>, StoreError> {
        let mut users = table_in(&mut self.tables()?, "user");
        Ok(match users.remove(name.as_str()) {
            Some(Value::Table(keys)) => Some(keys),
            _ => None,
        })
    }

    fn add_all(&mut self, users: Vec<Entry>) -> Result<Vec<UserName>, StoreError> {
        let Some((first, _)) = users.first().cloned() else {
            return Ok(Vec::new());
        };
        let mut known = Vec::new();
        change(&self.path, Some(self.readers), &first, |text, list| {
            let mut text = text.to_owned();
            for (name, keys) in users {
                if list.get(&name).is_some() {
                    known.push(name);
                    continue;
                }
                let separator = match &text[..] {
                    "" => HEADER,
                    text if text.ends_with('\n') => "\n",
                    _ => "\n\n",
                };
                text.push_str(separator);
                text.push_str(&section_of(&name, &keys));
                let user = user_of(list, &name, &keys, "the users file")?;
                list.insert(user);
            }
            Ok(text)
        })?;
        Ok(known)
    }

    fn change(&mut self, name: &UserName, changes: &[Change]) -> Result<(), StoreError> {
        change(&self.path, None, name, |text, list| {
            let mut document: Table = toml::from_str(text).unwrap_or_default();
            let old = table_in(&mut document, "user").remove(name.as_str());
            let Some(Value::Table(old)) = old else {
                return Err(self.unknown(name));
            };
            let keys = changed(old, changes);
            let user = user_of(list, name, &keys, "the users file")?;
            let mut text = text.to_owned();
            for (key, value) in changes {
                text = with_key(&text, name, key, value.as_ref())
                    .ok_or_else(|| unusual(&self.path, name))?;
            }
            list.insert(user);
            Ok(text)
        })
    }

    fn delete(&mut self, name: &UserName) -> Result<(), StoreError> {
        change(&self.path, None, name, |text, list| {
            if list.remove(name).is_none() {
                return Err(self.unknown(name));
            }
            let headers = [
                format!("[user.{name}]"),
                format!("[user.{}]", quoted(name.as_str())),
            ];
            let mut kept = String::with_capacity(text.len());
            let mut inside = false;
            // Comments behind the last key are those of what follows.
            let mut behind = String::new();
            for line in text.split_inclusive('\n') {
                let start = line.trim_start();
                if start.starts_with('[') {
                    kept.push_str(&std::mem::take(&mut behind));
                    inside = headers.iter().any(|header| start.starts_with(header));
                }
                match (inside, start.is_empty() || start.starts_with('#')) {
                    (false, _) => kept.push_str(line),
                    (true, true) => behind.push_str(line),
                    (true, false) => behind.clear(),
                }
            }
            kept.push_str(behind.trim_start());
            Ok(kept)
        })
    }

    fn widest(&mut self) -> Result<usize, StoreError> {
        let list = self.list()?;
        let widths = list.iter().map(|user| user.name.as_str().len());
        Ok(widths.max().unwrap_or_default())
    }

    fn each(&mut self, take: &mut Take<'_>) -> Result<(), StoreError> {
        let list = self.list()?;
        let mut users = list.iter();
        // It breaks when whoever takes them has enough.
        let _ = users.try_for_each(|user| take(user.name.as_str(), Ok(user)));
        Ok(())
    }

    fn entries(&mut self) -> Result<Vec<Entry>, StoreError> {
        let users = table_in(&mut self.tables()?, "user");
        let entry = |(name, keys)| match (UserName::parse(String::as_bytes(&name)), keys) {
            (Ok(name), Value::Table(keys)) => Some((name, keys)),
            // Refused when the file was read.
            _ => None,
        };
        Ok(users.into_iter().filter_map(entry).collect())
    }
}

/// The table of this name; empty if there is none.
fn table_in(document: &mut Table, name: &str) -> Table {
    match document.remove(name) {
        Some(Value::Table(table)) => table,
        _ => Table::new(),
    }
}

/// The section of a user.
fn section_of(name: &UserName, keys: &Table) -> String {
    let mut section = format!("[user.{}]\n", table_key(name));
    let known = USER_KEYS.iter().copied();
    // Unknown ones are refused by whoever reads them.
    let unknown = keys.keys().map(String::as_str);
    for key in known.chain(unknown.filter(|key| !USER_KEYS.contains(key))) {
        if let Some(value) = keys.get(key) {
            section.push_str(&format!("{key} = {}\n", literal(value)));
        }
    }
    section
}

/// The text with another value of one key of a user, or without it; `None`: its place is not found.
fn with_key(text: &str, name: &UserName, key: &str, value: Option<&Value>) -> Option<String> {
    let places = users::places(text, name);
    let place = places.iter().find(|(known, _)| *known == key);
    let (range, new) = match (place, value) {
        (Some((_, place)), Some(value)) => (place.clone(), literal(value)),
        (Some((_, place)), None) => {
            let start = text[..place.start].rfind('\n').map_or(0, |at| at + 1);
            (start..line_end(text, place.end), String::new())
        }
        (None, None) => return Some(text.to_owned()),
        (None, Some(value)) => {
            // After the last of the keys that are there: a user has a password at least.
            let last = places.iter().map(|(_, place)| place.end).max()?;
            let at = line_end(text, last);
            let line = format!("{key} = {}\n", literal(value));
            match text[..at].ends_with('\n') {
                true => (at..at, line),
                false => (at..at, format!("\n{line}")),
            }
        }
    };
    Some(format!(
        "{}{new}{}",
        text.get(..range.start)?,
        text.get(range.end..)?
    ))
}

/// Where the line ends in which `at` is, with its end.
fn line_end(text: &str, at: usize) -> usize {
    text[at..].find('\n').map_or(text.len(), |end| at + end + 1)
}

/// Reads, changes, verifies and replaces the file, alone. `edit` returns the new text and brings
/// the list to what that text must mean. With `readers`, a missing file is made.
fn change(
    path: &Path,
    readers: Option<Readers>,
    name: &UserName,
    edit: impl FnOnce(&str, &mut UserList) -> Result<String, StoreError>,
) -> Result<(), StoreError> {
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
        (None, None) => {
            return Err(StoreError::Unknown {
                name: name.clone(),
                place: path.display().to_string(),
            });
        }
    };
    let title = path.display().to_string();
    let mut wanted = UserList::parse(&text, &title).map_err(StoreError::Invalid)?;
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
fn lock(directory: &Path, path: &Path) -> Result<Flock<File>, StoreError> {
    let mut file = File::open(directory).map_err(|source| failure("open", directory, source))?;
    let deadline = Instant::now() + LOCK_TIMEOUT;
    loop {
        match Flock::lock(file, FlockArg::LockExclusiveNonblock) {
            Ok(lock) => return Ok(lock),
            Err((_, nix::errno::Errno::EWOULDBLOCK)) if Instant::now() >= deadline => {
                return Err(StoreError::Busy(path.to_owned()));
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
fn read(path: &Path) -> Result<Option<String>, StoreError> {
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
fn replace(path: &Path, directory: &Path, text: &str, readers: Readers) -> Result<(), StoreError> {
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

fn write_new(
    temporary: &Path,
    path: &Path,
    text: &str,
    readers: Readers,
) -> Result<(), StoreError> {
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

/// A value in one line of TOML.
fn literal(value: &Value) -> String {
    match value {
        Value::String(text) => quoted(text),
        Value::Array(values) => {
            let values: Vec<String> = values.iter().map(literal).collect();
            format!("[{}]", values.join(", "))
        }
        other => other.to_string(),
    }
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

fn failure(operation: &'static str, path: &Path, source: io::Error) -> StoreError {
    StoreError::Io {
        operation,
        path: path.to_owned(),
        source,
    }
}

fn unusual(path: &Path, name: &UserName) -> StoreError {
    StoreError::Unusual {
        name: name.clone(),
        path: path.to_owned(),
    }
}

/// The first lines of a new users file.
const HEADER: &str = "\
# ringftpd users. `ringftpd user add | passwd | set | del` keeps this file; what else you write in
# it stays. The server reads it again when it has changed.

";

/// A change takes milliseconds: whoever holds the lock for longer hangs.
const LOCK_TIMEOUT: Duration = Duration::from_secs(10);
/// Short beside a change's two syncs.
const LOCK_PAUSE: Duration = Duration::from_millis(10);
