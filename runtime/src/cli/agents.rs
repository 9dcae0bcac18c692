//! `rollcall agents CLASSROOM` prints the agents in a classroom.
use std::io::{self, Write};

use serde_json::Value;

use super::{CommandError, admin_client::AdminClient, cell, columns};
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
        let Value::Array(page) = gateway.get(&path).await? else { break };
        let whole = page.len() < PAGE;
        after = page.last().and_then(|last| last["id"].as_i64()).unwrap_or(after);
        agents.extend(page);
        if whole {
            break;
        }
    }
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{}", Value::Array(agents))?;
        return Ok(());
    }
    let shown: Vec<_> =
        COLUMNS.into_iter().filter(|(_, field)| agents.iter().any(|agent| !agent[*field].is_null())).collect();
    let row = |agent: &Value| shown.iter().map(|(_, field)| cell(&agent[*field])).collect();
    let rows: Vec<Vec<String>> = agents.iter().map(row).collect();
    match rows.is_empty() {
        true => writeln!(out, "nobody is in classroom {}", args.classroom)?,
        false => columns::write(&mut out, &shown.iter().map(|(name, _)| *name).collect::<Vec<_>>(), &rows)?,
    }
    Ok(())
}
