//! `users.database`: where a database of users is.

use std::fmt;
use std::path::{Path, PathBuf};
use std::str::FromStr;

use tokio_postgres::config::{Host, SslMode};

use super::section::{Value, Wrong};
use super::units;

/// Where a database of users is. No password is part of it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub enum Database {
    /// A file of SQLite; absolute.
    Sqlite(PathBuf),
    /// A database on a PostgreSQL server: `postgresql://…`.
    PostgreSql(String),
}

impl Database {
    /// The value of the key; `None` for an empty one.
    pub(super) fn read(value: &Value<'_>) -> Result<Option<Self>, Wrong> {
        match units::text(value, "sqlite:/var/lib/ringftpd/users.db")? {
            "" => Ok(None),
            text => Self::parse(text).map(Some),
        }
    }

    fn parse(text: &str) -> Result<Self, Wrong> {
        let shown_nowhere = "this is not an address such as sqlite:/var/lib/ringftpd/users.db or \
            postgresql://ringftpd@/ringftpd?host=/run/postgresql";
        if let Some(path) = text.strip_prefix("sqlite:") {
            return match Path::new(path).is_absolute() && !path.contains('\0') {
                true => Ok(Self::Sqlite(PathBuf::from(path))),
                false => Err(Wrong::new(shown_nowhere).hint("the path is an absolute one")),
            };
        }
        let schemes = ["postgresql://", "postgres://"];
        let Some(rest) = schemes.iter().find_map(|scheme| text.strip_prefix(scheme)) else {
            return Err(Wrong::new(shown_nowhere));
        };
        let before_host = rest.rsplit_once('@').map_or("", |(user, _)| user);
        if before_host.contains(':') || rest.contains("password=") {
            let hint = "put it into a file of its own: users.database_password_file; PostgreSQL's \
                peer authentication needs none";
            return Err(Wrong::new("a password does not belong here").hint(hint));
        }
        // There is no password in it, so that what is wrong may be told.
        tokio_postgres::Config::from_str(text).map_err(|error| {
            let cause = std::error::Error::source(&error).map(ToString::to_string);
            Wrong::new(shown_nowhere).hint(cause.unwrap_or_else(|| error.to_string()))
        })?;
        Ok(Self::PostgreSql(text.to_owned()))
    }

    /// What to do about an address that asks for TLS and cannot have it.
    pub const CA_HINT: &'static str = "a file of authorities, such as /etc/ssl/certs/ca-certificates.crt or the server's root.crt";

    /// Whether the address asks for TLS by itself.
    pub fn wants_tls(&self) -> bool {
        self.server()
            .is_some_and(|server| server.get_ssl_mode() == SslMode::Require)
    }

    /// Whether one of the ways to the server is a UNIX socket.
    pub fn has_local_socket(&self) -> bool {
        let is_local = |host: &Host| matches!(host, Host::Unix(_));
        self.server()
            .is_some_and(|server| server.get_hosts().iter().any(is_local))
    }

    fn server(&self) -> Option<tokio_postgres::Config> {
        match self {
            Self::Sqlite(_) => None,
            // It was parsed when it was read.
            Self::PostgreSql(url) => url.parse().ok(),
        }
    }
}

impl FromStr for Database {
    type Err = String;

    fn from_str(text: &str) -> Result<Self, String> {
        Self::parse(text).map_err(|wrong| match wrong.hint {
            Some(hint) => format!("{}; {hint}", wrong.message),
            None => wrong.message,
        })
    }
}

impl fmt::Display for Database {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Sqlite(path) => write!(f, "sqlite:{}", path.display()),
            Self::PostgreSql(url) => f.write_str(url),
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Config;

    #[test]
    fn databases_are_named_by_address() {
        for (text, part) in [
            ("sqlite:/var/lib/ringftpd/users.db", None),
            ("postgresql://ringftpd@/ftp?host=/run/postgresql", None),
            ("postgres://ringftpd@db.example.org:5433/ftp", None),
            ("postgresql://%2Frun%2Fpostgresql/ftp", None),
            ("sqlite:users.db", Some("absolute")),
            ("mysql://ringftpd@db/ftp", Some("not an address")),
            ("postgresql://ringftpd@db/ftp?hots=x", Some("hots")),
            ("postgresql://ringftpd@db/ftp?sslmode=require", None),
            (
                "postgresql://ringftpd:hunter2@db/ftp",
                Some("does not belong here"),
            ),
            (
                "postgresql://ringftpd:hunter2?@db/ftp",
                Some("does not belong here"),
            ),
            (
                "postgresql://ringftpd@db/ftp?password=hunter2",
                Some("does not belong here"),
            ),
        ] {
            match (text.parse::<Database>(), part) {
                (Ok(database), None) => assert_eq!(database.to_string(), text),
                (Err(error), Some(part)) => {
                    assert!(error.contains(part), "{text}: {error}");
                    assert!(!error.contains("hunter2"), "{error}");
                }
                (parsed, _) => panic!("{text}: {parsed:?}"),
            }
        }
    }

    #[test]
    fn a_password_in_an_address_is_shown_nowhere() {
        for line in [
            "database = \"postgresql://ringftpd:hunter2@db/ftp\"",
            "database = \"postgresql://ringftpd:hunter2@db/ftp",
            "datbase = \"postgresql://ringftpd:hunter2@db/ftp\"",
            "http = \"http://ringftpd:hunter2@db/ ftp\"",
        ] {
            let text = format!("[users]\nsources = [\"database\"]\n{line}\n");
            let error = Config::parse(&text, "test").expect_err(line).to_string();
            assert!(error.contains("test:3:"), "{error}");
            assert!(!error.contains("hunter2"), "{error}");
        }
    }
}
