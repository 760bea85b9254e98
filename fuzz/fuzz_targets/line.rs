//! Bytes of a control connection: the same lines come out however they are cut into packets.
#![no_main]

use libfuzzer_sys::fuzz_target;
use ringftpd::proto::line::LineDecoder;

/// Short, so that over-long lines are common.
const LINE_LENGTH_MAX: usize = 64;

fuzz_target!(|input: (Vec<u8>, Vec<u8>)| {
    let (bytes, cuts) = input;
    assert_eq!(lines(&bytes, &cuts), lines(&bytes, &[]));
});

/// The lines, `None` for one that is too long.
fn lines(bytes: &[u8], cuts: &[u8]) -> Vec<Option<Vec<u8>>> {
    let mut decoder = LineDecoder::new(LINE_LENGTH_MAX);
    let mut lines = Vec::new();
    let mut rest = bytes;
    let mut cuts = cuts.iter();
    while !rest.is_empty() {
        let length = cuts
            .next()
            .map_or(rest.len(), |&cut| usize::from(cut).min(rest.len()));
        let mut packet;
        (packet, rest) = rest.split_at(length);
        while let Some(line) = decoder.next_line(&mut packet) {
            let line = line.ok();
            assert!(
                line.is_none_or(|line| line.len() <= LINE_LENGTH_MAX && !line.contains(&b'\n'))
            );
            lines.push(line.map(<[u8]>::to_vec));
        }
        assert!(packet.is_empty());
        // Three bytes for each negotiation, and no more than a client can make in one line.
        let answers = decoder.take_telnet_answers().unwrap_or_default();
        assert!(answers.len() <= bytes.len() && answers.len().is_multiple_of(3));
    }
    lines
}
