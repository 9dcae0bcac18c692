//! What only NATS can do: it is shared with other nodes and services, may have wrong settings, and asks for
//! credentials.
use std::time::Duration;

use async_nats::{HeaderMap, jetstream};
use futures_util::StreamExt;
use rollcall_base::BackendUrl;
use rollcall_bus::{
    Bus, PresenceRead, Publication, Replay,
    nats::{NatsBus, NatsError, NatsOptions},
};
use rollcall_loadtest::servers::Nats;
use rollcall_schema::Subject;
use tokio::time::timeout;

use crate::{
    bench::{classroom, collect, ids, lesson, note, publish_surely},
    proxy::{Handmade, Proxy, publish_raw},
};

/// Blocks of headers that no client library writes.
const BROKEN: [&[u8]; 4] = [
    b"NATS/1.0\r\nno colon\r\n\r\n",
    b"NATS/1.0\r\nA: \xff\r\n\r\n",
    b"NATS/1.0\r\nA b: c\r\n\r\n",
    b"NATS/1.0 none\r\n\r\n",
];

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

/// The sequence numbers of probes, which are deleted, are missing at the beginning of the stream. This does not mean
/// that the stream forgets events.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn the_oldest_event_of_a_young_stream_is_read() {
    let server = Nats::start().unwrap();
    let (bus, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    publish_surely(&bus, &room, 1).await;
    crate::bench::purge(&server.url()).await;
    let first = publish_surely(&bus, &room, 2).await;
    publish_surely(&bus, &room, 3).await;
    let oldest = bus.oldest().await.unwrap();
    assert!(oldest.offset < first, "{oldest:?} {first:?}");
    let Replay::Events(mut events, _) = bus.replay(&[room], &oldest).await.unwrap() else { panic!("lost") };
    let event = timeout(Duration::from_secs(10), events.recv()).await.unwrap().unwrap().unwrap();
    assert_eq!(event.offset, first);
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
    // None of these messages is an event of the stream: they are broken or forged, or only look like an event.
    send(format!("{room}.a.b"), &[], "{}").await;
    send(format!("{room}.a$b"), &[], "{}").await;
    send(format!("{room}.note"), &[("Receiver-Agent-Id", "nobody at all")], "{}").await;
    send(format!("{room}.note"), &[("Entity-Event-Sequence-Id", "many")], "{}").await;
    send(format!("live.{room}.note"), &[], "{}").await;
    send(format!("live.{room}.note"), &[("Nats-Sequence", "first")], "{}").await;
    // The node accepts these messages, because the gateway checks bodies.
    send(format!("{room}.note"), &[("Nats-Sequence", "99999"), ("Nats-Last-Sequence", "99998")], "not JSON").await;
    send(format!("{room}.note"), &[], "").await;
    send(format!("{room}.note"), &[("Sender-Agent-Id", "a service")], "{}").await;
    send(format!("{room}.note"), &[("is-internal", "True")], "{}").await;
    other.flush().await.unwrap();

    let events = collect(&mut feed, 2).await;
    assert_eq!(events[0].body, "not JSON");
    assert!(events[1].body.is_empty());
    publish_surely(&bus, &room, 1).await;
    assert_eq!(ids(&collect(&mut feed, 1).await), [1]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_classroom_in_upper_case_is_the_same_classroom() {
    let server = Nats::start().unwrap();
    let proxy = Proxy::to(server.port()).await;
    let (bus, mut feed) = NatsBus::connect(&proxy.url()).await.unwrap();
    let (room, start) = (classroom(), bus.position());
    bus.subscribe(&room).await.unwrap();
    let other = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let (lower, upper) = (room.to_string(), room.to_string().replacen("classroom", "", 1).to_uppercase());
    let spellings = [lower, format!("classroom{upper}")];
    let publish = async |number: i64| {
        let mut headers = HeaderMap::new();
        for (name, value) in note(&room, "", number).headers {
            headers.insert(name, value);
        }
        let subject = format!("{}.note", spellings[(number % 2) as usize]);
        other.publish_with_headers(subject, headers, "{}".into()).await.unwrap().await.unwrap();
    };
    for number in 0..4 {
        publish(number).await;
    }
    let events = collect(&mut feed, 4).await;
    assert_eq!(ids(&events), [0, 1, 2, 3]);
    assert!(events.iter().all(|event| event.room == room));
    // Both spellings are also heard in events that are read from the stream, after a break and for a client that comes
    // back.
    proxy.cut().await;
    for number in 4..8 {
        publish(number).await;
    }
    proxy.mend();
    assert_eq!(ids(&collect(&mut feed, 4).await), [4, 5, 6, 7]);
    let Replay::Events(mut events, _) = bus.replay(std::slice::from_ref(&room), &start).await.unwrap() else {
        panic!("lost")
    };
    let mut replayed = Vec::new();
    while let Some(event) = events.recv().await {
        replayed.push(event.unwrap());
    }
    assert_eq!(ids(&replayed), (0..8).collect::<Vec<_>>());
    bus.unsubscribe(&room);
    let (others, last) = (lesson(), 9);
    bus.subscribe(&others).await.unwrap();
    for number in 0..2 {
        publish(number).await;
    }
    publish_surely(&bus, &others, last).await;
    assert_eq!(ids(&collect(&mut feed, 1).await), [last], "neither spelling is heard any more");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_url_that_was_rotated_is_read_again() {
    let folder = tempfile::tempdir().unwrap();
    let (settings, file) = (folder.path().join("nats.conf"), folder.path().join("url"));
    let has = |password: &str| {
        let store = folder.path().join("store");
        let text = format!(
            "authorization {{ user: alice, password: {password} }}\njetstream {{ store_dir: {:?} }}",
            store.display().to_string()
        );
        std::fs::write(&settings, text).unwrap();
    };
    has("first");
    let server = Handmade::start_with_file(&settings);
    let (before, after) = (Proxy::to(server.port).await, Proxy::to(server.port).await);
    let address = |password: &str, host: &str| host.replacen("//", &format!("//alice:{password}@"), 1);
    let direct = format!("nats://127.0.0.1:{}", server.port);
    let first = address("first", &before.url());
    std::fs::write(&file, &first).unwrap();
    let url = BackendUrl::in_file(&first, "NATS_URL", file.clone(), |_| Ok(()));
    let (bus, mut feed) = NatsBus::connect_with(NatsOptions::new(url)).await.unwrap();
    let (room, start) = (classroom(), bus.position());
    bus.subscribe(&room).await.unwrap();
    publish_surely(&bus, &room, 1).await;
    assert_eq!(ids(&collect(&mut feed, 1).await), [1]);

    // The URL now has another password and another address.
    has("second");
    server.reload();
    before.cut().await;
    let (other, _feed) = timeout(Duration::from_secs(10), async {
        loop {
            if let Ok(connected) = NatsBus::connect(&address("second", &direct)).await {
                return connected;
            }
        }
    })
    .await
    .expect("the server has read its settings");
    publish_surely(&other, &room, 2).await;
    std::fs::write(&file, address("second", &after.url())).unwrap();
    assert_eq!(ids(&collect(&mut feed, 1).await), [2], "it is read from the stream");
    publish_surely(&bus, &room, 3).await;
    assert_eq!(ids(&collect(&mut feed, 1).await), [3]);
    let Replay::Events(mut events, _) = bus.replay(std::slice::from_ref(&room), &start).await.unwrap() else {
        panic!("lost")
    };
    for number in 1..=3 {
        assert_eq!(ids(&[events.recv().await.unwrap().unwrap()]), [number]);
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_larger_than_the_limit_is_left_out_alone() {
    const LIMIT: usize = 512 * 1024;
    let server = Nats::start().unwrap();
    let options = NatsOptions { max_body: LIMIT, ..NatsOptions::new(server.url()) };
    let (bus, mut feed) = NatsBus::connect_with(options).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    let event = |number, size| Publication {
        body: format!("\"{}\"", "x".repeat(size - 2)).into(),
        ..note(&room, format!("{room}-{number}"), number)
    };
    // A message over the limit may pass, up to the limit for headers, because the gateway checks the body's size.
    let batch = vec![event(1, LIMIT), event(2, LIMIT + 200 * 1024), event(3, 2)];
    assert!(bus.publish(batch).await.iter().all(Result::is_ok));
    assert_eq!(ids(&collect(&mut feed, 2).await), [1, 3]);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_headers_of_others_lose_nothing() {
    let server = Nats::start().unwrap();
    let (bus, mut feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    for (round, headers) in BROKEN.into_iter().enumerate() {
        let round = i64::try_from(round).unwrap() * 10;
        publish_surely(&bus, &room, round + 1).await;
        publish_raw(server.port(), &format!("{room}.note"), headers, b"{\"broken\":1}").await;
        publish_surely(&bus, &room, round + 2).await;
        let events = collect(&mut feed, 3).await;
        assert_eq!(events[1].body, "{\"broken\":1}");
        assert_eq!(ids(&[events[0].clone(), events[2].clone()]), [round + 1, round + 2]);
    }
}

/// Messages that the client library does not accept are read from the stream, and so are later messages.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn broken_headers_of_others_hold_up_no_reading_of_the_stream() {
    let server = Nats::start().unwrap();
    let (bus, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    // There are more rooms than are read one by one.
    let rooms: Vec<_> = (0..30).map(|_| classroom()).collect();
    let after = bus.end().await;
    let subject = format!("{}.agent", rooms[0]);
    let presence = |id: &str| Publication { subject: Subject::parse(&subject).unwrap(), ..note(&rooms[0], id, 1) };
    bus.publish(vec![presence("before")]).await.remove(0).unwrap();
    for headers in BROKEN {
        publish_raw(server.port(), &subject, headers, b"{}").await;
    }
    bus.publish(vec![presence("after")]).await.remove(0).unwrap();
    let Replay::Events(mut events, _) = bus.replay(&rooms, &after).await.unwrap() else { panic!("it is covered") };
    let mut read = 0;
    while let Some(event) = events.recv().await {
        event.unwrap();
        read += 1;
    }
    assert_eq!(read, BROKEN.len() + 2);
    let ids = ["before", "after", "other"].map(str::to_owned).into();
    assert_eq!(bus.stored(&ids, Duration::from_secs(60)).await.unwrap().len(), 2);
    let PresenceRead::Page(page) = bus.presence(&after, 10).await.unwrap() else { panic!("it is the same stream") };
    assert_eq!(page.events.into_iter().map(|event| event.message_id).collect::<Vec<_>>(), ["before", "after"]);
}

/// Rooms that are added at the same time share a question to the stream, because a connection may ask at most 200
/// questions in a second.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn rooms_that_are_added_together_share_a_question_to_jetstream() {
    const TOGETHER: usize = 100;
    const TURNS: usize = 10;
    let server = Nats::start().unwrap();
    let (bus, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let other = async_nats::connect(server.url()).await.unwrap();
    let mut requests = other.subscribe("$JS.API.>").await.unwrap();
    let began = std::time::Instant::now();
    for _ in 0..TURNS {
        let rooms: Vec<_> = (0..TOGETHER).map(|_| lesson()).collect();
        futures_util::future::try_join_all(rooms.iter().map(|room| bus.subscribe(room))).await.unwrap();
    }
    let most = began.elapsed().as_millis() as usize / 5 + 2;
    other.publish("$JS.API.end", "".into()).await.unwrap();
    let mut asked = 0;
    while requests.next().await.is_some_and(|request| request.subject.as_str() != "$JS.API.end") {
        asked += 1;
    }
    assert!(asked <= most, "{asked} requests where {most} are allowed");
    assert!(asked < TURNS * TOGETHER / 4, "{asked} requests for {} rooms", TURNS * TOGETHER);
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
    assert!(matches!(connect("alice:wrong@", with_password.port).await, Err(NatsError::Refused(_))));
    assert!(matches!(connect("", with_token.port).await, Err(NatsError::Refused(_))));
    assert!(matches!(connect("", without_jetstream.port).await, Err(NatsError::NoJetStream)));
}
