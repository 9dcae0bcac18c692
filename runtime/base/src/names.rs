//! The names of the metrics (PROTOCOL 8), each in one place. Labels come from closed sets, never from ids.

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        $($(#[$doc])* pub const $name: &str = concat!("rollcall_", $text);)*
        /// All names.
        pub const ALL: &[&str] = &[$($name),*];
    };
}

names! {
    /// Gauge: open WebSockets.
    CONNECTIONS = "connections",
    /// Gauge: the maximum number of connections of this node.
    CONNECTIONS_LIMIT = "connections_limit",
    /// Gauge: bytes of memory above which this node takes no connection.
    MEMORY_LIMIT = "memory_limit_bytes",
    /// Gauge: sessions whose connection is on this node.
    SESSIONS = "sessions",
    /// Gauge by `kind`: rooms with members on this node.
    ROOMS = "rooms",
    /// Counter by `outcome`: upgrade requests.
    UPGRADES = "upgrades_total",
    /// Counter by `function` (the handler) and `outcome`: runs of handlers.
    INVOCATIONS = "function_invocations_total",
    /// Histogram by `function`: seconds that handlers run.
    DURATION = "function_duration_seconds",
    /// Gauge by `function`: handlers that run now.
    IN_FLIGHT = "function_in_flight",
    /// Counter: events queued to clients.
    PUSHES = "pushes_total",
    /// Counter: bytes of events queued to clients.
    PUSH_BYTES = "push_bytes_total",
    /// Histogram: seconds from the stream's timestamp to the socket.
    PUBLISH_TO_PUSH = "publish_to_push_seconds",
    /// Counter by `reason`: connections that ended.
    DISCONNECTS = "disconnects_total",
    /// Counter by `reason`: events, requests and connections that were dropped.
    DROPPED = "dropped_total",
    /// Gauge by `pool` and `state`: connections to backends.
    POOL_CONNECTIONS = "pool_connections",
    /// Histogram by `pool`: seconds waited for a connection.
    POOL_WAIT = "pool_wait_seconds",
    /// Counter by `backend` and `operation`: failed calls.
    BACKEND_ERRORS = "backend_errors_total",
    /// Counter by `reason`: tokens that were refused.
    TOKENS_REFUSED = "tokens_refused_total",
    /// Counter: wrong tokens on the admin address.
    ADMIN_TOKENS_REFUSED = "admin_tokens_refused_total",
    /// Counter by `outcome`: questions to the authorization service.
    AUTHZ = "authz_questions_total",
    /// Gauge: how long this node's lease is, in seconds.
    LEASE = "lease_seconds",
    /// Gauge: when this node last renewed its lease, in Unix seconds.
    LEASE_RENEWED = "lease_renewed_timestamp_seconds",
    /// Gauge: the longest time, in seconds, for which an agent that is gone is shown as present while the backends
    /// answer.
    GHOST_BOUND = "ghost_bound_seconds",
    /// Gauge: when the present drain must be over, in Unix seconds; 0 without a drain.
    DRAIN_DEADLINE = "drain_deadline_timestamp_seconds",
    /// Gauge: bytes of the stream, as the stream last told this node.
    STREAM_BYTES = "stream_bytes",
    /// Gauge: the maximum number of bytes of the stream. It is absent if there is no limit.
    STREAM_LIMIT = "stream_limit_bytes",
    /// Gauge: events that are not published yet.
    OUTBOX_ROWS = "outbox_rows",
    /// Gauge: age in seconds of the oldest event that is not published yet.
    OUTBOX_LAG = "outbox_lag_seconds",
    /// Counter by `reason`: rows that were quarantined.
    OUTBOX_SET_ASIDE = "outbox_set_aside_total",
    /// Gauge: rows in quarantine, of the shards that this node relays.
    OUTBOX_ASIDE = "outbox_aside_rows",
    /// Counter: log lines that were left out, because one place in the code wrote many.
    LOG_LINES_OMITTED = "log_lines_omitted_total",
    /// Counter by `outcome`: how often the settings were read again on SIGHUP.
    RELOADS = "reloads_total",
    /// Counter by `outcome`: requests that export spans to the collector.
    TRACE_EXPORTS = "trace_exports_total",
    /// Gauge: age in seconds of the oldest event that waits for the webhook's receiver, on the node that delivers.
    WEBHOOK_LAG = "webhook_lag_seconds",
    /// Counter: events that the webhook's receiver accepted.
    WEBHOOK_EVENTS = "webhook_events_total",
    /// Counter: requests that the webhook's receiver did not accept.
    WEBHOOK_RETRIES = "webhook_retries_total",
    /// Gauge: classrooms whose events the receiver refuses, on the node that delivers.
    WEBHOOK_PARKED = "webhook_parked_classrooms",
    /// Counter by `reason`: events that the receiver never got.
    WEBHOOK_DROPPED = "webhook_dropped_total",
    /// Counter: rows of the history that were deleted because they were too old.
    HISTORY_DELETED = "history_deleted_total",
    /// Gauge: sessions whose end the database refuses to write, until it is written.
    REFUSED_ENDS = "refused_ends",
    /// Gauge: calls that were cut off and are being undone.
    UNDOS = "undos",
    /// Counter by `function` and `outcome`: calls of functions over HTTP.
    FUNCTION_CALLS = "function_calls_total",
    /// Gauge by `function`: 1 while a function over HTTP is not called because it gave no answers, else 0.
    FUNCTION_CIRCUIT_OPEN = "function_circuit_open",
    /// Counter by `outcome`: events that handlers and other services published.
    EVENTS_PUBLISHED = "events_published_total",
    /// Counter: how often sessions were compared with their rows, because the database had lost commits.
    SESSION_CHECKS = "session_checks_total",
    /// Gauge by `version`, always 1.
    BUILD_INFO = "build_info",
}
