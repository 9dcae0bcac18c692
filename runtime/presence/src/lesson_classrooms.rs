//! Caches the classrooms of lessons, because a class that joins at the same time asks for one lesson many times.
//!
//! Invariant: an answer is at most [`KEPT`] old, and only existing lessons are cached. If a lesson has moved to another
//! classroom since, the join that follows does not find it.
use std::{
    collections::HashMap,
    time::{Duration, Instant},
};

use parking_lot::Mutex;
use rollcall_schema::{ClassroomId, LessonId};

/// How long an answer is used.
const KEPT: Duration = Duration::from_secs(2);
/// With more lessons than this, all are forgotten.
const MAX: usize = 4_096;

/// The recent answers.
#[derive(Debug, Default)]
pub(crate) struct LessonClassrooms(Mutex<HashMap<LessonId, (ClassroomId, Instant)>>);

impl LessonClassrooms {
    /// Returns the classroom of a lesson, if a recent answer has it.
    pub(crate) fn get(&self, lesson: &LessonId) -> Option<ClassroomId> {
        let known = self.0.lock();
        known.get(lesson).filter(|(_, since)| since.elapsed() < KEPT).map(|(classroom, _)| *classroom)
    }

    /// Caches an answer.
    pub(crate) fn insert(&self, lesson: LessonId, classroom: ClassroomId) {
        let mut known = self.0.lock();
        if known.len() >= MAX {
            known.clear();
        }
        known.insert(lesson, (classroom, Instant::now()));
    }
}
