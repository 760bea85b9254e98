//! What all sessions of one core share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::Notify;

use crate::auth::Authenticator;
use crate::config::Files;
use crate::data::active::Active;
use crate::data::pool::Pool;
use crate::session::Limits;
use crate::storage::Root;
use crate::sys::worker::Workers;
use crate::transfer::Depot;

/// One core's share of the server. Stays on its core.
#[derive(Debug)]
pub struct Core {
    /// The session's limits, for every session the same.
    pub limits: Rc<Limits>,
    /// The longest control line, in bytes.
    pub line_length: usize,
    /// How long a client may leave its replies unread.
    pub reply_timeout: Duration,
    /// The address that PASV announces instead of the one at which the client reached the server.
    pub passive_address: Option<Ipv4Addr>,
    /// The passive ports of this core; `None` when passive mode is switched off.
    pub pool: Option<Pool>,
    /// How active data connections are made.
    pub active: Active,
    /// Who may log in.
    pub authenticator: Arc<Authenticator>,
    /// Threads that check passwords.
    pub verifiers: Workers,
    /// How files are made.
    pub files: Files,
    /// What transfers share.
    pub depot: Depot,
    /// The roots that sessions of this core have open.
    pub roots: Roots,
    /// How far the server is on its way to its end.
    pub stop: Stop,
}

/// One open descriptor for each tree, however many sessions work in it.
#[derive(Debug, Default)]
pub struct Roots(RefCell<HashMap<PathBuf, Weak<Root>>>);

impl Roots {
    /// The root at `path`, opened if no session of this core has it open.
    pub(super) async fn open(&self, path: &Path, files: Files) -> io::Result<Rc<Root>> {
        if let Some(root) = self.0.borrow().get(path).and_then(Weak::upgrade) {
            return Ok(root);
        }
        let root = Rc::new(Root::open(path, files).await?);
        let mut roots = self.0.borrow_mut();
        // Bounds the map by the trees in use, give or take a factor of two.
        if roots.len()
            >= 2 * roots
                .values()
                .filter(|root| root.strong_count() > 0)
                .count()
                + 16
        {
            roots.retain(|_, root| root.strong_count() > 0);
        }
        roots.insert(path.to_owned(), Rc::downgrade(&root));
        Ok(root)
    }
}

/// How far a core is on its way to its end.
#[derive(Clone, Copy, Debug, Eq, Ord, PartialEq, PartialOrd)]
pub enum Phase {
    /// It serves.
    Serving,
    /// Idle sessions are told 421; transfers may end.
    Draining,
    /// Every session ends now.
    Ending,
}

/// Tells the sessions of a core of its end, and the core of its last session's end.
#[derive(Debug)]
pub struct Stop {
    phase: Cell<Phase>,
    changed: Notify,
    sessions: Cell<usize>,
    empty: Notify,
}

impl Stop {
    /// Moves on to a later phase.
    pub fn advance(&self, phase: Phase) {
        if phase > self.phase.get() {
            self.phase.set(phase);
            self.changed.notify_waiters();
        }
    }

    /// The phase now.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Waits for the next phase.
    pub(super) fn changed(&self) -> tokio::sync::futures::Notified<'_> {
        self.changed.notified()
    }

    /// Sessions of this core.
    pub fn sessions(&self) -> usize {
        self.sessions.get()
    }

    /// Counts a session in; it is counted out when the guard is dropped.
    pub fn enter(core: &Rc<Core>) -> Present {
        core.stop.sessions.set(core.stop.sessions.get() + 1);
        Present(Rc::clone(core))
    }

    /// Waits until no session is left.
    pub async fn empty(&self) {
        while self.sessions.get() > 0 {
            self.empty.notified().await;
        }
    }
}

impl Default for Stop {
    fn default() -> Self {
        Self {
            phase: Cell::new(Phase::Serving),
            changed: Notify::new(),
            sessions: Cell::new(0),
            empty: Notify::new(),
        }
    }
}

/// A session that counts.
#[derive(Debug)]
pub struct Present(Rc<Core>);

impl Drop for Present {
    fn drop(&mut self) {
        let stop = &self.0.stop;
        stop.sessions.set(stop.sessions.get() - 1);
        if stop.sessions.get() == 0 {
            stop.empty.notify_one();
        }
    }
}
