//! `[anonymous]` and `[users]`: who may log in.

use std::path::PathBuf;
use std::time::Duration;

use super::section::{Section, Value, Wrong};
use super::{
    Allowance, Config, Database, Folder, OwnFiles, Problem, QuotaLimits, folders, limits, rights,
    units,
};
use crate::proto::rights::Rights;

/// Access without an account: USER `anonymous` or `ftp`, any password (RFC 1635).
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Anonymous {
    /// Whether it is offered.
    pub enabled: bool,
    /// The directory that clients see as `/`; absolute.
    pub root: PathBuf,
    /// What they may do there.
    pub rights: Rights,
    /// How much they may store there, all together.
    pub quota: QuotaLimits,
    /// Other directories that they find there.
    pub folders: Vec<Folder>,
    /// How much of the server they may take, all together.
    pub allowance: Allowance,
    /// How their files come into being.
    pub files: OwnFiles,
}

/// Where users with passwords come from.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum SourceKind {
    /// The users file.
    File,
    /// A file of names and hashes.
    Htpasswd,
    /// A program that is run for each login.
    Program,
    /// A web service that is asked for each login.
    Http,
    /// The accounts of this host, with the passwords of /etc/shadow.
    Shadow,
    /// The accounts of this host, with whatever proof PAM asks for.
    #[cfg(feature = "pam")]
    Pam,
    /// A database with a table of users.
    Database,
}

impl SourceKind {
    /// All of them, with their names.
    const NAMES: &[(&str, Self)] = &[
        ("file", Self::File),
        ("htpasswd", Self::Htpasswd),
        ("program", Self::Program),
        ("http", Self::Http),
        ("shadow", Self::Shadow),
        #[cfg(feature = "pam")]
        ("pam", Self::Pam),
        ("database", Self::Database),
    ];

    /// Whether its users are accounts of this host, and act as such.
    pub fn is_of_host(self) -> bool {
        match self {
            Self::File | Self::Htpasswd | Self::Program | Self::Http | Self::Database => false,
            Self::Shadow => true,
            #[cfg(feature = "pam")]
            Self::Pam => true,
        }
    }

    /// What the configuration calls it.
    pub fn name(self) -> &'static str {
        let named = Self::NAMES.iter().find(|(_, kind)| *kind == self);
        named.map_or("", |(name, _)| name)
    }

    /// The key that says where it is.
    pub fn key(self) -> &'static str {
        match self {
            Self::File => "users.file",
            Self::Htpasswd => "users.htpasswd",
            Self::Program => "users.program",
            Self::Http => "users.http",
            Self::Database => "users.database",
            Self::Shadow => "users.sources",
            #[cfg(feature = "pam")]
            Self::Pam => "users.pam_service",
        }
    }
}

/// Users with passwords.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Users {
    /// Whether they may log in.
    pub enabled: bool,
    /// Who is asked for a user, in this order; each at most once, at least one.
    pub sources: Vec<SourceKind>,
    /// The file that `ringftpd user` writes; absolute.
    pub file: PathBuf,
    /// The file of [`SourceKind::Htpasswd`]; absolute, or empty.
    pub htpasswd: PathBuf,
    /// The program of [`SourceKind::Program`]; absolute, or empty.
    pub program: PathBuf,
    /// The address of [`SourceKind::Http`]: `http://…`, or empty.
    pub http: String,
    /// The database of [`SourceKind::Database`].
    pub database: Option<Database>,
    /// The file with the password for it; absolute, or empty: none is needed.
    pub database_password_file: PathBuf,
    /// The file with the certificates of the authorities that vouch for its server; absolute. Empty: no
    /// TLS.
    pub database_ca: PathBuf,
    /// How long a source other than the file may take to answer.
    pub source_timeout: Duration,
    /// Threads that verify passwords, 1 to [`HASH_THREADS_MAX`]. Each holds the memory of a hash
    /// (19 MiB) while it works.
    pub hash_threads: usize,
    /// Sessions of one user at a time, unless the user has a number of their own; 0: any number.
    pub sessions_per_user: u32,
    /// How long a verified password is accepted without another hash; zero: never.
    pub remember: Duration,
    /// Where the server keeps how much each user stores; absolute.
    pub state: PathBuf,
    /// Whether users may act as accounts of this host.
    pub system: bool,
    /// Accounts with a lower user ID are none of people's, and nobody acts as them; at least 1.
    pub system_uid_min: u32,
    /// Whether accounts of this host need a shell of /etc/shells.
    pub require_shell: bool,
    /// The service that PAM is asked by: a file of /etc/pam.d.
    pub pam_service: String,
}

impl Config {
    /// Whether PAM is asked for users of the server or of a virtual host.
    pub fn asks_pam(&self) -> bool {
        let is_pam = |kind: &SourceKind| match kind {
            #[cfg(feature = "pam")]
            SourceKind::Pam => true,
            _ => false,
        };
        let hosts = self.hosts.iter().map(|host| &host.users);
        let mut all = hosts.chain([&self.users]);
        all.any(|users| users.enabled && users.sources.iter().any(is_pam))
    }
}

impl Anonymous {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("enabled", &mut self.enabled, units::switch);
        section.read("root", &mut self.root, units::absolute_path);
        rights::read(section, &mut self.rights);
        self.quota.read(section);
        section.read("folders", &mut self.folders, folders::folders);
        self.allowance.read(section);
        self.allowance.volume.read(section);
        self.files.read(section);
    }
}

impl Users {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("enabled", &mut self.enabled, units::switch);
        section.read("sources", &mut self.sources, sources);
        section.read("file", &mut self.file, units::absolute_path);
        section.read("htpasswd", &mut self.htpasswd, path_or_none);
        section.read("program", &mut self.program, path_or_none);
        section.read("http", &mut self.http, web_address);
        section.read("database", &mut self.database, Database::read);
        let password_file = &mut self.database_password_file;
        section.read("database_password_file", password_file, path_or_none);
        section.read("database_ca", &mut self.database_ca, path_or_none);
        section.read("source_timeout", &mut self.source_timeout, |value| {
            units::duration(value, Duration::from_millis(1))
        });
        section.read("sessions_per_user", &mut self.sessions_per_user, |value| {
            limits::bounded(value, 0, limits::SESSIONS_MAX)
        });
        section.read("state", &mut self.state, units::absolute_path);
        section.read("hash_threads", &mut self.hash_threads, |value| {
            units::number(value, 1, HASH_THREADS_MAX as u64).map(|threads| threads as usize)
        });
        section.read("remember", &mut self.remember, |value| {
            units::duration(value, Duration::ZERO)
        });
        section.read("system", &mut self.system, units::switch);
        section.read("system_uid_min", &mut self.system_uid_min, |value| {
            limits::bounded(value, 1, UID_MAX)
        });
        section.read("require_shell", &mut self.require_shell, units::switch);
        section.read("pam_service", &mut self.pam_service, pam_service);
    }

    /// Where users come from, in the order of asking, for people.
    pub fn places(&self) -> String {
        let place = |kind: &SourceKind| match kind {
            SourceKind::File => self.file.display().to_string(),
            SourceKind::Htpasswd => self.htpasswd.display().to_string(),
            SourceKind::Program => self.program.display().to_string(),
            SourceKind::Shadow => "the host's shadow file".to_owned(),
            #[cfg(feature = "pam")]
            SourceKind::Pam => "PAM".to_owned(),
            // Its address may hold a password.
            SourceKind::Http => "a web service".to_owned(),
            SourceKind::Database => {
                let database = self.database.as_ref();
                database.map_or_else(String::new, ToString::to_string)
            }
        };
        let places: Vec<String> = self.sources.iter().map(place).collect();
        places.join(", ")
    }

    /// Drops places that were taken over from `inherited` for sources that are not asked here.
    pub(super) fn forget_unused_places(&mut self, inherited: &Self) {
        let asks = |kind| self.sources.contains(&kind);
        let (program, http) = (asks(SourceKind::Program), asks(SourceKind::Http));
        if !asks(SourceKind::Htpasswd) && self.htpasswd == inherited.htpasswd {
            self.htpasswd = PathBuf::new();
        }
        let database = asks(SourceKind::Database);
        if !program && self.program == inherited.program {
            self.program = PathBuf::new();
        }
        if !http && self.http == inherited.http {
            self.http = String::new();
        }
        if !database && self.database == inherited.database {
            self.database = None;
            self.database_password_file = PathBuf::new();
            self.database_ca = PathBuf::new();
        }
    }

    /// What a source needs and does not have; `section` is where these users are written.
    pub(super) fn contradictions(&self, section: &str) -> Vec<Problem> {
        let needs = [
            (
                SourceKind::Htpasswd,
                self.htpasswd.as_os_str().is_empty(),
                "htpasswd",
            ),
            (
                SourceKind::Program,
                self.program.as_os_str().is_empty(),
                "program",
            ),
            (SourceKind::Http, self.http.is_empty(), "http"),
            (SourceKind::Database, self.database.is_none(), "database"),
        ];
        let mut problems = Vec::new();
        for (kind, is_missing, key) in needs {
            let is_asked = self.sources.contains(&kind);
            let (name, key) = (kind.name(), format!("{section}.{key}"));
            if is_asked && is_missing {
                let message = format!("{name:?} is one of the sources, and this is not set");
                problems.push(Problem::new(key, message).hint("set it, or take the source out"));
            } else if !is_asked && !is_missing {
                let message = "has no effect: it is not one of the sources";
                let hint = format!("add {name:?} to {section}.sources, in the order of asking");
                problems.push(Problem::new(key, message).hint(hint));
            }
        }
        let of_host = self.sources.iter().find(|kind| kind.is_of_host());
        if let Some(kind) = of_host.filter(|_| !self.system) {
            let message = format!(
                "{:?} has accounts of this host, as which nobody acts: users.system is off",
                kind.name()
            );
            let problem = Problem::new(format!("{section}.sources"), message);
            problems.push(problem.hint("set users.system to true"));
        }
        problems.extend(self.of_no_server(section));
        problems
    }

    /// What is said of the server of a database that is not on one, or not on one that is reached so.
    fn of_no_server(&self, section: &str) -> Vec<Problem> {
        let database = self.database.as_ref();
        let is_server = matches!(database, Some(Database::PostgreSql(_)));
        let is_local = database.is_some_and(Database::has_local_socket);
        let has_ca = !self.database_ca.as_os_str().is_empty();
        let mut problems = Vec::new();
        for (key, path) in [
            ("database_password_file", &self.database_password_file),
            ("database_ca", &self.database_ca),
        ] {
            if !path.as_os_str().is_empty() && !is_server {
                let message = "has no effect: the database is not on a PostgreSQL server";
                problems.push(Problem::new(format!("{section}.{key}"), message));
            }
        }
        if has_ca && is_local {
            let message = "the database is reached by a UNIX socket, which has no TLS";
            problems.push(Problem::new(format!("{section}.database_ca"), message));
        }
        if !has_ca && database.is_some_and(Database::wants_tls) {
            let message = "the address asks for TLS, and nothing says who vouches for the server";
            let problem = Problem::new(format!("{section}.database_ca"), message);
            problems.push(problem.hint(Database::CA_HINT));
        }
        problems
    }
}

fn path_or_none(value: &Value<'_>) -> Result<PathBuf, Wrong> {
    match value.get_ref().as_str() {
        Some("") => Ok(PathBuf::new()),
        _ => units::absolute_path(value),
    }
}

fn sources(value: &Value<'_>) -> Result<Vec<SourceKind>, Wrong> {
    let mut sources = Vec::new();
    for element in rights::list(value, |text| Ok(text.to_owned()))? {
        let known = SourceKind::NAMES.iter().find(|(name, _)| *name == element);
        let Some((_, kind)) = known else {
            if element == "pam" {
                let wrong = Wrong::new("this ringftpd was built without PAM");
                return Err(wrong.hint("build it with --features pam, which takes libpam"));
            }
            let names: Vec<&str> = SourceKind::NAMES.iter().map(|(name, _)| *name).collect();
            let wrong = Wrong::new(format!("{element:?} is no source of users"));
            return Err(wrong.hint(format!("sources are {}", names.join(", "))));
        };
        if sources.contains(kind) {
            return Err(Wrong::new(format!("{element:?} is listed twice")));
        }
        sources.push(*kind);
    }
    match sources.is_empty() {
        false => Ok(sources),
        true => {
            Err(Wrong::new("no source of users").hint("to let none in, set users.enabled to false"))
        }
    }
}

fn web_address(value: &Value<'_>) -> Result<String, Wrong> {
    let text = units::text(value, "http://127.0.0.1:8080/login")?;
    match text.strip_prefix("http://") {
        _ if text.is_empty() => Ok(String::new()),
        Some(rest) if !rest.is_empty() && text.bytes().all(|byte| byte.is_ascii_graphic()) => {
            Ok(text.to_owned())
        }
        // The text may hold a password.
        _ => Err(Wrong::new(
            "this is not an address such as http://127.0.0.1:8080/login",
        )),
    }
}

fn pam_service(value: &Value<'_>) -> Result<String, Wrong> {
    let text = units::text(value, "ringftpd")?;
    let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-_.".contains(&byte);
    match text.bytes().all(is_plain) && !text.is_empty() && !text.starts_with('.') {
        true => Ok(text.to_owned()),
        false => Err(Wrong::new(format!(
            "{text:?} is no name of a file of /etc/pam.d"
        ))),
    }
}

/// The highest user ID (-1 means none, setresuid(2)), as far as the number of a key goes.
const UID_MAX: u32 = i32::MAX.cast_unsigned();

/// With more, logins alone could take every CPU and more than 1 GiB of memory.
pub const HASH_THREADS_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use crate::config::Config;

    fn refusal(text: &str) -> String {
        let parsed = Config::parse(&format!("[users]\n{text}\n"), "test");
        parsed.expect_err(text).to_string()
    }

    #[test]
    fn accounts_of_the_host_need_to_be_acted_as() {
        let text = "sources = [\"shadow\"]";
        let told = refusal(text);
        assert!(told.contains("users.system is off"), "{told}");
        let on = format!("[users]\n{text}\nsystem = true\n");
        let config = Config::parse(&on, "test").expect("valid");
        assert!(config.users.sources[0].is_of_host());
    }

    #[test]
    fn pam_takes_a_program_that_was_built_with_it_and_a_name() {
        if cfg!(not(feature = "pam")) {
            let told = refusal("system = true\nsources = [\"file\", \"pam\"]");
            for part in ["was built without PAM", "--features pam"] {
                assert!(told.contains(part), "{told}");
            }
        }
        for name in ["", "../passwd", "a b", ".x"] {
            let told = refusal(&format!("pam_service = \"{name}\""));
            assert!(told.contains("/etc/pam.d"), "{told}");
        }
    }

    #[cfg(feature = "pam")]
    #[test]
    fn pam_wants_root_and_a_restart_when_it_is_asked_for_the_first_time() {
        let parse = |text: &str| Config::parse(text, "test").expect("valid");
        let off = parse("[users]\nsystem = true\n");
        let on = parse("[users]\nsystem = true\nsources = [\"file\", \"pam\"]\n");
        let of_host = parse(
            "[users]\nsystem = true\n[host.x]\nnames = [\"x\"]\n[host.x.users]\nsources = [\"pam\"]\n",
        );
        assert!(!off.asks_pam() && on.asks_pam() && of_host.asks_pam());
        assert_eq!(off.restart_needed(&on), ["users.sources"]);
        assert!(on.restart_needed(&off).is_empty());
        for (root, warnings) in [(false, 1), (true, 0)] {
            let checked = on.check_host(&crate::config::Host {
                cpus: vec![0],
                root,
                acts_as_others: true,
            });
            let told = checked.warnings.iter();
            let told = told.filter(|warning| warning.key == "users.sources");
            assert_eq!(told.count(), warnings);
        }
    }

    #[test]
    fn sources_have_what_they_need_and_nothing_else() {
        let refusals: &[(&str, &str, &[&str])] = &[
            (
                "[users]\nsources = [\"fiel\"]",
                "2:11",
                &[
                    "\"fiel\" is no source of users",
                    "sources are file, htpasswd, program, http, shadow",
                ],
            ),
            (
                "[users]\nsources = [\"file\", \"file\"]",
                "2:11",
                &["listed twice"],
            ),
            (
                "[users]\nsources = [\"program\"]",
                "1:2",
                &["users.program", "not set"],
            ),
            (
                "[users]\nhttp = \"http://[::1]:8080/\"",
                "2:8",
                &["users.http", "has no effect", "add \"http\""],
            ),
            (
                "[users]\nhttp = \"https://a b\"",
                "2:8",
                &["is not an address such as"],
            ),
            (
                "[users]\nsources = [\"database\"]",
                "1:2",
                &["users.database", "not set"],
            ),
            (
                "[users]\ndatabase = \"sqlite:/x\"",
                "2:12",
                &["users.database", "has no effect", "add \"database\""],
            ),
            (
                "[users]\nsources = [\"database\"]\ndatabase = \"sqlite:/x\"\ndatabase_password_file = \"/y\"",
                "4:26",
                &["has no effect", "not on a PostgreSQL server"],
            ),
            (
                "[users]\nsources = [\"database\"]\ndatabase = \"sqlite:/x\"\ndatabase_ca = \"/y\"",
                "4:15",
                &["has no effect", "not on a PostgreSQL server"],
            ),
            (
                "[users]\nsources = [\"database\"]\ndatabase = \"postgresql://x@/x?host=/run\"\n\
                 database_ca = \"/y\"",
                "4:15",
                &["users.database_ca", "UNIX socket"],
            ),
            (
                "[users]\nsources = [\"database\"]\ndatabase = \"postgresql://x@db/x?sslmode=require\"",
                "1:2",
                &["users.database_ca", "asks for TLS"],
            ),
        ];
        for (text, place, parts) in refusals {
            let error = Config::parse(text, "test").expect_err(text).to_string();
            assert!(error.contains(&format!("test:{place}: ")), "{error}");
            for part in *parts {
                assert!(error.contains(part), "{part}: {error}");
            }
        }
    }
}
