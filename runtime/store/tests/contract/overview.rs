//! Operators' queries: why sessions ended or were taken over, and a page of a hundred thousand classrooms.
use std::{
    ops::RangeInclusive,
    time::{Duration, Instant},
};

use rollcall_schema::{ClassroomId, KickCause, LeftReason, SessionError, SessionId};
use rollcall_store::{
    Close, Overview, Store, Whose,
    postgres::{PostgresOptions, PostgresStore},
};
use uuid::Uuid;

use crate::{
    on_both,
    world::{Member, World, classroom},
};

/// The longest time until the server's statistics show what a statement has read.
const SOON: Duration = Duration::from_secs(20);
const MANY: u64 = 100_000;
const PAGE: usize = 100;

on_both!(why_a_session_was_kicked_is_in_the_history, when_a_session_was_taken_over_is_kept);

async fn why_a_session_was_kicked_is_in_the_history(world: World) {
    let expired = KickCause::Told(SessionError::TokenExpired);
    let ends = [
        (LeftReason::Closed, None),
        (LeftReason::Kicked(Some(expired)), Some("token_expired")),
        (LeftReason::Kicked(Some(KickCause::Violation)), Some("violation")),
        (LeftReason::Kicked(None), None),
    ];
    let alice = Member::new(classroom(), "web.alice");
    for (reason, cause) in ends {
        world.open(&alice).await;
        let close = Close { reason, ..alice.close(LeftReason::Closed) };
        world.store.close(world.lease, &[close]).await.expect("closed");
        let whose = Whose::User(alice.agent.user());
        let past = world.store.past_sessions_of(&whose, SessionId(i64::MAX), 1).await.expect("read");
        assert_eq!((past[0].reason.as_str(), past[0].cause.as_deref()), (reason.as_str(), cause));
    }
}

async fn when_a_session_was_taken_over_is_kept(world: World) {
    let first = Member::new(classroom(), "web.alice");
    let whose = Whose::User(first.agent.user());
    let live = async || world.store.sessions_of(&whose, SessionId(0), 1).await.expect("read").remove(0).taken_over_at;
    // A connection that asks twice, because an answer was lost, takes nothing over.
    world.open(&first).await;
    world.open(&first).await;
    assert_eq!(live().await, None);
    let second = first.again();
    world.open(&second).await;
    let at = live().await;
    assert!(at.is_some());
    world.open(&second).await;
    assert_eq!(live().await, at);
    world.close(&second).await;
    let past = world.store.past_sessions_of(&whose, SessionId(i64::MAX), 1).await.expect("read");
    assert_eq!(past[0].taken_over_at, at);
}

/// Returns the server's own counts: scans of the whole table, and rows read by its indexes.
fn read(world: &World) -> (u64, u64) {
    let counts = "select (select seq_scan from pg_stat_user_tables where relname = 'agent_session'),
        (select sum(idx_tup_read) from pg_stat_user_indexes where relname = 'agent_session')";
    let counts = world.sql(counts);
    let (walks, rows) = counts.split_once('|').expect("two columns");
    (walks.parse().expect("a count"), rows.parse().expect("a count"))
}

/// Waits until the statistics are complete. The server shows all reads of a connection at once, a second later, so they
/// are complete when they show a later read of another table.
async fn until_told(world: &World, store: &dyn Store) {
    let lessons = "select seq_scan + coalesce(idx_scan, 0) from pg_stat_user_tables where relname = 'lesson'";
    let (before, deadline) = (world.sql(lessons), Instant::now() + SOON);
    while world.sql(lessons) == before {
        assert!(Instant::now() < deadline, "the server shows no reads");
        store.has_no_lesson().await.expect("answered");
    }
}

async fn page(store: &dyn Store, ids: RangeInclusive<u128>) -> Vec<ClassroomId> {
    let id = |number| ClassroomId(Uuid::from_u128(number));
    let found = store.live_classrooms(id(*ids.start())..=id(*ids.end()), PAGE).await.expect("read");
    assert!(found.iter().all(|classroom| classroom.agents == 1));
    found.into_iter().map(|classroom| classroom.classroom_id).collect()
}

/// The page must be cheap even if the table has no statistics yet.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_page_of_a_hundred_thousand_classrooms_reads_no_others() {
    let world = World::postgres().await;
    world.sql(&format!(
        "insert into agent_session (agent_id, classroom_id, user_id, node_id, sid, role)
            select 'web.u' || i || '.example.org',
                (lpad(to_hex((i * 2654435761) & 4294967295), 8, '0') || '-0000-4000-8000-' || lpad(to_hex(i), 12, '0'))::uuid,
                'u' || i, {}, i, 'participant'
            from generate_series(1::bigint, {MANY}) as i",
        world.lease.node
    ));
    // One connection, so that its reads appear in their order.
    let store = PostgresStore::connect(&PostgresOptions { pool_size: 1, ..PostgresOptions::new(world.url()) });
    let store = store.expect("a URL");
    for statistics in ["select 1", "analyze agent_session"] {
        world.sql(statistics);
        until_told(&world, &store).await;
        let before = read(&world);
        let first = page(&store, 0..=u128::MAX).await;
        let next = page(&store, first[PAGE - 1].0.as_u128() + 1..=u128::MAX).await;
        assert!(first.len() == PAGE && next.len() == PAGE && first.is_sorted() && first[PAGE - 1] < next[0]);
        // The classrooms whose ids begin with 7f.
        let prefix = page(&store, 0x7f << 120..=(0x80 << 120) - 1).await;
        assert!(prefix.len() == PAGE && prefix.iter().all(|id| id.to_string().starts_with("7f")));
        let whole = prefix[PAGE / 2];
        assert_eq!(page(&store, whole.0.as_u128()..=whole.0.as_u128()).await, [whole]);
        assert_eq!(store.sessions_in(whole, SessionId(0), PAGE).await.expect("read").len(), 1);
        until_told(&world, &store).await;
        let (walks, rows) = read(&world);
        assert_eq!(walks, before.0, "the whole table was read");
        assert!(rows - before.1 < 10 * PAGE as u64, "{} rows were read for three pages", rows - before.1);
    }
}
