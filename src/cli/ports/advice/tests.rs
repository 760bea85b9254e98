use super::*;
use crate::data::report::{Rate, Settings};

/// Two cores with 500 ports each, some hours of quiet work.
fn quiet() -> Report {
    let core = |core: usize| {
        let mut waits = Histogram::default();
        waits.buckets[3] = 9_000;
        waits.buckets[5] = 990;
        waits.sum_us = 9_990 * 6_500;
        CoreReport {
            core,
            pools: vec![PoolReport {
                address: "0.0.0.0".parse().expect("an address"),
                ranges: vec![RangeReport {
                    first: 30_000,
                    last: 30_999,
                    ports: 500,
                    free: 498,
                    reserved: 2,
                    high_water: 40,
                    handed_out: 10_000,
                    used: 9_990,
                    abandoned: 10,
                    ..RangeReport::default()
                }],
                pasv: Rate {
                    total: 10_000,
                    peak_second: 20,
                    ..Rate::default()
                },
                epsv: Rate::default(),
                refusals: Default::default(),
                borrowed: Default::default(),
                waits,
                top_clients: vec![("192.0.2.7".parse().expect("an address"), 2)],
            }],
            ..CoreReport::default()
        }
    };
    Report {
        uptime_seconds: 7200,
        quota_refusals: 0,
        settings: Settings {
            accept_timeout_ms: 30_000,
            ports_per_client: 64,
            peer_check: "strict".to_owned(),
            borrow: true,
        },
        cores: vec![core(0), core(1)],
        ..Report::default()
    }
}

fn pool(report: &mut Report, core: usize) -> &mut PoolReport {
    &mut report.cores[core].pools[0]
}

fn range(report: &mut Report, core: usize) -> &mut RangeReport {
    &mut pool(report, core).ranges[0]
}

type Change = fn(&mut Report);

/// A rule, what makes a quiet server break it, and what is told of it.
const CASES: &[(Rule, Change, &[&str])] = &[
    (
        Rule::Healthy,
        |_| {},
        &[
            "1. Nothing needs to be changed.",
            "In 2 h, 20000 ports handed out and 0 refused",
            "19980 of them were used, 20 (0.1 %) abandoned",
            "At most 40 reservations waited at a time on the 500 ports of core",
            "p50 < 8 ms, p99 < 32 ms; accept_timeout is 30 s",
        ],
    ),
    (
        Rule::TooShort,
        |report| report.uptime_seconds = 45,
        &["too early", "Up for 45 s", "Nothing else is wrong so far"],
    ),
    (
        Rule::TooShort,
        |report| {
            for core in 0..2 {
                range(report, core).used = 3;
                range(report, core).abandoned = 0;
            }
        },
        &["with 6 reservations ended; wanted are 10 min and 100."],
    ),
    (
        // Without strict peers a port waits for one client only: L is the
        // greater figure.
        Rule::AddPorts,
        |report| {
            report.settings.peer_check = "subnet".to_owned();
            report.settings.accept_timeout_ms = 6_000;
            for core in 0..2 {
                let range = range(report, core);
                (range.ports, range.high_water) = (50, 50);
                (range.used, range.abandoned) = (8_000, 2_000);
                pool(report, core).pasv.peak_second = 60;
                pool(report, core).waits.sum_us *= 300;
            }
            pool(report, 0).refusals.dry = 37;
        },
        &[
            "Add ports: 208 for each core instead of 50; 416 for all 2 cores.",
            "37 refused; at most 50 reservations at a time on 50 ports",
            "60/s * (1.9500 s * (1 - 0.2000) + 6 s * 0.2000) = 165.6",
            "=> passive_ports = \"30000-30415\"",
        ],
    ),
    (
        // With strict peers what counts is what one client may hold.
        Rule::AddPorts,
        |report| {
            report.settings.borrow = false;
            for core in 0..2 {
                range(report, core).ports = 20;
                range(report, core).high_water = 200;
                pool(report, core).pasv.peak_second = 200;
            }
            range(report, 0).abandoned = 0;
            range(report, 1).abandoned = 0;
            pool(report, 1).pasv.peak_second = 2000;
            pool(report, 1).waits.sum_us *= 10;
            pool(report, 1).refusals.dry = 5;
        },
        &[
            "Add ports: 64 for each core instead of 20; 128 for all 2 cores.",
            "one client address waited on all of the 20 ports",
            "borrow = true",
            "=> passive_ports = \"30000-30127\"",
        ],
    ),
    (
        Rule::ClientLimit,
        |report| {
            pool(report, 1).refusals.client_limit = 12;
            pool(report, 1).top_clients[0].1 = 64;
        },
        &[
            "12 refused because an address had 64 reservations",
            "Most wait for: 192.0.2.7 (64).",
            "=> ports_per_client = 128",
        ],
    ),
    (
        Rule::ClientLimit,
        |report| {
            report.settings.ports_per_client = 500;
            pool(report, 1).refusals.client_limit = 12;
        },
        &["cannot help above the 500 ports of a core"],
    ),
    (
        Rule::Uneven,
        |report| {
            range(report, 0).handed_out = 30_000;
            range(report, 0).high_water = 400;
        },
        &[
            "Core 0: 30000 handed out (75 %), high-water mark 80 % of its ports",
            "500 ports now, 750 with weight 3.",
            "=> passive_slices = [3, 1]",
        ],
    ),
    (
        Rule::Uneven,
        |report| {
            range(report, 0).handed_out = 15_000;
            pool(report, 0).borrowed.taken = 50;
            pool(report, 1).borrowed.given = 50;
        },
        &["50 borrowed and 0 lent", "=> passive_slices = [3, 2]"],
    ),
    (
        // 20/s * 30 s * 0.25 = 150 of 500 ports, though those used hold theirs for 6.5 ms.
        Rule::LowerTimeout,
        |report| {
            range(report, 0).abandoned = 3_330;
        },
        &[
            "Lower accept_timeout from 30 s to 5 s",
            "3330 of 13320 reservations (25 %)",
            "20/s * 30 s * 0.2500 = 150 of the 150.1",
            "in < 32 ms; 4 times that is 128 ms",
            "that is 125 fewer",
            "=> accept_timeout = \"5 s\"",
        ],
    ),
    (
        Rule::RaiseTimeout,
        |report| {
            report.settings.accept_timeout_ms = 5_000;
            pool(report, 0).waits.buckets[12] = 500;
        },
        &[
            "Raise accept_timeout from 5 s to 10 s",
            "did so in < 4.1 s",
            "=> accept_timeout = \"10 s\"",
        ],
    ),
    (
        Rule::RaiseTimeout,
        |report| range(report, 0).stale = 300,
        &[
            "300 (1.5 % of 20000 reservations) came after",
            "ask for another port and then use the first",
            "=> accept_timeout = \"1 min\"",
        ],
    ),
    (
        Rule::Strangers,
        |report| range(report, 0).strangers = 1000,
        &["rather a scan", "1000 connections", "(5.0 % of 20000"],
    ),
    (
        Rule::Strangers,
        |report| {
            range(report, 0).strangers = 260;
            range(report, 0).abandoned = 250;
        },
        &[
            "260 connections",
            "As many strangers as abandoned",
            "=> peer_check = \"subnet\"",
        ],
    ),
    (
        Rule::Unavailable,
        |report| {
            range(report, 0).unavailable = vec![30_040, 30_041, 30_042, 30_012];
            range(report, 1).unavailable = vec![30_700];
        },
        &[
            "Free 5 ports",
            "On 0.0.0.0: 30012, 30040-30042, 30700.",
            "ss -ltnp 'sport = :30012'\n",
        ],
    ),
    (
        Rule::Shrink,
        |report| {
            report.uptime_seconds = 200_000;
            range(report, 0).high_water = 20;
            range(report, 1).high_water = 3;
        },
        &[
            "80 for each core instead of 500, 160 in all",
            "In 2 d 7 h no core had more than 20 reservations on an address, 4.0 %",
            "saves 840 descriptors and some 3.3 MiB",
            "=> passive_ports = \"30000-30159\"",
        ],
    ),
    (
        Rule::SourcePort,
        |report| {
            report.cores[0].active.connected = 400;
            report.cores[0].active.other_source_port = 7;
        },
        &["7 of 400 connections made", "TIME_WAIT"],
    ),
    (
        Rule::ActiveFailed,
        |report| {
            report.cores[0].active.connected = 70;
            report.cores[0].active.failed = 25;
            report.cores[1].active.refused = 5;
        },
        &[
            "Of 100 connections to clients (PORT, EPRT), 25 (25 %) got no answer",
            "5 (5.0 %) were refused",
            "passive mode",
        ],
    ),
    (
        Rule::Bounces,
        |report| {
            report.cores[0].active.port.total = 100;
            report.cores[0].active.bounces = 30;
        },
        &["30 of 100 PORT and EPRT commands (30 %)"],
    ),
    (
        Rule::AddressUnknown,
        |report| pool(report, 0).refusals.address_unknown = 9,
        &["9 PASV were refused", "getent ahostsv4"],
    ),
];

#[test]
fn each_rule_tells_what_to_do_and_why() {
    for (rule, change, parts) in CASES {
        let mut report = quiet();
        change(&mut report);
        let advice = advise(&report);
        let rules: Vec<Rule> = advice.iter().map(|advice| advice.rule).collect();
        let text = text(&advice);
        assert_eq!(rules, [*rule], "\n{text}");
        // Where the lines are broken does not matter here.
        let unbroken = |text: &str| text.split_whitespace().collect::<Vec<_>>().join(" ");
        for part in *parts {
            assert!(
                unbroken(&text).contains(&unbroken(part)),
                "{part:?} is not in\n{text}"
            );
        }
        assert!(text.is_ascii());
        assert!(text.lines().all(|line| line.len() <= WIDTH), "\n{text}");
    }
}

#[test]
fn what_is_certain_is_told_of_a_young_server_too() {
    let mut report = quiet();
    report.uptime_seconds = 10;
    range(&mut report, 0).unavailable = vec![30_012];
    let rules: Vec<Rule> = advise(&report).iter().map(|advice| advice.rule).collect();
    assert_eq!(rules, [Rule::TooShort, Rule::Unavailable]);
    assert_eq!(advise(&Report::default())[0].rule, Rule::TooShort);
}

#[test]
fn slices_come_before_more_ports() {
    let mut report = quiet();
    report.settings.peer_check = "subnet".to_owned();
    range(&mut report, 0).handed_out = 30_000;
    range(&mut report, 0).high_water = 500;
    pool(&mut report, 0).refusals.dry = 3;
    let advice = advise(&report);
    let rules: Vec<Rule> = advice.iter().map(|advice| advice.rule).collect();
    assert_eq!(rules, [Rule::AddPorts, Rule::Uneven]);
    assert!(text(&advice).contains("slices (below) may do instead"));
}

#[test]
fn the_example_has_one_text() {
    let advice = advise(&super::super::tests::example());
    let text = text(&advice);
    assert_eq!(
        text,
        include_str!("../examples/two_cores_advice.txt"),
        "\n{text}"
    );
}
