//! Where a connection that resumes is in the stream.
use rollcall_schema::Offset;
use tokio::sync::oneshot;

use super::commands::NextPart;
use crate::rooms::Follower;

/// Where a connection that resumes is in the stream.
pub(super) struct ResumeCursor {
    /// Events through this offset are not sent again: they were replayed, or came before the connection did.
    start: Offset,
    /// The same for its lesson, which it may have joined later: earlier events, which may still be on their way, are not
    /// for it.
    lesson: Offset,
    /// The last event that was sent, or was for others: it is shown no lower offset.
    pub last: Offset,
    /// While it lives, the worker gets the watermark.
    #[expect(dead_code, reason = "it is given back by being dropped")]
    follower: Follower,
}

impl ResumeCursor {
    /// A cursor that starts after this offset.
    pub(super) fn after(start: Offset, follower: Follower) -> Self {
        Self { start, lesson: start, last: start, follower }
    }

    /// The connection joined a lesson whose events through `begins` are not for it.
    pub(super) fn start_lesson(&mut self, begins: Offset) {
        self.lesson = begins;
    }

    /// Everything through this offset was sent; of the lesson too, if it was replayed.
    pub(super) fn advance(&mut self, through: Offset, lesson: bool) {
        self.start = self.start.max(through);
        self.last = self.last.max(through);
        if lesson {
            self.lesson = self.lesson.max(through);
        }
    }

    /// Whether an event of its classroom, or of its lesson, is yet to be sent.
    pub(super) fn needs(&self, offset: Offset, lesson: bool) -> bool {
        offset > if lesson { self.lesson } else { self.start }
    }
}

/// A replay's state with its connection.
#[derive(Debug)]
pub(super) struct ReplayState {
    /// The last live event that was not sent.
    pub missed: Option<Offset>,
    /// Every event through this offset was sent.
    pub sent: Offset,
    /// A lesson was entered while this part was read without it, or the client reads who is there. The rest of the part is
    /// not sent: the next part brings it again, with the lesson's events between, because the offsets of a connection only
    /// grow.
    pub abandoned: bool,
    /// The replay waits for the next part. While a join runs it is not known which events of the lesson belong to it.
    pub waiting: Option<oneshot::Sender<NextPart>>,
}

impl ReplayState {
    /// The cursor of a replay that begins after this offset.
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
        // A replay of the classroom alone ends.
        cursor.advance(Offset(50), false);
        assert_eq!(needs(&cursor), [false, false, true]);
        assert!(!cursor.needs(Offset(50), false) && cursor.needs(Offset(51), false));
        cursor.advance(Offset(61), true);
        assert_eq!(needs(&cursor), [false; 3]);
    }
}
