//! Many big transfers at once, by one epoll.

use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, SetSockOpt};

use super::{Doing, Error, Result, Wire};

// There is none in socket2 and nix.
nix::setsockopt_impl!(
    ReceiveLowWater,
    libc::SOL_SOCKET,
    libc::SO_RCVLOWAT,
    i32,
    nix::sys::socket::sockopt::SetStruct<'_, i32>
);
#[derive(Clone)]
struct ReceiveLowWater;

/// One of them.
#[derive(Debug)]
pub(crate) struct Transfer {
    /// Until it has ended.
    pub(crate) wire: Option<Wire>,
    pub(crate) moved: u64,
}

/// Receives all of them to their ends, `size` at most, and is woken for `lowat` bytes or the end.
pub(crate) fn receive(
    transfers: &mut [Transfer],
    size: u64,
    lowat: u64,
    sink: &mut [u8],
    deadline: Duration,
) -> Result<()> {
    for wire in transfers.iter().filter_map(|t| t.wire.as_ref()) {
        woken_for(wire, lowat)?;
    }
    each_ready(transfers, EpollFlags::EPOLLIN, deadline, |transfer| {
        let Some(wire) = &mut transfer.wire else {
            return Ok(());
        };
        let before = transfer.moved;
        match wire.discard(sink, MsgFlags::MSG_DONTWAIT)? {
            None => {}
            Some(0) => transfer.close()?,
            Some(count) => {
                transfer.moved += count as u64;
                // A server may wait for this side to end TLS before it closes the connection: then
                // the last bytes come alone.
                let last = size.saturating_sub(lowat + RECORD_BYTES);
                if before < last && transfer.moved >= last {
                    woken_for(wire, 1)?;
                }
                // Nothing else need come to wake this side.
                if wire.is_over() {
                    transfer.close()?;
                }
            }
        }
        match transfer.moved <= size {
            true => Ok(()),
            false => Err(Error::new(format!("more than {size} bytes"))),
        }
    })
}

fn woken_for(wire: &Wire, lowat: u64) -> Result<()> {
    let lowat = i32::try_from(lowat).doing("SO_RCVLOWAT")?;
    ReceiveLowWater.set(wire, &lowat).doing("SO_RCVLOWAT")
}

/// Sends `size` bytes on all of them, from `content` again and again, and closes.
pub(crate) fn send_all(
    transfers: &mut [Transfer],
    size: u64,
    content: &[u8],
    deadline: Duration,
) -> Result<()> {
    each_ready(transfers, EpollFlags::EPOLLOUT, deadline, |transfer| {
        let Some(wire) = &mut transfer.wire else {
            return Ok(());
        };
        let start = (transfer.moved % content.len() as u64) as usize;
        let left = usize::try_from(size - transfer.moved).unwrap_or(usize::MAX);
        let part = &content[start..];
        let part = &part[..part.len().min(left)];
        transfer.moved += wire.send_some(part)? as u64;
        match transfer.moved == size && wire.is_flushed() {
            true => transfer.close(),
            false => Ok(()),
        }
    })
}

impl Transfer {
    /// Closes its connection.
    pub(crate) fn close(&mut self) -> Result<()> {
        self.wire.take().map_or(Ok(()), Wire::close)
    }
}

/// Has each transfer go on when it can, until all have closed their connections.
fn each_ready(
    transfers: &mut [Transfer],
    what: EpollFlags,
    deadline: Duration,
    mut go_on: impl FnMut(&mut Transfer) -> Result<()>,
) -> Result<()> {
    let doing = "epoll";
    let epoll = Epoll::new(EpollCreateFlags::EPOLL_CLOEXEC).doing(doing)?;
    let mut open = 0;
    for (index, transfer) in transfers.iter().enumerate() {
        if let Some(wire) = &transfer.wire {
            let event = EpollEvent::new(what, index as u64);
            epoll.add(wire, event).doing(doing)?;
            open += 1;
        }
    }
    let timeout = EpollTimeout::try_from(deadline).doing(doing)?;
    let mut events = [EpollEvent::empty(); EVENTS];
    while open > 0 {
        let count = match epoll.wait(&mut events, timeout) {
            Ok(0) => return Err(Error::new(format!("no byte moved in {deadline:?}"))),
            Ok(count) => count,
            Err(Errno::EINTR) => continue,
            Err(error) => return Err(error).doing(doing),
        };
        for event in &events[..count] {
            let transfer = &mut transfers[event.data() as usize];
            go_on(transfer)?;
            // The close has taken it out of the epoll as well (epoll(7)).
            open -= usize::from(transfer.wire.is_none());
        }
    }
    Ok(())
}

/// Taken from the kernel at once.
const EVENTS: usize = 64;

/// Of a record at most, with its overhead: so much of what came cannot be decrypted yet.
const RECORD_BYTES: u64 = 17 << 10;
