//! The program under test, with a configuration of its own in a folder of its own, on loopback.

use std::collections::BTreeMap;
use std::fmt::{Display, Write as _};
use std::fs;
use std::io::{BufRead, BufReader, Read, Write};
use std::net::{IpAddr, Ipv4Addr, SocketAddr, TcpListener, TcpStream};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::thread;

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use ringftpd::data::report::{RangeReport, Report};
use tempfile::TempDir;

use super::{Client, DEADLINE, eventually, random};

/// The program under test.
pub(crate) fn program() -> &'static Path {
    Path::new(env!("CARGO_BIN_EXE_ringftpd"))
}

/// What every user of the tests has.
pub(crate) const PASSWORD: &str = "correct horse";

/// Whether the tests may do what only root may.
pub(crate) fn is_root() -> bool {
    nix::unistd::Uid::effective().is_root()
}

type Sections = BTreeMap<&'static str, BTreeMap<&'static str, String>>;

/// A server that is to be started.
pub(crate) struct Setup {
    folder: TempDir,
    sections: Sections,
    wrapper: Vec<String>,
}

impl Setup {
    /// Anonymous clients of 127.0.0.1 may read and write.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        let root = folder.path().join("root");
        fs::create_dir(&root).expect("the root");
        let setup = Self {
            folder,
            sections: BTreeMap::new(),
            wrapper: Vec::new(),
        };
        let state = setup.folder.path().to_owned();
        let users = setup.folder.path().join("users.toml");
        let socket = setup.folder.path().join("admin.sock");
        setup
            .set("server.listen", "[\"127.0.0.1:0\"]")
            .set("data.active_source_port", 0)
            .set("admin.socket", format!("{socket:?}"))
            .set("anonymous.enabled", true)
            .set("anonymous.access", "\"read-write\"")
            .set("anonymous.root", format!("{root:?}"))
            .set("users.enabled", false)
            .set("users.file", format!("{users:?}"))
            .set("users.state", format!("{state:?}"))
    }

    /// Sets `section.key`; the value is TOML.
    pub(crate) fn set(mut self, key: &'static str, value: impl Display) -> Self {
        let (section, key) = key.rsplit_once('.').expect("section.key");
        let section = self.sections.entry(section).or_default();
        section.insert(key, value.to_string());
        self
    }

    /// On 127.0.0.1 and ::1.
    pub(crate) fn on_both_families(self) -> Self {
        self.set("server.listen", "[\"127.0.0.1:0\", \"[::1]:0\"]")
    }

    /// Adds a virtual user whose tree is the folder of that name beside the root.
    pub(crate) fn user(self, name: &str, access: &str) -> Self {
        let root = self.folder.path().join(name);
        fs::create_dir(&root).expect("the root of a user");
        let file = self.folder.path().join("users.toml");
        let arguments = [
            "user",
            "add",
            name,
            "--access",
            access,
            "--password-stdin",
            "--file",
        ];
        let mut command = Command::new(program());
        command.args(arguments).arg(file).arg("--root").arg(root);
        let added = run_with_input(&mut command, &format!("{PASSWORD}\n"));
        assert_eq!(added.code, Some(0), "user add: {}", added.err);
        self.set("users.enabled", true)
    }

    /// Adds lines to the section of the user that was added last.
    pub(crate) fn user_keys(self, lines: &str) -> Self {
        let file = self.folder.path().join("users.toml");
        let mut text = fs::read_to_string(&file).expect("a users file");
        writeln!(text, "{lines}").expect("a string takes everything");
        fs::write(&file, text).expect("a users file");
        self
    }

    /// Starts the server by this command, which must become it (exec).
    pub(crate) fn under(mut self, wrapper: &[&str]) -> Self {
        self.wrapper = wrapper.iter().map(|word| (*word).to_owned()).collect();
        self
    }

    /// The folder that holds the configuration and the root.
    pub(crate) fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// What clients see as "/".
    pub(crate) fn root(&self) -> PathBuf {
        self.folder.path().join("root")
    }

    /// The file with the configuration, with passive ports that no other test is likely to have.
    pub(crate) fn write(&self) -> PathBuf {
        let mut sections = self.sections.clone();
        let data = sections.entry("data").or_default();
        data.entry("passive_ports")
            .or_insert_with(|| format!("\"{}\"", passive_ports(16)));
        self.write_sections(&sections)
    }

    fn write_sections(&self, sections: &Sections) -> PathBuf {
        let mut text = String::new();
        for (section, keys) in sections {
            writeln!(text, "[{section}]").expect("a string takes everything");
            for (key, value) in keys {
                writeln!(text, "{key} = {value}").expect("a string takes everything");
            }
        }
        let path = self.folder.path().join("ringftpd.toml");
        fs::write(&path, text).expect("the configuration");
        path
    }

    /// Starts it and waits until it serves.
    #[track_caller]
    pub(crate) fn start(mut self) -> TestServer {
        let data = self.sections.entry("data").or_default();
        let chooses_ports = !data.contains_key("passive_ports");
        for _ in 0..STARTS_MAX {
            if chooses_ports {
                self = self.set("data.passive_ports", format!("\"{}\"", passive_ports(16)));
            }
            let mut command = match self.wrapper.split_first() {
                Some((first, rest)) => {
                    let mut command = Command::new(first);
                    command.args(rest).arg(program());
                    command
                }
                None => Command::new(program()),
            };
            command.arg("serve").arg("--config").arg(self.write());
            match Process::start(&mut command) {
                Ok((process, summary)) => {
                    return TestServer {
                        process,
                        control: control_addresses(&summary),
                        summary,
                        setup: self,
                    };
                }
                // Another test took the same ports.
                Err(told) if told.contains("passive port") => {}
                Err(told) => panic!("the server did not start:\n{told}"),
            }
        }
        panic!("no free passive ports in {STARTS_MAX} attempts");
    }
}

/// So many ports somewhere below those that the kernel gives to outgoing connections, which nobody
/// has at the moment.
pub(crate) fn passive_ports(count: u16) -> String {
    for _ in 0..RANGES_MAX {
        let place = random() % u64::from(11_840 / count);
        let first = 20_000 + u16::try_from(place).expect("less than 11 840") * count;
        let mut range = first..first + count;
        let is_free = |port| TcpListener::bind((Ipv4Addr::UNSPECIFIED, port)).is_ok();
        if range.all(is_free) {
            return format!("{first}-{}", first + count - 1);
        }
    }
    panic!("no {count} free ports in a row in {RANGES_MAX} attempts");
}

/// A server that serves. It ends with the test, which fails if the server has panicked.
pub(crate) struct TestServer {
    process: Process,
    control: Vec<SocketAddr>,
    summary: String,
    setup: Setup,
}

impl TestServer {
    /// With the configuration of [`Setup::new`].
    #[track_caller]
    pub(crate) fn start() -> Self {
        Setup::new().start()
    }

    /// Starts another one with the same configuration, when this one has ended.
    #[track_caller]
    pub(crate) fn start_again(self) -> Self {
        self.setup.start()
    }

    /// Where it listens, IPv4 first.
    pub(crate) fn address(&self) -> SocketAddr {
        self.control[0]
    }

    /// Everywhere it listens, in the order of the configuration.
    pub(crate) fn addresses(&self) -> &[SocketAddr] {
        &self.control
    }

    /// Where it listens for IPv6.
    pub(crate) fn address_v6(&self) -> SocketAddr {
        let v6 = self.control.iter().find(|address| address.is_ipv6());
        *v6.expect("a server on both families")
    }

    /// What clients see as "/".
    pub(crate) fn root(&self) -> PathBuf {
        self.setup.root()
    }

    /// The folder around the root, which no client may see.
    pub(crate) fn folder(&self) -> &Path {
        self.setup.folder()
    }

    /// The passive ports of its configuration, if they are one range.
    pub(crate) fn passive_ports(&self) -> std::ops::RangeInclusive<u16> {
        let text = self.setup.sections["data"]["passive_ports"].trim_matches('"');
        let (first, last) = text.split_once('-').expect("a range");
        first.parse().expect("a port")..=last.parse().expect("a port")
    }

    /// Changes a key of the configuration, which the server does not know of yet.
    pub(crate) fn set(&mut self, key: &'static str, value: impl Display) {
        let (section, key) = key.rsplit_once('.').expect("section.key");
        let section = self.setup.sections.entry(section).or_default();
        section.insert(key, value.to_string());
        self.setup.write_sections(&self.setup.sections);
    }

    /// Has it read the configuration again; what it says of that.
    pub(crate) fn reload(&self) -> Run {
        let socket = self.folder().join("admin.sock");
        run(Command::new(program())
            .arg("reload")
            .arg("--socket")
            .arg(socket))
    }

    /// What it reports of its passive ports.
    pub(crate) fn report(&self) -> Report {
        let socket = self.folder().join("admin.sock");
        let mut command = Command::new(program());
        command.args(["ports", "--json", "--socket"]).arg(socket);
        let json = run(&mut command).success();
        serde_json::from_slice(&json).expect("a report")
    }

    /// The sum over all cores, addresses and ranges of what it reports of its passive ports.
    pub(crate) fn total(&self, figure: impl Fn(&RangeReport) -> u64) -> u64 {
        let report = self.report();
        let pools = report.cores.iter().flat_map(|core| &core.pools);
        pools.flat_map(|pool| &pool.ranges).map(figure).sum()
    }

    /// A path below the root.
    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.root().join(name)
    }

    /// Puts a file into the tree.
    pub(crate) fn put(&self, name: &str, content: impl AsRef<[u8]>) {
        fs::write(self.path(name), content).expect("a file in the tree");
    }

    /// What a file of the tree holds; `None` if it is not there.
    pub(crate) fn get(&self, name: &str) -> Option<Vec<u8>> {
        fs::read(self.path(name)).ok()
    }

    /// A client that has read the greeting.
    #[track_caller]
    pub(crate) fn connect(&self) -> Client {
        Client::connect(self.address())
    }

    /// A client that is logged in and has set TYPE I.
    #[track_caller]
    pub(crate) fn login(&self) -> Client {
        Client::login(self.address())
    }

    /// What it told at its start.
    pub(crate) fn summary(&self) -> &str {
        &self.summary
    }

    /// Its process.
    pub(crate) fn process(&mut self) -> &mut Process {
        &mut self.process
    }

    /// Its process number.
    pub(crate) fn pid(&self) -> u32 {
        self.process.child.id()
    }

    /// Waits for a line of the log that holds `text`.
    #[track_caller]
    pub(crate) fn wait_for_log(&self, text: &str) -> String {
        self.process.log.wait_for(text)
    }

    /// Everything logged so far.
    pub(crate) fn log(&self) -> String {
        self.process.log.text()
    }

    /// Bytes of its memory that are in RAM (proc(5), VmRSS).
    pub(crate) fn resident_bytes(&self) -> u64 {
        let status = fs::read_to_string(format!("/proc/{}/status", self.pid())).expect("/proc");
        let line = status.lines().find(|line| line.starts_with("VmRSS:"));
        let number = line.and_then(|line| line.split_whitespace().nth(1));
        number
            .and_then(|number| number.parse::<u64>().ok())
            .expect("VmRSS in kB")
            * 1024
    }

    /// Descriptors that it has open.
    pub(crate) fn descriptors(&self) -> usize {
        fs::read_dir(format!("/proc/{}/fd", self.pid()))
            .expect("/proc")
            .count()
    }

    /// Waits until the server has read all that was sent on this connection.
    #[track_caller]
    pub(crate) fn wait_until_read(&self, stream: &TcpStream) {
        let (ours, its) = addresses(stream);
        eventually("the server reads what was sent", || {
            unread(its, ours) == Some(0)
        });
    }

    /// Sends a signal.
    pub(crate) fn signal(&self, signal: Signal) {
        self.process.signal(signal);
    }

    /// Whether SIGSTOP has reached all of its threads (proc(5), stat: the state is T).
    pub(crate) fn has_stopped(&self) -> bool {
        let tasks = fs::read_dir(format!("/proc/{}/task", self.pid())).expect("/proc");
        let mut stats =
            tasks.map(|task| fs::read_to_string(task.expect("/proc").path().join("stat")));
        stats.all(|stat| stat.expect("/proc").contains(") T "))
    }

    /// Waits for its end.
    #[track_caller]
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        self.process.wait_for_exit()
    }
}

/// A running program whose output is kept.
pub(crate) struct Process {
    child: Child,
    log: Log,
    output: Log,
    exit: Option<ExitStatus>,
}

impl Process {
    /// Starts a server and waits for its summary on standard output.
    ///
    /// # Errors
    /// What it told on standard error, if it ended instead.
    pub(crate) fn start(command: &mut Command) -> Result<(Self, String), String> {
        command
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::piped());
        command.env_remove("RUST_LOG");
        let mut child = command
            .spawn()
            .unwrap_or_else(|error| panic!("{command:?}: {error}"));
        let log = Log::of(child.stderr.take().expect("a piped stderr"));
        let output = Log::of(child.stdout.take().expect("a piped stdout"));
        let mut process = Self {
            child,
            log,
            output,
            exit: None,
        };
        if process.output.find(SUMMARY_END).is_some() {
            let summary = process.output.text();
            return Ok((process, summary));
        }
        let status = process.wait_for_exit();
        process.log.wait_for_end();
        Err(format!("{status}\n{}", process.log.text()))
    }

    /// Waits for a line on standard output that holds `text`.
    #[track_caller]
    pub(crate) fn wait_for_output(&self, text: &str) -> String {
        self.output.wait_for(text)
    }

    pub(crate) fn signal(&self, signal: Signal) {
        let pid = i32::try_from(self.child.id()).expect("a process number");
        signal::kill(Pid::from_raw(pid), signal).expect("a signal to a child");
    }

    #[track_caller]
    pub(crate) fn wait_for_exit(&mut self) -> ExitStatus {
        eventually("the program ends", || {
            self.exit = self.child.try_wait().expect("the state of a child");
            self.exit.is_some()
        });
        self.exit.expect("the program has ended")
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        let ended_by_itself =
            self.exit.is_none() && self.child.try_wait().is_ok_and(|exit| exit.is_some());
        if self.exit.is_none() && !ended_by_itself {
            // Fails only for a child that has ended in the meantime.
            let _ = self.child.kill();
            let _ = self.child.wait();
        }
        self.log.wait_for_end();
        let log = self.log.text();
        if thread::panicking() {
            let last: Vec<&str> = log.lines().rev().take(LOG_LINES_SHOWN).collect();
            let last: String = last.iter().rev().map(|line| format!("{line}\n")).collect();
            let _ = writeln!(std::io::stderr(), "--- end of the server's log:\n{last}---");
            return;
        }
        assert!(!ended_by_itself, "the server ended by itself:\n{log}");
        assert!(!log.contains("panicked"), "the server panicked:\n{log}");
    }
}

/// What a program writes, as it comes.
#[derive(Clone)]
struct Log(Arc<(Mutex<Written>, Condvar)>);

#[derive(Default)]
struct Written {
    lines: Vec<String>,
    ended: bool,
}

impl Log {
    fn of(output: impl Read + Send + 'static) -> Self {
        let log = Self(Arc::default());
        let writer = log.clone();
        thread::spawn(move || {
            for line in BufReader::new(output).lines().map_while(Result::ok) {
                writer.change(|written| written.lines.push(line));
            }
            writer.change(|written| written.ended = true);
        });
        log
    }

    fn change(&self, change: impl FnOnce(&mut Written)) {
        let (written, changed) = &*self.0;
        change(&mut written.lock().expect("the log"));
        changed.notify_all();
    }

    fn text(&self) -> String {
        let written = self.0.0.lock().expect("the log");
        written
            .lines
            .iter()
            .map(|line| format!("{line}\n"))
            .collect()
    }

    fn wait_for_end(&self) {
        let (written, changed) = &*self.0;
        let written = written.lock().expect("the log");
        let _ = changed
            .wait_timeout_while(written, DEADLINE, |written| !written.ended)
            .expect("the log");
    }

    /// Waits for a line that holds `text`; `None` when the output has ended without it.
    fn find(&self, text: &str) -> Option<String> {
        let (written, changed) = &*self.0;
        let find = |written: &Written| {
            written
                .lines
                .iter()
                .find(|line| line.contains(text))
                .cloned()
        };
        let written = written.lock().expect("the log");
        let (written, _) = changed
            .wait_timeout_while(written, DEADLINE, |written| {
                find(written).is_none() && !written.ended
            })
            .expect("the log");
        find(&written)
    }

    #[track_caller]
    fn wait_for(&self, text: &str) -> String {
        let found = self.find(text);
        found.unwrap_or_else(|| panic!("no {text:?} in the output:\n{}", self.text()))
    }
}

/// A program that has run to its end.
#[derive(Debug)]
pub(crate) struct Run {
    pub(crate) code: Option<i32>,
    pub(crate) out: Vec<u8>,
    pub(crate) err: String,
}

impl Run {
    /// What it wrote to standard output, if all went well.
    #[track_caller]
    pub(crate) fn success(self) -> Vec<u8> {
        let Self { code, out, err } = self;
        let shown = String::from_utf8_lossy(&out);
        assert_eq!(code, Some(0), "output:\n{shown}\nerrors:\n{err}");
        out
    }
}

/// Runs a program to its end. One that does not exist is a failure of the test, not of the server.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Run {
    run_with_input(command, "")
}

/// The same with something on its standard input.
#[track_caller]
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Run {
    command
        .stdin(Stdio::piped())
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    let name = command.get_program().to_owned();
    let mut child = command.spawn().unwrap_or_else(|error| {
        panic!(
            "cannot run {name:?}: {error}; install {}",
            package_of(&name.to_string_lossy())
        )
    });
    // A program that does not read it may have closed it.
    let _ = child
        .stdin
        .take()
        .expect("a piped stdin")
        .write_all(input.as_bytes());
    let output = child.wait_with_output().expect("the output of a child");
    Run {
        code: output.status.code(),
        out: output.stdout,
        err: String::from_utf8_lossy(&output.stderr).into_owned(),
    }
}

/// The Debian package of a program that the tests use.
fn package_of(program: &str) -> &str {
    match program {
        "ncftpget" | "ncftpput" | "ncftpls" => "the package ncftp",
        "setpriv" | "prlimit" | "unshare" => "the package util-linux",
        "ip" => "the package iproute2",
        "curl" => "the package curl",
        "sqlite3" => "the package sqlite3",
        "psql" => "the package postgresql",
        "lftp" => "the package lftp",
        "python3" => "the package python3",
        _ => "it",
    }
}

fn control_addresses(summary: &str) -> Vec<SocketAddr> {
    let line = summary
        .lines()
        .find_map(|line| line.strip_prefix("  control "));
    let list = line.unwrap_or_else(|| panic!("no control addresses in\n{summary}"));
    list.split(',')
        .map(|address| address.trim().parse().expect("an address"))
        .collect()
}

fn addresses(stream: &TcpStream) -> (SocketAddr, SocketAddr) {
    let ours = stream.local_addr().expect("the address of a socket");
    (ours, stream.peer_addr().expect("the address of its peer"))
}

/// Bytes that lie unread in the socket from `local` to `remote` (proc(5), /proc/net/tcp).
fn unread(local: SocketAddr, remote: SocketAddr) -> Option<u64> {
    assert!(local.is_ipv4(), "only /proc/net/tcp is read");
    let table = fs::read_to_string("/proc/net/tcp").expect("/proc");
    let (local, remote) = (hexadecimal(local), hexadecimal(remote));
    table.lines().find_map(|line| {
        let mut words = line.split_whitespace().skip(1);
        if words.next()? != local || words.next()? != remote {
            return None;
        }
        let (_, received) = words.nth(1)?.split_once(':')?;
        u64::from_str_radix(received, 16).ok()
    })
}

fn hexadecimal(address: SocketAddr) -> String {
    let IpAddr::V4(ip) = address.ip() else {
        unreachable!("looked at before");
    };
    // The kernel prints the number as it lies in memory.
    let number = u32::from_ne_bytes(Ipv4Addr::octets(&ip));
    format!("{number:08X}:{:04X}", address.port())
}

/// How the last line of the summary begins.
const SUMMARY_END: &str = "  limits ";

/// Lines of the log that a failed test shows.
const LOG_LINES_SHOWN: usize = 20;

/// Attempts to find ports that nobody has.
const RANGES_MAX: u32 = 100;

/// Attempts to start before another test takes the same ports.
const STARTS_MAX: u32 = 10;
