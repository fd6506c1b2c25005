//! Diagnostics, on `PORT` only.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::{HeaderMap, header};
use serde_json::{Map, Value, json};

use super::{HttpServices, HttpState};

pub(super) async fn status(State(http): HttpState) -> Json<Map<String, Value>> {
    Json(snapshot(&http))
}

/// Prometheus text, or JSON if the request accepts that (v2 had only JSON).
pub(super) async fn metrics(State(http): HttpState, headers: HeaderMap) -> Response {
    let accept = headers.get(header::ACCEPT).and_then(|accept| accept.to_str().ok()).unwrap_or_default();
    if accept.contains("application/json") {
        let mut body = snapshot(&http);
        let series = http.metrics.values().into_iter().map(|(series, value)| (series, json!(value)));
        body.insert("metrics".to_owned(), Value::Object(series.collect()));
        return Json(body).into_response();
    }
    ([(header::CONTENT_TYPE, "text/plain; version=0.0.4; charset=utf-8")], http.metrics.render()).into_response()
}

fn snapshot(http: &HttpServices) -> Map<String, Value> {
    let now = http.clock.now();
    let status = http.backend.status();
    let mut fields = Map::new();
    let mut set = |name: &str, value: Value| fields.insert(name.to_owned(), value);
    // v2's names first.
    set("status", json!(if status.draining { "draining" } else { "ok" }));
    set("nodeId", json!(http.node));
    set("uptime", json!(now.seconds_since(http.started)));
    set("localConnections", json!(status.sessions.values().sum::<u64>()));
    set("timestamp", json!(now.as_millis()));
    set("version", json!(env!("CARGO_PKG_VERSION")));
    set("protocol", json!(3));
    set("sessions", json!(status.sessions));
    set("rooms", json!(status.rooms));
    set("members", json!(status.members));
    for (name, value) in status.details {
        fields.entry(name).or_insert(value);
    }
    fields
}
