//! Users who act as accounts of the host: the kernel judges what they may do, files are born theirs,
//! and nobody sees it from another session.

mod common;

use std::fs;
use std::io::Write;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::accounts::{
    ANN, BEN, NOBODY, Start, TEAM, copy_of_program, each_server, is_possible, open_to, setup,
    threads,
};
use common::{Client, PASSWORD, Setup, TestServer, Way, is_root, noise, program, run};

fn owner(path: &Path) -> (u32, u32) {
    let status = fs::symlink_metadata(path).unwrap_or_else(|error| panic!("{path:?}: {error}"));
    (status.uid(), status.gid())
}

fn mode(path: &Path) -> u32 {
    fs::metadata(path).expect("a file").mode() & 0o7777
}

/// What could have been changed of a file or a directory.
fn state(path: &Path) -> (u32, u32, i64, Option<Vec<u8>>) {
    let (uid, _) = owner(path);
    let modified = fs::metadata(path).expect("a file").mtime();
    (uid, mode(path), modified, fs::read(path).ok())
}

fn login(server: &TestServer, user: &str) -> Client {
    Client::login_as(server.address(), user)
}

#[test]
fn files_are_born_owned_by_whoever_makes_them() {
    each_server(|start, server, tree| {
        let mut ann = login(server, "ann");
        let mut vic = login(server, "vic");
        let service = (start.uid(), start.uid());
        for (client, name, owned) in [(&mut ann, "ann", (ANN, ANN)), (&mut vic, "vic", service)] {
            let at = |what: &str| format!("all/{name}-{what}");
            client.stor(at("stored"), b"content");
            client.stor(at("large"), &noise(3 << 20, 1));
            client.upload(Way::Epsv, format!("APPE {}", at("appended")), b"content");
            client.expect(format!("MKD {}", at("made")), 257);
            let data = client.data(Way::Epsv);
            let text = client.expect(format!("STOU {}", at("unique")), 150).text();
            let mut stream = data.stream();
            stream.write_all(b"content").expect("the server reads");
            drop(stream);
            client.reply(226);
            let unique = text.split_whitespace().next_back().expect("a name");
            assert!(text.contains("FILE: "), "{text}");
            assert_eq!(owner(&tree.join("all").join(unique)), owned, "{text}");
            for what in ["stored", "large", "appended", "made"] {
                assert_eq!(owner(&tree.join(at(what))), owned, "{start:?} {what}");
            }
            assert_eq!(mode(&tree.join(at("stored"))), 0o644);
            // Over it, from an offset, at its end, by another name, with other attributes.
            client.expect(format!("SITE CHMOD 640 {}", at("stored")), 200);
            client.stor(at("stored"), b"replaced");
            client.expect("REST 4", 350);
            client.upload(Way::Epsv, format!("STOR {}", at("stored")), b"after");
            client.upload(Way::Epsv, format!("APPE {}", at("stored")), b"!");
            assert_eq!(client.retr(at("stored")), b"replafter!");
            client.expect(format!("MFMT 20200102030405 {}", at("stored")), 213);
            client.expect(format!("RNFR {}", at("stored")), 350);
            client.expect(format!("RNTO {}", at("renamed")), 250);
            let renamed = tree.join(at("renamed"));
            assert_eq!((owner(&renamed), mode(&renamed)), (owned, 0o640));
            assert_eq!(
                fs::metadata(&renamed).expect("a file").mtime(),
                1_577_934_245
            );
            client.expect(format!("DELE {}", at("renamed")), 250);
            client.expect(format!("RMD {}", at("made")), 250);
            assert!(!renamed.exists() && !tree.join(at("made")).exists());
        }
        // To write to a program takes its right to run as its owner away; root's own writes do not.
        fs::write(tree.join("all/program"), "x").expect("a file");
        open_to(&tree.join("all/program"), ANN, 0o4755);
        ann.upload(Way::Epsv, "APPE all/program", b"x");
        assert_eq!(mode(&tree.join("all/program")), 0o755);
        // A directory may hand on its group.
        ann.stor("team/stored", b"content");
        assert_eq!(owner(&tree.join("team/stored")), (ANN, TEAM));
        ann.expect("SITE CHMOD 660 team/stored", 200);
        ann.stor("team/stored", b"replaced");
        assert_eq!(owner(&tree.join("team/stored")), (ANN, TEAM));
        assert_eq!(mode(&tree.join("team/stored")), 0o660);
        // What belongs to others stays theirs.
        ann.stor("all/writable", b"by ann");
        assert_eq!(owner(&tree.join("all/writable")), (BEN, BEN));
        assert_eq!(
            fs::read(tree.join("all/writable")).expect("a file"),
            b"by ann"
        );
        ann.stor("team/file", b"by ann");
        assert_eq!(owner(&tree.join("team/file")), (0, TEAM));
    });
}

/// Commands that the kernel refuses to ann, and what they would change.
const REFUSED: &[&str] = &[
    "RETR all/private",
    "RETR all/closed/file",
    "STOR all/private",
    "STOR all/readable",
    "STOR all/closed/new",
    "STOR ben/new",
    "STOR new",
    "STOU ben/new",
    "APPE all/private",
    "APPE all/readable",
    "APPE ben/new",
    "DELE all/private",
    "DELE all/closed/file",
    "DELE ben/file",
    "MKD ben/new",
    "MKD new",
    "RMD all/empty",
    "RMD all/closed",
    "CWD all/closed",
    "CWD ben",
    "LIST all/closed",
    "LIST ben",
    "LIST -R ben",
    "LIST -d all/closed/file",
    "NLST all/closed",
    "NLST ben/*",
    "MLSD all/closed",
    "MLSD ben",
    "MLST ben/file",
    "STAT ben",
    "SIZE ben/file",
    "MDTM ben/file",
    "MFMT 20200102030405 all/readable",
    "MFMT 20200102030405 all/writable",
    "MFMT 20200102030405 ben/file",
    "MFF Modify=20200102030405;UNIX.mode=0666; all/readable",
    "SITE CHMOD 666 all/readable",
    "SITE CHMOD 777 all/closed",
    "SITE CHMOD 777 all",
    "SITE CHMOD 666 ben/file",
    "SITE UTIME 20200102030405 all/readable",
    "HASH all/private",
    "XCRC all/private",
    "XMD5 all/private",
    "XSHA1 all/private",
    "XSHA256 all/private",
    "XSHA512 all/private",
    "HASH ben/file",
    "AVBL ben/file",
];

/// What these are about.
const KEPT: &[&str] = &[
    "",
    "all",
    "all/closed",
    "all/closed/file",
    "all/empty",
    "all/private",
    "all/readable",
    "ben",
    "ben/file",
    "team",
];

/// How a command is refused (RFC 959 §5.4: a name that cannot be stored is not allowed, 553).
fn refusal_of(command: &str) -> u16 {
    let stores = ["STOR ", "STOU ", "APPE "];
    match stores.iter().any(|verb| command.starts_with(verb)) {
        true => 553,
        false => 550,
    }
}

fn tell(client: &mut Client, command: &str) -> u16 {
    let verb = command.split(' ').next().expect("a verb");
    let transfers = ["RETR", "STOR", "STOU", "APPE", "LIST", "NLST", "MLSD"];
    let _data = transfers.contains(&verb).then(|| client.data(Way::Epsv));
    let reply = client.ask(command);
    if reply.code == 150 {
        return client.next_reply().code;
    }
    reply.code
}

#[test]
fn the_kernel_refuses_what_the_account_may_not() {
    each_server(|start, server, tree| {
        let before: Vec<_> = KEPT.iter().map(|name| state(&tree.join(name))).collect();
        let mut ann = login(server, "ann");
        for command in REFUSED {
            let code = tell(&mut ann, command);
            assert_eq!(code, refusal_of(command), "{start:?} {command}");
        }
        ann.expect("REST 2", 350);
        assert_eq!(tell(&mut ann, "STOR all/private"), 553, "REST");
        // In TYPE A a file is read before it is told how long it is, or written from an offset.
        ann.expect("TYPE A", 200);
        ann.expect("SIZE all/private", 550);
        ann.expect("REST 2", 350);
        assert_eq!(tell(&mut ann, "STOR all/private"), 553, "REST in TYPE A");
        ann.expect("TYPE I", 200);
        for (from, to) in [
            ("all/private", "all/renamed"),
            ("all/closed", "all/renamed"),
            ("all/readable", "ann/renamed"),
        ] {
            ann.expect(format!("RNFR {from}"), 350);
            ann.expect(format!("RNTO {to}"), 550);
        }
        ann.expect("RNFR ben/file", 550);
        ann.stor("all/ann", b"x");
        for to in ["ben/file", "all/private", "all/closed/x"] {
            ann.expect("RNFR all/ann", 350);
            ann.expect(format!("RNTO {to}"), 550);
        }
        ann.expect("DELE all/ann", 250);
        // What may be read can be read; lists leave out nothing that has a name.
        assert_eq!(ann.retr("all/readable"), b"content");
        ann.expect("MLST all/closed", 250);
        assert_eq!(ann.list("NLST all").len(), 5);
        let listing = ann.list("LIST -R all");
        let listing: Vec<_> = listing
            .iter()
            .map(|line| String::from_utf8_lossy(line))
            .collect();
        assert!(
            listing.iter().any(|line| line.ends_with(" private")),
            "{listing:?}"
        );
        assert!(
            !listing.iter().any(|line| line.ends_with(" file")),
            "{listing:?}"
        );
        let after: Vec<_> = KEPT.iter().map(|name| state(&tree.join(name))).collect();
        // Names have come and gone in the directory for all.
        for (index, name) in KEPT.iter().enumerate().filter(|(_, name)| **name != "all") {
            assert_eq!(after[index], before[index], "{start:?} {name}");
        }
        // The owner may do all of it.
        let mut ben = login(server, "ben");
        for command in REFUSED {
            let (reads, names) = (
                ["SIZE", "MDTM", "MLST", "XCRC", "CWD"],
                command.contains("ben/file") || command.contains("all/private"),
            );
            if reads.iter().any(|verb| command.starts_with(verb)) && names {
                let code = tell(&mut ben, command);
                assert!(code < 400, "{start:?} ben's {command}: {code}");
            }
        }
        assert_eq!(tell(&mut ben, "SITE CHMOD 600 all/readable"), 200);
        assert_eq!(tell(&mut ben, "MFMT 20200102030405 all/readable"), 213);
        assert_eq!(tell(&mut ben, "DELE all/private"), 250);
    });
}

#[test]
fn supplementary_groups_open_what_they_should() {
    each_server(|start, server, tree| {
        let mut ann = login(server, "ann");
        let mut ben = login(server, "ben");
        assert_eq!(ann.retr("team/file"), b"content");
        ann.expect("CWD team", 250);
        assert_eq!(ann.list("NLST").len(), 1);
        ann.expect("SITE CHMOD 664 file", 550);
        for command in ["RETR team/file", "CWD team", "NLST team", "STOR team/x"] {
            let code = tell(&mut ben, command);
            assert_eq!(code, refusal_of(command), "{start:?} {command}");
        }
        assert!(!tree.join("team/x").exists());
    });
}

/// What a client of the test below may do.
struct Part {
    user: &'static str,
    own: &'static str,
    uid: u32,
    /// One that is refused.
    closed: &'static str,
}

#[test]
fn sessions_of_one_core_never_see_each_others_rights() {
    each_server(|start, server, tree| {
        open_to(&tree.join("ann"), ANN, 0o700);
        fs::create_dir(tree.join("vic")).expect("a directory");
        open_to(&tree.join("vic"), start.uid(), 0o700);
        let parts = [
            Part {
                user: "ann",
                own: "ann",
                uid: ANN,
                closed: "ben",
            },
            Part {
                user: "ben",
                own: "ben",
                uid: BEN,
                closed: "team",
            },
            Part {
                user: "vic",
                own: "vic",
                uid: start.uid(),
                closed: "ann",
            },
        ];
        let ended = AtomicBool::new(false);
        thread::scope(|scope| {
            let watcher = scope.spawn(|| watch(server, start.uid(), &ended));
            let workers = parts.iter().map(|part| {
                // Root, when it acts as itself, is refused nothing.
                let is_refused = part.uid != 0;
                scope.spawn(move || take_part(server, tree, part, is_refused))
            });
            let workers: Vec<_> = workers.collect();
            let done: Vec<_> = workers
                .into_iter()
                .map(thread::ScopedJoinHandle::join)
                .collect();
            ended.store(true, Ordering::Relaxed);
            let looks = watcher.join().expect("every thread was the server's");
            assert!(looks > 10, "{looks} looks");
            for part in done {
                part.expect("everybody had their own rights");
            }
        });
    });
}

/// Looks at all threads again and again: none is anybody else's, and a core is not even for a moment.
fn watch(server: &TestServer, uid: u32, ended: &AtomicBool) -> u32 {
    let mut looks = 0;
    while !ended.load(Ordering::Relaxed) {
        for (name, status) in threads(server) {
            let values = |key: &str| -> Vec<String> {
                let line = status.lines().find_map(|line| line.strip_prefix(key));
                let line = line.unwrap_or_default().split_whitespace();
                line.map(str::to_owned).collect()
            };
            // Real, effective and saved ones; the last is for files.
            let never_change = if name.starts_with("core") || name.starts_with("iou-wrk") {
                4
            } else {
                3
            };
            for key in ["Uid:", "Gid:"] {
                let values = values(key);
                let kept = values.iter().take(never_change);
                let kept: Vec<_> = kept.filter(|id| **id != uid.to_string()).collect();
                assert!(kept.is_empty(), "{name} {key} {values:?}");
            }
        }
        looks += 1;
    }
    looks
}

fn take_part(server: &TestServer, tree: &Path, part: &Part, is_refused: bool) {
    let Part {
        user,
        own,
        uid,
        closed,
    } = part;
    for round in 0..8 {
        let mut client = login(server, user);
        for turn in 0..12 {
            let name = format!("{own}/{round}-{turn}");
            client.stor(&name, name.as_bytes());
            assert_eq!(owner(&tree.join(&name)).0, *uid, "{name}");
            assert_eq!(client.retr(&name), name.as_bytes());
            client.expect(format!("SITE CHMOD 600 {name}"), 200);
            client.stor(&name, b"again");
            assert_eq!(mode(&tree.join(&name)), 0o600);
            assert!(!client.list(format!("NLST {own}")).is_empty());
            client.expect(format!("XMD5 {name}"), 250);
            if is_refused {
                for command in [
                    format!("NLST {closed}"),
                    format!("CWD {closed}"),
                    format!("STOR {closed}/x"),
                    format!("MKD {closed}/x"),
                    format!("SITE CHMOD 777 {closed}"),
                ] {
                    let code = tell(&mut client, &command);
                    assert_eq!(code, refusal_of(&command), "{user}: {command}");
                }
            }
            client.expect(format!("DELE {name}"), 250);
        }
        client.expect("QUIT", 221);
    }
}

#[test]
fn logins_leave_neither_descriptors_nor_personalities_behind() {
    if !is_possible() {
        return;
    }
    let server = setup(Start::GivenUp).start();
    let settle = || {
        let mut ann = login(&server, "ann");
        ann.stor("all/file", b"x");
        ann.expect("QUIT", 221);
        ann.ended();
    };
    settle();
    let before = server.descriptors();
    for _ in 0..50 {
        settle();
        // Gone before the answer.
        let mut hasty = server.connect();
        hasty.expect("USER ann", 331);
        hasty.send(format!("PASS {PASSWORD}"));
    }
    common::eventually("descriptors are closed", || server.descriptors() <= before);
    let mut ben = login(&server, "ben");
    assert_eq!(tell(&mut ben, "DELE all/file"), 550);
}

#[test]
fn accounts_that_nobody_may_act_as_are_told_with_a_way_out() {
    if !is_possible() {
        return;
    }
    let cases = [
        ("unknown", "there is no user"),
        ("low", "below users.system_uid_min (1000)"),
        ("root", "root itself"),
    ];
    for (account, told) in cases {
        let setup = setup(Start::Root);
        let file = setup.folder().join("users.toml");
        let text = fs::read_to_string(&file).expect("the users file");
        let text = text.replace("system = \"ann\"", &format!("system = {account:?}"));
        fs::write(&file, text).expect("the users file");
        let server = setup.start();
        refused(&server, "ann");
        let line = server.wait_for_log("logins cannot be verified");
        assert!(line.contains(told) && line.contains("user ann"), "{line}");
        let config = server.folder().join("ringftpd.toml");
        let checked = run(Command::new(program())
            .arg("check")
            .arg("--config")
            .arg(config));
        let text = format!("{}{}", String::from_utf8_lossy(&checked.out), checked.err);
        // The accounts are the server's only: here there is no ben either.
        assert!(
            text.contains("until then this user cannot log in"),
            "{text}"
        );
        assert_eq!(checked.code, Some(0), "{account}: {text}");
    }
}

/// A login for which the password is right, and which fails all the same.
fn refused(server: &TestServer, user: &str) {
    let mut client = server.connect();
    client.expect(format!("USER {user}"), 331);
    let reply = client.ask(format!("PASS {PASSWORD}"));
    assert!(matches!(reply.code, 421 | 530), "{}", reply.text());
}

#[test]
fn a_root_that_the_account_may_not_enter_is_not_served() {
    if !is_possible() {
        return;
    }
    let setup = setup(Start::GivenUp);
    let file = setup.folder().join("users.toml");
    let tree: PathBuf = setup.folder().join("tree");
    let text = fs::read_to_string(&file).expect("the users file");
    let first = format!("root = {tree:?}");
    let inside = format!("root = {:?}", tree.join("all/closed/deep"));
    fs::create_dir(tree.join("all/closed/deep")).expect("a directory");
    // Of ann and ben; vic, the first, goes on.
    let text = text.replace(&first, &inside).replacen(&inside, &first, 1);
    fs::write(&file, text).expect("the users file");
    let server = setup.start();
    refused(&server, "ann");
    server.wait_for_log("Permission denied");
    login(&server, "ben");
}

#[test]
fn quotas_and_folders_are_the_accounts_too() {
    if !is_possible() {
        return;
    }
    let setup = setup(Start::GivenUp);
    let folder = setup.folder().to_owned();
    let state = folder.join("state");
    let host = folder.join("host");
    for (path, uid, mode) in [
        (&state, NOBODY, 0o700),
        (&host, ANN, 0o700),
        (&host.join("inner"), ANN, 0o777),
        (&folder.join("tree/ann-folder"), ANN, 0o700),
        (&folder.join("tree/ann/full"), ANN, 0o700),
    ] {
        fs::create_dir_all(path).expect("a directory");
        open_to(path, uid, mode);
    }
    fs::write(folder.join("tree/ann/full/file"), noise(600 << 10, 3)).expect("a file");
    let file = folder.join("users.toml");
    let text = fs::read_to_string(&file).expect("the users file");
    let keys = format!(
        "quota = \"1 MiB\"\nfolders = {{ \"/ann-folder\" = {:?} }}\n",
        host.join("inner")
    );
    for system in ["system = \"ann\"", "system = \"{user}\""] {
        assert!(text.contains(system), "{text}");
    }
    let text = text
        .replace("system = \"ann\"", &format!("{keys}system = \"ann\""))
        .replace(
            "system = \"{user}\"",
            &format!("{keys}system = \"{{user}}\""),
        );
    fs::write(&file, text).expect("the users file");
    let server = setup.set("users.state", format!("{state:?}")).start();
    let mut ann = login(&server, "ann");
    // What only ann may read has been counted; what she may not is not hers.
    assert_eq!(tell_large(&mut ann, "STOR ann/more", 500 << 10), 552);
    assert_eq!(tell_large(&mut ann, "STOR ann/more", 300 << 10), 226);
    let ledger = state.join("quota-ann");
    assert_eq!(owner(&ledger).0, NOBODY, "the server's own file");
    ann.stor("ann-folder/file", b"x");
    assert_eq!(owner(&host.join("inner/file")), (ANN, ANN));
    // ben has no way to it, though everybody could write there.
    let mut ben = login(&server, "ben");
    server.wait_for_log("a folder is not in the tree");
    assert_eq!(tell(&mut ben, "RETR ann-folder/file"), 550);
    assert_eq!(tell(&mut ben, "NLST ann-folder"), 550);
}

fn tell_large(client: &mut Client, command: &str, bytes: usize) -> u16 {
    let mut stream = client.begin(Way::Epsv, command);
    // The server may close the connection before all is sent.
    let _ = stream.write_all(&noise(bytes, 4));
    drop(stream);
    client.next_reply().code
}

#[test]
fn to_turn_it_on_takes_a_restart_and_nobody_gets_in_without() {
    if !is_possible() {
        return;
    }
    let setup = setup(Start::GivenUp).set("users.system", false);
    let config = setup.write();
    let serve = |verb: &str| {
        run(Command::new(program())
            .arg(verb)
            .arg("--config")
            .arg(&config))
    };
    for verb in ["check", "serve"] {
        let told = serve(verb);
        assert_ne!(told.code, Some(0), "{verb}");
        assert!(
            told.err.contains("set users.system to true"),
            "{}",
            told.err
        );
    }
    let file = setup.folder().join("users.toml");
    let text = fs::read_to_string(&file).expect("the users file");
    let lines = text.lines().filter(|line| !line.starts_with("system"));
    fs::write(&file, lines.collect::<Vec<_>>().join("\n")).expect("the users file");
    let mut server = setup.start();
    login(&server, "ann");
    fs::write(&file, text).expect("the users file");
    refused(&server, "ann");
    server.wait_for_log("users.system is off");
    server.set("users.system", true);
    let told = server.reload();
    let text = format!("{}{}", String::from_utf8_lossy(&told.out), told.err);
    assert!(
        text.contains("users.system") && text.contains("restart"),
        "{text}"
    );
    assert_eq!(told.code, Some(0), "the rest is taken over: {text}");
    refused(&server, "ann");
}

#[test]
fn a_process_that_may_not_act_as_others_does_not_start() {
    let setup = Setup::new().set("users.system", true);
    let path = setup.write();
    open_for_everybody(setup.folder());
    let copy = copy_of_program(setup.folder());
    let told = run(command_as_nobody(&copy)
        .arg("serve")
        .arg("--config")
        .arg(&path));
    assert_eq!(told.code, Some(2), "{}", told.err);
    assert!(told.err.contains("users.system"), "{}", told.err);
    assert!(told.err.contains("CAP_SETUID"), "{}", told.err);
    // To look whether it could is no reason to be root.
    let checked = run(command_as_nobody(&copy)
        .arg("check")
        .arg("--config")
        .arg(&path));
    let text = String::from_utf8_lossy(&checked.out);
    assert!(
        text.contains("warning: users.system"),
        "{text}{}",
        checked.err
    );
    assert!(text.contains("acts as accounts of this host"), "{text}");
    assert_eq!(checked.code, Some(0), "{text}");
}

/// The program without any of root's rights.
fn command_as_nobody(program: &Path) -> Command {
    if !is_root() {
        return Command::new(program);
    }
    let mut command = Command::new("setpriv");
    let nobody = NOBODY.to_string();
    command
        .args(["--reuid", &nobody, "--regid", &nobody, "--clear-groups"])
        .arg(program);
    command
}

fn open_for_everybody(folder: &Path) {
    fs::set_permissions(folder, fs::Permissions::from_mode(0o755)).expect("a mode");
}
