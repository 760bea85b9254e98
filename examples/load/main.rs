//! A load generator for FTP servers: one process with one thread, which does one kind of work as
//! often as it is told to, and checks every reply and every count of bytes.
//!
//! A program that measures a server starts it, waits for `ready`, and writes orders to its standard
//! input (`load --help` has them). What the server costs meanwhile is for that program to measure,
//! and on which CPU the load runs for it to say.

#[path = "../../benches/client/mod.rs"]
mod client;

mod cases;
mod cli;
mod files;
mod orders;
mod verify;

use std::io::{self, Write};
use std::process::ExitCode;

use clap::Parser;

fn main() -> ExitCode {
    match cli::run(cli::Arguments::parse()) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            // There is nowhere else to say it.
            let _ = writeln!(io::stderr(), "load: {error}");
            ExitCode::FAILURE
        }
    }
}
