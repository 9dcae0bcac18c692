//! Settings of what stands between strangers and a session: pages, counts, rates, and who is asked.
use std::{path::PathBuf, time::Duration};

use super::{names, source::Source, value};
use crate::{
    auth::HookOptions,
    limits::{admission::AdmissionLimits, memory, network::Proxies},
};
use rollcall_websocket::{Origins, certificate::TlsFiles};

/// Open files that are no clients: backends, operators, databases.
const RESERVED_FILES: usize = 128;
/// Of the others, the share for connections that have not upgraded yet, and the most of them.
const HALF_OPEN: (usize, usize) = (16, 8192);

/// Where it is not set, the share of the connections that may be unauthenticated, and the most of them.
const UNAUTHENTICATED: (usize, usize) = (2, 20_000);
/// Where it is not set, the share of the connections that one client may have, and the most of them.
const PER_CLIENT: (usize, usize) = (4, 1_000);
/// For new connections while silent ones are closed for them: a share of the connections, and the most of them.
const SPARE: (usize, usize) = (16, 64);

/// Who may connect at all.
#[derive(Clone, Debug)]
pub struct Gate {
    /// Pages.
    pub origins: Origins,
    /// The certificate; none: clients speak plainly.
    pub tls: Option<TlsFiles>,
    /// Connections and upgrades.
    pub limits: AdmissionLimits,
    /// Whether connections begin with a header of the PROXY protocol.
    pub proxy_protocol: bool,
    /// Connections that have not upgraded yet.
    pub half_open: usize,
    /// Events.
    pub events: EventRates,
    /// Bytes that wait for slow readers, of all together.
    pub in_flight: usize,
    /// Who is asked about classrooms and lessons.
    pub authz: Option<HookOptions>,
}

/// How many events a second are done; as many as in some seconds may come at once.
#[derive(Clone, Copy, Debug)]
pub struct EventRates {
    /// Of a connection.
    pub connection: u32,
    /// Of a user, over all connections.
    pub user: u32,
    /// How many sessions a user may have at once.
    pub user_sessions: u32,
    /// How often a user may connect.
    pub user_connects: u32,
    /// Of the guests of one address, connecting counted as one.
    pub guests: u32,
    /// How long there may be more before the connection is closed.
    pub abuse_after: Duration,
}

impl Gate {
    pub(super) fn read(source: &mut Source<'_>) -> Self {
        let proxies = Proxies {
            trusted: source.optional(&names::TRUSTED_PROXIES, |text| value::list(text, str::parse)).unwrap_or_default(),
            header: source.value(&names::PROXY_HEADER, value::header),
        };
        let proxy_protocol = source.value(&names::PROXY_PROTOCOL, value::switch);
        if proxy_protocol && proxies.trusted.is_empty() {
            source.fault(&names::PROXY_PROTOCOL, format!("needs {}: the balancers", names::TRUSTED_PROXIES.name));
        }
        let authz = hook(source);
        // Requests to the authorization service are files, too.
        let asking = authz.as_ref().map_or(0, |authz| authz.concurrency);
        let files = value::open_files().saturating_sub(asking);
        let half_open = (files / HALF_OPEN.0).clamp(1, HALF_OPEN.1);
        let possible = files.saturating_sub(RESERVED_FILES + half_open);
        let possible = possible.saturating_sub(share(possible, SPARE)).max(1);
        let connections = or_else(source, &names::MAX_CONNECTIONS, possible).min(possible);
        let limits = AdmissionLimits {
            connections,
            spare: share(connections, SPARE),
            unauthenticated: or_else(source, &names::MAX_UNAUTHENTICATED, share(connections, UNAUTHENTICATED)),
            loopback: source.value(&names::LIMIT_LOOPBACK, value::switch),
            per_client: or_else(source, &names::MAX_CONNECTIONS_PER_IP, share(connections, PER_CLIENT)),
            upgrades: source.value(&names::MAX_UPGRADES, value::count(1)),
            memory: source.optional(&names::MAX_MEMORY, value::size).map_or_else(memory::allowance, |most| most as u64),
            proxies,
        };
        Self {
            origins: source.optional(&names::ORIGINS, value::origins).unwrap_or_default(),
            tls: tls(source),
            proxy_protocol,
            limits,
            half_open,
            events: EventRates {
                connection: source.value(&names::EVENT_RATE, value::rate),
                user: source.value(&names::USER_EVENT_RATE, value::rate),
                user_sessions: source.value(&names::USER_SESSIONS, value::count(1)),
                user_connects: source.value(&names::USER_CONNECT_RATE, value::rate),
                guests: source.value(&names::GUEST_RATE, value::rate),
                abuse_after: source.value(&names::ABUSE_AFTER, value::time_limit),
            },
            in_flight: source.value(&names::MAX_IN_FLIGHT, value::size),
            authz,
        }
    }
}

/// A setting's count, or where it is 0 this one.
fn or_else(source: &mut Source<'_>, setting: &names::Setting, count: usize) -> usize {
    match source.value(setting, value::count(0)) {
        0 => count,
        given => given,
    }
}

fn share(of: usize, (part, most): (usize, usize)) -> usize {
    of.div_ceil(part).clamp(1, most)
}

fn hook(source: &mut Source<'_>) -> Option<HookOptions> {
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

fn tls(source: &mut Source<'_>) -> Option<TlsFiles> {
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
