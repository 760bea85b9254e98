//! Bytes over a data connection that TLS protects. They pass through memory: out of the page cache, and
//! into records; out of records, and into a chunk for the disk.

use std::io;

use super::receive::{Filled, WRITE_BYTES_MIN};
use super::send::{local, sending_failed};
use super::turn::Turn;
use super::wire::Protected;
use super::{Depot, Watch, wait_for};
use crate::proto::failure::Failure;
use crate::sys;
use crate::throttle::Pace;
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
    // Nothing more is received: this is the buffer to read into.
    protected.cursor = 0;
    let mut chunk = std::mem::take(&mut protected.records);
    let mut is_blocking = false;
    while offset < end {
        turn.allow(watch).await?;
        let count = turn.begin().await.min(end - offset).min(PIECE_BYTES);
        chunk.clear();
        let read = match sys::file::read_resident(file, &mut chunk, offset, count as usize) {
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                turn.end();
                if !is_blocking {
                    sys::tree::set_blocking(file).map_err(|error| local(&error))?;
                    is_blocking = true;
                }
                let read;
                (read, chunk) = uring::read_at(file, chunk, offset).await;
                read
            }
            read => read,
        };
        let read = read.map_err(|error| local(&error))? as u64;
        if read == 0 {
            // The file has become shorter since it was opened.
            return Err(Failure::LocalError);
        }
        // It may have become longer, too.
        let read = read.min(end - offset);
        offset += read;
        let bytes = &chunk[..read as usize];
        send_all(depot, bytes, protected, &mut turn, watch).await?;
    }
    depot.buffers.give(chunk);
    protected.stream.close();
    flush(depot, protected).await
}

/// Sends bytes from memory. Whoever waits for more of them ends the turn.
pub(super) async fn send_all(
    depot: &Depot,
    mut bytes: &[u8],
    protected: &mut Protected,
    turn: &mut Turn<'_>,
    watch: &Watch,
) -> Result<(), Failure> {
    while !bytes.is_empty() {
        turn.allow(watch).await?;
        let count = turn.begin().await.min(PIECE_BYTES) as usize;
        let (piece, rest) = bytes.split_at(bytes.len().min(count));
        protected.stream.write(piece);
        bytes = rest;
        if !sent(protected)? {
            turn.end();
            flush(depot, protected).await?;
            turn.begin().await;
        }
        watch.add(piece.len());
        turn.spend(piece.len()).await;
    }
    Ok(())
}

/// Sends what the socket takes; whether that is all.
fn sent(protected: &mut Protected) -> Result<bool, Failure> {
    while protected.stream.wants_write() {
        match protected.send_some() {
            Ok(()) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => return Ok(false),
            Err(error) => return Err(sending_failed(&error)),
        }
    }
    Ok(true)
}

/// Waits until everything is sent.
pub(super) async fn flush(depot: &Depot, protected: &mut Protected) -> Result<(), Failure> {
    while !sent(protected)? {
        wait_for(uring::writable(&protected.socket), depot).await?;
    }
    Ok(())
}

/// Takes bytes until the chunk is full, or holds enough and no more are there.
pub(super) async fn fill(
    depot: &Depot,
    chunk: &mut Vec<u8>,
    protected: &mut Protected,
    turn: &mut Turn<'_>,
    watch: &Watch,
) -> Result<Filled, Failure> {
    while chunk.len() < chunk.capacity() {
        turn.allow(watch).await?;
        let count = match turn.begin().await {
            _ if !turn.is_paced() => usize::MAX,
            count => count as usize,
        };
        let read = protected.stream.read_into(chunk, count);
        if read > 0 {
            watch.add(read);
            turn.spend(read).await;
            continue;
        }
        if protected.stream.peer_has_closed() {
            // Some clients wait for that (Python's ftplib); nobody has to.
            protected.stream.close();
            let _ = sent(protected);
            return Ok(Filled::End);
        }
        if protected.cursor < protected.records.len() {
            protected.open_some()?;
            continue;
        }
        match protected.receive_some() {
            // RFC 8446 §6.1: an end of the connection that is not the end of the session may have been
            // made by anybody on the way.
            Ok(0) => return Err(Failure::Truncated),
            Ok(_) => {}
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if chunk.len() >= WRITE_BYTES_MIN {
                    break;
                }
                turn.end();
                wait_for(uring::readable(&protected.socket), depot).await?;
            }
            Err(error) if error.kind() == io::ErrorKind::TimedOut => {
                return Err(Failure::PeerStalled);
            }
            Err(_) => return Err(Failure::PeerReset),
        }
    }
    Ok(Filled::Enough)
}

/// What is read and encrypted at a time: with its records it stays in the CPU's second cache.
const PIECE_BYTES: u64 = 128 * 1024;
