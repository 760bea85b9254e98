//! Password hashes: argon2 in PHC string form.

use std::fmt;

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordVerifier, Version};

/// A password hash as it stands in the users file. Neither `Debug` nor `Display` show it.
#[derive(Clone, Eq, PartialEq)]
pub struct StoredHash(PasswordHash);

impl StoredHash {
    /// Hashes a new password with `PARAMS` and a random salt. Blocks for a hash's time.
    ///
    /// # Errors
    /// The password is empty, longer than [`PASSWORD_LENGTH_MAX`], or holds control characters,
    /// which FTP cannot carry; or the system gives no random bytes.
    pub fn create(password: &[u8]) -> Result<Self, PasswordError> {
        match password.len() {
            0 => return Err(PasswordError::Empty),
            1..=PASSWORD_LENGTH_MAX => {}
            _ => return Err(PasswordError::TooLong),
        }
        if password.iter().any(u8::is_ascii_control) {
            return Err(PasswordError::Control);
        }
        let hasher = Argon2::new(Algorithm::Argon2id, Version::V0x13, PARAMS);
        hasher
            .hash_password(password)
            .map(Self)
            .map_err(|_| PasswordError::Hashing)
    }

    /// Takes a hash from the users file.
    ///
    /// # Errors
    /// Not a PHC string of argon2, or one whose parameters would stall a worker.
    pub fn parse(text: &str) -> Result<Self, PasswordError> {
        let hash = PasswordHash::new(text).map_err(|_| PasswordError::NotAHash)?;
        Algorithm::try_from(hash.algorithm.as_str()).map_err(|_| PasswordError::NotAHash)?;
        let params = Params::try_from(&hash).map_err(|_| PasswordError::NotAHash)?;
        if hash.hash.is_none() || hash.salt.is_none() {
            return Err(PasswordError::NotAHash);
        }
        let bounded = params.m_cost() <= MEMORY_KIB_MAX
            && params.t_cost() <= PASSES_MAX
            && params.p_cost() <= LANES_MAX;
        if bounded {
            Ok(Self(hash))
        } else {
            Err(PasswordError::TooCostly)
        }
    }

    /// Whether this is the hash of `password`. Blocks for a hash's time. The hash's own parameters
    /// count, not `PARAMS`; the comparison takes constant time.
    pub fn matches(&self, password: &[u8]) -> bool {
        password.len() <= PASSWORD_LENGTH_MAX
            && Argon2::default().verify_password(password, &self.0).is_ok()
    }

    /// The PHC string, for the users file only.
    pub(super) fn to_phc(&self) -> String {
        self.0.to_string()
    }
}

impl fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredHash(…)")
    }
}

/// Takes as long as [`StoredHash::matches`] on a hash that has `PARAMS`.
pub(super) fn match_nothing(password: &[u8]) {
    if let Ok(hash) = StoredHash::parse(HASH_OF_NOBODY) {
        // The result must be used, or the work could be optimised away.
        std::hint::black_box(hash.matches(password));
    }
}

/// Why a password or a hash is not taken.
#[derive(Clone, Copy, Debug, Eq, PartialEq, thiserror::Error)]
pub enum PasswordError {
    /// The password is empty.
    #[error("a password is not empty")]
    Empty,
    /// The password is longer than [`PASSWORD_LENGTH_MAX`].
    #[error("a password has at most {PASSWORD_LENGTH_MAX} bytes")]
    TooLong,
    /// The password has control characters.
    #[error("a password cannot hold control characters: FTP has no way to send them")]
    Control,
    /// The system gave no random bytes, or no memory.
    #[error("the password could not be hashed")]
    Hashing,
    /// Not a PHC string of argon2.
    #[error("not an argon2 hash")]
    NotAHash,
    /// A hash that takes too much memory or time to verify.
    #[error(
        "this hash takes too long to verify: at most m={MEMORY_KIB_MAX} t={PASSES_MAX} p={LANES_MAX}"
    )]
    TooCostly,
}

/// argon2id with 19 MiB, 2 passes, 1 lane: OWASP Password Storage Cheat Sheet, the least memory it
/// recommends without more passes. A login costs some 20 ms of one worker.
const PARAMS: Params = match Params::new(19 << 10, 2, 1, Some(Params::DEFAULT_OUTPUT_LEN)) {
    Ok(params) => params,
    Err(_) => panic!("19 MiB, 2 passes and 1 lane are within argon2's bounds"),
};

/// Fits a control line of the shortest maximum, 512 bytes, whatever Telnet doubles in it.
pub const PASSWORD_LENGTH_MAX: usize = 250;

/// A hash with `PARAMS` over random bytes: no known password has it.
const HASH_OF_NOBODY: &str = "$argon2id$v=19$m=19456,t=2,p=1$\
    M1hF0InBU1MpC8EhbseM/g$rynKUQ6TEyOAwlYNfnM+ZeitrbMw6d/+TBcl0H97/7A";

/// 256 MiB: all workers together still fit into a small machine.
const MEMORY_KIB_MAX: u32 = 256 << 10;
/// With 256 MiB about one second.
const PASSES_MAX: u32 = 10;
/// Lanes are computed one after the other here; more bring nothing.
const LANES_MAX: u32 = 16;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_hash_matches_its_password_only() {
        let hash = StoredHash::create(b"correct horse").expect("a fine password");
        assert!(hash.to_phc().starts_with("$argon2id$v=19$m=19456,t=2,p=1$"));
        let read = StoredHash::parse(&hash.to_phc()).expect("what was written is read");
        assert_eq!(read, hash);
        assert!(read.matches(b"correct horse"));
        assert!(!read.matches(b"correct horse "));
        assert!(!read.matches(b""));
        assert!(!read.matches(&[b'a'; PASSWORD_LENGTH_MAX + 1]));
    }

    #[test]
    fn two_hashes_of_a_password_differ() {
        assert_ne!(StoredHash::create(b"x"), StoredHash::create(b"x"));
    }

    #[test]
    fn the_hash_of_nobody_costs_what_a_new_hash_costs() {
        let nobody = StoredHash::parse(HASH_OF_NOBODY).expect("a valid hash");
        let params = Params::try_from(&nobody.0).expect("valid parameters");
        assert_eq!(
            (
                params.m_cost(),
                params.t_cost(),
                params.p_cost(),
                nobody.0.hash.map(|h| h.len())
            ),
            (
                PARAMS.m_cost(),
                PARAMS.t_cost(),
                PARAMS.p_cost(),
                PARAMS.output_len()
            ),
        );
        assert!(!nobody.matches(b"nobody"));
    }

    #[test]
    fn foreign_hashes_are_bounded() {
        let tail = "$M1hF0InBU1MpC8EhbseM/g$rynKUQ6TEyOAwlYNfnM+ZeitrbMw6d/+TBcl0H97/7A";
        for (head, error) in [
            ("$argon2id$v=19$m=65536,t=3,p=4", None),
            ("$argon2i$v=19$m=4096,t=3,p=1", None),
            ("$argon2id$v=19$m=262144,t=10,p=16", None),
            (
                "$argon2id$v=19$m=262145,t=1,p=1",
                Some(PasswordError::TooCostly),
            ),
            (
                "$argon2id$v=19$m=4294967295,t=1,p=1",
                Some(PasswordError::TooCostly),
            ),
            (
                "$argon2id$v=19$m=19456,t=11,p=1",
                Some(PasswordError::TooCostly),
            ),
            (
                "$argon2id$v=19$m=19456,t=1,p=17",
                Some(PasswordError::TooCostly),
            ),
            ("$argon2id$v=19$m=1,t=1,p=1", Some(PasswordError::NotAHash)),
            ("$scrypt$ln=16,r=8,p=1", Some(PasswordError::NotAHash)),
        ] {
            assert_eq!(
                StoredHash::parse(&format!("{head}{tail}")).err(),
                error,
                "{head}"
            );
        }
        for text in [
            "",
            "hunter2",
            "$6$salt$hash",
            "$argon2id$v=19$m=19456,t=2,p=1",
            "$$$$",
        ] {
            assert_eq!(
                StoredHash::parse(text),
                Err(PasswordError::NotAHash),
                "{text}"
            );
        }
    }

    #[test]
    fn passwords_that_ftp_cannot_carry_are_refused() {
        for (password, error) in [
            (&b""[..], PasswordError::Empty),
            (b"a\r\n", PasswordError::Control),
            (b"a\0b", PasswordError::Control),
            (&[b'a'; 251], PasswordError::TooLong),
        ] {
            assert_eq!(StoredHash::create(password), Err(error));
        }
    }

    #[test]
    fn a_hash_is_not_shown() {
        let hash = StoredHash::parse(HASH_OF_NOBODY).expect("a valid hash");
        assert_eq!(format!("{hash:?}"), "StoredHash(…)");
    }
}
