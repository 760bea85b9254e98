//! What a client still sends when its upload has failed on this side.
//!
//! A socket that is closed with bytes in it is reset, and many clients that meet a reset while they
//! send do not read the reply which says why (curl 8: "Send failure" instead of 552). So the
//! connection stays for a while, and what comes is thrown away.

use std::cell::Cell;
use std::io;
use std::time::Duration;

use crate::proto::failure::Failure;
use crate::sys::socket;
use crate::uring::{self, Fd};

/// How many connections of a core are read for nothing.
#[derive(Debug, Default)]
pub struct Drains(Cell<usize>);

/// One of them; dropping it makes room for the next one.
struct Drain<'a>(&'a Cell<usize>);

impl Drains {
    /// Reads until the client has closed its side, for no longer than it takes a patient client with
    /// a small file. The connection is to be reset when it is dropped: what it was for has failed.
    pub async fn drain(&self, socket: &Fd) {
        if self.0.get() >= DRAINS_MAX {
            return;
        }
        self.0.set(self.0.get() + 1);
        let _drain = Drain(&self.0);
        // Whatever comes of it, the connection is closed then.
        let _ = tokio::time::timeout(DRAIN_TIMEOUT, discard(socket)).await;
    }
}

impl Drop for Drain<'_> {
    fn drop(&mut self) {
        self.0.set(self.0.get() - 1);
    }
}

/// Whether a client that sends is worth listening to until it reads the reply.
pub fn is_worth_a_drain(failure: Failure) -> bool {
    !matches!(
        failure,
        Failure::Aborted | Failure::PeerReset | Failure::PeerStalled | Failure::Truncated
    )
}

async fn discard(socket: &Fd) -> io::Result<()> {
    let mut left = DRAIN_BYTES_MAX;
    while left > 0 {
        match socket::discard(socket, PIECE_BYTES.min(left)) {
            Ok(0) => return Ok(()),
            Ok(count) => {
                left -= count.min(left);
                // Others first.
                uring::pause().await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                uring::readable(socket).await?;
            }
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Each holds a descriptor.
const DRAINS_MAX: usize = 64;

/// Bytes that are thrown away of one upload, and how long.
const DRAIN_BYTES_MAX: usize = 64 * 1024 * 1024;
const DRAIN_TIMEOUT: Duration = Duration::from_secs(5);

/// Thrown away in one call: the kernel frees it without a copy.
const PIECE_BYTES: usize = 256 * 1024;
