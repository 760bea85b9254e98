//! Channels between a process and a helper of its own: whole messages, and descriptors that are handed
//! over with them (unix(7), SCM_RIGHTS).

use std::io::{self, IoSlice, IoSliceMut};
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd, RawFd};
use std::time::{Duration, Instant};

use nix::errno::Errno;
use nix::poll::{PollFd, PollFlags, PollTimeout, poll};
use nix::sys::socket::{
    AddressFamily, ControlMessage, ControlMessageOwned, MsgFlags, SockFlag, SockType, recv,
    recvmsg, send, sendmsg, socketpair,
};

/// Two connected ends. Messages keep their bounds; a closed end reads as its other end's end.
///
/// # Errors
/// As socketpair(2).
pub fn pair() -> io::Result<(OwnedFd, OwnedFd)> {
    let (family, kind) = (AddressFamily::Unix, SockType::SeqPacket);
    Ok(socketpair(family, kind, None, SockFlag::SOCK_CLOEXEC)?)
}

/// Hands a descriptor over, with a message that is not empty. Does not wait.
///
/// # Errors
/// EAGAIN when too much is waiting at the other end; otherwise as sendmsg(2).
pub fn hand_over(channel: impl AsFd, message: &[u8], descriptor: impl AsFd) -> io::Result<()> {
    let descriptors = [descriptor.as_fd().as_raw_fd()];
    let rights = [ControlMessage::ScmRights(&descriptors)];
    let parts = [IoSlice::new(message)];
    let channel = channel.as_fd().as_raw_fd();
    sendmsg::<()>(
        channel,
        &parts,
        &rights,
        FLAGS | MsgFlags::MSG_DONTWAIT,
        None,
    )?;
    Ok(())
}

/// Waits for what [`hand_over`] sends: how long its message is, and the descriptor; `None` at the end.
///
/// # Errors
/// As recvmsg(2).
pub fn take(channel: impl AsFd, message: &mut [u8]) -> io::Result<Option<(usize, OwnedFd)>> {
    let channel = channel.as_fd().as_raw_fd();
    let mut space = nix::cmsg_space!(RawFd);
    loop {
        let mut parts = [IoSliceMut::new(message)];
        let flags = MsgFlags::MSG_CMSG_CLOEXEC;
        let received = match recvmsg::<()>(channel, &mut parts, Some(&mut space), flags) {
            Err(Errno::EINTR) => continue,
            received => received?,
        };
        let length = received.bytes;
        let mut taken = Vec::new();
        for control in received.cmsgs()? {
            if let ControlMessageOwned::ScmRights(descriptors) = control {
                // SAFETY: the kernel has just made these descriptors for this process, and nobody else
                // knows them.
                let owned = |raw: RawFd| unsafe { OwnedFd::from_raw_fd(raw) };
                taken.extend(descriptors.into_iter().map(owned));
            }
        }
        match (length, taken.pop()) {
            (0, _) => return Ok(None),
            (length, Some(descriptor)) => return Ok(Some((length, descriptor))),
            // Not a message of ours.
            (_, None) => {}
        }
    }
}

/// Sends a message and waits for the answer, until `deadline`.
///
/// # Errors
/// TimedOut; UnexpectedEof when the other end is closed; otherwise as send(2) and recv(2).
pub fn ask(
    channel: impl AsFd,
    question: &[u8],
    answer: &mut [u8],
    deadline: Instant,
) -> io::Result<usize> {
    let raw = channel.as_fd().as_raw_fd();
    // A message of a few hundred bytes fits into a new socket.
    send(raw, question, FLAGS | MsgFlags::MSG_DONTWAIT).map_err(ended)?;
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        // In whole milliseconds, upwards: zero would be a look, and a busy loop at the end.
        let left = PollTimeout::try_from(left + Duration::from_millis(1))
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?;
        let mut waits = [PollFd::new(channel.as_fd(), PollFlags::POLLIN)];
        match poll(&mut waits, left) {
            Err(Errno::EINTR) => {}
            Err(errno) => return Err(errno.into()),
            Ok(0) => return Err(io::ErrorKind::TimedOut.into()),
            Ok(_) => break,
        }
    }
    match recv(raw, answer, MsgFlags::MSG_DONTWAIT).map_err(ended)? {
        0 => Err(io::ErrorKind::UnexpectedEof.into()),
        length => Ok(length),
    }
}

/// However the other end tells that it is closed.
fn ended(errno: Errno) -> io::Error {
    match errno {
        Errno::EPIPE | Errno::ECONNRESET => io::ErrorKind::UnexpectedEof.into(),
        errno => errno.into(),
    }
}

/// The end of the other side is an error, not a signal.
const FLAGS: MsgFlags = MsgFlags::MSG_NOSIGNAL;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn descriptors_are_handed_over_and_questions_answered() {
        let (ours, its) = pair().unwrap();
        let (question, answering) = pair().unwrap();
        hand_over(&ours, b"go", &answering).unwrap();
        drop(answering);
        let mut message = [0; 8];
        let (length, taken) = take(&its, &mut message).unwrap().unwrap();
        assert_eq!(&message[..length], b"go");
        send(taken.as_raw_fd(), b"yes", FLAGS).unwrap();
        let deadline = Instant::now() + Duration::from_secs(10);
        let length = ask(&question, b"so?", &mut message, deadline).unwrap();
        assert_eq!(&message[..length], b"yes");
        let early = ask(&question, b"so?", &mut message, Instant::now()).unwrap_err();
        assert_eq!(early.kind(), io::ErrorKind::TimedOut);
        drop(taken);
        let gone = ask(&question, b"so?", &mut message, deadline).unwrap_err();
        assert_eq!(gone.kind(), io::ErrorKind::UnexpectedEof);
        drop(ours);
        assert!(take(&its, &mut message).unwrap().is_none());
    }
}
