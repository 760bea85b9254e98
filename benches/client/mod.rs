//! An FTP client for measuring servers: one thread, many sessions in lock step, and as little work
//! of its own as possible. It believes nothing: each reply is checked, and each count of bytes.
//!
//! Shared by `benches/server.rs`, `examples/load` and `tests/load.rs`.
#![allow(
    dead_code,
    unused_imports,
    reason = "each program that has this module uses a part"
)]

mod bulk;
mod control;
mod data;
pub(crate) mod fleet;
pub(crate) mod latency;
pub(crate) mod pattern;
pub(crate) mod reply;
pub(crate) mod slow;
mod tls;
mod wire;

use std::fmt::{self, Display};
use std::net::SocketAddr;
use std::time::Duration;

pub(crate) use control::Control;
pub(crate) use data::Via;
pub(crate) use tls::Tls;
pub(crate) use wire::Wire;

/// The server, and who the clients are.
#[derive(Clone, Debug)]
pub(crate) struct Target {
    pub(crate) address: SocketAddr,
    pub(crate) user: String,
    pub(crate) password: String,
    /// How sessions are protected: by AUTH TLS, and PROT P.
    pub(crate) tls: Option<Tls>,
    /// How long a server may take for anything.
    pub(crate) deadline: Duration,
}

/// What went wrong, to be read by people.
#[derive(Debug)]
pub(crate) struct Error(String);

pub(crate) type Result<T> = std::result::Result<T, Error>;

impl Error {
    pub(crate) fn new(what: impl Into<String>) -> Self {
        Self(what.into())
    }
}

impl Display for Error {
    fn fmt(&self, out: &mut fmt::Formatter<'_>) -> fmt::Result {
        out.write_str(&self.0)
    }
}

impl std::error::Error for Error {}

/// Says what was being done when something failed.
pub(crate) trait Doing<T> {
    fn doing(self, what: &str) -> Result<T>;
}

impl<T, E: Display> Doing<T> for std::result::Result<T, E> {
    fn doing(self, what: &str) -> Result<T> {
        self.map_err(|error| Error(format!("{what}: {error}")))
    }
}
