//! Nodes and their leases. A node may write from its registration until another node takes its lease.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_base::process::ProcessIdentity;
use rollcall_schema::{NodeId, Sid};

use crate::{Kick, Lease, StoreError};

/// How a node enters the `node` table.
#[derive(Clone, Debug)]
pub struct Registration {
    /// A name for people: the host and the process.
    pub label: String,
    /// How long the lease holds without a renewal, by the database's clock.
    pub lease: Duration,
    /// Whether the node's keys or its bus are in the process, so that no other node may live beside it.
    pub standalone: bool,
    /// The node's process, by which a later process on the same machine can tell that this one is dead.
    pub process: Option<ProcessIdentity>,
}

/// The answer to a heartbeat.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct HeartbeatReply {
    /// Connections of this node whose session another connection took over. They are named until
    /// [`NodeLeases::ack_takeovers`], because an answer may be lost.
    pub replaced: Vec<Sid>,
    /// What operators did to connections of this node. The kicks are named until
    /// [`Kicks::ack_kicks`](crate::Kicks::ack_kicks).
    pub kicks: Vec<Kick>,
    /// How many nodes have a valid lease, including this one; 9 means that there are more than 8.
    pub nodes: u32,
    /// Whether the lease was expired before this renewal, by the store's clock. Then the leases of other nodes may have
    /// expired, too.
    pub was_expired: bool,
    /// Whether there may be a node to [reap](NodeLeases::reap). If there are many nodes, only some heartbeats check
    /// this.
    pub dead: bool,
}

/// The leases of nodes.
#[async_trait]
pub trait NodeLeases: Send + Sync {
    /// Enters the `node` table with a fresh lease.
    ///
    /// # Errors
    /// Returns [`StoreError::Refused`] with a sentence for the operator if a standalone node would live beside another
    /// node.
    async fn register(&self, registration: &Registration) -> Result<Lease, StoreError>;
    /// Renews the lease, even if it has expired, provided no other node took it.
    ///
    /// # Errors
    /// Returns [`StoreError::Fenced`] if another node took over the lease.
    async fn renew_lease(&self, lease: Lease, ttl: Duration) -> Result<HeartbeatReply, StoreError>;
    /// Sets this node's statistics, as JSON. From now on renewals of its lease write them for other nodes
    /// ([`Overview::reports`](crate::Overview::reports)).
    fn report(&self, statistics: String);
    /// Records that these connections have been closed as replaced, so heartbeats no longer name them.
    async fn ack_takeovers(&self, node: NodeId, replaced: &[Sid]) -> Result<(), StoreError>;
    /// Writes as a serving node does, without a change of any meaning.
    ///
    /// # Errors
    /// Returns [`StoreError::Fenced`] if this node does not have the lease.
    async fn probe(&self, lease: Lease, ttl: Duration) -> Result<(), StoreError>;
    /// Takes over expired leases of other nodes, ends up to `max` of their sessions (node_lost), and then takes over
    /// their stale fields. Returns the number of sessions or fields; zero when nothing is left. Only one node reaps a
    /// dead one. While this node's own lease is expired it takes no lease, because then every lease may be expired. A
    /// session whose end the database refuses is quarantined, and does not delay others.
    async fn reap(&self, lease: Lease, max: usize) -> Result<usize, StoreError>;
    /// Gives the lease back. Sessions that are left may be reaped at once.
    async fn release_lease(&self, lease: Lease) -> Result<(), StoreError>;
    /// Returns whether the node has a row, with any epoch.
    async fn knows_node(&self, node: NodeId) -> Result<bool, StoreError>;
}
