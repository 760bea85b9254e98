//! Processes of the server's own that keep root, for what cannot be done without it.

use std::io;

use crate::config::Config;

/// They end with the last clone. None runs unless the configuration needs it.
#[derive(Clone, Debug, Default)]
pub struct Helpers {
    #[cfg(feature = "pam")]
    pub(super) pam: Option<std::sync::Arc<super::pam::PamDoor>>,
}

impl Helpers {
    /// Starts those that the configuration needs. To be called before root is given up.
    ///
    /// # Errors
    /// What the system says to a new process.
    #[cfg_attr(
        not(feature = "pam"),
        expect(unused_variables, reason = "no other source needs one")
    )]
    pub fn start(config: &Config) -> io::Result<Self> {
        Ok(Self {
            #[cfg(feature = "pam")]
            pam: super::pam::PamDoor::open(config)?,
        })
    }
}
