//! Questions and orders to the running server, over its administrator's socket: HTTP/1.0.

use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::UnixStream;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::{EXIT_FAILED, Failure};
use crate::config::Admin;

/// What `--socket` means when it is left out: the server's default, or that of a server which serves
/// a directory for a user.
pub(super) fn socket(given: Option<&Path>) -> PathBuf {
    if let Some(given) = given {
        return given.to_owned();
    }
    let default = Admin::default().socket;
    let folder = std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from);
    let own = folder.map(|folder| folder.join("ringftpd/admin.sock"));
    own.filter(|own| !default.exists() && own.exists())
        .unwrap_or(default)
}

/// Asks for what is at `path`.
pub(super) fn get(socket: &Path, path: &str) -> Result<String, Failure> {
    exchange(socket, "GET", path)
}

/// Gives an order; what the server says when it has been carried out.
pub(super) fn post(socket: &Path, path: &str) -> Result<String, Failure> {
    exchange(socket, "POST", path)
}

fn exchange(socket: &Path, method: &str, path: &str) -> Result<String, Failure> {
    let answer = ask(socket, method, path).map_err(|error| unanswered(socket, &error))?;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap_or((&answer, ""));
    let status = head.lines().next().unwrap_or_default();
    match status.split_whitespace().nth(1) {
        Some("200") => Ok(body.to_owned()),
        _ if body.is_empty() => Err(failed(format!("ringftpd: the server answers: {status}"))),
        _ => Err(failed(body.trim_end().to_owned())),
    }
}

fn ask(socket: &Path, method: &str, path: &str) -> io::Result<String> {
    let mut stream = UnixStream::connect(socket)?;
    stream.set_read_timeout(Some(PATIENCE))?;
    stream.set_write_timeout(Some(PATIENCE))?;
    stream.write_all(format!("{method} {path} HTTP/1.0\r\n\r\n").as_bytes())?;
    let mut answer = String::new();
    stream.take(ANSWER_MAX).read_to_string(&mut answer)?;
    Ok(answer)
}

fn unanswered(socket: &Path, error: &io::Error) -> Failure {
    let hint = match error.kind() {
        ErrorKind::NotFound | ErrorKind::ConnectionRefused => {
            "\n  hint: is the server running, and is this its admin.socket? --socket PATH names another"
        }
        ErrorKind::PermissionDenied => "\n  hint: as root, or as the user who started the server",
        ErrorKind::WouldBlock | ErrorKind::TimedOut => {
            "\n  hint: the server does not answer in time"
        }
        _ => "",
    };
    failed(format!("ringftpd: {}: {error}{hint}", socket.display()))
}

fn failed(text: String) -> Failure {
    Failure {
        code: EXIT_FAILED,
        text,
    }
}

/// A reload that binds many ports takes seconds.
const PATIENCE: Duration = Duration::from_secs(40);

/// A report of 1024 cores has a few MiB.
const ANSWER_MAX: u64 = 64 << 20;

#[cfg(test)]
mod tests {
    use std::io::BufRead;
    use std::os::unix::net::UnixListener;
    use std::thread;

    use super::*;

    /// What a server that gives this answer is asked, and what is made of the answer.
    fn exchange_with(answer: &'static str) -> (String, Result<String, Failure>) {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("socket");
        let listener = UnixListener::bind(&path).expect("a socket");
        let server = thread::spawn(move || {
            let (mut stream, _) = listener.accept().expect("a client");
            let mut line = String::new();
            io::BufReader::new(&stream)
                .read_line(&mut line)
                .expect("a request");
            stream.write_all(answer.as_bytes()).expect("an answer");
            line
        });
        let got = get(&path, "/ports");
        (server.join().expect("the server"), got)
    }

    #[test]
    fn a_body_is_told_and_a_refusal_is_a_failure() {
        let (asked, got) = exchange_with("HTTP/1.0 200 OK\r\nContent-Length: 2\r\n\r\n{}");
        assert_eq!(asked, "GET /ports HTTP/1.0\r\n");
        assert_eq!(got.expect("a body"), "{}");
        let (_, got) = exchange_with("HTTP/1.0 409 Conflict\r\n\r\nnot reloaded\n");
        let failure = got.expect_err("a refusal");
        assert_eq!((failure.code, failure.text.as_str()), (1, "not reloaded"));
        let (_, got) = exchange_with("");
        assert!(
            got.expect_err("nothing")
                .text
                .contains("the server answers")
        );
    }

    #[test]
    fn a_server_that_is_not_there_is_named() {
        let failure = get(Path::new("/nowhere/socket"), "/ports").expect_err("nobody");
        assert!(failure.text.contains("/nowhere/socket"));
        assert!(failure.text.contains("is the server running"));
    }
}
