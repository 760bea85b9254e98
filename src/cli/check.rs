//! `ringftpd check`: what `serve` would do, without doing it.

use std::fmt::Write;

use super::serve::{self, Resolved, Source};
use super::survey::{self, Survey};
use super::{EXIT_FAILED, Failure, ServeArgs, print};
use crate::auth;
use crate::config::{Announce, Config, FailedUpload, Problem, UploadPolicy, duration_text, rights};
use crate::server::KernelTls;

pub(super) fn run(args: &ServeArgs) -> Result<(), Failure> {
    let Resolved { config, source } = serve::resolve(args).map_err(|failure| Failure {
        code: EXIT_FAILED,
        ..failure
    })?;
    // Whoever looks may be allowed less than the server will be.
    let mut survey = survey::survey(&config, true);
    if config.users.system && !auth::may_act_as_others() {
        let message = "this process may not act as other accounts of the host, as the server must";
        let hint = "start that as root with server.user set, or with CAP_SETUID and CAP_SETGID";
        let warning = Problem::new("users.system", message).hint(hint);
        survey.warnings.push(warning);
    }
    let name = source.name();
    let mut warnings = String::new();
    for warning in survey.config_warnings.iter().chain(&survey.warnings) {
        let _ = writeln!(warnings, "warning: {warning:#}");
    }
    if !survey.problems.is_empty() {
        let failure = Failure::problems(&name, &survey.problems);
        let text = if warnings.is_empty() {
            failure.text
        } else {
            format!("{warnings}\n{}", failure.text)
        };
        return Err(Failure {
            code: EXIT_FAILED,
            text,
        });
    }
    let title = match source {
        Source::File(_) => format!("{name}: good. It would serve so:\n"),
        Source::Directory(_) => format!("{name}: no configuration file. It would be served so:\n"),
    };
    print(&format!("{title}{}{warnings}", summary(&config, &survey)))
}

/// What a server with this configuration does, a line for each of its sections.
fn summary(config: &Config, survey: &Survey) -> String {
    let mut out = String::new();
    for (topic, text) in [
        ("control", control(config, survey)),
        ("data", data(config, survey)),
        ("logins", logins(config, survey)),
        ("uploads", uploads(config)),
        ("limits", limits(config)),
        ("tls", tls(config)),
        ("runs as", runs_as(config)),
    ] {
        if text.is_empty() {
            continue;
        }
        // Writing to a String does not fail.
        let _ = writeln!(out, "  {topic:<8} {text}");
    }
    out
}

fn control(config: &Config, survey: &Survey) -> String {
    let addresses: Vec<String> = config
        .server
        .listen
        .iter()
        .map(ToString::to_string)
        .collect();
    let cpus: Vec<String> = survey.cpus.iter().map(ToString::to_string).collect();
    let cores = counted(cpus.len(), "core");
    format!(
        "{} on {cores} (CPU {})",
        addresses.join(", "),
        cpus.join(", ")
    )
}

fn data(config: &Config, survey: &Survey) -> String {
    let data = &config.data;
    let mut parts = Vec::new();
    let announced = data.own.passive_address.as_ref();
    let announced = announced.filter(|announce| **announce != Announce::Control);
    let announced = announced.map_or_else(String::new, |address| format!(" as {address}"));
    let cores = survey.cpus.len().max(1);
    let mut told = Vec::new();
    for pool in config.passive_pools() {
        let Some(ports) = &pool.ports else { continue };
        let counts: Vec<usize> = pool.parts(cores).iter().map(Vec::len).collect();
        let least = counts.iter().min().copied().unwrap_or_default();
        let count = match counts.iter().max() {
            Some(most) if most - least > 1 => format!("{counts:?} ports per core"),
            _ => format!("{} per core", counted(least, "port")),
        };
        let text = format!("passive {ports}{announced} ({count})");
        // Addresses mostly have the same ports.
        if !told.contains(&text) {
            told.push(text);
        }
    }
    parts.append(&mut told);
    match (data.active, data.active_source_port) {
        (true, 0) => parts.push("active from any port".to_owned()),
        (true, port) => parts.push(format!("active from port {port}")),
        (false, _) => {}
    }
    parts.join("; ")
}

fn logins(config: &Config, survey: &Survey) -> String {
    let mut parts = Vec::new();
    if config.anonymous.enabled {
        let access = rights::text(config.anonymous.rights.everywhere);
        parts.push(format!(
            "anonymous {access} in {}",
            config.anonymous.root.display()
        ));
    }
    if config.users.enabled {
        let users = counted(survey.users, "user");
        parts.push(format!("{users} of {}", config.users.places()));
    }
    parts.join("; ")
}

fn uploads(config: &Config) -> String {
    let files = &config.files;
    let visible = match files.uploads {
        UploadPolicy::Whole => "visible when whole",
        UploadPolicy::InPlace => "written in place",
    };
    let failed = match files.failed_upload {
        FailedUpload::Discard => "discarded",
        FailedUpload::Keep => "kept",
    };
    format!(
        "{visible}; broken ones are {failed}; umask {:03o}",
        files.umask
    )
}

fn limits(config: &Config) -> String {
    let limits = &config.limits;
    let sessions = match limits.sessions {
        Some(sessions) => format!("{sessions} sessions"),
        None => "sessions as the descriptor limit bears".to_owned(),
    };
    let per_ip = match limits.sessions_per_ip {
        Some(sessions) => format!("{sessions} per address"),
        None => "any number per address".to_owned(),
    };
    format!(
        "{sessions}, {per_ip}; login within {}, idle {}, stalled {}",
        duration_text(limits.login_timeout),
        duration_text(limits.idle_timeout),
        duration_text(limits.stall_timeout),
    )
}

/// The server looks at the kernel with rights that who looks here may not have.
fn tls(config: &Config) -> String {
    KernelTls::probe(config).map_or_else(String::new, |found| found.to_string())
}

fn runs_as(config: &Config) -> String {
    let own = match (&config.server.user, &config.server.group) {
        (Some(user), Some(group)) => format!("{user}:{group}"),
        (Some(user), None) => user.clone(),
        (None, _) => "who starts it".to_owned(),
    };
    match config.users.system {
        true => format!("{own}, and acts as accounts of this host for users who have one"),
        false => own,
    }
}

fn counted(count: usize, noun: &str) -> String {
    let plural = if count == 1 { "" } else { "s" };
    format!("{count} {noun}{plural}")
}
