//! Times as the protocol writes them, in UTC: `YYYYMMDDHHMMSS` (RFC 3659 §2.3) and the dates of
//! `ls -l`.
//!
//! Everything here is a function of Unix seconds: no clock, no time zone. RFC 3659 §2.3 wants UTC;
//! listings use it too, so that a file shows the same time in LIST and in MDTM.

/// Appends `seconds` (since 1970-01-01 00:00 UTC) as `YYYYMMDDHHMMSS`.
///
/// A time outside the years 1000 to 9999, which that form cannot say, becomes the nearest one that
/// it can.
pub fn write_timestamp(out: &mut Vec<u8>, seconds: i64) {
    let civil = Civil::from_seconds(seconds);
    let mut text = [0; 14];
    text[..4].copy_from_slice(&civil.year_digits());
    text[4..6].copy_from_slice(&two_digits(civil.month));
    text[6..8].copy_from_slice(&two_digits(civil.day));
    text[8..10].copy_from_slice(&two_digits(civil.hour));
    text[10..12].copy_from_slice(&two_digits(civil.minute));
    text[12..].copy_from_slice(&two_digits(civil.second));
    out.extend_from_slice(&text);
}

/// Reads `YYYYMMDDHHMMSS` with an optional fraction (`.` and at least one digit, which is left out)
/// into Unix seconds. `None`: not that form, or no such time.
///
/// Second 60, which RFC 3659 §2.3 allows for leap seconds, is the second after 59, as Unix time has
/// it.
pub fn parse_timestamp(text: &[u8]) -> Option<i64> {
    let (digits, rest) = text.split_at_checked(14)?;
    match rest {
        [] => {}
        [b'.', fraction @ ..] if !fraction.is_empty() => {
            if !fraction.iter().all(u8::is_ascii_digit) {
                return None;
            }
        }
        _ => return None,
    }
    Some(Civil {
        year: number(&digits[..4])?,
        month: number(&digits[4..6])?,
        day: number(&digits[6..8])?,
        hour: number(&digits[8..10])?,
        minute: number(&digits[10..12])?,
        second: number(&digits[12..])?,
    })
    .and_then(Civil::seconds)
}

/// Appends the date of `modified` as `ls -l` does at the time `now` (both in Unix seconds), always
/// 12 bytes: `Jan  2 03:04` within the last six months, else `Jan  2  2003`.
///
/// Clients guess the year of the first form: it is the one that makes the date lie in the past.
pub fn write_list_date(out: &mut Vec<u8>, modified: i64, now: i64) {
    let civil = Civil::from_seconds(modified);
    let mut text = *b"Jan  0  0000";
    text[..3].copy_from_slice(MONTHS[(civil.month - 1) as usize]);
    text[4..6].copy_from_slice(&two_digits(civil.day));
    if text[4] == b'0' {
        text[4] = b' ';
    }
    let age = now.saturating_sub(modified);
    if (-FUTURE_SECONDS_MAX..RECENT_SECONDS_MAX).contains(&age) {
        text[7..9].copy_from_slice(&two_digits(civil.hour));
        text[9] = b':';
        text[10..].copy_from_slice(&two_digits(civil.minute));
    } else {
        text[8..].copy_from_slice(&civil.year_digits());
    }
    out.extend_from_slice(&text);
}

/// A time of the Gregorian calendar in UTC, as the digits of the protocol give it.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Civil {
    /// 1000 to 9999: RFC 3659 §2.3.
    pub year: u32,
    /// 1 to 12.
    pub month: u32,
    /// 1 to 31.
    pub day: u32,
    /// 0 to 23.
    pub hour: u32,
    /// 0 to 59.
    pub minute: u32,
    /// 0 to 60.
    pub second: u32,
}

impl Civil {
    /// The Unix seconds of this time; `None` if the calendar has no such time.
    pub fn seconds(self) -> Option<i64> {
        let exists = (1000..=9999).contains(&self.year)
            && (1..=12).contains(&self.month)
            && (1..=days_of_month(self.year, self.month)).contains(&self.day)
            && self.hour <= 23
            && self.minute <= 59
            && self.second <= 60;
        if !exists {
            return None;
        }
        let time = self.hour * 3600 + self.minute * 60 + self.second;
        Some(days_from_civil(self.year, self.month, self.day) * DAY_SECONDS + i64::from(time))
    }

    /// The time of `seconds`, or the nearest one in the years 1000 to 9999.
    pub fn from_seconds(seconds: i64) -> Self {
        let seconds = seconds.clamp(SECONDS_MIN, SECONDS_MAX);
        let (year, month, day) = civil_from_days(seconds.div_euclid(DAY_SECONDS));
        // Below 86 400.
        let time = seconds.rem_euclid(DAY_SECONDS) as u32;
        Self {
            year,
            month,
            day,
            hour: time / 3600,
            minute: time / 60 % 60,
            second: time % 60,
        }
    }

    fn year_digits(self) -> [u8; 4] {
        let [thousands, hundreds] = two_digits(self.year / 100);
        let [tens, ones] = two_digits(self.year % 100);
        [thousands, hundreds, tens, ones]
    }
}

/// Days from 1970-01-01 to a date. Years are counted from 1 March of the year 0, so that the leap
/// day is the last of its year, in eras of 400 years, after which the calendar repeats.
fn days_from_civil(year: u32, month: u32, day: u32) -> i64 {
    let year = i64::from(year) - i64::from(month <= 2);
    let (era, year_of_era) = (year.div_euclid(400), year.rem_euclid(400));
    let month_from_march = i64::from((month + 9) % 12);
    let day_of_year = (153 * month_from_march + 2) / 5 + i64::from(day) - 1;
    let day_of_era = year_of_era * 365 + year_of_era / 4 - year_of_era / 100 + day_of_year;
    era * ERA_DAYS + day_of_era - EPOCH_DAYS
}

/// The inverse of [`days_from_civil`], for days from [`SECONDS_MIN`] to [`SECONDS_MAX`].
fn civil_from_days(days: i64) -> (u32, u32, u32) {
    let days = days + EPOCH_DAYS;
    let era = days.div_euclid(ERA_DAYS);
    // Below ERA_DAYS, from here on everything fits into 32 bits.
    let day_of_era = days.rem_euclid(ERA_DAYS) as u32;
    let year_of_era =
        (day_of_era - day_of_era / 1460 + day_of_era / 36524 - day_of_era / 146_096) / 365;
    let day_of_year = day_of_era - (365 * year_of_era + year_of_era / 4 - year_of_era / 100);
    let month_from_march = (5 * day_of_year + 2) / 153;
    let day = day_of_year - (153 * month_from_march + 2) / 5 + 1;
    let month = match month_from_march {
        0..10 => month_from_march + 3,
        _ => month_from_march - 9,
    };
    let year = era * 400 + i64::from(year_of_era) + i64::from(month <= 2);
    (year as u32, month, day)
}

fn days_of_month(year: u32, month: u32) -> u32 {
    let leap = year.is_multiple_of(4) && (!year.is_multiple_of(100) || year.is_multiple_of(400));
    match month {
        2 => 28 + u32::from(leap),
        4 | 6 | 9 | 11 => 30,
        _ => 31,
    }
}

/// Decimal digits only, at most four of them.
fn number(digits: &[u8]) -> Option<u32> {
    digits.iter().try_fold(0, |number, digit| {
        digit
            .is_ascii_digit()
            .then(|| number * 10 + u32::from(digit - b'0'))
    })
}

/// The last two digits of a number below 100.
fn two_digits(number: u32) -> [u8; 2] {
    [b'0' + (number / 10 % 10) as u8, b'0' + (number % 10) as u8]
}

const MONTHS: [&[u8; 3]; 12] = [
    b"Jan", b"Feb", b"Mar", b"Apr", b"May", b"Jun", b"Jul", b"Aug", b"Sep", b"Oct", b"Nov", b"Dec",
];

const DAY_SECONDS: i64 = 86_400;

/// Days of 400 years.
const ERA_DAYS: i64 = 146_097;

/// Days from 0000-03-01 to 1970-01-01.
const EPOCH_DAYS: i64 = 719_468;

/// 1000-01-01 00:00:00.
const SECONDS_MIN: i64 = -30_610_224_000;

/// 9999-12-31 23:59:59.
const SECONDS_MAX: i64 = 253_402_300_799;

/// Half a year of 365.2425 days, as GNU ls has it.
const RECENT_SECONDS_MAX: i64 = 15_778_476;

/// A listing is made after its `now` was taken: what changes meanwhile is still recent.
const FUTURE_SECONDS_MAX: i64 = 600;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn timestamp(seconds: i64) -> String {
        let mut out = Vec::new();
        write_timestamp(&mut out, seconds);
        String::from_utf8(out).expect("digits")
    }

    #[test]
    fn timestamps_are_written_and_read() {
        // RFC 3659 §2.3: YYYYMMDDHHMMSS, UTC.
        for (text, seconds) in [
            ("19700101000000", 0),
            ("19700101000001", 1),
            ("19691231235959", -1),
            ("19990929235959", 938_649_599),
            ("20000229120000", 951_825_600),
            ("20000301000000", 951_868_800),
            ("20380119031408", 1 << 31),
            ("21000228235959", 4_107_542_399),
            ("21000301000000", 4_107_542_400),
            ("10000101000000", SECONDS_MIN),
            ("10000301000000", SECONDS_MIN + 59 * DAY_SECONDS),
            ("99991231235959", SECONDS_MAX),
        ] {
            assert_eq!(parse_timestamp(text.as_bytes()), Some(seconds), "{text}");
            assert_eq!(timestamp(seconds), text);
        }
    }

    #[test]
    fn other_forms_of_a_timestamp() {
        for (text, seconds) in [
            // RFC 3659 §2.3: fractions of a second, of any length.
            ("19700101000001.5", Some(1)),
            ("19700101000001.123456789", Some(1)),
            ("19700101000001.", None),
            ("19700101000001.5x", None),
            ("19700101000001.-5", None),
            ("19700101000001,5", None),
            // A leap second.
            ("20161231235960", Some(1_483_228_800)),
            ("20161231235961", None),
            // No such times.
            ("09991231235959", None),
            ("19700001000000", None),
            ("19701301000000", None),
            ("19700100000000", None),
            ("19700132000000", None),
            ("19700431000000", None),
            ("19700229000000", None),
            ("19720229000000", Some(68_169_600)),
            ("19000229000000", None),
            ("20000230000000", None),
            ("19700101240000", None),
            ("19700101006000", None),
            // No such form.
            ("", None),
            ("1970010100000", None),
            ("197001010000000", None),
            ("1970010100000x", None),
            ("+9700101000000", None),
            (" 1970010100000", None),
            ("19700101000000 ", None),
            ("1970-1-1000000", None),
        ] {
            assert_eq!(parse_timestamp(text.as_bytes()), seconds, "{text:?}");
        }
        assert_eq!(parse_timestamp("１９７０01".as_bytes()), None);
    }

    #[test]
    fn times_that_have_no_timestamp_become_the_nearest() {
        assert_eq!(timestamp(i64::MIN), "10000101000000");
        assert_eq!(timestamp(i64::MAX), "99991231235959");
    }

    #[test]
    fn list_dates_are_those_of_ls() {
        // 2026-05-04 03:02:01.
        const NOW: i64 = 1_777_863_721;
        for (modified, date) in [
            (NOW, "May  4 03:02"),
            (NOW - 62, "May  4 03:00"),
            (NOW - DAY_SECONDS * 20, "Apr 14 03:02"),
            (NOW - RECENT_SECONDS_MAX + 1, "Nov  2 12:07"),
            (NOW - RECENT_SECONDS_MAX, "Nov  2  2025"),
            (NOW + FUTURE_SECONDS_MAX, "May  4 03:12"),
            (NOW + FUTURE_SECONDS_MAX + 1, "May  4  2026"),
            (0, "Jan  1  1970"),
            (i64::MIN, "Jan  1  1000"),
            (i64::MAX, "Dec 31  9999"),
        ] {
            let mut out = Vec::new();
            write_list_date(&mut out, modified, NOW);
            assert_eq!(String::from_utf8_lossy(&out), date, "{modified}");
        }
    }

    #[test]
    fn every_day_follows_the_one_before() {
        let (mut year, mut month, mut day) = (1000, 1, 1);
        for days in SECONDS_MIN / DAY_SECONDS..=SECONDS_MAX / DAY_SECONDS {
            assert_eq!(civil_from_days(days), (year, month, day));
            assert_eq!(days_from_civil(year, month, day), days);
            day += 1;
            if day > days_of_month(year, month) {
                (month, day) = (month + 1, 1);
            }
            if month > 12 {
                (year, month) = (year + 1, 1);
            }
        }
        assert_eq!(year, 10_000);
    }

    proptest! {
        #[test]
        fn what_is_written_is_read(seconds in SECONDS_MIN..=SECONDS_MAX) {
            prop_assert_eq!(parse_timestamp(timestamp(seconds).as_bytes()), Some(seconds));
        }

        #[test]
        fn no_bytes_make_it_panic(text in prop::collection::vec(any::<u8>(), 0..24)) {
            let _ = parse_timestamp(&text);
        }
    }
}
