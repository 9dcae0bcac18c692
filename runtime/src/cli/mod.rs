//! The process: reads the configuration, then does what the command line asks for.
mod admin_client;
mod agents;
mod attendance;
pub mod check;
mod columns;
mod commands;
mod erase;
mod kick;
pub mod load;
mod log_flood;
mod publish;
mod tail;

use std::{
    io::{self, IsTerminal},
    process::ExitCode,
    time::Duration,
};

use tracing_subscriber::{EnvFilter, layer::SubscriberExt, util::SubscriberInitExt};

use self::{admin_client::AdminClient, log_flood::LogFlood};
use crate::{
    config::{self, Config, Task},
    handler::table::Table,
    node::{self, StartError},
};

/// How long blocking threads may still run at the end: one that resolves a name or reads a file may hang for ever, and
/// a drain has a deadline.
const LAST_THREADS: Duration = Duration::from_millis(100);

/// Runs `rollcall` with a table of handlers, as the command line and the environment say (PROTOCOL 7): serves until a
/// signal, or does what the subcommand asks for.
///
/// ```no_run
/// use std::process::ExitCode;
///
/// use rollcall_runtime::{HandlerError, Session, Table};
///
/// /// The request has no fields, and neither has the answer.
/// #[derive(serde::Deserialize, serde::Serialize)]
/// struct Nothing {}
///
/// async fn wave(_deps: &(), _session: &mut Session, request: Nothing) -> Result<Nothing, HandlerError> {
///     Ok(request)
/// }
///
/// /// `stock` is `rollcall::table()`.
/// fn start(stock: Table) -> ExitCode {
///     rollcall_runtime::run(stock.on("wave", |_| (), wave))
/// }
/// ```
///
/// # Panics
/// Where the system cannot start threads.
pub fn run(table: Table) -> ExitCode {
    let parsed = config::parse(std::env::args_os(), &|name| std::env::var_os(name), table.events());
    let (command, config) = match parsed {
        Ok(parsed) => parsed,
        Err(stop) => return stop.report(),
    };
    let lines = tracing_subscriber::fmt::layer()
        .with_writer(std::io::stderr)
        // Where a line cannot be written (a full disk), an error about it cannot be either, and would panic.
        .log_internal_errors(false)
        .with_ansi(std::io::stderr().is_terminal());
    let log = tracing_subscriber::registry().with(EnvFilter::new(&config.log)).with(LogFlood::default());
    log.with(lines).init();
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(config.workers).enable_all().build();
    let runtime = runtime.expect("the system gives threads");
    let result = runtime.block_on(act(command, config, table));
    runtime.shutdown_timeout(LAST_THREADS);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            ExitCode::FAILURE
        }
    }
}

async fn act(command: Task, config: Config, table: Table) -> Result<(), Box<dyn std::error::Error>> {
    match command {
        Task::Serve => node::serve(config, table).await?,
        Task::Token(args) => commands::token(&config, args)?,
        Task::Migrate => commands::migrate(&config).await?,
        Task::Load(files) => commands::load_files(&config, &files).await?,
        Task::Restored => commands::restored(&config).await?,
        Task::Check => commands::report(&config).await?,
        task => ask(&AdminClient::new(&config.admin_address), task).await?,
    }
    Ok(())
}

/// The commands that ask a running gateway.
async fn ask(gateway: &AdminClient, command: Task) -> Result<(), StartError> {
    let done = match command {
        Task::Agents(args) => agents::run(gateway, &args).await,
        Task::Attendance(args) => attendance::run(gateway, &args).await,
        Task::Kick(args) => kick::run(gateway, &args).await,
        Task::Publish(args) => publish::run(gateway, &args).await,
        Task::Tail(args) => tail::run(gateway, &args).await,
        Task::Erase(args) => erase::run(gateway, &args).await,
        Task::Serve | Task::Token(_) | Task::Migrate | Task::Load(_) | Task::Restored | Task::Check => Ok(()),
    };
    match done {
        Ok(()) => Ok(()),
        // As where the output goes to `head`.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(CommandError::Output(error)) => Err(StartError::at("the output", "make room for it")(error)),
        Err(CommandError::Gateway(error)) => Err(error),
    }
}

/// Why a command that asks a gateway failed.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// The gateway is away, or refuses.
    #[error(transparent)]
    Gateway(#[from] StartError),
    /// Its answer was not printed.
    #[error(transparent)]
    Output(#[from] io::Error),
}

/// A value of an answer, as a table shows it.
fn cell(value: &serde_json::Value) -> String {
    match value {
        serde_json::Value::Null => String::new(),
        serde_json::Value::String(text) => text.clone(),
        other => other.to_string(),
    }
}
