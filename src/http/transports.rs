//! `/api/transports`: the addresses of sessions.

use std::net::IpAddr;

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use base64::Engine;
use base64::engine::general_purpose::STANDARD;
use http::uri::Authority;
use http::{HeaderMap, StatusCode};
use serde_json::{Value, json};

use super::{Caller, HttpServices, HttpState, PublicAddress, error};

pub(super) async fn transports(State(http): HttpState, caller: Caller, headers: HeaderMap) -> Response {
    if !http.websocket.admits(&headers, caller.authority.as_ref()) {
        // A page can read this status, but not that of a refused upgrade.
        let body = json!({"error": "pages of this origin may not use this server", "code": "ORIGIN_REFUSED"});
        return (StatusCode::FORBIDDEN, Json(body)).into_response();
    }
    let (Some(authority), Some(base)) = (&caller.authority, caller.base_url("ws")) else {
        return error(StatusCode::BAD_REQUEST, "the request names no host");
    };
    let webtransport = match http.public.quic_port {
        Some(port) => webtransport(&http, authority, port),
        None => Value::Null,
    };
    // `path` is relative to this answer's address: only the client knows the prefix that a proxy added.
    let mut answer = json!({
        "webtransport": webtransport,
        "websocket": {"url": format!("{base}{}/ws", caller.prefix), "path": "../ws"},
        "protocol": 3,
    });
    let nodes = http.backend.other_nodes();
    if !nodes.is_empty() {
        answer["nodes"] = json!(nodes);
    }
    Json(answer).into_response()
}

fn webtransport(http: &HttpServices, authority: &Authority, port: u16) -> Value {
    let mut answer = json!({"url": format!("https://{}:{port}/wt", host(&http.public, authority))});
    if http.public.host.is_none() {
        // The client uses the host that it asked for; behind a proxy the request may name another.
        answer["port"] = port.into();
    }
    let hashes: Vec<Value> = (http.hashes)()
        .into_iter()
        .map(|hash| json!({"algorithm": "sha-256", "value": STANDARD.encode(hash)}))
        .collect();
    if !hashes.is_empty() {
        answer["serverCertificateHashes"] = Value::Array(hashes);
    }
    answer
}

/// The host for QUIC. Browsers try only the first address of a name for QUIC, and `localhost` resolves to ::1 first:
/// where QUIC is bound to IPv4 only, the answer has the address instead.
fn host(public: &PublicAddress, asked: &Authority) -> String {
    match (&public.host, public.bound) {
        (Some(host), _) if host.contains(':') && !host.starts_with('[') => format!("[{host}]"),
        (Some(host), _) => host.clone(),
        (None, IpAddr::V4(_)) if asked.host().eq_ignore_ascii_case("localhost") => "127.0.0.1".to_owned(),
        (None, _) => asked.host().to_owned(),
    }
}
