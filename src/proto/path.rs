//! Paths as clients see them: absolute, normalised, bytes (RFC 959 §5.3.1, RFC 2640 §3).

use thiserror::Error;

/// An absolute path in the user's tree: begins with `/`, has no empty, `.` or `..` component, no
/// trailing `/`, no control byte.
///
/// `..` is resolved by name, as a shell's `cd` does it, so that PWD always tells the way that was
/// taken. Whether the path leads anywhere, and that it stays in the tree whatever links it meets, is
/// the kernel's to say (`storage`).
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct VirtualPath(Vec<u8>);

/// Why a client's argument is no path.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum PathError {
    /// There is none.
    #[error("empty path")]
    Empty,
    /// It has a NUL (which would cut it short) or another control byte (which could end a reply).
    #[error("control byte in path")]
    ControlByte,
    /// A component has more than [`NAME_BYTES_MAX`] bytes.
    #[error("name too long")]
    NameTooLong,
    /// The whole has more than [`PATH_BYTES_MAX`] bytes.
    #[error("path too long")]
    PathTooLong,
}

impl VirtualPath {
    /// `/`.
    pub fn root() -> Self {
        Self(vec![b'/'])
    }

    /// What `argument` means to somebody who is at `self`: an absolute path, or one from here.
    /// `..` in `/` is `/`.
    ///
    /// # Errors
    ///
    /// See [`PathError`].
    pub fn join(&self, argument: &[u8]) -> Result<Self, PathError> {
        if argument.is_empty() {
            return Err(PathError::Empty);
        }
        if argument.iter().any(|byte| byte.is_ascii_control()) {
            return Err(PathError::ControlByte);
        }
        let mut path = match argument[0] {
            b'/' => Vec::with_capacity(argument.len() + 1),
            _ => {
                let mut path = Vec::with_capacity(self.0.len() + 1 + argument.len());
                if !self.is_root() {
                    path.extend_from_slice(&self.0);
                }
                path
            }
        };
        // Here and below, `path` is empty for the root.
        for component in argument.split(|&byte| byte == b'/') {
            match component {
                b"" | b"." => {}
                b".." => path.truncate(memchr::memrchr(b'/', &path).unwrap_or(0)),
                name if name.len() > NAME_BYTES_MAX => return Err(PathError::NameTooLong),
                name => {
                    path.push(b'/');
                    path.extend_from_slice(name);
                }
            }
        }
        if path.len() > PATH_BYTES_MAX {
            return Err(PathError::PathTooLong);
        }
        if path.is_empty() {
            path.push(b'/');
        }
        Ok(Self(path))
    }

    /// The path with its leading `/`.
    pub fn as_bytes(&self) -> &[u8] {
        &self.0
    }

    /// The path from the root on, as openat2(2) wants it: without the leading `/`, `.` for the root.
    pub fn relative(&self) -> &[u8] {
        match self.is_root() {
            true => b".",
            false => &self.0[1..],
        }
    }

    /// Whether this is `/`.
    pub fn is_root(&self) -> bool {
        self.0.len() == 1
    }

    /// The directory that holds it; `None` for the root.
    pub fn parent(&self) -> Option<Self> {
        if self.is_root() {
            return None;
        }
        match memchr::memrchr(b'/', &self.0) {
            Some(0) | None => Some(Self::root()),
            Some(slash) => Some(Self(self.0[..slash].to_vec())),
        }
    }

    /// The last component; `None` for the root.
    pub fn name(&self) -> Option<&[u8]> {
        if self.is_root() {
            return None;
        }
        self.0.rsplit(|&byte| byte == b'/').next()
    }

    /// The way from `directory` to this path, `.` if they are the same; `None` if it does not lie
    /// there.
    pub fn below(&self, directory: &Self) -> Option<&[u8]> {
        if directory.is_root() {
            return Some(self.relative());
        }
        match self.0.strip_prefix(&directory.0[..])? {
            [] => Some(b"."),
            [b'/', rest @ ..] => Some(rest),
            _ => None,
        }
    }

    /// Whether `other` is this path or lies below it.
    pub fn contains(&self, other: &Self) -> bool {
        self.is_root()
            || other
                .0
                .strip_prefix(&self.0[..])
                .is_some_and(|rest| matches!(rest, [] | [b'/', ..]))
    }
}

/// Linux: NAME_MAX, the longest name in a directory.
pub const NAME_BYTES_MAX: usize = 255;

/// Linux: PATH_MAX without its NUL.
pub const PATH_BYTES_MAX: usize = 4095;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{PathError, VirtualPath};

    fn at(path: &str) -> VirtualPath {
        VirtualPath::root()
            .join(path.as_bytes())
            .expect("a path for a test")
    }

    #[test]
    fn an_argument_means_a_path() {
        for (here, argument, path) in [
            ("/", "a", "/a"),
            ("/", "/", "/"),
            ("/", ".", "/"),
            ("/", "..", "/"),
            ("/", "../../..", "/"),
            ("/", "../a", "/a"),
            ("/a/b", "c", "/a/b/c"),
            ("/a/b", "..", "/a"),
            ("/a/b", "../..", "/"),
            ("/a/b", "../../../c", "/c"),
            ("/a/b", "/c/d", "/c/d"),
            ("/a", "b//c/./d/", "/a/b/c/d"),
            ("/a", "//", "/"),
            ("/a", " b ", "/a/ b "),
            ("/a", "...", "/a/..."),
            ("/a", "..b", "/a/..b"),
            ("/a", "~", "/a/~"),
            ("/a", "b\"c", "/a/b\"c"),
        ] {
            let joined = at(here).join(argument.as_bytes()).expect(argument);
            assert_eq!(joined.as_bytes(), path.as_bytes(), "{argument} at {here}");
        }
    }

    #[test]
    fn names_are_bytes() {
        let path = VirtualPath::root().join(b"caf\xe9/\xff").expect("bytes");
        assert_eq!(path.as_bytes(), b"/caf\xe9/\xff");
        assert_eq!(path.name(), Some(&b"\xff"[..]));
    }

    #[test]
    fn what_is_no_path_is_refused() {
        let long = "n".repeat(256);
        let deep = "d/".repeat(2048);
        for (argument, error) in [
            ("", PathError::Empty),
            ("a\0b", PathError::ControlByte),
            ("a\nb", PathError::ControlByte),
            ("a\rb", PathError::ControlByte),
            ("a\x7f", PathError::ControlByte),
            (&long[..], PathError::NameTooLong),
            (&deep[..], PathError::PathTooLong),
        ] {
            assert_eq!(
                VirtualPath::root().join(argument.as_bytes()),
                Err(error),
                "{argument:?}"
            );
        }
        assert!(VirtualPath::root().join(&long.as_bytes()[..255]).is_ok());
    }

    #[test]
    fn parents_names_and_relatives() {
        for (path, parent, name, relative) in [
            ("/", None, None, "."),
            ("/a", Some("/"), Some("a"), "a"),
            ("/a/b", Some("/a"), Some("b"), "a/b"),
        ] {
            let path = at(path);
            assert_eq!(
                path.parent().map(|parent| parent.0),
                parent.map(|p| p.as_bytes().to_vec())
            );
            assert_eq!(path.name(), name.map(str::as_bytes));
            assert_eq!(path.relative(), relative.as_bytes());
        }
    }

    #[test]
    fn a_tree_contains_itself_and_what_is_below() {
        for (tree, path, inside) in [
            ("/", "/a", true),
            ("/a", "/a", true),
            ("/a", "/a/b", true),
            ("/a", "/ab", false),
            ("/a/b", "/a", false),
        ] {
            assert_eq!(at(tree).contains(&at(path)), inside, "{path} in {tree}");
        }
    }

    proptest! {
        #[test]
        fn a_path_is_always_normal(
            here in prop::collection::vec(any::<u8>(), 0..64),
            argument in prop::collection::vec(prop_oneof![Just(b'.'), Just(b'/'), any::<u8>()], 0..64),
        ) {
            let here = VirtualPath::root().join(&here).unwrap_or_else(|_| VirtualPath::root());
            if let Ok(path) = here.join(&argument) {
                let bytes = path.as_bytes();
                prop_assert_eq!(bytes[0], b'/');
                prop_assert!(!bytes.iter().any(u8::is_ascii_control));
                if !path.is_root() {
                    for component in bytes[1..].split(|&byte| byte == b'/') {
                        prop_assert!(!matches!(component, b"" | b"." | b".."));
                    }
                }
                prop_assert_eq!(&VirtualPath::root().join(bytes), &Ok(path.clone()));
            }
        }
    }
}
