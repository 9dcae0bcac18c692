//! `leave_lesson`: out of the lesson, and still in the classroom (PROTOCOL 9).
//!
//! Invariant: after a success no event of the lesson comes, and neither row nor keys say that the user is there.
use rollcall_runtime::{HandlerError, Presence, Resources, Session};
use rollcall_schema::ack::Empty;

/// What leave_lesson needs.
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

/// Leaves the lesson. The worker takes the connection out of the room when it sends the answer.
///
/// # Errors
/// `not in a lesson`; `try again later` while SQL is away.
pub async fn handle(deps: &Deps, session: &mut Session, _request: Empty) -> Result<Empty, HandlerError> {
    let user = session.user().map(|(user, _)| user);
    deps.presence.leave_lesson(&mut session.membership, user).await?;
    Ok(Empty {})
}
