//! The events of a room that wait while a connection joins it, or while it reads who is there. They are sent once the join
//! has succeeded, or the answer is sent.
use std::sync::Arc;

use crate::rooms::{Delivery, RoomKey};
use rollcall_base::names;

/// Events that are buffered for a connection. With more, the newest are dropped and counted, and the
/// connection is closed, so that its client comes back. All connections that buffer events of the room share them.
const MAX_BUFFERED: usize = 8_192;

/// The events of a room that a connection joins, or is in and reads.
pub(super) struct JoinBuffer {
    /// The room.
    pub room: RoomKey,
    /// The connection is in the room already.
    pub is_member: bool,
    pub deliveries: Vec<Arc<Delivery>>,
    /// Some events were dropped.
    pub overflowed: bool,
}

impl JoinBuffer {
    /// A buffer for a connection that joins the room.
    pub(super) fn joining(room: RoomKey) -> Self {
        Self { room, is_member: false, deliveries: Vec::new(), overflowed: false }
    }

    /// A buffer for a connection that is in the room already.
    pub(super) fn holding(room: RoomKey) -> Self {
        Self { is_member: true, ..Self::joining(room) }
    }

    /// Whether this many more events fit.
    pub(super) fn fits(&self, more: usize) -> bool {
        self.deliveries.len() + more <= MAX_BUFFERED
    }

    /// Buffers as many as fit, and drops the rest.
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
