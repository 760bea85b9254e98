//! What can be seen of the sessions of a core from outside of them, and how they are ended from there.
//!
//! Each session has a [`Card`], which it writes with plain stores; the core's [`Register`] finds it.
//! Nothing of it is done for a command but to note when it came.

use std::cell::{Cell, RefCell};
use std::collections::BTreeMap;
use std::fmt;
use std::net::{IpAddr, SocketAddr};
use std::ops::Bound;
use std::rc::Rc;
use std::task::Waker;
use std::time::{Duration, Instant};

use super::running::Shared;

/// One session, for its core. Small, because an idle session is little else.
pub struct Card {
    id: u64,
    peer: IpAddr,
    local: SocketAddr,
    started: Instant,
    heard: Cell<Instant>,
    user: Cell<Option<Rc<[u8]>>>,
    transfer: Cell<Option<Rc<Shared>>>,
    waker: Cell<Option<Waker>>,
    kicked: Cell<bool>,
}

/// A transfer under way.
#[derive(Clone, Debug)]
pub struct Moving {
    /// The verb that began it.
    pub verb: &'static str,
    /// The file or directory.
    pub path: Vec<u8>,
    /// Bytes that went over the data connection so far.
    pub bytes: u64,
    /// Since it began.
    pub time: Duration,
}

impl Card {
    /// A number that no other session of this run of the server has.
    pub fn id(&self) -> u64 {
        self.id
    }

    /// The client's address.
    pub fn peer(&self) -> IpAddr {
        self.peer
    }

    /// The address and port of this side.
    pub fn local(&self) -> SocketAddr {
        self.local
    }

    /// When the client came.
    pub fn started(&self) -> Instant {
        self.started
    }

    /// When the client was last heard, or its last transfer ended.
    pub fn heard(&self) -> Instant {
        self.heard.get()
    }

    /// The user who is logged in.
    pub fn user(&self) -> Option<Rc<[u8]>> {
        peek(&self.user)
    }

    /// The transfer under way.
    pub fn transfer(&self) -> Option<Moving> {
        let shared = peek(&self.transfer)?;
        Some(Moving {
            verb: shared.label.verb,
            path: shared.label.path.clone(),
            bytes: shared.watch.bytes(),
            time: shared.watch.started().elapsed(),
        })
    }

    /// Whether the session is about to end because of [`Card::kick`].
    pub fn is_kicked(&self) -> bool {
        self.kicked.get()
    }

    /// Has the session end; false if it has been told so before.
    pub fn kick(&self) -> bool {
        let anew = !self.kicked.replace(true);
        if anew {
            self.wake();
        }
        anew
    }

    pub(super) fn hear(&self) {
        self.heard.set(Instant::now());
    }

    pub(super) fn set_transfer(&self, transfer: Option<Rc<Shared>>) {
        self.transfer.set(transfer);
    }

    /// The session's task goes on by this waker. It is the same for the life of a task, so that it
    /// is cloned once.
    pub(super) fn set_waker(&self, waker: &Waker) {
        let known = self.waker.take().filter(|known| known.will_wake(waker));
        self.waker.set(Some(known.unwrap_or_else(|| waker.clone())));
    }

    fn wake(&self) {
        // A task that has not had its first turn yet has it without being woken.
        if let Some(waker) = peek(&self.waker) {
            waker.wake();
        }
    }
}

impl fmt::Debug for Card {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Card")
            .field("id", &self.id)
            .field("peer", &self.peer)
            .finish_non_exhaustive()
    }
}

fn peek<T: Clone>(cell: &Cell<Option<T>>) -> Option<T> {
    let held = cell.take();
    let copy = held.clone();
    cell.set(held);
    copy
}

/// The sessions of one core, in the order in which they began.
#[derive(Debug)]
pub struct Register {
    core: u64,
    cores: u64,
    enrolled: Cell<u64>,
    logged_in: Cell<usize>,
    cards: RefCell<BTreeMap<u64, Rc<Card>>>,
}

impl Register {
    /// The register of core `core` of so many.
    pub fn new(core: usize, cores: usize) -> Self {
        Self {
            core: core as u64,
            cores: cores as u64,
            enrolled: Cell::new(0),
            logged_in: Cell::new(0),
            cards: RefCell::default(),
        }
    }

    /// Sessions with a user.
    pub fn logged_in(&self) -> usize {
        self.logged_in.get()
    }

    /// The first `most` sessions behind the one with this number; 0 is before all. So that the
    /// core serves its clients between two pieces.
    pub fn after(&self, id: u64, most: usize) -> Vec<Rc<Card>> {
        let cards = self.cards.borrow();
        let behind = cards.range((Bound::Excluded(id), Bound::Unbounded));
        behind.take(most).map(|(_, card)| Rc::clone(card)).collect()
    }

    /// Every core counts for itself, so that a number says which core has it, and numbers stay short.
    pub(super) fn enroll(&self, peer: IpAddr, local: SocketAddr) -> Rc<Card> {
        let now = Instant::now();
        let number = self.enrolled.get();
        self.enrolled.set(number + 1);
        let card = Rc::new(Card {
            id: number * self.cores + self.core + 1,
            peer,
            local,
            started: now,
            heard: Cell::new(now),
            user: Cell::default(),
            transfer: Cell::default(),
            waker: Cell::default(),
            kicked: Cell::new(false),
        });
        self.cards.borrow_mut().insert(card.id, Rc::clone(&card));
        card
    }

    pub(super) fn remove(&self, card: &Card) {
        self.set_user(card, None);
        card.set_transfer(None);
        self.cards.borrow_mut().remove(&card.id);
    }

    pub(super) fn set_user(&self, card: &Card, user: Option<Rc<[u8]>>) {
        let now = usize::from(user.is_some());
        let before = usize::from(card.user.replace(user).is_some());
        self.logged_in.set(self.logged_in.get() + now - before);
    }

    /// Has every session look at the core's phase.
    pub(super) fn wake(&self) {
        for card in self.cards.borrow().values() {
            card.wake();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn enrolled(register: &Register) -> Rc<Card> {
        register.enroll([127, 0, 0, 1].into(), ([127, 0, 0, 1], 21).into())
    }

    #[test]
    fn numbers_are_unique_over_the_cores() {
        let registers = [Register::new(0, 2), Register::new(1, 2)];
        let ids: Vec<u64> = (0..6)
            .map(|number| enrolled(&registers[number % 2]).id())
            .collect();
        assert_eq!(ids, [1, 2, 3, 4, 5, 6]);
    }

    #[test]
    fn sessions_come_in_pieces() {
        let register = Register::new(0, 1);
        let cards: Vec<Rc<Card>> = (0..5).map(|_| enrolled(&register)).collect();
        register.remove(&cards[1]);
        let ids = |after, most| -> Vec<u64> {
            let piece = register.after(after, most);
            piece.iter().map(|card| card.id()).collect()
        };
        assert_eq!(ids(0, 2), [1, 3]);
        assert_eq!(ids(3, 2), [4, 5]);
        assert_eq!(ids(5, 2), [] as [u64; 0]);
        // The last of a piece may have gone before the next one is asked for.
        assert_eq!(ids(2, 1), [3]);
    }

    #[test]
    fn users_are_counted() {
        let register = Register::new(0, 1);
        let (one, other) = (enrolled(&register), enrolled(&register));
        for card in [&one, &other, &one] {
            register.set_user(card, Some(Rc::from(&b"alice"[..])));
        }
        assert_eq!(register.logged_in(), 2);
        assert_eq!(one.user().as_deref(), Some(&b"alice"[..]));
        register.set_user(&one, None);
        register.remove(&one);
        assert_eq!(register.logged_in(), 1);
    }

    #[test]
    fn a_session_is_kicked_once() {
        let card = enrolled(&Register::new(0, 1));
        assert!(card.kick() && card.is_kicked());
        assert!(!card.kick() && card.is_kicked());
    }
}
