//! The keys of a user as plain values: how they are written on a command line and in a database.

use std::path::PathBuf;

use toml::{Table, Value};

use super::users::User;
use crate::config::rights;
use crate::proto::rights::Pattern;

/// What the value of a key looks like.
#[derive(Clone, Copy, Debug, Eq, PartialEq)]
pub(super) enum Form {
    Text,
    Number,
    Switch,
    /// A list of strings.
    List,
    /// Names and strings.
    Table,
}

impl Form {
    /// That of a key; unknown ones are text.
    pub(super) fn of(key: &str) -> Self {
        match key {
            "deny" | "hide" | "rules" | "networks" | "hours" => Self::List,
            "folders" => Self::Table,
            "quota_files" | "sessions" => Self::Number,
            "enabled" => Self::Switch,
            _ => Self::Text,
        }
    }

    /// A value as a database or an operator writes it; what cannot be one stays a text, which whoever
    /// reads the keys then refuses with a reason.
    fn read(self, text: &str) -> Option<Value> {
        match self {
            Self::Text => None,
            Self::Number => text.trim().parse().ok().map(Value::Integer),
            Self::Switch => match text.trim() {
                "true" | "t" | "1" => Some(Value::Boolean(true)),
                "false" | "f" | "0" => Some(Value::Boolean(false)),
                _ => None,
            },
            Self::List | Self::Table => serde_json::from_str(text).ok(),
        }
    }
}

/// The value of a key as a database has it: lists and tables in JSON.
pub(super) fn stored(key: &str, text: String) -> Value {
    Form::of(key).read(&text).unwrap_or(Value::String(text))
}

/// The value of a key as an operator gives it on a command line: lists as `a,b` or `["a", "b"]`, tables
/// as `{ "/at" = "/directory" }`.
pub fn value_of(key: &str, text: &str) -> Value {
    let form = Form::of(key);
    let toml = || {
        let document: Table = toml::from_str(&format!("value = {text}")).ok()?;
        document.into_iter().next().map(|(_, value)| value)
    };
    let value = match form {
        Form::List if !text.starts_with('[') => {
            let words = text.split(',').map(|word| Value::String(word.to_owned()));
            Some(Value::Array(words.collect()))
        }
        Form::List | Form::Table => form.read(text).or_else(toml),
        _ => form.read(text),
    };
    value.unwrap_or_else(|| Value::String(text.to_owned()))
}

/// The value of a key for a database.
pub(super) fn to_store(value: &Value) -> Result<String, serde_json::Error> {
    match value {
        Value::String(text) => Ok(text.clone()),
        Value::Integer(number) => Ok(number.to_string()),
        // Both databases read these as a boolean.
        Value::Boolean(is_on) => Ok(u8::from(*is_on).to_string()),
        Value::Datetime(date) => Ok(date.to_string()),
        other => serde_json::to_string(other),
    }
}

/// The keys of a user without rules, folders and times, as the import from other servers makes them.
///
/// # Errors
/// The directory, if it is not UTF-8.
pub fn keys_of(user: &User) -> Result<Table, PathBuf> {
    let text = |text: &str| Value::String(text.to_owned());
    let root = user.root.to_str().ok_or_else(|| user.root.clone())?;
    let (access, denied) = rights::words(user.rights.everywhere);
    let mut keys = Table::new();
    for (key, value) in [
        ("password", user.password.as_text()),
        ("root", root),
        ("access", access),
    ] {
        keys.insert(key.to_owned(), text(value));
    }
    let hidden = user.rights.hidden.iter().map(Pattern::as_str);
    for (key, words) in [("deny", denied), ("hide", hidden.collect())] {
        if !words.is_empty() {
            let words = words.into_iter().map(text).collect();
            keys.insert(key.to_owned(), Value::Array(words));
        }
    }
    let (quota, rates) = (user.quota, user.allowance.rates);
    let number =
        |number: u64| i64::try_from(number).map_or(Value::Integer(i64::MAX), Value::Integer);
    let values = [
        ("quota", quota.bytes.map(|it| text(&format!("{it} B")))),
        ("quota_files", quota.files.map(number)),
        ("down", rates.down.map(|it| text(&format!("{it} B/s")))),
        ("up", rates.up.map(|it| text(&format!("{it} B/s")))),
        (
            "sessions",
            user.allowance.sessions.map(|it| number(it.into())),
        ),
    ];
    for (key, value) in values {
        keys.extend(value.map(|value| (key.to_owned(), value)));
    }
    Ok(keys)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_come_from_a_command_line_and_a_database() {
        for (key, given, expected) in [
            ("quota", "10 GiB", "\"10 GiB\""),
            ("quota_files", "1000", "1000"),
            ("quota_files", "many", "\"many\""),
            ("enabled", "false", "false"),
            ("enabled", "maybe", "\"maybe\""),
            ("deny", "delete,rename", "[\"delete\", \"rename\"]"),
            ("rules", "[\"/a,b read-only\"]", "[\"/a,b read-only\"]"),
            ("folders", "{ \"/x\" = \"/y\" }", "{ \"/x\" = \"/y\" }"),
            ("folders", "{\"/x\": \"/y\"}", "{ \"/x\" = \"/y\" }"),
            ("folders", "/x", "\"/x\""),
        ] {
            let value = value_of(key, given);
            assert_eq!(value.to_string(), expected, "{key}={given}");
            let text = to_store(&value).expect("JSON");
            assert_eq!(stored(key, text), value, "{key}={given}");
        }
        assert_eq!(stored("enabled", "t".to_owned()), Value::Boolean(true));
        assert!(stored("hide", "null".to_owned()).is_str());
    }
}
