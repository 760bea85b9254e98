//! One line of a listing: what is asked of a file, and how it is shown.

use std::ffi::CStr;
use std::io;
use std::os::fd::{AsFd, OwnedFd};
use std::sync::Arc;

use crate::proto::argument::ListOptions;
use crate::proto::listing::{self, Entry, Fact, FactSet, Kind, Role};
use crate::proto::path::VirtualPath;
use crate::proto::rights::{Right, RightSet, Rights};
use crate::sys::directory::{EntryKind, read_link};
use crate::sys::file::{self, FileKind, FileStatus};
use crate::sys::flag::O_PATH;

use super::listing::{Format, ListRequest};
use super::names::Listed;
use super::root::{Place, open_now};

/// Writes the lines of one listing. Its buffers are used again for every line, so that a line
/// costs no allocation.
#[derive(Debug)]
pub(super) struct Lines {
    place: Place,
    format: Format,
    options: ListOptions,
    rights: Arc<Rights>,
    now: i64,
    /// What NLST puts before a name.
    prefix: Vec<u8>,
    /// The directory that is listed, as a way from that place.
    path: Vec<u8>,
    /// How much of it was asked for; the rest is where `-R` has come to.
    top: usize,
    scratch: Vec<u8>,
    target: Vec<u8>,
}

impl Lines {
    pub(super) fn new(place: Place, request: &ListRequest, path: &VirtualPath) -> Self {
        // Some clients ask for names and mean lines (vsftpd and ProFTPD answer `NLST -l` so, too).
        let format = match request.format {
            Format::Names if request.options.long => Format::Long,
            format => format,
        };
        let way = place.way(path).to_vec();
        Self {
            format,
            options: request.options,
            rights: Arc::clone(&request.rights),
            now: request.now,
            prefix: Vec::new(),
            top: way.len(),
            path: way,
            place,
            scratch: Vec::new(),
            target: Vec::new(),
        }
    }

    pub(super) fn format(&self) -> Format {
        self.format
    }

    pub(super) fn root(&self) -> &OwnedFd {
        &self.place.directory
    }

    /// Goes on in the directory `here` below the one that was asked for.
    pub(super) fn enter(&mut self, prefix: &[u8], here: &[u8]) {
        self.prefix.clear();
        self.prefix.extend_from_slice(prefix);
        self.path.truncate(self.top);
        if !here.is_empty() {
            self.path.push(b'/');
            self.path.extend_from_slice(here);
        }
    }

    /// Writes the line of one name; says what that is, as far as it had to be found out.
    ///
    /// # Errors
    /// Nothing is written then. `ENOENT`: the name has gone since it was read.
    pub(super) fn entry(&mut self, out: &mut Vec<u8>, listed: Listed<'_>) -> io::Result<EntryKind> {
        match self.format {
            Format::Names => self.name(out, listed),
            Format::Long => self.long(out, listed),
            Format::Facts(facts) => self.facts(out, listed, facts),
        }
    }

    fn name(&self, out: &mut Vec<u8>, listed: Listed<'_>) -> io::Result<EntryKind> {
        let needed = match listed.kind {
            EntryKind::Directory | EntryKind::Symlink => false,
            EntryKind::Unknown => self.options.classify || self.options.recursive,
            // Whether a file is a program, and which of the others it is, only statx(2) tells.
            EntryKind::File | EntryKind::Other => self.options.classify,
        };
        let found = match listed.status {
            Some(status) => Some(*status),
            None if needed => Some(file::status_at(&listed.directory, listed.name)?),
            None => None,
        };
        let name = listed.name.to_bytes();
        let Some(status) = found else {
            let suffix = match listed.kind {
                EntryKind::Directory => Kind::Directory.suffix(0),
                EntryKind::Symlink => Kind::Symlink.suffix(0),
                _ => None,
            };
            let suffix = suffix.filter(|_| self.options.classify);
            listing::write_name_line(out, &self.prefix, name, suffix);
            return Ok(listed.kind);
        };
        self.known_name(out, name, &status);
        Ok(entry_kind(status.kind))
    }

    fn known_name(&self, out: &mut Vec<u8>, name: &[u8], status: &FileStatus) {
        let suffix = kind(status.kind)
            .suffix(status.mode)
            .filter(|_| self.options.classify);
        listing::write_name_line(out, &self.prefix, name, suffix);
    }

    fn long(&mut self, out: &mut Vec<u8>, listed: Listed<'_>) -> io::Result<EntryKind> {
        let status = match listed.status {
            Some(status) => *status,
            None => file::status_at(&listed.directory, listed.name)?,
        };
        let target = if status.kind == FileKind::Symlink {
            read_link(listed.directory, listed.name, &mut self.target)?;
            Some(&self.target[..])
        } else {
            None
        };
        let entry = entry(listed.name.to_bytes(), &status, target);
        listing::write_list_line(out, &entry, self.now, self.options.classify);
        Ok(entry_kind(status.kind))
    }

    fn facts(
        &mut self,
        out: &mut Vec<u8>,
        listed: Listed<'_>,
        facts: FactSet,
    ) -> io::Result<EntryKind> {
        let name = listed.name.to_bytes();
        let own = match listed.kind {
            EntryKind::Symlink => None,
            _ => Some(file::status_at(&listed.directory, listed.name)?),
        };
        // Not every file system says with the name that it is a link's.
        let status = match own.filter(|own| own.kind != FileKind::Symlink) {
            Some(status) => status,
            None => match (self.status_from_root(name), own) {
                (Ok(status), _) => status,
                (Err(_), Some(own)) => own,
                (Err(_), None) => file::status_at(&listed.directory, listed.name)?,
            },
        };
        let rights = self.rights_at(name);
        let entry = entry(name, &status, None);
        listing::write_facts_line(out, &entry, facts, Role::Listed, rights);
        Ok(listed.kind)
    }

    /// Whether a name in the current directory does not exist for the user.
    pub(super) fn hides(&self, name: &[u8]) -> bool {
        !self.rights.hidden.is_empty() && self.rights.hides(&self.path_of(name))
    }

    /// Whether the user may list a directory in the current one.
    pub(super) fn may_list(&self, name: &[u8]) -> bool {
        self.rights_at(name).has(Right::List)
    }

    fn rights_at(&self, name: &[u8]) -> RightSet {
        match self.rights.are_everywhere_the_same() {
            true => self.rights.everywhere,
            false => self.rights.at(&self.path_of(name)),
        }
    }

    fn path_of(&self, name: &[u8]) -> Vec<u8> {
        [self.place.at.as_bytes(), b"/", &self.path, b"/", name].concat()
    }

    /// What `name` in the current directory leads to, inside the tree.
    fn status_from_root(&mut self, name: &[u8]) -> io::Result<FileStatus> {
        self.scratch.clear();
        self.scratch.extend_from_slice(&self.path);
        self.scratch.push(b'/');
        self.scratch.extend_from_slice(name);
        file::status(&open_now(&self.place.directory, &self.scratch, O_PATH)?)
    }

    /// Writes the lines of `.` and `..`. That of the root's `..` shows the root: nothing is above.
    pub(super) fn dots(&mut self, out: &mut Vec<u8>, directory: &OwnedFd) -> io::Result<()> {
        let here = file::status(directory)?;
        // The directory may have been moved since.
        let parent = self.status_from_root(b"..").ok();
        let dots = [
            (&b"."[..], Some(here), Role::Current),
            (b"..", parent, Role::Parent),
        ];
        for (name, status, role) in dots {
            let Some(status) = status else { continue };
            let entry = entry(name, &status, None);
            match self.format {
                Format::Names => self.known_name(out, name, &status),
                Format::Long => {
                    listing::write_list_line(out, &entry, self.now, self.options.classify);
                }
                // RFC 3659 §7.5.1.3: a "pdir" names the parent; the root has none.
                Format::Facts(_) if role == Role::Parent && self.path == b"." => {}
                // RFC 3659 §7.5.1.2: without the type fact nothing would tell them from entries.
                Format::Facts(facts) if !facts.contains(Fact::Type) => {}
                Format::Facts(facts) => {
                    let rights = self.rights_at(b"");
                    listing::write_facts_line(out, &entry, facts, role, rights);
                }
            }
        }
        Ok(())
    }

    /// Writes the line of a name that is listed by itself: LIST shows its last component, NLST
    /// what the client has called it.
    pub(super) fn single(
        &mut self,
        out: &mut Vec<u8>,
        directory: &OwnedFd,
        name: &CStr,
        argument: &[u8],
    ) -> io::Result<()> {
        let status = file::status_at(directory, name)?;
        if self.format == Format::Names {
            self.known_name(out, argument, &status);
            return Ok(());
        }
        let (directory, kind) = (directory.as_fd(), entry_kind(status.kind));
        self.long(
            out,
            Listed {
                directory,
                name,
                kind,
                status: Some(&status),
            },
        )
        .map(drop)
    }
}

/// The line of MLST: the facts, a space, the full path, without a line end (RFC 3659 §7.2).
pub fn facts_line(
    path: &VirtualPath,
    status: &FileStatus,
    facts: FactSet,
    rights: RightSet,
) -> Vec<u8> {
    let mut line = Vec::new();
    let entry = entry(path.as_bytes(), status, None);
    listing::write_facts(&mut line, &entry, facts, Role::Listed, rights);
    line
}

fn entry<'a>(name: &'a [u8], status: &FileStatus, target: Option<&'a [u8]>) -> Entry<'a> {
    Entry {
        name,
        kind: kind(status.kind),
        mode: status.mode,
        links: status.links,
        uid: status.uid,
        gid: status.gid,
        size: status.size,
        modified: status.modified,
        created: status.created,
        target,
        unique: (status.device, status.inode),
    }
}

fn kind(kind: FileKind) -> Kind {
    match kind {
        FileKind::File => Kind::File,
        FileKind::Directory => Kind::Directory,
        FileKind::Symlink => Kind::Symlink,
        FileKind::Fifo => Kind::Fifo,
        FileKind::Socket => Kind::Socket,
        FileKind::BlockDevice => Kind::BlockDevice,
        FileKind::CharacterDevice => Kind::CharacterDevice,
    }
}

fn entry_kind(kind: FileKind) -> EntryKind {
    match kind {
        FileKind::File => EntryKind::File,
        FileKind::Directory => EntryKind::Directory,
        FileKind::Symlink => EntryKind::Symlink,
        _ => EntryKind::Other,
    }
}
