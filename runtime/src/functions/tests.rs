//! Calls of one function, which is a service that the test starts.
use std::{sync::Arc, time::Duration};

use bytes::Bytes;
use futures_util::future::join_all;
use hyper::StatusCode;

use super::{
    BreakerOptions, FunctionOptions,
    answer::Answer,
    function::{CallError, Function},
};
use crate::http_client::{
    egress::Egress,
    fixture::{Fixture, Reply, soon},
    signature::{RequestId, SigningKey},
};

fn function(server: &Fixture, change: impl FnOnce(&mut FunctionOptions)) -> Function {
    let mut options = FunctionOptions {
        event: "vote".into(),
        url: server.url("/vote"),
        timeout: Duration::from_secs(5),
        concurrency: 8,
        queue: 8,
        max_answer: 1024,
        max_events: 10,
        breaker: BreakerOptions { failures: 1_000, pause: Duration::from_secs(1) },
    };
    change(&mut options);
    Function::new(
        "vote",
        options,
        SigningKey::parse("whsec_MfKQ9r8GKYqrTwjUPD8ILPZIo2LaLaSw").unwrap(),
        &Egress::direct(),
    )
}

fn fine() -> Reply {
    Reply::Answer(StatusCode::OK, r#"{"data":{}}"#.into())
}

async fn call(function: &Function) -> Result<Answer, CallError> {
    soon(function.call(&RequestId::random(), Bytes::from_static(b"{}"), None)).await.map_err(|error| error.why)
}

#[tokio::test]
async fn a_connection_is_kept_and_the_request_signed() {
    let mut server = Fixture::start(|_| fine()).await;
    let function = function(&server, |_| {});
    for _ in 0..3 {
        assert!(matches!(call(&function).await, Ok(Answer::Success { .. })));
        let headers = server.next().await.headers;
        assert!(
            ["webhook-id", "webhook-timestamp", "webhook-signature"].iter().all(|name| headers.contains_key(*name))
        );
    }
    assert_eq!(server.connections(), 1);
}

#[tokio::test]
async fn a_request_without_an_answer_is_not_sent_again() {
    // The first call opens the connection. The second call uses it, and the server closes it.
    let mut server = Fixture::start(|number| if number == 1 { Reply::Close } else { fine() }).await;
    let function = function(&server, |_| {});
    assert!(call(&function).await.is_ok());
    assert!(matches!(call(&function).await, Err(CallError::NoAnswer(_))));
    assert!(call(&function).await.is_ok());
    for _ in 0..3 {
        server.next().await;
    }
    assert!(server.requests.try_recv().is_err(), "three calls, three requests");
}

#[tokio::test]
async fn calls_wait_for_their_turn_up_to_a_number() {
    let mut server = Fixture::start(|number| if number < 2 { Reply::Hang } else { fine() }).await;
    let function = Arc::new(function(&server, |options| {
        (options.concurrency, options.queue, options.timeout) = (2, 3, Duration::from_millis(300));
    }));
    let calls = (0..8).map(|_| call(&function));
    let mut results = join_all(calls).await;
    // At least three calls were refused at once. The two calls that were sent had no answer in time. No call that
    // waited for them was sent too early.
    assert_eq!(results.iter().filter(|result| matches!(result, Err(CallError::NoAnswer(_)))).count(), 2);
    results.retain(|result| matches!(result, Err(CallError::Busy)));
    assert!(results.len() >= 3, "{results:?}");
    server.next().await;
    server.next().await;
    assert!(call(&function).await.is_ok(), "there is room again");
}

#[tokio::test]
async fn an_open_circuit_sends_nothing() {
    let mut server = Fixture::start(|_| Reply::Answer(StatusCode::SERVICE_UNAVAILABLE, String::new())).await;
    let function = function(&server, |options| {
        options.breaker = BreakerOptions { failures: 3, pause: Duration::from_secs(3_600) }
    });
    for _ in 0..3 {
        assert!(matches!(call(&function).await, Err(CallError::Wrong(_))));
        server.next().await;
    }
    assert!(matches!(call(&function).await, Err(CallError::CircuitOpen)));
    assert!(server.requests.try_recv().is_err());
}
