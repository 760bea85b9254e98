//! What the control connection sees of a transfer under way, and how it ends one.

use std::cell::{Cell, RefCell};
use std::future::{Future, poll_fn};
use std::pin::pin;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::proto::failure::Failure;
use crate::sys;
use crate::uring::Fd;

/// The state of one transfer. The future of the transfer and the control connection live in one
/// task, so an abort needs no waker: the future is polled right after it.
#[derive(Debug)]
pub struct Watch {
    started: Instant,
    bytes: Cell<u64>,
    waited: Cell<Duration>,
    aborted: Cell<bool>,
    protection: Cell<Option<&'static str>>,
    control: Fd,
    socket: RefCell<Option<Fd>>,
}

impl Watch {
    /// The watch of a transfer that begins now, asked for over `control`.
    pub fn new(control: &Fd) -> Self {
        Self {
            started: Instant::now(),
            bytes: Cell::new(0),
            waited: Cell::default(),
            aborted: Cell::new(false),
            protection: Cell::default(),
            control: Fd::clone(control),
            socket: RefCell::new(None),
        }
    }

    /// When the transfer began.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// Bytes that went over the data connection.
    pub fn bytes(&self) -> u64 {
        self.bytes.get()
    }

    /// Counts bytes that went over the data connection.
    pub fn add(&self, bytes: usize) {
        self.bytes.set(self.bytes.get() + bytes as u64);
    }

    /// How long the transfer has waited for its rates.
    pub fn waited(&self) -> Duration {
        self.waited.get()
    }

    /// Counts a wait for a rate.
    pub(super) fn add_wait(&self, wait: Duration) {
        self.waited.set(self.waited.get() + wait);
    }

    /// How the data connection is protected, if it is.
    pub fn protection(&self) -> Option<&'static str> {
        self.protection.get()
    }

    /// Tells how the data connection is protected.
    pub(super) fn set_protection(&self, protection: &'static str) {
        self.protection.set(Some(protection));
    }

    /// Tells which socket is the data connection.
    pub fn attach(&self, socket: &Fd) {
        self.socket.replace(Some(Fd::clone(socket)));
    }

    /// Ends the transfer: every wait on its socket ends, and so does every wait before there is one.
    /// The data connection is reset: a FIN would make what has come so far look like a whole file.
    pub fn abort(&self) {
        self.aborted.set(true);
        if let Some(socket) = self.socket.borrow().as_ref() {
            // Should it fail, the connection is gone already, or the kernel seals it (`sys::ktls`): then the
            // waits for it see the mark, and it is reset when it is closed.
            let _ = sys::socket::disconnect(&**socket);
        }
    }

    /// Whether the transfer has been ended by [`Watch::abort`].
    pub fn is_aborted(&self) -> bool {
        self.aborted.get()
    }

    /// Whether the client has closed the control connection, so that nobody is left to be told of
    /// the outcome.
    pub fn client_is_gone(&self) -> bool {
        sys::socket::peer_has_closed(&*self.control)
    }

    /// Runs `work` to its end, or drops it when the transfer is aborted.
    ///
    /// # Errors
    ///
    /// [`Failure::Aborted`].
    pub async fn unless_aborted<F: Future>(&self, work: F) -> Result<F::Output, Failure> {
        let mut work = pin!(work);
        poll_fn(|context| {
            if self.is_aborted() {
                return Poll::Ready(Err(Failure::Aborted));
            }
            work.as_mut().poll(context).map(Ok)
        })
        .await
    }
}
