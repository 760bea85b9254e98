//! The system calls that do not go through the ring, in safe words.
//!
//! This is the second of the two places where `unsafe` lives (the other is [`crate::uring`]).
//! Nothing here waits for the network; what may wait for a disk says so, and is then meant for
//! start-up or for a [`worker::Workers`] thread, not for a core. Errors are plain
//! [`std::io::Error`]s: the caller knows the operation and the path and adds them at its border.

pub mod acting;
pub mod affinity;
mod capability;
pub mod credentials;
pub mod directory;
pub mod file;
pub mod flag;
pub mod guarded;
#[cfg(feature = "pam")]
pub mod handing;
pub mod ids;
pub mod kernel;
pub mod ktls;
#[cfg(feature = "pam")]
pub mod pam;
pub mod pipe;
pub mod process;
pub mod rlimit;
pub mod signal;
pub mod socket;
pub mod tcp;
pub mod tree;
pub mod worker;

use std::io;

/// Whether an error says that the process (EMFILE) or the system (ENFILE) is out of descriptors.
pub fn is_out_of_descriptors(error: &io::Error) -> bool {
    matches!(error.raw_os_error(), Some(libc::EMFILE | libc::ENFILE))
}

/// Turns the −1 of a system call into the error `errno` holds.
fn check(result: libc::c_int) -> io::Result<libc::c_int> {
    if result < 0 {
        Err(io::Error::last_os_error())
    } else {
        Ok(result)
    }
}

/// As [`check`], for calls that return a count of bytes.
fn check_count(result: libc::ssize_t) -> io::Result<usize> {
    usize::try_from(result).map_err(|_| io::Error::last_os_error())
}
