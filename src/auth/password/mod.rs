//! Password hashes. New ones are argon2id; those of other systems are verified, so that their users
//! can be taken over with the passwords they have.

mod foreign;
mod md5;

use std::collections::BTreeMap;
use std::fmt;

use argon2::password_hash::PasswordHasher;
use argon2::password_hash::phc::PasswordHash;
use argon2::{Algorithm, Argon2, Params, PasswordVerifier, Version};

use foreign::Foreign;

/// A password hash as it stands in the users file. Neither `Debug` nor `Display` show it.
#[derive(Clone, Eq, PartialEq)]
pub struct StoredHash {
    text: String,
    form: Form,
}

/// How the text of a hash is to be read.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Form {
    /// A PHC string of argon2.
    Argon2,
    /// A string of crypt(5).
    Foreign(Foreign),
}

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
        let hash: PasswordHash = hasher
            .hash_password(password)
            .map_err(|_| PasswordError::Hashing)?;
        Ok(Self {
            text: hash.to_string(),
            form: Form::Argon2,
        })
    }

    /// Takes a hash from the users file, or from another system's.
    ///
    /// # Errors
    /// Not a hash of a known form, or one whose parameters would stall a worker.
    pub fn parse(text: &str) -> Result<Self, PasswordError> {
        let form = if text.starts_with("$argon2") {
            check_argon2(text)?;
            Form::Argon2
        } else {
            Form::Foreign(Foreign::of(text)?)
        };
        Ok(Self {
            text: text.to_owned(),
            form,
        })
    }

    /// Whether this is the hash of `password`. Blocks for a hash's time. The hash's own parameters
    /// count, not `PARAMS`; the comparison takes constant time.
    pub fn matches(&self, password: &[u8]) -> bool {
        if password.len() > PASSWORD_LENGTH_MAX {
            return false;
        }
        match self.form {
            Form::Argon2 => PasswordHash::new(&self.text)
                .is_ok_and(|hash| Argon2::default().verify_password(password, &hash).is_ok()),
            Form::Foreign(foreign) => foreign.matches(&self.text, password),
        }
    }

    /// A hash of no known password, with `PARAMS`.
    pub(super) fn of_nobody() -> Self {
        Self {
            text: HASH_OF_NOBODY.to_owned(),
            form: Form::Argon2,
        }
    }

    /// What decides how long [`StoredHash::matches`] takes: hashes for which this is the same take
    /// the same time.
    pub(super) fn cost(&self) -> &str {
        match self.form {
            Form::Foreign(Foreign::Bcrypt) => &self.text[..BCRYPT_HEAD],
            // Salt and hash are the last two fields of all others.
            _ => self.text.rsplitn(3, '$').last().unwrap_or_default(),
        }
    }

    /// One of these hashes with the cost that most of them have, and how many that are.
    pub(super) fn usual<'h>(hashes: impl Iterator<Item = &'h Self>) -> Option<(usize, Self)> {
        let mut costs: BTreeMap<&str, (usize, &Self)> = BTreeMap::new();
        for hash in hashes {
            costs.entry(hash.cost()).or_insert((0, hash)).0 += 1;
        }
        let most = costs.into_values().max_by_key(|(count, _)| *count);
        most.map(|(count, hash)| (count, hash.clone()))
    }

    /// The hash, for a store of users only.
    pub fn into_text(self) -> String {
        self.text
    }

    /// The hash, for the users file only.
    pub(super) fn as_text(&self) -> &str {
        &self.text
    }
}

impl fmt::Debug for StoredHash {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("StoredHash(…)")
    }
}

fn check_argon2(text: &str) -> Result<(), PasswordError> {
    let hash = PasswordHash::new(text).map_err(|_| PasswordError::NotAHash)?;
    Algorithm::try_from(hash.algorithm.as_str()).map_err(|_| PasswordError::NotAHash)?;
    let params = Params::try_from(&hash).map_err(|_| PasswordError::NotAHash)?;
    if hash.hash.is_none() || hash.salt.is_none() {
        return Err(PasswordError::NotAHash);
    }
    let work = u64::from(params.m_cost()) * u64::from(params.t_cost());
    let bounded =
        params.m_cost() <= MEMORY_KIB_MAX && work <= WORK_KIB_MAX && params.p_cost() <= LANES_MAX;
    bounded.then_some(()).ok_or(PasswordError::TooCostly)
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
    /// Not a hash of a known form.
    #[error(
        "not a password hash of a known form: argon2, bcrypt, sha-crypt, yescrypt or md5-crypt"
    )]
    NotAHash,
    /// A hash that takes too much memory or time to verify.
    #[error(
        "this hash takes too long to verify: at most {MEMORY_MIB_MAX} MiB, {WORK_GIB_MAX} GiB in all \
         passes and {LANES_MAX} lanes of argon2, {} MiB of yescrypt, cost {} of bcrypt, {} rounds of \
         sha-crypt",
        foreign::YESCRYPT_BYTES_MAX >> 20,
        foreign::BCRYPT_COST_MAX,
        foreign::SHA_ROUNDS_MAX
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

/// All workers together still fit into a small machine.
const MEMORY_MIB_MAX: u32 = 256;
const MEMORY_KIB_MAX: u32 = MEMORY_MIB_MAX << 10;
/// Memory times passes. Pure-FTPd tunes its hashes to the machine that makes them, up to 1023 passes
/// over 8 MiB: such a login takes one worker for some seconds here as it does there.
const WORK_GIB_MAX: u64 = 8;
const WORK_KIB_MAX: u64 = WORK_GIB_MAX << 20;
/// Lanes are computed one after the other here; more bring nothing.
const LANES_MAX: u32 = 16;
/// `$2b$10$`
const BCRYPT_HEAD: usize = 7;

#[cfg(test)]
mod tests;
