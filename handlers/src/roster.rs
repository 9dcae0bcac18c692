//! `roster`: who is in the classroom, or in one of its lessons (PROTOCOL 9).
//!
//! Invariant: the answer and the events after it, together, leave nothing out: the room's events are buffered from
//! before the query until the answer is sent.
use rollcall_runtime::{HandlerError, Presence, Resources, Rooms, Session};
use rollcall_schema::{AckError, Roster, ack::RosterRead};

/// The dependencies of this handler.
pub struct Deps {
    presence: Presence,
    rooms: Rooms,
}

impl Deps {
    /// Takes the dependencies out of the resources.
    #[must_use]
    pub fn new(resources: &Resources) -> Self {
        Self { presence: resources.presence.clone(), rooms: resources.rooms.clone() }
    }
}

/// Reads a page of the roster.
///
/// # Errors
/// Returns `not in a classroom` for a guest, and `try again later` while SQL is away.
pub async fn handle(deps: &Deps, session: &mut Session, request: Roster) -> Result<RosterRead, HandlerError> {
    if session.id().is_none() {
        return Err(AckError::NotInAClassroom.into());
    }
    deps.rooms.hold_events(session.socket()).await;
    Ok(RosterRead(deps.presence.roster(&session.membership, request).await?))
}
