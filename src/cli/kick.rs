//! `ringftpd kick`: ends sessions of the running server.

use std::path::PathBuf;

use clap::{ArgGroup, Args};

use super::{Failure, admin, print};
use crate::proto::network::Network;
use crate::server::sessions::Selection;

#[derive(Args, Debug)]
#[command(group(ArgGroup::new("which").required(true).multiple(true).args(["ids", "user", "ip", "all"])))]
pub(super) struct KickArgs {
    /// Sessions by the numbers that 'ringftpd who' shows
    #[arg(value_name = "ID")]
    ids: Vec<u64>,

    /// Sessions of this user; may be repeated
    #[arg(long, value_name = "NAME")]
    user: Vec<String>,

    /// Sessions of clients in this network, or at this address; may be repeated
    #[arg(long, value_name = "NETWORK")]
    ip: Vec<Network>,

    /// Every session
    #[arg(long, conflicts_with_all = ["ids", "user", "ip"])]
    all: bool,

    /// The server's admin.socket [default: /run/ringftpd/admin.sock, or
    /// $XDG_RUNTIME_DIR/ringftpd/admin.sock if only that exists]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn run(args: KickArgs) -> Result<(), Failure> {
    let socket = admin::socket_path(args.socket.as_deref());
    let selection = Selection {
        ids: args.ids,
        users: args.user,
        networks: args.ip,
        all: args.all,
    };
    let query = selection.query();
    if query.len() > QUERY_MAX {
        return Err(Failure::usage(
            "ringftpd: too many sessions in one go; --user and --ip name many at once",
        ));
    }
    print(&admin::post(&socket, &format!("/sessions/kick?{query}"))?)
}

/// The server reads 8 KiB of a request.
const QUERY_MAX: usize = 8000;

#[cfg(test)]
mod tests {
    use clap::Parser;

    use super::*;

    #[derive(Debug, Parser)]
    struct Program {
        #[command(flatten)]
        args: KickArgs,
    }

    #[test]
    fn nobody_is_kicked_by_an_empty_command_line() {
        for (line, is_good) in [
            ("kick", false),
            ("kick --socket /x", false),
            ("kick 1 2", true),
            ("kick --user alice --ip 10.0.0.0/8", true),
            ("kick --all", true),
            ("kick --all --user alice", false),
            ("kick --all 1", false),
            ("kick alice", false),
            ("kick --ip 10.0.0.1/8", false),
        ] {
            let parsed = Program::try_parse_from(line.split(' '));
            assert_eq!(parsed.is_ok(), is_good, "{line}: {parsed:?}");
        }
    }
}
