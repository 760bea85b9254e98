//! Turns: the transfers of a core move bytes one after the other, a bounded piece each.
//!
//! Long pieces are cheap: with eight clients at a time a GiB takes a quarter less CPU in pieces of
//! 1 MiB than in pieces of 256 KiB. But if all transfers that can go on did so before the ring was
//! looked at again, sixteen of them would keep a command waiting for sixteen pieces. So only one
//! transfer at a time has the gate, and the ring is looked at before the next one has it: a command
//! waits for one piece, however many there are.

use std::time::{Duration, Instant};

use tokio::sync::{Semaphore, SemaphorePermit};

use super::Watch;
use crate::proto::failure::Failure;
use crate::throttle::Pace;
use crate::uring;

/// Where the transfers of a core queue for their turns, first come, first served.
#[derive(Debug)]
pub struct Gate {
    one: Semaphore,
}

impl Default for Gate {
    fn default() -> Self {
        Self {
            one: Semaphore::new(1),
        }
    }
}

/// The turns of one transfer.
#[derive(Debug)]
pub(super) struct Turn<'a> {
    gate: &'a Gate,
    permit: Option<SemaphorePermit<'a>>,
    /// Bytes of one turn, as many as take about as long as a turn may.
    quantum: u64,
    /// Bytes left of the present turn; 0: the next has to be waited for.
    left: u64,
    began: Option<Instant>,
    /// The rates that the transfer is held to, if any.
    pace: Option<Pace>,
}

impl<'a> Turn<'a> {
    /// A transfer's first turn is short and not waited for: a small file, or the first page of a
    /// listing, does not queue behind large ones.
    pub(super) fn new(gate: &'a Gate, pace: Option<Pace>) -> Self {
        Self {
            gate,
            permit: None,
            quantum: QUANTUM_BYTES_FIRST,
            left: QUANTUM_BYTES_FIRST,
            began: None,
            pace,
        }
    }

    /// Waits until the transfer's rates let it move bytes; before each [`Turn::begin`]. Others have
    /// their turns meanwhile.
    pub(super) async fn allow(&mut self, watch: &Watch) -> Result<(), Failure> {
        if !self.is_spent() {
            return Ok(());
        }
        let wait = match &mut self.pace {
            Some(pace) => pace.take()?,
            None => Duration::ZERO,
        };
        if wait.is_zero() {
            return Ok(());
        }
        self.end();
        watch.add_wait(wait);
        // Boxed, so that transfers without a rate have no room for it.
        let wait = Box::pin(tokio::time::sleep(wait));
        watch.unless_aborted(wait).await
    }

    /// Whether the transfer is held to a rate.
    pub(super) fn is_paced(&self) -> bool {
        self.pace.is_some()
    }

    /// Whether the rates let no more be moved for now.
    pub(super) fn is_spent(&self) -> bool {
        self.pace.as_ref().is_some_and(|pace| pace.left() == 0)
    }

    /// Waits until this transfer may move bytes; returns how many, at least 1.
    pub(super) async fn begin(&mut self) -> u64 {
        if self.left == 0 {
            // The gate is never closed. Without it a turn would only be less well timed.
            self.permit = self.gate.one.acquire().await.ok();
            self.left = self.quantum;
        }
        if self.began.is_none() {
            self.began = Some(Instant::now());
        }
        match &self.pace {
            Some(pace) => self.left.min(pace.left()),
            None => self.left,
        }
    }

    /// Counts bytes; when the turn is over, lets everybody else have theirs.
    pub(super) async fn spend(&mut self, bytes: usize) {
        self.pay(bytes as u64);
        self.count(bytes).await;
    }

    /// Counts bytes for the rates alone.
    pub(super) fn pay(&mut self, bytes: u64) {
        if let Some(pace) = &mut self.pace {
            pace.spend(bytes);
        }
    }

    /// Counts bytes, or what takes as long, for the turn alone.
    pub(super) async fn count(&mut self, bytes: usize) {
        self.left = self.left.saturating_sub(bytes as u64);
        if self.left == 0 {
            self.adapt();
            // With the gate closed: commands come before the next transfer.
            uring::pause().await;
            self.permit = None;
        }
    }

    /// Ends the turn before a wait for the client, or for the disk.
    pub(super) fn end(&mut self) {
        self.left = 0;
        self.began = None;
        self.permit = None;
    }

    /// Makes the next turn as long as it should be on this machine.
    fn adapt(&mut self) {
        let took = self.began.take().map(|began| began.elapsed());
        self.quantum = next_quantum(self.quantum, took.unwrap_or_default());
    }
}

fn next_quantum(quantum: u64, took: Duration) -> u64 {
    if took > TURN_MAX {
        (quantum / 2).max(QUANTUM_BYTES_MIN)
    } else if took <= TURN_MAX / 2 {
        (quantum * 2).min(QUANTUM_BYTES_MAX)
    } else {
        quantum
    }
}

/// What a turn may take. Every other session of the core waits that long now and then.
const TURN_MAX: Duration = Duration::from_micros(300);

/// On Linux 6.18 and a CPU that sends 7 GB/s: 64 KiB take 10 µs, 1 MiB 150 µs, and more than 1 MiB
/// at a time costs no less. Many transfers may begin together, and their first turns do not queue.
const QUANTUM_BYTES_FIRST: u64 = 64 * 1024;
const QUANTUM_BYTES_MIN: u64 = 64 * 1024;
const QUANTUM_BYTES_MAX: u64 = 1024 * 1024;

#[cfg(test)]
mod tests {
    use std::cell::RefCell;
    use std::rc::Rc;

    use super::*;
    use crate::uring::RingOptions;

    #[test]
    fn a_command_waits_for_one_turn_however_many_transfers_there_are() {
        const TRANSFERS: usize = 16;
        const TURNS: usize = 8;
        let happened = uring::start(&RingOptions::default(), || async {
            let (gate, happened) = (Rc::new(Gate::default()), Rc::default());
            let log: &Rc<RefCell<Vec<Option<usize>>>> = &happened;
            let transfers: Vec<_> = (0..TRANSFERS)
                .map(|number| uring::spawn(transfer(number, TURNS, gate.clone(), log.clone())))
                .collect();
            let commands = Rc::clone(log);
            let _commands = uring::spawn(async move {
                loop {
                    uring::pause().await;
                    commands.borrow_mut().push(None);
                }
            });
            for transfer in transfers {
                transfer.await.unwrap();
            }
            happened.take()
        })
        .unwrap();
        // For the first turns nobody queues.
        let queued = &happened[TRANSFERS..];
        assert_eq!(queued.iter().flatten().count(), TRANSFERS * (TURNS - 1));
        for pair in queued.windows(2) {
            assert!(pair.contains(&None), "two turns at once: {happened:?}");
        }
        let order: Vec<_> = queued.iter().flatten().collect();
        for window in order[..TRANSFERS * (TURNS - 2)].windows(TRANSFERS) {
            let mut numbers = window.to_vec();
            numbers.sort();
            numbers.dedup();
            assert_eq!(numbers.len(), TRANSFERS, "not in turn: {order:?}");
        }
    }

    async fn transfer(
        number: usize,
        turns: usize,
        gate: Rc<Gate>,
        log: Rc<RefCell<Vec<Option<usize>>>>,
    ) {
        let mut turn = Turn::new(&gate, None);
        for _ in 0..turns {
            let bytes = turn.begin().await;
            log.borrow_mut().push(Some(number));
            turn.spend(bytes as usize).await;
        }
    }

    #[test]
    fn turns_grow_while_they_are_quick_and_shrink_when_they_are_not() {
        let quick = Duration::from_micros(40);
        assert_eq!(next_quantum(QUANTUM_BYTES_FIRST, quick), 128 * 1024);
        assert_eq!(next_quantum(QUANTUM_BYTES_MAX, quick), QUANTUM_BYTES_MAX);
        let right = TURN_MAX * 3 / 4;
        assert_eq!(next_quantum(QUANTUM_BYTES_MAX, right), QUANTUM_BYTES_MAX);
        let slow = TURN_MAX * 2;
        assert_eq!(next_quantum(QUANTUM_BYTES_MAX, slow), 512 * 1024);
        assert_eq!(next_quantum(QUANTUM_BYTES_MIN, slow), QUANTUM_BYTES_MIN);
    }
}
