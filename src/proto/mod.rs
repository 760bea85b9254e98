//! The protocol as pure code: bytes ⇄ control lines ⇄ commands, replies, paths, listing lines.
//!
//! No I/O, no clock, no descriptor and no await: everything here can be tested from a table, and is.
//!
//! | RFC | what | where |
//! |---|---|---|
//! | 959, 1123 §4.1 | commands, replies, TYPE A, PORT | [`command`], [`reply`], [`ascii`], [`argument`] |
//! | 854 | Telnet sequences on the control connection | [`mod@line`] |
//! | 2389 | FEAT, OPTS | [`feature`], [`command`] |
//! | 2428 | EPRT, EPSV | [`argument`] |
//! | 2640 | UTF-8 names, LANG | [`path`], [`command`] |
//! | 3659 | SIZE, MDTM, REST, MLST, MLSD | [`listing`], [`time`], [`command`] |
//! | 7151 | HOST | [`command`] |
//! | 4632, 4291 | networks of addresses, for rules about clients | [`network`] |
//! | none (HAProxy) | PROXY headers of balancers, versions 1 and 2 | [`proxy`] |

pub mod argument;
pub mod ascii;
pub mod command;
pub mod failure;
pub mod feature;
pub mod glob;
pub mod line;
pub mod listing;
pub mod network;
pub mod path;
pub mod proxy;
pub mod reply;
pub mod rights;
pub mod time;

/// A name from outside as one line of text for a log: what is no printable UTF-8 is escaped, so that
/// nobody writes into an operator's terminal or forges a line.
pub fn printable(bytes: &[u8]) -> String {
    let mut text = String::with_capacity(bytes.len());
    for chunk in bytes.utf8_chunks() {
        for letter in chunk.valid().chars() {
            match letter.is_control()
                || matches!(letter, '\u{2028}' | '\u{2029}' | '\u{202a}'..='\u{202e}' | '\u{2066}'..='\u{2069}')
            {
                true => text.extend(letter.escape_default()),
                false => text.push(letter),
            }
        }
        for byte in chunk.invalid() {
            text.extend(std::ascii::escape_default(*byte).map(char::from));
        }
    }
    text
}

#[cfg(test)]
mod tests {
    use super::printable;

    #[test]
    fn a_name_cannot_write_into_the_log() {
        for (name, text) in [
            (&b"plain name"[..], "plain name"),
            ("Grüße".as_bytes(), "Grüße"),
            (b"a\nINFO forged", "a\\nINFO forged"),
            (b"\x1b[2J", "\\u{1b}[2J"),
            (b"\xff\xfe", "\\xff\\xfe"),
            ("\u{202e}gpj.exe".as_bytes(), "\\u{202e}gpj.exe"),
        ] {
            assert_eq!(printable(name), text);
        }
    }
}
