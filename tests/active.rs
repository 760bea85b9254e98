//! Active mode as firewalls know it: from port 20, many at a time to one client, to nobody else, and
//! to another server where the operator allows it.

mod common;

use std::io::Read;
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};

use common::{Client, DEADLINE, Setup, TestServer, Way, is_root, read_all};
use socket2::SockRef;

fn listen() -> (TcpListener, SocketAddr) {
    let listener = TcpListener::bind((Ipv4Addr::LOCALHOST, 0)).expect("a port");
    let deadline = SockRef::from(&listener).set_read_timeout(Some(DEADLINE));
    deadline.expect("a deadline");
    let address = listener.local_addr().expect("an address");
    (listener, address)
}

fn eprt(address: SocketAddr) -> String {
    format!("EPRT |1|{}|{}|", address.ip(), address.port())
}

#[test]
fn hundreds_of_connections_stand_from_port_20_to_one_client_at_a_time() {
    if !is_root() {
        // Port 20 takes a privilege.
        return;
    }
    let server = Setup::new()
        .set("data.active_source_port", 20)
        .set("limits.sessions_per_ip", 0)
        .start();
    // More than any socket buffer takes, so that every transfer is still under way.
    server.put("file", vec![7; 16 << 20]);
    let mut running = Vec::new();
    for _ in 0..400 {
        let mut client = server.login();
        let (listener, address) = listen();
        client.expect(eprt(address), 200);
        client.expect("RETR file", 150);
        let (stream, peer) = listener.accept().expect("the server connects");
        assert_eq!(peer.port(), 20);
        assert_eq!(peer.ip(), server.address().ip());
        running.push((client, stream));
    }
    let report = server.report();
    let sum = |figure: fn(&ringftpd::data::report::ActiveReport) -> u64| {
        report
            .cores
            .iter()
            .map(|core| figure(&core.active))
            .sum::<u64>()
    };
    assert_eq!(sum(|active| active.connected), 400);
    assert_eq!(sum(|active| active.other_source_port), 0);
    assert_eq!(sum(|active| active.eprt.total), 400);
}

#[test]
fn a_port_named_again_at_once_is_reached_though_the_kernel_remembers_it() {
    if !is_root() {
        return;
    }
    let server = Setup::new()
        .set("data.active_source_port", 20)
        .set("server.cores", 1)
        .start();
    server.put("file", "content");
    let mut client = server.login();
    // The server closes first, so that the pair of ports is in TIME_WAIT on its side.
    let (listener, address) = listen();
    let mut sources = Vec::new();
    for _ in 0..20 {
        client.expect(eprt(address), 200);
        client.expect("RETR file", 150);
        let (mut stream, peer) = listener.accept().expect("the server connects");
        assert_eq!(read_all(&mut stream), b"content");
        client.reply(226);
        sources.push(peer.port());
    }
    assert_eq!(sources[0], 20);
    let others = sources.iter().filter(|port| **port != 20).count() as u64;
    let active = server.report().cores[0].active;
    assert_eq!(active.other_source_port, others);
    assert_eq!(
        (active.connected, active.failed, active.refused),
        (20, 0, 0)
    );
}

#[test]
fn what_is_refused_is_counted() {
    let server = Setup::new().set("server.cores", 1).start();
    let mut client = server.login();
    client.expect("PORT 192,0,2,1,200,1", 504);
    client.expect("PORT 127,0,0,1,0,25", 504);
    client.expect("EPRT |1|10.0.0.1|2000|", 504);
    let (listener, address) = listen();
    drop(listener);
    client.expect(eprt(address), 200);
    client.expect("LIST", 425);
    let active = server.report().cores[0].active;
    assert_eq!((active.bounces, active.refused), (3, 1));
    assert_eq!((active.port.total, active.eprt.total), (0, 1));
}

/// A server on 127.0.0.`last` that lets the one on 127.0.0.`other` send and fetch files.
fn allied(last: u8, other: u8) -> TestServer {
    let server = Setup::new()
        .set("server.listen", format!("[\"127.0.0.{last}:0\"]"))
        .set("data.fxp_networks", format!("[\"127.0.0.{other}\"]"))
        .start();
    server.put("file", format!("content of {last}"));
    server
}

#[test]
fn a_file_goes_from_server_to_server_where_both_allow_it() {
    let (from, to) = (allied(11, 12), allied(12, 11));
    let client = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 99));
    let (mut source, mut sink) = (
        Client::login_from(client, from.address()),
        Client::login_from(client, to.address()),
    );
    // The one waits, the other connects; then the other way round.
    let port = sink.passive(Way::Pasv);
    source.expect(eprt(port), 200);
    sink.send("STOR copy");
    source.expect("RETR file", 150);
    source.reply(226);
    sink.replies(&[150, 226]);
    assert_eq!(to.get("copy").as_deref(), Some(&b"content of 11"[..]));
    let port = source.passive(Way::Epsv);
    sink.expect(eprt(port), 200);
    source.send("RETR file");
    sink.expect("STOR second", 150);
    sink.reply(226);
    source.replies(&[150, 226]);
    assert_eq!(to.get("second").as_deref(), Some(&b"content of 11"[..]));
    // A third one is still nobody's friend.
    source.expect("EPRT |1|127.0.0.13|2000|", 504);
    let port = source.passive(Way::Epsv);
    let third = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 13));
    let mut stranger = common::connect_from(third, port).expect("a connection");
    assert!(stranger.read(&mut [0; 1]).is_err());
}

#[test]
fn a_server_that_two_clients_could_mean_gets_neither_ones_data() {
    let server = Setup::new()
        .set("server.listen", "[\"127.0.0.14:0\"]")
        .set("server.cores", 1)
        .set(
            "data.passive_ports",
            format!("{:?}", common::passive_ports(1)),
        )
        .set("data.fxp_networks", "[\"127.0.0.11\"]")
        .start();
    server.put("file", "content");
    let address = |last| IpAddr::V4(Ipv4Addr::new(127, 0, 0, last));
    let (mut one, mut two) = (
        Client::login_from(address(98), server.address()),
        Client::login_from(address(99), server.address()),
    );
    // One port waits for both of them.
    let port = one.passive(Way::Epsv);
    assert_eq!(two.passive(Way::Epsv), port);
    let mut ally = common::connect_from(address(11), port).expect("a connection");
    assert!(ally.read(&mut [0; 1]).is_err());
    // Each of them gets its own, as ever.
    for (client, last) in [(&mut two, 99), (&mut one, 98)] {
        let mut stream: TcpStream =
            common::connect_from(address(last), port).expect("a connection");
        client.expect("RETR file", 150);
        assert_eq!(read_all(&mut stream), b"content");
        client.reply(226);
    }
}
