//! PROTOCOL 2: a request that fails leaves everything as it was, even if an answer is lost, or the handler's timeout
//! cuts the request off. Soon after, row and keys say what the client was told, without a further request.

use std::net::SocketAddr;

use rollcall_loadtest::servers::shared;
use rollcall_loadtest::{Client, GatewayOptions, Way, Wire};
use serde_json::json;

use crate::common::{
    Agent, Backend, Classroom, SOON, Servers, expect_field, failpoint, on_both_kinds, session_error, student_hash,
    until,
};

on_both_kinds!(answers_that_are_lost_are_undone, a_join_that_waits_for_sql_is_cut_off);

/// Returns options with a handler timeout that is shorter than a call of SQL or Redis may take, so that the timeout
/// cuts a handler off during such a call.
fn impatient(options: &GatewayOptions) -> GatewayOptions {
    options.clone().env("ROLLCALL_HANDLER_TIMEOUT", "700ms")
}

async fn lesson_is(backend: &Backend, agent: &Agent, lesson: &str) {
    let row = format!("select lesson_id from agent_session where id = {}", agent.session);
    backend.wait_for_rows(&row, &[lesson]).await;
}

/// Expects that nothing is being undone any more.
fn is_settled(backend: &Backend) {
    backend.gateway.wait_for_metric("rollcall_undos", &[], SOON, |undos| undos == 0.0).unwrap();
}

/// Enters, and tries again if the busy machine was too slow.
async fn enters(backend: &Backend, room: &Classroom, token: &str, label: &str) -> Agent {
    let entering = async || {
        let mut client = Client::connect(backend.gateway.address()).await?;
        let success = client.connect_request(token, &room.id, label).await?;
        Ok::<_, rollcall_loadtest::client::ClientError>(Agent::of(client, &success))
    };
    until("a session", SOON, entering, Result::is_ok).await.unwrap()
}

async fn joins(agent: &mut Agent, lesson: &str) {
    let asking = async || agent.client.join_lesson(lesson).await.unwrap()["status"].clone();
    until("join_lesson", SOON, asking, |status| status == "SUCCESS").await;
}

async fn alice_in_algebra(backend: &Backend, room: &Classroom) -> Agent {
    let mut alice = enters(backend, room, &room.participant("alice"), "web").await;
    joins(&mut alice, &room.algebra).await;
    alice
}

async fn answers_that_are_lost_are_undone(backend: &Backend) {
    let own = backend.another(failpoint::breakable);
    let room = own.classroom();
    let mut keys = own.keys().await;
    let user = room.user("alice");
    let mut alice = own.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    let requests = [
        ("join committed", "join_lesson", json!({"lesson_id": room.biology})),
        ("lesson entered", "join_lesson", json!({"lesson_id": room.biology})),
        ("keys written", "join_lesson", json!({"lesson_id": room.biology})),
        ("leave_lesson committed", "leave_lesson", json!({})),
    ];
    for (step, event, payload) in requests {
        failpoint::arm(&own.gateway, step, "PANIC");
        let ack = alice.client.request(event, payload).await.unwrap();
        assert_eq!((&ack["status"], &ack["message"]), (&json!("ERROR"), &json!("try again later")), "{step}: {ack}");
        failpoint::struck(&own.gateway).await;
        lesson_is(&own, &alice, &room.algebra).await;
        expect_field(&mut keys, &student_hash(&room.algebra), &user, Some(&alice.sid)).await;
        expect_field(&mut keys, &student_hash(&room.biology), &user, None).await;
        is_settled(&own);
        // The agent is still in the lesson's room, too.
        own.fence_on(&format!("lesson.{}.board", room.algebra)).is_next_for(&mut alice).await;
    }
    joins(&mut alice, &room.biology).await;
    lesson_is(&own, &alice, &room.biology).await;
    expect_field(&mut keys, &student_hash(&room.biology), &user, Some(&alice.sid)).await;
    expect_field(&mut keys, &student_hash(&room.algebra), &user, None).await;
    alice.leaves().await;
    expect_field(&mut keys, &student_hash(&room.biology), &user, None).await;
}

/// A transaction of the test, for which writes of sessions wait.
enum Lock {
    Postgres(tokio_postgres::Client),
    Sqlite(rusqlite::Connection),
}

impl Lock {
    async fn take(backend: &Backend, agent: &Agent) -> Self {
        match backend.servers() {
            Some(Servers { postgres, .. }) => {
                let (client, connection) = tokio_postgres::connect(postgres, tokio_postgres::NoTls).await.unwrap();
                tokio::spawn(connection);
                let row = format!("begin; select from agent_session where id = {} for update", agent.session);
                client.batch_execute(&row).await.unwrap();
                Self::Postgres(client)
            }
            None => {
                let connection = rusqlite::Connection::open(backend.gateway.folder().join("rollcall.db")).unwrap();
                connection.busy_timeout(SOON).unwrap();
                connection.execute_batch("begin immediate").unwrap();
                Self::Sqlite(connection)
            }
        }
    }

    async fn release(self) {
        match self {
            Self::Postgres(client) => client.batch_execute("rollback").await.unwrap(),
            Self::Sqlite(connection) => connection.execute_batch("rollback").unwrap(),
        }
    }
}

async fn a_join_that_waits_for_sql_is_cut_off(backend: &Backend) {
    let own = backend.another(impatient);
    let room = own.classroom();
    let mut alice = alice_in_algebra(&own, room).await;
    let lock = Lock::take(&own, &alice).await;
    alice.is_refused(json!({"lesson_id": room.biology}), "timed out").await;
    lock.release().await;
    // This row is written after the writes that waited for the lock.
    let set = async || alice.client.request("set_state", json!({"state": {}})).await.unwrap()["status"].clone();
    until("set_state", SOON, set, |status| status == "SUCCESS").await;
    is_settled(&own);
    lesson_is(&own, &alice, &room.algebra).await;
    joins(&mut alice, &room.biology).await;
    lesson_is(&own, &alice, &room.biology).await;
}

/// Returns a gateway whose connection to Redis a test can disturb.
fn before_redis() -> (Backend, Wire) {
    let servers = Servers::shared();
    let wire = Wire::before(SocketAddr::from(([127, 0, 0, 1], shared::redis().port()))).unwrap();
    let through = wire.instead_of(&servers.redis);
    let backend = Backend::start(Some(servers), |options| impatient(options).env("REDIS_URL", &through));
    (backend, wire)
}

/// Redis carries out the commands, and its answers do not arrive.
#[tokio::test]
async fn a_join_that_redis_has_carried_out_is_cut_off() {
    let (backend, wire) = before_redis();
    let room = backend.classroom();
    let mut keys = backend.keys().await;
    let token = room.participant("alice");
    let mut web = enters(&backend, room, &token, "web").await;
    let mut tablet = enters(&backend, room, &token, "tablet").await;
    let mut tess = enters(&backend, room, &room.teacher("tess"), "web").await;
    joins(&mut web, &room.algebra).await;
    joins(&mut tablet, &room.biology).await;
    joins(&mut tess, &room.algebra).await;
    wire.hold(Way::Down);
    for agent in [&mut web, &mut tess] {
        agent.is_refused(json!({"lesson_id": room.biology}), "timed out").await;
        // The write of the row does not wait for Redis.
        lesson_is(&backend, agent, &room.algebra).await;
    }
    wire.clear();
    let (user, teacher) = (room.user("alice"), room.user("tess"));
    let teachers = |lesson: &str| format!("lesson_teacher_{lesson}");
    expect_field(&mut keys, &student_hash(&room.algebra), &user, Some(&web.sid)).await;
    expect_field(&mut keys, &student_hash(&room.biology), &user, Some(&tablet.sid)).await;
    expect_field(&mut keys, &teachers(&room.algebra), &teacher, Some(&tess.sid)).await;
    expect_field(&mut keys, &teachers(&room.biology), &teacher, None).await;
    expect_field(&mut keys, &teacher, "lesson_id", Some(&room.algebra)).await;
    is_settled(&backend);
    joins(&mut web, &room.biology).await;
    expect_field(&mut keys, &student_hash(&room.biology), &user, Some(&web.sid)).await;
}

#[tokio::test]
async fn a_session_that_ends_while_its_join_is_undone_leaves_no_field() {
    let (backend, wire) = before_redis();
    let room = backend.classroom();
    let mut keys = backend.keys().await;
    let mut alice = alice_in_algebra(&backend, room).await;
    wire.hold(Way::Down);
    alice.is_refused(json!({"lesson_id": room.biology}), "timed out").await;
    alice.leaves().await;
    wire.clear();
    backend.wait_for_rows("select count(*) from agent_session", &["0"]).await;
    is_settled(&backend);
    for lesson in [&room.algebra, &room.biology] {
        expect_field(&mut keys, &student_hash(lesson), &room.user("alice"), None).await;
    }
    backend.wait_for_rows("select count(*) from stale_field", &["0"]).await;
}

#[tokio::test]
async fn a_field_whose_removal_is_cut_off_goes_before_the_session_does() {
    let (backend, wire) = before_redis();
    let room = backend.classroom();
    let mut keys = backend.keys().await;
    let mut alice = alice_in_algebra(&backend, room).await;
    wire.hold(Way::Both);
    let ack = alice.client.request("leave_lesson", json!({})).await.unwrap();
    assert_eq!(ack["message"], "timed out", "{ack}");
    // The commands that were held back are lost.
    wire.close();
    lesson_is(&backend, &alice, "").await;
    wire.clear();
    expect_field(&mut keys, &student_hash(&room.algebra), &room.user("alice"), None).await;
    joins(&mut alice, &room.algebra).await;
    expect_field(&mut keys, &student_hash(&room.algebra), &room.user("alice"), Some(&alice.sid)).await;
}

#[tokio::test]
async fn a_connect_that_is_cut_off_in_its_lesson_leaves_nothing() {
    let (backend, wire) = before_redis();
    let room = backend.classroom();
    let mut keys = backend.keys().await;
    let mut request = room.connect_request(&room.participant("alice"), "web");
    request["resume"] = json!({"lesson_id": room.algebra});
    wire.hold(Way::Down);
    let mut client = backend.client().await;
    client.send(&json!({"type": "connect_request", "payload": request})).await.unwrap();
    session_error(&client.expect_close(SOON).await.unwrap(), "internal_server_error", 500, 3004);
    wire.clear();
    expect_field(&mut keys, &student_hash(&room.algebra), &room.user("alice"), None).await;
    backend.wait_for_rows("select count(*) from agent_session", &["0"]).await;
    is_settled(&backend);
}
