//! `ringftpd ports`: the passive ports of a running server, as a table, as JSON, or as advice; and
//! how many ports a server will need.

mod advice;
mod bars;
mod rules;
mod sizing;
mod table;
mod text;

use std::io::{self, IsTerminal};
use std::path::PathBuf;

use clap::Args;

use super::{EXIT_FAILED, Failure, admin, plan, print, watch};
use crate::data::report::Report;

#[derive(Args, Debug)]
pub(super) struct PortsArgs {
    /// The server's admin.socket [default: /run/ringftpd/admin.sock, or
    /// $XDG_RUNTIME_DIR/ringftpd/admin.sock if only that exists]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Say what to change, and why, instead of showing the figures
    #[arg(long, conflicts_with = "json")]
    advise: bool,

    /// Work out how many ports a server will need, from what is known of its load
    #[arg(long, value_name = "KEY=VALUE", num_args = 1.., conflicts_with_all = ["advise", "json", "watch"])]
    plan: Vec<String>,

    /// Print the figures as the server gives them
    #[arg(long)]
    json: bool,

    /// Show them again and again, every 2 seconds or as many as given, until interrupted
    #[arg(
        long,
        value_name = "SECONDS",
        num_args = 0..=1,
        default_missing_value = "2",
        value_parser = clap::value_parser!(u64).range(1..=86_400)
    )]
    watch: Option<u64>,

    /// Draw with ASCII only [default: if the locale is not UTF-8]
    #[arg(long)]
    ascii: bool,
}

/// How the terminal wants it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Look {
    /// Characters in a line.
    width: usize,
    ascii: bool,
    colour: bool,
}

pub(super) fn run(args: &PortsArgs) -> Result<(), Failure> {
    if !args.plan.is_empty() {
        return print(&plan::run(&args.plan)?);
    }
    let socket = admin::socket_path(args.socket.as_deref());
    watch::show(args.watch, !args.json, || {
        shown(args, admin::get(&socket, "/ports")?)
    })
}

/// What is asked for, made of the server's answer.
fn shown(args: &PortsArgs, body: String) -> Result<String, Failure> {
    if args.json {
        let end = if body.ends_with('\n') { "" } else { "\n" };
        return Ok(body + end);
    }
    let report: Report = serde_json::from_str(&body).map_err(|error| Failure {
        code: EXIT_FAILED,
        text: format!(
            "ringftpd: the server's figures are of another kind: {error}\n  hint: is it of another \
             version than this program ({})? --json shows them as they are",
            env!("CARGO_PKG_VERSION")
        ),
    })?;
    Ok(match args.advise {
        true => advice::text(&advice::advise(&report)),
        false => table::table(&report, &Look::of_terminal(args.ascii)),
    })
}

impl Look {
    fn of_terminal(ascii: bool) -> Self {
        let out = io::stdout();
        let set = |name: &str| std::env::var_os(name).is_some_and(|value| !value.is_empty());
        Self {
            // A pipe or a file has no width.
            width: terminal_size::terminal_size_of(&out)
                .map_or(table::WIDE, |(width, _)| usize::from(width.0)),
            ascii: ascii || !is_utf8(|name| std::env::var(name).ok()),
            // https://no-color.org: set and not empty.
            colour: out.is_terminal() && !set("NO_COLOR"),
        }
    }
}

/// Whether the locale writes UTF-8: the first of these that is set and not empty counts
/// (POSIX.1-2017 §8.2).
fn is_utf8(variable: impl Fn(&str) -> Option<String>) -> bool {
    let locale = ["LC_ALL", "LC_CTYPE", "LANG"]
        .into_iter()
        .filter_map(variable)
        .find(|value| !value.is_empty())
        .unwrap_or_default()
        .to_ascii_lowercase();
    locale.contains("utf-8") || locale.contains("utf8")
}

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    /// Two cores, two families, several ranges, and everything in it.
    pub(super) fn example() -> Report {
        serde_json::from_str(include_str!("examples/two_cores.json")).expect("a report")
    }

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        args: PortsArgs,
    }

    fn args(text: &str) -> PortsArgs {
        Program::try_parse_from(text.split(' '))
            .expect("arguments")
            .args
    }

    #[test]
    fn the_interval_may_be_left_out() {
        assert_eq!(args("ports").watch, None);
        assert_eq!(args("ports --watch").watch, Some(2));
        assert_eq!(args("ports --watch 5 --ascii").watch, Some(5));
        assert_eq!(args("ports --watch --advise").watch, Some(2));
    }

    #[test]
    fn figures_of_another_kind_are_told() {
        let failure = shown(&args("ports"), "{}".to_owned()).expect_err("no report");
        assert!(failure.text.contains("another version"), "{}", failure.text);
        let json = shown(&args("ports --json"), "{}".to_owned()).expect("as it is");
        assert_eq!(json, "{}\n");
        let advice = shown(
            &args("ports --advise"),
            include_str!("examples/two_cores.json").to_owned(),
        );
        assert!(advice.expect("advice").contains("1. "));
    }

    #[test]
    fn the_first_variable_that_is_set_names_the_locale() {
        for (all, ctype, lang, utf8) in [
            (None, None, Some("de_DE.UTF-8"), true),
            (None, None, Some("C.utf8"), true),
            (None, Some("C"), Some("de_DE.UTF-8"), false),
            (Some(""), None, Some("de_DE.UTF-8"), true),
            (Some("POSIX"), Some("C.UTF-8"), None, false),
            (None, None, None, false),
        ] {
            let found = is_utf8(|name| {
                let value = match name {
                    "LC_ALL" => all,
                    "LC_CTYPE" => ctype,
                    _ => lang,
                };
                value.map(str::to_owned)
            });
            assert_eq!(found, utf8, "{all:?} {ctype:?} {lang:?}");
        }
    }
}
