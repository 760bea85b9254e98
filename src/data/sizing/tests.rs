//! The formulae against published tables, and against what the real table of ports does when
//! clients come at random: a simulation in virtual time.

use std::collections::{HashMap, VecDeque};
use std::net::{IpAddr, Ipv4Addr};
use std::time::Instant;

use super::*;
use crate::config::PeerCheck;
use crate::data::table::{PortIndex, Rules, Table, Ticket};

const TIMEOUT: Duration = Duration::from_secs(30);

/// 200 requests a second at 80 ms, 5 % abandoned: the example of the manual.
const PLAN: Plan = Plan {
    rate: 200.0,
    rtt: Duration::from_millis(80),
    think: Duration::ZERO,
    abandoned: 0.05,
    timeout: TIMEOUT,
    cores: 4,
    busiest: 1.0,
    peers: Peers::Exclusive,
    per_client_max: 64,
    loss: 1e-6,
};

fn near(left: f64, right: f64) -> bool {
    (left - right).abs() <= 1e-9 * right.abs()
}

#[test]
fn erlang_b_is_that_of_the_tables() {
    for (servers, load, refused) in [
        // By hand, from (aⁿ/n!) / Σ(aⁱ/i!).
        (0, 7.0, 1.0),
        (1, 1.0, 1.0 / 2.0),
        (2, 2.0, 2.0 / 5.0),
        (3, 2.0, 4.0 / 19.0),
        (1, 0.0, 0.0),
        // Exact fractions, rounded.
        (5, 3.0, 0.110_054_347_826),
        (10, 10.0, 0.214_582_343_107),
        (20, 15.0, 0.045_593_215_590),
        (60, 20.0, 2.855_849_075_85e-13),
    ] {
        let found = erlang_b(servers, load);
        assert!(
            (found - refused).abs() <= 1e-10 * refused,
            "B({servers}, {load}) = {found}"
        );
    }
    // Published tables give the load that so many servers bear, with four digits.
    for (servers, load, refused) in [
        (5, 1.361, 0.01),
        (10, 4.461, 0.01),
        (10, 3.092, 0.001),
        (20, 12.03, 0.01),
        (50, 37.90, 0.01),
        (100, 84.06, 0.01),
        (100, 75.24, 0.001),
    ] {
        let found = erlang_b(servers, load);
        assert!(
            (found / refused - 1.0).abs() < 2e-3,
            "B({servers}, {load}) = {found}"
        );
    }
}

#[test]
fn servers_are_the_least_that_suffice() {
    for (load, loss, servers) in [
        (10.0, 0.01, 18),
        (20.0, 0.01, 30),
        (50.0, 0.001, 71),
        (100.0, 0.001, 128),
        (0.0, 1e-6, 1),
        (1e-9, 1e-6, 1),
        (64_000.0, 0.01, 63_449),
    ] {
        assert_eq!(servers_for(load, loss), Some(servers), "{load} at {loss}");
        assert!(erlang_b(servers, load) <= loss);
        assert!(erlang_b(servers - 1, load) > loss);
    }
    assert_eq!(servers_for(64_512.0, 1e-6), None);
    assert_eq!(servers_for(f64::INFINITY, 1e-6), None);
    // The smallest share that a float can say.
    assert!(servers_for(10_000.0, f64::MIN_POSITIVE).is_some_and(|servers| servers > 12_000));
    assert_eq!(erlang_b(PORTS_MAX, 1.0), 0.0);
}

#[test]
fn the_example_is_worked_out_step_by_step() {
    let sizing = PLAN.size();
    assert!(near(sizing.used_seconds, 0.16));
    assert!(near(sizing.mean_seconds, 0.95 * 0.16 + 0.05 * 30.0));
    assert!(near(sizing.load, 330.4));
    assert!(near(sizing.load_abandoned, 300.0 / 330.4));
    assert!(near(sizing.load_core, 82.6));
    assert_eq!(sizing.for_loss, Some(128));
    assert_eq!(sizing.for_loss_gathered, Some(415));
    // 82.6 are held, and 50 a second are handed out for 7.08 s.
    assert!(near(sizing.for_rest, 437.0));
    assert_eq!(
        (sizing.per_core, sizing.total, sizing.reason),
        (437, 1748, Reason::Rest)
    );
    assert!((7.08..7.10).contains(&sizing.rest_seconds));
    assert!(sizing.refused <= 1e-6);
    // One address makes it all here: 64 ports for it are too few.
    assert_eq!(sizing.per_client_needed, Some(128));
    assert!(sizing.per_client_refused > 0.2);
    assert_eq!(sizing.range.to_string(), "30000-31747");
}

#[test]
fn a_port_for_many_clients_counts_for_each_of_them() {
    let plan = Plan {
        peers: Peers::Strict,
        ..PLAN
    };
    // From one address it is the same, whoever may share a port.
    assert_eq!(plan.size().for_loss, PLAN.size().for_loss);
    let many = Plan {
        busiest: 1.0 / 500.0,
        ..plan
    };
    let sizing = many.size();
    assert!(near(sizing.load_sized, 82.6 / 500.0));
    assert_eq!(sizing.for_loss, Some(5));
    assert_eq!(sizing.for_loss_gathered, Some(8));
    assert_eq!(sizing.per_client_needed, Some(5));
    assert!(sizing.per_client_refused < 1e-100);
    let proxy = Plan {
        busiest: 0.5,
        peers: Peers::Exclusive,
        ..PLAN
    };
    let sizing = proxy.size();
    assert_eq!(sizing.for_loss, Some(128));
    // Half of the load is the address's, on one core, and an eighth the others'.
    assert_eq!(
        sizing.for_loss_gathered,
        servers_for(330.4 * 0.625, PLAN.loss)
    );
}

#[test]
fn what_decides_is_told() {
    let calm = Plan { rate: 0.1, ..PLAN }.size();
    assert_eq!((calm.per_core, calm.reason), (PER_CORE_MIN, Reason::Floor));
    let slow = Plan {
        rate: 10.0,
        abandoned: 0.5,
        ..PLAN
    };
    let slow = slow.size();
    assert_eq!(
        (Some(slow.per_core), slow.reason),
        (slow.for_loss, Reason::Loss)
    );
    // No ports of services or of outgoing connections, if it is for the rest only.
    let fast = Plan {
        rate: 10_000.0,
        abandoned: 0.0,
        ..PLAN
    };
    let fast = fast.size();
    assert_eq!((fast.total, fast.reason), (22_768, Reason::Rest));
    assert!(fast.rest_seconds < fast.stray_seconds);
    let much = Plan {
        rate: 1e6,
        cores: 7,
        ..PLAN
    };
    let much = much.size();
    assert_eq!((much.total, much.reason), (7 * 9216, Reason::Exhausted));
    assert!(much.refused > 0.9 && much.rest_seconds == 0.0);
    // Where no client can come in time, all wait for the end.
    let late = Plan {
        rtt: Duration::from_secs(60),
        ..PLAN
    };
    assert!(near(late.size().mean_seconds, 30.0));
}

#[test]
fn ranges_stay_clear_of_outgoing_connections() {
    for (total, range) in [
        (1, "30000-30000"),
        (2768, "30000-32767"),
        (2769, "29000-31768"),
        (30_000, "2000-31999"),
        (31_744, "1024-32767"),
        (31_745, "33791-65535"),
        (PORTS_MAX, "1024-65535"),
    ] {
        assert_eq!(place(total).to_string(), range);
        assert_eq!(place(total).count(), total);
    }
}

/// Refused shares of a tenth to a thousandth, with holding times that are all alike, and with some
/// that are two hundred times as long as the others: only their mean matters.
#[test]
fn exclusive_ports_refuse_as_erlang_says() {
    for (ports, load, abandoned, requests) in [
        (5, 2.9, 0.0, 20_000),
        (5, 2.9, 0.05, 30_000),
        (20, 12.0, 0.2, 60_000),
        (20, 12.0, 0.5, 60_000),
        (40, 25.0, 0.6, 150_000),
    ] {
        let traffic = Traffic::of(load, abandoned, 1000);
        let pool = Pool::new(ports, usize::MAX, PeerCheck::Off);
        let found = traffic.on(pool, requests);
        found.agrees_with(
            erlang_b(ports, load),
            &format!("{ports} ports, {traffic:?}"),
        );
    }
}

/// Under `strict`, every address is a loss system of its own.
#[test]
fn shared_ports_refuse_each_client_as_erlang_says() {
    for (ports, cap, clients, load, abandoned, requests) in [
        // The ports are fewer than the client may have, and the other way round.
        (8, 64, 3, 3.0 * 4.0, 0.3, 40_000),
        (64, 8, 3, 3.0 * 4.0, 0.5, 40_000),
        (10, 64, 2, 2.0 * 3.1, 0.5, 120_000),
        (5, 64, 7, 7.0 * 2.9, 0.3, 30_000),
    ] {
        let traffic = Traffic::of(load, abandoned, clients);
        let found = traffic.on(Pool::new(ports, cap, PeerCheck::Strict), requests);
        let expected = erlang_b(ports.min(cap), load / f64::from(clients));
        found.agrees_with(expected, &format!("{ports} ports, {traffic:?}"));
    }
}

#[test]
fn the_recommended_ports_suffice_and_two_thirds_of_them_do_not() {
    for (peers, peer_check, clients) in [
        (Peers::Exclusive, PeerCheck::Subnet, 100),
        (Peers::Strict, PeerCheck::Strict, 2),
    ] {
        let plan = Plan {
            rate: 1.5,
            abandoned: 0.8,
            cores: 1,
            busiest: 1.0 / f64::from(clients),
            peers,
            per_client_max: 1000,
            loss: 1e-3,
            ..PLAN
        };
        let sizing = plan.size();
        assert_eq!(sizing.reason, Reason::Loss);
        let ports = sizing.per_core;
        let traffic = Traffic {
            rate: plan.rate,
            clients,
            used: Duration::from_secs_f64(plan.used_seconds()),
            abandoned: plan.abandoned,
        };
        let enough = traffic.on(Pool::new(ports, 1000, peer_check), 120_000);
        enough.agrees_with(erlang_b(ports, sizing.load_sized), "as recommended");
        assert!(
            enough.refused <= plan.loss + 4.0 * enough.error,
            "{enough:?}"
        );
        let fewer = traffic.on(Pool::new(ports * 2 / 3, 1000, peer_check), 20_000);
        assert!(fewer.refused > 50.0 * plan.loss, "{fewer:?}");
    }
}

/// The other figure: a port that rests is not handed out again while a stray can come.
#[test]
fn ports_rest_as_long_as_planned() {
    for peer_check in [PeerCheck::Off, PeerCheck::Strict] {
        let plan = Plan { cores: 1, ..PLAN };
        let sizing = plan.size();
        assert_eq!(sizing.reason, Reason::Rest);
        let traffic = Traffic {
            rate: plan.rate,
            clients: 1,
            used: Duration::from_secs_f64(plan.used_seconds()),
            abandoned: plan.abandoned,
        };
        let pool = Pool::new(sizing.per_core, usize::MAX, peer_check);
        let found = traffic.on(pool, 20_000);
        assert_eq!(found.refused, 0.0);
        // On average; at random, and because the next port is drawn from several, some rest less.
        let soonest = found.soonest.as_secs_f64() / sizing.stray_seconds;
        assert!(soonest > 0.75, "{peer_check:?}: {found:?}");
    }
}

/// The table of ports as the simulation uses it: the one place that knows how it is called.
struct Pool(Table<()>);

impl Pool {
    fn new(ports: usize, per_client_max: usize, peer_check: PeerCheck) -> Self {
        let rules = Rules {
            timeout: TIMEOUT,
            per_client_max,
            peer_check,
        };
        let ports = u16::try_from(ports).expect("a number of ports");
        let range = PortRange::new(1024, 1023 + ports).expect("a range");
        let mut table = Table::new(&[range], rules, 1);
        let mut numbers: Vec<u16> = (range.first()..=range.last()).collect();
        table.shuffle(&mut numbers);
        for number in numbers {
            table.add(number);
        }
        Self(table)
    }

    fn reserve(&mut self, client: u32, now: Instant) -> Option<(PortIndex, Ticket)> {
        let client = IpAddr::V4(Ipv4Addr::from_bits(0x0a00_0000 + client));
        let reserved = self.0.reserve(client, (), now).ok()?;
        Some((reserved.port, reserved.ticket))
    }

    fn release(&mut self, ticket: Ticket) {
        self.0.release(ticket);
    }

    fn expire(&mut self, now: Instant) {
        self.0.expire(now, |()| {});
    }
}

/// Requests at random (Poisson), each from one of `clients` with the same chance.
#[derive(Debug)]
struct Traffic {
    /// Per second.
    rate: f64,
    clients: u32,
    /// How long a reservation lives whose client comes.
    used: Duration,
    /// The share of those whose client does not.
    abandoned: f64,
}

/// What came of it.
#[derive(Debug)]
struct Found {
    /// The share of requests refused.
    refused: f64,
    /// Its standard error.
    error: f64,
    /// The shortest time from one use of a port to the next.
    soonest: Duration,
}

impl Traffic {
    /// That makes `load` reservations on average, if none is refused.
    fn of(load: f64, abandoned: f64, clients: u32) -> Self {
        let used = Duration::from_millis(160);
        let mean = used.as_secs_f64() * (1.0 - abandoned) + TIMEOUT.as_secs_f64() * abandoned;
        Self {
            rate: load / mean,
            clients,
            used,
            abandoned,
        }
    }

    /// Lets `requests` requests come. The first tenth, in which the pool fills, does not count.
    fn on(&self, mut pool: Pool, requests: usize) -> Found {
        let mut random = Random(0x9e37_79b9_7f4a_7c15);
        let mut now = Instant::now();
        // All are held for the same time, so that they end in the order in which they began.
        let mut used: VecDeque<(Instant, Ticket)> = VecDeque::new();
        let mut handed_out: HashMap<PortIndex, Instant> = HashMap::new();
        let mut soonest = Duration::MAX;
        let mut batches = [0.0; BATCHES];
        let batch = requests / BATCHES;
        for request in 0..batch * (BATCHES + BATCHES / 10) {
            now += Duration::from_secs_f64(-random.share().ln() / self.rate);
            while let Some((_, ticket)) = used.front().copied().filter(|(end, _)| *end <= now) {
                used.pop_front();
                pool.release(ticket);
            }
            pool.expire(now);
            let client = (random.share() * f64::from(self.clients)) as u32;
            let comes = random.share() > self.abandoned;
            match pool.reserve(client, now) {
                Some((port, ticket)) => {
                    if let Some(before) = handed_out.insert(port, now) {
                        soonest = soonest.min(now - before);
                    }
                    if comes {
                        used.push_back((now + self.used, ticket));
                    }
                }
                None => {
                    if let Some(batch) = (request / batch).checked_sub(BATCHES / 10) {
                        batches[batch] += 1.0;
                    }
                }
            }
        }
        let shares = batches.map(|refused| refused / batch as f64);
        let refused = shares.iter().sum::<f64>() / BATCHES as f64;
        // Refusals come in clusters; only the means of long batches are independent.
        let squares: f64 = shares.iter().map(|share| (share - refused).powi(2)).sum();
        Found {
            refused,
            error: (squares / (BATCHES * (BATCHES - 1)) as f64).sqrt(),
            soonest,
        }
    }
}

impl Found {
    fn agrees_with(&self, expected: f64, what: &str) {
        let Self { refused, error, .. } = self;
        assert!(
            (refused - expected).abs() <= 4.0 * error,
            "{what}: refused {refused:.5} ± {error:.5}, not {expected:.5}"
        );
        // A simulation that knows nothing agrees with everything.
        assert!(*error < expected / 4.0, "{what}: ± {error:.5}");
    }
}

/// xorshift64* (Vigna 2016), so that every run is the same.
struct Random(u64);

impl Random {
    /// Evenly distributed in (0, 1].
    fn share(&mut self) -> f64 {
        self.0 ^= self.0 >> 12;
        self.0 ^= self.0 << 25;
        self.0 ^= self.0 >> 27;
        let bits = self.0.wrapping_mul(0x2545_f491_4f6c_dd1d) >> 11;
        (bits + 1) as f64 / (1u64 << 53) as f64
    }
}

const BATCHES: usize = 30;
