//! An event of the feed that is encoded into a frame once for the whole room (PROTOCOL 3).
use std::{
    sync::{Arc, OnceLock},
    time::Instant,
};

use bytes::Bytes;
use rollcall_schema::{EntityEvent, Offset, Push, PushError, entity::AGENT};

use super::{
    AgentMark, RoomKey,
    namespaces::{Namespace, Namespaces},
    socketio_frames::SocketIoFrames,
};
use rollcall_base::names;
use rollcall_bus::Incoming;
use rollcall_websocket::Framing;

/// An event in the form in which the workers send it to a room's members.
pub struct Delivery {
    /// The room.
    pub room: RoomKey,
    /// The agent that sent the event. The event is not sent back to this agent.
    pub sender: Option<AgentMark>,
    /// The only agent that the event is for, if it is for one agent.
    pub receiver: Option<AgentMark>,
    /// Whether the event is an agent.left.
    left: bool,
    plain: Bytes,
    /// The frame with the offset. It is made for the first member that resumes, because most rooms have none.
    resumable: OnceLock<Bytes>,
    socketio: SocketIoFrames,
    incoming: Incoming,
    arrived: Instant,
}

impl Delivery {
    /// Applies the rules of the headers. Returns `None` if no member gets the event, which is counted unless the event
    /// is internal. `max_body` is the largest body that is forwarded, in bytes. `namespaces` are those of members that
    /// speak Socket.IO. `epoch` is the epoch of the stream.
    #[must_use]
    pub fn encode(
        room: RoomKey,
        incoming: Incoming,
        max_body: usize,
        (namespaces, epoch): (&Namespaces, Arc<str>),
    ) -> Option<Self> {
        if incoming.internal {
            return None;
        }
        if incoming.body.len() > max_body {
            metrics::counter!(names::DROPPED, "reason" => "event_too_large").increment(1);
            return None;
        }
        let plain = match push(&incoming) {
            Ok(push) => frame(&push.plain()),
            Err(error) => {
                let reason = match error {
                    PushError::NotAnObject => "event_not_an_object",
                    PushError::ReservedType => "event_reserved_type",
                };
                metrics::counter!(names::DROPPED, "reason" => reason).increment(1);
                return None;
            }
        };
        Some(Self {
            room,
            sender: incoming.sender.as_ref().map(AgentMark::new),
            receiver: incoming.receiver.as_ref().map(AgentMark::new),
            left: incoming.entity.as_ref().is_some_and(|(kind, operation, _)| kind == AGENT && operation == "left"),
            plain,
            resumable: OnceLock::new(),
            socketio: SocketIoFrames::new(namespaces.clone(), epoch),
            incoming,
            arrived: Instant::now(),
        })
    }

    /// Returns the event's offset in the stream.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.incoming.offset
    }

    /// Returns whether a connection of this agent gets the event. A guest has no mark. An agent's own events are not
    /// sent back to it, so its client gets no event about its own session. But the end of a session of the same agent
    /// is sent, because the client's state would otherwise keep that session. The same applies to the client's own
    /// session, if another node ended it and the client resumes after that.
    #[must_use]
    pub fn is_for(&self, viewer: Option<AgentMark>) -> bool {
        match self.receiver {
            Some(receiver) => Some(receiver) == viewer,
            None if self.sender.is_some() && self.sender == viewer => self.left,
            None => true,
        }
    }

    /// Returns the frame without an offset.
    #[must_use]
    pub fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// Returns the frame with its offset, for a connection that resumes and was shown the offset `last` before. If
    /// `last` is higher than the event's offset, the frame has the offset `last`, so that a connection's offsets never
    /// go back.
    #[must_use]
    pub fn resumable(&self, last: Offset) -> Bytes {
        let shown = |offset| frame(&self.push().resumable(offset));
        if last > self.incoming.offset {
            return shown(last);
        }
        self.resumable.get_or_init(|| shown(self.incoming.offset)).clone()
    }

    /// Returns the frame for Socket.IO's clients in a namespace. The frame is empty if these clients do not get the
    /// event.
    #[must_use]
    pub fn socketio(&self, member: (Namespace, Framing)) -> Bytes {
        self.socketio.get(member, || self.push(), &self.incoming.topic, None)
    }

    /// Returns the frame for Socket.IO's clients in a namespace with an offset, as [`Delivery::resumable`] does.
    #[must_use]
    pub fn socketio_resumable(&self, member: (Namespace, Framing), last: Offset) -> Bytes {
        let (own, topic) = (self.incoming.offset, &self.incoming.topic);
        if last > own {
            return self.socketio.encode(member, &self.push(), topic, Some(last));
        }
        self.socketio.get(member, || self.push(), topic, Some(own))
    }

    fn push(&self) -> Push<'_> {
        push(&self.incoming).expect("the body was checked when it came")
    }

    /// Records the time from the event's storage in the stream until now.
    pub fn record_age(&self) {
        if let Some(age) = self.incoming.age {
            metrics::histogram!(names::PUBLISH_TO_PUSH).record((age + self.arrived.elapsed()).as_secs_f64());
        }
    }
}

fn push(incoming: &Incoming) -> Result<Push<'_>, PushError> {
    let entity = incoming.entity.as_ref().map(|(entity_type, operation, sequence_id)| EntityEvent {
        entity_type,
        operation,
        sequence_id: *sequence_id,
    });
    Push::parse(&incoming.body, entity)
}

fn frame(payload: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    Framing::WebSocket.encode_text(payload, &mut frame);
    frame.into()
}
