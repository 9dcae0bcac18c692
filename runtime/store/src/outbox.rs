//! Events that are committed and not yet published.
use std::time::Duration;

use async_trait::async_trait;
use rollcall_schema::{
    AgentEvent, AgentId, Change, ClassroomId, IdError, JsonObject, Nonce, SessionId, Shards, StateVersion, TraceParent,
    Update,
};
use tokio::sync::watch;

use crate::{Lease, StoreError};

/// An event that was committed and is to be published.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct OutboxRow {
    /// Ascending in commit order for one agent in one classroom.
    pub id: i64,
    /// The classroom.
    pub classroom: ClassroomId,
    /// The agent.
    pub agent: AgentId,
    /// The session.
    pub session: SessionId,
    /// What happened.
    pub change: Change,
    /// The agent's `info`, where the event may tell it.
    pub info: Option<JsonObject>,
    /// Part of the message id, stored with the row.
    pub nonce: Nonce,
    /// The trace of the session's connection.
    pub trace: Option<TraceParent>,
    /// How long ago it was written, by the store's clock.
    pub waited: Duration,
}

impl OutboxRow {
    /// The event to publish.
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
    /// What happened, and the agent's `info`.
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

/// What waits in the outbox of the whole installation.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Backlog {
    /// How many rows; above some thousands it is an estimate.
    pub rows: u64,
    /// The age of the oldest row; zero where there is none.
    pub lag: Duration,
}

/// The right to publish the events of some classrooms (shards), for as long as the node renews its lease: two holders never
/// read the same shard. A silent holder's shards are free after some seconds.
#[async_trait]
pub trait Outbox: Send {
    /// Takes more shards where they are free, and gives some back where this node has more than its share. Returns how many
    /// it holds. Call it several times a second, while nothing is being published: most calls ask nothing.
    async fn claim(&mut self) -> Result<usize, StoreError>;
    /// About `max` rows: the oldest of each shard held, at most an equal part of each, oldest first. Those of one agent in a
    /// classroom are to be published one after the other. Rows that a newer version wrote, which this one cannot read, are
    /// quarantined.
    async fn read(&mut self, max: usize) -> Result<Vec<OutboxRow>, StoreError>;
    /// Counts up when this relay may have got shards that another had.
    fn generation(&self) -> u64 {
        0
    }
    /// Quarantines rows that cannot be published. Later rows of the same agents in the same classrooms follow when they are
    /// read.
    async fn quarantine(&mut self, ids: &[i64], why: &str) -> Result<(), StoreError>;
    /// Releases rows that are due to be tried again. Returns how many are left in the quarantine, or 10,000 where there are
    /// more.
    async fn release_quarantined(&mut self) -> Result<u64, StoreError>;
    /// Deletes rows that are published, at once or with the next call. Nothing else that was read is to be published after it.
    async fn delete(&mut self, ids: &[i64]) -> Result<(), StoreError>;
    /// Notes whether the bus leaves this node without an answer. While it does, the shards may be left to other nodes.
    fn bus_is_away(&mut self, _away: bool) {}
    /// Whether rows are still to be deleted.
    fn owes(&self) -> bool {
        false
    }
    /// Waits until there may be new rows (of this node, or of another that has [said so](OutboxSource::wake_relay)), for `max`
    /// at most.
    async fn wait(&mut self, max: Duration) -> Result<(), StoreError>;
}

/// Opens the outbox for a relay, and measures it.
#[async_trait]
pub trait OutboxSource: Send + Sync {
    /// A new claim on the outbox, with a connection of its own. It ends those of earlier relays of this node.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where another node took the lease.
    async fn open_outbox(&self, lease: Lease) -> Result<Box<dyn Outbox>, StoreError>;
    /// The shards that this node's relay holds.
    fn held_shards(&self) -> watch::Receiver<Shards> {
        watch::channel(Shards::ALL).1
    }
    /// Waits until this node has committed rows into shards that it does not hold, and returns those.
    async fn rows_for_others(&self) -> Shards {
        std::future::pending().await
    }
    /// Another node has committed rows into these shards.
    fn wake_relay(&self, _shards: Shards) {}
    /// What waits in the outbox. It may take 12 s where the database holds very many dead rows.
    async fn backlog(&self) -> Result<Backlog, StoreError>;
}
