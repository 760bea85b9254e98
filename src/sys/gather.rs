//! Sending what lies in several places by one call.

use std::io::{self, IoSlice};
use std::os::fd::{AsFd, AsRawFd};

use super::check_count;

/// Sends as much of the slices, one after the other, as fits into the socket's buffer, without waiting
/// and without SIGPIPE.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when nothing fits; otherwise as sendmsg(2).
pub fn send_vectored(socket: &impl AsFd, slices: &[IoSlice<'_>]) -> io::Result<usize> {
    // IOV_MAX of Linux; the kernel refuses more.
    let slices = &slices[..slices.len().min(1024)];
    // SAFETY: all zeros is a valid msghdr, which is made of pointers and integers.
    let mut message: libc::msghdr = unsafe { std::mem::zeroed() };
    // The kernel only reads what the message points to.
    message.msg_iov = slices.as_ptr().cast_mut().cast();
    message.msg_iovlen = slices.len() as _;
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    loop {
        // SAFETY: an IoSlice has the layout of an iovec (std documents it), the slices are borrowed for
        // the call, and the kernel reads them only.
        let result =
            unsafe { libc::sendmsg(socket.as_fd().as_raw_fd(), &raw const message, flags) };
        match check_count(result) {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::{Ipv4Addr, TcpListener, TcpStream};

    use super::*;

    #[test]
    fn slices_arrive_in_order_and_a_full_socket_says_so() {
        let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a listener");
        let mut reader = TcpStream::connect(listener.local_addr().expect("bound")).expect("it");
        let (writer, _) = listener.accept().expect("a connection");
        let slices = [
            IoSlice::new(b"one "),
            IoSlice::new(b""),
            IoSlice::new(b"two"),
        ];
        assert_eq!(send_vectored(&writer, &slices).expect("room"), 7);
        let mut got = [0; 7];
        reader.read_exact(&mut got).expect("seven bytes");
        assert_eq!(&got, b"one two");
        let big = vec![0; 1 << 20];
        let full = loop {
            if let Err(error) = send_vectored(&writer, &[IoSlice::new(&big)]) {
                break error;
            }
        };
        assert_eq!(full.kind(), io::ErrorKind::WouldBlock);
    }
}
