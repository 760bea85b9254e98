//! Actions of the session as calls into the rest of the server; their answers as events.

use std::net::{IpAddr, SocketAddr};
use std::rc::Rc;
use std::sync::Arc;
use std::time::{Instant, SystemTime};

use super::running::{Label, Running, Shared};
use super::{Connection, Core, Load, Phase, Tree, hang_up};
use crate::auth::Counts;
use crate::config::Announce;
use crate::data::pool::{Request as PortRequest, Reservation};
use crate::proto::argument::TypeCode;
use crate::proto::failure::Failure;
use crate::proto::rights::Rights;
use crate::session::action::{Endpoint, ListForm, Listing, Plan, Request, StoreMode, Transfer};
use crate::session::event::{Answer, Opened, Transferred, Verdict};
use crate::session::{Action, Event, Noted};
use crate::storage::{self, Format, ListRequest, Root, UploadKind, UploadRules};
use crate::sys;
use crate::sys::file::FileKind;
use crate::throttle::{Direction, Limit, Pace};
use crate::tls::DataTls;
use crate::transfer::{self, Order, Prepared, Wire};
use crate::uring::{self, Fd};

impl Connection {
    /// Performs what takes time or reaches outside.
    pub(super) async fn perform(&mut self, action: Action) -> Option<Action> {
        match action {
            Action::Verify(credentials) => {
                let verdict = self.verify(credentials).await;
                self.verified(verdict)
            }
            Action::Admit(user) => {
                let verdict = self.admit(user).await;
                self.verified(verdict)
            }
            Action::ChooseHost(name) => {
                let limits = self.core.settings().limits_of(&name);
                self.session.handle(Event::HostChosen(limits))
            }
            Action::Ask(request) => {
                let answer = self.answer(request).await;
                self.session.handle(Event::Answered(answer))
            }
            Action::ListHere(listing) => {
                let answer = self.list_here(listing).await;
                self.session
                    .handle(Event::Answered(answer.map(|()| Answer::Done)))
            }
            Action::OpenPassive { extended } => {
                let address = self.reserve(extended).await;
                self.session.handle(Event::PassiveOpened(address))
            }
            Action::ClosePassive => {
                self.reservation = None;
                None
            }
            Action::Start(plan) => {
                self.start(*plan);
                None
            }
            Action::Reset => {
                self.forget_user();
                self.begin_anew();
                None
            }
            Action::Secure => {
                self.forget_user();
                self.upgrade().await;
                None
            }
            Action::Clear => {
                self.downgrade().await;
                None
            }
            Action::ClearAndReset => {
                self.forget_user();
                self.downgrade().await;
                self.begin_anew();
                None
            }
            // Connection::act has them.
            Action::Abort | Action::Close => None,
        }
    }

    fn verified(&mut self, verdict: Verdict) -> Option<Action> {
        let (is_wrong, is_unknown) = match &verdict {
            Verdict::Refused => (true, false),
            Verdict::Unavailable => (false, true),
            _ => (false, false),
        };
        let next = self.session.handle(Event::Verified(verdict));
        if is_unknown {
            Counts::add(&self.core.authenticator.counts().unavailable);
        }
        if is_wrong && next.is_some() {
            let limit = Limit::LoginAttempts;
            self.core.throttle.hits.count(limit);
            let peer = self.card.peer();
            tracing::warn!(%peer, limit = limit.name(), "too many wrong logins: the session ends");
        }
        // Elsewhere it has been written down with the host's name, by `enter`.
        if self.session.host().is_empty() {
            let user = self.session.shared_user();
            self.core.register.set_user(&self.card, user);
        }
        next
    }

    /// Goes back to the host that the client came to, or that it has named for a TLS session that goes on.
    fn begin_anew(&mut self) {
        let settings = self.core.settings();
        let named = self.secured.as_ref().and_then(|it| it.server_name());
        match named.and_then(|name| settings.limits_by_sni(name)) {
            Some(limits) => self.session.begin_again_by_name(limits),
            None => self.session.begin_at(settings.limits_at(self.listener)),
        }
    }

    fn forget_user(&mut self) {
        if self.tree.is_some() {
            // Who never was anybody has no more time because of REIN or AUTH.
            self.login_since = Instant::now();
        }
        self.core.register.set_user(&self.card, None);
        self.tree = None;
        self.member = None;
        self.reservation = None;
    }

    /// The tree of the user. Without one nothing exists.
    fn tree(&self) -> Result<Tree, Failure> {
        self.tree.clone().ok_or(Failure::NotFound)
    }

    async fn answer(&self, request: Request) -> Result<Answer, Failure> {
        let Tree {
            root,
            rights,
            quota,
        } = self.tree()?;
        let quota = quota.as_deref();
        let done = |()| Answer::Done;
        match request {
            Request::Enter(path) => root.enter(&path).await.map(done),
            Request::Size(path, TypeCode::Ascii) => root
                .ascii_size(&self.core.depot.workers, &path)
                .await
                .map(Answer::Bytes),
            Request::Size(path, TypeCode::Image) => {
                let status = root.status(&path).await?;
                match status.kind {
                    FileKind::File => Ok(Answer::Bytes(status.size)),
                    _ => Err(Failure::NotAFile),
                }
            }
            Request::Modified(path) => root
                .status(&path)
                .await
                .map(|status| Answer::Modified(status.modified)),
            Request::Facts(path, facts) => {
                let status = root.status(&path).await?;
                let rights = rights.at(path.as_bytes());
                Ok(Answer::Line(storage::facts_line(
                    &path, &status, facts, rights,
                )))
            }
            Request::Exists(path) => root.name_status(&path).await.map(|_| Answer::Done),
            Request::MakeDirectory(path, umask) => {
                root.make_directory(&path, umask).await.map(done)
            }
            Request::RemoveDirectory(path) => root.remove_directory(&path).await.map(done),
            Request::RemoveFile(path) => root.remove_file(&path, quota).await.map(done),
            Request::Rename(from, to) => root.rename(&from, &to, true, quota).await.map(done),
            Request::RenameNew(from, to) => root.rename(&from, &to, false, quota).await.map(done),
            Request::SetAttributes(path, attributes) => {
                let set = root.set_attributes(&path, attributes.mode, attributes.modified);
                set.await.map(done)
            }
            Request::FreeBytes(path) => {
                let free = root.free_bytes(&path).await?;
                let mut free = free.saturating_sub(self.core.settings().files.min_free);
                if let Some(quota) = quota.filter(|_| root.is_own(&path)) {
                    quota.learn(root.count(&self.core.depot.workers)).await?;
                    free = free.min(quota.left());
                }
                Ok(Answer::Bytes(free))
            }
            Request::Progress => {
                let running = self.running.as_ref().ok_or(Failure::LocalError)?;
                Ok(Answer::Progress(running.progress()))
            }
        }
    }

    /// STAT with a name: the lines go over the control connection, a chunk at a time.
    async fn list_here(&mut self, listing: Listing) -> Result<(), Failure> {
        let Tree { root, rights, .. } = self.tree()?;
        let request = list_request(listing, rights);
        let mut listing = root.list(&self.core.depot.workers, request).await?;
        self.session.listing_begins();
        let mut chunk = Vec::new();
        while let Some(filled) = listing.next_chunk(chunk).await? {
            if self.phase() == Phase::Ending {
                return Err(Failure::Aborted);
            }
            self.session.output_raw(&filled);
            self.flush().await?;
            chunk = filled;
        }
        Ok(())
    }

    /// Waits until all output is sent.
    pub(super) async fn flush(&mut self) -> Result<(), Failure> {
        if let Some(sending) = self.sending.take() {
            let sent = tokio::time::timeout(self.settings.reply_timeout, sending).await;
            self.sent(sent.map(|(sent, _)| sent))?;
        }
        let output = match &mut self.secured {
            None => self.session.take_output(),
            Some(secured) => secured.seal(&mut self.session, false),
        };
        let sending = uring::send_all(&self.socket, output);
        let sent = tokio::time::timeout(self.settings.reply_timeout, sending).await;
        self.sent(sent.map(|(sent, _)| sent))
    }

    fn sent<E>(&mut self, sent: Result<std::io::Result<()>, E>) -> Result<(), Failure> {
        if let Ok(Ok(())) = sent {
            return Ok(());
        }
        // What the client has got of its replies is unknown: there is no way to go on.
        self.closing = true;
        hang_up(&self.socket);
        Err(Failure::PeerReset)
    }

    /// Reserves a port, and says at which address and port the client finds it.
    async fn reserve(&mut self, extended: bool) -> Result<SocketAddr, Failure> {
        // The port given up first may be the only one left.
        self.reservation = None;
        let core = Rc::clone(&self.core);
        let settings = core.settings();
        let (Some(Some(pool)), Some(addressing)) = (
            settings.pools.get(self.listener),
            settings.addressing.get(self.listener),
        ) else {
            return Err(Failure::NoPassivePort);
        };
        let announce = addressing.announce(self.card.peer());
        let is_outside = announce.is_outside(self.card.peer());
        let address = match announce {
            Announce::Address(address) if is_outside => *address,
            Announce::Name(name) if is_outside && !extended => match core.address_of(name) {
                Some(address) => IpAddr::V4(address),
                None => {
                    core.pool.count_unknown_address(*pool);
                    return Err(Failure::AddressUnknown);
                }
            },
            _ => self.reached,
        };
        let request = PortRequest {
            pool: *pool,
            client: self.card.peer(),
            // Where it connects to what stands before this host, the address here is another one.
            local: (!is_outside).then_some(self.reached),
            extended,
        };
        let reservation = core.pool.reserve(request).await?;
        let port = addressing.external_port(announce, self.card.peer(), reservation.port());
        self.reservation = Some(reservation);
        Ok(SocketAddr::new(address, port))
    }

    /// Counts what an operator wants to know.
    pub(super) fn count(&self, noted: Noted) {
        let active = &self.core.active;
        match noted {
            Noted::Port => active.count_address(false),
            Noted::Eprt => active.count_address(true),
            Noted::Bounce => active.count_bounce(),
        }
    }

    /// What a data connection is protected by.
    fn protection(&self, wanted: bool, is_upload: bool) -> Result<Option<DataTls>, Failure> {
        match (wanted, &self.secured) {
            (false, _) => Ok(None),
            (true, Some(secured)) => Ok(Some(secured.tls.data(is_upload))),
            (true, None) => Err(Failure::NegotiationFailed),
        }
    }

    fn start(&mut self, plan: Plan) {
        let core = Rc::clone(&self.core);
        let tree = self.tree();
        let label = label(&plan.transfer);
        let shared = Shared::new(label, &self.socket);
        let way = match plan.endpoint {
            Some(Endpoint::Passive) => self.reservation.take().map(Way::Passive),
            Some(Endpoint::Active(address)) => {
                let local = self.card.local();
                Some(Way::Active(local, on_the_link_of(local, address)))
            }
            None => None,
        };
        let transfer = plan.transfer;
        let is_upload = matches!(transfer, Transfer::Store { .. });
        let tls = self.protection(plan.protected, is_upload);
        let counted = Load::transfer(&core);
        let direction = match is_upload {
            true => Direction::Up,
            false => Direction::Down,
        };
        let counts = !matches!(transfer, Transfer::List { .. } | Transfer::Digest { .. });
        let pace = core
            .throttle
            .pace(self.card.peer(), self.member.as_ref(), direction, counts);
        let future = {
            let shared = Rc::clone(&shared);
            async move {
                let _counted = counted;
                let tree = tree?;
                match transfer {
                    Transfer::Digest {
                        path,
                        algorithm,
                        range,
                    } => {
                        let watch = &shared.watch;
                        let digest = transfer::digest(
                            &core.depot,
                            &tree.root,
                            &path,
                            algorithm,
                            range,
                            watch,
                        );
                        digest.await.map(|digest| Transferred::Digest {
                            hex: digest.hex,
                            start: digest.start,
                            end: digest.end,
                        })
                    }
                    other => {
                        let link = Link {
                            way: way.ok_or(Failure::NoDataConnection)?,
                            tls: tls?,
                        };
                        let order = order(&core, other, &tree)?;
                        run(&core, &tree.root, order, link, &shared, pace?)
                            .await
                            .map(Transferred::Bytes)
                    }
                }
            }
        };
        self.card.set_transfer(Some(Rc::clone(&shared)));
        self.running = Some(Running::new(shared, future));
    }
}

/// RFC 4007 §6: an IPv6 link-local address means nothing without its zone, which EPRT cannot tell. It
/// is that of the control connection.
fn on_the_link_of(local: SocketAddr, mut address: SocketAddr) -> SocketAddr {
    if let (SocketAddr::V6(local), SocketAddr::V6(address)) = (local, &mut address) {
        address.set_scope_id(local.scope_id());
    }
    address
}

/// How the data connection comes about.
enum Way {
    Passive(Reservation),
    Active(SocketAddr, SocketAddr),
}

/// A data connection that is to be.
struct Link {
    way: Way,
    tls: Option<DataTls>,
}

/// One transfer from beginning to end.
async fn run(
    core: &Rc<Core>,
    root: &Root,
    order: Order,
    link: Link,
    shared: &Shared,
    pace: Option<Pace>,
) -> Result<u64, Failure> {
    let unique = matches!(
        order,
        Order::Receive {
            kind: UploadKind::Unique,
            ..
        }
    );
    let watch = &shared.watch;
    // Only a listing is dropped in the midst of its preparation: an upload may just have made a file.
    let is_list = matches!(order, Order::List(_));
    let preparation = transfer::prepare(&core.depot, root, order);
    let prepared = match is_list {
        true => watch.unless_aborted(preparation).await?,
        false => preparation.await,
    };
    let prepared = prepared.inspect_err(|failure| count_failure(core, *failure))?;
    let socket = match watch.unless_aborted(connect(core, link.way)).await {
        Ok(Ok(socket)) => socket,
        Ok(Err(failure)) | Err(failure) => {
            prepared.abandon().await;
            return Err(failure);
        }
    };
    watch.attach(&socket);
    // Clients wait for it before they begin a handshake.
    shared.set_opened(opened(&prepared, unique));
    let is_upload = matches!(prepared, Prepared::Receive { .. });
    let wire = match link.tls {
        None => Ok(Wire::clear(Fd::clone(&socket))),
        Some(tls) => Box::pin(Wire::secure(&core.depot, Fd::clone(&socket), &tls, watch)).await,
    };
    let outcome = match wire {
        Ok(mut wire) => {
            let outcome = prepared.run(&core.depot, &mut wire, watch, pace).await;
            wire.put_away(&core.depot);
            outcome
        }
        Err(failure) => {
            prepared.abandon().await;
            Err(failure)
        }
    };
    if let Err(failure) = outcome {
        count_failure(core, failure);
        // What the client has not read yet must not look like a whole file.
        let _ = sys::socket::reset_on_close(&*socket);
        if is_upload && transfer::is_worth_a_drain(failure) {
            let core = Rc::clone(core);
            uring::spawn(async move { core.depot.drains.drain(&socket).await });
        }
    }
    outcome
}

fn count_failure(core: &Core, failure: Failure) {
    if failure == Failure::BelowMinFree {
        core.throttle.hits.count(Limit::MinFree);
    }
}

/// Waits for the client, or connects to it.
async fn connect(core: &Core, way: Way) -> Result<Fd, Failure> {
    match way {
        Way::Passive(reservation) => Ok(Fd::new(reservation.connection().await?)),
        Way::Active(local, peer) => Ok(Fd::new(core.active.connect(local, peer).await?)),
    }
}

fn opened(prepared: &Prepared, unique: bool) -> Opened {
    match prepared {
        Prepared::Send {
            status,
            type_code,
            offset,
            ..
        } => Opened::File {
            bytes: match type_code {
                TypeCode::Image => Some(status.size.saturating_sub(*offset)),
                TypeCode::Ascii => None,
            },
        },
        Prepared::Receive { upload, .. } if unique => Opened::UniqueUpload(upload.name().to_vec()),
        Prepared::Receive { .. } => Opened::Upload,
        Prepared::List(_) => Opened::Listing,
    }
}

fn order(core: &Core, transfer: Transfer, tree: &Tree) -> Result<Order, Failure> {
    Ok(match transfer {
        Transfer::Retrieve {
            path,
            type_code,
            offset,
        } => Order::Send {
            path,
            type_code,
            offset,
        },
        Transfer::Store {
            path,
            type_code,
            mode,
            overwrites,
            umask,
        } => Order::Receive {
            path,
            type_code,
            kind: match mode {
                StoreMode::Replace => UploadKind::Replace,
                StoreMode::From(offset) => UploadKind::ReplaceFrom(offset),
                StoreMode::Append => UploadKind::Append,
                StoreMode::Unique => UploadKind::Unique,
            },
            rules: UploadRules {
                umask,
                overwrites,
                quota: tree.quota.clone(),
                min_free: core.settings().files.min_free,
            },
        },
        Transfer::List(listing) => Order::List(list_request(listing, Arc::clone(&tree.rights))),
        Transfer::Digest { .. } => return Err(Failure::LocalError),
    })
}

fn list_request(listing: Listing, rights: Arc<Rights>) -> ListRequest {
    ListRequest {
        directory: listing.directory,
        name: listing.name,
        options: listing.options,
        format: match listing.form {
            ListForm::Long => Format::Long,
            // ls(1): -l asks for the long form, and clients send NLST -l for it.
            ListForm::Names if listing.options.long => Format::Long,
            ListForm::Names => Format::Names,
            ListForm::Facts => Format::Facts(listing.facts),
        },
        rights,
        now: now(),
    }
}

fn label(transfer: &Transfer) -> Label {
    let (verb, path) = match transfer {
        Transfer::Retrieve { path, .. } => ("RETR", path),
        Transfer::Store { path, mode, .. } => (
            match mode {
                StoreMode::Append => "APPE",
                StoreMode::Unique => "STOU",
                StoreMode::Replace | StoreMode::From(_) => "STOR",
            },
            path,
        ),
        Transfer::List(listing) => (
            match listing.form {
                ListForm::Long => "LIST",
                ListForm::Names => "NLST",
                ListForm::Facts => "MLSD",
            },
            &listing.directory,
        ),
        Transfer::Digest { path, .. } => ("HASH", path),
    };
    Label {
        verb,
        path: path.as_bytes().to_vec(),
    }
}

/// Seconds since 1970-01-01 00:00 UTC.
fn now() -> i64 {
    let since = SystemTime::now().duration_since(SystemTime::UNIX_EPOCH);
    since.map_or(0, |since| i64::try_from(since.as_secs()).unwrap_or(0))
}
