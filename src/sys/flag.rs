//! The kernel's flag words that callers of [`crate::uring`] and [`super::file`] combine.
//!
//! They are named here so that no module above has to import `libc`.

/// `open(2)`: access modes and flags. `O_CLOEXEC` is always added by this crate.
pub use libc::{
    O_CREAT, O_DIRECTORY, O_EXCL, O_NOATIME, O_NOCTTY, O_NOFOLLOW, O_NONBLOCK, O_PATH, O_RDONLY,
    O_RDWR, O_TMPFILE, O_TRUNC, O_WRONLY,
};

/// `openat2(2)`: how a path is resolved (Linux 5.6; `RESOLVE_CACHED` 5.12).
pub use libc::{
    RESOLVE_BENEATH, RESOLVE_CACHED, RESOLVE_IN_ROOT, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS,
    RESOLVE_NO_XDEV,
};

/// `renameat2(2)`, `unlinkat(2)`, `linkat(2)`.
pub use libc::{AT_REMOVEDIR, AT_SYMLINK_FOLLOW, RENAME_EXCHANGE, RENAME_NOREPLACE};

/// `splice(2)`.
pub use libc::SPLICE_F_MOVE;
