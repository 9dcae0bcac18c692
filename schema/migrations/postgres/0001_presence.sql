-- All times are the database's clock_timestamp(): now() stands still from the start of a transaction.

-- Part of every message id, so that two databases on one NATS server never make the same one.
create table installation (
    id uuid not null,
    -- Where the server's history was at the latest change of `incarnation`: its identifier and its timeline.
    timeline text,
    -- Drawn anew whenever the database has lost commits.
    incarnation uuid not null default gen_random_uuid(),
    -- The highest session id of before the latest loss, or 0. Of such a session a left may be published that is not known
    -- here, so it is ended, not taken over, when its agent comes again.
    doubtful_through bigint not null default 0,
    -- Signs what clients of Socket.IO get to go on with after a break.
    signing_key bytea not null default uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid()),
    single boolean primary key default true check (single)
);
insert into installation (id) values (gen_random_uuid());

create table lesson (
    id text primary key,
    classroom_id uuid not null,
    seats integer not null check (seats >= 0)
);

create table lesson_attendee (
    lesson_id text not null references lesson on delete cascade,
    user_id text not null,
    seat integer not null check (seat > 0),
    primary key (lesson_id, user_id)
);

-- A running process. A node that takes an expired lease sets `taken` and raises the epoch, under a lock that waits for
-- every write in flight; the row is deleted when none of its sessions is left.
create table node (
    id bigint generated always as identity primary key,
    label text not null,
    epoch bigint not null default 1,
    lease_until timestamptz not null,
    standalone boolean not null,
    -- When the lease was renewed last. Its claims on shards of the outbox may be revoked some seconds later, long before
    -- the lease ends.
    renewed_at timestamptz not null default clock_timestamp(),
    -- Raised whenever its claims end all at once: a shard that was claimed under a lower one is free.
    claim_epoch bigint not null default 0,
    -- Whether it wants shards.
    relays boolean not null default false,
    -- Boot, namespaces, pid and start: a later process on the same machine can tell that this one is dead.
    process text,
    taken boolean not null default false,
    -- The node that ends its sessions; if that one dies, another does. Null: nobody yet.
    taken_by bigint,
    -- What the node says of itself, as JSON of at most 4 KiB, and since when: written when its lease is renewed.
    statistics text,
    statistics_at timestamptz
) with (fillfactor = 50, toast_tuple_target = 128);
-- Kept beside the row, so that whoever counts nodes or compares epochs, also in dead versions, does not read it.
alter table node alter column statistics set storage external;

-- An agent's live session. `previous_*` is the connection that owned it before the latest takeover, for that takeover's
-- answer.
-- Joins and takeovers change no indexed column, and find room on the row's own page (HOT): no index gets an entry.
create table agent_session (
    id bigint generated always as identity primary key,
    agent_id text not null,
    classroom_id uuid not null,
    -- The token's sub. It does not follow from agent_id, which holds it encoded.
    user_id text not null,
    node_id bigint not null,
    sid text not null,
    role text not null,
    lesson_id text,
    seat integer,
    started_at timestamptz not null default clock_timestamp(),
    joined_at timestamptz,
    takeovers integer not null default 0,
    -- The number of the latest change of lesson_id among those that the connection asked for: an earlier one that comes late
    -- writes nothing.
    lesson_change integer not null default 0,
    -- The lesson that the connection moved from, or tried to move to: its field in Redis may still be there.
    lesson_before text,
    previous_node bigint,
    previous_sid text,
    previous_lesson_id text,
    previous_before text,
    -- The token's claim, and what the agent has set: JSON, byte for byte.
    info text,
    state text,
    -- The id in outbox of the latest agent.updated: it grows also over a loss of commits. Null: there was none.
    state_n bigint,
    -- The latest takeover changed role or info.
    changed boolean,
    -- Under which a client of Socket.IO finds its session again.
    resume_id integer,
    -- The trace that the connection belongs to, if it belongs to one; the session's events carry it.
    traceparent text,
    unique (classroom_id, agent_id)
) with (fillfactor = 50, autovacuum_vacuum_scale_factor = 0.05);
-- Finds a dead node's sessions.
create index agent_session_node on agent_session (node_id, id);
-- Counts a user's sessions, and finds a leaving user's other session in the same lesson.
create index agent_session_user on agent_session (user_id);

create table agent_session_history (
    id bigint primary key,
    agent_id text not null,
    classroom_id uuid not null,
    user_id text not null,
    -- The lesson that the session was in when it ended.
    lesson_id text,
    lifetime tstzrange not null,
    reason text not null,
    -- Of a kicked one: the session error that its client was told (kicked: by an operator), or violation.
    cause text,
    -- As in agent_session; null where the session's end was final.
    resume_id integer
);
-- Finds what is to be erased of a user, and a user's latest sessions.
create index agent_session_history_user on agent_session_history (user_id, id);
-- A classroom's attendance, page by page.
create index agent_session_history_classroom on agent_session_history (classroom_id, upper(lifetime), id);

-- Connections that lost their session to one on another node, until their node has told them.
create table takeover (
    node_id bigint not null,
    sid text not null
);
create index takeover_node on takeover (node_id);

-- Connections whose session an operator ended, until their node has closed them; with a lesson, those that are only to
-- leave that lesson. A node that was stopped for longer than its lease still finds them when it goes on; they are kept for
-- an hour.
create table kick (
    node_id bigint not null,
    sid text not null,
    lesson_id text,
    at timestamptz not null default clock_timestamp()
);
create index kick_node on kick (node_id);

-- Who publishes the events of each shard of the outbox: a node, while its claims hold. Written only when that changes.
create table outbox_shard (
    shard smallint primary key,
    node_id bigint,
    claim_epoch bigint,
    -- Raised whenever it is taken.
    generation bigint not null default 0
) with (fillfactor = 50);
insert into outbox_shard (shard) select generate_series(0, 7);

-- Events that are committed and not yet published. One agent in one classroom always has the same shard, which a node can
-- tell by the classroom's id (rollcall_schema::Shards), and its rows have ascending ids: each is written under the lock of the agent's row or key in agent_session. `nonce` is part of
-- the message id: every attempt to publish the row has the same one, and a database that was put back to an earlier time
-- and gives out the same session ids again never makes it again. Operation and reason have no check here: a newer
-- version may write others.
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
    -- Of an agent.updated: the state. The role only where a takeover changed role or info; info is then told, too, as it
    -- is with an agent.entered.
    state text,
    role text,
    info text,
    -- As in agent_session.
    traceparent text,
    primary key (shard, id)
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);

-- Rows of outbox that cannot be published now, and all later rows of the same agent in the same classroom, so that those
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

-- Fields in Redis that connections left behind, written in the transaction that ends or takes over the session, and
-- deleted once Redis has answered. A node removes its own, and those of nodes that are no more. Those of a connection
-- that was taken over are its node's, and held until that connection has ended: a join of its may be under way.
create table stale_field (
    id bigint generated always as identity primary key,
    node_id bigint not null,
    lesson_id text not null,
    user_id text not null,
    sid text not null,
    held boolean not null default false
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 10000);
create index stale_field_held on stale_field (sid) where held;
-- Finds a node's own.
create index stale_field_node on stale_field (node_id, id);

-- Stale fields that the key store has removed in the last ten minutes, each by the node that asked for it: a failover may
-- undo it. Minutes are whole ones since 1970. Rows go in the order of the minutes, which are looked for from
-- where the last look ended, never from the first row: dead ones may be there, for as long as an old snapshot lives.
create table removal (
    minute bigint not null default (extract(epoch from clock_timestamp())::bigint / 60),
    node_id bigint not null,
    lesson_id text not null,
    user_id text not null,
    sid text not null
) with (autovacuum_vacuum_scale_factor = 0, autovacuum_vacuum_threshold = 50000);
create index removal_minute on removal (minute);

-- How far the webhook's receiver has taken the events of the stream, and the node that delivers them, which does so while
-- its lease holds. Everything through the offset was delivered, or belongs to a parked classroom.
create table webhook (
    node_id bigint,
    node_epoch bigint,
    stream text not null default '',
    after_offset bigint not null default 0,
    single boolean primary key default true check (single)
) with (fillfactor = 50);
insert into webhook default values;

-- Classrooms whose events the receiver refuses while it takes others': each has a cursor of its own.
create table webhook_parked (
    classroom_id uuid primary key,
    -- As in webhook: what the offset is of.
    stream text not null,
    after_offset bigint not null,
    refused_since timestamptz not null
);

-- Ids are given out by sequences, which only their owner may read and set: these run with the owner's rights, so that a role
-- with no more than the rights to rows can serve.
create function last_session_id() returns bigint language sql security definer set search_path from current
as 'select last_value from agent_session_id_seq';

-- For a row of agent_session that is to hold the id of its event.
create function next_event_id() returns bigint language sql security definer set search_path from current
as $$ select nextval('outbox_id_seq') $$;

-- After the loss of commits no id is given out again. `highest` is the highest session id that the caller knows of.
create function raise_ids(highest bigint) returns bigint language sql security definer set search_path from current
as $$
    select setval('node_id_seq', last_value + 1000000) from node_id_seq;
    select setval('outbox_id_seq', last_value + 1000000) from outbox_id_seq;
    select setval('stale_field_id_seq', last_value + 1000000) from stale_field_id_seq;
    select setval('agent_session_id_seq', greatest(last_value, highest) + 1000000) from agent_session_id_seq;
$$;
