//! The supervisor: checks the host, binds, gives up privileges, starts a thread for each core, waits
//! for signals, and drains. It serves no session itself.

mod admin;
mod admission;
mod certificates;
mod door;
mod kernel_tls;
mod listener;
mod mailbox;
mod metrics;
mod passive;
mod resolver;
pub mod sessions;
mod summary;
mod supervisor;
mod worker;

use std::io;
use std::net::{IpAddr, SocketAddr};
use std::os::unix::net::UnixListener;
use std::sync::{Arc, mpsc};
use std::thread::{self, JoinHandle};
use std::time::{Duration, Instant};

use thiserror::Error;
use tokio::sync::watch;

pub use kernel_tls::KernelTls;
pub use summary::Summary;

use crate::auth::{Authenticator, Helpers};
use crate::config::{Config, Host, LISTENERS_MAX, PassivePool, Problem};
use crate::control::Phase;
use crate::data::lending::{self, Neighbours};
use crate::quota::Quotas;
use crate::sys::credentials::{Account, AccountError, Keep};
use crate::sys::signal::Signals;
use crate::sys::socket;
use crate::sys::worker::Workers;
use crate::throttle::Throttle;
use crate::tls::{CertificateError, Keys, Tls};
use crate::{sys, uring};

use admin::Desk;
use admission::Admission;
use certificates::Watched;
use door::Other;
use listener::Listeners;
use passive::Bound;
use resolver::Resolver;
use supervisor::Supervisor;
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
    #[error("cannot listen on passive port {address}: {source}{}", passive::hint(.source))]
    Passive {
        /// Where.
        address: SocketAddr,
        /// Why.
        source: io::Error,
    },
    /// A core would have no passive port.
    #[error(
        "{key}: the passive ports {ports} on {address} are held by other programs ('ss -tanp' names \
         them); choose other ports"
    )]
    PortsTaken {
        /// Where.
        address: IpAddr,
        /// The key that named them.
        key: String,
        /// The ports.
        ports: String,
    },
    /// There is no TLS to be had.
    #[error("tls.certificates: {}", texts(.0))]
    Tls(Vec<CertificateError>),
    /// The descriptor limit is too low.
    #[error(
        "{ports} passive ports need {needed} descriptors before the first client comes, and the limit is \
         {limit}: raise it (LimitNOFILE= in the unit, ulimit -n) or narrow data.passive_ports"
    )]
    Descriptors {
        /// Passive ports, on all addresses.
        ports: usize,
        /// Descriptors for them and the rest of the server.
        needed: usize,
        /// The limit.
        limit: u64,
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

/// A configuration that was read again, with what is unwise about it.
#[derive(Debug)]
pub struct Reloaded {
    /// The configuration; it suits this host.
    pub config: Config,
    /// What is worth telling.
    pub warnings: Vec<Problem>,
}

/// Serves until SIGTERM or SIGINT. `ready` is called once, when clients are accepted; `reload`, at
/// SIGHUP or an administrator's order, reads the configuration again or says what is wrong with it.
///
/// # Errors
///
/// See [`ServeError`].
pub fn run(
    config: Config,
    reload: &dyn Fn() -> Result<Reloaded, String>,
    ready: impl FnOnce(&Summary),
) -> Result<(), ServeError> {
    let started = Instant::now();
    let ground = Ground::prepare(&config)?;
    let active_source_port = source_port(&config);
    let summary = Summary::new(&config, &ground, active_source_port);
    summary.log();
    passive::warn_of_taken(&ground.bound.taken(&ground.pools));
    let resolver = resolver(&config)?;
    let config = Arc::new(config);
    let crew = Crew::start(&config, ground, summary.sessions_max, active_source_port)?;
    let (orders, receiver) = mpsc::channel();
    let socket = crew
        .admin
        .is_some()
        .then(|| admin::identity(&config.admin.socket));
    if let Some(listener) = crew.admin {
        let desk = Desk {
            cores: crew.others.clone(),
            started,
            orders,
            quotas: Arc::clone(&crew.quotas),
            throttle: Arc::clone(&crew.throttle),
            authenticator: Arc::clone(&crew.authenticator),
        };
        desk.open(listener).map_err(system("start threads"))?;
    }
    let supervisor = Supervisor {
        signals: crew.signals,
        cpus: crew.cpus,
        cores: crew.cores,
        others: crew.others,
        neighbours: crew.neighbours,
        phase: crew.phase,
        admission: crew.admission,
        throttle: crew.throttle,
        authenticator: crew.authenticator,
        keys: crew.keys,
        certificates: Watched::new(&config.tls),
        verifiers: crew.verifiers,
        orders: receiver,
        resolver,
        config: Arc::clone(&config),
        missing: crew.missing,
        look_again: started,
        has_reloaded: false,
        reload,
    };
    supervisor.greet();
    ready(&summary);
    let ended = supervisor.run();
    crew.quotas.wait_until_closed(LEDGERS_PATIENCE);
    // Not another server's, that has taken the path since.
    if socket.is_some_and(|socket| socket == admin::identity(&config.admin.socket)) {
        // Left behind where root has made it; the next start removes it then.
        let _ = std::fs::remove_file(&config.admin.socket);
    }
    ended?;
    tracing::info!("stopped");
    Ok(())
}

/// Takes the rights that the server needs only at moments out of effect, where it was started with them
/// and not as root. To be called before the first thread is started, which would have them for good.
///
/// # Errors
/// As capset(2).
pub fn hold_rights_back(config: &Config) -> Result<(), ServeError> {
    match config.users.system && !sys::credentials::is_root() {
        true => sys::acting::hold_back().map_err(system("hold capabilities back")),
        false => Ok(()),
    }
}

/// What only root may be able to make, before the first thread.
struct Ground {
    cpus: Vec<usize>,
    descriptors: u64,
    listeners: Listeners,
    pools: Vec<PassivePool>,
    bound: Bound,
    admin: Option<UnixListener>,
    helpers: Helpers,
    signals: Signals,
    keys: Arc<Keys>,
    tls: Option<Arc<Tls>>,
    kernel_tls: Option<KernelTls>,
}

impl Ground {
    /// Checks the host, binds everything, and gives up root.
    fn prepare(config: &Config) -> Result<Self, ServeError> {
        let (cpus, descriptors) = survey(config)?;
        let account = match &config.server.user {
            Some(user) if sys::credentials::is_root() => {
                Some(Account::lookup(user, config.server.group.as_deref())?)
            }
            _ => None,
        };
        passive::check_descriptors(config, cpus.len(), descriptors)?;
        let listeners = listener::bind(config, None, &cpus)?;
        let pools = config.passive_pools();
        let bound = passive::bind(&pools, cpus.len(), &[]).verdict(&pools, config.data.borrow)?;
        let admin = admin_socket(config);
        let helpers = Helpers::start(config).map_err(system("start a helper process"))?;
        let signals = Signals::block().map_err(system("block signals"))?;
        let keys = Keys::new().map_err(|error| system("make keys")(io::Error::other(error)))?;
        let tls = Tls::load(&config.tls, &keys).map_err(ServeError::Tls)?;
        let kernel_tls = KernelTls::probe(config);
        if let Some(account) = account {
            give_up_root(&account, config)?;
        }
        // Modes are what the configuration and SITE UMASK say, whatever the shell's umask was.
        sys::process::clear_umask();
        Ok(Self {
            cpus,
            descriptors,
            listeners,
            pools,
            bound,
            admin,
            helpers,
            signals,
            keys,
            tls: tls.map(Arc::new),
            kernel_tls,
        })
    }
}

/// The threads that serve, and the ways to them.
struct Crew {
    signals: Signals,
    cpus: Vec<usize>,
    admin: Option<UnixListener>,
    cores: Vec<JoinHandle<()>>,
    others: Vec<Other>,
    neighbours: Neighbours,
    phase: watch::Sender<Phase>,
    admission: Arc<Admission>,
    quotas: Arc<Quotas>,
    throttle: Arc<Throttle>,
    authenticator: Arc<Authenticator>,
    keys: Arc<Keys>,
    verifiers: Workers,
    missing: usize,
}

impl Crew {
    /// Starts a thread for each core, and the workers.
    fn start(
        config: &Arc<Config>,
        ground: Ground,
        sessions_max: usize,
        active_source_port: u16,
    ) -> Result<Self, ServeError> {
        let (phase, receiver) = watch::channel(Phase::Serving);
        let per_client_max = config.limits.sessions_per_ip.map(Into::into);
        let admission = Arc::new(Admission::new(sessions_max, per_client_max));
        let cpus = ground.cpus;
        let (others, messages): (Vec<Other>, Vec<_>) = cpus.iter().map(|_| Other::new()).unzip();
        let (neighbours, notes) = lending::connect(cpus.len(), LISTENERS_MAX);
        let listers = Workers::start("list", LIST_THREADS, LIST_QUEUE_MAX)
            .map_err(system("start threads"))?;
        let common = Common {
            config: Arc::clone(config),
            tls: ground.tls,
            kernel_tls: ground.kernel_tls.and_then(|found| found.abilities()),
            authenticator: Arc::new(Authenticator::with_helpers(config, ground.helpers)),
            verifiers: Workers::start("verify", config.users.hash_threads, VERIFY_QUEUE_MAX)
                .map_err(system("start threads"))?,
            quotas: Arc::new(Quotas::new(&config.users.state, listers.clone())),
            listers,
            throttle: Arc::new(Throttle::new(config)),
            admission: Arc::clone(&admission),
            active_source_port,
            phase: receiver,
            others: others.clone(),
            neighbours: neighbours.clone(),
        };
        let quotas = Arc::clone(&common.quotas);
        let throttle = Arc::clone(&common.throttle);
        let authenticator = Arc::clone(&common.authenticator);
        let verifiers = common.verifiers.clone();
        let missing_count = ground.bound.missing_count();
        let Bound { ports, missing, .. } = ground.bound;
        let sockets = ground.listeners.cores.into_iter().zip(ports).zip(missing);
        let shares = sockets
            .zip(messages.into_iter().zip(notes))
            .zip(cpus.clone());
        let shares = shares.enumerate().map(|(index, share)| {
            let ((((control, passive), missing), (messages, notes)), cpu) = share;
            Share {
                index,
                cpu,
                control,
                passive,
                missing,
                messages,
                notes,
                common: common.clone(),
            }
        });
        Ok(Self {
            signals: ground.signals,
            cpus,
            admin: ground.admin,
            cores: start(shares)?,
            others,
            neighbours,
            phase,
            admission,
            quotas,
            throttle,
            authenticator,
            keys: ground.keys,
            verifiers,
            missing: missing_count,
        })
    }
}

/// The administrator's socket, if it can be had: a server without one serves all the same.
fn admin_socket(config: &Config) -> Option<UnixListener> {
    if !config.admin.enabled {
        return None;
    }
    let path = &config.admin.socket;
    match admin::bind(path) {
        Ok(listener) => Some(listener),
        Err(error) => {
            let path = path.display();
            tracing::warn!(
                %path,
                %error,
                "no socket for 'ringftpd ports' and 'ringftpd reload': set admin.socket to a path \
                 in a folder of the user who starts the server, or admin.enabled to false"
            );
            None
        }
    }
}

/// Looks up the names that are announced, if there are any.
fn resolver(config: &Config) -> Result<Option<Resolver>, ServeError> {
    let names = config.announced_names();
    if names.is_empty() {
        return Ok(None);
    }
    let resolver = Resolver::start(names, config.data.passive_address_refresh);
    resolver.map(Some).map_err(system("start threads"))
}

/// Whether this host can run the configuration; the CPU of each core, and how many descriptors there
/// may be.
fn survey(config: &Config) -> Result<(Vec<usize>, u64), ServeError> {
    uring::probe()?;
    let allowed = sys::affinity::allowed_cpus().map_err(system("read the CPUs allowed"))?;
    let checked = config.check(&Host {
        cpus: allowed.clone(),
        root: sys::credentials::is_root(),
        acts_as_others: sys::acting::is_allowed(),
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

/// Becomes the account to run as. Port 20 needs CAP_NET_BIND_SERVICE for as long as the server runs,
/// and users who act as accounts of this host need CAP_SETUID and CAP_SETGID.
fn give_up_root(account: &Account, config: &Config) -> Result<(), ServeError> {
    let low_port = (1..1024).contains(&config.data.active_source_port);
    let mut keep = Vec::new();
    if config.data.active && low_port {
        keep.push(Keep::BindLowPorts);
    }
    if config.users.system {
        keep.push(Keep::ActAsUsers);
    }
    account
        .become_permanently(&keep)
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
    texts(problems)
}

fn texts(problems: &[impl ToString]) -> String {
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

/// What to do when a start needs more descriptors than there may be.
const DESCRIPTOR_HINT: &str = "; raise the descriptor limit (LimitNOFILE= in the unit, ulimit -n) or narrow data.passive_ports";

/// How long the end waits for the ledgers of quotas; what is not closed then is counted again.
const LEDGERS_PATIENCE: Duration = Duration::from_secs(2);

/// Logins that may wait for a thread. At some 20 ms of hashing each, more would time out.
const VERIFY_QUEUE_MAX: usize = 256;

/// Threads for listings and digests: enough that one slow directory does not hold up the others.
const LIST_THREADS: usize = 4;

/// Pieces of listings and digests that may wait for a thread; one for each session that lists.
const LIST_QUEUE_MAX: usize = 4096;
