//! `rollcall erase --user SUB`: what is kept of a user is removed.
use std::io::{self, Write};

use serde_json::json;

use super::{CommandError, admin_client::AdminClient};
use crate::config::EraseArgs;

/// Erases the user, and prints how much there was.
pub(super) async fn run(gateway: &AdminClient, args: &EraseArgs) -> Result<(), CommandError> {
    let answer = gateway.post("erase", &json!({"user_id": args.user})).await?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    let [sessions, history, attended] = ["sessions", "history", "attended"].map(|field| &answer[field]);
    writeln!(out, "erased: {sessions} live sessions, {history} of the history, attendee of {attended} lessons")?;
    Ok(())
}
