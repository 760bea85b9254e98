//! Hashes in the forms of crypt(5), which users bring along from other servers. They are verified,
//! never made.

use bcrypt::HashParts;
use sha_crypt::ShaCrypt;
use sha_crypt::password_hash::PasswordVerifier;
use yescrypt::{Mode, PasswordHashRef, Yescrypt};

use super::PasswordError;
use super::md5;

/// The forms.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Foreign {
    /// `$2a$`, `$2b$`, `$2y$`. `$2x$` is the one with the sign bug of 2011, which nobody should have
    /// any more.
    Bcrypt,
    /// `$5$` and `$6$`.
    Sha,
    /// `$y$`
    Yescrypt,
    /// `$1$` and Apache's `$apr1$`.
    Md5,
}

impl Foreign {
    /// The form of the hash, if it is complete and its cost bounded: what is taken here is what
    /// [`Foreign::matches`] can compare whole.
    pub(super) fn of(text: &str) -> Result<Self, PasswordError> {
        let refused = Err(PasswordError::NotAHash);
        if text.len() > TEXT_LENGTH_MAX || !text.is_ascii() {
            return refused;
        }
        let fields: Vec<&str> = text.split('$').collect();
        match fields[..] {
            ["", "2a" | "2b" | "2y", ..] => of_bcrypt(text),
            ["", id @ ("5" | "6"), salt, hash] => of_sha(text, id, None, salt, hash),
            ["", id @ ("5" | "6"), rounds, salt, hash] => {
                of_sha(text, id, Some(rounds), salt, hash)
            }
            ["", "y", params, salt, hash] => of_yescrypt(text, params, salt, hash),
            ["", "1" | "apr1", salt, hash] if md5::is_valid(salt, hash) => Ok(Self::Md5),
            _ => refused,
        }
    }

    /// Whether `text`, which is of this form, is the hash of `password`; the comparison takes
    /// constant time.
    pub(super) fn matches(self, text: &str, password: &[u8]) -> bool {
        // For crypt(3) a password ends at its first NUL, so none of these is the hash of such a one.
        if password.contains(&0) {
            return false;
        }
        match self {
            Self::Bcrypt => bcrypt::verify(password, text).unwrap_or(false),
            Self::Sha => ShaCrypt::default().verify_password(password, text).is_ok(),
            Self::Yescrypt => Yescrypt::default().verify_password(password, text).is_ok(),
            Self::Md5 => md5::matches(text, password),
        }
    }
}

fn of_bcrypt(text: &str) -> Result<Foreign, PasswordError> {
    let parts: HashParts = text.parse().map_err(|_| PasswordError::NotAHash)?;
    match parts.get_cost() {
        ..BCRYPT_COST_MIN => Err(PasswordError::NotAHash),
        BCRYPT_COST_MIN..=BCRYPT_COST_MAX => Ok(Foreign::Bcrypt),
        _ => Err(PasswordError::TooCostly),
    }
}

fn of_sha(
    text: &str,
    id: &str,
    rounds: Option<&str>,
    salt: &str,
    hash: &str,
) -> Result<Foreign, PasswordError> {
    if let Some(rounds) = rounds {
        let rounds = rounds.strip_prefix("rounds=");
        let rounds = rounds.and_then(|rounds| rounds.parse::<u32>().ok());
        match rounds {
            Some(SHA_ROUNDS_MIN..=SHA_ROUNDS_MAX) => {}
            Some(rounds) if rounds > SHA_ROUNDS_MAX => return Err(PasswordError::TooCostly),
            _ => return Err(PasswordError::NotAHash),
        }
    }
    let length = if id == "5" {
        SHA256_LENGTH
    } else {
        SHA512_LENGTH
    };
    let complete = hash.len() == length && hash.bytes().all(md5::is_digit) && !salt.is_empty();
    if complete && PasswordHashRef::new(text).is_ok() {
        Ok(Foreign::Sha)
    } else {
        Err(PasswordError::NotAHash)
    }
}

fn of_yescrypt(text: &str, params: &str, salt: &str, hash: &str) -> Result<Foreign, PasswordError> {
    let known: yescrypt::Params = params.parse().map_err(|_| PasswordError::NotAHash)?;
    let bytes = u128::from(known.n()) * u128::from(known.r()) * 128;
    if bytes > u128::from(YESCRYPT_BYTES_MAX) {
        return Err(PasswordError::TooCostly);
    }
    // libxcrypt makes hashes in this mode, with one lane and without further passes; whatever else
    // the parameters can say would have to be bounded, too.
    let usual = yescrypt::Params::new(Mode::default(), known.n(), known.r(), 1);
    let is_usual = usual.is_ok_and(|usual| usual == known);
    let complete = hash.len() == YESCRYPT_LENGTH
        && hash.bytes().chain(salt.bytes()).all(md5::is_digit)
        && !salt.is_empty();
    if is_usual && complete && PasswordHashRef::new(text).is_ok() {
        Ok(Foreign::Yescrypt)
    } else {
        Err(PasswordError::NotAHash)
    }
}

/// The longest is sha512-crypt with `rounds=` and 16 characters of salt: 124.
const TEXT_LENGTH_MAX: usize = 192;

/// The least that bcrypt knows.
const BCRYPT_COST_MIN: u32 = 4;
/// Some two seconds; the usual 10 to 12 take a tenth of one.
pub(super) const BCRYPT_COST_MAX: u32 = 15;

/// The least that crypt(5) takes.
const SHA_ROUNDS_MIN: u32 = 1000;
/// Some seconds; the usual 5000 take some milliseconds.
pub(super) const SHA_ROUNDS_MAX: u32 = 2_000_000;

/// As for argon2: all workers together still fit into a small machine. That is cost 9 of crypt(5);
/// 5 is usual and takes 16 MiB.
pub(super) const YESCRYPT_BYTES_MAX: u64 = 256 << 20;

/// 32 bytes, 6 bits in a character.
const SHA256_LENGTH: usize = 43;
const YESCRYPT_LENGTH: usize = 43;
/// 64 bytes.
const SHA512_LENGTH: usize = 86;
