//! The events of a room that wait while a connection joins it. They are sent once the join has succeeded.
use std::sync::Arc;

use crate::rooms::{Delivery, RoomKey};
use rollcall_base::names;

/// Events that are buffered for a connection that joins a room. With more, the newest are dropped and counted, and the
/// connection is closed, so that its client comes back. All connections that join the room share the events.
const MAX_BUFFERED: usize = 8_192;

/// The events of a room that a connection joins.
pub(super) struct JoinBuffer {
    /// The room.
    pub room: RoomKey,
    pub deliveries: Vec<Arc<Delivery>>,
    /// Some events were dropped.
    pub overflowed: bool,
}

impl JoinBuffer {
    pub(super) fn new(room: RoomKey) -> Self {
        Self { room, deliveries: Vec::new(), overflowed: false }
    }

    /// Whether this many more events fit.
    pub(super) fn fits(&self, more: usize) -> bool {
        self.deliveries.len() + more <= MAX_BUFFERED
    }

    /// Buffers as many as fit, and drops the rest.
    pub(super) fn extend(&mut self, deliveries: &[Arc<Delivery>]) {
        let free = MAX_BUFFERED.saturating_sub(self.deliveries.len());
        self.deliveries.extend(deliveries.iter().take(free).cloned());
        let dropped = deliveries.len().saturating_sub(free);
        if dropped > 0 {
            self.overflowed = true;
            metrics::counter!(names::DROPPED, "reason" => "held_too_many").increment(dropped as u64);
        }
    }
}
