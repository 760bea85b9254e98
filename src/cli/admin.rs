//! Talks to a running server over its admin socket: HTTP/1.0 (RFC 1945), one request for each
//! connection, because everything understands it (`curl --unix-socket`).

use std::fmt::Display;
use std::io::{self, ErrorKind, Read, Write};
use std::os::fd::AsRawFd;
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::{Duration, Instant};

use nix::sys::socket::{
    AddressFamily, SockFlag, SockType, UnixAddr, connect, setsockopt, socket, sockopt,
};
use nix::sys::time::TimeVal;

use super::{EXIT_FAILED, Failure};

/// The socket to talk to: the one asked for, that of the systemd unit, or that of a server which a
/// user has started.
pub(super) fn socket_path(asked: Option<&Path>) -> PathBuf {
    if let Some(path) = asked {
        return path.to_owned();
    }
    let default = PathBuf::from(DEFAULT_SOCKET);
    let own = std::env::var_os("XDG_RUNTIME_DIR")
        .map(|directory| Path::new(&directory).join("ringftpd/admin.sock"));
    match own {
        Some(own) if !default.exists() && own.exists() => own,
        _ => default,
    }
}

/// What the server answers to GET of `path`.
pub(super) fn get(socket: &Path, path: &str) -> Result<String, Failure> {
    let asked = format!("GET {path} HTTP/1.0\r\n\r\n");
    request(socket, &asked, TIMEOUT)
}

/// What the server answers to POST of nothing to `path`.
pub(super) fn post(socket: &Path, path: &str) -> Result<String, Failure> {
    let asked = format!("POST {path} HTTP/1.0\r\nContent-Length: 0\r\n\r\n");
    request(socket, &asked, ORDER_TIMEOUT)
}

fn request(socket: &Path, request: &str, timeout: Duration) -> Result<String, Failure> {
    let deadline = Instant::now() + timeout;
    let mut stream = connected(socket).map_err(|error| unreachable(socket, &error))?;
    let answer = exchange(&mut stream, request, deadline).map_err(|error| {
        let reason = match error.kind() {
            ErrorKind::WouldBlock | ErrorKind::TimedOut => {
                format!("the server did not answer within {} s", timeout.as_secs())
            }
            _ => error.to_string(),
        };
        failure(format!("{}: {reason}", socket.display()))
    })?;
    let (status, body) = parse(&answer)
        .ok_or_else(|| failure(format!("{} does not speak HTTP", socket.display())))??;
    match (status.code, body.trim_end()) {
        (200, _) => Ok(body),
        (_, "") => Err(failure(format!(
            "the server answered {} {}",
            status.code,
            status.reason.escape_debug()
        ))),
        // The server tells what is wrong and what to do.
        (_, told) => Err(Failure {
            code: EXIT_FAILED,
            text: told.to_owned(),
        }),
    }
}

/// Connects, waiting no longer than [`TIMEOUT`] for a server whose queue is full: for UNIX sockets
/// that is SO_SNDTIMEO (Linux, net/unix/af_unix.c: unix_stream_connect).
fn connected(path: &Path) -> io::Result<UnixStream> {
    let address = UnixAddr::new(path)?;
    let socket = socket(
        AddressFamily::Unix,
        SockType::Stream,
        SockFlag::SOCK_CLOEXEC,
        None,
    )?;
    let timeout = TimeVal::new(TIMEOUT.as_secs() as i64, 0);
    setsockopt(&socket, sockopt::SendTimeout, &timeout)?;
    connect(socket.as_raw_fd(), &address)?;
    Ok(UnixStream::from(socket))
}

/// Sends the request and reads to the end, within [`ANSWER_BYTES_MAX`].
fn exchange(stream: &mut UnixStream, request: &str, deadline: Instant) -> io::Result<Vec<u8>> {
    match stream.write_all(request.as_bytes()) {
        // Refused before the request was read: what was answered is worth more than the error.
        Err(error) if error.kind() != ErrorKind::BrokenPipe => return Err(error),
        _ => {}
    }
    let mut answer = Vec::new();
    let mut chunk = vec![0; 64 << 10];
    loop {
        let left = deadline.saturating_duration_since(Instant::now());
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
        stream.set_read_timeout(Some(left))?;
        match stream.read(&mut chunk) {
            Ok(0) => return Ok(answer),
            Ok(length) => answer.extend_from_slice(&chunk[..length]),
            Err(error) if error.kind() == ErrorKind::Interrupted => {}
            Err(error) if error.kind() == ErrorKind::ConnectionReset && !answer.is_empty() => {
                return Ok(answer);
            }
            Err(error) => return Err(error),
        }
        if answer.len() > ANSWER_BYTES_MAX {
            let text = format!("the answer is longer than {} MiB", ANSWER_BYTES_MAX >> 20);
            return Err(io::Error::other(text));
        }
    }
}

struct Status {
    code: u16,
    reason: String,
}

/// Status and body of an answer (RFC 1945 §6); `None` if it is none, a failure if it is cut off.
fn parse(answer: &[u8]) -> Option<Result<(Status, String), Failure>> {
    let split = |end: &[u8]| {
        let at = answer.windows(end.len()).position(|window| window == end)?;
        Some((&answer[..at], &answer[at + end.len()..]))
    };
    let (head, body) = split(b"\r\n\r\n").or_else(|| split(b"\n\n"))?;
    let head = std::str::from_utf8(head).ok()?;
    let mut lines = head.lines();
    let (version, rest) = lines.next()?.split_once(' ')?;
    let (code, reason) = rest.split_once(' ').unwrap_or((rest, ""));
    let (true, Ok(code)) = (version.starts_with("HTTP/1."), code.parse()) else {
        return None;
    };
    let length = lines.find_map(|line| {
        let (name, value) = line.split_once(':')?;
        let is_length = name.eq_ignore_ascii_case("content-length");
        value.trim().parse::<usize>().ok().filter(|_| is_length)
    });
    if length.is_some_and(|length| length != body.len()) {
        return Some(Err(failure("the server's answer was cut off; try again")));
    }
    let status = Status {
        code,
        reason: reason.to_owned(),
    };
    Some(Ok((status, String::from_utf8_lossy(body).into_owned())))
}

/// Why there is no connection, and what to do.
fn unreachable(socket: &Path, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::NotFound => {
            "is the server running, and does its configuration set admin.socket? If that is another \
             path: --socket PATH"
        }
        ErrorKind::ConnectionRefused => {
            "the server that made this socket has ended; start it, or name the socket of another \
             one: --socket PATH"
        }
        ErrorKind::PermissionDenied => {
            "run this as root or as the user that the server runs as (server.user)"
        }
        ErrorKind::WouldBlock => "the server does not take connections; its log may say why",
        _ => "name the socket that the server's configuration sets (admin.socket): --socket PATH",
    };
    failure(format!(
        "cannot reach the server at {}: {error}\n  hint: {hint}",
        socket.display()
    ))
}

fn failure(text: impl Display) -> Failure {
    Failure {
        code: EXIT_FAILED,
        text: format!("ringftpd: {text}"),
    }
}

/// Where a server that systemd starts has its socket (RuntimeDirectory=ringftpd).
pub(super) const DEFAULT_SOCKET: &str = "/run/ringftpd/admin.sock";

/// From the connection to the end of the answer. The server answers in milliseconds; what takes
/// longer is a core that hangs.
const TIMEOUT: Duration = Duration::from_secs(5);

/// A reload that binds tens of thousands of ports takes seconds.
const ORDER_TIMEOUT: Duration = Duration::from_secs(35);

/// A core's figures take some 4 KiB; every port of 1000 cores held by another program, 1 MiB.
const ANSWER_BYTES_MAX: usize = 16 << 20;

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;
    use std::thread::{self, JoinHandle};

    use super::*;

    /// A server that gives one answer; its thread gives back what it was asked.
    fn server(answer: &[u8]) -> (tempfile::TempDir, PathBuf, JoinHandle<String>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        let listener = UnixListener::bind(&path).expect("a socket");
        let answer = answer.to_vec();
        let thread = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut asked = Vec::new();
            let mut byte = [0];
            while !asked.ends_with(b"\r\n\r\n") && stream.read(&mut byte).expect("a byte") > 0 {
                asked.push(byte[0]);
            }
            // In two parts, as a slow server would. The client may have had enough by then.
            let (first, second) = answer.split_at(answer.len() / 2);
            let _ = stream
                .write_all(first)
                .and_then(|()| stream.write_all(second));
            String::from_utf8(asked).expect("UTF-8")
        });
        (folder, path, thread)
    }

    #[test]
    fn the_body_of_an_answer_comes_back() {
        let answer = b"HTTP/1.0 200 OK\r\nContent-Type: application/json\r\n\
            content-length: 9\r\n\r\n{\"a\": 1}\n";
        let (_folder, path, asked) = server(answer);
        let body = get(&path, "/ports").expect("an answer");
        assert_eq!(body, "{\"a\": 1}\n");
        assert_eq!(asked.join().expect("asked"), "GET /ports HTTP/1.0\r\n\r\n");
        let (_folder, path, asked) = server(b"HTTP/1.1 200\r\n\r\nreloaded\n");
        assert_eq!(post(&path, "/reload").expect("an answer"), "reloaded\n");
        assert!(asked.join().expect("asked").starts_with("POST /reload "));
    }

    #[test]
    fn what_is_wrong_is_told() {
        let long = [
            b"HTTP/1.0 200 OK\r\n\r\n",
            &vec![b'x'; ANSWER_BYTES_MAX][..],
        ]
        .concat();
        for (answer, told) in [
            (
                &b"HTTP/1.0 422 Unprocessable\r\n\r\nline 3: unknown key\n"[..],
                "line 3: unknown key",
            ),
            (
                b"HTTP/1.0 404 Not Found\r\n\r\n",
                "ringftpd: the server answered 404 Not Found",
            ),
            (b"220 ringftpd ready.\r\n", "does not speak HTTP"),
            (b"220 ready.\r\n\r\n", "does not speak HTTP"),
            (b"", "does not speak HTTP"),
            (b"HTTP/1.0 200 OK\r\nContent-Length: 9\r\n\r\n{", "cut off"),
            (&long, "longer than 16 MiB"),
        ] {
            let (_folder, path, _) = server(answer);
            let failure = get(&path, "/").expect_err("a failure");
            assert_eq!(failure.code, EXIT_FAILED);
            assert!(failure.text.contains(told), "{}", failure.text);
        }
    }

    #[test]
    fn a_server_that_is_not_there_is_told_with_what_to_do() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("admin.sock");
        let missing = get(&path, "/ports").expect_err("no socket").text;
        assert!(missing.contains("is the server running"), "{missing}");
        drop(UnixListener::bind(&path).expect("a socket"));
        let dead = get(&path, "/ports").expect_err("nobody").text;
        assert!(dead.contains("has ended"), "{dead}");
    }

    #[test]
    fn the_socket_asked_for_is_taken() {
        let path = Path::new("/tmp/x.sock");
        assert_eq!(socket_path(Some(path)), path);
    }
}
