//! The outbox's shards, each read by one relay at a time ([`super::shard_claims`]).
//!
//! Invariant: rows are read only if the claim on their shard is valid in the same statement. Deleting a published row
//! does no harm, by any node and at any time, because no id is given out again.
mod looks;
mod marks;
mod statements;
mod vacuum;
mod yielding;

use std::{sync::Arc, time::Duration};

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, Nonce, SessionId, TraceParent};
use tokio::time::timeout;
use tokio_postgres::Row;
use uuid::Uuid;

use self::{
    looks::Looks,
    marks::Marks,
    statements::{DELETE, QUARANTINE, QUARANTINED, READ, RELEASE_QUARANTINED},
    vacuum::Vacuum,
    yielding::Yielding,
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

/// If a crash of the server undoes a deletion, the same event is only published again with the same id. That is not
/// worth waiting for the disk, for which joins would have to wait, too.
const SETTINGS: &str = "-c synchronous_commit=off";

/// How many deletions may wait for the next read, and for how long.
const FEW: usize = 32;
const DELETE_AFTER: Duration = Duration::from_millis(100);

/// How often a read begins again after it quarantined rows. After that it returns what it has.
const READS: usize = 8;

pub(super) struct PostgresOutbox {
    connection: Dedicated,
    claims: Claims,
    shared: Arc<ShardState>,
    looks: Looks,
    marks: Marks,
    /// How often a shard was taken.
    generation: u64,
    /// Published rows that the next read deletes.
    unwanted: Vec<i64>,
    vacuum: Vacuum,
    yielding: Yielding,
}

impl PostgresOutbox {
    pub(super) async fn open(store: &PostgresStore, lease: Lease) -> Result<Self, StoreError> {
        let connection = Dedicated::connect(&store.connector, SETTINGS, Duration::ZERO).await?;
        let shared = Arc::clone(&store.shards);
        Ok(Self {
            claims: Claims::begin(Arc::clone(&shared), lease, &connection).await?,
            connection,
            shared,
            looks: Looks::default(),
            marks: Marks::new(),
            generation: 0,
            unwanted: Vec::new(),
            vacuum: Vacuum::default(),
            yielding: Yielding::default(),
        })
    }

    /// Returns an error if the relay's connection is closed.
    fn expect_open(&self) -> Result<(), StoreError> {
        match self.connection.is_closed() {
            true => Err(StoreError::Unavailable("the relay's connection is closed".to_owned())),
            false => Ok(()),
        }
    }

    async fn rows(&self, sql: &'static str, parameters: Parameters<'_>) -> Result<Vec<Row>, StoreError> {
        self.expect_open()?;
        self.connection.rows(LIMIT, sql, parameters).await
    }

    /// Reads these shards once. Returns `None` if a claim is not valid.
    async fn read_once(&mut self, looked_at: &[i16], max: i64) -> Result<Option<Vec<Row>>, StoreError> {
        let (node, epoch, claim_epoch) = self.claims.parameters();
        let (shards, ids): (Vec<i16>, Vec<i64>) = self.unwanted.iter().copied().map(unpacked).unzip();
        let marks = self.marks.of(looked_at);
        let rows = self.rows(READ, &[&node, &epoch, &claim_epoch, &looked_at, &marks, &max, &shards, &ids]).await?;
        self.unwanted.clear();
        let Some(first) = rows.first() else {
            self.claims.doubt();
            self.looks.at_all();
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

/// Returns the id of a row for callers. The id contains the shard, so that a deletion finds the row by its primary key.
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
        self.expect_open()?;
        self.shared.rest();
        let wants = !self.yielding.yields(self.claims.has_others());
        if self.claims.are_settled(wants) {
            return Ok(self.claims.held().len());
        }
        // The node that gets a shard next would publish these rows again, so they are deleted first.
        self.delete_unwanted().await?;
        let taken = self.claims.settle(&self.connection, wants).await?;
        if !taken.is_empty() {
            self.generation += 1;
            self.looks.at_all();
        }
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
        let looked_at = self.looks.next(self.claims.held(), self.shared.take_woken());
        for _ in 0..READS {
            let Some(rows) = self.read_once(&looked_at, max).await? else { break };
            let places: Vec<(i16, i64)> = rows.iter().map(place).collect::<Result<_, _>>()?;
            self.looks.found(places.iter().map(|(shard, _)| *shard));
            if looked_at == self.claims.held() {
                self.marks.read(&looked_at, places.iter().copied());
            }
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
                self.yielding.read();
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
                self.looks.at_all();
            }
            count -= whole(released).min(count);
        }
        unsigned(count)
    }

    async fn delete(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        self.shared.rest();
        self.unwanted.extend(ids);
        self.yielding.deleted();
        if self.unwanted.len() > FEW {
            self.delete_unwanted().await?;
        }
        self.vacuum.deleted(&self.connection, ids.len()).await;
        Ok(())
    }

    fn bus_is_away(&mut self, away: bool) {
        self.yielding.bus_is_away(away);
    }

    fn owes(&self) -> bool {
        !self.unwanted.is_empty()
    }

    async fn wait(&mut self, max: Duration) -> Result<(), StoreError> {
        self.shared.rest();
        // The shards are read also when the wait has ended.
        let shared = Arc::clone(&self.shared);
        if self.owes() && timeout(DELETE_AFTER.min(max), shared.wait()).await.is_ok() {
            return Ok(());
        }
        self.delete_unwanted().await?;
        timeout(max, shared.wait()).await.ok();
        self.expect_open()?;
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
