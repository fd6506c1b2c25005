//! Traces to an OpenTelemetry collector: OTLP, protobuf over HTTP, when `OTLP_ENDPOINT` is set; else nothing of this
//! runs.
//!
//! Exported are the spans at `debug` level of this server: a `request` for each JSON message, from its decoding to its
//! commit, and a `commit` for each batch, linked to the requests in it; and one for each HTTP request that is no probe.
//! None is made per tick. Whoever records never waits: finished spans go into a bounded queue, a thread of the SDK
//! sends them off, and what doesn't fit is dropped. A collector that is away costs the spans, and a warning now and
//! then.

use std::fmt;
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::BoxFuture;
use http::{Request, Response};
use http_body_util::{BodyExt, Full, Limited};
use hyper_rustls::{ConfigBuilderExt, HttpsConnector, HttpsConnectorBuilder};
use hyper_util::client::legacy::Client;
use hyper_util::client::legacy::connect::HttpConnector;
use hyper_util::rt::TokioExecutor;
use opentelemetry::KeyValue;
use opentelemetry::trace::TracerProvider;
use opentelemetry_http::{HttpClient, HttpError};
use opentelemetry_otlp::{Protocol, SpanExporter, WithExportConfig, WithHttpConfig};
use opentelemetry_sdk::Resource;
use opentelemetry_sdk::trace::{Sampler, SdkTracer, SdkTracerProvider};
use parking_lot::Mutex;
use rustls::RootCertStore;
use tokio::time::Instant;
use url::Url;

use crate::authorities::{self, AuthoritiesError};
use crate::clock::Clock;

/// Time limit of one export.
const PATIENCE: Duration = Duration::from_secs(5);
/// Time limit of the last export, at a stop.
const FLUSH: Duration = Duration::from_millis(500);
/// Interval of the warning about a collector that doesn't answer.
const WARN_EVERY: Duration = Duration::from_secs(60);
/// Bytes that are read of an answer.
const ANSWER_BYTES: usize = 64 * 1024;

/// The collector.
#[derive(Debug, Clone, PartialEq)]
pub struct Otlp {
    endpoint: Url,
    /// Share of the requests that are traced, per cent.
    percent: u8,
    /// PEM file of the authorities that are trusted instead of the machine's.
    ca: Option<PathBuf>,
}

impl Otlp {
    /// `http://host:4318` or `https://…`. Without a path it is OTLP's own, `/v1/traces`.
    pub fn parse(text: &str) -> Result<Self, String> {
        let wrong = || "not a URL such as http://collector:4318".to_owned();
        let url = Url::parse(text).map_err(|_| wrong())?;
        if !matches!(url.scheme(), "http" | "https") || !text.contains("://") {
            return Err(wrong());
        }
        if !url.username().is_empty() || url.password().is_some() {
            return Err("credentials belong into OTEL_EXPORTER_OTLP_HEADERS, not into the URL".to_owned());
        }
        let mut endpoint = url;
        endpoint.set_fragment(None);
        if endpoint.path() == "/" {
            endpoint.set_path("/v1/traces");
        }
        Ok(Self { endpoint, percent: 100, ca: None })
    }

    /// Traces this share of the requests, per cent.
    #[must_use]
    pub fn sampled(self, percent: u8) -> Self {
        Self { percent, ..self }
    }

    /// Trusts the authorities of this PEM file instead of the machine's.
    #[must_use]
    pub fn trusting(self, ca: Option<PathBuf>) -> Self {
        Self { ca, ..self }
    }

    /// Whether the collector is asked over TLS.
    pub fn is_encrypted(&self) -> bool {
        self.endpoint.scheme() == "https"
    }

    /// TLS of the client. Over plain HTTP the root store stays empty and no CA file is read.
    fn tls(&self) -> Result<rustls::ClientConfig, OtlpError> {
        let builder = rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(|error| OtlpError::Start(error.to_string()))?;
        let builder = match &self.ca {
            _ if !self.is_encrypted() => builder.with_root_certificates(RootCertStore::empty()),
            Some(path) => {
                builder.with_root_certificates(authorities::read(path).map_err(OtlpError::Authorities)?.roots)
            }
            None => builder.with_native_roots().map_err(|error| OtlpError::NoAuthorities(error.to_string()))?,
        };
        Ok(builder.with_no_client_auth())
    }
}

/// Why exporting can't start.
#[derive(Debug, thiserror::Error)]
pub enum OtlpError {
    #[error("OTLP_ENDPOINT: {0}")]
    Start(String),
    #[error("OTLP_CA_PATH={0}")]
    Authorities(#[source] AuthoritiesError),
    /// The machine has none.
    #[error("OTLP_ENDPOINT: whose certificates are to be trusted? OTLP_CA_PATH can say it: {0}")]
    NoAuthorities(String),
}

/// A running exporter. Needs a Tokio runtime, on which its requests run.
pub(super) fn start(otlp: &Otlp, node: &str) -> Result<SdkTracerProvider, OtlpError> {
    // Set here, because otherwise the SDK reads OTEL_EXPORTER_OTLP_PROTOCOL, which OpenTelemetry's operator sets in
    // each pod.
    let exporter = SpanExporter::builder()
        .with_http()
        .with_protocol(Protocol::HttpBinary)
        .with_http_client(Collector::new(otlp.tls()?))
        .with_endpoint(otlp.endpoint.to_string())
        .with_timeout(PATIENCE)
        .build()
        .map_err(|error| OtlpError::Start(error.to_string()))?;
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

/// The tracer of that exporter.
pub(super) fn tracer(provider: &SdkTracerProvider) -> SdkTracer {
    provider.tracer("tandem")
}

/// Sends what is left, within [`FLUSH`]. Blocks: not for async threads.
pub(super) fn finish(provider: &SdkTracerProvider) {
    if let Err(error) = provider.shutdown_with_timeout(FLUSH) {
        tracing::warn!(%error, "the last traces are lost");
    }
}

/// An HTTP client on the server's runtime and TLS. The SDK's thread has no runtime: it only waits for the answer.
struct Collector {
    runtime: tokio::runtime::Handle,
    client: Client<HttpsConnector<HttpConnector>, Full<Bytes>>,
    warned: Mutex<Option<Instant>>,
}

impl Collector {
    fn new(tls: rustls::ClientConfig) -> Self {
        let connector = HttpsConnectorBuilder::new().with_tls_config(tls).https_or_http().enable_http1().build();
        Self {
            runtime: tokio::runtime::Handle::current(),
            client: Client::builder(TokioExecutor::new()).build(connector),
            warned: Mutex::default(),
        }
    }

    /// Limits the warnings: a collector may be away for hours.
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
        // The timer belongs to the runtime: the SDK's thread has none.
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

/// The innermost source: hyper's own text says only that the request failed.
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
        assert_eq!(endpoint("http://collector?key=1").as_deref(), Ok("http://collector/v1/traces?key=1"));
        let hosts = ["collector:4318", "grpc://collector:4317", "http://", "https://:4318", "/v1/traces", "http://a b"];
        let others = ["http:collector", "http://collector:99999", "http://me:secret@collector"];
        for wrong in hosts.into_iter().chain(others) {
            assert!(endpoint(wrong).is_err(), "{wrong}");
        }
    }
}
