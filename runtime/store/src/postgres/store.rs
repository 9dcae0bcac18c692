//! The store's connections, and what it remembers between calls.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use rollcall_base::BackendUrl;
use rollcall_schema::Shards;

use super::{
    LIMIT, NAME, connect::Connector, dead_nodes::DeadNodes, floor::Floor, keeper::Keeper, pool::Pool,
    shard_claims::ShardClaims, taken_nodes::TakenNodes, timeline::Timeline,
};
use crate::{Store, StoreError, session_quarantine::SessionQuarantine};

/// For a statement in the background, which may walk over many dead rows of an old snapshot; and the server's own limit.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(12);
const BACKGROUND: &str = "-c statement_timeout=10000";
/// The same, and no wait for the disk: a deletion that a crash undoes is made again.
const SWEEP: &str = "-c statement_timeout=10000 -c synchronous_commit=off";

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
    pub(super) pool: Pool,
    /// Renews the lease.
    pub(super) heartbeat: Keeper,
    /// Reaps, and looks at the outbox.
    pub(super) background: Keeper,
    /// Deletes old history.
    pub(super) sweep: Keeper,
    pub(super) floor: Floor,
    pub(super) connector: Arc<Connector>,
    /// By node: when its lease ends, in microseconds since 1970, as the last heartbeat found or left it that did not find it
    /// expired.
    pub(super) unbroken_until: Mutex<HashMap<i64, i64>>,
    pub(super) taken_nodes: TakenNodes,
    pub(super) dead_nodes: DeadNodes,
    pub(super) shards: Arc<ShardClaims>,
    pub(super) quarantine: SessionQuarantine,
    pub(super) timeline: Arc<Timeline>,
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
        Ok(Self {
            pool,
            heartbeat: Keeper::new(Arc::clone(&connector), "", LIMIT),
            background: Keeper::new(Arc::clone(&connector), BACKGROUND, BACKGROUND_LIMIT),
            sweep: Keeper::new(Arc::clone(&connector), SWEEP, BACKGROUND_LIMIT),
            floor: Floor::default(),
            connector,
            unbroken_until: Mutex::default(),
            taken_nodes: TakenNodes::default(),
            dead_nodes: DeadNodes::default(),
            shards: Arc::default(),
            quarantine: SessionQuarantine::default(),
            timeline,
        })
    }

    /// There are new rows in these shards: wakes this process's relay, or whoever wakes those of other nodes.
    pub(super) fn wake(&self, shards: Shards) {
        self.shards.wake(shards);
    }
}

#[async_trait]
impl Store for PostgresStore {
    fn name(&self) -> &'static str {
        NAME
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.pool.rows("ping", "select", &[]).await.map(drop)
    }
}
