//! The end of a connection: an agent leaves a classroom (seed 000, the second diagram). Guests leave no trace, also those
//! that brought a token.
use rollcall_runtime::{Presence, Resources, Session};
use rollcall_schema::LeftReason;

/// What disconnect needs.
pub struct Deps {
    presence: Presence,
}

impl Deps {
    /// Picks it out of the resources.
    #[must_use]
    pub fn new(resources: &Resources) -> Self {
        Self { presence: resources.presence.clone() }
    }
}

/// Writes down that an agent left: history, agent.left, and its keys.
pub async fn handle(deps: &Deps, session: Session, reason: LeftReason) {
    let user = session.user().map(|(user, _)| user);
    deps.presence.leave(session.membership, user, reason).await;
}
