//! Data connections and transfers: PORT PASV EPRT EPSV REST ABOR STAT, RETR STOR APPE STOU, LIST
//! NLST MLSD, HASH and the X digests.

use std::mem;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};

use super::action::{Endpoint, ListForm, Listing, Plan, StoreMode, Transfer};
use super::event::{Answer, Opened, Transferred};
use super::{Action, Activity, Login, Noted, Question, Session, reply};
use crate::proto::argument::{
    ByteRange, ChecksumArgument, EpsvArgument, HashAlgorithm, ListArgument, NetAddress, TypeCode,
};
use crate::proto::command::{Command, Verb};
use crate::proto::failure::Failure;
use crate::proto::glob;
use crate::proto::network::Network;
use crate::proto::reply::{Code, Reply};
use crate::proto::rights::Right;

impl Session {
    pub(super) fn transfer_command(&mut self, command: Command<'_>) -> Option<Action> {
        let verb = command.verb();
        match command {
            Command::Port(address) => self.active(SocketAddr::V4(address), false),
            Command::Eprt(address) => self.extended_active(&address),
            Command::Pasv => self.passive(),
            Command::Epsv(argument) => self.extended_passive(argument),
            Command::Rest(offset) => {
                self.restart = offset;
                self.reply(Reply::text(
                    Code::NEED_MORE,
                    format!("Restarting at {offset}. Send STOR or RETR."),
                ));
                None
            }
            Command::Abor => {
                // RFC 959 §4.1.3: nothing to abort; the data connection, if any, is closed.
                self.say(
                    Code::CLOSING_DATA,
                    "Abort complete, no transfer is running.",
                );
                self.give_up_endpoint()
            }
            Command::Retr(name) => {
                let offset = mem::take(&mut self.restart);
                let path = self.path_for(Right::Read, name)?;
                let type_code = self.type_code;
                self.start(
                    verb,
                    Transfer::Retrieve {
                        path,
                        type_code,
                        offset,
                    },
                )
            }
            Command::Stor(name) => {
                let mode = match mem::take(&mut self.restart) {
                    0 => StoreMode::Replace,
                    offset => StoreMode::From(offset),
                };
                self.store(verb, name, mode)
            }
            Command::Appe(name) => self.store(verb, name, StoreMode::Append),
            Command::Stou(name) => self.store(verb, name.unwrap_or(UNIQUE_NAME), StoreMode::Unique),
            Command::List(argument) => self.list(verb, argument, ListForm::Long),
            Command::Nlst(argument) => self.list(verb, argument, ListForm::Names),
            Command::Mlsd(name) => {
                let argument = ListArgument {
                    name,
                    ..ListArgument::default()
                };
                self.list(verb, argument, ListForm::Facts)
            }
            Command::Stat(argument) => self.status(argument),
            Command::Hash(name) => self.digest(verb, self.hash, name, ByteRange::default()),
            Command::Checksum(ChecksumArgument {
                algorithm,
                name,
                range,
            }) => self.digest(verb, algorithm, name, range),
            _ => None,
        }
    }

    /// PORT and EPRT. RFC 2577 §3: a foreign address and a port below 1024 are refused with 504, so
    /// that nobody can have third parties connected to; except servers that the operator allows.
    fn active(&mut self, mut address: SocketAddr, extended: bool) -> Option<Action> {
        if address.ip().is_unspecified() {
            // lftp 4.9 asks for "::" on loopback. "Any address" of the client is the one it has.
            address.set_ip(self.client.address);
        }
        if self.epsv_all {
            self.say(Code::BAD_SEQUENCE, "Only EPSV is allowed after EPSV ALL.");
            return None;
        }
        if !self.limits.active {
            self.say(
                Code::NOT_IMPLEMENTED,
                "Active mode is switched off: use PASV or EPSV.",
            );
            return None;
        }
        let is_server = |network: &Network| network.contains(address.ip());
        if address.ip() != self.client.address && !self.limits.fxp.iter().any(is_server) {
            self.noted = Some(Noted::Bounce);
            self.say(
                Code::BAD_PARAMETER,
                "The data connection must go to the address of the control connection.",
            );
            return None;
        }
        if address.port() < 1024 {
            self.noted = Some(Noted::Bounce);
            self.say(Code::BAD_PARAMETER, "Ports below 1024 are not served.");
            return None;
        }
        let give_up = self.give_up_endpoint();
        self.noted = Some(match extended {
            true => Noted::Eprt,
            false => Noted::Port,
        });
        self.endpoint = Some(Endpoint::Active(address));
        self.say(Code::COMMAND_OK, "Data address accepted.");
        give_up
    }

    fn extended_active(&mut self, address: &NetAddress) -> Option<Action> {
        // RFC 2428 §2: 522 names the protocols that work on this control connection.
        let (protocol, text) = match self.client.address {
            IpAddr::V4(_) => (1, "Network protocol not supported, use (1)"),
            IpAddr::V6(_) => (2, "Network protocol not supported, use (2)"),
        };
        match address.address() {
            Some(address) if protocol_of(address.ip()) == protocol => self.active(address, true),
            _ => {
                self.say(Code::BAD_NETWORK_PROTOCOL, text);
                None
            }
        }
    }

    fn passive(&mut self) -> Option<Action> {
        if self.epsv_all {
            self.say(Code::BAD_SEQUENCE, "Only EPSV is allowed after EPSV ALL.");
            return None;
        }
        if self.client.address.is_ipv6() {
            self.say(
                Code::NO_DATA_CONNECTION,
                "PASV works over IPv4 only: use EPSV.",
            );
            return None;
        }
        self.open_passive(false)
    }

    fn extended_passive(&mut self, argument: EpsvArgument) -> Option<Action> {
        let own = protocol_of(self.client.address);
        match argument {
            EpsvArgument::All => {
                self.epsv_all = true;
                self.say(Code::COMMAND_OK, "Only EPSV will be accepted.");
                None
            }
            EpsvArgument::Family(family) if family != own => {
                // RFC 2428 §3: 522, as for EPRT.
                let text = match own {
                    1 => "Network protocol not supported, use (1)",
                    _ => "Network protocol not supported, use (2)",
                };
                self.say(Code::BAD_NETWORK_PROTOCOL, text);
                None
            }
            EpsvArgument::Any | EpsvArgument::Family(_) => self.open_passive(true),
        }
    }

    fn open_passive(&mut self, extended: bool) -> Option<Action> {
        if !self.limits.passive {
            self.say(
                Code::NOT_IMPLEMENTED,
                "Passive mode is switched off: use PORT or EPRT.",
            );
            return None;
        }
        self.endpoint = None;
        self.question = Question::Passive { extended };
        Some(Action::OpenPassive { extended })
    }

    pub(super) fn passive_opened(&mut self, address: Result<SocketAddr, Failure>) {
        let Question::Passive { extended } = mem::replace(&mut self.question, Question::None)
        else {
            return;
        };
        let address = match address {
            Ok(address) => address,
            Err(failure) => {
                self.reply(reply::failed(failure));
                return;
            }
        };
        self.endpoint = Some(Endpoint::Passive);
        let port = address.port();
        let text = match address.ip() {
            // RFC 959 §4.1.2: h1,h2,h3,h4,p1,p2. Clients look for the parenthesis.
            IpAddr::V4(ip) if !extended => {
                let [a, b, c, d] = ip.octets();
                let (high, low) = (port >> 8, port & 0xff);
                format!("Entering Passive Mode ({a},{b},{c},{d},{high},{low}).")
            }
            // RFC 2428 §3.
            _ => format!("Entering Extended Passive Mode (|||{port}|)"),
        };
        let code = match extended {
            false => Code::PASSIVE,
            true => Code::EXTENDED_PASSIVE,
        };
        self.reply(Reply::text(code, text));
    }

    /// Forgets where the data connection would come from.
    fn give_up_endpoint(&mut self) -> Option<Action> {
        match self.endpoint.take() {
            Some(Endpoint::Passive) => Some(Action::ClosePassive),
            _ => None,
        }
    }

    fn store(&mut self, verb: Verb, name: &[u8], mode: StoreMode) -> Option<Action> {
        self.restart = 0;
        let path = self.path_for(Right::Create, name)?;
        let overwrites = self.rights()?.at(path.as_bytes()).has(Right::Overwrite);
        let (type_code, umask) = (self.type_code, self.umask);
        self.start(
            verb,
            Transfer::Store {
                path,
                type_code,
                mode,
                overwrites,
                umask,
            },
        )
    }

    fn list(&mut self, verb: Verb, argument: ListArgument<'_>, form: ListForm) -> Option<Action> {
        self.restart = 0;
        let listing = self.listing(argument, form)?;
        self.start(verb, Transfer::List(listing))
    }

    fn listing(&mut self, argument: ListArgument<'_>, form: ListForm) -> Option<Listing> {
        let name = argument.name.filter(|name| !name.is_empty());
        let mut path = match name {
            Some(name) => self.path(name)?,
            None => self.directory.clone(),
        };
        // Of a pattern the directory counts; what it matches is looked at one by one.
        if let (Some(last), Some(parent)) = (path.name(), path.parent())
            && glob::is_pattern(last)
        {
            path = parent;
        }
        if !self.may(Right::List, &path) {
            return None;
        }
        Some(Listing {
            directory: self.directory.clone(),
            name: name.map(<[u8]>::to_vec),
            options: argument.options,
            form,
            facts: self.facts,
        })
    }

    /// Begins a transfer over the data connection that PORT, PASV or their like prepared.
    fn start(&mut self, verb: Verb, transfer: Transfer) -> Option<Action> {
        let Some(endpoint) = self.endpoint.take() else {
            self.say(
                Code::NO_DATA_CONNECTION,
                "Use PORT, PASV, EPRT or EPSV first.",
            );
            return None;
        };
        if self.limits.tls.data && !self.protection.private {
            self.say(
                Code::UNPROTECTED,
                "Data connections are made over TLS only: send PBSZ 0 and PROT P first.",
            );
            return (endpoint == Endpoint::Passive).then_some(Action::ClosePassive);
        }
        if self.abort_is_deferred() {
            // The client sent ABOR behind this command while an earlier transfer was running.
            self.reply(reply::failed(Failure::Aborted));
            return (endpoint == Endpoint::Passive).then_some(Action::ClosePassive);
        }
        self.activity = Activity::Opening(verb);
        Some(Action::Start(Box::new(Plan {
            transfer,
            endpoint: Some(endpoint),
            protected: self.protection.private,
        })))
    }

    pub(super) fn transfer_opened(&mut self, opened: &Opened) {
        let Activity::Opening(verb) = self.activity else {
            return;
        };
        self.activity = Activity::Running(verb);
        match opened {
            // Clients read the size out of the parenthesis (tnftp, lftp, wget).
            Opened::File { bytes: Some(bytes) } => self.reply(Reply::text(
                Code::FILE_STATUS_OK,
                format!("Opening BINARY mode data connection ({bytes} bytes)."),
            )),
            Opened::File { bytes: None } => {
                self.say(Code::FILE_STATUS_OK, "Opening ASCII mode data connection.");
            }
            Opened::Upload => self.say(Code::FILE_STATUS_OK, "Ok to send data."),
            // RFC 1123 §4.1.2.9: "150 FILE: pppp" exactly.
            Opened::UniqueUpload(name) => {
                let mut text = b"FILE: ".to_vec();
                text.extend_from_slice(name);
                self.reply(Reply::text(Code::FILE_STATUS_OK, text));
            }
            Opened::Listing => self.say(Code::FILE_STATUS_OK, "Here comes the listing."),
        }
    }

    pub(super) fn transfer_ended(&mut self, outcome: Result<Transferred, Failure>) {
        let question = match mem::replace(&mut self.question, Question::None) {
            question @ Question::Digest { .. } => question,
            other => {
                self.question = other;
                Question::None
            }
        };
        let (verb, aborting) = match mem::replace(&mut self.activity, Activity::Idle) {
            Activity::Idle => return,
            Activity::Opening(verb) | Activity::Running(verb) => (Some(verb), false),
            Activity::Aborting => (None, true),
        };
        match outcome {
            Ok(Transferred::Bytes(_)) => self.say(Code::CLOSING_DATA, "Transfer complete."),
            Ok(Transferred::Digest { hex, start, end }) => {
                self.digest_done(question, hex, start, end);
            }
            // RFC 959 §4.1.3: 426 for what was aborted; 226 for ABOR follows in its turn.
            Err(_) if aborting => self.reply(reply::failed(Failure::Aborted)),
            Err(failure) => {
                let storing = matches!(verb, Some(Verb::Stor | Verb::Appe | Verb::Stou));
                self.reply(reply::transfer_failed(failure, storing));
            }
        }
    }

    fn digest(
        &mut self,
        verb: Verb,
        algorithm: HashAlgorithm,
        name: &[u8],
        range: ByteRange,
    ) -> Option<Action> {
        let path = self.path_for(Right::Read, name)?;
        self.activity = Activity::Running(verb);
        self.question = Question::Digest {
            verb,
            algorithm,
            name: name.to_vec(),
        };
        Some(Action::Start(Box::new(Plan {
            transfer: Transfer::Digest {
                path,
                algorithm,
                range,
            },
            endpoint: None,
            protected: false,
        })))
    }

    fn digest_done(&mut self, question: Question, hex: String, start: u64, end: u64) {
        let Question::Digest {
            verb,
            algorithm,
            name,
        } = question
        else {
            return;
        };
        if verb == Verb::Hash {
            // draft-bryan-ftpext-hash-02 §3.2: "213 algorithm start-end digest name".
            let mut text = format!("{} {start}-{end} {hex} ", algorithm.name()).into_bytes();
            text.extend_from_slice(&name);
            self.reply(Reply::text(Code::FILE_STATUS, text));
        } else {
            self.reply(Reply::text(Code::FILE_ACTION_OK, hex.to_ascii_uppercase()));
        }
    }

    fn status(&mut self, argument: Option<ListArgument<'_>>) -> Option<Action> {
        let Some(argument) = argument else {
            self.system_status();
            return None;
        };
        let mut listing = self.listing(argument, ListForm::Long)?;
        // The heading of a directory within a directory could look like the last line of a reply.
        listing.options.recursive = false;
        self.question = Question::ListHere { begun: false };
        Some(Action::ListHere(listing))
    }

    fn system_status(&mut self) {
        let user = match &self.login {
            Login::In { user, .. } => String::from_utf8_lossy(user).into_owned(),
            _ => "nobody".to_owned(),
        };
        let kind = match self.type_code {
            TypeCode::Ascii => "ASCII, FORM: Nonprint",
            TypeCode::Image => "Image",
        };
        let data = match self.endpoint {
            None => "No data connection prepared".to_owned(),
            Some(Endpoint::Passive) => "Waiting for a passive data connection".to_owned(),
            Some(Endpoint::Active(address)) => format!("Data connection to {address}"),
        };
        let protection = match (self.protection.control, self.protection.private) {
            (false, false) => "Control and data connections are not protected",
            (false, true) => "Control connection not protected, data connections by TLS",
            (true, false) => "Control connection protected by TLS, data connections not",
            (true, true) => "Control and data connections protected by TLS",
        };
        let lines = [
            format!("Connected from {}", self.client.address),
            protection.to_owned(),
            format!("Logged in as {user}"),
            format!("TYPE: {kind}; STRU: File; MODE: Stream"),
            data,
        ];
        self.reply(Reply::lines(
            Code::SYSTEM_STATUS,
            "ringftpd status:",
            lines.into_iter().map(String::into_bytes).collect(),
            "End of status.",
        ));
    }

    /// The first line of the answer to STAT with a name; the lines of the listing follow it.
    pub fn listing_begins(&mut self) {
        self.question = Question::ListHere { begun: true };
        self.output.extend_from_slice(b"213-Status follows:\r\n");
    }

    /// The answer to STAT: of the running transfer, or of the listing that has just been sent.
    pub(super) fn status_answered(&mut self, question: Question, answer: Result<Answer, Failure>) {
        match (question, answer) {
            (_, Ok(Answer::Progress(progress))) => {
                let text = format!(
                    "Transfer in progress: {} bytes in {} s.",
                    progress.bytes, progress.seconds
                );
                self.reply(Reply::text(Code::SYSTEM_STATUS, text));
            }
            (_, Ok(_)) => self.say(Code::FILE_STATUS, "End of status."),
            // RFC 959 §4.2: the last line begins with the code of the first.
            (Question::ListHere { begun: true }, Err(_)) => {
                self.say(
                    Code::FILE_STATUS,
                    "End of status: the listing is incomplete.",
                );
            }
            (_, Err(failure)) => self.reply(reply::failed(failure)),
        }
    }
}

/// RFC 2428 §2: the number of an address family.
fn protocol_of(address: IpAddr) -> u8 {
    match address {
        IpAddr::V4(Ipv4Addr { .. }) => 1,
        IpAddr::V6(Ipv6Addr { .. }) => 2,
    }
}

/// What a file is called when STOU names none.
const UNIQUE_NAME: &[u8] = b"upload";
