//! Keeps events until no event can come any more that belongs before them, because connections that resume get events
//! in the stream's order.
use std::sync::Arc;

use crate::rooms::Delivery;
use rollcall_schema::Offset;

/// The maximum number of events. If there are more, all are sent as if the watermark had passed them.
const MAX_BUFFERED: usize = 4_096;

/// The events of a room that wait for the watermark.
#[derive(Default)]
pub(super) struct ReorderBuffer(Vec<Arc<Delivery>>);

impl ReorderBuffer {
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    pub(super) fn clear(&mut self) {
        self.0.clear();
    }

    pub(super) fn extend(&mut self, deliveries: &[Arc<Delivery>]) {
        self.0.extend_from_slice(deliveries);
    }

    /// Adds an event unless the buffer already has it.
    pub(super) fn push_new(&mut self, delivery: Arc<Delivery>) {
        if self.0.iter().all(|other| other.offset() != delivery.offset()) {
            self.0.push(delivery);
        }
    }

    /// Removes and returns the events through this offset, in the stream's order.
    pub(super) fn take_through(&mut self, watermark: Offset) -> Vec<Arc<Delivery>> {
        let all = self.0.len() > MAX_BUFFERED;
        let mut due: Vec<_> = self.0.extract_if(.., |delivery| all || delivery.offset() <= watermark).collect();
        due.sort_by_key(|delivery| delivery.offset());
        due
    }
}
