//! A server edge with a fake hub and repository behind it.

#![allow(dead_code, reason = "each test file uses its part")]

use std::future::Future;
use std::net::{IpAddr, Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::sync::Arc;
use std::time::Duration;

use bytes::Bytes;
use futures_util::future::{BoxFuture, FutureExt};
use parking_lot::Mutex;
use tandem::clock::Clock;
use tandem::domain::{Head, Limits, NodeId, ResumeToken, RoomId, RoomTime, ShortId, UrlPolicy, UserId};
use tandem::http::demo::{Asset, Assets};
use tandem::http::ice::IceServers;
use tandem::http::{Backend, BasePath, HttpServices, NodeEndpoints, PublicAddress, ShareUrl, Status, Unavailable};
use tandem::quota::Caps;
use tandem::repository::EventRow;
use tandem::telemetry::Metrics;
use tandem::transport::origin::OriginPolicy;
use tandem::transport::proxies::TrustedProxies;
use tandem::transport::tcp::{Descriptors, HttpServer, Timeouts, bind};
use tandem::transport::tls::{CertSource, CertStore, server_config};
use tandem::transport::websocket::{ServeWebSocket, WebSocketTransport, WebSocketUpgrade};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const NOW: RoomTime = RoomTime::from_millis(1_795_000_000_000);
pub(crate) const SHORT: &str = "abc1234";
pub(crate) const OLD_SHORT: &str = "old1234";
pub(crate) const TOKEN: &str = "the-token-of-ann";

/// Fails the test when something takes too long.
pub(crate) async fn within<T>(future: impl Future<Output = T>) -> T {
    tokio::time::timeout(Duration::from_secs(120), future).await.expect("this took too long")
}

/// Rooms `friday` and `fri:day` are live, ann is a member, `abc1234` a short id; `old1234` is one of a room that is
/// over.
#[derive(Default)]
pub(crate) struct FakeBackend {
    /// Answer of readiness about the database.
    pub(crate) database: Mutex<Option<String>>,
    /// Everything fails.
    pub(crate) down: Mutex<bool>,
    /// Nothing is ever answered.
    pub(crate) hangs: Mutex<bool>,
    /// Other nodes of the cluster.
    pub(crate) nodes: Mutex<Vec<NodeEndpoints>>,
    /// How often readiness was asked for.
    pub(crate) asked: std::sync::atomic::AtomicUsize,
}

impl FakeBackend {
    fn answer<T: Send + 'static>(&self, value: T) -> BoxFuture<'_, Result<T, Unavailable>> {
        let (down, hangs) = (*self.down.lock(), *self.hangs.lock());
        async move {
            if hangs {
                std::future::pending::<()>().await;
            }
            if down { Err(Unavailable("no database".into())) } else { Ok(value) }
        }
        .boxed()
    }
}

impl Backend for FakeBackend {
    fn readiness(&self) -> BoxFuture<'_, Vec<(&'static str, Result<(), String>)>> {
        self.asked.fetch_add(1, std::sync::atomic::Ordering::SeqCst);
        let database = self.database.lock().clone().map_or(Ok(()), Err);
        async move { vec![("log", Ok(())), ("database", database)] }.boxed()
    }

    fn room_is_live<'a>(&'a self, room: &'a RoomId) -> BoxFuture<'a, Result<bool, Unavailable>> {
        self.answer(matches!(room.as_str(), "friday" | "fri:day"))
    }

    fn mint_short<'a>(&'a self, _room: &'a RoomId) -> BoxFuture<'a, Result<ShortId, Unavailable>> {
        self.answer(ShortId::parse(SHORT).unwrap())
    }

    fn resolve_short<'a>(&'a self, short: &'a ShortId) -> BoxFuture<'a, Result<Option<RoomId>, Unavailable>> {
        self.answer((short.as_str() == SHORT).then(|| RoomId::parse("fri:day").unwrap()))
    }

    fn recall_short<'a>(&'a self, short: &'a ShortId) -> BoxFuture<'a, Result<Option<RoomId>, Unavailable>> {
        self.answer((short.as_str() == OLD_SHORT).then(|| RoomId::parse("last:week").unwrap()))
    }

    fn authorize_member<'a>(
        &'a self,
        room: &'a RoomId,
        user: &'a UserId,
        token: &'a ResumeToken,
    ) -> BoxFuture<'a, Result<bool, Unavailable>> {
        self.answer(room.as_str() == "friday" && user.as_str() == "ann" && token.reveal() == TOKEN)
    }

    fn events<'a>(
        &'a self,
        _room: &'a RoomId,
        after: Head,
        limit: u32,
    ) -> BoxFuture<'a, Result<Vec<EventRow>, Unavailable>> {
        let row = |seq| EventRow {
            head: Head { epoch: 7, seq },
            kind: "SEEK_PAUSE".into(),
            user: Some("ann".into()),
            data: r#"{"currentTime":1.5}"#.into(),
            at: NOW,
        };
        self.answer((1..=5).map(row).filter(|row| row.head > after).take(limit as usize).collect())
    }

    fn other_nodes(&self) -> Vec<NodeEndpoints> {
        self.nodes.lock().clone()
    }

    fn status(&self) -> Status {
        Status { sessions: [("websocket", 2), ("webtransport", 3)].into(), rooms: 1, members: 5, ..Status::default() }
    }
}

/// A page, the page for what is not there, and a film of 1000 bytes.
pub(crate) fn assets() -> Assets {
    Arc::new(|path| match path {
        "index.html" => Some(Asset {
            bytes: Bytes::from_static(b"<!doctype html>"),
            content_type: "text/html; charset=utf-8",
            etag: "\"page\"".into(),
        }),
        "404.html" => Some(Asset {
            bytes: Bytes::from_static(b"<a href=\"/\">nothing here"),
            content_type: "text/html; charset=utf-8",
            etag: "\"nothing\"".into(),
        }),
        "film.webm" => Some(Asset { bytes: film(), content_type: "video/webm", etag: "\"film\"".into() }),
        _ => None,
    })
}

pub(crate) fn film() -> Bytes {
    (0..1000).map(|n| (n % 251) as u8).collect::<Vec<_>>().into()
}

/// Parts that a test may change before the router is made.
pub(crate) struct Parts {
    pub(crate) backend: Arc<FakeBackend>,
    pub(crate) proxies: TrustedProxies,
    pub(crate) public: PublicAddress,
    pub(crate) hashes: Vec<[u8; 32]>,
    pub(crate) share_url: &'static str,
    pub(crate) media: UrlPolicy,
    pub(crate) ice: IceServers,
    pub(crate) origins: &'static str,
    pub(crate) limits: Limits,
    pub(crate) assets: Assets,
    pub(crate) serve: ServeWebSocket,
    pub(crate) tracker: TaskTracker,
    pub(crate) draining: CancellationToken,
    pub(crate) lookups_per_minute: Option<u64>,
    pub(crate) descriptors: Descriptors,
}

impl Default for Parts {
    fn default() -> Self {
        Self {
            backend: Arc::default(),
            proxies: TrustedProxies::None,
            public: PublicAddress {
                host: None,
                bound: IpAddr::V4(Ipv4Addr::LOCALHOST),
                quic_port: Some(4433),
                base_path: BasePath::default(),
            },
            hashes: Vec::new(),
            share_url: "/#room={room}",
            media: UrlPolicy::any(),
            ice: IceServers::default(),
            origins: "*",
            limits: Limits::default(),
            assets: assets(),
            serve: Arc::new(|transport: WebSocketTransport| async move { drop(transport) }.boxed()),
            tracker: TaskTracker::new(),
            draining: CancellationToken::new(),
            lookups_per_minute: None,
            descriptors: Descriptors::new(10_000, 10),
        }
    }
}

impl Parts {
    pub(crate) fn router(&self) -> axum::Router {
        let clock = Clock::starting_at(NOW);
        let hashes = self.hashes.clone();
        tandem::http::router(HttpServices {
            node: NodeId::parse("node-1").unwrap(),
            started: clock.now(),
            clock,
            backend: Arc::clone(&self.backend) as Arc<dyn Backend>,
            websocket: WebSocketUpgrade::new(
                OriginPolicy::parse(self.origins).unwrap().into(),
                &self.limits,
                self.tracker.clone(),
                self.draining.clone(),
                Arc::clone(&self.serve),
            ),
            metrics: Metrics::install().unwrap(),
            proxies: self.proxies.clone(),
            public: self.public.clone(),
            hashes: Arc::new(move || hashes.clone()),
            for_others: vec!["https://192.168.1.5:4433".to_owned()],
            share_url: ShareUrl::parse(self.share_url).unwrap(),
            media: self.media.clone(),
            ice: self.ice.clone(),
            assets: Arc::clone(&self.assets),
            lookups_per_minute: self.lookups_per_minute,
        })
    }
}

/// Both listeners on free ports.
pub(crate) struct Site {
    pub(crate) plain: SocketAddr,
    pub(crate) tls: SocketAddr,
    pub(crate) caps: Caps,
    pub(crate) tracker: TaskTracker,
    pub(crate) stop: CancellationToken,
    pub(crate) certs: Arc<CertStore>,
    _dir: tempfile::TempDir,
}

pub(crate) const QUIC_PORT: u16 = 4433;

pub(crate) async fn site(parts: Parts) -> Site {
    site_with(parts, Timeouts::default(), Caps::new(1000, None)).await
}

pub(crate) async fn site_with(parts: Parts, timeouts: Timeouts, caps: Caps) -> Site {
    listen(&parts, parts.router(), timeouts, caps).await
}

/// With a router of the test's own.
pub(crate) async fn site_of(parts: &Parts, router: axum::Router) -> Site {
    listen(parts, router, Timeouts::default(), Caps::new(1000, None)).await
}

async fn listen(parts: &Parts, router: axum::Router, timeouts: Timeouts, caps: Caps) -> Site {
    let dir = tempfile::tempdir().unwrap();
    let names = vec!["localhost".to_owned(), "127.0.0.1".to_owned()];
    // The clients of the tests check dates by the machine's clock.
    let certs =
        CertStore::open(CertSource::SelfSigned { dir: dir.path().to_owned(), names }, Clock::start().now()).unwrap();
    let tls = server_config(Arc::clone(&certs), &[b"h2", b"http/1.1"]).unwrap();
    let stop = CancellationToken::new();
    let server = HttpServer {
        router,
        timeouts,
        tracker: parts.tracker.clone(),
        stop: stop.clone(),
        descriptors: parts.descriptors.clone(),
    };
    let any = SocketAddr::from((Ipv4Addr::LOCALHOST, 0));
    let (plain, secure) = (bind("PORT", any).await.unwrap(), bind("QUIC_PORT", any).await.unwrap());
    let addresses = (plain.local_addr().unwrap(), secure.local_addr().unwrap());
    parts.tracker.spawn(server.clone().serve_plain(plain, caps.clone()));
    parts.tracker.spawn(server.serve_tls(secure, caps.clone(), Arc::new(tls), QUIC_PORT));
    Site { plain: addresses.0, tls: addresses.1, caps, tracker: parts.tracker.clone(), stop, certs, _dir: dir }
}

impl Site {
    pub(crate) fn http(&self, path: &str) -> String {
        format!("http://{}{path}", self.plain)
    }

    pub(crate) fn https(&self, path: &str) -> String {
        format!("https://localhost:{}{path}", self.tls.port())
    }

    /// A client that trusts this site's certificate and follows no redirect.
    pub(crate) fn client(&self) -> reqwest::Client {
        let mut tls = self.trusting();
        tls.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
        reqwest::Client::builder()
            .tls_backend_preconfigured(tls)
            .redirect(reqwest::redirect::Policy::none())
            .build()
            .unwrap()
    }

    pub(crate) fn trusting(&self) -> rustls::ClientConfig {
        client_config(&self.certificate_path())
    }

    fn certificate_path(&self) -> PathBuf {
        self._dir.path().join("dev.crt")
    }
}

/// A TLS client that trusts one certificate.
pub(crate) fn client_config(certificate: &std::path::Path) -> rustls::ClientConfig {
    use rustls::pki_types::pem::PemObject;
    let mut roots = rustls::RootCertStore::empty();
    roots.add(rustls::pki_types::CertificateDer::from_pem_file(certificate).unwrap()).unwrap();
    rustls::ClientConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()))
        .with_safe_default_protocol_versions()
        .unwrap()
        .with_root_certificates(roots)
        .with_no_client_auth()
}
