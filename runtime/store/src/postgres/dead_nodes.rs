//! Ends the sessions of dead nodes, and takes over their stale fields.
//!
//! Invariant: only the node that took a dead node's lease ends its sessions. If that node dies, too, another node takes
//! over. [`super::dead_node_looks`] says when a node looks for dead nodes.
use rollcall_schema::{SessionId, Shards};

use super::{
    rows::{get, only, unsigned, whole},
    session_end::{ended, ended_events},
    shard_claims::silent,
    store::PostgresStore,
};
use crate::{Lease, StoreError};

/// The condition for a node that node `$1` may reap. A lease is taken a second after its end. By then a join of that
/// node that was on its way to Redis has been carried out, or never will be (see the crate of the keys).
macro_rules! dead {
    () => {
        "id <> $1 and (
            not taken and lease_until < clock_timestamp() - interval '1 second'
            or taken and (taken_by = $1 or not exists (
                select from node as taker
                where taker.id = node.taken_by and not taker.taken and taker.lease_until > clock_timestamp()
            ))
        )"
    };
}
pub(super) use dead;

/// Takes the leases of dead nodes, and answers whether there is a node to reap. A node whose own lease has expired
/// takes none, because it was suspended, and all others may have been, too. It also takes none before a heartbeat has
/// found its own lease unbroken, because the answer of a heartbeat that renewed it after a gap may not be here yet. A
/// node that is writing at this moment is not dead, and a node whose writes hang does not delay the ends of others.
const TAKE: &str = concat!(
    "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), dead as materialized (
        select node.id from node where ",
    dead!(),
    " and taken_by is distinct from $1
            and exists (select from node as own where own.id = $1 and own.lease_until > clock_timestamp()
                and (extract(epoch from own.lease_until) * 1000000)::bigint = $3)
        order by id for update skip locked
    ), marked as (
        update node set epoch = epoch + case when taken then 0 else 1 end, taken = true, taken_by = $1
        from dead where node.id = dead.id and exists (select from fence)
        returning node.id, node.epoch
    )
    select exists (select from marked) or exists (select from node where taken and taken_by = $1),
        array(select id from marked order by id), array(select epoch from marked order by id)
    from fence"
);

/// Ends sessions of nodes that this one has taken. Locked sessions are skipped, because an earlier call ends them. The
/// newest are ended first: if an old snapshot keeps dead rows, most of them are of older sessions, and need not be
/// stepped over each time.
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
        where n.taken and n.taken_by = $1 and exists (select from fence)
    ), gone as (
        delete from agent_session s where s.id = any (array(select id from lost))
        returning s.id, s.agent_id, s.classroom_id, s.user_id, s.sid, s.lesson_id, s.lesson_before, s.started_at,
            s.taken_over_at, s.traceparent, 'node_lost' as reason, null as cause, s.resume_id
    ), ",
            ended!("$1", ""),
            ", ",
            ended_events!(),
            "
    select count(*) from gone"
        )
    };
}

/// Ends at most `$3` sessions of each node, without those in quarantine.
const REAP: &str = reap!("id <> all ($4) order by id desc limit $3");
const REAP_ONE: &str = reap!("id = $3");

const LOST: &str = "select s.id from node n cross join lateral (
        select id from agent_session where node_id = n.id and id <> all ($1) order by id desc limit $2
    ) as s
    where n.taken and n.taken_by = $3 limit $2";

/// Makes the stale fields of nodes that this one has taken its own. No connection is left for which they could be held.
const ADOPT: &str = "with fence as materialized (
        select id from node where id = $1 and epoch = $2 for key share
    ), theirs as materialized (
        select l.id from node n cross join lateral (
            select id from stale_field where node_id = n.id order by id limit $3 for update skip locked
        ) as l
        where n.taken and n.taken_by = $1 and exists (select from fence)
    ), adopted as (
        update stale_field set node_id = $1, held = false where id = any (array(select id from theirs)) returning id
    )
    select count(*) from adopted";

/// Deletes nodes that were taken, and have no session, no stale field and no valid claim. They cannot come back,
/// because their epoch is gone. Connections that lost their session while their node was dead are never told that they
/// are replaced. A kick is kept for them for an hour.
pub(super) const FORGET_TAKEN: &str = concat!(
    "with forgotten as (
        delete from node n where taken and (taken_by = $1 or id = $1)
            and not exists (select from agent_session s where s.node_id = n.id)
            and not exists (select from stale_field l where l.node_id = n.id)
            and (renewed_at < clock_timestamp() - ",
    silent!(),
    "
                or not exists (select from outbox_shard s where s.node_id = n.id))
        returning id
    ), old as (
        delete from kick k where k.at < clock_timestamp() - interval '1 hour'
            and not exists (select from node n where n.id = k.node_id)
    )
    delete from takeover t using forgotten where t.node_id = forgotten.id"
);

impl PostgresStore {
    /// Does the work of [`crate::NodeLeases::reap`].
    pub(super) async fn end_dead_nodes(&self, lease: Lease, max: usize) -> Result<usize, StoreError> {
        let Lease { node, epoch } = lease;
        let max = whole(max);
        let incarnation = *self.timeline.known().borrow();
        self.taken_nodes.take_again(&self.background, incarnation, lease).await?;
        let own_until = self.unbroken_until.lock().get(&node.0).copied();
        let taken = self.background.rows("reap", TAKE, &[&node.0, &epoch.0, &own_until]).await?;
        let taken = taken.first().ok_or(StoreError::Fenced)?;
        let (ids, epochs): (Vec<i64>, Vec<i64>) = (get(taken, 1)?, get(taken, 2)?);
        self.taken_nodes.add(ids.into_iter().zip(epochs));
        let any: bool = get(taken, 0)?;
        if !any {
            return Ok(0);
        }
        let quarantined = self.quarantine.sessions();
        let gone: i64 = match self.background.rows("reap", REAP, &[&node.0, &epoch.0, &max, &quarantined]).await {
            Ok(rows) => only(&rows)?,
            // One session of the batch is refused, so each session is ended by a statement of its own.
            Err(StoreError::Refused(_)) => self.reap_singly(lease, max, &quarantined).await?,
            Err(error) => return Err(error),
        };
        if gone > 0 {
            self.wake(Shards::ALL);
            return unsigned(gone);
        }
        let adopted: i64 = only(&self.background.rows("reap", ADOPT, &[&node.0, &epoch.0, &max]).await?)?;
        if adopted == 0 {
            self.background.rows("reap", FORGET_TAKEN, &[&node.0]).await?;
        }
        unsigned(adopted)
    }

    /// Ends each session by a statement of its own, so that a refused one does not delay others.
    async fn reap_singly(&self, lease: Lease, max: i64, quarantined: &[i64]) -> Result<i64, StoreError> {
        let Lease { node, epoch } = lease;
        let mut gone = 0;
        for row in self.background.rows("reap", LOST, &[&quarantined, &max, &node.0]).await? {
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
