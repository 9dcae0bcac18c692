//! `rollcall tail CLASSROOM` prints a classroom's events as they arrive.
//!
//! Invariant: every event is printed once, in the order of the stream. If some events are lost, or the stream
//! is a different one, the command says so and goes on with the events from now on.
use std::{
    io::{self, IsTerminal, Write},
    time::Duration,
};

use serde::Deserialize;
use serde_json::value::RawValue;
use tokio::time::sleep;

use super::{
    CommandError,
    admin_client::{AdminClient, encoded},
    record::Record,
};
use crate::{config::TailArgs, node::StartError};

/// The pause before the next question, if no event has arrived.
const LOOK_EVERY: Duration = Duration::from_millis(500);
/// The pause before the next try, if the gateway is away.
const RETRY_AFTER: Duration = Duration::from_secs(1);

/// The answer of the gateway.
#[derive(Deserialize)]
struct Page {
    epoch: String,
    events: Vec<Box<RawValue>>,
    through: u64,
    more: bool,
}

/// Prints events until the command is interrupted or its output is closed.
pub(super) async fn run(gateway: &AdminClient, args: &TailArgs) -> Result<(), CommandError> {
    let events = format!("classrooms/{}/events", args.classroom);
    let after = args.after.map_or_else(|| "latest".to_owned(), |offset| offset.to_string());
    // The first answer shows whether address, token and offset are valid.
    let mut page: Page = gateway.get(&format!("{events}?after={after}")).await?;
    let coloured = io::stdout().is_terminal() && std::env::var_os("NO_COLOR").is_none();
    let mut away = false;
    loop {
        for event in &page.events {
            let line = if args.json { one_line(event.get()) } else { line(&Record::of(event), coloured) };
            writeln!(io::stdout(), "{line}")?;
        }
        if !page.more {
            sleep(LOOK_EVERY).await;
        }
        let mut next = format!("{events}?after={}&epoch={}", page.through, encoded(&page.epoch));
        page = loop {
            match gateway.get(&next).await {
                Ok(page) => break page,
                Err(error) if is_gone(&error) => {
                    writeln!(io::stderr(), "events are lost: going on from now")?;
                    next = format!("{events}?after=latest");
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

/// Returns JSON without line ends. A publisher may have written line ends between tokens. Within a text they are
/// escaped.
fn one_line(json: &str) -> String {
    json.replace(['\n', '\r'], " ")
}

/// Returns an event as text for people: its offset, its name, the agent, and the other fields.
fn line(event: &Record, coloured: bool) -> String {
    let body = event.record("event");
    let id = body.record("id");
    let paint = |code: &str, text: &str| {
        if coloured { format!("\x1b[{code}m{text}\x1b[0m") } else { text.to_owned() }
    };
    let offset = paint("2", &format!("{:>8}", event.cell("offset")));
    let (Some(entity), Some(operation)) = (id.text("entity_type"), id.text("operation")) else {
        return format!("{offset}  {}", one_line(event.raw("event")));
    };
    let name = format!("{entity}.{operation}");
    let colour = match name.as_str() {
        "agent.entered" => "32",
        "agent.left" => "31",
        "agent.updated" => "33",
        _ => "36",
    };
    let rest = match (entity.as_str(), body.record("payload").text("agent_id")) {
        ("agent", Some(agent)) => format!("{agent}  session {}", id.raw("sequence_id")),
        _ => one_line(body.raw("payload")),
    };
    format!("{offset}  {}  {rest}", paint(colour, &format!("{name:<13}")))
}

#[cfg(test)]
mod tests {
    use serde_json::{json, value::to_raw_value};

    use super::*;

    fn shown(event: &serde_json::Value, coloured: bool) -> String {
        line(&Record::of(&to_raw_value(event).unwrap()), coloured)
    }

    #[test]
    fn a_line_says_who_did_what() {
        let id = json!({"entity_type": "agent", "operation": "entered", "sequence_id": 2});
        let entered = json!({"offset": 12, "event": {"id": id, "payload": {"agent_id": "web.bob.example.org"}}});
        assert_eq!(shown(&entered, false), "      12  agent.entered  web.bob.example.org  session 2");
        assert!(shown(&entered, true).contains("\x1b[32magent.entered\x1b[0m"));
        let note = json!({"offset": 13, "event": {"text": "hello"}});
        assert_eq!(shown(&note, false), r#"      13  {"text":"hello"}"#);
    }

    #[test]
    fn an_event_of_any_depth_is_one_line_as_it_was_written() {
        let deep = "[".repeat(1_000) + &"]".repeat(1_000);
        let event = format!("{{\"offset\":14,\"event\":{{\n  \"n\": 1.50,\r\n \"a\":{deep}}}}}");
        let event = RawValue::from_string(event).unwrap();
        assert_eq!(line(&Record::of(&event), false), format!("      14  {{   \"n\": 1.50,   \"a\":{deep}}}"));
        assert!(!one_line(event.get()).contains(['\n', '\r']));
    }
}
