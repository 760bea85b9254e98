//! `[admin]`: where the running server is asked and told.

use std::path::PathBuf;

use super::section::Section;
use super::units;

/// The socket of `ringftpd ports` and `ringftpd reload`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Admin {
    /// Whether there is one.
    pub enabled: bool,
    /// Its path; absolute. Only the user who started the server, and root, can connect to it.
    pub socket: PathBuf,
}

impl Admin {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("enabled", &mut self.enabled, units::switch);
        section.read("socket", &mut self.socket, units::absolute_path);
    }
}
