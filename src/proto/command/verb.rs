//! The verbs of the protocol: one table from which the parser, HELP and FEAT are made.

/// How a verb stands here, and what FEAT says of it (RFC 2389 §3.2).
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(in crate::proto) enum Standing {
    /// Carried out; FEAT says nothing of it, since RFC 959 has it.
    Basic,
    /// Carried out, and listed by its name.
    Listed,
    /// Listed by its name and this.
    ListedWith(&'static str),
    /// Listed by its name and the facts that MLST knows (RFC 3659 §7.8).
    ListedWithFacts,
    /// Listed by its name and the algorithms that HASH knows (draft-bryan-ftpext-hash-02).
    ListedWithAlgorithms,
    /// Known and carried out by a refusal (MFCT), so not listed.
    Unlisted,
    /// Carried out and listed, by its name and this, where TLS is offered (RFC 4217 §6).
    ListedWithTls(Option<&'static str>),
    /// Known, but not offered: the reply is 502.
    Refused,
}

/// What there is to know about a verb.
#[derive(Debug)]
pub(in crate::proto) struct Row {
    pub(in crate::proto) verb: Verb,
    pub(in crate::proto) name: &'static str,
    /// The experimental name of before RFC 959, which old clients still use (RFC 1123 §4.1.3.1),
    /// or another name under which clients know the verb.
    pub(in crate::proto) alias: Option<&'static str>,
    /// The argument as HELP shows it; empty if there is none.
    pub(in crate::proto) argument: &'static str,
    /// The document that defines it.
    pub(in crate::proto) source: &'static str,
    pub(in crate::proto) standing: Standing,
}

macro_rules! verbs {
    ($(
        $verb:ident $name:literal $alias:expr, $argument:literal, $source:literal, $standing:expr;
    )*) => {
        /// A command of the protocol. XCWD and other old names mean the same verbs as the new ones.
        #[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
        pub enum Verb {
            $(
                #[doc = concat!("`", $name, " ", $argument, "` (", $source, ").")]
                $verb,
            )*
        }

        impl Verb {
            /// All verbs, in the order of the documents that define them.
            pub const ALL: &[Self] = &[$(Self::$verb),*];
        }

        /// One row for each verb, in the order of [`Verb::ALL`].
        pub(in crate::proto) const TABLE: &[Row] = &[$(
            Row {
                verb: Verb::$verb,
                name: $name,
                alias: $alias,
                argument: $argument,
                source: $source,
                standing: $standing,
            }
        ),*];
    };
}

use Standing::{
    Basic, Listed, ListedWith, ListedWithAlgorithms, ListedWithFacts, ListedWithTls, Refused,
    Unlisted,
};

verbs! {
    User    "USER"    None, "username", "RFC 959 §4.1.1", Basic;
    Pass    "PASS"    None, "password", "RFC 959 §4.1.1", Basic;
    Acct    "ACCT"    None, "account", "RFC 959 §4.1.1", Basic;
    Cwd     "CWD"     Some("XCWD"), "pathname", "RFC 959 §4.1.1", Basic;
    Cdup    "CDUP"    Some("XCUP"), "", "RFC 959 §4.1.1", Basic;
    Smnt    "SMNT"    None, "pathname", "RFC 959 §4.1.1", Refused;
    Quit    "QUIT"    None, "", "RFC 959 §4.1.1", Basic;
    Rein    "REIN"    None, "", "RFC 959 §4.1.1", Basic;
    Port    "PORT"    None, "h1,h2,h3,h4,p1,p2", "RFC 959 §4.1.2", Basic;
    Pasv    "PASV"    None, "", "RFC 959 §4.1.2", Basic;
    Type    "TYPE"    None, "A [N] | I | L 8", "RFC 959 §4.1.2", Basic;
    Stru    "STRU"    None, "F", "RFC 959 §4.1.2", Basic;
    Mode    "MODE"    None, "S", "RFC 959 §4.1.2", Basic;
    Retr    "RETR"    None, "pathname", "RFC 959 §4.1.3", Basic;
    Stor    "STOR"    None, "pathname", "RFC 959 §4.1.3", Basic;
    Stou    "STOU"    None, "[pathname]", "RFC 959 §4.1.3", Basic;
    Appe    "APPE"    None, "pathname", "RFC 959 §4.1.3", Basic;
    Allo    "ALLO"    None, "bytes [R bytes]", "RFC 959 §4.1.3", Basic;
    Rest    "REST"    None, "offset", "RFC 3659 §5", ListedWith("STREAM");
    Rnfr    "RNFR"    None, "pathname", "RFC 959 §4.1.3", Basic;
    Rnto    "RNTO"    None, "pathname", "RFC 959 §4.1.3", Basic;
    Abor    "ABOR"    None, "", "RFC 959 §4.1.3", Basic;
    Dele    "DELE"    None, "pathname", "RFC 959 §4.1.3", Basic;
    Rmd     "RMD"     Some("XRMD"), "pathname", "RFC 959 §4.1.3", Basic;
    Mkd     "MKD"     Some("XMKD"), "pathname", "RFC 959 §4.1.3", Basic;
    Pwd     "PWD"     Some("XPWD"), "", "RFC 959 §4.1.3", Basic;
    List    "LIST"    None, "[-alrtRSdF] [pathname]", "RFC 959 §4.1.3", Basic;
    Nlst    "NLST"    None, "[-alrtRSdF] [pathname]", "RFC 959 §4.1.3", Basic;
    Site    "SITE"    None, "command [argument]", "RFC 959 §4.1.3", Basic;
    Syst    "SYST"    None, "", "RFC 959 §4.1.3", Basic;
    Stat    "STAT"    None, "[[-alrtRSdF] pathname]", "RFC 959 §4.1.3", Basic;
    Help    "HELP"    None, "[command]", "RFC 959 §4.1.3", Basic;
    Noop    "NOOP"    None, "", "RFC 959 §4.1.3", Basic;
    Auth    "AUTH"    None, "TLS", "RFC 4217 §4", ListedWithTls(Some("TLS"));
    Adat    "ADAT"    None, "data", "RFC 2228 §3", Refused;
    Pbsz    "PBSZ"    None, "0", "RFC 4217 §9", ListedWithTls(None);
    Prot    "PROT"    None, "C | P", "RFC 4217 §9", ListedWithTls(None);
    Ccc     "CCC"     None, "", "RFC 4217 §6", ListedWithTls(None);
    Mic     "MIC"     None, "data", "RFC 2228 §3", Refused;
    Conf    "CONF"    None, "data", "RFC 2228 §3", Refused;
    Enc     "ENC"     None, "data", "RFC 2228 §3", Refused;
    Feat    "FEAT"    None, "", "RFC 2389 §3", Basic;
    Opts    "OPTS"    None, "command [options]", "RFC 2389 §4", Basic;
    Eprt    "EPRT"    None, "|protocol|address|port|", "RFC 2428 §2", Listed;
    Epsv    "EPSV"    None, "[1 | 2 | ALL]", "RFC 2428 §3", Listed;
    Lang    "LANG"    None, "[tag]", "RFC 2640 §4.1", ListedWith("EN*");
    Mdtm    "MDTM"    None, "pathname", "RFC 3659 §3", Listed;
    Size    "SIZE"    None, "pathname", "RFC 3659 §4", Listed;
    Mlst    "MLST"    None, "[pathname]", "RFC 3659 §7", ListedWithFacts;
    Mlsd    "MLSD"    None, "[pathname]", "RFC 3659 §7", Basic;
    Host    "HOST"    None, "hostname", "RFC 7151 §3", Listed;
    Mfmt    "MFMT"    None, "YYYYMMDDHHMMSS pathname", "draft-somers-ftp-mfxx-04 §3", Listed;
    Mfct    "MFCT"    None, "YYYYMMDDHHMMSS pathname", "draft-somers-ftp-mfxx-04 §4", Unlisted;
    Mff     "MFF"     None, "fact=value;... pathname", "draft-somers-ftp-mfxx-04 §5",
                      ListedWith("Modify;UNIX.mode;");
    Hash    "HASH"    None, "pathname", "draft-bryan-ftpext-hash-02 §3", ListedWithAlgorithms;
    Xcrc    "XCRC"    None, "pathname [start [end]]", "no RFC", Listed;
    Xmd5    "XMD5"    None, "pathname [start [end]]", "no RFC", Listed;
    Xsha1   "XSHA1"   Some("XSHA"), "pathname [start [end]]", "no RFC", Listed;
    Xsha256 "XSHA256" None, "pathname [start [end]]", "no RFC", Listed;
    Xsha512 "XSHA512" None, "pathname [start [end]]", "no RFC", Listed;
    Avbl    "AVBL"    None, "[pathname]",
                      "draft-peterson-streamlined-ftp-command-extensions", Listed;
    Clnt    "CLNT"    None, "name", "no RFC", Listed;
    Csid    "CSID"    None, "name=value;...", "no RFC", Listed;
}

impl Verb {
    /// The verb of that name, in any case (RFC 959 §5.3).
    pub fn parse(token: &[u8]) -> Option<Self> {
        let key = key(token)?;
        let index = INDEX.binary_search_by_key(&key, |&(key, _)| key).ok()?;
        Some(INDEX[index].1)
    }

    /// Its name, in capitals.
    pub const fn name(self) -> &'static str {
        self.row().name
    }

    /// Whether it is carried out; if not, its reply is 502.
    pub const fn is_offered(self) -> bool {
        !matches!(self.row().standing, Refused)
    }

    pub(in crate::proto) const fn row(self) -> &'static Row {
        &TABLE[self as usize]
    }
}

/// A name as a number: its letters in capitals, one to a byte. `None` for what cannot be a verb.
const fn key(name: &[u8]) -> Option<u64> {
    if name.is_empty() || name.len() > size_of::<u64>() {
        return None;
    }
    let mut key = 0;
    let mut at = 0;
    while at < name.len() {
        // A NUL in front would make no difference to the number.
        if !name[at].is_ascii_alphanumeric() {
            return None;
        }
        key = key << 8 | name[at].to_ascii_uppercase() as u64;
        at += 1;
    }
    Some(key)
}

/// Names and aliases by their [`key`], sorted.
const INDEX: [(u64, Verb); INDEX_LENGTH] = index();

const INDEX_LENGTH: usize = {
    let mut length = TABLE.len();
    let mut row = 0;
    while row < TABLE.len() {
        length += TABLE[row].alias.is_some() as usize;
        row += 1;
    }
    length
};

const fn index() -> [(u64, Verb); INDEX_LENGTH] {
    let mut index = [(0, Verb::User); INDEX_LENGTH];
    let mut length = 0;
    let mut row = 0;
    while row < TABLE.len() {
        let Row {
            verb, name, alias, ..
        } = &TABLE[row];
        insert(&mut index, length, name, *verb);
        length += 1;
        if let Some(alias) = alias {
            insert(&mut index, length, alias, *verb);
            length += 1;
        }
        row += 1;
    }
    index
}

/// Puts a name where it belongs among the first `length` ones, which are sorted.
const fn insert(index: &mut [(u64, Verb)], length: usize, name: &str, verb: Verb) {
    let Some(key) = key(name.as_bytes()) else {
        panic!("a verb has 1 to 8 letters and digits");
    };
    let mut at = length;
    while at > 0 && index[at - 1].0 > key {
        index[at] = index[at - 1];
        at -= 1;
    }
    index[at] = (key, verb);
}

#[cfg(test)]
mod tests {
    use super::{INDEX, TABLE, Verb};

    #[test]
    fn every_verb_is_found_by_its_names_in_any_case() {
        for (&verb, row) in Verb::ALL.iter().zip(TABLE) {
            assert_eq!(verb, row.verb);
            for name in [Some(row.name), row.alias].into_iter().flatten() {
                assert_eq!(Verb::parse(name.as_bytes()), Some(verb), "{name}");
                assert_eq!(
                    Verb::parse(name.to_ascii_lowercase().as_bytes()),
                    Some(verb),
                    "{name}"
                );
            }
        }
        assert_eq!(Verb::ALL.len(), TABLE.len());
    }

    #[test]
    fn the_index_is_sorted_and_has_no_name_twice() {
        assert!(INDEX.windows(2).all(|pair| pair[0].0 < pair[1].0));
    }

    #[test]
    fn old_names_mean_the_new_verbs() {
        // RFC 1123 §4.1.3.1, RFC 775.
        for (alias, verb) in [
            ("XCUP", Verb::Cdup),
            ("XCWD", Verb::Cwd),
            ("XMKD", Verb::Mkd),
            ("XPWD", Verb::Pwd),
            ("XRMD", Verb::Rmd),
            ("XSHA", Verb::Xsha1),
        ] {
            assert_eq!(Verb::parse(alias.as_bytes()), Some(verb), "{alias}");
        }
    }

    #[test]
    fn what_is_no_verb_is_not_found() {
        let tokens: [&[u8]; 12] = [
            b"",
            b"U",
            b"USE",
            b"USERS",
            b"\0USER",
            b"USER\0",
            b"US ER",
            b"\xff\xfeUSER",
            b"XSHA2561",
            b"GET",
            b"POST",
            b"RETRIEVE-IT-PLEASE",
        ];
        for token in tokens {
            assert_eq!(Verb::parse(token), None, "{token:?}");
        }
    }
}
