//! What the kernel is told and asked about a TCP connection, beside moving its bytes.

use std::io;
use std::os::fd::{AsFd, AsRawFd};
use std::time::Duration;

use socket2::{SockRef, TcpKeepalive};

use super::check;

/// Lets the kernel probe an idle connection after `idle`, then every `interval`, `probes` times.
///
/// # Errors
/// As setsockopt(2); durations are rounded down to seconds, and zero is refused.
pub fn set_keepalive(
    socket: &impl AsFd,
    idle: Duration,
    interval: Duration,
    probes: u32,
) -> io::Result<()> {
    let keepalive = TcpKeepalive::new()
        .with_time(idle)
        .with_interval(interval)
        .with_retries(probes);
    SockRef::from(socket).set_tcp_keepalive(&keepalive)
}

/// Has segments leave when they are full, but for the last before the close: for a sender that always
/// has more. With TCP_NODELAY alone each acknowledgement pushes out a part of one.
///
/// By TCP_CORK (tcp(7)); it holds a part back for 200 ms at the most. By Nagle's algorithm (RFC 9293
/// §3.7.4) where a segment holds as much as a pipe does and BBR paces, as on loopback: there a corked
/// stream costs half as much again, a timer for each segment.
///
/// # Errors
/// As getsockopt(2) and setsockopt(2).
pub fn fill_segments(socket: &impl AsFd) -> io::Result<()> {
    let socket = SockRef::from(socket);
    if socket.tcp_mss()? >= SEGMENT_BYTES_HUGE && socket.tcp_congestion()?.starts_with(b"bbr") {
        return socket.set_tcp_nodelay(false);
    }
    socket.set_tcp_cork(true)
}

/// Spreads what is sent over time: at most so many bytes in a second (SO_MAX_PACING_RATE, socket(7)).
/// TCP does it by itself where no `fq` queue does it for it (Linux 4.13), on loopback too.
///
/// # Errors
/// As setsockopt(2).
pub fn set_pacing_rate(socket: &impl AsFd, bytes_per_second: u64) -> io::Result<()> {
    let length = size_of_val(&bytes_per_second) as libc::socklen_t;
    // SAFETY: the option's value is the number behind the pointer, of the length given; the kernel
    // takes 32 or 64 bits (Linux 4.20).
    let result = unsafe {
        libc::setsockopt(
            socket.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_MAX_PACING_RATE,
            (&raw const bytes_per_second).cast(),
            length,
        )
    };
    check(result).map(drop)
}

/// Bytes sent that the other side has not confirmed yet (SIOCOUTQ, tcp(7)).
///
/// # Errors
/// What has become of the connection, if it is gone.
pub fn undelivered(socket: &impl AsFd) -> io::Result<u64> {
    if let Some(error) = SockRef::from(socket).take_error()? {
        return Err(error);
    }
    let mut count: libc::c_int = 0;
    // SAFETY: SIOCOUTQ, which has the number of TIOCOUTQ, writes one int to the pointer.
    let asked = unsafe { libc::ioctl(socket.as_fd().as_raw_fd(), libc::TIOCOUTQ, &raw mut count) };
    check(asked)?;
    Ok(u64::try_from(count).unwrap_or_default())
}

/// Larger than any frame of Ethernet (9 000), smaller than what loopback has (65 483).
const SEGMENT_BYTES_HUGE: u32 = 32 * 1024;

#[cfg(test)]
mod tests {
    use std::net::{TcpListener, TcpStream};

    use super::*;

    fn connection() -> (TcpStream, TcpStream) {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let client = TcpStream::connect(listener.local_addr().unwrap()).unwrap();
        (client, listener.accept().unwrap().0)
    }

    #[test]
    fn keepalive_is_set() {
        let (_client, server) = connection();
        set_keepalive(&server, Duration::from_secs(60), Duration::from_secs(10), 6).unwrap();
        let socket = SockRef::from(&server);
        assert!(socket.keepalive().unwrap());
        let time = socket.tcp_keepalive_time().unwrap();
        assert_eq!(time, Duration::from_secs(60));
        let interval = socket.tcp_keepalive_interval().unwrap();
        assert_eq!(interval, Duration::from_secs(10));
        assert_eq!(socket.tcp_keepalive_retries().unwrap(), 6);
    }

    #[test]
    fn segments_are_filled_by_cork_and_huge_ones_under_bbr_by_nagle() {
        for (congestion, cork) in [("reno", true), ("bbr", false)] {
            let (_client, server) = connection();
            let socket = SockRef::from(&server);
            socket.set_tcp_nodelay(true).unwrap();
            if socket.set_tcp_congestion(congestion.as_bytes()).is_err() {
                continue; // Not in this kernel, or not for everybody.
            }
            fill_segments(&server).unwrap();
            assert_eq!(socket.tcp_cork().unwrap(), cork, "{congestion}");
            assert_eq!(socket.tcp_nodelay().unwrap(), cork, "{congestion}");
        }
    }

    #[test]
    fn what_has_not_been_confirmed_is_counted() {
        let (client, server) = connection();
        assert_eq!(undelivered(&server).unwrap(), 0);
        server.set_nonblocking(true).unwrap();
        let socket = SockRef::from(&server);
        while socket.send(&[0; 4096]).is_ok() {}
        assert!(undelivered(&server).unwrap() > 0);
        drop(client);
    }
}
