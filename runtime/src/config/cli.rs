//! The command line: the subcommand, and a flag for every setting that may be a flag.
use std::{
    collections::BTreeSet,
    ffi::OsString,
    fmt,
    io::{Write, stderr},
    process::ExitCode,
};

use clap::{Arg, CommandFactory, FromArgMatches, Parser};

use super::{Config, Environment, Fault, Task, names};

/// The exit code of every invalid command line or configuration. It is the number of `EX_USAGE` in `sysexits.h`.
pub const FAULTY: u8 = 64;

/// A WebSocket gateway for classrooms: who is there, durably.
#[derive(Debug, Parser)]
#[command(name = "rollcall", version, about)]
struct CommandLine {
    #[command(subcommand)]
    command: Option<Task>,
}

/// Why there is no task to run.
#[derive(Debug)]
pub enum Stop {
    /// The command line is invalid, or asks for help.
    CommandLine(clap::Error),
    /// The configuration is invalid.
    Configuration(Vec<Fault>),
}

impl fmt::Display for Stop {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::CommandLine(error) => write!(f, "{error}"),
            Self::Configuration(faults) => {
                let faults: Vec<_> = faults.iter().map(ToString::to_string).collect();
                f.write_str(&faults.join("; "))
            }
        }
    }
}

impl Stop {
    /// Prints the reason, and returns the exit code.
    #[must_use]
    pub fn report(&self) -> ExitCode {
        match self {
            Self::CommandLine(error) => {
                // If the text cannot be printed, the exit code still reports the fault.
                drop(error.print());
                if error.use_stderr() { ExitCode::from(FAULTY) } else { ExitCode::SUCCESS }
            }
            Self::Configuration(faults) => {
                for fault in faults {
                    // If the text cannot be printed, the exit code still reports the fault.
                    drop(writeln!(stderr(), "error: {fault}"));
                }
                ExitCode::from(FAULTY)
            }
        }
    }
}

/// Reads the command line, the environment and the settings file, for a table of handlers with these events.
///
/// # Errors
/// Returns a [`Stop`] with all faults of the configuration.
pub fn parse(
    arguments: impl IntoIterator<Item = OsString>,
    environment: Environment<'_>,
    events: &BTreeSet<&'static str>,
) -> Result<(Task, Config), Stop> {
    let matches = command().try_get_matches_from(arguments).map_err(Stop::CommandLine)?;
    let line = CommandLine::from_arg_matches(&matches).map_err(Stop::CommandLine)?;
    let command = line.command.unwrap_or_default();
    let config = Config::read(&command, &matches, environment, events).map_err(Stop::Configuration)?;
    Ok((command, config))
}

/// Reads the configuration of this process at the start, and again while the process runs.
#[derive(Clone, Debug)]
pub struct Reader {
    arguments: Vec<OsString>,
    events: BTreeSet<&'static str>,
}

impl Reader {
    /// Creates a reader for a process with this command line, and with a table of handlers with these events.
    #[must_use]
    pub fn new(arguments: Vec<OsString>, events: BTreeSet<&'static str>) -> Self {
        Self { arguments, events }
    }

    /// Reads the current configuration. The environment stays the same, but files may have changed.
    ///
    /// # Errors
    /// Returns a [`Stop`] with all faults of the configuration.
    pub fn read(&self) -> Result<(Task, Config), Stop> {
        parse(self.arguments.iter().cloned(), &|name| std::env::var_os(name), &self.events)
    }
}

/// The commands whose help shows only some settings. The other settings have no effect on these commands, but may be
/// given.
const OWN_SETTINGS: &[(&str, &[names::Setting])] = &[
    ("token", &[names::CONFIG, names::DATABASE_URL, names::AUDIENCES, names::HS256_SECRET, names::LOG]),
    ("migrate", &[names::CONFIG, names::DATABASE_URL, names::LOG]),
    ("load", &[names::CONFIG, names::DATABASE_URL, names::LOG]),
    ("restored", &[names::CONFIG, names::DATABASE_URL, names::LOG]),
    ("check", CHECKED),
    ("health", &[names::CONFIG, names::ADMIN_LISTEN, names::PROBE_LISTEN, names::LOG]),
    ("agents", ASKING),
    ("attendance", ASKING),
    ("kick", ASKING),
    ("publish", ASKING),
    ("tail", ASKING),
    ("erase", ASKING),
];
/// The settings that `check` shows in its help. It reads all other settings too.
const CHECKED: &[names::Setting] = &[
    names::CONFIG,
    names::LISTEN,
    names::ADMIN_LISTEN,
    names::PROBE_LISTEN,
    names::DATABASE_URL,
    names::REDIS_URL,
    names::REDIS_PREFIX,
    names::NATS_URL,
    names::NATS_CREDS,
    names::NATS_CA_FILE,
    names::STREAM,
    names::HS256_SECRET,
    names::JWKS,
    names::TLS_CERT,
    names::TLS_KEY,
    names::LOG,
];
/// The settings of the commands that ask a running gateway.
const ASKING: &[names::Setting] =
    &[names::CONFIG, names::ADMIN, names::ADMIN_TOKEN, names::ADMIN_READ_TOKEN, names::LOG];

fn command() -> clap::Command {
    let all = |_: &names::Setting| true;
    let mut command = CommandLine::command().args(flags(all)).after_help(secrets(all));
    for (name, own) in OWN_SETTINGS {
        let is_own = |setting: &names::Setting| own.iter().any(|one| one.name == setting.name);
        command = command.mut_subcommand(name, |command| {
            let rest =
                if *name == "check" { "\n\nAll other settings are checked too; see rollcall --help." } else { "" };
            command.args(flags(is_own)).after_help(secrets(is_own) + rest)
        });
    }
    command
}

/// Returns a flag for every setting that may be a flag. Flags for which `shown` returns false are hidden.
fn flags(shown: impl Fn(&names::Setting) -> bool) -> Vec<Arg> {
    let flag = |setting: &names::Setting| {
        let flag = setting.flag()?;
        let default = setting.default.map(|default| format!(" [default: {default}]")).unwrap_or_default();
        let mut arg = Arg::new(flag.clone())
            .long(flag.clone())
            .global(true)
            .value_name("VALUE")
            .help(format!("{} [env: {}]{default}", setting.help, setting.name))
            .help_heading("Settings")
            .hide(!shown(setting));
        // The variable's whole name is a flag, too: `--rollcall-listen`.
        let whole = setting.name.to_ascii_lowercase().replace('_', "-");
        if whole != flag {
            arg = arg.alias(whole);
        }
        Some(arg)
    };
    names::ALL.iter().filter_map(flag).collect()
}

/// Returns the help about the settings that have no flag, and about those that may be in a file.
fn secrets(shown: impl Fn(&names::Setting) -> bool) -> String {
    let shown = |kind| names::ALL.iter().filter(|setting| setting.kind == kind && shown(setting)).collect::<Vec<_>>();
    let secrets: String =
        shown(names::Kind::Secret).iter().map(|setting| format!("  {:<30} {}\n", setting.name, setting.help)).collect();
    let addresses: Vec<_> = shown(names::Kind::Address).iter().map(|setting| setting.name).collect();
    let mut parts = Vec::new();
    if !secrets.is_empty() {
        parts.push(format!("Secrets, from the environment only (or a file, which NAME_FILE names):\n{secrets}"));
    }
    if !addresses.is_empty() {
        parts.push(format!("{} may be in a file in the same way: NAME_FILE.", addresses.join(", ")));
    }
    parts.join("\n")
}
