//! Handles a request which finds that its connection does not own its session: another connection has the session, an
//! operator has ended it, or its row is gone.
//!
//! Invariant: the client is told which of these is the case. A session without a row does not stay in any client's
//! state, because its end is written from memory. The request itself is answered with `try again later`.
use rollcall_schema::LeftReason;
use rollcall_store::StoreError;

use crate::{Presence, membership::Membership};

impl Presence {
    /// Tells the client, and returns the request's error.
    pub(crate) async fn disowned(&self, membership: &Membership) -> StoreError {
        if let Some(session) = membership.remembered(LeftReason::NodeLost) {
            self.sessions.settle(session).await;
        }
        StoreError::Fenced
    }
}
