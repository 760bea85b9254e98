//! Rows of the table of users, and the statements for them: the same for both databases.

use std::fmt::Write;
use std::sync::LazyLock;

use toml::Table;

use super::Record;
use crate::auth::keys;
use crate::auth::name::UserName;
use crate::auth::users::USER_KEYS;

/// The keys of the user `$1`.
pub(in crate::auth) static FIND: LazyLock<String> =
    LazyLock::new(|| format!("{} WHERE name = $1", select()));

/// The next users after the name `$1`, in the order of the database.
pub(in crate::auth) static PAGE: LazyLock<String> = LazyLock::new(|| {
    let select = select();
    format!("{select} WHERE name > $1 ORDER BY name LIMIT {PAGE_LENGTH}")
});

/// Adds a user unless the name is there.
pub(in crate::auth) static ADD: LazyLock<String> = LazyLock::new(|| {
    let names = USER_KEYS.join(", ");
    let values = USER_KEYS.iter().zip(2..);
    let values: Vec<String> = values.map(|(key, number)| parameter(key, number)).collect();
    let values = values.join(", ");
    format!(
        "INSERT INTO ringftpd_users (name, {names}) VALUES ({}, {values}) ON CONFLICT (name) DO NOTHING",
        parameter("name", 1)
    )
});

/// Gives the user `$1` all keys anew.
pub(in crate::auth) static UPDATE: LazyLock<String> = LazyLock::new(|| {
    // The parameters are counted in the order in which they come.
    let mut sql = "UPDATE ringftpd_users SET name = CAST($1 AS TEXT)".to_owned();
    for (key, number) in USER_KEYS.iter().zip(2..) {
        // Writing to a String does not fail.
        let _ = write!(sql, ", {key} = {}", parameter(key, number));
    }
    sql + " WHERE name = CAST($1 AS TEXT)"
});

/// Removes the user `$1`.
pub(in crate::auth) const REMOVE: &str = "DELETE FROM ringftpd_users WHERE name = $1";

/// Hashes of some users, whichever come first.
pub(in crate::auth) const SAMPLE: &str =
    "SELECT CAST(password AS TEXT) FROM ringftpd_users LIMIT 1000";

/// How many users there are.
pub(in crate::auth) const COUNT: &str = "SELECT CAST(count(*) AS TEXT) FROM ringftpd_users";

/// The length of the longest name.
pub(in crate::auth) const WIDEST: &str =
    "SELECT CAST(max(length(name)) AS TEXT) FROM ringftpd_users";

/// Rows read at a time, and with them the memory of a list.
const PAGE_LENGTH: usize = 1000;

fn select() -> String {
    let mut sql = "SELECT CAST(name AS TEXT)".to_owned();
    for key in USER_KEYS {
        let _ = write!(sql, ", CAST({key} AS TEXT)");
    }
    sql + " FROM ringftpd_users"
}

/// A parameter, which comes as text, as the value of a column.
fn parameter(key: &str, number: usize) -> String {
    let text = format!("CAST(${number} AS TEXT)");
    match keys::Form::of(key) {
        keys::Form::Number => format!("CAST({text} AS BIGINT)"),
        keys::Form::Switch => format!("CAST({text} AS BOOLEAN)"),
        _ => text,
    }
}

/// The name in a row.
pub(in crate::auth) fn name_of(record: &Record) -> &str {
    record
        .first()
        .and_then(Option::as_deref)
        .unwrap_or_default()
}

/// The keys in a row: those that are not NULL.
pub(in crate::auth) fn table_of(record: Record) -> Table {
    let cells = USER_KEYS.iter().zip(record.into_iter().skip(1));
    let given = cells.filter_map(|(key, cell)| Some((*key, cell?)));
    let value = |(key, text): (&str, String)| (key.to_owned(), keys::stored(key, text));
    given.map(value).collect()
}

/// The row of a user.
pub(in crate::auth) fn values_of(name: &UserName, keys: &Table) -> Result<Record, String> {
    let mut record = vec![Some(name.as_str().to_owned())];
    for key in USER_KEYS {
        let value = keys.get(*key).map(keys::to_store).transpose();
        record.push(value.map_err(|error| format!("{key}: {error}"))?);
    }
    Ok(record)
}
