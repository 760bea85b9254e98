//! When and from where an account may be used: `enabled`, `expires`, `networks` and `hours`.

use std::net::IpAddr;

use jiff::Timestamp;
use jiff::civil::{Date, Weekday};
use jiff::tz::TimeZone;
use toml::de::DeValue;

use super::Reason;
use crate::config::section::{Section, Value, Wrong};
use crate::config::{rights, units};
use crate::proto::network::Network;

/// When and from where a user may log in. Sessions that have begun go on.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Validity {
    /// Whether the account may be used at all.
    enabled: bool,
    /// From when on it may not.
    expires: Option<Timestamp>,
    /// From where it may be used; empty: from everywhere.
    networks: Vec<Network>,
    /// When it may be used; empty: always.
    hours: Vec<Hours>,
}

/// A part of the week, in local time.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
struct Hours {
    /// Bit 0 is Monday. The days on which it begins.
    days: u8,
    /// Minutes after midnight, from 0 to [`DAY`].
    from: u16,
    /// Exclusive. Not after `from`: on the next day.
    until: u16,
}

impl Default for Validity {
    /// Always and from everywhere.
    fn default() -> Self {
        Self {
            enabled: true,
            expires: None,
            networks: Vec::new(),
            hours: Vec::new(),
        }
    }
}

impl Validity {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("enabled", &mut self.enabled, units::switch);
        section.read("expires", &mut self.expires, |value| {
            expiry(value).map(Some)
        });
        section.read("networks", &mut self.networks, |value| {
            rights::list(value, str::parse)
        });
        section.read("hours", &mut self.hours, |value| {
            rights::list(value, Hours::parse)
        });
    }

    /// Whether the account may be used by a client at a moment.
    pub(super) fn judge(
        &self,
        client: IpAddr,
        now: Timestamp,
        zone: &TimeZone,
    ) -> Result<(), Reason> {
        self.judge_time(now, zone)?;
        let is_in = |network: &Network| network.contains(client);
        match self.networks.is_empty() || self.networks.iter().any(is_in) {
            true => Ok(()),
            false => Err(Reason::WrongNetwork),
        }
    }

    /// Whether the account may be used at a moment, from wherever.
    pub(super) fn judge_time(&self, now: Timestamp, zone: &TimeZone) -> Result<(), Reason> {
        if !self.enabled {
            return Err(Reason::Disabled);
        }
        if self.expires.is_some_and(|expires| now >= expires) {
            return Err(Reason::Expired);
        }
        if self.hours.is_empty() {
            return Ok(());
        }
        let local = zone.to_datetime(now);
        let minute = local.hour() as u16 * 60 + local.minute() as u16;
        let holds = |hours: &Hours| hours.hold(local.weekday(), minute);
        match self.hours.iter().any(holds) {
            true => Ok(()),
            false => Err(Reason::OutsideHours),
        }
    }
}

/// `2026-12-31`, whose last moment still counts, or `2026-12-31T18:00:00+01:00`; as a string, or as
/// a date of TOML's own.
fn expiry(value: &Value<'_>) -> Result<Timestamp, Wrong> {
    let own;
    let text = match value.get_ref() {
        DeValue::Datetime(date) => {
            own = date.to_string();
            &own
        }
        _ => units::text(value, "2026-12-31")?,
    };
    let of_day = |date: Date| {
        let next = date.tomorrow().ok()?;
        let midnight = next.to_zoned(TimeZone::UTC).ok()?;
        Some(midnight.timestamp())
    };
    let moment = match text.contains(':') {
        true => text.parse::<Timestamp>().ok(),
        false => text.parse::<Date>().ok().and_then(of_day),
    };
    moment.ok_or_else(|| {
        Wrong::new(format!(
            "{text:?} is neither a date nor a time with its zone"
        ))
        .hint("\"2026-12-31\" for the whole of that day in UTC, or \"2026-12-31T18:00:00+01:00\"")
    })
}

/// Whether a text is one of `hours`.
pub(super) fn check_hours(text: &str) -> Result<(), String> {
    Hours::parse(text).map(drop)
}

impl Hours {
    /// `mon-fri 08:00-18:00`, `sat,sun 22:00-06:00`, `06:00-24:00`.
    fn parse(text: &str) -> Result<Self, String> {
        let malformed = || {
            format!(
                "{text:?} is not a part of the week such as \"mon-fri 08:00-18:00\", \
                 \"sat,sun 22:00-06:00\" or \"06:00-24:00\""
            )
        };
        let mut words = text.split_whitespace().rev();
        let (from, until) = words
            .next()
            .and_then(|times| times.split_once('-'))
            .ok_or_else(malformed)?;
        let from = minutes(from).ok_or_else(malformed)?;
        let until = minutes(until).ok_or_else(malformed)?;
        let days = match words.next() {
            Some(word) => days(word).ok_or_else(malformed)?,
            None => EVERY_DAY,
        };
        if words.next().is_some() {
            return Err(malformed());
        }
        if from == until || from == DAY {
            return Err(format!(
                "{text:?} is no time at all; the whole day is \"00:00-24:00\""
            ));
        }
        Ok(Self { days, from, until })
    }

    fn hold(self, day: Weekday, minute: u16) -> bool {
        let begins = |day: Weekday| self.days & bit(day) != 0;
        match self.from < self.until {
            true => begins(day) && (self.from..self.until).contains(&minute),
            false => {
                begins(day) && minute >= self.from || begins(day.previous()) && minute < self.until
            }
        }
    }
}

/// `mon-fri`, `sat,sun`, `fri-mon`.
fn days(word: &str) -> Option<u8> {
    let mut days = 0;
    for part in word.split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        let (mut day, last) = (weekday(first)?, weekday(last)?);
        days |= bit(day);
        while day != last {
            day = day.next();
            days |= bit(day);
        }
    }
    Some(days)
}

fn weekday(name: &str) -> Option<Weekday> {
    let name = name.to_ascii_lowercase();
    let named = DAYS.iter().find(|(known, _)| *known == name);
    named.map(|(_, day)| *day)
}

fn bit(day: Weekday) -> u8 {
    1 << day.to_monday_zero_offset()
}

/// `08:00` as minutes after midnight, up to `24:00`.
fn minutes(text: &str) -> Option<u16> {
    let (hours, minutes) = text.split_once(':')?;
    let number = |digits: &str, length: std::ops::RangeInclusive<usize>| {
        let is_number =
            length.contains(&digits.len()) && digits.bytes().all(|it| it.is_ascii_digit());
        is_number.then(|| digits.parse::<u16>().ok()).flatten()
    };
    let (hours, minutes) = (number(hours, 1..=2)?, number(minutes, 2..=2)?);
    let all = hours * 60 + minutes;
    (minutes < 60 && all <= DAY).then_some(all)
}

/// Minutes.
const DAY: u16 = 24 * 60;
const EVERY_DAY: u8 = 0b111_1111;
const DAYS: [(&str, Weekday); 7] = [
    ("mon", Weekday::Monday),
    ("tue", Weekday::Tuesday),
    ("wed", Weekday::Wednesday),
    ("thu", Weekday::Thursday),
    ("fri", Weekday::Friday),
    ("sat", Weekday::Saturday),
    ("sun", Weekday::Sunday),
];

#[cfg(test)]
mod tests {
    use super::*;
    use crate::auth::{StoredHash, UserList, UserName};

    fn parse(keys: &str) -> Result<Validity, String> {
        // Any hash does: nobody logs in here.
        let hash = StoredHash::create(b"x")
            .expect("a password")
            .as_text()
            .to_owned();
        let text = format!("[user.a]\npassword = \"{hash}\"\nroot = \"/\"\n{keys}\n");
        let name = UserName::parse(b"a").expect("a name");
        let list = UserList::parse(&text, "users")?;
        Ok(list.get(&name).expect("the user").validity.clone())
    }

    fn judge(validity: &Validity, client: &str, now: &str, zone: &TimeZone) -> Result<(), Reason> {
        let client = client.parse().expect("an address");
        validity.judge(client, now.parse().expect("a time"), zone)
    }

    #[test]
    fn an_account_is_good_until_its_end() {
        let day = "2026-12-31T23:59:59Z";
        for (keys, now, verdict) in [
            ("", day, Ok(())),
            ("enabled = true", day, Ok(())),
            ("enabled = false", day, Err(Reason::Disabled)),
            ("expires = \"2026-12-31\"", day, Ok(())),
            ("expires = 2026-12-31", day, Ok(())),
            ("expires = \"2026-12-30\"", day, Err(Reason::Expired)),
            (
                "expires = \"2026-12-31\"",
                "2027-01-01T00:00:00Z",
                Err(Reason::Expired),
            ),
            (
                "expires = \"2026-12-31T23:59:59Z\"",
                day,
                Err(Reason::Expired),
            ),
            (
                "expires = \"2027-01-01T00:59:59+01:00\"",
                day,
                Err(Reason::Expired),
            ),
            ("expires = \"2027-01-01T01:00:00+01:00\"", day, Ok(())),
            ("expires = 2027-01-01T00:00:00Z", day, Ok(())),
            (
                "enabled = false\nexpires = \"2020-01-01\"",
                day,
                Err(Reason::Disabled),
            ),
        ] {
            let validity = parse(keys).expect(keys);
            assert_eq!(
                judge(&validity, "::1", now, &TimeZone::UTC),
                verdict,
                "{keys}"
            );
        }
    }

    #[test]
    fn an_account_is_good_in_its_networks() {
        let validity = parse("networks = [\"10.0.0.0/8\", \"2001:db8::/32\"]").expect("valid");
        for (client, verdict) in [
            ("10.1.2.3", Ok(())),
            ("::ffff:10.1.2.3", Ok(())),
            ("2001:db8::1", Ok(())),
            ("192.0.2.1", Err(Reason::WrongNetwork)),
            ("::1", Err(Reason::WrongNetwork)),
        ] {
            let now = "2026-12-31T00:00:00Z";
            assert_eq!(
                judge(&validity, client, now, &TimeZone::UTC),
                verdict,
                "{client}"
            );
        }
    }

    #[test]
    fn hours_are_parts_of_the_week() {
        // 2026-11-23 is a Monday.
        for (hours, days_and_times, within) in [
            ("mon-fri 08:00-18:00", "23T08:00 23T17:59 27T08:00", true),
            (
                "mon-fri 08:00-18:00",
                "23T07:59 23T18:00 28T12:00 29T12:00",
                false,
            ),
            ("MON-FRI  8:00-18:00", "23T08:00", true),
            ("sat,sun 00:00-24:00", "28T00:00 29T23:59", true),
            ("sat,sun 00:00-24:00", "27T23:59 30T00:00", false),
            (
                "fri-mon 12:00-13:00",
                "27T12:00 28T12:00 29T12:00 23T12:00",
                true,
            ),
            ("fri-mon 12:00-13:00", "24T12:00 26T12:00", false),
            ("22:00-06:00", "23T22:00 23T23:59 24T00:00 24T05:59", true),
            ("22:00-06:00", "23T06:00 23T21:59", false),
            // The night from Sunday to Monday began on Sunday.
            ("sun 22:00-06:00", "29T22:00 23T05:59", true),
            ("sun 22:00-06:00", "29T05:59 23T22:00", false),
            ("22:00-24:00", "23T23:59", true),
        ] {
            let validity = parse(&format!("hours = [\"{hours}\"]")).expect(hours);
            for time in days_and_times.split(' ') {
                let now = format!("2026-11-{time}:00Z");
                let verdict = judge(&validity, "::1", &now, &TimeZone::UTC);
                let wanted = if within {
                    Ok(())
                } else {
                    Err(Reason::OutsideHours)
                };
                assert_eq!(verdict, wanted, "{hours} {now}");
            }
        }
    }

    #[test]
    fn hours_are_in_the_time_of_the_host() {
        let validity = parse("hours = [\"mon 08:00-09:00\", \"tue 01:00-02:00\"]").expect("valid");
        let zone = TimeZone::fixed(jiff::tz::offset(2));
        for (now, verdict) in [
            ("2026-11-23T06:00:00Z", Ok(())),
            ("2026-11-23T08:00:00Z", Err(Reason::OutsideHours)),
            // Tuesday there.
            ("2026-11-23T23:30:00Z", Ok(())),
        ] {
            assert_eq!(judge(&validity, "::1", now, &zone), verdict, "{now}");
        }
    }

    #[test]
    fn what_is_no_date_network_or_hour_is_refused_with_a_reason() {
        for (keys, part) in [
            ("enabled = 1", "expected true or false"),
            ("expires = \"tomorrow\"", "neither a date nor a time"),
            ("expires = \"2026-02-30\"", "neither a date"),
            ("expires = \"2026-12-31T18:00:00\"", "with its zone"),
            ("expires = 2026-12-31T18:00:00", "with its zone"),
            ("expires = \"9999-12-31\"", "neither a date"),
            ("networks = \"10.0.0.0/8\"", "expected a list"),
            ("networks = [\"10.0.0.1/8\"]", "bits beyond its prefix"),
            ("hours = [\"mon-fri\"]", "not a part of the week"),
            ("hours = [\"mon-fri 8-18\"]", "not a part of the week"),
            ("hours = [\"monday 08:00-18:00\"]", "not a part of the week"),
            (
                "hours = [\"mon 08:00-18:00 CET\"]",
                "not a part of the week",
            ),
            ("hours = [\"mon 08:00-24:01\"]", "not a part of the week"),
            ("hours = [\"mon 08:60-10:00\"]", "not a part of the week"),
            ("hours = [\"08:00-08:00\"]", "no time at all"),
            ("hours = [\"24:00-06:00\"]", "no time at all"),
            ("hours = [\"\"]", "not a part of the week"),
        ] {
            let error = parse(keys).expect_err(keys);
            assert!(error.contains(part), "{keys}: {error}");
        }
    }
}
