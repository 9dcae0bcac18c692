//! The schema of the tables, `ROLLCALL_SCHEMA`.
//!
//! Statements name no schema. Each connection begins with a `search_path` whose first schema is this one, which is
//! requested at the start of the session. A pooler that shares server connections may ignore that request, and a
//! setting made later could apply to another client. Only the role's own default (`ALTER ROLE ... SET`) reaches all its
//! connections, because the server itself applies it when a connection begins.
//!
//! Invariant: a connection that begins in another schema is not used, and the error names the statement that corrects
//! it.
use std::{fmt, str::FromStr};

use tokio_postgres::Client;

use super::connect_error::{ConnectError, Refusal};

/// The name of a schema: `[a-z_][a-z0-9_]*`, at most 63 characters, so that it needs no quotes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct SchemaName(String);

impl FromStr for SchemaName {
    type Err = &'static str;

    fn from_str(text: &str) -> Result<Self, Self::Err> {
        let letter = |c: char| c.is_ascii_lowercase() || c == '_';
        let named = text.starts_with(letter) && text.chars().all(|c| letter(c) || c.is_ascii_digit());
        match named && text.len() <= 63 && !text.starts_with("pg_") {
            true => Ok(Self(text.to_owned())),
            false => {
                Err("must be at most 63 lower-case letters, digits and underscores, and not begin with a digit or pg_")
            }
        }
    }
}

impl fmt::Display for SchemaName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl SchemaName {
    /// Returns the option that makes a session begin in this schema.
    pub(super) fn option(&self) -> String {
        format!("-c search_path={self}")
    }

    /// Checks whether a connection begins in this schema. The schema itself may be missing before the first migration.
    pub(super) async fn check(&self, client: &Client) -> Result<(), ConnectError> {
        const ASK: &str = "select current_setting('search_path'), current_user::text, current_database()::text";
        let row =
            client.query_typed_one(ASK, &[]).await.map_err(|error| ConnectError::of(vec![Refusal::from(&error)]))?;
        let text = |column| row.try_get::<_, String>(column).unwrap_or_default();
        let (path, role, database) = (text(0), text(1), text(2));
        let first = path.split(',').next().unwrap_or_default().trim().trim_matches('"');
        if first == self.0 {
            return Ok(());
        }
        Err(ConnectError {
            why: format!("connections begin with search_path = {path}, not with {self} of ROLLCALL_SCHEMA"),
            advice: Some(format!(
                "run once, and let a pooler connect anew: alter role \"{role}\" in database \"{database}\" set search_path = {self}"
            )),
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_name_needs_no_quotes() {
        for good in ["rollcall", "_a1"] {
            assert_eq!(good.parse::<SchemaName>().unwrap().to_string(), good);
        }
        for bad in ["", "1a", "Rollcall", "a b", "a,b", "a\"", "pg_x", &"a".repeat(64)] {
            assert!(bad.parse::<SchemaName>().is_err(), "{bad}");
        }
    }
}
