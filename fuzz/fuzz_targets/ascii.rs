//! TYPE A in both directions: chunks make no difference.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringftpd::proto::ascii::{ToLocal, ToNetwork};

fuzz_target!(|input: (&[u8], &[u8])| {
    let (bytes, cuts) = input;
    let network = to_network(bytes, &[]);
    assert_eq!(to_network(bytes, cuts), network);
    assert!(network.len() <= 2 * bytes.len());
    for (index, _) in network
        .iter()
        .enumerate()
        .filter(|&(_, &byte)| byte == b'\n')
    {
        assert!(index > 0 && network[index - 1] == b'\r');
    }
    // What is in network form already stays as it is.
    assert_eq!(to_network(&network, cuts), network);

    let local = to_local(bytes, &[]);
    assert_eq!(to_local(bytes, cuts), local);
    assert!(local.len() <= bytes.len());
});

fn to_network(bytes: &[u8], cuts: &[u8]) -> Vec<u8> {
    let (mut convert, mut out) = (ToNetwork::default(), Vec::new());
    chunks(bytes, cuts, |chunk| convert.convert(chunk, &mut out));
    out
}

fn to_local(bytes: &[u8], cuts: &[u8]) -> Vec<u8> {
    let (mut convert, mut out) = (ToLocal::default(), Vec::new());
    chunks(bytes, cuts, |chunk| convert.convert(chunk, &mut out));
    convert.finish(&mut out);
    out
}

/// Cuts the bytes into pieces of these lengths; the last piece is the rest.
fn chunks(bytes: &[u8], cuts: &[u8], mut each: impl FnMut(&[u8])) {
    let mut rest = bytes;
    for &cut in cuts {
        let chunk;
        (chunk, rest) = rest.split_at(usize::from(cut).min(rest.len()));
        each(chunk);
    }
    each(rest);
}
