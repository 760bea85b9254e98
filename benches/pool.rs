//! What the passive ports cost in the table.
//!
//! Guards: PASV is a table operation, well under a microsecond, and none of the operations costs
//! more with 10 000 ports than with 100.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringftpd::config::{PeerCheck, PortRange};
use ringftpd::data::table::{Rules, Table};

const PORTS: [u16; 3] = [100, 1_000, 10_000];

const RULES: Rules = Rules {
    timeout: Duration::from_secs(30),
    per_client_max: 64,
    peer_check: PeerCheck::Strict,
};

fn client(number: u32) -> IpAddr {
    IpAddr::V4((0x0a00_0000 + number).into())
}

fn idle(ports: u16) -> Table<()> {
    let range = PortRange::new(20_000, 19_999 + ports).expect("a range");
    let mut table = Table::new(&[range], RULES, 1);
    for number in range.first()..=range.last() {
        table.add(number);
    }
    table
}

/// A table in which every port waits for two other clients.
fn busy(ports: u16, now: Instant) -> Table<()> {
    let mut table = idle(ports);
    for number in 0..2 * u32::from(ports) {
        let reserved = table.reserve(client(number), (), now);
        reserved.expect("room for all");
    }
    table
}

fn passive_ports(criterion: &mut Criterion) {
    let now = Instant::now();
    let mut group = criterion.benchmark_group("passive ports");
    for ports in PORTS {
        let mut table = busy(ports, now);
        group.bench_function(BenchmarkId::new("reserve and release", ports), |bencher| {
            bencher.iter(|| {
                table.expire(now, |()| {});
                let reserved = table.reserve(black_box(client(99_999_999)), (), now);
                table.release(reserved.expect("a port").ticket)
            });
        });
        let table = busy(ports, now);
        group.bench_function(BenchmarkId::new("match", ports), |bencher| {
            let mut number = 0;
            bencher.iter(|| {
                number = (number + 1) % u32::from(ports);
                table.find(black_box(number), client(number))
            });
        });
        group.bench_function(BenchmarkId::new("refuse a stranger", ports), |bencher| {
            let mut number = 0;
            bencher.iter(|| {
                number = (number + 1) % u32::from(ports);
                table.find(black_box(number), client(77_777_777))
            });
        });
        let mut table = idle(ports);
        let mut now = now;
        group.bench_function(BenchmarkId::new("reserve and expire", ports), |bencher| {
            bencher.iter(|| {
                black_box(table.reserve(client(1), (), now).expect("a port"));
                now += RULES.timeout;
                table.expire(now, |()| {});
            });
        });
        // What two cores do with their tables, without the message between them.
        let (mut lender, mut borrower) = (idle(ports), Table::<()>::new(&[], RULES, 2));
        group.bench_function(
            BenchmarkId::new("borrow a port and return", ports),
            |bencher| {
                bencher.iter(|| {
                    let port = lender.lend(black_box(1))[0];
                    let number = lender.remove(port);
                    let borrowed = borrower.add(number);
                    borrower.remove(borrowed);
                    lender.add(number)
                });
            },
        );
    }
    group.finish();
}

criterion_group!(benches, passive_ports);
criterion_main!(benches);
