//! Reading files of the host that the server, which has given up root, may not read as itself, such
//! as /etc/shadow.

use std::fs::{self, File};
use std::io::{self, Read};
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::sync::Arc;

use nix::unistd::{getegid, geteuid};

use super::acting;
use super::ids::Ids;

/// The content of such a file. What may read it is in effect on this thread alone, and while the file
/// is opened only: its group where that is not root's, otherwise its owner. So it takes the right to
/// act as others ([`acting::is_allowed`]), and nothing beyond it. Never on a core.
///
/// # Errors
/// As open(2) and read(2); EFBIG when the file is larger than `bytes_max`.
pub fn read(path: &Path, bytes_max: u64) -> io::Result<Vec<u8>> {
    let file = match File::open(path) {
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied && acting::is_allowed() => {
            let reader = reader_of(path)?;
            let path = path.to_owned();
            acting::within(Some(&reader), move || File::open(path))??
        }
        opened => opened?,
    };
    let mut content = Vec::new();
    let length = file.take(bytes_max + 1).read_to_end(&mut content)?;
    match length as u64 > bytes_max {
        true => Err(io::Error::from_raw_os_error(libc::EFBIG)),
        false => Ok(content),
    }
}

/// By what the kernel lets a file be read.
fn reader_of(path: &Path) -> io::Result<Arc<Ids>> {
    let file = fs::metadata(path)?;
    let has_group = file.mode() & libc::S_IRGRP != 0 && file.gid() != 0;
    let (uid, groups) = match has_group {
        true => (geteuid().as_raw(), [file.gid()].into()),
        false => (file.uid(), [].into()),
    };
    let gid = getegid().as_raw();
    Ok(Arc::new(Ids { uid, gid, groups }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_read_up_to_its_bound() {
        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "12345").unwrap();
        assert_eq!(read(&path, 5).unwrap(), b"12345");
        let error = read(&path, 4).unwrap_err();
        assert_eq!(error.raw_os_error(), Some(libc::EFBIG));
        let error = read(&folder.path().join("none"), 4).unwrap_err();
        assert_eq!(error.kind(), io::ErrorKind::NotFound);
    }

    #[test]
    fn its_group_reads_it_rather_than_its_owner() {
        use std::os::unix::fs::{PermissionsExt, chown};

        let folder = tempfile::tempdir().unwrap();
        let path = folder.path().join("file");
        fs::write(&path, "").unwrap();
        if chown(&path, Some(61_234), Some(61_235)).is_err() {
            return; // Only root may give files away.
        }
        for (mode, uid, groups) in [
            (0o640, geteuid().as_raw(), &[61_235][..]),
            (0o600, 61_234, &[]),
        ] {
            fs::set_permissions(&path, fs::Permissions::from_mode(mode)).unwrap();
            let reader = reader_of(&path).unwrap();
            assert_eq!((reader.uid, &reader.groups[..]), (uid, groups));
        }
    }
}
