//! The session that a handler gets: the agent, its classroom and lesson, and the rights of its token.
//!
//! Invariant: the handler of connect creates the session, handlers of events borrow it, and the handler of disconnect
//! consumes it. A session is in one place at a time, so one event of a connection is handled at a time.
use rollcall_schema::{
    AgentId, Audience, ClassroomId, JsonObject, LeftReason, LessonId, Role, RoomId, Seat, SessionId, Sid, TraceParent,
    UserId,
};

use crate::{
    auth::{Claims, Grants},
    handler::sids,
};
use rollcall_presence::Membership;
use rollcall_store::Remembered;
use rollcall_websocket::SocketId;

/// A connection that was let in. It is small, because every connection has a session.
///
/// ```
/// use rollcall_runtime::{HandlerError, Session};
/// use rollcall_schema::{AckMessage, LessonId, Role};
///
/// const TEACHERS: AckMessage = AckMessage::from_static("only teachers may do that");
///
/// /// The lesson that a teacher gives.
/// fn lesson_of_teacher(session: &Session) -> Result<Option<LessonId>, HandlerError> {
///     match session.role() {
///         Some(Role::Teacher) => Ok(session.lesson().cloned()),
///         Some(Role::Participant | Role::Hub) | None => Err(TEACHERS.into()),
///     }
/// }
///
/// # use rollcall_runtime::Membership;
/// # use rollcall_schema::{ClassroomId, Sid};
/// # let classroom = ClassroomId::parse("2b5c0e0c-8f7c-4b0a-9d54-0a8cf9d1c001").unwrap();
/// let guest = Session::guest(Membership::guest(Sid::random(), classroom));
/// assert!(lesson_of_teacher(&guest).is_err());
/// ```
#[derive(Debug)]
pub struct Session {
    /// The session's part in the classroom. Only the presence service changes it.
    pub membership: Membership,
    token: Token,
    /// Whether the client wants offsets.
    pub resumes: bool,
    /// Whether the client has set a state. The flag is needed because a database that loses commits may not have a
    /// state that it had confirmed.
    pub sets_state: bool,
    /// The lesson that the connection's URL names.
    pub url_lesson: Option<LessonId>,
    /// The trace that the connection belongs to. It is boxed, because most connections belong to none.
    trace: Option<Box<TraceParent>>,
}

/// The claims of a token without those that are in the agent's id. This saves a third of the memory of an idle
/// connection.
#[derive(Debug)]
enum Token {
    None,
    OfAgent { role: Role, expires: u64, grants: Option<Box<Grants>> },
    OfGuest(Box<Claims>),
}

impl Session {
    /// Creates a session of an agent with the claims of its token.
    #[must_use]
    pub fn agent(membership: Membership, claims: Claims) -> Self {
        let mut session = Self::guest(membership);
        session.set_claims(claims);
        session
    }

    /// Creates a session without a token.
    #[must_use]
    pub fn guest(membership: Membership) -> Self {
        Self { membership, token: Token::None, resumes: false, sets_state: false, url_lesson: None, trace: None }
    }

    /// Returns the connection's id.
    #[must_use]
    pub fn sid(&self) -> Sid {
        self.membership.sid()
    }

    /// Returns the classroom that the connection is in.
    #[must_use]
    pub fn classroom(&self) -> ClassroomId {
        self.membership.classroom()
    }

    /// Returns the session's id, or `None` for a guest.
    #[must_use]
    pub fn id(&self) -> Option<SessionId> {
        self.membership.session().map(|(id, _)| id)
    }

    /// Returns the agent, or `None` for a guest.
    #[must_use]
    pub fn agent_id(&self) -> Option<&AgentId> {
        self.membership.session().map(|(_, agent)| agent)
    }

    /// Returns the lesson that was joined.
    #[must_use]
    pub fn lesson(&self) -> Option<&LessonId> {
        self.membership.lesson()
    }

    /// Returns the seat in that lesson if the user has one.
    #[must_use]
    pub fn seat(&self) -> Option<Seat> {
        self.membership.seat()
    }

    /// Returns the claims of the token. A guest has none until a join_lesson brings a token.
    #[must_use]
    pub fn claims(&self) -> Option<Claims> {
        match &self.token {
            Token::None => None,
            Token::OfGuest(claims) => Some(Claims::clone(claims)),
            Token::OfAgent { role, expires, grants } => {
                let (user, audience) = self.user()?;
                Some(Claims { user, audience, role: *role, expires: *expires, limits: grants.clone() })
            }
        }
    }

    /// Returns the role in the token, or `None` without a token.
    #[must_use]
    pub fn role(&self) -> Option<Role> {
        match &self.token {
            Token::None => None,
            Token::OfAgent { role, .. } => Some(*role),
            Token::OfGuest(claims) => Some(claims.role),
        }
    }

    /// Returns `info` of the token if the token has it.
    #[must_use]
    pub fn info(&self) -> Option<&JsonObject> {
        let grants = match &self.token {
            Token::None => None,
            Token::OfAgent { grants, .. } => grants.as_deref(),
            Token::OfGuest(claims) => claims.limits.as_deref(),
        };
        grants?.info.as_ref()
    }

    /// Returns `sub` and `aud` of the token.
    #[must_use]
    pub fn user(&self) -> Option<(UserId, Audience)> {
        match (&self.token, self.agent_id()) {
            (Token::OfGuest(claims), _) => Some((claims.user.clone(), claims.audience.clone())),
            (Token::OfAgent { .. }, Some(agent)) => Some((agent.user(), agent.audience())),
            (Token::OfAgent { .. }, None) | (Token::None, _) => None,
        }
    }

    /// Returns when the token expires, in Unix seconds.
    #[must_use]
    pub fn expires(&self) -> Option<u64> {
        match &self.token {
            Token::None => None,
            Token::OfAgent { expires, .. } => Some(*expires),
            Token::OfGuest(claims) => Some(claims.expires),
        }
    }

    /// Replaces the token with another token of the same user, or gives a guest its first token.
    pub fn set_claims(&mut self, claims: Claims) {
        self.token = if self.agent_id().is_some() {
            Token::OfAgent { role: claims.role, expires: claims.expires, grants: claims.limits }
        } else {
            Token::OfGuest(Box::new(claims))
        };
    }

    /// Returns the trace that the connection belongs to, if its client or a proxy named one.
    #[must_use]
    pub fn trace(&self) -> Option<TraceParent> {
        self.trace.as_deref().copied()
    }

    /// Sets the trace that the session's requests belong to from now on.
    pub(crate) fn set_trace(&mut self, trace: Option<Box<TraceParent>>) {
        self.trace = trace;
    }

    /// Drops the data that only requests need, because a session without its connection may be kept for long.
    pub fn forget_rights(&mut self) {
        self.url_lesson = None;
        self.trace = None;
        match &mut self.token {
            Token::None => {}
            Token::OfAgent { grants, .. } => *grants = None,
            Token::OfGuest(claims) => claims.limits = None,
        }
    }

    /// Returns what the node knows about an agent's session, for the case that the database loses its row. `reason` is
    /// the reason of the session's end.
    #[must_use]
    pub fn remembered(&self, reason: LeftReason) -> Option<Remembered> {
        let remembered = self.membership.remembered(reason)?;
        Some(Remembered { sets_state: self.sets_state, ..remembered })
    }

    /// Returns the socket, which enters rooms. A session is only where its connection is, so its sid is one of this
    /// process.
    #[must_use]
    pub fn socket(&self) -> SocketId {
        sids::socket_of_own(self.sid())
    }

    /// Returns the rooms whose events the session gets. A guest does not get the classroom's events.
    #[must_use]
    pub fn rooms(&self) -> Vec<RoomId> {
        let classroom = self.agent_id().is_some().then_some(RoomId::Classroom(self.classroom()));
        let lesson = self.lesson().map(|lesson| RoomId::Lesson(lesson.clone()));
        classroom.into_iter().chain(lesson).collect()
    }
}
