//! The command line: subcommands, and a flag for every setting that may have one.
use std::{ffi::OsString, path::PathBuf, process::ExitCode, time::Duration};

use clap::{Arg, Args, CommandFactory, FromArgMatches, Parser, Subcommand};
use rollcall_schema::{Audience, ClassroomId, LessonId, Role, UserId};

use super::{Config, Environment, Fault, names};

/// `EX_CONFIG`'s neighbour `EX_USAGE`: the exit code of every faulty command line or configuration.
pub const FAULTY: u8 = 64;

/// A WebSocket gateway for classrooms: who is there, durably.
#[derive(Debug, Parser)]
#[command(name = "rollcall", version, about, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Task>,
}

/// What to do.
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
    /// Make a database fit for use that was put back from a backup; run it before any node starts
    Restored,
    /// Check the configuration and every backend, one line each
    Check,
}

/// `rollcall token`.
#[derive(Debug, Clone, Args)]
pub struct TokenArgs {
    /// Whose token
    #[arg(long)]
    pub sub: UserId,
    /// teacher, participant or hub
    #[arg(long, default_value_t)]
    pub role: Role,
    /// The audience; by default the first of ROLLCALL_AUDIENCES, else example.org
    #[arg(long)]
    pub aud: Option<Audience>,
    /// The issuer
    #[arg(long, default_value = "rollcall")]
    pub iss: String,
    /// How long it counts
    #[arg(long, default_value = "1h", value_parser = super::value::time_limit)]
    pub lifetime: Duration,
    /// The lesson to join where the client names none
    #[arg(long)]
    pub lesson_id: Option<LessonId>,
    /// Only these classrooms may be entered
    #[arg(long, value_delimiter = ',')]
    pub classroom_ids: Vec<ClassroomId>,
    /// Only these lessons may be joined
    #[arg(long, value_delimiter = ',')]
    pub lesson_ids: Vec<LessonId>,
}

/// `rollcall load`.
#[derive(Debug, Clone, Args)]
#[group(required = true, multiple = true)]
pub struct LoadArgs {
    /// lesson_id,classroom_id,seats
    #[arg(long, value_name = "FILE")]
    pub lessons: Option<PathBuf>,
    /// lesson_id,user_id,seat
    #[arg(long, value_name = "FILE")]
    pub attendees: Option<PathBuf>,
}

/// Why there is nothing to run.
#[derive(Debug)]
pub enum Stop {
    /// The command line is faulty, or asked for help.
    CommandLine(clap::Error),
    /// The configuration is faulty.
    Configuration(Vec<Fault>),
}

impl Stop {
    /// Says why, and how the process ends.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        match self {
            Self::CommandLine(error) => {
                // Where nobody can read it, the exit code has to do.
                drop(error.print());
                if error.use_stderr() { ExitCode::from(FAULTY) } else { ExitCode::SUCCESS }
            }
            Self::Configuration(faults) => {
                for fault in faults {
                    eprintln!("error: {fault}");
                }
                ExitCode::from(FAULTY)
            }
        }
    }
}

/// Reads the command line and the environment.
///
/// # Errors
/// [`Stop`], with all faults of the configuration at once.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Environment<'_>,
) -> Result<(Task, Config), Stop> {
    let matches = command().try_get_matches_from(arguments).map_err(Stop::CommandLine)?;
    let line = CommandLine::from_arg_matches(&matches).map_err(Stop::CommandLine)?;
    let command = line.command.unwrap_or_default();
    let config = Config::read(&command, &matches, environment).map_err(Stop::Configuration)?;
    Ok((command, config))
}

fn command() -> clap::Command {
    let flags = names::ALL.iter().filter_map(|setting| {
        let flag = setting.flag()?;
        let default = setting.default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
        let mut arg = Arg::new(flag.clone())
            .long(flag.clone())
            .global(true)
            .value_name("VALUE")
            .help(format!("{} [env: {}]{default}", setting.help, setting.name))
            .help_heading("Settings");
        // The variable's whole name as a flag, too: `--rollcall-listen`.
        let whole = setting.name.to_ascii_lowercase().replace('_', "-");
        if whole != flag {
            arg = arg.alias(whole);
        }
        Some(arg)
    });
    let secrets = names::ALL.iter().filter(|setting| setting.kind == names::Kind::Secret);
    let secrets = secrets.map(|setting| format!("  {:<24} {}\n", setting.name, setting.help));
    let secrets: String = secrets.collect();
    CommandLine::command().args(flags).after_help(format!(
        "Secrets, from the environment only (or NAME_FILE, naming a file):\n{secrets}\nDATABASE_URL, REDIS_URL and NATS_URL may be read from a file in the same way."
    ))
}
