//! `ringftpd serve`: from arguments to a configuration, and on to the server.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::path::{Path, PathBuf};

use super::survey::{self, Survey};
use super::{Failure, ServeArgs, print};
use crate::auth;
use crate::config::{Admin, Anonymous, Config, Data, LogFormat, Own, PortRange, Server, Users};
use crate::server::{self, Reloaded, Summary};
use crate::telemetry::log;

/// A configuration and where it comes from.
#[derive(Debug)]
pub(super) struct Resolved {
    pub(super) config: Config,
    pub(super) source: Source,
}

/// Where a configuration comes from.
#[derive(Debug, Eq, PartialEq)]
pub(super) enum Source {
    /// A file.
    File(PathBuf),
    /// The embedded configuration for serving this directory.
    Directory(PathBuf),
}

impl Source {
    /// What messages call it.
    pub(super) fn name(&self) -> String {
        match self {
            Self::File(path) | Self::Directory(path) => path.display().to_string(),
        }
    }
}

pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let resolved = resolve(args)?;
    let config = resolved.config;
    let format = match config.log.format {
        LogFormat::Text => log::Format::Text,
        LogFormat::Json => log::Format::Json,
    };
    let Survey {
        problems, warnings, ..
    } = survey::survey(&config, auth::may_act_as_others());
    if !problems.is_empty() {
        return Err(Failure::problems(&resolved.source.name(), &problems));
    }
    server::hold_rights_back(&config).map_err(|error| Failure::operating(&error))?;
    let guard = log::init(config.log.level.as_str(), format)
        .map_err(|error| Failure::usage(format!("ringftpd: {error}")))?;
    for warning in warnings {
        tracing::warn!("{warning}");
    }
    let source = resolved.source;
    let again = || read_again(args);
    let result = server::run(config, &again, |summary| announce(summary, &source, format));
    // The log's last lines come before the verdict.
    drop(guard);
    result.map_err(|error| Failure::operating(&error))
}

/// The configuration once more, for a server that runs.
fn read_again(args: &ServeArgs) -> Result<Reloaded, String> {
    let Resolved { config, source } = resolve(args).map_err(|failure| failure.text)?;
    if let Source::Directory(_) = source {
        return Err("there is no configuration file that could have changed".to_owned());
    }
    let Survey {
        problems, warnings, ..
    } = survey::survey(&config, true);
    match problems.is_empty() {
        true => Ok(Reloaded { config, warnings }),
        false => Err(Failure::problems(&source.name(), &problems).text),
    }
}

/// The configuration that the arguments ask for.
pub(super) fn resolve(args: &ServeArgs) -> Result<Resolved, Failure> {
    let default = Path::new(Config::DEFAULT_PATH);
    let source = match (&args.directory, &args.config) {
        (Some(directory), _) => Source::Directory(directory.clone()),
        (None, Some(file)) => Source::File(file.clone()),
        (None, None) if default.exists() => Source::File(default.to_owned()),
        (None, None) => Source::Directory(PathBuf::from(".")),
    };
    let (mut config, source) = match source {
        Source::File(path) => (Config::load(&path)?, Source::File(path)),
        Source::Directory(path) => {
            let path = directory(&path)?;
            (embedded(&path), Source::Directory(path))
        }
    };
    if !args.listen.is_empty() {
        config.server.listen.clone_from(&args.listen);
    }
    if let Some(ports) = &args.passive_ports {
        config.data.own.passive_ports = Some(ports.clone());
        // Slices of other ports would not suit these.
        config.data.own.passive_slices = None;
    }
    if let Some(cores) = &args.cores {
        config.server.cores = cores.clone();
    }
    if let Some(user) = &args.user {
        config.server.user = Some(user.clone());
    }
    Ok(Resolved { config, source })
}

/// The absolute path of a directory to serve.
fn directory(path: &Path) -> Result<PathBuf, Failure> {
    let failed = |reason: &str| {
        let hint = "\n  hint: name a directory that exists, or a file by --config FILE";
        Failure::usage(format!(
            "ringftpd: cannot serve {}: {reason}{hint}",
            path.display()
        ))
    };
    let absolute = path
        .canonicalize()
        .map_err(|error| failed(&error.to_string()))?;
    if absolute.is_dir() {
        Ok(absolute)
    } else {
        Err(failed("it is not a directory"))
    }
}

/// The embedded configuration: `directory` to anonymous clients of this machine, read-only.
fn embedded(directory: &Path) -> Config {
    Config {
        server: Server {
            listen: vec![SocketAddr::from((Ipv4Addr::LOCALHOST, EMBEDDED_PORT))],
            ..Server::default()
        },
        data: Data {
            own: Own {
                passive_ports: Some(EMBEDDED_PASSIVE_PORTS.into()),
                ..Data::default().own
            },
            // Port 20 takes a privilege that who just shares a directory does not have.
            active_source_port: 0,
            ..Data::default()
        },
        anonymous: Anonymous {
            enabled: true,
            root: directory.to_owned(),
            ..Anonymous::default()
        },
        users: Users {
            enabled: false,
            ..Users::default()
        },
        admin: embedded_admin(),
        ..Config::default()
    }
}

/// Where users have their sockets (XDG Base Directory Specification), if they have such a folder;
/// otherwise root's.
fn embedded_admin() -> Admin {
    let admin = Admin::default();
    match std::env::var_os("XDG_RUNTIME_DIR").map(PathBuf::from) {
        Some(folder) if folder.is_absolute() => Admin {
            socket: folder.join("ringftpd/admin.sock"),
            ..admin
        },
        _ => Admin {
            enabled: nix::unistd::Uid::effective().is_root(),
            ..admin
        },
    }
}

/// Tells that the server serves now, and what: to people on standard output, to machines in the
/// log.
fn announce(summary: &Summary, source: &Source, format: log::Format) {
    let told = match (format, source) {
        (log::Format::Json, _) => {
            let control = summary
                .control
                .iter()
                .map(ToString::to_string)
                .collect::<Vec<_>>();
            tracing::info!(
                control = control.join(","),
                sessions_max = summary.sessions_max,
                "serving"
            );
            return;
        }
        (log::Format::Text, Source::File(_)) => format!("{summary}\n"),
        (log::Format::Text, Source::Directory(directory)) => {
            format!("{summary}\n\n{}", invitation(directory, &summary.control))
        }
    };
    if print(&told).is_err() {
        // Clients are served all the same.
        tracing::warn!("the start-up summary could not be written to standard output");
    }
}

/// What is told to who serves a directory.
fn invitation(directory: &Path, control: &[SocketAddr]) -> String {
    let urls: Vec<String> = control.iter().map(|address| url(*address)).collect();
    format!(
        "Serving {} to anonymous, read-only: {}\n",
        directory.display().to_string().escape_debug(),
        urls.join(" ")
    )
}

/// The URL by which a client on this machine gets there.
fn url(address: SocketAddr) -> String {
    let ip = match address.ip() {
        IpAddr::V4(ip) if ip.is_unspecified() => IpAddr::V4(Ipv4Addr::LOCALHOST),
        IpAddr::V6(ip) if ip.is_unspecified() => IpAddr::V6(Ipv6Addr::LOCALHOST),
        ip => ip,
    };
    match (address.port(), ip) {
        (21, IpAddr::V4(ip)) => format!("ftp://{ip}/"),
        (21, IpAddr::V6(ip)) => format!("ftp://[{ip}]/"),
        (port, ip) => format!("ftp://{}/", SocketAddr::new(ip, port)),
    }
}

/// Unprivileged, and what other small servers take.
const EMBEDDED_PORT: u16 = 2121;

/// Below the ports that the kernel gives to outgoing connections (32768 and up, ip(7)), and enough
/// for as many cores.
const EMBEDDED_PASSIVE_PORTS: PortRange = match PortRange::new(21_000, 21_255) {
    Some(range) => range,
    None => panic!("in order and above 1023"),
};

#[cfg(test)]
mod tests {
    use super::*;
    use crate::config::Host;
    use crate::proto::rights::RightSet;

    #[test]
    fn the_embedded_configuration_is_read_only_and_stays_on_this_machine() {
        let config = embedded(Path::new("/srv"));
        assert_eq!(config.anonymous.rights, RightSet::READ_ONLY.into());
        assert!(
            config
                .server
                .listen
                .iter()
                .all(|address| address.ip().is_loopback())
        );
        let checked = config.check(&Host {
            cpus: (0..256).collect(),
            root: false,
            acts_as_others: false,
        });
        assert_eq!(
            (checked.problems, checked.warnings),
            (Vec::new(), Vec::new())
        );
    }

    #[test]
    fn urls_lead_to_the_listener() {
        for (address, expected) in [
            ("127.0.0.1:2121", "ftp://127.0.0.1:2121/"),
            ("0.0.0.0:2121", "ftp://127.0.0.1:2121/"),
            ("[::]:2121", "ftp://[::1]:2121/"),
            ("[::1]:21", "ftp://[::1]/"),
            ("192.0.2.1:21", "ftp://192.0.2.1/"),
        ] {
            let address = address.parse().expect("an address");
            assert_eq!(url(address), expected, "{address}");
        }
    }
}
