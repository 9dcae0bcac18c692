//! Spans of calls to backends, within the request that makes them.
//!
//! Invariant: if spans are not exported, making one costs a comparison with the log's level.
use tracing::{Instrument, Span, field};

/// The log's target of all spans that are exported.
pub const TARGET: &str = "rollcall::trace";

/// Makes a call within a span of its own, which names the system (`sql`, `keys`, `bus`) and the operation.
///
/// # Errors
/// Returns the error of the call.
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

/// Records in a span whether the work in it succeeded.
pub fn outcome(span: &Span, success: bool) {
    if !success {
        span.record("otel.status_code", "ERROR");
    }
}
