//! Files through the ring: positioned reads and writes, splice, and making data durable.
//!
//! A read or write of a regular file ends by itself; a dropped future leaves it to its end, with
//! the buffer.

use std::io;
use std::ops::Range;
use std::os::fd::AsRawFd;

use io_uring::{opcode, squeue, types};

use super::exchange::length_of;
use super::operation::{Guarded, hit_by_withdrawal, submit};
use super::{Fd, Handle};
use crate::sys::flag::SPLICE_F_MOVE;

/// Reads once into the whole capacity of `buffer`, from `offset`; 0 bytes are the end of the file.
///
/// # Errors
/// As pread(2).
///
/// # Panics
/// When the buffer has no capacity.
pub async fn read_at(file: &Fd, buffer: Vec<u8>, offset: u64) -> (io::Result<usize>, Vec<u8>) {
    let mut buffer = buffer;
    assert!(
        buffer.capacity() > 0,
        "a buffer without capacity reads nothing"
    );
    buffer.clear();
    if let Err(error) = position_of(offset) {
        return (Err(error), buffer);
    }
    loop {
        let raw = types::Fd(file.as_raw_fd());
        let length = length_of(buffer.capacity());
        let entry = opcode::Read::new(raw, buffer.as_mut_ptr(), length)
            .offset(offset)
            .build();
        // SAFETY: the entry points into the heap block of the buffer, which `data` owns and which
        // stays where it is when the vector moves; `data` keeps the descriptor open.
        let (result, lent) = unsafe { submit((Fd::clone(file), buffer), entry) }.await;
        buffer = lent.1;
        if hit_by_withdrawal(&result) {
            continue;
        }
        let result = result.map(|count| count as usize);
        if let Ok(count) = result {
            assert!(
                count <= buffer.capacity(),
                "the kernel wrote past the buffer"
            );
            // SAFETY: the kernel wrote `count` bytes to the front of the buffer, whose capacity is
            // not less.
            unsafe { buffer.set_len(count) };
        }
        return (result, buffer);
    }
}

/// Reads once into these places of `buffer`, one after the other, from `offset`; 0 bytes are the end of the
/// file. The buffer is as long as before.
///
/// # Errors
/// As preadv(2).
///
/// # Panics
/// When there is no place, or one that is not in the buffer.
pub async fn read_scattered_at(
    file: &Fd,
    buffer: Vec<u8>,
    places: impl Iterator<Item = Range<usize>>,
    offset: u64,
) -> (io::Result<usize>, Vec<u8>) {
    let mut buffer = buffer;
    if let Err(error) = position_of(offset) {
        return (Err(error), buffer);
    }
    let slices = places.map(|place| {
        let place = &mut buffer[place];
        libc::iovec {
            iov_base: place.as_mut_ptr().cast(),
            iov_len: place.len(),
        }
    });
    let mut slices: Vec<libc::iovec> = slices.collect();
    assert!(!slices.is_empty(), "no place reads nothing");
    loop {
        let raw = types::Fd(file.as_raw_fd());
        let entry = opcode::Readv::new(raw, slices.as_ptr(), length_of(slices.len()))
            .offset(offset)
            .build();
        // SAFETY: the entry points to the slices, and these into the buffer; `data` owns the heap blocks of
        // both, which stay where they are when the vectors move, and keeps the descriptor open.
        let (result, lent) = unsafe { submit((Fd::clone(file), buffer, slices), entry) }.await;
        (_, buffer, slices) = lent;
        if !hit_by_withdrawal(&result) {
            return (result.map(|count| count as usize), buffer);
        }
    }
}

/// Writes all bytes at `offset`. They come back, also with an error.
///
/// # Errors
/// As pwrite(2); [`io::ErrorKind::WriteZero`] when the file takes no more. What was written before
/// stays.
pub async fn write_all_at(file: &Handle, bytes: Vec<u8>, offset: u64) -> (io::Result<()>, Vec<u8>) {
    let mut bytes = bytes;
    if let Err(error) = position_of(offset.saturating_add(bytes.len() as u64)) {
        return (Err(error), bytes);
    }
    let mut written = 0;
    while written < bytes.len() {
        let entry = write_entry(file, &bytes[written..], offset + written as u64);
        // SAFETY: as in `read_at`; the kernel only reads.
        let (result, lent) = unsafe { submit((file.clone(), bytes), entry) }.await;
        bytes = lent.1;
        match result {
            Ok(0) => return (Err(io::ErrorKind::WriteZero.into()), bytes),
            Ok(count) => written += count as usize,
            Err(_) if hit_by_withdrawal(&result) => {}
            Err(error) => return (Err(error), bytes),
        }
    }
    (Ok(()), bytes)
}

/// Whoever submits it keeps the bytes where they are, and the file open.
pub(super) fn write_entry(file: &Handle, bytes: &[u8], offset: u64) -> squeue::Entry {
    let raw = types::Fd(file.fd().as_raw_fd());
    let entry = opcode::Write::new(raw, bytes.as_ptr(), length_of(bytes.len()))
        .offset(offset)
        .build();
    // Whether there is room, and whether bits of the mode have to go, depends on who writes.
    file.sign(entry)
}

/// Reserves disk space for `length` bytes from `offset` on, without a change to what is read there or
/// to the size of the file (FALLOC_FL_KEEP_SIZE).
///
/// # Errors
/// As fallocate(2), `EOPNOTSUPP` above all.
pub async fn reserve(file: &Handle, offset: u64, length: u64) -> io::Result<()> {
    position_of(offset.saturating_add(length))?;
    loop {
        let entry = opcode::Fallocate::new(types::Fd(file.fd().as_raw_fd()), length)
            .offset(offset)
            .mode(libc::FALLOC_FL_KEEP_SIZE)
            .build();
        let entry = file.sign(entry);
        // SAFETY: the entry points to no memory and `data` keeps its descriptor open.
        let (result, _) = unsafe { submit(file.clone(), entry) }.await;
        if !hit_by_withdrawal(&result) {
            return result.map(drop);
        }
    }
}

/// Moves up to `length` bytes between a pipe and a file or socket without copying them; one of both
/// is a pipe. Always runs on a worker of the ring, so a cold file does not hold up the core.
///
/// `from_offset` is where to read in a file, `None` for a pipe or socket. A socket on the other end
/// must be non-blocking: it would hold the worker. Dropping the future withdraws the operation; how
/// much was moved is then unknown. 0: the input is at its end.
///
/// # Errors
/// As splice(2): [`io::ErrorKind::WouldBlock`] when the socket takes nothing, or with
/// `SPLICE_F_NONBLOCK` when the pipe is full or empty.
pub async fn splice(
    from: &Fd,
    from_offset: Option<u64>,
    to: &Fd,
    length: u32,
    flags: u32,
) -> io::Result<u32> {
    // −1: where the descriptor stands, which is all a pipe or a socket has (splice(2): NULL).
    let offset = from_offset.map_or(Ok(-1), position_of)?;
    loop {
        let (input, output) = (types::Fd(from.as_raw_fd()), types::Fd(to.as_raw_fd()));
        let entry = opcode::Splice::new(input, offset, output, -1, length)
            .flags(flags)
            .build();
        // SAFETY: the entry points to no memory and `data` keeps both descriptors open.
        let operation = unsafe { submit((Fd::clone(from), Fd::clone(to)), entry) };
        let (result, _) = Guarded::new(operation, Fd::clone(to)).await;
        if !hit_by_withdrawal(&result) {
            return result;
        }
    }
}

/// Moves `length` bytes that are in a pipe into a file, at `offset`. Always runs on a worker of the ring.
///
/// # Errors
/// As pwrite(2); [`io::ErrorKind::WriteZero`] when the file takes no more. The rest is still in the pipe.
pub(super) async fn splice_all_at(
    pipe: &Fd,
    file: &Handle,
    offset: u64,
    length: u32,
) -> io::Result<()> {
    position_of(offset.saturating_add(u64::from(length)))?;
    let mut written = 0;
    while written < length {
        let input = types::Fd(pipe.as_raw_fd());
        let output = types::Fd(file.fd().as_raw_fd());
        let at = position_of(offset + u64::from(written))?;
        let entry = opcode::Splice::new(input, -1, output, at, length - written)
            .flags(SPLICE_F_MOVE)
            .build();
        let entry = file.sign(entry);
        // SAFETY: the entry points to no memory and `data` keeps both descriptors open.
        let (result, _) = unsafe { submit((Fd::clone(pipe), file.clone()), entry) }.await;
        match result {
            Ok(0) => return Err(io::ErrorKind::WriteZero.into()),
            Ok(count) => written += count,
            Err(_) if hit_by_withdrawal(&result) => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// File offsets are signed in the kernel, and −1 means something else.
fn position_of(offset: u64) -> io::Result<i64> {
    i64::try_from(offset).map_err(|_| io::Error::from_raw_os_error(libc::EOVERFLOW))
}

#[cfg(test)]
mod tests {
    use super::super::tests::on_ring;
    use super::*;

    fn temporary() -> Handle {
        handle(tempfile::tempfile().unwrap())
    }

    fn handle(file: std::fs::File) -> Handle {
        Handle::from(std::os::fd::OwnedFd::from(file))
    }

    #[test]
    fn what_is_written_is_read_again() {
        on_ring(|| async {
            let file = temporary();
            let bytes: Vec<u8> = (0..300_000u32).map(|i| (i % 251) as u8).collect();
            let (result, bytes) = write_all_at(&file, bytes, 5).await;
            result.unwrap();
            let (result, read) = read_at(file.fd(), Vec::with_capacity(400_000), 5).await;
            assert_eq!(result.unwrap(), 300_000);
            assert!(read == bytes);
            let (result, read) = read_at(file.fd(), read, 300_005).await;
            assert_eq!((result.unwrap(), read.len()), (0, 0));
            let (result, read) = read_at(file.fd(), read, 0).await;
            assert_eq!(result.unwrap(), 300_005);
            assert_eq!(&read[..6], [0, 0, 0, 0, 0, bytes[0]]);
        });
    }

    #[test]
    fn places_are_filled_in_order() {
        on_ring(|| async {
            let file = temporary();
            let (result, _) = write_all_at(&file, b"abcdefgh".to_vec(), 0).await;
            result.unwrap();
            let places = || [2..5, 7..9].into_iter();
            let (result, read) =
                read_scattered_at(file.fd(), b"..........".to_vec(), places(), 1).await;
            assert_eq!((result.unwrap(), &read[..]), (5, &b"..bcd..ef."[..]));
            let (result, read) = read_scattered_at(file.fd(), read, places(), 5).await;
            assert_eq!((result.unwrap(), &read[..]), (3, &b"..fgh..ef."[..]));
            let (result, _) = read_scattered_at(file.fd(), read, places(), 8).await;
            assert_eq!(result.unwrap(), 0);
        });
    }

    #[test]
    fn errors_come_with_the_buffer() {
        on_ring(|| async {
            let read_only = handle(std::fs::File::open("/dev/null").unwrap());
            let (result, bytes) = write_all_at(&read_only, b"x".to_vec(), 0).await;
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EBADF));
            assert_eq!(bytes, b"x");
            let file = temporary();
            let (result, bytes) = write_all_at(&file, b"x".to_vec(), u64::MAX).await;
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EOVERFLOW));
            assert_eq!(bytes, b"x");
            // −1 would read from wherever the descriptor stands.
            let (result, bytes) = read_at(file.fd(), vec![0; 8], u64::MAX).await;
            assert_eq!(result.unwrap_err().raw_os_error(), Some(libc::EOVERFLOW));
            assert!(bytes.is_empty());
        });
    }
}
