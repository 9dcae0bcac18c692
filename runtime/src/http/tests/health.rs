//! `/readyz`, with backends that answer, fail and hang.
use std::{
    collections::BTreeMap,
    sync::atomic::{AtomicUsize, Ordering},
};

use async_trait::async_trait;
use rollcall_schema::{LessonId, UserId};
use serde_json::json;

use super::*;
use crate::{
    auth::{Keyring, Location, Sources},
    http_client::{
        egress::Egress,
        fixture::{Fixture, Reply},
    },
};
use rollcall_keys::{EarlierField, FailedJoin, KeyEntry, KeysError, StaleField};
use rollcall_store::postgres::{PostgresOptions, PostgresStore};

/// A store of keys that never answers a ping, and counts the pings.
#[derive(Default)]
struct Mute(AtomicUsize);

#[async_trait]
impl LessonKeys for Mute {
    fn name(&self) -> &'static str {
        "redis"
    }
    async fn ping(&self) -> Result<(), KeysError> {
        self.0.fetch_add(1, Ordering::SeqCst);
        std::future::pending().await
    }
    async fn join(&self, _: &KeyEntry, _: Option<&EarlierField>) -> Result<bool, FailedJoin> {
        std::future::pending().await
    }
    async fn remove(&self, _: &[StaleField]) -> Result<(), KeysError> {
        std::future::pending().await
    }
    async fn seats(&self, _: &LessonId) -> Result<BTreeMap<u32, String>, KeysError> {
        std::future::pending().await
    }
    async fn erase(&self, _: &UserId, _: &[LessonId]) -> Result<(), KeysError> {
        std::future::pending().await
    }
    async fn repair(&self, _: &[KeyEntry]) -> Result<bool, KeysError> {
        std::future::pending().await
    }
    async fn probe(&self, _: &str) -> Result<bool, KeysError> {
        std::future::pending().await
    }
}

#[tokio::test]
async fn a_node_is_ready_until_it_drains() {
    let bench = Bench::new().await;
    let up = |name: &str| json!({"name": name, "up": true});
    let backends =
        json!({"sql": up("sqlite"), "keys": up("memory"), "bus": up("memory"), "identity": up("token keys")});
    let ready = json!({"ready": true, "draining": false, "backends": backends});
    assert_eq!(bench.get("/readyz").await, (StatusCode::OK, ready));
    bench.draining.store(true, Ordering::SeqCst);
    let draining = json!({"ready": false, "draining": true, "backends": backends});
    assert_eq!(bench.get("/readyz").await, (StatusCode::SERVICE_UNAVAILABLE, draining), "at once");
    assert_eq!(bench.get("/healthz").await.0, StatusCode::OK);
}

#[tokio::test]
async fn keys_that_hang_are_named_and_asked_once() {
    let mute = Arc::new(Mute::default());
    let bench = Bench::with(None, Arc::clone(&mute) as Arc<dyn LessonKeys>).await;
    let answers = futures_util::future::join_all((0..20).map(|_| bench.get("/readyz"))).await;
    for (status, body) in answers {
        let keys = json!({"name": "redis", "up": false, "problem": "no answer within 1.5s"});
        assert_eq!((status, &body["backends"]["keys"]), (StatusCode::OK, &keys));
    }
    assert_eq!(mute.0.load(Ordering::SeqCst), 1);
    let request = Request::get("/readyz").body(()).unwrap();
    let body = probes::answer(&bench.admin.health, &request).await.into_body().collect().await.unwrap().to_bytes();
    let up = |name: &str, up: bool| json!({"name": name, "up": up});
    let backends = [up("sqlite", true), up("redis", false), up("memory", true), up("token keys", true)];
    let body: Value = serde_json::from_slice(&body).unwrap();
    assert_eq!(body, json!({"ready": true, "draining": false, "backends": backends}), "probes learn no problem's text");
}

#[tokio::test]
async fn a_node_that_can_let_nobody_in_is_not_ready() {
    let key = r#"{"keys":[{"kty":"OKP","crv":"Ed25519","x":"11qYAYKxCrfVS_7TyWQHOg7hcvPapiMlrwIaaPcHURo"}]}"#;
    let answer = move |number| match number {
        0 => Reply::Answer(StatusCode::BAD_GATEWAY, String::new()),
        _ => Reply::Answer(StatusCode::OK, key.to_owned()),
    };
    let provider = Fixture::start(answer).await;
    let jwks = vec![("a".to_owned(), Location::Url(provider.url("/")))];
    let sources = Sources::from_secret(Secret::new("unused"));
    let keyring = Arc::new(Keyring::new(Sources { hs256: None, jwks, ..sources }, &Egress::direct()));
    let health = || async {
        let bench = Bench::new().await;
        let (bus, kv) = (Arc::clone(&bench.bus), Arc::new(MemoryKeys::new()));
        let health = Health::new(Arc::clone(&bench.store), kv, bus, Arc::clone(&bench.draining));
        health.with_identity(Arc::clone(&keyring)).readiness().await
    };
    assert_eq!(keyring.load().await.len(), 1);
    let readiness = health().await;
    assert!(!readiness.ready && !readiness.backends.identity.up && readiness.backends.sql.up);
    assert!(keyring.load().await.is_empty());
    assert!(health().await.ready);
}

#[tokio::test]
async fn without_sql_a_node_is_not_ready() {
    // No server listens on port 1.
    let store = PostgresStore::connect(&PostgresOptions::new("postgres://nobody@127.0.0.1:1/x")).unwrap();
    let (bus, _feed) = MemoryBus::start(LogLimits::default());
    let draining = Arc::new(AtomicBool::new(false));
    let health = Health::new(Arc::new(store), Arc::new(MemoryKeys::new()), Arc::new(bus), draining);
    let readiness = health.readiness().await;
    assert!(!readiness.ready && !readiness.backends.sql.up && readiness.backends.bus.up);
    assert_eq!(readiness.backends.sql.name, "postgres");
}

/// The database answers a ping, but refuses a write.
#[tokio::test]
async fn a_node_whose_database_takes_no_write_is_not_ready() {
    let bench = Bench::new().await;
    let lease = tokio::sync::watch::Sender::new(bench.lease);
    let health = || {
        let (kv, draining) = (Arc::new(MemoryKeys::new()), Arc::clone(&bench.draining));
        let health = Health::new(Arc::clone(&bench.store), kv, Arc::clone(&bench.bus), draining);
        health.with_lease(lease.subscribe(), Duration::from_secs(15))
    };
    assert!(health().readiness().await.ready);
    let other = rusqlite::Connection::open(bench._folder.path().join("x.db")).unwrap();
    other.execute_batch("begin immediate").unwrap();
    let readiness = health().readiness().await;
    let problem = readiness.backends.sql.problem.unwrap_or_default();
    assert!(!readiness.ready && !readiness.backends.sql.up && bench.store.ping().await.is_ok());
    assert!(problem.contains("another program holds it") || problem.contains("no answer within"), "{problem}");
    other.execute_batch("rollback").unwrap();
    assert!(health().readiness().await.ready);

    // Without a valid lease a node may not write.
    lease.send_replace(rollcall_store::Lease { epoch: rollcall_schema::Epoch(bench.lease.epoch.0 + 1), ..bench.lease });
    assert!(!health().readiness().await.ready);
}
