//! An event with a dependency of its own, and with an error: `cargo run -p rollcall --example vote`
//!
//! The counts are this node's, in memory: with several nodes they belong in a database.
use std::{
    collections::HashMap,
    process::ExitCode,
    sync::{Arc, Mutex, PoisonError},
};

use rollcall_runtime::{HandlerError, Session, Table};
use rollcall_schema::{AckError, LessonId};
use serde::{Deserialize, Serialize};

/// The votes of each lesson, counted by choice. The value is cheap to clone.
#[derive(Clone, Default)]
struct Ballots(Arc<Mutex<HashMap<(LessonId, bool), u64>>>);

impl Ballots {
    fn add(&self, lesson: LessonId, yes: bool) -> u64 {
        let mut votes = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        let count = votes.entry((lesson, yes)).or_default();
        *count += 1;
        *count
    }
}

struct Deps {
    ballots: Ballots,
}

#[derive(Deserialize)]
struct Vote {
    yes: bool,
}

#[derive(Serialize)]
struct Counted {
    votes: u64,
}

/// Counts a vote in the lesson that the connection has joined.
async fn handle(deps: &Deps, session: &mut Session, request: Vote) -> Result<Counted, HandlerError> {
    let lesson = session.lesson().ok_or(AckError::NotInALesson)?;
    Ok(Counted { votes: deps.ballots.add(lesson.clone(), request.yes) })
}

fn table() -> Table {
    rollcall::table().on("vote", |_| Deps { ballots: Ballots::default() }, handle)
}

pub(crate) fn main() -> ExitCode {
    rollcall_runtime::run(table())
}
