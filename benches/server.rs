//! What the whole server costs: the CPU time of its process for logins, commands, transfers and
//! listings over loopback.
//!
//! The times shown are not those on the clock: they are the CPU time of the server's process, all
//! its threads and the kernel's workers of its ring together, also of those that have ended
//! (clock_getcpuclockid(3)). So neither the client, on another CPU, nor other processes add to them.
//! What the kernel does for loopback in softirqs counts for whom it happens to interrupt.

#[path = "client/mod.rs"]
mod client;
#[path = "../tests/common/mod.rs"]
mod common;

use std::fs::{self, File};
use std::path::Path;
use std::time::Duration;

use criterion::measurement::WallTime;
use criterion::{
    Bencher, BenchmarkGroup, BenchmarkId, Criterion, SamplingMode, Throughput, criterion_group,
    criterion_main,
};
use nix::time::{clock_getcpuclockid, clock_gettime};
use nix::unistd::Pid;
use ringftpd::sys::affinity;

use client::fleet::{self, Counts, Download, Fleet};
use client::{Result, Target, Tls, Via, pattern};
use common::{Setup, TestServer, passive_ports};

/// A server on the last CPU, and who its clients are.
struct Stage {
    server: TestServer,
    target: Target,
    /// The same over TLS 1.3.
    over_tls: Target,
}

impl Stage {
    fn new() -> Self {
        // Tests may use any folder; here no disk shall be measured. Fails only the second time.
        let _ = tempfile::env::override_temp_dir(Path::new("/dev/shm"));
        let cpus = affinity::allowed_cpus().expect("the CPUs");
        let (first, last) = (cpus[0], cpus[cpus.len() - 1]);
        let server = Setup::new()
            .tls()
            .set("server.cores", format!("\"{last}\""))
            .set("data.passive_ports", format!("\"{}\"", passive_ports(64)))
            .set("limits.sessions_per_ip", 0)
            .set("log.level", "\"warn\"")
            .start();
        // Not earlier: the server has the CPUs that this process had.
        affinity::pin(first).expect("a CPU");
        fs::write(server.path("small"), content(SMALL as usize)).expect("a file");
        fs::write(server.path("big"), vec![b'x'; BIG as usize]).expect("a file");
        fs::create_dir(server.path("many")).expect("a folder");
        for number in 0..ENTRIES {
            let name = format!("many/release-notes-{number:06}.txt");
            File::create(server.path(&name)).expect("a file");
        }
        let target = Target {
            address: server.address(),
            user: "anonymous".into(),
            password: "bench@".into(),
            tls: None,
            deadline: Duration::from_secs(10),
        };
        let version = Tls::version("1.3").expect("a version");
        let tls = Tls::new(version, "localhost").expect("a client of TLS");
        let over_tls = Target {
            tls: Some(tls),
            ..target.clone()
        };
        Self {
            server,
            target,
            over_tls,
        }
    }

    fn fleet(&self, sessions: usize, via: Via) -> Fleet {
        Fleet::log_in(&self.target, sessions, via).expect("sessions")
    }

    fn tls_fleet(&self, sessions: usize) -> Fleet {
        Fleet::log_in(&self.over_tls, sessions, Via::Epsv).expect("sessions")
    }

    /// The CPU time of the server for so many units, of which a step has some.
    fn measure(
        &self,
        units: u64,
        per_step: usize,
        mut step: impl FnMut() -> Result<()>,
    ) -> Duration {
        let steps = units.div_ceil(per_step as u64);
        let before = self.cpu_time();
        for _ in 0..steps {
            step().expect("a server that does what it is asked for");
        }
        let used = self.cpu_time() - before;
        used.mul_f64(units as f64 / (steps * per_step as u64) as f64)
    }

    fn cpu_time(&self) -> Duration {
        let pid = i32::try_from(self.server.pid()).expect("a process number");
        let clock = clock_getcpuclockid(Pid::from_raw(pid)).expect("the clock of a child");
        clock_gettime(clock).expect("the clock of a child").into()
    }
}

fn content(size: usize) -> Vec<u8> {
    let mut content = vec![0; size];
    pattern::fill(&mut content, 0);
    content
}

fn server(criterion: &mut Criterion) {
    let stage = Stage::new();
    commands(criterion, &stage);
    small_transfers(criterion, &stage);
    bulk(criterion, &stage);
    listings(criterion, &stage);
    tls(criterion, &stage);
    tls_bulk(criterion, &stage);
}

/// Guards: a login and its QUIT cost at most 60 µs with 32 at a time, a NOOP on 64 connections at
/// most 6.5 µs.
fn commands(criterion: &mut Criterion, stage: &Stage) {
    let mut group = group(criterion, "CPU time of the server, commands");
    group.bench_function("login and QUIT, 32 at a time", |bencher| {
        let mut counts = Counts::default();
        let mut step = || fleet::login_and_quit(&stage.target, 32, &mut counts);
        bencher.iter_custom(|units| stage.measure(units, 32, &mut step));
    });
    group.bench_function("NOOP, 64 connections", |bencher| {
        let mut fleet = stage.fleet(64, Via::Epsv);
        bencher
            .iter_custom(|units| stage.measure(units, 64, || fleet.command(b"NOOP\r\n", &[200])));
        fleet.quit().expect("QUIT");
    });
    group.finish();
}

/// Guards: with everything that belongs to it, from the request for a data connection to the 226, a
/// RETR of 4 KiB costs at most 50 µs with 32 sessions and 98 µs with one, a STOR at most 90 µs with
/// 32. One session in active mode costs what the connection out costs more, and no wait.
fn small_transfers(criterion: &mut Criterion, stage: &Stage) {
    let mut group = group(criterion, "CPU time of the server, 4 KiB");
    let content = content(SMALL as usize);
    for (via, sessions) in [(Via::Epsv, 32), (Via::Pasv, 1), (Via::Eprt, 1)] {
        let way = format!("{}, {sessions}", via.name());
        group.bench_function(BenchmarkId::new("RETR", &way), |bencher| {
            let mut fleet = stage.fleet(sessions, via);
            let mut step = || fleet.download(b"RETR small\r\n", whole(SMALL)).map(drop);
            bencher.iter_custom(|units| stage.measure(units, sessions, &mut step));
            fleet.quit().expect("QUIT");
        });
        group.bench_function(BenchmarkId::new("STOR", &way), |bencher| {
            let mut fleet = stage.fleet(sessions, via);
            let lines = (0..sessions).map(|index| format!("STOR up{index}\r\n").into_bytes());
            let lines: Vec<Vec<u8>> = lines.collect();
            let mut step = || fleet.upload(&lines, &content, SMALL).map(drop);
            bencher.iter_custom(|units| stage.measure(units, sessions, &mut step));
            fleet.quit().expect("QUIT");
        });
    }
    group.finish();
}

/// Guards: a download from memory costs what sendfile costs, within 5 % (a GiB at most 0.17 s alone
/// and 0.21 s beside seven others), and an upload of a new file to memory at most 0.45 s for a GiB.
fn bulk(criterion: &mut Criterion, stage: &Stage) {
    let mut group = group(criterion, "CPU time of the server, 256 MiB");
    group.sampling_mode(SamplingMode::Flat);
    for sessions in [1, 8] {
        group.throughput(Throughput::Bytes(BIG * sessions as u64));
        group.bench_function(BenchmarkId::new("RETR", sessions), |bencher| {
            let mut fleet = stage.fleet(sessions, Via::Epsv);
            let mut step = || fleet.download(b"RETR big\r\n", whole(BIG)).map(drop);
            bencher.iter_custom(|rounds| stage.measure(rounds, 1, &mut step));
            fleet.quit().expect("QUIT");
        });
    }
    group.throughput(Throughput::Bytes(BIG));
    group.bench_function(BenchmarkId::new("STOR", 1), |bencher| {
        store_big(bencher, stage, stage.fleet(1, Via::Epsv));
    });
    group.finish();
}

fn store_big(bencher: &mut Bencher<'_>, stage: &Stage, mut fleet: Fleet) {
    let content = content(pattern::PERIOD);
    let lines = [b"STOR big-up\r\n".to_vec()];
    let mut step = || fleet.upload(&lines, &content, BIG).map(drop);
    let mut alone = || {
        // Freeing what it replaces would cost as much again. The first time there is nothing.
        let _ = fs::remove_file(stage.server.path("big-up"));
        stage.measure(1, 1, &mut step)
    };
    bencher.iter_custom(|rounds| (0..rounds).map(|_| alone()).sum());
    fleet.quit().expect("QUIT");
}

/// Guards: LIST and MLSD of 10 000 entries cost at most 18 ms, NLST at most 3.4 ms.
fn listings(criterion: &mut Criterion, stage: &Stage) {
    let mut group = group(criterion, "CPU time of the server, 10 000 entries");
    group.throughput(Throughput::Elements(ENTRIES));
    for verb in ["LIST", "MLSD", "NLST"] {
        group.bench_function(verb, |bencher| {
            let mut fleet = stage.fleet(1, Via::Epsv);
            fleet.command(b"CWD many\r\n", &[250]).expect("a folder");
            let line = format!("{verb}\r\n").into_bytes();
            let mut listing = Download {
                size: None,
                lowat: 1,
            };
            let mut step = || {
                let bytes = fleet.download(&line, listing)?;
                // As long as the first one.
                listing.size = Some(bytes);
                Ok(())
            };
            bencher.iter_custom(|rounds| stage.measure(rounds, 1, &mut step));
            fleet.quit().expect("QUIT");
        });
    }
    group.finish();
}

/// Guards: with a certificate on P-256 a login over TLS 1.3 and its QUIT cost at most 300 µs with 32 at
/// a time, and a RETR of 4 KiB, whose data connection resumes the session, at most 150 µs.
fn tls(criterion: &mut Criterion, stage: &Stage) {
    let mut group = group(criterion, "CPU time of the server, TLS");
    group.bench_function("login and QUIT, 32 at a time", |bencher| {
        let mut counts = Counts::default();
        let mut step = || fleet::login_and_quit(&stage.over_tls, 32, &mut counts);
        bencher.iter_custom(|units| stage.measure(units, 32, &mut step));
    });
    group.bench_function("RETR of 4 KiB, 32 sessions", |bencher| {
        let mut fleet = stage.tls_fleet(32);
        let mut step = || fleet.download(b"RETR small\r\n", whole(SMALL)).map(drop);
        bencher.iter_custom(|units| stage.measure(units, 32, &mut step));
        fleet.quit().expect("QUIT");
    });
    group.finish();
}

/// Guards: over TLS 1.3 with AES-128-GCM a GiB from memory costs at most 0.5 s, a GiB to memory at most
/// 0.6 s.
fn tls_bulk(criterion: &mut Criterion, stage: &Stage) {
    let mut group = group(criterion, "CPU time of the server, 256 MiB over TLS");
    group.sampling_mode(SamplingMode::Flat);
    group.throughput(Throughput::Bytes(BIG));
    group.bench_function("RETR", |bencher| {
        let mut fleet = stage.tls_fleet(1);
        let mut step = || fleet.download(b"RETR big\r\n", whole(BIG)).map(drop);
        bencher.iter_custom(|rounds| stage.measure(rounds, 1, &mut step));
        fleet.quit().expect("QUIT");
    });
    group.bench_function("STOR", |bencher| {
        store_big(bencher, stage, stage.tls_fleet(1))
    });
    group.finish();
}

fn group<'a>(criterion: &'a mut Criterion, name: &str) -> BenchmarkGroup<'a, WallTime> {
    let mut group = criterion.benchmark_group(name);
    group.sample_size(10);
    group.warm_up_time(Duration::from_millis(500));
    group.measurement_time(Duration::from_millis(2500));
    group
}

fn whole(size: u64) -> Download {
    Download {
        size: Some(size),
        lowat: size.min(256 << 10),
    }
}

const SMALL: u64 = 4096;
const BIG: u64 = 256 << 20;
const ENTRIES: u64 = 10_000;

criterion_group!(benches, server);
criterion_main!(benches);
