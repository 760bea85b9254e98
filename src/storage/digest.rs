//! Digests of files (draft-bryan-ftpext-hash-02 HASH; XCRC, XMD5, XSHA…), and sizes and offsets in
//! a text file as TYPE A has them (RFC 3659 §4, §5).
//!
//! All read the whole file: in pieces, each a job of its own, so that one big file holds no
//! worker's thread while others wait for it.

use std::fmt::Write;
use std::os::fd::OwnedFd;

use sha2::Digest as _;

use crate::proto::argument::HashAlgorithm;
use crate::proto::failure::Failure;
use crate::proto::path::VirtualPath;
use crate::sys::tree;
use crate::sys::worker::Workers;

use super::root::{Root, failure};
use super::work::Work;

/// A digest, and the part of the file that it covers.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Digest {
    /// The digest in lower-case hexadecimal.
    pub hex: String,
    /// Offset of the first byte covered.
    pub start: u64,
    /// Offset after the last byte covered.
    pub end: u64,
}

impl Root {
    /// Computes a digest of the bytes from `start` (or the beginning) up to `end` (or the end) of
    /// a regular file. To drop the call ends the work with the piece that is being read.
    ///
    /// # Errors
    /// [`Failure::OffsetBeyondEnd`] when the file has no such part, or loses it meanwhile.
    pub async fn digest(
        &self,
        workers: &Workers,
        path: &VirtualPath,
        algorithm: HashAlgorithm,
        start: Option<u64>,
        end: Option<u64>,
    ) -> Result<Digest, Failure> {
        let (file, status) = self.open_regular(path).await?;
        let (start, end) = (start.unwrap_or(0), end.unwrap_or(status.size));
        if start > end || end > status.size {
            return Err(Failure::OffsetBeyondEnd);
        }
        let reader = Reader::new(file, start, end);
        let hasher = read(
            workers,
            path,
            reader,
            Hasher::new(algorithm),
            Hasher::update,
        )
        .await?;
        Ok(Digest {
            hex: hasher.finish(),
            start,
            end,
        })
    }

    /// How many bytes a file has when it is sent in TYPE A.
    ///
    /// # Errors
    /// [`Failure::Unsupported`] for files of more than [`ASCII_SIZE_MAX`] bytes: a client that
    /// asks for the sizes of many would keep the server reading.
    pub async fn ascii_size(&self, workers: &Workers, path: &VirtualPath) -> Result<u64, Failure> {
        let (file, status) = self.open_regular(path).await?;
        if status.size > ASCII_SIZE_MAX {
            return Err(Failure::Unsupported);
        }
        let reader = Reader::new(file, 0, status.size);
        let lines = read(workers, path, reader, LineEnds::default(), LineEnds::update).await?;
        Ok(status.size + lines.added)
    }

    /// The offset in a file at which `offset` bytes of its TYPE A form end: where an upload in TYPE A
    /// goes on after REST. An offset between the CR and the LF of a line end means both.
    ///
    /// # Errors
    /// [`Failure::OffsetBeyondEnd`] when the file has no so many.
    pub async fn ascii_offset(
        &self,
        workers: &Workers,
        path: &VirtualPath,
        offset: u64,
    ) -> Result<u64, Failure> {
        let (file, status) = self.open_regular(path).await?;
        // No byte becomes less than one.
        let reader = Reader::new(file, 0, status.size.min(offset));
        let seek = Seek {
            left: offset,
            ..Seek::default()
        };
        let seek = read(workers, path, reader, seek, Seek::update).await?;
        match seek.left {
            0 => Ok(seek.position),
            _ => Err(Failure::OffsetBeyondEnd),
        }
    }
}

/// Lets `update` see all that `reader` has to read, piece by piece.
async fn read<S: Send + 'static>(
    workers: &Workers,
    path: &VirtualPath,
    reader: Reader,
    state: S,
    update: fn(&mut S, &[u8]),
) -> Result<S, Failure> {
    // The file is open: to read it takes no more rights.
    let mut work = Work::new(workers, None, (reader, Some(state)));
    loop {
        let step = work
            .step(move |(reader, state)| {
                let more = match state {
                    Some(state) => reader.piece(|bytes| update(state, bytes)),
                    None => Ok(false),
                };
                more.map(|more| if more { None } else { state.take() })
            })
            .await?;
        match step {
            Ok(None) => {}
            Ok(Some(state)) => return Ok(state),
            Err(ReadError::Short) => return Err(Failure::OffsetBeyondEnd),
            Err(ReadError::System(error)) => return Err(failure("digest", path, &error)),
        }
    }
}

/// A part of a file that is still to be read.
#[derive(Debug)]
struct Reader {
    file: OwnedFd,
    position: u64,
    end: u64,
    buffer: Vec<u8>,
}

#[derive(Debug)]
enum ReadError {
    /// The file ends too early.
    Short,
    System(std::io::Error),
}

impl Reader {
    fn new(file: OwnedFd, position: u64, end: u64) -> Self {
        Self {
            file,
            position,
            end,
            buffer: Vec::new(),
        }
    }

    /// Reads one piece; says whether there is more.
    fn piece(&mut self, mut update: impl FnMut(&[u8])) -> Result<bool, ReadError> {
        self.buffer.resize(BUFFER_BYTES, 0);
        let piece_end = self.end.min(self.position.saturating_add(PIECE_BYTES));
        while self.position < piece_end {
            let wanted = (piece_end - self.position).min(BUFFER_BYTES as u64) as usize;
            let buffer = &mut self.buffer[..wanted];
            let read = tree::read_now(&self.file, buffer, self.position);
            let read = read.map_err(ReadError::System)?;
            if read == 0 {
                return Err(ReadError::Short);
            }
            update(&buffer[..read]);
            self.position += read as u64;
        }
        Ok(self.position < self.end)
    }
}

/// A digest under way.
enum Hasher {
    Crc32(crc32fast::Hasher),
    Md5(md5::Md5),
    Sha1(sha1::Sha1),
    Sha256(sha2::Sha256),
    Sha512(sha2::Sha512),
}

impl Hasher {
    fn new(algorithm: HashAlgorithm) -> Self {
        match algorithm {
            HashAlgorithm::Crc32 => Self::Crc32(crc32fast::Hasher::new()),
            HashAlgorithm::Md5 => Self::Md5(md5::Md5::new()),
            HashAlgorithm::Sha1 => Self::Sha1(sha1::Sha1::new()),
            HashAlgorithm::Sha256 => Self::Sha256(sha2::Sha256::new()),
            HashAlgorithm::Sha512 => Self::Sha512(sha2::Sha512::new()),
        }
    }

    fn update(&mut self, bytes: &[u8]) {
        match self {
            Self::Crc32(hasher) => hasher.update(bytes),
            Self::Md5(hasher) => hasher.update(bytes),
            Self::Sha1(hasher) => hasher.update(bytes),
            Self::Sha256(hasher) => hasher.update(bytes),
            Self::Sha512(hasher) => hasher.update(bytes),
        }
    }

    fn finish(self) -> String {
        match self {
            Self::Crc32(hasher) => hex(&hasher.finalize().to_be_bytes()),
            Self::Md5(hasher) => hex(&hasher.finalize()),
            Self::Sha1(hasher) => hex(&hasher.finalize()),
            Self::Sha256(hasher) => hex(&hasher.finalize()),
            Self::Sha512(hasher) => hex(&hasher.finalize()),
        }
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes
        .iter()
        .fold(String::with_capacity(bytes.len() * 2), |mut hex, byte| {
            // To write to a String cannot fail.
            let _ = write!(hex, "{byte:02x}");
            hex
        })
}

/// Looks for the place that is so many bytes of the TYPE A form away.
#[derive(Debug, Default)]
struct Seek {
    left: u64,
    position: u64,
    after_cr: bool,
}

impl Seek {
    fn update(&mut self, mut bytes: &[u8]) {
        while self.left > 0 && !bytes.is_empty() {
            let run = memchr::memchr(b'\n', bytes).unwrap_or(bytes.len());
            let step = self.left.min(run as u64);
            self.left -= step;
            self.position += step;
            if run > 0 {
                self.after_cr = bytes[run - 1] == b'\r';
            }
            if run == bytes.len() {
                return;
            }
            if self.left > 0 {
                let added = if self.after_cr { 1 } else { 2 };
                self.left = self.left.saturating_sub(added);
                self.position += 1;
                self.after_cr = false;
            }
            bytes = &bytes[run + 1..];
        }
    }
}

/// Counts the line ends to which TYPE A adds a CR: those that have none (see
/// [`ToNetwork`](crate::proto::ascii::ToNetwork)).
#[derive(Debug, Default)]
struct LineEnds {
    added: u64,
    after_cr: bool,
}

impl LineEnds {
    fn update(&mut self, bytes: &[u8]) {
        for at in memchr::memchr_iter(b'\n', bytes) {
            let after_cr = match at.checked_sub(1) {
                Some(before) => bytes[before] == b'\r',
                None => self.after_cr,
            };
            self.added += u64::from(!after_cr);
        }
        if let Some(&last) = bytes.last() {
            self.after_cr = last == b'\r';
        }
    }
}

/// Up to this size a text file is read in order to tell its size in TYPE A.
pub const ASCII_SIZE_MAX: u64 = 16 * 1024 * 1024;

/// What one job reads: a few milliseconds of work.
const PIECE_BYTES: u64 = 4 * 1024 * 1024;

/// What one read(2) asks for: it stays in the cache of the CPU until it is digested.
const BUFFER_BYTES: usize = 128 * 1024;
