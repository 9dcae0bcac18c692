//! The hook against a service that the test starts.
use std::sync::atomic::{AtomicUsize, Ordering};

use hyper::StatusCode;
use rollcall_schema::{Audience, Role, UserId};
use serde_json::{Value, json};

use super::*;
use crate::http_client::{
    egress::Egress,
    fixture::{Fixture, Reply, soon},
};

const ROOM: &str = "2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c001";

fn user(name: &str) -> Claims {
    let (user, audience) = (UserId::parse(name).unwrap(), Audience::parse("example.org").unwrap());
    Claims { user, audience, role: Role::Participant, expires: u64::MAX, limits: None }
}

fn alice() -> Claims {
    user("alice")
}

fn room() -> ClassroomId {
    ClassroomId::parse(ROOM).unwrap()
}

fn options(url: Uri) -> HookOptions {
    HookOptions {
        url,
        token: None,
        timeout: Duration::from_secs(2),
        ttl: Duration::from_secs(60),
        namespace: None,
        concurrency: 8,
        queue: 10_000,
        queue_timeout: Duration::from_secs(60),
    }
}

fn hook(url: Uri) -> Hook {
    Hook::new(Some(options(url)), &Egress::direct())
}

#[tokio::test]
async fn a_yes_lets_in_and_counts_for_a_while() {
    let mut server = Fixture::start(|_| Reply::Answer(StatusCode::OK, "[\"connect\"]".into())).await;
    let hook = hook(server.url("/authz"));
    assert_eq!(soon(hook.admits(&alice(), room(), Action::Connect)).await, Ok(true));
    assert_eq!(soon(hook.admits(&alice(), room(), Action::Connect)).await, Ok(true));
    let seen = server.next().await;
    let asked: Value = serde_json::from_slice(&seen.body).unwrap();
    let expected = json!({
        "subject": {"namespace": "example.org", "value": "alice"},
        "object": {"namespace": "example.org", "value": ["classrooms", ROOM]},
        "action": "connect",
    });
    assert_eq!(asked, expected);
    assert_eq!(seen.headers.get("authorization"), None);
    assert!(server.requests.try_recv().is_err(), "asked once");
}

#[tokio::test]
async fn its_token_goes_along_and_is_not_shown() {
    let mut server = Fixture::start(|_| Reply::Answer(StatusCode::OK, String::new())).await;
    let token = Some(Secret::new("s3cret"));
    let hook = Hook::new(Some(HookOptions { token, ..options(server.url("/")) }), &Egress::direct());
    assert_eq!(soon(hook.admits(&alice(), room(), Action::Connect)).await, Ok(true));
    assert_eq!(server.next().await.headers["authorization"], "Bearer s3cret");
    assert!(!format!("{hook:?}").contains("s3cret"));
}

#[tokio::test]
async fn an_empty_list_is_a_no_and_is_asked_again() {
    let answer = |number| if number == 0 { "[]" } else { "[\"connect\"]" };
    let server = Fixture::start(move |number| Reply::Answer(StatusCode::OK, answer(number).into())).await;
    let hook = hook(server.url("/"));
    assert_eq!(soon(hook.admits(&alice(), room(), Action::Connect)).await, Ok(false));
    assert_eq!(soon(hook.admits(&alice(), room(), Action::Connect)).await, Ok(true));
}

#[tokio::test]
async fn what_may_mend_itself_is_never_a_no() {
    let elsewhere = Fixture::start(|_| Reply::Answer(StatusCode::OK, String::new())).await;
    let server = Fixture::start({
        let target = elsewhere.url("/");
        move |_| Reply::Moved(target.clone())
    });
    assert_eq!(soon(hook(server.await.url("/")).admits(&alice(), room(), Action::Connect)).await, Err(HookError::Away));
    assert_eq!(elsewhere.connections(), 0, "nobody else is asked");
    let replies: [fn(usize) -> Reply; 6] = [
        |_| Reply::Answer(StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        |_| Reply::Answer(StatusCode::SERVICE_UNAVAILABLE, "[]".into()),
        |_| Reply::Answer(StatusCode::NO_CONTENT, String::new()),
        |_| Reply::Answer(StatusCode::OK, " ".repeat(MAX_ANSWER + 1)),
        |_| Reply::Hang,
        |_| Reply::Close,
    ];
    for (number, reply) in replies.into_iter().enumerate() {
        let server = Fixture::start(reply).await;
        assert_eq!(
            soon(hook(server.url("/")).admits(&alice(), room(), Action::Connect)).await,
            Err(HookError::Away),
            "{number}"
        );
    }
    let gone = Fixture::start(|_| Reply::Hang).await.url("/");
    assert_eq!(soon(hook(gone).admits(&alice(), room(), Action::Connect)).await, Err(HookError::Away));
    let busy = Fixture::start(|_| Reply::Answer(StatusCode::TOO_MANY_REQUESTS, String::new())).await;
    assert_eq!(soon(hook(busy.url("/")).admits(&alice(), room(), Action::Connect)).await, Err(HookError::Busy));
}

#[tokio::test]
async fn thousands_at_once_all_get_their_answer_a_few_at_a_time() {
    let server = Fixture::start(|_| Reply::Answer(StatusCode::OK, "[\"connect\"]".into())).await;
    let hook = hook(server.url("/"));
    let users: Vec<Claims> = (0..3_000).map(|number| user(&format!("user-{number}"))).collect();
    let answers = users.iter().map(|user| hook.admits(user, room(), Action::Connect));
    let answers = tokio::time::timeout(Duration::from_secs(60), futures_util::future::join_all(answers)).await.unwrap();
    assert!(answers.iter().all(|answer| *answer == Ok(true)));
    assert!(server.connections() <= 8, "{}", server.connections());
}

#[tokio::test]
async fn the_same_question_is_asked_once_however_many_ask() {
    let mut server = Fixture::start(|_| Reply::Answer(StatusCode::OK, "[]".into())).await;
    let hook = hook(server.url("/"));
    let alice = alice();
    let answers =
        soon(futures_util::future::join_all((0..100).map(|_| hook.admits(&alice, room(), Action::Connect)))).await;
    assert_eq!(answers, [Ok(false); 100]);
    server.next().await;
    assert!(server.requests.try_recv().is_err(), "asked once");
    assert_eq!(hook.0.as_ref().unwrap().in_flight.lock().questions.len(), 0, "nothing is left behind");
}

#[tokio::test]
async fn a_caller_that_gives_up_does_not_take_the_answer_of_the_others_with_it() {
    let asked = Arc::new(AtomicUsize::new(0));
    let counter = Arc::clone(&asked);
    let server = Fixture::start(move |_| {
        counter.fetch_add(1, Ordering::SeqCst);
        Reply::Answer(StatusCode::OK, String::new())
    });
    let server = server.await;
    let hook = hook(server.url("/"));
    let alice = alice();
    let mut second = std::pin::pin!(hook.admits(&alice, room(), Action::Connect));
    {
        let mut first = std::pin::pin!(hook.admits(&alice, room(), Action::Connect));
        assert!(futures_util::poll!(&mut first).is_pending() && futures_util::poll!(&mut second).is_pending());
    }
    assert_eq!(soon(second).await, Ok(true));
    assert_eq!(asked.load(Ordering::SeqCst), 1);
}

#[tokio::test]
async fn more_than_the_queue_takes_and_who_waits_too_long_is_told_to_come_again() {
    let mut server = Fixture::start(|_| Reply::Hang).await;
    let queue_timeout = Duration::from_millis(50);
    let hook = Hook::new(
        Some(HookOptions { concurrency: 1, queue: 1, queue_timeout, ..options(server.url("/")) }),
        &Egress::direct(),
    );
    let users = ["a", "b", "c"].map(user);
    let mut asked = std::pin::pin!(hook.admits(&users[0], room(), Action::Connect));
    assert!(futures_util::poll!(&mut asked).is_pending());
    let mut waits = std::pin::pin!(hook.admits(&users[1], room(), Action::Connect));
    assert!(futures_util::poll!(&mut waits).is_pending());
    assert_eq!(hook.admits(&users[2], room(), Action::Connect).await, Err(HookError::Busy), "the queue is full");
    assert_eq!(soon(waits).await, Err(HookError::Busy), "it waited too long");
    assert_eq!(soon(asked).await, Err(HookError::Away));
    server.next().await;
    assert!(server.requests.try_recv().is_err(), "one request at a time");
}

#[tokio::test]
async fn without_a_hook_the_token_decides() {
    assert_eq!(Hook::default().admits(&alice(), room(), Action::Connect).await, Ok(true));
}
