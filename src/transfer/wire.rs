//! A data connection, protected by TLS or not.

use std::io::{self, IoSlice, Write};

use super::{Depot, Watch, protected};
use crate::proto::failure::Failure;
use crate::sys;
use crate::tls::{DataTls, Stream};
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
    pub(super) stream: Stream,
    /// What came, from `cursor` on not yet decrypted.
    pub(super) records: Vec<u8>,
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
        let stream = tls.stream().map_err(|error| failed(&error))?;
        let mut protected = Box::new(Protected {
            socket: Fd::clone(&socket),
            stream,
            records: depot.buffers.take(),
            cursor: 0,
        });
        let handshake = tokio::time::timeout(tls.handshake_timeout(), protected.shake_hands());
        match watch.unless_aborted(handshake).await? {
            Ok(shaken) => shaken?,
            Err(_) => return Err(failed(&"the handshake takes too long")),
        }
        let resumed = protected.stream.is_resumed();
        watch.set_protection(match resumed {
            true => "resumed",
            false => "not resumed",
        });
        if !tls.accepts(resumed) {
            return Err(Failure::NotResumed);
        }
        Ok(Self {
            socket,
            protected: Some(protected),
        })
    }

    /// Its socket.
    pub fn socket(&self) -> &Fd {
        &self.socket
    }

    pub(super) fn protected(&mut self) -> Option<&mut Protected> {
        self.protected.as_deref_mut()
    }

    /// Tells the client that what was sent is all.
    pub(super) async fn finish(&mut self, depot: &Depot) -> Result<(), Failure> {
        if let Some(protected) = &mut self.protected {
            protected.stream.close();
            protected::flush(depot, protected).await?;
        }
        Ok(())
    }

    /// Gives back what it has of the depot.
    pub fn put_away(self, depot: &Depot) {
        if let Some(protected) = self.protected {
            depot.buffers.give(protected.records);
        }
    }
}

impl Protected {
    async fn shake_hands(&mut self) -> Result<(), Failure> {
        loop {
            while self.stream.wants_write() {
                match self.send_some() {
                    Ok(()) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let ready = uring::writable(&self.socket).await;
                        ready.map_err(|error| failed(&error))?;
                    }
                    Err(error) => return Err(failed(&error)),
                }
            }
            if !self.stream.is_handshaking() {
                return Ok(());
            }
            if self.cursor == self.records.len() {
                match self.receive_some() {
                    Ok(0) => return Err(failed(&"the client has left")),
                    Ok(_) => {}
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        let ready = uring::readable(&self.socket).await;
                        ready.map_err(|error| failed(&error))?;
                        continue;
                    }
                    Err(error) => return Err(failed(&error)),
                }
            }
            self.open_some().map_err(|_| Failure::NegotiationFailed)?;
            // The end of an empty file may come with that of the handshake.
            if self.stream.is_handshaking() && self.stream.peer_has_closed() {
                return Err(failed(&"the client has ended it"));
            }
            // However fast the client sends, others have their turns.
            uring::pause().await;
        }
    }

    /// Sends what the socket takes of what is encrypted.
    pub(super) fn send_some(&mut self) -> io::Result<()> {
        let mut outlet = Outlet(&self.socket);
        self.stream.write_to(&mut outlet).map(drop)
    }

    /// Receives what is there, when all that was there before has been decrypted.
    pub(super) fn receive_some(&mut self) -> io::Result<usize> {
        self.records.clear();
        self.cursor = 0;
        sys::socket::receive_behind(&self.socket, &mut self.records, usize::MAX)
    }

    /// Decrypts some of what came.
    pub(super) fn open_some(&mut self) -> Result<(), Failure> {
        let mut rest = &self.records[self.cursor..];
        let opened = self.stream.receive(&mut rest);
        self.cursor = self.records.len() - rest.len();
        opened.map_err(|error| {
            // The alert that says why, if it fits.
            let _ = self.send_some();
            tracing::debug!(%error, "TLS failed on a data connection");
            Failure::PeerReset
        })
    }
}

fn failed(error: &dyn std::fmt::Display) -> Failure {
    tracing::debug!(%error, "no TLS on a data connection");
    Failure::NegotiationFailed
}

/// A socket that takes what it can at once.
struct Outlet<'a>(&'a Fd);

impl Write for Outlet<'_> {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        sys::socket::send(self.0, bytes)
    }

    fn write_vectored(&mut self, slices: &[IoSlice<'_>]) -> io::Result<usize> {
        sys::gather::send_vectored(self.0, slices)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}
