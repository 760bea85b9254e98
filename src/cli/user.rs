//! `ringftpd user`: virtual users from the command line.

use std::io::{self, BufRead, IsTerminal};
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use clap::{Args, Subcommand, ValueEnum};
use nix::unistd::{Group, Uid, User as Account};

use super::{EXIT_FAILED, Failure, print};
use crate::auth::edit::{self, EditError, Readers};
use crate::auth::import::{self, Format, Imported};
use crate::auth::{NameError, StoredHash, User, UserName, Validity};
use crate::config::{Allowance, Config, QuotaLimits, rights};
use crate::proto::rights::{Pattern, Right, RightSet, Rights, right_named};

#[derive(Args, Debug)]
pub(super) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,

    /// The users file [default: users.file of the configuration]
    #[arg(long, global = true, value_name = "FILE", conflicts_with = "config")]
    file: Option<PathBuf>,

    /// The configuration that names the users file [default: /etc/ringftpd/ringftpd.toml if it
    /// exists]
    #[arg(short, long, global = true, value_name = "FILE")]
    config: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user; the password is asked for twice, or read from standard input
    Add {
        /// 1 to 64 of A-Z a-z 0-9 . _ @ -
        #[arg(value_parser = parse_name)]
        name: UserName,
        /// The directory that the user sees as /
        #[arg(long, value_name = "DIR")]
        root: PathBuf,
        /// What the user may do there
        #[arg(long, value_enum, default_value_t = AccessArg::ReadWrite)]
        access: AccessArg,
        /// What the user may not do: list, read, create, overwrite, delete, rename, mkdir, chmod
        #[arg(long, value_name = "RIGHT,…", value_delimiter = ',', value_parser = parse_right)]
        deny: Vec<Right>,
        /// Names and paths that do not exist for the user, such as ".*" or /private
        #[arg(long, value_name = "PATTERN,…", value_delimiter = ',', value_parser = parse_pattern)]
        hide: Vec<Pattern>,
        /// Read the password from standard input, one line, even if that is a terminal
        #[arg(long)]
        password_stdin: bool,
    },
    /// Take over the users of another server, with their passwords; who exists is left alone
    Import {
        /// What kind of file it is
        #[arg(value_enum)]
        format: FormatArg,
        /// The file
        #[arg(value_name = "FILE")]
        from: PathBuf,
        /// The directory of users whom the file gives none; {user} stands for the name
        #[arg(long, value_name = "DIR")]
        root: Option<String>,
        /// What the users may do
        #[arg(long, value_enum, default_value_t = AccessArg::ReadWrite)]
        access: AccessArg,
        /// Only say what would be done
        #[arg(long)]
        dry_run: bool,
    },
    /// Change a user's password
    Passwd {
        /// The user
        #[arg(value_parser = parse_name)]
        name: UserName,
        /// Read the password from standard input, one line, even if that is a terminal
        #[arg(long)]
        password_stdin: bool,
    },
    /// List the users with their access and directories, and who of them cannot log in now
    List,
    /// Delete a user; the user's files stay
    Del {
        /// The user
        #[arg(value_parser = parse_name)]
        name: UserName,
    },
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AccessArg {
    /// Download and list
    ReadOnly,
    /// Upload, change and delete too
    ReadWrite,
    /// Upload without seeing anything
    UploadOnly,
}

impl From<AccessArg> for RightSet {
    fn from(access: AccessArg) -> Self {
        match access {
            AccessArg::ReadOnly => Self::READ_ONLY,
            AccessArg::ReadWrite => Self::READ_WRITE,
            AccessArg::UploadOnly => Self::UPLOAD_ONLY,
        }
    }
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum FormatArg {
    /// pureftpd.passwd, as pure-pw writes it
    PureFtpd,
    /// ProFTPD's AuthUserFile: passwd(5) with hashes
    Proftpd,
    /// NAME:HASH, of htpasswd or for pam_pwdfile
    Htpasswd,
    /// Names and passwords in turn, of which db_load makes vsftpd's user database
    Vsftpd,
}

impl From<FormatArg> for Format {
    fn from(format: FormatArg) -> Self {
        match format {
            FormatArg::PureFtpd => Self::PureFtpd,
            FormatArg::Proftpd => Self::Passwd,
            FormatArg::Htpasswd => Self::Htpasswd,
            FormatArg::Vsftpd => Self::Vsftpd,
        }
    }
}

fn parse_name(text: &str) -> Result<UserName, NameError> {
    UserName::parse(text.as_bytes())
}

fn parse_right(text: &str) -> Result<Right, String> {
    right_named(text).ok_or_else(|| "no such right".to_owned())
}

fn parse_pattern(text: &str) -> Result<Pattern, String> {
    Pattern::parse(text).ok_or_else(|| "not a pattern of paths".to_owned())
}

pub(super) fn run(args: UserArgs) -> Result<(), Failure> {
    let (file, readers) = users_file(&args)?;
    match args.command {
        UserCommand::Add {
            name,
            root,
            access,
            deny,
            hide,
            password_stdin,
        } => {
            let denied = |set: RightSet, right: &Right| set.without(*right);
            let rights = Rights {
                everywhere: deny.iter().fold(access.into(), denied),
                rules: Vec::new(),
                hidden: hide,
            };
            add(&file, readers, name, &root, rights, password_stdin)
        }
        UserCommand::Import {
            format,
            from,
            root,
            access,
            dry_run,
        } => {
            let text = std::fs::read_to_string(&from).map_err(|error| {
                Failure::usage(format!("ringftpd: {}: {error}", from.display()))
            })?;
            let home = |name: &UserName| {
                let root = root.as_ref()?;
                Some(PathBuf::from(root.replace("{user}", name.as_str())))
            };
            let imported = import::read(format.into(), &text, access.into(), home);
            take_over(&file, readers, imported, &from, dry_run)
        }
        UserCommand::Passwd {
            name,
            password_stdin,
        } => {
            if edit::list(&file)?.get(&name).is_none() {
                return Err(EditError::Unknown { name, path: file }.into());
            }
            let password = read_password(&name, password_stdin)?;
            edit::set_password(&file, &name, password)?;
            print(&format!("The password of {name} is changed.\n"))
        }
        UserCommand::List => list(&file),
        UserCommand::Del { name } => {
            edit::delete(&file, &name)?;
            print(&format!(
                "{name} is deleted from {}; the files stay.\n",
                file.display()
            ))
        }
    }
}

fn add(
    file: &Path,
    readers: Readers,
    name: UserName,
    root: &Path,
    rights: Rights,
    password_stdin: bool,
) -> Result<(), Failure> {
    let root = std::path::absolute(root).map_err(|error| Failure::operating(&error))?;
    // Before the password is asked for, not after.
    if edit::list(file)?.get(&name).is_some() {
        return Err(EditError::Exists(name).into());
    }
    let password = read_password(&name, password_stdin)?;
    let mut told = format!(
        "{name} is added to {}: {} in {}\n",
        file.display(),
        rights::text(rights.everywhere),
        root.display()
    );
    if !root.is_dir() {
        told.push_str(
            "That directory does not exist yet; until it does, this user cannot log in.\n",
        );
    }
    edit::add(
        file,
        readers,
        User {
            name,
            password,
            root,
            rights: Arc::new(rights),
            quota: QuotaLimits::default(),
            folders: Arc::default(),
            allowance: Allowance::default(),
            validity: Validity::default(),
            system: None,
        },
    )?;
    print(&told)
}

fn take_over(
    file: &Path,
    readers: Readers,
    imported: Imported,
    from: &Path,
    dry_run: bool,
) -> Result<(), Failure> {
    let Imported {
        users,
        refused,
        dropped,
    } = imported;
    let count = users.len();
    let (known, would) = match dry_run {
        false => (edit::add_all(file, readers, users)?, ""),
        true => {
            let list = edit::list(file)?;
            let names = users.into_iter().map(|user| user.name);
            (
                names.filter(|name| list.get(name).is_some()).collect(),
                "would be ",
            )
        }
    };
    let mut told = String::new();
    for name in &known {
        told.push_str(&format!("{name} exists and is left alone\n"));
    }
    for (what, users) in &dropped {
        told.push_str(&format!("not taken over: {what} ({users})\n"));
    }
    let added = count - known.len();
    let file = file.display();
    let users = if added == 1 { "user" } else { "users" };
    told.push_str(&format!("{added} {users} {would}added to {file}\n"));
    print(&told)?;
    if refused.is_empty() {
        return Ok(());
    }
    let lines = refused
        .iter()
        .map(|(line, reason)| format!("{}:{line}: {reason}", from.display()));
    Err(Failure {
        code: EXIT_FAILED,
        text: lines.collect::<Vec<_>>().join("\n"),
    })
}

fn list(file: &Path) -> Result<(), Failure> {
    let users = edit::list(file)?;
    let width = users
        .iter()
        .map(|user| user.name.as_str().len())
        .max()
        .unwrap_or_default();
    let mut out = String::new();
    for user in users.iter() {
        // A directory's name is shown so that it cannot write on the operator's terminal.
        let root = user.root.display().to_string();
        out.push_str(&format!(
            "{:<width$}  {:<10}  {}{}\n",
            user.name.as_str(),
            rights::text(user.rights.everywhere),
            root.escape_debug(),
            standing(user)
        ));
    }
    print(&out)
}

/// That a user cannot log in now, and why.
fn standing(user: &User) -> String {
    match user.judge_now() {
        Ok(()) => String::new(),
        Err(reason) => format!("  ({reason})"),
    }
}

/// The users file, and who may read it if it has to be made.
fn users_file(args: &UserArgs) -> Result<(PathBuf, Readers), Failure> {
    if let Some(file) = &args.file {
        let file = std::path::absolute(file).map_err(|error| Failure::operating(&error))?;
        return Ok((file, Readers::Owner));
    }
    let default = Path::new(Config::DEFAULT_PATH);
    let config = match &args.config {
        Some(path) => Config::load(path)?,
        None if default.exists() => Config::load(default)?,
        None => Config::default(),
    };
    Ok((config.users.file.clone(), readers(&config)))
}

/// A server that gives up root reads the file with its group; one that systemd starts as its user,
/// with the group to which the file's directory belongs.
fn readers(config: &Config) -> Readers {
    if !Uid::effective().is_root() {
        return Readers::Owner;
    }
    let Some(user) = &config.server.user else {
        let directory = config
            .users
            .file
            .parent()
            .and_then(|path| path.metadata().ok());
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

/// Asks twice on a terminal, or takes one line from standard input, and hashes.
fn read_password(name: &UserName, password_stdin: bool) -> Result<StoredHash, Failure> {
    let password = if password_stdin || !io::stdin().is_terminal() {
        one_line(io::stdin().lock())
    } else {
        asked_twice(name)
    };
    let password = password.map_err(|error| {
        Failure::operating(&io::Error::new(
            error.kind(),
            format!("no password: {error}"),
        ))
    })?;
    StoredHash::create(&password).map_err(|error| Failure::usage(format!("ringftpd: {error}")))
}

fn asked_twice(name: &UserName) -> io::Result<Vec<u8>> {
    let first = rpassword::prompt_password(format!("Password for {name}: "))?;
    let second = rpassword::prompt_password("Once more: ")?;
    if first == second {
        Ok(first.into_bytes())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the two differ",
        ))
    }
}

/// The first line, without its end.
fn one_line(input: impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    input.take(STDIN_LINE_MAX).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

impl From<EditError> for Failure {
    fn from(error: EditError) -> Self {
        Self::operating(&error)
    }
}

/// More than the longest password, so that too long ones are refused instead of cut.
const STDIN_LINE_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_from_standard_input_is_one_line_without_its_end() {
        for (input, password) in [
            (&b"secret\n"[..], &b"secret"[..]),
            (b"secret\r\n", b"secret"),
            (b"secret", b"secret"),
            (b" two words \nmore\n", b" two words "),
            (b"\n", b""),
            (b"", b""),
        ] {
            assert_eq!(one_line(input).expect("read"), password);
        }
    }
}
