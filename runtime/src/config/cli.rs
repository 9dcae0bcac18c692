//! The command line: the subcommand, and a flag for every setting that may have one.
use std::{ffi::OsString, process::ExitCode};

use clap::{Arg, CommandFactory, FromArgMatches, Parser};

use super::{Config, Environment, Fault, Task, names};

/// `EX_CONFIG`'s neighbour `EX_USAGE`: the exit code of every faulty command line or configuration.
pub const FAULTY: u8 = 64;

/// A WebSocket gateway for classrooms: who is there, durably.
#[derive(Debug, Parser)]
#[command(name = "rollcall", version, about, disable_help_subcommand = true)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Task>,
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
    /// Prints why; returns the exit code.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        match self {
            Self::CommandLine(error) => {
                // If it cannot be printed, the exit code still tells.
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
