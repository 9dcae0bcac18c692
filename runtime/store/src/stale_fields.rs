//! Fields in Redis that must be removed, or set to a successor, because their connection's session ended, was taken
//! over, or left the lesson.
//!
//! Invariant: each is a row in SQL, so that it survives the death of its node and an outage of Redis. Removing a field
//! twice or late does no harm, because the removal compares the sid. A row is held while the connection that was taken
//! over may still join.
use async_trait::async_trait;
use rollcall_schema::{KeyField, NodeId, Sid, StaleField};

use crate::StoreError;

/// For how many minutes a removal that was carried out is kept, and repeated if Redis loses writes (PROTOCOL 4).
pub(crate) const REPEATED_MINUTES: i64 = 10;

/// The stale fields of nodes. No call of this trait needs a lease.
#[async_trait]
pub trait StaleFields: Send + Sync {
    /// Adds fields of this node that no end of a session has written, and releases those that are held for connections
    /// that have `ended`.
    async fn add_stale_fields(&self, node: NodeId, fields: &[KeyField], ended: &[Sid]) -> Result<(), StoreError>;
    /// Returns the oldest fields of this node that are not held. The successor is the user's session that joined the
    /// lesson last, as of now.
    async fn stale_fields(&self, node: NodeId, max: usize) -> Result<Vec<(i64, StaleField)>, StoreError>;
    /// Deletes fields that Redis has removed. With `keep` they stay as removals for ten minutes. If a successor has
    /// left meanwhile, its own field is added.
    async fn forget_stale_fields(&self, node: NodeId, done: &[(i64, StaleField)], keep: bool)
    -> Result<(), StoreError>;
    /// Returns the held fields of this node, with ids above `after`, ascending, at most `max`.
    async fn held_stale_fields(&self, node: NodeId, after: i64, max: usize) -> Result<Vec<(i64, Sid)>, StoreError>;
    /// Gives fields of nodes without a row to this node, at most `max`. Returns how many. (The fields of a dead node go
    /// to the node that reaps it.)
    async fn adopt_stale_fields(&self, _node: NodeId, _max: usize) -> Result<usize, StoreError> {
        Ok(0)
    }
    /// Makes at most `max` removals of the last ten minutes stale fields of this node again: the removals of nodes that
    /// are gone and, with `own`, those of this node. Returns how many.
    async fn repeat_removals(&self, node: NodeId, own: bool, max: usize) -> Result<usize, StoreError>;
    /// Deletes removals that are older than ten minutes, at most `max`. Looks from `minute` (since 1970) on. Returns
    /// the minute to look from next, and whether there are more.
    async fn expire_removals(&self, minute: i64, max: usize) -> Result<(i64, bool), StoreError>;
}
