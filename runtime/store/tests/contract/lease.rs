//! The right to write, which holds until another node takes it.
use std::time::Duration;

use rollcall_schema::Epoch;
use rollcall_store::{Lease, LeftReason, StoreError};

use crate::{
    on_both,
    world::{LEASE, Member, World, classroom, is_fenced, register},
};

on_both!(
    a_node_without_the_epoch_commits_nothing,
    a_heartbeat_renews_an_expired_lease,
    one_session_that_cannot_be_ended_holds_up_nobody_elses,
    an_installation_keeps_its_id,
    migrating_again_changes_nothing,
    a_database_of_a_newer_rollcall_is_refused,
);

/// Expects that every kind of write with this lease fails.
async fn expect_fenced(world: &World, lease: Lease, member: &Member) {
    let session = world.sql("select id from agent_session").parse().map(rollcall_schema::SessionId).expect("a session");
    let lesson = world.lesson("algebra-1", member.classroom, &[]).await;
    let store = &world.store;
    let seen = |world: &World| {
        ["agent_session", "agent_session_history", "outbox"]
            .map(|table| world.sql(&format!("select * from {table} order by id")))
    };
    let before = seen(world);
    assert!(is_fenced(store.open(lease, &[member.again().open()]).await));
    assert!(is_fenced(store.open(lease, &[Member::new(classroom(), "web.new").open()]).await));
    assert!(is_fenced(store.join(lease, &[member.join(session, &lesson)]).await));
    let restore = member.restore(session, Some((lesson, None)));
    assert!(is_fenced(store.restore_lesson(lease, &[restore]).await));
    assert!(is_fenced(store.close(lease, &[member.close(LeftReason::Closed)]).await));
    assert!(is_fenced(store.close(lease, &[member.again().close(LeftReason::Closed)]).await));
    assert!(is_fenced(store.renew_lease(lease, LEASE).await));
    assert!(is_fenced(store.reap(lease, 10).await));
    assert!(is_fenced(store.release_lease(lease).await));
    assert_eq!(seen(world), before);
}

async fn a_node_without_the_epoch_commits_nothing(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    world.open(&alice).await;
    let wrong = Lease { epoch: Epoch(world.lease.epoch.0 + 1), ..world.lease };
    expect_fenced(&world, wrong, &alice).await;
    world.store.release_lease(world.lease).await.expect("retired");
    expect_fenced(&world, world.lease, &alice).await;
}

async fn a_heartbeat_renews_an_expired_lease(world: World) {
    let lease = register(&*world.store, Duration::ZERO).await;
    world.store.renew_lease(lease, Duration::ZERO).await.expect("renewed");
    let alice = Member::new(classroom(), "web.alice");
    world.store.open(lease, &[alice.open()]).await.expect("nobody took it");
    world.store.renew_lease(lease, LEASE).await.expect("renewed");
}

async fn one_session_that_cannot_be_ended_holds_up_nobody_elses(mut world: World) {
    let mut sessions = Vec::new();
    for name in ["web.alice", "web.bob", "web.carol", "web.dora"] {
        sessions.push(world.open(&Member::new(classroom(), name)).await.session);
    }
    world.poison(sessions[1]);
    let before = world.lease;
    world.lease = register(&*world.store, LEASE).await;
    world.sql(&format!("update node set lease_until = '2000-01-01 00:00:00' where id = {}", before.node));
    let mut ended = 0;
    while let reaped @ 1.. = world.store.reap(world.lease, 3).await.expect("reaped") {
        ended += reaped;
    }
    assert_eq!(ended, 3);
    assert_eq!(world.sql("select id from agent_session"), sessions[1].to_string());
    assert_eq!(world.sql("select count(*) from outbox where operation = 'left'"), "3");
    let nodes = format!("{}\n{}", before.node, world.lease.node);
    assert_eq!(world.sql("select id from node order by id"), nodes, "its node is not forgotten");
}

async fn an_installation_keeps_its_id(world: World) {
    let id = world.store.installation().await.expect("an id");
    assert_eq!(world.another().installation().await.expect("an id"), id);
    assert_eq!(world.sql("select id from installation"), id.to_string());
    assert_eq!(id.get_version_num(), 4);
}

async fn migrating_again_changes_nothing(world: World) {
    world.open(&Member::new(classroom(), "web.alice")).await;
    let before = world.sql("select * from migration");
    let (one, other) = (world.another(), world.another());
    let (one, other) = tokio::join!(one.migrate(), other.migrate());
    one.and(other).expect("migrated");
    assert_eq!(world.sql("select * from migration"), before);
}

async fn a_database_of_a_newer_rollcall_is_refused(world: World) {
    world.sql("insert into migration (version, name, compatible_from) values (9999, 'from the future', 9999)");
    let answer = world.store.migrate().await;
    assert!(matches!(&answer, Err(StoreError::Refused(why)) if why.contains("newer")), "{answer:?}");
}
