//! Arguments that name a file, and patterns.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringftpd::proto::glob;
use ringftpd::proto::path::{NAME_BYTES_MAX, PATH_BYTES_MAX, VirtualPath};

fuzz_target!(|input: (&[u8], &[u8])| {
    let (here, argument) = input;
    let root = VirtualPath::root();
    let here = root.join(here).unwrap_or_else(|_| root.clone());
    if let Ok(path) = here.join(argument) {
        check(&path);
        assert_eq!(root.join(path.as_bytes()).as_ref(), Ok(&path));
        if let (Some(parent), Some(name)) = (path.parent(), path.name()) {
            check(&parent);
            assert!(parent.contains(&path));
            assert_eq!(parent.join(name).as_ref(), Ok(&path));
            // Any pattern comes to an end; one without special bytes matches itself alone.
            let found = glob::matches(argument, name);
            if !glob::is_pattern(argument) && !argument.contains(&b'\\') {
                assert_eq!(found, argument == name);
            }
        }
    }
});

fn check(path: &VirtualPath) {
    let bytes = path.as_bytes();
    assert!(bytes.len() <= PATH_BYTES_MAX && !bytes.iter().any(u8::is_ascii_control));
    let Some(relative) = bytes.strip_prefix(b"/") else {
        panic!("a path begins at the root");
    };
    if path.is_root() {
        assert!(relative.is_empty() && path.relative() == b".");
        return;
    }
    assert_eq!(path.relative(), relative);
    for component in relative.split(|&byte| byte == b'/') {
        assert!(!matches!(component, b"" | b"." | b"..") && component.len() <= NAME_BYTES_MAX);
    }
}
