//! Looking and changing: what is allowed, and that nothing escapes.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::{fs, thread};

use super::*;
use crate::storage::{UploadKind, UploadRules};
use crate::sys::file::FileKind;

#[test]
fn paths_end_inside_the_tree_whatever_they_say() {
    run(|tree| async move {
        tree.write("etc/passwd", "inside");
        tree.link("absolute", "/etc");
        tree.link("upwards", "../../../../../../../etc");
        tree.link("neighbour", "../secret");
        tree.directory("deep/er");
        tree.link("deep/er/out", "../../../secret");
        tree.link("magic", "/proc/self/root/etc/passwd");
        for (path, expected) in [
            ("/etc/passwd", Ok(b"inside".to_vec())),
            ("../../etc/passwd", Ok(b"inside".to_vec())),
            ("absolute/passwd", Ok(b"inside".to_vec())),
            ("upwards/passwd", Ok(b"inside".to_vec())),
            ("upwards/../../../etc/passwd", Ok(b"inside".to_vec())),
            ("neighbour", Err(Failure::NotFound)),
            ("../secret", Err(Failure::NotFound)),
            ("deep/er/out", Err(Failure::NotFound)),
            ("magic", Err(Failure::NotFound)),
        ] {
            assert_eq!(content(&tree.root, path).await, expected, "{path}");
        }
    });
}

#[test]
fn changes_stay_inside_the_tree() {
    run(|tree| async move {
        tree.link("up", "..");
        tree.link("out", "../secret");
        tree.directory("directory");
        let root = &tree.root;
        // "up" leads to the root itself.
        root.make_directory(&at("up/made"), None).await.unwrap();
        assert!(tree.host("made").is_dir());
        root.remove_directory(&at("up/made")).await.unwrap();
        assert_eq!(
            root.remove_file(&at("up/secret"), None).await,
            Err(Failure::NotFound)
        );
        assert_eq!(
            root.rename(&at("up/secret"), &at("stolen"), true, None)
                .await,
            Err(Failure::NotFound)
        );
        assert_eq!(
            root.set_attributes(&at("out"), Some(0o777), None).await,
            Err(Failure::NotFound)
        );
        root.rename(&at("directory"), &at("up/up/renamed"), true, None)
            .await
            .unwrap();
        assert!(tree.host("renamed").is_dir());
        let upload = root
            .upload(&at("up/file"), UploadKind::Replace, UploadRules::default())
            .await
            .unwrap();
        send(&upload, "content").await;
        finish(upload).await.unwrap();
        assert_eq!(tree.read("file"), b"content");
        // A link that leads nowhere inside is written through, inside.
        let upload = root
            .upload(&at("out"), UploadKind::Replace, UploadRules::default())
            .await
            .unwrap();
        send(&upload, "mine").await;
        finish(upload).await.unwrap();
        assert_eq!(tree.read("secret"), b"mine");
        assert_eq!(
            fs::read(tree.outside.path().join("secret")).unwrap(),
            b"secret"
        );
        let names: Vec<_> = fs::read_dir(tree.outside.path()).unwrap().collect();
        assert_eq!(names.len(), 2, "something was made outside");
    });
}

#[test]
fn nothing_escapes_while_directories_move() {
    run(|tree| async move {
        tree.directory("a/b/c");
        // From any depth, more steps up than there are: clamped at the root, where no secret is.
        tree.link("a/b/c/link", "../../../../secret");
        tree.link("a/b/c/up", "../../../..");
        let stop = Arc::new(AtomicBool::new(false));
        let (from, to) = (tree.host("a/b/c"), tree.host("c"));
        let mover = thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    fs::rename(&from, &to).unwrap();
                    fs::rename(&to, &from).unwrap();
                }
            }
        });
        for _ in 0..500 {
            for path in ["a/b/c/link", "c/link", "a/b/c/up/secret", "c/up/secret"] {
                match content(&tree.root, path).await {
                    // Busy: every attempt met a rename.
                    Err(Failure::NotFound | Failure::Busy) => {}
                    other => panic!("{path}: {other:?}"),
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        mover.join().unwrap();
    });
}

#[test]
fn link_loops_end() {
    run(|tree| async move {
        tree.link("loop", "loop");
        tree.link("a", "b");
        tree.link("b", "a");
        let root = &tree.root;
        for path in ["loop", "a", "a/b/c"] {
            assert_eq!(
                root.status(&at(path)).await,
                Err(Failure::TooManyLinks),
                "{path}"
            );
            assert_eq!(
                root.enter(&at(path)).await,
                Err(Failure::TooManyLinks),
                "{path}"
            );
        }
        let status = root.name_status(&at("loop")).await.unwrap();
        assert_eq!(status.kind, FileKind::Symlink);
        root.remove_file(&at("loop"), None).await.unwrap();
        assert_eq!(root.name_status(&at("loop")).await, Err(Failure::NotFound));
    });
}

#[test]
fn only_directories_are_entered_and_only_files_read() {
    run(|tree| async move {
        tree.write("file", "x");
        tree.directory("directory");
        tree.link("link", "directory");
        tree.fifo("fifo");
        let _socket = std::os::unix::net::UnixListener::bind(tree.host("socket")).unwrap();
        for (path, entered, read) in [
            ("", Ok(()), Err(Failure::IsADirectory)),
            ("directory", Ok(()), Err(Failure::IsADirectory)),
            ("link", Ok(()), Err(Failure::IsADirectory)),
            ("file", Err(Failure::NotADirectory), Ok(())),
            ("fifo", Err(Failure::NotADirectory), Err(Failure::NotAFile)),
            (
                "socket",
                Err(Failure::NotADirectory),
                Err(Failure::NotAFile),
            ),
            ("nothing", Err(Failure::NotFound), Err(Failure::NotFound)),
            (
                "file/x",
                Err(Failure::NotADirectory),
                Err(Failure::NotADirectory),
            ),
        ] {
            let place = VirtualPath::root()
                .join(format!("/{path}").as_bytes())
                .unwrap();
            assert_eq!(tree.root.enter(&place).await, entered, "{path}");
            let opened = tree.root.open_for_reading(&place).await.map(drop);
            assert_eq!(opened, read, "{path}");
        }
    });
}

#[test]
fn names_are_bytes_of_any_kind_and_length() {
    run(|tree| async move {
        let long = [b'n'; 255];
        for name in [
            &long[..],
            b"caf\xe9 \xff\xfe",
            b" leading and trailing ",
            b"-rf",
            b"\"a\"",
        ] {
            let path = at(name);
            tree.root.make_directory(&path, None).await.unwrap();
            tree.root.enter(&path).await.unwrap();
            let file = path.join(name).unwrap();
            let upload = tree
                .root
                .upload(&file, UploadKind::Replace, UploadRules::default())
                .await
                .unwrap();
            assert_eq!(upload.name(), name);
            finish(upload).await.unwrap();
            assert!(
                tree.host(name)
                    .join(tree.host(name).file_name().unwrap())
                    .is_file()
            );
            tree.root.remove_file(&file, None).await.unwrap();
            tree.root.remove_directory(&path).await.unwrap();
        }
        assert!(tree.names("").is_empty());
    });
}

#[test]
fn directories_are_made_and_removed() {
    run(|tree| async move {
        let root = &tree.root;
        root.make_directory(&at("a"), Some(0o027)).await.unwrap();
        assert_eq!(tree.mode("a"), 0o750);
        assert_eq!(
            root.make_directory(&at("a"), None).await,
            Err(Failure::Exists)
        );
        assert_eq!(
            root.make_directory(&at("/"), None).await,
            Err(Failure::Exists)
        );
        assert_eq!(
            root.make_directory(&at("b/c"), None).await,
            Err(Failure::NotFound)
        );
        root.make_directory(&at("a/b"), None).await.unwrap();
        assert_eq!(
            root.remove_directory(&at("a")).await,
            Err(Failure::NotEmpty)
        );
        assert_eq!(
            root.remove_file(&at("a/b"), None).await,
            Err(Failure::IsADirectory)
        );
        tree.link("link", "a");
        assert_eq!(
            root.remove_directory(&at("link")).await,
            Err(Failure::NotADirectory)
        );
        root.remove_directory(&at("a/b")).await.unwrap();
        root.remove_directory(&at("a")).await.unwrap();
        assert_eq!(
            root.remove_directory(&at("a")).await,
            Err(Failure::NotFound)
        );
        assert_eq!(root.remove_directory(&at("/")).await, Err(Failure::Denied));
        root.remove_file(&at("link"), None).await.unwrap();
        assert!(tree.names("").is_empty());
    });
}

#[test]
fn renames_replace_files_but_not_what_is_in_directories() {
    run(|tree| async move {
        let root = &tree.root;
        tree.write("file", "new");
        tree.write("other", "old");
        tree.write("full/x", "x");
        tree.directory("empty");
        tree.link("link", "nowhere");
        for (from, to, expected) in [
            ("file", "full", Err(Failure::IsADirectory)),
            ("empty", "full", Err(Failure::NotEmpty)),
            ("empty", "file", Err(Failure::NotADirectory)),
            ("full", "full/inside", Err(Failure::NameInvalid)),
            ("missing", "x", Err(Failure::NotFound)),
            ("file", "missing/x", Err(Failure::NotFound)),
            ("/", "x", Err(Failure::Denied)),
            ("file", "/", Err(Failure::Denied)),
            ("file", "other", Ok(())),
            ("full", "empty", Ok(())),
            ("link", "renamed", Ok(())),
        ] {
            assert_eq!(
                root.rename(&at(from), &at(to), true, None).await,
                expected,
                "{from} to {to}"
            );
        }
        assert_eq!(tree.names(""), ["empty", "other", "renamed"]);
        assert_eq!(tree.read("other"), b"new");
        assert_eq!(tree.read("empty/x"), b"x");
    });
}

#[test]
fn attributes_are_set_through_links() {
    run(|tree| async move {
        tree.write("file", "x");
        tree.link("link", "file");
        tree.root
            .set_attributes(&at("link"), Some(0o640), Some(981_173_106))
            .await
            .unwrap();
        let status = tree.root.status(&at("file")).await.unwrap();
        assert_eq!((status.mode, status.modified), (0o640, 981_173_106));
        tree.root
            .set_attributes(&at("file"), Some(0o600), None)
            .await
            .unwrap();
        let status = tree.root.status(&at("file")).await.unwrap();
        assert_eq!((status.mode, status.modified), (0o600, 981_173_106));
        tree.root
            .set_attributes(&at("file"), None, Some(-1))
            .await
            .unwrap();
        assert_eq!(tree.root.status(&at("file")).await.unwrap().modified, -1);
        let missing = tree
            .root
            .set_attributes(&at("missing"), Some(0o600), None)
            .await;
        assert_eq!(missing, Err(Failure::NotFound));
    });
}

#[test]
fn free_space_is_told() {
    run(|tree| async move {
        assert!(tree.root.free_bytes(&at("/")).await.unwrap() > 0);
        assert_eq!(
            tree.root.free_bytes(&at("missing")).await,
            Err(Failure::NotFound)
        );
    });
}

#[test]
#[allow(clippy::print_stderr)]
fn what_may_not_be_searched_is_not_entered() {
    if is_superuser() {
        eprintln!("skipped: the superuser may search every directory");
        return;
    }
    run(|tree| async move {
        tree.directory("closed");
        tree.set_mode("closed", 0o600);
        assert_eq!(tree.root.enter(&at("closed")).await, Err(Failure::Denied));
        tree.set_mode("closed", 0o700);
    });
}

#[test]
fn a_root_is_a_directory_that_exists() {
    uring::start(&RingOptions::default(), || async {
        let settings = Files::default();
        let folder = tempfile::tempdir().unwrap();
        fs::write(folder.path().join("file"), "").unwrap();
        for (path, expected) in [("file", libc::ENOTDIR), ("missing", libc::ENOENT)] {
            let error = Root::open(&folder.path().join(path), settings, None)
                .await
                .unwrap_err();
            assert_eq!(error.raw_os_error(), Some(expected), "{path}");
        }
        for path in ["/", ".", "src"] {
            let root = Root::open(path.as_ref(), settings, None).await.unwrap();
            root.enter(&at("/")).await.unwrap();
        }
    })
    .unwrap();
}
