//! Compares random calls with a model of the session table: every answer and all remaining rows must be the same.
use std::{collections::HashMap, sync::LazyLock};

use proptest::{prelude::*, test_runner::TestRunner};
use rollcall_schema::{ClassroomId, JsonObject, LessonId, SessionId, Sid, StateVersion, Update};
use rollcall_store::{Change, Closed, Joined, LeftReason, LessonLeft, SetState};
use tokio::runtime::Runtime;

use crate::world::{Member, World, classroom};

const AGENTS: usize = 3;
const ROOMS: usize = 2;
/// The maximum number of connections of an agent.
const SIDS: usize = 3;

#[derive(Clone, Copy, Debug)]
enum Call {
    Open,
    Join { known: bool },
    RestoreLesson,
    LeaveLesson,
    SetState,
    Close,
}

/// A call by one connection of an agent in a classroom.
#[derive(Clone, Copy, Debug)]
struct Step {
    room: usize,
    agent: usize,
    sid: usize,
    call: Call,
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let call = prop_oneof![
        3 => Just(Call::Open),
        2 => any::<bool>().prop_map(|known| Call::Join { known }),
        1 => Just(Call::RestoreLesson),
        1 => Just(Call::LeaveLesson),
        2 => Just(Call::SetState),
        2 => Just(Call::Close),
    ];
    let step =
        (0..ROOMS, 0..AGENTS, 0..SIDS, call).prop_map(|(room, agent, sid, call)| Step { room, agent, sid, call });
    proptest::collection::vec(step, 1..40)
}

#[derive(Clone, Debug)]
struct Live {
    session: SessionId,
    sid: Sid,
    previous: Option<Sid>,
    lesson: bool,
    state_n: StateVersion,
}

type Key = (usize, usize);

/// The expected state.
#[derive(Default)]
struct Model {
    live: HashMap<Key, Live>,
    /// The latest session of each agent, live or ended.
    sessions: HashMap<Key, SessionId>,
    events: HashMap<Key, Vec<(SessionId, Change)>>,
}

struct Run<'a> {
    world: &'a World,
    rooms: [ClassroomId; ROOMS],
    lessons: Vec<LessonId>,
    members: HashMap<(usize, usize, usize), Member>,
    model: Model,
}

impl<'a> Run<'a> {
    async fn new(world: &'a World) -> Self {
        let rooms = [classroom(), classroom()];
        let mut lessons = Vec::new();
        for room in rooms {
            lessons.push(world.lesson(&room.to_string(), room, &[]).await);
        }
        let mut members = HashMap::new();
        for (room, id) in rooms.iter().enumerate() {
            for (agent, sid) in (0..AGENTS).flat_map(|agent| (0..SIDS).map(move |sid| (agent, sid))) {
                members.insert((room, agent, sid), Member::new(*id, &format!("web.agent{agent}")));
            }
        }
        Self { world, rooms, lessons, members, model: Model::default() }
    }

    async fn take(&mut self, step: Step) {
        let key = (step.room, step.agent);
        let member = self.members[&(step.room, step.agent, step.sid)].clone();
        let session = self.model.sessions.get(&key).copied().unwrap_or(SessionId(0));
        let live = self.model.live.get(&key).cloned();
        let owner = live.as_ref().is_some_and(|live| live.sid == member.sid);
        match step.call {
            Call::Open => {
                let opened = self.world.open(&member).await;
                let replaced = opened.replaced.map(|(_, sid)| sid);
                let previous = match &live {
                    Some(live) if owner => live.previous,
                    Some(live) => Some(live.sid),
                    None => None,
                };
                assert_eq!(replaced, previous);
                let state_n = live.as_ref().map_or(StateVersion(0), |live| live.state_n);
                match live {
                    Some(live) => assert_eq!(opened.session, live.session),
                    None => {
                        assert!(opened.session > session);
                        self.model.events.entry(key).or_default().push((opened.session, Change::Entered));
                    }
                }
                self.model.sessions.insert(key, opened.session);
                let live = Live { session: opened.session, sid: member.sid, previous, lesson: false, state_n };
                self.model.live.insert(key, live);
            }
            Call::Join { known } => {
                let lesson = &self.lessons[if known { step.room } else { 1 - step.room }];
                let joined = self.world.join(member.join(session, lesson)).await;
                let expected = match (known, owner) {
                    (false, _) => Joined::NotFound,
                    (true, false) => Joined::NotOwner,
                    (true, true) => Joined::Lesson { seats: 30, seat: None, shared: false },
                };
                assert_eq!(joined, expected);
                if let (true, Some(live)) = (known && owner, self.model.live.get_mut(&key)) {
                    live.lesson = true;
                }
            }
            Call::RestoreLesson => {
                assert_eq!(self.world.restore(member.restore(session, None)).await, owner);
                if let (true, Some(live)) = (owner, self.model.live.get_mut(&key)) {
                    live.lesson = false;
                }
            }
            Call::LeaveLesson => {
                let left = self.world.leave_lesson(member.leave(session, &self.lessons[step.room])).await;
                assert_eq!(left, if owner { LessonLeft::Left { shared: false } } else { LessonLeft::NotOwner });
                if let (true, Some(live)) = (owner, self.model.live.get_mut(&key)) {
                    live.lesson = false;
                }
            }
            Call::SetState => {
                let state = JsonObject::parse("{}").ok();
                let set = SetState { sid: member.sid, session, state: state.clone() };
                let set = self.world.store.set_state(self.world.lease, &[set]).await.expect("answered").remove(0);
                assert_eq!(set.is_some(), owner);
                if let (Some(state_n), Some(live)) = (set, self.model.live.get_mut(&key)) {
                    assert!(state_n > live.state_n);
                    live.state_n = state_n;
                    // Nothing is published meanwhile, so the earlier update still waits.
                    let events = self.model.events.entry(key).or_default();
                    events.retain(|(of, change)| *of != session || !matches!(change, Change::Updated(_)));
                    events.push((session, Change::Updated(Box::new(Update { state, state_n, role: None }))));
                }
            }
            Call::Close => {
                let closed = self.world.close(&member).await;
                assert_eq!(closed, if owner { Closed::Left } else { Closed::NotOwner });
                if owner {
                    self.model.live.remove(&key);
                    let left = (session, Change::Left(Some(LeftReason::Closed)));
                    self.model.events.entry(key).or_default().push(left);
                }
            }
        }
    }

    async fn check_what_stays(self) {
        let Self { world, rooms, lessons, members, model } = self;
        for (room, id) in rooms.into_iter().enumerate() {
            let mut expected: Vec<_> = model
                .live
                .iter()
                .filter(|((of, _), _)| *of == room)
                .map(|((_, agent), live)| (live.session, members[&(room, *agent, 0)].agent.clone(), live.state_n))
                .collect();
            expected.sort();
            let agents = world.agents(id).await;
            let seen = agents.into_iter().map(|agent| (agent.session_id, agent.agent_id, agent.state_n));
            assert_eq!(seen.collect::<Vec<_>>(), expected);
        }
        let mut events: HashMap<Key, Vec<_>> = HashMap::new();
        for row in world.events().await {
            let member =
                members.iter().find(|(_, member)| (member.classroom, &member.agent) == (row.classroom, &row.agent));
            let (room, agent, _) = *member.expect("an agent of this run").0;
            events.entry((room, agent)).or_default().push((row.session, row.change));
        }
        assert_eq!(events, model.events);
        let in_lessons = model.live.values().filter(|live| live.lesson).count();
        let placed = world.store.lesson_memberships(world.lease.node, SessionId(0), 10_000).await.expect("answered");
        assert_eq!(placed.iter().filter(|placed| lessons.contains(&placed.lesson)).count(), in_lessons);
    }
}

fn check(world: &World, runtime: &Runtime, cases: u32) {
    let config = ProptestConfig { cases, failure_persistence: None, ..ProptestConfig::default() };
    let outcome = TestRunner::new(config).run(&steps(), |steps| {
        runtime.block_on(async {
            let mut run = Run::new(world).await;
            for step in steps {
                run.take(step).await;
            }
            run.check_what_stays().await;
        });
        Ok(())
    });
    outcome.unwrap_or_else(|failure| panic!("{failure}"));
}

static RUNTIME: LazyLock<Runtime> = LazyLock::new(|| Runtime::new().expect("a runtime"));

#[test]
fn postgres_does_what_the_model_does() {
    let world = RUNTIME.block_on(World::postgres());
    check(&world, &RUNTIME, 40);
}

#[test]
fn sqlite_does_what_the_model_does() {
    let world = RUNTIME.block_on(World::sqlite());
    check(&world, &RUNTIME, 100);
}
