//! Runs one control connection: the only module that joins the session's state machine with I/O.
//!
//! One task per session. It owns the receive that is always under way on an idle control connection,
//! the send of replies, and the transfer, and polls all three together, so that ABOR, STAT and
//! QUIT are heard during a transfer. Nothing in flight is ever dropped while the session lives: a
//! transfer is ended by [`Watch::abort`](crate::transfer::Watch::abort) and then awaited, the socket
//! by shutdown(2).

mod card;
mod core;
mod login;
mod perform;
mod running;
mod upgrade;

use std::future::{Future, poll_fn};
use std::net::{IpAddr, Shutdown, SocketAddr};
use std::os::fd::OwnedFd;
use std::pin::{Pin, pin};
use std::rc::Rc;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

pub use self::card::{Card, Moving, Register};
pub use self::core::{Core, Host, Load, Parts, Phase, Present, Roots, Settings, Stop};

use crate::data::pool::Reservation;
use crate::proto::failure::Failure;
use crate::proto::line::LineDecoder;
use crate::proto::rights::Rights;
use crate::quota::Quota;
use crate::session::event::Transferred;
use crate::session::{Action, Client, Event, Session};
use crate::storage::Root;
use crate::throttle::{Limit, Member, Tempo};
use crate::uring::{self, Fd};
use crate::{proto, sys};

use running::Running;
use upgrade::Secured;

/// A client at the door.
#[derive(Debug)]
pub struct Arrival {
    /// Its control connection.
    pub socket: OwnedFd,
    /// Which of the addresses that are listened on it came to.
    pub listener: usize,
    /// Its address.
    pub client: IpAddr,
    /// The address at which it reached the server, as it sees it; `None`: the socket's.
    pub reached: Option<IpAddr>,
}

/// Serves a client until it or the server goes, and keeps `held` until then.
///
/// Not an `async fn`, which would have room for its arguments until its end.
pub fn serve(core: Rc<Core>, arrival: Arrival, held: impl Sized) -> impl Future<Output = ()> {
    let local = sys::socket::local_address(&arrival.socket);
    let mut connection = local
        .ok()
        .map(|local| Connection::new(core, arrival, local));
    async move {
        let _held = &held;
        let Some(connection) = &mut connection else {
            return;
        };
        connection.run().await;
        connection.close().await;
        tracing::info!(
            session = connection.card.id(),
            peer = %connection.card.peer(),
            user = connection.card.user().as_deref().map(proto::printable),
            seconds = connection.card.started().elapsed().as_secs(),
            "session ended"
        );
    }
}

/// One control connection.
struct Connection {
    core: Rc<Core>,
    socket: Fd,
    /// What is seen of it from outside.
    card: Rc<Card>,
    /// The address at which the client reached the server, as it sees it.
    reached: IpAddr,
    listener: usize,
    session: Session,
    decoder: LineDecoder,
    receive: Option<uring::Receive>,
    /// What has been received, from `cursor` on not yet decoded.
    input: Vec<u8>,
    cursor: usize,
    /// TLS, if the connection is protected by it.
    secured: Option<Box<Secured>>,
    sending: Option<Sending>,
    sending_since: Instant,
    /// Since when a login is waited for; commands do not lengthen that.
    login_since: Instant,
    /// Those it began with, for its timeouts.
    settings: Rc<Settings>,
    /// How fast commands may come.
    tempo: Option<Box<Tempo>>,
    tree: Option<Tree>,
    /// What it counts as of its user's sessions.
    member: Option<Member>,
    reservation: Option<Reservation>,
    running: Option<Running>,
    closing: bool,
}

/// Replies on their way.
type Sending = Pin<Box<dyn Future<Output = (std::io::Result<()>, Vec<u8>)>>>;

/// An action that takes time.
type Performing<'a> = Pin<Box<dyn Future<Output = Option<Action>> + 'a>>;

/// The tree of the user who is logged in.
#[derive(Clone, Debug)]
struct Tree {
    root: Rc<Root>,
    rights: Arc<Rights>,
    quota: Option<Arc<Quota>>,
}

/// Why the connection's task goes on.
#[derive(Debug)]
enum Wake {
    /// Bytes came, or the client has gone (none).
    Received(std::io::Result<usize>),
    /// Replies are out.
    Sent(std::io::Result<()>),
    /// The transfer has its data connection.
    Opened,
    /// The transfer is over.
    Ended(Result<Transferred, Failure>),
    /// A deadline has passed, or the server moves towards its end.
    Tick,
}

impl Connection {
    fn new(core: Rc<Core>, arrival: Arrival, local: SocketAddr) -> Self {
        let now = Instant::now();
        let settings = core.settings();
        let peer = arrival.client;
        let card = core.register.enroll(peer, local);
        let tls = settings.implicit_tls(arrival.listener);
        let client = Client {
            address: peer,
            implicit_tls: tls.is_some(),
        };
        let limits = settings.limits_at(arrival.listener);
        let secured = tls.map(|tls| Secured::new(tls.session(card.id(), &limits.host)));
        Self {
            session: Session::new(limits, client),
            decoder: LineDecoder::new(settings.line_length),
            card,
            core,
            socket: Rc::new(arrival.socket),
            reached: arrival.reached.unwrap_or_else(|| local.ip()).to_canonical(),
            listener: arrival.listener,
            receive: None,
            input: Vec::with_capacity(RECEIVE_BYTES),
            cursor: 0,
            closing: matches!(secured, Some(Err(_))),
            secured: secured.and_then(Result::ok).map(Box::new),
            sending: None,
            sending_since: now,
            login_since: now,
            tempo: Tempo::new(settings.commands_per_second, now).map(Box::new),
            tree: None,
            member: None,
            reservation: None,
            running: None,
            settings,
        }
    }

    async fn run(&mut self) {
        let mut timer = pin!(tokio::time::sleep_until(self.deadline().into()));
        let mut seen = Phase::Serving;
        loop {
            self.feed().await;
            self.begin_sending();
            if self.closing && self.sending.is_none() {
                return;
            }
            self.begin_receiving();
            if timer.deadline().into_std() > self.deadline() {
                timer.as_mut().reset(self.deadline().into());
            }
            let wake = poll_fn(|context| {
                self.card.set_waker(context.waker());
                if let Poll::Ready(wake) = self.poll(context) {
                    return Poll::Ready(wake);
                }
                let phase = self.phase();
                if std::mem::replace(&mut seen, phase) != phase {
                    return Poll::Ready(Wake::Tick);
                }
                timer.as_mut().poll(context).map(|()| Wake::Tick)
            })
            .await;
            if timer.is_elapsed() {
                let next = self.deadline().max(Instant::now());
                timer.as_mut().reset(next.into());
            }
            if !self.woken(wake) {
                return;
            }
        }
    }

    fn poll(&mut self, context: &mut std::task::Context<'_>) -> Poll<Wake> {
        if let Some(sending) = &mut self.sending
            && let Poll::Ready((sent, _)) = sending.as_mut().poll(context)
        {
            self.sending = None;
            return Poll::Ready(Wake::Sent(sent));
        }
        if let Some(receive) = &mut self.receive
            && let Poll::Ready((received, buffer)) = Pin::new(receive).poll(context)
        {
            self.receive = None;
            self.take_in(buffer);
            return Poll::Ready(Wake::Received(received));
        }
        match &mut self.running {
            Some(running) => running.poll(context),
            None => Poll::Pending,
        }
    }

    /// Takes in why the task goes on; false when there is nobody left to serve.
    fn woken(&mut self, wake: Wake) -> bool {
        match wake {
            Wake::Received(Ok(1..)) => self.open_records(),
            Wake::Received(_) => false,
            Wake::Sent(sent) => sent.is_ok(),
            Wake::Opened => {
                if let Some(opened) = self.running.as_ref().and_then(Running::opened) {
                    self.event(Event::TransferOpened(opened));
                }
                true
            }
            Wake::Ended(outcome) => {
                if let Some(running) = self.running.take() {
                    // A transfer that was over at its first poll has still its 150 to be told.
                    if let Some(opened) = running.opened() {
                        self.event(Event::TransferOpened(opened));
                    }
                    running.log(&self.card, &outcome);
                    self.card.set_transfer(None);
                }
                self.event(Event::TransferEnded(outcome));
                // The time of a transfer is not silence.
                self.card.hear();
                true
            }
            Wake::Tick => self.tick(),
        }
    }

    /// Looks whether a deadline has passed or the server is about to stop.
    fn tick(&mut self) -> bool {
        let now = Instant::now();
        if self.sending.is_some() && now >= self.sending_since + self.reply_timeout() {
            return false;
        }
        // The last words are on their way.
        if self.closing {
            return true;
        }
        match (&self.running, self.phase()) {
            (Some(running), Phase::Ending) => running.abort(),
            // What has not begun has nothing to finish.
            (Some(running), Phase::Draining) if self.session.is_opening() => running.abort(),
            (None, Phase::Draining | Phase::Ending) => self.dismiss(),
            (None, Phase::Serving) if now >= self.silence_ends() => {
                self.event(Event::IdleTimeout);
            }
            _ => {}
        }
        true
    }

    /// When [`Connection::tick`] has to look next.
    fn deadline(&self) -> Instant {
        if self.sending.is_some() {
            return self.sending_since + self.reply_timeout();
        }
        match &self.running {
            // The transfer has deadlines of its own.
            Some(_) => Instant::now() + LOOK_AGAIN,
            None => self.slowed_until().unwrap_or_else(|| self.silence_ends()),
        }
    }

    /// When the client has been silent, or not logged in, for too long.
    fn silence_ends(&self) -> Instant {
        if let Some(until) = self.secured.as_ref().and_then(|it| it.handshake_ends()) {
            return until;
        }
        match self.session.user() {
            Some(_) => self.card.heard() + self.session.idle_timeout(),
            None => self.login_since + self.session.login_timeout(),
        }
    }

    /// Until when commands have to wait, because they came too fast. During a transfer none does: ABOR
    /// must be heard, and what else comes waits for its end anyway.
    fn slowed_until(&self) -> Option<Instant> {
        let tempo = self.tempo.as_ref()?;
        let until = tempo.next();
        (until > Instant::now() && !self.session.is_transferring()).then_some(until)
    }

    /// Counts a command that is not part of a transfer.
    fn count_command(&mut self) {
        let per_second = self.core.commands_per_second();
        let is_kept = self.tempo.as_ref().map_or(0, |tempo| tempo.per_second()) == per_second;
        if !is_kept {
            self.tempo = Tempo::new(per_second, Instant::now()).map(Box::new);
        }
        let Some(tempo) = &mut self.tempo else { return };
        let now = Instant::now();
        tempo.count(now);
        if tempo.next() > now {
            self.core.throttle.hits.count(Limit::CommandsPerSecond);
            if tempo.is_news() {
                let (peer, user) = (self.card.peer(), self.card.user());
                let user = user.as_deref().map(proto::printable);
                tracing::warn!(%peer, user, "commands come too fast and are slowed down");
            }
        }
    }

    /// Feeds the session what has been received, until it is used up or must wait.
    async fn feed(&mut self) {
        while !self.closing && self.session.output_len() < OUTPUT_BYTES_MAX {
            if self.phase() != Phase::Serving && !self.session.is_transferring() {
                self.dismiss();
                return;
            }
            if self.slowed_until().is_some() {
                return;
            }
            let counts = !self.session.is_transferring();
            let action = if let Some(line) = self.session.next_deferred() {
                self.session.handle(Event::Line(&line))
            } else {
                let mut rest = &self.input[self.cursor..];
                let line = self.decoder.next_line(&mut rest);
                let action = match line {
                    None => None,
                    Some(Ok(line)) => Some(self.session.handle(Event::Line(line))),
                    Some(Err(_)) => Some(self.session.handle(Event::LineTooLong)),
                };
                self.cursor = self.input.len() - rest.len();
                if let Some(answers) = self.decoder.take_telnet_answers() {
                    self.session.output_raw(&answers);
                }
                match action {
                    None => return,
                    Some(action) => {
                        self.card.hear();
                        action
                    }
                }
            };
            if counts {
                self.count_command();
            }
            if let Some(noted) = self.session.take_noted() {
                self.count(noted);
            }
            let mut next = action;
            while let Some(action) = next {
                next = match self.act(action) {
                    Some(performing) => performing.await,
                    None => None,
                };
            }
        }
    }

    /// Begins an action, if it takes time; what its answer asks for in turn comes from the future.
    fn act(&mut self, action: Action) -> Option<Performing<'_>> {
        match action {
            Action::Close => self.closing = true,
            Action::Abort => {
                if let Some(running) = &self.running {
                    running.abort();
                }
            }
            // Boxed, so that an idle session does not hold room for all that it might do.
            other => return Some(Box::pin(self.perform(other))),
        }
        None
    }

    /// How far the session is on its way to its end: one that is kicked is as far as can be.
    fn phase(&self) -> Phase {
        match self.card.is_kicked() {
            true => Phase::Ending,
            false => self.core.stop.phase(),
        }
    }

    /// Tells the client why the server ends the session.
    fn dismiss(&mut self) {
        self.event(match self.card.is_kicked() {
            true => Event::Kicked,
            false => Event::ShuttingDown,
        });
    }

    /// How long replies may lie unread.
    fn reply_timeout(&self) -> Duration {
        match self.card.is_kicked() {
            true => self.settings.reply_timeout.min(LAST_REPLY_TIMEOUT),
            false => self.settings.reply_timeout,
        }
    }

    fn event(&mut self, event: Event<'_>) {
        // Events from outside are answered by replies, or by the end.
        if let Some(Action::Close) = self.session.handle(event) {
            self.closing = true;
        }
    }

    fn begin_sending(&mut self) {
        if self.sending.is_some() {
            return;
        }
        let output = match &mut self.secured {
            None => self.session.take_output(),
            Some(secured) => secured.seal(&mut self.session, self.closing),
        };
        if !output.is_empty() {
            self.sending_since = Instant::now();
            let socket = Fd::clone(&self.socket);
            self.sending = Some(Box::pin(
                async move { uring::send_all(&socket, output).await },
            ));
        }
    }

    fn begin_receiving(&mut self) {
        let wanted = self.receive.is_none() && self.cursor == self.input.len() && !self.closing;
        if wanted {
            let buffer = self.receive_buffer();
            self.receive = Some(uring::receive(&self.socket, buffer));
        }
    }

    /// Ends what is under way and closes the control connection.
    async fn close(&mut self) {
        if let Some(mut running) = self.running.take() {
            running.abort();
            let outcome = loop {
                if let Wake::Ended(outcome) = poll_fn(|context| running.poll(context)).await {
                    break outcome;
                }
            };
            running.log(&self.card, &outcome);
            self.card.set_transfer(None);
        }
        hang_up(&self.socket);
        if let Some(receive) = self.receive.take() {
            let _ = receive.await;
        }
        if let Some(sending) = self.sending.take() {
            let _ = sending.await;
        }
    }
}

impl Drop for Connection {
    fn drop(&mut self) {
        self.core.register.remove(&self.card);
    }
}

/// Ends every wait on a socket, whatever becomes of what is still in its buffers.
fn hang_up(socket: &Fd) {
    // ENOTCONN: the client has done so before.
    let _ = sys::socket::shutdown(&**socket, Shutdown::Both);
}

/// A control line is seldom longer; an idle session holds this much.
const RECEIVE_BYTES: usize = 512;

/// Replies that may collect before they are sent, give or take one reply: what a client that
/// pipelines without reading can make a session hold.
const OUTPUT_BYTES_MAX: usize = 16 * 1024;

/// How long a client that is kicked may leave its replies unread.
const LAST_REPLY_TIMEOUT: Duration = Duration::from_secs(5);

/// How often a session whose transfer runs looks whether something else is the matter.
const LOOK_AGAIN: Duration = Duration::from_secs(3600);
