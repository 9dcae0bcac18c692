//! The tables' owner migrates; another role, which may only read and write rows, serves (see README).
use rollcall_store::{Backlog, Closed, Joined, LeftReason, Store, StoreError};

use crate::world::{LEASE, Member, World, connect, register};

/// The statements that README gives.
const GRANTS: &str = "grant usage on schema public to app;
    grant select, insert, update, delete on all tables in schema public to app;
    grant usage, select, update on all sequences in schema public to app;";

/// Makes a role that may serve, and a store that connects as this role.
fn role(world: &World) -> std::sync::Arc<dyn Store> {
    world.sql("do $$ begin create role app login; exception when others then null; end $$");
    connect(&world.url().replace("postgres@", "app@"))
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_role_that_may_change_no_table_serves() {
    let world = World::postgres().await;
    let store = role(&world);
    world.sql(GRANTS);
    store.migrate().await.expect("nothing is missing");
    assert!(store.missing_migrations().await.expect("answered").is_empty());
    store.installation().await.expect("read");
    let lease = register(&*store, LEASE).await;
    store.renew_lease(lease, LEASE).await.expect("renewed");
    store.probe(lease, LEASE).await.expect("written");

    let alice = Member::new(crate::world::classroom(), "web.alice");
    let opened = store.open(lease, &[alice.open()]).await.expect("opened")[0].expect("let in");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    let joined = store.join(lease, &[alice.join(opened.session, &lesson)]).await.expect("joined");
    assert!(matches!(joined[0], Joined::Lesson { .. }));
    assert_eq!(store.close(lease, &[alice.close(LeftReason::Closed)]).await.expect("closed"), [Closed::Left]);
    // The relay claims shards and deletes rows.
    let mut outbox = store.open_outbox(lease).await.expect("an outbox");
    while outbox.claim().await.expect("claimed") < 8 {}
    let rows = outbox.read(100).await.expect("read");
    assert_eq!(store.backlog().await.expect("counted").rows, 2);
    outbox.delete(&rows.iter().map(|row| row.id).collect::<Vec<_>>()).await.expect("deleted");
    assert!(outbox.read(100).await.expect("read").is_empty());
    assert_eq!(store.backlog().await.expect("counted"), Backlog::default());
    let stale_fields = store.stale_fields(lease.node, 10).await.expect("read");
    store.forget_stale_fields(lease.node, &stale_fields, false).await.expect("forgotten");
    // A call that is given up ends its own backend.
    let given_up = [alice.open()];
    tokio::time::timeout(std::time::Duration::from_micros(300), store.open(lease, &given_up)).await.ok();
    store.close(lease, &[alice.close(LeftReason::Lost)]).await.expect("answered");
    world.sql(&format!("update node set lease_until = '2000-01-01' where id = {}", world.lease.node));
    assert_eq!(store.reap(lease, 10).await.expect("reaped"), 0);
    store.begin_load().await.expect("begun").commit().await.expect("loaded");
    store.release_lease(lease).await.expect("retired");
}

#[tokio::test]
async fn where_tables_are_missing_the_role_is_told_what_to_run() {
    let world = World::postgres().await;
    world.sql("drop schema public cascade");
    world.sql("create schema public");
    let store = role(&world);
    world.sql("grant usage on schema public to app");
    assert_eq!(store.missing_migrations().await.expect("answered"), ["0001_presence"]);
    let refused = store.migrate().await;
    let Err(StoreError::Refused(why)) = &refused else { panic!("{refused:?}") };
    for part in ["0001_presence", "role app", "rollcall migrate", "permission denied"] {
        assert!(why.contains(part), "{part} in {why}");
    }
}

#[tokio::test]
async fn newer_tables_are_refused_only_where_they_are_declared_incompatible() {
    for world in [World::postgres().await, World::sqlite().await] {
        let newer = "insert into migration (version, name, compatible_from) values (2, '0002_expand', 1)";
        world.sql(newer);
        world.store.migrate().await.expect("this binary may run beside the newer one");
        world.sql("insert into migration (version, name, compatible_from) values (3, '0003_contract', 2)");
        let refused = world.store.migrate().await;
        assert!(matches!(&refused, Err(StoreError::Refused(why)) if why.contains("upgrade this one")), "{refused:?}");
    }
}

#[tokio::test]
async fn a_right_that_is_missing_is_told_before_it_is_needed() {
    let world = World::postgres().await;
    let store = role(&world);
    world.sql(GRANTS);
    assert_eq!(store.missing_rights().await.expect("answered"), None);
    let lease = register(&*store, LEASE).await;
    store.probe(lease, LEASE).await.expect("it may serve");
    world.sql("revoke update, delete on agent_session from app; revoke insert on outbox from app");
    let told = "the role app lacks rights on agent_session (update, delete), outbox (insert): grant them as the owner of \
        the tables (README, \"Upgrades\")";
    assert_eq!(store.missing_rights().await.expect("answered").as_deref(), Some(told));
    for refused in [store.migrate().await, store.probe(lease, LEASE).await] {
        assert!(matches!(&refused, Err(StoreError::Refused(why)) if why == told), "{refused:?}");
    }
    let alice = Member::new(crate::world::classroom(), "web.alice");
    let refused = store.open(lease, &[alice.open()]).await.expect_err("it may not").to_string();
    assert!(refused.contains("grant the role what is missing"), "{refused}");
}
