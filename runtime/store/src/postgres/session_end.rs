//! The SQL that ends a session, for every statement that ends sessions: at a close, when a dead node is reaped, and in
//! a database that was put back.
//!
//! Invariant: such a statement deletes rows in a part named `gone`, which has these columns, `reason`, `cause`, and the
//! `resume_id` by which the client may still find the session. The history row and the stale fields of the lessons
//! follow from that part. If the ends must be published, [`ended_events`] follows, too, and needs `traceparent`.

/// The parts `history` and `stale_fields`. `$node` is the node that removes the fields, `$held` says whether that waits
/// for the connection's end, and `$conflict` what happens if the history has the session already.
macro_rules! ended {
    ($node:literal, $conflict:literal) => {
        ended!($node, "false", $conflict)
    };
    ($node:literal, $held:literal, $conflict:literal) => {
        concat!(
            "history as (
        insert into agent_session_history (id, agent_id, classroom_id, user_id, lesson_id, lifetime, reason, cause,
            resume_id, taken_over_at)
        select id, agent_id, classroom_id, user_id, lesson_id,
            tstzrange(started_at, greatest(clock_timestamp(), started_at + interval '1 microsecond')), reason, cause,
            resume_id, taken_over_at
        from gone ",
            $conflict,
            "
    ), stale_fields as (
        insert into stale_field (node_id, lesson_id, user_id, sid, held)
        select ",
            $node,
            ", l.id, g.user_id, g.sid, ",
            $held,
            "
        from gone g cross join lateral (values (g.lesson_id), (g.lesson_before)) as l(id) where l.id is not null
    )"
        )
    };
}
pub(super) use ended;

/// The part `events`, which writes an agent.left for each session.
macro_rules! ended_events {
    () => {
        "events as (
        insert into outbox (classroom_id, agent_id, session_id, operation, reason, traceparent)
        select classroom_id, agent_id, id, 'left', reason, traceparent from gone
    )"
    };
}
pub(super) use ended_events;
