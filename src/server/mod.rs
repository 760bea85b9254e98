//! The supervisor: checks the host, binds, gives up privileges, starts a thread for each core, waits
//! for signals, and drains. It serves no session itself.

mod admission;
mod listener;
mod summary;
mod worker;

use std::io;
use std::net::SocketAddr;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::Duration;

use thiserror::Error;
use tokio::sync::watch;

pub use summary::Summary;

use crate::auth::Authenticator;
use crate::config::{Config, Host, PortRange, Problem};
use crate::control::Phase;
use crate::sys::credentials::{Account, AccountError, Keep};
use crate::sys::signal::{Signal, Signals};
use crate::sys::socket;
use crate::sys::worker::Workers;
use crate::{sys, uring};

use admission::Admission;
use worker::{Common, Share};

/// Why the server did not start, or ended by itself. The texts say what to change.
#[derive(Debug, Error)]
pub enum ServeError {
    /// The configuration does not suit this host.
    #[error("{}", problems_text(.0))]
    Config(Vec<Problem>),
    /// There can be no ring.
    #[error("io_uring is needed: {0}")]
    Ring(#[from] uring::ProbeError),
    /// A control listener cannot be bound.
    #[error("cannot listen on {address}: {source}{}", listen_hint(.source, .address))]
    Listen {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A passive port cannot be bound.
    #[error("cannot listen on passive port {address}: {source}{}", passive_hint(.source))]
    Passive {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// Every port of a core's slice is taken.
    #[error(
        "all passive ports {slice} are taken by other programs; choose another data.passive_ports \
         (see 'ss -ltnp')"
    )]
    PortsTaken {
        /// The slice of the core.
        slice: PortRange,
    },
    /// Not every core would have a port.
    #[error("data.passive_ports {range} has fewer ports than there are cores ({cores})")]
    TooFewPorts {
        /// The range.
        range: PortRange,
        /// The cores.
        cores: usize,
    },
    /// The account to run as.
    #[error("server.user: {0}")]
    Account(#[from] AccountError),
    /// Anything of the system's that should not fail.
    #[error("cannot {what}: {source}")]
    System {
        /// What was tried.
        what: &'static str,
        /// Why it failed.
        source: io::Error,
    },
    /// A core ended though nobody asked it to.
    #[error("core {0} has ended unexpectedly; the log says why")]
    CoreEnded(usize),
}

/// Serves until SIGTERM or SIGINT. `ready` is called once, when clients are accepted.
///
/// # Errors
///
/// See [`ServeError`].
pub fn run(config: Config, ready: impl FnOnce(&Summary)) -> Result<(), ServeError> {
    let (cpus, descriptors) = survey(&config)?;
    let account = match &config.server.user {
        Some(user) if sys::credentials::is_root() => {
            Some(Account::lookup(user, config.server.group.as_deref())?)
        }
        _ => None,
    };
    let mut sockets = listener::bind(&config, cpus.len())?;
    let signals = Signals::block().map_err(system("block signals"))?;
    if let Some(account) = account {
        give_up_root(&account, &config)?;
    }
    // Modes are what the configuration and SITE UMASK say, whatever the shell's umask was.
    sys::process::clear_umask();
    let active_source_port = source_port(&config);
    let summary = Summary::new(&config, &cpus, &sockets, descriptors, active_source_port);
    summary.warn();
    let (phase, receiver) = watch::channel(Phase::Serving);
    let admission = Arc::new(Admission::new(
        summary.sessions_max,
        config.limits.sessions_per_ip.map(Into::into),
    ));
    let common = Common {
        authenticator: Arc::new(Authenticator::new(&config.anonymous, &config.users)),
        verifiers: Workers::start("verify", config.users.hash_threads, VERIFY_QUEUE_MAX)
            .map_err(system("start threads"))?,
        listers: Workers::start("list", LIST_THREADS, LIST_QUEUE_MAX)
            .map_err(system("start threads"))?,
        admission: Arc::clone(&admission),
        active_source_port,
        phase: receiver,
        config: Arc::new(config),
    };
    let drain_timeout = common.config.server.drain_timeout;
    let shares = sockets.cores.drain(..).zip(cpus).enumerate();
    let cores = start(shares.map(|(index, (sockets, cpu))| Share {
        index,
        cpu,
        sockets,
        common: common.clone(),
    }))?;
    ready(&summary);
    supervise(&signals, &cores, &phase, &admission, drain_timeout)?;
    for core in cores {
        // What a core died of has been logged by its thread.
        let _ = core.join();
    }
    tracing::info!("stopped");
    Ok(())
}

/// Whether this host can run the configuration; the CPU of each core, and how many descriptors there
/// may be.
fn survey(config: &Config) -> Result<(Vec<usize>, u64), ServeError> {
    uring::probe()?;
    let allowed = sys::affinity::allowed_cpus().map_err(system("read the CPUs allowed"))?;
    let checked = config.check(&Host {
        cpus: allowed.clone(),
        root: sys::credentials::is_root(),
    });
    for warning in &checked.warnings {
        tracing::warn!("{warning}");
    }
    if !checked.problems.is_empty() {
        return Err(ServeError::Config(checked.problems));
    }
    let descriptors =
        sys::rlimit::raise_descriptor_limit().map_err(system("read the descriptor limit"))?;
    Ok((config.server.cores.cpus(&allowed), descriptors))
}

/// Becomes the account to run as. Port 20 needs CAP_NET_BIND_SERVICE for as long as the server runs.
fn give_up_root(account: &Account, config: &Config) -> Result<(), ServeError> {
    let low_port = (1..1024).contains(&config.data.active_source_port);
    let keep = match config.data.active && low_port {
        true => Keep::BindLowPorts,
        false => Keep::Nothing,
    };
    account
        .become_permanently(keep)
        .map_err(system("become server.user"))
}

fn system(what: &'static str) -> impl FnOnce(io::Error) -> ServeError {
    move |source| ServeError::System { what, source }
}

/// Starts a thread for each core and waits until all of them serve.
fn start(shares: impl Iterator<Item = Share>) -> Result<Vec<JoinHandle<()>>, ServeError> {
    let (sender, ready) = mpsc::channel();
    let mut cores = Vec::new();
    for share in shares {
        let sender = sender.clone();
        let index = share.index;
        let core = thread::Builder::new()
            .name(format!("core {index}"))
            .spawn(move || {
                let told = sender.clone();
                if let Err(error) = worker::run(share, move || drop(told.send(Ok(())))) {
                    let _ = sender.send(Err(error));
                }
            });
        cores.push(core.map_err(system("start a core's thread"))?);
    }
    drop(sender);
    for index in 0..cores.len() {
        match ready.recv() {
            Ok(Ok(())) => {}
            Ok(Err(error)) => return Err(system("set up a core's ring")(error)),
            Err(_) => return Err(ServeError::CoreEnded(index)),
        }
    }
    Ok(cores)
}

/// Waits for a signal, then sees the drain through.
fn supervise(
    signals: &Signals,
    cores: &[JoinHandle<()>],
    phase: &watch::Sender<Phase>,
    admission: &Admission,
    drain_timeout: Duration,
) -> Result<(), ServeError> {
    loop {
        let signal = signals
            .wait(SUPERVISE_INTERVAL)
            .map_err(system("wait for signals"))?;
        let serving = *phase.borrow() == Phase::Serving;
        match signal {
            Some(Signal::Terminate | Signal::Interrupt) if serving => {
                let sessions = admission.sessions();
                let seconds = drain_timeout.as_secs();
                tracing::info!(
                    sessions,
                    seconds,
                    "stopping: transfers may end, a second signal ends them"
                );
                phase.send_replace(Phase::Draining);
            }
            Some(Signal::Terminate | Signal::Interrupt) => {
                phase.send_replace(Phase::Ending);
            }
            Some(Signal::Hangup) => {
                tracing::info!("SIGHUP: the user file is read at each change; nothing to reload");
            }
            None => {}
        }
        let ended = cores.iter().position(JoinHandle::is_finished);
        match (ended, *phase.borrow()) {
            (Some(index), Phase::Serving) => {
                phase.send_replace(Phase::Draining);
                return Err(ServeError::CoreEnded(index));
            }
            (Some(_), _) if cores.iter().all(JoinHandle::is_finished) => return Ok(()),
            _ => {}
        }
    }
}

/// The port that active data connections come from: the one wanted if this process may bind it,
/// otherwise any (0).
fn source_port(config: &Config) -> u16 {
    let wanted = config.data.active_source_port;
    let usable = config
        .server
        .listen
        .iter()
        .all(|address| socket::can_bind(SocketAddr::new(address.ip(), wanted)));
    match config.data.active && usable {
        true => wanted,
        false => 0,
    }
}

fn problems_text(problems: &[Problem]) -> String {
    let lines: Vec<String> = problems.iter().map(ToString::to_string).collect();
    lines.join("\n")
}

fn listen_hint(error: &io::Error, address: &SocketAddr) -> String {
    match error.kind() {
        io::ErrorKind::AddrInUse => format!(
            "; another program listens there: stop it ('ss -ltnp sport = :{}' names it) or change \
             server.listen",
            address.port()
        ),
        io::ErrorKind::PermissionDenied => format!(
            "; ports below 1024 need root or CAP_NET_BIND_SERVICE: start as root with server.user \
             set, or choose another port than {}",
            address.port()
        ),
        io::ErrorKind::AddrNotAvailable => {
            "; no interface of this host has that address".to_owned()
        }
        _ if sys::is_out_of_descriptors(error) => DESCRIPTOR_HINT.to_owned(),
        _ => String::new(),
    }
}

fn passive_hint(error: &io::Error) -> &'static str {
    match sys::is_out_of_descriptors(error) {
        true => DESCRIPTOR_HINT,
        false => "",
    }
}

/// What to do when a start needs more descriptors than there may be.
const DESCRIPTOR_HINT: &str = "; raise the descriptor limit (LimitNOFILE= in the unit, ulimit -n) or narrow data.passive_ports";

/// How often the supervisor looks whether its cores live.
const SUPERVISE_INTERVAL: Duration = Duration::from_millis(100);

/// Logins that may wait for a thread. At some 20 ms of hashing each, more would time out.
const VERIFY_QUEUE_MAX: usize = 256;

/// Threads for listings and digests: enough that one slow directory does not hold up the others.
const LIST_THREADS: usize = 4;

/// Pieces of listings and digests that may wait for a thread; one for each session that lists.
const LIST_QUEUE_MAX: usize = 4096;
