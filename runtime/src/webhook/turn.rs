//! A node's turn to deliver: the state that the delivery of all classrooms and the delivery of parked classrooms share.
//!
//! Invariant: each write to SQL is made under the node's epoch. [`State`] has what was written, and what was read since
//! then.
use std::{collections::BTreeMap, time::Instant};

use parking_lot::Mutex;
use rollcall_schema::{ClassroomId, Offset};

use super::{Webhook, parked::Parked};
use rollcall_store::{Lease, ParkedClassroom, StoreError, WebhookCursor, WebhookState};

/// Why this node does not deliver any more.
#[derive(Debug, thiserror::Error)]
pub(super) enum Ended {
    #[error(transparent)]
    Store(#[from] StoreError),
    #[error("another node delivers")]
    Lost,
}

/// The right of one node to deliver.
pub(super) struct Turn<'a> {
    pub(super) webhook: &'a Webhook,
    pub(super) lease: Lease,
    pub(super) state: Mutex<State>,
}

/// How far events are delivered.
pub(super) struct State {
    /// The cursor in SQL.
    pub(super) cursor: WebhookCursor,
    /// The offset through which all events were read. Events of parked classrooms were left out.
    pub(super) read: Offset,
    pub(super) parked: BTreeMap<ClassroomId, Parked>,
    /// When the receiver last accepted events.
    pub(super) last_taken: Option<Instant>,
    /// Whether the receiver accepted none of the last events that were sent.
    pub(super) away: bool,
}

impl State {
    /// Returns the state of a parked classroom, unless offsets have begun anew since this epoch.
    pub(super) fn parked_in(&mut self, epoch: &str, classroom: ClassroomId) -> Option<&mut Parked> {
        if self.cursor.epoch == epoch { self.parked.get_mut(&classroom) } else { None }
    }

    /// Records that the receiver accepted events.
    pub(super) fn taken(&mut self) {
        let now = Instant::now();
        self.last_taken = Some(now);
        if std::mem::take(&mut self.away) {
            // While the receiver was away, it refused all events, so refusals from that time say nothing about a single
            // classroom.
            self.parked.values_mut().for_each(|parked| parked.receiver_is_back(now));
        }
    }
}

impl<'a> Turn<'a> {
    pub(super) fn new(webhook: &'a Webhook, lease: Lease, state: WebhookState) -> Self {
        let WebhookState { cursor, parked } = state;
        let max_pause = webhook.options.max_pause;
        let parked = parked.into_iter().map(|parked| (parked.classroom, Parked::restored(&parked, max_pause)));
        let state = State { read: cursor.offset, cursor, parked: parked.collect(), last_taken: None, away: false };
        Self { webhook, lease, state: Mutex::new(state) }
    }

    /// Stores a parked classroom's own cursor, whose offset is of this epoch.
    pub(super) async fn park(&self, epoch: &str, parked: ParkedClassroom) -> Result<(), Ended> {
        Ok(self.webhook.store.park_classroom(self.lease, epoch, &parked).await?)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use uuid::Uuid;

    use super::*;

    #[test]
    fn an_attempt_from_before_offsets_began_anew_finds_no_parked_classroom() {
        let classroom = ClassroomId(Uuid::new_v4());
        let mut state = State {
            cursor: WebhookCursor { epoch: "new".to_owned(), offset: Offset(0) },
            read: Offset(9),
            parked: BTreeMap::from([(classroom, Parked::new(Offset(3), Duration::from_secs(1)))]),
            last_taken: None,
            away: false,
        };
        assert!(state.parked_in("old", classroom).is_none());
        assert_eq!(state.parked_in("new", classroom).map(|parked| parked.after), Some(Offset(3)));
    }
}
