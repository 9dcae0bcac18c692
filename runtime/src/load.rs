//! `rollcall load`: lessons and attendees from CSV files into SQL, all of it or nothing.
//!
//! Invariant: one transaction for both files, committed only after the last row; a row that cannot be taken is named by
//! file, line and column. Memory holds one batch, however long the files are.
mod progress;
mod table;

use std::{collections::HashMap, path::Path};

use rollcall_schema::{ClassroomId, LessonId, Seat, UserId};

pub use self::table::LoadFault;
use self::{
    progress::Progress,
    table::{Fields, Table},
};
use crate::{
    config::LoadArgs,
    store::{AttendeeRow, LessonRow, Load, LoadError, Store},
};

/// Rows of one statement.
const BATCH: usize = 1000;
/// The most seats of a lesson: the seat map in Redis has a field for each.
const MOST_SEATS: u32 = 10_000;

/// How many rows were loaded.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Loaded {
    /// Of `lesson`.
    pub lessons: u64,
    /// Of `lesson_attendee`.
    pub attendees: u64,
}

/// Loads the files.
///
/// # Errors
/// [`LoadFault`]; nothing was loaded then.
pub async fn load(store: &dyn Store, files: &LoadArgs) -> Result<Loaded, LoadFault> {
    let mut loaded = Loaded::default();
    let mut load = store.load().await?;
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
    let mut table = Table::open(path, &["lesson_id", "classroom_id", "seats"])?;
    let progress = Progress::new(&table, "lessons");
    loop {
        let mut batch = Batch::default();
        while batch.rows.len() < BATCH
            && let Some(fields) = table.next()?
        {
            let id = fields.read(0, LessonId::parse, "1 to 64 of A-Z a-z 0-9 _ -")?;
            let row = LessonRow {
                id: id.clone(),
                classroom: fields.read(1, ClassroomId::parse, "a UUID")?,
                seats: number(&fields, 2)?,
            };
            batch.put(id, row, fields.line());
        }
        if batch.rows.is_empty() {
            return Ok(table.rows());
        }
        load.lessons(batch.rows).await.map_err(|error| table.fault(&batch.lines, error))?;
        progress.at(&table);
    }
}

async fn attendees(load: &mut dyn Load, path: &Path) -> Result<u64, LoadFault> {
    let mut table = Table::open(path, &["lesson_id", "user_id", "seat"])?;
    let progress = Progress::new(&table, "attendees");
    loop {
        let mut batch = Batch::default();
        while batch.rows.len() < BATCH
            && let Some(fields) = table.next()?
        {
            let lesson = fields.read(0, LessonId::parse, "1 to 64 of A-Z a-z 0-9 _ -")?;
            let user = fields.read(1, UserId::parse, "1 to 128 of A-Z a-z 0-9 _ = + / -, not starting with lesson_")?;
            let seat = Seat(number(&fields, 2)?);
            batch.put((lesson.clone(), user.clone()), AttendeeRow { lesson, user, seat }, fields.line());
        }
        if batch.rows.is_empty() {
            return Ok(table.rows());
        }
        load.attendees(batch.rows).await.map_err(|error| table.fault(&batch.lines, error))?;
        progress.at(&table);
    }
}

fn number(fields: &Fields<'_>, column: usize) -> Result<u32, LoadFault> {
    let parse = |text: &str| text.parse().ok().filter(|number| (1..=MOST_SEATS).contains(number)).ok_or(());
    fields.read(column, parse, "a whole number from 1 to 10000")
}

/// Rows of one statement, which must not meet one key twice: of such rows the later counts, as it does across batches.
struct Batch<K, R> {
    rows: Vec<R>,
    lines: Vec<u64>,
    places: HashMap<K, usize>,
}

impl<K, R> Default for Batch<K, R> {
    fn default() -> Self {
        Self { rows: Vec::new(), lines: Vec::new(), places: HashMap::new() }
    }
}

impl<K: std::hash::Hash + Eq, R> Batch<K, R> {
    fn put(&mut self, key: K, row: R, line: u64) {
        let next = self.rows.len();
        match *self.places.entry(key).or_insert(next) {
            place if place < next => {
                self.rows[place] = row;
                self.lines[place] = line;
            }
            _ => {
                self.rows.push(row);
                self.lines.push(line);
            }
        }
    }
}
