//! Reads and removes the rows of a user whose sessions have ended.
use async_trait::async_trait;
use rollcall_schema::{LessonId, SessionId, UserId};
use rusqlite::{Connection, params};

use super::{
    db_thread::failed,
    rows::{rows, text, unreadable, whole},
    store::SqliteStore,
};
use crate::{Erasure, StoreError};

const HISTORY: &str = "select id, lesson_id from agent_session_history where user_id = ?1 limit ?2";
const FORGET_HISTORY: &str = "delete from agent_session_history where id = ?1";
const ATTENDED: &str = "select lesson_id from lesson_attendee where user_id = ?1 limit ?2";
const FORGET_ATTENDEE: &str = "delete from lesson_attendee where user_id = ?1 and lesson_id = ?2";

#[async_trait]
impl Erasure for SqliteStore {
    async fn history_of(&self, user: &UserId, max: usize) -> Result<Vec<(SessionId, Option<LessonId>)>, StoreError> {
        let user = user.clone();
        let read = move |connection: &Connection| {
            rows(connection, HISTORY, params![user.as_str(), whole(max)], |row| {
                let lesson: Option<String> = row.get(1).map_err(failed)?;
                let lesson = lesson.as_deref().map(LessonId::parse).transpose().map_err(unreadable)?;
                Ok((SessionId(row.get(0).map_err(failed)?), lesson))
            })
        };
        self.reader.call("history_of", read).await
    }

    async fn forget_history(&self, sessions: &[SessionId]) -> Result<(), StoreError> {
        let sessions = sessions.to_vec();
        let forget = move |connection: &Connection| {
            let mut delete = connection.prepare_cached(FORGET_HISTORY).map_err(failed)?;
            sessions.iter().try_for_each(|session| delete.execute([session.0]).map(drop)).map_err(failed)
        };
        self.writer.call("erase", forget).await
    }

    async fn attended_by(&self, user: &UserId, max: usize) -> Result<Vec<LessonId>, StoreError> {
        let user = user.clone();
        let read = move |connection: &Connection| {
            rows(connection, ATTENDED, params![user.as_str(), whole(max)], |row| {
                LessonId::parse(&text(row, 0)?).map_err(unreadable)
            })
        };
        self.reader.call("attended_by", read).await
    }

    async fn forget_attendee(&self, user: &UserId, lessons: &[LessonId]) -> Result<(), StoreError> {
        let (user, lessons) = (user.clone(), lessons.to_vec());
        let forget = move |connection: &Connection| {
            let mut delete = connection.prepare_cached(FORGET_ATTENDEE).map_err(failed)?;
            let mut one = |lesson: &LessonId| delete.execute(params![user.as_str(), lesson.as_str()]).map(drop);
            lessons.iter().try_for_each(&mut one).map_err(failed)
        };
        self.writer.call("erase", forget).await
    }
}
