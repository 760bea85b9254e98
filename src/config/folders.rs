//! `folders`: other directories of the host in a user's tree.

use std::path::PathBuf;

use toml::de::DeValue;

use super::section::{Value, Wrong};
use super::units;
use crate::proto::path::VirtualPath;

/// A directory of the host that is found in a user's tree.
#[derive(Clone, Debug, Eq, Hash, PartialEq)]
pub struct Folder {
    /// Where the user finds it; not the root.
    pub at: VirtualPath,
    /// The directory; absolute.
    pub directory: PathBuf,
}

/// `{ "/shared" = "/srv/shared" }`.
pub(crate) fn folders(value: &Value<'_>) -> Result<Vec<Folder>, Wrong> {
    let DeValue::Table(table) = value.get_ref() else {
        let example = "{ \"/shared\" = \"/srv/shared\" }";
        return Err(units::wrong_type(
            value,
            &format!("folders such as {example}"),
        ));
    };
    if table.len() > FOLDERS_MAX {
        return Err(Wrong::new(format!("has more than {FOLDERS_MAX} folders")));
    }
    let folder = |(key, directory): (&toml::Spanned<_>, &Value<'_>)| {
        let name: &std::borrow::Cow<'_, str> = key.get_ref();
        let at = VirtualPath::root().join(name.as_bytes()).ok();
        let at = at.filter(|at| name.starts_with('/') && !at.is_root());
        let at = at
            .ok_or_else(|| Wrong::new(format!("{name:?} is no path below \"/\"")).at(key.span()))?;
        let directory =
            units::absolute_path(directory).map_err(|wrong| wrong.at(directory.span()))?;
        Ok(Folder { at, directory })
    };
    table.iter().map(folder).collect()
}

/// Each is an open descriptor for as long as the user is logged in.
const FOLDERS_MAX: usize = 64;
