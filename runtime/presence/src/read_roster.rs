//! A client asks which agents are in its classroom, or in a lesson of it.
use rollcall_base::trace;
use rollcall_schema::{Roster, SessionId, roster::MAX_PAGE};

use crate::{
    Presence,
    membership::Membership,
    rosters::{Answer, RosterForm, RosterRequest},
};
use rollcall_store::RosterQuery;

impl Presence {
    /// Reads which agents are in the classroom of a connection, or in one of its lessons, as the client asks.
    ///
    /// # Errors
    /// Returns the errors of [`Rosters::read`].
    pub async fn roster(&self, membership: &Membership, asked: Roster) -> Answer {
        let query = RosterQuery {
            classroom: membership.classroom(),
            lesson: asked.lesson_id,
            after: asked.after.unwrap_or(SessionId(0)),
        };
        let limit = asked.limit.map_or(MAX_PAGE, |limit| usize::try_from(limit).unwrap_or(MAX_PAGE).clamp(1, MAX_PAGE));
        let request = RosterRequest { query, limit, form: RosterForm::Agent };
        trace::call("sql", "read roster", self.rosters.read(request)).await
    }
}
