//! Messages on `live.>` that the server never republished. A client that may publish there can send any message, but
//! must not stop, suppress or reorder events of the stream.
use async_nats::{Client, HeaderMap};
use rollcall_bus::{Bus, BusEvent, nats::NatsBus};
use rollcall_loadtest::servers::Nats;
use rollcall_schema::RoomId;
use tokio::sync::mpsc;

use crate::bench::{classroom, collect, fed, ids, note, publish_surely};

/// Sends a forged copy of an event of a room.
async fn forge(client: &Client, room: &RoomId, headers: &[(&str, &str)]) {
    let mut map = HeaderMap::new();
    map.insert("Nats-Stream", "CLASSROOM");
    for (name, value) in headers {
        map.insert(*name, *value);
    }
    client.publish_with_headers(format!("live.{room}.note"), map, "{\"forged\":1}".into()).await.unwrap();
    client.flush().await.unwrap();
}

/// Returns the numbers of the next genuine events, in any order.
async fn genuine(feed: &mut mpsc::Receiver<BusEvent>, count: usize) -> Vec<i64> {
    let mut events = Vec::new();
    while events.len() < count {
        match fed(feed).await {
            BusEvent::Event(event) if event.body == "{\"forged\":1}" => {}
            BusEvent::Event(event) => events.push(event),
            other => panic!("{other:?}"),
        }
    }
    events.sort_unstable_by_key(|event| event.offset);
    ids(&events)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_far_above_the_end_stops_nothing() {
    for sequence in ["9000000000000000000", "18446744073709551615", "1000000", "40000"] {
        let server = Nats::start().unwrap();
        let (bus, mut feed) = NatsBus::connect(&server.url()).await.unwrap();
        let client = async_nats::connect(server.url()).await.unwrap();
        let (before, after) = (classroom(), classroom());
        bus.subscribe(&before).await.unwrap();
        forge(&client, &before, &[("Nats-Sequence", sequence)]).await;
        publish_surely(&bus, &before, 1).await;
        assert_eq!(ids(&collect(&mut feed, 1).await), [1], "{sequence}");
        assert_eq!(bus.end().await.offset.0, 1, "{sequence}");
        assert_eq!(bus.position(), bus.end().await, "{sequence}");
        let begins = bus.subscribe(&after).await.unwrap();
        assert_eq!(begins.0, 1, "{sequence}");
        publish_surely(&bus, &after, 2).await;
        publish_surely(&bus, &before, 3).await;
        assert_eq!(ids(&collect(&mut feed, 2).await), [2, 3], "{sequence}");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_sequence_that_the_stream_gives_a_moment_later_swallows_nothing() {
    const EVENTS: i64 = 50;
    let server = Nats::start().unwrap();
    let (bus, mut feed) = NatsBus::connect(&server.url()).await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    for sequence in 1..=EVENTS {
        forge(&client, &room, &[("Nats-Sequence", &(sequence + 3).to_string())]).await;
        publish_surely(&bus, &room, sequence).await;
    }
    assert_eq!(genuine(&mut feed, EVENTS as usize).await, (1..=EVENTS).collect::<Vec<_>>());
    // This room is added while some forged events are still above the end.
    let other = classroom();
    let begins = bus.subscribe(&other).await.unwrap();
    assert_eq!(begins.0, EVENTS as u64);
    publish_surely(&bus, &other, 99).await;
    assert_eq!(genuine(&mut feed, 1).await, [99]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn other_forged_headers_change_nothing() {
    let server = Nats::start().unwrap();
    let (bus, mut feed) = NatsBus::connect(&server.url()).await.unwrap();
    let client = async_nats::connect(server.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    let batch = (1..=5).map(|number| note(&room, format!("{room}-{number}"), number)).collect();
    assert!(bus.publish(batch).await.iter().all(Result::is_ok));
    collect(&mut feed, 5).await;
    bus.end().await;
    for sequence in ["0", "-1", "x", "1e3", "", "99999999999999999999"] {
        forge(&client, &room, &[("Nats-Sequence", sequence)]).await;
    }
    forge(&client, &room, &[("Nats-Sequence", "6"), ("Nats-Stream", "OTHER")]).await;
    forge(&client, &room, &[]).await;
    publish_surely(&bus, &room, 6).await;
    assert_eq!(ids(&collect(&mut feed, 1).await), [6], "none of them was fed");
    // Times that no clock shows, and a copy of a stored event.
    for time in ["0001-01-01T00:00:00Z", "9999-12-31T23:59:59Z", "yesterday"] {
        forge(&client, &room, &[("Nats-Sequence", "3"), ("Nats-Time-Stamp", time)]).await;
    }
    publish_surely(&bus, &room, 7).await;
    assert_eq!(genuine(&mut feed, 1).await, [7]);
}
