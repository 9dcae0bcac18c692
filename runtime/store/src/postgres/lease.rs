//! Nodes and their leases: enter, renew, take over, leave.
//!
//! Every writer locks its node's row `for key share` and compares the epoch, in the statement that writes
//! ([`super::sessions`]). Whoever takes a lease locks the row `for update`: it waits for the writes in flight, and the
//! ones that wait for it find the new epoch and write nothing.
use std::{
    collections::HashMap,
    sync::{MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use rollcall_schema::{Epoch, NodeId, SessionId, Sid};
use tokio_postgres::Row;

use super::{PostgresStore, pool::unreadable, reads::sid};
use crate::{HeartbeatReply, Lease, Registration, StoreError};
use rollcall_base::process::ProcessIdentity;

const REGISTER: &str = "insert into node (label, lease_until, standalone, process) \
    values ($1, clock_timestamp() + make_interval(secs => $2), $3, $4) \
    returning id, epoch, (extract(epoch from lease_until) * 1000000)::bigint";

/// Another live node that may not be beside this one. Both of two that start at once see each other: none stays.
const RIVAL: &str = "select label, extract(epoch from lease_until - clock_timestamp())::float8, id, process from node \
    where id <> $1 and not taken and lease_until > clock_timestamp() and (standalone or $2) order by id limit 1";

/// Takes the lease of a node whose process is dead. Its sessions stay until they are reaped, for their clients to take over.
const TAKE_DEAD: &str = "with dead as materialized (
        select id from node where id = $1 and process = $2 and not taken for update
    )
    update node set epoch = epoch + 1, taken = true from dead where node.id = dead.id";

const FORGET: &str = "delete from node where id = $1";

/// Written only once a quarter of the lease has gone: each write leaves a dead row version, and as long as somebody holds
/// an old snapshot none of them is removed, and all of them are walked. The last column is of the lease as it was before.
const PULSE: &str = "with own as materialized (
        select id, lease_until from node where id = $1 and epoch = $2
    ), renewed as (
        update node set lease_until = clock_timestamp() + make_interval(secs => $3::float8)
        from own where node.id = own.id and node.epoch = $2 and node.lease_until = own.lease_until
            and own.lease_until < clock_timestamp() + make_interval(secs => $3 * 0.75::float8)
        returning node.lease_until
    )
    select
        array(select sid from takeover where takeover.node_id = own.id),
        (select count(*) from node where id = $1 or not taken and lease_until > clock_timestamp()),
        own.lease_until < clock_timestamp(),
        (extract(epoch from coalesce((select lease_until from renewed), own.lease_until)) * 1000000)::bigint
    from own";

/// A lease that has run out is left to the heartbeat, which must learn of it.
const PROBE: &str = "update node set lease_until = greatest(lease_until, clock_timestamp() + make_interval(secs => $3))
    where id = $1 and epoch = $2 and lease_until > clock_timestamp() returning id";

const TOLD: &str = "delete from takeover where node_id = $1 and sid = any ($2)";

/// Answers whether there is anything to sweep. A lease is taken a second after its end: by then a join of the node that
/// was under way to the key store was carried out there, or never will be (the Redis keys). A node whose own lease has run
/// out takes none: it stood still, and so may all have. That stays so until a heartbeat has found its lease unbroken: one
/// that has renewed it after a gap need not have answered yet. A node that is writing at this moment is not dead, and one
/// whose writes hang holds up no other's end.
const TAKE: &str = "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), expired as materialized (
        select node.id from node where id <> $1 and not taken
            and lease_until < clock_timestamp() - interval '1 second'
            and exists (select from node as own where own.id = $1 and own.lease_until > clock_timestamp()
                and (extract(epoch from own.lease_until) * 1000000)::bigint = $3)
        order by id for update skip locked
    ), marked as (
        update node set epoch = epoch + 1, taken = true
        from expired where node.id = expired.id and exists (select from fence) returning node.id
    )
    select exists (select from marked) or exists (select from node where taken) from fence";

/// Ends sessions of nodes that are taken; those that another reaper holds are skipped, for it ends them. The newest go
/// first: where an old snapshot holds dead rows, most of those are of older sessions, and need not be walked each time.
macro_rules! sweep {
    ($which:literal) => {
        concat!(
            "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), lost as materialized (
        select s.id from node n cross join lateral (
            select id from agent_session where node_id = n.id and ",
            $which,
            " for update skip locked
        ) as s
        where n.taken and exists (select from fence)
    ), gone as (
        delete from agent_session s where s.id = any (array(select id from lost))
        returning s.id, s.agent_id, s.classroom_id, s.user_id, s.sid, s.lesson_id, s.lesson_before, s.started_at
    ), history as (
        insert into agent_session_history (id, agent_id, classroom_id, user_id, lesson_id, lifetime, reason)
        select id, agent_id, classroom_id, user_id, lesson_id,
            tstzrange(started_at, greatest(clock_timestamp(), started_at + interval '1 microsecond')), 'node_lost'
        from gone
    ), events as (
        insert into outbox (classroom_id, agent_id, session_id, operation, reason)
        select classroom_id, agent_id, id, 'left', 'node_lost' from gone
    ), leavings as (
        insert into stale_field (node_id, lesson_id, user_id, sid)
        select $1, l.id, g.user_id, g.sid
        from gone g cross join lateral (values (g.lesson_id), (g.lesson_before)) as l(id) where l.id is not null
    )
    select count(*) from gone"
        )
    };
}

/// So many of each node, but for those left aside.
const SWEEP: &str = sweep!("id <> all ($4) order by id desc limit $3");
const SWEEP_ONE: &str = sweep!("id = $3");

const LOST: &str = "select s.id from node n cross join lateral (
        select id from agent_session where node_id = n.id and id <> all ($1) order by id desc limit $2
    ) as s
    where n.taken limit $2";

/// Nodes that were taken and have no session left. None can come back to them: their epoch is gone. Connections that
/// lost their session while their node was dead never hear of it.
const BURY: &str = "with buried as (
        delete from node n where taken and not exists (select from agent_session s where s.node_id = n.id)
        returning id
    )
    delete from takeover t using buried where t.node_id = buried.id";

const RETIRE: &str = "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for update
    )
    update node set epoch = epoch + 1, taken = true from fence where node.id = fence.id returning node.id";

impl PostgresStore {
    fn unbroken_until(&self) -> MutexGuard<'_, HashMap<i64, i64>> {
        self.unbroken_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(super) async fn enter(&self, registration: &Registration) -> Result<Lease, StoreError> {
        let Registration { label, lease, standalone, process } = registration;
        let own = process.as_ref().map(ProcessIdentity::to_string);
        let rows = self.pool.rows("register", REGISTER, &[label, &lease.as_secs_f64(), standalone, &own]).await?;
        let row = rows.first().ok_or_else(|| unreadable("none"))?;
        let node: i64 = row.try_get(0).map_err(unreadable)?;
        let epoch = Epoch(row.try_get(1).map_err(unreadable)?);
        self.unbroken_until().insert(node, row.try_get(2).map_err(unreadable)?);
        let rival = loop {
            let rivals = self.pool.rows("register", RIVAL, &[&node, standalone]).await?;
            let Some(rival) = rivals.into_iter().next() else { return Ok(Lease { node: NodeId(node), epoch }) };
            let theirs: Option<&str> = rival.try_get(3).map_err(unreadable)?;
            let dead = theirs.and_then(ProcessIdentity::parse).zip(process.as_ref());
            if !dead.is_some_and(|(theirs, own)| own.knows_dead(&theirs)) {
                break rival;
            }
            let id: i64 = rival.try_get(2).map_err(unreadable)?;
            self.pool.rows("register", TAKE_DEAD, &[&id, &theirs]).await?;
        };
        self.pool.rows("register", FORGET, &[&node]).await?;
        let rival_label: String = rival.try_get(0).map_err(unreadable)?;
        let rest: f64 = rival.try_get(1).map_err(unreadable)?;
        let why = if *standalone { "this node keeps" } else { "that node keeps" };
        Err(StoreError::Refused(format!(
            "{why} its keys or its bus in process, and may not share a database with another node: {rival_label} \
             holds a lease for another {rest:.0} s; stop it, or set REDIS_URL and NATS_URL on both"
        )))
    }

    pub(super) async fn renew(&self, lease: Lease, ttl: Duration) -> Result<HeartbeatReply, StoreError> {
        self.pool.observe();
        let Lease { node, epoch } = lease;
        let rows = self.heartbeat.rows("pulse", PULSE, &[&node.0, &epoch.0, &ttl.as_secs_f64()]).await?;
        let Some(row) = rows.first() else {
            self.unbroken_until().remove(&node.0);
            return Err(StoreError::Fenced);
        };
        let replaced: Vec<&str> = row.try_get(0).map_err(unreadable)?;
        let nodes: i64 = row.try_get(1).map_err(unreadable)?;
        self.several.store(nodes > 1, Ordering::Relaxed);
        let was_expired: bool = row.try_get(2).map_err(unreadable)?;
        if !was_expired {
            self.unbroken_until().insert(node.0, row.try_get(3).map_err(unreadable)?);
        }
        Ok(HeartbeatReply {
            replaced: replaced.into_iter().map(sid).collect::<Result<_, _>>()?,
            nodes: u32::try_from(nodes).map_err(unreadable)?,
            was_expired,
        })
    }

    pub(super) async fn write_probe(&self, lease: Lease, ttl: Duration) -> Result<(), StoreError> {
        let Lease { node, epoch } = lease;
        match self.pool.rows("probe", PROBE, &[&node.0, &epoch.0, &ttl.as_secs_f64()]).await?.is_empty() {
            true => Err(StoreError::Fenced),
            false => Ok(()),
        }
    }

    pub(super) async fn forget_takeovers(&self, node: NodeId, replaced: &[Sid]) -> Result<(), StoreError> {
        let sids: Vec<String> = replaced.iter().map(Sid::to_string).collect();
        self.heartbeat.rows("told", TOLD, &[&node.0, &sids]).await.map(drop)
    }

    pub(super) async fn sweep(&self, lease: Lease, most: usize) -> Result<usize, StoreError> {
        let Lease { node, epoch } = lease;
        let most = i64::try_from(most).map_err(unreadable)?;
        let own_until = self.unbroken_until().get(&node.0).copied();
        let taken = self.background.rows("reap", TAKE, &[&node.0, &epoch.0, &own_until]).await?;
        let any: bool = taken.first().ok_or(StoreError::Fenced)?.try_get(0).map_err(unreadable)?;
        if !any {
            return Ok(0);
        }
        let aside = self.refused.aside();
        let gone = match self.background.rows("reap", SWEEP, &[&node.0, &epoch.0, &most, &aside]).await {
            Ok(rows) => count(&rows)?,
            // Somewhere in the batch: each alone, so that one fails alone.
            Err(StoreError::Refused(_)) => self.sweep_singly(lease, most, &aside).await?,
            Err(error) => return Err(error),
        };
        match gone {
            0 => self.background.rows("reap", BURY, &[]).await.map(drop)?,
            _ => self.wake(),
        }
        usize::try_from(gone).map_err(unreadable)
    }

    async fn sweep_singly(&self, lease: Lease, most: i64, aside: &[i64]) -> Result<i64, StoreError> {
        let Lease { node, epoch } = lease;
        let mut gone = 0;
        for row in self.background.rows("reap", LOST, &[&aside, &most]).await? {
            let session: i64 = row.try_get(0).map_err(unreadable)?;
            match self.background.rows("reap", SWEEP_ONE, &[&node.0, &epoch.0, &session]).await {
                Ok(rows) => gone += count(&rows)?,
                Err(StoreError::Refused(why)) => self.refused.add(SessionId(session), &why),
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }

    pub(super) async fn give_back(&self, lease: Lease) -> Result<(), StoreError> {
        let Lease { node, epoch } = lease;
        if self.heartbeat.rows("retire", RETIRE, &[&node.0, &epoch.0]).await?.is_empty() {
            return Err(StoreError::Fenced);
        }
        self.heartbeat.rows("retire", BURY, &[]).await.map(drop)
    }
}

fn count(rows: &[Row]) -> Result<i64, StoreError> {
    rows.first().ok_or_else(|| unreadable("none"))?.try_get(0).map_err(unreadable)
}
