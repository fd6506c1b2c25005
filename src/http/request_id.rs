//! Request ids, by which a request is found at the client, in a proxy's log, in this server's log and in a trace.
//!
//! A client or a proxy may send an id (`X-Request-Id`). A malformed one is ignored, and the request gets a new id. The
//! answer carries the id, and so does every log line of the request, as `correlationId`.
//!
//! Probes and scrapes arrive every few seconds, so they get a span at `debug` and no trace. Other requests get a span
//! at `info`, which is traced, so that a warning shows its request.

use std::fmt;

use axum::extract::MatchedPath;
use axum::extract::Request;
use http::{HeaderMap, HeaderName, HeaderValue, Method, StatusCode};
use tracing::{Span, field};

use crate::domain::NodeId;
use crate::telemetry::{PROBE_SPAN, REQUEST_SPAN};

pub(super) const REQUEST_ID: HeaderName = HeaderName::from_static("x-request-id");

/// Characters of a client's id, at most.
const LENGTH: usize = 64;

/// Paths of probes and scrapes.
const PROBES: [&str; 4] = ["/health", "/ready", "/status", "/metrics"];

/// The id of one request.
#[derive(Debug, Clone)]
pub(super) struct RequestId(HeaderValue);

impl RequestId {
    /// The client's id, if there is exactly one of 1–64 characters of `A–Z a–z 0–9 . _ : + / = -`; else a new one: the
    /// node's name and a random number.
    pub(super) fn of(headers: &HeaderMap, node: &NodeId) -> Self {
        let mut given = headers.get_all(REQUEST_ID).iter();
        match (given.next(), given.next()) {
            (Some(id), None) if is_well_formed(id.as_bytes()) => Self(id.clone()),
            _ => Self::new(node),
        }
    }

    fn new(node: &NodeId) -> Self {
        let number: u64 = rand::random();
        // Node names consist of characters that a header may have.
        let id = HeaderValue::try_from(format!("{node}-{number:016x}"));
        Self(id.unwrap_or_else(|_| HeaderValue::from(number)))
    }

    pub(super) fn into_header(self) -> HeaderValue {
        self.0
    }

    /// The request's span. It names the route instead of the path, because paths contain rooms and, in v2's links,
    /// PINs.
    pub(super) fn span(&self, request: &Request) -> Span {
        let method = word(request.method());
        let route = request.extensions().get::<MatchedPath>().map_or("", MatchedPath::as_str);
        if PROBES.contains(&route) {
            return tracing::debug_span!(PROBE_SPAN, correlationId = %self, method, route);
        }
        tracing::info_span!(
            REQUEST_SPAN,
            otel.name = %Named { method, route },
            otel.kind = "server",
            otel.status_code = field::Empty,
            correlationId = %self,
            method,
            route,
            status = field::Empty,
        )
    }
}

impl fmt::Display for RequestId {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.0.to_str().unwrap_or_default())
    }
}

/// Records the status in the request's span.
pub(super) fn record(span: &Span, status: StatusCode) {
    if span.is_disabled() {
        return;
    }
    span.record("status", status.as_u16());
    if status.is_server_error() {
        span.record("otel.status_code", "ERROR");
    }
    span.in_scope(|| tracing::debug!(status = status.as_u16(), "HTTP request"));
}

fn is_well_formed(id: &[u8]) -> bool {
    let allowed = |b: &u8| b.is_ascii_alphanumeric() || b"._:+/=-".contains(b);
    (1..=LENGTH).contains(&id.len()) && id.iter().all(allowed)
}

/// Methods are the client's choice, and may be long: unknown ones have one name.
fn word(method: &Method) -> &'static str {
    match *method {
        Method::GET => "GET",
        Method::HEAD => "HEAD",
        Method::OPTIONS => "OPTIONS",
        Method::POST => "POST",
        Method::PUT => "PUT",
        Method::DELETE => "DELETE",
        Method::PATCH => "PATCH",
        _ => "other",
    }
}

/// The span's name by OpenTelemetry's conventions.
struct Named<'a> {
    method: &'static str,
    route: &'a str,
}

impl fmt::Display for Named<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.method)?;
        if self.route.is_empty() { Ok(()) } else { write!(f, " {}", self.route) }
    }
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

    use super::*;

    fn of(given: &[&str]) -> String {
        let mut headers = HeaderMap::new();
        for id in given {
            headers.append(REQUEST_ID, HeaderValue::from_bytes(id.as_bytes()).unwrap());
        }
        RequestId::of(&headers, &NodeId::parse("node-1").unwrap()).to_string()
    }

    #[test]
    fn a_well_formed_id_is_kept_and_anything_else_is_replaced() {
        let longest = "x".repeat(LENGTH);
        for id in ["7", "0af7651916cd43dd8448eb211c80319c", "Root=1-67:8912+33/ab_c.d-e", &longest] {
            assert_eq!(of(&[id]), id);
        }
        let too_long = "x".repeat(LENGTH + 1);
        for ids in [&[][..], &[""], &["two words"], &["a\tb"], &["ann@example.org"], &["é"], &[&too_long], &["a", "b"]]
        {
            let made = of(ids);
            assert!(made.starts_with("node-1-") && made.len() == "node-1-".len() + 16, "{ids:?}: {made}");
        }
        assert_ne!(of(&[]), of(&[]));
    }
}
