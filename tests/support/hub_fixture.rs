//! A hub on a memory log with injected faults, under paused time, and subscribers that record what they get.

#![allow(clippy::unwrap_used, unreachable_pub, dead_code, reason = "a test fails by panicking")]

#[path = "faulty_log.rs"]
pub mod faulty_log;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use faulty_log::{Fate, FaultyMemoryLog, What};
use parking_lot::Mutex;
use serde_json::Value;
use tandem::clock::Clock;
use tandem::domain::{ChatText, CloseCode, Head, Limits, NodeId, RoomId, RoomTime, SessionRef, TransportKind, UserId};
use tandem::hub::JoinRequest;
use tandem::hub::delivery::{
    DigestDelivery, EventDelivery, Joined, Notice, Reply, RosterDelivery, StatusDelivery, TickDelivery,
};
use tandem::hub::subscriber::{RoomDelivery, SessionControl, SessionMeasurements};
use tandem::hub::{Hub, HubParts, Membership};
use tandem::log::Log;
use tandem::protocol;
use tandem::quota::{MemoryQuotas, Quotas};
use tandem::room::Ask;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

/// Records what it is given.
#[derive(Default)]
pub struct RecordingSubscriber {
    pub heard: Mutex<Vec<Value>>,
    pub closed: Mutex<Option<CloseCode>>,
    /// Half of its outbox is used.
    pub full: AtomicBool,
    /// How often it was the first to need the bytes of a ROOM_STATE, an event or a roster.
    pub encodings: AtomicUsize,
    /// Its connection's round trip.
    pub rtt: Mutex<Option<Duration>>,
}

impl RecordingSubscriber {
    fn count(&self, encodes: bool) {
        self.encodings.fetch_add(usize::from(encodes), Ordering::Relaxed);
    }

    fn hear(&self, bytes: &Bytes) {
        self.heard.lock().push(serde_json::from_slice(bytes).unwrap());
    }

    /// Drains what was recorded since the last call: the type, or ERROR's code.
    pub fn heard(&self) -> Vec<String> {
        let name = |message: &Value| {
            let kind = message["type"].as_str().unwrap().to_owned();
            match kind.as_str() {
                "ERROR" => message["code"].as_str().unwrap().to_owned(),
                "DEGRADED" => format!("DEGRADED {}", message["degraded"]),
                "MEMBER_CONNECTION" => format!("MEMBER_CONNECTION {}", message["connected"]),
                _ => kind,
            }
        };
        self.heard.lock().drain(..).map(|message| name(&message)).collect()
    }
}

impl RoomDelivery for RecordingSubscriber {
    fn state(&self, room: &tandem::room::Room, joined: &Joined<'_>) {
        self.count(joined.shared.get().is_none());
        self.hear(&protocol::encode_state(room, joined, &Limits::default()).join());
    }

    fn event(&self, delivery: &EventDelivery<'_>) {
        self.count(delivery.encoded.get().is_none());
        if let Some(bytes) = delivery.encoded.get_or_init(|| protocol::encode_event(delivery)) {
            self.hear(bytes);
        }
    }

    fn roster(&self, delivery: &RosterDelivery<'_>) {
        self.count(delivery.encoded.get().is_none());
        self.hear(delivery.encoded.get_or_init(|| protocol::encode_roster(delivery)));
    }

    fn encode(&self, delivery: &EventDelivery<'_>) -> Option<Bytes> {
        protocol::encode_event(delivery)
    }

    fn encode_roster(&self, delivery: &RosterDelivery<'_>) -> Option<Bytes> {
        Some(protocol::encode_roster(delivery))
    }

    fn encode_state(&self, room: &tandem::room::Room, joined: &Joined<'_>) -> Option<Bytes> {
        Some(protocol::encode_state(room, joined, &Limits::default()).join())
    }

    fn message(&self, message: &Bytes) {
        self.hear(message);
    }

    fn notice(&self, notice: &Notice<'_>) {
        self.hear(&protocol::encode_notice(notice));
    }

    fn tick(&self, _: &TickDelivery) {}
    fn status(&self, _: &StatusDelivery) {}

    fn digest(&self, _: &DigestDelivery) {}

    fn replay(&self, head: Head, line: &tandem::room::ChatLine) {
        self.hear(&protocol::encode_replay(head, line));
    }

    fn reply(&self, reply: Reply<'_>) {
        let bytes = match reply {
            Reply::Ack { reference, head } => protocol::encode_reply_ack(reference, head, RoomTime::from_millis(0)),
            Reply::Refused { reference, request, refusal } => {
                let (code, wait) = protocol::refusal_code(refusal);
                protocol::encode_error(code, &refusal.to_string(), reference, request, wait)
            }
        };
        self.hear(&bytes);
    }
}

impl SessionControl for RecordingSubscriber {
    fn close(&self, code: CloseCode, _: &str) {
        self.closed.lock().get_or_insert(code);
    }

    fn probe(&self) {}
}

impl SessionMeasurements for RecordingSubscriber {
    fn has_room(&self, _bytes: usize) -> bool {
        !self.full.load(Ordering::Relaxed)
    }

    fn rtt(&self) -> Option<Duration> {
        *self.rtt.lock()
    }
}

/// A hub on a memory log, under paused time.
pub struct HubFixture {
    pub hub: Hub,
    pub log: FaultyMemoryLog,
    pub tracker: TaskTracker,
    pub clock: Clock,
}

impl HubFixture {
    pub fn new() -> Self {
        Self::with(Limits::default())
    }

    pub fn with(limits: Limits) -> Self {
        let tracker = TaskTracker::new();
        let log = FaultyMemoryLog::new(&tracker);
        let clock = Clock::starting_at(RoomTime::from_millis(1_795_000_000_000));
        let hub = Self::another(&log, &tracker, &clock, limits, "node-1");
        Self { hub, log, tracker, clock }
    }

    fn another(log: &FaultyMemoryLog, tracker: &TaskTracker, clock: &Clock, limits: Limits, name: &str) -> Hub {
        Self::limited(log, tracker, clock, limits, name, false)
    }

    /// A second node.
    pub fn far(&self) -> Hub {
        Self::another(&self.log, &self.tracker, &self.clock, Limits::default(), "node-2")
    }

    pub fn limited(
        log: &FaultyMemoryLog,
        tracker: &TaskTracker,
        clock: &Clock,
        limits: Limits,
        name: &str,
        rates: bool,
    ) -> Hub {
        let node = NodeId::parse(name).unwrap();
        Hub::start(HubParts {
            node: node.clone(),
            clock: clock.clone(),
            quotas: rates.then(|| Arc::new(MemoryQuotas::new((&limits).into())) as Arc<dyn Quotas>),
            limits: Arc::new(limits),
            log: log.attach(node),
            tracker: tracker.clone(),
            stop: CancellationToken::new(),
        })
    }

    pub fn request(&self, user: &str, session: &SessionRef) -> JoinRequest {
        let (user, address) = (UserId::parse(user).unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        JoinRequest::new(room(), user, session.clone(), TransportKind::WebSocket, address)
    }

    pub async fn join(&self, user: &str) -> (Membership, Arc<RecordingSubscriber>) {
        self.join_at(&self.hub, user).await
    }

    /// Joins on another node of the same log.
    pub async fn join_at(&self, hub: &Hub, user: &str) -> (Membership, Arc<RecordingSubscriber>) {
        let (session, subscriber) = (hub.new_session(), Arc::new(RecordingSubscriber::default()));
        let joined = hub.join(self.request(user, &session), subscriber.clone()).await;
        (joined.map_err(|refusal| refusal.to_string()).unwrap(), subscriber)
    }

    /// A node's hub on a log of the test's own, on the fixture's clock.
    pub fn hub_on(&self, node: NodeId, log: Arc<dyn Log>) -> Hub {
        Hub::start(HubParts {
            node,
            clock: self.clock.clone(),
            quotas: None,
            limits: Arc::new(Limits::default()),
            log,
            tracker: self.tracker.clone(),
            stop: CancellationToken::new(),
        })
    }

    pub fn chat(&self, membership: &Membership, reference: u64) {
        Self::chat_at(&self.hub, membership, reference);
    }

    pub fn chat_at(hub: &Hub, membership: &Membership, reference: u64) {
        let text = ChatText::parse("hello", &Limits::default()).unwrap();
        hub.submit(membership, Ask::Chat { text }, "CHAT", Some(reference));
    }

    /// The members, and whether they are live.
    pub fn members(&self) -> Vec<(String, bool)> {
        let Some(room) = self.hub.inspect(&room()) else { return Vec::new() };
        room.members().iter().map(|(user, member)| (user.to_string(), member.is_live())).collect()
    }

    /// Loses every crossing of these kinds until told otherwise.
    pub fn fail(&self, kinds: &'static [What]) {
        self.log.faults().decide_by(|crossing| if kinds.contains(&crossing.what) { Fate::Lost } else { Fate::Arrives });
    }
}

pub fn room() -> RoomId {
    RoomId::parse("friday").unwrap()
}

/// Waits until the condition holds, in virtual time.
pub async fn until(what: &str, mut holds: impl FnMut() -> bool) {
    let turns = async {
        while !holds() {
            tokio::time::sleep(Duration::from_millis(1)).await;
        }
    };
    assert!(tokio::time::timeout(Duration::from_secs(120), turns).await.is_ok(), "waited in vain for {what}");
}
