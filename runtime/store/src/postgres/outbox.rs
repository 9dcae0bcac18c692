//! The outbox's shards, each read by one relay at a time ([`super::shard_claims`]).
//!
//! Invariant: rows are read only where the claim on their shard holds in the same statement. To delete a row that is
//! published does no harm, whoever does it and however late: no id is given out again.
//!
//! A relay that reads and deletes nothing is cut off from the bus, or the bus is away. Where there are other relays it
//! yields: it gives all shards back for a while, so that their events need not wait for it. The last one does not.
mod marks;
mod statements;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, Nonce, SessionId, TraceParent};
use tokio::time::{Instant, timeout};
use tokio_postgres::Row;
use uuid::Uuid;

use self::{
    marks::Marks,
    statements::{DELETE, QUARANTINE, QUARANTINED, READ, RELEASE_QUARANTINED},
};
use super::{
    LIMIT,
    connect::Dedicated,
    rows::{Parameters, get, only, unreadable, unsigned, whole},
    shard_claims::{Claims, SHARDS},
    shard_state::ShardState,
    store::PostgresStore,
};
use crate::{
    Lease, Outbox, OutboxRow, StoreError,
    outbox::EventColumns,
    outbox_quarantine::{RELEASED_AT_ONCE, RETRY_AFTER, SortedRows},
};

/// A deletion that a crash of the server undoes means only that the same event is published again under its id: not worth
/// a sync of the disk, for which joins would wait.
const SETTINGS: &str = "-c synchronous_commit=off";

/// How many deletions may wait for the next read, and for how long.
const FEW: usize = 32;
const DELETE_AFTER: Duration = Duration::from_millis(100);

/// How often a read begins again after it quarantined rows, before it gives up for this time.
const READS: usize = 8;

/// How long nothing may be deleted of what was read.
const STUCK: Duration = Duration::from_secs(1);
/// For how long a relay yields at first, and at most.
const YIELD: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(15));

/// A queue leaves dead index entries at its front, and each read steps over them (14 ms after 600,000 rows); autovacuum
/// comes once a minute.
const VACUUM: &str = "vacuum (skip_locked, truncate off) outbox";
/// Rows deleted between two vacuums: a read stays below 2 ms, and a vacuum takes some 20.
const VACUUM_AFTER: usize = 50_000;
/// A vacuum that takes longer comes half as often the next time, down to once in so many.
const VACUUM_SLOW: Duration = Duration::from_millis(200);
const VACUUM_AT_LAST: usize = 1_600_000;
/// Beyond the server's own limit, so that a slow one ends the statement and not the connection.
const VACUUM_LIMIT: Duration = Duration::from_secs(3);

pub(super) struct PostgresOutbox {
    connection: Dedicated,
    claims: Claims,
    shared: Arc<ShardState>,
    marks: Marks,
    /// How often a shard was taken.
    generation: u64,
    /// Published rows that the next read deletes.
    unwanted: Vec<i64>,
    /// Rows deleted since the last vacuum, and after how many the next one is due.
    deleted: usize,
    vacuum_after: usize,
    /// Since when nothing was deleted of what was read.
    stuck: Option<Instant>,
    /// Until when it yields, and for how long the next time.
    yields_until: Option<Instant>,
    yield_for: Duration,
}

impl PostgresOutbox {
    pub(super) async fn open(store: &PostgresStore, lease: Lease) -> Result<Self, StoreError> {
        let connection = Dedicated::connect(&store.connector, SETTINGS, Duration::ZERO).await?;
        let shared = Arc::clone(&store.shards);
        Ok(Self {
            claims: Claims::begin(Arc::clone(&shared), lease, &connection).await?,
            connection,
            shared,
            marks: Marks::new(),
            generation: 0,
            unwanted: Vec::new(),
            deleted: 0,
            vacuum_after: VACUUM_AFTER,
            stuck: None,
            yields_until: None,
            yield_for: YIELD.0,
        })
    }

    async fn rows(&self, sql: &'static str, parameters: Parameters<'_>) -> Result<Vec<Row>, StoreError> {
        if self.connection.is_closed() {
            return Err(StoreError::Unavailable("the relay's connection is closed".to_owned()));
        }
        self.connection.rows(LIMIT, sql, parameters).await
    }

    /// Whether it yields the shards to others: it begins to, goes on, or comes back.
    fn yields(&mut self) -> bool {
        if let Some(until) = self.yields_until {
            if Instant::now() < until && self.claims.has_others() {
                return true;
            }
            (self.yields_until, self.stuck) = (None, None);
        }
        if self.stuck.is_none_or(|since| since.elapsed() < STUCK) || !self.claims.has_others() {
            return false;
        }
        self.yields_until = Some(Instant::now() + self.yield_for);
        self.yield_for = (2 * self.yield_for).min(YIELD.1);
        tracing::info!("what this node cannot publish is left to other nodes for a while");
        true
    }

    /// One read; none where a claim does not hold.
    async fn read_once(&mut self, max: i64) -> Result<Option<Vec<Row>>, StoreError> {
        let (node, epoch, claim_epoch) = self.claims.parameters();
        let held = self.claims.held();
        let (shards, ids): (Vec<i16>, Vec<i64>) = self.unwanted.iter().copied().map(unpacked).unzip();
        let marks = self.marks.of(held);
        let rows = self.rows(READ, &[&node, &epoch, &claim_epoch, &held, &marks, &max, &shards, &ids]).await?;
        self.unwanted.clear();
        let Some(first) = rows.first() else {
            self.claims.doubt();
            return Ok(None);
        };
        let empty = get::<Option<i64>>(first, 0)?.is_none();
        Ok(Some(if empty { Vec::new() } else { rows }))
    }

    async fn delete_unwanted(&mut self) -> Result<(), StoreError> {
        if !self.unwanted.is_empty() {
            let (shards, ids): (Vec<i16>, Vec<i64>) = self.unwanted.iter().copied().map(unpacked).unzip();
            self.rows(DELETE, &[&shards, &ids]).await?;
            self.unwanted.clear();
        }
        Ok(())
    }
}

/// A row's id outside: with its shard in it, so that a deletion finds it by the primary key.
fn packed(id: i64, shard: i16) -> i64 {
    id * SHARDS as i64 + i64::from(shard)
}

fn unpacked(packed: i64) -> (i16, i64) {
    let shards = SHARDS as i64;
    let shard = i16::try_from(packed.rem_euclid(shards)).expect("less than the number of shards");
    (shard, packed.div_euclid(shards))
}

fn place(row: &Row) -> Result<(i16, i64), StoreError> {
    Ok((get(row, 1)?, get(row, 0)?))
}

fn row(row: &Row) -> Result<OutboxRow, StoreError> {
    let columns = EventColumns {
        id: get(row, 0)?,
        operation: get(row, 7)?,
        reason: get(row, 5)?,
        state: get(row, 10)?,
        role: get(row, 11)?,
        info: get(row, 12)?,
    };
    let (change, info) = columns.read().map_err(unreadable)?;
    Ok(OutboxRow {
        id: packed(get(row, 0)?, get(row, 1)?),
        classroom: ClassroomId(get(row, 2)?),
        agent: AgentId::parse(get(row, 3)?).map_err(unreadable)?,
        session: SessionId(get(row, 4)?),
        change,
        info,
        nonce: Nonce(get(row, 8)?),
        trace: get::<Option<&str>>(row, 13)?.and_then(TraceParent::parse),
        waited: Duration::from_secs_f64(get(row, 6)?),
    })
}

#[async_trait]
impl Outbox for PostgresOutbox {
    async fn claim(&mut self) -> Result<usize, StoreError> {
        if self.connection.is_closed() {
            return Err(StoreError::Unavailable("the relay's connection is closed".to_owned()));
        }
        self.shared.rest();
        let wants = !self.yields();
        if self.claims.are_settled(wants) {
            return Ok(self.claims.held().len());
        }
        // Whoever gets a shard next would publish them again.
        self.delete_unwanted().await?;
        let taken = self.claims.settle(&self.connection, wants).await?;
        self.generation += u64::from(!taken.is_empty());
        taken.into_iter().for_each(|shard| self.marks.forget(shard));
        Ok(self.claims.held().len())
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    async fn read(&mut self, max: usize) -> Result<Vec<OutboxRow>, StoreError> {
        if !self.claims.are_fresh() {
            self.claim().await?;
        }
        if !self.claims.begin_read() {
            self.delete_unwanted().await?;
            return Ok(Vec::new());
        }
        let max = whole(max.div_ceil(self.claims.held().len()));
        for _ in 0..READS {
            let Some(rows) = self.read_once(max).await? else { break };
            let places: Vec<(i16, i64)> = rows.iter().map(place).collect::<Result<_, _>>()?;
            self.marks.read(self.claims.held(), places.iter().copied());
            let mut sorted = SortedRows::default();
            for (row, (shard, id)) in rows.iter().zip(places) {
                let classroom: Uuid = get(row, 2)?;
                let agent: &str = get(row, 3)?;
                let key = (classroom, agent.to_owned());
                sorted.add(key, packed(id, shard), get(row, 9)?, || self::row(row));
            }
            let (rows, quarantined) = sorted.finish();
            for (ids, why) in &quarantined {
                self.quarantine(ids, why).await?;
            }
            if !rows.is_empty() {
                self.stuck.get_or_insert_with(Instant::now);
            }
            if !rows.is_empty() {
                return Ok(rows);
            }
            if quarantined.is_empty() {
                break;
            }
        }
        self.shared.rest();
        Ok(Vec::new())
    }

    async fn quarantine(&mut self, ids: &[i64], why: &str) -> Result<(), StoreError> {
        let (shards, rows): (Vec<i16>, Vec<i64>) = ids.iter().copied().map(unpacked).unzip();
        self.rows(QUARANTINE, &[&shards, &rows, &why, &RETRY_AFTER.as_secs_f64()]).await.map(drop)
    }

    async fn release_quarantined(&mut self) -> Result<u64, StoreError> {
        if !self.claims.are_fresh() {
            self.claim().await?;
        }
        let rows = self.rows(QUARANTINED, &[&self.claims.held()]).await?;
        let mut count: i64 = only(&rows)?;
        if count > 0 {
            let (node, epoch, claim_epoch) = self.claims.parameters();
            let held = self.claims.held();
            let (marks, max) = (self.marks.of(held), whole(RELEASED_AT_ONCE));
            let values: Parameters<'_> = &[&node, &epoch, &claim_epoch, &held, &marks, &max];
            let released = self.rows(RELEASE_QUARANTINED, values).await?.len();
            if released > 0 {
                self.marks.forget_all();
            }
            count -= whole(released).min(count);
        }
        unsigned(count)
    }

    async fn delete(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        self.shared.rest();
        self.unwanted.extend(ids);
        (self.stuck, self.yield_for) = (None, YIELD.0);
        self.deleted += ids.len();
        if self.unwanted.len() > FEW {
            self.delete_unwanted().await?;
        }
        if self.deleted >= self.vacuum_after {
            self.deleted = 0;
            let since = Instant::now();
            if let Err(error) = self.connection.run(VACUUM_LIMIT, VACUUM).await {
                tracing::debug!(%error, "the outbox is left to autovacuum");
            }
            // A transaction that was left open keeps the rows in place, and every vacuum goes over all of them in vain.
            let slow = since.elapsed() > VACUUM_SLOW;
            self.vacuum_after = if slow { (2 * self.vacuum_after).min(VACUUM_AT_LAST) } else { VACUUM_AFTER };
        }
        Ok(())
    }

    fn owes(&self) -> bool {
        !self.unwanted.is_empty()
    }

    async fn wait(&mut self, max: Duration) -> Result<(), StoreError> {
        self.shared.rest();
        // The end of the wait is a reason to look, too.
        let shared = Arc::clone(&self.shared);
        if self.owes() && timeout(DELETE_AFTER.min(max), shared.wait()).await.is_ok() {
            return Ok(());
        }
        self.delete_unwanted().await?;
        timeout(max, shared.wait()).await.ok();
        if self.connection.is_closed() {
            return Err(StoreError::Unavailable("the relay's connection is closed".to_owned()));
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn ids_come_apart_again_and_keep_their_order() {
        for (id, shard) in [(1, 0), (1, 7), (2, 0), (i64::MAX / 16, 5)] {
            assert_eq!(unpacked(packed(id, shard)), (shard, id));
        }
        assert!(packed(1, 7) < packed(2, 0));
    }
}
