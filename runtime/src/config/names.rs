//! Every setting: its variable, its default, what it is for. The flag of a setting is its name without `ROLLCALL_`, in
//! lower case with hyphens (`ROLLCALL_LEAVE_GRACE`: `--leave-grace`).

/// How a setting may be given.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// By variable or flag.
    Plain,
    /// By variable, flag, or the variable with `_FILE` that names a file: it may hold a password.
    Address,
    /// By variable or `_FILE`; never by a flag, which other users of the machine could read.
    Secret,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The variable.
    pub name: &'static str,
    /// What counts where it is not given.
    pub default: Option<&'static str>,
    /// How it may be given.
    pub kind: Kind,
    /// One line for `--help`.
    pub help: &'static str,
}

macro_rules! settings {
    ($($id:ident = $name:literal, $kind:ident, $default:expr, $help:literal;)*) => {
        $(#[doc = $help] pub const $id: Setting = Setting { name: $name, default: $default, kind: Kind::$kind, help: $help };)*
        /// All of them, in the order of `--help`.
        pub const ALL: &[Setting] = &[$($id),*];
    };
}

settings! {
    LISTEN = "ROLLCALL_LISTEN", Plain, Some("127.0.0.1:8080"), "Address for clients: /ws and /healthz";
    ADMIN_LISTEN = "ROLLCALL_ADMIN_LISTEN", Plain, Some("127.0.0.1:9090"), "Address for operators: /metrics, /healthz, /readyz and /api/v1";
    DATABASE_URL = "DATABASE_URL", Address, Some("sqlite:rollcall.db"), "sqlite:FILE or postgres://...";
    REDIS_URL = "REDIS_URL", Address, None, "redis://...; without it the keys are kept in process";
    REDIS_PREFIX = "ROLLCALL_REDIS_PREFIX", Plain, None, "What every key in Redis starts with";
    NATS_URL = "NATS_URL", Address, None, "nats://..., several separated by commas; without it the bus is in process";
    HS256_SECRET = "ROLLCALL_HS256_SECRET", Secret, None, "Secret of tokens whose issuer has no JWKS";
    HS256_PREVIOUS_SECRET = "ROLLCALL_HS256_PREVIOUS_SECRET", Secret, None, "The secret before that, which counts too while it is replaced";
    TOKEN_LEEWAY = "ROLLCALL_TOKEN_LEEWAY", Plain, Some("5s"), "How far ahead a token's nbf and iat may be; nothing for its exp";
    JWKS = "ROLLCALL_JWKS", Plain, None, "ISSUER=FILE-OR-URL, several separated by commas";
    JWKS_REFRESH = "ROLLCALL_JWKS_REFRESH", Plain, Some("5m"), "Between two loads of each JWKS";
    JWKS_COOLDOWN = "ROLLCALL_JWKS_COOLDOWN", Plain, Some("1m"), "Between two loads of a JWKS that unknown keys cause; five at once";
    AUDIENCES = "ROLLCALL_AUDIENCES", Plain, None, "Audiences that are let in, separated by commas; without it any";
    GUESTS = "ROLLCALL_GUESTS", Plain, Some("false"), "Whether clients may connect without a token";
    AUTHZ_URL = "ROLLCALL_AUTHZ_URL", Plain, None, "Service that is asked whether an agent may enter a classroom or a lesson";
    AUTHZ_TOKEN = "ROLLCALL_AUTHZ_TOKEN", Secret, None, "Bearer token for that service";
    AUTHZ_TIMEOUT = "ROLLCALL_AUTHZ_TIMEOUT", Plain, Some("2s"), "How long its answer may take; then the client is asked to come again";
    AUTHZ_CONCURRENCY = "ROLLCALL_AUTHZ_CONCURRENCY", Plain, Some("256"), "Most requests to it at once";
    AUTHZ_QUEUE = "ROLLCALL_AUTHZ_QUEUE", Plain, Some("8192"), "Most questions that wait for those";
    AUTHZ_QUEUE_TIMEOUT = "ROLLCALL_AUTHZ_QUEUE_TIMEOUT", Plain, Some("2s"), "How long a question waits; then the client is asked to come again";
    AUTHZ_TTL = "ROLLCALL_AUTHZ_TTL", Plain, Some("60s"), "How long its yes counts";
    AUTHZ_NAMESPACE = "ROLLCALL_AUTHZ_NAMESPACE", Plain, None, "Namespace of the classrooms in its questions; without it the token's audience";
    ORIGINS = "ROLLCALL_ORIGINS", Plain, None, "Pages and apps that may connect, like https://school.example or capacitor://localhost, besides the same host's pages; * for any";
    MAX_CONNECTIONS = "ROLLCALL_MAX_CONNECTIONS", Plain, Some("0"), "Most connections; 0: as many as the limit of open files allows";
    MAX_CONNECTIONS_PER_IP = "ROLLCALL_MAX_CONNECTIONS_PER_IP", Plain, Some("0"), "Most connections of an IPv4 address or IPv6 /64; loopback does not count. 0: a quarter of the most connections, at most 1000";
    MAX_MEMORY = "ROLLCALL_MAX_MEMORY", Plain, None, "Memory above which nobody new is let in; by default nine tenths of the container's or the machine's";
    MAX_UPGRADES = "ROLLCALL_MAX_UPGRADES", Plain, Some("50000"), "Most upgrades a second";
    TRUSTED_PROXIES = "ROLLCALL_TRUSTED_PROXIES", Plain, None, "Addresses and networks of proxies that say who the client is";
    PROXY_HEADER = "ROLLCALL_PROXY_HEADER", Plain, Some("x-forwarded-for"), "The header in which they do; forwarded is read as RFC 7239 says, any other as addresses";
    PROXY_PROTOCOL = "ROLLCALL_PROXY_PROTOCOL", Plain, Some("false"), "Whether clients come by balancers that speak the PROXY protocol (v1 or v2); needs ROLLCALL_TRUSTED_PROXIES";
    ADMIN_TOKEN = "ROLLCALL_ADMIN_TOKEN", Secret, None, "Bearer token for /api; needed where the admin address is not loopback";
    ADMIN_HOSTS = "ROLLCALL_ADMIN_HOSTS", Plain, None, "Names under which the admin address answers without the token, separated by commas, besides IP addresses and localhost";
    LEASE = "ROLLCALL_LEASE", Plain, Some("15s"), "How long a node counts as alive without a sign of life; at least 500ms";
    LEAVE_GRACE = "ROLLCALL_LEAVE_GRACE", Plain, Some("0s"), "How long a broken connection may come back without having left";
    MAX_IN_GRACE = "ROLLCALL_MAX_IN_GRACE", Plain, Some("0"), "Most sessions that are kept so; with one more the oldest has left. 0: a quarter of the most connections";
    DRAIN_DELAY = "ROLLCALL_DRAIN_DELAY", Plain, Some("0s"), "How long a node that is to end is not ready and still takes connections, for balancers that learn late";
    DRAIN_DEADLINE = "ROLLCALL_DRAIN_DEADLINE", Plain, Some("10s"), "How long a shutdown may take, after that delay";
    DRAIN_SPREAD = "ROLLCALL_DRAIN_SPREAD", Plain, Some("3s"), "Over how long a shutdown spreads what it tells its clients; at most half of the deadline";
    PING_INTERVAL = "ROLLCALL_PING_INTERVAL", Plain, Some("30s"), "Between two pings of a connection";
    PONG_TIMEOUT = "ROLLCALL_PONG_TIMEOUT", Plain, Some("5s"), "How long after a ping a client may be silent";
    RESET_SPREAD = "ROLLCALL_RESET_SPREAD", Plain, Some("5s"), "Over how long connections are closed whose events are gone for good, as when the stream was deleted";
    CONNECT_TIMEOUT = "ROLLCALL_CONNECT_TIMEOUT", Plain, Some("10s"), "How long after the upgrade connect_request may take";
    HANDLER_TIMEOUT = "ROLLCALL_HANDLER_TIMEOUT", Plain, Some("5s"), "How long a function may run";
    HEAD_TIMEOUT = "ROLLCALL_HEAD_TIMEOUT", Plain, Some("5s"), "How long the head of an HTTP request may take";
    MAX_HEAD = "ROLLCALL_MAX_HEAD", Plain, Some("16KiB"), "Largest head of an HTTP request";
    MAX_MESSAGE = "ROLLCALL_MAX_MESSAGE", Plain, Some("64KiB"), "Largest message of a client";
    MAX_FRAGMENTS = "ROLLCALL_MAX_FRAGMENTS", Plain, Some("1024"), "Most fragments of a message";
    MAX_PENDING = "ROLLCALL_MAX_PENDING", Plain, Some("64KiB"), "Most bytes of requests that wait for the one that runs, a connection";
    MAX_QUEUE = "ROLLCALL_MAX_QUEUE", Plain, Some("256KiB"), "Most bytes that wait for a slow reader";
    SEND_BUFFER = "ROLLCALL_SEND_BUFFER", Plain, Some("64KiB"), "The kernel's send buffer of a connection";
    MAX_FORWARD = "ROLLCALL_MAX_FORWARD", Plain, Some("128KiB"), "Largest event of other services that is forwarded";
    TLS_CERT = "ROLLCALL_TLS_CERT", Plain, None, "PEM file of the certificate chain; with it clients speak TLS. SIGHUP reads it again";
    TLS_KEY = "ROLLCALL_TLS_KEY", Plain, None, "PEM file of its private key";
    LIMIT_LOOPBACK = "ROLLCALL_LIMIT_LOOPBACK", Plain, Some("false"), "Whether loopback addresses count as clients, too";
    MAX_UNAUTHENTICATED = "ROLLCALL_MAX_UNAUTHENTICATED", Plain, Some("0"), "Most connections that have not been let in yet. 0: half of the most connections, at most 20000";
    EVENT_RATE = "ROLLCALL_EVENT_RATE", Plain, Some("50"), "Most events of a connection a second; four times as many at once";
    USER_EVENT_RATE = "ROLLCALL_USER_EVENT_RATE", Plain, Some("100"), "Most events of a token's user a second, over all connections; four times as many at once";
    USER_SESSIONS = "ROLLCALL_USER_SESSIONS", Plain, Some("20"), "Most sessions of a token's user at once, over all labels, classrooms and nodes";
    USER_CONNECT_RATE = "ROLLCALL_USER_CONNECT_RATE", Plain, Some("10"), "Most connects of a token's user a second, over all labels and classrooms; four times as many at once";
    GUEST_RATE = "ROLLCALL_GUEST_RATE", Plain, Some("200"), "Most connects and events of the guests of an address a second; four times as many at once. Loopback does not count";
    ABUSE_AFTER = "ROLLCALL_ABUSE_AFTER", Plain, Some("10s"), "How long a connection may go on sending more than that before it is closed";
    MAX_IN_FLIGHT = "ROLLCALL_MAX_IN_FLIGHT", Plain, Some("1GiB"), "Most bytes that wait for slow readers of the whole node";
    WORKERS = "ROLLCALL_WORKERS", Plain, Some("0"), "Threads that own connections; 0: as many as cores";
    POSTGRES_POOL = "ROLLCALL_POSTGRES_POOL", Plain, Some("12"), "Connections to PostgreSQL for clients' requests; the lease, the relay and background work have one each besides";
    MIXPANEL_TOKEN = "ROLLCALL_MIXPANEL_TOKEN", Secret, None, "Mixpanel project's token; without it nothing is sent";
    MIXPANEL_URL = "ROLLCALL_MIXPANEL_URL", Plain, Some("https://api.mixpanel.com/track"), "Where events for Mixpanel go";
    LOG = "ROLLCALL_LOG", Plain, Some("info"), "What is logged: error, warn, info, debug, trace, or a filter by module";
}

impl Setting {
    /// The flag without its hyphens; none for a secret.
    #[must_use]
    pub fn flag(&self) -> Option<String> {
        let name = self.name.strip_prefix("ROLLCALL_").unwrap_or(self.name);
        (self.kind != Kind::Secret).then(|| name.to_ascii_lowercase().replace('_', "-"))
    }
}
