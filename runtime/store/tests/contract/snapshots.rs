//! Tests of PostgreSQL while a transaction is left open, so that no deleted row is removed, and while all connections
//! of the pool wait.
use std::time::{Duration, Instant};

use rollcall_store::Backlog;
use tokio_postgres::{Client, NoTls};

use crate::world::{LEASE, Member, World, classroom, register};

/// The longest time until the server's statistics show what a statement has read.
const SOON: Duration = Duration::from_secs(20);
const DEAD: u32 = 200_000;

async fn client(world: &World) -> Client {
    let (client, connection) = tokio_postgres::connect(world.url(), NoTls).await.expect("connected");
    tokio::spawn(connection);
    client
}

/// Returns a database with an open snapshot, and many dead rows of events and of this node's sessions.
async fn with_dead_rows(world: &World) -> Client {
    let snapshot = client(world).await;
    world.sql("alter table outbox set (autovacuum_enabled = off)");
    world.sql("alter table agent_session set (autovacuum_enabled = off)");
    snapshot.batch_execute("begin isolation level repeatable read; select 1").await.expect("a snapshot");
    let node = world.lease.node;
    world.sql(&format!(
        "insert into outbox (classroom_id, agent_id, session_id, operation)
            select gen_random_uuid(), 'web.a.example.org', i, 'entered' from generate_series(1, {DEAD}) as i;
        delete from outbox;
        insert into agent_session (agent_id, classroom_id, user_id, node_id, sid, role)
            select 'web.a.example.org', gen_random_uuid(), 'a', {node}, i::text, 'teacher'
            from generate_series(1, {DEAD}) as i;
        delete from agent_session"
    ));
    snapshot
}

/// Repeats `again` until the server's statistics show that the table was read. Returns these statistics.
async fn until_read(world: &World, table: &str, columns: &str, again: impl AsyncFn()) -> String {
    let reads = format!("select coalesce(idx_scan, 0) + seq_scan from pg_stat_user_tables where relname = '{table}'");
    let (before, deadline) = (world.sql(&reads), Instant::now() + SOON);
    while world.sql(&reads) == before {
        assert!(Instant::now() < deadline, "{table} was not read");
        again().await;
    }
    world.sql(columns)
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_renewed_without_a_look_at_dead_rows() {
    let world = World::postgres().await;
    let _snapshot = with_dead_rows(&world).await;
    let walked = "select heap_blks_hit + heap_blks_read + idx_blks_hit + idx_blks_read \
        from pg_statio_user_tables where relname in ('outbox', 'agent_session') order by relname";
    let before = world.sql(walked);
    let renew = async || drop(world.store.renew_lease(world.lease, LEASE).await.expect("renewed"));
    assert_eq!(until_read(&world, "node", walked, renew).await, before);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_dead_node_is_reaped_by_an_index_in_spite_of_dead_rows() {
    let world = World::postgres().await;
    let other = world.another();
    let lease = register(&*other, LEASE).await;
    let _snapshot = with_dead_rows(&world).await;
    for n in 0..3 {
        world.open(&Member::new(classroom(), &format!("web.u{n}"))).await;
    }
    world.sql(&format!("update node set lease_until = '2000-01-01' where id = {}", world.lease.node));
    let walks = "select seq_scan from pg_stat_user_tables where relname = 'agent_session'";
    let before = world.sql(walks);
    assert_eq!(other.reap(lease, 2).await.expect("reaped"), 2);
    assert_eq!(other.reap(lease, 2).await.expect("reaped"), 1);
    assert_eq!(world.sql("select string_agg(reason, ' ') from agent_session_history"), "node_lost node_lost node_lost");
    let reap = async || assert_eq!(other.reap(lease, 2).await.expect("answered"), 0);
    assert_eq!(until_read(&world, "agent_session", walks, reap).await, before);
    assert_eq!(world.sql("select count(*) from node"), "1");
    // Dead rows do not keep waiting rows from being counted.
    assert_eq!(world.store.backlog().await.expect("counted").rows, 6);
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_lease_is_renewed_and_the_dead_are_reaped_while_the_pool_waits() {
    let world = World::postgres().await;
    let other = world.another();
    let dead = register(&*other, LEASE).await;
    let blocker = client(&world).await;
    blocker.batch_execute("begin; lock table lesson in access exclusive mode").await.expect("locked");
    world.sql(&format!("update node set lease_until = '2000-01-01' where id = {}", dead.node));
    // The calls are more than the pool has connections, or makes in this time.
    let waiting: Vec<_> = (0..16)
        .map(|_| {
            let store = world.store.clone();
            tokio::spawn(async move { store.has_no_lesson().await })
        })
        .collect();
    let waits = "select count(*) >= 2 from pg_stat_activity \
        where datname = current_database() and wait_event_type = 'Lock'";
    let deadline = Instant::now() + SOON;
    while world.sql(waits) != "t" {
        assert!(Instant::now() < deadline, "the pool waits");
    }
    world.store.renew_lease(world.lease, LEASE).await.expect("renewed");
    assert_eq!(world.store.reap(world.lease, 10).await.expect("reaped"), 0);
    assert_eq!(world.store.backlog().await.expect("counted"), Backlog::default());
    assert!(waiting.iter().all(|call| !call.is_finished()), "the pool still waits");
    assert_eq!(world.sql("select count(*) from node"), "1", "the dead node is gone");
    blocker.batch_execute("rollback").await.expect("released");
    for call in waiting {
        // Some calls have waited for too long, which is no fault here.
        let _ = call.await.expect("no panic");
    }
}
