//! RFC 2428: EPRT and EPSV, over IPv4 and IPv6.

mod common;

use std::net::TcpListener;

use common::{Client, Setup, TestServer, Way, noise};

#[test]
fn files_go_both_ways_over_ipv6() {
    let server = Setup::new().on_both_families().start();
    let content = noise(1_500_000, 1);
    for way in [Way::Epsv, Way::Eprt] {
        let mut client = Client::login(server.address_v6());
        client.upload(way, format!("STOR {way:?}"), &content);
        assert!(server.get(&format!("{way:?}")).as_ref() == Some(&content));
        assert!(client.download(way, format!("RETR {way:?}")) == content);
        assert_eq!(client.list("LIST").len(), 1 + usize::from(way == Way::Eprt));
    }
    // Both families see the same tree.
    assert!(Client::login(server.address()).retr("Epsv") == content);
}

#[test]
fn the_reply_to_epsv_has_the_form_of_section_3() {
    let server = TestServer::start();
    let mut client = server.login();
    let text = client.expect("EPSV", 229).text();
    let (_, rest) = text.split_once("(|||").expect("an opening");
    let (port, rest) = rest.split_once("|)").expect("an end");
    assert!(
        port.parse::<u16>()
            .is_ok_and(|port| (20_000..32_000).contains(&port)),
        "{text}"
    );
    assert!(!rest.contains(['(', ')']), "{text}");
}

#[test]
fn the_family_of_epsv_must_be_that_of_the_control_connection() {
    let server = Setup::new().on_both_families().start();
    for (address, own, other) in [(server.address(), 1, 2), (server.address_v6(), 2, 1)] {
        let mut client = Client::login(address);
        client.expect(format!("EPSV {own}"), 229);
        for foreign in [other, 3] {
            let text = client.expect(format!("EPSV {foreign}"), 522).text();
            // RFC 2428 §2: the supported protocols in parentheses.
            assert!(text.contains(&format!("({own})")), "{text}");
        }
        for line in ["EPSV x", "EPSV -1", "EPSV 1 2", "EPSV ALLES"] {
            client.expect(line, 501);
        }
    }
}

#[test]
fn pasv_cannot_serve_ipv6() {
    let server = Setup::new().on_both_families().start();
    let mut client = Client::login(server.address_v6());
    let reply = client.ask("PASV");
    assert!([425, 522].contains(&reply.code), "{}", reply.text());
    client.expect("PORT 127,0,0,1,200,1", 504);
    assert!(client.list("NLST").is_empty());
}

#[test]
fn eprt_goes_only_to_the_client_itself() {
    let server = Setup::new().on_both_families().start();
    server.put("file", "content");
    for (address, lines) in [
        (
            server.address(),
            [
                ("EPRT |1|127.0.0.2|51201|", 504),
                ("EPRT |1|192.0.2.1|51201|", 504),
                ("EPRT |1|127.0.0.1|1023|", 504),
                ("EPRT |1|127.0.0.1|0|", 501),
                ("EPRT |1|127.0.0.1|65536|", 501),
                ("EPRT |1|127.0.0.1|51201", 501),
                ("EPRT |1|::1|51201|", 501),
                ("EPRT |2|::1|51201|", 522),
                ("EPRT |3|x|51201|", 522),
                ("EPRT", 501),
            ],
        ),
        (
            server.address_v6(),
            [
                ("EPRT |2|::2|51201|", 504),
                ("EPRT |2|fe80::1|51201|", 504),
                ("EPRT |2|::1|1023|", 504),
                ("EPRT |2|::1|0|", 501),
                ("EPRT |2|::1|65536|", 501),
                ("EPRT |2|::1|51201", 501),
                ("EPRT |2|127.0.0.1|51201|", 501),
                ("EPRT |1|127.0.0.1|51201|", 522),
                ("EPRT |3|x|51201|", 522),
                ("EPRT ||||", 501),
            ],
        ),
    ] {
        let mut client = Client::login(address);
        for (line, code) in lines {
            let reply = client.ask(line);
            // Port 0 is as much below 1024 as it is no port.
            let accepted = reply.code == code || (line.contains("|0|") && reply.code == 504);
            assert!(accepted, "{line}: {}", reply.text());
            client.expect("RETR file", 425);
        }
    }
}

#[test]
fn eprt_takes_any_delimiter_and_any_form_of_an_address() {
    let server = Setup::new().on_both_families().start();
    server.put("file", "content");
    for (control, forms) in [
        (
            server.address(),
            ["!1!127.0.0.1!PORT!", "~1~127.0.0.1~PORT~"],
        ),
        (
            server.address_v6(),
            ["!2!::1!PORT!", "|2|0:0:0:0:0:0:0:1|PORT|"],
        ),
    ] {
        for form in forms {
            let mut client = Client::login(control);
            let listener = TcpListener::bind((control.ip(), 0)).expect("a port");
            let port = listener.local_addr().expect("an address").port();
            client.expect(
                format!("EPRT {}", form.replace("PORT", &port.to_string())),
                200,
            );
            client.expect("RETR file", 150);
            let mut stream = common::Data::Listening(listener).stream();
            assert_eq!(common::read_all(&mut stream), b"content", "{form}");
            client.reply(226);
        }
    }
}

#[test]
fn an_unspecified_address_is_the_clients_own() {
    let server = Setup::new().on_both_families().start();
    server.put("file", "content");
    // lftp 4.9.2 on the loopback interface.
    for (address, form) in [
        (server.address(), "|1|0.0.0.0|"),
        (server.address_v6(), "|2|::|"),
    ] {
        let mut client = Client::login(address);
        let listener = TcpListener::bind((address.ip(), 0)).expect("a port");
        let port = listener.local_addr().expect("an address").port();
        client.expect(format!("EPRT {form}{port}|"), 200);
        client.expect("RETR file", 150);
        let mut stream = common::Data::Listening(listener).stream();
        assert_eq!(common::read_all(&mut stream), b"content");
        client.reply(226);
    }
}

#[test]
fn epsv_all_leaves_epsv_alone() {
    let server = TestServer::start();
    server.put("file", "content");
    let mut client = server.login();
    client.expect("EPSV ALL", 200);
    // RFC 2428 §4.
    for line in ["PASV", "PORT 127,0,0,1,200,1", "EPRT |1|127.0.0.1|51201|"] {
        let reply = client.ask(line);
        assert_eq!(reply.code / 100, 5, "{line}: {}", reply.text());
        client.expect("RETR file", 425);
    }
    assert_eq!(client.retr("file"), b"content");
    client.expect("EPSV 1", 229);
    // Another session is not concerned.
    assert_eq!(server.login().download(Way::Pasv, "RETR file"), b"content");
}

#[test]
fn what_is_switched_off_is_refused() {
    let server = Setup::new().set("data.active", false).start();
    let mut client = server.login();
    for line in ["PORT 127,0,0,1,200,1", "EPRT |1|127.0.0.1|51201|"] {
        client.expect(line, 502);
    }
    client.expect("EPSV", 229);
    let server = Setup::new().set("data.passive", false).start();
    server.put("file", "content");
    let mut client = server.login();
    for line in ["PASV", "EPSV"] {
        client.expect(line, 502);
    }
    assert_eq!(client.download(Way::Port, "RETR file"), b"content");
}
