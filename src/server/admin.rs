//! The administrator's socket: one ordinary thread that answers questions about the running server
//! and takes orders, in HTTP/1.0 over a UNIX socket, so that curl can ask too.
//!
//! Who may connect is up to the socket's mode: the user who started the server, and root.

use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::door::Other;
use super::mailbox::Message;
use super::metrics;
use crate::data::report::{Report, Settings};
use crate::sys;

/// What the administrator's thread works with.
pub(super) struct Desk {
    pub(super) cores: Vec<Other>,
    pub(super) started: Instant,
    pub(super) orders: Sender<Order>,
}

/// What the supervisor is asked.
#[derive(Debug)]
pub(super) enum Order {
    /// Read the configuration again; the answer is for people.
    Reload(Sender<Result<String, String>>),
    /// Say which settings are in force.
    Settings(Sender<Settings>),
}

/// Binds the socket. Its folder is made if it is missing.
///
/// # Errors
///
/// As bind(2); [`ErrorKind::AddrInUse`] when another server answers there.
pub(super) fn bind(path: &Path) -> io::Result<UnixListener> {
    if let Some(folder) = path.parent() {
        fs::create_dir_all(folder)?;
    }
    match UnixStream::connect(path) {
        Ok(_) => return Err(ErrorKind::AddrInUse.into()),
        // A server that was killed has left it behind.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused => fs::remove_file(path)?,
        Err(_) => {}
    }
    sys::process::privately(|| UnixListener::bind(path))
}

impl Desk {
    /// Answers on a thread of its own until the process ends.
    ///
    /// # Errors
    ///
    /// No thread can be started.
    pub(super) fn open(self, listener: UnixListener) -> io::Result<()> {
        let work = move || {
            for stream in listener.incoming() {
                // One at a time: each has little time, and no core waits for it.
                if let Ok(stream) = stream
                    && let Err(error) = self.serve(stream)
                {
                    tracing::debug!(%error, "an administrator's question was not answered");
                }
            }
        };
        let name = "admin".to_owned();
        thread::Builder::new().name(name).spawn(work).map(drop)
    }

    fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        stream.set_read_timeout(Some(PATIENCE))?;
        stream.set_write_timeout(Some(PATIENCE))?;
        let request = read_request(&mut stream)?;
        let (status, kind, body) = self.answer(&request);
        let length = body.len();
        let head = format!(
            "HTTP/1.0 {status}\r\nContent-Type: {kind}\r\nContent-Length: {length}\r\n\r\n"
        );
        stream.write_all(head.as_bytes())?;
        stream.write_all(body.as_bytes())
    }

    fn answer(&self, request: &str) -> (&'static str, &'static str, String) {
        let mut words = request.split_whitespace();
        let text = "text/plain; charset=utf-8";
        match (words.next(), words.next()) {
            (Some("GET"), Some("/ports")) => match serde_json::to_string(&self.report()) {
                Ok(json) => ("200 OK", "application/json", json + "\n"),
                Err(error) => ("500 Internal Server Error", text, format!("{error}\n")),
            },
            (Some("GET"), Some("/metrics")) => (
                "200 OK",
                metrics::CONTENT_TYPE,
                metrics::text(&self.report()),
            ),
            (Some("POST"), Some("/reload")) => match self.ask(Order::Reload, RELOAD_MAX) {
                Some(Ok(told)) => ("200 OK", text, told + "\n"),
                Some(Err(told)) => ("409 Conflict", text, told + "\n"),
                None => (
                    "503 Service Unavailable",
                    text,
                    "the server is busy\n".to_owned(),
                ),
            },
            (Some("GET" | "POST"), Some(_)) => (
                "404 Not Found",
                text,
                "GET /ports, GET /metrics, POST /reload\n".to_owned(),
            ),
            _ => ("400 Bad Request", text, "HTTP is spoken here\n".to_owned()),
        }
    }

    /// Every core that answers in time.
    fn report(&self) -> Report {
        let asked = self.cores.iter().map(|core| {
            let (sender, receiver) = mpsc::channel();
            let sent = core.mailbox.try_send(Message::Report(sender));
            sent.ok().map(|()| receiver)
        });
        let asked: Vec<_> = asked.collect();
        let until = Instant::now() + PATIENCE;
        let answers = asked.into_iter().flatten().filter_map(|receiver| {
            let left = until.saturating_duration_since(Instant::now());
            receiver.recv_timeout(left).ok()
        });
        Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            settings: self.ask(Order::Settings, PATIENCE).unwrap_or_default(),
            cores: answers.collect(),
        }
    }

    fn ask<T>(&self, order: impl FnOnce(Sender<T>) -> Order, patience: Duration) -> Option<T> {
        let (sender, receiver) = mpsc::channel();
        self.orders.send(order(sender)).ok()?;
        receiver.recv_timeout(patience).ok()
    }
}

/// The first line of the request, after which its end is awaited.
fn read_request(stream: &mut UnixStream) -> io::Result<String> {
    let mut request = Vec::new();
    let mut buffer = [0; 1024];
    let is_whole = |request: &[u8]| {
        request.windows(4).any(|end| end == b"\r\n\r\n")
            || request.windows(2).any(|end| end == b"\n\n")
    };
    while !is_whole(&request) {
        match stream.read(&mut buffer)? {
            0 => break,
            count => request.extend_from_slice(&buffer[..count]),
        }
        if request.len() > REQUEST_MAX {
            return Err(ErrorKind::InvalidData.into());
        }
    }
    let text = String::from_utf8_lossy(&request);
    Ok(text.lines().next().unwrap_or_default().to_owned())
}

/// For a request, an answer, and the cores.
const PATIENCE: Duration = Duration::from_secs(2);

/// Binding 64 512 ports takes a second.
const RELOAD_MAX: Duration = Duration::from_secs(30);

/// curl sends some hundred bytes.
const REQUEST_MAX: usize = 8192;
