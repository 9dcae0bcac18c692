//! Events that are committed and not yet published.
use std::{
    collections::{HashMap, HashSet},
    time::Duration,
};

use rollcall_store::{Backlog, Change, LeftReason, Outbox, OutboxRow};
use tokio::time::{Instant, timeout};

use crate::{
    on_both,
    world::{LEASE, Member, World, classroom, register},
};

on_both!(
    all_rows_and_the_oldest_first,
    what_is_not_deleted_comes_again,
    a_commit_wakes_the_relay,
    of_two_relays_each_row_is_one_of_theirs,
    the_backlog_tells_what_waits,
    a_row_keeps_a_nonce_of_its_own,
    a_reason_of_a_newer_version_is_left_out,
    a_row_that_cannot_be_read_is_quarantined_with_what_follows_it,
    a_row_that_the_bus_refuses_is_quarantined_with_what_follows_it,
);

async fn all_rows_and_the_oldest_first(world: World) {
    let here = classroom();
    let [alice, bob] = ["web.alice", "web.bob"].map(|name| Member::new(here, name));
    world.open(&alice).await;
    world.close(&alice).await;
    world.open(&alice).await;
    world.open(&bob).await;
    let mut outbox = world.outbox().await;
    let rows = outbox.read(100).await.expect("read");
    assert!(rows.is_sorted_by_key(|row| row.id));
    let mut published: HashMap<_, Vec<_>> = HashMap::new();
    for row in &rows {
        published.entry(row.agent.clone()).or_default().push(row.change.clone());
    }
    assert_eq!(published[&alice.agent], [Change::Entered, Change::Left(Some(LeftReason::Closed)), Change::Entered]);
    assert_eq!(published[&bob.agent], [Change::Entered]);
    outbox.delete(&rows.iter().map(|row| row.id).collect::<Vec<_>>()).await.expect("deleted");
    assert!(outbox.read(100).await.expect("read").is_empty());
}

async fn what_is_not_deleted_comes_again(world: World) {
    let here = classroom();
    for n in 0..30 {
        world.open(&Member::new(here, &format!("web.u{n}"))).await;
    }
    let mut outbox = world.outbox().await;
    // Everything but the time that a row has waited, because it grows.
    let rows = |rows: Vec<OutboxRow>| -> Vec<OutboxRow> {
        rows.into_iter().map(|row| OutboxRow { waited: Duration::ZERO, ..row }).collect()
    };
    // All rows are in one shard, of Postgres's eight or SQLite's one. Each shard gets an equal part of the number that
    // is asked for.
    let first = rows(outbox.read(24).await.expect("read"));
    assert!([3, 24].contains(&first.len()), "{first:?}");
    assert_eq!(rows(outbox.read(24).await.expect("read")), first);
    let [oldest, between @ .., newest] = &first[..] else { unreachable!("three at least") };
    outbox.delete(&[oldest.id, newest.id]).await.expect("deleted");
    let rest = rows(outbox.read(1000).await.expect("read"));
    assert_eq!(rest.len(), 28);
    assert!(rest.starts_with(between));
}

async fn a_commit_wakes_the_relay(world: World) {
    let mut outbox = world.outbox().await;
    while timeout(Duration::ZERO, outbox.wait(Duration::from_secs(60))).await.is_ok() {}
    let alice = Member::new(classroom(), "web.alice");
    let start = Instant::now();
    let (opened, woken) = tokio::join!(world.open(&alice), outbox.wait(Duration::from_secs(60)));
    woken.expect("woken");
    assert!(start.elapsed() < Duration::from_secs(5));
    assert_eq!(outbox.read(10).await.expect("read")[0].session, opened.session);
    let start = Instant::now();
    outbox.wait(Duration::from_millis(20)).await.expect("waited");
    assert!(start.elapsed() < Duration::from_secs(5), "or the wait ends");
}

async fn of_two_relays_each_row_is_one_of_theirs(world: World) {
    let mut first = world.outbox().await;
    for n in 0..50 {
        world.open(&Member::new(classroom(), &format!("web.u{n}"))).await;
    }
    let other = world.another_or_same();
    let lease = if world.is_postgres() { register(&*other, LEASE).await } else { world.lease };
    let mut second = other.open_outbox(lease).await.expect("an outbox");
    let (mut seen, deadline) = (HashSet::new(), Instant::now() + LEASE);
    while seen.len() < 50 {
        assert!(Instant::now() < deadline, "not every row was read");
        for outbox in [&mut first, &mut second] {
            outbox.claim().await.expect("claimed");
            let rows = outbox.read(100).await.expect("read");
            assert!(rows.iter().all(|row| seen.insert(row.id)), "a row is read by both");
            outbox.delete(&rows.iter().map(|row| row.id).collect::<Vec<_>>()).await.expect("deleted");
        }
    }
    // When the first relay ends, its shards go to the second.
    drop(first);
    if world.is_postgres() {
        world.store.release_lease(world.lease).await.expect("released");
    }
    for n in 0..50 {
        other.open(lease, &[Member::new(classroom(), &format!("web.v{n}")).open()]).await.expect("opened");
    }
    while second.read(100).await.expect("read").len() < 50 {
        assert!(Instant::now() < deadline, "the shards of a node that gave its lease back are free at once");
        second.claim().await.expect("claimed");
    }
}

async fn the_backlog_tells_what_waits(world: World) {
    let backlog = async || world.store.backlog().await.expect("answered");
    assert_eq!(backlog().await, Backlog::default());
    for n in 0..3 {
        world.open(&Member::new(classroom(), &format!("web.u{n}"))).await;
    }
    let waits = backlog().await;
    assert_eq!(waits.rows, 3);
    assert!(waits.lag < Duration::from_secs(5));
    assert_eq!(world.events().await.len(), 3);
    assert_eq!(backlog().await.rows, 0);
}

/// Tests that a database that was put back gives out the same session id again, and that its event is a different one.
async fn a_row_keeps_a_nonce_of_its_own(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    world.open(&alice).await;
    let mut outbox = world.outbox().await;
    let nonce = async |outbox: &mut dyn Outbox| outbox.read(10).await.expect("read")[0].nonce;
    let first = nonce(&mut *outbox).await;
    assert_eq!(nonce(&mut *outbox).await, first);
    world.sql(
        "insert into outbox (classroom_id, agent_id, session_id, operation) \
         select classroom_id, agent_id, session_id, operation from outbox",
    );
    world.sql(&format!("delete from outbox where nonce = {}", first.0));
    assert_ne!(nonce(&mut *outbox).await, first);
}

async fn a_reason_of_a_newer_version_is_left_out(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    world.open(&alice).await;
    world.close(&alice).await;
    world.sql("update outbox set reason = 'bored' where operation = 'left'");
    let changes: Vec<_> = world.events().await.into_iter().map(|row| row.change).collect();
    assert_eq!(changes, [Change::Entered, Change::Left(None)]);
}

/// Reads until no row is left, and returns each row as agent and change.
async fn drained(outbox: &mut dyn Outbox) -> Vec<(String, Change)> {
    let mut all = Vec::new();
    loop {
        let rows = outbox.read(100).await.expect("read");
        if rows.is_empty() {
            return all;
        }
        outbox.delete(&rows.iter().map(|row| row.id).collect::<Vec<_>>()).await.expect("deleted");
        all.extend(rows.into_iter().map(|row| (row.agent.to_string(), row.change)));
    }
}

const DUE: &str = "update outbox_quarantine set retry_at = created_at";

async fn a_row_that_cannot_be_read_is_quarantined_with_what_follows_it(world: World) {
    let here = classroom();
    let [alice, bob] = ["web.alice", "web.bob"].map(|name| Member::new(here, name));
    let names = [&alice, &bob].map(|member| member.agent.to_string());
    let left = Change::Left(Some(LeftReason::Closed));
    world.open(&alice).await;
    let mut outbox = world.outbox().await;
    world.sql(
        "insert into outbox (classroom_id, agent_id, session_id, operation) \
         select classroom_id, agent_id, session_id, 'frowned' from outbox",
    );
    world.close(&alice).await;
    // A text that is not an agent's id.
    world.sql("insert into outbox (classroom_id, agent_id, session_id, operation) select classroom_id, '?', 0, 'left' from outbox");
    world.open(&bob).await;
    let read = drained(&mut *outbox).await;
    assert_eq!(read, [(names[0].clone(), Change::Entered), (names[1].clone(), Change::Entered)]);
    // Later rows stay behind it, too.
    world.open(&alice).await;
    assert_eq!(drained(&mut *outbox).await, []);
    let quarantined = "select operation from outbox_quarantine where agent_id <> '?' order by id";
    assert_eq!(world.sql(quarantined), "frowned\nleft\nentered");
    assert!(outbox.release_quarantined().await.expect("looked") >= 3);
    assert_eq!(drained(&mut *outbox).await, [], "it is not time yet");
    world.sql(DUE);
    outbox.release_quarantined().await.expect("put back");
    assert_eq!(drained(&mut *outbox).await, [], "it can still not be read");
    assert_eq!(world.sql(quarantined), "frowned\nleft\nentered");
    // A newer version of Rollcall can read the row.
    world.sql("update outbox_quarantine set operation = 'left' where operation = 'frowned'");
    world.sql(DUE);
    outbox.release_quarantined().await.expect("put back");
    let [unknown, left, entered] = [Change::Left(None), left, Change::Entered];
    assert_eq!(drained(&mut *outbox).await, [unknown, left, entered].map(|change| (names[0].clone(), change)));
}

async fn a_row_that_the_bus_refuses_is_quarantined_with_what_follows_it(world: World) {
    let here = classroom();
    let [alice, bob] = ["web.alice", "web.bob"].map(|name| Member::new(here, name));
    world.open(&alice).await;
    world.open(&bob).await;
    world.close(&alice).await;
    let mut outbox = world.outbox().await;
    let rows = outbox.read(100).await.expect("read");
    outbox.quarantine(&[rows[0].id], "too large").await.expect("quarantined");
    assert_eq!(drained(&mut *outbox).await, [(bob.agent.to_string(), Change::Entered)]);
    assert_eq!(world.sql("select why from outbox_quarantine order by id limit 1"), "too large");
    world.sql(DUE);
    outbox.release_quarantined().await.expect("put back");
    let left = Change::Left(Some(LeftReason::Closed));
    assert_eq!(drained(&mut *outbox).await, [Change::Entered, left].map(|change| (alice.agent.to_string(), change)));
    assert_eq!(outbox.release_quarantined().await.expect("looked"), 0);
}
