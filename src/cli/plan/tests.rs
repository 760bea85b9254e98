//! What is said, and what is refused.

use super::*;

fn words(text: &str) -> Vec<String> {
    text.split_whitespace().map(str::to_owned).collect()
}

fn plan(text: &str) -> Plan {
    parse(&words(text), 2).expect(text).plan
}

#[test]
fn the_answer_shows_its_arithmetic() {
    let question = parse(&words("rate=200 rtt=80ms abandoned=5% cores=4"), 2).expect("a plan");
    assert_eq!(question.answer(), include_str!("example.txt"));
}

#[test]
fn words_come_in_any_order_and_the_rest_is_assumed() {
    let least = plan("rate=0.5");
    assert_eq!((least.cores, least.busiest), (2, 1.0));
    assert_eq!(least.timeout, Data::default().accept_timeout);
    assert_eq!(least.per_client_max, Data::default().ports_per_client);
    let all = "loss=0.1% cap=100 peer=exclusive busiest=10% clients=500 cores=8 timeout=1min \
               abandoned=0.05 think=2s rtt=80ms rate=1e3";
    let all = parse(&words(all), 2).expect("a plan");
    assert_eq!(all.assumed, [] as [&str; 0]);
    let expected = Plan {
        rate: 1000.0,
        rtt: Duration::from_millis(80),
        think: Duration::from_secs(2),
        abandoned: 0.05,
        timeout: Duration::from_secs(60),
        cores: 8,
        busiest: 0.1,
        peers: Peers::Exclusive,
        per_client_max: 100,
        loss: 0.001,
    };
    assert_eq!(all.plan, expected);
    assert_eq!(plan("rate=1 clients=500").busiest, 0.002);
    assert_eq!(plan("rate=1 clients=3 busiest=33%").busiest, 0.33);
    assert_eq!(plan("rate=1 peer=subnet").peers, Peers::Exclusive);
}

#[test]
fn refusals_name_the_word_and_what_is_expected() {
    for (text, told) in [
        ("", "rate: is missing"),
        ("rate", "rate: has no value\n  hint: write it so: rate=200"),
        ("rate=", "rate: \"\" is not a number of requests per second"),
        ("rate=0", "hint: above 0 and at most 1000000"),
        ("rate=inf", "rate: \"inf\""),
        ("rate=NaN", "rate: \"NaN\""),
        ("rate=1 rate=2", "rate: is said twice"),
        (
            "rate=1 rtt=80",
            "rtt: \"80\" is not a duration\n  hint: a whole number and ms",
        ),
        (
            "rate=1 abandoned=5",
            "abandoned: \"5\" is not a share between 0 and 1\n  hint: such as 5%",
        ),
        ("rate=1 abandoned=-1%", "abandoned: \"-1%\""),
        (
            "rate=1 timeout=500ms",
            "timeout: 500ms is too short\n  hint: at least 1 s",
        ),
        ("rate=1 timeout=5s rtt=3s", "takes 2 × rtt + think = 6 s"),
        (
            "rate=1 cores=0",
            "cores: \"0\" is not a whole number from 1 to 1024",
        ),
        (
            "rate=1 clients=many",
            "clients: \"many\" is not a whole number",
        ),
        (
            "rate=1 clients=5 busiest=10%",
            "busiest: the busiest of 5 addresses has more of the \
          requests\n  hint: at least 20%",
        ),
        ("rate=1 peer=strikt", "hint: did you mean peer=strict?"),
        ("rate=1 peer=all", "hint: exclusive stands for"),
        (
            "rate=1 cap=0",
            "cap: \"0\" is not a whole number from 1 to 65535",
        ),
        ("rate=1 loss=0", "loss: 0 cannot be planned for"),
        (
            "rate=1 abandonned=5%",
            "abandonned: no such word\n  hint: did you mean abandoned=?",
        ),
        (
            "rate=1 users=5",
            "users: no such word\n  hint: the words are rate, rtt, think",
        ),
    ] {
        let failure = run(&words(text)).expect_err(text);
        assert!(
            failure.text.starts_with("ringftpd ports --plan: "),
            "{}",
            failure.text
        );
        assert!(failure.text.contains(told), "{text}: {}", failure.text);
    }
    // All of them at once.
    let failure = run(&words("rtt=4 cores=x")).expect_err("three problems");
    assert_eq!(failure.text.matches("ringftpd ports --plan: ").count(), 3);
}

#[test]
fn advice_fits_the_plan() {
    for (text, told, untold) in [
        (
            "rate=20000 abandoned=10% cores=8 peer=off clients=1000",
            &[
                "there are no more",
                "passive_ports = \"1024-65535\"",
                "hardly a port",
            ][..],
            &["are scarce"][..],
        ),
        (
            "rate=2500 rtt=80ms abandoned=50% cores=8 peer=off clients=1000",
            &[
                "ip_local_port_range=\"1024 25527\"",
                "peer_check = \"subnet\"",
                "timeout=10s",
            ],
            &["no more", "ss -ltn"],
        ),
        (
            "rate=9000 abandoned=1% cores=8 clients=1000",
            &[
                "\"10000-32767\"",
                "too few for a rest",
                "of its own address",
            ],
            &["ports_per_client =", "ss -ltn"],
        ),
        (
            "rate=1 abandoned=0 cores=1 clients=10 timeout=1min",
            &[
                "16 (at least) × 1 = 16",
                "accept_timeout = \"1 min\"",
                "0% of them",
            ],
            &["are scarce", "met on one core", "peer_check", "Most ports"],
        ),
    ] {
        let answer = run(&words(text)).expect(text);
        for part in told {
            assert!(answer.contains(part), "{text}: {part} is not in\n{answer}");
        }
        for part in untold {
            assert!(!answer.contains(part), "{text}: {part} is in\n{answer}");
        }
        let wide = answer.lines().find(|line| line.chars().count() > 100);
        assert_eq!(wide, None, "{text}");
    }
}
