//! The server-DTP's end of data connections (RFC 959 §2.3): the core's pool of passive ports, and
//! connections made in active mode.
//!
//! Both give a connected, non-blocking socket whose peer is the one that was waited for or asked
//! for; nothing else is ever handed to a transfer.

pub mod active;
pub mod lending;
pub mod pool;
pub mod proxied;
mod queue;
pub mod report;
pub mod sizing;
pub mod table;
mod tally;
