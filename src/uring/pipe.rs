//! Pipes for splices, kept and used again: making one costs more than a small transfer, and a
//! user's pages in pipes are limited (pipe(7)).

use std::cell::{Cell, RefCell};
use std::io;
use std::rc::Rc;

use tokio::sync::Notify;

use super::file::splice_all_at;
use super::{Fd, Handle, splice};
use crate::sys::flag::SPLICE_F_MOVE;
use crate::sys::pipe::{bytes_inside, pipe, splice_now, take_out};

/// The pipes of one core. Clones share them.
#[derive(Clone, Debug)]
pub struct PipePool {
    shared: Rc<Shared>,
}

/// A pipe on loan. Dropping it gives it back, if it is empty and no operation is in flight on it;
/// otherwise it is closed.
#[derive(Debug)]
pub struct Pipe {
    ends: Option<Ends>,
    pool: Rc<Shared>,
}

#[derive(Debug)]
struct Shared {
    idle: RefCell<Vec<Ends>>,
    lent: Cell<usize>,
    pipes_max: usize,
    /// Whether pipe(7)'s limits allowed the pipe that was made last its whole size.
    is_roomy: Cell<bool>,
    returned: Notify,
}

#[derive(Debug)]
struct Ends {
    reader: Fd,
    writer: Fd,
    capacity: u32,
}

impl PipePool {
    /// A pool that makes pipes when they are first needed, at most `pipes_max` at a time.
    pub fn new(pipes_max: usize) -> Self {
        let (idle, lent) = (RefCell::default(), Cell::new(0));
        Self {
            shared: Rc::new(Shared {
                idle,
                lent,
                pipes_max,
                is_roomy: Cell::new(true),
                returned: Notify::new(),
            }),
        }
    }

    /// As [`PipePool::take`], but waits for a pipe while all are in use.
    ///
    /// # Errors
    /// As [`PipePool::take`].
    pub async fn wait(&self) -> io::Result<Pipe> {
        loop {
            match self.take()? {
                Some(pipe) => return Ok(pipe),
                None => self.shared.returned.notified().await,
            }
        }
    }

    /// Takes a pipe: 1 MiB, or less where pipe(7)'s limits forbid that. `None`: all are in use.
    ///
    /// # Errors
    /// As pipe2(2), when descriptors run out.
    pub fn take(&self) -> io::Result<Option<Pipe>> {
        let shared = &self.shared;
        if shared.lent.get() >= shared.pipes_max {
            return Ok(None);
        }
        let idle = shared.idle.borrow_mut().pop();
        let ends = match idle {
            Some(ends) => ends,
            None => self.create()?,
        };
        shared.lent.set(shared.lent.get() + 1);
        Ok(Some(Pipe {
            ends: Some(ends),
            pool: Rc::clone(shared),
        }))
    }

    /// Takes a pipe of 1 MiB for somebody who does as well without one: the last half of the pipes is
    /// for those who do not, and none is made where pipe(7)'s limits have made the last one small.
    pub fn take_spare(&self) -> Option<Pipe> {
        let shared = &self.shared;
        let is_idle = !shared.idle.borrow().is_empty();
        if shared.lent.get() >= shared.pipes_max / 2 || !(is_idle || shared.is_roomy.get()) {
            return None;
        }
        let pipe = self.take().ok().flatten()?;
        (pipe.capacity() as usize >= CAPACITY).then_some(pipe)
    }

    fn create(&self) -> io::Result<Ends> {
        let pipe = pipe(CAPACITY)?;
        self.shared.is_roomy.set(pipe.capacity >= CAPACITY);
        let capacity = u32::try_from(pipe.capacity).unwrap_or(u32::MAX);
        Ok(Ends {
            reader: Fd::new(pipe.reader),
            writer: Fd::new(pipe.writer),
            capacity,
        })
    }
}

impl Pipe {
    /// Bytes the pipe holds.
    pub fn capacity(&self) -> u32 {
        self.ends().capacity
    }

    /// The end to splice out of.
    pub fn reader(&self) -> &Fd {
        &self.ends().reader
    }

    /// The end to splice into.
    pub fn writer(&self) -> &Fd {
        &self.ends().writer
    }

    /// Fills the pipe, which must be empty, from a file; 0: the file ends here.
    ///
    /// # Errors
    /// As splice(2).
    pub async fn fill(&self, file: &Fd, offset: u64, length: u32) -> io::Result<u32> {
        let length = length.min(self.capacity());
        splice(file, Some(offset), self.writer(), length, SPLICE_F_MOVE).await
    }

    /// Moves up to `length` bytes from the pipe to a non-blocking socket, on the core itself: what is
    /// in a pipe needs no disk.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when the socket takes nothing or the pipe is empty; otherwise
    /// as splice(2).
    pub fn drain(&self, socket: &Fd, length: u32) -> io::Result<u32> {
        splice_now(self.reader(), socket, length)
    }

    /// Moves up to `length` bytes that have come over a non-blocking socket into the pipe, on the core
    /// itself: they stay where they are in memory. 0: the peer sends no more.
    ///
    /// # Errors
    /// [`io::ErrorKind::WouldBlock`] when nothing has come or the pipe is full; otherwise as splice(2).
    pub fn receive(&self, socket: &Fd, length: u32) -> io::Result<u32> {
        splice_now(socket, self.writer(), length)
    }

    /// Writes the `length` bytes that are in the pipe to a file, at `offset`.
    ///
    /// # Errors
    /// As pwrite(2) and [`io::ErrorKind::WriteZero`]: then the rest is still in the pipe, and what was
    /// written before stays.
    pub async fn write_all_at(&self, file: &Handle, offset: u64, length: u32) -> io::Result<()> {
        splice_all_at(self.reader(), file, offset, length).await
    }

    /// Takes all bytes out of the pipe.
    ///
    /// # Errors
    /// As read(2).
    pub fn take_out(&self) -> io::Result<Vec<u8>> {
        take_out(self.reader())
    }

    fn ends(&self) -> &Ends {
        // Invariant: the ends are there until the drop.
        self.ends.as_ref().expect("a pipe on loan has its ends")
    }
}

impl Drop for Pipe {
    fn drop(&mut self) {
        self.pool.lent.set(self.pool.lent.get() - 1);
        if let Some(ends) = self.ends.take().filter(Ends::is_clean) {
            self.pool.idle.borrow_mut().push(ends);
        }
        self.pool.returned.notify_one();
    }
}

impl Ends {
    /// An operation in flight holds a share of an end, and may still move bytes.
    ///
    /// A pipe that a limit of pipe(7) has made small is not kept: the next one may be allowed more.
    fn is_clean(&self) -> bool {
        self.capacity as usize >= CAPACITY
            && Rc::strong_count(&self.reader) == 1
            && Rc::strong_count(&self.writer) == 1
            && bytes_inside(&self.reader).is_ok_and(|count| count == 0)
    }
}

/// Bytes a pipe shall hold: the size at which splicing costs least, and `fs.pipe-max-size`.
const CAPACITY: usize = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, TcpListener, TcpStream};
    use std::os::fd::AsRawFd;
    use std::os::unix::fs::FileExt;

    use super::super::tests::{descriptors, expect_descriptors, expect_pending, on_ring};
    use super::super::{pause, readable, writable};
    use super::*;

    impl PipePool {
        fn idle(&self) -> usize {
            self.shared.idle.borrow().len()
        }
    }

    /// Sends a file through a pipe, as a download of cold pages does.
    async fn send_through(pipe: &Pipe, file: &Fd, socket: &Fd) -> u64 {
        let mut offset = 0;
        loop {
            let mut inside = pipe.fill(file, offset, pipe.capacity()).await.unwrap();
            if inside == 0 {
                return offset;
            }
            offset += u64::from(inside);
            while inside > 0 {
                match pipe.drain(socket, inside) {
                    Ok(moved) => inside -= moved,
                    Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                        writable(socket).await.unwrap();
                    }
                    Err(error) => panic!("{error}"),
                }
            }
        }
    }

    #[test]
    fn a_file_goes_through_a_pipe_byte_by_byte() {
        on_ring(|| async {
            let bytes: Vec<u8> = (0..5_000_123u32).map(|i| (i % 251) as u8).collect();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(&bytes).unwrap();
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let mut reader = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (writer, _) = listener.accept().unwrap();
            writer.set_nonblocking(true).unwrap();
            let thread = std::thread::spawn(move || {
                let mut received = Vec::new();
                reader.read_to_end(&mut received).unwrap();
                received
            });
            let (file, writer) = (Fd::new(file.into()), Fd::new(writer.into()));
            let pool = PipePool::new(1);
            let pipe = pool.take().unwrap().unwrap();
            assert_eq!(send_through(&pipe, &file, &writer).await, 5_000_123);
            drop(writer);
            assert!(thread.join().unwrap() == bytes);
            drop(pipe);
            assert_eq!(pool.idle(), 1);
        });
    }

    #[test]
    fn pipes_are_used_again_and_bounded() {
        on_ring(|| async {
            let before = descriptors();
            let pool = PipePool::new(2);
            let one = pool.take().unwrap().unwrap();
            let number = one.reader().as_raw_fd();
            assert!(one.capacity() >= 4096);
            let other = pool.take().unwrap().unwrap();
            assert!(pool.take().unwrap().is_none());
            drop(one);
            let again = pool.take().unwrap().unwrap();
            assert_eq!(again.reader().as_raw_fd(), number);
            drop((again, other));
            assert_eq!((pool.idle(), descriptors()), (2, before + 4));
            drop(pool);
            assert_eq!(descriptors(), before);
        });
    }

    #[test]
    fn half_of_the_pipes_are_spare() {
        on_ring(|| async {
            let pool = PipePool::new(4);
            let one = pool.take_spare().unwrap();
            let other = pool.take_spare().unwrap();
            assert!(pool.take_spare().is_none());
            let last = [pool.take().unwrap().unwrap(), pool.take().unwrap().unwrap()];
            drop(one);
            assert!(pool.take_spare().is_none());
            drop((other, last));
            assert!(pool.take_spare().is_some());
            // At pipe(7)'s limits those are used again that are there, but no more are made.
            pool.shared.is_roomy.set(false);
            let spare: Vec<_> = std::iter::from_fn(|| pool.take_spare()).collect();
            assert_eq!((spare.len(), pool.idle()), (2, 2));
            pool.shared.idle.borrow_mut().clear();
            drop(spare);
            pool.shared.idle.borrow_mut().clear();
            assert!(pool.take_spare().is_none());
        });
    }

    #[test]
    fn what_came_over_a_socket_goes_through_a_pipe_into_a_file() {
        on_ring(|| async {
            let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).unwrap();
            let mut writer = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
            let (reader, _) = listener.accept().unwrap();
            reader.set_nonblocking(true).unwrap();
            let socket = Fd::new(reader.into());
            let file = tempfile::tempfile().unwrap();
            let handle = Handle::from(std::os::fd::OwnedFd::from(file.try_clone().unwrap()));
            let pipe = PipePool::new(1).take().unwrap().unwrap();
            let nothing = pipe.receive(&socket, 10).unwrap_err();
            assert_eq!(nothing.kind(), io::ErrorKind::WouldBlock);
            writer.write_all(b"in the middle of it").unwrap();
            readable(&socket).await.unwrap();
            assert_eq!(bytes_inside(&socket).unwrap(), 19);
            assert_eq!(pipe.receive(&socket, 6).unwrap(), 6);
            assert_eq!(pipe.receive(&socket, 100).unwrap(), 13);
            pipe.write_all_at(&handle, 3, 10).await.unwrap();
            pipe.write_all_at(&handle, 13, 9).await.unwrap();
            let mut bytes = [1; 22];
            file.read_exact_at(&mut bytes, 0).unwrap();
            assert_eq!(&bytes, b"\0\0\0in the middle of it");
            drop(writer);
            readable(&socket).await.unwrap();
            assert_eq!(pipe.receive(&socket, 10).unwrap(), 0);
        });
    }

    #[test]
    fn what_a_file_does_not_take_is_still_in_the_pipe() {
        on_ring(|| async {
            let pipe = PipePool::new(1).take().unwrap().unwrap();
            let mut writer = std::fs::File::from(pipe.writer().try_clone().unwrap());
            writer.write_all(b"bytes").unwrap();
            let read_only = std::fs::File::open("/dev/null").unwrap();
            let handle = Handle::from(std::os::fd::OwnedFd::from(read_only));
            let error = pipe.write_all_at(&handle, 0, 5).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EBADF));
            let error = pipe.write_all_at(&handle, u64::MAX, 5).await.unwrap_err();
            assert_eq!(error.raw_os_error(), Some(libc::EOVERFLOW));
            assert_eq!(pipe.take_out().unwrap(), b"bytes");
        });
    }

    #[test]
    fn a_pipe_with_bytes_inside_is_not_used_again() {
        on_ring(|| async {
            let before = descriptors();
            let pool = PipePool::new(2);
            let pipe = pool.take().unwrap().unwrap();
            let mut file = tempfile::tempfile().unwrap();
            file.write_all(b"left behind").unwrap();
            let file = Fd::new(file.into());
            assert_eq!(pipe.fill(&file, 0, 4).await.unwrap(), 4);
            drop((pipe, file));
            assert_eq!((pool.idle(), descriptors()), (0, before));
        });
    }

    #[test]
    fn a_pipe_with_an_operation_in_flight_is_not_used_again() {
        on_ring(|| async {
            let before = descriptors();
            let pool = PipePool::new(2);
            let pipe = pool.take().unwrap().unwrap();
            let sink = Fd::new(tempfile::tempfile().unwrap().into());
            // Nothing will ever come out of the empty pipe: a worker of the ring waits.
            let mut stuck = Box::pin(splice(pipe.reader(), None, &sink, 1, 0));
            expect_pending(&mut stuck);
            for _ in 0..10 {
                pause().await;
            }
            drop(stuck);
            drop(pipe);
            assert_eq!(pool.idle(), 0);
            drop(sink);
            expect_descriptors(before).await;
        });
    }

    #[test]
    fn an_empty_pipe_does_not_wait() {
        on_ring(|| async {
            let pool = PipePool::new(1);
            let pipe = pool.take().unwrap().unwrap();
            let (one, _other) = super::super::tests::pair();
            let error = pipe.drain(&one, 10).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        });
    }
}
