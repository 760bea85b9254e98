//! `ringftpd who`: the sessions of the running server, as a table or as JSON.

mod table;

use std::collections::HashMap;
use std::io;
use std::path::PathBuf;
use std::time::Instant;

use clap::{Args, ValueEnum};

use super::{EXIT_FAILED, Failure, admin, watch};
use crate::proto::network::Network;
use crate::server::sessions::{Selection, SessionReport, Sessions};

#[derive(Args, Debug)]
pub(super) struct WhoArgs {
    /// Only sessions of this user; may be repeated
    #[arg(long, value_name = "NAME")]
    user: Vec<String>,

    /// Only sessions of clients in this network, or at this address; may be repeated
    #[arg(long, value_name = "NETWORK")]
    ip: Vec<Network>,

    /// What comes first: the oldest session, the first name, or the fastest transfer
    #[arg(long, value_name = "ORDER", default_value = "since")]
    sort: Order,

    /// Print what the server answers, unsorted
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

    /// The server's admin.socket [default: /run/ringftpd/admin.sock, or
    /// $XDG_RUNTIME_DIR/ringftpd/admin.sock if only that exists]
    #[arg(long, value_name = "PATH")]
    socket: Option<PathBuf>,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq, ValueEnum)]
enum Order {
    Since,
    User,
    Rate,
}

pub(super) fn run(args: &WhoArgs) -> Result<(), Failure> {
    let socket = admin::socket_path(args.socket.as_deref());
    let selection = Selection {
        users: args.user.clone(),
        networks: args.ip.clone(),
        ..Selection::default()
    };
    let page = match selection.query() {
        query if query.is_empty() => "/sessions".to_owned(),
        query => format!("/sessions?{query}"),
    };
    let mut before = Before::default();
    watch::show(args.watch, !args.json, || {
        let body = admin::get(&socket, &page)?;
        match args.json {
            true => Ok(body),
            false => shown(args.sort, &body, &mut before),
        }
    })
}

fn shown(order: Order, body: &str, before: &mut Before) -> Result<String, Failure> {
    let mut report: Sessions = serde_json::from_str(body).map_err(|error| Failure {
        code: EXIT_FAILED,
        text: format!(
            "ringftpd: the server's answer is of another kind: {error}\n  hint: is it of another \
             version than this program ({})? --json shows it as it is",
            env!("CARGO_PKG_VERSION")
        ),
    })?;
    before.correct(&mut report.sessions, Instant::now());
    sort(&mut report.sessions, order);
    // A pipe or a file has no width.
    let width = terminal_size::terminal_size_of(io::stdout());
    let width = width.map_or(usize::MAX, |(width, _)| usize::from(width.0));
    Ok(table::table(&report, width))
}

fn sort(sessions: &mut [SessionReport], order: Order) {
    let rate = |session: &SessionReport| match &session.transfer {
        Some(transfer) => transfer.bytes_per_second,
        None => -1.0,
    };
    sessions.sort_by(|a, b| {
        let first = match order {
            Order::Since => std::cmp::Ordering::Equal,
            // Who is not logged in comes last.
            Order::User => (a.user.is_none(), &a.user).cmp(&(b.user.is_none(), &b.user)),
            Order::Rate => rate(b).total_cmp(&rate(a)),
        };
        first.then_with(|| (a.since, a.id).cmp(&(b.since, b.id)))
    });
}

/// How far transfers were at the last look, so that the next one can tell how fast they are now.
#[derive(Debug, Default)]
struct Before {
    bytes: HashMap<u64, u64>,
    at: Option<Instant>,
}

impl Before {
    /// Puts the rate since the last look in the place of the mean.
    fn correct(&mut self, sessions: &mut [SessionReport], now: Instant) {
        let passed = self.at.map(|at| (now - at).as_secs_f64());
        for session in sessions.iter_mut() {
            let Some(transfer) = &mut session.transfer else {
                continue;
            };
            let (Some(passed), Some(bytes)) = (passed, self.bytes.get(&session.id)) else {
                continue;
            };
            // One that has begun since then has its mean.
            if transfer.seconds > passed && transfer.bytes >= *bytes && passed > 0.0 {
                transfer.bytes_per_second = ((transfer.bytes - bytes) as f64 / passed).round();
            }
        }
        let transfers = sessions.iter().filter_map(|session| {
            let transfer = session.transfer.as_ref()?;
            Some((session.id, transfer.bytes))
        });
        self.bytes = transfers.collect();
        self.at = Some(now);
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;
    use crate::server::sessions::TransferReport;

    pub(super) fn session(
        id: u64,
        user: Option<&str>,
        transfer: Option<(u64, f64)>,
    ) -> SessionReport {
        SessionReport {
            id,
            core: 1,
            user: user.map(str::to_owned),
            client: [192, 0, 2, 7].into(),
            local: ([192, 0, 2, 1], 21).into(),
            since: 1_700_000_000 + id.cast_signed(),
            idle_seconds: 90.0,
            kicked: false,
            transfer: transfer.map(|(bytes, seconds)| TransferReport {
                verb: "RETR".to_owned(),
                path: "/pub/disk.img".to_owned(),
                direction: "download".to_owned(),
                bytes,
                seconds,
                bytes_per_second: bytes as f64 / seconds,
            }),
        }
    }

    #[test]
    fn the_order_is_the_one_asked_for() {
        let mut sessions = vec![
            session(1, None, None),
            session(2, Some("bob"), Some((100, 10.0))),
            session(3, Some("alice"), Some((50, 1.0))),
            session(4, Some("alice"), None),
        ];
        for (order, ids) in [
            (Order::Rate, [3, 2, 1, 4]),
            (Order::User, [3, 4, 2, 1]),
            (Order::Since, [1, 2, 3, 4]),
        ] {
            sort(&mut sessions, order);
            let found: Vec<u64> = sessions.iter().map(|session| session.id).collect();
            assert_eq!(found, ids, "{order:?}");
        }
    }

    #[test]
    fn the_next_look_tells_how_fast_it_is_now() {
        let mut before = Before::default();
        let now = Instant::now();
        let rates = |before: &mut Before, now, sessions: &[(u64, u64, f64)]| -> Vec<f64> {
            let mut sessions: Vec<SessionReport> = sessions
                .iter()
                .map(|(id, bytes, seconds)| session(*id, None, Some((*bytes, *seconds))))
                .collect();
            before.correct(&mut sessions, now);
            let transfers = sessions.iter().filter_map(|it| it.transfer.as_ref());
            transfers.map(|it| it.bytes_per_second).collect()
        };
        assert_eq!(rates(&mut before, now, &[(1, 1000, 10.0)]), [100.0]);
        let later = now + Duration::from_secs(2);
        // The second has come in between, the third is another transfer of a session seen before.
        let found = rates(&mut before, later, &[(1, 5000, 12.0), (2, 30, 1.0)]);
        assert_eq!(found, [2000.0, 30.0]);
        let later = later + Duration::from_secs(2);
        assert_eq!(rates(&mut before, later, &[(1, 6000, 1.0)]), [6000.0]);
    }
}
