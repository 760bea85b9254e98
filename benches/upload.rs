//! What an upload of 4 KiB costs in the tree, without a network: begun, written, ended, removed.
//!
//! Guards: STOR of 4 KiB at most 90 µs of CPU with its session and its data connection.

use std::path::Path;
use std::time::{Duration, Instant};

use criterion::{Criterion, criterion_group, criterion_main};
use ringftpd::config::{Files, UploadPolicy};
use ringftpd::proto::path::VirtualPath;
use ringftpd::storage::{Root, UploadKind, UploadRules};
use ringftpd::uring::{self, RingOptions};

fn uploads(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut group = criterion.benchmark_group("upload of 4 KiB");
    group.measurement_time(Duration::from_secs(3));
    for (name, uploads, is_new) in [
        ("whole, new", UploadPolicy::Whole, true),
        ("whole, replacing", UploadPolicy::Whole, false),
        ("in place, new", UploadPolicy::InPlace, true),
        ("in place, replacing", UploadPolicy::InPlace, false),
    ] {
        let settings = Files {
            uploads,
            ..Files::default()
        };
        group.bench_function(name, |bencher| {
            bencher.iter_custom(|rounds| {
                uring::start(&RingOptions::default(), || {
                    measure(folder.path(), settings, is_new, rounds)
                })
                .expect("a ring")
            });
        });
    }
    group.finish();
}

async fn measure(folder: &Path, settings: Files, is_new: bool, rounds: u64) -> Duration {
    let root = Root::open(folder, settings, None).await.expect("a root");
    let path = VirtualPath::root().join(b"file").expect("a path");
    let mut spent = Duration::ZERO;
    for _ in 0..rounds {
        let bytes = vec![0; 4096];
        let start = Instant::now();
        let upload = root
            .upload(&path, UploadKind::Replace, UploadRules::default())
            .await;
        let mut upload = upload.expect("an upload");
        upload.start().await.expect("a file");
        let (written, _) = uring::write_all_at(upload.file(), bytes, 0).await;
        written.expect("space");
        let end = upload.position();
        let (ended, _) = upload.finish(Vec::new(), end).await;
        ended.expect("a file");
        spent += start.elapsed();
        if is_new {
            root.remove_file(&path, None).await.expect("a file");
        }
    }
    spent
}

criterion_group!(benches, uploads);
criterion_main!(benches);
