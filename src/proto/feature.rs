//! What the server tells of itself: FEAT (RFC 2389 §3), HELP and SITE HELP (RFC 959 §4.1.3), made
//! from the table of verbs, so that nothing is told that the parser does not know.

use super::argument::HashAlgorithm;
use super::command::{SITE_TABLE, Standing, TABLE, Verb};
use super::listing::FactSet;
use super::reply::{Code, Reply};

/// The reply to FEAT. `facts` and `hash` are those that the session has chosen by OPTS; they are
/// marked with `*`. `tls`: whether it is offered.
pub fn features(facts: FactSet, hash: HashAlgorithm, tls: bool) -> Reply {
    let mut lines: Vec<Vec<u8>> = TABLE
        .iter()
        .filter_map(|row| match row.standing {
            Standing::Basic | Standing::Unlisted | Standing::Refused => None,
            Standing::ListedWithTls(_) if !tls => None,
            Standing::ListedWithTls(None) | Standing::Listed => Some(row.name.to_owned()),
            Standing::ListedWithTls(Some(parameters)) | Standing::ListedWith(parameters) => {
                Some(format!("{} {parameters}", row.name))
            }
            Standing::ListedWithFacts => Some(format!("{} {}", row.name, fact_list(facts))),
            Standing::ListedWithAlgorithms => {
                Some(format!("{} {}", row.name, algorithm_list(hash)))
            }
        })
        .map(String::into_bytes)
        .collect();
    lines.extend(WITHOUT_VERB.iter().map(|name| name.as_bytes().to_vec()));
    Reply::lines(Code::SYSTEM_STATUS, "Features:", lines, "End")
}

/// The reply to HELP: of one verb, or the list of all.
pub fn help(verb: Option<Verb>) -> Reply {
    match verb {
        Some(verb) => Reply::text(Code::HELP, syntax(verb)),
        None => {
            // The mark is that of 4.2BSD's ftpd, which users know.
            let names = TABLE.iter().map(|row| match row.standing {
                Standing::Refused => format!("{}*", row.name),
                _ => row.name.to_owned(),
            });
            Reply::lines(
                Code::HELP,
                "Commands, those with * known but not implemented:",
                columns(names),
                "HELP command tells more.",
            )
        }
    }
}

/// The reply to SITE HELP: all commands of SITE.
pub fn site_help() -> Reply {
    let lines = SITE_TABLE
        .iter()
        .map(|(name, argument)| format!("SITE {name} {argument}").into_bytes())
        .collect();
    Reply::lines(Code::HELP, "SITE commands:", lines, "End.")
}

/// "Syntax: CWD pathname (also XCWD; RFC 959 §4.1.1)".
fn syntax(verb: Verb) -> String {
    let row = verb.row();
    let mut text = format!("Syntax: {}", row.name);
    if !row.argument.is_empty() {
        text.push(' ');
        text.push_str(row.argument);
    }
    text.push_str(" (");
    if let Some(alias) = row.alias {
        text.push_str("also ");
        text.push_str(alias);
        text.push_str("; ");
    }
    // A reply is in ASCII unless it holds a name (RFC 959 §4.2).
    text.push_str(&row.source.replace('§', "section "));
    text.push(')');
    if !verb.is_offered() {
        text.push_str(" not implemented");
    }
    text
}

/// RFC 3659 §7.8: all facts that there are, each with its `;`, those that are on marked.
fn fact_list(on: FactSet) -> String {
    let mut text = String::new();
    for fact in FactSet::default().iter() {
        text.push_str(fact.name());
        text.push_str(if on.contains(fact) { "*;" } else { ";" });
    }
    text
}

/// draft-bryan-ftpext-hash-02: all algorithms with `;` between them, the one in use marked.
fn algorithm_list(selected: HashAlgorithm) -> String {
    HashAlgorithm::ALL
        .map(|algorithm| match algorithm == selected {
            true => format!("{}*", algorithm.name()),
            false => algorithm.name().to_owned(),
        })
        .join(";")
}

fn columns(names: impl Iterator<Item = String>) -> Vec<Vec<u8>> {
    let mut lines: Vec<Vec<u8>> = Vec::new();
    for (index, name) in names.enumerate() {
        match lines.last_mut() {
            Some(line) if index % COLUMNS != 0 => {
                line.resize(index % COLUMNS * COLUMN_WIDTH, b' ');
                line.extend_from_slice(name.as_bytes());
            }
            _ => lines.push(name.into_bytes()),
        }
    }
    lines
}

/// Features that are no verb: TVFS (RFC 3659 §6) and UTF8 (RFC 2640 §3.2).
const WITHOUT_VERB: [&str; 2] = ["TVFS", "UTF8"];

/// Eight columns of nine fill a terminal of 80.
const COLUMNS: usize = 8;
const COLUMN_WIDTH: usize = 9;

#[cfg(test)]
mod tests {
    use super::{features, help, site_help};
    use crate::proto::argument::HashAlgorithm;
    use crate::proto::command::Verb;
    use crate::proto::listing::FactSet;
    use crate::proto::reply::Reply;

    fn lines(reply: &Reply) -> Vec<String> {
        let mut out = Vec::new();
        reply.encode(&mut out);
        let text = String::from_utf8(out).expect("ASCII");
        assert!(text.is_ascii());
        text.lines().map(str::to_owned).collect()
    }

    #[test]
    fn features_have_the_form_of_rfc_2389_section_3_2() {
        let lines = lines(&features(FactSet::default(), HashAlgorithm::Sha256, false));
        assert_eq!(lines.first().map(String::as_str), Some("211-Features:"));
        assert_eq!(lines.last().map(String::as_str), Some("211 End"));
        for line in &lines[1..lines.len() - 1] {
            // One space, then the name in capitals.
            let bytes = line.as_bytes();
            assert!(
                bytes[0] == b' ' && bytes[1].is_ascii_uppercase(),
                "{line:?}"
            );
        }
    }

    #[test]
    fn features_are_those_of_their_rfcs() {
        let lines = lines(&features(FactSet::default(), HashAlgorithm::Sha256, false));
        for feature in [
            " EPRT",                                  // RFC 2428
            " EPSV",                                  // RFC 2428
            " LANG EN*",                              // RFC 2640 §4
            " UTF8",                                  // RFC 2640 §3.2
            " MDTM",                                  // RFC 3659 §3
            " SIZE",                                  // RFC 3659 §4
            " REST STREAM",                           // RFC 3659 §5
            " TVFS",                                  // RFC 3659 §6
            " HOST",                                  // RFC 7151 §3
            " MFMT",                                  // draft-somers-ftp-mfxx-04
            " MFF Modify;UNIX.mode;",                 // draft-somers-ftp-mfxx-04
            " HASH CRC32;MD5;SHA-1;SHA-256*;SHA-512", // draft-bryan-ftpext-hash-02
            " XCRC",
            " XMD5",
            " XSHA1",
            " XSHA256",
            " XSHA512",
            " AVBL",
            " CLNT",
            " CSID",
        ] {
            assert!(
                lines.iter().any(|line| line == feature),
                "{feature} in {lines:?}"
            );
        }
        // Linux sets no creation times; MLST stands for MLSD (RFC 3659 §7.8); no TLS here.
        for absent in [" MFCT", " MLSD", " AUTH", " PBSZ", " PROT"] {
            assert!(
                !lines.iter().any(|line| line.starts_with(absent)),
                "{absent} in {lines:?}"
            );
        }
    }

    #[test]
    fn chosen_facts_and_algorithms_are_marked() {
        let on = FactSet::parse(b"size;");
        let lines = lines(&features(on, HashAlgorithm::Md5, false));
        let mlst = lines
            .iter()
            .find(|line| line.starts_with(" MLST "))
            .expect("MLST");
        assert!(mlst.contains("size*;"), "{mlst}");
        assert_eq!(mlst.matches('*').count(), 1, "{mlst}");
        // RFC 3659 §7.8: every fact is there, marked or not.
        assert_eq!(
            mlst.matches(';').count(),
            FactSet::default().iter().count(),
            "{mlst}"
        );
        assert!(
            lines
                .iter()
                .any(|line| line == " HASH CRC32;MD5*;SHA-1;SHA-256;SHA-512")
        );
    }

    #[test]
    fn help_knows_every_verb() {
        let list = lines(&help(None));
        for &verb in Verb::ALL {
            let found = list.iter().flat_map(|line| line.split(' ')).any(|word| {
                word.strip_suffix('*').unwrap_or(word) == verb.name()
                    && word.ends_with('*') != verb.is_offered()
            });
            assert!(found, "{} in {list:?}", verb.name());
            let [line] = &lines(&help(Some(verb)))[..] else {
                panic!("one line for {}", verb.name());
            };
            assert!(
                line.starts_with(&format!("214 Syntax: {}", verb.name())),
                "{line}"
            );
        }
        assert!(list.iter().all(|line| line.len() <= 80), "{list:?}");
    }

    #[test]
    fn help_of_one_verb_tells_its_syntax() {
        for (verb, line) in [
            (
                Verb::Cwd,
                "214 Syntax: CWD pathname (also XCWD; RFC 959 section 4.1.1)",
            ),
            (Verb::Noop, "214 Syntax: NOOP (RFC 959 section 4.1.3)"),
            (
                Verb::Adat,
                "214 Syntax: ADAT data (RFC 2228 section 3) not implemented",
            ),
        ] {
            assert_eq!(lines(&help(Some(verb))), [line]);
        }
    }

    #[test]
    fn site_help_has_a_line_for_each_command() {
        let lines = lines(&site_help());
        assert_eq!(
            lines.first().map(String::as_str),
            Some("214-SITE commands:")
        );
        assert!(lines.contains(&" SITE CHMOD mode pathname".to_owned()));
        assert_eq!(lines.last().map(String::as_str), Some("214 End."));
    }
}
