//! `[anonymous]` and `[users]`: who may log in.

use std::path::PathBuf;

use super::section::{Section, Value, Wrong};
use super::units;
use crate::proto::listing::Access;

/// Access without an account: USER `anonymous` or `ftp`, any password (RFC 1635).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Anonymous {
    /// Whether it is offered.
    pub enabled: bool,
    /// The directory that clients see as `/`; absolute.
    pub root: PathBuf,
    /// Whether they may write.
    pub access: Access,
}

/// Virtual users: names and passwords of the server's own.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Users {
    /// Whether they may log in.
    pub enabled: bool,
    /// The file that `ringftpd user` writes; absolute.
    pub file: PathBuf,
    /// Threads that verify passwords, 1 to [`HASH_THREADS_MAX`]. Each holds the memory of a hash
    /// (19 MiB) while it works.
    pub hash_threads: usize,
}

impl Anonymous {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("enabled", &mut self.enabled, units::switch);
        section.read("root", &mut self.root, units::absolute_path);
        section.read("access", &mut self.access, access);
    }
}

impl Users {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("enabled", &mut self.enabled, units::switch);
        section.read("file", &mut self.file, units::absolute_path);
        section.read("hash_threads", &mut self.hash_threads, |value| {
            units::number(value, 1, HASH_THREADS_MAX as u64).map(|threads| threads as usize)
        });
    }
}

/// `read-only` or `read-write`.
pub(crate) fn access(value: &Value<'_>) -> Result<Access, Wrong> {
    units::choice(value, &ACCESS_NAMES)
}

/// The word for an access.
pub(crate) const fn access_name(access: Access) -> &'static str {
    match access {
        Access::ReadOnly => "read-only",
        Access::ReadWrite => "read-write",
    }
}

const ACCESS_NAMES: [(&str, Access); 2] = [
    (access_name(Access::ReadOnly), Access::ReadOnly),
    (access_name(Access::ReadWrite), Access::ReadWrite),
];

/// With more, logins alone could take every CPU and more than 1 GiB of memory.
pub const HASH_THREADS_MAX: usize = 64;
