//! One core: a pinned thread with its own ring, which accepts and serves its share of the clients.

use std::cell::Cell;
use std::collections::HashMap;
use std::io;
use std::os::fd::OwnedFd;
use std::rc::Rc;
use std::sync::Arc;
use std::time::Duration;

use tokio::sync::{mpsc, watch};

use super::admission::Admission;
use super::door::{Door, Other, Spare};
use super::mailbox::{Message, Ports};
use super::passive;
use super::sessions;
use crate::auth::Authenticator;
use crate::config::{Anonymous, ClientLogin, Config, TlsPolicy, Users};
use crate::control::{Core, Host, Parts, Phase, Register, Settings};
use crate::data::active::{self, Active};
use crate::data::lending::{Mailbox, Neighbours};
use crate::data::pool::{PassiveListener, Pool};
use crate::data::report::CoreReport;
use crate::quota::Quotas;
use crate::session::{self, CertificateUse, Demands};
use crate::sys;
use crate::sys::ktls::Abilities;
use crate::sys::worker::Workers;
use crate::throttle::Throttle;
use crate::tls::Tls;
use crate::transfer::{Buffers, Depot, Desk, Drains, Gate};
use crate::uring::{self, PipePool, RingOptions};

/// What one core is given; everything in it may move to its thread.
pub(super) struct Share {
    pub(super) index: usize,
    pub(super) cpu: usize,
    /// With their places in `server.listen`.
    pub(super) control: Vec<(usize, OwnedFd)>,
    pub(super) passive: Vec<Vec<PassiveListener>>,
    pub(super) missing: Ports,
    pub(super) messages: mpsc::Receiver<Message>,
    pub(super) notes: Mailbox,
    pub(super) common: Common,
}

/// What every core is given.
#[derive(Clone)]
pub(super) struct Common {
    pub(super) config: Arc<Config>,
    pub(super) tls: Option<Arc<Tls>>,
    pub(super) kernel_tls: Option<Abilities>,
    pub(super) authenticator: Arc<Authenticator>,
    pub(super) verifiers: Workers,
    pub(super) listers: Workers,
    pub(super) quotas: Arc<Quotas>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) admission: Arc<Admission>,
    pub(super) active_source_port: u16,
    pub(super) phase: watch::Receiver<Phase>,
    pub(super) others: Vec<Other>,
    pub(super) neighbours: Neighbours,
}

/// Serves on the calling thread until the server stops. `ready` is told once clients are accepted.
pub(super) fn run(share: Share, ready: impl FnOnce()) -> io::Result<()> {
    // A CPU taken away since the start is no reason not to serve.
    if let Err(error) = sys::affinity::pin(share.cpu) {
        tracing::warn!(core = share.index, cpu = share.cpu, %error, "cannot pin the core's thread");
    }
    let spare = Spare::new()?;
    let options = RingOptions {
        personalities: share.common.config.users.system,
        ..RingOptions::default()
    };
    uring::start(&options, || serve(share, spare, ready))
}

async fn serve(share: Share, spare: Spare, ready: impl FnOnce()) {
    let (index, cpu) = (share.index, share.cpu);
    let Share {
        control,
        passive,
        missing,
        messages,
        notes,
        common,
        ..
    } = share;
    let drain_timeout = common.config.server.drain_timeout;
    let (admission, others) = (Arc::clone(&common.admission), common.others.clone());
    let mut phase = common.phase.clone();
    let balances = common.config.server.balance;
    let core = Rc::new(core(index, common, passive, notes));
    core.pool.set_missing(missing);
    let door = Rc::new(Door::new(&core, index, admission, others, spare));
    door.set_balances(balances);
    door.open(control);
    uring::spawn(hear(
        Rc::clone(&core),
        Rc::clone(&door),
        messages,
        (index, cpu),
    ));
    ready();
    reach(&mut phase, Phase::Draining).await;
    door.close();
    core.advance(Phase::Draining);
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
    core.advance(Phase::Ending);
    // Sessions end by themselves now; a disk that does not answer must not hold up the end.
    let _ = tokio::time::timeout(END_TIMEOUT, core.stop.empty()).await;
}

/// Makes what the sessions of a core share. Must run on the core.
fn core(index: usize, common: Common, passive: Vec<Vec<PassiveListener>>, notes: Mailbox) -> Core {
    let config = &common.config;
    let policy = Rc::new(passive::policy(config, common.others.len()));
    let load = Arc::clone(&common.others[index].load);
    Core::new(Parts {
        settings: settings(config, common.tls),
        pool: Pool::start(index, passive, &policy, common.neighbours, notes),
        active: Active::new(active_policy(config, common.active_source_port)),
        authenticator: common.authenticator,
        verifiers: common.verifiers,
        quotas: common.quotas,
        throttle: common.throttle,
        depot: Depot {
            gate: Gate::default(),
            desk: Desk::default(),
            buffers: Buffers::default(),
            drains: Drains::default(),
            pipes: PipePool::new(PIPES_MAX),
            kernel_tls: common.kernel_tls,
            workers: common.listers,
            stall_timeout: Cell::new(config.limits.stall_timeout),
        },
        register: Register::new(index, common.others.len()),
        load,
    })
}

/// Hears what the core is told, until the end.
async fn hear(
    core: Rc<Core>,
    door: Rc<Door>,
    mut messages: mpsc::Receiver<Message>,
    (index, cpu): (usize, usize),
) {
    while let Some(message) = messages.recv().await {
        // Who asked may have given up waiting for the answer.
        match message {
            Message::Client(arrival, ticket) => door.take_over(arrival, ticket),
            Message::Reload {
                config,
                tls,
                active_source_port,
                control,
                ports,
                missing,
                done,
            } => {
                core.depot.stall_timeout.set(config.limits.stall_timeout);
                core.set_settings(settings(&config, tls));
                core.active
                    .set_policy(active_policy(&config, active_source_port));
                door.set_balances(config.server.balance);
                let policy = passive::policy(&config, door.cores());
                core.pool.change(&Rc::new(policy), ports);
                core.pool.set_missing(missing);
                // What comes in finds all that is set for it.
                door.leave(|listener| config.server.listeners().all(|(it, _)| it != listener));
                door.open(control);
                let _ = done.send(());
            }
            Message::Certificates(tls) => {
                let settings = Settings::clone(&core.settings());
                core.set_settings(Settings {
                    tls: Some(tls),
                    ..settings
                });
            }
            Message::Held(held) => drop(held.send(core.pool.held())),
            Message::Missing(missing) => core.pool.set_missing(missing),
            Message::Names(names) => core.set_names(names),
            Message::Report(report) => {
                let (handed_over, taken_over) = door.moved();
                drop(report.send(CoreReport {
                    core: index,
                    cpu,
                    sessions: core.load.sessions(),
                    logged_in: core.register.logged_in(),
                    transfers: core.load.transfers(),
                    handed_over,
                    taken_over,
                    pools: core.pool.report(),
                    active: core.active.report(),
                }));
            }
            Message::Sessions(question) => sessions::answer(&core, index, &question),
        }
    }
}

/// Waits until the supervisor has announced `wanted` or a later phase, or has gone.
async fn reach(phase: &mut watch::Receiver<Phase>, wanted: Phase) {
    let _ = phase.wait_for(|phase| *phase >= wanted).await;
}

fn settings(config: &Config, tls: Option<Arc<Tls>>) -> Settings {
    let limits = &config.limits;
    let pools = config.passive_pools();
    let listeners = 0..config.server.listen.len();
    Settings {
        hosts: hosts(config, demands(config, tls.is_some())),
        host_names: host_names(config),
        host_at: listeners
            .clone()
            .map(|listener| Rc::from(config.host_at(listener).map_or("", |host| &host.name)))
            .collect(),
        guard: limits.guard,
        line_length: limits.line_length,
        reply_timeout: limits.reply_timeout,
        commands_per_second: limits.commands_per_second,
        session_rates: limits.session_rates,
        files: config.files,
        tls,
        tls_starts: listeners.clone().map(|it| config.tls_start(it)).collect(),
        addressing: listeners.clone().map(|it| config.addressing(it)).collect(),
        pools: listeners.map(|it| config.pool_of(&pools, it)).collect(),
    }
}

/// What is offered and asked for of TLS, on every host.
fn demands(config: &Config, offered: bool) -> Demands {
    let tls = &config.tls;
    Demands {
        offered,
        login: tls.is_required(),
        data: tls.policy == TlsPolicy::RequireData,
        clear: tls.clear_commands,
        certificate: match tls.client_login {
            ClientLogin::Password => CertificateUse::None,
            ClientLogin::Name => CertificateUse::Name,
            ClientLogin::Certificate => CertificateUse::Login,
        },
    }
}

/// What holds on the server and on each virtual host, by the names of their sections.
fn hosts(config: &Config, tls: Demands) -> HashMap<Rc<str>, Host> {
    let server = (
        "",
        &config.server.greeting,
        &config.users,
        &config.anonymous,
        None,
    );
    let others = config.hosts.iter().map(|host| {
        let allowance = Some(host.allowance);
        (
            &*host.name,
            &host.greeting,
            &host.users,
            &host.anonymous,
            allowance,
        )
    });
    let host =
        |(name, greeting, users, anonymous, allowance): (_, &String, &Users, &Anonymous, _)| {
            let name: Rc<str> = Rc::from(name);
            let limits = session::Limits {
                login_attempts: config.limits.login_attempts,
                idle_timeout: config.limits.idle_timeout,
                login_timeout: config.limits.login_timeout,
                passive: config.data.passive,
                active: config.data.active,
                fxp: config.data.fxp_networks.clone(),
                tls,
                greeting: greeting.clone(),
                host: Rc::clone(&name),
            };
            let host = Host {
                limits: Rc::new(limits),
                sessions_per_user: users.sessions_per_user,
                anonymous: anonymous.allowance,
                allowance,
            };
            (name, host)
        };
    std::iter::once(server).chain(others).map(host).collect()
}

/// Where hosts are found by the names that clients use.
fn host_names(config: &Config) -> HashMap<String, Rc<str>> {
    let names = config.hosts.iter().flat_map(|host| {
        let section: Rc<str> = Rc::from(&*host.name);
        host.names
            .iter()
            .map(move |name| (name.clone(), Rc::clone(&section)))
    });
    names.collect()
}

fn active_policy(config: &Config, source_port: u16) -> active::Policy {
    active::Policy {
        source_port,
        connect_timeout: config.data.connect_timeout,
    }
}

/// Cold downloads at a time on one core; uploads may have half of these. Each pipe may hold 1 MiB.
const PIPES_MAX: usize = 64;

/// How long sessions may take to end when they have been told to.
const END_TIMEOUT: Duration = Duration::from_secs(5);
