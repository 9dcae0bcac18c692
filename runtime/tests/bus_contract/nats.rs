//! What only NATS can do: go away and come back, be set up wrongly, carry what others publish.
use std::{collections::BTreeMap, sync::Arc, time::Duration};

use async_nats::{
    HeaderMap,
    jetstream::{
        self,
        stream::{Config, StorageType},
    },
};
use rollcall_loadtest::servers::Nats;
use rollcall_runtime::bus::{Bus, Fed, Replay, nats::NatsBus, nats::NatsError};
use rollcall_schema::{Offset, RoomId};
use tokio::time::{Instant, sleep, timeout};

use crate::{
    bench::{classroom, collect, fed, ids, lesson, note, purge},
    proxy::{Handmade, Proxy, publish_raw},
};

/// What a call may take.
const ANSWER: Duration = Duration::from_millis(1600);
/// Between two questions whether it is so yet.
const PAUSE: Duration = Duration::from_millis(5);
/// What coming back may take.
const RECOVERY: Duration = Duration::from_secs(3);

async fn in_time<T>(call: impl Future<Output = T>) -> T {
    timeout(ANSWER, call).await.expect("an answer in time")
}

/// Asks until the server is there again, and returns how long that took.
async fn recovered(bus: &dyn Bus) -> Duration {
    let since = Instant::now();
    while let Err(error) = in_time(bus.ping()).await {
        assert!(since.elapsed() < Duration::from_secs(10), "{error}");
        sleep(PAUSE).await;
    }
    since.elapsed()
}

/// Publishes as a relay does: again until it is acknowledged, under the same message id.
async fn publish_surely(bus: &dyn Bus, room: &RoomId, number: i64) -> Offset {
    let since = Instant::now();
    loop {
        let publication = note(room, format!("{room}-{number}"), number);
        match in_time(bus.publish(vec![publication])).await.remove(0) {
            Ok(offset) => return offset,
            Err(error) => assert!(since.elapsed() < Duration::from_secs(20), "{error}"),
        }
        sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_share_one_stream() {
    let server = Nats::start().unwrap();
    let (first, mut feed) = NatsBus::connect(&server.url()).await.unwrap();
    let (second, mut other) = NatsBus::connect(&server.url()).await.unwrap();
    let rooms = [classroom(), lesson()];
    for room in &rooms {
        first.subscribe(room).await.unwrap();
    }
    second.subscribe(&rooms[1]).await.unwrap();
    let stored = second.publish(vec![note(&rooms[0], "1", 1), note(&rooms[1], "2", 2)]).await;
    assert!(stored.iter().all(Result::is_ok));
    assert_eq!(ids(&collect(&mut feed, 2).await), [1, 2]);
    assert_eq!(ids(&collect(&mut other, 1).await), [2]);
    assert_eq!(first.position().epoch, second.position().epoch);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_others_publish_wrongly_does_not_break_the_feed() {
    let server = Nats::start().unwrap();
    let (bus, mut feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    let other = async_nats::connect(server.url()).await.unwrap();
    let send = async |subject: String, headers: &[(&str, &str)], body: &'static str| {
        let mut map = HeaderMap::new();
        headers.iter().for_each(|(name, value)| map.insert(*name, *value));
        other.publish_with_headers(subject, map, body.into()).await.unwrap();
    };
    // Whatever is no event, forged or broken, or what only looks like the stream's.
    send(format!("{room}.a.b"), &[], "{}").await;
    send(format!("{room}.a$b"), &[], "{}").await;
    send(format!("{room}.note"), &[("Receiver-Agent-Id", "nobody at all")], "{}").await;
    send(format!("{room}.note"), &[("Entity-Event-Sequence-Id", "many")], "{}").await;
    send(format!("live.{room}.note"), &[], "{}").await;
    send(format!("live.{room}.note"), &[("Nats-Sequence", "first")], "{}").await;
    // These pass: a body is the gateway's affair.
    send(format!("{room}.note"), &[("Nats-Sequence", "99999"), ("Nats-Last-Sequence", "99998")], "not JSON").await;
    send(format!("{room}.note"), &[("Sender-Agent-Id", "a service")], "").await;
    other.flush().await.unwrap();

    let events = collect(&mut feed, 2).await;
    assert_eq!(events[0].body, "not JSON");
    assert!(events[1].body.is_empty() && events[1].sender.is_none());
    publish_surely(&bus, &room, 1).await;
    assert_eq!(ids(&collect(&mut feed, 1).await), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_headers_of_others_lose_nothing() {
    let server = Nats::start().unwrap();
    let (bus, mut feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    for (round, headers) in
        [&b"NATS/1.0\r\nno colon\r\n\r\n"[..], b"NATS/1.0\r\nA: \xff\r\n\r\n"].into_iter().enumerate()
    {
        let round = i64::try_from(round).unwrap() * 10;
        publish_surely(&bus, &room, round + 1).await;
        publish_raw(server.port(), &format!("{room}.note"), headers, b"{\"broken\":1}").await;
        publish_surely(&bus, &room, round + 2).await;
        let events = collect(&mut feed, 3).await;
        assert_eq!(events[1].body, "{\"broken\":1}");
        assert_eq!(ids(&[events[0].clone(), events[2].clone()]), [round + 1, round + 2]);
    }
}

/// Publishes throughout, on a node of its own, while `fault` happens; then the feed must have it all, once, in order.
async fn nothing_is_lost(server: &mut Nats, fault: impl AsyncFnOnce(&mut Nats, &NatsBus)) {
    const ROOMS: usize = 8;
    let (bus, mut feed) = NatsBus::connect(&server.url()).await.unwrap();
    let publisher: Arc<dyn Bus> = Arc::new(NatsBus::connect(&server.url()).await.unwrap().0);
    let rooms: Vec<_> = (0..ROOMS).map(|_| classroom()).collect();
    for room in &rooms {
        bus.subscribe(room).await.unwrap();
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
    let reading = tokio::spawn(async move {
        let mut events = Vec::new();
        while let Ok(Some(Fed::Event(event))) = timeout(Duration::from_secs(6), feed.recv()).await {
            events.push(event);
        }
        events
    });
    fault(server, &bus).await;
    // Some more, through the server that came back.
    let after = bus.position().offset.0;
    while bus.position().offset.0 < after + 100 {
        sleep(PAUSE).await;
    }
    stop.send(true).unwrap();
    let mut stored = BTreeMap::new();
    for publishing in publishing {
        stored.extend(publishing.await.unwrap());
    }
    let events = reading.await.unwrap();
    assert!(events.is_sorted_by(|a, b| a.offset < b.offset), "in order, nothing twice");
    let first = events[0].offset;
    let fed: BTreeMap<_, _> =
        events.into_iter().map(|event| (event.offset, (event.room, event.entity.unwrap().2))).collect();
    let expected: BTreeMap<_, _> = stored.into_iter().filter(|(offset, _)| *offset >= first).collect();
    assert_eq!(fed, expected);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_kill_and_a_restart_lose_nothing() {
    let mut server = Nats::start().unwrap();
    nothing_is_lost(&mut server, async |server, bus| {
        server.kill().unwrap();
        in_time(bus.ping()).await.unwrap_err();
        in_time(bus.publish(vec![note(&lesson(), "away", 0)])).await.remove(0).unwrap_err();
        in_time(bus.replay(&[], &bus.position(), Offset(1))).await.unwrap_err();
        server.restart().unwrap();
        assert!(recovered(bus).await < RECOVERY);
    })
    .await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stop_of_three_seconds_loses_nothing() {
    let mut server = Nats::start().unwrap();
    nothing_is_lost(&mut server, async |server, bus| {
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
async fn a_room_wished_for_during_an_outage_is_filled_from_then_on() {
    let server = Nats::start().unwrap();
    let proxy = Proxy::to(server.port()).await;
    let (bus, mut feed) = NatsBus::connect(&proxy.url()).await.unwrap();
    let (other, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let (before, during) = (classroom(), lesson());
    bus.subscribe(&before).await.unwrap();
    publish_surely(&other, &before, 1).await;
    assert_eq!(ids(&collect(&mut feed, 1).await), [1]);

    proxy.cut();
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
    proxy.cut();
    assert!(other.publish(batch(0, 3000)).await.iter().all(Result::is_ok));
    proxy.mend();
    // More comes live while the gap is being filled.
    assert!(other.publish(batch(3000, 6000)).await.iter().all(Result::is_ok));
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
    proxy.cut();
    let last = publish_surely(&other, &room, 1).await;
    purge(&server.url()).await;
    publish_surely(&other, &room, 2).await;
    proxy.mend();
    assert!(matches!(fed(&mut feed).await, Fed::Gap(upto) if upto == last));
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
    let stored = publish_surely(&bus, &room, 1).await;
    collect(&mut feed, 1).await;
    proxy.cut();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    context.delete_stream("CLASSROOM").await.unwrap();
    proxy.mend();
    assert!(matches!(fed(&mut feed).await, Fed::Gap(upto) if upto == stored), "the stream is made again, and told");
    assert_ne!(bus.position().epoch, old.epoch);
    assert!(matches!(bus.replay(&[room.clone()], &old, stored).await.unwrap(), Replay::Lost));
    publish_surely(&bus, &room, 2).await;
    assert_eq!(ids(&collect(&mut feed, 1).await), [2], "offsets start again");
}

#[tokio::test]
async fn another_set_up_of_the_stream_is_named() {
    let server = Nats::start().unwrap();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let wrong = Config {
        name: "CLASSROOM".to_owned(),
        subjects: vec!["classroom.>".to_owned()],
        storage: StorageType::Memory,
        max_age: Duration::from_secs(60),
        duplicate_window: Duration::from_secs(30),
        ..Config::default()
    };
    context.create_stream(wrong).await.unwrap();
    let Err(error) = NatsBus::connect(&server.url()).await else { panic!("taken as it is") };
    let NatsError::Settings(differences) = &error else { panic!("{error}") };
    let named = ["subjects", "storage", "max_age", "duplicate_window", "republish"];
    assert_eq!(differences.len(), named.len(), "{differences:?}");
    for setting in named {
        assert!(differences.iter().any(|difference| difference.starts_with(setting)), "{setting}: {differences:?}");
    }
    assert!(error.to_string().contains("max_age is 60s, must be 3600s"), "{error}");
}

#[tokio::test]
async fn nodes_that_start_together_make_one_stream() {
    let server = Nats::start().unwrap();
    let url = server.url();
    let nodes = futures_util::future::join_all((0..8).map(|_| NatsBus::connect(&url))).await;
    let epochs: Vec<_> = nodes.into_iter().map(|node| node.unwrap().0.position().epoch).collect();
    assert!(epochs.iter().all(|epoch| *epoch == epochs[0]));
}

#[tokio::test]
async fn a_server_that_is_away_at_the_start_is_an_error_without_the_password() {
    let mut server = Nats::start().unwrap();
    server.kill().unwrap();
    let url = format!("nats://alice:canary@127.0.0.1:{}", server.port());
    let error = timeout(Duration::from_secs(2), NatsBus::connect(&url)).await.unwrap().err().unwrap();
    assert!(matches!(error, NatsError::Away(_)) && !error.to_string().contains("canary"), "{error}");
    let error = NatsBus::connect("http://canary@127.0.0.1").await.err().unwrap();
    assert!(matches!(error, NatsError::Url) && !error.to_string().contains("canary"), "{error}");
}

#[tokio::test]
async fn credentials_in_the_url_are_used() {
    let with_password = Handmade::start(&["--jetstream", "--user", "alice", "--pass", "p@ss:w/rd"]);
    let with_token = Handmade::start(&["--jetstream", "--auth", "s3cret"]);
    let without_jetstream = Handmade::start(&[]);
    let connect = async |credentials: &str, port: u16| {
        NatsBus::connect(&format!("nats://{credentials}127.0.0.1:{port}")).await.map(drop)
    };
    connect("alice:p%40ss%3Aw%2Frd@", with_password.port).await.unwrap();
    connect("s3cret@", with_token.port).await.unwrap();
    assert!(matches!(connect("alice:wrong@", with_password.port).await, Err(NatsError::Refused)));
    assert!(matches!(connect("", with_token.port).await, Err(NatsError::Refused)));
    assert!(matches!(connect("", without_jetstream.port).await, Err(NatsError::NoJetStream)));
}
