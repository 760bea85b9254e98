//! PostgreSQL, over a UNIX socket or a network.
//!
//! The client is an asynchronous one, and each connection has a runtime of its own on the thread that
//! uses it: only so every wait has an end, also for a server that has stopped in the midst of an answer.

use std::collections::HashMap;
use std::fs::File;
use std::future::Future;
use std::io::{self, BufRead, BufReader, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use rustls::crypto::aws_lc_rs;
use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject;
use rustls::{ClientConfig, RootCertStore};
use tokio::runtime::{Builder, Runtime};
use tokio::time;
use tokio_postgres::config::SslMode;
use tokio_postgres::types::ToSql;
use tokio_postgres::{Client, Config, Error, NoTls, Statement};
use tokio_postgres_rustls::MakeRustlsConnect;

use super::{Connection, Purpose, Record};

/// A connection.
pub(super) struct PostgreSql {
    runtime: Runtime,
    client: Client,
    prepared: HashMap<String, Statement>,
    timeout: Duration,
    title: String,
}

impl PostgreSql {
    pub(super) fn open(
        url: &str,
        password: Option<Vec<u8>>,
        tls: Option<ClientConfig>,
        timeout: Duration,
        purpose: Purpose,
    ) -> Result<Self, String> {
        let mut config: Config = url.parse().map_err(|error| told(url, &error))?;
        config
            .connect_timeout(timeout)
            .tcp_user_timeout(timeout)
            .application_name("ringftpd");
        if let Some(password) = password {
            config.password(password);
        }
        let runtime = Builder::new_current_thread()
            .enable_all()
            .build()
            .map_err(|error| format!("{url}: {error}"))?;
        let failed = |reason| format!("{url}: {reason}");
        // A connection is moved on whenever it is waited for. How it ends the client tells, too.
        let client = match tls {
            None => {
                let connect = config.connect(NoTls);
                let (client, connection) = wait(&runtime, timeout, connect).map_err(failed)?;
                runtime.spawn(async { drop(connection.await) });
                client
            }
            Some(tls) => {
                config.ssl_mode(SslMode::Require);
                let connect = config.connect(MakeRustlsConnect::new(tls));
                let (client, connection) = wait(&runtime, timeout, connect).map_err(failed)?;
                runtime.spawn(async { drop(connection.await) });
                client
            }
        };
        let timeout = match purpose {
            Purpose::Read => timeout,
            Purpose::Write(_) => timeout.max(CHANGE_TIMEOUT),
        };
        let mut opened = Self {
            runtime,
            client,
            prepared: HashMap::new(),
            timeout,
            title: url.to_owned(),
        };
        // Not as options of the connection, which poolers refuse.
        let is_reader = match purpose {
            Purpose::Read => "on",
            Purpose::Write(_) => "off",
        };
        opened.batch(&format!(
            "SET statement_timeout = {}; SET default_transaction_read_only = {is_reader}",
            timeout.as_millis()
        ))?;
        Ok(opened)
    }

    fn wait<T>(&self, answer: impl Future<Output = Result<T, Error>>) -> Result<T, String> {
        wait(&self.runtime, self.timeout, answer)
            .map_err(|reason| format!("{}: {reason}", self.title))
    }

    fn prepare(&mut self, sql: &str) -> Result<Statement, String> {
        if let Some(statement) = self.prepared.get(sql) {
            return Ok(statement.clone());
        }
        let statement = self.wait(self.client.prepare(sql))?;
        self.prepared.insert(sql.to_owned(), statement.clone());
        Ok(statement)
    }
}

impl Connection for PostgreSql {
    fn query(&mut self, sql: &str, parameters: &[Option<&str>]) -> Result<Vec<Record>, String> {
        let statement = self.prepare(sql)?;
        let rows = self.wait(self.client.query(&statement, &dynamic(parameters)))?;
        let record = |row: &tokio_postgres::Row| {
            let cells = (0..row.len()).map(|column| row.try_get(column));
            cells.collect::<Result<Record, Error>>()
        };
        let records = rows.iter().map(record).collect::<Result<_, _>>();
        records.map_err(|error| told(&self.title, &error))
    }

    fn execute(&mut self, sql: &str, parameters: &[Option<&str>]) -> Result<u64, String> {
        let statement = self.prepare(sql)?;
        self.wait(self.client.execute(&statement, &dynamic(parameters)))
    }

    fn batch(&mut self, sql: &str) -> Result<(), String> {
        self.wait(self.client.batch_execute(sql))
    }

    fn begin(&mut self) -> Result<(), String> {
        self.batch(&format!(
            "BEGIN; SELECT pg_advisory_xact_lock({LOCK_NUMBER})"
        ))
    }

    fn has_table(&mut self, name: &str) -> Result<bool, String> {
        let sql = "SELECT CAST(to_regclass($1) AS TEXT)";
        let found = self.query(sql, &[Some(name)])?;
        Ok(found.iter().flatten().any(Option::is_some))
    }

    fn is_alive(&self) -> bool {
        !self.client.is_closed()
    }
}

fn dynamic<'p>(parameters: &'p [Option<&'p str>]) -> Vec<&'p (dyn ToSql + Sync)> {
    let dynamic = |parameter: &'p Option<&'p str>| parameter as &(dyn ToSql + Sync);
    parameters.iter().map(dynamic).collect()
}

fn wait<T>(
    runtime: &Runtime,
    timeout: Duration,
    answer: impl Future<Output = Result<T, Error>>,
) -> Result<T, String> {
    // The timer is made where the runtime is.
    let bounded = async { time::timeout(timeout, answer).await };
    match runtime.block_on(bounded) {
        Ok(answer) => answer.map_err(|error| reason(&error)),
        Err(_) => Err(format!("no answer within {} ms", timeout.as_millis())),
    }
}

fn told(title: &str, error: &Error) -> String {
    format!("{title}: {}", reason(error))
}

/// Why something failed. A database's details are left out: they may show a row, and with it a hash.
fn reason(error: &Error) -> String {
    if let Some(told) = error.as_db_error() {
        return format!("{}: {}", told.severity(), told.message());
    }
    match std::error::Error::source(error) {
        Some(cause) => format!("{error}: {cause}"),
        None => error.to_string(),
    }
}

/// How a server is known by the authorities in a file.
pub(super) fn tls(ca: &Path) -> Result<ClientConfig, String> {
    let told = |error: &dyn std::fmt::Display| format!("{}: {error}", ca.display());
    let mut roots = RootCertStore::empty();
    for certificate in CertificateDer::pem_file_iter(ca).map_err(|error| told(&error))? {
        let certificate = certificate.map_err(|error| told(&error))?;
        roots.add(certificate).map_err(|error| told(&error))?;
    }
    if roots.is_empty() {
        return Err(told(&"no certificate in PEM in this file"));
    }
    let config = ClientConfig::builder_with_provider(Arc::new(aws_lc_rs::default_provider()))
        .with_safe_default_protocol_versions()
        .map_err(|error| told(&error))?;
    Ok(config.with_root_certificates(roots).with_no_client_auth())
}

/// The first line of the file with the password.
pub(super) fn password(path: &Path) -> Result<Vec<u8>, String> {
    let told = |error: io::Error| format!("{}: {error}", path.display());
    let file = File::open(path).map_err(told)?;
    let metadata = file.metadata().map_err(told)?;
    if metadata.mode() & 0o007 != 0 {
        let hint = format!("chmod o= {}", path.display());
        return Err(told(io::Error::other(format!(
            "others may read or write this file with a password: {hint}"
        ))));
    }
    let mut line = Vec::new();
    BufReader::new(file.take(PASSWORD_LENGTH_MAX))
        .read_until(b'\n', &mut line)
        .map_err(told)?;
    while matches!(line.last(), Some(b'\n' | b'\r')) {
        line.pop();
    }
    Ok(line)
}

/// A change of thousands of rows, and the wait for another one.
const CHANGE_TIMEOUT: Duration = Duration::from_secs(60);
/// "ringftpd" in ASCII: other programs lock other numbers.
const LOCK_NUMBER: i64 = 0x7269_6e67_6674_7064;
/// Longer ones PostgreSQL does not take.
const PASSWORD_LENGTH_MAX: u64 = 1024;
