//! What belongs to the process as a whole.

use nix::sys::stat::{Mode, umask};

/// Runs `make` while new files get no rights for anybody but their owner, for sockets, which are made
/// without a mode. To be called before the first thread is started: the mask is the process's.
pub fn privately<T>(make: impl FnOnce() -> T) -> T {
    let before = umask(Mode::S_IRWXG | Mode::S_IRWXO | Mode::S_IXUSR);
    let made = make();
    umask(before);
    made
}

/// Makes new files get the modes they are made with (umask(2)), whatever the caller's shell had set.
pub fn clear_umask() {
    umask(Mode::empty());
}
