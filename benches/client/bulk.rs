//! Many big transfers at once, by one epoll.

use std::net::TcpStream;
use std::os::fd::AsRawFd;
use std::time::Duration;

use nix::errno::Errno;
use nix::sys::epoll::{Epoll, EpollCreateFlags, EpollEvent, EpollFlags, EpollTimeout};
use nix::sys::socket::{MsgFlags, SetSockOpt, send};

use super::data::recv_discard;
use super::{Doing, Error, Result};

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
    pub(crate) stream: Option<TcpStream>,
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
    let lowat = i32::try_from(lowat).doing("SO_RCVLOWAT")?;
    for stream in transfers.iter().filter_map(|t| t.stream.as_ref()) {
        ReceiveLowWater.set(stream, &lowat).doing("SO_RCVLOWAT")?;
    }
    each_ready(transfers, EpollFlags::EPOLLIN, deadline, |transfer| {
        let Some(stream) = &transfer.stream else {
            return Ok(());
        };
        match recv_discard(stream, sink, MsgFlags::MSG_DONTWAIT)? {
            None => {}
            Some(0) => transfer.stream = None,
            Some(count) => transfer.moved += count as u64,
        }
        match transfer.moved <= size {
            true => Ok(()),
            false => Err(Error::new(format!("more than {size} bytes"))),
        }
    })
}

/// Sends `size` bytes on all of them, from `content` again and again, and closes.
pub(crate) fn send_all(
    transfers: &mut [Transfer],
    size: u64,
    content: &[u8],
    deadline: Duration,
) -> Result<()> {
    each_ready(transfers, EpollFlags::EPOLLOUT, deadline, |transfer| {
        let Some(stream) = &transfer.stream else {
            return Ok(());
        };
        let start = (transfer.moved % content.len() as u64) as usize;
        let left = usize::try_from(size - transfer.moved).unwrap_or(usize::MAX);
        let part = &content[start..];
        let part = &part[..part.len().min(left)];
        match send(
            stream.as_raw_fd(),
            part,
            MsgFlags::MSG_DONTWAIT | MsgFlags::MSG_NOSIGNAL,
        ) {
            Ok(count) => transfer.moved += count as u64,
            Err(Errno::EAGAIN | Errno::EINTR) => {}
            Err(error) => return Err(error).doing("sending"),
        }
        if transfer.moved == size {
            transfer.stream = None;
        }
        Ok(())
    })
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
        if let Some(stream) = &transfer.stream {
            let event = EpollEvent::new(what, index as u64);
            epoll.add(stream, event).doing(doing)?;
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
            open -= usize::from(transfer.stream.is_none());
        }
    }
    Ok(())
}

/// Taken from the kernel at once.
const EVENTS: usize = 64;
