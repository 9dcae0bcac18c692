//! How much waits in the outbox.
//!
//! Invariant: a look does not walk over rows that were deleted long ago, of which an old snapshot (a transaction that
//! somebody left open, a dump) may hold millions. It begins above an id below which nothing is left: [`Floor`].
use std::{
    collections::VecDeque,
    sync::{Mutex, PoisonError},
    time::{Duration, Instant},
};

use super::{PostgresStore, pool::unreadable};
use crate::{Backlog, StoreError};

/// The count is exact below 5,000 rows; above, the distance of their ids stands for it. An id that is drawn after this
/// look began is above `last`.
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

/// A transaction that drew an id so long ago has ended: its statement may run for 1.5 s.
const SETTLED: Duration = Duration::from_secs(30);

/// An id at or below which no row is left.
#[derive(Debug, Default)]
pub(super) struct Floor(Mutex<Ids>);

#[derive(Debug, Default)]
struct Ids {
    floor: i64,
    /// The last id that was drawn, at some moments since.
    drawn: VecDeque<(Instant, i64)>,
}

impl Floor {
    fn get(&self) -> i64 {
        self.lock().floor
    }

    /// A look that began `at` saw that `last` was drawn, and `oldest` as the lowest id above the floor.
    fn seen(&self, at: Instant, last: i64, oldest: Option<i64>) {
        let mut ids = self.lock();
        // A sample each second is enough.
        if ids.drawn.back().is_none_or(|(sampled, _)| at.duration_since(*sampled) >= Duration::from_secs(1)) {
            ids.drawn.push_back((at, last));
        }
        while let Some((_, settled)) =
            ids.drawn.front().copied().filter(|(then, _)| at.duration_since(*then) >= SETTLED)
        {
            ids.drawn.pop_front();
            let below_oldest = oldest.map_or(settled, |oldest| settled.min(oldest - 1));
            ids.floor = ids.floor.max(below_oldest);
        }
    }

    fn lock(&self) -> std::sync::MutexGuard<'_, Ids> {
        // Numbers are whole after any panic.
        self.0.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl PostgresStore {
    pub(super) async fn waiting(&self) -> Result<Backlog, StoreError> {
        let at = Instant::now();
        let rows = self.background.rows("backlog", BACKLOG, &[&self.floor.get()]).await?;
        let row = rows.first().ok_or_else(|| unreadable("none"))?;
        let waiting: i64 = row.try_get(0).map_err(unreadable)?;
        let oldest: f64 = row.try_get(1).map_err(unreadable)?;
        self.floor.seen(at, row.try_get(2).map_err(unreadable)?, row.try_get(3).map_err(unreadable)?);
        Ok(Backlog { rows: u64::try_from(waiting).map_err(unreadable)?, lag: Duration::from_secs_f64(oldest) })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_floor_rises_to_what_was_drawn_long_ago_and_stays_below_what_waits() {
        let (floor, start) = (Floor::default(), Instant::now());
        let after = |seconds| start + Duration::from_secs(seconds);
        floor.seen(start, 100, None);
        floor.seen(after(29), 200, None);
        assert_eq!(floor.get(), 0);
        floor.seen(after(30), 300, Some(90));
        assert_eq!(floor.get(), 89);
        floor.seen(after(60), 400, None);
        assert_eq!(floor.get(), 300);
        floor.seen(after(100), 500, Some(450));
        assert_eq!(floor.get(), 400);
    }
}
