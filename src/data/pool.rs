//! The passive ports of one core (RFC 959 §4.1.2 PASV, RFC 2428 §3 EPSV).
//!
//! Every port is bound and listening from start to end, so handing one out is a table operation
//! without a system call, and one port serves many clients at once: a reservation is the pair of
//! port and client address, and an accepted connection is matched by its peer's address. A stranger
//! is reset, and the reservation lives on. Ports are handed out in turn, in random order from the
//! start, so that a connection that comes late for a reservation given up does not meet the next
//! one.

use std::cell::{Cell, RefCell};
use std::collections::{HashMap, VecDeque};
use std::future::poll_fn;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::task::{Poll, Waker};
use std::time::{Duration, Instant};

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
pub struct Pool(Rc<Inner>);

#[derive(Debug)]
struct Inner {
    groups: Vec<Group>,
    /// How long a reservation lives when ports are scarce.
    timeout: Duration,
    /// Reservations that one client address may hold.
    per_client_max: usize,
    /// Reservations of each client address, so that the cap costs no walk.
    held: RefCell<HashMap<IpAddr, usize>>,
}

/// The ports bound to one address of the server.
#[derive(Debug)]
struct Group {
    address: IpAddr,
    /// Least recently handed out first.
    order: RefCell<VecDeque<Rc<Port>>>,
}

#[derive(Debug)]
struct Port {
    number: u16,
    pending: RefCell<Vec<Rc<Slot>>>,
}

/// What one reservation waits for.
#[derive(Debug)]
struct Slot {
    client: IpAddr,
    since: Instant,
    connection: RefCell<Option<OwnedFd>>,
    revoked: Cell<bool>,
    waker: RefCell<Option<Waker>>,
}

/// A port that one client may connect to. Dropping it gives the port up.
#[derive(Debug)]
pub struct Reservation {
    pool: Pool,
    port: Rc<Port>,
    slot: Rc<Slot>,
}

impl Pool {
    /// Takes over listening ports and accepts on them until the core ends. Must run on the core.
    pub fn start(
        listeners: Vec<PassiveListener>,
        timeout: Duration,
        per_client_max: usize,
    ) -> Self {
        let mut groups: Vec<Group> = Vec::new();
        for listener in listeners {
            let address = listener.address.ip();
            let port = Rc::new(Port {
                number: listener.address.port(),
                pending: RefCell::default(),
            });
            let socket = Rc::new(listener.socket);
            uring::spawn(accept_on(socket, Rc::clone(&port)));
            match groups.iter().find(|group| group.address == address) {
                Some(group) => group.order.borrow_mut().push_back(port),
                None => groups.push(Group {
                    address,
                    order: RefCell::new(VecDeque::from([port])),
                }),
            }
        }
        Self(Rc::new(Inner {
            groups,
            timeout,
            per_client_max,
            held: RefCell::default(),
        }))
    }

    /// Reserves a port for `client`, whose control connection reached the server at `local`.
    ///
    /// # Errors
    ///
    /// [`Failure::NoDataConnection`] if every port is reserved for this client already, or it holds
    /// as many as one address may; RFC 959 §5.4 has 425 for it.
    pub fn reserve(&self, client: IpAddr, local: IpAddr) -> Result<Reservation, Failure> {
        let now = Instant::now();
        let group = self.group_for(local).ok_or(Failure::NoDataConnection)?;
        if self.held_by(client) >= self.0.per_client_max {
            return Err(Failure::NoDataConnection);
        }
        let mut order = group.order.borrow_mut();
        for _ in 0..order.len() {
            let Some(port) = order.pop_front() else { break };
            order.push_back(Rc::clone(&port));
            let taken = port
                .pending
                .borrow()
                .iter()
                .any(|slot| slot.client == client);
            if taken && !port.revoke_expired(client, now, self.0.timeout) {
                continue;
            }
            let slot = Rc::new(Slot {
                client,
                since: now,
                connection: RefCell::default(),
                revoked: Cell::new(false),
                waker: RefCell::default(),
            });
            port.pending.borrow_mut().push(Rc::clone(&slot));
            *self.0.held.borrow_mut().entry(client).or_default() += 1;
            return Ok(Reservation {
                pool: self.clone(),
                port,
                slot,
            });
        }
        Err(Failure::NoDataConnection)
    }

    /// The ports that are bound to `local`, or to the wildcard address of its family.
    fn group_for(&self, local: IpAddr) -> Option<&Group> {
        let groups = &self.0.groups;
        let exact = groups.iter().find(|group| group.address == local);
        exact.or_else(|| {
            groups.iter().find(|group| {
                group.address.is_unspecified() && group.address.is_ipv4() == local.is_ipv4()
            })
        })
    }

    fn held_by(&self, client: IpAddr) -> usize {
        self.0.held.borrow().get(&client).copied().unwrap_or(0)
    }
}

impl Port {
    /// Takes the port from a reservation of the same client that has outlived its time.
    fn revoke_expired(&self, client: IpAddr, now: Instant, timeout: Duration) -> bool {
        let mut pending = self.pending.borrow_mut();
        let expired = pending
            .iter()
            .position(|slot| slot.client == client && now.duration_since(slot.since) > timeout);
        match expired {
            Some(index) => {
                let slot = pending.swap_remove(index);
                slot.revoked.set(true);
                slot.connection.take();
                slot.wake();
                true
            }
            None => false,
        }
    }

    /// Hands a connection to the reservation of its peer; a stranger is reset.
    fn deliver(&self, connection: OwnedFd, peer: SocketAddr) {
        let address = peer.ip().to_canonical();
        let pending = self.pending.borrow();
        let slot = pending.iter().find(|slot| slot.client == address);
        match slot {
            // A client may try again when its first connection has died on it.
            Some(slot)
                if slot
                    .connection
                    .borrow()
                    .as_ref()
                    .is_none_or(sys::socket::is_spent) =>
            {
                slot.connection.replace(Some(connection));
                slot.wake();
            }
            _ => {
                tracing::debug!(%peer, port = self.number, "stranger on a passive port reset");
                sys::socket::reset(connection);
            }
        }
    }
}

impl Slot {
    fn wake(&self) {
        if let Some(waker) = self.waker.take() {
            waker.wake();
        }
    }
}

impl Reservation {
    /// The port to which the client may connect.
    pub fn port(&self) -> u16 {
        self.port.number
    }

    /// Waits for the client to connect. May be dropped and called again.
    ///
    /// # Errors
    ///
    /// [`Failure::NoDataConnection`] if the reservation has been revoked because it was not used
    /// for too long and ports were scarce.
    pub async fn connection(&self) -> Result<OwnedFd, Failure> {
        poll_fn(|context| {
            if let Some(connection) = self.slot.connection.take() {
                return Poll::Ready(Ok(connection));
            }
            if self.slot.revoked.get() {
                return Poll::Ready(Err(Failure::NoDataConnection));
            }
            self.slot.waker.replace(Some(context.waker().clone()));
            Poll::Pending
        })
        .await
    }
}

impl Drop for Reservation {
    fn drop(&mut self) {
        let mut pending = self.port.pending.borrow_mut();
        if let Some(index) = pending.iter().position(|slot| Rc::ptr_eq(slot, &self.slot)) {
            pending.swap_remove(index);
        }
        let mut held = self.pool.0.held.borrow_mut();
        if let Some(count) = held.get_mut(&self.slot.client) {
            *count -= 1;
            if *count == 0 {
                held.remove(&self.slot.client);
            }
        }
    }
}

/// Accepts on one port as long as its core runs.
async fn accept_on(socket: Fd, port: Rc<Port>) {
    loop {
        match uring::accept(&socket).await {
            Ok((connection, peer)) => port.deliver(connection, peer),
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => {
                tracing::warn!(port = port.number, %error, "cannot accept on a passive port");
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
