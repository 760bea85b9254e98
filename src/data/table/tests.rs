//! What the table promises, and what it must not keep.

use super::*;

const RULES: Rules = Rules {
    timeout: Duration::from_secs(30),
    per_client_max: 64,
    peer_check: PeerCheck::Strict,
};

fn client(number: u32) -> IpAddr {
    IpAddr::V4((0x7f00_0000 + number).into())
}

fn range(first: u16, last: u16) -> PortRange {
    PortRange::new(first, last).expect("a range")
}

fn table(ports: u16, rules: Rules) -> Table<u32> {
    let range = range(2000, 1999 + ports);
    let mut table = Table::new(&[range], rules, 42);
    let mut numbers: Vec<u16> = (range.first()..=range.last()).collect();
    table.shuffle(&mut numbers);
    for number in numbers {
        table.add(number);
    }
    table
}

fn found(table: &Table<u32>, port: PortIndex, peer: IpAddr) -> Option<u32> {
    let ticket = table.find(port, peer)?;
    table.state(ticket).copied()
}

/// A reservation that there must be.
fn reserve(table: &mut Table<u32>, number: u32, state: u32, now: Instant) -> Reserved {
    table.reserve(client(number), state, now).expect("a port")
}

#[test]
fn a_port_serves_many_clients_and_each_client_many_ports() {
    let now = Instant::now();
    let mut table = table(100, RULES);
    // 2 000 reservations on 100 ports from 40 addresses, 50 each.
    let mut tickets = Vec::new();
    for number in 0..2000 {
        let reserved = reserve(&mut table, number % 40, number, now);
        assert_eq!(
            found(&table, reserved.port, client(number % 40)),
            Some(number)
        );
        tickets.push(reserved.ticket);
    }
    assert_eq!(table.reserved(), 2000);
    assert_eq!(table.ranges()[0].high_water, 2000);
    assert_eq!(table.top_clients(2), [(client(0), 50), (client(1), 50)]);
    for (number, ticket) in tickets.into_iter().enumerate() {
        assert_eq!(table.release(ticket), Some(number as u32));
        assert_eq!(table.release(ticket), None);
    }
    assert_eq!((table.reserved(), table.idle()), (0, 100));
}

#[test]
fn a_client_gets_no_port_twice_at_a_time() {
    let now = Instant::now();
    let mut table = table(10, RULES);
    let mut ports = std::collections::HashSet::new();
    for _ in 0..10 {
        assert!(ports.insert(reserve(&mut table, 1, 7, now).port));
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
    let first = reserve(&mut table, 1, 7, now).ticket;
    reserve(&mut table, 1, 7, now);
    reserve(&mut table, 1, 7, now);
    assert_eq!(table.reserve(client(1), 7, now), Err(Refusal::ClientLimit));
    table.release(first);
    assert!(table.reserve(client(1), 7, now).is_ok());
}

#[test]
fn an_ipv6_network_holds_as_many_ports_as_one_client() {
    let now = Instant::now();
    let rules = Rules {
        per_client_max: 1,
        ..RULES
    };
    let mut table = table(10, rules);
    let address = |text: &str| text.parse::<IpAddr>().expect("an address");
    let reserved = table
        .reserve(address("2001:db8::1"), 7, now)
        .expect("a port");
    assert_eq!(
        table.reserve(address("2001:db8::2"), 7, now),
        Err(Refusal::ClientLimit)
    );
    assert!(table.reserve(address("2001:db8:0:1::1"), 7, now).is_ok());
    // A neighbour in the network is still not the client.
    assert_eq!(table.find(reserved.port, address("2001:db8::2")), None);
}

#[test]
fn a_stranger_finds_nothing() {
    let now = Instant::now();
    let mut table = table(10, RULES);
    let port = reserve(&mut table, 1, 7, now).port;
    assert_eq!(found(&table, port, client(2)), None);
    assert_eq!(found(&table, port + 1, client(1)), None);
    assert_eq!(found(&table, 1000, client(1)), None);
    assert_eq!(found(&table, port, client(1)), Some(7));
}

#[test]
fn an_abandoned_reservation_ends_in_time() {
    let mut now = Instant::now();
    let mut table = table(1, RULES);
    let old = reserve(&mut table, 1, 7, now);
    assert!(!old.is_suspect);
    assert_eq!(table.reserve(client(1), 7, now), Err(Refusal::Dry));
    now += RULES.timeout;
    let mut expired = Vec::new();
    table.expire(now, |state| expired.push(state));
    assert_eq!(expired, [7]);
    assert_eq!(found(&table, old.port, client(1)), None);
    // Used again, it is another reservation: the old one's end does not end it.
    let new = reserve(&mut table, 1, 8, now);
    assert_ne!(old.ticket, new.ticket);
    assert_eq!(table.release(old.ticket), None);
    assert_eq!(found(&table, old.port, client(1)), Some(8));
    // And the old one's connection may still come.
    assert!(new.is_suspect);
    let ranges = table.ranges();
    assert_eq!((ranges[0].handed_out, ranges[0].abandoned), (2, 1));
}

#[test]
fn a_port_whose_client_came_is_not_suspect() {
    let now = Instant::now();
    let mut table = table(1, RULES);
    let used = reserve(&mut table, 1, 7, now);
    table.meet(used.ticket, now + Duration::from_millis(5));
    table.meet(used.ticket, now + Duration::from_secs(5));
    table.release(used.ticket);
    assert!(!reserve(&mut table, 1, 7, now).is_suspect);
    let ranges = table.ranges();
    assert_eq!((ranges[0].used, ranges[0].abandoned), (1, 0));
    assert_eq!(table.waits().count(), 1);
    assert_eq!(table.waits().mean_ms(), Some(5.0));
}

#[test]
fn ports_are_handed_out_in_turn_but_in_no_order() {
    let now = Instant::now();
    let mut table = table(1000, RULES);
    let mut last_use = vec![None; 1000];
    let mut ascending = 0;
    let mut previous = 0;
    for number in 0..10_000 {
        let reserved = reserve(&mut table, 1, 7, now);
        table.release(reserved.ticket);
        let port = reserved.number - 2000;
        if let Some(before) = last_use[usize::from(port)].replace(number) {
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
        let mut before = reserve(&mut table, 1, 0, now);
        for _ in 0..1000 {
            table.release(before.ticket);
            let next = reserve(&mut table, 1, 0, now);
            assert_ne!(next.port, before.port, "of {ports}");
            before = next;
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
        let rules = Rules {
            peer_check,
            ..RULES
        };
        let mut table = table(2, rules);
        let first = reserve(&mut table, 1, 7, now);
        assert_eq!(found(&table, first.port, peer), Some(7), "{peer_check:?}");
        let other = reserve(&mut table, 2, 7, now);
        assert_ne!(first.port, other.port);
        assert_eq!(table.reserve(client(3), 7, now), Err(Refusal::Dry));
        table.release(first.ticket);
        assert_eq!(reserve(&mut table, 3, 7, now).port, first.port);
    }
    let rules = Rules {
        peer_check: PeerCheck::Subnet,
        ..RULES
    };
    let mut table = table(2, rules);
    let port = reserve(&mut table, 1, 7, now).port;
    assert_eq!(found(&table, port, client(99_999)), None);
}

#[test]
fn the_only_reservation_of_a_port_is_known() {
    let now = Instant::now();
    let mut table = table(1, RULES);
    assert_eq!(table.only(0), None);
    let tickets: Vec<Ticket> = (0..5)
        .map(|number| reserve(&mut table, number, number, now).ticket)
        .collect();
    assert_eq!(table.only(0), None);
    for ticket in [0, 4, 1, 3] {
        assert_eq!(table.only(0), None);
        table.release(tickets[ticket]);
    }
    assert_eq!(table.only(0), Some(tickets[2]));
    assert_eq!(table.only(7), None);
}

#[test]
fn a_retired_port_goes_with_its_last_reservation() {
    let now = Instant::now();
    let mut table = table(3, RULES);
    let reserved = reserve(&mut table, 1, 7, now);
    let idle = (0..3).find(|port| *port != reserved.port).expect("another");
    table.retire(idle);
    assert_eq!(table.take_departed(), [idle]);
    table.remove(idle);
    table.retire(reserved.port);
    table.retire(reserved.port);
    assert!(table.take_departed().is_empty() && table.is_any_leaving());
    assert_eq!(found(&table, reserved.port, client(1)), Some(7));
    for other in 2..20 {
        assert_ne!(reserve(&mut table, other, 7, now).port, reserved.port);
    }
    assert_eq!(table.ranges()[0].leaving, 1);
    table.release(reserved.ticket);
    assert_eq!(table.take_departed(), [reserved.port]);
    assert_eq!(table.remove(reserved.port), reserved.number);
    assert_eq!(table.ranges()[0].ports, 1);
    assert_eq!(table.index_of(reserved.number), None);
    // Its place in the table is free for another one.
    assert_eq!(table.add(4000), reserved.port);
    let report = table.ranges();
    assert_eq!((report[1].first, report[1].ports), (0, 1), "{report:?}");
}

#[test]
fn a_retired_port_can_be_kept_after_all() {
    let now = Instant::now();
    let mut table = table(2, RULES);
    let reserved = reserve(&mut table, 1, 7, now);
    for port in [0, 1] {
        table.retire(port);
        table.keep(port);
        table.keep(port);
    }
    assert!(!table.is_any_leaving());
    assert!(table.take_departed().is_empty());
    let other = reserve(&mut table, 1, 8, now);
    assert_ne!(other.port, reserved.port);
    table.release(reserved.ticket);
    table.release(other.ticket);
    assert_eq!(table.idle(), 2);
    assert!(table.take_departed().is_empty());
}

#[test]
fn half_of_what_is_idle_is_lent_and_never_the_last_port() {
    let now = Instant::now();
    let mut full = table(10, RULES);
    assert_eq!(full.lend(100).len(), 5);
    assert_eq!(full.lend(2).len(), 2);
    for number in 0..9 {
        reserve(&mut full, number, 7, now);
    }
    let lent = full.lend(100);
    assert_eq!(lent.len(), 1);
    assert_eq!(full.only(lent[0]), None);
    full.remove(lent[0]);
    assert!(full.lend(100).is_empty());
    assert!(table(1, RULES).lend(1).is_empty());
    assert!(Table::<u32>::new(&[], RULES, 1).lend(1).is_empty());
}

#[test]
fn a_table_without_ports_is_dry() {
    let mut table = Table::new(&[], RULES, 1);
    let now = Instant::now();
    assert_eq!(table.reserve(client(1), 7, now), Err(Refusal::Dry));
    let port = table.add(5000);
    assert_eq!(reserve(&mut table, 1, 7, now).port, port);
}

#[test]
fn rules_change_under_reservations() {
    let mut now = Instant::now();
    let mut table = table(2, RULES);
    let kept = reserve(&mut table, 1, 7, now);
    let exclusive = Rules {
        peer_check: PeerCheck::Off,
        timeout: Duration::from_secs(5),
        ..RULES
    };
    table.set_rules(exclusive, now);
    // It still waits for its client, and for that one only.
    assert_eq!(found(&table, kept.port, client(1)), Some(7));
    assert_eq!(found(&table, kept.port, client(2)), None);
    let other = reserve(&mut table, 2, 8, now);
    assert_ne!(other.port, kept.port);
    assert_eq!(table.reserve(client(3), 9, now), Err(Refusal::Dry));
    // Back again: ports are shared, but not one that waits for anybody.
    table.set_rules(RULES, now);
    assert_eq!(found(&table, other.port, client(77)), Some(8));
    assert!(table.reserve(client(4), 9, now).is_ok());
    // The shorter time held for both of them.
    now += Duration::from_secs(5);
    let mut expired = Vec::new();
    table.expire(now, |state| expired.push(state));
    assert_eq!(expired, [7, 8]);
}

#[test]
fn figures_of_a_range_outlive_a_change_of_the_others() {
    let now = Instant::now();
    let mut table: Table<u32> = Table::new(&[range(2000, 2009), range(3000, 3009)], RULES, 1);
    for number in (2000..2010).chain(3000..3010) {
        table.add(number);
    }
    for number in 0..40 {
        reserve(&mut table, number, 7, now);
    }
    let before = table.ranges();
    assert_eq!(before.iter().map(|range| range.reserved).sum::<usize>(), 40);
    table.set_ranges(&[range(3000, 3009), range(4000, 4009)]);
    let after = table.ranges();
    assert_eq!(after[0], before[1]);
    assert_eq!((after[1].first, after[1].ports), (4000, 0));
    assert_eq!(
        (after[2].ports, after[2].reserved),
        (10, before[0].reserved)
    );
}

#[test]
fn a_hundred_thousand_reservations_leave_nothing_behind() {
    let mut now = Instant::now();
    let mut table = table(100, RULES);
    for number in 0..100_000 {
        let ticket = reserve(&mut table, number % 7, 7, now).ticket;
        table.expire(now, |_| {});
        // Some are used, some are abandoned.
        if number % 3 > 0 {
            table.release(ticket);
        }
        now += Duration::from_millis(500);
    }
    now += RULES.timeout;
    table.expire(now, |_| {});
    let left = (table.reserved(), table.due.len(), table.clients.len());
    assert_eq!(left, (0, 0, 0));
    assert!(table.expected.is_empty());
    assert!(table.places.len() < 100, "{} places", table.places.len());
}
