//! `rollcall attendance CLASSROOM` prints when each agent entered, when it left, and why.
use std::io::{self, Write};

use serde_json::Value;

use super::{
    CommandError,
    admin_client::{AdminClient, encoded},
    cell, columns,
};
use crate::config::AttendanceArgs;

/// The columns of the table, and the field of the answer for each.
const COLUMNS: [(&str, &str); 6] = [
    ("SESSION", "session_id"),
    ("AGENT", "agent_id"),
    ("LESSON", "lesson_id"),
    ("ENTERED", "entered_at"),
    ("LEFT", "left_at"),
    ("WHY", "reason"),
];

/// Prints the sessions. JSON and CSV are printed while they arrive, so that a long list needs little memory.
pub(super) async fn run(gateway: &AdminClient, args: &AttendanceArgs) -> Result<(), CommandError> {
    let AttendanceArgs { classroom, from, to, csv, json } = args;
    let mut path = format!("classrooms/{classroom}/attendance?format={}", if *csv { "csv" } else { "json" });
    for (name, time) in [("from", from), ("to", to)] {
        if let Some(time) = time {
            path += &format!("&{name}={}", encoded(time));
        }
    }
    if *csv || *json {
        return gateway.copy(&path, &mut io::stdout()).await;
    }
    let Value::Array(visits) = gateway.get(&path).await? else { return Ok(()) };
    let mut out = io::stdout().lock();
    let row = |visit: &Value| COLUMNS.iter().map(|(_, field)| cell(&visit[*field])).collect();
    let rows: Vec<Vec<String>> = visits.iter().map(row).collect();
    match rows.is_empty() {
        true => writeln!(out, "nobody was in classroom {classroom}")?,
        false => columns::write(&mut out, &COLUMNS.map(|(name, _)| name), &rows)?,
    }
    Ok(())
}
