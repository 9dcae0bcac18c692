//! Names that clients and services make up never become labels of metrics.

use futures_util::future::{join, join_all};
use rollcall_loadtest::client::ClientError;
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;
use tokio::time::timeout;
use uuid::Uuid;

use crate::common::{Agent, Backend, Classroom, SOON, until};

/// The number of different classrooms, labels and events that are sent.
const NAMES: usize = 100_000;
/// The number of these classrooms and labels that clients connect with. The others are in events of other services.
const STRANGERS: usize = 1_000;
/// The number of requests under way at once.
const AT_ONCE: usize = 500;

/// Returns the names of the series that the gateway has now.
fn series(backend: &Backend) -> Vec<String> {
    let (_, text) = backend.gateway.get("/metrics").unwrap();
    let name = |line: &str| line.rsplit_once(' ').map(|(name, _)| name.to_owned());
    text.lines().filter(|line| !line.starts_with('#')).filter_map(name).collect()
}

/// Connects to an unknown classroom under an unknown label: as a user, as a guest, and with a token for another
/// classroom.
async fn stranger(backend: &Backend, room: &Classroom, number: usize) {
    let (classroom, label) = (Uuid::new_v4().to_string(), format!("label-{number}"));
    let mut client = backend.client().await;
    let payload = match number % 3 {
        0 => json!({"token": room.participant(&format!("user-{number}"))}),
        1 => json!({}),
        _ => json!({"token": room.token_with(&format!("user-{number}"), &json!({"classroom_ids": [room.id]}))}),
    };
    let mut request = json!({"classroom_id": classroom, "agent_label": label});
    request.as_object_mut().unwrap().extend(payload.as_object().unwrap().clone());
    match client.connect_request_with(request).await {
        Ok(_) => {
            let ack = client.join_lesson(&format!("lesson-{number}")).await.unwrap();
            assert_eq!(ack["message"], "lesson not found");
            client.close().await.unwrap();
        }
        Err(ClientError::Unexpected(error)) => assert_eq!(error["payload"]["type"], "access_denied", "{error}"),
        Err(other) => panic!("{other}"),
    }
}

async fn strangers(backend: &Backend, room: &Classroom, numbers: std::ops::Range<usize>) {
    for start in numbers.clone().step_by(10) {
        let some = start..numbers.end.min(start + 10);
        join_all(some.map(|number| stranger(backend, room, number))).await;
    }
}

/// Publishes events as other services do on one connection. Each event has a classroom, an entity and a label of its
/// own.
async fn publish(backend: &Backend, numbers: std::ops::Range<usize>) {
    let mut stream = TcpStream::connect(backend.gateway.admin()).await.unwrap();
    for start in numbers.clone().step_by(AT_ONCE) {
        let some = start..numbers.end.min(start + AT_ONCE);
        let count = some.len();
        let requests: String = some.map(publication).collect();
        stream.write_all(requests.as_bytes()).await.unwrap();
        let (mut said, mut scratch) = (Vec::new(), vec![0; 64 << 10]);
        while String::from_utf8_lossy(&said).matches("\"offset\"").count() < count {
            let size = timeout(SOON, stream.read(&mut scratch)).await.expect("answers in time").unwrap();
            assert!(size > 0, "{}", String::from_utf8_lossy(&said));
            said.extend_from_slice(&scratch[..size]);
        }
        assert_eq!(String::from_utf8_lossy(&said).matches("HTTP/1.1 202").count(), count);
    }
}

fn publication(number: usize) -> String {
    let id = json!({"entity_type": format!("entity-{number}"), "operation": format!("operation-{number}"), "sequence_id": number});
    let body = json!({
        "subject": format!("classroom.{}.entity-{number}", Uuid::new_v4()),
        "body": {"id": id, "payload": {"label": format!("label-{number}")}},
    });
    let body = body.to_string();
    format!("POST /api/v1/publish HTTP/1.1\r\nHost: localhost\r\nContent-Length: {}\r\n\r\n{body}", body.len())
}

/// Sends requests, each for an event of a made-up name.
async fn ask(alice: &mut Agent, numbers: std::ops::Range<usize>) {
    for start in numbers.clone().step_by(AT_ONCE) {
        let some = start..numbers.end.min(start + AT_ONCE);
        for number in some.clone() {
            alice.client.send(&json!({"type": format!("event-{number}"), "ref": number})).await.unwrap();
        }
        for number in some {
            let ack = alice.client.next_message(SOON).await.unwrap();
            assert_eq!((&ack["ref"], &ack["message"]), (&json!(number), &json!("unknown event")));
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hundred_thousand_names_make_no_series() {
    let _held = crate::common::loads_the_machine().await;
    // Pings are so rare that none comes while the test runs.
    let fast = [
        ("ROLLCALL_EVENT_RATE", "1000000"),
        ("ROLLCALL_USER_EVENT_RATE", "1000000"),
        ("ROLLCALL_GUESTS", "true"),
        ("ROLLCALL_PING_INTERVAL", "600s"),
    ];
    let backend = Backend::embedded()
        .another(|options| fast.iter().fold(options.clone(), |options, (name, value)| options.env(name, value)));
    let room = backend.classroom();
    let mut alice = backend.participant(room, "alice").await;
    alice.joins(&room.algebra).await;
    strangers(&backend, room, 0..3).await;
    join(publish(&backend, 0..1), ask(&mut alice, 0..1)).await;
    let before = series(&backend);
    strangers(&backend, room, 3..STRANGERS).await;
    join(publish(&backend, STRANGERS..NAMES), ask(&mut alice, 1..NAMES)).await;
    // Once the outbox is empty, nothing is left that could make a series.
    let rows = || backend.gateway.metric("rollcall_outbox_rows", &[]).unwrap();
    until("all is published", SOON, async || rows(), |rows| *rows == 0.0).await;
    let mut after = series(&backend);
    after.retain(|name| !before.contains(name));
    assert_eq!(after, [""; 0]);
}
