//! The one list of sections and keys: readers, hints and the structure test go by it.

/// Every section with its keys, in the order of `config/ringftpd.toml`.
pub const KEYS: Schema = &[
    (
        "server",
        &[
            "listen",
            "cores",
            "user",
            "group",
            "greeting",
            "drain_timeout",
            "steering",
            "balance",
        ],
    ),
    (
        "limits",
        &[
            "sessions",
            "sessions_per_ip",
            "sessions_waiting",
            "line_length",
            "login_timeout",
            "login_attempts",
            "login_delay",
            "login_delay_max",
            "login_failures",
            "login_failures_per_user",
            "login_failure_window",
            "lockout",
            "idle_timeout",
            "reply_timeout",
            "stall_timeout",
            "connections_per_minute",
            "commands_per_second",
            "session_down",
            "session_up",
            "ip_down",
            "ip_up",
            "total_down",
            "total_up",
        ],
    ),
    (
        "data",
        &[
            "passive",
            "passive_ports",
            "passive_slices",
            "passive_address",
            "passive_address_for",
            "passive_address_refresh",
            "external_ports",
            "proxy_from",
            "accept_timeout",
            "ports_per_client",
            "peer_check",
            "borrow",
            "active",
            "active_source_port",
            "connect_timeout",
            "fxp_networks",
        ],
    ),
    (
        "listener",
        &[
            "address",
            "passive_ports",
            "passive_slices",
            "passive_address",
            "passive_address_for",
            "external_ports",
            "proxy_from",
            "tls",
        ],
    ),
    (
        "tls",
        &[
            "policy",
            "certificates",
            "min_version",
            "data_resumption",
            "clear_commands",
            "client_certificates",
            "client_ca",
            "client_crls",
            "client_login",
            "handshake_timeout",
            "kernel",
            "renew_keys_after",
        ],
    ),
    ("files", &["umask", "uploads", "failed_upload", "min_free"]),
    (
        "anonymous",
        &[
            "enabled",
            "root",
            "access",
            "deny",
            "hide",
            "rules",
            "quota",
            "quota_files",
            "folders",
            "down",
            "up",
            "sessions",
            "volume",
            "volume_down",
            "volume_up",
            "volume_period",
            "umask",
            "uploads",
            "failed_upload",
        ],
    ),
    (
        "users",
        &[
            "enabled",
            "sources",
            "file",
            "htpasswd",
            "program",
            "http",
            "database",
            "database_password_file",
            "database_ca",
            "source_timeout",
            "hash_threads",
            "sessions_per_user",
            "remember",
            "state",
            "system",
            "system_uid_min",
            "require_shell",
            "pam_service",
        ],
    ),
    (
        "host",
        &[
            "names",
            "addresses",
            "greeting",
            "certificates",
            "down",
            "up",
            "sessions",
        ],
    ),
    ("log", &["level", "format"]),
    ("admin", &["enabled", "socket"]),
];

/// The sections of a kind of file, each with its keys.
pub type Schema = &'static [(&'static str, &'static [&'static str])];

/// The keys of the section `name`.
pub(super) fn of(name: &str) -> &'static [&'static str] {
    let section = KEYS.iter().find(|(section, _)| *section == name);
    section.map_or(&[], |(_, keys)| keys)
}

/// The sections other than `section` that have a key of this name.
pub(crate) fn sections_with(schema: Schema, key: &str, section: &str) -> Vec<&'static str> {
    schema
        .iter()
        .filter(|(name, keys)| *name != section && keys.contains(&key))
        .map(|(name, _)| *name)
        .collect()
}

/// The name nearest to `wrong`, when it is near enough to be a slip of the fingers.
pub(crate) fn nearest<'n>(wrong: &str, names: &[&'n str]) -> Option<&'n str> {
    let wrong = wrong.to_ascii_lowercase().replace('-', "_");
    // An edit in three letters is as far as a slip goes; beyond that the guess misleads.
    let far = (wrong.len() / 3).max(1);
    names
        .iter()
        .map(|name| (distance(wrong.as_bytes(), name.as_bytes()), *name))
        .filter(|(edits, name)| *edits <= far || (wrong.len() >= 4 && name.starts_with(&wrong)))
        .min_by_key(|(edits, _)| *edits)
        .map(|(_, name)| name)
}

/// Edits (insert, delete, replace, swap of neighbours) between two short names.
fn distance(a: &[u8], b: &[u8]) -> usize {
    let a = &a[..a.len().min(NAME_LENGTH_MAX)];
    let mut before: Vec<usize> = Vec::new();
    let mut previous: Vec<usize> = (0..=b.len()).collect();
    for i in 1..=a.len() {
        let mut current = vec![i];
        for j in 1..=b.len() {
            let replace = previous[j - 1] + usize::from(a[i - 1] != b[j - 1]);
            let mut edits = replace.min(previous[j] + 1).min(current[j - 1] + 1);
            if i > 1 && j > 1 && a[i - 1] == b[j - 2] && a[i - 2] == b[j - 1] {
                edits = edits.min(before[j - 2] + 1);
            }
            current.push(edits);
        }
        before = std::mem::replace(&mut previous, current);
    }
    previous[b.len()]
}

/// Longer names are compared by their front: no key is nearly this long.
const NAME_LENGTH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn slips_of_the_fingers_find_the_key_meant() {
        let keys = ["idle_timeout", "login_timeout", "line_length", "sessions"];
        for (wrong, right) in [
            ("idle_timout", Some("idle_timeout")),
            ("idle-timeout", Some("idle_timeout")),
            ("Sessions", Some("sessions")),
            ("sesions", Some("sessions")),
            ("idle", Some("idle_timeout")),
            ("lien_length", Some("line_length")),
            ("banner", None),
            ("", None),
        ] {
            assert_eq!(nearest(wrong, &keys), right, "{wrong}");
        }
    }
}
