//! Reads one TOML document section by section, and collects everything that is wrong with it.

use std::collections::BTreeMap;
use std::ops::Range;

use toml::de::{DeTable, DeValue};

use super::error::{self, ConfigError, Problem, Shown};
use super::keys::{self, Schema};

/// A value together with where it stands.
pub(crate) type Value<'t> = toml::Spanned<DeValue<'t>>;

/// A TOML document on its way into typed data.
pub(crate) struct Document<'t> {
    text: &'t str,
    name: &'t str,
    schema: Schema,
    secret: bool,
    tables: DeTable<'t>,
    /// Where each known key's value and each section's header stand.
    places: BTreeMap<String, Range<usize>>,
    problems: Vec<(Option<Range<usize>>, Problem)>,
}

impl<'t> Document<'t> {
    pub(crate) fn new(text: &'t str, name: &'t str, schema: Schema) -> Self {
        let (root, errors) = DeTable::parse_recoverable(text);
        let problems = errors
            .into_iter()
            .map(|error| {
                let message = error.message().trim();
                (
                    error.span(),
                    Problem::new("", format!("not valid TOML: {message}")),
                )
            })
            .collect();
        Self {
            text,
            name,
            schema,
            secret: false,
            tables: root.into_inner(),
            places: BTreeMap::new(),
            problems,
        }
    }

    /// The text holds secrets: refusals name places in it but do not show it.
    pub(crate) fn secret(mut self) -> Self {
        self.secret = true;
        self
    }

    /// Takes the section `name`; absent ones are empty. Keys not in `keys` are refused.
    pub(crate) fn section(&mut self, name: &str, keys: &[&str]) -> Section<'t> {
        let mut section = Section::new(name.to_owned(), self.schema);
        let Some((header, value)) = self.tables.remove_entry(name) else {
            return section;
        };
        self.places.insert(name.to_owned(), header.span());
        let DeValue::Table(table) = value.get_ref().clone() else {
            let problem = Problem::new(name, "is a section, not a value")
                .hint(format!("put its keys below a line [{name}]"));
            self.problems.push((Some(value.span()), problem));
            return section;
        };
        section.fill(table, keys);
        section
    }

    /// Takes the tables inside section `name`, as in `[user.alice]`, each with its header's place.
    pub(crate) fn subsections(&mut self, name: &str, keys: &[&str]) -> Vec<(String, Section<'t>)> {
        let Some((_, value)) = self.tables.remove_entry(name) else {
            return Vec::new();
        };
        let DeValue::Table(table) = value.get_ref().clone() else {
            let problem = Problem::new(name, format!("is written [{name}.NAME]"));
            self.problems.push((Some(value.span()), problem));
            return Vec::new();
        };
        let mut sections = Vec::new();
        for (header, value) in table {
            let path = format!("{name}.{}", header.get_ref());
            self.places.insert(path.clone(), header.span());
            let mut section = Section::new(path, self.schema);
            if let DeValue::Table(table) = value.get_ref().clone() {
                section.fill(table, keys);
                sections.push((header.get_ref().clone().into_owned(), section));
            } else {
                let problem = Problem::new(section.path, "is a section, not a value");
                self.problems.push((Some(value.span()), problem));
            }
        }
        sections
    }

    /// Gives a section back: what was wrong in it becomes part of the verdict.
    pub(crate) fn close(&mut self, section: Section<'t>) {
        self.places.extend(section.places);
        for (span, problem) in section.problems {
            let span = span.or_else(|| self.places.get(&problem.key).cloned());
            self.problems.push((span, problem));
        }
    }

    /// Where the value of `key` stands, as in `user.alice.password`, or the name of a section.
    pub(crate) fn place(&self, key: &str) -> Option<Range<usize>> {
        self.places.get(key).cloned()
    }

    /// Nothing has been refused so far.
    pub(crate) fn is_sound(&self) -> bool {
        self.problems.is_empty()
    }

    /// Refuses more, at the places of the keys (or the sections) that the problems name.
    pub(crate) fn refuse_all(&mut self, problems: Vec<Problem>) {
        for problem in problems {
            let section = problem
                .key
                .rsplit_once('.')
                .map_or("", |(section, _)| section);
            let place = self
                .places
                .get(&problem.key)
                .or_else(|| self.places.get(section));
            self.problems.push((place.cloned(), problem));
        }
    }

    /// The verdict.
    pub(crate) fn finish(mut self) -> Result<(), ConfigError> {
        let names: Vec<&str> = self.schema.iter().map(|(name, _)| *name).collect();
        for (key, _) in std::mem::take(&mut self.tables) {
            let wrong = key.get_ref();
            let owners = keys::sections_with(self.schema, wrong, "");
            let problem = Problem::new(wrong.as_ref(), "no such section");
            let problem = match (keys::nearest(wrong, &names), owners.as_slice()) {
                (Some(name), _) => problem.hint(format!("did you mean [{name}]?")),
                (None, [owner, ..]) => problem.hint(format!("this key belongs below [{owner}]")),
                (None, []) => problem.hint(format!("the sections are {}", names.join(", "))),
            };
            self.problems.push((Some(key.span()), problem));
        }
        if self.problems.is_empty() {
            return Ok(());
        }
        // What a broken text seems to say is not worth judging: only its syntax errors are told.
        if self
            .problems
            .iter()
            .any(|(_, problem)| problem.key.is_empty())
        {
            self.problems.retain(|(_, problem)| problem.key.is_empty());
        }
        self.problems
            .sort_by_key(|(span, _)| span.as_ref().map_or(usize::MAX, |span| span.start));
        self.problems.truncate(PROBLEMS_MAX);
        let rendered = self
            .problems
            .iter()
            .map(|(span, problem)| {
                let shown = if self.secret {
                    Shown::Place
                } else {
                    Shown::Line
                };
                error::render(self.name, self.text, shown, span.clone(), problem)
            })
            .collect();
        let problems = self
            .problems
            .into_iter()
            .map(|(_, problem)| problem)
            .collect();
        Err(ConfigError::Refused { rendered, problems })
    }
}

/// One section's values, each taken once.
pub(crate) struct Section<'t> {
    path: String,
    schema: Schema,
    entries: BTreeMap<String, Value<'t>>,
    places: BTreeMap<String, Range<usize>>,
    problems: Vec<(Option<Range<usize>>, Problem)>,
}

impl<'t> Section<'t> {
    fn new(path: String, schema: Schema) -> Self {
        Self {
            path,
            schema,
            entries: BTreeMap::new(),
            places: BTreeMap::new(),
            problems: Vec::new(),
        }
    }

    fn fill(&mut self, table: DeTable<'t>, keys: &[&str]) {
        for (key, value) in table {
            let name = key.get_ref();
            if keys.contains(&name.as_ref()) {
                self.places
                    .insert(format!("{}.{name}", self.path), value.span());
                self.entries.insert(name.clone().into_owned(), value);
            } else {
                self.problems
                    .push((Some(key.span()), self.unknown(name, keys)));
            }
        }
    }

    fn unknown(&self, wrong: &str, keys: &[&str]) -> Problem {
        let problem = Problem::new(format!("{}.{wrong}", self.path), "no such key");
        let owners = keys::sections_with(self.schema, wrong, &self.path);
        match (owners.as_slice(), keys::nearest(wrong, keys)) {
            ([owner, ..], _) => problem.hint(format!("this key belongs below [{owner}]")),
            (_, Some(key)) => problem.hint(format!("did you mean `{key}`?")),
            _ => problem.hint(format!("the keys of this section are {}", keys.join(", "))),
        }
    }

    /// Whether the section sets `key`, validly or not.
    pub(crate) fn has(&self, key: &str) -> bool {
        self.places.contains_key(&format!("{}.{key}", self.path))
    }

    /// Reads `key` into `slot` if it is set; a value that `parse` refuses leaves `slot` alone.
    pub(crate) fn read<T>(
        &mut self,
        key: &str,
        slot: &mut T,
        parse: impl FnOnce(&Value<'t>) -> Result<T, Wrong>,
    ) {
        let Some(value) = self.entries.remove(key) else {
            return;
        };
        match parse(&value) {
            Ok(parsed) => *slot = parsed,
            Err(wrong) => {
                let span = wrong.span.unwrap_or_else(|| value.span());
                let mut problem = Problem::new(format!("{}.{key}", self.path), wrong.message);
                problem.hint = wrong.hint;
                self.problems.push((Some(span), problem));
            }
        }
    }

    /// Takes the section `key` inside this one; an absent one is empty.
    pub(crate) fn nested(&mut self, key: &str, keys: &[&str]) -> Self {
        let mut section = Self::new(format!("{}.{key}", self.path), self.schema);
        let Some(value) = self.entries.remove(key) else {
            return section;
        };
        if let DeValue::Table(table) = value.get_ref().clone() {
            section.fill(table, keys);
        } else {
            let problem = Problem::new(section.path.clone(), "is a section, not a value")
                .hint(format!("put its keys below a line [{}]", section.path));
            self.problems.push((Some(value.span()), problem));
        }
        section
    }

    /// Refuses the section itself, at its header.
    pub(crate) fn refuse(&mut self, message: &str, hint: &str) {
        let problem = Problem::new(self.path.clone(), message).hint(hint);
        self.problems.push((None, problem));
    }
}

/// Why one value is refused.
#[derive(Debug)]
pub(crate) struct Wrong {
    /// A narrower place than the whole value, such as one element of a list.
    pub(crate) span: Option<Range<usize>>,
    pub(crate) message: String,
    pub(crate) hint: Option<String>,
}

impl Wrong {
    pub(crate) fn new(message: impl Into<String>) -> Self {
        Self {
            span: None,
            message: message.into(),
            hint: None,
        }
    }

    pub(crate) fn hint(mut self, hint: impl Into<String>) -> Self {
        self.hint = Some(hint.into());
        self
    }

    pub(crate) fn at(mut self, span: Range<usize>) -> Self {
        self.span.get_or_insert(span);
        self
    }
}

/// More would scroll the first one off the screen.
const PROBLEMS_MAX: usize = 20;
