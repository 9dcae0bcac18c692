//! `resume` of a connect_request: the client joins its lesson again and gets the events that it missed (PROTOCOL 3).
//!
//! Invariant: the session exists already, so events that cannot be recovered are reported, and the session goes on.
//! `recovered` is about the rooms that the client named: the classroom, and the lesson if it named one.
use rollcall_runtime::{Position, Resources, Resumption, Rooms, Session};
use rollcall_schema::{JoinLesson, Resume};

use crate::join_lesson;

/// The dependencies of this handler.
pub struct Deps {
    rooms: Rooms,
    join_lesson: join_lesson::Deps,
}

impl Deps {
    /// Takes the dependencies out of the resources.
    #[must_use]
    pub fn new(resources: &Resources) -> Self {
        Self { rooms: resources.rooms.clone(), join_lesson: join_lesson::Deps::new(resources) }
    }
}

/// Joins the lesson that the client was in, and looks for the events that it missed. `start` is the end of the stream
/// after the classroom was entered: events that are stored later reach the client live.
pub async fn handle(deps: &Deps, session: &mut Session, resume: Resume, start: Position) -> Resumption {
    session.resumes = true;
    let after = resume.position().map(|(epoch, offset)| Position { epoch: epoch.to_owned(), offset });
    let named = resume.lesson_id.is_some();
    let joined = match resume.lesson_id {
        Some(lesson) => {
            let request = JoinLesson { lesson_id: Some(lesson), access_token: None };
            join_lesson::handle(&deps.join_lesson, session, request).await.is_ok()
        }
        None => true,
    };
    if let Some(after) = after.filter(|after| joined && after.epoch == start.epoch)
        && let Some(replay) = deps.rooms.replay(&session.rooms(), &after).await
    {
        return Resumption { position: after, recovered: true, replay: Some(replay) };
    }
    if !named {
        return Resumption { position: start, recovered: false, replay: None };
    }
    // The lesson was entered after `start`, so a replay also brings the lesson's events between `start` and the
    // entering.
    match deps.rooms.replay(&session.rooms(), &start).await {
        Some(replay) => Resumption { position: start, recovered: false, replay: Some(replay) },
        // If the stream was created again meanwhile, the position in the earlier one is no longer valid. The client is
        // about to be told so.
        None => {
            let end = deps.rooms.end_of_feed().await.unwrap_or(start);
            Resumption { position: end, recovered: false, replay: None }
        }
    }
}
