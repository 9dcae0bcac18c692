//! How far a file is loaded, on stderr where that is a terminal.
use std::io::{IsTerminal, stderr};

use super::table::CsvTable;

/// The progress of one file; none where nobody watches.
pub(super) struct Progress(Option<&'static str>);

impl Progress {
    pub(super) fn new(what: &'static str) -> Self {
        Self(stderr().is_terminal().then_some(what))
    }

    /// Shows it on one line, in place of what was shown before.
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
            // Clears the line.
            eprint!("\r\x1b[K");
        }
    }
}
