//! TCP sockets: making them, their options, and the calls that never wait.
//!
//! Every socket made here is non-blocking and close-on-exec. IPv6 listeners are IPv6 only
//! (RFC 3493 §5.3), so that an address means the same on every host and the family of a control
//! connection is the family the client sees.

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::fd::{AsFd, AsRawFd, BorrowedFd, FromRawFd, OwnedFd};
use std::time::Duration;

use socket2::{Domain, Protocol, SockAddr, SockRef, Socket, Type};

use super::{check, check_count};

pub use std::net::Shutdown;

/// How a listening socket is made.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ListenOptions {
    /// Lets several sockets listen on the address; the kernel spreads connections among them by
    /// hash (SO_REUSEPORT, socket(7)). All of them must belong to one user.
    pub reuse_port: bool,
    /// Connections the kernel keeps complete but not accepted; capped by `net.core.somaxconn`.
    pub backlog: u32,
}

/// Binds and listens. Accepted connections send small segments at once (TCP_NODELAY), and leave
/// urgent data in the stream, where RFC 854's Synch needs its Data Mark (SO_OOBINLINE): on Linux
/// they inherit both from the listener, which saves two calls for each of them.
///
/// # Errors
/// Those of bind(2) and listen(2): the address is in use, not local, or its port privileged.
pub fn listen(address: SocketAddr, options: &ListenOptions) -> io::Result<OwnedFd> {
    let socket = tcp_socket(address)?;
    if address.is_ipv6() {
        socket.set_only_v6(true)?;
    }
    // A restart must not wait for TIME_WAIT of old connections on this port (socket(7)).
    socket.set_reuse_address(true)?;
    if options.reuse_port {
        socket.set_reuse_port(true)?;
    }
    set_no_delay(&socket)?;
    socket.set_out_of_band_inline(true)?;
    socket.bind(&address.into())?;
    socket.listen(i32::try_from(options.backlog).unwrap_or(i32::MAX))?;
    Ok(socket.into())
}

/// Whether this process may bind `address` for an outgoing connection (port 0 is always free).
pub fn can_bind(address: SocketAddr) -> bool {
    tcp_socket(address).is_ok_and(|socket| {
        socket.set_reuse_address(true).is_ok()
            && socket.set_reuse_port(true).is_ok()
            && socket.bind(&address.into()).is_ok()
    })
}

/// Takes one complete connection from a listener's queue: accept4(2).
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when the queue is empty; otherwise as accept(2).
pub fn accept(listener: &impl AsFd) -> io::Result<(OwnedFd, SocketAddr)> {
    let listener = listener.as_fd().as_raw_fd();
    // SAFETY: try_init passes storage of the size it says; accept4 writes an address of at most
    // that size there and its true length to `length`.
    let (socket, address) = unsafe {
        SockAddr::try_init(|storage, length| {
            let flags = libc::SOCK_NONBLOCK | libc::SOCK_CLOEXEC;
            let raw = check(libc::accept4(listener, storage.cast(), length, flags))?;
            // accept4 returned a new descriptor, which nobody else owns.
            Ok(OwnedFd::from_raw_fd(raw))
        })?
    };
    Ok((socket, internet_address(&address)?))
}

/// Starts to connect to `target`, from `source` if given (port 0: any).
///
/// The connection stands when the socket has become writable and [`take_error`] finds nothing.
/// The source port may be shared with other connections (port 20 of RFC 959 §3.2 is): SO_REUSEADDR
/// allows it beside those in TIME_WAIT, SO_REUSEPORT beside living ones, as long as the four-tuple
/// is new.
///
/// # Errors
/// Those of bind(2) and connect(2), except that the connection is under way.
pub fn connect(target: SocketAddr, source: Option<SocketAddr>) -> io::Result<OwnedFd> {
    let socket = tcp_socket(target)?;
    if let Some(source) = source {
        if source.port() == 0 {
            // ip(7): the port is chosen at connect, by the four-tuple, so that ports do not run out.
            set_bind_address_no_port(&socket)?;
        } else {
            socket.set_reuse_address(true)?;
            socket.set_reuse_port(true)?;
        }
        socket.bind(&source.into())?;
    }
    // Without it the last segment waits for the acknowledgement of the one before (Nagle), and that
    // one for the peer's delayed acknowledgement: 40 ms for each small file.
    set_no_delay(&socket)?;
    match socket.connect(&target.into()) {
        Ok(()) => Ok(socket.into()),
        Err(error) if error.raw_os_error() == Some(libc::EINPROGRESS) => Ok(socket.into()),
        Err(error) => Err(error),
    }
}

/// Takes the error that is pending on a socket (SO_ERROR), such as the outcome of a connect.
///
/// # Errors
/// The pending error.
pub fn take_error(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).take_error()?.map_or(Ok(()), Err)
}

/// Sends small segments at once (TCP_NODELAY): a reply must not wait for the peer's delayed
/// acknowledgement.
///
/// # Errors
/// As setsockopt(2).
fn set_no_delay(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_tcp_nodelay(true)
}

/// The address of this side.
///
/// # Errors
/// As getsockname(2).
pub fn local_address(socket: &impl AsFd) -> io::Result<SocketAddr> {
    internet_address(&SockRef::from(socket).local_addr()?)
}

/// Closes one or both directions of a connection; the descriptor stays.
///
/// # Errors
/// ENOTCONN when the connection is already gone.
pub fn shutdown(socket: &impl AsFd, how: Shutdown) -> io::Result<()> {
    SockRef::from(socket).shutdown(how)
}

/// Makes the last close of this socket send a reset and drop unsent data (SO_LINGER 0).
///
/// # Errors
/// As setsockopt(2).
pub fn reset_on_close(socket: &impl AsFd) -> io::Result<()> {
    SockRef::from(socket).set_linger(Some(Duration::ZERO))
}

/// Resets the connection and closes its descriptor.
pub fn reset(socket: OwnedFd) {
    // Failing to set the option leaves an orderly close, which is all that can be done then.
    let _ = reset_on_close(&socket);
}

/// Whether the other side has closed its direction, also if bytes from before are still unread
/// (POLLRDHUP, poll(2)).
pub fn peer_has_closed(socket: &impl AsFd) -> bool {
    let mut poll = libc::pollfd {
        fd: socket.as_fd().as_raw_fd(),
        events: libc::POLLRDHUP,
        revents: 0,
    };
    // SAFETY: one pollfd, which outlives the call; a timeout of 0 does not wait.
    unsafe { libc::poll(&raw mut poll, 1, 0) == 1 }
}

/// Whether a connection is of no more use: reset, or closed by the other side with nothing unread.
pub fn is_spent(socket: &impl AsFd) -> bool {
    let mut byte = 0u8;
    // SAFETY: one byte, which outlives the call.
    let peeked = unsafe {
        libc::recv(
            socket.as_fd().as_raw_fd(),
            (&raw mut byte).cast(),
            1,
            libc::MSG_PEEK | libc::MSG_DONTWAIT,
        )
    };
    match peeked {
        1.. => false,
        0 => true,
        _ => io::Error::last_os_error().kind() != io::ErrorKind::WouldBlock,
    }
}

/// Resets the connection and keeps the descriptor: every wait on it ends with an error, and the
/// peer cannot take what has come so far for the whole, as it could after a [`shutdown`].
///
/// # Errors
/// As connect(2), whose address family AF_UNSPEC dissolves the association.
pub fn disconnect(socket: &impl AsFd) -> io::Result<()> {
    // SAFETY: an all-zero sockaddr is a valid value.
    let mut nowhere: libc::sockaddr = unsafe { std::mem::zeroed() };
    nowhere.sa_family = libc::AF_UNSPEC as libc::sa_family_t;
    let length = size_of::<libc::sockaddr>() as libc::socklen_t;
    // SAFETY: the kernel reads an address of the length given.
    check(unsafe { libc::connect(socket.as_fd().as_raw_fd(), &raw const nowhere, length) })
        .map(drop)
}

/// Another descriptor of the same socket, close-on-exec.
///
/// # Errors
/// EMFILE: no descriptor is left.
pub fn duplicate(socket: &impl AsFd) -> io::Result<OwnedFd> {
    socket.as_fd().try_clone_to_owned()
}

/// Gives each connection that comes to a group of listeners (SO_REUSEPORT) to the one whose CPU
/// received it from the network: `cpus` are those of the listeners, in the order in which these began
/// to listen. Connections that other CPUs received are spread by CPU number. `member` is any of the
/// group (socket(7), SO_ATTACH_REUSEPORT_CBPF).
///
/// # Errors
/// As setsockopt(2).
pub fn steer_by_cpu(member: &impl AsFd, cpus: &[usize]) -> io::Result<()> {
    // SKF_AD_OFF + SKF_AD_CPU (linux/filter.h): the CPU that runs the filter.
    const CPU: u32 = (-0x1000_i32 + 36).cast_unsigned();
    let statement = |code: u32, k: u32| libc::sock_filter {
        code: code as u16,
        jt: 0,
        jf: 0,
        k,
    };
    let mut filter = vec![statement(libc::BPF_LD | libc::BPF_W | libc::BPF_ABS, CPU)];
    for (index, cpu) in cpus.iter().enumerate() {
        filter.push(libc::sock_filter {
            jf: 1,
            ..statement(libc::BPF_JMP | libc::BPF_JEQ | libc::BPF_K, *cpu as u32)
        });
        filter.push(statement(libc::BPF_RET | libc::BPF_K, index as u32));
    }
    filter.push(statement(
        libc::BPF_ALU | libc::BPF_MOD | libc::BPF_K,
        cpus.len().max(1) as u32,
    ));
    filter.push(statement(libc::BPF_RET | libc::BPF_A, 0));
    let program = libc::sock_fprog {
        len: u16::try_from(filter.len())
            .map_err(|_| io::Error::from(io::ErrorKind::InvalidInput))?,
        filter: filter.as_mut_ptr(),
    };
    let length = size_of_val(&program) as libc::socklen_t;
    // SAFETY: the kernel copies the program, whose length is that of the vector behind it.
    let result = unsafe {
        libc::setsockopt(
            member.as_fd().as_raw_fd(),
            libc::SOL_SOCKET,
            libc::SO_ATTACH_REUSEPORT_CBPF,
            (&raw const program).cast(),
            length,
        )
    };
    check(result).map(drop)
}

/// Looks at what is there without taking it. 0 is the end of the stream.
///
/// # Errors
/// As [`receive`].
pub fn peek(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    receive_flagged(socket.as_fd(), buffer, libc::MSG_PEEK)
}

/// Receives what is there, without waiting. 0 is the end of the stream.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when nothing is there; otherwise as recv(2).
pub fn receive(socket: &impl AsFd, buffer: &mut [u8]) -> io::Result<usize> {
    receive_flagged(socket.as_fd(), buffer, 0)
}

fn receive_flagged(
    socket: BorrowedFd<'_>,
    buffer: &mut [u8],
    flags: libc::c_int,
) -> io::Result<usize> {
    retry(|| {
        // SAFETY: the kernel writes at most `len` bytes to the buffer, which is borrowed mutably.
        let result = unsafe {
            libc::recv(
                socket.as_raw_fd(),
                buffer.as_mut_ptr().cast(),
                buffer.len(),
                libc::MSG_DONTWAIT | flags,
            )
        };
        check_count(result)
    })
}

/// As [`receive`], at most `count` bytes, behind what `buffer` holds and up to its capacity, which must
/// leave room.
///
/// # Errors
/// As [`receive`].
pub fn receive_behind(socket: &impl AsFd, buffer: &mut Vec<u8>, count: usize) -> io::Result<usize> {
    let socket = socket.as_fd().as_raw_fd();
    let room = buffer.spare_capacity_mut();
    let count = room.len().min(count);
    assert!(count > 0, "no room receives nothing");
    let received = retry(|| {
        // SAFETY: the kernel writes at most `count` bytes to the room behind the vector's contents.
        let result =
            unsafe { libc::recv(socket, room.as_mut_ptr().cast(), count, libc::MSG_DONTWAIT) };
        check_count(result)
    })?;
    // SAFETY: the kernel has written `received` bytes behind the contents, within the capacity.
    unsafe { buffer.set_len(buffer.len() + received) };
    Ok(received)
}

/// Throws away what has come, at most `length` bytes, without waiting; 0: the end (tcp(7): MSG_TRUNC).
///
/// # Errors
/// As [`receive`].
pub fn discard(socket: &impl AsFd, length: usize) -> io::Result<usize> {
    let socket = socket.as_fd().as_raw_fd();
    let flags = libc::MSG_DONTWAIT | libc::MSG_TRUNC;
    retry(|| {
        // SAFETY: with MSG_TRUNC a TCP socket writes nothing to the buffer, and takes none.
        check_count(unsafe { libc::recv(socket, std::ptr::null_mut(), length, flags) })
    })
}

/// Sends as much as fits into the socket's buffer, without waiting and without SIGPIPE.
///
/// # Errors
/// [`io::ErrorKind::WouldBlock`] when nothing fits; otherwise as send(2).
pub fn send(socket: &impl AsFd, bytes: &[u8]) -> io::Result<usize> {
    let socket = socket.as_fd().as_raw_fd();
    let flags = libc::MSG_DONTWAIT | libc::MSG_NOSIGNAL;
    retry(|| {
        // SAFETY: the kernel reads at most `len` bytes of the borrowed slice.
        let result = unsafe { libc::send(socket, bytes.as_ptr().cast(), bytes.len(), flags) };
        check_count(result)
    })
}

/// An IPv4 address that came mapped into IPv6 (a dual-stack listener handed in from outside) in its
/// own form, so that addresses compare equal when they are.
fn internet_address(address: &SockAddr) -> io::Result<SocketAddr> {
    let address = address.as_socket().ok_or_else(not_internet)?;
    Ok(match address.ip() {
        IpAddr::V6(ip) => match ip.to_ipv4_mapped() {
            Some(ip) => SocketAddr::new(IpAddr::V4(ip), address.port()),
            None => address,
        },
        IpAddr::V4(_) => address,
    })
}

fn not_internet() -> io::Error {
    io::Error::new(io::ErrorKind::InvalidInput, "not an internet socket")
}

fn tcp_socket(address: SocketAddr) -> io::Result<Socket> {
    let kind = Type::STREAM.nonblocking().cloexec();
    Socket::new_raw(Domain::for_address(address), kind, Some(Protocol::TCP))
}

fn set_bind_address_no_port(socket: &Socket) -> io::Result<()> {
    let on: libc::c_int = 1;
    let length = size_of_val(&on) as libc::socklen_t;
    // SAFETY: the option's value is the int behind the pointer, of the length given.
    let result = unsafe {
        libc::setsockopt(
            socket.as_raw_fd(),
            libc::IPPROTO_IP,
            libc::IP_BIND_ADDRESS_NO_PORT,
            (&raw const on).cast(),
            length,
        )
    };
    check(result).map(drop)
}

/// Repeats a call that a signal interrupted. Signals are blocked on all threads of the server, so
/// this ends.
fn retry<T>(mut call: impl FnMut() -> io::Result<T>) -> io::Result<T> {
    loop {
        match call() {
            Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
            result => return result,
        }
    }
}

#[cfg(test)]
mod tests {
    use std::io::{Read, Write};
    use std::net::{Ipv4Addr, Ipv6Addr, TcpStream};

    use super::*;

    const OPTIONS: ListenOptions = ListenOptions {
        reuse_port: false,
        backlog: 16,
    };

    fn localhost() -> SocketAddr {
        SocketAddr::from((Ipv4Addr::LOCALHOST, 0))
    }

    /// A connection: the client's end, and the server's as [`accept`] made it.
    fn connection() -> (TcpStream, OwnedFd) {
        let listener = listen(localhost(), &OPTIONS).unwrap();
        let client = TcpStream::connect(local_address(&listener).unwrap()).unwrap();
        (client, wait_accept(&listener).0)
    }

    /// poll(2), because there is no ring here.
    fn wait(fd: &impl AsFd, events: libc::c_short) {
        let mut poll = libc::pollfd {
            fd: fd.as_fd().as_raw_fd(),
            events,
            revents: 0,
        };
        // SAFETY: one pollfd, which outlives the call.
        assert_eq!(unsafe { libc::poll(&raw mut poll, 1, 10_000) }, 1);
    }

    fn wait_accept(listener: &OwnedFd) -> (OwnedFd, SocketAddr) {
        wait(listener, libc::POLLIN);
        accept(listener).unwrap()
    }

    fn descriptor_flags(fd: &OwnedFd) -> (i32, i32) {
        // SAFETY: both commands take no argument.
        unsafe {
            let raw = fd.as_raw_fd();
            (
                libc::fcntl(raw, libc::F_GETFD),
                libc::fcntl(raw, libc::F_GETFL),
            )
        }
    }

    #[test]
    fn sockets_are_nonblocking_and_close_on_exec() {
        let listener = listen(localhost(), &OPTIONS).unwrap();
        let error = accept(&listener).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
        let outgoing = connect(local_address(&listener).unwrap(), None).unwrap();
        let (accepted, _) = wait_accept(&listener);
        for socket in [&listener, &outgoing, &accepted] {
            let (descriptor, status) = descriptor_flags(socket);
            assert_ne!(descriptor & libc::FD_CLOEXEC, 0);
            assert_ne!(status & libc::O_NONBLOCK, 0);
        }
        let error = receive(&accepted, &mut [0; 8]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn addresses_are_those_of_the_two_ends() {
        let listener = listen(localhost(), &OPTIONS).unwrap();
        let client = TcpStream::connect(local_address(&listener).unwrap()).unwrap();
        let (server, peer) = wait_accept(&listener);
        assert_eq!(peer, client.local_addr().unwrap());
        assert_eq!(
            internet_address(&SockRef::from(&server).peer_addr().unwrap()).unwrap(),
            peer
        );
        assert_eq!(local_address(&server).unwrap(), client.peer_addr().unwrap());
    }

    #[test]
    fn mapped_addresses_are_ipv4_addresses() {
        let mapped: SocketAddr = "[::ffff:192.0.2.1]:21".parse().unwrap();
        let plain: SocketAddr = "192.0.2.1:21".parse().unwrap();
        let other: SocketAddr = "[2001:db8::1]:21".parse().unwrap();
        for (address, expected) in [(mapped, plain), (plain, plain), (other, other)] {
            assert_eq!(internet_address(&address.into()).unwrap(), expected);
        }
        let (one, _other) = std::os::unix::net::UnixStream::pair().unwrap();
        assert!(local_address(&one).is_err());
    }

    #[test]
    fn both_families_listen_on_one_port() {
        let Ok(six) = listen(SocketAddr::from((Ipv6Addr::LOCALHOST, 0)), &OPTIONS) else {
            return; // No IPv6 here.
        };
        let only_v6 = SockRef::from(&six).only_v6().unwrap();
        assert!(only_v6);
    }

    #[test]
    fn a_port_is_shared_only_when_asked_to() {
        let shared = ListenOptions {
            reuse_port: true,
            ..OPTIONS
        };
        let one = listen(localhost(), &shared).unwrap();
        let address = local_address(&one).unwrap();
        let other = listen(address, &shared).unwrap();
        assert_eq!(local_address(&other).unwrap(), address);
        let error = listen(address, &OPTIONS).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::AddrInUse);
    }

    #[test]
    fn one_source_port_serves_many_connections() {
        // RFC 959 §3.2: data connections come from one port of the server, L-1.
        let [one, other] = [(); 2].map(|()| listen(localhost(), &OPTIONS).unwrap());
        let reserved = listen(localhost(), &OPTIONS).unwrap();
        let source = local_address(&reserved).unwrap();
        drop(reserved);
        let mut sockets = Vec::new();
        for listener in [&one, &other] {
            let socket = connect(local_address(listener).unwrap(), Some(source)).unwrap();
            assert_eq!(wait_accept(listener).1, source);
            wait(&socket, libc::POLLOUT);
            take_error(&socket).unwrap();
            sockets.push(socket);
        }
        let any = SocketAddr::new(source.ip(), 0);
        let socket = connect(local_address(&one).unwrap(), Some(any)).unwrap();
        let (_, peer) = wait_accept(&one);
        assert_eq!(local_address(&socket).unwrap(), peer);
    }

    #[test]
    fn a_refused_connect_is_a_pending_error() {
        let gone = local_address(&listen(localhost(), &OPTIONS).unwrap()).unwrap();
        match connect(gone, None) {
            Ok(socket) => {
                wait(&socket, libc::POLLOUT);
                let error = take_error(&socket).unwrap_err();
                assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
                // Taken is taken.
                take_error(&socket).unwrap();
            }
            Err(error) => assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused),
        }
    }

    #[test]
    fn options_are_set() {
        let (_client, server) = connection();
        let socket = SockRef::from(&server);
        assert!(socket.tcp_nodelay().unwrap());
        assert!(socket.out_of_band_inline().unwrap());
    }

    #[test]
    fn urgent_data_stays_in_the_stream() {
        // RFC 854: the Data Mark of a Synch is sent urgent; it must not be missing from the stream.
        let (client, server) = connection();
        SockRef::from(&client).send(b"\xff\xf4").unwrap();
        SockRef::from(&client).send_out_of_band(b"\xf2").unwrap();
        (&client).write_all(b"ABOR\r\n").unwrap();
        let mut received = Vec::new();
        let mut buffer = [0; 64];
        while received.len() < 9 {
            wait(&server, libc::POLLIN);
            let count = receive(&server, &mut buffer).unwrap();
            received.extend_from_slice(&buffer[..count]);
        }
        assert_eq!(received, b"\xff\xf4\xf2ABOR\r\n");
    }

    #[test]
    fn an_end_and_a_reset_are_told_apart() {
        let (mut client, server) = connection();
        assert_eq!(send(&server, b"226").unwrap(), 3);
        shutdown(&server, Shutdown::Write).unwrap();
        let mut received = Vec::new();
        client.read_to_end(&mut received).unwrap();
        assert_eq!(received, b"226");
        let error = send(&server, b"x").unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::BrokenPipe);

        let (mut client, server) = connection();
        reset(server);
        let error = client.read(&mut [0]).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
    }

    #[test]
    fn a_full_socket_says_so() {
        let (_client, server) = connection();
        let block = vec![0; 1 << 20];
        let error = loop {
            if let Err(error) = send(&server, &block) {
                break error;
            }
        };
        assert_eq!(error.kind(), io::ErrorKind::WouldBlock);
    }

    #[test]
    fn a_disconnected_socket_is_reset_though_all_was_sent() {
        let (mut client, server) = connection();
        assert_eq!(send(&server, b"part").unwrap(), 4);
        let mut part = [0; 4];
        client.read_exact(&mut part).unwrap();
        disconnect(&server).unwrap();
        let error = client.read(&mut part).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::ConnectionReset);
        assert!(receive(&server, &mut part).is_err());
        assert!(send(&server, b"more").is_err());
    }

    #[test]
    fn a_closed_peer_and_a_spent_connection_are_told_apart() {
        let (mut client, server) = connection();
        assert!(!peer_has_closed(&server) && !is_spent(&server));
        client.write_all(b"x").unwrap();
        drop(client);
        wait(&server, libc::POLLRDHUP);
        assert!(peer_has_closed(&server));
        assert!(!is_spent(&server), "a byte is still to be read");
        receive(&server, &mut [0]).unwrap();
        assert!(is_spent(&server));
    }
}
