//! A progress bar on stderr, if that is a terminal.
use indicatif::{ProgressBar, ProgressStyle};

use super::table::CsvTable;

/// The bar of one file.
pub(super) struct Progress(ProgressBar);

impl Progress {
    pub(super) fn new(table: &CsvTable, what: &'static str) -> Self {
        let style = ProgressStyle::with_template("{prefix:>10} {bar:40} {percent:>3}% {msg} rows, {eta} left");
        // Indicatif draws nothing where stderr is no terminal.
        let bar = ProgressBar::new(table.extent().0).with_prefix(what);
        bar.set_style(style.unwrap_or_else(|_| ProgressStyle::default_bar()));
        Self(bar)
    }

    pub(super) fn at(&self, table: &CsvTable) {
        self.0.set_position(table.extent().1);
        self.0.set_message(table.rows().to_string());
    }
}

impl Drop for Progress {
    fn drop(&mut self) {
        self.0.finish_and_clear();
    }
}
