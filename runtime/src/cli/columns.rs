//! Prints tables for people. Each column is as wide as its longest cell.
use std::io::{self, Write};

/// Writes a heading and rows.
pub(super) fn write(out: &mut impl Write, heading: &[&str], rows: &[Vec<String>]) -> io::Result<()> {
    let width = |column: usize| {
        let cells = rows.iter().map(|row| row.get(column).map_or(0, |cell| cell.chars().count()));
        cells.chain([heading[column].len()]).max().unwrap_or(0)
    };
    let widths: Vec<usize> = (0..heading.len()).map(width).collect();
    let mut line = |cells: &mut dyn Iterator<Item = &str>| {
        let padded: Vec<String> =
            cells.zip(&widths).map(|(cell, width)| format!("{cell:<width$}", width = *width)).collect();
        writeln!(out, "{}", padded.join("  ").trim_end())
    };
    line(&mut heading.iter().copied())?;
    rows.iter().try_for_each(|row| line(&mut row.iter().map(String::as_str)))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn columns_are_as_wide_as_their_longest_cell() {
        let mut out = Vec::new();
        let rows = [vec!["1".to_owned(), "web.é".to_owned(), "x".to_owned()], vec!["12".to_owned(), "a".to_owned()]];
        write(&mut out, &["ID", "AGENT", ""], &rows).unwrap();
        assert_eq!(String::from_utf8(out).unwrap(), "ID  AGENT\n1   web.é  x\n12  a\n");
    }
}
