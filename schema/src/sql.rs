//! The tables (PROTOCOL 5) as embedded migrations, once for each kind of database.
//!
//! Invariant: a migration that was released never changes; a new migration gets the next number, in both dialects. The
//! release before must be able to run on the new tables: a migration only adds to them, and what is no longer used is
//! removed one release later. `compatible_from` is the version that a binary must know to run on the tables.

/// One step of a database's history.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Migration {
    /// The number of the step, from 1 and without gaps.
    pub version: i32,
    /// The name of the step, for people.
    pub name: &'static str,
    /// The version that a binary must know to run on these tables. A binary may be older than the migration.
    pub compatible_from: i32,
    /// The statements, which run in one transaction.
    pub sql: &'static str,
}

macro_rules! migrations {
    ($folder:literal: $($version:literal $name:literal from $compatible_from:literal),* $(,)?) => {
        &[$(Migration {
            version: $version,
            name: $name,
            compatible_from: $compatible_from,
            sql: include_str!(concat!("../migrations/", $folder, "/", $name, ".sql")),
        }),*]
    };
}

/// The migrations for PostgreSQL 14 and later.
pub const POSTGRES: &[Migration] = migrations!("postgres": 1 "0001_presence" from 1);

/// The migrations for SQLite 3.35 and later.
pub const SQLITE: &[Migration] = migrations!("sqlite": 1 "0001_presence" from 1);

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn versions_have_no_gaps_and_stand_in_the_names() {
        for dialect in [POSTGRES, SQLITE] {
            for (place, migration) in (1..).zip(dialect) {
                assert_eq!(migration.version, place);
                assert!((1..=place).contains(&migration.compatible_from));
                assert!(migration.name.starts_with(&format!("{place:04}_")), "{}", migration.name);
            }
        }
    }

    #[test]
    fn both_dialects_take_the_same_steps() {
        let names = |dialect: &[Migration]| dialect.iter().map(|step| step.name).collect::<Vec<_>>();
        assert_eq!(names(POSTGRES), names(SQLITE));
    }
}
