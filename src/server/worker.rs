//! One core: a pinned thread with its own ring, which accepts and serves its share of the clients.

use std::fs::File;
use std::io;
use std::net::SocketAddr;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::watch;

use super::admission::{Admission, Refusal, Ticket};
use super::listener::CoreSockets;
use crate::auth::Authenticator;
use crate::config::Config;
use crate::control::{self, Core, Phase, Stop};
use crate::data::active::Active;
use crate::data::pool::{PassiveListener, Pool};
use crate::data::table::Rules;
use crate::session;
use crate::sys;
use crate::sys::worker::Workers;
use crate::transfer::{Buffers, Depot};
use crate::uring::{self, Fd, PipePool, RingOptions};

/// What one core is given; everything in it may move to its thread.
pub(super) struct Share {
    pub(super) index: usize,
    pub(super) cpu: usize,
    pub(super) sockets: CoreSockets,
    pub(super) common: Common,
}

/// What every core is given.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) config: Arc<Config>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) verifiers: Workers,
    pub(super) listers: Workers,
    pub(super) admission: Arc<Admission>,
    pub(super) active_source_port: u16,
    pub(super) phase: watch::Receiver<Phase>,
}

/// Serves on the calling thread until the server stops. `ready` is told once clients are accepted.
pub(super) fn run(share: Share, ready: impl FnOnce()) -> io::Result<()> {
    // A CPU taken away since the start is no reason not to serve.
    if let Err(error) = sys::affinity::pin(share.cpu) {
        tracing::warn!(core = share.index, cpu = share.cpu, %error, "cannot pin the core's thread");
    }
    let spare = Spare::new()?;
    uring::start(&RingOptions::default(), || serve(share, spare, ready))
}

async fn serve(share: Share, spare: Spare, ready: impl FnOnce()) {
    let Share {
        sockets, common, ..
    } = share;
    let drain_timeout = common.config.server.drain_timeout;
    let admission = Arc::clone(&common.admission);
    let mut phase = common.phase.clone();
    let core = Rc::new(core(common, sockets.passive));
    let spare = Rc::new(spare);
    let acceptors: Vec<_> = sockets
        .control
        .into_iter()
        .map(|listener| {
            let (core, admission) = (Rc::clone(&core), Arc::clone(&admission));
            uring::spawn(accept(
                core,
                Rc::new(listener),
                admission,
                Rc::clone(&spare),
            ))
        })
        .collect();
    ready();
    reach(&mut phase, Phase::Draining).await;
    // Dropping the accept withdraws it from the ring and closes the listener.
    for acceptor in acceptors {
        acceptor.abort();
    }
    core.stop.advance(Phase::Draining);
    tokio::select! {
        () = core.stop.empty() => {}
        () = tokio::time::sleep(drain_timeout) => {}
        () = reach(&mut phase, Phase::Ending) => {}
    }
    if core.stop.sessions() > 0 {
        tracing::warn!(
            sessions = core.stop.sessions(),
            "ending sessions that still transfer"
        );
    }
    core.stop.advance(Phase::Ending);
    // Sessions end by themselves now; a disk that does not answer must not hold up the end.
    let _ = tokio::time::timeout(END_TIMEOUT, core.stop.empty()).await;
}

/// Makes what the sessions of a core share. Must run on the core.
fn core(common: Common, passive: Vec<PassiveListener>) -> Core {
    let Common {
        config,
        authenticator,
        verifiers,
        listers,
        active_source_port,
        ..
    } = common;
    let limits = &config.limits;
    let pool = config.data.passive.then(|| {
        let rules = Rules {
            timeout: config.data.accept_timeout,
            per_client_max: config.data.ports_per_client,
            peer_check: config.data.peer_check,
        };
        Pool::start(passive, rules)
    });
    Core {
        limits: Rc::new(session_limits(&config)),
        line_length: limits.line_length,
        reply_timeout: limits.reply_timeout,
        passive_address: config.data.passive_address,
        pool,
        active: Active {
            source_port: active_source_port,
            connect_timeout: config.data.connect_timeout,
        },
        authenticator,
        verifiers,
        files: config.files,
        depot: Depot {
            buffers: Buffers::default(),
            pipes: PipePool::new(PIPES_MAX),
            workers: listers,
            stall_timeout: limits.stall_timeout,
        },
        roots: control::Roots::default(),
        stop: Stop::default(),
    }
}

/// Waits until the supervisor has announced `wanted` or a later phase, or has gone.
async fn reach(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    let _ = phase.wait_for(|phase| *phase >= wanted).await;
}

/// Accepts control connections on one listener.
async fn accept(core: Rc<Core>, listener: Fd, admission: Arc<Admission>, spare: Rc<Spare>) {
    loop {
        match uring::accept(&listener).await {
            Ok((socket, peer)) => match admission.enter(peer.ip().to_canonical()) {
                Ok(ticket) => begin(Rc::clone(&core), socket, peer, ticket),
                Err(refusal) => refuse(socket, peer, refusal),
            },
            Err(error) if sys::is_out_of_descriptors(&error) => {
                spare.refuse_one(&listener);
                tracing::error!(
                    %error,
                    "a control connection was refused: raise LimitNOFILE or lower limits.sessions"
                );
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
            Err(error) => {
                // accept(2), "Error handling": mostly errors of connections that died in the queue.
                tracing::debug!(%error, "accept failed");
                tokio::time::sleep(ACCEPT_RETRY_DELAY).await;
            }
        }
    }
}

fn begin(core: Rc<Core>, socket: OwnedFd, peer: SocketAddr, ticket: Ticket) {
    let present = Stop::enter(&core);
    uring::spawn(async move {
        let (_ticket, _present) = (ticket, present);
        control::serve(core, socket, peer).await;
    });
}

fn refuse(socket: OwnedFd, peer: SocketAddr, refusal: Refusal) {
    tracing::warn!(%peer, ?refusal, "control connection refused");
    // Should it not fit into an empty socket buffer, closing is answer enough.
    let _ = sys::socket::send(&socket, refusal.reply());
}

/// A descriptor in reserve: without it a client could not even be told that none is left, and its
/// connection would stay in the queue for ever.
struct Spare(std::cell::RefCell<Option<File>>);

impl Spare {
    fn new() -> io::Result<Self> {
        Ok(Self(std::cell::RefCell::new(Some(File::open(
            "/dev/null",
        )?))))
    }

    /// Takes one connection from the queue and closes it with a 421.
    fn refuse_one(&self, listener: &Fd) {
        let mut spare = self.0.borrow_mut();
        *spare = None;
        if let Ok((socket, peer)) = sys::socket::accept(&**listener) {
            refuse(socket, peer, Refusal::Full);
        }
        *spare = File::open("/dev/null").ok();
    }
}

fn session_limits(config: &Config) -> session::Limits {
    session::Limits {
        login_attempts: config.limits.login_attempts,
        idle_timeout: config.limits.idle_timeout,
        login_timeout: config.limits.login_timeout,
        passive: config.data.passive,
        active: config.data.active,
        greeting: config.server.greeting.clone(),
    }
}

/// Cold downloads at a time on one core; each pipe may hold 1 MiB of the page cache.
const PIPES_MAX: usize = 64;

/// After an error of accept(2) the queue stays readable: trying again at once would spin.
const ACCEPT_RETRY_DELAY: Duration = Duration::from_millis(20);

/// How long sessions may take to end when they have been told to.
const END_TIMEOUT: Duration = Duration::from_secs(5);
