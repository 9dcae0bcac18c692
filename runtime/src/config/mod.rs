//! Configuration: the command line, the environment and the settings file, read into the options of each part (PROTOCOL
//! 7). The parts do not use this module.
//!
//! Invariant: a [`Config`] has no contradictions. Secrets in it are printed as dots.
mod access;
mod address;
mod backends;
mod changes;
mod cli;
mod client_commands;
mod command;
mod connections;
mod egress;
mod functions;
pub mod ids;
mod keys;
mod lines;
pub mod names;
mod nats;
mod origin;
mod settings_file;
mod source;
mod spelling;
mod traces;
mod value;
mod webhook;

#[cfg(test)]
mod table_tests;
#[cfg(test)]
mod tests;

use std::{collections::BTreeSet, net::SocketAddr, time::Duration};

use clap::ArgMatches;

pub use access::AccessConfig;
pub use backends::{BackendsConfig, Database};
pub use changes::Changes;
pub use cli::{FAULTY, Reader, Stop, parse};
pub use client_commands::{
    AdminAddress, AgentsArgs, AttendanceArgs, EraseArgs, EventBody, KickArgs, PublishArgs, TailArgs, Whom,
};
pub use command::{HealthArgs, LoadArgs, Task, TokenArgs};
pub use connections::LimitsConfig;
pub use keys::TokenKeys;
pub use origin::{Origin, SettingInUse};
pub use source::{Environment, Fault};
pub use spelling::misspelt;

use crate::{
    functions::FunctionsConfig, http::access::Access, http_client::egress::EgressOptions, log::LogFormat,
    mixpanel::MixpanelConfig, trace_export::TraceConfig, webhook::WebhookOptions,
};
use rollcall_websocket::certificate::TlsFiles;
use source::Source;

/// The shortest lease. A heartbeat and its answer must be possible several times within a lease.
const MIN_LEASE: Duration = Duration::from_millis(500);

/// The shortest token for operators, in bytes. Only its length protects it, because wrong guesses never lock anybody
/// out.
const MIN_ADMIN_TOKEN: usize = 16;

/// The node's lease, and how the node drains.
#[derive(Clone, Copy, Debug)]
pub struct PresenceConfig {
    /// How long a node counts as alive without a heartbeat.
    pub lease: Duration,
    /// How long a node that is about to end still accepts connections.
    pub drain_delay: Duration,
    /// How long a shutdown may take after that time.
    pub drain_deadline: Duration,
    /// The time over which a shutdown spreads its messages to clients.
    pub drain_spread: Duration,
}

/// The whole configuration.
#[derive(Clone, Debug)]
pub struct Config {
    /// The address for clients.
    pub listen: SocketAddr,
    /// The address for operators.
    pub admin_listen: SocketAddr,
    /// The address for probes. `None` if probes use the operators' address.
    pub probe_listen: Option<SocketAddr>,
    /// This node's name if it is configured.
    pub node_label: Option<String>,
    /// Who may use the operators' address.
    pub admin: Access,
    /// The address of the gateway that commands ask.
    pub admin_address: AdminAddress,
    /// SQL database, Redis and NATS.
    pub backends: BackendsConfig,
    /// The keys that tokens are checked with.
    pub keys: TokenKeys,
    /// Whether clients may connect without a token.
    pub guests: bool,
    /// The certificate. `None` if clients connect without TLS.
    pub tls: Option<TlsFiles>,
    /// The lease and the drain.
    pub presence: PresenceConfig,
    /// How the gateway sends its own requests.
    pub egress: EgressOptions,
    /// Who may connect, and how often.
    pub access: AccessConfig,
    /// The limits of each connection.
    pub limits: LimitsConfig,
    /// The number of worker threads.
    pub workers: usize,
    /// The functions over HTTP if there are any.
    pub functions: Option<FunctionsConfig>,
    /// How long the history keeps a session. `None` if it keeps sessions for ever.
    pub history_retention: Option<Duration>,
    /// The webhook. `None` if no events are posted.
    pub webhook: Option<WebhookOptions>,
    /// Mixpanel. `None` if no statistics are sent.
    pub mixpanel: Option<MixpanelConfig>,
    /// The filter of the log.
    pub log: String,
    /// The format of a log line.
    pub log_format: LogFormat,
    /// The collector of spans. `None` if no spans are recorded.
    pub traces: Option<TraceConfig>,
    /// Every setting with its value and its origin.
    pub settings: Vec<SettingInUse>,
}

impl Config {
    fn read(
        task: &Task,
        flags: &ArgMatches,
        environment: Environment<'_>,
        events: &BTreeSet<&'static str>,
    ) -> Result<Self, Vec<Fault>> {
        let mut source = Source::new(flags, environment);
        let listen = source.value(&names::LISTEN, value::address);
        let admin_listen = source.value(&names::ADMIN_LISTEN, value::address);
        let mut backends = BackendsConfig::read(&mut source);
        let webhook = webhook::webhook(&mut source, &backends);
        // With NATS, the events are in its stream.
        backends.keep_published = webhook.is_some() && backends.nats.is_none();
        let functions = functions::read(&mut source, events);
        let requests = functions.iter().flat_map(|config| &config.functions).map(|function| function.concurrency).sum();
        let access = AccessConfig::read(&mut source, requests);
        let client_traces = traces::of_clients(&mut source);
        let config = Self {
            keys: TokenKeys::read(&mut source, task.needs_keys(), listen, &backends.database),
            probe_listen: source.optional(&names::PROBE_LISTEN, value::address),
            node_label: source.optional(&names::NODE_LABEL, value::node_label),
            admin: admin(&mut source),
            admin_address: AdminAddress::read(&mut source),
            guests: source.value(&names::GUESTS, value::switch),
            tls: access::tls(&mut source),
            presence: presence(&mut source),
            limits: LimitsConfig::read(&mut source, &access, client_traces),
            workers: match source.value(&names::WORKERS, value::threads) {
                0 => std::thread::available_parallelism().map_or(1, Into::into),
                workers => workers,
            },
            functions,
            history_retention: source.optional(&names::HISTORY_RETENTION, value::time_limit),
            webhook,
            mixpanel: mixpanel(&mut source),
            egress: egress::read(&mut source),
            log: source.value(&names::LOG, log),
            traces: traces::read(&mut source, client_traces.ratio),
            log_format: source.value(&names::LOG_FORMAT, log_format),
            settings: source.in_use(),
            listen,
            admin_listen,
            backends,
            access,
        };
        if !admin_listen.ip().is_loopback() && config.admin.token.is_none() && task.needs_admin() {
            source.fault(&names::ADMIN_TOKEN, format!("is needed, because others can reach {admin_listen}"));
        }
        if source.faults.is_empty() { Ok(config) } else { Err(source.faults) }
    }
}

fn admin(source: &mut Source<'_>) -> Access {
    let hosts = source.optional(&names::ADMIN_HOSTS, |text| value::list(text, value::host_name));
    let (token, read_token) = (source.secret(&names::ADMIN_TOKEN), source.secret(&names::ADMIN_READ_TOKEN));
    if read_token.is_some() && read_token == token {
        source
            .fault(&names::ADMIN_READ_TOKEN, format!("must not be {}, which changes things", names::ADMIN_TOKEN.name));
    }
    if read_token.is_some() && token.is_none() {
        source.fault(
            &names::ADMIN_READ_TOKEN,
            format!(
                "needs {}: without that one a request without any token may change things",
                names::ADMIN_TOKEN.name
            ),
        );
    }
    for (setting, token) in [(&names::ADMIN_TOKEN, &token), (&names::ADMIN_READ_TOKEN, &read_token)] {
        if token.as_ref().is_some_and(|token| token.reveal().len() < MIN_ADMIN_TOKEN) {
            let problem =
                format!("can be guessed: use {MIN_ADMIN_TOKEN} characters or more, as of `openssl rand -hex 16`");
            source.fault(setting, problem);
        }
    }
    Access { token, read_token, hosts: hosts.unwrap_or_default() }
}

fn presence(source: &mut Source<'_>) -> PresenceConfig {
    let drain_deadline = source.value(&names::DRAIN_DEADLINE, value::time_limit);
    PresenceConfig {
        lease: source.value(&names::LEASE, |text| match value::duration(text)? {
            lease if lease < MIN_LEASE => Err(format!("{text:?} is too short, at least 500ms")),
            lease => Ok(lease),
        }),
        drain_delay: source.value(&names::DRAIN_DELAY, value::duration),
        drain_deadline,
        drain_spread: source.value(&names::DRAIN_SPREAD, value::duration).min(drain_deadline / 2),
    }
}

fn mixpanel(source: &mut Source<'_>) -> Option<MixpanelConfig> {
    let url = source.value(&names::MIXPANEL_URL, value::http);
    source.secret(&names::MIXPANEL_TOKEN).map(|token| MixpanelConfig { token, url })
}

fn log(text: &str) -> Result<String, String> {
    match tracing_subscriber::EnvFilter::try_new(text) {
        Ok(_) => Ok(text.to_owned()),
        Err(_) => Err(format!("{text:?} is not a filter, like info or rollcall_runtime=debug")),
    }
}

fn log_format(text: &str) -> Result<LogFormat, String> {
    match text {
        "text" => Ok(LogFormat::Text),
        "json" => Ok(LogFormat::Json),
        _ => Err(format!("{text:?} is neither text nor json")),
    }
}
