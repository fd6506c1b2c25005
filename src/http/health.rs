//! Liveness and readiness.

use std::sync::Arc;
use std::time::Duration;

use axum::extract::State;
use axum::response::{IntoResponse, Response};
use axum::{Extension, Json};
use futures_util::FutureExt;
use futures_util::future::{BoxFuture, Shared};
use http::StatusCode;
use parking_lot::Mutex;
use serde_json::{Map, Value, json};
use tokio::time::Instant;

use super::{HttpServices, HttpState};
use crate::clock::Clock;
use crate::transport::Public;

/// A readiness check is reused for this long.
const FRESH: Duration = Duration::from_secs(1);
/// An unanswered check is waited for this long before another begins.
const PATIENCE: Duration = Duration::from_secs(5);

/// Liveness, with v2's body.
pub(super) async fn health(State(http): HttpState) -> Json<Value> {
    Json(json!({"status": "ok", "nodeId": http.node}))
}

type Checks = Vec<(&'static str, Result<(), String>)>;
/// One attempt, shared by the requests that wait for it.
type Check = Shared<BoxFuture<'static, Checks>>;

/// The last readiness check, shared by all requests within a second: a check queries the stores, and `/ready` is
/// public.
#[derive(Clone, Default)]
pub(super) struct Readiness(Arc<Mutex<Option<(Instant, Check)>>>);

impl Readiness {
    /// Every waiting request polls the shared attempt, so none depends on another's being polled.
    fn check(&self, http: &Arc<HttpServices>) -> Check {
        let now = Clock::instant();
        let mut last = self.0.lock();
        if let Some((begun, check)) = &*last {
            let good_for = if check.peek().is_some() { FRESH } else { PATIENCE };
            if now - *begun < good_for {
                return check.clone();
            }
        }
        let backend = Arc::clone(&http.backend);
        let check = async move { backend.readiness().await }.boxed().shared();
        *last = Some((now, check.clone()));
        check
    }
}

/// Readiness. A draining server stays ready and refuses sessions itself: an unready pod would lose its UDP connections.
/// On the public port the reasons of a failure are left out, because they may disclose the database's words.
pub(super) async fn ready(
    State(http): HttpState,
    Extension(readiness): Extension<Readiness>,
    public: Option<Extension<Public>>,
) -> Response {
    let checks = readiness.check(&http).await;
    let ready = checks.iter().all(|(_, result)| result.is_ok());
    let word = |result: Result<(), String>| match result {
        Ok(()) => "ok".to_owned(),
        Err(_) if public.is_some() => "failed".to_owned(),
        Err(why) => why,
    };
    let checks: Map<String, Value> =
        checks.into_iter().map(|(name, result)| (name.to_owned(), word(result).into())).collect();
    let status = if ready { StatusCode::OK } else { StatusCode::SERVICE_UNAVAILABLE };
    (status, Json(json!({"ready": ready, "checks": checks}))).into_response()
}
