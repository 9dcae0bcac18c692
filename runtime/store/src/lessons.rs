//! Lessons and their attendees, which are loaded from files.
use async_trait::async_trait;
use rollcall_schema::{ClassroomId, LessonId, Seat, UserId};

use crate::StoreError;

/// A row of `lesson`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LessonRow {
    /// The lesson's id.
    pub id: LessonId,
    /// The classroom.
    pub classroom: ClassroomId,
    /// The number of the lesson's seats.
    pub seats: u32,
}

/// A row of `lesson_attendee`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AttendeeRow {
    /// The lesson.
    pub lesson: LessonId,
    /// The user.
    pub user: UserId,
    /// The user's seat.
    pub seat: Seat,
}

/// Why rows were not loaded.
#[derive(Clone, Debug, thiserror::Error)]
pub enum LoadError {
    /// The attendee at this index of the batch names a lesson that does not exist.
    #[error("unknown lesson")]
    UnknownLesson(usize),
    /// The store failed.
    #[error(transparent)]
    Store(#[from] StoreError),
}

/// One transaction of lessons and attendees. If it is dropped without [`Load::commit`], nothing of it is written.
/// Existing rows are overwritten.
#[async_trait]
pub trait Load: Send {
    /// Adds lessons.
    async fn lessons(&mut self, rows: Vec<LessonRow>) -> Result<(), LoadError>;
    /// Adds attendees.
    async fn attendees(&mut self, rows: Vec<AttendeeRow>) -> Result<(), LoadError>;
    /// Commits the transaction.
    async fn commit(self: Box<Self>) -> Result<(), LoadError>;
}

/// The lessons of the installation.
#[async_trait]
pub trait Lessons: Send + Sync {
    /// Returns whether there are no lessons.
    async fn has_no_lesson(&self) -> Result<bool, StoreError>;
    /// Returns those of these lessons that do not exist.
    async fn missing_lessons(&self, lessons: &[LessonId]) -> Result<Vec<LessonId>, StoreError>;
    /// Begins a load.
    async fn begin_load(&self) -> Result<Box<dyn Load>, StoreError>;
}
