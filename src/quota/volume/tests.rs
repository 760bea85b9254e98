//! Periods, what is left, and what is kept.

use jiff::civil::date;
use jiff::tz::TimeZone;

use super::*;
use crate::config::Period;

fn limits(period: Period, both: u64) -> VolumeLimits {
    VolumeLimits {
        down: None,
        up: None,
        both: Some(both),
        period,
    }
}

fn quotas(folder: &Path) -> Quotas {
    let workers = Workers::start("volume-test", 2, 16).unwrap();
    Quotas::new(folder, workers)
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().build();
    runtime.unwrap().block_on(future)
}

#[test]
fn periods_are_those_of_the_calendar() {
    let zone = TimeZone::UTC;
    let now = date(2026, 12, 31).at(23, 59, 59, 0).to_zoned(zone).unwrap();
    for (which, first, next) in [
        (Period::Day, "2026-12-31", "2027-01-01T00:00:00Z"),
        (Period::Week, "2026-12-28", "2027-01-04T00:00:00Z"),
        (Period::Month, "2026-12-01", "2027-01-01T00:00:00Z"),
    ] {
        let (since, ends) = period(limits(which, 1), &now);
        assert_eq!(
            (since.to_string(), ends.to_string()),
            (first.into(), next.into())
        );
    }
}

#[test]
fn what_is_left_is_what_all_limits_leave() {
    let all = VolumeLimits {
        down: Some(100),
        up: Some(50),
        both: Some(120),
        period: Period::Day,
    };
    let mut inner = Inner::new(all, None, &Zoned::now());
    assert_eq!(inner.left(Direction::Down), 100);
    inner.moved.up = 50;
    assert_eq!(inner.left(Direction::Up), 0);
    assert_eq!(inner.left(Direction::Down), 70);
    inner.moved.down = 90;
    assert_eq!(inner.left(Direction::Down), 0);
    // The next period.
    inner.ends = Timestamp::MIN;
    inner.moved.since = date(2026, 1, 1);
    inner.look_at_the_clock();
    assert_eq!(inner.left(Direction::Down), 100);
}

#[test]
fn sessions_share_to_the_last_byte_and_give_back() {
    let folder = tempfile::tempdir().unwrap();
    let quotas = quotas(folder.path());
    let limit = 10 << 20;
    let of = || block_on(quotas.volume_of("alice", limits(Period::Month, limit))).unwrap();
    let (one, two) = (of(), of());
    let mut taken = 0;
    loop {
        let pieces = [
            one.take(Direction::Down, u64::MAX),
            two.take(Direction::Up, u64::MAX),
        ];
        if pieces == [0, 0] {
            break;
        }
        assert!(pieces[0] < limit / 2, "nobody takes it all");
        taken += pieces.iter().sum::<u64>();
    }
    assert_eq!(taken, limit);
    one.give_back(Direction::Down, 100);
    assert_eq!(two.left(Direction::Up), 100);
    assert_eq!(two.take(Direction::Up, 30), 30);
}

#[test]
fn figures_survive_the_end_and_are_never_too_low_after_a_crash() {
    let folder = tempfile::tempdir().unwrap();
    let limits = limits(Period::Month, 1 << 30);
    let path = path(folder.path(), "shop/alice");
    assert_eq!(path.file_name().unwrap(), "volume-shop%alice");
    {
        let quotas = quotas(folder.path());
        let volume = block_on(quotas.volume_of("shop/alice", limits)).unwrap();
        assert_eq!(volume.take(Direction::Down, 1000), 1000);
        // As if it crashed now: once the worker has written.
        while !path.exists() {
            std::thread::yield_now();
        }
        let kept = read(&path).unwrap().unwrap();
        assert!(kept.down >= 1000, "{kept:?}");
        let listed = quotas.volumes().unwrap();
        assert_eq!((&listed[0].0[..], listed[0].1.down), ("shop/alice", 1000));
        drop(volume);
        quotas.wait_until_closed(std::time::Duration::from_secs(60));
    }
    let again = quotas(folder.path());
    let volume = block_on(again.volume_of("shop/alice", limits)).unwrap();
    assert_eq!(volume.left(Direction::Up), (1 << 30) - 1000);
    assert!(again.reset_volume("shop/alice").unwrap());
    assert_eq!(volume.left(Direction::Up), 1 << 30);
    assert!(!again.reset_volume("nobody").unwrap());
}

#[test]
fn sessions_that_come_and_go_quickly_count_what_they_moved_and_no_more() {
    let folder = tempfile::tempdir().unwrap();
    let quotas = quotas(folder.path());
    let limits = limits(Period::Month, 1 << 40);
    for _ in 0..500 {
        let volume = block_on(quotas.volume_of("alice", limits)).unwrap();
        assert_eq!(volume.take(Direction::Down, 1000), 1000);
    }
    quotas.wait_until_closed(std::time::Duration::from_secs(60));
    let kept = read(&path(folder.path(), "alice")).unwrap().unwrap();
    assert_eq!((kept.down, kept.up), (500_000, 0));
}

#[test]
fn a_reset_beside_transfers_blocks_nobody() {
    let folder = tempfile::tempdir().unwrap();
    let quotas = quotas(folder.path());
    let limits = limits(Period::Month, 1 << 60);
    let volume = block_on(quotas.volume_of("alice", limits)).unwrap();
    std::thread::scope(|scope| {
        scope.spawn(|| {
            for _ in 0..2000 {
                quotas.reset_volume("alice").unwrap();
            }
        });
        for _ in 0..2000 {
            volume.take(Direction::Up, 1);
        }
    });
}

#[test]
fn the_file_of_one_user_is_no_other_users_temporary_one() {
    let folder = tempfile::tempdir().unwrap();
    let moved = |down| Moved {
        since: date(2026, 11, 1),
        down,
        up: 0,
    };
    for (user, down) in [("john.new", 1), ("john.doe", 2), ("john", 3)] {
        write(&path(folder.path(), user), moved(down)).unwrap();
    }
    for (user, down) in [("john.new", 1), ("john.doe", 2), ("john", 3)] {
        let kept = read(&path(folder.path(), user)).unwrap();
        assert_eq!(kept, Some(moved(down)));
    }
    assert_eq!(fs::read_dir(folder.path()).unwrap().count(), 3);
}

#[test]
fn a_damaged_file_begins_anew() {
    for text in [
        "",
        "2026-11-01 1 2",
        "2026-11-01 1\n",
        "2026-11-01 1 2 3\n",
        "x 1 2\n",
    ] {
        assert_eq!(parse(text), None, "{text:?}");
    }
    let moved = parse("2026-11-01 1 2\n").unwrap();
    assert_eq!(
        (moved.since, moved.down, moved.up),
        (date(2026, 11, 1), 1, 2)
    );
}
