//! Rooms and the NATS subjects that feed them (PROTOCOL 3).
//!
//! Invariant: a subject is only built from checked ids, so it has no wildcard and no further token.
use std::fmt;

use crate::{
    entity::{AGENT, EntityType},
    id::{ClassroomId, IdError, LessonId},
};

/// The prefix of the republished stream's subjects.
pub const LIVE_PREFIX: &str = "live.";

/// A group that gets the same events: the connections in a classroom, or in a lesson.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum RoomId {
    /// The events of `classroom.{id}.*`.
    Classroom(ClassroomId),
    /// The events of `lesson.{id}.*`.
    Lesson(LessonId),
}

impl RoomId {
    /// Returns the metrics' label `kind`.
    #[must_use]
    pub fn kind(&self) -> &'static str {
        match self {
            Self::Classroom(_) => "classroom",
            Self::Lesson(_) => "lesson",
        }
    }

    /// Returns the filters of the room's subjects, such as `classroom.{id}.*`, as they are in the stream and not as
    /// they are republished. The first is the one that the gateway publishes to. NATS compares subjects with case, and
    /// some services write a UUID in upper case.
    pub fn filters(&self) -> impl Iterator<Item = String> + use<> {
        let own = format!("{self}.*");
        let upper = match self {
            Self::Classroom(id) => Some(format!("classroom.{}.*", id.to_string().to_ascii_uppercase())),
            Self::Lesson(_) => None,
        };
        let other = upper.filter(|upper| *upper != own);
        std::iter::once(own).chain(other)
    }
}

/// The form `classroom.{id}` or `lesson.{id}`.
impl fmt::Display for RoomId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::Classroom(id) => write!(f, "classroom.{id}"),
            Self::Lesson(id) => write!(f, "lesson.{id}"),
        }
    }
}

/// One concrete subject of a room: `classroom.{id}.{entity}` or `lesson.{id}.{entity}`.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub struct Subject {
    /// The room.
    pub room: RoomId,
    entity: Box<str>,
}

impl Subject {
    /// Returns the subject `classroom.{id}.agent`, on which presence is published.
    #[must_use]
    pub fn agent(classroom: ClassroomId) -> Self {
        Self { room: RoomId::Classroom(classroom), entity: AGENT.into() }
    }

    /// Returns the subject of a room's events of this type.
    #[must_use]
    pub fn new(room: RoomId, entity_type: &EntityType) -> Self {
        Self { room, entity: entity_type.as_str().into() }
    }

    /// Returns the last token, which says what the event is about.
    #[must_use]
    pub fn entity(&self) -> &str {
        &self.entity
    }

    /// Reads a subject, which must not have [`LIVE_PREFIX`].
    ///
    /// # Errors
    /// Returns an [`IdError`] if the text has neither of the two forms of a subject. The last token is
    /// `[A-Za-z0-9_-]{1,64}`.
    pub fn parse(text: &str) -> Result<Self, IdError> {
        let wrong = IdError("subject");
        let mut tokens = text.split('.');
        let (Some(kind), Some(id), Some(entity), None) = (tokens.next(), tokens.next(), tokens.next(), tokens.next())
        else {
            return Err(wrong);
        };
        let room = match kind {
            "classroom" => RoomId::Classroom(ClassroomId::parse(id)?),
            "lesson" => RoomId::Lesson(LessonId::parse(id)?),
            _ => return Err(wrong),
        };
        // The rule for an entity is that of a lesson's id.
        let entity = LessonId::parse(entity).map_err(|_| wrong)?;
        Ok(Self { room, entity: entity.as_str().into() })
    }
}

impl fmt::Display for Subject {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{}.{}", self.room, self.entity)
    }
}
