//! Data connections in active mode (RFC 959 §3.2, PORT and EPRT): the server connects.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::time::Duration;

use crate::proto::failure::Failure;
use crate::uring;

/// How to connect in active mode.
#[derive(Clone, Copy, Debug)]
pub struct Active {
    /// The port from which to connect; RFC 959 §5.2: the port next to the control port, 20. 0: any.
    pub source_port: u16,
    /// How long a connection may take to stand.
    pub connect_timeout: Duration,
}

impl Active {
    /// Connects from `local`, the address at which the client reached the server (its port does not
    /// matter), to `peer`.
    ///
    /// # Errors
    ///
    /// [`Failure::DataConnectionRefused`] if the client's side refuses, [`Failure::NoDataConnection`]
    /// if it does not answer in time or no connection can be made.
    pub async fn connect(&self, local: SocketAddr, peer: SocketAddr) -> Result<OwnedFd, Failure> {
        let connected = async {
            match self.connect_from(local, self.source_port, peer).await {
                // Linux: the pair of addresses and ports is in use already, by a transfer under way
                // or in TIME_WAIT (ip(7), EADDRNOTAVAIL), or another program holds the port.
                Err(error) if self.source_port != 0 && is_port_trouble(&error) => {
                    self.connect_from(local, 0, peer).await
                }
                other => other,
            }
        };
        match tokio::time::timeout(self.connect_timeout, connected).await {
            Ok(connected) => connected.map_err(|error| refused(&error, peer)),
            Err(_) => Err(Failure::NoDataConnection),
        }
    }

    async fn connect_from(
        &self,
        mut local: SocketAddr,
        source_port: u16,
        peer: SocketAddr,
    ) -> io::Result<OwnedFd> {
        local.set_port(source_port);
        uring::connect(peer, Some(local)).await
    }
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
