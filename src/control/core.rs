//! What all sessions of one core share.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::io;
use std::net::Ipv4Addr;
use std::path::PathBuf;
use std::rc::{Rc, Weak};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::Notify;

use super::Register;
use crate::auth::Authenticator;
use crate::config::{Addressing, Allowance, Files, Folder, GuardLimits, OwnFiles, Rates, TlsStart};
use crate::data::active::Active;
use crate::data::pool::Pool;
use crate::quota::Quotas;
use crate::session::Limits;
use crate::storage::Root;
use crate::sys::ids::Ids;
use crate::sys::worker::Workers;
use crate::throttle::Throttle;
use crate::tls::Tls;
use crate::transfer::Depot;
use crate::uring::Personality;

/// One core's share of the server. Stays on its core.
#[derive(Debug)]
pub struct Core {
    /// What a reload may change.
    settings: RefCell<Rc<Settings>>,
    /// The addresses of the names that PASV announces.
    names: RefCell<Arc<HashMap<String, Ipv4Addr>>>,
    /// The passive ports of this core.
    pub pool: Pool,
    /// How active data connections are made.
    pub active: Active,
    /// Who may log in.
    pub authenticator: Arc<Authenticator>,
    /// Threads that check passwords.
    pub verifiers: Workers,
    /// How much users store.
    pub quotas: Arc<Quotas>,
    /// What keeps clients from taking more than their share.
    pub throttle: Arc<Throttle>,
    /// What transfers share.
    pub depot: Depot,
    /// The roots that sessions of this core have open.
    pub roots: Roots,
    /// How far the server is on its way to its end.
    pub stop: Stop,
    /// The sessions, for whoever asks from outside.
    pub register: Register,
    /// What the core has to do at the moment.
    pub load: Arc<Load>,
}

/// What a reload may change for the sessions of a core.
#[derive(Clone, Debug)]
pub struct Settings {
    /// The server itself, and the virtual hosts by the names of their sections.
    pub hosts: HashMap<Rc<str>, Host>,
    /// Where the hosts are found by the names that clients use, in lower case.
    pub host_names: HashMap<String, Rc<str>>,
    /// Which host whoever comes belongs to at first, for each address that is listened on.
    pub host_at: Vec<Rc<str>>,
    /// How guessing of passwords is slowed down and stopped.
    pub guard: GuardLimits,
    /// The longest control line, in bytes.
    pub line_length: usize,
    /// How long a client may leave its replies unread.
    pub reply_timeout: Duration,
    /// Commands in a second from one session; 0: any number.
    pub commands_per_second: u32,
    /// How fast a session may move files.
    pub session_rates: Rates,
    /// How files are made.
    pub files: Files,
    /// Certificates and rules of TLS, if it is offered.
    pub tls: Option<Arc<Tls>>,
    /// How it begins, for each address that is listened on.
    pub tls_starts: Vec<TlsStart>,
    /// How data connections are announced, for each address that is listened on.
    pub addressing: Vec<Addressing>,
    /// Which of the passive pools serves each of these addresses.
    pub pools: Vec<Option<usize>>,
}

/// What holds on the server itself, or on a virtual host.
#[derive(Clone, Debug)]
pub struct Host {
    /// The limits of sessions that begin.
    pub limits: Rc<Limits>,
    /// Sessions of a user who has no other number; 0: any number.
    pub sessions_per_user: u32,
    /// What all anonymous sessions may take together.
    pub anonymous: Allowance,
    /// What all sessions may take together; `None`: it is the server, which has limits for that.
    pub allowance: Option<Allowance>,
}

impl Settings {
    /// Whether TLS begins with the first byte there.
    pub fn begins_with_tls(&self, listener: usize) -> bool {
        self.tls_starts.get(listener) == Some(&TlsStart::Implicit)
    }

    /// The TLS of a listener at which it begins with the first byte.
    pub(super) fn implicit_tls(&self, listener: usize) -> Option<&Arc<Tls>> {
        let start = self.tls_starts.get(listener);
        let is_implicit = start == Some(&TlsStart::Implicit);
        self.tls.as_ref().filter(|_| is_implicit)
    }

    /// What holds for who comes to an address that is listened on.
    pub(super) fn limits_at(&self, listener: usize) -> Rc<Limits> {
        let host = self
            .host_at
            .get(listener)
            .and_then(|host| self.hosts.get(host));
        // Invariant: the server itself is one of the hosts, by the empty name.
        let host = host.unwrap_or_else(|| &self.hosts[""]);
        Rc::clone(&host.limits)
    }

    /// What holds on the virtual host that a client names in its TLS handshake, if there is one.
    pub(super) fn limits_by_sni(&self, name: &str) -> Option<Rc<Limits>> {
        let name = name.to_ascii_lowercase();
        let host = self
            .host_names
            .get(name.strip_suffix('.').unwrap_or(&name))?;
        self.hosts.get(host).map(|host| Rc::clone(&host.limits))
    }

    /// What holds on the host that a client names. Where there are no virtual hosts any name is the
    /// server's.
    pub(super) fn limits_of(&self, name: &[u8]) -> Option<Rc<Limits>> {
        if self.hosts.len() == 1 {
            return Some(Rc::clone(&self.hosts[""].limits));
        }
        let name = std::str::from_utf8(name).ok()?.to_ascii_lowercase();
        // The root of the DNS may be written out.
        let name = name.strip_suffix('.').unwrap_or(&name);
        let host = self.hosts.get(self.host_names.get(name)?)?;
        Some(Rc::clone(&host.limits))
    }
}

/// What a core has to do, for the other cores to see. Written by its own core only.
#[derive(Debug, Default)]
pub struct Load {
    sessions: AtomicUsize,
    transfers: AtomicUsize,
}

impl Load {
    /// Sessions now.
    pub fn sessions(&self) -> usize {
        self.sessions.load(Ordering::Relaxed)
    }

    /// Transfers now.
    pub fn transfers(&self) -> usize {
        self.transfers.load(Ordering::Relaxed)
    }

    /// Counts a transfer until the guard is dropped.
    pub(super) fn transfer(core: &Rc<Core>) -> Transferring {
        core.load.transfers.fetch_add(1, Ordering::Relaxed);
        Transferring(Arc::clone(&core.load))
    }
}

/// A transfer that counts.
#[derive(Debug)]
pub(super) struct Transferring(Arc<Load>);

impl Drop for Transferring {
    fn drop(&mut self) {
        self.0.transfers.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a core is made of.
#[derive(Debug)]
pub struct Parts {
    /// What a reload may change.
    pub settings: Settings,
    /// The passive ports of this core.
    pub pool: Pool,
    /// How active data connections are made.
    pub active: Active,
    /// Who may log in.
    pub authenticator: Arc<Authenticator>,
    /// Threads that check passwords.
    pub verifiers: Workers,
    /// How much users store.
    pub quotas: Arc<Quotas>,
    /// What keeps clients from taking more than their share.
    pub throttle: Arc<Throttle>,
    /// What transfers share.
    pub depot: Depot,
    /// Where sessions are entered.
    pub register: Register,
    /// What the core has to do.
    pub load: Arc<Load>,
}

impl Core {
    /// A core without sessions.
    pub fn new(parts: Parts) -> Self {
        Self {
            settings: RefCell::new(Rc::new(parts.settings)),
            names: RefCell::default(),
            pool: parts.pool,
            active: parts.active,
            authenticator: parts.authenticator,
            verifiers: parts.verifiers,
            quotas: parts.quotas,
            throttle: parts.throttle,
            depot: parts.depot,
            roots: Roots::default(),
            stop: Stop::default(),
            register: parts.register,
            load: parts.load,
        }
    }

    /// The settings in force.
    pub fn settings(&self) -> Rc<Settings> {
        Rc::clone(&*self.settings.borrow())
    }

    /// How many commands a session may send in a second; 0: any number.
    pub(super) fn commands_per_second(&self) -> u32 {
        self.settings.borrow().commands_per_second
    }

    /// Goes on with other settings. Sessions keep their timeouts and rights.
    pub fn set_settings(&self, settings: Settings) {
        self.settings.replace(Rc::new(settings));
    }

    /// The address of a name that PASV announces, if it is known.
    pub(super) fn address_of(&self, name: &str) -> Option<Ipv4Addr> {
        self.names.borrow().get(name).copied()
    }

    /// Moves on to a later phase, and has every session look at it.
    pub fn advance(&self, phase: Phase) {
        if phase > self.stop.phase.get() {
            self.stop.phase.set(phase);
            self.register.wake();
        }
    }

    /// Goes on with these addresses.
    pub fn set_names(&self, names: Arc<HashMap<String, Ipv4Addr>>) {
        self.names.replace(names);
    }
}

/// One open descriptor for each tree, however many sessions work in it.
#[derive(Debug, Default)]
pub struct Roots(RefCell<HashMap<Tree, Weak<Root>>>);

/// The root of a tree on the host, the folders in it, the account by which the kernel judges, and how
/// files come into being there.
type Tree = (PathBuf, Arc<[Folder]>, Option<Arc<Ids>>, OwnFiles);

impl Roots {
    /// The root of an identity, opened if no session of this core has it open. Where the identity has
    /// an account of this host, `workers` make it known to the ring.
    pub(super) async fn open(
        &self,
        tree: Tree,
        files: Files,
        workers: &Workers,
    ) -> io::Result<Rc<Root>> {
        let files = files.with(tree.3);
        let known = self.0.borrow().get(&tree).and_then(Weak::upgrade);
        // After a reload files may be made in another way.
        if let Some(root) = known.filter(|root| root.settings() == files) {
            return Ok(root);
        }
        let account = match &tree.2 {
            Some(ids) => Some(Personality::of(ids, workers).await?),
            None => None,
        };
        let root = Root::open(&tree.0, files, account).await?;
        let root = Rc::new(root.with_folders(&tree.1).await);
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
        roots.insert(tree, Rc::downgrade(&root));
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

/// How far a core is, and what tells it of its last session's end.
#[derive(Debug)]
pub struct Stop {
    phase: Cell<Phase>,
    sessions: Cell<usize>,
    empty: Notify,
}

impl Stop {
    /// The phase now.
    pub fn phase(&self) -> Phase {
        self.phase.get()
    }

    /// Sessions of this core.
    pub fn sessions(&self) -> usize {
        self.sessions.get()
    }

    /// Counts a session in; it is counted out when the guard is dropped.
    pub fn enter(core: &Rc<Core>) -> Present {
        core.stop.sessions.set(core.stop.sessions.get() + 1);
        core.load.sessions.fetch_add(1, Ordering::Relaxed);
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
        self.0.load.sessions.fetch_sub(1, Ordering::Relaxed);
        if stop.sessions.get() == 0 {
            stop.empty.notify_one();
        }
    }
}
