//! A database that a test has for itself, and short calls for the steps of the cases.
use std::{
    path::PathBuf,
    sync::{
        Arc, LazyLock,
        atomic::{AtomicI32, Ordering},
    },
    time::{Duration, Instant},
};

use rollcall_loadtest::servers::{self, Postgres, psql};
use rollcall_schema::{AgentId, ClassroomId, LessonId, Role, RosterAgent, Seat, SessionId, Sid, UserId};
use rollcall_store::{
    AttendeeRow, Close, Closed, Join, Joined, Lease, LeaveLesson, LeftReason, LessonChange, LessonLeft,
    LessonOfSession, LessonRow, Open, Opened, Outbox, OutboxRow, Registration, RestoreLesson, RosterQuery, Store,
    StoreError,
    postgres::{PostgresOptions, PostgresStore},
    sqlite::SqliteStore,
};
use uuid::Uuid;

pub(crate) const LEASE: Duration = Duration::from_secs(30);

enum Database {
    Postgres(String),
    Sqlite(PathBuf, #[expect(dead_code, reason = "the folder lives as long as this")] tempfile::TempDir),
}

/// A database, a store on it, and a lease.
pub(crate) struct World {
    pub(crate) store: Arc<dyn Store>,
    pub(crate) lease: Lease,
    database: Database,
}

/// The server for all cases that do it no harm. It does not wait for the disk, which is slow while other tests run.
static SERVER: LazyLock<Postgres> = LazyLock::new(|| start_server().expect("a private PostgreSQL starts"));

pub(crate) fn start_server() -> std::io::Result<Postgres> {
    Postgres::start_with(servers::PostgresOptions { fsync: false, ..Default::default() })
}

pub(crate) fn connect(url: &str) -> Arc<dyn Store> {
    let options = PostgresOptions { pool_size: 4, ..PostgresOptions::new(url) };
    Arc::new(PostgresStore::connect(&options).expect("a URL"))
}

pub(crate) async fn register(store: &dyn Store, lease: Duration) -> Lease {
    let registration = Registration { label: "test".to_owned(), lease, standalone: false, process: None };
    store.register(&registration).await.expect("registered")
}

impl World {
    pub(crate) async fn postgres() -> Self {
        let url = SERVER.create_database().expect("a database");
        let store = connect(&url);
        Self::new(store, Database::Postgres(url)).await
    }

    pub(crate) async fn sqlite() -> Self {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("rollcall.db");
        let store = Arc::new(SqliteStore::open(&path).expect("opened"));
        Self::new(store, Database::Sqlite(path, folder)).await
    }

    /// Creates a world on this store, whose file is `x.db` in the folder.
    pub(crate) async fn on_sqlite(store: SqliteStore, folder: tempfile::TempDir) -> Self {
        Self::new(Arc::new(store), Database::Sqlite(folder.path().join("x.db"), folder)).await
    }

    async fn new(store: Arc<dyn Store>, database: Database) -> Self {
        store.migrate().await.expect("migrated");
        let lease = register(&*store, LEASE).await;
        Self { store, lease, database }
    }

    /// Returns the store of another process on the same database.
    pub(crate) fn another(&self) -> Arc<dyn Store> {
        match &self.database {
            Database::Postgres(url) => connect(url),
            Database::Sqlite(path, _) => Arc::new(SqliteStore::open(path).expect("opened")),
        }
    }

    /// Returns this store if only one process may serve the file, otherwise another process's.
    pub(crate) fn another_or_same(&self) -> Arc<dyn Store> {
        match &self.database {
            Database::Postgres(url) => connect(url),
            Database::Sqlite(..) => Arc::clone(&self.store),
        }
    }

    /// Frees the file's lock, as if the process had ended.
    pub(crate) fn forgets_its_lock(mut self) -> Self {
        self.store = self.another();
        self
    }

    pub(crate) fn is_postgres(&self) -> bool {
        matches!(self.database, Database::Postgres(_))
    }

    pub(crate) fn url(&self) -> &str {
        match &self.database {
            Database::Postgres(url) => url,
            Database::Sqlite(..) => panic!("a case for PostgreSQL"),
        }
    }

    pub(crate) fn path(&self) -> &PathBuf {
        match &self.database {
            Database::Sqlite(path, _) => path,
            Database::Postgres(_) => panic!("a case for SQLite"),
        }
    }

    /// Makes the end of a session fail, by writing its row to the history.
    pub(crate) fn poison(&self, session: SessionId) {
        let lifetime = match &self.database {
            Database::Postgres(_) => "lifetime) values ($, 'x', gen_random_uuid(), 'x', 'closed', 'empty')",
            Database::Sqlite(..) => "started_at) values ($, 'x', 'x', 'x', 'closed', 'x')",
        };
        let statement =
            format!("insert into agent_session_history (id, agent_id, classroom_id, user_id, reason, {lifetime}");
        self.sql(&statement.replace('$', &session.to_string()));
    }

    /// Runs a statement outside of the store. Returns a line for each row, with its columns divided by `|`.
    pub(crate) fn sql(&self, statement: &str) -> String {
        match &self.database {
            Database::Postgres(url) => psql(url, statement).expect("answered"),
            Database::Sqlite(path, _) => sqlite(path, statement),
        }
    }

    pub(crate) async fn outbox(&self) -> Box<dyn Outbox> {
        outbox_of(&*self.store, self.lease).await
    }

    /// Returns all events in the outbox, in the order in which a relay publishes them.
    pub(crate) async fn events(&self) -> Vec<OutboxRow> {
        events_of(&*self.store, self.lease).await
    }

    pub(crate) async fn open(&self, member: &Member) -> Opened {
        self.store.open(self.lease, &[member.open()]).await.expect("opened")[0].expect("its user has few")
    }

    pub(crate) async fn close(&self, member: &Member) -> Closed {
        self.store.close(self.lease, &[member.close(LeftReason::Closed)]).await.expect("closed").remove(0)
    }

    /// Returns the agents of a classroom, in the order of their sessions.
    pub(crate) async fn agents(&self, classroom: ClassroomId) -> Vec<RosterAgent> {
        let query = RosterQuery { classroom, lesson: None, after: SessionId(0) };
        self.store.agents(&[query], 100).await.expect("answered").remove(0)
    }

    pub(crate) async fn join(&self, join: Join) -> Joined {
        self.store.join(self.lease, &[join]).await.expect("joined")[0]
    }

    /// Returns whether the session belongs to the connection.
    pub(crate) async fn restore(&self, restore: RestoreLesson) -> bool {
        self.store.restore_lesson(self.lease, &[restore]).await.expect("restored")[0]
    }

    pub(crate) async fn leave_lesson(&self, leave: LeaveLesson) -> LessonLeft {
        self.store.leave_lesson(self.lease, &[leave]).await.expect("left")[0]
    }

    /// Makes a lesson in a classroom, with the seats of its attendees.
    pub(crate) async fn lesson(&self, name: &str, classroom: ClassroomId, attendees: &[(&str, u32)]) -> LessonId {
        let id = LessonId::parse(name).expect("a lesson's id");
        let mut load = self.store.begin_load().await.expect("begun");
        load.lessons(vec![LessonRow { id: id.clone(), classroom, seats: 30 }]).await.expect("a lesson");
        let attendee = |&(user, seat): &(&str, u32)| AttendeeRow {
            lesson: id.clone(),
            user: UserId::parse(user).expect("a user"),
            seat: Seat(seat),
        };
        load.attendees(attendees.iter().map(attendee).collect()).await.expect("attendees");
        load.commit().await.expect("committed");
        id
    }
}

/// Returns the outbox of this node's relay, with all shards.
async fn outbox_of(store: &dyn Store, lease: Lease) -> Box<dyn Outbox> {
    let mut outbox = store.open_outbox(lease).await.expect("an outbox");
    // Another node may have held all shards before, until it counts as silent.
    let deadline = Instant::now() + LEASE;
    while outbox.claim().await.expect("claimed") == 0 {
        assert!(Instant::now() < deadline, "nothing to claim");
        outbox.wait(Duration::from_millis(10)).await.expect("waited");
    }
    outbox
}

/// Returns the events as in [`World::events`], read by another node.
pub(crate) async fn events_of(store: &dyn Store, lease: Lease) -> Vec<OutboxRow> {
    let mut outbox = outbox_of(store, lease).await;
    let mut all = Vec::new();
    loop {
        let mut rows = outbox.read(100).await.expect("read");
        if rows.is_empty() {
            // A claim that was not renewed for a while is not valid, so no rows would be read.
            outbox.claim().await.expect("claimed");
            rows = outbox.read(100).await.expect("read");
        }
        if rows.is_empty() {
            return all;
        }
        outbox.delete(&rows.iter().map(|row| row.id).collect::<Vec<_>>()).await.expect("deleted");
        all.extend(rows);
    }
}

fn sqlite(path: &PathBuf, statement: &str) -> String {
    let connection = rusqlite::Connection::open(path).expect("opened");
    connection.busy_timeout(Duration::from_secs(5)).expect("set");
    let mut statement = connection.prepare(statement).expect("a statement");
    let columns = statement.column_count();
    let line = |row: &rusqlite::Row<'_>| {
        let text = |column| match row.get_ref(column)? {
            rusqlite::types::ValueRef::Null => Ok(String::new()),
            rusqlite::types::ValueRef::Integer(number) => Ok(number.to_string()),
            other => Ok::<_, rusqlite::Error>(String::from_utf8_lossy(other.as_bytes()?).into_owned()),
        };
        Ok((0..columns).map(text).collect::<Result<Vec<_>, _>>()?.join("|"))
    };
    let lines = statement.query_map([], line).expect("rows").collect::<Result<Vec<_>, _>>();
    lines.expect("readable").join("\n")
}

/// A connection of an agent in a classroom.
#[derive(Clone, Debug)]
pub(crate) struct Member {
    pub(crate) classroom: ClassroomId,
    pub(crate) agent: AgentId,
    pub(crate) sid: Sid,
}

impl Member {
    pub(crate) fn new(classroom: ClassroomId, agent: &str) -> Self {
        Self { classroom, agent: agent_id(agent), sid: Sid::random() }
    }

    /// Returns the same agent on another connection.
    pub(crate) fn again(&self) -> Self {
        Self { sid: Sid::random(), ..self.clone() }
    }

    pub(crate) fn open(&self) -> Open {
        let (agent, user) = (self.agent.clone(), self.agent.user());
        let (classroom, sid) = (self.classroom, self.sid);
        Open {
            classroom,
            agent,
            user,
            sid,
            role: Role::Participant,
            info: None,
            user_sessions: 10_000,
            resume_id: None,
            trace: None,
        }
    }

    pub(crate) fn close(&self, reason: LeftReason) -> Close {
        Close { classroom: self.classroom, agent: self.agent.clone(), sid: self.sid, reason, resume_id: None }
    }

    pub(crate) fn join(&self, session: SessionId, lesson: &LessonId) -> Join {
        Join {
            sid: self.sid,
            session: Some(session),
            change: next_change(),
            classroom: self.classroom,
            lesson: lesson.clone(),
            user: Some((self.agent.user(), Role::Participant)),
            keep: false,
        }
    }

    pub(crate) fn restore(&self, session: SessionId, lesson: Option<(LessonId, Option<Seat>)>) -> RestoreLesson {
        let role = Some(Role::Participant);
        let lesson = lesson.map(|(lesson, seat)| LessonOfSession { lesson, seat, role });
        RestoreLesson { sid: self.sid, session, change: next_change(), lesson }
    }

    pub(crate) fn leave(&self, session: SessionId, lesson: &LessonId) -> LeaveLesson {
        LeaveLesson { sid: self.sid, session, change: next_change(), lesson: lesson.clone(), keep: false }
    }
}

/// Returns a number above all earlier ones, for any connection.
fn next_change() -> LessonChange {
    static LATEST: AtomicI32 = AtomicI32::new(0);
    LessonChange(LATEST.fetch_add(1, Ordering::Relaxed))
}

/// Returns the agent's id for `label.user`, at example.org.
pub(crate) fn agent_id(name: &str) -> AgentId {
    AgentId::parse(&format!("{name}.example.org")).expect("an agent's id")
}

pub(crate) fn classroom() -> ClassroomId {
    ClassroomId(Uuid::new_v4())
}

pub(crate) fn is_fenced<T>(answer: Result<T, StoreError>) -> bool {
    matches!(answer, Err(StoreError::Fenced))
}
