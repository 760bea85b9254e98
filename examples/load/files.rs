//! Files with the pattern on this host, and certificates.

use std::fs::{self, File};
use std::io::{Read, Write};
use std::path::Path;

use rcgen::{CertificateParams, KeyPair};

use crate::client::pattern::{self, PERIOD};
use crate::client::{Doing, Error, Result};

/// Writes a file of that size.
pub(crate) fn fill(path: &Path, size: u64) -> Result<()> {
    let doing = path.to_string_lossy();
    let mut file = File::create(path).doing(&doing)?;
    let mut part = vec![0; PERIOD];
    let mut offset = 0;
    while offset < size {
        let length = (size - offset).min(PERIOD as u64);
        let part = &mut part[..length as usize];
        pattern::fill(part, offset);
        file.write_all(part).doing(&doing)?;
        offset += length;
    }
    Ok(())
}

/// Writes a certificate that nobody vouches for, and its key.
pub(crate) fn certify(path: &Path) -> Result<()> {
    let doing = path.to_string_lossy();
    // On P-256, as by default.
    let key = KeyPair::generate().doing("a key")?;
    let parameters = CertificateParams::new(vec!["127.0.0.1".into()]).doing("a certificate")?;
    let certificate = parameters.self_signed(&key).doing("a certificate")?;
    fs::write(path, certificate.pem() + &key.serialize_pem()).doing(&doing)
}

/// Compares all of a file. What follows the first MiB may be that MiB again and again, as in big
/// uploads: which of the two it is shows at its beginning and has to hold to the end.
pub(crate) fn check(path: &Path, size: u64) -> Result<()> {
    let doing = path.to_string_lossy();
    compare(File::open(path).doing(&doing)?, size, Repeats::Perhaps).doing(&doing)
}

/// Whether the pattern begins again after each MiB.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(crate) enum Repeats {
    Never,
    Perhaps,
}

/// Reads to the end and compares with the pattern.
pub(crate) fn compare(mut from: impl Read, size: u64, repeats: Repeats) -> Result<()> {
    let mut part = vec![0; PERIOD];
    let mut offset = 0;
    let mut repeats = repeats == Repeats::Perhaps;
    loop {
        let length = read_full(&mut from, &mut part)?;
        let part = &part[..length];
        if offset == PERIOD as u64 && repeats {
            repeats = pattern::difference(part, offset).is_some();
        }
        let expected = if repeats { 0 } else { offset };
        if let Some(at) = pattern::difference(part, expected) {
            let at = at - expected + offset;
            return Err(Error::new(format!("byte {at} is not the pattern's")));
        }
        offset += length as u64;
        if length < PERIOD {
            break;
        }
    }
    match offset == size {
        true => Ok(()),
        false => Err(Error::new(format!("{offset} bytes, not {size}"))),
    }
}

/// Reads until the buffer is full or there is no more.
fn read_full(from: &mut impl Read, buffer: &mut [u8]) -> Result<usize> {
    let mut length = 0;
    while length < buffer.len() {
        match from.read(&mut buffer[length..]).doing("reading")? {
            0 => break,
            count => length += count,
        }
    }
    Ok(length)
}
