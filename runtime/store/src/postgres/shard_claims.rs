//! Which shards of the outbox a node publishes.
//!
//! A claim is a row of `outbox_shard` that names a node and its claim epoch. It ends when the node gives it back, or
//! when the node's claim epoch is raised: by its next relay, by its heartbeat if it has had no relay for some seconds
//! ([`super::lease`]), or by another node, which may do so once this node has been silent for [`silent!`]. When a
//! node's lease is taken, its claims do not end, because it may still publish the rows that it has read.
//!
//! Invariant: a shard is read only by a node that has a claim on it, holds its lease, and has renewed it within
//! [`readable!`]. It hands the rows to the bus within 1.2 s or never, and the bus sends them within 0.7 s more or
//! never. Together these are less than [`silent!`]. A node that revokes claims changes the row of the silent node: so
//! it finds a renewal that happens at the same moment, or the renewal finds the claims gone. A relay that starts raises
//! the claim epoch of its own node, so statements of an earlier relay that are still under way neither claim shards nor
//! give any back.
use std::{sync::Arc, time::Duration};

use rollcall_schema::Shards;
use tokio::time::Instant;

use super::{
    LIMIT,
    connect::Dedicated,
    rows::{get, unreadable, unsigned},
    shard_state::{Seen, ShardState},
};
use crate::{Lease, StoreError};

/// The number of shards, as in the table's generated column.
pub(super) const SHARDS: usize = Shards::COUNT as usize;

/// How old the latest renewal may be when a shard is read.
macro_rules! readable {
    () => {
        "interval '2 seconds'"
    };
}
pub(super) use readable;
/// The time without a renewal after which other nodes may revoke a node's claims.
macro_rules! silent {
    () => {
        "interval '4 seconds'"
    };
}
pub(super) use silent;

/// The age of a renewal up to which rows may be read, by this process's clock. It is shorter than [`readable!`],
/// because a heartbeat accepts a renewal that is half a second old.
const FRESH: Duration = Duration::from_secs(1);
/// A claim statement is left out if a heartbeat this recently has found that nothing must change.
const HEARTBEAT_COUNTS: Duration = Duration::from_millis(1500);

const BEGIN: &str = "update node set claim_epoch = claim_epoch + 1, relays = true, renewed_at = clock_timestamp()
    where id = $1 and epoch = $2 returning claim_epoch";

/// Renews the lease, gives back what exceeds this node's share, and takes free shards up to it. The share is 0 if this
/// node wants no shards. The statement does not wait for other nodes: rows that they have locked are left for the next
/// time.
const CLAIM: &str = concat!(
    "with own as materialized (
        select id from node where id = $1 and epoch = $2 and claim_epoch = $3 for no key update
    ), renewed as (
        update node set renewed_at = clock_timestamp(), relays = $4 from own where node.id = own.id
    ), others as materialized (
        select count(*) as relays from (
            select from node where id <> $1 and relays and not taken and renewed_at > clock_timestamp() - interval '5 seconds'
            limit 7
        ) as o
    ), held as materialized (
        select s.shard from own join outbox_shard s on s.node_id = own.id and s.claim_epoch = $3
    ), share as materialized (
        select case when $4 then ceil(8 / (others.relays + 1.0))::bigint else 0 end as most,
            (select count(*) from held) as held
        from others
    ), given as (
        update outbox_shard s set node_id = null, claim_epoch = null
        where s.shard = any (array(
            select shard from held order by shard desc limit (select greatest(held - most, 0) from share)
        ))
        returning s.shard
    ), silent as materialized (
        select n.id from node n
        where n.id = any (array(select node_id from outbox_shard)) and n.id <> $1
            and n.renewed_at < clock_timestamp() - ",
    silent!(),
    "
            and exists (select from own) and (select held < most from share)
        for no key update skip locked
    ), revoked as (
        update node set claim_epoch = node.claim_epoch + 1 from silent where node.id = silent.id returning node.id
    ), free as materialized (
        select s.shard, s.generation from outbox_shard s
        where not exists (
            select from node n
            where n.id = s.node_id and n.claim_epoch = s.claim_epoch and n.id <> all (array(select id from revoked))
        )
    ), picked as materialized (
        select s.shard from free f join outbox_shard s on s.shard = f.shard and s.generation = f.generation
        where exists (select from own)
        order by (s.shard - $5::smallint + 8) % 8 limit (select greatest(most - held, 0) from share)
        for update of s skip locked
    ), taken as (
        update outbox_shard s set node_id = $1, claim_epoch = $3, generation = s.generation + 1
        from picked where s.shard = picked.shard
        returning s.shard
    )
    select array(select shard from held except select shard from given), array(select shard from taken), others.relays
    from own cross join others"
);

/// Returns the set of one shard, by the number in its rows.
pub(super) fn set(shard: i16) -> Shards {
    Shards::one(u8::try_from(shard).unwrap_or_default())
}

/// The claims of one relay. When this value is dropped, they are free for the next relay of this node, and for other
/// nodes once a heartbeat has given them up.
pub(super) struct Claims {
    shared: Arc<ShardState>,
    lease: Lease,
    epoch: i64,
    held: Vec<i16>,
    /// How many other nodes want shards.
    others: usize,
    /// When the latest claim statement was sent. `None` before the first.
    asked: Option<Instant>,
    wants: bool,
}

impl Claims {
    /// Ends the claims of earlier relays of this node.
    pub(super) async fn begin(
        shared: Arc<ShardState>,
        lease: Lease,
        connection: &Dedicated,
    ) -> Result<Self, StoreError> {
        let rows = connection.rows(LIMIT, BEGIN, &[&lease.node.0, &lease.epoch.0]).await?;
        let epoch = get(rows.first().ok_or(StoreError::Fenced)?, 0)?;
        shared.begin();
        Ok(Self { shared, lease, epoch, held: Vec::new(), others: 0, asked: None, wants: true })
    }

    /// Returns the parameters that a statement compares: the node, its epoch, and its claim epoch.
    pub(super) fn parameters(&self) -> (i64, i64, i64) {
        (self.lease.node.0, self.lease.epoch.0, self.epoch)
    }

    pub(super) fn held(&self) -> &[i16] {
        &self.held
    }

    /// Returns whether rows may be read and published, until [`ShardState::rest`].
    pub(super) fn begin_read(&self) -> bool {
        !self.held.is_empty() && self.shared.begin_read(self.lease.node)
    }

    /// Returns whether another node wants shards.
    pub(super) fn has_others(&self) -> bool {
        self.seen().map_or(self.others, |seen| seen.others) > 0
    }

    /// Returns whether the claims were renewed so recently that rows may be read.
    pub(super) fn are_fresh(&self) -> bool {
        let Some(asked) = self.asked else { return false };
        self.seen().map_or(asked, |seen| seen.at.max(asked)).elapsed() < FRESH
    }

    /// Takes shards and gives shards back, as necessary. Returns the shards that were taken. No row may be published
    /// meanwhile.
    pub(super) async fn settle(&mut self, connection: &Dedicated, wants: bool) -> Result<Vec<i16>, StoreError> {
        let asked = Instant::now();
        let (node, epoch, claim_epoch) = self.parameters();
        let first = i16::try_from(node.rem_euclid(SHARDS as i64)).map_err(unreadable)?;
        let rows = connection.rows(LIMIT, CLAIM, &[&node, &epoch, &claim_epoch, &wants, &first]).await?;
        let Some(row) = rows.first() else {
            self.hold(Vec::new());
            return Err(StoreError::Unavailable("this node's claims on shards are gone: it was silent".to_owned()));
        };
        let (kept, taken): (Vec<i16>, Vec<i16>) = (get(row, 0)?, get(row, 1)?);
        self.others = unsigned(get(row, 2)?)?;
        (self.asked, self.wants) = (Some(asked), wants);
        self.hold(kept.into_iter().chain(taken.iter().copied()).collect());
        Ok(taken)
    }

    /// Records that a read has found an invalid claim, so the next [`Claims::settle`] makes a query.
    pub(super) fn doubt(&mut self) {
        self.asked = None;
    }

    /// Returns whether a heartbeat since the latest claim statement has found what this relay knows, and that nothing
    /// must change.
    pub(super) fn are_settled(&self, wants: bool) -> bool {
        wants
            && self.wants
            && self.seen().is_some_and(|seen| {
                let share = SHARDS.div_ceil(seen.others + 1);
                seen.at.elapsed() < HEARTBEAT_COUNTS
                    && self.asked.is_some_and(|asked| asked < seen.at)
                    && seen.held == self.held.len()
                    && (seen.held == share || seen.held < share && !seen.free)
            })
    }

    fn seen(&self) -> Option<Seen> {
        let (node, _, claim_epoch) = self.parameters();
        let seen = self.shared.seen();
        seen.filter(|seen| seen.node.0 == node && seen.claim_epoch == claim_epoch)
    }

    fn hold(&mut self, held: Vec<i16>) {
        self.shared.hold(held.iter().copied().map(set).collect());
        self.held = held;
    }
}

impl Drop for Claims {
    fn drop(&mut self) {
        self.shared.end_relay();
    }
}
