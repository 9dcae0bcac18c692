use futures_util::poll;
use rollcall_schema::{AgentId, ClassroomId, LessonId, Role, SessionId, Sid};
use tokio::time::{sleep, timeout};
use uuid::Uuid;

use super::*;
use crate::EnterGuard;
use rollcall_store::{LeftReason, Registration, RosterQuery, sqlite::SqliteStore};

/// A node without connections.
struct Nobody;

#[async_trait::async_trait]
impl Connections for Nobody {
    async fn close(&self, _: Sid, _: SessionError) {}
    async fn leave_lesson(&self, _: Sid, _: LessonId) {}
    async fn close_all(&self, _: SessionError) {}
    async fn ended(&self, sids: Vec<Sid>) -> Vec<Sid> {
        sids
    }
}

struct Bench {
    store: Arc<dyn Store>,
    sessions: Sessions,
    folder: tempfile::TempDir,
}

impl Bench {
    async fn new() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let store: Arc<dyn Store> = Arc::new(SqliteStore::open(folder.path().join("rollcall.db")).expect("opened"));
        store.migrate().await.expect("migrated");
        let lease = Duration::from_secs(30);
        let registration = Registration { label: "test".to_owned(), lease, standalone: true, process: None };
        let registered = store.register(&registration).await.expect("registered");
        let (_, lease) = watch::channel(registered);
        let sessions = Sessions::start(
            &rollcall_base::tasks::Tasks::default(),
            &store,
            &lease,
            &watch::channel(false).1,
            Arc::new(Nobody),
        );
        Self { store, sessions, folder }
    }

    async fn agents(&self, classroom: ClassroomId) -> usize {
        let query = RosterQuery { classroom, lesson: None, after: SessionId(0) };
        self.store.agents(&[query], 10).await.expect("answered")[0].len()
    }
}

fn alice() -> Open {
    let agent = AgentId::parse("web.alice.example.org").expect("an agent");
    let (classroom, user) = (ClassroomId(Uuid::new_v4()), agent.user());
    Open {
        classroom,
        agent,
        user,
        sid: Sid::random(),
        role: Role::Participant,
        info: None,
        user_sessions: 20,
        resume_id: None,
        trace: None,
    }
}

#[tokio::test]
async fn a_session_that_no_connection_got_is_closed_again() {
    let bench = Bench::new().await;
    let open = alice();
    let (_, guard) = EnterGuard::open(&bench.sessions, Instant::now(), open.clone()).await.expect("opened");
    assert_eq!(bench.agents(open.classroom).await, 1);
    drop(guard);
    let deadline = Instant::now() + Duration::from_secs(10);
    while bench.agents(open.classroom).await > 0 {
        assert!(Instant::now() < deadline, "it stays");
        sleep(Duration::from_millis(5)).await;
    }
    let (_, guard) = EnterGuard::open(&bench.sessions, Instant::now(), open.clone()).await.expect("opened");
    guard.commit();
    assert_eq!(bench.agents(open.classroom).await, 1);
}

#[tokio::test]
async fn an_opening_that_is_cut_off_is_undone() {
    let bench = Bench::new().await;
    let open = alice();
    let mut opening = Box::pin(EnterGuard::open(&bench.sessions, Instant::now(), open.clone()));
    assert!(poll!(&mut opening).is_pending());
    let written = async {
        while bench.agents(open.classroom).await == 0 {
            sleep(Duration::from_millis(5)).await;
        }
    };
    timeout(Duration::from_secs(10), written).await.expect("its batch is written, whoever listens");
    drop(opening);
    let closed = Close {
        classroom: open.classroom,
        agent: open.agent,
        sid: open.sid,
        reason: LeftReason::Closed,
        resume_id: None,
    };
    let deadline = Instant::now() + Duration::from_secs(10);
    while bench.agents(open.classroom).await > 0 {
        assert!(Instant::now() < deadline, "it stays");
        sleep(Duration::from_millis(5)).await;
    }
    assert_eq!(bench.sessions.close(closed).await, Closed::NotOwner);
}

/// Adds the session's history row, so that the database refuses its end.
fn poison(bench: &Bench, session: SessionId) {
    let connection = rusqlite::Connection::open(bench.folder.path().join("rollcall.db")).expect("opened");
    connection.busy_timeout(Duration::from_secs(5)).expect("set");
    let sql = "insert into agent_session_history (id, agent_id, classroom_id, user_id, reason, started_at) \
        values (?1, 'x', 'x', 'x', 'closed', 'x')";
    connection.execute(sql, [session.0]).expect("inserted");
}

fn mend(bench: &Bench, session: SessionId) {
    let connection = rusqlite::Connection::open(bench.folder.path().join("rollcall.db")).expect("opened");
    connection.busy_timeout(Duration::from_secs(5)).expect("set");
    connection.execute("delete from agent_session_history where id = ?1", [session.0]).expect("deleted");
}

#[tokio::test]
async fn an_end_that_is_refused_holds_up_nobody_and_is_written_once_that_is_mended() {
    let bench = Bench::new().await;
    let mut poisoned = Vec::new();
    // The sessions are more than may end in one batch.
    for number in 0..300 {
        let agent = AgentId::parse(&format!("web.u{number}.example.org")).expect("an agent");
        let open = Open { user: agent.user(), agent, ..alice() };
        let (opened, guard) = EnterGuard::open(&bench.sessions, Instant::now(), open.clone()).await.expect("opened");
        guard.commit();
        poison(&bench, opened.session);
        poisoned.push((opened.session, open));
    }
    let close = |open: &Open| Close {
        classroom: open.classroom,
        agent: open.agent.clone(),
        sid: open.sid,
        reason: LeftReason::Closed,
        resume_id: None,
    };
    let ends = poisoned.iter().map(|(_, open)| bench.sessions.close(close(open)));
    let ended = futures_util::future::join_all(ends);
    let ended = tokio::time::timeout(Duration::from_secs(10), ended).await.expect("none waits to be mended");
    assert!(ended.iter().all(|closed| *closed == Closed::NotOwner));
    let open = alice();
    EnterGuard::open(&bench.sessions, Instant::now(), open.clone()).await.expect("opened").1.commit();
    assert_eq!(bench.sessions.close(close(&open)).await, Closed::Left, "others go on");

    for (session, _) in &poisoned {
        mend(&bench, *session);
    }
    let deadline = Instant::now() + Duration::from_secs(60);
    for (_, open) in &poisoned {
        while bench.agents(open.classroom).await > 0 {
            assert!(Instant::now() < deadline, "it is tried again");
            sleep(Duration::from_millis(20)).await;
        }
    }
}
