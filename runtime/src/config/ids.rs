//! Ids on the command line. The error for an invalid id names the rule for ids of its kind.
use rollcall_schema::{AgentId, ClassroomId, LessonId, UserId};

/// The rule for a user's id.
pub const USER: &str = "1 to 128 printable ASCII characters without space * > { } quotes backslash, not starting with \
                        lesson_ or rollcall:";
/// The rule for a lesson's id.
pub const LESSON: &str = "1 to 64 of A-Z a-z 0-9 _ -";

pub(super) fn user(text: &str) -> Result<UserId, String> {
    UserId::parse(text).map_err(|_| format!("a user is {USER}"))
}

pub(super) fn lesson(text: &str) -> Result<LessonId, String> {
    LessonId::parse(text).map_err(|_| format!("a lesson's id is {LESSON}"))
}

pub(super) fn classroom(text: &str) -> Result<ClassroomId, String> {
    ClassroomId::parse(text).map_err(|_| "a classroom's id is a UUID of 36 characters, with its hyphens".to_owned())
}

pub(super) fn agent(text: &str) -> Result<AgentId, String> {
    AgentId::parse(text).map_err(|_| "an agent is LABEL.USER.AUDIENCE, like web.alice.example.org".to_owned())
}
