//! Bytes from and to sockets: IORING_OP_RECV and IORING_OP_SEND with buffers that are lent.

use std::future::Future;
use std::io;
use std::os::fd::AsRawFd;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use io_uring::{opcode, squeue, types};

use super::operation::{Guarded, hit_by_withdrawal, submit};
use super::{Fd, Readiness, readable, writable};
use crate::sys::socket;

/// Receives into the whole capacity of `buffer`, whose length is then what came; 0 bytes are the
/// end of the stream.
///
/// The future may be kept and awaited again by `&mut` in one `select!` after the other; nothing is
/// lost. Dropping it withdraws the operation and loses what may have come meanwhile, so drop it
/// only with the connection.
///
/// # Panics
/// When the buffer has no capacity.
pub fn receive(fd: &Fd, mut buffer: Vec<u8>) -> Receive {
    assert!(
        buffer.capacity() > 0,
        "a buffer without capacity receives nothing"
    );
    buffer.clear();
    Receive(Exchange::new(fd, Direction::Receive, buffer))
}

/// Sends once, from the byte `from` on; how many bytes went is in the result. Raises no SIGPIPE.
///
/// Dropping the future withdraws the operation; how much was sent is then unknown.
///
/// # Panics
/// When there are no bytes from `from` on.
pub fn send(fd: &Fd, bytes: Vec<u8>, from: usize) -> Sending {
    assert!(from < bytes.len(), "nothing to send");
    Sending(Exchange::new(fd, Direction::Send { from }, bytes))
}

/// Sends all bytes. They come back, also with an error.
///
/// What fits into the socket's buffer goes at once, by send(2), as a reply nearly always does; the
/// rest waits in the ring. Going through the ring at once would cost a tenth less CPU on 64 busy
/// connections (3.9 against 4.3 µs a command), but send only when the core has nothing else to do:
/// beside 16 bulk transfers the median answer took 1.0 instead of 0.5 ms (Linux 6.18, loopback).
///
/// # Errors
/// As send(2). How much was sent before is then unknown.
pub async fn send_all(fd: &Fd, bytes: Vec<u8>) -> (io::Result<()>, Vec<u8>) {
    let mut bytes = bytes;
    let mut sent = 0;
    while sent < bytes.len() {
        match socket::send(fd, &bytes[sent..]) {
            Ok(count) => sent += count,
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let (result, returned) = send(fd, bytes, sent).await;
                bytes = returned;
                match result {
                    Ok(count) => sent += count,
                    Err(error) => return (Err(error), bytes),
                }
            }
            Err(error) => return (Err(error), bytes),
        }
    }
    (Ok(()), bytes)
}

/// A reception under way, see [`receive`].
#[must_use = "nothing is received unless it is awaited"]
pub struct Receive(Exchange);

impl Future for Receive {
    type Output = (io::Result<usize>, Vec<u8>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

/// A sending under way, see [`send`].
#[must_use = "nothing is sent unless it is awaited"]
pub struct Sending(Exchange);

impl Future for Sending {
    type Output = (io::Result<usize>, Vec<u8>);

    fn poll(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<Self::Output> {
        self.0.poll(context)
    }
}

#[derive(Clone, Copy)]
enum Direction {
    Receive,
    Send { from: usize },
}

struct Exchange {
    fd: Fd,
    direction: Direction,
    state: State,
}

type Lent = (Fd, Vec<u8>);

enum State {
    /// The buffer is here; the operation is to be submitted.
    Ready(Vec<u8>),
    /// The kernel has the buffer.
    InFlight(Guarded<Lent>),
    /// The operation said EAGAIN; it is submitted again when the socket is ready.
    Waiting(Readiness, Vec<u8>),
    /// The buffer was given back.
    Done,
}

impl Exchange {
    fn new(fd: &Fd, direction: Direction, buffer: Vec<u8>) -> Self {
        Self {
            fd: Fd::clone(fd),
            direction,
            state: State::Ready(buffer),
        }
    }

    fn poll(&mut self, context: &mut Context<'_>) -> Poll<(io::Result<usize>, Vec<u8>)> {
        loop {
            match &mut self.state {
                State::Ready(buffer) => {
                    let buffer = std::mem::take(buffer);
                    self.state = State::InFlight(self.direction.submit(&self.fd, buffer));
                }
                State::InFlight(operation) => {
                    let (result, (_, buffer)) = ready!(Pin::new(operation).poll(context));
                    if let Some(output) = self.completed(result, buffer) {
                        return Poll::Ready(output);
                    }
                }
                State::Waiting(readiness, buffer) => {
                    let result = ready!(Pin::new(readiness).poll(context));
                    let buffer = std::mem::take(buffer);
                    if let Err(error) = result {
                        self.state = State::Done;
                        return Poll::Ready((Err(error), buffer));
                    }
                    self.state = State::Ready(buffer);
                }
                State::Done => panic!("polled after completion"),
            }
        }
    }

    /// What to hand out, or `None` when the operation has to be tried again.
    fn completed(
        &mut self,
        result: io::Result<u32>,
        mut buffer: Vec<u8>,
    ) -> Option<(io::Result<usize>, Vec<u8>)> {
        if hit_by_withdrawal(&result) {
            self.state = State::Ready(buffer);
            return None;
        }
        match result {
            // Linux may say so for a non-blocking socket instead of waiting.
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                let readiness = match self.direction {
                    Direction::Receive => readable(&self.fd),
                    Direction::Send { .. } => writable(&self.fd),
                };
                self.state = State::Waiting(readiness, buffer);
                None
            }
            Err(error) => {
                self.state = State::Done;
                Some((Err(error), buffer))
            }
            Ok(count) => {
                self.state = State::Done;
                let count = count as usize;
                if let Direction::Receive = self.direction {
                    assert!(
                        count <= buffer.capacity(),
                        "the kernel wrote past the buffer"
                    );
                    // SAFETY: the kernel wrote `count` bytes to the front of the buffer, whose
                    // capacity is not less.
                    unsafe { buffer.set_len(count) };
                }
                Some((Ok(count), buffer))
            }
        }
    }
}

impl Direction {
    fn submit(self, fd: &Fd, mut buffer: Vec<u8>) -> Guarded<Lent> {
        let raw = types::Fd(fd.as_raw_fd());
        let entry = match self {
            Self::Receive => {
                let length = length_of(buffer.capacity());
                poll_first(opcode::Recv::new(raw, buffer.as_mut_ptr(), length).build())
            }
            Self::Send { from } => {
                let rest = &buffer[from..];
                opcode::Send::new(raw, rest.as_ptr(), length_of(rest.len()))
                    .flags(libc::MSG_NOSIGNAL)
                    .build()
            }
        };
        // SAFETY: the entry points into the heap block of the buffer, which `data` owns and which
        // stays where it is when the vector moves; `data` keeps the descriptor open.
        let operation = unsafe { submit((Fd::clone(fd), buffer), entry) };
        Guarded::new(operation, Fd::clone(fd))
    }
}

/// Lets the ring wait until the socket has something before it looks (Linux 5.19:
/// IORING_RECVSEND_POLL_FIRST): a client sends its next command when it has the reply to the one
/// before, so that a first look is in vain.
fn poll_first(mut entry: squeue::Entry) -> squeue::Entry {
    const { assert!(size_of::<squeue::Entry>() == 64) };
    // SAFETY: an entry is a `struct io_uring_sqe`, which has its 16 bits `ioprio` at byte 2
    // (linux/io_uring.h); io-uring 0.6 has no name for them. All bytes of it are initialised, and it
    // is aligned to 8.
    unsafe {
        (&raw mut entry)
            .cast::<u16>()
            .add(1)
            .write(RECVSEND_POLL_FIRST);
    }
    entry
}

/// `IORING_RECVSEND_POLL_FIRST` of linux/io_uring.h.
const RECVSEND_POLL_FIRST: u16 = 1;

/// A length as an entry holds it. More than the kernel moves at once (read(2): 0x7ffff000 bytes) is
/// a short transfer, which every caller expects.
pub(super) fn length_of(length: usize) -> u32 {
    u32::try_from(length).unwrap_or(u32::MAX).min(TRANSFER_MAX)
}

/// MAX_RW_COUNT of the kernel.
const TRANSFER_MAX: u32 = 0x7fff_f000;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::super::tests::{descriptors, expect_descriptors, expect_pending, on_ring, pair};
    use super::super::{pause, spawn};
    use super::*;

    #[test]
    fn bytes_come_as_they_were_sent() {
        on_ring(|| async {
            let (one, other) = pair();
            let (result, bytes) = send(&one, b"xxhello".to_vec(), 2).await;
            assert_eq!((result.unwrap(), bytes), (5, b"xxhello".to_vec()));
            // What the buffer held before does not matter.
            let (result, bytes) = receive(&other, b"old".to_vec()).await;
            assert_eq!(
                (result.unwrap(), bytes.as_slice()),
                (bytes.len(), &b"hel"[..])
            );
            let (result, bytes) = receive(&other, Vec::with_capacity(512)).await;
            assert_eq!((result.unwrap(), bytes), (2, b"lo".to_vec()));
            drop(one);
            let (result, bytes) = receive(&other, Vec::with_capacity(512)).await;
            assert_eq!((result.unwrap(), bytes), (0, Vec::new()));
        });
    }

    #[test]
    fn a_reception_survives_a_select_by_reference() {
        on_ring(|| async {
            let (one, other) = pair();
            let mut reception = receive(&other, Vec::with_capacity(64));
            for _ in 0..100 {
                tokio::select! {
                    biased;
                    _ = &mut reception => panic!("nothing was sent"),
                    () = pause() => {}
                }
            }
            send_all(&one, b"NOOP\r\n".to_vec()).await.0.unwrap();
            let (result, bytes) = loop {
                tokio::select! {
                    biased;
                    () = pause() => {}
                    output = &mut reception => break output,
                }
            };
            assert_eq!((result.unwrap(), bytes), (6, b"NOOP\r\n".to_vec()));
        });
    }

    #[test]
    fn a_dropped_reception_releases_its_socket() {
        on_ring(|| async {
            let before = descriptors();
            for round in 0..20 {
                let (one, other) = pair();
                let mut reception = receive(&one, vec![0; 512]);
                expect_pending(&mut reception);
                if round % 2 == 0 {
                    pause().await;
                }
                drop(reception);
                drop(one);
                let (result, _) = receive(&other, vec![0; 1]).await;
                assert_eq!(result.unwrap(), 0);
            }
            expect_descriptors(before).await;
        });
    }

    #[test]
    fn a_large_block_is_sent_whole_to_a_slow_reader() {
        on_ring(|| async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let mut reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (writer, _) = listener.accept().unwrap();
            writer.set_nonblocking(true).unwrap();
            let bytes: Vec<u8> = (0..20_000_000u32).map(|i| (i % 251) as u8).collect();
            let expected = bytes.clone();
            let thread = std::thread::spawn(move || {
                let mut received = Vec::new();
                reader.read_to_end(&mut received).unwrap();
                assert!(received == expected);
            });
            let writer = Fd::new(writer.into());
            let (result, bytes) = send_all(&writer, bytes).await;
            result.unwrap();
            assert_eq!(bytes.len(), 20_000_000);
            drop(writer);
            thread.join().unwrap();
        });
    }

    #[test]
    fn a_dropped_send_releases_its_socket() {
        on_ring(|| async {
            let before = descriptors();
            let (one, other) = pair();
            let task = spawn(async move { send_all(&one, vec![7; 4_000_000]).await });
            pause().await;
            task.abort();
            assert!(task.await.unwrap_err().is_cancelled());
            let mut buffer = Vec::with_capacity(65_536);
            loop {
                let (result, returned) = receive(&other, buffer).await;
                buffer = returned;
                if result.unwrap() == 0 {
                    break;
                }
            }
            drop(other);
            expect_descriptors(before).await;
        });
    }

    #[test]
    fn sending_to_a_closed_peer_is_an_error_not_a_signal() {
        on_ring(|| async {
            let (one, other) = pair();
            drop(other);
            let (result, bytes) = send(&one, b"x".to_vec(), 0).await;
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            let (result, bytes) = send_all(&one, bytes).await;
            assert_eq!(result.unwrap_err().kind(), io::ErrorKind::BrokenPipe);
            assert_eq!(bytes, b"x");
            let (result, bytes) = send_all(&one, Vec::new()).await;
            assert!(result.is_ok() && bytes.is_empty());
        });
    }

    #[test]
    fn blocking_sockets_do_not_block_the_ring() {
        on_ring(|| async {
            let (one, mut other) = std::os::unix::net::UnixStream::pair().unwrap();
            let mut reception = receive(&Fd::new(one.into()), vec![0; 16]);
            expect_pending(&mut reception);
            pause().await;
            other.write_all(b"late").unwrap();
            let (result, bytes) = reception.await;
            assert_eq!((result.unwrap(), bytes), (4, b"late".to_vec()));
        });
    }
}
