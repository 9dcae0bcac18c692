//! `rollcall erase --user SUB` removes the data of a user.
use std::io::{self, Write};

use serde_json::{json, value::RawValue};

use super::{CommandError, admin_client::AdminClient, record::Record};
use crate::config::EraseArgs;

/// Erases the user's data, and prints how much was removed.
pub(super) async fn run(gateway: &AdminClient, args: &EraseArgs) -> Result<(), CommandError> {
    let answer: Box<RawValue> = gateway.post("erase", &json!({"user_id": args.user})).await?;
    let mut out = io::stdout().lock();
    if args.json {
        writeln!(out, "{answer}")?;
        return Ok(());
    }
    let [sessions, history, attended] =
        ["sessions", "history", "attended"].map(|field| Record::of(&answer).cell(field));
    writeln!(out, "erased: {sessions} live sessions, {history} of the history, attendee of {attended} lessons")?;
    Ok(())
}
