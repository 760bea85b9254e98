//! Replies as bytes (RFC 959 §4.2).

/// The code and the length of the first reply in `bytes`; `None` while it is not complete.
///
/// # Errors
/// What is wrong with it.
pub(crate) fn parse(bytes: &[u8]) -> Result<Option<(u16, usize)>, &'static str> {
    let Some(mut end) = line_end(bytes) else {
        return Ok(None);
    };
    let first = &bytes[..end];
    if !first.ends_with(b"\r\n") {
        return Err("a line without CR");
    }
    let code = code(first).ok_or("a line without a code")?;
    match first[3] {
        b' ' | b'\r' => return Ok(Some((code, end))),
        b'-' => {}
        _ => return Err("neither a space nor a hyphen after the code"),
    }
    // The last line begins with the same code and a space; those between may be anything.
    loop {
        let rest = &bytes[end..];
        let Some(length) = line_end(rest) else {
            return Ok(None);
        };
        end += length;
        if rest[..3.min(length)] == first[..3] && rest[3] == b' ' {
            return Ok(Some((code, end)));
        }
    }
}

/// The port in a reply to EPSV (RFC 2428 §3).
pub(crate) fn epsv_port(text: &[u8]) -> Option<u16> {
    let inside = &text[text.iter().position(|byte| *byte == b'(')? + 1..];
    let delimiter = *inside.first()?;
    let mut parts = inside.split(|byte| *byte == delimiter);
    if !parts.by_ref().take(3).all(<[u8]>::is_empty) {
        return None;
    }
    number(parts.next()?)
}

/// Address and port in a reply to PASV (RFC 959 §4.1.2), as h1,h2,h3,h4,p1,p2.
pub(crate) fn pasv_address(text: &[u8]) -> Option<([u8; 4], u16)> {
    // RFC 1123 §4.1.2.6: there need not be parentheses.
    let numbers = text.get(4..)?;
    let start = numbers.iter().position(u8::is_ascii_digit)?;
    let numbers = &numbers[start..];
    let length = numbers
        .iter()
        .position(|byte| !byte.is_ascii_digit() && *byte != b',')
        .unwrap_or(numbers.len());
    let mut fields = numbers[..length].split(|byte| *byte == b',');
    let mut found = [0; 6];
    for place in &mut found {
        *place = u8::try_from(number(fields.next()?)?).ok()?;
    }
    let [a, b, c, d, high, low] = found;
    let complete = fields.next().is_none();
    complete.then_some(([a, b, c, d], u16::from_be_bytes([high, low])))
}

fn number(digits: &[u8]) -> Option<u16> {
    std::str::from_utf8(digits).ok()?.parse().ok()
}

fn line_end(bytes: &[u8]) -> Option<usize> {
    memchr::memchr(b'\n', bytes).map(|at| at + 1)
}

fn code(line: &[u8]) -> Option<u16> {
    let digits = line.get(..3).filter(|digits| {
        (b'1'..=b'5').contains(&digits[0]) && digits.iter().all(u8::is_ascii_digit)
    })?;
    number(digits)
}
