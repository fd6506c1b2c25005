//! Traces to an OpenTelemetry collector: OTLP, protobuf over HTTP, when `OTLP_ENDPOINT` is set; else nothing of this runs.
//!
//! Exported are the spans at `debug` level of this server: a `request` for each JSON message, from its decoding to its
//! commit, and a `commit` for each batch, linked to the requests in it. None is made per tick. Whoever records never waits:
//! finished spans go into a bounded queue, a thread of the SDK sends them off, and what doesn't fit is dropped. A collector
//! that is away costs the spans, and a warning now and then.

use std::fmt;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use parking_lot::Mutex;
use tokio::time::Instant;

use crate::clock::Clock;

/// One export.
const PATIENCE: Duration = Duration::from_secs(5);
/// What the last spans get at a stop.
const FLUSH: Duration = Duration::from_millis(500);
/// A warning about a collector that is away comes this often.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Of an answer nothing is read beyond this.
const ANSWER_BYTES: usize = 64 * 1024;

/// Where traces go.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    endpoint: http::Uri,
    /// Of a hundred requests, so many are traced.
    percent: u8,
}

impl Otlp {
    /// `http://host:4318` or `https://…`. Without a path it is OTLP's own, `/v1/traces`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "not a URL such as http://collector:4318".to_owned();
        let uri: http::Uri = text.parse().map_err(|_| wrong())?;
        if !matches!(uri.scheme_str(), Some("http" | "https")) || uri.host().is_none_or(str::is_empty) {
            return Err(wrong());
        }
        if uri.authority().is_some_and(|authority| authority.as_str().contains('@')) {
            return Err("credentials belong into OTEL_EXPORTER_OTLP_HEADERS, not into the URL".to_owned());
        }
        let endpoint = if uri.path() == "/" {
            format!("{}/v1/traces", text.trim_end_matches('/')).parse().map_err(|_| wrong())?
        } else {
            uri
        };
        Ok(Self { endpoint, percent: 100 })
    }

    /// Of a hundred requests, so many are traced.
    #[must_use]
    pub fn sampled(self, percent: u8) -> Self {
        Self { percent, ..self }
    }
}

/// Exporting can't start.
#[derive(Debug, thiserror::Error)]
#[error("OTLP_ENDPOINT: {0}")]
pub struct OtlpError(String);

/// The exporter at work. On a runtime only: it is where requests to the collector run.
pub(super) fn start(otlp: &Otlp, node: &str) -> Result<SdkTracerProvider, OtlpError> {
    let failed = |error: &dyn fmt::Display| OtlpError(error.to_string());
    let exporter = SpanExporter::builder()
        .with_http()
        .with_http_client(Collector::new().map_err(|error| failed(&error))?)
        .with_endpoint(otlp.endpoint.to_string())
        .with_timeout(PATIENCE)
        .build()
        .map_err(|error| failed(&error))?;
    let resource = Resource::builder_empty()
        .with_attributes([
            KeyValue::new("service.name", "tandem"),
            KeyValue::new("service.version", env!("CARGO_PKG_VERSION")),
            KeyValue::new("service.instance.id", node.to_owned()),
        ])
        .build();
    let ratio = f64::from(otlp.percent) / 100.0;
    Ok(SdkTracerProvider::builder()
        .with_batch_exporter(exporter)
        .with_sampler(Sampler::ParentBased(Box::new(Sampler::TraceIdRatioBased(ratio))))
        .with_resource(resource)
        .build())
}

/// Makes the spans of that exporter.
pub(super) fn tracer(provider: &SdkTracerProvider) -> SdkTracer {
    provider.tracer("tandem")
}

/// Sends what is left, for no longer than [`FLUSH`]. Waits: not on the async threads.
pub(super) fn finish(provider: &SdkTracerProvider) {
    if let Err(error) = provider.shutdown_with_timeout(FLUSH) {
        tracing::warn!(%error, "the last traces are lost");
    }
}

/// A HTTP client on the server's own runtime and TLS. The SDK's thread has no runtime: it only waits for the answer.
struct Collector {
    runtime: tokio::runtime::Handle,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    warned: Mutex<Option<Instant>>,
}

impl Collector {
    fn new() -> std::io::Result<Self> {
        let connector = HttpsConnectorBuilder::new()
            .with_provider_and_native_roots(rustls::crypto::ring::default_provider())?
            .https_or_http()
            .enable_http1()
            .build();
        Ok(Self {
            runtime: tokio::runtime::Handle::current(),
            client: Client::builder(TokioExecutor::new()).build(connector),
            warned: Mutex::default(),
        })
    }

    /// Once in a while: a collector is away for as long as somebody mends it.
    fn warn(&self, error: &dyn fmt::Display) {
        let mut warned = self.warned.lock();
        if warned.is_none_or(|at| at.elapsed() >= WARN_EVERY) {
            *warned = Some(Clock::instant());
            tracing::warn!(%error, "traces are lost: the collector does not take them");
        }
    }
}

impl fmt::Debug for Collector {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("Collector")
    }
}

impl HttpClient for Collector {
    fn send_bytes<'this, 'answer>(
        &'this self,
        request: Request<Bytes>,
    ) -> BoxFuture<'answer, Result<Response<Bytes>, HttpError>>
    where
        'this: 'answer,
        Self: 'answer,
    {
        let client = self.client.clone();
        let exchange = async move {
            let (head, body) = client.request(request.map(Full::new)).await?.into_parts();
            let body = Limited::new(body, ANSWER_BYTES).collect().await?.to_bytes();
            if !head.status.is_success() {
                return Err(format!("it answers {}", head.status).into());
            }
            Ok::<_, HttpError>(Response::from_parts(head, body))
        };
        // Made on the runtime too: this thread has no timers.
        let task = self.runtime.spawn(async move { tokio::time::timeout(PATIENCE, exchange).await });
        Box::pin(async move {
            let outcome = match task.await {
                Ok(Ok(outcome)) => outcome,
                Ok(Err(_)) => Err(format!("no answer within {PATIENCE:?}").into()),
                Err(error) => Err(error.into()),
            };
            outcome.inspect_err(|error| self.warn(&because(error.as_ref())))
        })
    }
}

/// The innermost reason: hyper's own words say only that it failed.
fn because(error: &(dyn std::error::Error + 'static)) -> String {
    let mut error = error;
    while let Some(source) = error.source() {
        error = source;
    }
    error.to_string()
}

#[cfg(test)]
mod tests {
    use super::Otlp;

    #[test]
    fn an_endpoint_is_a_url_and_its_path_is_otlp_s_own_unless_given() {
        let endpoint = |text| Otlp::parse(text).map(|otlp| otlp.endpoint.to_string());
        assert_eq!(endpoint("http://collector:4318").as_deref(), Ok("http://collector:4318/v1/traces"));
        assert_eq!(endpoint("https://collector/").as_deref(), Ok("https://collector/v1/traces"));
        assert_eq!(endpoint("http://collector:4318/api/otlp").as_deref(), Ok("http://collector:4318/api/otlp"));
        for wrong in ["collector:4318", "grpc://collector:4317", "http://", "/v1/traces", "http://me:secret@collector"]
        {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
