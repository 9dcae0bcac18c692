//! The end of a connection: an agent leaves a classroom (seed 000, the second diagram).
//!
//! Invariant: agent.left and the move to history are one transaction, and only of a session that is still this
//! connection's; the user's field in Redis goes only if it still names this connection.
use rollcall_base::failpoint;
use rollcall_keys::KeyField;
use rollcall_runtime::{JoinedLesson, KeyCleanup, Resources, Session, Sessions};
use rollcall_schema::LeftReason;
use rollcall_store::Closed;

/// What disconnect needs.
pub struct Deps {
    sessions: Sessions,
    leavings: KeyCleanup,
}

impl Deps {
    /// Picks it out of the resources.
    #[must_use]
    pub fn of(resources: &Resources) -> Self {
        Self { sessions: resources.sessions.clone(), leavings: resources.leavings.clone() }
    }
}

/// Writes down that an agent left. Guests leave no trace, also those who brought a token.
pub async fn handle(deps: &Deps, session: Session, reason: LeftReason) {
    let (user, remembered) = (session.user(), session.remembered(reason));
    let Session { sid, place, tried, .. } = session;
    failpoint::reach("leave begins");
    let closed = match remembered {
        Some(session) => Some(deps.sessions.leave(session).await),
        None => None,
    };
    failpoint::reach("leave done");
    match closed {
        // Written with the session's end.
        Some(Closed::Left) => deps.leavings.look(),
        Some(Closed::NotOwner) => deps.leavings.ended(sid),
        // Its joins have written down what they leave.
        None if user.is_some() => deps.leavings.ended(sid),
        None => {}
    }
    // A join of who had lost its session may have come after whatever else was to remove its field.
    let written = match (place, user) {
        (Some(JoinedLesson { lesson, written: Some(_), .. }), Some((user, _))) if closed != Some(Closed::Left) => {
            Some(KeyField { lesson, user, sid })
        }
        _ => None,
    };
    for field in tried.map(|tried| *tried).into_iter().chain(written) {
        deps.leavings.leave(field);
    }
}
