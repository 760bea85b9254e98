//! A data connection after its handshake: both directions, how their keys change, and what is sealed and
//! not sent yet.

use std::fmt;
use std::ops::Range;

use rustls::kernel::KernelConnection;
use rustls::server::ServerConnectionData;
use rustls::{ConnectionTrafficSecrets, ExtractedSecrets, ProtocolVersion, SupportedCipherSuite};

use super::records::{
    CLOSE_NOTIFY, CONTENT_BYTES_MAX, Content, Kind, Opened, Opener, RecordError, Sealer,
};

/// Seals what this side sends, and opens what the client sends.
pub struct Channel {
    sealer: Sealer,
    /// The keys that it has.
    transmit: ConnectionTrafficSecrets,
    opener: Opener,
    /// Makes the next keys of TLS 1.3.
    keys: KernelConnection<ServerConnectionData>,
    is_tls13: bool,
    /// So many records the keys of this side may seal.
    records_max: u64,
    /// What the client waits for.
    answer: Option<Answer>,
    /// Whether close_notify or a fatal alert has been sealed, after which nothing may come.
    has_ended: bool,
    /// Somebody else seals with the keys: two records with the same number would tell them.
    is_given_away: bool,
    /// What is to be sent is in `from..until`; what is behind has been used before.
    outbox: Vec<u8>,
    from: usize,
    until: usize,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Answer {
    /// The client has asked for other keys of this side.
    KeyUpdate,
    /// It has asked for another handshake, which it does not get.
    NoRenegotiation,
}

/// Keys for what this side sends, and how many records they have sealed.
#[derive(Clone, Copy)]
pub struct TransmitKeys<'a> {
    /// TLS 1.3; otherwise 1.2.
    pub is_tls13: bool,
    /// Of AES, 16 or 32 bytes.
    pub key: &'a [u8],
    /// What the nonces are made of.
    pub iv: [u8; 12],
    /// The number of the next record.
    pub sequence: u64,
}

/// What a record that is not data consists of.
#[derive(Clone, Copy, Debug)]
pub struct Message {
    /// The type of its record.
    pub kind: u8,
    /// What is in it.
    pub content: &'static [u8],
}

/// Tells the client that nothing more comes.
pub const CLOSE: Message = Message {
    kind: Kind::Alert as u8,
    content: &[1, CLOSE_NOTIFY],
};

/// Tells the client that the next record has other keys, and asks for none of the client's.
pub const KEY_UPDATE: Message = Message {
    kind: Kind::Handshake as u8,
    content: &[24, 0, 0, 1, 0],
};

impl Channel {
    /// Goes on where the handshake has ended. Keys of TLS 1.3 seal no more records than that, nor than they
    /// may.
    ///
    /// # Errors
    /// [`RecordError::Unusable`].
    pub(super) fn new(
        secrets: ExtractedSecrets,
        keys: KernelConnection<ServerConnectionData>,
        records_max: u64,
    ) -> Result<Self, RecordError> {
        let is_tls13 = keys.protocol_version() == ProtocolVersion::TLSv1_3;
        let common = match keys.negotiated_cipher_suite() {
            SupportedCipherSuite::Tls12(suite) => &suite.common,
            SupportedCipherSuite::Tls13(suite) => &suite.common,
        };
        let (sequence, transmit) = secrets.tx;
        let sealer = Sealer::new(&transmit, sequence, is_tls13)?;
        let (sequence, receive) = &secrets.rx;
        // TLS 1.2 has no way to others.
        let records_max = match is_tls13 {
            true => records_max.min(common.confidentiality_limit),
            false => common.confidentiality_limit,
        };
        Ok(Self {
            sealer,
            transmit,
            opener: Opener::new(receive, *sequence, is_tls13)?,
            records_max,
            keys,
            is_tls13,
            answer: None,
            has_ended: false,
            is_given_away: false,
            outbox: Vec::new(),
            from: 0,
            until: 0,
        })
    }

    /// How long the content of the next record can be, if enough of it has come to tell.
    pub fn content_length(&self, bytes: &[u8]) -> Option<usize> {
        self.opener.content_length(bytes)
    }

    /// Opens the record that `bytes` begins with; its content goes behind what `plain` holds, within its
    /// capacity.
    ///
    /// # Errors
    /// What is wrong with it. The client is told in what is to be sent next; after that the connection is
    /// of no use.
    pub fn open(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<Opened, RecordError> {
        let opened = self.opener.open(bytes, plain);
        let opened = opened.and_then(|opened| self.take_notice(opened).map(|()| opened));
        opened.inspect_err(|error| self.fail(*error))
    }

    fn take_notice(&mut self, opened: Opened) -> Result<(), RecordError> {
        match opened {
            Opened::Record(_, Content::KeyUpdate(is_asked)) => {
                let (_, secrets) = self
                    .keys
                    .update_rx_secret()
                    .map_err(|_| RecordError::Unusable)?;
                self.opener.renew(&secrets)?;
                // RFC 8446 §4.6.3: however often it is asked, one answer will do.
                if is_asked {
                    self.answer = Some(Answer::KeyUpdate);
                }
            }
            Opened::Record(_, Content::Renegotiation) => {
                self.answer = Some(Answer::NoRenegotiation);
            }
            _ => {}
        }
        Ok(())
    }

    /// Seals what the client waits for, as soon as everything before is sent, so that a client that asks
    /// and does not read fills no memory.
    ///
    /// # Errors
    /// [`RecordError::Unusable`].
    pub fn answer(&mut self) -> Result<(), RecordError> {
        if self.has_ended || self.is_given_away || !self.is_sent() {
            return Ok(());
        }
        match self.answer.take() {
            None => Ok(()),
            Some(Answer::KeyUpdate) => self.renew(),
            // RFC 5246 §7.2.2: no_renegotiation is always a warning.
            Some(Answer::NoRenegotiation) => self.append(Kind::Alert, &[1, 100]),
        }
    }

    /// Makes sure that the keys are good for so much content. What is to be sent then goes before it.
    ///
    /// # Errors
    /// [`RecordError::Exhausted`] in TLS 1.2, and the client is told.
    pub fn prepare(&mut self, content: usize) -> Result<(), RecordError> {
        self.answer()?;
        let records = content.div_ceil(CONTENT_BYTES_MAX) as u64;
        // The last one tells of the next keys, or of the end.
        let left = self.records_max.saturating_sub(self.sealer.sequence());
        if records < left {
            return Ok(());
        }
        match self.is_tls13 {
            true => self.renew(),
            false => Err(RecordError::Exhausted).inspect_err(|error| self.fail(*error)),
        }
    }

    /// RFC 8446 §4.6.3: KeyUpdate, which asks for none of the other side, and new keys behind it.
    fn renew(&mut self) -> Result<(), RecordError> {
        self.append(Kind::Handshake, KEY_UPDATE.content)?;
        self.next_keys()
    }

    /// Goes on with the next keys of this side. The client has to be told before, by [`KEY_UPDATE`].
    ///
    /// # Errors
    /// [`RecordError::Unusable`]: there are none in TLS 1.2.
    pub fn next_keys(&mut self) -> Result<(), RecordError> {
        let next = self.keys.update_tx_secret();
        let (sequence, secrets) = next.map_err(|_| RecordError::Unusable)?;
        self.sealer = Sealer::new(&secrets, sequence, self.is_tls13)?;
        self.transmit = secrets;
        self.answer = self.answer.filter(|answer| *answer != Answer::KeyUpdate);
        Ok(())
    }

    /// The keys of this side, for whoever seals in its stead. `None` if they are not of AES-GCM, or something
    /// is to be sent before.
    pub fn transmit_keys(&self) -> Option<TransmitKeys<'_>> {
        use ConnectionTrafficSecrets as Secrets;
        let (Secrets::Aes128Gcm { key, iv } | Secrets::Aes256Gcm { key, iv }) = &self.transmit
        else {
            return None;
        };
        let is_free = self.is_sent() && self.answer.is_none() && !self.has_ended;
        is_free.then_some(TransmitKeys {
            is_tls13: self.is_tls13,
            key: key.as_ref(),
            iv: iv.as_ref().try_into().ok()?,
            sequence: self.sealer.sequence(),
        })
    }

    /// From now on nothing is sealed here.
    pub fn give_away(&mut self) {
        self.is_given_away = true;
    }

    /// Whether the client has asked for other keys of this side.
    pub fn owes_keys(&self) -> bool {
        self.answer == Some(Answer::KeyUpdate)
    }

    /// Whether there is a way to other keys.
    pub fn can_renew(&self) -> bool {
        self.is_tls13
    }

    /// So many records the same keys may seal.
    pub fn records_max(&self) -> u64 {
        self.records_max
    }

    /// Tells the client that nothing more comes (RFC 8446 §6.1).
    pub fn close(&mut self) {
        self.end(CLOSE.content);
    }

    /// Tells the client what is wrong.
    pub fn fail(&mut self, error: RecordError) {
        if let Some(alert) = error.alert() {
            self.end(&[2, alert]);
        }
    }

    fn end(&mut self, alert: &[u8]) {
        if !self.has_ended {
            self.has_ended = true;
            // Only 2^64 records would be too many for an alert.
            let _ = self.append(Kind::Alert, alert);
        }
    }

    fn append(&mut self, kind: Kind, content: &[u8]) -> Result<(), RecordError> {
        if self.is_given_away {
            return Ok(());
        }
        self.outbox.truncate(self.until);
        let sealed = self.sealer.seal_behind(kind, content, &mut self.outbox);
        if sealed.is_ok() {
            self.until = self.outbox.len();
        }
        sealed
    }

    /// Whether there is memory in which records are sealed.
    pub fn has_outbox(&self) -> bool {
        self.outbox.capacity() > 0
    }

    /// Gives it memory in which records are sealed; it grows if it is too short. Everything before has to be
    /// sent.
    pub fn set_outbox(&mut self, outbox: Vec<u8>) {
        debug_assert!(self.is_sent());
        (self.from, self.until) = (0, 0);
        self.outbox = outbox;
    }

    /// Gives it back.
    pub fn into_outbox(self) -> Vec<u8> {
        self.outbox
    }

    /// Where so much content has to be written to before [`Channel::seal`]. Everything before has to be sent.
    pub fn places(&mut self, content: usize) -> impl Iterator<Item = &mut [u8]> {
        self.make_room(content);
        let length = self.sealer.sealed_length(content);
        let full = self.sealer.sealed_length(CONTENT_BYTES_MAX);
        // Each begins as far behind the start of its record as the first one.
        let first = self.sealer.places(content).next().unwrap_or_default();
        let around = full - CONTENT_BYTES_MAX;
        let records = self.outbox[..length].chunks_mut(full);
        records.map(move |record| {
            let content = record.len() - around;
            &mut record[first.start..first.start + content]
        })
    }

    /// The same, with the memory itself, for whoever writes to it meanwhile; [`Channel::take_back`] it.
    pub fn lend(
        &mut self,
        content: usize,
    ) -> (Vec<u8>, impl Iterator<Item = Range<usize>> + use<>) {
        self.make_room(content);
        let outbox = std::mem::take(&mut self.outbox);
        (outbox, self.sealer.places(content))
    }

    /// Takes what was lent.
    pub fn take_back(&mut self, outbox: Vec<u8>) {
        self.outbox = outbox;
    }

    fn make_room(&mut self, content: usize) {
        debug_assert!(self.is_sent());
        (self.from, self.until) = (0, 0);
        let length = self.sealer.sealed_length(content);
        if self.outbox.len() < length {
            self.outbox.resize(length, 0);
        }
    }

    /// Seals so much content, which is in its places.
    ///
    /// # Errors
    /// [`RecordError::Exhausted`].
    pub fn seal(&mut self, content: usize) -> Result<(), RecordError> {
        if self.is_given_away {
            return Err(RecordError::Unusable);
        }
        self.sealer.seal(&mut self.outbox, content)?;
        self.until = self.sealer.sealed_length(content);
        Ok(())
    }

    /// Seals bytes from elsewhere. Everything before has to be sent.
    ///
    /// # Errors
    /// [`RecordError::Exhausted`].
    pub fn write(&mut self, bytes: &[u8]) -> Result<(), RecordError> {
        let parts = bytes.chunks(CONTENT_BYTES_MAX);
        for (place, part) in self.places(bytes.len()).zip(parts) {
            place.copy_from_slice(part);
        }
        self.seal(bytes.len())
    }

    /// What is to be sent.
    pub fn unsent(&self) -> &[u8] {
        &self.outbox[self.from..self.until]
    }

    /// So much of it has been sent.
    pub fn sent(&mut self, count: usize) {
        self.from += count;
    }

    /// Whether everything is.
    pub fn is_sent(&self) -> bool {
        self.from == self.until
    }
}

impl fmt::Debug for Channel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Channel")
    }
}

#[cfg(test)]
mod tests;
