//! The store's connections, and what it remembers between calls.
use std::{collections::HashMap, sync::Arc, time::Duration};

use async_trait::async_trait;
use parking_lot::Mutex;
use rollcall_schema::Shards;

use super::{
    LIMIT, NAME, connect::Connector, connect_error::ConnectError, dead_node_looks::DeadNodeLooks, floor::Floor,
    keeper::Keeper, options::PostgresOptions, pool::Pool, shard_state::ShardState, taken_nodes::TakenNodes,
    timeline::Timeline,
};
use crate::{Store, StoreError, session_quarantine::SessionQuarantine};

/// How long a statement in the background may take, because it may step over many dead rows of an old snapshot; and the
/// server's own limit for it.
const BACKGROUND_LIMIT: Duration = Duration::from_secs(12);
const BACKGROUND: &str = "-c statement_timeout=10000";
/// The settings for sweeps: the same limit, and no wait for the disk, because a deletion that a crash undoes is made
/// again.
const SWEEP: &str = "-c statement_timeout=10000 -c synchronous_commit=off";

/// The store in PostgreSQL.
pub struct PostgresStore {
    pub(super) pool: Pool,
    /// The connection that renews the lease.
    pub(super) heartbeat: Keeper,
    /// The connection that reaps, and measures the outbox.
    pub(super) background: Keeper,
    /// The connection that deletes old history.
    pub(super) sweep: Keeper,
    pub(super) floor: Floor,
    pub(super) connector: Arc<Connector>,
    /// When each node's lease ends, in microseconds since 1970, by the last heartbeat that did not find it expired.
    pub(super) unbroken_until: Mutex<HashMap<i64, i64>>,
    /// The statistics of this node, which renewals write.
    pub(super) statistics: Mutex<Option<String>>,
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
    /// Returns a [`ConnectError`] if the URL is invalid, or a file that it names cannot be used.
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
            statistics: Mutex::default(),
            taken_nodes: TakenNodes::default(),
            dead_node_looks: DeadNodeLooks::default(),
            shards: Arc::default(),
            quarantine: SessionQuarantine::default(),
            timeline,
        })
    }

    /// Checks whether a server accepts this process, by making one connection.
    ///
    /// # Errors
    /// Returns a [`ConnectError`], which says what to change if that is known.
    pub async fn reach(&self) -> Result<(), ConnectError> {
        self.connector.reach().await
    }

    /// Records that there are new rows in these shards, and wakes this process's relay or the relays of other nodes.
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
