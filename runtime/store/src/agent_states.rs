//! The state that an agent sets (PROTOCOL 9).
use async_trait::async_trait;
use rollcall_schema::{JsonObject, SessionId, Sid, StateVersion};

use crate::{Lease, StoreError};

/// A request to set an agent's state. In a batch each session is unique.
#[derive(Clone, Debug)]
pub struct SetState {
    /// The connection. Only the one that owns the session may set its state.
    pub sid: Sid,
    /// The session.
    pub session: SessionId,
    /// The new state. `None` removes the state.
    pub state: Option<JsonObject>,
}

/// The states of agents. No two entries of a batch have the same key, and answers come in the batch's order.
#[async_trait]
pub trait AgentStates: Send + Sync {
    /// Writes states and their agent.updated, in one transaction. An agent.updated of the session that still waits is
    /// deleted, because the new one has everything. The answer is `None` if the session no longer belongs to the
    /// connection; then nothing is written.
    async fn set_state(&self, lease: Lease, batch: &[SetState]) -> Result<Vec<Option<StateVersion>>, StoreError>;
}
