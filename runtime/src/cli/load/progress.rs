//! Shows on stderr how much of a file is loaded, if stderr is a terminal.
use std::io::{IsTerminal, stderr};

use super::table::CsvTable;

/// The progress of one file. `None` if stderr is not a terminal.
pub(super) struct Progress(Option<&'static str>);

impl Progress {
    pub(super) fn new(what: &'static str) -> Self {
        Self(stderr().is_terminal().then_some(what))
    }

    /// Shows the progress on one line, in place of the previous text.
    pub(super) fn at(&self, table: &CsvTable) {
        if let Some(what) = self.0 {
            let (bytes, read) = table.extent();
            eprint!("\r{what}: {} rows, {}% of the file", table.rows(), read * 100 / bytes.max(1));
        }
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        if self.0.is_some() {
            // This clears the line.
            eprint!("\r\x1b[K");
        }
    }
}
