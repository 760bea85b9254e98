//! What a core is told by the supervisor, by the administrator's thread and by other cores.

use std::collections::HashMap;
use std::net::Ipv4Addr;
use std::os::fd::OwnedFd;
use std::sync::Arc;
use std::sync::mpsc::Sender;

use tokio::sync::mpsc;

use super::admission::Ticket;
use super::sessions::Question;
use crate::config::Config;
use crate::control::Arrival;
use crate::data::pool::PassiveListener;
use crate::data::report::CoreReport;
use crate::tls::Tls;

/// A message to a core. Answers go to threads that wait for them.
#[derive(Debug)]
pub(super) enum Message {
    /// A client that another core gives away, before its greeting.
    Client(Arrival, Ticket),
    /// Go on with this configuration and with these new listeners and passive ports, and say when that is
    /// done.
    Reload {
        config: Arc<Config>,
        tls: Option<Arc<Tls>>,
        active_source_port: u16,
        /// With their places in `server.listen`.
        control: Vec<(usize, OwnedFd)>,
        ports: Vec<Vec<PassiveListener>>,
        missing: Ports,
        done: Sender<()>,
    },
    /// Sessions that begin have these certificates.
    Certificates(Arc<Tls>),
    /// Say which passive ports are here.
    Held(Sender<Ports>),
    /// These passive ports of this core's are held by other programs.
    Missing(Ports),
    /// The addresses of the names that are announced.
    Names(Arc<HashMap<String, Ipv4Addr>>),
    /// Say how things are.
    Report(Sender<CoreReport>),
    /// Say what some of the sessions do, or end them.
    Sessions(Question),
}

/// Ports of each address that is listened on.
pub(super) type Ports = Vec<Vec<u16>>;

/// The way to a core.
pub(super) type Mailbox = mpsc::Sender<Message>;

/// Messages that wait for a core; clients beyond are not given away.
const MESSAGES_MAX: usize = 4096;

/// A mailbox and its core's end.
pub(super) fn mailbox() -> (Mailbox, mpsc::Receiver<Message>) {
    mpsc::channel(MESSAGES_MAX)
}
