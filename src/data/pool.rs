//! The passive ports of one core (RFC 959 §4.1.2 PASV, RFC 2428 §3 EPSV).
//!
//! Every port is bound and listening from start to end, so handing one out is an operation on a
//! [`Table`] without a system call. An accepted connection is matched with a reservation by its
//! peer's address; a stranger is reset, and the reservation lives on.
//!
//! The ports of one address of the server are a group. Which ports a group has changes while the
//! server runs: `change` follows a new configuration, and [`lending`](super::lending) is what cores do
//! among each other.

mod change;
mod deliver;

use std::cell::{Cell, RefCell};
use std::collections::BTreeSet;
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::net::IpAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use tokio::sync::Notify;

use super::lending::{Mailbox, Neighbours, Note};
use super::report::{Borrowed, PoolReport, Refusals};
use super::table::{PortIndex, Refusal, Reserved, Rules, Table, Ticket};
use super::tally::Meter;
use crate::proto::failure::Failure;
use crate::proto::network::Network;
use crate::uring::{self, Fd, JoinHandle};

pub use change::Layout;

/// A port that is bound and listening, on one address of the server.
#[derive(Debug)]
pub struct PassiveListener {
    /// The listening socket.
    pub socket: OwnedFd,
    /// The port.
    pub number: u16,
}

/// Everything that an operator may change about a pool while it runs.
#[derive(Clone, Debug)]
pub struct Policy {
    /// How ports are handed out.
    pub rules: Rules,
    /// A core without ports asks the others.
    pub borrow: bool,
    /// Servers that may connect in the place of a client (FXP).
    pub fxp: Vec<Network>,
    /// Which ports there are, and whose, for each address.
    pub layouts: Vec<Layout>,
}

/// The passive ports of one core. Cheap to clone; stays on its core.
#[derive(Clone, Debug)]
pub struct Pool(Rc<Groups>);

#[derive(Debug)]
struct Groups {
    core: usize,
    neighbours: Neighbours,
    /// One for each address. More may come, and none goes.
    all: RefCell<Vec<Rc<Group>>>,
}

/// The ports bound to one address of the server.
#[derive(Debug)]
struct Group {
    core: usize,
    /// Which of the addresses.
    index: usize,
    address: IpAddr,
    table: RefCell<Table<Rc<Slot>>>,
    /// The sockets of the table's ports.
    sockets: RefCell<Vec<Option<Listening>>>,
    policy: RefCell<Rc<Policy>>,
    neighbours: Neighbours,
    /// Ports of this core that another program holds.
    missing: RefCell<BTreeSet<u16>>,
    /// Ports are being borrowed; told when that has ended.
    borrowing: Cell<bool>,
    borrowed: Notify,
    /// Sessions that wait for that.
    waiting: Cell<usize>,
    /// No neighbour had ports to spare: not before then are they asked again.
    ask_again: Cell<Option<Instant>>,
    /// Connections from balancers whose header has not come yet.
    unannounced: Cell<usize>,
    figures: RefCell<Figures>,
}

#[derive(Debug)]
struct Listening {
    socket: Fd,
    accepts: JoinHandle<()>,
}

#[derive(Debug)]
struct Figures {
    since: Instant,
    pasv: Meter,
    epsv: Meter,
    refusals: Refusals,
    borrowed: Borrowed,
}

/// What a reservation waits for.
#[derive(Debug)]
struct Slot {
    /// The address that the client must connect to; `None`: any.
    local: Option<IpAddr>,
    connection: RefCell<Option<OwnedFd>>,
    expired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// Who wants a port.
#[derive(Clone, Copy, Debug)]
pub struct Request {
    /// Which of the addresses.
    pub pool: usize,
    /// The client.
    pub client: IpAddr,
    /// The address that it will connect to, as this host sees it; `None`: not known.
    pub local: Option<IpAddr>,
    /// By EPSV.
    pub extended: bool,
}

/// A port that one client may connect to. Dropping it gives the port up.
#[derive(Debug)]
pub struct Reservation {
    group: Rc<Group>,
    ticket: Ticket,
    slot: Rc<Slot>,
    port: u16,
    until: Instant,
}

impl Pool {
    /// Takes over listening ports, those of each address in the order of `policy.layouts`, and
    /// accepts on them until the core ends. Must run on the core.
    pub fn start(
        core: usize,
        ports: Vec<Vec<PassiveListener>>,
        policy: &Rc<Policy>,
        neighbours: Neighbours,
        mailbox: Mailbox,
    ) -> Self {
        let pool = Self(Rc::new(Groups {
            core,
            neighbours,
            all: RefCell::default(),
        }));
        pool.change(policy, ports);
        uring::spawn(pool.clone().hear(mailbox));
        pool
    }

    fn group(&self, index: usize) -> Option<Rc<Group>> {
        self.0.all.borrow().get(index).map(Rc::clone)
    }

    fn groups(&self) -> Vec<Rc<Group>> {
        self.0.all.borrow().clone()
    }

    /// Reserves a port.
    ///
    /// # Errors
    ///
    /// [`Failure::TooManyPorts`] if as many ports wait for this client as may;
    /// [`Failure::NoPassivePort`] if none is left for it, and no other core can lend one.
    pub async fn reserve(&self, request: Request) -> Result<Reservation, Failure> {
        let group = self.group(request.pool).ok_or(Failure::NoPassivePort)?;
        let mut refusal = Refusal::Dry;
        for _ in 0..BORROW_ROUNDS_MAX {
            match group.reserve(&request) {
                Ok(reservation) => return Ok(reservation),
                Err(reason) => refusal = reason,
            }
            if refusal != Refusal::Dry || !group.borrow().await {
                break;
            }
            // What was borrowed may have gone to others who waited, too.
        }
        let (failure, reason) = match refusal {
            Refusal::ClientLimit => (Failure::TooManyPorts, "the client holds as many as one may"),
            Refusal::Dry => (Failure::NoPassivePort, "none is left for the client"),
        };
        let refusals = &mut group.figures.borrow_mut().refusals;
        match refusal {
            Refusal::ClientLimit => refusals.client_limit += 1,
            Refusal::Dry => refusals.dry += 1,
        }
        tracing::warn!(client = %request.client, address = %group.address, reason, "no passive port");
        Err(failure)
    }

    /// Notes that a client could not be told an address.
    pub fn count_unknown_address(&self, pool: usize) {
        if let Some(group) = self.group(pool) {
            group.figures.borrow_mut().refusals.address_unknown += 1;
        }
    }

    /// The figures of each address.
    pub fn report(&self) -> Vec<PoolReport> {
        self.groups().iter().map(|group| group.report()).collect()
    }

    /// Hears what the pools of other cores have to say.
    async fn hear(self, mut mailbox: Mailbox) {
        while let Some(note) = mailbox.0.recv().await {
            match note {
                Note::Ask {
                    pool,
                    wanted,
                    answer,
                } => {
                    if let Some(group) = self.group(pool)
                        && let Err(ports) = answer.send(group.lend(wanted))
                    {
                        // Who asked has given up waiting.
                        group.adopt(ports);
                    }
                }
                Note::Bring { pool, ports } => {
                    if let Some(group) = self.group(pool) {
                        group.adopt(ports);
                    }
                }
            }
        }
    }
}

impl Group {
    fn new(groups: &Groups, index: usize, policy: &Rc<Policy>) -> Self {
        let layout = &policy.layouts[index];
        Self {
            core: groups.core,
            index,
            address: layout.address,
            table: RefCell::new(Table::new(&layout.ranges, policy.rules, secret_seed())),
            sockets: RefCell::default(),
            policy: RefCell::new(Rc::clone(policy)),
            neighbours: groups.neighbours.clone(),
            missing: RefCell::default(),
            borrowing: Cell::new(false),
            waiting: Cell::new(0),
            borrowed: Notify::new(),
            ask_again: Cell::new(None),
            unannounced: Cell::new(0),
            figures: RefCell::new(Figures::new(Instant::now())),
        }
    }

    fn reserve(self: &Rc<Self>, request: &Request) -> Result<Reservation, Refusal> {
        let now = Instant::now();
        let slot = Rc::new(Slot {
            local: request.local,
            connection: RefCell::default(),
            expired: Cell::new(false),
            waker: RefCell::default(),
        });
        self.expire(now);
        let Reserved {
            port,
            number,
            ticket,
            is_suspect,
        } = {
            let mut table = self.table.borrow_mut();
            table.reserve(request.client, Rc::clone(&slot), now)?
        };
        if is_suspect {
            self.drain(port, Some(ticket));
        }
        self.publish();
        let figures = &mut *self.figures.borrow_mut();
        let second = now.duration_since(figures.since).as_secs();
        match request.extended {
            true => figures.epsv.count(second),
            false => figures.pasv.count(second),
        }
        Ok(Reservation {
            port: number,
            group: Rc::clone(self),
            ticket,
            slot,
            until: now + self.policy.borrow().rules.timeout,
        })
    }

    fn expire(&self, now: Instant) {
        self.table.borrow_mut().expire(now, |slot| slot.expire());
        self.settle();
        self.publish();
    }

    /// Ports of other cores; whether it is worth trying again. Many may wait for the same ports.
    async fn borrow(self: &Rc<Self>) -> bool {
        if !self.policy.borrow().borrow {
            return false;
        }
        if self.borrowing.get() {
            self.waiting.set(self.waiting.get() + 1);
            self.borrowed.notified().await;
            self.waiting.set(self.waiting.get() - 1);
            return self.ask_again.get().is_none();
        }
        if self
            .ask_again
            .get()
            .is_some_and(|then| Instant::now() < then)
        {
            return false;
        }
        self.borrowing.set(true);
        // A task of its own: ports on their way must arrive, even if the session ends meanwhile.
        let group = Rc::clone(self);
        let borrowed = uring::spawn(async move {
            let has_ports = group.ask_others().await;
            group.ask_again.set(match has_ports {
                true => None,
                false => Some(Instant::now() + BORROW_PAUSE),
            });
            group.borrowing.set(false);
            group.borrowed.notify_waiters();
            has_ports
        });
        borrowed.await.unwrap_or(false)
    }

    async fn ask_others(self: &Rc<Self>) -> bool {
        for lender in self.neighbours.lenders(self.core, self.index) {
            let wanted = BORROW_COUNT.max(self.waiting.get() + 1);
            let Some(mut answer) = self.neighbours.ask(lender, self.index, wanted) else {
                continue;
            };
            let ports = match tokio::time::timeout(BORROW_TIMEOUT, &mut answer).await {
                Ok(ports) => ports.unwrap_or_default(),
                Err(_) => {
                    answer.close();
                    answer.try_recv().unwrap_or_default()
                }
            };
            if !ports.is_empty() {
                let count = ports.len();
                tracing::debug!(count, lender, address = %self.address, "passive ports borrowed");
                self.figures.borrow_mut().borrowed.taken += count as u64;
                self.adopt(ports);
                return true;
            }
        }
        self.figures.borrow_mut().borrowed.refused += 1;
        false
    }

    /// Gives up to `wanted` ports to another core.
    fn lend(&self, wanted: usize) -> Vec<PassiveListener> {
        self.expire(Instant::now());
        let lent = self.table.borrow().lend(wanted);
        let ports: Vec<PassiveListener> = lent
            .into_iter()
            .filter_map(|port| self.take_out(port))
            .collect();
        self.figures.borrow_mut().borrowed.given += ports.len() as u64;
        self.publish();
        ports
    }

    /// Tells the other cores how many ports could be lent.
    fn publish(&self) {
        let idle = self.table.borrow().idle();
        self.neighbours.publish(self.core, self.index, idle);
    }

    fn report(&self) -> PoolReport {
        let now = Instant::now();
        self.expire(now);
        let table = self.table.borrow();
        let figures = &mut *self.figures.borrow_mut();
        let second = now.duration_since(figures.since).as_secs();
        let mut ranges = table.ranges();
        for port in &*self.missing.borrow() {
            let range = ranges
                .iter_mut()
                .find(|range| (range.first..=range.last).contains(port));
            if let Some(range) = range {
                range.unavailable.push(*port);
            }
        }
        PoolReport {
            address: self.address,
            ranges,
            pasv: figures.pasv.rate(second),
            epsv: figures.epsv.rate(second),
            refusals: figures.refusals,
            borrowed: figures.borrowed,
            waits: table.waits(),
            top_clients: table.top_clients(TOP_CLIENTS),
        }
    }
}

impl Figures {
    fn new(since: Instant) -> Self {
        Self {
            since,
            pasv: Meter::default(),
            epsv: Meter::default(),
            refusals: Refusals::default(),
            borrowed: Borrowed::default(),
        }
    }
}

impl Slot {
    /// The port has gone. A connection that came in time stays.
    fn expire(&self) {
        self.expired.set(true);
        self.wake();
    }

    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Reservation {
    /// The port to which the client may connect.
    pub fn port(&self) -> u16 {
        self.port
    }

    /// Waits for the client to connect, as long as the port waits for it.
    ///
    /// # Errors
    ///
    /// [`Failure::NoDataConnection`] if it has not come in time.
    pub async fn connection(&self) -> Result<OwnedFd, Failure> {
        let arrival = poll_fn(|context| {
            if let Some(connection) = self.slot.connection.take() {
                return Poll::Ready(Ok(connection));
            }
            if self.slot.expired.get() {
                return Poll::Ready(Err(Failure::NoDataConnection));
            }
            self.slot.waker.replace(Some(context.waker().clone()));
            Poll::Pending
        });
        match tokio::time::timeout_at(self.until.into(), arrival).await {
            Ok(connection) => connection,
            Err(_) => Err(Failure::NoDataConnection),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let released = self.group.table.borrow_mut().release(self.ticket);
        if released.is_some() {
            self.group.settle();
            self.group.publish();
        }
    }
}

/// A number that nobody outside can know: std seeds its hash maps from getrandom(2).
fn secret_seed() -> u64 {
    RandomState::new().hash_one(0u8)
}

/// Ports asked of another core at a time, at least: a few, so that the next clients find some too.
const BORROW_COUNT: usize = 8;

/// Each round brings a port at least; who is still without one after so many is told to come again.
const BORROW_ROUNDS_MAX: usize = 16;

/// A core answers at its next turn; one that does not is in trouble itself.
const BORROW_TIMEOUT: Duration = Duration::from_secs(1);

/// How long nobody is asked after nobody had ports to spare: clients that try again and again must
/// not keep the other cores busy.
const BORROW_PAUSE: Duration = Duration::from_millis(50);

/// Clients that a report names.
const TOP_CLIENTS: usize = 5;
