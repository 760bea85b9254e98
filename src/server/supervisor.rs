//! The main thread while the server serves: it waits for signals and orders, reloads, looks after
//! what is missing, and sees the end through.

use std::collections::BTreeSet;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::mpsc::{self, Receiver};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use tokio::sync::watch;

use super::admin::Order;
use super::admission::Admission;
use super::certificates::Watched;
use super::door::Other;
use super::listener::{self, Listeners};
use super::mailbox::{Message, Ports};
use super::passive::{self, Bound};
use super::resolver::{Names, Resolver};
use super::{Reloaded, ServeError, source_port, summary, system};
use crate::auth::Authenticator;
use crate::config::{Config, PassivePool};
use crate::control::Phase;
use crate::data::lending::Neighbours;
use crate::data::report;
use crate::sys;
use crate::sys::signal::{Signal, Signals};
use crate::sys::worker::Workers;
use crate::telemetry::log;
use crate::throttle::Throttle;
use crate::tls::{Keys, Tls};

/// What the main thread holds.
pub(super) struct Supervisor<'r> {
    pub(super) signals: Signals,
    /// The CPU of each core.
    pub(super) cpus: Vec<usize>,
    pub(super) cores: Vec<JoinHandle<()>>,
    pub(super) others: Vec<Other>,
    pub(super) neighbours: Neighbours,
    pub(super) phase: watch::Sender<Phase>,
    pub(super) admission: Arc<Admission>,
    pub(super) throttle: Arc<Throttle>,
    pub(super) authenticator: Arc<Authenticator>,
    /// The secrets of TLS.
    pub(super) keys: Arc<Keys>,
    /// The files of certificates.
    pub(super) certificates: Watched,
    pub(super) verifiers: Workers,
    pub(super) orders: Receiver<Order>,
    pub(super) resolver: Option<Resolver>,
    pub(super) config: Arc<Config>,
    /// Ports that other programs hold.
    pub(super) missing: usize,
    /// When it is looked next whether any port is nobody's.
    pub(super) look_again: Instant,
    /// The last look was at a reload, when ports may have been on their way between cores.
    pub(super) has_reloaded: bool,
    /// Reads the configuration again.
    pub(super) reload: &'r dyn Fn() -> Result<Reloaded, String>,
}

impl Supervisor<'_> {
    /// Waits for the names that the first clients will need.
    pub(super) fn greet(&self) {
        if let Some(names) = self.resolver.as_ref().and_then(Resolver::first) {
            self.tell_names(&names);
        }
    }

    /// Waits for the end, and sees it through.
    pub(super) fn run(mut self) -> Result<(), ServeError> {
        loop {
            let signal = self
                .signals
                .wait(SUPERVISE_INTERVAL)
                .map_err(system("wait for signals"))?;
            if let Some(signal) = signal {
                self.heed(signal);
            }
            while let Ok(order) = self.orders.try_recv() {
                self.obey(order);
            }
            self.pass_names_on();
            if Instant::now() >= self.look_again {
                self.look_for_missing();
                self.look_again = Instant::now()
                    + match self.missing {
                        0 => LOOK_INTERVAL,
                        _ => MISSING_INTERVAL,
                    };
            }
            self.look_for_certificates();
            let ended = self.cores.iter().position(JoinHandle::is_finished);
            match (ended, *self.phase.borrow()) {
                (Some(index), Phase::Serving) => {
                    self.phase.send_replace(Phase::Draining);
                    return Err(ServeError::CoreEnded(index));
                }
                (Some(_), _) if self.cores.iter().all(JoinHandle::is_finished) => break,
                _ => {}
            }
        }
        for core in self.cores {
            // What a core died of has been logged by its thread.
            let _ = core.join();
        }
        Ok(())
    }

    fn heed(&mut self, signal: Signal) {
        let is_serving = *self.phase.borrow() == Phase::Serving;
        match signal {
            Signal::Terminate | Signal::Interrupt if is_serving => {
                let sessions = self.admission.sessions();
                let seconds = self.config.server.drain_timeout.as_secs();
                tracing::info!(
                    sessions,
                    seconds,
                    "stopping: transfers may end, a second signal ends them"
                );
                self.phase.send_replace(Phase::Draining);
            }
            Signal::Terminate | Signal::Interrupt => {
                self.phase.send_replace(Phase::Ending);
            }
            Signal::Hangup => match self.reload() {
                Ok(told) => tracing::info!("{told}"),
                Err(told) => tracing::error!("{told}"),
            },
        }
    }

    fn obey(&mut self, order: Order) {
        // Who asked may have given up waiting.
        match order {
            Order::Reload(answer) => {
                let told = self.reload();
                match &told {
                    Ok(told) => tracing::info!("{told}"),
                    Err(told) => tracing::error!("{told}"),
                }
                let _ = answer.send(told);
            }
            Order::Settings(answer) => {
                let data = &self.config.data;
                let timeout = data.accept_timeout.as_millis();
                let _ = answer.send(report::Settings {
                    accept_timeout_ms: u64::try_from(timeout).unwrap_or(u64::MAX),
                    ports_per_client: data.ports_per_client,
                    peer_check: data.peer_check.name().to_owned(),
                    borrow: data.borrow,
                });
            }
        }
    }

    /// Takes over what a new configuration changes, or leaves everything as it is.
    fn reload(&mut self) -> Result<String, String> {
        let refused = |told: String| format!("not reloaded, all stays as it was:\n{told}");
        let Reloaded { config, warnings } = (self.reload)().map_err(refused)?;
        let restart = self.config.restart_needed(&config);
        let config = config.as_reloaded(&self.config);
        let limit = sys::rlimit::raise_descriptor_limit().map_err(|it| refused(it.to_string()))?;
        // What takes a restart stays as it was, and may not suit what is new.
        let problems = config.check_running(self.others.len());
        if !problems.is_empty() {
            let told: Vec<String> = problems.iter().map(|it| format!("{it:#}")).collect();
            let still = format!("(still in force: {})", restart.join(", "));
            return Err(refused(format!("{}\n{still}", told.join("\n"))));
        }
        passive::check_descriptors(&config, self.others.len(), limit)
            .map_err(|error| refused(error.to_string()))?;
        let tls = self.load_tls(&config).map_err(refused)?;
        let listeners = self.bind_listeners(&config).map_err(refused)?;
        let addresses = self.describe_addresses(&config, &listeners);
        let config = Arc::new(config);
        let held = self.held().map_err(refused)?;
        let bound = self.bind_others(&config, &held);
        self.config = Arc::clone(&config);
        self.certificates = Watched::new(&config.tls);
        self.set_names();
        let mut told = vec![format!("reloaded: {}", self.describe(&bound))];
        told.extend(addresses);
        for warning in warnings {
            told.push(format!("warning: {warning}"));
        }
        if let Some((address, error)) = &bound.error {
            let hint = passive::hint(error);
            told.push(format!(
                "warning: cannot listen on {address}: {error}{hint}"
            ));
        }
        let wanted = config.data.active_source_port;
        if config.data.active && source_port(&config) != wanted {
            told.push(format!(
                "warning: port {wanted} cannot be bound any more, active data connections leave from \
                 any port: a restart gives the right to it"
            ));
        }
        if !restart.is_empty() {
            told.push(format!(
                "takes a restart, and is as before: {}",
                restart.join(", ")
            ));
        }
        // Ports that move from core to core at this moment are taken for somebody else's.
        self.look_again = Instant::now() + SETTLED_AFTER;
        self.has_reloaded = true;
        let cores = self.others.len();
        let sessions_max = summary::sessions_max(&config, cores, limit);
        self.admission
            .set_limits(sessions_max, config.limits.sessions_per_ip.map(Into::into));
        self.throttle.set(&config);
        // Logins go by it from now on; who is logged in stays.
        self.authenticator.reload(&config);
        if let Err(error) = self.verifiers.set_threads(config.users.hash_threads) {
            told.push(format!("warning: fewer threads verify passwords: {error}"));
        }
        if let Err(error) = log::set_level(config.log.level.as_str()) {
            told.push(format!("warning: {error}"));
        }
        self.tell_cores(&config, tls, listeners, bound)?;
        Ok(told.join("\n"))
    }

    fn bind_listeners(&self, config: &Config) -> Result<Listeners, String> {
        listener::bind(config, Some(&self.config), &self.cpus).map_err(|error| {
            let ServeError::Listen { address, source } = &error else {
                return error.to_string();
            };
            let mut own = self.config.server.listeners();
            match own.find(|(_, own)| own.port() == address.port()) {
                // The kernel lets one user's sockets share a port; the first ones are root's.
                Some((_, own)) if source.kind() == std::io::ErrorKind::AddrInUse => format!(
                    "cannot listen on {address}: {source}; this server's own listener on {own} may be \
                     in the way: if so, restart it"
                ),
                _ => format!("{error}; a restart may do it, with the rights of the start"),
            }
        })
    }

    /// What is listened on that was not before, and the other way round.
    fn describe_addresses(&self, config: &Config, listeners: &Listeners) -> Vec<String> {
        let listed = |addresses: &[SocketAddr]| {
            let texts: Vec<String> = addresses.iter().map(ToString::to_string).collect();
            texts.join(", ")
        };
        let is_left = |address: &SocketAddr| config.server.left.contains(address);
        let before = self.config.server.listeners().map(|(_, address)| address);
        let left: Vec<SocketAddr> = before.filter(is_left).collect();
        let mut told = Vec::new();
        if !listeners.addresses.is_empty() {
            told.push(format!("listens on {} now", listed(&listeners.addresses)));
        }
        if !left.is_empty() {
            told.push(format!(
                "listens on {} no more; its sessions go on",
                listed(&left)
            ));
        }
        told
    }

    fn load_tls(&self, config: &Config) -> Result<Option<Arc<Tls>>, String> {
        match Tls::load(&config.tls, &self.keys) {
            Ok(tls) => Ok(tls.map(Arc::new)),
            Err(errors) => Err(super::texts(&errors)),
        }
    }

    /// Takes over certificates that have been renewed.
    fn look_for_certificates(&mut self) {
        if !self.certificates.have_changed(&self.config.tls) {
            return;
        }
        match Tls::load(&self.config.tls, &self.keys) {
            Ok(None) => {}
            Ok(Some(tls)) => {
                tracing::info!("certificates have changed: sessions that begin have the new ones");
                for note in tls.notes() {
                    tracing::warn!("{note}");
                }
                let tls = Arc::new(tls);
                for core in &self.others {
                    let message = Message::Certificates(Arc::clone(&tls));
                    if core.mailbox.try_send(message).is_err() {
                        tracing::error!("a core does not take the new certificates");
                    }
                }
            }
            // A key comes a moment after its certificate: once both are there, they have changed again.
            Err(errors) => {
                for error in errors {
                    tracing::warn!(%error, "certificates have changed: the old ones are kept");
                }
            }
        }
    }

    fn describe(&self, bound: &Bound) -> String {
        let pools = self.config.passive_pools();
        let ports: usize = pools.iter().map(PassivePool::count).sum();
        let new: usize = bound.ports.iter().flatten().map(Vec::len).sum();
        let missing = bound.missing_count();
        let taken = match missing {
            0 => String::new(),
            _ => format!(", {missing} in use by others at the moment"),
        };
        format!("{ports} passive ports ({new} new{taken})")
    }

    /// Binds what no core holds.
    fn bind_others(&self, config: &Config, held: &[Ports]) -> Bound {
        let pools = config.passive_pools();
        // The cores have no pool yet for an address that is new.
        let of_pool = |pool| {
            held.iter()
                .filter_map(move |ports| ports.get(pool))
                .flatten()
        };
        let held: Vec<BTreeSet<u16>> = (0..pools.len())
            .map(|pool| of_pool(pool).copied().collect())
            .collect();
        passive::bind(&pools, self.others.len(), &held)
    }

    /// Has every core go on with the configuration and its new ports, and waits until it does.
    fn tell_cores(
        &mut self,
        config: &Arc<Config>,
        tls: Option<Arc<Tls>>,
        listeners: Listeners,
        bound: Bound,
    ) -> Result<(), String> {
        self.missing = bound.missing_count();
        let active_source_port = source_port(config);
        let (done, finished) = mpsc::channel();
        let shares = listeners
            .cores
            .into_iter()
            .zip(bound.ports)
            .zip(bound.missing);
        for (core, ((control, ports), missing)) in self.others.iter().zip(shares) {
            let message = Message::Reload {
                config: Arc::clone(config),
                tls: tls.clone(),
                active_source_port,
                control,
                ports,
                missing,
                done: done.clone(),
            };
            // A core that takes no message shows below.
            let _ = core.mailbox.try_send(message);
        }
        let until = Instant::now() + PATIENCE;
        for _ in &self.others {
            let left = until.saturating_duration_since(Instant::now());
            if finished.recv_timeout(left).is_err() {
                return Err("reloaded, but not every core has answered yet".to_owned());
            }
        }
        Ok(())
    }

    /// The ports that each core has.
    fn held(&self) -> Result<Vec<Ports>, String> {
        let mut asked = Vec::new();
        for core in &self.others {
            let (sender, receiver) = mpsc::channel();
            // A core that takes no message does not answer.
            let _ = core.mailbox.try_send(Message::Held(sender));
            asked.push(receiver);
        }
        let until = Instant::now() + PATIENCE;
        let answers = asked.into_iter().map(|receiver| {
            let left = until.saturating_duration_since(Instant::now());
            receiver.recv_timeout(left)
        });
        let answers: Result<Vec<Ports>, _> = answers.collect();
        answers.map_err(|_| "a core does not answer".to_owned())
    }

    /// Looks whether ports have become free that other programs held, and gives them to the cores.
    fn look_for_missing(&mut self) {
        let Ok(held) = self.held() else { return };
        let before = self.missing;
        let bound = self.bind_others(&self.config, &held);
        self.missing = bound.missing_count();
        if std::mem::take(&mut self.has_reloaded) {
            passive::warn_of_taken(&bound.taken(&self.config.passive_pools()));
        }
        for (core, (ports, missing)) in bound.ports.into_iter().zip(bound.missing).enumerate() {
            for (pool, ports) in ports.into_iter().enumerate() {
                if !ports.is_empty() && self.neighbours.bring(core, pool, ports).is_err() {
                    tracing::error!(core, "the core does not take its passive ports");
                }
            }
            // The next look tells it again.
            let _ = self.others[core]
                .mailbox
                .try_send(Message::Missing(missing));
        }
        if self.missing < before {
            let (found, missing) = (before - self.missing, self.missing);
            tracing::info!(found, missing, "passive ports are free again");
        }
    }

    fn set_names(&mut self) {
        let names = self.config.announced_names();
        let refresh = self.config.data.passive_address_refresh;
        match &self.resolver {
            Some(resolver) => resolver.set(names, refresh),
            None if names.is_empty() => {}
            None => match Resolver::start(names, refresh) {
                Ok(resolver) => self.resolver = Some(resolver),
                Err(error) => tracing::error!(%error, "names cannot be looked up"),
            },
        }
    }

    fn pass_names_on(&self) {
        let Some(resolver) = &self.resolver else {
            return;
        };
        if let Some(names) = resolver.names.try_iter().last() {
            self.tell_names(&names);
        }
    }

    fn tell_names(&self, names: &Names) {
        for core in &self.others {
            // A core that takes no message hears of the next change.
            let _ = core.mailbox.try_send(Message::Names(Arc::clone(names)));
        }
    }
}

/// How often the supervisor looks whether its cores live, and for orders.
const SUPERVISE_INTERVAL: Duration = Duration::from_millis(100);

/// How often ports that other programs held are tried again.
const MISSING_INTERVAL: Duration = Duration::from_secs(5);

/// How often it is looked whether any port is nobody's, though none is known to be.
const LOOK_INTERVAL: Duration = Duration::from_secs(30);

/// When ports that move between cores because of a reload have arrived.
const SETTLED_AFTER: Duration = Duration::from_secs(1);

/// A core answers at its next turn; one that does not is in trouble itself.
const PATIENCE: Duration = Duration::from_secs(2);
