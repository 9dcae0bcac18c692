//! Connections leave their lessons and stay in their classrooms, and changes of a lesson are written out of order.
use rollcall_store::{Closed, Joined, LessonLeft};

use crate::{
    on_both,
    world::{Member, World, classroom, is_fenced},
};

on_both!(
    lesson_and_seat_go_out_of_the_row,
    another_session_of_the_user_in_the_lesson_is_told_of,
    of_two_connections_of_a_session_in_one_batch_the_owner_is_answered,
    only_the_owner_leaves,
    a_change_that_comes_after_a_later_one_writes_nothing,
    the_same_change_twice_is_answered_twice,
    a_takeover_counts_its_changes_anew,
);

async fn lesson_and_seat_go_out_of_the_row(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[("alice", 3)]).await;
    let session = world.open(&alice).await.session;
    world.join(alice.join(session, &lesson)).await;
    assert_eq!(world.leave_lesson(alice.leave(session, &lesson)).await, LessonLeft::Left { shared: false });
    let agent = world.agents(alice.classroom).await.remove(0);
    assert_eq!((agent.lesson_id, agent.seat), (None, None));
    // When the session ends, its field in Redis is removed once more.
    assert_eq!(world.close(&alice).await, Closed::Left);
    assert_eq!(world.sql("select lesson_id, user_id from stale_field"), "algebra-1|alice");
    assert_eq!(world.sql("select coalesce(lesson_id, 'none') from agent_session_history"), "none");
}

async fn another_session_of_the_user_in_the_lesson_is_told_of(world: World) {
    let here = classroom();
    let lesson = world.lesson("algebra-1", here, &[]).await;
    let members = ["web.alice", "tablet.alice"].map(|name| Member::new(here, name));
    let mut sessions = Vec::new();
    for member in &members {
        let session = world.open(member).await.session;
        world.join(member.join(session, &lesson)).await;
        sessions.push(session);
    }
    let other = world.lesson("biology-1", here, &[]).await;
    for shared in [true, false] {
        let moves = world.join(members[0].join(sessions[0], &other)).await;
        assert_eq!(moves, Joined::Lesson { seats: 30, seat: None, shared });
        world.join(members[0].join(sessions[0], &lesson)).await;
        world.join(members[1].join(sessions[1], &other)).await;
    }
    world.join(members[1].join(sessions[1], &lesson)).await;
    for (member, shared) in members.iter().zip([true, false]) {
        let session = sessions.remove(0);
        assert_eq!(world.leave_lesson(member.leave(session, &lesson)).await, LessonLeft::Left { shared });
    }
}

async fn of_two_connections_of_a_session_in_one_batch_the_owner_is_answered(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    let session = world.open(&alice).await.session;
    world.join(alice.join(session, &lesson)).await;
    let both = [alice.again(), alice];
    let restores = both.each_ref().map(|member| member.restore(session, Some((lesson.clone(), None))));
    assert_eq!(world.store.restore_lesson(world.lease, &restores).await.expect("answered"), [false, true]);
    let leaves = both.each_ref().map(|member| member.leave(session, &lesson));
    let left = world.store.leave_lesson(world.lease, &leaves).await.expect("answered");
    assert_eq!(left, [LessonLeft::NotOwner, LessonLeft::Left { shared: false }]);
}

async fn only_the_owner_leaves(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    let session = world.open(&alice).await.session;
    world.join(alice.join(session, &lesson)).await;
    assert_eq!(world.leave_lesson(alice.again().leave(session, &lesson)).await, LessonLeft::NotOwner);
    assert!(world.agents(alice.classroom).await[0].lesson_id.is_some());
    assert!(world.store.leave_lesson(world.lease, &[]).await.expect("answered").is_empty());
    world.sql("update node set epoch = epoch + 1");
    assert!(is_fenced(world.store.leave_lesson(world.lease, &[alice.leave(session, &lesson)]).await));
}

async fn a_change_that_comes_after_a_later_one_writes_nothing(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let algebra = world.lesson("algebra-1", alice.classroom, &[("alice", 3)]).await;
    let biology = world.lesson("biology-1", alice.classroom, &[]).await;
    let session = world.open(&alice).await.session;
    let row = || world.sql("select coalesce(lesson_id, 'none'), coalesce(seat, 0) from agent_session");
    let late = alice.join(session, &biology);
    assert!(world.restore(alice.restore(session, None)).await, "the join is undone before it is written");
    assert_eq!(world.join(late).await, Joined::NotOwner);
    assert_eq!(row(), "none|0");

    let (undo, late) = (alice.restore(session, None), alice.leave(session, &algebra));
    // A lesson whose join was undone can be joined again.
    assert_ne!(world.join(alice.join(session, &algebra)).await, Joined::NotOwner);
    assert!(!world.restore(undo).await);
    assert_eq!(world.leave_lesson(late).await, LessonLeft::NotOwner);
    assert_eq!(row(), "algebra-1|3");
}

async fn the_same_change_twice_is_answered_twice(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    let session = world.open(&alice).await.session;
    let (join, leave, restore) =
        (alice.join(session, &lesson), alice.leave(session, &lesson), alice.restore(session, Some((lesson, None))));
    for _ in 0..2 {
        assert_eq!(world.join(join.clone()).await, Joined::Lesson { seats: 30, seat: None, shared: false });
    }
    for _ in 0..2 {
        assert_eq!(world.leave_lesson(leave.clone()).await, LessonLeft::Left { shared: false });
    }
    for _ in 0..2 {
        assert!(world.restore(restore.clone()).await);
    }
    assert_eq!(world.sql("select lesson_id, lesson_before from agent_session"), "algebra-1|algebra-1");
}

async fn a_takeover_counts_its_changes_anew(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    let session = world.open(&alice).await.session;
    let second = alice.again();
    let first_of_second = second.join(session, &lesson);
    world.join(alice.join(session, &lesson)).await;
    world.open(&second).await;
    assert_eq!(world.join(first_of_second).await, Joined::Lesson { seats: 30, seat: None, shared: false });
    assert!(!world.restore(alice.restore(session, None)).await, "the session is another connection's");
    assert_eq!(world.sql("select lesson_id from agent_session"), "algebra-1");
}
