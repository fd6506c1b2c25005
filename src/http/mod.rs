//! HTTP: probes, diagnostics, addresses, short links, history, the demo page. Handlers know the rest of the server only
//! through [`Backend`].

mod base_path;
mod caller;
pub mod demo;
mod events;
mod health;
mod host;
pub mod ice;
mod nodes;
mod not_found;
mod own_addresses;
pub mod probe;
mod rate;
mod request_id;
mod router;
mod short_links;
mod status;
mod transports;

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::sync::Arc;

use axum::Json;
use axum::response::{IntoResponse, Response};
use futures_util::future::BoxFuture;
use http::{StatusCode, header};

pub use base_path::BasePath;
pub use caller::Caller;
pub use nodes::{NodeEndpoints, NodeUrl};
pub use router::router;
pub use short_links::ShareUrl;

use crate::clock::Clock;
use crate::domain::{Head, NodeId, ResumeToken, RoomId, RoomTime, ShortId, UrlPolicy, UserId};
use crate::repository::EventRow;
use crate::telemetry::Metrics;
use crate::transport::proxies::TrustedProxies;
use crate::transport::websocket::WebSocketUpgrade;

/// The hub and the repository, as the handlers need them.
pub trait Backend: Send + Sync + 'static {
    /// Each part that readiness depends on, with its error.
    fn readiness(&self) -> BoxFuture<'_, Vec<(&'static str, Result<(), String>)>>;

    /// Whether the room has members, on any node.
    fn room_is_live<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<bool, Unavailable>>;

    /// The room's short id, created if there is none. Its lifetime starts anew.
    fn mint_short<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<ShortId, Unavailable>>;

    /// The room of a short id. Its lifetime starts anew.
    fn resolve_short<'a>(&'a self, short: &'a ShortId) -> BoxFuture<'a, Result<Option<RoomId>, Unavailable>>;

    /// The room of a short id, expired or not; `None` if the id was never created or is deleted.
    fn recall_short<'a>(&'a self, short: &'a ShortId) -> BoxFuture<'a, Result<Option<RoomId>, Unavailable>>;

    /// Whether the token is that of a member of a live room.
    fn authorize_member<'a>(
        &'a self,
        room: &'a RoomId,
        user: &'a UserId,
        token: &'a ResumeToken,
    ) -> BoxFuture<'a, Result<bool, Unavailable>>;

    /// A room's history after `after`, oldest first.
    fn events<'a>(
        &'a self,
        room: &'a RoomId,
        after: Head,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, Unavailable>>;

    /// Addresses of the other live nodes that have public ones.
    fn other_nodes(&self) -> Vec<NodeEndpoints> {
        Vec::new()
    }

    fn status(&self) -> Status;
}

/// A node's status.
#[derive(Debug, Clone, Default)]
pub struct Status {
    /// The node refuses new sessions.
    pub draining: bool,
    /// Open sessions by transport.
    pub sessions: BTreeMap<&'static str, u64>,
    /// Live rooms on this node.
    pub rooms: u64,
    /// Members of these rooms, including those in grace.
    pub members: u64,
    /// Further fields of the application (adapters, degraded or not, …).
    pub details: serde_json::Map<String, serde_json::Value>,
}

/// The log or the database does not answer.
#[derive(Debug, Clone, thiserror::Error)]
#[error("unavailable: {0}")]
pub struct Unavailable(pub String);

impl IntoResponse for Unavailable {
    fn into_response(self) -> Response {
        tracing::warn!(error = self.0, "a request could not be answered");
        let body = Json(serde_json::json!({"error": "unavailable, try again"}));
        (StatusCode::SERVICE_UNAVAILABLE, [(header::RETRY_AFTER, "1")], body).into_response()
    }
}

/// How clients reach this server, as far as a request doesn't tell.
#[derive(Debug, Clone)]
pub struct PublicAddress {
    /// `PUBLIC_HOST`: instead of the request's own host name.
    pub host: Option<String>,
    /// The address that QUIC is bound to (`HOST`).
    pub bound: IpAddr,
    /// `None`: QUIC is off.
    pub quic_port: Option<u16>,
    /// `BASE_PATH`.
    pub base_path: BasePath,
}

/// The router's dependencies.
pub struct HttpServices {
    pub node: NodeId,
    pub clock: Clock,
    pub started: RoomTime,
    pub backend: Arc<dyn Backend>,
    /// `/ws`.
    pub websocket: WebSocketUpgrade,
    /// `/metrics`.
    pub metrics: Metrics,
    /// Read on `PORT` only.
    pub proxies: TrustedProxies,
    pub public: PublicAddress,
    /// SHA-256 of self-signed certificates (`CertStore::hashes`).
    pub hashes: Arc<dyn Fn() -> Vec<[u8; 32]> + Send + Sync>,
    /// Origins by which other machines reach this server, best first.
    pub for_others: Vec<String>,
    pub share_url: ShareUrl,
    /// Hosts that films may come from: the page's `media-src`.
    pub media: UrlPolicy,
    /// `/api/ice-servers`.
    pub ice: ice::IceServers,
    pub assets: demo::Assets,
    /// `MAX_LOOKUPS_PER_MINUTE`; `None`: no rate.
    pub lookups_per_minute: Option<u64>,
}

impl std::fmt::Debug for HttpServices {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("HttpServices").field("node", &self.node).field("public", &self.public).finish_non_exhaustive()
    }
}

type HttpState = axum::extract::State<Arc<HttpServices>>;

/// `{"error": …}`, v2's form.
fn error(status: StatusCode, message: &str) -> Response {
    (status, Json(serde_json::json!({ "error": message }))).into_response()
}
