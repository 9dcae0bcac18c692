//! Runs a handler with a timeout and metrics, and catches its panics.
use std::{
    panic::{AssertUnwindSafe, resume_unwind},
    time::Duration,
};

use futures_util::{FutureExt, future::BoxFuture};
use rollcall_schema::{Answer, SessionError, TraceParent};
use tokio::time::Instant;
use tracing::{Instrument, error};

use super::error::{Blame, ConnectError, HandlerError, Interrupted, Refused};
use crate::trace;
use rollcall_base::names;

/// Returns the answer of a handler, or the error that its client is told instead.
pub(super) fn answered<A>(result: Result<Result<A, HandlerError>, Interrupted>) -> Result<A, Answer> {
    match result {
        Ok(result) => result.map_err(HandlerError::into_answer),
        Err(interrupted) => Err(interrupted.to_client().into()),
    }
}

/// Runs a handler that lets a client in or refuses it.
pub(super) async fn let_in<A>(
    limit: Duration,
    trace: Option<TraceParent>,
    call: BoxFuture<'_, Result<A, ConnectError>>,
) -> Result<A, Refused> {
    match contained("connect", limit, trace, call).await {
        Ok(result) => result.map_err(Into::into),
        Err(_) => Err(SessionError::InternalServerError.into()),
    }
}

/// Runs a handler with its timeout, its metrics and its span, and catches its panics. The call is boxed, because by
/// value the handler's state would be in each of the futures around it: 8 KiB for a connect instead of 3.
pub(super) async fn contained<A, E: Blame>(
    function: &'static str,
    limit: Duration,
    trace: Option<TraceParent>,
    call: BoxFuture<'_, Result<A, E>>,
) -> Result<Result<A, E>, Interrupted> {
    let span = trace::request(function, trace);
    let call = call.instrument(span.clone());
    let started = Instant::now();
    let in_flight = metrics::gauge!(names::IN_FLIGHT, "function" => function);
    in_flight.increment(1.0);
    let result = match tokio::time::timeout(limit, AssertUnwindSafe(call).catch_unwind()).await {
        Ok(Ok(result)) => Ok(result),
        Ok(Err(_)) => Err(Interrupted::Panicked),
        Err(_) => Err(Interrupted::TimedOut),
    };
    in_flight.decrement(1.0);
    let outcome = match &result {
        Ok(Ok(_)) => "success",
        Ok(Err(error)) if error.is_clients() => "refused",
        Ok(Err(_)) => "error",
        Err(Interrupted::TimedOut) => "timed_out",
        Err(Interrupted::Panicked) => "panicked",
    };
    trace::answered(&span, outcome);
    if matches!(result, Err(Interrupted::Panicked)) {
        error!(function, "a handler panicked; its connection goes on");
    }
    ran(function, outcome, started);
    result
}

/// Runs the handler that has neither timeout nor answer, and records its metrics. A panic goes on to the caller.
pub(super) async fn measured(function: &'static str, call: impl Future<Output = ()>) {
    let started = Instant::now();
    let in_flight = metrics::gauge!(names::IN_FLIGHT, "function" => function);
    in_flight.increment(1.0);
    let result = AssertUnwindSafe(call).catch_unwind().await;
    in_flight.decrement(1.0);
    ran(function, if result.is_ok() { "success" } else { "panicked" }, started);
    if let Err(panic) = result {
        resume_unwind(panic);
    }
}

fn ran(function: &'static str, outcome: &'static str, started: Instant) {
    metrics::counter!(names::INVOCATIONS, "function" => function, "outcome" => outcome).increment(1);
    metrics::histogram!(names::DURATION, "function" => function).record(started.elapsed().as_secs_f64());
}

/// Sets a handler's series to 0 before it runs for the first time.
pub(super) fn begin(function: &'static str) {
    metrics::gauge!(names::IN_FLIGHT, "function" => function).set(0.0);
    metrics::counter!(names::INVOCATIONS, "function" => function, "outcome" => "success").increment(0);
    let _ = metrics::histogram!(names::DURATION, "function" => function);
}
