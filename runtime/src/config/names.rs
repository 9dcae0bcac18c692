//! Every setting with its variable, its default and its help text. The flag of a setting is its name without
//! `ROLLCALL_`, in lower case with hyphens (`ROLLCALL_LEAVE_GRACE`: `--leave-grace`).

/// The type of a setting, which decides how it may be given. Every setting except an address and a secret may be given
/// by its variable, its flag and the settings file.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Kind {
    /// A text, which may have a unit, like `15s`.
    Plain,
    /// A whole number.
    Number,
    /// A number from 0 to 1.
    Fraction,
    /// A number of bytes, or a text like `64KiB`.
    Size,
    /// `true` or `false`.
    Switch,
    /// Texts separated by commas. In the settings file it may also be an array.
    List,
    /// An address, given as a text or in its own file, which `NAME_FILE` names, because it may contain a password.
    Address,
    /// A secret, given by its variable or in its own file. It is never given by a flag, which other users of the
    /// machine could read, nor in the settings file, which is committed, copied and shown.
    Secret,
}

/// One setting.
#[derive(Debug)]
pub struct Setting {
    /// The name of the variable.
    pub name: &'static str,
    /// The value if the setting is not given.
    pub default: Option<&'static str>,
    /// How the setting may be given.
    pub kind: Kind,
    /// One line for `--help`.
    pub help: &'static str,
}

macro_rules! settings {
    ($($id:ident = $name:literal, $kind:ident, $default:expr, $help:literal;)*) => {
        $(#[doc = $help] pub const $id: Setting = Setting { name: $name, default: $default, kind: Kind::$kind, help: $help };)*
        /// All settings, in the order of `--help`.
        pub const ALL: &[Setting] = &[$($id),*];
    };
}

settings! {
    CONFIG = "ROLLCALL_CONFIG", Plain, None, "TOML file of settings, named as the flags are; variables win over it, and flags over both";
    LISTEN = "ROLLCALL_LISTEN", Plain, Some("127.0.0.1:8080"), "Address for clients: /ws and /healthz";
    ADMIN_LISTEN = "ROLLCALL_ADMIN_LISTEN", Plain, Some("127.0.0.1:9090"), "Address for operators: /metrics, /healthz, /readyz and /api/v1";
    PROBE_LISTEN = "ROLLCALL_PROBE_LISTEN", Plain, None, "Address for probes: /healthz and /readyz without details, and nothing else; without it they are on the admin address only";
    NODE_LABEL = "ROLLCALL_NODE_LABEL", Plain, None, "Name of this node for operators and balancers, like a pod's name; without it the process id and the clients' address";
    DATABASE_URL = "DATABASE_URL", Address, Some("sqlite:rollcall.db"), "sqlite:FILE or postgres://..., with libpq's sslmode, sslrootcert, sslcert and sslkey";
    DATABASE_PASSWORD = "ROLLCALL_DATABASE_PASSWORD", Secret, None, "Password of PostgreSQL, instead of the one in DATABASE_URL; from a file it is read again for each connection";
    SCHEMA = "ROLLCALL_SCHEMA", Plain, None, "Schema of the tables in PostgreSQL; without it the first one of the role's search_path";
    REDIS_URL = "REDIS_URL", Address, None, "redis://..., redis+cluster://..., redis+sentinel://... or, with TLS, rediss...; without it the keys are kept in the process";
    REDIS_PREFIX = "ROLLCALL_REDIS_PREFIX", Plain, None, "Prefix of every key in Redis";
    REDIS_CA_FILE = "ROLLCALL_REDIS_CA_FILE", Plain, None, "PEM file of the authorities that sign Redis's certificates; without it those that the machine trusts";
    REDIS_CERT = "ROLLCALL_REDIS_CERT", Plain, None, "PEM file of the certificate that Redis may ask for";
    REDIS_KEY = "ROLLCALL_REDIS_KEY", Plain, None, "PEM file of its private key";
    NATS_URL = "NATS_URL", Address, None, "nats://..., several separated by commas; without it events stay in the process";
    NATS_CREDS = "ROLLCALL_NATS_CREDS", Secret, None, "Text of a .creds file, or a user's nkey seed; ROLLCALL_NATS_CREDS_FILE names a file, which is read again for each connection";
    NATS_CA_FILE = "ROLLCALL_NATS_CA_FILE", Plain, None, "PEM file of the authorities that NATS servers' certificates are checked with; without it those of the machine";
    NATS_CERT = "ROLLCALL_NATS_CERT", Plain, None, "PEM file of the client certificate for NATS, read again for each connection";
    NATS_KEY = "ROLLCALL_NATS_KEY", Plain, None, "PEM file of its private key";
    NATS_TLS_FIRST = "ROLLCALL_NATS_TLS_FIRST", Switch, Some("false"), "Whether TLS begins before the NATS server speaks; for servers with handshake_first";
    NATS_DOMAIN = "ROLLCALL_NATS_DOMAIN", Plain, None, "JetStream domain that has the stream; without it the server's own";
    STREAM = "ROLLCALL_STREAM", Plain, Some("CLASSROOM"), "Name of the JetStream stream";
    STREAM_REPLICAS = "ROLLCALL_STREAM_REPLICAS", Number, Some("1"), "How many servers hold the stream; 3 in a cluster. This and the next three count where the stream is made";
    STREAM_MAX_AGE = "ROLLCALL_STREAM_MAX_AGE", Plain, Some("1h"), "How long it keeps events; at least 2m";
    STREAM_MAX_BYTES = "ROLLCALL_STREAM_MAX_BYTES", Size, None, "Bytes above which it forgets the oldest events; without it no limit";
    STREAM_STORAGE = "ROLLCALL_STREAM_STORAGE", Plain, Some("file"), "Where it is kept: file or memory";
    HS256_SECRET = "ROLLCALL_HS256_SECRET", Secret, None, "Secret that signs the tokens of every issuer without a JWKS";
    HS256_PREVIOUS_SECRET = "ROLLCALL_HS256_PREVIOUS_SECRET", Secret, None, "The previous secret, accepted too while the secret is being replaced";
    TOKEN_LEEWAY = "ROLLCALL_TOKEN_LEEWAY", Plain, Some("5s"), "How far in the future a token's nbf and iat may be; does not apply to its exp";
    JWKS = "ROLLCALL_JWKS", List, None, "ISSUER=FILE-OR-URL, several separated by commas";
    JWKS_REFRESH = "ROLLCALL_JWKS_REFRESH", Plain, Some("5m"), "Time between two loads of each JWKS";
    JWKS_COOLDOWN = "ROLLCALL_JWKS_COOLDOWN", Plain, Some("1m"), "Time between two loads of a JWKS that tokens with unknown keys cause; a burst of five is allowed";
    AUDIENCES = "ROLLCALL_AUDIENCES", List, None, "Audiences whose tokens are accepted, separated by commas; without it any";
    GUESTS = "ROLLCALL_GUESTS", Switch, Some("false"), "Whether clients may connect without a token";
    AUTHZ_URL = "ROLLCALL_AUTHZ_URL", Plain, None, "Service that is asked whether an agent may enter a classroom or a lesson";
    AUTHZ_TOKEN = "ROLLCALL_AUTHZ_TOKEN", Secret, None, "Bearer token for that service";
    AUTHZ_TIMEOUT = "ROLLCALL_AUTHZ_TIMEOUT", Plain, Some("2s"), "How long its answer may take; after that the client is told to try again later";
    AUTHZ_CONCURRENCY = "ROLLCALL_AUTHZ_CONCURRENCY", Number, Some("256"), "Maximum of requests to it at the same time";
    AUTHZ_QUEUE = "ROLLCALL_AUTHZ_QUEUE", Number, Some("8192"), "Maximum of questions that wait for one of those requests";
    AUTHZ_QUEUE_TIMEOUT = "ROLLCALL_AUTHZ_QUEUE_TIMEOUT", Plain, Some("2s"), "How long a question waits; after that the client is told to try again later";
    AUTHZ_TTL = "ROLLCALL_AUTHZ_TTL", Plain, Some("60s"), "How long its yes is remembered";
    AUTHZ_NAMESPACE = "ROLLCALL_AUTHZ_NAMESPACE", Plain, None, "Namespace of the classrooms in its questions; without it the token's audience";
    ORIGINS = "ROLLCALL_ORIGINS", List, None, "Pages and apps that may connect, like https://school.example or capacitor://localhost, besides the same host's pages; * for any";
    MAX_CONNECTIONS = "ROLLCALL_MAX_CONNECTIONS", Number, Some("0"), "Maximum of connections; 0: as many as the limit of open files allows";
    MAX_CONNECTIONS_PER_IP = "ROLLCALL_MAX_CONNECTIONS_PER_IP", Number, Some("0"), "Maximum of connections from an IPv4 address or IPv6 /64; loopback is not limited. 0: a quarter of ROLLCALL_MAX_CONNECTIONS, at most 1000";
    MAX_MEMORY = "ROLLCALL_MAX_MEMORY", Size, None, "Memory of the process above which new connections are refused; by default nine tenths of the container's or the machine's";
    MAX_UPGRADES = "ROLLCALL_MAX_UPGRADES", Number, Some("50000"), "Maximum of upgrades per second";
    TRUSTED_PROXIES = "ROLLCALL_TRUSTED_PROXIES", List, None, "Addresses and networks of proxies whose header names the client's address";
    PROXY_HEADER = "ROLLCALL_PROXY_HEADER", Plain, Some("x-forwarded-for"), "That header; forwarded is read as RFC 7239 says, any other as a list of addresses";
    PROXY_PROTOCOL = "ROLLCALL_PROXY_PROTOCOL", Switch, Some("false"), "Whether load balancers connect with the PROXY protocol (v1 or v2); needs ROLLCALL_TRUSTED_PROXIES";
    ADMIN = "ROLLCALL_ADMIN", Plain, Some("http://127.0.0.1:9090"), "Admin address of the gateway that the commands agents, attendance, kick, publish, tail and erase ask";
    ADMIN_TOKEN = "ROLLCALL_ADMIN_TOKEN", Secret, None, "Bearer token for /api, of at least 16 characters; required where the admin address is not loopback";
    ADMIN_READ_TOKEN = "ROLLCALL_ADMIN_READ_TOKEN", Secret, None, "Bearer token for /api that only reads";
    ADMIN_HOSTS = "ROLLCALL_ADMIN_HOSTS", List, None, "Names under which the admin address answers without the token, separated by commas, besides IP addresses and localhost";
    LEASE = "ROLLCALL_LEASE", Plain, Some("15s"), "How long a node counts as alive without a heartbeat; at least 500ms";
    LEAVE_GRACE = "ROLLCALL_LEAVE_GRACE", Plain, Some("0s"), "How long the session of a broken connection is kept for its client to come back";
    MAX_IN_GRACE = "ROLLCALL_MAX_IN_GRACE", Number, Some("0"), "Maximum of sessions kept so; one more ends the oldest. 0: a quarter of ROLLCALL_MAX_CONNECTIONS";
    DRAIN_DELAY = "ROLLCALL_DRAIN_DELAY", Plain, Some("0s"), "How long a node that shuts down is not ready and still takes connections, until load balancers have noticed";
    DRAIN_DEADLINE = "ROLLCALL_DRAIN_DEADLINE", Plain, Some("10s"), "How long a shutdown may take after that delay";
    DRAIN_SPREAD = "ROLLCALL_DRAIN_SPREAD", Plain, Some("3s"), "Over how long a shutdown spreads its messages to clients; at most half of the deadline";
    PING_INTERVAL = "ROLLCALL_PING_INTERVAL", Plain, Some("30s"), "Time between two pings of a connection";
    PONG_TIMEOUT = "ROLLCALL_PONG_TIMEOUT", Plain, Some("5s"), "How long after a ping a client may be silent";
    SOCKETIO_PATH = "ROLLCALL_SOCKETIO_PATH", Plain, Some("/socket.io/"), "Path of Socket.IO on the clients' address, with and without its last slash; off, or empty: it is not served";
    SOCKETIO_NAMESPACES = "ROLLCALL_SOCKETIO_NAMESPACES", List, Some("/"), "Namespaces that clients of Socket.IO may connect to, separated by commas";
    SOCKETIO_PING_TIMEOUT = "ROLLCALL_SOCKETIO_PING_TIMEOUT", Plain, Some("20s"), "How long after a ping a client of Socket.IO may be silent";
    SOCKETIO_RECOVERY = "ROLLCALL_SOCKETIO_RECOVERY", Switch, Some("false"), "Whether clients of Socket.IO that come back after a break get the events that they missed";
    SOCKETIO_RECOVERY_WINDOW = "ROLLCALL_SOCKETIO_RECOVERY_WINDOW", Plain, Some("2m"), "How long after the end of their session that is possible";
    RESET_SPREAD = "ROLLCALL_RESET_SPREAD", Plain, Some("5s"), "Over how long the closing of connections is spread after their events were lost, as when the stream was deleted";
    CONNECT_TIMEOUT = "ROLLCALL_CONNECT_TIMEOUT", Plain, Some("10s"), "How long after the upgrade connect_request may arrive";
    HANDLER_TIMEOUT = "ROLLCALL_HANDLER_TIMEOUT", Plain, Some("5s"), "How long a handler may run";
    HEAD_TIMEOUT = "ROLLCALL_HEAD_TIMEOUT", Plain, Some("5s"), "How long the head of an HTTP request may take to arrive";
    MAX_HEAD = "ROLLCALL_MAX_HEAD", Size, Some("16KiB"), "Largest head of an HTTP request";
    MAX_MESSAGE = "ROLLCALL_MAX_MESSAGE", Size, Some("64KiB"), "Largest message of a client";
    MAX_FRAGMENTS = "ROLLCALL_MAX_FRAGMENTS", Number, Some("1024"), "Maximum of fragments of a message";
    MAX_PENDING = "ROLLCALL_MAX_PENDING", Size, Some("64KiB"), "Maximum of bytes of requests that wait, in each connection, for the one that runs";
    MAX_QUEUE = "ROLLCALL_MAX_QUEUE", Size, Some("256KiB"), "Maximum of bytes queued for a slow reader";
    SEND_BUFFER = "ROLLCALL_SEND_BUFFER", Size, Some("64KiB"), "The kernel's send buffer of a connection";
    MAX_FORWARD = "ROLLCALL_MAX_FORWARD", Size, Some("128KiB"), "Largest event that is forwarded to clients";
    PUBLISH_QUEUE = "ROLLCALL_PUBLISH_QUEUE", Number, Some("16384"), "Maximum of events of handlers and other services that wait to be stored";
    PUBLISH_QUEUE_BYTES = "ROLLCALL_PUBLISH_QUEUE_BYTES", Size, Some("32MiB"), "Maximum of bytes of those events";
    TLS_CERT = "ROLLCALL_TLS_CERT", Plain, None, "PEM file of the certificate chain; with it clients speak TLS. SIGHUP reads it again";
    TLS_KEY = "ROLLCALL_TLS_KEY", Plain, None, "PEM file of its private key";
    LIMIT_LOOPBACK = "ROLLCALL_LIMIT_LOOPBACK", Switch, Some("false"), "Whether loopback addresses are limited, too";
    MAX_UNAUTHENTICATED = "ROLLCALL_MAX_UNAUTHENTICATED", Number, Some("0"), "Maximum of connections without a session yet. 0: half of ROLLCALL_MAX_CONNECTIONS, at most 20000";
    EVENT_RATE = "ROLLCALL_EVENT_RATE", Number, Some("50"), "Maximum of events per second of a connection; a burst may be four times as large";
    USER_EVENT_RATE = "ROLLCALL_USER_EVENT_RATE", Number, Some("100"), "Maximum of events per second of a user, over all connections; a burst may be four times as large";
    USER_SESSIONS = "ROLLCALL_USER_SESSIONS", Number, Some("20"), "Maximum of sessions of a user at the same time, over all labels, classrooms and nodes";
    USER_CONNECT_RATE = "ROLLCALL_USER_CONNECT_RATE", Number, Some("10"), "Maximum of connects per second of a user, over all labels and classrooms; a burst may be four times as large";
    GUEST_RATE = "ROLLCALL_GUEST_RATE", Number, Some("200"), "Maximum of connects and events per second of the guests of an address; a burst may be four times as large. Loopback is not limited";
    ABUSE_AFTER = "ROLLCALL_ABUSE_AFTER", Plain, Some("10s"), "How long a connection may exceed its rate of events before it is closed";
    MAX_IN_FLIGHT = "ROLLCALL_MAX_IN_FLIGHT", Size, Some("1GiB"), "Maximum of bytes queued for all slow readers of the node";
    WORKERS = "ROLLCALL_WORKERS", Number, Some("0"), "Threads that own connections; 0: as many as cores";
    POSTGRES_POOL = "ROLLCALL_POSTGRES_POOL", Number, None, "Connections to PostgreSQL for clients' requests, 12 or behind a pooler 2; the lease and the relay have one more each, background work two";
    POSTGRES_POOLER = "ROLLCALL_POSTGRES_POOLER", Switch, Some("false"), "Whether DATABASE_URL leads to a pooler that lends a connection for one transaction, as pgbouncer does in transaction mode";
    FUNCTIONS = "ROLLCALL_FUNCTIONS", Plain, None, "TOML file of the events whose handler is a service of yours, called over HTTP";
    FUNCTIONS_SECRET = "ROLLCALL_FUNCTIONS_SECRET", Secret, None, "Secret that signs the requests to those services: 24 to 64 bytes in base64, with or without whsec_";
    HISTORY_RETENTION = "ROLLCALL_HISTORY_RETENTION", Plain, None, "How long the history keeps a session after its end; without it for ever";
    WEBHOOK_URL = "ROLLCALL_WEBHOOK_URL", Plain, None, "Address that events of presence are posted to";
    WEBHOOK_SECRET = "ROLLCALL_WEBHOOK_SECRET", Secret, None, "Secret that signs those requests (Standard Webhooks): 24 to 64 bytes in base64, with or without whsec_";
    WEBHOOK_TIMEOUT = "ROLLCALL_WEBHOOK_TIMEOUT", Plain, Some("10s"), "How long its answer may take; after that the events are posted again";
    WEBHOOK_CONCURRENCY = "ROLLCALL_WEBHOOK_CONCURRENCY", Number, Some("8"), "Maximum of requests to it at the same time, each with up to 500 events of other classrooms";
    WEBHOOK_MAX_PAUSE = "ROLLCALL_WEBHOOK_MAX_PAUSE", Plain, Some("30s"), "Longest pause between two attempts";
    WEBHOOK_HOLD = "ROLLCALL_WEBHOOK_HOLD", Plain, Some("15m"), "How long an event that it refuses while it takes others holds up its classroom; after that it is given up";
    WEBHOOK_MAX_PARKED = "ROLLCALL_WEBHOOK_MAX_PARKED", Number, Some("1000"), "Maximum of classrooms that are held up so; with more of them all events wait";
    WEBHOOK_MAX_AGE = "ROLLCALL_WEBHOOK_MAX_AGE", Plain, Some("24h"), "How long events wait for it without NATS; with NATS as long as the stream keeps them";
    MIXPANEL_TOKEN = "ROLLCALL_MIXPANEL_TOKEN", Secret, None, "Token of the Mixpanel project; without it nothing is sent";
    MIXPANEL_URL = "ROLLCALL_MIXPANEL_URL", Plain, Some("https://api.mixpanel.com/track"), "Address that events for Mixpanel are sent to";
    CA_FILE = "ROLLCALL_CA_FILE", Plain, None, "PEM file of authorities whose servers https requests trust, besides the machine's";
    HTTPS_PROXY = "HTTPS_PROXY", Address, None, "Proxy of https requests, http://USER:PASSWORD@HOST:PORT; this machine is asked directly";
    HTTP_PROXY = "HTTP_PROXY", Address, None, "Proxy of http requests";
    NO_PROXY = "NO_PROXY", Plain, None, "Names, addresses and networks that are asked without a proxy, separated by commas; * for all";
    LOG = "ROLLCALL_LOG", Plain, Some("info"), "What is logged: error, warn, info, debug, trace, or a filter by module";
    OTEL_EXPORTER_OTLP_ENDPOINT = "OTEL_EXPORTER_OTLP_ENDPOINT", Plain, None, "Collector that gets spans, by OTLP over HTTP, like http://collector:4318; without it no spans are made";
    OTEL_EXPORTER_OTLP_HEADERS = "OTEL_EXPORTER_OTLP_HEADERS", Secret, None, "Headers of requests to it, like api-key=KEY, separated by commas";
    OTEL_SERVICE_NAME = "OTEL_SERVICE_NAME", Plain, Some("rollcall"), "Name of this service in its spans";
    TRACE_RATIO = "ROLLCALL_TRACE_RATIO", Fraction, Some("0.01"), "Share of the traces that are sampled, among those that begin here or are named by clients; of services' traces, those whose traceparent is sampled";
    TRACE_TRUST_CLIENTS = "ROLLCALL_TRACE_TRUST_CLIENTS", Switch, Some("false"), "Whether a client's traceparent says itself whether its trace is sampled";
    LOG_FORMAT = "ROLLCALL_LOG_FORMAT", Plain, Some("text"), "How a line of the log is written: text, or json, one object a line";
}

impl Setting {
    /// Returns the name in the settings file, which is also the name of the flag if there is one.
    #[must_use]
    pub fn key(&self) -> String {
        self.name.strip_prefix("ROLLCALL_").unwrap_or(self.name).to_ascii_lowercase().replace('_', "-")
    }

    /// Returns the flag without its hyphens, or `None` for a secret.
    #[must_use]
    pub fn flag(&self) -> Option<String> {
        (self.kind != Kind::Secret).then(|| self.key())
    }

    /// Returns whether an empty text means something else than the default.
    #[must_use]
    pub fn may_be_empty(&self) -> bool {
        self.name == SOCKETIO_PATH.name
    }

    /// Returns whether the value may be in its own file, whose text is trimmed.
    #[must_use]
    pub fn may_be_in_file(&self) -> bool {
        matches!(self.kind, Kind::Address | Kind::Secret)
    }
}
