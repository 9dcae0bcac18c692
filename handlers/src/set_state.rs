//! `set_state`: what an agent shows of itself to everybody in its classroom (PROTOCOL 9).
//!
//! Invariant: a success means that the state is stored together with its event. The agent's own connection gets no
//! event.
use rollcall_runtime::{HandlerError, Presence, Resources, Session};
use rollcall_schema::{SetState, ack::Empty};

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

/// Sets the session's state.
///
/// # Errors
/// Returns `not in a classroom` for a guest, and `try again later` while SQL is away.
pub async fn handle(deps: &Deps, session: &mut Session, request: SetState) -> Result<Empty, HandlerError> {
    session.sets_state = true;
    deps.presence.set_state(&session.membership, request.state).await?;
    Ok(Empty {})
}
