//! Nothing escapes the root: not by "..", not by absolute names, not by links, and not while names
//! change under the server's feet.

mod common;

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{Client, Setup, TestServer, Way, identity, snapshot};

/// What no client may see.
const SECRET: &[u8] = b"SECRET of the host";

/// A name that no link in the tree mentions.
const ONLY_OUTSIDE: &str = "only-outside";

/// A root with ways out of it, and what is outside, beside the root.
fn server_with_ways_out() -> TestServer {
    let server = TestServer::start();
    let outside = server.folder().join("outside");
    fs::create_dir_all(outside.join("dir")).expect("outside");
    fs::write(outside.join("secret"), SECRET).expect("a secret");
    fs::write(outside.join("dir/secret"), SECRET).expect("a secret");
    for directory in [outside.clone(), outside.join("dir")] {
        fs::write(directory.join(ONLY_OUTSIDE), "").expect("a file outside");
    }
    fs::create_dir_all(server.path("a/b")).expect("inside");
    let link = |target: &Path, name: &str| symlink(target, server.path(name)).expect("a link");
    link(&outside.join("secret"), "absolute-file");
    link(&outside, "absolute-dir");
    link(Path::new("../outside"), "relative-dir");
    link(Path::new("../../../outside/secret"), "a/relative-file");
    link(Path::new("absolute-dir"), "chain");
    link(Path::new("/proc/self/root"), "magic");
    link(Path::new("/proc/self/cwd"), "magic-cwd");
    link(Path::new("/"), "slash");
    link(Path::new(".."), "up");
    server
}

/// Names that would lead outside if paths were what shells think they are.
fn ways_out(server: &TestServer) -> Vec<String> {
    let outside = server.folder().join("outside").display().to_string();
    let mut names: Vec<String> = [
        "../outside/secret",
        "/../outside/secret",
        "a/../../outside/secret",
        "a/b/../../../outside/secret",
        "./../outside/dir/../secret",
        "/./.././../outside/secret",
        "//..//outside//secret",
        "....//outside/secret",
        "absolute-file",
        "absolute-dir/secret",
        "relative-dir/secret",
        "relative-dir/dir/secret",
        "a/relative-file",
        "chain/secret",
        "up/outside/secret",
        "slash/../outside/secret",
        "magic/etc/passwd",
        "magic-cwd/Cargo.toml",
        "/proc/self/root/etc/passwd",
        "/etc/passwd",
    ]
    .iter()
    .map(|name| (*name).to_owned())
    .collect();
    names.extend([format!("{outside}/secret"), format!("/{outside}/secret")]);
    names.push(format!("slash{outside}/secret"));
    names
}

#[test]
fn nothing_outside_can_be_read() {
    let server = server_with_ways_out();
    let mut client = server.login();
    for name in ways_out(&server) {
        for verb in ["SIZE", "MDTM", "MLST", "CWD", "HASH", "XMD5", "AVBL"] {
            client.expect(format!("{verb} {name}"), 550);
        }
        client.passive(Way::Epsv);
        client.expect(format!("RETR {name}"), 550);
        for verb in ["LIST", "NLST", "MLSD", "STAT"] {
            let _data = client.data(Way::Epsv);
            let reply = client.ask(format!("{verb} {name}"));
            // LIST of a link shows the link.
            assert!(
                [150, 213, 450, 550].contains(&reply.code),
                "{verb} {name}: {}",
                reply.text()
            );
            if reply.code == 150 || (reply.code == 213 && !reply.body().is_empty()) {
                assert!(is_link(&server, &name), "{verb} {name}: {}", reply.text());
            }
            client = server.login();
        }
    }
    // A link to the root of the host leads to the root of the tree.
    client.expect("OPTS MLST type;size;", 200);
    assert_eq!(client.list("MLSD slash/a"), client.list("MLSD a"));
    client.expect("CWD slash", 250);
    client.expect("CWD up", 250);
    client.expect("SIZE outside/secret", 550);
}

fn is_link(server: &TestServer, name: &str) -> bool {
    server.path(name.trim_start_matches('/')).is_symlink()
}

#[test]
fn directories_outside_can_not_be_listed() {
    let server = server_with_ways_out();
    for name in [
        "absolute-dir",
        "relative-dir",
        "chain",
        "magic",
        "..",
        "/..",
        "../outside",
    ] {
        for suffix in ["", "/", "/.", "/dir", "/*", "/../outside"] {
            for verb in ["LIST", "LIST -R", "NLST", "MLSD"] {
                let mut client = server.login();
                let data = client.data(Way::Epsv);
                let command = format!("{verb} {name}{suffix}");
                if client.ask(&command).code == 150 {
                    let shown = common::read_all(&mut data.stream());
                    let shown = String::from_utf8_lossy(&shown).into_owned();
                    let leaked = shown.contains(ONLY_OUTSIDE) || shown.contains("ringftpd.toml");
                    assert!(!leaked, "{command}: {shown}");
                }
            }
        }
    }
}

#[test]
fn nothing_outside_can_be_changed() {
    let server = server_with_ways_out();
    let outside = server.folder().join("outside");
    let before = (
        snapshot(&outside),
        identity(&outside),
        identity(&outside.join("secret")),
    );
    let mut client = server.login();
    client.stor("mine", b"content");
    for name in ways_out(&server) {
        let inside = is_link(&server, &name);
        for line in [
            format!("SITE CHMOD 777 {name}"),
            format!("MFMT 20200101000000 {name}"),
            format!("MFF UNIX.mode=0777; {name}"),
            format!("SITE UTIME 20200101000000 {name}"),
        ] {
            client.expect(line, 550);
        }
        for verb in ["STOR", "APPE"] {
            client.data(Way::Epsv);
            let reply = client.ask(format!("{verb} {name}"));
            assert!(
                [550, 553].contains(&reply.code),
                "{verb} {name}: {}",
                reply.text()
            );
        }
        // Of a link these would take the link itself, which is inside.
        for verb in ["DELE", "RMD", "MKD", "RNFR"] {
            if !inside {
                let reply = client.ask(format!("{verb} {name}"));
                assert!(
                    [550, 553].contains(&reply.code),
                    "{verb} {name}: {}",
                    reply.text()
                );
            }
        }
        client.expect("RNFR mine", 350);
        if inside {
            client.expect("NOOP", 200);
        } else {
            let reply = client.ask(format!("RNTO {name}"));
            assert!(
                [550, 553].contains(&reply.code),
                "RNTO {name}: {}",
                reply.text()
            );
        }
    }
    let after = (
        snapshot(&outside),
        identity(&outside),
        identity(&outside.join("secret")),
    );
    assert!(before == after, "something outside has changed");
    assert_eq!(server.get("mine"), Some(b"content".to_vec()));
}

#[test]
fn links_inside_lead_where_they_lead_in_the_tree() {
    let server = TestServer::start();
    fs::create_dir(server.path("dir")).expect("a directory");
    server.put("dir/file", "content");
    // Absolute: from the root of the tree, as chroot(2) would have it.
    for (target, name) in [
        ("dir/file", "file"),
        ("/dir/file", "absolute"),
        ("/dir", "d"),
    ] {
        symlink(target, server.path(name)).expect("a link");
    }
    let mut client = server.login();
    for name in ["file", "absolute", "d/file"] {
        assert_eq!(client.retr(name), b"content", "{name}");
        client.expect(format!("SIZE {name}"), 213);
    }
    client.expect("CWD d", 250);
    assert!(client.expect("PWD", 257).text().contains("\"/d\""));
    // ".." goes the way back, as a shell's does.
    client.expect("CDUP", 250);
    assert!(client.expect("PWD", 257).text().contains("\"/\""));
    // An upload goes through the link and leaves it.
    client.stor("file", b"changed");
    assert!(is_link(&server, "file"));
    assert_eq!(server.get("dir/file"), Some(b"changed".to_vec()));
}

#[test]
fn links_are_removed_and_renamed_themselves() {
    let server = server_with_ways_out();
    let mut client = server.login();
    client.expect("RNFR absolute-file", 350);
    client.expect("RNTO renamed", 250);
    assert!(is_link(&server, "renamed"));
    for name in ["renamed", "absolute-dir", "chain", "slash"] {
        client.expect(format!("DELE {name}"), 250);
        assert!(!is_link(&server, name));
    }
    client.expect("RMD relative-dir", 550);
    assert!(is_link(&server, "relative-dir"));
    assert_eq!(
        fs::read(server.folder().join("outside/secret")).expect("the secret"),
        SECRET
    );
    assert!(server.path("a/b").is_dir());
}

#[test]
fn loops_of_links_end() {
    let server = TestServer::start();
    symlink("two", server.path("one")).expect("a link");
    symlink("one", server.path("two")).expect("a link");
    symlink(".", server.path("self")).expect("a link");
    server.put("file", "content");
    let mut client = server.login();
    client.expect("CWD one", 550);
    client.passive(Way::Epsv);
    client.expect("RETR one", 550);
    assert_eq!(client.retr("self/self/self/file"), b"content");
    // LIST -R does not follow links.
    assert!(client.list("LIST -R").len() < 20);
}

/// Lets `work` go on while `change` is repeated.
fn while_changing(change: impl Fn() + Sync, work: impl FnOnce()) {
    let ended = AtomicBool::new(false);
    thread::scope(|scope| {
        scope.spawn(|| {
            while !ended.load(Ordering::Relaxed) {
                change();
            }
        });
        // The thread must end whatever becomes of the work.
        let result = std::panic::catch_unwind(std::panic::AssertUnwindSafe(work));
        ended.store(true, Ordering::Relaxed);
        if let Err(panic) = result {
            std::panic::resume_unwind(panic);
        }
    });
}

#[test]
fn a_directory_that_becomes_a_link_leads_nowhere_outside() {
    let server = TestServer::start();
    let outside = server.folder().join("outside");
    fs::create_dir(&outside).expect("outside");
    fs::write(outside.join("file"), SECRET).expect("a secret");
    fs::create_dir_all(server.path("dir")).expect("inside");
    server.put("dir/file", "public");
    let (dir, spare, link) = (
        server.path("dir"),
        server.path("spare"),
        server.path("link"),
    );
    symlink(&outside, &link).expect("a link");
    let flip = || {
        fs::rename(&dir, &spare).expect("the directory goes");
        fs::rename(&link, &dir).expect("the link comes");
        fs::rename(&dir, &link).expect("the link goes");
        fs::rename(&spare, &dir).expect("the directory comes");
    };
    let mut client = server.login();
    let mut found = 0;
    while_changing(flip, || {
        for _ in 0..600 {
            let data = client.data(Way::Epsv);
            if client.ask("RETR dir/file").code == 150 {
                let got = common::read_all(&mut data.stream());
                client.reply(226);
                assert_eq!(got, b"public");
                found += 1;
            }
            for line in ["SITE CHMOD 600 dir/file", "MFMT 20200101000000 dir/file"] {
                client.ask(line);
            }
            let data = client.data(Way::Epsv);
            if client.ask("STOR dir/new").code == 150 {
                drop(data.stream());
                client.next_reply();
            }
            client.ask("DELE dir/new");
            client.ask("MKD dir/newdir");
            client.ask("RMD dir/newdir");
        }
    });
    assert!(found > 0, "the file was never there");
    let seen = snapshot(&outside);
    assert_eq!(seen.len(), 1, "{:?}", seen.keys());
    assert_ne!(
        fs::metadata(outside.join("file"))
            .expect("the secret")
            .modified()
            .expect("a time")
            .duration_since(std::time::UNIX_EPOCH)
            .expect("after 1970")
            .as_secs(),
        1_577_836_800
    );
}

#[test]
fn a_directory_that_moves_takes_nobody_out_by_dot_dot() {
    let server = TestServer::start();
    let outside = server.folder().join("outside");
    fs::create_dir_all(&outside).expect("outside");
    fs::write(server.folder().join("secret"), SECRET).expect("a secret");
    fs::create_dir_all(server.path("a/b/c")).expect("inside");
    server.put("secret", "public");
    symlink("../../../secret", server.path("a/b/c/link")).expect("a link");
    let (inside, away) = (server.path("a/b"), outside.join("b"));
    let flip = || {
        fs::rename(&inside, &away).expect("out");
        fs::rename(&away, &inside).expect("in");
    };
    let mut client = server.login();
    let mut found = 0;
    while_changing(flip, || {
        for _ in 0..1000 {
            // ".." of the link, resolved by the kernel while the directory moves (openat2(2)).
            let data = client.data(Way::Epsv);
            if client.ask("RETR a/b/c/link").code == 150 {
                let got = common::read_all(&mut data.stream());
                client.reply(226);
                assert_eq!(got, b"public");
                found += 1;
            }
        }
    });
    assert!(found > 0, "the link was never there");
}

#[test]
fn clients_that_rename_at_the_same_time_lose_nothing() {
    let server = TestServer::start();
    fs::create_dir_all(server.path("x")).expect("a directory");
    fs::create_dir_all(server.path("y")).expect("a directory");
    for number in 0..20 {
        server.put(&format!("x/{number}"), number.to_string());
    }
    thread::scope(|scope| {
        for (from, to) in [("x", "y"), ("y", "x"), ("x", "y"), ("y", "x")] {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.login();
                for round in 0..200 {
                    let number = round % 20;
                    if client.ask(format!("RNFR {from}/{number}")).code == 350 {
                        let code = client.ask(format!("RNTO {to}/{number}")).code;
                        assert!([250, 550].contains(&code), "{code}");
                    }
                }
            });
        }
    });
    let files = snapshot(&server.root());
    let mut contents: Vec<_> = files.values().flatten().cloned().collect();
    contents.sort_by_key(|content| String::from_utf8_lossy(content).parse::<u32>().ok());
    let expected: Vec<_> = (0..20)
        .map(|number: i32| number.to_string().into_bytes())
        .collect();
    assert_eq!(contents, expected);
}

#[test]
fn users_do_not_see_each_other() {
    let server = Setup::new()
        .user("alice", "read-write")
        .user("bob", "read-write")
        .start();
    fs::write(server.folder().join("bob/secret"), SECRET).expect("a secret");
    let mut alice = Client::login_as(server.address(), "alice");
    symlink("../bob", server.folder().join("alice/link")).expect("a link");
    for name in ["../bob/secret", "link/secret", "/bob/secret", "bob/secret"] {
        alice.expect(format!("SIZE {name}"), 550);
        alice.data(Way::Epsv);
        alice.expect(format!("RETR {name}"), 550);
    }
    let mut bob = Client::login_as(server.address(), "bob");
    assert_eq!(bob.retr("secret"), SECRET);
}

#[test]
fn a_root_that_is_gone_is_421_and_comes_back() {
    let server = Setup::new().user("alice", "read-write").start();
    let (here, away) = (server.folder().join("alice"), server.folder().join("away"));
    fs::rename(&here, &away).expect("away");
    let mut client = server.connect();
    client.expect("USER alice", 331);
    client.expect(format!("PASS {}", common::PASSWORD), 421);
    client.ended();
    fs::rename(&away, &here).expect("back");
    Client::login_as(server.address(), "alice").expect("PWD", 257);
}
