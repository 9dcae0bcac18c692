//! Connections leave their lessons, and stay in their classrooms.
use rollcall_schema::SessionId;
use rollcall_store::{Closed, LeaveLesson, LessonLeft};

use crate::{
    on_both,
    world::{Member, World, classroom, is_fenced},
};

on_both!(
    lesson_and_seat_go_out_of_the_row,
    another_session_of_the_user_in_the_lesson_is_told_of,
    only_the_owner_leaves,
);

fn leave(member: &Member, session: SessionId, lesson: &rollcall_schema::LessonId) -> LeaveLesson {
    LeaveLesson { sid: member.sid, session, lesson: lesson.clone() }
}

async fn lesson_and_seat_go_out_of_the_row(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[("alice", 3)]).await;
    let session = world.open(&alice).await.session;
    world.join(alice.join(session, &lesson)).await;
    let left = world.store.leave_lesson(world.lease, &[leave(&alice, session, &lesson)]).await.expect("left");
    assert_eq!(left, [LessonLeft::Left { shared: false }]);
    let agent = world.agents(alice.classroom).await.remove(0);
    assert_eq!((agent.lesson_id, agent.seat), (None, None));
    // Its field in Redis is looked after once more when the session ends.
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
    for (member, shared) in members.iter().zip([true, false]) {
        let session = sessions.remove(0);
        let left = world.store.leave_lesson(world.lease, &[leave(member, session, &lesson)]).await.expect("left");
        assert_eq!(left, [LessonLeft::Left { shared }]);
    }
}

async fn only_the_owner_leaves(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    let session = world.open(&alice).await.session;
    world.join(alice.join(session, &lesson)).await;
    let other = leave(&alice.again(), session, &lesson);
    assert_eq!(world.store.leave_lesson(world.lease, &[other]).await.expect("answered"), [LessonLeft::NotOwner]);
    assert!(world.agents(alice.classroom).await[0].lesson_id.is_some());
    assert!(world.store.leave_lesson(world.lease, &[]).await.expect("answered").is_empty());
    world.sql("update node set epoch = epoch + 1");
    assert!(is_fenced(world.store.leave_lesson(world.lease, &[leave(&alice, session, &lesson)]).await));
}
