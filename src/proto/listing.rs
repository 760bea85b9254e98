//! One entry of a directory as a line of a listing: LIST (as `ls -l`), NLST (names), MLSD and MLST
//! (facts, RFC 3659 §7).
//!
//! Lines are appended to a buffer without any other memory: a listing of 100 000 entries costs as
//! many calls here and nothing else. A control byte in a name, which could end its line, becomes
//! `?`.

mod facts;

use super::time;

pub use facts::{Fact, FactSet, Role, write_facts, write_facts_line};

/// What an entry of a directory is.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Kind {
    /// A regular file.
    File,
    /// A directory.
    Directory,
    /// A symbolic link.
    Symlink,
    /// A FIFO.
    Fifo,
    /// A Unix socket.
    Socket,
    /// A block device.
    BlockDevice,
    /// A character device.
    CharacterDevice,
}

impl Kind {
    /// The first letter of an `ls -l` line.
    fn letter(self) -> u8 {
        match self {
            Self::File => b'-',
            Self::Directory => b'd',
            Self::Symlink => b'l',
            Self::Fifo => b'p',
            Self::Socket => b's',
            Self::BlockDevice => b'b',
            Self::CharacterDevice => b'c',
        }
    }

    /// What `ls -F` puts behind the name: `/` directory, `@` link, `|` FIFO, `=` socket, `*` file
    /// that somebody may execute by its `mode` (0 if that is not known).
    pub fn suffix(self, mode: u32) -> Option<u8> {
        match self {
            Self::File if mode & EXECUTE_BITS != 0 => Some(b'*'),
            Self::Directory => Some(b'/'),
            Self::Symlink => Some(b'@'),
            Self::Fifo => Some(b'|'),
            Self::Socket => Some(b'='),
            Self::File | Self::BlockDevice | Self::CharacterDevice => None,
        }
    }
}

/// What is listed of a file or directory.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Entry<'a> {
    /// The name as it is to be shown: the last component, for MLST the path.
    pub name: &'a [u8],
    /// What it is.
    pub kind: Kind,
    /// Permission bits, at most `0o7777`.
    pub mode: u32,
    /// Number of hard links.
    pub links: u64,
    /// Owner.
    pub uid: u32,
    /// Group.
    pub gid: u32,
    /// Bytes.
    pub size: u64,
    /// Last change of the content, Unix seconds.
    pub modified: i64,
    /// Birth, Unix seconds; not every file system keeps it.
    pub created: Option<i64>,
    /// Where a link leads; only LIST shows it.
    pub target: Option<&'a [u8]>,
    /// File system and inode number: together they tell whether two names are one file.
    pub unique: (u64, u64),
}

/// Appends the line of `ls -l`, CRLF included, as it looks at the time `now` (Unix seconds); owner
/// and group as numbers, as those of the server's system mean nothing to a client.
pub fn write_list_line(out: &mut Vec<u8>, entry: &Entry<'_>, now: i64, classify: bool) {
    out.reserve(LIST_LINE_BYTES + entry.name.len());
    write_mode(out, entry.kind, entry.mode);
    out.push(b' ');
    write_right(out, entry.links, 4);
    out.push(b' ');
    write_left(out, u64::from(entry.uid), 8);
    out.push(b' ');
    write_left(out, u64::from(entry.gid), 8);
    out.push(b' ');
    write_right(out, entry.size, 12);
    out.push(b' ');
    time::write_list_date(out, entry.modified, now);
    out.push(b' ');
    write_name(out, entry.name);
    if entry.kind == Kind::Symlink {
        if let Some(target) = entry.target {
            out.extend_from_slice(b" -> ");
            write_name(out, target);
        }
    } else if classify && let Some(suffix) = entry.kind.suffix(entry.mode) {
        out.push(suffix);
    }
    out.extend_from_slice(b"\r\n");
}

/// Appends a line of NLST, CRLF included: `prefix` (what the client put before the name, such as
/// `d/` for `NLST d`, so that the name can be used as it is: RFC 1123 §4.1.2.7), the name, and with
/// `-F` its [`Kind::suffix`].
pub fn write_name_line(out: &mut Vec<u8>, prefix: &[u8], name: &[u8], suffix: Option<u8>) {
    out.reserve(prefix.len() + name.len() + 3);
    write_name(out, prefix);
    write_name(out, name);
    out.extend(suffix);
    out.extend_from_slice(b"\r\n");
}

/// `-rwxr-xr-x`, with `s`, `S`, `t` and `T` as in ls(1).
fn write_mode(out: &mut Vec<u8>, kind: Kind, mode: u32) {
    let mut text = *b"-rwxrwxrwx";
    text[0] = kind.letter();
    for (index, letter) in text[1..].iter_mut().enumerate() {
        if mode & (0o400 >> index) == 0 {
            *letter = b'-';
        }
    }
    for (bit, index, letter) in [(0o4000, 3, b's'), (0o2000, 6, b's'), (0o1000, 9, b't')] {
        if mode & bit != 0 {
            text[index] = match text[index] {
                b'-' => letter.to_ascii_uppercase(),
                _ => letter,
            };
        }
    }
    out.extend_from_slice(&text);
}

/// A name with every control byte replaced by `?`. Other bytes stay, UTF-8 or not (RFC 2640 §3.1).
fn write_name(out: &mut Vec<u8>, name: &[u8]) {
    if has_control(name) {
        out.extend(
            name.iter()
                .map(|&byte| if byte.is_ascii_control() { b'?' } else { byte }),
        );
    } else {
        out.extend_from_slice(name);
    }
}

/// Whether one of the bytes is a control character, eight at a time: this is done for each name of a
/// listing.
fn has_control(name: &[u8]) -> bool {
    const EACH: u64 = u64::MAX / 0xff;
    let (words, rest) = name.as_chunks();
    let in_words = words.iter().fold(0, |found, word| {
        let word = u64::from_ne_bytes(*word);
        // A byte below a space, or one that becomes zero where it is DEL, borrows its highest bit.
        let delete = word ^ (EACH * 0x7f);
        found | (word.wrapping_sub(EACH * 0x20) & !word) | (delete.wrapping_sub(EACH) & !delete)
    });
    in_words & (EACH * 0x80) != 0 || rest.iter().any(u8::is_ascii_control)
}

/// The number, with spaces before it up to `width`.
fn write_right(out: &mut Vec<u8>, number: u64, width: usize) {
    let mut text = [b' '; DECIMAL_DIGITS_MAX];
    let start = decimal(&mut text, number);
    out.extend_from_slice(&text[start.min(DECIMAL_DIGITS_MAX - width)..]);
}

/// The number, with spaces after it up to `width`.
fn write_left(out: &mut Vec<u8>, number: u64, width: usize) {
    let mut text = [b' '; DECIMAL_DIGITS_MAX];
    let digits = decimal(&mut text, number);
    let length = DECIMAL_DIGITS_MAX - digits;
    out.extend_from_slice(&text[digits..]);
    out.extend_from_slice(&b"            "[..width.saturating_sub(length)]);
}

/// Writes the digits to the end of `text`; gives where they begin.
fn decimal(text: &mut [u8; DECIMAL_DIGITS_MAX], number: u64) -> usize {
    let mut start = text.len();
    let mut rest = number;
    loop {
        start -= 1;
        text[start] = b'0' + (rest % 10) as u8;
        rest /= 10;
        if rest == 0 {
            return start;
        }
    }
}

const EXECUTE_BITS: u32 = 0o111;

/// Digits of the biggest `u64`.
const DECIMAL_DIGITS_MAX: usize = 20;

/// A LIST line without its name, for numbers of usual size.
const LIST_LINE_BYTES: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    /// 2026-05-04 03:02:01.
    pub(super) const MODIFIED: i64 = 1_777_863_721;

    pub(super) fn entry(name: &str) -> Entry<'_> {
        Entry {
            name: name.as_bytes(),
            kind: Kind::File,
            mode: 0o644,
            links: 1,
            uid: 1000,
            gid: 100,
            size: 4161,
            modified: MODIFIED,
            created: Some(MODIFIED - 86_400),
            target: None,
            unique: (0xfd01, 0x2a),
        }
    }

    fn list_line(entry: &Entry<'_>, classify: bool) -> String {
        let mut out = Vec::new();
        write_list_line(&mut out, entry, MODIFIED + 60, classify);
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn a_control_character_is_found_wherever_it_is() {
        for length in 0..20 {
            for background in [b' ', b'~', 0x80, 0xff] {
                let name = vec![background; length];
                assert!(!has_control(&name), "{name:?}");
                for (place, byte) in (0..length).flat_map(|at| (0..=u8::MAX).map(move |b| (at, b)))
                {
                    let mut name = name.clone();
                    name[place] = byte;
                    assert_eq!(has_control(&name), byte.is_ascii_control(), "{name:?}");
                }
            }
        }
    }

    #[test]
    fn list_lines_look_like_those_of_ls() {
        let file = entry("a b");
        let directory = Entry {
            kind: Kind::Directory,
            mode: 0o755,
            links: 2,
            ..entry("d")
        };
        let link = Entry {
            kind: Kind::Symlink,
            mode: 0o777,
            target: Some(b"../t"),
            ..entry("l")
        };
        let big = Entry {
            links: u64::MAX,
            uid: u32::MAX,
            gid: u32::MAX,
            size: u64::MAX,
            ..entry("big")
        };
        for (entry, line) in [
            (
                file,
                "-rw-r--r--    1 1000     100              4161 May  4 03:02 a b\r\n",
            ),
            (
                directory,
                "drwxr-xr-x    2 1000     100              4161 May  4 03:02 d\r\n",
            ),
            (
                link,
                "lrwxrwxrwx    1 1000     100              4161 May  4 03:02 l -> ../t\r\n",
            ),
            (
                big,
                "-rw-r--r-- 18446744073709551615 4294967295 4294967295 18446744073709551615 \
                 May  4 03:02 big\r\n",
            ),
        ] {
            assert_eq!(list_line(&entry, false), line);
        }
    }

    #[test]
    fn modes_are_written_as_in_ls() {
        for (kind, mode, text) in [
            (Kind::File, 0, "----------"),
            (Kind::File, 0o777, "-rwxrwxrwx"),
            (Kind::File, 0o421, "-r---w---x"),
            (Kind::File, 0o4755, "-rwsr-xr-x"),
            (Kind::File, 0o4644, "-rwSr--r--"),
            (Kind::File, 0o2755, "-rwxr-sr-x"),
            (Kind::File, 0o2644, "-rw-r-Sr--"),
            (Kind::Directory, 0o1777, "drwxrwxrwt"),
            (Kind::Directory, 0o1776, "drwxrwxrwT"),
            (Kind::Symlink, 0o777, "lrwxrwxrwx"),
            (Kind::Fifo, 0o600, "prw-------"),
            (Kind::Socket, 0o600, "srw-------"),
            (Kind::BlockDevice, 0o600, "brw-------"),
            (Kind::CharacterDevice, 0o600, "crw-------"),
        ] {
            let mut out = Vec::new();
            write_mode(&mut out, kind, mode);
            assert_eq!(String::from_utf8_lossy(&out), text, "{kind:?} {mode:o}");
        }
    }

    #[test]
    fn names_are_classified_as_by_ls_f() {
        for (kind, mode, suffix) in [
            (Kind::File, 0o644, ""),
            (Kind::File, 0o654, "*"),
            (Kind::Directory, 0o755, "/"),
            (Kind::Symlink, 0o777, "@"),
            (Kind::Fifo, 0o644, "|"),
            (Kind::Socket, 0o755, "="),
            (Kind::BlockDevice, 0o755, ""),
            (Kind::CharacterDevice, 0o755, ""),
        ] {
            let mut out = Vec::new();
            write_name_line(&mut out, b"", b"n", kind.suffix(mode));
            assert_eq!(String::from_utf8_lossy(&out), format!("n{suffix}\r\n"));
            // `ls -lF` has nothing behind a link: what it would classify is the target.
            let line = list_line(
                &Entry {
                    kind,
                    mode,
                    ..entry("n")
                },
                true,
            );
            let suffix = if kind == Kind::Symlink { "" } else { suffix };
            assert!(line.ends_with(&format!(" n{suffix}\r\n")), "{line}");
        }
    }

    #[test]
    fn a_name_line_can_be_used_as_it_is() {
        // RFC 1123 §4.1.2.7: what NLST gives is a legal argument of RETR.
        let mut out = Vec::new();
        write_name_line(&mut out, b"d/", b"a b", None);
        write_name_line(&mut out, b"", b"\xff", None);
        assert_eq!(out, b"d/a b\r\n\xff\r\n");
    }

    #[test]
    fn no_name_can_end_its_line() {
        for name in ["a\r\n-rw-r--r-- forged", "\0", "\x1b[2J", "\x7f"] {
            let shown: String = name
                .chars()
                .map(|c| if c.is_ascii_control() { '?' } else { c })
                .collect();
            let entry = Entry {
                kind: Kind::Symlink,
                target: Some(name.as_bytes()),
                ..entry(name)
            };
            assert!(list_line(&entry, false).ends_with(&format!(" {shown} -> {shown}\r\n")));
            let mut out = Vec::new();
            write_name_line(&mut out, name.as_bytes(), name.as_bytes(), None);
            assert_eq!(out, format!("{shown}{shown}\r\n").as_bytes());
        }
    }
}
