//! `ringftpd user`: virtual users from the command line.

mod input;
mod place;

use std::collections::BTreeSet;
use std::ops::ControlFlow;
use std::path::{Path, PathBuf};

use clap::{Args, Subcommand, ValueEnum};
use toml::{Table, Value};

use super::{EXIT_FAILED, Failure, print, print_while_read};
use crate::auth::import::{self, Format, Imported, Restrictions};
use crate::auth::store::{Change, Entry, Store, StoreError};
use crate::auth::{NameError, User, UserName, keys_of};
use crate::config::rights;
use crate::proto::rights::{Pattern, Right, RightSet, right_named};
use input::{parse_setting, read_password};
use place::{Kind, PlaceArgs};

#[derive(Args, Debug)]
pub(super) struct UserArgs {
    #[command(subcommand)]
    command: UserCommand,

    #[command(flatten)]
    place: PlaceArgs,
}

#[derive(Debug, Subcommand)]
enum UserCommand {
    /// Add a user; the password is asked for twice, or read from standard input
    Add(AddArgs),
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
    /// Copy all users from one store to the other; who exists there is left alone
    Copy {
        /// Where they are
        #[arg(long, value_enum)]
        from: Kind,
        /// Where they are to be
        #[arg(long, value_enum)]
        to: Kind,
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
    /// Change keys of a user, such as quota='10 GiB' or enabled=false
    Set {
        /// The user
        #[arg(value_parser = parse_name)]
        name: UserName,
        /// A key of a user in the users file and its value; without a value the key is taken away
        #[arg(value_name = "KEY=VALUE", required = true, value_parser = parse_setting)]
        changes: Vec<Change>,
    },
    /// Show what a user has, but for the password
    Show {
        /// The user
        #[arg(value_parser = parse_name)]
        name: UserName,
    },
    /// List the users with their access and directories, and who of them cannot log in now
    List,
    /// Delete a user; the user's files stay
    Del {
        /// The user
        #[arg(value_parser = parse_name)]
        name: UserName,
    },
    /// Make the tables of a database, or bring them up to date; commands that add users do so, too
    Migrate,
}

#[derive(Args, Debug)]
struct AddArgs {
    /// 1 to 64 of A-Z a-z 0-9 . _ @ -
    #[arg(value_parser = parse_name)]
    name: UserName,
    /// The directory that the user sees as / [default: that of the section default of the users
    /// file]
    #[arg(long, value_name = "DIR")]
    root: Option<PathBuf>,
    /// What the user may do there [default: that of the section default of the users file, or
    /// read-write]
    #[arg(long, value_enum)]
    access: Option<AccessArg>,
    /// What the user may not do: list, read, create, overwrite, delete, rename, mkdir, chmod; dotfiles
    /// hides names that begin with a dot
    #[arg(long, value_name = "RIGHT,…", value_delimiter = ',', value_parser = parse_right)]
    deny: Vec<&'static str>,
    /// Names and paths that do not exist for the user, such as ".*" or /private
    #[arg(long, value_name = "PATTERN,…", value_delimiter = ',', value_parser = parse_pattern)]
    hide: Vec<String>,
    /// How much the user may store, such as "10 GiB"
    #[arg(long, value_name = "SIZE")]
    quota: Option<String>,
    /// How many files the user may store
    #[arg(long, value_name = "N")]
    quota_files: Option<u32>,
    /// Any other key of a user in the users file; may be repeated
    #[arg(long, value_name = "KEY=VALUE", value_parser = parse_setting)]
    set: Vec<Change>,
    /// Read the password from standard input, one line, even if that is a terminal
    #[arg(long)]
    password_stdin: bool,
}

impl AddArgs {
    /// The keys of the user, all but the password; `default` are those of the section default.
    fn keys(&self, default: &Table) -> Result<Table, Failure> {
        let text = |text: &str| Value::String(text.to_owned());
        let list = |words: Vec<&str>| Value::Array(words.into_iter().map(text).collect());
        let mut keys = Table::new();
        if let Some(root) = &self.root {
            let root = std::path::absolute(root).map_err(|error| Failure::operating(&error))?;
            keys.insert(
                "root".to_owned(),
                text(root.to_str().ok_or_else(|| not_utf8(&root))?),
            );
        }
        let usual = (!default.contains_key("access")).then_some(AccessArg::ReadWrite);
        let access = self.access.or(usual);
        let access = access.map(|access| text(rights::words(access.into()).0));
        let hide = self.hide.iter().map(String::as_str).collect();
        let (deny, hide) = (list(self.deny.clone()), list(hide));
        for (key, value) in [
            ("access", access),
            ("deny", Some(deny).filter(|_| !self.deny.is_empty())),
            ("hide", Some(hide).filter(|_| !self.hide.is_empty())),
            ("quota", self.quota.as_deref().map(text)),
            (
                "quota_files",
                self.quota_files.map(|it| Value::Integer(it.into())),
            ),
        ] {
            keys.extend(value.map(|value| (key.to_owned(), value)));
        }
        for (key, value) in &self.set {
            keys.remove(key);
            keys.extend(value.clone().map(|value| (key.clone(), value)));
        }
        Ok(keys)
    }
}

fn not_utf8(path: &Path) -> Failure {
    let path = path.display();
    Failure::usage(format!("ringftpd: the directory {path} is not UTF-8"))
}

#[derive(Clone, Copy, Debug, ValueEnum)]
enum AccessArg {
    /// Download and list
    ReadOnly,
    /// Upload, change and delete too
    ReadWrite,
    /// Upload without seeing anything
    UploadOnly,
    /// Nothing: what `rules` of the user allow
    None,
}

impl From<AccessArg> for RightSet {
    fn from(access: AccessArg) -> Self {
        match access {
            AccessArg::ReadOnly => Self::READ_ONLY,
            AccessArg::ReadWrite => Self::READ_WRITE,
            AccessArg::UploadOnly => Self::UPLOAD_ONLY,
            AccessArg::None => Self::NONE,
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

fn parse_right(text: &str) -> Result<&'static str, String> {
    let names = Right::NAMES.iter().map(|(name, _)| *name);
    let mut names = names.chain(["dotfiles"]);
    names
        .find(|name| *name == text)
        .ok_or_else(|| "no such right".to_owned())
}

fn parse_pattern(text: &str) -> Result<String, String> {
    match Pattern::parse(text) {
        Some(_) => Ok(text.to_owned()),
        None => Err("not a pattern of paths".to_owned()),
    }
}

pub(super) fn run(args: UserArgs) -> Result<(), Failure> {
    let UserArgs { command, place } = args;
    let mut store = match &command {
        UserCommand::Copy { to, .. } => place.store_of(*to)?,
        _ => place.store()?,
    };
    let store = store.as_mut();
    match command {
        UserCommand::Add(args) => add(store, &args),
        UserCommand::Import {
            format,
            from,
            root,
            access,
            dry_run,
        } => {
            let text = std::fs::read_to_string(&from).map_err(|error| {
                let hint = match error.kind() {
                    std::io::ErrorKind::InvalidData => {
                        "; of a database made by db_load, give the text that it was made from"
                    }
                    _ => "",
                };
                Failure::usage(format!("ringftpd: {}: {error}{hint}", from.display()))
            })?;
            let home = |name: &UserName| {
                let root = root.as_ref()?;
                Some(PathBuf::from(root.replace("{user}", name.as_str())))
            };
            let imported = import::read(format.into(), &text, access.into(), home);
            take_over(store, imported, &from, dry_run)
        }
        UserCommand::Copy { from, to, dry_run } => {
            if from == to {
                return Err(Failure::usage("ringftpd: --from and --to are the same"));
            }
            let users = place.store_of(from)?.entries()?;
            add_all(store, users, dry_run, String::new())
        }
        UserCommand::Passwd {
            name,
            password_stdin,
        } => {
            known(store, &name)?;
            let password = read_password(&name, password_stdin)?;
            store.change(&name, &[("password".to_owned(), Some(password))])?;
            print(&format!("The password of {name} is changed.\n"))
        }
        UserCommand::Set { name, changes } => {
            store.change(&name, &changes)?;
            print(&format!("{name} is changed in {}.\n", store.title()))
        }
        UserCommand::Show { name } => show(store, &name),
        UserCommand::List => list(store),
        UserCommand::Del { name } => {
            store.delete(&name)?;
            print(&format!(
                "{name} is deleted from {}; the files stay.\n",
                store.title()
            ))
        }
        UserCommand::Migrate => {
            let told = match store.migrate()? {
                true => "is set up",
                false => "is as it should be",
            };
            print(&format!("{} {told}.\n", store.title()))
        }
    }
}

/// The keys of a user who has to be there.
fn known(store: &mut dyn Store, name: &UserName) -> Result<Table, Failure> {
    let place = store.title();
    let found = store.find(name)?;
    let name = name.clone();
    found.ok_or_else(|| StoreError::Unknown { name, place }.into())
}

fn add(store: &mut dyn Store, args: &AddArgs) -> Result<(), Failure> {
    let name = &args.name;
    let default = store.default_keys()?;
    let mut keys = args.keys(&default)?;
    let root = keys.get("root").or_else(|| default.get("root"));
    let Some(root) = root.and_then(Value::as_str) else {
        let text = "ringftpd: --root DIR names the directory that the user sees as /; without it, \
            the section [default] of the users file has to have a root";
        return Err(Failure::usage(text));
    };
    let root = PathBuf::from(root.replace("{user}", name.as_str()));
    store.migrate()?;
    // Before the password is asked for, not after.
    if store.find(name)?.is_some() {
        return Err(StoreError::Exists(name.clone()).into());
    }
    let password = read_password(name, args.password_stdin)?;
    keys.insert("password".to_owned(), password);
    let mut all = default;
    all.extend(keys.clone());
    let access = access_of(&all);
    store.add(name, keys)?;
    let mut told = format!(
        "{name} is added to {}: {} in {}\n",
        store.title(),
        rights::text(access),
        root.display()
    );
    if !root.is_dir() {
        told.push_str(
            "That directory does not exist yet; until it does, this user cannot log in.\n",
        );
    }
    print(&told)
}

/// What the keys let a user do everywhere.
fn access_of(keys: &Table) -> RightSet {
    let access = keys.get("access").and_then(Value::as_str);
    let named = RightSet::NAMES
        .iter()
        .find(|(name, _)| Some(*name) == access);
    let denied = keys.get("deny").and_then(Value::as_array);
    let denied = denied.into_iter().flatten().filter_map(Value::as_str);
    let access = named.map_or(RightSet::READ_ONLY, |(_, set)| *set);
    denied
        .filter_map(right_named)
        .fold(access, RightSet::without)
}

fn take_over(
    store: &mut dyn Store,
    imported: Imported,
    from: &Path,
    dry_run: bool,
) -> Result<(), Failure> {
    let Imported {
        users,
        refused,
        dropped,
    } = imported;
    let entry = |(user, restrictions): (User, Restrictions)| {
        let mut keys = keys_of(&user).map_err(|root| not_utf8(&root))?;
        let Restrictions { networks, hours } = restrictions;
        for (key, list) in [("networks", networks), ("hours", hours)] {
            if !list.is_empty() {
                let list = list.into_iter().map(Value::String).collect();
                keys.insert(key.to_owned(), Value::Array(list));
            }
        }
        Ok::<_, Failure>((user.name, keys))
    };
    let users = users.into_iter().map(entry).collect::<Result<_, _>>()?;
    let mut told = String::new();
    for (what, users) in &dropped {
        told.push_str(&format!("not taken over: {what} ({users})\n"));
    }
    add_all(store, users, dry_run, told)?;
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

/// Adds users, or says only whom it would; `told` is told, too.
fn add_all(
    store: &mut dyn Store,
    users: Vec<Entry>,
    dry_run: bool,
    told: String,
) -> Result<(), Failure> {
    let count = users.len();
    let (known, would) = match dry_run {
        false => (store.add_all(users)?, ""),
        true => {
            let mut there = BTreeSet::new();
            store.each(&mut |name, _| {
                there.insert(name.to_owned());
                ControlFlow::Continue(())
            })?;
            let names = users.into_iter().map(|(name, _)| name);
            let known = names.filter(|name| there.contains(name.as_str()));
            (known.collect(), "would be ")
        }
    };
    let lines = known
        .iter()
        .map(|name| format!("{name} exists and is left alone\n"));
    let added = count - known.len();
    let users = if added == 1 { "user" } else { "users" };
    let lines: String = lines.collect();
    print(&format!(
        "{lines}{told}{added} {users} {would}added to {}\n",
        store.title()
    ))
}

/// The keys of a user as the users file has them, and those that come from its section `default`.
fn show(store: &mut dyn Store, name: &UserName) -> Result<(), Failure> {
    let mut keys = known(store, name)?;
    let mut default = store.default_keys()?;
    keys.remove("password");
    default.retain(|key, _| !keys.contains_key(key));
    let mut out = format!("# {name} of {}\n{}", store.title(), lines(&keys));
    if !default.is_empty() {
        out.push_str("# of the section [default] of the users file\n");
        out.push_str(&lines(&default));
    }
    print(&out)
}

fn lines(keys: &Table) -> String {
    let line = |(key, value): (&String, &Value)| format!("{key} = {value}\n");
    keys.iter().map(line).collect()
}

fn list(store: &mut dyn Store) -> Result<(), Failure> {
    let width = store.widest()?;
    let mut out = String::new();
    let mut printed = Ok(true);
    store.each(&mut |name, user| {
        match user {
            Ok(user) => {
                // A directory's name is shown so that it cannot write on the operator's terminal.
                let root = user.root.display().to_string();
                out.push_str(&format!(
                    "{name:<width$}  {:<10}  {}{}\n",
                    rights::text(user.rights.everywhere),
                    root.escape_debug(),
                    standing(user)
                ));
            }
            Err(reason) => {
                let name = name.escape_debug().to_string();
                let reason = reason.escape_debug();
                out.push_str(&format!("{name:<width$}  cannot log in: {reason}\n"));
            }
        }
        if out.len() >= PRINT_LENGTH {
            printed = print_while_read(&out);
            out.clear();
        }
        match printed {
            Ok(true) => ControlFlow::Continue(()),
            _ => ControlFlow::Break(()),
        }
    })?;
    match printed? {
        true => print(&out),
        false => Ok(()),
    }
}

/// That a user cannot log in now, and why.
fn standing(user: &User) -> String {
    match user.judge_now() {
        Ok(()) => String::new(),
        Err(reason) => format!("  ({reason})"),
    }
}

impl From<StoreError> for Failure {
    fn from(error: StoreError) -> Self {
        Self::operating(&error)
    }
}

/// A list is printed in pieces of this length, since it may have thousands of users.
const PRINT_LENGTH: usize = 64 << 10;
