//! The command line: what it offers, and how what goes wrong is told.
//!
//! Exit codes: 0 done, 1 something failed while running, 2 the command line or the configuration
//! is wrong and trying again will not help.

mod admin;
mod cert;
mod check;
mod kick;
mod plan;
mod ports;
mod quota;
mod reload;
mod serve;
mod survey;
mod user;
mod watch;
mod who;

use std::error::Error;
use std::ffi::OsString;
use std::io::{self, Write};
use std::net::SocketAddr;
use std::path::PathBuf;
use std::process::ExitCode;

use clap::{Args, CommandFactory, Parser, Subcommand};

use crate::config::{ConfigError, Cores, PortSet, Problem};

/// Runs the command that `args` ask for; the first argument is the program's name.
pub fn run(args: impl IntoIterator<Item = OsString>) -> ExitCode {
    let command = match Cli::try_parse_from(args) {
        Ok(cli) => cli.command,
        Err(error) => {
            // Help and version come this way too and go to standard output.
            let _ = error.print();
            return ExitCode::from(if error.use_stderr() {
                EXIT_USAGE
            } else {
                EXIT_DONE
            });
        }
    };
    let result = match command {
        Command::Serve(args) => serve::run(&args),
        Command::Check(args) => check::run(&args),
        Command::Cert(args) => cert::run(&args),
        Command::User(args) => user::run(args),
        Command::Ports(args) => ports::run(&args),
        Command::Who(args) => who::run(&args),
        Command::Kick(args) => kick::run(args),
        Command::Quota(args) => quota::run(&args),
        Command::Reload(args) => reload::run(&args),
        Command::Man => man(),
        #[cfg(feature = "pam")]
        Command::PamKeeper { service } => helper(crate::auth::pam::keep(&service)),
        #[cfg(feature = "pam")]
        Command::PamOnce { service } => helper(crate::auth::pam::ask_once(&service)),
    };
    match result {
        Ok(()) => ExitCode::from(EXIT_DONE),
        Err(failure) => {
            // Standard error is the last resort: there is nowhere to tell that it is closed.
            let _ = writeln!(io::stderr(), "{}", failure.text);
            ExitCode::from(failure.code)
        }
    }
}

#[derive(Debug, Parser)]
#[command(
    name = "ringftpd",
    version,
    about = "A thread-per-core FTP server for Linux on io_uring",
    after_help = EXAMPLES,
    arg_required_else_help = true,
    disable_help_subcommand = true
)]
struct Cli {
    #[command(subcommand)]
    command: Command,
}

#[derive(Debug, Subcommand)]
enum Command {
    /// Serve a directory, or what a configuration file says
    #[command(after_help = SERVE_EXAMPLES)]
    Serve(ServeArgs),
    /// Check a configuration and say what serve would do with the same arguments
    Check(ServeArgs),
    /// Make a certificate for TLS
    #[command(after_help = CERT_EXAMPLES)]
    Cert(cert::CertArgs),
    /// Add, change, list and delete virtual users, in the users file or a database
    #[command(after_help = USER_EXAMPLES)]
    User(user::UserArgs),
    /// Show the passive ports of a running server, what to change, or how many it will take
    #[command(after_help = PORTS_EXAMPLES)]
    Ports(ports::PortsArgs),
    /// Show the sessions of a running server, and what they do
    #[command(after_help = WHO_EXAMPLES)]
    Who(who::WhoArgs),
    /// End sessions of a running server
    #[command(after_help = KICK_EXAMPLES)]
    Kick(kick::KickArgs),
    /// Show what users with a quota store, or have it counted again
    Quota(quota::QuotaArgs),
    /// Have a running server read its configuration again, and say what came of it
    Reload(reload::ReloadArgs),
    /// Print the manual page (roff)
    #[command(hide = true)]
    Man,
    /// What the server starts for itself: starts processes that ask PAM
    #[cfg(feature = "pam")]
    #[command(hide = true, name = crate::auth::pam::KEEPER)]
    PamKeeper {
        /// A file of /etc/pam.d
        service: String,
    },
    /// What the keeper starts: asks PAM for one login
    #[cfg(feature = "pam")]
    #[command(hide = true, name = crate::auth::pam::ONCE)]
    PamOnce {
        /// A file of /etc/pam.d
        service: String,
    },
}

/// What `serve` and `check` have in common.
#[derive(Args, Debug)]
struct ServeArgs {
    /// Serve this directory to anonymous clients, read-only, on 127.0.0.1:2121, without a
    /// configuration file
    #[arg(value_name = "DIR", conflicts_with = "config")]
    directory: Option<PathBuf>,

    /// Configuration file [without DIR: /etc/ringftpd/ringftpd.toml if it exists, else the current
    /// directory is served as DIR]
    #[arg(short, long, value_name = "FILE")]
    config: Option<PathBuf>,

    /// Listen on this address and port instead; may be repeated
    #[arg(short, long, value_name = "ADDR:PORT")]
    listen: Vec<SocketAddr>,

    /// Use these ports for passive data connections instead: 30000-30999, or several such with commas
    #[arg(long, value_name = "PORTS")]
    passive_ports: Option<PortSet>,

    /// Serve on these cores instead: all, a count, or a CPU set such as 0-3,6
    #[arg(long, value_name = "CORES")]
    cores: Option<Cores>,

    /// Become this user after binding, when started as root
    #[arg(long, value_name = "NAME")]
    user: Option<String>,
}

/// Why a command did not do what it was asked to, told to a person.
#[derive(Debug)]
struct Failure {
    code: u8,
    text: String,
}

impl Failure {
    /// The command line or the configuration is wrong.
    fn usage(text: impl Into<String>) -> Self {
        Self {
            code: EXIT_USAGE,
            text: text.into(),
        }
    }

    /// Something failed: the error and its causes, one per line.
    fn operating(error: &dyn Error) -> Self {
        let mut text = format!("ringftpd: {error}");
        let mut told = error.to_string();
        let mut cause = error.source();
        while let Some(error) = cause {
            let next = error.to_string();
            // Many errors already say what caused them.
            if !told.contains(&next) {
                text.push_str(&format!("\n  because: {next}"));
            }
            told = next;
            cause = error.source();
        }
        Self {
            code: EXIT_FAILED,
            text,
        }
    }

    /// Problems with a configuration that is valid by itself.
    fn problems(name: &str, problems: &[Problem]) -> Self {
        let text: Vec<String> = problems
            .iter()
            .map(|problem| format!("{name}: {problem:#}"))
            .collect();
        Self::usage(text.join("\n\n"))
    }
}

impl From<ConfigError> for Failure {
    /// As it is: it begins with file, line and column, which editors understand.
    fn from(error: ConfigError) -> Self {
        Self::usage(error.to_string())
    }
}

/// Writes to standard output. That nobody reads it any more (`ringftpd … | head`) is no failure.
fn print(text: &str) -> Result<(), Failure> {
    print_while_read(text).map(|_| ())
}

/// The same; whether somebody still reads.
fn print_while_read(text: &str) -> Result<bool, Failure> {
    let mut out = io::stdout().lock();
    match out.write_all(text.as_bytes()).and_then(|()| out.flush()) {
        Ok(()) => Ok(true),
        Err(error) if error.kind() == io::ErrorKind::BrokenPipe => Ok(false),
        Err(error) => Err(Failure::operating(&error)),
    }
}

fn man() -> Result<(), Failure> {
    let mut page = Vec::new();
    clap_mangen::Man::new(Cli::command())
        .render(&mut page)
        .map_err(|error| Failure::operating(&error))?;
    print(&String::from_utf8_lossy(&page))
}

#[cfg(feature = "pam")]
fn helper(ended: io::Result<()>) -> Result<(), Failure> {
    ended.map_err(|error| Failure::operating(&error))
}

const EXIT_DONE: u8 = 0;
const EXIT_FAILED: u8 = 1;
const EXIT_USAGE: u8 = 2;

const EXAMPLES: &str = "\
Examples:
  ringftpd serve .                        Share the current directory, read-only, on
                                          ftp://127.0.0.1:2121/
  ringftpd serve ~/pub -l 0.0.0.0:2121    The same for the network
  ringftpd serve -c /etc/ringftpd/ringftpd.toml
                                          What the configuration says
  ringftpd check                          Would it start, and what would it do?
  ringftpd user add alice --root /srv/alice
  ringftpd ports --advise                 Are the passive ports well set up?
  ringftpd who                            Who is connected, and what do they do?

The configuration is described in config/ringftpd.toml: every key with its default.";

const SERVE_EXAMPLES: &str = "\
Signals:
  SIGTERM, SIGINT   Stop: no new sessions, idle ones are closed with 421, running transfers may
                    end within server.drain_timeout
  SIGHUP            Read the configuration again, as 'ringftpd reload' does

Environment:
  RUST_LOG          Log level, overrides log.level: error, warn, info, debug, trace
  NO_COLOR          No colour in the log";

const PORTS_EXAMPLES: &str = "\
Examples:
  ringftpd ports                  The ports of each core: free, busy, and what they were used for
  ringftpd ports --watch          The same, again every 2 seconds
  ringftpd ports --advise         What to change, with the arithmetic
  ringftpd ports --json | jq '.cores[].pools[].refusals'
  ringftpd ports --plan rate=200 rtt=80ms abandoned=5% cores=4
                                  How many ports will such a load take?

The server answers on admin.socket. Bars show busy, leaving, free and unavailable ports. NO_COLOR
turns colour off. Keys of --plan: rate (PASV and EPSV a second; required), rtt, think (a client's
delay before it connects), abandoned (share of ports that are never used), timeout
(data.accept_timeout), cores, clients (addresses), busiest (share of the busiest one), peer (strict,
subnet, off), cap (data.ports_per_client), loss (share that may be refused).";

const WHO_EXAMPLES: &str = "\
Examples:
  ringftpd who                          All sessions, the oldest first
  ringftpd who --watch --sort rate      The fastest transfers first, again every 2 seconds
  ringftpd who --user alice --ip 192.0.2.0/24
  ringftpd who --json | jq '.sessions[] | select(.transfer.direction == \"upload\")'

SINCE is in UTC, as in the log. RATE is the mean since the transfer began; with --watch, that since
the last look. The numbers in the first column are for 'ringftpd kick', and are in the log, too.";

const KICK_EXAMPLES: &str = "\
Examples:
  ringftpd kick 17                      The session that 'ringftpd who' shows as 17
  ringftpd kick --user alice            All sessions of alice
  ringftpd kick --user alice --ip 192.0.2.7
                                        Those of them that come from there
  ringftpd kick --all

Clients are told so by a 421. A transfer is aborted; what remains of an upload is up to
files.uploads. They may come back at once: 'ringftpd user' takes an account away. Exit code 1: no
session matches.";

const CERT_EXAMPLES: &str = "\
Examples:
  ringftpd cert self-signed --host ftp.example.org --file /etc/ringftpd/ftp.pem
  ringftpd cert self-signed --host localhost --host 127.0.0.1 --days 30 --file ftp.pem

A certificate that everybody trusts comes from an authority, such as Let's Encrypt; the server takes
it over when its files change.";

const USER_EXAMPLES: &str = "\
Examples:
  ringftpd user add alice --root /srv/alice
  ringftpd user add mirror --root /srv/pub --access read-only
  pass show ftp/alice | ringftpd user passwd alice --password-stdin
  ringftpd user set alice quota='10 GiB' deny=delete,rename sessions=4
  ringftpd user set alice quota= enabled=false
                                        KEY= takes a key away; docs/users.md has all keys
  ringftpd user copy --from file --to database
  ringftpd user list --database sqlite:/var/lib/ringftpd/users.db

Users are kept where users.sources says, in the file or the database, whichever comes first there.
The server notices changes by itself; they take effect with the next login.";

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_command_line_is_consistent() {
        Cli::command().debug_assert();
    }

    #[test]
    fn causes_are_told_once() {
        #[derive(Debug, thiserror::Error)]
        #[error("outer: {0}")]
        struct Outer(#[source] io::Error);
        let told = Failure::operating(&Outer(io::Error::other("inner"))).text;
        assert_eq!(told, "ringftpd: outer: inner");

        #[derive(Debug, thiserror::Error)]
        #[error("outer")]
        struct Silent(#[source] io::Error);
        let told = Failure::operating(&Silent(io::Error::other("inner"))).text;
        assert_eq!(told, "ringftpd: outer\n  because: inner");
    }
}
