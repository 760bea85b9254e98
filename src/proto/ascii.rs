//! TYPE A: line ends of the network (CRLF) ⇄ those of this system (LF), RFC 959 §3.1.1.1.
//!
//! Both directions go chunk by chunk; where a stream is cut into chunks makes no difference to what
//! comes out. Line ends are found by memchr, and everything between two of them is copied in one
//! piece.

use memchr::{memchr, memchr_iter};

/// From local lines to network lines: every LF becomes CRLF, except one that has its CR already.
///
/// A file that was stored with CRLF line ends is therefore sent as it is, and not with CR CR LF;
/// vsftpd does the same.
#[derive(Clone, Debug, Default)]
pub struct ToNetwork {
    after_return: bool,
}

impl ToNetwork {
    /// Appends the network form of the next bytes of the stream, at most twice as many.
    pub fn convert(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let Some(&last) = input.last() else {
            return;
        };
        out.reserve(input.len());
        let mut copied = 0;
        for feed in memchr_iter(b'\n', input) {
            let after_return = match feed {
                0 => self.after_return,
                _ => input[feed - 1] == b'\r',
            };
            if !after_return {
                out.extend_from_slice(&input[copied..feed]);
                out.push(b'\r');
                copied = feed;
            }
        }
        out.extend_from_slice(&input[copied..]);
        self.after_return = last == b'\r';
    }
}

/// From network lines to local lines: every CRLF becomes LF; a CR or an LF alone stays what it is.
#[derive(Clone, Debug, Default)]
pub struct ToLocal {
    /// The chunk before this one ended with a CR, which has not been written yet.
    held_return: bool,
}

impl ToLocal {
    /// Appends the local form of the next bytes of the stream, at most one more than they are. A CR
    /// at their end waits for the byte that follows it, or for [`Self::finish`].
    pub fn convert(&mut self, input: &[u8], out: &mut Vec<u8>) {
        let Some(&first) = input.first() else {
            return;
        };
        out.reserve(input.len() + 1);
        if self.held_return && first != b'\n' {
            out.push(b'\r');
        }
        self.held_return = false;
        let mut rest = input;
        while let Some(found) = memchr(b'\r', rest) {
            match rest.get(found + 1) {
                Some(b'\n') => {
                    out.extend_from_slice(&rest[..found]);
                    rest = &rest[found + 1..];
                }
                Some(_) => {
                    out.extend_from_slice(&rest[..=found]);
                    rest = &rest[found + 1..];
                }
                None => {
                    out.extend_from_slice(&rest[..found]);
                    rest = &[];
                    self.held_return = true;
                }
            }
        }
        out.extend_from_slice(rest);
    }

    /// The stream has ended: appends a CR that was its last byte.
    pub fn finish(&mut self, out: &mut Vec<u8>) {
        if std::mem::take(&mut self.held_return) {
            out.push(b'\r');
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ToLocal, ToNetwork};

    fn to_network<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut convert, mut out) = (ToNetwork::default(), Vec::new());
        for chunk in chunks {
            convert.convert(chunk, &mut out);
        }
        out
    }

    fn to_local<'a>(chunks: impl IntoIterator<Item = &'a [u8]>) -> Vec<u8> {
        let (mut convert, mut out) = (ToLocal::default(), Vec::new());
        for chunk in chunks {
            convert.convert(chunk, &mut out);
        }
        convert.finish(&mut out);
        out
    }

    #[test]
    fn local_lines_become_network_lines() {
        // RFC 959 §3.1.1.1: CRLF denotes the end of a line.
        for (local, network) in [
            ("", ""),
            ("a", "a"),
            ("a\n", "a\r\n"),
            ("\n", "\r\n"),
            ("\n\n", "\r\n\r\n"),
            ("a\nb\nc", "a\r\nb\r\nc"),
            ("a\r\nb", "a\r\nb"),
            ("a\rb\n", "a\rb\r\n"),
            ("\r", "\r"),
            ("\r\r\n", "\r\r\n"),
            ("\r\n\n", "\r\n\r\n"),
        ] {
            assert_eq!(
                to_network([local.as_bytes()]),
                network.as_bytes(),
                "{local:?}"
            );
        }
    }

    #[test]
    fn network_lines_become_local_lines() {
        for (network, local) in [
            ("", ""),
            ("a", "a"),
            ("a\r\n", "a\n"),
            ("\r\n\r\n", "\n\n"),
            ("a\r\nb\r\nc", "a\nb\nc"),
            ("a\nb", "a\nb"),
            ("a\rb", "a\rb"),
            ("a\r", "a\r"),
            ("\r\r\n", "\r\n"),
            ("\r\n\r", "\n\r"),
            ("\n\r", "\n\r"),
        ] {
            assert_eq!(
                to_local([network.as_bytes()]),
                local.as_bytes(),
                "{network:?}"
            );
        }
    }

    #[test]
    fn a_line_end_may_be_cut_in_two() {
        assert_eq!(to_network([&b"a\r"[..], b"\n"]), b"a\r\n");
        assert_eq!(to_network([&b"a\r"[..], b"", b"\n"]), b"a\r\n");
        assert_eq!(to_local([&b"a\r"[..], b"\nb"]), b"a\nb");
        assert_eq!(to_local([&b"a\r"[..], b"", b"\nb"]), b"a\nb");
        assert_eq!(to_local([&b"a\r"[..], b"b"]), b"a\rb");
        assert_eq!(to_local([&b"a\r"[..], b"\r", b"\n"]), b"a\r\n");
    }

    /// Bytes with many line ends among them, and where to cut them.
    fn stream() -> impl Strategy<Value = (Vec<u8>, Vec<usize>)> {
        let byte = prop_oneof![3 => Just(b'\r'), 3 => Just(b'\n'), 4 => any::<u8>()];
        (
            prop::collection::vec(byte, 0..200),
            prop::collection::vec(1usize..8, 200),
        )
    }

    fn cut<'a>(bytes: &'a [u8], lengths: &'a [usize]) -> impl Iterator<Item = &'a [u8]> {
        let mut rest = bytes;
        lengths.iter().map(move |&length| {
            let chunk;
            (chunk, rest) = rest.split_at(length.min(rest.len()));
            chunk
        })
    }

    proptest! {
        #[test]
        fn chunks_make_no_difference((bytes, lengths) in stream()) {
            prop_assert_eq!(to_network(cut(&bytes, &lengths)), to_network([&bytes[..]]));
            prop_assert_eq!(to_local(cut(&bytes, &lengths)), to_local([&bytes[..]]));
        }

        #[test]
        fn every_line_of_the_network_form_ends_in_crlf((bytes, _) in stream()) {
            let network = to_network([&bytes[..]]);
            for (index, _) in network.iter().enumerate().filter(|&(_, &byte)| byte == b'\n') {
                prop_assert!(index > 0 && network[index - 1] == b'\r');
            }
        }

        #[test]
        fn there_and_back_again((bytes, _) in stream()) {
            // A CR before an LF in a local file is the one thing that does not survive.
            let mut local = Vec::new();
            for byte in bytes {
                while byte == b'\n' && local.last() == Some(&b'\r') {
                    local.pop();
                }
                local.push(byte);
            }
            prop_assert_eq!(to_local([&to_network([&local[..]])[..]]), local);
        }
    }
}
