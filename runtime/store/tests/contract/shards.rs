//! The claims of several nodes on the shards of one PostgreSQL's outbox.
use std::{sync::Arc, time::Duration};

use rollcall_schema::Shards;
use rollcall_store::{Lease, Outbox, Store, StoreError};
use tokio::time::{Instant, timeout};

use crate::{
    nodes::two,
    world::{LEASE, Member, World, classroom, register},
};

/// Makes a node look silent for a long time.
fn silence(world: &World, lease: Lease) {
    world.sql(&format!("update node set renewed_at = renewed_at - interval '1 minute' where id = {}", lease.node));
}

/// A node and its relay.
type Node = (Arc<dyn Store>, Lease, Box<dyn Outbox>);

async fn relay(store: &dyn Store, lease: Lease) -> Box<dyn Outbox> {
    store.open_outbox(lease).await.expect("an outbox")
}

async fn claim(relay: &mut dyn Outbox) -> usize {
    relay.claim().await.expect("claimed")
}

#[tokio::test]
async fn a_classrooms_shard_is_what_the_database_says() {
    let world = World::postgres().await;
    let mut classrooms = Vec::new();
    for n in 0..20 {
        classrooms.push(classroom());
        world.open(&Member::new(classrooms[n], &format!("web.u{n}"))).await;
    }
    let rows = world.sql("select shard from outbox order by id");
    let stored: Vec<Shards> = rows.lines().map(|shard| Shards::one(shard.parse().expect("a number"))).collect();
    assert_eq!(stored, classrooms.into_iter().map(Shards::of).collect::<Vec<_>>());
}

#[tokio::test]
async fn relays_share_the_shards() {
    let world = World::postgres().await;
    let mut nodes: Vec<Node> = Vec::new();
    for _ in 0..3 {
        let store = world.another();
        let lease = register(&*store, LEASE).await;
        let mut relay = relay(&*store, lease).await;
        claim(&mut *relay).await;
        nodes.push((store, lease, relay));
    }
    let mut held = [0; 3];
    for _ in 0..3 {
        for (held, (.., relay)) in held.iter_mut().zip(&mut nodes) {
            *held = claim(&mut **relay).await;
        }
    }
    held.sort_unstable();
    assert_eq!(held, [2, 3, 3]);
    let of = |lease: Lease| world.sql(&format!("select count(*) from outbox_shard where node_id = {}", lease.node));
    for (store, lease, relay) in &mut nodes {
        let held = claim(&mut **relay).await;
        assert_eq!(of(*lease), held.to_string());
        assert_eq!(store.held_shards().borrow().numbers().count(), held);
    }
    for (_, lease, relay) in nodes.drain(1..) {
        silence(&world, lease);
        drop(relay);
    }
    assert_eq!(claim(&mut *nodes[0].2).await, 8, "those of silent nodes are free");
}

#[tokio::test]
async fn a_relay_that_stands_still_loses_its_shards() {
    let (world, other, lease) = two().await;
    let mut still = world.outbox().await;
    world.open(&Member::new(classroom(), "web.alice")).await;
    let mut relay = relay(&*other, lease).await;
    assert_eq!(claim(&mut *relay).await, 0, "it has just renewed them");
    silence(&world, world.lease);
    assert_eq!(claim(&mut *relay).await, 8);
    assert_eq!(relay.read(1).await.expect("read").len(), 1);
    // The node renews its lease again, but its claims are gone.
    world.store.renew_lease(world.lease, LEASE).await.expect("renewed");
    let deadline = Instant::now() + LEASE;
    let error = loop {
        match still.read(1).await {
            Ok(rows) => assert_eq!(rows, []),
            Err(error) => break error,
        }
        assert!(Instant::now() < deadline, "it does not find out");
    };
    assert!(matches!(error, StoreError::Unavailable(_)), "{error}");
    // The node's next relay shares the shards with another.
    let mut anew = world.store.open_outbox(world.lease).await.expect("an outbox");
    while claim(&mut *anew).await < 4 {
        claim(&mut *relay).await;
        assert!(Instant::now() < deadline, "it gets its share");
    }
}

#[tokio::test]
async fn heartbeats_renew_claims_and_show_what_is_to_change() {
    let (world, other, lease) = two().await;
    let mut first = world.outbox().await;
    let renewed = || world.sql(&format!("select renewed_at from node where id = {}", world.lease.node));
    let statements = || world.sql("select sum(generation) from outbox_shard");
    let beat = async || drop(world.store.renew_lease(world.lease, LEASE).await.expect("renewed"));
    beat().await;
    let (before, deadline) = (renewed(), Instant::now() + LEASE);
    while renewed() == before {
        beat().await;
        assert!(Instant::now() < deadline, "it is renewed");
    }
    assert_eq!(claim(&mut *first).await, 8);
    let mut second = relay(&*other, lease).await;
    while claim(&mut *second).await < 4 {
        beat().await;
        claim(&mut *first).await;
        assert!(Instant::now() < deadline, "it gets its share");
    }
    assert_eq!(statements(), "12");
    silence(&world, lease);
    while claim(&mut *first).await < 8 {
        beat().await;
        assert!(Instant::now() < deadline, "those of a silent node are free");
    }
    assert_eq!(statements(), "16");
}

#[tokio::test]
async fn what_an_earlier_relay_of_the_node_has_under_way_claims_nothing() {
    let world = World::postgres().await;
    let mut earlier = world.outbox().await;
    let mut later = relay(&*world.store, world.lease).await;
    assert_eq!(claim(&mut *later).await, 8);
    assert!(matches!(earlier.claim().await, Err(StoreError::Unavailable(_))));
    assert_eq!(world.sql("select count(*), min(generation) from outbox_shard where node_id is not null"), "8|2");
    world.store.release_lease(world.lease).await.expect("released");
    assert!(later.claim().await.is_err());
    let fenced = world.store.open_outbox(world.lease).await;
    assert!(matches!(fenced.err(), Some(StoreError::Fenced)));
}

#[tokio::test]
async fn a_relay_that_publishes_nothing_leaves_it_to_others() {
    let (world, other, lease) = two().await;
    let mut stuck = world.outbox().await;
    world.open(&Member::new(classroom(), "web.alice")).await;
    let deadline = Instant::now() + LEASE;
    // The only relay does not yield.
    let since = Instant::now();
    while since.elapsed() < Duration::from_millis(1500) {
        assert_eq!(claim(&mut *stuck).await, 8);
        assert_eq!(stuck.read(10).await.expect("read").len(), 1);
    }
    let mut other = relay(&*other, lease).await;
    while claim(&mut *other).await < 8 {
        claim(&mut *stuck).await;
        stuck.read(10).await.expect("read");
        assert!(Instant::now() < deadline, "it gives its shards back");
    }
    let row = other.read(10).await.expect("read").remove(0);
    other.delete(&[row.id]).await.expect("deleted");
    // The relay takes shards again later.
    while claim(&mut *stuck).await < 4 {
        claim(&mut *other).await;
        assert!(Instant::now() < deadline, "it comes back");
    }
    drop(other);
    silence(&world, lease);
    assert_eq!(claim(&mut *stuck).await, 8, "it has nothing to publish, so it stays");
}

#[tokio::test]
async fn a_node_without_a_relay_gives_up_its_shards_while_it_renews_its_lease() {
    let (world, other, lease) = two().await;
    let gone = world.outbox().await;
    world.open(&Member::new(classroom(), "web.alice")).await;
    let mut relay = relay(&*other, lease).await;
    drop(gone);
    let deadline = Instant::now() + LEASE;
    while claim(&mut *relay).await < 8 {
        world.store.renew_lease(world.lease, LEASE).await.expect("renewed");
        assert!(Instant::now() < deadline, "they are free");
    }
    assert_eq!(relay.read(10).await.expect("read").len(), 1);
    // The node's next relay gets its share.
    let mut again = world.store.open_outbox(world.lease).await.expect("an outbox");
    while claim(&mut *again).await < 4 {
        world.store.renew_lease(world.lease, LEASE).await.expect("renewed");
        claim(&mut *relay).await;
        assert!(Instant::now() < deadline, "it comes back");
    }
}

#[tokio::test]
async fn a_commit_names_the_shards_whose_relay_is_to_be_woken() {
    let (world, other, lease) = two().await;
    let mut relay = world.outbox().await;
    while timeout(Duration::ZERO, relay.wait(Duration::from_secs(60))).await.is_ok() {}
    let alice = Member::new(classroom(), "web.alice");
    other.open(lease, &[alice.open()]).await.expect("opened");
    let shards = timeout(LEASE, other.rows_for_others()).await.expect("told");
    assert_eq!(shards, Shards::of(alice.classroom));
    assert!(timeout(Duration::ZERO, other.rows_for_others()).await.is_err(), "once");
    world.store.wake_relay(shards);
    timeout(LEASE, relay.wait(2 * LEASE)).await.expect("soon").expect("woken");
    assert_eq!(relay.read(10).await.expect("read").len(), 1);
    // The node does not name its own shards.
    world.open(&Member::new(classroom(), "web.bob")).await;
    timeout(LEASE, relay.wait(2 * LEASE)).await.expect("soon").expect("woken");
    assert!(timeout(Duration::ZERO, world.store.rows_for_others()).await.is_err());
}
