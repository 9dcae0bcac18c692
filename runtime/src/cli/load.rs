//! `rollcall load` loads lessons and attendees from CSV files into the database: all rows, or none.
//!
//! Invariant: both files are loaded in one transaction, which is committed only after the last row. If a row cannot be
//! loaded, the error names its file, line and column. Only one batch is in memory, even if the files are long.
mod progress;
mod table;

#[cfg(test)]
mod tests;

use std::path::Path;

use rollcall_schema::{ClassroomId, LessonId, Seat, UserId};

pub use self::table::LoadFault;
use self::{
    progress::Progress,
    table::{CsvTable, Fields},
};
use crate::config::{LoadArgs, ids};
use rollcall_store::{AttendeeRow, LessonRow, Load, LoadError, Store};

/// How many rows are given to the store at once.
const BATCH: usize = 4096;
/// The maximum number of seats of a lesson. The seat map in Redis has a field for each seat.
const MAX_SEATS: u32 = 10_000;

/// How many rows were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// The rows of the table `lesson`.
    pub lessons: u64,
    /// The rows of the table `lesson_attendee`.
    pub attendees: u64,
}

/// Loads the files.
///
/// # Errors
/// Returns a [`LoadFault`] if a row could not be loaded. Then no row was loaded.
pub async fn load(store: &dyn Store, files: &LoadArgs) -> Result<Loaded, LoadFault> {
    let mut loaded = Loaded::default();
    let mut load = store.begin_load().await?;
    if let Some(path) = &files.lessons {
        loaded.lessons = lessons(load.as_mut(), path).await?;
    }
    if let Some(path) = &files.attendees {
        loaded.attendees = attendees(load.as_mut(), path).await?;
    }
    load.commit().await.map_err(|error| match error {
        LoadError::Store(error) => LoadFault::Store(error),
        error @ LoadError::UnknownLesson(_) => LoadFault::Commit(error.to_string()),
    })?;
    Ok(loaded)
}

async fn lessons(load: &mut dyn Load, path: &Path) -> Result<u64, LoadFault> {
    let mut table = CsvTable::open(path, &["lesson_id", "classroom_id", "seats"])?;
    let progress = Progress::new("lessons");
    loop {
        let mut batch = Batch::new();
        while batch.rows.len() < BATCH
            && let Some(fields) = table.next()?
        {
            let row = LessonRow {
                id: fields.read(0, LessonId::parse, ids::LESSON)?,
                classroom: fields.read(1, ClassroomId::parse, "a UUID")?,
                seats: number(&fields, 2)?,
            };
            batch.put(row, fields.place());
        }
        if batch.rows.is_empty() {
            return Ok(table.rows());
        }
        load.lessons(batch.rows).await.map_err(|error| table.fault(&batch.places, error))?;
        progress.at(&table);
    }
}

async fn attendees(load: &mut dyn Load, path: &Path) -> Result<u64, LoadFault> {
    let mut table = CsvTable::open(path, &["lesson_id", "user_id", "seat"])?;
    let progress = Progress::new("attendees");
    loop {
        let mut batch = Batch::new();
        while batch.rows.len() < BATCH
            && let Some(fields) = table.next()?
        {
            let lesson = fields.read(0, LessonId::parse, ids::LESSON)?;
            let user = fields.read(1, UserId::parse, ids::USER)?;
            let seat = Seat(number(&fields, 2)?);
            batch.put(AttendeeRow { lesson, user, seat }, fields.place());
        }
        if batch.rows.is_empty() {
            return Ok(table.rows());
        }
        load.attendees(batch.rows).await.map_err(|error| table.fault(&batch.places, error))?;
        progress.at(&table);
    }
}

fn number(fields: &Fields<'_>, column: usize) -> Result<u32, LoadFault> {
    let parse = |text: &str| text.parse().ok().filter(|number| (1..=MAX_SEATS).contains(number)).ok_or(());
    fields.read(column, parse, "a whole number from 1 to 10000")
}

/// Rows for the store, and the place in its file where each row begins.
struct Batch<R> {
    rows: Vec<R>,
    places: Vec<u64>,
}

impl<R> Batch<R> {
    fn new() -> Self {
        Self { rows: Vec::with_capacity(BATCH), places: Vec::with_capacity(BATCH) }
    }

    fn put(&mut self, row: R, place: u64) {
        self.rows.push(row);
        self.places.push(place);
    }
}
