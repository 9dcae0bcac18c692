//! Reads and removes the rows of a user whose sessions have ended, page by page.
//!
//! Invariant: a page is removed only after its caller has used it. So if the caller fails to remove the keys of the
//! page's lessons, it can try again.
use async_trait::async_trait;
use rollcall_schema::{LessonId, SessionId, UserId};

use crate::StoreError;

/// The rows of one user. No call of this trait needs a lease.
#[async_trait]
pub trait Erasure: Send + Sync {
    /// Returns up to `max` of the user's rows in the history, with the lesson of each.
    async fn history_of(&self, user: &UserId, max: usize) -> Result<Vec<(SessionId, Option<LessonId>)>, StoreError>;
    /// Removes these rows from the history.
    async fn forget_history(&self, sessions: &[SessionId]) -> Result<(), StoreError>;
    /// Returns up to `max` of the lessons that the user is an attendee of.
    async fn attended_by(&self, user: &UserId, max: usize) -> Result<Vec<LessonId>, StoreError>;
    /// Removes the user from the attendees of these lessons.
    async fn forget_attendee(&self, user: &UserId, lessons: &[LessonId]) -> Result<(), StoreError>;
}
