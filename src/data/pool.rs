//! The passive ports of one core (RFC 959 §4.1.2 PASV, RFC 2428 §3 EPSV).
//!
//! Every port is bound and listening from start to end, so handing one out is an operation on a
//! [`Table`] without a system call. An accepted connection is matched with a reservation by its
//! peer's address; a stranger is reset, and the reservation lives on.

use std::cell::{Cell, RefCell};
use std::future::poll_fn;
use std::hash::{BuildHasher, RandomState};
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

use super::table::{PortIndex, Refusal, Rules, Table, Ticket};
use crate::config::PeerCheck;
use crate::proto::failure::Failure;
use crate::sys;
use crate::uring::{self, Fd};

/// A port that is bound and listening, on one address of the server.
#[derive(Debug)]
pub struct PassiveListener {
    /// The listening socket.
    pub socket: OwnedFd,
    /// The address and port to which it is bound.
    pub address: SocketAddr,
}

/// The passive ports of one core. Cheap to clone; stays on its core.
#[derive(Clone, Debug)]
pub struct Pool(Rc<Vec<Rc<Group>>>);

/// The ports bound to one address of the server.
#[derive(Debug)]
struct Group {
    address: IpAddr,
    rules: Rules,
    numbers: Vec<u16>,
    table: RefCell<Table<Rc<Slot>>>,
}

/// What a reservation waits for.
#[derive(Debug)]
struct Slot {
    /// The address at which the client reached the server.
    local: IpAddr,
    connection: RefCell<Option<OwnedFd>>,
    expired: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A port that one client may connect to. Dropping it gives the port up.
#[derive(Debug)]
pub struct Reservation {
    group: Rc<Group>,
    ticket: Ticket,
    slot: Rc<Slot>,
    port: u16,
    since: Instant,
}

impl Pool {
    /// Takes over listening ports and accepts on them until the core ends. Must run on the core.
    pub fn start(listeners: Vec<PassiveListener>, rules: Rules) -> Self {
        let mut by_address: Vec<(IpAddr, Vec<PassiveListener>)> = Vec::new();
        for listener in listeners {
            let address = listener.address.ip();
            match by_address.iter_mut().find(|(known, _)| *known == address) {
                Some((_, group)) => group.push(listener),
                None => by_address.push((address, vec![listener])),
            }
        }
        let groups = by_address.into_iter().map(|(address, listeners)| {
            let group = Rc::new(Group {
                address,
                rules,
                numbers: listeners
                    .iter()
                    .map(|listener| listener.address.port())
                    .collect(),
                table: RefCell::new(Table::new(listeners.len(), rules, secret_seed())),
            });
            for (index, listener) in (0..).zip(listeners) {
                let socket = Rc::new(listener.socket);
                uring::spawn(accept_on(socket, Rc::clone(&group), index));
            }
            group
        });
        Self(Rc::new(groups.collect()))
    }

    /// Reserves a port for `client`, whose control connection reached the server at `local`.
    ///
    /// # Errors
    ///
    /// [`Failure::NoPassivePort`] if every port waits for this client already, or as many as may
    /// wait for one.
    pub fn reserve(&self, client: IpAddr, local: IpAddr) -> Result<Reservation, Failure> {
        let now = Instant::now();
        let group = self.group_for(local).ok_or(Failure::NoDataConnection)?;
        let slot = Rc::new(Slot {
            local,
            connection: RefCell::default(),
            expired: Cell::new(false),
            waker: RefCell::default(),
        });
        let reserved = {
            let mut table = group.table.borrow_mut();
            table.expire(now, |slot| slot.expire());
            table.reserve(client, Rc::clone(&slot), now)
        };
        match reserved {
            Ok((index, ticket)) => Ok(Reservation {
                port: group.numbers[index as usize],
                group: Rc::clone(group),
                ticket,
                slot,
                since: now,
            }),
            Err(refusal) => {
                let reason = match refusal {
                    Refusal::ClientLimit => "the client holds as many ports as one may",
                    Refusal::Dry => "no port is left for the client",
                };
                tracing::warn!(%client, reason, "no passive port");
                Err(Failure::NoPassivePort)
            }
        }
    }

    /// The ports that are bound to `local`, or to the wildcard address of its family.
    fn group_for(&self, local: IpAddr) -> Option<&Rc<Group>> {
        let exact = self.0.iter().find(|group| group.address == local);
        exact.or_else(|| {
            self.0.iter().find(|group| {
                group.address.is_unspecified() && group.address.is_ipv4() == local.is_ipv4()
            })
        })
    }
}

impl Group {
    /// Hands a connection to the reservation of its peer; a stranger is reset.
    fn deliver(&self, index: PortIndex, connection: OwnedFd, peer: SocketAddr) {
        let table = self.table.borrow();
        let slot = table.find(index, peer.ip().to_canonical());
        match slot.filter(|slot| slot.takes(&connection, self)) {
            Some(slot) => {
                slot.connection.replace(Some(connection));
                slot.wake();
            }
            None => {
                let port = self.numbers[index as usize];
                tracing::debug!(%peer, port, "stranger on a passive port reset");
                sys::socket::reset(connection);
            }
        }
    }
}

impl Slot {
    /// Whether a connection of the right peer is the one that is waited for.
    fn takes(&self, connection: &OwnedFd, group: &Group) -> bool {
        // A client may try again when its first connection has died on it.
        let is_free = self
            .connection
            .borrow()
            .as_ref()
            .is_none_or(sys::socket::is_spent);
        // A port that listens on all addresses was announced with one of them.
        let is_here = group.rules.peer_check != PeerCheck::Strict
            || !group.address.is_unspecified()
            || sys::socket::local_address(connection)
                .is_ok_and(|local| local.ip().to_canonical() == self.local);
        is_free && is_here
    }

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
        let left = self
            .group
            .rules
            .timeout
            .saturating_sub(self.since.elapsed());
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
        match tokio::time::timeout(left, arrival).await {
            Ok(connection) => connection,
            Err(_) => Err(Failure::NoDataConnection),
        }
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        self.group.table.borrow_mut().release(self.ticket);
    }
}

/// A number that nobody outside can know: std seeds its hash maps from getrandom(2).
fn secret_seed() -> u64 {
    RandomState::new().hash_one(0u8)
}

/// Accepts on one port as long as its core runs.
async fn accept_on(socket: Fd, group: Rc<Group>, index: PortIndex) {
    loop {
        match uring::accept(&socket).await {
            Ok((connection, peer)) => group.deliver(index, connection, peer),
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => {
                let port = group.numbers[index as usize];
                tracing::warn!(port, %error, "cannot accept on a passive port");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

/// accept(2), "Error handling": network errors of a connection that died in the queue.
fn is_peers_fault(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::ConnectionAborted | io::ErrorKind::Interrupted | io::ErrorKind::WouldBlock
    )
}

/// Out of descriptors or memory: trying again at once would spin, since the queue stays readable.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(100);
