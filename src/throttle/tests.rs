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

fn entry<'e>(user: &'e str, allowance: Allowance, session_rates: Rates) -> Entry<'e> {
    Entry {
        user,
        allowance,
        sessions_max: 0,
        session_rates,
        host: None,
        volume: None,
    }
}

#[test]
fn without_a_limit_there_is_no_pace() {
    let throttle = throttle("[limits]\ntotal_up = \"1 MiB/s\"\n");
    let member = throttle.enter(entry("a", Allowance::default(), Rates::default()));
    let member = member.unwrap();
    assert!(
        throttle
            .pace(CLIENT, Some(&member), Direction::Down, true)
            .unwrap()
            .is_none()
    );
    assert!(
        throttle
            .pace(CLIENT, None, Direction::Up, true)
            .unwrap()
            .is_some()
    );
}

#[test]
fn a_transfer_is_held_to_the_tightest_of_its_rates() {
    let text = "[limits]\nip_down = \"1 MB/s\"\ntotal_down = \"10 MB/s\"\n";
    let throttle = throttle(text);
    let allowance = Allowance {
        rates: rates(200_000),
        sessions: None,
        ..Allowance::default()
    };
    let member = throttle.enter(entry("a", allowance, rates(5_000_000)));
    let member = member.unwrap();
    let mut pace = throttle
        .pace(CLIENT, Some(&member), Direction::Down, true)
        .unwrap()
        .unwrap();
    assert_eq!(pace.session_rate(), NonZeroU64::new(5_000_000));
    assert_eq!((pace.left(), pace.take().unwrap()), (0, Duration::ZERO));
    assert_eq!(pace.left(), 10_000);
    pace.spend(10_000);
    assert_eq!(
        pace.take().unwrap(),
        Duration::ZERO,
        "what an idle bucket saves"
    );
    assert!(pace.take().unwrap() > Duration::from_millis(30));
    assert!(throttle.waited(Direction::Down) > Duration::from_millis(30));
    // Somebody else who comes from there.
    let mut other = throttle
        .pace(CLIENT, None, Direction::Down, true)
        .unwrap()
        .unwrap();
    assert_eq!(
        (other.take().unwrap(), other.left()),
        (Duration::ZERO, 25_000)
    );
}

#[test]
fn an_end_gives_back_what_was_not_moved() {
    let throttle = throttle("[limits]\ntotal_down = \"100 kB/s\"\n");
    for _ in 0..100 {
        let mut pace = throttle
            .pace(CLIENT, None, Direction::Down, true)
            .unwrap()
            .unwrap();
        assert_eq!(pace.take().unwrap(), Duration::ZERO);
    }
}

#[test]
fn a_reload_reaches_transfers_under_way() {
    let throttle = throttle("[limits]\nip_down = \"1 kB/s\"\ntotal_down = \"1 kB/s\"\n");
    let mut pace = throttle
        .pace(CLIENT, None, Direction::Down, true)
        .unwrap()
        .unwrap();
    pace.take().unwrap();
    throttle.set(&config("[limits]\ntotal_down = \"1 GB/s\"\n"));
    pace.take().unwrap();
    assert_eq!(pace.left(), 50_000_000);
    throttle.set(&config(""));
    pace.take().unwrap();
    assert_eq!(
        (pace.take().unwrap(), pace.left()),
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
            ..Allowance::default()
        };
        throttle.enter(Entry {
            sessions_max: default,
            ..entry(user, allowance, Rates::default())
        })
    };
    let first = enter("a", None, 2).unwrap();
    let _second = enter("a", None, 2).unwrap();
    assert!(enter("a", None, 2).is_err());
    assert_eq!(throttle.hits.of(Limit::SessionsPerUser), 1);
    let _other = enter("b", None, 2).unwrap();
    let _own = enter("a", Some(3), 2).unwrap();
    let _any = enter("a", Some(0), 2).unwrap();
    assert!(enter("a", None, 2).is_err());
    drop(first);
    assert!(enter("a", None, 4).is_ok());
}

#[test]
fn sessions_of_a_host_are_counted_and_share_its_rate() {
    let throttle = throttle("");
    let allowance = Allowance {
        rates: rates(1_000_000),
        sessions: Some(2),
        ..Allowance::default()
    };
    let enter = |user, host| {
        throttle.enter(Entry {
            host: Some((host, allowance)),
            sessions_max: 1,
            ..entry(user, Allowance::default(), Rates::default())
        })
    };
    let first = enter("shop/a", "shop").unwrap();
    // Who is refused for himself does not count for the host.
    assert_eq!(enter("shop/a", "shop").unwrap_err(), Limit::SessionsPerUser);
    let second = enter("shop/b", "shop").unwrap();
    assert_eq!(enter("shop/c", "shop").unwrap_err(), Limit::SessionsPerHost);
    let other = enter("lab/a", "lab").unwrap();
    let paced = |member| {
        throttle
            .pace(CLIENT, Some(member), Direction::Down, true)
            .unwrap()
            .unwrap()
    };
    let (mut one, mut two, mut elsewhere) = (paced(&first), paced(&second), paced(&other));
    while one.take().unwrap().is_zero() {}
    assert!(
        !two.take().unwrap().is_zero(),
        "the host's rate is one for all"
    );
    assert!(elsewhere.take().unwrap().is_zero());
    drop((one, two, first));
    assert!(enter("shop/c", "shop").is_ok());
}

#[test]
fn names_of_users_who_have_gone_are_forgotten() {
    let throttle = throttle("[limits]\nip_up = \"1 B/s\"\n");
    for number in 0..10_000_u32 {
        let name = number.to_string();
        let member = throttle.enter(entry(&name, Allowance::default(), Rates::default()));
        let client = IpAddr::from(number.to_be_bytes());
        let paced = throttle.pace(client, member.as_ref().ok(), Direction::Up, true);
        paced.unwrap();
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
