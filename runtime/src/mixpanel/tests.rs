//! Tests with a server that answers, fails, hangs and closes connections.
use std::collections::HashSet;

use metrics_exporter_prometheus::{PrometheusBuilder, PrometheusHandle};
use serde_json::Value;
use tokio::sync::oneshot;

use super::*;
use crate::http_client::{
    egress::Egress,
    fixture::{Fixture, Reply, soon},
};

const QUICK: Pace = Pace { attempts: 3, first: Duration::from_millis(1) };

fn taken() -> Reply {
    Reply::Answer(StatusCode::OK, "1".into())
}

fn to(server: &Fixture) -> (Mixpanel, Sender) {
    let config = MixpanelConfig { token: Secret::new("project"), url: server.url("/track") };
    Mixpanel::with(config, Client::new(&Egress::direct()).timeout(Duration::from_millis(200)), QUICK)
}

fn user(number: usize) -> UserId {
    UserId::parse(&format!("user-{number}")).unwrap()
}

fn events(body: &[u8]) -> Vec<Value> {
    serde_json::from_slice(body).unwrap()
}

/// Runs a sender to its end with a separate recorder, and returns the counted metrics as text.
async fn counted(sender: Sender, flush: Duration) -> String {
    let recorder = PrometheusBuilder::new().build_recorder();
    let handle: PrometheusHandle = recorder.handle();
    let guard = metrics::set_default_local_recorder(&recorder);
    soon(sender.run(std::future::ready(()), flush)).await;
    drop(guard);
    handle.render()
}

#[tokio::test]
async fn a_reconnect_arrives_in_the_form_of_track() {
    let mut server = Fixture::start(|_| taken()).await;
    let (mixpanel, sender) = to(&server);
    mixpanel.track("reconnect", &user(1));
    let (stop, stopped) = oneshot::channel::<()>();
    let running = tokio::spawn(sender.run(async { drop(stopped.await) }, Duration::from_secs(5)));
    let request = server.next().await;
    assert_eq!(request.uri, "/track");
    let events = events(&request.body);
    assert_eq!(events.len(), 1);
    assert_eq!(events[0]["event"], "reconnect");
    let properties = &events[0]["properties"];
    assert_eq!((&properties["token"], &properties["distinct_id"]), (&"project".into(), &"user-1".into()));
    assert!(properties["time"].as_u64().unwrap().abs_diff(unix_now()) < 60);
    let insert_id = properties["$insert_id"].as_str().unwrap();
    assert!(insert_id.len() <= 36 && insert_id.bytes().all(|b| b.is_ascii_alphanumeric() || b == b'-'));
    drop(stop);
    soon(running).await.unwrap();
}

#[tokio::test]
async fn batches_are_of_at_most_fifty_and_lose_nobody() {
    let mut server = Fixture::start(|_| taken()).await;
    let (mixpanel, sender) = to(&server);
    (0..120).for_each(|number| mixpanel.track("reconnect", &user(number)));
    assert!(!counted(sender, Duration::from_secs(5)).await.contains("dropped"));
    let batches: Vec<_> = std::iter::from_fn(|| server.requests.try_recv().ok()).map(|r| events(&r.body)).collect();
    assert_eq!(batches.iter().map(Vec::len).collect::<Vec<_>>(), [50, 50, 20]);
    let users: HashSet<_> = batches.iter().flatten().map(|event| event["properties"]["distinct_id"].clone()).collect();
    assert_eq!(users.len(), 120);
}

#[tokio::test]
async fn failures_hangs_and_broken_connections_are_tried_again_with_the_same_id() {
    type Script = fn(usize) -> Reply;
    let scripts: [Script; 4] = [
        |_| Reply::Answer(StatusCode::INTERNAL_SERVER_ERROR, String::new()),
        |_| Reply::Answer(StatusCode::TOO_MANY_REQUESTS, String::new()),
        |_| Reply::Hang,
        |_| Reply::Close,
    ];
    for fails in scripts {
        let mut server = Fixture::start(move |number| if number < 2 { fails(number) } else { taken() }).await;
        let (mixpanel, sender) = to(&server);
        mixpanel.track("reconnect", &user(1));
        let counted = counted(sender, Duration::from_secs(5)).await;
        assert!(!counted.contains("dropped"), "{counted}");
        assert!(counted.contains("backend_errors_total{backend=\"mixpanel\",operation=\"track\"} 2"), "{counted}");
        let first = server.next().await.body;
        assert_eq!(server.next().await.body, first);
        assert_eq!(server.next().await.body, first);
    }
}

#[tokio::test]
async fn what_fails_permanently_is_dropped_and_counted() {
    let replies: [fn() -> Reply; 3] = [
        || Reply::Answer(StatusCode::BAD_GATEWAY, String::new()),
        || Reply::Answer(StatusCode::BAD_REQUEST, String::new()),
        || Reply::Answer(StatusCode::OK, "0".into()),
    ];
    for (reply, attempts) in replies.into_iter().zip([3, 1, 1]) {
        let mut server = Fixture::start(move |_| reply()).await;
        let (mixpanel, sender) = to(&server);
        (0..7).for_each(|number| mixpanel.track("reconnect", &user(number)));
        let counted = counted(sender, Duration::from_secs(5)).await;
        assert!(counted.contains("dropped_total{reason=\"mixpanel_failed\"} 7"), "{counted}");
        assert_eq!(std::iter::from_fn(|| server.requests.try_recv().ok()).count(), attempts);
    }
}

#[tokio::test]
async fn a_full_queue_drops_and_counts_and_never_waits() {
    let server = Fixture::start(|_| Reply::Hang).await;
    let (mixpanel, sender) = to(&server);
    let recorder = PrometheusBuilder::new().build_recorder();
    metrics::with_local_recorder(&recorder, || {
        (0..QUEUE + 3).for_each(|number| mixpanel.track("reconnect", &user(number)))
    });
    let counted = recorder.handle().render();
    assert!(counted.contains("dropped_total{reason=\"mixpanel_queue_full\"} 3"), "{counted}");
    drop(sender);
}

#[tokio::test]
async fn a_shutdown_waits_no_longer_than_its_deadline() {
    let server = Fixture::start(|_| Reply::Hang).await;
    let (mixpanel, sender) = to(&server);
    (0..60).for_each(|number| mixpanel.track("reconnect", &user(number)));
    let counted = counted(sender, Duration::from_millis(100)).await;
    assert!(counted.contains("dropped_total{reason=\"mixpanel_shut_down\"} 60"), "{counted}");
    mixpanel.track("reconnect", &user(1)); // tells nobody, and harms nobody
}

#[tokio::test]
async fn without_a_token_nothing_is_sent() {
    Mixpanel::disabled().track("reconnect", &user(1));
}
