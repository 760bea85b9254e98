//! Listings: made in chunks off the core, sent as they come (LIST, NLST, MLSD).

use super::turn::Turn;
use super::{Depot, Watch, send};
use crate::proto::failure::Failure;
use crate::storage::Listing;
use crate::throttle::Pace;
use crate::uring::Fd;

/// Sends all lines of a listing.
pub(super) async fn run(
    depot: &Depot,
    mut listing: Listing,
    socket: &Fd,
    watch: &Watch,
    pace: Option<Pace>,
) -> Result<(), Failure> {
    let mut turn = Turn::new(&depot.gate, pace);
    let mut chunk = Vec::new();
    while let Some(filled) = listing.next_chunk(chunk).await? {
        send::send_all(depot, &filled, socket, &mut turn, watch).await?;
        turn.end();
        chunk = filled;
    }
    Ok(())
}
