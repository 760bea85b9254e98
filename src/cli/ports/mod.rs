//! `ringftpd ports`: the passive ports of the running server as a table, as advice, as JSON; and how
//! many ports a server will need.

mod advice;
mod table;

use std::io::IsTerminal;
use std::path::{Path, PathBuf};
use std::thread;
use std::time::Duration;

use clap::Args;

use super::{Failure, admin, plan, print};
use crate::data::report::Report;

#[derive(Args, Debug)]
pub(super) struct PortsArgs {
    /// The server's administrator socket [default: /run/ringftpd/admin.sock]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,

    /// Say what could be better, with the arithmetic
    #[arg(long, conflicts_with_all = ["json", "plan"])]
    advise: bool,

    /// Size a pool before the server serves, from what is known of the load
    #[arg(long, value_name = "KEY=VALUE", num_args = 1.., conflicts_with_all = ["json", "watch"])]
    plan: Vec<String>,

    /// As JSON
    #[arg(long)]
    json: bool,

    /// Again and again, every so many seconds
    #[arg(long, value_name = "SECONDS", num_args = 0..=1, default_missing_value = "2")]
    watch: Option<u64>,
}

pub(super) fn run(args: &PortsArgs) -> Result<(), Failure> {
    if !args.plan.is_empty() {
        return print(&plan::run(&args.plan)?);
    }
    let socket = admin::socket(args.socket.as_deref());
    loop {
        let shown = shown(&socket, args)?;
        let Some(seconds) = args.watch else {
            return print(&shown);
        };
        // Up to the top and clear (ECMA-48: CUP, ED), but only where somebody watches.
        let clear = match std::io::stdout().is_terminal() {
            true => "\x1b[H\x1b[2J",
            false => "",
        };
        print(&format!("{clear}{shown}"))?;
        thread::sleep(Duration::from_secs(seconds.max(1)));
    }
}

fn shown(socket: &Path, args: &PortsArgs) -> Result<String, Failure> {
    let json = admin::get(socket, "/ports")?;
    if args.json {
        return Ok(json);
    }
    let report: Report = serde_json::from_str(&json).map_err(|error| {
        let text = format!("{} speaks of something else: {error}", socket.display());
        Failure::operating(&std::io::Error::other(text))
    })?;
    Ok(match args.advise {
        true => advice::text(&report),
        false => table::text(&report),
    })
}

pub(super) const EXAMPLES: &str = "\
Examples:
  ringftpd ports                          What the running server's passive ports are doing
  ringftpd ports --watch                  The same, every two seconds
  ringftpd ports --advise                 What could be better, and why
  ringftpd ports --plan rate=200 rtt=80ms abandoned=5% cores=4
                                          How many ports will it take?

Keys of --plan: rate (PASV and EPSV a second; required), rtt, think (a client's delay before it
connects), abandoned (share of ports that are never used), timeout (data.accept_timeout), cores,
clients (addresses), busiest (share of the busiest address), peer (strict, subnet or off), cap
(data.ports_per_client), loss (share that may be refused)";
