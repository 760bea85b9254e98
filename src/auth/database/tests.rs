//! The statements on SQLite, and what becomes of rows. `tests/databases.rs` has PostgreSQL, too.

use std::collections::BTreeSet;
use std::net::{IpAddr, Ipv4Addr};
use std::path::Path;

use toml::Table;

use super::*;
use crate::auth::source::{Found, Login, OfDatabase, Source};
use crate::auth::store::{DatabaseStore, Store, StoreError};
use crate::auth::users::USER_KEYS;
use crate::auth::{UserList, UserName};

const HASH: &str = "$1$MlHWYg5L$2yULtJYQOaJVFojxqly1r.";

fn access(folder: &Path) -> Access {
    Access {
        database: Database::Sqlite(folder.join("users.db")),
        password_file: PathBuf::new(),
        ca: PathBuf::new(),
        timeout: Duration::from_secs(60),
    }
}

fn store(folder: &Path) -> DatabaseStore {
    DatabaseStore::new(access(folder), Readers::Owner, folder.join("users.toml"))
}

fn name(name: &str) -> UserName {
    UserName::parse(name.as_bytes()).expect("a name")
}

fn keys(text: &str) -> Table {
    let text = format!("password = \"{HASH}\"\n{text}");
    toml::from_str(&text).expect("keys")
}

fn find(source: &OfDatabase, user: &str) -> Result<Found, String> {
    let users = UserList::parse("[default]\nroot = \"/srv/{user}\"\n", "users").expect("valid");
    source.find(&Login {
        name: &name(user),
        password: b"secret",
        client: IpAddr::V4(Ipv4Addr::LOCALHOST),
        host: "",
        users: &users,
    })
}

#[test]
fn the_schema_has_a_column_for_each_key() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    store(folder.path()).migrate().expect("made");
    let mut connection = open(&access(folder.path()), Purpose::Read).expect("open");
    let sql = "SELECT name FROM pragma_table_info('ringftpd_users')";
    let columns = connection.query(sql, &[]).expect("columns");
    let columns: BTreeSet<String> = columns.into_iter().flatten().flatten().collect();
    let mut expected: BTreeSet<String> = USER_KEYS.iter().map(ToString::to_string).collect();
    expected.insert("name".to_owned());
    assert_eq!(columns, expected, "a new key takes a new migration");
}

#[test]
fn all_keys_survive_a_row() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut store = store(folder.path());
    let all = keys(
        "root = \"/srv/alice\"\naccess = \"read-write\"\ndeny = [\"delete\"]\nhide = [\"*.bak\"]\n\
         rules = [\"/a,b read-only\"]\nquota = \"1 GiB\"\nquota_files = 7\n\
         folders = { \"/shared\" = \"/srv/shared\" }\ndown = \"1 MiB/s\"\nup = \"2 MiB/s\"\n\
         sessions = 3\nvolume = \"3 TiB\"\nvolume_down = \"1 TiB\"\nvolume_up = \"2 TiB\"\n\
         volume_period = \"week\"\numask = \"077\"\n\
         uploads = \"in-place\"\nfailed_upload = \"keep\"\nsystem = \"nobody\"\nenabled = false\nexpires = \"2030-12-31\"\nnetworks = [\"192.0.2.0/24\"]\n\
         hours = [\"mon,wed 08:00-18:00\"]\n",
    );
    assert_eq!(all.len(), USER_KEYS.len());
    store.add(&name("alice"), all.clone()).expect("added");
    assert_eq!(store.find(&name("alice")).expect("open"), Some(all));
    let bare = keys("root = \"/srv/b\"");
    store.add(&name("bob"), bare.clone()).expect("added");
    assert_eq!(store.find(&name("bob")).expect("open"), Some(bare));
    assert_eq!(store.find(&name("BOB")).expect("open"), None);
    let source = OfDatabase::new(access(folder.path()));
    let Ok(Found::User(alice)) = find(&source, "alice") else {
        panic!("{:?}", find(&source, "alice"));
    };
    assert_eq!(alice.quota.files, Some(7));
    assert_eq!(alice.folders[0].directory, Path::new("/srv/shared"));
    assert!(alice.judge_now().is_err());
    assert_eq!(find(&source, "nobody"), Ok(Found::Unknown));
    let (count, hash) = source.usual(&UserList::default()).expect("a hash");
    assert_eq!((count, hash.as_text()), (2, HASH));
}

#[test]
fn changes_are_read_before_they_are_written() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut store = store(folder.path());
    let alice = name("alice");
    let change = |store: &mut DatabaseStore, key: &str, value: Option<&str>| {
        let value = value.map(|text| crate::auth::value_of(key, text));
        store.change(&alice, &[(key.to_owned(), value)])
    };
    assert!(change(&mut store, "quota", Some("1 GiB")).is_err());
    assert!(!folder.path().join("users.db").exists(), "nothing is made");
    let added = store.add(&alice, keys("root = \"/srv/a\""));
    added.expect("added");
    for (key, value) in [
        ("quota", Some("much")),
        ("quota_files", Some("many")),
        ("qouta", Some("1 GiB")),
        ("root", Some("relative")),
        ("root", None),
        ("deny", Some("everything")),
        ("folders", Some("/x")),
        ("enabled", Some("perhaps")),
        ("password", None),
    ] {
        let error = change(&mut store, key, value).expect_err(key);
        assert!(!error.to_string().contains(HASH), "{error}");
    }
    assert_eq!(
        store.find(&alice).expect("open"),
        Some(keys("root = \"/srv/a\""))
    );
    change(&mut store, "enabled", Some("false")).expect("changed");
    change(&mut store, "enabled", None).expect("changed");
    store.delete(&alice).expect("deleted");
    let again = store.delete(&alice);
    assert!(matches!(again, Err(StoreError::Unknown { .. })));
}

#[test]
fn a_row_that_cannot_be_read_is_told_without_its_secrets() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut store = store(folder.path());
    store.migrate().expect("made");
    let purpose = Purpose::Write(Readers::Owner);
    let mut connection = open(&access(folder.path()), purpose).expect("open");
    for (user, columns, values) in [
        ("a", "password", "'hunter2'".to_owned()),
        ("b", "password, quota", format!("'{HASH}', 'hunter2'")),
        ("c", "password, deny", format!("'{HASH}', '[1]'")),
        ("d", "password, hide", format!("'{HASH}', '[hunter2'")),
    ] {
        let sql =
            format!("INSERT INTO ringftpd_users (name, {columns}) VALUES ('{user}', {values})");
        connection.batch(&sql).expect(&sql);
        let source = OfDatabase::new(access(folder.path()));
        let error = find(&source, user).expect_err(user);
        assert!(
            error.contains(&format!("user {user} of the database")),
            "{error}"
        );
        assert!(user == "b" || !error.contains("hunter2"), "{error}");
    }
    let refused = "INSERT INTO ringftpd_users (name, password, access) VALUES ('e', 'x', 'all')";
    assert!(connection.batch(refused).is_err());
    // The others are listed nevertheless.
    store
        .add(&name("e"), keys("root = \"/srv\""))
        .expect("added");
    let mut good = Vec::new();
    let mut take = |name: &str, user: Result<&crate::auth::User, String>| {
        good.extend(user.ok().map(|_| name.to_owned()));
        std::ops::ControlFlow::Continue(())
    };
    store.each(&mut take).expect("listed");
    assert_eq!(good, ["e"]);
}

#[test]
fn tables_that_are_missing_or_of_another_version_let_nobody_in() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let source = OfDatabase::new(access(folder.path()));
    let told = |part: &str| {
        let error = find(&source, "alice").expect_err(part);
        assert!(error.contains(part), "{error}");
    };
    told("No such file");
    std::fs::write(folder.path().join("users.db"), "").expect("a file");
    told("`ringftpd user migrate` makes them");
    let mut store = store(folder.path());
    assert!(store.migrate().expect("made"));
    assert!(!store.migrate().expect("made"));
    assert_eq!(find(&source, "alice"), Ok(Found::Unknown));
    let purpose = Purpose::Write(Readers::Owner);
    let mut connection = open(&access(folder.path()), purpose).expect("open");
    let newer = "INSERT INTO ringftpd_schema (version) VALUES (9)";
    connection.batch(newer).expect("noted");
    let source = OfDatabase::new(access(folder.path()));
    let error = find(&source, "alice").expect_err("newer");
    assert!(error.contains("newer ringftpd"), "{error}");
    assert!(store.migrate().is_err(), "nothing is taken back");
}

#[test]
fn a_file_that_takes_the_place_of_another_is_read() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    store(&one).migrate().expect("made");
    let root = || keys("root = \"/srv\"");
    store(&two).add(&name("alice"), root()).expect("added");
    let source = OfDatabase::new(access(&one));
    assert_eq!(find(&source, "alice"), Ok(Found::Unknown));
    std::fs::rename(two.join("users.db"), one.join("users.db")).expect("replaced");
    assert!(matches!(find(&source, "alice"), Ok(Found::User(_))));
    // What another program writes meanwhile counts at once.
    store(&one).delete(&name("alice")).expect("deleted");
    assert_eq!(find(&source, "alice"), Ok(Found::Unknown));
}

#[test]
fn a_change_that_broke_off_lets_nobody_in_until_it_is_taken_back() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let (one, two) = (folder.path().join("one"), folder.path().join("two"));
    let root = || keys("root = \"/srv\"");
    store(&one).add(&name("alice"), root()).expect("added");
    store(&two).migrate().expect("a folder");
    let mut connection = open(&access(&one), Purpose::Write(Readers::Owner)).expect("open");
    // More than fits into the cache, so that some of it is in the file before the end.
    let broken_off = "PRAGMA cache_size = 5; BEGIN;
        WITH RECURSIVE numbers(n) AS (SELECT 1 UNION ALL SELECT n + 1 FROM numbers WHERE n < 2000)
        INSERT INTO ringftpd_users (name, password) SELECT 'user' || n, 'x' FROM numbers";
    connection.batch(broken_off).expect("begun");
    for file in ["users.db", "users.db-journal"] {
        std::fs::copy(one.join(file), two.join(file)).expect("as a crash leaves it");
    }
    let source = OfDatabase::new(access(&two));
    let error = find(&source, "alice").expect_err("broken off");
    assert!(
        error.contains("`ringftpd user migrate` takes it back"),
        "{error}"
    );
    assert!(!store(&two).migrate().expect("taken back"));
    assert!(matches!(find(&source, "alice"), Ok(Found::User(_))));
}

#[test]
fn a_server_that_is_not_there_is_told_in_time() {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let host = folder.path().display();
    let secret = folder.path().join("password");
    std::fs::write(&secret, "hunter2\n").expect("a file");
    let mut access = Access {
        database: Database::PostgreSql(format!("postgresql://ringftpd@/ftp?host={host}")),
        password_file: secret.clone(),
        ca: PathBuf::new(),
        timeout: Duration::from_millis(200),
    };
    let told = |access: &Access| match open(access, Purpose::Read) {
        Ok(_) => panic!("open"),
        Err(error) => error,
    };
    assert!(told(&access).contains("chmod o= "), "{}", told(&access));
    let mode = std::os::unix::fs::PermissionsExt::from_mode(0o600);
    std::fs::set_permissions(&secret, mode).expect("changed");
    assert!(told(&access).contains("No such file"), "{}", told(&access));
    // One that takes connections and says nothing.
    let socket = folder.path().join(".s.PGSQL.5432");
    let _silent = std::os::unix::net::UnixListener::bind(socket).expect("bound");
    assert!(told(&access).contains("within 200 ms"), "{}", told(&access));
    access.password_file = PathBuf::new();
    assert!(!told(&access).contains("hunter2"));
}
