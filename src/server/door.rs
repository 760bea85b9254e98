//! One core's door: control connections that come in, through a balancer or not, are counted, let in
//! or refused, and given to another core if that has much less to do.

use std::cell::{Cell, RefCell};
use std::collections::HashMap;
use std::fs::File;
use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::{Duration, Instant};

use super::admission::{Admission, Refusal, Ticket};
use super::mailbox::{self, Mailbox, Message};
use crate::control::{self, Arrival, Core, Load, Stop};
use crate::data::proxied;
use crate::proto::proxy::Header;
use crate::sys;
use crate::throttle::Seldom;
use crate::uring::{self, Fd, JoinHandle};

/// What a door needs to know.
pub(super) struct Door {
    core: Rc<Core>,
    index: usize,
    admission: Arc<Admission>,
    others: Vec<Other>,
    balances: Cell<bool>,
    spare: Spare,
    /// Who accepts on each listener; `None`: nobody does any more.
    acceptors: RefCell<Option<HashMap<usize, JoinHandle<()>>>>,
    handed_over: Cell<u64>,
    taken_over: Cell<u64>,
    /// Connections from balancers whose header has not come yet.
    unannounced: Cell<usize>,
    /// Refusals are told so often.
    refusals: Seldom,
}

/// A core, as the others see it.
#[derive(Clone)]
pub(super) struct Other {
    pub(super) mailbox: Mailbox,
    pub(super) load: Arc<Load>,
    /// Clients on their way to it.
    pub(super) coming: Arc<AtomicUsize>,
}

impl Door {
    /// The door of core `index`; `others` are all cores, this one included.
    pub(super) fn new(
        core: &Rc<Core>,
        index: usize,
        admission: Arc<Admission>,
        others: Vec<Other>,
        spare: Spare,
    ) -> Self {
        Self {
            core: Rc::clone(core),
            index,
            admission,
            others,
            balances: Cell::new(true),
            spare,
            acceptors: RefCell::new(Some(HashMap::new())),
            handed_over: Cell::new(0),
            taken_over: Cell::new(0),
            unannounced: Cell::new(0),
            refusals: Seldom::default(),
        }
    }

    /// Whether clients are given to other cores.
    pub(super) fn set_balances(&self, balances: bool) {
        self.balances.set(balances);
    }

    /// How many cores there are.
    pub(super) fn cores(&self) -> usize {
        self.others.len()
    }

    /// Clients given to other cores, and taken from them.
    pub(super) fn moved(&self) -> (u64, u64) {
        (self.handed_over.get(), self.taken_over.get())
    }

    /// Accepts on these listeners, too, unless the core has stopped.
    pub(super) fn open(self: &Rc<Self>, listeners: Vec<(usize, OwnedFd)>) {
        if let Some(acceptors) = &mut *self.acceptors.borrow_mut() {
            for (listener, socket) in listeners {
                let acceptor = Rc::clone(self).accept(Fd::new(socket), listener);
                acceptors.insert(listener, uring::spawn(acceptor));
            }
        }
    }

    /// Accepts on some listeners no more.
    pub(super) fn leave(&self, is_left: impl Fn(usize) -> bool) {
        if let Some(acceptors) = &mut *self.acceptors.borrow_mut() {
            // Dropping the accept withdraws it from the ring and closes the listener.
            for (_, acceptor) in acceptors.extract_if(|listener, _| is_left(*listener)) {
                acceptor.abort();
            }
        }
    }

    /// Accepts on none any more.
    pub(super) fn close(&self) {
        self.leave(|_| true);
        self.acceptors.replace(None);
    }

    async fn accept(self: Rc<Self>, listening: Fd, listener: usize) {
        loop {
            match uring::accept(&listening).await {
                Ok((socket, peer)) => self.receive(socket, peer, listener),
                Err(error) if sys::is_out_of_descriptors(&error) => {
                    if let Some((socket, peer)) = self.spare.take_one(&listening) {
                        self.refuse(&socket, listener, peer.ip(), Refusal::Full);
                    }
                    self.spare.restore();
                    tracing::error!(
                        %error,
                        "a control connection was refused: raise LimitNOFILE or lower \
                         limits.sessions"
                    );
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
                Err(error) => {
                    // accept(2), "Error handling": mostly errors of connections that died in the
                    // queue.
                    tracing::debug!(%error, "accept failed");
                    tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
                }
            }
        }
    }

    /// A connection has come. A balancer's says first on whose behalf it comes.
    fn receive(self: &Rc<Self>, socket: OwnedFd, peer: SocketAddr, listener: usize) {
        let settings = self.core.settings();
        let addressing = settings.addressing.get(listener);
        if !addressing.is_some_and(|addressing| addressing.is_balancer(peer.ip())) {
            self.admit(Arrival {
                socket,
                listener,
                client: peer.ip(),
                reached: None,
            });
            return;
        }
        if self.unannounced.get() >= UNANNOUNCED_MAX {
            self.refuse(&socket, listener, peer.ip(), Refusal::Full);
            return;
        }
        self.unannounced.set(self.unannounced.get() + 1);
        let door = Rc::clone(self);
        uring::spawn(async move {
            let socket = Fd::new(socket);
            let header = proxied::header(&socket).await;
            door.unannounced.set(door.unannounced.get() - 1);
            let Ok(socket) = Fd::try_unwrap(socket) else {
                return;
            };
            let (client, reached) = match header {
                Ok(Header::Proxied {
                    source,
                    destination,
                }) => (source.ip(), Some(destination.ip())),
                Ok(Header::Local) => (peer.ip(), None),
                Err(error) => {
                    // Balancers look whether the port is open, and leave again.
                    tracing::debug!(%peer, %error, "a balancer's control connection closed");
                    return;
                }
            };
            door.admit(Arrival {
                socket,
                listener,
                client,
                reached,
            });
        });
    }

    fn admit(&self, arrival: Arrival) {
        let entered = match self.core.throttle.admits(arrival.client) {
            true => self.admission.enter(arrival.client),
            false => Err(Refusal::TooOften),
        };
        let ticket = match entered {
            Ok(ticket) => ticket,
            Err(refusal) => {
                self.refuse(&arrival.socket, arrival.listener, arrival.client, refusal);
                return;
            }
        };
        let (arrival, ticket) = match self.lighter().map(|core| &self.others[core]) {
            None => (arrival, ticket),
            Some(other) => {
                other.coming.fetch_add(1, Ordering::Relaxed);
                let sent = other.mailbox.try_send(Message::Client(arrival, ticket));
                match sent.map_err(tokio::sync::mpsc::error::TrySendError::into_inner) {
                    Ok(()) => {
                        self.handed_over.set(self.handed_over.get() + 1);
                        return;
                    }
                    // That core hears nothing: it stays here.
                    Err(message) => {
                        other.coming.fetch_sub(1, Ordering::Relaxed);
                        let Message::Client(arrival, ticket) = message else {
                            return;
                        };
                        (arrival, ticket)
                    }
                }
            }
        };
        self.begin(arrival, ticket);
    }

    /// Takes over a client that another core has given away.
    pub(super) fn take_over(&self, arrival: Arrival, ticket: Ticket) {
        self.others[self.index]
            .coming
            .fetch_sub(1, Ordering::Relaxed);
        self.taken_over.set(self.taken_over.get() + 1);
        self.begin(arrival, ticket);
    }

    /// Says why a client is not served; its connection is about to be closed.
    fn refuse(&self, socket: &OwnedFd, listener: usize, client: IpAddr, refusal: Refusal) {
        self.core.throttle.hits.count(refusal.limit());
        // A flood of connections must not be one of log lines, too.
        if let Some(unsaid) = self.refusals.say(Instant::now()) {
            let limit = refusal.limit().name();
            tracing::warn!(peer = %client, limit, unsaid, "control connection refused");
        }
        // It would be taken for a broken handshake.
        if self.core.settings().begins_with_tls(listener) {
            return;
        }
        // Should it not fit into an empty socket buffer, closing is answer enough.
        let _ = sys::socket::send(socket, refusal.reply());
    }

    fn begin(&self, arrival: Arrival, ticket: Ticket) {
        let core = Rc::clone(&self.core);
        let present = Stop::enter(&core);
        uring::spawn(control::serve(core, arrival, (ticket, present)));
    }

    /// The core with least to do, if this one has clearly more.
    fn lighter(&self) -> Option<usize> {
        if !self.balances.get() {
            return None;
        }
        let own = self.others.get(self.index)?.weight();
        let weights = self.others.iter().map(Other::weight);
        let (least, core) = weights.zip(0..).min()?;
        (own > least + (least / BALANCE_SHARE).max(BALANCE_MIN)).then_some(core)
    }
}

impl Other {
    /// A core that has nothing to do yet, and its end of the mailbox.
    pub(super) fn new() -> (Self, tokio::sync::mpsc::Receiver<Message>) {
        let (mailbox, messages) = mailbox::mailbox();
        let other = Self {
            mailbox,
            load: Arc::default(),
            coming: Arc::default(),
        };
        (other, messages)
    }

    fn weight(&self) -> usize {
        let sessions = self.load.sessions() + self.coming.load(Ordering::Relaxed);
        sessions + TRANSFER_WEIGHT * self.load.transfers()
    }
}

/// A descriptor in reserve: without it a client could not even be told that none is left, and its
/// connection would stay in the queue for ever.
pub(super) struct Spare(RefCell<Option<File>>);

impl Spare {
    pub(super) fn new() -> io::Result<Self> {
        Ok(Self(RefCell::new(Some(File::open("/dev/null")?))))
    }

    /// Takes one connection from the queue in place of the descriptor.
    fn take_one(&self, listener: &Fd) -> Option<(OwnedFd, SocketAddr)> {
        self.0.replace(None);
        sys::socket::accept(&**listener).ok()
    }

    /// Takes the descriptor again, after the connection was closed.
    fn restore(&self) {
        self.0.replace(File::open("/dev/null").ok());
    }
}

/// After an error of accept(2) the queue stays readable: trying again at once would spin.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(20);

/// Control connections from balancers, on each core, whose PROXY header has not come yet.
const UNANNOUNCED_MAX: usize = 1024;

/// What a transfer weighs against an idle session.
const TRANSFER_WEIGHT: usize = 8;

/// A core gives clients away when it has more to do than the lightest one by a quarter, and by this
/// much at least: a client that moves costs two wake-ups, and a few sessions are no load.
const BALANCE_SHARE: usize = 4;
const BALANCE_MIN: usize = 4;
