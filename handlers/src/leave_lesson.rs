//! `leave_lesson`: the client leaves the lesson and stays in the classroom (PROTOCOL 2).
//!
//! Invariant: after a success the client gets no event of the lesson, and neither row nor keys say that the user is
//! there.
use rollcall_runtime::{HandlerError, Presence, Resources, Session};
use rollcall_schema::ack::Empty;

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

/// Leaves the lesson. The worker takes the connection out of the room when it sends the answer.
///
/// # Errors
/// Returns `not in a lesson` if the connection has joined none, and `try again later` while SQL is away.
pub async fn handle(deps: &Deps, session: &mut Session, _request: Empty) -> Result<Empty, HandlerError> {
    let user = session.user().map(|(user, _)| user);
    deps.presence.leave_lesson(&mut session.membership, user).await?;
    Ok(Empty {})
}
