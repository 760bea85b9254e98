//! A transfer under way, as its control connection holds it.

use std::cell::RefCell;
use std::fmt;
use std::future::Future;
use std::pin::Pin;
use std::rc::Rc;
use std::task::{Context, Poll};

use super::{Card, Wake};
use crate::proto;
use crate::proto::failure::Failure;
use crate::session::event::{Opened, Progress, Transferred};
use crate::transfer::Watch;
use crate::uring::Fd;

/// The future of a transfer with what can be seen of it from outside.
pub(super) struct Running {
    future: Pin<Box<dyn Future<Output = Result<Transferred, Failure>>>>,
    shared: Rc<Shared>,
}

/// What the future tells while it runs.
#[derive(Debug)]
pub(super) struct Shared {
    pub(super) watch: Watch,
    pub(super) label: Label,
    opened: RefCell<Option<Opened>>,
}

/// What the log calls a transfer.
#[derive(Debug)]
pub(super) struct Label {
    pub(super) verb: &'static str,
    pub(super) path: Vec<u8>,
}

impl Shared {
    pub(super) fn new(label: Label, control: &Fd) -> Rc<Self> {
        Rc::new(Self {
            watch: Watch::new(control),
            label,
            opened: RefCell::new(None),
        })
    }

    /// Tells that the data connection stands.
    pub(super) fn set_opened(&self, opened: Opened) {
        self.opened.replace(Some(opened));
    }
}

impl Running {
    pub(super) fn new(
        shared: Rc<Shared>,
        future: impl Future<Output = Result<Transferred, Failure>> + 'static,
    ) -> Self {
        Self {
            future: Box::pin(future),
            shared,
        }
    }

    /// Lets the transfer go on. `Opened` comes once, as long as [`Running::opened`] has something.
    pub(super) fn poll(&mut self, context: &mut Context<'_>) -> Poll<Wake> {
        if let Poll::Ready(outcome) = self.future.as_mut().poll(context) {
            return Poll::Ready(Wake::Ended(outcome));
        }
        match self.shared.opened.borrow().is_some() {
            true => Poll::Ready(Wake::Opened),
            false => Poll::Pending,
        }
    }

    /// Takes what is to be told when the data connection stands.
    pub(super) fn opened(&self) -> Option<Opened> {
        self.shared.opened.take()
    }

    /// Ends the transfer; it has to be polled to its end.
    pub(super) fn abort(&self) {
        self.shared.watch.abort();
    }

    pub(super) fn progress(&self) -> Progress {
        Progress {
            bytes: self.shared.watch.bytes(),
            seconds: self.shared.watch.started().elapsed().as_secs(),
        }
    }

    /// One line for each transfer.
    pub(super) fn log(&self, card: &Card, outcome: &Result<Transferred, Failure>) {
        let Label { verb, path } = &self.shared.label;
        let (session, peer) = (card.id(), card.peer());
        let bytes = self.shared.watch.bytes();
        let seconds = self.shared.watch.started().elapsed().as_secs_f64();
        let seconds = format_args!("{seconds:.6}");
        // Told only if a rate was waited for.
        let waited = Some(self.shared.watch.waited().as_secs_f64()).filter(|waited| *waited > 0.0);
        let tls = self.shared.watch.protection();
        let user = card.user().as_deref().map(proto::printable);
        let path = proto::printable(path);
        match outcome {
            Ok(_) => {
                tracing::info!(session, %peer, user, verb, path, bytes, %seconds, waited, tls, "transfer complete")
            }
            Err(failure) => {
                tracing::info!(session, %peer, user, verb, path, bytes, %seconds, waited, tls, ?failure, "transfer failed");
            }
        }
    }
}

impl fmt::Debug for Running {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Running")
            .field("shared", &self.shared)
            .finish_non_exhaustive()
    }
}
