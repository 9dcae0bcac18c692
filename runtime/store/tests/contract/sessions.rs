//! Entering, joining and leaving.
use rollcall_schema::{LessonId, Seat, UserId};
use rollcall_store::{Change, Closed, Join, Joined, LeftReason, Open, RosterQuery, StoreError};

use crate::{
    on_both,
    world::{LEASE, Member, World, agent_id, classroom},
};

on_both!(
    a_new_session_is_entered_once,
    a_takeover_keeps_the_session_and_leaves_its_lesson,
    a_takeover_is_named_until_it_was_told,
    the_same_connection_asking_again_gets_the_same_answer,
    only_the_owner_closes,
    closing_moves_the_session_into_history,
    the_user_is_the_one_of_the_token_in_the_row_and_in_history,
    a_lesson_of_another_classroom_is_not_found,
    a_join_writes_lesson_and_seat,
    a_restore_puts_the_lesson_back,
    a_batch_answers_in_its_order,
    what_the_tables_do_not_take_is_refused_whole,
    a_user_has_only_so_many_sessions,
    empty_batches_are_answered,
    agents_come_in_pages,
    empty_classrooms_count_as_zero,
    placed_sessions_come_in_pages,
);

async fn a_new_session_is_entered_once(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let opened = world.open(&alice).await;
    assert_eq!(opened.replaced, None);
    let row = world.sql("select id, agent_id, classroom_id, node_id, sid, role from agent_session");
    let (node, sid) = (world.lease.node, alice.sid);
    assert_eq!(row, format!("{}|{}|{}|{node}|{sid}|participant", opened.session, alice.agent, alice.classroom));
    let events = world.events().await;
    assert_eq!(events.len(), 1);
    assert_eq!((events[0].session, &events[0].change), (opened.session, &Change::Entered));
    assert_eq!((events[0].classroom, &events[0].agent), (alice.classroom, &alice.agent));
}

async fn a_takeover_keeps_the_session_and_leaves_its_lesson(world: World) {
    let first = Member::new(classroom(), "web.alice");
    let opened = world.open(&first).await;
    let lesson = world.lesson("algebra-1", first.classroom, &[("alice", 7)]).await;
    world.join(first.join(opened.session, &lesson)).await;
    let started = world.sql("select started_at from agent_session");

    let second = first.again();
    let taken = world.open(&second).await;
    assert_eq!(taken.session, opened.session);
    assert_eq!(taken.replaced, Some((world.lease.node, first.sid)));
    assert_eq!(
        world.sql("select started_at, sid, lesson_id, seat from agent_session"),
        format!("{started}|{}||", second.sid)
    );
    assert_eq!(world.events().await.len(), 1, "no second entered");
}

async fn a_takeover_is_named_until_it_was_told(world: World) {
    let first = Member::new(classroom(), "web.alice");
    // When the connection asks again, it replaces no connection.
    world.open(&first).await;
    world.open(&first).await;
    let replaced = async || world.store.renew_lease(world.lease, LEASE).await.expect("renewed").replaced;
    assert_eq!(replaced().await, []);
    let (second, third) = (first.again(), first.again());
    world.open(&second).await;
    assert_eq!(replaced().await, [first.sid]);
    world.open(&third).await;
    let both = replaced().await;
    assert_eq!((both.len(), both.contains(&first.sid), both.contains(&second.sid)), (2, true, true));
    world.store.ack_takeovers(world.lease.node, &[first.sid]).await.expect("told");
    assert_eq!(replaced().await, [second.sid]);
    world.store.ack_takeovers(world.lease.node, &[first.sid, second.sid]).await.expect("told");
    assert_eq!(replaced().await, []);
}

async fn the_same_connection_asking_again_gets_the_same_answer(world: World) {
    let first = Member::new(classroom(), "web.alice");
    let opened = world.open(&first).await;
    assert_eq!(world.open(&first).await, opened);
    let second = first.again();
    let taken = world.open(&second).await;
    assert_eq!(world.open(&second).await, taken);
    assert_eq!(world.events().await.len(), 1);
}

async fn only_the_owner_closes(world: World) {
    let first = Member::new(classroom(), "web.alice");
    world.open(&first).await;
    let second = first.again();
    world.open(&second).await;
    assert_eq!(world.close(&first).await, Closed::NotOwner);
    assert_eq!(world.close(&Member::new(classroom(), "web.bob")).await, Closed::NotOwner);
    assert_eq!(world.sql("select sid from agent_session"), second.sid.to_string());
    assert_eq!(world.sql("select count(*) from agent_session_history"), "0");
}

async fn closing_moves_the_session_into_history(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let started = world.sql("select started_at from agent_session");
    assert_eq!(world.close(&alice).await, Closed::Left);
    assert_eq!(world.sql("select count(*) from agent_session"), "0");
    assert_eq!(
        world.sql("select id, agent_id, classroom_id, reason from agent_session_history"),
        format!("{session}|{}|{}|closed", alice.agent, alice.classroom)
    );
    let lifetime = world.sql("select lifetime from agent_session_history");
    assert!(lifetime.starts_with(&format!("[\"{started}\",\"")), "{lifetime} from {started}");
    let changes: Vec<_> = world.events().await.into_iter().map(|row| (row.session, row.change)).collect();
    assert_eq!(changes, [(session, Change::Entered), (session, Change::Left(Some(LeftReason::Closed)))]);

    let again = world.open(&alice.again()).await;
    assert!(again.session > session, "an ended session's id never comes back");
}

/// Tests that the user is stored as in the token, whatever the encoding in the agent's id is.
async fn the_user_is_the_one_of_the_token_in_the_row_and_in_history(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let user = UserId::parse("another+spelling").expect("a user");
    let opened = world.store.open(world.lease, &[Open { user: user.clone(), ..alice.open() }]).await.expect("opened");
    let session = opened[0].expect("one").session;
    assert_eq!(world.sql("select user_id from agent_session"), user.as_str());
    let lesson = world.lesson("algebra-1", alice.classroom, &[]).await;
    world.join(alice.join(session, &lesson)).await;
    let placed =
        world.store.lesson_memberships(world.lease.node, rollcall_schema::SessionId(0), 1).await.expect("read");
    assert_eq!(placed[0].user, user);
    assert_eq!(world.close(&alice).await, Closed::Left);
    let history = "select id, user_id, lesson_id from agent_session_history";
    assert_eq!(world.sql(history), format!("{session}|{user}|algebra-1"));
}

async fn a_lesson_of_another_classroom_is_not_found(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let elsewhere = world.lesson("algebra-1", classroom(), &[]).await;
    let missing = LessonId::parse("no-such").expect("an id");
    for lesson in [elsewhere, missing] {
        assert_eq!(world.join(alice.join(session, &lesson)).await, Joined::NotFound);
    }
    assert_eq!(world.sql("select lesson_id from agent_session"), "");
}

async fn a_join_writes_lesson_and_seat(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let lesson = world.lesson("algebra-1", alice.classroom, &[("alice", 7)]).await;
    let seated = Joined::Lesson { seats: 30, seat: Some(Seat(7)), shared: false };
    assert_eq!(world.join(alice.join(session, &lesson)).await, seated);
    assert_eq!(world.sql("select lesson_id, seat from agent_session"), "algebra-1|7");

    let stranger = Join { session: None, user: None, ..alice.again().join(session, &lesson) };
    assert_eq!(world.join(stranger).await, Joined::Lesson { seats: 30, seat: None, shared: false });
    assert_eq!(world.join(alice.again().join(session, &lesson)).await, Joined::NotOwner);
    world.close(&alice).await;
    assert_eq!(world.join(alice.join(session, &lesson)).await, Joined::NotOwner);
}

async fn a_restore_puts_the_lesson_back(world: World) {
    let alice = Member::new(classroom(), "web.alice");
    let session = world.open(&alice).await.session;
    let before = world.lesson("algebra-1", alice.classroom, &[("alice", 7)]).await;
    let failed = world.lesson("algebra-2", alice.classroom, &[]).await;
    for lesson in [Some((before, Some(Seat(7)))), None] {
        world.join(alice.join(session, &failed)).await;
        assert!(!world.restore(alice.again().restore(session, None)).await);
        assert_eq!(world.sql("select lesson_id from agent_session"), "algebra-2");
        assert!(world.restore(alice.restore(session, lesson.clone())).await);
        let row = lesson.map_or("|".to_owned(), |(lesson, _)| format!("{lesson}|7"));
        assert_eq!(world.sql("select lesson_id, seat from agent_session"), row);
    }
}

async fn a_batch_answers_in_its_order(world: World) {
    let here = classroom();
    let lesson = world.lesson("algebra-1", here, &[("u3", 3), ("u8", 8)]).await;
    let members: Vec<_> = (0..20).rev().map(|n| Member::new(here, &format!("web.u{n}"))).collect();
    let opens: Vec<_> = members.iter().map(Member::open).collect();
    let opened = world.store.open(world.lease, &opens).await.expect("opened");
    let opened: Vec<_> = opened.into_iter().flatten().collect();
    for (member, opened) in members.iter().zip(&opened) {
        let agent = world.sql(&format!("select agent_id from agent_session where id = {}", opened.session));
        assert_eq!(agent, member.agent.as_str());
    }
    let joins: Vec<_> =
        members.iter().zip(&opened).map(|(member, opened)| member.join(opened.session, &lesson)).collect();
    let joined = world.store.join(world.lease, &joins).await.expect("joined");
    for (member, joined) in members.iter().zip(joined) {
        let seat = [3, 8].into_iter().find(|n| member.agent == agent_id(&format!("web.u{n}"))).map(Seat);
        assert_eq!(joined, Joined::Lesson { seats: 30, seat, shared: false }, "{}", member.agent);
    }
    let closes: Vec<_> = members
        .iter()
        .enumerate()
        .map(|(n, member)| if n % 3 == 0 { member.again() } else { member.clone() }.close(LeftReason::Drained))
        .collect();
    let closed = world.store.close(world.lease, &closes).await.expect("closed");
    for (n, closed) in closed.into_iter().enumerate() {
        assert_eq!(closed, if n % 3 == 0 { Closed::NotOwner } else { Closed::Left });
    }
}

async fn what_the_tables_do_not_take_is_refused_whole(world: World) {
    let here = classroom();
    let members = ["web.alice", "web.bob"].map(|name| Member::new(here, name));
    let session = world.open(&members[0]).await.session;
    world.open(&members[1]).await;
    world.poison(session);
    let closes = members.each_ref().map(|member| member.close(LeftReason::Closed));
    let answer = world.store.close(world.lease, &closes).await;
    assert!(matches!(answer, Err(StoreError::Refused(_))), "{answer:?}");
    assert_eq!(world.sql("select count(*) from agent_session"), "2", "all or nothing");
    assert_eq!(world.close(&members[1]).await, Closed::Left);
}

async fn empty_batches_are_answered(world: World) {
    assert!(world.store.open(world.lease, &[]).await.expect("answered").is_empty());
    assert!(world.store.join(world.lease, &[]).await.expect("answered").is_empty());
    assert!(world.store.restore_lesson(world.lease, &[]).await.expect("answered").is_empty());
    assert!(world.store.close(world.lease, &[]).await.expect("answered").is_empty());
}

async fn agents_come_in_pages(world: World) {
    let here = classroom();
    let mut expected = Vec::new();
    for n in 0..7 {
        let member = Member::new(here, &format!("web.u{}", 9 - n));
        expected.push((world.open(&member).await.session, member.agent));
        world.open(&Member::new(classroom(), "web.elsewhere")).await;
    }
    let mut after = rollcall_schema::SessionId(0);
    let mut found = Vec::new();
    loop {
        let query = RosterQuery { classroom: here, lesson: None, after };
        let page = world.store.agents(&[query], 3).await.expect("answered").remove(0);
        let Some(last) = page.last() else { break };
        after = last.session_id;
        assert!(page.len() <= 3);
        found.extend(page.into_iter().map(|agent| (agent.session_id, agent.agent_id)));
    }
    assert_eq!(found, expected);
}

async fn empty_classrooms_count_as_zero(world: World) {
    let (full, empty) = (classroom(), classroom());
    for n in 0..3 {
        world.open(&Member::new(full, &format!("web.u{n}"))).await;
    }
    let counts = world.store.count_agents(&[empty, full, empty, full]).await.expect("answered");
    assert_eq!(counts, [0, 3, 0, 3]);
    assert!(world.store.count_agents(&[]).await.expect("answered").is_empty());
}

async fn placed_sessions_come_in_pages(world: World) {
    let here = classroom();
    let lesson = world.lesson("algebra-1", here, &[]).await;
    let mut expected = Vec::new();
    for n in 0..5 {
        let member = Member::new(here, &format!("web.u{n}"));
        let session = world.open(&member).await.session;
        if n != 2 {
            world.join(member.join(session, &lesson)).await;
            expected.push((session, member.sid, member.agent.user()));
        }
    }
    let node = world.lease.node;
    let first = world.store.lesson_memberships(node, rollcall_schema::SessionId(0), 3).await.expect("answered");
    let rest = world.store.lesson_memberships(node, first[2].session, 3).await.expect("answered");
    let found: Vec<_> =
        first.iter().chain(&rest).map(|placed| (placed.session, placed.sid, placed.user.clone())).collect();
    assert_eq!(found, expected);
    assert!(first.iter().all(|placed| placed.lesson == lesson && placed.seats == 30));
}

async fn a_user_has_only_so_many_sessions(world: World) {
    let room = classroom();
    let of_alice = |label: usize, room| {
        let member = Member::new(room, &format!("label{label}.alice"));
        let open = Open { user_sessions: 3, ..member.open() };
        (member, open)
    };
    let opened = async |opens: &[Open]| {
        let opened = world.store.open(world.lease, opens).await.expect("answered");
        opened.iter().map(Option::is_some).collect::<Vec<_>>()
    };
    let members: Vec<_> = (0..5).map(|label| of_alice(label, room)).collect();
    let opens: Vec<_> = members.iter().map(|(_, open)| open.clone()).collect();
    // The sessions of one batch count each other.
    assert_eq!(opened(&opens).await.iter().filter(|opened| **opened).count(), 3);
    assert_eq!(opened(&opens[3..]).await, [false, false]);
    let bob = Member::new(room, "web.bob").open();
    // Sessions in another classroom count, and those of another user do not. The same agent may always take its session
    // over.
    let again = Open { sid: rollcall_schema::Sid::random(), ..opens[0].clone() };
    let elsewhere = of_alice(9, classroom()).1;
    assert_eq!(opened(&[elsewhere.clone(), bob, again]).await, [false, true, true]);
    assert_eq!(world.sql("select count(*) from agent_session"), "4");
    assert_eq!(world.events().await.len(), 4);
    world.store.close(world.lease, &[members[1].0.close(LeftReason::Closed)]).await.expect("closed");
    assert_eq!(opened(&[elsewhere]).await, [true]);
    // No other session of the user can be opened, even if all requests of a batch are refused.
    assert_eq!(opened(&opens[3..4]).await, [false]);
}
