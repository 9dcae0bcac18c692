//! `rollcall kick` ends sessions.
use std::io::{self, Write};

use serde_json::{json, value::RawValue};

use super::{
    CommandError,
    admin_client::AdminClient,
    columns,
    record::{Record, records},
};
use crate::config::{KickArgs, Whom};

/// Ends the sessions, and prints those that ended.
pub(super) async fn run(gateway: &AdminClient, args: &KickArgs) -> Result<(), CommandError> {
    let KickArgs { whom: Whom { session, agent, user }, classroom, .. } = args;
    let mut body = match (session, agent) {
        (Some(session), _) => json!({"session_id": session}),
        (None, Some(agent)) => json!({"agent_id": agent}),
        (None, None) => json!({"user_id": user}),
    };
    if let Some(classroom) = classroom {
        body["classroom_id"] = json!(classroom);
    }
    let answer: Box<RawValue> = gateway.post("disconnect", &body).await?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    let row = |ended: &Record| ["session_id", "agent_id", "classroom_id"].map(|field| ended.cell(field)).to_vec();
    let rows: Vec<_> = records(&Record::of(&answer).list("ended")).iter().map(row).collect();
    match rows.is_empty() {
        true => writeln!(out, "there was no such session")?,
        false => columns::write(&mut out, &["ENDED", "AGENT", "CLASSROOM"], &rows)?,
    }
    Ok(())
}
