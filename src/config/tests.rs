//! The documented file against the code, and every kind of refusal with its place and hint.

use std::net::SocketAddr;
use std::time::Duration;

use super::*;

const DOCUMENTED: &str = include_str!("../../config/ringftpd.toml");

#[test]
fn the_documented_file_says_exactly_the_defaults() {
    let config = Config::parse(DOCUMENTED, "ringftpd.toml").expect("the shipped file is valid");
    assert_eq!(config, Config::default());
    assert_eq!(
        Config::parse("", "empty").expect("all keys are optional"),
        Config::default()
    );
}

#[test]
fn the_documented_file_names_every_key_in_its_section() {
    let mut documented = Vec::new();
    let mut section = String::new();
    for line in DOCUMENTED.lines() {
        let line = line.trim_start_matches("# ");
        if let Some(name) = line.strip_prefix('[') {
            // A section with a name of the operator's choice is [listener.NAME].
            let name = name.trim_end_matches(']').split('.').next();
            section = name.unwrap_or_default().to_owned();
        } else if let Some((key, _)) = line.split_once(" = ") {
            documented.push((section.clone(), key.to_owned()));
        }
    }
    let expected: Vec<(String, String)> = KEYS
        .iter()
        .flat_map(|(section, keys)| {
            keys.iter()
                .map(|key| (section.to_string(), key.to_string()))
        })
        .collect();
    assert_eq!(documented, expected);
}

#[test]
fn every_key_has_an_effect() {
    let others = [
        ("server", "listen", "[\"127.0.0.1:2121\"]"),
        ("server", "cores", "\"0-1\""),
        ("server", "user", "\"ftp\""),
        ("server", "group", "\"ftp\"\nuser = \"ftp\""),
        ("server", "greeting", "\"hello\""),
        ("server", "drain_timeout", "\"0 s\""),
        ("server", "steering", "\"cpu\""),
        ("server", "balance", "false"),
        ("limits", "sessions", "10"),
        ("limits", "sessions_per_ip", "0"),
        ("limits", "sessions_waiting", "10"),
        ("limits", "line_length", "\"8 KiB\""),
        ("limits", "login_timeout", "\"1 s\""),
        ("limits", "login_attempts", "1"),
        ("limits", "login_delay", "\"0 s\""),
        ("limits", "login_delay_max", "\"1 min\""),
        ("limits", "login_failures", "0"),
        ("limits", "login_failures_per_user", "0"),
        ("limits", "login_failure_window", "\"1 h\""),
        ("limits", "lockout", "\"1 h\""),
        ("limits", "idle_timeout", "\"1 h\""),
        ("limits", "reply_timeout", "\"1 h\""),
        ("limits", "stall_timeout", "\"1 h\""),
        ("limits", "connections_per_minute", "60"),
        ("limits", "commands_per_second", "10"),
        ("limits", "session_down", "\"1 MiB/s\""),
        ("limits", "session_up", "\"1 MiB/s\""),
        ("limits", "ip_down", "\"1 MiB/s\""),
        ("limits", "ip_up", "\"1 MiB/s\""),
        ("limits", "total_down", "\"1 MiB/s\""),
        ("limits", "total_up", "\"1 Gbit/s\""),
        ("data", "passive", "false"),
        ("data", "passive_ports", "\"2000-3000\""),
        ("data", "passive_slices", "[3, 1]"),
        ("data", "passive_address", "\"203.0.113.7\""),
        ("data", "passive_address_for", "{ \"::/0\" = \"control\" }"),
        ("data", "passive_address_refresh", "\"1 h\""),
        ("data", "external_ports", "\"40000-40999\""),
        ("data", "proxy_from", "[\"10.0.0.0/8\"]"),
        ("data", "accept_timeout", "\"1 h\""),
        ("data", "ports_per_client", "7"),
        ("data", "peer_check", "\"off\""),
        ("data", "borrow", "false"),
        ("data", "active", "false"),
        ("data", "active_source_port", "0"),
        ("data", "connect_timeout", "\"1 h\""),
        ("data", "fxp_networks", "[\"192.0.2.1\"]"),
        ("listener", "address", ""),
        ("listener", "passive_ports", "passive_ports = \"2000-3000\""),
        (
            "listener",
            "passive_slices",
            "passive_ports = \"2000-3000\"\npassive_slices = [1, 1]",
        ),
        (
            "listener",
            "passive_address",
            "passive_address = \"ftp.example.org\"",
        ),
        (
            "listener",
            "passive_address_for",
            "passive_address_for = { \"10.0.0.0/8\" = \"control\" }",
        ),
        (
            "listener",
            "external_ports",
            "external_ports = \"40000-40999\"",
        ),
        ("listener", "proxy_from", "proxy_from = [\"::1\"]"),
        (
            "listener",
            "tls",
            "tls = \"implicit\"\n[tls]\ncertificates = [\"/x\"]",
        ),
        ("tls", "policy", "\"off\""),
        ("tls", "certificates", "[\"/x\"]"),
        ("tls", "min_version", "\"1.3\""),
        ("tls", "data_resumption", "\"require\""),
        ("tls", "clear_commands", "true"),
        (
            "tls",
            "client_certificates",
            "\"require\"\nclient_ca = \"/x\"",
        ),
        ("tls", "client_ca", "\"/x\""),
        ("tls", "client_crls", "[\"/x\"]"),
        (
            "tls",
            "client_login",
            "\"name\"\nclient_certificates = \"optional\"\nclient_ca = \"/x\"",
        ),
        ("tls", "handshake_timeout", "\"1 s\""),
        ("tls", "kernel", "\"off\""),
        ("tls", "renew_keys_after", "\"1 GiB\""),
        ("files", "umask", "\"077\""),
        ("files", "uploads", "\"in-place\""),
        ("files", "failed_upload", "\"keep\""),
        ("files", "min_free", "\"1 GiB\""),
        ("anonymous", "enabled", "true"),
        ("anonymous", "root", "\"/x\""),
        ("anonymous", "access", "\"read-write\""),
        ("anonymous", "deny", "[\"read\", \"dotfiles\"]"),
        ("anonymous", "hide", "[\"*.bak\", \"/x\"]"),
        ("anonymous", "rules", "[\"/in upload-only\"]"),
        ("anonymous", "quota", "\"10 GiB\""),
        ("anonymous", "quota_files", "1000"),
        ("anonymous", "folders", "{ \"/x\" = \"/y\" }"),
        ("anonymous", "down", "\"1 MiB/s\""),
        ("anonymous", "up", "\"1 MiB/s\""),
        ("anonymous", "sessions", "10"),
        ("anonymous", "volume", "\"1 TiB\""),
        ("anonymous", "volume_down", "\"1 TiB\""),
        ("anonymous", "volume_up", "\"1 TiB\""),
        ("anonymous", "volume_period", "\"week\""),
        ("anonymous", "umask", "\"077\""),
        ("anonymous", "uploads", "\"in-place\""),
        ("anonymous", "failed_upload", "\"keep\""),
        ("users", "enabled", "false\n[anonymous]\nenabled = true"),
        ("users", "sources", "[\"program\"]\nprogram = \"/x\""),
        ("users", "file", "\"/x\""),
        (
            "users",
            "htpasswd",
            "\"/x\"\nsources = [\"file\", \"htpasswd\"]",
        ),
        (
            "users",
            "program",
            "\"/x\"\nsources = [\"file\", \"program\"]",
        ),
        (
            "users",
            "http",
            "\"http://[::1]/x\"\nsources = [\"http\", \"file\"]",
        ),
        (
            "users",
            "database",
            "\"sqlite:/x\"\nsources = [\"database\"]",
        ),
        (
            "users",
            "database_password_file",
            "\"/x\"\nsources = [\"database\"]\ndatabase = \"postgresql://x@/x\"",
        ),
        (
            "users",
            "database_ca",
            "\"/x\"\nsources = [\"database\"]\ndatabase = \"postgresql://x@x/x\"",
        ),
        ("users", "source_timeout", "\"1 s\""),
        ("users", "hash_threads", "1"),
        ("users", "sessions_per_user", "3"),
        ("users", "remember", "\"0 s\""),
        ("users", "state", "\"/x\""),
        ("users", "system", "true"),
        ("users", "system_uid_min", "500"),
        ("users", "require_shell", "false"),
        ("users", "pam_service", "\"ftp\""),
        ("host", "names", "names = [\"x.example\"]"),
        ("host", "addresses", "addresses = [\"0.0.0.0:21\"]"),
        ("host", "greeting", "names = [\"x\"]\ngreeting = \"Hello.\""),
        (
            "host",
            "certificates",
            "names = [\"x\"]\ncertificates = [\"/x\"]\n[tls]\ncertificates = [\"/y\"]",
        ),
        ("host", "down", "names = [\"x\"]\ndown = \"1 MiB/s\""),
        ("host", "up", "names = [\"x\"]\nup = \"1 MiB/s\""),
        ("host", "sessions", "names = [\"x\"]\nsessions = 7"),
        ("log", "level", "\"debug\""),
        ("log", "format", "\"json\""),
        ("admin", "enabled", "false"),
        ("admin", "socket", "\"/x\""),
    ];
    let mut names = Vec::new();
    for (section, key, value) in others {
        let text = match section {
            "listener" => format!("[listener.a]\naddress = \"0.0.0.0:21\"\n{value}\n"),
            "host" => format!("[host.a]\n{value}\n"),
            _ => format!("[{section}]\n{key} = {value}\n"),
        };
        let config = Config::parse(&text, "test").unwrap_or_else(|error| panic!("{error}"));
        assert_ne!(config, Config::default(), "{section}.{key}");
        names.push((section, key));
    }
    let all: Vec<_> = KEYS
        .iter()
        .flat_map(|(s, keys)| keys.iter().map(move |key| (*s, *key)))
        .collect();
    assert_eq!(names, all);
}

/// Text, line:column, and parts of what must be said.
const REFUSALS: &[(&str, &str, &[&str])] = &[
    (
        "[server]\nlisten = []",
        "2:10",
        &["server.listen: no address"],
    ),
    (
        "[server]\nlisten = \"0.0.0.0:21\"",
        "2:10",
        &["expected a list", "found a string"],
    ),
    (
        "[server]\nlisten = [\"1.2.3.4:21\", \"1.2.3.4:21\"]",
        "2:25",
        &["1.2.3.4:21 is listed twice"],
    ),
    (
        "[server]\nlisten = [\"1.2.3.4\"]",
        "2:11",
        &["hint: add the port: \"1.2.3.4:21\""],
    ),
    (
        "[server]\nlisten = [\"::1\"]",
        "2:11",
        &["write \"[::1]:21\""],
    ),
    (
        "[server]\nlisten = [\"localhost:21\"]",
        "2:11",
        &["not a name"],
    ),
    ("[server]\nlisten = [21]", "2:11", &["expected a string"]),
    ("[server]\ncores = 0", "2:9", &["0 is not from 1 to 1024"]),
    ("[server]\ncores = -1", "2:9", &["-1 is not from 1"]),
    ("[server]\ncores = \"3-0\"", "2:9", &["upside down"]),
    (
        "[server]\ncores = true",
        "2:9",
        &["expected \"all\", a count or a CPU set"],
    ),
    ("[server]\nuser = \"\"", "2:8", &["names no account"]),
    (
        "[server]\ngroup = \"ftp\"",
        "2:9",
        &["server.group: has no effect without server.user"],
    ),
    ("[server]\ngreeting = \"a\\r\\nb\"", "2:12", &["one line"]),
    ("[server]\ngreeting = \"\"", "2:12", &["1 to 400"]),
    (
        "[server]\ndrain_timeout = 30",
        "2:17",
        &["such as \"30 s\"", "found a whole number"],
    ),
    ("[limits]\nsessions = -1", "2:12", &["-1 is not from 0"]),
    (
        "[limits]\nsessions_waiting = 0",
        "2:20",
        &["0 is not from 1 to 65535"],
    ),
    (
        "[limits]\nline_length = \"511 B\"",
        "2:15",
        &["511 bytes", "from 512 B to 8 KiB"],
    ),
    (
        "[limits]\nline_length = \"8193 B\"",
        "2:15",
        &["8193 bytes"],
    ),
    (
        "[limits]\nline_length = \"4 K\"",
        "2:15",
        &["not a size", "KiB"],
    ),
    (
        "[limits]\nlogin_attempts = 0",
        "2:18",
        &["0 is not from 1 to 100"],
    ),
    (
        "[limits]\nlogin_failures = -1",
        "2:18",
        &["-1 is not from 0 to 1000000"],
    ),
    ("[limits]\nlockout = \"0 s\"", "2:11", &["too short"]),
    (
        "[users]\nremember = 300",
        "2:12",
        &["such as \"30 s\"", "found a whole number"],
    ),
    (
        "[limits]\nidle_timeout = \"0 s\"",
        "2:16",
        &["0 s is too short", "at least 1 s"],
    ),
    (
        "[limits]\nidle_timeout = \"10 d\"",
        "2:16",
        &["10 d is too long", "at most 7 d"],
    ),
    (
        "[limits]\nidle_timeout = \"5 minutes\"",
        "2:16",
        &["not a duration", "\"5 min\""],
    ),
    ("[limits]\nlogin_timeout = \"0 s\"", "2:17", &["too short"]),
    ("[limits]\nreply_timeout = \"0 ms\"", "2:17", &["too short"]),
    (
        "[limits]\nstall_timeout = \"999 ms\"",
        "2:17",
        &["too short"],
    ),
    (
        "[limits]\ntotal_down = \"10 MiB\"",
        "2:14",
        &["not a rate", "\"10 MiB/s\""],
    ),
    (
        "[limits]\ncommands_per_second = -1",
        "2:23",
        &["-1 is not from 0 to 1000000"],
    ),
    ("[data]\naccept_timeout = \"0 s\"", "2:18", &["too short"]),
    (
        "[data]\npassive_address = \"ftp_example.com\"",
        "2:19",
        &["neither an address nor a name", "\"control\""],
    ),
    (
        "[data]\npassive_address = \"203.0.113.256\"",
        "2:19",
        &["neither an address nor a name"],
    ),
    (
        "[data]\npassive_address_for = { \"10.0.0.0/8\" = \"::1\" }",
        "2:40",
        &["clients of 10.0.0.0/8 cannot connect to ::1"],
    ),
    (
        "[data]\nexternal_ports = \"40000-40998\"",
        "2:18",
        &["40000-40998 has 999 ports, the ports that are bound (30000-30999) are 1000"],
    ),
    (
        "[data]\npassive_ports = [\"2000-2010\", \"2010-2020\"]",
        "2:17",
        &["have ports in common"],
    ),
    (
        "[server]\ncores = 3\n[data]\npassive_slices = [2, 1]",
        "4:18",
        &["2 slices for 3 cores", "\"even\""],
    ),
    (
        "[data]\npassive_slices = [2, 0]",
        "2:22",
        &["0 is not from 1 to 1000"],
    ),
    (
        "[data]\npassive_slices = [\"30000-30499\", \"30400-30999\"]",
        "2:34",
        &["two cores cannot share port 30400"],
    ),
    (
        "[data]\npassive_slices = [\"30000-30499\", \"30501-30999\"]",
        "2:18",
        &["port 30500 of 30000-30999 is in no slice"],
    ),
    (
        "[data]\npassive_slices = [\"30000-31000\"]",
        "2:18",
        &["port 31000 is none of the passive ports"],
    ),
    ("[data]\nproxy_from = [\"10.0.0.0/33\"]", "2:15", &[]),
    (
        "[listener.a]\npassive_ports = \"2000\"",
        "1:11",
        &["listener.a: has no address"],
    ),
    (
        "[listener.a]\naddress = \"192.0.2.1:21\"",
        "2:11",
        &["192.0.2.1:21 is not listened on", "0.0.0.0:21, [::]:21"],
    ),
    (
        "[listener.a]\naddress = \"0.0.0.0:21\"\n[listener.b]\naddress = \"0.0.0.0:21\"",
        "4:11",
        &["[listener.a] is about this address already"],
    ),
    (
        "[server]\nlisten = [\"0.0.0.0:21\", \"127.0.0.1:2121\"]\n[listener.a]\n\
         address = \"127.0.0.1:2121\"\npassive_ports = \"30999-31000\"",
        "5:17",
        &["port 30999 would be bound on 0.0.0.0 and on 127.0.0.1"],
    ),
    (
        "[server]\nlisten = [\"0.0.0.0:21\", \"127.0.0.1:2121\"]\n[listener.a]\n\
         address = \"127.0.0.1:2121\"\nproxy_from = [\"127.0.0.9\"]",
        "5:14",
        &["differs from that of 0.0.0.0:21, which shares the passive ports"],
    ),
    (
        "[listener.a]\naddress = \"0.0.0.0:21\"\ntls = \"implicit\"",
        "3:7",
        &["TLS is off", "set tls.certificates"],
    ),
    (
        "[listener.a]\naddress = \"0.0.0.0:21\"\npassive_slices = \"even\"",
        "3:18",
        &["has no effect without passive_ports"],
    ),
    (
        "[data]\npassive_address = \"0.0.0.0\"",
        "2:19",
        &["can connect to"],
    ),
    ("[data]\nconnect_timeout = \"0 s\"", "2:19", &["too short"]),
    (
        "[data]\npassive_ports = \"2000-1999\"",
        "2:17",
        &["upside down; write 1999-2000"],
    ),
    ("[data]\npassive_ports = \"80-90\"", "2:17", &["below 1024"]),
    ("[data]\npassive = 1", "2:11", &["expected true or false"]),
    (
        "[data]\nactive_source_port = 65536",
        "2:22",
        &["is not from 0 to 65535"],
    ),
    (
        "[data]\nactive_source_port = 30001",
        "2:22",
        &["one of the passive ports"],
    ),
    (
        "[data]\npassive = false\nactive = false",
        "3:10",
        &["neither passive nor active"],
    ),
    (
        "[server]\nlisten = [\"127.0.0.1:2121\"]\n[data]\npassive_ports = \"2100-2200\"",
        "4:17",
        &["overlaps the control connection's port 2121"],
    ),
    (
        "[server]\ncores = 4\n[data]\npassive_ports = \"2000-2002\"",
        "4:17",
        &["3 ports for 4 cores", "widen"],
    ),
    ("[files]\numask = 022", "2:9", &[]),
    (
        "[files]\numask = 18",
        "2:9",
        &["expected a string", "quoted"],
    ),
    ("[files]\numask = \"888\"", "2:9", &["not an octal mask"]),
    ("[files]\numask = \"+22\"", "2:9", &["not an octal mask"]),
    (
        "[files]\nuploads = \"in_place\"",
        "2:11",
        &["did you mean \"in-place\"?"],
    ),
    (
        "[anonymous]\nroot = \"srv/ftp\"",
        "2:8",
        &["not an absolute path", "start it with /"],
    ),
    (
        "[anonymous]\ndeny = [\"write\"]",
        "2:9",
        &["none of list, read,"],
    ),
    (
        "[anonymous]\ndeny = \"delete\"",
        "2:8",
        &["expected a list of strings"],
    ),
    ("[anonymous]\nhide = [\"/../x\"]", "2:9", &["not a pattern"]),
    ("[anonymous]\nhide = [1]", "2:9", &["expected a string"]),
    (
        "[anonymous]\nrules = [\"/a read-only\", \"/pub readonly\"]",
        "2:26",
        &["behind the pattern comes one of read-only"],
    ),
    (
        "[anonymous]\nfolders = { x = \"/y\" }",
        "2:13",
        &["no path below"],
    ),
    (
        "[anonymous]\nfolders = { \"/..\" = \"/y\" }",
        "2:13",
        &["no path below"],
    ),
    (
        "[anonymous]\nfolders = { \"/x\" = \"y\" }",
        "2:20",
        &["not an absolute path"],
    ),
    ("[anonymous]\nquota = 10", "2:9", &["expected a string"]),
    (
        "[anonymous]\naccess = \"rw\"",
        "2:10",
        &["\"read-only\", \"read-write\""],
    ),
    ("[users]\nenabled = false", "2:11", &["nobody could log in"]),
    (
        "[users]\nfile = \"users.toml\"",
        "2:8",
        &["not an absolute path"],
    ),
    (
        "[users]\nhash_threads = 65",
        "2:16",
        &["65 is not from 1 to 64"],
    ),
    (
        "[log]\nlevel = \"inof\"",
        "2:9",
        &["did you mean \"info\"?"],
    ),
    (
        "[limits]\nidle_timout = \"5 min\"",
        "2:1",
        &[
            "limits.idle_timout: no such key",
            "did you mean `idle_timeout`?",
        ],
    ),
    (
        "[limits]\numask = \"022\"",
        "2:1",
        &["this key belongs below [files]"],
    ),
    (
        "[limits]\nfrobnicate = 1",
        "2:1",
        &["the keys of this section are sessions,"],
    ),
    (
        "[limit]\nsessions = 1",
        "1:2",
        &["limit: no such section", "did you mean [limits]?"],
    ),
    (
        "umask = \"022\"",
        "1:1",
        &["this key belongs below [files]"],
    ),
    ("[ssl]", "1:2", &["the sections are server,"]),
    (
        "[tls]\ncertificates = [\"x.pem\"]",
        "2:17",
        &["not an absolute path"],
    ),
    (
        "[tls]\ncertificates = [\"/a\", { certificate = \"/a\" }]",
        "2:23",
        &["/a is listed twice"],
    ),
    (
        "[tls]\ncertificates = [{ key = \"/a\" }]",
        "2:17",
        &["has no certificate"],
    ),
    (
        "[tls]\ncertificates = [{ cert = \"/a\" }]",
        "2:19",
        &["\"cert\" is neither certificate nor key"],
    ),
    (
        "[tls]\nclient_certificates = \"require\"",
        "2:23",
        &["nothing says whose", "set tls.client_ca"],
    ),
    (
        "[tls]\nclient_login = \"name\"",
        "2:16",
        &["nobody is asked for a certificate"],
    ),
    (
        "[tls]\nrenew_keys_after = \"64 KiB\"",
        "2:20",
        &["must be from 1 MiB to 256 GiB"],
    ),
    (
        "[tls]\npolicy = \"require-data\"",
        "2:10",
        &["there is no certificate", "cert self-signed"],
    ),
    (
        "limits = 4",
        "1:10",
        &["is a section, not a value", "[limits]"],
    ),
    ("[limits]\nsessions = ", "2:12", &["not valid TOML"]),
    (
        "[limits]\nsessions = 1\nsessions = 2",
        "3:1",
        &["duplicate key"],
    ),
    ("[limits\n", "1:8", &[]),
];

#[test]
fn refusals_name_the_place_the_key_and_the_remedy() {
    for (text, place, parts) in REFUSALS {
        let error = Config::parse(text, "test.toml")
            .expect_err(text)
            .to_string();
        let first = error.lines().next().unwrap_or_default();
        assert!(
            first.starts_with(&format!("test.toml:{place}: ")),
            "{text}\n{error}"
        );
        assert!(error.contains('^'), "{text}\n{error}");
        for part in *parts {
            assert!(error.contains(part), "{text}\nwants {part:?}\n{error}");
        }
    }
}

#[test]
fn all_problems_are_told_at_once_in_the_order_of_the_file() {
    let text = "[log]\nlevel = 1\n[limits]\nidel_timeout = \"1 s\"\nsessions = \"x\"\n";
    let error = Config::parse(text, "test.toml").expect_err("three problems");
    let keys: Vec<&str> = error
        .problems()
        .iter()
        .map(|problem| problem.key.as_str())
        .collect();
    assert_eq!(
        keys,
        ["log.level", "limits.idel_timeout", "limits.sessions"]
    );
}

#[test]
fn no_text_makes_the_parser_panic() {
    let pieces = [
        "[", "]", "=", "\"", "'", "\n", "#", "server", "é", "\u{0}", "{", "}", ",", "1", "\"\"\"",
    ];
    let mut state = 1_u64;
    for _ in 0..2000 {
        let mut text = String::new();
        for _ in 0..12 {
            state = state
                .wrapping_mul(6_364_136_223_846_793_005)
                .wrapping_add(1);
            text.push_str(pieces[(state >> 33) as usize % pieces.len()]);
        }
        if let Err(error) = Config::parse(&text, "fuzz") {
            assert!(!error.to_string().is_empty());
        }
    }
}

#[test]
fn a_file_that_cannot_be_read_is_named() {
    let error = Config::load(Path::new("/nonexistent/ringftpd.toml")).expect_err("no such file");
    assert!(
        error
            .to_string()
            .starts_with("/nonexistent/ringftpd.toml: "),
        "{error}"
    );
    assert!(error.to_string().contains("--config"), "{error}");
}

#[test]
fn defaults_are_what_the_field_expects() {
    let config = Config::default();
    // RFC 1123 §4.1.3.2: the idle timeout is 5 minutes at least.
    assert!(config.limits.idle_timeout >= Duration::from_secs(300));
    // RFC 959 §3.2: the default data port is the one next to the control port, 20.
    assert_eq!(config.data.active_source_port, 20);
    assert_eq!(
        config.server.listen[0],
        SocketAddr::from(([0, 0, 0, 0], 21))
    );
    assert!(
        !config.anonymous.enabled,
        "nobody gets in who was not let in"
    );
}
