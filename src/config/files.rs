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
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum UploadPolicy {
    /// When it has arrived whole: STOR writes to a nameless file and puts it in place at the end.
    /// REST and APPE work in place all the same.
    Whole,
    /// At once: STOR writes into the file of that name.
    InPlace,
}

/// What remains of an upload that failed.
#[derive(Clone, Copy, Debug, Eq, Hash, PartialEq)]
pub enum FailedUpload {
    /// Nothing of an upload that was not visible yet.
    Discard,
    /// What arrived, under its name, so that REST can go on from there. A file that was to be
    /// replaced is kept instead: going on with that one would mix the two.
    Keep,
}

/// What is different of [`Files`] for one user; `None`: as configured for all.
#[derive(Clone, Copy, Debug, Default, Eq, Hash, PartialEq)]
pub struct OwnFiles {
    /// As [`Files::umask`].
    pub umask: Option<u32>,
    /// As [`Files::uploads`].
    pub uploads: Option<UploadPolicy>,
    /// As [`Files::failed_upload`].
    pub failed_upload: Option<FailedUpload>,
}

impl Files {
    pub(super) fn read(&mut self, section: &mut Section<'_>) {
        let mut own = OwnFiles::default();
        own.read(section);
        *self = self.with(own);
        section.read("min_free", &mut self.min_free, units::size);
    }

    /// The same with what is different for one user.
    pub fn with(self, own: OwnFiles) -> Self {
        Self {
            umask: own.umask.unwrap_or(self.umask),
            uploads: own.uploads.unwrap_or(self.uploads),
            failed_upload: own.failed_upload.unwrap_or(self.failed_upload),
            min_free: self.min_free,
        }
    }
}

impl OwnFiles {
    pub(crate) fn read(&mut self, section: &mut Section<'_>) {
        section.read("umask", &mut self.umask, |value| umask(value).map(Some));
        section.read("uploads", &mut self.uploads, |value| {
            let policies = [
                ("whole", UploadPolicy::Whole),
                ("in-place", UploadPolicy::InPlace),
            ];
            units::choice(value, &policies).map(Some)
        });
        section.read("failed_upload", &mut self.failed_upload, |value| {
            let remains = [
                ("discard", FailedUpload::Discard),
                ("keep", FailedUpload::Keep),
            ];
            units::choice(value, &remains).map(Some)
        });
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
