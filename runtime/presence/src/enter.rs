//! An agent enters a classroom.
use std::time::Duration;

use rollcall_base::{failpoint, trace};
use rollcall_schema::{AgentId, ClassroomId, JsonObject, ResumeId, Role, Sid, TraceParent};
use rollcall_store::{Open, ResumableSession, StoreError};
use tokio::time::Instant;

use crate::{
    Presence,
    enter_guard::{EnterError, EnterGuard},
    membership::{AgentSession, Membership},
};

/// An agent that is to enter a classroom.
#[derive(Debug)]
pub struct Enter {
    agent: AgentId,
    classroom: ClassroomId,
    role: Role,
    info: Option<JsonObject>,
    resume_id: Option<ResumeId>,
    trace: Option<TraceParent>,
    sid: Sid,
    since: Instant,
}

impl Enter {
    /// Creates the request. Must be called before the classroom's room is entered: the time that the client may wait
    /// for SQL begins here.
    #[must_use]
    pub fn new(agent: AgentId, classroom: ClassroomId, role: Role, sid: Sid) -> Self {
        Self { agent, classroom, role, info: None, resume_id: None, trace: None, sid, since: Instant::now() }
    }

    /// Sets the claim `info` of the token, which everybody in the classroom sees.
    #[must_use]
    pub fn info(self, info: Option<JsonObject>) -> Self {
        Self { info, ..self }
    }

    /// Sets the id under which the client finds the session again after a break ([`Presence::resumable`]).
    #[must_use]
    pub fn resume_id(self, resume_id: Option<ResumeId>) -> Self {
        Self { resume_id, ..self }
    }

    /// Sets the trace that the session's events carry.
    #[must_use]
    pub fn trace(self, trace: Option<TraceParent>) -> Self {
        Self { trace, ..self }
    }
}

impl Presence {
    /// Finds the session of an agent before a break, if it is live or has ended no longer ago than this.
    ///
    /// # Errors
    /// Returns a [`StoreError`] if SQL does not answer.
    pub async fn resumable(
        &self,
        agent: &AgentId,
        id: ResumeId,
        within: Duration,
    ) -> Result<Option<ResumableSession>, StoreError> {
        self.sessions.resumable(agent, id, within).await
    }

    /// Writes the session's row and agent.entered, in one transaction. The connection that had the session is closed
    /// with `replaced`. Commit the guard once nothing can fail any more. If it is dropped before, it ends the session
    /// again.
    ///
    /// # Errors
    /// Returns an [`EnterError`] if the session was not opened. If a session may have been written, it is ended again.
    pub async fn enter(&self, enter: Enter) -> Result<(Membership, EnterGuard), EnterError> {
        failpoint::reach("classroom entered");
        let Enter { agent, classroom, role, info, resume_id, trace, sid, since } = enter;
        let open = Open {
            classroom,
            user: agent.user(),
            agent: agent.clone(),
            sid,
            role,
            info,
            user_sessions: self.max_user_sessions(),
            resume_id,
            trace,
        };
        let (opened, guard) = trace::call("sql", "open session", EnterGuard::open(&self.sessions, since, open)).await?;
        let session = AgentSession { id: opened.session, agent };
        Ok((Membership::agent(sid, classroom, session, resume_id), guard.with_cleanup(&self.cleanup)))
    }
}
