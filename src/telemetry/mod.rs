//! What the server tells of itself. Imports nothing of ours, so that everything may use it.

pub mod log;
