//! Connections that a balancer makes on behalf of clients: the PROXY header at their beginning.

use std::io;
use std::time::Duration;

use thiserror::Error;

use crate::proto::proxy::{self, Header, ProxyError};
use crate::sys::socket;
use crate::uring::{self, Fd};

/// Why a connection has no header.
#[derive(Debug, Error)]
pub enum HeaderError {
    /// What came is none.
    #[error(transparent)]
    Malformed(#[from] ProxyError),
    /// It did not come in time.
    #[error("no PROXY header within {} s", HEADER_TIMEOUT.as_secs())]
    Late,
    /// The connection has ended or broken.
    #[error("no PROXY header: {0}")]
    Broken(#[from] io::Error),
}

/// Receives the header, and not a byte more: what follows is the client's.
///
/// # Errors
///
/// See [`HeaderError`].
pub async fn header(connection: &Fd) -> Result<Header, HeaderError> {
    let received = tokio::time::timeout(HEADER_TIMEOUT, receive(connection)).await;
    received.unwrap_or(Err(HeaderError::Late))
}

async fn receive(connection: &Fd) -> Result<Header, HeaderError> {
    let mut seen: Vec<u8> = Vec::new();
    let mut buffer = [0; proxy::HEADER_LENGTH_MAX];
    loop {
        uring::readable(connection).await?;
        let peeked = match socket::peek(connection, &mut buffer) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => continue,
            Err(error) => return Err(error.into()),
            Ok(0) => return Err(io::Error::from(io::ErrorKind::UnexpectedEof).into()),
            Ok(peeked) => peeked,
        };
        let known = seen.len();
        seen.extend_from_slice(&buffer[..peeked]);
        let parsed = proxy::parse(&seen)?;
        // All of it belongs to the header while that is not complete.
        let own = parsed.map_or(peeked, |(length, _)| length - known);
        socket::receive(connection, &mut buffer[..own])?;
        if let Some((_, header)) = parsed {
            return Ok(header);
        }
    }
}

/// The specification's advice is 3 seconds at least (§2): the header is in the first
/// packet, which may have to be sent again.
const HEADER_TIMEOUT: Duration = Duration::from_secs(5);
