//! The names of one directory, in the order in which a listing shows them.

use std::cmp::{Ordering, Reverse};
use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};

use crate::proto::argument::{ListOptions, Sort};
use crate::sys::directory::{DirectoryReader, EntryKind};
use crate::sys::file::{self, FileStatus};

/// Reads a directory and hands out its names, sorted as long as they are few enough to be kept.
#[derive(Debug)]
pub(super) struct Names {
    reader: DirectoryReader,
    order: Order,
    /// What has been read ahead in order to be sorted, and how much of it is handed out.
    kept: Kept,
    taken: usize,
    gathered: bool,
}

/// One name, ready for `statx(2)` in its directory.
#[derive(Clone, Copy, Debug)]
pub(super) struct Listed<'a> {
    pub(super) directory: BorrowedFd<'a>,
    pub(super) name: &'a CStr,
    pub(super) kind: EntryKind,
    /// Known if it was needed to sort.
    pub(super) status: Option<&'a FileStatus>,
}

/// The order of names.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Order {
    /// As the file system has them.
    Directory,
    Sorted {
        by: Sort,
        reverse: bool,
    },
}

impl Order {
    pub(super) fn of(options: &ListOptions) -> Self {
        Self::Sorted {
            by: options.sort,
            reverse: options.reverse,
        }
    }
}

#[derive(Debug, Default)]
struct Kept {
    /// Names, each with its NUL, one after the other.
    bytes: Vec<u8>,
    items: Vec<Item>,
    statuses: Vec<FileStatus>,
}

#[derive(Clone, Copy, Debug)]
struct Item {
    start: u32,
    /// Length of the name with its NUL.
    length: u16,
    kind: EntryKind,
    /// Index of its status, if that was needed; `u32::MAX`: none.
    status: u32,
}

impl Names {
    pub(super) fn new(directory: OwnedFd, order: Order) -> Self {
        let reader = DirectoryReader::new(directory);
        Self {
            reader,
            order,
            kept: Kept::default(),
            taken: 0,
            gathered: false,
        }
    }

    /// Goes on with the names of another directory.
    pub(super) fn restart(&mut self, directory: OwnedFd) {
        self.reader.restart(directory);
        self.kept = Kept::default();
        self.taken = 0;
        self.gathered = false;
    }

    pub(super) fn directory(&self) -> &OwnedFd {
        self.reader.directory()
    }

    /// The next name. Only those that `keep` wants are sorted; others may still come, unsorted.
    ///
    /// # Errors
    /// What reading the directory said.
    pub(super) fn next(&mut self, keep: impl Fn(&[u8]) -> bool) -> io::Result<Option<Listed<'_>>> {
        if let Order::Sorted { by, reverse } = self.order
            && !self.gathered
        {
            self.gathered = true;
            self.gather(by, reverse, keep)?;
        }
        if self.taken < self.kept.items.len() {
            let item = self.kept.items[self.taken];
            self.taken += 1;
            let (name, status) = (self.kept.name(item), self.kept.status(item));
            let directory = self.reader.directory().as_fd();
            return Ok(Some(Listed {
                directory,
                name,
                kind: item.kind,
                status,
            }));
        }
        if !self.kept.items.is_empty() {
            // The rest needs no memory but the reader's.
            self.kept = Kept::default();
            self.taken = 0;
        }
        let entry = self.reader.next_entry()?;
        Ok(entry.map(|entry| {
            let (directory, name) = (entry.directory, entry.name);
            Listed {
                directory,
                name,
                kind: entry.kind,
                status: None,
            }
        }))
    }

    /// Reads ahead and sorts, if the directory ends before there are too many names.
    fn gather(&mut self, by: Sort, reverse: bool, keep: impl Fn(&[u8]) -> bool) -> io::Result<()> {
        for _ in 0..SORT_SCAN_MAX {
            if self.kept.items.len() > SORT_ENTRIES_MAX {
                return Ok(());
            }
            let Some(entry) = self.reader.next_entry()? else {
                self.kept.arrange(self.reader.directory(), by, reverse);
                return Ok(());
            };
            if keep(entry.name.to_bytes()) {
                self.kept.push(entry.name, entry.kind);
            }
        }
        Ok(())
    }
}

impl Kept {
    fn push(&mut self, name: &CStr, kind: EntryKind) {
        let name = name.to_bytes_with_nul();
        // At most SORT_ENTRIES_MAX names of at most 256 bytes: neither number can overflow.
        let (start, length) = (self.bytes.len() as u32, name.len() as u16);
        self.bytes.extend_from_slice(name);
        self.items.push(Item {
            start,
            length,
            kind,
            status: u32::MAX,
        });
    }

    fn name(&self, item: Item) -> &CStr {
        let start = item.start as usize;
        let name = &self.bytes[start..start + usize::from(item.length)];
        CStr::from_bytes_with_nul(name).unwrap_or_default()
    }

    fn status(&self, item: Item) -> Option<&FileStatus> {
        self.statuses.get(item.status as usize)
    }

    fn arrange(&mut self, directory: &OwnedFd, by: Sort, reverse: bool) {
        if by != Sort::Name {
            self.look(directory);
        }
        self.sort(by, reverse);
    }

    /// Asks for the status of every name; those that cannot be asked are sorted as if empty.
    fn look(&mut self, directory: &OwnedFd) {
        self.statuses.reserve_exact(self.items.len());
        for index in 0..self.items.len() {
            let name = self.name(self.items[index]);
            if let Ok(status) = file::status_at(directory, name) {
                self.items[index].status = self.statuses.len() as u32;
                self.statuses.push(status);
            }
        }
    }

    fn sort(&mut self, by: Sort, reverse: bool) {
        let mut items = std::mem::take(&mut self.items);
        items.sort_unstable_by(|&a, &b| {
            let order = self.compare(a, b, by);
            if reverse { order.reverse() } else { order }
        });
        self.items = items;
    }

    /// As `ls` does: the newest and the biggest first, equals by name.
    fn compare(&self, a: Item, b: Item, by: Sort) -> Ordering {
        let by_key = match by {
            Sort::Name => Ordering::Equal,
            Sort::Time => {
                let modified = |item| Reverse(self.status(item).map(|status| status.modified));
                modified(a).cmp(&modified(b))
            }
            Sort::Size => {
                let size = |item| Reverse(self.status(item).map(|status| status.size));
                size(a).cmp(&size(b))
            }
        };
        by_key.then_with(|| self.bytes_of(a).cmp(self.bytes_of(b)))
    }

    fn bytes_of(&self, item: Item) -> &[u8] {
        let start = item.start as usize;
        &self.bytes[start..start + usize::from(item.length)]
    }
}

/// Up to this many names are sorted; they, and what is known of them, take at most 1.7 MiB. The
/// names of a bigger directory come in its own order, as they are read.
pub(super) const SORT_ENTRIES_MAX: usize = 4096;

/// How many names are looked at for that, of which a pattern may match few.
const SORT_SCAN_MAX: usize = 64 * 1024;
