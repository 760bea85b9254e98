//! A data connection, protected by TLS or not.

use std::io;

use super::kernel::{self, Budget};
use super::{Depot, Watch, protected};
use crate::proto::failure::Failure;
use crate::sys;
use crate::tls::{Channel, DataTls, Handshake};
use crate::uring::{self, Fd};

/// A data connection.
#[derive(Debug)]
pub struct Wire {
    socket: Fd,
    protected: Option<Box<Protected>>,
}

/// What a protected data connection is made of.
#[derive(Debug)]
pub(super) struct Protected {
    pub(super) socket: Fd,
    pub(super) channel: Channel,
    pub(super) inbox: Inbox,
    /// How much of the next record's content the rates have let through.
    pub(super) paid: usize,
    /// The client has said that it sends nothing more.
    pub(super) has_client_ended: bool,
    /// The kernel seals what is sent on the socket, with the channel's keys.
    pub(super) kernel: Option<Budget>,
}

/// What came over a protected data connection, from `cursor` on not yet decrypted.
#[derive(Debug, Default)]
pub(super) struct Inbox {
    pub(super) bytes: Vec<u8>,
    pub(super) cursor: usize,
}

impl Wire {
    /// As it is.
    pub fn clear(socket: Fd) -> Self {
        Self {
            socket,
            protected: None,
        }
    }

    /// After a handshake, in which this side is the server whichever side has connected (RFC 4217 §7).
    ///
    /// # Errors
    /// [`Failure::NegotiationFailed`], [`Failure::NotResumed`] if the client could have and must,
    /// [`Failure::Aborted`] after [`Watch::abort`].
    pub async fn secure(
        depot: &Depot,
        socket: Fd,
        tls: &DataTls,
        watch: &Watch,
    ) -> Result<Self, Failure> {
        let mut handshake = tls.handshake().map_err(|error| failed(&error))?;
        let mut inbox = Inbox {
            bytes: depot.buffers.take(),
            cursor: 0,
        };
        let shaking = shake_hands(&socket, &mut handshake, &mut inbox);
        let shaking = tokio::time::timeout(tls.handshake_timeout(), shaking);
        match watch.unless_aborted(shaking).await? {
            Ok(shaken) => shaken?,
            Err(_) => return Err(failed(&"the handshake takes too long")),
        }
        let resumed = handshake.is_resumed();
        watch.set_protection(match resumed {
            true => "resumed",
            false => "not resumed",
        });
        if !tls.accepts(resumed) {
            return Err(Failure::NotResumed);
        }
        let protected = Protected {
            socket: Fd::clone(&socket),
            channel: handshake
                .finish(tls.records_max())
                .map_err(|error| failed(&error))?,
            inbox,
            paid: 0,
            has_client_ended: false,
            kernel: None,
        };
        Ok(Self {
            socket,
            protected: Some(Box::new(protected)),
        })
    }

    /// Its socket.
    pub fn socket(&self) -> &Fd {
        &self.socket
    }

    pub(super) fn protected(&mut self) -> Option<&mut Protected> {
        self.protected.as_deref_mut()
    }

    /// Changes the keys by which the kernel seals.
    pub(super) async fn renew(&mut self, depot: &Depot) -> Result<(), Failure> {
        match &mut self.protected {
            Some(protected) => kernel::renew(depot, protected).await,
            None => Ok(()),
        }
    }

    /// Tells the client that what was sent is all.
    pub(super) async fn finish(&mut self, depot: &Depot) -> Result<(), Failure> {
        match &mut self.protected {
            Some(protected) if protected.kernel.is_some() => kernel::finish(depot, protected).await,
            Some(protected) => protected::finish(depot, protected).await,
            None => Ok(()),
        }
    }

    /// Gives back what it has of the depot.
    pub fn put_away(self, depot: &Depot) {
        if let Some(protected) = self.protected {
            depot.buffers.give(protected.inbox.bytes);
            depot.buffers.give(protected.channel.into_outbox());
        }
    }
}

async fn shake_hands(
    socket: &Fd,
    handshake: &mut Handshake,
    inbox: &mut Inbox,
) -> Result<(), Failure> {
    while !handshake.is_over() {
        let received = inbox.receive(socket, RECEIVE_BYTES);
        match received {
            Ok(0) => return Err(failed(&"the client has left")),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let ready = uring::readable(socket).await;
                ready.map_err(|error| failed(&error))?;
                continue;
            }
            Err(error) => return Err(failed(&error)),
        }
        let used = handshake.receive(&mut inbox.bytes[inbox.cursor..]);
        inbox.cursor += used.as_ref().copied().unwrap_or(0);
        let output = handshake.take_output();
        if let Err(error) = used {
            // The alert that says why, if it fits.
            let _ = sys::socket::send(socket, &output);
            return Err(failed(&error));
        }
        let (sent, _) = uring::send_all(socket, output).await;
        sent.map_err(|error| failed(&error))?;
        // However fast the client sends, others have their turns.
        uring::pause().await;
    }
    Ok(())
}

impl Inbox {
    /// What has not been decrypted.
    pub(super) fn rest(&self) -> &[u8] {
        &self.bytes[self.cursor..]
    }

    /// Receives what is there, at most so many bytes, behind what has not been decrypted.
    pub(super) fn receive(&mut self, socket: &Fd, count: usize) -> io::Result<usize> {
        if self.cursor > 0 {
            let rest = self.cursor..self.bytes.len();
            let length = rest.len();
            self.bytes.copy_within(rest, 0);
            self.bytes.truncate(length);
            self.cursor = 0;
        }
        sys::socket::receive_behind(socket, &mut self.bytes, count)
    }
}

fn failed(error: &dyn std::fmt::Display) -> Failure {
    tracing::debug!(%error, "no TLS on a data connection");
    Failure::NegotiationFailed
}

/// Received at a time in a handshake, whose messages are short.
const RECEIVE_BYTES: usize = 16 * 1024;
