//! A PostgreSQL that is stopped, runs again, or dies.
use std::{sync::Arc, time::Duration};

use rollcall_loadtest::servers::{Postgres, psql};
use rollcall_store::{
    Closed, Lease, LeftReason, Open, Opened, Store, StoreError,
    group_commit::{GroupCommit, Options},
};
use tokio::{task::JoinSet, time::Instant};

use crate::world::{LEASE, Member, classroom, connect, register, start_server};

async fn start() -> (Postgres, Arc<dyn Store>, Lease) {
    let server = start_server().expect("a server");
    let store = connect(&server.url());
    store.migrate().await.expect("migrated");
    let lease = register(&*store, LEASE).await;
    (server, store, lease)
}

fn group(store: &Arc<dyn Store>, lease: Lease) -> GroupCommit<Open, Option<Opened>> {
    use std::hash::{BuildHasher, RandomState};
    static HASHER: std::sync::LazyLock<RandomState> = std::sync::LazyLock::new(RandomState::new);
    let store = store.clone();
    GroupCommit::spawn(
        &rollcall_base::tasks::Tasks::default(),
        "open",
        Options::default(),
        |open| HASHER.hash_one((open.classroom, &open.agent)),
        move |batch| {
            let store = store.clone();
            async move { store.open(lease, &batch).await }
        },
    )
}

async fn recovered(store: &dyn Store, since: Instant) {
    while store.ping().await.is_err() {
        assert!(since.elapsed() < Duration::from_secs(3), "it recovers by itself");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_hung_server_answers_within_two_seconds_and_recovers_within_three() {
    let (server, store, lease) = start().await;
    server.pause().expect("paused");
    let opens = group(&store, lease);
    let start = Instant::now();
    let mut calls = JoinSet::new();
    for n in 0..600 {
        let (opens, open) = (opens.clone(), Member::new(classroom(), &format!("web.u{n}")).open());
        calls.spawn(async move { (opens.call(open).await, start.elapsed()) });
    }
    while let Some(call) = calls.join_next().await {
        let (answer, took) = call.expect("no panic");
        assert!(matches!(answer, Err(StoreError::Unavailable(_) | StoreError::Overloaded)), "{answer:?}");
        assert!(took < Duration::from_secs(2), "{took:?}");
    }
    // After every connection is lost, new ones cannot be made either.
    let start = Instant::now();
    assert!(matches!(store.renew_lease(lease, LEASE).await, Err(StoreError::Unavailable(_))));
    assert!(start.elapsed() < Duration::from_secs(2));
    server.resume().expect("resumed");
    recovered(&*store, Instant::now()).await;
    store.renew_lease(lease, LEASE).await.expect("an expired lease, and nobody took it");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn what_follows_a_write_of_unknown_outcome_sees_how_it_ended() {
    let (server, store, lease) = start().await;
    for round in 0..5 {
        let members: Vec<_> = (0..4).map(|n| Member::new(classroom(), &format!("web.u{round}-{n}"))).collect();
        server.pause().expect("paused");
        let mut opens = JoinSet::new();
        for member in members.clone() {
            let store = store.clone();
            opens.spawn(async move { store.open(lease, &[member.open()]).await });
        }
        while let Some(answer) = opens.join_next().await {
            assert!(matches!(answer.expect("no panic"), Err(StoreError::Unavailable(_))));
        }
        server.resume().expect("resumed");
        let resumed = Instant::now();
        for member in &members {
            let close = [member.close(LeftReason::Lost)];
            while let Err(error) = store.close(lease, &close).await {
                assert!(matches!(error, StoreError::Unavailable(_)), "{error:?}");
                assert!(resumed.elapsed() < Duration::from_secs(3));
            }
        }
        let rows = "select (select count(*) from agent_session), (select count(*) from agent_session_history) * 2 \
            = (select count(*) from outbox), (select count(*) from pg_stat_activity where wait_event = 'ClientRead')";
        let rows = psql(&server.url(), rows).expect("answered");
        assert!(rows.starts_with("0|t|"), "a write came after its close: {rows}");
    }
}

#[tokio::test]
async fn a_call_that_is_dropped_gives_no_busy_connection_back() {
    let (_server, store, lease) = start().await;
    let alice = Member::new(classroom(), "web.alice");
    for _ in 0..20 {
        let batch = [alice.open()];
        let call = store.open(lease, &batch);
        tokio::time::timeout(Duration::from_micros(300), call).await.ok();
    }
    let closed = store.close(lease, &[alice.close(LeftReason::Closed)]).await.expect("answered");
    assert!(matches!(closed[0], Closed::Left | Closed::NotOwner));
    assert!(store.count_agents(&[alice.classroom]).await.expect("answered") == [0]);
}

#[tokio::test]
async fn a_killed_server_is_found_again() {
    let (mut server, store, lease) = start().await;
    let alice = Member::new(classroom(), "web.alice");
    let opened = store.open(lease, &[alice.open()]).await.expect("opened");
    server.kill().expect("killed");
    assert!(matches!(store.ping().await, Err(StoreError::Unavailable(_))));
    server.restart().expect("restarted");
    recovered(&*store, Instant::now()).await;
    let again = store.open(lease, &[alice.open()]).await.expect("the lease holds");
    assert_eq!(again, opened);
}

#[tokio::test]
async fn a_server_that_takes_no_writes_answers_a_ping_and_no_probe() {
    let (server, store, lease) = start().await;
    store.probe(lease, LEASE).await.expect("written");
    let set = |what: &str| {
        psql(&server.url(), &format!("alter system {what}")).expect("set");
        psql(&server.url(), "select pg_reload_conf()").expect("read again");
    };
    set("set default_transaction_read_only = on");
    let start = Instant::now();
    let refused = loop {
        store.ping().await.expect("answered");
        match store.probe(lease, LEASE).await {
            Ok(()) => assert!(start.elapsed() < Duration::from_secs(10), "it took a write"),
            Err(error) => break error,
        }
    };
    let text = refused.to_string();
    assert!(text.contains("does not allow writes") || text.contains("read-only"), "{text}");
    set("reset default_transaction_read_only");
    let start = Instant::now();
    while store.probe(lease, LEASE).await.is_err() {
        assert!(start.elapsed() < Duration::from_secs(10), "it takes writes again");
    }
}
