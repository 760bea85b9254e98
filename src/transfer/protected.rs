//! Bytes over a data connection that TLS protects. They pass through memory once: out of the page cache
//! into the places of records, which are sealed there; out of records into a chunk for the disk.

use std::io::{self, IoSliceMut};

use super::receive::{Filled, WRITE_BYTES_MIN};
use super::send::{local, sending_failed};
use super::turn::Turn;
use super::wire::Protected;
use super::{Depot, Watch, kernel, wait_for};
use crate::proto::failure::Failure;
use crate::sys;
use crate::throttle::Pace;
use crate::tls::{CONTENT_BYTES_MAX, Content, Opened, RecordError};
use crate::uring::{self, Fd};

/// Sends the bytes of a file from `offset` to `end` as they are (TYPE I).
pub(super) async fn image(
    depot: &Depot,
    file: &Fd,
    mut offset: u64,
    end: u64,
    protected: &mut Protected,
    watch: &Watch,
    pace: Option<Pace>,
) -> Result<(), Failure> {
    let mut turn = Turn::new(&depot.gate, pace);
    protected.take_outbox(depot);
    let mut is_blocking = false;
    while offset < end {
        turn.allow(watch).await?;
        let count = turn.begin().await.min(end - offset).min(PIECE_BYTES) as usize;
        prepare(depot, PIECE_BYTES as usize, protected, &mut turn).await?;
        let read = match protected.read(file, offset, count) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                turn.end();
                if !is_blocking {
                    sys::tree::set_blocking(file).map_err(|error| local(&error))?;
                    is_blocking = true;
                }
                let count = match turn.is_paced() {
                    true => count,
                    false => (end - offset).min(PIECE_BYTES) as usize,
                };
                let read = protected.read_cold(file, offset, count).await;
                turn.begin().await;
                read
            }
            read => read,
        };
        let read = read.map_err(|error| local(&error))?;
        if read == 0 {
            // The file has become shorter since it was opened.
            return Err(Failure::LocalError);
        }
        offset += read as u64;
        protected.channel.seal(read).map_err(not_sealed)?;
        send_sealed(depot, read, protected, &mut turn, watch).await?;
    }
    finish(depot, protected).await
}

/// Sends bytes from memory. Whoever waits for more of them ends the turn.
pub(super) async fn send_all(
    depot: &Depot,
    mut bytes: &[u8],
    protected: &mut Protected,
    turn: &mut Turn<'_>,
    watch: &Watch,
) -> Result<(), Failure> {
    protected.take_outbox(depot);
    while !bytes.is_empty() {
        turn.allow(watch).await?;
        let count = turn.begin().await.min(PIECE_BYTES) as usize;
        let (piece, rest) = bytes.split_at(bytes.len().min(count));
        bytes = rest;
        prepare(depot, piece.len(), protected, turn).await?;
        protected.channel.write(piece).map_err(not_sealed)?;
        send_sealed(depot, piece.len(), protected, turn, watch).await?;
    }
    Ok(())
}

/// Looks whether the client has said something, and sends what has to go before so much content: what it
/// waits for, and other keys.
async fn prepare(
    depot: &Depot,
    content: usize,
    protected: &mut Protected,
    turn: &mut Turn<'_>,
) -> Result<(), Failure> {
    protected.listen(depot)?;
    if let Err(error) = protected.channel.prepare(content) {
        // The alert that says why, if it fits.
        let _ = protected.send_some();
        return Err(not_sealed(error));
    }
    if !protected.channel.is_sent() && !sent(protected)? {
        turn.end();
        flush(depot, protected).await?;
        turn.begin().await;
    }
    Ok(())
}

/// Sends what is sealed, so much content.
async fn send_sealed(
    depot: &Depot,
    content: usize,
    protected: &mut Protected,
    turn: &mut Turn<'_>,
    watch: &Watch,
) -> Result<(), Failure> {
    if !sent(protected)? {
        turn.end();
        flush(depot, protected).await?;
        turn.begin().await;
    }
    watch.add(content);
    turn.spend(content).await;
    Ok(())
}

/// Sends what the socket takes; whether that is all.
fn sent(protected: &mut Protected) -> Result<bool, Failure> {
    while !protected.channel.is_sent() {
        match protected.send_some() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(sending_failed(&error)),
        }
    }
    Ok(true)
}

/// Waits until everything is sent.
async fn flush(depot: &Depot, protected: &mut Protected) -> Result<(), Failure> {
    while !sent(protected)? {
        wait_for(uring::writable(&protected.socket), depot).await?;
    }
    Ok(())
}

/// Tells the client that what was sent is all.
pub(super) async fn finish(depot: &Depot, protected: &mut Protected) -> Result<(), Failure> {
    // What is not read resets the connection when it is closed (RFC 2525 §2.17), and with it what is on
    // its way.
    protected.listen(depot)?;
    protected.channel.close();
    flush(depot, protected).await
}

/// Takes bytes until the chunk has no room for a record, or holds enough and no more are there.
pub(super) async fn fill(
    depot: &Depot,
    chunk: &mut Vec<u8>,
    protected: &mut Protected,
    turn: &mut Turn<'_>,
    watch: &Watch,
) -> Result<Filled, Failure> {
    loop {
        if turn.is_paced() {
            pay(protected, turn, watch).await?;
        }
        turn.begin().await;
        match protected.open_some(chunk)? {
            Opened::Record(_, Content::End) => {
                // Some clients wait for that (Python's ftplib); nobody has to.
                protected.channel.close();
                let _ = sent(protected);
                return Ok(Filled::End);
            }
            Opened::Record(_, content) => {
                let count = match content {
                    Content::Data(count) => count,
                    _ => 0,
                };
                watch.add(count);
                turn.count(count.max(RECORD_EFFORT_BYTES)).await;
                if count == 0 {
                    respond(protected)?;
                }
            }
            Opened::NoRoom => return Ok(Filled::Enough),
            Opened::Incomplete => match protected.inbox.receive(&protected.socket, RECEIVE_BYTES) {
                // RFC 8446 §6.1: an end of the connection that is not the end of the session may have been
                // made by anybody on the way.
                Ok(0) => return Err(Failure::Truncated),
                Ok(_) => {}
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                    if chunk.len() >= WRITE_BYTES_MIN {
                        return Ok(Filled::Enough);
                    }
                    turn.end();
                    respond(protected)?;
                    wait_for(uring::readable(&protected.socket), depot).await?;
                }
                Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                    return Err(Failure::PeerStalled);
                }
                Err(_) => return Err(Failure::PeerReset),
            },
        }
    }
}

/// Waits until the rates let the content of the next record be taken.
async fn pay(protected: &mut Protected, turn: &mut Turn<'_>, watch: &Watch) -> Result<(), Failure> {
    let length = protected.channel.content_length(protected.inbox.rest());
    while length.is_some_and(|length| protected.paid < length) {
        let unpaid = length.unwrap_or(0) - protected.paid;
        turn.allow(watch).await?;
        let count = turn.begin().await.min(unpaid as u64);
        turn.pay(count);
        protected.paid += count as usize;
    }
    Ok(())
}

/// Sends what the client waits for, if it fits.
fn respond(protected: &mut Protected) -> Result<(), Failure> {
    if sent(protected)? {
        protected.channel.answer().map_err(not_sealed)?;
        sent(protected)?;
    }
    Ok(())
}

impl Protected {
    /// Takes a buffer for records that are to be sent, if there is none.
    fn take_outbox(&mut self, depot: &Depot) {
        if !self.channel.has_outbox() {
            let outbox = match self.inbox.rest().is_empty() {
                // A client that only receives says hardly ever anything.
                true => std::mem::take(&mut self.inbox).bytes,
                false => depot.buffers.take(),
            };
            self.channel.set_outbox(outbox);
        }
    }

    /// Takes what a client says that is sent a file: KeyUpdate, or an alert. Data of its own mean nothing.
    pub(super) fn listen(&mut self, depot: &Depot) -> Result<(), Failure> {
        let has_come = !self.inbox.rest().is_empty()
            || matches!(sys::socket::peek(&self.socket, &mut [0]), Ok(1));
        if self.has_client_ended || !has_come {
            return Ok(());
        }
        if self.inbox.bytes.capacity() == 0 {
            self.inbox.bytes = depot.buffers.take();
        }
        // One that cannot be received from cannot be sent to, either, which tells why.
        let _ = self.inbox.receive(&self.socket, RECEIVE_BYTES);
        let mut meaningless = Vec::with_capacity(CONTENT_BYTES_MAX + 1);
        while let Opened::Record(_, content) = self.open_some(&mut meaningless)? {
            meaningless.clear();
            if content == Content::End {
                self.has_client_ended = true;
                break;
            }
        }
        Ok(())
    }

    /// Reads so many bytes of a file into the places of records, if they are in memory.
    fn read(&mut self, file: &Fd, offset: u64, count: usize) -> io::Result<usize> {
        let mut places = self.channel.places(count);
        let mut slices: [IoSliceMut<'_>; PIECE_RECORDS] =
            std::array::from_fn(|_| IoSliceMut::new(places.next().unwrap_or_default()));
        let records = count.div_ceil(CONTENT_BYTES_MAX);
        sys::file::read_resident(file, &mut slices[..records], offset)
    }

    /// The same from the disk.
    async fn read_cold(&mut self, file: &Fd, offset: u64, count: usize) -> io::Result<usize> {
        let (outbox, places) = self.channel.lend(count);
        let (read, outbox) = uring::read_scattered_at(file, outbox, places, offset).await;
        self.channel.take_back(outbox);
        read
    }

    /// Sends what the socket takes of what is sealed.
    fn send_some(&mut self) -> io::Result<()> {
        let count = sys::socket::send(&self.socket, self.channel.unsent())?;
        self.channel.sent(count);
        Ok(())
    }

    /// Opens the next record of what came.
    fn open_some(&mut self, chunk: &mut Vec<u8>) -> Result<Opened, Failure> {
        match self.channel.open(self.inbox.rest(), chunk) {
            Ok(opened) => {
                if let Opened::Record(length, _) = opened {
                    self.inbox.cursor += length;
                    self.paid = 0;
                }
                Ok(opened)
            }
            Err(error) => {
                // The alert that says why, if it fits.
                match self.kernel {
                    Some(budget) => kernel::complain(self, budget, error),
                    None => drop(self.send_some()),
                }
                tracing::debug!(%error, "TLS failed on a data connection");
                Err(Failure::PeerReset)
            }
        }
    }
}

fn not_sealed(error: RecordError) -> Failure {
    tracing::warn!(%error, "TLS cannot go on with a data connection");
    Failure::LocalError
}

/// What is read and sealed at a time: as much as a buffer has room for. Half of it takes a tenth more CPU.
const PIECE_RECORDS: usize = 31;
const PIECE_BYTES: u64 = (PIECE_RECORDS * CONTENT_BYTES_MAX) as u64;

/// Received at a time, and then opened.
const RECEIVE_BYTES: usize = 128 * 1024;

/// A record takes as much time as so many bytes at least, however short it is.
const RECORD_EFFORT_BYTES: usize = 1024;
