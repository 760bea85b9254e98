//! How the pools of the cores reach each other: a port moves from the core that has it to the one
//! that needs it, or whose slice it belongs to. Nothing of this happens while a core has ports.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::{mpsc, oneshot};

use super::pool::PassiveListener;

/// What one pool says to another.
#[derive(Debug)]
pub(super) enum Note {
    /// Lend some ports of this address. The answer may be empty.
    Ask {
        pool: usize,
        wanted: usize,
        answer: oneshot::Sender<Vec<PassiveListener>>,
    },
    /// These ports of this address are yours.
    Bring {
        pool: usize,
        ports: Vec<PassiveListener>,
    },
}

/// The pools of all cores, as one of them sees them.
#[derive(Clone, Debug)]
pub struct Neighbours {
    mailboxes: Vec<mpsc::Sender<Note>>,
    /// Idle ports of each core and address, each written by its core only.
    idle: Arc<[Vec<AtomicUsize>]>,
}

/// Where one core's pool hears of the others.
#[derive(Debug)]
pub struct Mailbox(pub(super) mpsc::Receiver<Note>);

/// Connects the pools of `cores` cores with up to `pools` addresses each.
pub fn connect(cores: usize, pools: usize) -> (Neighbours, Vec<Mailbox>) {
    let (mailboxes, receivers): (Vec<_>, Vec<_>) =
        (0..cores).map(|_| mpsc::channel(NOTES_MAX)).unzip();
    let counts = || (0..pools).map(|_| AtomicUsize::new(0)).collect();
    let neighbours = Neighbours {
        mailboxes,
        idle: (0..cores).map(|_| counts()).collect(),
    };
    (neighbours, receivers.into_iter().map(Mailbox).collect())
}

impl Neighbours {
    /// Gives ports to a core.
    ///
    /// # Errors
    ///
    /// The ports come back if that core does not take them.
    pub fn bring(
        &self,
        core: usize,
        pool: usize,
        ports: Vec<PassiveListener>,
    ) -> Result<(), Vec<PassiveListener>> {
        self.send(core, Note::Bring { pool, ports })
            .map_err(|note| match note {
                Note::Bring { ports, .. } => ports,
                Note::Ask { .. } => Vec::new(),
            })
    }

    /// Asks a core for ports; `None` if it cannot be asked.
    pub(super) fn ask(
        &self,
        core: usize,
        pool: usize,
        wanted: usize,
    ) -> Option<oneshot::Receiver<Vec<PassiveListener>>> {
        let (answer, receiver) = oneshot::channel();
        let note = Note::Ask {
            pool,
            wanted,
            answer,
        };
        self.send(core, note).ok().map(|()| receiver)
    }

    /// Tells the others how many idle ports a core has.
    pub(super) fn publish(&self, core: usize, pool: usize, idle: usize) {
        self.idle[core][pool].store(idle, Ordering::Relaxed);
    }

    /// The other cores, those that seem to have most idle ports first. A core that has nothing to do
    /// does not notice that its abandoned ports are idle again until it is asked.
    pub(super) fn lenders(&self, core: usize, pool: usize) -> Vec<usize> {
        let idle = |core: usize| self.idle[core][pool].load(Ordering::Relaxed);
        let others = (0..self.mailboxes.len()).filter(|other| *other != core);
        let mut lenders: Vec<(usize, usize)> = others.map(|other| (idle(other), other)).collect();
        lenders.sort_unstable_by(|a, b| b.cmp(a));
        lenders.into_iter().map(|(_, other)| other).collect()
    }

    fn send(&self, core: usize, note: Note) -> Result<(), Note> {
        let Some(mailbox) = self.mailboxes.get(core) else {
            return Err(note);
        };
        mailbox.try_send(note).map_err(|error| match error {
            mpsc::error::TrySendError::Full(note) | mpsc::error::TrySendError::Closed(note) => note,
        })
    }
}

/// Notes that wait for a core: it asks for ports once at a time for each address, and takes what it
/// is brought at its next turn.
const NOTES_MAX: usize = 1024;
