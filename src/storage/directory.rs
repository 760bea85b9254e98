//! The walk of a listing, on a worker's thread: from directory to directory, from name to name.

use std::ffi::CString;
use std::io;
use std::os::fd::OwnedFd;

use crate::proto::failure::Failure;
use crate::proto::glob;
use crate::proto::listing;
use crate::proto::path::VirtualPath;
use crate::proto::rights::Right;
use crate::sys::directory::EntryKind;
use crate::sys::file;
use crate::sys::flag::{
    O_DIRECTORY, O_PATH, O_RDONLY, RESOLVE_BENEATH, RESOLVE_NO_MAGICLINKS, RESOLVE_NO_SYMLINKS,
};

use super::lines::Lines;
use super::listing::{Format, ListRequest};
use super::names::{Names, Order};
use super::publish::is_hidden_name;
use super::root::{Place, failure, open_now};

/// Where a listing is.
#[derive(Debug)]
pub(super) struct Cursor {
    path: VirtualPath,
    lines: Lines,
    filter: Filter,
    /// The directory that is listed; `None`: nothing is left to be listed.
    names: Option<Names>,
    /// Something has been written of it.
    begun: bool,
    /// What is still to be walked, for `-R`.
    tree: Option<Tree>,
    /// Why the listing is not complete; told at its end.
    missing: Option<Failure>,
}

/// Which names of a directory are shown.
#[derive(Debug)]
struct Filter {
    dotted: bool,
    /// Uploads that are not whole, where they cannot be without a name.
    unfinished: bool,
    pattern: Option<Vec<u8>>,
}

/// The directories that `-R` still has to list.
#[derive(Debug)]
struct Tree {
    /// Where the walk began. All below are opened from here, and never through a link.
    top: OwnedFd,
    /// The argument as the headers show it.
    shown: Vec<u8>,
    /// Path of the current directory from the top; empty: the top itself.
    here: Vec<u8>,
    /// Paths from the top; the next one is last.
    pending: Vec<Box<[u8]>>,
    pending_bytes: usize,
    /// How many were pending when the current directory was begun.
    mark: usize,
    first: bool,
}

impl Cursor {
    /// Finds what is to be listed; the line of a single name is written at once.
    pub(super) fn open(
        place: Place,
        request: &ListRequest,
        out: &mut Vec<u8>,
    ) -> Result<Self, Failure> {
        let argument = request.name.as_deref().unwrap_or_default();
        let path = join(&request.directory, argument)?;
        let is_facts = matches!(request.format, Format::Facts(_));
        if is_facts || !request.options.directory {
            let error = match open_directory(&place, &path) {
                Ok(directory) => {
                    // Here, since a pattern may be the name of a directory as well.
                    request.rights.check(&path, Right::List)?;
                    let prefix = as_prefix(argument);
                    return Self::walk(place, request, path, directory, prefix, None);
                }
                Err(error) => failure("list", &path, &error),
            };
            match error {
                // A file, a link that leads nowhere, or a pattern.
                Failure::NotADirectory | Failure::NotFound | Failure::TooManyLinks if !is_facts => {
                }
                _ => return Err(error),
            }
        }
        let again = place.try_clone();
        let again = again.map_err(|error| failure("list", &path, &error))?;
        let (prefix, last) = split_last(argument);
        match Self::single(again, request, path, out) {
            Err(Failure::NotFound) if glob::is_pattern(last) => {
                let path = join(&request.directory, prefix)?;
                let directory = open_directory(&place, &path)
                    .map_err(|error| failure("list", &path, &error))?;
                let pattern = Some(last.to_vec());
                Self::walk(place, request, path, directory, prefix.to_vec(), pattern)
            }
            found => found,
        }
    }

    fn single(
        place: Place,
        request: &ListRequest,
        path: VirtualPath,
        out: &mut Vec<u8>,
    ) -> Result<Self, Failure> {
        if request.rights.hides(path.as_bytes()) {
            return Err(Failure::NotFound);
        }
        let parent = path.parent().unwrap_or_else(VirtualPath::root);
        let name = path.name().unwrap_or(b".").to_vec();
        let way = place.way(&parent).to_vec();
        let mut lines = Lines::new(place, request, &parent);
        let argument = request.name.as_deref().unwrap_or(b".");
        let write = || {
            let directory = open_now(lines.root(), &way, O_PATH | O_DIRECTORY)?;
            lines.single(out, &directory, &CString::new(name)?, argument)
        };
        write().map_err(|error: io::Error| failure("list", &path, &error))?;
        Ok(Self::new(path, lines, request, None))
    }

    fn walk(
        place: Place,
        request: &ListRequest,
        path: VirtualPath,
        directory: OwnedFd,
        prefix: Vec<u8>,
        pattern: Option<Vec<u8>>,
    ) -> Result<Self, Failure> {
        let mut lines = Lines::new(place, request, &path);
        let is_facts = matches!(lines.format(), Format::Facts(_));
        // `-d` lists no directory's names, thus of no directory below either (ls(1)).
        let recursive = request.options.recursive && !request.options.directory;
        let tree = if recursive && !is_facts {
            let top = directory
                .try_clone()
                .map_err(|error| failure("list", &path, &error))?;
            let argument = request.name.as_deref().unwrap_or_default();
            Some(Tree::new(
                top,
                if pattern.is_some() { &prefix } else { argument },
            ))
        } else {
            None
        };
        // RFC 3659 §7 knows no order: a client that needs one sorts by the facts it has asked for.
        let order = if is_facts {
            Order::Directory
        } else {
            Order::of(&request.options)
        };
        lines.enter(&prefix, b"");
        let mut cursor = Self::new(path, lines, request, Some(Names::new(directory, order)));
        cursor.filter.pattern = pattern;
        cursor.tree = tree;
        Ok(cursor)
    }

    fn new(path: VirtualPath, lines: Lines, request: &ListRequest, names: Option<Names>) -> Self {
        let is_facts = matches!(lines.format(), Format::Facts(_));
        let filter = Filter {
            dotted: request.options.all || is_facts,
            unfinished: request.options.all && !is_facts,
            pattern: None,
        };
        Self {
            path,
            lines,
            filter,
            names,
            begun: false,
            tree: None,
            missing: None,
        }
    }

    /// Writes lines until `out` has `limit` bytes, or enough names have been looked at for one
    /// job; says whether there may be more.
    ///
    /// # Errors
    /// What reading the directory said, and at the end why something is missing.
    pub(super) fn fill(&mut self, out: &mut Vec<u8>, limit: usize) -> Result<bool, Failure> {
        let mut budget = NAMES_PER_JOB;
        while let Some(names) = &mut self.names {
            if out.len() >= limit || budget == 0 {
                return Ok(true);
            }
            budget -= 1;
            if !self.begun {
                self.begun = true;
                budget = budget.saturating_sub(NAMES_PER_DIRECTORY);
                if let Some(tree) = &mut self.tree
                    && self.lines.format() == Format::Long
                {
                    tree.header(out);
                }
                let dots = self.filter.dotted && self.filter.pattern.is_none();
                if dots && let Err(error) = self.lines.dots(out, names.directory()) {
                    self.missing = Some(failure("list", &self.path, &error));
                }
            }
            match self.entry(out) {
                Ok(true) => {}
                Ok(false) => self.next_directory(),
                Err(error) => return Err(failure("list", &self.path, &error)),
            }
        }
        match self.missing {
            // What has been written is sent before.
            Some(_) if !out.is_empty() => Ok(true),
            Some(missing) => Err(missing),
            None => Ok(false),
        }
    }

    /// Writes the line of the next name; false when there is none.
    fn entry(&mut self, out: &mut Vec<u8>) -> io::Result<bool> {
        let Some(names) = &mut self.names else {
            return Ok(false);
        };
        let shows = |name: &[u8]| self.filter.shows(name) && !self.lines.hides(name);
        let Some(listed) = names.next(shows)? else {
            return Ok(false);
        };
        let name = listed.name.to_bytes();
        if !self.filter.shows(name) || self.lines.hides(name) {
            return Ok(true);
        }
        match self.lines.entry(out, listed) {
            Ok(EntryKind::Directory) if self.lines.may_list(name) => {
                if let Some(tree) = &mut self.tree
                    && let Err(limit) = tree.push(name)
                {
                    self.missing = Some(limit);
                }
            }
            Ok(_) => {}
            // It has gone since its name was read.
            Err(error) if error.kind() == io::ErrorKind::NotFound => {}
            Err(error) => self.missing = Some(failure("list", &self.path, &error)),
        }
        Ok(true)
    }

    /// Goes on with the next directory of the tree, if there is one.
    fn next_directory(&mut self) {
        // A pattern is one for the names in the first directory alone, as a shell would do it.
        self.filter.pattern = None;
        let next = self.tree.as_mut().map_or(Ok(None), Tree::pop);
        match (next, &mut self.names, &self.tree) {
            (Ok(Some(directory)), Some(names), Some(tree)) => {
                names.restart(directory);
                self.lines.enter(&tree.prefix(), &tree.here);
                self.begun = false;
            }
            (next, ..) => {
                self.missing = next.err().or(self.missing);
                self.names = None;
            }
        }
    }
}

impl Filter {
    fn shows(&self, name: &[u8]) -> bool {
        if let Some(pattern) = &self.pattern {
            return glob::matches(pattern, name) && !matches!(name, b"." | b"..");
        }
        match name {
            // They are shown first, or not at all.
            b"." | b".." => false,
            [b'.', ..] => self.dotted && (self.unfinished || !is_hidden_name(name)),
            _ => true,
        }
    }
}

impl Tree {
    fn new(top: OwnedFd, shown: &[u8]) -> Self {
        Self {
            top,
            shown: shown.to_vec(),
            here: Vec::new(),
            pending: Vec::new(),
            pending_bytes: 0,
            mark: 0,
            first: true,
        }
    }

    /// Keeps a directory in the current one for later.
    ///
    /// # Errors
    /// When too many are kept already, or it lies too deep.
    fn push(&mut self, name: &[u8]) -> Result<(), Failure> {
        let mut path = Vec::with_capacity(self.here.len() + 1 + name.len());
        if !self.here.is_empty() {
            path.extend_from_slice(&self.here);
            path.push(b'/');
        }
        path.extend_from_slice(name);
        let depth = memchr::memchr_iter(b'/', &path).count() + 1;
        let too_many = self.pending.len() >= PENDING_MAX
            || self.pending_bytes + path.len() > PENDING_BYTES_MAX;
        if depth > DEPTH_MAX || too_many {
            return Err(Failure::Overloaded);
        }
        self.pending_bytes += path.len();
        self.pending.push(path.into_boxed_slice());
        Ok(())
    }

    /// Opens the next directory, and makes it the current one. One that has gone, has become
    /// something else, or may not be read is passed over.
    fn pop(&mut self) -> Result<Option<OwnedFd>, Failure> {
        // Those of the current directory come next, in its order.
        self.pending[self.mark..].reverse();
        while let Some(path) = self.pending.pop() {
            self.pending_bytes -= path.len();
            self.mark = self.pending.len();
            let resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS | RESOLVE_NO_MAGICLINKS;
            match file::open(&self.top, &path, O_RDONLY | O_DIRECTORY, 0, resolve) {
                Ok(directory) => {
                    self.here = path.into_vec();
                    return Ok(Some(directory));
                }
                Err(error) => match Failure::from_errno(error.raw_os_error().unwrap_or_default()) {
                    Failure::NotFound
                    | Failure::NotADirectory
                    | Failure::TooManyLinks
                    | Failure::Denied => {}
                    failure => return Err(failure),
                },
            }
        }
        Ok(None)
    }

    /// What a name in the current directory needs in front to be a path from where the client is.
    fn prefix(&self) -> Vec<u8> {
        let mut prefix = as_prefix(&self.shown);
        prefix.extend_from_slice(&self.here);
        prefix.push(b'/');
        prefix
    }

    /// Says which directory follows, as `ls -R` does: `dir:` or, after an empty line, `./dir:`.
    fn header(&mut self, out: &mut Vec<u8>) {
        let mut header = match self.shown.strip_suffix(b"/") {
            None | Some(b"") => self.shown.clone(),
            Some(shown) => shown.to_vec(),
        };
        if header.is_empty() {
            header.push(b'.');
        }
        if !self.here.is_empty() {
            header = as_prefix(&header);
            header.extend_from_slice(&self.here);
        }
        if !self.first {
            out.extend_from_slice(b"\r\n");
        }
        self.first = false;
        listing::write_name_line(out, b"", &header, Some(b':'));
    }
}

/// Opens a directory for its names.
fn open_directory(place: &Place, path: &VirtualPath) -> io::Result<OwnedFd> {
    open_now(&place.directory, place.way(path), O_RDONLY | O_DIRECTORY)
}

fn join(directory: &VirtualPath, argument: &[u8]) -> Result<VirtualPath, Failure> {
    match argument {
        b"" => Ok(directory.clone()),
        _ => directory.join(argument).map_err(|_| Failure::NameInvalid),
    }
}

/// A directory's name as the beginning of names in it.
fn as_prefix(argument: &[u8]) -> Vec<u8> {
    let mut prefix = argument.to_vec();
    if !matches!(argument, b"" | [.., b'/']) {
        prefix.push(b'/');
    }
    prefix
}

/// The last component, and what stands before it.
fn split_last(argument: &[u8]) -> (&[u8], &[u8]) {
    let end = argument
        .iter()
        .rposition(|&byte| byte != b'/')
        .map_or(0, |last| last + 1);
    let argument = &argument[..end];
    argument.split_at(memchr::memrchr(b'/', argument).map_or(0, |slash| slash + 1))
}

/// How many names one job looks at when it writes few lines of them.
const NAMES_PER_JOB: usize = 8192;

/// What opening a directory counts in that.
const NAMES_PER_DIRECTORY: usize = 16;

/// How many directories `-R` keeps in mind, and the memory that their paths take. Depth first, so
/// that these are the siblings on the way to the current directory.
const PENDING_MAX: usize = 16 * 1024;
const PENDING_BYTES_MAX: usize = 1024 * 1024;

/// How deep `-R` goes.
const DEPTH_MAX: usize = 128;
