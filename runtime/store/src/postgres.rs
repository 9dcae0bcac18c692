//! The store of many nodes: PostgreSQL 14 or later, through deadpool-postgres.
//!
//! Invariant: whatever the server does, stopped or gone, a call answers within [`LIMIT`], and what follows a write of
//! unknown outcome sees how it ended ([`pool`]).
//!
//! It needs sessions of its own (advisory locks, prepared statements, `pg_terminate_backend` of its own role): a
//! proxy that shares server connections between transactions does not fit.
mod backlog;
mod connect;
mod hosts;
mod keeper;
mod lease;
mod load;
mod migrate;
mod outbox;
mod pool;
mod reads;
mod removals;
mod restored;
mod sessions;
mod stale_fields;
mod timeline;
mod verify;

use std::{
    collections::HashMap,
    sync::{
        Arc, Mutex,
        atomic::{AtomicBool, Ordering},
    },
    time::Duration,
};

use async_trait::async_trait;
use rollcall_schema::{AgentId, ClassroomId, NodeId, SessionId, Sid};
use tokio::sync::watch;
use uuid::Uuid;

use self::{
    backlog::Floor, connect::Connector, keeper::Keeper, load::PostgresLoad, outbox::PostgresOutbox, pool::Pool,
    timeline::Timeline,
};
use rollcall_base::BackendUrl;

use super::{
    Backlog, Close, Closed, HeartbeatReply, Join, Joined, KeyField, Lease, LessonMembership, Load, Open, Opened,
    Outbox, Registration, Remembered, Restored, RollbackJoin, StaleField, Standing, Store, StoreError,
    quarantine::Quarantine,
};

/// For a call, with all its waits and retries.
const LIMIT: Duration = Duration::from_millis(1500);
/// For a statement in the background, which may walk over many dead rows of an old snapshot; and the server's own limit.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(12);
const BACKGROUND: &str = "-c statement_timeout=10000";
/// The first half of our advisory locks' keys: `Roll`.
const LOCKS: i32 = 0x526f_6c6c;

/// How to reach the server.
#[derive(Clone)]
pub struct PostgresOptions {
    /// `postgres://...`; may hold a password, and several hosts.
    pub url: BackendUrl,
    /// Connections for statements. The relay has one more.
    pub pool_size: usize,
    /// For making a connection to one address of one host, where the URL has no `connect_timeout`.
    pub connect: Duration,
}

impl PostgresOptions {
    /// The defaults for this URL.
    #[must_use]
    pub fn new(url: impl Into<BackendUrl>) -> Self {
        Self { url: url.into(), pool_size: 8, connect: Duration::from_secs(1) }
    }
}

/// PostgreSQL.
pub struct PostgresStore {
    pool: Pool,
    /// Renews the lease.
    heartbeat: Keeper,
    /// Reaps, and looks at the outbox.
    background: Keeper,
    floor: Floor,
    connector: Arc<Connector>,
    /// Other nodes are alive, as of the last pulse: their relays must hear of new rows.
    several: AtomicBool,
    /// By node: when its lease ends, in microseconds since 1970, as the last heartbeat found or left it that did not find it
    /// expired.
    unbroken_until: Mutex<HashMap<i64, i64>>,
    wake: connect::Wake,
    /// Rows were committed since the relay told other nodes of some.
    untold: Arc<AtomicBool>,
    refused: Quarantine,
    timeline: Arc<Timeline>,
}

impl PostgresStore {
    /// Prepares the pool; connections are made when they are needed, so the server may come up later.
    ///
    /// # Errors
    /// [`StoreError::Refused`] where the URL is none.
    pub fn connect(options: &PostgresOptions) -> Result<Self, StoreError> {
        let timeline = Arc::<Timeline>::default();
        let connector = Arc::new(Connector::new(options.url.clone(), options.connect, Arc::clone(&timeline))?);
        let pool = Pool::new(Arc::clone(&connector), options.pool_size)?;
        let several = AtomicBool::new(false);
        Ok(Self {
            pool,
            heartbeat: Keeper::new(Arc::clone(&connector), "", LIMIT),
            background: Keeper::new(Arc::clone(&connector), BACKGROUND, BACKGROUND_LIMIT),
            floor: Floor::default(),
            connector,
            several,
            unbroken_until: Mutex::default(),
            wake: connect::Wake::default(),
            untold: Arc::default(),
            refused: Quarantine::default(),
            timeline,
        })
    }

    /// Tells this process's relay that rows were committed, and through it those of others.
    fn wake(&self) {
        if self.several.load(Ordering::Relaxed) {
            self.untold.store(true, Ordering::Relaxed);
        }
        self.wake.send_modify(|count| *count += 1);
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn name(&self) -> &'static str {
        "postgres"
    }

    async fn migrate(&self) -> Result<(), StoreError> {
        migrate::migrate(&self.connector).await
    }

    async fn missing_migrations(&self) -> Result<Vec<&'static str>, StoreError> {
        migrate::missing(&self.connector).await
    }

    async fn probe(&self, lease: Lease, ttl: Duration) -> Result<(), StoreError> {
        self.write_probe(lease, ttl).await
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.pool.rows("ping", "select", &[]).await.map(drop)
    }

    async fn installation(&self) -> Result<Uuid, StoreError> {
        self.identity().await
    }

    async fn register(&self, registration: &Registration) -> Result<Lease, StoreError> {
        self.enter(registration).await
    }

    async fn renew_lease(&self, lease: Lease, ttl: Duration) -> Result<HeartbeatReply, StoreError> {
        self.renew(lease, ttl).await
    }

    async fn ack_takeovers(&self, node: NodeId, replaced: &[Sid]) -> Result<(), StoreError> {
        self.forget_takeovers(node, replaced).await
    }

    async fn reap(&self, lease: Lease, most: usize) -> Result<usize, StoreError> {
        self.sweep(lease, most).await
    }

    async fn backlog(&self) -> Result<Backlog, StoreError> {
        self.waiting().await
    }

    async fn release_lease(&self, lease: Lease) -> Result<(), StoreError> {
        self.give_back(lease).await
    }

    async fn open(&self, lease: Lease, batch: &[Open]) -> Result<Vec<Option<Opened>>, StoreError> {
        self.enter_classrooms(lease, batch).await
    }

    async fn join(&self, lease: Lease, batch: &[Join]) -> Result<Vec<Joined>, StoreError> {
        self.join_lessons(lease, batch).await
    }

    async fn rollback(&self, lease: Lease, batch: &[RollbackJoin]) -> Result<Vec<()>, StoreError> {
        self.undo_joins(lease, batch).await
    }

    async fn close(&self, lease: Lease, batch: &[Close]) -> Result<Vec<Closed>, StoreError> {
        self.leave_classrooms(lease, batch).await
    }

    fn incarnation(&self) -> watch::Receiver<Option<Uuid>> {
        self.timeline.known()
    }

    async fn verify(&self, lease: Lease, batch: &[Remembered]) -> Result<Vec<Standing>, StoreError> {
        self.verify_sessions(lease, batch).await
    }

    async fn owned_sessions(
        &self,
        node: NodeId,
        after: SessionId,
        max: usize,
    ) -> Result<Vec<(SessionId, Close)>, StoreError> {
        self.owned_by(node, after, max).await
    }

    async fn knows_node(&self, node: NodeId) -> Result<bool, StoreError> {
        self.knows_node(node).await
    }

    async fn prepare_restored(&self) -> Result<Restored, StoreError> {
        self.make_anew().await
    }

    async fn add_stale_fields(&self, node: NodeId, fields: &[KeyField], ended: &[Sid]) -> Result<(), StoreError> {
        self.add_leavings(node, fields, ended).await
    }

    async fn stale_fields(&self, node: NodeId, most: usize) -> Result<Vec<(i64, StaleField)>, StoreError> {
        self.read_leavings(node, most).await
    }

    async fn forget_stale_fields(
        &self,
        node: NodeId,
        done: &[(i64, StaleField)],
        keep: bool,
    ) -> Result<(), StoreError> {
        self.forget_leavings(node, done, keep).await
    }

    async fn held_stale_fields(&self, node: NodeId, after: i64, most: usize) -> Result<Vec<(i64, Sid)>, StoreError> {
        self.held_leavings(node, after, most).await
    }

    async fn repeat_removals(&self, node: NodeId, most: usize) -> Result<usize, StoreError> {
        self.repeat_removals(node, most).await
    }

    async fn expire_removals(&self, minute: i64, most: usize) -> Result<(i64, bool), StoreError> {
        self.expire_removals(minute, most).await
    }

    async fn open_outbox(&self) -> Result<Box<dyn Outbox>, StoreError> {
        Ok(Box::new(PostgresOutbox::open(self).await?))
    }

    async fn lesson_memberships(
        &self,
        node: NodeId,
        after: SessionId,
        most: usize,
    ) -> Result<Vec<LessonMembership>, StoreError> {
        self.in_lessons(node, after, most).await
    }

    async fn agents(
        &self,
        classroom: ClassroomId,
        after: SessionId,
        most: usize,
    ) -> Result<Vec<(SessionId, AgentId)>, StoreError> {
        self.page(classroom, after, most).await
    }

    async fn count_agents(&self, classrooms: &[ClassroomId]) -> Result<Vec<u64>, StoreError> {
        self.sizes(classrooms).await
    }

    async fn has_no_lesson(&self) -> Result<bool, StoreError> {
        self.has_no_lesson().await
    }

    async fn begin_load(&self) -> Result<Box<dyn Load>, StoreError> {
        Ok(Box::new(PostgresLoad::begin(self).await?))
    }
}
