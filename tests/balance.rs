//! Cores that have more to do than others. The kernel's filter brings all clients of one CPU to one
//! core here, since on loopback a packet is received where it was sent.

mod common;

use std::collections::HashSet;
use std::net::{IpAddr, Ipv4Addr};
use std::sync::OnceLock;

use common::{Client, Setup, TestServer, Way, connect_from, eventually, passive_ports, read_all};
use nix::sched::{CpuSet, sched_getaffinity, sched_setaffinity};
use nix::unistd::Pid;

/// Puts this thread on one CPU, so that all it sends is received there.
fn stay_on_one_cpu() {
    assert!(stay_on_cpu(0), "no CPU at all");
}

/// The same for the first, second, … of the CPUs allowed; false if there are not so many.
fn stay_on_cpu(number: usize) -> bool {
    let allowed = ALLOWED.get_or_init(|| {
        let allowed = sched_getaffinity(Pid::from_raw(0)).expect("the CPUs allowed");
        let is_set = |cpu: &usize| allowed.is_set(*cpu).unwrap_or(false);
        (0..CpuSet::count()).filter(is_set).collect()
    });
    let Some(cpu) = allowed.get(number) else {
        return false;
    };
    let mut one = CpuSet::new();
    one.set(*cpu).expect("a CPU number");
    sched_setaffinity(Pid::from_raw(0), &one).expect("to stay there");
    true
}

/// Those of the process, looked at before any thread has left some of them.
static ALLOWED: OnceLock<Vec<usize>> = OnceLock::new();

fn steered() -> Setup {
    Setup::new()
        .set("server.cores", 2)
        .set("server.steering", "\"cpu\"")
        .set("limits.sessions_per_ip", 0)
}

fn sessions(server: &TestServer) -> Vec<usize> {
    let report = server.report();
    report.cores.iter().map(|core| core.sessions).collect()
}

#[test]
fn clients_come_to_the_core_of_the_cpu_that_received_them() {
    stay_on_one_cpu();
    let server = steered().set("server.balance", false).start();
    let _clients: Vec<Client> = (0..20).map(|_| server.login()).collect();
    assert_eq!(sessions(&server), [20, 0]);
}

#[test]
fn a_core_with_much_to_do_hands_clients_to_the_other() {
    stay_on_one_cpu();
    let server = steered().start();
    server.put("file", "content");
    let mut clients: Vec<Client> = (0..60).map(|_| server.login()).collect();
    let counts = sessions(&server);
    assert_eq!(counts.iter().sum::<usize>(), 60);
    assert!(counts.iter().all(|count| *count >= 20), "{counts:?}");
    let report = server.report();
    assert!(report.cores[0].handed_over >= 20);
    assert_eq!(report.cores[0].handed_over, report.cores[1].taken_over);
    // Each is at home where it is.
    for client in &mut clients {
        assert_eq!(client.retr("file"), b"content");
    }
}

#[test]
fn a_burst_of_clients_is_spread_before_any_of_them_is_greeted() {
    stay_on_one_cpu();
    let server = steered().start();
    let address = server.address();
    let streams: Vec<_> = (0..100)
        .map(|_| std::net::TcpStream::connect(address).expect("a connection"))
        .collect();
    let mut clients: Vec<Client> = streams.into_iter().map(Client::over).collect();
    for client in &mut clients {
        client.reply(220);
    }
    let counts = sessions(&server);
    assert!(counts.iter().all(|count| *count >= 35), "{counts:?}");
}

#[test]
fn a_dry_core_borrows_ports_and_all_of_them_are_in_the_range() {
    stay_on_one_cpu();
    let server = steered().set("server.balance", false).start();
    server.put("file", "content");
    let mut clients: Vec<Client> = (0..16).map(|_| server.login()).collect();
    let mut ports = HashSet::new();
    let mut told = Vec::new();
    // Eight ports are the core's own, and all of the other's but its last one can be borrowed.
    for client in &mut clients[..15] {
        let port = client.passive(Way::Epsv);
        assert!(server.passive_ports().contains(&port.port()));
        assert!(ports.insert(port), "{port} was handed out twice");
        told.push(port);
    }
    // Now everything is dry, for this client.
    let refused = clients[15].expect("EPSV", 425).text();
    assert!(
        refused.contains("No passive port is free for you"),
        "{refused}"
    );
    let report = server.report();
    let borrowed = report.cores[0].pools[0].borrowed;
    assert_eq!(
        (borrowed.taken, report.cores[1].pools[0].borrowed.given),
        (7, 7)
    );
    assert!(borrowed.refused > 0);
    assert_eq!(report.cores[0].pools[0].refusals.dry, 1);
    // Another one shares the same ports.
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 1, 1));
    let mut other = Client::connect_from(source, server.address());
    other.expect("USER anonymous", 331);
    other.expect("PASS x", 230);
    let port = other.passive(Way::Pasv);
    let mut stream = connect_from(source, port).expect("a connection");
    other.expect("RETR file", 150);
    assert_eq!(read_all(&mut stream), b"content");
    // What was borrowed works like what is one's own.
    for (client, port) in clients.iter_mut().zip(told) {
        let mut stream = std::net::TcpStream::connect(port).expect("a connection");
        client.expect("RETR file", 150);
        assert_eq!(read_all(&mut stream), b"content");
        client.reply(226);
    }
    assert_eq!(clients[15].retr("file"), b"content");
}

#[test]
fn who_must_not_borrow_is_dry_by_itself() {
    stay_on_one_cpu();
    let server = steered()
        .set("server.balance", false)
        .set("data.borrow", false)
        .start();
    let mut clients: Vec<Client> = (0..9).map(|_| server.login()).collect();
    for client in &mut clients[..8] {
        client.passive(Way::Epsv);
    }
    clients[8].expect("EPSV", 425);
}

#[test]
fn a_core_that_has_gone_quiet_lends_the_ports_that_were_abandoned_there() {
    // The server's second core is the second CPU's, if there is one.
    if !stay_on_cpu(1) {
        return;
    }
    let server = started_on_all_cpus(
        steered()
            .set("server.balance", false)
            .set("data.peer_check", "\"off\"")
            .set("data.accept_timeout", "\"1 s\""),
    );
    assert!(stay_on_cpu(1));
    let mut quiet: Vec<Client> = (0..8).map(|_| server.login()).collect();
    for client in &mut quiet {
        client.passive(Way::Epsv);
    }
    assert_eq!(sessions(&server), [0, 8]);
    assert!(stay_on_cpu(0));
    let mut busy: Vec<Client> = (0..12).map(|_| server.login()).collect();
    // Eight ports are the core's own; whatever else it gets within its time is the other's.
    eventually("twelve ports wait at a time", || {
        let asked = busy.iter_mut().map(|client| client.ask("EPSV").code);
        asked.filter(|code| *code == 229).count() == 12
    });
}

/// Starts a server while this thread may run everywhere, so that the server may, too.
fn started_on_all_cpus(setup: Setup) -> TestServer {
    let mut all = CpuSet::new();
    for cpu in ALLOWED.get().expect("the CPUs allowed") {
        all.set(*cpu).expect("a CPU number");
    }
    sched_setaffinity(Pid::from_raw(0), &all).expect("to run everywhere");
    setup.start()
}

#[test]
fn all_of_a_burst_get_ports_while_another_core_has_some() {
    stay_on_one_cpu();
    let server = steered()
        .set("server.balance", false)
        .set("data.peer_check", "\"off\"")
        .set("data.passive_ports", format!("{:?}", passive_ports(64)))
        .start();
    let mut clients: Vec<Client> = (0..55).map(|_| server.login()).collect();
    for client in &mut clients {
        client.send("EPSV");
    }
    for client in &mut clients {
        client.reply(229);
    }
}
