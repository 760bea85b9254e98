//! `[files]`: how files come into being.

use super::section::{Section, Value, Wrong};
use super::units;

/// How files come into being.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Files {
    /// Taken from the mode of what clients create (umask(2)): 0 to 0o777. SITE UMASK changes it
    /// for one session.
    pub umask: u32,
    /// When an upload becomes visible.
    pub uploads: UploadPolicy,
    /// What remains of an upload that failed.
    pub failed_upload: FailedUpload,
    /// Bytes that uploads leave free on their file system.
    pub min_free: u64,
}

/// When an upload becomes visible under its name.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum UploadPolicy {
    /// When it has arrived whole: STOR writes to a nameless file and puts it in place at the end.
    /// REST and APPE work in place all the same.
    Whole,
    /// At once: STOR writes into the file of that name.
    InPlace,
}

/// What remains of an upload that failed.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum FailedUpload {
    /// Nothing of an upload that was not visible yet.
    Discard,
    /// What arrived, under its name, so that REST can go on from there. A file that was to be
    /// replaced is kept instead: going on with that one would mix the two.
    Keep,
}

impl Files {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        section.read("umask", &mut self.umask, umask);
        section.read("uploads", &mut self.uploads, |value| {
            units::choice(
                value,
                &[
                    ("whole", UploadPolicy::Whole),
                    ("in-place", UploadPolicy::InPlace),
                ],
            )
        });
        section.read("failed_upload", &mut self.failed_upload, |value| {
            units::choice(
                value,
                &[
                    ("discard", FailedUpload::Discard),
                    ("keep", FailedUpload::Keep),
                ],
            )
        });
        section.read("min_free", &mut self.min_free, units::size);
    }
}

fn umask(value: &Value<'_>) -> Result<u32, Wrong> {
    let text = units::text(value, "022").map_err(|wrong| {
        wrong.hint("quoted, because TOML numbers with a leading zero are not octal")
    })?;
    let octal = !text.is_empty() && text.len() <= 4 && text.bytes().all(|b| b.is_ascii_digit());
    match u32::from_str_radix(text, 8) {
        Ok(umask) if octal && umask <= 0o777 => Ok(umask),
        _ => Err(Wrong::new(format!(
            "{text:?} is not an octal mask from 000 to 777"
        ))),
    }
}
