//! `rollcall tail CLASSROOM` prints a classroom's events as they arrive.
//!
//! Invariant: every event is printed once, in the order of the stream. If some events are gone for good, or the stream
//! is a different one, the command says so and goes on with the events from now on.
use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use serde_json::Value;
use tokio::time::sleep;

use super::{
    CommandError,
    admin_client::{AdminClient, encoded},
};
use crate::{config::TailArgs, node::StartError};

/// The pause before the next question, if no event has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The pause before the next try, if the gateway is away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// Prints events until the command is interrupted or its output is closed.
pub(super) async fn run(gateway: &AdminClient, args: &TailArgs) -> Result<(), CommandError> {
    let events = format!("classrooms/{}/events", args.classroom);
    let after = args.after.map_or_else(|| "latest".to_owned(), |offset| offset.to_string());
    // The first answer shows whether address, token and offset are valid.
    let mut page = gateway.get(&format!("{events}?after={after}")).await?;
    let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut away = false;
    loop {
        for event in page["events"].as_array().into_iter().flatten() {
            let line = if args.json { event.to_string() } else { line(event, coloured) };
            writeln!(io::stdout(), "{line}")?;
        }
        if page["more"] != true {
            sleep(LOOK_EVERY).await;
        }
        let epoch = encoded(page["epoch"].as_str().unwrap_or_default());
        page = loop {
            match gateway.get(&format!("{events}?after={}&epoch={epoch}", page["through"])).await {
                Ok(page) => break page,
                Err(error) if is_gone(&error) => {
                    writeln!(io::stderr(), "events are gone for good: going on from now")?;
                    break gateway.get(&format!("{events}?after=latest")).await?;
                }
                Err(error) => {
                    if !std::mem::replace(&mut away, true) {
                        writeln!(io::stderr(), "{error}\n  going on when it is back")?;
                    }
                    sleep(RETRY_AFTER).await;
                }
            }
        };
        away = false;
    }
}

fn is_gone(error: &StartError) -> bool {
    error.why.starts_with("410")
}

/// Returns an event as text for people: its offset, its name, the agent, and the other fields.
fn line(event: &Value, coloured: bool) -> String {
    let (offset, body) = (&event["offset"], &event["event"]);
    let id = &body["id"];
    let paint = |code: &str, text: &str| {
        if coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let offset = paint("2", &format!("{:>8}", offset.to_string()));
    let (Some(entity), Some(operation)) = (id["entity_type"].as_str(), id["operation"].as_str()) else {
        return format!("{offset}  {body}");
    };
    let name = format!("{entity}.{operation}");
    let colour = match name.as_str() {
        "agent.entered" => "32",
        "agent.left" => "31",
        "agent.updated" => "33",
        _ => "36",
    };
    let payload = &body["payload"];
    let rest = match (entity, payload["agent_id"].as_str()) {
        ("agent", Some(agent)) => format!("{agent}  session {}", id["sequence_id"]),
        _ => payload.to_string(),
    };
    format!("{offset}  {}  {rest}", paint(colour, &format!("{name:<13}")))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn a_line_says_who_did_what() {
        let id = json!({"entity_type": "agent", "operation": "entered", "sequence_id": 2});
        let entered = json!({"offset": 12, "event": {"id": id, "payload": {"agent_id": "web.bob.example.org"}}});
        assert_eq!(line(&entered, false), "      12  agent.entered  web.bob.example.org  session 2");
        assert!(line(&entered, true).contains("\x1b[32magent.entered\x1b[0m"));
        let note = json!({"offset": 13, "event": {"text": "hello"}});
        assert_eq!(line(&note, false), r#"      13  {"text":"hello"}"#);
    }
}
