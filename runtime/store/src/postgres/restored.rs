//! Prepares a database that was put back from a backup: no session in it is live, and no id of it may be given out
//! again.
use std::time::Duration;

use super::{
    connect::{Connector, Dedicated},
    rows::{get, only, unsigned},
    session_end::ended,
};
use crate::{Restored, StoreError, now_micros};

/// The tables may be large, and the server's cache empty.
const LIMIT: Duration = Duration::from_secs(600);
const CONNECT: Duration = Duration::from_secs(5);
const SETTINGS: &str = "-c statement_timeout=600000 -c lock_timeout=5000";

/// From here to the end of the transaction no node can register.
const LOCK: &str = "lock table node in share row exclusive mode";

const ALIVE: &str = "select label, extract(epoch from lease_until - clock_timestamp())::float8 from node \
    where not taken and lease_until > clock_timestamp() order by id limit 1";

const ANEW: &str = "update installation set id = gen_random_uuid(), incarnation = gen_random_uuid(), \
    timeline = null";

/// Ids that were given out after the backup was made are unknown here (see [`now_micros`]).
const RAISE: &str = "select raise_ids($1)";

/// The fields of these sessions in Redis are removed like those of a dead node. Their events were published already, or
/// are too old to be published.
const END: &str = concat!(
    "with gone as (
        delete from agent_session
        returning id, agent_id, classroom_id, user_id, sid, lesson_id, lesson_before, started_at, taken_over_at,
            'node_lost' as reason, null as cause, null::integer as resume_id
    ), ",
    ended!("0", "on conflict (id) do nothing"),
    "
    select count(*) from gone"
);

const EMPTY: &str =
    "with gone as (delete from outbox returning id), aside as (delete from outbox_quarantine returning id)
    select (select count(*) from gone) + (select count(*) from aside)";

const FORGET: &str = "delete from takeover; delete from kick; delete from node";

pub(super) async fn prepare(connector: &Connector) -> Result<Restored, StoreError> {
    let connection = Dedicated::connect(connector, SETTINGS, CONNECT).await?;
    connection.run(LIMIT, "begin").await?;
    connection.run(LIMIT, LOCK).await?;
    if let Some(row) = connection.rows(LIMIT, ALIVE, &[]).await?.first() {
        let label: String = get(row, 0)?;
        let rest: f64 = get(row, 1)?;
        return Err(StoreError::Refused(format!(
            "node {label} holds a lease for another {rest:.0} s: stop every node first, or wait for its end"
        )));
    }
    connection.run(LIMIT, ANEW).await?;
    connection.rows(LIMIT, RAISE, &[&now_micros()]).await?;
    let count = async |sql| {
        let rows = connection.rows(LIMIT, sql, &[]).await?;
        let count: i64 = only(&rows)?;
        unsigned(count)
    };
    let restored = Restored { sessions: count(END).await?, events: count(EMPTY).await? };
    connection.run(LIMIT, FORGET).await?;
    connection.run(LIMIT, "commit").await?;
    Ok(restored)
}
