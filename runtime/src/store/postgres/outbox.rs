//! The outbox's shards, each read by one relay at a time.
//!
//! Invariant: a shard is read and deleted from only on the connection that holds its advisory lock, so the lock goes
//! with whatever ends the connection: the process's death, a broken line, or the server, which ends a relay that was
//! stopped and asks for nothing within [`SETTINGS`]. Each relay also holds one shared lock, so that relays can be counted.
//!
//! A relay that reads and deletes nothing is cut off from the bus, or the bus is away. Where there are other relays it
//! gives everything back for a while, so that the events of its shards need not wait for it; the last one stays.
use std::{
    sync::{
        Arc,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, Nonce, SessionId};
use tokio::{
    sync::watch,
    time::{Instant, timeout},
};
use tokio_postgres::Row;

use super::{
    LIMIT, LOCKS, PostgresStore,
    connect::Dedicated,
    pool::{Parameters, unreadable},
};
use crate::store::{Change, Outbox, OutboxRow, StoreError};

/// As in the table's generated column.
const SHARDS: i16 = 8;
/// The shared lock's number, beside the shards'.
const PRESENT: i32 = 100;
/// Idle for long enough for a busy relay that claims every second. A deletion that a crash of the server undoes means
/// only that the same event is published again under its id: not worth a sync of the disk, for which joins would wait.
const SETTINGS: &str = "-c idle_session_timeout=4000 -c synchronous_commit=off";

/// Between two times that other nodes are told: each wakes every relay there is.
const TELL_EVERY: Duration = Duration::from_millis(25);

/// How long nothing may be deleted of what was read.
const STUCK: Duration = Duration::from_secs(1);
/// How long a relay stands aside, and the longest after which it tries again.
const ASIDE: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(15));

const COUNT_ME: &str = "select pg_backend_pid() from pg_advisory_lock_shared($1, $2)";
const COUNT_ME_OUT: &str = "select pg_advisory_unlock_shared($1, $2)";
const CLAIM: &str = "select pg_try_advisory_lock($1, $2)";
const GIVE_BACK: &str = "select pg_advisory_unlock($1, $2)";
/// By the relay after the commit: transactions that notify commit one after the other, each with its sync of the disk,
/// also those of different nodes. Here there is no sync to wait for.
const TELL: &str = "select pg_notify('rollcall_outbox', '')";
const RELAYS: &str = "select count(*) from pg_locks where locktype = 'advisory' and classid::bigint = $1 and \
    objid::bigint = $2 and database = (select oid from pg_database where datname = current_database())";

/// The keys of one shard are never in another, so order within each is enough.
const READ: &str = "select o.id, o.shard, o.classroom_id, o.agent_id, o.session_id, o.reason,
        greatest(extract(epoch from clock_timestamp() - o.created_at), 0)::float8,
        o.operation, o.nonce
    from unnest($1::smallint[]) as mine(shard) cross join lateral (
        select * from outbox where outbox.shard = mine.shard order by id limit $2
    ) as o
    order by o.id";

/// `any` as in [`super::sessions`].
const DELETE: &str = "delete from outbox o using unnest($1::smallint[], $2::bigint[]) as d(shard, id)
    where o.shard = any (array[d.shard]) and o.id = d.id";

/// A queue leaves dead index entries at its front, and each read steps over them (14 ms after 600,000 rows); autovacuum
/// comes once a minute.
const VACUUM: &str = "vacuum (skip_locked, truncate off) outbox";
/// Rows deleted between two vacuums: a read stays below 2 ms, and a vacuum takes some 20.
const VACUUM_AFTER: usize = 50_000;
/// Beyond the server's own limit, so that a slow one ends the statement and not the connection.
const VACUUM_LIMIT: Duration = Duration::from_secs(3);

pub(super) struct PostgresOutbox {
    connection: Dedicated,
    held: Vec<i16>,
    /// Since the last vacuum.
    deleted: usize,
    /// Since when nothing was deleted of what was read.
    stuck: Option<Instant>,
    /// Until when it stands aside, and for how long the next time.
    aside: Option<Instant>,
    patience: Duration,
    /// Where it starts to look for free shards, so that relays do not race for the same ones.
    first: i16,
    changed: watch::Receiver<u64>,
    untold: Arc<AtomicBool>,
    /// When other nodes were told.
    told: Option<Instant>,
}

impl PostgresOutbox {
    pub(super) async fn open(store: &PostgresStore) -> Result<Self, StoreError> {
        let wake = store.wake.clone();
        let changed = wake.subscribe();
        let connection = Dedicated::connect(&store.connector, SETTINGS, Duration::ZERO, Some(wake)).await?;
        connection.run(LIMIT, "listen rollcall_outbox").await?;
        let rows = connection.rows(LIMIT, COUNT_ME, &[&LOCKS, &PRESENT]).await?;
        let pid: i32 = rows.first().ok_or_else(|| unreadable("none"))?.try_get(0).map_err(unreadable)?;
        let first = i16::try_from(pid % i32::from(SHARDS)).map_err(unreadable)?;
        Ok(Self {
            connection,
            held: Vec::new(),
            deleted: 0,
            stuck: None,
            aside: None,
            patience: ASIDE.0,
            first,
            changed,
            untold: store.untold.clone(),
            told: None,
        })
    }

    async fn rows(&self, sql: &'static str, parameters: Parameters<'_>) -> Result<Vec<Row>, StoreError> {
        if self.connection.is_closed() {
            return Err(StoreError::Unavailable("the relay's connection is closed".to_owned()));
        }
        self.connection.rows(LIMIT, sql, parameters).await
    }

    /// How many hold shards or want some.
    async fn relays(&self) -> Result<usize, StoreError> {
        let rows = self.rows(RELAYS, &[&i64::from(LOCKS), &i64::from(PRESENT)]).await?;
        let relays: i64 = rows.first().ok_or_else(|| unreadable("none"))?.try_get(0).map_err(unreadable)?;
        usize::try_from(relays).map_err(unreadable)
    }

    /// Tells other nodes of rows, if there are any that they were not told of and it is time.
    async fn tell(&mut self) -> Result<(), StoreError> {
        if self.told.is_none_or(|told| told.elapsed() >= TELL_EVERY) && self.untold.swap(false, Ordering::Relaxed) {
            self.rows(TELL, &[]).await?;
            self.told = Some(Instant::now());
        }
        Ok(())
    }

    async fn give_back(&mut self, share: usize) -> Result<(), StoreError> {
        while self.held.len() > share {
            if let Some(shard) = self.held.pop() {
                self.rows(GIVE_BACK, &[&LOCKS, &i32::from(shard)]).await?;
            }
        }
        Ok(())
    }

    /// Whether it leaves the shards to others: it begins to, goes on, or comes back.
    async fn stands_aside(&mut self) -> Result<bool, StoreError> {
        if let Some(until) = self.aside {
            if Instant::now() < until && self.relays().await? > 0 {
                return Ok(true);
            }
            self.rows(COUNT_ME, &[&LOCKS, &PRESENT]).await?;
            (self.aside, self.stuck) = (None, None);
        }
        if self.stuck.is_none_or(|since| since.elapsed() < STUCK) || self.relays().await? < 2 {
            return Ok(false);
        }
        self.give_back(0).await?;
        self.rows(COUNT_ME_OUT, &[&LOCKS, &PRESENT]).await?;
        self.aside = Some(Instant::now() + self.patience);
        self.patience = (2 * self.patience).min(ASIDE.1);
        tracing::info!("what this node cannot publish is left to other nodes for a while");
        Ok(true)
    }
}

/// A row's id outside: with its shard in it, so that a deletion finds it by the primary key.
fn packed(id: i64, shard: i16) -> i64 {
    id * i64::from(SHARDS) + i64::from(shard)
}

fn unpacked(packed: i64) -> (i16, i64) {
    let shards = i64::from(SHARDS);
    let shard = i16::try_from(packed.rem_euclid(shards)).expect("less than the number of shards");
    (shard, packed.div_euclid(shards))
}

fn row(row: &Row) -> Result<OutboxRow, StoreError> {
    let (operation, reason): (&str, Option<&str>) =
        (row.try_get(7).map_err(unreadable)?, row.try_get(5).map_err(unreadable)?);
    Ok(OutboxRow {
        id: packed(row.try_get(0).map_err(unreadable)?, row.try_get(1).map_err(unreadable)?),
        classroom: ClassroomId(row.try_get(2).map_err(unreadable)?),
        agent: AgentId::parse(row.try_get(3).map_err(unreadable)?).map_err(unreadable)?,
        session: SessionId(row.try_get(4).map_err(unreadable)?),
        change: Change::parse(operation, reason).map_err(unreadable)?,
        nonce: Nonce(row.try_get(8).map_err(unreadable)?),
        waited: Duration::from_secs_f64(row.try_get(6).map_err(unreadable)?),
    })
}

#[async_trait]
impl Outbox for PostgresOutbox {
    async fn claim(&mut self) -> Result<usize, StoreError> {
        if self.stands_aside().await? {
            return Ok(0);
        }
        let share = usize::from(SHARDS.unsigned_abs()).div_ceil(self.relays().await?.max(1));
        self.give_back(share).await?;
        for shard in (0..SHARDS).map(|step| (self.first + step) % SHARDS) {
            if self.held.len() >= share {
                break;
            }
            if self.held.contains(&shard) {
                continue;
            }
            let rows = self.rows(CLAIM, &[&LOCKS, &i32::from(shard)]).await?;
            if rows.first().is_some_and(|row| row.try_get(0).unwrap_or(false)) {
                self.held.push(shard);
            }
        }
        Ok(self.held.len())
    }

    async fn read(&mut self, most: usize) -> Result<Vec<OutboxRow>, StoreError> {
        self.tell().await?;
        if self.held.is_empty() {
            return Ok(Vec::new());
        }
        let most = i64::try_from(most.div_ceil(self.held.len())).map_err(unreadable)?;
        let rows = self.rows(READ, &[&self.held, &most]).await?;
        if !rows.is_empty() {
            self.stuck.get_or_insert_with(Instant::now);
        }
        rows.iter().map(row).collect()
    }

    async fn delete(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        let (shards, ids): (Vec<i16>, Vec<i64>) = ids.iter().copied().map(unpacked).unzip();
        self.rows(DELETE, &[&shards, &ids]).await?;
        (self.stuck, self.patience) = (None, ASIDE.0);
        self.deleted += ids.len();
        if self.deleted >= VACUUM_AFTER {
            self.deleted = 0;
            if let Err(error) = self.connection.run(VACUUM_LIMIT, VACUUM).await {
                tracing::debug!(%error, "the outbox is left to autovacuum");
            }
        }
        Ok(())
    }

    async fn wait(&mut self, most: Duration) -> Result<(), StoreError> {
        // Others are still to be told of what came just after they were told.
        let most = if self.untold.load(Ordering::Relaxed) { TELL_EVERY.min(most) } else { most };
        // The end of the wait, and an end of the store, are both a reason to look.
        timeout(most, self.changed.changed()).await.ok();
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
