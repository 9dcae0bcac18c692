//! An event of the feed, encoded into a frame once for all who get it (PROTOCOL 3).
use std::{sync::OnceLock, time::Instant};

use bytes::Bytes;
use rollcall_schema::{Change, EntityEvent, Offset, Push, SessionId};

use crate::{bus::Incoming, gateway::AgentMark, names, rooms::RoomKey, socket};

/// What a worker hands to a room's members.
pub struct Delivery {
    /// The room.
    pub room: RoomKey,
    /// Whom it is from: it is not echoed to it.
    pub sender: Option<AgentMark>,
    /// Whom alone it is for.
    pub receiver: Option<AgentMark>,
    /// The session, where it is an agent.entered.
    pub entered: Option<SessionId>,
    plain: Bytes,
    /// Most rooms have nobody who resumes: made for the first who does.
    resumable: OnceLock<Bytes>,
    incoming: Incoming,
    arrived: Instant,
}

impl Delivery {
    /// Applies the header rules; none where nobody gets it, which is counted unless the event is internal. `most` is the
    /// largest body that is forwarded, in bytes.
    #[must_use]
    pub fn encode(room: RoomKey, incoming: Incoming, most: usize) -> Option<Self> {
        if incoming.internal {
            return None;
        }
        if incoming.body.len() > most {
            metrics::counter!(names::DROPPED, "reason" => "event_too_large").increment(1);
            return None;
        }
        let Ok(plain) = push(&incoming).map(|push| frame(&push.plain())) else {
            metrics::counter!(names::DROPPED, "reason" => "event_not_an_object").increment(1);
            return None;
        };
        Some(Self {
            room,
            sender: incoming.sender.as_ref().map(AgentMark::of),
            receiver: incoming.receiver.as_ref().map(AgentMark::of),
            entered: incoming.entity.as_ref().and_then(|entity| match entity {
                (kind, operation, session) if kind == "agent" && operation == Change::Entered.operation() => {
                    Some(SessionId(*session))
                }
                _ => None,
            }),
            plain,
            resumable: OnceLock::new(),
            incoming,
            arrived: Instant::now(),
        })
    }

    /// Its place in the stream.
    #[must_use]
    pub fn offset(&self) -> Offset {
        self.incoming.offset
    }

    /// Whether it is for this agent; a guest has no mark. The entered of a session before `since`, published a little
    /// late, is not: whoever came later has never missed them. Of two who enter at once the first sees the second, since
    /// its subscription is live before its session has a number.
    #[must_use]
    pub fn is_for(&self, mark: Option<AgentMark>, since: SessionId) -> bool {
        self.entered.is_none_or(|entered| entered >= since)
            && self.receiver.is_none_or(|receiver| Some(receiver) == mark)
            && self.sender.is_none_or(|sender| Some(sender) != mark)
    }

    /// The frame as it is.
    #[must_use]
    pub fn plain(&self) -> &Bytes {
        &self.plain
    }

    /// The frame for who resumes, and was shown `last` before: with its offset. One that comes so late that a later one
    /// was shown already has that one's offset, so that a connection's offsets never go back.
    #[must_use]
    pub fn resumable(&self, last: Offset) -> Bytes {
        let shown = |offset| {
            let push = push(&self.incoming).expect("the body was checked when it came");
            frame(&push.resumable(offset))
        };
        if last > self.incoming.offset {
            return shown(last);
        }
        self.resumable.get_or_init(|| shown(self.incoming.offset)).clone()
    }

    /// Records how long it took from the stream to here.
    pub fn record_age(&self) {
        if let Some(age) = self.incoming.age {
            metrics::histogram!(names::PUBLISH_TO_PUSH).record((age + self.arrived.elapsed()).as_secs_f64());
        }
    }
}

fn push(incoming: &Incoming) -> Result<Push<'_>, rollcall_schema::push::NotAnObject> {
    let entity = incoming.entity.as_ref().map(|(entity_type, operation, sequence_id)| EntityEvent {
        entity_type,
        operation,
        sequence_id: *sequence_id,
    });
    Push::parse(&incoming.body, entity)
}

fn frame(payload: &[u8]) -> Bytes {
    let mut frame = Vec::with_capacity(payload.len() + 10);
    socket::encode_text(payload, &mut frame);
    frame.into()
}
