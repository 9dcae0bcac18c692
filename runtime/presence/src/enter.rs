//! An agent enters a classroom.
use rollcall_base::failpoint;
use rollcall_schema::{AgentId, ClassroomId, Role, Sid};
use rollcall_store::Open;
use tokio::time::Instant;

use crate::{
    Presence,
    membership::{AgentSession, Membership},
    sessions::{EnterError, EnterGuard},
};

/// An agent that wants to enter.
#[derive(Debug)]
pub struct Enter {
    agent: AgentId,
    classroom: ClassroomId,
    role: Role,
    sid: Sid,
    since: Instant,
}

impl Enter {
    /// Made before the classroom's room is entered: the time that the client may wait for SQL begins here.
    #[must_use]
    pub fn new(agent: AgentId, classroom: ClassroomId, role: Role, sid: Sid) -> Self {
        Self { agent, classroom, role, sid, since: Instant::now() }
    }
}

impl Presence {
    /// Writes the session's row and agent.entered, in one transaction. The connection that had the session is closed with
    /// `replaced`. The guard is committed once nothing can fail any more; dropped before, it ends the session again.
    ///
    /// # Errors
    /// [`EnterError`]; where a session may have been written, it is ended again.
    pub async fn enter(&self, enter: Enter) -> Result<(Membership, EnterGuard), EnterError> {
        failpoint::reach("classroom entered");
        let Enter { agent, classroom, role, sid, since } = enter;
        let open = Open {
            classroom,
            user: agent.user(),
            agent: agent.clone(),
            sid,
            role,
            user_sessions: self.max_user_sessions,
        };
        let (opened, guard) = self.sessions.open(since, open).await?;
        let session = AgentSession { id: opened.session, agent };
        Ok((Membership::agent(sid, classroom, session), guard))
    }
}
