//! TLS on the control connection (RFC 4217): how it begins, what goes through it, and how it ends before
//! the connection does (CCC, REIN).

use std::time::Instant;

use super::{Connection, RECEIVE_BYTES};
use crate::proto::line::LineDecoder;
use crate::session::{Event, Session};
use crate::sys;
use crate::tls::{SessionTls, Stream, TlsError};
use crate::uring;

/// What a control connection needs to be protected.
#[derive(Debug)]
pub(super) struct Secured {
    stream: Stream,
    pub(super) tls: SessionTls,
    /// What came and has not been looked at.
    records: Vec<u8>,
    border: Border,
    since: Instant,
    way: Way,
}

/// How far a connection is protected.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Way {
    Protected,
    /// This side has said that it ends; the other side not yet.
    Ending,
    /// It is not any more.
    Clear,
    /// Nothing more is sent.
    Closed,
}

impl Secured {
    pub(super) fn new(tls: SessionTls) -> Result<Self, TlsError> {
        Ok(Self {
            stream: tls.control()?,
            tls,
            records: Vec::with_capacity(RECORDS_BYTES),
            border: Border::default(),
            since: Instant::now(),
            way: Way::Protected,
        })
    }

    /// When the handshake has taken too long, if it is not over.
    pub(super) fn handshake_ends(&self) -> Option<Instant> {
        self.is_handshaking()
            .then(|| self.since + self.tls.handshake_timeout())
    }

    /// The host name that the client asked for in a TLS session that goes on.
    pub(super) fn server_name(&self) -> Option<&str> {
        (self.way == Way::Protected)
            .then(|| self.stream.server_name())
            .flatten()
    }

    fn is_handshaking(&self) -> bool {
        self.way == Way::Protected && self.stream.is_handshaking()
    }

    /// What is to be sent now: records of the handshake, of replies, and of the end; or replies as they
    /// are.
    pub(super) fn seal(&mut self, session: &mut Session, closing: bool) -> Vec<u8> {
        match self.way {
            Way::Protected => {}
            Way::Ending | Way::Clear => return session.take_output(),
            Way::Closed => {
                session.take_output();
                return Vec::new();
            }
        }
        if !self.stream.is_handshaking() {
            if session.output_len() > 0 {
                self.stream.write(&session.take_output());
            }
            if closing {
                self.way = Way::Closed;
                self.stream.close();
            }
        }
        self.stream.take_output()
    }

    /// Decrypts what came, behind what `plain` holds; whether more can come.
    fn open(&mut self, plain: &mut Vec<u8>) -> Result<bool, TlsError> {
        let mut rest = self.records.as_slice();
        while !rest.is_empty() {
            // Behind its last record a client sends plain text; some say nothing of the end.
            let is_over = self.stream.peer_has_closed() || !self.border.is_record(rest[0]);
            if self.way == Way::Ending && is_over {
                self.way = Way::Clear;
            }
            if self.way == Way::Clear {
                plain.extend_from_slice(rest);
                return Ok(true);
            }
            let mut record;
            (record, rest) = rest.split_at(self.border.length(rest));
            while !record.is_empty() {
                self.stream.receive(&mut record)?;
                read(&mut self.stream, plain);
            }
        }
        Ok(self.way != Way::Protected || !self.stream.peer_has_closed())
    }
}

/// Moves what has been decrypted behind what `plain` holds.
fn read(stream: &mut Stream, plain: &mut Vec<u8>) {
    loop {
        plain.reserve(RECEIVE_BYTES);
        if stream.read_into(plain, usize::MAX) == 0 {
            return;
        }
    }
}

/// Where records begin (RFC 8446 §5.1: type, version, length in bytes 3 and 4).
#[derive(Debug, Default)]
struct Border {
    header: [u8; 5],
    /// Bytes of the header that have come.
    known: usize,
    /// Bytes of the record that have not come.
    missing: usize,
}

impl Border {
    /// How many of these bytes belong to the present record, or to the next one if that is complete.
    fn length(&mut self, bytes: &[u8]) -> usize {
        let mut at = 0;
        if self.missing == 0 {
            let count = bytes.len().min(self.header.len() - self.known);
            self.header[self.known..self.known + count].copy_from_slice(&bytes[..count]);
            self.known += count;
            at = count;
            if self.known == self.header.len() {
                self.known = 0;
                self.missing = usize::from(u16::from_be_bytes([self.header[3], self.header[4]]));
            }
        }
        let count = self.missing.min(bytes.len() - at);
        self.missing -= count;
        at + count
    }

    /// Whether this byte, which comes next, belongs to a record.
    fn is_record(&self, byte: u8) -> bool {
        // RFC 8446 §5.1: types are 20 to 24. No command begins with such a byte.
        self.known > 0 || self.missing > 0 || (20..=24).contains(&byte)
    }
}

impl Connection {
    /// Begins TLS, after what is still to be sent. What the client has sent behind AUTH is thrown away:
    /// whoever put it there might have been somebody else (RFC 3207 §4.2 says so of SMTP).
    pub(super) async fn upgrade(&mut self) {
        // Those of now: a client's certificate may have been revoked since it came.
        let settings = self.core.settings();
        let tls = settings.tls.as_ref();
        let secured = tls.map(|tls| Secured::new(tls.session(self.card.id(), self.session.host())));
        let Some(Ok(secured)) = secured else {
            self.closing = true;
            return;
        };
        self.input.clear();
        self.cursor = 0;
        self.decoder = LineDecoder::new(self.settings.line_length);
        if self.receive.is_none() {
            // The client waits for the reply, so nothing of its handshake is here.
            // More than that would be no TLS, either.
            let _ = sys::socket::discard(&*self.socket, DISCARD_BYTES);
        }
        if self.flush().await.is_ok() {
            // What was on its way until here is no TLS, and ends the session.
            self.secured = Some(Box::new(secured));
        }
    }

    /// Ends TLS, after what is still to be sent.
    pub(super) async fn downgrade(&mut self) {
        if let Some(sending) = self.sending.take() {
            let (sent, _) = sending.await;
            if sent.is_err() {
                self.closing = true;
                return;
            }
        }
        let Some(secured) = &mut self.secured else {
            return;
        };
        let last = secured.seal(&mut self.session, true);
        secured.way = Way::Ending;
        let sending = uring::send_all(&self.socket, last);
        let sent = tokio::time::timeout(self.settings.reply_timeout, sending).await;
        if !matches!(sent, Ok((Ok(()), _))) {
            self.closing = true;
        }
    }

    /// The buffer for what comes next.
    pub(super) fn receive_buffer(&mut self) -> Vec<u8> {
        if let Some(secured) = &mut self.secured {
            let buffer = std::mem::take(&mut secured.records);
            return match buffer.capacity() {
                0 => Vec::with_capacity(RECORDS_BYTES),
                _ => buffer,
            };
        }
        let mut buffer = std::mem::take(&mut self.input);
        buffer.clear();
        self.cursor = 0;
        buffer
    }

    /// Takes a buffer back with what came.
    pub(super) fn take_in(&mut self, buffer: Vec<u8>) {
        match &mut self.secured {
            Some(secured) => secured.records = buffer,
            None => {
                self.input = buffer;
                self.cursor = 0;
            }
        }
    }

    /// Decrypts what came, if the connection is protected; false when there is nobody left to serve.
    pub(super) fn open_records(&mut self) -> bool {
        let Some(secured) = &mut self.secured else {
            return true;
        };
        let was_handshaking = secured.is_handshaking();
        // All of it has been used: only then is anything received.
        self.input.clear();
        self.cursor = 0;
        if self.input.capacity() > INPUT_BYTES_KEPT {
            self.input = Vec::new();
        }
        let (session, peer) = (self.card.id(), self.card.peer());
        match secured.open(&mut self.input) {
            Ok(can_go_on) => {
                if was_handshaking && !secured.stream.is_handshaking() {
                    let protocol = secured.stream.description();
                    let resumed = secured.stream.is_resumed();
                    let host = secured.stream.server_name();
                    let certified = secured.stream.client_names();
                    let names = certified.as_ref().map(|names| names.join(" "));
                    tracing::debug!(session, %peer, protocol, resumed, host, names, "TLS");
                    let settings = self.core.settings();
                    let limits = host.and_then(|name| settings.limits_by_sni(name));
                    if let Some(limits) = limits {
                        self.session.begin_by_name(limits);
                    }
                    if let Some(names) = certified {
                        let names = names.into_iter().map(String::into_bytes).collect();
                        self.event(Event::Certified(names));
                    }
                }
                can_go_on || !self.input.is_empty()
            }
            Err(error) => {
                tracing::info!(session, %peer, %error, "TLS failed on the control connection");
                // The alert that says why, if it fits.
                let _ = sys::socket::send(&*self.socket, &secured.stream.take_output());
                false
            }
        }
    }
}

/// A command with the overhead of its record is seldom longer; a handshake comes in a few pieces.
const RECORDS_BYTES: usize = 1024;

/// The largest record has 16 KiB; a session that has sent one does not hold room for it afterwards.
const INPUT_BYTES_KEPT: usize = 4096;

/// Bytes that are thrown away.
const DISCARD_BYTES: usize = 64 * 1024;

#[cfg(test)]
mod tests {
    use super::Border;

    #[test]
    fn borders_of_records_are_found_however_they_come() {
        let bytes = b"\x17\x03\x03\x00\x03abc\x15\x03\x03\x00\x00\x17\x03\x03\x00\x01xNOOP\r\n";
        for size in 1..=bytes.len() {
            let mut border = Border::default();
            let (mut ends, mut at) = (Vec::new(), 0);
            'all: for piece in bytes.chunks(size) {
                let mut rest = piece;
                while !rest.is_empty() {
                    if !border.is_record(rest[0]) {
                        break 'all;
                    }
                    let count = border.length(rest);
                    assert!(count > 0);
                    rest = &rest[count..];
                    at += count;
                    if border.known == 0 && border.missing == 0 {
                        ends.push(at);
                    }
                }
            }
            assert_eq!(ends, [8, 13, 19], "in pieces of {size}");
        }
    }
}
