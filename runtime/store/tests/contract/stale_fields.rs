//! Fields that sessions leave in Redis wait in SQL until they are removed.
use rollcall_schema::{LessonId, Role, SessionId, Sid};
use rollcall_store::{Closed, Join, Joined, KeyField, LeftReason, StaleField, Successors};

use crate::{
    on_both,
    world::{LEASE, Member, World, classroom, register},
};

on_both!(
    a_closed_session_leaves_a_stale_field,
    a_session_without_a_lesson_leaves_none,
    the_lesson_before_leaves_one_too,
    a_join_that_failed_leaves_one_too,
    a_taken_over_connections_field_is_held_until_it_ends,
    a_held_field_of_a_node_that_is_no_more_is_removed,
    the_successor_is_the_session_that_joined_last,
    each_role_has_a_successor_of_its_own,
    a_successor_that_left_meanwhile_leaves_one_too,
    a_connection_still_in_the_lesson_is_its_own_successor,
    an_earlier_processs_fields_are_its_reapers,
    fields_of_a_node_that_nobody_knows_are_taken_over,
    a_guests_field_is_held_until_it_ends,
    a_held_field_of_a_guest_of_a_dead_node_is_removed,
);

/// Opens a session and joins.
async fn joined(world: &World, member: &Member, lesson: &LessonId) {
    let session = world.open(member).await.session;
    world.join(member.join(session, lesson)).await;
}

async fn waiting(world: &World) -> Vec<(i64, StaleField)> {
    world.store.stale_fields(world.lease.node, 10).await.expect("read")
}

/// Returns the lesson, the sid and the successor in the participants' hash of each stale field.
async fn left(world: &World) -> Vec<(String, Sid, Option<Sid>)> {
    let all = waiting(world).await.into_iter();
    all.map(|(_, StaleField { field, successors })| (field.lesson.to_string(), field.sid, successors.student)).collect()
}

async fn a_closed_session_leaves_a_stale_field(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    joined(&world, &alice, &lesson).await;
    assert_eq!(left(&world).await, []);
    assert_eq!(world.close(&alice).await, Closed::Left);
    let found = waiting(&world).await;
    let field = KeyField { lesson, user: alice.agent.user(), sid: alice.sid };
    assert_eq!(
        found.iter().map(|(_, stale)| stale).collect::<Vec<_>>(),
        [&StaleField { field, successors: Successors::default() }]
    );
    world.store.forget_stale_fields(world.lease.node, &found, false).await.expect("forgotten");
    assert_eq!(left(&world).await, []);
    assert_eq!(world.close(&alice).await, Closed::NotOwner);
    assert_eq!(left(&world).await, []);
}

async fn a_session_without_a_lesson_leaves_none(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    world.open(&alice).await;
    world.open(&alice.again()).await;
    world.close(&alice).await;
    assert_eq!(left(&world).await, []);
}

async fn the_lesson_before_leaves_one_too(world: World) {
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

async fn a_join_that_failed_leaves_one_too(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    world.join(alice.join(session, &lesson)).await;
    assert!(world.restore(alice.restore(session, None)).await);
    world.close(&alice).await;
    assert_eq!(left(&world).await, [("algebra-1".to_owned(), alice.sid, None)]);
}

async fn a_taken_over_connections_field_is_held_until_it_ends(world: World) {
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

async fn a_held_field_of_a_node_that_is_no_more_is_removed(mut world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    joined(&world, &alice, &lesson).await;
    world.open(&alice.again()).await;
    let before = world.lease;
    world.lease = register(&*world.store, LEASE).await;
    if world.store.name() == "postgres" {
        world.store.release_lease(before).await.expect("retired");
        while world.store.reap(world.lease, 10).await.expect("reaped") > 0 {}
    }
    assert!(left(&world).await.contains(&("algebra-1".to_owned(), alice.sid, None)));
}

async fn the_successor_is_the_session_that_joined_last(world: World) {
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

async fn each_role_has_a_successor_of_its_own(world: World) {
    let here = classroom();
    let lesson = world.lesson("algebra-1", here, &[]).await;
    let [web, ios, tv] = ["web.alice", "ios.alice", "tv.alice"].map(|name| Member::new(here, name));
    joined(&world, &web, &lesson).await;
    joined(&world, &ios, &lesson).await;
    // The lesson is joined with an access_token. The session itself is a participant's.
    let session = world.open(&tv).await.session;
    let teaches = Join { user: Some((tv.agent.user(), Role::Teacher)), ..tv.join(session, &lesson) };
    world.join(teaches).await;
    // The keys of these memberships are written again if they are lost.
    let memberships = world.store.lesson_memberships(world.lease.node, SessionId(0), 9).await.expect("answered");
    let holders: Vec<_> = memberships.into_iter().map(|placed| (placed.sid, placed.role, placed.holds_field)).collect();
    let expected =
        [(web.sid, Role::Participant, false), (ios.sid, Role::Participant, true), (tv.sid, Role::Teacher, true)];
    assert_eq!(holders, expected, "of each role the latest");
    world.close(&web).await;
    let [(_, stale)] = &waiting(&world).await[..] else { panic!("one") };
    assert_eq!(stale.successors, Successors { teacher: Some(tv.sid), student: Some(ios.sid) });
}

async fn a_successor_that_left_meanwhile_leaves_one_too(world: World) {
    let here = classroom();
    let lesson = world.lesson("algebra-1", here, &[]).await;
    let [web, ios] = ["web.alice", "ios.alice"].map(|name| Member::new(here, name));
    joined(&world, &web, &lesson).await;
    joined(&world, &ios, &lesson).await;
    world.close(&web).await;
    let one = waiting(&world).await;
    assert_eq!(one[0].1.successors.student, Some(ios.sid));
    // The successor's own removal is carried out on another node before the field is set to it.
    world.close(&ios).await;
    let other = waiting(&world).await.split_off(1);
    world.store.forget_stale_fields(world.lease.node, &other, false).await.expect("forgotten");
    world.store.forget_stale_fields(world.lease.node, &one, false).await.expect("forgotten");
    assert_eq!(left(&world).await, [("algebra-1".to_owned(), ios.sid, None)]);
    world.store.forget_stale_fields(world.lease.node, &waiting(&world).await, false).await.expect("forgotten");
    assert_eq!(left(&world).await, []);
}

async fn a_connection_still_in_the_lesson_is_its_own_successor(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    joined(&world, &alice, &lesson).await;
    let field = KeyField { lesson, user: alice.agent.user(), sid: alice.sid };
    world.store.add_stale_fields(world.lease.node, &[field], &[]).await.expect("added");
    assert_eq!(left(&world).await, [("algebra-1".to_owned(), alice.sid, Some(alice.sid))]);
}

async fn an_earlier_processs_fields_are_its_reapers(mut world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    joined(&world, &alice, &lesson).await;
    world.close(&alice).await;
    let before = world.lease;
    world.lease = register(&*world.store, LEASE).await;
    if world.store.name() == "postgres" {
        assert_eq!(left(&world).await, [], "its own node lives");
        world.store.release_lease(before).await.expect("retired");
        assert_eq!(world.store.reap(world.lease, 10).await.expect("taken over"), 1);
    }
    assert_eq!(left(&world).await.len(), 1);
}

/// Tests the fields of a node without a row, which a database that was put back has.
async fn fields_of_a_node_that_nobody_knows_are_taken_over(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    joined(&world, &alice, &lesson).await;
    world.close(&alice).await;
    world.sql("update stale_field set node_id = 0");
    let bob = Member::new(classroom(), "web.bob");
    world
        .store
        .add_stale_fields(world.lease.node, &[KeyField { lesson, user: bob.agent.user(), sid: bob.sid }], &[])
        .await
        .expect("added");
    let adopted = world.store.adopt_stale_fields(world.lease.node, 10).await.expect("taken over");
    assert_eq!(adopted, usize::from(world.is_postgres()));
    assert_eq!(left(&world).await.len(), 2);
    assert_eq!(world.store.adopt_stale_fields(world.lease.node, 10).await.expect("answered"), 0);
}

/// Joins two lessons as a guest, without a session.
async fn guest(world: &World) -> Member {
    let alice = Member::new(classroom(), "web.alice");
    for name in ["algebra-1", "algebra-2", "algebra-2"] {
        let lesson = world.lesson(name, alice.classroom, &[]).await;
        let join = Join { session: None, ..alice.join(SessionId(0), &lesson) };
        assert!(matches!(world.join(join.clone()).await, Joined::Lesson { .. }));
        // A guest without a token has no field.
        world.join(Join { user: None, sid: Sid::random(), ..join }).await;
    }
    assert_eq!(left(world).await, [], "it is there");
    alice
}

async fn a_guests_field_is_held_until_it_ends(world: World) {
    let alice = guest(&world).await;
    world.store.add_stale_fields(world.lease.node, &[], &[alice.sid]).await.expect("released");
    let expected = ["algebra-1", "algebra-2"].map(|lesson| (lesson.to_owned(), alice.sid, None));
    assert_eq!(left(&world).await, expected);
}

async fn a_held_field_of_a_guest_of_a_dead_node_is_removed(mut world: World) {
    let alice = guest(&world).await;
    let before = world.lease;
    world.lease = register(&*world.store, LEASE).await;
    if world.store.name() == "postgres" {
        world.store.release_lease(before).await.expect("retired");
        while world.store.reap(world.lease, 10).await.expect("reaped") > 0 {}
    }
    let expected = ["algebra-1", "algebra-2"].map(|lesson| (lesson.to_owned(), alice.sid, None));
    assert_eq!(left(&world).await, expected);
}
