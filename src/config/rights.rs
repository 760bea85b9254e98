//! `access`, `deny`, `hide` and `rules`: what a user may do, in `[anonymous]` and in the users file.

use toml::de::DeValue;

use super::section::{Section, Value, Wrong};
use super::units;
use crate::proto::rights::{Pattern, Right, RightSet, Rights, Rule, right_named};

/// Reads what a user may do; what is not set stays as it is.
pub(crate) fn read(section: &mut Section<'_>, rights: &mut Rights) {
    section.read("access", &mut rights.everywhere, |value| {
        units::choice(value, &RightSet::NAMES)
    });
    let mut denied = Vec::new();
    section.read("deny", &mut denied, |value| list(value, deny));
    section.read("hide", &mut rights.hidden, |value| {
        list(value, |text| {
            Pattern::parse(text).ok_or_else(|| format!("{text:?} is not a pattern of paths"))
        })
    });
    section.read("rules", &mut rights.rules, |value| list(value, Rule::parse));
    for deny in denied {
        match deny {
            Deny::Right(right) => rights.everywhere = rights.everywhere.without(right),
            Deny::Dotfiles => rights.hidden.extend(Pattern::parse(DOTFILES)),
        }
    }
}

enum Deny {
    Right(Right),
    Dotfiles,
}

fn deny(word: &str) -> Result<Deny, String> {
    if word == "dotfiles" {
        return Ok(Deny::Dotfiles);
    }
    right_named(word).map(Deny::Right).ok_or_else(|| {
        let rights: Vec<&str> = Right::NAMES.iter().map(|(name, _)| *name).collect();
        format!("{word:?} is none of {} and dotfiles", rights.join(", "))
    })
}

/// A list of strings, each of which `parse` takes.
pub(crate) fn list<T>(
    value: &Value<'_>,
    parse: impl Fn(&str) -> Result<T, String>,
) -> Result<Vec<T>, Wrong> {
    let DeValue::Array(elements) = value.get_ref() else {
        return Err(units::wrong_type(value, "a list of strings"));
    };
    if elements.len() > LIST_LENGTH_MAX {
        return Err(Wrong::new(format!(
            "has more than {LIST_LENGTH_MAX} elements"
        )));
    }
    elements
        .iter()
        .map(|element| {
            let text = units::text(element, "…").map_err(|wrong| wrong.at(element.span()))?;
            parse(text).map_err(|message| Wrong::new(message).at(element.span()))
        })
        .collect()
}

/// A set of rights as the keys `access` and `deny` say it.
pub(crate) fn words(set: RightSet) -> (&'static str, Vec<&'static str>) {
    if let Some((name, _)) = RightSet::NAMES.iter().find(|(_, named)| *named == set) {
        return (name, Vec::new());
    }
    let missing = Right::NAMES.iter().filter(|(_, right)| !set.has(*right));
    ("read-write", missing.map(|(name, _)| *name).collect())
}

/// A set of rights in words for people: "read-write without delete, rename".
pub(crate) fn text(set: RightSet) -> String {
    match words(set) {
        (name, missing) if missing.is_empty() => name.to_owned(),
        (name, missing) => format!("{name} without {}", missing.join(", ")),
    }
}

const DOTFILES: &str = ".*";

/// Each is looked at for every path that a client names.
const LIST_LENGTH_MAX: usize = 256;
