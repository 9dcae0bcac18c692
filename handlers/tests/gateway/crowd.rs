//! 500 agents in rooms of 30 enter at once, join their lessons and leave: each sees exactly the others' events, and
//! every session that entered has left.

use std::collections::{BTreeMap, BTreeSet};

use crate::common::{Agent, Backend, Classroom, Fence, SOON, on_both_kinds, until};
use futures_util::future::join_all;

on_both_kinds!(five_hundred_agents);

const AGENTS: usize = 500;
const ROOM: usize = 30;

/// The events that one agent saw: `(label, session)` in their order.
type Seen = Vec<(String, i64)>;

async fn five_hundred_agents(backend: &Backend) {
    let _held = crate::common::loads_the_machine().await;
    let sizes = (0..AGENTS).step_by(ROOM).map(|first| ROOM.min(AGENTS - first));
    let rooms: Vec<_> = sizes.map(|size| (backend.classroom(), size)).collect();
    // The witness enters before the others, so it must see exactly all of them.
    let mut witnesses = join_all(rooms.iter().map(|(room, _)| backend.participant(room, "witness"))).await;

    let entering = rooms.iter().map(|(room, size)| join_all((1..*size).map(|number| enter(backend, room, number))));
    let mut crowds: Vec<Vec<Agent>> = join_all(entering).await;
    let entered =
        join_all(witnesses.iter_mut().zip(&crowds).map(|(witness, crowd)| sees_all(witness, "entered", crowd)));
    entered.await;

    // The fence comes after every event that any agent could see.
    let seen = crowds.iter_mut().zip(&rooms).map(|(crowd, (room, _))| {
        let fence = backend.fence(room);
        async move { join_all(crowd.iter_mut().map(|agent| until_fence(agent, &fence))).await }
    });
    let seen: Vec<Vec<Seen>> = join_all(seen).await;
    for ((crowd, seen), witness) in crowds.iter().zip(&seen).zip(&witnesses) {
        expect_each_pair(crowd, seen, witness.session);
    }
    // The witnesses read to a fence of their own.
    for witness in &mut witnesses {
        witness.client.next_event(SOON).await.unwrap();
    }

    let sessions: Vec<Vec<i64>> =
        crowds.iter().map(|crowd| crowd.iter().map(|agent| agent.session).collect()).collect();
    let leaving = crowds.into_iter().flatten().map(|agent| async { agent.client.close().await.unwrap() });
    join_all(leaving).await;
    for ((witness, sessions), (room, _)) in witnesses.iter_mut().zip(&sessions).zip(&rooms) {
        let mut left = BTreeSet::new();
        for _ in sessions {
            let event = witness.client.next_event(SOON).await.unwrap();
            assert_eq!(event.label(), Some("left"), "{event:?}");
            assert!(left.insert(event.sequence_id().unwrap()), "twice: {event:?}");
        }
        assert_eq!(left, sessions.iter().copied().collect());
        backend.nothing_came(room, [witness]).await;
    }
    for ((room, _), (witness, sessions)) in rooms.iter().zip(witnesses.into_iter().zip(sessions)) {
        balance(backend, room, witness, sessions).await;
    }
}

async fn enter(backend: &Backend, room: &Classroom, number: usize) -> Agent {
    let mut agent = backend.participant(room, &format!("agent{number}")).await;
    agent.joins(&room.algebra).await;
    agent
}

/// Expects one event of each agent of a crowd as the next events.
async fn sees_all(witness: &mut Agent, label: &str, crowd: &[Agent]) {
    let mut missing: BTreeMap<i64, &str> = crowd.iter().map(|agent| (agent.session, agent.id.as_str())).collect();
    while !missing.is_empty() {
        let event =
            witness.client.next_event(SOON).await.unwrap_or_else(|error| panic!("{error}; missing: {missing:?}"));
        assert_eq!(event.label(), Some(label), "{event:?}");
        let whom = missing.remove(&event.sequence_id().unwrap());
        assert_eq!(whom, event.agent_id(), "{event:?}");
    }
}

async fn until_fence(agent: &mut Agent, fence: &Fence) -> Seen {
    let seen = fence.read_to(agent).await.into_iter();
    seen.map(|event| (event.label().unwrap().to_owned(), event.sequence_id().unwrap())).collect()
}

/// Checks that no agent saw itself, a stranger, or another agent twice, and that of each pair at least one saw the
/// other.
fn expect_each_pair(crowd: &[Agent], seen: &[Seen], witness: i64) {
    let members: BTreeSet<i64> = crowd.iter().map(|agent| agent.session).chain([witness]).collect();
    let mut pairs = BTreeSet::new();
    for (agent, seen) in crowd.iter().zip(seen) {
        for (label, other) in seen {
            assert_eq!(label, "entered");
            assert!(members.contains(other), "a stranger: {other}");
            assert_ne!(*other, agent.session, "itself");
            assert!(pairs.insert((agent.session, *other)), "{} saw {other} twice", agent.session);
        }
    }
    for one in crowd {
        for two in crowd.iter().filter(|two| two.session > one.session) {
            let (one, two) = (one.session, two.session);
            assert!(pairs.contains(&(one, two)) || pairs.contains(&(two, one)), "{one} and {two} missed each other");
        }
    }
}

/// Checks that the history has exactly these sessions, that only the witness has a live row, and that the stream has
/// exactly one entered and then one left of each session.
async fn balance(backend: &Backend, room: &Classroom, witness: Agent, mut sessions: Vec<i64>) {
    assert_eq!(backend.live(room).await, [format!("{}|{}", witness.session, witness.id)]);
    let last = witness.session;
    witness.leaves().await;
    until("no live row", SOON, async || backend.live(room).await, Vec::is_empty).await;
    sessions.push(last);
    sessions.sort_unstable();
    let history = backend.history(room).await;
    let ids = history.iter().map(|row| row.split('|').next().unwrap().parse().unwrap());
    assert_eq!(ids.collect::<Vec<i64>>(), sessions);
    assert!(history.iter().all(|row| row.ends_with("|closed")), "{history:?}");

    let Some(stored) = backend.stored(&room.subject("agent"), sessions.len() * 2).await else { return };
    let mut published: BTreeMap<i64, Vec<&str>> = BTreeMap::new();
    for message in &stored {
        let session = message.header("Entity-Event-Sequence-Id").parse().unwrap();
        published.entry(session).or_default().push(message.header("Entity-Event-Operation"));
    }
    let pairs = sessions.iter().map(|session| (*session, vec!["entered", "left"]));
    assert_eq!(published, pairs.collect());
}
