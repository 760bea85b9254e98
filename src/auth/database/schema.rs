//! The tables: made and brought up to date by `ringftpd user`, looked at by the server.

use super::Connection;
use crate::config::Database;

/// Looks whether the tables are those that this program knows.
pub(in crate::auth) fn check(
    connection: &mut dyn Connection,
    database: &Database,
) -> Result<(), String> {
    let newest = MIGRATIONS.len() as i64;
    match version(connection)? {
        found if found == newest => Ok(()),
        0 => Err(format!(
            "{database}: the tables are not there yet: `ringftpd user migrate` makes them"
        )),
        found if found < newest => Err(format!(
            "{database}: the tables have version {found} and not {newest}: `ringftpd user migrate` \
             brings them up to date"
        )),
        found => Err(format!(
            "{database}: the tables have version {found}, of a newer ringftpd: this one knows {newest}"
        )),
    }
}

/// Makes the tables, or brings them up to date; whether there was anything to do.
pub(in crate::auth) fn migrate(
    connection: &mut dyn Connection,
    database: &Database,
) -> Result<bool, String> {
    // Without a lock first: mostly there is nothing to do, and nothing to write.
    let newest = MIGRATIONS.len() as i64;
    if version(connection)? == newest {
        return Ok(false);
    }
    connection.begin()?;
    let found = version(connection)?;
    let missing = usize::try_from(found)
        .ok()
        .and_then(|it| MIGRATIONS.get(it..));
    let Some(missing) = missing else {
        return check(connection, database).map(|()| false);
    };
    for migration in missing {
        connection.batch(migration)?;
    }
    connection.batch("COMMIT")?;
    Ok(!missing.is_empty())
}

/// The number of the last migration; 0: none.
fn version(connection: &mut dyn Connection) -> Result<i64, String> {
    if !connection.has_table("ringftpd_schema")? {
        return Ok(0);
    }
    let versions = "SELECT CAST(max(version) AS TEXT) FROM ringftpd_schema";
    let versions = connection.query(versions, &[])?;
    let last = versions.into_iter().flatten().next().flatten();
    Ok(last.and_then(|number| number.parse().ok()).unwrap_or(0))
}

/// In their order. What has been released stays as it is; each notes its own number.
const MIGRATIONS: &[&str] = &[include_str!("migrations/0001_users.sql")];
