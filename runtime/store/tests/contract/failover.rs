//! What the store does with a database that lost its last commits.
use std::time::Duration;

use rollcall_schema::{JsonObject, Role, SessionId, Update, UserId};
use rollcall_store::{
    Change, Kick, KickTarget, LeftReason, Open, Registration, Remembered, SetState, Standing, StoreError,
};

use crate::{
    on_both,
    world::{LEASE, Member, World, classroom, is_fenced, register},
};

on_both!(
    a_session_without_a_row_is_ended_from_memory_once,
    a_session_that_is_anothers_is_not_ended,
    a_session_that_an_operator_ended_is_known_as_such,
    a_connection_whose_join_or_session_is_lost_leaves_a_stale_field,
    rows_of_a_node_come_in_pages,
    a_restored_database_begins_anew,
);

fn remembered(member: &Member, session: SessionId) -> Remembered {
    Remembered {
        session,
        classroom: member.classroom,
        agent: member.agent.clone(),
        user: UserId::parse("alice").expect("a user"),
        sid: member.sid,
        lesson: None,
        age: Duration::from_secs(60),
        sets_state: false,
        reason: LeftReason::NodeLost,
        resume_id: None,
    }
}

async fn verify(world: &World, one: Remembered) -> Standing {
    world.store.verify(world.lease, &[one]).await.expect("verified").remove(0)
}

async fn a_session_without_a_row_is_ended_from_memory_once(world: World) {
    let here = classroom();
    let [alice, bob] = ["web.alice", "web.bob"].map(|name| Member::new(here, name));
    let lost = world.open(&alice).await.session;
    let kept = world.open(&bob).await.session;
    world.sql(&format!("delete from agent_session where id = {lost}"));
    world.events().await;

    let batch = [remembered(&bob, kept), remembered(&alice, lost)];
    let standings = world.store.verify(world.lease, &batch).await.expect("verified");
    assert_eq!(standings, [Standing::Owned, Standing::Lost]);
    assert_eq!(verify(&world, remembered(&alice, lost)).await, Standing::NotOwned, "it is in the history now");
    let history = world.sql("select id, agent_id, reason from agent_session_history");
    assert_eq!(history, format!("{lost}|{}|node_lost", alice.agent));
    let events = world.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].session, &events[0].change), (lost, &Change::Left(Some(LeftReason::NodeLost))));

    let wrong = register(&*world.another_or_same(), LEASE).await;
    world.store.release_lease(wrong).await.expect("retired");
    assert!(is_fenced(world.store.verify(wrong, &batch).await));
}

async fn a_session_that_is_anothers_is_not_ended(world: World) {
    let first = Member::new(classroom(), "web.alice");
    let session = world.open(&first).await.session;
    let second = first.again();
    world.open(&second).await;
    assert_eq!(verify(&world, remembered(&first, session)).await, Standing::Replaced);
    assert_eq!(verify(&world, remembered(&second, session)).await, Standing::Owned);
    // The takeover was acknowledged, so the database no longer has the connection that took over.
    world.store.ack_takeovers(world.lease.node, &[first.sid]).await.expect("told");
    assert_eq!(verify(&world, remembered(&first, session)).await, Standing::NotOwned);
    // The agent has come again, in a later session.
    let earlier = SessionId(session.0 - 1);
    assert_eq!(verify(&world, remembered(&first, earlier)).await, Standing::Replaced);
    let history = world.sql("select id from agent_session_history");
    assert_eq!(history, earlier.to_string(), "what was lost is ended, though its agent is there again");
}

async fn a_session_that_an_operator_ended_is_known_as_such(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    world.store.kick(world.lease, &KickTarget::Session(session), 10).await.expect("kicked");
    // The agent may already be back.
    world.open(&alice.again()).await;
    assert_eq!(verify(&world, remembered(&alice, session)).await, Standing::Kicked);
    let kick = Kick { sid: alice.sid, lesson: None };
    world.store.ack_kicks(world.lease.node, &[kick]).await.expect("told");
    assert_eq!(verify(&world, remembered(&alice, session)).await, Standing::Replaced);
}

async fn a_connection_whose_join_or_session_is_lost_leaves_a_stale_field(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    let session = world.open(&alice).await.session;
    world.join(alice.join(session, &lesson)).await;
    let in_lesson = || Remembered { lesson: Some(lesson.clone()), ..remembered(&alice, session) };
    let stale = || world.sql("select lesson_id, user_id, sid from stale_field order by id");
    assert_eq!(verify(&world, in_lesson()).await, Standing::Owned);
    assert_eq!(stale(), "");
    world.sql("update agent_session set lesson_id = null");
    assert_eq!(verify(&world, in_lesson()).await, Standing::NotOwned);
    let field = format!("algebra-1|alice|{}", alice.sid);
    assert_eq!(stale(), field);
    world.sql("delete from agent_session");
    assert_eq!(verify(&world, in_lesson()).await, Standing::Lost);
    assert_eq!(stale(), format!("{field}\n{field}"));
}

async fn rows_of_a_node_come_in_pages(world: World) {
    let members = ["web.alice", "web.bob", "web.carol"].map(|name| Member::new(classroom(), name));
    let mut sessions = Vec::new();
    for member in &members {
        sessions.push(world.open(member).await.session);
    }
    let node = world.lease.node;
    let page = world.store.owned_sessions(node, SessionId(0), 2).await.expect("read");
    assert_eq!(page.iter().map(|(session, _)| *session).collect::<Vec<_>>(), sessions[..2]);
    let page = world.store.owned_sessions(node, sessions[1], 2).await.expect("read");
    assert_eq!(
        page.iter().map(|(session, close)| (*session, close.sid)).collect::<Vec<_>>(),
        [(sessions[2], members[2].sid)]
    );
    assert!(world.store.knows_node(node).await.expect("answered"));
    world.sql("delete from node");
    assert!(!world.store.knows_node(node).await.expect("answered"));
}

async fn a_restored_database_begins_anew(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let installation = world.store.installation().await.expect("an id");
    let store = world.another();
    let refused = store.prepare_restored().await;
    assert!(matches!(&refused, Err(StoreError::Refused(why)) if why.contains("stop")), "{refused:?}");

    // The backup that was put back is from before that node existed.
    let world = world.forgets_its_lock();
    world.sql("update node set lease_until = '2000-01-01 00:00:00'");
    let done = store.prepare_restored().await.expect("restored");
    assert_eq!((done.sessions, done.events), (1, 1));
    assert_ne!(store.installation().await.expect("an id"), installation);
    assert_eq!(world.sql("select id, reason from agent_session_history"), format!("{session}|node_lost"));
    let left = ["node", "agent_session", "outbox"].map(|table| world.sql(&format!("select count(*) from {table}")));
    assert_eq!(left, ["0"; 3]);
    let lease = register(&*store, LEASE).await;
    let again = store.open(lease, &[alice.again().open()]).await.expect("opened")[0].expect("let in").session;
    assert!(again.0 > session.0 + 1_000_000, "{again} after {session}");
}

/// Changes the database's own record, so that its history differs.
fn another_history(world: &World) {
    world.sql("update installation set timeline = 'another'");
}

#[tokio::test]
async fn the_first_connection_to_another_history_raises_the_ids_before_it_writes() {
    let world = World::postgres().await;
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let began = *world.store.incarnation().borrow();
    another_history(&world);
    let others = [world.another(), world.another(), world.another()];
    let (one, two, three) =
        tokio::join!(register(&*others[0], LEASE), register(&*others[1], LEASE), register(&*others[2], LEASE));
    let found: Vec<_> = others.iter().map(|store| *store.incarnation().borrow()).collect();
    assert!(found[0].is_some() && found[0] != began && found.iter().all(|one| *one == found[0]), "{found:?}");
    let bob = Member::new(classroom(), "web.bob");
    let next = others[0].open(one, &[bob.open()]).await.expect("opened")[0].expect("let in").session;
    assert!(next.0 > session.0 + 1_000_000 && next.0 < session.0 + 1_999_999, "once: {next} after {session}");
    for lease in [one, two, three] {
        assert!(lease.node.0 > world.lease.node.0 + 1_000_000, "so that no other node has this one's id");
    }
    // A session from before the loss is ended and not taken over, because its left may have been published.
    world.events().await;
    let taking = [alice.again().open(), bob.again().open()];
    let opened = others[0].open(one, &taking).await.expect("opened");
    let [anew, taken] = [0, 1].map(|place| opened[place].expect("let in"));
    assert!(anew.session > next && taken.session == next, "{opened:?}");
    assert_eq!(anew.replaced, Some((world.lease.node, alice.sid)));
    let events: Vec<_> = world.events().await.into_iter().map(|row| (row.session, row.change)).collect();
    assert_eq!(events, [(session, Change::Left(Some(LeftReason::NodeLost))), (anew.session, Change::Entered)]);
    assert_eq!(world.sql("select id, reason from agent_session_history"), format!("{session}|node_lost"));
    assert_eq!(world.sql("select sid from takeover order by sid").lines().count(), 2, "both are told");
    let again = others[0].open(one, &taking[..1]).await.expect("opened")[0].expect("let in");
    assert_eq!((again.session, again.replaced), (anew.session, None), "the same connection asks again");
}

/// A later state may have been published, and lost.
#[tokio::test]
async fn a_state_of_before_is_told_again_above_all_versions() {
    let world = World::postgres().await;
    let here = classroom();
    let members = ["web.alice", "web.bob", "web.carol", "web.dave"].map(|name| Member::new(here, name));
    let mut sessions = Vec::new();
    for member in &members {
        sessions.push(world.open(member).await.session);
    }
    let state = JsonObject::parse(r#"{"hand":true}"#).ok();
    let set = |n: usize| SetState { sid: members[n].sid, session: sessions[n], state: state.clone() };
    world.store.set_state(world.lease, &[set(0), set(1)]).await.expect("set");
    world.events().await;
    another_history(&world);
    let other = world.another();
    let lease = register(&*other, LEASE).await;
    let mut batch: Vec<_> =
        members.iter().zip(&sessions).map(|(member, session)| remembered(member, *session)).collect();
    // The session's node remembers that it has set a state, and the database does not have it.
    batch[3].sets_state = true;
    assert_eq!(other.verify(world.lease, &batch).await.expect("verified"), [Standing::Owned; 4]);
    let agents = world.agents(here).await;
    assert!(agents[..2].iter().all(|agent| agent.state_n.0 > 1_000_000));
    assert_eq!(agents[2].state_n.0, 0, "it has none");
    let told = |n: usize, state_n, state: &Option<JsonObject>| {
        let role = Some(Role::Participant);
        (sessions[n], Change::Updated(Box::new(Update { state: state.clone(), state_n, role })))
    };
    let events = async || world.events().await.into_iter().map(|row| (row.session, row.change)).collect::<Vec<_>>();
    let [alice, bob, _, dave] = [0, 1, 2, 3].map(|n| agents[n].state_n);
    assert_eq!(events().await, [told(0, alice, &state), told(1, bob, &state), told(3, dave, &None)]);
    // The agent's next connection gets a new session without a state.
    let anew = other.open(lease, &[members[0].again().open()]).await.expect("opened")[0].expect("let in").session;
    let left = Change::Left(Some(LeftReason::NodeLost));
    assert_eq!(events().await, [(sessions[0], left), (anew, Change::Entered)]);
}

#[tokio::test]
async fn ids_that_were_given_out_and_are_unknown_to_the_database_show_another_history_too() {
    let world = World::postgres().await;
    for name in ["web.alice", "web.bob", "web.carol"] {
        world.open(&Member::new(classroom(), name)).await;
    }
    let seen: i64 = world.sql("select max(id) from agent_session").parse().expect("a number");
    world.sql("select setval('agent_session_id_seq', 1)");
    world.sql(
        "select pg_terminate_backend(pid) from pg_stat_activity where datname = current_database() \
         and application_name = 'rollcall'",
    );
    let dora = Member::new(classroom(), "web.dora");
    let opened = loop {
        // The first call may meet a connection that has just ended.
        if let Ok(opened) = world.store.open(world.lease, &[dora.open()]).await {
            break opened[0].expect("let in").session;
        }
    };
    assert!(opened.0 > seen + 1_000_000, "{opened} after {seen}");
}

#[tokio::test]
async fn a_role_without_rights_to_sequences_raises_the_ids() {
    let world = World::postgres().await;
    world.open(&Member::new(classroom(), "web.alice")).await;
    another_history(&world);
    let database = world.sql("select current_database()");
    let role = format!("plain_{database}");
    world.sql(&format!("create role {role} login"));
    world.sql(&format!("grant select, insert, update, delete on all tables in schema public to {role}"));
    let store = crate::world::connect(&world.url().replace("postgres@", &format!("{role}@")));
    let lease = register(&*store, LEASE).await;
    let opened = store.open(lease, &[Member::new(classroom(), "web.bob").open()]).await.expect("opened")[0]
        .expect("let in")
        .session;
    assert!(opened.0 > 1_000_000, "{opened}");
    // The role does not need such a right for a takeover with an event, nor for a state.
    let carol = Member::new(classroom(), "web.carol");
    store.open(lease, &[carol.open()]).await.expect("opened");
    let teacher = Open { role: Role::Teacher, ..carol.again().open() };
    let session = store.open(lease, std::slice::from_ref(&teacher)).await.expect("opened")[0].expect("let in").session;
    let set = SetState { sid: teacher.sid, session, state: None };
    assert!(store.set_state(lease, &[set]).await.expect("set")[0].is_some());
}

#[tokio::test]
async fn each_start_of_an_sqlite_file_but_the_first_raises_the_ids() {
    let world = World::sqlite().await;
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    assert!(session.0 < 1_000_000);
    world.close(&alice).await;
    let lease = register(&*world.store, LEASE).await;
    let again = world.store.open(lease, &[alice.again().open()]).await.expect("opened")[0].expect("let in").session;
    assert!(again.0 > session.0 + 1_000_000);
}

#[tokio::test]
async fn a_rival_whose_process_is_dead_is_no_rival() {
    use rollcall_base::process::ProcessIdentity;
    let world = World::postgres().await;
    let other = world.another();
    let own = ProcessIdentity::current();
    let registration = Registration { label: "late".to_owned(), lease: LEASE, standalone: true, process: own.clone() };
    let set = |process: &str| world.sql(&format!("update node set process = '{process}' where label = 'test'"));
    let mut child = std::process::Command::new("sleep").arg("1000").spawn().expect("a child");
    let of_child = {
        let stat = std::fs::read_to_string(format!("/proc/{}/stat", child.id())).expect("a child's");
        let started = stat.rsplit_once(") ").expect("a name").1.split(' ').nth(19).expect("a start").to_owned();
        let text = own.expect("a process of Linux").to_string();
        let place = text.rsplitn(3, '/').last().expect("a place").to_owned();
        format!("{place}/{}/{started}", child.id())
    };
    set(&of_child);
    assert!(matches!(other.register(&registration).await, Err(StoreError::Refused(_))), "it lives");
    child.kill().expect("killed");
    child.wait().expect("ended");
    set(&format!("elsewhere {of_child}"));
    assert!(matches!(other.register(&registration).await, Err(StoreError::Refused(_))), "it may live elsewhere");
    set(&of_child);
    let lease = other.register(&registration).await.expect("alone");
    assert!(is_fenced(world.store.renew_lease(world.lease, LEASE).await), "its lease is taken");
    assert_eq!(other.renew_lease(lease, LEASE).await.expect("renewed").nodes, 1);
}
