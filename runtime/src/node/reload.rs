//! Reads the configuration again at SIGHUP, and gives the parts of a running node the settings that may change without
//! a restart (PROTOCOL 7).
//!
//! Invariant: all files are read and checked before any part changes, so an invalid file changes nothing.
use std::{sync::Arc, time::Duration};

use metrics::counter;
use tokio::{signal::unix::Signal, sync::watch, task::spawn_blocking, time::timeout};
use tracing::{info, warn};

use super::gauges;
use crate::{
    auth::{KeySet, Keyring, Location, Sources},
    config::{Changes, Config, Reader, SettingInUse, names as settings},
    gateway::{Mailboxes, WorkerCommand},
    handler::handlers::Handlers,
    limits::{EventLimits, admission::Admission},
    log::LogFilter,
};
use rollcall_base::{names, tls::TlsError};
use rollcall_presence::Presence;
use rollcall_websocket::{ListenerOptions, Workers, certificate::Certificate};

/// How long reading the files may take. A file system may hang.
const READ_TIMEOUT: Duration = Duration::from_secs(5);

/// The parts of a running node that get settings from a configuration that was read again.
pub struct Reload {
    /// Reads the configuration.
    pub reader: Reader,
    /// The settings that the node uses.
    pub settings: Vec<SettingInUse>,
    /// The origins, the certificate, and the limits of heads.
    pub listener: watch::Sender<Arc<ListenerOptions>>,
    /// Checks tokens.
    pub keyring: Arc<Keyring>,
    /// Limits of connections.
    pub admission: Arc<Admission>,
    /// Limits of events and connects.
    pub rates: Arc<EventLimits>,
    /// Limits the sessions of a user.
    pub presence: Presence,
    /// Limits how long a handler runs.
    pub handlers: Handlers,
    /// Limits of each connection.
    pub workers: Workers<WorkerCommand>,
    /// Sends commands to the gateway's part of each worker.
    pub mailboxes: Mailboxes,
    /// The log's filter.
    pub log: LogFilter,
}

/// The configuration that was read, and is not used yet.
struct Read {
    config: Config,
    certificate: Option<Certificate>,
    sources: Sources,
}

impl Reload {
    /// Reads the configuration and applies its changes at each signal.
    pub async fn run(mut self, mut hangups: Signal) {
        while hangups.recv().await.is_some() {
            let outcome = match self.prepare().await {
                Ok((read, keys)) => {
                    self.change(read, keys).await;
                    "done"
                }
                Err(faults) => {
                    warn!(%faults, "nothing has changed, because the settings are faulty");
                    "faulty"
                }
            };
            counter!(names::RELOADS, "outcome" => outcome).increment(1);
        }
        std::future::pending().await
    }

    /// Does all that may fail: reads the configuration and loads the keys.
    async fn prepare(&mut self) -> Result<(Read, Arc<KeySet>), String> {
        let reader = self.reader.clone();
        let read = timeout(READ_TIMEOUT, spawn_blocking(move || read(&reader))).await;
        let read = read.map_err(|_| format!("reading the files took longer than {READ_TIMEOUT:?}"))?;
        let read = read.map_err(|_| "reading the files panicked".to_owned())??;
        let (keys, errors) = self.keyring.prepare(read.sources.clone()).await;
        let (of_files, of_servers): (Vec<_>, Vec<_>) =
            errors.into_iter().partition(|error| matches!(error.location, Location::File(_)));
        if !of_files.is_empty() {
            return Err(of_files.iter().map(ToString::to_string).collect::<Vec<_>>().join("; "));
        }
        for error in of_servers {
            warn!(%error, "the keys of this issuer that are there stay in use until they are loaded");
        }
        Ok((read, keys))
    }

    async fn change(&mut self, Read { config, certificate, .. }: Read, keys: Arc<KeySet>) {
        let mut changes = Changes::between(&self.settings, &config.settings);
        if self.set_listener(&config, certificate) {
            changes.taken_over.push("the certificate");
        }
        self.keyring.replace(keys);
        gauges::limits(&config.access.admission);
        self.admission.set_limits(config.access.admission);
        self.rates.set(&config.access.rates);
        self.presence.set_max_user_sessions(config.access.rates.user_sessions);
        self.handlers.set_timeout(config.limits.handler_timeout);
        self.workers.set_limits(&config.limits.sockets).await;
        self.mailboxes.broadcast(|| WorkerCommand::Limits(Box::new(config.limits.gateway.clone()))).await;
        self.log.set(&config.log);
        for (used, read) in self.settings.iter_mut().zip(config.settings) {
            // A setting that needs a restart is logged each time until the node restarts.
            if !changes.need_restart.contains(&used.setting.name) {
                *used = read;
            }
        }
        let or_none = |names: &[&str]| if names.is_empty() { "nothing".to_owned() } else { names.join(", ") };
        info!(
            changed = or_none(&changes.taken_over),
            needs_restart = or_none(&changes.need_restart),
            "settings, certificate and keys were read again"
        );
    }

    /// Gives the listener the certificate and the other settings. Returns whether the certificate is a different one.
    fn set_listener(&self, config: &Config, certificate: Option<Certificate>) -> bool {
        let used = Arc::clone(&self.listener.borrow());
        let is_other = used.certificate != certificate;
        let options = ListenerOptions {
            origins: config.limits.listener.origins.clone(),
            loopback_pages: config.keys.development.is_some(),
            head_timeout: config.limits.listener.head_timeout,
            max_head: config.limits.listener.max_head,
            // An equal certificate keeps the TLS sessions that clients may resume.
            certificate: if is_other { certificate } else { used.certificate.clone() },
            ..(*used).clone()
        };
        self.listener.send_replace(Arc::new(options));
        is_other
    }
}

fn read(reader: &Reader) -> Result<Read, String> {
    let (_, config) = reader.read().map_err(|stop| stop.to_string())?;
    let certificate = certificate(&config).map_err(|error| format!("{}: {error}", settings::TLS_CERT.name))?;
    let sources = config.keys.load().map_err(|error| error.to_string())?;
    Ok(Read { config, certificate, sources })
}

/// Reads the certificate if one is configured. A certificate whose time is wrong is used, because the machine's clock
/// may be wrong instead.
pub(super) fn certificate(config: &Config) -> Result<Option<Certificate>, TlsError> {
    let certificate = config.tls.as_ref().map(|files| files.read()).transpose()?;
    if let Some(problem) = certificate.as_ref().and_then(Certificate::problem) {
        warn!("{}: {problem}", settings::TLS_CERT.name);
    }
    Ok(certificate)
}
