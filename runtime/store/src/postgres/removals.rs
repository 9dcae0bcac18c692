//! Removals that the key store has carried out, for as long as a failover of it may undo them.
use rollcall_schema::NodeId;

use super::{PostgresStore, pool::unreadable};
use crate::{REPEATED_MINUTES, StoreError};

/// Whoever removes what a dead node removed does it as its own: it is repeated once more if that gets lost.
const REPEAT: &str = "with again as (
        select ctid from removal
        where minute >= extract(epoch from clock_timestamp())::bigint / 60 - $2
            and (node_id = $1 or node_id <> all (array(select id from node where not taken)))
        order by minute limit $3 for update skip locked
    ), gone as (
        delete from removal where ctid = any (array(select ctid from again)) returning lesson_id, user_id, sid
    ), added as (
        insert into stale_field (node_id, lesson_id, user_id, sid) select $1, lesson_id, user_id, sid from gone
    )
    select count(*) from gone";

/// A minute is over once nothing of it is found: what another node forgets at this moment, that node forgets.
const EXPIRE: &str = "with bound as materialized (
        select extract(epoch from clock_timestamp())::bigint / 60 - $2 as minute
    ), old as (
        select ctid from removal where minute >= $1 and minute < (select minute from bound)
        order by minute limit $3 for update skip locked
    ), gone as (
        delete from removal where ctid = any (array(select ctid from old)) returning minute
    )
    select count(*), max(gone.minute), (select minute from bound) from gone";

impl PostgresStore {
    pub(super) async fn repeat_removals(&self, node: NodeId, most: usize) -> Result<usize, StoreError> {
        let most = i64::try_from(most).map_err(unreadable)?;
        let rows = self.pool.rows("repeat", REPEAT, &[&node.0, &REPEATED_MINUTES, &most]).await?;
        let count: i64 = rows.first().ok_or_else(|| unreadable("none"))?.try_get(0).map_err(unreadable)?;
        usize::try_from(count).map_err(unreadable)
    }

    pub(super) async fn expire_removals(&self, minute: i64, most: usize) -> Result<(i64, bool), StoreError> {
        let most = i64::try_from(most).map_err(unreadable)?;
        let rows = self.pool.rows("expire", EXPIRE, &[&minute, &REPEATED_MINUTES, &most]).await?;
        let row = rows.first().ok_or_else(|| unreadable("none"))?;
        let count: i64 = row.try_get(0).map_err(unreadable)?;
        let (reached, bound): (Option<i64>, i64) =
            (row.try_get(1).map_err(unreadable)?, row.try_get(2).map_err(unreadable)?);
        Ok(if count < most { (bound.max(minute), false) } else { (reached.unwrap_or(minute), true) })
    }
}
