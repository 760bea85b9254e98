//! Operations that one worker of the ring carries out one after the other (IOSQE_IO_LINK).
//!
//! Each that goes to a worker by itself costs the core two changes of threads. What is linked is
//! begun only when the operation before it did all of its work, and cancelled otherwise.

use std::ffi::CString;
use std::io;
use std::os::fd::AsRawFd;

use io_uring::squeue::{Entry, Flags};

use super::file::write_entry;
use super::names::Names;
use super::operation::{hit_by_withdrawal, submit};
use super::{Handle, link_file, rename, runtime, write_all_at};
use crate::sys::file::descriptor_path;

/// How a file without a name (`O_TMPFILE`) gets one.
#[derive(Clone, Copy, Debug)]
pub struct Naming<'a> {
    /// The directory.
    pub parent: &'a Handle,
    /// The name in it.
    pub name: &'a [u8],
    /// First linked under this name in the same directory, which must be free, then renamed over
    /// whatever has the other one. `None`: linked under the name itself, which must be free.
    pub through: Option<&'a [u8]>,
}

/// Where it failed. What comes before was done.
#[derive(Debug)]
pub enum Step {
    /// Writing.
    Write(io::Error),
    /// Linking.
    Link(io::Error),
    /// Renaming: the file has the name it was to go through.
    Rename(io::Error),
}

/// Writes all bytes, if there are any, at `offset` of a file, and then gives the file its name. The
/// bytes come back, also with an error. A dropped future leaves the change to its end.
///
/// # Errors
/// As [`write_all_at`], [`link_file`] and [`rename`].
pub async fn write_and_name(
    file: &Handle,
    bytes: Vec<u8>,
    offset: u64,
    naming: Naming<'_>,
) -> (Result<(), Step>, Vec<u8>) {
    let mut bytes = bytes;
    let mut done = Done::default();
    match Links::new(file, naming) {
        Err(error) => return (Err(Step::Link(error)), bytes),
        // Without room for all of it the chain might be cut in two, which would run side by side.
        Ok(links) if runtime::flush() => {
            let result;
            (result, bytes) = links.submit(file, bytes, offset).await;
            match result {
                Ok(reached) => done = reached,
                Err(step) => return (Err(step), bytes),
            }
        }
        Ok(_) => {}
    }
    if done < Done::Written {
        let result;
        (result, bytes) = write_all_at(file, bytes, offset).await;
        if let Err(error) = result {
            return (Err(Step::Write(error)), bytes);
        }
    }
    let Naming {
        parent,
        name,
        through,
    } = naming;
    let first = through.unwrap_or(name);
    if done < Done::Linked
        && let Err(error) = link_file(file, parent, first).await
    {
        return (Err(Step::Link(error)), bytes);
    }
    if done < Done::Renamed
        && through.is_some()
        && let Err(error) = rename(parent, first, parent, name, 0).await
    {
        return (Err(Step::Rename(error)), bytes);
    }
    (Ok(()), bytes)
}

/// How far a chain came. What is short of the end, for a reason that is no error, is done singly.
#[derive(Clone, Copy, Debug, Default, Eq, PartialEq, PartialOrd)]
enum Done {
    #[default]
    Nothing,
    Written,
    Linked,
    Renamed,
}

/// The operations that name a file, ready to be submitted.
struct Links {
    link: (Names, Entry),
    rename: Option<(Names, Entry)>,
}

impl Links {
    fn new(file: &Handle, naming: Naming<'_>) -> io::Result<Self> {
        let Naming {
            parent,
            name,
            through,
        } = naming;
        let path = descriptor_path(file.fd().as_raw_fd());
        let first = CString::new(through.unwrap_or(name))?;
        let rename = match through {
            None => None,
            Some(_) => {
                let name = CString::new(name)?;
                Some(Names::rename(parent, first.clone(), parent, name, 0))
            }
        };
        Ok(Self {
            link: Names::link(file, path, parent, first, libc::AT_SYMLINK_FOLLOW),
            rename,
        })
    }

    async fn submit(
        self,
        file: &Handle,
        bytes: Vec<u8>,
        offset: u64,
    ) -> (Result<Done, Step>, Vec<u8>) {
        let Self { link, rename } = self;
        let (length, mut bytes) = (bytes.len(), bytes);
        let write = (length > 0).then(|| {
            let entry = write_entry(file, &bytes, offset).flags(Flags::IO_LINK);
            let lent = (file.clone(), std::mem::take(&mut bytes));
            // SAFETY: the entry points into the heap block of the buffer, which `data` owns and
            // which stays where it is when the vector moves; `data` keeps the descriptor open.
            unsafe { submit(lent, entry) }
        });
        let (names, mut entry) = link;
        if rename.is_some() {
            entry = entry.flags(Flags::IO_LINK);
        }
        // SAFETY: as `Names` has it.
        let link = unsafe { submit(names, entry) };
        // SAFETY: as `Names` has it.
        let rename = rename.map(|(names, entry)| unsafe { submit(names, entry) });
        let mut outcome = Ok(Done::Written);
        if let Some(write) = write {
            let (result, lent) = write.await;
            bytes = lent.1;
            outcome = match result {
                Ok(count) if count as usize == length => Ok(Done::Written),
                // The rest may go, or will say why not.
                Ok(_) => Ok(Done::Nothing),
                Err(_) if hit_by_withdrawal(&result) => Ok(Done::Nothing),
                Err(error) => Err(Step::Write(error)),
            };
        }
        let (result, _) = link.await;
        outcome = after(outcome, Done::Written, Done::Linked, result, Step::Link);
        if let Some(rename) = rename {
            let (result, _) = rename.await;
            outcome = after(outcome, Done::Linked, Done::Renamed, result, Step::Rename);
        }
        (outcome, bytes)
    }
}

/// What has become of a chain with the result of its next operation.
fn after(
    outcome: Result<Done, Step>,
    before: Done,
    then: Done,
    result: io::Result<u32>,
    failed: fn(io::Error) -> Step,
) -> Result<Done, Step> {
    let done = outcome?;
    if done != before {
        return Ok(done);
    }
    match result {
        Ok(_) => Ok(then),
        Err(_) if hit_by_withdrawal(&result) => Ok(done),
        Err(error) => Err(failed(error)),
    }
}

#[cfg(test)]
mod tests {
    use std::fs;

    use super::super::tests::on_ring;
    use super::super::{RingOptions, open, spawn, start};
    use super::*;
    use crate::sys::flag::{O_TMPFILE, O_WRONLY};

    async fn unnamed(directory: &Handle) -> Handle {
        let flags = O_TMPFILE | O_WRONLY;
        Handle::from(open(directory, b".", flags, 0o600, 0).await.unwrap())
    }

    fn handle(path: &std::path::Path) -> Handle {
        Handle::from(std::os::fd::OwnedFd::from(fs::File::open(path).unwrap()))
    }

    fn naming<'a>(parent: &'a Handle, name: &'a [u8], through: Option<&'a [u8]>) -> Naming<'a> {
        Naming {
            parent,
            name,
            through,
        }
    }

    fn names(tree: &tempfile::TempDir) -> usize {
        fs::read_dir(tree.path()).unwrap().count()
    }

    #[test]
    fn each_step_says_where_it_failed() {
        on_ring(|| async {
            let tree = tempfile::tempdir().unwrap();
            let path = |name: &str| tree.path().join(name);
            let root = handle(tree.path());
            fs::write(path("taken"), "taken").unwrap();
            fs::create_dir(path("directory")).unwrap();
            let bytes = || b"bytes".to_vec();

            let read_only = handle(&path("taken"));
            let free = naming(&root, b"free", None);
            let (result, returned) = write_and_name(&read_only, bytes(), 0, free).await;
            assert!(matches!(result, Err(Step::Write(_))), "{result:?}");
            assert_eq!(returned, b"bytes");
            assert_eq!(names(&tree), 2, "named though it was not written");

            let file = unnamed(&root).await;
            let taken = naming(&root, b"taken", None);
            let (result, returned) = write_and_name(&file, bytes(), 0, taken).await;
            assert!(matches!(result, Err(Step::Link(_))), "{result:?}");
            assert_eq!(returned, b"bytes");

            let over_a_directory = naming(&root, b"directory", Some(b"hidden"));
            let (result, _) = write_and_name(&file, bytes(), 5, over_a_directory).await;
            assert!(matches!(result, Err(Step::Rename(_))), "{result:?}");
            assert_eq!(fs::read(path("hidden")).unwrap(), b"bytesbytes");
            assert_eq!(fs::read(path("taken")).unwrap(), b"taken");

            let with_a_nul = naming(&root, b"a\0b", None);
            let (result, _) = write_and_name(&file, bytes(), 0, with_a_nul).await;
            assert!(matches!(result, Err(Step::Link(_))), "{result:?}");
        });
    }

    /// A chain that does not fit into what is left of the queue must not be cut.
    #[test]
    fn many_chains_in_a_short_queue_keep_their_order() {
        const FILES: usize = 100;
        let options = RingOptions {
            entries: 4,
            ..RingOptions::default()
        };
        start(&options, || async {
            let tree = tempfile::tempdir().unwrap();
            let root = handle(tree.path());
            let mut tasks = Vec::new();
            for number in 0..FILES {
                let (root, file) = (root.clone(), unnamed(&root).await);
                tasks.push(spawn(async move {
                    let (name, through) = (format!("file-{number}"), format!("hidden-{number}"));
                    for round in 0..2u8 {
                        let bytes = vec![round; 1 + number * 100];
                        let through = (round == 1).then_some(through.as_bytes());
                        let naming = naming(&root, name.as_bytes(), through);
                        let (result, _) = write_and_name(&file, bytes, 0, naming).await;
                        // The second time it has a name already, and rename(2) does nothing then.
                        result.unwrap();
                    }
                }));
            }
            for task in tasks {
                task.await.unwrap();
            }
            for number in 0..FILES {
                let content = fs::read(tree.path().join(format!("file-{number}"))).unwrap();
                assert_eq!(content, vec![1; 1 + number * 100]);
            }
        })
        .unwrap();
    }
}
