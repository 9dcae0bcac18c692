//! Nodes and their leases: a node may write from its registration until another node takes its lease.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_base::process::ProcessIdentity;
use rollcall_schema::{NodeId, Sid};

use crate::{Kick, Lease, StoreError};

/// How a node enters the `node` table.
#[derive(Clone, Debug)]
pub struct Registration {
    /// A name for people: host and process.
    pub label: String,
    /// How long the lease holds without a renewal, on the database's clock.
    pub lease: Duration,
    /// Its keys or its bus are in the process: no other node may live beside it.
    pub standalone: bool,
    /// Its process: by it a later process on the same machine can tell that this one is dead.
    pub process: Option<ProcessIdentity>,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// Connections of this node whose session another connection took over. They are repeated until
    /// [`NodeLeases::ack_takeovers`], because an answer may be lost.
    pub replaced: Vec<Sid>,
    /// What operators did to connections of this node. They are repeated until
    /// [`Kicks::ack_kicks`](crate::Kicks::ack_kicks).
    pub kicks: Vec<Kick>,
    /// How many nodes have a lease that holds, this one among them; 9 where there are more.
    pub nodes: u32,
    /// Whether the lease was expired before this renewal, by the store's clock, whatever ours says: then other nodes' may be.
    pub was_expired: bool,
    /// There may be something to [reap](NodeLeases::reap). With many nodes, not every heartbeat looks.
    pub dead: bool,
}

/// The leases of nodes.
#[async_trait]
pub trait NodeLeases: Send + Sync {
    /// Enters the `node` table with a fresh lease.
    ///
    /// # Errors
    /// [`StoreError::Refused`] with a sentence for the operator where a standalone node would live beside another.
    async fn register(&self, registration: &Registration) -> Result<Lease, StoreError>;
    /// Renews the lease, also an expired one that nobody took.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where another node took it.
    async fn renew_lease(&self, lease: Lease, ttl: Duration) -> Result<HeartbeatReply, StoreError>;
    /// What this node says of itself: JSON, which renewals of its lease write from now on, for other nodes to read
    /// ([`Overview::reports`](crate::Overview::reports)).
    fn report(&self, statistics: String);
    /// These connections have been told that they are replaced: heartbeats name them no more.
    async fn ack_takeovers(&self, node: NodeId, replaced: &[Sid]) -> Result<(), StoreError>;
    /// Makes a write as serving does, which changes nothing that counts.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where the lease is not held.
    async fn probe(&self, lease: Lease, ttl: Duration) -> Result<(), StoreError>;
    /// Takes over expired leases of other nodes, ends up to `max` of their sessions (node_lost), then takes over their stale
    /// fields, and returns how many of either; zero when there is nothing more. Only one node reaps a dead one. None is taken
    /// while the own lease is expired: then every lease may be. A session whose end the database refuses is quarantined, and
    /// holds up no other.
    async fn reap(&self, lease: Lease, max: usize) -> Result<usize, StoreError>;
    /// Gives the lease back. Sessions that are left may be reaped at once.
    async fn release_lease(&self, lease: Lease) -> Result<(), StoreError>;
    /// Whether the node has a row, whatever its epoch.
    async fn knows_node(&self, node: NodeId) -> Result<bool, StoreError>;
}
