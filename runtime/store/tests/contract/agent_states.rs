//! What agents show of themselves, info and state, and the events that publish them.
use rollcall_loadtest::servers::psql;
use rollcall_schema::{JsonObject, LessonId, Role, Seat, SessionId, StateVersion, Update};
use rollcall_store::{Change, Closed, LeftReason, Open, OutboxRow, RosterQuery, SetState};

use crate::{
    on_both,
    world::{Member, World, classroom, is_fenced},
};

on_both!(
    a_state_is_stored_and_told,
    an_update_that_waits_is_folded_into_the_next,
    only_the_connection_that_owns_the_session_sets_its_state,
    a_takeover_keeps_the_state,
    a_takeover_tells_another_role_and_info_once,
    a_folded_update_still_tells_role_and_info,
    a_batch_of_states_answers_in_its_order,
    a_node_that_lost_its_lease_sets_no_state,
    what_is_quarantined_keeps_what_it_tells,
    agents_show_lesson_seat_info_and_state,
    several_rosters_are_read_at_once,
);

fn object(text: &str) -> JsonObject {
    JsonObject::parse(text).expect("an object")
}

impl World {
    async fn set(&self, member: &Member, session: SessionId, state: Option<&str>) -> Option<StateVersion> {
        let set = SetState { sid: member.sid, session, state: state.map(object) };
        self.store.set_state(self.lease, &[set]).await.expect("answered").remove(0)
    }

    /// Returns the changes in the outbox, each with the info that its event has.
    async fn told(&self) -> Vec<(Change, Option<JsonObject>)> {
        let tell = |row: OutboxRow| (row.change, row.info);
        self.events().await.into_iter().map(tell).collect()
    }
}

fn updated(state: Option<&str>, state_n: StateVersion, role: Option<Role>) -> Change {
    Change::Updated(Box::new(Update { state: state.map(object), state_n, role }))
}

const LEFT: Change = Change::Left(Some(LeftReason::Closed));

async fn a_state_is_stored_and_told(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    assert_eq!(world.agents(alice.classroom).await[0].state_n, StateVersion(0));
    assert_eq!(world.told().await, [(Change::Entered, None)]);
    let text = r#"{ "hand": true }"#;
    let first = world.set(&alice, session, Some(text)).await.expect("hers");
    let agent = world.agents(alice.classroom).await.remove(0);
    assert_eq!((agent.state, agent.state_n), (Some(object(text)), first), "byte for byte");
    assert_eq!(world.told().await, [(updated(Some(text), first, None), None)]);

    let second = world.set(&alice, session, None).await.expect("hers");
    assert!(second > first);
    let agent = world.agents(alice.classroom).await.remove(0);
    assert_eq!((agent.state, agent.state_n), (None, second));
    assert_eq!(world.close(&alice).await, Closed::Left);
    assert_eq!(world.told().await, [(updated(None, second, None), None), (LEFT, None)]);
}

async fn an_update_that_waits_is_folded_into_the_next(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let mut last = StateVersion(0);
    let rows = async || world.sql("select id from outbox order by id");
    let mut before = rows().await;
    for n in 1..=5 {
        let version = world.set(&alice, session, Some(&format!(r#"{{"n":{n}}}"#))).await.expect("hers");
        assert!(version > last);
        last = version;
        // The update is a new row each time, so that a row that a relay has read does not change.
        assert_ne!(rows().await, before);
        before = rows().await;
    }
    world.close(&alice).await;
    let told = [Change::Entered, updated(Some(r#"{"n":5}"#), last, None), LEFT];
    assert_eq!(world.told().await, told.map(|change| (change, None)));
}

async fn only_the_connection_that_owns_the_session_sets_its_state(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let again = alice.again();
    assert_eq!(world.set(&again, session, Some("{}")).await, None, "not yet");
    world.open(&again).await;
    assert_eq!(world.set(&alice, session, Some("{}")).await, None, "no more");
    assert!(world.set(&again, session, Some("{}")).await.is_some());
    world.close(&again).await;
    assert_eq!(world.set(&again, session, Some("{}")).await, None, "it has ended");
    assert_eq!(world.told().await.len(), 3);
}

async fn a_takeover_keeps_the_state(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let version = world.set(&alice, session, Some(r#"{"hand":true}"#)).await.expect("hers");
    let again = alice.again();
    assert_eq!(world.open(&again).await.session, session);
    let agent = world.agents(alice.classroom).await.remove(0);
    assert_eq!((agent.state, agent.state_n), (Some(object(r#"{"hand":true}"#)), version));
    assert_eq!(world.told().await.len(), 2, "nothing changed");
}

async fn a_takeover_tells_another_role_and_info_once(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let info = object(r#"{"name":"Alice"}"#);
    let open = Open { info: Some(info.clone()), ..alice.open() };
    let open_all = async |open: &Open| world.store.open(world.lease, std::slice::from_ref(open)).await.expect("opened");
    let session = open_all(&open).await[0].expect("let in").session;
    assert_eq!(world.told().await, [(Change::Entered, Some(info.clone()))]);
    world.set(&alice, session, Some(r#"{"hand":true}"#)).await.expect("hers");
    world.told().await;

    let teacher = Open { role: Role::Teacher, sid: rollcall_schema::Sid::random(), ..open.clone() };
    open_all(&teacher).await;
    // The first answer of this connection was lost, so it asks again.
    open_all(&teacher).await;
    let agent = world.agents(alice.classroom).await.remove(0);
    assert_eq!((agent.role, agent.info.as_ref()), (Role::Teacher, Some(&info)));
    let told = (updated(Some(r#"{"hand":true}"#), agent.state_n, Some(Role::Teacher)), Some(info));
    assert_eq!(world.told().await, [told]);

    let nameless = Open { info: None, sid: rollcall_schema::Sid::random(), ..teacher };
    open_all(&nameless).await;
    let agent = world.agents(alice.classroom).await.remove(0);
    assert_eq!(agent.info, None);
    let told = (updated(Some(r#"{"hand":true}"#), agent.state_n, Some(Role::Teacher)), None);
    assert_eq!(world.told().await, [told]);
    let same = Open { sid: rollcall_schema::Sid::random(), ..nameless };
    open_all(&same).await;
    assert_eq!(world.told().await, []);
}

async fn a_folded_update_still_tells_role_and_info(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let again = alice.again();
    let info = object(r#"{"name":"Alice"}"#);
    let teacher = Open { role: Role::Teacher, info: Some(info.clone()), ..again.open() };
    world.store.open(world.lease, &[teacher]).await.expect("opened");
    world.set(&again, session, Some(r#"{"n":1}"#)).await.expect("hers");
    let last = world.set(&again, session, Some(r#"{"n":2}"#)).await.expect("hers");
    let told = (updated(Some(r#"{"n":2}"#), last, Some(Role::Teacher)), Some(info));
    assert_eq!(world.told().await, [(Change::Entered, None), told]);
}

async fn a_batch_of_states_answers_in_its_order(world: World) {
    let here = classroom();
    let members: Vec<_> = (0..10).map(|n| Member::new(here, &format!("web.u{n}"))).collect();
    let opens: Vec<_> = members.iter().map(Member::open).collect();
    let opened = world.store.open(world.lease, &opens).await.expect("opened");
    let set = |(n, (member, opened)): (usize, (&Member, &Option<rollcall_store::Opened>))| SetState {
        sid: if n % 3 == 0 { rollcall_schema::Sid::random() } else { member.sid },
        session: opened.expect("let in").session,
        state: Some(object(&format!(r#"{{"n":{n}}}"#))),
    };
    let batch: Vec<_> = members.iter().zip(&opened).enumerate().rev().map(set).collect();
    let answers = world.store.set_state(world.lease, &batch).await.expect("answered");
    for (set, version) in batch.iter().zip(answers) {
        let agents = world.agents(here).await;
        let agent = agents.into_iter().find(|agent| agent.session_id == set.session).expect("there");
        assert_eq!(version, (agent.state_n.0 > 0).then_some(agent.state_n));
        assert_eq!(version.map(|_| set.state.clone()), agent.state.map(Some));
    }
    assert!(world.store.set_state(world.lease, &[]).await.expect("answered").is_empty());
    assert!(world.store.agents(&[], 10).await.expect("answered").is_empty());
}

async fn a_node_that_lost_its_lease_sets_no_state(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    world.sql("update node set epoch = epoch + 1");
    let set = SetState { sid: alice.sid, session, state: None };
    assert!(is_fenced(world.store.set_state(world.lease, &[set]).await));
}

async fn what_is_quarantined_keeps_what_it_tells(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let info = object(r#"{"name":"Alice"}"#);
    let open = Open { info: Some(info.clone()), ..alice.open() };
    let session = world.store.open(world.lease, &[open]).await.expect("opened")[0].expect("let in").session;
    let version = world.set(&alice, session, Some(r#"{"n":1}"#)).await.expect("hers");
    let mut outbox = world.outbox().await;
    let ids: Vec<i64> = outbox.read(10).await.expect("read").iter().map(|row| row.id).collect();
    outbox.quarantine(&ids, "a test").await.expect("set aside");
    // The quarantined update is not in the outbox, so it is not folded.
    let later = world.set(&alice, session, Some(r#"{"n":2}"#)).await.expect("hers");
    assert!(outbox.read(10).await.expect("read").is_empty(), "it waits for the others");
    world.sql("update outbox_quarantine set retry_at = created_at");
    outbox.release_quarantined().await.expect("released");
    drop(outbox);
    let told = [
        (Change::Entered, Some(info)),
        (updated(Some(r#"{"n":1}"#), version, None), None),
        (updated(Some(r#"{"n":2}"#), later, None), None),
    ];
    assert_eq!(world.told().await, told);
}

async fn agents_show_lesson_seat_info_and_state(world: World) {
    let here = classroom();
    let algebra = world.lesson("algebra-1", here, &[("alice", 3)]).await;
    let [alice, bob] = ["web.alice", "web.bob"].map(|name| Member::new(here, name));
    let session = world.open(&alice).await.session;
    let other = world.open(&bob).await.session;
    world.join(alice.join(session, &algebra)).await;
    let agents = world.agents(here).await;
    let seen: Vec<_> = agents.iter().map(|agent| (agent.session_id, agent.lesson_id.clone(), agent.seat)).collect();
    assert_eq!(seen, [(session, Some(algebra.clone()), Some(Seat(3))), (other, None, None)]);
    let query = |lesson| RosterQuery { classroom: here, lesson, after: SessionId(0) };
    let read = async |lesson: Option<LessonId>| world.store.agents(&[query(lesson)], 10).await.expect("read").remove(0);
    assert_eq!(read(Some(algebra)).await, agents[..1]);
    assert_eq!(read(LessonId::parse("biology-1").ok()).await, []);
}

async fn several_rosters_are_read_at_once(world: World) {
    let rooms = [classroom(), classroom(), classroom()];
    for (count, room) in rooms[..2].iter().enumerate() {
        for n in 0..=count {
            world.open(&Member::new(*room, &format!("web.u{n}"))).await;
        }
    }
    let query = |classroom, after| RosterQuery { classroom, lesson: None, after };
    let all = world.agents(rooms[1]).await;
    let queries = [
        query(rooms[2], SessionId(0)),
        query(rooms[1], SessionId(0)),
        query(rooms[0], SessionId(0)),
        query(rooms[1], all[0].session_id),
    ];
    let read = world.store.agents(&queries, 10).await.expect("read");
    assert_eq!(read.iter().map(Vec::len).collect::<Vec<_>>(), [0, 2, 1, 1]);
    assert_eq!((&read[1], &read[3][0]), (&all, &all[1]));
}

/// A relay is about to delete the update into which a new update would be folded. The relay does not delay the new
/// update, and the new update does not delay the relay.
#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn an_update_that_the_relay_deletes_is_not_waited_for() {
    let world = World::postgres().await;
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let first = world.set(&alice, session, Some(r#"{"n":1}"#)).await.expect("hers");
    let url = world.url().to_owned();
    let (locked, is_locked) = tokio::sync::oneshot::channel();
    let deleting = tokio::task::spawn_blocking(move || {
        locked.send(()).ok();
        psql(&url, "begin; delete from outbox where operation = 'updated'; select pg_sleep(3); commit")
    });
    is_locked.await.expect("begun");
    let waits = "select count(*) from pg_stat_activity where query like '%pg_sleep(3)%' and wait_event = 'PgSleep'";
    while world.sql(waits) != "1" {
        tokio::task::yield_now().await;
    }
    let second = world.set(&alice, session, Some(r#"{"n":2}"#)).await.expect("in time");
    assert!(second > first);
    deleting.await.expect("no panic").expect("deleted");
    let told = [Change::Entered, updated(Some(r#"{"n":2}"#), second, None)];
    assert_eq!(world.told().await, told.map(|change| (change, None)));
}
