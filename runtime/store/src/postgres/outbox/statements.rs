//! The SQL of the outbox. Rows are read and released only if the node's claims are valid in the same statement.
use super::super::shard_claims::readable;

/// The shards to read, if the node's claims on them are valid.
macro_rules! claimed {
    ($read:literal) => {
        concat!(
            "with own as materialized (
        select id from node where id = $1 and epoch = $2 and claim_epoch = $3 and renewed_at > clock_timestamp() - ",
            readable!(),
            "
    ), mine as materialized (
        select m.* from own cross join unnest($4::smallint[], $5::bigint[]) as m(shard, after)
        join outbox_shard s on s.shard = any (array[m.shard]) and s.node_id = own.id and s.claim_epoch = $3
    )",
            $read
        )
    };
}

/// Deletes published rows and reads others, in one statement, because each statement costs as much as ten rows. The
/// keys of one shard are never in another, so it suffices to order the rows of each shard. The tenth column says
/// whether an earlier row of the same agent in the same classroom is quarantined. If there are no rows, the result is
/// one row without an id. If a claim is not valid, the result is empty; then a shard only seems to be empty.
pub(super) const READ: &str = claimed!(
    ", gone as (
        delete from outbox o using unnest($7::smallint[], $8::bigint[]) as d(shard, id)
        where o.shard = any (array[d.shard]) and o.id = d.id
    )
    select o.id, o.shard, o.classroom_id, o.agent_id, o.session_id, o.reason,
        greatest(extract(epoch from clock_timestamp() - o.created_at), 0)::float8, o.operation, o.nonce, exists (
            select from outbox_quarantine a
            where a.classroom_id = o.classroom_id and a.agent_id = o.agent_id and a.id < o.id
        ), o.state, o.role, o.info, o.traceparent
    from (select count(*) from mine) as held left join (
        select rows.* from mine cross join lateral (
            select * from outbox where outbox.shard = mine.shard and outbox.id > mine.after and outbox.id <> all ($8)
            order by id limit $6
        ) as rows
    ) as o on true
    where held.count = cardinality($4)
    order by o.id"
);

/// `any` is used for the reason that [`crate::postgres::sessions`] gives.
pub(super) const DELETE: &str = "delete from outbox o using unnest($1::smallint[], $2::bigint[]) as d(shard, id)
    where o.shard = any (array[d.shard]) and o.id = d.id";

pub(super) const QUARANTINE: &str = "with gone as (
        delete from outbox o using unnest($1::smallint[], $2::bigint[]) as d(shard, id)
        where o.shard = any (array[d.shard]) and o.id = d.id
        returning o.id, o.shard, o.classroom_id, o.agent_id, o.session_id, o.operation, o.reason, o.nonce, o.created_at,
            o.state, o.role, o.info, o.traceparent
    )
    insert into outbox_quarantine (id, shard, classroom_id, agent_id, session_id, operation, reason, nonce, created_at,
        state, role, info, traceparent, why, retry_at)
    select gone.*, $3, clock_timestamp() + make_interval(secs => $4) from gone";

/// Releases all quarantined rows of some agents that are due. They keep their ids, so that later rows stay behind them.
pub(super) const RELEASE_QUARANTINED: &str = claimed!(
    ", due as (
        select distinct first.classroom_id, first.agent_id from mine cross join lateral (
            select a.classroom_id, a.agent_id from outbox_quarantine a
            where a.shard = mine.shard and a.retry_at <= clock_timestamp() order by a.retry_at limit $6
        ) as first
    ), gone as (
        delete from outbox_quarantine a using due where a.classroom_id = due.classroom_id and a.agent_id = due.agent_id
        returning a.id, a.classroom_id, a.agent_id, a.session_id, a.operation, a.reason, a.nonce, a.created_at,
            a.state, a.role, a.info, a.traceparent
    )
    insert into outbox (id, classroom_id, agent_id, session_id, operation, reason, nonce, created_at, state, role, info,
        traceparent)
    overriding system value select * from gone returning id"
);

/// The count has a limit, because nothing bounds the table.
pub(super) const QUARANTINED: &str =
    "select count(*) from (select from outbox_quarantine where shard = any ($1) limit 10000) as a";
