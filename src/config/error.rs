//! What is wrong with a configuration, told so that it can be mended without looking anything up.

use std::fmt;
use std::fs::File;
use std::io::{self, Read};
use std::ops::Range;
use std::path::Path;

/// One thing wrong with (or unwise about) one key.
#[derive(Clone, Debug, Eq, PartialEq)]
pub struct Problem {
    /// The key with its section, such as `data.passive_ports`; empty for a syntax error.
    pub key: String,
    /// What is wrong: a clause without a full stop.
    pub message: String,
    /// What to do about it.
    pub hint: Option<String>,
}

impl Problem {
    /// A problem with `key`.
    pub fn new(key: impl Into<String>, message: impl Into<String>) -> Self {
        Self {
            key: key.into(),
            message: message.into(),
            hint: None,
        }
    }

    /// The same problem with what to do about it.
    #[must_use]
    pub fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }
}

impl fmt::Display for Problem {
    /// One line, for a log; `{:#}` puts the hint on a line of its own, for a terminal.
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        if !self.key.is_empty() {
            write!(f, "{}: ", self.key)?;
        }
        f.write_str(&self.message)?;
        match &self.hint {
            Some(hint) if f.alternate() => write!(f, "\n  hint: {hint}"),
            Some(hint) => write!(f, "; {hint}"),
            None => Ok(()),
        }
    }
}

/// Why a configuration (or a users file) is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// The file could not be read.
    #[error("{path}: {source}{}", unreadable_hint(source))]
    Unreadable {
        /// The file.
        path: String,
        /// Why.
        #[source]
        source: io::Error,
    },
    /// The file says something it may not say; each part names line, column and key.
    #[error("{}", rendered.join("\n\n"))]
    Refused {
        /// One finished text per problem, in the order of the file.
        rendered: Vec<String>,
        /// The same problems as data.
        problems: Vec<Problem>,
    },
}

impl ConfigError {
    /// The problems as data; empty when the file could not be read at all.
    pub fn problems(&self) -> &[Problem] {
        match self {
            Self::Unreadable { .. } => &[],
            Self::Refused { problems, .. } => problems,
        }
    }
}

fn unreadable_hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::NotFound => "\n  hint: name another file with --config FILE",
        io::ErrorKind::PermissionDenied => "\n  hint: make it readable for the user that runs this",
        _ => "",
    }
}

/// Reads a configuration file, bounded.
pub(crate) fn read_text(path: &Path) -> Result<String, ConfigError> {
    let unreadable = |source| ConfigError::Unreadable {
        path: path.display().to_string(),
        source,
    };
    let mut bytes = Vec::new();
    let file = File::open(path).map_err(unreadable)?;
    file.take(FILE_LENGTH_MAX + 1)
        .read_to_end(&mut bytes)
        .map_err(unreadable)?;
    if bytes.len() as u64 > FILE_LENGTH_MAX {
        return Err(unreadable(io::Error::new(
            io::ErrorKind::FileTooLarge,
            format!(
                "larger than {} MiB, not a configuration",
                FILE_LENGTH_MAX >> 20
            ),
        )));
    }
    String::from_utf8(bytes).map_err(|error| {
        let line = 1 + error.as_bytes()[..error.utf8_error().valid_up_to()]
            .iter()
            .filter(|byte| **byte == b'\n')
            .count();
        unreadable(io::Error::new(
            io::ErrorKind::InvalidData,
            format!("line {line} is not UTF-8, as TOML must be"),
        ))
    })
}

/// How much of the text a refusal shows.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Shown {
    /// Line and column only, because the line may hold a secret.
    Place,
    /// The line too, with a caret.
    Line,
}

/// `problem` with its place: `name:line:column: key: message`, the line, a caret, the hint.
pub(super) fn render(
    name: &str,
    text: &str,
    shown: Shown,
    span: Option<Range<usize>>,
    problem: &Problem,
) -> String {
    let what = if problem.key.is_empty() {
        problem.message.clone()
    } else {
        format!("{}: {}", problem.key, problem.message)
    };
    let hint = problem.hint.as_ref();
    let Some(span) = span else {
        return match hint {
            Some(hint) => format!("{name}: {what}\n  hint: {hint}"),
            None => format!("{name}: {what}"),
        };
    };
    let place = Place::of(text, span);
    let number = place.line.to_string();
    let mut out = format!("{name}:{number}:{}: {what}", place.column);
    // An address may hold a password.
    if shown == Shown::Place || place.source.contains("://") && place.source.contains('@') {
        return match hint {
            Some(hint) => format!("{out}\n  hint: {hint}"),
            None => out,
        };
    }
    let gutter = " ".repeat(number.len());
    out.push('\n');
    out.push_str(&format!("{gutter} |\n{number} | {}\n", place.source));
    out.push_str(&format!(
        "{gutter} | {}{}",
        place.indent,
        "^".repeat(place.width)
    ));
    if let Some(hint) = hint {
        out.push_str(&format!("\n{gutter} = hint: {hint}"));
    }
    out
}

/// Where a span stands in a text.
struct Place {
    /// From 1.
    line: usize,
    /// From 1, in characters.
    column: usize,
    /// The line, with control characters made visible.
    source: String,
    /// What puts a caret under the column; tabs stay tabs so that it lines up.
    indent: String,
    /// How many carets.
    width: usize,
}

impl Place {
    fn of(text: &str, span: Range<usize>) -> Self {
        let start = floor(text, span.start);
        let end = floor(text, span.end).max(start);
        let line_start = text[..start].rfind('\n').map_or(0, |at| at + 1);
        let line_end = text[start..].find('\n').map_or(text.len(), |at| start + at);
        let line = text[line_start..line_end].trim_end_matches('\r');
        let before = &text[line_start..start];
        let marked = &text[start..end.min(line_start + line.len()).max(start)];
        Self {
            line: 1 + text[..line_start].matches('\n').count(),
            column: 1 + before.chars().count(),
            source: line.chars().map(visible).collect(),
            indent: before
                .chars()
                .map(|c| if c == '\t' { '\t' } else { ' ' })
                .collect(),
            width: marked.chars().count().max(1),
        }
    }
}

/// A file's control characters are not sent to the operator's terminal.
fn visible(c: char) -> char {
    if c.is_control() && c != '\t' {
        char::REPLACEMENT_CHARACTER
    } else {
        c
    }
}

/// `at`, moved back to a character boundary inside `text`.
fn floor(text: &str, at: usize) -> usize {
    (0..=at.min(text.len()))
        .rev()
        .find(|at| text.is_char_boundary(*at))
        .unwrap_or(0)
}

/// A configuration takes a few KiB; more is the wrong file.
const FILE_LENGTH_MAX: u64 = 1 << 20;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_problem_is_shown_with_line_column_caret_and_hint() {
        let text = "[limits]\nline_length = \"16 KiB\"\n";
        let problem = Problem::new("limits.line_length", "too much").hint("take less");
        assert_eq!(
            render("a.toml", text, Shown::Line, Some(23..31), &problem),
            "a.toml:2:15: limits.line_length: too much\n  |\n2 | line_length = \"16 KiB\"\n  \
             |               ^^^^^^^^\n  = hint: take less"
        );
    }

    #[test]
    fn a_secret_line_is_named_but_not_shown() {
        let problem = Problem::new("user.a.password", "not a hash");
        assert_eq!(
            render(
                "u.toml",
                "[user.a]\npassword = \"hunter2\"\n",
                Shown::Place,
                Some(20..29),
                &problem
            ),
            "u.toml:2:12: user.a.password: not a hash"
        );
    }

    #[test]
    fn places_survive_tabs_wide_characters_and_spans_outside_the_text() {
        for (text, span, line, column, width) in [
            ("\té = 1", 1..3, 1, 2, 1),
            ("\té = 1", 2..3, 1, 2, 1),
            ("a\r\nb\r\n", 3..9, 2, 1, 1),
            ("", 4..9, 1, 1, 1),
            ("a\n", 2..2, 2, 1, 1),
        ] {
            let place = Place::of(text, span.clone());
            assert_eq!(
                (place.line, place.column, place.width),
                (line, column, width),
                "{text:?} {span:?}"
            );
        }
    }
}
