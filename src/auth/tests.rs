//! Logins against a users file that appears, changes and breaks while the server runs.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use super::store::{FileStore, Readers, Store, StoreError};
use super::*;
use crate::proto::rights::RightSet;

fn user(name: &str, password: &str, access: RightSet) -> User {
    User {
        name: UserName::parse(name.as_bytes()).expect("a valid name"),
        password: StoredHash::create(password.as_bytes()).expect("a valid password"),
        root: PathBuf::from("/srv").join(name),
        rights: Arc::new(access.into()),
        quota: QuotaLimits::default(),
        folders: Arc::default(),
        allowance: Allowance::default(),
        files: OwnFiles::default(),
        validity: Validity::default(),
        system: None,
    }
}

/// The users file as `ringftpd user` changes it.
mod edit {
    use super::*;

    pub(super) fn add(path: &Path, readers: Readers, user: User) -> Result<(), StoreError> {
        let keys = keys_of(&user).expect("a path in UTF-8");
        FileStore::new(path.to_owned(), readers).add(&user.name, keys)
    }

    pub(super) fn set_password(
        path: &Path,
        name: &UserName,
        password: StoredHash,
    ) -> Result<(), StoreError> {
        let password = toml::Value::String(password.as_text().to_owned());
        store(path).change(name, &[("password".to_owned(), Some(password))])
    }

    pub(super) fn delete(path: &Path, name: &UserName) -> Result<(), StoreError> {
        store(path).delete(name)
    }

    pub(super) fn list(path: &Path) -> Result<UserList, StoreError> {
        store(path).list()
    }

    fn store(path: &Path) -> FileStore {
        FileStore::new(path.to_owned(), Readers::Owner)
    }
}

fn authenticator(file: &Path, anonymous: bool) -> Authenticator {
    let mut config = Config::default();
    config.anonymous.enabled = anonymous;
    config.users.file = file.to_owned();
    config.users.hash_threads = 1;
    Authenticator::new(&config)
}

/// A client of this host that says it is `user`.
fn claim(user: &[u8]) -> Claim<'_> {
    Claim {
        host: "",
        user,
        client: CLIENT,
    }
}

/// The verdict on a client of this host.
fn verify(auth: &Authenticator, user: &[u8], password: &[u8]) -> Outcome {
    auth.verify(claim(user), password)
}

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);
const UNKNOWN: Outcome = Outcome::Refused(Reason::UnknownUser);
const WRONG: Outcome = Outcome::Refused(Reason::WrongPassword);

#[test]
fn users_come_change_and_go_while_the_server_runs() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("etc/users.toml");
    let auth = authenticator(&path, false);
    assert_eq!(verify(&auth, b"alice", b"one"), UNKNOWN, "no file yet");

    let alice = user("alice", "one", RightSet::READ_WRITE);
    edit::add(&path, Readers::Owner, alice.clone()).expect("added");
    assert_eq!(
        verify(&auth, b"alice", b"one"),
        Outcome::Accepted(alice.identity())
    );
    assert_eq!(verify(&auth, b"alice", b"two"), WRONG);
    assert_eq!(
        verify(&auth, b"Alice", b"one"),
        UNKNOWN,
        "names are case-sensitive"
    );
    assert_eq!(verify(&auth, b"bob", b"one"), UNKNOWN);
    assert_eq!(verify(&auth, b"\xff\0", b"one"), UNKNOWN);
    assert_eq!(
        verify(&auth, b"anonymous", b"one"),
        UNKNOWN,
        "anonymous is off"
    );

    let hash = StoredHash::create(b"two").expect("a valid password");
    edit::set_password(&path, &alice.name, hash).expect("changed");
    assert_eq!(verify(&auth, b"alice", b"one"), WRONG);
    assert_eq!(
        verify(&auth, b"alice", b"two"),
        Outcome::Accepted(alice.identity())
    );

    edit::delete(&path, &alice.name).expect("deleted");
    assert_eq!(verify(&auth, b"alice", b"two"), UNKNOWN);
}

#[test]
fn an_unreadable_users_file_lets_nobody_in_and_tells_no_secrets() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("users.toml");
    let auth = authenticator(&path, true);
    for text in [
        "[user.alice]\npassword = \"hunter2\"\nroot = \"/srv\"\n",
        "[user.alice]\npassword = \"hunter2\n",
        "[user.alice]\npassword = hunter2\n",
        "[user.alice]\npasswd = \"hunter2\"\n",
        "password = \"hunter2\"\n",
        "[[user]]\npassword = \"hunter2\"\n",
        "user = \"hunter2\"\n",
        "[user]\nalice = \"hunter2\"\n",
    ] {
        fs::write(&path, text).expect("written");
        let Outcome::Unavailable(reason) = verify(&auth, b"alice", b"hunter2") else {
            panic!("let in by {text:?}");
        };
        assert!(reason.contains("users.toml:"), "{reason}");
        assert!(!reason.contains("hunter2"), "{reason}");
    }
    assert!(
        auth.anonymous(claim(b"anonymous")).is_some(),
        "anonymous needs no users file"
    );
}

#[test]
fn anonymous_needs_no_password_and_only_when_enabled() {
    let path = Path::new("/nonexistent/users.toml");
    let (on, off) = (authenticator(path, true), authenticator(path, false));
    for name in [&b"anonymous"[..], b"ftp", b"FTP", b"Anonymous"] {
        let identity = on.anonymous(claim(name)).expect("anonymous is on");
        assert_eq!(
            (identity.name.as_str(), identity.rights.everywhere),
            ("anonymous", RightSet::READ_ONLY)
        );
        assert_eq!(verify(&on, name, b""), Outcome::Accepted(identity));
        assert_eq!(off.anonymous(claim(name)), None);
        assert_eq!(verify(&off, name, b""), UNKNOWN);
    }
    assert_eq!(on.anonymous(claim(b"ftpd")), None);
}

/// Makes a file look as if it had been written a minute ago: what was written just now may change
/// again without a trace, and is not relied on.
fn settle(path: &Path) {
    let then = std::time::SystemTime::now() - Duration::from_secs(60);
    let file = fs::File::options().write(true).open(path).expect("open");
    file.set_modified(then).expect("changed");
}

fn hashes(auth: &Authenticator) -> u64 {
    Counts::get(&auth.counts().hashes)
}

#[test]
fn a_remembered_login_costs_no_hash_until_the_file_says_otherwise() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("users.toml");
    let auth = authenticator(&path, false);
    let (alice, bob) = (
        user("alice", "one", RightSet::READ_WRITE),
        user("bob", "one", RightSet::READ_ONLY),
    );
    edit::add(&path, Readers::Owner, alice.clone()).expect("added");
    edit::add(&path, Readers::Owner, bob.clone()).expect("added");
    settle(&path);
    let at_once = |name: &[u8], password: &[u8]| auth.verify_at_once(claim(name), password);
    let accepted = |user: &User| Outcome::Accepted(user.identity());

    assert_eq!(at_once(b"alice", b"one"), None, "nothing is known yet");
    assert_eq!(verify(&auth, b"alice", b"one"), accepted(&alice));
    assert_eq!(at_once(b"alice", b"one"), Some(accepted(&alice)));
    assert_eq!(verify(&auth, b"alice", b"one"), accepted(&alice));
    assert_eq!(hashes(&auth), 1);
    assert_eq!(Counts::get(&auth.counts().remembered), 2);
    for (name, password) in [
        (&b"alice"[..], &b"two"[..]),
        (b"alice", b""),
        (b"bob", b"one"),
        (b"carol", b"one"),
        (b"\xff", b"one"),
    ] {
        assert_eq!(at_once(name, password), None);
    }

    // Any change sends the next login to a worker, which finds the password in memory all the same.
    edit::delete(&path, &bob.name).expect("deleted");
    assert_eq!(at_once(b"alice", b"one"), None);
    assert_eq!(verify(&auth, b"alice", b"one"), accepted(&alice));
    assert_eq!(hashes(&auth), 1);

    let hash = StoredHash::create(b"two").expect("a valid password");
    edit::set_password(&path, &alice.name, hash).expect("changed");
    assert_eq!(at_once(b"alice", b"one"), None);
    assert_eq!(verify(&auth, b"alice", b"one"), WRONG);
    settle(&path);
    assert_eq!(verify(&auth, b"alice", b"one"), WRONG);
    assert_eq!(at_once(b"alice", b"one"), None);
    assert_eq!(hashes(&auth), 3);

    assert_eq!(verify(&auth, b"alice", b"two"), accepted(&alice));
    assert!(at_once(b"alice", b"two").is_some());
    edit::delete(&path, &alice.name).expect("deleted");
    settle(&path);
    assert_eq!(at_once(b"alice", b"two"), None);
    assert_eq!(verify(&auth, b"alice", b"two"), UNKNOWN);
    fs::remove_file(&path).expect("removed");
    assert_eq!(at_once(b"alice", b"two"), None);
}

#[test]
fn a_closed_account_is_not_accepted_from_memory() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("users.toml");
    let auth = authenticator(&path, false);
    let alice = user("alice", "one", RightSet::READ_WRITE);
    edit::add(&path, Readers::Owner, alice.clone()).expect("added");
    assert!(matches!(
        verify(&auth, b"alice", b"one"),
        Outcome::Accepted(_)
    ));
    let text = fs::read_to_string(&path).expect("read");
    fs::write(&path, format!("{text}networks = [\"10.0.0.0/8\"]\n")).expect("written");
    settle(&path);
    let inside = "10.1.2.3".parse().expect("an address");
    for _ in 0..2 {
        let outcome = verify(&auth, b"alice", b"one");
        assert_eq!(outcome, Outcome::Refused(Reason::WrongNetwork));
        assert_eq!(auth.verify_at_once(claim(b"alice"), b"one"), None);
        let outcome = auth.verify_at_once(
            Claim {
                client: inside,
                ..claim(b"alice")
            },
            b"one",
        );
        assert_eq!(outcome, Some(Outcome::Accepted(alice.identity())));
    }
}

#[test]
fn every_refusal_costs_the_same_hash() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("users.toml");
    let auth = authenticator(&path, false);
    let (alice, bob) = (
        user("alice", "one", RightSet::READ_WRITE),
        user("bob", "one", RightSet::READ_ONLY),
    );
    edit::add(&path, Readers::Owner, alice).expect("added");
    edit::add(&path, Readers::Owner, bob).expect("added");
    let text = fs::read_to_string(&path).expect("read");
    fs::write(&path, text + "enabled = false\n").expect("written");
    for (name, password, outcome) in [
        (&b"alice"[..], &b"two"[..], WRONG),
        (b"bob", b"two", WRONG),
        (b"bob", b"one", Outcome::Refused(Reason::Disabled)),
        (b"carol", b"one", UNKNOWN),
        (b"no name", b"one", UNKNOWN),
        (b"anonymous", b"one", UNKNOWN),
    ] {
        let before = hashes(&auth);
        assert_eq!(verify(&auth, name, password), outcome);
        assert_eq!(hashes(&auth), before + 1);
    }
    // A password that is remembered does not make the refusal of a closed account quick.
    assert!(matches!(
        verify(&auth, b"alice", b"one"),
        Outcome::Accepted(_)
    ));
    let text = fs::read_to_string(&path).expect("read");
    let closed = text.replacen("access = ", "enabled = false\naccess = ", 1);
    fs::write(&path, closed).expect("written");
    let before = hashes(&auth);
    let outcome = verify(&auth, b"alice", b"one");
    assert_eq!(outcome, Outcome::Refused(Reason::Disabled));
    assert_eq!(hashes(&auth), before + 1);
}

#[test]
fn a_lockout_has_the_last_word_and_costs_no_hash() {
    let auth = authenticator(Path::new("/nonexistent/users.toml"), false);
    let limits = GuardLimits {
        failures: std::num::NonZeroU32::new(2),
        ..GuardLimits::default()
    };
    let identity = user("alice", "one", RightSet::READ_WRITE).identity();
    let judge = |outcome| auth.judge(claim(b"alice"), outcome, &limits);
    assert_eq!(judge(Ok(identity.clone())), Ok(identity.clone()));
    let wrong = Reason::WrongPassword;
    assert_eq!(judge(Err(wrong)), Err((wrong, limits.delay)));
    assert_eq!(auth.verify_at_once(claim(b"alice"), b"one"), None);
    assert_eq!(judge(Err(wrong)), Err((wrong, limits.delay * 2)));
    let locked = Reason::ClientLocked;
    let at_once = auth.verify_at_once(claim(b"alice"), b"one");
    assert_eq!(at_once, Some(Outcome::Refused(locked)));
    // One that was looked at when the others failed.
    assert_eq!(judge(Ok(identity)), Err((locked, limits.delay_max)));
    let counts = auth.counts();
    let counted = [&counts.refused, &counts.locked_out, &counts.hashes].map(Counts::get);
    assert_eq!(counted, [2, 1, 0]);
}

#[test]
fn edits_keep_comments_order_mode_and_links() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("real.toml");
    let link = folder.path().join("users.toml");
    std::os::unix::fs::symlink(&path, &link).expect("linked");
    for name in ["alice", "b.o@b", "carol"] {
        edit::add(&path, Readers::Owner, user(name, "x", RightSet::READ_ONLY)).expect("added");
    }
    let mode = |path: &Path| fs::metadata(path).expect("there").permissions().mode() & 0o777;
    assert_eq!(mode(&path), 0o600, "a new file is its owner's only");

    let mut text = fs::read_to_string(&path).expect("read");
    text.push_str("# the end\n");
    fs::write(
        &path,
        text.replace("[user.carol]", "# on leave\n[user.carol]"),
    )
    .expect("written");
    fs::set_permissions(&path, fs::Permissions::from_mode(0o640)).expect("changed");

    let bob = UserName::parse(b"b.o@b").expect("a valid name");
    let hash = StoredHash::create(b"new").expect("a valid password");
    edit::set_password(&link, &bob, hash).expect("changed");
    assert!(
        edit::list(&link)
            .expect("valid")
            .get(&bob)
            .is_some_and(|u| u.password.matches(b"new"))
    );
    edit::delete(&link, &UserName::parse(b"alice").expect("a valid name")).expect("deleted");

    let text = fs::read_to_string(&path).expect("read");
    assert!(text.starts_with("# ringftpd users."), "{text}");
    assert!(text.contains("# on leave\n[user.carol]"), "{text}");
    assert!(text.ends_with("# the end\n"), "{text}");
    assert!(!text.contains("alice"), "{text}");
    assert_eq!(mode(&path), 0o640);
    assert!(fs::symlink_metadata(&link).expect("there").is_symlink());
    let left = fs::read_dir(folder.path()).expect("listed").count();
    assert_eq!(left, 2, "nothing temporary remains");
}

#[test]
fn edits_that_would_not_do_what_was_meant_are_refused() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("users.toml");
    let alice = user("alice", "x", RightSet::READ_ONLY);
    let name = alice.name.clone();
    assert!(matches!(
        edit::delete(&path, &name),
        Err(StoreError::Unknown { .. })
    ));
    edit::add(&path, Readers::Owner, alice.clone()).expect("added");
    let again = edit::add(&path, Readers::Owner, alice.clone());
    assert!(matches!(again, Err(StoreError::Exists(_))));

    let inline = fs::read_to_string(&path).expect("read");
    let hash = inline
        .lines()
        .find(|line| line.starts_with("password"))
        .expect("a hash");
    let inline = format!("user.alice = {{ {hash}, root = \"/srv\" }}\n");
    fs::write(&path, &inline).expect("written");
    assert!(matches!(
        edit::delete(&path, &name),
        Err(StoreError::Unusual { .. })
    ));
    assert_eq!(
        fs::read_to_string(&path).expect("read"),
        inline,
        "nothing was changed"
    );

    fs::write(&path, "[user.alice]\n").expect("written");
    assert!(matches!(
        edit::add(&path, Readers::Owner, alice),
        Err(StoreError::Invalid(_))
    ));
}

#[test]
fn concurrent_edits_do_not_lose_each_other() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("users.toml");
    let model = user("model", "x", RightSet::READ_ONLY);
    std::thread::scope(|scope| {
        for index in 0..8 {
            let (path, model) = (&path, &model);
            scope.spawn(move || {
                let name = UserName::parse(format!("user{index}").as_bytes()).expect("a name");
                edit::add(
                    path,
                    Readers::Owner,
                    User {
                        name,
                        ..model.clone()
                    },
                )
                .expect("added");
            });
        }
    });
    assert_eq!(edit::list(&path).expect("valid").iter().count(), 8);
}

#[test]
fn directories_with_odd_names_survive_the_users_file() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("users.toml");
    let root = PathBuf::from("/srv/a \"b\" \\ \t é\n[user.mallory]");
    let odd = User {
        root: root.clone(),
        ..user("odd", "x", RightSet::READ_WRITE)
    };
    edit::add(&path, Readers::Owner, odd).expect("added");
    let users: Vec<Identity> = authenticator(&path, false)
        .users()
        .into_iter()
        .flat_map(|listed| listed.users.expect("valid"))
        .collect();
    assert_eq!(
        users.iter().map(|user| &user.root).collect::<Vec<_>>(),
        [&root]
    );
}

#[test]
fn the_shape_of_a_users_file_is_checked() {
    let hash = user("x", "x", RightSet::READ_ONLY).password;
    let hash = hash.as_text();
    for (text, part) in [
        (
            "[user.a]\nroot = \"/srv\"\n",
            "users:1:7: user.a: lacks the key `password`",
        ),
        ("[user.a]\npassword = \"HASH\"\n", "lacks the key `root`"),
        (
            "[user.a]\npassword = \"HASH\"\nroot = \"srv\"\n",
            "users:3:8: user.a.root: \"srv\" is not",
        ),
        (
            "[user.a]\npassword = \"HASH\"\nroot = \"/\"\nacces = \"x\"\n",
            "did you mean `access`?",
        ),
        (
            "[user.ftp]\npassword = \"HASH\"\nroot = \"/\"\n",
            "belong to anonymous access",
        ),
        (
            "[user.\"a b\"]\npassword = \"HASH\"\nroot = \"/\"\n",
            "is made of",
        ),
        ("[users.a]\n", "did you mean [user]?"),
    ] {
        let error = UserList::parse(&text.replace("HASH", hash), "users").expect_err(text);
        assert!(error.contains(part), "{error}");
    }
}

#[test]
fn what_a_user_does_not_say_the_default_says() {
    let hash = user("x", "x", RightSet::READ_ONLY).password;
    let text = format!(
        "[default]\nroot = \"/srv/{{user}}\"\naccess = \"read-write\"\nquota = \"1 MiB\"\n\
         folders = {{ \"/own\" = \"/x/{{user}}/y\" }}\n\
         [user.alice]\npassword = \"{0}\"\n\
         [user.\"b.o@b\"]\npassword = \"{0}\"\nroot = \"/else\"\naccess = \"read-only\"\n",
        hash.as_text()
    );
    let list = UserList::parse(&text, "users").expect("users");
    let of = |name: &str| list.get(&UserName::parse(name.as_bytes()).expect("a name"));
    let (alice, bob) = (of("alice").expect("alice"), of("b.o@b").expect("bob"));
    assert_eq!(alice.root, PathBuf::from("/srv/alice"));
    assert_eq!(alice.folders[0].directory, PathBuf::from("/x/alice/y"));
    assert_eq!(alice.rights.everywhere, RightSet::READ_WRITE);
    assert_eq!(bob.root, PathBuf::from("/else"));
    assert_eq!(bob.rights.everywhere, RightSet::READ_ONLY);
    assert_eq!(alice.quota, bob.quota);
    let wrong = UserList::parse("[default]\npassword = \"x\"\n", "users");
    assert!(wrong.is_err(), "a password for all");
}

#[test]
fn unknown_names_cost_what_most_users_cost() {
    let [md5, sha] = [
        "$1$salt$uXdHrfCd.CnHQasvSgrAO0",
        "$5$a.b/c$pBDEVpMB.HzwxP5Uv44.9gcuiC1dcJWKAitBOTlHhi6",
    ];
    let list = |hashes: &[&str]| {
        let sections = hashes
            .iter()
            .enumerate()
            .map(|(index, hash)| format!("[user.u{index}]\npassword = \"{hash}\"\nroot = \"/\"\n"));
        let text: String = sections.collect();
        UserList::parse(&text, "users").expect("a valid list")
    };
    let sources = UserSources::new(
        &config::Users::default(),
        &Helpers::default(),
        &mut Vec::new(),
    );
    assert_eq!(sources.nobody(&list(&[])), StoredHash::of_nobody());
    assert_eq!(sources.nobody(&list(&[sha, md5, sha])).as_text(), sha);
    assert_eq!(sources.nobody(&list(&[md5, md5, sha])).as_text(), md5);
}

#[test]
fn keys_of_the_file_change_in_place() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let path = folder.path().join("users.toml");
    let hash = "$1$MlHWYg5L$2yULtJYQOaJVFojxqly1r.";
    let head = "# ours\n[default]\nquota = \"1 GiB\" # for all\n\n[user.bob]\n";
    let text = format!(
        "{head}password = \"{hash}\"\nroot = \"/b\"\n\n[user.\"a.b\"]\nroot = \"/a\" # home\n\
         deny = [\n  \"delete\",\n]\npassword = \"{hash}\"\n\n# the end"
    );
    fs::write(&path, text).expect("written");
    let mut store = FileStore::new(path.clone(), Readers::Owner);
    let mut set = |name: &str, settings: &[(&str, &str)]| {
        let change = |(key, text): &(&str, &str)| {
            let value = (!text.is_empty()).then(|| value_of(key, text));
            ((*key).to_owned(), value)
        };
        let changes: Vec<_> = settings.iter().map(change).collect();
        let name = UserName::parse(name.as_bytes()).expect("a name");
        store.change(&name, &changes)
    };
    set("a.b", &[("root", "/new"), ("deny", ""), ("sessions", "3")]).expect("changed");
    set("bob", &[("rules", "/x read-only"), ("hours", "")]).expect("changed");
    let expected = format!(
        "{head}password = \"{hash}\"\nroot = \"/b\"\nrules = [\"/x read-only\"]\n\n[user.\"a.b\"]\n\
         root = \"/new\" # home\npassword = \"{hash}\"\nsessions = 3\n\n# the end"
    );
    assert_eq!(fs::read_to_string(&path).expect("read"), expected);
    for (name, setting) in [
        ("bob", ("quota", "much")),
        ("bob", ("root", "")),
        ("bob", ("qouta", "1 GiB")),
        ("carol", ("quota", "1 GiB")),
    ] {
        let error = set(name, &[setting]).expect_err(name).to_string();
        assert!(!error.contains(hash), "{error}");
    }
    assert_eq!(fs::read_to_string(&path).expect("read"), expected);

    // What is written in another way is left to its writer.
    let inline = format!("user.bob = {{ password = \"{hash}\", root = \"/b\" }}\n");
    fs::write(&path, &inline).expect("written");
    let unusual = set("bob", &[("quota", "1 GiB")]);
    assert!(matches!(unusual, Err(StoreError::Unusual { .. })));
    assert_eq!(fs::read_to_string(&path).expect("read"), inline);
}
