//! Nodes and their leases: register, renew, take over, release.
//!
//! Every writer locks its node's row `for key share` and compares the epoch, in the statement that writes
//! ([`super::sessions`]). A node that takes a lease locks the row `for update`: it waits for the writes in flight,
//! and writes that wait for it find the new epoch and write nothing.
use std::{
    collections::HashMap,
    sync::{MutexGuard, PoisonError, atomic::Ordering},
    time::Duration,
};

use async_trait::async_trait;
use rollcall_schema::{Epoch, NodeId, SessionId, Sid};

use super::{
    kicks::kick,
    rows::{get, only, sid, unreadable, unsigned, whole},
    session_end::{ended, ended_events},
    store::PostgresStore,
};
use crate::{HeartbeatReply, Lease, NodeLeases, Registration, StoreError};
use rollcall_base::process::ProcessIdentity;

const REGISTER: &str = "insert into node (label, lease_until, standalone, process) \
    values ($1, clock_timestamp() + make_interval(secs => $2), $3, $4) \
    returning id, epoch, (extract(epoch from lease_until) * 1000000)::bigint";

/// Another live node that may not be beside this one. Two that start at once see each other, and neither stays.
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
const RENEW: &str = "with own as materialized (
        select id, lease_until from node where id = $1 and epoch = $2
    ), renewed as (
        update node set lease_until = clock_timestamp() + make_interval(secs => $3::float8)
        from own where node.id = own.id and node.epoch = $2 and node.lease_until = own.lease_until
            and own.lease_until < clock_timestamp() + make_interval(secs => $3 * 0.75::float8)
        returning node.lease_until
    )
    select
        array(select sid from takeover where takeover.node_id = own.id),
        array(select sid from kick where kick.node_id = own.id order by sid, lesson_id),
        array(select lesson_id from kick where kick.node_id = own.id order by sid, lesson_id),
        (select count(*) from node where id = $1 or not taken and lease_until > clock_timestamp()),
        own.lease_until < clock_timestamp(),
        (extract(epoch from coalesce((select lease_until from renewed), own.lease_until)) * 1000000)::bigint
    from own";

/// An expired lease is left to the heartbeat, which must notice it.
const PROBE: &str = "update node set lease_until = greatest(lease_until, clock_timestamp() + make_interval(secs => $3))
    where id = $1 and epoch = $2 and lease_until > clock_timestamp() returning id";

const ACK_TAKEOVERS: &str = "delete from takeover where node_id = $1 and sid = any ($2)";

/// Answers whether there is anything to reap. A lease is taken a second after its end: by then a join of the node that
/// was under way to the key store was carried out there, or never will be (the Redis keys). A node whose
/// own lease is expired takes none: it was suspended, and so may all have been. That stays so until a
/// heartbeat has found its lease unbroken: one that renewed it after a gap need not have answered yet. A node that is writing at this moment is not
/// dead, and one whose writes hang does not hold up the others' ends.
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
        from expired where node.id = expired.id and exists (select from fence)
        returning node.id, node.epoch
    )
    select exists (select from marked) or exists (select from node where taken),
        array(select id from marked order by id), array(select epoch from marked order by id)
    from fence";

/// Ends sessions of nodes that are taken; those that another reaper has locked are skipped, because it ends them. The newest
/// go first: where an old snapshot keeps dead rows, most of those are of older sessions, and need not be walked each time.
macro_rules! reap {
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
        returning s.id, s.agent_id, s.classroom_id, s.user_id, s.sid, s.lesson_id, s.lesson_before, s.started_at,
            'node_lost' as reason
    ), ",
            ended!("$1", ""),
            ", ",
            ended_events!(),
            "
    select count(*) from gone"
        )
    };
}

/// At most so many of each node, without those in quarantine.
const REAP: &str = reap!("id <> all ($4) order by id desc limit $3");
const REAP_ONE: &str = reap!("id = $3");

const LOST: &str = "select s.id from node n cross join lateral (
        select id from agent_session where node_id = n.id and id <> all ($1) order by id desc limit $2
    ) as s
    where n.taken limit $2";

/// Nodes that were taken and have no session left. None can come back to them: their epoch is gone. Connections
/// that lost their session while their node was dead are never told that they are replaced; that they are kicked they are
/// told for an hour.
const FORGET_TAKEN: &str = "with forgotten as (
        delete from node n where taken and not exists (select from agent_session s where s.node_id = n.id)
        returning id
    ), old as (
        delete from kick k where k.at < clock_timestamp() - interval '1 hour'
            and not exists (select from node n where n.id = k.node_id)
    )
    delete from takeover t using forgotten where t.node_id = forgotten.id";

const RELEASE: &str = "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for update
    )
    update node set epoch = epoch + 1, taken = true from fence where node.id = fence.id returning node.id";

const KNOWS: &str = "select from node where id = $1";

#[async_trait]
impl NodeLeases for PostgresStore {
    async fn register(&self, registration: &Registration) -> Result<Lease, StoreError> {
        let Registration { label, lease, standalone, process } = registration;
        let own = process.as_ref().map(ProcessIdentity::to_string);
        let rows = self.pool.rows("register", REGISTER, &[label, &lease.as_secs_f64(), standalone, &own]).await?;
        let row = rows.first().ok_or_else(|| unreadable("none"))?;
        let node: i64 = get(row, 0)?;
        let epoch = Epoch(get(row, 1)?);
        self.unbroken_until().insert(node, get(row, 2)?);
        let rival = loop {
            let rivals = self.pool.rows("register", RIVAL, &[&node, standalone]).await?;
            let Some(rival) = rivals.into_iter().next() else { return Ok(Lease { node: NodeId(node), epoch }) };
            let theirs: Option<&str> = get(&rival, 3)?;
            let dead = theirs.and_then(ProcessIdentity::parse).zip(process.as_ref());
            if !dead.is_some_and(|(theirs, own)| own.knows_dead(&theirs)) {
                break rival;
            }
            let id: i64 = get(&rival, 2)?;
            self.pool.rows("register", TAKE_DEAD, &[&id, &theirs]).await?;
        };
        self.pool.rows("register", FORGET, &[&node]).await?;
        let rival_label: String = get(&rival, 0)?;
        let rest: f64 = get(&rival, 1)?;
        let why = if *standalone { "this node keeps" } else { "that node keeps" };
        Err(StoreError::Refused(format!(
            "{why} its keys or its bus in process, and may not share a database with another node: {rival_label} \
             holds a lease for another {rest:.0} s; stop it, or set REDIS_URL and NATS_URL on both"
        )))
    }

    async fn renew_lease(&self, lease: Lease, ttl: Duration) -> Result<HeartbeatReply, StoreError> {
        self.pool.observe();
        let Lease { node, epoch } = lease;
        let rows = self.heartbeat.rows("pulse", RENEW, &[&node.0, &epoch.0, &ttl.as_secs_f64()]).await?;
        let Some(row) = rows.first() else {
            self.unbroken_until().remove(&node.0);
            return Err(StoreError::Fenced);
        };
        let replaced: Vec<&str> = get(row, 0)?;
        let kicked: Vec<&str> = get(row, 1)?;
        let from: Vec<Option<&str>> = get(row, 2)?;
        let nodes: i64 = get(row, 3)?;
        self.several.store(nodes > 1, Ordering::Relaxed);
        let was_expired: bool = get(row, 4)?;
        if !was_expired {
            self.unbroken_until().insert(node.0, get(row, 5)?);
        }
        Ok(HeartbeatReply {
            replaced: replaced.into_iter().map(sid).collect::<Result<_, _>>()?,
            kicks: kicked.into_iter().zip(from).map(|(sid, lesson)| kick(sid, lesson)).collect::<Result<_, _>>()?,
            nodes: unsigned(nodes)?,
            was_expired,
        })
    }

    async fn probe(&self, lease: Lease, ttl: Duration) -> Result<(), StoreError> {
        let Lease { node, epoch } = lease;
        match self.pool.rows("probe", PROBE, &[&node.0, &epoch.0, &ttl.as_secs_f64()]).await?.is_empty() {
            true => Err(StoreError::Fenced),
            false => Ok(()),
        }
    }

    async fn ack_takeovers(&self, node: NodeId, replaced: &[Sid]) -> Result<(), StoreError> {
        let sids: Vec<String> = replaced.iter().map(Sid::to_string).collect();
        self.heartbeat.rows("told", ACK_TAKEOVERS, &[&node.0, &sids]).await.map(drop)
    }

    async fn reap(&self, lease: Lease, max: usize) -> Result<usize, StoreError> {
        let Lease { node, epoch } = lease;
        let max = whole(max);
        let incarnation = *self.timeline.known().borrow();
        self.taken_nodes.take_again(&self.background, incarnation, lease).await?;
        let own_until = self.unbroken_until().get(&node.0).copied();
        let taken = self.background.rows("reap", TAKE, &[&node.0, &epoch.0, &own_until]).await?;
        let taken = taken.first().ok_or(StoreError::Fenced)?;
        let (ids, epochs): (Vec<i64>, Vec<i64>) = (get(taken, 1)?, get(taken, 2)?);
        self.taken_nodes.add(ids.into_iter().zip(epochs));
        let any: bool = get(taken, 0)?;
        if !any {
            return Ok(0);
        }
        let aside = self.quarantine.sessions();
        let gone: i64 = match self.background.rows("reap", REAP, &[&node.0, &epoch.0, &max, &aside]).await {
            Ok(rows) => only(&rows)?,
            // Somewhere in the batch: each alone, so that one fails alone.
            Err(StoreError::Refused(_)) => self.reap_singly(lease, max, &aside).await?,
            Err(error) => return Err(error),
        };
        match gone {
            0 => self.background.rows("reap", FORGET_TAKEN, &[]).await.map(drop)?,
            _ => self.wake(),
        }
        unsigned(gone)
    }

    async fn release_lease(&self, lease: Lease) -> Result<(), StoreError> {
        let Lease { node, epoch } = lease;
        if self.heartbeat.rows("retire", RELEASE, &[&node.0, &epoch.0]).await?.is_empty() {
            return Err(StoreError::Fenced);
        }
        self.heartbeat.rows("retire", FORGET_TAKEN, &[]).await.map(drop)
    }

    async fn knows_node(&self, node: NodeId) -> Result<bool, StoreError> {
        self.pool.rows("knows", KNOWS, &[&node.0]).await.map(|rows| !rows.is_empty())
    }
}

impl PostgresStore {
    fn unbroken_until(&self) -> MutexGuard<'_, HashMap<i64, i64>> {
        // A map of numbers is whole after any panic.
        self.unbroken_until.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Each session alone, so that one fails alone.
    async fn reap_singly(&self, lease: Lease, max: i64, aside: &[i64]) -> Result<i64, StoreError> {
        let Lease { node, epoch } = lease;
        let mut gone = 0;
        for row in self.background.rows("reap", LOST, &[&aside, &max]).await? {
            let session: i64 = get(&row, 0)?;
            match self.background.rows("reap", REAP_ONE, &[&node.0, &epoch.0, &session]).await {
                Ok(rows) => gone += only::<i64>(&rows)?,
                Err(StoreError::Refused(why)) => self.quarantine.add(SessionId(session), &why),
                Err(error) => return Err(error),
            }
        }
        Ok(gone)
    }
}
