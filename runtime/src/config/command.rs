//! The subcommands and their arguments.
use std::{path::PathBuf, time::Duration};

use clap::{
    Args, Subcommand,
    builder::{PossibleValuesParser, TypedValueParser},
};
use rollcall_schema::{Audience, ClassroomId, JsonObject, LessonId, Role, UserId};

use super::{
    client_commands::{AgentsArgs, AttendanceArgs, EraseArgs, KickArgs, PublishArgs, TailArgs},
    ids,
};

/// What the process does.
#[derive(Debug, Clone, Default, Subcommand)]
pub enum Task {
    /// Run the gateway (the default)
    #[default]
    Serve,
    /// Print a token signed with ROLLCALL_HS256_SECRET, or with the development secret
    Token(TokenArgs),
    /// Bring the database's tables up to date
    Migrate,
    /// Load lessons and attendees from CSV files; all of it or nothing
    Load(LoadArgs),
    /// Prepare a database that was restored from a backup; run it before any node starts
    Restored,
    /// Check the configuration and every backend, one line each
    Check,
    /// Ask the gateway in this container or on this machine whether it lives
    Health(HealthArgs),
    /// List who is in a classroom
    Agents(AgentsArgs),
    /// List when each agent entered a classroom, when it left, and why
    Attendance(AttendanceArgs),
    /// End sessions
    Kick(KickArgs),
    /// Publish an event
    Publish(PublishArgs),
    /// Print a classroom's events as they come
    Tail(TailArgs),
    /// Remove what is kept of a user: sessions, history, attendees and keys
    Erase(EraseArgs),
}

/// The arguments of `rollcall token`.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// The user
    #[arg(long, value_parser = ids::user)]
    pub sub: UserId,
    /// Who the user is in a lesson
    #[arg(long, default_value_t, value_parser = role())]
    pub role: Role,
    /// The audience; by default the first of ROLLCALL_AUDIENCES, else example.org
    #[arg(long, value_parser = super::value::audience)]
    pub aud: Option<Audience>,
    /// The issuer
    #[arg(long, default_value = "rollcall")]
    pub iss: String,
    /// How long the token is valid
    #[arg(long, default_value = "1h", value_parser = super::value::time_limit)]
    pub lifetime: Duration,
    /// The lesson to join if the client names none
    #[arg(long, value_parser = ids::lesson)]
    pub lesson_id: Option<LessonId>,
    /// Only these classrooms may be entered, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = ids::classroom)]
    pub classroom_ids: Vec<ClassroomId>,
    /// Only these lessons may be joined, separated by commas
    #[arg(long, value_delimiter = ',', value_parser = ids::lesson)]
    pub lesson_ids: Vec<LessonId>,
    /// What everybody in the classroom is told of the user: a JSON object of at most 1024 bytes
    #[arg(long, value_parser = JsonObject::parse)]
    pub info: Option<JsonObject>,
}

/// The arguments of `rollcall load`.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub struct LoadArgs {
    /// A CSV file with the columns lesson_id,classroom_id,seats
    #[arg(long, value_name = "FILE")]
    pub lessons: Option<PathBuf>,
    /// A CSV file with the columns lesson_id,user_id,seat
    #[arg(long, value_name = "FILE")]
    pub attendees: Option<PathBuf>,
}

/// The arguments of `rollcall health`.
#[derive(Debug, Clone, Args)]
pub struct HealthArgs {
    /// Ask whether the gateway is ready for clients, instead of whether it runs
    #[arg(long)]
    pub ready: bool,
}

/// Returns a parser of roles whose error names the valid roles.
fn role() -> impl TypedValueParser<Value = Role> {
    let roles = [Role::Teacher, Role::Participant, Role::Hub].map(Role::as_str);
    PossibleValuesParser::new(roles).try_map(|text| text.parse::<Role>())
}

impl Task {
    /// Returns whether the task checks or signs tokens.
    pub(super) fn needs_keys(&self) -> bool {
        matches!(self, Self::Serve | Self::Check | Self::Token(_))
    }

    /// Returns whether the task serves the operators' address, or checks how it would be served.
    pub(super) fn needs_admin(&self) -> bool {
        matches!(self, Self::Serve | Self::Check)
    }
}
