//! A gateway in a process of its own, which is started and ended as operators do it.

use std::ffi::OsString;
use std::io;
use std::net::{Ipv4Addr, SocketAddr};
use std::path::{Path, PathBuf};
use std::process::{Command, ExitStatus};
use std::time::Duration;

use nix::sys::signal::Signal;
use serde_json::Value;

use crate::admin;
use crate::servers::{Process, all_output, free_port, output, private_folder};
use crate::token;
use crate::wait::poll;

const START_LIMIT: Duration = Duration::from_secs(20);
const PORT_ATTEMPTS: usize = 5;
/// How many lines of a gateway's output are shown if a test fails.
const LINES_OF_FAILURE: usize = 60;

/// Variables of the tests' environment that a gateway must not get.
const CONFIGURATION: [&str; 8] =
    ["ROLLCALL_", "OTEL_", "DATABASE_URL", "REDIS_URL", "NATS_URL", "HTTPS_PROXY", "HTTP_PROXY", "NO_PROXY"];

/// How to start a gateway.
#[derive(Debug, Clone)]
pub struct GatewayOptions {
    binary: PathBuf,
    arguments: Vec<OsString>,
    environment: Vec<(String, String)>,
}

impl GatewayOptions {
    /// Options of an embedded gateway of this binary, with the secret of [`token`]. Its database is a file that is
    /// deleted with the [`Gateway`].
    #[must_use]
    pub fn new(binary: impl Into<PathBuf>) -> Self {
        Self {
            binary: binary.into(),
            arguments: Vec::new(),
            environment: vec![("ROLLCALL_HS256_SECRET".to_owned(), token::SECRET.to_owned())],
        }
    }

    /// Sets a variable of PROTOCOL 7 (`DATABASE_URL`, `REDIS_URL`, ...).
    #[must_use]
    pub fn env(mut self, name: &str, value: impl ToString) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self.environment.push((name.to_owned(), value.to_string()));
        self
    }

    /// Removes a variable, for example the secret.
    #[must_use]
    pub fn without(mut self, name: &str) -> Self {
        self.environment.retain(|(known, _)| known != name);
        self
    }

    /// Adds an argument of the command line.
    #[must_use]
    pub fn arg(mut self, argument: impl Into<OsString>) -> Self {
        self.arguments.push(argument.into());
        self
    }

    /// Returns the command with these options, also for verbs other than `serve`.
    #[must_use]
    pub fn command(&self) -> Command {
        let mut command = Command::new(&self.binary);
        for (name, _) in std::env::vars_os() {
            let known = name.to_string_lossy();
            if CONFIGURATION.iter().any(|prefix| known.starts_with(prefix)) {
                command.env_remove(name);
            }
        }
        command.args(&self.arguments).envs(self.environment.iter().map(|(name, value)| (name, value)));
        command
    }
}

/// A running gateway. It ends when this value is dropped, or with this process.
pub struct Gateway {
    options: GatewayOptions,
    ports: (u16, u16),
    addresses: (SocketAddr, SocketAddr),
    process: Process,
    folder: tempfile::TempDir,
}

impl Gateway {
    /// Starts a gateway and waits until it has printed its addresses.
    ///
    /// # Errors
    /// Returns an error with the gateway's output if the gateway ends or prints no addresses.
    pub fn start(options: GatewayOptions) -> io::Result<Self> {
        let folder = private_folder("gateway")?;
        let (ports, (process, addresses)) = launch_on_free_ports(&options, folder.path())?;
        Ok(Self { options, ports, addresses, process, folder })
    }

    /// Kills the gateway if it still runs, and starts it again at the same addresses in the same folder.
    ///
    /// # Errors
    /// Returns an error if the gateway does not start.
    pub fn restart(&mut self) -> io::Result<()> {
        self.process.kill()?;
        let (process, addresses) = launch(&self.options, self.ports, self.folder.path())?;
        self.process = process;
        self.addresses = addresses;
        Ok(())
    }

    /// Restarts the gateway with changed options.
    ///
    /// # Errors
    /// Returns an error if the gateway does not start.
    pub fn restart_with(&mut self, change: impl FnOnce(GatewayOptions) -> GatewayOptions) -> io::Result<()> {
        self.options = change(self.options.clone());
        self.restart()
    }

    /// Returns the address for clients.
    #[must_use]
    pub fn address(&self) -> SocketAddr {
        self.addresses.0
    }

    /// Returns the admin address, with /metrics and /api.
    #[must_use]
    pub fn admin(&self) -> SocketAddr {
        self.addresses.1
    }

    /// Returns the process id. It changes with each restart.
    #[must_use]
    pub fn pid(&self) -> u32 {
        self.process.pid()
    }

    /// Returns the working directory. It holds the database of an embedded gateway.
    #[must_use]
    pub fn folder(&self) -> &Path {
        self.folder.path()
    }

    /// Returns the output since the last start.
    #[must_use]
    pub fn output(&self) -> String {
        output(self.folder.path())
    }

    /// Returns the output since the first start.
    #[must_use]
    pub fn all_output(&self) -> String {
        all_output(self.folder.path())
    }

    /// Returns a value that prints the gateway's last lines when it is dropped in a test that fails.
    #[must_use]
    pub fn log_of_failure(&self) -> LogOfFailure<'_> {
        LogOfFailure(self)
    }

    /// Asks the gateway to drain (SIGTERM).
    ///
    /// # Errors
    /// Returns an error if the kernel refuses.
    pub fn terminate(&self) -> io::Result<()> {
        self.process.signal(Signal::SIGTERM)
    }

    /// Asks the gateway to read its settings again (SIGHUP).
    ///
    /// # Errors
    /// Returns an error if the kernel refuses.
    pub fn hang_up(&self) -> io::Result<()> {
        self.process.signal(Signal::SIGHUP)
    }

    /// Waits until the gateway has ended.
    ///
    /// # Errors
    /// Returns an error if the gateway still runs after `limit`.
    pub fn wait(&mut self, limit: Duration) -> io::Result<ExitStatus> {
        self.process.wait(limit, "the gateway's end")
    }

    /// Kills the gateway (SIGKILL).
    ///
    /// # Errors
    /// Returns an error if the kernel refuses.
    pub fn kill(&mut self) -> io::Result<()> {
        self.process.kill()
    }

    /// Stops the gateway (SIGSTOP).
    ///
    /// # Errors
    /// Returns an error if the gateway does not run.
    pub fn pause(&self) -> io::Result<()> {
        self.process.pause()
    }

    /// Lets the gateway go on after [`pause`](Self::pause).
    ///
    /// # Errors
    /// Returns an error if the gateway does not run.
    pub fn resume(&self) -> io::Result<()> {
        self.process.resume()
    }

    /// Sends a GET to the admin address. Returns the status and the body.
    ///
    /// # Errors
    /// Returns an error if no answer comes.
    pub fn get(&self, path: &str) -> io::Result<(u16, String)> {
        admin::get(self.admin(), path)
    }

    /// Sends a POST with a JSON body to the admin address. Returns the status and the body.
    ///
    /// # Errors
    /// Returns an error if no answer comes.
    pub fn post(&self, path: &str, body: &Value) -> io::Result<(u16, String)> {
        admin::post(self.admin(), path, body)
    }

    /// Returns the sum of all series of this name in /metrics whose labels contain each of `labels` (`outcome="ok"`);
    /// zero if there is no such series.
    ///
    /// # Errors
    /// Returns an error if no answer comes.
    pub fn metric(&self, name: &str, labels: &[&str]) -> io::Result<f64> {
        let (_, text) = self.get("/metrics")?;
        let matching = text.lines().filter_map(|line| {
            let (series, value) = line.rsplit_once(' ')?;
            let rest = series.strip_prefix(name)?;
            let whole_name = rest.is_empty() || rest.starts_with('{');
            let all = labels.iter().all(|label| rest.contains(label));
            (whole_name && all).then(|| value.parse::<f64>().ok())?
        });
        Ok(matching.sum())
    }

    /// Polls [`metric`](Self::metric) until it has the value that a test waits for.
    ///
    /// # Errors
    /// Returns an error if the metric does not have the value within `limit`.
    pub fn wait_for_metric(
        &self,
        name: &str,
        labels: &[&str],
        limit: Duration,
        wanted: impl Fn(f64) -> bool,
    ) -> io::Result<f64> {
        poll(limit, name, || {
            let value = self.metric(name, labels)?;
            Ok(wanted(value).then_some(value))
        })
    }
}

impl Drop for Gateway {
    fn drop(&mut self) {
        drop(self.log_of_failure());
    }
}

/// Prints the last lines of a gateway when a test fails. They are the only way to understand a failure that does not
/// occur again.
pub struct LogOfFailure<'a>(&'a Gateway);

impl Drop for LogOfFailure<'_> {
    fn drop(&mut self) {
        if std::thread::panicking() {
            let output = self.0.output();
            let lines: Vec<&str> = output.lines().rev().take(LINES_OF_FAILURE).collect();
            println!("gateway {}:", self.0.address());
            lines.iter().rev().for_each(|line| println!("  {line}"));
        }
    }
}

type Launched = (Process, (SocketAddr, SocketAddr));

/// The ports are fixed, so that a gateway has the same addresses after a restart.
fn launch_on_free_ports(options: &GatewayOptions, folder: &Path) -> io::Result<((u16, u16), Launched)> {
    let mut attempt = 1;
    loop {
        let ports = (free_port()?, free_port()?);
        match launch(options, ports, folder) {
            Ok(launched) => return Ok((ports, launched)),
            Err(error) if attempt == PORT_ATTEMPTS || !lost_port(&error) => return Err(error),
            Err(_) => attempt += 1,
        }
    }
}

fn launch(options: &GatewayOptions, ports: (u16, u16), folder: &Path) -> io::Result<Launched> {
    let local = |port| SocketAddr::from((Ipv4Addr::LOCALHOST, port)).to_string();
    let mut command = options.command();
    for (name, port) in [("ROLLCALL_LISTEN", ports.0), ("ROLLCALL_ADMIN_LISTEN", ports.1)] {
        if !options.environment.iter().any(|(known, _)| known == name) {
            command.env(name, local(port));
        }
    }
    let mut process = Process::spawn(command, folder)?;
    let failed = |how: &str| io::Error::other(format!("the gateway {how}:\n{}", output(folder)));
    let addresses = poll(START_LIMIT, "the gateway's addresses", || {
        // The process is checked before its output is read, so that the last lines of a process that ended are not
        // missed.
        let ended = process.ended()?;
        let printed = output(folder);
        let public = printed_address(&printed, "listening on ");
        let admin = printed_address(&printed, "admin on ");
        match (public.zip(admin), ended) {
            (_, Some(status)) => Err(failed(&format!("ended with {status}"))),
            (found, None) => Ok(found),
        }
    });
    match addresses {
        Ok(addresses) => Ok((process, addresses)),
        Err(error) if error.kind() == io::ErrorKind::TimedOut => Err(failed("did not say where it listens")),
        Err(error) => Err(error),
    }
}

fn printed_address(output: &str, label: &str) -> Option<SocketAddr> {
    let (_, after) = output.split_once(label)?;
    // The end of the line may not be written yet.
    let (line, _) = after.split_once('\n')?;
    line.split_whitespace().next()?.parse().ok()
}

fn lost_port(error: &io::Error) -> bool {
    error.to_string().to_lowercase().contains("in use")
}
