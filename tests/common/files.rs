//! Contents and trees to transfer, and how two trees are compared.

use std::collections::BTreeMap;
use std::fs;
use std::os::unix::fs::MetadataExt;
use std::path::{Path, PathBuf};

/// A stream of numbers that its seed decides: xorshift64 (Marsaglia 2003).
pub(crate) struct Random(u64);

impl Random {
    pub(crate) fn new(seed: u64) -> Self {
        Self(seed.wrapping_mul(0x9e37_79b9_7f4a_7c15) | 1)
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.0 ^= self.0 << 13;
        self.0 ^= self.0 >> 7;
        self.0 ^= self.0 << 17;
        self.0
    }

    /// Less than `bound`.
    pub(crate) fn below(&mut self, bound: usize) -> usize {
        (self.next() % bound as u64) as usize
    }
}

/// Bytes without a pattern that a wrong offset could hide in.
pub(crate) fn noise(length: usize, seed: u64) -> Vec<u8> {
    let mut random = Random::new(seed);
    let mut bytes = Vec::with_capacity(length + 8);
    while bytes.len() < length {
        bytes.extend_from_slice(&random.next().to_le_bytes());
    }
    bytes.truncate(length);
    bytes
}

/// What is in a tree: contents of files, `None` for directories, targets of links with `-> `.
pub(crate) fn snapshot(root: &Path) -> BTreeMap<PathBuf, Option<Vec<u8>>> {
    let mut found = BTreeMap::new();
    let mut pending = vec![root.to_owned()];
    while let Some(directory) = pending.pop() {
        for entry in fs::read_dir(&directory).expect("a directory of the snapshot") {
            let path = entry.expect("an entry of the snapshot").path();
            let kind = fs::symlink_metadata(&path)
                .expect("what an entry is")
                .file_type();
            let content = if kind.is_dir() {
                pending.push(path.clone());
                None
            } else if kind.is_symlink() {
                let target = fs::read_link(&path).expect("where a link leads");
                Some(format!("-> {}", target.display()).into_bytes())
            } else if kind.is_file() {
                Some(fs::read(&path).expect("a file of the snapshot"))
            } else {
                Some(format!("{kind:?}").into_bytes())
            };
            let below = path.strip_prefix(root).expect("below the root").to_owned();
            found.insert(below, content);
        }
    }
    found
}

/// Compares two trees byte by byte; names what differs.
#[track_caller]
pub(crate) fn same_trees(one: &Path, other: &Path) {
    let (left, right) = (snapshot(one), snapshot(other));
    let mut differences = Vec::new();
    for path in left
        .keys()
        .chain(right.keys().filter(|path| !left.contains_key(*path)))
    {
        match (left.get(path), right.get(path)) {
            (Some(a), Some(b)) if a == b => {}
            (Some(a), Some(b)) => {
                let length = |side: &Option<Vec<u8>>| side.as_ref().map(Vec::len);
                differences.push(format!(
                    "{path:?}: {:?} and {:?} bytes",
                    length(a),
                    length(b)
                ));
            }
            (Some(_), None) => differences.push(format!("{path:?}: only in {}", one.display())),
            (None, _) => differences.push(format!("{path:?}: only in {}", other.display())),
        }
    }
    assert!(!left.is_empty(), "{} is empty", one.display());
    assert!(
        differences.is_empty(),
        "the trees differ:\n{}",
        differences.join("\n")
    );
}

/// A tree such as people mirror: files of many sizes, empty ones, names with spaces, quotes and
/// letters beyond ASCII, directories below directories, an empty one, and many small files.
pub(crate) fn make_tree(root: &Path) {
    for directory in ["a/b/c/d", "empty", "many", "with space", "größe", "日本"] {
        fs::create_dir_all(root.join(directory)).expect("a directory of the tree");
    }
    for (name, length) in [
        ("zero", 0),
        ("one", 1),
        ("page", 4096),
        ("odd", 65_537),
        ("big", 3 * 1024 * 1024 + 11),
        ("a/file", 10),
        ("a/b/file", 1000),
        ("a/b/c/d/deep", 100_000),
        ("with space/two words.txt", 77),
        ("größe/übung.txt", 78),
        ("日本/語", 79),
        ("it's (here) & there; ok #1", 80),
        ("UPPER.TXT", 81),
    ] {
        let seed = length as u64 + name.len() as u64;
        fs::write(root.join(name), noise(length, seed)).expect("a file of the tree");
    }
    for number in 0..60 {
        let name = format!("many/{number:03}");
        fs::write(root.join(name), noise(number * 37, number as u64)).expect("a small file");
    }
}

/// What nobody may have changed of a file: where it is, its bits and its times.
pub(crate) fn identity(path: &Path) -> (u64, u32, i64, i64) {
    let status = fs::symlink_metadata(path).expect("the status of a file");
    (
        status.ino(),
        status.mode(),
        status.mtime(),
        status.mtime_nsec(),
    )
}
