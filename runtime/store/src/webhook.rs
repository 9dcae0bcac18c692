//! The webhook's cursor, through which its receiver has taken the events, and the node that delivers them.
//!
//! Invariant: one node at a time moves the cursor. Each write compares the node and its epoch, so a node that was
//! stopped and counted as dead does not move the cursor when it goes on. Every event through the cursor was delivered,
//! or belongs to a parked classroom, which has a cursor of its own.
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rollcall_schema::{ClassroomId, LeftReason, Offset, TraceParent};

use crate::{Lease, StoreError};

/// A position in the events, which includes the offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookCursor {
    /// The epoch of the offset; empty before the first delivery.
    pub epoch: String,
    /// The offset of the last event.
    pub offset: Offset,
}

/// The cursor before the first delivery.
impl Default for WebhookCursor {
    fn default() -> Self {
        Self { epoch: String::new(), offset: Offset(0) }
    }
}

/// A classroom whose events the receiver refuses while it takes those of others.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkedClassroom {
    /// The classroom.
    pub classroom: ClassroomId,
    /// The offset through which its events were delivered or given up.
    pub after: Offset,
    /// For how long its next event has been refused.
    pub refused_for: Duration,
}

/// The state with which the delivering node begins.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookState {
    /// The cursor of all classrooms except the parked ones.
    pub cursor: WebhookCursor,
    /// The parked classrooms, each with its own position.
    pub parked: Vec<ParkedClassroom>,
}

/// An event that was published in the process and is kept for the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEvent {
    /// The row's id. Ids ascend in the order of publishing.
    pub offset: Offset,
    /// The classroom.
    pub classroom: ClassroomId,
    /// Why the agent left.
    pub reason: Option<LeftReason>,
    /// The trace of the event.
    pub trace: Option<TraceParent>,
    /// The event as the seed's JSON.
    pub body: Bytes,
    /// How long ago the event was published.
    pub age: Duration,
}

/// The cursor of the webhook, and the events that are kept for it if there is no stream.
#[async_trait]
pub trait WebhookCursors: Send + Sync {
    /// Takes the delivery over from a dead node, or goes on with it. Returns `None` while another living node delivers.
    ///
    /// # Errors
    /// Returns [`StoreError::Fenced`] if this node's own lease was taken.
    async fn claim_webhook(&self, lease: Lease) -> Result<Option<WebhookState>, StoreError>;
    /// Moves the cursor.
    ///
    /// # Errors
    /// Returns [`StoreError::Fenced`] if another node delivers by now.
    async fn move_webhook(&self, lease: Lease, cursor: &WebhookCursor) -> Result<(), StoreError>;
    /// Starts again with offsets of another epoch: moves the cursor and forgets the parked classrooms.
    ///
    /// # Errors
    /// Returns [`StoreError::Fenced`] if another node delivers by now.
    async fn restart_webhook(&self, lease: Lease, cursor: &WebhookCursor) -> Result<(), StoreError>;
    /// Parks a classroom, or moves its own cursor. `epoch` is that of its offsets.
    ///
    /// # Errors
    /// Returns [`StoreError::Fenced`] if another node delivers by now.
    async fn park_classroom(&self, lease: Lease, epoch: &str, parked: &ParkedClassroom) -> Result<(), StoreError>;
    /// Unparks a classroom: the common cursor counts for it again.
    ///
    /// # Errors
    /// Returns [`StoreError::Fenced`] if another node delivers by now.
    async fn unpark_classroom(&self, lease: Lease, classroom: ClassroomId) -> Result<(), StoreError>;
    /// Returns the kept events after an offset, of one classroom or of all, ascending, at most `max`.
    async fn kept_events(
        &self,
        classroom: Option<ClassroomId>,
        after: Offset,
        max: usize,
    ) -> Result<Vec<KeptEvent>, StoreError>;
    /// Deletes kept events, at most `max`: those through an offset, and those that were published longer ago than
    /// `max_age`. Returns how many of the latter it deleted.
    async fn forget_kept(&self, through: Offset, max_age: Duration, max: usize) -> Result<u64, StoreError>;
}
