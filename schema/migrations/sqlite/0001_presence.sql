-- The tables have the same columns as in Postgres, for one node. UUIDs are text. Times are text in UTC with
-- milliseconds.

create table installation (
    id text not null,
    signing_key blob not null default (randomblob(32)),
    single integer primary key default 1 check (single = 1)
);
insert into installation (id)
select lower(
    substr(h, 1, 8) || '-' || substr(h, 9, 4) || '-4' || substr(h, 14, 3) || '-'
    || substr('89ab', 1 + abs(random() % 4), 1) || substr(h, 18, 3) || '-' || substr(h, 21, 12)
)
from (select hex(randomblob(16)) as h);

create table lesson (
    id text primary key,
    classroom_id text not null,
    seats integer not null check (seats between 0 and 10000)
) without rowid;

create table lesson_attendee (
    lesson_id text not null references lesson on delete cascade,
    user_id text not null,
    seat integer not null check (seat > 0),
    primary key (lesson_id, user_id)
) without rowid;

create table node (
    id integer primary key autoincrement,
    label text not null,
    epoch integer not null default 1,
    lease_until text not null,
    standalone integer not null
);

-- autoincrement: the id of an ended session is never given out again.
create table agent_session (
    id integer primary key autoincrement,
    agent_id text not null,
    classroom_id text not null,
    user_id text not null,
    node_id integer not null,
    sid text not null,
    role text not null,
    lesson_id text,
    lesson_role text,
    seat integer,
    started_at text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    joined_at text,
    taken_over_at text,
    lesson_change integer not null default 0,
    lesson_before text,
    previous_node integer,
    previous_sid text,
    info text,
    state text,
    state_n integer,
    resume_id integer,
    traceparent text,
    unique (classroom_id, agent_id)
);
-- For counting a user's sessions, and for finding a leaving user's other session in the same lesson.
create index agent_session_user on agent_session (user_id);

create table agent_session_history (
    id integer primary key,
    agent_id text not null,
    classroom_id text not null,
    user_id text not null,
    lesson_id text,
    started_at text not null,
    ended_at text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    lifetime text not null generated always as ('["' || started_at || '","' || ended_at || '")') virtual,
    reason text not null,
    -- The same as in Postgres.
    cause text,
    resume_id integer,
    taken_over_at text
);
-- For finding a user's latest sessions, and what is to be erased of a user.
create index agent_session_history_user on agent_session_history (user_id, id);
-- For reading a classroom's attendance, page by page.
create index agent_session_history_classroom on agent_session_history (classroom_id, ended_at, id);

create table outbox (
    id integer primary key autoincrement,
    classroom_id text not null,
    agent_id text not null,
    session_id integer not null,
    operation text not null,
    reason text,
    nonce integer not null default (random() & 281474976710655),
    created_at text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now')),
    state text,
    role text,
    info text,
    traceparent text
);

create table outbox_quarantine (
    id integer not null,
    classroom_id text not null,
    agent_id text not null,
    session_id integer not null,
    operation text not null,
    reason text,
    nonce integer not null,
    created_at text not null,
    state text,
    role text,
    info text,
    traceparent text,
    why text not null,
    retry_at text not null,
    primary key (classroom_id, agent_id, id)
) without rowid;
create index outbox_quarantine_retry on outbox_quarantine (retry_at);

-- The same as in Postgres.
create table stale_field (
    id integer primary key autoincrement,
    node_id integer not null,
    lesson_id text not null,
    user_id text not null,
    sid text not null,
    held integer not null default false
);
create index stale_field_held on stale_field (sid) where held;

-- The same as in Postgres.
create table removal (
    minute integer not null default (strftime('%s', 'now') / 60),
    node_id integer not null,
    lesson_id text not null,
    user_id text not null,
    sid text not null
);
create index removal_minute on removal (minute);

-- The same as in Postgres, but the one process that serves also delivers.
create table webhook (
    stream text not null default '',
    after_offset integer not null default 0,
    single integer primary key default 1 check (single = 1)
);
insert into webhook default values;

create table webhook_parked (
    classroom_id text primary key,
    stream text not null,
    after_offset integer not null,
    refused_since text not null
) without rowid;

-- Published events that the webhook has not delivered yet, kept here because no stream keeps them. Their ids ascend in
-- the order of publishing, and are the webhook's offsets.
create table webhook_event (
    id integer primary key autoincrement,
    classroom_id text not null,
    reason text,
    body text not null,
    traceparent text,
    created_at text not null default (strftime('%Y-%m-%d %H:%M:%f', 'now'))
);
create index webhook_event_classroom on webhook_event (classroom_id, id);
