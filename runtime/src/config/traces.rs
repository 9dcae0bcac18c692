//! Settings of traces. If the OpenTelemetry project has the same setting, the setting has the project's name.
use hyper::Uri;
use percent_encoding::percent_decode_str;
use rollcall_base::Secret;

use super::{names, source::Source, value};
use crate::{trace::ClientTraces, trace_export::TraceConfig};

/// The path of traces below a collector's address.
const PATH: &str = "/v1/traces";

/// Reads which of the traces that clients name are sampled, even if no spans are exported.
pub(super) fn of_clients(source: &mut Source<'_>) -> ClientTraces {
    let trusted = source.value(&names::TRACE_TRUST_CLIENTS, value::switch);
    ClientTraces { trusted, ratio: source.value(&names::TRACE_RATIO, value::fraction) }
}

/// Returns the collector of spans, for this share of the traces that begin here. Returns `None` if no spans are
/// exported.
pub(super) fn read(source: &mut Source<'_>, ratio: f64) -> Option<TraceConfig> {
    let service = source.value(&names::OTEL_SERVICE_NAME, |text| Ok(text.to_owned()));
    let headers = source.secret(&names::OTEL_EXPORTER_OTLP_HEADERS).map(|text| headers(text.reveal()));
    let headers = headers.unwrap_or_else(|| Some(Vec::new()));
    if headers.is_none() {
        source.fault(&names::OTEL_EXPORTER_OTLP_HEADERS, "write NAME=VALUE, several separated by commas");
    }
    let url = source.optional(&names::OTEL_EXPORTER_OTLP_ENDPOINT, endpoint)?;
    Some(TraceConfig { url, headers: headers?, service, ratio })
}

fn endpoint(text: &str) -> Result<Uri, String> {
    value::http(text)?;
    if text.contains('?') {
        return Err(format!("write it without parameters; a key goes into {}", names::OTEL_EXPORTER_OTLP_HEADERS.name));
    }
    let base = text.trim_end_matches('/');
    if base.ends_with(PATH) {
        return Err(format!("write it without {PATH}, which is added"));
    }
    value::http(&format!("{base}{PATH}"))
}

/// Reads `NAME=VALUE`, or several separated by commas. The values are percent-encoded.
fn headers(text: &str) -> Option<Vec<(String, Secret)>> {
    let header = |pair: &str| {
        let (name, value) = pair.split_once('=')?;
        let value = percent_decode_str(value.trim()).decode_utf8().ok()?;
        let name = value::header(name.trim()).ok()?;
        hyper::header::HeaderValue::from_str(&value).ok()?;
        Some((name.as_str().to_owned(), Secret::new(&*value)))
    };
    text.split(',').filter(|pair| !pair.trim().is_empty()).map(header).collect()
}
