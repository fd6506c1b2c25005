//! A hub on a memory log, for the tests of its parts.

#![allow(clippy::unwrap_used, reason = "a test fails by panicking")]

#[path = "../../../tests/support/faulty_log.rs"]
mod faulty_log;

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use self::faulty_log::{Fate, FaultyMemoryLog, What};
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

use super::JoinRequest;
use super::delivery::{DigestDelivery, EventDelivery, Joined, Notice, Reply, StatusDelivery, TickDelivery};
use super::subscriber::Subscriber;
use super::subscriber::{RoomDelivery, SessionControl, SessionMeasurements};
use super::{Hub, HubParts, Membership};
use crate::clock::Clock;
use crate::domain::{CloseCode, Head, Limits, NodeId, RoomId, TransportKind, UserId};
use crate::room::{Ask, ChatLine, Command, Room};

/// A subscriber that ignores everything.
pub(super) struct Silent;

impl RoomDelivery for Silent {
    fn state(&self, _: &Room, _: &Joined<'_>) {}

    fn event(&self, _: &EventDelivery<'_>) {}

    fn notice(&self, _: &Notice<'_>) {}

    fn tick(&self, _: &TickDelivery) {}

    fn status(&self, _: &StatusDelivery) {}

    fn digest(&self, _: &DigestDelivery) {}

    fn replay(&self, _: Head, _: &ChatLine) {}

    fn reply(&self, _: Reply<'_>) {}
}

impl SessionControl for Silent {
    fn close(&self, _: CloseCode, _: &str) {}

    fn probe(&self) {}
}

impl SessionMeasurements for Silent {
    fn rtt(&self) -> Option<Duration> {
        None
    }
}

pub(super) struct Fixture {
    pub(super) hub: Hub,
    pub(super) log: FaultyMemoryLog,
}

impl Fixture {
    pub(super) fn new() -> Self {
        let tracker = TaskTracker::new();
        let log = FaultyMemoryLog::new(&tracker);
        let node = NodeId::parse("node-1").unwrap();
        let hub = Hub::start(HubParts {
            node: node.clone(),
            clock: Clock::start(),
            quotas: None,
            limits: Arc::new(Limits::default()),
            log: log.attach(node),
            tracker,
            stop: CancellationToken::new(),
        });
        Self { hub, log }
    }

    pub(super) async fn join(&self, user: &str, subscriber: Arc<dyn Subscriber>) -> Membership {
        let (user, address) = (UserId::parse(user).unwrap(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let request = JoinRequest::new(room(), user, self.hub.new_session(), TransportKind::WebSocket, address);
        self.hub.join(request, subscriber).await.map_err(|refusal| refusal.to_string()).unwrap()
    }

    pub(super) fn fail_commits(&self) {
        self.log.faults().decide_by(|crossing| if crossing.what == What::Commit { Fate::Lost } else { Fate::Arrives });
    }

    pub(super) fn fail_loads(&self) {
        self.log.faults().decide_by(|crossing| if crossing.what == What::Load { Fate::Lost } else { Fate::Arrives });
    }
}

pub(super) fn room() -> RoomId {
    RoomId::parse("friday").unwrap()
}

/// Panics in `Room::decide` on demand.
pub(super) fn panic_at(command: &Command) {
    if let Command::Asked { ask: Ask::Chat { text }, .. } = command {
        assert_ne!(text.as_str(), POISON, "injected");
    }
}

/// The CHAT text that panics.
pub(super) const POISON: &str = "panic, please";
