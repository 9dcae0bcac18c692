//! `rollcall publish SUBJECT BODY` publishes an event as another service would.
use std::{
    collections::BTreeMap,
    io::{self, Read, Write},
};

use serde::Serialize;
use serde_json::value::RawValue;

use super::{CommandError, admin_client::AdminClient, record::Record};
use crate::{
    config::{EventBody, PublishArgs},
    node::StartError,
};

/// The event as it is sent. Its body is sent byte for byte as it was written.
#[derive(Serialize)]
struct Event<'a> {
    subject: &'a str,
    body: &'a RawValue,
    id: Option<&'a str>,
    headers: BTreeMap<&'static str, String>,
}

/// Publishes the event, and prints its offset.
pub(super) async fn run(gateway: &AdminClient, args: &PublishArgs) -> Result<(), CommandError> {
    let body = match &args.body {
        EventBody::Object(body) => body.clone(),
        EventBody::Stdin => {
            let mut text = String::new();
            io::stdin().read_to_string(&mut text)?;
            EventBody::object(&text).map_err(StartError::at("stdin", "correct what it is given"))?
        }
    };
    let agents = [("Sender-Agent-Id", &args.sender), ("Receiver-Agent-Id", &args.receiver)];
    let headers = agents.into_iter().filter_map(|(name, agent)| Some((name, agent.as_ref()?.to_string()))).collect();
    let event = Event { subject: &args.subject, body: &body, id: args.id.as_deref(), headers };
    let answer: Box<RawValue> = gateway.post("publish", &event).await?;
    let mut out = io::stdout().lock();
    match args.json {
        true => writeln!(out, "{answer}")?,
        false => writeln!(out, "stored at offset {}", Record::of(&answer).raw("offset"))?,
    }
    Ok(())
}
