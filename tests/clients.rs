//! Clients that people use: curl, lftp, ncftp, Python's ftplib. They list, get, put, resume and
//! mirror whole trees, which are compared byte by byte. One that is not installed is a failure.

mod common;

use std::fs;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{Run, Setup, TestServer, make_tree, noise, run, same_trees};

/// A server on both families whose tree has files in `tree`; and a folder for the client.
fn server_with_tree() -> (TestServer, PathBuf) {
    let server = Setup::new().on_both_families().start();
    fs::create_dir(server.path("tree")).expect("a directory");
    make_tree(&server.path("tree"));
    let here = server.folder().join("client");
    fs::create_dir(&here).expect("a folder for the client");
    (server, here)
}

fn url(address: SocketAddr, path: &str) -> String {
    format!("ftp://{address}/{path}")
}

/// Nobody's settings but the test's.
fn client(program: &str, here: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .current_dir(here)
        .env("HOME", here)
        .env("LC_ALL", "C.UTF-8")
        .env_remove("http_proxy");
    command
}

#[track_caller]
fn curl(here: &Path, arguments: &[&str]) -> Vec<u8> {
    try_curl(here, arguments).success()
}

#[track_caller]
fn try_curl(here: &Path, arguments: &[&str]) -> Run {
    let always = ["--globoff", "--silent", "--show-error", "--max-time", "60"];
    run(client("curl", here).args(always).args(arguments))
}

/// Ways in which curl makes its data connections.
const CURL_WAYS: [&[&str]; 4] = [
    &[],
    &["--disable-epsv"],
    &["--ftp-port", "-"],
    &["--ftp-port", "-", "--disable-eprt"],
];

#[test]
fn curl_gets_and_puts_over_every_data_connection() {
    let (server, here) = server_with_tree();
    fs::write(here.join("up"), noise(2_000_003, 1)).expect("a file to send");
    for address in [server.address(), server.address_v6()] {
        for (number, way) in CURL_WAYS.iter().enumerate() {
            // PASV and PORT are of IPv4.
            if address.is_ipv6() && way.last().is_some_and(|last| last.starts_with("--disable")) {
                continue;
            }
            for name in [
                "big",
                "zero",
                "one",
                "odd",
                "a/b/c/d/deep",
                "with%20space/two%20words.txt",
            ] {
                let from = url(address, &format!("tree/{name}"));
                let got = curl(&here, &[way, &[from.as_str()][..]].concat());
                let local = format!("tree/{}", name.replace("%20", " "));
                assert!(server.get(&local) == Some(got), "{way:?} {from}");
            }
            let to = url(address, &format!("up{number}-{}", address.is_ipv6()));
            curl(&here, &[way, &["--upload-file", "up", &to][..]].concat());
            let stored = server.get(to.rsplit('/').next().expect("a name"));
            assert!(stored == Some(noise(2_000_003, 1)), "{way:?} {to}");
        }
    }
}

#[test]
fn curl_resumes_appends_and_takes_ranges() {
    let (server, here) = server_with_tree();
    let big = server.get("tree/big").expect("the file");
    let from = url(server.address(), "tree/big");
    fs::write(here.join("part"), &big[..1_000_000]).expect("a beginning");
    curl(&here, &["--continue-at", "-", "--output", "part", &from]);
    assert!(fs::read(here.join("part")).expect("the file") == big);
    assert!(curl(&here, &["--range", "1000-1999", &from]) == big[1000..2000]);
    assert!(curl(&here, &["--range", "-500", &from]) == big[big.len() - 500..]);
    fs::write(here.join("whole"), &big).expect("a file to send");
    server.put("part", &big[..2_000_000]);
    let to = url(server.address(), "part");
    curl(
        &here,
        &["--continue-at", "-", "--upload-file", "whole", &to],
    );
    assert!(
        server.get("part").as_ref() == Some(&big),
        "a resumed upload"
    );
    fs::write(here.join("line"), "line\n").expect("a file to send");
    let log = url(server.address(), "log");
    for _ in 0..3 {
        curl(&here, &["--append", "--upload-file", "line", &log]);
    }
    assert_eq!(server.get("log"), Some(b"line\nline\nline\n".to_vec()));
}

#[test]
fn curl_lists_and_commands() {
    let (server, here) = server_with_tree();
    let tree = url(server.address(), "tree/");
    let listing = String::from_utf8(curl(&here, &[&tree])).expect("UTF-8");
    assert_eq!(
        listing.lines().count(),
        fs::read_dir(server.path("tree")).expect("it").count()
    );
    let names = String::from_utf8(curl(&here, &["--list-only", &tree])).expect("UTF-8");
    let mut names: Vec<&str> = names.lines().collect();
    names.sort_unstable();
    assert!(
        names.contains(&"größe") && names.contains(&"日本"),
        "{names:?}"
    );
    for method in ["multicwd", "nocwd", "singlecwd"] {
        let file = url(server.address(), "tree/a/b/file");
        let got = curl(&here, &["--ftp-method", method, &file]);
        assert!(server.get("tree/a/b/file") == Some(got), "{method}");
    }
    let text = curl(&here, &["--use-ascii", &url(server.address(), "tree/one")]);
    assert!(!text.is_empty());
    let head = curl(&here, &["--head", &url(server.address(), "tree/big")]);
    let head = String::from_utf8_lossy(&head).into_owned();
    assert!(
        head.contains("Content-Length: 3145739") && head.contains("Last-Modified: "),
        "{head}"
    );
    curl(
        &here,
        &[
            "--quote",
            "RNFR /tree/one",
            "--quote",
            "RNTO /tree/uno",
            &tree,
        ],
    );
    assert!(server.get("tree/uno").is_some());
    curl(
        &here,
        &["--ftp-create-dirs", "--upload-file", "/etc/hostname", &{
            url(server.address(), "new/deep/er/name")
        }],
    );
    assert_eq!(
        server.get("new/deep/er/name"),
        fs::read("/etc/hostname").ok()
    );
    // 78: the file does not exist; 67: the login is denied (curl(1)).
    let missing = url(server.address(), "missing");
    assert_eq!(try_curl(&here, &[&missing]).code, Some(78));
    let denied = ["--user", "nobody:x", &tree];
    assert_eq!(try_curl(&here, &denied).code, Some(67));
}

/// Runs commands of lftp.
#[track_caller]
fn lftp(here: &Path, address: SocketAddr, settings: &str, commands: &str) -> String {
    let script = format!(
        "set net:max-retries 1; set net:timeout 30; set cmd:fail-exit yes; set ftp:ssl-allow no; \
         {settings}; open ftp://{address}/; {commands}"
    );
    let out = run(client("lftp", here).args(["--norc", "-c", &script])).success();
    String::from_utf8_lossy(&out).into_owned()
}

#[test]
fn lftp_mirrors_whole_trees_both_ways() {
    let (server, here) = server_with_tree();
    // What can be told apart only by its time is told apart by it, and is not sent twice.
    for (number, (address, settings)) in [
        (server.address(), ""),
        (server.address(), "set ftp:passive-mode no"),
        (
            server.address(),
            "set ftp:prefer-epsv yes; set ftp:use-mlsd yes",
        ),
        (
            server.address(),
            "set ftp:prefer-epsv no; set ftp:use-mlsd no",
        ),
        (server.address_v6(), ""),
    ]
    .into_iter()
    .enumerate()
    {
        let (down, up) = (format!("down{number}"), format!("up{number}"));
        lftp(
            &here,
            address,
            settings,
            &format!("mirror --parallel=4 tree {down}"),
        );
        same_trees(&server.path("tree"), &here.join(&down));
        lftp(
            &here,
            address,
            settings,
            &format!("mirror -R --parallel=4 {down} {up}"),
        );
        same_trees(&server.path("tree"), &server.path(&up));
        let again = lftp(
            &here,
            address,
            settings,
            &format!("mirror -R --verbose=3 {down} {up}"),
        );
        assert!(!again.contains("Transferring"), "sent twice:\n{again}");
    }
}

#[test]
fn lftp_lists_gets_and_puts() {
    let (server, here) = server_with_tree();
    let address = server.address();
    let ls = lftp(&here, address, "", "ls tree");
    for name in [
        "größe",
        "日本",
        "with space",
        "it's (here) & there; ok #1",
        "big",
    ] {
        assert!(ls.contains(name), "{name} in\n{ls}");
    }
    let cls = lftp(&here, address, "", "cls -1 tree/many");
    assert_eq!(cls.lines().count(), 60, "{cls}");
    assert_eq!(
        lftp(&here, address, "", "cls -1 tree/many/00*")
            .lines()
            .count(),
        10
    );
    lftp(
        &here,
        address,
        "",
        "get tree/big -o got; get -c tree/odd -o odd; mget -d tree/a/f*",
    );
    assert!(fs::read(here.join("got")).ok() == server.get("tree/big"));
    assert!(fs::read(here.join("tree/a/file")).ok() == server.get("tree/a/file"));
    lftp(&here, address, "", "pget -n 4 tree/big -o pieces");
    assert!(fs::read(here.join("pieces")).ok() == server.get("tree/big"));
    let part = fs::read(here.join("got")).expect("the file")[..1_000_000].to_vec();
    fs::write(here.join("part"), &part).expect("a beginning");
    lftp(&here, address, "", "get -c tree/big -o part");
    assert!(
        fs::read(here.join("part")).ok() == server.get("tree/big"),
        "get -c"
    );
    server.put("half", &part);
    lftp(&here, address, "", "put -c got -o half");
    assert!(server.get("half") == server.get("tree/big"), "put -c");
    lftp(
        &here,
        address,
        "",
        "mkdir d; cd d; put got -o x; mv x y; chmod 600 y; du; cat y",
    );
    assert!(server.get("d/y") == server.get("tree/big"));
    lftp(&here, address, "", "rm -r d; find tree; cls -l tree");
    assert!(!server.path("d").exists());
}

#[test]
fn ncftp_gets_puts_and_lists() {
    let (server, here) = server_with_tree();
    // ncftp speaks IPv4 only. -F: passive, -E: active.
    let port = server.address().port().to_string();
    for (number, way) in ["-F", "-E"].into_iter().enumerate() {
        let down = here.join(format!("down{number}"));
        fs::create_dir(&down).expect("a folder");
        let from = ["-V", way, "-P", &port, "-R", "127.0.0.1"];
        run(client("ncftpget", &here).args(from).arg(&down).arg("/tree")).success();
        same_trees(&server.path("tree"), &down.join("tree"));
        let up = format!("/up{number}");
        fs::create_dir(server.path(&up[1..])).expect("a folder");
        let to = ["-V", way, "-P", &port, "-R", "127.0.0.1", &up];
        run(client("ncftpput", &here).args(to).arg(down.join("tree"))).success();
        same_trees(&server.path("tree"), &server.path(&up[1..]).join("tree"));
        let options = [way, "-P", &port];
        let tree = "ftp://127.0.0.1/tree/";
        let names = run(client("ncftpls", &here).args(options).arg(tree)).success();
        let names = String::from_utf8_lossy(&names).into_owned();
        assert!(
            names.contains("big") && names.contains("UPPER.TXT"),
            "{names}"
        );
        let long = run(client("ncftpls", &here).args(options).args(["-l", tree])).success();
        let long = String::from_utf8_lossy(&long).into_owned();
        assert!(
            long.lines()
                .any(|line| line.starts_with("drwx") && line.ends_with(" many")),
            "{long}"
        );
    }
}

#[test]
fn python_ftplib_does_everything() {
    let (server, here) = server_with_tree();
    let script = here.join("everything.py");
    fs::write(&script, FTPLIB).expect("the script");
    for address in [server.address(), server.address_v6()] {
        for way in ["passive", "active"] {
            let name = format!("{way}{}", u8::from(address.is_ipv6()));
            let (host, port) = (address.ip().to_string(), address.port().to_string());
            let arguments = [host.as_str(), &port, way, &name];
            run(client("python3", &here).arg(&script).args(arguments)).success();
            same_trees(&server.path("tree"), &here.join(&name));
            same_trees(&server.path("tree"), &server.path(&name));
        }
    }
}

/// Mirrors /tree to a folder of that name and back to another on the server, and tries the rest.
const FTPLIB: &str = r#"
import ftplib, io, os, sys

host, port, way, name = sys.argv[1:]
ftp = ftplib.FTP(encoding="utf-8", timeout=60)
ftp.connect(host, int(port))
ftp.login()
ftp.set_pasv(way == "passive")

def down(remote, local):
    os.mkdir(local)
    for entry, facts in list(ftp.mlsd(remote, ["type", "size"])):
        if facts["type"] == "dir":
            down(f"{remote}/{entry}", f"{local}/{entry}")
        elif facts["type"] == "file":
            with open(f"{local}/{entry}", "wb") as file:
                ftp.retrbinary(f"RETR {remote}/{entry}", file.write)
            assert os.path.getsize(f"{local}/{entry}") == int(facts["size"]), entry

def up(local, remote):
    assert ftp.mkd(remote) == remote
    for entry in os.listdir(local):
        if os.path.isdir(f"{local}/{entry}"):
            up(f"{local}/{entry}", f"{remote}/{entry}")
        else:
            with open(f"{local}/{entry}", "rb") as file:
                ftp.storbinary(f"STOR {remote}/{entry}", file)

down("/tree", name)
up(name, f"/{name}")

lines = []
ftp.dir("/tree", lines.append)
assert len(lines) == len(os.listdir(name)), lines
assert sorted(ftp.nlst("/tree/many")) == sorted(f"/tree/many/{e}" for e in os.listdir(name + "/many"))
big = open(f"{name}/big", "rb").read()
rest = io.BytesIO()
ftp.retrbinary("RETR /tree/big", rest.write, rest=1_000_000)
assert rest.getvalue() == big[1_000_000:]
ftp.voidcmd("TYPE I")
assert ftp.size("/tree/big") == len(big)

work = f"/work-{name}"
ftp.mkd(work)
ftp.cwd(work)
assert ftp.pwd() == work
ftp.mkd('quo"te')
ftp.cwd('quo"te')
assert ftp.pwd() == work + '/quo"te', ftp.pwd()
ftp.cwd("..")
ftp.rmd('quo"te')
ftp.storlines("STOR text", io.BytesIO(b"one\ntwo\n"))
lines = []
ftp.retrlines("RETR text", lines.append)
assert lines == ["one", "two"], lines
ftp.storbinary("APPE text", io.BytesIO(b"three\n"))
got = io.BytesIO()
ftp.retrbinary("RETR text", got.write)
assert got.getvalue() == b"one\ntwo\nthree\n", got.getvalue()
assert ftp.storbinary("STOU", io.BytesIO(b"unique")).startswith("226")
ftp.rename("text", "renamed")
ftp.delete("renamed")

for refused in ["CWD missing", "RETR missing", "DELE missing"]:
    try:
        if refused.startswith("RETR"):
            ftp.retrbinary(refused, lambda block: None)
        else:
            ftp.voidcmd(refused)
        raise AssertionError(refused)
    except ftplib.error_perm as error:
        assert str(error).startswith("550"), error

# An abort in the middle, as the library does it: ABOR with the line as urgent data.
ftp.voidcmd("TYPE I")
with ftp.transfercmd("RETR /tree/big") as data:
    data.recv(1000)
    ftp.abort()
try:
    ftp.voidresp()
except ftplib.error_temp:
    ftp.voidresp()
assert ftp.voidcmd("NOOP").startswith("200")
assert ftp.quit().startswith("221")
"#;
