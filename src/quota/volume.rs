//! How much a user moves within a day, a week or a month, and how much it may be.
//!
//! Pieces are taken before they are moved, so that the limit holds for all sessions together. The figures
//! are kept in a file for each user, which is a little ahead of what was moved: after a crash up to
//! [`AHEAD`] too much counts, and never too little.

use std::collections::HashMap;
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

/// One session's share in the volume of its user.
#[derive(Debug)]
pub struct Volume {
    figures: Arc<Figures>,
    workers: Workers,
    closing: Arc<Closing>,
}

/// The figures of all users who have had a session with a volume, some 200 B each. They stay, so that a
/// file is read once: one that is read while a worker is about to write it would be ahead.
pub(super) type Known = Mutex<HashMap<String, Arc<Figures>>>;

/// The figures of one user, for all of the user's sessions. Who holds `writing` may lock `inner`, and not
/// the other way round.
#[derive(Debug)]
pub(super) struct Figures {
    path: PathBuf,
    inner: Mutex<Inner>,
    /// Whoever writes the file.
    writing: Mutex<()>,
}

#[derive(Debug)]
struct Inner {
    limits: VolumeLimits,
    moved: Moved,
    /// When the next period begins.
    ends: Timestamp,
    /// What the file says, or is about to say.
    kept: Moved,
    sessions: usize,
}

impl Quotas {
    /// The volume of a user, for one of the user's sessions, with these limits for all of them from now
    /// on.
    ///
    /// # Errors
    /// As open(2), of the file that keeps it.
    pub async fn volume_of(&self, user: &str, limits: VolumeLimits) -> io::Result<Arc<Volume>> {
        // A worker may hold the lock while it reads a file.
        let known = self.volumes.try_lock().ok();
        let known = known.and_then(|known| known.get(user).map(Arc::clone));
        let entered = known.inspect(|figures| figures.enter(limits));
        let figures = match entered {
            Some(figures) => figures,
            None => {
                let (known, user) = (Arc::clone(&self.volumes), user.to_owned());
                let path = path(&self.directory, &user);
                let enter = self.workers.run(move || enter(&known, user, path, limits));
                enter.await.map_err(io::Error::other)??
            }
        };
        Ok(Arc::new(Volume {
            figures,
            workers: self.workers.clone(),
            closing: Arc::clone(&self.closing),
        }))
    }

    /// Lets a user's period begin anew with nothing moved; false if there was nothing to forget.
    ///
    /// # Errors
    /// As unlink(2).
    pub fn reset_volume(&self, user: &str) -> io::Result<bool> {
        let known = locked(&self.volumes).get(user).map(Arc::clone);
        let Some(figures) = known else {
            return remove(&path(&self.directory, user));
        };
        let _writing = locked(&figures.writing);
        {
            let mut inner = locked(&figures.inner);
            inner.moved = Moved {
                down: 0,
                up: 0,
                ..inner.moved
            };
            inner.kept = inner.moved;
        }
        remove(&figures.path).map(|_| true)
    }

    /// What users with a volume have moved in the period of their last session, by name.
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
            let known = locked(&self.volumes).get(&user).map(Arc::clone);
            let moved = match known {
                Some(figures) => Some(locked(&figures.inner).moved),
                None => read(&path(&self.directory, &user))?,
            };
            volumes.extend(moved.map(|moved| (user, moved)));
        }
        volumes.sort_by(|(one, _), (other, _)| one.cmp(other));
        Ok(volumes)
    }
}

/// The figures of a user, read if nobody has them. On a worker.
fn enter(
    known: &Known,
    user: String,
    path: PathBuf,
    limits: VolumeLimits,
) -> io::Result<Arc<Figures>> {
    // Held while the file is read, so that it is read once.
    let mut known = locked(known);
    if let Some(figures) = known.get(&user) {
        figures.enter(limits);
        return Ok(Arc::clone(figures));
    }
    let kept = read(&path)?;
    let figures = Arc::new(Figures {
        path,
        inner: Mutex::new(Inner::new(limits, kept, &Zoned::now())),
        writing: Mutex::default(),
    });
    figures.enter(limits);
    known.insert(user, Arc::clone(&figures));
    Ok(figures)
}

impl Figures {
    fn enter(&self, limits: VolumeLimits) {
        locked(&self.inner).enter(limits);
    }

    /// Writes what is to be kept. On a worker.
    fn keep(&self) {
        let _writing = locked(&self.writing);
        let kept = locked(&self.inner).kept;
        tell(&self.path, write(&self.path, kept));
    }

    /// Writes the figures as they are, unless another session has come. On a worker.
    fn close(&self) {
        let _writing = locked(&self.writing);
        let moved = {
            let mut inner = locked(&self.inner);
            if inner.sessions > 0 {
                return;
            }
            inner.kept = inner.moved;
            inner.moved
        };
        tell(&self.path, write(&self.path, moved));
    }
}

impl Volume {
    /// Bytes that may still be moved in the present period.
    pub fn left(&self, direction: Direction) -> u64 {
        let mut inner = locked(&self.figures.inner);
        inner.look_at_the_clock();
        inner.left(direction)
    }

    /// Takes a part of what is left, at most `wanted`; 0: nothing is left. A part, so that several
    /// sessions can go on to the end.
    pub fn take(&self, direction: Direction, wanted: u64) -> u64 {
        let mut inner = locked(&self.figures.inner);
        inner.look_at_the_clock();
        let left = inner.left(direction);
        let part = (left / PARTS).clamp(PIECE_BYTES_MIN, PIECE_BYTES_MAX);
        let taken = part.min(left).min(wanted);
        *inner.moved.way(direction) += taken;
        let (moved, kept) = (inner.moved, inner.kept);
        if moved.since != kept.since || moved.down > kept.down || moved.up > kept.up {
            inner.kept = Moved {
                down: moved.down.saturating_add(AHEAD),
                up: moved.up.saturating_add(AHEAD),
                ..moved
            };
            let figures = Arc::clone(&self.figures);
            // With a full queue the next piece tries again.
            if self.workers.hand_over(move || figures.keep()).is_err() {
                inner.kept = kept;
            }
        }
        taken
    }

    /// Gives back what was taken and not moved.
    pub fn give_back(&self, direction: Direction, bytes: u64) {
        let mut inner = locked(&self.figures.inner);
        let moved = inner.moved.way(direction);
        // It may have been taken in the period before.
        *moved = moved.saturating_sub(bytes);
    }
}

/// The last session that ends has the figures written.
impl Drop for Volume {
    fn drop(&mut self) {
        let is_last = {
            let mut inner = locked(&self.figures.inner);
            inner.sessions -= 1;
            inner.sessions == 0
        };
        if !is_last {
            return;
        }
        let figures = Arc::clone(&self.figures);
        let closing = Ending::begin(&self.closing);
        let close = move || {
            figures.close();
            drop(closing);
        };
        // With a full queue the file stays ahead until the end of the user's next session.
        let _ = self.workers.hand_over(close);
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
            sessions: 0,
        }
    }

    fn enter(&mut self, limits: VolumeLimits) {
        self.sessions += 1;
        let period_changes = self.limits.period != limits.period;
        self.limits = limits;
        if period_changes {
            self.begin(&Zoned::now());
        }
    }

    fn begin(&mut self, now: &Zoned) {
        let moved = Some(self.moved);
        *self = Self {
            kept: self.kept,
            sessions: self.sessions,
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
    // No other user's file has that name, nor does a list of users have it.
    let name = path.file_name().unwrap_or_default().to_string_lossy();
    let new = path.with_file_name(format!(".{name}.new"));
    let mut file = OpenOptions::new()
        .write(true)
        .create(true)
        .truncate(true)
        .mode(0o600)
        .open(&new)?;
    file.write_all(format!("{since} {down} {up}\n").as_bytes())?;
    fs::rename(new, path)
}

/// Whether there was a file.
fn remove(path: &Path) -> io::Result<bool> {
    match fs::remove_file(path) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(false),
        Err(error) => Err(error),
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
