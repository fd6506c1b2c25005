//! What the benchmarks share: people, rooms, a hub on a memory log.

use std::net::{IpAddr, Ipv4Addr};
use std::sync::Arc;
use std::time::Duration;

use tandem::clock::Clock;
use tandem::domain::{
    CloseCode, Dialect, Head, Limits, MediaTime, MemberSlot, NodeId, Player, PlayerState, Rate, RelayedTick, RoomId,
    RoomTime, SessionRef, TickReport, TokenHash, TransportKind, UrlPolicy, UserId, Username,
};
use tandem::hub::JoinRequest;
use tandem::hub::delivery::{DigestDelivery, EventDelivery, Joined, Notice, Reply, StatusDelivery, TickDelivery};
use tandem::hub::subscriber::Subscriber;
use tandem::hub::subscriber::{RoomDelivery, SessionControl, SessionMeasurements};
use tandem::hub::{Hub, HubParts, Membership};
use tandem::log::memory::MemoryLog;
use tandem::protocol::{self, Rules};
use tandem::quota::AddressBudgets;
use tandem::room::{Actor, Ask, ChatLine, Command, Join, Origin, OwnerClaim, PinProof, Room};
use tandem::session::{Services, SessionCounts};
use tokio::runtime::Runtime;
use tokio_util::sync::CancellationToken;
use tokio_util::task::TaskTracker;

pub(crate) const NOW: RoomTime = RoomTime::from_millis(1_795_000_000_000);

/// No room is full, and everybody may be in one place.
pub(crate) fn limits() -> Limits {
    Limits { room_members: 10_000, rooms: 1_000_000, ..Limits::default() }
}

pub(crate) fn user(number: usize) -> UserId {
    UserId::parse(&format!("member-{number}")).unwrap()
}

pub(crate) fn room_id(number: usize) -> RoomId {
    RoomId::parse(&format!("room-{number}")).unwrap()
}

pub(crate) fn position(seconds: f64) -> MediaTime {
    MediaTime::parse(seconds, &limits()).unwrap()
}

/// The member with this number, on a session of the same number.
pub(crate) fn actor(number: usize) -> Actor {
    let session = SessionRef { node: NodeId::parse("node-1").unwrap(), id: number as u64 };
    Actor { user: user(number), session }
}

pub(crate) fn joining(number: usize) -> Command {
    let Actor { user, session } = actor(number);
    Command::Join(Join {
        user,
        name: Some(Username::parse(&format!("Member {number}"), &limits()).unwrap()),
        session,
        dialect: Dialect::V3,
        transport: TransportKind::WebTransport,
        presented: None,
        new_token: TokenHash::from_bytes([7; 32]),
        pin: PinProof::None,
        origin: Origin::default(),
        claim: OwnerClaim::default(),
        moves: false,
    })
}

/// A request of member 0, with a lead.
pub(crate) fn asked(ask: Ask) -> Command {
    Command::Asked { by: actor(0), lead: Duration::from_millis(150), ask }
}

/// Decides and applies.
pub(crate) fn step(room: &mut Room, now: RoomTime, command: &Command, limits: &Limits) -> usize {
    let events = room.decide(now, command, limits).unwrap();
    for event in &events {
        room.apply(event);
    }
    events.len()
}

/// A room with so many members; 0 is the host.
pub(crate) fn room_of(members: usize) -> Room {
    let mut room = Room::vacant(room_id(0), Head::default());
    for number in 0..members {
        step(&mut room, NOW, &joining(number), &limits());
        let ask = Ask::Player { player: Player::of(PlayerState::Ready), film: None };
        step(&mut room, NOW, &Command::Asked { by: actor(number), lead: Duration::ZERO, ask }, &limits());
    }
    room
}

/// The same as the server relays it.
pub(crate) fn relayed_tick(at: RoomTime, seq: u32) -> RelayedTick {
    tick(at, seq).relayed(MemberSlot(1), true)
}

pub(crate) fn tick(at: RoomTime, seq: u32) -> TickReport {
    TickReport { seq, playing: false, position: MediaTime::ZERO, at, rate: Rate::NORMAL }
}

/// A hub on a memory log, on a runtime of its own.
pub(crate) struct HubFixture {
    pub(crate) hub: Hub,
    pub(crate) clock: Clock,
    pub(crate) tracker: TaskTracker,
    pub(crate) runtime: Runtime,
    log: MemoryLog,
}

impl HubFixture {
    pub(crate) fn new() -> Self {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().unwrap();
        let (clock, tracker) = (Clock::start(), TaskTracker::new());
        let inside = runtime.enter();
        let log = MemoryLog::new(None, Vec::new(), &tracker);
        let hub = start_hub("node-1", &log, &clock, &tracker);
        drop(inside);
        Self { hub, clock, tracker, runtime, log }
    }

    /// Another node's.
    pub(crate) fn another_hub(&self) -> Hub {
        let _inside = self.runtime.enter();
        start_hub("node-2", &self.log, &self.clock, &self.tracker)
    }

    pub(crate) fn services(&self) -> Services {
        Services {
            hub: self.hub.clone(),
            rules: Arc::new(Rules { limits: limits(), urls: UrlPolicy::any() }),
            clock: self.clock.clone(),
            rates: false,
            addresses: AddressBudgets::new(&Limits::default()),
            stop: CancellationToken::new(),
            counts: SessionCounts::default(),
        }
    }

    pub(crate) async fn join(&self, room: usize, number: usize, subscriber: Arc<dyn Subscriber>) -> Membership {
        let (session, address) = (self.hub.new_session(), IpAddr::V4(Ipv4Addr::LOCALHOST));
        let request = JoinRequest::new(room_id(room), user(number), session, TransportKind::WebSocket, address);
        self.hub.join(request, subscriber).await.map_err(|refusal| refusal.to_string()).unwrap()
    }

    /// A room with so many members, each with a subscriber that encodes, as a session does, and forgets; the host's
    /// membership.
    pub(crate) fn room(&self, room: usize, members: usize) -> Membership {
        self.runtime.block_on(async {
            let host = self.join(room, 0, Arc::new(Sink)).await;
            for number in 1..members {
                self.join(room, number, Arc::new(Sink)).await;
            }
            host
        })
    }
}

fn start_hub(node: &str, log: &MemoryLog, clock: &Clock, tracker: &TaskTracker) -> Hub {
    let node = NodeId::parse(node).unwrap();
    Hub::start(HubParts {
        node: node.clone(),
        clock: clock.clone(),
        limits: Arc::new(limits()),
        quotas: None,
        log: log.attach(node),
        tracker: tracker.clone(),
        stop: CancellationToken::new(),
    })
}

/// Takes everything, keeps nothing.
pub(crate) struct Sink;

impl RoomDelivery for Sink {
    fn state(&self, room: &Room, joined: &Joined<'_>) {
        divan::black_box(protocol::encode_state(room, joined, &limits()));
    }

    fn event(&self, delivery: &EventDelivery<'_>) {
        divan::black_box(delivery.encoded.get_or_init(|| protocol::encode_event(delivery)).clone());
    }

    fn notice(&self, notice: &Notice<'_>) {
        divan::black_box(notice.encoded.get_or_init(|| protocol::encode_notice(notice)).clone());
    }

    fn tick(&self, report: &TickDelivery) {
        divan::black_box(report.encoded.get_or_init(|| protocol::encode_tick(&report.tick)).clone());
    }

    fn status(&self, delivery: &StatusDelivery) {
        divan::black_box(delivery.encoded.get_or_init(|| protocol::encode_status(&delivery.status)).clone());
    }

    fn digest(&self, delivery: &DigestDelivery) {
        divan::black_box(delivery.encoded.get_or_init(|| protocol::encode_digest(&delivery.digest)).clone());
    }

    fn replay(&self, _: Head, _: &ChatLine) {}

    fn reply(&self, _: Reply<'_>) {}
}

impl SessionControl for Sink {
    fn close(&self, _: CloseCode, _: &str) {}

    fn probe(&self) {}
}

impl SessionMeasurements for Sink {
    fn rtt(&self) -> Option<Duration> {
        Some(Duration::from_millis(20))
    }
}
