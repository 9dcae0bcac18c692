//! The keys in Redis, named exactly as the seed names them (PROTOCOL 4), without the optional prefix.
use crate::id::{LessonId, UserId};

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
