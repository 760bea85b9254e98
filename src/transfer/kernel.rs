//! Protected downloads whose records the kernel makes (`sys::ktls`), so that a file leaves by sendfile(2) as it
//! does without TLS.
//!
//! The kernel is given this side's keys when the handshake is over, and seals whatever is sent from then on. What
//! the client sends is received and opened as before. At the end the client is told so by close_notify, without
//! which the file does not look whole.

use std::io;

use super::send::{local, sending_failed};
use super::wire::Protected;
use super::{Depot, wait_for};
use crate::proto::failure::Failure;
use crate::sys;
use crate::sys::ktls::{Abilities, Keys};
use crate::tls::{CLOSE, CONTENT_BYTES_MAX, KEY_UPDATE, Message, RecordError};
use crate::uring;

/// How many records the kernel may still seal with the keys that it has. Where it cuts is not known: only that
/// records have [`CONTENT_BYTES_MAX`] at the most and that a call begins no more than one that is shorter.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) struct Budget {
    left: u64,
    /// With other keys so many again; `None`: there are no others.
    again: Option<u64>,
    /// The last call has sent all that it was given, and left no record open.
    is_whole: bool,
}

impl Budget {
    /// For so many bytes; `None` if they might take more records than the keys may seal, and there are no others.
    fn new(length: u64, records_max: u64, can_renew: bool, is_paced: bool) -> Option<Self> {
        let needed = length.div_ceil(CONTENT_BYTES_MAX as u64);
        let short = match is_paced {
            true => SHORT_RECORDS_PACED,
            false => SHORT_RECORDS,
        };
        let fits = needed.saturating_mul(short) <= records_max;
        (can_renew || fits).then_some(Self {
            left: records_max,
            again: can_renew.then_some(records_max),
            is_whole: true,
        })
    }

    /// Counts a call that was to send so many bytes and has sent some of them.
    fn spend(&mut self, sent: usize, wanted: usize) {
        let records = sent.div_ceil(CONTENT_BYTES_MAX) as u64 + 1;
        self.left = self.left.saturating_sub(records);
        self.is_whole = sent == wanted;
    }

    /// How many of the wanted bytes the next call may send; `None`: keys have to be changed before.
    fn piece(&self, wanted: u64) -> Option<u64> {
        let Some(again) = self.again else {
            return (self.left > 0).then_some(wanted);
        };
        let reserve = RECORDS_RESERVE.min(again / 4);
        match self.left > reserve {
            true => Some(wanted.min((self.left - reserve) * CONTENT_BYTES_MAX as u64)),
            false if self.is_whole => None,
            // Which is taken whole as soon as the client has made room.
            false => Some(wanted.min(CONTENT_BYTES_MAX as u64)),
        }
    }
}

/// Gives the keys to the kernel, if it can have them and is worth it for so many bytes. If not, or if it does
/// not want them, nothing has changed.
pub(super) fn take_over(
    depot: &Depot,
    protected: &mut Protected,
    length: u64,
    is_paced: bool,
) -> bool {
    let Some(Abilities { renews }) = depot.kernel_tls else {
        return false;
    };
    let channel = &protected.channel;
    let can_renew = renews && channel.can_renew();
    let budget = Budget::new(length, channel.records_max(), can_renew, is_paced);
    let (Some(budget), true) = (budget, length >= KERNEL_BYTES_MIN) else {
        return false;
    };
    if channel.transmit_keys().is_none() {
        return false;
    }
    let given = sys::ktls::attach(&protected.socket).and_then(|()| give_keys(protected));
    match given {
        Ok(()) => {
            protected.channel.give_away();
            protected.kernel = Some(budget);
            if protected.inbox.rest().is_empty() {
                // A client that only receives says hardly ever anything.
                depot
                    .buffers
                    .give(std::mem::take(&mut protected.inbox).bytes);
            }
        }
        // Memory, or a connection that is gone already, which whoever sends next will find out.
        Err(error) => tracing::debug!(%error, "no kernel TLS on a data connection"),
    }
    protected.kernel.is_some()
}

fn give_keys(protected: &Protected) -> io::Result<()> {
    let keys = protected.channel.transmit_keys();
    let keys = keys.ok_or_else(|| io::Error::from(io::ErrorKind::InvalidInput))?;
    sys::ktls::set_keys(
        &protected.socket,
        &Keys {
            is_tls13: keys.is_tls13,
            key: keys.key,
            iv: keys.iv,
            sequence: keys.sequence,
        },
    )
}

/// Looks whether the client has said something; returns how many of the wanted bytes may be sent at once. `None`:
/// [`renew`] comes before.
pub(super) fn piece(
    depot: &Depot,
    protected: &mut Protected,
    wanted: u64,
) -> Result<Option<u64>, Failure> {
    protected.listen(depot)?;
    let owes_keys = protected.channel.owes_keys();
    Ok(match &mut protected.kernel {
        Some(budget) => {
            // RFC 8446 §4.6.3: before other data. A kernel that cannot goes on as it did.
            if owes_keys && budget.again.is_some() {
                budget.left = 0;
            }
            budget.piece(wanted)
        }
        None => Some(wanted),
    })
}

/// RFC 8446 §4.6.3: KeyUpdate, and other keys behind it. Records that the kernel has made before and not sent
/// keep theirs.
pub(super) async fn renew(depot: &Depot, protected: &mut Protected) -> Result<(), Failure> {
    let Some(again) = protected.kernel.and_then(|budget| budget.again) else {
        return Err(used_up(&"too many short records"));
    };
    tell(depot, protected, KEY_UPDATE).await?;
    let next = protected.channel.next_keys();
    next.map_err(|error| used_up(&error))?;
    give_keys(protected).map_err(|error| used_up(&error))?;
    if let Some(budget) = &mut protected.kernel {
        budget.left = again;
    }
    // However often the client asks for that, others have their turns.
    uring::pause().await;
    Ok(())
}

/// Counts a call that was to send so many bytes and has sent some of them.
pub(super) fn spend(protected: &mut Protected, sent: usize, wanted: usize) {
    if let Some(budget) = &mut protected.kernel {
        budget.spend(sent, wanted);
    }
}

/// Tells the client what is wrong with what it sent, if that fits.
pub(super) fn complain(protected: &Protected, budget: Budget, error: RecordError) {
    if let (Some(alert), true) = (error.alert(), budget.is_whole) {
        let _ = sys::ktls::send_record(&protected.socket, CLOSE.kind, &[2, alert]);
    }
}

/// Tells the client that what was sent is all, and waits until nothing is lost by closing the connection.
pub(super) async fn finish(depot: &Depot, protected: &mut Protected) -> Result<(), Failure> {
    // As in `protected::finish`.
    protected.listen(depot)?;
    tell(depot, protected, CLOSE).await?;
    while !sys::ktls::may_be_closed(&protected.socket) {
        wait_for(uring::writable(&protected.socket), depot).await?;
    }
    Ok(())
}

async fn tell(depot: &Depot, protected: &Protected, message: Message) -> Result<(), Failure> {
    loop {
        match sys::ktls::send_record(&protected.socket, message.kind, message.content) {
            Ok(()) => return Ok(()),
            Err(error) if error.kind() == io::ErrorKind::WouldBlock => {
                wait_for(uring::writable(&protected.socket), depot).await?;
            }
            Err(error) => return Err(sending_failed(&error)),
        }
    }
}

fn used_up(error: &dyn std::fmt::Display) -> Failure {
    tracing::warn!(%error, "kernel TLS cannot go on with a data connection");
    local(&io::Error::from(io::ErrorKind::InvalidData))
}

/// Shorter files, and listings, cost the kernel more than they cost us: it makes a cipher for each connection.
const KERNEL_BYTES_MIN: u64 = 64 * 1024;

/// Keys are changed when so many records are left, or a quarter.
const RECORDS_RESERVE: u64 = 256;

/// So many times more records than of full length a file may take: each call counts one more than its bytes need,
/// and sends some 29 KB at least, for which the kernel waits; with a rate, 4 KiB (`throttle`).
const SHORT_RECORDS: u64 = 2;
const SHORT_RECORDS_PACED: u64 = 8;

#[cfg(test)]
mod tests {
    use super::*;

    const KIB: usize = 1024;

    #[test]
    fn files_that_keys_cannot_seal_are_not_for_the_kernel() {
        let gib = |count: u64| count << 30;
        // AES-GCM: 2^24 records.
        let suite = 1 << 24;
        assert!(Budget::new(gib(128), suite, false, false).is_some());
        assert_eq!(Budget::new(gib(128) + 1, suite, false, false), None);
        assert!(Budget::new(gib(32), suite, false, true).is_some());
        assert_eq!(Budget::new(gib(33), suite, false, true), None);
        assert_eq!(Budget::new(u64::MAX, suite, false, false), None);
        assert!(Budget::new(u64::MAX, suite, true, true).is_some());
    }

    #[test]
    fn a_file_without_other_keys_gets_to_its_end() {
        for (wanted, sent, is_paced) in [
            (64 * KIB, 64 * KIB, false),
            (1024 * KIB, 29_000, false),
            (4 * KIB, 4 * KIB, true),
        ] {
            let length = 1_u64 << 30;
            let short = [SHORT_RECORDS, SHORT_RECORDS_PACED][usize::from(is_paced)];
            let records_max = (length >> 14) * short;
            let budget = Budget::new(length, records_max, false, is_paced);
            let mut budget = budget.expect("as many as it takes");
            let mut left = length;
            while left > 0 {
                assert_eq!(budget.piece(wanted as u64), Some(wanted as u64));
                budget.spend(sent, wanted);
                left = left.saturating_sub(sent as u64);
            }
        }
    }

    #[test]
    fn keys_are_changed_between_records_and_in_time() {
        for records_max in [64, 1024, 1 << 24] {
            let budget = Budget::new(u64::MAX, records_max, true, false);
            let mut budget = budget.expect("whatever the length");
            let (mut calls, mut turn) = (0_u64, 0);
            // Every second call finds the socket full, as far as it can.
            while let Some(piece) = budget.piece(1 << 20) {
                assert!(piece > 0);
                turn += 1;
                let sent = match turn % 2 == 0 && piece > 16 * KIB as u64 {
                    true => piece / 2 + 1,
                    false => piece,
                };
                budget.spend(sent as usize, piece as usize);
                calls += 1;
            }
            assert!(
                budget.is_whole && budget.left > 0,
                "{records_max}: {budget:?}"
            );
            assert!(calls >= records_max / 65, "{records_max}: {calls}");
        }
    }
}
