//! Several nodes on one PostgreSQL.
use std::{collections::HashSet, sync::Arc, time::Duration};

use rollcall_schema::{KeyField, Sid};
use rollcall_store::{Change, Closed, Lease, LeftReason, NodeReport, Registration, Store, StoreError};
use tokio::time::{Instant, timeout};

use crate::world::{LEASE, Member, World, classroom, events_of, is_fenced, register};

/// Returns a world with a second node.
pub(crate) async fn two() -> (World, Arc<dyn Store>, Lease) {
    let world = World::postgres().await;
    let other = world.another();
    let lease = register(&*other, LEASE).await;
    (world, other, lease)
}

/// Makes the lease of the world's first node expired for a long time.
async fn expire(world: &World) {
    let node = world.lease.node;
    world.sql(&format!("update node set lease_until = clock_timestamp() - interval '1 minute' where id = {node}"));
}

#[tokio::test]
async fn a_takeover_from_another_node_is_told_there() {
    let (world, other, lease) = two().await;
    let first = Member::new(classroom(), "web.alice");
    let opened = world.open(&first).await;
    let second = first.again();
    let taken = other.open(lease, &[second.open()]).await.expect("opened")[0].expect("taken over");
    assert_eq!((taken.session, taken.replaced), (opened.session, Some((world.lease.node, first.sid))));
    let reply = world.store.renew_lease(world.lease, LEASE).await.expect("renewed");
    assert_eq!((reply.replaced, reply.nodes), (vec![first.sid], 2));
    assert!(other.renew_lease(lease, LEASE).await.expect("renewed").replaced.is_empty());
    assert_eq!(world.close(&first).await, Closed::NotOwner);
    assert_eq!(world.sql("select node_id, sid from agent_session"), format!("{}|{}", lease.node, second.sid));
    assert_eq!(world.events().await.len(), 1);
}

#[tokio::test]
async fn what_a_node_says_of_itself_comes_with_its_renewals() {
    let (world, other, lease) = two().await;
    let read = async || world.store.reports().await.expect("read");
    let said = |reports: &[NodeReport]| -> Vec<Option<String>> {
        reports.iter().map(|report| report.statistics.as_ref().map(|(text, _)| text.clone())).collect()
    };
    other.renew_lease(lease, LEASE).await.expect("renewed");
    assert_eq!(said(&read().await), [None, None]);
    let long = "x".repeat(4096);
    for text in [r#"{"connections":1}"#, &long] {
        other.report(text.to_owned());
        // Makes the rows look as if some seconds had passed.
        world.sql(
            "update node set renewed_at = renewed_at - interval '4 s', statistics_at = statistics_at - interval '4 s'",
        );
        other.renew_lease(lease, LEASE).await.expect("renewed");
        assert_eq!(said(&read().await), [None, Some(text.to_owned())]);
    }
    other.report(String::new());
    other.renew_lease(lease, LEASE).await.expect("renewed");
    assert_eq!(said(&read().await)[1], Some(long), "not more often than the lease");
    // Probes keep the lease valid, and delay no other call.
    world.sql(
        "update node set renewed_at = renewed_at - interval '4 s', statistics_at = statistics_at - interval '1 minute'",
    );
    other.probe(lease, LEASE).await.expect("probed");
    let silent = read().await;
    let age = silent[1].statistics.as_ref().expect("said").1;
    assert!(age >= Duration::from_secs(60) && silent[1].alive && silent[1].lease_left <= LEASE, "{silent:?}");
    other.renew_lease(lease, LEASE).await.expect("renewed");
    assert_eq!(said(&read().await)[1], Some(String::new()));
    expire(&world).await;
    let expired = read().await;
    assert_eq!((expired[0].alive, expired[0].lease_left, expired[1].alive), (false, Duration::ZERO, true));
}

#[tokio::test]
async fn a_dead_nodes_sessions_are_ended() {
    let (world, other, lease) = two().await;
    let here = classroom();
    let lesson = world.lesson("algebra-1", here, &[]).await;
    let [alice, bob] = ["web.alice", "web.bob"].map(|name| Member::new(here, name));
    let session = world.open(&alice).await.session;
    world.open(&bob).await;
    world.join(alice.join(session, &lesson)).await;
    assert_eq!(other.reap(lease, 10).await.expect("answered"), 0, "its lease holds");

    expire(&world).await;
    assert_eq!(other.reap(lease, 10).await.expect("reaped"), 2);
    assert_eq!(world.sql("select node_id, sid from stale_field"), format!("{}|{}", lease.node, alice.sid));
    assert_eq!(
        world.sql("select reason, user_id, lesson_id from agent_session_history order by id"),
        "node_lost|alice|algebra-1\nnode_lost|bob|"
    );
    let changes: Vec<_> = events_of(&*other, lease).await.into_iter().map(|row| row.change).collect();
    assert_eq!(changes[2..], vec![Change::Left(Some(LeftReason::NodeLost)); 2]);

    assert!(is_fenced(world.store.renew_lease(world.lease, LEASE).await));
    assert!(is_fenced(world.store.open(world.lease, &[alice.open()]).await));
    assert_eq!(other.reap(lease, 10).await.expect("answered"), 0);
    assert_eq!(world.sql("select id from node"), lease.node.to_string(), "its row is gone");
}

#[tokio::test]
async fn one_node_ends_a_dead_nodes_sessions_and_takes_over_its_fields() {
    let (world, other, lease) = two().await;
    let third = world.another();
    let third_lease = register(&*third, LEASE).await;
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    let session = world.open(&alice).await.session;
    world.join(alice.join(session, &lesson)).await;
    // One session has a field that waits, and one has a field that is held.
    world.store.open(world.lease, &[alice.again().open()]).await.expect("taken over");
    let bob = Member::new(classroom(), "web.bob");
    world
        .store
        .add_stale_fields(world.lease.node, &[KeyField { lesson, user: bob.agent.user(), sid: bob.sid }], &[])
        .await
        .expect("added");
    for n in 0..3 {
        world.open(&Member::new(classroom(), &format!("web.u{n}"))).await;
    }
    let dead = async |store: &dyn Store, lease| store.renew_lease(lease, LEASE).await.expect("renewed").dead;
    assert!(!dead(&*other, lease).await && !dead(&*third, third_lease).await);
    expire(&world).await;
    assert!(dead(&*other, lease).await && dead(&*third, third_lease).await);
    assert_eq!(other.reap(lease, 2).await.expect("reaped"), 2);
    assert!(dead(&*other, lease).await && !dead(&*third, third_lease).await, "one has claimed it");
    assert_eq!(third.reap(third_lease, 10).await.expect("answered"), 0);
    assert_eq!(other.reap(lease, 10).await.expect("reaped"), 2);
    // The node dies before it has ended all sessions.
    world.sql(&format!("update node set lease_until = '2000-01-01' where id = {}", lease.node));
    assert!(dead(&*third, third_lease).await);
    assert_eq!(third.reap(third_lease, 10).await.expect("adopted"), 2);
    assert_eq!(world.store.stale_fields(third_lease.node, 10).await.expect("read").len(), 2);
    assert_eq!(third.reap(third_lease, 10).await.expect("answered"), 0);
    assert_eq!(world.sql("select id from node"), third_lease.node.to_string(), "both are gone");
    assert!(!dead(&*third, third_lease).await);
}

#[tokio::test]
async fn a_lease_whose_taking_the_database_has_lost_is_taken_again() {
    let (world, other, lease) = two().await;
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let row = world.sql("select agent_id, classroom_id, user_id, node_id, sid, role from agent_session");
    expire(&world).await;
    assert_eq!(other.reap(lease, 10).await.expect("reaped"), 1);
    assert_eq!(other.reap(lease, 10).await.expect("answered"), 0);

    // The rows are those of a replica that lagged. According to them the node lives, although the end of its session
    // was published.
    let node = world.lease.node;
    world.sql(&format!(
        "insert into node (id, label, lease_until, standalone) overriding system value \
         values ({node}, 'test', clock_timestamp() + interval '1 hour', false)"
    ));
    let values = row.split('|').map(|value| format!("'{value}'")).collect::<Vec<_>>().join(", ");
    world.sql(&format!(
        "insert into agent_session (id, agent_id, classroom_id, user_id, node_id, sid, role) \
         overriding system value values ({session}, {values})"
    ));
    world.sql("delete from agent_session_history");
    world.sql("update installation set timeline = 'another'");
    world.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() \
         and application_name = 'rollcall'",
    );
    let deadline = Instant::now() + LEASE;
    // The first call may meet a connection that has just ended.
    while !matches!(other.reap(lease, 10).await, Ok(1)) {
        assert!(Instant::now() < deadline, "it is not taken again");
    }
    assert!(is_fenced(world.store.renew_lease(world.lease, LEASE).await));
    assert_eq!(world.sql("select id, reason from agent_session_history"), format!("{session}|node_lost"));
}

#[tokio::test]
async fn an_expired_lease_that_nobody_took_is_renewed() {
    let (world, other, lease) = two().await;
    world.open(&Member::new(classroom(), "web.alice")).await;
    expire(&world).await;
    world.store.renew_lease(world.lease, LEASE).await.expect("renewed");
    assert_eq!(other.reap(lease, 10).await.expect("answered"), 0);
    assert_eq!(world.sql("select count(*) from agent_session"), "1");
}

#[tokio::test]
async fn a_retired_nodes_sessions_are_free_at_once() {
    let (world, other, lease) = two().await;
    world.open(&Member::new(classroom(), "web.alice")).await;
    world.store.release_lease(world.lease).await.expect("retired");
    assert_eq!(other.reap(lease, 10).await.expect("reaped"), 1);
    other.release_lease(lease).await.expect("retired");
    assert_eq!(world.sql("select count(*) from node"), "0", "without sessions its row goes at once");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn two_nodes_reap_a_third_without_doubles() {
    let (world, other, lease) = two().await;
    let third = world.another();
    let third_lease = register(&*third, LEASE).await;
    let opens: Vec<_> = (0..300).map(|n| Member::new(classroom(), &format!("web.u{n}")).open()).collect();
    world.store.open(world.lease, &opens).await.expect("opened");
    expire(&world).await;
    let reap = async |store: &dyn Store, lease| {
        let mut sessions = 0;
        while world.sql("select count(*) from agent_session") != "0" {
            sessions += store.reap(lease, 7).await.expect("reaped");
        }
        sessions
    };
    let (one, two) = tokio::join!(reap(&*other, lease), reap(&*third, third_lease));
    assert_eq!(one + two, 300);
    assert_eq!(world.sql("select count(*) from agent_session_history"), "300");
    assert_eq!(world.sql("select count(*) from outbox where operation = 'left'"), "300");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_write_that_waits_for_the_reaper_is_fenced() {
    let world = World::postgres().await;
    let (mut reaper, connection) =
        tokio_postgres::connect(world.url(), tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    let taking = reaper.transaction().await.expect("begun");
    taking.query("select from node for update", &[]).await.expect("locked");
    let alice = Member::new(classroom(), "web.alice");
    let batch = [alice.open()];
    let write = world.store.open(world.lease, &batch);
    tokio::pin!(write);
    assert!(timeout(Duration::from_millis(100), &mut write).await.is_err(), "it waits");
    taking.execute("update node set epoch = epoch + 1, taken = true", &[]).await.expect("taken");
    taking.commit().await.expect("committed");
    assert!(is_fenced(write.await));
    assert_eq!(world.sql("select count(*) from agent_session"), "0");
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn of_two_nodes_racing_for_a_thousand_agents_one_owns_each() {
    let (world, other, lease) = two().await;
    let here = classroom();
    let ours: Vec<_> = (0..1000).map(|n| Member::new(here, &format!("web.u{n}"))).collect();
    let theirs: Vec<_> = ours.iter().rev().map(Member::again).collect();
    let race = async |store: &dyn Store, lease, members: &[Member]| {
        let mut lost = HashSet::new();
        for chunk in members.chunks(50) {
            let opens: Vec<_> = chunk.iter().map(Member::open).collect();
            let opened = store.open(lease, &opens).await.expect("opened");
            lost.extend(opened.into_iter().flatten().filter_map(|opened| opened.replaced.map(|(_, sid)| sid)));
        }
        lost
    };
    let (mut lost, theirs_lost) = tokio::join!(race(&*world.store, world.lease, &ours), race(&*other, lease, &theirs));
    lost.extend(theirs_lost);
    let owners: HashSet<Sid> =
        world.sql("select sid from agent_session").lines().map(|line| Sid::parse(line).expect("a sid")).collect();
    let all: HashSet<Sid> = ours.iter().chain(&theirs).map(|member| member.sid).collect();
    assert_eq!((owners.len(), lost.len()), (1000, 1000));
    assert_eq!(owners.union(&lost).copied().collect::<HashSet<_>>(), all);
    let mut replaced = world.store.renew_lease(world.lease, LEASE).await.expect("renewed").replaced;
    replaced.extend(other.renew_lease(lease, LEASE).await.expect("renewed").replaced);
    assert_eq!(replaced.len(), 1000);
    assert_eq!(replaced.into_iter().collect::<HashSet<_>>(), lost);
    assert_eq!(world.sql("select count(*), count(distinct session_id) from outbox"), "1000|1000");
}

#[tokio::test]
async fn a_standalone_node_lives_alone() {
    let world = World::postgres().await;
    let other = world.another();
    let registration = |standalone| Registration { label: "late".to_owned(), lease: LEASE, standalone, process: None };
    let answer = other.register(&registration(true)).await;
    assert!(matches!(&answer, Err(StoreError::Refused(why)) if why.contains("test holds a lease")), "{answer:?}");
    world.store.release_lease(world.lease).await.expect("retired");
    other.register(&registration(true)).await.expect("alone");
    let answer = world.store.register(&registration(false)).await;
    assert!(matches!(&answer, Err(StoreError::Refused(why)) if why.contains("late holds a lease")), "{answer:?}");
    assert_eq!(world.sql("select count(*) from node"), "1");
}

#[tokio::test]
async fn whose_own_lease_has_run_out_takes_nobodys() {
    let (world, other, lease) = two().await;
    world.open(&Member::new(classroom(), "web.alice")).await;
    world.sql("update node set lease_until = clock_timestamp() - interval '1 minute'");
    assert_eq!(other.reap(lease, 10).await.expect("answered"), 0);
    other.renew_lease(lease, LEASE).await.expect("renewed");
    // The reaper began before it could learn of the gap.
    assert_eq!(other.reap(lease, 10).await.expect("answered"), 0);
    other.renew_lease(lease, LEASE).await.expect("renewed without a gap");
    assert_eq!(other.reap(lease, 10).await.expect("reaped"), 1);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_node_whose_write_hangs_holds_up_no_other_dead_nodes_end() {
    let (world, other, lease) = two().await;
    let third = register(&*world.another(), LEASE).await;
    other.open(third, &[Member::new(classroom(), "web.alice").open()]).await.expect("opened");
    world.sql(&format!(
        "update node set lease_until = clock_timestamp() - interval '1 minute' where id <> {}",
        lease.node
    ));
    let (mut hanging, connection) =
        tokio_postgres::connect(world.url(), tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(connection);
    let write = hanging.transaction().await.expect("begun");
    write.query("select from node where id = $1 for key share", &[&world.lease.node.0]).await.expect("locked");
    assert_eq!(other.reap(lease, 10).await.expect("reaped"), 1);
    write.commit().await.expect("committed");
}
