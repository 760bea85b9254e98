//! A control connection: lines out, replies in.

use std::io::{self, Read, Write};
use std::net::{SocketAddr, TcpStream};
use std::ops::Range;

use super::reply;
use super::tls::{Protocol, Tls};
use super::{Doing, Error, Result, Target, Wire};

/// The client's end of a control connection.
#[derive(Debug)]
pub(crate) struct Control {
    wire: Wire,
    /// What protects it, and its data connections.
    tls: Option<Tls>,
    buffer: Vec<u8>,
    /// What of the buffer has been received and not been looked at.
    unread: Range<usize>,
}

/// One reply.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Reply<'a> {
    pub(crate) code: u16,
    /// All of it, with the line ends.
    pub(crate) text: &'a [u8],
}

impl Control {
    /// Connects; the greeting comes as the first reply.
    pub(crate) fn connect(target: &Target) -> Result<Self> {
        let stream = TcpStream::connect(target.address).doing("control connection")?;
        stream.set_nodelay(true).doing("TCP_NODELAY")?;
        stream
            .set_read_timeout(Some(target.deadline))
            .doing("SO_RCVTIMEO")?;
        Ok(Self {
            wire: Wire::new(stream),
            tls: None,
            buffer: vec![0; BUFFER_BYTES],
            unread: 0..0,
        })
    }

    pub(crate) fn peer(&self) -> Result<SocketAddr> {
        self.wire.stream().peer_addr().doing("control connection")
    }

    pub(crate) fn local(&self) -> Result<SocketAddr> {
        self.wire.stream().local_addr().doing("control connection")
    }

    /// Begins TLS, which the server has agreed to.
    pub(crate) fn begin_tls(&mut self, tls: &Tls) -> Result<()> {
        let tls = self.tls.insert(tls.for_session());
        self.wire.begin_tls(tls)
    }

    /// Waits for the end of the handshake that [`Control::begin_tls`] began.
    pub(crate) fn shake_hands(&mut self) -> Result<(bool, Protocol)> {
        self.wire.shake_hands()
    }

    /// What its data connections are to be protected by.
    pub(crate) fn tls(&self) -> Option<&Tls> {
        self.tls.as_ref()
    }

    /// Sends a line that has its CR LF.
    pub(crate) fn send(&mut self, line: &[u8]) -> Result<()> {
        self.wire
            .write_all(line)
            .map_err(|error| Error::new(format!("{}: {error}", shown(line))))
    }

    /// Waits for the next reply.
    pub(crate) fn reply(&mut self, to: &[u8]) -> Result<Reply<'_>> {
        loop {
            let received = &self.buffer[self.unread.clone()];
            match reply::parse(received) {
                Ok(Some((code, length))) => {
                    let place = self.unread.start..self.unread.start + length;
                    self.unread.start = place.end;
                    let text = &self.buffer[place];
                    return Ok(Reply { code, text });
                }
                Ok(None) => self.receive(to)?,
                Err(wrong) => {
                    let what = format!("{}: {wrong}: {}", shown(to), shown(received));
                    return Err(Error::new(what));
                }
            }
        }
    }

    /// Waits for the next reply, which must have one of these codes.
    pub(crate) fn expect(&mut self, to: &[u8], codes: &[u16]) -> Result<Reply<'_>> {
        let reply = self.reply(to)?;
        if !codes.contains(&reply.code) {
            return Err(reply.unexpected(to));
        }
        Ok(reply)
    }

    /// Sends a line and waits for a reply with one of these codes.
    pub(crate) fn ask(&mut self, line: &[u8], codes: &[u16]) -> Result<Reply<'_>> {
        self.send(line)?;
        self.expect(line, codes)
    }

    /// Waits for the end of the connection; nothing may come before it.
    pub(crate) fn end(&mut self) -> Result<()> {
        if self.unread.is_empty() {
            match self.wire.read(&mut self.buffer) {
                Ok(0) => return Ok(()),
                // Few servers say on control connections that TLS ends.
                Err(error) if error.kind() == io::ErrorKind::UnexpectedEof => return Ok(()),
                Ok(count) => self.unread = 0..count,
                Err(error) => return Err(error).doing("end of session"),
            }
        }
        let more = shown(&self.buffer[self.unread.clone()]);
        Err(Error::new(format!("more after the last reply: {more}")))
    }

    fn receive(&mut self, to: &[u8]) -> Result<()> {
        if self.unread.start > 0 {
            self.buffer.copy_within(self.unread.clone(), 0);
            self.unread = 0..self.unread.len();
        }
        if self.unread.end == self.buffer.len() {
            if self.buffer.len() >= REPLY_BYTES_MAX {
                return Err(Error::new(format!("{}: an endless reply", shown(to))));
            }
            self.buffer.resize(2 * self.buffer.len(), 0);
        }
        let count = self.wire.read(&mut self.buffer[self.unread.end..]);
        match count.map_err(|error| Error::new(format!("{}: {error}", shown(to))))? {
            0 => Err(Error::new(format!("{}: connection closed", shown(to)))),
            count => {
                self.unread.end += count;
                Ok(())
            }
        }
    }
}

impl Reply<'_> {
    /// That this is not what should have come.
    pub(crate) fn unexpected(&self, to: &[u8]) -> Error {
        Error::new(format!("{}: {}", shown(to), shown(self.text)))
    }
}

/// As one line for people, without a password.
pub(crate) fn shown(line: &[u8]) -> String {
    let line = match line.get(..5) {
        Some(b"PASS ") => b"PASS",
        _ => line,
    };
    String::from_utf8_lossy(line)
        .trim_end()
        .replace("\r\n", " / ")
}

/// Enough for any reply to what is asked here; greetings may be longer.
const BUFFER_BYTES: usize = 512;

/// A reply that is longer has no end.
const REPLY_BYTES_MAX: usize = 1 << 16;
