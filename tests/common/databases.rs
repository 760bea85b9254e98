//! Databases for users: a file of SQLite, and a PostgreSQL server of the test's own.

use std::fs;
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use nix::sys::signal::{self, Signal};
use nix::unistd::Pid;
use tempfile::TempDir;

use super::tls::{Kind, certificate_of, key_of, write_certificate};
use super::{eventually, is_root, run, run_with_input};

/// A database that a test may stop and start.
pub(crate) trait Database {
    /// The value of `users.database`.
    fn url(&self) -> String;

    /// Runs statements, and gives what they print: fields with `|`, a line for each row.
    fn sql(&self, statements: &str) -> String;

    /// Makes it unreachable.
    fn stop(&mut self);

    /// Makes it reachable again.
    fn start(&mut self);
}

/// A file of SQLite.
pub(crate) struct Sqlite {
    folder: TempDir,
}

impl Sqlite {
    /// The file does not exist yet.
    pub(crate) fn new() -> Self {
        let folder = tempfile::tempdir().expect("a temporary folder");
        Self { folder }
    }

    fn path(&self) -> PathBuf {
        self.folder.path().join("users.db")
    }

    fn aside(&self) -> PathBuf {
        self.folder.path().join("aside")
    }
}

impl Database for Sqlite {
    fn url(&self) -> String {
        format!("sqlite:{}", self.path().display())
    }

    fn sql(&self, statements: &str) -> String {
        let mut shell = Command::new("sqlite3");
        let out = run_with_input(shell.arg("-bail").arg(self.path()), statements).success();
        String::from_utf8(out).expect("text")
    }

    fn stop(&mut self) {
        fs::rename(self.path(), self.aside()).expect("moved away");
    }

    fn start(&mut self) {
        fs::rename(self.aside(), self.path()).expect("moved back");
    }
}

/// A PostgreSQL server on a UNIX socket, which ends with the test.
pub(crate) struct PostgreSql {
    folder: TempDir,
    process: Option<Child>,
    /// Its name's end on the UNIX socket, and the port where it listens if it has TLS.
    port: u16,
    has_tls: bool,
    /// Listens there.
    is_on_network: bool,
}

impl PostgreSql {
    /// Starts one with an empty database; `None`, with a word of it, where the tests are to do without.
    pub(crate) fn start_new() -> Option<Self> {
        if std::env::var_os("RINGFTPD_TESTS_WITHOUT_POSTGRESQL").is_some() {
            let told = "PostgreSQL is not installed here: the tests with it are left out";
            // Not captured: whoever reads the results must see it.
            let _ =
                std::io::Write::write_all(&mut std::io::stderr(), format!("{told}\n").as_bytes());
            return None;
        }
        let folder = tempfile::tempdir().expect("a temporary folder");
        if is_root() {
            // PostgreSQL does not run as root.
            let mode = fs::Permissions::from_mode(0o755);
            fs::set_permissions(folder.path(), mode).expect("changed");
            run(Command::new("chown").arg(account()).arg(folder.path())).success();
        }
        let data = folder.path().join("data");
        let mut initdb = server_program("initdb");
        initdb.args(["--auth=trust", "--username=ringftpd", "--no-sync", "-D"]);
        run(initdb.arg(&data)).success();
        let mut server = Self {
            folder,
            process: None,
            port: 5432,
            has_tls: false,
            is_on_network: false,
        };
        server.start();
        Some(server)
    }

    /// Starts one that is also reached by TLS, with a certificate for `localhost`.
    pub(crate) fn start_with_tls() -> Option<Self> {
        let mut server = Self::start_new()?;
        let folder = server.folder.path();
        write_certificate(folder, "server", &["localhost"], Kind::Ecdsa);
        let key = key_of(folder, "server");
        fs::set_permissions(&key, fs::Permissions::from_mode(0o600)).expect("changed");
        if is_root() {
            run(Command::new("chown").arg(account()).arg(&key)).success();
        }
        // It takes none that the kernel chooses: one that is free now.
        let free = TcpListener::bind("127.0.0.1:0").and_then(|free| free.local_addr());
        server.port = free.expect("a port").port();
        (server.has_tls, server.is_on_network) = (true, true);
        server.set_access("local all all trust\nhostssl all all 127.0.0.1/32 trust");
        Some(server)
    }

    /// Lets it listen where it does, with TLS or without.
    pub(crate) fn set_tls(&mut self, is_on: bool) {
        self.has_tls = is_on;
        self.set_access("local all all trust\nhost all all 127.0.0.1/32 trust");
    }

    /// Whoever vouches for its certificate.
    pub(crate) fn ca(&self) -> PathBuf {
        certificate_of(self.folder.path(), "server")
    }

    /// Where it is reached by TCP, under this name.
    pub(crate) fn url_at(&self, host: &str) -> String {
        format!("postgresql://ringftpd@{host}:{}/postgres", self.port)
    }

    /// Who may log in there, by which method: lines of pg_hba.conf. In the map `here`, whoever runs the
    /// tests is the role `reader`.
    pub(crate) fn set_access(&mut self, lines: &str) {
        let data = self.folder.path().join("data");
        fs::write(data.join("pg_hba.conf"), format!("{lines}\n")).expect("written");
        let uid = nix::unistd::Uid::effective();
        let account = nix::unistd::User::from_uid(uid).ok().flatten();
        let name = account.expect("an account of this host").name;
        let map = format!("here {name} reader\n");
        fs::write(data.join("pg_ident.conf"), map).expect("written");
        self.stop();
        self.start();
    }

    fn is_up(&self) -> bool {
        let mut psql = self.psql();
        psql.args(["-c", "SELECT 1"]);
        run(&mut psql).code == Some(0)
    }

    fn psql(&self) -> Command {
        let mut psql = Command::new("psql");
        psql.args([
            "--no-psqlrc",
            "-qAt",
            "-v",
            "ON_ERROR_STOP=1",
            "-U",
            "ringftpd",
        ]);
        psql.arg("-h").arg(self.folder.path());
        psql.arg("-p").arg(self.port.to_string());
        psql.args(["-d", "postgres"]);
        psql
    }
}

impl Database for PostgreSql {
    fn url(&self) -> String {
        let folder = self.folder.path().display();
        let port = self.port;
        format!("postgresql://ringftpd@/postgres?host={folder}&port={port}")
    }

    fn sql(&self, statements: &str) -> String {
        let out = run_with_input(&mut self.psql(), statements).success();
        String::from_utf8(out).expect("text")
    }

    fn stop(&mut self) {
        let mut process = self.process.take().expect("a server that runs");
        let pid = Pid::from_raw(i32::try_from(process.id()).expect("a process number"));
        // Immediate shutdown: sessions are cut off.
        signal::kill(pid, Signal::SIGQUIT).expect("a signal to a child");
        process.wait().expect("it ends");
    }

    fn start(&mut self) {
        let folder = self.folder.path();
        let mut postgres = server_program("postgres");
        postgres.arg("-D").arg(folder.join("data"));
        postgres.arg("-k").arg(folder);
        let port = format!("port={}", self.port);
        postgres.args(["-c", "fsync=off", "-c", "max_connections=20", "-c", &port]);
        let addresses = if self.is_on_network { "127.0.0.1" } else { "" };
        postgres.args(["-c", &format!("listen_addresses={addresses}")]);
        if self.has_tls {
            let certificate = certificate_of(folder, "server").display().to_string();
            let key = key_of(folder, "server").display().to_string();
            postgres.args([
                "-c",
                "ssl=on",
                "-c",
                &format!("ssl_cert_file={certificate}"),
            ]);
            postgres.args(["-c", &format!("ssl_key_file={key}")]);
        }
        let log = fs::File::create(folder.join("log")).expect("a log");
        postgres.stdin(Stdio::null());
        postgres.stdout(Stdio::null()).stderr(log);
        self.process = Some(postgres.spawn().expect("postgres starts"));
        eventually("PostgreSQL answers", || {
            let process = self.process.as_mut().expect("just started");
            if let Ok(Some(status)) = process.try_wait() {
                let log = fs::read_to_string(self.folder.path().join("log"));
                panic!(
                    "PostgreSQL ended with {status}:\n{}",
                    log.unwrap_or_default()
                );
            }
            self.is_up()
        });
    }
}

impl Drop for PostgreSql {
    fn drop(&mut self) {
        if self.process.is_some() {
            self.stop();
        }
    }
}

/// A program of the server, run as somebody who is not root.
fn server_program(name: &str) -> Command {
    let path = server_path(name);
    if !is_root() {
        return Command::new(path);
    }
    let mut command = Command::new("setpriv");
    let account = account();
    command.arg(format!("--reuid={account}"));
    command.args(["--clear-groups", "--"]).arg(path);
    command.current_dir("/");
    command
}

/// Debian keeps the programs of the server out of the way of those of its clients.
fn server_path(name: &str) -> PathBuf {
    let versions = fs::read_dir("/usr/lib/postgresql").into_iter().flatten();
    let mut paths: Vec<PathBuf> = versions
        .flatten()
        .map(|version| version.path().join("bin").join(name))
        .filter(|path| path.exists())
        .collect();
    paths.sort();
    let path = paths.pop().unwrap_or_else(|| Path::new(name).to_owned());
    let is_there = path.is_absolute() || run(Command::new("which").arg(name)).code == Some(0);
    assert!(
        is_there,
        "cannot run {name:?}; install the package postgresql"
    );
    path
}

/// An account other than root: the package's, or nobody.
fn account() -> &'static str {
    match nix::unistd::User::from_name("postgres") {
        Ok(Some(_)) => "postgres",
        _ => "nobody",
    }
}
