//! Events of presence of all classrooms, for a reader that takes all of them in the stream's order.
use std::time::Duration;

use bytes::Bytes;
use rollcall_schema::{ClassroomId, Offset, RoomId, Subject, TraceParent, header};

/// An event of presence in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceEvent {
    /// The event's number in the stream.
    pub offset: Offset,
    /// The classroom.
    pub classroom: ClassroomId,
    /// The `Nats-Msg-Id`, which names the installation that published the event.
    pub message_id: String,
    /// The reason of a left (`Left-Reason`).
    pub reason: Option<String>,
    /// The trace of the event.
    pub trace: Option<TraceParent>,
    /// How long ago the event was stored; zero if that is not known.
    pub age: Duration,
    /// The body.
    pub body: Bytes,
}

/// The next events after a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresencePage {
    /// The events in order.
    pub events: Vec<PresenceEvent>,
    /// There are no other events through this offset.
    pub through: Offset,
    /// Whether the stream has events after that offset now.
    pub more: bool,
    /// How many offsets after the position the stream has dropped. They may have belonged to events of any kind.
    pub missing: u64,
}

/// The result of [`crate::Bus::presence`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceRead {
    /// The next events.
    Page(PresencePage),
    /// The position is of another stream, or beyond the end of this one because this one was put back.
    Elsewhere {
        /// The epoch of this stream.
        epoch: String,
        /// The last offset of this stream.
        last: Offset,
    },
}

/// Reads a message. `None` if it is not an event that presence publishes.
pub(super) fn presence_event<'a>(
    subject: &str,
    headers: impl IntoIterator<Item = (&'a str, &'a str)>,
    offset: u64,
    age: Duration,
    body: Bytes,
) -> Option<PresenceEvent> {
    let RoomId::Classroom(classroom) = Subject::parse(subject).ok()?.room else { return None };
    let (mut message_id, mut reason, mut trace) = (None, None, None);
    for (name, value) in headers {
        let wanted = [
            (header::NATS_MSG_ID, &mut message_id),
            (header::LEFT_REASON, &mut reason),
            (header::TRACEPARENT, &mut trace),
        ];
        for (wanted, found) in wanted {
            if wanted.eq_ignore_ascii_case(name) {
                *found = Some(value.to_owned());
            }
        }
    }
    let trace = trace.as_deref().and_then(TraceParent::parse);
    Some(PresenceEvent { offset: Offset(offset), classroom, message_id: message_id?, reason, trace, age, body })
}
