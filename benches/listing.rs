//! A listing of 10 000 entries, from the directory to the last chunk, without a network.
//!
//! Guards: LIST and MLSD at most 18 ms, NLST at most 3.4 ms of CPU for 10 000 entries, with what the
//! session and the socket add to it. Best peers: 25, 28 and 3.4 ms (whole servers).

use std::hint::black_box;
use std::sync::Arc;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ringftpd::config::Files;
use ringftpd::proto::argument::ListArgument;
use ringftpd::proto::listing::FactSet;
use ringftpd::proto::path::VirtualPath;
use ringftpd::proto::rights::RightSet;
use ringftpd::storage::{Format, ListRequest, Root};
use ringftpd::sys::worker::Workers;
use ringftpd::uring::{self, RingOptions};

/// Entries of the directory.
const ENTRIES: usize = 10_000;

fn listings(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    for number in 0..ENTRIES {
        let path = folder.path().join(format!("file-{number:05}.dat"));
        std::fs::File::create(path).expect("a file");
    }
    let mut group = criterion.benchmark_group("listing of 10000");
    group.measurement_time(Duration::from_secs(4));
    for (name, format, options) in [
        ("LIST", Format::Long, ""),
        ("NLST", Format::Names, ""),
        ("MLSD", Format::Facts(FactSet::default()), ""),
        ("LIST *7.dat", Format::Long, "*7.dat"),
    ] {
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                let spent = uring::start(&RingOptions::default(), || async {
                    measure(folder.path(), format, options, rounds).await
                });
                spent.expect("a ring")
            });
        });
    }
    group.finish();
}

async fn measure(
    folder: &std::path::Path,
    format: Format,
    argument: &str,
    rounds: u64,
) -> Duration {
    let root = Root::open(folder, Files::default(), None)
        .await
        .expect("a root");
    let workers = Workers::start("listing", 1, 16).expect("a worker");
    let argument = ListArgument::parse(argument.as_bytes());
    let mut buffer = Vec::with_capacity(64 * 1024);
    let start = Instant::now();
    for _ in 0..rounds {
        let request = ListRequest {
            directory: VirtualPath::root(),
            name: argument.name.map(<[u8]>::to_vec),
            options: argument.options,
            format,
            rights: Arc::new(RightSet::READ_WRITE.into()),
            now: 1_700_000_000,
        };
        let mut listing = root.list(&workers, request).await.expect("a listing");
        while let Some(chunk) = listing.next_chunk(buffer).await.expect("a chunk") {
            buffer = black_box(chunk);
        }
        buffer = Vec::with_capacity(64 * 1024);
    }
    start.elapsed()
}

criterion_group!(benches, listings);
criterion_main!(benches);
