//! Limits of bandwidth, sessions, connections, commands and disk space: kept, and told clearly.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::path::Path;
use std::process::Command;
use std::sync::Barrier;
use std::thread;
use std::time::{Duration, Instant};

use common::{Client, PASSWORD, Setup, TestServer, Way, eventually, noise, program, read_all, run};
use nix::sys::signal::Signal;

const KIB: usize = 1024;

/// Adds keys to a user's section of the users file.
fn allow(folder: &Path, user: &str, keys: &str) {
    let file = folder.join("users.toml");
    let text = fs::read_to_string(&file).expect("the users file");
    let header = format!("[user.{user}]\n");
    assert!(text.contains(&header), "{text}");
    fs::write(file, text.replace(&header, &format!("{header}{keys}\n"))).expect("the users file");
}

/// How long something takes.
fn timed<T>(work: impl FnOnce() -> T) -> (Duration, T) {
    let start = Instant::now();
    let done = work();
    (start.elapsed(), done)
}

/// What `ringftpd quota` says.
fn quota(server: &TestServer, arguments: &[&str]) -> String {
    let mut command = Command::new(program());
    command.arg("quota").args(arguments).arg("--socket");
    let output = run(command.arg(server.folder().join("admin.sock"))).success();
    String::from_utf8(output).expect("UTF-8")
}

/// A value of the metrics.
fn metric(server: &TestServer, series: &str) -> f64 {
    let mut socket = std::os::unix::net::UnixStream::connect(server.folder().join("admin.sock"))
        .expect("the administrator's socket");
    socket
        .write_all(b"GET /metrics HTTP/1.0\r\n\r\n")
        .expect("a request");
    let mut text = String::new();
    socket.read_to_string(&mut text).expect("an answer");
    let line = text.lines().find(|line| line.starts_with(series));
    let line = line.unwrap_or_else(|| panic!("no {series} in\n{text}"));
    let value = line.rsplit_once(' ').expect("a value").1;
    value.parse().expect("a number")
}

fn hits(server: &TestServer, limit: &str) -> f64 {
    let series = format!("ringftpd_limit_hits_total{{limit=\"{limit}\"}}");
    metric(server, &series)
}

#[test]
fn a_transfer_takes_as_long_as_each_rate_makes_it() {
    let content = noise(600 * KIB, 1);
    for (down, up) in [
        ("limits.session_down", "limits.session_up"),
        ("limits.ip_down", "limits.ip_up"),
        ("limits.total_down", "limits.total_up"),
        ("anonymous.down", "anonymous.up"),
    ] {
        let server = Setup::new()
            .set(down, "\"1000 KiB/s\"")
            .set(up, "\"1200 KiB/s\"")
            .start();
        server.put("file", &content);
        let mut client = server.login();
        let (took, got) = timed(|| client.retr("file"));
        assert!(got == content);
        // 600 ms less what an idle bucket saves.
        assert!(took >= Duration::from_millis(480), "{down}: {took:?}");
        let (took, ()) = timed(|| client.stor("up", &content));
        assert!(server.get("up").as_ref() == Some(&content));
        assert!(took >= Duration::from_millis(380), "{up}: {took:?}");
        let line = server.wait_for_log("verb=\"STOR\"");
        assert!(line.contains("waited="), "{line}");
        let waited = metric(
            &server,
            "ringftpd_rate_wait_seconds_total{direction=\"down\"}",
        );
        assert!(waited > 0.3, "{waited} s");
    }
}

#[test]
fn a_text_file_and_a_listing_are_held_to_the_rate_too() {
    let server = Setup::new()
        .set("limits.session_down", "\"100 KiB/s\"")
        .set("limits.session_up", "\"100 KiB/s\"")
        .start();
    server.put("file", "x\n".repeat(20 * KIB));
    for number in 0..400 {
        server.put(&format!("a file with a long name {number:0100}"), "");
    }
    let mut client = server.login();
    let (took, lines) = timed(|| client.list("NLST"));
    assert_eq!(lines.len(), 401);
    assert!(took >= Duration::from_millis(350), "{took:?}");
    client.expect("TYPE A", 200);
    let (took, got) = timed(|| client.retr("file"));
    assert_eq!(got.len(), 60 * KIB);
    assert!(took >= Duration::from_millis(450), "{took:?}");
    let (took, ()) = timed(|| client.stor("up", &got));
    assert!(took >= Duration::from_millis(450), "{took:?}");
}

#[test]
fn small_files_one_after_the_other_are_no_way_around_a_rate() {
    let server = Setup::new()
        .set("limits.session_down", "\"200 KiB/s\"")
        .start();
    server.put("file", noise(5 * KIB, 1));
    let mut client = server.login();
    let (took, ()) = timed(|| {
        for _ in 0..20 {
            client.retr("file");
        }
    });
    assert!(took >= Duration::from_millis(400), "{took:?}");
}

#[test]
fn sessions_of_a_user_share_the_users_rate_and_others_have_theirs() {
    let server = Setup::new()
        .set("server.cores", 2)
        .user("alice", "read-write")
        .user("bob", "read-write")
        .start();
    allow(server.folder(), "alice", "down = \"800 KiB/s\"");
    let content = noise(300 * KIB, 1);
    for user in ["alice", "bob"] {
        fs::write(server.folder().join(user).join("file"), &content).expect("a file");
    }
    let address = server.address();
    // None has a start before the others.
    let begin = Barrier::new(3);
    let fetch = |user: &'static str| {
        let mut client = Client::login_as(address, user);
        begin.wait();
        timed(move || client.retr("file").len()).0
    };
    thread::scope(|scope| {
        let pair = [(); 2].map(|()| scope.spawn(|| fetch("alice")));
        let alone = fetch("bob");
        let took = pair.map(|it| it.join().expect("a download"));
        let (first, last) = (took[0].min(took[1]), took[0].max(took[1]));
        // Each alone would take 375 ms; both together take 750, less the 50 ms that are saved up.
        assert!(first >= Duration::from_millis(450), "{took:?}");
        assert!(last >= Duration::from_millis(650), "{took:?}");
        assert!(first > alone, "{took:?} and {alone:?}");
    });
}

#[test]
fn abor_is_quick_though_the_transfer_waits_for_its_rate() {
    let server = Setup::new()
        .set("limits.total_down", "\"100 B/s\"")
        .set("limits.total_up", "\"100 B/s\"")
        // A wait for the rate is none for the client.
        .set("limits.stall_timeout", "\"1 s\"")
        .start();
    server.put("file", noise(50 * KIB, 1));
    let mut client = server.login();
    for command in ["RETR file", "STOR up"] {
        let mut stream = client.begin(Way::Epsv, command);
        if command.starts_with("STOR") {
            stream.write_all(&[0; 8 * KIB]).expect("the server reads");
        }
        client.wait_for_progress(200);
        let (took, ()) = timed(|| {
            client.send("ABOR");
            client.replies(&[426, 226]);
        });
        assert!(took < Duration::from_millis(500), "{command}: {took:?}");
    }
}

#[test]
fn a_reload_changes_the_rates_of_transfers_under_way() {
    let mut server = Setup::new()
        .set("limits.total_down", "\"1000 B/s\"")
        .start();
    let content = noise(2_000 * KIB, 1);
    server.put("file", &content);
    let mut client = server.login();
    let mut stream = client.begin(Way::Epsv, "RETR file");
    client.wait_for_progress(100);
    server.set("limits.total_down", "\"0\"");
    server.set("anonymous.sessions", 1);
    server.reload().success();
    assert!(read_all(&mut stream) == content);
    client.reply(226);
    let mut second = server.connect();
    second.expect("USER ftp", 331);
    second.expect("PASS x", 421);
}

#[test]
fn a_user_has_so_many_sessions_on_all_cores_together() {
    let server = Setup::new()
        .set("server.cores", 2)
        .set("users.sessions_per_user", 1)
        .user("alice", "read-write")
        .user("bob", "read-write")
        .start();
    allow(server.folder(), "alice", "sessions = 2");
    let refused = |user: &str| {
        let mut client = server.connect();
        client.expect(format!("USER {user}"), 331);
        let reply = client.expect(format!("PASS {PASSWORD}"), 421);
        assert!(
            reply.text().contains("Too many sessions"),
            "{}",
            reply.text()
        );
        assert_eq!(client.next_line(), None, "the connection is closed");
    };
    let mut first = Client::login_as(server.address(), "alice");
    let second = Client::login_as(server.address(), "alice");
    refused("alice");
    let _bob = Client::login_as(server.address(), "bob");
    refused("bob");
    assert_eq!(hits(&server, "sessions_per_user"), 2.0);
    server.wait_for_log("too many sessions");
    // Anonymous sessions are nobody's.
    let _strangers = [server.login(), server.login()];
    first.expect("REIN", 220);
    let third = Client::login_as(server.address(), "alice");
    refused("alice");
    drop((second, third));
    eventually("the sessions have ended", || {
        server.log().matches("session ended").count() >= 5
    });
    let _fourth = Client::login_as(server.address(), "alice");
}

#[test]
fn connections_come_at_their_rate() {
    let server = Setup::new().set("limits.connections_per_minute", 3).start();
    for _ in 0..3 {
        server.login().expect("QUIT", 221);
    }
    for _ in 0..5 {
        let stream = std::net::TcpStream::connect(server.address()).expect("a connection");
        let mut client = Client::over(stream);
        assert!(client.reply(421).text().contains("Too many connections"));
        assert_eq!(client.next_line(), None);
    }
    assert_eq!(hits(&server, "connections_per_minute"), 5.0);
    let told = server.log().matches("control connection refused").count();
    assert!((1..5).contains(&told), "{told} lines for 5 refusals");
}

#[test]
fn commands_that_come_too_fast_wait() {
    let mut server = Setup::new().set("limits.commands_per_second", 20).start();
    server.put("file", noise(64 * KIB, 1));
    let mut client = server.login();
    let (took, ()) = timed(|| {
        client.send_bytes("NOOP\r\n".repeat(34));
        client.replies(&[200; 34]);
    });
    // 3 to log in, 17 at once, 17 at their rate.
    assert!(took >= Duration::from_millis(800), "{took:?}");
    assert!(hits(&server, "commands_per_second") > 10.0);
    assert_eq!(server.log().matches("commands come too fast").count(), 1);
    let stream = client.begin(Way::Epsv, "STOR up");
    for _ in 0..30 {
        client.expect("STAT", 211);
    }
    let (took, ()) = timed(|| {
        client.send("ABOR");
        client.replies(&[426]);
    });
    assert!(took < Duration::from_millis(500), "{took:?}");
    drop(stream);
    client.reply(226);
    // Sessions that are there have a new rate, or none, from their next command on.
    server.set("limits.commands_per_second", 0);
    server.reload().success();
    let (took, ()) = timed(|| {
        client.send_bytes("NOOP\r\n".repeat(200));
        client.replies(&[200; 200]);
    });
    assert!(took < Duration::from_secs(2), "{took:?}");
    server.set("limits.commands_per_second", 20);
    server.reload().success();
    let (took, ()) = timed(|| {
        client.send_bytes("NOOP\r\n".repeat(37));
        client.replies(&[200; 37]);
    });
    assert!(took >= Duration::from_millis(800), "{took:?}");
}

#[test]
fn wrong_logins_that_end_a_session_are_told() {
    let server = Setup::new()
        .set("limits.login_delay", "\"1 ms\"")
        .set("limits.login_delay_max", "\"2 ms\"")
        .set("limits.login_attempts", 2)
        .user("alice", "read-write")
        .start();
    let mut client = server.connect();
    for code in [530, 421] {
        client.expect("USER alice", 331);
        client.expect("PASS wrong", code);
    }
    client.ended();
    server.wait_for_log("too many wrong logins");
    assert_eq!(hits(&server, "login_attempts"), 1.0);
}

#[test]
fn uploads_leave_so_much_space_free() {
    let mut server = Setup::new().set("files.min_free", "\"100 TiB\"").start();
    server.put("old", "what was there");
    let mut client = server.login();
    for command in ["STOR new", "STOR old", "APPE old", "STOU new"] {
        let data = client.data(Way::Epsv);
        let text = client.expect(command, 452).text();
        assert!(text.contains("Too little space"), "{text}");
        drop(data);
    }
    assert_eq!(common::snapshot(&server.root()).len(), 1);
    assert_eq!(server.get("old").as_deref(), Some(&b"what was there"[..]));
    client
        .expect("AVBL", 213)
        .text()
        .strip_prefix("213 0")
        .expect("no room");
    assert_eq!(hits(&server, "min_free"), 4.0);
    server.set("files.min_free", "\"1 MiB\"");
    server.reload().success();
    client.stor("new", &noise(3_000 * KIB, 1));
}

#[test]
fn a_volume_is_moved_once_by_all_sessions_and_then_refused() {
    let setup = Setup::new()
        .user("alice", "read-write")
        .user_keys("volume = \"1 MB\"\nvolume_up = \"100 kB\"");
    let mut server = setup.start();
    let big = vec![7; 600_000];
    fs::write(server.folder().join("alice/big"), &big).expect("written");
    let mut one = Client::login_as(server.address(), "alice");
    let mut two = Client::login_as(server.address(), "alice");
    one.stor("up", &[1; 80_000]);
    // The rest of what may go up is less than this.
    let mut data = two.begin(Way::Epsv, "STOR more");
    let _ = data.write_all(&[2; 60_000]);
    drop(data);
    let reply = two.reply(552);
    assert_eq!(
        reply.text(),
        "552 Your transfer volume of this period is used up."
    );
    assert!(!server.folder().join("alice/more").exists());
    assert_eq!(one.retr("big"), big);
    let listed = quota(&server, &["list"]);
    assert!(listed.contains("600000"), "{listed}");
    assert_eq!(two.list("NLST").len(), 2);
    // What is left is not the whole file: it breaks off, and the next one does not begin.
    let mut data = two.begin(Way::Epsv, "RETR big");
    // Reset, so that no client takes it for the whole.
    let mut got = Vec::new();
    let _ = data.read_to_end(&mut got);
    two.reply(552);
    assert!(got.len() <= 300_000 && got == big[..got.len()]);
    two.passive(Way::Epsv);
    two.expect("RETR big", 552);
    // Listings go on.
    assert_eq!(two.list("NLST").len(), 2);
    let refused = "ringftpd_limit_hits_total{limit=\"volume\"}";
    assert!(metric(&server, refused) >= 3.0);
    // What was moved is still known after the server's end.
    server.signal(Signal::SIGTERM);
    assert!(server.wait_for_exit().success());
    let server = server.start_again();
    let mut again = Client::login_as(server.address(), "alice");
    again.passive(Way::Epsv);
    again.expect("RETR big", 552);
    quota(&server, &["reset", "alice"]);
    assert_eq!(again.retr("big"), big);
}

#[test]
fn what_a_volume_has_counted_arrives_at_a_slow_client() {
    let setup = Setup::new()
        .user("alice", "read-write")
        .user_keys("volume = \"1 MB\"");
    let server = setup.start();
    let big = noise(3_000_000, 1);
    fs::write(server.folder().join("alice/big"), &big).expect("written");
    let mut client = Client::login_as(server.address(), "alice");
    let mut data = client.begin(Way::Epsv, "RETR big");
    // The server is done long before the client begins to read.
    thread::sleep(Duration::from_millis(300));
    let mut got = Vec::new();
    let ended = data.read_to_end(&mut got);
    assert!(ended.is_err(), "it looks like the whole file");
    client.reply(552);
    assert_eq!(got.len(), 1_000_000);
    assert!(got == big[..got.len()]);
}
