//! What an operation on a file, or a transfer, failed of: as much as the protocol can tell of it.

use thiserror::Error;

/// Why something asked by a client could not be done. The session turns it into a reply.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum Failure {
    /// No such file or directory.
    #[error("no such file or directory")]
    NotFound,
    /// The rights of the file or of the user do not allow it.
    #[error("permission denied")]
    Denied,
    /// A directory is needed.
    #[error("not a directory")]
    NotADirectory,
    /// A directory cannot be used so.
    #[error("is a directory")]
    IsADirectory,
    /// Only regular files are transferred.
    #[error("not a regular file")]
    NotAFile,
    /// The name is taken.
    #[error("file exists")]
    Exists,
    /// A directory that is to be removed has entries.
    #[error("directory not empty")]
    NotEmpty,
    /// Somebody else is writing to it.
    #[error("file busy")]
    Busy,
    /// The file system does not take this name.
    #[error("name not allowed")]
    NameInvalid,
    /// Too many symbolic links, or a loop of them.
    #[error("too many symbolic links")]
    TooManyLinks,
    /// The two names are on different file systems.
    #[error("different file systems")]
    CrossDevice,
    /// The file system is mounted read-only.
    #[error("read-only file system")]
    ReadOnlyTree,
    /// No space is left.
    #[error("no space left")]
    StorageFull,
    /// Less space would be left than the operator wants.
    #[error("less than the minimum would be left free")]
    BelowMinFree,
    /// The quota is used up.
    #[error("quota reached")]
    QuotaReached,
    /// What may be moved in this period has been moved.
    #[error("volume used up")]
    VolumeUsedUp,
    /// The file would be larger than files may be.
    #[error("file too large")]
    FileTooLarge,
    /// The process or the system has no descriptor left.
    #[error("out of descriptors")]
    OutOfDescriptors,
    /// Too much of this kind is waiting already.
    #[error("overloaded")]
    Overloaded,
    /// The file or its file system does not support it.
    #[error("not supported")]
    Unsupported,
    /// Anything else on the server's side.
    #[error("local error")]
    LocalError,
    /// No data connection came about in time, or no port was free for one.
    #[error("no data connection")]
    NoDataConnection,
    /// No passive port is left for this client.
    #[error("no passive port")]
    NoPassivePort,
    /// As many passive ports wait for this client's address as may.
    #[error("too many passive ports")]
    TooManyPorts,
    /// The address to announce is not known: its name has not been looked up successfully.
    #[error("no address to announce")]
    AddressUnknown,
    /// The client's side refused the data connection.
    #[error("data connection refused")]
    DataConnectionRefused,
    /// The client broke the data connection off.
    #[error("data connection closed by peer")]
    PeerReset,
    /// The data connection made no progress for too long.
    #[error("data connection stalled")]
    PeerStalled,
    /// No TLS came about on the data connection.
    #[error("no TLS on the data connection")]
    NegotiationFailed,
    /// The data connection did not resume the TLS session of the control connection.
    #[error("TLS session not resumed")]
    NotResumed,
    /// The data connection ended without the end of its TLS session.
    #[error("TLS session not ended")]
    Truncated,
    /// The client asked for the end of it (ABOR), or the session ended.
    #[error("aborted")]
    Aborted,
    /// The restart point lies beyond the end of the file.
    #[error("restart point beyond the end")]
    OffsetBeyondEnd,
}

impl Failure {
    /// What a Linux error number says (errno(3); the numbers of `asm-generic/errno.h`, which all
    /// architectures with io_uring in use here share for these).
    pub fn from_errno(errno: i32) -> Self {
        match errno {
            EPERM | EACCES => Self::Denied,
            ENOENT => Self::NotFound,
            EEXIST => Self::Exists,
            ENOTDIR => Self::NotADirectory,
            EISDIR => Self::IsADirectory,
            ENOTEMPTY => Self::NotEmpty,
            EBUSY | ETXTBSY | EAGAIN => Self::Busy,
            EINVAL | ENAMETOOLONG | EILSEQ => Self::NameInvalid,
            ELOOP => Self::TooManyLinks,
            EXDEV => Self::CrossDevice,
            EROFS => Self::ReadOnlyTree,
            ENOSPC => Self::StorageFull,
            EDQUOT => Self::QuotaReached,
            EFBIG | EOVERFLOW => Self::FileTooLarge,
            EMFILE | ENFILE => Self::OutOfDescriptors,
            ENXIO | ENODEV => Self::NotAFile,
            EOPNOTSUPP | ENOSYS => Self::Unsupported,
            _ => Self::LocalError,
        }
    }
}

const EPERM: i32 = 1;
const ENOENT: i32 = 2;
const ENXIO: i32 = 6;
const EAGAIN: i32 = 11;
const EACCES: i32 = 13;
const EBUSY: i32 = 16;
const EEXIST: i32 = 17;
const EXDEV: i32 = 18;
const ENODEV: i32 = 19;
const ENOTDIR: i32 = 20;
const EISDIR: i32 = 21;
const EINVAL: i32 = 22;
const ENFILE: i32 = 23;
const EMFILE: i32 = 24;
const ETXTBSY: i32 = 26;
const EFBIG: i32 = 27;
const ENOSPC: i32 = 28;
const EROFS: i32 = 30;
const ENAMETOOLONG: i32 = 36;
const ENOSYS: i32 = 38;
const ENOTEMPTY: i32 = 39;
const ELOOP: i32 = 40;
const EOVERFLOW: i32 = 75;
const EILSEQ: i32 = 84;
const EOPNOTSUPP: i32 = 95;
const EDQUOT: i32 = 122;

#[cfg(test)]
mod tests {
    use super::Failure;

    #[test]
    fn error_numbers_say_what_the_kernel_headers_say() {
        for (errno, failure) in [
            (libc::EPERM, Failure::Denied),
            (libc::EACCES, Failure::Denied),
            (libc::ENOENT, Failure::NotFound),
            (libc::EEXIST, Failure::Exists),
            (libc::ENOTDIR, Failure::NotADirectory),
            (libc::EISDIR, Failure::IsADirectory),
            (libc::ENOTEMPTY, Failure::NotEmpty),
            (libc::EBUSY, Failure::Busy),
            (libc::ETXTBSY, Failure::Busy),
            (libc::EAGAIN, Failure::Busy),
            (libc::EINVAL, Failure::NameInvalid),
            (libc::ENAMETOOLONG, Failure::NameInvalid),
            (libc::EILSEQ, Failure::NameInvalid),
            (libc::ELOOP, Failure::TooManyLinks),
            (libc::EXDEV, Failure::CrossDevice),
            (libc::EROFS, Failure::ReadOnlyTree),
            (libc::ENOSPC, Failure::StorageFull),
            (libc::EDQUOT, Failure::QuotaReached),
            (libc::EFBIG, Failure::FileTooLarge),
            (libc::EOVERFLOW, Failure::FileTooLarge),
            (libc::EMFILE, Failure::OutOfDescriptors),
            (libc::ENFILE, Failure::OutOfDescriptors),
            (libc::ENXIO, Failure::NotAFile),
            (libc::ENODEV, Failure::NotAFile),
            (libc::EOPNOTSUPP, Failure::Unsupported),
            (libc::ENOSYS, Failure::Unsupported),
            (libc::EIO, Failure::LocalError),
            (0, Failure::LocalError),
        ] {
            assert_eq!(Failure::from_errno(errno), failure, "errno {errno}");
        }
    }
}
