//! The events of a room that wait while a connection joins the room, or reads the list of agents there. They are sent
//! when the join has succeeded or the answer has been sent.
use std::sync::Arc;

use crate::rooms::{Delivery, RoomKey};
use rollcall_base::names;

/// How many events are buffered for a connection. If there are more, the newest are dropped and counted, and the
/// connection is closed, so that its client comes back. All connections that buffer events of a room share the events'
/// memory.
const MAX_BUFFERED: usize = 8_192;

/// The buffered events of a room that a connection joins, or whose list of agents it reads as a member.
pub(super) struct JoinBuffer {
    /// The room.
    pub room: RoomKey,
    /// Whether the connection was already in the room.
    pub is_member: bool,
    pub deliveries: Vec<Arc<Delivery>>,
    /// Whether some events were dropped.
    pub overflowed: bool,
}

impl JoinBuffer {
    /// Creates a buffer for a connection that joins the room.
    pub(super) fn joining(room: RoomKey) -> Self {
        Self { room, is_member: false, deliveries: Vec::new(), overflowed: false }
    }

    /// Creates a buffer for a connection that is already in the room.
    pub(super) fn holding(room: RoomKey) -> Self {
        Self { is_member: true, ..Self::joining(room) }
    }

    /// Returns whether this many more events fit.
    pub(super) fn fits(&self, more: usize) -> bool {
        self.deliveries.len() + more <= MAX_BUFFERED
    }

    /// Buffers as many events as fit, and drops the others.
    pub(super) fn extend<'a>(&mut self, deliveries: impl ExactSizeIterator<Item = &'a Arc<Delivery>>) {
        let free = MAX_BUFFERED.saturating_sub(self.deliveries.len());
        let dropped = deliveries.len().saturating_sub(free);
        self.deliveries.extend(deliveries.take(free).cloned());
        if dropped > 0 {
            self.overflowed = true;
            metrics::counter!(names::DROPPED, "reason" => "held_too_many").increment(dropped as u64);
        }
    }
}
