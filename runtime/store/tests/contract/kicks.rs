//! An operator ends sessions.
use std::slice;

use rollcall_schema::{ClassroomId, SessionId, Sid};
use rollcall_store::{Change, Closed, Joined, Kick, KickTarget, LeftReason};

use crate::{
    on_both,
    world::{LEASE, Member, World, classroom, is_fenced, register},
};

on_both!(
    a_kicked_session_is_ended_whole,
    a_kick_is_told_until_it_was_heard,
    a_session_is_noted_to_leave_its_lesson,
    an_agent_or_user_is_kicked_in_one_classroom_or_in_all,
    a_kicked_session_is_neither_joined_with_nor_taken_over,
    who_lost_its_lease_kicks_nobody,
);

async fn kick(world: &World, target: KickTarget) -> Vec<SessionId> {
    let kicked = world.store.kick(world.lease, &target, 10).await.expect("kicked");
    kicked.into_iter().map(|kicked| kicked.session).collect()
}

async fn a_kicked_session_is_ended_whole(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    let session = world.open(&alice).await.session;
    world.join(alice.join(session, &lesson)).await;
    let kicked = world.store.kick(world.lease, &KickTarget::Session(session), 10).await.expect("kicked");
    assert_eq!((kicked.len(), kicked[0].sid, kicked[0].node), (1, alice.sid, world.lease.node));
    assert_eq!((&kicked[0].agent, kicked[0].classroom), (&alice.agent, alice.classroom));
    assert_eq!(kick(&world, KickTarget::Session(session)).await, []);
    assert_eq!(world.close(&alice).await, Closed::NotOwner);
    assert_eq!(
        world.sql("select reason, cause, user_id, lesson_id from agent_session_history"),
        "kicked|kicked|alice|algebra-1"
    );
    let changes: Vec<_> = world.events().await.into_iter().map(|row| row.change).collect();
    assert_eq!(changes, [Change::Entered, Change::Left(Some(LeftReason::Kicked(None)))]);
    // A join of the connection may be under way, so its field is removed once the connection has ended.
    assert_eq!(world.store.stale_fields(world.lease.node, 10).await.expect("read"), []);
    world.store.add_stale_fields(world.lease.node, &[], &[alice.sid]).await.expect("released");
    assert_eq!(world.store.stale_fields(world.lease.node, 10).await.expect("read").len(), 1);
}

async fn a_kick_is_told_until_it_was_heard(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let heard = async || world.store.renew_lease(world.lease, LEASE).await.expect("renewed").kicks;
    assert_eq!(heard().await, []);
    kick(&world, KickTarget::Session(session)).await;
    let kicked = Kick { sid: alice.sid, lesson: None };
    assert_eq!((heard().await, heard().await), (vec![kicked.clone()], vec![kicked.clone()]));
    assert_eq!(world.store.kicks(world.lease.node).await.expect("read"), slice::from_ref(&kicked));
    let other = Kick { sid: Sid::random(), lesson: None };
    world.store.ack_kicks(world.lease.node, &[kicked, other]).await.expect("heard");
    assert_eq!(heard().await, []);
}

async fn a_session_is_noted_to_leave_its_lesson(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    let session = world.open(&alice).await.session;
    assert_eq!(world.store.kick_from_lesson(session).await.expect("answered"), None, "it is in none");
    world.join(alice.join(session, &lesson)).await;
    let kick = Kick { sid: alice.sid, lesson: Some(lesson) };
    let noted = world.store.kick_from_lesson(session).await.expect("noted");
    assert_eq!(noted, Some((world.lease.node, kick.clone())));
    let heard = async || world.store.renew_lease(world.lease, LEASE).await.expect("renewed").kicks;
    assert_eq!(heard().await, slice::from_ref(&kick));
    world.store.ack_kicks(world.lease.node, &[Kick { lesson: None, ..kick.clone() }]).await.expect("heard");
    assert_eq!(heard().await, slice::from_ref(&kick), "that was another");
    world.store.ack_kicks(world.lease.node, &[kick]).await.expect("heard");
    assert_eq!(heard().await, []);
    assert_eq!(world.sql("select lesson_id from agent_session"), "algebra-1", "the connection itself leaves");
}

async fn an_agent_or_user_is_kicked_in_one_classroom_or_in_all(world: World) {
    let rooms: [ClassroomId; 2] = [classroom(), classroom()];
    let mut sessions = Vec::new();
    for (room, agent) in [(0, "web.alice"), (1, "web.alice"), (0, "ios.alice"), (1, "web.bob")] {
        sessions.push(world.open(&Member::new(rooms[room], agent)).await.session);
    }
    let alice = Member::new(rooms[0], "web.alice").agent;
    let user = alice.user();
    assert_eq!(kick(&world, KickTarget::Agent(alice.clone(), Some(classroom()))).await, []);
    assert_eq!(kick(&world, KickTarget::Agent(alice.clone(), Some(rooms[0]))).await, sessions[..1]);
    assert_eq!(kick(&world, KickTarget::User(user.clone(), Some(rooms[0]))).await, sessions[2..3]);
    assert_eq!(kick(&world, KickTarget::Agent(alice, None)).await, sessions[1..2]);
    assert_eq!(kick(&world, KickTarget::User(user, None)).await, []);
    assert_eq!(world.sql("select agent_id from agent_session"), "web.bob.example.org");
}

async fn a_kicked_session_is_neither_joined_with_nor_taken_over(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    let session = world.open(&alice).await.session;
    kick(&world, KickTarget::Session(session)).await;
    assert_eq!(world.join(alice.join(session, &lesson)).await, Joined::NotOwner);
    let again = world.open(&alice.again()).await;
    assert!(again.session > session && again.replaced.is_none(), "{again:?}");
}

async fn who_lost_its_lease_kicks_nobody(mut world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let before = world.lease;
    if world.store.name() == "postgres" {
        world.store.release_lease(before).await.expect("released");
    }
    world.lease = register(&*world.store, LEASE).await;
    assert!(is_fenced(world.store.kick(before, &KickTarget::Session(session), 10).await));
    assert_eq!(world.sql("select count(*) from agent_session"), "1");
}
