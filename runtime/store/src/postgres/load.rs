//! Loads lessons and attendees in one transaction, on a connection of its own. If it is dropped, the transaction is
//! undone.
use std::{collections::HashMap, hash::Hash, time::Duration};

use async_trait::async_trait;
use rollcall_schema::LessonId;
use uuid::Uuid;

use super::{
    connect::Dedicated,
    rows::{get, only, unreadable, unsigned},
    store::PostgresStore,
};
use crate::{AttendeeRow, LessonRow, Lessons, Load, LoadError, StoreError};

/// The number of rows in a statement.
const CHUNK: usize = 4096;
/// How long such a statement may take. Another load of the same lessons may delay it.
const LIMIT: Duration = Duration::from_secs(10);
const SETTINGS: &str = "-c statement_timeout=10000 -c lock_timeout=10000 -c idle_in_transaction_session_timeout=60000";

const MISSING: &str = "select i.id from unnest($1::text[]) as i(id) \
    where not exists (select from lesson where lesson.id = i.id)";

const LESSONS: &str = "insert into lesson (id, classroom_id, seats)
    select * from unnest($1::text[], $2::uuid[], $3::int[]) as i(id, classroom_id, seats)
    on conflict (id) do update set classroom_id = excluded.classroom_id, seats = excluded.seats";

/// If a lesson is unknown, no row is inserted, and the answer is the index of the first such row.
const ATTENDEES: &str = "with wanted as materialized (
        select i.*, exists (select from lesson where lesson.id = i.lesson_id) as known
        from unnest($1::text[], $2::text[], $3::int[]) with ordinality as i(lesson_id, user_id, seat, place)
    ), unknown as materialized (
        select min(place) as place from wanted where not known
    ), written as (
        insert into lesson_attendee (lesson_id, user_id, seat)
        select lesson_id, user_id, seat from wanted cross join unknown where unknown.place is null
        on conflict (lesson_id, user_id) do update set seat = excluded.seat
    )
    select place from unknown";

struct PostgresLoad(Dedicated);

#[async_trait]
impl Lessons for PostgresStore {
    async fn missing_lessons(&self, lessons: &[LessonId]) -> Result<Vec<LessonId>, StoreError> {
        let ids: Vec<&str> = lessons.iter().map(LessonId::as_str).collect();
        let rows = self.pool.rows("missing", MISSING, &[&ids]).await?;
        rows.iter().map(|row| LessonId::parse(get(row, 0)?).map_err(unreadable)).collect()
    }

    async fn has_no_lesson(&self) -> Result<bool, StoreError> {
        only(&self.pool.rows("is_empty", "select not exists (select from lesson)", &[]).await?)
    }

    async fn begin_load(&self) -> Result<Box<dyn Load>, StoreError> {
        let connection = Dedicated::connect(&self.connector, SETTINGS, LIMIT).await?;
        connection.run(LIMIT, "begin").await?;
        Ok(Box::new(PostgresLoad(connection)))
    }
}

/// Returns the last row of each key, with its index in the batch, because a statement may not write a row twice.
fn last_of_each<'a, T, K: Hash + Eq>(rows: &'a [T], key: impl Fn(&'a T) -> K) -> Vec<(usize, &'a T)> {
    let last: HashMap<K, usize> = rows.iter().enumerate().map(|(place, row)| (key(row), place)).collect();
    let mut places: Vec<usize> = last.into_values().collect();
    places.sort_unstable();
    places.into_iter().map(|place| (place, &rows[place])).collect()
}

#[async_trait]
impl Load for PostgresLoad {
    async fn lessons(&mut self, rows: Vec<LessonRow>) -> Result<(), LoadError> {
        for chunk in rows.chunks(CHUNK) {
            let rows = last_of_each(chunk, |row| row.id.as_str());
            let ids: Vec<&str> = rows.iter().map(|(_, row)| row.id.as_str()).collect();
            let classrooms: Vec<Uuid> = rows.iter().map(|(_, row)| row.classroom.0).collect();
            let seats = rows.iter().map(|(_, row)| i32::try_from(row.seats)).collect::<Result<Vec<_>, _>>();
            let seats = seats.map_err(unreadable)?;
            self.0.rows(LIMIT, LESSONS, &[&ids, &classrooms, &seats]).await?;
        }
        Ok(())
    }

    async fn attendees(&mut self, rows: Vec<AttendeeRow>) -> Result<(), LoadError> {
        for (number, chunk) in rows.chunks(CHUNK).enumerate() {
            let rows = last_of_each(chunk, |row| (row.lesson.as_str(), row.user.as_str()));
            let lessons: Vec<&str> = rows.iter().map(|(_, row)| row.lesson.as_str()).collect();
            let users: Vec<&str> = rows.iter().map(|(_, row)| row.user.as_str()).collect();
            let seats = rows.iter().map(|(_, row)| i32::try_from(row.seat.0)).collect::<Result<Vec<_>, _>>();
            let seats = seats.map_err(unreadable)?;
            let answer = self.0.rows(LIMIT, ATTENDEES, &[&lessons, &users, &seats]).await?;
            let unknown: Option<i64> = only(&answer)?;
            if let Some(place) = unknown {
                let place: usize = unsigned(place - 1)?;
                return Err(LoadError::UnknownLesson(number * CHUNK + rows[place].0));
            }
        }
        Ok(())
    }

    async fn commit(self: Box<Self>) -> Result<(), LoadError> {
        Ok(self.0.run(LIMIT, "commit").await?)
    }
}
