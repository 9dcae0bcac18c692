//! Checks the rights of a role on the tables, before it needs them.
use std::time::Duration;

use super::connect::Dedicated;
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
    let needed = NEEDED.iter().flat_map(|(table, rights)| rights.iter().map(move |right| (*table, *right)));
    let (tables, rights): (Vec<_>, Vec<_>) = needed.unzip();
    let rows = connection.rows(LIMIT, LACKS, &[&tables, &rights]).await?;
    let role = rows.first().and_then(|row| row.try_get::<_, String>(0).ok());
    let lacking: Vec<String> = rows.iter().filter_map(|row| row.try_get(1).ok()).collect();
    Ok(role.map(|role| {
        format!(
            "the role {role} lacks rights on {}: grant them as the owner of the tables (README, \"Upgrades\")",
            lacking.join(", ")
        )
    }))
}
