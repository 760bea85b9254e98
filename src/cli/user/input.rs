//! What people type: passwords, and keys with values.

use std::io::{self, BufRead, IsTerminal};

use toml::Value;

use crate::auth::store::Change;
use crate::auth::{StoredHash, UserName, value_of};
use crate::cli::Failure;

/// `KEY=VALUE`, or `KEY=` to take a key away.
pub(super) fn parse_setting(text: &str) -> Result<Change, String> {
    let Some((key, value)) = text.split_once('=') else {
        return Err("not KEY=VALUE".to_owned());
    };
    match (key.trim(), value.trim()) {
        ("password", _) => Err("a password is set by `ringftpd user passwd`".to_owned()),
        ("", _) => Err("not KEY=VALUE".to_owned()),
        (key, "") => Ok((key.to_owned(), None)),
        (key, value) => Ok((key.to_owned(), Some(value_of(key, value)))),
    }
}

/// Asks twice on a terminal, or takes one line from standard input, and hashes.
pub(super) fn read_password(name: &UserName, password_stdin: bool) -> Result<Value, Failure> {
    let password = if password_stdin || !io::stdin().is_terminal() {
        one_line(io::stdin().lock())
    } else {
        asked_twice(name)
    };
    let password = password.map_err(|error| {
        Failure::operating(&io::Error::new(
            error.kind(),
            format!("no password: {error}"),
        ))
    })?;
    match StoredHash::create(&password) {
        Ok(hash) => Ok(Value::String(hash.into_text())),
        Err(error) => Err(Failure::usage(format!("ringftpd: {error}"))),
    }
}

fn asked_twice(name: &UserName) -> io::Result<Vec<u8>> {
    let first = rpassword::prompt_password(format!("Password for {name}: "))?;
    let second = rpassword::prompt_password("Once more: ")?;
    if first == second {
        Ok(first.into_bytes())
    } else {
        Err(io::Error::new(
            io::ErrorKind::InvalidInput,
            "the two differ",
        ))
    }
}

/// The first line, without its end.
fn one_line(input: impl BufRead) -> io::Result<Vec<u8>> {
    let mut line = Vec::new();
    input.take(STDIN_LINE_MAX).read_until(b'\n', &mut line)?;
    if line.last() == Some(&b'\n') {
        line.pop();
    }
    if line.last() == Some(&b'\r') {
        line.pop();
    }
    Ok(line)
}

/// More than the longest password, so that too long ones are refused instead of cut.
const STDIN_LINE_MAX: u64 = 4096;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_password_from_standard_input_is_one_line_without_its_end() {
        for (input, password) in [
            (&b"secret\n"[..], &b"secret"[..]),
            (b"secret\r\n", b"secret"),
            (b"secret", b"secret"),
            (b" two words \nmore\n", b" two words "),
            (b"\n", b""),
            (b"", b""),
        ] {
            assert_eq!(one_line(input).expect("read"), password);
        }
    }
}
