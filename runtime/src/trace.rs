//! The traces of several services that a request may belong to: the span that a request gets here, and the trace that
//! is passed on.
//!
//! Invariant: without an export a request has no span, and the trace that came with the request is passed on unchanged.
use hyper::header::{HeaderName, HeaderValue};
use opentelemetry::{
    Context,
    trace::{SpanContext, SpanId, TraceContextExt, TraceFlags, TraceId, TraceState},
};
use rollcall_base::trace::TARGET;
use rollcall_schema::{TraceParent, header::TRACEPARENT};
use tracing::{Span, field, level_filters::LevelFilter};
use tracing_opentelemetry::OpenTelemetrySpanExt;

/// Which of the traces that clients name are sampled.
///
/// A client may be anybody, and each sampled trace has a cost: the export here, and the work of the services that get
/// the trace. So the client's flag counts only if clients are trusted. Otherwise the choice is random. It is not
/// derived from the trace's id, as samplers usually do, because the client chooses that id, too.
#[derive(Clone, Copy, Debug, Default)]
pub struct ClientTraces {
    /// Whether the flag that a client sends counts.
    pub trusted: bool,
    /// The share of the other traces that are sampled.
    pub ratio: f64,
}

impl ClientTraces {
    /// Returns the trace that a client has named, sampled or not.
    #[must_use]
    pub fn admit(self, named: Option<TraceParent>) -> Option<TraceParent> {
        let named = named?;
        Some(if self.trusted { named } else { TraceParent { sampled: drawn(self.ratio), ..named } })
    }
}

/// Returns true as often as the ratio says.
fn drawn(ratio: f64) -> bool {
    // If there are no random numbers, no trace is sampled. The type holds 53 bits exactly.
    getrandom::u64().is_ok_and(|random| ((random >> 11) as f64) < ratio * (1_u64 << 53) as f64)
}

/// Creates the span of one run of a handler, within the trace that came with the request.
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
    // This fails only if the span is not exported.
    let _ = span.set_parent(Context::new().with_remote_span_context(parent));
}

/// Returns the HTTP header for a trace.
pub fn header(trace: Option<TraceParent>) -> Option<(HeaderName, HeaderValue)> {
    let value = HeaderValue::from_str(&trace?.to_string()).ok()?;
    Some((HeaderName::from_static(TRACEPARENT), value))
}

/// Records in its span how a run of a handler ended.
pub fn answered(span: &Span, outcome: &'static str) {
    span.record("outcome", outcome);
    rollcall_base::trace::outcome(span, matches!(outcome, "success" | "refused"));
}

/// Creates the span in which an event of another service is passed to connections. If the event belongs to no trace,
/// the span is disabled.
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

/// Returns the trace for a request to another service, or for an event: the span in which it is sent, or else the trace
/// that came with the request.
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

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_clients_flag_counts_only_where_clients_are_trusted() {
        let of = |sampled| TraceParent { trace: 1, span: 2, sampled };
        for (trusted, ratio, chosen) in
            [(false, 0.0, [false, false]), (false, 1.0, [true, true]), (true, 0.0, [false, true])]
        {
            let admitted = [false, true].map(|flag| ClientTraces { trusted, ratio }.admit(Some(of(flag))));
            assert_eq!(admitted, chosen.map(|sampled| Some(of(sampled))), "{trusted} {ratio}");
        }
        assert_eq!(ClientTraces { trusted: false, ratio: 1.0 }.admit(None), None);
    }
}
