//! The state that an agent sets (PROTOCOL 9).
use async_trait::async_trait;
use rollcall_schema::{JsonObject, SessionId, Sid, StateVersion};

use crate::{Lease, StoreError};

/// An agent sets its state. Unique key of a batch: the session.
#[derive(Clone, Debug)]
pub struct SetState {
    /// The connection: only the one that owns the session may set its state.
    pub sid: Sid,
    /// The session.
    pub session: SessionId,
    /// The state from now on; none: it has none any more.
    pub state: Option<JsonObject>,
}

/// The states of agents. A batch has no two entries of one key; answers come in the batch's order.
#[async_trait]
pub trait AgentStates: Send + Sync {
    /// Writes states and their agent.updated, in one transaction. An agent.updated of the session that still waits is
    /// deleted: the new one tells all of it. None where the session is no longer the connection's; nothing is written
    /// then.
    async fn set_state(&self, lease: Lease, batch: &[SetState]) -> Result<Vec<Option<StateVersion>>, StoreError>;
}
