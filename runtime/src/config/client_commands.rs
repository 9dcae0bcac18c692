//! The arguments of the commands that ask a running gateway, at its admin address.
use clap::Args;
use hyper::Uri;
use rollcall_base::Secret;
use rollcall_schema::{AgentId, ClassroomId, SessionId, UserId};

use super::{names, source::Source, value};

/// Where the gateway is, and how to be let in.
#[derive(Clone, Debug)]
pub struct AdminAddress {
    /// `http://HOST:PORT`, without a slash at its end.
    pub url: String,
    /// The admin token, or else the one that only reads.
    pub token: Option<Secret>,
}

/// `rollcall agents`.
#[derive(Debug, Clone, Args)]
pub struct AgentsArgs {
    /// The classroom
    pub classroom: ClassroomId,
    /// Print JSON, as the gateway answers
    #[arg(long)]
    pub json: bool,
}

/// `rollcall attendance`.
#[derive(Debug, Clone, Args)]
pub struct AttendanceArgs {
    /// The classroom
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

/// `rollcall kick`.
#[derive(Debug, Clone, Args)]
pub struct KickArgs {
    /// Whose sessions end
    #[command(flatten)]
    pub whom: Whom,
    /// Only those in this classroom
    #[arg(long, value_name = "UUID", conflicts_with = "session")]
    pub classroom: Option<ClassroomId>,
    /// Print JSON, as the gateway answers
    #[arg(long)]
    pub json: bool,
}

/// Whose sessions end: one of these.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = false)]
pub struct Whom {
    /// The session of this id
    #[arg(long, value_name = "ID", value_parser = session)]
    pub session: Option<SessionId>,
    /// The sessions of this agent, like web.alice.example.org
    #[arg(long, value_name = "AGENT_ID")]
    pub agent: Option<AgentId>,
    /// The sessions of this user, the sub of its tokens
    #[arg(long, value_name = "SUB")]
    pub user: Option<UserId>,
}

/// `rollcall publish`.
#[derive(Debug, Clone, Args)]
pub struct PublishArgs {
    /// classroom.UUID.NAME or lesson.ID.NAME
    pub subject: String,
    /// A JSON object, or - to read it from stdin
    pub body: String,
    /// An id of your own: a second event with it within two minutes is none
    #[arg(long)]
    pub id: Option<String>,
    /// The agent that does not get it
    #[arg(long, value_name = "AGENT_ID")]
    pub sender: Option<AgentId>,
    /// The only agent that gets it
    #[arg(long, value_name = "AGENT_ID")]
    pub receiver: Option<AgentId>,
    /// Print JSON, as the gateway answers
    #[arg(long)]
    pub json: bool,
}

/// `rollcall tail`.
#[derive(Debug, Clone, Args)]
pub struct TailArgs {
    /// The classroom
    pub classroom: ClassroomId,
    /// Begin after this offset, instead of now
    #[arg(long, value_name = "OFFSET")]
    pub after: Option<u64>,
    /// Print JSON, one event a line
    #[arg(long)]
    pub json: bool,
}

/// `rollcall erase`.
#[derive(Debug, Clone, Args)]
pub struct EraseArgs {
    /// The user, the sub of its tokens
    #[arg(long, value_name = "SUB")]
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

fn session(text: &str) -> Result<SessionId, String> {
    text.parse()
        .map(SessionId)
        .map_err(|_| "a session's id is a whole number, as `rollcall agents` lists it".to_owned())
}
