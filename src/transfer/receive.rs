//! Uploads: from the socket into the file, chunk by chunk.
//!
//! Bytes are taken from the socket without waiting until a chunk is worth a write; the write goes
//! through the ring, so that a disk that is slow to take it stalls no other session. What a fast client
//! has sent ahead goes from the socket into a pipe and from there into the file, which copies it once
//! instead of twice.

use std::io;
use std::time::Duration;

use super::buffers::CHUNK_BYTES;
use super::turn::Turn;
use super::{Depot, Watch, Wire, protected, wait_for};
use crate::proto::argument::TypeCode;
use crate::proto::ascii::ToLocal;
use crate::proto::failure::Failure;
use crate::storage::Upload;
use crate::sys;
use crate::throttle::Pace;
use crate::uring::{self, Fd, Pipe};

/// Receives until the client closes the data connection, then makes the file visible; on a failure
/// leaves what the policy says.
pub(super) async fn run(
    depot: &Depot,
    mut upload: Upload,
    type_code: TypeCode,
    wire: &mut Wire,
    watch: &Watch,
    pace: Option<Pace>,
) -> Result<(), Failure> {
    if let Err(failure) = upload.start().await {
        upload.abandon().await;
        return Err(failure);
    }
    let received = match type_code {
        TypeCode::Image => image(depot, &mut upload, wire, watch, pace).await,
        TypeCode::Ascii => ascii(depot, &mut upload, wire, watch, pace).await,
    };
    let last = match received {
        Ok(last) => last,
        Err(failure) => {
            upload.abandon().await;
            return Err(failure);
        }
    };
    settle(watch).await;
    // RFC 959 §4.1.3: after ABOR nothing is to become of the transfer, even if its end was near.
    // A client that dies closes all its connections in good order, as far as TCP can tell: the end of
    // its file is the end of the data connection only if the control connection stands.
    if watch.is_aborted() || watch.client_is_gone() {
        // What came has been written: it can be resumed.
        let (_, chunk) = upload.write(last.chunk, last.offset).await;
        depot.buffers.give(chunk);
        upload.abandon().await;
        return Err(Failure::Aborted);
    }
    let (finished, chunk) = upload.finish(last.chunk, last.offset).await;
    depot.buffers.give(chunk);
    finished
}

/// The end of an upload, which has not been written yet. It may be empty.
struct Last {
    chunk: Vec<u8>,
    offset: u64,
}

async fn image(
    depot: &Depot,
    upload: &mut Upload,
    wire: &mut Wire,
    watch: &Watch,
    pace: Option<Pace>,
) -> Result<Last, Failure> {
    let mut offset = upload.position();
    let mut chunk = depot.buffers.take();
    let mut turn = Turn::new(&depot.gate, pace);
    loop {
        offset += pass(depot, upload, offset, wire, &mut turn, watch).await?;
        let filled = fill(depot, &mut chunk, wire, &mut turn, watch).await;
        // Others move bytes while the disk takes these.
        turn.end();
        if filled == Ok(Filled::End) {
            return Ok(Last { chunk, offset });
        }
        (chunk, offset) = write(depot, upload, chunk, offset).await?;
        // What came before a failure has been written: it can be resumed.
        filled?;
    }
}

async fn ascii(
    depot: &Depot,
    upload: &mut Upload,
    wire: &mut Wire,
    watch: &Watch,
    pace: Option<Pace>,
) -> Result<Last, Failure> {
    let mut convert = ToLocal::default();
    let mut offset = upload.position();
    let mut chunk = depot.buffers.take();
    let mut converted = depot.buffers.take();
    let mut turn = Turn::new(&depot.gate, pace);
    loop {
        let filled = fill(depot, &mut chunk, wire, &mut turn, watch).await;
        turn.end();
        convert.convert(&chunk, &mut converted);
        chunk.clear();
        if filled != Ok(Filled::Enough) {
            convert.finish(&mut converted);
        }
        if filled == Ok(Filled::End) {
            depot.buffers.give(chunk);
            return Ok(Last {
                chunk: converted,
                offset,
            });
        }
        (converted, offset) = write(depot, upload, converted, offset).await?;
        filled?;
    }
}

/// Moves what the client has sent ahead into the file through a pipe, if it is enough to be written; returns
/// how many bytes that were. A pipe is not held while the client is waited for.
async fn pass(
    depot: &Depot,
    upload: &mut Upload,
    offset: u64,
    wire: &mut Wire,
    turn: &mut Turn<'_>,
    watch: &Watch,
) -> Result<u64, Failure> {
    if wire.protected().is_some() || turn.is_paced() {
        return Ok(0);
    }
    let socket = wire.socket();
    let mut passed = 0;
    while upload.takes_pipes()
        && sys::pipe::bytes_inside(socket).is_ok_and(|ahead| ahead >= WRITE_BYTES_MIN)
        && let Some(pipe) = depot.pipes.take_spare()
    {
        turn.begin().await;
        let (inside, received) = collect(&pipe, socket);
        watch.add(inside as usize);
        // Others move bytes while the disk takes these.
        turn.end();
        let write = upload.write_from(&pipe, offset + passed, inside);
        depot.desk.write(write).await?;
        passed += u64::from(inside);
        if (inside as usize) < WRITE_BYTES_MIN {
            // Packets so small that few of their bytes fit into a pipe, or urgent data (MSG_OOB), before which
            // splice(2) stops.
            upload.stop_pipes();
        }
        // What came before a failure has been written: it can be resumed.
        received?;
    }
    Ok(passed)
}

/// Fills an empty pipe from the socket, without waiting; returns how many bytes are in it now, and whether
/// the connection still stands.
fn collect(pipe: &Pipe, socket: &Fd) -> (u32, Result<(), Failure>) {
    let mut inside = 0;
    while inside < pipe.capacity() {
        match pipe.receive(socket, pipe.capacity() - inside) {
            // The end will be seen again.
            Ok(0) => break,
            Ok(moved) => inside += moved,
            // The socket is empty, or the pipe has no place for another packet, however few bytes are in it.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return (inside, Err(broken(&error))),
        }
    }
    (inside, Ok(()))
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Filled {
    /// There is something to be written, or to be taken by other means; more may come.
    Enough,
    /// The client has closed the data connection in good order.
    End,
}

/// Takes bytes from the socket until the chunk is full, or holds enough and no more are there. When it had to
/// wait with nothing in the chunk, it returns at once: what has come meanwhile may be enough for a pipe.
async fn fill(
    depot: &Depot,
    chunk: &mut Vec<u8>,
    wire: &mut Wire,
    turn: &mut Turn<'_>,
    watch: &Watch,
) -> Result<Filled, Failure> {
    if let Some(protected) = wire.protected() {
        return protected::fill(depot, chunk, protected, turn, watch).await;
    }
    let socket = wire.socket();
    while chunk.len() < CHUNK_BYTES {
        turn.allow(watch).await?;
        let room = CHUNK_BYTES - chunk.len();
        let count = match turn.begin().await {
            // As much as is there: the quantum decides when the turn is over, no more.
            _ if !turn.is_paced() => usize::MAX,
            count => count as usize,
        };
        match sys::socket::receive_behind(socket, chunk, count.min(room)) {
            Ok(0) => return Ok(Filled::End),
            Ok(received) => {
                watch.add(received);
                turn.spend(received).await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                if chunk.len() >= WRITE_BYTES_MIN {
                    break;
                }
                turn.end();
                wait_for(uring::readable(socket), depot).await?;
                if chunk.is_empty() {
                    break;
                }
            }
            Err(error) => return Err(broken(&error)),
        }
    }
    Ok(Filled::Enough)
}

/// What the end of a connection means for an upload.
fn broken(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::TimedOut => Failure::PeerStalled,
        _ => Failure::PeerReset,
    }
}

/// Gives the control connection time to end as well. The kernel closes the sockets of a client that
/// dies some 5 to 40 µs one after the other, in either order (Linux 6.18). A short transfer, of which
/// such a moment would be a good part, does not wait.
async fn settle(watch: &Watch) {
    let pause = (watch.started().elapsed() / SETTLE_SHARE).min(SETTLE_MAX);
    // The runtime's timer knows no less than a millisecond.
    if pause >= Duration::from_millis(1) {
        tokio::time::sleep(pause).await;
    }
}

/// Writes a chunk, and returns it empty, with the offset of the next one.
async fn write(
    depot: &Depot,
    upload: &mut Upload,
    chunk: Vec<u8>,
    offset: u64,
) -> Result<(Vec<u8>, u64), Failure> {
    // Whoever has nothing to write does not queue for it.
    if chunk.is_empty() {
        return Ok((chunk, offset));
    }
    let end = offset + chunk.len() as u64;
    let write = upload.write(chunk, offset);
    let (written, mut chunk) = depot.desk.write(write).await;
    written?;
    chunk.clear();
    Ok((chunk, end))
}

/// Less is not written while the client is still sending: a write has a cost of its own.
pub(super) const WRITE_BYTES_MIN: usize = 128 * 1024;

/// How long an upload waits for the end of a client that dies: 2 % of its time, at the most 2 ms.
const SETTLE_SHARE: u32 = 50;
const SETTLE_MAX: Duration = Duration::from_millis(2);
