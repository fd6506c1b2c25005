//! Routes, and the middleware of all of them.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::{DefaultBodyLimit, Request, State};
use axum::middleware::{self, Next};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use axum::{Extension, Router};
use http::{HeaderName, HeaderValue, Method, StatusCode, header};
use tracing::Instrument;

use super::base_path::mount;
use super::not_found::not_found;
use super::rate::LookupRate;
use super::request_id::{self, REQUEST_ID, RequestId};
use super::{
    Caller, HttpServices, HttpState, demo, error, events, health, host, ice, own_addresses, short_links, status,
    transports,
};
use crate::domain::{HostPattern, UrlPolicy};
use crate::telemetry::names;
use crate::transport::{ProbesOnly, Public};

/// Time limit of a handler.
const PATIENCE: Duration = Duration::from_secs(10);

/// Bytes of a request's body, at most: no handler reads one.
const BODY_BYTES: usize = 16 * 1024;

/// Scripts come from this server only. Media and connections may go elsewhere, but encrypted or to this machine.
/// `media-src` follows [`UrlPolicy`], so that the page plays only what the server would relay.
fn content_security_policy(media: &UrlPolicy) -> HeaderValue {
    let policy = format!(
        "default-src 'self'; connect-src 'self' ws: wss: https:; media-src 'self' {} blob: data:; \
         img-src 'self' data: blob:; object-src 'none'; base-uri 'none'; form-action 'none'; frame-ancestors 'self'",
        media_sources(media)
    );
    // Can't fail: the sources consist of characters of host names.
    HeaderValue::try_from(policy).unwrap_or(HeaderValue::from_static("default-src 'self'"))
}

/// CSP host sources of the film hosts. CSP has no form for IPv6 addresses: one on the list opens `https:`.
fn media_sources(media: &UrlPolicy) -> String {
    let v6 = |pattern: &HostPattern| pattern.as_str().contains(['[', ':']);
    if media.any_public() || media.listed().iter().any(v6) {
        let local = if media.loopback() { " http://localhost:* http://127.0.0.1:*" } else { "" };
        return format!("https:{local}");
    }
    let sources: Vec<String> = media.listed().iter().map(|pattern| format!("https://{}:*", pattern.as_str())).collect();
    sources.join(" ")
}

const SECURITY: [(HeaderName, HeaderValue); 3] = [
    (header::X_CONTENT_TYPE_OPTIONS, HeaderValue::from_static("nosniff")),
    (header::REFERRER_POLICY, HeaderValue::from_static("no-referrer")),
    (HeaderName::from_static("permissions-policy"), HeaderValue::from_static("camera=(self), microphone=(self)")),
];

/// Paths that are answered on the last file descriptors.
const PROBED: [&str; 4] = ["/health", "/ready", "/status", "/metrics"];

/// The router of both TCP listeners and of HTTP/3.
pub fn router(http: HttpServices) -> Router {
    let csp = content_security_policy(&http.media);
    let http = Arc::new(http);
    let diagnostics = Router::new()
        .route("/status", get(status::status))
        .route("/metrics", get(status::metrics))
        .route_layer(middleware::from_fn_with_state(Arc::clone(&http), only_on_port));
    let base = http.public.base_path.clone();
    let lookups = Router::new()
        .route("/api/short-id/{room}", get(short_links::mint))
        .route("/api/room/{short}", get(short_links::resolve))
        .route("/api/rooms/{room}/events", get(events::events))
        .route("/room/{short}", get(short_links::follow))
        .route("/room/{short}/{pin}", get(short_links::follow_old));
    let lookups = match http.lookups_per_minute {
        Some(number) => {
            let state = (Arc::clone(&http), Arc::new(LookupRate::per_minute(number)));
            lookups.route_layer(middleware::from_fn_with_state(state, rated))
        }
        None => lookups,
    };
    let routes = Router::new()
        .route("/ws", any(websocket))
        .route("/health", get(health::health))
        .route("/ready", get(health::ready).layer(Extension(health::Readiness::default())))
        .route("/api/transports", get(transports::transports))
        .route("/api/addresses", get(own_addresses::own_addresses))
        .route("/api/ice-servers", get(ice::ice_servers))
        .merge(diagnostics)
        .merge(lookups)
        .fallback(demo::serve)
        .layer(DefaultBodyLimit::max(BODY_BYTES))
        .layer(middleware::from_fn_with_state((Arc::clone(&http), csp), common));
    mount(routes, &base).with_state(http)
}

async fn websocket(State(http): HttpState, caller: Caller, request: Request) -> Response {
    http.websocket.upgrade(request, caller.address, caller.authority.as_ref())
}

/// On the public port diagnostics answer 404.
async fn only_on_port(State(http): HttpState, request: Request, next: Next) -> Response {
    if request.extensions().get::<Public>().is_some() {
        return not_found(&http, request.uri().path(), request.headers());
    }
    let (parts, body) = request.into_parts();
    let asked = Caller::of(&parts, &http.proxies, &http.public.base_path).authority;
    if asked.is_some_and(|asked| !host::is_own(asked.host(), http.public.host.as_deref())) {
        let words = "diagnostics are for this server's own names: ask by its address, or set PUBLIC_HOST\n";
        return (StatusCode::MISDIRECTED_REQUEST, words).into_response();
    }
    next.run(Request::from_parts(parts, body)).await
}

/// Rate limit for requests that use the stores without a membership.
async fn rated(
    State((http, rate)): State<(Arc<HttpServices>, Arc<LookupRate>)>,
    request: Request,
    next: Next,
) -> Response {
    let (parts, body) = request.into_parts();
    match rate.take(Caller::of(&parts, &http.proxies, &http.public.base_path).address) {
        Ok(()) => next.run(Request::from_parts(parts, body)).await,
        Err(wait) => {
            let seconds = HeaderValue::from(wait.as_secs_f64().ceil().max(1.0) as u64);
            let refusal = error(StatusCode::TOO_MANY_REQUESTS, "too many requests from this address");
            ([(header::RETRY_AFTER, seconds)], refusal).into_response()
        }
    }
}

async fn common(State((http, csp)): State<(Arc<HttpServices>, HeaderValue)>, request: Request, next: Next) -> Response {
    let id = RequestId::of(request.headers(), &http.node);
    let span = id.span(&request);
    let mut response = answer(request, next, csp).instrument(span.clone()).await;
    metrics::counter!(names::HTTP_REQUESTS, "status" => class(response.status())).increment(1);
    request_id::record(&span, response.status());
    response.headers_mut().insert(REQUEST_ID, id.into_header());
    response
}

async fn answer(request: Request, next: Next, csp: HeaderValue) -> Response {
    let api = request.uri().path().starts_with("/api/");
    let mut response = if let Err(words) = host::check(request.uri(), request.headers(), request.version()) {
        (StatusCode::BAD_REQUEST, words).into_response()
    } else if request.extensions().get::<ProbesOnly>().is_some() && !PROBED.contains(&request.uri().path()) {
        let words = "this server has no place for another connection\n";
        (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "5")], words).into_response()
    } else if api && request.method() == Method::OPTIONS {
        preflight()
    } else {
        let answer = tokio::time::timeout(PATIENCE, next.run(request)).await;
        answer.unwrap_or_else(|_| (StatusCode::SERVICE_UNAVAILABLE, "this takes too long\n").into_response())
    };
    if response.status() == StatusCode::SWITCHING_PROTOCOLS {
        return response;
    }
    let headers = response.headers_mut();
    if api {
        headers.insert(header::ACCESS_CONTROL_ALLOW_ORIGIN, HeaderValue::from_static("*"));
        headers.insert(header::ACCESS_CONTROL_EXPOSE_HEADERS, HeaderValue::from_static("x-request-id"));
    }
    headers.insert(header::CONTENT_SECURITY_POLICY, csp);
    for (name, value) in SECURITY {
        headers.insert(name, value);
    }
    headers.entry(header::CACHE_CONTROL).or_insert(HeaderValue::from_static("no-store"));
    response
}

/// Any origin may read the API: it uses no cookies.
fn preflight() -> Response {
    let allowed = [
        (header::ACCESS_CONTROL_ALLOW_METHODS, "GET, HEAD"),
        (header::ACCESS_CONTROL_ALLOW_HEADERS, "authorization, content-type, x-request-id"),
        (header::ACCESS_CONTROL_MAX_AGE, "86400"),
    ];
    (StatusCode::NO_CONTENT, allowed).into_response()
}

fn class(status: StatusCode) -> &'static str {
    match status.as_u16() / 100 {
        1 => "1xx",
        2 => "2xx",
        3 => "3xx",
        4 => "4xx",
        _ => "5xx",
    }
}
