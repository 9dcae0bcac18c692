//! Reads and removes the rows of a user whose sessions have ended. There is no index of attendees by user, so queries
//! that read the whole table run in the background.
use async_trait::async_trait;
use rollcall_schema::{LessonId, SessionId, UserId};
use tokio_postgres::Row;

use super::{
    rows::{get, unreadable, whole},
    store::PostgresStore,
};
use crate::{Erasure, StoreError};

const HISTORY: &str = "select id, lesson_id from agent_session_history where user_id = $1 limit $2";
const FORGET_HISTORY: &str = "delete from agent_session_history where id = any ($1)";
const ATTENDED: &str = "select lesson_id from lesson_attendee where user_id = $1 limit $2";
const FORGET_ATTENDEE: &str = "delete from lesson_attendee where user_id = $1 and lesson_id = any ($2)";

#[async_trait]
impl Erasure for PostgresStore {
    async fn history_of(&self, user: &UserId, max: usize) -> Result<Vec<(SessionId, Option<LessonId>)>, StoreError> {
        let rows = self.pool.rows("history_of", HISTORY, &[&user.as_str(), &whole(max)]).await?;
        let ended = |row: &Row| {
            let lesson: Option<&str> = get(row, 1)?;
            Ok((SessionId(get(row, 0)?), lesson.map(LessonId::parse).transpose().map_err(unreadable)?))
        };
        rows.iter().map(ended).collect()
    }

    async fn forget_history(&self, sessions: &[SessionId]) -> Result<(), StoreError> {
        let ids: Vec<i64> = sessions.iter().map(|session| session.0).collect();
        self.pool.rows("erase", FORGET_HISTORY, &[&ids]).await.map(drop)
    }

    async fn attended_by(&self, user: &UserId, max: usize) -> Result<Vec<LessonId>, StoreError> {
        let rows = self.background.rows("attended_by", ATTENDED, &[&user.as_str(), &whole(max)]).await?;
        rows.iter().map(|row| LessonId::parse(get(row, 0)?).map_err(unreadable)).collect()
    }

    async fn forget_attendee(&self, user: &UserId, lessons: &[LessonId]) -> Result<(), StoreError> {
        let lessons: Vec<&str> = lessons.iter().map(LessonId::as_str).collect();
        self.pool.rows("erase", FORGET_ATTENDEE, &[&user.as_str(), &lessons]).await.map(drop)
    }
}
