//! Reads the presence of all classrooms, in the stream's order and without a gap.
use async_nats::jetstream;
use rollcall_bus::{Bus, Fence, Position, PresenceEvent, PresencePage, PresenceRead, Publication, nats::NatsBus};
use rollcall_loadtest::servers::Nats;
use rollcall_schema::{ClassroomId, Offset, Subject};
use uuid::Uuid;

use crate::bench::{lesson, note};

/// Returns an event of presence of a session.
fn left(classroom: u128, session: usize) -> Publication {
    Publication {
        subject: Subject::agent(ClassroomId(Uuid::from_u128(classroom))),
        message_id: Some(format!("agent.left:x:{session}")),
        headers: vec![("Left-Reason", "closed".to_owned())],
        body: format!("{{\"session\":{session}}}").into(),
        fence: Fence::None,
    }
}

async fn page(bus: &NatsBus, after: &Position, max: usize) -> PresencePage {
    match bus.presence(after, max).await.unwrap() {
        PresenceRead::Page(page) => page,
        other => panic!("{other:?}"),
    }
}

/// Returns every event after a position, page by page.
async fn all(bus: &NatsBus, mut after: Position, max: usize) -> Vec<PresenceEvent> {
    let mut events = Vec::new();
    loop {
        let page = page(bus, &after, max).await;
        assert!(page.events.len() <= max && page.through >= after.offset && page.missing == 0, "{page:?}");
        after.offset = page.through;
        events.extend(page.events);
        if !page.more {
            return events;
        }
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn pages_of_any_size_have_every_event_of_presence_once() {
    let server = Nats::start().unwrap();
    let (bus, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let begin = bus.position();
    assert_eq!(page(&bus, &begin, 10).await.events, []);
    let other = lesson();
    for round in 0..30 {
        let batch = vec![
            left(1, 3 * round),
            note(&other, format!("n{round}"), 0),
            left(2, 3 * round + 1),
            left(3, 3 * round + 2),
        ];
        assert!(bus.publish(batch).await.iter().all(Result::is_ok));
    }
    let events = all(&bus, begin.clone(), 1_000).await;
    let session = |event: &PresenceEvent| event.message_id.rsplit(':').next().unwrap().parse::<usize>().unwrap();
    assert_eq!(events.iter().map(session).collect::<Vec<_>>(), (0..90).collect::<Vec<_>>());
    assert!(events.is_sorted_by_key(|event| event.offset));
    let last = &events[89];
    assert_eq!((last.reason.as_deref(), &last.body[..]), (Some("closed"), &b"{\"session\":89}"[..]));
    for max in [1, 7, 90, 91] {
        assert_eq!(
            all(&bus, begin.clone(), max).await.iter().map(|event| event.offset).collect::<Vec<_>>(),
            events.iter().map(|event| event.offset).collect::<Vec<_>>(),
            "{max}"
        );
    }
    // Events of other services use up offsets.
    let end = Position { offset: last.offset, ..begin.clone() };
    assert!(bus.publish(vec![note(&other, "late", 0)]).await[0].is_ok());
    let page = page(&bus, &end, 10).await;
    assert_eq!((page.events.len(), page.through.0, page.more), (0, last.offset.0 + 1, false));
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_consumer_that_the_server_has_forgotten_loses_nothing() {
    let server = Nats::start().unwrap();
    let (bus, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let mut after = bus.position();
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    let stream = context.get_stream("CLASSROOM").await.unwrap();
    let mut sessions = Vec::new();
    for session in 0..6 {
        assert!(bus.publish(vec![left(1, session)]).await[0].is_ok());
        let mut names = stream.consumer_names();
        while let Some(Ok(name)) = futures_util::StreamExt::next(&mut names).await {
            stream.delete_consumer(&name).await.unwrap();
        }
        // The first attempt may find that the server has forgotten the consumer.
        let read = match bus.presence(&after, 10).await {
            Ok(read) => read,
            Err(_) => bus.presence(&after, 10).await.unwrap(),
        };
        let PresenceRead::Page(page) = read else { panic!("{read:?}") };
        after.offset = page.through;
        sessions.extend(page.events.into_iter().map(|event| event.message_id));
    }
    assert_eq!(sessions, (0..6).map(|session| format!("agent.left:x:{session}")).collect::<Vec<_>>());
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_is_gone_is_counted_and_another_stream_is_told() {
    let server = Nats::start().unwrap();
    let (bus, _feed) = NatsBus::connect(&server.url()).await.unwrap();
    let begin = bus.position();
    for session in 0..9 {
        assert!(bus.publish(vec![left(session as u128 % 2, session)]).await[0].is_ok());
    }
    let (one, at) = (ClassroomId(Uuid::from_u128(1)), |offset| Position { offset: Offset(offset), ..begin.clone() });
    let of_one = bus.presence_of(one, &at(2), Offset(7), 10).await.unwrap();
    assert_eq!(of_one.iter().map(|event| event.offset.0).collect::<Vec<_>>(), [4, 6]);
    assert_eq!(bus.presence_of(one, &at(0), Offset(9), 2).await.unwrap().len(), 2);
    let elsewhere = Position { epoch: "another".to_owned(), ..at(0) };
    assert!(bus.presence_of(one, &elsewhere, Offset(9), 2).await.is_err());
    let context = jetstream::new(async_nats::connect(server.url()).await.unwrap());
    context.get_stream("CLASSROOM").await.unwrap().purge().sequence(5).await.unwrap();
    let found = page(&bus, &begin, 10).await;
    assert_eq!((found.missing, found.events.len(), found.events[0].offset), (4, 5, Offset(5)));
    let beyond = Position { offset: Offset(99), ..begin.clone() };
    assert_eq!(
        bus.presence(&beyond, 10).await.unwrap(),
        PresenceRead::Elsewhere { epoch: begin.epoch.clone(), last: Offset(9) }
    );
    let foreign = Position { epoch: "another".to_owned(), ..begin.clone() };
    assert_eq!(
        bus.presence(&foreign, 10).await.unwrap(),
        PresenceRead::Elsewhere { epoch: begin.epoch, last: Offset(9) }
    );
    let (memory, _feed) = rollcall_bus::memory::MemoryBus::start(rollcall_bus::memory::LogLimits::default());
    assert!(memory.presence(&memory.position(), 10).await.is_err());
}
