//! Control lines out of the bytes of a Telnet connection (RFC 959 §4 and §5.3, RFC 854).
//!
//! Packets say nothing of lines: a line may come in many packets and a packet may hold many lines
//! (RFC 1123 §4.1.2.10). A line that lies whole in the input is handed out where it lies; only what
//! has no end yet is kept, and never more of it than a line may have. Telnet sequences are taken
//! out, and negotiations are refused (RFC 1123 §4.1.2.12), which is all of Telnet that FTP needs.

use std::mem;

use memchr::memchr2;
use thiserror::Error;

/// Takes control lines out of a stream of bytes.
///
/// Between lines it holds no memory beyond itself.
#[derive(Debug)]
pub struct LineDecoder {
    line_length_max: usize,
    /// What is known of a line whose end has not been seen, or the line that was handed out last.
    partial: Vec<u8>,
    state: State,
    telnet: Telnet,
    answers: Vec<u8>,
}

/// Why there is no line.
#[derive(Clone, Copy, Debug, Eq, Error, PartialEq)]
pub enum LineError {
    /// It was longer than the limit. It has been skipped up to its end, so that the next line is
    /// whole again.
    #[error("line too long")]
    TooLong,
}

#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum State {
    /// `partial` begins a line.
    Collecting,
    /// The line is too long; its end is looked for.
    Skipping,
    /// `partial` was handed out as a line and can go.
    HandedOut,
}

/// Where in a Telnet sequence the input stands (RFC 854, "TELNET command structure").
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
enum Telnet {
    Text,
    /// After IAC.
    Command,
    /// After IAC and this one of WILL, WONT, DO, DONT.
    Option(u8),
    /// In a subnegotiation, after this many bytes of it.
    Subnegotiation(u16),
    /// The same, after IAC.
    SubnegotiationCommand(u16),
}

impl LineDecoder {
    /// A decoder of lines of at most `line_length_max` bytes, their ends and Telnet sequences not
    /// counted.
    pub fn new(line_length_max: usize) -> Self {
        Self {
            line_length_max,
            partial: Vec::new(),
            state: State::Collecting,
            telnet: Telnet::Text,
            answers: Vec::new(),
        }
    }

    /// Takes bytes from the front of `input` up to and with the next line end; the rest stays in
    /// `input`. The line comes without its end, which is LF or CR LF.
    ///
    /// `None`: the input is used up and its last line is incomplete.
    ///
    /// # Errors
    ///
    /// [`LineError::TooLong`], once for each over-long line, when its end has been seen.
    pub fn next_line<'a, 'b: 'a>(
        &'a mut self,
        input: &mut &'b [u8],
    ) -> Option<Result<&'a [u8], LineError>> {
        if self.state == State::HandedOut {
            self.partial = Vec::new();
            self.state = State::Collecting;
        }
        if self.is_at_line_start()
            && let Some(end) = memchr2(LF, IAC, input)
            && input[end] == LF
        {
            let line = without_cr(&input[..end]);
            *input = &input[end + 1..];
            return Some(match line.len() <= self.line_length_max {
                true => Ok(line),
                false => Err(LineError::TooLong),
            });
        }
        while let Some(&byte) = input.first() {
            match self.telnet {
                Telnet::Text => {
                    let ended = self.text(input);
                    if ended {
                        return Some(self.line_ended());
                    }
                }
                Telnet::Command if byte < SE => {
                    // No Telnet command has such a number: the client does not double the 0xFF
                    // bytes of its names. The byte itself may be a line end.
                    self.push(&[IAC]);
                    self.telnet = Telnet::Text;
                }
                _ => {
                    self.telnet = self.after(byte);
                    *input = &input[1..];
                }
            }
        }
        None
    }

    /// Takes the answers to Telnet negotiations, which are to be sent before the next reply.
    pub fn take_telnet_answers(&mut self) -> Option<Vec<u8>> {
        match self.answers.is_empty() {
            true => None,
            false => Some(mem::take(&mut self.answers)),
        }
    }

    fn is_at_line_start(&self) -> bool {
        self.state == State::Collecting && self.partial.is_empty() && self.telnet == Telnet::Text
    }

    /// Takes text up to and with the next line end or IAC; whether it was a line end.
    fn text(&mut self, input: &mut &[u8]) -> bool {
        let end = memchr2(LF, IAC, input);
        let (text, rest) = input.split_at(end.unwrap_or(input.len()));
        self.push(text);
        *input = rest.get(1..).unwrap_or_default();
        match rest.first() {
            Some(&LF) => true,
            Some(_) => {
                self.telnet = Telnet::Command;
                false
            }
            None => false,
        }
    }

    /// Adds text to the line, or finds that it is too long now.
    fn push(&mut self, text: &[u8]) {
        if self.state == State::Skipping {
            return;
        }
        // One byte more than a line may have: it may be the CR of the line end.
        let length = self.partial.len() + text.len();
        let allowed = self.line_length_max + 1;
        let last = text.last().or_else(|| self.partial.last());
        if length > allowed || (length == allowed && last != Some(&CR)) {
            self.partial = Vec::new();
            self.state = State::Skipping;
        } else {
            self.partial.extend_from_slice(text);
        }
    }

    fn line_ended(&mut self) -> Result<&[u8], LineError> {
        if self.state == State::Skipping {
            self.state = State::Collecting;
            return Err(LineError::TooLong);
        }
        self.state = State::HandedOut;
        Ok(without_cr(&self.partial))
    }

    /// What comes after `byte` in a Telnet sequence.
    fn after(&mut self, byte: u8) -> Telnet {
        match (self.telnet, byte) {
            (Telnet::Text, _) => Telnet::Text,
            (Telnet::Command, IAC) => {
                self.push(&[IAC]);
                Telnet::Text
            }
            (Telnet::Command, WILL | WONT | DO | DONT) => Telnet::Option(byte),
            (Telnet::Command, SB) => Telnet::Subnegotiation(0),
            // IP and DM of a Synch (RFC 959 §4.1.3, ABOR), and all others without an operand.
            (Telnet::Command, _) => Telnet::Text,
            (Telnet::Option(verb), option) => {
                self.refuse(verb, option);
                Telnet::Text
            }
            (Telnet::Subnegotiation(length), IAC) => Telnet::SubnegotiationCommand(length),
            (Telnet::SubnegotiationCommand(_), SE) => Telnet::Text,
            (Telnet::Subnegotiation(length) | Telnet::SubnegotiationCommand(length), _) => {
                if length < SUBNEGOTIATION_LENGTH_MAX {
                    return Telnet::Subnegotiation(length + 1);
                }
                // No subnegotiation at all, it seems; the line in which it stands is refused.
                self.partial = Vec::new();
                self.state = State::Skipping;
                Telnet::Text
            }
        }
    }

    /// RFC 854: WILL is refused by DONT, DO by WONT; WONT and DONT name what is so already and get
    /// no answer, lest two peers answer each other for ever.
    fn refuse(&mut self, verb: u8, option: u8) {
        let refusal = match verb {
            WILL => DONT,
            DO => WONT,
            _ => return,
        };
        if self.answers.len() < ANSWERS_LENGTH_MAX {
            self.answers.extend_from_slice(&[IAC, refusal, option]);
        }
    }
}

fn without_cr(line: &[u8]) -> &[u8] {
    line.strip_suffix(&[CR]).unwrap_or(line)
}

/// A subnegotiation is an option and its few parameters; the largest in use, environment variables
/// (RFC 1572), are never agreed to here.
const SUBNEGOTIATION_LENGTH_MAX: u16 = 512;

/// Answers that wait to be sent: sixteen of three bytes. A client that asks for more options
/// between two replies gets no answer to them, which RFC 854 treats as a refusal yet to come.
const ANSWERS_LENGTH_MAX: usize = 16 * 3;

const LF: u8 = b'\n';
const CR: u8 = b'\r';

// RFC 854, "TELNET COMMAND" codes.
const SE: u8 = 240;
const SB: u8 = 250;
const WILL: u8 = 251;
const WONT: u8 = 252;
const DO: u8 = 253;
const DONT: u8 = 254;
const IAC: u8 = 255;

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::{ANSWERS_LENGTH_MAX, LineDecoder, LineError, SUBNEGOTIATION_LENGTH_MAX};

    type Line = Result<Vec<u8>, LineError>;

    /// The lines of bytes that come in these packets.
    fn lines(decoder: &mut LineDecoder, packets: &[&[u8]]) -> Vec<Line> {
        let mut lines = Vec::new();
        for packet in packets {
            let mut rest = *packet;
            while let Some(line) = decoder.next_line(&mut rest) {
                lines.push(line.map(<[u8]>::to_vec));
            }
            assert!(rest.is_empty(), "input is left");
        }
        lines
    }

    fn ok(line: &[u8]) -> Line {
        Ok(line.to_vec())
    }

    #[test]
    fn lines_end_as_rfc_959_section_5_3_and_rfc_1123_section_4_1_2_10_say() {
        type Packets = &'static [&'static [u8]];
        let cases: [(Packets, Packets); 12] = [
            (&[b"NOOP\r\n"], &[b"NOOP"]),
            // RFC 1123 §4.1.2.10: reads and line ends have nothing to do with each other.
            (&[b"NO", b"OP\r\n"], &[b"NOOP"]),
            (&[b"NOOP\r", b"\nPWD\r\n"], &[b"NOOP", b"PWD"]),
            (&[b"NOOP", b"\r", b"\n"], &[b"NOOP"]),
            (
                &[b"NOOP\r\nPWD\r\nQU", b"IT\r\n"],
                &[b"NOOP", b"PWD", b"QUIT"],
            ),
            // Clients with a bare LF (netcat, scripts).
            (&[b"NOOP\nPWD\n"], &[b"NOOP", b"PWD"]),
            (&[b"\r\n\n\r\n"], &[b"", b"", b""]),
            // One CR belongs to the line end, a bare CR to the line (RFC 854: CR NUL).
            (&[b"A\r\r\n"], &[b"A\r"]),
            (&[b"A\rB\r\n"], &[b"A\rB"]),
            (&[b"A\r\0B\r\n"], &[b"A\r\0B"]),
            (&[b"DELE keep\0x\r\n"], &[b"DELE keep\0x"]),
            (&[b"NOOP\r"], &[]),
        ];
        for (packets, expected) in cases {
            let found = lines(&mut LineDecoder::new(64), packets);
            let expected: Vec<Line> = expected.iter().map(|line| ok(line)).collect();
            assert_eq!(found, expected, "{packets:?}");
        }
    }

    #[test]
    fn telnet_sequences_are_taken_out() {
        type Bytes = &'static [u8];
        let cases: [(Bytes, Bytes, Option<Bytes>); 15] = [
            // RFC 959 §4.1.3, ABOR: IAC IP, IAC DM (the Synch), then the command.
            (b"\xff\xf4\xff\xf2ABOR\r\n", b"ABOR", None),
            (b"AB\xff\xf1OR\r\n", b"ABOR", None),
            (b"ABOR\r\xff\xf1\n", b"ABOR", None),
            // RFC 854: IAC IAC is the byte 255.
            (b"RETR \xff\xff\r\n", b"RETR \xff", None),
            (b"RETR \xff\xff\xff\xff\r\n", b"RETR \xff\xff", None),
            // RFC 1123 §4.1.2.12: negotiations are refused; DO by WONT, WILL by DONT.
            (b"\xff\xfd\x06NOOP\r\n", b"NOOP", Some(b"\xff\xfc\x06")),
            (b"\xff\xfb\x01NOOP\r\n", b"NOOP", Some(b"\xff\xfe\x01")),
            (b"\xff\xfb\nNOOP\r\n", b"NOOP", Some(b"\xff\xfe\n")),
            (b"\xff\xfd\xffNOOP\r\n", b"NOOP", Some(b"\xff\xfc\xff")),
            // RFC 854: what is off already gets no answer.
            (b"\xff\xfc\x06\xff\xfe\x01NOOP\r\n", b"NOOP", None),
            // RFC 855: a subnegotiation ends with IAC SE; it may hold any byte.
            (b"\xff\xfa\x18\x00A\nB\xff\xf0NOOP\r\n", b"NOOP", None),
            (b"\xff\xfa\x1f\xff\xff\xff\xf0NOOP\r\n", b"NOOP", None),
            (b"\xff\xfa\xff\xf0NOOP\r\n", b"NOOP", None),
            // Clients that do not double the byte 255 of a name in ISO 8859-1.
            (b"RETR \xff.txt\r\n", b"RETR \xff.txt", None),
            (b"RETR \xff\n", b"RETR \xff", None),
        ];
        for (input, line, answers) in cases {
            let mut whole = LineDecoder::new(64);
            assert_eq!(lines(&mut whole, &[input]), [ok(line)], "{input:?}");
            assert_eq!(whole.take_telnet_answers().as_deref(), answers, "{input:?}");
            assert_eq!(whole.take_telnet_answers(), None);

            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            let mut byte_by_byte = LineDecoder::new(64);
            assert_eq!(lines(&mut byte_by_byte, &bytes), [ok(line)], "{input:?}");
            assert_eq!(
                byte_by_byte.take_telnet_answers().as_deref(),
                answers,
                "{input:?}"
            );
        }
    }

    #[test]
    fn an_over_long_line_is_reported_once_and_the_next_is_whole() {
        for (input, expected) in [
            (
                &b"12345678\r\nNOOP\r\n"[..],
                vec![ok(b"12345678"), ok(b"NOOP")],
            ),
            (b"12345678\nNOOP\n", vec![ok(b"12345678"), ok(b"NOOP")]),
            (
                b"123456789\r\nNOOP\r\n",
                vec![Err(LineError::TooLong), ok(b"NOOP")],
            ),
            (
                b"123456789\nNOOP\n",
                vec![Err(LineError::TooLong), ok(b"NOOP")],
            ),
            (
                b"12345678\r\r\nNOOP\n",
                vec![Err(LineError::TooLong), ok(b"NOOP")],
            ),
            (
                b"12345678\r9\r\nNOOP\n",
                vec![Err(LineError::TooLong), ok(b"NOOP")],
            ),
            // What is doubled or taken out is not counted.
            (b"1234567\xff\xff\r\n", vec![ok(b"1234567\xff")]),
            (b"\xff\xf112345678\xff\xf1\r\n", vec![ok(b"12345678")]),
            (
                b"12345678\xff\xff\r\nNOOP\n",
                vec![Err(LineError::TooLong), ok(b"NOOP")],
            ),
            (
                b"123456789\xff\xfa\n\xff\xf0\nNOOP\n",
                vec![Err(LineError::TooLong), ok(b"NOOP")],
            ),
        ] {
            assert_eq!(
                lines(&mut LineDecoder::new(8), &[input]),
                expected,
                "{input:?}"
            );
            let bytes: Vec<&[u8]> = input.chunks(1).collect();
            assert_eq!(
                lines(&mut LineDecoder::new(8), &bytes),
                expected,
                "{input:?}"
            );
        }
    }

    #[test]
    fn a_line_without_end_takes_no_memory() {
        let mut decoder = LineDecoder::new(512);
        for _ in 0..1000 {
            assert_eq!(lines(&mut decoder, &[&[b'x'; 300]]), []);
            assert!(decoder.partial.capacity() <= 1024);
        }
        assert_eq!(decoder.partial.capacity(), 0);
    }

    #[test]
    fn nothing_is_held_between_lines() {
        let mut decoder = LineDecoder::new(512);
        assert_eq!(lines(&mut decoder, &[b"RETR ", b"a\r\n"]), [ok(b"RETR a")]);
        assert_eq!(decoder.partial.capacity(), 0);
        assert_eq!(lines(&mut decoder, &[b"RETR a\r\n"]), [ok(b"RETR a")]);
        assert_eq!(decoder.partial.capacity(), 0);
    }

    #[test]
    fn telnet_answers_are_bounded() {
        let mut decoder = LineDecoder::new(512);
        assert_eq!(lines(&mut decoder, &[&b"\xff\xfd\x01".repeat(10_000)]), []);
        let answers = decoder.take_telnet_answers().expect("answers");
        assert_eq!(answers, b"\xff\xfc\x01".repeat(ANSWERS_LENGTH_MAX / 3));
    }

    #[test]
    fn a_subnegotiation_without_end_costs_its_line_alone() {
        let mut input = b"\xff\xfa".to_vec();
        input.resize(
            input.len() + usize::from(SUBNEGOTIATION_LENGTH_MAX) + 1,
            b'x',
        );
        input.extend_from_slice(b"\r\nNOOP\r\n");
        let found = lines(&mut LineDecoder::new(512), &[&input]);
        assert_eq!(found, [Err(LineError::TooLong), ok(b"NOOP")]);
    }

    /// Bytes as a client, a broken client and an attacker would send them.
    fn input() -> impl Strategy<Value = Vec<u8>> {
        let byte = prop_oneof![
            4 => b'A'..=b'Z',
            2 => Just(b'\n'),
            2 => Just(b'\r'),
            2 => Just(255u8),
            2 => 240u8..=254,
            1 => any::<u8>(),
        ];
        prop::collection::vec(byte, 0..200)
    }

    proptest! {
        #[test]
        fn packets_make_no_difference(
            input in input(),
            cuts in prop::collection::vec(0usize..200, 0..20),
            length_max in 0usize..40,
        ) {
            let mut whole = LineDecoder::new(length_max);
            let expected = lines(&mut whole, &[&input]);

            let mut cuts: Vec<usize> = cuts.into_iter().map(|cut| cut.min(input.len())).collect();
            cuts.extend([0, input.len()]);
            cuts.sort_unstable();
            let packets: Vec<&[u8]> = cuts.windows(2).map(|cut| &input[cut[0]..cut[1]]).collect();
            let mut cut = LineDecoder::new(length_max);
            prop_assert_eq!(lines(&mut cut, &packets), expected);
            prop_assert_eq!(cut.take_telnet_answers(), whole.take_telnet_answers());
            prop_assert_eq!(cut.partial, whole.partial);
            prop_assert_eq!(cut.telnet, whole.telnet);
        }

        #[test]
        fn text_is_what_stands_between_line_ends(
            input in prop::collection::vec(prop_oneof![Just(b'\n'), Just(b'\r'), 0u8..255], 0..200),
            length_max in 0usize..40,
        ) {
            let mut expected: Vec<Line> = input
                .split(|&byte| byte == b'\n')
                .map(|line| line.strip_suffix(b"\r").unwrap_or(line))
                .map(|line| match line.len() <= length_max {
                    true => ok(line),
                    false => Err(LineError::TooLong),
                })
                .collect();
            expected.pop();
            prop_assert_eq!(lines(&mut LineDecoder::new(length_max), &[&input]), expected);
        }

        #[test]
        fn no_line_is_longer_than_the_limit(input in input(), length_max in 0usize..40) {
            let mut decoder = LineDecoder::new(length_max);
            for packet in input.chunks(3) {
                for line in lines(&mut decoder, &[packet]).into_iter().flatten() {
                    prop_assert!(line.len() <= length_max);
                    prop_assert!(!line.contains(&b'\n'));
                }
                prop_assert!(decoder.partial.capacity() <= (2 * (length_max + 1)).max(8));
            }
        }
    }
}
