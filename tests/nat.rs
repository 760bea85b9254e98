//! What stands between client and server: address translators, names, and balancers that speak the
//! PROXY protocol.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpStream};

use common::{
    Client, DEADLINE, Setup, TestServer, Way, connect_from, eventually, is_root, passive_ports,
    read_all,
};

fn address(last: [u8; 2]) -> IpAddr {
    Ipv4Addr::new(127, 0, last[0], last[1]).into()
}

fn login(mut client: Client) -> Client {
    client.expect("USER anonymous", 331);
    client.expect("PASS x", 230);
    client.expect("TYPE I", 200);
    client
}

#[test]
fn the_announced_address_depends_on_the_client() {
    let server = Setup::new()
        .set("data.passive_address", "\"203.0.113.7\"")
        .set(
            "data.passive_address_for",
            "{ \"127.0.1.0/24\" = \"control\", \"127.0.2.0/24\" = \"198.51.100.2\", \
             \"127.0.2.9\" = \"198.51.100.9\" }",
        )
        .start();
    for (client, announced) in [
        ([0, 1], "203.0.113.7"),
        ([1, 1], "127.0.0.1"),
        ([2, 1], "198.51.100.2"),
        ([2, 9], "198.51.100.9"),
    ] {
        let mut client = Client::login_from(address(client), server.address());
        assert_eq!(client.passive(Way::Pasv).ip().to_string(), announced);
    }
}

#[test]
fn ports_of_a_translator_are_announced_and_the_bound_ones_serve() {
    let server = Setup::new()
        .set("data.passive_address", "\"203.0.113.7\"")
        .set(
            "data.passive_address_for",
            "{ \"127.0.1.0/24\" = \"control\" }",
        )
        .set("data.external_ports", "\"61000-61015\"")
        .start();
    server.put("file", "content");
    let bound = *server.passive_ports().start();
    for way in [Way::Pasv, Way::Epsv] {
        let mut client = server.login();
        let outside = client.passive(way).port();
        assert!((61_000..61_016).contains(&outside), "{outside}");
        // What the translator does.
        let inside = outside - 61_000 + bound;
        let mut stream = TcpStream::connect((Ipv4Addr::LOCALHOST, inside)).expect("the bound port");
        client.expect("RETR file", 150);
        assert_eq!(read_all(&mut stream), b"content");
        client.reply(226);
        // On this side of it, ports are what they are.
        let mut client = Client::login_from(address([1, 1]), server.address());
        let port = client.passive(way);
        let mut stream = connect_from(address([1, 1]), port).expect("the bound port");
        client.expect("RETR file", 150);
        assert_eq!(read_all(&mut stream), b"content");
        client.reply(226);
    }
}

#[test]
fn each_listener_has_ports_and_an_address_of_its_own() {
    let own = passive_ports(8);
    let server = Setup::new()
        .set("server.listen", "[\"127.0.0.1:0\", \"127.0.0.2:0\"]")
        .set("listener.other.address", "\"127.0.0.2:0\"")
        .set("listener.other.passive_ports", format!("{own:?}"))
        .set("listener.other.passive_address", "\"203.0.113.8\"")
        .start();
    server.put("file", "content");
    let mut client = login(Client::connect(server.addresses()[1]));
    let announced = client.passive(Way::Pasv);
    assert_eq!(announced.ip().to_string(), "203.0.113.8");
    let (first, last) = own.split_once('-').expect("a range");
    let range = first.parse().expect("a port")..=last.parse::<u16>().expect("a port");
    assert!(range.contains(&announced.port()), "{announced}");
    assert_eq!(client.retr("file"), b"content");
    let mut client = server.login();
    let announced = client.passive(Way::Pasv);
    assert_eq!(announced.ip().to_string(), "127.0.0.1");
    assert!(server.passive_ports().contains(&announced.port()));
    assert_eq!(client.retr("file"), b"content");
}

#[test]
fn a_name_is_announced_by_its_address_and_looked_up_again() {
    if !is_root() {
        // It takes an /etc/hosts of one's own.
        return;
    }
    let setup = Setup::new()
        .set("data.passive_address", "\"ftp.example.org\"")
        .set("data.passive_address_refresh", "\"1 s\"");
    let hosts = setup.folder().join("hosts");
    fs::write(&hosts, "127.0.0.1 localhost\n").expect("the file");
    let mount = format!("mount --bind {} /etc/hosts && exec \"$@\"", hosts.display());
    let server = setup
        .under(&["unshare", "-m", "sh", "-c", &mount, "sh"])
        .start();
    server.put("file", "content");
    server.wait_for_log("the name to announce cannot be looked up");
    let mut client = server.login();
    // EPSV announces no address.
    assert_eq!(client.retr("file"), b"content");
    let refused = client.expect("PASV", 425).text();
    assert!(refused.contains("address is not known"), "{refused}");
    for announced in ["203.0.113.1", "203.0.113.2"] {
        fs::write(&hosts, format!("{announced} ftp.example.org\n")).expect("the file");
        eventually("the new address is announced", || {
            let reply = client.ask("PASV");
            reply.code == 227 && reply.text().contains(&announced.replace('.', ","))
        });
    }
    // What cannot be looked up any more keeps its address.
    fs::write(&hosts, "127.0.0.1 localhost\n").expect("the file");
    server.wait_for_log("kept=\"203.0.113.2\"");
    assert_eq!(client.passive(Way::Pasv).ip().to_string(), "203.0.113.2");
}

/// Where the balancer of these tests comes from.
const BALANCER: [u8; 2] = [0, 2];

fn balanced() -> TestServer {
    let server = Setup::new()
        .set("data.proxy_from", "[\"127.0.0.2\"]")
        .start();
    server.put("file", "content");
    server
}

fn v1(source: &str, destination: SocketAddr) -> Vec<u8> {
    let (ip, port) = (destination.ip(), destination.port());
    format!("PROXY TCP4 {source} {ip} 40000 {port}\r\n").into_bytes()
}

/// The binary form: signature, PROXY over TCP and IPv4, 12 bytes of addresses.
fn v2(source: Ipv4Addr, destination: SocketAddr) -> Vec<u8> {
    let IpAddr::V4(to) = destination.ip() else {
        panic!("IPv4 only");
    };
    let mut header = b"\r\n\r\n\0\r\nQUIT\n\x21\x11\0\x0c".to_vec();
    header.extend_from_slice(&source.octets());
    header.extend_from_slice(&to.octets());
    header.extend_from_slice(&40_000_u16.to_be_bytes());
    header.extend_from_slice(&destination.port().to_be_bytes());
    header
}

fn through_balancer(to: SocketAddr, header: &[u8]) -> TcpStream {
    let mut stream = connect_from(address(BALANCER), to).expect("a connection");
    stream.write_all(header).expect("the header");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream
}

#[test]
fn a_balancer_says_who_the_client_is_on_both_connections() {
    let server = balanced();
    let outside = SocketAddr::from(([198, 51, 100, 1], 21));
    let client_address = Ipv4Addr::new(203, 0, 113, 50);
    let headers = [v1("203.0.113.50", outside), v2(client_address, outside)];
    for header in &headers {
        // Behind the header, in the same segment, is what the client says.
        let first = [header, &b"USER anonymous\r\n"[..]].concat();
        let mut client = Client::over(through_balancer(server.address(), &first));
        client.replies(&[220, 331]);
        client.expect("PASS x", 230);
        client.expect("TYPE I", 200);
        // It is told the address at which it reached the balancer.
        let announced = client.passive(Way::Pasv);
        assert_eq!(announced.ip(), outside.ip());
        let to = SocketAddr::new(server.address().ip(), announced.port());
        // Another client of the balancer is a stranger.
        let mut stranger = through_balancer(to, &v1("203.0.113.51", outside));
        assert!(stranger.read(&mut [0; 1]).is_err());
        let mut stream = through_balancer(to, header);
        client.expect("RETR file", 150);
        assert_eq!(read_all(&mut stream), b"content");
        client.reply(226);
        // An upload's first bytes are not the header's.
        let port = client.passive(Way::Epsv).port();
        let to = SocketAddr::new(server.address().ip(), port);
        let upload = [header, &b"uploaded"[..]].concat();
        let stream = through_balancer(to, &upload);
        client.expect("STOR new", 150);
        drop(stream);
        client.reply(226);
        assert_eq!(server.get("new").as_deref(), Some(&b"uploaded"[..]));
    }
    server.wait_for_log("peer=203.0.113.50");
}

#[test]
fn a_header_may_come_in_pieces() {
    let server = balanced();
    for header in [
        v1("203.0.113.50", server.address()),
        v2(Ipv4Addr::new(203, 0, 113, 50), server.address()),
    ] {
        let stream = through_balancer(server.address(), &[]);
        stream.set_nodelay(true).expect("TCP_NODELAY");
        // Few, because all of them have to come within the time for a header.
        let mut sent = 0;
        for end in [1, 7, 14, header.len() - 1, header.len()] {
            (&stream).write_all(&header[sent..end]).expect("a piece");
            sent = end;
            server.wait_until_read(&stream);
        }
        login(greeted(stream));
    }
}

fn greeted(stream: TcpStream) -> Client {
    let mut client = Client::over(stream);
    client.reply(220);
    client
}

#[test]
fn whoever_is_no_balancer_is_not_believed() {
    let server = balanced();
    let mut client = Client::connect_from(address([0, 3]), server.address());
    client.expect("PROXY TCP4 203.0.113.50 127.0.0.1 40000 21", 500);
    // Its data connections are taken as they come, too.
    let mut client = login(client);
    let port = client.passive(Way::Epsv);
    let stream = connect_from(address([0, 3]), port).expect("a connection");
    client.expect("STOR new", 150);
    (&stream)
        .write_all(&v1("203.0.113.50", port))
        .expect("bytes of a file");
    drop(stream);
    client.reply(226);
    assert_eq!(server.get("new"), Some(v1("203.0.113.50", port)));
}

#[test]
fn a_balancer_that_says_nothing_or_nonsense_gets_nothing() {
    let server = balanced();
    let mut nonsense = through_balancer(server.address(), b"USER anonymous\r\n");
    let mut got = Vec::new();
    // Closed, or reset because of what was not read.
    let _ = nonsense.read_to_end(&mut got);
    assert!(got.is_empty());
    // A look whether the port is open.
    drop(through_balancer(server.address(), b""));
    let mut silent = through_balancer(server.address(), b"PROXY ");
    let _ = silent.read_to_end(&mut got);
    assert!(got.is_empty());
    // The balancer's own connection, by a health check.
    let local = b"\r\n\r\n\0\r\nQUIT\n\x20\0\0\0";
    login(greeted(through_balancer(server.address(), local)));
}
