//! What sessions leave in Redis waits in SQL.
use rollcall_schema::{LessonId, SessionId, Sid};
use rollcall_store::{Closed, Join, Joined, KeyField, LeftReason, RollbackJoin, StaleField};

use crate::{
    on_both,
    world::{LEASE, Member, World, classroom, register},
};

on_both!(
    who_leaves_a_lesson_leaves_its_field,
    who_was_in_no_lesson_leaves_nothing,
    a_lesson_moved_from_is_left_too,
    a_join_that_failed_is_left_too,
    who_is_taken_over_leaves_its_field_when_it_has_ended,
    who_was_taken_over_on_a_node_that_is_no_more_leaves_its_field,
    the_heir_is_the_latest_session_of_the_user_in_the_lesson,
    an_heir_that_went_meanwhile_leaves_in_its_turn,
    who_is_still_there_is_its_own_heir,
    what_an_earlier_process_left_is_everybodys,
    a_guest_with_a_token_leaves_its_field_when_it_has_ended,
    a_guest_of_a_node_that_is_no_more_leaves_its_field,
);

/// Opens a session and joins.
async fn joined(world: &World, member: &Member, lesson: &LessonId) {
    let session = world.open(member).await.session;
    world.join(member.join(session, lesson)).await;
}

async fn leavings(world: &World) -> Vec<(i64, StaleField)> {
    world.store.stale_fields(world.lease.node, 10).await.expect("read")
}

/// Lesson, sid and successor of each.
async fn left(world: &World) -> Vec<(String, Sid, Option<Sid>)> {
    let all = leavings(world).await.into_iter();
    all.map(|(_, StaleField { field, successor })| (field.lesson.to_string(), field.sid, successor)).collect()
}

async fn who_leaves_a_lesson_leaves_its_field(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    joined(&world, &alice, &lesson).await;
    assert_eq!(left(&world).await, []);
    assert_eq!(world.close(&alice).await, Closed::Left);
    let found = leavings(&world).await;
    let field = KeyField { lesson, user: alice.agent.user(), sid: alice.sid };
    assert_eq!(found.iter().map(|(_, leaving)| leaving).collect::<Vec<_>>(), [&StaleField { field, successor: None }]);
    world.store.forget_stale_fields(world.lease.node, &found, false).await.expect("forgotten");
    assert_eq!(left(&world).await, []);
    assert_eq!(world.close(&alice).await, Closed::NotOwner);
    assert_eq!(left(&world).await, []);
}

async fn who_was_in_no_lesson_leaves_nothing(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    world.open(&alice).await;
    world.open(&alice.again()).await;
    world.close(&alice).await;
    assert_eq!(left(&world).await, []);
}

async fn a_lesson_moved_from_is_left_too(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    for name in ["algebra-1", "algebra-2", "algebra-2"] {
        let lesson = world.lesson(name, alice.classroom, &[]).await;
        world.join(alice.join(session, &lesson)).await;
    }
    world.close(&alice).await;
    let expected = ["algebra-2", "algebra-1"].map(|lesson| (lesson.to_owned(), alice.sid, None));
    assert_eq!(left(&world).await, expected);
}

async fn a_join_that_failed_is_left_too(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    world.join(alice.join(session, &lesson)).await;
    let restore = RollbackJoin { sid: alice.sid, session, lesson: None };
    world.store.rollback(world.lease, &[restore]).await.expect("restored");
    world.close(&alice).await;
    assert_eq!(left(&world).await, [("algebra-1".to_owned(), alice.sid, None)]);
}

async fn who_is_taken_over_leaves_its_field_when_it_has_ended(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    for name in ["algebra-1", "algebra-2"] {
        let lesson = world.lesson(name, alice.classroom, &[]).await;
        world.join(alice.join(session, &lesson)).await;
    }
    let second = alice.again();
    world.open(&second).await;
    world.close(&second).await;
    assert_eq!(left(&world).await, [], "a join of its may be under way");
    world.store.add_stale_fields(world.lease.node, &[], &[alice.sid]).await.expect("released");
    let expected = ["algebra-2", "algebra-1"].map(|lesson| (lesson.to_owned(), alice.sid, None));
    assert_eq!(left(&world).await, expected);
}

async fn who_was_taken_over_on_a_node_that_is_no_more_leaves_its_field(mut world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    joined(&world, &alice, &lesson).await;
    world.open(&alice.again()).await;
    let before = world.lease;
    world.lease = register(&*world.store, LEASE).await;
    if world.store.name() == "postgres" {
        world.store.release_lease(before).await.expect("retired");
        world.store.reap(world.lease, 10).await.expect("reaped");
    }
    assert!(left(&world).await.contains(&("algebra-1".to_owned(), alice.sid, None)));
}

async fn the_heir_is_the_latest_session_of_the_user_in_the_lesson(world: World) {
    let here = classroom();
    let lesson = world.lesson("algebra-1", here, &[]).await;
    let members = ["web.alice", "ios.alice", "tv.alice", "web.bob"].map(|name| Member::new(here, name));
    for member in &members {
        joined(&world, member, &lesson).await;
    }
    let [web, ios, tv, bob] = members;
    let closes = [bob.close(LeftReason::Closed), web.close(LeftReason::Closed)];
    world.store.close(world.lease, &closes).await.expect("closed");
    let successors = async || {
        let mut successors: Vec<_> =
            left(&world).await.into_iter().map(|(_, sid, successor)| (sid, successor)).collect();
        successors.sort_by_key(|(sid, _)| *sid != web.sid);
        successors
    };
    assert_eq!(successors().await, [(web.sid, Some(tv.sid)), (bob.sid, None)]);
    world.close(&tv).await;
    assert_eq!(successors().await[0], (web.sid, Some(ios.sid)), "of the moment of reading");
}

async fn an_heir_that_went_meanwhile_leaves_in_its_turn(world: World) {
    let here = classroom();
    let lesson = world.lesson("algebra-1", here, &[]).await;
    let [web, ios] = ["web.alice", "ios.alice"].map(|name| Member::new(here, name));
    joined(&world, &web, &lesson).await;
    joined(&world, &ios, &lesson).await;
    world.close(&web).await;
    let one = leavings(&world).await;
    assert_eq!(one[0].1.successor, Some(ios.sid));
    // The successor's own is carried out before it is made the holder, on another node.
    world.close(&ios).await;
    let other = leavings(&world).await.split_off(1);
    world.store.forget_stale_fields(world.lease.node, &other, false).await.expect("forgotten");
    world.store.forget_stale_fields(world.lease.node, &one, false).await.expect("forgotten");
    assert_eq!(left(&world).await, [("algebra-1".to_owned(), ios.sid, None)]);
    world.store.forget_stale_fields(world.lease.node, &leavings(&world).await, false).await.expect("forgotten");
    assert_eq!(left(&world).await, []);
}

async fn who_is_still_there_is_its_own_heir(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    joined(&world, &alice, &lesson).await;
    let field = KeyField { lesson, user: alice.agent.user(), sid: alice.sid };
    world.store.add_stale_fields(world.lease.node, &[field], &[]).await.expect("added");
    assert_eq!(left(&world).await, [("algebra-1".to_owned(), alice.sid, Some(alice.sid))]);
}

async fn what_an_earlier_process_left_is_everybodys(mut world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    joined(&world, &alice, &lesson).await;
    world.close(&alice).await;
    let before = world.lease;
    world.lease = register(&*world.store, LEASE).await;
    if world.store.name() == "postgres" {
        assert_eq!(left(&world).await, [], "its own node lives");
        world.store.release_lease(before).await.expect("retired");
    }
    assert_eq!(left(&world).await.len(), 1);
}

/// Joins without a session, as two lessons' guest.
async fn guest(world: &World) -> Member {
    let alice = Member::new(classroom(), "web.alice");
    for name in ["algebra-1", "algebra-2", "algebra-2"] {
        let lesson = world.lesson(name, alice.classroom, &[]).await;
        let join = Join { session: None, ..alice.join(SessionId(0), &lesson) };
        assert!(matches!(world.join(join.clone()).await, Joined::Lesson { .. }));
        // Who brings no token has no field.
        world.join(Join { user: None, sid: Sid::random(), ..join }).await;
    }
    assert_eq!(left(world).await, [], "it is there");
    alice
}

async fn a_guest_with_a_token_leaves_its_field_when_it_has_ended(world: World) {
    let alice = guest(&world).await;
    world.store.add_stale_fields(world.lease.node, &[], &[alice.sid]).await.expect("released");
    let expected = ["algebra-1", "algebra-2"].map(|lesson| (lesson.to_owned(), alice.sid, None));
    assert_eq!(left(&world).await, expected);
}

async fn a_guest_of_a_node_that_is_no_more_leaves_its_field(mut world: World) {
    let alice = guest(&world).await;
    let before = world.lease;
    world.lease = register(&*world.store, LEASE).await;
    if world.store.name() == "postgres" {
        world.store.release_lease(before).await.expect("retired");
        world.store.reap(world.lease, 10).await.expect("reaped");
    }
    let expected = ["algebra-1", "algebra-2"].map(|lesson| (lesson.to_owned(), alice.sid, None));
    assert_eq!(left(&world).await, expected);
}
