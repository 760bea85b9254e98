//! The user's tree: every file, directory and listing that a session touches.
//!
//! Nothing here builds host paths. A tree is a descriptor of its root directory ([`Root`]), and
//! every path is resolved from there by `openat2(2)` with `RESOLVE_IN_ROOT` and
//! `RESOLVE_NO_MAGICLINKS`: `..`, absolute names and symbolic links stay inside, also while
//! somebody else renames directories, because the kernel itself walks the path. Operations that
//! need a name (make, remove, rename, link) act on the descriptor of its parent and the last
//! component, which they never follow.
//!
//! What could wait for a disk goes through the ring or to a thread of
//! [`Workers`](crate::sys::worker::Workers); on the core itself run only calls on descriptors that
//! are open already.
//!
//! - `root`: looking, entering, opening for reading.
//! - `change`: making, removing, renaming, attributes.
//! - `upload`: how a file arrives ([`Upload`]), `unique`: under which name if that is for the server
//!   to choose, `publish`: how it becomes visible.
//! - `listing`, `directory`, `names`, `lines`: LIST, NLST and MLSD ([`Listing`]).
//! - `digest`: HASH and its kin, SIZE in TYPE A.

mod change;
mod count;
mod digest;
mod directory;
mod lines;
mod listing;
mod names;
mod publish;
mod root;
mod space;
mod unique;
mod upload;
mod work;

#[cfg(test)]
mod tests;

pub use digest::{ASCII_SIZE_MAX, Digest};
pub use lines::facts_line;
pub use listing::{Format, ListRequest, Listing};
pub use root::Root;
pub use upload::{Upload, UploadKind, UploadRules};
