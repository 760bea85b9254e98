//! Uploads: visible only when whole, never two in one, truthful replies when something breaks, and
//! nothing left behind.

mod common;

use std::fs;
use std::io::Write;
use std::net::{Shutdown, TcpStream};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{MetadataExt, PermissionsExt};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};

use common::{Client, Setup, TestServer, Way, eventually, is_root, noise, read_all, reset};
use nix::sys::signal::Signal;
use nix::sys::socket::{MsgFlags, send};

/// Begins an upload and waits until the server has its beginning.
#[track_caller]
fn half_an_upload(client: &mut Client, command: &str, beginning: &[u8]) -> TcpStream {
    let mut stream = client.begin(Way::Epsv, command);
    stream.write_all(beginning).expect("the server reads");
    client.wait_for_progress(beginning.len() as u64);
    stream
}

#[test]
fn an_upload_is_visible_when_it_is_whole() {
    let server = TestServer::start();
    server.put("old", "what was there");
    let content = noise(3_000_000, 1);
    let mut other = server.login();
    for (name, before) in [("new", None), ("old", Some(b"what was there".to_vec()))] {
        let mut client = server.login();
        let half = content.len() / 2;
        let mut stream = half_an_upload(&mut client, &format!("STOR {name}"), &content[..half]);
        assert_eq!(
            server.get(name),
            before,
            "{name} in the middle of its upload"
        );
        let listed = other.list("NLST -a").contains(&name.as_bytes().to_vec());
        assert_eq!(listed, before.is_some());
        // Not even under a hidden name, where the file system can do without.
        let files = common::snapshot(&server.root()).len();
        assert_eq!(
            files,
            if name == "new" { 1 } else { 2 },
            "files under another name"
        );
        stream
            .write_all(&content[half..])
            .expect("the server reads");
        drop(stream);
        client.reply(226);
        assert!(
            server.get(name).as_ref() == Some(&content),
            "{name} after its upload"
        );
    }
}

#[test]
fn in_place_is_visible_from_the_first_byte() {
    let server = Setup::new().set("files.uploads", "\"in-place\"").start();
    server.put("file", "what was there, and is longer");
    let mut client = server.login();
    let mut stream = client.begin(Way::Epsv, "STOR file");
    eventually("the old content is gone", || {
        server.get("file") == Some(Vec::new())
    });
    stream
        .write_all(&[b'x'; 400_000])
        .expect("the server reads");
    client.wait_for_progress(400_000);
    eventually("what came is there", || {
        server.get("file").is_some_and(|file| !file.is_empty())
    });
    stream.write_all(b"end").expect("the server reads");
    drop(stream);
    client.reply(226);
    assert!(server.get("file") == Some([&[b'x'; 400_000], b"end".as_slice()].concat()));
}

#[test]
fn a_reader_sees_the_old_file_to_its_end_while_it_is_replaced() {
    let server = TestServer::start();
    let (old, new) = (noise(20_000_000, 2), noise(1_000_000, 3));
    server.put("file", &old);
    let mut reader = server.login();
    let mut stream = reader.begin(Way::Epsv, "RETR file");
    reader.wait_for_progress(1);
    server.login().stor("file", &new);
    assert!(read_all(&mut stream) == old);
    reader.reply(226);
    assert!(reader.retr("file") == new);
}

#[test]
fn a_reset_data_connection_is_not_226() {
    for policy in ["whole", "in-place"] {
        let server = Setup::new()
            .set("files.uploads", format!("{policy:?}"))
            .start();
        server.put("log", "begin ");
        let mut client = server.login();
        for command in ["STOR new", "STOU", "APPE log"] {
            for length in [1000, 700_000] {
                let stream = half_an_upload(&mut client, command, &noise(length, 4));
                reset(stream);
                client.reply(426);
            }
        }
        if policy == "whole" {
            let names: Vec<PathBuf> = common::snapshot(&server.root()).into_keys().collect();
            assert_eq!(names, [Path::new("log")]);
        }
        // The control connection is in step.
        client.stor("new", b"whole");
        assert_eq!(server.get("new"), Some(b"whole".to_vec()));
    }
}

#[test]
fn a_data_connection_that_ends_in_order_is_a_whole_file() {
    let server = TestServer::start();
    let mut client = server.login();
    let stream = half_an_upload(&mut client, "STOR file", b"all of it");
    // A half-closed connection has said all that it will.
    stream.shutdown(Shutdown::Write).expect("shutdown");
    client.reply(226);
    assert_eq!(server.get("file"), Some(b"all of it".to_vec()));
}

/// Bytes in files that the server has open and that have no name (open(2), O_TMPFILE).
fn bytes_without_a_name(server: &TestServer) -> u64 {
    let open = fs::read_dir(format!("/proc/{}/fd", server.pid())).expect("/proc");
    let files = open.filter_map(|entry| fs::metadata(entry.ok()?.path()).ok());
    files
        .filter(|file| file.is_file() && file.nlink() == 0)
        .map(|file| file.len())
        .sum()
}

#[test]
fn a_client_that_dies_in_the_middle_leaves_nothing() {
    let server = TestServer::start();
    server.put("old", "what was there");
    let source = server.folder().join("source");
    fs::write(&source, noise(50_000_000, 5)).expect("a file to send");
    // What one session opens for all of them stays open.
    drop(server.login());
    server.wait_for_log("session ended");
    // And a pipe that was used once, with its two ends.
    let idle = server.descriptors() + 2;
    for name in ["new", "old"] {
        for _ in 0..5 {
            let mut curl = Command::new("curl")
                .args(["--silent", "--limit-rate", "3M", "--upload-file"])
                .arg(&source)
                .arg(format!("ftp://{}/{name}", server.address()))
                .stdin(Stdio::null())
                .spawn()
                .expect("install the package curl");
            eventually("the upload runs", || {
                bytes_without_a_name(&server) > 1_000_000
            });
            curl.kill().expect("SIGKILL");
            curl.wait().expect("the end of curl");
            eventually("the session has ended", || server.descriptors() <= idle);
        }
        let expected = (name == "old").then(|| b"what was there".to_vec());
        assert!(
            server.get(name) == expected,
            "{name} is there after its client was killed"
        );
    }
    let log = server.log();
    assert_eq!(log.matches("transfer complete").count(), 0, "{log}");
    assert_eq!(common::snapshot(&server.root()).len(), 1);
}

/// The beginning goes through memory, what a fast client has sent ahead through pipes, the end through either.
#[test]
fn large_uploads_are_stored_byte_by_byte() {
    let server = TestServer::start();
    let (server, content) = (&server, &noise(20_000_011, 13));
    let store = |restart: Option<usize>, command: &str, from: usize, pieces: &[usize]| {
        let mut client = server.login();
        if let Some(offset) = restart {
            client.expect(format!("REST {offset}"), 350);
        }
        let mut stream = client.begin(Way::Epsv, command);
        let mut rest = &content[from..];
        for piece in pieces.iter().cycle() {
            let (now, later) = rest.split_at(rest.len().min(*piece));
            stream.write_all(now).expect("the server reads");
            rest = later;
            if rest.is_empty() {
                break;
            }
        }
        drop(stream);
        client.reply(226);
    };
    server.put("appe", &content[..1_000_001]);
    server.put("rest", &content[..1_000_001]);
    std::thread::scope(|scope| {
        scope.spawn(|| store(None, "STOR one", 0, &[1 << 20]));
        scope.spawn(|| store(None, "STOR small-pieces", 0, &[1, 1447, 70_000]));
        scope.spawn(|| store(None, "APPE appe", 1_000_001, &[300_001]));
        scope.spawn(|| store(Some(777_777), "STOR rest", 777_777, &[65_536, 13]));
    });
    for name in ["one", "small-pieces", "appe", "rest"] {
        assert!(server.get(name).as_ref() == Some(content), "{name}");
    }
}

/// splice(2) stops before urgent data, however much lies behind them: a look at the socket says that there is
/// something to move, and nothing moves.
#[test]
fn urgent_data_in_an_upload_do_not_stop_the_server() {
    let server = TestServer::start();
    let content = noise(4_500_000, 14);
    // So much, and nothing waits in memory for more.
    let (beginning, rest) = content.split_at(8 * 512 * 1024);
    let mut client = server.login();
    let mut stream = half_an_upload(&mut client, "STOR file", beginning);
    server.signal(Signal::SIGSTOP);
    eventually("it has stopped", || server.has_stopped());
    let urgent = send(stream.as_raw_fd(), b"!", MsgFlags::MSG_OOB).expect("urgent data");
    assert_eq!(urgent, 1);
    stream.write_all(rest).expect("room in the sockets");
    server.signal(Signal::SIGCONT);
    drop(stream);
    client.reply(226);
    // A byte like others, since it is kept in line.
    assert!(server.get("file") == Some([beginning, b"!", rest].concat()));
}

/// A pipe holds 256 pieces of packets, however short they are (pipe(7)).
#[test]
fn an_upload_in_short_packets_is_stored() {
    let server = TestServer::start();
    let content = noise(2_000_000, 15);
    let mut client = server.login();
    let mut stream = half_an_upload(&mut client, "STOR file", &content[..600_000]);
    stream.set_nodelay(true).expect("a packet for each write");
    for packet in content[600_000..].chunks(100) {
        stream.write_all(packet).expect("the server reads");
    }
    drop(stream);
    client.reply(226);
    assert!(server.get("file") == Some(content));
}

#[test]
fn an_upload_whose_control_connection_has_gone_leaves_nothing() {
    let server = TestServer::start();
    for number in 0..20 {
        let mut client = server.login();
        let stream = half_an_upload(&mut client, "STOR file", &noise(100_000, 6));
        // As the kernel closes the sockets of a client that dies: in the order of their opening.
        drop(client);
        drop(stream);
        eventually("the session has ended", || {
            server.log().matches("session ended").count() > number
        });
        assert_eq!(
            server.get("file").map(|file| file.len()),
            None,
            "round {number}"
        );
    }
}

#[test]
fn two_uploads_to_one_name_never_mix() {
    let server = TestServer::start();
    let (one, two) = (vec![b'1'; 2_000_000], vec![b'2'; 1_500_000]);
    for last_is_one in [false, true] {
        let (mut first, mut second) = (server.login(), server.login());
        let mut stream_one = half_an_upload(&mut first, "STOR file", &one[..1_000_000]);
        let mut stream_two = half_an_upload(&mut second, "STOR file", &two[..1_000_000]);
        stream_one
            .write_all(&one[1_000_000..])
            .expect("the server reads");
        stream_two
            .write_all(&two[1_000_000..])
            .expect("the server reads");
        if last_is_one {
            drop(stream_two);
            second.reply(226);
            assert!(server.get("file").as_ref() == Some(&two));
            drop(stream_one);
            first.reply(226);
            assert!(server.get("file").as_ref() == Some(&one));
        } else {
            drop(stream_one);
            first.reply(226);
            assert!(server.get("file").as_ref() == Some(&one));
            drop(stream_two);
            second.reply(226);
            assert!(server.get("file").as_ref() == Some(&two));
        }
    }
}

#[test]
fn who_writes_in_place_keeps_others_out() {
    let server = Setup::new().set("files.uploads", "\"in-place\"").start();
    let (mut first, mut second) = (server.login(), server.login());
    for holder in ["STOR file", "APPE file"] {
        let mut stream = half_an_upload(&mut first, holder, b"one");
        for command in ["STOR file", "APPE file"] {
            second.data(Way::Epsv);
            second.expect(command, 450);
        }
        stream.write_all(b" and two").expect("the server reads");
        drop(stream);
        first.reply(226);
    }
    assert_eq!(server.get("file"), Some(b"one and twoone and two".to_vec()));
    second.stor("file", b"free again");
}

#[test]
fn many_uploads_to_one_name_end_with_one_of_them() {
    let server = TestServer::start();
    std::thread::scope(|scope| {
        for thread in 0..8_u8 {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.login();
                for round in 0..15 {
                    let length = 50_000 + usize::from(thread) * 10_000 + round;
                    client.stor("file", &vec![thread; length]);
                }
            });
        }
        let mut reader = server.login();
        for _ in 0..40 {
            reader.data(Way::Epsv);
            if reader.ask("RETR missing-or-not").code == 150 {
                unreachable!("there is no such file");
            }
            if server.get("file").is_some() {
                let seen = reader.retr("file");
                assert!(
                    seen.iter().all(|byte| *byte == seen[0]),
                    "a mixture of two uploads"
                );
                let expected = 50_000 + usize::from(seen[0]) * 10_000;
                assert!(
                    (expected..expected + 15).contains(&seen.len()),
                    "half an upload"
                );
            }
        }
    });
    assert_eq!(common::snapshot(&server.root()).len(), 1);
}

/// A server whose root is a file system of 1 MiB, in a mount namespace of its own.
fn server_on_a_small_disk() -> (TestServer, PathBuf) {
    server_on("mount -t tmpfs -o size=1m,mode=0777 tmpfs \"$0\"")
}

/// A server whose root is what a shell command mounts there ($0), in a mount namespace of its own.
fn server_on(mount: &str) -> (TestServer, PathBuf) {
    let setup = Setup::new();
    let mount = format!("{mount} && exec \"$@\"");
    let root = setup.root().display().to_string();
    let namespace: &[&str] = match is_root() {
        true => &["unshare", "--mount"],
        false => &["unshare", "--user", "--map-root-user", "--mount"],
    };
    let server = setup
        .under(&[namespace, &["sh", "-c", &mount, &root]].concat())
        .start();
    let root = PathBuf::from(format!("/proc/{}/root{root}", server.pid()));
    (server, root)
}

#[test]
fn a_full_disk_is_452() {
    let (server, root) = server_on_a_small_disk();
    let mut client = server.login();
    client.stor("small", &noise(100_000, 7));
    let content = noise(4_000_000, 8);
    for (command, left) in [
        ("STOR small", Some(100_000)),
        ("STOR new", None),
        ("STOU new", None),
        ("APPE log", Some(0)),
    ] {
        let mut stream = client.begin(Way::Epsv, command);
        // The server may close the connection before all is sent.
        let _ = stream.write_all(&content);
        drop(stream);
        let reply = client.next_reply();
        assert_eq!(reply.code, 452, "{command}: {}", reply.text());
        let name = command.split(' ').next_back().expect("a name");
        let length = fs::metadata(root.join(name)).map(|file| file.len()).ok();
        match left {
            // What was appended before the disk was full is there, as in-place uploads are.
            Some(0) => fs::remove_file(root.join(name)).expect("room again"),
            left => assert_eq!(length, left, "{command}"),
        }
    }
    // The room is free again.
    client.stor("new", &noise(700_000, 9));
    assert_eq!(
        fs::metadata(root.join("new")).expect("stored").len(),
        700_000
    );
}

/// On ext4, space that was reserved while the disk became full stayed with the file for ever.
#[test]
fn an_upload_that_nearly_fills_a_disk_holds_no_more_than_its_bytes() {
    let image = tempfile::NamedTempFile::new().expect("a file");
    image.as_file().set_len(24 << 20).expect("a sparse file");
    let image = image.path().display().to_string();
    let mount =
        format!("PATH=$PATH:/sbin:/usr/sbin; mkfs.ext4 -q {image} && mount -o loop {image}");
    let mounts = format!("{mount} /mnt");
    let can = is_root()
        && Command::new("unshare")
            .args(["--mount", "sh", "-c", &mounts])
            .output()
            .is_ok_and(|tried| tried.status.success());
    if !can {
        // Not root, no mkfs.ext4, or no loop devices.
        return;
    }
    let (server, root) = server_on(&format!("{mount} \"$0\" && chmod 777 \"$0\""));
    let mut client = server.login();
    for mebibytes in 9..20 {
        let content = noise(mebibytes << 20, 11);
        client.stor("file", &content);
        let held = fs::metadata(root.join("file")).expect("stored").blocks() * 512;
        assert!(
            held < content.len() as u64 + (1 << 20),
            "{mebibytes}: {held} bytes"
        );
        fs::remove_file(root.join("file")).expect("room again");
    }
}

#[test]
fn a_file_that_grows_too_large_is_552_and_the_server_lives() {
    // RLIMIT_FSIZE: write(2) fails with EFBIG, and SIGXFSZ would end the process (setrlimit(2)).
    let server = Setup::new().under(&["prlimit", "--fsize=1000000"]).start();
    let mut client = server.login();
    for command in ["STOR new", "APPE log"] {
        let mut stream = client.begin(Way::Epsv, command);
        let _ = stream.write_all(&noise(3_000_000, 10));
        drop(stream);
        let reply = client.next_reply();
        assert_eq!(reply.code, 552, "{command}: {}", reply.text());
    }
    assert_eq!(server.get("new"), None);
    client.stor("new", &noise(900_000, 11));
}

#[test]
fn keep_leaves_what_arrived_and_rest_goes_on() {
    let server = Setup::new().set("files.failed_upload", "\"keep\"").start();
    server.put("old", "what was there");
    let content = noise(3_000_000, 12);
    let mut client = server.login();
    for end in ["reset", "abort", "leave"] {
        let name = format!("new-{end}");
        let stream = half_an_upload(&mut client, &format!("STOR {name}"), &content[..2_500_000]);
        match end {
            "reset" => {
                reset(stream);
                client.reply(426);
            }
            "abort" => {
                client.send("ABOR");
                client.replies(&[426, 226]);
            }
            _ => {
                drop(client);
                client = server.login();
            }
        }
        eventually("the beginning is kept", || server.get(&name).is_some());
        let kept = server.get(&name).expect("the beginning");
        assert!(
            !kept.is_empty() && content.starts_with(&kept),
            "{end}: {} bytes",
            kept.len()
        );
        client.expect(format!("SIZE {name}"), 213);
        client.expect(format!("REST {}", kept.len()), 350);
        client.upload(Way::Epsv, format!("STOR {name}"), &content[kept.len()..]);
        assert!(
            server.get(&name).as_ref() == Some(&content),
            "{end}: resumed"
        );
    }
    // A file that was to be replaced is kept instead.
    reset(half_an_upload(&mut client, "STOR old", &content[..500_000]));
    client.reply(426);
    assert_eq!(server.get("old"), Some(b"what was there".to_vec()));
}

#[test]
fn a_killed_server_leaves_nothing_under_whole() {
    let mut server = TestServer::start();
    server.put("old", "what was there");
    let mut streams = Vec::new();
    for command in ["STOR new", "STOR old", "STOU unique"] {
        let mut client = server.login();
        let stream = half_an_upload(&mut client, command, &noise(2_000_000, 13));
        streams.push((client, stream));
    }
    server.signal(Signal::SIGKILL);
    server.wait_for_exit();
    assert_eq!(server.get("old"), Some(b"what was there".to_vec()));
    let names: Vec<PathBuf> = common::snapshot(&server.root()).into_keys().collect();
    assert_eq!(names, [Path::new("old")]);
}

#[test]
fn what_cannot_be_stored_under_is_553() {
    let server = TestServer::start();
    fs::create_dir(server.path("dir")).expect("a directory");
    nix::unistd::mkfifo(&server.path("fifo"), nix::sys::stat::Mode::S_IRWXU).expect("a FIFO");
    let mut client = server.login();
    for name in [
        "dir",
        "fifo",
        "missing/file",
        "fifo/file",
        "/",
        ".",
        "dir/..",
    ] {
        for verb in ["STOR", "APPE"] {
            client.data(Way::Epsv);
            client.expect(format!("{verb} {name}"), 553);
        }
    }
    // RETR of a FIFO does not wait for a writer either.
    for line in ["RETR fifo", "RETR dir", "HASH fifo"] {
        client.data(Way::Epsv);
        client.expect(line, 550);
    }
    assert!(server.path("dir").is_dir());
}

#[test]
fn a_replaced_file_keeps_its_mode() {
    let server = TestServer::start();
    server.put("file", "old");
    let mode = |mode| fs::set_permissions(server.path("file"), fs::Permissions::from_mode(mode));
    mode(0o4751).expect("a mode");
    server.login().stor("file", b"new");
    let found = fs::metadata(server.path("file"))
        .expect("the file")
        .permissions()
        .mode();
    // Not the bits that make a program run as its owner.
    assert_eq!(found & 0o7777, 0o751);
}

#[test]
fn a_download_whose_file_shrinks_is_not_226() {
    let server = TestServer::start();
    let content = noise(30_000_000, 14);
    server.put("file", &content);
    let mut client = server.login();
    let mut stream = client.begin(Way::Epsv, "RETR file");
    client.wait_for_progress(1);
    let file = fs::OpenOptions::new()
        .write(true)
        .open(server.path("file"))
        .expect("the file");
    file.set_len(1000).expect("to make it shorter");
    let mut got = Vec::new();
    let ended = std::io::Read::read_to_end(&mut stream, &mut got);
    assert!(got.len() < content.len());
    let reply = client.next_reply();
    assert!(
        [426, 451].contains(&reply.code),
        "{}, {ended:?}",
        reply.text()
    );
    client.expect("NOOP", 200);
}
