//! The keys in Redis, named exactly as the seed names them (PROTOCOL 4), without the optional prefix.
use crate::{
    id::{LessonId, UserId},
    sid::Sid,
};

/// How long every key stands unless it is renewed, in seconds (24 h).
pub const TTL_SECONDS: u64 = 24 * 60 * 60;

/// Hash: seat number -> holder, the empty string for a free seat.
#[must_use]
pub fn lesson_seat(lesson: &LessonId) -> String {
    format!("lesson_seat_{lesson}")
}

/// Hash: user_id -> sid.
#[must_use]
pub fn lesson_teacher(lesson: &LessonId) -> String {
    format!("lesson_teacher_{lesson}")
}

/// Hash: client_id -> sid.
#[must_use]
pub fn lesson_student(lesson: &LessonId) -> String {
    format!("lesson_student_{lesson}")
}

/// A teacher's hash has `lesson_id`; a participant's `sid`, `client_id` and `role`.
#[must_use]
pub fn user(user: &UserId) -> String {
    user.to_string()
}

/// A field of `lesson_teacher_*` or `lesson_student_*`. A connection writes only one of the two, by its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyField {
    /// The lesson, which names the hash.
    pub lesson: LessonId,
    /// The field's name.
    pub user: UserId,
    /// The field's value.
    pub sid: Sid,
}

/// A field whose connection is no longer in the lesson.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleField {
    /// Removed only while it holds this sid.
    pub field: KeyField,
    /// Another connection of the user in the lesson: the field is set to it instead of being removed.
    pub successor: Option<Sid>,
}
