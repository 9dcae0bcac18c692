//! What a node remembers of a session, and how that stands in the database (PROTOCOL 5): a failover to a replica, or a
//! backup that was put back, can lose the last commits while the connections live.
use std::time::Duration;

use rollcall_schema::{AgentId, ClassroomId, LeftReason, LessonId, SessionId, Sid, UserId};

use super::Close;

/// A session as its node has it in memory: enough to write its end where the database has lost its row.
#[derive(Clone, Debug)]
pub struct Remembered {
    /// Its id.
    pub session: SessionId,
    /// Where it is.
    pub classroom: ClassroomId,
    /// Whose it is.
    pub agent: AgentId,
    /// The agent's user.
    pub user: UserId,
    /// The connection that owns it.
    pub sid: Sid,
    /// The lesson that it is in.
    pub lesson: Option<LessonId>,
    /// How long ago this connection was let in.
    pub age: Duration,
    /// Why it ends, where its end must be written.
    pub reason: LeftReason,
}

impl Remembered {
    /// The end of it.
    #[must_use]
    pub fn close(&self) -> Close {
        Close { classroom: self.classroom, agent: self.agent.clone(), sid: self.sid, reason: self.reason }
    }
}

/// How a remembered session stands in the database.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Standing {
    /// Its row is there, and this connection owns it.
    Owned,
    /// The agent has entered the classroom again with another connection.
    Replaced,
    /// The row is there, but an earlier connection owns it: the takeover is lost. Or its end is in the history already.
    NotOwned,
    /// There was neither a row nor a history row: the history row and agent.left are written now.
    Lost,
}
