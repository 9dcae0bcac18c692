//! The metrics' names (PROTOCOL 8), each once. Labels come from closed sets, never from ids.

macro_rules! names {
    ($($(#[$doc:meta])* $name:ident = $text:literal),* $(,)?) => {
        $($(#[$doc])* pub const $name: &str = concat!("rollcall_", $text);)*
    };
}

names! {
    /// Gauge: open WebSockets.
    CONNECTIONS = "connections",
    /// Gauge: sessions owned here.
    SESSIONS = "sessions",
    /// Gauge by `kind`: rooms with members here.
    ROOMS = "rooms",
    /// Counter by `outcome`.
    UPGRADES = "upgrades_total",
    /// Counter by `function` and `outcome`.
    INVOCATIONS = "function_invocations_total",
    /// Histogram by `function`.
    DURATION = "function_duration_seconds",
    /// Gauge by `function`.
    IN_FLIGHT = "function_in_flight",
    /// Counter: frames of events queued to clients.
    PUSHES = "pushes_total",
    /// Counter: their bytes.
    PUSH_BYTES = "push_bytes_total",
    /// Histogram: from the stream's timestamp to the socket.
    PUBLISH_TO_PUSH = "publish_to_push_seconds",
    /// Counter by `reason`.
    DISCONNECTS = "disconnects_total",
    /// Counter by `reason`: what was thrown away.
    DROPPED = "dropped_total",
    /// Gauge by `pool` and `state`.
    POOL_CONNECTIONS = "pool_connections",
    /// Histogram by `pool`.
    POOL_WAIT = "pool_wait_seconds",
    /// Counter by `backend` and `operation`.
    BACKEND_ERRORS = "backend_errors_total",
    /// Counter by `reason`: tokens that were not let in.
    TOKENS_REFUSED = "tokens_refused_total",
    /// Counter by `outcome`: questions to the authorization service.
    AUTHZ = "authz_questions_total",
    /// Gauge.
    OUTBOX_ROWS = "outbox_rows",
    /// Gauge.
    OUTBOX_LAG = "outbox_lag_seconds",
    /// Counter by `reason`: rows that were set aside.
    OUTBOX_SET_ASIDE = "outbox_set_aside_total",
    /// Gauge: rows that are set aside now, of the shards that this node relays.
    OUTBOX_ASIDE = "outbox_aside_rows",
    /// Counter: lines of the log that were left out, because the same place wrote many.
    LOG_LINES_OMITTED = "log_lines_omitted_total",
    /// Gauge: sessions whose end the database refuses, until it is written.
    REFUSED_ENDS = "refused_ends",
    /// Counter: how often sessions were compared with their rows, because the database had lost commits.
    SESSION_CHECKS = "session_checks_total",
    /// Gauge, always 1, by `version`.
    BUILD_INFO = "build_info",
}
