//! Names of virtual users.

use std::fmt;

/// The name of a virtual user: 1 to [`NAME_LENGTH_MAX`] of `A-Z a-z 0-9 . _ @ -`, and none of the
/// names of anonymous access.
#[derive(Clone, Debug, Eq, Hash, Ord, PartialEq, PartialOrd)]
pub struct UserName(String);

impl UserName {
    /// Takes a name as it comes from a client or an operator.
    ///
    /// # Errors
    /// What about it is not allowed.
    pub fn parse(name: &[u8]) -> Result<Self, NameError> {
        match name.len() {
            0 => return Err(NameError::Empty),
            1..=NAME_LENGTH_MAX => {}
            _ => return Err(NameError::TooLong),
        }
        if !name
            .iter()
            .all(|byte| byte.is_ascii_alphanumeric() || b"._@-".contains(byte))
        {
            return Err(NameError::Character);
        }
        // A name may be part of a path (`{user}`).
        if matches!(name, b"." | b"..") {
            return Err(NameError::Character);
        }
        if is_anonymous(name) {
            return Err(NameError::Reserved);
        }
        let name = std::str::from_utf8(name).map_err(|_| NameError::Character)?;
        Ok(Self(name.to_owned()))
    }

    /// The name.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for UserName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

/// A user of the server, `alice`, or of one of its virtual hosts, `shop/alice`: no two have the same.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub(super) struct QualifiedName(String);

impl QualifiedName {
    /// The user of this name on a host; the host without a name is the server itself.
    pub(super) fn new(host: &str, user: &str) -> Self {
        // Neither hosts nor users have a slash in their names.
        Self(match host {
            "" => user.to_owned(),
            _ => format!("{host}/{user}"),
        })
    }

    pub(super) fn as_str(&self) -> &str {
        &self.0
    }

    pub(super) fn into_string(self) -> String {
        self.0
    }
}

/// Whether a text is what an [`Identity`](super::Identity) can be called: a user, `anonymous`, or one of
/// them behind the name of a virtual host and a slash.
///
/// # Errors
/// What about it is not allowed.
pub fn check_identity_name(text: &str) -> Result<(), NameError> {
    // The names of hosts' sections are made of what names of users are made of.
    text.splitn(2, '/')
        .filter(|part| !is_anonymous(part.as_bytes()))
        .try_for_each(|part| UserName::parse(part.as_bytes()).map(drop))
}

/// Why something is not a user's name.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum NameError {
    /// It is empty.
    #[error("a user name is not empty")]
    Empty,
    /// It is longer than [`NAME_LENGTH_MAX`].
    #[error("a user name has at most {NAME_LENGTH_MAX} characters")]
    TooLong,
    /// It has a character outside the allowed ones.
    #[error("a user name is made of A-Z a-z 0-9 . _ @ -")]
    Character,
    /// It is one of the names of anonymous access.
    #[error("the names anonymous and ftp belong to anonymous access; see [anonymous]")]
    Reserved,
}

/// Whether USER with this name asks for anonymous access (RFC 1635 §2.1).
pub fn is_anonymous(name: &[u8]) -> bool {
    name.eq_ignore_ascii_case(ANONYMOUS.as_bytes()) || name.eq_ignore_ascii_case(b"ftp")
}

pub(super) const ANONYMOUS: &str = "anonymous";

/// Long enough for most mail addresses, short enough for a log line.
pub const NAME_LENGTH_MAX: usize = 64;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn identities_are_users_or_anonymous_with_or_without_a_host() {
        for good in [
            "alice",
            "anonymous",
            "ftp",
            "shop/alice",
            "shop.example/anonymous",
            "ftp/ftp",
        ] {
            assert_eq!(check_identity_name(good), Ok(()), "{good}");
        }
        for bad in [
            "", "/alice", "shop/", "a/b/c", "../x", "a b", "shop/..", "%61",
        ] {
            assert!(check_identity_name(bad).is_err(), "{bad}");
        }
    }

    #[test]
    fn names_are_parsed_or_refused() {
        let long = [b'a'; 65];
        let rows: &[(&[u8], Option<NameError>)] = &[
            (b"alice", None),
            (b"Alice.B_1@example-host.org", None),
            (&long[..64], None),
            (&long, Some(NameError::TooLong)),
            (b"", Some(NameError::Empty)),
            (b"a b", Some(NameError::Character)),
            (b"a\0", Some(NameError::Character)),
            (b"../x", Some(NameError::Character)),
            (b"..", Some(NameError::Character)),
            (b"\xc3\xa9", Some(NameError::Character)),
            (b"\xff", Some(NameError::Character)),
            (b"a\"]\n[user.b", Some(NameError::Character)),
            (b"Anonymous", Some(NameError::Reserved)),
            (b"ftp", Some(NameError::Reserved)),
        ];
        for (name, error) in rows {
            assert_eq!(
                UserName::parse(name).err(),
                *error,
                "{}",
                name.escape_ascii()
            );
        }
    }
}
