//! Looks at the machine with the eyes of a configuration: does everything it names exist?

use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::Path;

use nix::sched::{CpuSet, sched_getaffinity};
use nix::unistd::{AccessFlags, Gid, Group, Pid, Uid, User, access};

use crate::auth::{Authenticator, Identity};
use crate::config::{CPUS_MAX, Config, Database, Host, PortRange, Problem, SourceKind, Users};
use crate::tls::{Keys, Tls};

/// What was found.
#[derive(Debug, Default)]
pub(super) struct Survey {
    /// With any of these the server must not start.
    pub(super) problems: Vec<Problem>,
    /// What [`Config::check`] warns of; the server tells it by itself.
    pub(super) config_warnings: Vec<Problem>,
    /// What else is worth telling the operator.
    pub(super) warnings: Vec<Problem>,
    /// The CPU of each thread.
    pub(super) cpus: Vec<usize>,
    /// How many virtual users there are.
    pub(super) users: usize,
}

/// `acts_as_others`: whether the server may act as other accounts of the host.
pub(super) fn survey(config: &Config, acts_as_others: bool) -> Survey {
    let host = Host {
        cpus: allowed_cpus(),
        root: Uid::effective().is_root(),
        acts_as_others,
    };
    let checked = config.check(&host);
    let mut survey = Survey {
        problems: checked.problems,
        config_warnings: checked.warnings,
        warnings: Vec::new(),
        cpus: config.server.cores.cpus(&host.cpus),
        users: 0,
    };
    let account = survey.account(config);
    survey.anonymous(config);
    survey.users(config, account);
    survey.certificates(config, account);
    for pool in config.passive_pools() {
        for range in pool.ranges() {
            survey.ephemeral_ports(&pool.key, *range);
        }
    }
    // Pools of two addresses may have the same ports.
    survey.warnings.dedup();
    survey
}

impl Survey {
    /// The user and the group to become, if they are set and exist.
    fn account(&mut self, config: &Config) -> Option<(Uid, Gid)> {
        let name = config.server.user.as_ref()?;
        let user = match User::from_name(name) {
            Ok(Some(user)) => user,
            Ok(None) => {
                let message = format!("there is no user {name:?} on this machine");
                let hint = format!("useradd --system --no-create-home {name}");
                self.problems
                    .push(Problem::new("server.user", message).hint(hint));
                return None;
            }
            Err(error) => {
                self.problems
                    .push(Problem::new("server.user", format!("{name:?}: {error}")));
                return None;
            }
        };
        if user.uid.is_root() {
            let problem = Problem::new("server.user", "the server must not stay root")
                .hint("set a user that owns nothing else, such as \"ftp\"");
            self.problems.push(problem);
        }
        let Some(name) = &config.server.group else {
            return Some((user.uid, user.gid));
        };
        if let Ok(Some(group)) = Group::from_name(name) {
            return Some((user.uid, group.gid));
        }
        let message = format!("there is no group {name:?} on this machine");
        self.problems
            .push(Problem::new("server.group", message).hint("create it, or leave it out"));
        None
    }

    /// Whether certificates and keys can be used, and read again by the user to become.
    fn certificates(&mut self, config: &Config, account: Option<(Uid, Gid)>) {
        let problem = |text: String| Problem::new("tls.certificates", text);
        let keys = match Keys::new() {
            Ok(keys) => keys,
            Err(error) => return self.problems.push(problem(error.to_string())),
        };
        match Tls::load(&config.tls, &keys) {
            Ok(None) => return,
            Ok(Some(tls)) => {
                let notes = tls.notes().iter().cloned();
                self.warnings.extend(notes.map(problem));
            }
            Err(errors) => {
                let errors = errors.iter().map(ToString::to_string);
                self.problems.extend(errors.map(problem));
            }
        }
        let Some((uid, gid)) = account else { return };
        for file in config.tls.files() {
            let metadata = fs::metadata(file);
            if metadata.is_ok_and(|metadata| !readable(&metadata, uid, gid)) {
                let text = format!("{} is not readable for server.user", file.display());
                let hint = "it serves, but cannot be loaded again when it is renewed";
                self.warnings.push(problem(text).hint(hint));
            }
        }
        self.warnings.dedup();
    }

    fn anonymous(&mut self, config: &Config) {
        let of_hosts = config.hosts.iter();
        let of_hosts = of_hosts.filter(|host| host.anonymous != config.anonymous);
        let of_hosts = of_hosts.map(|host| (section(&host.name), &host.anonymous));
        for (before, anonymous) in of_hosts.chain([(String::new(), &config.anonymous)]) {
            let reason = not_a_directory(&anonymous.root).filter(|_| anonymous.enabled);
            if let Some(reason) = reason {
                let message = format!("{}: {reason}", anonymous.root.display());
                let hint = "create the directory, or name another one";
                let key = format!("{before}anonymous.root");
                self.problems.push(Problem::new(key, message).hint(hint));
            }
        }
    }

    /// Whether the server can keep the figures of whoever has a quota or a volume.
    fn state(&mut self, config: &Config, account: Option<(Uid, Gid)>, who: &str) {
        let directory = &config.users.state;
        let reason = match fs::metadata(directory) {
            Err(error) => error.to_string(),
            Ok(metadata) if !metadata.is_dir() => "not a directory".to_owned(),
            Ok(metadata) => match account {
                Some((uid, gid)) if !may(&metadata, uid, gid, 0o3) => {
                    "server.user may not write there".to_owned()
                }
                None if access(directory, AccessFlags::W_OK | AccessFlags::X_OK).is_err() => {
                    "not writable for the server".to_owned()
                }
                _ => return,
            },
        };
        let message = format!(
            "{}: {reason}; {who} has a quota or a volume",
            directory.display()
        );
        let owner = account.map_or_else(String::new, |(uid, gid)| format!(" -o {uid} -g {gid}"));
        let hint = format!(
            "install -d -m 700{owner} {}; until then uploads under a quota fail",
            directory.display()
        );
        let problem = Problem::new("users.state", message);
        self.warnings.push(problem.hint(hint));
    }

    fn users(&mut self, config: &Config, account: Option<(Uid, Gid)>) {
        let of_hosts = config.hosts.iter();
        let of_hosts = of_hosts.filter(|host| host.users != config.users);
        let of_hosts = of_hosts.map(|host| (host.name.as_str(), &host.users));
        let all: Vec<(&str, &Users)> = of_hosts.chain([("", &config.users)]).collect();
        let authenticator = Authenticator::new(config);
        let mut counted: Option<Identity> = None;
        for listed in authenticator.users() {
            // Whoever has the same users has been looked at.
            if !all.iter().any(|(host, _)| *host == listed.host) {
                continue;
            }
            if listed.host.is_empty() {
                self.users += listed.count;
            }
            let key = format!("{}{}", section(&listed.host), listed.source.key());
            match listed.users {
                Ok(users) => {
                    self.roots(&key, &users);
                    counted = counted.or_else(|| users.into_iter().find(is_counted));
                }
                // It may be on its way up as well, and the server tries again for each login.
                Err(reason) if listed.source == SourceKind::Database => {
                    let hint = "until it answers, nobody of it can log in";
                    self.warnings.push(Problem::new(key, reason).hint(hint));
                }
                Err(reason) => self.problems.push(Problem::new(key, reason)),
            }
        }
        let anonymous = config.anonymous.enabled
            && (config.anonymous.quota.are_set() || config.anonymous.allowance.volume.are_set());
        match counted {
            Some(user) => self.state(config, account, &user.name),
            None if anonymous => self.state(config, account, "anonymous"),
            None => {}
        }
        for (host, users) in all.into_iter().filter(|(_, users)| users.enabled) {
            self.files(&section(host), users, account);
        }
        for reason in authenticator.account_problems() {
            let problem = Problem::new("users.file", reason);
            match config.users.system {
                true => self
                    .warnings
                    .push(problem.hint("until then this user cannot log in")),
                false => {
                    let hint = "set users.system to true, or take `system` out of the users file";
                    self.problems.push(problem.hint(hint));
                }
            }
        }
        let is_only_source = config.users.sources[..] == [SourceKind::File];
        let is_only_way = config.users.enabled && is_only_source && !config.anonymous.enabled;
        if is_only_way && fs::metadata(&config.users.file).is_err() {
            let file = config.users.file.display();
            let message = format!("{file} does not exist: nobody can log in");
            let hint = "ringftpd user add NAME --root DIR";
            self.warnings
                .push(Problem::new("users.file", message).hint(hint));
        }
    }

    /// Looks whether the server can read the files that users are in.
    fn files(&mut self, section: &str, users: &Users, account: Option<(Uid, Gid)>) {
        let database = match &users.database {
            Some(Database::Sqlite(path)) => ("database", path),
            _ => ("database_password_file", &users.database_password_file),
        };
        let ca = ("database_ca", &users.database_ca);
        let files = [("file", &users.file), ("htpasswd", &users.htpasswd)];
        for (key, path) in [database, ca].into_iter().chain(files) {
            self.readable(&format!("{section}users.{key}"), path, account);
        }
    }

    /// Looks whether users have directories.
    fn roots(&mut self, key: &str, users: &[Identity]) {
        for user in users {
            if let Some(reason) = not_a_directory(&user.root) {
                let message = format!("{}'s root {}: {reason}", user.name, user.root.display());
                let hint = "create it; until then this user cannot log in";
                self.warnings.push(Problem::new(key, message).hint(hint));
            }
        }
    }

    /// Looks whether the server can read a file, if it is there.
    fn readable(&mut self, key: &str, file: &Path, account: Option<(Uid, Gid)>) {
        if let (Ok(metadata), Some((uid, gid))) = (fs::metadata(file), account)
            && !readable(&metadata, uid, gid)
        {
            let message = format!("{} is not readable for server.user", file.display());
            let hint = format!("chgrp {gid} {0} && chmod 640 {0}", file.display());
            self.problems.push(Problem::new(key, message).hint(hint));
        }
    }

    /// Ports that the kernel gives to outgoing connections cannot be bound while they are used,
    /// TIME_WAIT included.
    fn ephemeral_ports(&mut self, key: &str, ports: PortRange) {
        let read = |name: &str| fs::read_to_string(format!("/proc/sys/net/ipv4/{name}"));
        let (Ok(local), Ok(reserved)) =
            (read("ip_local_port_range"), read("ip_local_reserved_ports"))
        else {
            // Without /proc there is nothing to compare with.
            return;
        };
        if let Some((first, last)) = ephemeral_overlap(ports, &local, &reserved) {
            let message = format!(
                "{first}-{last} are also given to outgoing connections, which then block them"
            );
            let hint = format!("sysctl -w net.ipv4.ip_local_reserved_ports={ports}");
            self.warnings.push(Problem::new(key, message).hint(hint));
        }
    }
}

/// What stands before the keys of a virtual host.
fn section(host: &str) -> String {
    match host {
        "" => String::new(),
        _ => format!("host.{host}."),
    }
}

/// The CPUs this process may run on, ascending.
pub(super) fn allowed_cpus() -> Vec<usize> {
    // It fails only where there are more CPUs than CPUS_MAX; CPU 0 is there too.
    let Ok(set) = sched_getaffinity(Pid::from_raw(0)) else {
        return vec![0];
    };
    cpus_of(&set)
}

fn cpus_of(set: &CpuSet) -> Vec<usize> {
    (0..CPUS_MAX.min(CpuSet::count()))
        .filter(|cpu| set.is_set(*cpu).unwrap_or(false))
        .collect()
}

fn not_a_directory(path: &Path) -> Option<String> {
    match fs::metadata(path) {
        Ok(metadata) if metadata.is_dir() => None,
        Ok(_) => Some("is not a directory".to_owned()),
        Err(error) => Some(error.to_string()),
    }
}

/// Whether the file's mode lets this user read it; ACLs and the directories above aside.
fn readable(metadata: &fs::Metadata, uid: Uid, gid: Gid) -> bool {
    may(metadata, uid, gid, 0o4)
}

/// Whether an account has all of these permissions (4: read, 2: write, 1: search).
fn may(metadata: &fs::Metadata, uid: Uid, gid: Gid, permissions: u32) -> bool {
    let shift = if metadata.uid() == uid.as_raw() {
        6
    } else if metadata.gid() == gid.as_raw() {
        3
    } else {
        0
    };
    metadata.mode() >> shift & permissions == permissions
}

/// Whether figures of a user are kept.
fn is_counted(user: &Identity) -> bool {
    user.quota.are_set() || user.allowance.is_some_and(|it| it.volume.are_set())
}

/// The part of `ports` within the kernel's range for outgoing connections, unless all of that is
/// reserved (proc_sys_net(5); ip-sysctl: ip_local_port_range, ip_local_reserved_ports).
fn ephemeral_overlap(ports: PortRange, local: &str, reserved: &str) -> Option<(u16, u16)> {
    let mut ends = local.split_whitespace().map(str::parse::<u16>);
    let (Some(Ok(low)), Some(Ok(high))) = (ends.next(), ends.next()) else {
        return None;
    };
    let (first, last) = (ports.first().max(low), ports.last().min(high));
    let reserved: Vec<(u16, u16)> = reserved
        .trim()
        .split(',')
        .filter_map(|part| {
            let (first, last) = part.split_once('-').unwrap_or((part, part));
            Some((first.parse().ok()?, last.parse().ok()?))
        })
        .collect();
    let kept = |port| {
        reserved
            .iter()
            .any(|(first, last)| (*first..=*last).contains(&port))
    };
    (first <= last && !(first..=last).all(kept)).then_some((first, last))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn passive_ports_are_compared_with_those_of_outgoing_connections() {
        for (ports, reserved, overlap) in [
            ("50000-50999", "\n", Some((50000, 50999))),
            ("50000-50999", "50000-50999\n", None),
            ("50000-50999", "8080,50000-50499,50500-51000\n", None),
            ("50000-50999", "50000-50998\n", Some((50000, 50999))),
            ("32000-33000", "\n", Some((32768, 33000))),
            ("21000-21255", "\n", None),
            ("61000-61999", "\n", None),
        ] {
            let ports = ports.parse().expect("a range");
            assert_eq!(
                ephemeral_overlap(ports, "32768\t60999\n", reserved),
                overlap,
                "{ports}"
            );
        }
        let ports = PortRange::new(2000, 3000).expect("a range");
        assert_eq!(ephemeral_overlap(ports, "", ""), None);
    }

    #[test]
    fn this_process_may_run_somewhere() {
        assert!(!allowed_cpus().is_empty());
    }
}
