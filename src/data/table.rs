//! Who may connect to which passive port: the table behind the pool, without sockets and clock.
//!
//! A reservation is the pair of port and client address, so that one port serves many clients at
//! once: the capacity is ports × clients, counted in data connections that are being set up. Every
//! operation costs the same for ten ports as for ten thousand: what grows is bounded by what one
//! client may hold ([`Rules::per_client_max`]).

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv6Addr};
use std::time::{Duration, Instant};

use crate::config::PeerCheck;

/// What an operator decides.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Rules {
    /// How long a port waits for its client.
    pub timeout: Duration,
    /// Reservations that one client address may hold.
    pub per_client_max: usize,
    /// Whose connection is accepted for a client.
    pub peer_check: PeerCheck,
}

/// The ports of one address of one core, and their reservations. `S` is what belongs to each.
#[derive(Debug)]
pub struct Table<S> {
    rules: Rules,
    ports: Vec<Port>,
    /// Ports that may be handed out, least recently used first.
    order: VecDeque<PortIndex>,
    reservations: Vec<Cell<S>>,
    free: Vec<u32>,
    /// Reservations by the time at which they end. Some have ended before.
    due: VecDeque<(Instant, Ticket)>,
    clients: HashMap<IpAddr, usize>,
    random: u64,
}

/// Which of the ports given to [`Table::new`].
pub type PortIndex = u32;

/// A reservation. It stays unique when its place in the table is used again.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Ticket {
    place: u32,
    round: u32,
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
    /// Reservations of this port, each of another client.
    pending: Vec<Ticket>,
}

#[derive(Debug)]
struct Cell<S> {
    round: u32,
    reservation: Option<Reservation<S>>,
}

#[derive(Debug)]
struct Reservation<S> {
    port: PortIndex,
    client: IpAddr,
    state: S,
}

impl<S> Table<S> {
    /// A table of `ports` ports. `seed` decides the order in which they are handed out.
    pub fn new(ports: usize, rules: Rules, seed: u64) -> Self {
        let count = u32::try_from(ports).unwrap_or(u32::MAX);
        let mut table = Self {
            rules,
            ports: (0..count)
                .map(|_| Port {
                    pending: Vec::new(),
                })
                .collect(),
            order: (0..count).collect(),
            reservations: Vec::new(),
            free: Vec::new(),
            due: VecDeque::new(),
            clients: HashMap::new(),
            random: seed | 1,
        };
        for last in (1..table.order.len()).rev() {
            let other = table.random_below(last + 1);
            table.order.swap(last, other);
        }
        table
    }

    /// Reserves a port for a client: one of those that were not used for longest. Call
    /// [`Table::expire`] before.
    ///
    /// # Errors
    ///
    /// See [`Refusal`].
    pub fn reserve(
        &mut self,
        client: IpAddr,
        state: S,
        now: Instant,
    ) -> Result<(PortIndex, Ticket), Refusal> {
        let held = self.clients.get(&client).copied().unwrap_or(0);
        if held >= self.rules.per_client_max {
            return Err(Refusal::ClientLimit);
        }
        let at = self.choose(client, held).ok_or(Refusal::Dry)?;
        let port = self.order.remove(at).ok_or(Refusal::Dry)?;
        // Shared by clients of different addresses; else nobody else gets it meanwhile.
        if self.rules.peer_check == PeerCheck::Strict {
            self.order.push_back(port);
        }
        let ticket = self.insert(Reservation {
            port,
            client,
            state,
        });
        self.ports[port as usize].pending.push(ticket);
        *self.clients.entry(client).or_default() += 1;
        if self.due.len() > 2 * self.reserved() + DUE_SLACK {
            self.forget_released();
        }
        self.due.push_back((now + self.rules.timeout, ticket));
        Ok((port, ticket))
    }

    /// What belongs to the reservation that a connection from `peer` to `port` is for.
    pub fn find(&self, port: PortIndex, peer: IpAddr) -> Option<&S> {
        let mut pending = self.ports.get(port as usize)?.pending.iter();
        pending.find_map(|ticket| {
            let reservation = self.get(*ticket)?;
            let is_for_it = accepts(self.rules.peer_check, reservation.client, peer);
            is_for_it.then_some(&reservation.state)
        })
    }

    /// Gives a port up, because its client has connected or will not; what belonged to it comes
    /// back, the first time.
    pub fn release(&mut self, ticket: Ticket) -> Option<S> {
        let reservation = self.remove(ticket)?;
        let port = &mut self.ports[reservation.port as usize];
        port.pending.retain(|pending| *pending != ticket);
        if self.rules.peer_check != PeerCheck::Strict {
            self.order.push_back(reservation.port);
        }
        if let Some(held) = self.clients.get_mut(&reservation.client) {
            *held -= 1;
            if *held == 0 {
                self.clients.remove(&reservation.client);
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

    /// Reservations at the moment.
    pub fn reserved(&self) -> usize {
        self.reservations.len() - self.free.len()
    }

    /// Where in the order the next port for a client is: at random among the oldest, so that the
    /// next one cannot be told from those before (RFC 2577 §8).
    fn choose(&mut self, client: IpAddr, held: usize) -> Option<usize> {
        let window = (self.order.len() / RANDOM_SHARE).min(RANDOM_WINDOW_MAX);
        let start = if window > 1 {
            self.random_below(window)
        } else {
            0
        };
        // The client holds `held` ports: beyond so many and one, there is a port without it.
        let candidates = (start..self.order.len()).chain(0..start).take(held + 1);
        candidates.into_iter().find(|&at| {
            let port = &self.ports[self.order[at] as usize];
            !port.pending.iter().any(|ticket| {
                self.get(*ticket)
                    .is_some_and(|reservation| reservation.client == client)
            })
        })
    }

    /// Most reservations are used at once and released long before their time.
    fn forget_released(&mut self) {
        let due = std::mem::take(&mut self.due);
        self.due = due
            .into_iter()
            .filter(|(_, ticket)| self.get(*ticket).is_some())
            .collect();
    }

    fn get(&self, ticket: Ticket) -> Option<&Reservation<S>> {
        let cell = self.reservations.get(ticket.place as usize)?;
        cell.reservation
            .as_ref()
            .filter(|_| cell.round == ticket.round)
    }

    fn insert(&mut self, reservation: Reservation<S>) -> Ticket {
        let place = match self.free.pop() {
            Some(place) => place,
            None => {
                self.reservations.push(Cell {
                    round: 0,
                    reservation: None,
                });
                (self.reservations.len() - 1) as u32
            }
        };
        let cell = &mut self.reservations[place as usize];
        cell.reservation = Some(reservation);
        Ticket {
            place,
            round: cell.round,
        }
    }

    fn remove(&mut self, ticket: Ticket) -> Option<Reservation<S>> {
        self.get(ticket)?;
        let cell = self.reservations.get_mut(ticket.place as usize)?;
        cell.round = cell.round.wrapping_add(1);
        self.free.push(ticket.place);
        cell.reservation.take()
    }

    /// xorshift64 (Marsaglia 2003): fast, and good enough for an order whose seed is secret.
    fn random_below(&mut self, bound: usize) -> usize {
        self.random ^= self.random << 13;
        self.random ^= self.random >> 7;
        self.random ^= self.random << 17;
        (self.random % bound as u64) as usize
    }
}

/// Whether a connection from `peer` is accepted for `client`.
fn accepts(peer_check: PeerCheck, client: IpAddr, peer: IpAddr) -> bool {
    match peer_check {
        PeerCheck::Strict => client == peer,
        PeerCheck::Subnet => network(client) == network(peer),
        PeerCheck::Off => true,
    }
}

/// The network that [`PeerCheck::Subnet`] means: 24 bits of an IPv4 address, 64 of an IPv6 address.
fn network(address: IpAddr) -> IpAddr {
    match address {
        IpAddr::V4(address) => IpAddr::V4((address.to_bits() & !0 << 8).into()),
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
mod tests {
    use super::*;

    const RULES: Rules = Rules {
        timeout: Duration::from_secs(30),
        per_client_max: 64,
        peer_check: PeerCheck::Strict,
    };

    fn client(number: u32) -> IpAddr {
        IpAddr::V4((0x7f00_0000 + number).into())
    }

    fn table(ports: usize, rules: Rules) -> Table<u32> {
        Table::new(ports, rules, 42)
    }

    #[test]
    fn a_port_serves_many_clients_and_each_client_many_ports() {
        let now = Instant::now();
        let mut table = table(100, RULES);
        // 2 000 reservations on 100 ports from 40 addresses, 50 each.
        let mut tickets = Vec::new();
        for number in 0..2000 {
            let client = client(number % 40);
            let (port, ticket) = table.reserve(client, number, now).expect("room for all");
            assert_eq!(table.find(port, client), Some(&number));
            tickets.push(ticket);
        }
        assert_eq!(table.reserved(), 2000);
        for (number, ticket) in tickets.into_iter().enumerate() {
            assert_eq!(table.release(ticket), Some(number as u32));
            assert_eq!(table.release(ticket), None);
        }
        assert_eq!(table.reserved(), 0);
    }

    #[test]
    fn a_client_gets_no_port_twice_at_a_time() {
        let now = Instant::now();
        let mut table = table(10, RULES);
        let mut ports = std::collections::HashSet::new();
        for _ in 0..10 {
            assert!(ports.insert(table.reserve(client(1), 7, now).expect("a port").0));
        }
        assert_eq!(table.reserve(client(1), 7, now), Err(Refusal::Dry));
        assert!(table.reserve(client(2), 7, now).is_ok());
    }

    #[test]
    fn one_client_cannot_take_all() {
        let now = Instant::now();
        let rules = Rules {
            per_client_max: 3,
            ..RULES
        };
        let mut table = table(10, rules);
        let (_, first) = table.reserve(client(1), 7, now).expect("a port");
        table.reserve(client(1), 7, now).expect("a port");
        table.reserve(client(1), 7, now).expect("a port");
        assert_eq!(table.reserve(client(1), 7, now), Err(Refusal::ClientLimit));
        table.release(first);
        assert!(table.reserve(client(1), 7, now).is_ok());
    }

    #[test]
    fn a_stranger_finds_nothing() {
        let now = Instant::now();
        let mut table = table(10, RULES);
        let (port, _) = table.reserve(client(1), 7, now).expect("a port");
        assert_eq!(table.find(port, client(2)), None);
        assert_eq!(table.find(port + 1, client(1)), None);
        assert_eq!(table.find(1000, client(1)), None);
        assert_eq!(table.find(port, client(1)), Some(&7));
    }

    #[test]
    fn an_abandoned_reservation_ends_in_time() {
        let mut now = Instant::now();
        let mut table = table(1, RULES);
        let (port, old) = table.reserve(client(1), 7, now).expect("a port");
        assert_eq!(table.reserve(client(1), 7, now), Err(Refusal::Dry));
        now += RULES.timeout;
        let mut expired = Vec::new();
        table.expire(now, |state| expired.push(state));
        assert_eq!(expired, [7]);
        assert_eq!(table.find(port, client(1)), None);
        // Used again, it is another reservation: the old one's end does not end it.
        let (_, new) = table.reserve(client(1), 8, now).expect("the port again");
        assert_ne!(old, new);
        assert_eq!(table.release(old), None);
        assert_eq!(table.find(port, client(1)), Some(&8));
    }

    #[test]
    fn ports_are_handed_out_in_turn_but_in_no_order() {
        let now = Instant::now();
        let mut table = table(1000, RULES);
        let mut last_use = vec![None; 1000];
        let mut ascending = 0;
        let mut previous = 0;
        for number in 0..10_000 {
            let (port, ticket) = table.reserve(client(1), 7, now).expect("a port");
            table.release(ticket);
            if let Some(before) = last_use[port as usize].replace(number) {
                assert!(
                    number - before > 900,
                    "port {port} came again after {}",
                    number - before
                );
            }
            ascending += u32::from(port == previous + 1);
            previous = port;
        }
        assert!(
            ascending < 100,
            "{ascending} of 10 000 followed their predecessor"
        );
    }

    #[test]
    fn a_port_given_up_is_not_the_next_one() {
        let now = Instant::now();
        for ports in [2, 3, 8, 50] {
            let mut table = table(ports, RULES);
            let (mut before, mut ticket) = table.reserve(client(1), 0, now).expect("a port");
            for _ in 0..1000 {
                table.release(ticket);
                let (port, next) = table.reserve(client(1), 0, now).expect("a port");
                assert_ne!(port, before, "of {ports}");
                (before, ticket) = (port, next);
            }
        }
    }

    #[test]
    fn without_strict_peers_a_port_belongs_to_one_client() {
        let now = Instant::now();
        for (peer_check, peer) in [
            (PeerCheck::Subnet, client(9)),
            (PeerCheck::Off, client(99_999)),
        ] {
            let mut table = table(
                2,
                Rules {
                    peer_check,
                    ..RULES
                },
            );
            let (port, ticket) = table.reserve(client(1), 7, now).expect("a port");
            assert_eq!(table.find(port, peer), Some(&7), "{peer_check:?}");
            let (other, _) = table.reserve(client(2), 7, now).expect("the other port");
            assert_ne!(port, other);
            assert_eq!(table.reserve(client(3), 7, now), Err(Refusal::Dry));
            table.release(ticket);
            assert_eq!(
                table.reserve(client(3), 7, now).map(|(port, _)| port),
                Ok(port)
            );
        }
        let mut table = table(
            2,
            Rules {
                peer_check: PeerCheck::Subnet,
                ..RULES
            },
        );
        let (port, _) = table.reserve(client(1), 7, now).expect("a port");
        assert_eq!(table.find(port, client(99_999)), None);
    }

    #[test]
    fn a_hundred_thousand_reservations_leave_nothing_behind() {
        let mut now = Instant::now();
        let mut table = table(100, RULES);
        for number in 0..100_000 {
            let (_, ticket) = table.reserve(client(number % 7), 7, now).expect("a port");
            table.expire(now, |_| {});
            // Some are used, some are abandoned.
            if number % 3 > 0 {
                table.release(ticket);
            }
            now += Duration::from_millis(500);
        }
        now += RULES.timeout;
        table.expire(now, |_| {});
        assert_eq!(
            (table.reserved(), table.due.len(), table.clients.len()),
            (0, 0, 0)
        );
        assert!(
            table.reservations.len() < 100,
            "{} places",
            table.reservations.len()
        );
    }
}
