//! `rollcall agents CLASSROOM` prints the agents in a classroom.
use std::io::{self, Write};

use serde_json::value::RawValue;

use super::{
    CommandError,
    admin_client::AdminClient,
    columns,
    record::{Record, records},
};
use crate::config::AgentsArgs;

/// How many agents a page has.
const PAGE: usize = 1000;

/// The columns of the table, and the field of the answer for each. A column without any value is left out.
const COLUMNS: [(&str, &str); 5] =
    [("SESSION", "id"), ("AGENT", "agent_id"), ("ROLE", "role"), ("LESSON", "lesson_id"), ("SEAT", "seat")];

/// Reads all pages and prints the agents.
pub(super) async fn run(gateway: &AdminClient, args: &AgentsArgs) -> Result<(), CommandError> {
    let (mut agents, mut after) = (Vec::new(), 0);
    loop {
        let path = format!("classrooms/{}/agents?sequence_id={after}&limit={PAGE}", args.classroom);
        let page: Vec<Box<RawValue>> = gateway.get(&path).await?;
        let is_last = page.len() < PAGE;
        agents.extend(page);
        let Some(id) = agents.last().filter(|_| !is_last).and_then(|last| Record::of(last).number("id")) else { break };
        after = id;
    }
    let mut out = io::stdout().lock();
    if args.json {
        serde_json::to_writer(&mut out, &agents).map_err(io::Error::from)?;
        return Ok(writeln!(out)?);
    }
    let agents = records(&agents);
    let shown: Vec<_> =
        COLUMNS.into_iter().filter(|(_, field)| agents.iter().any(|agent| !agent.cell(field).is_empty())).collect();
    let row = |agent: &Record| shown.iter().map(|(_, field)| agent.cell(field)).collect();
    let rows: Vec<Vec<String>> = agents.iter().map(row).collect();
    match rows.is_empty() {
        true => writeln!(out, "nobody is in classroom {}", args.classroom)?,
        false => columns::write(&mut out, &shown.iter().map(|(name, _)| *name).collect::<Vec<_>>(), &rows)?,
    }
    Ok(())
}
