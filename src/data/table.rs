//! Who may connect to which passive port: the table behind the pool, without sockets and clock.
//!
//! A reservation is the pair of port and client address, so that one port serves many clients at
//! once: the capacity is ports × clients, counted in data connections that are being set up. Every
//! operation costs the same for ten ports as for ten thousand: what grows is bounded by what one
//! client may hold ([`Rules::per_client_max`]).
//!
//! Ports come and go while the server runs: a reload adds and retires them, and a core that is dry
//! borrows them from another ([`Table::lend`]).

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use super::queue::Queue;
use super::report::{Histogram, RangeReport};
use crate::config::{PeerCheck, PortRange};

/// What an operator decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// How long a port waits for its client.
    pub timeout: Duration,
    /// Reservations that one client address may hold; an IPv6 /64 counts as one.
    pub per_client_max: usize,
    /// Whose connection is accepted for a client.
    pub peer_check: PeerCheck,
}

/// The ports of one address of one core, and their reservations. `S` is what belongs to each.
#[derive(Debug)]
pub struct Table<S> {
    rules: Rules,
    /// One for each range of the configuration, and a last one for ports in none of them.
    tallies: Vec<Tally>,
    ports: Vec<Option<Port>>,
    vacant: Vec<PortIndex>,
    by_number: HashMap<u16, PortIndex>,
    /// Ports that may be handed out, least recently handed out first.
    order: Queue,
    /// Of these, ports without a reservation, the one that has been so for longest first.
    idle: Queue,
    /// Ports that leave and have no reservation any more.
    departed: Vec<PortIndex>,
    places: Vec<Place<S>>,
    free: Vec<u32>,
    /// Whose connection belongs to which reservation.
    expected: HashMap<(PortIndex, Peer), Ticket>,
    /// Reservations by the time at which they end. Some have ended before.
    due: VecDeque<(Instant, Ticket)>,
    clients: HashMap<IpAddr, usize>,
    waits: Histogram,
    random: u64,
}

/// A port of a [`Table`], as long as it is in it.
pub type PortIndex = u32;

/// A reservation. It stays unique when its place in the table is used again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ticket {
    place: u32,
    round: u32,
}

/// What [`Table::reserve`] gives.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Reserved {
    /// The port.
    pub port: PortIndex,
    /// Its number.
    pub number: u16,
    /// The reservation.
    pub ticket: Ticket,
    /// A former client of this port did not come in time. Its connection may wait in the port's
    /// queue, and must not be taken for the new client's.
    pub is_suspect: bool,
}

/// Why no port can be had.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Refusal {
    /// The client holds as many as one may.
    ClientLimit,
    /// No port is left for this client.
    Dry,
}

#[derive(Debug)]
struct Port {
    number: u16,
    tally: usize,
    is_leaving: bool,
    is_suspect: bool,
    /// Reservations of this port.
    pending: usize,
    /// The places of all of them, combined by exclusive or: with one left, it is that one's.
    places: u32,
}

#[derive(Debug, Default)]
struct Tally {
    range: Option<PortRange>,
    reserved: usize,
    high_water: usize,
    handed_out: u64,
    used: u64,
    abandoned: u64,
    strangers: u64,
    stale: u64,
}

#[derive(Debug)]
struct Place<S> {
    round: u32,
    reservation: Option<Reservation<S>>,
}

#[derive(Debug)]
struct Reservation<S> {
    port: PortIndex,
    client: IpAddr,
    expected: Peer,
    since: Instant,
    has_met: bool,
    state: S,
}

/// Whose connection a reservation waits for, by the rules under which it was made.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
enum Peer {
    Address(IpAddr),
    Network(IpAddr),
    Anyone,
}

impl<S> Table<S> {
    /// A table without ports, for ports of these ranges. `seed` decides the order in which they are
    /// handed out.
    pub fn new(ranges: &[PortRange], rules: Rules, seed: u64) -> Self {
        let mut table = Self {
            rules,
            tallies: Vec::new(),
            ports: Vec::new(),
            vacant: Vec::new(),
            by_number: HashMap::new(),
            order: Queue::default(),
            idle: Queue::default(),
            departed: Vec::new(),
            places: Vec::new(),
            free: Vec::new(),
            expected: HashMap::new(),
            due: VecDeque::new(),
            clients: HashMap::new(),
            waits: Histogram::default(),
            random: seed | 1,
        };
        table.set_ranges(ranges);
        table
    }

    /// Adds a port. It is handed out after those that are there already: to mix ports that are added
    /// together, bring them in the order of [`Table::shuffle`].
    ///
    /// # Panics
    ///
    /// When the port is in the table.
    pub fn add(&mut self, number: u16) -> PortIndex {
        assert!(
            !self.by_number.contains_key(&number),
            "port {number} is here"
        );
        let port = Port {
            number,
            tally: self.tally_of(number),
            is_leaving: false,
            is_suspect: false,
            pending: 0,
            places: 0,
        };
        let index = match self.vacant.pop() {
            Some(index) => {
                self.ports[index as usize] = Some(port);
                index
            }
            None => {
                self.ports.push(Some(port));
                // There are no more ports than u16 has numbers.
                (self.ports.len() - 1) as PortIndex
            }
        };
        self.by_number.insert(number, index);
        self.order.push_back(index);
        self.idle.push_back(index);
        index
    }

    /// Brings anything into a random order.
    pub fn shuffle<T>(&mut self, items: &mut [T]) {
        for last in (1..items.len()).rev() {
            let other = self.random_below(last + 1);
            items.swap(last, other);
        }
    }

    /// The index of a port, if it is here.
    pub fn index_of(&self, number: u16) -> Option<PortIndex> {
        self.by_number.get(&number).copied()
    }

    /// The numbers of all ports, in no order.
    pub fn numbers(&self) -> impl Iterator<Item = u16> {
        self.by_number.keys().copied()
    }

    /// The number of a port.
    ///
    /// # Panics
    ///
    /// When it is not in the table.
    pub fn number(&self, port: PortIndex) -> u16 {
        self.port(port).number
    }

    /// Hands the port out no more. When its last reservation has ended, it is among the
    /// [`Table::take_departed`].
    pub fn retire(&mut self, port: PortIndex) {
        self.order.remove(port);
        self.idle.remove(port);
        let entry = self.port_mut(port);
        if !std::mem::replace(&mut entry.is_leaving, true) && entry.pending == 0 {
            self.departed.push(port);
        }
    }

    /// Hands the port out again, if it has been retired and has not departed.
    pub fn keep(&mut self, port: PortIndex) {
        let is_shared = self.rules.peer_check == PeerCheck::Strict;
        let entry = self.port_mut(port);
        if !std::mem::take(&mut entry.is_leaving) {
            return;
        }
        let is_idle = entry.pending == 0;
        if is_idle {
            self.departed.retain(|departed| *departed != port);
            self.idle.push_back(port);
        }
        if is_idle || is_shared {
            self.order.push_back(port);
        }
    }

    /// Ports that have been retired and have no reservation any more. They are still in the table.
    pub fn take_departed(&mut self) -> Vec<PortIndex> {
        std::mem::take(&mut self.departed)
    }

    /// Tries again, at the next [`Table::take_departed`], with a port that was among them.
    pub fn depart_later(&mut self, port: PortIndex) {
        self.departed.push(port);
    }

    /// Whether ports wait for their last reservation to end.
    pub fn is_any_leaving(&self) -> bool {
        self.ports.iter().flatten().any(|port| port.is_leaving)
    }

    /// Takes a port out of the table; its number.
    ///
    /// # Panics
    ///
    /// When it has reservations.
    pub fn remove(&mut self, port: PortIndex) -> u16 {
        self.order.remove(port);
        self.idle.remove(port);
        // A port that is not here has no number, as one with reservations has still to leave.
        let entry = self.ports[port as usize]
            .take()
            .expect("a port that is here");
        assert!(
            entry.pending == 0,
            "port {} waits for clients",
            entry.number
        );
        self.by_number.remove(&entry.number);
        self.vacant.push(port);
        entry.number
    }

    /// Ports that can be given to another core, at most `wanted`: of those without a reservation up
    /// to one half, and never the last port. They have to be [removed](Table::remove).
    pub fn lend(&self, wanted: usize) -> Vec<PortIndex> {
        let spare = self
            .idle
            .len()
            .div_ceil(2)
            .min(self.order.len().saturating_sub(1));
        self.idle.iter().take(spare.min(wanted)).collect()
    }

    /// Reserves a port for a client: one of those that were not handed out for longest. Call
    /// [`Table::expire`] before.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub fn reserve(&mut self, client: IpAddr, state: S, now: Instant) -> Result<Reserved, Refusal> {
        let held = self.clients.get(&host(client)).copied().unwrap_or(0);
        if held >= self.rules.per_client_max {
            return Err(Refusal::ClientLimit);
        }
        let expected = Peer::expected(self.rules.peer_check, client);
        let port = self.choose(expected, held).ok_or(Refusal::Dry)?;
        self.idle.remove(port);
        match self.rules.peer_check {
            PeerCheck::Strict => self.order.push_back(port),
            // Nobody else gets it meanwhile.
            PeerCheck::Subnet | PeerCheck::Off => drop(self.order.remove(port)),
        }
        let ticket = self.insert(Reservation {
            port,
            client,
            expected,
            since: now,
            has_met: false,
            state,
        });
        self.expected.insert((port, expected), ticket);
        *self.clients.entry(host(client)).or_default() += 1;
        if self.due.len() > 2 * self.reserved() + DUE_SLACK {
            self.forget_released();
        }
        self.due.push_back((now + self.rules.timeout, ticket));
        let entry = self.port_mut(port);
        entry.pending += 1;
        entry.places ^= ticket.place;
        let is_suspect = std::mem::take(&mut entry.is_suspect);
        let (number, tally) = (entry.number, entry.tally);
        self.tallies[tally].handed_out();
        Ok(Reserved {
            port,
            number,
            ticket,
            is_suspect,
        })
    }

    /// The reservation that a connection from `peer` to `port` is for.
    pub fn find(&self, port: PortIndex, peer: IpAddr) -> Option<Ticket> {
        // A reservation keeps the rules under which it was made. For the strict ones, which are all
        // but always all, the first look finds it.
        let checks = [PeerCheck::Strict, PeerCheck::Subnet, PeerCheck::Off];
        let mut peers = checks.map(|check| Peer::expected(check, peer)).into_iter();
        peers.find_map(|peer| self.expected.get(&(port, peer)).copied())
    }

    /// The reservation of `port` if it has just one, whoever that is for.
    pub fn only(&self, port: PortIndex) -> Option<Ticket> {
        let port = self.ports.get(port as usize)?.as_ref()?;
        let round = self.places.get(port.places as usize)?.round;
        let place = port.places;
        (port.pending == 1).then_some(Ticket { place, round })
    }

    /// What belongs to a reservation, while it lasts.
    pub fn state(&self, ticket: Ticket) -> Option<&S> {
        self.get(ticket).map(|reservation| &reservation.state)
    }

    /// Notes that the client of a reservation has come.
    pub fn meet(&mut self, ticket: Ticket, now: Instant) {
        let Some(reservation) = self.get_mut(ticket) else {
            return;
        };
        if std::mem::replace(&mut reservation.has_met, true) {
            return;
        }
        let (port, since) = (reservation.port, reservation.since);
        self.waits.count_in(now.saturating_duration_since(since));
        let tally = self.port(port).tally;
        self.tallies[tally].used += 1;
    }

    /// Notes that a connection was reset that nobody waited for.
    pub fn count_stranger(&mut self, port: PortIndex) {
        let tally = self.port(port).tally;
        self.tallies[tally].strangers += 1;
    }

    /// Notes that a connection was reset that came for a reservation before.
    pub fn count_stale(&mut self, port: PortIndex) {
        let tally = self.port(port).tally;
        self.tallies[tally].stale += 1;
    }

    /// Gives a port up, because its client has connected or will not; what belonged to it comes
    /// back, the first time.
    pub fn release(&mut self, ticket: Ticket) -> Option<S> {
        let reservation = self.take(ticket)?;
        self.expected
            .remove(&(reservation.port, reservation.expected));
        let index = reservation.port;
        let port = self.port_mut(index);
        port.pending -= 1;
        port.places ^= ticket.place;
        port.is_suspect |= !reservation.has_met;
        let (tally, is_idle, is_leaving) = (port.tally, port.pending == 0, port.is_leaving);
        self.tallies[tally].ended(reservation.has_met);
        match (is_idle, is_leaving) {
            (true, true) => self.departed.push(index),
            (true, false) => {
                self.idle.push_back(index);
                if !self.order.contains(index) {
                    self.order.push_back(index);
                }
            }
            (false, _) => {}
        }
        let client = host(reservation.client);
        if let Some(held) = self.clients.get_mut(&client) {
            *held -= 1;
            if *held == 0 {
                self.clients.remove(&client);
            }
        }
        Some(reservation.state)
    }

    /// Takes back the ports whose clients did not come in time; hands out what belonged to them.
    pub fn expire(&mut self, now: Instant, mut expired: impl FnMut(S)) {
        while let Some((due, ticket)) = self.due.front().copied() {
            if due > now && self.get(ticket).is_some() {
                return;
            }
            self.due.pop_front();
            if let Some(state) = self.release(ticket) {
                expired(state);
            }
        }
    }

    /// Goes on under other rules. Reservations that are there keep the peer they wait for, and end
    /// no later than new ones would.
    pub fn set_rules(&mut self, rules: Rules, now: Instant) {
        self.rules = rules;
        let latest = now + rules.timeout;
        for (due, _) in &mut self.due {
            // They stay in order: all of them are due before those that are to come.
            *due = (*due).min(latest);
        }
        let is_shared = rules.peer_check == PeerCheck::Strict;
        for index in 0..self.ports.len() as PortIndex {
            let Some(port) = &self.ports[index as usize] else {
                continue;
            };
            match (port.pending > 0 && !port.is_leaving, is_shared) {
                (true, false) => drop(self.order.remove(index)),
                (true, true) if !self.order.contains(index) => self.order.push_back(index),
                _ => {}
            }
        }
    }

    /// Goes on with other ranges. The figures of ranges that stay go on too.
    pub fn set_ranges(&mut self, ranges: &[PortRange]) {
        let mut before = std::mem::take(&mut self.tallies);
        let ranges = ranges.iter().copied().map(Some).chain([None]);
        self.tallies = ranges
            .map(
                |range| match before.iter().position(|tally| tally.range == range) {
                    Some(at) => before.swap_remove(at),
                    None => Tally {
                        range,
                        ..Tally::default()
                    },
                },
            )
            .collect();
        for tally in &mut self.tallies {
            tally.reserved = 0;
        }
        for index in 0..self.ports.len() {
            let number = self.ports[index].as_ref().map(|port| port.number);
            let tally = number.map(|number| self.tally_of(number));
            if let (Some(port), Some(tally)) = (&mut self.ports[index], tally) {
                port.tally = tally;
                self.tallies[tally].reserved += port.pending;
            }
        }
    }

    /// Reservations at the moment.
    pub fn reserved(&self) -> usize {
        self.places.len() - self.free.len()
    }

    /// Ports without a reservation that may be handed out.
    pub fn idle(&self) -> usize {
        self.idle.len()
    }

    /// The figures of each range, and of ports in none if there are such. What is unavailable the
    /// table does not know.
    pub fn ranges(&self) -> Vec<RangeReport> {
        let mut reports: Vec<RangeReport> = self.tallies.iter().map(Tally::report).collect();
        for (index, port) in (0..).zip(&self.ports) {
            let Some(port) = port else { continue };
            let report = &mut reports[port.tally];
            report.ports += 1;
            report.free += usize::from(self.idle.contains(index));
            report.leaving += usize::from(port.is_leaving);
        }
        let nowhere = reports.pop().filter(|rest| rest.ports > 0);
        reports.extend(nowhere);
        reports
    }

    /// From reservation to the client's connection.
    pub fn waits(&self) -> Histogram {
        self.waits
    }

    /// The clients with most reservations, the greatest first.
    pub fn top_clients(&self, count: usize) -> Vec<(IpAddr, usize)> {
        let mut clients: Vec<_> = self.clients.iter().map(|(ip, held)| (*ip, *held)).collect();
        clients.sort_unstable_by_key(|(ip, held)| (usize::MAX - held, *ip));
        clients.truncate(count);
        clients
    }

    /// The next port for a client: at random among those not handed out for longest, so that it
    /// cannot be told from those before (RFC 2577 §8).
    fn choose(&mut self, expected: Peer, held: usize) -> Option<PortIndex> {
        let window = (self.order.len() / RANDOM_SHARE).min(RANDOM_WINDOW_MAX);
        let start = if window > 1 {
            self.random_below(window)
        } else {
            0
        };
        // The client holds `held` ports: beyond so many and one, there is a port without it.
        let (behind, before) = (self.order.iter().skip(start), self.order.iter().take(start));
        let mut candidates = behind.chain(before).take(held + 1);
        candidates.find(|port| !self.expected.contains_key(&(*port, expected)))
    }

    /// Most reservations are used at once and released long before their time.
    fn forget_released(&mut self) {
        let due = std::mem::take(&mut self.due);
        self.due = due
            .into_iter()
            .filter(|(_, ticket)| self.get(*ticket).is_some())
            .collect();
    }

    fn tally_of(&self, number: u16) -> usize {
        let contains = |tally: &Tally| tally.range.is_none_or(|range| range.contains(number));
        // The last one, for ports in none of the ranges, contains them all.
        self.tallies.iter().position(contains).unwrap_or(0)
    }

    fn port(&self, port: PortIndex) -> &Port {
        // Indices are given out by `add` and used until `remove`.
        self.ports[port as usize]
            .as_ref()
            .expect("a port that is here")
    }

    fn port_mut(&mut self, port: PortIndex) -> &mut Port {
        // As above.
        self.ports[port as usize]
            .as_mut()
            .expect("a port that is here")
    }

    fn get(&self, ticket: Ticket) -> Option<&Reservation<S>> {
        let place = self.places.get(ticket.place as usize)?;
        let reservation = place.reservation.as_ref();
        reservation.filter(|_| place.round == ticket.round)
    }

    fn get_mut(&mut self, ticket: Ticket) -> Option<&mut Reservation<S>> {
        let place = self.places.get_mut(ticket.place as usize)?;
        let reservation = place.reservation.as_mut();
        reservation.filter(|_| place.round == ticket.round)
    }

    fn insert(&mut self, reservation: Reservation<S>) -> Ticket {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.places.push(Place {
                    round: 0,
                    reservation: None,
                });
                (self.places.len() - 1) as u32
            }
        };
        let cell = &mut self.places[place as usize];
        cell.reservation = Some(reservation);
        Ticket {
            place,
            round: cell.round,
        }
    }

    fn take(&mut self, ticket: Ticket) -> Option<Reservation<S>> {
        self.get(ticket)?;
        let place = self.places.get_mut(ticket.place as usize)?;
        place.round = place.round.wrapping_add(1);
        self.free.push(ticket.place);
        place.reservation.take()
    }

    /// xorshift64 (Marsaglia 2003): fast, and good enough for an order whose seed is secret.
    fn random_below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % bound as u64) as usize
    }
}

impl Tally {
    fn handed_out(&mut self) {
        self.handed_out += 1;
        self.reserved += 1;
        self.high_water = self.high_water.max(self.reserved);
    }

    fn ended(&mut self, has_met: bool) {
        self.reserved -= 1;
        self.abandoned += u64::from(!has_met);
    }

    fn report(&self) -> RangeReport {
        RangeReport {
            first: self.range.map_or(0, PortRange::first),
            last: self.range.map_or(0, PortRange::last),
            reserved: self.reserved,
            high_water: self.high_water,
            handed_out: self.handed_out,
            used: self.used,
            abandoned: self.abandoned,
            strangers: self.strangers,
            stale: self.stale,
            ..RangeReport::default()
        }
    }
}

impl Peer {
    /// Whose connections are accepted for `client`.
    fn expected(check: PeerCheck, client: IpAddr) -> Self {
        match check {
            PeerCheck::Strict => Self::Address(client),
            PeerCheck::Subnet => Self::Network(network(client)),
            PeerCheck::Off => Self::Anyone,
        }
    }
}

/// The network that [`PeerCheck::Subnet`] means: 24 bits of an IPv4 address, 64 of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() & !0 << 8).into()),
        IpAddr::V6(_) => host(address),
    }
}

/// What counts as one client. RFC 4291 §2.5.1: an IPv6 host may take any address of its /64.
fn host(client: IpAddr) -> IpAddr {
    match client {
        IpAddr::V4(_) => client,
        IpAddr::V6(address) => IpAddr::V6(Ipv6Addr::from_bits(address.to_bits() & !0 << 64)),
    }
}

/// The next port is drawn from so many of those not used for longest, and from no more than a quarter
/// of all: else a port would be handed out again too soon, before the last stray connection of its
/// former client has come.
const RANDOM_WINDOW_MAX: usize = 16;
const RANDOM_SHARE: usize = 4;

/// Ends of released reservations that are kept in the queue before it is cleared of them.
const DUE_SLACK: usize = 1024;

#[cfg(test)]
mod tests;
