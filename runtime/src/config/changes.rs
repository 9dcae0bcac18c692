//! The changes of a configuration that a running node applies (PROTOCOL 7).
use super::{
    names::{self, Kind, Setting},
    origin::SettingInUse,
};

/// The settings whose changes a running node applies: certificates, keys, origins, limits and the log's filter. A
/// change of any other setting needs a restart.
pub const RELOADED: &[&Setting] = &[
    &names::TLS_CERT,
    &names::TLS_KEY,
    &names::HS256_SECRET,
    &names::HS256_PREVIOUS_SECRET,
    &names::JWKS,
    &names::JWKS_REFRESH,
    &names::JWKS_COOLDOWN,
    &names::TOKEN_LEEWAY,
    &names::AUDIENCES,
    &names::ORIGINS,
    &names::TRUSTED_PROXIES,
    &names::PROXY_HEADER,
    &names::LIMIT_LOOPBACK,
    &names::MAX_CONNECTIONS,
    &names::MAX_CONNECTIONS_PER_IP,
    &names::MAX_UNAUTHENTICATED,
    &names::MAX_UPGRADES,
    &names::MAX_MEMORY,
    &names::EVENT_RATE,
    &names::USER_EVENT_RATE,
    &names::USER_CONNECT_RATE,
    &names::USER_SESSIONS,
    &names::GUEST_RATE,
    &names::ABUSE_AFTER,
    &names::HEAD_TIMEOUT,
    &names::MAX_HEAD,
    &names::CONNECT_TIMEOUT,
    &names::HANDLER_TIMEOUT,
    &names::MAX_MESSAGE,
    &names::MAX_FRAGMENTS,
    &names::MAX_PENDING,
    &names::MAX_QUEUE,
    &names::SEND_BUFFER,
    &names::LOG,
];

/// The names of the settings that differ between two readings of the configuration.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Changes {
    /// The names of the settings whose changes are applied.
    pub taken_over: Vec<&'static str>,
    /// The names of the settings whose changes need a restart.
    pub need_restart: Vec<&'static str>,
}

impl Changes {
    /// Compares the settings that a node uses with the settings that were just read.
    #[must_use]
    pub fn between(used: &[SettingInUse], read: &[SettingInUse]) -> Self {
        let mut changes = Self::default();
        for (used, read) in used.iter().zip(read) {
            let name = used.setting.name;
            // Each new connection to a backend reads such a file again.
            let reads_again = used.setting.kind == Kind::Address
                || [names::DATABASE_PASSWORD.name, names::NATS_CREDS.name].contains(&name);
            let by_itself = reads_again && used.file.is_some() && used.file == read.file;
            if used.text == read.text && used.file == read.file || by_itself {
                continue;
            }
            let reloaded = RELOADED.iter().any(|setting| setting.name == name);
            if reloaded { changes.taken_over.push(name) } else { changes.need_restart.push(name) }
        }
        changes
    }
}
