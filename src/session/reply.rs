//! How a failure becomes a reply: the single place where that is decided.

use crate::proto::failure::Failure;
use crate::proto::path::PathError;
use crate::proto::reply::{Code, Reply};

/// The reply to a command that failed in the user's tree, or to a transfer that failed.
///
/// Codes: RFC 959 §4.2 and §5.4; 554 for an offset beyond the end: RFC 3659 §5.4.
pub(super) fn failed(failure: Failure) -> Reply {
    let (code, text) = match failure {
        Failure::NotFound => (Code::UNAVAILABLE, "No such file or directory."),
        Failure::Denied => (Code::UNAVAILABLE, "Permission denied."),
        Failure::NotADirectory => (Code::UNAVAILABLE, "Not a directory."),
        Failure::IsADirectory => (Code::UNAVAILABLE, "Is a directory."),
        Failure::NotAFile => (Code::UNAVAILABLE, "Not a plain file."),
        Failure::Exists => (Code::UNAVAILABLE, "File exists."),
        Failure::NotEmpty => (Code::UNAVAILABLE, "Directory not empty."),
        Failure::Busy => (Code::FILE_BUSY, "File busy, try again later."),
        Failure::NameInvalid => (Code::NAME_NOT_ALLOWED, "File name not allowed."),
        Failure::TooManyLinks => (Code::UNAVAILABLE, "Too many levels of symbolic links."),
        Failure::CrossDevice => (Code::UNAVAILABLE, "Not possible across file systems."),
        Failure::ReadOnlyTree => (Code::UNAVAILABLE, "Read-only file system."),
        Failure::StorageFull => (Code::STORAGE_FULL, "No space left on device."),
        Failure::BelowMinFree => (
            Code::STORAGE_FULL,
            "Too little space is left on the server, try again later.",
        ),
        Failure::QuotaReached => (Code::STORAGE_EXCEEDED, "Disk quota exceeded."),
        Failure::VolumeUsedUp => (
            Code::STORAGE_EXCEEDED,
            "Your transfer volume of this period is used up.",
        ),
        Failure::FileTooLarge => (Code::STORAGE_EXCEEDED, "File too large."),
        Failure::OutOfDescriptors => (Code::LOCAL_ERROR, "Out of file descriptors, try later."),
        Failure::Overloaded => (Code::FILE_BUSY, "Server busy, try again later."),
        Failure::Unsupported => (Code::UNAVAILABLE, "Not supported for this file."),
        Failure::LocalError => (Code::LOCAL_ERROR, "Local error in processing."),
        Failure::Aborted => (Code::TRANSFER_ABORTED, "Transfer aborted."),
        Failure::OffsetBeyondEnd => (
            Code::INVALID_REST,
            "Restart point beyond the end of the file.",
        ),
        failure => return data_connection_failed(failure),
    };
    Reply::new(code, text)
}

/// The same where the data connection is to blame.
fn data_connection_failed(failure: Failure) -> Reply {
    let (code, text) = match failure {
        Failure::NoDataConnection => (Code::NO_DATA_CONNECTION, "Can't open data connection."),
        Failure::NoPassivePort => (
            Code::NO_DATA_CONNECTION,
            "No passive port is free for you, try again later.",
        ),
        Failure::TooManyPorts => (
            Code::NO_DATA_CONNECTION,
            "Your address holds all the passive ports it may, use one of them first.",
        ),
        Failure::AddressUnknown => (
            Code::NO_DATA_CONNECTION,
            "The server's address is not known at the moment: use EPSV.",
        ),
        Failure::DataConnectionRefused => (
            Code::NO_DATA_CONNECTION,
            "Can't open data connection: the client refused it.",
        ),
        Failure::PeerReset => (
            Code::TRANSFER_ABORTED,
            "Data connection closed by the client.",
        ),
        Failure::PeerStalled => (
            Code::TRANSFER_ABORTED,
            "Data connection timed out: transfer aborted.",
        ),
        Failure::NegotiationFailed => (
            Code::NEGOTIATION_FAILED,
            "TLS negotiation failed on the data connection.",
        ),
        Failure::NotResumed => (
            Code::NEGOTIATION_FAILED,
            "The data connection must resume the TLS session of this control connection.",
        ),
        Failure::Truncated => (
            Code::TRANSFER_ABORTED,
            "Data connection closed without the end of its TLS session: the file may be cut short.",
        ),
        _ => (Code::LOCAL_ERROR, "Local error in processing."),
    };
    Reply::new(code, text)
}

/// The reply to a transfer that failed. RFC 959 §5.4 knows 553, not 550, for a name that cannot be
/// stored under.
pub(super) fn transfer_failed(failure: Failure, storing: bool) -> Reply {
    match failure {
        Failure::NotFound
        | Failure::Denied
        | Failure::NotADirectory
        | Failure::IsADirectory
        | Failure::NotAFile
        | Failure::Exists
            if storing =>
        {
            let reply = failed(failure);
            reply.with_code(Code::NAME_NOT_ALLOWED)
        }
        _ => failed(failure),
    }
}

/// The reply to a name that can be no path.
pub(super) fn bad_path(error: &PathError) -> Reply {
    match error {
        PathError::ControlByte | PathError::Empty => {
            Reply::new(Code::BAD_ARGUMENT, "Not a valid file name.")
        }
        PathError::NameTooLong | PathError::PathTooLong => {
            Reply::new(Code::NAME_NOT_ALLOWED, "File name too long.")
        }
    }
}
