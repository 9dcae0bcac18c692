//! The keys in Redis, exactly as the seed names them (PROTOCOL 4), without the optional prefix.
use crate::{
    id::{LessonId, UserId},
    role::Role,
    sid::Sid,
};

/// The TTL of every key in seconds (24 h).
pub const TTL_SECONDS: u64 = 24 * 60 * 60;

/// Returns the key of a lesson's seats, a hash: the seat's number -> its holder, or the empty string if the seat is
/// free.
#[must_use]
pub fn lesson_seat(lesson: &LessonId) -> String {
    format!("lesson_seat_{lesson}")
}

/// Returns the key of a lesson's teachers, a hash: user_id -> sid.
#[must_use]
pub fn lesson_teacher(lesson: &LessonId) -> String {
    format!("lesson_teacher_{lesson}")
}

/// Returns the key of a lesson's participants, a hash: client_id -> sid.
#[must_use]
pub fn lesson_student(lesson: &LessonId) -> String {
    format!("lesson_student_{lesson}")
}

/// Returns the key of a user, a hash. A teacher's has `lesson_id`; a participant's has `sid`, `client_id` and `role`.
#[must_use]
pub fn user(user: &UserId) -> String {
    user.to_string()
}

/// A field of `lesson_teacher_*` or `lesson_student_*`. A connection writes only one of the two, by its role.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct KeyField {
    /// The lesson, which names the hash.
    pub lesson: LessonId,
    /// The user, which is the field's name.
    pub user: UserId,
    /// The connection, which is the field's value.
    pub sid: Sid,
}

/// A field whose connection is no longer in the lesson.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct StaleField {
    /// The field. It is removed only while it holds this sid.
    pub field: KeyField,
    /// The field is set to the successor for its hash, if there is one, and not removed.
    pub successors: Successors,
}

/// The user's other connections in a lesson: for each role, the connection that joined last.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Successors {
    /// The successor for `lesson_teacher_*`.
    pub teacher: Option<Sid>,
    /// The successor for `lesson_student_*`.
    pub student: Option<Sid>,
}

impl Successors {
    /// Returns the successor for the hash of this role.
    #[must_use]
    pub fn of(&self, role: Role) -> Option<Sid> {
        match role {
            Role::Teacher => self.teacher,
            Role::Participant | Role::Hub => self.student,
        }
    }

    /// Returns the successors that exist.
    pub fn all(&self) -> impl Iterator<Item = Sid> + use<> {
        [self.teacher, self.student].into_iter().flatten()
    }
}
