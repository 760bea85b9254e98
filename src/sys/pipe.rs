//! Pipes, the kernel's buffer between a file and a socket (splice(2)).

use std::io;
use std::os::fd::{AsFd, AsRawFd, FromRawFd, OwnedFd};

use super::{check, check_count};

/// A new pipe: its two ends and how many bytes it holds.
#[derive(Debug)]
pub struct PipeEnds {
    /// The end that bytes come out of.
    pub reader: OwnedFd,
    /// The end that bytes go into.
    pub writer: OwnedFd,
    /// Bytes the pipe holds, a multiple of the page size.
    pub capacity: usize,
}

/// Makes a pipe of `capacity` bytes, or of the largest smaller size the kernel allows.
///
/// An unprivileged user is refused more than `fs.pipe-max-size` for one pipe and more than
/// `fs.pipe-user-pages-soft` for all; beyond the latter a new pipe has two pages only (pipe(7)).
///
/// # Errors
/// EMFILE or ENFILE when descriptors run out.
pub fn pipe(capacity: usize) -> io::Result<PipeEnds> {
    let mut ends = [-1; 2];
    // SAFETY: pipe2 writes two descriptors to the array it is given.
    check(unsafe { libc::pipe2(ends.as_mut_ptr(), libc::O_CLOEXEC) })?;
    // SAFETY: pipe2 succeeded, so both are new descriptors that nobody else owns.
    let (reader, writer) =
        unsafe { (OwnedFd::from_raw_fd(ends[0]), OwnedFd::from_raw_fd(ends[1])) };
    let mut wanted = capacity;
    let capacity = loop {
        let current = size(&writer)?;
        if current >= wanted || wanted < RESIZE_MIN {
            break current;
        }
        match resize(&writer, wanted) {
            Ok(size) => break size,
            // EPERM: over a limit of pipe(7); half of it may still be allowed.
            Err(_) => wanted /= 2,
        }
    };
    Ok(PipeEnds {
        reader,
        writer,
        capacity,
    })
}

/// Moves up to `length` bytes from a pipe to a non-blocking socket or from there to a pipe, without
/// waiting: splice(2). 0: the input is at its end.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when there is nothing to take, or no room for it; otherwise as
/// splice(2).
pub fn splice_now(from: &impl AsFd, to: &impl AsFd, length: u32) -> io::Result<u32> {
    let none = std::ptr::null_mut();
    // SAFETY: splice takes no offsets for a pipe and a socket, and touches no memory of ours.
    let moved = check_count(unsafe {
        libc::splice(
            from.as_fd().as_raw_fd(),
            none,
            to.as_fd().as_raw_fd(),
            none,
            length as usize,
            libc::SPLICE_F_MOVE | libc::SPLICE_F_NONBLOCK,
        )
    })?;
    Ok(u32::try_from(moved).unwrap_or(length))
}

/// Bytes that can be read from a pipe or a socket now (FIONREAD).
///
/// # Errors
/// As ioctl(2).
pub fn bytes_inside(file: &impl AsFd) -> io::Result<usize> {
    let mut count: libc::c_int = 0;
    // SAFETY: FIONREAD writes one int to the pointer.
    check(unsafe { libc::ioctl(file.as_fd().as_raw_fd(), libc::FIONREAD, &raw mut count) })?;
    Ok(usize::try_from(count).unwrap_or(0))
}

/// Takes all bytes out of a pipe that nobody else reads or writes.
///
/// # Errors
/// As read(2).
pub fn take_out(pipe: &impl AsFd) -> io::Result<Vec<u8>> {
    let mut bytes = vec![0; bytes_inside(pipe)?];
    let mut taken = 0;
    while taken < bytes.len() {
        // As much is there, so that this never waits.
        match nix::unistd::read(pipe, &mut bytes[taken..])? {
            0 => return Err(io::ErrorKind::UnexpectedEof.into()),
            count => taken += count,
        }
    }
    Ok(bytes)
}

fn size(pipe: &OwnedFd) -> io::Result<usize> {
    // SAFETY: F_GETPIPE_SZ takes no argument and touches no memory of ours.
    let size = check(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_GETPIPE_SZ) })?;
    Ok(usize::try_from(size).unwrap_or(0))
}

fn resize(pipe: &OwnedFd, capacity: usize) -> io::Result<usize> {
    let wanted = libc::c_int::try_from(capacity).unwrap_or(libc::c_int::MAX);
    // SAFETY: F_SETPIPE_SZ takes an int and touches no memory of ours.
    let size = check(unsafe { libc::fcntl(pipe.as_raw_fd(), libc::F_SETPIPE_SZ, wanted) })?;
    Ok(usize::try_from(size).unwrap_or(0))
}

/// Below this a larger pipe is not worth a further try.
const RESIZE_MIN: usize = 16 * 1024;

#[cfg(test)]
mod tests {
    use std::fs::File;
    use std::io::{Read, Write};

    use super::*;

    #[test]
    fn a_pipe_is_as_large_as_the_kernel_allows() {
        // Never refused: a user at the limit of pipe(7) gets a smaller one.
        for wanted in [0, 4096, 64 * 1024, 1024 * 1024, usize::MAX] {
            let pipe = pipe(wanted).unwrap();
            assert_eq!(pipe.capacity, size(&pipe.reader).unwrap());
            assert!(pipe.capacity >= 4096);
        }
    }

    #[test]
    fn bytes_inside_are_counted() {
        let pipe = pipe(4096).unwrap();
        assert_eq!(bytes_inside(&pipe.reader).unwrap(), 0);
        let (mut reader, mut writer) = (File::from(pipe.reader), File::from(pipe.writer));
        writer.write_all(b"12345").unwrap();
        assert_eq!(bytes_inside(&reader).unwrap(), 5);
        reader.read_exact(&mut [0; 3]).unwrap();
        assert_eq!(bytes_inside(&reader).unwrap(), 2);
        assert_eq!(take_out(&reader).unwrap(), b"45");
        assert_eq!(take_out(&reader).unwrap(), b"");
    }
}
