//! What finding a user costs among 50 000: in the users file, in SQLite, and in PostgreSQL, if
//! `RINGFTPD_BENCH_DATABASE` names an empty database (`postgresql://…`).
//!
//! Guards: a login whose password is remembered costs a worker less than 1 ms, wherever the user is. What
//! is measured is all of it but the password hash: the look-up, reading the row, the judgement.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr};
use std::path::{Path, PathBuf};
use std::time::Duration;

use criterion::{Criterion, criterion_group, criterion_main};
use ringftpd::auth::store::{DatabaseStore, Entry, FileStore, Readers, Store};
use ringftpd::auth::{Access, Authenticator, Claim, Outcome, StoredHash, UserName};
use ringftpd::config::{self, Config, Database, SourceKind};

/// Users of each store.
const USERS: usize = 50_000;
/// Users who log in in turn.
const VISITORS: usize = 64;
const PASSWORD: &[u8] = b"correct horse";
const CLIENT: IpAddr = IpAddr::V4(Ipv4Addr::LOCALHOST);

fn logins(criterion: &mut Criterion) {
    let folder = tempfile::tempdir().expect("a temporary directory");
    let mut group = criterion.benchmark_group("a remembered login among 50000 users");
    group.measurement_time(Duration::from_secs(4));
    let mut places = vec![
        ("file", None),
        (
            "SQLite",
            Some(format!("sqlite:{}/users.db", folder.path().display())),
        ),
    ];
    if let Ok(url) = std::env::var("RINGFTPD_BENCH_DATABASE") {
        places.push(("PostgreSQL", Some(url)));
    }
    for (name, database) in places {
        let database = database.map(|url| url.parse().expect("an address"));
        let users = settings(folder.path(), database);
        fill(&users);
        let authenticator = Authenticator::new(&Config {
            users,
            ..Config::default()
        });
        let mut visit = 0;
        let mut login = || {
            visit = (visit + 1) % VISITORS;
            let name = name_of(visit * (USERS / VISITORS));
            let outcome = authenticator.verify(
                Claim {
                    host: "",
                    user: name.as_bytes(),
                    client: CLIENT,
                },
                PASSWORD,
            );
            assert!(matches!(outcome, Outcome::Accepted(_)), "{outcome:?}");
            outcome
        };
        for _ in 0..VISITORS {
            login();
        }
        group.bench_function(name, |bencher| bencher.iter(|| black_box(login())));
    }
    group.finish();
}

fn settings(folder: &Path, database: Option<Database>) -> config::Users {
    let source = match database {
        Some(_) => SourceKind::Database,
        None => SourceKind::File,
    };
    config::Users {
        sources: vec![source],
        // The users file of a database is not there.
        file: folder.join(format!("{}.toml", source.name())),
        database,
        remember: Duration::from_secs(3600),
        ..config::Users::default()
    }
}

fn fill(users: &config::Users) {
    let hash = StoredHash::create(PASSWORD)
        .expect("a password")
        .into_text();
    let keys = format!(
        "password = \"{hash}\"\nroot = \"/srv/ftp\"\naccess = \"read-write\"\nquota = \"10 GiB\"\n\
         deny = [\"delete\"]\nsessions = 4\n"
    );
    let keys: toml::Table = toml::from_str(&keys).expect("keys");
    let entry = |number| {
        let name = UserName::parse(name_of(number).as_bytes()).expect("a name");
        (name, keys.clone())
    };
    let entries: Vec<Entry> = (0..USERS).map(entry).collect();
    let file: PathBuf = users.file.clone();
    let mut store: Box<dyn Store> = match Access::of(users) {
        Some(access) => Box::new(DatabaseStore::new(access, Readers::Owner, file)),
        None => Box::new(FileStore::new(file, Readers::Owner)),
    };
    store.add_all(entries).expect("added");
}

fn name_of(number: usize) -> String {
    format!("user{number:05}")
}

criterion_group!(benches, logins);
criterion_main!(benches);
