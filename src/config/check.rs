//! Checks across keys, and of a configuration against the machine.

use std::net::SocketAddr;

use super::{Config, Cores, Problem};

/// What a configuration is checked against.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Host {
    /// The CPUs that the process may run on (sched_getaffinity(2)).
    pub cpus: Vec<usize>,
    /// The process runs as root.
    pub root: bool,
    /// The process may act as other accounts of the host.
    pub acts_as_others: bool,
}

/// The verdict of [`Config::check`].
#[derive(Clone, Debug, Default, Eq, PartialEq)]
pub struct Checked {
    /// With any of these the server must not start.
    pub problems: Vec<Problem>,
    /// Worth telling the operator.
    pub warnings: Vec<Problem>,
}

impl Config {
    /// Keys that contradict each other, whatever the machine.
    pub(super) fn contradictions(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if !self.anonymous.enabled && !self.users.enabled {
            problems.push(
                Problem::new(
                    "users.enabled",
                    "nobody could log in: no users and no anonymous",
                )
                .hint("set users.enabled or anonymous.enabled to true"),
            );
        }
        if !self.data.passive && !self.data.active {
            problems.push(
                Problem::new(
                    "data.active",
                    "neither passive nor active: nothing could be moved",
                )
                .hint("set data.passive or data.active to true"),
            );
        }
        if self.server.group.is_some() && self.server.user.is_none() {
            problems.push(
                Problem::new("server.group", "has no effect without server.user")
                    .hint("set server.user too"),
            );
        }
        problems.extend(self.users.contradictions("users"));
        problems.extend(self.host_contradictions());
        problems.extend(self.passive_contradictions());
        problems.extend(self.tls_contradictions());
        let threads = match &self.server.cores {
            Cores::All => None,
            Cores::Count(count) => Some(count.get()),
            Cores::Set(set) => Some(set.cpus().len()),
        };
        problems.extend(
            threads
                .into_iter()
                .flat_map(|threads| self.slices_for(threads)),
        );
        problems
    }

    pub(super) fn check_host(&self, host: &Host) -> Checked {
        let mut checked = Checked::default();
        let absent: Vec<String> = match &self.server.cores {
            Cores::Set(set) => set
                .cpus()
                .iter()
                .filter(|cpu| !host.cpus.contains(cpu))
                .map(usize::to_string)
                .collect(),
            _ => Vec::new(),
        };
        if !absent.is_empty() {
            let message = format!("CPU {} is not one this process may use", absent.join(", "));
            let hint = format!("allowed are {:?}; see taskset(1), AllowedCPUs=", host.cpus);
            checked
                .problems
                .push(Problem::new("server.cores", message).hint(hint));
        }
        match &self.server.cores {
            Cores::All => checked.problems.extend(self.slices_for(host.cpus.len())),
            Cores::Count(count) if count.get() > host.cpus.len() => {
                let message = format!("{count} threads share {} CPUs", host.cpus.len());
                let hint = "more threads than CPUs gain nothing; \"all\" takes one each";
                checked
                    .warnings
                    .push(Problem::new("server.cores", message).hint(hint));
            }
            _ => {}
        }
        self.check_privileges(host, &mut checked);
        checked
    }

    fn check_privileges(&self, host: &Host, checked: &mut Checked) {
        if self.users.system && !host.acts_as_others {
            let message = "this process may not act as other accounts of the host";
            let hint = "start it as root with server.user set, or with CAP_SETUID and CAP_SETGID \
                        (AmbientCapabilities= in the unit)";
            let problem = Problem::new("users.system", message).hint(hint);
            checked.problems.push(problem);
        }
        if self.asks_pam() && !host.root {
            let message = "PAM is asked without root, by which most of its modules fail";
            let hint = "start the server as root with server.user set";
            let warning = Problem::new("users.sources", message).hint(hint);
            checked.warnings.push(warning);
        }
        match (&self.server.user, host.root) {
            (None, true) => {
                let problem = Problem::new("server.user", "not set, so the server would stay root")
                    .hint(
                        "set the user to become, such as user = \"ftp\", or start it as that user",
                    );
                let exposed = |address: SocketAddr| !address.ip().to_canonical().is_loopback();
                if self.server.listeners().any(|(_, address)| exposed(address)) {
                    checked.problems.push(problem);
                } else {
                    checked.warnings.push(problem);
                }
            }
            (Some(user), false) => {
                let message = format!("{user:?} has no effect: only root can become another user");
                checked.warnings.push(Problem::new("server.user", message));
            }
            _ => {}
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_configuration_is_checked_against_the_machine() {
        let host = |root| Host {
            cpus: vec![0, 1],
            root,
            acts_as_others: root,
        };
        let check = |text: &str, root| {
            let config = Config::parse(text, "test").unwrap_or_else(|error| panic!("{error}"));
            let checked = config.check(&host(root));
            let keys = |problems: &[Problem]| {
                problems
                    .iter()
                    .map(|problem| problem.key.clone())
                    .collect::<Vec<_>>()
                    .join(" ")
            };
            (keys(&checked.problems), keys(&checked.warnings))
        };
        let loopback = "[server]\nlisten = [\"127.0.0.1:2121\", \"[::1]:2121\"]\n";
        for (text, root, problems, warnings) in [
            ("", false, "", ""),
            ("", true, "server.user", ""),
            (loopback, true, "", "server.user"),
            (
                "[server]\nlisten = [\"[::ffff:127.0.0.1]:21\"]",
                true,
                "",
                "server.user",
            ),
            ("[server]\nuser = \"ftp\"", true, "", ""),
            ("[server]\nuser = \"ftp\"", false, "", "server.user"),
            ("[users]\nsystem = true", false, "users.system", ""),
            ("[server]\ncores = \"1-2\"", false, "server.cores", ""),
            ("[server]\ncores = 3", false, "", "server.cores"),
            (
                "[data]\npassive_ports = \"2000\"",
                false,
                "data.passive_ports",
                "",
            ),
            (
                "[data]\npassive_ports = \"2000\"\npassive = false",
                false,
                "",
                "",
            ),
        ] {
            let expected = (problems.to_owned(), warnings.to_owned());
            assert_eq!(check(text, root), expected, "{text:?} root: {root}");
        }
    }
}
