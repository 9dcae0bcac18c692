-- Where a connection was when it lost its session. A live node tells the connection, whose own end clears its field in
-- Redis; for a node that died, whoever buries it does.
alter table agent_session add column previous_role text, add column previous_lesson_id text;
alter table takeover add column session_id bigint, add column user_id text, add column role text,
    add column lesson_id text;
