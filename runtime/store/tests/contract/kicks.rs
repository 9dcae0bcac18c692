//! An operator ends sessions.
use rollcall_schema::{ClassroomId, SessionId, Sid};
use rollcall_store::{Change, Closed, Joined, KickTarget, LeftReason};

use crate::{
    on_both,
    world::{LEASE, Member, World, classroom, is_fenced, register},
};

on_both!(
    a_kicked_session_is_ended_whole,
    a_kick_is_told_until_it_was_heard,
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
    assert_eq!(world.sql("select reason, user_id, lesson_id from agent_session_history"), "kicked|alice|algebra-1");
    let changes: Vec<_> = world.events().await.into_iter().map(|row| row.change).collect();
    assert_eq!(changes, [Change::Entered, Change::Left(Some(LeftReason::Kicked))]);
    // A join of the connection may be under way: its field goes once it has ended.
    assert_eq!(world.store.stale_fields(world.lease.node, 10).await.expect("read"), []);
    world.store.add_stale_fields(world.lease.node, &[], &[alice.sid]).await.expect("released");
    assert_eq!(world.store.stale_fields(world.lease.node, 10).await.expect("read").len(), 1);
}

async fn a_kick_is_told_until_it_was_heard(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let heard = async || world.store.renew_lease(world.lease, LEASE).await.expect("renewed").kicked;
    assert_eq!(heard().await, []);
    kick(&world, KickTarget::Session(session)).await;
    assert_eq!((heard().await, heard().await), (vec![alice.sid], vec![alice.sid]));
    assert_eq!(world.store.kicks(world.lease.node).await.expect("read"), [alice.sid]);
    world.store.ack_kicks(world.lease.node, &[alice.sid, Sid::random()]).await.expect("heard");
    assert_eq!(heard().await, []);
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
