//! Spans of calls to backends, within the request that makes them.
//!
//! Invariant: where spans are not exported, making one costs a comparison with the log's level.
use tracing::{Instrument, Span, field};

/// The target of all spans that are exported.
pub const TARGET: &str = "rollcall::trace";

/// Makes a call within a span of its own: of this system (`sql`, `keys`, `bus`), and this operation.
///
/// # Errors
/// The call's own.
pub async fn call<T, E>(
    system: &'static str,
    operation: &'static str,
    call: impl Future<Output = Result<T, E>>,
) -> Result<T, E> {
    let span = tracing::trace_span!(
        target: TARGET,
        "call",
        otel.name = operation,
        otel.kind = "client",
        otel.status_code = field::Empty,
        system,
    );
    let result = call.instrument(span.clone()).await;
    outcome(&span, result.is_ok());
    result
}

/// Notes in a span whether what it spans succeeded.
pub fn outcome(span: &Span, success: bool) {
    if !success {
        span.record("otel.status_code", "ERROR");
    }
}
