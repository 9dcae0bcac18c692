//! Removals that Redis has carried out are kept for ten minutes, and held ones can be listed.
use rollcall_store::{Join, KeyField, LeaveLesson, LeftReason, LessonLeft};

use crate::{
    on_both,
    world::{LEASE, Member, World, classroom, register},
};

on_both!(
    what_was_carried_out_is_repeated_and_compares_the_connection,
    what_need_not_be_kept_is_not_repeated,
    what_a_node_that_is_no_more_carried_out_is_repeated,
    what_a_connection_removes_when_it_changes_its_lesson_is_repeated,
    after_ten_minutes_it_is_forgotten,
    what_is_held_is_found_page_by_page,
);

/// Returns alice's field, which was removed. Its row is deleted or kept.
async fn carried_out(world: &World, keep: bool) -> KeyField {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    let session = world.open(&alice).await.session;
    world.join(alice.join(session, &lesson)).await;
    world.store.close(world.lease, &[alice.close(LeftReason::Closed)]).await.expect("closed");
    let done = world.store.stale_fields(world.lease.node, 10).await.expect("read");
    world.store.forget_stale_fields(world.lease.node, &done, keep).await.expect("forgotten");
    assert_eq!(waiting(world).await, []);
    done[0].1.field.clone()
}

async fn waiting(world: &World) -> Vec<KeyField> {
    let waiting = world.store.stale_fields(world.lease.node, 10).await.expect("read");
    waiting.into_iter().map(|(_, stale)| stale.field).collect()
}

async fn repeat(world: &World) -> usize {
    world.store.repeat_removals(world.lease.node, true, 10).await.expect("repeated")
}

async fn what_was_carried_out_is_repeated_and_compares_the_connection(world: World) {
    let field = carried_out(&world, true).await;
    for _ in 0..2 {
        assert_eq!((repeat(&world).await, repeat(&world).await), (1, 0), "each once");
        let again = world.store.stale_fields(world.lease.node, 10).await.expect("read");
        assert_eq!(again.iter().map(|(_, stale)| &stale.field).collect::<Vec<_>>(), [&field]);
        world.store.forget_stale_fields(world.lease.node, &again, true).await.expect("forgotten");
    }
}

async fn what_need_not_be_kept_is_not_repeated(world: World) {
    carried_out(&world, false).await;
    assert_eq!(repeat(&world).await, 0);
}

async fn what_a_node_that_is_no_more_carried_out_is_repeated(mut world: World) {
    let field = carried_out(&world, true).await;
    let before = world.lease;
    world.lease = register(&*world.store, LEASE).await;
    if world.store.name() == "postgres" {
        assert_eq!(repeat(&world).await, 0, "its own node lives");
        world.store.release_lease(before).await.expect("retired");
    }
    let of_others = world.store.repeat_removals(world.lease.node, false, 10).await.expect("repeated");
    assert_eq!((of_others, repeat(&world).await), (1, 0));
    assert_eq!(waiting(&world).await, [field]);
    let done = world.store.stale_fields(world.lease.node, 10).await.expect("read");
    world.store.forget_stale_fields(world.lease.node, &done, true).await.expect("forgotten");
    let of_others = world.store.repeat_removals(world.lease.node, false, 10).await.expect("repeated");
    assert_eq!((of_others, repeat(&world).await), (0, 1), "now it is this node's own");
}

async fn what_a_connection_removes_when_it_changes_its_lesson_is_repeated(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let mut lessons = Vec::new();
    for (name, keep) in [("algebra-1", true), ("biology-1", true), ("chemistry-1", false), ("drama-1", true)] {
        let lesson = world.lesson(name, alice.classroom, &[]).await;
        world.join(Join { keep, ..alice.join(session, &lesson) }).await;
        lessons.push(lesson);
    }
    let left = LeaveLesson { keep: true, ..alice.leave(session, &lessons[3]) };
    assert_eq!(world.leave_lesson(left).await, LessonLeft::Left { shared: false });
    assert_eq!(repeat(&world).await, 3);
    let repeated: Vec<_> = waiting(&world).await.into_iter().map(|field| (field.lesson, field.sid)).collect();
    assert_eq!(repeated, [0, 2, 3].map(|lesson: usize| (lessons[lesson].clone(), alice.sid)));
}

async fn after_ten_minutes_it_is_forgotten(world: World) {
    carried_out(&world, true).await;
    let (next, more) = world.store.expire_removals(0, 1).await.expect("expired");
    assert!(!more, "it is young");
    world.sql("update removal set minute = minute - 9");
    assert_eq!(world.store.expire_removals(0, 10).await.expect("expired"), (next, false));
    assert_eq!(world.sql("select count(*) from removal"), "1");
    world.sql("update removal set minute = minute - 3");
    assert_eq!(repeat(&world).await, 0, "it is too old");
    assert!(world.store.expire_removals(0, 1).await.expect("expired").1, "there may be more");
    assert!(!world.store.expire_removals(0, 1).await.expect("expired").1);
    assert_eq!(world.sql("select count(*) from removal"), "0");
}

async fn what_is_held_is_found_page_by_page(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    let mut held = Vec::new();
    for _ in 0..3 {
        let guest = alice.again();
        let join = guest.join(rollcall_schema::SessionId(0), &lesson);
        world.join(Join { session: None, ..join }).await;
        held.push(guest.sid);
    }
    let node = world.lease.node;
    let first = world.store.held_stale_fields(node, 0, 2).await.expect("read");
    let rest = world.store.held_stale_fields(node, first[1].0, 2).await.expect("read");
    let found: Vec<_> = first.into_iter().chain(rest).map(|(_, sid)| sid).collect();
    assert_eq!(found, held);
    world.store.add_stale_fields(node, &[], &held).await.expect("released");
    assert_eq!(world.store.held_stale_fields(node, 0, 2).await.expect("read"), []);
}
