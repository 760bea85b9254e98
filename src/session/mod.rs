//! The server-PI of one control connection (RFC 959 §2.3): a state machine without I/O and without
//! a clock.
//!
//! [`Session::handle`] takes one [`Event`] and returns at most one [`Action`]; replies collect in
//! [`Session::take_output`]. Whoever drives a session performs the action, feeds its answer back as
//! the next event, and sends the output. Until the answer is there, no other line may be fed; a
//! transfer alone goes on while lines are fed.
//!
//! ```text
//!            USER               PASS ─ Verify ─▶ Verified(Accepted)
//!   Start ─────────▶ Named ──────────────────────────────────────────▶ In ──┐ REIN
//!     ▲                │  ▲                  └─▶ Refused ─▶ Start            │
//!     └────────────────┴──┴─────────────────────────────────────────────────┘
//!
//!            Start(plan)           TransferOpened            TransferEnded
//!   Idle ───────────────▶ Opening ───────────────▶ Running ─────────────────▶ Idle
//!                            │  ABOR                  │  ABOR
//!                            └────────▶ Aborting ◀────┘    TransferEnded: 426, then 226 for ABOR
//! ```
//!
//! Lines that arrive during a transfer wait for its end, in order (QUIT too: RFC 959 §4.1.1 lets the
//! transfer finish first). STAT without a name is answered at once, and ABOR ends the transfer at
//! once; its own reply keeps its place in the order.

pub mod action;
pub mod event;
mod login;
mod protection;
mod reply;
mod settings;
mod transfer;
mod tree;

use std::collections::VecDeque;
use std::mem;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

pub use action::Action;
pub use event::Event;
pub use protection::{CertificateUse, Demands};

use crate::proto::argument::{HashAlgorithm, TypeCode};
use crate::proto::command::{self, Command, Verb};
use crate::proto::failure::Failure;
use crate::proto::listing::FactSet;
use crate::proto::network::Network;
use crate::proto::path::VirtualPath;
use crate::proto::reply::{Code, Reply};
use crate::proto::rights::{Right, RightSet, Rights};

use action::{Endpoint, Request, Umask};
use protection::{Certified, Protection};

/// What an operator may set about a session.
#[derive(Clone, Debug)]
pub struct Limits {
    /// Wrong passwords after which the control connection is closed.
    pub login_attempts: u32,
    /// How long a logged-in session may be silent.
    pub idle_timeout: Duration,
    /// How long a login may take.
    pub login_timeout: Duration,
    /// Whether PASV and EPSV are served.
    pub passive: bool,
    /// Whether PORT and EPRT are served.
    pub active: bool,
    /// Other servers that PORT and EPRT may name.
    pub fxp: Vec<Network>,
    /// What is offered and asked for of TLS.
    pub tls: Demands,
    /// The text of the 220 greeting.
    pub greeting: String,
    /// The virtual host that all this is of, by the name of its section; empty: the server itself.
    pub host: Rc<str>,
}

/// The state of one session.
#[derive(Debug)]
pub struct Session {
    limits: Rc<Limits>,
    client: Client,
    login: Login,
    attempts: u32,
    directory: VirtualPath,
    type_code: TypeCode,
    restart: u64,
    rename_from: Option<VirtualPath>,
    endpoint: Option<Endpoint>,
    noted: Option<Noted>,
    epsv_all: bool,
    /// The host is that of the TLS session.
    named: bool,
    umask: Umask,
    protection: Protection,
    /// Whom the client's certificate names, if it has shown one. A thin pointer: few sessions have it.
    certified: Option<Box<Certified>>,
    idle_timeout: Duration,
    facts: FactSet,
    hash: HashAlgorithm,
    activity: Activity,
    question: Question,
    deferred: VecDeque<Deferred>,
    deferred_bytes: usize,
    output: Vec<u8>,
}

/// Who is at the other end of the control connection.
#[derive(Clone, Copy, Debug)]
pub struct Client {
    /// Its address; an IPv4 client of an IPv6 listener by its IPv4 address.
    pub address: std::net::IpAddr,
    /// Whether TLS comes before the greeting.
    pub implicit_tls: bool,
}

/// What an operator wants counted of commands that need no action.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Noted {
    /// PORT named an address.
    Port,
    /// EPRT named an address.
    Eprt,
    /// One of them named an address or a port that is refused.
    Bounce,
}

/// A line that waits for the end of a transfer, and how often it came in a row.
#[derive(Debug)]
struct Deferred {
    line: Vec<u8>,
    times: u64,
}

#[derive(Debug)]
enum Login {
    /// USER is expected.
    Start,
    /// PASS is expected.
    Named(Vec<u8>),
    /// The authenticator has been asked.
    Verifying(Vec<u8>),
    /// The same, of a user whom the client's certificate names.
    Admitting(Vec<u8>),
    /// The user may work.
    In { user: Rc<[u8]>, rights: Arc<Rights> },
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Activity {
    Idle,
    Opening(Verb),
    Running(Verb),
    Aborting,
}

/// What the answer to the action under way is for.
#[derive(Debug)]
enum Question {
    None,
    Enter(VirtualPath),
    Size,
    Modified,
    Facts,
    RenameFrom(VirtualPath),
    MakeDirectory(VirtualPath),
    /// Anything whose success is told by this reply.
    Simple(Code, &'static str),
    /// MFMT and MFF answer with what they did.
    Changed(Vec<u8>),
    FreeBytes,
    Progress,
    ListHere {
        begun: bool,
    },
    /// EPSV names the port alone; PASV names address and port.
    Passive {
        extended: bool,
    },
    /// HASH and the X digests differ in their replies.
    Digest {
        verb: Verb,
        algorithm: HashAlgorithm,
        name: Vec<u8>,
    },
}

impl Session {
    /// A session that has just been accepted; its greeting is the first output.
    pub fn new(limits: Rc<Limits>, client: Client) -> Self {
        let mut session = Self {
            idle_timeout: limits.idle_timeout,
            client,
            login: Login::Start,
            attempts: 0,
            directory: VirtualPath::root(),
            // RFC 959 §3.1.1.1: ASCII Non-print is the default type.
            type_code: TypeCode::Ascii,
            restart: 0,
            rename_from: None,
            endpoint: None,
            noted: None,
            epsv_all: false,
            named: false,
            umask: None,
            protection: Protection::new(client.implicit_tls),
            certified: None,
            facts: FactSet::default(),
            hash: DEFAULT_HASH,
            activity: Activity::Idle,
            question: Question::None,
            deferred: VecDeque::new(),
            deferred_bytes: 0,
            output: Vec::new(),
            limits,
        };
        session.greet();
        session
    }

    /// Takes in what happened; returns what must be done next.
    pub fn handle(&mut self, event: Event<'_>) -> Option<Action> {
        match event {
            Event::Line(line) => self.line(line),
            // An empty line gets the same reply in its turn.
            Event::LineTooLong if self.is_transferring() => self.defer(b""),
            Event::LineTooLong => {
                self.rename_from = None;
                self.say(Code::SYNTAX_ERROR, "Command line too long.");
                None
            }
            Event::Certified(names) => {
                self.certified = Some(Box::new(Certified { names }));
                None
            }
            Event::HostChosen(limits) => {
                self.host_chosen(limits);
                None
            }
            Event::Verified(verdict) => self.verified(verdict),
            Event::Answered(answer) => {
                match mem::replace(&mut self.question, Question::None) {
                    question @ (Question::ListHere { .. } | Question::Progress) => {
                        self.status_answered(question, answer);
                    }
                    question => self.tree_answered(question, answer),
                }
                None
            }
            Event::PassiveOpened(address) => {
                self.passive_opened(address);
                None
            }
            Event::TransferOpened(opened) => {
                self.transfer_opened(&opened);
                None
            }
            Event::TransferEnded(outcome) => {
                self.transfer_ended(outcome);
                None
            }
            Event::IdleTimeout => {
                self.say(Code::CLOSING, "Timeout: closing the control connection.");
                Some(Action::Close)
            }
            Event::Kicked => {
                self.say(
                    Code::CLOSING,
                    "You have been disconnected by the administrator.",
                );
                Some(Action::Close)
            }
            Event::ShuttingDown => {
                self.say(Code::CLOSING, "The server is shutting down.");
                Some(Action::Close)
            }
        }
    }

    /// Takes the encoded replies that are to be sent now.
    pub fn take_output(&mut self) -> Vec<u8> {
        mem::take(&mut self.output)
    }

    /// What is to be counted of the last event, once.
    pub fn take_noted(&mut self) -> Option<Noted> {
        self.noted.take()
    }

    /// Bytes of replies that wait to be sent.
    pub fn output_len(&self) -> usize {
        self.output.len()
    }

    /// Puts bytes that are no reply (Telnet answers, lines of a listing) into the output.
    pub fn output_raw(&mut self, bytes: &[u8]) {
        self.output.extend_from_slice(bytes);
    }

    /// The next line that had to wait for the end of a transfer; feed it as [`Event::Line`].
    pub fn next_deferred(&mut self) -> Option<Vec<u8>> {
        if self.activity != Activity::Idle {
            return None;
        }
        let first = self.deferred.front_mut()?;
        first.times -= 1;
        if first.times > 0 {
            return Some(first.line.clone());
        }
        let Deferred { line, .. } = self.deferred.pop_front()?;
        self.deferred_bytes -= line.len() + size_of::<Deferred>();
        Some(line)
    }

    /// Whether a transfer is under way.
    pub fn is_transferring(&self) -> bool {
        self.activity != Activity::Idle
    }

    /// Whether a transfer still waits for its data connection.
    pub fn is_opening(&self) -> bool {
        matches!(self.activity, Activity::Opening(_))
    }

    /// The name of the user who is logged in.
    pub fn user(&self) -> Option<&[u8]> {
        match &self.login {
            Login::In { user, .. } => Some(user),
            _ => None,
        }
    }

    /// The same, for whoever keeps it: every session has a name, so none is kept twice.
    pub fn shared_user(&self) -> Option<Rc<[u8]>> {
        match &self.login {
            Login::In { user, .. } => Some(Rc::clone(user)),
            _ => None,
        }
    }

    /// The virtual host that the session is on, by the name of its section; empty: the server itself.
    pub fn host(&self) -> &Rc<str> {
        &self.limits.host
    }

    /// How long a login may take.
    pub fn login_timeout(&self) -> Duration {
        self.limits.login_timeout
    }

    /// How long a user who is logged in may be silent.
    pub fn idle_timeout(&self) -> Duration {
        self.idle_timeout
    }

    fn line(&mut self, line: &[u8]) -> Option<Action> {
        if self.activity != Activity::Idle {
            return self.line_during_transfer(line);
        }
        let command = match command::parse(line) {
            Ok(command) => command,
            Err(error) => {
                self.rename_from = None;
                self.reply(error.into());
                // A web page can have a browser send FTP commands in the body of a POST. No line of
                // FTP begins or ends like an HTTP request line (RFC 9112 §3), so nothing of it is
                // carried out.
                return is_http(line).then_some(Action::Close);
            }
        };
        // RFC 959 §4.1.3: RNFR must be immediately followed by RNTO.
        let rename_from = self.rename_from.take();
        if let (Command::Rnto(name), Login::In { .. }) = (&command, &self.login) {
            return self.rename_to(rename_from, name);
        }
        self.command(command)
    }

    /// RFC 959 §4.1.3: STAT and ABOR are the commands that mean something during a transfer.
    fn line_during_transfer(&mut self, line: &[u8]) -> Option<Action> {
        match command::parse(line) {
            Ok(Command::Stat(None)) => {
                self.question = match mem::replace(&mut self.question, Question::Progress) {
                    digest @ Question::Digest { .. } => {
                        // A digest shows no progress, and its name is needed at its end.
                        self.say(Code::SYSTEM_STATUS, "Computing a digest.");
                        digest
                    }
                    _ => return Some(Action::Ask(Request::Progress)),
                };
                None
            }
            Ok(Command::Abor) => {
                if self.activity == Activity::Aborting {
                    return self.defer(line);
                }
                self.activity = Activity::Aborting;
                // Were there too many lines already, the end of the session aborts as well.
                self.defer(line).or(Some(Action::Abort))
            }
            _ => self.defer(line),
        }
    }

    /// Keeps a line for the end of the transfer; ends the session if there are too many.
    fn defer(&mut self, line: &[u8]) -> Option<Action> {
        match self.deferred.back_mut() {
            Some(last) if last.line == line => last.times += 1,
            _ => {
                self.deferred_bytes += line.len() + size_of::<Deferred>();
                self.deferred.push_back(Deferred {
                    line: line.to_vec(),
                    times: 1,
                });
            }
        }
        if self.deferred_bytes > DEFERRED_BYTES_MAX {
            self.say(Code::CLOSING, "Too many commands during a transfer.");
            return Some(Action::Close);
        }
        None
    }

    fn abort_is_deferred(&self) -> bool {
        let is_abort =
            |deferred: &Deferred| matches!(command::parse(&deferred.line), Ok(Command::Abor));
        self.deferred.iter().any(is_abort)
    }

    fn command(&mut self, command: Command<'_>) -> Option<Action> {
        let verb = command.verb();
        if !matches!(self.login, Login::In { .. }) && !login::allowed_before_login(verb) {
            self.say(Code::NOT_LOGGED_IN, "Please log in with USER and PASS.");
            return None;
        }
        match command {
            Command::User(_) | Command::Pass(_) | Command::Acct(_) | Command::Rein => {
                self.login_command(command)
            }
            Command::Host(name) => self.choose_host(name),
            Command::Quit => {
                self.say(Code::GOODBYE, "Goodbye.");
                Some(Action::Close)
            }
            Command::Port(_)
            | Command::Pasv
            | Command::Eprt(_)
            | Command::Epsv(_)
            | Command::Retr(_)
            | Command::Stor(_)
            | Command::Stou(_)
            | Command::Appe(_)
            | Command::Rest(_)
            | Command::Abor
            | Command::List(_)
            | Command::Nlst(_)
            | Command::Mlsd(_)
            | Command::Stat(_)
            | Command::Hash(_)
            | Command::Checksum(_) => self.transfer_command(command),
            Command::Cwd(_)
            | Command::Cdup
            | Command::Rnfr(_)
            | Command::Rnto(_)
            | Command::Dele(_)
            | Command::Rmd(_)
            | Command::Mkd(_)
            | Command::Pwd
            | Command::Size(_)
            | Command::Mdtm(_)
            | Command::Mlst(_)
            | Command::Mfmt(..)
            | Command::Mff(..)
            | Command::Mfct(..)
            | Command::Avbl(_)
            | Command::Site(_) => self.tree_command(command),
            Command::Auth(_) | Command::Pbsz(_) | Command::Prot(_) | Command::Ccc => {
                self.protection_command(command)
            }
            other => {
                self.setting(other);
                None
            }
        }
    }

    fn reply(&mut self, reply: Reply) {
        reply.encode(&mut self.output);
    }

    fn say(&mut self, code: Code, text: &'static str) {
        self.reply(Reply::new(code, text));
    }

    /// The path that a name means in the current directory; replies and returns `None` if it means
    /// none.
    fn path(&mut self, name: &[u8]) -> Option<VirtualPath> {
        match self.directory.join(name) {
            Ok(path) => Some(path),
            Err(error) => {
                self.reply(reply::bad_path(&error));
                None
            }
        }
    }

    /// The path that a name means, if the user has a right there; replies if not.
    fn path_for(&mut self, right: Right, name: &[u8]) -> Option<VirtualPath> {
        let path = self.path(name)?;
        self.may(right, &path).then_some(path)
    }

    /// Whether the user has a right at a path; replies if not.
    fn may(&mut self, right: Right, path: &VirtualPath) -> bool {
        let Some(rights) = self.rights() else {
            return false;
        };
        let Err(failure) = rights.check(path, right) else {
            return true;
        };
        let is_read_only = rights.everywhere == RightSet::READ_ONLY;
        let writes = !matches!(right, Right::List | Right::Read);
        match failure {
            Failure::Denied if is_read_only && writes => {
                self.say(Code::UNAVAILABLE, "Permission denied: read-only access.");
            }
            failure => self.reply(reply::failed(failure)),
        }
        false
    }

    /// What the user may do; `None` before the login.
    fn rights(&self) -> Option<&Arc<Rights>> {
        match &self.login {
            Login::In { rights, .. } => Some(rights),
            _ => None,
        }
    }

    fn ask(&mut self, question: Question, request: Request) -> Option<Action> {
        self.question = question;
        Some(Action::Ask(request))
    }
}

fn is_http(line: &[u8]) -> bool {
    let method = line.split(|&byte| byte == b' ').next();
    let is_method = method.is_some_and(|method| HTTP_METHODS.contains(&method));
    is_method || line.ends_with(b" HTTP/1.1") || line.ends_with(b" HTTP/1.0")
}

/// RFC 9110 §9, RFC 5789, RFC 9113 §3.4. None of them is a command of FTP.
const HTTP_METHODS: [&[u8]; 10] = [
    b"GET", b"HEAD", b"POST", b"PUT", b"DELETE", b"CONNECT", b"OPTIONS", b"TRACE", b"PATCH", b"PRI",
];

/// draft-bryan-ftpext-hash §3.1 leaves the default to the server.
const DEFAULT_HASH: HashAlgorithm = HashAlgorithm::Sha256;

/// Different lines that may wait for the end of a transfer. A line that repeats the one before, as
/// the NOOPs of a client that keeps its control connection alive, costs nothing more.
const DEFERRED_BYTES_MAX: usize = 4096;

#[cfg(test)]
mod transcripts;
