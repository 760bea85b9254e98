//! The user's tree: CWD CDUP PWD MKD RMD DELE RNFR RNTO SIZE MDTM MLST MFMT MFF AVBL, SITE CHMOD,
//! UMASK, UTIME, HELP, IDLE.

use std::time::Duration;

use super::action::{Attributes, Request};
use super::event::Answer;
use super::{Action, Question, Session, reply};
use crate::proto::argument::{FactList, Timestamp, parse_octal_mode};
use crate::proto::command::Command;
use crate::proto::command::SiteCommand;
use crate::proto::failure::Failure;
use crate::proto::feature;
use crate::proto::path::VirtualPath;
use crate::proto::reply::{Code, Reply, quoted};
use crate::proto::rights::{Right, RightSet};
use crate::proto::time;

impl Session {
    pub(super) fn tree_command(&mut self, command: Command<'_>) -> Option<Action> {
        match command {
            Command::Cwd(name) => {
                let path = self.path(name)?;
                self.enter(path)
            }
            Command::Cdup => {
                let path = self.directory.parent().unwrap_or_else(VirtualPath::root);
                self.enter(path)
            }
            Command::Pwd => {
                let mut text = quoted(self.directory.as_bytes());
                text.extend_from_slice(b" is the current directory.");
                self.reply(Reply::text(Code::PATHNAME, text));
                None
            }
            Command::Mkd(_) | Command::Rmd(_) | Command::Dele(_) | Command::Rnfr(_) => {
                self.change_names(command)
            }
            Command::Size(name) => {
                let path = self.path_for(Right::List, name)?;
                let type_code = self.type_code;
                self.ask(Question::Size, Request::Size(path, type_code))
            }
            Command::Mdtm(name) => {
                let path = self.path_for(Right::List, name)?;
                self.ask(Question::Modified, Request::Modified(path))
            }
            Command::Mlst(name) => {
                let path = match name {
                    Some(name) => self.path(name)?,
                    None => self.directory.clone(),
                };
                if !self.may(Right::List, &path) {
                    return None;
                }
                let facts = self.facts;
                self.ask(Question::Facts, Request::Facts(path, facts))
            }
            Command::Avbl(name) => {
                let path = match name {
                    Some(name) => self.path(name)?,
                    None => self.directory.clone(),
                };
                if !self.exists_for_user(&path) {
                    return None;
                }
                self.ask(Question::FreeBytes, Request::FreeBytes(path))
            }
            Command::Mfmt(modified, name) => self.modify_time(modified, name),
            Command::Mff(facts, name) => self.modify_facts(&facts, name),
            Command::Mfct(..) => {
                // draft-somers-ftp-mfxx-04 §4: Linux has no call that sets a creation time.
                self.say(
                    Code::BAD_PARAMETER,
                    "Creation times cannot be set on this system.",
                );
                None
            }
            Command::Site(site) => self.site(site),
            _ => None,
        }
    }

    /// The commands that make, remove and rename.
    fn change_names(&mut self, command: Command<'_>) -> Option<Action> {
        match command {
            Command::Mkd(name) => {
                let path = self.path_for(Right::MakeDirectory, name)?;
                let umask = self.umask;
                self.ask(
                    Question::MakeDirectory(path.clone()),
                    Request::MakeDirectory(path, umask),
                )
            }
            Command::Rmd(name) => {
                let path = self.path_for(Right::Delete, name)?;
                let question = Question::Simple(Code::FILE_ACTION_OK, "Directory removed.");
                self.ask(question, Request::RemoveDirectory(path))
            }
            Command::Dele(name) => {
                let path = self.path_for(Right::Delete, name)?;
                let question = Question::Simple(Code::FILE_ACTION_OK, "File removed.");
                self.ask(question, Request::RemoveFile(path))
            }
            Command::Rnfr(name) => {
                let path = self.path_for(Right::Rename, name)?;
                // What no rule reaches here must not be carried to where none does.
                if !self.rights()?.are_the_same_below(&path) {
                    self.reply(reply::failed(Failure::Denied));
                    return None;
                }
                self.ask(Question::RenameFrom(path.clone()), Request::Exists(path))
            }
            _ => None,
        }
    }

    pub(super) fn rename_to(&mut self, from: Option<VirtualPath>, name: &[u8]) -> Option<Action> {
        let Some(from) = from else {
            // RFC 959 §5.4: 503. Without a login RNFR cannot have come before.
            self.say(Code::BAD_SEQUENCE, "Send RNFR first.");
            return None;
        };
        let to = self.path_for(Right::Create, name)?;
        if !self.rights()?.may_become(&from, &to) {
            self.say(
                Code::UNAVAILABLE,
                "Permission denied: other rules hold at the new name.",
            );
            return None;
        }
        let overwrites = self.rights()?.at(to.as_bytes()).has(Right::Overwrite);
        let question = Question::Simple(Code::FILE_ACTION_OK, "Renamed.");
        let request = match overwrites {
            true => Request::Rename(from, to),
            false => Request::RenameNew(from, to),
        };
        self.ask(question, request)
    }

    /// Answers what [`Session::tree_command`] asked.
    pub(super) fn tree_answered(&mut self, question: Question, answer: Result<Answer, Failure>) {
        let answer = match answer {
            Ok(answer) => answer,
            Err(failure) => {
                self.reply(reply::failed(failure));
                return;
            }
        };
        match (question, answer) {
            (Question::Enter(path), _) => {
                self.directory = path;
                self.say(Code::FILE_ACTION_OK, "Directory changed.");
            }
            (Question::RenameFrom(path), _) => {
                self.rename_from = Some(path);
                self.say(Code::NEED_MORE, "Ready for RNTO.");
            }
            (Question::MakeDirectory(path), _) => {
                let mut text = quoted(path.as_bytes());
                text.extend_from_slice(b" created.");
                self.reply(Reply::text(Code::PATHNAME, text));
            }
            (Question::Simple(code, text), _) => self.say(code, text),
            (Question::Changed(text), _) => self.reply(Reply::text(Code::FILE_STATUS, text)),
            (Question::Size | Question::FreeBytes, Answer::Bytes(bytes)) => {
                self.reply(Reply::text(Code::FILE_STATUS, bytes.to_string()));
            }
            (Question::Modified, Answer::Modified(modified)) => {
                let mut text = Vec::new();
                time::write_timestamp(&mut text, modified);
                self.reply(Reply::text(Code::FILE_STATUS, text));
            }
            // RFC 3659 §7.2: 250-, one line that begins with a space, 250.
            (Question::Facts, Answer::Line(line)) => self.reply(Reply::lines(
                Code::FILE_ACTION_OK,
                "Listing follows:",
                vec![line],
                "End.",
            )),
            _ => {}
        }
    }

    /// Changes to a directory where the user may do anything at all.
    fn enter(&mut self, path: VirtualPath) -> Option<Action> {
        if !self.exists_for_user(&path) {
            return None;
        }
        if self.rights()?.at(path.as_bytes()) == RightSet::NONE {
            self.reply(reply::failed(Failure::Denied));
            return None;
        }
        self.ask(Question::Enter(path.clone()), Request::Enter(path))
    }

    /// Whether a path is not hidden from the user; replies if it is.
    pub(super) fn exists_for_user(&mut self, path: &VirtualPath) -> bool {
        let exists = self
            .rights()
            .is_some_and(|rights| !rights.hides(path.as_bytes()));
        if !exists {
            self.reply(reply::failed(Failure::NotFound));
        }
        exists
    }

    /// draft-somers-ftp-mfxx-04 §3: "213 Modify=YYYYMMDDHHMMSS; name".
    fn modify_time(&mut self, modified: Timestamp, name: &[u8]) -> Option<Action> {
        let path = self.path_for(Right::Attributes, name)?;
        let attributes = Attributes {
            modified: Some(modified.seconds()),
            mode: None,
        };
        let text = changed(attributes, name);
        self.ask(
            Question::Changed(text),
            Request::SetAttributes(path, attributes),
        )
    }

    /// draft-somers-ftp-mfxx-04 §5: all facts are set, or none is.
    fn modify_facts(&mut self, facts: &FactList<'_>, name: &[u8]) -> Option<Action> {
        let path = self.path_for(Right::Attributes, name)?;
        let mut attributes = Attributes::default();
        for (fact, value) in facts.iter() {
            if fact.eq_ignore_ascii_case(b"modify") {
                attributes.modified = Timestamp::parse(value).map(Timestamp::seconds);
            } else if fact.eq_ignore_ascii_case(b"UNIX.mode") {
                attributes.mode = parse_octal_mode(value);
            } else {
                self.say(Code::BAD_PARAMETER, "Only Modify and UNIX.mode can be set.");
                return None;
            }
            let known = match fact.eq_ignore_ascii_case(b"modify") {
                true => attributes.modified.is_some(),
                false => attributes.mode.is_some(),
            };
            if !known {
                self.say(Code::BAD_ARGUMENT, "Not a valid value of a fact.");
                return None;
            }
        }
        let text = changed(attributes, name);
        self.ask(
            Question::Changed(text),
            Request::SetAttributes(path, attributes),
        )
    }

    fn site(&mut self, site: SiteCommand<'_>) -> Option<Action> {
        match site {
            SiteCommand::Chmod { mode, name } => {
                let path = self.path_for(Right::Attributes, name)?;
                let attributes = Attributes {
                    mode: Some(mode),
                    modified: None,
                };
                let question = Question::Simple(Code::COMMAND_OK, "Mode changed.");
                self.ask(question, Request::SetAttributes(path, attributes))
            }
            SiteCommand::Utime { modified, name } => {
                let path = self.path_for(Right::Attributes, name)?;
                let attributes = Attributes {
                    modified: Some(modified.seconds()),
                    mode: None,
                };
                let question = Question::Simple(Code::COMMAND_OK, "Time changed.");
                self.ask(question, Request::SetAttributes(path, attributes))
            }
            SiteCommand::Umask(None) => {
                let text = match self.umask {
                    Some(umask) => format!("Umask is {umask:03o}."),
                    None => "Umask is as the server is configured.".to_owned(),
                };
                self.reply(Reply::text(Code::COMMAND_OK, text));
                None
            }
            SiteCommand::Umask(Some(umask)) => {
                self.umask = Some(umask);
                self.reply(Reply::text(
                    Code::COMMAND_OK,
                    format!("Umask set to {umask:03o}."),
                ));
                None
            }
            SiteCommand::Idle(seconds) => {
                self.idle(seconds);
                None
            }
            SiteCommand::Help(_) => {
                self.reply(feature::site_help());
                None
            }
        }
    }

    /// SITE IDLE: a client may shorten the time that it may be silent, not lengthen it.
    fn idle(&mut self, seconds: Option<u64>) {
        let longest = self.limits.idle_timeout;
        if let Some(seconds) = seconds {
            let wanted = Duration::from_secs(seconds);
            if wanted > longest || wanted < IDLE_TIMEOUT_MIN {
                self.reply(Reply::text(
                    Code::BAD_ARGUMENT,
                    format!(
                        "Idle time must be {} to {} seconds.",
                        IDLE_TIMEOUT_MIN.as_secs(),
                        longest.as_secs()
                    ),
                ));
                return;
            }
            self.idle_timeout = wanted;
        }
        let text = format!(
            "Idle time limit is {} seconds.",
            self.idle_timeout.as_secs()
        );
        self.reply(Reply::text(Code::COMMAND_OK, text));
    }
}

/// "Modify=20260101000000;UNIX.mode=0644; name": the facts that were set.
fn changed(attributes: Attributes, name: &[u8]) -> Vec<u8> {
    let mut text = Vec::new();
    if let Some(modified) = attributes.modified {
        text.extend_from_slice(b"Modify=");
        time::write_timestamp(&mut text, modified);
        text.push(b';');
    }
    if let Some(mode) = attributes.mode {
        text.extend_from_slice(format!("UNIX.mode={mode:04o};").as_bytes());
    }
    text.push(b' ');
    text.extend_from_slice(name);
    text
}

/// Shorter would close sessions between two commands of one transfer.
const IDLE_TIMEOUT_MIN: Duration = Duration::from_secs(10);
