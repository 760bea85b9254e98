//! Downloads: from the page cache straight into the socket, or line by line in TYPE A.
//!
//! A file whose pages are resident goes by non-blocking sendfile(2), which costs what the bare
//! kernel costs. Where pages are missing, sendfile would put the whole core to sleep until the disk
//! has answered (measured: 12 ms on a fast disk, 160 to 640 ms on a slow one), so those windows go
//! through a pipe: io_uring's SPLICE fills it on a kernel worker thread, and a non-blocking splice
//! empties it into the socket.

use std::io;

use super::turn::Turn;
use super::{Depot, Watch, Wire, kernel, protected, wait_for};
use crate::proto::argument::TypeCode;
use crate::proto::ascii::ToNetwork;
use crate::proto::failure::Failure;
use crate::sys;
use crate::sys::file::Residency;
use crate::throttle::Pace;
use crate::uring::{self, Fd};

/// Sends the bytes from `offset` to `end` as they are (TYPE I).
pub(super) async fn image(
    depot: &Depot,
    file: &Fd,
    mut offset: u64,
    end: u64,
    wire: &mut Wire,
    watch: &Watch,
    pace: Option<Pace>,
) -> Result<(), Failure> {
    if let Some(protected) = wire.protected()
        && !kernel::take_over(depot, protected, end - offset, pace.is_some())
    {
        return protected::image(depot, file, offset, end, protected, watch, pace).await;
    }
    let mut turn = Turn::new(&depot.gate, pace);
    let mut resident_until = offset;
    while offset < end {
        turn.allow(watch).await?;
        if offset >= resident_until {
            let window = (end - offset).min(WINDOW_BYTES);
            let residency = sys::file::residency(file, offset, window);
            resident_until = match residency {
                Residency::Diskless => end,
                _ => offset + window,
            };
            if residency == Residency::Missing {
                turn.end();
                let window = Window {
                    offset,
                    length: window,
                };
                let cold = cold_window(depot, file, window, wire, &mut turn, watch).await?;
                if cold.filled == 0 {
                    break;
                }
                offset += cold.sent;
                // What the client has not taken yet is in the page cache now.
                resident_until = offset - cold.sent + cold.filled;
                continue;
            }
        }
        let count = (resident_until - offset).min(turn.begin().await);
        let Some(count) = piece(depot, wire, count)? else {
            turn.end();
            watch.unless_aborted(wire.renew(depot)).await??;
            continue;
        };
        let count = count as usize;
        match sys::file::send_file(file, wire.socket(), &mut offset, count) {
            // The file has become shorter since it was opened.
            Ok(0) => break,
            Ok(sent) => {
                sealed(wire, sent, count);
                watch.add(sent);
                turn.spend(sent).await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                turn.end();
                // A socket that the kernel seals cannot be disconnected, which would end this wait.
                let writable = uring::writable(wire.socket());
                watch.unless_aborted(wait_for(writable, depot)).await??;
            }
            Err(error) => return Err(failed(wire, &error)),
        }
    }
    match offset < end {
        true => Err(Failure::LocalError),
        false => watch.unless_aborted(wire.finish(depot)).await?,
    }
}

/// How many of the wanted bytes may be sent at once; `None`: where the kernel seals them, other keys are needed.
fn piece(depot: &Depot, wire: &mut Wire, wanted: u64) -> Result<Option<u64>, Failure> {
    match wire.protected() {
        Some(protected) => kernel::piece(depot, protected, wanted),
        None => Ok(Some(wanted)),
    }
}

/// Counts what one call has sent of what it was to send.
fn sealed(wire: &mut Wire, sent: usize, wanted: usize) {
    if let Some(protected) = wire.protected() {
        kernel::spend(protected, sent, wanted);
    }
}

/// A part of a file, in bytes.
#[derive(Clone, Copy)]
struct Window {
    offset: u64,
    length: u64,
}

/// How far a window of a cold file has come, in bytes.
struct Cold {
    /// Read from the disk.
    filled: u64,
    /// Taken by the client.
    sent: u64,
}

/// Reads one window of a file that is not in the page cache, and sends what the client takes at
/// once. The pipe is not held while the client is waited for: pipes are few, and one client that
/// takes its time, or a rate, must not keep the others from theirs.
async fn cold_window(
    depot: &Depot,
    file: &Fd,
    window: Window,
    wire: &mut Wire,
    turn: &mut Turn<'_>,
    watch: &Watch,
) -> Result<Cold, Failure> {
    let pipe = watch
        .unless_aborted(depot.pipes.wait())
        .await?
        .map_err(|error| local(&error))?;
    let filled = pipe
        .fill(file, window.offset, window.length as u32)
        .await
        .map_err(|error| local(&error))?;
    let mut left = filled;
    while left > 0 && !turn.is_spent() {
        let count = turn.begin().await.min(u64::from(left));
        // Other keys are not waited for with the pipe in hand.
        let Some(count) = piece(depot, wire, count)? else {
            break;
        };
        let count = count as u32;
        match pipe.drain(wire.socket(), count) {
            Ok(0) => return Err(Failure::PeerReset),
            Ok(sent) => {
                sealed(wire, sent as usize, count as usize);
                left -= sent;
                watch.add(sent as usize);
                turn.spend(sent as usize).await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => break,
            Err(error) => return Err(failed(wire, &error)),
        }
    }
    Ok(Cold {
        filled: u64::from(filled),
        sent: u64::from(filled - left),
    })
}

/// Sends a file with its line ends converted (TYPE A), from `skip` bytes of what is sent on.
pub(super) async fn ascii(
    depot: &Depot,
    file: &Fd,
    skip: u64,
    end: u64,
    wire: &mut Wire,
    watch: &Watch,
    pace: Option<Pace>,
) -> Result<(), Failure> {
    sys::tree::set_blocking(file).map_err(|error| local(&error))?;
    let mut turn = Turn::new(&depot.gate, pace);
    let mut convert = ToNetwork::default();
    let mut converted = Vec::new();
    let mut chunk = Vec::with_capacity(ASCII_CHUNK_BYTES);
    let (mut offset, mut skip) = (0, skip);
    while offset < end {
        let read;
        chunk.clear();
        (read, chunk) = uring::read_at(file, chunk, offset).await;
        let read = read.map_err(|error| local(&error))? as u64;
        if read == 0 {
            // The file has become shorter since it was opened.
            return Err(Failure::LocalError);
        }
        // It may have become longer, too.
        let read = read.min(end - offset);
        offset += read;
        converted.clear();
        convert.convert(&chunk[..read as usize], &mut converted);
        let skipped = skip.min(converted.len() as u64) as usize;
        skip -= skipped as u64;
        send_all(depot, &converted[skipped..], wire, &mut turn, watch).await?;
        turn.end();
    }
    match skip {
        0 => wire.finish(depot).await,
        _ => Err(Failure::OffsetBeyondEnd),
    }
}

/// Sends bytes from memory. Whoever waits for more of them ends the turn.
pub(super) async fn send_all(
    depot: &Depot,
    mut bytes: &[u8],
    wire: &mut Wire,
    turn: &mut Turn<'_>,
    watch: &Watch,
) -> Result<(), Failure> {
    if let Some(protected) = wire.protected() {
        return protected::send_all(depot, bytes, protected, turn, watch).await;
    }
    let socket = wire.socket();
    while !bytes.is_empty() {
        turn.allow(watch).await?;
        let count = bytes.len().min(turn.begin().await as usize);
        match sys::socket::send(socket, &bytes[..count]) {
            Ok(sent) => {
                bytes = &bytes[sent..];
                watch.add(sent);
                turn.spend(sent).await;
            }
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                turn.end();
                wait_for(uring::writable(socket), depot).await?;
            }
            Err(error) => return Err(sending_failed(&error)),
        }
    }
    Ok(())
}

fn failed(wire: &Wire, error: &io::Error) -> Failure {
    let socket = wire.socket();
    match sys::ktls::is_broken(error) && sys::socket::peer_has_closed(&**socket) {
        true => Failure::PeerReset,
        false => sending_failed(error),
    }
}

/// sendfile(2) fails with what the socket says of its peer, or with what the file's disk says.
pub(super) fn sending_failed(error: &io::Error) -> Failure {
    match error.kind() {
        io::ErrorKind::BrokenPipe
        | io::ErrorKind::ConnectionReset
        | io::ErrorKind::ConnectionAborted
        | io::ErrorKind::NotConnected => Failure::PeerReset,
        io::ErrorKind::TimedOut | io::ErrorKind::HostUnreachable => Failure::PeerStalled,
        _ => local(error),
    }
}

pub(super) fn local(error: &io::Error) -> Failure {
    tracing::warn!(%error, type_code = ?TypeCode::Image, "download failed on this side");
    Failure::from_errno(error.raw_os_error().unwrap_or(0))
}

/// The page cache is probed once for this many bytes (2.5 ms of CPU per GiB).
const WINDOW_BYTES: u64 = 1024 * 1024;

/// One read of a text file. Its converted form takes twice as much at the most.
const ASCII_CHUNK_BYTES: usize = 64 * 1024;
