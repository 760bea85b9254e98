//! What the session asks for: at most one action for each event, answered by one event.

use std::fmt;
use std::net::SocketAddr;

use crate::proto::argument::{ByteRange, HashAlgorithm, ListOptions, TypeCode};
use crate::proto::listing::FactSet;
use crate::proto::path::VirtualPath;

/// Something the world outside has to do next.
#[derive(Debug, Eq, PartialEq)]
pub enum Action {
    /// Find the virtual host of this name (RFC 7151); answered by `HostChosen`.
    ChooseHost(Vec<u8>),
    /// Check a password and open the user's tree; answered by `Verified`.
    Verify(Credentials),
    /// Open the tree of this user, whom the client's certificate names, if the user may log in; answered by
    /// `Verified`.
    Admit(Vec<u8>),
    /// Do something in the user's tree; answered by `Answered`.
    Ask(Request),
    /// Send a listing over the control connection (STAT with a name, RFC 959 §4.1.3); answered by
    /// `Answered` when the last line is out.
    ListHere(Listing),
    /// Reserve a port on which the client may connect, giving up one reserved before; answered by
    /// `PassiveOpened`. `extended`: by EPSV, which announces no address.
    OpenPassive {
        /// EPSV.
        extended: bool,
    },
    /// Give up the reserved port.
    ClosePassive,
    /// Start a transfer; answered by `TransferOpened` and then `TransferEnded`, or by the latter
    /// alone when it failed to begin or has no data connection.
    Start(Box<Plan>),
    /// End the running transfer as soon as possible; its `TransferEnded` follows.
    Abort,
    /// Forget the user, the reserved port and the virtual host that was asked for (REIN); answered by
    /// [`Session::begin_at`](super::Session::begin_at).
    Reset,
    /// Do the same; then send what is still to be sent, throw away what else has come, and begin TLS
    /// on the control connection.
    Secure,
    /// Send what is still to be sent, then end TLS on the control connection; data connections may go on
    /// with it (CCC).
    Clear,
    /// Forget the user and the reserved port, and do the same; data connections do not go on (REIN).
    ClearAndReset,
    /// Send what is still to be sent, then close the control connection.
    Close,
}

/// A name and a password on their way to the authenticator.
#[derive(Eq, PartialEq)]
pub struct Credentials {
    /// What USER said.
    pub user: Vec<u8>,
    /// What PASS said.
    pub password: Vec<u8>,
}

/// The password never reaches a log.
impl fmt::Debug for Credentials {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "Credentials({})", String::from_utf8_lossy(&self.user))
    }
}

/// Something to do or to look up in the user's tree.
#[derive(Debug, Eq, PartialEq)]
pub enum Request {
    /// Is this a directory that may be entered?
    Enter(VirtualPath),
    /// The size of a file as a transfer of this type would have it (RFC 3659 §4.1).
    Size(VirtualPath, TypeCode),
    /// When it was last modified.
    Modified(VirtualPath),
    /// The facts of one entry.
    Facts(VirtualPath, FactSet),
    /// Does the name that is to be renamed exist?
    Exists(VirtualPath),
    /// Make a directory.
    MakeDirectory(VirtualPath, Umask),
    /// Remove an empty directory.
    RemoveDirectory(VirtualPath),
    /// Remove a file.
    RemoveFile(VirtualPath),
    /// Give the first a new name: the second.
    Rename(VirtualPath, VirtualPath),
    /// The same, unless something has that name.
    RenameNew(VirtualPath, VirtualPath),
    /// Set the permission bits, and with them, or instead, the time of modification.
    SetAttributes(VirtualPath, Attributes),
    /// Bytes that may still be stored below this directory.
    FreeBytes(VirtualPath),
    /// How far the running transfer has come.
    Progress,
}

/// What SITE CHMOD, SITE UTIME, MFMT and MFF change.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Attributes {
    /// Permission bits, 0 to 0o7777.
    pub mode: Option<u32>,
    /// Time of modification, in seconds since 1970-01-01 00:00 UTC.
    pub modified: Option<i64>,
}

/// The permission bits that new files and directories do not get; `None`: as configured.
pub type Umask = Option<u32>;

/// A transfer that is ready to begin.
#[derive(Debug, Eq, PartialEq)]
pub struct Plan {
    /// What to transfer.
    pub transfer: Transfer,
    /// How to get the data connection; `None` for a digest, which needs none.
    pub endpoint: Option<Endpoint>,
    /// Whether TLS protects it.
    pub protected: bool,
}

/// Where the data connection comes from (RFC 959 §3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Endpoint {
    /// The client connects to the port that was reserved for it.
    Passive,
    /// The server connects to this address.
    Active(SocketAddr),
}

/// What a transfer moves.
#[derive(Debug, Eq, PartialEq)]
pub enum Transfer {
    /// RETR.
    Retrieve {
        /// The file.
        path: VirtualPath,
        /// The representation in which it is sent.
        type_code: TypeCode,
        /// Where to begin (REST), in bytes of that representation.
        offset: u64,
    },
    /// STOR, APPE, STOU.
    Store {
        /// The file; for [`StoreMode::Unique`] the name it should resemble.
        path: VirtualPath,
        /// The representation in which it arrives.
        type_code: TypeCode,
        /// What becomes of a file that is there already.
        mode: StoreMode,
        /// Whether a file that is there may be replaced or written to.
        overwrites: bool,
        /// See [`Umask`].
        umask: Umask,
    },
    /// LIST, NLST, MLSD.
    List(Listing),
    /// HASH, XCRC, XMD5, XSHA1 and their like.
    Digest {
        /// The file.
        path: VirtualPath,
        /// The digest wanted.
        algorithm: HashAlgorithm,
        /// The part of the file, or all of it.
        range: ByteRange,
    },
}

/// What becomes of a file that is there already.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum StoreMode {
    /// It is replaced (STOR).
    Replace,
    /// It is written from this offset on (REST and STOR), in bytes of the transfer's representation.
    From(u64),
    /// It is added to (APPE).
    Append,
    /// Another name is found (STOU).
    Unique,
}

/// A listing: of which directory or file, and in which form.
#[derive(Debug, Eq, PartialEq)]
pub struct Listing {
    /// The directory in which relative names begin.
    pub directory: VirtualPath,
    /// The name as the client gave it; `None`: the directory itself.
    pub name: Option<Vec<u8>>,
    /// What `-laRt` and the like ask for.
    pub options: ListOptions,
    /// The form of a line.
    pub form: ListForm,
    /// TYPE A or I makes no difference: lines of a listing always end in CRLF (RFC 959 §4.1.3).
    pub facts: FactSet,
}

/// The form of a line of a listing.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum ListForm {
    /// LIST: as `ls -l` writes it.
    Long,
    /// NLST: names alone.
    Names,
    /// MLSD: facts and name (RFC 3659 §7).
    Facts,
}
