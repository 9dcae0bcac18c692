//! Loads lessons and attendees in one transaction beside a running gateway.
//!
//! Rows are gathered in temporary tables of this connection, which lock nothing. At the commit they are written in one
//! short transaction, and the gateway's writer only waits for that.
use std::future::Future;

use async_trait::async_trait;
use rollcall_schema::LessonId;
use rusqlite::{Connection, OptionalExtension, TransactionBehavior, params};
use tokio::task::spawn_blocking;

use super::{db_thread::failed, file, store::SqliteStore};
use crate::{AttendeeRow, LessonRow, Lessons, Load, LoadError, StoreError};

const TABLES: &str =
    "create temp table new_lesson (id text primary key, classroom_id text, seats integer) without rowid;
    create temp table new_attendee (lesson_id text, user_id text, seat integer, primary key (lesson_id, user_id)) \
    without rowid;";

const WRITE: &str =
    "insert into lesson (id, classroom_id, seats) select id, classroom_id, seats from new_lesson where true
    on conflict (id) do update set classroom_id = excluded.classroom_id, seats = excluded.seats;
    insert into lesson_attendee (lesson_id, user_id, seat) select lesson_id, user_id, seat from new_attendee where true
    on conflict (lesson_id, user_id) do update set seat = excluded.seat;";

/// The connection. `None` while a call uses it, or after a call that panicked.
struct SqliteLoad(Option<Connection>);

#[async_trait]
impl Lessons for SqliteStore {
    async fn missing_lessons(&self, lessons: &[LessonId]) -> Result<Vec<LessonId>, StoreError> {
        let lessons = lessons.to_vec();
        self.reader.call("missing", move |connection| missing_lessons(connection, lessons)).await
    }

    async fn has_no_lesson(&self) -> Result<bool, StoreError> {
        self.reader.call("is_empty", has_no_lesson).await
    }

    async fn begin_load(&self) -> Result<Box<dyn Load>, StoreError> {
        let path = self.path.clone();
        let connection = blocking(move || {
            let connection = file::open(&path)?;
            connection.execute_batch(TABLES).map_err(failed)?;
            Ok::<_, StoreError>(connection)
        });
        Ok(Box::new(SqliteLoad(Some(connection.await?))))
    }
}

fn missing_lessons(connection: &Connection, lessons: Vec<LessonId>) -> Result<Vec<LessonId>, StoreError> {
    let mut exists = connection.prepare_cached("select 1 from lesson where id = ?1").map_err(failed)?;
    let mut missing = Vec::new();
    for lesson in lessons {
        if !exists.exists([lesson.as_str()]).map_err(failed)? {
            missing.push(lesson);
        }
    }
    Ok(missing)
}

fn has_no_lesson(connection: &Connection) -> Result<bool, StoreError> {
    connection.query_row("select not exists (select 1 from lesson)", [], |row| row.get(0)).map_err(failed)
}

impl SqliteLoad {
    async fn work<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Connection) -> Result<T, LoadError> + Send + 'static,
    ) -> Result<T, LoadError> {
        let mut connection = self.0.take().ok_or_else(ended)?;
        let (connection, answer) = blocking(move || {
            let answer = work(&mut connection);
            Ok::<_, StoreError>((connection, answer))
        })
        .await?;
        self.0 = Some(connection);
        answer
    }
}

fn ended() -> StoreError {
    StoreError::Unavailable("the load has ended".to_owned())
}

fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> impl Future<Output = Result<T, StoreError>> {
    let work = spawn_blocking(work);
    async { work.await.unwrap_or_else(|_| Err(ended())) }
}

fn gather_lessons(connection: &mut Connection, rows: &[LessonRow]) -> Result<(), rusqlite::Error> {
    let transaction = connection.transaction()?;
    let mut insert = transaction.prepare_cached("insert or replace into new_lesson values (?1, ?2, ?3)")?;
    for row in rows {
        insert.execute(params![row.id.as_str(), row.classroom.to_string(), row.seats])?;
    }
    drop(insert);
    transaction.commit()
}

/// Returns the index of the first attendee without a lesson, if there is one.
fn gather_attendees(connection: &mut Connection, rows: &[AttendeeRow]) -> Result<Option<usize>, rusqlite::Error> {
    let transaction = connection.transaction()?;
    let mut known = transaction
        .prepare_cached("select 1 from new_lesson where id = ?1 union all select 1 from lesson where id = ?1")?;
    let mut insert = transaction.prepare_cached("insert or replace into new_attendee values (?1, ?2, ?3)")?;
    let mut unknown = None;
    for (place, row) in rows.iter().enumerate() {
        if known.query_row([row.lesson.as_str()], |_| Ok(())).optional()?.is_none() {
            unknown = Some(place);
            break;
        }
        insert.execute(params![row.lesson.as_str(), row.user.as_str(), row.seat.0])?;
    }
    drop((known, insert));
    transaction.commit()?;
    Ok(unknown)
}

#[async_trait]
impl Load for SqliteLoad {
    async fn lessons(&mut self, rows: Vec<LessonRow>) -> Result<(), LoadError> {
        self.work(move |connection| Ok(gather_lessons(connection, &rows).map_err(failed)?)).await
    }

    async fn attendees(&mut self, rows: Vec<AttendeeRow>) -> Result<(), LoadError> {
        self.work(move |connection| match gather_attendees(connection, &rows).map_err(failed)? {
            Some(place) => Err(LoadError::UnknownLesson(place)),
            None => Ok(()),
        })
        .await
    }

    async fn commit(mut self: Box<Self>) -> Result<(), LoadError> {
        self.work(|connection| {
            let transaction = connection.transaction_with_behavior(TransactionBehavior::Immediate).map_err(failed)?;
            transaction.execute_batch(WRITE).map_err(failed)?;
            Ok(transaction.commit().map_err(failed)?)
        })
        .await
    }
}
