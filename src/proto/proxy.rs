//! The header by which a balancer says on whose behalf it connects: PROXY protocol, versions 1 and 2
//! (HAProxy, `doc/proxy-protocol.txt`), the receiver's side.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr, SocketAddr};
use std::str::FromStr;

use thiserror::Error;

/// What a header says.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Header {
    /// The connection is that of a client.
    Proxied {
        /// The client.
        source: SocketAddr,
        /// The address at which it reached the balancer.
        destination: SocketAddr,
    },
    /// The connection is the balancer's own (a health check), or it does not know whose.
    Local,
}

/// Why something is no header.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum ProxyError {
    /// Neither version begins so.
    #[error("no PROXY header")]
    Absent,
    /// A version 1 line that is too long or not well formed.
    #[error("malformed PROXY header of version 1")]
    Line,
    /// A version 2 header with a version, command, family or length that does not exist.
    #[error("malformed PROXY header of version 2")]
    Binary,
    /// A version 2 header with more additions than are accepted.
    #[error("PROXY header longer than {HEADER_LENGTH_MAX} bytes")]
    TooLong,
    /// The checksum of a version 2 header is wrong.
    #[error("PROXY header with a wrong checksum")]
    Checksum,
}

/// The longest header that is taken, in bytes. Version 1 lines have 107 at the most (§2.1); version 2
/// headers have 52 and additions (§2.2), of which certificates' names are the longest in use.
pub const HEADER_LENGTH_MAX: usize = 16 + 2048;

/// Parses the beginning of a connection: the length of the header and what it says, or `None` if
/// that is not all of it.
///
/// # Errors
///
/// What is there cannot become a header.
pub fn parse(bytes: &[u8]) -> Result<Option<(usize, Header)>, ProxyError> {
    match bytes.first() {
        None => Ok(None),
        Some(b'P') => parse_line(bytes),
        Some(_) => parse_binary(bytes),
    }
}

/// §2.1: `PROXY TCP4 192.168.0.1 192.168.0.11 56324 443`, and CRLF.
fn parse_line(bytes: &[u8]) -> Result<Option<(usize, Header)>, ProxyError> {
    let known = bytes.len().min(LINE_START.len());
    if bytes[..known] != LINE_START[..known] {
        return Err(ProxyError::Absent);
    }
    let within = &bytes[..bytes.len().min(LINE_LENGTH_MAX)];
    let Some(end) = within.windows(2).position(|two| two == b"\r\n") else {
        return match bytes.len() < LINE_LENGTH_MAX {
            true => Ok(None),
            false => Err(ProxyError::Line),
        };
    };
    let line = within.get(LINE_START.len()..end).ok_or(ProxyError::Line)?;
    let line = std::str::from_utf8(line).map_err(|_| ProxyError::Line)?;
    let header = line_header(line).ok_or(ProxyError::Line)?;
    Ok(Some((end + 2, header)))
}

fn line_header(line: &str) -> Option<Header> {
    let mut words = line.split(' ');
    let protocol = words.next()?;
    if protocol == "UNKNOWN" {
        // Whatever else stands there must be ignored.
        return Some(Header::Local);
    }
    let (source, destination) = (words.next()?, words.next()?);
    let (from, to) = (port(words.next()?)?, port(words.next()?)?);
    let addresses = match protocol {
        "TCP4" => (ip::<Ipv4Addr>(source)?, ip::<Ipv4Addr>(destination)?),
        "TCP6" => (ip::<Ipv6Addr>(source)?, ip::<Ipv6Addr>(destination)?),
        _ => return None,
    };
    words.next().is_none().then(|| Header::Proxied {
        source: SocketAddr::new(addresses.0, from),
        destination: SocketAddr::new(addresses.1, to),
    })
}

fn ip<A: FromStr + Into<IpAddr>>(text: &str) -> Option<IpAddr> {
    let address: A = text.parse().ok()?;
    Some(address.into().to_canonical())
}

/// Decimal, without sign or leading zeros.
fn port(text: &str) -> Option<u16> {
    let is_plain = text == "0" || text.starts_with(|c: char| matches!(c, '1'..='9'));
    text.parse().ok().filter(|_| is_plain)
}

/// §2.2: the signature, version and command, family and protocol, length; then addresses and
/// additions (type, length, value).
fn parse_binary(bytes: &[u8]) -> Result<Option<(usize, Header)>, ProxyError> {
    let known = bytes.len().min(SIGNATURE.len());
    if bytes[..known] != SIGNATURE[..known] {
        return Err(ProxyError::Absent);
    }
    let is_local = match bytes.get(12) {
        None => return Ok(None),
        Some(0x20) => true,
        Some(0x21) => false,
        Some(_) => return Err(ProxyError::Binary),
    };
    let Some(&family) = bytes.get(13) else {
        return Ok(None);
    };
    let addresses_length = match family {
        // A health check: its family is ignored, and the rest discarded unseen.
        _ if is_local => 0,
        // Unspecified: whose connection it is the balancer does not know.
        0x00 => 0,
        0x11 => 12,
        0x21 => 36,
        // Over a UNIX socket: from the balancer's own host.
        0x31 => 216,
        // What came over UDP cannot be this connection.
        _ => return Err(ProxyError::Binary),
    };
    let Some((fixed, rest)) = bytes.split_at_checked(16) else {
        return Ok(None);
    };
    let length = usize::from(u16::from_be_bytes([fixed[14], fixed[15]]));
    if 16 + length > HEADER_LENGTH_MAX {
        return Err(ProxyError::TooLong);
    }
    if length < addresses_length {
        return Err(ProxyError::Binary);
    }
    let Some(body) = rest.get(..length) else {
        return Ok(None);
    };
    let header = match (is_local, family) {
        (false, 0x11) => proxied::<4, Ipv4Addr>(body).ok_or(ProxyError::Binary)?,
        (false, 0x21) => proxied::<16, Ipv6Addr>(body).ok_or(ProxyError::Binary)?,
        // Nothing of it is used, so that there is nothing to check.
        _ => return Ok(Some((16 + length, Header::Local))),
    };
    check_additions(&bytes[..16 + length], &body[addresses_length..])?;
    Ok(Some((16 + length, header)))
}

/// Two addresses of `N` bytes, then two ports.
fn proxied<const N: usize, A: From<[u8; N]> + Into<IpAddr>>(body: &[u8]) -> Option<Header> {
    let (source, rest) = body.split_first_chunk::<N>()?;
    let (destination, rest) = rest.split_first_chunk::<N>()?;
    let (from, rest) = rest.split_first_chunk()?;
    let (to, _) = rest.split_first_chunk()?;
    let address = |bytes: &[u8; N], port: &[u8; 2]| {
        let ip: IpAddr = A::from(*bytes).into();
        SocketAddr::new(ip.to_canonical(), u16::from_be_bytes(*port))
    };
    Some(Header::Proxied {
        source: address(source, from),
        destination: address(destination, to),
    })
}

/// Looks through the additions: they must be whole, and a checksum among them right.
fn check_additions(header: &[u8], mut additions: &[u8]) -> Result<(), ProxyError> {
    let mut is_checked = false;
    while let [kind, high, low, rest @ ..] = additions {
        let length = usize::from(u16::from_be_bytes([*high, *low]));
        let value = rest.get(..length).ok_or(ProxyError::Binary)?;
        if *kind == CHECKSUM {
            // One is enough: each costs a pass over the header.
            if std::mem::replace(&mut is_checked, true) {
                return Err(ProxyError::Binary);
            }
            let wanted: [u8; 4] = value.try_into().map_err(|_| ProxyError::Binary)?;
            // The sum is that of the header with zeros in its place.
            let at = header.len() - rest.len();
            let without = header.iter().enumerate().map(|(index, byte)| {
                match (at..at + 4).contains(&index) {
                    true => 0,
                    false => *byte,
                }
            });
            if crc32c(without) != u32::from_be_bytes(wanted) {
                return Err(ProxyError::Checksum);
            }
        }
        additions = &rest[length..];
    }
    match additions.is_empty() {
        true => Ok(()),
        false => Err(ProxyError::Binary),
    }
}

/// CRC-32C (RFC 4960 appendix B), bit by bit: a header is short, and few carry a sum.
fn crc32c(bytes: impl Iterator<Item = u8>) -> u32 {
    let crc = bytes.fold(u32::MAX, |crc, byte| {
        (0..8).fold(crc ^ u32::from(byte), |crc, _| {
            (crc >> 1) ^ (0x82f6_3b78 & (crc & 1).wrapping_neg())
        })
    });
    !crc
}

const LINE_START: &[u8] = b"PROXY ";

/// §2.1: the longest line there can be, its CRLF included.
const LINE_LENGTH_MAX: usize = 107;

const SIGNATURE: &[u8] = b"\r\n\r\n\0\r\nQUIT\n";

/// §2.2.3, PP2_TYPE_CRC32C.
const CHECKSUM: u8 = 0x03;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn proxied_header(source: &str, destination: &str) -> Header {
        Header::Proxied {
            source: source.parse().expect("an address"),
            destination: destination.parse().expect("an address"),
        }
    }

    /// Version and command, family, and what follows the length.
    fn binary(command: u8, family: u8, body: &[u8]) -> Vec<u8> {
        let mut header = [SIGNATURE, &[command, family]].concat();
        header.extend_from_slice(&(body.len() as u16).to_be_bytes());
        header.extend_from_slice(body);
        header
    }

    const V4: [u8; 12] = [192, 0, 2, 1, 198, 51, 100, 2, 0x9c, 0x40, 0, 21];

    fn v6() -> Vec<u8> {
        let source: Ipv6Addr = "2001:db8::1".parse().expect("an address");
        let destination: Ipv6Addr = "2001:db8::2".parse().expect("an address");
        [&source.octets()[..], &destination.octets(), &V4[8..]].concat()
    }

    fn addition(kind: u8, value: &[u8]) -> Vec<u8> {
        [&[kind][..], &(value.len() as u16).to_be_bytes(), value].concat()
    }

    /// With a checksum that is right.
    fn with_checksum() -> Vec<u8> {
        let body = [&V4[..], &addition(1, b"ftp"), &addition(CHECKSUM, &[0; 4])].concat();
        let mut header = binary(0x21, 0x11, &body);
        let sum = crc32c(header.iter().copied());
        let at = header.len() - 4;
        header[at..].copy_from_slice(&sum.to_be_bytes());
        header
    }

    fn valid() -> Vec<(Vec<u8>, Header)> {
        let four = proxied_header("192.0.2.1:40000", "198.51.100.2:21");
        let six = proxied_header("[2001:db8::1]:40000", "[2001:db8::2]:21");
        let line = |text: &str| text.as_bytes().to_vec();
        vec![
            (line("PROXY TCP4 192.0.2.1 198.51.100.2 40000 21\r\n"), four),
            (line("PROXY TCP6 2001:db8::1 2001:db8::2 40000 21\r\n"), six),
            (
                line("PROXY TCP6 ::ffff:192.0.2.1 ::ffff:198.51.100.2 40000 21\r\n"),
                four,
            ),
            (line("PROXY UNKNOWN\r\n"), Header::Local),
            (line("PROXY UNKNOWN ffff::1 what ever\r\n"), Header::Local),
            (binary(0x21, 0x11, &V4), four),
            (
                binary(0x21, 0x11, &[&V4[..], &addition(4, &[7; 99])].concat()),
                four,
            ),
            (with_checksum(), four),
            (binary(0x21, 0x21, &v6()), six),
            (
                binary(0x21, 0x21, &[&v6()[..], &addition(1, b"h2")].concat()),
                six,
            ),
            (binary(0x20, 0x00, &[]), Header::Local),
            (binary(0x20, 0x11, &V4), Header::Local),
            // §2.2: a LOCAL header is valid whatever its family and block.
            (binary(0x20, 0x12, &V4), Header::Local),
            (binary(0x20, 0x00, &[1, 2, 3]), Header::Local),
            (binary(0x21, 0x00, &V4), Header::Local),
            (binary(0x21, 0x00, &[]), Header::Local),
            (binary(0x21, 0x31, &[0; 216]), Header::Local),
        ]
    }

    #[test]
    fn headers_say_who_connects() {
        for (bytes, header) in valid() {
            assert_eq!(parse(&bytes), Ok(Some((bytes.len(), header))), "{bytes:?}");
            // Not a byte of what follows belongs to it.
            let more = [&bytes[..], b"USER x\r\n"].concat();
            assert_eq!(parse(&more), Ok(Some((bytes.len(), header))), "{bytes:?}");
            for end in 0..bytes.len() {
                assert_eq!(parse(&bytes[..end]), Ok(None), "{:?}", &bytes[..end]);
            }
        }
    }

    #[test]
    fn what_cannot_become_a_header_is_refused_at_once() {
        let mut wrong_sum = with_checksum();
        wrong_sum[20] ^= 1;
        for (bytes, error) in [
            (b"U".to_vec(), ProxyError::Absent),
            (b"PASV\r\n".to_vec(), ProxyError::Absent),
            (b"\r\nQ".to_vec(), ProxyError::Absent),
            (
                b"PROXY TCP4 1.2.3.4 1.2.3.4 1 65536\r\n".to_vec(),
                ProxyError::Line,
            ),
            (
                b"PROXY TCP4 1.2.3.4 1.2.3.4 01 2\r\n".to_vec(),
                ProxyError::Line,
            ),
            (
                b"PROXY TCP4 1.2.3.4 1.2.3.4 +1 2\r\n".to_vec(),
                ProxyError::Line,
            ),
            (
                b"PROXY TCP4  1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
                ProxyError::Line,
            ),
            (
                b"PROXY TCP4 1.2.3.4 1.2.3.4 1 2 \r\n".to_vec(),
                ProxyError::Line,
            ),
            (b"PROXY TCP4 ::1 ::1 1 2\r\n".to_vec(), ProxyError::Line),
            (
                b"PROXY TCP6 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
                ProxyError::Line,
            ),
            (
                b"PROXY UDP4 1.2.3.4 1.2.3.4 1 2\r\n".to_vec(),
                ProxyError::Line,
            ),
            (b"PROXY \r\n".to_vec(), ProxyError::Line),
            (
                [b"PROXY UNKNOWN ", &[b'x'; 93][..]].concat(),
                ProxyError::Line,
            ),
            (binary(0x11, 0x11, &V4), ProxyError::Binary),
            ([SIGNATURE, &[0x31]].concat(), ProxyError::Binary),
            ([SIGNATURE, &[0x21, 0x12]].concat(), ProxyError::Binary),
            (
                [SIGNATURE, &[0x21, 0x11, 0, 11]].concat(),
                ProxyError::Binary,
            ),
            (binary(0x22, 0x11, &V4), ProxyError::Binary),
            (binary(0x21, 0x12, &V4), ProxyError::Binary),
            (binary(0x21, 0x11, &V4[..11]), ProxyError::Binary),
            (binary(0x21, 0x21, &V4), ProxyError::Binary),
            (
                binary(0x21, 0x11, &[&V4[..], &[1, 0]].concat()),
                ProxyError::Binary,
            ),
            (
                binary(0x21, 0x11, &[&V4[..], &[1, 0, 9, 1]].concat()),
                ProxyError::Binary,
            ),
            (binary(0x21, 0x11, &[0; 2049]), ProxyError::TooLong),
            (wrong_sum, ProxyError::Checksum),
        ] {
            assert_eq!(parse(&bytes), Err(error), "{}", bytes.escape_ascii());
        }
    }

    #[test]
    fn the_checksum_is_that_of_rfc_3720() {
        // RFC 3720 appendix B.4.
        assert_eq!(crc32c([0; 32].into_iter()), 0x8a91_36aa);
        assert_eq!(crc32c([0xff; 32].into_iter()), 0x62a8_ab43);
        assert_eq!(crc32c(0..32), 0x46dd_794e);
    }

    proptest! {
        #[test]
        fn anything_is_parsed_without_harm(
            start in 0..3usize,
            bytes in prop::collection::vec(any::<u8>(), 0..300),
        ) {
            let bytes = [[&b""[..], LINE_START, SIGNATURE][start], &bytes].concat();
            match parse(&bytes) {
                Ok(Some((length, _))) => prop_assert!(length <= bytes.len()),
                Ok(None) => prop_assert!(bytes.len() < HEADER_LENGTH_MAX),
                Err(_) => {}
            }
        }
    }
}
