//! LIST, NLST and MLSD (RFC 959 §4.1.3, RFC 3659 §7), in chunks.
//!
//! A listing is made on the workers' threads, one chunk at a time and only when it is asked for:
//! a directory of any size takes the memory of one chunk and of the names that are sorted
//! ([`names`](super::names)), and a client that reads slowly holds no thread.

use std::sync::Arc;

use crate::proto::argument::ListOptions;
use crate::proto::failure::Failure;
use crate::proto::listing::FactSet;
use crate::proto::path::VirtualPath;
use crate::proto::rights::Rights;
use crate::sys::acting;
use crate::sys::worker::Workers;

use super::directory::Cursor;
use super::root::{Root, failure};
use super::work::{Work, not_acting};

/// What to list, and how.
#[derive(Clone, Debug)]
pub struct ListRequest {
    /// The directory in which a relative name begins.
    pub directory: VirtualPath,
    /// The name as the client gave it; `None`: the directory itself. Outside MLSD its last
    /// component may be a pattern, unless something has exactly that name. NLST puts it before
    /// the names it lists, so that the client can use them as they are (RFC 1123 §4.1.2.7).
    pub name: Option<Vec<u8>>,
    /// What `-laRt` and the like ask for; MLSD has none.
    pub options: ListOptions,
    /// The form of a line.
    pub format: Format,
    /// What the user may do: for the `perm` fact, and what is hidden is not listed.
    pub rights: Arc<Rights>,
    /// The time, in seconds since 1970: `ls -l` shows the year of old files instead of the hour.
    pub now: i64,
}

/// The form of a line.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub enum Format {
    /// As `ls -l` writes it (LIST).
    Long,
    /// Names alone (NLST).
    Names,
    /// Facts and name (MLSD).
    Facts(FactSet),
}

/// A listing under way.
#[derive(Debug)]
pub struct Listing {
    work: Work<Job>,
    /// The chunk that was made when the listing was opened.
    first: Option<Vec<u8>>,
    ended: bool,
}

/// What travels to a worker and back.
#[derive(Debug)]
struct Job {
    cursor: Cursor,
    chunk: Vec<u8>,
}

impl Root {
    /// Opens a listing and makes its first chunk, so that what cannot be listed is known before
    /// the transfer begins.
    ///
    /// LIST and NLST of a file list that file, those of a directory what is in it, without hidden
    /// names unless `-a` asks for them; `-d` lists the directory itself. A pattern that nothing
    /// matches lists nothing. Links are followed by MLSD, inside the tree, and shown by LIST.
    ///
    /// # Errors
    /// [`Failure::NotFound`]; [`Failure::NotADirectory`] for MLSD of a file;
    /// [`Failure::Overloaded`] when the workers have too much to do already.
    pub async fn list(&self, workers: &Workers, request: ListRequest) -> Result<Listing, Failure> {
        let path = match request.name.as_deref() {
            None | Some(b"") => request.directory.clone(),
            Some(name) => request
                .directory
                .join(name)
                .map_err(|_| Failure::NameInvalid)?,
        };
        // As an entry a folder is what its mount point is.
        let is_entry = request.options.directory && !matches!(request.format, Format::Facts(_));
        let from = path.parent().filter(|_| is_entry);
        let place = self
            .place_for_worker(from.as_ref().unwrap_or(&path))
            .map_err(|error| failure("list", &path, &error))?;
        let begin = move || {
            let mut chunk = Vec::with_capacity(FIRST_CHUNK_BYTES);
            let mut cursor = Cursor::open(place, &request, &mut chunk)?;
            let more = cursor.fill(&mut chunk, FIRST_CHUNK_BYTES - LINE_BYTES_COMMON)?;
            Ok((cursor, chunk, more))
        };
        let ids = self.ids();
        let begun = workers.run(move || acting::within(ids.as_deref(), begin));
        let begun = begun.await.map_err(|_| Failure::Overloaded)?;
        let (cursor, first, more) = begun.map_err(|error| not_acting(&error))??;
        let work = Work::new(
            workers,
            self.ids(),
            Job {
                cursor,
                chunk: Vec::new(),
            },
        );
        Ok(Listing {
            work,
            first: Some(first),
            ended: !more,
        })
    }
}

impl Listing {
    /// The next chunk, whole lines, in `buffer` (whatever that held); `None` at the end. The
    /// first one is small, so that it is soon there; no other is longer than 64 KiB.
    ///
    /// # Errors
    /// [`Failure::Overloaded`] at the end of a listing (`-R`) that had to leave something out, or
    /// what the file system said in its midst. A call that is dropped before it ends breaks the
    /// listing: the next one says [`Failure::Aborted`].
    pub async fn next_chunk(&mut self, mut buffer: Vec<u8>) -> Result<Option<Vec<u8>>, Failure> {
        buffer.clear();
        if let Some(first) = self.first.take().filter(|first| !first.is_empty()) {
            buffer.extend_from_slice(&first);
            return Ok(Some(buffer));
        }
        // A step looks at a bounded number of names, of which a pattern may match none.
        while !self.ended {
            self.work
                .with(|job| job.chunk = std::mem::take(&mut buffer))?;
            let (chunk, more) = self.work.step(Job::fill).await?;
            let more = more.inspect_err(|_| self.ended = true)?;
            self.ended = !more;
            if !chunk.is_empty() {
                return Ok(Some(chunk));
            }
            buffer = chunk;
        }
        Ok(None)
    }
}

impl Job {
    fn fill(&mut self) -> (Vec<u8>, Result<bool, Failure>) {
        let mut chunk = std::mem::take(&mut self.chunk);
        chunk.reserve_exact(CHUNK_BYTES);
        let more = self.cursor.fill(&mut chunk, CHUNK_BYTES - LINE_BYTES_MAX);
        (chunk, more)
    }
}

/// The longest chunk.
pub(super) const CHUNK_BYTES: usize = 64 * 1024;

/// Room for one more line, however long: a name and where it leads to, 4096 bytes each, the name
/// of the directory as the client gave it, and facts.
const LINE_BYTES_MAX: usize = 3 * 4096 + 1024;

/// The first chunk: three packets.
const FIRST_CHUNK_BYTES: usize = 4096;

/// Room for one more line of the common kind.
const LINE_BYTES_COMMON: usize = 256;
