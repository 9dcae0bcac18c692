-- All times are the database's clock_timestamp(), because now() does not change during a transaction.

-- The id is part of every message id, so that two databases on one NATS server never make the same message id.
create table installation (
    id uuid not null,
    -- The server's system identifier and timeline at the latest change of `incarnation`.
    timeline text,
    -- The incarnation gets a new value whenever the database has lost commits.
    incarnation uuid not null default gen_random_uuid(),
    -- The highest session id from before the latest loss of commits, or 0. A left of such a session may have been
    -- published without a record in this database. So when its agent comes again, the session is ended and not taken
    -- over.
    doubtful_through bigint not null default 0,
    -- The key that signs the pids with which clients of Socket.IO resume after a break.
    signing_key bytea not null default uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()),
    single boolean primary key default true check (single)
);
insert into installation (id) values (gen_random_uuid());

create table lesson (
    id text primary key,
    classroom_id uuid not null,
    seats integer not null check (seats between 0 and 10000)
);

create table lesson_attendee (
    lesson_id text not null references lesson on delete cascade,
    user_id text not null,
    seat integer not null check (seat > 0),
    primary key (lesson_id, user_id)
);

-- A row for each running process. A node that takes an expired lease sets `taken` and raises the epoch, under a lock
-- that waits for every write in flight; the row is deleted when the node has no session any more.
create table node (
    id bigint generated always as identity primary key,
    label text not null,
    epoch bigint not null default 1,
    lease_until timestamptz not null,
    standalone boolean not null,
    -- When the lease was last renewed. Some seconds later other nodes may revoke the node's claims on shards of the
    -- outbox, long before the lease ends.
    renewed_at timestamptz not null default clock_timestamp(),
    -- The claim epoch is raised whenever all claims of the node end at once. A shard that was claimed under a lower
    -- value is free.
    claim_epoch bigint not null default 0,
    -- Whether the node wants shards.
    relays boolean not null default false,
    -- The boot id, namespaces, pid and start time of the process. With them a later process on the same machine can
    -- tell that this one is dead.
    process text,
    taken boolean not null default false,
    -- The node that ends this node's sessions. If that node dies, another node does it. Null: no node does so yet.
    taken_by bigint,
    -- The node's statistics as JSON of at most 4 KiB, and since when they hold. They are written when the lease is
    -- renewed.
    statistics text,
    statistics_at timestamptz
) with (fillfactor = 50, toast_tuple_target = 128);
-- The statistics are stored outside of the row. So a query that counts nodes or compares epochs does not read them, nor
-- those of dead row versions.
alter table node alter column statistics set storage external;

-- An agent's live session. `previous_*` is the connection that owned the session before the latest takeover, for the
-- takeover's answer. Joins and takeovers change no indexed column, and find room on the row's own page (HOT): no index
-- gets an entry.
create table agent_session (
    id bigint generated always as identity primary key,
    agent_id text not null,
    classroom_id uuid not null,
    -- The token's sub. In agent_id the sub is encoded.
    user_id text not null,
    node_id bigint not null,
    sid text not null,
    role text not null,
    lesson_id text,
    -- The role of the token that joined the lesson. The keys in Redis are written by this role. The role of an
    -- access_token may differ from the session's role.
    lesson_role text,
    seat integer,
    started_at timestamptz not null default clock_timestamp(),
    joined_at timestamptz,
    takeovers integer not null default 0,
    -- When the latest takeover was. Operators ask for it: the connection before was told that it is replaced.
    taken_over_at timestamptz,
    -- The number of the latest change of lesson_id that was written. The connection numbers its changes, so an earlier
    -- one that comes late writes nothing.
    lesson_change integer not null default 0,
    -- The lesson that the connection left last, or tried to join. Its field in Redis may still exist.
    lesson_before text,
    previous_node bigint,
    previous_sid text,
    previous_lesson_id text,
    previous_before text,
    -- `info` is the token's claim, and `state` what the agent has set. Both are JSON, stored byte for byte.
    info text,
    state text,
    -- The id in outbox of the latest agent.updated, or null if there was none. It grows even if commits are lost.
    state_n bigint,
    -- Whether the latest takeover changed role or info.
    changed boolean,
    -- The id by which a client of Socket.IO finds its session again.
    resume_id integer,
    -- The trace of the connection, if it has one. The session's events carry it.
    traceparent text,
    unique (classroom_id, agent_id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
-- For finding a dead node's sessions.
create index agent_session_node on agent_session (node_id, id);
-- For counting a user's sessions, and for finding a leaving user's other session in the same lesson.
create index agent_session_user on agent_session (user_id);

create table agent_session_history (
    id bigint primary key,
    agent_id text not null,
    classroom_id uuid not null,
    user_id text not null,
    -- The lesson of the session when it ended.
    lesson_id text,
    lifetime tstzrange not null,
    reason text not null,
    -- Why a session with the reason kicked ended: the session error that its client got (kicked if an operator ended
    -- it), or violation.
    cause text,
    -- The same id as in agent_session, or null if the session's end was final.
    resume_id integer,
    taken_over_at timestamptz
);
-- For finding a user's latest sessions, and what is to be erased of a user.
create index agent_session_history_user on agent_session_history (user_id, id);
-- For reading a classroom's attendance, page by page.
create index agent_session_history_classroom on agent_session_history (classroom_id, upper(lifetime), id);

-- Connections that lost their session to a connection on another node. A row is kept until their node has told them.
create table takeover (
    node_id bigint not null,
    sid text not null
);
create index takeover_node on takeover (node_id);

-- Connections whose session an operator ended. A row is kept until their node has closed them. A row with a lesson: the
-- connection must only leave that lesson. A node that was stopped for longer than its lease still finds the rows when
-- it goes on, because they are kept for an hour.
create table kick (
    node_id bigint not null,
    sid text not null,
    lesson_id text,
    at timestamptz not null default clock_timestamp()
);
create index kick_node on kick (node_id);

-- The node that publishes the events of each shard of the outbox while its claims hold. A row is written only when that
-- changes.
create table outbox_shard (
    shard smallint primary key,
    node_id bigint,
    claim_epoch bigint,
    -- The generation is raised whenever a node takes the shard.
    generation bigint not null default 0
) with (fillfactor = 50);
insert into outbox_shard (shard) select generate_series(0, 7);

-- Events that are committed and not yet published. One agent in one classroom always has the same shard, which a node
-- knows from the classroom's id (rollcall_schema::Shards), and its rows have ascending ids: each row is written under
-- the lock of the agent's row or key in agent_session. `nonce` is a random part of the message id. Every attempt to
-- publish a row has the same nonce. A database that was put back to an earlier time gives out session ids again, but
-- not nonces. Operation and reason have no check here: a newer version may write others.
create table outbox (
    id bigint generated always as identity,
    shard smallint not null generated always as (
        ((get_byte(uuid_send(classroom_id), 3) + get_byte(uuid_send(classroom_id), 15)) & 7)::smallint
    ) stored,
    classroom_id uuid not null,
    agent_id text not null,
    session_id bigint not null,
    operation text not null,
    reason text,
    nonce bigint not null default (random() * 281474976710655)::bigint,
    created_at timestamptz not null default clock_timestamp(),
    -- For agent.updated: the state, and the role if a takeover changed role or info. With a role the event has info,
    -- too, as agent.entered does.
    state text,
    role text,
    info text,
    -- The same text as in agent_session.
    traceparent text,
    primary key (shard, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- Rows of outbox that cannot be published now, and all later rows of the same agent in the same classroom, so that they
-- keep their order. Each goes back to outbox, under its own id, at `retry_at`.
create table outbox_quarantine (
    id bigint not null,
    shard smallint not null,
    classroom_id uuid not null,
    agent_id text not null,
    session_id bigint not null,
    operation text not null,
    reason text,
    nonce bigint not null,
    created_at timestamptz not null,
    state text,
    role text,
    info text,
    traceparent text,
    why text not null,
    retry_at timestamptz not null,
    primary key (classroom_id, agent_id, id)
);
create index outbox_quarantine_retry on outbox_quarantine (shard, retry_at);

-- Fields in Redis that connections left behind. A row is written in the transaction that ends or takes over the
-- session, and deleted once Redis has answered. A node removes its own fields, and those of nodes that are dead. The
-- field of a connection that was taken over belongs to its node, and is held until that connection has ended, because
-- its join may be under way.
create table stale_field (
    id bigint generated always as identity primary key,
    node_id bigint not null,
    lesson_id text not null,
    user_id text not null,
    sid text not null,
    held boolean not null default false
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
create index stale_field_held on stale_field (sid) where held;
-- For finding a node's own fields.
create index stale_field_node on stale_field (node_id, id);

-- Fields that were removed from Redis in the last ten minutes, each with the node that requested the removal: a failover
-- of Redis may undo the removal. Minutes count since 1970. Rows are deleted in the order of the minutes. Each
-- search begins at the minute at which the last search ended, and never at the first row, because dead row versions may
-- be there as long as an old snapshot lives.
create table removal (
    minute bigint not null default (extract(epoch from clock_timestamp())::bigint / 60),
    node_id bigint not null,
    lesson_id text not null,
    user_id text not null,
    sid text not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000);
create index removal_minute on removal (minute);

-- The cursor of the webhook, through which its receiver has taken the events of the stream, and the node that delivers
-- them while its lease holds. Every event through the offset was delivered, or belongs to a parked classroom.
create table webhook (
    node_id bigint,
    node_epoch bigint,
    stream text not null default '',
    after_offset bigint not null default 0,
    single boolean primary key default true check (single)
) with (fillfactor = 50);
insert into webhook default values;

-- Classrooms whose events the receiver refuses while it takes those of others. Each has a cursor of its own.
create table webhook_parked (
    classroom_id uuid primary key,
    -- The stream of the offset, as in the table webhook.
    stream text not null,
    after_offset bigint not null,
    refused_since timestamptz not null
);

-- Sequences give out the ids, and only their owner may read and set them. These functions run with the owner's rights,
-- so that a role that only has rights on rows can serve.
create function last_session_id() returns bigint language sql security definer set search_path from current
as 'select last_value from agent_session_id_seq';

-- For a row of agent_session that must hold the id of its event.
create function next_event_id() returns bigint language sql security definer set search_path from current
as $$ select nextval('outbox_id_seq') $$;

-- After a loss of commits no id is given out a second time. `highest` is the highest session id that the caller knows
-- of.
create function raise_ids(highest bigint) returns bigint language sql security definer set search_path from current
as $$
    select setval('node_id_seq', last_value + 1000000) from node_id_seq;
    select setval('outbox_id_seq', last_value + 1000000) from outbox_id_seq;
    select setval('stale_field_id_seq', last_value + 1000000) from stale_field_id_seq;
    select setval('agent_session_id_seq', greatest(last_value, highest) + 1000000) from agent_session_id_seq;
$$;
