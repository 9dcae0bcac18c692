//! The position of a resuming connection in the stream.
use rollcall_schema::Offset;
use tokio::sync::oneshot;

use super::commands::NextPart;
use crate::rooms::Follower;

/// The position of a resuming connection in the stream.
pub(super) struct ResumeCursor {
    /// Events through this offset are not sent again, because they were replayed or came before the connection.
    start: Offset,
    /// Events of the lesson through this offset are not sent. The connection may have joined the lesson later than
    /// `start`, and earlier events, which may still be on their way, are not for this connection.
    lesson: Offset,
    /// The offset of the last event that was sent, or that was for other agents. The client is never shown a lower
    /// offset.
    pub last: Offset,
    /// While the follower lives, the worker gets the watermark.
    #[expect(dead_code, reason = "it is given back by being dropped")]
    follower: Follower,
}

impl ResumeCursor {
    /// Creates a cursor that starts after this offset.
    pub(super) fn after(start: Offset, follower: Follower) -> Self {
        Self { start, lesson: start, last: start, follower }
    }

    /// Records that the connection joined a lesson. The lesson's events through `begins` are not for this connection.
    pub(super) fn start_lesson(&mut self, begins: Offset) {
        self.lesson = begins;
    }

    /// Records that all events through this offset were sent. If `lesson`, they include the lesson's events.
    pub(super) fn advance(&mut self, through: Offset, lesson: bool) {
        self.start = self.start.max(through);
        self.last = self.last.max(through);
        if lesson {
            self.lesson = self.lesson.max(through);
        }
    }

    /// Returns whether an event still has to be sent. `lesson` says whether it is an event of the lesson or of the
    /// classroom.
    pub(super) fn needs(&self, offset: Offset, lesson: bool) -> bool {
        offset > if lesson { self.lesson } else { self.start }
    }
}

/// The state that a connection keeps while a replay runs.
#[derive(Debug)]
pub(super) struct ReplayState {
    /// The offset of the last live event that was not sent.
    pub missed: Option<Offset>,
    /// The offset through which every event was sent.
    pub sent: Offset,
    /// Whether the rest of the current part is dropped, because the connection entered a lesson while the part was read
    /// without it, or because the client reads the list of agents. The next part contains the dropped events again,
    /// with the lesson's events in between, because the offsets of a connection only grow.
    pub abandoned: bool,
    /// The replay's sender that waits for the next part. While a join runs, it is not known which events of the lesson
    /// belong to that part.
    pub waiting: Option<oneshot::Sender<NextPart>>,
}

impl ReplayState {
    /// Creates the state of a replay that begins after this offset.
    #[must_use]
    pub(super) fn after(sent: Offset) -> Self {
        Self { missed: None, sent, abandoned: false, waiting: None }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::{gateway::Mailboxes, rooms::Rooms};
    use rollcall_bus::memory::{LogLimits, MemoryBus};

    #[tokio::test]
    async fn a_lesson_joined_during_a_replay_has_no_hole() {
        let (bus, _feed) = MemoryBus::start(LogLimits::default());
        let (follower, _) = Rooms::new(Arc::new(bus), Arc::new(Mailboxes::default()), 1 << 10).follow();
        let mut cursor = ResumeCursor::after(Offset(10), follower);
        cursor.start_lesson(Offset(60));
        let needs = |cursor: &ResumeCursor| [26, 44, 61].map(|offset| cursor.needs(Offset(offset), true));
        assert_eq!(needs(&cursor), [false, false, true]);
        // A replay of only the classroom ends.
        cursor.advance(Offset(50), false);
        assert_eq!(needs(&cursor), [false, false, true]);
        assert!(!cursor.needs(Offset(50), false) && cursor.needs(Offset(51), false));
        cursor.advance(Offset(61), true);
        assert_eq!(needs(&cursor), [false; 3]);
    }
}
