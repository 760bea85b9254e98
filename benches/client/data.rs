//! Data connections: how they come about.

use std::io;
use std::net::{IpAddr, SocketAddr, TcpListener, TcpStream};
use std::time::Duration;

use socket2::{Domain, SockRef, Socket, Type};

use super::control::{Control, shown};
use super::reply;
use super::{Doing, Error, Result};

/// Who connects to whom, and by which command.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Via {
    Epsv,
    Pasv,
    Port,
    Eprt,
}

impl Via {
    pub(crate) const ALL: [Self; 4] = [Self::Epsv, Self::Pasv, Self::Port, Self::Eprt];

    pub(crate) const fn name(self) -> &'static str {
        match self {
            Self::Epsv => "epsv",
            Self::Pasv => "pasv",
            Self::Port => "port",
            Self::Eprt => "eprt",
        }
    }

    pub(crate) const fn is_passive(self) -> bool {
        matches!(self, Self::Epsv | Self::Pasv)
    }

    /// The line that asks for a passive data connection.
    pub(crate) const fn passive_line(self) -> &'static [u8] {
        match self {
            Self::Pasv => b"PASV\r\n",
            _ => b"EPSV\r\n",
        }
    }

    /// The line that tells where the client listens.
    pub(crate) fn active_line(self, address: SocketAddr) -> Result<String> {
        let (ip, port) = (address.ip(), address.port());
        match (self, ip) {
            (Self::Port, IpAddr::V4(ip)) => {
                let [a, b, c, d] = ip.octets();
                let [high, low] = port.to_be_bytes();
                Ok(format!("PORT {a},{b},{c},{d},{high},{low}\r\n"))
            }
            (Self::Port, IpAddr::V6(_)) => Err(Error::new("PORT: there is only IPv4 in it")),
            (_, IpAddr::V4(_)) => Ok(format!("EPRT |1|{ip}|{port}|\r\n")),
            (_, IpAddr::V6(_)) => Ok(format!("EPRT |2|{ip}|{port}|\r\n")),
        }
    }
}

/// One side of a data connection that is about to be used.
#[derive(Debug)]
pub(crate) enum Data {
    Connected(TcpStream),
    Listening(TcpListener),
}

/// What to ask of the sockets of data connections.
#[derive(Clone, Copy, Debug)]
pub(crate) struct DataOptions {
    pub(crate) deadline: Duration,
    /// SO_RCVBUF, if it is not the kernel's.
    pub(crate) receive_buffer: Option<usize>,
}

/// Asks for a passive data connection, whose request has been sent already, and connects. Returns
/// how often the server had none (425).
pub(crate) fn passive(
    control: &mut Control,
    via: Via,
    options: DataOptions,
) -> Result<(TcpStream, u64)> {
    let line = via.passive_line();
    let server = control.peer()?.ip();
    let mut refused = 0;
    loop {
        let reply = control.reply(line)?;
        let address = match (via, reply.code) {
            (Via::Epsv, 229) => reply::epsv_port(reply.text).map(|port| (server, port).into()),
            (Via::Pasv, 227) => reply::pasv_address(reply.text)
                .map(|(ip, port)| SocketAddr::new(ip.into(), port))
                .filter(|address| address.ip() == server),
            (_, 425) if refused < REFUSALS_MAX => {
                refused += 1;
                control.send(line)?;
                continue;
            }
            _ => return Err(reply.unexpected(line)),
        };
        let address = address.ok_or_else(|| reply.unexpected(line))?;
        return Ok((connect(address, options)?, refused));
    }
}

fn connect(address: SocketAddr, options: DataOptions) -> Result<TcpStream> {
    let doing = "data connection";
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).doing(doing)?;
    if let Some(bytes) = options.receive_buffer {
        // Before connecting: by this the window scale is chosen (tcp(7)).
        socket.set_recv_buffer_size(bytes).doing("SO_RCVBUF")?;
    }
    with_deadlines(&socket, options.deadline)?;
    socket.connect(&address.into()).doing(doing)?;
    Ok(socket.into())
}

/// Ports to listen on, one after the other: the kernel's own choice would give one again so soon
/// that the server's last connection to it, from its fixed port 20, is not forgotten yet.
#[derive(Debug)]
pub(crate) struct Ports {
    next: u16,
}

impl Ports {
    /// Begins where other processes are not likely to be.
    pub(crate) fn new() -> Self {
        let place = std::process::id().wrapping_mul(7919) % u32::from(LAST_PORT - FIRST_PORT);
        Self {
            next: FIRST_PORT + place as u16,
        }
    }

    pub(crate) fn listen(&mut self, ip: IpAddr, options: DataOptions) -> Result<TcpListener> {
        for _ in FIRST_PORT..LAST_PORT {
            let port = self.next;
            self.next = match port {
                LAST_PORT => FIRST_PORT,
                port => port + 1,
            };
            match TcpListener::bind((ip, port)) {
                // The accepted socket has the same options.
                Ok(listener) => {
                    let socket = SockRef::from(&listener);
                    if let Some(bytes) = options.receive_buffer {
                        socket.set_recv_buffer_size(bytes).doing("SO_RCVBUF")?;
                    }
                    with_deadlines(&socket, options.deadline)?;
                    return Ok(listener);
                }
                Err(error) if error.kind() == io::ErrorKind::AddrInUse => {}
                Err(error) => return Err(error).doing("listening"),
            }
        }
        Err(Error::new("no port to listen on is free"))
    }
}

impl Data {
    /// The connection; the server makes it in active mode when it has said that it does.
    pub(crate) fn stream(self, server: IpAddr) -> Result<TcpStream> {
        match self {
            Self::Connected(stream) => Ok(stream),
            Self::Listening(listener) => {
                // SO_RCVTIMEO holds for accept(2) as well (socket(7)).
                let (stream, peer) = listener.accept().doing("active data connection")?;
                match peer.ip() == server {
                    true => Ok(stream),
                    false => Err(Error::new(format!("a data connection from {peer}"))),
                }
            }
        }
    }
}

fn with_deadlines(socket: &Socket, deadline: Duration) -> Result<()> {
    socket
        .set_read_timeout(Some(deadline))
        .doing("SO_RCVTIMEO")?;
    socket
        .set_write_timeout(Some(deadline))
        .doing("SO_SNDTIMEO")
}

/// The server's reply, if there is one, to explain why a transfer was not what it should have been.
pub(crate) fn wrong_count(control: &mut Control, line: &[u8], found: u64, expected: u64) -> Error {
    let said = match control.reply(line) {
        Ok(reply) => shown(reply.text),
        Err(error) => error.to_string(),
    };
    let line = shown(line);
    Error::new(format!("{line}: {found} bytes, not {expected}: {said}"))
}

/// Whose ports the kernel gives to outgoing connections by default, so no server listens there.
const FIRST_PORT: u16 = 32_768;
const LAST_PORT: u16 = 60_999;

/// So often a server may say that it has no passive port, in a row.
const REFUSALS_MAX: u64 = 4;
