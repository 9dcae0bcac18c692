//! Measures how many sessions the store takes in a second: `store_rate URL [AGENTS] [CALLERS]`, on an empty database of
//! its own.
//!
//! In each phase (open, join, close, then open with join) CALLERS tasks make one call at a time through the same groups
//! that the gateway uses, for AGENTS agents in classrooms of 30. Meanwhile a relay empties the outbox.
use std::{
    env,
    error::Error,
    hash::{BuildHasher, RandomState},
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI64, AtomicUsize, Ordering},
    },
    time::{Duration, Instant},
};

use rollcall_base::tasks::Tasks;
use rollcall_schema::{AgentId, ClassroomId, LessonId, Role, SessionId, Sid};
use rollcall_store::{
    Close, Closed, Join, Joined, Lease, LeftReason, LessonChange, LessonRow, Open, Opened, Registration, Store,
    group_commit::{GroupCommit, Options},
    postgres::{PostgresOptions, PostgresStore},
    sqlite::SqliteStore,
};
use tokio::task::JoinSet;
use uuid::Uuid;

const ROOM: usize = 30;

static HASHER: LazyLock<RandomState> = LazyLock::new(RandomState::new);

type Failure = Box<dyn Error + Send + Sync>;

struct Member {
    classroom: ClassroomId,
    agent: AgentId,
    sid: Sid,
    lesson: LessonId,
    session: AtomicI64,
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Open,
    Join,
    Close,
}

struct Sessions {
    open: GroupCommit<Open, Option<Opened>>,
    join: GroupCommit<Join, Joined>,
    close: GroupCommit<Close, Closed>,
}

impl Sessions {
    fn new(store: &Arc<dyn Store>, lease: Lease, options: Options) -> Self {
        let (opens, joins, closes) = (store.clone(), store.clone(), store.clone());
        let open_key = |open: &Open| HASHER.hash_one((open.classroom, &open.agent));
        let close_key = |close: &Close| HASHER.hash_one((close.classroom, &close.agent));
        Self {
            open: GroupCommit::spawn(&Tasks::default(), "open", options.clone(), open_key, move |batch| {
                let store = opens.clone();
                async move { store.open(lease, &batch).await }
            }),
            join: GroupCommit::spawn(
                &Tasks::default(),
                "join",
                options.clone(),
                |join| HASHER.hash_one(join.sid),
                move |batch| {
                    let store = joins.clone();
                    async move { store.join(lease, &batch).await }
                },
            ),
            close: GroupCommit::spawn(&Tasks::default(), "close", options, close_key, move |batch| {
                let store = closes.clone();
                async move { store.close(lease, &batch).await }
            }),
        }
    }

    async fn take(&self, step: Step, member: &Member) -> Result<(), Failure> {
        let Member { classroom, agent, sid, lesson, session } = member;
        let (classroom, agent, sid) = (*classroom, agent.clone(), *sid);
        match step {
            Step::Open => {
                let opened = {
                    let user = agent.user();
                    self.open
                        .call(Open {
                            classroom,
                            agent,
                            user,
                            sid,
                            role: Role::Participant,
                            info: None,
                            user_sessions: 20,
                            resume_id: None,
                            trace: None,
                        })
                        .await?
                };
                session.store(opened.ok_or("too many sessions")?.session.0, Ordering::Relaxed);
            }
            Step::Join => {
                let session = Some(SessionId(session.load(Ordering::Relaxed)));
                let user = Some((agent.user(), Role::Participant));
                let (change, lesson) = (LessonChange::default(), lesson.clone());
                let join = Join { sid, session, change, classroom, lesson, user, keep: true };
                let joined = self.join.call(join).await?;
                if !matches!(joined, Joined::Lesson { .. }) {
                    return Err(format!("{agent}: {joined:?}").into());
                }
            }
            Step::Close => {
                let close = Close { classroom, agent, sid, reason: LeftReason::Closed, resume_id: None };
                if self.close.call(close).await? == Closed::NotOwner {
                    return Err("closed, but not the owner".into());
                }
            }
        }
        Ok(())
    }
}

/// Lets `callers` tasks share the members, and prints the rate that they reached.
async fn phase(
    steps: &'static [Step],
    members: &Arc<Vec<Member>>,
    callers: usize,
    sessions: &Arc<Sessions>,
) -> Result<(), Failure> {
    let start = Instant::now();
    let next = Arc::new(AtomicUsize::new(0));
    let mut tasks = JoinSet::new();
    for _ in 0..callers {
        let (members, sessions, next) = (members.clone(), sessions.clone(), next.clone());
        tasks.spawn(async move {
            let mut slowest = Duration::ZERO;
            while let Some(member) = members.get(next.fetch_add(1, Ordering::Relaxed)) {
                for step in steps {
                    let start = Instant::now();
                    sessions.take(*step, member).await?;
                    slowest = slowest.max(start.elapsed());
                }
            }
            Ok::<_, Failure>(slowest)
        });
    }
    let mut slowest = Duration::ZERO;
    while let Some(task) = tasks.join_next().await {
        slowest = slowest.max(task??);
    }
    let rate = members.len() as f64 / start.elapsed().as_secs_f64();
    println!("{:<22} {rate:>8.0} agents/s, slowest call {slowest:?}", format!("{steps:?}"));
    Ok(())
}

/// Deletes the events of the steps from the outbox, as the gateway's relay does after publishing.
async fn relay(store: Arc<dyn Store>, lease: Lease) -> Result<(), Failure> {
    let mut outbox = store.open_outbox(lease).await?;
    outbox.claim().await?;
    loop {
        let rows = outbox.read(1024).await?;
        if rows.is_empty() {
            outbox.wait(Duration::from_millis(100)).await?;
        } else {
            outbox.delete(&rows.iter().map(|row| row.id).collect::<Vec<_>>()).await?;
        }
    }
}

async fn members(store: &Arc<dyn Store>, count: usize) -> Result<Vec<Member>, Failure> {
    let mut load = store.begin_load().await?;
    let (mut members, mut lessons) = (Vec::new(), Vec::new());
    for room in 0..count.div_ceil(ROOM) {
        let (classroom, lesson) = (ClassroomId(Uuid::new_v4()), LessonId::parse(&format!("rate-{room}"))?);
        for place in 0..ROOM {
            let agent = AgentId::parse(&format!("web.user{room}-{place}.example.org"))?;
            let (sid, session) = (Sid::random(), AtomicI64::new(0));
            members.push(Member { classroom, agent, sid, lesson: lesson.clone(), session });
        }
        lessons.push(LessonRow { id: lesson, classroom, seats: 40 });
    }
    load.lessons(lessons).await?;
    load.commit().await?;
    Ok(members)
}

#[tokio::main]
async fn main() -> Result<(), Failure> {
    let mut arguments = env::args().skip(1);
    let url = arguments.next().ok_or("usage: store_rate URL [AGENTS] [CALLERS] [LANES]")?;
    let agents = arguments.next().map_or(Ok(30_000), |text| text.parse())?;
    let callers = arguments.next().map_or(Ok(1_000), |text| text.parse())?;
    let lanes = arguments.next().map_or(Ok(2), |text| text.parse())?;

    let store: Arc<dyn Store> = match url.strip_prefix("sqlite:") {
        Some(path) => Arc::new(SqliteStore::open(path)?),
        None => Arc::new(PostgresStore::connect(&PostgresOptions::new(url))?),
    };
    store.migrate().await?;
    let lease = Duration::from_secs(600);
    let lease = store
        .register(&Registration { label: "store_rate".to_owned(), lease, standalone: false, process: None })
        .await?;
    let members = Arc::new(members(&store, agents).await?);
    let sessions = Arc::new(Sessions::new(&store, lease, Options { lanes, ..Options::default() }));
    let mut relay = tokio::spawn(relay(store.clone(), lease));

    let all: [&'static [Step]; 5] =
        [&[Step::Open], &[Step::Join], &[Step::Close], &[Step::Open, Step::Join], &[Step::Close]];
    for steps in all {
        tokio::select! {
            done = phase(steps, &members, callers, &sessions) => done?,
            ended = &mut relay => return ended?,
        }
    }
    store.release_lease(lease).await?;
    Ok(())
}
