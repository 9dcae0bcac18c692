//! `rollcall publish SUBJECT BODY` publishes an event as another service would.
use std::io::{self, Read, Write};

use serde_json::{Value, json};

use super::{CommandError, admin_client::AdminClient};
use crate::{config::PublishArgs, node::StartError};

/// Publishes the event, and prints its offset.
pub(super) async fn run(gateway: &AdminClient, args: &PublishArgs) -> Result<(), CommandError> {
    let text = match args.body.as_str() {
        "-" => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            text
        }
        body => body.to_owned(),
    };
    let hint = "write an object in quotes, like '{\"text\":\"hello\"}', or - to read it from stdin";
    let body: Value = serde_json::from_str(&text).map_err(StartError::at("the body is no JSON", hint))?;
    let agents = [("Sender-Agent-Id", &args.sender), ("Receiver-Agent-Id", &args.receiver)];
    let headers: serde_json::Map<String, Value> =
        agents.into_iter().filter_map(|(name, agent)| Some((name.to_owned(), json!(agent.as_ref()?)))).collect();
    let event = json!({"subject": args.subject, "body": body, "id": args.id, "headers": headers});
    let answer = gateway.post("publish", &event).await?;
    let mut out = io::stdout().lock();
    match args.json {
        true => writeln!(out, "{answer}")?,
        false => writeln!(out, "stored at offset {}", answer["offset"])?,
    }
    Ok(())
}
