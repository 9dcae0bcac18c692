//! Nodes and their leases: register, renew, take over, release.
//!
//! Every writer locks its node's row `for key share` and compares the epoch, in the statement that writes
//! ([`super::sessions`]). A node that takes a lease locks the row `for update`. So it waits for the writes under way,
//! and writes that wait for it find the new epoch and write nothing.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{Epoch, NodeId, Sid};
use tokio::time::Instant;

use super::{
    dead_nodes::{FORGET_TAKEN, dead},
    kicks::kick,
    rights,
    rows::{Parameters, get, sid, unreadable, unsigned},
    shard_claims::silent,
    shard_state::Seen,
    store::PostgresStore,
};
use crate::{HeartbeatReply, Lease, NodeLeases, Registration, StoreError};
use rollcall_base::process::ProcessIdentity;

const REGISTER: &str = "insert into node (label, lease_until, standalone, process) \
    values ($1, clock_timestamp() + make_interval(secs => $2), $3, $4) \
    returning id, epoch, (extract(epoch from lease_until) * 1000000)::bigint";

/// Finds another live node that may not live beside this one. Two nodes that start at the same time see each other, and
/// neither stays.
const RIVAL: &str = "select label, extract(epoch from lease_until - clock_timestamp())::float8, id, process from node \
    where id <> $1 and not taken and lease_until > clock_timestamp() and (standalone or $2) order by id limit 1";

/// Takes the lease of a node whose process is dead. Its sessions stay until they are reaped, so that its clients can
/// take them over.
const TAKE_DEAD: &str = "with dead as materialized (
        select id from node where id = $1 and process = $2 and not taken for update
    )
    update node set epoch = epoch + 1, taken = true from dead where node.id = dead.id";

const FORGET: &str = "delete from node where id = $1";

/// The lease is written only after a quarter of it or 3 s has gone (half a second if the node has claims on shards).
/// Each write leaves a dead row version, and while an old snapshot exists, none of them is removed, and queries step
/// over all of them. Other nodes are counted up to 8, and checked one by one only if that is asked for. The sixth
/// column is about the lease as it was before. The node's statistics are long, and written every 3 s at most. A node
/// without a relay (`$6`) gives up its claims and wants none, because its relay's connection may be refused while this
/// one works.
const RENEW: &str = concat!(
    "with own as materialized (
        select id, lease_until, renewed_at, claim_epoch, relays and $6 as gives_up from node where id = $1 and epoch = $2
    ), held as materialized (
        select count(*) from own join outbox_shard s on s.node_id = own.id and s.claim_epoch = own.claim_epoch
    ), old as materialized (
        select $5::text is not null and coalesce(statistics_at < clock_timestamp() - interval '3 s', true) as statistics
        from node where id = $1
    ), renewed as (
        update node set lease_until = clock_timestamp() + make_interval(secs => $3::float8), renewed_at = clock_timestamp(),
            statistics = case when old.statistics then $5 else node.statistics end,
            statistics_at = case when old.statistics then clock_timestamp() else node.statistics_at end,
            relays = node.relays and not own.gives_up,
            claim_epoch = node.claim_epoch + case when own.gives_up then 1 else 0 end
        from own cross join held cross join old where node.id = own.id and node.epoch = $2 and node.lease_until = own.lease_until
            and node.claim_epoch = own.claim_epoch and (own.lease_until < clock_timestamp() + make_interval(secs => $3 * 0.75::float8)
                or own.gives_up or own.renewed_at < clock_timestamp() - make_interval(secs => case when held.count > 0 then 0.5 else 3 end))
        returning node.lease_until
    )
    select
        array(select sid from takeover where takeover.node_id = own.id),
        array(select sid from kick where kick.node_id = own.id order by sid, lesson_id),
        array(select lesson_id from kick where kick.node_id = own.id order by sid, lesson_id),
        (select count(*) from (
            select from node where id <> $1 and not taken and lease_until > clock_timestamp() limit 8
        ) as n) + 1,
        own.lease_until < clock_timestamp(),
        (extract(epoch from coalesce((select lease_until from renewed), own.lease_until)) * 1000000)::bigint,
        case when $4 then exists (select from node where ",
    dead!(),
    ") else false end,
        own.claim_epoch,
        held.count,
        (select count(*) from (
            select from node where id <> $1 and relays and not taken and renewed_at > clock_timestamp() - interval '5 seconds'
            limit 7
        ) as n),
        exists (
            select from outbox_shard s where not exists (
                select from node n
                where n.id = s.node_id and n.claim_epoch = s.claim_epoch and (n.id = $1
                    or n.renewed_at > clock_timestamp() - ",
    silent!(),
    ")
            )
        )
    from own cross join held"
);

/// The probe does not renew an expired lease, because the heartbeat must notice the expiry.
const PROBE: &str = "update node set lease_until = greatest(lease_until, clock_timestamp() + make_interval(secs => $3))
    where id = $1 and epoch = $2 and lease_until > clock_timestamp() returning id";

const ACK_TAKEOVERS: &str = "delete from takeover where node_id = $1 and sid = any ($2)";

/// Ends the node's lease. Its claims on shards end with the lease, unless its relay still has rows that it has read.
const RELEASE: &str = "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for update
    ), given as (
        update outbox_shard s set node_id = null, claim_epoch = null from fence where s.node_id = fence.id and $3
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
        self.unbroken_until.lock().insert(node, get(row, 2)?);
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
        self.pool.tidy();
        let Lease { node, epoch } = lease;
        let (at, look) = (Instant::now(), self.dead_node_looks.look());
        let (statistics, ttl) = (self.statistics.lock().clone(), ttl.as_secs_f64());
        let no_relay = self.shards.has_no_relay();
        let values: Parameters<'_> = &[&node.0, &epoch.0, &ttl, &look, &statistics, &no_relay];
        let rows = self.heartbeat.rows("renew_lease", RENEW, values).await?;
        let Some(row) = rows.first() else {
            self.unbroken_until.lock().remove(&node.0);
            return Err(StoreError::Fenced);
        };
        let replaced: Vec<&str> = get(row, 0)?;
        let kicked: Vec<&str> = get(row, 1)?;
        let from: Vec<Option<&str>> = get(row, 2)?;
        let was_expired: bool = get(row, 4)?;
        if !was_expired {
            self.unbroken_until.lock().insert(node.0, get(row, 5)?);
        }
        let (nodes, held, others) = (unsigned(get(row, 3)?)?, unsigned(get(row, 8)?)?, unsigned(get(row, 9)?)?);
        self.shards.saw(Seen { node, at, claim_epoch: get(row, 7)?, held, others, free: get(row, 10)? });
        let dead: bool = get(row, 6)?;
        self.dead_node_looks.looked((look, dead), nodes, *self.shards.held().borrow());
        let incarnation = *self.timeline.known().borrow();
        Ok(HeartbeatReply {
            replaced: replaced.into_iter().map(sid).collect::<Result<_, _>>()?,
            kicks: kicked.into_iter().zip(from).map(|(sid, lesson)| kick(sid, lesson)).collect::<Result<_, _>>()?,
            nodes,
            was_expired,
            dead: dead || self.taken_nodes.may_be_lost(incarnation),
        })
    }

    fn report(&self, statistics: String) {
        *self.statistics.lock() = Some(statistics);
    }

    async fn probe(&self, lease: Lease, ttl: Duration) -> Result<(), StoreError> {
        let Lease { node, epoch } = lease;
        match self.pool.rows("probe", PROBE, &[&node.0, &epoch.0, &ttl.as_secs_f64()]).await?.is_empty() {
            true => Err(StoreError::Fenced),
            false => rights::still_missing(&self.pool).await?.map_or(Ok(()), |lacks| Err(StoreError::Refused(lacks))),
        }
    }

    async fn ack_takeovers(&self, node: NodeId, replaced: &[Sid]) -> Result<(), StoreError> {
        let sids: Vec<String> = replaced.iter().map(Sid::to_string).collect();
        self.heartbeat.rows("ack_takeovers", ACK_TAKEOVERS, &[&node.0, &sids]).await.map(drop)
    }

    async fn reap(&self, lease: Lease, max: usize) -> Result<usize, StoreError> {
        self.end_dead_nodes(lease, max).await
    }

    async fn release_lease(&self, lease: Lease) -> Result<(), StoreError> {
        let Lease { node, epoch } = lease;
        let quiet = self.shards.end(node).await;
        if self.heartbeat.rows("release_lease", RELEASE, &[&node.0, &epoch.0, &quiet]).await?.is_empty() {
            return Err(StoreError::Fenced);
        }
        self.heartbeat.rows("release_lease", FORGET_TAKEN, &[&node.0]).await.map(drop)
    }

    async fn knows_node(&self, node: NodeId) -> Result<bool, StoreError> {
        self.pool.rows("knows", KNOWS, &[&node.0]).await.map(|rows| !rows.is_empty())
    }
}
