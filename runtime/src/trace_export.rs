//! Exports spans to a collector with OTLP over HTTP.
//!
//! Invariant: no request waits for an export. Spans wait in a bounded queue, and are dropped if the queue is full.
use std::{collections::HashMap, fmt, time::Duration};

use async_trait::async_trait;
use hyper::{HeaderMap, Uri};
use opentelemetry::{KeyValue, trace::TracerProvider};
use opentelemetry_http::{Bytes, HttpClient, HttpError, Request, Response};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::{
    Resource,
    trace::{Sampler, SdkTracerProvider},
};
use rollcall_base::{Secret, names, trace::TARGET};
use tokio::runtime::Handle;
use tracing::level_filters::LevelFilter;
use tracing_subscriber::{Layer, filter::Targets};

use crate::{
    http_client::{Client, egress::Egress},
    log::SpanLayer,
};

/// How long an export may take.
const TIMEOUT: Duration = Duration::from_secs(5);
/// How long the last export may take when the process ends.
const LAST_EXPORT: Duration = Duration::from_secs(2);
/// The longest answer of a collector, in bytes.
const MAX_ANSWER: usize = 64 << 10;

/// The address that spans are sent to, and which spans are sent.
#[derive(Clone, Debug)]
pub struct TraceConfig {
    /// The collector's address for traces.
    pub url: Uri,
    /// Further headers of each request, like `api-key`.
    pub headers: Vec<(String, Secret)>,
    /// The name of this service.
    pub service: String,
    /// The share of the traces that begin on this node and are exported.
    pub ratio: f64,
}

/// A running export.
pub struct TraceExport(SdkTracerProvider);

impl TraceExport {
    /// Begins to export.
    ///
    /// # Errors
    /// Returns an error if the library refuses the configuration.
    pub fn start(
        config: TraceConfig,
        egress: &Egress,
        runtime: &Handle,
    ) -> Result<(Self, SpanLayer), opentelemetry_otlp::ExporterBuildError> {
        let headers = config.headers.iter().map(|(name, value)| (name.clone(), value.reveal().to_owned()));
        let exporter = SpanExporter::builder()
            .with_http()
            .with_http_client(Sender { client: Client::new(egress).timeout(TIMEOUT), runtime: runtime.clone() })
            .with_protocol(Protocol::HttpBinary)
            .with_endpoint(config.url.to_string())
            .with_headers(headers.collect::<HashMap<_, _>>())
            .with_timeout(TIMEOUT)
            .build()?;
        let resource = Resource::builder()
            .with_service_name(config.service)
            .with_attribute(KeyValue::new("service.version", env!("CARGO_PKG_VERSION")))
            .build();
        let provider = SdkTracerProvider::builder()
            .with_batch_exporter(exporter)
            .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(config.ratio))))
            .with_resource(resource)
            .build();
        let spans = tracing_opentelemetry::layer()
            .with_tracer(provider.tracer("rollcall"))
            .with_location(false)
            .with_threads(false)
            .with_tracked_inactivity(false)
            .with_filter(Targets::new().with_target(TARGET, LevelFilter::TRACE));
        Ok((Self(provider), spans.boxed()))
    }

    /// Exports the remaining spans. This call blocks for at most 2 s, and the runtime must still run.
    pub fn finish(self) {
        if let Err(error) = self.0.shutdown_with_timeout(LAST_EXPORT) {
            tracing::warn!(%error, "the last spans were not exported");
        }
    }
}

/// Sends exports with the gateway's own client. The library calls it on its own thread, outside of the runtime.
struct Sender {
    client: Client,
    runtime: Handle,
}

impl fmt::Debug for Sender {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Sender")
    }
}

#[async_trait]
impl HttpClient for Sender {
    async fn send_bytes(&self, request: Request<Bytes>) -> Result<Response<Bytes>, HttpError> {
        let (head, body) = request.into_parts();
        let (client, headers): (_, HeaderMap) = (self.client.clone(), head.headers);
        let sent = async move { client.send(head.method, head.uri, headers, body, MAX_ANSWER).await };
        let answer = self.runtime.spawn(sent).await?;
        let (outcome, lost) = match &answer {
            Ok((status, _)) if status.is_success() => ("done", None),
            Ok((status, _)) => ("refused", Some(format!("it answered {status}"))),
            Err(error) => ("away", Some(error.to_string())),
        };
        metrics::counter!(names::TRACE_EXPORTS, "outcome" => outcome).increment(1);
        if let Some(why) = lost {
            tracing::warn!(why, "the collector at OTEL_EXPORTER_OTLP_ENDPOINT did not take spans");
        }
        let (status, body) = answer?;
        Ok(Response::builder().status(status).body(body)?)
    }
}
