//! The administrator's socket: one ordinary thread that answers questions about the running server
//! and takes orders, in HTTP/1.0 over a UNIX socket, so that curl can ask too.
//!
//! Who may connect is up to the socket's mode: the user who started the server, and root.

use std::collections::BTreeMap;
use std::fs;
use std::io::{self, ErrorKind, Read, Write};
use std::os::unix::fs::{FileTypeExt, MetadataExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::Path;
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::thread;
use std::time::{Duration, Instant};

use super::door::Other;
use super::mailbox::Message;
use super::metrics;
use super::sessions::{self, Selection};
use crate::auth::{Authenticator, Counts, check_identity_name};
use crate::data::report::{LoginReport, Report, Settings};
use crate::quota::{Moved, Quotas, Usage};
use crate::sys;
use crate::throttle::Throttle;

/// What the administrator's thread works with.
pub(super) struct Desk {
    pub(super) cores: Vec<Other>,
    pub(super) started: Instant,
    pub(super) orders: Sender<Order>,
    pub(super) quotas: Arc<Quotas>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) authenticator: Arc<Authenticator>,
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
        // A server that was killed has left it behind; but a file that is no socket refuses, too.
        Err(error) if error.kind() == ErrorKind::ConnectionRefused && is_socket(path) => {
            fs::remove_file(path)?;
        }
        Err(_) => {}
    }
    sys::process::privately(|| UnixListener::bind(path))
}

/// Which socket stands at `path`, so that it can be told from another one.
pub(super) fn identity(path: &Path) -> Option<(u64, u64)> {
    let metadata = fs::symlink_metadata(path).ok()?;
    Some((metadata.dev(), metadata.ino()))
}

fn is_socket(path: &Path) -> bool {
    fs::symlink_metadata(path).is_ok_and(|metadata| metadata.file_type().is_socket())
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
                let served = stream.and_then(|stream| self.serve(stream));
                if let Err(error) = served {
                    tracing::debug!(%error, "an administrator's question was not answered");
                    // Out of descriptors, the next one fails at once.
                    thread::park_timeout(RETRY_DELAY);
                }
            }
        };
        let name = "admin".to_owned();
        thread::Builder::new().name(name).spawn(work).map(drop)
    }

    fn serve(&self, mut stream: UnixStream) -> io::Result<()> {
        let request = read_request(&mut stream)?;
        stream.set_write_timeout(Some(PATIENCE))?;
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
            (Some("GET"), Some(page @ ("/ports" | "/metrics"))) => {
                let Some(report) = self.report() else {
                    return ("503 Service Unavailable", text, BUSY.to_owned());
                };
                if page == "/metrics" {
                    return (
                        "200 OK",
                        metrics::CONTENT_TYPE,
                        metrics::text(&report, &self.throttle),
                    );
                }
                match serde_json::to_string(&report) {
                    Ok(json) => ("200 OK", "application/json", json + "\n"),
                    Err(error) => ("500 Internal Server Error", text, format!("{error}\n")),
                }
            }
            (Some("POST"), Some("/reload")) => match self.ask(Order::Reload, RELOAD_MAX) {
                Some(Ok(told)) => ("200 OK", text, told + "\n"),
                Some(Err(told)) => ("409 Conflict", text, told + "\n"),
                None => ("503 Service Unavailable", text, BUSY.to_owned()),
            },
            (Some("GET"), Some("/quotas")) => match self.quotas.report() {
                Ok(users) => ("200 OK", text, quota_lines(&users)),
                Err(error) => ("409 Conflict", text, format!("users.state: {error}\n")),
            },
            (Some("GET"), Some("/volumes")) => match self.quotas.volumes() {
                Ok(volumes) => ("200 OK", text, volume_lines(&volumes)),
                Err(error) => ("409 Conflict", text, format!("users.state: {error}\n")),
            },
            (Some("POST"), Some(page)) if page.starts_with(RESCAN) => {
                let told = "is counted before the next change";
                let forget = |user: &str| self.quotas.forget(user);
                of_user(&page[RESCAN.len()..], "stores", told, forget)
            }
            (Some("POST"), Some(page)) if page.starts_with(RESET) => {
                let told = "counts from nothing again";
                let reset = |user: &str| match self.quotas.reset_volume(user)? {
                    true => Ok(()),
                    false => Err(io::Error::other("nobody of this name has moved anything")),
                };
                of_user(&page[RESET.len()..], "moves", told, reset)
            }
            (Some(method @ ("GET" | "POST")), Some(page)) => {
                self.sessions(method, page).unwrap_or_else(|| {
                    (
                        "404 Not Found",
                        text,
                        "GET /ports, GET /metrics, GET /quotas, GET /volumes, GET /sessions, \
                         POST /reload, POST /quotas/rescan/USER, POST /volumes/reset/USER, POST /sessions/kick?...\n"
                            .to_owned(),
                    )
                })
            }
            _ => ("400 Bad Request", text, "HTTP is spoken here\n".to_owned()),
        }
    }

    /// Looks at sessions, or ends them; `None` if the page is about something else.
    fn sessions(&self, method: &str, page: &str) -> Option<(&'static str, &'static str, String)> {
        let text = "text/plain; charset=utf-8";
        let (page, query) = page.split_once('?').unwrap_or((page, ""));
        let kicks = match (method, page) {
            ("GET", "/sessions") => false,
            ("POST", "/sessions/kick") => true,
            _ => return None,
        };
        let selection = match Selection::parse(query) {
            Ok(selection) => selection,
            Err(error) => return Some(("400 Bad Request", text, error + "\n")),
        };
        if !kicks {
            let json = sessions::json(&self.cores, selection);
            return Some(("200 OK", "application/json", json));
        }
        if selection.is_empty() && !selection.all {
            let told = "say which: id=, user=, ip= or all\n".to_owned();
            return Some(("400 Bad Request", text, told));
        }
        let (kicked, silent) = sessions::kick(&self.cores, selection);
        let told = match kicked {
            0 => "No session matches.".to_owned(),
            1 => "1 session ends.".to_owned(),
            _ => format!("{kicked} sessions end."),
        };
        let status = match (kicked, silent.is_empty()) {
            (_, false) => "503 Service Unavailable",
            (0, true) => "404 Not Found",
            (_, true) => "200 OK",
        };
        let silent = match silent.is_empty() {
            true => String::new(),
            false => format!(" Cores that did not answer: {silent:?}"),
        };
        Some((status, text, format!("{told}{silent}\n")))
    }

    /// Every core that answers in time.
    fn report(&self) -> Option<Report> {
        let settings = self.ask(Order::Settings, PATIENCE)?;
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
        Some(Report {
            version: env!("CARGO_PKG_VERSION").to_owned(),
            pid: std::process::id(),
            uptime_seconds: self.started.elapsed().as_secs(),
            settings,
            cores: answers.collect(),
            quota_refusals: self.quotas.refusals(),
            logins: login_report(self.authenticator.counts()),
        })
    }

    fn ask<T>(&self, order: impl FnOnce(Sender<T>) -> Order, patience: Duration) -> Option<T> {
        let (sender, receiver) = mpsc::channel();
        self.orders.send(order(sender)).ok()?;
        receiver.recv_timeout(patience).ok()
    }
}

fn login_report(counts: &Counts) -> LoginReport {
    LoginReport {
        accepted: Counts::get(&counts.accepted),
        refused: Counts::get(&counts.refused),
        locked_out: Counts::get(&counts.locked_out),
        unavailable: Counts::get(&counts.unavailable),
        hashes: Counts::get(&counts.hashes),
        remembered: Counts::get(&counts.remembered),
    }
}

/// A line for each user: bytes, files and name; `-` where they have to be counted.
fn quota_lines(users: &BTreeMap<String, Option<Usage>>) -> String {
    let lines = users.iter().map(|(name, usage)| match usage {
        Some(Usage { bytes, files }) => format!("{bytes} {files} {name}\n"),
        None => format!("- - {name}\n"),
    });
    lines.collect()
}

/// A line for each user: the first day of the period, bytes to clients and to the server, and name.
fn volume_lines(volumes: &[(String, Moved)]) -> String {
    let lines = volumes.iter().map(|(name, moved)| {
        let Moved { since, down, up } = moved;
        format!("{since} {down} {up} {name}\n")
    });
    lines.collect()
}

/// Does something to the figures of a user, and tells of it.
fn of_user(
    user: &str,
    what: &str,
    told: &str,
    act: impl FnOnce(&str) -> io::Result<()>,
) -> (&'static str, &'static str, String) {
    let text = "text/plain";
    if check_identity_name(user).is_err() {
        return ("400 Bad Request", text, "no name of a user\n".to_owned());
    }
    match act(user) {
        Ok(()) => ("200 OK", text, format!("What {user} {what} {told}.\n")),
        Err(error) => ("409 Conflict", text, format!("users.state: {error}\n")),
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
    let until = Instant::now() + PATIENCE;
    while !is_whole(&request) {
        let left = until.saturating_duration_since(Instant::now());
        // A timeout of zero would be none.
        stream.set_read_timeout(Some(left.max(Duration::from_millis(1))))?;
        if left.is_zero() {
            return Err(ErrorKind::TimedOut.into());
        }
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

const RESCAN: &str = "/quotas/rescan/";
const RESET: &str = "/volumes/reset/";

const BUSY: &str = "the server is busy, ask again\n";

/// After a question that could not be taken or answered.
const RETRY_DELAY: Duration = Duration::from_millis(20);

/// For a request, an answer, and the cores.
const PATIENCE: Duration = Duration::from_secs(2);

/// Binding 64 512 ports takes a second.
const RELOAD_MAX: Duration = Duration::from_secs(30);

/// curl sends some hundred bytes.
const REQUEST_MAX: usize = 8192;
