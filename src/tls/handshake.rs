//! The handshake of a data connection, without I/O. rustls does it, and gives the keys away at its end.

use std::fmt;
use std::sync::Arc;

use rustls::server::UnbufferedServerConnection;
use rustls::unbuffered::{ConnectionState, EncodeError, UnbufferedStatus};
use rustls::{HandshakeKind, ServerConfig};

use super::TlsError;
use super::channel::Channel;
use super::records::RecordError;

/// The server's side of a handshake.
pub struct Handshake {
    connection: UnbufferedServerConnection,
    /// How many bytes rustls knows already of those that have come and are not used up.
    shown: usize,
    /// Where among those that are not used up the next record begins that is not shown whole.
    border: usize,
    output: Vec<u8>,
    is_over: bool,
}

impl Handshake {
    pub(super) fn new(config: Arc<ServerConfig>) -> Result<Self, TlsError> {
        Ok(Self {
            connection: UnbufferedServerConnection::new(config)?,
            shown: 0,
            border: 0,
            output: Vec::new(),
            is_over: false,
        })
    }

    /// Takes in what came; returns how many bytes at its front have been used up, the others have to be
    /// there the next time. Records behind the handshake are not touched.
    ///
    /// # Errors
    /// What is wrong with it. The client is told in what is to be sent next.
    pub fn receive(&mut self, bytes: &mut [u8]) -> Result<usize, TlsError> {
        let mut used = 0;
        while !self.is_over {
            let window = &mut bytes[used..];
            let end = self.next_border(window);
            if end == self.shown {
                break;
            }
            self.shown = end;
            // What does not fit never becomes complete; a message of a handshake is never longer.
            if end > WINDOW_BYTES_MAX {
                let reason = "a message of the handshake is too long".to_owned();
                return Err(rustls::Error::General(reason).into());
            }
            let taken = self.process(&mut window[..end])?;
            self.shown -= taken;
            self.border -= taken;
            used += taken;
        }
        Ok(used)
    }

    /// Until where rustls may look: it decrypts whatever is whole, and must not go beyond the record that
    /// ends the handshake.
    fn next_border(&mut self, bytes: &[u8]) -> usize {
        let Some(header) = bytes[self.border..].first_chunk::<5>() else {
            return bytes.len();
        };
        let end = self.border + 5 + usize::from(u16::from_be_bytes([header[3], header[4]]));
        match end <= bytes.len() {
            true => {
                self.border = end;
                end
            }
            // The header is enough to see that it is none.
            false => bytes.len(),
        }
    }

    /// Lets rustls look at these bytes, until it has nothing more to do; returns how many are used up.
    fn process(&mut self, bytes: &mut [u8]) -> Result<usize, TlsError> {
        let mut used = 0;
        loop {
            let status = self.connection.process_tls_records(&mut bytes[used..]);
            let UnbufferedStatus { discard, state, .. } = status;
            used += discard;
            let mut is_waiting = false;
            let unexpected = match state {
                Err(error) => Some(error),
                Ok(ConnectionState::EncodeTlsData(mut data)) => {
                    encode(&mut self.output, |place| data.encode(place));
                    None
                }
                // Nothing else is sent before it.
                Ok(ConnectionState::TransmitTlsData(data)) => {
                    data.done();
                    None
                }
                Ok(ConnectionState::BlockedHandshake) => {
                    is_waiting = true;
                    None
                }
                Ok(ConnectionState::WriteTraffic(_)) => {
                    is_waiting = true;
                    self.is_over = true;
                    None
                }
                Ok(ConnectionState::PeerClosed | ConnectionState::Closed) => Some(
                    rustls::Error::General("the client has ended the handshake".to_owned()),
                ),
                // Early data is not offered, and other data is not shown.
                Ok(_) => Some(rustls::Error::General("data in the handshake".to_owned())),
            };
            if let Some(error) = unexpected {
                self.tell(&mut bytes[used..]);
                return Err(error.into());
            }
            if is_waiting {
                return Ok(used);
            }
        }
    }

    /// Takes the alert that says what is wrong. As long as there is one rustls does not look at the bytes.
    fn tell(&mut self, bytes: &mut [u8]) {
        while self.connection.wants_write() {
            let status = self.connection.process_tls_records(bytes);
            let Ok(ConnectionState::EncodeTlsData(mut data)) = status.state else {
                return;
            };
            encode(&mut self.output, |place| data.encode(place));
        }
    }

    /// Takes what is to be sent.
    pub fn take_output(&mut self) -> Vec<u8> {
        std::mem::take(&mut self.output)
    }

    /// Whether the handshake is over, but for what is to be sent.
    pub fn is_over(&self) -> bool {
        self.is_over
    }

    /// Whether an earlier session was resumed.
    pub fn is_resumed(&self) -> bool {
        self.connection.handshake_kind() == Some(HandshakeKind::Resumed)
    }

    /// What comes after it, where keys of TLS 1.3 seal so many records at the most.
    ///
    /// # Errors
    /// It is not over; otherwise none that is known.
    pub fn finish(self, records_max: u64) -> Result<Channel, TlsError> {
        let (secrets, keys) = self.connection.dangerous_into_kernel_connection()?;
        let channel = Channel::new(secrets, keys, records_max);
        channel.map_err(|error: RecordError| rustls::Error::General(error.to_string()).into())
    }
}

/// Appends what `write` writes.
fn encode(output: &mut Vec<u8>, mut write: impl FnMut(&mut [u8]) -> Result<usize, EncodeError>) {
    let start = output.len();
    // It says how much room it needs.
    if let Err(EncodeError::InsufficientSize(needed)) = write(&mut []) {
        output.resize(start + needed.required_size, 0);
        let written = write(&mut output[start..]).unwrap_or(0);
        output.truncate(start + written);
    }
}

impl fmt::Debug for Handshake {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Handshake")
    }
}

/// A message of a handshake with the headers of its records. Chains of certificates have some 10 KiB.
const WINDOW_BYTES_MAX: usize = 64 * 1024;
