//! md5-crypt (`$1$`) and Apache's variant (`$apr1$`), which differ by this word only. It is broken as
//! a defence against whoever has the hashes, and still what many servers have in their files.
//!
//! Poul-Henning Kamp's algorithm of 1994, as FreeBSD's crypt-md5.c has it.

use argon2::password_hash::phc::Output;
use md5::{Digest, Md5};

/// Whether a text has the salt and the hash of such a hash.
pub(super) fn is_valid(salt: &str, hash: &str) -> bool {
    salt.len() <= SALT_LENGTH_MAX && hash.len() == HASH_LENGTH && hash.bytes().all(is_digit)
}

/// Whether `text` is the hash of `password`.
pub(super) fn matches(text: &str, password: &[u8]) -> bool {
    let mut fields = text.split('$').skip(1);
    let (Some(id), Some(salt), Some(hash)) = (fields.next(), fields.next(), fields.next()) else {
        return false;
    };
    let computed = encode(&digest(id, salt.as_bytes(), password));
    // The comparison of this type takes constant time.
    match (Output::new(&computed), Output::new(hash.as_bytes())) {
        (Ok(computed), Ok(hash)) => computed == hash,
        _ => false,
    }
}

fn digest(id: &str, salt: &[u8], password: &[u8]) -> [u8; DIGEST_LENGTH] {
    let inner = Md5::new()
        .chain_update(password)
        .chain_update(salt)
        .chain_update(password)
        .finalize();
    let mut outer = Md5::new()
        .chain_update(password)
        .chain_update(b"$")
        .chain_update(id)
        .chain_update(b"$")
        .chain_update(salt);
    for chunk in password.chunks(DIGEST_LENGTH) {
        outer.update(&inner[..chunk.len()]);
    }
    // One byte for each bit of the length: a slip of the first implementation that all keep to.
    let mut length = password.len();
    while length > 0 {
        match (length & 1, password.first()) {
            (0, Some(first)) => outer.update([*first]),
            _ => outer.update([0]),
        }
        length >>= 1;
    }
    let mut digest: [u8; DIGEST_LENGTH] = outer.finalize().into();
    for round in 0..ROUNDS {
        let (first, last): (&[u8], &[u8]) = match round & 1 {
            0 => (&digest, password),
            _ => (password, &digest),
        };
        let mut hasher = Md5::new().chain_update(first);
        if round % 3 != 0 {
            hasher.update(salt);
        }
        if round % 7 != 0 {
            hasher.update(password);
        }
        digest = hasher.chain_update(last).finalize().into();
    }
    digest
}

/// In crypt's own order of bytes and bits.
fn encode(digest: &[u8; DIGEST_LENGTH]) -> [u8; HASH_LENGTH] {
    let mut out = [0; HASH_LENGTH];
    let groups = ORDER.map(|group| group.map(|place| place.map_or(0, |place| digest[place])));
    for (out, [high, middle, low]) in out.chunks_mut(4).zip(groups) {
        let mut bits = u32::from_be_bytes([0, high, middle, low]);
        for digit in out {
            *digit = DIGITS[bits as usize % DIGITS.len()];
            bits >>= 6;
        }
    }
    out
}

/// Whether crypt writes hashes with this character.
pub(super) fn is_digit(byte: u8) -> bool {
    DIGITS.contains(&byte)
}

const ROUNDS: usize = 1000;
const DIGEST_LENGTH: usize = 16;
const HASH_LENGTH: usize = 22;
/// What crypt(3) uses of a longer one.
const SALT_LENGTH_MAX: usize = 8;
const DIGITS: &[u8; 64] = b"./0123456789ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz";
/// Which bytes of the digest go into which four digits; the last ones are two.
const ORDER: [[Option<usize>; 3]; 6] = [
    [Some(0), Some(6), Some(12)],
    [Some(1), Some(7), Some(13)],
    [Some(2), Some(8), Some(14)],
    [Some(3), Some(9), Some(15)],
    [Some(4), Some(10), Some(5)],
    [None, None, Some(11)],
];
