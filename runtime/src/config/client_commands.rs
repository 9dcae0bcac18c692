//! The arguments of the commands that ask a running gateway at its admin address.
use clap::Args;
use hyper::Uri;
use rollcall_base::Secret;
use rollcall_schema::{AgentId, ClassroomId, SessionId, UserId};
use serde_json::value::RawValue;

use super::{ids, names, source::Source, value};

/// The gateway's admin address, and the token for it.
#[derive(Clone, Debug)]
pub struct AdminAddress {
    /// The address `http://HOST:PORT`, without a slash at its end.
    pub url: String,
    /// The admin token, or else the token that permits only reading.
    pub token: Option<Secret>,
}

/// The arguments of `rollcall agents`.
#[derive(Debug, Clone, Args)]
pub struct AgentsArgs {
    /// The classroom
    #[arg(value_parser = ids::classroom)]
    pub classroom: ClassroomId,
    /// Print JSON, as the gateway answers
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `rollcall attendance`.
#[derive(Debug, Clone, Args)]
pub struct AttendanceArgs {
    /// The classroom
    #[arg(value_parser = ids::classroom)]
    pub classroom: ClassroomId,
    /// Without sessions that ended before, like 2026-09-01T08:00:00Z
    #[arg(long, value_name = "TIME")]
    pub from: Option<String>,
    /// Without sessions that began later
    #[arg(long, value_name = "TIME")]
    pub to: Option<String>,
    /// Print CSV
    #[arg(long)]
    pub csv: bool,
    /// Print JSON, as the gateway answers
    #[arg(long, conflicts_with = "csv")]
    pub json: bool,
}

/// The arguments of `rollcall kick`.
#[derive(Debug, Clone, Args)]
pub struct KickArgs {
    /// The sessions to end.
    #[command(flatten)]
    pub whom: Whom,
    /// Only sessions in this classroom
    #[arg(long, value_name = "UUID", value_parser = ids::classroom, conflicts_with = "session")]
    pub classroom: Option<ClassroomId>,
    /// Print JSON, as the gateway answers
    #[arg(long)]
    pub json: bool,
}

/// The sessions to end, by exactly one of these fields.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Whom {
    /// The session of this id
    #[arg(long, value_name = "ID", value_parser = session)]
    pub session: Option<SessionId>,
    /// The sessions of this agent, like web.alice.example.org
    #[arg(long, value_name = "AGENT_ID", value_parser = ids::agent)]
    pub agent: Option<AgentId>,
    /// The sessions of this user, the sub of its tokens
    #[arg(long, value_name = "SUB", value_parser = ids::user)]
    pub user: Option<UserId>,
}

/// The body of an event that is published.
#[derive(Debug, Clone)]
pub enum EventBody {
    /// A JSON object, byte for byte as it was written.
    Object(Box<RawValue>),
    /// The text of stdin.
    Stdin,
}

impl EventBody {
    /// Reads a JSON object.
    ///
    /// # Errors
    /// Returns a text that says what to write instead.
    pub fn object(text: &str) -> Result<Box<RawValue>, String> {
        let object = serde_json::from_str::<Box<RawValue>>(text).ok().filter(|value| value.get().starts_with('{'));
        object.ok_or_else(|| "write a JSON object in quotes, like '{\"text\":\"hello\"}', or - for stdin".to_owned())
    }
}

/// The arguments of `rollcall publish`.
#[derive(Debug, Clone, Args)]
pub struct PublishArgs {
    /// The subject: classroom.UUID.NAME or lesson.ID.NAME
    pub subject: String,
    /// A JSON object, or - to read it from stdin
    #[arg(value_parser = body)]
    pub body: EventBody,
    /// Your own id of the event: a second event with the same id within two minutes is dropped
    #[arg(long)]
    pub id: Option<String>,
    /// The agent that does not get the event
    #[arg(long, value_name = "AGENT_ID", value_parser = ids::agent)]
    pub sender: Option<AgentId>,
    /// The only agent that gets the event
    #[arg(long, value_name = "AGENT_ID", value_parser = ids::agent)]
    pub receiver: Option<AgentId>,
    /// Print JSON, as the gateway answers
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `rollcall tail`.
#[derive(Debug, Clone, Args)]
pub struct TailArgs {
    /// The classroom
    #[arg(value_parser = ids::classroom)]
    pub classroom: ClassroomId,
    /// Begin after this offset, instead of now
    #[arg(long, value_name = "OFFSET")]
    pub after: Option<u64>,
    /// Print JSON, one event a line
    #[arg(long)]
    pub json: bool,
}

/// The arguments of `rollcall erase`.
#[derive(Debug, Clone, Args)]
pub struct EraseArgs {
    /// The user, the sub of its tokens
    #[arg(long, value_name = "SUB", value_parser = ids::user)]
    pub user: UserId,
    /// Print JSON, as the gateway answers
    #[arg(long)]
    pub json: bool,
}

impl AdminAddress {
    pub(super) fn read(source: &mut Source<'_>) -> Self {
        let url: Uri = source.value(&names::ADMIN, value::http);
        let token = source.secret(&names::ADMIN_TOKEN).or_else(|| source.secret(&names::ADMIN_READ_TOKEN));
        Self { url: url.to_string().trim_end_matches('/').to_owned(), token }
    }
}

fn body(text: &str) -> Result<EventBody, String> {
    if text == "-" { Ok(EventBody::Stdin) } else { EventBody::object(text).map(EventBody::Object) }
}

fn session(text: &str) -> Result<SessionId, String> {
    text.parse()
        .map(SessionId)
        .map_err(|_| "a session's id is a whole number, as `rollcall agents` lists it".to_owned())
}
