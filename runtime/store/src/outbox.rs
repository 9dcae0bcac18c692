//! Events that are committed and not yet published.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{
    AgentEvent, AgentId, Change, ClassroomId, IdError, JsonObject, Nonce, SessionId, Shards, StateVersion, TraceParent,
    Update,
};
use tokio::sync::watch;

use crate::{Lease, StoreError};

/// An event that was committed and must be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// The row's id. For one agent in one classroom ids ascend in commit order.
    pub id: i64,
    /// The classroom.
    pub classroom: ClassroomId,
    /// The agent.
    pub agent: AgentId,
    /// The session.
    pub session: SessionId,
    /// What happened to the agent.
    pub change: Change,
    /// The agent's `info`, if the event may have it.
    pub info: Option<JsonObject>,
    /// A random part of the message id, which is stored with the row.
    pub nonce: Nonce,
    /// The trace of the session's connection.
    pub trace: Option<TraceParent>,
    /// How long ago the row was written, by the store's clock.
    pub waited: Duration,
}

impl OutboxRow {
    /// Returns the event to publish.
    #[must_use]
    pub fn event(&self) -> AgentEvent<'_> {
        AgentEvent { change: &self.change, session: self.session, agent: &self.agent, info: self.info.as_ref() }
    }
}

/// The columns of a row that say what happened.
pub(crate) struct EventColumns<'a> {
    pub(crate) id: i64,
    pub(crate) operation: &'a str,
    pub(crate) reason: Option<&'a str>,
    pub(crate) state: Option<&'a str>,
    pub(crate) role: Option<&'a str>,
    pub(crate) info: Option<&'a str>,
}

impl EventColumns<'_> {
    /// Returns what happened to the agent, and the agent's `info`.
    pub(crate) fn read(&self) -> Result<(Change, Option<JsonObject>), IdError> {
        let change = if self.operation == "updated" {
            Change::Updated(Box::new(Update {
                state: self.state.map(JsonObject::parse).transpose()?,
                state_n: StateVersion(self.id),
                role: self.role.map(str::parse).transpose()?,
            }))
        } else {
            Change::parse(self.operation, self.reason)?
        };
        Ok((change, self.info.map(JsonObject::parse).transpose()?))
    }
}

/// How much waits in the outbox of the whole installation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// The number of rows. Above some thousands it is an estimate.
    pub rows: u64,
    /// The age of the oldest row; zero if there is none.
    pub lag: Duration,
}

/// The right to publish the events of some shards, for as long as the node renews its lease. Two nodes never read the
/// same shard. The shards of a node that stops renewing are free after some seconds.
#[async_trait]
pub trait Outbox: Send {
    /// Takes more shards if some are free, and gives some back if this node has more than its share. Returns the number
    /// of shards of this node. Must be called several times a second while nothing is being published. Most calls make
    /// no query.
    async fn claim(&mut self) -> Result<usize, StoreError>;
    /// Returns about `max` rows: the oldest of each held shard, at most an equal part of each, oldest first. The rows
    /// of one agent in a classroom must be published one after the other. Rows of a newer version that this one cannot
    /// read are quarantined.
    async fn read(&mut self, max: usize) -> Result<Vec<OutboxRow>, StoreError>;
    /// Returns a number that grows when this relay may have got shards that another relay had.
    fn generation(&self) -> u64 {
        0
    }
    /// Quarantines rows that cannot be published. Later rows of the same agents in the same classrooms are quarantined
    /// when they are read.
    async fn quarantine(&mut self, ids: &[i64], why: &str) -> Result<(), StoreError>;
    /// Releases rows that are due for another attempt. Returns how many are left in the quarantine, or 10,000 if there
    /// are more.
    async fn release_quarantined(&mut self) -> Result<u64, StoreError>;
    /// Deletes rows that are published, at once or with the next call. After this call, no other row that was read
    /// before may be published.
    async fn delete(&mut self, ids: &[i64]) -> Result<(), StoreError>;
    /// Records whether the bus does not answer this node. While it does not, the shards may be left to other nodes.
    fn bus_is_away(&mut self, _away: bool) {}
    /// Returns whether published rows are still to be deleted.
    fn owes(&self) -> bool {
        false
    }
    /// Waits until there may be new rows, of this node or of another that [named them](OutboxSource::wake_relay), for
    /// `max` at most.
    async fn wait(&mut self, max: Duration) -> Result<(), StoreError>;
}

/// Opens the outbox for a relay, and measures it.
#[async_trait]
pub trait OutboxSource: Send + Sync {
    /// Opens the outbox with a connection of its own. This ends the claims of earlier relays of this node.
    ///
    /// # Errors
    /// Returns [`StoreError::Fenced`] if another node took the lease.
    async fn open_outbox(&self, lease: Lease) -> Result<Box<dyn Outbox>, StoreError>;
    /// Returns the shards that this node's relay holds.
    fn held_shards(&self) -> watch::Receiver<Shards> {
        watch::channel(Shards::ALL).1
    }
    /// Waits until this node has committed rows to shards that it does not hold, and returns those shards.
    async fn rows_for_others(&self) -> Shards {
        std::future::pending().await
    }
    /// Records that another node has committed rows to these shards, and wakes this node's relay.
    fn wake_relay(&self, _shards: Shards) {}
    /// Measures the backlog. This may take 12 s if the database holds very many dead rows.
    async fn backlog(&self) -> Result<Backlog, StoreError>;
}
