-- As in Postgres.
create table leaving (
    id integer primary key autoincrement,
    node_id integer not null,
    lesson_id text not null,
    user_id text not null,
    sid text not null
);

alter table agent_session add column lesson_before text;
