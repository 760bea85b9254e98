//! Who is connected, and how sessions are ended from outside.

mod common;

use std::io::{Read, Write};
use std::net::{IpAddr, Shutdown};
use std::process::Command;

use common::{Client, Run, Setup, TestServer, Way, eventually, noise, program, run};
use ringftpd::server::sessions::{SessionReport, Sessions};

fn command(server: &TestServer, arguments: &[&str]) -> Run {
    let mut command = Command::new(program());
    command.args(arguments).arg("--socket");
    run(command.arg(server.folder().join("admin.sock")))
}

fn who(server: &TestServer, arguments: &[&str]) -> Vec<SessionReport> {
    let arguments = [&["who", "--json"], arguments].concat();
    let json = command(server, &arguments).success();
    let told: Sessions = serde_json::from_slice(&json).expect("sessions");
    assert_eq!((told.left_out, told.silent_cores.len()), (0, 0));
    told.sessions
}

#[track_caller]
fn kick(server: &TestServer, arguments: &[&str], ends: &str) {
    let run = command(server, &[&["kick"], arguments].concat());
    let told = format!("{}{}", String::from_utf8_lossy(&run.out), run.err);
    assert_eq!(told.trim(), ends, "{arguments:?}");
    let found = !ends.starts_with("No session");
    assert_eq!(run.code == Some(0), found, "{told}");
}

/// Reads the reply that says why, and the end of the connection.
#[track_caller]
fn is_told(client: &mut Client) {
    let reply = client.reply(421);
    assert!(reply.text().contains("administrator"), "{}", reply.text());
    client.ended();
}

#[test]
fn who_shows_what_each_session_does() {
    let setup = Setup::new()
        .set("server.cores", 2)
        .user("alice", "read-write");
    let server = setup.start();
    let silent = server.connect();
    let idle = server.login();
    let mut alice = Client::login_as(server.address(), "alice");
    let mut upload = alice.begin(Way::Epsv, "STOR some file");
    upload
        .write_all(&noise(100_000, 1))
        .expect("the server reads");
    alice.wait_for_progress(100_000);

    let sessions = who(&server, &[]);
    assert_eq!(sessions.len(), 3, "{sessions:?}");
    let of = |user: Option<&str>| {
        let found = sessions.iter().find(|it| it.user.as_deref() == user);
        found.unwrap_or_else(|| panic!("no {user:?} in {sessions:?}"))
    };
    assert!(of(None).transfer.is_none() && of(Some("anonymous")).transfer.is_none());
    let transfer = of(Some("alice")).transfer.clone().expect("a transfer");
    assert_eq!(
        (&*transfer.verb, &*transfer.path, &*transfer.direction),
        ("STOR", "/some file", "upload")
    );
    assert_eq!(transfer.bytes, 100_000);
    let ids: std::collections::BTreeSet<u64> = sessions.iter().map(|it| it.id).collect();
    assert_eq!(ids.len(), 3, "numbers come twice: {sessions:?}");
    for session in &sessions {
        assert_eq!(session.client, IpAddr::from([127, 0, 0, 1]));
        assert_eq!(session.local, server.address());
    }

    upload
        .write_all(&noise(50_000, 2))
        .expect("the server reads");
    alice.wait_for_progress(150_000);
    let again = who(&server, &["--user", "alice", "--ip", "127.0.0.0/8"]);
    assert_eq!(again.len(), 1);
    assert_eq!(again[0].transfer.as_ref().map(|it| it.bytes), Some(150_000));
    assert!(who(&server, &["--ip", "192.0.2.0/24"]).is_empty());
    drop(upload);
    alice.reply(226);
    let id = again[0].id.to_string();
    server.wait_for_log(&format!("transfer complete session={id}"));

    let table = command(&server, &["who", "--sort", "user"]).success();
    let table = String::from_utf8(table).expect("text");
    let alice_line = table.lines().nth(1).expect("a line");
    assert!(alice_line.contains("alice"), "{table}");
    drop((silent, idle));
    eventually("those who left are gone", || who(&server, &[]).len() == 1);
}

#[test]
fn sessions_are_ended_by_number_name_and_network() {
    let setup = Setup::new()
        .set("server.cores", 2)
        .user("alice", "read-write");
    let server = setup.start();
    let mut silent = server.connect();
    let mut anonymous = server.login();
    let mut alice: Vec<Client> = (0..4)
        .map(|_| Client::login_as(server.address(), "alice"))
        .collect();
    let sessions = who(&server, &[]);
    let number = sessions.iter().find(|it| it.user.is_none());
    let number = number.expect("who has not logged in").id.to_string();
    kick(&server, &[&number], "1 session ends.");
    is_told(&mut silent);
    kick(&server, &[&number], "No session matches.");
    kick(&server, &["--ip", "192.0.2.0/24"], "No session matches.");
    kick(
        &server,
        &["--user", "alice", "--ip", "127.0.0.1"],
        "4 sessions end.",
    );
    alice.iter_mut().for_each(is_told);
    anonymous.expect("NOOP", 200);
    kick(&server, &["--all"], "1 session ends.");
    is_told(&mut anonymous);
    server.wait_for_log("session kicked");
    server.login().expect("NOOP", 200);
}

#[test]
fn a_kick_ends_transfers_and_leaves_nothing_of_an_upload() {
    let server = Setup::new().start();
    server.put("big", noise(30_000_000, 1));
    let mut uploading = server.login();
    let mut upload = uploading.begin(Way::Epsv, "STOR file");
    upload
        .write_all(&noise(100_000, 1))
        .expect("the server reads");
    uploading.wait_for_progress(100_000);
    let mut downloading = server.login();
    let mut download = downloading.begin(Way::Epsv, "RETR big");
    let mut some = [0; 1000];
    download.read_exact(&mut some).expect("some of it");
    kick(&server, &["--all"], "2 sessions end.");
    for (client, stream) in [
        (&mut uploading, &mut upload),
        (&mut downloading, &mut download),
    ] {
        client.reply(426);
        is_told(client);
        // It is reset, or at its end.
        let _ = stream.shutdown(Shutdown::Write);
        let _ = stream.read_to_end(&mut Vec::new());
    }
    eventually("both are gone", || who(&server, &[]).is_empty());
    let left: Vec<_> = common::snapshot(&server.root()).into_keys().collect();
    assert_eq!(left, [std::path::PathBuf::from("big")]);
}

#[test]
fn a_login_that_is_made_to_wait_ends_with_its_session() {
    let setup = Setup::new()
        .set("limits.login_delay", "\"30 s\"")
        .set("limits.login_delay_max", "\"30 s\"")
        .user("alice", "read-write");
    let server = setup.start();
    let mut client = server.connect();
    client.expect("USER alice", 331);
    client.send("PASS wrong");
    server.wait_for_log("login refused");
    kick(&server, &["--all"], "1 session ends.");
    client.replies(&[530, 421]);
    client.ended();
}
