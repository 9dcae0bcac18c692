//! Settings of admission, event rates, TLS and the authorization service.
use std::path::PathBuf;

use super::{names, source::Source, value};
use crate::{
    auth::HookOptions,
    limits::{EventRates, admission::AdmissionLimits, memory, network::Proxies},
};
use rollcall_websocket::certificate::TlsFiles;

/// How many files may be open that are not clients' connections: connections to backends and of operators, and database
/// files.
const RESERVED_FILES: usize = 128;
/// If there is room for fewer connections than this, the operator is told, even if the settings name no number.
const FEW: usize = 1000;
/// The share of the remaining files for connections that have not upgraded yet, as a divisor, and its maximum.
const HALF_OPEN: (usize, usize) = (16, 8192);

/// The default share of the connections that may be unauthenticated, as a divisor, and its maximum.
const UNAUTHENTICATED: (usize, usize) = (2, 20_000);
/// The default share of the connections that one client may have, as a divisor, and its maximum.
const PER_CLIENT: (usize, usize) = (4, 1_000);
/// The room for new connections while silent connections are closed: a share of the connections, as a divisor, and its
/// maximum.
const SPARE: (usize, usize) = (16, 64);

/// Who may connect, and how often.
#[derive(Clone, Debug)]
pub struct AccessConfig {
    /// The limits of connections and upgrades.
    pub admission: AdmissionLimits,
    /// The limits of events, connects and sessions of a user.
    pub rates: EventRates,
    /// The authorization service. `None` if a valid token is enough.
    pub authz: Option<HookOptions>,
    /// How many connections may not have upgraded yet.
    pub half_open: usize,
    /// Whether connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// The warning that fewer connections are possible than the settings ask for: how many, and what to change.
    pub too_few_files: Option<String>,
}

impl AccessConfig {
    /// Reads the settings. `requests` is how many requests to the app's own services may be in flight at the same time.
    pub(super) fn read(source: &mut Source<'_>, requests: usize) -> Self {
        let proxies = Proxies {
            trusted: source.optional(&names::TRUSTED_PROXIES, |text| value::list(text, str::parse)).unwrap_or_default(),
            header: source.value(&names::PROXY_HEADER, value::header),
        };
        let proxy_protocol = source.value(&names::PROXY_PROTOCOL, value::switch);
        if proxy_protocol && proxies.trusted.is_empty() {
            let networks = names::TRUSTED_PROXIES.name;
            source.fault(&names::PROXY_PROTOCOL, format!("needs {networks}: the networks of the load balancers"));
        }
        let authz = authz(source);
        // Requests need open files, too.
        let requests = authz.as_ref().map_or(0, |authz| authz.concurrency).saturating_add(requests);
        let files = value::open_files().saturating_sub(requests);
        let half_open = (files / HALF_OPEN.0).clamp(1, HALF_OPEN.1);
        let possible = files.saturating_sub(RESERVED_FILES + half_open);
        let possible = possible.saturating_sub(share(possible, SPARE)).max(1);
        let wanted = source.value(&names::MAX_CONNECTIONS, value::count(0));
        let connections = if wanted == 0 { possible } else { wanted.min(possible) };
        let too_few_files = (possible < if wanted == 0 { FEW } else { wanted }).then(|| {
            format!("the limit of open files allows {possible} connections: raise it, by ulimit -n or LimitNOFILE")
        });
        let admission = AdmissionLimits {
            connections,
            spare: share(connections, SPARE),
            unauthenticated: count_or(source, &names::MAX_UNAUTHENTICATED, share(connections, UNAUTHENTICATED)),
            loopback: source.value(&names::LIMIT_LOOPBACK, value::switch),
            per_client: count_or(source, &names::MAX_CONNECTIONS_PER_IP, share(connections, PER_CLIENT)),
            upgrades: source.value(&names::MAX_UPGRADES, value::count(1)),
            memory: source.optional(&names::MAX_MEMORY, value::size).map_or_else(memory::allowance, |max| max as u64),
            proxies,
        };
        Self { admission, rates: rates(source), authz, half_open, proxy_protocol, too_few_files }
    }
}

/// Returns the setting's count, or `default` if the count is 0.
fn count_or(source: &mut Source<'_>, setting: &names::Setting, default: usize) -> usize {
    match source.value(setting, value::count(0)) {
        0 => default,
        count => count,
    }
}

fn share(of: usize, (part, max): (usize, usize)) -> usize {
    of.div_ceil(part).clamp(1, max)
}

fn rates(source: &mut Source<'_>) -> EventRates {
    EventRates {
        connection: source.value(&names::EVENT_RATE, value::rate),
        user: source.value(&names::USER_EVENT_RATE, value::rate),
        user_sessions: source.value(&names::USER_SESSIONS, value::count(1)),
        user_connects: source.value(&names::USER_CONNECT_RATE, value::rate),
        guests: source.value(&names::GUEST_RATE, value::rate),
        abuse_after: source.value(&names::ABUSE_AFTER, value::time_limit),
    }
}

fn authz(source: &mut Source<'_>) -> Option<HookOptions> {
    let timeout = source.value(&names::AUTHZ_TIMEOUT, value::time_limit);
    let ttl = source.value(&names::AUTHZ_TTL, value::duration);
    let namespace = source.optional(&names::AUTHZ_NAMESPACE, |text| Ok(text.to_owned()));
    let concurrency = source.value(&names::AUTHZ_CONCURRENCY, value::count(1));
    let queue = source.value(&names::AUTHZ_QUEUE, value::count(0));
    let queue_timeout = source.value(&names::AUTHZ_QUEUE_TIMEOUT, value::time_limit);
    let token = source.secret(&names::AUTHZ_TOKEN);
    if token.as_ref().is_some_and(|token| !value::is_bearer(token.reveal())) {
        source.fault(&names::AUTHZ_TOKEN, "must be printable ASCII without spaces");
    }
    source.optional(&names::AUTHZ_URL, value::http).map(|url| HookOptions {
        url,
        token,
        timeout,
        ttl,
        namespace,
        concurrency,
        queue,
        queue_timeout,
    })
}

pub(super) fn tls(source: &mut Source<'_>) -> Option<TlsFiles> {
    let mut file = |setting| source.optional(setting, |text| Ok(PathBuf::from(text)));
    let files = (file(&names::TLS_CERT), file(&names::TLS_KEY));
    match files {
        (Some(certificate), Some(key)) => return Some(TlsFiles { certificate, key }),
        (None, None) => {}
        (Some(_), None) => source.fault(&names::TLS_KEY, format!("is needed with {}", names::TLS_CERT.name)),
        (None, Some(_)) => source.fault(&names::TLS_CERT, format!("is needed with {}", names::TLS_KEY.name)),
    }
    None
}
