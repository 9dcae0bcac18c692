//! The results of a run: figures with their limits and the floor's figures, and the curves of the report.

use std::fs;
use std::io;
use std::path::Path;

use serde::{Deserialize, Serialize};

use super::system::Kind;

/// The limit that a figure must keep.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub(crate) enum Limit {
    AtMost(f64),
    AtLeast(f64),
    /// At least this share of the floor's figure.
    OfFloor(f64),
}

#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Figure {
    pub(crate) scenario: String,
    pub(crate) system: Kind,
    pub(crate) name: String,
    pub(crate) value: f64,
    pub(crate) unit: String,
    /// The floor's figure, if it has one.
    pub(crate) floor: Option<f64>,
    pub(crate) limit: Option<Limit>,
    /// Whether the figure is of an earlier run.
    #[serde(default)]
    pub(crate) earlier: bool,
}

impl Figure {
    pub(crate) fn ratio(&self) -> Option<f64> {
        self.floor.map(|floor| self.value / floor)
    }

    /// Returns whether the figure keeps its limit, if it has one.
    pub(crate) fn holds(&self) -> Option<bool> {
        Some(match self.limit? {
            Limit::AtMost(limit) => self.value <= limit,
            Limit::AtLeast(limit) => self.value >= limit,
            Limit::OfFloor(share) => self.ratio()? >= share,
        })
    }
}

/// One or several curves in one plot.
#[derive(Debug, Clone, Serialize, Deserialize)]
pub(crate) struct Plot {
    pub(crate) scenario: String,
    pub(crate) system: Kind,
    pub(crate) title: String,
    pub(crate) x: String,
    pub(crate) y: String,
    pub(crate) curves: Vec<(String, Vec<(f64, f64)>)>,
}

#[derive(Debug, Clone, Default, Serialize, Deserialize)]
pub(crate) struct Results {
    pub(crate) machine: String,
    pub(crate) figures: Vec<Figure>,
    pub(crate) plots: Vec<Plot>,
}

impl Results {
    pub(crate) fn read(path: &Path) -> io::Result<Self> {
        Ok(serde_json::from_slice(&fs::read(path)?)?)
    }

    pub(crate) fn write(&self, path: &Path) -> io::Result<()> {
        fs::write(path, serde_json::to_vec_pretty(self)?)
    }

    /// Returns whether every limit is kept.
    pub(crate) fn hold(&self) -> bool {
        self.figures.iter().all(|figure| figure.holds() != Some(false))
    }

    /// Returns these results, completed by earlier results of the same machine that this run did not measure.
    pub(crate) fn with_earlier(&self, earlier: Self) -> Self {
        let mut all = self.clone();
        if earlier.machine != self.machine {
            return all;
        }
        let again = |scenario: &str, system: Kind| {
            self.figures.iter().any(|figure| figure.scenario == scenario && figure.system == system)
        };
        let kept = earlier.figures.into_iter().filter(|figure| !again(&figure.scenario, figure.system));
        all.figures.extend(kept.map(|figure| Figure { earlier: true, ..figure }));
        all.plots.extend(earlier.plots.into_iter().filter(|plot| !again(&plot.scenario, plot.system)));
        all
    }

    /// Returns the figures as a table for a terminal.
    pub(crate) fn table(&self) -> String {
        let mut table = format!("{}\n", self.machine);
        let titles = ["scenario", "system", "figure", "value", "of the floor", "limit", ""];
        let rows = self.figures.iter().map(row);
        let rows: Vec<[String; 7]> = [titles.map(str::to_owned)].into_iter().chain(rows).collect();
        let widths: Vec<usize> = (0..titles.len())
            .map(|column| {
                let cells = rows.iter().map(|row| row[column].chars().count());
                cells.max().unwrap_or(0)
            })
            .collect();
        for row in rows {
            for (column, (cell, width)) in row.iter().zip(&widths).enumerate() {
                let number = (3..=5).contains(&column);
                let cell = if number { format!("{cell:>width$}") } else { format!("{cell:<width$}") };
                table.push_str(&cell);
                table.push_str("  ");
            }
            table.truncate(table.trim_end().len());
            table.push('\n');
        }
        table
    }
}

/// Returns a figure as a row of the table, in the terminal and in the report.
pub(crate) fn row(figure: &Figure) -> [String; 7] {
    let limit = match figure.limit {
        None => String::new(),
        Some(Limit::AtMost(limit)) => format!("at most {}", number(limit)),
        Some(Limit::AtLeast(limit)) => format!("at least {}", number(limit)),
        Some(Limit::OfFloor(share)) => format!("at least {share:.2} of the floor"),
    };
    [
        figure.scenario.clone(),
        figure.system.to_string(),
        figure.name.clone(),
        format!("{} {}", number(figure.value), figure.unit),
        figure.ratio().map_or(String::new(), |ratio| format!("{ratio:.2}")),
        limit,
        match figure.holds() {
            None => "",
            Some(true) => "ok",
            Some(false) => "MISSED",
        }
        .to_owned(),
    ]
}

/// Returns a number as people write it, with separated thousands, and with decimals only if they matter.
fn number(value: f64) -> String {
    if value.abs() < 100.0 && value.fract() != 0.0 {
        return format!("{value:.2}");
    }
    let digits = format!("{value:.0}");
    let mut grouped = String::new();
    for (index, digit) in digits.chars().enumerate() {
        if index > 0 && (digits.len() - index).is_multiple_of(3) && !grouped.ends_with('-') {
            grouped.push(',');
        }
        grouped.push(digit);
    }
    grouped
}

#[cfg(test)]
mod tests {
    use super::*;

    fn figure(value: f64, floor: Option<f64>, limit: Limit) -> Figure {
        Figure {
            scenario: "join".to_owned(),
            system: Kind::Real,
            name: "connects".to_owned(),
            value,
            unit: "/s".to_owned(),
            floor,
            limit: Some(limit),
            earlier: false,
        }
    }

    #[test]
    fn an_earlier_run_fills_in_what_this_one_did_not_measure() {
        let of = |scenario: &str, value| {
            let figure = Figure { scenario: scenario.to_owned(), ..figure(value, None, Limit::AtMost(9.0)) };
            Results { machine: "two cores".to_owned(), figures: vec![figure], plots: Vec::new() }
        };
        let both = of("join", 1.0).with_earlier(of("join", 2.0).with_earlier(of("scale", 3.0)));
        let found: Vec<_> = both.figures.iter().map(|figure| (figure.value, figure.earlier)).collect();
        assert_eq!(found, [(1.0, false), (3.0, true)]);
        let elsewhere = Results { machine: "four cores".to_owned(), ..of("scale", 3.0) };
        assert_eq!(of("join", 1.0).with_earlier(elsewhere).figures.len(), 1);
    }

    #[test]
    fn a_limit_of_the_floor_is_held_against_the_ratio() {
        let kept = figure(10_000.0, Some(33_000.0), Limit::OfFloor(0.30));
        let missed = figure(9_000.0, Some(33_000.0), Limit::OfFloor(0.30));
        assert_eq!((kept.holds(), missed.holds()), (Some(true), Some(false)));
        assert_eq!(row(&missed)[3..], ["9,000 /s", "0.27", "at least 0.30 of the floor", "MISSED"]);
    }

    #[test]
    fn a_result_outlives_its_file() {
        let folder = tempfile::tempdir().expect("a folder");
        let path = folder.path().join("results.json");
        let results = Results {
            machine: "two cores".to_owned(),
            figures: vec![figure(1.5, None, Limit::AtMost(2.0))],
            plots: Vec::new(),
        };
        results.write(&path).expect("written");
        let read = Results::read(&path).expect("read");
        assert_eq!(read.table(), results.table());
        assert!(read.hold());
    }
}
