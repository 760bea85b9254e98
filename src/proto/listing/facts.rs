//! Facts of an entry: what MLSD and MLST tell of it (RFC 3659 §7).

use super::{EXECUTE_BITS, Entry, Kind, write_left, write_name};
use crate::proto::rights::{Right, RightSet};
use crate::proto::time;

/// Who an entry is to the listing it is in.
///
/// RFC 3659 §7.5.1.2: without [`Fact::Type`] the current directory and the one above must not be
/// listed, as nothing tells them from entries. In a reply to MLST everything is [`Self::Listed`]
/// (§7.7.2).
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Role {
    /// One of the entries of the directory.
    Listed,
    /// The directory that is listed: type `cdir`.
    Current,
    /// The directory above it: type `pdir`.
    Parent,
}

/// A fact of RFC 3659 §7.5, or one of those that all servers on Unix have.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum Fact {
    /// What it is: file, dir, cdir, pdir or `OS.unix=…` (§7.5.1).
    Type,
    /// Bytes; not of directories (§7.5.7).
    Size,
    /// Time of the last change of the content (§7.5.3).
    Modify,
    /// Time of birth (§7.5.4).
    Create,
    /// What the user may do with it (§7.5.5).
    Perm,
    /// The same for all names of one file (§7.5.2).
    Unique,
    /// Permission bits, octal.
    UnixMode,
    /// Number of the owner.
    UnixOwner,
    /// Number of the group.
    UnixGroup,
}

impl Fact {
    /// All of them, in the order in which they are written.
    pub const ALL: &[Self] = &[
        Self::Type,
        Self::Size,
        Self::Modify,
        Self::Create,
        Self::Perm,
        Self::Unique,
        Self::UnixMode,
        Self::UnixOwner,
        Self::UnixGroup,
    ];

    /// As in FEAT, OPTS MLST and the lines.
    pub const fn name(self) -> &'static str {
        match self {
            Self::Type => "type",
            Self::Size => "size",
            Self::Modify => "modify",
            Self::Create => "create",
            Self::Perm => "perm",
            Self::Unique => "unique",
            Self::UnixMode => "UNIX.mode",
            Self::UnixOwner => "UNIX.owner",
            Self::UnixGroup => "UNIX.group",
        }
    }
}

/// The facts that a client wants (OPTS MLST, RFC 3659 §7.9); at first all.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct FactSet(u16);

impl FactSet {
    /// None: a line is then a space and the name.
    pub const NONE: Self = Self(0);

    /// Those named in `size;modify;`, in any case. RFC 3659 §7.9: names of facts that the server
    /// does not have are no error.
    pub fn parse(text: &[u8]) -> Self {
        let mut facts = Self::NONE;
        for name in text.split(|&byte| byte == b';') {
            for &fact in Fact::ALL {
                if name.eq_ignore_ascii_case(fact.name().as_bytes()) {
                    facts.0 |= bit(fact);
                }
            }
        }
        facts
    }

    /// Whether `fact` is in it.
    pub fn contains(self, fact: Fact) -> bool {
        self.0 & bit(fact) != 0
    }

    /// Its facts in the order of [`Fact::ALL`].
    pub fn iter(self) -> impl Iterator<Item = Fact> {
        Fact::ALL
            .iter()
            .copied()
            .filter(move |&fact| self.contains(fact))
    }

    /// Their names in the order of [`Fact::ALL`].
    pub fn names(self) -> impl Iterator<Item = &'static str> {
        self.iter().map(Fact::name)
    }
}

impl Default for FactSet {
    fn default() -> Self {
        Self(Fact::ALL.iter().fold(0, |bits, &fact| bits | bit(fact)))
    }
}

/// Appends the facts and the name without a line end, as a reply to MLST has it: `type=file;size=3;
/// a` (RFC 3659 §7.2). Facts that an entry does not have are left out.
pub fn write_facts(
    out: &mut Vec<u8>,
    entry: &Entry<'_>,
    facts: FactSet,
    role: Role,
    rights: RightSet,
) {
    out.reserve(FACTS_BYTES + entry.name.len());
    for fact in facts.iter() {
        let start = out.len();
        out.extend_from_slice(fact.name().as_bytes());
        out.push(b'=');
        if write_value(out, entry, fact, role, rights) {
            out.push(b';');
        } else {
            out.truncate(start);
        }
    }
    out.push(b' ');
    write_name(out, entry.name);
}

/// Appends a line of MLSD: [`write_facts`] and CRLF.
pub fn write_facts_line(
    out: &mut Vec<u8>,
    entry: &Entry<'_>,
    facts: FactSet,
    role: Role,
    rights: RightSet,
) {
    write_facts(out, entry, facts, role, rights);
    out.extend_from_slice(b"\r\n");
}

/// Whether the entry has this fact; if not, what was appended is of no use.
fn write_value(
    out: &mut Vec<u8>,
    entry: &Entry<'_>,
    fact: Fact,
    role: Role,
    rights: RightSet,
) -> bool {
    match fact {
        Fact::Type => out.extend_from_slice(type_name(entry.kind, role)),
        Fact::Size if entry.kind == Kind::Directory => return false,
        Fact::Size => write_left(out, entry.size, 0),
        Fact::Modify => time::write_timestamp(out, entry.modified),
        // §7.5.4: never later than the modify fact. A file with an older time set on it (MFMT) has
        // no birth that could be told.
        Fact::Create => match entry.created {
            Some(created) if created <= entry.modified => time::write_timestamp(out, created),
            _ => return false,
        },
        Fact::Perm => write_permissions(out, entry, rights),
        Fact::Unique => {
            write_hexadecimal(out, entry.unique.0);
            out.push(b'g');
            write_hexadecimal(out, entry.unique.1);
        }
        Fact::UnixMode => out.extend([9, 6, 3, 0].map(|shift| octal(entry.mode >> shift))),
        Fact::UnixOwner => write_left(out, u64::from(entry.uid), 0),
        Fact::UnixGroup => write_left(out, u64::from(entry.gid), 0),
    }
    true
}

/// RFC 3659 §7.5.1. Where a link leads is not said: a fact cannot hold every name (§7.4), and a
/// client can do nothing with a link out of the tree. `slink:` with nothing behind it is known to
/// clients.
fn type_name(kind: Kind, role: Role) -> &'static [u8] {
    match (kind, role) {
        (Kind::Directory, Role::Listed) => b"dir",
        (Kind::Directory, Role::Current) => b"cdir",
        (Kind::Directory, Role::Parent) => b"pdir",
        (Kind::File, _) => b"file",
        (Kind::Symlink, _) => b"OS.unix=slink:",
        (Kind::Fifo, _) => b"OS.unix=pipe",
        (Kind::Socket, _) => b"OS.unix=socket",
        (Kind::BlockDevice, _) => b"OS.unix=blk",
        (Kind::CharacterDevice, _) => b"OS.unix=chr",
    }
}

/// RFC 3659 §7.5.5: the commands that make sense for the entry. Of the mode only what holds for
/// everybody is used; whose bits apply to the server's user, the kernel knows.
fn write_permissions(out: &mut Vec<u8>, entry: &Entry<'_>, rights: RightSet) {
    let readable = entry.mode & READ_BITS != 0;
    let searchable = entry.mode & EXECUTE_BITS != 0;
    let writable = entry.mode & WRITE_BITS != 0;
    let may = |right| rights.has(right);
    let letters: &[(u8, bool)] = match entry.kind {
        Kind::File => &[
            (b'a', writable && may(Right::Overwrite)),
            (b'd', may(Right::Delete)),
            (b'f', may(Right::Rename)),
            (b'r', readable && may(Right::Read)),
            (b'w', writable && may(Right::Overwrite)),
        ],
        Kind::Directory => &[
            (b'c', writable && searchable && may(Right::Create)),
            (b'd', may(Right::Delete)),
            (b'e', searchable),
            (b'f', may(Right::Rename)),
            (b'l', readable && may(Right::List)),
            (b'm', writable && searchable && may(Right::MakeDirectory)),
            (b'p', writable && searchable && may(Right::Delete)),
        ],
        _ => &[(b'd', may(Right::Delete)), (b'f', may(Right::Rename))],
    };
    out.extend(
        letters
            .iter()
            .filter(|(_, may)| *may)
            .map(|(letter, _)| letter),
    );
}

fn bit(fact: Fact) -> u16 {
    1 << fact as u16
}

/// The last octal digit.
fn octal(number: u32) -> u8 {
    b'0' + (number & 7) as u8
}

fn write_hexadecimal(out: &mut Vec<u8>, number: u64) {
    let mut text = [0; 16];
    let mut start = text.len();
    let mut rest = number;
    loop {
        start -= 1;
        text[start] = b"0123456789abcdef"[(rest & 15) as usize];
        rest >>= 4;
        if rest == 0 {
            break;
        }
    }
    out.extend_from_slice(&text[start..]);
}

const READ_BITS: u32 = 0o444;
const WRITE_BITS: u32 = 0o222;

/// All facts with values of usual size.
const FACTS_BYTES: usize = 160;

#[cfg(test)]
mod tests {
    use super::super::tests::{MODIFIED, entry};
    use super::*;

    fn facts(entry: &Entry<'_>, facts: &str, role: Role, rights: RightSet) -> String {
        let mut out = Vec::new();
        write_facts(
            &mut out,
            entry,
            FactSet::parse(facts.as_bytes()),
            role,
            rights,
        );
        String::from_utf8(out).expect("text")
    }

    #[test]
    fn all_facts_of_a_file() {
        let mut out = Vec::new();
        let entry = entry("two words");
        write_facts_line(
            &mut out,
            &entry,
            FactSet::default(),
            Role::Listed,
            RightSet::READ_WRITE,
        );
        assert_eq!(
            String::from_utf8_lossy(&out),
            "type=file;size=4161;modify=20260504030201;create=20260503030201;perm=adfrw;\
             unique=fd01g2a;UNIX.mode=0644;UNIX.owner=1000;UNIX.group=100; two words\r\n"
        );
    }

    #[test]
    fn no_name_can_end_its_line() {
        for (name, shown) in [("a\r\ntype=dir; b", "a??type=dir; b"), ("\0\x7f", "??")] {
            assert_eq!(
                facts(&entry(name), "size;", Role::Listed, RightSet::READ_ONLY),
                format!("size=4161; {shown}")
            );
        }
    }

    #[test]
    fn facts_are_those_asked_for() {
        for (kind, role, asked, line) in [
            // RFC 3659 §7.9: with no facts a line is a space and the name.
            (Kind::File, Role::Listed, "", " n"),
            (Kind::File, Role::Listed, "size;", "size=4161; n"),
            (
                Kind::File,
                Role::Listed,
                "UNIX.mode;TYPE",
                "type=file;UNIX.mode=0644; n",
            ),
            // §7.5.7: no size of directories.
            (Kind::Directory, Role::Listed, "type;size;", "type=dir; n"),
            // §7.5.1.2, §7.5.1.4.
            (Kind::Directory, Role::Current, "type;", "type=cdir; n"),
            (Kind::Directory, Role::Parent, "type;", "type=pdir; n"),
            // §7.5.1.5, §7.7.4.
            (
                Kind::Symlink,
                Role::Listed,
                "type;",
                "type=OS.unix=slink:; n",
            ),
            (Kind::Fifo, Role::Listed, "type;", "type=OS.unix=pipe; n"),
            (
                Kind::Socket,
                Role::Listed,
                "type;",
                "type=OS.unix=socket; n",
            ),
            (
                Kind::BlockDevice,
                Role::Listed,
                "type;",
                "type=OS.unix=blk; n",
            ),
            (
                Kind::CharacterDevice,
                Role::Listed,
                "type;",
                "type=OS.unix=chr; n",
            ),
        ] {
            let entry = Entry { kind, ..entry("n") };
            assert_eq!(facts(&entry, asked, role, RightSet::READ_WRITE), line);
        }
    }

    #[test]
    fn creation_is_told_if_it_can_be() {
        for (created, line) in [
            (None, " n"),
            (Some(MODIFIED), "create=20260504030201; n"),
            // RFC 3659 §7.5.4: never later than the modify fact.
            (Some(MODIFIED + 1), " n"),
        ] {
            let entry = Entry {
                created,
                ..entry("n")
            };
            assert_eq!(
                facts(&entry, "create;", Role::Listed, RightSet::READ_ONLY),
                line
            );
        }
    }

    #[test]
    fn permissions_are_those_of_rfc_3659_7_5_5() {
        let (read_only, read_write) = (RightSet::READ_ONLY, RightSet::READ_WRITE);
        for (kind, mode, rights, letters) in [
            (Kind::File, 0o644, read_write, "adfrw"),
            (Kind::File, 0o644, read_only, "r"),
            (Kind::File, 0o444, read_write, "dfr"),
            (Kind::File, 0o200, read_write, "adfw"),
            (Kind::File, 0o000, read_only, ""),
            (Kind::Directory, 0o755, read_write, "cdeflmp"),
            (Kind::Directory, 0o755, read_only, "el"),
            (Kind::Directory, 0o555, read_write, "defl"),
            (Kind::Directory, 0o311, read_only, "e"),
            (Kind::Directory, 0o444, read_only, "l"),
            (Kind::Symlink, 0o777, read_write, "df"),
            (Kind::Fifo, 0o666, read_only, ""),
        ] {
            let entry = Entry {
                kind,
                mode,
                ..entry("n")
            };
            assert_eq!(
                facts(&entry, "perm;", Role::Listed, rights),
                format!("perm={letters}; n"),
                "{kind:?} {mode:o} {rights:?}"
            );
        }
    }

    #[test]
    fn fact_sets_are_read_as_rfc_3659_7_9_says() {
        for (text, names) in [
            ("", &[][..]),
            (";", &[]),
            ("type;", &["type"]),
            ("type", &["type"]),
            ("unix.MODE;Size;", &["size", "UNIX.mode"]),
            ("size;size;", &["size"]),
            // Facts that the server does not have are passed over.
            ("lang;media-type;modify;x.foo;", &["modify"]),
            ("type size;", &[]),
        ] {
            let facts = FactSet::parse(text.as_bytes());
            assert_eq!(facts.names().collect::<Vec<_>>(), names, "{text}");
        }
        let all: Vec<_> = Fact::ALL.iter().map(|fact| fact.name()).collect();
        assert_eq!(FactSet::default().names().collect::<Vec<_>>(), all);
        assert_eq!(FactSet::parse(all.join(";").as_bytes()), FactSet::default());
    }
}
