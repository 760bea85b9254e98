//! Data connections in active mode (RFC 959 §3.2, PORT and EPRT): the server connects.

use std::cell::{Cell, RefCell};
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::{Duration, Instant};

use super::report::ActiveReport;
use super::tally::Meter;
use crate::proto::failure::Failure;
use crate::uring;

/// How to connect in active mode. One for each core.
#[derive(Debug)]
pub struct Active {
    policy: Cell<Policy>,
    figures: RefCell<Figures>,
}

/// What an operator decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Policy {
    /// The port from which to connect; RFC 959 §5.2: the port next to the control port, 20. 0: any.
    pub source_port: u16,
    /// How long a connection may take to stand.
    pub connect_timeout: Duration,
}

#[derive(Debug)]
struct Figures {
    since: Instant,
    port: Meter,
    eprt: Meter,
    counts: ActiveReport,
}

impl Active {
    /// Connects by this policy.
    pub fn new(policy: Policy) -> Self {
        Self {
            policy: Cell::new(policy),
            figures: RefCell::new(Figures {
                since: Instant::now(),
                port: Meter::default(),
                eprt: Meter::default(),
                counts: ActiveReport::default(),
            }),
        }
    }

    /// Goes on by another policy; connections under way are not touched.
    pub fn set_policy(&self, policy: Policy) {
        self.policy.set(policy);
    }

    /// Counts an address accepted from PORT, or from EPRT if `extended`.
    pub fn count_address(&self, extended: bool) {
        let figures = &mut *self.figures.borrow_mut();
        let second = figures.since.elapsed().as_secs();
        match extended {
            true => figures.eprt.count(second),
            false => figures.port.count(second),
        }
    }

    /// Counts an address or a port that was refused.
    pub fn count_bounce(&self) {
        self.figures.borrow_mut().counts.bounces += 1;
    }

    /// The figures so far.
    pub fn report(&self) -> ActiveReport {
        let figures = &mut *self.figures.borrow_mut();
        let second = figures.since.elapsed().as_secs();
        ActiveReport {
            port: figures.port.rate(second),
            eprt: figures.eprt.rate(second),
            ..figures.counts
        }
    }

    /// Connects from `local`, the address at which the client reached the server (its port does not
    /// matter), to `peer`.
    ///
    /// # Errors
    ///
    /// [`Failure::DataConnectionRefused`] if the client's side refuses, [`Failure::NoDataConnection`]
    /// if it does not answer in time or no connection can be made.
    pub async fn connect(&self, local: SocketAddr, peer: SocketAddr) -> Result<OwnedFd, Failure> {
        let policy = self.policy.get();
        let connected = async {
            match connect_from(local, policy.source_port, peer).await {
                // Linux: the pair of addresses and ports is in use already, by a transfer under way
                // or in TIME_WAIT (ip(7), EADDRNOTAVAIL), or another program holds the port.
                Err(error) if policy.source_port != 0 && is_port_trouble(&error) => {
                    self.figures.borrow_mut().counts.other_source_port += 1;
                    tracing::debug!(%peer, %error, "active data connection from another port");
                    connect_from(local, 0, peer).await
                }
                other => other,
            }
        };
        let connected = match tokio::time::timeout(policy.connect_timeout, connected).await {
            Ok(connected) => connected.map_err(|error| refused(&error, peer)),
            Err(_) => Err(Failure::NoDataConnection),
        };
        let counts = &mut self.figures.borrow_mut().counts;
        match &connected {
            Ok(_) => counts.connected += 1,
            Err(Failure::DataConnectionRefused) => counts.refused += 1,
            Err(_) => counts.failed += 1,
        }
        connected
    }
}

async fn connect_from(
    mut local: SocketAddr,
    source_port: u16,
    peer: SocketAddr,
) -> io::Result<OwnedFd> {
    local.set_port(source_port);
    // Behind a balancer, the client's family may be another one than that of the control connection.
    let source = (local.is_ipv4() == peer.is_ipv4()).then_some(local);
    uring::connect(peer, source).await
}

fn is_port_trouble(error: &io::Error) -> bool {
    matches!(
        error.kind(),
        io::ErrorKind::AddrInUse
            | io::ErrorKind::AddrNotAvailable
            | io::ErrorKind::PermissionDenied
    )
}

fn refused(error: &io::Error, peer: SocketAddr) -> Failure {
    tracing::debug!(%peer, %error, "active data connection failed");
    match error.kind() {
        io::ErrorKind::ConnectionRefused | io::ErrorKind::ConnectionReset => {
            Failure::DataConnectionRefused
        }
        _ => Failure::NoDataConnection,
    }
}
