//! `[anonymous]` and `[users]`: who may log in.

use std::path::PathBuf;
use std::time::Duration;

use super::section::Section;
use super::{Allowance, Folder, QuotaLimits, folders, limits, rights, units};
use crate::proto::rights::Rights;

/// Access without an account: USER `anonymous` or `ftp`, any password (RFC 1635).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Anonymous {
    /// Whether it is offered.
    pub enabled: bool,
    /// The directory that clients see as `/`; absolute.
    pub root: PathBuf,
    /// What they may do there.
    pub rights: Rights,
    /// How much they may store there, all together.
    pub quota: QuotaLimits,
    /// Other directories that they find there.
    pub folders: Vec<Folder>,
    /// How much of the server they may take, all together.
    pub allowance: Allowance,
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
    /// Sessions of one user at a time, unless the user has a number of their own; 0: any number.
    pub sessions_per_user: u32,
    /// How long a verified password is accepted without another hash; zero: never.
    pub remember: Duration,
    /// Where the server keeps how much each user stores; absolute.
    pub state: PathBuf,
    /// Whether users may act as accounts of this host.
    pub system: bool,
    /// Accounts with a lower user ID are none of people's, and nobody acts as them; at least 1.
    pub system_uid_min: u32,
}

impl Anonymous {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("enabled", &mut self.enabled, units::switch);
        section.read("root", &mut self.root, units::absolute_path);
        rights::read(section, &mut self.rights);
        self.quota.read(section);
        section.read("folders", &mut self.folders, folders::folders);
        self.allowance.read(section);
    }
}

impl Users {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("enabled", &mut self.enabled, units::switch);
        section.read("file", &mut self.file, units::absolute_path);
        section.read("sessions_per_user", &mut self.sessions_per_user, |value| {
            limits::bounded(value, 0, limits::SESSIONS_MAX)
        });
        section.read("state", &mut self.state, units::absolute_path);
        section.read("hash_threads", &mut self.hash_threads, |value| {
            units::number(value, 1, HASH_THREADS_MAX as u64).map(|threads| threads as usize)
        });
        section.read("remember", &mut self.remember, |value| {
            units::duration(value, Duration::ZERO)
        });
        section.read("system", &mut self.system, units::switch);
        section.read("system_uid_min", &mut self.system_uid_min, |value| {
            limits::bounded(value, 1, UID_MAX)
        });
    }
}

/// The highest user ID (-1 means none, setresuid(2)), as far as the number of a key goes.
const UID_MAX: u32 = i32::MAX.cast_unsigned();

/// With more, logins alone could take every CPU and more than 1 GiB of memory.
pub const HASH_THREADS_MAX: usize = 64;
