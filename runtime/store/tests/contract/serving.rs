//! One process serves an SQLite file. The next process takes over what it leaves behind, as from a dead node.
use std::sync::Arc;

use rollcall_store::{Change, LeftReason, Registration, StoreError, sqlite::SqliteStore};

use crate::world::{LEASE, Member, World, classroom, is_fenced, register};

#[tokio::test]
async fn a_second_process_may_not_serve_the_file() {
    let world = World::sqlite().await;
    let second = world.another();
    let registration = Registration { label: "second".to_owned(), lease: LEASE, standalone: true, process: None };
    let answer = second.register(&registration).await;
    assert!(matches!(&answer, Err(StoreError::Refused(why)) if why.contains("another rollcall")), "{answer:?}");
    world.open(&Member::new(classroom(), "web.alice")).await;
}

#[tokio::test]
async fn what_an_earlier_process_left_can_be_taken_over_and_ends_with_its_lease() {
    let mut world = World::sqlite().await;
    let here = classroom();
    let lesson = world.lesson("algebra-1", here, &[]).await;
    let [alice, bob] = ["web.alice", "web.bob"].map(|name| Member::new(here, name));
    let session = world.open(&alice).await.session;
    world.join(alice.join(session, &lesson)).await;
    let session_of_bob = world.open(&bob).await.session;
    let before = world.lease;
    world.store = Arc::new(SqliteStore::open(world.path()).expect("opened"));
    world.lease = register(&*world.store, LEASE).await;

    assert!(is_fenced(world.store.open(before, &[bob.open()]).await));
    let reap = async || world.store.reap(world.lease, 10).await.expect("answered");
    assert_eq!(reap().await, 0, "the lease has not ended");
    let again = Member::new(here, "web.bob");
    assert_eq!(world.open(&again).await.session, session_of_bob, "bob came back in time");

    world.sql("update node set lease_until = '2000-01-01' where id < (select max(id) from node)");
    assert_eq!(reap().await, 1);
    assert_eq!(world.sql("select sid from agent_session"), again.sid.to_string());
    assert_eq!(
        world.sql("select id || reason || user_id || lesson_id from agent_session_history"),
        format!("{session}node_lostalicealgebra-1")
    );
    let stale_fields = world.store.stale_fields(world.lease.node, 10).await.expect("read");
    assert_eq!(stale_fields.iter().map(|(_, stale)| stale.field.sid).collect::<Vec<_>>(), [alice.sid]);
    let changes: Vec<_> = world.events().await.into_iter().map(|row| row.change).collect();
    assert_eq!(changes[2..], [Change::Left(Some(LeftReason::NodeLost))]);
    assert_eq!(reap().await, 0);
    assert_eq!(world.sql("select count(*) from node"), "1");
}
