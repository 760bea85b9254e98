//! `ringftpd reload`: a running server reads its configuration again.

use std::path::PathBuf;

use clap::Args;

use super::{Failure, admin, print};

#[derive(Args, Debug)]
pub(super) struct ReloadArgs {
    /// The server's admin.socket [default: /run/ringftpd/admin.sock, or
    /// $XDG_RUNTIME_DIR/ringftpd/admin.sock if only that exists]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

pub(super) fn run(args: &ReloadArgs) -> Result<(), Failure> {
    let socket = admin::socket_path(args.socket.as_deref());
    print(&admin::post(&socket, "/reload")?)
}
