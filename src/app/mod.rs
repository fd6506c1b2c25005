//! The composition root: the only module that names concrete adapters.
//!
//! [`App::build`] opens everything that can fail (database, ports, certificates) and answers with one typed error;
//! [`App::run`] serves until told to stop, then lets every session go in order:
//!
//! `PORT` answers requests until the end; the steps are those of [`drain::Phase`].
//!
//! 1. nobody is admitted or joins; every member hears `RECONNECT`;
//! 2. sessions end with GOING_AWAY; their memberships stay for whoever comes back;
//! 3. what was accepted is committed;
//! 4. the database is closed.

mod announce;
mod backend;
mod drain;
mod files;
mod proxy_hint;
mod storage;

use std::convert::Infallible;
use std::future::Future;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use futures_util::FutureExt;
use futures_util::future::BoxFuture;
use rustls::server::ResolvesServerCert;
use tokio::net::TcpListener;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use crate::clock::Clock;
use crate::config::Config;
use crate::domain::RoomTime;
use crate::http::{self, HttpServices, PublicAddress};
use crate::hub::{Hub, HubParts};
use crate::log::LogError;
use crate::panics;
use crate::protocol::Rules;
use crate::quota::AddressBudgets;
use crate::quota::{Cap, Caps, CapsFull};
use crate::redis::LinkError;
use crate::repository::{Repository, RepositoryError};
use crate::session::transport::Transport;
use crate::session::{self, Services, SessionCounts};
use crate::telemetry::{Metrics, Seldom, names};
use crate::transport::origin::OriginGuard;
use crate::transport::proxies::TrustedProxies;
use crate::transport::quic::QuicListener;
use crate::transport::tcp::{self, HttpServer, Timeouts};
use crate::transport::tls::{self, CertStore};
use crate::transport::websocket::{WebSocketTransport, WebSocketUpgrade};
use crate::transport::{Accept, SessionRefused, quic, webtransport};
use crate::vital::{Lost, Vital};
use announce::Addresses;
use backend::Rooms;
use drain::{Phase, Progress};
use proxy_hint::ProxyHint;
use storage::Storage;

/// Time for sessions to read RECONNECT before they are closed.
const FAREWELL: Duration = Duration::from_millis(250);
/// RECONNECT spreads the members' return over this time.
const RETURN_SPREAD: Duration = Duration::from_millis(1500);
/// Sessions that have not ended by then are dropped.
const DRAIN: Duration = Duration::from_secs(10);
/// Queued commands, the closing log and the closing database get this long each: longer only where a disk or a
/// server fails.
const SETTLE: Duration = Duration::from_secs(2);
/// How often old audit events are looked for.
const PRUNE_EVERY: Duration = Duration::from_secs(3600);
/// How often members are looked for whose reports are due to be stored.
const REPORTS_EVERY: Duration = Duration::from_secs(10);
/// How often gauges are set.
const GAUGES_EVERY: Duration = Duration::from_secs(5);
/// Body limit of HTTP requests: nothing here takes a large one.
const BODY_BYTES: usize = 64 * 1024;

/// Why the server doesn't start: one line for the operator.
#[derive(Debug, thiserror::Error)]
pub enum StartError {
    /// The log.
    #[error(transparent)]
    Log(#[from] LogError),
    /// Redis, or its settings.
    #[error(transparent)]
    Redis(#[from] LinkError),
    /// The database.
    #[error(transparent)]
    Repository(#[from] RepositoryError),
    /// A TCP port.
    #[error(transparent)]
    Tcp(#[from] tcp::TcpBindError),
    /// The UDP port.
    #[error("QUIC_PORT: {0}")]
    Quic(#[from] quic::BindError),
    /// The certificate.
    #[error(transparent)]
    Tls(#[from] tls::TlsError),
}

/// A server whose ports are bound.
pub struct App {
    parts: Parts,
    plain: TcpListener,
    secure: Option<Secure>,
    hub: Hub,
    storage: Arc<Storage>,
    certificates: Arc<CertStore>,
    services: Services,
    admission: Caps,
    metrics: Metrics,
}

struct Parts {
    config: Config,
    clock: Clock,
    started: RoomTime,
    /// Connections and sessions.
    sessions: TaskTracker,
    /// Everything else.
    tasks: TaskTracker,
    /// No new connections or sessions.
    draining: CancellationToken,
    /// The end of background tasks.
    stop: CancellationToken,
    /// Files that may be open at once.
    open_files: u64,
    /// Places of connections over QUIC and TCP, in one table.
    connections: Caps,
    /// Hears of listeners that are gone.
    vital: Vital,
}

/// The listeners on `QUIC_PORT`, UDP and TCP.
struct Secure {
    quic: QuicListener,
    tcp: TcpListener,
}

impl App {
    /// Opens the database, brings rooms back, binds the ports.
    pub async fn build(config: Config, metrics: Metrics) -> Result<Self, StartError> {
        let clock = Clock::start();
        let certificates = CertStore::open(config.certificate.clone(), clock.now())?;
        let parts = Parts {
            started: clock.now(),
            clock,
            sessions: TaskTracker::new(),
            tasks: TaskTracker::new(),
            draining: CancellationToken::new(),
            stop: CancellationToken::new(),
            open_files: files::raise_limit(),
            connections: connection_caps(&config),
            vital: Vital::default(),
            config,
        };
        let (mut storage, snapshots) = Storage::open(&parts.config, &parts.clock, &parts.tasks, &parts.stop).await?;
        let plain = tcp::bind("PORT", SocketAddr::new(parts.config.host, parts.config.port)).await?;
        let secure = match parts.config.quic_port {
            Some(port) => Some(bind_secure(&parts, port, Arc::clone(&certificates) as _).await?),
            None => None,
        };
        let limits = Arc::new(parts.config.limits.clone());
        let hub = Hub::start(HubParts {
            node: storage.node.clone(),
            clock: parts.clock.clone(),
            limits: Arc::clone(&limits),
            quotas: storage.quotas.clone(),
            log: Arc::clone(&storage.log),
            tracker: parts.tasks.clone(),
            stop: parts.stop.clone(),
        });
        let recovered = hub.recover(snapshots);
        if recovered > 0 {
            tracing::info!(rooms = recovered, "rooms are back; their members have the grace time to return");
        }
        let counts = SessionCounts::default();
        let quic = secure.as_ref().map(|secure| secure.quic.local_addr());
        let endpoints = public_endpoints(&parts.config, quic, &certificates);
        storage.watch(&hub, &counts, &parts.clock, &parts.tasks, &parts.stop, endpoints);
        let services = Services {
            hub: hub.clone(),
            rules: Arc::new(Rules { limits: (*limits).clone(), urls: parts.config.media.clone() }),
            clock: parts.clock.clone(),
            rates: parts.config.rate_limits,
            addresses: AddressBudgets::new(&limits),
            stop: CancellationToken::new(),
            counts,
        };
        let admission = parts.caps();
        let storage = Arc::new(storage);
        Ok(Self { parts, plain, secure, hub, storage, certificates, services, admission, metrics })
    }

    /// Where plain HTTP and WebSocket listen.
    pub fn plain_address(&self) -> Option<SocketAddr> {
        self.plain.local_addr().ok()
    }

    /// Where QUIC (UDP) and HTTPS (TCP) listen.
    pub fn secure_address(&self) -> Option<SocketAddr> {
        self.secure.as_ref().map(|secure| secure.quic.local_addr())
    }

    /// The announcement on the terminal. `picture`: with a QR code of the address for others.
    pub fn announcement(&self, picture: bool) -> String {
        let (config, stores) = (&self.parts.config, self.storage.for_people(&self.parts.config));
        match self.addresses() {
            Some(addresses) => announce::announcement(&addresses, &stores, &config.node, picture),
            None => String::new(),
        }
    }

    fn addresses(&self) -> Option<Addresses<'_>> {
        let config = &self.parts.config;
        Some(Addresses { plain: self.plain_address()?, secure: self.secure_address(), config })
    }

    /// Serves until `stop` resolves, or until a task is lost without which nobody is served; then drains.
    pub async fn run(self, stop: impl Future<Output = ()>) -> Result<(), Lost> {
        let for_others = self.addresses().map(|addresses| addresses.for_others()).unwrap_or_default();
        let Self { parts, plain, secure, hub, storage, certificates, services, admission, metrics } = self;
        let acceptor = SessionAcceptor { services: services.clone(), admission: admission.clone() };
        let progress = Progress::new(admission.clone());
        let short_link = Duration::from_secs(parts.config.limits.short_link_hours * 3600);
        let rooms = Rooms::new(hub.clone(), Arc::clone(&storage), &services, short_link, progress.clone());
        let ports = [plain.local_addr().ok(), secure.as_ref().map(|secure| secure.quic.local_addr())];
        let ports = ports.into_iter().flatten().map(|address| address.port()).collect();
        let config = &parts.config;
        let origins = OriginGuard::new(config.allowed_origins.clone(), config.public_host.clone(), ports);
        let router = http::router(HttpServices {
            node: parts.config.node.clone(),
            clock: parts.clock.clone(),
            started: parts.started,
            backend: Arc::new(rooms),
            websocket: parts.upgrade(acceptor.clone(), origins.clone()),
            metrics: metrics.clone(),
            proxies: parts.config.trusted_proxies.clone(),
            public: PublicAddress {
                host: parts.config.public_host.clone(),
                bound: parts.config.host,
                quic_port: secure.as_ref().map(|secure| secure.quic.local_addr().port()),
                base_path: parts.config.base_path.clone(),
            },
            hashes: {
                let certificates = Arc::clone(&certificates);
                Arc::new(move || certificates.hashes())
            },
            for_others,
            share_url: parts.config.share_url.clone(),
            media: parts.config.media.clone(),
            ice: parts.config.ice.clone(),
            assets: http::demo::embedded(),
            lookups_per_minute: parts.config.rate_limits.then_some(parts.config.limits.lookups_per_minute),
        });
        parts.listen(plain, secure, router, acceptor, origins, &certificates);
        parts.background(&hub, admission.clone(), &storage.repository, certificates, metrics);

        let outcome = tokio::select! {
            () = stop => Ok(()),
            lost = parts.vital.lost() => Err(lost),
        };

        progress.enter(Phase::Leaving);
        parts.draining.cancel();
        admission.close();
        hub.drain(RETURN_SPREAD);
        if admission.held() > 0 {
            tokio::time::sleep(FAREWELL).await;
        }
        services.stop.cancel();
        parts.sessions.close();
        if tokio::time::timeout(DRAIN, progress.report_until(parts.sessions.wait())).await.is_err() {
            tracing::warn!(left = parts.sessions.len(), "some connections did not end in time");
        }
        progress.enter(Phase::Committing);
        if tokio::time::timeout(SETTLE, hub.settled()).await.is_err() {
            tracing::warn!("some commands could not be committed in time");
        }
        progress.enter(Phase::Closing);
        storage.close_log().await;
        parts.stop.cancel();
        parts.tasks.close();
        if tokio::time::timeout(DRAIN, parts.tasks.wait()).await.is_err() {
            tracing::warn!(left = parts.tasks.len(), "some tasks did not end in time");
        }
        if tokio::time::timeout(SETTLE, storage.end()).await.is_err() {
            tracing::warn!("the log or the database did not close in time");
        }
        tracing::info!("stopped");
        outcome
    }
}

/// A limit as a number of things in memory.
fn count(limit: u64) -> usize {
    usize::try_from(limit).unwrap_or(usize::MAX)
}

impl Parts {
    /// Places by `MAX_SESSIONS` and `MAX_SESSIONS_PER_ADDRESS`.
    fn caps(&self) -> Caps {
        let limits = &self.config.limits;
        Caps::new(count(limits.sessions), self.config.rate_limits.then_some(count(limits.address_sessions)))
    }

    /// Where WebSocket connections come in.
    fn upgrade(&self, acceptor: SessionAcceptor, origins: OriginGuard) -> WebSocketUpgrade {
        let serve = move |transport: WebSocketTransport| -> BoxFuture<'static, ()> {
            match acceptor.admission.admit(transport.peer()) {
                Ok(permit) => acceptor.serve(transport, permit),
                // A browser can't read the status of a refused upgrade, but it can read a closing code.
                Err(full) => Box::pin(session::turn_away(transport, full)),
            }
        };
        WebSocketUpgrade::new(
            origins,
            &self.config.limits,
            self.sessions.clone(),
            self.draining.clone(),
            Arc::new(serve),
        )
    }

    fn listen(
        &self,
        plain: TcpListener,
        secure: Option<Secure>,
        router: axum::Router,
        acceptor: SessionAcceptor,
        origins: OriginGuard,
        certificates: &Arc<CertStore>,
    ) {
        // A session judges its own writes; this is for whoever has none.
        let stall = Timeouts::default().stall.max(Duration::from_secs(self.config.limits.write_stall_secs + 5));
        let timeouts = Timeouts { stall, ..Timeouts::default() };
        let descriptors = files::descriptors(self.open_files, self.config.limits.sessions);
        let http_server = |tracker: &TaskTracker, stop: &CancellationToken| HttpServer {
            router: router.clone(),
            timeouts,
            tracker: tracker.clone(),
            stop: stop.clone(),
            descriptors: descriptors.clone(),
        };
        let limits = &self.config.limits;
        let caps = self.connections.clone();
        // All clients behind a proxy have its address here; their own counts where sessions are admitted.
        let behind_proxies = self.config.trusted_proxies != TrustedProxies::None;
        let plain_caps = if behind_proxies { Caps::new(connections(limits.sessions), None) } else { caps.clone() };
        // Probes and whoever asks how far a stop has come are answered until its end; sessions have their own tracker.
        let serving = http_server(&self.tasks, &self.stop).serve_plain(plain, plain_caps);
        self.tasks.spawn(self.guard("the listener on PORT", &self.stop, serving));
        let Some(Secure { quic, tcp }) = secure else { return };
        let port = quic.local_addr().port();
        match tls::server_config(Arc::clone(certificates), &[b"h2", b"http/1.1"]) {
            Ok(tls) => {
                let serving = http_server(&self.sessions, &self.draining).serve_tls(tcp, caps, Arc::new(tls), port);
                self.sessions.spawn(self.guard("the HTTPS listener", &self.draining, serving));
            }
            Err(error) => tracing::error!(%error, "HTTPS is off"),
        }
        let server = webtransport::WebTransportListener {
            accept: acceptor,
            origins,
            router,
            message_bytes: count(limits.message_bytes),
            body_bytes: BODY_BYTES,
        };
        webtransport::serve(quic, server, &self.sessions, self.draining.clone(), &self.vital);
    }

    /// A task without which the process ends.
    fn guard<W: Future<Output = ()>>(
        &self,
        task: &'static str,
        stop: &CancellationToken,
        work: W,
    ) -> impl Future<Output = ()> + use<W> {
        self.vital.clone().guard(task, stop.clone(), work.map(Ok::<_, Infallible>))
    }

    fn background(
        &self,
        hub: &Hub,
        admission: Caps,
        repository: &Arc<dyn Repository>,
        certificates: Arc<CertStore>,
        metrics: Metrics,
    ) {
        let age = Duration::from_secs(self.config.limits.event_age_days * 86_400);
        let (clock, hub) = (self.clock.clone(), hub.clone());
        self.restarted("certificates", move |stop| Box::pin(Arc::clone(&certificates).watch(clock.clone(), stop)));
        self.restarted("metrics", move |stop| Box::pin(metrics.clone().upkeep(stop)));
        let (clock, rows) = (self.clock.clone(), Arc::clone(repository));
        self.repeated("pruning", move || prune(Arc::clone(&rows), clock.clone(), age));
        let (reporting, rows) = (hub.clone(), Arc::clone(repository));
        self.repeated("reports", move || store_reports(reporting.clone(), Arc::clone(&rows)));
        let of_address = self.config.limits.address_sessions;
        self.repeated("gauges", move || gauges(hub.clone(), admission.clone(), of_address));
    }

    /// A background task that the server's stop ends at any point.
    fn repeated<W>(&self, task: &'static str, start: impl Fn() -> W + Send + Sync + 'static)
    where
        W: Future<Output = ()> + Send + 'static,
    {
        self.restarted(task, move |stop| Box::pin(stop.run_until_cancelled_owned(start()).map(drop)));
    }

    /// A background task that only itself depends on.
    fn restarted(
        &self,
        task: &'static str,
        start: impl Fn(CancellationToken) -> BoxFuture<'static, ()> + Send + Sync + 'static,
    ) {
        let stop = self.stop.clone();
        self.tasks.spawn(panics::restarted(task, stop.clone(), move || start(stop.clone())));
    }
}

/// `NODE_URL`, as clients of other nodes are told it.
fn public_endpoints(
    config: &Config,
    quic: Option<SocketAddr>,
    certificates: &Arc<CertStore>,
) -> storage::PublicEndpoints {
    let (url, certificates) = (config.node_url.clone(), Arc::clone(certificates));
    Box::new(move || Some(url.as_ref()?.endpoints(quic, &certificates.hashes())))
}

/// UDP and TCP on the same number. With port 0 the system chooses the UDP port, and another is drawn when its TCP twin
/// is taken.
async fn bind_secure(
    parts: &Parts,
    port: u16,
    certificates: Arc<dyn ResolvesServerCert>,
) -> Result<Secure, StartError> {
    const DRAWS: u32 = 20;
    let config = &parts.config;
    let mut options = quic::options(parts.connections.clone());
    options.endpoints = config.quic_endpoints.unwrap_or(options.endpoints);
    options.identity = config.quic_identity.clone();
    if config.redis.is_some() && options.identity.secret.is_none() {
        tracing::info!("no QUIC_SHARED_SECRET: clients whose packets reach another node notice it by silence alone");
    }
    let mut draws = if port == 0 { DRAWS } else { 1 };
    loop {
        let quic = QuicListener::bind(SocketAddr::new(config.host, port), Arc::clone(&certificates), options.clone())?;
        draws -= 1;
        match tcp::bind("QUIC_PORT", quic.local_addr()).await {
            Ok(tcp) => return Ok(Secure { quic, tcp }),
            Err(error) if draws == 0 => return Err(error.into()),
            Err(_) => {}
        }
    }
}

/// Places of connections, for all and for each address, whatever they come by.
fn connection_caps(config: &Config) -> Caps {
    let limits = &config.limits;
    let of_address = config.rate_limits.then(|| connections(limits.address_sessions));
    Caps::new(connections(limits.sessions), of_address)
}

/// Connections for so many sessions: some more, because who comes too late must be told so, and probes must get
/// through.
fn connections(sessions: u64) -> usize {
    count(sessions.saturating_add(sessions / 5).saturating_add(64))
}

async fn prune(repository: Arc<dyn Repository>, clock: Clock, age: Duration) {
    let mut every = tokio::time::interval(PRUNE_EVERY);
    loop {
        every.tick().await;
        loop {
            match repository.prune(clock.now() - age).await {
                Ok(0) => break,
                Ok(events) => {
                    metrics::counter!(names::EVENTS_PRUNED).increment(events);
                    tracing::info!(events, "old audit events are gone");
                }
                Err(error) => {
                    tracing::warn!(%error, "pruning waits for the next hour");
                    break;
                }
            }
        }
    }
}

/// Writes members' last reports into the tables that people read: a row a member and minute at most.
async fn store_reports(hub: Hub, repository: Arc<dyn Repository>) {
    static AWAY: Seldom = Seldom::new();
    let mut every = tokio::time::interval(REPORTS_EVERY);
    loop {
        every.tick().await;
        let reports = hub.take_reports();
        if reports.is_empty() {
            continue;
        }
        if let Err(error) = repository.store_reports(&reports).await
            && AWAY.is_due()
        {
            tracing::warn!(%error, members = reports.len(), "what members reported is not in the database; the next is in a minute");
        }
    }
}

async fn gauges(hub: Hub, admission: Caps, of_address: u64) {
    let mut every = tokio::time::interval(GAUGES_EVERY);
    let mut proxy_hint = ProxyHint::default();
    loop {
        every.tick().await;
        proxy_hint.look(admission.majority(), of_address);
        let status = hub.status();
        metrics::gauge!(names::ROOMS).set(status.rooms as f64);
        metrics::gauge!(names::ROOMS_UNREADABLE).set(status.unreadable_rooms as f64);
        metrics::gauge!(names::AUDIENCE).set(status.audience as f64);
        metrics::gauge!(names::MEMBERS, "state" => "live").set(status.attached as f64);
        metrics::gauge!(names::SESSION_QUEUE_BYTES).set(status.waiting_bytes as f64);
        metrics::gauge!(names::MEMBERS, "state" => "grace").set(status.in_grace as f64);
    }
}

/// Where sessions of every transport are received.
#[derive(Clone)]
struct SessionAcceptor {
    services: Services,
    admission: Caps,
}

impl Accept for SessionAcceptor {
    type Permit = Cap;

    fn admit(&self, peer: IpAddr) -> Result<Cap, SessionRefused> {
        self.admission.admit(peer).map_err(|full| match full {
            CapsFull::Draining => SessionRefused::Draining,
            CapsFull::Node | CapsFull::Address => SessionRefused::Full { retry_after: Duration::from_secs(5) },
        })
    }

    fn serve<T: Transport + 'static>(&self, transport: T, permit: Cap) -> BoxFuture<'static, ()> {
        Box::pin(session::run(transport, self.services.clone(), permit))
    }
}
