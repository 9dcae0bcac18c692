//! Connections join lessons and leave them, row by row.
use async_trait::async_trait;
use rollcall_schema::{Role, Seat};
use rusqlite::{Connection, OptionalExtension, params};

use super::{db_thread::failed, fence::fence, removals, stale_fields, store::SqliteStore};
use crate::{Join, Joined, Lease, LeaveLesson, LessonJoins, LessonLeft, RestoreLesson, StoreError};

const LEAVE: &str = "update agent_session set lesson_id = null, lesson_role = null, seat = null, joined_at = null, \
    lesson_change = ?3, lesson_before = coalesce(lesson_id, lesson_before) \
    where id = ?1 and sid = ?2 and lesson_change <= ?3 returning user_id";
const RESTORE: &str = "update agent_session set lesson_id = ?3, seat = ?4, lesson_change = ?5, lesson_role = ?6, \
    lesson_before = iif(lesson_id is ?3, lesson_before, coalesce(lesson_id, lesson_before)), \
    joined_at = case when ?3 is null then null when lesson_id = ?3 then joined_at \
        else strftime('%Y-%m-%d %H:%M:%f', 'now') end \
    where id = ?1 and sid = ?2 and lesson_change <= ?5";
/// Returns the user, and the lesson before the join if it is another one.
const JOIN: &str = "update agent_session set lesson_id = ?3, seat = ?4, lesson_change = ?5, lesson_role = ?6, \
    joined_at = strftime('%Y-%m-%d %H:%M:%f', 'now'), \
    lesson_before = iif(lesson_id = ?3, lesson_before, coalesce(lesson_id, lesson_before)) \
    where id = ?1 and sid = ?2 and lesson_change <= ?5 returning user_id, nullif(lesson_before, lesson_id)";
const SHARED: &str = "select 1 from agent_session where user_id = ?1 and lesson_id = ?2";

#[async_trait]
impl LessonJoins for SqliteStore {
    async fn join(&self, lease: Lease, batch: &[Join]) -> Result<Vec<Joined>, StoreError> {
        let batch = batch.to_vec();
        self.writer.call("join", move |connection| join(connection, lease, &batch)).await
    }

    async fn restore_lesson(&self, lease: Lease, batch: &[RestoreLesson]) -> Result<Vec<bool>, StoreError> {
        let batch = batch.to_vec();
        let restore = move |connection: &Connection| {
            fence(connection, lease)?;
            batch.iter().map(|restore| restore_one(connection, restore)).collect()
        };
        self.writer.call("restore_lesson", restore).await
    }

    async fn leave_lesson(&self, lease: Lease, batch: &[LeaveLesson]) -> Result<Vec<LessonLeft>, StoreError> {
        let batch = batch.to_vec();
        let leave = move |connection: &Connection| {
            fence(connection, lease)?;
            batch.iter().map(|leave| leave_one(connection, lease, leave)).collect()
        };
        self.writer.call("leave_lesson", leave).await
    }
}

fn join(connection: &Connection, lease: Lease, batch: &[Join]) -> Result<Vec<Joined>, StoreError> {
    fence(connection, lease)?;
    batch.iter().map(|join| join_one(connection, lease, join)).collect()
}

fn join_one(connection: &Connection, lease: Lease, join: &Join) -> Result<Joined, StoreError> {
    let lesson: Option<(u32, Option<u32>)> = connection
        .prepare_cached(
            "select seats, (select seat from lesson_attendee where lesson_id = lesson.id and user_id = ?3) \
             from lesson where id = ?1 and classroom_id = ?2",
        )
        .and_then(|mut statement| {
            let user = join.user.as_ref().map(|(user, _)| user.as_str());
            let values = params![join.lesson.as_str(), join.classroom.to_string(), user];
            statement.query_row(values, |row| Ok((row.get(0)?, row.get(1)?))).optional()
        })
        .map_err(failed)?;
    let Some((seats, seat)) = lesson else { return Ok(Joined::NotFound) };
    let mut is_shared = false;
    if let Some(session) = join.session {
        let (sid, lesson) = (join.sid.to_string(), join.lesson.as_str());
        let role = join.user.as_ref().map(|(_, role)| role.as_str());
        let values = params![session.0, sid, lesson, seat, join.change.0, role];
        let written: Option<(String, Option<String>)> = connection
            .prepare_cached(JOIN)
            .and_then(|mut join| join.query_row(values, |row| Ok((row.get(0)?, row.get(1)?))).optional())
            .map_err(failed)?;
        let Some((user, before)) = written else { return Ok(Joined::NotOwner) };
        if let Some(before) = before {
            is_shared = shared(connection, &user, &before)?;
            // The join removes the field without a stale field.
            if join.keep && !is_shared {
                removals::keep(connection, lease.node, (&before, &user, join.sid))?;
            }
        }
    } else if let Some((user, _)) = &join.user {
        stale_fields::hold(connection, lease.node, &join.lesson, user, join.sid)?;
    }
    Ok(Joined::Lesson { seats, seat: seat.map(Seat), shared: is_shared })
}

/// Returns whether a session of the user is in the lesson.
fn shared(connection: &Connection, user: &str, lesson: &str) -> Result<bool, StoreError> {
    connection.prepare_cached(SHARED).and_then(|mut shared| shared.exists(params![user, lesson])).map_err(failed)
}

fn restore_one(connection: &Connection, restore: &RestoreLesson) -> Result<bool, StoreError> {
    let before = restore.lesson.as_ref();
    let lesson = before.map(|before| before.lesson.as_str());
    let seat = before.and_then(|before| Some(before.seat?.0));
    let role = before.and_then(|before| before.role.map(Role::as_str));
    let values = params![restore.session.0, restore.sid.to_string(), lesson, seat, restore.change.0, role];
    let written = connection.prepare_cached(RESTORE).and_then(|mut restore| restore.execute(values));
    written.map(|rows| rows == 1).map_err(failed)
}

fn leave_one(connection: &Connection, lease: Lease, leave: &LeaveLesson) -> Result<LessonLeft, StoreError> {
    let user: Option<String> = connection
        .prepare_cached(LEAVE)
        .and_then(|mut left| {
            left.query_row(params![leave.session.0, leave.sid.to_string(), leave.change.0], |row| row.get(0)).optional()
        })
        .map_err(failed)?;
    let Some(user) = user else { return Ok(LessonLeft::NotOwner) };
    let lesson = leave.lesson.as_str();
    if leave.keep {
        removals::keep(connection, lease.node, (lesson, &user, leave.sid))?;
    }
    Ok(LessonLeft::Left { shared: shared(connection, &user, lesson)? })
}
