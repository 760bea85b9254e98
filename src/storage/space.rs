//! Disk space for an upload, reserved ahead of its writes.
//!
//! ext4 reserves space for every page it takes and finds a place for it later. Into space that it
//! has given away before, as unwritten blocks beyond the end of the file (fallocate(2),
//! FALLOC_FL_KEEP_SIZE), a GiB is written with a third less CPU (Linux 6.18), and lies in one piece.
//! How long the file will be nobody knows, so as much is reserved as has arrived, within limits, and
//! what was not needed is given back at the end.

use std::io;

use crate::proto::failure::Failure;
use crate::sys::file::{self, FileSystem};
use crate::uring::{self, Handle, Pipe};

use super::root::unwritten;
use super::upload::off_core;

/// How the bytes of an upload get into its file.
#[derive(Debug, Default)]
pub(super) struct Space {
    way: Way,
    /// Whether much has come, and the file takes it from a pipe.
    takes_pipes: bool,
    /// Up to where space was reserved, as an offset from the beginning of the file.
    reserved_to: u64,
}

#[derive(Clone, Copy, Debug, Default, Eq, PartialEq)]
enum Way {
    /// Too little has come to care.
    #[default]
    Undecided,
    /// Reserved ahead.
    Reserved,
    /// As it comes.
    Plain,
}

impl Space {
    /// Writes at `offset` into a file that began at 0 and has everything before it. `may_reserve`:
    /// the file goes with its upload, and the space with the file.
    pub(super) async fn write(
        &mut self,
        file: &Handle,
        bytes: Vec<u8>,
        offset: u64,
        may_reserve: bool,
    ) -> (io::Result<()>, Vec<u8>) {
        if bytes.is_empty() {
            return (Ok(()), bytes);
        }
        let length = bytes.len() as u64;
        if self.way == Way::Undecided && length >= CARE_FROM_BYTES {
            let pays = may_reserve && file::file_system(file) == FileSystem::Ext4;
            self.way = if pays { Way::Reserved } else { Way::Plain };
            self.takes_pipes = true;
        }
        self.provide(file, offset, length).await;
        uring::write_all_at(file, bytes, offset).await
    }

    /// Whether the upload is one for which a pipe pays.
    pub(super) fn takes_pipes(&self) -> bool {
        self.takes_pipes
    }

    pub(super) fn stop_pipes(&mut self) {
        self.takes_pipes = false;
    }

    /// Writes the `length` bytes in a pipe at `offset`, as [`Space::write`] does.
    pub(super) async fn write_from(
        &mut self,
        file: &Handle,
        pipe: &Pipe,
        offset: u64,
        length: u32,
    ) -> io::Result<()> {
        self.provide(file, offset, u64::from(length)).await;
        match pipe.write_all_at(file, offset, length).await {
            // splice(2): EINVAL. A few file systems take nothing from pipes.
            Err(error) if error.kind() == io::ErrorKind::InvalidInput => {
                self.stop_pipes();
                let bytes = pipe.take_out()?;
                match bytes.len() == length as usize {
                    true => uring::write_all_at(file, bytes, offset).await.0,
                    false => Err(error),
                }
            }
            written => written,
        }
    }

    /// Sees to it that space is reserved for a write, if that pays.
    async fn provide(&mut self, file: &Handle, offset: u64, length: u64) {
        let end = offset.saturating_add(length);
        if self.way == Way::Reserved && end > self.reserved_to && offset >= RESERVE_BYTES_MIN {
            self.reserve(file, offset, end).await;
        }
    }

    async fn reserve(&mut self, file: &Handle, offset: u64, end: u64) {
        let from = self.reserved_to.max(offset);
        let to = end.saturating_add(offset.clamp(RESERVE_BYTES_MIN, RESERVE_BYTES_MAX));
        // Also when it fails: on a full disk ext4 keeps the part that there was room for.
        self.reserved_to = to;
        let reserved = uring::reserve(file, from, to.saturating_sub(from)).await;
        if reserved.is_err() {
            // No space, no quota, no such call: whether there is room for what really comes, the
            // write will tell. What others could use meanwhile is not kept from them.
            self.way = Way::Plain;
            self.give_back(file).await;
        }
    }

    /// Whether nothing is reserved that would have to be given back.
    pub(super) fn is_as_needed(&self) -> bool {
        self.reserved_to == 0
    }

    /// Gives back what is reserved beyond the end of the file.
    pub(super) async fn give_back(&mut self, file: &Handle) {
        let reserved_to = std::mem::take(&mut self.reserved_to);
        if reserved_to == 0 {
            return;
        }
        let ids = file.ids();
        // ftruncate(2) to the size it has frees what lies beyond; it may wait for the journal.
        if let Ok(size) = file::status(file).map(|status| status.size)
            && size < reserved_to
            && let Ok(file) = file.fd().try_clone()
            && let Err(error) = off_core(ids, move || file::truncate(&file, size)).await
        {
            tracing::warn!(%error, "disk space reserved for an upload was not given back");
        }
    }
}

/// How much an upload leaves free on its file system. That is asked now and then: whoever else writes
/// there may take the last of it meanwhile.
#[derive(Debug)]
pub(super) struct Floor {
    min_free: u64,
    /// The size of the file when it was asked last.
    size: u64,
    /// From which size on it is asked again.
    due: u64,
}

impl Floor {
    /// For a file of this size; `None` if nothing has to be left.
    pub(super) fn new(min_free: u64, size: u64) -> Option<Self> {
        (min_free > 0).then_some(Self {
            min_free,
            size,
            due: size,
        })
    }

    /// Whether it has to be looked before the file grows to `size`.
    pub(super) fn is_due(&self, size: u64) -> bool {
        size >= self.due
    }

    /// Looks whether the file may grow to `size`.
    ///
    /// # Errors
    /// [`Failure::BelowMinFree`]; [`Failure::LocalError`] when it cannot be found out.
    pub(super) async fn look(&mut self, file: &Handle, size: u64) -> Result<(), Failure> {
        // A network file system asks its server.
        let free = match file.fd().try_clone() {
            Ok(file) => off_core(None, move || file::free_bytes(&file)).await,
            Err(error) => Err(error),
        };
        let free = free.map_err(|error| unwritten(&error))?;
        // What has come since the last look is not written yet, or partly.
        let spare = free.saturating_sub(size.saturating_sub(self.size));
        if spare < self.min_free {
            let min_free = self.min_free;
            tracing::warn!(free, min_free, "upload refused: see files.min_free");
            return Err(Failure::BelowMinFree);
        }
        self.size = size;
        let next = (spare - self.min_free) / 2;
        self.due = size.saturating_add(next.clamp(LOOK_BYTES_MIN, LOOK_BYTES_MAX));
        Ok(())
    }
}

/// How far an upload goes on between two looks at the space left: the more, the more there is.
const LOOK_BYTES_MIN: u64 = 1024 * 1024;
const LOOK_BYTES_MAX: u64 = 64 * 1024 * 1024;

/// A first chunk of less is most often a whole file.
const CARE_FROM_BYTES: u64 = 128 * 1024;

/// As much is reserved as has arrived, so at most half of the space of an upload is not needed: many
/// small ones do not fill the disk. More than 16 MiB at a time costs no less.
const RESERVE_BYTES_MIN: u64 = 1024 * 1024;
const RESERVE_BYTES_MAX: u64 = 16 * 1024 * 1024;
