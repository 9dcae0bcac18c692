//! Publishing for handlers (PROTOCOL 10): events from a session to its lesson, to its classroom, or to one agent there.
//!
//! Invariant: Ok means that the event is in the stream, so every client that it is for gets it, also one that resumes.
//! Clients get it as `{"id":{"entity_type","operation","sequence_id"},"payload":body}` with the sender's session id,
//! whatever the body holds, and never as an event of presence.
use bytes::Bytes;
use rollcall_base::trace::call;
use rollcall_bus::{EventPublisher, Fence, Publication, PublishError};
use rollcall_schema::{AgentId, EntityEvent, EntityType, MessageId, Offset, Operation, Push, RoomId, Subject, header};
use serde::Serialize;

use crate::{handler::session::Session, trace};

/// Who gets an event. Its sender does not, unless it is the agent that is named.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// Everybody in the sender's lesson.
    Lesson,
    /// Everybody in the sender's classroom, but not guests.
    Classroom,
    /// One agent in the sender's classroom.
    Agent(AgentId),
}

/// An event of a handler.
#[derive(Clone, Debug)]
pub struct Event {
    entity_type: EntityType,
    operation: Operation,
    body: Bytes,
    message_id: Option<MessageId>,
}

impl Event {
    /// An event with this body, which must become a JSON object.
    #[must_use]
    pub fn new(entity_type: EntityType, operation: Operation, body: &impl Serialize) -> Self {
        // What cannot be written as JSON is no object either, and is refused as such.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self { entity_type, operation, body: body.into(), message_id: None }
    }

    /// The same with a message id. An event whose id the stream has stored within its duplicate window (2 min) is not stored
    /// again; the result is the offset of the first.
    #[must_use]
    pub fn with_message_id(self, id: MessageId) -> Self {
        Self { message_id: Some(id), ..self }
    }
}

/// Why an event was not published.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EventError {
    /// It is for the lesson, and the connection has joined none.
    #[error("not in a lesson")]
    NotInLesson,
    /// The connection is a guest's, which has no session and publishes nothing.
    #[error("not in a classroom")]
    NotInClassroom,
    /// Its body is no JSON object.
    #[error("the event's body is not a JSON object")]
    NotAnObject,
    /// Its body is larger than this many bytes (`ROLLCALL_MAX_FORWARD`).
    #[error("the event's body is larger than {0} bytes")]
    TooLarge(usize),
    /// It was not stored, or it is not known whether it was.
    #[error(transparent)]
    NotStored(#[from] PublishError),
}

/// Publishes events of sessions. Cheap to clone.
///
/// ```
/// use rollcall_runtime::{Event, HandlerError, Publisher, Recipients, Session};
/// use rollcall_schema::{EntityType, Operation};
///
/// const POLL: EntityType = EntityType::from_static("poll");
/// const CLOSED: Operation = Operation::from_static("closed");
///
/// #[derive(serde::Serialize)]
/// struct Votes {
///     yes: u32,
///     no: u32,
/// }
///
/// /// Tells the lesson. Once this returns, the event is in the stream.
/// async fn close_poll(publisher: &Publisher, session: &Session) -> Result<(), HandlerError> {
///     let event = Event::new(POLL, CLOSED, &Votes { yes: 7, no: 2 });
///     publisher.publish(session, Recipients::Lesson, event).await?;
///     Ok(())
/// }
/// ```
#[derive(Clone)]
pub struct Publisher {
    events: EventPublisher,
    /// The largest body, in bytes: a larger event would not be forwarded.
    max_body: usize,
}

impl Publisher {
    /// Publishes through this publisher.
    #[must_use]
    pub fn new(events: EventPublisher, max_body: usize) -> Self {
        Self { events, max_body }
    }

    /// Publishes an event of a session. When it returns, the event is stored in the stream, at the offset that it returns.
    /// It takes at most 1.5 s.
    ///
    /// # Errors
    /// [`EventError`]. While the bus is away, the client is told to try again later, and the event is not sent later.
    pub async fn publish(&self, session: &Session, to: Recipients, event: Event) -> Result<Offset, EventError> {
        let publication = self.publication(session, to, event)?;
        Ok(call("bus", "store events", self.events.publish(publication)).await?)
    }

    /// Publishes several events of a session, in this order. If one of them cannot be published as it is, none is.
    ///
    /// # Errors
    /// [`EventError`] of the first event that was not stored; others may be.
    pub async fn publish_all(
        &self,
        session: &Session,
        events: Vec<(Recipients, Event)>,
    ) -> Result<Vec<Offset>, EventError> {
        let publications = events.into_iter().map(|(to, event)| self.publication(session, to, event));
        let publications = publications.collect::<Result<Vec<_>, _>>()?;
        if publications.is_empty() {
            return Ok(Vec::new());
        }
        let stored = async { self.events.publish_all(publications).await.into_iter().collect::<Result<Vec<_>, _>>() };
        Ok(call("bus", "store events", stored).await?)
    }

    fn publication(&self, session: &Session, to: Recipients, event: Event) -> Result<Publication, EventError> {
        let Event { entity_type, operation, body, message_id } = event;
        let (Some(id), Some(sender)) = (session.id(), session.agent_id()) else {
            return Err(EventError::NotInClassroom);
        };
        let (room, receiver) = match to {
            Recipients::Lesson => (RoomId::Lesson(session.lesson().ok_or(EventError::NotInLesson)?.clone()), None),
            Recipients::Classroom => (RoomId::Classroom(session.classroom()), None),
            Recipients::Agent(agent) => (RoomId::Classroom(session.classroom()), Some(agent)),
        };
        let entity =
            EntityEvent { entity_type: entity_type.as_str(), operation: operation.as_str(), sequence_id: id.0 };
        let stored = Push::wrapped_body(&body, entity).map_err(|_| EventError::NotAnObject)?;
        if stored.len() > self.max_body {
            return Err(EventError::TooLarge(self.max_body));
        }
        let body = match stored {
            std::borrow::Cow::Borrowed(_) => body.clone(),
            std::borrow::Cow::Owned(wrapped) => wrapped.into(),
        };
        let mut headers = vec![
            (header::IS_INTERNAL, "false".to_owned()),
            (header::SENDER_AGENT_ID, sender.to_string()),
            (header::ENTITY_EVENT_TYPE, entity_type.to_string()),
            (header::ENTITY_EVENT_OPERATION, operation.to_string()),
            (header::ENTITY_EVENT_SEQUENCE_ID, id.to_string()),
        ];
        headers.extend(trace::outgoing(session.trace()).map(|trace| (header::TRACEPARENT, trace.to_string())));
        headers.extend(receiver.map(|agent| (header::RECEIVER_AGENT_ID, agent.to_string())));
        Ok(Publication {
            subject: Subject::new(room, &entity_type),
            message_id: message_id.map(|id| id.as_str().to_owned()),
            headers,
            body,
            fence: Fence::None,
        })
    }
}
