-- As in Postgres.
create table leaving (
    id integer primary key autoincrement,
    node_id integer not null,
    lesson_id text not null,
    user_id text not null,
    sid text not null,
    held integer not null default false
);
create index leaving_held on leaving (sid) where held;

alter table agent_session add column lesson_before text;
