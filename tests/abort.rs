//! RFC 959 §4.1.3: ABOR with the Telnet Synch in every phase of a transfer, STAT and QUIT during
//! one, and what waits for its end.

mod common;

use std::fs;
use std::io::{Read, Write};
use std::net::{TcpListener, TcpStream};

use common::{Client, Setup, TestServer, Way, eventually, noise, read_all};

/// More than the socket buffers of both sides hold: the transfer stalls until the client reads.
const STALLING_BYTES: usize = 24 * 1024 * 1024;

/// How clients send ABOR.
#[derive(Clone, Copy, Debug)]
enum Synch {
    /// The command alone.
    Plain,
    /// RFC 959 §4.1.3: IAC IP, then IAC DM with the DM urgent.
    Rfc,
    /// As ftp(1) of 4.2BSD does it: IAC IP IAC with the last IAC urgent, then DM and the command.
    Bsd,
}

impl Synch {
    const ALL: [Self; 3] = [Self::Plain, Self::Rfc, Self::Bsd];

    fn send(self, client: &mut Client) {
        match self {
            Self::Plain => {}
            Self::Rfc => {
                client.send_bytes([IAC, IP]);
                client.send_urgent(&[IAC, DM]);
            }
            Self::Bsd => {
                client.send_urgent(&[IAC, IP, IAC]);
                client.send_bytes([DM]);
            }
        }
        client.send("ABOR");
    }
}

const IAC: u8 = 255;
const IP: u8 = 244;
const DM: u8 = 242;

/// A server with a file that is too large for the buffers of a data connection.
fn server_with_large_file() -> (TestServer, Vec<u8>) {
    let server = TestServer::start();
    let content = noise(STALLING_BYTES, 1);
    server.put("large", &content);
    (server, content)
}

/// The control connection is in step, and the next transfer works.
#[track_caller]
fn still_works(server: &TestServer, client: &mut Client) {
    client.expect("NOOP", 200);
    server.put("small", "content");
    assert_eq!(client.retr("small"), b"content");
}

#[test]
fn abor_without_a_transfer_is_226() {
    let server = TestServer::start();
    for synch in Synch::ALL {
        let mut client = server.login();
        synch.send(&mut client);
        client.reply(226);
        // With a data connection that waits for its transfer, it is closed.
        client.passive(Way::Epsv);
        synch.send(&mut client);
        client.reply(226);
        client.expect("RETR small", 425);
        still_works(&server, &mut client);
    }
}

#[test]
fn abor_before_the_data_connection_stands() {
    let (server, _) = server_with_large_file();
    for synch in Synch::ALL {
        for command in ["RETR large", "STOR new", "LIST", "MLSD"] {
            let mut client = server.login();
            let address = client.passive(Way::Epsv);
            client.send(command);
            server.wait_until_read(client.stream());
            synch.send(&mut client);
            client.replies(&[426, 226]);
            // Whoever comes now is a stranger to the port.
            let refused = match TcpStream::connect(address) {
                Ok(mut late) => !matches!(late.read(&mut [0; 1]), Ok(1..)),
                Err(_) => true,
            };
            assert!(refused, "{synch:?} {command}: a data connection after ABOR");
            assert_eq!(server.get("new"), None);
            still_works(&server, &mut client);
        }
    }
}

#[test]
fn abor_while_the_server_tries_to_connect() {
    let server = TestServer::start();
    server.put("small", "content");
    // Its queue holds one connection; SYNs that come when it is full are not answered.
    let full = socket2::Socket::new(socket2::Domain::IPV4, socket2::Type::STREAM, None);
    let full = full.expect("a socket");
    let any = std::net::SocketAddr::from(([127, 0, 0, 1], 0));
    full.bind(&any.into()).expect("a port");
    full.listen(0).expect("a listener");
    let full = TcpListener::from(full);
    let address = full.local_addr().expect("an address");
    let filling = TcpStream::connect(address).expect("the first connection");
    let mut client = server.login();
    let port = address.port();
    client.expect(format!("PORT 127,0,0,1,{},{}", port >> 8, port & 255), 200);
    client.send("RETR small");
    server.wait_until_read(client.stream());
    Synch::Rfc.send(&mut client);
    client.replies(&[426, 226]);
    drop(filling);
    still_works(&server, &mut client);
}

#[test]
fn abor_in_the_middle_of_a_download() {
    let (server, content) = server_with_large_file();
    for synch in Synch::ALL {
        for way in Way::ALL {
            let mut client = server.login();
            let mut stream = client.begin(way, "RETR large");
            let mut beginning = vec![0; 100_000];
            stream.read_exact(&mut beginning).expect("the first bytes");
            assert!(beginning == content[..beginning.len()]);
            synch.send(&mut client);
            client.replies(&[426, 226]);
            // What was cut off must not look like a whole file.
            let mut rest = Vec::new();
            let whole = stream.read_to_end(&mut rest).is_ok()
                && beginning.len() + rest.len() == content.len();
            assert!(
                !whole,
                "{synch:?} {way:?}: an aborted download arrived whole"
            );
            still_works(&server, &mut client);
        }
    }
}

#[test]
fn abor_in_the_middle_of_an_upload() {
    let server = TestServer::start();
    server.put("old", "what was there");
    for synch in Synch::ALL {
        for way in Way::ALL {
            for name in ["new", "old"] {
                let mut client = server.login();
                let mut stream = client.begin(way, format!("STOR {name}"));
                stream
                    .write_all(&noise(300_000, 2))
                    .expect("the server reads");
                client.wait_for_progress(300_000);
                synch.send(&mut client);
                client.replies(&[426, 226]);
                assert_eq!(server.get("new"), None, "{synch:?} {way:?}");
                assert_eq!(server.get("old"), Some(b"what was there".to_vec()));
                still_works(&server, &mut client);
            }
        }
    }
    fs::remove_file(server.path("small")).expect("the file of still_works");
    assert_eq!(
        common::snapshot(&server.root()).len(),
        1,
        "leftovers of aborted uploads"
    );
}

#[test]
fn abor_at_the_end_of_an_upload_is_all_or_nothing() {
    let server = TestServer::start();
    let content = noise(50_000, 3);
    for round in 0..40 {
        let mut client = server.login();
        let name = format!("file{round}");
        let mut stream = client.begin(Way::Epsv, format!("STOR {name}"));
        stream.write_all(&content).expect("the server reads");
        drop(stream);
        Synch::ALL[round % 3].send(&mut client);
        let first = client.next_reply();
        client.reply(226);
        match (first.code, server.get(&name)) {
            (226, Some(stored)) => assert!(stored == content, "round {round}"),
            (426, None) => {}
            (code, stored) => {
                let stored = stored.map(|stored| stored.len());
                panic!("round {round}: {code}, and of 50000 bytes were stored {stored:?}");
            }
        }
        client.expect("NOOP", 200);
    }
}

#[test]
fn abor_at_the_end_of_a_download_is_answered_in_order() {
    let server = TestServer::start();
    let content = noise(50_000, 4);
    server.put("file", &content);
    for round in 0..40 {
        let mut client = server.login();
        let mut stream = client.begin(Way::Epsv, "RETR file");
        if round % 2 == 0 {
            assert!(read_all(&mut stream) == content);
        }
        Synch::ALL[round % 3].send(&mut client);
        let first = client.next_reply();
        assert!([226, 426].contains(&first.code), "{}", first.text());
        client.reply(226);
        client.expect("NOOP", 200);
    }
}

#[test]
fn abor_of_a_listing() {
    let server = TestServer::start();
    // Lines of 250 bytes and more, so that the listing is larger than the socket buffers.
    for number in 0..40_000 {
        let name = format!("{number:05}{}", "x".repeat(245));
        fs::File::create(server.path(&name)).expect("an entry");
    }
    for command in ["LIST", "NLST", "MLSD"] {
        let mut client = server.login();
        let mut stream = client.begin(Way::Epsv, command);
        stream.read_exact(&mut [0; 1000]).expect("the first lines");
        Synch::Rfc.send(&mut client);
        client.replies(&[426, 226]);
        client.expect("NOOP", 200);
    }
    let mut client = server.login();
    assert_eq!(client.list("NLST").len(), 40_000, "listings are whole");
}

#[test]
fn abor_of_a_digest() {
    let server = TestServer::start();
    // Sparse: takes no room, but time to read.
    let file = fs::File::create(server.path("sparse")).expect("a file");
    file.set_len(64 << 30).expect("64 GiB of nothing");
    let mut client = server.login();
    client.send("HASH sparse");
    server.wait_until_read(client.stream());
    client.expect("STAT", 211);
    Synch::Rfc.send(&mut client);
    client.replies(&[426, 226]);
    still_works(&server, &mut client);
}

#[test]
fn two_abors_get_an_answer_each() {
    let (server, _) = server_with_large_file();
    let mut client = server.login();
    let _stream = client.begin(Way::Epsv, "RETR large");
    client.send("ABOR\r\nABOR\r\nNOOP");
    client.replies(&[426, 226, 226, 200]);
    still_works(&server, &mut client);
}

#[test]
fn stat_tells_how_far_a_transfer_has_come() {
    let (server, content) = server_with_large_file();
    let mut client = server.login();
    let mut stream = client.begin(Way::Epsv, "RETR large");
    client.wait_for_progress(1);
    // It does not disturb the transfer, and the Synch that RFC 959 wants before it neither.
    client.send_bytes([IAC, IP]);
    client.send_urgent(&[IAC, DM]);
    client.expect("STAT", 211);
    assert!(read_all(&mut stream) == content);
    client.reply(226);
    let mut upload = client.begin(Way::Epsv, "STOR new");
    upload
        .write_all(&content[..200_000])
        .expect("the server reads");
    client.wait_for_progress(200_000);
    upload
        .write_all(&content[200_000..])
        .expect("the server reads");
    drop(upload);
    client.reply(226);
    assert!(server.get("new") == Some(content));
    assert!(!client.expect("STAT", 211).text().contains("in progress"));
}

#[test]
fn stat_before_the_data_connection_stands() {
    let server = TestServer::start();
    server.put("file", "content");
    let mut client = server.login();
    let address = client.passive(Way::Epsv);
    client.send("RETR file");
    client.expect("STAT", 211);
    let mut stream = TcpStream::connect(address).expect("the data connection");
    client.reply(150);
    assert_eq!(read_all(&mut stream), b"content");
    client.reply(226);
}

#[test]
fn quit_lets_the_transfer_end() {
    let (server, content) = server_with_large_file();
    let mut client = server.login();
    let mut stream = client.begin(Way::Epsv, "RETR large");
    client.send("QUIT");
    server.wait_until_read(client.stream());
    // RFC 959 §4.1.1: the connection stays open for the result of the transfer.
    assert!(read_all(&mut stream) == content);
    client.replies(&[226, 221]);
    client.ended();
    let mut client = server.login();
    let mut stream = client.begin(Way::Port, "STOR new");
    stream
        .write_all(&content[..1_000_000])
        .expect("the server reads");
    client.send("QUIT");
    server.wait_until_read(client.stream());
    stream
        .write_all(&content[1_000_000..])
        .expect("the server reads");
    drop(stream);
    client.replies(&[226, 221]);
    client.ended();
    assert!(server.get("new") == Some(content));
}

#[test]
fn other_commands_wait_for_the_end_of_the_transfer() {
    let (server, content) = server_with_large_file();
    let mut client = server.login();
    let mut stream = client.begin(Way::Epsv, "RETR large");
    client.send("NOOP\r\nMKD d\r\nNONSENSE\r\nPWD");
    server.wait_until_read(client.stream());
    client.expect("STAT", 211);
    assert!(read_all(&mut stream) == content);
    client.replies(&[226, 200, 257, 500, 257]);
    assert!(server.path("d").is_dir());
}

#[test]
fn thousands_of_noops_during_a_transfer_are_answered() {
    let (server, content) = server_with_large_file();
    let mut client = server.login();
    let mut stream = client.begin(Way::Epsv, "RETR large");
    let noops = 5000;
    client.send_bytes("NOOP\r\n".repeat(noops));
    client.send("PWD");
    assert!(read_all(&mut stream) == content);
    client.reply(226);
    for _ in 0..noops {
        client.reply(200);
    }
    client.reply(257);
}

#[test]
fn more_commands_than_can_wait_end_the_session() {
    let (server, _) = server_with_large_file();
    let mut client = server.login();
    let mut stream = client.begin(Way::Epsv, "STOR new");
    stream.write_all(b"a beginning").expect("the server reads");
    for number in 0..2000 {
        let line = format!("MKD directory-{number}\r\n");
        // The server may close while it is being written to.
        if (&mut client.stream()).write_all(line.as_bytes()).is_err() {
            break;
        }
    }
    while let Some(line) = client.next_line() {
        assert!(
            line.starts_with(b"421 ") || line.starts_with(b"426 "),
            "{line:?}"
        );
    }
    eventually("the upload is given up", || {
        server.log().contains("session ended")
    });
    assert_eq!(server.get("new"), None);
    assert!(!server.path("directory-0").exists());
}

#[test]
fn a_client_that_leaves_during_a_transfer_leaves_nothing_running() {
    let (server, _) = server_with_large_file();
    // The first session starts what starts once: threads, the file of a tree.
    drop(server.login());
    server.wait_for_log("session ended");
    let before = server.descriptors();
    for command in ["RETR large", "STOR new"] {
        let mut client = server.login();
        let stream = client.begin(Way::Epsv, command);
        drop(client);
        eventually("the data connection ends", || {
            (&stream)
                .read(&mut [0; 65_536])
                .is_ok_and(|length| length == 0)
                || (&stream).write(b"x").is_err()
        });
    }
    eventually("all descriptors are closed", || {
        server.descriptors() <= before
    });
    assert_eq!(server.get("new"), None);
}

#[test]
fn aborted_transfers_leak_no_descriptor() {
    let (server, _) = server_with_large_file();
    let mut client = Client::login(server.address());
    client.retr("large");
    let round = |client: &mut Client, number: usize| {
        let command = ["RETR large", "STOR new", "LIST", "MLSD"][number % 4];
        if number.is_multiple_of(3) {
            client.passive(Way::Epsv);
            client.send(command);
            client.send("ABOR");
            client.replies(&[426, 226]);
        } else {
            let _stream = client.begin(Way::ALL[number % 4], command);
            client.send("ABOR");
            let first = client.next_reply();
            assert!([226, 426].contains(&first.code), "{}", first.text());
            client.reply(226);
        }
    };
    (0..12).for_each(|number| round(&mut client, number));
    let before = server.descriptors();
    (0..200).for_each(|number| round(&mut client, number));
    eventually("no more descriptors than before", || {
        server.descriptors() <= before
    });
}

#[test]
fn a_stalled_transfer_ends_with_426() {
    let server = Setup::new().set("limits.stall_timeout", "\"1 s\"").start();
    server.put("large", noise(STALLING_BYTES, 5));
    let mut download = server.login();
    let mut upload = server.login();
    let _unread = download.begin(Way::Epsv, "RETR large");
    let mut unsent = upload.begin(Way::Epsv, "STOR new");
    unsent.write_all(b"a beginning").expect("the server reads");
    download.reply(426);
    upload.reply(426);
    assert_eq!(server.get("new"), None);
    still_works(&server, &mut download);
    still_works(&server, &mut upload);
}
