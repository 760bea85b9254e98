//! Patterns in the last component of a name, as a shell has them (LIST `*.txt`): `*`, `?`, `[a-z]`,
//! `[!a-z]`, `\x`.
//!
//! Only the last `*` is ever taken back, so that a match costs at most pattern length × name length
//! steps, whatever the pattern; one made to blow up (`*a*a*a*b`) finds nothing to blow up.

/// Whether `name`, one component of a path, is of the form that `pattern` describes.
///
/// `?` and `[…]` stand for one character if the name is UTF-8 there, else for one byte. A `.` that
/// begins a name is only matched by a `.` in the pattern. A `[` without its `]`, and a `\` at the
/// end, stand for themselves.
pub fn matches(pattern: &[u8], name: &[u8]) -> bool {
    if name.first() == Some(&b'.') && !matches!(pattern, [b'.', ..] | [b'\\', b'.', ..]) {
        return false;
    }
    covers(pattern, name)
}

/// As [`matches()`], but a `.` that begins a name is like any other character: for what is forbidden,
/// and not for what is asked for.
pub fn covers(pattern: &[u8], name: &[u8]) -> bool {
    let tail =
        memchr::memrchr(b']', pattern).map_or(pattern.len(), |last| pattern.len() - last - 1);
    let (mut pattern, mut name) = (pattern, name);
    // What follows the last `*`, and where in the name the next attempt with it begins.
    let mut retry: Option<(&[u8], &[u8])> = None;
    loop {
        if let [b'*', rest @ ..] = pattern {
            pattern = rest;
            retry = Some((rest, name));
            continue;
        }
        match (pattern, name) {
            ([], []) => return true,
            ([_, ..], [_, ..]) => {
                if let Some((pattern_rest, name_rest)) = step(pattern, tail, name) {
                    (pattern, name) = (pattern_rest, name_rest);
                    continue;
                }
            }
            // The name is used up, the pattern is not: a shorter rest of the name cannot help.
            (_, []) => return false,
            ([], _) => {}
        }
        // The `*` takes one character more.
        match retry {
            Some((after_star, from)) if !from.is_empty() => {
                let from = &from[first_character(from).1..];
                (pattern, name) = (after_star, from);
                retry = Some((after_star, from));
            }
            _ => return false,
        }
    }
}

/// Whether `text` has anything in it that [`matches()`] treats as other than itself. File names may
/// have such bytes as well: a name that exists is to be preferred to its meaning as a pattern.
pub fn is_pattern(text: &[u8]) -> bool {
    memchr::memchr3(b'*', b'?', b'[', text).is_some()
}

/// Matches one element of the pattern, no `*`, with one character of the name; gives what follows.
/// Neither may be empty. `tail` is how many bytes of the pattern follow its last `]`.
fn step<'p, 'n>(pattern: &'p [u8], tail: usize, name: &'n [u8]) -> Option<(&'p [u8], &'n [u8])> {
    match pattern {
        [b'?', rest @ ..] => Some((rest, &name[first_character(name).1..])),
        [b'[', class @ ..] => {
            let (negated, class) = match class {
                [b'!' | b'^', class @ ..] => (true, class),
                _ => (false, class),
            };
            if !is_class(class, tail) {
                return (name[0] == b'[').then(|| (&pattern[1..], &name[1..]));
            }
            let (character, length) = first_character(name);
            let (found, rest) = in_class(class, character);
            (found != negated).then(|| (rest, &name[length..]))
        }
        [b'\\', escaped, rest @ ..] => (name[0] == *escaped).then(|| (rest, &name[1..])),
        [byte, rest @ ..] => (name[0] == *byte).then(|| (rest, &name[1..])),
        [] => None,
    }
}

/// Whether a class that begins here has an end. Its first byte, even a `]`, is a member.
fn is_class(class: &[u8], tail: usize) -> bool {
    class.len() >= tail + 2
}

/// Whether `character` is in the class that begins here, and what follows its `]`. In a class no
/// byte is escaped: POSIX.1-2024 XBD §9.3.5.
fn in_class(class: &[u8], character: u32) -> (bool, &[u8]) {
    let (mut class, mut found, mut first) = (class, false, true);
    loop {
        match class {
            [] => return (false, class),
            [b']', rest @ ..] if !first => return (found, rest),
            _ => {}
        }
        first = false;
        let (low, length) = first_character(class);
        let mut high = low;
        class = &class[length..];
        // A `-` before the `]` is a member, not a range.
        if let [b'-', rest @ ..] = class
            && !matches!(rest, [] | [b']', ..])
        {
            let length;
            (high, length) = first_character(rest);
            class = &rest[length..];
        }
        found |= (low..=high).contains(&character);
    }
}

/// The first character and its length; a byte that is no UTF-8 is a character of its own, beyond
/// all others. `bytes` must not be empty.
fn first_character(bytes: &[u8]) -> (u32, usize) {
    if bytes[0].is_ascii() {
        return (u32::from(bytes[0]), 1);
    }
    let head = &bytes[..bytes.len().min(4)];
    match head
        .utf8_chunks()
        .next()
        .and_then(|chunk| chunk.valid().chars().next())
    {
        Some(character) => (u32::from(character), character.len_utf8()),
        None => (NOT_UTF8 + u32::from(bytes[0]), 1),
    }
}

/// Above every character.
const NOT_UTF8: u32 = 0x11_0000;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{is_pattern, matches};

    fn check(table: &[(&str, &str, bool)]) {
        for (pattern, name, expected) in table {
            assert_eq!(
                matches(pattern.as_bytes(), name.as_bytes()),
                *expected,
                "{pattern} and {name}"
            );
        }
    }

    #[test]
    fn patterns_match_as_in_a_shell() {
        // POSIX.1-2024 XCU §2.14.
        check(&[
            ("", "", true),
            ("", "a", false),
            ("a", "", false),
            ("abc", "abc", true),
            ("abc", "abd", false),
            ("abc", "abcd", false),
            ("*", "", true),
            ("*", "abc", true),
            ("**", "abc", true),
            ("*.txt", "a.txt", true),
            ("*.txt", ".txt", false),
            ("*.txt", "a.txt.gz", false),
            ("a*", "a", true),
            ("a*c", "abbbc", true),
            ("a*c", "abcbd", false),
            ("*a*b*", "xxaxxbxx", true),
            ("*a*b*", "xxbxxaxx", false),
            ("*ab", "aab", true),
            ("a*b*c", "abcbc", true),
            ("?", "a", true),
            ("?", "", false),
            ("?", "ab", false),
            ("a?c", "abc", true),
            ("*?", "abc", true),
            ("?*", "", false),
        ]);
    }

    #[test]
    fn classes_match_as_in_a_shell() {
        // POSIX.1-2024 XCU §2.14.1, XBD §9.3.5.
        check(&[
            ("[a-c]x", "bx", true),
            ("[a-c]x", "dx", false),
            ("[!a-c]", "d", true),
            ("[!a-c]", "b", false),
            ("[^a-c]", "d", true),
            ("[abc]", "c", true),
            ("[a-cx-z]", "y", true),
            ("[a-]", "-", true),
            ("[-a]", "-", true),
            ("[!-a]", "b", true),
            ("[]]", "]", true),
            ("[]a]", "a", true),
            ("[!]]", "]", false),
            ("[!]]", "a", true),
            ("[[]", "[", true),
            ("[c-a]", "b", false),
            ("[\\]", "\\", true),
            ("*[0-9].log", "app12.log", true),
            ("[a-c]*[x-z]", "b--y", true),
            // No class without its end.
            ("[", "[", true),
            ("[a", "[a", true),
            ("[a", "a", false),
            ("[]", "[]", true),
            ("[!]", "[!]", true),
            ("a[b-", "a[b-", true),
            ("*[", "a[", true),
        ]);
    }

    #[test]
    fn escapes_and_dots_match_as_in_a_shell() {
        check(&[
            ("\\*", "*", true),
            ("\\*", "a", false),
            ("\\?", "?", true),
            ("\\[a]", "[a]", true),
            ("a\\bc", "abc", true),
            ("a\\", "a\\", true),
            // A dot at the beginning.
            ("*", ".a", false),
            ("?a", ".a", false),
            ("[.]a", ".a", false),
            ("[!x]a", ".a", false),
            (".*", ".a", true),
            (".?", ".a", true),
            ("\\.*", ".a", true),
            ("a*", "a.b", true),
            ("*", "a.b", true),
        ]);
    }

    #[test]
    fn characters_are_matched_and_not_bytes() {
        check(&[
            ("?", "ä", true),
            ("??", "ä", false),
            ("???", "日本語", true),
            ("[ä-ü]", "ö", true),
            ("[!ä]", "ä", false),
            ("*[!ä]", "ä", false),
            ("*ä", "xä", true),
        ]);
    }

    #[test]
    fn names_that_are_no_utf8_match_by_bytes() {
        for (pattern, name, expected) in [
            (&b"caf?"[..], &b"caf\xe9"[..], true),
            (b"caf\xe9", b"caf\xe9", true),
            (b"*\xe9", b"caf\xe9", true),
            (b"[\xe0-\xef]", b"\xe9", true),
            (b"[!\xe0-\xef]", b"\xe9", false),
            (b"[a-z]", b"\xe9", false),
            (b"??", b"\xc3\xc3", true),
        ] {
            assert_eq!(matches(pattern, name), expected, "{pattern:?} and {name:?}");
        }
    }

    #[test]
    fn patterns_are_told_from_names() {
        for (text, expected) in [
            ("", false),
            ("a.txt", false),
            ("a b", false),
            ("a\\b", false),
            ("*", true),
            ("a?", true),
            ("[a]", true),
            ("\\*", true),
        ] {
            assert_eq!(is_pattern(text.as_bytes()), expected, "{text}");
        }
    }

    #[test]
    fn no_pattern_blows_up() {
        // Each of these keeps a matcher that tries all ways of its `*`s busy for years.
        let name = [b'a'; 255];
        let closed = [b"*".as_slice(), &b"[a]".repeat(1000), b"b"].concat();
        let escaped = [b"*".as_slice(), &b"[\\]".repeat(1000)].concat();
        for pattern in [
            [b"*a".repeat(2000), b"b".to_vec()].concat(),
            [b"*?".repeat(2000), b"b".to_vec()].concat(),
            [b"*".to_vec(), b"a".repeat(254), b"b".to_vec()].concat(),
            [b"*".to_vec(), b"[".repeat(4000)].concat(),
            [b"*[".to_vec(), b"b".repeat(4000), b"]".to_vec()].concat(),
            closed,
            escaped,
        ] {
            for _ in 0..100 {
                assert!(!matches(&pattern, &name));
                assert!(!matches(&pattern, &[b'['; 255]));
            }
        }
    }

    /// The definition of `*` and `?`, with no thought of time.
    fn matches_slowly(pattern: &[u8], name: &[u8]) -> bool {
        match (pattern, name) {
            ([b'*', rest @ ..], _) => {
                (0..=name.len()).any(|taken| matches_slowly(rest, &name[taken..]))
            }
            ([b'?', pattern @ ..], [_, name @ ..]) => matches_slowly(pattern, name),
            ([byte, pattern @ ..], [first, name @ ..]) => {
                byte == first && matches_slowly(pattern, name)
            }
            ([], []) => true,
            _ => false,
        }
    }

    proptest! {
        #[test]
        fn matching_is_as_defined(pattern in "[ab*?]{0,8}", name in "[ab]{0,12}") {
            let (pattern, name) = (pattern.as_bytes(), name.as_bytes());
            prop_assert_eq!(matches(pattern, name), matches_slowly(pattern, name));
        }

        #[test]
        fn a_name_without_special_bytes_matches_itself(name in "[^*?\\[\\\\]{0,20}") {
            prop_assert!(matches(name.as_bytes(), name.as_bytes()));
        }

        #[test]
        fn no_bytes_make_it_panic(
            pattern in prop::collection::vec(
                prop_oneof![Just(b'['), Just(b']'), Just(b'*'), Just(b'-'), any::<u8>()],
                0..40,
            ),
            name in prop::collection::vec(any::<u8>(), 0..20),
        ) {
            matches(&pattern, &name);
        }
    }
}
