//! One process serves an SQLite file; what it leaves behind is swept by the next.
use std::sync::Arc;

use rollcall_runtime::store::{Change, LeftReason, Registration, StoreError, sqlite::SqliteStore};

use crate::world::{LEASE, Member, World, classroom, is_fenced, register};

#[tokio::test]
async fn a_second_process_may_not_serve_the_file() {
    let world = World::sqlite().await;
    let second = world.another();
    let registration = Registration { label: "second".to_owned(), lease: LEASE, solitary: true };
    let answer = second.register(&registration).await;
    assert!(matches!(&answer, Err(StoreError::Refused(why)) if why.contains("another rollcall")), "{answer:?}");
    world.open(&Member::new(classroom(), "web.alice")).await;
}

#[tokio::test]
async fn what_an_earlier_process_left_is_swept() {
    let mut world = World::sqlite().await;
    let here = classroom();
    let lesson = world.lesson("algebra-1", here, &[]).await;
    let [alice, bob] = ["web.alice", "web.bob"].map(|name| Member::new(here, name));
    let session = world.open(&alice).await.session;
    world.join(alice.join(session, &lesson)).await;
    world.open(&bob).await;
    let before = world.lease;
    world.store = Arc::new(SqliteStore::open(world.path()).expect("opened"));
    world.lease = register(&*world.store, LEASE).await;

    assert!(is_fenced(world.store.open(before, &[bob.open()]).await));
    assert_eq!(world.sql("select count(*) from agent_session"), "0");
    assert_eq!(world.sql("select distinct reason from agent_session_history"), "node_lost");
    let changes: Vec<_> = world.events().await.into_iter().map(|row| row.change).collect();
    assert_eq!(changes[2..], [Change::Left(LeftReason::NodeLost), Change::Left(LeftReason::NodeLost)]);
    let reaped = world.store.reap(world.lease, 10).await.expect("answered");
    assert_eq!(reaped.sessions, 2);
    assert_eq!(reaped.placed.iter().map(|placed| placed.sid).collect::<Vec<_>>(), [alice.sid]);
    assert_eq!(world.store.reap(world.lease, 10).await.expect("answered").sessions, 0);
}
