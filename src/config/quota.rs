//! `quota` and `quota_files`: how much a user may store.

use super::section::Section;
use super::units;

/// How much a user may store; `None`: as much as there is room for.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
pub struct QuotaLimits {
    /// Bytes in all files together.
    pub bytes: Option<u64>,
    /// Files.
    pub files: Option<u64>,
}

impl QuotaLimits {
    /// Reads `quota` and `quota_files`.
    pub(crate) fn read(&mut self, section: &mut Section<'_>) {
        section.read("quota", &mut self.bytes, |value| {
            units::size(value).map(|bytes| Some(bytes).filter(|bytes| *bytes > 0))
        });
        section.read("quota_files", &mut self.files, |value| {
            let files = units::number(value, 0, u64::MAX >> 1)?;
            Ok(Some(files).filter(|files| *files > 0))
        });
    }

    /// Whether there is any.
    pub fn are_set(&self) -> bool {
        self.bytes.is_some() || self.files.is_some()
    }
}
