//! LIST, NLST and MLSD of real directories.

use std::collections::BTreeSet;

use super::*;
use crate::proto::argument::{ListArgument, ListOptions};
use crate::proto::listing::FactSet;
use crate::proto::rights::{RightSet, Rights};
use crate::storage::{Format, ListRequest, Listing};
use crate::sys::worker::Workers;
use std::sync::Arc;

fn workers() -> Workers {
    Workers::start("listing-test", 1, 16).unwrap()
}

/// What a client would have asked for, in the root: options and a name.
fn request(format: Format, argument: &str) -> ListRequest {
    let argument = ListArgument::parse(argument.as_bytes());
    ListRequest {
        directory: at("/"),
        name: argument.name.map(<[u8]>::to_vec),
        options: argument.options,
        format,
        rights: Arc::new(Rights::from(RightSet::READ_WRITE)),
        now: 1_700_000_000,
    }
}

async fn collect(mut listing: Listing) -> Result<String, Failure> {
    let mut text = Vec::new();
    while let Some(chunk) = listing.next_chunk(Vec::new()).await? {
        assert!(
            !chunk.is_empty() && chunk.len() <= 64 * 1024,
            "{}",
            chunk.len()
        );
        assert!(chunk.ends_with(b"\r\n"), "a line is cut");
        text.extend_from_slice(&chunk);
    }
    Ok(String::from_utf8_lossy(&text).into_owned())
}

async fn list(tree: &Fixture, request: ListRequest) -> Result<String, Failure> {
    collect(tree.root.list(&workers(), request).await?).await
}

/// The lines of NLST, joined by commas.
async fn names(tree: &Fixture, argument: &str) -> Result<String, Failure> {
    let text = list(tree, request(Format::Names, argument)).await?;
    Ok(text.lines().collect::<Vec<_>>().join(","))
}

/// The last words of the lines of LIST, joined by commas.
async fn long_names(tree: &Fixture, argument: &str) -> Result<String, Failure> {
    let text = list(tree, request(Format::Long, argument)).await?;
    let last = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
    Ok(text.lines().map(last).collect::<Vec<_>>().join(","))
}

fn facts(argument: &str) -> ListRequest {
    request(Format::Facts(FactSet::parse(b"type;size;")), argument)
}

fn some_files(tree: &Fixture) {
    tree.write("b.txt", "bb");
    tree.write("a.txt", "a");
    tree.write(".hidden", "");
    tree.write("sub/c.txt", "ccc");
    tree.write("sub/deep/d", "");
    tree.link("link", "sub/c.txt");
    tree.link("broken", "nowhere");
    tree.set_mode("b.txt", 0o755);
}

#[test]
fn names_are_listed_as_clients_can_use_them() {
    run(|tree| async move {
        some_files(&tree);
        let absolute = "/sub/c.txt,/sub/deep";
        for (argument, expected) in [
            ("", "a.txt,b.txt,broken,link,sub"),
            (".", "./a.txt,./b.txt,./broken,./link,./sub"),
            ("-a", ".,..,.hidden,a.txt,b.txt,broken,link,sub"),
            ("-r", "sub,link,broken,b.txt,a.txt"),
            ("sub", "sub/c.txt,sub/deep"),
            ("sub/", "sub/c.txt,sub/deep"),
            ("/sub", absolute),
            ("/", "/a.txt,/b.txt,/broken,/link,/sub"),
            ("-CF", "a.txt,b.txt*,broken@,link@,sub/"),
            ("-F sub", "sub/c.txt,sub/deep/"),
            ("-d", "."),
            ("-d sub", "sub"),
            ("-dF /sub", "/sub/"),
            ("a.txt", "a.txt"),
            ("sub/c.txt", "sub/c.txt"),
            ("sub/../a.txt", "sub/../a.txt"),
            ("link", "link"),
            ("broken", "broken"),
            (
                "-R",
                "a.txt,b.txt,broken,link,sub,sub/c.txt,sub/deep,sub/deep/d",
            ),
            ("-R sub", "sub/c.txt,sub/deep,sub/deep/d"),
            (
                "-R /",
                "/a.txt,/b.txt,/broken,/link,/sub,/sub/c.txt,/sub/deep,/sub/deep/d",
            ),
        ] {
            assert_eq!(
                names(&tree, argument).await.as_deref(),
                Ok(expected),
                "NLST {argument}"
            );
        }
    });
}

#[test]
fn patterns_match_in_the_last_component() {
    run(|tree| async move {
        some_files(&tree);
        tree.write("[1].txt", "");
        tree.directory("[dir]");
        tree.write("[dir]/inside", "");
        for (argument, expected) in [
            ("*.txt", "[1].txt,a.txt,b.txt"),
            ("?.txt", "a.txt,b.txt"),
            ("sub/*.txt", "sub/c.txt"),
            ("/sub/c*", "/sub/c.txt"),
            ("./[ab].txt", "./a.txt,./b.txt"),
            (".h*", ".hidden"),
            ("*hidden", ""),
            (".*", ".hidden"),
            ("s*", "sub"),
            ("s*/", "sub"),
            ("*.none", ""),
            // What has exactly this name comes before the pattern.
            ("[1].txt", "[1].txt"),
            ("[dir]", "[dir]/inside"),
            ("-R s*", "sub,sub/c.txt,sub/deep,sub/deep/d"),
            ("-d s*", "sub"),
            ("-dR s*", "sub"),
        ] {
            assert_eq!(
                names(&tree, argument).await.as_deref(),
                Ok(expected),
                "NLST {argument}"
            );
        }
        assert_eq!(names(&tree, "no/*.txt").await, Err(Failure::NotFound));
        assert_eq!(names(&tree, "s*/c.txt").await, Err(Failure::NotFound));
    });
}

#[test]
fn what_is_not_there_is_told_before_the_first_chunk() {
    run(|tree| async move {
        some_files(&tree);
        tree.link("loop", "loop");
        for format in [
            Format::Long,
            Format::Names,
            Format::Facts(FactSet::default()),
        ] {
            let mlsd = matches!(format, Format::Facts(_));
            for (argument, expected) in [
                ("missing", Some(Failure::NotFound)),
                ("missing/file", Some(Failure::NotFound)),
                ("a.txt/x", Some(Failure::NotADirectory)),
                ("a.txt", mlsd.then_some(Failure::NotADirectory)),
                ("loop", mlsd.then_some(Failure::TooManyLinks)),
                ("broken", mlsd.then_some(Failure::NotFound)),
                // RFC 3659 §7.1: MLSD knows no patterns.
                ("*.txt", mlsd.then_some(Failure::NotFound)),
                ("n\nl", Some(Failure::NameInvalid)),
            ] {
                let listing = tree.root.list(&workers(), request(format, argument)).await;
                assert_eq!(listing.err(), expected, "{format:?} {argument:?}");
            }
        }
    });
}

#[test]
fn long_lines_show_links_and_what_they_lead_to() {
    run(|tree| async move {
        some_files(&tree);
        let text = list(&tree, request(Format::Long, "")).await.unwrap();
        let lines: Vec<_> = text.lines().collect();
        assert_eq!(lines.len(), 5);
        assert!(
            lines[0].starts_with("-rw-r--r--") && lines[0].ends_with(" a.txt"),
            "{text}"
        );
        assert!(
            lines[1].starts_with("-rwxr-xr-x") && lines[1].ends_with(" b.txt"),
            "{text}"
        );
        assert!(
            lines[2].starts_with("l") && lines[2].ends_with(" broken -> nowhere"),
            "{text}"
        );
        assert!(lines[3].ends_with(" link -> sub/c.txt"), "{text}");
        assert!(
            lines[4].starts_with("d") && lines[4].ends_with(" sub"),
            "{text}"
        );
        for (argument, expected) in [
            ("-l", "a.txt,b.txt,nowhere,sub/c.txt,sub"),
            ("-la", ".,..,.hidden,a.txt,b.txt,nowhere,sub/c.txt,sub"),
            ("sub", "c.txt,deep"),
            ("sub/c.txt", "c.txt"),
            ("link", "sub/c.txt"),
            ("broken", "nowhere"),
            ("-d", "."),
            ("-d sub", "sub"),
            ("*.txt", "a.txt,b.txt"),
            ("-F", "a.txt,b.txt*,nowhere,sub/c.txt,sub/"),
        ] {
            let found = long_names(&tree, argument).await.unwrap();
            assert_eq!(found, expected, "LIST {argument}");
        }
        // As with other servers, `NLST -l` is LIST.
        let nlst = list(&tree, request(Format::Names, "-l")).await.unwrap();
        assert_eq!(nlst, text);
    });
}

#[test]
fn listings_are_sorted_as_asked() {
    run(|tree| async move {
        for (name, size, modified) in [("a", 3, 200), ("b", 1, 300), ("c", 2, 100), ("d", 2, 200)] {
            tree.write(name, vec![0; size]);
            tree.root
                .set_attributes(&at(name), None, Some(modified))
                .await
                .unwrap();
        }
        for (argument, expected) in [
            ("", "a,b,c,d"),
            ("-r", "d,c,b,a"),
            ("-t", "b,a,d,c"),
            ("-tr", "c,d,a,b"),
            ("-S", "a,c,d,b"),
            ("-Sr", "b,d,c,a"),
        ] {
            assert_eq!(
                names(&tree, argument).await.as_deref(),
                Ok(expected),
                "NLST {argument}"
            );
            assert_eq!(
                long_names(&tree, argument).await.as_deref(),
                Ok(expected),
                "LIST {argument}"
            );
        }
    });
}

#[test]
fn facts_are_those_of_what_links_lead_to_inside_the_tree() {
    run(|tree| async move {
        some_files(&tree);
        tree.link("sub/up", "/a.txt");
        tree.link("sub/out", "../../secret");
        tree.link("sub/directory", "deep");
        let sorted = async |argument| {
            let text = list(&tree, facts(argument)).await.unwrap();
            text.lines()
                .map(str::to_owned)
                .collect::<BTreeSet<_>>()
                .into_iter()
                .collect::<Vec<_>>()
        };
        // RFC 3659 §7.5.1: the directory itself is a cdir, and the root has no parent.
        assert_eq!(
            sorted("").await,
            [
                "type=OS.unix=slink:;size=7; broken",
                "type=cdir; .",
                "type=dir; sub",
                "type=file;size=0; .hidden",
                "type=file;size=1; a.txt",
                "type=file;size=2; b.txt",
                "type=file;size=3; link",
            ]
        );
        assert_eq!(
            sorted("sub").await,
            [
                "type=OS.unix=slink:;size=12; out",
                "type=cdir; .",
                "type=dir; deep",
                "type=dir; directory",
                "type=file;size=1; up",
                "type=file;size=3; c.txt",
                "type=pdir; ..",
            ]
        );
    });
}

#[test]
fn nothing_is_told_of_what_is_above_the_root() {
    run(|tree| async move {
        tree.set_mode("", 0o751);
        tree.link("self", "/");
        for argument in ["-a", "-a self"] {
            let text = list(&tree, request(Format::Long, argument)).await.unwrap();
            let lines: Vec<_> = text.lines().collect();
            let (dot, dots) = (lines[0].strip_suffix(" ."), lines[1].strip_suffix(" .."));
            assert!(dot.is_some() && dot == dots, "{text}");
            assert!(lines[0].starts_with("drwxr-x--x"), "{text}");
        }
    });
}

#[test]
fn directories_in_directories_follow_under_their_names() {
    run(|tree| async move {
        some_files(&tree);
        tree.write(".dot/x", "");
        // Links are not followed: this one would never end.
        tree.link("sub/deep/up", "/sub");
        let shape = async |argument: &str| {
            let text = list(&tree, request(Format::Long, argument)).await.unwrap();
            let last = |line: &str| line.rsplit(' ').next().unwrap_or_default().to_owned();
            text.lines().map(last).collect::<Vec<_>>().join("|")
        };
        assert_eq!(
            shape("-R").await,
            ".:|a.txt|b.txt|nowhere|sub/c.txt|sub||./sub:|c.txt|deep||./sub/deep:|d|/sub"
        );
        assert_eq!(shape("-R sub").await, "sub:|c.txt|deep||sub/deep:|d|/sub");
        assert_eq!(
            shape("-R /sub/").await,
            "/sub:|c.txt|deep||/sub/deep:|d|/sub"
        );
        let all = shape("-Ra").await;
        assert!(all.contains("||./.dot:|.|..|x||"), "{all}");
    });
}

#[test]
fn what_is_too_deep_is_told_at_the_end() {
    run(|tree| async move {
        let deep = "d/".repeat(130);
        tree.directory(&deep);
        tree.write("file", "");
        let listing = tree
            .root
            .list(&workers(), request(Format::Long, "-R"))
            .await
            .unwrap();
        assert_eq!(collect(listing).await, Err(Failure::Overloaded));
        let listing = tree
            .root
            .list(&workers(), request(Format::Long, "-R d/d/d/d"))
            .await;
        assert!(collect(listing.unwrap()).await.is_ok());
    });
}

#[test]
fn names_cannot_break_lines() {
    run(|tree| async move {
        tree.write(b"new\nline\r\x1b", "");
        tree.write(b"caf\xe9", "");
        tree.write([b'n'; 255], "");
        tree.link("link", "to\nsomewhere");
        for (format, lines) in [
            (Format::Long, 4),
            (Format::Names, 4),
            (Format::Facts(FactSet::default()), 5),
        ] {
            let mut listing = tree
                .root
                .list(&workers(), request(format, ""))
                .await
                .unwrap();
            let text = listing.next_chunk(Vec::new()).await.unwrap().unwrap();
            assert_eq!(
                memchr::memchr_iter(b'\n', &text).count(),
                lines,
                "{format:?}"
            );
            assert_eq!(
                memchr::memchr_iter(b'\r', &text).count(),
                lines,
                "{format:?}"
            );
            let has = |part: &[u8]| memchr::memmem::find(&text, part).is_some();
            assert!(has(b"new?line??\r\n"), "{format:?}");
            assert!(has(b"caf\xe9\r\n"), "{format:?}");
            assert!(has(&[b'n'; 255]), "{format:?}");
            assert_eq!(listing.next_chunk(text).await, Ok(None));
        }
    });
}

#[test]
fn special_files_are_listed_without_being_opened() {
    run(|tree| async move {
        tree.fifo("fifo");
        let _socket = std::os::unix::net::UnixListener::bind(tree.host("socket")).unwrap();
        assert_eq!(names(&tree, "-F").await.as_deref(), Ok("fifo|,socket="));
        let text = list(&tree, request(Format::Long, "")).await.unwrap();
        assert!(
            text.starts_with("prw-r--r--") && text.contains("\r\nsrwx"),
            "{text}"
        );
        let text = list(&tree, facts("")).await.unwrap();
        assert!(
            text.contains("type=OS.unix=pipe;size=0; fifo\r\n"),
            "{text}"
        );
        assert_eq!(names(&tree, "fifo").await.as_deref(), Ok("fifo"));
    });
}

/// More than are sorted, and enough for many chunks.
fn many_files(tree: &Fixture, count: usize) {
    for number in 0..count {
        fs::File::create(tree.host(format!("file-with-a-name-{number:06}"))).unwrap();
    }
}

#[test]
fn big_directories_come_whole_in_bounded_chunks_of_which_the_first_is_small() {
    run(|tree| async move {
        many_files(&tree, 6000);
        for (format, extra) in [
            (Format::Long, 0),
            (Format::Names, 0),
            (Format::Facts(FactSet::default()), 1),
        ] {
            let mut listing = tree
                .root
                .list(&workers(), request(format, "-t"))
                .await
                .unwrap();
            let first = listing.next_chunk(Vec::new()).await.unwrap().unwrap();
            assert!(first.len() <= 4096, "{}", first.len());
            let mut text = first;
            let mut chunks = 1;
            while let Some(chunk) = listing.next_chunk(Vec::new()).await.unwrap() {
                assert!(chunk.len() <= 64 * 1024);
                text.extend_from_slice(&chunk);
                chunks += 1;
            }
            assert!(chunks >= text.len() / (64 * 1024), "{format:?}");
            let text = String::from_utf8(text).unwrap();
            let names: BTreeSet<_> = text
                .lines()
                .filter_map(|line| line.rsplit(' ').next())
                .collect();
            assert_eq!(names.len(), 6000 + extra, "{format:?}");
            assert_eq!(text.lines().count(), 6000 + extra, "{format:?}");
        }
        let few = names(&tree, "*-00000?").await.unwrap();
        assert_eq!(few.split(',').count(), 10);
        assert!(few.split(',').is_sorted(), "{few}");
    });
}

#[test]
fn a_pattern_that_matches_nothing_ends_also_in_a_big_directory() {
    run(|tree| async move {
        many_files(&tree, 20_000);
        assert_eq!(names(&tree, "*none*").await.as_deref(), Ok(""));
        let listing = list(&tree, request(Format::Long, "*-01999?"))
            .await
            .unwrap();
        assert_eq!(listing.lines().count(), 10);
    });
}

#[test]
fn entries_that_vanish_are_left_out() {
    run(|tree| async move {
        many_files(&tree, 2000);
        let mut listing = tree
            .root
            .list(&workers(), request(Format::Long, ""))
            .await
            .unwrap();
        let first = listing.next_chunk(Vec::new()).await.unwrap().unwrap();
        let shown = memchr::memchr_iter(b'\n', &first).count();
        for number in 1000..2000 {
            fs::remove_file(tree.host(format!("file-with-a-name-{number:06}"))).unwrap();
        }
        let rest = collect(listing).await.unwrap();
        assert_eq!(shown + rest.lines().count(), 1000);
        assert!(!rest.contains("-001"), "{rest}");
    });
}

#[test]
fn a_directory_that_vanishes_ends_its_listing() {
    run(|tree| async move {
        tree.directory("d/e");
        for number in 0..300 {
            tree.write(format!("d/file-with-a-long-name-{number}"), "");
        }
        let listing = tree
            .root
            .list(&workers(), request(Format::Long, "-R d"))
            .await
            .unwrap();
        fs::remove_dir_all(tree.host("d")).unwrap();
        assert!(collect(listing).await.is_ok());
    });
}

#[test]
fn uploads_that_are_not_whole_are_not_listed() {
    run(|tree| async move {
        tree.write(".ringftpd-0123456789abcdef.part", "");
        tree.write(".ringftpd-notes.part", "");
        let text = list(&tree, facts("")).await.unwrap();
        assert_eq!(
            text,
            "type=cdir; .\r\ntype=file;size=0; .ringftpd-notes.part\r\n"
        );
        let all = names(&tree, "-a").await.unwrap();
        assert_eq!(
            all,
            ".,..,.ringftpd-0123456789abcdef.part,.ringftpd-notes.part"
        );
    });
}

#[test]
fn a_dropped_call_breaks_the_listing_instead_of_leaving_a_gap() {
    run(|tree| async move {
        many_files(&tree, 3000);
        let workers = workers();
        let request = request(Format::Long, "");
        let mut listing = tree.root.list(&workers, request).await.unwrap();
        listing.next_chunk(Vec::new()).await.unwrap();
        // The only worker does something else, so that the chunk cannot be there first.
        let (release, wait) = std::sync::mpsc::channel::<()>();
        let other = workers.run(move || wait.recv());
        tokio::select! {
            biased;
            _ = listing.next_chunk(Vec::new()) => panic!("the worker does two things at once"),
            () = std::future::ready(()) => {}
        }
        release.send(()).unwrap();
        other.await.unwrap().unwrap();
        let next = listing.next_chunk(Vec::new()).await;
        assert_eq!(next, Err(Failure::Aborted));
    });
}

#[test]
fn a_listing_stays_inside_while_directories_move() {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicBool, Ordering};
    run(|tree| async move {
        tree.write("a/b/file", "");
        tree.link("a/link", "b");
        tree.link("a/b/out", "../../../..");
        let stop = Arc::new(AtomicBool::new(false));
        let (from, to) = (tree.host("a/b"), tree.host("c"));
        let mover = std::thread::spawn({
            let stop = Arc::clone(&stop);
            move || {
                while !stop.load(Ordering::Relaxed) {
                    fs::rename(&from, &to).unwrap();
                    fs::rename(&to, &from).unwrap();
                }
            }
        });
        let workers = workers();
        for _ in 0..300 {
            for argument in ["-Ra", "-a a/b/out", "-a c/out"] {
                let listing = tree
                    .root
                    .list(&workers, request(Format::Long, argument))
                    .await;
                match listing {
                    Ok(listing) => {
                        let text = collect(listing).await.unwrap();
                        assert!(!text.contains("secret"), "{text}");
                    }
                    Err(failure) => assert!(
                        matches!(failure, Failure::NotFound | Failure::Busy),
                        "{failure:?}"
                    ),
                }
            }
        }
        stop.store(true, Ordering::Relaxed);
        mover.join().unwrap();
    });
}

#[test]
fn options_have_defaults() {
    assert_eq!(ListOptions::default(), request(Format::Long, "").options);
}
