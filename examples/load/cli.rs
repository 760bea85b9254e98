//! The command line.

use std::io::Write;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use clap::{Args, Parser, Subcommand, ValueEnum};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::cases::Work;
use crate::client::{self, Doing, Result, Target, Tls};
use crate::{files, orders, verify};

/// A load generator for FTP servers.
#[derive(Debug, Parser)]
#[command(name = "load", after_help = ORDERS)]
pub(crate) struct Arguments {
    /// Where the server is
    #[arg(long, global = true, default_value_t = Ipv4Addr::LOCALHOST.into())]
    host: IpAddr,
    /// Its control port
    #[arg(long, global = true, default_value_t = 21)]
    port: u16,
    /// Who logs in
    #[arg(long, global = true, default_value = "anonymous")]
    user: String,
    /// By which password, if the server asks for one
    #[arg(long, global = true, default_value = "compare@")]
    password: String,
    /// Over TLS of this version: AUTH TLS, PBSZ 0, PROT P, any certificate, AES-128-GCM, data
    /// connections that resume
    #[arg(long, global = true, value_name = "VERSION", value_parser = ["1.2", "1.3"])]
    tls: Option<String>,
    #[command(subcommand)]
    case: Case,
}

#[derive(Debug, Subcommand)]
enum Case {
    /// Connect, USER, PASS, QUIT; so many at a time
    Login {
        #[arg(long, default_value_t = 32)]
        sessions: usize,
    },
    /// A command without arguments, on so many sessions at a time
    Command {
        #[arg(long, default_value_t = 64)]
        sessions: usize,
        #[arg(long, default_value = "NOOP")]
        line: String,
        /// Of the reply
        #[arg(long, default_value_t = 200)]
        code: u16,
    },
    /// Downloads, one on each session at a time
    Retr {
        #[command(flatten)]
        transfers: Transfers,
        /// Be woken for so many bytes [default: 256 KiB, or the whole file]
        #[arg(long)]
        lowat: Option<u64>,
    },
    /// Uploads, one on each session at a time: FILE0, FILE1, …, replaced each time
    Stor {
        #[command(flatten)]
        transfers: Transfers,
    },
    /// Listings of a directory on one session
    List {
        #[arg(long, value_enum)]
        verb: Verb,
        #[arg(long)]
        directory: String,
        /// How long it is [default: like the first one]
        #[arg(long)]
        bytes: Option<u64>,
        #[arg(long, value_enum, default_value_t = Via::Epsv)]
        via: Via,
    },
    /// One session, and how long it waits for each answer
    Probe {
        #[arg(long, value_enum)]
        what: What,
        #[arg(long, required_if_eq("what", "retr"))]
        file: Option<String>,
        #[arg(long, required_if_eq("what", "retr"))]
        size: Option<u64>,
        #[arg(long, value_enum, default_value_t = Via::Epsv)]
        via: Via,
        /// Between an answer and the next question
        #[arg(long, default_value_t = 0)]
        interval_us: u64,
    },
    /// Sessions that do nothing
    Idle {
        #[arg(long)]
        sessions: usize,
    },
    /// Downloads that are read slowly, from `ready` to `end`
    Slow {
        #[arg(long)]
        sessions: usize,
        #[arg(long)]
        file: String,
        #[arg(long)]
        size: u64,
        /// Bytes per second of each
        #[arg(long)]
        rate: u64,
    },
    /// Download a file and compare every byte of it with the pattern
    Verify {
        #[arg(long)]
        file: String,
        #[arg(long)]
        size: u64,
        #[arg(long, value_enum, default_value_t = Via::Epsv)]
        via: Via,
    },
    /// List a directory by LIST, MLSD and NLST: are exactly these names in it?
    VerifyList {
        #[arg(long)]
        directory: String,
        /// A file with one name per line
        #[arg(long)]
        names: PathBuf,
    },
    /// Write a file with the pattern, without any server
    Fill {
        #[arg(long)]
        path: PathBuf,
        #[arg(long)]
        size: u64,
    },
    /// Make a certificate for 127.0.0.1 (ECDSA P-256), without any server; its key is in the file, too
    Certify {
        #[arg(long)]
        path: PathBuf,
    },
    /// Compare a file with the pattern, or with its first MiB repeated, as big uploads are
    Check {
        #[arg(long)]
        path: PathBuf,
        #[arg(long)]
        size: u64,
    },
}

#[derive(Args, Debug)]
struct Transfers {
    #[arg(long, default_value_t = 1)]
    sessions: usize,
    /// How the data connection comes about
    #[arg(long, value_enum)]
    via: Via,
    #[arg(long)]
    file: String,
    /// In bytes
    #[arg(long)]
    size: u64,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum Via {
    Epsv,
    Pasv,
    Port,
    Eprt,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
#[value(rename_all = "UPPER")]
enum Verb {
    List,
    Mlsd,
    Nlst,
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum What {
    Noop,
    Retr,
}

impl From<Via> for client::Via {
    fn from(via: Via) -> Self {
        match via {
            Via::Epsv => Self::Epsv,
            Via::Pasv => Self::Pasv,
            Via::Port => Self::Port,
            Via::Eprt => Self::Eprt,
        }
    }
}

/// Does what the command line says.
pub(crate) fn run(arguments: Arguments) -> Result<()> {
    let tls = arguments.tls.as_deref().and_then(Tls::version);
    let tls = tls.map(|version| Tls::new(version, &arguments.host.to_string()));
    let target = Target {
        address: SocketAddr::new(arguments.host, arguments.port),
        user: arguments.user,
        password: arguments.password,
        tls: tls.transpose()?,
        deadline: DEADLINE,
    };
    match arguments.case {
        Case::Verify { file, size, via } => verify::file(&target, via.into(), &file, size),
        Case::VerifyList { directory, names } => {
            let found = verify::listings(&target, &directory, &names)?;
            writeln!(std::io::stdout().lock(), "{found}").doing("standard output")
        }
        Case::Fill { path, size } => files::fill(&path, size),
        Case::Certify { path } => files::certify(&path),
        Case::Check { path, size } => files::check(&path, size),
        case => {
            many_descriptors()?;
            orders::obey(work(&target, case)?)
        }
    }
}

fn work(target: &Target, case: Case) -> Result<Work> {
    match case {
        Case::Login { sessions } => Ok(Work::login(target, sessions)),
        Case::Command {
            sessions,
            line,
            code,
        } => Work::command(target, sessions, &line, code),
        Case::Retr {
            transfers: of,
            lowat,
        } => {
            let lowat = lowat.unwrap_or(LOWAT).min(of.size);
            Work::retr(
                target,
                of.sessions,
                of.via.into(),
                &of.file,
                (of.size, lowat),
            )
        }
        Case::Stor { transfers: of } => {
            Work::stor(target, of.sessions, of.via.into(), &of.file, of.size)
        }
        Case::List {
            verb,
            directory,
            bytes,
            via,
        } => {
            let verb = verb.to_possible_value();
            let verb = verb.as_ref().map_or("LIST", |verb| verb.get_name());
            Work::list(target, via.into(), verb, &directory, bytes)
        }
        Case::Probe {
            what,
            file,
            size,
            via,
            interval_us,
        } => {
            let work = match (what, file, size) {
                (What::Retr, Some(file), Some(size)) => {
                    Work::retr(target, 1, via.into(), &file, (size, LOWAT.min(size)))?
                }
                _ => Work::command(target, 1, "NOOP", 200)?,
            };
            Ok(work.into_probe(Duration::from_micros(interval_us)))
        }
        Case::Idle { sessions } => Work::idle(target, sessions),
        Case::Slow {
            sessions,
            file,
            size,
            rate,
        } => Work::slow(target, sessions, &file, size, rate),
        Case::Verify { .. }
        | Case::VerifyList { .. }
        | Case::Fill { .. }
        | Case::Certify { .. }
        | Case::Check { .. } => unreachable!("run has done them"),
    }
}

/// Thousands of sessions are more descriptors than a process may have at first.
fn many_descriptors() -> Result<()> {
    let (_, most) = getrlimit(Resource::RLIMIT_NOFILE).doing("getrlimit")?;
    setrlimit(Resource::RLIMIT_NOFILE, most, most).doing("setrlimit")
}

/// Of the slowest server for the longest step that is asked of it.
const DEADLINE: Duration = Duration::from_secs(60);

const LOWAT: u64 = 256 << 10;

const ORDERS: &str = "\
All cases but verify, verify-list, fill, certify and check connect, log in and set TYPE I, print `ready`, and
then read orders from standard input, each of which they answer by one line of JSON:

  warm         one step, which is not measured: {\"units\": u}
  go SECONDS   steps until that time is over, at least one: units, bytes, seconds, asked and refused
               (data connections), latency in µs (null, or count, p50, p99, p999, max),
               password_asked, handshakes (null, or full and resumed ones, version and cipher)
  end          QUIT on all sessions, its reply and the end of the connections: {\"ended\": true}

A step is one login, command, transfer or listing on each session. The end of standard input ends
the program at once. Whatever is not as it should be ends it with a line on standard error.

Files have the pattern: 8 bytes, little endian, at offset o are splitmix64(o / 8).";
