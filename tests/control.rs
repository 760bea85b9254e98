//! The control connection as a stream of bytes: RFC 959 §4 and §5.3, RFC 854, RFC 1123 §4.1.2.10 and
//! §4.1.2.12. Lines and packets have nothing to do with each other, and no byte breaks the session.

mod common;

use common::{Client, TestServer, Way, noise};

#[test]
fn pipelined_commands_are_answered_in_order() {
    let server = TestServer::start();
    server.put("file", "12345");
    let mut client = server.connect();
    client.send_bytes(
        "USER anonymous\r\nPASS x\r\nTYPE I\r\nMKD a\r\nCWD a\r\nPWD\r\nSIZE ../file\r\nRNFR \
         ../file\r\nRNTO file\r\nMLST file\r\nNONSENSE\r\nDELE file\r\nCDUP\r\nRMD a\r\nQUIT\r\n",
    );
    client.replies(&[
        331, 230, 200, 257, 250, 257, 213, 350, 250, 250, 500, 250, 250, 250, 221,
    ]);
    client.ended();
    let mut client = server.login();
    client.send_bytes("NOOP\r\nPWD\r\n".repeat(2000));
    for _ in 0..2000 {
        client.replies(&[200, 257]);
    }
}

#[test]
fn a_pipelined_transfer_is_answered_in_order() {
    let server = TestServer::start();
    server.put("one", "1");
    server.put("two", "22");
    let mut client = server.login();
    let address = client.passive(Way::Epsv);
    client.send_bytes("RETR one\r\nEPSV\r\nNOOP\r\n");
    let mut stream = std::net::TcpStream::connect(address).expect("the data connection");
    client.reply(150);
    assert_eq!(common::read_all(&mut stream), b"1");
    client.replies(&[226, 229, 200]);
}

#[test]
fn commands_come_in_any_packets() {
    let server = TestServer::start();
    let mut client = server.connect();
    // The server has read each byte before the next is sent.
    for byte in *b"USER anonymous\r\nPASS a b\r\nNOOP\r\n" {
        client.send_bytes([byte]);
        server.wait_until_read(client.stream());
    }
    client.replies(&[331, 230, 200]);
}

#[test]
fn cr_and_lf_may_come_in_separate_packets() {
    let server = TestServer::start();
    let mut client = server.login();
    for (first, second, codes) in [
        ("NOOP\r", "\n", &[200][..]),
        ("NOOP\r", "\nPWD\r\n", &[200, 257]),
        ("MKD ", "a\r\n", &[257]),
        ("CW", "D a\r\nNOOP\r", &[250]),
        ("\n", "PWD\r\n", &[200, 257]),
    ] {
        client.send_bytes(first);
        server.wait_until_read(client.stream());
        client.send_bytes(second);
        client.replies(codes);
    }
    assert!(server.path("a").is_dir());
}

#[test]
fn lf_alone_ends_a_line() {
    let server = TestServer::start();
    let mut client = server.connect();
    client.send_bytes("USER anonymous\nPASS x\nPWD\nNOOP\r\n");
    client.replies(&[331, 230, 257, 200]);
}

#[test]
fn over_long_lines_are_refused_once_and_skipped() {
    let server = TestServer::start();
    for logged_in in [false, true] {
        let mut client = if logged_in {
            server.login()
        } else {
            server.connect()
        };
        for length in [4097, 5000, 65_536, 3_000_000] {
            client.send([b"NOOP ".as_slice(), &vec![b'x'; length]].concat());
            client.reply(500);
            client.expect("NOOP", 200);
        }
        // In pieces, and with its line end in two.
        client.send_bytes(vec![b'x'; 4096]);
        server.wait_until_read(client.stream());
        client.send_bytes(vec![b'y'; 4096]);
        server.wait_until_read(client.stream());
        client.send_bytes("\r");
        server.wait_until_read(client.stream());
        client.send_bytes("\nNOOP\r\n");
        client.replies(&[500, 200]);
    }
    // The longest line that is allowed is no syntax error.
    let mut client = server.login();
    let line = format!("SIZE {}", "x/".repeat((4096 - 5) / 2));
    let reply = client.ask(line);
    assert!([550, 553].contains(&reply.code), "{}", reply.text());
}

#[test]
fn names_with_nul_or_control_bytes_are_refused() {
    let server = TestServer::start();
    server.put("keep", "content");
    let mut client = server.login();
    for byte in (0..32).chain([127]).filter(|byte| *byte != b'\n') {
        for verb in [
            "DELE", "RETR", "SIZE", "STOR", "MKD", "RMD", "CWD", "RNFR", "MLST", "LIST",
        ] {
            // A NUL cuts a name short in C: DELE keep<NUL>x must not be DELE keep.
            client.send([verb.as_bytes(), b" keep", &[byte], b"x"].concat());
            let reply = client.next_reply();
            assert_eq!(reply.code, 501, "{verb} with byte {byte}: {}", reply.text());
        }
    }
    for line in [
        b"\0NOOP".as_slice(),
        b"NO\0OP",
        b"NOOP\0",
        b"\x01\x02\x03",
        b"NOOP\tx",
    ] {
        client.send(line);
        assert_eq!(client.next_reply().code / 100, 5, "{}", line.escape_ascii());
    }
    assert_eq!(server.get("keep"), Some(b"content".to_vec()));
    assert_eq!(common::snapshot(&server.root()).len(), 1);
}

#[test]
fn a_cr_inside_a_line_forges_nothing() {
    let server = TestServer::start();
    let mut client = server.login();
    client.send("MKD a\rDELE b");
    client.reply(501);
    client.send("NONSENSE\r226 done");
    client.reply(500);
    client.expect("NOOP", 200);
    assert_eq!(common::snapshot(&server.root()).len(), 0);
}

#[test]
fn telnet_negotiations_are_refused_and_taken_out() {
    let server = TestServer::start();
    let mut client = server.login();
    // RFC 854: DO and WILL are answered by WONT and DONT.
    client.send_bytes([IAC, DO, 1]);
    assert_eq!(client.raw(3), [IAC, WONT, 1]);
    client.send_bytes([IAC, WILL, 24]);
    assert_eq!(client.raw(3), [IAC, DONT, 24]);
    // WONT and DONT need no answer, and a command goes on around them.
    client.send_bytes([b"NO".as_slice(), &[IAC, WONT, 1, IAC, DONT, 1], b"OP\r\n"].concat());
    client.reply(200);
    client.send_bytes([b"P".as_slice(), &[IAC, 241], b"WD\r\n"].concat());
    client.reply(257);
    // A subnegotiation, in two packets.
    client.send_bytes([b"NOOP".as_slice(), &[IAC, SB, 24, 0]].concat());
    server.wait_until_read(client.stream());
    client.send_bytes([b"xterm\r\n".as_slice(), &[IAC, SE], b"\r\n"].concat());
    client.reply(200);
}

#[test]
fn a_doubled_iac_is_a_byte_of_the_name() {
    let server = TestServer::start();
    let mut client = server.login();
    client.send([b"MKD a".as_slice(), &[IAC, IAC], b"b"].concat());
    let reply = client.reply(257);
    let names = common::snapshot(&server.root());
    let name = std::os::unix::ffi::OsStrExt::as_bytes(
        names.keys().next().expect("a directory").as_os_str(),
    );
    assert_eq!(name, [b'a', 255, b'b']);
    assert!(reply.lines[0].contains(&255));
}

#[test]
fn an_endless_negotiation_is_bounded() {
    let server = TestServer::start();
    let mut client = server.connect();
    let before = server.resident_bytes();
    // More than 16 MiB of a subnegotiation that never ends, and of one line without end.
    for opening in [vec![IAC, SB, 24], b"NOOP ".to_vec()] {
        client.send_bytes(opening);
        let chunk: Vec<u8> = noise(1 << 20, 6)
            .iter()
            .map(|byte| byte | 1 & 0x7f)
            .collect();
        let chunk: Vec<u8> = chunk.iter().map(|byte| (byte & 0x7f).max(b' ')).collect();
        for _ in 0..16 {
            client.send_bytes(&chunk);
        }
        client.send_bytes([IAC, SE]);
        client.send("");
        client.reply(500);
        client.expect("NOOP", 200);
    }
    let grown = server.resident_bytes().saturating_sub(before);
    assert!(grown < 4 << 20, "{grown} bytes more than before");
}

#[test]
fn every_verb_survives_every_sort_of_argument() {
    let server = TestServer::start();
    server.put("file", "content");
    let long = "x".repeat(4000);
    let deep = "d/".repeat(1500);
    let arguments = [
        "",
        " ",
        "  ",
        "/",
        "..",
        "*",
        "\"",
        "%s%n",
        "-",
        "--",
        "-laR",
        "|",
        "||||",
        "|1|1|1|",
        ";",
        "=",
        "a=b; c",
        "0",
        "-1",
        "18446744073709551616",
        "99991231235959 file",
        "file",
        "ALL",
        "MLST",
        "UTF8",
        "HELP",
        &long,
        &deep,
    ];
    for verb in ringftpd::proto::command::Verb::ALL {
        let mut client = server.login();
        for argument in arguments {
            let mut ended = false;
            client.send(format!("{} {argument}", verb.name()));
            let reply = client.next_reply();
            ended |= [221, 421].contains(&reply.code);
            assert!(
                (200..600).contains(&reply.code),
                "{} {argument:.40}",
                verb.name()
            );
            if ended {
                client = server.login();
            }
            if ["REIN", "USER"].contains(&verb.name()) {
                client = server.login();
            }
        }
        assert_in_step(&mut client);
    }
    assert_eq!(server.login().expect("NOOP", 200).code, 200);
}

/// One command, one reply.
#[track_caller]
fn assert_in_step(client: &mut Client) {
    assert_eq!(client.expect("SYST", 215).text(), "215 UNIX Type: L8");
}

const IAC: u8 = 255;
const DONT: u8 = 254;
const DO: u8 = 253;
const WONT: u8 = 252;
const WILL: u8 = 251;
const SB: u8 = 250;
const SE: u8 = 240;
