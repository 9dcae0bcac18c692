//! `rollcall attendance CLASSROOM` prints when each agent entered, when it left, and why.
use std::io::{self, Write};

use serde_json::value::RawValue;

use super::{
    CommandError,
    admin_client::{AdminClient, encoded},
    columns,
    record::{Record, records},
};
use crate::{config::AttendanceArgs, node::StartError};

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
    let mut answer = Vec::new();
    gateway.copy(&path, &mut answer).await?;
    let hint = "use the rollcall of the gateway's version";
    let visits: Result<Vec<Box<RawValue>>, _> = serde_json::from_slice(&answer);
    let visits = visits.map_err(StartError::at("the gateway's answer", hint))?;
    let mut out = io::stdout().lock();
    let row = |visit: &Record| COLUMNS.iter().map(|(_, field)| visit.cell(field)).collect();
    let rows: Vec<Vec<String>> = records(&visits).iter().map(row).collect();
    match rows.is_empty() {
        true => writeln!(out, "nobody was in classroom {classroom}")?,
        false => columns::write(&mut out, &COLUMNS.map(|(name, _)| name), &rows)?,
    }
    Ok(())
}
