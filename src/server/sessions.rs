//! What the sessions of the running server do, and how some of them are ended: the vocabulary between
//! the cores and `ringftpd who` and `ringftpd kick`.
//!
//! A core is asked for a piece at a time, and serves its clients in between, however many sessions it
//! has.

use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::sync::mpsc::{self, Sender};
use std::time::{Duration, Instant, SystemTime};

use serde::{Deserialize, Serialize};

use super::door::Other;
use super::mailbox::Message;
use crate::auth::is_anonymous;
use crate::control::{Card, Core, Moving};
use crate::proto::network::Network;
use crate::proto::printable;

/// The sessions at one moment.
#[derive(Clone, Debug, Default, Deserialize, PartialEq, Serialize)]
pub struct Sessions {
    /// The server's version.
    pub version: String,
    /// Sessions that the answer had no room for.
    pub left_out: usize,
    /// Cores that did not answer in time.
    pub silent_cores: Vec<usize>,
    /// Those asked for, core by core.
    pub sessions: Vec<SessionReport>,
}

/// One session.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct SessionReport {
    /// A number that no other session of this run of the server has.
    pub id: u64,
    /// The core that serves it.
    pub core: usize,
    /// The user; `None` before the login.
    pub user: Option<String>,
    /// The client's address.
    pub client: IpAddr,
    /// The address and port that its control connection came to.
    pub local: SocketAddr,
    /// When it began, in seconds since 1970-01-01 00:00 UTC.
    pub since: i64,
    /// How long nothing was heard of the client; 0 during a transfer.
    pub idle_seconds: f64,
    /// It has been told to end.
    pub kicked: bool,
    /// The transfer under way.
    pub transfer: Option<TransferReport>,
}

/// A transfer under way.
#[derive(Clone, Debug, Deserialize, PartialEq, Serialize)]
pub struct TransferReport {
    /// The verb that began it.
    pub verb: String,
    /// The file or directory, in printable characters.
    pub path: String,
    /// `upload`, `download` (listings too), or `none` (digests).
    pub direction: String,
    /// Bytes that went over the data connection so far.
    pub bytes: u64,
    /// Since it began.
    pub seconds: f64,
    /// The mean since it began.
    pub bytes_per_second: f64,
}

/// Which sessions are meant: those that fit every kind of condition that is given.
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Selection {
    /// One of these numbers.
    pub ids: Vec<u64>,
    /// One of these users.
    pub users: Vec<String>,
    /// A client in one of these networks.
    pub networks: Vec<Network>,
    /// Said in as many words, where no condition would be dangerous.
    pub all: bool,
}

impl Selection {
    /// Whether there is no condition at all.
    pub fn is_empty(&self) -> bool {
        self.ids.is_empty() && self.users.is_empty() && self.networks.is_empty()
    }

    /// As the query of a URL (RFC 3986 §3.4).
    pub fn query(&self) -> String {
        let ids = self.ids.iter().map(|id| format!("id={id}"));
        let users = self
            .users
            .iter()
            .map(|user| format!("user={}", encoded(user)));
        let networks = self
            .networks
            .iter()
            .map(|network| format!("ip={}", encoded(&network.to_string())));
        let all = self.all.then(|| "all".to_owned());
        let parts: Vec<String> = ids.chain(users).chain(networks).chain(all).collect();
        parts.join("&")
    }

    /// Reads a query.
    ///
    /// # Errors
    ///
    /// What is wrong with it.
    pub fn parse(query: &str) -> Result<Self, String> {
        let mut selection = Self::default();
        for part in query.split('&').filter(|part| !part.is_empty()) {
            let (key, value) = part.split_once('=').unwrap_or((part, ""));
            let value = decoded(value).ok_or_else(|| format!("{part}: a broken % sequence"))?;
            match key {
                "id" => {
                    let id = value.parse().map_err(|_| format!("{part}: not a number"))?;
                    selection.ids.push(id);
                }
                "user" => selection.users.push(value),
                "ip" => selection.networks.push(value.parse()?),
                "all" => selection.all = true,
                _ => return Err(format!("{part}: id, user, ip and all are known")),
            }
        }
        Ok(selection)
    }

    fn has(&self, id: u64, user: Option<&[u8]>, client: IpAddr) -> bool {
        let is_user = |name: &String| {
            let name = name.as_bytes();
            let both_anonymous = |user| is_anonymous(name) && is_anonymous(user);
            user.is_some_and(|user| user == name || both_anonymous(user))
        };
        (self.ids.is_empty() || self.ids.contains(&id))
            && (self.users.is_empty() || self.users.iter().any(is_user))
            && (self.networks.is_empty() || self.networks.iter().any(|it| it.contains(client)))
    }
}

fn encoded(text: &str) -> String {
    let mut out = String::new();
    for byte in text.bytes() {
        match byte {
            b'A'..=b'Z' | b'a'..=b'z' | b'0'..=b'9' | b'-' | b'.' | b'_' | b'~' => {
                out.push(char::from(byte));
            }
            _ => out.push_str(&format!("%{byte:02X}")),
        }
    }
    out
}

fn decoded(text: &str) -> Option<String> {
    let mut parts = text.split('%');
    let mut bytes = parts.next()?.as_bytes().to_vec();
    for part in parts {
        let (digits, rest) = part.split_at_checked(2)?;
        let is_hex = digits.bytes().all(|it| it.is_ascii_hexdigit());
        bytes.push(u8::from_str_radix(digits, 16).ok().filter(|_| is_hex)?);
        bytes.extend_from_slice(rest.as_bytes());
    }
    String::from_utf8(bytes).ok()
}

/// What a core is asked.
#[derive(Clone, Debug)]
pub(super) struct Question {
    selection: Arc<Selection>,
    /// End them, instead of telling of them.
    kick: bool,
    /// The sessions behind this one.
    after: u64,
    answer: Sender<Piece>,
}

/// What a core answers.
#[derive(Debug)]
pub(super) struct Piece {
    sessions: Vec<SessionReport>,
    kicked: usize,
    /// Where the next piece begins.
    next: Option<u64>,
}

/// Answers for the next sessions of a core.
pub(super) fn answer(core: &Core, index: usize, question: &Question) {
    let cards = core.register.after(question.after, PIECE_SESSIONS);
    let now = Instant::now();
    let unix = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    let unix = unix.map_or(0, |since| since.as_secs().cast_signed());
    let mut piece = Piece {
        sessions: Vec::new(),
        kicked: 0,
        next: (cards.len() == PIECE_SESSIONS)
            .then(|| cards.last().map(|card| card.id()))
            .flatten(),
    };
    for card in &cards {
        let user = card.user();
        let selection = &question.selection;
        if !selection.has(card.id(), user.as_deref(), card.peer()) {
            continue;
        }
        let user = user.as_deref().map(printable);
        match question.kick {
            false => {
                let age = now.saturating_duration_since(card.started());
                let since = unix - age.as_secs().cast_signed();
                piece.sessions.push(report(card, index, user, since, now));
            }
            true if card.kick() => {
                piece.kicked += 1;
                tracing::info!(session = card.id(), peer = %card.peer(), user, "session kicked");
            }
            true => {}
        }
    }
    // Who asked may have given up.
    let _ = question.answer.send(piece);
}

fn report(
    card: &Card,
    core: usize,
    user: Option<String>,
    since: i64,
    now: Instant,
) -> SessionReport {
    let transfer = card.transfer().map(transfer);
    let idle = match transfer {
        Some(_) => Duration::ZERO,
        None => now.saturating_duration_since(card.heard()),
    };
    SessionReport {
        id: card.id(),
        core,
        user,
        client: card.peer(),
        local: card.local(),
        since,
        idle_seconds: rounded(idle),
        kicked: card.is_kicked(),
        transfer,
    }
}

fn transfer(moving: Moving) -> TransferReport {
    let Moving {
        verb,
        path,
        bytes,
        time,
    } = moving;
    let rate = bytes as f64 / time.max(Duration::from_millis(1)).as_secs_f64();
    let direction = match verb {
        "STOR" | "STOU" | "APPE" => "upload",
        "HASH" => "none",
        _ => "download",
    };
    TransferReport {
        verb: verb.to_owned(),
        path: printable(&path),
        direction: direction.to_owned(),
        bytes,
        seconds: rounded(time),
        bytes_per_second: rate.round(),
    }
}

/// In seconds, to the millisecond.
fn rounded(time: Duration) -> f64 {
    time.as_millis() as f64 / 1000.0
}

/// Asks every core, piece by piece; returns those that did not answer.
fn ask(
    cores: &[Other],
    selection: Selection,
    kick: bool,
    mut take: impl FnMut(Piece),
) -> Vec<usize> {
    let selection = Arc::new(selection);
    let until = Instant::now() + ALL_MAX;
    let mut silent = Vec::new();
    for (index, core) in cores.iter().enumerate() {
        let mut after = Some(0);
        while let Some(id) = after {
            let (answer, piece) = mpsc::channel();
            let question = Question {
                selection: Arc::clone(&selection),
                kick,
                after: id,
                answer,
            };
            let left = until.saturating_duration_since(Instant::now());
            let sent = core.mailbox.try_send(Message::Sessions(question));
            let received = sent.ok().and_then(|()| {
                let patience = left.min(PIECE_PATIENCE);
                piece.recv_timeout(patience).ok()
            });
            after = received.as_ref().and_then(|piece| piece.next);
            match received {
                Some(piece) => take(piece),
                None => silent.push(index),
            }
        }
    }
    silent
}

/// The sessions that are meant, as JSON.
pub(super) fn json(cores: &[Other], selection: Selection) -> String {
    let mut list = String::new();
    let mut left_out = 0;
    let silent_cores = ask(cores, selection, false, |piece| {
        for session in piece.sessions {
            match serde_json::to_string(&session) {
                Ok(text) if list.len() + text.len() < LIST_BYTES_MAX => {
                    list.extend((!list.is_empty()).then_some(",\n"));
                    list.push_str(&text);
                }
                _ => left_out += 1,
            }
        }
    });
    let version = env!("CARGO_PKG_VERSION");
    format!(
        "{{\"version\":\"{version}\",\"left_out\":{left_out},\"silent_cores\":{silent_cores:?},\
         \"sessions\":[\n{list}]}}\n"
    )
}

/// Ends the sessions that are meant; tells how many, and which cores did not answer.
pub(super) fn kick(cores: &[Other], selection: Selection) -> (usize, Vec<usize>) {
    let mut kicked = 0;
    let silent = ask(cores, selection, true, |piece| kicked += piece.kicked);
    (kicked, silent)
}

/// Sessions that a core looks at before it serves its clients again: some 220 µs (6000 idle sessions took
/// 2.6 ms of the core's CPU in 12 pieces).
const PIECE_SESSIONS: usize = 512;

/// How long a core may take for a piece.
const PIECE_PATIENCE: Duration = Duration::from_secs(1);

/// All pieces together; whoever asks waits 5 seconds.
const ALL_MAX: Duration = Duration::from_secs(4);

/// What `ringftpd who` takes of an answer is 16 MiB.
const LIST_BYTES_MAX: usize = 15 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    fn selection(query: &str) -> Selection {
        Selection::parse(query).expect(query)
    }

    #[test]
    fn a_selection_survives_its_query() {
        for query in [
            "",
            "all",
            "id=1&id=20",
            "user=alice&user=a%40b.example&ip=10.0.0.0%2F8&ip=%3A%3A1",
            "user=%C3%A4%26%3D%20%25",
        ] {
            assert_eq!(selection(query).query(), query);
        }
        for (query, told) in [
            ("id=x", "not a number"),
            ("ip=10.0.0.1%2F8", "beyond its prefix"),
            ("user=%4", "broken"),
            ("user=%+1", "broken"),
            ("user=%FF", "broken"),
            ("core=1", "known"),
        ] {
            let error = Selection::parse(query).expect_err(query);
            assert!(error.contains(told), "{query}: {error}");
        }
    }

    #[test]
    fn every_kind_of_condition_must_fit() {
        let client = IpAddr::from([10, 1, 2, 3]);
        for (query, user, fits) in [
            ("", None, true),
            ("all", Some("alice"), true),
            ("id=7", None, true),
            ("id=8&id=7", None, true),
            ("id=8", None, false),
            ("user=alice", Some("alice"), true),
            ("user=alice", Some("alic"), false),
            ("user=alice", None, false),
            ("user=bob&user=alice", Some("alice"), true),
            ("user=anonymous", Some("ftp"), true),
            ("user=FTP", Some("anonymous"), true),
            ("user=ftp", Some("alice"), false),
            ("ip=10.0.0.0/8", None, true),
            ("ip=192.0.2.0/24&ip=10.1.2.3", None, true),
            ("ip=192.0.2.0/24", None, false),
            ("user=alice&ip=10.0.0.0/8", Some("alice"), true),
            ("user=alice&ip=11.0.0.0/8", Some("alice"), false),
            ("id=8&user=alice", Some("alice"), false),
        ] {
            let found = selection(query).has(7, user.map(str::as_bytes), client);
            assert_eq!(found, fits, "{query} {user:?}");
        }
    }

    #[test]
    fn a_transfer_tells_its_way_and_rate() {
        let moving = |verb, bytes, ms| {
            transfer(Moving {
                verb,
                path: b"/a\nb".to_vec(),
                bytes,
                time: Duration::from_millis(ms),
            })
        };
        let upload = moving("STOR", 3000, 1500);
        assert_eq!(
            (upload.direction.as_str(), upload.bytes_per_second),
            ("upload", 2000.0)
        );
        assert_eq!(upload.path, "/a\\nb");
        assert_eq!(moving("MLSD", 0, 0).direction, "download");
        assert_eq!(moving("HASH", 0, 0).bytes_per_second, 0.0);
    }
}
