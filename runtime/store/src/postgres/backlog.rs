//! Measures how much waits in the outbox.
//!
//! Invariant: a measurement does not step over rows that were deleted long ago, of which an old snapshot (a transaction
//! that was left open, or a dump) may hold millions. It begins above an id below which no row is left
//! ([`super::floor`]).
use std::time::{Duration, Instant};

use async_trait::async_trait;
use rollcall_schema::Shards;
use tokio::sync::watch;

use super::{
    outbox::PostgresOutbox,
    rows::{get, unreadable, unsigned},
    store::PostgresStore,
};
use crate::{Backlog, Lease, Outbox, OutboxSource, StoreError};

/// Below 5,000 rows the count is exact. Above, it is the distance of their ids. An id that is drawn after this query
/// began is above `last`.
const BACKLOG: &str = "with drawn as materialized (
        select coalesce(pg_sequence_last_value(pg_get_serial_sequence('outbox', 'id')::regclass), 0) as last
    ), counted as (
        select count(*) as rows from (
            select from generate_series(0, 7) as g(shard)
            cross join lateral (select from outbox where shard = g.shard and id > $1 order by id limit 5000) as o
            limit 5000
        ) as o
    ), ends as (
        select max(l.id) - min(f.id) + 1 as rows, min(f.created_at) as since, min(f.id) as id
        from generate_series(0, 7) as g(shard)
        cross join lateral (
            select id, created_at from outbox where shard = g.shard and id > $1 order by id limit 1
        ) as f
        cross join lateral (select id from outbox where shard = g.shard and id > $1 order by id desc limit 1) as l
    )
    select
        case when counted.rows < 5000 then counted.rows else coalesce(ends.rows, 0) end,
        coalesce(greatest(extract(epoch from clock_timestamp() - ends.since), 0), 0)::float8,
        drawn.last,
        ends.id
    from drawn cross join counted cross join ends";

#[async_trait]
impl OutboxSource for PostgresStore {
    async fn open_outbox(&self, lease: Lease) -> Result<Box<dyn Outbox>, StoreError> {
        Ok(Box::new(PostgresOutbox::open(self, lease).await?))
    }

    fn held_shards(&self) -> watch::Receiver<Shards> {
        self.shards.held()
    }

    async fn rows_for_others(&self) -> Shards {
        self.shards.rows_for_others().await
    }

    fn wake_relay(&self, shards: Shards) {
        self.shards.woken(shards);
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        let at = Instant::now();
        let rows = self.background.rows("backlog", BACKLOG, &[&self.floor.get()]).await?;
        let row = rows.first().ok_or_else(|| unreadable("none"))?;
        self.floor.seen(at, get(row, 2)?, get(row, 3)?);
        Ok(Backlog { rows: unsigned(get(row, 0)?)?, lag: Duration::from_secs_f64(get(row, 1)?) })
    }
}
