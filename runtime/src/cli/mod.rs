//! The process: reads the configuration, then does what the command line asks for.
mod admin_client;
mod agents;
mod attendance;
pub mod check;
mod columns;
mod commands;
mod erase;
mod health;
mod kick;
pub mod load;
mod publish;
mod record;
mod tail;

use std::{io, process::ExitCode, time::Duration};

use tokio::runtime::Handle;

use self::admin_client::AdminClient;
use crate::{
    config::{Config, Reader, Task, misspelt},
    handler::table::Table,
    log::{self, LogFilter, LogFormat, SpanLayer},
    node::{self, StartError},
    trace_export::TraceExport,
};

/// How long blocking threads may still run at the end. A thread that resolves a name or reads a file may hang for ever,
/// and a drain has a deadline.
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
/// Panics if the system cannot start threads.
pub fn run(table: Table) -> ExitCode {
    let reader = Reader::new(std::env::args_os().collect(), table.events().clone());
    let (command, config) = match reader.read() {
        Ok(read) => read,
        Err(stop) => return stop.report(),
    };
    let runtime = tokio::runtime::Builder::new_multi_thread().worker_threads(config.workers).enable_all().build();
    let runtime = runtime.expect("the system gives threads");
    let (export, spans) = match export(&config, &command, runtime.handle()) {
        Ok(started) => started.unzip(),
        Err(error) => {
            log::last_line(config.log_format, &error);
            return ExitCode::FAILURE;
        }
    };
    let serves = matches!(command, Task::Serve);
    // The output of other commands is for the people who type them.
    let format = if serves { config.log_format } else { LogFormat::Text };
    let log = log::init(&config.log, format, spans);
    if serves {
        warn_of(&config);
    }
    let result = runtime.block_on(act(command, config, table, reader, log));
    // The runtime sends the remaining spans.
    export.into_iter().for_each(TraceExport::finish);
    runtime.shutdown_timeout(LAST_THREADS);
    match result {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            log::last_line(format, &*error);
            ExitCode::FAILURE
        }
    }
}

/// Warns of settings that were asked for and have no effect.
fn warn_of(config: &Config) {
    for (variable, advice) in misspelt(std::env::vars_os()) {
        tracing::warn!(variable, "{advice}");
    }
    if let Some(advice) = &config.access.too_few_files {
        tracing::warn!("{advice}");
    }
}

/// Begins to export spans if the configuration asks for traces.
fn export(config: &Config, command: &Task, runtime: &Handle) -> Result<Option<(TraceExport, SpanLayer)>, StartError> {
    let traces = config.traces.clone().filter(|_| matches!(command, Task::Serve));
    let Some(traces) = traces else { return Ok(None) };
    let started = TraceExport::start(traces, &node::egress(&config.egress)?, runtime);
    let hint = "correct OTEL_EXPORTER_OTLP_ENDPOINT";
    started.map(Some).map_err(StartError::at("the export of spans", hint))
}

async fn act(
    command: Task,
    config: Config,
    table: Table,
    reader: Reader,
    log: LogFilter,
) -> Result<(), Box<dyn std::error::Error>> {
    let done = match command {
        Task::Serve => return Ok(node::serve(config, table, reader, log).await?),
        Task::Token(args) => commands::token(&config, args),
        Task::Migrate => commands::migrate(&config).await,
        Task::Load(files) => commands::load_files(&config, &files).await,
        Task::Restored => commands::restored(&config).await,
        Task::Check => commands::report(&config).await,
        Task::Health(args) => health::run(&config, &args).await,
        task => ask(&AdminClient::new(&config.admin_address, &node::egress(&config.egress)?), task).await,
    };
    match done {
        // The reader has closed the output, as `head` does.
        Err(CommandError::Output(error)) if error.kind() == io::ErrorKind::BrokenPipe => Ok(()),
        Err(CommandError::Output(error)) => Err(StartError::at("the output", "make room for it")(error).into()),
        Err(CommandError::Failed(error)) => Err(error.into()),
        Ok(()) => Ok(()),
    }
}

/// Runs the commands that ask a running gateway.
async fn ask(gateway: &AdminClient, command: Task) -> Result<(), CommandError> {
    match command {
        Task::Agents(args) => agents::run(gateway, &args).await,
        Task::Attendance(args) => attendance::run(gateway, &args).await,
        Task::Kick(args) => kick::run(gateway, &args).await,
        Task::Publish(args) => publish::run(gateway, &args).await,
        Task::Tail(args) => tail::run(gateway, &args).await,
        Task::Erase(args) => erase::run(gateway, &args).await,
        Task::Serve
        | Task::Token(_)
        | Task::Migrate
        | Task::Load(_)
        | Task::Restored
        | Task::Check
        | Task::Health(_) => Ok(()),
    }
}

/// Why a command failed.
#[derive(Debug, thiserror::Error)]
enum CommandError {
    /// The command was not carried out.
    #[error(transparent)]
    Failed(#[from] StartError),
    /// The command was carried out, but its output could not be printed.
    #[error(transparent)]
    Output(#[from] io::Error),
}
