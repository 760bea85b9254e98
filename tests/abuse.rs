//! Clients that mean no good, or are broken: whatever they send or do not read, the server answers
//! 5xx or closes, stays as it is in memory and descriptors, and serves the others.

mod common;

use std::fs;
use std::io::{ErrorKind, Read, Write};
use std::net::{IpAddr, Ipv4Addr, Shutdown, SocketAddr, TcpStream};
use std::thread;
use std::time::Instant;

use common::{
    Client, DEADLINE, Random, Setup, TestServer, Way, connect_from, eventually, noise, read_all,
};
use socket2::{Domain, Socket, Type};

/// Another client, as the server sees it.
const STRANGER: IpAddr = IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2));

/// What the memory of the server may grow by under abuse: its allocator's habits, no more.
const GROWTH_BYTES_MAX: u64 = 6 << 20;

/// Whether a client closes its side when it has said all.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Side {
    Closes,
    Waits,
}

/// Sends bytes, and takes all that comes back until the server closes.
fn answers_to(address: SocketAddr, bytes: &[u8], side: Side) -> Vec<u8> {
    let stream = TcpStream::connect(address).expect("a connection");
    stream.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    stream
        .set_write_timeout(Some(DEADLINE))
        .expect("a deadline");
    let mut answers = Vec::new();
    thread::scope(|scope| {
        // The server may close while it is being written to.
        scope.spawn(|| {
            let _ = (&stream).write_all(bytes);
            if side == Side::Closes {
                let _ = stream.shutdown(Shutdown::Write);
            }
        });
        let mut chunk = [0; 65_536];
        loop {
            match (&stream).read(&mut chunk) {
                Ok(0) => break,
                Ok(length) => answers.extend_from_slice(&chunk[..length]),
                Err(error) if error.kind() == ErrorKind::ConnectionReset => break,
                Err(error) => panic!("neither answers nor the end: {error}"),
            }
        }
    });
    answers
}

/// Takes out the answers to what looked like Telnet negotiations: IAC WONT x, IAC DONT x.
fn without_telnet(answers: &[u8]) -> Vec<u8> {
    let mut rest = Vec::new();
    let mut index = 0;
    while index < answers.len() {
        if answers[index] == 255 && index + 2 < answers.len() {
            index += 3;
        } else {
            rest.push(answers[index]);
            index += 1;
        }
    }
    rest
}

#[test]
fn random_bytes_get_5xx_or_the_end() {
    let server = TestServer::start();
    let mut replies = 0;
    let round = |seed: u64, replies: &mut usize| {
        let mut bytes = noise(20_000, seed);
        if seed.is_multiple_of(3) {
            // Without Telnet sequences, and with many lines.
            let mut random = Random::new(seed);
            bytes.iter_mut().for_each(|byte| *byte &= 0x7f);
            (0..2000).for_each(|_| bytes[random.below(20_000)] = b'\n');
        }
        let answers = without_telnet(&answers_to(server.address(), &bytes, Side::Closes));
        let text = String::from_utf8_lossy(&answers);
        for (number, line) in text.split_terminator("\r\n").enumerate() {
            match number {
                0 => assert!(line.starts_with("220 "), "seed {seed}: {line}"),
                _ => assert!(line.starts_with("50"), "seed {seed}: {line}"),
            }
            *replies += number.min(1);
        }
    };
    (0..30).for_each(|seed| round(seed, &mut replies));
    let before = server.resident_bytes();
    (30..400).for_each(|seed| round(seed, &mut replies));
    assert!(replies > 10_000, "only {replies} replies");
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more than before");
    server.login().expect("NOOP", 200);
}

#[test]
fn random_arguments_of_real_commands_break_nothing() {
    let server = Setup::new().set("data.accept_timeout", "\"1 s\"").start();
    server.put("file", "content");
    let mut random = Random::new(1);
    let verbs = ringftpd::proto::command::Verb::ALL;
    for _ in 0..60 {
        let mut lines = b"USER anonymous\r\nPASS x\r\n".to_vec();
        for _ in 0..200 {
            let verb = verbs[random.below(verbs.len())].name();
            // These would end the session before the rest is tried.
            if ["QUIT", "REIN", "USER", "PASS"].contains(&verb) {
                continue;
            }
            lines.extend_from_slice(verb.as_bytes());
            lines.push(b' ');
            let length = random.below(40);
            let alphabet = b"./*[]\\\"|;=,- 0123456789abcALLTYPE\xff\xf4\xc3\xa9\0\x1b\r";
            lines.extend((0..length).map(|_| alphabet[random.below(alphabet.len())]));
            lines.extend_from_slice(b"\r\n");
        }
        lines.extend_from_slice(b"ABOR\r\nQUIT\r\n");
        let answers = without_telnet(&answers_to(server.address(), &lines, Side::Waits));
        let text = String::from_utf8_lossy(&answers).into_owned();
        let last = text.lines().next_back().expect("replies");
        // 421: what waits for the end of a transfer is bounded.
        assert!(
            last.starts_with("221 ") || last.starts_with("421 "),
            "{last}"
        );
    }
    let mut client = server.login();
    client.expect("NOOP", 200);
    client.stor("after", b"all is well");
}

#[test]
fn lines_without_end_are_not_kept() {
    let server = TestServer::start();
    let mut clients: Vec<Client> = (0..20).map(|_| server.connect()).collect();
    let before = server.resident_bytes();
    let chunk = vec![b'x'; 1 << 20];
    for client in &mut clients {
        for _ in 0..4 {
            client.send_bytes(&chunk);
        }
        server.wait_until_read(client.stream());
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more than before");
    for client in &mut clients {
        client.send("");
        client.reply(500);
        client.expect("NOOP", 200);
    }
}

#[test]
fn a_client_that_never_reads_is_bounded_and_cut_off() {
    let server = Setup::new().set("limits.reply_timeout", "\"2 s\"").start();
    let before = server.resident_bytes();
    let greedy = server.login();
    let flood = "HELP\r\n".repeat(10_000);
    // The buffers of both sides fill, then nothing is read any more.
    greedy.stream().set_nonblocking(true).expect("O_NONBLOCK");
    let mut sent = 0;
    let start = Instant::now();
    let error = loop {
        match greedy.stream().write(flood.as_bytes()) {
            Ok(length) => sent += length,
            Err(error) if error.kind() == ErrorKind::WouldBlock => {
                assert!(start.elapsed() < DEADLINE, "not cut off after {sent} bytes");
                // Others are served all the while.
                server.login().expect("NOOP", 200);
            }
            Err(error) => break error,
        }
        assert!(sent < 1 << 30, "the server reads on without an end");
    };
    assert!(
        [ErrorKind::ConnectionReset, ErrorKind::BrokenPipe].contains(&error.kind()),
        "{error}"
    );
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more than before");
    greedy
        .stream()
        .set_nonblocking(false)
        .expect("blocking again");
}

#[test]
fn one_address_cannot_take_all_sessions() {
    let server = Setup::new().set("limits.sessions_per_ip", 5).start();
    let mut clients: Vec<Client> = (0..5).map(|_| server.login()).collect();
    for _ in 0..20 {
        let stream = TcpStream::connect(server.address()).expect("a connection");
        let mut refused = Client::over(stream);
        let reply = refused.reply(421);
        assert!(reply.text().contains("address"), "{}", reply.text());
        refused.ended();
    }
    // Another address is another client.
    Client::connect_from(STRANGER, server.address()).expect("NOOP", 200);
    clients.iter_mut().for_each(|client| {
        client.expect("NOOP", 200);
    });
    // Who leaves makes room.
    clients.pop().expect("a client").expect("QUIT", 221);
    eventually("room for another one", || greeted(server.address()));
}

/// Whether a new session gets its greeting.
fn greeted(address: SocketAddr) -> bool {
    let stream = TcpStream::connect(address).expect("a connection");
    Client::over(stream).next_reply().code == 220
}

#[test]
fn all_addresses_together_are_bounded() {
    let server = Setup::new().set("limits.sessions", 4).start();
    let sources = (1..=4).map(|last| IpAddr::V4(Ipv4Addr::new(127, 0, 1, last)));
    let clients: Vec<Client> = sources
        .map(|source| Client::connect_from(source, server.address()))
        .collect();
    let stream = connect_from(STRANGER, server.address()).expect("a connection");
    let mut refused = Client::over(stream);
    refused.reply(421);
    refused.ended();
    drop(clients);
    eventually("room for another one", || greeted(server.address()));
}

#[test]
fn floods_of_connections_leave_nothing_behind() {
    let server = Setup::new().set("limits.sessions_per_ip", 10).start();
    drop(server.login());
    server.wait_for_log("session ended");
    let descriptors = server.descriptors();
    thread::scope(|scope| {
        for _ in 0..4 {
            scope.spawn(|| {
                for round in 0..500 {
                    let stream = TcpStream::connect(server.address()).expect("a connection");
                    if round % 2 == 0 {
                        common::reset(stream);
                    }
                }
            });
        }
    });
    eventually("all of them are gone", || {
        server.descriptors() <= descriptors
    });
    eventually("sessions are served again", || greeted(server.address()));
}

#[test]
fn a_stranger_on_the_passive_port_is_reset_and_the_client_served() {
    let server = TestServer::start();
    let content = noise(100_000, 1);
    server.put("file", &content);
    for before_the_command in [true, false] {
        let mut client = server.login();
        let address = client.passive(Way::Epsv);
        if !before_the_command {
            client.send("RETR file");
            server.wait_until_read(client.stream());
        }
        for _ in 0..3 {
            let mut stranger = connect_from(STRANGER, address).expect("a connection");
            stranger
                .set_read_timeout(Some(DEADLINE))
                .expect("a deadline");
            let got = stranger.read(&mut [0; 1]);
            let reset = got
                .as_ref()
                .is_err_and(|e| e.kind() == ErrorKind::ConnectionReset);
            assert!(reset, "not reset, but {got:?}");
        }
        let mut stream = TcpStream::connect(address).expect("the data connection");
        if before_the_command {
            client.send("RETR file");
        }
        client.reply(150);
        assert!(read_all(&mut stream) == content);
        client.reply(226);
    }
    // Nor does a stranger's upload end in a file.
    let mut client = server.login();
    let address = client.passive(Way::Pasv);
    client.send("STOR new");
    let mut stranger = connect_from(STRANGER, address).expect("a connection");
    let _ = stranger.write_all(b"a stranger's");
    drop(stranger);
    let mut stream = TcpStream::connect(address).expect("the data connection");
    client.reply(150);
    stream.write_all(b"the client's").expect("the server reads");
    drop(stream);
    client.reply(226);
    assert_eq!(server.get("new"), Some(b"the client's".to_vec()));
}

#[test]
fn a_second_connection_to_the_passive_port_gets_nothing() {
    let server = TestServer::start();
    server.put("file", noise(20_000_000, 2));
    let mut client = server.login();
    let address = client.passive(Way::Epsv);
    let mut first = TcpStream::connect(address).expect("the data connection");
    client.expect("RETR file", 150);
    // Same address, but nobody waits for it.
    let mut second = TcpStream::connect(address).expect("a connection");
    second.set_read_timeout(Some(DEADLINE)).expect("a deadline");
    assert!(
        !matches!(second.read(&mut [0; 1]), Ok(1..)),
        "the second was served"
    );
    assert_eq!(read_all(&mut first).len(), 20_000_000);
    client.reply(226);
}

#[test]
fn sessions_of_one_address_do_not_swap_their_data() {
    // One address can have each port of a core's eight but once, and the kernel may put all its
    // sessions on one core.
    const SESSIONS: u8 = 8;
    let server = TestServer::start();
    for number in 0..SESSIONS {
        server.put(&number.to_string(), vec![number; 50_000]);
    }
    thread::scope(|scope| {
        for number in 0..SESSIONS {
            let server = &server;
            scope.spawn(move || {
                let mut client = server.login();
                for round in 0..25 {
                    let way = [Way::Epsv, Way::Pasv][round % 2];
                    let got = client.download(way, format!("RETR {number}"));
                    assert!(
                        got == vec![number; 50_000],
                        "session {number} got {:?}",
                        got.first()
                    );
                }
            });
        }
    });
}

/// A data connection that hardly buffers anything.
fn narrow(address: SocketAddr) -> TcpStream {
    let socket = Socket::new(Domain::for_address(address), Type::STREAM, None).expect("a socket");
    socket.set_recv_buffer_size(4096).expect("SO_RCVBUF");
    socket.connect(&address.into()).expect("a data connection");
    socket.into()
}

#[test]
fn slow_readers_hold_up_nobody() {
    let server = TestServer::start();
    server.put("large", noise(40_000_000, 3));
    server.put("small", "content");
    let slow: Vec<(Client, TcpStream)> = (0..20)
        .map(|number| {
            let mut client = server.login();
            let stream = narrow(client.passive(Way::Epsv));
            client.expect(["RETR large", "LIST -R"][number % 2], 150);
            (client, stream)
        })
        .collect();
    let start = Instant::now();
    let mut client = server.login();
    for _ in 0..50 {
        assert_eq!(client.retr("small"), b"content");
    }
    assert!(
        start.elapsed().as_secs() < 10,
        "50 small files took {:?}",
        start.elapsed()
    );
    // They are served, too.
    let (mut first, mut stream) = slow.into_iter().next().expect("a slow reader");
    assert_eq!(read_all(&mut stream).len(), 40_000_000);
    first.reply(226);
}

#[test]
fn half_open_lines_do_not_hold_a_session_for_ever() {
    let server = Setup::new().set("limits.login_timeout", "\"1 s\"").start();
    let mut client = server.connect();
    client.send_bytes("USER anony");
    client.reply(421);
    client.ended();
}

#[test]
fn leaked_reservations_do_not_use_up_the_ports() {
    let server = Setup::new().set("data.accept_timeout", "\"1 s\"").start();
    server.put("file", "content");
    let mut client = server.login();
    // Many times as many as there are ports: a session holds one at a time.
    for _ in 0..200 {
        client.passive(Way::Epsv);
    }
    for _ in 0..40 {
        let mut leaver = server.login();
        leaver.passive(Way::Epsv);
    }
    assert_eq!(client.retr("file"), b"content");
}

#[test]
fn all_ports_taken_is_425_and_never_another_port() {
    let server = Setup::new().set("server.cores", 1).start();
    server.put("file", "content");
    let mut clients: Vec<Client> = (0..20).map(|_| server.login()).collect();
    let mut ports = std::collections::BTreeSet::new();
    let mut refused = 0;
    for client in &mut clients {
        let reply = client.ask("EPSV");
        match reply.code {
            229 => assert!(
                ports.insert(reply.text()),
                "one port for two sessions: {ports:?}"
            ),
            425 => refused += 1,
            _ => panic!("{}", reply.text()),
        }
    }
    assert_eq!((ports.len(), refused), (16, 4));
    // A port that is free again is used again.
    clients.remove(0).expect("QUIT", 221);
    let last = clients.last_mut().expect("a client");
    eventually("a port is free", || last.ask("EPSV").code == 229);
}

#[test]
fn a_server_without_descriptors_says_so_and_lives() {
    // Enough to start: 16 passive ports and what a core takes.
    let limit = "--nofile=90";
    let server = Setup::new()
        .set("limits.sessions", 500)
        .set("limits.sessions_per_ip", 500)
        .set("server.cores", 1)
        .set("data.accept_timeout", "\"1 s\"")
        .under(&["prlimit", limit])
        .start();
    server.put("file", "content");
    let mut clients = Vec::new();
    let mut refused = 0;
    for _ in 0..150 {
        let stream = TcpStream::connect(server.address()).expect("a connection");
        let mut client = Client::over(stream);
        match client.next_reply().code {
            220 => clients.push(client),
            421 => {
                refused += 1;
                client.ended();
            }
            code => panic!("{code} instead of a greeting"),
        }
    }
    assert!(
        refused > 20 && clients.len() > 5,
        "{refused} refused, {} served",
        clients.len()
    );
    // Those who are in get clear replies: a transfer takes descriptors that are not there.
    let mut failed = 0;
    for client in &mut clients {
        client.expect("USER anonymous", 331);
        let login = client.ask("PASS x");
        assert!([230, 421].contains(&login.code), "{}", login.text());
        if login.code == 230 {
            client.expect("NOOP", 200);
            client.passive(Way::Epsv);
            let reply = client.ask("RETR file");
            assert!([425, 450, 451].contains(&reply.code), "{}", reply.text());
            failed += 1;
            let reply = client.ask("MKD d");
            assert!(
                [257, 450, 451, 550].contains(&reply.code),
                "{}",
                reply.text()
            );
            break;
        }
    }
    assert!(failed > 0, "nobody could try a transfer");
    server.wait_for_log("LimitNOFILE");
    drop(clients);
    eventually("the server recovers", || greeted(server.address()));
    eventually("transfers work again", || {
        let mut client = Client::over(TcpStream::connect(server.address()).expect("connection"));
        client.next_reply().code == 220 && {
            client.expect("USER anonymous", 331);
            client.ask("PASS x").code == 230 && {
                let data = client.data(Way::Epsv);
                client.ask("RETR file").code == 150 && read_all(&mut data.stream()) == b"content"
            }
        }
    });
}

#[test]
fn memory_does_not_grow_with_sessions_that_come_and_go() {
    let server = TestServer::start();
    server.put("file", noise(200_000, 4));
    fs::create_dir(server.path("dir")).expect("a directory");
    let round = || {
        let mut client = server.login();
        client.retr("file");
        client.stor("new", &noise(150_000, 5));
        client.list("LIST");
        client.list("MLSD dir");
        client.expect("STAT dir", 213);
        client.expect("HASH file", 213);
        client.expect("QUIT", 221);
    };
    (0..60).for_each(|_| round());
    let before = server.resident_bytes();
    (0..400).for_each(|_| round());
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < GROWTH_BYTES_MAX, "{grown} bytes more than before");
}

#[test]
fn passwords_never_reach_the_log() {
    let server = Setup::new()
        .user("alice", "read-write")
        .set("log.level", "\"trace\"")
        .start();
    let mut client = server.connect();
    client.expect("USER alice", 331);
    client.expect("PASS hunter2-is-wrong", 530);
    client.expect("USER alice", 331);
    client.expect(format!("PASS {}", common::PASSWORD), 230);
    client.expect("ACCT hunter2-account", 202);
    client.expect("QUIT", 221);
    server.wait_for_log("session ended");
    let log = server.log();
    assert!(log.contains("alice"), "{log}");
    for secret in ["hunter2", common::PASSWORD] {
        assert!(!log.contains(secret), "{secret} in the log");
    }
}
