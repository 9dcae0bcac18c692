//! The end of a connection: an agent leaves a classroom (seed 000, the second diagram). A guest leaves no trace, even
//! if it joined a lesson with a token.
use rollcall_runtime::{Presence, Resources, Session};
use rollcall_schema::LeftReason;

/// The dependencies of this handler.
pub struct Deps {
    presence: Presence,
}

impl Deps {
    /// Takes the dependencies out of the resources.
    #[must_use]
    pub fn new(resources: &Resources) -> Self {
        Self { presence: resources.presence.clone() }
    }
}

/// Ends an agent's session: writes its history and agent.left, and removes its keys.
pub async fn handle(deps: &Deps, session: Session, reason: LeftReason) {
    let user = session.user().map(|(user, _)| user);
    deps.presence.leave(session.membership, user, reason).await;
}
