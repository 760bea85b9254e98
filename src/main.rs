//! The program `ringftpd`: see `ringftpd --help`, or the library's documentation for its parts.

use std::process::ExitCode;

fn main() -> ExitCode {
    ringftpd::cli::run(std::env::args_os())
}
