//! The table of `ringftpd who`: as wide as the terminal, and no wider.

use crate::proto::printable;
use crate::proto::time::Civil;
use crate::server::sessions::{SessionReport, Sessions};

/// One line for each session in at most `width` characters, and a line that counts them.
pub(super) fn table(report: &Sessions, width: usize) -> String {
    let mut rows = vec![TITLES.map(str::to_owned)];
    rows.extend(report.sessions.iter().map(row));
    let mut columns: Vec<usize> = (0..TITLES.len()).collect();
    let longest = |column: usize| {
        let lengths = rows.iter().map(|row| row[column].chars().count());
        lengths.max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..TITLES.len()).map(longest).collect();
    let used = |columns: &[usize]| -> usize {
        let before_path = columns.iter().filter(|column| **column != PATH);
        before_path.map(|column| widths[*column] + GAP.len()).sum()
    };
    let room = widths[PATH].min(PATH_MIN);
    for column in EXPENDABLE {
        if used(&columns) + room > width {
            columns.retain(|kept| *kept != column);
        }
    }
    // On a terminal that is narrower still, lines are wrapped rather than cut.
    let room = width.saturating_sub(used(&columns)).max(room);
    let mut out = String::new();
    for row in &rows {
        let mut line = String::new();
        for column in &columns {
            let text = &row[*column];
            match *column {
                PATH => line.push_str(&cut(text, room)),
                column if RIGHT.contains(&column) => {
                    line.push_str(&format!("{text:>width$}{GAP}", width = widths[column]));
                }
                column => line.push_str(&format!("{text:<width$}{GAP}", width = widths[column])),
            }
        }
        out.push_str(line.trim_end());
        out.push('\n');
    }
    out + &summary(report)
}

fn row(session: &SessionReport) -> [String; TITLES.len()] {
    let SessionReport {
        id,
        core,
        user,
        client,
        local,
        since,
        idle_seconds,
        kicked,
        transfer,
    } = session;
    let user = user.as_deref().unwrap_or("-");
    let (doing, path, bytes, rate) = match transfer {
        Some(transfer) => (
            printable(transfer.verb.as_bytes()),
            printable(transfer.path.as_bytes()),
            amount(transfer.bytes as f64),
            format!("{}/s", amount(transfer.bytes_per_second)),
        ),
        None => {
            let doing = match session.user {
                Some(_) => "idle",
                None => "login",
            };
            let doing = format!("{doing} {}", duration(*idle_seconds as u64));
            (doing, String::new(), String::new(), String::new())
        }
    };
    let doing = if *kicked { "kicked".to_owned() } else { doing };
    [
        id.to_string(),
        cut(&printable(user.as_bytes()), USER_MAX),
        client.to_string(),
        local.to_string(),
        core.to_string(),
        moment(*since),
        doing,
        bytes,
        rate,
        path,
    ]
}

fn summary(report: &Sessions) -> String {
    let sessions = report.sessions.len();
    let transfers = report
        .sessions
        .iter()
        .filter(|session| session.transfer.is_some())
        .count();
    let mut out = format!(
        "{sessions} session{}, {transfers} transfer{}\n",
        plural(sessions),
        plural(transfers)
    );
    if report.left_out > 0 {
        let left_out = report.left_out;
        out.push_str(&format!(
            "{left_out} more had no room in the answer: see fewer by --user or --ip\n"
        ));
    }
    if !report.silent_cores.is_empty() {
        let cores = &report.silent_cores;
        out.push_str(&format!("cores that did not answer: {cores:?}\n"));
    }
    out
}

fn plural(count: usize) -> &'static str {
    if count == 1 { "" } else { "s" }
}

/// A text of at most `most` characters: what is too long loses its middle, since a name's beginning
/// and end tell most.
fn cut(text: &str, most: usize) -> String {
    let length = text.chars().count();
    if length <= most {
        return text.to_owned();
    }
    let kept = most.saturating_sub(CUT.len());
    let end = kept.div_ceil(2);
    let start: String = text.chars().take(kept - end).collect();
    let rest: String = text.chars().skip(length - end).collect();
    format!("{start}{CUT}{rest}")
}

/// `11-24 14:03:59`, in UTC as in the log.
fn moment(since: i64) -> String {
    let civil = Civil::from_seconds(since);
    format!(
        "{:02}-{:02} {:02}:{:02}:{:02}",
        civil.month, civil.day, civil.hour, civil.minute, civil.second
    )
}

/// `59s`, `12m`, `3h05m`, `4d02h`.
fn duration(seconds: u64) -> String {
    match seconds {
        0..60 => format!("{seconds}s"),
        60..3600 => format!("{}m", seconds / 60),
        3600..86_400 => format!("{}h{:02}m", seconds / 3600, seconds / 60 % 60),
        _ => format!("{}d{:02}h", seconds / 86_400, seconds / 3600 % 24),
    }
}

/// Bytes in units of 1024, with three digits: `512 B`, `1.50 KiB`, `12.3 MiB`.
fn amount(bytes: f64) -> String {
    if bytes < 1000.0 {
        return format!("{bytes:.0} B");
    }
    let mut scaled = bytes;
    let mut unit = "";
    for next in ["KiB", "MiB", "GiB", "TiB", "PiB", "EiB"] {
        scaled /= 1024.0;
        unit = next;
        if scaled < 999.5 {
            break;
        }
    }
    let decimals = match scaled {
        scaled if scaled < 9.995 => 2,
        scaled if scaled < 99.95 => 1,
        _ => 0,
    };
    format!("{scaled:.decimals$} {unit}")
}

const TITLES: [&str; 10] = [
    "ID", "USER", "CLIENT", "LOCAL", "CORE", "SINCE", "DOING", "BYTES", "RATE", "PATH",
];
const PATH: usize = 9;
/// Columns of numbers.
const RIGHT: [usize; 4] = [0, 4, 7, 8];
/// Columns that go when the terminal is narrow, the first one first.
const EXPENDABLE: [usize; 3] = [3, 4, 5];

const GAP: &str = "  ";
const CUT: &str = "...";

/// A path needs this much to be recognised.
const PATH_MIN: usize = 20;
const USER_MAX: usize = 24;

#[cfg(test)]
mod tests {
    use super::super::tests::session;
    use super::*;

    fn example() -> Sessions {
        let mut sessions = vec![
            session(7, Some("alice"), Some((1_500_000, 1.5))),
            session(12, Some("anonymous"), None),
            session(13, None, None),
        ];
        let transfer = sessions[0].transfer.as_mut().expect("a transfer");
        transfer.path = format!("/pub/{}/disk.img", "long/".repeat(30));
        sessions[2].kicked = true;
        Sessions {
            sessions,
            ..Sessions::default()
        }
    }

    #[test]
    fn a_wide_table_shows_everything() {
        let text = table(&example(), usize::MAX);
        let lines: Vec<&str> = text.lines().collect();
        assert_eq!(
            lines[0],
            "ID  USER       CLIENT     LOCAL         CORE  SINCE           DOING       BYTES       RATE  PATH"
        );
        assert!(
            lines[1].starts_with(
                " 7  alice      192.0.2.7  192.0.2.1:21     1  11-14 22:13:27  RETR     1.43 MiB  977 KiB/s  /pub/"
            ),
            "{text}"
        );
        assert!(lines[1].ends_with("/disk.img"), "{text}");
        assert!(lines[2].ends_with("idle 1m"), "{text}");
        assert!(
            lines[3].starts_with("13  -  ") && lines[3].ends_with("kicked"),
            "{text}"
        );
        assert_eq!(lines[4], "3 sessions, 1 transfer");
    }

    #[test]
    fn a_line_fits_the_terminal() {
        for width in [80, 90, 100, 120, 200] {
            let text = table(&example(), width);
            let longest = text.lines().map(|line| line.chars().count()).max();
            assert!(longest <= Some(width), "{width}:\n{text}");
            assert!(text.contains("disk.img") && text.contains("..."), "{text}");
        }
        assert!(!table(&example(), 80).contains("LOCAL"));
    }

    #[test]
    fn nothing_writes_into_the_terminal() {
        let mut report = example();
        let transfer = report.sessions[0].transfer.as_mut().expect("a transfer");
        transfer.path = "/\x1b[2J\n".to_owned();
        report.sessions[1].user = Some("\x07".to_owned());
        let text = table(&report, 120);
        assert!(!text.contains(['\x1b', '\x07']), "{text:?}");
        assert_eq!(text.lines().count(), 5);
    }

    #[test]
    fn what_is_missing_is_told() {
        let report = Sessions {
            left_out: 3,
            silent_cores: vec![1],
            ..Sessions::default()
        };
        let text = table(&report, 80);
        assert!(text.contains("0 sessions, 0 transfers\n"), "{text}");
        assert!(text.contains("3 more had no room"), "{text}");
        assert!(text.contains("did not answer: [1]"), "{text}");
    }

    #[test]
    fn the_middle_is_cut_out() {
        for (text, most, short) in [
            ("abcdefghij", 10, "abcdefghij"),
            ("abcdefghij", 9, "abc...hij"),
            ("abcdefghij", 8, "ab...hij"),
            ("äöüäöüäöü", 7, "äö...öü"),
        ] {
            assert_eq!(cut(text, most), short);
        }
    }

    #[test]
    fn amounts_and_durations_are_short() {
        for (bytes, text) in [
            (0.0, "0 B"),
            (999.0, "999 B"),
            (1000.0, "0.98 KiB"),
            (1536.0, "1.50 KiB"),
            (12_939_428.0, "12.3 MiB"),
            (1_073_741_824.0, "1.00 GiB"),
            (1_048_000_000.0, "999 MiB"),
        ] {
            assert_eq!(amount(bytes), text);
        }
        for (seconds, text) in [
            (0, "0s"),
            (59, "59s"),
            (60, "1m"),
            (3599, "59m"),
            (11_100, "3h05m"),
            (352_800, "4d02h"),
        ] {
            assert_eq!(duration(seconds), text);
        }
    }
}
