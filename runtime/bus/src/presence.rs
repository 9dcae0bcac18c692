//! Events of presence of all classrooms, as the stream holds them: for a reader that takes all of them, in its order.
use std::time::Duration;

use bytes::Bytes;
use rollcall_schema::{ClassroomId, Offset, RoomId, Subject, TraceParent, header};

/// An event of presence in the stream.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresenceEvent {
    /// Its number in the stream.
    pub offset: Offset,
    /// Its classroom.
    pub classroom: ClassroomId,
    /// `Nats-Msg-Id`, which names the installation that published it.
    pub message_id: String,
    /// `Left-Reason`.
    pub reason: Option<String>,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
    /// How long ago it was stored; zero where that is not known.
    pub age: Duration,
    /// Its body.
    pub body: Bytes,
}

/// The next events after a position.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PresencePage {
    /// In order.
    pub events: Vec<PresenceEvent>,
    /// There are no others through here.
    pub through: Offset,
    /// Whether there are more after that now.
    pub more: bool,
    /// How many offsets after the position the stream has dropped. Events of any kind may have had them.
    pub missing: u64,
}

/// The result of [`crate::Bus::presence`].
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum PresenceRead {
    /// The next events.
    Page(PresencePage),
    /// The position is of another stream, or beyond the end of this one, which was put back then.
    Elsewhere {
        /// The epoch of this stream.
        epoch: String,
        /// Its last offset.
        last: Offset,
    },
}

/// Reads a message; none where it is no event that presence publishes.
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
