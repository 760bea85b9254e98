//! TLS on a control connection as a machine without I/O: what came goes in, what is to be sent comes out.

use std::fmt;
use std::io::{self, Write};
use std::sync::Arc;

use rustls::{HandshakeKind, ServerConfig, ServerConnection};
use thiserror::Error;

use super::certificates::subjects;

/// What is wrong with what the peer sent.
#[derive(Clone, Debug, Error, PartialEq)]
#[error(transparent)]
pub struct TlsError(#[from] rustls::Error);

/// The server's side of one connection.
pub struct Stream(Box<ServerConnection>);

impl Stream {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        let mut connection = ServerConnection::new(config)?;
        // Whoever writes waits until it is sent.
        connection.set_buffer_limit(None);
        Ok(Self(Box::new(connection)))
    }

    /// Takes in some of what came, at most a record or so, and cuts it off `bytes`. What has been
    /// decrypted has to be read before the next call.
    ///
    /// # Errors
    /// What is wrong with it. The peer is told in what is to be sent next; after that the connection is
    /// of no use.
    pub fn receive(&mut self, bytes: &mut &[u8]) -> Result<(), TlsError> {
        while !bytes.is_empty() {
            let taken = self.0.read_tls(bytes);
            let state = self.0.process_new_packets()?;
            // What comes after the end of the session is not looked at.
            if state.peer_has_closed() {
                *bytes = &[];
            }
            let has_plaintext = state.plaintext_bytes_to_read() > 0;
            // A message that does not fit into the buffer never becomes complete.
            if taken.is_err() && !has_plaintext && !bytes.is_empty() {
                let reason = "a message of the handshake is too long".to_owned();
                return Err(rustls::Error::General(reason).into());
            }
            if !matches!(taken, Ok(1..)) || has_plaintext {
                break;
            }
        }
        Ok(())
    }

    /// Moves what has been decrypted into `chunk`, up to its capacity; returns how many bytes.
    pub fn read_into(&mut self, chunk: &mut Vec<u8>, count: usize) -> usize {
        let mut read = 0;
        while read < count && chunk.len() < chunk.capacity() {
            let Ok(plain) = self.0.reader().into_first_chunk() else {
                break;
            };
            let length = plain
                .len()
                .min(count - read)
                .min(chunk.capacity() - chunk.len());
            if length == 0 {
                break;
            }
            chunk.extend_from_slice(&plain[..length]);
            io::BufRead::consume(&mut self.0.reader(), length);
            read += length;
        }
        read
    }

    /// Encrypts bytes, which are then to be sent.
    pub fn write(&mut self, bytes: &[u8]) {
        // It takes everything, since it has no limit, and fails of nothing.
        let _ = self.0.writer().write_all(bytes);
    }

    /// Takes all that is to be sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        let mut output = Vec::new();
        while self.0.wants_write() {
            // A vector takes everything.
            if !matches!(self.0.write_tls(&mut output), Ok(1..)) {
                break;
            }
        }
        output
    }

    /// Tells the peer that nothing more comes (RFC 8446 §6.1).
    pub fn close(&mut self) {
        self.0.send_close_notify();
    }

    /// Whether the handshake is not over yet.
    pub fn is_handshaking(&self) -> bool {
        self.0.is_handshaking()
    }

    /// Whether the peer has told that nothing more comes.
    pub fn peer_has_closed(&mut self) -> bool {
        // Nothing is left to read, and there is an end to be read.
        matches!(self.0.reader().into_first_chunk(), Ok([]))
    }

    /// Whether an earlier session was resumed.
    pub fn is_resumed(&self) -> bool {
        self.0.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// The host name that the client asked for.
    pub fn server_name(&self) -> Option<&str> {
        self.0.server_name()
    }

    /// Whom the client's certificate names, if it has shown one.
    pub fn client_names(&self) -> Option<Vec<String>> {
        let chain = self.0.peer_certificates()?;
        chain.first().map(subjects)
    }

    /// Version and cipher suite, for the log.
    pub fn description(&self) -> String {
        let version = self.0.protocol_version();
        let version = version.and_then(|version| version.as_str()).unwrap_or("?");
        let suite = self.0.negotiated_cipher_suite();
        let suite = suite
            .and_then(|suite| suite.suite().as_str())
            .unwrap_or("?");
        format!("{version} {suite}")
    }
}

impl fmt::Debug for Stream {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Stream")
    }
}
