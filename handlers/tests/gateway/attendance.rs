//! Attendance: when each agent entered a classroom, when it left, and why.

use std::io::{BufRead, BufReader};

use rollcall_loadtest::Gateway;
use serde_json::Value;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;

use crate::common::{Backend, Classroom, SOON, on_both_kinds};

/// The number of rows of a history that is much larger than what a gateway may hold in memory.
const MANY: usize = 200_000;

on_both_kinds!(
    those_who_left_and_those_who_stay_are_told,
    a_list_is_of_the_time_that_was_asked_for,
    no_field_of_a_csv_is_a_formula,
    a_long_history_does_not_grow_memory,
    what_is_no_question_is_refused,
    old_history_goes_and_the_rest_stays,
);

fn path(room: &Classroom, query: &str) -> String {
    format!("/api/v1/classrooms/{}/attendance{query}", room.id)
}

fn list(backend: &Backend, room: &Classroom, query: &str) -> Vec<Value> {
    let (status, body) = backend.gateway.get(&path(room, query)).unwrap();
    assert_eq!(status, 200, "{body}");
    serde_json::from_str(&body).unwrap()
}

/// Writes a session that has ended into the history, without a connection.
async fn remember(backend: &Backend, room: &Classroom, id: usize, agent: &str, user: &str, minutes_ago: (i64, i64)) {
    let (from, to) = minutes_ago;
    let text = format!("{id}, '{agent}', '{}', '{user}', 'closed'", room.id);
    let statement = match backend.servers() {
        Some(_) => format!(
            "insert into agent_session_history (id, agent_id, classroom_id, user_id, reason, lifetime) values ({text}, \
             tstzrange(now() - interval '{from} minutes', now() - interval '{to} minutes'))"
        ),
        None => format!(
            "insert into agent_session_history (id, agent_id, classroom_id, user_id, reason, started_at, ended_at) \
             values ({text}, strftime('%Y-%m-%d %H:%M:%f', 'now', '-{from} minutes'), \
             strftime('%Y-%m-%d %H:%M:%f', 'now', '-{to} minutes'))"
        ),
    };
    backend.write(&statement).await;
}

async fn those_who_left_and_those_who_stay_are_told(backend: &Backend) {
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    let bob = backend.participant(room, "bob").await;
    let gone = alice.leaves().await;
    backend
        .wait_for_rows(
            &format!("select count(*) from agent_session_history where classroom_id = '{}'", room.id),
            &["1"],
        )
        .await;
    let all = list(backend, room, "");
    let [stays, left] = &all[..] else { panic!("{all:?}") };
    assert_eq!((&stays["session_id"], &stays["agent_id"]), (&bob.session.into(), &bob.id.as_str().into()));
    assert_eq!(
        (&stays["left_at"], &stays["reason"], &stays["user_id"]),
        (&Value::Null, &Value::Null, &room.user("bob").into())
    );
    assert_eq!((&left["session_id"], &left["agent_id"]), (&gone.session.into(), &gone.id.as_str().into()));
    assert_eq!((&left["reason"], &left["lesson_id"]), (&"closed".into(), &room.algebra.as_str().into()));
    let (entered, end) = (left["entered_at"].as_str().unwrap(), left["left_at"].as_str().unwrap());
    assert!(entered <= end && entered.len() == "2026-09-01T08:00:00.000Z".len() && entered.ends_with('Z'), "{left}");
    let (_, csv) = backend.gateway.get(&path(room, "?format=csv")).unwrap();
    let lines: Vec<_> = csv.split("\r\n").collect();
    assert_eq!(lines[0], "session_id,agent_id,user_id,lesson_id,entered_at,left_at,reason");
    assert_eq!(
        lines[2],
        format!("{},{},{},{},{entered},{end},closed", gone.session, gone.id, room.user("alice"), room.algebra)
    );
    assert_eq!(lines.len(), 4, "{csv}");
}

async fn a_list_is_of_the_time_that_was_asked_for(backend: &Backend) {
    let room = backend.classroom();
    let base = room_number(room);
    for (number, minutes_ago) in [(180, 120), (115, 60), (50, 10)].into_iter().enumerate() {
        remember(backend, room, base + number, "web.a.example.org", "a", minutes_ago).await;
    }
    let _there = backend.participant(room, "alice").await;
    let ago = |minutes: i64| {
        let query = match backend.servers() {
            Some(_) => format!(
                "select to_char((now() - interval '{minutes} minutes') at time zone 'UTC', 'YYYY-MM-DD\"T\"HH24:MI:SS\"Z\"')"
            ),
            None => format!("select strftime('%Y-%m-%dT%H:%M:%SZ', 'now', '-{minutes} minutes')"),
        };
        async move { backend.value(&query).await }
    };
    let count = async |from: Option<i64>, to: Option<i64>| {
        let mut query = "?x=1".to_owned();
        if let Some(from) = from {
            query.push_str(&format!("&from={}", ago(from).await));
        }
        if let Some(to) = to {
            query.push_str(&format!("&to={}", ago(to).await));
        }
        list(backend, room, &query).len()
    };
    assert_eq!(count(None, None).await, 4);
    assert_eq!((count(Some(90), None).await, count(Some(118), Some(117)).await), (3, 0));
    assert_eq!((count(Some(119), Some(5)).await, count(None, Some(150)).await, count(Some(5), None).await), (2, 1, 1));
}

async fn no_field_of_a_csv_is_a_formula(backend: &Backend) {
    let room = backend.classroom();
    remember(backend, room, room_number(room), "-1.=1%2C1.example.org", "=1,1", (2, 1)).await;
    let (_, csv) = backend.gateway.get(&path(room, "?format=csv")).unwrap();
    assert!(csv.contains(",'-1.=1%2C1.example.org,\"'=1,1\","), "{csv}");
    assert_eq!(list(backend, room, "")[0]["user_id"], "=1,1");
}

async fn a_long_history_does_not_grow_memory(kind: &Backend) {
    let backend = kind.another(Clone::clone);
    let room = backend.classroom();
    let id = &room.id;
    let rows = match backend.servers() {
        Some(_) => format!(
            "insert into agent_session_history (id, agent_id, classroom_id, user_id, reason, lifetime) \
             select n, 'web.u' || n || '.example.org', '{id}', 'u' || n, 'closed', \
             tstzrange(now() - interval '1 day' + n * interval '1 ms', now() - interval '1 hour' + n * interval '1 ms') \
             from generate_series(1000000, 1000000 + {MANY} - 1) as n"
        ),
        None => format!(
            "with recursive n(n) as (select 1000000 union all select n + 1 from n where n < 1000000 + {MANY} - 1) \
             insert into agent_session_history (id, agent_id, classroom_id, user_id, reason, started_at, ended_at) \
             select n, 'web.u' || n || '.example.org', '{id}', 'u' || n, 'closed', '2026-01-01 00:00:00.000', \
             strftime('%Y-%m-%d %H:%M:%f', 1767225600.0 + n, 'unixepoch') from n"
        ),
    };
    backend.write(&rows).await;
    // The first request makes the gateway allocate what it keeps, so that later growth comes from the list alone.
    let _warm = backend.gateway.get(&path(room, "?from=2099-01-01T00:00:00Z")).unwrap();
    let before = backend.gateway.metric("process_resident_memory_bytes", &[]).unwrap();
    for format in ["csv", "json"] {
        let (lines, distinct) = read_slowly(&backend.gateway, &path(room, &format!("?format={format}")));
        assert_eq!((lines, distinct), (MANY, MANY), "{format}");
    }
    let grown = backend.gateway.metric("process_resident_memory_bytes", &[]).unwrap() - before;
    assert!(grown < 16e6, "{grown} bytes more");
}

/// Reads an answer slowly, without keeping it. Returns how many sessions it has, and how many of them are different.
fn read_slowly(gateway: &Gateway, path: &str) -> (usize, usize) {
    use std::io::Write;
    let mut stream = std::net::TcpStream::connect(gateway.admin()).unwrap();
    write!(stream, "GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n").unwrap();
    let (mut count, mut seen) = (0, std::collections::HashSet::new());
    // Each session has an agent id with a number of its own, which follows this byte.
    for part in BufReader::new(stream).split(b'w') {
        let part = part.unwrap();
        let Some(number) = part.strip_prefix(b"eb.u").and_then(|rest| rest.split(|byte| *byte == b'.').next()) else {
            continue;
        };
        count += 1;
        seen.insert(number.to_vec());
    }
    (count, seen.len())
}

/// A list that is asked for on a connection of its own.
struct Reading {
    stream: TcpStream,
    answer: Vec<u8>,
}

impl Reading {
    async fn begins(backend: &Backend, path: &str) -> Self {
        let mut stream = TcpStream::connect(backend.gateway.admin()).await.unwrap();
        let request = format!("GET {path} HTTP/1.1\r\nhost: localhost\r\nconnection: close\r\n\r\n");
        stream.write_all(request.as_bytes()).await.unwrap();
        Self { stream, answer: Vec::new() }
    }

    async fn comes_to(&mut self, text: &str) {
        while !String::from_utf8_lossy(&self.answer).contains(text) {
            let read = timeout(SOON, self.stream.read_buf(&mut self.answer)).await.unwrap().unwrap();
            assert!(read > 0, "no {text}: {}", String::from_utf8_lossy(&self.answer));
        }
    }
}

/// A list begins before the history is read, because the history may have no session that matches the query. A list
/// that has begun goes on after a time without the database, because a client cannot ask for the rest of a list.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_list_waits_for_a_history_that_cannot_be_read() {
    let backend = Backend::real().another(Clone::clone);
    let (room, empty) = (backend.classroom(), backend.classroom());
    remember(&backend, room, 1_000_000, "web.a.example.org", "a", (2, 1)).await;
    let bob = backend.participant(room, "bob").await;
    let (mut postgres, connection) =
        tokio_postgres::connect(&backend.servers().unwrap().postgres, tokio_postgres::NoTls).await.unwrap();
    tokio::spawn(connection);
    let lock = postgres.transaction().await.unwrap();
    lock.batch_execute("lock table agent_session_history in access exclusive mode").await.unwrap();

    let mut list = Reading::begins(&backend, &path(room, "?format=csv")).await;
    let mut nobodys = Reading::begins(&backend, &path(empty, "?format=csv")).await;
    list.comes_to(&bob.id).await;
    nobodys.comes_to("session_id,agent_id").await;
    let in_vain = ["operation=\"past\""];
    backend.gateway.wait_for_metric("rollcall_backend_errors_total", &in_vain, SOON, |count| count > 1.0).unwrap();
    lock.rollback().await.unwrap();
    list.comes_to("\r\n1000000,web.a.example.org,a,").await;
    for reading in [&mut list, &mut nobodys] {
        reading.comes_to("\r\n0\r\n\r\n").await;
    }
}

async fn what_is_no_question_is_refused(backend: &Backend) {
    let room = backend.classroom();
    let status = |path: String| backend.gateway.get(&path).unwrap().0;
    for query in ["?from=yesterday", "?to=1", "?format=xml"] {
        assert_eq!(status(path(room, query)), 400, "{query}");
    }
    assert!(list(backend, room, "?from=2026-01-02T00:00:00Z&to=2026-01-01T00:00:00Z").is_empty());
    assert_eq!(status("/api/v1/classrooms/x/attendance".to_owned()), 400);
    assert_eq!(backend.gateway.post(&path(room, ""), &Value::Null).unwrap().0, 405);
}

async fn old_history_goes_and_the_rest_stays(kind: &Backend) {
    let mut backend = kind.another(Clone::clone);
    let id = backend.classroom().id.clone();
    // Every hundredth session ended a moment ago, and lies between rows that are old.
    backend
        .write(&match backend.servers() {
            Some(_) => format!(
                "insert into agent_session_history (id, agent_id, classroom_id, user_id, reason, lifetime) \
                 select n, 'web.a.example.org', '{id}', 'a', 'closed', tstzrange(now() - interval '3 hours', \
                 now() - case when n % 100 = 0 then interval '1 minute' else interval '2 hours' end) \
                 from generate_series(1000001, 1001200) as n"
            ),
            None => format!(
                "with recursive n(n) as (select 1000001 union all select n + 1 from n where n < 1001200) \
                 insert into agent_session_history (id, agent_id, classroom_id, user_id, reason, started_at, ended_at) \
                 select n, 'web.a.example.org', '{id}', 'a', 'closed', strftime('%Y-%m-%d %H:%M:%f', 'now', '-3 hours'), \
                 strftime('%Y-%m-%d %H:%M:%f', 'now', iif(n % 100 = 0, '-1 minutes', '-2 hours')) from n"
            ),
        })
        .await;
    // A gateway removes old history when it starts.
    backend.gateway.restart_with(|options| options.env("ROLLCALL_HISTORY_RETENTION", "1h")).unwrap();
    backend.wait_for_rows("select count(*), sum(id % 100) from agent_session_history", &["12|0"]).await;
    backend.gateway.wait_for_metric("rollcall_history_deleted_total", &[], SOON, |rows| rows == 1188.0).unwrap();
}

/// Returns the first id of sessions for this classroom: no session of a test and no other classroom has these ids.
fn room_number(room: &Classroom) -> usize {
    2_000_000_000 + usize::from_str_radix(&room.id[..6], 16).unwrap() * 10
}
