//! What is held to which limit.

use super::*;

const CLIENT: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

fn config(text: &str) -> Config {
    Config::parse(text, "test").unwrap()
}

fn throttle(text: &str) -> Arc<Throttle> {
    Arc::new(Throttle::new(&config(text)))
}

fn rates(down: u64) -> Rates {
    Rates {
        down: NonZeroU64::new(down),
        up: None,
    }
}

#[test]
fn without_a_limit_there_is_no_pace() {
    let throttle = throttle("[limits]\ntotal_up = \"1 MiB/s\"\n");
    let member = throttle.enter("a", Allowance::default(), 0, Rates::default());
    let member = member.unwrap();
    assert!(
        throttle
            .pace(CLIENT, Some(&member), Direction::Down)
            .is_none()
    );
    assert!(throttle.pace(CLIENT, None, Direction::Up).is_some());
}

#[test]
fn a_transfer_is_held_to_the_tightest_of_its_rates() {
    let text = "[limits]\nip_down = \"1 MB/s\"\ntotal_down = \"10 MB/s\"\n";
    let throttle = throttle(text);
    let allowance = Allowance {
        rates: rates(200_000),
        sessions: None,
    };
    let member = throttle.enter("a", allowance, 0, rates(5_000_000)).unwrap();
    let mut pace = throttle
        .pace(CLIENT, Some(&member), Direction::Down)
        .unwrap();
    assert_eq!(pace.session_rate(), NonZeroU64::new(5_000_000));
    assert_eq!((pace.left(), pace.take()), (0, Duration::ZERO));
    assert_eq!(pace.left(), 10_000);
    pace.spend(10_000);
    assert_eq!(pace.take(), Duration::ZERO, "what an idle bucket saves");
    assert!(pace.take() > Duration::from_millis(30));
    assert!(throttle.waited(Direction::Down) > Duration::from_millis(30));
    // Somebody else who comes from there.
    let mut other = throttle.pace(CLIENT, None, Direction::Down).unwrap();
    assert_eq!((other.take(), other.left()), (Duration::ZERO, 25_000));
}

#[test]
fn an_end_gives_back_what_was_not_moved() {
    let throttle = throttle("[limits]\ntotal_down = \"100 kB/s\"\n");
    for _ in 0..100 {
        let mut pace = throttle.pace(CLIENT, None, Direction::Down).unwrap();
        assert_eq!(pace.take(), Duration::ZERO);
    }
}

#[test]
fn a_reload_reaches_transfers_under_way() {
    let throttle = throttle("[limits]\nip_down = \"1 kB/s\"\ntotal_down = \"1 kB/s\"\n");
    let mut pace = throttle.pace(CLIENT, None, Direction::Down).unwrap();
    pace.take();
    throttle.set(&config("[limits]\ntotal_down = \"1 GB/s\"\n"));
    pace.take();
    assert_eq!(pace.left(), 50_000_000);
    throttle.set(&config(""));
    pace.take();
    assert_eq!(
        (pace.take(), pace.left()),
        (Duration::ZERO, PIECE_BYTES_MAX)
    );
}

#[test]
fn sessions_of_a_user_are_counted() {
    let throttle = throttle("");
    let enter = |user, own, default| {
        let allowance = Allowance {
            rates: Rates::default(),
            sessions: own,
        };
        throttle.enter(user, allowance, default, Rates::default())
    };
    let first = enter("a", None, 2).unwrap();
    let _second = enter("a", None, 2).unwrap();
    assert!(enter("a", None, 2).is_none());
    assert_eq!(throttle.hits.of(Limit::SessionsPerUser), 1);
    let _other = enter("b", None, 2).unwrap();
    let _own = enter("a", Some(3), 2).unwrap();
    let _any = enter("a", Some(0), 2).unwrap();
    assert!(enter("a", None, 2).is_none());
    drop(first);
    assert!(enter("a", None, 4).is_some());
}

#[test]
fn names_of_users_who_have_gone_are_forgotten() {
    let throttle = throttle("[limits]\nip_up = \"1 B/s\"\n");
    for number in 0..10_000_u32 {
        let name = number.to_string();
        let member = throttle.enter(&name, Allowance::default(), 0, Rates::default());
        let client = IpAddr::from(number.to_be_bytes());
        throttle.pace(client, member.as_ref(), Direction::Up);
    }
    assert!(locked(&throttle.users).len() < 100);
    assert!(locked(&throttle.clients).len() < 100);
}

#[test]
fn commands_wait_when_they_are_too_fast() {
    let start = Instant::now();
    assert!(Tempo::new(0, start).is_none());
    let mut tempo = Tempo::new(10, start).unwrap();
    for _ in 0..10 {
        assert!(tempo.next() <= start);
        tempo.count(start);
    }
    assert_eq!(tempo.next(), start + Duration::from_millis(100));
    assert!(tempo.is_news() && !tempo.is_news());
}
