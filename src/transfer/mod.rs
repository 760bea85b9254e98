//! The engine of the server-DTP: moves one file or listing over one data connection.
//!
//! [`prepare`] opens what is to be moved, so that a missing file is told before a data connection is
//! used; [`Prepared::run`] moves it. Neither knows of replies: the outcome is a number of bytes or a
//! [`Failure`].

mod buffers;
mod desk;
mod drain;
mod kernel;
mod list;
mod protected;
mod receive;
mod send;
mod turn;
mod watch;
mod wire;

use std::cell::Cell;
use std::time::{Duration, Instant};

pub use buffers::Buffers;
pub use desk::Desk;
pub use drain::{Drains, is_worth_a_drain};
pub use turn::Gate;
pub use watch::Watch;
pub use wire::Wire;

use crate::proto::argument::{ByteRange, HashAlgorithm, TypeCode};
use crate::proto::failure::Failure;
use crate::proto::path::VirtualPath;
use crate::storage::{Digest, ListRequest, Listing, Root, Upload, UploadKind, UploadRules};
use crate::sys;
use crate::sys::file::FileStatus;
use crate::sys::ktls::Abilities;
use crate::sys::worker::Workers;
use crate::throttle::Pace;
use crate::uring::{self, Fd, PipePool};

/// What the transfers of one core share.
#[derive(Debug)]
pub struct Depot {
    /// Where transfers queue for their turns.
    pub gate: Gate,
    /// Where uploads queue to write.
    pub desk: Desk,
    /// Chunks of memory for uploads, listings and TYPE A.
    pub buffers: Buffers,
    /// Connections of uploads that have failed.
    pub drains: Drains,
    /// Pipes for files that are not in the page cache, and for uploads of fast clients.
    pub pipes: PipePool,
    /// What the kernel can do of TLS, if it can and shall.
    pub kernel_tls: Option<Abilities>,
    /// Threads for listings and digests.
    pub workers: Workers,
    /// How long a data connection may make no progress.
    pub stall_timeout: Cell<Duration>,
}

/// What is to be moved.
#[derive(Debug)]
pub enum Order {
    /// Send a file from an offset, which counts bytes of the representation.
    Send {
        /// The file.
        path: VirtualPath,
        /// The representation on the data connection.
        type_code: TypeCode,
        /// Where to begin.
        offset: u64,
    },
    /// Receive a file.
    Receive {
        /// The file.
        path: VirtualPath,
        /// The representation on the data connection.
        type_code: TypeCode,
        /// What becomes of a file that is there; an offset counts bytes of the representation.
        kind: UploadKind,
        /// How the user may store files.
        rules: UploadRules,
    },
    /// Send a listing.
    List(ListRequest),
}

/// A transfer whose file or directory is open.
#[derive(Debug)]
pub enum Prepared {
    /// A file that is to be sent.
    Send {
        /// The file, open for reading.
        file: Fd,
        /// What it was like when it was opened.
        status: FileStatus,
        /// The representation on the data connection.
        type_code: TypeCode,
        /// Where to begin.
        offset: u64,
    },
    /// A file that is to be received.
    Receive {
        /// The file under way.
        upload: Box<Upload>,
        /// The representation on the data connection.
        type_code: TypeCode,
    },
    /// A listing whose first chunk is made.
    List(Box<Listing>),
}

/// Opens what is to be moved.
///
/// # Errors
///
/// What the tree says of the path; [`Failure::OffsetBeyondEnd`] for a restart point that the file
/// does not reach.
pub async fn prepare(depot: &Depot, root: &Root, order: Order) -> Result<Prepared, Failure> {
    match order {
        Order::Send {
            path,
            type_code,
            offset,
        } => {
            let (file, status) = root.open_for_reading(&path).await?;
            // In TYPE A the end is not known before the file has been read.
            if type_code == TypeCode::Image && offset > status.size {
                return Err(Failure::OffsetBeyondEnd);
            }
            Ok(Prepared::Send {
                file,
                status,
                type_code,
                offset,
            })
        }
        Order::Receive {
            path,
            type_code,
            kind,
            rules,
        } => {
            let kind = match (kind, type_code) {
                (UploadKind::ReplaceFrom(offset), TypeCode::Ascii) => {
                    let local = root.ascii_offset(&depot.workers, &path, offset);
                    UploadKind::ReplaceFrom(local.await?)
                }
                (kind, _) => kind,
            };
            if let Some(quota) = &rules.quota {
                quota.learn(root.count(&depot.workers)).await?;
            }
            let upload = root.upload(&path, kind, rules).await?;
            Ok(Prepared::Receive {
                upload: Box::new(upload),
                type_code,
            })
        }
        Order::List(request) => {
            let listing = root.list(&depot.workers, request).await?;
            Ok(Prepared::List(Box::new(listing)))
        }
    }
}

impl Prepared {
    /// Moves the bytes, no faster than `pace` lets it; returns how many went over the data connection.
    ///
    /// # Errors
    ///
    /// [`Failure::Aborted`] after [`Watch::abort`], whatever else went wrong because of it; otherwise
    /// what the peer or the file system did.
    pub async fn run(
        self,
        depot: &Depot,
        wire: &mut Wire,
        watch: &Watch,
        pace: Option<Pace>,
    ) -> Result<u64, Failure> {
        self.shape(wire, pace.as_ref());
        let is_upload = matches!(self, Self::Receive { .. });
        let outcome = match self {
            Self::Send {
                file,
                status,
                type_code: TypeCode::Image,
                offset,
            } => send::image(depot, &file, offset, status.size, wire, watch, pace).await,
            Self::Send {
                file,
                status,
                type_code: TypeCode::Ascii,
                offset,
            } => send::ascii(depot, &file, offset, status.size, wire, watch, pace).await,
            Self::Receive { upload, type_code } => {
                receive::run(depot, *upload, type_code, wire, watch, pace).await
            }
            Self::List(listing) => list::run(depot, *listing, wire, watch, pace).await,
        };
        if outcome == Err(Failure::VolumeUsedUp) && !is_upload {
            delivery(depot, wire.socket(), watch).await;
        }
        match outcome {
            Err(_) if watch.is_aborted() => Err(Failure::Aborted),
            Err(failure) => Err(failure),
            Ok(()) => Ok(watch.bytes()),
        }
    }

    /// Tells the kernel how what is sent should leave. Where it will not listen, all comes about the same.
    fn shape(&self, wire: &mut Wire, pace: Option<&Pace>) {
        let rate = pace.and_then(Pace::session_rate);
        match (self, rate) {
            (Self::Send { .. } | Self::List(_), Some(rate)) => {
                // So that a piece does not leave at the speed of the line, which small buffers on the way
                // would not hold. A little faster than the rate: the pieces keep that.
                let spread = rate.get().saturating_add(rate.get() / 4);
                let _ = sys::tcp::set_pacing_rate(&**wire.socket(), spread);
            }
            // What a rate lets through shall not wait for more.
            (Self::Send { status, offset, .. }, None)
                if pace.is_none()
                    && status.size.saturating_sub(*offset) > SEGMENTS_FILLED_FROM
                    && wire.protected().is_none() =>
            {
                let _ = sys::tcp::fill_segments(&**wire.socket());
            }
            _ => {}
        }
    }

    /// Gives up before the data connection stood.
    pub async fn abandon(self) {
        if let Self::Receive { upload, .. } = self {
            upload.abandon().await;
        }
    }
}

/// Computes a digest of a file, unless it is aborted.
///
/// # Errors
///
/// What the tree says of the path; [`Failure::Aborted`] after [`Watch::abort`].
pub async fn digest(
    depot: &Depot,
    root: &Root,
    path: &VirtualPath,
    algorithm: HashAlgorithm,
    range: ByteRange,
    watch: &Watch,
) -> Result<Digest, Failure> {
    let digest = root.digest(&depot.workers, path, algorithm, range.start, range.end);
    watch.unless_aborted(digest).await?
}

/// Waits until the socket takes or has bytes, for no longer than a transfer may stall.
async fn wait_for(readiness: uring::Readiness, depot: &Depot) -> Result<(), Failure> {
    match tokio::time::timeout(depot.stall_timeout.get(), readiness).await {
        Ok(Ok(())) => Ok(()),
        Ok(Err(_)) => Err(Failure::PeerReset),
        Err(_) => Err(Failure::PeerStalled),
    }
}

/// Waits until the client has what was sent to it and counted, as long as it takes some: the reset
/// that says that this is not the whole file would drop the rest.
async fn delivery(depot: &Depot, socket: &Fd, watch: &Watch) {
    let (mut least, mut since) = (u64::MAX, Instant::now());
    while let Ok(left @ 1..) = sys::tcp::undelivered(socket) {
        if left < least {
            (least, since) = (left, Instant::now());
        }
        if since.elapsed() >= depot.stall_timeout.get() || watch.is_aborted() {
            return;
        }
        tokio::time::sleep(DELIVERY_LOOK).await;
    }
}

/// A download of more bytes has its segments filled: a small one is over before that pays.
const SEGMENTS_FILLED_FROM: u64 = 1024 * 1024;

/// How often it is looked whether a client has all of a download that its volume has cut short.
const DELIVERY_LOOK: Duration = Duration::from_millis(10);
