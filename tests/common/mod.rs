//! What the integration tests share: a server of their own ([`Setup`], [`TestServer`]), a client that
//! says exactly what it is told to ([`Client`]), and trees of files.
#![allow(
    dead_code,
    unused_imports,
    reason = "every test file is a crate of its own and uses a part"
)]

pub(crate) mod accounts;
mod client;
mod databases;
mod files;
mod server;
mod tls;

use std::hash::{BuildHasher, RandomState};
use std::time::{Duration, Instant};

pub(crate) use client::{Client, Data, Reply, Way, connect_from, read_all, reset};
pub(crate) use databases::{Database, PostgreSql, Sqlite};
pub(crate) use files::{Random, identity, make_tree, noise, same_trees, snapshot};
pub(crate) use server::{
    PASSWORD, Process, Run, Setup, TestServer, is_root, passive_ports, program, run, run_with_input,
};
pub(crate) use tls::{
    Kind, TlsClient, TlsSession, certificate_of, files, key_of, write_certificate,
    write_certificate_of,
};

/// How long anything may take that has to happen. Far longer than it takes, so that only a server
/// that hangs meets it.
pub(crate) const DEADLINE: Duration = Duration::from_secs(30);

/// Waits until `holds`, for what nobody tells (a file on the disk, a number in /proc).
#[track_caller]
pub(crate) fn eventually(what: &str, mut holds: impl FnMut() -> bool) {
    let start = Instant::now();
    while !holds() {
        assert!(start.elapsed() < DEADLINE, "not in {DEADLINE:?}: {what}");
        std::thread::sleep(Duration::from_millis(2));
    }
}

/// A number that is another one in every call: std seeds its hash maps with such.
pub(crate) fn random() -> u64 {
    RandomState::new().hash_one(())
}
