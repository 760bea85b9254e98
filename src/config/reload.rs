//! What of a new configuration a running server can take over.

use super::Config;

impl Config {
    /// The keys that differ from `other` and take a restart.
    pub fn restart_needed(&self, other: &Self) -> Vec<&'static str> {
        let mut keys = Vec::new();
        let mut compare = |differs: bool, key: &'static str| {
            if differs {
                keys.push(key);
            }
        };
        let (server, new) = (&self.server, &other.server);
        // Sixty-four addresses, those that were left among them.
        compare(new.listen_after(server).is_none(), "server.listen");
        compare(server.cores != new.cores, "server.cores");
        compare(server.user != new.user, "server.user");
        compare(server.group != new.group, "server.group");
        compare(
            server.drain_timeout != new.drain_timeout,
            "server.drain_timeout",
        );
        compare(server.steering != new.steering, "server.steering");
        let (limits, new) = (&self.limits, &other.limits);
        compare(
            limits.sessions_waiting != new.sessions_waiting,
            "limits.sessions_waiting",
        );
        compare(self.tls.kernel != other.tls.kernel, "tls.kernel");
        let (users, new) = (&self.users, &other.users);
        compare(users.state != new.state, "users.state");
        compare(users.system != new.system, "users.system");
        compare(users.pam_service != new.pam_service, "users.pam_service");
        // Until then nobody gets in by it.
        compare(other.asks_pam() && !self.asks_pam(), "users.sources");
        compare(self.log.format != other.log.format, "log.format");
        compare(self.admin != other.admin, "admin");
        keys
    }

    /// This configuration as far as a server that runs with `running` can take it over.
    pub fn as_reloaded(&self, running: &Self) -> Self {
        let mut config = self.clone();
        config.server.clone_from(&running.server);
        if let Some((listen, left)) = self.server.listen_after(&running.server) {
            (config.server.listen, config.server.left) = (listen, left);
        }
        config.server.greeting.clone_from(&self.server.greeting);
        config.server.balance = self.server.balance;
        config.limits.sessions_waiting = running.limits.sessions_waiting;
        config.tls.kernel = running.tls.kernel;
        config.users.state.clone_from(&running.users.state);
        config.users.system = running.users.system;
        config
            .users
            .pam_service
            .clone_from(&running.users.pam_service);
        for host in &mut config.hosts {
            host.users.system = running.users.system;
            host.users
                .pam_service
                .clone_from(&running.users.pam_service);
        }
        config.log.format = running.log.format;
        config.admin.clone_from(&running.admin);
        config
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_takes_a_restart_is_named_and_left_as_it_is() {
        let running = Config::default();
        let mut new = Config::default();
        new.data.ports_per_client = 7;
        new.server.greeting = "Hello.".to_owned();
        new.users.enabled = false;
        new.anonymous.enabled = true;
        new.limits.commands_per_second = 9;
        new.limits.total_rates.down = std::num::NonZeroU64::new(9);
        new.anonymous.allowance.sessions = Some(9);
        new.users.sessions_per_user = 9;
        new.files.min_free = 9;
        new.users.hash_threads += 1;
        new.log.level = super::super::LogLevel::Debug;
        assert!(running.restart_needed(&new).is_empty());
        assert_eq!(new.as_reloaded(&running), new);
        new.server.group = Some("ftp".to_owned());
        new.users.state.push("elsewhere");
        assert_eq!(
            running.restart_needed(&new),
            ["server.group", "users.state"]
        );
        let taken = new.as_reloaded(&running);
        assert_eq!(taken.data.ports_per_client, 7);
        assert_eq!(taken.server.group, None);
        assert!(running.restart_needed(&taken).is_empty());
    }

    #[test]
    fn addresses_come_and_go_and_those_that_stay_keep_their_places() {
        let with = |addresses: &[&str]| {
            let mut config = Config::default();
            config.server.listen = addresses.iter().map(|it| it.parse().unwrap()).collect();
            config
        };
        let listeners = |config: &Config| {
            let listeners = config.server.listeners();
            listeners
                .map(|(place, it)| format!("{place} {it}"))
                .collect::<Vec<_>>()
        };
        let first = with(&["127.0.0.1:21", "127.0.0.2:21"]);
        let second = with(&["127.0.0.3:21", "127.0.0.2:21"]).as_reloaded(&first);
        assert_eq!(listeners(&second), ["1 127.0.0.2:21", "2 127.0.0.3:21"]);
        // Those that were left have no passive ports.
        let pools = second.passive_pools();
        let with_ports: Vec<bool> = pools.iter().map(|pool| pool.ports.is_some()).collect();
        assert_eq!(with_ports, [false, true, true]);
        let third = with(&["127.0.0.1:21"]).as_reloaded(&second);
        assert_eq!(listeners(&third), ["0 127.0.0.1:21"]);
        assert_eq!(third.server.left.len(), 2);
        // A wildcard that was left serves nobody.
        let first = with(&["0.0.0.0:21"]);
        let second = with(&["127.0.0.1:21"]).as_reloaded(&first);
        assert_eq!(second.pool_of(&second.passive_pools(), 1), Some(1));

        let many: Vec<String> = (1..=64).map(|it| format!("127.0.1.{it}:21")).collect();
        let many = with(&many.iter().map(String::as_str).collect::<Vec<_>>());
        assert_eq!(third.restart_needed(&many), ["server.listen"]);
        assert_eq!(many.as_reloaded(&third).server, third.server);
        assert_eq!(listeners(&many).len(), super::super::LISTENERS_MAX);
    }
}
