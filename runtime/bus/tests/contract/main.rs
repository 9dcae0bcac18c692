//! The bus of PROTOCOL 3: every case runs against each implementation.
#![allow(clippy::unwrap_used)]
mod bench;
mod cluster;
mod credentials;
mod forged;
mod late;
mod nats;
mod outages;
mod presence;
mod proxy;
mod publishing;
mod stream_settings;
mod tls;

use std::{collections::HashSet, time::Duration};

use bench::{Bench, classroom, collect, ids, lesson, memory, note, through_nats};
use rollcall_bus::{Position, Publication, Replay};
use rollcall_schema::{Offset, Subject};

/// Each case is a function of a bench; it becomes a test for each implementation.
macro_rules! cases {
    ($($case:ident),* $(,)?) => {
        mod in_memory {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::memory()).await;
            })*
        }
        mod in_nats {
            $(#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
            async fn $case() {
                super::$case(super::through_nats().await).await;
            })*
        }
    };
}

cases! {
    a_room_is_live_once_subscribing_returned,
    only_subscribed_rooms_are_fed,
    the_feed_is_in_order_across_rooms_under_load,
    a_message_id_is_stored_and_fed_once,
    a_batch_is_stored_in_its_order,
    headers_arrive_read,
    a_feed_that_nobody_reads_loses_nothing,
    events_of_handlers_wait_for_the_feed,
    a_replay_merges_rooms_in_order_up_to_the_end,
    a_replay_and_the_feed_meet_at_the_end,
    a_replay_of_what_was_purged_is_lost,
    a_replay_of_another_epoch_is_lost,
}

async fn a_room_is_live_once_subscribing_returned(mut bench: Bench) {
    for round in 0..20 {
        let rooms: Vec<_> = (0..10).map(|_| classroom()).collect();
        let subscribing = rooms.iter().map(|room| bench.bus.subscribe(room));
        for (subscribed, room) in futures_util::future::join_all(subscribing).await.into_iter().zip(&rooms) {
            subscribed.unwrap();
            bench.publish(vec![note(room, format!("{room}"), round)]).await;
        }
        let events = collect(&mut bench.feed, rooms.len()).await;
        assert!(events.iter().zip(&rooms).all(|(event, room)| event.room == *room));
    }
}

async fn only_subscribed_rooms_are_fed(mut bench: Bench) {
    let (wanted, other) = (classroom(), lesson());
    bench.publish(vec![note(&wanted, "early", 0)]).await;
    bench.bus.subscribe(&wanted).await.unwrap();
    bench.bus.subscribe(&other).await.unwrap();
    bench.bus.subscribe(&wanted).await.unwrap();
    bench.publish(vec![note(&other, "a", 1), note(&wanted, "b", 2), note(&lesson(), "c", 3)]).await;
    assert_eq!(ids(&collect(&mut bench.feed, 2).await), [1, 2]);
    bench.bus.unsubscribe(&other);
    bench.bus.unsubscribe(&lesson());
    bench.publish(vec![note(&other, "d", 4), note(&wanted, "e", 5)]).await;
    assert_eq!(ids(&collect(&mut bench.feed, 1).await), [5]);
    bench.bus.subscribe(&other).await.unwrap();
    bench.publish(vec![note(&other, "f", 6)]).await;
    assert_eq!(ids(&collect(&mut bench.feed, 1).await), [6], "nothing of the time between");
}

async fn the_feed_is_in_order_across_rooms_under_load(mut bench: Bench) {
    const PUBLISHERS: i64 = 4;
    const BATCHES: i64 = 20;
    const BATCH: i64 = 50;
    let rooms: Vec<_> = (0..30).flat_map(|_| [classroom(), lesson()]).collect();
    for room in &rooms {
        bench.bus.subscribe(room).await.unwrap();
    }
    let mut publishing = Vec::new();
    for publisher in 0..PUBLISHERS {
        let (bus, rooms) = (bench.bus.clone(), rooms.clone());
        publishing.push(tokio::spawn(async move {
            for batch in 0..BATCHES {
                let number = |place| (publisher * BATCHES + batch) * BATCH + place;
                let event = |place: i64| {
                    let room = &rooms[(number(place) * 7 % 60) as usize];
                    note(room, format!("{room}-{}", number(place)), number(place))
                };
                let stored = bus.publish((0..BATCH).map(event).collect()).await;
                assert!(stored.iter().all(Result::is_ok), "{stored:?}");
            }
        }));
    }
    // `collect` checks the order.
    let events = collect(&mut bench.feed, (PUBLISHERS * BATCHES * BATCH) as usize).await;
    let distinct: HashSet<i64> = ids(&events).into_iter().collect();
    assert_eq!(distinct.len(), events.len());
    for publishing in publishing {
        publishing.await.unwrap();
    }
}

async fn a_message_id_is_stored_and_fed_once(mut bench: Bench) {
    let room = classroom();
    bench.bus.subscribe(&room).await.unwrap();
    let first = bench.publish(vec![note(&room, "agent.entered:x:1", 1)]).await;
    let again = bench.publish(vec![note(&room, "agent.entered:x:1", 2), note(&room, "agent.left:x:1", 3)]).await;
    assert_eq!(again[0], first[0]);
    assert_eq!(ids(&collect(&mut bench.feed, 2).await), [1, 3]);
}

async fn a_batch_is_stored_in_its_order(bench: Bench) {
    let room = classroom();
    let stored = bench.publish((0..500).map(|number| note(&room, format!("batch-{number}"), number)).collect()).await;
    assert!(stored.is_sorted() && stored.len() == 500);
    assert!(bench.bus.publish(Vec::new()).await.is_empty());
}

async fn headers_arrive_read(mut bench: Bench) {
    let room = classroom();
    bench.bus.subscribe(&room).await.unwrap();
    let mut publication = note(&room, "headers", 7);
    publication.headers.extend([
        ("Sender-Agent-Id", "web.alice.example.org".to_owned()),
        ("Receiver-Agent-Id", "web.bob.example.org".to_owned()),
        ("Is-Internal", "true".to_owned()),
        ("Left-Reason", "closed".to_owned()),
    ]);
    bench.publish(vec![publication]).await;
    let event = collect(&mut bench.feed, 1).await.remove(0);
    assert_eq!(event.sender.unwrap().as_str(), "web.alice.example.org");
    assert_eq!(event.receiver.unwrap().as_str(), "web.bob.example.org");
    assert_eq!(event.entity, Some(("note".to_owned(), "made".to_owned(), 7)));
    assert!(event.internal);
    assert_eq!(event.body, "{\"n\":7}");
}

async fn a_feed_that_nobody_reads_loses_nothing(mut bench: Bench) {
    let room = classroom();
    bench.bus.subscribe(&room).await.unwrap();
    for batch in 0..10 {
        let numbers = batch * 500..(batch + 1) * 500;
        bench.publish(numbers.map(|number| note(&room, format!("unread-{number}"), number)).collect()).await;
    }
    assert_eq!(ids(&collect(&mut bench.feed, 5000).await), (0..5000).collect::<Vec<_>>());
}

/// Returns the numbers of the replayed events, and the offset through which they are complete.
async fn replayed(bench: &Bench, rooms: &[&Subject], after: &Position) -> (Vec<i64>, Offset) {
    let rooms: Vec<_> = rooms.iter().map(|subject| subject.room.clone()).collect();
    let Replay::Events(mut events, upto) = bench.bus.replay(&rooms, after).await.unwrap() else { panic!("lost") };
    let mut found = Vec::new();
    while let Some(event) = tokio::time::timeout(Duration::from_secs(10), events.recv()).await.unwrap() {
        found.push(event.unwrap());
    }
    assert!(found.is_sorted_by(|a, b| a.offset < b.offset));
    (ids(&found), upto)
}

/// Four times as much as the log in the process holds.
async fn events_of_handlers_wait_for_the_feed(mut bench: Bench) {
    let room = classroom();
    bench.bus.subscribe(&room).await.unwrap();
    let numbers = 0..4096;
    let body = format!("{{\"text\":\"{}\"}}", "x".repeat(4096));
    let batch = |first| {
        (first..first + 256)
            .map(|number| Publication { body: body.clone().into(), ..note(&room, format!("{room} {number}"), number) })
    };
    let publishing = async {
        for first in numbers.clone().step_by(256) {
            let results = bench.bus.publish_events(batch(first).collect()).await;
            assert!(results.iter().all(Result::is_ok), "{results:?}");
        }
    };
    let ((), events) = futures_util::future::join(publishing, collect(&mut bench.feed, 4096)).await;
    assert_eq!(ids(&events), numbers.collect::<Vec<_>>());
}

async fn a_replay_merges_rooms_in_order_up_to_the_end(bench: Bench) {
    let rooms = [classroom(), lesson(), classroom()];
    let subjects = rooms.each_ref().map(|room| note(room, "", 0).subject);
    let [a, b, _] = &subjects;
    let start = Position { offset: bench.end().await, ..bench.bus.position() };
    let event = |number: i64| note(&rooms[(number % 3) as usize], format!("replay-{number}"), number);
    let stored = bench.publish((0..300).map(event).collect()).await;
    let at = |place: usize| Position { offset: stored[place], ..start.clone() };
    let both = |from: i64, to: i64| (from..to).filter(|number| number % 3 < 2).collect::<Vec<_>>();

    assert_eq!(replayed(&bench, &[a, b], &start).await, (both(0, 300), stored[299]));
    assert_eq!(replayed(&bench, &[a, b], &at(99)).await, (both(100, 300), stored[299]));
    assert_eq!(replayed(&bench, &[b], &at(295)).await, (vec![298], stored[299]));
    assert_eq!(replayed(&bench, &[b], &at(298)).await, (vec![], stored[299]));
    assert_eq!(replayed(&bench, &[a], &at(299)).await, (vec![], stored[299]));
    assert_eq!(replayed(&bench, &[], &start).await, (vec![], stored[299]));
}

async fn a_replay_and_the_feed_meet_at_the_end(mut bench: Bench) {
    let room = classroom();
    let subject = note(&room, "", 0).subject;
    let start = Position { offset: bench.end().await, ..bench.bus.position() };
    bench.publish(vec![note(&room, "missed", 1), note(&lesson(), "elsewhere", 2)]).await;
    let here = bench.bus.subscribe(&room).await.unwrap();
    let (missed, upto) = replayed(&bench, &[&subject], &start).await;
    bench.publish(vec![note(&room, "live", 3)]).await;
    assert_eq!((missed, upto), (vec![1], here));
    let live = collect(&mut bench.feed, 1).await;
    assert_eq!(ids(&live), [3]);
    assert!(live[0].offset > here && bench.bus.end().await.offset == live[0].offset);
}

async fn a_replay_of_what_was_purged_is_lost(bench: Bench) {
    let room = classroom();
    let start = Position { offset: bench.end().await, ..bench.bus.position() };
    let stored = bench.publish(vec![note(&room, "1", 1), note(&room, "2", 2)]).await;
    bench.purge().await;
    let rooms = [room];
    assert!(matches!(bench.bus.replay(&rooms, &start).await.unwrap(), Replay::Lost));
    let end = Position { offset: stored[1], ..start };
    assert!(matches!(bench.bus.replay(&rooms, &end).await.unwrap(), Replay::Events(..)), "nothing missed");
}

async fn a_replay_of_another_epoch_is_lost(bench: Bench) {
    let rooms = [classroom()];
    bench.publish(vec![note(&rooms[0], "1", 1)]).await;
    bench.bus.subscribe(&rooms[0]).await.unwrap();
    let here = bench.bus.position();
    let other = Position { epoch: "another".to_owned(), ..here.clone() };
    assert!(matches!(bench.bus.replay(&rooms, &other).await.unwrap(), Replay::Lost));
    let ahead = Position { offset: Offset(here.offset.0 + 1000), ..here };
    assert!(matches!(bench.bus.replay(&rooms, &ahead).await.unwrap(), Replay::Lost));
}
