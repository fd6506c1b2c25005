//! Addresses by which other machines reach this server, for a page on this machine, whose own
//! address (`localhost`) means nothing to others.

use axum::Json;
use axum::extract::State;
use axum::response::{IntoResponse, Response};
use serde_json::json;

use super::not_found::no_such_endpoint;
use super::{Caller, HttpState};
use crate::transport::proxies::TrustedProxies;

/// Answered on loopback only, because the addresses tell of an internal network. Behind a proxy every peer may be on
/// loopback, so there it is never answered.
pub(super) async fn own_addresses(State(http): HttpState, caller: Caller) -> Response {
    let asked = caller.authority.as_ref().map(|authority| authority.host()).unwrap_or_default();
    // DNS rebinding: a page of another origin has this host in its request only if it is on this machine.
    let by_loopback = matches!(asked, "localhost" | "127.0.0.1" | "[::1]");
    if !caller.address.is_loopback() || !by_loopback || http.proxies != TrustedProxies::None {
        return no_such_endpoint();
    }
    Json(json!({"origins": http.for_others})).into_response()
}
