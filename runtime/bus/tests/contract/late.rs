//! Events that the server republishes out of the stream's order, as it does if several clients publish at once: none is
//! lost, none comes twice, and a reader that wants the stream's order gets it.
use std::collections::{BTreeMap, BTreeSet};

use async_nats::HeaderMap;
use futures_util::future::join_all;
use rollcall_bus::{Bus, BusEvent, nats::NatsBus};
use rollcall_loadtest::servers::Nats;
use rollcall_schema::{Offset, RoomId};
use tokio::{
    sync::mpsc,
    task::JoinSet,
    time::{Duration, Instant, sleep, timeout},
};

use crate::{
    bench::{PAUSE, classroom, collect, fed, fed_any, ids, in_time, lesson, note, publish_surely},
    proxy::Proxy,
};

const PUBLISHERS: usize = 6;
const EVENTS: i64 = 2_000;
/// How many events of a publisher are without an answer.
const BATCH: i64 = 50;

/// Publishes to each pair of rooms from a connection of its own, all at the same time. Returns the events that were
/// stored, by offset.
async fn publish_at_once(url: String, pairs: Vec<[RoomId; 2]>) -> BTreeMap<Offset, (RoomId, i64)> {
    let publish = |rooms: [RoomId; 2]| {
        let url = url.clone();
        async move {
            let (bus, _feed) = NatsBus::connect(&url).await.unwrap();
            let mut stored = Vec::new();
            for first in (0..EVENTS).step_by(BATCH as usize) {
                let numbers = first..first + BATCH;
                let room = |number: i64| &rooms[number as usize % 2];
                let batch = numbers.clone().map(|number| publish_surely(&bus, room(number), number));
                let offsets = join_all(batch).await;
                stored.extend(offsets.into_iter().zip(numbers.map(|number| (room(number).clone(), number))));
            }
            stored
        }
    };
    let publishing: JoinSet<_> = pairs.into_iter().map(publish).collect();
    publishing.join_all().await.into_iter().flatten().collect()
}

/// The events of a feed in the order in which they came, and in the order of a reader that waits for watermarks.
#[derive(Default)]
struct Heard {
    at_once: Vec<Offset>,
    in_order: Vec<Offset>,
    events: BTreeMap<Offset, (RoomId, i64)>,
    /// Events that came after a watermark with a higher offset.
    later_still: usize,
}

/// Reads until this many different events have come and are settled.
async fn hear(mut feed: mpsc::Receiver<BusEvent>, count: usize) -> Heard {
    let (mut heard, mut kept, mut settled) = (Heard::default(), BTreeSet::new(), Offset(0));
    while heard.events.len() < count || !kept.is_empty() {
        match fed_any(&mut feed).await {
            BusEvent::Event(event) => {
                let twice = heard.events.insert(event.offset, (event.room, event.entity.unwrap().2));
                assert_eq!(twice, None, "{} came twice", event.offset);
                heard.at_once.push(event.offset);
                if event.offset > settled {
                    kept.insert(event.offset);
                } else {
                    heard.later_still += 1;
                }
            }
            BusEvent::Watermark(upto) => {
                assert!(upto > settled, "{upto} after {settled}");
                settled = upto;
                let unsettled = kept.split_off(&Offset(upto.0 + 1));
                heard.in_order.extend(std::mem::replace(&mut kept, unsettled));
            }
            other => panic!("{other:?}"),
        }
    }
    heard
}

fn pairs_of_rooms() -> Vec<[RoomId; 2]> {
    (0..PUBLISHERS).map(|_| [classroom(), lesson()]).collect()
}

async fn subscribed(url: &str, pairs: &[[RoomId; 2]]) -> (NatsBus, mpsc::Receiver<BusEvent>) {
    let (bus, feed) = NatsBus::connect(url).await.unwrap();
    for room in pairs.iter().flatten() {
        bus.subscribe(room).await.unwrap();
    }
    (bus, feed)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_publishers_nothing_is_lost_and_nothing_comes_twice() {
    let server = Nats::start().unwrap();
    let pairs = pairs_of_rooms();
    let (_bus, feed) = subscribed(&server.url(), &pairs).await;
    let hearing = tokio::spawn(hear(feed, PUBLISHERS * EVENTS as usize));
    let stored = publish_at_once(server.url(), pairs).await;
    let heard = hearing.await.unwrap();
    assert_eq!(heard.events, stored);
    assert!(heard.in_order.is_sorted_by(|a, b| a < b));
    assert_eq!(heard.in_order.len() + heard.later_still, stored.len());
    let late = heard.at_once.windows(2).filter(|pair| pair[0] > pair[1]).count();
    println!("{late} came late, {} of them later than anybody waits", heard.later_still);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_publishers_nothing_is_lost_when_the_connection_breaks() {
    nothing_is_lost_when_the_connection_breaks(0).await;
}

/// A node with many rooms backfills in another way than a node with few.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_several_publishers_nothing_is_lost_to_who_wants_many_rooms() {
    nothing_is_lost_when_the_connection_breaks(100).await;
}

async fn nothing_is_lost_when_the_connection_breaks(empty_rooms: usize) {
    let server = Nats::start().unwrap();
    let proxy = Proxy::to(server.port()).await;
    let pairs = pairs_of_rooms();
    let (bus, feed) = subscribed(&proxy.url(), &pairs).await;
    for empty in (0..empty_rooms).map(|_| lesson()) {
        bus.subscribe(&empty).await.unwrap();
    }
    let hearing = tokio::spawn(hear(feed, PUBLISHERS * EVENTS as usize));
    let publishing = tokio::spawn(publish_at_once(server.url(), pairs));
    let mut cuts = 0;
    while !publishing.is_finished() {
        let before = bus.position();
        proxy.cut().await;
        cuts += 1;
        proxy.mend();
        // Waits until the connection has been made again and an event has arrived.
        while !publishing.is_finished() && (bus.position() == before || bus.ping().await.is_err()) {
            sleep(PAUSE).await;
        }
    }
    let stored = publishing.await.unwrap();
    let heard = hearing.await.unwrap();
    assert_eq!(heard.events, stored, "after {cuts} cuts");
    assert!(heard.in_order.is_sorted_by(|a, b| a < b));
    println!("{cuts} cuts");
}

/// Stores this many events of another room, so that the stream's end is beyond their offsets.
async fn store_elsewhere(bus: &NatsBus, count: i64) {
    let elsewhere = lesson();
    let batch = (0..count).map(|number| note(&elsewhere, format!("{elsewhere}-{number}"), number)).collect();
    assert!(bus.publish(batch).await.iter().all(Result::is_ok));
    bus.end().await;
}

/// Sends events as the server would republish them, in a wrong order.
async fn republish(url: &str, room: &RoomId, offsets: impl IntoIterator<Item = u64>) {
    let client = async_nats::connect(url).await.unwrap();
    for offset in offsets {
        let mut headers = HeaderMap::new();
        headers.insert("Nats-Stream", "CLASSROOM");
        headers.insert("Nats-Sequence", offset.to_string());
        client.publish_with_headers(format!("live.{room}.note"), headers, "{}".into()).await.unwrap();
    }
    client.flush().await.unwrap();
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_comes_late_comes_at_once_and_only_once() {
    let server = Nats::start().unwrap();
    let (bus, mut feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    store_elsewhere(&bus, 8).await;
    republish(&server.url(), &room, [1, 4, 3, 3, 6, 1, 2, 7, 4, 5, 8]).await;
    let mut offsets = Vec::new();
    while offsets.len() < 8 {
        let BusEvent::Event(event) = fed(&mut feed).await else { panic!("no event") };
        offsets.push(event.offset.0);
    }
    assert_eq!(offsets, [1, 4, 3, 6, 2, 7, 5, 8]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_missing_is_waited_for_but_not_for_long() {
    let server = Nats::start().unwrap();
    let (bus, mut feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    store_elsewhere(&bus, 4).await;
    // Event 2 may belong to another node, so readers stop waiting for it.
    republish(&server.url(), &room, [1, 3]).await;
    let mut settled = Vec::new();
    while settled.last() != Some(&3) {
        if let BusEvent::Watermark(upto) = fed_any(&mut feed).await {
            settled.push(upto.0);
        }
    }
    assert!(settled.iter().all(|upto| *upto != 2), "{settled:?}");
    // Event 2 belonged to this node.
    republish(&server.url(), &room, [2, 4]).await;
    let BusEvent::Event(event) = fed_any(&mut feed).await else { panic!("no event") };
    assert_eq!(event.offset, Offset(2));
    let BusEvent::Event(event) = fed_any(&mut feed).await else { panic!("no event") };
    assert_eq!(event.offset, Offset(4));
    assert!(matches!(timeout(PAUSE * 100, fed_any(&mut feed)).await.unwrap(), BusEvent::Watermark(Offset(4))));
}

/// Between a node's events there are events of other nodes, so when the connection breaks, any event may still be under
/// way. So the stream is read from an earlier offset, in several windows. These windows also have events that came
/// before the break.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_a_long_outage_does_not_come_again() {
    const EVENTS: i64 = 200;
    let server = Nats::start().unwrap();
    let proxy = Proxy::to(server.port()).await;
    let (bus, mut feed) = NatsBus::connect(&proxy.url()).await.unwrap();
    let (other, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let (room, elsewhere) = (classroom(), lesson());
    bus.subscribe(&room).await.unwrap();
    let each = |number| [&elsewhere, &room].map(|room| note(room, format!("{room}-{number}"), number));
    let batch = (1..=EVENTS).flat_map(each).collect();
    assert!(other.publish(batch).await.iter().all(Result::is_ok));
    collect(&mut feed, EVENTS as usize).await;
    proxy.cut().await;
    let until = Instant::now() + Duration::from_millis(1500);
    while Instant::now() < until {
        in_time(bus.ping()).await.unwrap_err();
        sleep(PAUSE).await;
    }
    publish_surely(&other, &room, EVENTS + 1).await;
    proxy.mend();
    assert_eq!(ids(&collect(&mut feed, 1).await), [EVENTS + 1]);
}
