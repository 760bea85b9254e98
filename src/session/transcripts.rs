//! Plays the transcripts in `transcripts/` against a session.
//!
//! | line | meaning |
//! |---|---|
//! | `C: text` | the client sends a line (`\xNN` for a byte) |
//! | `S: text` | the session replies this line; the replies to one step must match exactly |
//! | `> text` | the session asks for this action |
//! | `< text` | what the world outside answers |
//! | `@ text` | sets the stage: `login rw`, `login ro`, `login rw, /pub read-only, hide .*`, `client ADDRESS`, `no passive`, `no active`; |
//! | | `tls optional`, `tls login`, `tls data`, `tls clear`, `tls names`, `tls certificates`; |
//! | | `repeat N line` sends it N times, `skip N reply` expects it N times, `flood` sends until cut off |
//! | `# text` | a comment, mostly the paragraph that the lines below hold to |

use std::net::IpAddr;
use std::path::Path;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use super::action::{Action, Endpoint, ListForm, Listing, Plan, Request, StoreMode, Transfer};
use super::event::{Answer, Event, Opened, Progress, Transferred, Verdict};
use super::{CertificateUse, Client, Demands, Limits, Session};
use crate::proto::argument::TypeCode;
use crate::proto::failure::Failure;
use crate::proto::path::VirtualPath;
use crate::proto::rights::{Pattern, RightSet, Rights, Rule};

struct Stage {
    session: Session,
    actions: Vec<String>,
    output: Vec<String>,
    place: String,
}

fn session(limits: Limits, client: IpAddr) -> Session {
    let client = Client {
        address: client,
        implicit_tls: false,
    };
    Session::new(Rc::new(limits), client)
}

fn limits() -> Limits {
    Limits {
        login_attempts: 3,
        idle_timeout: Duration::from_secs(300),
        login_timeout: Duration::from_secs(60),
        passive: true,
        active: true,
        fxp: Vec::new(),
        tls: Demands::default(),
        greeting: "ringftpd ready.".to_owned(),
        host: Rc::from(""),
    }
}

impl Stage {
    fn feed(&mut self, event: Event<'_>) {
        let action = self.session.handle(event);
        self.note(action);
        while let Some(line) = self.session.next_deferred() {
            let action = self.session.handle(Event::Line(&line));
            self.note(action);
        }
        self.collect();
    }

    /// Takes what the session has to send.
    fn collect(&mut self) {
        let output = self.session.take_output();
        let text = escape(&output);
        let mut lines: Vec<&str> = text.split("\\r\\n").collect();
        assert_eq!(lines.pop(), Some(""), "{}: replies end in CRLF", self.place);
        self.output.extend(lines.into_iter().map(str::to_owned));
    }

    fn note(&mut self, action: Option<Action>) {
        self.actions.extend(action.as_ref().map(describe));
    }

    fn nothing_left(&self) {
        assert!(
            self.output.is_empty(),
            "{}: unexpected replies {:?}",
            self.place,
            self.output
        );
        assert!(
            self.actions.is_empty(),
            "{}: unexpected actions {:?}",
            self.place,
            self.actions
        );
    }

    fn expect(&mut self, what: &str, expected: &str) {
        let queue = match what {
            "reply" => &mut self.output,
            _ => &mut self.actions,
        };
        assert!(
            !queue.is_empty(),
            "{}: no {what}, expected {expected:?}",
            self.place
        );
        assert_eq!(queue.remove(0), expected, "{}: {what}", self.place);
    }

    fn set(&mut self, directive: &str) {
        match directive.split_once(' ') {
            Some(("login", rights)) => {
                if self.session.user().is_some() {
                    *self = Self::new(limits(), IpAddr::from([127, 0, 0, 1]), &self.place);
                }
                self.feed(Event::Line(b"USER alice"));
                self.feed(Event::Line(b"PASS secret"));
                self.feed(Event::Verified(Verdict::Accepted(self::rights(rights))));
                self.output.clear();
                self.actions.clear();
            }
            Some(("client", address)) => {
                let address = address.parse().expect("an address");
                *self = Self::new(limits(), address, &self.place);
                self.output.clear();
            }
            Some(("repeat", rest)) => {
                let (times, line) = rest.split_once(' ').expect("a number and a line");
                for _ in 0..times.parse().expect("a number") {
                    self.feed(Event::Line(line.as_bytes()));
                }
            }
            Some(("skip", rest)) => {
                let (times, reply) = rest.split_once(' ').expect("a number and a reply");
                for _ in 0..times.parse().expect("a number") {
                    self.expect("reply", reply);
                }
            }
            None if directive == "flood" => {
                for number in 0.. {
                    self.feed(Event::Line(format!("CWD {number}").as_bytes()));
                    if !self.output.is_empty() {
                        break;
                    }
                    assert!(number < 1000, "{}: the flood is not noticed", self.place);
                }
            }
            Some(("fxp", network)) => {
                let limits = Limits {
                    fxp: vec![network.parse().expect("a network")],
                    ..limits()
                };
                *self = Self::new(limits, IpAddr::from([127, 0, 0, 1]), &self.place);
                self.output.clear();
            }
            Some(("tls", demands)) => {
                let tls = Demands {
                    offered: true,
                    login: !matches!(demands, "optional" | "certificates-clear"),
                    data: demands == "data",
                    clear: demands.ends_with("clear"),
                    certificate: match demands {
                        "names" => CertificateUse::Name,
                        "certificates" | "certificates-clear" => CertificateUse::Login,
                        _ => CertificateUse::None,
                    },
                };
                *self = Self::new(
                    Limits { tls, ..limits() },
                    IpAddr::from([127, 0, 0, 1]),
                    &self.place,
                );
                self.output.clear();
            }
            Some(("no", mode)) => {
                let limits = Limits {
                    passive: mode != "passive",
                    active: mode != "active",
                    ..limits()
                };
                *self = Self::new(limits, IpAddr::from([127, 0, 0, 1]), &self.place);
                self.output.clear();
            }
            _ => panic!("{}: unknown directive", self.place),
        }
    }

    fn new(limits: Limits, client: IpAddr, place: &str) -> Self {
        let mut stage = Self {
            session: session(limits, client),
            actions: Vec::new(),
            output: Vec::new(),
            place: place.to_owned(),
        };
        let greeting = stage.session.take_output();
        let greeting = String::from_utf8(greeting).expect("text");
        stage.output.push(greeting.trim_end().to_owned());
        stage
    }
}

fn play(path: &Path) {
    let text = std::fs::read_to_string(path).expect("a transcript");
    let local = IpAddr::from([127, 0, 0, 1]);
    let mut stage = Stage::new(limits(), local, "");
    let mut greeted = false;
    for (index, line) in text.lines().enumerate() {
        stage.place = format!("{}:{}", path.display(), index + 1);
        if !greeted && !line.starts_with("S:") && !line.starts_with('#') && !line.is_empty() {
            stage.output.clear();
        }
        greeted |= !line.starts_with('#') && !line.is_empty();
        match line.split_at_checked(2) {
            None => stage.nothing_left(),
            Some(("# ", _)) => {}
            Some(("S:", reply)) => stage.expect("reply", reply.strip_prefix(' ').unwrap_or(reply)),
            Some(("> ", action)) => stage.expect("action", action),
            Some(("@ ", directive)) => {
                if !directive.starts_with("skip") {
                    stage.nothing_left();
                }
                stage.set(directive);
            }
            Some(("C:", line)) => {
                stage.nothing_left();
                let bytes = unescape(line.strip_prefix(' ').unwrap_or(line));
                stage.feed(Event::Line(&bytes));
            }
            Some(("< ", event)) => {
                stage.nothing_left();
                outside(&mut stage, event);
            }
            Some(_) => panic!("{}: unknown kind of line", stage.place),
        }
    }
    stage.nothing_left();
}

/// `ro`, `rw`, or a set's name and then rules and `hide PATTERN`, separated by commas.
fn rights(text: &str) -> Arc<Rights> {
    let mut parts = text.split(", ");
    let set = match parts.next() {
        Some("ro") => RightSet::READ_ONLY,
        Some("up") => RightSet::UPLOAD_ONLY,
        _ => RightSet::READ_WRITE,
    };
    let mut rights = Rights::from(set);
    for part in parts {
        match part.strip_prefix("hide ") {
            Some(pattern) => rights
                .hidden
                .push(Pattern::parse(pattern).expect("a pattern")),
            None => rights.rules.push(Rule::parse(part).expect("a rule")),
        }
    }
    Arc::new(rights)
}

fn outside(stage: &mut Stage, text: &str) {
    let words: Vec<&str> = text.split(' ').collect();
    let number = |index: usize| words[index].parse::<u64>().expect("a number");
    if text == "begun" {
        stage.session.listing_begins();
        stage.collect();
        return;
    }
    let event = match words[0] {
        "host" => Event::HostChosen((words[1] != "unknown").then(|| {
            Rc::new(Limits {
                greeting: format!("{} ready.", words[1]),
                host: Rc::from(words[1]),
                tls: Demands {
                    offered: true,
                    certificate: CertificateUse::Login,
                    ..Demands::default()
                },
                ..limits()
            })
        })),
        "accepted" => Event::Verified(Verdict::Accepted(rights(words[1]))),
        "certified" => {
            let names = words[1..].iter().map(|name| name.as_bytes().to_vec());
            Event::Certified(names.collect())
        }
        "refused" => Event::Verified(Verdict::Refused),
        "host-full" => Event::Verified(Verdict::HostFull),
        "too-many" => Event::Verified(Verdict::TooMany),
        "unavailable" => Event::Verified(Verdict::Unavailable),
        "done" => Event::Answered(Ok(Answer::Done)),
        "bytes" => Event::Answered(Ok(Answer::Bytes(number(1)))),
        "modified" => Event::Answered(Ok(Answer::Modified(words[1].parse().expect("a number")))),
        "line" => Event::Answered(Ok(Answer::Line(text.as_bytes()[5..].to_vec()))),
        "progress" => Event::Answered(Ok(Answer::Progress(Progress {
            bytes: number(1),
            seconds: number(2),
        }))),
        "failed" => Event::Answered(Err(failure(words[1]))),
        "passive" => Event::PassiveOpened(Ok(words[1].parse().expect("an address"))),
        "refused-port" => Event::PassiveOpened(Err(failure(words[1]))),
        "opened" => Event::TransferOpened(match words[1] {
            "file" => Opened::File {
                bytes: words.get(2).map(|_| number(2)),
            },
            "upload" => Opened::Upload,
            "unique" => Opened::UniqueUpload(words[2].as_bytes().to_vec()),
            _ => Opened::Listing,
        }),
        "ended" => Event::TransferEnded(Ok(Transferred::Bytes(number(1)))),
        "digest" => Event::TransferEnded(Ok(Transferred::Digest {
            hex: words[1].to_owned(),
            start: number(2),
            end: number(3),
        })),
        "broken" => Event::TransferEnded(Err(failure(words[1]))),
        "long" => Event::LineTooLong,
        "idle" => Event::IdleTimeout,
        "kicked" => Event::Kicked,
        "shutdown" => Event::ShuttingDown,
        other => panic!("{}: unknown event {other}", stage.place),
    };
    stage.feed(event);
}

fn failure(name: &str) -> Failure {
    const ALL: [Failure; 32] = [
        Failure::NegotiationFailed,
        Failure::NotResumed,
        Failure::Truncated,
        Failure::NotFound,
        Failure::Denied,
        Failure::NotADirectory,
        Failure::IsADirectory,
        Failure::NotAFile,
        Failure::Exists,
        Failure::NotEmpty,
        Failure::Busy,
        Failure::NameInvalid,
        Failure::TooManyLinks,
        Failure::CrossDevice,
        Failure::ReadOnlyTree,
        Failure::StorageFull,
        Failure::QuotaReached,
        Failure::VolumeUsedUp,
        Failure::FileTooLarge,
        Failure::OutOfDescriptors,
        Failure::Overloaded,
        Failure::Unsupported,
        Failure::LocalError,
        Failure::NoDataConnection,
        Failure::NoPassivePort,
        Failure::TooManyPorts,
        Failure::AddressUnknown,
        Failure::DataConnectionRefused,
        Failure::PeerReset,
        Failure::PeerStalled,
        Failure::Aborted,
        Failure::OffsetBeyondEnd,
    ];
    let found = ALL
        .into_iter()
        .find(|failure| format!("{failure:?}") == name);
    found.unwrap_or_else(|| panic!("no failure {name}"))
}

fn describe(action: &Action) -> String {
    match action {
        Action::ChooseHost(name) => format!("host {}", escape(name)),
        Action::Verify(credentials) => format!(
            "verify {} {}",
            escape(&credentials.user),
            escape(&credentials.password)
        ),
        Action::Admit(user) => format!("admit {}", escape(user)),
        Action::Ask(request) => describe_request(request),
        Action::ListHere(listing) => format!("list here {}", describe_listing(listing)),
        Action::OpenPassive { .. } => "open passive".to_owned(),
        Action::ClosePassive => "close passive".to_owned(),
        Action::Start(plan) => describe_plan(plan),
        Action::Abort => "abort".to_owned(),
        Action::Reset => "reset".to_owned(),
        Action::Secure => "secure".to_owned(),
        Action::Clear => "clear".to_owned(),
        Action::ClearAndReset => "clear and reset".to_owned(),
        Action::Close => "close".to_owned(),
    }
}

fn describe_request(request: &Request) -> String {
    let one = |verb: &str, path: &VirtualPath| format!("{verb} {}", show(path));
    match request {
        Request::Enter(path) => one("enter", path),
        Request::Size(path, TypeCode::Image) => one("size I", path),
        Request::Size(path, TypeCode::Ascii) => one("size A", path),
        Request::Modified(path) => one("modified", path),
        Request::Facts(path, facts) => {
            let facts: Vec<&str> = facts.names().collect();
            format!("facts {} {}", show(path), facts.join(","))
        }
        Request::Exists(path) => one("exists", path),
        Request::MakeDirectory(path, None) => one("mkdir", path),
        Request::MakeDirectory(path, Some(umask)) => {
            format!("mkdir {} umask {umask:03o}", show(path))
        }
        Request::RemoveDirectory(path) => one("rmdir", path),
        Request::RemoveFile(path) => one("remove", path),
        Request::Rename(from, to) => format!("rename {} {}", show(from), show(to)),
        Request::RenameNew(from, to) => format!("rename-new {} {}", show(from), show(to)),
        Request::SetAttributes(path, attributes) => {
            let mut text = one("set", path);
            if let Some(mode) = attributes.mode {
                text += &format!(" mode {mode:o}");
            }
            if let Some(modified) = attributes.modified {
                text += &format!(" modified {modified}");
            }
            text
        }
        Request::FreeBytes(path) => one("free", path),
        Request::Progress => "progress".to_owned(),
    }
}

fn describe_plan(plan: &Plan) -> String {
    let endpoint = match plan.endpoint {
        None => String::new(),
        Some(Endpoint::Passive) => " passive".to_owned(),
        Some(Endpoint::Active(address)) => format!(" active {address}"),
    };
    let letter = |type_code: &TypeCode| match type_code {
        TypeCode::Ascii => 'A',
        TypeCode::Image => 'I',
    };
    let transfer = match &plan.transfer {
        Transfer::Retrieve {
            path,
            type_code,
            offset,
        } => format!(
            "retrieve {} {} from {offset}",
            show(path),
            letter(type_code)
        ),
        Transfer::Store {
            path,
            type_code,
            mode,
            overwrites,
            umask,
        } => {
            let new = if *overwrites { "" } else { " new" };
            let mode = match mode {
                StoreMode::Replace => "replace".to_owned(),
                StoreMode::From(offset) => format!("from {offset}"),
                StoreMode::Append => "append".to_owned(),
                StoreMode::Unique => "unique".to_owned(),
            };
            let umask = umask
                .map(|umask| format!(" umask {umask:03o}"))
                .unwrap_or_default();
            format!(
                "store {} {} {mode}{new}{umask}",
                show(path),
                letter(type_code)
            )
        }
        Transfer::List(listing) => format!("list {}", describe_listing(listing)),
        Transfer::Digest {
            path,
            algorithm,
            range,
        } => format!(
            "digest {} {} {:?} {:?}",
            show(path),
            algorithm.name(),
            range.start,
            range.end
        ),
    };
    let protected = if plan.protected { " protected" } else { "" };
    transfer + &endpoint + protected
}

fn describe_listing(listing: &Listing) -> String {
    let form = match listing.form {
        ListForm::Long => "long",
        ListForm::Names => "names",
        ListForm::Facts => "facts",
    };
    let name = listing.name.as_ref();
    let name = name.map_or_else(|| "-".to_owned(), |name| escape(name));
    let options = listing.options;
    let flags: String = [
        (options.all, 'a'),
        (options.long, 'l'),
        (options.recursive, 'R'),
        (options.reverse, 'r'),
        (options.directory, 'd'),
        (options.classify, 'F'),
    ]
    .into_iter()
    .filter_map(|(set, letter)| set.then_some(letter))
    .collect();
    let flags = if flags.is_empty() {
        String::new()
    } else {
        format!(" -{flags}")
    };
    format!("{form} {} {name}{flags}", show(&listing.directory))
}

fn show(path: &VirtualPath) -> String {
    escape(path.as_bytes())
}

/// Bytes as a transcript writes them.
fn escape(bytes: &[u8]) -> String {
    bytes
        .escape_ascii()
        .to_string()
        .replace("\\\"", "\"")
        .replace("\\'", "'")
}

/// `\xNN` is a byte; everything else stands for itself.
fn unescape(text: &str) -> Vec<u8> {
    let mut bytes = Vec::new();
    let mut rest = text;
    while let Some(at) = rest.find("\\x") {
        bytes.extend_from_slice(&rest.as_bytes()[..at]);
        let hex = &rest[at + 2..at + 4];
        bytes.push(u8::from_str_radix(hex, 16).expect("two hexadecimal digits"));
        rest = &rest[at + 4..];
    }
    bytes.extend_from_slice(rest.as_bytes());
    bytes
}

#[test]
fn transcripts_play_as_written() {
    let folder = Path::new(env!("CARGO_MANIFEST_DIR")).join("src/session/transcripts");
    let mut count = 0;
    for entry in std::fs::read_dir(&folder).expect("the transcripts") {
        play(&entry.expect("an entry").path());
        count += 1;
    }
    assert!(
        count >= 8,
        "only {count} transcripts in {}",
        folder.display()
    );
}
