//! What the session is told: one event at a time, in the order in which it happened.

use std::net::SocketAddr;
use std::rc::Rc;
use std::sync::Arc;

use super::Limits;
use crate::proto::failure::Failure;
use crate::proto::rights::Rights;

/// Something that happened on the control connection, on the data connection or in the user's tree.
#[derive(Debug)]
pub enum Event<'a> {
    /// A control line without its line end (RFC 959 §5.3).
    Line(&'a [u8]),
    /// A control line longer than the limit; it has been skipped up to its end.
    LineTooLong,
    /// The client has shown a certificate that is good, and that names these.
    Certified(Vec<Vec<u8>>),
    /// The answer to [`Action::ChooseHost`](super::Action::ChooseHost): what holds on that host;
    /// `None`: there is no such host.
    HostChosen(Option<Rc<Limits>>),
    /// The answer to [`Action::Verify`](super::Action::Verify) or to
    /// [`Action::Admit`](super::Action::Admit).
    Verified(Verdict),
    /// The answer to [`Action::Ask`](super::Action::Ask).
    Answered(Result<Answer, Failure>),
    /// The answer to [`Action::OpenPassive`](super::Action::OpenPassive): the address and port at
    /// which the client may connect.
    PassiveOpened(Result<SocketAddr, Failure>),
    /// The file is open and the data connection stands: the transfer begins.
    TransferOpened(Opened),
    /// The transfer that [`Action::Start`](super::Action::Start) asked for is over.
    TransferEnded(Result<Transferred, Failure>),
    /// Nothing was heard for as long as the session may be silent.
    IdleTimeout,
    /// The administrator ends this session, and nothing is under way in it any more.
    Kicked,
    /// The server is about to stop, and this session has nothing to finish.
    ShuttingDown,
}

/// What the authenticator said of a name and a password.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Verdict {
    /// They belong together, and the user's tree is open.
    Accepted(Arc<Rights>),
    /// They do not belong together. Unknown users get the same verdict.
    Refused,
    /// They belong together, but the user has as many sessions as one may have.
    TooMany,
    /// They belong together, but the virtual host has as many sessions as it may have.
    HostFull,
    /// It could not be found out: the user file or the user's tree cannot be read, or too many
    /// logins are waiting.
    Unavailable,
}

/// What the tree answered to a [`Request`](super::Request).
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Answer {
    /// It has been done.
    Done,
    /// A number: the size of a file, or the bytes free, in bytes.
    Bytes(u64),
    /// When the file was last modified, in seconds since 1970-01-01 00:00 UTC.
    Modified(i64),
    /// One line: the facts of an entry (RFC 3659 §7.2).
    Line(Vec<u8>),
    /// How far the running transfer has come.
    Progress(Progress),
}

/// How far a transfer has come.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct Progress {
    /// Bytes that went over the data connection so far.
    pub bytes: u64,
    /// Whole seconds since it began.
    pub seconds: u64,
}

/// What is known when a transfer begins; the 150 reply tells it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Opened {
    /// A file of this many bytes is about to be sent.
    File {
        /// Bytes from the restart point to the end of the file; `None` if only sending it tells
        /// (TYPE A).
        bytes: Option<u64>,
    },
    /// A file is about to be received.
    Upload,
    /// A file is about to be received under this name, which the server chose (RFC 1123 §4.1.2.9).
    UniqueUpload(Vec<u8>),
    /// A listing is about to be sent.
    Listing,
}

/// What a transfer that went well has to say at its end.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Transferred {
    /// All bytes arrived.
    Bytes(u64),
    /// The digest of a range of a file, as lower-case hexadecimal.
    Digest {
        /// The digest.
        hex: String,
        /// Offset of the first byte that it covers.
        start: u64,
        /// Offset after the last byte that it covers.
        end: u64,
    },
}
