//! The load generator (`examples/load`): the parts that can be looked at alone, and the program
//! against this server.

#[path = "../benches/client/mod.rs"]
mod client;
mod common;

use std::fs::{self, File};
use std::path::PathBuf;
use std::process::Command;
use std::time::Duration;

use serde_json::Value;

use client::latency::{Latencies, Summary};
use client::{Via, pattern, reply};
use common::{Run, Setup, TestServer, passive_ports, run_with_input};

#[test]
fn replies_are_parsed_as_they_come() {
    let whole: &[(&[u8], u16, usize)] = &[
        (b"220 hello\r\n", 220, 11),
        (b"230\r\n", 230, 5),
        // 150 and 226 in one segment.
        (b"150 here\r\n226 done\r\n", 150, 10),
        (b"220-a\r\n b\r\n221 no\r\n220 c\r\n", 220, 26),
        (b"211-\r\n2\r\n\r\n211-more\r\n211 end\r\nx", 211, 30),
    ];
    for (bytes, code, length) in whole {
        assert_eq!(reply::parse(bytes), Ok(Some((*code, *length))));
        for short in 0..*length {
            let part = &bytes[..short];
            assert_eq!(reply::parse(part), Ok(None), "{part:?}");
        }
    }
    let wrong: &[&[u8]] = &[
        b"220 x\n",
        b"x\r\n",
        b"22\r\n",
        b"620 x\r\n",
        b"220x\r\n",
        b"\r\n",
    ];
    for bytes in wrong {
        assert!(reply::parse(bytes).is_err(), "{bytes:?}");
    }
}

#[test]
fn addresses_of_passive_connections_are_found() {
    let epsv = |text: &str| reply::epsv_port(text.as_bytes());
    assert_eq!(epsv("229 Extended (|||6446|)\r\n"), Some(6446));
    assert_eq!(epsv("229 ok (!!!21!)\r\n"), Some(21));
    assert_eq!(epsv("229 ok (|||66000|)\r\n"), None);
    assert_eq!(epsv("229 ok (|1||21|)\r\n"), None);
    assert_eq!(epsv("229 ok\r\n"), None);
    let pasv = |text: &str| reply::pasv_address(text.as_bytes());
    let expected = Some(([127, 0, 0, 1], 0x1234));
    assert_eq!(pasv("227 Passive (127,0,0,1,18,52).\r\n"), expected);
    assert_eq!(pasv("227 =127,0,0,1,18,52\r\n"), expected);
    assert_eq!(pasv("227 (127,0,0,1,18)\r\n"), None);
    assert_eq!(pasv("227 (127,0,0,1,18,256)\r\n"), None);
    assert_eq!(pasv("227 (127,0,0,1,18,52,3)\r\n"), None);
}

#[test]
fn active_addresses_are_written() {
    let v4 = "127.0.0.1:4660".parse().expect("an address");
    let v6 = "[::1]:4660".parse().expect("an address");
    let line = |via: Via, address| via.active_line(address).ok();
    assert_eq!(
        line(Via::Port, v4).as_deref(),
        Some("PORT 127,0,0,1,18,52\r\n")
    );
    assert_eq!(
        line(Via::Eprt, v4).as_deref(),
        Some("EPRT |1|127.0.0.1|4660|\r\n")
    );
    assert_eq!(
        line(Via::Eprt, v6).as_deref(),
        Some("EPRT |2|::1|4660|\r\n")
    );
    assert_eq!(line(Via::Port, v6), None);
}

#[test]
fn the_pattern_is_the_same_wherever_it_begins() {
    let mut whole = vec![0; 4099];
    pattern::fill(&mut whole, 0);
    // The first value of the well-known sequence with the seed 0.
    assert_eq!(whole[..8], 0xe220_a839_7b1d_cdaf_u64.to_le_bytes());
    let mut part = vec![0; 1003];
    pattern::fill(&mut part, 3096);
    assert_eq!(part, whole[3096..]);
    assert_eq!(pattern::difference(&part, 3096), None);
    part[999] ^= 1;
    assert_eq!(pattern::difference(&part, 3096), Some(3096 + 999));
}

#[test]
fn quantiles_are_durations_that_were_measured() {
    let mut latencies = Latencies::default();
    assert_eq!(latencies.summary(), None);
    for micros in (1..=1000).rev() {
        latencies.record(Duration::from_micros(micros));
    }
    let expected = Summary {
        count: 1000,
        p50: 500.0,
        p99: 990.0,
        p999: 999.0,
        max: 1000.0,
    };
    assert_eq!(latencies.summary(), Some(expected));
    assert_eq!(latencies.summary(), None);
}

#[test]
fn every_kind_of_work_is_done() {
    let stage = Stage::new();
    let count = |arguments: &str| stage.units(arguments);
    assert_eq!(count("login --sessions 3"), 3);
    assert_eq!(count("command --sessions 5"), 5);
    assert_eq!(count("command --sessions 2 --line SYST --code 215"), 2);
    for via in Via::ALL.map(Via::name) {
        let retr = format!("retr --sessions 3 --via {via} --file small --size 4100");
        assert_eq!(count(&retr), 3);
        let big = format!("retr --sessions 2 --via {via} --file big --size {BIG}");
        assert_eq!(count(&big), 2);
        let stor = format!("stor --sessions 2 --via {via} --file {via} --size 4100");
        assert_eq!(count(&stor), 2);
        let stor = format!("stor --sessions 2 --via {via} --file big-{via} --size {BIG}");
        assert_eq!(count(&stor), 2);
        for (name, size) in [(format!("{via}1"), 4100), (format!("big-{via}0"), BIG)] {
            let path = stage.server.path(&name);
            let check = format!("check --size {size} --path {}", path.display());
            stage.load(&check, "").success();
        }
    }
    for verb in ["LIST", "MLSD", "NLST"] {
        assert_eq!(count(&format!("list --verb {verb} --directory /names")), 1);
    }
    assert_eq!(count("probe --what noop --interval-us 10"), 1);
    assert_eq!(
        count("probe --what retr --via epsv --file small --size 4100"),
        1
    );
}

#[test]
fn latencies_and_requests_are_told() {
    let stage = Stage::new();
    let told = stage.go(
        "probe --what retr --via pasv --file small --size 4100",
        "0.05",
    );
    let units = told["units"].as_u64().expect("a number");
    assert_eq!(told["latency"]["count"], units);
    assert_eq!(told["asked"], units);
    assert_eq!(told["bytes"], 4100 * units);
    assert_eq!(told["refused"], 0);
    assert_eq!(told["password_asked"], true);
    let told = stage.go("command --sessions 2", "0");
    assert_eq!(told["latency"], Value::Null);
    assert_eq!(told["handshakes"], Value::Null);
}

#[test]
fn every_kind_of_work_is_done_over_tls() {
    let setup = Setup::new()
        .tls()
        .set("tls.policy", "\"require-data\"")
        .set("tls.data_resumption", "\"require\"");
    let stage = Stage::of(setup);
    for (version, cipher) in [("1.2", TLS12_CIPHER), ("1.3", TLS13_CIPHER)] {
        let go = |arguments: &str| stage.go(&format!("--tls {version} {arguments}"), "0");
        let shaken = |arguments: &str, full: u64, resumed: u64| {
            let shaken = &go(arguments)["handshakes"];
            assert_eq!(shaken["full"], full, "{version} {arguments}");
            assert_eq!(shaken["resumed"], resumed, "{version} {arguments}");
            assert_eq!(shaken["cipher"], cipher);
            let name = format!("TLSv{}", version.replace('.', "_"));
            assert_eq!(shaken["version"], name);
        };
        shaken("login --sessions 3", 3, 0);
        shaken("command --sessions 5", 0, 0);
        shaken("probe --what noop", 0, 0);
        shaken("list --verb MLSD --directory /names", 0, 1);
        for via in Via::ALL.map(Via::name) {
            for (name, size) in [("small", 4100), ("big", BIG)] {
                let what = format!("--via {via} --size {size} --file");
                shaken(&format!("retr --sessions 3 {what} {name}"), 0, 3);
                shaken(
                    &format!("stor --sessions 2 {what} {version}-{via}-{name}"),
                    0,
                    2,
                );
                let path = stage.server.path(&format!("{version}-{via}-{name}1"));
                let check = format!("check --size {size} --path {}", path.display());
                stage.load(&check, "").success();
            }
        }
        let verify = format!("--tls {version} verify --file big --size {BIG}");
        stage.load(&verify, "").success();
        // Two begin, and those that end begin again.
        let slow = "slow --sessions 2 --file small --size 4100 --rate 100000";
        let slow = stage.go(&format!("--tls {version} {slow}"), "0.5");
        let units = slow["units"].as_u64().expect("a number");
        assert!((8..50).contains(&units), "{units} downloads");
        assert_eq!(slow["handshakes"]["resumed"], units);
    }
}

#[test]
fn certificates_are_made() {
    let setup = Setup::new();
    let path = setup.folder().join("made.pem");
    let made = Command::new(program())
        .args(["certify", "--path"])
        .arg(&path)
        .output();
    assert!(made.expect("the program").status.success());
    let stage = Stage::of(setup.set("tls.certificates", format!("[{path:?}]")));
    let told = stage.go("--tls 1.3 login --sessions 1", "0");
    assert_eq!(told["units"], 1);
}

#[test]
fn a_session_that_is_not_resumed_is_counted() {
    let stage = Stage::of(Setup::new().tls().set("tls.data_resumption", "\"off\""));
    let retr = "--tls 1.3 retr --sessions 2 --via epsv --file small --size 4100";
    let told = stage.go(retr, "0");
    assert_eq!(told["handshakes"]["full"], 2);
    assert_eq!(told["handshakes"]["resumed"], 0);
}

#[test]
fn sessions_stand_still_or_read_slowly() {
    let stage = Stage::new();
    let told = stage.go("idle --sessions 40", "0.05");
    assert_eq!(told["bytes"], 0);
    // More than what it can have at once, less than what a reader without a limit takes.
    let slow = format!("slow --sessions 2 --file big --size {BIG} --rate 1000000");
    let bytes = stage.go(&slow, "0.5")["bytes"].as_u64().expect("a number");
    assert!((500_000..2_000_000).contains(&bytes), "{bytes} bytes");
    // Files that end begin again.
    let slow = "slow --sessions 2 --file small --size 4100 --rate 100000";
    let units = stage.go(slow, "0.5")["units"].as_u64().expect("a number");
    assert!((8..50).contains(&units), "{units} downloads");
}

#[test]
fn what_is_wrong_is_told() {
    let stage = Stage::new();
    let wrong = |arguments: &str, text: &str| {
        let run = stage.load(arguments, "warm\nend\n");
        assert_eq!(run.code, Some(1), "{arguments}: {}", run.err);
        assert!(run.err.starts_with("load: "), "{}", run.err);
        assert!(run.err.contains(text), "{}", run.err);
        assert_eq!(run.err.lines().count(), 1, "{}", run.err);
    };
    wrong("command --sessions 1 --line NOOP --code 250", "200");
    wrong("retr --via epsv --file none --size 1", "550");
    wrong("retr --via epsv --file small --size 4099", "4100 bytes");
    wrong(
        &format!("retr --via epsv --file big --size {}", BIG + 1),
        "bytes",
    );
    wrong(
        &format!("retr --via epsv --file big --size {}", BIG - 1),
        "more",
    );
    wrong("list --verb NLST --directory /names --bytes 1", "bytes");
    wrong("--tls 1.3 command --sessions 1", "AUTH TLS: 502");
    wrong("verify --file small --size 4101", "4100 bytes");
    wrong("verify --file other --size 4100", "byte 0");
}

#[test]
fn files_and_listings_are_verified() {
    let stage = Stage::new();
    stage.load("verify --file small --size 4100", "").success();
    let big = format!("verify --via port --file big --size {BIG}");
    stage.load(&big, "").success();
    let names = stage.server.folder().join("names.txt");
    fs::write(&names, "a file\nb\nc\n").expect("a file");
    let verify = format!("verify-list --directory /names --names {}", names.display());
    let told = stage.load(&verify, "").success();
    let told: Value = serde_json::from_slice(&told).expect("JSON");
    assert_eq!(told["NLST"], "a file\r\nb\r\nc\r\n".len());
    assert_eq!(told["sorted"], true);
    assert!(told["LIST"].is_u64() && told["MLSD"].is_u64(), "{told}");
    fs::write(&names, "a file\nb\nd\n").expect("a file");
    let run = stage.load(&verify, "");
    assert!(run.err.contains("\"c\" for \"d\""), "{}", run.err);
}

#[test]
fn the_end_of_input_ends_it_quietly() {
    let stage = Stage::new();
    let run = stage.load("command --sessions 2", "");
    assert_eq!(run.success(), b"ready\n");
}

/// A server with files that have the pattern.
struct Stage {
    server: TestServer,
}

impl Stage {
    fn new() -> Self {
        Self::of(Setup::new())
    }

    fn of(setup: Setup) -> Self {
        let server = setup
            .set("data.passive_ports", format!("\"{}\"", passive_ports(32)))
            .start();
        for (name, size) in [("small", 4100), ("big", BIG)] {
            let mut content = vec![0; size];
            pattern::fill(&mut content, 0);
            server.put(name, content);
        }
        server.put("other", vec![b'x'; 4100]);
        fs::create_dir(server.path("names")).expect("a folder");
        for name in ["a file", "b", "c"] {
            File::create(server.path("names").join(name)).expect("a file");
        }
        Self { server }
    }

    fn load(&self, arguments: &str, orders: &str) -> Run {
        let mut command = Command::new(program());
        let port = self.server.address().port().to_string();
        command.args(["--port", &port]).args(arguments.split(' '));
        run_with_input(&mut command, orders)
    }

    /// The answer to `go`.
    fn go(&self, arguments: &str, seconds: &str) -> Value {
        let out = self
            .load(arguments, &format!("go {seconds}\nend\n"))
            .success();
        let out = String::from_utf8(out).expect("UTF-8");
        let lines: Vec<&str> = out.lines().collect();
        let ["ready", told, "{\"ended\":true}"] = lines[..] else {
            panic!("{arguments}: {out}");
        };
        serde_json::from_str(told).expect("JSON")
    }

    /// Of one step.
    fn units(&self, arguments: &str) -> u64 {
        self.go(arguments, "0")["units"].as_u64().expect("a number")
    }
}

/// Cargo puts it beside the folder of the tests, if it builds all of a package.
fn program() -> PathBuf {
    let test = std::env::current_exe().expect("this program");
    let profile = test.ancestors().nth(2).expect("target/PROFILE/deps");
    let program = profile.join("examples/load");
    assert!(
        program.exists(),
        "cargo build --example load has to run first"
    );
    program
}

const TLS12_CIPHER: &str = "TLS_ECDHE_ECDSA_WITH_AES_128_GCM_SHA256";
const TLS13_CIPHER: &str = "TLS13_AES_128_GCM_SHA256";

/// More than a MiB, so by epoll, and no multiple of anything.
const BIG: usize = 3_000_001;
