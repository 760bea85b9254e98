//! Uploads: what they leave, when it is seen, and who may write at the same time.

use std::io::Write;
use std::os::unix::fs::PermissionsExt;
use std::process::Command;

use nix::fcntl::{FcntlArg, OFlag};

use super::*;
use crate::config::{FailedUpload, UploadPolicy};
use crate::storage::{UploadKind, UploadRules};
use crate::sys::file;
use crate::uring::PipePool;

const KEEP: Files = Files {
    umask: 0o022,
    uploads: UploadPolicy::Whole,
    failed_upload: FailedUpload::Keep,
    min_free: 0,
};
const IN_PLACE: Files = Files {
    umask: 0o022,
    uploads: UploadPolicy::InPlace,
    failed_upload: FailedUpload::Discard,
    min_free: 0,
};

async fn begin(tree: &Fixture, path: &str, kind: UploadKind) -> Result<Upload, Failure> {
    let mut upload = tree
        .root
        .upload(&at(path), kind, UploadRules::default())
        .await?;
    upload.start().await?;
    Ok(upload)
}

async fn store(tree: &Fixture, path: &str, content: &str) -> Result<(), Failure> {
    let upload = begin(tree, path, UploadKind::Replace).await?;
    send(&upload, content).await;
    finish(upload).await
}

#[test]
fn a_new_file_is_seen_when_it_is_whole() {
    run(|tree| async move {
        let upload = tree
            .root
            .upload(
                &at("file"),
                UploadKind::Replace,
                UploadRules {
                    umask: Some(0o027),
                    ..UploadRules::default()
                },
            )
            .await
            .unwrap();
        assert_eq!((upload.position(), upload.name()), (0, &b"file"[..]));
        send(&upload, "content").await;
        assert!(tree.names("").is_empty(), "a part was seen");
        finish(upload).await.unwrap();
        assert_eq!(tree.names(""), ["file"]);
        assert_eq!(tree.read("file"), b"content");
        assert_eq!(tree.mode("file"), 0o640);
    });
}

#[test]
fn a_replaced_file_is_there_until_the_new_one_is_whole_and_hands_on_its_mode() {
    run(|tree| async move {
        tree.write("file", "old");
        tree.set_mode("file", 0o4751);
        let upload = begin(&tree, "file", UploadKind::Replace).await.unwrap();
        send(&upload, "new").await;
        assert_eq!(tree.read("file"), b"old");
        finish(upload).await.unwrap();
        assert_eq!(tree.read("file"), b"new");
        assert_eq!(tree.mode("file"), 0o751, "set-user-ID is not handed on");
        assert_eq!(tree.names(""), ["file"]);
    });
}

#[test]
fn a_broken_upload_leaves_what_the_policy_says() {
    // Files, what was there, what is there afterwards.
    let rows: [(Files, Option<&str>, Option<&str>); 6] = [
        (Files::default(), None, None),
        (Files::default(), Some("old"), Some("old")),
        (KEEP, None, Some("part")),
        (KEEP, Some("old"), Some("old")),
        (IN_PLACE, None, Some("part")),
        (IN_PLACE, Some("old one"), Some("part")),
    ];
    for (settings, before, after) in rows {
        run_with(settings, |tree| async move {
            if let Some(before) = before {
                tree.write("file", before);
            }
            let upload = begin(&tree, "file", UploadKind::Replace).await.unwrap();
            send(&upload, "part").await;
            upload.abandon().await;
            let left = tree.names("");
            assert_eq!(
                left.len(),
                usize::from(after.is_some()),
                "{settings:?}: {left:?}"
            );
            if let Some(after) = after {
                assert_eq!(tree.read("file"), after.as_bytes(), "{settings:?}");
            }
        });
    }
}

#[test]
fn an_upload_of_which_nothing_arrived_is_not_kept() {
    run_with(KEEP, |tree| async move {
        begin(&tree, "file", UploadKind::Replace)
            .await
            .unwrap()
            .abandon()
            .await;
        begin(&tree, "file", UploadKind::Unique)
            .await
            .unwrap()
            .abandon()
            .await;
        assert!(tree.names("").is_empty());
    });
}

#[test]
fn a_dropped_upload_leaves_nothing() {
    run_with(KEEP, |tree| async move {
        for kind in [UploadKind::Replace, UploadKind::Unique] {
            let upload = begin(&tree, "file", kind).await.unwrap();
            send(&upload, "part").await;
            drop(upload);
            assert!(tree.names("").is_empty(), "{kind:?}");
        }
    });
}

#[test]
fn of_two_uploads_to_one_name_the_last_to_end_stays_whole() {
    for before in [None, Some("old")] {
        run(|tree| async move {
            if let Some(before) = before {
                tree.write("file", before);
            }
            let first = begin(&tree, "file", UploadKind::Replace).await.unwrap();
            let second = begin(&tree, "file", UploadKind::Replace).await.unwrap();
            send(&first, "first, and longer").await;
            send(&second, "second").await;
            finish(second).await.unwrap();
            assert_eq!(tree.read("file"), b"second");
            finish(first).await.unwrap();
            assert_eq!(tree.read("file"), b"first, and longer");
            assert_eq!(tree.names(""), ["file"]);
        });
    }
}

#[test]
fn two_uploads_never_write_to_one_file() {
    run_with(IN_PLACE, |tree| async move {
        tree.write("file", "old");
        let whole = Root {
            settings: Files::default(),
            ..tree.root.clone()
        };
        let first = begin(&tree, "file", UploadKind::Append).await.unwrap();
        for kind in [
            UploadKind::Replace,
            UploadKind::Append,
            UploadKind::ReplaceFrom(1),
        ] {
            assert_eq!(
                begin(&tree, "file", kind).await.err(),
                Some(Failure::Busy),
                "{kind:?}"
            );
        }
        let replace = whole
            .upload(&at("file"), UploadKind::Replace, UploadRules::default())
            .await;
        assert_eq!(replace.err(), Some(Failure::Busy));
        assert_eq!(tree.read("file"), b"old", "a refused upload cut the file");
        finish(first).await.unwrap();
        store(&tree, "file", "free again").await.unwrap();
    });
}

#[test]
fn appending_and_restarting_write_in_place() {
    for settings in [Files::default(), IN_PLACE] {
        run_with(settings, |tree| async move {
            for (kind, before, position, after) in [
                (UploadKind::Append, None, 0, "xy"),
                (UploadKind::Append, Some("0123"), 4, "0123xy"),
                (UploadKind::ReplaceFrom(2), Some("0123456"), 2, "01xy"),
                (UploadKind::ReplaceFrom(4), Some("0123"), 4, "0123xy"),
                (UploadKind::ReplaceFrom(0), Some("0123"), 0, "xy"),
                (UploadKind::ReplaceFrom(0), None, 0, "xy"),
            ] {
                let _ = fs::remove_file(tree.host("file"));
                if let Some(before) = before {
                    tree.write("file", before);
                }
                let upload = begin(&tree, "file", kind).await.unwrap();
                assert_eq!(upload.position(), position, "{kind:?}");
                send(&upload, "xy").await;
                finish(upload).await.unwrap();
                assert_eq!(
                    tree.read("file"),
                    after.as_bytes(),
                    "{kind:?} of {before:?}"
                );
            }
        });
    }
}

#[test]
fn a_restart_beyond_the_end_changes_nothing() {
    run(|tree| async move {
        tree.write("file", "0123");
        let beyond = begin(&tree, "file", UploadKind::ReplaceFrom(5)).await;
        assert_eq!(beyond.err(), Some(Failure::OffsetBeyondEnd));
        assert_eq!(tree.read("file"), b"0123");
        let missing = begin(&tree, "missing", UploadKind::ReplaceFrom(5)).await;
        assert_eq!(missing.err(), Some(Failure::NotFound));
        assert_eq!(tree.names(""), ["file"]);
    });
}

#[test]
fn a_long_tail_is_cut_off_too() {
    run(|tree| async move {
        fs::File::create(tree.host("file"))
            .unwrap()
            .set_len(100 << 20)
            .unwrap();
        let upload = begin(&tree, "file", UploadKind::ReplaceFrom(1))
            .await
            .unwrap();
        finish(upload).await.unwrap();
        assert_eq!(tree.read("file"), b"\0");
        // And a long upload without a name is freed.
        let upload = begin(&tree, "other", UploadKind::Replace).await.unwrap();
        file::truncate(upload.file(), 100 << 20).unwrap();
        upload.abandon().await;
        assert_eq!(tree.names(""), ["file"]);
    });
}

#[test]
fn unique_names_are_unique() {
    for settings in [Files::default(), IN_PLACE] {
        run_with(settings, |tree| async move {
            let mut uploads = Vec::new();
            for expected in ["file", "file.1", "file.2"] {
                let upload = begin(&tree, "file", UploadKind::Unique).await.unwrap();
                assert_eq!(upload.name(), expected.as_bytes());
                send(&upload, expected).await;
                uploads.push(upload);
            }
            let is_seen = settings.uploads == UploadPolicy::InPlace;
            assert_eq!(tree.names("").len(), if is_seen { 3 } else { 0 });
            for upload in uploads {
                let name = upload.name().to_vec();
                finish(upload).await.unwrap();
                assert_eq!(tree.read(&name), name);
            }
            assert_eq!(tree.names(""), ["file", "file.1", "file.2"]);
            let long = "n".repeat(255);
            for _ in 0..2 {
                let upload = begin(&tree, &long, UploadKind::Unique).await.unwrap();
                finish(upload).await.unwrap();
            }
            assert_eq!(tree.names("").len(), 5);
        });
    }
}

#[test]
fn a_unique_name_is_given_back_unless_somebody_else_has_it() {
    for settings in [Files::default(), IN_PLACE] {
        run_with(settings, |tree| async move {
            let upload = begin(&tree, "file", UploadKind::Unique).await.unwrap();
            upload.abandon().await;
            assert!(tree.names("").is_empty());
            let upload = begin(&tree, "file", UploadKind::Unique).await.unwrap();
            tree.write("new", "somebody else's");
            fs::rename(tree.host("new"), tree.host("file")).unwrap();
            upload.abandon().await;
            assert_eq!(tree.read("file"), b"somebody else's");
        });
    }
    run_with(KEEP, |tree| async move {
        let upload = begin(&tree, "file", UploadKind::Unique).await.unwrap();
        send(&upload, "part").await;
        upload.abandon().await;
        assert_eq!(tree.read("file"), b"part");
    });
}

#[test]
fn names_that_are_no_files_are_not_replaced() {
    for settings in [Files::default(), IN_PLACE] {
        run_with(settings, |tree| async move {
            tree.directory("directory");
            tree.fifo("fifo");
            for (path, failure) in [
                ("directory", Failure::IsADirectory),
                ("fifo", Failure::NotAFile),
                ("missing/file", Failure::NotFound),
            ] {
                for kind in [UploadKind::Replace, UploadKind::Append] {
                    let upload = begin(&tree, path, kind).await;
                    assert_eq!(upload.err(), Some(failure), "{path} {kind:?}");
                }
            }
            // The root has no name. Linux says of it that it is a directory.
            let upload = begin(&tree, "/", UploadKind::Replace).await.err();
            assert!(matches!(
                upload,
                Some(Failure::Denied | Failure::IsADirectory)
            ));
            // A FIFO that somebody reads opens, and is none the more a file.
            let fifo = fs::OpenOptions::new()
                .read(true)
                .write(true)
                .open(tree.host("fifo"));
            let upload = begin(&tree, "fifo", UploadKind::Append).await;
            assert_eq!(upload.err(), Some(Failure::NotAFile));
            drop(fifo);
            assert_eq!(tree.names(""), ["directory", "fifo"]);
        });
    }
}

#[test]
fn links_stay_and_are_written_through() {
    run(|tree| async move {
        tree.write("directory/file", "old one");
        tree.link("link", "directory/file");
        store(&tree, "link", "new").await.unwrap();
        assert_eq!(tree.read("directory/file"), b"new");
        assert!(tree.host("link").is_symlink());
        tree.link("dangling", "/directory/made");
        store(&tree, "dangling", "made").await.unwrap();
        assert_eq!(tree.read("directory/made"), b"made");
        tree.link("out", "../../../../../../nowhere/file");
        assert_eq!(store(&tree, "out", "x").await, Err(Failure::NotFound));
    });
}

#[test]
fn what_happens_to_the_name_meanwhile_is_respected() {
    run(|tree| async move {
        let upload = begin(&tree, "file", UploadKind::Replace).await.unwrap();
        tree.directory("file");
        assert_eq!(finish(upload).await, Err(Failure::IsADirectory));
        fs::remove_dir(tree.host("file")).unwrap();

        let upload = begin(&tree, "file", UploadKind::Replace).await.unwrap();
        tree.link("file", "target");
        assert_eq!(finish(upload).await, Err(Failure::NotAFile));
        fs::remove_file(tree.host("file")).unwrap();
        assert!(tree.names("").is_empty());

        let upload = begin(&tree, "file", UploadKind::Replace).await.unwrap();
        send(&upload, "mine").await;
        tree.write("file", "appeared");
        tree.set_mode("file", 0o600);
        finish(upload).await.unwrap();
        assert_eq!(
            (tree.read("file"), tree.mode("file")),
            (b"mine".to_vec(), 0o600)
        );

        let upload = begin(&tree, "file", UploadKind::Replace).await.unwrap();
        fs::remove_file(tree.host("file")).unwrap();
        finish(upload).await.unwrap();
        assert_eq!(tree.names(""), ["file"]);
    });
}

#[test]
fn an_upload_into_nowhere_does_not_end_well() {
    run(|tree| async move {
        tree.directory("directory");
        let upload = begin(&tree, "directory/file", UploadKind::Replace)
            .await
            .unwrap();
        fs::remove_dir(tree.host("directory")).unwrap();
        assert_eq!(finish(upload).await, Err(Failure::NotFound));
        tree.write("file", "x");
        let upload = begin(&tree, "file", UploadKind::Append).await.unwrap();
        fs::remove_file(tree.host("file")).unwrap();
        assert_eq!(finish(upload).await, Err(Failure::NotFound));
    });
}

#[test]
fn a_file_that_may_not_be_written_is_not_replaced() {
    run(|tree| async move {
        // A program that runs cannot be written, not even by the superuser (ETXTBSY).
        // Copied by another process: a descriptor of this one, open for writing, could be inherited
        // by what a test beside this one starts, and then nobody may run the program.
        let mut copy = Command::new("cp");
        copy.arg("/bin/sleep").arg(tree.host("program"));
        assert!(copy.status().unwrap().success());
        let mut running = Command::new(tree.host("program"))
            .arg("60")
            .spawn()
            .unwrap();
        let upload = begin(&tree, "program", UploadKind::Replace).await;
        running.kill().unwrap();
        running.wait().unwrap();
        assert_eq!(upload.err(), Some(Failure::Busy));
        if !is_superuser() {
            tree.write("file", "protected");
            tree.set_mode("file", 0o444);
            assert_eq!(store(&tree, "file", "x").await, Err(Failure::Denied));
            tree.write("directory/file", "old");
            tree.set_mode("directory", 0o555);
            store(&tree, "directory/file", "in place").await.unwrap();
            assert_eq!(tree.read("directory/file"), b"in place");
            tree.set_mode("directory", 0o755);
        }
    });
}

#[test]
fn a_file_may_be_too_large() {
    run(|tree| async move {
        let upload = begin(&tree, "file", UploadKind::Replace).await.unwrap();
        // Beyond what any file system stores: EFBIG.
        let (written, _) = uring::write_all_at(upload.file(), vec![0], i64::MAX as u64 - 1).await;
        let errno = written.unwrap_err().raw_os_error().unwrap();
        assert_eq!(Failure::from_errno(errno), Failure::FileTooLarge);
        upload.abandon().await;
        assert!(tree.names("").is_empty());
    });
}

#[test]
#[allow(clippy::print_stderr)]
fn a_full_file_system_is_told_and_gets_its_space_back() {
    run(|tree| async move {
        let small = tree.host("small");
        fs::create_dir(&small).unwrap();
        let mounted = Command::new("mount")
            .args(["-t", "tmpfs", "-o", "size=1m", "tmpfs"])
            .arg(&small)
            .output();
        if !mounted.is_ok_and(|mounted| mounted.status.success()) {
            eprintln!("skipped: this user may not mount a small file system");
            return;
        }
        let free = tree.root.free_bytes(&at("small")).await.unwrap();
        let upload = begin(&tree, "small/file", UploadKind::Replace)
            .await
            .unwrap();
        let (written, _) = uring::write_all_at(upload.file(), vec![1; 2 << 20], 0).await;
        let errno = written.map_err(|error| error.raw_os_error());
        upload.abandon().await;
        let left = tree.names("small");
        let freed = tree.root.free_bytes(&at("small")).await.unwrap();
        tree.write("small/x", "x");
        let crossed = tree.root.rename(&at("small/x"), &at("x"), true, None).await;
        Command::new("umount")
            .arg("-l")
            .arg(&small)
            .status()
            .unwrap();
        assert_eq!(
            errno
                .map_err(|errno| errno.map(Failure::from_errno))
                .err()
                .flatten(),
            Some(Failure::StorageFull)
        );
        assert!(left.is_empty());
        assert_eq!(freed, free);
        assert_eq!(crossed, Err(Failure::CrossDevice));
    });
}

/// The bug: REST and STOR cut the file at once, and when the client then did not connect, its end
/// was lost though nothing had been transferred.
#[test]
fn an_upload_that_never_starts_changes_nothing() {
    for policy in [UploadPolicy::Whole, UploadPolicy::InPlace] {
        for failed_upload in [FailedUpload::Discard, FailedUpload::Keep] {
            let files = Files {
                uploads: policy,
                failed_upload,
                ..Files::default()
            };
            run_with(files, async |tree| {
                tree.write("old", "old content");
                let kinds = [
                    UploadKind::Replace,
                    UploadKind::ReplaceFrom(3),
                    UploadKind::Append,
                ];
                for kind in kinds {
                    let upload = tree
                        .root
                        .upload(&at("old"), kind, UploadRules::default())
                        .await
                        .unwrap();
                    upload.abandon().await;
                    assert_eq!(tree.read("old"), b"old content", "{kind:?}");
                }
                for kind in [UploadKind::Replace, UploadKind::Append] {
                    let upload = tree
                        .root
                        .upload(&at("new"), kind, UploadRules::default())
                        .await
                        .unwrap();
                    upload.abandon().await;
                    assert!(!tree.host("new").exists(), "{kind:?}");
                }
            });
        }
    }
}

#[test]
fn the_last_bytes_and_the_name_come_together() {
    run(|tree| async move {
        for content in ["first", "second, longer", "3rd", ""] {
            for (path, kind) in [
                ("whole", UploadKind::Replace),
                ("part", UploadKind::ReplaceFrom(0)),
            ] {
                let mut upload = begin(&tree, path, kind).await.unwrap();
                let mut bytes = content.as_bytes().to_vec();
                let rest = bytes.split_off(content.len() / 2);
                let (written, _) = upload.write(bytes, 0).await;
                written.unwrap();
                let offset = (content.len() / 2) as u64;
                let (ended, returned) = upload.finish(rest.clone(), offset).await;
                assert_eq!((ended, returned), (Ok(()), rest));
                assert_eq!(tree.read(path), content.as_bytes());
                assert_eq!(tree.mode(path), 0o644);
            }
        }
        assert_eq!(tree.names(""), ["part", "whole"]);
    });
}

#[test]
fn a_name_taken_meanwhile_is_replaced_or_refused() {
    run(|tree| async move {
        let upload = begin(&tree, "file", UploadKind::Replace).await.unwrap();
        fs::write(tree.host("file"), "another's").unwrap();
        fs::set_permissions(tree.host("file"), fs::Permissions::from_mode(0o604)).unwrap();
        let (ended, _) = upload.finish(b"mine".to_vec(), 0).await;
        assert_eq!(ended, Ok(()));
        assert_eq!(tree.read("file"), b"mine");
        assert_eq!(tree.mode("file"), 0o604);

        for is_new in [true, false] {
            let upload = begin(&tree, "name", UploadKind::Replace).await.unwrap();
            if !is_new {
                fs::remove_file(tree.host("name")).unwrap();
            }
            fs::create_dir(tree.host("name")).unwrap();
            let (ended, _) = upload.finish(b"mine".to_vec(), 0).await;
            assert_eq!(ended, Err(Failure::IsADirectory));
            fs::remove_dir(tree.host("name")).unwrap();
            fs::write(tree.host("name"), "").unwrap();
        }
        assert_eq!(tree.names(""), ["file", "name"]);
    });
}

#[test]
fn disk_space_reserved_ahead_is_given_back_at_the_end() {
    const CHUNK: usize = 512 * 1024;
    const CHUNKS: u64 = 12;
    for policy in [FailedUpload::Discard, FailedUpload::Keep] {
        let settings = Files {
            failed_upload: policy,
            ..KEEP
        };
        run_with(settings, move |tree| async move {
            let mut upload = begin(&tree, "file", UploadKind::Replace).await.unwrap();
            for number in 0..CHUNKS {
                let offset = number * CHUNK as u64;
                let (written, _) = upload.write(vec![7; CHUNK], offset).await;
                written.unwrap();
            }
            let size = CHUNKS * CHUNK as u64;
            let held = allocated(upload.file());
            if file::file_system(upload.file()) == file::FileSystem::Ext4 {
                assert!(held > size, "nothing is reserved: {held}");
            }
            match policy {
                FailedUpload::Discard => finish(upload).await.unwrap(),
                FailedUpload::Keep => upload.abandon().await,
            }
            assert_eq!(tree.read("file"), vec![7; size as usize]);
            let kept = fs::File::open(tree.host("file")).unwrap();
            let held = allocated(&kept);
            // Its own metadata may be counted.
            assert!(held <= size + 64 * 1024, "{held} bytes for {size}");
        });
    }
}

#[test]
fn bytes_from_a_pipe_follow_those_from_memory() {
    for takes_pipes in [true, false] {
        run(move |tree| async move {
            let mut upload = begin(&tree, "file", UploadKind::Replace).await.unwrap();
            let (written, _) = upload.write(vec![1; 1024], 0).await;
            written.unwrap();
            assert!(!upload.takes_pipes(), "for a small file it does not pay");
            let (written, _) = upload.write(vec![2; 512 * 1024], 1024).await;
            written.unwrap();
            assert!(upload.takes_pipes());
            if !takes_pipes {
                // Such a file takes no splice(2) either: EINVAL.
                nix::fcntl::fcntl(upload.file().fd(), FcntlArg::F_SETFL(OFlag::O_APPEND)).unwrap();
            }
            let pipe = PipePool::new(1).take().unwrap().unwrap();
            let mut writer = fs::File::from(pipe.writer().try_clone().unwrap());
            for offset in [525_312, 525_317] {
                writer.write_all(b"bytes").unwrap();
                upload.write_from(&pipe, offset, 5).await.unwrap();
                assert_eq!(pipe.take_out().unwrap(), b"");
            }
            assert_eq!(upload.takes_pipes(), takes_pipes);
            let (finished, _) = upload.finish(b"end".to_vec(), 525_322).await;
            finished.unwrap();
            let stored = tree.read("file");
            assert_eq!(stored.len(), 525_325);
            assert_eq!(&stored[525_310..], b"\x02\x02bytesbytesend");
        });
    }
}

fn allocated(file: &impl std::os::fd::AsFd) -> u64 {
    let status = nix::sys::stat::fstat(file).unwrap();
    status.st_blocks as u64 * 512
}
