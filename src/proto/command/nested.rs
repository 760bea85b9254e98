//! The commands inside SITE (RFC 959 §4.1.3) and OPTS (RFC 2389 §4).

use super::{
    BAD_ARGUMENT, BAD_NUMBER, BAD_TIME, MISSING_ARGUMENT, SyntaxError, optional, required,
    split_word,
};
use crate::proto::argument::{HashAlgorithm, Timestamp, parse_decimal, parse_octal_mode};
use crate::proto::listing::FactSet;
use crate::proto::reply::Code;

/// What SITE is asked for.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum SiteCommand<'a> {
    /// `SITE CHMOD`: set permission bits.
    Chmod {
        /// 0 to 0o7777.
        mode: u32,
        /// Of what.
        name: &'a [u8],
    },
    /// `SITE UTIME`: set the time of modification.
    Utime {
        /// The time.
        modified: Timestamp,
        /// Of what.
        name: &'a [u8],
    },
    /// `SITE UMASK`: permission bits that new files do not get, 0 to 0o777; `None`: tell them.
    Umask(Option<u32>),
    /// `SITE IDLE`: seconds that the client may be silent; `None`: tell them.
    Idle(Option<u64>),
    /// `SITE HELP`: of one command, or of all.
    Help(Option<&'a [u8]>),
}

/// What OPTS sets.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum OptsCommand {
    /// `OPTS UTF8 ON`, `OPTS UTF8 OFF`, `OPTS UTF-8 NLST`: names are bytes whatever is asked.
    Utf8,
    /// `OPTS MLST`: the facts that are wanted from now on (RFC 3659 §7.9).
    Mlst(FactSet),
    /// `OPTS HASH`: the algorithm that is wanted from now on; `None`: tell it.
    Hash(Option<HashAlgorithm>),
}

/// The commands of SITE and their arguments, as SITE HELP shows them.
pub(in crate::proto) const SITE_TABLE: &[(&str, &str)] = &[
    ("CHMOD", "mode pathname"),
    ("HELP", "[command]"),
    ("IDLE", "[seconds]"),
    ("UMASK", "[mask]"),
    ("UTIME", "YYYYMMDDHHMM[SS] pathname"),
];

/// The argument of SITE. RFC 959 §5.4 allows it 500 and 501.
pub(super) fn parse_site(argument: &[u8]) -> Result<SiteCommand<'_>, SyntaxError> {
    let (word, rest) = split_word(required(argument)?);
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if is("CHMOD") {
        let (mode, name) = split_word(rest);
        let mode = parse_octal_mode(mode).ok_or(BAD_MODE)?;
        let name = required(name)?;
        Ok(SiteCommand::Chmod { mode, name })
    } else if is("UTIME") {
        utime(rest)
    } else if is("UMASK") {
        Ok(SiteCommand::Umask(match optional(rest) {
            None => None,
            Some(mask) => Some(
                parse_octal_mode(mask)
                    .filter(|&m| m <= 0o777)
                    .ok_or(BAD_MODE)?,
            ),
        }))
    } else if is("IDLE") {
        Ok(SiteCommand::Idle(match optional(rest) {
            None => None,
            Some(seconds) => Some(parse_decimal(seconds).ok_or(BAD_NUMBER)?),
        }))
    } else if is("HELP") {
        Ok(SiteCommand::Help(optional(rest)))
    } else {
        Err(UNKNOWN_SITE)
    }
}

/// Two forms are in use: `YYYYMMDDHHMM[SS] name`, and `name atime mtime ctime UTC`, each time
/// `YYYYMMDDHHMMSS` (lftp, FileZilla before MFMT).
fn utime(argument: &[u8]) -> Result<SiteCommand<'_>, SyntaxError> {
    if let Some((name, modified)) = utime_with_three_times(argument) {
        return Ok(SiteCommand::Utime { modified, name });
    }
    let (time, name) = split_word(required(argument)?);
    let modified = Timestamp::parse_site(time).ok_or(BAD_TIME)?;
    let name = required(name)?;
    Ok(SiteCommand::Utime { modified, name })
}

fn utime_with_three_times(argument: &[u8]) -> Option<(&[u8], Timestamp)> {
    let (rest, zone) = split_last_word(argument)?;
    if !zone.eq_ignore_ascii_case(b"UTC") {
        return None;
    }
    let (rest, changed) = split_last_word(rest)?;
    let (rest, modified) = split_last_word(rest)?;
    let (name, accessed) = split_last_word(rest)?;
    Timestamp::parse(changed)?;
    Timestamp::parse(accessed)?;
    Some((optional(name)?, Timestamp::parse(modified)?))
}

/// Splits at the last space, which belongs to neither part.
fn split_last_word(text: &[u8]) -> Option<(&[u8], &[u8])> {
    let space = memchr::memrchr(b' ', text)?;
    Some((&text[..space], &text[space + 1..]))
}

/// The argument of OPTS. RFC 2389 §4: 501 for what cannot be set.
pub(super) fn parse_opts(argument: &[u8]) -> Result<OptsCommand, SyntaxError> {
    let (word, options) = split_word(argument);
    let is = |name: &str| word.eq_ignore_ascii_case(name.as_bytes());
    if word.is_empty() {
        Err(MISSING_ARGUMENT)
    } else if is("UTF8") || is("UTF-8") {
        // "OPTS UTF8 ON" is what clients send; "OPTS UTF-8 NLST" is of draft-ietf-ftpext-utf-8.
        let known: [&[u8]; 4] = [b"", b"ON", b"OFF", b"NLST"];
        match known
            .iter()
            .any(|option| options.eq_ignore_ascii_case(option))
        {
            true => Ok(OptsCommand::Utf8),
            false => Err(BAD_ARGUMENT),
        }
    } else if is("MLST") {
        // RFC 3659 §7.9: no fact named, no fact wanted; and facts are not separated by spaces.
        match options.contains(&b' ') {
            true => Err(BAD_ARGUMENT),
            false => Ok(OptsCommand::Mlst(FactSet::parse(options))),
        }
    } else if is("HASH") {
        Ok(OptsCommand::Hash(match optional(options) {
            None => None,
            Some(name) => Some(HashAlgorithm::parse(name).ok_or(UNKNOWN_ALGORITHM)?),
        }))
    } else {
        Err(NO_OPTIONS)
    }
}

const UNKNOWN_SITE: SyntaxError =
    SyntaxError::new(Code::SYNTAX_ERROR, "Unknown SITE command, see SITE HELP.");
const BAD_MODE: SyntaxError =
    SyntaxError::new(Code::BAD_ARGUMENT, "Not a valid mode, use octal digits.");
const NO_OPTIONS: SyntaxError =
    SyntaxError::new(Code::BAD_ARGUMENT, "This command has no options.");
// draft-bryan-ftpext-hash-02: 504 for an algorithm that the server does not have.
const UNKNOWN_ALGORITHM: SyntaxError =
    SyntaxError::new(Code::BAD_PARAMETER, "Unknown algorithm, see FEAT.");

#[cfg(test)]
mod tests {
    use super::{OptsCommand, SITE_TABLE, SiteCommand, parse_opts, parse_site};
    use crate::proto::argument::{HashAlgorithm, Timestamp};
    use crate::proto::listing::FactSet;

    fn time(text: &str) -> Timestamp {
        Timestamp::parse(text.as_bytes()).expect(text)
    }

    #[test]
    fn site_commands() {
        let noon = time("20260102120000");
        let utime = |name| SiteCommand::Utime {
            modified: noon,
            name,
        };
        for (argument, command) in [
            (
                "CHMOD 644 a b",
                SiteCommand::Chmod {
                    mode: 0o644,
                    name: b"a b",
                },
            ),
            (
                "chmod 07777 a",
                SiteCommand::Chmod {
                    mode: 0o7777,
                    name: b"a",
                },
            ),
            ("UMASK", SiteCommand::Umask(None)),
            ("UMASK 027", SiteCommand::Umask(Some(0o027))),
            ("IDLE", SiteCommand::Idle(None)),
            ("IDLE 60", SiteCommand::Idle(Some(60))),
            ("HELP", SiteCommand::Help(None)),
            ("HELP CHMOD", SiteCommand::Help(Some(b"CHMOD"))),
            ("UTIME 202601021200 a", utime(b"a")),
            ("UTIME 20260102120000 a b", utime(b"a b")),
            (
                "UTIME a b 20250101000000 20260102120000 20250101000000 UTC",
                utime(b"a b"),
            ),
            // A name that looks like the end of the long form.
            ("UTIME 20260102120000 UTC", utime(b"UTC")),
        ] {
            assert_eq!(parse_site(argument.as_bytes()), Ok(command), "{argument:?}");
        }
    }

    #[test]
    fn site_refuses_with_500_and_501_as_rfc_959_section_5_4_allows() {
        for (argument, code) in [
            ("", 501),
            ("CHMOD", 501),
            ("CHMOD 644", 501),
            ("CHMOD 888 a", 501),
            ("CHMOD 17777 a", 501),
            ("CHMOD u+x a", 501),
            ("UMASK 1000", 501),
            ("UMASK x", 501),
            ("IDLE x", 501),
            ("UTIME", 501),
            ("UTIME 202601021200", 501),
            ("UTIME 202613021200 a", 501),
            ("EXEC ls", 500),
            ("CHMODE 644 a", 500),
        ] {
            let refused = parse_site(argument.as_bytes()).map_err(|error| error.code().number());
            assert_eq!(refused, Err(code), "{argument:?}");
        }
    }

    #[test]
    fn site_help_lists_what_is_parsed() {
        for (name, _) in SITE_TABLE {
            let refused = parse_site(name.as_bytes()).map_err(|error| error.code().number());
            assert_ne!(refused, Err(500), "{name}");
        }
    }

    #[test]
    fn options_of_rfc_2389_section_4() {
        let facts = |text: &str| OptsCommand::Mlst(FactSet::parse(text.as_bytes()));
        for (argument, command) in [
            ("UTF8 ON", OptsCommand::Utf8),
            ("utf8 off", OptsCommand::Utf8),
            ("UTF8", OptsCommand::Utf8),
            ("UTF-8 NLST", OptsCommand::Utf8),
            // RFC 3659 §7.9.
            ("MLST size;modify;", facts("size;modify;")),
            ("MLST Type;nonsense;", facts("type;")),
            ("MLST", OptsCommand::Mlst(FactSet::NONE)),
            ("HASH", OptsCommand::Hash(None)),
            ("HASH sha-1", OptsCommand::Hash(Some(HashAlgorithm::Sha1))),
        ] {
            assert_eq!(parse_opts(argument.as_bytes()), Ok(command), "{argument:?}");
        }
        for (argument, code) in [
            ("", 501),
            ("UTF8 MAYBE", 501),
            ("RETR x", 501),
            ("MODE Z LEVEL 9", 501),
            ("HASH SHA-3", 504),
        ] {
            let refused = parse_opts(argument.as_bytes()).map_err(|error| error.code().number());
            assert_eq!(refused, Err(code), "{argument:?}");
        }
    }
}
