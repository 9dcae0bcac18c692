//! A CSV file that is read row by row, and errors with their place in the file.
use std::{
    fs::File,
    io::{BufRead, BufReader},
    path::{Path, PathBuf},
};

use csv::{ErrorKind, Reader, ReaderBuilder, StringRecord, Trim};

use rollcall_store::{LoadError, StoreError};

/// Why no row was loaded.
#[derive(Debug, thiserror::Error)]
pub enum LoadFault {
    /// The file cannot be read.
    #[error("{}: {error}", path.display())]
    File {
        /// The file.
        path: PathBuf,
        /// The reason.
        error: std::io::Error,
    },
    /// A row cannot be loaded.
    #[error("{}, line {line}, column {column}{}: {problem}; nothing was loaded", path.display(), named(name))]
    Row {
        /// The file.
        path: PathBuf,
        /// The line; the heading is line 1.
        line: u64,
        /// The column's number, from 1.
        column: usize,
        /// The column's name if it has one.
        name: &'static str,
        /// What is wrong with the column's value.
        problem: String,
    },
    /// The database failed.
    #[error("{0}; nothing was loaded")]
    Store(#[from] StoreError),
    /// The database refused the commit.
    #[error("{0}; nothing was loaded")]
    Commit(String),
}

fn named(name: &str) -> String {
    if name.is_empty() { String::new() } else { format!(" ({name})") }
}

/// An open file whose heading was checked.
pub(super) struct CsvTable {
    path: PathBuf,
    reader: Reader<File>,
    columns: [&'static str; 3],
    record: StringRecord,
    bytes: u64,
    rows: u64,
}

/// The fields of one row, in the order of the heading.
pub(super) struct Fields<'a> {
    table: &'a CsvTable,
    place: u64,
}

impl CsvTable {
    /// Opens a file that must have exactly these columns.
    pub(super) fn open(path: &Path, columns: &[&'static str; 3]) -> Result<Self, LoadFault> {
        let unreadable = |error| LoadFault::File { path: path.to_owned(), error };
        let file = File::open(path).map_err(unreadable)?;
        let bytes = file.metadata().map_err(unreadable)?.len();
        let reader = ReaderBuilder::new().has_headers(false).trim(Trim::All).from_reader(file);
        let record = StringRecord::new();
        let mut table = Self { path: path.to_owned(), reader, columns: *columns, record, bytes, rows: 0 };
        table.heading()?;
        Ok(table)
    }

    fn heading(&mut self) -> Result<(), LoadFault> {
        self.read()?;
        let expected = || format!("the first line must be {}", self.columns.join(","));
        for (index, name) in self.columns.iter().enumerate() {
            if self.record.get(index) != Some(name) {
                return Err(self.row(0, index, expected()));
            }
        }
        Ok(())
    }

    fn read(&mut self) -> Result<bool, LoadFault> {
        let error = match self.reader.read_record(&mut self.record) {
            Ok(more) => return Ok(more),
            Err(error) => error,
        };
        let place = error.position().unwrap_or_else(|| self.reader.position()).byte();
        Err(match error.into_kind() {
            ErrorKind::Io(error) => LoadFault::File { path: self.path.clone(), error },
            ErrorKind::Utf8 { err, .. } => self.row(place, err.field(), "not UTF-8".into()),
            ErrorKind::UnequalLengths { len, expected_len, .. } => {
                let column = (len.min(expected_len) as usize).min(self.columns.len());
                self.row(place, column, format!("the row has {len} columns, not {expected_len}"))
            }
            _ => self.row(place, 0, "not CSV".into()),
        })
    }

    /// Returns the next row if there is one.
    pub(super) fn next(&mut self) -> Result<Option<Fields<'_>>, LoadFault> {
        if !self.read()? {
            return Ok(None);
        }
        self.rows += 1;
        let place = self.record.position().map_or(0, csv::Position::byte);
        Ok(Some(Fields { table: self, place }))
    }

    /// Returns the store's error with the place of the row that caused it.
    pub(super) fn fault(&self, places: &[u64], error: LoadError) -> LoadFault {
        match error {
            LoadError::Store(error) => LoadFault::Store(error),
            LoadError::UnknownLesson(row) => {
                let place = places.get(row).copied().unwrap_or_default();
                self.row(place, 0, "there is no such lesson".into())
            }
        }
    }

    /// Returns how many rows were read so far.
    pub(super) fn rows(&self) -> u64 {
        self.rows
    }

    /// Returns the file's length, and how much of the file was read.
    pub(super) fn extent(&self) -> (u64, u64) {
        (self.bytes, self.reader.position().byte())
    }

    /// Returns a fault of the row that begins at this byte.
    fn row(&self, place: u64, column: usize, problem: String) -> LoadFault {
        let line = line_at(&self.path, place);
        let name = self.columns.get(column).copied().unwrap_or_default();
        LoadFault::Row { path: self.path.clone(), line, column: column + 1, name, problem }
    }
}

impl Fields<'_> {
    /// Returns the byte at which the row begins.
    pub(super) fn place(&self) -> u64 {
        self.place
    }

    /// Reads a column. `rule` says what its value must be.
    pub(super) fn read<T, E>(
        &self,
        column: usize,
        parse: impl FnOnce(&str) -> Result<T, E>,
        rule: &str,
    ) -> Result<T, LoadFault> {
        let text = self.table.record.get(column).unwrap_or_default();
        parse(text).map_err(|_| self.table.row(self.place, column, format!("{text:.80?} is not {rule}")))
    }
}

/// Returns the line of the row that begins at this byte: the first line whose text ends after this byte. The lines are
/// counted again, because the reader's own count is wrong after blank lines and CRLF. Returns 1 if the file no longer
/// exists.
fn line_at(path: &Path, place: u64) -> u64 {
    let (mut line, mut begin) = (1, 0);
    let Ok(file) = File::open(path) else { return line };
    let mut reader = BufReader::new(file);
    let mut bytes = Vec::new();
    while let Ok(length @ 1..) = reader.read_until(b'\n', &mut bytes) {
        let text = bytes.trim_ascii_end().len() as u64;
        if text > 0 && begin + text > place {
            break;
        }
        (line, begin) = (line + 1, begin + length as u64);
        bytes.clear();
    }
    line
}
