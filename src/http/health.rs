//! Liveness and readiness.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use http::StatusCode;
use serde_json::{Map, Value, json};

use super::App;

/// The process answers; v2's body.
pub(super) async fn health(State(http): App) -> Json<Value> {
    Json(json!({"status": "ok", "nodeId": http.node}))
}

/// What sessions need is usable. A server that drains stays ready (design, Kubernetes): it refuses sessions itself.
pub(super) async fn ready(State(http): App) -> Response {
    let checks = http.backend.readiness().await;
    let ready = checks.iter().all(|(_, result)| result.is_ok());
    let word = |result: Result<(), String>| Value::String(result.err().unwrap_or_else(|| "ok".to_owned()));
    let checks: Map<String, Value> = checks.into_iter().map(|(name, result)| (name.to_owned(), word(result))).collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": ready, "checks": checks}))).into_response()
}
