//! Replies and their form on the control connection (RFC 959 §4.2).

use std::borrow::Cow;

/// A reply code: three digits, named by what it means here.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub struct Code(u16);

impl Code {
    /// 150: the transfer begins.
    pub const FILE_STATUS_OK: Self = Self(150);
    /// 200: done.
    pub const COMMAND_OK: Self = Self(200);
    /// 202: nothing had to be done.
    pub const SUPERFLUOUS: Self = Self(202);
    /// 211: the state of the server, or FEAT's list.
    pub const SYSTEM_STATUS: Self = Self(211);
    /// 213: the state of a file.
    pub const FILE_STATUS: Self = Self(213);
    /// 214: help.
    pub const HELP: Self = Self(214);
    /// 215: what system this is.
    pub const SYSTEM_TYPE: Self = Self(215);
    /// 220: ready for a user.
    pub const READY: Self = Self(220);
    /// 221: the control connection is closed as asked.
    pub const GOODBYE: Self = Self(221);
    /// 226: the transfer, or ABOR, is complete.
    pub const CLOSING_DATA: Self = Self(226);
    /// 227: a passive port.
    pub const PASSIVE: Self = Self(227);
    /// 229: a passive port, extended (RFC 2428 §3).
    pub const EXTENDED_PASSIVE: Self = Self(229);
    /// 230: logged in.
    pub const LOGGED_IN: Self = Self(230);
    /// 232: logged in by what TLS has proved (RFC 2228 §3).
    pub const AUTHORIZED: Self = Self(232);
    /// 234: the handshake may begin (RFC 2228 §3).
    pub const PROCEED: Self = Self(234);
    /// 250: done with a file.
    pub const FILE_ACTION_OK: Self = Self(250);
    /// 257: a path.
    pub const PATHNAME: Self = Self(257);
    /// 331: the password is needed.
    pub const NEED_PASSWORD: Self = Self(331);
    /// 350: another command is needed.
    pub const NEED_MORE: Self = Self(350);
    /// 421: the control connection is closed by the server.
    pub const CLOSING: Self = Self(421);
    /// 425: no data connection.
    pub const NO_DATA_CONNECTION: Self = Self(425);
    /// 426: the transfer broke off.
    pub const TRANSFER_ABORTED: Self = Self(426);
    /// 450: not now: busy.
    pub const FILE_BUSY: Self = Self(450);
    /// 451: the server's fault.
    pub const LOCAL_ERROR: Self = Self(451);
    /// 452: no room left.
    pub const STORAGE_FULL: Self = Self(452);
    /// 500: no such command.
    pub const SYNTAX_ERROR: Self = Self(500);
    /// 501: an argument is wrong.
    pub const BAD_ARGUMENT: Self = Self(501);
    /// 502: known, but not offered.
    pub const NOT_IMPLEMENTED: Self = Self(502);
    /// 503: not at this point.
    pub const BAD_SEQUENCE: Self = Self(503);
    /// 504: not with this parameter.
    pub const BAD_PARAMETER: Self = Self(504);
    /// 521: not at this protection level of the data connection (RFC 4217 §10.1).
    pub const UNPROTECTED: Self = Self(521);
    /// 522: not with this network protocol (RFC 2428 §2).
    pub const BAD_NETWORK_PROTOCOL: Self = Self(522);
    /// 522: the data connection's handshake failed, or its outcome is not acceptable (RFC 4217 §10.1).
    pub const NEGOTIATION_FAILED: Self = Self(522);
    /// 530: not logged in.
    pub const NOT_LOGGED_IN: Self = Self(530);
    /// 534: the operator does not want that (RFC 2228 §3).
    pub const POLICY: Self = Self(534);
    /// 536: the mechanism does not have this protection level (RFC 2228 §3).
    pub const NO_SUCH_LEVEL: Self = Self(536);
    /// 550: not with this file.
    pub const UNAVAILABLE: Self = Self(550);
    /// 552: more than may be stored.
    pub const STORAGE_EXCEEDED: Self = Self(552);
    /// 553: not under this name.
    pub const NAME_NOT_ALLOWED: Self = Self(553);
    /// 554: not from this restart point (RFC 3659 §5.4).
    pub const INVALID_REST: Self = Self(554);

    /// The number.
    pub const fn number(self) -> u16 {
        self.0
    }
}

/// One reply. Whatever its text holds, on the wire it is exactly one reply: control bytes are
/// written as `?`.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Reply {
    code: Code,
    body: Option<Body>,
    text: Cow<'static, [u8]>,
}

/// What stands before the last line of a reply of several lines.
#[derive(Clone, Debug, Eq, PartialEq)]
struct Body {
    first: &'static str,
    lines: Vec<Vec<u8>>,
}

impl Reply {
    /// A line with a text that is known beforehand.
    pub const fn new(code: Code, text: &'static str) -> Self {
        Self {
            code,
            body: None,
            text: Cow::Borrowed(text.as_bytes()),
        }
    }

    /// A line with a text made for it.
    pub fn text(code: Code, text: impl Into<Vec<u8>>) -> Self {
        Self {
            code,
            body: None,
            text: Cow::Owned(text.into()),
        }
    }

    /// Several lines. Each line of the body is written behind one space, so that none can look like
    /// the last line (RFC 959 §4.2), and as FEAT and MLST want it (RFC 2389 §3.2, RFC 3659 §7.2).
    pub fn lines(code: Code, first: &'static str, body: Vec<Vec<u8>>, last: &'static str) -> Self {
        Self {
            code,
            body: Some(Body { first, lines: body }),
            text: Cow::Borrowed(last.as_bytes()),
        }
    }

    /// The same text under another code.
    #[must_use]
    pub fn with_code(self, code: Code) -> Self {
        Self { code, ..self }
    }

    /// The code.
    pub fn code(&self) -> Code {
        self.code
    }

    /// Appends the reply as it goes over the control connection.
    pub fn encode(&self, out: &mut Vec<u8>) {
        if let Some(Body { first, lines }) = &self.body {
            write_line(out, self.code, b'-', first.as_bytes());
            for line in lines {
                out.push(b' ');
                write_text(out, line);
                out.extend_from_slice(b"\r\n");
            }
        }
        write_line(out, self.code, b' ', &self.text);
    }
}

/// A path in quotes, quotes in it doubled (RFC 959 Appendix II, 257).
pub fn quoted(path: &[u8]) -> Vec<u8> {
    let mut text = Vec::with_capacity(path.len() + 2);
    text.push(b'"');
    for &byte in path {
        if byte == b'"' {
            text.push(b'"');
        }
        text.push(byte);
    }
    text.push(b'"');
    text
}

fn write_line(out: &mut Vec<u8>, code: Code, separator: u8, text: &[u8]) {
    let number = code.0;
    let digit = |value: u16| b'0' + (value % 10) as u8;
    out.extend_from_slice(&[
        digit(number / 100),
        digit(number / 10),
        digit(number),
        separator,
    ]);
    write_text(out, text);
    out.extend_from_slice(b"\r\n");
}

/// A line end in a text would begin a reply of its own; other control bytes could drive a terminal.
fn write_text(out: &mut Vec<u8>, text: &[u8]) {
    if text.iter().any(u8::is_ascii_control) {
        out.extend(
            text.iter()
                .map(|&byte| if byte.is_ascii_control() { b'?' } else { byte }),
        );
    } else {
        out.extend_from_slice(text);
    }
}

#[cfg(test)]
mod tests {
    use super::{Code, Reply, quoted};

    fn encoded(reply: &Reply) -> String {
        let mut out = Vec::new();
        reply.encode(&mut out);
        String::from_utf8_lossy(&out).into_owned()
    }

    #[test]
    fn replies_have_the_form_of_rfc_959_section_4_2() {
        for (reply, wire) in [
            (Reply::new(Code::COMMAND_OK, "NOOP ok."), "200 NOOP ok.\r\n"),
            (Reply::text(Code::FILE_STATUS, "42"), "213 42\r\n"),
            (Reply::new(Code::COMMAND_OK, ""), "200 \r\n"),
            (
                Reply::lines(
                    Code::SYSTEM_STATUS,
                    "Features:",
                    vec![b"SIZE".to_vec(), b"211 not the end".to_vec()],
                    "End",
                ),
                "211-Features:\r\n SIZE\r\n 211 not the end\r\n211 End\r\n",
            ),
        ] {
            assert_eq!(encoded(&reply), wire);
        }
    }

    #[test]
    fn a_name_cannot_inject_a_reply() {
        let name = b"a\r\n226 forged\r\n\0\x1b".to_vec();
        let text = Reply::text(Code::UNAVAILABLE, name.clone());
        assert_eq!(encoded(&text), "550 a??226 forged????\r\n");
        let lines = Reply::lines(Code::FILE_ACTION_OK, "Listing:", vec![name], "End");
        assert_eq!(encoded(&lines).matches("\r\n").count(), 3);
    }

    #[test]
    fn quotes_are_doubled_in_257() {
        assert_eq!(quoted(b"/a \"b\""), b"\"/a \"\"b\"\"\"");
        assert_eq!(quoted(b""), b"\"\"");
    }
}
