//! The passive ports under load: many clients on few ports, strangers, clients that never come,
//! exhaustion and what comes after it.

mod common;

use std::io::{ErrorKind, Read};
use std::net::{IpAddr, Ipv4Addr, TcpStream};
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread;

use common::{
    Client, DEADLINE, Setup, TestServer, Way, connect_from, eventually, passive_ports, read_all,
};
use nix::sys::signal::Signal;

/// One of the loopback network's other addresses.
fn address(number: u8) -> IpAddr {
    IpAddr::V4(Ipv4Addr::new(127, 0, 1, number))
}

#[test]
fn two_thousand_clients_wait_on_a_hundred_ports_and_each_gets_its_own_data() {
    let server = Setup::new()
        .set("limits.sessions_per_ip", 100)
        .set("data.passive_ports", format!("{:?}", passive_ports(100)))
        .start();
    let names: Vec<String> = (0..40).map(|number| format!("file{number}")).collect();
    for name in &names {
        server.put(name, name.repeat(1000));
    }
    let mut waiting = Vec::new();
    for number in 0..40_u8 {
        let source = address(number + 1);
        for _ in 0..50 {
            let mut client = Client::login_from(source, server.address());
            let port = client.passive(Way::Epsv);
            waiting.push((client, source, port, usize::from(number)));
        }
    }
    // All at a time; now all of them are used, in another order.
    assert_eq!(server.total(|range| range.reserved as u64), 2000);
    waiting.reverse();
    for (client, source, port, number) in &mut waiting {
        let mut stream = connect_from(*source, *port).expect("the data connection");
        client.expect(format!("RETR {}", names[*number]), 150);
        assert_eq!(
            read_all(&mut stream),
            names[*number].repeat(1000).as_bytes()
        );
        client.reply(226);
    }
    assert_eq!(server.total(|range| range.reserved as u64), 0);
    assert_eq!(server.total(|range| range.used), 2000);
    assert_eq!(server.total(|range| range.abandoned), 0);
}

#[test]
fn two_sessions_of_one_address_get_each_its_own_connection() {
    let server = Setup::new().set("server.cores", 1).start();
    server.put("one", "first");
    server.put("two", "second");
    for _ in 0..50 {
        let (mut one, mut two) = (server.login(), server.login());
        let (port_one, port_two) = (one.passive(Way::Pasv), two.passive(Way::Epsv));
        assert_ne!(port_one, port_two);
        // The later one connects first.
        let mut stream_two = TcpStream::connect(port_two).expect("a connection");
        let mut stream_one = TcpStream::connect(port_one).expect("a connection");
        one.expect("RETR one", 150);
        two.expect("RETR two", 150);
        assert_eq!(read_all(&mut stream_one), b"first");
        assert_eq!(read_all(&mut stream_two), b"second");
    }
}

#[test]
fn when_all_is_dry_a_session_goes_on_and_finds_a_port_later() {
    let server = Setup::new()
        .set("server.cores", 1)
        .set("data.passive_ports", format!("{:?}", passive_ports(3)))
        .start();
    server.put("file", "content");
    for _ in 0..20 {
        let mut clients: Vec<Client> = (0..4).map(|_| server.login()).collect();
        let ports: Vec<_> = clients[..3]
            .iter_mut()
            .map(|it| it.passive(Way::Epsv))
            .collect();
        let refused = clients[3].expect("PASV", 425).text();
        assert!(
            refused.contains("No passive port is free for you"),
            "{refused}"
        );
        clients[3].expect("NOOP", 200);
        let mut stream = TcpStream::connect(ports[1]).expect("a connection");
        clients[1].expect("RETR file", 150);
        assert_eq!(read_all(&mut stream), b"content");
        clients[1].reply(226);
        assert_eq!(clients[3].retr("file"), b"content");
        clients[3].expect("QUIT", 221);
    }
    let refusals = server.report().cores[0].pools[0].refusals;
    assert_eq!((refusals.dry, refusals.client_limit), (20, 0));
}

#[test]
fn a_connection_that_comes_too_late_is_not_taken_for_the_next_ones() {
    // One port, so that every reservation is for the same one.
    let server = Setup::new()
        .set("server.cores", 1)
        .set("data.passive_ports", format!("{:?}", passive_ports(1)))
        .start();
    server.put("file", "content");
    for round in 1..=20 {
        let mut client = server.login();
        let port = client.passive(Way::Epsv);
        // The reservation ends, and the port's next one begins, while a connection is on its way:
        // it lies in the queue when the server reads both lines at once.
        server.signal(Signal::SIGSTOP);
        eventually("all threads have stopped", || server.has_stopped());
        client.send_bytes("ABOR\r\nEPSV\r\n");
        let mut late = TcpStream::connect(port).expect("a connection");
        server.signal(Signal::SIGCONT);
        client.replies(&[226, 229]);
        late.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        let mut stream = TcpStream::connect(port).expect("a connection");
        client.expect("RETR file", 150);
        // Whether the server saw the late one before or after the end of the reservation it was for.
        let mut got = Vec::new();
        let _ = late.read_to_end(&mut got);
        assert!(
            got.is_empty(),
            "round {round}: the late connection got the file"
        );
        assert_eq!(read_all(&mut stream), b"content", "round {round}");
        client.reply(226);
    }
}

#[test]
fn a_stranger_on_every_port_harms_nobody() {
    let server = TestServer::start();
    server.put("file", "content");
    let stop = &AtomicBool::new(false);
    thread::scope(|scope| {
        let mut client = server.login();
        let first = client.passive(Way::Epsv).port();
        let stranger = scope.spawn(move || {
            let mut resets = 0;
            while !stop.load(Ordering::Relaxed) {
                // The server's 16 ports, wherever `first` is among them.
                let range = first - first % 16;
                for port in range..range + 16 {
                    let to = (Ipv4Addr::LOCALHOST, port).into();
                    let Ok(mut stream) = connect_from(address(99), to) else {
                        continue;
                    };
                    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
                    let got = stream.read(&mut [0; 1]);
                    let reset = got.is_err_and(|error| error.kind() == ErrorKind::ConnectionReset);
                    resets += u32::from(reset);
                }
            }
            resets
        });
        for _ in 0..200 {
            assert_eq!(client.download(Way::Epsv, "RETR file"), b"content");
        }
        stop.store(true, Ordering::Relaxed);
        assert!(stranger.join().expect("the stranger") > 0);
        assert_eq!(server.login().retr("file"), b"content");
    });
}

#[test]
fn a_hundred_thousand_passive_replies_leave_nothing_behind() {
    let server = TestServer::start();
    server.put("file", "content");
    let mut client = server.login();
    assert_eq!(client.retr("file"), b"content");
    let round = |client: &mut Client, rounds: usize| {
        for _ in 0..rounds {
            client.send_bytes("PASV\r\nEPSV\r\n".repeat(50));
            for _ in 0..50 {
                client.replies(&[227, 229]);
            }
        }
    };
    round(&mut client, 200);
    let (memory, descriptors) = (server.resident_bytes(), server.descriptors());
    round(&mut client, 800);
    assert_eq!(server.descriptors(), descriptors);
    let grown = server.resident_bytes().saturating_sub(memory);
    assert!(grown < 1 << 20, "grown by {grown} bytes");
    assert_eq!(client.retr("file"), b"content");
}

#[test]
fn a_client_that_takes_all_it_may_is_told_so_and_harms_nobody() {
    let server = Setup::new().set("data.ports_per_client", 3).start();
    server.put("file", "content");
    // All on one core, or not: three on each is the most that one address gets.
    let mut greedy: Vec<Client> = (0..9).map(|_| server.login()).collect();
    let mut taken = 0;
    let mut refused = None;
    for client in &mut greedy {
        let reply = client.ask("EPSV");
        match reply.code {
            229 => taken += 1,
            _ => refused = Some(reply),
        }
    }
    let refused = refused.expect("nine are more than three on each of two cores");
    assert_eq!(refused.code, 425);
    assert!(
        refused
            .text()
            .contains("holds all the passive ports it may"),
        "{}",
        refused.text()
    );
    assert!((3..=6).contains(&taken), "{taken} ports for one client");
    // Another address has its own share.
    let mut other = Client::login_from(address(1), server.address());
    let port = other.passive(Way::Epsv);
    let mut stream = connect_from(address(1), port).expect("the data connection");
    other.expect("RETR file", 150);
    assert_eq!(read_all(&mut stream), b"content");
    other.reply(226);
    // And what is given up can be had again.
    drop(greedy);
    eventually("the ports are free again", || {
        let mut client = server.login();
        client.ask("EPSV").code == 229
    });
}

#[test]
fn an_abandoned_port_comes_back_in_time_and_its_reservation_has_ended() {
    let server = Setup::new()
        .set("data.accept_timeout", "\"1 s\"")
        .set("data.ports_per_client", 1)
        .set("server.cores", 1)
        .start();
    server.put("file", "content");
    let mut idle = server.login();
    let abandoned = idle.passive(Way::Epsv);
    let mut client = server.login();
    assert_eq!(client.ask("EPSV").code, 425);
    eventually("the abandoned port's time is over", || {
        client.ask("EPSV").code == 229
    });
    // Whoever comes late to the abandoned port finds nobody.
    let late = TcpStream::connect(abandoned).expect("a connection");
    idle.expect("RETR file", 425);
    drop(late);
    assert_eq!(idle.ask("NOOP").code, 200);
}

#[test]
fn without_peer_check_another_address_may_bring_the_data_connection() {
    for (check, source, served) in [
        ("\"off\"", IpAddr::V4(Ipv4Addr::new(127, 9, 9, 9)), true),
        ("\"subnet\"", IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)), true),
        ("\"subnet\"", IpAddr::V4(Ipv4Addr::new(127, 9, 9, 9)), false),
        ("\"strict\"", IpAddr::V4(Ipv4Addr::new(127, 0, 0, 9)), false),
    ] {
        let server = Setup::new().set("data.peer_check", check).start();
        server.put("file", "content");
        let mut client = server.login();
        let port = client.passive(Way::Epsv);
        let mut stream = connect_from(source, port).expect("a connection");
        stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
        if served {
            client.expect("RETR file", 150);
            assert_eq!(read_all(&mut stream), b"content", "{check}");
            client.reply(226);
        } else {
            assert!(stream.read(&mut [0; 1]).is_err(), "{check} let {source} in");
        }
    }
}

#[test]
fn the_address_announced_is_the_one_configured() {
    let server = Setup::new()
        .on_both_families()
        .set("data.passive_address", "\"203.0.113.7\"")
        .start();
    server.put("file", "content");
    assert!(server.summary().contains("announced as 203.0.113.7"));
    let mut client = server.login();
    let reply = client.expect("PASV", 227).text();
    assert!(reply.contains("(203,0,113,7,"), "{reply}");
    // EPSV announces no address, so that it works as ever.
    assert_eq!(client.download(Way::Epsv, "RETR file"), b"content");
    let mut client = Client::login(server.address_v6());
    assert_eq!(client.download(Way::Epsv, "RETR file"), b"content");
}
