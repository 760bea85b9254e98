//! What the passive ports cost in the table.
//!
//! Guards: PASV is a table operation, well under a microsecond, and costs the same for 100, 1 000
//! and 10 000 ports.

use std::hint::black_box;
use std::net::IpAddr;
use std::time::{Duration, Instant};

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use ringftpd::config::PeerCheck;
use ringftpd::data::table::{Rules, Table};

const PORTS: [usize; 3] = [100, 1_000, 10_000];

const RULES: Rules = Rules {
    timeout: Duration::from_secs(30),
    per_client_max: 64,
    peer_check: PeerCheck::Strict,
};

fn client(number: u32) -> IpAddr {
    IpAddr::V4((0x0a00_0000 + number).into())
}

/// A table in which every port waits for two other clients.
fn busy(ports: usize, now: Instant) -> Table<()> {
    let mut table = Table::new(ports, RULES, 1);
    for number in 0..2 * ports {
        let reserved = table.reserve(client(number as u32), (), now);
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
                let (_, ticket) = reserved.expect("a port");
                table.release(ticket)
            });
        });
        let table = busy(ports, now);
        group.bench_function(BenchmarkId::new("match", ports), |bencher| {
            let mut number = 0;
            bencher.iter(|| {
                number = (number + 1) % ports as u32;
                table.find(black_box(number), client(number))
            });
        });
        let mut table: Table<()> = Table::new(ports, RULES, 1);
        let mut now = now;
        group.bench_function(BenchmarkId::new("reserve and expire", ports), |bencher| {
            bencher.iter(|| {
                black_box(table.reserve(client(1), (), now).expect("a port"));
                now += RULES.timeout;
                table.expire(now, |()| {});
            });
        });
    }
    group.finish();
}

criterion_group!(benches, passive_ports);
criterion_main!(benches);
