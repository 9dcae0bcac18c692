//! Checks the rights of a role on the tables before the role needs them.
use std::time::Duration;

use tokio_postgres::Row;

use super::{connect::Dedicated, pool::Pool};
use crate::StoreError;

const LIMIT: Duration = Duration::from_secs(5);

/// The rights that serving needs. Another role may own and load the lessons.
const NEEDED: &[(&str, &[&str])] = &[
    ("installation", &["select", "update"]),
    ("lesson", &["select"]),
    ("lesson_attendee", &["select"]),
    ("node", ALL),
    ("agent_session", ALL),
    ("agent_session_history", &["select", "insert"]),
    ("takeover", ALL),
    ("kick", ALL),
    ("outbox_shard", ALL),
    ("outbox", ALL),
    ("outbox_quarantine", ALL),
    ("stale_field", ALL),
    ("removal", ALL),
];
const ALL: &[&str] = &["select", "insert", "update", "delete"];

/// Finds missing rights. A missing table is not reported here, because a migration makes it.
const LACKS: &str = "select current_user::text, n.table_name || ' (' || string_agg(n.privilege, ', ') || ')'
    from unnest($1::text[], $2::text[]) with ordinality as n(table_name, privilege, place)
    where to_regclass(n.table_name) is not null
        and not has_table_privilege(to_regclass(n.table_name)::oid, n.privilege)
    group by n.table_name order by min(n.place)";

/// Returns the missing rights, and what to change, in one line, or `None` if the role may serve.
pub(super) async fn missing(connection: &Dedicated) -> Result<Option<String>, StoreError> {
    let (tables, rights) = needed();
    Ok(told(&connection.rows(LIMIT, LACKS, &[&tables, &rights]).await?))
}

/// Returns the missing rights of a role that serves already, because an operator may have revoked a right.
pub(super) async fn still_missing(pool: &Pool) -> Result<Option<String>, StoreError> {
    let (tables, rights) = needed();
    Ok(told(&pool.rows("probe", LACKS, &[&tables, &rights]).await?))
}

fn needed() -> (Vec<&'static str>, Vec<&'static str>) {
    NEEDED.iter().flat_map(|(table, rights)| rights.iter().map(move |right| (*table, *right))).unzip()
}

fn told(rows: &[Row]) -> Option<String> {
    let role = rows.first().and_then(|row| row.try_get::<_, String>(0).ok());
    let lacking: Vec<String> = rows.iter().filter_map(|row| row.try_get(1).ok()).collect();
    role.map(|role| {
        format!(
            "the role {role} lacks rights on {}: grant them as the owner of the tables (README, \"Upgrades\")",
            lacking.join(", ")
        )
    })
}
