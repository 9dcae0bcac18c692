//! Finding the session of a client that goes on after a break.
use std::time::Duration;

use rollcall_schema::ResumeId;
use rollcall_store::{LeftReason, Open, ResumableSession};

use crate::{
    on_both,
    world::{Member, World, classroom},
};

on_both!(
    a_live_session_is_found_under_its_id_with_its_lesson,
    an_ended_session_is_found_for_a_while_unless_its_end_was_final,
    the_sessions_of_a_dead_node_are_found,
);

const LONG: Duration = Duration::from_secs(600);

async fn found(world: &World, member: &Member, id: ResumeId, within: Duration) -> Option<ResumableSession> {
    world.store.resumable(&member.agent, id, within).await.expect("answered")
}

async fn open(world: &World, member: &Member, id: ResumeId) -> rollcall_schema::SessionId {
    let open = Open { resume_id: Some(id), ..member.open() };
    world.store.open(world.lease, &[open]).await.expect("opened").remove(0).expect("let in").session
}

async fn a_live_session_is_found_under_its_id_with_its_lesson(world: World) {
    let here = classroom();
    let lesson = world.lesson("algebra-1", here, &[]).await;
    let alice = Member::new(here, "web.alice");
    let id = ResumeId::random();
    let session = open(&world, &alice, id).await;
    let nowhere = Some(ResumableSession { classroom: here, lesson: None });
    assert_eq!(found(&world, &alice, id, Duration::ZERO).await, nowhere);
    world.store.join(world.lease, &[alice.join(session, &lesson)]).await.expect("joined");
    let there = Some(ResumableSession { classroom: here, lesson: Some(lesson) });
    assert_eq!(found(&world, &alice, id, Duration::ZERO).await, there);
    assert_eq!(found(&world, &alice, ResumeId::random(), LONG).await, None);
    let other = Member { agent: crate::world::agent_id("tab.alice"), ..alice.clone() };
    assert_eq!(found(&world, &other, id, LONG).await, None);
    // After a takeover without the id, or with another one, the session is not found.
    world.store.open(world.lease, &[alice.again().open()]).await.expect("opened");
    assert_eq!(found(&world, &alice, id, LONG).await, None);
    let next = ResumeId::random();
    assert_eq!(open(&world, &alice.again(), next).await, session);
    assert_eq!(found(&world, &alice, next, LONG).await, nowhere);
}

async fn an_ended_session_is_found_for_a_while_unless_its_end_was_final(world: World) {
    let here = classroom();
    let lesson = world.lesson("algebra-1", here, &[]).await;
    let alice = Member::new(here, "web.alice");
    let id = ResumeId::random();
    let session = open(&world, &alice, id).await;
    world.store.join(world.lease, &[alice.join(session, &lesson)]).await.expect("joined");
    let close = rollcall_store::Close { resume_id: Some(id), ..alice.close(LeftReason::Lost) };
    world.store.close(world.lease, &[close]).await.expect("closed");
    let there = Some(ResumableSession { classroom: here, lesson: Some(lesson) });
    assert_eq!(found(&world, &alice, id, LONG).await, there);
    assert_eq!(found(&world, &alice, id, Duration::ZERO).await, None, "too late");
    // A live session counts before ended ones.
    let again = alice.again();
    open(&world, &again, id).await;
    let nowhere = Some(ResumableSession { classroom: here, lesson: None });
    assert_eq!(found(&world, &alice, id, LONG).await, nowhere);
    // After a final end the client cannot go on, even if it went on with the session before.
    world.store.close(world.lease, &[again.close(LeftReason::Closed)]).await.expect("closed");
    assert_eq!(found(&world, &alice, id, LONG).await, None);
    let bob = Member::new(here, "web.bob");
    let id = ResumeId::random();
    open(&world, &bob, id).await;
    world.store.close(world.lease, &[bob.close(LeftReason::Closed)]).await.expect("closed");
    assert_eq!(found(&world, &bob, id, LONG).await, None);
}

async fn the_sessions_of_a_dead_node_are_found(world: World) {
    let here = classroom();
    let alice = Member::new(here, "web.alice");
    let id = ResumeId::random();
    open(&world, &alice, id).await;
    world.store.release_lease(world.lease).await.expect("released");
    let lease = crate::world::register(&*world.store, crate::world::LEASE).await;
    assert_eq!(world.store.reap(lease, 10).await.expect("reaped"), 1);
    let there = Some(ResumableSession { classroom: here, lesson: None });
    assert_eq!(found(&world, &alice, id, LONG).await, there);
}
