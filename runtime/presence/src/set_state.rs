//! An agent sets its state (PROTOCOL 9).
use rollcall_base::trace;
use rollcall_schema::JsonObject;
use rollcall_store::{SetState, StoreError};

use crate::{Presence, membership::Membership};

/// Why the state was not set.
#[derive(Debug, thiserror::Error)]
pub enum SetStateError {
    /// The connection is a guest's, which has no session.
    #[error("the connection is in no classroom")]
    NotInAClassroom,
    /// SQL is away, or the session is no longer this connection's.
    #[error(transparent)]
    Store(#[from] StoreError),
}

impl Presence {
    /// Writes the agent's state and agent.updated, in one transaction. `None` removes the state.
    ///
    /// # Errors
    /// Returns a [`SetStateError`] if the state was not set.
    pub async fn set_state(&self, membership: &Membership, state: Option<JsonObject>) -> Result<(), SetStateError> {
        let (session, _) = membership.session().ok_or(SetStateError::NotInAClassroom)?;
        let set = SetState { sid: membership.sid(), session, state };
        match trace::call("sql", "set state", self.sessions.set_state(set)).await? {
            Some(_) => Ok(()),
            None => Err(self.disowned(membership).await.into()),
        }
    }
}
