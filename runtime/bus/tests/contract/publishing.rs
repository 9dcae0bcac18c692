//! Messages that are published late, refused, or not allowed.
use std::{collections::HashSet, io::Write, sync::Arc, time::Duration};

use async_nats::jetstream::{self, stream::DiscardPolicy};
use futures_util::future::join_all;
use rollcall_bus::{
    Bus, EventPublisher, Fence, ProbeError, Publication, PublishError, PublishLimits,
    nats::{NatsBus, NatsError},
};
use rollcall_loadtest::servers::Nats;
use rollcall_schema::{RoomId, Subject};
use tokio::time::sleep;

use crate::{
    bench::{PAUSE, classroom, in_time, lesson, note},
    proxy::{Handmade, Stall},
};

fn presence(room: &RoomId, id: &str) -> Publication {
    Publication {
        subject: Subject::parse(&format!("{room}.agent")).unwrap(),
        message_id: Some(id.to_owned()),
        headers: Vec::new(),
        body: "{}".into(),
        fence: Fence::AfterLast,
    }
}

async fn change(url: &str, change: impl FnOnce(&mut jetstream::stream::Config)) {
    let context = jetstream::new(async_nats::connect(url).await.unwrap());
    let mut config = context.get_stream("CLASSROOM").await.unwrap().cached_info().config.clone();
    change(&mut config);
    context.update_stream(config).await.unwrap();
}

async fn count(url: &str, subject: &str) -> u64 {
    let context = jetstream::new(async_nats::connect(url).await.unwrap());
    let stream = context.get_stream("CLASSROOM").await.unwrap();
    let config = jetstream::consumer::pull::Config {
        filter_subject: subject.to_owned(),
        ..jetstream::consumer::pull::Config::default()
    };
    stream.create_consumer(config).await.unwrap().cached_info().num_pending
}

/// A handler was told that these events were not stored, and its client may have sent another request since.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn events_that_were_not_stored_are_not_sent_when_the_server_is_back() {
    let mut server = Nats::start().unwrap();
    let (bus, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let (room, limits) = (lesson(), PublishLimits { events: 100, bytes: 1 << 20 });
    let publisher = EventPublisher::new(Arc::new(bus), limits);
    publisher.publish(note(&room, "before", 1)).await.unwrap();
    server.kill().unwrap();
    // The events are more than the limits allow, and than the connection accepts at once.
    let lost = (0..200).map(|number| in_time(publisher.publish(note(&room, format!("lost-{number}"), number))));
    let results = join_all(lost).await;
    let busy = results.iter().filter(|result| matches!(result, Err(PublishError::Busy))).count();
    assert!(results.iter().all(Result::is_err) && busy > 0, "{results:?}");
    server.restart().unwrap();
    while let Err(error) = in_time(publisher.publish(note(&room, "after", 2))).await {
        assert!(matches!(error, PublishError::Away(_)), "{error:?}");
        sleep(PAUSE).await;
    }
    assert_eq!(count(&server.url(), &format!("{room}.note")).await, 2);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_copy_that_a_path_delivers_late_is_refused() {
    let server = Nats::start().unwrap();
    let path = Stall::to(server.port()).await;
    let (stalled, _feed) = NatsBus::connect(&path.url()).await.unwrap();
    let (other, _other_feed) = NatsBus::connect(&server.url()).await.unwrap();
    change(&server.url(), |config| config.duplicate_window = Duration::from_millis(100)).await;
    let (fenced, free) = (classroom(), classroom());
    let copies = || vec![presence(&fenced, "entered"), Publication { fence: Fence::None, ..presence(&free, "free") }];
    path.hold();
    let results = stalled.publish(copies()).await;
    assert!(results.iter().all(|result| matches!(result, Err(PublishError::Away(_)))), "{results:?}");
    // Another node takes over the events.
    let results = other.publish(copies()).await;
    assert!(results.iter().all(Result::is_ok), "{results:?}");
    other.publish(vec![presence(&fenced, "left")]).await.remove(0).unwrap();
    // Waits until the stream has forgotten a later id.
    let room = classroom();
    let again = async || other.publish(vec![note(&room, "later", 1)]).await.remove(0).unwrap();
    let first = again().await;
    while again().await == first {
        sleep(PAUSE).await;
    }
    drop(stalled);
    path.deliver().await;
    let stored = async |room: &RoomId| count(&server.url(), &format!("{room}.agent")).await;
    assert_eq!(stored(&free).await, 2, "the path has delivered it");
    assert_eq!(stored(&fenced).await, 2, "entered and left, once each");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn many_events_of_one_room_keep_their_order_beside_another_node() {
    let server = Nats::start().unwrap();
    let (first, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let (second, _other) = NatsBus::connect(&server.url()).await.unwrap();
    let (room, other) = (classroom(), classroom());
    let publish = async |bus: &NatsBus, room: &RoomId| {
        let (mut next, mut offsets) = (0, Vec::new());
        while next < 600 {
            let batch: Vec<_> = (next..600).map(|number| presence(room, &format!("{room}-{number}"))).collect();
            let results = bus.publish(batch).await;
            let stored = results.iter().take_while(|result| result.is_ok()).count();
            assert!(results[stored..].iter().all(|result| matches!(result, Err(PublishError::Behind))), "{results:?}");
            offsets.extend(results.into_iter().take(stored).map(|result| result.unwrap().0));
            next += stored;
        }
        offsets
    };
    let (mine, theirs) = tokio::join!(publish(&first, &room), publish(&second, &other));
    assert!(mine.is_sorted() && theirs.is_sorted());
    assert_eq!(count(&server.url(), &format!("{room}.agent")).await, 600);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn first_tries_of_many_agents_in_one_room_are_stored_once_and_each_agents_in_order() {
    let server = Nats::start().unwrap();
    let (first, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let (second, _other) = NatsBus::connect(&server.url()).await.unwrap();
    let publish = async |bus: &NatsBus, room: RoomId| {
        let event = |number: usize| Publication {
            headers: vec![(rollcall_schema::header::SENDER_AGENT_ID, format!("web.agent{}.example.org", number % 200))],
            fence: Fence::FirstTry,
            ..presence(&room, &format!("{room}-{number}"))
        };
        let mut offsets = vec![0; 600];
        let mut left: Vec<usize> = (0..600).collect();
        while !left.is_empty() {
            let results = bus.publish(left.iter().map(|number| event(*number)).collect()).await;
            for (number, result) in left.iter().zip(&results) {
                match result {
                    Ok(offset) => offsets[*number] = offset.0,
                    Err(PublishError::Behind) => {}
                    Err(error) => panic!("{error:?}"),
                }
            }
            left.retain(|number| offsets[*number] == 0);
        }
        assert!(
            (0..200).all(|agent| offsets[agent] < offsets[agent + 200] && offsets[agent + 200] < offsets[agent + 400])
        );
        assert_eq!(count(&server.url(), &format!("{room}.agent")).await, 600);
    };
    tokio::join!(publish(&first, classroom()), publish(&second, classroom()));
}

#[tokio::test]
async fn a_message_that_is_too_large_is_refused_alone() {
    let server = Nats::start().unwrap();
    let (bus, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let (room, other) = (classroom(), classroom());
    let large = Publication { body: vec![b' '; 2 * 1024 * 1024].into(), ..presence(&room, "large") };
    let results = bus.publish(vec![large, presence(&other, "small")]).await;
    assert!(matches!(results[..], [Err(PublishError::Refused(_)), Ok(_)]), "{results:?}");
    // The stream may accept less than the server.
    change(&server.url(), |config| config.max_message_size = 1_000).await;
    let large = Publication { body: vec![b' '; 2_000].into(), ..presence(&room, "large") };
    let results = bus.publish(vec![large, presence(&other, "smaller"), presence(&room, "after")]).await;
    assert!(matches!(results[..], [Err(PublishError::Refused(_)), Ok(_), _]), "{results:?}");
}

#[tokio::test]
async fn the_stream_is_asked_for_what_it_has() {
    let server = Nats::start().unwrap();
    let (bus, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    let ids = |ids: &[&str]| ids.iter().map(|id| (*id).to_owned()).collect::<HashSet<_>>();
    let age = Duration::from_secs(60);
    assert_eq!(bus.stored(&ids(&["a"]), age).await.unwrap(), ids(&[]));
    bus.publish(vec![presence(&room, "a"), presence(&room, "b"), note(&room, "c", 1)]).await;
    assert_eq!(bus.stored(&ids(&["a", "c", "d"]), age).await.unwrap(), ids(&["a"]), "events of presence only");
}

#[tokio::test]
async fn a_right_that_is_missing_is_named_at_the_start() {
    let denied = [
        ("publish", "classroom.>"),
        ("publish", "lesson.>"),
        ("publish", "$JS.API.STREAM.MSG.GET.CLASSROOM"),
        ("subscribe", "live.>"),
        ("publish", "rollcall.wake.>"),
        ("subscribe", "rollcall.wake.>"),
    ];
    for (right, subject) in denied {
        let mut file = tempfile::NamedTempFile::new().unwrap();
        let other = if right == "publish" { "subscribe" } else { "publish" };
        let rights = format!("{right}: {{ allow: \">\", deny: \"{subject}\" }}, {other}: \">\"");
        writeln!(file, "authorization {{ users: [{{ user: u, password: p, permissions: {{ {rights} }} }}] }}").unwrap();
        let server = Handmade::start(&["--jetstream", "--config", file.path().to_str().unwrap()]);
        let error = loop {
            match NatsBus::connect(&format!("nats://u:p@127.0.0.1:{}", server.port)).await.map(drop) {
                // JetStream is ready a moment after the server.
                Err(NatsError::Away(_) | NatsError::NoJetStream) => sleep(PAUSE).await,
                other => break other,
            }
        };
        let Err(NatsError::Rights(why)) = error else { panic!("{subject}: {error:?}") };
        assert!(why.ends_with(&format!(": let it {right} to {subject}")), "{why}");
    }
}

#[tokio::test]
async fn the_right_to_make_the_stream_is_needed_only_where_there_is_none() {
    let mut file = tempfile::NamedTempFile::new().unwrap();
    let denied = "publish: { allow: \">\", deny: \"$JS.API.STREAM.CREATE.CLASSROOM\" }, subscribe: \">\"";
    let users = format!("{{ user: admin, password: p }}, {{ user: u, password: p, permissions: {{ {denied} }} }}");
    writeln!(file, "authorization {{ users: [{users}] }}").unwrap();
    let server = Handmade::start(&["--jetstream", "--config", file.path().to_str().unwrap()]);
    let connect = async |user: &str| loop {
        match NatsBus::connect(&format!("nats://{user}:p@127.0.0.1:{}", server.port)).await.map(drop) {
            // JetStream is ready a moment after the server.
            Err(NatsError::Away(_) | NatsError::NoJetStream) => sleep(PAUSE).await,
            other => return other,
        }
    };
    let error = connect("u").await.unwrap_err();
    assert!(matches!(&error, NatsError::Rights(why) if why.contains("STREAM.CREATE")), "{error}");
    connect("admin").await.unwrap();
    connect("u").await.unwrap();
}

#[tokio::test]
async fn a_stream_that_is_full_is_no_bus_to_serve_with() {
    let server = Nats::start().unwrap();
    let (bus, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    bus.probe().await.unwrap();
    change(&server.url(), |config| (config.max_bytes, config.discard) = (2_000, DiscardPolicy::New)).await;
    let (room, mut number) = (classroom(), 0);
    let error = loop {
        match bus.publish(vec![presence(&room, &number.to_string())]).await.remove(0) {
            Ok(_) => number += 1,
            Err(error) => break error,
        }
    };
    assert!(matches!(error, PublishError::Away(_)), "it may be stored later: {error:?}");
    // An event that was stored a moment ago still counts as a proof. The settings are reported at once.
    loop {
        match bus.probe().await {
            Err(ProbeError::Unable(why)) if why.contains("maximum bytes") => break,
            _ => sleep(PAUSE).await,
        }
    }
    change(&server.url(), |config| (config.max_bytes, config.discard) = (-1, DiscardPolicy::Old)).await;
    while bus.probe().await.is_err() {
        sleep(PAUSE).await;
    }
    assert_eq!(count(&server.url(), "classroom.$probe.rollcall").await, 0, "probes are deleted");
}
