//! Whether the kernel seals what protected data connections send.

use std::fmt;
use std::io;

use crate::config::{self, Config};
use crate::sys;
use crate::sys::ktls::Abilities;

/// What a look at the kernel, and at the configuration, has found.
#[derive(Debug)]
pub struct KernelTls(Found);

#[derive(Debug)]
enum Found {
    /// The configuration does without.
    Off,
    Here(Abilities),
    Missing(io::Error),
}

impl KernelTls {
    /// Looks. As root, or with CAP_NET_ADMIN, it also has the module `tls` loaded, where it is not yet.
    /// `None`: there is no TLS at all.
    pub fn probe(config: &Config) -> Option<Self> {
        config.tls.is_on().then(|| {
            Self(match config.tls.kernel {
                config::KernelTls::Off => Found::Off,
                config::KernelTls::Auto => match sys::ktls::probe() {
                    Ok(abilities) => Found::Here(abilities),
                    Err(error) => Found::Missing(error),
                },
            })
        })
    }

    pub(super) fn abilities(&self) -> Option<Abilities> {
        match self.0 {
            Found::Here(abilities) => Some(abilities),
            _ => None,
        }
    }
}

impl fmt::Display for KernelTls {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("kernel TLS: ")?;
        match &self.0 {
            Found::Off => f.write_str("off (tls.kernel)"),
            Found::Here(Abilities { renews: true }) => f.write_str("on"),
            Found::Here(Abilities { renews: false }) => {
                f.write_str("on, but for files that need more than one key (before Linux 6.14)")
            }
            // No protocol of that name can be attached to a socket.
            Found::Missing(error) if error.kind() == io::ErrorKind::NotFound => {
                f.write_str("off (this kernel does not have it; 'modprobe tls' may help)")
            }
            Found::Missing(error) => write!(f, "off ({error})"),
        }
    }
}
