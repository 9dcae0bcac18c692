//! Publishes events of a session for handlers (PROTOCOL 10): to the session's lesson, to its classroom, or to one agent
//! there.
//!
//! Invariant: if the result is Ok, the event is in the stream, so every client that it is for gets it, also clients
//! that resume. Clients get the event as `{"id":{"entity_type","operation","sequence_id"},"payload":body}` with the
//! sender's session id, whatever the body contains, and never as an event of presence.
use bytes::Bytes;
use rollcall_base::trace::call;
use rollcall_bus::{EventPublisher, Fence, Publication, PublishError};
use rollcall_schema::{AgentId, EntityEvent, EntityType, MessageId, Offset, Operation, Push, RoomId, Subject, header};
use serde::Serialize;

use crate::{handler::session::Session, trace};

/// The agents that get an event. Its sender does not get it, unless the sender is the named agent.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Recipients {
    /// Everybody in the sender's lesson.
    Lesson,
    /// Everybody in the sender's classroom, but not guests.
    Classroom,
    /// One agent in the sender's classroom.
    Agent(AgentId),
}

/// An event that a handler publishes.
#[derive(Clone, Debug)]
pub struct Event {
    entity_type: EntityType,
    operation: Operation,
    body: Bytes,
    message_id: Option<MessageId>,
}

impl Event {
    /// Creates an event with this body, which must be a JSON object.
    #[must_use]
    pub fn new(entity_type: EntityType, operation: Operation, body: &impl Serialize) -> Self {
        // A body that cannot be written as JSON is not a JSON object, and is refused for that reason.
        let body = serde_json::to_vec(body).unwrap_or_default();
        Self { entity_type, operation, body: body.into(), message_id: None }
    }

    /// Adds a message id to the event. If the stream stored an event with this id within its duplicate window (2 min),
    /// the event is not stored again, and the result is the offset of the first event.
    #[must_use]
    pub fn with_message_id(self, id: MessageId) -> Self {
        Self { message_id: Some(id), ..self }
    }
}

/// Why an event was not published.
#[derive(Clone, Debug, thiserror::Error)]
pub enum EventError {
    /// The event is for the lesson, and the connection has joined none.
    #[error("not in a lesson")]
    NotInLesson,
    /// The connection is a guest's. A guest has no session and publishes nothing.
    #[error("not in a classroom")]
    NotInClassroom,
    /// The event's body is not a JSON object.
    #[error("the event's body is not a JSON object")]
    NotAnObject,
    /// The event's body is larger than this many bytes (`ROLLCALL_MAX_FORWARD`).
    #[error("the event's body is larger than {0} bytes")]
    TooLarge(usize),
    /// The event was not stored, or it is unknown whether it was stored.
    #[error(transparent)]
    NotStored(#[from] PublishError),
}

/// Publishes events of sessions. A publisher is cheap to clone.
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
    /// The largest body, in bytes. A larger event would not be forwarded.
    max_body: usize,
}

impl Publisher {
    /// Creates a publisher of sessions' events that uses this publisher.
    #[must_use]
    pub fn new(events: EventPublisher, max_body: usize) -> Self {
        Self { events, max_body }
    }

    /// Publishes an event of a session, and returns its offset when it is stored in the stream. This takes at most 1.5
    /// s.
    ///
    /// # Errors
    /// Returns an [`EventError`] if the event was not stored. While the bus is away, the client is told to try again
    /// later, and the gateway does not send the event later.
    pub async fn publish(&self, session: &Session, to: Recipients, event: Event) -> Result<Offset, EventError> {
        let publication = self.publication(session, to, event)?;
        Ok(call("bus", "store events", self.events.publish(publication)).await?)
    }

    /// Publishes several events of a session, in this order. If one of them is invalid, none is published.
    ///
    /// # Errors
    /// Returns the [`EventError`] of the first event that was not stored. Other events may have been stored.
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
