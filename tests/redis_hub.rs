//! Hubs of several nodes over one Redis.

#![expect(clippy::unwrap_used, reason = "a test that cannot go on fails")]

#[path = "support/proxy.rs"]
mod proxy;
#[path = "support/redis_node.rs"]
mod redis_node;
#[path = "support/redis.rs"]
mod redis_server;
#[path = "support/waiting.rs"]
mod waiting;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use proxy::Proxy;
use redis_node::RedisNode;
use redis_server::{RedisServer, options};
use tandem::clock::Clock;
use tandem::cluster::{ClusterNodes, DrainOptions, LeaseWatch, SharedRoster, WatchOptions};
use tandem::domain::{ChatText, CloseCode, Head, Limits, MediaTime, Rate, RoomId, TickReport, TransportKind, UserId};
use tandem::hub::JoinRequest;
use tandem::hub::delivery::{DigestDelivery, EventDelivery, Joined, Notice, Reply, StatusDelivery, TickDelivery};
use tandem::hub::subscriber::Subscriber;
use tandem::hub::subscriber::{RoomDelivery, SessionControl, SessionMeasurements};
use tandem::hub::{Hub, HubParts, Membership};
use tandem::log::Log;
use tandem::redis::RedisOptions;
use tandem::repository::Repository;
use tandem::repository::sqlite::SqliteRepository;
use tandem::room::ChatLine;
use tandem::room::{Ask, Room};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;
use waiting::{DEADLINE, until};

#[tokio::test]
async fn a_room_that_lives_on_one_node_costs_no_redis_operation_per_tick() {
    let server = RedisServer::start().await;
    let (a, b) = (Node::start("a", &server).await, Node::start("b", &server).await);
    let (_ann, ann) = a.join("friday", "ann").await;
    let (bob_hears, _bob) = a.join("friday", "bob").await;
    let mut shell = server.shell().await;
    let published = async |shell: &mut redis_server::Shell| shell.calls("publish").await;
    let quiet = published(&mut shell).await;
    for n in 0..100 {
        a.hub.tick(&ann, tick(n, &a));
    }
    until(async || bob_hears.ticks.lock().last() == Some(&99)).await;
    let (cat_hears, _cat) = b.join("friday", "cat").await;
    // Probes and the JOIN, but not a hundred.
    assert!(published(&mut shell).await - quiet < 50);
    for n in 100..103 {
        a.hub.tick(&ann, tick(n, &a));
    }
    until(async || cat_hears.ticks.lock().last() == Some(&102)).await;
}

#[tokio::test]
async fn when_redis_has_lost_everything_rooms_go_on_where_they_were() {
    let server = RedisServer::start().await;
    let (a, b) = (Node::start("a", &server).await, Node::start("b", &server).await);
    let (ann_hears, ann) = a.join("friday", "ann").await;
    let (bob_hears, bob) = b.join("friday", "bob").await;
    a.chat(&ann, "before");
    until(async || bob_hears.has("chat before")).await;
    let before = a.room("friday");

    server.shell().await.ask::<()>("FLUSHALL").await;
    // At once, before anybody has noticed: the commit finds the room lost, and writes it back.
    b.chat(&bob, "after");
    until(async || ann_hears.has("chat after") && bob_hears.has("chat after")).await;
    let after = a.room("friday");
    assert_eq!(after.head(), Head { seq: before.head().seq + 1, ..before.head() });
    assert_eq!((after.host(), after.members()), (before.host(), before.members()));
    for subscriber in [&ann_hears, &bob_hears] {
        assert!(subscriber.closed.lock().is_none(), "nobody is disconnected");
    }
    // The same without a commit.
    server.shell().await.ask::<()>("FLUSHALL").await;
    until(async || a.log.load(&room("friday")).await.unwrap().is_some_and(|found| found.head == after.head())).await;
}

#[tokio::test]
async fn when_redis_restarts_empty_rooms_converge_and_nobody_is_disconnected() {
    let mut server = RedisServer::start().await;
    let (a, b) = (Node::start("a", &server).await, Node::start("b", &server).await);
    let (ann_hears, ann) = a.join("friday", "ann").await;
    let (bob_hears, _bob) = b.join("friday", "bob").await;
    server.kill().await;
    a.chat(&ann, "refused");
    until(async || ann_hears.has("refused")).await;
    server.up().await;
    until(async || a.log.bus_alive() && b.log.bus_alive()).await;
    until(async || {
        a.chat(&ann, "again");
        tokio::time::timeout(Duration::from_millis(200), until(async || bob_hears.has("chat again"))).await.is_ok()
    })
    .await;
    until(async || a.room("friday") == b.room("friday")).await;
    assert!(ann_hears.closed.lock().is_none() && bob_hears.closed.lock().is_none());
}

#[tokio::test]
async fn a_join_on_another_node_right_after_redis_lost_everything_finds_the_room_and_begins_none() {
    let server = RedisServer::start().await;
    // Long, for machines under load: a node that knows the room writes it back within this time.
    let patient = || RedisOptions { recovery_wait: Duration::from_secs(3), ..server.options() };
    let (a, c) = (Node::at("a", patient()).await, Node::at("c", patient()).await);
    let (ann_hears, ann) = a.join("friday", "ann").await;
    a.chat(&ann, "before");
    until(async || ann_hears.has("chat before")).await;
    let before = a.room("friday");
    server.shell().await.ask::<()>("FLUSHALL").await;
    let (_cat_hears, _cat) = c.join("friday", "cat").await;
    let after = c.room("friday");
    assert_eq!((after.head().epoch, after.host()), (before.head().epoch, before.host()));
    until(async || a.room("friday").member(&user("cat")).is_some()).await;
    assert_eq!(*ann_hears.closed.lock(), None);
}

#[tokio::test]
async fn members_of_a_node_that_died_enter_their_grace_time() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let a = Node::start("a", &server).await;
    let b = Node::at("b", options(&format!("redis://{}", proxy.address()))).await;
    let (_ann, _) = a.join("friday", "ann").await;
    let (_bob, _) = b.join("friday", "bob").await;
    let (_cat, _) = b.join("sunday", "cat").await;
    until(async || a.roster.get().alive.len() == 2).await;
    // As a pulled cable does it: no good-bye.
    proxy.cut();
    let live = |name: &str| a.room("friday").member(&user(name)).unwrap().is_live();
    until(async || !live("bob")).await;
    assert!(live("ann"));
    // Nobody alive follows this one: the sweeper finds it, and its members get their grace time too.
    let away = |room: &Room| room.member(&user("cat")).is_some_and(|cat| !cat.is_live());
    until(async || a.hub.inspect(&room("sunday")).is_some_and(|room| away(&room))).await;
}

/// One session is somebody, asks to be somebody else, and is reset within milliseconds.
#[tokio::test]
async fn a_session_that_is_reset_while_it_becomes_somebody_else_leaves_no_ghost() {
    let server = RedisServer::start().await;
    let (a, b) = (Node::start("a", &server).await, Node::start("b", &server).await);
    let (_ann_hears, _ann) = b.join("friday", "ann").await;
    for round in 0..40 {
        let session = a.hub.new_session();
        let request = |who: &str| {
            let address = IpAddr::V4(Ipv4Addr::LOCALHOST);
            JoinRequest::new(room("friday"), user(who), session.clone(), TransportKind::WebSocket, address)
        };
        let ear = Arc::new(Ear::default());
        let subscriber = || Arc::clone(&ear) as Arc<dyn Subscriber>;
        let one = a.hub.join(request(&format!("one-{round}")), subscriber()).await.unwrap();
        let joining = a.hub.join(request(&format!("two-{round}")), subscriber());
        let joined = tokio::time::timeout(Duration::from_micros(round * 100), joining).await;
        // What a session gives back when it ends: the membership that it knows of.
        a.hub.depart(if let Ok(Ok(two)) = joined { two } else { one }, tandem::hub::Departure::Lost);
    }
    for node in [&a, &b] {
        until(async || node.room("friday").live_sessions().len() == 1).await;
    }
}

/// Found by the chaos run: with the code of a takeover a client does not come back.
#[tokio::test]
async fn members_of_a_node_that_was_cut_off_too_long_are_told_to_come_back() {
    let server = RedisServer::start().await;
    let proxy = Proxy::to(server.address()).await;
    let a = Node::start("a", &server).await;
    let b = Node::at("b", options(&format!("redis://{}", proxy.address()))).await;
    let (ann_hears, _ann) = a.join("friday", "ann").await;
    let (bob_hears, _bob) = b.join("friday", "bob").await;
    until(async || a.roster.get().alive.len() == 2).await;
    proxy.cut();
    until(async || !a.room("friday").member(&user("bob")).unwrap().is_live()).await;
    proxy.heal();
    until(async || bob_hears.closed.lock().is_some()).await;
    assert_eq!(*bob_hears.closed.lock(), Some(CloseCode::Idle));
    assert_eq!(*ann_hears.closed.lock(), None);
}

#[tokio::test]
async fn when_all_nodes_died_and_redis_is_empty_rooms_come_back_from_the_database() {
    let dir = tempfile::tempdir().unwrap();
    let repository = Arc::new(SqliteRepository::open(dir.path()).await.unwrap());
    let mut server = RedisServer::start().await;
    let before = {
        let a = Node::start("a", &server).await;
        let quick = DrainOptions { idle: Duration::from_millis(10), ..DrainOptions::default() };
        a.log.drain(&repository, quick);
        let (_ear, ann) = a.join("friday", "ann").await;
        a.chat(&ann, "hello");
        let (_ear, _bob) = a.join("friday", "bob").await;
        until(async || a.log.unaudited() == 0).await;
        a.room("friday")
    };
    server.kill().await;
    server.up().await;
    let rooms = repository.live_rooms().await.unwrap();
    let b = Node::over(RedisNode::with_rooms("b", server.options(), rooms).await.unwrap());
    // Nobody of that room is anywhere: the sweeper finds it, and gives its members the grace time.
    let away = |room: &Room| room.members().len() == 2 && room.live_sessions().is_empty();
    until(async || b.hub.inspect(&room("friday")).is_some_and(|room| away(&room))).await;
    let after = b.room("friday");
    assert_eq!((after.head().epoch, after.host()), (before.head().epoch, before.host()));
}

struct Node {
    hub: Hub,
    log: RedisNode,
    clock: Clock,
    roster: SharedRoster,
}

impl Node {
    async fn start(name: &str, server: &RedisServer) -> Self {
        Self::at(name, server.options()).await
    }

    async fn at(name: &str, options: RedisOptions) -> Self {
        Self::over(RedisNode::at(name, options).await)
    }

    fn over(log: RedisNode) -> Self {
        let clock = Clock::start();
        let hub = Hub::start(HubParts {
            node: log.id.clone(),
            clock: clock.clone(),
            limits: Arc::new(Limits::default()),
            quotas: None,
            log: Arc::clone(&log.log) as Arc<dyn Log>,
            tracker: log.tracker.clone(),
            stop: log.stop.clone(),
        });
        let roster = watch(&log.nodes, &hub, &log.tracker, &log.stop);
        Self { hub, log, clock, roster }
    }

    async fn join(&self, name: &str, who: &str) -> (Arc<Ear>, Membership) {
        let ear = Arc::new(Ear::default());
        let (session, address) = (self.hub.new_session(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let request = JoinRequest::new(room(name), user(who), session, TransportKind::WebSocket, address);
        let membership = self.hub.join(request, Arc::clone(&ear) as Arc<dyn Subscriber>).await.unwrap();
        (ear, membership)
    }

    fn chat(&self, membership: &Membership, text: &str) {
        let text = ChatText::parse(text, &Limits::default()).unwrap();
        self.hub.submit(membership, Ask::Chat { text }, "CHAT", None);
    }

    fn room(&self, name: &str) -> Room {
        self.hub.inspect(&room(name)).unwrap()
    }
}

/// Its lease, and its eye on the others'.
fn watch(nodes: &Arc<ClusterNodes>, hub: &Hub, tracker: &TaskTracker, stop: &CancellationToken) -> SharedRoster {
    let quick = Duration::from_millis(400);
    let options = WatchOptions {
        lease: quick,
        remember: DEADLINE,
        // Who stops here has died.
        farewell: Duration::ZERO,
        sweep_every: quick,
        quiet: Duration::ZERO,
    };
    let (for_gone, for_orphans) = (hub.clone(), hub.clone());
    LeaseWatch::start(
        Arc::clone(nodes),
        options,
        Box::new(|| "{}".to_owned()),
        move |node| _ = for_gone.lose_node(node),
        move |room, alive| {
            let hub = for_orphans.clone();
            Box::pin(async move { _ = hub.adopt(&room, &alive).await })
        },
        tracker,
        stop.clone(),
    )
}

fn tick(seq: u32, node: &Node) -> TickReport {
    TickReport { seq, playing: false, position: MediaTime::ZERO, at: node.clock.now(), rate: Rate::NORMAL }
}

/// Records what a member receives.
#[derive(Default)]
struct Ear {
    heard: Mutex<Vec<String>>,
    ticks: Mutex<Vec<u32>>,
    closed: Mutex<Option<CloseCode>>,
}

impl Ear {
    fn has(&self, what: &str) -> bool {
        self.heard.lock().iter().any(|heard| heard == what)
    }

    fn hear(&self, what: String) {
        self.heard.lock().push(what);
    }
}

impl RoomDelivery for Ear {
    fn state(&self, _: &Room, _: &Joined<'_>) {
        self.hear("state".to_owned());
    }

    fn event(&self, delivery: &EventDelivery<'_>) {
        match delivery.event {
            tandem::room::Event::Chat { text, .. } => self.hear(format!("chat {}", text.as_str())),
            other => self.hear(other.kind().to_owned()),
        }
    }

    fn notice(&self, _: &Notice<'_>) {}

    fn tick(&self, report: &TickDelivery) {
        self.ticks.lock().push(report.tick.seq);
    }

    fn status(&self, _: &StatusDelivery) {}

    fn digest(&self, _: &DigestDelivery) {}

    fn replay(&self, _: Head, _: &ChatLine) {}

    fn reply(&self, reply: Reply<'_>) {
        if let Reply::Refused { .. } = reply {
            self.hear("refused".to_owned());
        }
    }
}

impl SessionControl for Ear {
    fn close(&self, code: CloseCode, _: &str) {
        *self.closed.lock() = Some(code);
    }

    fn probe(&self) {}
}

impl SessionMeasurements for Ear {
    fn rtt(&self) -> Option<Duration> {
        None
    }
}

fn room(name: &str) -> RoomId {
    RoomId::parse(name).unwrap()
}

fn user(name: &str) -> UserId {
    UserId::parse(name).unwrap()
}
