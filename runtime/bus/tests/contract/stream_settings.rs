//! The stream's settings: those of a new stream, those that an existing stream may have, and those that it must have.
use std::time::Duration;

use async_nats::jetstream::{
    self,
    stream::{Config, DiscardPolicy, Republish, RetentionPolicy, StorageType},
};
use rollcall_bus::{
    Bus, Replay,
    nats::{NatsBus, NatsError, NatsOptions, StreamOptions},
};
use rollcall_loadtest::servers::{MemberOptions, Nats, NatsMember, NatsVersion};
use tokio::time::{Instant, sleep};

use crate::{
    bench::{PAUSE, classroom, collect, ids, publish_surely},
    tls::start,
};

async fn config(url: &str, name: &str) -> Config {
    let context = jetstream::new(async_nats::connect(url).await.unwrap());
    context.get_stream(name).await.unwrap().cached_info().config.clone()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_is_made_as_it_is_configured() {
    for version in [NatsVersion::Distribution, NatsVersion::Current] {
        let server = Nats::start_with(version).unwrap();
        let stream = StreamOptions {
            name: "SCHOOL".to_owned(),
            replicas: 1,
            max_age: Duration::from_secs(600),
            max_bytes: Some(1 << 24),
            in_memory: true,
        };
        let options = NatsOptions { stream, ..NatsOptions::new(server.url()) };
        let (bus, mut feed) = NatsBus::connect_with(options).await.unwrap();
        let found = config(&server.url(), "SCHOOL").await;
        assert_eq!((found.max_age, found.max_bytes), (Duration::from_secs(600), 1 << 24));
        assert_eq!((found.storage, found.duplicate_window), (StorageType::Memory, Duration::from_secs(120)));
        let room = classroom();
        bus.subscribe(&room).await.unwrap();
        publish_surely(&bus, &room, 1).await;
        assert_eq!(ids(&collect(&mut feed, 1).await), [1]);
        bus.probe().await.unwrap();
    }
}

/// Returns a stream that another operator made, with other numbers that break no promise.
pub(crate) fn foreign() -> Config {
    Config {
        name: "CLASSROOM".to_owned(),
        subjects: vec!["lesson.>".to_owned(), "classroom.>".to_owned()],
        storage: StorageType::Memory,
        max_age: Duration::from_secs(24 * 60 * 60),
        max_bytes: 1 << 24,
        max_messages: 1_000,
        duplicate_window: Duration::from_secs(300),
        republish: Some(Republish { source: ">".to_owned(), destination: "live.>".to_owned(), headers_only: false }),
        ..Config::default()
    }
}

#[tokio::test]
async fn a_stream_that_keeps_the_promises_is_used_as_it_is() {
    let server = Nats::start().unwrap();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    context.create_stream(foreign()).await.unwrap();
    NatsBus::connect(&server.url()).await.unwrap();
    assert_eq!(config(&server.url(), "CLASSROOM").await.max_age, foreign().max_age);
}

#[tokio::test]
async fn a_setting_that_breaks_a_promise_is_named() {
    let server = Nats::start().unwrap();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let wrong = Config {
        subjects: vec!["classroom.>".to_owned()],
        duplicate_window: Duration::from_secs(30),
        republish: None,
        retention: RetentionPolicy::Interest,
        discard: DiscardPolicy::New,
        ..foreign()
    };
    context.create_stream(wrong).await.unwrap();
    let Err(error) = NatsBus::connect(&server.url()).await else { panic!("taken as it is") };
    let NatsError::Settings { differences, .. } = &error else { panic!("{error}") };
    let named = ["subjects", "retention", "discard", "duplicate_window", "republish"];
    assert_eq!(differences.len(), named.len(), "{differences:?}");
    for setting in named {
        assert!(differences.iter().any(|difference| difference.starts_with(setting)), "{setting}: {differences:?}");
    }
    assert!(error.to_string().contains("duplicate_window is 30s, must be 120s"), "{error}");
}

/// Changes the settings of the stream that a node uses.
async fn change(url: &str, change: impl FnOnce(&mut Config)) {
    let context = jetstream::new(async_nats::connect(url).await.unwrap());
    let mut settings = config(url, "CLASSROOM").await;
    change(&mut settings);
    context.update_stream(settings).await.unwrap();
}

/// Waits until a probe reports the wanted text.
async fn says(bus: &NatsBus, wanted: &str) {
    let since = Instant::now();
    loop {
        let said = bus.probe().await.err().map(|error| error.to_string()).unwrap_or_default();
        if (wanted.is_empty() && said.is_empty()) || (!wanted.is_empty() && said.contains(wanted)) {
            return;
        }
        assert!(since.elapsed() < Duration::from_secs(20), "{said}");
        sleep(PAUSE).await;
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_setting_that_is_changed_while_a_node_runs_is_named_and_loses_nothing() {
    let server = Nats::start_with(NatsVersion::Current).unwrap();
    let (bus, mut feed) = NatsBus::connect(&server.url()).await.unwrap();
    let room = classroom();
    bus.subscribe(&room).await.unwrap();
    publish_surely(&bus, &room, 1).await;
    change(&server.url(), |config| config.republish = None).await;
    publish_surely(&bus, &room, 2).await;
    says(&bus, "republish is None, must be Some").await;
    publish_surely(&bus, &room, 3).await;
    // The events are read from the stream.
    assert_eq!(ids(&collect(&mut feed, 3).await), [1, 2, 3]);
    let end = bus.end().await;
    assert!(
        matches!(bus.replay(std::slice::from_ref(&room), &end).await.unwrap(), Replay::Lost),
        "it promises nothing now"
    );
    publish_surely(&bus, &room, 4).await;
    change(&server.url(), |config| config.republish = foreign().republish).await;
    says(&bus, "").await;
    publish_surely(&bus, &room, 5).await;
    assert_eq!(ids(&collect(&mut feed, 2).await), [4, 5]);
    change(&server.url(), |config| config.subjects = vec!["classroom.>".to_owned()]).await;
    says(&bus, "subjects is [\"classroom.>\"], must be").await;
    change(&server.url(), |config| config.subjects = foreign().subjects).await;
    says(&bus, "").await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_stream_in_the_domain_behind_a_leaf_node_is_used() {
    for version in [NatsVersion::Distribution, NatsVersion::Current] {
        let port = std::net::TcpListener::bind("127.0.0.1:0").unwrap().local_addr().unwrap().port();
        let member = |settings: String| NatsMember::start_with(MemberOptions::new(version, settings).unwrap()).unwrap();
        let hub = member(format!(
            "server_name: hub\njetstream {{ store_dir: store, domain: hub }}\nleafnodes {{ listen: \"127.0.0.1:{port}\" }}\n"
        ));
        let leaf = member(format!(
            "server_name: leaf\njetstream {{ store_dir: store, domain: leaf }}\n\
             leafnodes {{ remotes: [{{ url: \"nats-leaf://127.0.0.1:{port}\" }}] }}\n"
        ));
        let options = NatsOptions { domain: Some("hub".to_owned()), ..NatsOptions::new(leaf.url()) };
        let _first = start(&options).await.unwrap();
        assert!(!config(&hub.url(), "CLASSROOM").await.subjects.is_empty(), "it is made at the hub");
        let (bus, mut feed) = NatsBus::connect_with(options).await.unwrap();
        let room = classroom();
        bus.subscribe(&room).await.unwrap();
        publish_surely(&bus, &room, 1).await;
        assert_eq!(ids(&collect(&mut feed, 1).await), [1]);
        bus.probe().await.unwrap();
    }
}
