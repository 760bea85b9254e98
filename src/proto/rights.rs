//! What a user may do in the tree, and where: a set of rights, rules for parts of the tree, and names
//! that do not exist for the user.

use super::failure::Failure;
use super::glob;
use super::path::VirtualPath;

/// One thing to do.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
#[repr(u16)]
pub enum Right {
    /// List directories and ask for what is known of a file (LIST, MLSD, SIZE, MDTM, STAT).
    List = 1,
    /// Read files (RETR, HASH).
    Read = 2,
    /// Store files under new names (STOR, STOU, APPE).
    Create = 4,
    /// Replace files, or write to them (STOR, APPE, REST, RNTO onto a file).
    Overwrite = 8,
    /// Remove files and directories (DELE, RMD).
    Delete = 16,
    /// Rename (RNFR, RNTO).
    Rename = 32,
    /// Make directories (MKD).
    MakeDirectory = 64,
    /// Set times and permissions (MFMT, MFF, SITE CHMOD, SITE UTIME).
    Attributes = 128,
}

impl Right {
    /// All rights, with their names in a configuration.
    pub const NAMES: [(&str, Self); 8] = [
        ("list", Self::List),
        ("read", Self::Read),
        ("create", Self::Create),
        ("overwrite", Self::Overwrite),
        ("delete", Self::Delete),
        ("rename", Self::Rename),
        ("mkdir", Self::MakeDirectory),
        ("chmod", Self::Attributes),
    ];
}

/// A set of rights.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub struct RightSet(u16);

impl RightSet {
    /// Nothing.
    pub const NONE: Self = Self(0);
    /// Look and download.
    pub const READ_ONLY: Self = Self(Right::List as u16 | Right::Read as u16);
    /// Everything that the file system lets the server do.
    pub const READ_WRITE: Self = Self(0xff);
    /// Store new files and make directories for them, without seeing anything: a drop box.
    pub const UPLOAD_ONLY: Self = Self(Right::Create as u16 | Right::MakeDirectory as u16);

    /// The sets that have a name in a configuration.
    pub const NAMES: [(&str, Self); 4] = [
        ("read-only", Self::READ_ONLY),
        ("read-write", Self::READ_WRITE),
        ("upload-only", Self::UPLOAD_ONLY),
        ("none", Self::NONE),
    ];

    /// Whether the set has this right.
    pub fn has(self, right: Right) -> bool {
        self.0 & right as u16 != 0
    }

    /// Whether the set has all of these.
    fn includes(self, others: Self) -> bool {
        others.0 & !self.0 == 0
    }

    /// The set with this right as well.
    #[must_use]
    pub fn with(self, right: Right) -> Self {
        Self(self.0 | right as u16)
    }

    /// The set without this right.
    #[must_use]
    pub fn without(self, right: Right) -> Self {
        Self(self.0 & !(right as u16))
    }
}

/// Which parts of a tree something is about.
///
/// Components are matched one by one as [`glob`] does it, a leading dot included; `**` stands for
/// any number of them. A pattern that does not begin with `/` may begin at any depth. What is below a
/// match matches, too.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Pattern {
    text: String,
    parts: Vec<Part>,
}

#[derive(Clone, Debug, Eq, PartialEq)]
enum Part {
    Name(Vec<u8>),
    AnyDepth,
}

impl Pattern {
    /// Takes a pattern as an operator writes it; `None` if it names nothing or is too long.
    pub fn parse(text: &str) -> Option<Self> {
        let mut parts = Vec::new();
        if !text.starts_with('/') {
            parts.push(Part::AnyDepth);
        }
        let names = text.split('/').filter(|name| !name.is_empty());
        for name in names {
            match name {
                "**" if parts.last() == Some(&Part::AnyDepth) => {}
                "**" => parts.push(Part::AnyDepth),
                "." | ".." => return None,
                name => parts.push(Part::Name(name.as_bytes().to_vec())),
            }
        }
        let is_pattern = text.len() <= PATTERN_LENGTH_MAX
            && (text == "/" || parts.iter().any(|part| matches!(part, Part::Name(_))));
        is_pattern.then(|| Self {
            text: text.to_owned(),
            parts,
        })
    }

    /// The pattern as it was written.
    pub fn as_str(&self) -> &str {
        &self.text
    }

    /// Whether the path, or a directory above it, matches. At most so many steps as the path has
    /// components, times those of the pattern: only the last `**` is ever taken back.
    fn covers(&self, path: &[&[u8]]) -> bool {
        let (mut part, mut at) = (0, 0);
        let mut retry: Option<(usize, usize)> = None;
        loop {
            match self.parts.get(part) {
                None => return true,
                Some(Part::AnyDepth) => {
                    part += 1;
                    retry = Some((part, at));
                    continue;
                }
                Some(Part::Name(name)) => {
                    if path.get(at).is_some_and(|here| glob::covers(name, here)) {
                        part += 1;
                        at += 1;
                        continue;
                    }
                }
            }
            match retry {
                Some((after, from)) if from < path.len() => {
                    (part, at) = (after, from + 1);
                    retry = Some((after, from + 1));
                }
                _ => return false,
            }
        }
    }

    /// How much of the pattern a path has gone through.
    fn reach(&self, path: &[&[u8]]) -> Reach {
        let mut waiting = vec![false; self.parts.len() + 1];
        self.wait_at(0, &mut waiting);
        for here in path {
            if waiting[self.parts.len()] {
                break;
            }
            let before = std::mem::replace(&mut waiting, vec![false; self.parts.len() + 1]);
            for (index, part) in self.parts.iter().enumerate().filter(|(at, _)| before[*at]) {
                match part {
                    Part::AnyDepth => self.wait_at(index, &mut waiting),
                    Part::Name(name) if glob::covers(name, here) => {
                        self.wait_at(index + 1, &mut waiting);
                    }
                    Part::Name(_) => {}
                }
            }
        }
        let covers = waiting.pop() == Some(true);
        // What is below a match matches; nothing else is of interest there.
        if covers {
            waiting.fill(false);
        }
        Reach { covers, waiting }
    }

    fn wait_at(&self, mut index: usize, waiting: &mut [bool]) {
        waiting[index] = true;
        while self.parts.get(index) == Some(&Part::AnyDepth) {
            index += 1;
            waiting[index] = true;
        }
    }

    /// Whether something below the directory could match that the directory itself does not.
    fn may_be_below(&self, directory: &[&[u8]]) -> bool {
        for (index, part) in self.parts.iter().enumerate() {
            match (part, directory.get(index)) {
                (Part::AnyDepth, _) => return true,
                (Part::Name(_), None) => return true,
                (Part::Name(name), Some(here)) => {
                    if !glob::covers(name, here) {
                        return false;
                    }
                }
            }
        }
        false
    }
}

/// How much of a pattern a path has gone through.
#[derive(Debug, Eq, PartialEq)]
struct Reach {
    /// The path matches, and so does all that is below.
    covers: bool,
    /// Otherwise, for each part of the pattern, whether a name below may go on with it.
    waiting: Vec<bool>,
}

impl Reach {
    /// Whether something below may match.
    fn waits(&self) -> bool {
        self.waiting.contains(&true)
    }

    /// Whether what matches only below the `other` path matches below this one as well.
    fn includes(&self, other: &Self) -> bool {
        let mut pairs = self.waiting.iter().zip(&other.waiting);
        self.covers || pairs.all(|(here, there)| *here || !*there)
    }
}

/// Other rights in a part of the tree.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rule {
    /// Where.
    pub pattern: Pattern,
    /// Rights taken there.
    pub taken: RightSet,
    /// Rights given there, after those were taken.
    pub given: RightSet,
}

impl Rule {
    /// Takes a rule as an operator writes it: a pattern, then words, each the name of a set of
    /// rights, or `+` or `-` and the name of a right. `/incoming -read -list`, `/pub read-only`.
    ///
    /// # Errors
    /// What is wrong with it.
    pub fn parse(text: &str) -> Result<Self, String> {
        // Words never begin with a slash and patterns may hold spaces: the words are the last ones.
        let mut words: Vec<&str> = Vec::new();
        let mut rest = text.trim();
        while let Some((before, word)) = rest.rsplit_once(' ')
            && is_word(word)
        {
            words.push(word);
            rest = before.trim_end();
        }
        let Some(pattern) = Pattern::parse(rest) else {
            return Err(format!("{rest:?} is not a pattern of paths"));
        };
        if words.is_empty() {
            let sets: Vec<&str> = RightSet::NAMES.iter().map(|(name, _)| *name).collect();
            let rights: Vec<&str> = Right::NAMES.iter().map(|(name, _)| *name).collect();
            return Err(format!(
                "behind the pattern comes one of {}, or + or - and one of {}",
                sets.join(", "),
                rights.join(", ")
            ));
        }
        let (mut taken, mut given) = (RightSet::NONE, RightSet::NONE);
        for word in words.into_iter().rev() {
            if let Some(set) = set_named(word) {
                (taken, given) = (RightSet::READ_WRITE, set);
            } else if let Some((sign, right)) = change_named(word) {
                (taken, given) = match sign {
                    '+' => (taken, given.with(right)),
                    _ => (taken.with(right), given.without(right)),
                };
            }
        }
        Ok(Self {
            pattern,
            taken,
            given,
        })
    }

    /// What the rule leaves of a set, without what it gives.
    fn takes_from(&self, set: RightSet) -> RightSet {
        RightSet(set.0 & (!self.taken.0 | self.given.0))
    }
}

fn is_word(word: &str) -> bool {
    set_named(word).is_some() || change_named(word).is_some()
}

fn set_named(word: &str) -> Option<RightSet> {
    RightSet::NAMES
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, set)| *set)
}

fn change_named(word: &str) -> Option<(char, Right)> {
    let sign = word.chars().next().filter(|sign| "+-".contains(*sign))?;
    right_named(&word[1..]).map(|right| (sign, right))
}

/// The right of this name.
pub fn right_named(word: &str) -> Option<Right> {
    Right::NAMES
        .iter()
        .find(|(name, _)| *name == word)
        .map(|(_, right)| *right)
}

/// All that a user may do.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Rights {
    /// Where no rule says otherwise.
    pub everywhere: RightSet,
    /// Of those that match, the later ones come after the earlier ones.
    pub rules: Vec<Rule>,
    /// What does not exist for the user: it is not listed, and neither reached nor made.
    pub hidden: Vec<Pattern>,
}

impl From<RightSet> for Rights {
    fn from(everywhere: RightSet) -> Self {
        Self {
            everywhere,
            rules: Vec::new(),
            hidden: Vec::new(),
        }
    }
}

impl Rights {
    /// What may be done at `path`; nothing where it is hidden.
    pub fn at(&self, path: &[u8]) -> RightSet {
        if self.are_everywhere_the_same() {
            return self.everywhere;
        }
        let path = components(path);
        if self.hidden.iter().any(|pattern| pattern.covers(&path)) {
            return RightSet::NONE;
        }
        let mut set = self.everywhere;
        for rule in self.rules.iter().filter(|rule| rule.pattern.covers(&path)) {
            set = RightSet(set.0 & !rule.taken.0 | rule.given.0);
        }
        set
    }

    /// Whether `path` does not exist for the user.
    pub fn hides(&self, path: &[u8]) -> bool {
        if self.hidden.is_empty() {
            return false;
        }
        let path = components(path);
        self.hidden.iter().any(|pattern| pattern.covers(&path))
    }

    /// Whether `right` may be used at `path`.
    ///
    /// # Errors
    /// [`Failure::NotFound`] where the path is hidden, unless something is to be made there;
    /// [`Failure::Denied`].
    pub fn check(&self, path: &VirtualPath, right: Right) -> Result<(), Failure> {
        if self.at(path.as_bytes()).has(right) {
            return Ok(());
        }
        let makes = matches!(right, Right::Create | Right::MakeDirectory);
        match self.hides(path.as_bytes()) && !makes {
            true => Err(Failure::NotFound),
            false => Err(Failure::Denied),
        }
    }

    /// Whether everything in the directory `path` is under the same rights as the directory: it may
    /// be moved elsewhere without taking what is in it out of the reach of a rule.
    pub fn are_the_same_below(&self, path: &VirtualPath) -> bool {
        let path = components(path.as_bytes());
        let anchored = |pattern: &Pattern| pattern.text.starts_with('/');
        let mut patterns = self
            .rules
            .iter()
            .map(|rule| &rule.pattern)
            .chain(&self.hidden);
        // A pattern that begins anywhere goes with what it is about.
        !patterns.any(|pattern| anchored(pattern) && pattern.may_be_below(&path))
    }

    /// Whether what is called `from` may be called `to`: neither it nor anything that may be below it
    /// wins a right by that, and nothing hidden comes to light. Only the patterns are looked at.
    pub fn may_become(&self, from: &VirtualPath, to: &VirtualPath) -> bool {
        if self.are_everywhere_the_same() {
            return true;
        }
        let rights = self.at(from.as_bytes());
        if !rights.includes(self.at(to.as_bytes())) {
            return false;
        }
        let (from, to) = (components(from.as_bytes()), components(to.as_bytes()));
        let stays_hidden = |pattern: &Pattern| pattern.reach(&to).includes(&pattern.reach(&from));
        if !self.hidden.iter().all(stays_hidden) {
            return false;
        }
        let rules = self.rules.iter().map(|rule| {
            let Rule { pattern, .. } = rule;
            (rule, pattern.reach(&from), pattern.reach(&to))
        });
        let rules: Vec<(&Rule, Reach, Reach)> = rules.collect();
        if rules.iter().all(|(_, before, after)| before == after) {
            return true;
        }
        // What is had everywhere below at least.
        let waiting = rules.iter().filter(|(_, before, _)| before.waits());
        let least = waiting.fold(rights, |set, (rule, ..)| rule.takes_from(set));
        rules.iter().all(|(rule, before, after)| {
            let takes = rule.takes_from(RightSet::READ_WRITE) != RightSet::READ_WRITE;
            let is_new = after.waits() || after.covers && !before.covers;
            // The later rules count: what one gives may have been taken by others up to now.
            (!takes || after.includes(before)) && (!is_new || least.includes(rule.given))
        })
    }

    /// Whether no rule and no hidden name makes a difference.
    pub fn are_everywhere_the_same(&self) -> bool {
        self.rules.is_empty() && self.hidden.is_empty()
    }
}

fn components(path: &[u8]) -> Vec<&[u8]> {
    // "." is where a relative path begins, and the name of nothing.
    path.split(|byte| *byte == b'/')
        .filter(|name| !matches!(name, [] | [b'.']))
        .collect()
}

/// Longer than any sensible pattern.
const PATTERN_LENGTH_MAX: usize = 1024;

#[cfg(test)]
mod tests;
