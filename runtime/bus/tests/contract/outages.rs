//! NATS goes away and comes back: no event is lost, none comes twice, and no call hangs.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::jetstream;
use rollcall_bus::{
    Bus, BusEvent, Publication, Replay,
    nats::{NatsBus, NatsOptions},
};
use rollcall_loadtest::{
    servers::Nats,
    wire::{Way, Wire},
};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    bench::{PAUSE, classroom, collect, fed, ids, in_time, lesson, note, publish_surely, purge},
    proxy::Proxy,
};

/// How long a recovery may take.
const RECOVERY: Duration = Duration::from_secs(3);

/// Calls until the server answers again. Returns how long that took.
async fn recovered(bus: &dyn Bus) -> Duration {
    let since = Instant::now();
    while let Err(error) = in_time(bus.ping()).await {
        assert!(since.elapsed() < Duration::from_secs(10), "{error}");
        sleep(PAUSE).await;
    }
    since.elapsed()
}

/// Publishes through another node all the time, while `fault` happens. Afterwards the feed must have every event once,
/// and the events of each room in order. Returns the longest time between two events.
pub(crate) async fn nothing_is_lost(options: NatsOptions, fault: impl AsyncFnOnce(&NatsBus)) -> Duration {
    const ROOMS: usize = 8;
    // A cluster that has just started, or got a member back, may not answer at once.
    let since = Instant::now();
    let connect = async || loop {
        match NatsBus::connect_with(options.clone()).await {
            Ok(connected) => break connected,
            Err(error) => assert!(since.elapsed() < Duration::from_secs(60), "{error}"),
        }
    };
    let (bus, mut feed) = connect().await;
    let publisher: Arc<dyn Bus> = Arc::new(connect().await.0);
    let rooms: Vec<_> = (0..ROOMS).map(|_| classroom()).collect();
    for room in &rooms {
        while let Err(error) = bus.subscribe(room).await {
            assert!(since.elapsed() < Duration::from_secs(60), "{error}");
        }
    }
    let (stop, stopped) = tokio::sync::watch::channel(false);
    let publishing = rooms.iter().cloned().map(|room| {
        let (publisher, stopped) = (publisher.clone(), stopped.clone());
        tokio::spawn(async move {
            let mut stored = BTreeMap::new();
            for number in 0.. {
                if *stopped.borrow() {
                    break;
                }
                stored.insert(publish_surely(&*publisher, &room, number).await, (room.clone(), number));
            }
            stored
        })
    });
    let publishing: Vec<_> = publishing.collect();
    collect(&mut feed, 100).await;
    // The last event is sent when all others are stored, so all are there once it has come.
    let (last, mut over) = (lesson(), false);
    bus.subscribe(&last).await.unwrap();
    let end = last.clone();
    let reading = tokio::spawn(async move {
        let (mut events, mut silent, mut heard) = (Vec::new(), Duration::ZERO, Instant::now());
        // Events that were published before the last one may come after it.
        while let Ok(Some(fed)) = timeout(Duration::from_secs(if over { 1 } else { 60 }), feed.recv()).await {
            match fed {
                BusEvent::Event(event) => {
                    silent = silent.max(heard.elapsed());
                    heard = Instant::now();
                    if event.room == end { over = true } else { events.push(event) }
                }
                BusEvent::Watermark(_) => {}
                other => panic!("{other:?}"),
            }
        }
        (events, silent)
    });
    fault(&bus).await;
    // Some more events, through the server that came back.
    let after = bus.position().offset.0;
    while bus.position().offset.0 < after + 100 {
        sleep(PAUSE).await;
    }
    stop.send(true).unwrap();
    let mut stored = BTreeMap::new();
    for publishing in publishing {
        stored.extend(publishing.await.unwrap());
    }
    publish_surely(&*publisher, &last, 0).await;
    let (events, silent) = reading.await.unwrap();
    for room in &rooms {
        let of_room: Vec<_> = events.iter().filter(|event| event.room == *room).map(|event| event.offset).collect();
        assert!(of_room.is_sorted_by(|a, b| a < b), "in order, nothing twice: {of_room:?}");
    }
    let first = events.iter().map(|event| event.offset).min().unwrap();
    let fed: BTreeMap<_, _> =
        events.into_iter().map(|event| (event.offset, (event.room, event.entity.unwrap().2))).collect();
    let expected: BTreeMap<_, _> = stored.into_iter().filter(|(offset, _)| *offset >= first).collect();
    assert_eq!(fed, expected);
    silent
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_and_a_restart_lose_nothing() {
    let mut server = Nats::start().unwrap();
    nothing_is_lost(NatsOptions::new(server.url()), async |bus| {
        server.kill().unwrap();
        in_time(bus.ping()).await.unwrap_err();
        in_time(bus.publish(vec![note(&lesson(), "away", 0)])).await.remove(0).unwrap_err();
        in_time(bus.replay(&[], &bus.position())).await.unwrap_err();
        server.restart().unwrap();
        assert!(recovered(bus).await < RECOVERY);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_of_three_seconds_loses_nothing() {
    let server = Nats::start().unwrap();
    nothing_is_lost(NatsOptions::new(server.url()), async |bus| {
        server.pause().unwrap();
        let until = Instant::now() + Duration::from_secs(3);
        while Instant::now() < until {
            in_time(bus.ping()).await.unwrap_err();
            in_time(bus.publish(vec![note(&lesson(), "away", 0)])).await.remove(0).unwrap_err();
        }
        server.resume().unwrap();
        assert!(recovered(bus).await < RECOVERY);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_room_added_during_an_outage_is_filled_from_then_on() {
    let server = Nats::start().unwrap();
    let proxy = Proxy::to(server.port()).await;
    let (bus, mut feed) = NatsBus::connect(&proxy.url()).await.unwrap();
    let (other, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let (before, during) = (classroom(), lesson());
    bus.subscribe(&before).await.unwrap();
    publish_surely(&other, &before, 1).await;
    assert_eq!(ids(&collect(&mut feed, 1).await), [1]);

    proxy.cut().await;
    in_time(bus.subscribe(&during)).await.unwrap_err();
    publish_surely(&other, &during, 2).await;
    publish_surely(&other, &before, 3).await;
    publish_surely(&other, &during, 4).await;
    proxy.mend();
    assert_eq!(ids(&collect(&mut feed, 3).await), [2, 3, 4]);
    publish_surely(&other, &during, 5).await;
    assert_eq!(ids(&collect(&mut feed, 1).await), [5]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_came_before_a_room_was_wanted_is_not_filled() {
    let server = Nats::start().unwrap();
    let proxy = Proxy::to(server.port()).await;
    let (bus, mut feed) = NatsBus::connect(&proxy.url()).await.unwrap();
    let (other, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    publish_surely(&other, &room, 1).await;
    bus.subscribe(&room).await.unwrap();
    publish_surely(&other, &room, 2).await;
    assert_eq!(ids(&collect(&mut feed, 1).await), [2]);
    proxy.cut().await;
    publish_surely(&other, &room, 3).await;
    proxy.mend();
    assert_eq!(ids(&collect(&mut feed, 1).await), [3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_large_gap_of_many_rooms_is_filled_in_order() {
    let server = Nats::start().unwrap();
    let proxy = Proxy::to(server.port()).await;
    let (bus, mut feed) = NatsBus::connect(&proxy.url()).await.unwrap();
    let (other, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let rooms: Vec<_> = (0..100).map(|_| classroom()).collect();
    for subscribed in futures_util::future::join_all(rooms.iter().map(|room| bus.subscribe(room))).await {
        subscribed.unwrap();
    }
    let batch = |from: i64, to: i64| {
        (from..to).map(|number| note(&rooms[(number * 7 % 100) as usize], format!("gap-{number}"), number)).collect()
    };
    proxy.cut().await;
    for first in (0..6000).step_by(500) {
        if first == 3000 {
            // More events come live while the gap is being filled.
            proxy.mend();
        }
        assert!(other.publish(batch(first, first + 500)).await.iter().all(Result::is_ok));
    }
    assert_eq!(ids(&collect(&mut feed, 6000).await), (0..6000).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_the_stream_forgot_during_an_outage_is_told() {
    let server = Nats::start().unwrap();
    let proxy = Proxy::to(server.port()).await;
    let (bus, mut feed) = NatsBus::connect(&proxy.url()).await.unwrap();
    let (other, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    proxy.cut().await;
    let last = publish_surely(&other, &room, 1).await;
    purge(&server.url()).await;
    publish_surely(&other, &room, 2).await;
    proxy.mend();
    assert!(matches!(fed(&mut feed).await, BusEvent::Gap(upto) if upto == last));
    assert_eq!(ids(&collect(&mut feed, 1).await), [2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_made_anew_is_another_epoch() {
    let server = Nats::start().unwrap();
    let proxy = Proxy::to(server.port()).await;
    let (bus, mut feed) = NatsBus::connect(&proxy.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    let old = bus.position();
    publish_surely(&bus, &room, 1).await;
    collect(&mut feed, 1).await;
    proxy.cut().await;
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    context.delete_stream("CLASSROOM").await.unwrap();
    proxy.mend();
    assert!(matches!(fed(&mut feed).await, BusEvent::StreamReset), "the stream is made again, and told");
    assert_ne!(bus.position().epoch, old.epoch);
    assert!(matches!(bus.replay(std::slice::from_ref(&room), &old).await.unwrap(), Replay::Lost));
    publish_surely(&bus, &room, 2).await;
    assert_eq!(ids(&collect(&mut feed, 1).await), [2], "offsets start again");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_deleted_under_a_live_connection_is_noticed() {
    const BEFORE: i64 = 20;
    for made_by_others in [true, false] {
        let server = Nats::start().unwrap();
        let (bus, mut feed) = NatsBus::connect(&server.url()).await.unwrap();
        let room = classroom();
        bus.subscribe(&room).await.unwrap();
        for number in 0..BEFORE {
            publish_surely(&bus, &room, number).await;
        }
        collect(&mut feed, BEFORE as usize).await;
        let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
        let settings = context.get_stream("CLASSROOM").await.unwrap().cached_info().config.clone();
        context.delete_stream("CLASSROOM").await.unwrap();
        if made_by_others {
            context.create_stream(settings.clone()).await.unwrap();
        }
        // The offsets of the new stream are below those of the old stream, and its message ids are new.
        publish_surely(&bus, &room, BEFORE).await;
        // The event may also come before the node has noticed the new stream. After the reset it must come.
        while !matches!(fed(&mut feed).await, BusEvent::StreamReset) {}
        assert_eq!(ids(&collect(&mut feed, 1).await), [BEFORE]);
        let now = context.get_stream("CLASSROOM").await.unwrap().cached_info().config.clone();
        assert_eq!((now.republish, now.duplicate_window), (settings.republish, settings.duplicate_window));
    }
}

/// The network to the node is held while the stream is replaced. The old events arrive while the node asks for the
/// stream's end.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_an_old_stream_sent_does_not_come_after_the_reset() {
    const OLD: i64 = 100;
    let server = Nats::start().unwrap();
    let wire = Wire::before(([127, 0, 0, 1], server.port()).into()).unwrap();
    let (bus, mut feed) = NatsBus::connect(&wire.instead_of(&server.url())).await.unwrap();
    let (other, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    wire.hold(Way::Down);
    for number in 0..OLD {
        let body = format!("\"{}\"", "x".repeat(4096)).into();
        let event = Publication { body, ..note(&room, format!("old-{number}"), number) };
        other.publish(vec![event]).await.remove(0).unwrap();
    }
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    context.delete_stream("CLASSROOM").await.unwrap();
    let (again, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let new = publish_surely(&again, &room, OLD).await;
    // A dropped call breaks the live buffer, so that the node asks for the stream's end.
    timeout(PAUSE, bus.subscribe(&lesson())).await.unwrap_err();
    timeout(20 * PAUSE, bus.ping()).await.unwrap_err();
    wire.clear();
    while !matches!(fed(&mut feed).await, BusEvent::StreamReset) {}
    assert_eq!(bus.position().offset, new);
    publish_surely(&again, &room, OLD + 1).await;
    assert_eq!(ids(&collect(&mut feed, 2).await), [OLD, OLD + 1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_end_is_not_before_what_was_on_the_feed_where_the_stream_is_silent() {
    let server = Nats::start().unwrap();
    let wire = Wire::before(([127, 0, 0, 1], server.port()).into()).unwrap();
    let (bus, mut feed) = NatsBus::connect(&wire.instead_of(&server.url())).await.unwrap();
    let (other, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    wire.hold(Way::Up);
    for number in 0..3 {
        publish_surely(&other, &room, number).await;
    }
    let last = collect(&mut feed, 3).await.pop().unwrap().offset;
    assert!(bus.position().offset < last, "the stream has not confirmed it to the node");
    let asked = Instant::now();
    assert_eq!(bus.end().await.offset, last);
    assert!(asked.elapsed() < Duration::from_secs(1), "a connect waits for it");
    // A room that is new on this node also begins at the end of the stream.
    let late = classroom();
    timeout(PAUSE, bus.subscribe(&late)).await.unwrap_err();
    let end = bus.end().await.offset;
    publish_surely(&other, &late, 3).await;
    wire.clear();
    let event = collect(&mut feed, 1).await.remove(0);
    assert!(event.room == late && event.offset > end);
}

/// The stream is in this state after a restored backup, or if a killed server had not written its latest events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_put_back_to_an_earlier_time_brings_nothing_again() {
    let mut server = Nats::start().unwrap();
    let (bus, mut feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    publish_surely(&bus, &room, 1).await;
    collect(&mut feed, 1).await;
    let arguments = std::fs::read_to_string(format!("/proc/{}/cmdline", server.pid())).unwrap();
    let folder = arguments.split('\0').skip_while(|argument| *argument != "--store_dir").nth(1).unwrap().to_owned();
    let backup = format!("{folder}.backup");
    let copy = |from: &str, to: &str| {
        let script = "rm -rf \"$2\" && cp -a \"$1\" \"$2\" && find \"$2\" -name '*.blk' -size +0 | grep -q .";
        std::process::Command::new("sh").args(["-c", script, "sh", from, to]).status().unwrap().success()
    };
    let until = Instant::now() + Duration::from_secs(5);
    while !copy(&folder, &backup) {
        assert!(Instant::now() < until, "the server writes what it has acknowledged");
    }
    for number in [2, 3] {
        publish_surely(&bus, &room, number).await;
    }
    collect(&mut feed, 2).await;
    server.kill().unwrap();
    assert!(copy(&backup, &folder));
    server.restart().unwrap();
    assert!(matches!(fed(&mut feed).await, BusEvent::StreamReset), "two events are gone, and that is told");
    publish_surely(&bus, &room, 4).await;
    assert_eq!(ids(&collect(&mut feed, 1).await), [4]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_connection_that_falls_silent_is_given_up() {
    let server = Nats::start().unwrap();
    let proxy = Proxy::to(server.port()).await;
    let (bus, mut feed) = NatsBus::connect(&proxy.url()).await.unwrap();
    let (other, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    proxy.freeze();
    for number in 0..3 {
        publish_surely(&other, &room, number).await;
    }
    assert_eq!(ids(&collect(&mut feed, 3).await), [0, 1, 2]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn where_one_server_is_away_the_next_is_taken() {
    let server = Nats::start().unwrap();
    let (first, second) = (Proxy::to(server.port()).await, Proxy::to(server.port()).await);
    first.cut().await;
    let (bus, mut feed) = NatsBus::connect(&format!("{},{}", first.url(), second.url())).await.unwrap();
    let (other, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    for number in 0..4 {
        let (away, here) = if number % 2 == 0 { (&second, &first) } else { (&first, &second) };
        here.mend();
        away.cut().await;
        publish_surely(&other, &room, number).await;
        assert_eq!(ids(&collect(&mut feed, 1).await), [number]);
    }
}
