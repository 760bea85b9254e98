//! How much a user moves within a day, a week or a month, and how much it may be.
//!
//! Pieces are taken before they are moved, so that the limit holds for all sessions together. The figures
//! are kept in a file for each user, which is a little ahead of what was moved: after a crash up to
//! [`AHEAD`] too much counts, and never too little.

use std::fs::{self, File, OpenOptions};
use std::io::{self, Read, Write};
use std::os::unix::fs::OpenOptionsExt;
use std::path::{Path, PathBuf};
use std::sync::{Arc, Mutex};

use jiff::civil::Date;
use jiff::{Timestamp, Zoned};

use super::{Closing, Ending, Quotas, locked};
use crate::config::VolumeLimits;
use crate::sys::worker::Workers;

/// Which way bytes go.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Direction {
    /// To the client.
    Down,
    /// To the server.
    Up,
}

/// What has been moved in a period, in bytes.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Moved {
    /// The first day of the period.
    pub since: Date,
    /// To clients.
    pub down: u64,
    /// To the server.
    pub up: u64,
}

/// The volume of one user, for all of the user's sessions.
#[derive(Debug)]
pub struct Volume {
    path: PathBuf,
    workers: Workers,
    inner: Mutex<Inner>,
    /// Whoever writes the file.
    writing: Mutex<()>,
    closing: Arc<Closing>,
}

#[derive(Debug)]
struct Inner {
    limits: VolumeLimits,
    moved: Moved,
    /// When the next period begins.
    ends: Timestamp,
    /// What the file says, or is about to say.
    kept: Moved,
}

impl Quotas {
    /// The volume of a user, one for all of the user's sessions, with these limits from now on.
    ///
    /// # Errors
    /// As open(2), of the file that keeps it.
    pub async fn volume_of(&self, user: &str, limits: VolumeLimits) -> io::Result<Arc<Volume>> {
        if let Some(volume) = self.known_volume(user) {
            volume.set_limits(limits);
            return Ok(volume);
        }
        let path = path(&self.directory, user);
        let read = self.workers.run({
            let path = path.clone();
            move || read(&path)
        });
        let kept = read.await.map_err(io::Error::other)??;
        let mut volumes = locked(&self.volumes);
        // Another session may have been faster.
        if let Some(volume) = volumes.get(user).and_then(std::sync::Weak::upgrade) {
            volume.set_limits(limits);
            return Ok(volume);
        }
        if volumes.len() == volumes.capacity() {
            volumes.retain(|_, volume| volume.strong_count() > 0);
        }
        let volume = Volume {
            path,
            workers: self.workers.clone(),
            inner: Mutex::new(Inner::new(limits, kept, &Zoned::now())),
            writing: Mutex::default(),
            closing: Arc::clone(&self.closing),
        };
        let volume = Arc::new(volume);
        volumes.insert(user.to_owned(), Arc::downgrade(&volume));
        Ok(volume)
    }

    fn known_volume(&self, user: &str) -> Option<Arc<Volume>> {
        locked(&self.volumes)
            .get(user)
            .and_then(std::sync::Weak::upgrade)
    }

    /// Lets a user's period begin anew with nothing moved.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn reset_volume(&self, user: &str) -> io::Result<()> {
        if let Some(volume) = self.known_volume(user) {
            let mut inner = locked(&volume.inner);
            inner.moved = Moved {
                down: 0,
                up: 0,
                ..inner.moved
            };
            inner.kept = inner.moved;
            let _writing = locked(&volume.writing);
            return remove(&volume.path);
        }
        remove(&path(&self.directory, user))
    }

    /// What users with a volume have moved in their last period, by name.
    ///
    /// # Errors
    /// As opendir(3).
    pub fn volumes(&self) -> io::Result<Vec<(String, Moved)>> {
        let mut volumes = Vec::new();
        for entry in fs::read_dir(&self.directory)? {
            let name = entry?.file_name();
            let Some(user) = name.to_str().and_then(|name| name.strip_prefix(PREFIX)) else {
                continue;
            };
            let user = user.replace('%', "/");
            let moved = match self.known_volume(&user) {
                Some(volume) => Some(locked(&volume.inner).moved),
                None => read(&path(&self.directory, &user))?,
            };
            volumes.extend(moved.map(|moved| (user, moved)));
        }
        volumes.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(volumes)
    }
}

impl Volume {
    fn set_limits(&self, limits: VolumeLimits) {
        let mut inner = locked(&self.inner);
        let period_changes = inner.limits.period != limits.period;
        inner.limits = limits;
        if period_changes {
            inner.begin(&Zoned::now());
        }
    }

    /// Bytes that may still be moved in the present period.
    pub fn left(&self, direction: Direction) -> u64 {
        let mut inner = locked(&self.inner);
        inner.look_at_the_clock();
        inner.left(direction)
    }

    /// Takes a part of what is left, at most `wanted`; 0: nothing is left. A part, so that several
    /// sessions can go on to the end.
    pub fn take(self: &Arc<Self>, direction: Direction, wanted: u64) -> u64 {
        let mut inner = locked(&self.inner);
        inner.look_at_the_clock();
        let left = inner.left(direction);
        let part = (left / PARTS).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
        let taken = part.min(left).min(wanted);
        *inner.moved.way(direction) += taken;
        let moved = inner.moved;
        if moved.since != inner.kept.since
            || moved.down > inner.kept.down
            || moved.up > inner.kept.up
        {
            inner.kept = Moved {
                down: moved.down.saturating_add(AHEAD),
                up: moved.up.saturating_add(AHEAD),
                ..moved
            };
            let volume = Arc::clone(self);
            // With a full queue the next piece tries again.
            if self.workers.hand_over(move || volume.keep()).is_err() {
                inner.kept = moved;
            }
        }
        taken
    }

    /// Gives back what was taken and not moved.
    pub fn give_back(&self, direction: Direction, bytes: u64) {
        let mut inner = locked(&self.inner);
        let moved = inner.moved.way(direction);
        // It may have been taken in the period before.
        *moved = moved.saturating_sub(bytes);
    }

    /// Writes what is to be kept. On a worker.
    fn keep(&self) {
        let _writing = locked(&self.writing);
        let kept = locked(&self.inner).kept;
        tell(&self.path, write(&self.path, kept));
    }
}

/// The last session has ended: the figures are final.
impl Drop for Volume {
    fn drop(&mut self) {
        let inner = locked(&self.inner);
        if inner.moved == inner.kept {
            return;
        }
        let (path, moved) = (self.path.clone(), inner.moved);
        let closing = Ending::begin(&self.closing);
        let _ = self.workers.hand_over(move || {
            tell(&path, write(&path, moved));
            drop(closing);
        });
    }
}

impl Inner {
    fn new(limits: VolumeLimits, kept: Option<Moved>, now: &Zoned) -> Self {
        let (since, ends) = period(limits, now);
        let none = Moved {
            since,
            down: 0,
            up: 0,
        };
        let moved = kept.filter(|kept| kept.since == since).unwrap_or(none);
        Self {
            limits,
            moved,
            ends,
            kept: kept.unwrap_or(none),
        }
    }

    fn begin(&mut self, now: &Zoned) {
        let moved = Some(self.moved);
        *self = Self {
            kept: self.kept,
            ..Self::new(self.limits, moved, now)
        };
    }

    fn look_at_the_clock(&mut self) {
        if Timestamp::now() >= self.ends {
            self.begin(&Zoned::now());
        }
    }

    fn left(&self, direction: Direction) -> u64 {
        let Moved { down, up, .. } = self.moved;
        let (limit, moved) = match direction {
            Direction::Down => (self.limits.down, down),
            Direction::Up => (self.limits.up, up),
        };
        let left =
            |limit: Option<u64>, moved| limit.map_or(u64::MAX, |limit| limit.saturating_sub(moved));
        left(limit, moved).min(left(self.limits.both, down.saturating_add(up)))
    }
}

impl Moved {
    fn way(&mut self, direction: Direction) -> &mut u64 {
        match direction {
            Direction::Down => &mut self.down,
            Direction::Up => &mut self.up,
        }
    }
}

/// The first day of the period that `now` is in, and when the next one begins, in the time zone of
/// the host.
fn period(limits: VolumeLimits, now: &Zoned) -> (Date, Timestamp) {
    let (first, next) = limits.period.around(now.date());
    // At the ends of time there is no next period.
    let ends = next
        .and_then(|next| next.to_zoned(now.time_zone().clone()).ok())
        .map_or(Timestamp::MAX, |next| next.timestamp());
    (first, ends)
}

fn path(directory: &Path, user: &str) -> PathBuf {
    directory.join(format!("{PREFIX}{}", user.replace('/', "%")))
}

/// What a file says; `None`: there is none, or it is damaged.
fn read(path: &Path) -> io::Result<Option<Moved>> {
    let mut text = String::new();
    match File::open(path) {
        Ok(file) => file.take(LINE_LENGTH_MAX).read_to_string(&mut text)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => return Ok(None),
        Err(error) => return Err(error),
    };
    Ok(parse(&text))
}

fn parse(text: &str) -> Option<Moved> {
    let mut words = text.strip_suffix('\n')?.split(' ');
    let moved = Moved {
        since: words.next()?.parse().ok()?,
        down: words.next()?.parse().ok()?,
        up: words.next()?.parse().ok()?,
    };
    words.next().is_none().then_some(moved)
}

/// Replaces the file, so that it is whole after a crash.
fn write(path: &Path, moved: Moved) -> io::Result<()> {
    let Moved { since, down, up } = moved;
    let new = path.with_extension("new");
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(format!("{since} {down} {up}\n").as_bytes())?;
    fs::rename(new, path)
}

fn remove(path: &Path) -> io::Result<()> {
    match fs::remove_file(path) {
        Err(error) if error.kind() != io::ErrorKind::NotFound => Err(error),
        _ => Ok(()),
    }
}

fn tell(path: &Path, written: io::Result<()>) {
    if let Err(error) = written {
        tracing::warn!(path = %path.display(), %error, "the figures of a volume are not kept");
    }
}

const PREFIX: &str = "volume-";

/// A date and two numbers of 20 digits.
const LINE_LENGTH_MAX: u64 = 64;

/// How far the file is ahead: at 1 GB/s it is written four times a second.
const AHEAD: u64 = 256 << 20;

/// Of what is left, one session takes no more than one part of so many at a time.
const PARTS: u64 = 16;
const PIECE_BYTES_MIN: u64 = 64 << 10;
const PIECE_BYTES_MAX: u64 = 16 << 20;

#[cfg(test)]
mod tests;
