//! Making, removing and renaming, and the attributes that a client may set.

use crate::proto::failure::Failure;
use crate::proto::path::VirtualPath;
use crate::sys::file;
use crate::sys::flag::{AT_REMOVEDIR, O_PATH};
use crate::uring;

use super::root::{Root, failure};

impl Root {
    /// Makes a directory, with every permission that `umask` (or the settings) leaves.
    ///
    /// # Errors
    /// [`Failure::Exists`] when the name is taken, by whatever.
    pub async fn make_directory(
        &self,
        path: &VirtualPath,
        umask: Option<u32>,
    ) -> Result<(), Failure> {
        if path.is_root() {
            return Err(Failure::Exists);
        }
        let mode = 0o777 & !umask.unwrap_or(self.settings.umask);
        let (parent, name) = self.parent("make directory", path).await?;
        uring::make_directory(&parent, name, mode)
            .await
            .map_err(|error| failure("make directory", path, &error))
    }

    /// Removes an empty directory; a link to one is not followed.
    ///
    /// # Errors
    /// [`Failure::NotEmpty`], [`Failure::NotADirectory`].
    pub async fn remove_directory(&self, path: &VirtualPath) -> Result<(), Failure> {
        let (parent, name) = self.parent("remove directory", path).await?;
        uring::unlink(&parent, name, AT_REMOVEDIR)
            .await
            .map_err(|error| failure("remove directory", path, &error))
    }

    /// Removes a name that is not a directory; of a link the link itself.
    ///
    /// # Errors
    /// [`Failure::IsADirectory`], [`Failure::NotFound`].
    pub async fn remove_file(&self, path: &VirtualPath) -> Result<(), Failure> {
        let (parent, name) = self.parent("remove file", path).await?;
        uring::unlink(&parent, name, 0)
            .await
            .map_err(|error| failure("remove file", path, &error))
    }

    /// Gives `from` the name `to`, as rename(2) does: a file there is replaced, an empty directory
    /// only by a directory.
    ///
    /// # Errors
    /// [`Failure::NotEmpty`], [`Failure::IsADirectory`], [`Failure::NotADirectory`] when what
    /// stands at `to` cannot be replaced; [`Failure::CrossDevice`] between file systems.
    pub async fn rename(&self, from: &VirtualPath, to: &VirtualPath) -> Result<(), Failure> {
        let (from_parent, from_name) = self.parent("rename", from).await?;
        let (to_parent, to_name) = self.parent("rename", to).await?;
        uring::rename(&from_parent, from_name, &to_parent, to_name, 0)
            .await
            .map_err(|error| failure("rename", from, &error))
    }

    /// Sets the permission bits (0 to 0o7777), the time of modification (seconds since 1970, UTC),
    /// or both, of what `path` leads to.
    ///
    /// # Errors
    /// [`Failure::Denied`] when the file belongs to somebody else.
    pub async fn set_attributes(
        &self,
        path: &VirtualPath,
        mode: Option<u32>,
        modified: Option<i64>,
    ) -> Result<(), Failure> {
        let file = self.resolve("set attributes", path, O_PATH).await?;
        let set = || {
            if let Some(mode) = mode {
                file::set_mode(&file, mode)?;
            }
            // The time comes last: to set the mode touches only the time of change.
            modified.map_or(Ok(()), |modified| {
                file::set_times(&file, None, Some(modified))
            })
        };
        set().map_err(|error| failure("set attributes", path, &error))
    }
}
