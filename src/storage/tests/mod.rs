//! Trees in real directories, driven through a real ring.

mod digest;
mod listing;
mod quota;
mod tree;
mod upload;

use std::fs;
use std::future::Future;
use std::os::unix::ffi::OsStrExt;
use std::path::PathBuf;
use std::time::Duration;

use super::{Root, Upload};
use crate::config::Files;
use crate::proto::failure::Failure;
use crate::proto::path::VirtualPath;
use crate::uring::{self, RingOptions};

/// A user's tree in a temporary directory, and around it a directory that it must not leave.
struct Fixture {
    outside: tempfile::TempDir,
    root: Root,
}

/// Runs a test on a ring. Whatever hangs fails.
fn run<F: Future<Output = ()>>(test: impl FnOnce(Fixture) -> F) {
    run_with(Files::default(), test);
}

fn run_with<F: Future<Output = ()>>(settings: Files, test: impl FnOnce(Fixture) -> F) {
    let outside = tempfile::tempdir().unwrap();
    fs::create_dir(outside.path().join("root")).unwrap();
    fs::write(outside.path().join("secret"), "secret").unwrap();
    uring::start(&RingOptions::default(), || async move {
        let root = Root::open(&outside.path().join("root"), settings, None)
            .await
            .unwrap();
        let test = test(Fixture { outside, root });
        tokio::time::timeout(Duration::from_secs(60), test)
            .await
            .expect("the test hangs");
    })
    .unwrap();
}

impl Fixture {
    /// Where a path of the tree is on this host.
    fn host(&self, path: impl AsRef<[u8]>) -> PathBuf {
        let path = std::ffi::OsStr::from_bytes(path.as_ref());
        self.outside.path().join("root").join(path)
    }

    fn write(&self, path: impl AsRef<[u8]>, content: impl AsRef<[u8]>) {
        let path = self.host(path);
        fs::create_dir_all(path.parent().unwrap()).unwrap();
        fs::write(path, content).unwrap();
    }

    fn read(&self, path: impl AsRef<[u8]>) -> Vec<u8> {
        fs::read(self.host(path)).unwrap()
    }

    fn directory(&self, path: impl AsRef<[u8]>) {
        fs::create_dir_all(self.host(path)).unwrap();
    }

    fn link(&self, path: impl AsRef<[u8]>, target: &str) {
        std::os::unix::fs::symlink(target, self.host(path)).unwrap();
    }

    fn fifo(&self, path: impl AsRef<[u8]>) {
        nix::unistd::mkfifo(
            &self.host(path),
            nix::sys::stat::Mode::from_bits_truncate(0o644),
        )
        .unwrap();
    }

    fn mode(&self, path: impl AsRef<[u8]>) -> u32 {
        use std::os::unix::fs::PermissionsExt;
        fs::metadata(self.host(path)).unwrap().permissions().mode() & 0o7777
    }

    fn set_mode(&self, path: impl AsRef<[u8]>, mode: u32) {
        use std::os::unix::fs::PermissionsExt;
        fs::set_permissions(self.host(path), fs::Permissions::from_mode(mode)).unwrap();
    }

    /// All names in a directory, sorted.
    fn names(&self, path: impl AsRef<[u8]>) -> Vec<String> {
        let mut names: Vec<_> = fs::read_dir(self.host(path))
            .unwrap()
            .map(|entry| entry.unwrap().file_name().to_string_lossy().into_owned())
            .collect();
        names.sort();
        names
    }
}

fn at(path: impl AsRef<[u8]>) -> VirtualPath {
    VirtualPath::root().join(path.as_ref()).unwrap()
}

/// Sends `content` as a transfer would.
async fn send(upload: &Upload, content: impl Into<Vec<u8>>) {
    let (written, _) = uring::write_all_at(upload.file(), content.into(), upload.position()).await;
    written.unwrap();
}

/// Ends an upload whose bytes have all been written.
async fn finish(upload: Upload) -> Result<(), Failure> {
    let end = upload.position();
    upload.finish(Vec::new(), end).await.0
}

async fn content(root: &Root, path: &str) -> Result<Vec<u8>, Failure> {
    let (file, status) = root.open_for_reading(&at(path)).await?;
    crate::sys::tree::set_blocking(&file).unwrap();
    let (read, mut bytes) = uring::read_at(&file, Vec::with_capacity(4096), 0).await;
    bytes.truncate(read.unwrap());
    assert_eq!(status.size, bytes.len() as u64);
    Ok(bytes)
}

fn is_superuser() -> bool {
    nix::unistd::geteuid().is_root()
}
