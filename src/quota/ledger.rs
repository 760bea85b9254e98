//! The file that keeps what one user stores: one line, `BYTES FILES STATE`.
//!
//! The state is `closed`, or `open` and the mark of who has it open. What a crashed server leaves is
//! open, and not to be relied on.

use std::collections::BTreeMap;
use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Seek, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};

use nix::fcntl::{Flock, FlockArg};

use super::Usage;

/// Where the ledger of a user is. The slash of `shop/alice` is written as a percent sign, which no name
/// has; a leading dot is not one of a hidden file or of a directory above.
pub(super) fn path(directory: &Path, user: &str) -> PathBuf {
    directory.join(format!("{PREFIX}{}", user.replace('/', "%")))
}

/// What was stored when the last session of the user ended; `None` when nobody can tell.
pub(super) fn read_closed(path: &Path) -> io::Result<Option<Usage>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(LINE_LENGTH_MAX).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(parse(&text).and_then(|(usage, mark)| mark.is_none().then_some(usage)))
}

/// The figures of all users with a ledger in `directory`, as [`read_closed`] has them.
pub(super) fn all(directory: &Path) -> io::Result<BTreeMap<String, Option<Usage>>> {
    let mut users = BTreeMap::new();
    for entry in fs::read_dir(directory)? {
        let entry = entry?;
        if let Some(user) = entry
            .file_name()
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
        {
            users.insert(user.replace('%', "/"), read_closed(&entry.path())?);
        }
    }
    Ok(users)
}

/// Says that the figures may change from now on; only who has this mark may close them.
pub(super) fn open(path: &Path, usage: Usage, mark: u64) -> io::Result<()> {
    let mut file = locked(path)?;
    write(
        &mut file,
        &format!("{} {} open {mark:016x}\n", usage.bytes, usage.files),
    )?;
    // What says `closed` must not come back after a loss of power.
    file.sync_data()
}

/// Writes the final figures, unless somebody else has opened the ledger since.
pub(super) fn close(path: &Path, usage: Usage, mark: u64) -> io::Result<()> {
    let mut file = locked(path)?;
    let mut text = String::new();
    (&mut *file)
        .take(LINE_LENGTH_MAX)
        .read_to_string(&mut text)?;
    if parse(&text).and_then(|(_, mark)| mark) != Some(mark) {
        return Ok(());
    }
    write(
        &mut file,
        &format!("{} {} closed\n", usage.bytes, usage.files),
    )
}

/// Forgets the figures: the tree is counted before the next change.
pub(super) fn forget(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn locked(path: &Path) -> io::Result<Flock<File>> {
    let file = OpenOptions::new()
        .read(true)
        .write(true)
        .create(true)
        .truncate(false)
        .mode(0o600)
        .open(path)?;
    Flock::lock(file, FlockArg::LockExclusive).map_err(|(_, errno)| errno.into())
}

fn write(file: &mut File, line: &str) -> io::Result<()> {
    file.rewind()?;
    file.write_all(line.as_bytes())?;
    file.set_len(line.len() as u64)
}

/// The figures, and whose mark is on them if they are open.
fn parse(text: &str) -> Option<(Usage, Option<u64>)> {
    let mut words = text.split_ascii_whitespace();
    let usage = Usage {
        bytes: words.next()?.parse().ok()?,
        files: words.next()?.parse().ok()?,
    };
    let mark = match (words.next()?, words.next()) {
        ("closed", None) => None,
        ("open", Some(mark)) => Some(u64::from_str_radix(mark, 16).ok()?),
        _ => return None,
    };
    text.ends_with('\n').then_some((usage, mark))
}

const PREFIX: &str = "quota-";

/// Two numbers of 20 digits, a word and a mark.
const LINE_LENGTH_MAX: u64 = 128;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn figures_count_only_when_they_were_closed_by_who_opened_them() {
        let folder = tempfile::tempdir().unwrap();
        let path = path(folder.path(), "alice");
        let usage = |bytes, files| Usage { bytes, files };
        assert_eq!(read_closed(&path).unwrap(), None);
        open(&path, usage(1, 2), 7).unwrap();
        assert_eq!(read_closed(&path).unwrap(), None);
        close(&path, usage(30, 4), 7).unwrap();
        assert_eq!(read_closed(&path).unwrap(), Some(usage(30, 4)));
        open(&path, usage(30, 4), 8).unwrap();
        close(&path, usage(99, 9), 7).unwrap();
        assert_eq!(read_closed(&path).unwrap(), None, "closed by another");
        close(&path, usage(u64::MAX, 5), 8).unwrap();
        assert_eq!(read_closed(&path).unwrap(), Some(usage(u64::MAX, 5)));
        forget(&path).unwrap();
        forget(&path).unwrap();
        assert_eq!(read_closed(&path).unwrap(), None);
    }

    #[test]
    fn what_is_not_a_line_of_a_ledger_is_counted_again() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("ledger");
        for text in [
            "",
            "1 2",
            "1 2 closed",
            "1 2 closed x\n",
            "1 2 open\n",
            "-1 2 closed\n",
            "\0\0\0",
        ] {
            fs::write(&path, text).unwrap();
            assert_eq!(read_closed(&path).unwrap(), None, "{text:?}");
        }
    }
}
