//! Making, removing and renaming, and the attributes that a client may set.

use crate::proto::failure::Failure;
use crate::proto::path::VirtualPath;
use crate::quota::{FileId, Quota, Usage};
use crate::sys::file::{self, FileKind};
use crate::sys::flag::{AT_REMOVEDIR, O_PATH, RENAME_NOREPLACE};
use crate::uring::{self, Handle};

use super::publish::Name;
use super::root::{Root, failure};
use super::upload::off_core;

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
        if self.has_folders_in(path) {
            return Err(Failure::Denied);
        }
        let (parent, name) = self.parent("remove directory", path).await?;
        uring::unlink(&parent, name, AT_REMOVEDIR)
            .await
            .map_err(|error| failure("remove directory", path, &error))
    }

    /// Removes a name that is not a directory; of a link the link itself.
    ///
    /// # Errors
    /// [`Failure::IsADirectory`], [`Failure::NotFound`].
    pub async fn remove_file(
        &self,
        path: &VirtualPath,
        quota: Option<&Quota>,
    ) -> Result<(), Failure> {
        let quota = quota.filter(|_| self.is_own(path));
        let (parent, name) = self.parent("remove file", path).await?;
        let (_turn, gone) = match quota {
            None => (None, None),
            Some(quota) => (Some(quota.turn().await), stored(&parent, name).await),
        };
        let gone = gone
            .zip(quota)
            .map(|((file, size), quota)| quota.counted(file, size));
        uring::unlink(&parent, name, 0)
            .await
            .map_err(|error| failure("remove file", path, &error))?;
        if let (Some(quota), Some(gone)) = (quota, gone) {
            quota.exchange(gone, Usage::default());
        }
        Ok(())
    }

    /// Gives `from` the name `to`, as rename(2) does: a file there is replaced, an empty directory
    /// only by a directory, and nothing unless `overwrites`.
    ///
    /// # Errors
    /// [`Failure::NotEmpty`], [`Failure::IsADirectory`], [`Failure::NotADirectory`] when what
    /// stands at `to` cannot be replaced; [`Failure::Exists`] when it is not to be; [`Failure::CrossDevice`] between file systems.
    pub async fn rename(
        &self,
        from: &VirtualPath,
        to: &VirtualPath,
        overwrites: bool,
        quota: Option<&Quota>,
    ) -> Result<(), Failure> {
        if self.has_folders_in(from) || self.has_folders_in(to) {
            return Err(Failure::Denied);
        }
        // Also where both are on one file system: what is stored would go to another account.
        if !self.are_together(from, to) {
            return Err(Failure::CrossDevice);
        }
        let quota = quota.filter(|_| self.is_own(from));
        let (from_parent, from_name) = self.parent("rename", from).await?;
        let (to_parent, to_name) = self.parent("rename", to).await?;
        let flags = if overwrites { 0 } else { RENAME_NOREPLACE };
        let (_turn, moved, gone) = match quota {
            None => (None, None, None),
            Some(quota) => (
                Some(quota.turn().await),
                stored(&from_parent, from_name).await,
                stored(&to_parent, to_name).await,
            ),
        };
        let renamed = uring::rename(&from_parent, from_name, &to_parent, to_name, flags).await;
        renamed.map_err(|error| match failure("rename", from, &error) {
            // rename(2): not every file system knows the flag.
            Failure::NameInvalid if !overwrites => Failure::Unsupported,
            failure => failure,
        })?;
        // rename(2): between two names of one file nothing happens.
        let is_same = moved.map(|(file, _)| file) == gone.map(|(file, _)| file);
        if let (Some(quota), Some((file, size)), false) = (quota, gone, is_same) {
            quota.exchange(quota.counted(file, size), Usage::default());
        }
        Ok(())
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
        let set = move || {
            if let Some(mode) = mode {
                file::set_mode(&file, mode)?;
            }
            // The time comes last: to set the mode touches only the time of change.
            modified.map_or(Ok(()), |modified| {
                file::set_times(&file, None, Some(modified))
            })
        };
        let set = match self.directory.ids() {
            // An inode in memory is changed.
            None => set(),
            ids => off_core(ids, set).await,
        };
        set.map_err(|error| failure("set attributes", path, &error))
    }
}

/// Which regular file has a name, and its size.
async fn stored(parent: &Handle, name: &[u8]) -> Option<(FileId, u64)> {
    let status = Name::new(parent, name).status().await.ok().flatten()?;
    let file = (status.device, status.inode);
    (status.kind == FileKind::File).then_some((file, status.size))
}
