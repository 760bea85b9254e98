//! A new configuration for a server that serves: ports come and go, and nobody notices.

mod common;

use std::fs;
use std::io::ErrorKind;
use std::net::{Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::thread;

use common::{Client, Setup, TestServer, Way, connect_from, eventually, passive_ports, read_all};
use nix::sys::signal::Signal;

/// A server on a range of `count` ports, and the first port of another range of as many.
fn with_room(count: u16) -> (TestServer, u16, u16) {
    let both = passive_ports(count * 2);
    let (first, _) = both.split_once('-').expect("a range");
    let first: u16 = first.parse().expect("a port");
    let range = format!("\"{first}-{}\"", first + count - 1);
    let server = Setup::new()
        .set("server.cores", 2)
        .set("data.passive_ports", range)
        .start();
    server.put("file", "content");
    (server, first, first + count)
}

fn quoted(first: u16, count: u16) -> String {
    format!("\"{first}-{}\"", first + count - 1)
}

fn listens(port: u16) -> bool {
    match TcpStream::connect((Ipv4Addr::LOCALHOST, port)) {
        Ok(_) => true,
        // Reset: it was closed while the connection came.
        Err(error)
            if [ErrorKind::ConnectionRefused, ErrorKind::ConnectionReset]
                .contains(&error.kind()) =>
        {
            false
        }
        Err(error) => panic!("port {port}: {error}"),
    }
}

#[test]
fn the_range_moves_under_load_and_no_transfer_breaks() {
    let (mut server, first, second) = with_room(32);
    let stop = &AtomicBool::new(false);
    let transfers = &AtomicUsize::new(0);
    let address = server.address();
    thread::scope(|scope| {
        for worker in 0..6 {
            scope.spawn(move || {
                let way = [Way::Pasv, Way::Epsv][worker % 2];
                let mut client = Client::login(address);
                while !stop.load(Ordering::Relaxed) {
                    assert_eq!(client.download(way, "RETR file"), b"content");
                    transfers.fetch_add(1, Ordering::Relaxed);
                }
            });
        }
        let layouts = [
            (quoted(second, 32), "\"even\"".to_owned()),
            (quoted(first, 64), "\"even\"".to_owned()),
            (
                format!("[{}, {}]", quoted(first, 8), quoted(second, 8)),
                "\"even\"".to_owned(),
            ),
            (quoted(first, 32), "[5, 1]".to_owned()),
            (
                quoted(first, 32),
                format!("[{}, {}]", quoted(first, 4), quoted(first + 4, 28)),
            ),
            (quoted(first + 16, 16), "[1, 5]".to_owned()),
        ];
        for round in 0..4 {
            for (ports, slices) in &layouts {
                let before = transfers.load(Ordering::Relaxed);
                server.set("data.passive_ports", ports);
                server.set("data.passive_slices", slices);
                let told = String::from_utf8(server.reload().success()).expect("text");
                assert!(told.starts_with("reloaded: "), "round {round}: {told}");
                eventually("transfers go on", || {
                    transfers.load(Ordering::Relaxed) > before + 20
                });
            }
        }
        stop.store(true, Ordering::Relaxed);
    });
    // At last, only the ports of the last configuration listen, and all of them.
    let last = first + 16..first + 32;
    eventually("the other ports are closed", || {
        (first..first + 64).all(|port| listens(port) == last.contains(&port))
    });
    eventually("every port is where it belongs", || {
        server.total(|range| range.ports as u64) == 16
            && server.total(|range| range.leaving as u64) == 0
    });
    assert_eq!(server.login().retr("file"), b"content");
    assert_eq!(server.total(|range| range.unavailable.len() as u64), 0);
}

#[test]
fn a_session_keeps_the_port_it_was_told_until_it_has_used_it() {
    let (mut server, first, second) = with_room(8);
    let mut client = server.login();
    let told = client.passive(Way::Epsv);
    server.set("data.passive_ports", quoted(second, 8));
    server.reload().success();
    // The others have gone at once.
    eventually("the idle ports are closed", || {
        (first..first + 8).all(|port| port == told.port() || !listens(port))
    });
    assert_eq!(server.total(|range| range.leaving as u64), 1);
    let mut stream = TcpStream::connect(told).expect("the old port");
    client.expect("RETR file", 150);
    assert_eq!(read_all(&mut stream), b"content");
    client.reply(226);
    eventually("the old port is closed", || !listens(told.port()));
    let next = client.passive(Way::Epsv).port();
    assert!((second..second + 8).contains(&next), "{next}");
}

#[test]
fn an_abandoned_port_that_has_to_go_goes_in_time() {
    let (mut server, _, second) = with_room(8);
    let mut client = server.login();
    let told = client.passive(Way::Epsv);
    server.set("data.passive_ports", quoted(second, 8));
    server.set("data.accept_timeout", "\"1 s\"");
    server.reload().success();
    eventually("the abandoned port is closed", || !listens(told.port()));
}

#[test]
fn a_port_that_comes_back_before_it_has_gone_stays() {
    let (mut server, first, second) = with_room(4);
    let mut client = server.login();
    let told = client.passive(Way::Epsv);
    server.set("data.passive_ports", quoted(second, 4));
    server.reload().success();
    server.set("data.passive_ports", quoted(first, 4));
    server.reload().success();
    let mut stream = TcpStream::connect(told).expect("the port");
    client.expect("RETR file", 150);
    assert_eq!(read_all(&mut stream), b"content");
    client.reply(226);
    eventually("all four ports are there", || {
        server.total(|range| range.free as u64) == 4
    });
    assert!(listens(told.port()));
}

#[test]
fn timeouts_and_caps_hold_from_the_reload_on() {
    let (mut server, ..) = with_room(16);
    server.set("data.ports_per_client", 1);
    server.set("data.accept_timeout", "\"1 s\"");
    server.set("server.greeting", "\"Something new.\"");
    server.signal(Signal::SIGHUP);
    server.wait_for_log("reloaded: 16 passive ports");
    let mut client = Client::over(TcpStream::connect(server.address()).expect("a connection"));
    assert!(client.reply(220).text().contains("Something new."));
    // Two sessions of one address on one core share what one address may hold.
    let mut sessions: Vec<Client> = (0..6).map(|_| server.login()).collect();
    let codes: Vec<u16> = sessions.iter_mut().map(|it| it.ask("EPSV").code).collect();
    assert!(codes.contains(&425), "{codes:?}");
    let refused = codes.iter().position(|code| *code == 425).expect("one");
    eventually("the others' time is over", || {
        sessions[refused].ask("EPSV").code == 229
    });
    let report = server.report();
    assert_eq!(report.settings.accept_timeout_ms, 1000);
    assert_eq!(report.settings.ports_per_client, 1);
}

#[test]
fn passive_mode_can_be_switched_off_and_on() {
    let (mut server, first, _) = with_room(8);
    server.set("data.passive", false);
    server.reload().success();
    eventually("no port listens", || {
        (first..first + 8).all(|port| !listens(port))
    });
    server.login().expect("EPSV", 502);
    server.set("data.passive", true);
    server.reload().success();
    assert_eq!(server.login().retr("file"), b"content");
}

#[test]
fn a_configuration_that_is_wrong_changes_nothing() {
    let (mut server, first, _) = with_room(8);
    server.set("data.accept_timeout", "\"soon\"");
    let told = server.reload();
    assert_eq!(told.code, Some(1));
    for part in [
        "all stays as it was",
        "ringftpd.toml:",
        "data.accept_timeout",
        "soon",
    ] {
        assert!(told.err.contains(part), "no {part:?} in {}", told.err);
    }
    server.set("data.accept_timeout", "\"9 s\"");
    server.set("data.passive_slices", "[1, 1, 1]");
    let told = server.reload();
    assert!(told.err.contains("3 slices for"), "{}", told.err);
    assert!((first..first + 8).all(listens));
    assert_eq!(server.login().retr("file"), b"content");
    assert_eq!(server.report().settings.accept_timeout_ms, 30_000);
}

#[test]
fn what_takes_a_restart_is_named() {
    let (mut server, ..) = with_room(8);
    server.set("limits.sessions_waiting", 7);
    server.set("log.format", "\"json\"");
    let told = String::from_utf8(server.reload().success()).expect("text");
    let expected = "takes a restart, and is as before: limits.sessions_waiting, log.format";
    assert!(told.contains(expected), "{told}");
}

#[test]
fn a_port_that_another_program_held_is_taken_when_it_is_free() {
    let range = passive_ports(4);
    let (first, _) = range.split_once('-').expect("a range");
    let first: u16 = first.parse().expect("a port");
    let taken = TcpListener::bind((Ipv4Addr::LOCALHOST, first)).expect("the first port");
    let server = Setup::new()
        .set("data.passive_ports", format!("{range:?}"))
        .start();
    let warned = server.wait_for_log("passive ports are held by other programs");
    for part in [&first.to_string(), "ss -tanp"] {
        assert!(warned.contains(part), "no {part:?} in {warned}");
    }
    assert_eq!(server.total(|range| range.unavailable.len() as u64), 1);
    drop(taken);
    server.wait_for_log("passive ports are free again");
    eventually("it is one of the ports", || {
        server.total(|range| range.ports as u64) == 4
    });
    assert_eq!(server.total(|range| range.unavailable.len() as u64), 0);
}

#[test]
fn a_peer_that_no_longer_passes_is_a_stranger_to_new_reservations_only() {
    let (mut server, ..) = with_room(8);
    server.set("data.peer_check", "\"off\"");
    server.reload().success();
    let stranger = Ipv4Addr::new(127, 7, 7, 7).into();
    let serve = |client: &mut Client, port: SocketAddr| {
        let mut stream = connect_from(stranger, port).expect("a connection");
        client.expect("RETR file", 150);
        assert_eq!(read_all(&mut stream), b"content");
        client.reply(226);
    };
    let mut client = server.login();
    let port = client.passive(Way::Epsv);
    serve(&mut client, port);
    let port = client.passive(Way::Epsv);
    server.set("data.peer_check", "\"strict\"");
    server.reload().success();
    serve(&mut client, port);
    assert_eq!(client.retr("file"), b"content");
}

#[test]
fn ports_come_and_go_over_ipv6_too_and_each_address_has_its_own() {
    let range = passive_ports(24);
    let (first, _) = range.split_once('-').expect("a range");
    let first: u16 = first.parse().expect("a port");
    let mut server = Setup::new()
        .on_both_families()
        .set("data.passive_ports", quoted(first, 8))
        .start();
    server.put("file", "content");
    let (v4, v6) = (server.address(), server.address_v6());
    for v6_ports in [first..first + 8, first + 8..first + 16, first..first + 24] {
        server.set("listener.six.address", "\"[::1]:0\"");
        let count = v6_ports.end - v6_ports.start;
        server.set("listener.six.passive_ports", quoted(v6_ports.start, count));
        server.reload().success();
        let mut six = Client::login(v6);
        for _ in 0..30 {
            let port = six.passive(Way::Epsv);
            assert!(
                v6_ports.contains(&port.port()),
                "{port} is not in {v6_ports:?}"
            );
            let mut stream = TcpStream::connect(port).expect("a connection");
            six.expect("RETR file", 150);
            assert_eq!(read_all(&mut stream), b"content");
            six.reply(226);
        }
        let port = Client::login(v4).passive(Way::Pasv).port();
        assert!((first..first + 8).contains(&port), "{port}");
    }
}

#[test]
fn what_does_not_suit_the_cores_that_run_is_refused() {
    let (mut server, first, _) = with_room(8);
    server.set("server.cores", 4);
    server.set("data.passive_slices", "[1, 1, 1, 1]");
    let told = server.reload();
    assert_eq!(told.code, Some(1));
    for part in ["4 slices for", "still in force: server.cores"] {
        assert!(told.err.contains(part), "no {part:?} in {}", told.err);
    }
    assert!((first..first + 8).all(listens));
}

#[test]
fn the_log_says_more_and_passwords_have_more_threads_after_a_reload() {
    let mut server = Setup::new().user("alice", "read-only").start();
    let verifiers = |server: &TestServer| {
        let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("proc(5)");
        let names =
            tasks.filter_map(|task| fs::read_to_string(task.ok()?.path().join("comm")).ok());
        names.filter(|name| name.trim_end() == "verify").count()
    };
    assert_eq!(verifiers(&server), 2);
    server.set("users.hash_threads", 5);
    server.set("log.level", "\"warn\"");
    server.reload().success();
    assert_eq!(verifiers(&server), 5);
    let before = server.log().lines().count();
    Client::login_as(server.address(), "alice").expect("QUIT", 221);
    server.set("users.hash_threads", 1);
    server.set("log.level", "\"info\"");
    server.reload().success();
    eventually("one thread", || verifiers(&server) == 1);
    Client::login_as(server.address(), "alice").expect("QUIT", 221);
    server.wait_for_log("session ended");
    let log = server.log();
    let since: Vec<&str> = log.lines().skip(before).collect();
    let logins = since.iter().filter(|line| line.contains(" login ")).count();
    assert_eq!(logins, 1, "{since:#?}");
}

/// What follows the words in one line of what a reload says.
fn said_of(told: &str, words: &str) -> Vec<SocketAddr> {
    let line = told.lines().find_map(|line| line.strip_prefix(words));
    let list = line.and_then(|line| line.split([';', 'n']).next());
    let list = list.unwrap_or_else(|| panic!("no {words:?} in {told}"));
    let addresses = list
        .split(", ")
        .map(|it| it.trim().parse().expect("an address"));
    addresses.collect()
}

#[test]
fn addresses_come_and_go_and_the_sessions_of_those_that_go_stay() {
    let mut server = Setup::new()
        .set("server.cores", 2)
        .set("server.listen", "[\"127.0.0.1:0\"]")
        .start();
    server.put("file", "content");
    let first = server.address();
    let mut old = Client::login(first);

    // The new one stands before the old one, has a host of its own, and passive ports.
    server.set("server.listen", "[\"127.0.0.2:0\", \"127.0.0.1:0\"]");
    server.set("host.lab.addresses", "[\"127.0.0.2:0\"]");
    server.set("host.lab.greeting", "\"The lab.\"");
    let told = String::from_utf8(server.reload().success()).expect("text");
    let second = said_of(&told, "listens on ")[0];
    assert_eq!(second.ip(), Ipv4Addr::new(127, 0, 0, 2));
    let mut new = Client::over(TcpStream::connect(second).expect("connected"));
    assert_eq!(new.reply(220).text(), "220 The lab.");
    new.expect("USER anonymous", 331);
    new.expect("PASS x", 230);
    for _ in 0..4 {
        assert_eq!(new.download(Way::Pasv, "RETR file"), b"content");
        assert_eq!(old.download(Way::Epsv, "RETR file"), b"content");
    }
    assert_eq!(
        Client::login(first).download(Way::Pasv, "RETR file"),
        b"content"
    );

    // The old one goes; its sessions stay, and open data connections themselves.
    server.set("server.listen", "[\"127.0.0.2:0\"]");
    let told = String::from_utf8(server.reload().success()).expect("text");
    assert!(told.contains("listens on 127.0.0.1:0 no more"), "{told}");
    eventually("nobody listens", || !listens(first.port()));
    old.expect("NOOP", 200);
    assert_eq!(old.ask("EPSV").code, 425);
    assert_eq!(old.download(Way::Eprt, "RETR file"), b"content");
    assert_eq!(new.download(Way::Epsv, "RETR file"), b"content");

    // It comes back, with passive ports for the sessions that stayed.
    server.set("server.listen", "[\"127.0.0.1:0\", \"127.0.0.2:0\"]");
    let told = String::from_utf8(server.reload().success()).expect("text");
    let again = said_of(&told, "listens on ")[0];
    assert_eq!(again.ip(), Ipv4Addr::LOCALHOST);
    assert_eq!(
        Client::login(again).download(Way::Pasv, "RETR file"),
        b"content"
    );
    assert_eq!(old.download(Way::Epsv, "RETR file"), b"content");
    // A reload that changes nothing there says nothing of it.
    let told = String::from_utf8(server.reload().success()).expect("text");
    assert!(!told.contains("listens"), "{told}");
}

#[test]
fn an_address_that_cannot_be_had_changes_nothing() {
    let mut server = Setup::new()
        .set("server.listen", "[\"127.0.0.1:0\"]")
        .start();
    let other = TcpListener::bind("127.0.0.1:0").expect("a port");
    let held = other.local_addr().expect("its address");
    server.set("server.listen", format!("[\"127.0.0.1:0\", \"{held}\"]"));
    server.set("server.greeting", "\"Another.\"");
    let refused = server.reload();
    assert_eq!(refused.code, Some(1));
    let told = format!("cannot listen on {held}");
    assert!(refused.err.contains(&told), "{}", refused.err);
    let mut client = Client::over(TcpStream::connect(server.address()).expect("connected"));
    assert!(!client.reply(220).text().contains("Another"));
    drop(other);
    server.reload().success();
    Client::login(held).expect("NOOP", 200);
}
