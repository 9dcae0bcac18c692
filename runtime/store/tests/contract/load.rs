//! Lessons and attendees are loaded completely or not at all.
use rollcall_schema::{LessonId, Seat, UserId};
use rollcall_store::{AttendeeRow, LessonRow, LoadError};

use crate::{
    on_both,
    world::{World, classroom},
};

on_both!(
    nothing_is_seen_before_the_commit,
    a_dropped_load_leaves_nothing,
    an_unknown_lesson_is_named_by_its_place,
    rows_that_are_there_are_overwritten,
    a_load_works_beside_a_serving_process,
);

fn lesson(name: &str, seats: u32) -> LessonRow {
    LessonRow { id: LessonId::parse(name).expect("an id"), classroom: classroom(), seats }
}

fn attendee(lesson: &str, user: &str, seat: u32) -> AttendeeRow {
    AttendeeRow {
        lesson: LessonId::parse(lesson).expect("an id"),
        user: UserId::parse(user).expect("a user"),
        seat: Seat(seat),
    }
}

async fn nothing_is_seen_before_the_commit(world: World) {
    assert!(world.store.has_no_lesson().await.expect("answered"));
    let mut load = world.store.begin_load().await.expect("begun");
    load.lessons(vec![lesson("a", 3)]).await.expect("lessons");
    load.attendees(vec![attendee("a", "alice", 1)]).await.expect("attendees");
    assert!(world.store.has_no_lesson().await.expect("answered"));
    load.commit().await.expect("committed");
    assert!(!world.store.has_no_lesson().await.expect("answered"));
    assert_eq!(world.sql("select lesson_id, user_id, seat from lesson_attendee"), "a|alice|1");
}

async fn a_dropped_load_leaves_nothing(world: World) {
    let mut load = world.store.begin_load().await.expect("begun");
    load.lessons(vec![lesson("a", 3)]).await.expect("lessons");
    drop(load);
    let mut next = world.store.begin_load().await.expect("begun");
    let answer = next.attendees(vec![attendee("a", "alice", 1)]).await;
    assert!(matches!(answer, Err(LoadError::UnknownLesson(0))), "{answer:?}");
    assert!(world.store.has_no_lesson().await.expect("answered"));
}

async fn an_unknown_lesson_is_named_by_its_place(world: World) {
    let mut load = world.store.begin_load().await.expect("begun");
    load.lessons(vec![lesson("a", 3)]).await.expect("lessons");
    let mut rows: Vec<_> = (1..=9_000).map(|n| attendee("a", &format!("u{n}"), 1)).collect();
    rows[8_500].lesson = LessonId::parse("unknown").expect("an id");
    // One attendee is there twice, so that the index in the batch and the number of rows differ.
    rows[8_400] = rows[8_399].clone();
    let answer = load.attendees(rows).await;
    assert!(matches!(answer, Err(LoadError::UnknownLesson(8_500))), "{answer:?}");
    drop(load);
    assert!(world.store.has_no_lesson().await.expect("answered"));
}

async fn rows_that_are_there_are_overwritten(world: World) {
    for seat in [1, 2] {
        let mut load = world.store.begin_load().await.expect("begun");
        load.lessons(vec![lesson("a", 8), lesson("a", 10 + seat)]).await.expect("lessons");
        load.attendees(vec![attendee("a", "alice", 9), attendee("a", "alice", seat)]).await.expect("attendees");
        load.commit().await.expect("committed");
    }
    assert_eq!(world.sql("select seats from lesson"), "12");
    assert_eq!(world.sql("select user_id, seat from lesson_attendee"), "alice|2");
}

async fn a_load_works_beside_a_serving_process(world: World) {
    let beside = world.another();
    beside.migrate().await.expect("nothing to do");
    let mut load = beside.begin_load().await.expect("begun");
    load.lessons(vec![lesson("a", 3)]).await.expect("lessons");
    world.open(&crate::world::Member::new(classroom(), "web.alice")).await;
    load.commit().await.expect("committed");
    assert!(!world.store.has_no_lesson().await.expect("answered"));
}
