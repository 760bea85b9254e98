//! ringftpd: an FTP server for Linux hosts that move a lot of files.
//!
//! One pinned thread per core, each with its own io_uring, its own listeners and its own passive
//! ports; sessions never leave their core, and file data never enters user space.
//!
//! | module | what |
//! |---|---|
//! | [`proto`] | the protocol as pure code: lines, commands, replies, paths, listing lines |
//! | [`session`] | the server-PI as a state machine: events in, actions out; no I/O, no clock |
//! | [`control`] | runs one control connection: the only place where session and I/O meet |
//! | [`data`] | data connections: the core's pool of passive ports, active connects |
//! | [`transfer`] | moves the bytes of one file or listing |
//! | [`quota`] | how much users store, and may store |
//! | [`storage`] | the user's tree below a root descriptor |
//! | [`auth`] | who may log in |
//! | [`config`] | the configuration, typed |
//! | [`telemetry`] | logs |
//! | [`throttle`] | rates of transfers and events, sessions of users |
//! | [`tls`] | TLS without I/O: certificates, resumed sessions, the protocol |
//! | [`cli`] | the command line |
//! | [`server`] | the supervisor and the cores |
//! | [`uring`] | io_uring operations that may be dropped at any time (unsafe island) |
//! | [`sys`] | system calls (unsafe island) |
//!
//! `ARCHITECTURE.md` tells the way of a RETR through them and who may import whom.

pub mod auth;
pub mod cli;
pub mod config;
pub mod control;
pub mod data;
pub mod proto;
pub mod quota;
pub mod server;
pub mod session;
pub mod storage;
#[allow(unsafe_code)]
pub mod sys;
pub mod telemetry;
pub mod throttle;
pub mod tls;
pub mod transfer;
#[allow(unsafe_code)]
pub mod uring;
