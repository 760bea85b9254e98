//! A client that says exactly what it is told to, and checks the form of every reply.

use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Shutdown, SocketAddr, TcpListener, TcpStream};

use socket2::{Domain, SockRef, Socket, Type};

use super::{DEADLINE, PASSWORD};

/// A control connection.
pub(crate) struct Client {
    stream: TcpStream,
    received: Vec<u8>,
}

/// One reply (RFC 959 §4.2).
#[derive(Clone, Debug, Eq, PartialEq)]
pub(crate) struct Reply {
    pub(crate) code: u16,
    /// Without line ends; the code stands in the first and the last.
    pub(crate) lines: Vec<Vec<u8>>,
}

impl Reply {
    /// All lines, to be looked at by people.
    pub(crate) fn text(&self) -> String {
        let lines = self.lines.iter().map(|line| String::from_utf8_lossy(line));
        lines.collect::<Vec<_>>().join("\n")
    }

    /// What follows the code in the only line.
    #[track_caller]
    pub(crate) fn argument(&self) -> &[u8] {
        let [line] = &self.lines[..] else {
            panic!("more than one line: {}", self.text());
        };
        &line[4..]
    }

    /// The lines between the first and the last.
    pub(crate) fn body(&self) -> &[Vec<u8>] {
        &self.lines[1..self.lines.len() - 1]
    }
}

/// How a data connection comes about.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Way {
    Pasv,
    Epsv,
    Port,
    Eprt,
}

impl Way {
    pub(crate) const ALL: [Self; 4] = [Self::Pasv, Self::Epsv, Self::Port, Self::Eprt];
}

/// The client's side of a data connection that is about to be used.
#[derive(Debug)]
pub(crate) enum Data {
    Connected(TcpStream),
    Listening(TcpListener),
}

impl Data {
    /// The connection; in active mode it is there when the reply 150 is.
    #[track_caller]
    pub(crate) fn stream(self) -> TcpStream {
        let stream = match self {
            Self::Connected(stream) => stream,
            // SO_RCVTIMEO holds for accept(2) as well (socket(7)).
            Self::Listening(listener) => listener.accept().expect("the server connects").0,
        };
        with_deadlines(stream)
    }
}

impl Client {
    /// Connects and reads the greeting.
    #[track_caller]
    pub(crate) fn connect(address: SocketAddr) -> Self {
        let mut client = Self::over(TcpStream::connect(address).expect("a control connection"));
        client.reply(220);
        client
    }

    /// The same from an address of this host's choice, as if it were another one.
    #[track_caller]
    pub(crate) fn connect_from(source: IpAddr, address: SocketAddr) -> Self {
        let mut client = Self::over(connect_from(source, address).expect("a control connection"));
        client.reply(220);
        client
    }

    /// Logs in as anonymous from an address of this host's choice, and sets TYPE I.
    #[track_caller]
    pub(crate) fn login_from(source: IpAddr, address: SocketAddr) -> Self {
        let mut client = Self::connect_from(source, address);
        client.expect("USER anonymous", 331);
        client.expect("PASS test@example.org", 230);
        client.expect("TYPE I", 200);
        client
    }

    /// A client that has not read anything yet.
    pub(crate) fn over(stream: TcpStream) -> Self {
        // What is written in two parts shall leave in two packets.
        stream.set_nodelay(true).expect("TCP_NODELAY");
        Self {
            stream: with_deadlines(stream),
            received: Vec::new(),
        }
    }

    /// Connects, logs in as anonymous, and sets TYPE I.
    #[track_caller]
    pub(crate) fn login(address: SocketAddr) -> Self {
        let mut client = Self::connect(address);
        client.expect("USER anonymous", 331);
        client.expect("PASS test@example.org", 230);
        client.expect("TYPE I", 200);
        client
    }

    /// Connects, logs in as a user of [`Setup::user`](super::Setup::user), and sets TYPE I.
    #[track_caller]
    pub(crate) fn login_as(address: SocketAddr, user: &str) -> Self {
        let mut client = Self::connect(address);
        client.expect(format!("USER {user}"), 331);
        client.expect(format!("PASS {PASSWORD}"), 230);
        client.expect("TYPE I", 200);
        client
    }

    /// The control connection itself.
    pub(crate) fn stream(&self) -> &TcpStream {
        &self.stream
    }

    /// Sends bytes as they are.
    #[track_caller]
    pub(crate) fn send_bytes(&mut self, bytes: impl AsRef<[u8]>) {
        self.stream
            .write_all(bytes.as_ref())
            .expect("the server reads");
    }

    /// Sends a line.
    #[track_caller]
    pub(crate) fn send(&mut self, line: impl AsRef<[u8]>) {
        self.send_bytes([line.as_ref(), b"\r\n"].concat());
    }

    /// Sends bytes of which the last is urgent (tcp(7), MSG_OOB).
    #[track_caller]
    pub(crate) fn send_urgent(&self, bytes: &[u8]) {
        let sent = SockRef::from(&self.stream).send_out_of_band(bytes);
        assert_eq!(sent.expect("urgent data"), bytes.len());
    }

    /// Sends a line and expects one reply with this code.
    #[track_caller]
    pub(crate) fn expect(&mut self, line: impl AsRef<[u8]>, code: u16) -> Reply {
        self.send(line.as_ref());
        let reply = self.next_reply();
        let shown = String::from_utf8_lossy(line.as_ref());
        assert_eq!(reply.code, code, "{shown}: {}", reply.text());
        reply
    }

    /// Sends a line and takes whatever reply comes.
    #[track_caller]
    pub(crate) fn ask(&mut self, line: impl AsRef<[u8]>) -> Reply {
        self.send(line);
        self.next_reply()
    }

    /// Expects one reply with this code.
    #[track_caller]
    pub(crate) fn reply(&mut self, code: u16) -> Reply {
        let reply = self.next_reply();
        assert_eq!(reply.code, code, "{}", reply.text());
        reply
    }

    /// Expects replies with these codes, in this order.
    #[track_caller]
    pub(crate) fn replies(&mut self, codes: &[u16]) {
        let got: Vec<Reply> = codes.iter().map(|_| self.next_reply()).collect();
        let texts: Vec<String> = got.iter().map(Reply::text).collect();
        let got: Vec<u16> = got.iter().map(|reply| reply.code).collect();
        assert_eq!(got, codes, "{texts:?}");
    }

    /// The next reply.
    #[track_caller]
    pub(crate) fn next_reply(&mut self) -> Reply {
        let first = self
            .next_line()
            .expect("a reply, not the end of the connection");
        let code = code_of(&first).unwrap_or_else(|| panic!("no reply: {}", shown(&first)));
        let multiple = match first.get(3) {
            Some(b' ') => false,
            Some(b'-') => true,
            _ => panic!(
                "neither a space nor a hyphen behind the code: {}",
                shown(&first)
            ),
        };
        let mut lines = vec![first];
        let mut ended = !multiple;
        while !ended {
            let line = self.next_line().expect("the rest of a reply");
            ended = code_of(&line) == Some(code) && line.get(3) == Some(&b' ');
            lines.push(line);
        }
        Reply { code, lines }
    }

    /// The next line without its end; `None` when the server has closed the connection.
    #[track_caller]
    pub(crate) fn next_line(&mut self) -> Option<Vec<u8>> {
        loop {
            if let Some(end) = self.received.iter().position(|&byte| byte == b'\n') {
                let rest = self.received.split_off(end + 1);
                let mut line = std::mem::replace(&mut self.received, rest);
                line.pop();
                assert_eq!(
                    line.pop(),
                    Some(b'\r'),
                    "a line that ends in LF alone: {}",
                    shown(&line)
                );
                assert!(!line.contains(&b'\r'), "a CR in a line: {}", shown(&line));
                return Some(line);
            }
            let mut chunk = [0; 4096];
            match self.stream.read(&mut chunk) {
                Ok(0) => {
                    assert!(
                        self.received.is_empty(),
                        "half a line: {}",
                        shown(&self.received)
                    );
                    return None;
                }
                Ok(length) => self.received.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => return None,
                Err(error) => panic!("no reply: {error}; so far {}", shown(&self.received)),
            }
        }
    }

    /// Takes bytes that are no reply (answers to Telnet negotiations).
    #[track_caller]
    pub(crate) fn raw(&mut self, length: usize) -> Vec<u8> {
        while self.received.len() < length {
            let mut chunk = [0; 512];
            let got = self.stream.read(&mut chunk).expect("bytes of the server");
            assert_ne!(got, 0, "the end instead of bytes");
            self.received.extend_from_slice(&chunk[..got]);
        }
        let rest = self.received.split_off(length);
        std::mem::replace(&mut self.received, rest)
    }

    /// Expects that the server closes the connection without another reply.
    #[track_caller]
    pub(crate) fn ended(&mut self) {
        if let Some(line) = self.next_line() {
            panic!("not the end, but {}", shown(&line));
        }
    }

    /// Prepares a data connection.
    #[track_caller]
    pub(crate) fn data(&mut self, way: Way) -> Data {
        match way {
            Way::Pasv | Way::Epsv => {
                let address = self.passive(way);
                let stream = TcpStream::connect(address).expect("a passive data connection");
                Data::Connected(stream)
            }
            Way::Port | Way::Eprt => {
                let ip = self.stream.local_addr().expect("an address").ip();
                let listener = TcpListener::bind((ip, 0)).expect("a port to listen on");
                let deadline = SockRef::from(&listener).set_read_timeout(Some(DEADLINE));
                deadline.expect("a deadline for accept");
                let address = listener.local_addr().expect("an address");
                self.expect(active_command(way, address), 200);
                Data::Listening(listener)
            }
        }
    }

    /// Asks for a passive port; says where to connect.
    #[track_caller]
    pub(crate) fn passive(&mut self, way: Way) -> SocketAddr {
        let peer = self.stream.peer_addr().expect("an address").ip();
        if way == Way::Epsv {
            let text = self.expect("EPSV", 229).text();
            let inside = text.split(['(', ')']).nth(1).expect("(|||port|)");
            let port = inside
                .strip_prefix("|||")
                .and_then(|rest| rest.strip_suffix('|'));
            let port = port.unwrap_or_else(|| panic!("RFC 2428 §3: {text}"));
            return SocketAddr::new(peer, port.parse().expect("a port"));
        }
        let text = self.expect("PASV", 227).text();
        let inside = text.split(['(', ')']).nth(1).expect("(h1,h2,h3,h4,p1,p2)");
        let numbers: Vec<u8> = inside
            .split(',')
            .map(|part| part.parse().expect(&text))
            .collect();
        let &[a, b, c, d, high, low] = &numbers[..] else {
            panic!("RFC 959 §4.1.2: {text}");
        };
        SocketAddr::from(([a, b, c, d], u16::from_be_bytes([high, low])))
    }

    /// Begins a transfer and reads its 150.
    #[track_caller]
    pub(crate) fn begin(&mut self, way: Way, command: impl AsRef<[u8]>) -> TcpStream {
        let data = self.data(way);
        self.expect(command, 150);
        data.stream()
    }

    /// Takes all that a command sends over a data connection.
    #[track_caller]
    pub(crate) fn download(&mut self, way: Way, command: impl AsRef<[u8]>) -> Vec<u8> {
        let mut stream = self.begin(way, command);
        let content = read_all(&mut stream);
        self.reply(226);
        content
    }

    /// Gives a command all of `content` over a data connection.
    #[track_caller]
    pub(crate) fn upload(&mut self, way: Way, command: impl AsRef<[u8]>, content: &[u8]) {
        let mut stream = self.begin(way, command);
        stream.write_all(content).expect("the server reads");
        drop(stream);
        self.reply(226);
    }

    /// A whole file.
    #[track_caller]
    pub(crate) fn retr(&mut self, name: impl AsRef<[u8]>) -> Vec<u8> {
        self.download(Way::Epsv, [b"RETR ", name.as_ref()].concat())
    }

    /// Stores a whole file.
    #[track_caller]
    pub(crate) fn stor(&mut self, name: impl AsRef<[u8]>, content: &[u8]) {
        self.upload(Way::Epsv, [b"STOR ", name.as_ref()].concat(), content);
    }

    /// The lines of a listing, without their ends, which are checked.
    #[track_caller]
    pub(crate) fn list(&mut self, command: impl AsRef<[u8]>) -> Vec<Vec<u8>> {
        let mut content = self.download(Way::Epsv, command);
        if content.is_empty() {
            return Vec::new();
        }
        assert!(content.ends_with(b"\r\n"), "{}", shown(&content));
        content.truncate(content.len() - 2);
        let lines = content.split(|&byte| byte == b'\n').map(<[u8]>::to_vec);
        let mut lines: Vec<Vec<u8>> = lines.collect();
        let whole = lines.len() - 1;
        for line in &mut lines[..whole] {
            assert_eq!(line.pop(), Some(b'\r'), "a line that ends in LF alone");
        }
        lines
    }

    /// Asks how far the transfer under way has come until the server has that many bytes.
    #[track_caller]
    pub(crate) fn wait_for_progress(&mut self, bytes: u64) {
        super::eventually("the transfer goes on", || {
            let reply = self.expect("STAT", 211);
            let text = String::from_utf8_lossy(reply.argument()).into_owned();
            let number = text
                .split_whitespace()
                .find_map(|word| word.parse::<u64>().ok());
            number.unwrap_or_else(|| panic!("no number of bytes in {text}")) >= bytes
        });
    }

    /// Closes this side only; the server may still speak.
    pub(crate) fn finish_sending(&self) {
        self.stream.shutdown(Shutdown::Write).expect("shutdown");
    }
}

/// PORT or EPRT for an address.
fn active_command(way: Way, address: SocketAddr) -> String {
    match (way, address.ip()) {
        (Way::Port, IpAddr::V4(ip)) => {
            let [a, b, c, d] = ip.octets();
            let [high, low] = address.port().to_be_bytes();
            format!("PORT {a},{b},{c},{d},{high},{low}")
        }
        (_, IpAddr::V4(ip)) => format!("EPRT |1|{ip}|{}|", address.port()),
        (_, IpAddr::V6(ip)) => format!("EPRT |2|{ip}|{}|", address.port()),
    }
}

/// Reads to the end of a data connection.
#[track_caller]
pub(crate) fn read_all(stream: &mut TcpStream) -> Vec<u8> {
    let mut content = Vec::new();
    stream
        .read_to_end(&mut content)
        .expect("the whole transfer");
    content
}

/// Connects from an address.
pub(crate) fn connect_from(source: IpAddr, address: SocketAddr) -> std::io::Result<TcpStream> {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None)?;
    socket.bind(&SocketAddr::new(source, 0).into())?;
    socket.connect(&address.into())?;
    Ok(socket.into())
}

/// Closes a connection so that its peer sees a reset (socket(7), SO_LINGER).
pub(crate) fn reset(stream: TcpStream) {
    let lingering = SockRef::from(&stream).set_linger(Some(std::time::Duration::ZERO));
    lingering.expect("SO_LINGER");
}

fn with_deadlines(stream: TcpStream) -> TcpStream {
    stream
        .set_read_timeout(Some(DEADLINE))
        .expect("a deadline for reading");
    stream
        .set_write_timeout(Some(DEADLINE))
        .expect("a deadline for writing");
    stream
}

fn code_of(line: &[u8]) -> Option<u16> {
    let digits = line.get(..3)?;
    let number = std::str::from_utf8(digits).ok()?.parse().ok()?;
    (100..600).contains(&number).then_some(number)
}

fn shown(bytes: &[u8]) -> String {
    bytes.escape_ascii().to_string()
}
