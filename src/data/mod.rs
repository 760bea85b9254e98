//! The server-DTP's end of data connections (RFC 959 §2.3): the core's pool of passive ports, and
//! connections made in active mode.
//!
//! Both give a connected, non-blocking socket whose peer has the address of the control
//! connection's peer; nothing else is ever handed to a transfer.

pub mod active;
pub mod pool;
pub mod report;
pub mod table;
