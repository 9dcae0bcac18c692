//! How far a webhook's receiver has taken the events, and which node delivers them.
//!
//! Invariant: one node at a time moves the cursor. Each write compares the node and its epoch, so a node that was stopped
//! and taken for dead moves nothing when it goes on. Everything through the cursor was delivered, or belongs to a parked
//! classroom, whose own cursor counts instead.
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use rollcall_schema::{ClassroomId, LeftReason, Offset, TraceParent};

use crate::{Lease, StoreError};

/// A place in the events: everything through the offset.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct WebhookCursor {
    /// Names the offsets; empty before the first delivery.
    pub epoch: String,
    /// The last event.
    pub offset: Offset,
}

/// The cursor before the first delivery.
impl Default for WebhookCursor {
    fn default() -> Self {
        Self { epoch: String::new(), offset: Offset(0) }
    }
}

/// A classroom whose events the receiver refuses while it takes others'.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct ParkedClassroom {
    /// The classroom.
    pub classroom: ClassroomId,
    /// Its events through this offset were delivered or given up.
    pub after: Offset,
    /// For how long the next one has been refused.
    pub refused_for: Duration,
}

/// What the node that delivers begins with.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct WebhookState {
    /// How far all classrooms but the parked ones are delivered.
    pub cursor: WebhookCursor,
    /// The parked classrooms, each with its own position.
    pub parked: Vec<ParkedClassroom>,
}

/// An event that was published in the process and is kept for the webhook.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeptEvent {
    /// The row's id: ascending in the order of publishing.
    pub offset: Offset,
    /// Its classroom.
    pub classroom: ClassroomId,
    /// Why the agent left.
    pub reason: Option<LeftReason>,
    /// The trace that it belongs to.
    pub trace: Option<TraceParent>,
    /// The seed's JSON.
    pub body: Bytes,
    /// How long ago it was published.
    pub age: Duration,
}

/// The cursor of the webhook, and the events that are kept for it where no stream keeps them.
#[async_trait]
pub trait WebhookCursors: Send + Sync {
    /// Takes the delivery over from a node that does not live any more, or goes on with it. None while another node that
    /// lives has it.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where this node's own lease was taken.
    async fn claim_webhook(&self, lease: Lease) -> Result<Option<WebhookState>, StoreError>;
    /// Moves the cursor.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where another node delivers by now.
    async fn move_webhook(&self, lease: Lease, cursor: &WebhookCursor) -> Result<(), StoreError>;
    /// Begins with other offsets: moves the cursor and forgets the parked classrooms.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where another node delivers by now.
    async fn restart_webhook(&self, lease: Lease, cursor: &WebhookCursor) -> Result<(), StoreError>;
    /// Parks a classroom, or moves its own cursor, whose offsets are of this epoch.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where another node delivers by now.
    async fn park_classroom(&self, lease: Lease, epoch: &str, parked: &ParkedClassroom) -> Result<(), StoreError>;
    /// The cursor of all counts for the classroom again.
    ///
    /// # Errors
    /// [`StoreError::Fenced`] where another node delivers by now.
    async fn unpark_classroom(&self, lease: Lease, classroom: ClassroomId) -> Result<(), StoreError>;
    /// Kept events after an offset, of one classroom or of all, ascending, at most `max`.
    async fn kept_events(
        &self,
        classroom: Option<ClassroomId>,
        after: Offset,
        max: usize,
    ) -> Result<Vec<KeptEvent>, StoreError>;
    /// Deletes kept events: those through an offset, and those that were published longer ago than `max_age`; at most `max`
    /// of them. Returns how many it deleted of the latter alone.
    async fn forget_kept(&self, through: Offset, max_age: Duration, max: usize) -> Result<u64, StoreError>;
}
