//! Who gets in, how late a wrong password is answered, and what a right one costs.

mod common;

use std::fs;
use std::io::Write;
use std::net::{IpAddr, Ipv4Addr};
use std::os::unix::fs::PermissionsExt;
use std::process::Command;
use std::time::{Duration, Instant};

use common::{Client, PASSWORD, Setup, TestServer, eventually, program, run, run_with_input};
use nix::sys::signal::Signal;
use ringftpd::data::report::LoginReport;

/// Short waits, and nobody is locked out unless a test says so.
fn setup() -> Setup {
    Setup::new()
        .set("limits.login_attempts", 100)
        .set("limits.login_delay", "\"1 ms\"")
        .set("limits.login_delay_max", "\"2 ms\"")
        .set("limits.login_failures", 0)
        .set("limits.login_failures_per_user", 0)
}

/// A client that seems to be another one for each number.
fn client(server: &TestServer, number: u8) -> Client {
    let source = IpAddr::V4(Ipv4Addr::new(127, 0, 0, number));
    Client::connect_from(source, server.address())
}

/// Whether a name and a password are let in.
#[track_caller]
fn is_let_in(client: &mut Client, user: &str, password: &str) -> bool {
    client.expect(format!("USER {user}"), 331);
    let reply = client.ask(format!("PASS {password}"));
    match reply.code {
        230 => true,
        _ => {
            assert_eq!(reply.text(), "530 Login incorrect.");
            false
        }
    }
}

fn logins(server: &TestServer) -> LoginReport {
    server.report().logins
}

/// Adds keys to the user who was added last.
fn with_keys(setup: Setup, keys: &str) -> Setup {
    let path = setup.folder().join("users.toml");
    let file = fs::File::options().append(true).open(path);
    writeln!(file.expect("the users file"), "{keys}").expect("written");
    setup
}

#[test]
fn wrong_passwords_are_answered_later_each_time() {
    let server = setup()
        .set("limits.login_delay", "\"100 ms\"")
        .set("limits.login_delay_max", "\"300 ms\"")
        .user("alice", "read-only")
        .start();
    let mut client = client(&server, 1);
    for (user, least) in [
        ("alice", 100),
        ("nobody", 200),
        ("alice", 300),
        ("alice", 300),
    ] {
        let start = Instant::now();
        assert!(!is_let_in(&mut client, user, "wrong"));
        let least = Duration::from_millis(least);
        assert!(start.elapsed() >= least, "{user}: {:?}", start.elapsed());
    }
    assert!(is_let_in(&mut client, "alice", PASSWORD));
    server.wait_for_log("WARN login refused peer=127.0.0.1 user=\"alice\" reason=wrong-password");
    server.wait_for_log("WARN login refused peer=127.0.0.1 user=\"nobody\" reason=unknown-user");
    assert!(!server.log().contains("wrong\""), "no password in the log");
    let logins = logins(&server);
    assert_eq!(
        (logins.accepted, logins.refused, logins.locked_out),
        (1, 4, 0)
    );
    assert_eq!(
        logins.hashes, 5,
        "an unknown user costs as much as a known one"
    );
}

#[test]
fn a_name_cannot_forge_a_line_of_the_log() {
    let server = setup().user("alice", "read-only").start();
    let mut client = client(&server, 1);
    let name = "x\" reason=ok\u{202e} login refused peer=192.0.2.1 user=\"y";
    client.expect(format!("USER {name}"), 331);
    client.expect("PASS x", 530);
    let line = server.wait_for_log("login refused");
    assert!(
        line.contains("login refused peer=127.0.0.1 user=\"x\\\" reason=ok"),
        "{line}"
    );
    assert!(line.ends_with("user=\\\"y\" reason=unknown-user"), "{line}");
    assert!(!line.contains('\u{202e}'), "{line}");
}

#[test]
fn a_client_that_fails_too_often_is_locked_out() {
    let server = setup()
        .set("limits.login_failures", 3)
        .user("alice", "read-only")
        .start();
    let mut guesser = client(&server, 2);
    for password in ["a", "b", "c"] {
        assert!(!is_let_in(&mut guesser, "alice", password));
    }
    server.wait_for_log("a client is locked out peer=127.0.0.2 seconds=600");
    let before = logins(&server);
    assert!(!is_let_in(&mut guesser, "alice", PASSWORD));
    assert!(!is_let_in(&mut client(&server, 2), "alice", PASSWORD));
    let after = logins(&server);
    assert_eq!((after.locked_out, after.hashes), (2, before.hashes));
    server.wait_for_log("peer=127.0.0.2 user=\"alice\" reason=client-locked-out");
    // Neither others nor those who need no password.
    assert!(is_let_in(&mut client(&server, 3), "alice", PASSWORD));
    Client::login_from(IpAddr::V4(Ipv4Addr::new(127, 0, 0, 2)), server.address());
}

#[test]
fn a_lockout_ends_by_itself() {
    let server = setup()
        .set("limits.login_failures", 1)
        .set("limits.lockout", "\"1 s\"")
        .user("alice", "read-only")
        .start();
    let start = Instant::now();
    assert!(!is_let_in(&mut client(&server, 2), "alice", "wrong"));
    eventually("the lockout ends", || {
        is_let_in(&mut client(&server, 2), "alice", PASSWORD)
    });
    assert!(start.elapsed() >= Duration::from_secs(1));
}

#[test]
fn strangers_lock_a_user_out_for_strangers_only() {
    let server = setup()
        .set("limits.login_failures_per_user", 3)
        .user("alice", "read-only")
        .user("bob", "read-only")
        .start();
    assert!(is_let_in(&mut client(&server, 2), "alice", PASSWORD));
    for number in 3..6 {
        assert!(!is_let_in(&mut client(&server, number), "alice", "wrong"));
    }
    server.wait_for_log("strangers are locked out of a user user=\"alice\"");
    assert!(!is_let_in(&mut client(&server, 6), "alice", PASSWORD));
    server.wait_for_log("peer=127.0.0.6 user=\"alice\" reason=user-locked-out");
    assert!(is_let_in(&mut client(&server, 2), "alice", PASSWORD));
    assert!(is_let_in(&mut client(&server, 6), "bob", PASSWORD));
}

#[test]
fn guesses_at_the_same_time_do_not_get_past_the_bound() {
    let server = setup()
        .set("limits.login_failures", 3)
        .user("alice", "read-only")
        .start();
    let mut clients: Vec<Client> = (0..12).map(|_| client(&server, 2)).collect();
    for client in &mut clients {
        client.expect("USER alice", 331);
    }
    for client in &mut clients {
        client.send("PASS wrong");
    }
    for client in &mut clients {
        client.reply(530);
    }
    let logins = logins(&server);
    assert_eq!((logins.refused, logins.locked_out), (3, 9));
}

#[test]
fn a_remembered_login_is_not_hashed_again() {
    let server = setup().user("alice", "read-only").start();
    for _ in 0..5 {
        assert!(is_let_in(&mut client(&server, 2), "alice", PASSWORD));
    }
    assert!(is_let_in(&mut client(&server, 3), "alice", PASSWORD));
    let so_far = logins(&server);
    assert_eq!(
        (so_far.accepted, so_far.hashes, so_far.remembered),
        (6, 1, 5)
    );

    let users = server.folder().join("users.toml");
    let mut passwd = Command::new(program());
    passwd
        .args(["user", "passwd", "alice", "--password-stdin", "--file"])
        .arg(&users);
    run_with_input(&mut passwd, "another one\n").success();
    assert!(!is_let_in(&mut client(&server, 2), "alice", PASSWORD));
    assert!(is_let_in(&mut client(&server, 2), "alice", "another one"));
    assert!(is_let_in(&mut client(&server, 2), "alice", "another one"));
    let changed = logins(&server);
    assert_eq!((changed.hashes, changed.remembered), (3, 6));

    let mut del = Command::new(program());
    del.args(["user", "del", "alice", "--file"]).arg(&users);
    run(&mut del).success();
    assert!(!is_let_in(&mut client(&server, 2), "alice", "another one"));
    server.wait_for_log("user=\"alice\" reason=unknown-user");
}

#[test]
fn nothing_is_remembered_unless_wanted() {
    let server = setup()
        .set("users.remember", "\"0 s\"")
        .user("alice", "read-only")
        .start();
    for _ in 0..3 {
        assert!(is_let_in(&mut client(&server, 2), "alice", PASSWORD));
    }
    let logins = logins(&server);
    assert_eq!((logins.hashes, logins.remembered), (3, 0));
}

#[test]
fn accounts_are_good_at_their_times_and_from_their_networks_only() {
    // Another day than today wherever the clock of this host stands.
    let days = ["mon", "tue", "wed", "thu", "fri", "sat", "sun"];
    let today = jiff::Zoned::now().weekday().to_monday_zero_offset() as usize;
    let hours = format!("hours = [\"{} 00:00-24:00\"]", days[(today + 3) % 7]);
    let cases = [
        ("off", "enabled = false", Some("disabled")),
        ("past", "expires = \"2020-12-31\"", Some("expired")),
        (
            "away",
            "networks = [\"192.0.2.0/24\"]",
            Some("wrong-network"),
        ),
        ("early", hours.as_str(), Some("outside-hours")),
        (
            "good",
            "enabled = true\nexpires = \"9998-12-31\"\nnetworks = [\"127.0.0.0/8\"]\nhours = \
             [\"00:00-24:00\"]",
            None,
        ),
    ];
    let server = cases
        .iter()
        .fold(setup(), |setup, (user, keys, _)| {
            with_keys(setup.user(user, "read-only"), keys)
        })
        .start();
    for (index, (user, _, reason)) in (1..).zip(cases) {
        let mut client = client(&server, 2);
        assert_eq!(
            is_let_in(&mut client, user, PASSWORD),
            reason.is_none(),
            "{user}"
        );
        if let Some(reason) = reason {
            server.wait_for_log(&format!("user=\"{user}\" reason={reason}"));
            assert!(!is_let_in(&mut client, user, "wrong"));
            server.wait_for_log(&format!("user=\"{user}\" reason=wrong-password"));
            // The right one has been remembered as such, and costs one hash as well as the wrong one.
            assert_eq!(logins(&server).hashes, index * 2);
        }
    }

    let users = server.folder().join("users.toml");
    let mut list = Command::new(program());
    list.args(["user", "list", "--file"]).arg(users);
    let told = String::from_utf8(run(&mut list).success()).expect("UTF-8");
    for (user, mark) in [
        ("off", "(disabled)"),
        ("past", "(expired)"),
        ("early", "(outside-hours)"),
    ] {
        let line = told.lines().find(|line| line.starts_with(user));
        assert!(line.is_some_and(|line| line.ends_with(mark)), "{told}");
    }
    assert_eq!(told.matches('(').count(), 3, "{told}");
}

#[test]
fn a_wait_holds_up_nobody_else_and_not_the_end() {
    let mut server = setup()
        .set("server.cores", 1)
        .set("limits.login_delay", "\"1 h\"")
        .set("limits.login_delay_max", "\"1 h\"")
        .user("alice", "read-only")
        .start();
    let mut waiting = client(&server, 2);
    waiting.expect("USER alice", 331);
    waiting.send("PASS wrong");
    server.wait_for_log("reason=wrong-password");
    assert!(is_let_in(&mut client(&server, 2), "alice", PASSWORD));
    server.signal(Signal::SIGTERM);
    waiting.reply(530);
    waiting.reply(421);
    assert!(server.wait_for_exit().success());
}

#[test]
fn a_reload_changes_the_limits_of_the_guard() {
    let mut server = setup().user("alice", "read-only").start();
    for _ in 0..5 {
        assert!(!is_let_in(&mut client(&server, 2), "alice", "wrong"));
    }
    server.set("limits.login_failures", 6);
    server.reload().success();
    assert!(!is_let_in(&mut client(&server, 2), "alice", "wrong"));
    assert!(!is_let_in(&mut client(&server, 2), "alice", PASSWORD));
    assert_eq!(logins(&server).locked_out, 1);
}

/// Writes a program that answers logins with what the script echoes.
fn hook(setup: Setup, script: &str) -> Setup {
    let path = setup.folder().join("hook");
    fs::write(&path, format!("#!/bin/sh\nread question\n{script}\n")).expect("written");
    let mode = fs::Permissions::from_mode(0o755);
    fs::set_permissions(&path, mode).expect("changed");
    setup
        .set("users.enabled", true)
        .set("users.program", format!("{path:?}"))
}

#[test]
fn sources_are_asked_in_order_and_the_first_that_knows_a_name_decides() {
    let script = r#"
echo "$question" >>questions
case "$question" in
*'"user":"alice"'*|*'"password":"hooked"'*) echo '{"result": "accepted", "user": {"root": "/"}}' ;;
*'"user":"bob"'*) echo '{"result": "refused"}' ;;
*) echo '{"result": "unknown"}' ;;
esac"#;
    let setup = setup().user("alice", "read-only");
    let asked = setup.folder().join("questions");
    let script = script.replace("questions", asked.to_str().expect("UTF-8"));
    let server = hook(setup, &script)
        .set("users.sources", "[\"file\", \"program\"]")
        .start();
    let mut client = client(&server, 1);
    // The file knows alice, whatever the program would say.
    assert!(!is_let_in(&mut client, "alice", "hooked"));
    assert!(!is_let_in(&mut client, "bob", "x"));
    assert!(!is_let_in(&mut client, "carol", "x"));
    let questions = fs::read_to_string(&asked).expect("questions");
    assert!(!questions.contains("alice"), "{questions}");
    assert_eq!(questions.lines().count(), 2, "{questions}");
    assert!(is_let_in(&mut client, "carol", "hooked"));
    assert_eq!(
        client.expect("PWD", 257).text(),
        "257 \"/\" is the current directory."
    );
    // Remembered: the program is not asked again.
    client.expect("REIN", 220);
    assert!(is_let_in(&mut client, "carol", "hooked"));
    let questions = fs::read_to_string(&asked).expect("questions");
    assert_eq!(questions.lines().count(), 3, "{questions}");
    client.expect("REIN", 220);
    assert!(is_let_in(&mut client, "alice", PASSWORD));
}

#[test]
fn a_source_that_cannot_answer_lets_nobody_in_and_the_log_says_why() {
    let server = hook(setup().user("alice", "read-only"), "exit 7")
        .set("users.sources", "[\"program\", \"file\"]")
        .start();
    let mut client = client(&server, 1);
    client.expect("USER alice", 331);
    client.expect(format!("PASS {PASSWORD}"), 421);
    server.wait_for_log("exit status: 7");
}
