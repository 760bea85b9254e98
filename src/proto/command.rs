//! Commands out of control lines (RFC 959 §4.1 and §5.3, and the RFCs that extend it).
//!
//! A command borrows from its line and nothing is allocated. One space stands between verb and
//! argument; further ones belong to the argument, since names may begin with spaces. Names are
//! bytes (RFC 2640 §3.1), but none has a control byte: a NUL would cut a name short in the kernel,
//! and a line end could forge a reply or a log line.

mod nested;
mod verb;

use std::fmt;
use std::net::SocketAddrV4;

use thiserror::Error;

use super::argument::{
    ChecksumArgument, EpsvArgument, FactList, HashAlgorithm, ListArgument, NetAddress, Timestamp,
    TypeCode, parse_decimal, parse_host_port,
};
use super::reply::{Code, Reply};

pub use nested::{OptsCommand, SiteCommand};
pub use verb::Verb;

pub(super) use nested::SITE_TABLE;
pub(super) use verb::{Standing, TABLE};

/// A command with its argument.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Command<'a> {
    /// The user's name.
    User(&'a [u8]),
    /// The password; may be empty.
    Pass(Secret<'a>),
    /// The account.
    Acct(Secret<'a>),
    /// Enter a directory.
    Cwd(&'a [u8]),
    /// Enter the parent directory.
    Cdup,
    /// End the session.
    Quit,
    /// Begin the session anew.
    Rein,
    /// Connect to this address for data.
    Port(SocketAddrV4),
    /// Wait for a data connection.
    Pasv,
    /// Connect to this address of any family for data.
    Eprt(NetAddress),
    /// Wait for a data connection of any family.
    Epsv(EpsvArgument),
    /// Set the representation type.
    Type(TypeCode),
    /// Set the structure, of which only File is served.
    Stru(StructureCode),
    /// Set the mode, of which only Stream is served.
    Mode(ModeCode),
    /// Send a file.
    Retr(&'a [u8]),
    /// Receive a file.
    Stor(&'a [u8]),
    /// Receive a file under a new name, which may be suggested.
    Stou(Option<&'a [u8]>),
    /// Receive what is to be added to a file.
    Appe(&'a [u8]),
    /// Reserve this many bytes.
    Allo(u64),
    /// Begin the next transfer at this offset.
    Rest(u64),
    /// Rename this, the new name follows.
    Rnfr(&'a [u8]),
    /// Rename to this.
    Rnto(&'a [u8]),
    /// End the transfer.
    Abor,
    /// Remove a file.
    Dele(&'a [u8]),
    /// Remove a directory.
    Rmd(&'a [u8]),
    /// Make a directory.
    Mkd(&'a [u8]),
    /// Tell the current directory.
    Pwd,
    /// List in long form.
    List(ListArgument<'a>),
    /// List names.
    Nlst(ListArgument<'a>),
    /// Tell the facts of one entry, by default the current directory.
    Mlst(Option<&'a [u8]>),
    /// List facts of all entries of a directory, by default the current one.
    Mlsd(Option<&'a [u8]>),
    /// A command that FTP does not know.
    Site(SiteCommand<'a>),
    /// Tell the system's type.
    Syst,
    /// Tell the session's state, or list over the control connection.
    Stat(Option<ListArgument<'a>>),
    /// Help, with a command or in general.
    Help(Option<&'a [u8]>),
    /// Nothing.
    Noop,
    /// List features.
    Feat,
    /// Set an option of a command.
    Opts(OptsCommand),
    /// Set the language of replies; `None`: the default.
    Lang(Option<&'a [u8]>),
    /// Tell a file's size.
    Size(&'a [u8]),
    /// Tell when a file was modified.
    Mdtm(&'a [u8]),
    /// Set when a file was modified.
    Mfmt(Timestamp, &'a [u8]),
    /// Set when a file was created.
    Mfct(Timestamp, &'a [u8]),
    /// Set facts of a file.
    Mff(FactList<'a>, &'a [u8]),
    /// Digest of a file by the algorithm that OPTS HASH set.
    Hash(&'a [u8]),
    /// Digest of a file, or of a part of it, by the algorithm that the verb names.
    Checksum(ChecksumArgument<'a>),
    /// Tell how much may still be stored in a directory, by default the current one.
    Avbl(Option<&'a [u8]>),
    /// The client's name.
    Clnt(&'a [u8]),
    /// The client's facts, for the server's.
    Csid(&'a [u8]),
    /// The name of the host that the client wants.
    Host(&'a [u8]),
    /// Protect the control connection by this mechanism.
    Auth(&'a [u8]),
    /// The size of protected blocks, of which TLS has none of its own.
    Pbsz(u64),
    /// How data connections are protected.
    Prot(ProtectionCode),
    /// Protect the control connection no more.
    Ccc,
}

/// The argument of PROT (RFC 2228 §3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ProtectionCode {
    /// `C`: not at all.
    Clear,
    /// `S`: nobody can change what is sent. TLS does not have it without the next.
    Safe,
    /// `E`: nobody else can read it.
    Confidential,
    /// `P`: both.
    Private,
}

/// The argument of STRU (RFC 959 §3.1.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StructureCode {
    /// `F`: a file is bytes, without records or pages.
    File,
}

/// The argument of MODE (RFC 959 §3.4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ModeCode {
    /// `S`: a transfer is bytes, and ends with its data connection.
    Stream,
}

/// A password on its way to the authenticator; it cannot be printed.
#[derive(Clone, Copy, Eq, PartialEq)]
pub struct Secret<'a>(&'a [u8]);

impl<'a> Secret<'a> {
    /// What the client sent.
    pub const fn expose(self) -> &'a [u8] {
        self.0
    }
}

/// The password never reaches a log.
impl fmt::Debug for Secret<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("…")
    }
}

/// Why a line is no command that can be carried out, as the client is told it.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
#[error("{text}")]
pub struct SyntaxError {
    code: Code,
    text: &'static str,
}

impl SyntaxError {
    const fn new(code: Code, text: &'static str) -> Self {
        Self { code, text }
    }

    /// The code of the reply.
    pub const fn code(&self) -> Code {
        self.code
    }
}

impl From<SyntaxError> for Reply {
    fn from(error: SyntaxError) -> Self {
        Self::new(error.code, error.text)
    }
}

/// The command that a control line holds.
///
/// # Errors
///
/// RFC 959 §4.2.1: 500 for an unknown verb, 501 for an argument that is missing or wrong, 502 for a
/// verb that is known but not offered, 504 for a parameter that is.
pub fn parse(line: &[u8]) -> Result<Command<'_>, SyntaxError> {
    let (token, argument) = split_word(line);
    let verb = Verb::parse(token).ok_or(UNKNOWN_COMMAND)?;
    // RFC 959 §5.3.1: a password may have any byte but CR and LF, and names no file.
    if !matches!(verb, Verb::Pass | Verb::Acct) && has_control_byte(argument) {
        return Err(CONTROL_BYTE);
    }
    with_argument(verb, argument)
}

/// One line for each verb: the length of the protocol is the length of this function.
fn with_argument(verb: Verb, argument: &[u8]) -> Result<Command<'_>, SyntaxError> {
    Ok(match verb {
        Verb::User => Command::User(required(argument)?),
        Verb::Pass => Command::Pass(Secret(argument)),
        Verb::Acct => Command::Acct(Secret(required(argument)?)),
        Verb::Cwd => Command::Cwd(required(argument)?),
        Verb::Cdup => Command::Cdup,
        Verb::Quit => Command::Quit,
        Verb::Rein => none(argument, Command::Rein)?,
        Verb::Port => Command::Port(parse_host_port(argument).ok_or(BAD_ADDRESS)?),
        Verb::Pasv => Command::Pasv,
        Verb::Eprt => Command::Eprt(NetAddress::parse(argument).ok_or(BAD_ADDRESS)?),
        Verb::Epsv => Command::Epsv(EpsvArgument::parse(argument).ok_or(BAD_ARGUMENT)?),
        Verb::Type => Command::Type(type_code(argument)?),
        Verb::Stru => Command::Stru(letter(argument, StructureCode::File, b'F', b"RP")?),
        Verb::Mode => Command::Mode(letter(argument, ModeCode::Stream, b'S', b"BC")?),
        Verb::Retr => Command::Retr(required(argument)?),
        Verb::Stor => Command::Stor(required(argument)?),
        Verb::Stou => Command::Stou(optional(argument)),
        Verb::Appe => Command::Appe(required(argument)?),
        Verb::Allo => Command::Allo(allocation(argument).ok_or(BAD_NUMBER)?),
        Verb::Rest => Command::Rest(parse_decimal(argument).ok_or(BAD_NUMBER)?),
        Verb::Rnfr => Command::Rnfr(required(argument)?),
        Verb::Rnto => Command::Rnto(required(argument)?),
        Verb::Abor => Command::Abor,
        Verb::Dele => Command::Dele(required(argument)?),
        Verb::Rmd => Command::Rmd(required(argument)?),
        Verb::Mkd => Command::Mkd(required(argument)?),
        Verb::Pwd => Command::Pwd,
        Verb::List => Command::List(ListArgument::parse(argument)),
        Verb::Nlst => Command::Nlst(ListArgument::parse(argument)),
        Verb::Site => Command::Site(nested::parse_site(argument)?),
        Verb::Syst => Command::Syst,
        Verb::Stat => Command::Stat(optional(argument).map(ListArgument::parse)),
        Verb::Help => Command::Help(optional(argument)),
        Verb::Noop => Command::Noop,
        Verb::Feat => Command::Feat,
        Verb::Opts => Command::Opts(nested::parse_opts(argument)?),
        Verb::Lang => Command::Lang(language(argument)?),
        Verb::Mdtm => Command::Mdtm(required(argument)?),
        Verb::Size => Command::Size(required(argument)?),
        Verb::Mlst => Command::Mlst(optional(argument)),
        Verb::Mlsd => Command::Mlsd(optional(argument)),
        Verb::Host => Command::Host(host(argument)?),
        Verb::Mfmt => timed(argument, Command::Mfmt)?,
        Verb::Mfct => timed(argument, Command::Mfct)?,
        Verb::Mff => facts(argument)?,
        Verb::Hash => Command::Hash(required(argument)?),
        Verb::Xcrc => checksum(HashAlgorithm::Crc32, argument)?,
        Verb::Xmd5 => checksum(HashAlgorithm::Md5, argument)?,
        Verb::Xsha1 => checksum(HashAlgorithm::Sha1, argument)?,
        Verb::Xsha256 => checksum(HashAlgorithm::Sha256, argument)?,
        Verb::Xsha512 => checksum(HashAlgorithm::Sha512, argument)?,
        Verb::Avbl => Command::Avbl(optional(argument)),
        Verb::Clnt => Command::Clnt(required(argument)?),
        Verb::Csid => Command::Csid(required(argument)?),
        Verb::Auth => Command::Auth(required(argument)?),
        Verb::Pbsz => Command::Pbsz(parse_decimal(argument).ok_or(BAD_NUMBER)?),
        Verb::Prot => Command::Prot(protection(argument)?),
        Verb::Ccc => none(argument, Command::Ccc)?,
        Verb::Smnt | Verb::Adat | Verb::Mic => return Err(NOT_OFFERED),
        Verb::Conf | Verb::Enc => return Err(NOT_OFFERED),
    })
}

impl Command<'_> {
    /// Its verb.
    pub const fn verb(&self) -> Verb {
        match self {
            Self::User(_) => Verb::User,
            Self::Pass(_) => Verb::Pass,
            Self::Acct(_) => Verb::Acct,
            Self::Cwd(_) => Verb::Cwd,
            Self::Cdup => Verb::Cdup,
            Self::Quit => Verb::Quit,
            Self::Rein => Verb::Rein,
            Self::Port(_) => Verb::Port,
            Self::Pasv => Verb::Pasv,
            Self::Eprt(_) => Verb::Eprt,
            Self::Epsv(_) => Verb::Epsv,
            Self::Type(_) => Verb::Type,
            Self::Stru(_) => Verb::Stru,
            Self::Mode(_) => Verb::Mode,
            Self::Retr(_) => Verb::Retr,
            Self::Stor(_) => Verb::Stor,
            Self::Stou(_) => Verb::Stou,
            Self::Appe(_) => Verb::Appe,
            Self::Allo(_) => Verb::Allo,
            Self::Rest(_) => Verb::Rest,
            Self::Rnfr(_) => Verb::Rnfr,
            Self::Rnto(_) => Verb::Rnto,
            Self::Abor => Verb::Abor,
            Self::Dele(_) => Verb::Dele,
            Self::Rmd(_) => Verb::Rmd,
            Self::Mkd(_) => Verb::Mkd,
            Self::Pwd => Verb::Pwd,
            Self::List(_) => Verb::List,
            Self::Nlst(_) => Verb::Nlst,
            Self::Mlst(_) => Verb::Mlst,
            Self::Mlsd(_) => Verb::Mlsd,
            Self::Site(_) => Verb::Site,
            Self::Syst => Verb::Syst,
            Self::Stat(_) => Verb::Stat,
            Self::Help(_) => Verb::Help,
            Self::Noop => Verb::Noop,
            Self::Feat => Verb::Feat,
            Self::Opts(_) => Verb::Opts,
            Self::Lang(_) => Verb::Lang,
            Self::Size(_) => Verb::Size,
            Self::Mdtm(_) => Verb::Mdtm,
            Self::Mfmt(..) => Verb::Mfmt,
            Self::Mfct(..) => Verb::Mfct,
            Self::Mff(..) => Verb::Mff,
            Self::Hash(_) => Verb::Hash,
            Self::Checksum(argument) => match argument.algorithm {
                HashAlgorithm::Crc32 => Verb::Xcrc,
                HashAlgorithm::Md5 => Verb::Xmd5,
                HashAlgorithm::Sha1 => Verb::Xsha1,
                HashAlgorithm::Sha256 => Verb::Xsha256,
                HashAlgorithm::Sha512 => Verb::Xsha512,
            },
            Self::Avbl(_) => Verb::Avbl,
            Self::Clnt(_) => Verb::Clnt,
            Self::Csid(_) => Verb::Csid,
            Self::Host(_) => Verb::Host,
            Self::Auth(_) => Verb::Auth,
            Self::Pbsz(_) => Verb::Pbsz,
            Self::Prot(_) => Verb::Prot,
            Self::Ccc => Verb::Ccc,
        }
    }
}

/// Splits at the first space, which belongs to neither part.
fn split_word(text: &[u8]) -> (&[u8], &[u8]) {
    match memchr::memchr(b' ', text) {
        Some(space) => (&text[..space], &text[space + 1..]),
        None => (text, &[]),
    }
}

/// Looks at all bytes whatever they are, so that the compiler can take many at a time.
fn has_control_byte(text: &[u8]) -> bool {
    text.iter()
        .fold(false, |found, byte| found | byte.is_ascii_control())
}

fn required(argument: &[u8]) -> Result<&[u8], SyntaxError> {
    optional(argument).ok_or(MISSING_ARGUMENT)
}

fn optional(argument: &[u8]) -> Option<&[u8]> {
    (!argument.is_empty()).then_some(argument)
}

/// Blanks are no argument. Verbs that change nothing, or that clients decorate, do not even look.
fn none<'a>(argument: &[u8], command: Command<'a>) -> Result<Command<'a>, SyntaxError> {
    match argument.iter().all(|&byte| byte == b' ') {
        true => Ok(command),
        false => Err(SUPERFLUOUS_ARGUMENT),
    }
}

/// RFC 959 §5.4: 501 for what TYPE does not know, 504 for what it knows but is not served here.
fn type_code(argument: &[u8]) -> Result<TypeCode, SyntaxError> {
    TypeCode::parse(argument).ok_or_else(|| match split_word(argument).0 {
        b"A" | b"a" | b"E" | b"e" | b"I" | b"i" | b"L" | b"l" => BAD_PARAMETER,
        b"" => MISSING_ARGUMENT,
        _ => BAD_ARGUMENT,
    })
}

/// A code of one letter, of which one is served and others are known.
fn letter<T>(argument: &[u8], value: T, served: u8, known: &[u8]) -> Result<T, SyntaxError> {
    match argument {
        [letter] if letter.eq_ignore_ascii_case(&served) => Ok(value),
        [letter] if known.contains(&letter.to_ascii_uppercase()) => Err(BAD_PARAMETER),
        [] => Err(MISSING_ARGUMENT),
        _ => Err(BAD_ARGUMENT),
    }
}

/// RFC 2228 §3: 504 for a level that nobody knows.
fn protection(argument: &[u8]) -> Result<ProtectionCode, SyntaxError> {
    match argument {
        [b'C' | b'c'] => Ok(ProtectionCode::Clear),
        [b'S' | b's'] => Ok(ProtectionCode::Safe),
        [b'E' | b'e'] => Ok(ProtectionCode::Confidential),
        [b'P' | b'p'] => Ok(ProtectionCode::Private),
        [] => Err(MISSING_ARGUMENT),
        _ => Err(BAD_PARAMETER),
    }
}

/// RFC 959 §4.1.3: bytes, and for record structure `R` and bytes.
fn allocation(argument: &[u8]) -> Option<u64> {
    let (bytes, rest) = split_word(argument);
    let (r, record) = split_word(rest);
    match r {
        b"" if record.is_empty() => {}
        b"R" | b"r" => _ = parse_decimal(record)?,
        _ => return None,
    }
    parse_decimal(bytes)
}

/// RFC 2640 §4.1, a tag of RFC 1766: parts of one to eight letters and digits, `-` between them.
fn language(argument: &[u8]) -> Result<Option<&[u8]>, SyntaxError> {
    let is_tag = |tag: &[u8]| {
        tag.split(|&byte| byte == b'-')
            .all(|part| (1..=8).contains(&part.len()) && part.iter().all(u8::is_ascii_alphanumeric))
    };
    match optional(argument) {
        Some(tag) if !is_tag(tag) => Err(BAD_ARGUMENT),
        tag => Ok(tag),
    }
}

/// RFC 7151 §3.1: a domain name in ASCII, or an address, of IPv6 in brackets.
fn host(argument: &[u8]) -> Result<&[u8], SyntaxError> {
    let name = required(argument)?;
    let is_host = |byte: &u8| byte.is_ascii_alphanumeric() || b"-._:[]".contains(byte);
    match name.len() <= HOST_LENGTH_MAX && name.iter().all(is_host) {
        true => Ok(name),
        false => Err(BAD_ARGUMENT),
    }
}

fn timed<'a>(
    argument: &'a [u8],
    command: impl FnOnce(Timestamp, &'a [u8]) -> Command<'a>,
) -> Result<Command<'a>, SyntaxError> {
    let (time, name) = split_word(argument);
    let time = Timestamp::parse(time).ok_or(BAD_TIME)?;
    Ok(command(time, required(name)?))
}

fn facts(argument: &[u8]) -> Result<Command<'_>, SyntaxError> {
    let (facts, name) = split_word(argument);
    let facts = FactList::parse(facts).ok_or(BAD_ARGUMENT)?;
    Ok(Command::Mff(facts, required(name)?))
}

fn checksum(algorithm: HashAlgorithm, argument: &[u8]) -> Result<Command<'_>, SyntaxError> {
    let argument = required(argument)?;
    let argument = ChecksumArgument::parse(algorithm, argument).ok_or(BAD_ARGUMENT)?;
    Ok(Command::Checksum(argument))
}

/// RFC 1035 §2.3.4: a domain name has at most 255 bytes.
const HOST_LENGTH_MAX: usize = 255;

const UNKNOWN_COMMAND: SyntaxError = SyntaxError::new(Code::SYNTAX_ERROR, "Unknown command.");
const MISSING_ARGUMENT: SyntaxError =
    SyntaxError::new(Code::BAD_ARGUMENT, "An argument is missing.");
const SUPERFLUOUS_ARGUMENT: SyntaxError =
    SyntaxError::new(Code::BAD_ARGUMENT, "This command takes no argument.");
const CONTROL_BYTE: SyntaxError =
    SyntaxError::new(Code::BAD_ARGUMENT, "Control characters are not allowed.");
const BAD_ARGUMENT: SyntaxError =
    SyntaxError::new(Code::BAD_ARGUMENT, "Not a valid argument of this command.");
const BAD_ADDRESS: SyntaxError = SyntaxError::new(Code::BAD_ARGUMENT, "Not a valid address.");
const BAD_NUMBER: SyntaxError = SyntaxError::new(Code::BAD_ARGUMENT, "Not a valid number.");
const BAD_TIME: SyntaxError =
    SyntaxError::new(Code::BAD_ARGUMENT, "Not a valid time, use YYYYMMDDHHMMSS.");
const BAD_PARAMETER: SyntaxError =
    SyntaxError::new(Code::BAD_PARAMETER, "Not implemented for this parameter.");
const NOT_OFFERED: SyntaxError =
    SyntaxError::new(Code::NOT_IMPLEMENTED, "Command not implemented.");

#[cfg(test)]
mod tests;
