//! Connections that come to passive ports, and whom they are given to.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::time::{Duration, Instant};

use super::{Group, PortIndex, Slot, Ticket};
use crate::config::PeerCheck;
use crate::data::proxied;
use crate::proto::proxy::Header;
use crate::sys;
use crate::uring::{self, Fd};

/// Accepts on one port as long as this core has it.
pub(super) async fn accept_on(socket: Fd, group: Rc<Group>, port: PortIndex) {
    loop {
        match uring::accept(&socket).await {
            Ok((connection, peer)) => group.take_in(port, connection, peer, None),
            Err(error) if is_peers_fault(&error) => {}
            Err(error) => {
                let port = group.table.borrow().number(port);
                tracing::warn!(port, %error, "cannot accept on a passive port");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

impl Group {
    /// A connection has come. A balancer's says first on whose behalf it comes. It is too early for
    /// the reservation `new`.
    fn take_in(
        self: &Rc<Self>,
        port: PortIndex,
        connection: OwnedFd,
        peer: SocketAddr,
        new: Option<Ticket>,
    ) {
        let is_balancer = {
            let policy = self.policy.borrow();
            let balancers = &policy.layouts[self.index].balancers;
            balancers.iter().any(|network| network.contains(peer.ip()))
        };
        if !is_balancer {
            self.deliver(port, connection, (peer.ip(), None), new);
            return;
        }
        if self.unannounced.get() >= UNANNOUNCED_MAX {
            sys::socket::reset(connection);
            return;
        }
        self.unannounced.set(self.unannounced.get() + 1);
        let group = Rc::clone(self);
        let number = self.table.borrow().number(port);
        uring::spawn(async move {
            let socket = Fd::new(connection);
            let header = proxied::header(&socket).await;
            group.unannounced.set(group.unannounced.get() - 1);
            let Ok(connection) = Fd::try_unwrap(socket) else {
                return;
            };
            // The port may have left this core meanwhile.
            let port = group.table.borrow().index_of(number);
            match (header, port) {
                (Ok(header), Some(port)) => {
                    let (client, local) = match header {
                        Header::Proxied {
                            source,
                            destination,
                        } => (source.ip(), Some(destination.ip())),
                        Header::Local => (peer.ip(), None),
                    };
                    group.deliver(port, connection, (client, local), new);
                }
                (header, _) => {
                    let error = header.err();
                    tracing::debug!(%peer, ?error, "connection of a balancer reset");
                    sys::socket::reset(connection);
                }
            }
        });
    }

    /// Hands a connection to the reservation of its peer; a stranger is reset, and so is what came
    /// before the reservation `new` that it would be for. `local` is the address that it came to, if
    /// the socket itself does not tell.
    fn deliver(
        &self,
        port: PortIndex,
        connection: OwnedFd,
        (peer, local): (IpAddr, Option<IpAddr>),
        new: Option<Ticket>,
    ) {
        let mut table = self.table.borrow_mut();
        let ticket = table.find(port, peer).or_else(|| {
            // Another server that a client brings in (FXP): nothing says for whom it comes, so it is
            // taken only where nobody else is waited for.
            let fxp = &self.policy.borrow().fxp;
            let is_server = fxp.iter().any(|network| network.contains(peer));
            table.only(port).filter(|_| is_server)
        });
        if ticket.is_some() && ticket == new {
            table.count_stale(port);
            sys::socket::reset(connection);
            return;
        }
        let slot = ticket.and_then(|ticket| table.state(ticket).map(|slot| (ticket, slot)));
        let expected = slot.filter(|(_, slot)| slot.takes(&connection, self, local));
        match expected.map(|(ticket, slot)| (ticket, Rc::clone(slot))) {
            Some((ticket, slot)) => {
                table.meet(ticket, Instant::now());
                drop(table);
                slot.connection.replace(Some(connection));
                slot.wake();
            }
            None => {
                table.count_stranger(port);
                let port = table.number(port);
                tracing::debug!(%peer, port, "stranger on a passive port reset");
                sys::socket::reset(connection);
            }
        }
    }

    /// Takes what waits in a port's queue. What would be for `new`, a reservation that the client
    /// does not know of yet, came for one before it, and is reset.
    pub(super) fn drain(self: &Rc<Self>, port: PortIndex, new: Option<Ticket>) {
        let socket = {
            let sockets = self.sockets.borrow();
            let listening = sockets.get(port as usize).and_then(Option::as_ref);
            listening.map(|listening| Fd::clone(&listening.socket))
        };
        let Some(socket) = socket else { return };
        for _ in 0..DRAINED_MAX {
            let Ok((connection, peer)) = sys::socket::accept(&socket) else {
                return;
            };
            self.take_in(port, connection, peer, new);
        }
    }
}

impl Slot {
    /// Whether a connection of the right peer is the one that is waited for.
    fn takes(&self, connection: &OwnedFd, group: &Group, came_to: Option<IpAddr>) -> bool {
        // A client may try again when its first connection has died on it.
        let is_free = self
            .connection
            .borrow()
            .as_ref()
            .is_none_or(sys::socket::is_spent);
        is_free && (group.is_any_address_right() || self.is_at(connection, group, came_to))
    }

    /// A port that listens on all addresses was announced with one of them.
    fn is_at(&self, connection: &OwnedFd, group: &Group, came_to: Option<IpAddr>) -> bool {
        let Some(local) = self.local else {
            return true;
        };
        match came_to {
            Some(came_to) => came_to == local,
            None if !group.address.is_unspecified() => true,
            None => sys::socket::local_address(connection)
                .is_ok_and(|came_to| came_to.ip().to_canonical() == local),
        }
    }
}

impl Group {
    fn is_any_address_right(&self) -> bool {
        self.policy.borrow().rules.peer_check == PeerCheck::Off
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

/// Connections from balancers, on each core and address, whose PROXY header has not come yet.
const UNANNOUNCED_MAX: usize = 1024;

/// A queue holds no more; what comes meanwhile is new.
const DRAINED_MAX: usize = 64;
