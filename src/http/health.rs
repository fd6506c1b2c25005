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

/// How long a check of readiness holds.
const FRESH: Duration = Duration::from_secs(1);
/// How long one that isn't answered is waited for before another one is begun.
const PATIENCE: Duration = Duration::from_secs(5);

/// The process answers; v2's body.
pub(super) async fn health(State(http): HttpState) -> Json<Value> {
    Json(json!({"status": "ok", "nodeId": http.node}))
}

type Checks = Vec<(&'static str, Result<(), String>)>;
/// One attempt, for whoever waits for it.
type Check = Shared<BoxFuture<'static, Checks>>;

/// The last check of readiness, shared by whoever asks within a second: a check asks the stores, and anybody may ask
/// here.
#[derive(Clone, Default)]
pub(super) struct Readiness(Arc<Mutex<Option<(Instant, Check)>>>);

impl Readiness {
    /// All who ask drive one attempt: none of them depends on another's being polled.
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

/// Whether sessions can be served. A server that drains stays ready (design, Kubernetes): it refuses sessions itself.
/// On the public port nobody learns why it is not: the words of a database are not for everybody.
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
