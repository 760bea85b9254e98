//! From the start to the end: what the server says when it starts or cannot, how it stops, and that
//! every core serves.

mod common;

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::net::TcpStream;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::Command;
use std::time::Instant;

use common::{
    Client, Process, Setup, TestServer, Way, is_root, noise, passive_ports, program, read_all, run,
};
use nix::sys::signal::Signal;

/// More than the socket buffers of both sides hold.
const LARGE_BYTES: usize = 24 * 1024 * 1024;

#[test]
fn idle_sessions_get_421_and_the_exit_code_is_0() {
    for signal in [Signal::SIGTERM, Signal::SIGINT] {
        let mut server = TestServer::start();
        let mut clients = [server.connect(), server.login(), server.login()];
        clients[2].passive(Way::Epsv);
        let start = Instant::now();
        server.signal(signal);
        for client in &mut clients {
            client.reply(421);
            client.ended();
        }
        assert_eq!(server.wait_for_exit().code(), Some(0), "{signal}");
        assert!(
            start.elapsed().as_secs() < 10,
            "{signal}: {:?}",
            start.elapsed()
        );
        assert!(server.log().contains("stopped"));
    }
}

#[test]
fn running_transfers_end_whole() {
    let mut server = TestServer::start();
    let content = noise(LARGE_BYTES, 1);
    server.put("large", &content);
    let (mut reader, mut writer) = (server.login(), server.login());
    let mut down = reader.begin(Way::Epsv, "RETR large");
    let mut up = writer.begin(Way::Port, "STOR new");
    up.write_all(&content[..1_000_000])
        .expect("the server reads");
    server.signal(Signal::SIGTERM);
    server.wait_for_log("stopping");
    let address = server.address();
    common::eventually("no new sessions", || TcpStream::connect(address).is_err());
    assert!(read_all(&mut down) == content);
    reader.replies(&[226, 421]);
    reader.ended();
    up.write_all(&content[1_000_000..])
        .expect("the server reads");
    drop(up);
    writer.replies(&[226, 421]);
    writer.ended();
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert!(server.get("new") == Some(content));
}

/// A server with a download and an upload that do not go on.
fn stalled(setup: Setup) -> (TestServer, [(Client, TcpStream); 2]) {
    let server = setup.start();
    server.put("large", noise(LARGE_BYTES, 2));
    let (mut reader, mut writer) = (server.login(), server.login());
    let down = reader.begin(Way::Epsv, "RETR large");
    let mut up = writer.begin(Way::Epsv, "STOR new");
    up.write_all(b"a beginning").expect("the server reads");
    (server, [(reader, down), (writer, up)])
}

#[test]
fn a_second_signal_ends_what_still_runs() {
    let (mut server, sessions) = stalled(Setup::new().set("server.drain_timeout", "\"1 h\""));
    server.signal(Signal::SIGTERM);
    server.wait_for_log("stopping");
    let [_download, (mut client, _upload)] = sessions;
    // It still runs: STAT is answered.
    client.expect("STAT", 211);
    server.signal(Signal::SIGTERM);
    assert_eq!(server.wait_for_exit().code(), Some(0));
    assert_eq!(server.get("new"), None);
}

#[test]
fn the_drain_timeout_ends_what_still_runs() {
    for timeout in ["0 s", "1 s"] {
        let setup = Setup::new().set("server.drain_timeout", format!("{timeout:?}"));
        let (mut server, sessions) = stalled(setup);
        let start = Instant::now();
        server.signal(Signal::SIGTERM);
        for (mut client, stream) in sessions {
            // What is cut off is said to be cut off.
            let reply = client.next_reply();
            assert!([421, 426].contains(&reply.code), "{}", reply.text());
            drop(stream);
        }
        assert_eq!(server.wait_for_exit().code(), Some(0), "{timeout}");
        assert!(
            start.elapsed().as_secs() < 10,
            "{timeout}: {:?}",
            start.elapsed()
        );
        assert_eq!(server.get("new"), None);
    }
}

#[test]
fn sighup_ends_nothing() {
    let server = TestServer::start();
    let mut client = server.login();
    server.signal(Signal::SIGHUP);
    server.wait_for_log("reloaded");
    client.expect("NOOP", 200);
    server.login().expect("NOOP", 200);
}

#[test]
fn a_second_server_on_the_same_port_is_refused_with_a_hint() {
    let server = TestServer::start();
    let address = server.address().to_string();
    let second = Setup::new().set("server.listen", format!("[{address:?}]"));
    let run = run(Command::new(program())
        .arg("serve")
        .arg("--config")
        .arg(second.write()));
    assert_eq!(run.code, Some(1), "{}", run.err);
    for part in [
        address.as_str(),
        "another program listens there",
        "ss -ltnp",
    ] {
        assert!(run.err.contains(part), "no {part:?} in {}", run.err);
    }
    // The first one has all of its clients still.
    for _ in 0..20 {
        server.login().expect("NOOP", 200);
    }
}

#[test]
fn passive_ports_of_others_are_left_out_or_named() {
    let first = TestServer::start();
    let ports =
        fs::read_to_string(first.folder().join("ringftpd.toml")).expect("the configuration");
    let line = ports
        .lines()
        .find(|line| line.starts_with("passive_ports"))
        .expect("the range");
    let range = line.split('"').nth(1).expect("a string");
    // All of them are taken.
    let second = Setup::new().set("data.passive_ports", format!("{range:?}"));
    let refused = run(Command::new(program())
        .arg("serve")
        .arg("--config")
        .arg(second.write()));
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    assert!(
        refused.err.contains("data.passive_ports"),
        "{}",
        refused.err
    );
    // Some of them: the rest serves, and a warning says so.
    let (low, _) = range.split_once('-').expect("a range");
    let low: u16 = low.parse().expect("a port");
    let wider = format!("\"{low}-{}\"", low + 200);
    let third = Setup::new().set("data.passive_ports", wider).start();
    third.wait_for_log("passive ports are held by other programs");
    third.put("file", "content");
    let mut client = third.login();
    for _ in 0..30 {
        assert_eq!(client.retr("file"), b"content");
    }
}

#[test]
fn the_summary_says_what_is_served() {
    let server = Setup::new().on_both_families().start();
    let summary = server.summary();
    for part in [
        "cores",
        "127.0.0.1:",
        "[::1]:",
        "passive",
        "from any port",
        "anonymous read-write",
        "sessions",
    ] {
        assert!(summary.contains(part), "no {part:?} in\n{summary}");
    }
}

#[test]
fn every_core_serves() {
    let server = Setup::new().set("server.cores", "\"all\"").start();
    let content = noise(300_000, 3);
    server.put("file", &content);
    let line = server
        .summary()
        .lines()
        .find(|line| line.starts_with("  passive"));
    // "16 ports: 20000-20007 | 20008-20015": one slice for each core.
    let (_, slices) = line
        .expect("the ports")
        .split_once(": ")
        .expect("their slices");
    let slices: Vec<(u16, u16)> = slices
        .split(" | ")
        .map(|slice| {
            let (first, last) = slice.trim().split_once('-').unwrap_or((slice, slice));
            (
                first.parse().expect("a port"),
                last.parse().expect("a port"),
            )
        })
        .collect();
    let cpus = std::thread::available_parallelism()
        .expect("the CPUs")
        .get();
    assert_eq!(slices.len(), cpus);
    // The kernel deals connections out by a hash: 24 for each core miss one once in 10 billion.
    let mut served = BTreeSet::new();
    let mut sessions: Vec<Client> = (0..24 * cpus).map(|_| server.login()).collect();
    for client in &mut sessions {
        let address = client.passive(Way::Epsv);
        let slice = |(first, last): &(u16, u16)| (*first..=*last).contains(&address.port());
        served.insert(slices.iter().position(slice).expect("a port of the range"));
        let mut stream = TcpStream::connect(address).expect("the data connection");
        client.expect("RETR file", 150);
        assert!(read_all(&mut stream) == content);
        client.reply(226);
    }
    assert_eq!(served.len(), cpus, "cores that served: {served:?}");
}

#[test]
fn every_core_is_pinned_to_a_cpu_of_its_own() {
    let server = Setup::new().set("server.cores", "\"all\"").start();
    let mut cpus = BTreeSet::new();
    let mut cores = 0;
    for thread in fs::read_dir(format!("/proc/{}/task", server.pid())).expect("/proc") {
        let thread = thread.expect("a thread").path();
        let name = fs::read_to_string(thread.join("comm")).unwrap_or_default();
        if name.starts_with("core ") {
            let status = fs::read_to_string(thread.join("status")).expect("its status");
            let allowed = status
                .lines()
                .find_map(|line| line.strip_prefix("Cpus_allowed_list:"));
            cpus.insert(allowed.expect("its CPUs").trim().to_owned());
            cores += 1;
        }
    }
    assert_eq!(
        cores,
        std::thread::available_parallelism()
            .expect("the CPUs")
            .get()
    );
    assert_eq!(cpus.len(), cores, "{cpus:?}");
}

/// A user of this machine who owns nothing.
const NOBODY: &str = "65534";

/// The program, and a folder to share, where [`NOBODY`] can reach them.
fn for_nobody() -> (tempfile::TempDir, PathBuf) {
    let folder = tempfile::tempdir().expect("a folder");
    let readable = fs::Permissions::from_mode(0o755);
    fs::set_permissions(folder.path(), readable).expect("the mode of the folder");
    let copy = folder.path().join("ringftpd");
    // By another process: a descriptor of this one, open for writing, could be inherited by what a
    // test beside this one starts, and then nobody may run the program (ETXTBSY).
    run(Command::new("cp").arg(program()).arg(&copy)).success();
    let shared = folder.path().join("shared");
    fs::create_dir(&shared).expect("a folder to share");
    fs::write(shared.join("hello.txt"), "hello\n").expect("a file to share");
    (folder, copy)
}

/// Runs the rest as [`NOBODY`], if these are root's tests.
fn as_nobody() -> Vec<&'static str> {
    match is_root() {
        true => vec![
            "setpriv",
            "--reuid",
            NOBODY,
            "--regid",
            NOBODY,
            "--clear-groups",
        ],
        false => vec!["env"],
    }
}

#[test]
fn anybody_can_serve_a_directory_without_a_configuration() {
    let (folder, copy) = for_nobody();
    let words = as_nobody();
    let mut command = Command::new(words[0]);
    command.args(&words[1..]).arg(copy).current_dir("/");
    command.arg("serve").arg(folder.path().join("shared"));
    command.args([
        "--listen",
        "127.0.0.1:0",
        "--passive-ports",
        &passive_ports(16),
    ]);
    let (mut process, summary) = Process::start(&mut command).expect("it serves");
    let url = process.wait_for_output("ftp://");
    let url = url
        .split_whitespace()
        .find(|word| word.starts_with("ftp://"));
    let url = url.unwrap_or_else(|| panic!("no URL behind\n{summary}"));
    let listed = run(Command::new("curl").args(["-sS", url])).success();
    assert!(String::from_utf8_lossy(&listed).contains("hello.txt"));
    let file = format!("{url}hello.txt");
    for way in [&[][..], &["--ftp-port", "-"]] {
        assert_eq!(
            run(Command::new("curl").arg("-sS").args(way).arg(&file)).success(),
            b"hello\n"
        );
    }
    let refused = run(Command::new("curl").args(["-sS", "-T", "/etc/hostname", &file]));
    assert_ne!(refused.code, Some(0), "read-only");
    process.signal(Signal::SIGTERM);
    assert_eq!(process.wait_for_exit().code(), Some(0));
}

/// In a network of its own, where nobody else has port 2121.
#[test]
fn the_first_command_of_the_readme_works_as_it_stands() {
    let (folder, copy) = for_nobody();
    let script = folder.path().join("script");
    let program = copy.display();
    let shared = folder.path().join("shared");
    let user = as_nobody().join(" ");
    fs::write(
        &script,
        format!(
            "set -e\nip link set lo up\ncd '{}'\n{user} '{program}' serve . >../out 2>../err &\n\
             i=0\nuntil grep -q ftp:// ../out; do i=$((i+1)); [ $i -lt 600 ]; sleep 0.05; done\n\
             curl -sS ftp://127.0.0.1:2121/hello.txt\nkill $!\nwait $!\n",
            shared.display()
        ),
    )
    .expect("a script");
    let namespace: &[&str] = match is_root() {
        true => &["--net"],
        false => &["--net", "--user", "--map-root-user"],
    };
    let run = run(Command::new("unshare")
        .args(namespace)
        .args(["sh", "-e"])
        .arg(&script));
    let told = |name| fs::read_to_string(folder.path().join(name)).unwrap_or_default();
    assert_eq!(
        run.out,
        b"hello\n",
        "{}\n{}\n{}",
        run.err,
        told("out"),
        told("err")
    );
    assert_eq!(run.code, Some(0), "{}\n{}", run.err, told("err"));
    assert!(
        told("out").contains("ftp://127.0.0.1:2121/"),
        "{}",
        told("out")
    );
}

#[test]
fn new_users_and_passwords_take_effect_at_once() {
    let server = Setup::new().user("alice", "read-write").start();
    let file = server.folder().join("users.toml");
    let user = |arguments: &[&str], password: &str| {
        let script = format!(
            "printf '%s\\n' \"$1\" | \"$0\" user {}",
            arguments.join(" ")
        );
        let file = file.display().to_string();
        let mut command = Command::new("sh");
        command.arg("-c").arg(format!("{script} --file '{file}'"));
        run(command.arg(program()).arg(password)).success();
    };
    let login = |name: &str, password: &str| {
        let mut client = server.connect();
        client.expect(format!("USER {name}"), 331);
        client.ask(format!("PASS {password}")).code
    };
    assert_eq!(login("alice", common::PASSWORD), 230);
    assert_eq!(login("carol", "new"), 530);
    fs::create_dir(server.folder().join("carol")).expect("a root");
    let root = server.folder().join("carol").display().to_string();
    user(
        &["add", "carol", "--password-stdin", "--root", &root],
        "new",
    );
    assert_eq!(login("carol", "new"), 230);
    user(&["passwd", "alice", "--password-stdin"], "changed");
    assert_eq!(login("alice", common::PASSWORD), 530);
    assert_eq!(login("alice", "changed"), 230);
    user(&["del", "carol"], "");
    assert_eq!(login("carol", "new"), 530);
}

#[test]
fn the_server_gives_up_root() {
    if !is_root() {
        // Without root there is nothing to give up; the test as root shows it.
        return;
    }
    let setup = Setup::new()
        .set("server.user", "\"nobody\"")
        .set("data.active_source_port", 20);
    let readable = |path: &Path, mode| {
        fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    readable(setup.folder(), 0o755);
    readable(&setup.root(), 0o777);
    let server = setup.start();
    for thread in fs::read_dir(format!("/proc/{}/task", server.pid())).expect("/proc") {
        let status = thread.expect("a thread").path().join("status");
        let status = fs::read_to_string(status).expect("its status");
        for name in ["Uid:", "Gid:"] {
            let line = status
                .lines()
                .find_map(|line| line.strip_prefix(name))
                .expect("its ids");
            assert!(line.split_whitespace().all(|id| id != "0"), "{name}{line}");
        }
        let effective = status
            .lines()
            .find_map(|line| line.strip_prefix("CapEff:\t"));
        let effective = u64::from_str_radix(effective.expect("its capabilities"), 16);
        // CAP_NET_BIND_SERVICE (capabilities(7)), for port 20.
        assert_eq!(effective.expect("a number") & !(1 << 10), 0);
    }
    let mut client = server.login();
    client.stor("file", b"content");
    let owner = fs::metadata(server.path("file")).expect("the file");
    assert_ne!(std::os::unix::fs::MetadataExt::uid(&owner), 0);
    let stream = client.begin(Way::Port, "RETR file");
    assert_eq!(stream.peer_addr().expect("an address").port(), 20);
    client.reply(226);
}

#[test]
fn a_descriptor_limit_below_the_ports_is_named_with_the_remedy() {
    let setup = Setup::new().set("data.passive_ports", "\"20000-21999\"");
    let mut command = Command::new("prlimit");
    command.arg("--nofile=1000:1000").arg(program());
    let refused = run(command.arg("serve").arg("--config").arg(setup.write()));
    assert_eq!(refused.code, Some(1), "{}", refused.err);
    for part in [
        "2000 passive ports need",
        "the limit is 1000",
        "LimitNOFILE=",
        "data.passive_ports",
    ] {
        assert!(refused.err.contains(part), "no {part:?} in {}", refused.err);
    }
}

#[test]
fn a_range_that_the_kernel_uses_too_is_named_with_the_remedy() {
    let server = Setup::new()
        .set("data.passive_ports", "[\"20992-20995\", \"40000-40003\"]")
        .start();
    let warned = server.wait_for_log("also given to outgoing connections");
    for part in ["40000-40003", "ip_local_reserved_ports="] {
        assert!(warned.contains(part), "no {part:?} in {warned}");
    }
    // The other range is not named.
    assert!(!server.log().contains("20992-20995 are also given"));
}

#[test]
fn a_file_in_the_place_of_the_admin_socket_is_left_alone() {
    let setup = Setup::new();
    let socket = setup.folder().join("admin.sock");
    fs::write(&socket, "precious").expect("a file");
    let mut server = setup.start();
    server.wait_for_log("no socket for 'ringftpd ports'");
    server.signal(Signal::SIGTERM);
    server.wait_for_exit();
    assert_eq!(fs::read(&socket).expect("the file"), b"precious");
}

#[test]
fn the_admin_socket_of_a_killed_server_is_taken_over_and_one_in_use_is_not() {
    let mut first = TestServer::start();
    let socket = first.folder().join("admin.sock");
    let mode = fs::metadata(&socket).expect("the socket").permissions();
    assert_eq!(PermissionsExt::mode(&mode) & 0o777, 0o600);
    let second = Setup::new()
        .set("admin.socket", format!("{socket:?}"))
        .start();
    second.wait_for_log("no socket for 'ringftpd ports'");
    drop(second);
    assert_eq!(
        first
            .report()
            .cores
            .iter()
            .map(|core| core.sessions)
            .sum::<usize>(),
        0
    );
    first.signal(Signal::SIGKILL);
    first.wait_for_exit();
    assert!(socket.exists());
    let mut third = Setup::new()
        .set("admin.socket", format!("{socket:?}"))
        .start();
    assert!(std::os::unix::net::UnixStream::connect(&socket).is_ok());
    third.signal(Signal::SIGTERM);
    third.wait_for_exit();
    assert!(!socket.exists());
}
