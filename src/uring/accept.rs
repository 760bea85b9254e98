//! Connections that come in and go out.

use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;

use super::{Fd, readable, writable};
use crate::sys::socket;

/// Waits for a connection and accepts it. The socket is non-blocking and close-on-exec.
///
/// A wait followed by accept4(2), not IORING_OP_ACCEPT: between the two nothing is awaited, so a
/// dropped future has either accepted nothing or never existed. It also costs less CPU for one
/// connection at a time.
///
/// # Errors
/// Those of accept(2) that concern this process, such as EMFILE; the connection stays queued then.
/// Errors of a single connection, which accept(2) passes on too, only end that connection.
pub async fn accept(listener: &Fd) -> io::Result<(OwnedFd, SocketAddr)> {
    loop {
        readable(listener).await?;
        match socket::accept(listener) {
            Err(error) if concerns_one_connection(&error) => {}
            result => return result,
        }
    }
}

/// Connects to `target`, from `source` if given (port 0: any). Dropping gives the attempt up.
///
/// # Errors
/// As connect(2) and bind(2).
pub async fn connect(target: SocketAddr, source: Option<SocketAddr>) -> io::Result<OwnedFd> {
    let fd = Fd::new(socket::connect(target, source)?);
    writable(&fd).await?;
    socket::take_error(&fd)?;
    // The completed wait has given its share back.
    Fd::try_unwrap(fd).map_err(|_| io::Error::other("the socket is still in use"))
}

/// accept(2): "treat them like EAGAIN by retrying"; and EAGAIN itself, when the connection was
/// reset before it was taken, or taken by somebody else.
fn concerns_one_connection(error: &io::Error) -> bool {
    matches!(
        error.raw_os_error(),
        Some(
            libc::EAGAIN
                | libc::ECONNABORTED
                | libc::EINTR
                | libc::ENETDOWN
                | libc::EPROTO
                | libc::ENOPROTOOPT
                | libc::EHOSTDOWN
                | libc::ENONET
                | libc::EHOSTUNREACH
                | libc::EOPNOTSUPP
                | libc::ENETUNREACH
        )
    )
}

#[cfg(test)]
mod tests {
    use std::future::Future;
    use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, TcpStream};

    use super::super::tests::{descriptors, expect_descriptors, expect_pending, on_ring};
    use super::super::{pause, spawn};
    use super::*;
    use crate::sys::socket::ListenOptions;

    fn listener() -> (Fd, SocketAddr) {
        let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
        let options = ListenOptions {
            reuse_port: false,
            backlog: 64,
        };
        let listener = socket::listen(any, &options).unwrap();
        let address = socket::local_address(&listener).unwrap();
        (Fd::new(listener), address)
    }

    #[test]
    fn a_dropped_accept_leaks_nothing_and_swallows_no_client() {
        on_ring(|| async {
            let before = descriptors();
            let (listener, address) = listener();
            for round in 0..50 {
                let mut dropped = Box::pin(accept(&listener));
                expect_pending(&mut dropped);
                if round % 2 == 0 {
                    pause().await;
                }
                // The client comes before the wait is withdrawn, or after.
                let early = (round % 3 == 0).then(|| TcpStream::connect(address).unwrap());
                drop(dropped);
                if round % 5 == 0 {
                    pause().await;
                }
                let client = early.unwrap_or_else(|| TcpStream::connect(address).unwrap());
                let (server, peer) = accept(&listener).await.unwrap();
                assert_eq!(peer, client.local_addr().unwrap());
                let server = TcpStream::from(server);
                assert_eq!(server.peer_addr().unwrap(), peer);
            }
            let mut dropped = Box::pin(accept(&listener));
            expect_pending(&mut dropped);
            pause().await;
            drop(dropped);
            drop(listener);
            expect_descriptors(before).await;
            // Nothing keeps the port open.
            let error = TcpStream::connect(address).unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        });
    }

    #[test]
    fn every_queued_client_is_accepted() {
        on_ring(|| async {
            let (listener, address) = listener();
            let clients: Vec<_> = (0..20)
                .map(|_| TcpStream::connect(address).unwrap())
                .collect();
            let mut peers = Vec::new();
            for _ in &clients {
                peers.push(accept(&listener).await.unwrap().1);
            }
            for client in clients {
                assert!(peers.contains(&client.local_addr().unwrap()));
            }
        });
    }

    #[test]
    fn a_connection_reaches_its_listener_over_both_families() {
        on_ring(|| async {
            for ip in [
                IpAddr::from(Ipv4Addr::LOCALHOST),
                Ipv6Addr::LOCALHOST.into(),
            ] {
                let options = ListenOptions {
                    reuse_port: true,
                    backlog: 1,
                };
                let Ok(listener) = socket::listen(SocketAddr::new(ip, 0), &options) else {
                    assert!(ip.is_ipv6(), "no IPv4 here");
                    continue;
                };
                let target = socket::local_address(&listener).unwrap();
                let listener = Fd::new(listener);
                let accepted = spawn(async move { accept(&listener).await });
                let source = SocketAddr::new(ip, 0);
                let socket = connect(target, Some(source)).await.unwrap();
                let (_, peer) = accepted.await.unwrap().unwrap();
                assert_eq!(socket::local_address(&socket).unwrap(), peer);
            }
        });
    }

    #[test]
    fn a_refused_connection_is_an_error() {
        on_ring(|| async {
            let (gone, target) = listener();
            drop(gone);
            let error = connect(target, None).await.unwrap_err();
            assert_eq!(error.kind(), io::ErrorKind::ConnectionRefused);
        });
    }

    #[test]
    fn a_dropped_connect_is_given_up() {
        on_ring(|| async {
            let before = descriptors();
            let (listener, target) = listener();
            for _ in 0..20 {
                // Polled once at most: it may already be complete.
                let mut dropped = Box::pin(connect(target, None));
                let _ = std::future::poll_fn(|context| {
                    std::task::Poll::Ready(dropped.as_mut().poll(context).is_ready())
                })
                .await;
                pause().await;
            }
            drop(listener);
            expect_descriptors(before).await;
        });
    }
}
