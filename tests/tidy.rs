//! Keeps the structure: who may import whom, where `unsafe` lives, how long things get, what is
//! not written at all, and that what the code offers is documented.

use std::collections::BTreeSet;
use std::fs;
use std::path::{Path, PathBuf};

use ringftpd::config;
use ringftpd::proto::command::Verb;

/// Who may import whom. Arrows point down only; see ARCHITECTURE.md.
const IMPORTS: &[(&str, &[&str])] = &[
    ("proto", &[]),
    ("session", &["proto"]),
    ("sys", &[]),
    ("uring", &["sys"]),
    ("telemetry", &[]),
    // Values of the protocol that an operator sets, such as Rights.
    ("config", &["proto"]),
    ("auth", &["config", "proto", "sys"]),
    ("quota", &["config", "proto", "sys"]),
    ("throttle", &["config", "proto", "quota"]),
    ("tls", &["config"]),
    ("storage", &["config", "proto", "quota", "sys", "uring"]),
    ("data", &["config", "proto", "sys", "uring"]),
    (
        "transfer",
        &[
            "config", "data", "proto", "quota", "storage", "sys", "throttle", "tls", "uring",
        ],
    ),
    (
        "control",
        &[
            "auth", "config", "data", "proto", "quota", "session", "storage", "sys", "throttle",
            "tls", "transfer", "uring",
        ],
    ),
    // The server makes what the cores own, so it names their types; it runs no protocol.
    (
        "server",
        &[
            "auth",
            "config",
            "control",
            "data",
            "proto",
            "quota",
            "session",
            "storage",
            "sys",
            "telemetry",
            "throttle",
            "tls",
            "transfer",
            "uring",
        ],
    ),
    (
        "cli",
        &[
            "auth",
            "config",
            "data",
            "proto",
            "server",
            "telemetry",
            "tls",
        ],
    ),
    ("main", &["cli"]),
];

/// Text, the modules that may have it (all others may not), and what to write instead.
const RESERVED: &[(&str, &[&str], &str)] = &[
    (
        "unsafe",
        &["sys", "uring"],
        "a safe function of sys or uring",
    ),
    ("libc::", &["sys", "uring"], "a function of sys"),
    (
        "nix::",
        &["auth", "cli", "quota", "sys", "telemetry", "uring"],
        "a function of sys",
    ),
    ("socket2::", &["sys", "uring"], "sys::socket"),
    ("io_uring::", &["uring"], "a function of uring"),
    ("tokio_uring::", &["uring"], "a function of uring"),
    // A loop of yield_now never submits: tokio's park_yield skips the hook that flushes entries.
    ("yield_now", &[], "uring::pause"),
    // A dropped operation of these swallows a client or leaks a descriptor.
    ("net::TcpListener", &["sys"], "uring::accept"),
    (
        "fs::File::open",
        &["auth", "config", "quota", "sys"],
        "uring::open",
    ),
    ("tokio::spawn", &[], "uring::spawn"),
    (
        "std::fs",
        // The islands read /proc at the start, the server keeps a spare descriptor, quotas keep
        // their ledgers (on a worker), certificates are loaded by the supervisor.
        &[
            "auth", "cli", "config", "quota", "server", "sys", "tls", "uring",
        ],
        "storage, or sys on a worker",
    ),
    (
        "thread::sleep",
        &["auth", "cli", "sys"],
        "tokio::time::sleep",
    ),
    ("println!", &[], "tracing, or cli::print"),
    ("eprintln!", &[], "tracing"),
    ("process::exit", &[], "an ExitCode, so that destructors run"),
    ("todo!", &[], "the code"),
    ("unimplemented!", &[], "the code"),
    ("dbg!", &[], "tracing::debug!"),
    (".unwrap()", &[], "an error, or expect() with the invariant"),
];

/// Text that modules without I/O and clock must not have.
const IMPURE: &[&str] = &[
    "std::io",
    "std::fs",
    "std::os",
    "std::thread",
    "std::env",
    "std::process",
    "std::net::Tcp",
    "Instant::now",
    "SystemTime",
    "tokio",
    "tracing",
    "async fn",
    ".await",
];

/// What is not written, not even in a comment.
const MARKS: &[&str] = &["FIXME", "TODO", "XXX", "HACK"];

const FILE_LINES_MAX: usize = 700;
const FUNCTION_LINES_MAX: usize = 70;
const FOLDER_DEPTH_MAX: usize = 2;

#[test]
fn modules_import_only_what_is_below_them() {
    let mut wrong = Vec::new();
    for source in sources() {
        let Some((_, allowed)) = IMPORTS.iter().find(|(module, _)| *module == source.module) else {
            // lib.rs declares the modules.
            if source.module != "lib" {
                wrong.push(format!("{}: module unknown to IMPORTS", source.name));
            }
            continue;
        };
        for (line, import) in imports(&source.code) {
            if import != source.module && !allowed.contains(&import.as_str()) {
                wrong.push(format!("{}:{line}: may not import {import}", source.name));
            }
        }
    }
    verdict(wrong);
}

#[test]
fn some_things_are_written_in_their_places_only() {
    let mut wrong = Vec::new();
    for source in sources() {
        for (text, places, instead) in RESERVED {
            if places.contains(&source.module.as_str()) {
                continue;
            }
            for line in lines_with(&source.code, text) {
                // The lint that lib.rs relaxes for the islands is called so.
                if !source.code_line(line).contains("unsafe_code") {
                    wrong.push(format!("{}:{line}: {text}: use {instead}", source.name));
                }
            }
        }
        if ["proto", "session"].contains(&source.module.as_str()) {
            for text in IMPURE {
                for line in lines_with(&source.code, text) {
                    wrong.push(format!("{}:{line}: {text} in a pure module", source.name));
                }
            }
        }
    }
    verdict(wrong);
}

#[test]
fn nothing_is_left_for_later() {
    let mut wrong = Vec::new();
    for source in sources().into_iter().chain(programs_beside()) {
        for mark in MARKS {
            for line in lines_with(&source.text, mark) {
                wrong.push(format!("{}:{line}: {mark}", source.name));
            }
        }
    }
    verdict(wrong);
}

#[test]
fn every_unsafe_says_why_it_is_safe() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for (index, code) in source.code.lines().enumerate() {
            // An unsafe function states its duties in its documentation, an extern block has none.
            let blocks = ["unsafe {", "unsafe impl"]
                .iter()
                .any(|text| code.contains(text));
            let first = index.saturating_sub(SAFETY_LINES_MAX);
            if blocks
                && !lines[first..=index]
                    .iter()
                    .any(|line| line.contains("SAFETY:"))
            {
                wrong.push(format!("{}:{}: no SAFETY comment", source.name, index + 1));
            }
        }
    }
    verdict(wrong);
}

#[test]
fn every_expect_outside_tests_states_its_invariant() {
    let mut wrong = Vec::new();
    for source in sources() {
        let lines: Vec<&str> = source.text.lines().collect();
        for line in lines_with(&source.code, ".expect(") {
            let first = (line - 1).saturating_sub(INVARIANT_LINES_MAX);
            if !lines[first..line].iter().any(|line| line.contains("//")) {
                wrong.push(format!(
                    "{}:{line}: expect without a comment above",
                    source.name
                ));
            }
        }
    }
    verdict(wrong);
}

#[test]
fn files_and_functions_stay_short() {
    let mut wrong = Vec::new();
    for source in sources().into_iter().chain(programs_beside()) {
        let lines = source.text.lines().count();
        if lines > FILE_LINES_MAX {
            wrong.push(format!(
                "{}: {lines} lines, more than {FILE_LINES_MAX}",
                source.name
            ));
        }
        for (line, name, length) in functions(&source.code) {
            if length > FUNCTION_LINES_MAX {
                wrong.push(format!(
                    "{}:{line}: fn {name} has {length} lines",
                    source.name
                ));
            }
        }
        if source.name.matches('/').count() > FOLDER_DEPTH_MAX + 1 {
            wrong.push(format!("{}: too deep", source.name));
        }
        if !source.text.starts_with("//!") {
            wrong.push(format!(
                "{}: does not begin with what it is for (//!)",
                source.name
            ));
        }
    }
    verdict(wrong);
}

#[test]
fn every_file_is_part_of_the_program() {
    let mut wrong = Vec::new();
    let all = sources();
    for path in rust_files(&root().join("src")) {
        let file = path
            .file_stem()
            .and_then(|stem| stem.to_str())
            .expect("a UTF-8 name");
        let folder = path.parent().expect("a file is in a folder");
        let (declarer, module) = if file == "mod" {
            let module = folder
                .file_name()
                .and_then(|name| name.to_str())
                .expect("a UTF-8 name");
            (folder.parent().expect("below src").to_owned(), module)
        } else {
            (folder.to_owned(), file)
        };
        let is_test = folder.file_name().is_some_and(|name| name == "tests");
        if ["main", "lib"].contains(&module) || is_test {
            continue;
        }
        let declared = all.iter().any(|source| {
            let declares = source.path == declarer.join("mod.rs")
                || source.path == declarer.join("lib.rs")
                || source.path == declarer.with_extension("rs");
            declares
                && source
                    .text
                    .lines()
                    .any(|l| l.trim_end().ends_with(&format!("mod {module};")))
        });
        if !declared {
            wrong.push(format!("{}: no mod {module};", path.display()));
        }
    }
    verdict(wrong);
}

#[test]
fn every_configuration_key_is_documented() {
    let text =
        fs::read_to_string(root().join("config/ringftpd.toml")).expect("the documented file");
    let mut wrong = Vec::new();
    for (section, keys) in config::KEYS {
        // Sections that have names are shown as a comment.
        let named = format!("\n# [{section}.");
        let header = match text.contains(&named) {
            true => named,
            false => format!("\n[{section}]\n"),
        };
        let body = text.split(&header).nth(1).unwrap_or_default();
        let body = body.split("\n[").next().unwrap_or_default();
        for key in *keys {
            let set = |line: &str| {
                line.trim_start_matches("# ")
                    .split_once(" = ")
                    .is_some_and(|(name, _)| name == *key)
            };
            if !body.lines().any(set) {
                wrong.push(format!("config/ringftpd.toml: no {key} in [{section}]"));
            }
        }
    }
    verdict(wrong);
}

#[test]
fn every_command_is_in_the_table_of_the_readme() {
    let readme = fs::read_to_string(root().join("README.md")).expect("README.md");
    let named: BTreeSet<&str> = readme
        .lines()
        .filter(|line| line.starts_with('|'))
        .flat_map(|line| line.split(|c: char| !c.is_ascii_alphanumeric()))
        .collect();
    let wrong = Verb::ALL
        .iter()
        .filter(|verb| !named.contains(verb.name()))
        .map(|verb| format!("README.md: no {} in the table of commands", verb.name()));
    verdict(wrong.collect());
}

#[test]
fn the_checks_see_what_they_look_for() {
    let text = "fn a<'x>() { // unsafe {\n  let s = \"unsafe { \\\" }\"; let c = '{';\n}\n\
        use crate::{\n  proto::{a, b},\n  sys,\n};\nuse crate::uring;\n\
        #[cfg(test)]\nmod tests {\n  use crate::server;\n}\n";
    let code = code_of(text);
    assert!(lines_with(&code, "unsafe").is_empty(), "{code}");
    let found: Vec<String> = imports(&code).into_iter().map(|(_, name)| name).collect();
    assert_eq!(found, ["proto", "sys", "uring"]);
    assert_eq!(functions(&code), [(1, "a".to_owned(), 3)]);
    assert_eq!(code.lines().count(), text.lines().count());
    assert!(lines_with("let not_unsafe_at_all = 1;", "unsafe").is_empty());
    assert_eq!(lines_with("tokio_uring::x", "io_uring::"), [] as [usize; 0]);
    let raw = code_of("let a = r#\"unsafe \" { \"#; let b = b'\\''; let c = '\\\\'; fn f() {}\n");
    assert!(
        !raw.contains("unsafe") && raw.contains("fn f() {}"),
        "{raw}"
    );
}

/// One file of the program, or of one beside it.
struct Source {
    path: PathBuf,
    /// As messages call it.
    name: String,
    /// The module at the top: `proto`, `main`, …
    module: String,
    text: String,
    /// The text without comments, strings and tests; lines keep their numbers.
    code: String,
}

impl Source {
    fn code_line(&self, line: usize) -> &str {
        self.code.lines().nth(line - 1).unwrap_or_default()
    }
}

/// All files below src that are not tests.
fn sources() -> Vec<Source> {
    files_of("src")
}

/// All files of programs that are not installed.
fn programs_beside() -> Vec<Source> {
    ["benches", "examples"]
        .into_iter()
        .flat_map(files_of)
        .collect()
}

fn files_of(folder: &str) -> Vec<Source> {
    let top = root().join(folder);
    rust_files(&top)
        .into_iter()
        .filter(|path| !is_test(path))
        .map(|path| {
            let below = path.strip_prefix(&top).expect("a file below it");
            let module = below
                .iter()
                .next()
                .and_then(|part| part.to_str())
                .expect("UTF-8");
            let text = fs::read_to_string(&path).expect("a readable file");
            Source {
                name: format!("{folder}/{}", below.display()),
                module: module.trim_end_matches(".rs").to_owned(),
                code: code_of(&text),
                text,
                path,
            }
        })
        .collect()
}

/// Whether the file, or the folder it is in, is a module of tests: declared below #[cfg(test)].
fn is_test(path: &Path) -> bool {
    let name = |path: &Path| {
        path.file_stem()
            .and_then(|stem| stem.to_str())
            .map(str::to_owned)
    };
    let (Some(folder), Some(module)) = (path.parent(), name(path)) else {
        return false;
    };
    let declared = |folder: &Path, module: &str| {
        let declaration = format!("#[cfg(test)]\nmod {module};");
        [
            folder.join("mod.rs"),
            folder.join("lib.rs"),
            folder.with_extension("rs"),
        ]
        .iter()
        .any(|file| fs::read_to_string(file).is_ok_and(|text| text.contains(&declaration)))
    };
    let folder_is_test = folder
        .parent()
        .zip(name(folder))
        .is_some_and(|(f, m)| declared(f, &m));
    declared(folder, &module) || folder_is_test
}

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

fn rust_files(folder: &Path) -> Vec<PathBuf> {
    let mut files = Vec::new();
    for entry in fs::read_dir(folder).expect("a readable folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() {
            files.extend(rust_files(&path));
        } else if path.extension().is_some_and(|extension| extension == "rs") {
            files.push(path);
        }
    }
    files.sort();
    files
}

fn verdict(wrong: Vec<String>) {
    assert!(wrong.is_empty(), "\n{}\n", wrong.join("\n"));
}

/// The lines that have `text`, beginning at the beginning of a word.
fn lines_with(code: &str, text: &str) -> Vec<usize> {
    let word = |c: char| c.is_alphanumeric() || c == '_';
    let starts = text.starts_with(word);
    let ends = text.ends_with(word);
    let mut lines = Vec::new();
    for (index, line) in code.lines().enumerate() {
        let found = line.match_indices(text).any(|(at, _)| {
            let before = starts && line[..at].ends_with(word);
            let after = ends && line[at + text.len()..].starts_with(word);
            !before && !after
        });
        if found {
            lines.push(index + 1);
        }
    }
    lines
}

/// The modules of ours that code names, each with its line.
fn imports(code: &str) -> Vec<(usize, String)> {
    let mut found = Vec::new();
    for (at, prefix) in code
        .match_indices("crate::")
        .chain(code.match_indices("ringftpd::"))
    {
        let line = 1 + code[..at].matches('\n').count();
        let rest = &code[at + prefix.len()..];
        let Some(group) = rest.strip_prefix('{') else {
            found.push((line, first_word(rest)));
            continue;
        };
        let mut depth = 0;
        let mut start = 0;
        for (index, c) in group.char_indices() {
            match c {
                '{' => depth += 1,
                ',' | '}' if depth == 0 => {
                    let name = first_word(group[start..index].trim_start());
                    start = index + 1;
                    if !name.is_empty() {
                        found.push((line, name));
                    }
                    if c == '}' {
                        break;
                    }
                }
                '}' => depth -= 1,
                _ => {}
            }
        }
    }
    found
}

fn first_word(text: &str) -> String {
    text.chars()
        .take_while(|c| c.is_alphanumeric() || *c == '_')
        .collect()
}

/// Line, name and length in lines of every function with a body.
fn functions(code: &str) -> Vec<(usize, String, usize)> {
    let mut found = Vec::new();
    for (at, _) in code.match_indices("fn ") {
        let word_before = code[..at].ends_with(|c: char| c.is_alphanumeric() || c == '_');
        let name = first_word(&code[at + 3..]);
        let body = code[at..]
            .find(['{', ';'])
            .filter(|end| code[at + end..].starts_with('{'));
        let (false, false, Some(body)) = (word_before, name.is_empty(), body) else {
            continue;
        };
        let mut depth = 0;
        let end = code[at + body..].char_indices().find_map(|(index, c)| {
            match c {
                '{' => depth += 1,
                '}' => depth -= 1,
                _ => {}
            }
            (depth == 0).then_some(at + body + index)
        });
        let end = end.unwrap_or(code.len());
        let line = 1 + code[..at].matches('\n').count();
        found.push((line, name, 1 + code[at..end].matches('\n').count()));
    }
    found
}

/// The text with comments, strings and the test module blanked out.
fn code_of(text: &str) -> String {
    let mut out = String::with_capacity(text.len());
    let mut rest = text;
    while let Some(c) = rest.chars().next() {
        let length = token_length(rest, out.chars().next_back());
        let token = &rest[..length.max(c.len_utf8())];
        if length > 0 {
            out.extend(token.chars().map(|c| if c == '\n' { '\n' } else { ' ' }));
        } else {
            out.push(c);
        }
        rest = &rest[token.len()..];
    }
    let tests = out.match_indices("#[cfg(test)]").find(|(at, _)| {
        let item = &out[*at..];
        let end = item.find(['{', ';']).unwrap_or(item.len());
        item[..end].contains("\nmod ") && item[end..].starts_with('{')
    });
    let tests = tests.map_or(out.len(), |(at, _)| at);
    let blank: String = out[tests..].chars().filter(|c| *c == '\n').collect();
    out.truncate(tests);
    out + &blank
}

/// The length of the comment, string or character at the start of `text`; 0 when there is none.
fn token_length(text: &str, before: Option<char>) -> usize {
    let after = |end: Option<usize>, length: usize| end.map_or(text.len(), |end| end + length);
    if text.starts_with("//") {
        return text.find('\n').unwrap_or(text.len());
    }
    if text.starts_with("/*") {
        return after(text.find("*/"), 2);
    }
    let in_word = before.is_some_and(|c| c.is_alphanumeric() || c == '_');
    let raw = text
        .strip_prefix("br")
        .or_else(|| text.strip_prefix('r'))
        .filter(|_| !in_word);
    if let Some(raw) = raw {
        let hashes = raw.len() - raw.trim_start_matches('#').len();
        if raw[hashes..].starts_with('"') {
            let end = format!("\"{}", "#".repeat(hashes));
            let start = text.len() - raw.len() + hashes + 1;
            return after(text[start..].find(&end).map(|at| start + at), end.len());
        }
    }
    if text.starts_with('"') {
        let mut escaped = false;
        let end = text.char_indices().skip(1).find(|(_, c)| {
            let ends = *c == '"' && !escaped;
            escaped = *c == '\\' && !escaped;
            ends
        });
        return after(end.map(|(at, _)| at), 1);
    }
    if let Some(rest) = text.strip_prefix('\'') {
        // A lifetime has no quote after its first letter; a character has, or is escaped.
        if let Some(escape) = rest.strip_prefix('\\') {
            return after(
                escape
                    .char_indices()
                    .skip(1)
                    .find(|(_, c)| *c == '\'')
                    .map(|(i, _)| i),
                3,
            );
        }
        let letter = rest.chars().next().map_or(0, char::len_utf8);
        if rest[letter..].starts_with('\'') {
            return letter + 2;
        }
    }
    0
}

/// A safety comment may be as long as this above its block.
const SAFETY_LINES_MAX: usize = 8;
/// A statement may run over a few lines between the comment and its expect.
const INVARIANT_LINES_MAX: usize = 4;
