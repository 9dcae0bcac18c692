//! Fields in Redis that are to be removed, or set to a successor, because their connection's session ended, was taken over,
//! or left the lesson.
//!
//! Invariant: each is a row in SQL, so that it outlives its node and an outage of Redis. To remove one twice, or late, does
//! no harm, because the removal compares the sid. A row is held while the connection that was taken over may still join.
use async_trait::async_trait;
use rollcall_schema::{KeyField, NodeId, Sid, StaleField};

use crate::StoreError;

/// For how many minutes a removal that was carried out is repeated after the key store lost writes (PROTOCOL 4).
pub(crate) const REPEATED_MINUTES: i64 = 10;

/// The stale fields of nodes. None of these calls needs a lease.
#[async_trait]
pub trait StaleFields: Send + Sync {
    /// Adds fields of this node that no end of a session has written, and releases those that are held for connections
    /// that have `ended`.
    async fn add_stale_fields(&self, node: NodeId, fields: &[KeyField], ended: &[Sid]) -> Result<(), StoreError>;
    /// The oldest of this node's that are not held. The successor is the session of
    /// the user that joined the lesson last, as of this moment.
    async fn stale_fields(&self, node: NodeId, max: usize) -> Result<Vec<(i64, StaleField)>, StoreError>;
    /// Forgets fields that the key store has removed; with `keep` they stay as removals for ten minutes. Where a successor
    /// has gone meanwhile, its own field is added.
    async fn forget_stale_fields(&self, node: NodeId, done: &[(i64, StaleField)], keep: bool)
    -> Result<(), StoreError>;
    /// The held ones of this node, ids above `after`, ascending, at most `max`.
    async fn held_stale_fields(&self, node: NodeId, after: i64, max: usize) -> Result<Vec<(i64, Sid)>, StoreError>;
    /// Makes fields of nodes that nobody knows this node's, at most `max`; returns how many. Those of a dead node become its
    /// reaper's.
    async fn adopt_stale_fields(&self, _node: NodeId, _max: usize) -> Result<usize, StoreError> {
        Ok(0)
    }
    /// Makes removals of the last ten minutes, of nodes that are no more and, with `own`, of this node, stale fields of this
    /// node again. At most `max`; returns how many.
    async fn repeat_removals(&self, node: NodeId, own: bool, max: usize) -> Result<usize, StoreError>;
    /// Forgets removals that are older than ten minutes, at most `max`. It looks from `minute` (since 1970) on, and returns
    /// the minute to look from next, and whether there are more.
    async fn expire_removals(&self, minute: i64, max: usize) -> Result<(i64, bool), StoreError>;
}
