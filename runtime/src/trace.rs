//! Where a request belongs in a trace of several services: the span that it gets here, and what is passed on.
//!
//! Invariant: without an export a request has no span, and what came with it is passed on as it is.
use hyper::header::{HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use rollcall_base::trace::TARGET;
use rollcall_schema::{TraceParent, header::TRACEPARENT};
use tracing::{Span, field, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// The span of one run of a handler, within the trace that came with the request.
#[must_use]
pub fn request(function: &'static str, parent: Option<TraceParent>) -> Span {
    let span = tracing::trace_span!(
        target: TARGET,
        "request",
        otel.name = function,
        otel.kind = "server",
        otel.status_code = field::Empty,
        outcome = field::Empty,
    );
    parent.into_iter().for_each(|parent| set_parent(&span, parent));
    span
}

fn set_parent(span: &Span, TraceParent { trace, span: parent, sampled }: TraceParent) {
    if span.is_disabled() {
        return;
    }
    let flags = if sampled { TraceFlags::SAMPLED } else { TraceFlags::NOT_SAMPLED };
    let (trace, parent) = (TraceId::from(trace), SpanId::from(parent));
    let parent = SpanContext::new(trace, parent, flags, true, TraceState::NONE);
    // It fails only where the span is not exported.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// The same as a header of HTTP.
pub fn header(trace: Option<TraceParent>) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::from_str(&trace?.to_string()).ok()?;
    Some((HeaderName::from_static(TRACEPARENT), value))
}

/// Notes in its span how a run of a handler ended.
pub fn answered(span: &Span, outcome: &'static str) {
    span.record("outcome", outcome);
    rollcall_base::trace::outcome(span, matches!(outcome, "success" | "refused"));
}

/// The span in which an event of another service is handed to connections; none where the event belongs to no trace.
#[must_use]
pub fn delivery(event: Option<TraceParent>) -> Span {
    match event {
        Some(parent) => {
            let span = tracing::trace_span!(target: TARGET, "deliver", otel.kind = "consumer");
            set_parent(&span, parent);
            span
        }
        None => Span::none(),
    }
}

/// What a request to another service, or an event, carries: the span that it is sent in, or else what came with the request.
#[must_use]
pub fn outgoing(passed_on: Option<TraceParent>) -> Option<TraceParent> {
    if LevelFilter::current() < LevelFilter::TRACE {
        return passed_on;
    }
    let context = Span::current().context();
    let span = context.span();
    let current = span.span_context();
    let known = current.is_valid().then(|| TraceParent {
        trace: u128::from_be_bytes(current.trace_id().to_bytes()),
        span: u64::from_be_bytes(current.span_id().to_bytes()),
        sampled: current.is_sampled(),
    });
    known.or(passed_on)
}
