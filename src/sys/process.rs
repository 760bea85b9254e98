//! What belongs to the process as a whole.

use nix::sys::stat::{Mode, umask};

/// Makes new files get the modes they are made with (umask(2)), whatever the caller's shell had set.
pub fn clear_umask() {
    umask(Mode::empty());
}
