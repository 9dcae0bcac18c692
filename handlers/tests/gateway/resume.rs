//! PROTOCOL 3, Resume, while several clients publish at once: no client misses an event or gets it twice, and a client
//! that resumes gets ascending offsets.

use std::collections::BTreeSet;

use crate::common::{Backend, Classroom, SOON, Servers, Stream};
use async_nats::HeaderMap;
use futures_util::future::join_all;
use rollcall_loadtest::{
    Client,
    client::Event,
    servers::{Nats, shared},
};
use serde_json::{Value, json};
use tokio::task::JoinSet;

const PUBLISHERS: usize = 4;
const EVENTS: usize = 500;
/// The number of events that each client has under way.
const BATCH: usize = 50;

/// Publishes numbered events to a classroom and to one of its lessons, on several connections at once.
fn publish_at_once(room: &Classroom) -> JoinSet<()> {
    let subjects = [room.subject("note"), format!("lesson.{}.board", room.algebra)];
    let publish = |publisher| {
        let subjects = subjects.clone();
        async move {
            let stream = Stream::of(&shared::nats().url()).await;
            let numbers: Vec<usize> = (0..EVENTS).map(|number| publisher * EVENTS + number).collect();
            for batch in numbers.chunks(BATCH) {
                let sent = batch.iter().map(async |number| {
                    stream.publish(&subjects[number % 2], &[], &json!({"n": number}).to_string()).await;
                });
                join_all(sent).await;
            }
        }
    };
    (0..PUBLISHERS).map(publish).collect()
}

fn all() -> BTreeSet<usize> {
    (0..PUBLISHERS * EVENTS).collect()
}

/// Enters with `resume`, and returns the position at which it starts.
async fn resumes(backend: &Backend, room: &Classroom, resume: Value) -> (Client, Value) {
    let mut client = backend.client().await;
    let mut request = room.connect_request(&room.participant("alice"), "web");
    request["resume"] = resume;
    let success = client.connect_request_with(request).await.unwrap();
    (client, success)
}

/// Reads the next event that has a number.
async fn numbered(client: &mut Client) -> (usize, Event) {
    loop {
        let event = client.next_event(SOON).await.unwrap();
        if let Some(number) = event.body["n"].as_u64() {
            return (usize::try_from(number).unwrap(), event);
        }
    }
}

/// Expects all numbers, each once. Offsets, if events have them, never go back.
async fn hears_all(client: &mut Client) {
    let (mut missing, mut last) = (all(), 0);
    while !missing.is_empty() {
        let (number, event) = numbered(client).await;
        assert!(missing.remove(&number), "{number} came twice");
        let offset = event.offset.unwrap_or(last);
        assert!(offset >= last, "{offset} after {last}");
        last = offset;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn several_publishers_at_once_are_heard_by_all() {
    let backend = Backend::real();
    let room = backend.classroom();
    let mut plain = backend.participant(room, "bob").await;
    plain.joins(&room.algebra).await;
    let (mut resuming, _) = resumes(backend, room, json!({})).await;
    resuming.join_lesson(&room.algebra).await.unwrap();
    let publishing = publish_at_once(room);
    tokio::join!(hears_all(&mut plain.client), hears_all(&mut resuming));
    publishing.join_all().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_client_that_resumes_again_and_again_misses_nothing() {
    let backend = Backend::real();
    let room = backend.classroom();
    let (mut client, success) = resumes(backend, room, json!({})).await;
    client.join_lesson(&room.algebra).await.unwrap();
    let (epoch, mut last) = (success["epoch"].clone(), success["offset"].as_u64().unwrap());
    let publishing = publish_at_once(room);
    let mut missing = all();
    while !missing.is_empty() {
        for _ in 0..missing.len().min(300) {
            let (number, event) = numbered(&mut client).await;
            assert!(missing.remove(&number), "{number} came twice");
            let offset = event.offset.unwrap();
            assert!(offset >= last, "{offset} after {last}");
            last = offset;
        }
        // Events that are under way to this connection come again to the next one.
        let resume = json!({"epoch": epoch, "offset": last, "lesson_id": room.algebra});
        drop(client);
        let (next, success) = resumes(backend, room, resume).await;
        assert_eq!((&success["recovered"], &success["offset"]), (&json!(true), &json!(last)));
        client = next;
    }
    publishing.join_all().await;
}

/// Sends these events as the server would republish them, in a wrong order.
async fn republish(url: &str, room: &Classroom, offsets: &[u64]) {
    let client = async_nats::connect(url).await.unwrap();
    for offset in offsets {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Stream", "CLASSROOM");
        headers.insert("Nats-Sequence", offset.to_string());
        let body = json!({"n": offset}).to_string().into();
        client.publish_with_headers(format!("live.{}", room.subject("note")), headers, body).await.unwrap();
    }
    client.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn late_events_are_put_in_order_for_resuming_clients_and_never_lost() {
    // The test has a NATS server of its own, because the offsets that it makes up would belong to other events
    // elsewhere.
    let nats = Nats::start().unwrap();
    let servers = Servers { nats: nats.url(), ..Servers::shared() };
    let backend = Backend::start(Some(servers), Clone::clone);
    let room = backend.classroom();
    let mut plain = backend.participant(room, "bob").await;
    let (mut resuming, success) = resumes(&backend, room, json!({})).await;
    let stream = Stream::of(&nats.url()).await;
    // The client is shown no lower offset than that of its own agent.entered.
    stream.wait_for(&room.subject("agent"), 2).await;
    let first = success["offset"].as_u64().unwrap() + 100;
    // Events of another room make the stream longer, so that it has these offsets. The node learns of these offsets
    // when it asks for the end of the stream.
    let elsewhere = backend.classroom();
    for _ in 0..200 {
        stream.publish(&elsewhere.subject("note"), &[], "{}").await;
    }
    let (_, success) = resumes(&backend, elsewhere, json!({})).await;
    assert!(success["offset"].as_u64().unwrap() > first + 4);
    republish(&nats.url(), room, &[first + 3, first, first + 2, first + 1]).await;
    for offset in first..first + 4 {
        let (number, event) = numbered(&mut resuming).await;
        assert_eq!((number as u64, event.offset), (offset, Some(offset)));
    }
    // By then the node has taken offset `first - 1` to be another room's. The event still reaches the client, with the
    // offset of the event before it.
    republish(&nats.url(), room, &[first - 1, first + 4]).await;
    for (late, shown) in [(first - 1, first + 3), (first + 4, first + 4)] {
        let (number, event) = numbered(&mut resuming).await;
        assert_eq!((number as u64, event.offset), (late, Some(shown)));
    }
    let mut missing: BTreeSet<u64> = (first - 1..first + 5).collect();
    while !missing.is_empty() {
        let (number, event) = numbered(&mut plain.client).await;
        assert!(missing.remove(&(number as u64)) && event.offset.is_none(), "{number} came twice");
    }
}
