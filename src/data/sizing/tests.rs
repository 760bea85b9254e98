//! The arithmetic against tables, and against a simulation that drives the real table of ports in
//! virtual time.

use std::cmp::Reverse;
use std::collections::BinaryHeap;
use std::net::IpAddr;
use std::time::Instant;

use super::*;
use crate::config::{PeerCheck, PortRange};
use crate::data::table::{Rules, Table, Ticket};

const LOAD: Load = Load {
    rate: 200.0,
    rtt: Duration::from_millis(80),
    think: Duration::ZERO,
    abandoned: 0.05,
    timeout: Duration::from_secs(30),
    cores: 4,
    busiest: 1.0,
    exclusive: true,
    per_client_max: 64,
    loss: 1e-6,
};

#[test]
fn erlang_b_is_what_the_tables_say() {
    // Cooper, "Introduction to Queueing Theory", and the usual traffic tables.
    for (servers, load, blocked) in [
        (1, 1.0, 0.5),
        (2, 1.0, 0.2),
        (5, 3.0, 0.110_05),
        (10, 5.0, 0.018_38),
        (20, 12.0, 0.009_80),
        (100, 84.064, 0.01),
    ] {
        let found = erlang_b(servers, load);
        assert!(
            (found - blocked).abs() < 5e-5,
            "B({servers}, {load}) = {found}"
        );
    }
    assert_eq!(servers_for(84.064, 0.01), Some(100));
    assert_eq!(servers_for(0.0, 1e-9), Some(1));
    assert_eq!(servers_for(1e6, 1e-3), None);
}

#[test]
fn a_plan_adds_up() {
    let sizing = LOAD.sizing().expect("it fits");
    // 200 · (0.16 s · 0.95 + 30 s · 0.05) = 330.4.
    assert!((sizing.pending - 330.4).abs() < 1e-9);
    assert!((sizing.pending_per_core - 82.6).abs() < 1e-9);
    assert_eq!(sizing.for_reuse, 350);
    assert_eq!((sizing.per_core, sizing.total), (350, 1400));
    assert!(sizing.refused <= LOAD.loss && erlang_b(sizing.for_load - 1, 82.6) > LOAD.loss);
    // Ports that are shared have to hold the busiest client's reservations only.
    let shared = Load {
        exclusive: false,
        busiest: 0.01,
        ..LOAD
    };
    assert!(shared.sizing().expect("it fits").for_load < 10);
    let hopeless = Load { rate: 1e9, ..LOAD };
    assert_eq!(hopeless.sizing(), None);
}

/// The only place that knows the table: one core's ports under a stream of requests.
struct Pool {
    table: Table<()>,
    now: Instant,
}

impl Pool {
    fn new(ports: usize, timeout: Duration, peer_check: PeerCheck) -> Self {
        let rules = Rules {
            timeout,
            per_client_max: usize::MAX,
            peer_check,
        };
        let range = PortRange::new(2000, 1999 + ports as u16).expect("a range");
        let mut table = Table::new(&[range], rules, 7);
        for number in range.first()..=range.last() {
            table.add(number);
        }
        Self {
            table,
            now: Instant::now(),
        }
    }

    /// A port for a client, unless all are taken.
    fn reserve(&mut self, client: u32) -> Option<Ticket> {
        let client = IpAddr::V4((0x0a00_0000 + client).into());
        self.table.expire(self.now, |()| {});
        let reserved = self.table.reserve(client, (), self.now);
        reserved.ok().map(|reserved| reserved.ticket)
    }
}

/// xorshift64*, so that a failure can be repeated.
struct Random(u64);

impl Random {
    /// From 0 to below 1.
    fn unit(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        (self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11) as f64 / (1u64 << 53) as f64
    }

    /// The time to the next of events that come `rate` times a second at random (Poisson).
    fn pause(&mut self, rate: f64) -> Duration {
        Duration::from_secs_f64(-(1.0 - self.unit()).ln() / rate)
    }
}

/// The share of requests refused by one core with that many ports, `clients` of whom ask as often.
fn simulated(load: &Load, ports: usize, clients: u32, requests: usize) -> f64 {
    let check = match load.exclusive {
        true => PeerCheck::Off,
        false => PeerCheck::Strict,
    };
    let mut pool = Pool::new(ports, load.timeout, check);
    let mut random = Random(0x9e37_79b9_7f4a_7c15);
    let wait = 2 * load.rtt + load.think;
    let rate = load.rate / load.cores as f64;
    let mut arrivals = BinaryHeap::new();
    let mut tickets = Vec::new();
    let mut refused = 0;
    // The first tenth only fills the pool.
    let warm_up = requests / 10;
    for request in 0..requests + warm_up {
        pool.now += random.pause(rate);
        while let Some(Reverse((due, ticket))) = arrivals.peek().copied()
            && due <= pool.now
        {
            arrivals.pop();
            pool.table.release(tickets[ticket]);
        }
        let client = (random.unit() * f64::from(clients)) as u32;
        match pool.reserve(client) {
            None => refused += usize::from(request >= warm_up),
            // Whoever abandons it leaves it to its timeout.
            Some(_) if random.unit() < load.abandoned => {}
            Some(ticket) => {
                arrivals.push(Reverse((pool.now + wait, tickets.len())));
                tickets.push(ticket);
            }
        }
    }
    refused as f64 / requests as f64
}

#[test]
fn what_is_refused_is_what_erlang_says() {
    for (rate, abandoned, exclusive, clients, ports) in [
        // Few ports, much refused; then ever less.
        (50.0, 0.0, true, 1, 8),
        (50.0, 0.05, true, 100, 22),
        (50.0, 0.05, true, 100, 30),
        (100.0, 0.2, true, 1000, 125),
        // Ports shared among clients: each of them is a system of its own.
        (50.0, 0.05, false, 1, 24),
        (50.0, 0.05, false, 4, 9),
        (400.0, 0.10, false, 20, 18),
    ] {
        let load = Load {
            rate,
            abandoned,
            exclusive,
            busiest: 1.0 / f64::from(clients),
            cores: 1,
            // Short, so that the simulation sees many of them end.
            timeout: Duration::from_secs(5),
            ..LOAD
        };
        let sizing = load.sizing().expect("it fits");
        let expected = erlang_b(ports, sizing.competing);
        let found = simulated(&load, ports, clients, 60_000);
        // Refusals come in bunches: their number spreads more than that of independent ones.
        let tolerance = 0.12 * expected + 0.002;
        assert!(
            (found - expected).abs() < tolerance,
            "{ports} ports, {rate}/s: {found} refused, {expected} expected"
        );
    }
}

#[test]
fn the_planned_number_of_ports_suffices_and_two_thirds_do_not() {
    for exclusive in [true, false] {
        for abandoned in [0.02, 0.1] {
            let load = Load {
                rate: 60.0,
                abandoned,
                exclusive,
                busiest: 0.25,
                cores: 1,
                loss: 1e-3,
                ..LOAD
            };
            let ports = load.sizing().expect("it fits").for_load;
            let refused = simulated(&load, ports, 4, 60_000);
            assert!(refused < 2.5e-3, "{ports} ports: {refused}");
            let refused = simulated(&load, ports * 2 / 3, 4, 60_000);
            assert!(refused > 1e-2, "two thirds of {ports} ports: {refused}");
        }
    }
}
