//! The end of a connection: an agent leaves a classroom (seed 000, the second diagram).
//!
//! Invariant: agent.left and the move to history are one transaction, and only of a session that is still this
//! connection's; the user's field in Redis goes only if it still names this connection.
use std::sync::Arc;

use rollcall_runtime::{
    Place, Pools, Presence, Session, Sessions,
    kv::{Field, Kv},
    store::{Close, Closed},
};
use rollcall_schema::LeftReason;
use tracing::warn;

/// What disconnect needs.
pub struct Deps {
    sessions: Sessions,
    kv: Arc<dyn Kv>,
}

impl Deps {
    /// Picks it out of the pools.
    #[must_use]
    pub fn of(pools: &Pools) -> Self {
        Self { sessions: pools.sessions.clone(), kv: Arc::clone(&pools.kv) }
    }
}

/// Writes down that an agent left. Guests leave no trace.
pub async fn handle(deps: &Deps, session: Session, reason: LeftReason) {
    let Session { sid, classroom, presence, place, .. } = session;
    let heir = match presence {
        Some(Presence { agent, .. }) => match deps.sessions.close(Close { classroom, agent, sid, reason }).await {
            Closed::Left { heir } => heir,
            Closed::NotOwner => None,
        },
        None => None,
    };
    let Some(Place { lesson, written: Some((user, role)), .. }) = place else { return };
    if let Err(error) = deps.kv.leave(&Field { lesson, user, role, sid }, heir).await {
        warn!(%error, "a field stays until the next projection or its TTL");
    }
}
