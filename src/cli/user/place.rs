//! Which store a command works on: the users file or a database.

use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use clap::{Args, ValueEnum};
use nix::unistd::{Group, Uid, User as Account};

use crate::auth::Access;
use crate::auth::store::{DatabaseStore, FileStore, Readers, Store};
use crate::cli::Failure;
use crate::config::{Config, Database, SourceKind, Users};

#[derive(Args, Debug)]
pub(super) struct PlaceArgs {
    /// Which one of the two [default: whichever comes first in users.sources]
    #[arg(long, global = true, value_enum)]
    store: Option<Kind>,

    /// The users of a virtual host, by the NAME of its section [host.NAME]
    #[arg(long, global = true, value_name = "NAME", conflicts_with_all = ["file", "database"])]
    host: Option<String>,

    /// The users file [default: users.file of the configuration]
    #[arg(long, global = true, value_name = "FILE")]
    file: Option<PathBuf>,

    /// The database: sqlite:/PATH or postgresql://… [default: users.database of the configuration]
    // Parsed below: a refusal by clap would show it, and it may hold a password.
    #[arg(long, global = true, value_name = "URL")]
    database: Option<String>,

    /// A file with the password for --database, for a PostgreSQL server that asks for one
    #[arg(long, global = true, value_name = "FILE", requires = "database")]
    database_password_file: Option<PathBuf>,

    /// A file with the authorities that vouch for the server of --database: with it the connection is by TLS
    #[arg(long, global = true, value_name = "FILE", requires = "database")]
    database_ca: Option<PathBuf>,

    /// The configuration that names them [default: /etc/ringftpd/ringftpd.toml if it exists]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
pub(super) enum Kind {
    /// The users file
    File,
    /// The database
    Database,
}

impl PlaceArgs {
    /// The store that a command works on.
    pub(super) fn store(&self) -> Result<Box<dyn Store>, Failure> {
        let kind = match (self.store, &self.file, &self.database) {
            (Some(kind), _, _) => kind,
            (None, Some(_), None) => Kind::File,
            (None, None, Some(_)) => Kind::Database,
            (None, Some(_), Some(_)) => {
                let text = "ringftpd: --file and --database: say by --store which of them is meant";
                return Err(Failure::usage(text));
            }
            (None, None, None) => self.first_source()?,
        };
        self.store_of(kind)
    }

    /// The store of this kind.
    pub(super) fn store_of(&self, kind: Kind) -> Result<Box<dyn Store>, Failure> {
        let config = self.config()?;
        let users = self.users(&config)?;
        let file = match &self.file {
            Some(file) => absolute(file)?,
            None => users.file.clone(),
        };
        if kind == Kind::File {
            let is_known = all_users(&config).any(|users| users.file == file);
            let readers = match is_known {
                true => readers(&config, &file),
                false => Readers::Owner,
            };
            return Ok(Box::new(FileStore::new(file, readers)));
        }
        let access = match &self.database {
            Some(url) => Some(self.access(url, users.source_timeout)?),
            None => Access::of(users),
        };
        let Some(access) = access else {
            let text = "ringftpd: no database: set users.database, or name one by --database URL";
            return Err(Failure::usage(text));
        };
        let readers = match &access.database {
            Database::Sqlite(path) => {
                let mut known = all_users(&config);
                match known.any(|users| users.database.as_ref() == Some(&access.database)) {
                    true => readers(&config, path),
                    false => Readers::Owner,
                }
            }
            Database::PostgreSql(_) => Readers::Owner,
        };
        Ok(Box::new(DatabaseStore::new(access, readers, file)))
    }

    fn access(&self, url: &str, timeout: Duration) -> Result<Access, Failure> {
        let wrong = |error: String| Failure::usage(format!("ringftpd: --database: {error}"));
        let database: Database = url.parse().map_err(wrong)?;
        if self.database_ca.is_none() && database.wants_tls() {
            let missing =
                "the address asks for TLS: say by --database-ca who vouches for the server";
            return Err(wrong(missing.to_owned()));
        }
        Ok(Access {
            database,
            password_file: self.database_password_file.clone().unwrap_or_default(),
            ca: self.database_ca.clone().unwrap_or_default(),
            timeout,
        })
    }

    fn first_source(&self) -> Result<Kind, Failure> {
        let config = self.config()?;
        let sources = &self.users(&config)?.sources;
        let kind = sources.iter().find_map(|source| match source {
            SourceKind::File => Some(Kind::File),
            SourceKind::Database => Some(Kind::Database),
            _ => None,
        });
        kind.ok_or_else(|| {
            Failure::usage(
                "ringftpd: neither the file nor a database is one of users.sources: say by --store \
                 file or --store database where the users are to be",
            )
        })
    }

    /// Whose users are meant: the server's, or a host's.
    fn users<'c>(&self, config: &'c Config) -> Result<&'c Users, Failure> {
        let Some(name) = &self.host else {
            return Ok(&config.users);
        };
        let host = config.hosts.iter().find(|host| host.name == *name);
        host.map(|host| &host.users).ok_or_else(|| {
            let names: Vec<&str> = config.hosts.iter().map(|host| &*host.name).collect();
            let names = match names.is_empty() {
                true => "it has none".to_owned(),
                false => format!("it has {}", names.join(", ")),
            };
            Failure::usage(format!(
                "ringftpd: --host: the configuration has no section [host.{name}]; {names}"
            ))
        })
    }

    fn config(&self) -> Result<Config, Failure> {
        let default = Path::new(Config::DEFAULT_PATH);
        match &self.config {
            Some(path) => Ok(Config::load(path)?),
            None if default.exists() => Ok(Config::load(default)?),
            None => Ok(Config::default()),
        }
    }
}

/// Of the server and of all its hosts.
fn all_users(config: &Config) -> impl Iterator<Item = &Users> {
    let of_hosts = config.hosts.iter().map(|host| &host.users);
    of_hosts.chain([&config.users])
}

fn absolute(path: &Path) -> Result<PathBuf, Failure> {
    std::path::absolute(path).map_err(|error| Failure::operating(&error))
}

/// A server that gives up root reads a store with its group; one that systemd starts as its user, with
/// the group to which the store's directory belongs.
fn readers(config: &Config, store: &Path) -> Readers {
    if !Uid::effective().is_root() {
        return Readers::Owner;
    }
    let Some(user) = &config.server.user else {
        let directory = store.parent().and_then(|path| path.metadata().ok());
        return match directory.map(|directory| directory.gid()) {
            None | Some(0) => Readers::Owner,
            Some(group) => Readers::Group(group),
        };
    };
    let group = match &config.server.group {
        Some(group) => Group::from_name(group)
            .ok()
            .flatten()
            .map(|group| group.gid),
        None => Account::from_name(user)
            .ok()
            .flatten()
            .map(|account| account.gid),
    };
    // `ringftpd check` tells of accounts that do not exist.
    group.map_or(Readers::Owner, |gid| Readers::Group(gid.as_raw()))
}
