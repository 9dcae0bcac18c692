//! A new connection asks the database for its last session while others open sessions.
use crate::world::{Member, World, classroom};

/// The number of sessions that wait for a lock of the test.
const WAITING: &str = "select count(*) from pg_locks where locktype = 'advisory' and not granted
    and database = (select oid from pg_database where datname = current_database())";

/// A session that is opened while a new connection asks for the last id does not mean that the history is a different
/// one.
#[tokio::test]
async fn sessions_that_are_opened_beside_a_new_connection_raise_no_ids() {
    let world = World::postgres().await;
    let here = classroom();
    let first = world.open(&Member::new(here, "web.alice")).await.session;
    let began = *world.store.incarnation().borrow();
    let (lock, driver) = tokio_postgres::connect(world.url(), tokio_postgres::NoTls).await.expect("connected");
    tokio::spawn(driver);
    let call = async |sql: &str| lock.batch_execute(sql).await.expect("answered");
    // Each answer waits for the lock after the last id is read.
    call(
        "create or replace function last_session_id() returns bigint language plpgsql as $$
            declare last bigint;
            begin
                select last_value into last from agent_session_id_seq;
                perform pg_advisory_xact_lock_shared(1);
                return last;
            end
        $$;
        select pg_advisory_lock(1)",
    )
    .await;
    // The heartbeat opens a new connection.
    let (store, node) = (world.store.clone(), world.lease.node);
    let asks = tokio::spawn(async move { store.kicks(node).await });
    for name in ["web.bob", "web.carol"] {
        while !asks.is_finished() && lock.query_one(WAITING, &[]).await.expect("answered").get::<_, i64>(0) == 0 {}
        world.open(&Member::new(here, name)).await;
        // The waiting question gets the lock first, and the next question waits again.
        call("select pg_advisory_unlock(1); select pg_advisory_lock(1)").await;
    }
    call("select pg_advisory_unlock(1)").await;
    // The question has a time limit, and nothing is compared after that limit.
    drop(asks.await.expect("done"));
    assert_eq!(*world.store.incarnation().borrow(), began);
    let next = world.open(&Member::new(here, "web.dave")).await.session;
    assert!(next.0 < first.0 + 1_000_000, "{next} after {first}");
}
