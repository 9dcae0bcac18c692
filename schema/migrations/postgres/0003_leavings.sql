-- Fields in Redis that connections left behind, written in the transaction that ends or takes over the session, and
-- deleted once Redis has answered. A node removes its own, and those of nodes that are no more. Those of a connection
-- that was taken over are its node's, and held until that connection has ended: a join of its may be under way.
create table leaving (
    id bigint generated always as identity primary key,
    node_id bigint not null,
    lesson_id text not null,
    user_id text not null,
    sid text not null,
    held boolean not null default false
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
create index leaving_held on leaving (sid) where held;

-- `lesson_before`: the lesson that the connection moved from, or tried to move to. Its field may still be there.
alter table agent_session drop column previous_role, add column lesson_before text, add column previous_before text;
alter table takeover drop column session_id, drop column user_id, drop column role, drop column lesson_id;
