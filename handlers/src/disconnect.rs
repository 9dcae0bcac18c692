//! The end of a connection: an agent leaves a classroom (seed 000, the second diagram).
//!
//! Invariant: agent.left and the move to history are one transaction, and only of a session that is still this
//! connection's; the user's field in Redis goes only if it still names this connection.
use rollcall_runtime::{
    Leavings, Place, Pools, Presence, Session, Sessions, failpoint,
    kv::Field,
    store::{Close, Closed},
};
use rollcall_schema::LeftReason;

/// What disconnect needs.
pub struct Deps {
    sessions: Sessions,
    leavings: Leavings,
}

impl Deps {
    /// Picks it out of the pools.
    #[must_use]
    pub fn of(pools: &Pools) -> Self {
        Self { sessions: pools.sessions.clone(), leavings: pools.leavings.clone() }
    }
}

/// Writes down that an agent left. Guests leave no trace.
pub async fn handle(deps: &Deps, session: Session, reason: LeftReason) {
    let user = session.claims();
    let Session { sid, classroom, presence, place, tried, .. } = session;
    failpoint::reach("leave begins");
    let closed = match presence {
        Some(Presence { agent, .. }) => deps.sessions.close(Close { classroom, agent, sid, reason }).await,
        None => Closed::NotOwner,
    };
    failpoint::reach("leave done");
    // Written with the session's end, where it was this connection's; a join under way then may have come after it.
    deps.leavings.look();
    let written = match (place, user) {
        (Some(Place { lesson, written: Some(_), .. }), Some(user)) if closed == Closed::NotOwner => {
            Some(Field { lesson, user: user.user, sid })
        }
        _ => None,
    };
    if closed == Closed::NotOwner {
        deps.leavings.ended(sid);
    }
        deps.leavings.leave(field);
    }
}
