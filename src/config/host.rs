//! `[host.NAME]`: virtual hosts, each with users and limits of its own where it says so.

use std::collections::BTreeMap;
use std::net::SocketAddr;

use super::section::{Document, Section, Value, Wrong};
use super::{
    Allowance, Anonymous, CertificateFiles, Config, HostCertificates, Problem, Users, rights,
    server, tls, units,
};

/// One of several servers that share addresses and cores. What its sections do not say is as the
/// server has it.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct VirtualHost {
    /// The name of its section: how logs, quotas and commands call it.
    pub name: String,
    /// The names by which clients ask for it (RFC 7151), in lower case.
    pub names: Vec<String>,
    /// The addresses of `server.listen` at which it is found without being asked for.
    pub addresses: Vec<SocketAddr>,
    /// The text of its 220 greeting.
    pub greeting: String,
    /// Its certificates for TLS; none: those of the server.
    pub certificates: Vec<CertificateFiles>,
    /// What all its sessions may take together.
    pub allowance: Allowance,
    /// Its access without an account.
    pub anonymous: Anonymous,
    /// Its users with passwords.
    pub users: Users,
}

impl VirtualHost {
    /// Reads all virtual hosts; `config` is what the server has.
    pub(super) fn read_all(
        document: &mut Document<'_>,
        keys: &[&str],
        config: &Config,
    ) -> Vec<Self> {
        let with_nested = [keys, &["anonymous", "users"]].concat();
        let mut hosts = Vec::new();
        for (name, mut section) in document.subsections("host", &with_nested) {
            let mut host = Self {
                name,
                names: Vec::new(),
                addresses: Vec::new(),
                greeting: config.server.greeting.clone(),
                certificates: Vec::new(),
                allowance: Allowance::default(),
                anonymous: config.anonymous.clone(),
                users: config.users.clone(),
            };
            host.read(&mut section);
            let mut anonymous = section.nested("anonymous", super::keys::of("anonymous"));
            host.anonymous.read(&mut anonymous);
            document.close(anonymous);
            let own: Vec<&str> = super::keys::of("users")
                .iter()
                .filter(|key| !OF_THE_SERVER.contains(*key))
                .copied()
                .collect();
            let mut users = section.nested("users", &own);
            let (has_own_sources, inherited) = (users.has("sources"), host.users.clone());
            host.users.read(&mut users);
            if has_own_sources {
                host.users.forget_unused_places(&inherited);
            }
            document.close(users);
            document.close(section);
            hosts.push(host);
        }
        hosts
    }

    /// Its certificates, if it has any.
    pub(super) fn own_certificates(&self) -> Option<HostCertificates> {
        (!self.certificates.is_empty()).then(|| HostCertificates {
            host: self.name.clone(),
            names: self.names.clone(),
            certificates: self.certificates.clone(),
        })
    }

    fn read(&mut self, section: &mut Section<'_>) {
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        if !self.name.bytes().all(is_plain) || self.name.len() > NAME_LENGTH_MAX {
            section.refuse(
                "is not a name for a host's section",
                "1 to 64 of A-Z a-z 0-9 . _ -; the names that clients use are the key `names`",
            );
        }
        section.read("names", &mut self.names, names);
        section.read("addresses", &mut self.addresses, addresses);
        section.read("greeting", &mut self.greeting, server::greeting);
        section.read("certificates", &mut self.certificates, tls::certificates);
        self.allowance.read(section);
        if !section.has("names") && !section.has("addresses") {
            section.refuse(
                "has neither names nor addresses, so nobody finds it",
                "names = [\"ftp.example.org\"], or addresses = [\"192.0.2.1:21\"]",
            );
        }
    }
}

impl Config {
    /// What contradicts other hosts or the server.
    pub(super) fn host_contradictions(&self) -> Vec<Problem> {
        let mut problems = Vec::new();
        if self.hosts.len() > HOSTS_MAX {
            let message = format!("more than {HOSTS_MAX} virtual hosts");
            problems.push(Problem::new("host", message));
        }
        let mut names = BTreeMap::new();
        let mut addresses = BTreeMap::new();
        for host in &self.hosts {
            let section = format!("host.{}", host.name);
            for name in &host.names {
                if let Some(other) = names.insert(name, &host.name) {
                    let message = format!("{name:?} is a name of [host.{other}] too");
                    problems.push(Problem::new(format!("{section}.names"), message));
                }
            }
            for address in &host.addresses {
                let key = format!("{section}.addresses");
                if !self.server.listen.contains(address) {
                    let message = format!("{address} is not listened on");
                    let hint = "write it as one of server.listen";
                    problems.push(Problem::new(key, message).hint(hint));
                } else if let Some(other) = addresses.insert(address, &host.name) {
                    let message = format!("{address} belongs to [host.{other}] too");
                    problems.push(Problem::new(key, message));
                }
            }
            // What is wrong with the server's own users has been said.
            if host.users != self.users {
                let own = host.users.contradictions(&format!("{section}.users"));
                problems.extend(own);
            }
            if !host.users.enabled && !host.anonymous.enabled {
                let message = "nobody could log in: no users and no anonymous";
                problems.push(Problem::new(section, message));
            }
        }
        problems
    }

    /// The virtual host to which whoever comes to this address of `server.listen` belongs at first;
    /// `None`: the server itself.
    pub fn host_at(&self, listener: usize) -> Option<&VirtualHost> {
        let address = self.server.listen.get(listener)?;
        self.hosts
            .iter()
            .find(|host| host.addresses.contains(address))
    }
}

fn names(value: &Value<'_>) -> Result<Vec<String>, Wrong> {
    rights::list(value, |name| {
        // The root of the DNS, if it is written out.
        let name = name.strip_suffix('.').unwrap_or(name);
        let is_plain = |byte: u8| byte.is_ascii_alphanumeric() || b"-._".contains(&byte);
        match name.bytes().all(is_plain) && (1..=NAME_BYTES_MAX).contains(&name.len()) {
            true => Ok(name.to_ascii_lowercase()),
            false => Err(format!("{name:?} is not the name of a host")),
        }
    })
}

fn addresses(value: &Value<'_>) -> Result<Vec<SocketAddr>, Wrong> {
    let Some(list) = value.get_ref().as_array() else {
        let expected = "a list of addresses, such as [\"192.0.2.1:21\"]";
        return Err(units::wrong_type(value, expected));
    };
    list.iter()
        .map(|element| server::listen_address(element).map_err(|wrong| wrong.at(element.span())))
        .collect()
}

/// Keys of `[users]` that all hosts have in common: there is one set of threads, one state, one set of
/// privileges, and one process that asks PAM.
const OF_THE_SERVER: &[&str] = &["hash_threads", "state", "system", "pam_service"];

/// As long as the names of users, with which it is written.
const NAME_LENGTH_MAX: usize = 64;

/// RFC 1035 §2.3.4.
const NAME_BYTES_MAX: usize = 253;

/// A login with each looks at one more users file.
const HOSTS_MAX: usize = 1000;

#[cfg(test)]
mod tests {
    use super::*;

    fn parse(text: &str) -> Result<Config, String> {
        Config::parse(text, "test").map_err(|error| error.to_string())
    }

    #[test]
    fn a_host_has_what_the_server_has_unless_it_says_otherwise() {
        let config = parse(
            "[server]\nlisten = [\"192.0.2.1:21\", \"192.0.2.2:21\"]\ngreeting = \"Hello.\"\n\
             [users]\nremember = \"1 s\"\nfile = \"/all\"\n\
             [host.shop]\nnames = [\"FTP.Shop.example\"]\nsessions = 5\ndown = \"1 MiB/s\"\n\
             [host.shop.users]\nfile = \"/shop\"\n\
             [host.shop.anonymous]\nenabled = true\nroot = \"/srv/shop\"\n\
             [host.lab]\naddresses = [\"192.0.2.2:21\"]\ngreeting = \"The lab.\"\n",
        )
        .expect("valid");
        let [lab, shop] = &config.hosts[..] else {
            panic!("{:?}", config.hosts);
        };
        assert_eq!((&lab.name[..], &lab.greeting[..]), ("lab", "The lab."));
        assert_eq!(
            (&lab.users, &lab.anonymous),
            (&config.users, &config.anonymous)
        );
        assert_eq!(shop.names, ["ftp.shop.example"]);
        assert_eq!(shop.greeting, "Hello.");
        assert_eq!(shop.allowance.sessions, Some(5));
        assert_eq!(shop.users.file.to_str(), Some("/shop"));
        assert_eq!(shop.users.remember, config.users.remember);
        assert!(shop.anonymous.enabled && !config.anonymous.enabled);
        let at = [0, 1, 2].map(|listener| config.host_at(listener).map(|host| &host.name[..]));
        assert_eq!(at, [None, Some("lab"), None]);
    }

    #[test]
    fn a_host_may_ask_fewer_sources_than_the_server() {
        let config = parse(
            "[users]\nsources = [\"file\", \"program\"]\nprogram = \"/x\"\n\
             [host.a]\nnames = [\"a.example.\"]\n[host.a.users]\nsources = [\"file\"]\n",
        )
        .expect("valid");
        assert_eq!(config.hosts[0].names, ["a.example"]);
        assert!(config.hosts[0].users.program.as_os_str().is_empty());
    }

    #[test]
    fn hosts_that_cannot_be_are_refused_at_their_places() {
        for (text, parts) in [
            (
                "[host.a]\ngreeting = \"x\"\n",
                &["test:1:", "neither names nor addresses"][..],
            ),
            (
                "[host.a]\nnames = [\"x\"]\n[host.b]\nnames = [\"X\"]\n",
                &["test:4:9", "a name of [host.a] too"],
            ),
            (
                "[host.a]\naddresses = [\"192.0.2.1:21\"]\n",
                &["test:2:13", "not listened on"],
            ),
            (
                "[host.a]\nnames = [\"a b\"]\n",
                &["test:2:10", "not the name of a host"],
            ),
            (
                "[host.\"a/b\"]\nnames = [\"x\"]\n",
                &["test:1:", "not a name for a host's section"],
            ),
            (
                "[host.a]\nnames = [\"x\"]\n[host.a.users]\nstate = \"/x\"\n",
                &["test:4:1", "host.a.users.state", "no such key"],
            ),
            (
                "[host.a]\nnames = [\"x\"]\n[host.a.users]\nenabled = false\n",
                &["test:", "nobody could log in"],
            ),
            (
                "[host.a]\nnames = [\"x\"]\n[host.a.users]\nsources = [\"program\"]\n",
                &["test:", "host.a.users.program", "not set"],
            ),
            (
                "[host.a]\nnames = [\"x\"]\nusers = 1\n",
                &["test:3:9", "host.a.users", "is a section"],
            ),
        ] {
            let error = parse(text).expect_err(text);
            for part in parts {
                assert!(error.contains(part), "{text}: no {part:?} in {error}");
            }
        }
    }
}
