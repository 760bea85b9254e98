//! The program from outside: what it prints, where, and with which exit code.

use std::fs;
use std::io::{BufRead, BufReader, Write};
use std::net::TcpListener;
use std::path::Path;
use std::process::{Command, Output, Stdio};

#[test]
fn help_is_worth_reading_and_goes_to_standard_output() {
    for (args, parts) in [
        (
            &["--help"][..],
            &["serve", "check", "user", "Examples:", "ringftpd serve ."][..],
        ),
        (
            &["serve", "--help"],
            &["--passive-ports", "--cores", "SIGTERM", "RUST_LOG"],
        ),
        (&["check", "--help"], &["--config", "what serve would do"]),
        (
            &["user", "--help"],
            &["add", "passwd", "list", "del", "--password-stdin"],
        ),
        (
            &["user", "add", "--help"],
            &["--root", "read-write", "--file"],
        ),
    ] {
        let run = ringftpd(args, "");
        assert_eq!((run.code, run.err.as_str()), (0, ""), "{args:?}");
        for part in parts {
            assert!(
                run.out.contains(part),
                "{args:?} lacks {part:?}:\n{}",
                run.out
            );
        }
    }
}

#[test]
fn the_version_is_that_of_the_package() {
    let run = ringftpd(&["--version"], "");
    assert_eq!(
        (run.code, run.out),
        (0, format!("ringftpd {}\n", env!("CARGO_PKG_VERSION")))
    );
}

#[test]
fn the_manual_page_is_roff() {
    let run = ringftpd(&["man"], "");
    assert_eq!(run.code, 0);
    assert!(run.out.contains(".TH ringftpd"), "{}", run.out);
}

#[test]
fn a_wrong_command_line_exits_with_2_and_says_what_is_meant() {
    for (args, part) in [
        (&[][..], "Usage"),
        (&["sevre"], "serve"),
        (&["serve", "--lisen", "127.0.0.1:2121"], "--listen"),
        (&["serve", "--listen", "localhost"], "localhost"),
        (&["serve", "--passive-ports", "80-90"], "below 1024"),
        (&["serve", "--passive-ports", "3000-2000"], "upside down"),
        (&["serve", "--cores", "0"], "cannot serve"),
        (&["serve", ".", "--config", "x.toml"], "cannot be used with"),
        (&["serve", "/nonexistent"], "cannot serve /nonexistent"),
        (
            &["serve", "--config", "/nonexistent.toml"],
            "/nonexistent.toml",
        ),
        (
            &["user", "add", "a b", "--root", "/"],
            "a user name is made of",
        ),
        (&["user", "add", "ftp", "--root", "/"], "anonymous access"),
        (&["user", "add", "alice"], "--root"),
        (&["user", "set", "alice", "quota"], "not KEY=VALUE"),
        (&["user", "set", "alice", "password=x"], "user passwd"),
        (
            &["user", "list", "--store", "database"],
            "set users.database",
        ),
        (
            &["user", "list", "--file", "/x", "--database", "sqlite:/y"],
            "say by --store",
        ),
        (
            &["user", "list", "--database", "postgresql://a:secret@b/c"],
            "a password does not belong here",
        ),
        (
            &["user", "copy", "--from", "file", "--to", "file"],
            "are the same",
        ),
    ] {
        let run = ringftpd(args, "");
        assert_eq!(
            (run.code, run.out.as_str()),
            (2, ""),
            "{args:?}\n{}",
            run.err
        );
        assert!(
            run.err.contains(part),
            "{args:?} lacks {part:?}:\n{}",
            run.err
        );
    }
}

#[test]
fn a_bad_configuration_is_refused_with_line_column_caret_and_hint() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("bad.toml");
    fs::write(
        &file,
        "[limits]\nidle_timout = \"5 min\"\nline_length = \"16 KiB\"\n",
    )
    .expect("written");
    let path = file.to_str().expect("UTF-8");
    for (command, code) in [("check", 1), ("serve", 2)] {
        let run = ringftpd(&[command, "--config", path], "");
        assert_eq!((run.code, run.out.as_str()), (code, ""), "{}", run.err);
        for part in [
            &format!("{path}:2:1: limits.idle_timout: no such key\n"),
            "2 | idle_timout = \"5 min\"\n  | ^^^^^^^^^^^\n",
            "hint: did you mean `idle_timeout`?",
            &format!("{path}:3:15: limits.line_length: 16384 bytes is out of bounds\n"),
            "3 | line_length = \"16 KiB\"\n  |               ^^^^^^^^\n",
            "hint: from 512 B to 8 KiB",
        ] {
            assert!(run.err.contains(part), "lacks {part:?}:\n{}", run.err);
        }
    }
}

#[test]
fn check_says_what_serve_would_do() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("good.toml");
    let root = folder.path().display();
    let text = format!(
        "[server]\nlisten = [\"127.0.0.1:2121\"]\ncores = 1\n[data]\npassive_ports = \"21000-21009\"\n\
         [anonymous]\nenabled = true\nroot = \"{root}\"\n[users]\nfile = \"{root}/users.toml\"\n"
    );
    fs::write(&file, text).expect("written");
    let run = ringftpd(&["check", "-c", file.to_str().expect("UTF-8")], "");
    assert_eq!((run.code, run.err.as_str()), (0, ""));
    for part in [
        "good. It would serve so:",
        "127.0.0.1:2121 on 1 core (CPU ",
        "passive 21000-21009 (10 ports per core); active from port 20",
        &format!("anonymous read-only in {root}; 0 users of {root}/users.toml"),
        "visible when whole; broken ones are discarded; umask 022",
        "64 per address; login within 1 min, idle 5 min, stalled 5 min",
    ] {
        assert!(run.out.contains(part), "lacks {part:?}:\n{}", run.out);
    }
}

#[test]
fn check_finds_what_does_not_exist() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("users.toml");
    for (text, part) in [
        (
            "[anonymous]\nenabled = true\nroot = \"/nonexistent\"",
            "anonymous.root: /nonexistent: ",
        ),
        (
            "[users]\nfile = \"USERS\"",
            "USERS:1:7: user.a: lacks the key `password`",
        ),
        (
            "[server]\nuser = \"no-such-user\"",
            "there is no user \"no-such-user\"",
        ),
        ("[server]\ncores = \"1000\"", "server.cores"),
    ] {
        fs::write(&file, "[user.a]\nroot = \"/\"\n").expect("written");
        let users = file.to_str().expect("UTF-8");
        let config = folder.path().join("config.toml");
        let loopback = "listen = [\"127.0.0.1:2121\"]";
        let text = text.replace("[server]", &format!("[server]\n{loopback}"));
        let text = match text.contains("listen") {
            true => text,
            false => format!("[server]\n{loopback}\n{text}"),
        };
        fs::write(
            &config,
            text.replace("USERS", users)
                .replace("\"1000\"", "\"1000-1000\""),
        )
        .expect("written");
        let run = ringftpd(&["check", "-c", config.to_str().expect("UTF-8")], "");
        assert_eq!((run.code, run.out.as_str()), (1, ""), "{text}\n{}", run.err);
        assert!(
            run.err.contains(&part.replace("USERS", users)),
            "{text}\n{}",
            run.err
        );
    }
}

#[test]
fn users_are_added_changed_listed_and_deleted() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let file = folder.path().join("new/users.toml");
    let file = file.to_str().expect("UTF-8");
    let root = folder.path().to_str().expect("UTF-8");
    let user = |args: &[&str], input: &str| {
        let mut all = vec!["user", "--file", file];
        all.extend(args);
        ringftpd(&all, input)
    };
    let added = user(&["add", "alice", "--root", root], "secret-1\n");
    assert_eq!(added.code, 0, "{}", added.err);
    assert!(added.out.contains("alice is added to"), "{}", added.out);
    let added = user(
        &[
            "add",
            "bob@example.org",
            "--root",
            root,
            "--access",
            "read-only",
        ],
        "x",
    );
    assert_eq!(added.code, 0, "{}", added.err);

    let text = fs::read_to_string(file).expect("the users file");
    assert!(
        text.contains("[user.alice]\npassword = \"$argon2id$v=19$m=19456,t=2,p=1$"),
        "{text}"
    );
    assert!(!text.contains("secret-1"), "no password in the clear");

    let listed = user(&["list"], "");
    assert_eq!(
        listed.out,
        format!("alice            read-write  {root}\nbob@example.org  read-only   {root}\n")
    );

    let changed = user(&["passwd", "alice", "--password-stdin"], "secret-2\n");
    assert_eq!(changed.code, 0, "{}", changed.err);
    assert_ne!(fs::read_to_string(file).expect("the users file"), text);

    let deleted = user(&["del", "bob@example.org"], "");
    assert_eq!(deleted.code, 0, "{}", deleted.err);
    assert_eq!(
        user(&["list"], "").out,
        format!("alice  read-write  {root}\n")
    );

    for (args, input, code, part) in [
        (
            &["add", "alice", "--root", root][..],
            "x\n",
            1,
            "user alice exists",
        ),
        (&["passwd", "bob"], "x\n", 1, "there is no user bob"),
        (&["del", "bob"], "", 1, "there is no user bob"),
        (&["passwd", "alice"], "\n", 2, "a password is not empty"),
        (&["passwd", "alice"], "a\tb\n", 2, "control characters"),
    ] {
        let run = user(args, input);
        assert_eq!((run.code, run.out.as_str()), (code, ""), "{args:?}");
        assert!(run.err.contains(part), "{args:?}: {}", run.err);
    }
}

#[test]
fn serving_a_directory_prints_the_url_to_open() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let port = free_port();
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringftpd"))
        .args([
            "serve",
            folder.path().to_str().expect("UTF-8"),
            "--cores",
            "1",
        ])
        .args(["--listen", &format!("127.0.0.1:{port}")])
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null())
        .spawn()
        .expect("the program runs");
    let out = child.stdout.take().expect("a pipe");
    let invitation = BufReader::new(out)
        .lines()
        .map_while(Result::ok)
        .find(|line| line.starts_with("Serving "))
        .unwrap_or_default();
    // It may have ended by itself already.
    let _ = child.kill();
    child.wait().expect("it ends");
    assert!(
        invitation.contains(&format!("ftp://127.0.0.1:{port}/")),
        "{invitation}"
    );
    assert!(invitation.contains("read-only"), "{invitation}");
}

#[test]
fn the_service_unit_starts_what_the_program_offers() {
    let unit = Path::new(env!("CARGO_MANIFEST_DIR")).join("config/ringftpd.service");
    let unit = fs::read_to_string(unit).expect("the unit");
    let command = unit
        .lines()
        .find_map(|line| line.strip_prefix("ExecStart="))
        .expect("a command");
    let args: Vec<&str> = command.split_whitespace().skip(1).collect();
    let help = ringftpd(&[args[0], "--help"], "");
    assert_eq!(help.code, 0, "{}", help.err);
    assert!(help.out.contains(args[1]), "{command}");
    assert_eq!(args[2], ringftpd::config::Config::DEFAULT_PATH);

    let stop = unit
        .lines()
        .find_map(|line| line.strip_prefix("TimeoutStopSec="))
        .expect("a time");
    let stop: u64 = stop.trim_end_matches('s').parse().expect("seconds");
    let drain = ringftpd::config::Config::default().server.drain_timeout;
    assert!(stop > drain.as_secs(), "systemd would cut off the drain");
}

struct Run {
    code: i32,
    out: String,
    err: String,
}

/// Runs the program with `input` on its standard input, away from this machine's settings.
fn ringftpd(args: &[&str], input: &str) -> Run {
    let mut child = Command::new(env!("CARGO_BIN_EXE_ringftpd"))
        .args(args)
        .env_remove("RUST_LOG")
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped())
        .spawn()
        .expect("the program runs");
    // A command that reads no input may have ended already.
    let _ = child
        .stdin
        .take()
        .expect("a pipe")
        .write_all(input.as_bytes());
    let Output {
        status,
        stdout,
        stderr,
    } = child.wait_with_output().expect("it ends");
    Run {
        code: status.code().unwrap_or(-1),
        out: String::from_utf8(stdout).expect("UTF-8"),
        err: String::from_utf8(stderr).expect("UTF-8"),
    }
}

fn free_port() -> u16 {
    let listener = TcpListener::bind("127.0.0.1:0").expect("a port");
    listener.local_addr().expect("an address").port()
}
