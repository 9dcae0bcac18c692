//! The store's connections, and what it remembers between calls.
use std::{
    collections::HashMap,
    sync::{Arc, Mutex},
    time::Duration,
};

use async_trait::async_trait;
use rollcall_schema::Shards;

use super::{
    LIMIT, NAME, connect::Connector, connect_error::ConnectError, dead_node_looks::DeadNodeLooks, floor::Floor,
    keeper::Keeper, options::PostgresOptions, pool::Pool, shard_state::ShardState, taken_nodes::TakenNodes,
    timeline::Timeline,
};
use crate::{Store, StoreError, session_quarantine::SessionQuarantine};

/// How long a statement in the background may take, which may walk over many dead rows of an old snapshot; and the
/// server's own limit.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(12);
const BACKGROUND: &str = "-c statement_timeout=10000";
/// The same, and no wait for the disk: a deletion that a crash undoes is made again.
const SWEEP: &str = "-c statement_timeout=10000 -c synchronous_commit=off";

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
    /// When each node's lease ends, in microseconds since 1970, by the last heartbeat that did not find it expired.
    pub(super) unbroken_until: Mutex<HashMap<i64, i64>>,
    /// What renewals write of this node.
    pub(super) statistics: parking_lot::Mutex<Option<String>>,
    pub(super) taken_nodes: TakenNodes,
    pub(super) dead_node_looks: DeadNodeLooks,
    pub(super) shards: Arc<ShardState>,
    pub(super) quarantine: SessionQuarantine,
    pub(super) timeline: Arc<Timeline>,
}

impl PostgresStore {
    /// Prepares the pool; connections are made when they are needed, so the server may come up later.
    ///
    /// # Errors
    /// [`ConnectError`] where the URL is none, or a file that it names cannot be used.
    pub fn connect(options: &PostgresOptions) -> Result<Self, ConnectError> {
        let timeline = Arc::<Timeline>::default();
        let connector = Arc::new(Connector::new(options, Arc::clone(&timeline))?);
        let pool = Pool::new(Arc::clone(&connector), options.pool_size);
        Ok(Self {
            pool,
            heartbeat: Keeper::new(Arc::clone(&connector), "", LIMIT),
            background: Keeper::new(Arc::clone(&connector), BACKGROUND, BACKGROUND_LIMIT),
            sweep: Keeper::new(Arc::clone(&connector), SWEEP, BACKGROUND_LIMIT),
            floor: Floor::default(),
            connector,
            unbroken_until: Mutex::default(),
            statistics: parking_lot::Mutex::default(),
            taken_nodes: TakenNodes::default(),
            dead_node_looks: DeadNodeLooks::default(),
            shards: Arc::default(),
            quarantine: SessionQuarantine::default(),
            timeline,
        })
    }

    /// Whether there is a server that lets this process in: one connection is made for it.
    ///
    /// # Errors
    /// [`ConnectError`], which says what to change where that is known.
    pub async fn reach(&self) -> Result<(), ConnectError> {
        self.connector.reach().await
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

    fn protection(&self) -> Option<String> {
        self.connector.protection().map(|protection| protection.to_string())
    }

    async fn ping(&self) -> Result<(), StoreError> {
        self.pool.rows("ping", "select", &[]).await.map(drop)
    }
}
