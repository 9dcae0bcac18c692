//! Lets a client of Socket.IO in: into a classroom if the client names one, into the classroom where it was before a
//! break (PROTOCOL 11, Recovery), or else without a classroom.
//!
//! Invariant: a client resumes only as the same agent, and with the rights that the agent's token has now. If a session
//! cannot be recovered, the client gets another session and another pid.
use rollcall_schema::{
    AgentId, AgentLabel, ClassroomId, ConnectRequest, LessonId, Resume, ResumeId, SessionError, Sid, request::Token,
};

use super::super::{GatewayContext, WorkerCommand, pids::Pid};
use crate::{
    auth::Claims,
    handler::{connect_context::ConnectContext, connected::Connected, error::Refused, outside::Visitor},
    limits::Payer,
    rooms::Namespace,
};
use rollcall_bus::Position;

/// The request of a client in its CONNECT.
pub(super) struct Asked {
    pub context: ConnectContext,
    pub namespace: Namespace,
    pub token: Option<Token>,
    pub label: AgentLabel,
    pub classroom: Option<ClassroomId>,
    pub lesson: Option<LessonId>,
    pub roster: Option<bool>,
    /// `None` if the client cannot resume after a break.
    pub recovery: Option<Recovery>,
}

/// The pid that a client sends to resume now, and the id with which it may resume later.
pub(super) struct Recovery {
    /// The id for the next break, unless the client resumes now.
    pub resume_id: ResumeId,
    /// The pid that the client sent, its text, and the position after which the client resumes.
    pub before: Option<(Pid, Box<str>, Position)>,
}

/// The session where a client was, and the position after which it resumes.
struct Found {
    resume_id: ResumeId,
    classroom: ClassroomId,
    resume: Resume,
}

/// Lets a client in or refuses it. Returns the command for the client's worker.
pub(super) async fn let_in(shared: &GatewayContext, asked: Asked) -> WorkerCommand {
    let socket = asked.context.socket;
    match try_to(shared, asked).await {
        Ok((Outcome::Connected(connected), pid)) => WorkerCommand::Connected { socket, outcome: Ok(connected), pid },
        Ok((Outcome::Outside(visitor), pid)) => WorkerCommand::Admitted { socket, outcome: Ok(visitor), pid },
        Err(refused) => WorkerCommand::Admitted { socket, outcome: Err(refused), pid: None },
    }
}

enum Outcome {
    Connected(Box<Connected>),
    Outside(Box<Visitor>),
}

async fn try_to(shared: &GatewayContext, mut asked: Asked) -> Result<(Outcome, Option<Box<str>>), Refused> {
    let before = asked.recovery.as_mut().and_then(|recovery| recovery.before.take());
    if let Some(Claims { user, audience, .. }) = &asked.context.claims {
        // The claims are known from another namespace, and each connect counts.
        let connects = shared.events.connect(Payer::User(user, audience));
        connects.map_err(|_| Refused::from(SessionError::TooManyRequests))?;
    } else if asked.classroom.is_none() || before.is_some() {
        asked.context.claims = shared.table.admit(asked.context.client, asked.token.take()).await?;
    }
    let (pid, found) = match before {
        Some((pid, text, after)) => (Some(text), find(shared, &asked, pid, after).await?),
        None => (None, None),
    };
    let fresh = asked.recovery.as_ref().map(|recovery| recovery.resume_id);
    asked.context.resume_id = found.as_ref().map(|found| found.resume_id).or(fresh);
    let (classroom, resume) = match found {
        Some(Found { classroom, resume, .. }) => (classroom, Some(resume)),
        None => match asked.classroom {
            Some(classroom) => (classroom, fresh.map(|_| Resume::default())),
            None => return Ok(outside(shared, asked).await),
        },
    };
    let Asked { mut context, namespace, token, label: agent_label, lesson, roster, .. } = asked;
    let sid = context.sid;
    context.url_parameter = lesson.map(|lesson| lesson.as_str().into());
    let request = ConnectRequest {
        token,
        classroom_id: classroom,
        agent_label,
        resume,
        roster,
        heartbeat: None,
        traceparent: None,
    };
    let connected = Box::new(shared.table.connect(context, request).await?);
    let recovered = connected.resumption.as_ref().is_some_and(|resumption| resumption.recovered);
    let pid = if recovered { pid } else { pid_of(shared, namespace, sid, &connected) };
    Ok((Outcome::Connected(connected), pid))
}

/// Returns where the client was before, if it is still the agent of its pid and has come back in time.
async fn find(shared: &GatewayContext, asked: &Asked, pid: Pid, after: Position) -> Result<Option<Found>, Refused> {
    let Some(pids) = &shared.pids else { return Ok(None) };
    let is_agent = |claims: &Claims| AgentId::new(&asked.label, &claims.user, &claims.audience) == pid.agent;
    let of_now = *after.epoch == *shared.rooms.epoch();
    if !of_now || pids.has_ended(pid.resume_id) || !asked.context.claims.as_ref().is_some_and(is_agent) {
        return Ok(None);
    }
    let found = shared.presence.resumable(&pid.agent, pid.resume_id, pids.window).await;
    let found = found.map_err(|_| Refused::from(SessionError::InternalServerError))?;
    Ok(found.filter(|found| asked.classroom.is_none_or(|named| named == found.classroom)).map(|found| Found {
        resume_id: pid.resume_id,
        classroom: found.classroom,
        resume: Resume { epoch: Some(after.epoch), offset: Some(after.offset), lesson_id: found.lesson },
    }))
}

/// Lets the client in without a classroom.
async fn outside(shared: &GatewayContext, asked: Asked) -> (Outcome, Option<Box<str>>) {
    let Asked { context: ConnectContext { sid, claims, resume_id, .. }, namespace, label, lesson, roster, .. } = asked;
    let resume_id = resume_id.filter(|_| claims.is_some());
    let pid = match (&shared.pids, resume_id, &claims) {
        (Some(pids), Some(resume_id), Some(claims)) => {
            let agent = AgentId::new(&label, &claims.user, &claims.audience);
            let pid = Pid { agent, start: shared.rooms.end().await, resume_id };
            Some(pids.sign(&pid, shared.rooms.namespaces().name(namespace), None, sid).into())
        }
        _ => None,
    };
    let roster = roster == Some(true);
    (Outcome::Outside(Box::new(Visitor { claims, label, lesson, roster, resume_id })), pid)
}

/// Returns the pid of a connection that does not resume, or `None` for a guest.
fn pid_of(
    shared: &GatewayContext,
    namespace: Namespace,
    sid: Sid,
    Connected { session, resumption, .. }: &Connected,
) -> Option<Box<str>> {
    let (session_id, agent) = session.membership.session()?;
    let start = resumption.as_ref()?.position.clone();
    let pid = Pid { agent: agent.clone(), start, resume_id: session.membership.resume_id()? };
    let text = shared.pids.as_ref()?.sign(&pid, shared.rooms.namespaces().name(namespace), Some(session_id), sid);
    Some(text.into())
}
