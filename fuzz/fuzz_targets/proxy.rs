//! PROXY headers: no input panics, a header is no longer than its input, and what is parsed does not
//! depend on what follows.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringftpd::proto::proxy::{self, HEADER_LENGTH_MAX};

fuzz_target!(|bytes: &[u8]| {
    match proxy::parse(bytes) {
        Ok(Some((length, header))) => {
            assert!(length <= bytes.len() && length <= HEADER_LENGTH_MAX);
            assert_eq!(proxy::parse(&bytes[..length]), Ok(Some((length, header))));
        }
        Ok(None) => assert!(bytes.len() < HEADER_LENGTH_MAX),
        Err(_) => {}
    }
});
