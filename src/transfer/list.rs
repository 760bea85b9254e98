//! Listings: made in chunks off the core, sent as they come (LIST, NLST, MLSD).

use super::turn::Turn;
use super::{Depot, Watch, Wire, send};
use crate::proto::failure::Failure;
use crate::storage::Listing;
use crate::throttle::Pace;

/// Sends all lines of a listing.
pub(super) async fn run(
    depot: &Depot,
    mut listing: Listing,
    wire: &mut Wire,
    watch: &Watch,
    pace: Option<Pace>,
) -> Result<(), Failure> {
    let mut turn = Turn::new(&depot.gate, pace);
    let mut chunk = Vec::new();
    while let Some(filled) = listing.next_chunk(chunk).await? {
        send::send_all(depot, &filled, wire, &mut turn, watch).await?;
        turn.end();
        chunk = filled;
    }
    wire.finish(depot).await
}
