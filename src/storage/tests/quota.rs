//! Quotas: exact whoever stores at the same time, and after a crash.

use std::rc::Rc;
use std::sync::Arc;

use super::*;
use crate::config::{FailedUpload, QuotaLimits, UploadPolicy};
use crate::quota::{Quota, Quotas, Usage};
use crate::storage::{UploadKind, UploadRules};
use crate::sys::worker::Workers;

const BYTES: QuotaLimits = QuotaLimits {
    bytes: Some(100),
    files: None,
};

fn workers() -> Workers {
    Workers::start("quota", 2, 64).unwrap()
}

fn make(tree: &Fixture) -> Quotas {
    let state = tree.host("../state");
    let _ = fs::create_dir(&state);
    Quotas::new(&state, workers())
}

async fn begin(
    tree: &Fixture,
    quota: &Arc<Quota>,
    path: &str,
    kind: UploadKind,
) -> Result<Upload, Failure> {
    quota.learn(tree.root.count(&workers())).await?;
    let rules = UploadRules {
        quota: Some(Arc::clone(quota)),
        ..UploadRules::default()
    };
    let mut upload = tree.root.upload(&at(path), kind, rules).await?;
    upload.start().await?;
    Ok(upload)
}

async fn store(
    tree: &Fixture,
    quota: &Arc<Quota>,
    path: &str,
    kind: UploadKind,
    size: usize,
) -> Result<(), Failure> {
    let upload = begin(tree, quota, path, kind).await?;
    let position = upload.position();
    upload.finish(vec![7; size], position).await.0
}

fn stored(quota: &Quota) -> (u64, u64) {
    let usage = quota.usage().0.expect("it has been counted");
    (usage.bytes, usage.files)
}

#[test]
fn nothing_beyond_a_quota_is_stored() {
    run(|tree| async move {
        let quota = make(&tree).of("alice", BYTES);
        let (replace, append) = (UploadKind::Replace, UploadKind::Append);
        fs::write(tree.host("old"), [1; 10]).unwrap();
        store(&tree, &quota, "a", replace, 50).await.unwrap();
        assert_eq!(stored(&quota), (60, 2));
        let refused = Err(Failure::QuotaReached);
        assert_eq!(store(&tree, &quota, "b", replace, 41).await, refused);
        assert_eq!(tree.names(""), ["a", "old"]);
        store(&tree, &quota, "b", replace, 40).await.unwrap();
        assert_eq!(stored(&quota), (100, 3));
        assert_eq!(store(&tree, &quota, "a", append, 1).await, refused);
        assert_eq!(tree.read("a").len(), 50, "a part was appended");
        // What it replaces makes room for it.
        store(&tree, &quota, "a", replace, 50).await.unwrap();
        assert_eq!(store(&tree, &quota, "a", replace, 51).await, refused);
        assert_eq!(stored(&quota), (100, 3));
        store(&tree, &quota, "a", UploadKind::ReplaceFrom(20), 5)
            .await
            .unwrap();
        assert_eq!(stored(&quota), (75, 3));
        tree.root.remove_file(&at("b"), Some(&quota)).await.unwrap();
        assert_eq!(stored(&quota), (35, 2));
        tree.root
            .rename(&at("a"), &at("old"), true, Some(&quota))
            .await
            .unwrap();
        assert_eq!(stored(&quota), (25, 1));
        tree.root
            .rename(&at("old"), &at("old"), true, Some(&quota))
            .await
            .unwrap();
        store(&tree, &quota, "unique", UploadKind::Unique, 5)
            .await
            .unwrap();
        assert_eq!(stored(&quota), (30, 2));
        let few = QuotaLimits {
            bytes: None,
            files: Some(2),
        };
        let quotas = make(&tree);
        let other = quotas.of("bob", few);
        assert_eq!(store(&tree, &other, "c", replace, 0).await, refused);
        assert_eq!(
            store(&tree, &other, "c", UploadKind::Unique, 0).await,
            refused
        );
        assert_eq!(tree.names(""), ["old", "unique"]);
        assert_eq!(quotas.refusals(), 2);
    });
}

/// What others do to the name of a STOU under way, and how that ends.
#[derive(Clone, Copy, Debug)]
enum Meddling {
    Remove,
    Store,
    RemoveAndStore,
    RemoveAndStoreUnique,
    Append,
    RenameAway,
    RenameAwayAndStore,
    RenameOver,
}

/// Does it, and says whether a file of others has the name `k` afterwards.
async fn meddle(tree: &Fixture, quota: &Arc<Quota>, how: Meddling) -> bool {
    use Meddling::*;
    let root = &tree.root;
    let store = |kind| async move { store(tree, quota, "k", kind, 5).await.is_ok() };
    match how {
        Remove | RemoveAndStore | RemoveAndStoreUnique => {
            let _ = root.remove_file(&at("k"), Some(quota)).await;
        }
        RenameAway | RenameAwayAndStore => {
            let _ = root.rename(&at("k"), &at("j"), true, Some(quota)).await;
        }
        Store | Append | RenameOver => {}
    }
    match how {
        Remove | RenameAway => false,
        Store | RemoveAndStore | RenameAwayAndStore => store(UploadKind::Replace).await,
        Append => store(UploadKind::Append).await,
        // Another name, as long as the first one has its own.
        RemoveAndStoreUnique => {
            store(UploadKind::Unique).await && tree.names("").contains(&"k".into())
        }
        RenameOver => {
            let renamed = root.rename(&at("m"), &at("k"), true, Some(quota)).await;
            renamed.is_ok()
        }
    }
}

#[test]
fn a_stou_whose_name_others_take_destroys_nothing_and_shifts_no_figure() {
    use Meddling::*;
    let rows = [
        Remove,
        Store,
        RemoveAndStore,
        RemoveAndStoreUnique,
        Append,
        RenameAway,
        RenameAwayAndStore,
        RenameOver,
    ];
    for uploads in [UploadPolicy::Whole, UploadPolicy::InPlace] {
        for failed_upload in [FailedUpload::Discard, FailedUpload::Keep] {
            for (how, ends) in rows.into_iter().flat_map(|how| [(how, true), (how, false)]) {
                let settings = Files {
                    uploads,
                    failed_upload,
                    ..Files::default()
                };
                run_with(settings, |tree| async move {
                    let what = format!("{settings:?} {how:?}, ends: {ends}");
                    let quota = make(&tree).of("alice", BYTES);
                    store(&tree, &quota, "m", UploadKind::Replace, 5)
                        .await
                        .unwrap();
                    let mut upload = begin(&tree, &quota, "k", UploadKind::Unique).await.unwrap();
                    assert_eq!(upload.name(), b"k");
                    upload.write(vec![1; 7], 0).await.0.unwrap();
                    let is_taken = meddle(&tree, &quota, how).await;
                    let is_stored = if ends {
                        upload.finish(vec![1; 3], 7).await.0.is_ok()
                    } else {
                        upload.abandon().await;
                        false
                    };
                    if is_taken {
                        // One that is written in place may have been renamed.
                        let is_whole = uploads == UploadPolicy::Whole;
                        assert!(!is_stored || !is_whole, "{what}: two have one name");
                        assert_eq!(tree.read("k").len(), 5, "{what}");
                    }
                    let names = tree.names("");
                    let sizes = names.iter().map(|name| tree.read(name).len() as u64);
                    assert_eq!(
                        stored(&quota),
                        (sizes.sum(), names.len() as u64),
                        "{what}: {names:?}"
                    );
                });
            }
        }
    }
}

#[test]
fn uploads_at_the_same_time_share_a_quota() {
    run(|tree| async move {
        let quota = make(&tree).of("alice", BYTES);
        let mut one = begin(&tree, &quota, "one", UploadKind::Replace)
            .await
            .unwrap();
        let mut two = begin(&tree, &quota, "two", UploadKind::Replace)
            .await
            .unwrap();
        let (written, _) = one.write(vec![1; 60], 0).await;
        assert_eq!(written, Ok(()));
        let (written, _) = two.write(vec![1; 41], 0).await;
        assert_eq!(written, Err(Failure::QuotaReached));
        let (written, _) = two.write(vec![1; 40], 0).await;
        assert_eq!(written, Ok(()));
        one.abandon().await;
        assert_eq!(stored(&quota), (0, 0));
        let (ended, _) = two.finish(vec![1; 60], 40).await;
        assert_eq!(ended, Ok(()));
        assert_eq!(stored(&quota), (100, 1));
    });
}

/// Sessions that store, replace, remove and rename the same names: what is counted is what is there.
#[test]
fn figures_stay_exact_whoever_changes_the_tree() {
    run(|tree| async move {
        let tree = Rc::new(tree);
        let quota = make(&tree).of(
            "alice",
            QuotaLimits {
                bytes: Some(1 << 20),
                files: Some(6),
            },
        );
        let tasks: Vec<_> = (0..8usize)
            .map(|task| {
                let (tree, quota) = (Rc::clone(&tree), Arc::clone(&quota));
                uring::spawn(async move {
                    for round in 0..40usize {
                        let (name, other) = (
                            format!("file-{}", (task + round) % 5),
                            format!("file-{}", (task * 3 + round) % 7),
                        );
                        let size = (task * 31 + round * 17) % 500;
                        // Some fail, since somebody else was there before.
                        let _ = match (task + round) % 5 {
                            0 => tree.root.remove_file(&at(&name), Some(&quota)).await,
                            1 => {
                                tree.root
                                    .rename(&at(&name), &at(&other), true, Some(&quota))
                                    .await
                            }
                            2 => store(&tree, &quota, &name, UploadKind::Append, size).await,
                            _ => store(&tree, &quota, &name, UploadKind::Replace, size).await,
                        };
                    }
                })
            })
            .collect();
        for task in tasks {
            task.await.unwrap();
        }
        let counted = tree.root.count(&workers()).await.unwrap();
        assert_eq!(quota.usage().0, Some(counted));
        assert!(counted.files > 0, "nothing was stored");
    });
}

#[test]
fn figures_are_kept_and_counted_again_after_a_crash() {
    run(|tree| async move {
        let quotas = make(&tree);
        let quota = quotas.of("alice", BYTES);
        store(&tree, &quota, "a", UploadKind::Replace, 50)
            .await
            .unwrap();
        assert_eq!(
            quotas.report().unwrap()["alice"],
            Some(Usage {
                bytes: 50,
                files: 1
            })
        );
        drop(quota);
        let closed = Some(Usage {
            bytes: 50,
            files: 1,
        });
        while quotas.report().unwrap()["alice"] != closed {
            uring::pause().await;
        }
        // What others do is not seen ...
        fs::write(tree.host("others"), [1; 20]).unwrap();
        let quota = quotas.of("alice", BYTES);
        quota.learn(tree.root.count(&workers())).await.unwrap();
        assert_eq!(stored(&quota), (50, 1));
        // ... until it is counted again: because somebody wants it,
        quotas.forget("alice").unwrap();
        quota.learn(tree.root.count(&workers())).await.unwrap();
        assert_eq!(stored(&quota), (70, 2));
        // or since the server that had it open is gone.
        fs::write(tree.host("more"), [1; 5]).unwrap();
        let after_a_crash = make(&tree).of("alice", BYTES);
        after_a_crash
            .learn(tree.root.count(&workers()))
            .await
            .unwrap();
        assert_eq!(stored(&after_a_crash), (75, 3));
    });
}

#[test]
fn a_tree_is_counted_without_its_links() {
    run(|tree| async move {
        fs::create_dir_all(tree.host("a/b/c")).unwrap();
        fs::write(tree.host("a/one"), [1; 3]).unwrap();
        fs::write(tree.host("a/b/c/two"), [1; 4]).unwrap();
        std::os::unix::fs::symlink("/", tree.host("a/up")).unwrap();
        std::os::unix::fs::symlink("one", tree.host("a/link")).unwrap();
        let counted = tree.root.count(&workers()).await.unwrap();
        assert_eq!(counted, Usage { bytes: 7, files: 2 });
    });
}
