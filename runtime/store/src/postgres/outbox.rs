//! The outbox's shards, each read by one relay at a time.
//!
//! Invariant: a shard is read, and its published rows deleted, only on the connection that holds its advisory lock, so the lock goes
//! with whatever ends the connection: the process's death, a broken line, or the server, which ends a relay that was
//! stopped and asks for nothing within [`SETTINGS`]. Each relay also holds one shared lock, so that relays can be counted.
//!
//! A relay that reads and deletes nothing is cut off from the bus, or the bus is away. Where there are other relays it
//! yields: it gives all shards back for a while, so that their events need not wait for it. The last one does not.
mod marks;

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
use uuid::Uuid;

use self::marks::Marks;
use super::{
    LIMIT, LOCKS,
    connect::Dedicated,
    rows::{Parameters, get, only, unreadable, unsigned, whole},
    store::PostgresStore,
};
use crate::{
    Outbox, OutboxRow, StoreError,
    outbox::EventColumns,
    outbox_quarantine::{RELEASED_AT_ONCE, RETRY_AFTER, SortedRows},
};

/// As in the table's generated column.
const SHARDS: i16 = 8;
/// The shared lock's number, beside the shards'.
const PRESENT: i32 = 100;
/// Idle for long enough for a busy relay that claims every second. A deletion that a crash of the server undoes means
/// only that the same event is published again under its id: not worth a sync of the disk, for which joins would wait.
const SETTINGS: &str = "-c idle_session_timeout=4000 -c synchronous_commit=off";

/// Between two notifications of other nodes: each wakes every relay there is.
const NOTIFY_EVERY: Duration = Duration::from_millis(25);

/// How often a read begins again after it quarantined rows, before it gives up for this time.
const READS: usize = 8;

/// How long nothing may be deleted of what was read.
const STUCK: Duration = Duration::from_secs(1);
/// For how long a relay yields at first, and at most.
const YIELD: (Duration, Duration) = (Duration::from_secs(4), Duration::from_secs(15));

const COUNT_ME: &str = "select pg_backend_pid() from pg_advisory_lock_shared($1, $2)";
const COUNT_ME_OUT: &str = "select pg_advisory_unlock_shared($1, $2)";
const CLAIM: &str = "select pg_try_advisory_lock($1, $2)";
const GIVE_BACK: &str = "select pg_advisory_unlock($1, $2)";
/// By the relay after the commit: transactions that notify commit one after the other, each with its sync of the disk,
/// also those of different nodes. Here there is no sync to wait for.
const NOTIFY: &str = "select pg_notify('rollcall_outbox', '')";
const RELAYS: &str = "select count(*) from pg_locks where locktype = 'advisory' and classid::bigint = $1 and \
    objid::bigint = $2 and database = (select oid from pg_database where datname = current_database())";

/// The keys of one shard are never in another, so order within each is enough. The tenth column: an earlier row of the same
/// agent in the same classroom is quarantined.
const READ: &str = "select o.id, o.shard, o.classroom_id, o.agent_id, o.session_id, o.reason,
        greatest(extract(epoch from clock_timestamp() - o.created_at), 0)::float8,
        o.operation, o.nonce, exists (
            select from outbox_quarantine a
            where a.classroom_id = o.classroom_id and a.agent_id = o.agent_id and a.id < o.id
        ), o.state, o.role, o.info
    from unnest($1::smallint[], $3::bigint[]) as mine(shard, after) cross join lateral (
        select * from outbox where outbox.shard = mine.shard and outbox.id > mine.after order by id limit $2
    ) as o
    order by o.id";

/// `any` as in [`super::sessions`].
const DELETE: &str = "delete from outbox o using unnest($1::smallint[], $2::bigint[]) as d(shard, id)
    where o.shard = any (array[d.shard]) and o.id = d.id";

const QUARANTINE: &str = "with gone as (
        delete from outbox o using unnest($1::smallint[], $2::bigint[]) as d(shard, id)
        where o.shard = any (array[d.shard]) and o.id = d.id
        returning o.id, o.shard, o.classroom_id, o.agent_id, o.session_id, o.operation, o.reason, o.nonce, o.created_at,
            o.state, o.role, o.info
    )
    insert into outbox_quarantine (id, shard, classroom_id, agent_id, session_id, operation, reason, nonce, created_at,
        state, role, info, why, retry_at)
    select gone.*, $3, clock_timestamp() + make_interval(secs => $4) from gone";

/// All rows of some agents whose time has come, under their old ids, so that those that come later stay behind them.
const RELEASE_QUARANTINED: &str = "with due as (
        select distinct classroom_id, agent_id from (
            select classroom_id, agent_id from outbox_quarantine
            where shard = any ($1) and retry_at <= clock_timestamp() order by retry_at limit $2
        ) as first
    ), gone as (
        delete from outbox_quarantine a using due where a.classroom_id = due.classroom_id and a.agent_id = due.agent_id
        returning a.id, a.classroom_id, a.agent_id, a.session_id, a.operation, a.reason, a.nonce, a.created_at,
            a.state, a.role, a.info
    )
    insert into outbox (id, classroom_id, agent_id, session_id, operation, reason, nonce, created_at, state, role, info)
    overriding system value select * from gone returning id";

/// Counted up to a limit, because nothing bounds the table.
const QUARANTINED: &str =
    "select count(*) from (select from outbox_quarantine where shard = any ($1) limit 10000) as a";

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
    held: Vec<i16>,
    marks: Marks,
    /// How often a shard was taken.
    generation: u64,
    /// Since the last vacuum, and after how many the next one is due.
    deleted: usize,
    vacuum_after: usize,
    /// Since when nothing was deleted of what was read.
    stuck: Option<Instant>,
    /// Until when it yields, and for how long the next time.
    yields_until: Option<Instant>,
    yield_for: Duration,
    /// Where it starts to look for free shards, so that relays do not race for the same ones.
    first: i16,
    changed: watch::Receiver<u64>,
    unnotified: Arc<AtomicBool>,
    /// When other nodes were notified.
    notified: Option<Instant>,
}

impl PostgresOutbox {
    pub(super) async fn open(store: &PostgresStore) -> Result<Self, StoreError> {
        let wake = store.wake.clone();
        let changed = wake.subscribe();
        let connection = Dedicated::connect(&store.connector, SETTINGS, Duration::ZERO, Some(wake)).await?;
        connection.run(LIMIT, "listen rollcall_outbox").await?;
        let rows = connection.rows(LIMIT, COUNT_ME, &[&LOCKS, &PRESENT]).await?;
        let pid: i32 = only(&rows)?;
        let first = i16::try_from(pid % i32::from(SHARDS)).map_err(unreadable)?;
        Ok(Self {
            connection,
            held: Vec::new(),
            marks: Marks::new(),
            generation: 0,
            deleted: 0,
            vacuum_after: VACUUM_AFTER,
            stuck: None,
            yields_until: None,
            yield_for: YIELD.0,
            first,
            changed,
            unnotified: store.unnotified.clone(),
            notified: None,
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
        let relays: i64 = only(&rows)?;
        unsigned(relays)
    }

    /// Notifies other nodes of new rows, where it is time.
    async fn notify_nodes(&mut self) -> Result<(), StoreError> {
        if self.notified.is_none_or(|notified| notified.elapsed() >= NOTIFY_EVERY)
            && self.unnotified.swap(false, Ordering::Relaxed)
        {
            self.rows(NOTIFY, &[]).await?;
            self.notified = Some(Instant::now());
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

    /// Whether it yields the shards to others: it begins to, goes on, or comes back.
    async fn yields(&mut self) -> Result<bool, StoreError> {
        if let Some(until) = self.yields_until {
            if Instant::now() < until && self.relays().await? > 0 {
                return Ok(true);
            }
            self.rows(COUNT_ME, &[&LOCKS, &PRESENT]).await?;
            (self.yields_until, self.stuck) = (None, None);
        }
        if self.stuck.is_none_or(|since| since.elapsed() < STUCK) || self.relays().await? < 2 {
            return Ok(false);
        }
        self.give_back(0).await?;
        self.rows(COUNT_ME_OUT, &[&LOCKS, &PRESENT]).await?;
        self.yields_until = Some(Instant::now() + self.yield_for);
        self.yield_for = (2 * self.yield_for).min(YIELD.1);
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
        waited: Duration::from_secs_f64(get(row, 6)?),
    })
}

#[async_trait]
impl Outbox for PostgresOutbox {
    async fn claim(&mut self) -> Result<usize, StoreError> {
        if self.yields().await? {
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
                self.marks.forget(shard);
                self.generation += 1;
            }
        }
        Ok(self.held.len())
    }

    fn generation(&self) -> u64 {
        self.generation
    }

    async fn read(&mut self, max: usize) -> Result<Vec<OutboxRow>, StoreError> {
        self.notify_nodes().await?;
        if self.held.is_empty() {
            return Ok(Vec::new());
        }
        let max = whole(max.div_ceil(self.held.len()));
        for _ in 0..READS {
            let rows = self.rows(READ, &[&self.held, &max, &self.marks.of(&self.held)]).await?;
            let places: Vec<(i16, i64)> = rows.iter().map(place).collect::<Result<_, _>>()?;
            self.marks.read(&self.held, places.iter().copied());
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
            if !rows.is_empty() || quarantined.is_empty() {
                return Ok(rows);
            }
        }
        Ok(Vec::new())
    }

    async fn quarantine(&mut self, ids: &[i64], why: &str) -> Result<(), StoreError> {
        let (shards, rows): (Vec<i16>, Vec<i64>) = ids.iter().copied().map(unpacked).unzip();
        self.rows(QUARANTINE, &[&shards, &rows, &why, &RETRY_AFTER.as_secs_f64()]).await.map(drop)
    }

    async fn release_quarantined(&mut self) -> Result<u64, StoreError> {
        let max = whole(RELEASED_AT_ONCE);
        if !self.rows(RELEASE_QUARANTINED, &[&self.held, &max]).await?.is_empty() {
            self.marks.forget_all();
        }
        let rows = self.rows(QUARANTINED, &[&self.held]).await?;
        let count: i64 = only(&rows)?;
        unsigned(count)
    }

    async fn delete(&mut self, ids: &[i64]) -> Result<(), StoreError> {
        let (shards, ids): (Vec<i16>, Vec<i64>) = ids.iter().copied().map(unpacked).unzip();
        self.rows(DELETE, &[&shards, &ids]).await?;
        (self.stuck, self.yield_for) = (None, YIELD.0);
        self.deleted += ids.len();
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

    async fn wait(&mut self, max: Duration) -> Result<(), StoreError> {
        // Others are still to be notified of rows that came just after the last notification.
        let max = if self.unnotified.load(Ordering::Relaxed) { NOTIFY_EVERY.min(max) } else { max };
        // The end of the wait, and an end of the store, are both a reason to look.
        timeout(max, self.changed.changed()).await.ok();
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
