//! A connection, in the clear or over TLS.

use std::io::{self, Read, Write};
use std::net::{Shutdown, TcpStream};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd};

use nix::errno::Errno;
use nix::sys::socket::{MsgFlags, recv, send};

use super::tls::{Channel, Next, Protocol, Tls};
use super::{Doing, Error, Result};

/// One end of it.
#[derive(Debug)]
pub(crate) struct Wire {
    stream: TcpStream,
    protection: Option<Box<Protection>>,
}

#[derive(Debug)]
struct Protection {
    channel: Channel,
    /// What has been decrypted and not been read.
    plain: Vec<u8>,
}

impl Wire {
    /// As it is.
    pub(crate) fn new(stream: TcpStream) -> Self {
        Self {
            stream,
            protection: None,
        }
    }

    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Begins TLS: what the client says first is sent.
    pub(crate) fn begin_tls(&mut self, tls: &Tls) -> Result<()> {
        let protection = Protection {
            channel: Channel::new(tls)?,
            plain: Vec::new(),
        };
        self.protection = Some(Box::new(protection));
        self.advance(Next::Nothing)?;
        self.flush_channel().doing("TLS")
    }

    /// Waits for the end of the handshake. Returns whether an earlier session was resumed, and what
    /// both agree upon.
    pub(crate) fn shake_hands(&mut self) -> Result<(bool, Protocol)> {
        loop {
            let Some(protection) = &self.protection else {
                return Err(Error::new("TLS: it has not begun"));
            };
            if let Some(agreed) = protection.channel.agreed() {
                return Ok(agreed);
            }
            if self.receive(MsgFlags::empty())? == Some(0) {
                return Err(Error::new("TLS: the server closed in the handshake"));
            }
            self.advance(Next::Nothing)?;
            self.flush_channel().doing("TLS")?;
        }
    }

    /// Takes bytes and throws them away, 0 at the end: from `sink`, which need not be touched, if
    /// they are in the clear. `None` if there are none and `flags` say not to wait.
    pub(crate) fn discard(&mut self, sink: &mut [u8], flags: MsgFlags) -> Result<Option<usize>> {
        if self.protection.is_none() {
            // Without a copy (tcp(7)).
            return receive(&self.stream, sink, MsgFlags::MSG_TRUNC | flags);
        }
        loop {
            if let Some(protection) = &mut self.protection {
                // Some may have come with the end of the handshake.
                let mut count = std::mem::take(&mut protection.plain).len();
                let channel = &mut protection.channel;
                channel.advance(Next::Nothing, |plain| count += plain.len())?;
                if count > 0 || channel.is_over {
                    return Ok(Some(count));
                }
            }
            match self.receive(flags)? {
                None => return Ok(None),
                Some(0) => return Err(Error::new("the end of the connection, and not of TLS")),
                Some(_) => {}
            }
        }
    }

    /// Whether the other side has said, in TLS, that nothing more comes.
    pub(crate) fn is_over(&self) -> bool {
        let protection = self.protection.as_ref();
        protection.is_some_and(|protection| protection.channel.is_over)
    }

    /// Sends without waiting: what could be sent, or has been encrypted and will be.
    pub(crate) fn send_some(&mut self, bytes: &[u8]) -> Result<usize> {
        let flags = MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL;
        let fd = self.stream.as_raw_fd();
        let Some(protection) = &mut self.protection else {
            return try_send(fd, bytes, flags);
        };
        let channel = &mut protection.channel;
        let mut taken = 0;
        if channel.output().is_empty() && !bytes.is_empty() {
            taken = bytes.len().min(SEAL_BYTES);
            channel.advance(Next::Send(&bytes[..taken]), |_| ())?;
        }
        let count = try_send(fd, channel.output(), flags)?;
        channel.sent(count);
        Ok(taken)
    }

    /// Whether everything that was taken is sent.
    pub(crate) fn is_flushed(&self) -> bool {
        let protection = self.protection.as_ref();
        protection.is_none_or(|protection| protection.channel.output().is_empty())
    }

    /// Closes a data connection. With TLS both sides say so, and what is still on its way (tickets) is
    /// waited for: unread it would have the kernel throw away what the server has not read.
    pub(crate) fn close(mut self) -> Result<()> {
        if self.protection.is_none() {
            return Ok(());
        }
        self.advance(Next::Close)?;
        // A server that has closed already will not read it.
        if self.flush_channel().is_err() || self.stream.shutdown(Shutdown::Write).is_err() {
            return Ok(());
        }
        // Only downloads need an end of TLS, and they had it.
        while matches!(self.receive(MsgFlags::empty()), Ok(Some(1..))) {
            self.advance(Next::Nothing)?;
        }
        Ok(())
    }

    fn advance(&mut self, next: Next<'_>) -> Result<()> {
        match &mut self.protection {
            Some(protection) => {
                let plain = &mut protection.plain;
                let keep = |bytes: &[u8]| plain.extend_from_slice(bytes);
                protection.channel.advance(next, keep)
            }
            None => Ok(()),
        }
    }

    fn receive(&mut self, flags: MsgFlags) -> Result<Option<usize>> {
        let Some(protection) = &mut self.protection else {
            return Ok(None);
        };
        let received = receive(&self.stream, protection.channel.room(), flags)?;
        protection.channel.received(received.unwrap_or_default());
        Ok(received)
    }

    fn flush_channel(&mut self) -> io::Result<()> {
        if let Some(protection) = &mut self.protection {
            self.stream.write_all(protection.channel.output())?;
            protection.channel.sent(protection.channel.output().len());
        }
        Ok(())
    }
}

impl Read for Wire {
    fn read(&mut self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            let Some(protection) = &mut self.protection else {
                return self.stream.read(buffer);
            };
            let plain = &mut protection.plain;
            if !plain.is_empty() {
                let count = plain.len().min(buffer.len());
                buffer[..count].copy_from_slice(&plain[..count]);
                plain.drain(..count);
                return Ok(count);
            }
            if protection.channel.is_over {
                return Ok(0);
            }
            // That the connection ends and TLS does not is for the caller to judge.
            match self.receive(MsgFlags::empty()).map_err(io::Error::other)? {
                Some(0) => return Err(io::ErrorKind::UnexpectedEof.into()),
                _ => self.advance(Next::Nothing).map_err(io::Error::other)?,
            }
        }
    }
}

impl Write for Wire {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        if self.protection.is_none() {
            return self.stream.write(bytes);
        }
        let sealed = self.advance(Next::Send(bytes));
        sealed.map_err(io::Error::other)?;
        self.flush_channel()?;
        Ok(bytes.len())
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

impl AsFd for Wire {
    fn as_fd(&self) -> BorrowedFd<'_> {
        self.stream.as_fd()
    }
}

fn receive(stream: &TcpStream, buffer: &mut [u8], flags: MsgFlags) -> Result<Option<usize>> {
    loop {
        match recv(stream.as_raw_fd(), buffer, flags) {
            Ok(count) => return Ok(Some(count)),
            Err(Errno::EINTR) => {}
            Err(Errno::EAGAIN) if flags.contains(MsgFlags::MSG_DONTWAIT) => return Ok(None),
            Err(error) => return Err(error).doing("receiving"),
        }
    }
}

/// 0 if nothing can be sent now.
fn try_send(fd: i32, bytes: &[u8], flags: MsgFlags) -> Result<usize> {
    match send(fd, bytes, flags) {
        Ok(count) => Ok(count),
        Err(Errno::EAGAIN | Errno::EINTR) => Ok(0),
        Err(error) => Err(error).doing("sending"),
    }
}

/// Encrypted at a time, so that it is still in the CPU's cache when the kernel copies it.
const SEAL_BYTES: usize = 128 << 10;
