//! TLS on the control connection (RFC 4217 §4): how it begins, and what goes through it.

use std::time::Instant;

use super::{Connection, RECEIVE_BYTES};
use crate::proto::line::LineDecoder;
use crate::session::Session;
use crate::sys;
use crate::tls::{SessionTls, Stream, TlsError};

/// What a control connection needs to be protected.
#[derive(Debug)]
pub(super) struct Secured {
    stream: Stream,
    pub(super) tls: SessionTls,
    /// What came and has not been looked at.
    records: Vec<u8>,
    since: Instant,
    closed: bool,
}

impl Secured {
    pub(super) fn new(tls: SessionTls) -> Result<Self, TlsError> {
        Ok(Self {
            stream: tls.control()?,
            tls,
            records: Vec::with_capacity(RECORDS_BYTES),
            since: Instant::now(),
            closed: false,
        })
    }

    /// When the handshake has taken too long, if it is not over.
    pub(super) fn handshake_ends(&self) -> Option<Instant> {
        let is_handshaking = self.stream.is_handshaking();
        is_handshaking.then(|| self.since + self.tls.handshake_timeout())
    }

    /// The records that are to be sent now: of the handshake, of replies, and of the end.
    pub(super) fn seal(&mut self, session: &mut Session, closing: bool) -> Vec<u8> {
        if !self.stream.is_handshaking() {
            if session.output_len() > 0 {
                self.stream.write(&session.take_output());
            }
            if closing && !self.closed {
                self.closed = true;
                self.stream.close();
            }
        }
        self.stream.take_output()
    }

    /// Decrypts what came, behind what `plain` holds; whether more can come.
    fn open(&mut self, plain: &mut Vec<u8>) -> Result<bool, TlsError> {
        let mut records = self.records.as_slice();
        while !records.is_empty() {
            self.stream.receive(&mut records)?;
            loop {
                plain.reserve(RECEIVE_BYTES);
                if self.stream.read_into(plain, usize::MAX) == 0 {
                    break;
                }
            }
        }
        Ok(!self.stream.peer_has_closed())
    }
}

impl Connection {
    /// Begins TLS, after what is still to be sent. What the client has sent behind AUTH is thrown away:
    /// whoever put it there might have been somebody else (RFC 3207 §4.2 says so of SMTP).
    pub(super) async fn upgrade(&mut self) {
        let tls = self.settings.tls.as_ref();
        let secured = tls.map(|tls| Secured::new(tls.session(self.card.id())));
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
        let was_handshaking = secured.stream.is_handshaking();
        // All of it has been used: only then is anything received.
        self.input.clear();
        self.cursor = 0;
        if self.input.capacity() > INPUT_BYTES_KEPT {
            self.input = Vec::new();
        }
        let (session, peer) = (self.card.id(), self.peer);
        match secured.open(&mut self.input) {
            Ok(can_go_on) => {
                if was_handshaking && !secured.stream.is_handshaking() {
                    let protocol = secured.stream.description();
                    let resumed = secured.stream.is_resumed();
                    let host = secured.stream.server_name();
                    tracing::debug!(session, %peer, protocol, resumed, host, "TLS");
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
