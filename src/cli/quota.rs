//! `ringftpd quota`: what users store, as the running server has it.

use std::path::{Path, PathBuf};

use clap::{Args, Subcommand};

use super::{Failure, admin, print};
use crate::auth::check_identity_name;

#[derive(Args, Debug)]
pub(super) struct QuotaArgs {
    #[command(subcommand)]
    command: QuotaCommand,

    /// The server's admin.socket [default: /run/ringftpd/admin.sock, or
    /// $XDG_RUNTIME_DIR/ringftpd/admin.sock if only that exists]
    #[arg(long, global = true, value_name = "PATH")]
    socket: Option<PathBuf>,
}

#[derive(Debug, Subcommand)]
enum QuotaCommand {
    /// Show how many bytes and files each user with a quota stores, and what each user with a volume has
    /// moved in the period of the last session
    List,
    /// Have what a user stores counted again, before the user's next change
    Rescan {
        /// The user; of a virtual host: HOST/NAME
        name: String,
    },
    /// Have a user's volume begin anew with nothing moved
    Reset {
        /// The user; of a virtual host: HOST/NAME
        name: String,
    },
}

pub(super) fn run(args: &QuotaArgs) -> Result<(), Failure> {
    let socket = admin::socket_path(args.socket.as_deref());
    match &args.command {
        QuotaCommand::List => {
            let mut told = table(&admin::get(&socket, "/quotas")?);
            let volumes = admin::get(&socket, "/volumes")?;
            if !volumes.is_empty() {
                told.push('\n');
                told.push_str(&volume_table(&volumes));
            }
            print(&told)
        }
        QuotaCommand::Rescan { name } => post(&socket, "/quotas/rescan/", name),
        QuotaCommand::Reset { name } => post(&socket, "/volumes/reset/", name),
    }
}

fn post(socket: &Path, page: &str, name: &str) -> Result<(), Failure> {
    if let Err(error) = check_identity_name(name) {
        return Err(Failure::usage(format!("ringftpd: {error}")));
    }
    print(&admin::post(socket, &format!("{page}{name}"))?)
}

/// The server's lines `BYTES FILES NAME` as a table.
fn table(lines: &str) -> String {
    let mut out = format!("{:>20}  {:>12}  {}\n", "BYTES", "FILES", "USER");
    for line in lines.lines() {
        let mut words = line.splitn(3, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (bytes, files, name) = (word(), word(), word());
        out.push_str(&format!(
            "{bytes:>20}  {files:>12}  {}\n",
            name.escape_debug()
        ));
    }
    out
}

/// The server's lines `SINCE DOWN UP NAME` as a table.
fn volume_table(lines: &str) -> String {
    let mut out = format!(
        "{:<10}  {:>20}  {:>20}  {}\n",
        "SINCE", "DOWN", "UP", "USER"
    );
    for line in lines.lines() {
        let mut words = line.splitn(4, ' ');
        let mut word = || words.next().unwrap_or_default();
        let (since, down, up, name) = (word(), word(), word(), word());
        let name = name.escape_debug();
        out.push_str(&format!("{since:<10}  {down:>20}  {up:>20}  {name}\n"));
    }
    out
}
