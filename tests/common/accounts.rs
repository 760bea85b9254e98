//! Accounts of the host for users to act as, in a user database that only the server under test sees (a
//! mount namespace), and a tree in which they have files.

use std::collections::BTreeSet;
use std::fs;
use std::io::Write;
use std::os::unix::fs::{PermissionsExt, chown};
use std::path::{Path, PathBuf};
use std::process::Command;

use super::{Setup, TestServer, is_root, program, run};

/// Two people with a uid and a gid of their own, and a group that only the first is in.
pub(crate) const ANN: u32 = 61_001;
pub(crate) const BEN: u32 = 61_002;
pub(crate) const TEAM: u32 = 61_010;

/// How the server is started.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Start {
    /// As root, which it stays.
    Root,
    /// As root, which it gives up.
    GivenUp,
    /// As nobody, with two capabilities.
    Ambient,
}

/// Whom the server works for when it acts as nobody else.
pub(crate) const NOBODY: u32 = 65_534;

impl Start {
    pub(crate) fn uid(self) -> u32 {
        match self {
            Self::Root => 0,
            Self::GivenUp | Self::Ambient => NOBODY,
        }
    }
}

/// Only root can act as others, and hide the user database behind another one.
pub(crate) fn is_possible() -> bool {
    let possible = is_root()
        && Command::new("unshare")
            .args(["--mount", "mount", "--bind", "/etc/passwd", "/etc/passwd"])
            .output()
            .is_ok_and(|tried| tried.status.success());
    if !possible {
        let told = "skipped: only root, who may mount, can make accounts for a server";
        let _ = writeln!(std::io::stderr(), "{told}");
    }
    possible
}

/// ann and ben, who act as the accounts of their names, and vic, who does not; all in one tree.
pub(crate) fn setup(start: Start) -> Setup {
    let setup = Setup::new()
        .user("vic", "read-write")
        .user("ann", "read-write")
        .user_keys("system = \"ann\"")
        .user("ben", "read-write")
        .user_keys("system = \"{user}\"")
        .set("users.system", true)
        .set("server.cores", 1);
    let folder = setup.folder().to_owned();
    let tree = folder.join("tree");
    let users = folder.join("users.toml");
    let mut text = fs::read_to_string(&users).expect("the users file");
    for user in ["vic", "ann", "ben"] {
        let own = format!("{:?}", folder.join(user));
        text = text.replace(&own, &format!("{tree:?}"));
    }
    fs::write(&users, text).expect("the users file");
    open_to(&folder, 0, 0o755);
    chown(&users, None, Some(NOBODY)).expect("the users file");
    fs::set_permissions(&users, fs::Permissions::from_mode(0o640)).expect("a mode");
    grow(&tree);
    with_accounts(setup, start)
}

/// The tree: a directory for each, one for the group, one for all, and in that what is ben's.
pub(crate) fn grow(tree: &Path) {
    let directory = |name: &str, uid, gid, mode| {
        let path = tree.join(name);
        fs::create_dir_all(&path).expect("a directory");
        chown(&path, Some(uid), Some(gid)).expect("an owner");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    let file = |name: &str, uid, gid, mode| {
        let path = tree.join(name);
        fs::write(&path, "content").expect("a file");
        chown(&path, Some(uid), Some(gid)).expect("an owner");
        fs::set_permissions(&path, fs::Permissions::from_mode(mode)).expect("a mode");
    };
    directory("", 0, 0, 0o755);
    directory("ann", ANN, ANN, 0o700);
    directory("ben", BEN, BEN, 0o700);
    directory("team", 0, TEAM, 0o2770);
    directory("all", 0, 0, 0o1777);
    directory("all/closed", BEN, BEN, 0o700);
    directory("all/empty", BEN, BEN, 0o755);
    file("ben/file", BEN, BEN, 0o644);
    file("all/closed/file", BEN, BEN, 0o644);
    file("all/private", BEN, BEN, 0o600);
    file("all/readable", BEN, BEN, 0o644);
    file("all/writable", BEN, BEN, 0o666);
    file("team/file", 0, TEAM, 0o660);
}

pub(crate) fn open_to(path: &Path, uid: u32, mode: u32) {
    chown(path, Some(uid), None).expect("an owner");
    fs::set_permissions(path, fs::Permissions::from_mode(mode)).expect("a mode");
}

/// The program where nobody may run it: perhaps not where it has been built. By another process, so that
/// what is started beside has no descriptor of it that is open for writing (ETXTBSY).
pub(crate) fn copy_of_program(folder: &Path) -> PathBuf {
    let copy = folder.join("ringftpd");
    run(Command::new("cp").arg(program()).arg(&copy)).success();
    copy
}

/// Lets the server see a user database with the accounts.
pub(crate) fn with_accounts(setup: Setup, start: Start) -> Setup {
    let passwd = setup.folder().join("passwd");
    let group = setup.folder().join("group");
    let accounts = format!(
        "ann:x:{ANN}:{ANN}::/home/ann:/bin/sh\nben:x:{BEN}:{BEN}::/home/ben:/bin/sh\n\
         low:x:100:{ANN}::/:/bin/sh\n"
    );
    let groups = format!("team:x:{TEAM}:ann\n");
    for (file, host, more) in [
        (&passwd, "/etc/passwd", accounts),
        (&group, "/etc/group", groups),
    ] {
        let known = fs::read_to_string(host).expect("a user database");
        fs::write(file, format!("{known}{more}")).expect("a user database");
    }
    let mounts = format!(
        "mount --bind {} /etc/passwd && mount --bind {} /etc/group",
        passwd.display(),
        group.display()
    );
    let script = match start {
        Start::Root | Start::GivenUp => format!("{mounts} && exec \"$@\""),
        Start::Ambient => {
            let copy = copy_of_program(setup.folder());
            let capabilities = "-all,+setuid,+setgid";
            format!(
                "{mounts} && shift && exec setpriv --reuid {NOBODY} --regid {NOBODY} --clear-groups \
                 --bounding-set {capabilities} --inh-caps {capabilities} \
                 --ambient-caps {capabilities} {} \"$@\"",
                copy.display()
            )
        }
    };
    let setup = setup.under(&["unshare", "--mount", "sh", "-c", &script, "sh"]);
    match start {
        Start::GivenUp => setup.set("server.user", "\"nobody\""),
        Start::Ambient => setup.set("admin.enabled", false),
        Start::Root => setup,
    }
}

/// For each way to start it, a server and its tree.
pub(crate) fn each_server(test: impl Fn(Start, &TestServer, &Path)) {
    if !is_possible() {
        return;
    }
    for start in [Start::Root, Start::GivenUp, Start::Ambient] {
        let server = setup(start).start();
        let tree = server.folder().join("tree");
        test(start, &server, &tree);
        check_credentials(&server, start.uid());
    }
}

/// Every thread is the server's own, capabilities that are in effect only while they are needed
/// included.
pub(crate) fn check_credentials(server: &TestServer, uid: u32) {
    for (name, status) in threads(server) {
        let values = |key: &str| -> Vec<String> {
            let line = status.lines().find_map(|line| line.strip_prefix(key));
            let line = line.unwrap_or_else(|| panic!("{key} in {status}"));
            line.split_whitespace().map(str::to_owned).collect()
        };
        assert_eq!(values("Uid:"), vec![uid.to_string(); 4], "{name}");
        let gid = values("Gid:");
        assert_eq!(gid, vec![uid.to_string(); 4], "{name}");
        let groups: BTreeSet<String> = values("Groups:").into_iter().collect();
        for group in [ANN, BEN, TEAM] {
            assert!(!groups.contains(&group.to_string()), "{name}: {groups:?}");
        }
        // Programs that it starts get none.
        assert_eq!(values("CapAmb:"), ["0000000000000000"], "{name}");
        let effective = values("CapEff:").remove(0);
        let permitted = values("CapPrm:").remove(0);
        match uid {
            // Some are missing in a container.
            0 => assert_eq!(effective, permitted, "{name}"),
            _ => {
                assert_eq!(effective, "0000000000000000", "{name}");
                let held = ["0000000000000000", "00000000000000c0"];
                assert!(held.contains(&&permitted[..]), "{name}: {permitted}");
            }
        }
    }
}

/// Name and status of each thread.
pub(crate) fn threads(server: &TestServer) -> Vec<(String, String)> {
    let tasks = fs::read_dir(format!("/proc/{}/task", server.pid())).expect("/proc");
    let statuses = tasks.filter_map(|task| {
        // Workers of the ring come and go.
        let status = fs::read_to_string(task.ok()?.path().join("status")).ok()?;
        let name = status
            .lines()
            .next()?
            .trim_start_matches("Name:\t")
            .to_owned();
        Some((name, status))
    });
    statuses.collect()
}
