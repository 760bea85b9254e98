//! The record layer of data connections after their handshake, without I/O: [`Sealer`] and [`Opener`].
//!
//! rustls shakes hands and then gives the keys away. Records are sealed where they lie, with a place in
//! front and behind the content, so that what is read from a file leaves without a copy; they are opened
//! into the chunk that goes to the disk. Nothing is allocated for a record.
//!
//! | | in front of the content | behind it |
//! |---|---|---|
//! | TLS 1.3 (RFC 8446 §5.2) | header | type, tag |
//! | TLS 1.2, AES-GCM (RFC 5288 §3) | header, 8 bytes of the nonce | tag |
//! | TLS 1.2, ChaCha20-Poly1305 (RFC 7905 §2) | header | tag |

use std::fmt;
use std::ops::Range;

use aws_lc_rs::aead::{
    AES_128_GCM, AES_256_GCM, Aad, CHACHA20_POLY1305, LessSafeKey, NONCE_LEN, Nonce, UnboundKey,
};
use rustls::ConnectionTrafficSecrets;
use thiserror::Error;

/// What is wrong with a record, or with what is in it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum RecordError {
    /// The peer has ended the session by a fatal alert with this number.
    #[error("the peer ended the TLS session by alert {0}")]
    Alert(u8),
    /// Longer than records may be.
    #[error("a record is too long")]
    TooLong,
    /// Not what the peer has sealed, or not in this order.
    #[error("a record was changed on its way")]
    BadMac,
    /// A record or a message that has no place here.
    #[error("a message that was not expected")]
    Unexpected,
    /// A message that cannot be read.
    #[error("a message that cannot be read")]
    Malformed,
    /// A value that no specification knows.
    #[error("a message with a value that does not exist")]
    IllegalValue,
    /// Many records and no content.
    #[error("too many records without content")]
    TooManyIdle,
    /// The keys have sealed as much as they are good for, and TLS 1.2 has no way to others.
    #[error("the keys have sealed as much as they may")]
    Exhausted,
    /// rustls has agreed on what is unknown here, or does not give it away.
    #[error("keys that cannot be used")]
    Unusable,
}

impl RecordError {
    /// The alert that tells the peer (RFC 8446 §6.2); none if it was the peer who told.
    pub fn alert(self) -> Option<u8> {
        match self {
            Self::Alert(_) => None,
            Self::Unexpected | Self::TooManyIdle => Some(10),
            Self::BadMac => Some(20),
            Self::TooLong => Some(22),
            Self::IllegalValue => Some(47),
            Self::Malformed => Some(50),
            Self::Exhausted | Self::Unusable => Some(80),
        }
    }
}

/// What a record carries (RFC 8446 §5.1).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u8)]
pub(super) enum Kind {
    Alert = 21,
    Handshake = 22,
    Data = 23,
}

/// Where things are in a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Layout {
    Tls13,
    Tls12Gcm,
    Tls12ChaCha,
}

impl Layout {
    const fn prefix(self) -> usize {
        match self {
            Self::Tls12Gcm => HEADER_BYTES + EXPLICIT_BYTES,
            _ => HEADER_BYTES,
        }
    }

    const fn suffix(self) -> usize {
        match self {
            Self::Tls13 => 1 + TAG_BYTES,
            _ => TAG_BYTES,
        }
    }
}

/// One direction's key, and how many records it has sealed or opened.
struct Key {
    aead: LessSafeKey,
    iv: [u8; NONCE_LEN],
    sequence: u64,
    layout: Layout,
}

impl Key {
    fn new(
        secrets: &ConnectionTrafficSecrets,
        sequence: u64,
        is_tls13: bool,
    ) -> Result<Self, RecordError> {
        use ConnectionTrafficSecrets as Secrets;
        let (algorithm, key, iv) = match secrets {
            Secrets::Aes128Gcm { key, iv } => (&AES_128_GCM, key, iv),
            Secrets::Aes256Gcm { key, iv } => (&AES_256_GCM, key, iv),
            Secrets::Chacha20Poly1305 { key, iv } => (&CHACHA20_POLY1305, key, iv),
            _ => return Err(RecordError::Unusable),
        };
        let layout = match secrets {
            _ if is_tls13 => Layout::Tls13,
            Secrets::Chacha20Poly1305 { .. } => Layout::Tls12ChaCha,
            _ => Layout::Tls12Gcm,
        };
        let unbound = UnboundKey::new(algorithm, key.as_ref());
        let unbound = unbound.map_err(|_| RecordError::Unusable)?;
        let iv = iv.as_ref().try_into().map_err(|_| RecordError::Unusable)?;
        Ok(Self {
            aead: LessSafeKey::new(unbound),
            iv,
            sequence,
            layout,
        })
    }

    /// RFC 8446 §5.3: the sequence number over the IV. rustls makes the nonces of TLS 1.2 in the same way,
    /// so that none comes twice behind the handshake.
    fn nonce(&self) -> [u8; NONCE_LEN] {
        let mut nonce = self.iv;
        for (byte, of_sequence) in nonce[4..].iter_mut().zip(self.sequence.to_be_bytes()) {
            *byte ^= of_sequence;
        }
        nonce
    }

    /// RFC 5246 §6.2.3.3: what is authenticated beside the content.
    fn additional(&self, header: [u8; HEADER_BYTES], content: usize) -> ([u8; 13], Range<usize>) {
        let mut all = [0; 13];
        let length = (content as u16).to_be_bytes();
        all[..8].copy_from_slice(&self.sequence.to_be_bytes());
        all[8..].copy_from_slice(&header);
        match self.layout {
            // RFC 8446 §5.2: the header as it is on the wire.
            Layout::Tls13 => (all, 8..13),
            _ => {
                all[11..].copy_from_slice(&length);
                (all, 0..13)
            }
        }
    }

    fn advance(&mut self) -> Result<(), RecordError> {
        let next = self.sequence.checked_add(1);
        self.sequence = next.ok_or(RecordError::Exhausted)?;
        Ok(())
    }
}

/// Makes records, where their content lies.
pub struct Sealer(Key);

impl Sealer {
    /// With these keys, from this number on.
    ///
    /// # Errors
    /// [`RecordError::Unusable`].
    pub fn new(
        secrets: &ConnectionTrafficSecrets,
        sequence: u64,
        is_tls13: bool,
    ) -> Result<Self, RecordError> {
        Key::new(secrets, sequence, is_tls13).map(Self)
    }

    /// How many bytes so much content takes in records, all of them full but the last one.
    pub fn sealed_length(&self, content: usize) -> usize {
        let records = content.div_ceil(CONTENT_BYTES_MAX);
        content + records * (self.0.layout.prefix() + self.0.layout.suffix())
    }

    /// Where the content of these records has to be before they are sealed.
    pub fn places(&self, content: usize) -> impl Iterator<Item = Range<usize>> + use<> {
        let (prefix, full) = (self.0.layout.prefix(), self.full_length());
        let records = content.div_ceil(CONTENT_BYTES_MAX);
        (0..records).map(move |record| {
            let start = record * full + prefix;
            start..start + (content - record * CONTENT_BYTES_MAX).min(CONTENT_BYTES_MAX)
        })
    }

    fn full_length(&self) -> usize {
        self.sealed_length(CONTENT_BYTES_MAX)
    }

    /// Seals so much content, which is in its places; what has to be sent is the front of `records`, as
    /// long as [`Sealer::sealed_length`] says.
    ///
    /// # Errors
    /// [`RecordError::Exhausted`] after 2⁶⁴ records.
    ///
    /// # Panics
    /// When `records` is shorter than that.
    pub fn seal(&mut self, records: &mut [u8], content: usize) -> Result<(), RecordError> {
        let (full, length) = (self.full_length(), self.sealed_length(content));
        let mut each = records[..length].chunks_mut(full);
        each.try_for_each(|record| self.seal_one(Kind::Data, record))
    }

    /// Seals one record, whose content is in its place.
    pub(super) fn seal_one(&mut self, kind: Kind, record: &mut [u8]) -> Result<(), RecordError> {
        let layout = self.0.layout;
        let (content, nonce) = (
            record.len() - layout.prefix() - layout.suffix(),
            self.0.nonce(),
        );
        let behind_header = (record.len() - HEADER_BYTES) as u16;
        // RFC 8446 §5.1, §5.2: the version is that of TLS 1.2, the type that of data.
        let [high, low] = behind_header.to_be_bytes();
        let outer = match layout {
            Layout::Tls13 => Kind::Data,
            _ => kind,
        };
        let header = [outer as u8, 3, 3, high, low];
        let (additional, range) = self.0.additional(header, content);
        record[..HEADER_BYTES].copy_from_slice(&header);
        if layout == Layout::Tls12Gcm {
            record[HEADER_BYTES..layout.prefix()].copy_from_slice(&nonce[4..]);
        }
        let (text, tag) = record.split_at_mut(record.len() - TAG_BYTES);
        let text = &mut text[layout.prefix()..];
        if layout == Layout::Tls13 {
            text[content] = kind as u8;
        }
        let sealed = self.0.aead.seal_in_place_separate_tag(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(&additional[range]),
            text,
        );
        // It fails of contents that are longer than those of any record.
        tag.copy_from_slice(sealed.map_err(|_| RecordError::Unusable)?.as_ref());
        self.0.advance()
    }

    /// The same with content from elsewhere, behind what `records` holds.
    pub(super) fn seal_behind(
        &mut self,
        kind: Kind,
        content: &[u8],
        records: &mut Vec<u8>,
    ) -> Result<(), RecordError> {
        let (start, place) = (records.len(), self.0.layout.prefix());
        let behind = place + content.len();
        records.resize(start + behind + self.0.layout.suffix(), 0);
        let record = &mut records[start..];
        record[place..behind].copy_from_slice(content);
        self.seal_one(kind, record)
    }

    /// How many records the present keys have sealed.
    pub fn sequence(&self) -> u64 {
        self.0.sequence
    }
}

/// What [`Opener::open`] has found.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Opened {
    /// Not the whole of a record has come.
    Incomplete,
    /// The content might not fit behind what `plain` holds.
    NoRoom,
    /// A record of so many bytes.
    Record(usize, Content),
}

/// What was in a record.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Content {
    /// So many bytes, which are behind what `plain` held. None is allowed.
    Data(usize),
    /// Something that needs no answer.
    Nothing,
    /// The peer has new keys from the next record on, and wants this side to change its own if that is true.
    KeyUpdate(bool),
    /// TLS 1.2: the peer wants to shake hands again.
    Renegotiation,
    /// close_notify: the peer sends no more.
    End,
}

/// Reads records.
pub struct Opener {
    key: Key,
    /// Records in a row that brought nothing.
    idle: u32,
    /// A message of a handshake that has not come whole.
    message: [u8; KEY_UPDATE_BYTES],
    message_length: usize,
    has_renegotiated: bool,
}

impl Opener {
    /// With these keys, from this number on.
    ///
    /// # Errors
    /// [`RecordError::Unusable`].
    pub fn new(
        secrets: &ConnectionTrafficSecrets,
        sequence: u64,
        is_tls13: bool,
    ) -> Result<Self, RecordError> {
        Ok(Self {
            key: Key::new(secrets, sequence, is_tls13)?,
            idle: 0,
            message: [0; KEY_UPDATE_BYTES],
            message_length: 0,
            has_renegotiated: false,
        })
    }

    /// Goes on with these keys.
    pub(super) fn renew(&mut self, secrets: &ConnectionTrafficSecrets) -> Result<(), RecordError> {
        self.key = Key::new(secrets, 0, self.key.layout == Layout::Tls13)?;
        Ok(())
    }

    /// How long the content of the next record can be, if enough of it has come to tell.
    pub fn content_length(&self, bytes: &[u8]) -> Option<usize> {
        let [_, _, _, high, low] = *bytes.first_chunk()?;
        let length = HEADER_BYTES + usize::from(u16::from_be_bytes([high, low]));
        Some(length.saturating_sub(self.key.layout.prefix() + self.key.layout.suffix()))
    }

    /// Opens the record that `bytes` begins with; its content goes behind what `plain` holds, within its
    /// capacity.
    ///
    /// # Errors
    /// What is wrong with it. Nothing can be opened afterwards.
    pub fn open(&mut self, bytes: &[u8], plain: &mut Vec<u8>) -> Result<Opened, RecordError> {
        let Some((header, behind)) = bytes.split_first_chunk::<HEADER_BYTES>() else {
            return Ok(Opened::Incomplete);
        };
        let length = usize::from(u16::from_be_bytes([header[3], header[4]]));
        let layout = self.key.layout;
        // Whatever TLS 1.3 protects says that it is data (RFC 8446 §5.2).
        if layout == Layout::Tls13 && header[0] != Kind::Data as u8 {
            return Err(RecordError::Unexpected);
        }
        // What encrypts adds (RFC 5246 §6.2.3: 2048 bytes at most, RFC 8446 §5.2: 256) is known, and the
        // content has 2^14 bytes at most with its padding (RFC 8446 §5.4).
        let around = layout.prefix() - HEADER_BYTES + TAG_BYTES;
        let inner_max = CONTENT_BYTES_MAX + layout.suffix() - TAG_BYTES;
        if length > around + inner_max {
            return Err(RecordError::TooLong);
        }
        let inner = length.checked_sub(around).ok_or(RecordError::BadMac)?;
        let Some(body) = behind.get(..length) else {
            return Ok(Opened::Incomplete);
        };
        if plain.capacity() - plain.len() < inner {
            return Ok(Opened::NoRoom);
        }
        let start = plain.len();
        plain.resize(start + inner, 0);
        let content =
            self.decrypt(*header, body, &mut plain[start..])
                .and_then(|(kind, length)| {
                    plain.truncate(start + length);
                    self.content(kind, &plain[start..])
                });
        if !matches!(content, Ok(Content::Data(_))) {
            plain.truncate(start);
        }
        Ok(Opened::Record(HEADER_BYTES + length, content?))
    }

    /// Decrypts a record's body; says what it is and how long.
    fn decrypt(
        &mut self,
        header: [u8; HEADER_BYTES],
        body: &[u8],
        plain: &mut [u8],
    ) -> Result<(u8, usize), RecordError> {
        let mut nonce = self.key.nonce();
        let (text, tag) = body.split_at(body.len() - TAG_BYTES);
        let text = match self.key.layout {
            Layout::Tls12Gcm => {
                let (explicit, text) = text.split_at(EXPLICIT_BYTES);
                nonce[..4].copy_from_slice(&self.key.iv[..4]);
                nonce[4..].copy_from_slice(explicit);
                text
            }
            _ => text,
        };
        let (additional, range) = self.key.additional(header, text.len());
        let opened = self.key.aead.open_separate_gather(
            Nonce::assume_unique_for_key(nonce),
            Aad::from(&additional[range]),
            text,
            tag,
            plain,
        );
        opened.map_err(|_| RecordError::BadMac)?;
        self.key.advance()?;
        if self.key.layout != Layout::Tls13 {
            return Ok((header[0], plain.len()));
        }
        // RFC 8446 §5.4: padding is zeros; what is nothing else has no type.
        let last = plain.iter().rposition(|&byte| byte != 0);
        let last = last.ok_or(RecordError::Unexpected)?;
        Ok((plain[last], last))
    }

    /// What a record with this content means.
    fn content(&mut self, kind: u8, content: &[u8]) -> Result<Content, RecordError> {
        let is_handshake = kind == Kind::Handshake as u8;
        // RFC 8446 §5.1: nothing comes between the parts of a message.
        if self.message_length > 0 && !is_handshake {
            return Err(RecordError::Unexpected);
        }
        if kind == Kind::Data as u8 && !content.is_empty() {
            self.idle = 0;
            return Ok(Content::Data(content.len()));
        }
        self.idle += 1;
        if self.idle > IDLE_RECORDS_MAX {
            return Err(RecordError::TooManyIdle);
        }
        let is_tls13 = self.key.layout == Layout::Tls13;
        if kind == Kind::Data as u8 {
            return Ok(Content::Data(0));
        }
        // RFC 8446 §5.4: only data may be empty.
        if content.is_empty() {
            return Err(RecordError::Unexpected);
        }
        match is_handshake {
            true if is_tls13 => self.key_update(content),
            // RFC 5246 §7.4.1.1: a ClientHello. Once it is answered that this will not be.
            true if content[0] == 1 && !self.has_renegotiated => {
                self.has_renegotiated = true;
                Ok(Content::Renegotiation)
            }
            false if kind == Kind::Alert as u8 => alert(content, is_tls13),
            _ => Err(RecordError::Unexpected),
        }
    }

    /// RFC 8446 §4.6.3: the only message that a client sends after its handshake.
    fn key_update(&mut self, content: &[u8]) -> Result<Content, RecordError> {
        let rest = &mut self.message[self.message_length..];
        // RFC 8446 §5.1: what changes the keys is the last of its record.
        let Some(place) = rest.get_mut(..content.len()) else {
            return Err(RecordError::Unexpected);
        };
        place.copy_from_slice(content);
        self.message_length += content.len();
        let [kind, length @ .., request] = self.message;
        if kind != 24 {
            return Err(RecordError::Unexpected);
        }
        if self.message_length < KEY_UPDATE_BYTES {
            return Ok(Content::Nothing);
        }
        self.message_length = 0;
        match (length, request) {
            ([0, 0, 1], 0 | 1) => Ok(Content::KeyUpdate(request == 1)),
            ([0, 0, 1], _) => Err(RecordError::IllegalValue),
            _ => Err(RecordError::Malformed),
        }
    }
}

/// RFC 8446 §6: what is not the end is an error, whatever level it says; RFC 5246 §7.2: what is a warning is
/// not.
fn alert(content: &[u8], is_tls13: bool) -> Result<Content, RecordError> {
    let &[level, description] = content else {
        return Err(RecordError::Malformed);
    };
    match (level, description) {
        (_, CLOSE_NOTIFY) => Ok(Content::End),
        (_, USER_CANCELED) if is_tls13 => Ok(Content::Nothing),
        (1, _) if !is_tls13 => Ok(Content::Nothing),
        (1 | 2, _) => Err(RecordError::Alert(description)),
        _ => Err(RecordError::IllegalValue),
    }
}

impl fmt::Debug for Sealer {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sealer")
    }
}

impl fmt::Debug for Opener {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Opener")
    }
}

/// The most that a record carries (RFC 8446 §5.1).
pub const CONTENT_BYTES_MAX: usize = 1 << 14;

/// Type, version and length.
const HEADER_BYTES: usize = 5;

/// What of its nonce a record of TLS 1.2 shows with AES-GCM.
const EXPLICIT_BYTES: usize = 8;

/// All suites have tags of this length.
const TAG_BYTES: usize = 16;

/// Type, length in three bytes, and whether the other side is to change its keys as well.
const KEY_UPDATE_BYTES: usize = 5;

pub(super) const CLOSE_NOTIFY: u8 = 0;
const USER_CANCELED: u8 = 90;

/// Records in a row without content: OpenSSL 3 allows as many.
const IDLE_RECORDS_MAX: u32 = 32;

#[cfg(test)]
mod tests;
