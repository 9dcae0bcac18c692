//! Which migrations a database lacks, and whether this binary may run on it.
use rollcall_schema::sql::Migration;

use crate::StoreError;

/// The statement that makes the table of migrations. It is the same in both dialects except for the type of the time.
macro_rules! migration_table {
    ($time:literal) => {
        concat!(
            "create table if not exists migration (version integer primary key, name text not null, ",
            "compatible_from integer not null, applied_at ",
            $time,
            ")"
        )
    };
}
pub(super) use migration_table;

/// The query for [`State`] in both dialects.
pub(super) const STATE: &str = "select coalesce(max(version), 0), coalesce(max(compatible_from), 0) from migration";

/// How far a database has been migrated.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct State {
    /// The newest migration's version; 0 if there is none.
    pub(super) version: i32,
    /// The lowest version of the tables that a binary must know to use these tables.
    pub(super) compatible_from: i32,
}

impl State {
    /// Returns the migrations that the database lacks. A database that is newer than this binary is refused only if it
    /// is declared incompatible.
    pub(super) fn missing(self, all: &'static [Migration]) -> Result<&'static [Migration], StoreError> {
        let newest = all.last().map_or(0, |migration| migration.version);
        if self.compatible_from > newest {
            return Err(StoreError::Refused(format!(
                "the tables are at version {}, and need a newer rollcall, which knows version {}; this one knows \
                 {newest}: upgrade this one",
                self.version, self.compatible_from
            )));
        }
        Ok(all.iter().position(|migration| migration.version > self.version).map_or(&[], |first| &all[first..]))
    }
}

/// Returns the names of these migrations.
pub(super) fn names(missing: &[Migration]) -> Vec<&'static str> {
    missing.iter().map(|migration| migration.name).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    const fn migration(version: i32, compatible_from: i32) -> Migration {
        Migration { version, name: "x", sql: "", compatible_from }
    }

    static ALL: [Migration; 3] = [migration(1, 1), migration(2, 1), migration(3, 2)];

    #[test]
    fn what_is_above_the_databases_version_is_missing() {
        let missing = |version, compatible_from| State { version, compatible_from }.missing(&ALL).map(<[_]>::len);
        assert!(matches!((missing(0, 0), missing(1, 1), missing(3, 2)), (Ok(3), Ok(2), Ok(0))));
    }

    #[test]
    fn newer_tables_are_refused_only_where_they_are_not_compatible() {
        let newer = State { version: 4, compatible_from: 3 };
        assert!(newer.missing(&ALL).is_ok_and(<[_]>::is_empty));
        let contracted = State { version: 5, compatible_from: 4 };
        let refused = contracted.missing(&ALL);
        assert!(matches!(refused, Err(StoreError::Refused(why)) if why.contains("upgrade this one")));
    }
}
