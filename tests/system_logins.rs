//! Logins of the host's own accounts, by its shadow file and by PAM: on a host of the test's own, whose
//! /etc nobody else sees.

mod common;

use std::fs;
use std::os::unix::fs::{MetadataExt, PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use common::{PASSWORD, Setup, TestServer, is_root, run};

/// [`PASSWORD`], by crypt(3): yescrypt and sha512-crypt.
const YESCRYPT: &str = "$y$j9T$RingftpdSalt$tD1HaUeMfuWfzZToOhVDiaeIf65s.KJ25Urk4eciqqA";
const SHA512: &str = "$6$RingftpdSalt$cFvFrAT9/lCPIyMPVy6G2y4RDOR0b1AveEdbG2DDKsZMBWLfFjWCddM8sO.\
                      5lYJVdFod5OPc7k7fAPQqB51gf.";

/// The accounts: name, uid, shell, and what shadow(5) has after the name. Groups are as the uids.
const ACCOUNTS: &[(&str, u32, &str, &str)] = &[
    ("root", 0, "/bin/sh", "YESCRYPT:20000:0:99999:7:::"),
    ("nobody", 65_534, "/bin/false", "*:20000:0:99999:7:::"),
    ("alice", 61_201, "/bin/sh", "YESCRYPT:20000:0:99999:7:::"),
    ("bob", 61_202, "/bin/sh", "SHA512:20000:0:99999:7:::"),
    ("locked", 61_203, "/bin/sh", "!YESCRYPT:20000:0:99999:7:::"),
    ("gone", 61_204, "/bin/sh", "YESCRYPT:20000:0:99999:7::1:"),
    ("stale", 61_205, "/bin/sh", "YESCRYPT:1:0:30:7:::"),
    ("shut", 61_206, "/bin/false", "YESCRYPT:20000:0:99999:7:::"),
    ("barred", 61_207, "/bin/sh", "YESCRYPT:20000:0:99999:7:::"),
    ("daemon", 207, "/bin/sh", "YESCRYPT:20000:0:99999:7:::"),
    ("empty", 61_208, "/bin/sh", ":20000:0:99999:7:::"),
];

/// Who is let in, or why not, whatever verifies the password.
const VERDICTS: &[(&str, Result<(), &str>)] = &[
    ("alice", Ok(())),
    ("bob", Ok(())),
    ("gone", Err("expired")),
    ("stale", Err("password-expired")),
    ("shut", Err("no-shell")),
    ("barred", Err("not-by-ftp")),
    ("daemon", Err("service-account")),
    ("root", Err("service-account")),
    ("nosuch", Err("unknown-user")),
];

/// A server on such a host that has given up root, with one source of users. `None`: this takes root.
fn server(source: &str, change: impl FnOnce(Setup) -> Setup) -> Option<TestServer> {
    if !is_root() {
        // It takes an /etc of one's own, and accounts to act as.
        return None;
    }
    let setup = Setup::new()
        .set("users.enabled", true)
        .set("users.system", true)
        .set("users.sources", format!("[{source:?}]"))
        .set("server.user", "\"nobody\"")
        .set("limits.login_attempts", 100)
        .set("limits.login_delay", "\"1 ms\"")
        .set("limits.login_delay_max", "\"2 ms\"")
        .set("limits.login_failures", 0)
        .set("limits.login_failures_per_user", 0);
    let etc = setup.folder().join("etc");
    make_etc(&etc, &setup.folder().join("home"));
    let users = "[default]\naccess = \"read-write\"\n";
    fs::write(setup.folder().join("users.toml"), users).expect("the users file");
    mode(setup.folder(), 0o777);
    // With what the systemd unit leaves of root.
    let mount = format!(
        "mount --bind {} /etc && exec setpriv --no-new-privs \
         --bounding-set=-all,+setuid,+setgid,+net_bind_service \"$@\"",
        etc.display()
    );
    let setup = setup.under(&["unshare", "-m", "sh", "-c", &mount, "sh"]);
    Some(change(setup).start())
}

/// What of /etc the user database, PAM and the server read; a home for each account.
fn make_etc(etc: &Path, homes: &Path) {
    let pam = etc.join("pam.d");
    fs::create_dir_all(&pam).expect("a folder");
    fs::create_dir(homes).expect("a folder");
    let (mut passwd, mut group, mut shadow) = (String::new(), String::new(), String::new());
    for (name, uid, shell, fields) in ACCOUNTS {
        let home = homes.join(name);
        fs::create_dir(&home).expect("a home");
        chown(&home, Some(*uid), Some(*uid)).expect("root may");
        mode(&home, 0o700);
        passwd += &format!("{name}:x:{uid}:{uid}::{}:{shell}\n", home.display());
        group += &format!("{name}:x:{uid}:\n");
        shadow += &format!("{name}:{}\n", hashed(fields));
    }
    // A second group of bob's, and one that may read the shadow file.
    group += "project:x:61300:bob\nshadow:x:61301:\n";
    let put = |name: &str, text: &str| fs::write(etc.join(name), text).expect("a file of /etc");
    put("passwd", &passwd);
    put("group", &group);
    put("shadow", &shadow);
    put("shells", "# shells\n/bin/sh\n/bin/bash\n");
    put("ftpusers", "# not by FTP\nbarred\n");
    put(
        "nsswitch.conf",
        "passwd: files\ngroup: files\nshadow: files\n",
    );
    chown(etc.join("shadow"), Some(0), Some(61_301)).expect("root may");
    mode(&etc.join("shadow"), 0o640);
    let service = |name: &str, text: &str| fs::write(pam.join(name), text).expect("a service");
    service(
        "other",
        "auth required pam_deny.so\naccount required pam_deny.so\n",
    );
    service(
        "ringftpd",
        "auth required pam_unix.so\naccount required pam_unix.so\n",
    );
}

fn hashed(fields: &str) -> String {
    let fields = fields.replace("YESCRYPT", YESCRYPT);
    fields.replace("SHA512", SHA512)
}

fn mode(path: &Path, mode: u32) {
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// What curl makes of a name and a password: the listing of the user's home, or the refusal.
fn curl(server: &TestServer, user: &str, password: &str) -> Result<(), Option<i32>> {
    let url = format!("ftp://{}/", server.address());
    let user = format!("{user}:{password}");
    let ran = run(Command::new("curl").args(["-sS", "--user", &user, &url]));
    match ran.code {
        Some(0) => Ok(()),
        code => Err(code),
    }
}

/// curl(1): the login was refused.
const CURL_LOGIN_DENIED: Option<i32> = Some(67);

/// Each account with the right password, and with a wrong one.
fn verdicts(server: &TestServer) {
    for (user, verdict) in VERDICTS {
        let expected = verdict.map_err(|_| CURL_LOGIN_DENIED);
        assert_eq!(curl(server, user, PASSWORD), expected, "{user}");
        if let Err(reason) = verdict {
            server.wait_for_log(&format!("user=\"{user}\" reason={reason}"));
        }
        assert_eq!(curl(server, user, "wrong"), Err(CURL_LOGIN_DENIED));
        assert_eq!(curl(server, user, ""), Err(CURL_LOGIN_DENIED));
    }
    server.wait_for_log("user=\"alice\" reason=wrong-password");
}

/// That sessions act as the account, and as nobody else.
fn files_belong_to_the_account(server: &TestServer) {
    let home = |name: &str| server.folder().join("home").join(name);
    let upload = server.folder().join("upload");
    fs::write(&upload, "content").expect("a file");
    let put = |user: &str, path: &str| {
        let url = format!("ftp://{}/{path}", server.address());
        let user = format!("{user}:{PASSWORD}");
        let mut curl = Command::new("curl");
        curl.args(["-sS", "--user", &user, "--upload-file"]);
        run(curl.arg(&upload).arg(url)).code
    };
    assert_eq!(put("alice", "file"), Some(0));
    let file = fs::metadata(home("alice").join("file")).expect("the file");
    assert_eq!((file.uid(), file.gid()), (61_201, 61_201));
    // What the server's own account may not, and what only root may.
    let inner = home("bob").join("project");
    fs::create_dir(&inner).expect("a folder");
    chown(&inner, Some(0), Some(61_300)).expect("root may");
    mode(&inner, 0o770);
    assert_eq!(put("bob", "project/file"), Some(0));
    assert_eq!(
        fs::metadata(inner.join("file")).expect("the file").uid(),
        61_202
    );
    mode(&inner, 0o700);
    assert_ne!(put("bob", "project/other"), Some(0));
}

/// Root of no use: no thread has it, and no capability is in effect.
fn has_given_up_root(server: &TestServer) {
    for thread in fs::read_dir(format!("/proc/{}/task", server.pid())).expect("/proc") {
        let status = thread.expect("a thread").path().join("status");
        let status = fs::read_to_string(status).expect("its status");
        assert!(status.contains("\nUid:\t65534\t65534\t65534\t65534\n"));
        assert!(status.contains("\nCapEff:\t0000000000000000\n"), "{status}");
        let groups = status.lines().find(|line| line.starts_with("Groups:"));
        assert!(!groups.expect("its groups").contains("61301"), "{groups:?}");
    }
}

fn shadow_file(server: &TestServer) -> PathBuf {
    server.folder().join("etc/shadow")
}

#[test]
fn accounts_log_in_by_the_shadow_file_and_act_as_themselves() {
    let Some(server) = server("shadow", |setup| setup) else {
        return;
    };
    verdicts(&server);
    for user in ["locked", "empty", "nobody"] {
        assert_eq!(curl(&server, user, PASSWORD), Err(CURL_LOGIN_DENIED));
    }
    server.wait_for_log("user=\"locked\" reason=disabled");
    files_belong_to_the_account(&server);
    has_given_up_root(&server);
    // Each refusal cost one hash, and so did each password that was not remembered.
    let before = server.report().logins.hashes;
    for user in ["locked", "root", "nosuch", "shut", "alice"] {
        assert_eq!(curl(&server, user, "wrong"), Err(CURL_LOGIN_DENIED));
    }
    assert_eq!(server.report().logins.hashes, before + 5);
}

#[test]
fn a_change_of_the_shadow_file_counts_with_the_next_login() {
    let Some(server) = server("shadow", |setup| setup) else {
        return;
    };
    assert_eq!(curl(&server, "alice", PASSWORD), Ok(()));
    let file = shadow_file(&server);
    let text = fs::read_to_string(&file).expect("the file");
    let locked = text.replace("alice:$", "alice:!$");
    fs::write(&file, locked).expect("the file");
    assert_eq!(curl(&server, "alice", PASSWORD), Err(CURL_LOGIN_DENIED));
    fs::write(&file, text).expect("the file");
    assert_eq!(curl(&server, "alice", PASSWORD), Ok(()));
    // Read by its owner, where it has no group of its own; and if nobody may read it, the log says so.
    chown(&file, Some(0), Some(0)).expect("root may");
    mode(&file, 0o600);
    assert_eq!(curl(&server, "bob", PASSWORD), Ok(()));
    mode(&file, 0);
    assert_ne!(curl(&server, "bob", PASSWORD), Ok(()));
    server.wait_for_log("let its group read it");
}

#[test]
fn a_shell_is_not_asked_for_if_the_operator_says_so() {
    let Some(server) = server("shadow", |setup| setup.set("users.require_shell", false)) else {
        return;
    };
    assert_eq!(curl(&server, "shut", PASSWORD), Ok(()));
}

#[cfg(feature = "pam")]
mod pam {
    use std::time::{Duration, Instant};

    use super::*;

    fn service(server: &TestServer, text: &str) {
        fs::write(server.folder().join("etc/pam.d/ringftpd"), text).expect("the service");
    }

    /// Forgets nothing, so that PAM is asked each time.
    fn asked_each_time(setup: Setup) -> Setup {
        setup.set("users.remember", "\"0 s\"")
    }

    #[test]
    fn accounts_log_in_by_pam_and_act_as_themselves() {
        let Some(server) = server("pam", |setup| setup) else {
            return;
        };
        verdicts(&server);
        for user in ["locked", "empty"] {
            assert_eq!(curl(&server, user, PASSWORD), Err(CURL_LOGIN_DENIED));
        }
        files_belong_to_the_account(&server);
        has_given_up_root(&server);
    }

    #[test]
    fn what_the_service_says_counts() {
        let Some(server) = server("pam", asked_each_time) else {
            return;
        };
        let permit = "auth required pam_permit.so\naccount required pam_permit.so\n";
        service(&server, permit);
        assert_eq!(curl(&server, "alice", "whatever"), Ok(()));
        service(
            &server,
            "auth required pam_permit.so\naccount required pam_deny.so\n",
        );
        assert_eq!(curl(&server, "alice", PASSWORD), Err(CURL_LOGIN_DENIED));
        // The name, the client and the terminal as a module sees them.
        let told = server.folder().join("told");
        let script = server.folder().join("script");
        let text = format!(
            "#!/bin/sh\necho $PAM_SERVICE $PAM_USER $PAM_RHOST $PAM_TTY $(id -u) > {}\n",
            told.display()
        );
        fs::write(&script, text).expect("a script");
        mode(&script, 0o755);
        service(
            &server,
            &format!("auth required pam_exec.so {}\n{permit}", script.display()),
        );
        assert_eq!(curl(&server, "alice", "whatever"), Ok(()));
        let told = fs::read_to_string(told).expect("what the script writes");
        assert_eq!(told, "ringftpd alice 127.0.0.1 ftp 0\n");
    }

    #[test]
    fn what_is_remembered_does_not_outlive_the_account() {
        let Some(server) = server("pam", |setup| setup) else {
            return;
        };
        let remembered = || server.report().logins.remembered;
        assert_eq!(curl(&server, "alice", PASSWORD), Ok(()));
        assert_eq!(curl(&server, "alice", PASSWORD), Ok(()));
        assert_eq!(remembered(), 1);
        let put = |name: &str, text: &str| {
            let file = server.folder().join("etc").join(name);
            let before = fs::read_to_string(&file).expect("a file of /etc");
            fs::write(file, text).expect("a file of /etc");
            before
        };
        let refused = put("ftpusers", "alice\n");
        assert_eq!(curl(&server, "alice", PASSWORD), Err(CURL_LOGIN_DENIED));
        server.wait_for_log("user=\"alice\" reason=not-by-ftp");
        put("ftpusers", &refused);
        // In another group from now on: PAM is asked again.
        let group = put("group", "");
        put("group", &format!("{group}more:x:61302:alice\n"));
        assert_eq!(curl(&server, "alice", PASSWORD), Ok(()));
        assert_eq!(remembered(), 1);
        assert_eq!(curl(&server, "alice", PASSWORD), Ok(()));
        assert_eq!(remembered(), 2);
        put("passwd", "");
        assert_eq!(curl(&server, "alice", PASSWORD), Err(CURL_LOGIN_DENIED));
        server.wait_for_log("user=\"alice\" reason=unknown-user");
    }

    #[test]
    fn a_module_that_hangs_holds_up_nobody_for_long() {
        let change = |setup: Setup| {
            let setup = asked_each_time(setup).set("users.source_timeout", "\"500 ms\"");
            setup
                .set("users.sources", "[\"file\", \"pam\"]")
                .user("virtual", "read-only")
        };
        let Some(server) = server("pam", change) else {
            return;
        };
        mode(&server.folder().join("users.toml"), 0o644);
        let hang = "auth required pam_exec.so /bin/sleep 5\n";
        service(&server, hang);
        let start = Instant::now();
        assert_ne!(curl(&server, "alice", PASSWORD), Ok(()));
        server.wait_for_log("no answer within users.source_timeout");
        assert!(start.elapsed() < Duration::from_secs(20));
        // Many at the same time take one thread at most: the others are told at once.
        let mut waiting: Vec<_> = (0..4).map(|_| server.connect()).collect();
        for client in &mut waiting {
            client.expect("USER alice", 331);
            client.send(format!("PASS {PASSWORD}"));
        }
        assert_eq!(curl(&server, "virtual", PASSWORD), Ok(()));
        server.wait_for_log("pam: it does not answer");
        for mut client in waiting {
            client.next_reply();
        }
        service(
            &server,
            "auth required pam_unix.so\naccount required pam_unix.so\n",
        );
        assert_eq!(curl(&server, "alice", PASSWORD), Ok(()));
    }

    #[test]
    fn its_processes_end_with_the_server() {
        let Some(mut server) = server("pam", |setup| setup) else {
            return;
        };
        let children = format!("/proc/{0}/task/{0}/children", server.pid());
        let children = fs::read_to_string(children).expect("/proc");
        let keeper: u32 = children.trim().parse().expect("one child");
        server.signal(nix::sys::signal::Signal::SIGTERM);
        server.wait_for_exit();
        common::eventually("the keeper ends", || {
            !Path::new(&format!("/proc/{keeper}/fd")).exists()
        });
    }
}
