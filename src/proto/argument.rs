//! Arguments of commands as values that exist only if they are valid.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr, SocketAddrV4};

use super::time;

/// The representation type (RFC 959 §3.1.1) in which a file goes over the data connection.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum TypeCode {
    /// `A`, `A N`: lines end in CRLF.
    Ascii,
    /// `I`, `L 8`: bytes as they are.
    Image,
}

impl TypeCode {
    /// `A`, `A N`, `I`, `L 8`, in any case; `None` for what is not served (E, A T, A C, L 7).
    pub fn parse(argument: &[u8]) -> Option<Self> {
        let mut words = argument
            .split(|&byte| byte == b' ')
            .filter(|word| !word.is_empty());
        let code = words.next()?;
        let parameter = words.next();
        if words.next().is_some() {
            return None;
        }
        match (code, parameter) {
            (b"A" | b"a", None | Some(b"N" | b"n")) => Some(Self::Ascii),
            (b"I" | b"i", None) | (b"L" | b"l", Some(b"8")) => Some(Self::Image),
            _ => None,
        }
    }
}

/// Six decimal bytes as in PORT: `h1,h2,h3,h4,p1,p2` (RFC 959 §4.1.2).
pub fn parse_host_port(argument: &[u8]) -> Option<SocketAddrV4> {
    let mut bytes = [0u8; 6];
    let mut fields = argument.split(|&byte| byte == b',');
    for byte in &mut bytes {
        *byte = u8::try_from(parse_decimal(fields.next()?)?).ok()?;
    }
    if fields.next().is_some() {
        return None;
    }
    let [a, b, c, d, high, low] = bytes;
    Some(SocketAddrV4::new(
        Ipv4Addr::new(a, b, c, d),
        u16::from_be_bytes([high, low]),
    ))
}

/// The argument of EPRT (RFC 2428 §2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum NetAddress {
    /// Protocol 1 or 2 with an address of that family.
    Known(SocketAddr),
    /// Another protocol, well formed.
    UnknownProtocol,
}

impl NetAddress {
    /// `|protocol|address|port|` with any printable delimiter.
    pub fn parse(argument: &[u8]) -> Option<Self> {
        let (&delimiter, rest) = argument.split_first()?;
        if !(33..=126).contains(&delimiter) || delimiter.is_ascii_digit() {
            return None;
        }
        let mut fields = rest.split(|&byte| byte == delimiter);
        let protocol = parse_decimal(fields.next()?)?;
        let address = std::str::from_utf8(fields.next()?).ok()?;
        let port = u16::try_from(parse_decimal(fields.next()?)?).ok()?;
        if !fields.next()?.is_empty() || fields.next().is_some() {
            return None;
        }
        let ip = match protocol {
            1 => IpAddr::V4(address.parse::<Ipv4Addr>().ok()?),
            2 => IpAddr::V6(address.parse::<Ipv6Addr>().ok()?),
            _ => return Some(Self::UnknownProtocol),
        };
        Some(Self::Known(SocketAddr::new(ip, port)))
    }

    /// The address, if its protocol is known.
    pub fn address(&self) -> Option<SocketAddr> {
        match self {
            Self::Known(address) => Some(*address),
            Self::UnknownProtocol => None,
        }
    }
}

/// The argument of EPSV (RFC 2428 §3, §4).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum EpsvArgument {
    /// None: the family of the control connection.
    Any,
    /// `1`, `2`, or the number of a family unknown here.
    Family(u8),
    /// `ALL`: no other way of making data connections will be asked for.
    All,
}

impl EpsvArgument {
    /// Nothing, a number, or `ALL` in any case.
    pub fn parse(argument: &[u8]) -> Option<Self> {
        match argument {
            b"" => Some(Self::Any),
            all if all.eq_ignore_ascii_case(b"ALL") => Some(Self::All),
            number => Some(Self::Family(u8::try_from(parse_decimal(number)?).ok()?)),
        }
    }
}

/// What LIST, NLST and STAT are given: options as of ls(1), then a name.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ListArgument<'a> {
    /// What the letters asked for.
    pub options: ListOptions,
    /// The name or pattern.
    pub name: Option<&'a [u8]>,
}

impl<'a> ListArgument<'a> {
    /// `-la name`, `-l -a -- -name`, `name`, nothing. Unknown letters are tolerated, since clients
    /// send whatever their users' ls knows; a lone `-` is a name.
    pub fn parse(argument: &'a [u8]) -> Self {
        let mut options = ListOptions::default();
        let mut rest = argument;
        loop {
            let word_end = memchr::memchr(b' ', rest).unwrap_or(rest.len());
            let (word, after) = rest.split_at(word_end);
            let after = after.strip_prefix(b" ").unwrap_or(after);
            match word {
                b"--" => {
                    rest = after;
                    break;
                }
                [b'-', letters @ ..] if !letters.is_empty() => {
                    letters.iter().for_each(|&letter| options.set(letter));
                    rest = after;
                }
                // Spaces between options and the name; a name itself may begin with a space.
                b"" if !after.is_empty() && after.starts_with(b"-") => rest = after,
                _ => break,
            }
        }
        Self {
            options,
            name: (!rest.is_empty()).then_some(rest),
        }
    }
}

/// The options of ls(1) that make a difference. `-l` makes none to LIST and turns NLST into it, `-1`
/// and `-C` make none: a line has one entry.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ListOptions {
    /// `-a`, `-A`: names that begin with a dot, too.
    pub all: bool,
    /// `-l`: the long form.
    pub long: bool,
    /// `-R`: directories in directories.
    pub recursive: bool,
    /// `-r`: the other way round.
    pub reverse: bool,
    /// `-d`: the directory itself, not what is in it.
    pub directory: bool,
    /// `-F`, `-p`: marks behind names tell directories, links and programs.
    pub classify: bool,
    /// What decides the order.
    pub sort: Sort,
}

impl ListOptions {
    fn set(&mut self, letter: u8) {
        match letter {
            b'a' | b'A' => self.all = true,
            b'l' => self.long = true,
            b'R' => self.recursive = true,
            b'r' => self.reverse = true,
            b'd' => self.directory = true,
            b'F' | b'p' => self.classify = true,
            b't' => self.sort = Sort::Time,
            b'S' => self.sort = Sort::Size,
            _ => {}
        }
    }
}

/// The order of a listing.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub enum Sort {
    /// By name, byte by byte.
    #[default]
    Name,
    /// `-t`: newest first.
    Time,
    /// `-S`: largest first.
    Size,
}

/// A moment given as `YYYYMMDDHHMMSS[.fff]` in UTC (RFC 3659 §2.3).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Timestamp(i64);

impl Timestamp {
    /// A date that the calendar has; fractions of a second are cut off.
    pub fn parse(text: &[u8]) -> Option<Self> {
        time::parse_timestamp(text).map(Self)
    }

    /// The same, or `YYYYMMDDHHMM` as SITE UTIME has it.
    pub fn parse_site(text: &[u8]) -> Option<Self> {
        match text.len() {
            12 => {
                let mut whole = *b"yyyymmddhhmm00";
                whole[..12].copy_from_slice(text);
                Self::parse(&whole)
            }
            _ => Self::parse(text),
        }
    }

    /// Seconds since 1970-01-01 00:00 UTC.
    pub fn seconds(self) -> i64 {
        self.0
    }
}

/// A digest that HASH and its older relatives compute.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum HashAlgorithm {
    /// CRC-32 (ISO 3309).
    Crc32,
    /// MD5 (RFC 1321).
    Md5,
    /// SHA-1 (RFC 3174).
    Sha1,
    /// SHA-256 (RFC 6234).
    Sha256,
    /// SHA-512 (RFC 6234).
    Sha512,
}

impl HashAlgorithm {
    /// All of them, in the order in which FEAT lists them.
    pub const ALL: [Self; 5] = [
        Self::Crc32,
        Self::Md5,
        Self::Sha1,
        Self::Sha256,
        Self::Sha512,
    ];

    /// The name by which HASH knows it (draft-bryan-ftpext-hash §3.1).
    pub const fn name(self) -> &'static str {
        match self {
            Self::Crc32 => "CRC32",
            Self::Md5 => "MD5",
            Self::Sha1 => "SHA-1",
            Self::Sha256 => "SHA-256",
            Self::Sha512 => "SHA-512",
        }
    }

    /// The algorithm of that name, in any case.
    pub fn parse(name: &[u8]) -> Option<Self> {
        Self::ALL
            .into_iter()
            .find(|algorithm| name.eq_ignore_ascii_case(algorithm.name().as_bytes()))
    }
}

/// A part of a file; `None`: from its beginning, to its end.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct ByteRange {
    /// Offset of the first byte.
    pub start: Option<u64>,
    /// Offset after the last byte.
    pub end: Option<u64>,
}

/// The argument of XCRC, XMD5, XSHA1 and their like: `name [start [end]]`, the name in quotes if it
/// has spaces.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct ChecksumArgument<'a> {
    /// The digest that the verb names.
    pub algorithm: HashAlgorithm,
    /// The file.
    pub name: &'a [u8],
    /// The part of it.
    pub range: ByteRange,
}

impl<'a> ChecksumArgument<'a> {
    /// `"name with spaces" 0 99`, `name 0 99`, `name`. Without quotes, trailing numbers are taken
    /// for the range only if something is left for the name.
    pub fn parse(algorithm: HashAlgorithm, argument: &'a [u8]) -> Option<Self> {
        if let Some(rest) = argument.strip_prefix(b"\"") {
            let close = memchr::memchr(b'"', rest)?;
            let mut numbers = rest[close + 1..]
                .split(|&byte| byte == b' ')
                .filter(|word| !word.is_empty());
            let start = optional_number(numbers.next())?;
            let end = optional_number(numbers.next())?;
            if numbers.next().is_some() || close == 0 {
                return None;
            }
            return Self::new(algorithm, &rest[..close], start, end);
        }
        let (before, last) = split_number(argument);
        let (first, number) = split_number(before);
        match (last, number) {
            (None, _) => Self::new(algorithm, argument, None, None),
            (Some(start), None) => Self::new(algorithm, before, Some(start), None),
            (Some(end), Some(start)) => Self::new(algorithm, first, Some(start), Some(end)),
        }
    }

    fn new(
        algorithm: HashAlgorithm,
        name: &'a [u8],
        start: Option<u64>,
        end: Option<u64>,
    ) -> Option<Self> {
        let ordered = start.unwrap_or(0) <= end.unwrap_or(u64::MAX);
        (ordered && !name.is_empty()).then_some(Self {
            algorithm,
            name,
            range: ByteRange { start, end },
        })
    }
}

/// Facts to be set, as MFF is given them: `Modify=…;UNIX.mode=…;`.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct FactList<'a>(&'a [u8]);

impl<'a> FactList<'a> {
    /// At least one `fact=value;`, each with its end.
    pub fn parse(text: &'a [u8]) -> Option<Self> {
        let list = text.strip_suffix(b";")?;
        let sound = list.split(|&byte| byte == b';').all(|fact| {
            memchr::memchr(b'=', fact).is_some_and(|equals| equals > 0 && equals + 1 < fact.len())
        });
        sound.then_some(Self(list))
    }

    /// Facts and their values.
    pub fn iter(&self) -> impl Iterator<Item = (&'a [u8], &'a [u8])> {
        self.0.split(|&byte| byte == b';').filter_map(|fact| {
            let equals = memchr::memchr(b'=', fact)?;
            Some((&fact[..equals], &fact[equals + 1..]))
        })
    }
}

/// A decimal number of digits alone: no sign, no blank, no overflow.
pub fn parse_decimal(digits: &[u8]) -> Option<u64> {
    if digits.is_empty() || digits.len() > 20 {
        return None;
    }
    digits.iter().try_fold(0u64, |number, &digit| match digit {
        b'0'..=b'9' => number.checked_mul(10)?.checked_add(u64::from(digit - b'0')),
        _ => None,
    })
}

/// Permission bits in octal, 0 to 7777.
pub fn parse_octal_mode(digits: &[u8]) -> Option<u32> {
    if digits.is_empty() || digits.len() > 5 {
        return None;
    }
    let mode = digits.iter().try_fold(0u32, |mode, &digit| match digit {
        b'0'..=b'7' => Some(mode << 3 | u32::from(digit - b'0')),
        _ => None,
    })?;
    (mode <= 0o7777).then_some(mode)
}

/// A number that may be missing; `None` only for what is no number.
fn optional_number(word: Option<&[u8]>) -> Option<Option<u64>> {
    word.map_or(Some(None), |digits| parse_decimal(digits).map(Some))
}

/// Splits a number off the end, if there is one and something before it.
fn split_number(text: &[u8]) -> (&[u8], Option<u64>) {
    let split = memchr::memrchr(b' ', text).filter(|&space| space > 0);
    match split.and_then(|space| Some((&text[..space], parse_decimal(&text[space + 1..])?))) {
        Some((before, number)) => (before, Some(number)),
        None => (text, None),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn type_codes_of_rfc_959_section_3_1_1() {
        for (argument, code) in [
            ("A", Some(TypeCode::Ascii)),
            ("a n", Some(TypeCode::Ascii)),
            ("A N", Some(TypeCode::Ascii)),
            ("I", Some(TypeCode::Image)),
            ("L 8", Some(TypeCode::Image)),
            ("l  8", Some(TypeCode::Image)),
            ("A T", None),
            ("A C", None),
            ("E", None),
            ("L", None),
            ("L 7", None),
            ("I N", None),
            ("", None),
            ("X", None),
            ("A N N", None),
        ] {
            assert_eq!(TypeCode::parse(argument.as_bytes()), code, "{argument:?}");
        }
    }

    #[test]
    fn host_ports_of_rfc_959_section_4_1_2() {
        for (argument, address) in [
            ("127,0,0,1,4,1", Some("127.0.0.1:1025")),
            ("10,1,2,3,255,255", Some("10.1.2.3:65535")),
            ("10,1,2,3,0,0", Some("10.1.2.3:0")),
            ("256,0,0,1,4,1", None),
            ("1,2,3,4,5", None),
            ("1,2,3,4,5,6,7", None),
            ("1,2,3,4,5,", None),
            ("-1,2,3,4,5,6", None),
            (" 1,2,3,4,5,6", None),
            ("1, 2,3,4,5,6", None),
            ("", None),
        ] {
            let expected = address.map(|text| text.parse().expect("an address"));
            assert_eq!(
                parse_host_port(argument.as_bytes()),
                expected,
                "{argument:?}"
            );
        }
    }

    #[test]
    fn net_addresses_of_rfc_2428_section_2() {
        for (argument, address) in [
            ("|1|132.235.1.2|6275|", Some(Some("132.235.1.2:6275"))),
            (
                "|2|1080::8:800:200C:417A|5282|",
                Some(Some("[1080::8:800:200C:417A]:5282")),
            ),
            ("!1!127.0.0.1!2000!", Some(Some("127.0.0.1:2000"))),
            ("|3|somewhere|1|", Some(None)),
            ("|1|::1|2000|", None),
            ("|2|127.0.0.1|2000|", None),
            ("|1|127.0.0.1|65536|", None),
            ("|1|127.0.0.1|2000", None),
            ("|1|127.0.0.1|2000|x", None),
            ("1127.0.0.12000", None),
            ("|", None),
            ("", None),
        ] {
            let expected = address.map(|known| match known {
                Some(text) => NetAddress::Known(text.parse().expect("an address")),
                None => NetAddress::UnknownProtocol,
            });
            assert_eq!(
                NetAddress::parse(argument.as_bytes()),
                expected,
                "{argument:?}"
            );
        }
    }

    #[test]
    fn epsv_arguments_of_rfc_2428_section_3() {
        for (argument, expected) in [
            ("", Some(EpsvArgument::Any)),
            ("1", Some(EpsvArgument::Family(1))),
            ("2", Some(EpsvArgument::Family(2))),
            ("7", Some(EpsvArgument::Family(7))),
            ("all", Some(EpsvArgument::All)),
            ("ALL", Some(EpsvArgument::All)),
            ("999", None),
            ("x", None),
            (" 1", None),
        ] {
            assert_eq!(
                EpsvArgument::parse(argument.as_bytes()),
                expected,
                "{argument:?}"
            );
        }
    }

    #[test]
    fn list_arguments_as_clients_send_them() {
        let plain = ListOptions::default();
        let all_long = ListOptions {
            all: true,
            long: true,
            ..plain
        };
        let classify = ListOptions {
            classify: true,
            ..plain
        };
        for (argument, options, name) in [
            ("", plain, None),
            ("dir", plain, Some("dir")),
            ("-la", all_long, None),
            ("-l -a", all_long, None),
            ("-la dir", all_long, Some("dir")),
            ("-a -l some dir", all_long, Some("some dir")),
            ("-al -- -odd", all_long, Some("-odd")),
            ("-CF", classify, None),
            ("-", plain, Some("-")),
            ("-Z", plain, None),
            (" spaced", plain, Some(" spaced")),
            ("-la  spaced", all_long, Some(" spaced")),
        ] {
            let parsed = ListArgument::parse(argument.as_bytes());
            assert_eq!(parsed.options, options, "{argument:?}");
            assert_eq!(parsed.name, name.map(str::as_bytes), "{argument:?}");
        }
        let sorted = ListArgument::parse(b"-trR").options;
        assert_eq!(
            (sorted.sort, sorted.reverse, sorted.recursive),
            (Sort::Time, true, true)
        );
        assert_eq!(ListArgument::parse(b"-S -d").options.sort, Sort::Size);
    }

    #[test]
    fn checksum_arguments() {
        for (argument, expected) in [
            ("a.iso", Some(("a.iso", None, None))),
            ("a.iso 10", Some(("a.iso", Some(10), None))),
            ("a.iso 10 20", Some(("a.iso", Some(10), Some(20)))),
            ("my file", Some(("my file", None, None))),
            ("\"my 1\" 5 6", Some(("my 1", Some(5), Some(6)))),
            ("\"a\"", Some(("a", None, None))),
            ("10", Some(("10", None, None))),
            ("a 20 10", None),
            ("\"a", None),
            ("\"\"", None),
            ("\"a\" x", None),
            ("\"a\" 1 2 3", None),
            ("", None),
        ] {
            let parsed = ChecksumArgument::parse(HashAlgorithm::Md5, argument.as_bytes());
            let parsed = parsed.map(|p| (p.name, p.range.start, p.range.end));
            let expected = expected.map(|(name, start, end)| (name.as_bytes(), start, end));
            assert_eq!(parsed, expected, "{argument:?}");
        }
    }

    #[test]
    fn fact_lists() {
        let list = FactList::parse(b"Modify=20260101000000;UNIX.mode=0644;").expect("two facts");
        assert_eq!(
            list.iter().collect::<Vec<_>>(),
            [
                (&b"Modify"[..], &b"20260101000000"[..]),
                (&b"UNIX.mode"[..], &b"0644"[..])
            ]
        );
        for broken in ["", ";", "a", "a=1", "=1;", "a=;", "a=1;;"] {
            assert_eq!(FactList::parse(broken.as_bytes()), None, "{broken:?}");
        }
    }

    #[test]
    fn numbers_are_digits_alone() {
        for (digits, number) in [
            ("0", Some(0)),
            ("18446744073709551615", Some(u64::MAX)),
            ("18446744073709551616", None),
            ("000000000000000000001", None),
            ("-1", None),
            ("+1", None),
            (" 1", None),
            ("1k", None),
            ("", None),
        ] {
            assert_eq!(parse_decimal(digits.as_bytes()), number, "{digits:?}");
        }
        for (digits, mode) in [
            ("644", Some(0o644)),
            ("07777", Some(0o7777)),
            ("10000", None),
            ("8", None),
            ("", None),
            ("777777", None),
        ] {
            assert_eq!(parse_octal_mode(digits.as_bytes()), mode, "{digits:?}");
        }
    }

    #[test]
    fn algorithms_have_names() {
        for algorithm in HashAlgorithm::ALL {
            assert_eq!(
                HashAlgorithm::parse(algorithm.name().as_bytes()),
                Some(algorithm)
            );
        }
        assert_eq!(
            HashAlgorithm::parse(b"sha-256"),
            Some(HashAlgorithm::Sha256)
        );
        assert_eq!(HashAlgorithm::parse(b"SHA3"), None);
    }
}
