//! The audience of a room on this node: viewers, who hear the room and have no part in it.
//!
//! ```text
//! absorb (cell's lock) ─ message ─► feed ─► fan-out task, a slice of viewers at a time ─► subscribers
//! tick of the host, digest ─────► latest ──────────────────┘
//! ```
//! Viewers stand beside the attached members of the cell and never in [`Room`](crate::room::Room): no commit says that
//! one came or went, none has a slot, no gate and no election knows of them. A viewer needs a live room, and a cell
//! with a live room is never retired, so a node whose room has viewers and no member follows the room like any other:
//! its subscription and its replica live.
//!
//! **Order, each once.** The feed numbers what the audience hears; it grows under the cell's lock, in the order of the
//! room's events. A viewer is seated under the same lock: it gets ROOM_STATE at the replica's head and the number of
//! the feed's end, and hears what has a later number. What all have heard is forgotten.
//!
//! **Slices.** Ten thousand deliveries under the cell's lock would stop the room, and would put as many tasks ahead of
//! every other room's. The fan-out task serves [`SLICE`] viewers, lets the other tasks run, and goes on. A viewer that
//! is served late hears several messages at once, so a slow round makes the next one cheaper.
//!
//! **Events that only members need** (how a gate or a player does) are counted and told as one PASSED: told one by one
//! they would cost members × viewers deliveries for each seek.
//!
//! Locks: the cell's before the audience's. The fan-out task takes only the audience's.

mod census;

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use rand::RngExt;
use tokio::sync::Notify;
use tokio::time::Instant;

use crate::clock::Clock;
use crate::domain::{
    CloseCode, Head, NodeId, RelayedTick, RoomDigest, RoomTime, SessionRef, StatusReport, TransportKind, UserId,
    Username,
};
use crate::hub::delivery::{DigestDelivery, Notice, NoticeBody, TickDelivery};
use crate::hub::lock::Mutex;
use crate::hub::subscriber::Subscriber;
use crate::room::Origin;
use crate::telemetry::{HotCounter, names};
pub use census::{AudiencePart, RaisedHand};

static DELIVERIES: HotCounter = HotCounter::new(names::DELIVERIES, &[("class", "audience")]);

/// Viewers that are served before other tasks run. A delivery with its write costs some 15 µs, so the others wait for
/// about a millisecond.
pub(in crate::hub) const SLICE: usize = 64;
/// Least time between two ticks of the host to the audience, less the jitter of a report each second.
const TICK_EVERY: Duration = Duration::from_millis(900);
/// A seat, as the session on it knows it.
#[derive(Debug, Default)]
pub(in crate::hub) struct ViewerSeat {
    left: AtomicBool,
}

impl ViewerSeat {
    /// False: the viewer has become a member.
    pub(in crate::hub) fn is_taken(&self) -> bool {
        !self.left.load(Ordering::Relaxed)
    }
}

/// A session in the audience.
pub(in crate::hub) struct Viewer {
    pub(in crate::hub) user: UserId,
    pub(in crate::hub) name: Username,
    pub(in crate::hub) session: SessionRef,
    pub(in crate::hub) transport: TransportKind,
    pub(in crate::hub) origin: Origin,
    pub(in crate::hub) subscriber: Arc<dyn Subscriber>,
    pub(in crate::hub) seat: Arc<ViewerSeat>,
    /// Number of the first message of the feed that it has not heard.
    next: u64,
    hand: bool,
    /// When it last raised or lowered its hand.
    hand_at: Option<RoomTime>,
    /// Its latest status, for the digest.
    status: Option<(RoomTime, StatusReport)>,
}

impl Viewer {
    pub(in crate::hub) fn new(
        (user, name): (UserId, Username),
        session: SessionRef,
        transport: TransportKind,
        origin: Origin,
        subscriber: Arc<dyn Subscriber>,
    ) -> Self {
        let seat = Arc::default();
        let (next, hand, hand_at, status) = (0, false, None, None);
        Self { user, name, session, transport, origin, subscriber, seat, next, hand, hand_at, status }
    }

    /// Delivers what the feed has for it. True: the last of it ends its session.
    fn catch_up(&mut self, feed: &VecDeque<FeedMessage>, begin: u64) -> bool {
        let heard = usize::try_from(self.next.saturating_sub(begin)).unwrap_or(feed.len()).min(feed.len());
        // First: a subscriber that panics does not hear it again.
        self.next = begin + feed.len() as u64;
        DELIVERIES.increment((feed.len() - heard) as u64);
        for message in feed.range(heard..) {
            match message {
                FeedMessage::Encoded(bytes) => self.subscriber.message(bytes),
                FeedMessage::Notice(notice) => self.subscriber.notice(notice),
                FeedMessage::Reconnect { spread, at } => self.subscriber.notice(&reconnect(*spread, *at)),
                FeedMessage::Close(code) => {
                    self.subscriber.close(*code, code.meaning());
                    return true;
                }
            }
        }
        false
    }
}

/// RECONNECT after a random part of `spread`, so that the receivers don't come back all at once.
pub(super) fn reconnect(spread: Duration, now: RoomTime) -> Notice<'static> {
    let after = Duration::from_millis(rand::rng().random_range(0..=spread.as_millis().max(1) as u64));
    Notice { body: NoticeBody::Reconnect { after }, now, encoded: std::cell::OnceCell::new() }
}

/// A message for the whole audience.
enum FeedMessage {
    Encoded(Bytes),
    Notice(Notice<'static>),
    Reconnect {
        spread: Duration,
        at: RoomTime,
    },
    /// Ends the sessions of those who are seated by now.
    Close(CloseCode),
}

/// Messages of which only the latest counts.
#[derive(Default)]
struct LatestReports {
    tick: Option<TickDelivery>,
    digest: Option<DigestDelivery>,
}

impl LatestReports {
    fn is_empty(&self) -> bool {
        self.tick.is_none() && self.digest.is_none()
    }

    fn tell(&self, viewer: &Viewer) {
        if let Some(tick) = &self.tick {
            viewer.subscriber.tick(tick);
        }
        if let Some(digest) = &self.digest {
            viewer.subscriber.digest(digest);
        }
        DELIVERIES.increment(u64::from(self.tick.is_some()) + u64::from(self.digest.is_some()));
    }
}

/// A round of the fan-out over all seats.
pub(in crate::hub) struct FanOutRound {
    /// The next seat to serve.
    seat: usize,
    /// After the round everybody has heard what has a smaller number.
    heard: u64,
    latest: LatestReports,
}

#[derive(Default)]
pub(in crate::hub) struct Audience {
    state: Mutex<AudienceState>,
    /// The number of viewers here, without the lock: every tick of a host asks.
    seated: AtomicUsize,
    /// Wakes the fan-out task.
    fed: Notify,
}

#[derive(Default)]
struct AudienceState {
    /// A seat keeps its place in the list, so that a round misses nobody when others leave.
    seats: Vec<Option<Viewer>>,
    free: Vec<usize>,
    /// Seats by the session's number, which is unique on its node.
    by_session: HashMap<u64, usize>,
    feed: VecDeque<FeedMessage>,
    /// Number of the feed's first message.
    begin: u64,
    /// Events since the feed's last message that the audience need not hear, and the head after them.
    passed: Option<(u64, Head)>,
    latest: LatestReports,
    tick_at: Option<RoomTime>,
    /// The fan-out task runs.
    served: bool,
    others: HashMap<NodeId, (AudiencePart, Instant)>,
    /// The count that the other nodes, the receivers here, and the audit know.
    published: u32,
    shown: u32,
    noted: u32,
    /// When the count began to differ from the audit's.
    differs: Option<Instant>,
    /// The hands that the host's session here was shown, by user.
    host: Option<SessionRef>,
    hands_shown: BTreeMap<UserId, RaisedHand>,
}

impl Audience {
    pub(in crate::hub) fn is_empty(&self) -> bool {
        self.seated.load(Ordering::Relaxed) == 0
    }

    /// Whether other nodes have viewers.
    pub(in crate::hub) fn is_elsewhere(&self) -> bool {
        !self.state.lock().others.is_empty()
    }

    /// The viewers of this node.
    pub(in crate::hub) fn here(&self) -> usize {
        self.seated.load(Ordering::Relaxed)
    }

    /// The viewers of all nodes, as far as this one knows.
    pub(in crate::hub) fn total(&self) -> u32 {
        self.state.lock().total()
    }

    /// Seats a viewer, after `welcome` has given it ROOM_STATE. Called under the cell's lock. True: the caller must
    /// start the fan-out task.
    pub(in crate::hub) fn seat(&self, mut viewer: Viewer, now: RoomTime, welcome: impl FnOnce(&Viewer, u32)) -> bool {
        let mut state = self.state.lock();
        state.remove(viewer.session.id);
        state.tell_passed(now);
        viewer.next = state.end();
        state.differs.get_or_insert_with(Clock::instant);
        let total = state.total() + 1;
        welcome(&viewer, total);
        let id = viewer.session.id;
        let place = match state.free.pop() {
            Some(place) => {
                state.seats[place] = Some(viewer);
                place
            }
            None => {
                state.seats.push(Some(viewer));
                state.seats.len() - 1
            }
        };
        state.by_session.insert(id, place);
        self.seated.store(state.by_session.len(), Ordering::Relaxed);
        !std::mem::replace(&mut state.served, true)
    }

    /// Removes a viewer, without a word to it.
    pub(in crate::hub) fn leave(&self, session: &SessionRef) -> Option<Viewer> {
        let mut state = self.state.lock();
        let viewer = state.remove(session.id);
        self.note_left(&state);
        viewer
    }

    /// Removes a viewer that becomes a member: it has heard everything up to now.
    pub(in crate::hub) fn promote(&self, session: &SessionRef, now: RoomTime) -> bool {
        let mut state = self.state.lock();
        let Some(place) = state.by_session.get(&session.id).copied() else { return false };
        state.tell_passed(now);
        state.catch_up(place..place + 1, None);
        if let Some(viewer) = state.remove(session.id) {
            viewer.seat.left.store(true, Ordering::Relaxed);
        }
        self.note_left(&state);
        true
    }

    /// Removes the viewers that fit, after what they have to hear, and ends their sessions.
    pub(in crate::hub) fn evict(&self, code: CloseCode, fits: impl Fn(&Viewer) -> bool) {
        let mut state = self.state.lock();
        for place in 0..state.seats.len() {
            let Some(session) = state.seats[place].as_ref().filter(|viewer| fits(viewer)).map(|v| v.session.id) else {
                continue;
            };
            state.catch_up(place..place + 1, None);
            if let Some(viewer) = state.remove(session) {
                viewer.subscriber.close(code, code.meaning());
            }
        }
        self.note_left(&state);
    }

    fn note_left(&self, state: &AudienceState) {
        self.seated.store(state.by_session.len(), Ordering::Relaxed);
        if state.by_session.is_empty() {
            // The fan-out task ends.
            self.fed.notify_one();
        }
    }

    /// Looks at a viewer, or changes it.
    pub(in crate::hub) fn with<T>(&self, session: &SessionRef, look: impl FnOnce(&mut Viewer) -> T) -> Option<T> {
        let mut state = self.state.lock();
        let place = state.by_session.get(&session.id).copied()?;
        state.seats[place].as_mut().map(look)
    }

    /// Gives a viewer what it has to hear, then what `say` gives it: the order of its messages is the room's.
    pub(in crate::hub) fn say(&self, session: &SessionRef, now: RoomTime, say: impl FnOnce(&Viewer, u32)) {
        let mut state = self.state.lock();
        let Some(place) = state.by_session.get(&session.id).copied() else { return };
        state.tell_passed(now);
        state.catch_up(place..place + 1, None);
        let total = state.total();
        if let Some(viewer) = &state.seats[place] {
            say(viewer, total);
        }
    }

    /// Has any viewer here encode a message for all of them. `None`: there is none.
    pub(in crate::hub) fn encode<T>(&self, encode: impl FnOnce(&dyn Subscriber, u32) -> T) -> Option<T> {
        let state = self.state.lock();
        let total = state.total();
        state.seats.iter().flatten().next().map(|viewer| encode(&*viewer.subscriber, total))
    }

    /// A message for the whole audience.
    pub(in crate::hub) fn tell(&self, message: Bytes, now: RoomTime) {
        self.feed(FeedMessage::Encoded(message), now);
    }

    pub(in crate::hub) fn notice(&self, body: NoticeBody<'static>, now: RoomTime) {
        self.feed(FeedMessage::Notice(Notice { body, now, encoded: std::cell::OnceCell::new() }), now);
    }

    pub(in crate::hub) fn announce_reconnect(&self, spread: Duration, now: RoomTime) {
        self.feed(FeedMessage::Reconnect { spread, at: now }, now);
    }

    /// Ends the sessions of the audience, after what it has to hear.
    pub(in crate::hub) fn close(&self, code: CloseCode, now: RoomTime) {
        self.feed(FeedMessage::Close(code), now);
    }

    fn feed(&self, message: FeedMessage, now: RoomTime) {
        let mut state = self.state.lock();
        if state.by_session.is_empty() {
            return;
        }
        state.tell_passed(now);
        state.feed.push_back(message);
        drop(state);
        self.fed.notify_one();
    }

    /// An event that the audience need not hear: it only learns that there was one, with the next message or within a
    /// second.
    pub(in crate::hub) fn pass(&self, head: Head) {
        let mut state = self.state.lock();
        if !state.by_session.is_empty() {
            let events = state.passed.map_or(0, |(events, _)| events);
            state.passed = Some((events + 1, head));
        }
    }

    /// The host's tick: at most one a second, the latest.
    pub(in crate::hub) fn tick(&self, tick: RelayedTick, now: RoomTime) {
        if self.is_empty() {
            return;
        }
        let mut state = self.state.lock();
        if state.tick_at.is_some_and(|at| at + TICK_EVERY > now && at <= now) {
            return;
        }
        state.tick_at = Some(now);
        state.latest.tick = Some(TickDelivery { tick, encoded: std::cell::OnceCell::new() });
        drop(state);
        self.fed.notify_one();
    }

    /// How the room does.
    pub(in crate::hub) fn digest(&self, digest: RoomDigest) {
        if self.is_empty() {
            return;
        }
        self.state.lock().latest.digest = Some(DigestDelivery { digest, encoded: std::cell::OnceCell::new() });
        self.fed.notify_one();
    }

    /// Resolves when there may be something to deliver.
    pub(in crate::hub) async fn fed(&self) {
        self.fed.notified().await;
    }

    /// A round, if there is something to deliver.
    pub(in crate::hub) fn begin_round(&self) -> Option<FanOutRound> {
        let mut state = self.state.lock();
        if state.feed.is_empty() && state.latest.is_empty() {
            return None;
        }
        Some(FanOutRound { seat: 0, heard: state.end(), latest: std::mem::take(&mut state.latest) })
    }

    /// Serves the next slice. False: the round is over.
    pub(in crate::hub) fn serve_slice(&self, round: &mut FanOutRound) -> bool {
        let mut state = self.state.lock();
        let slice = round.seat..(round.seat + SLICE).min(state.seats.len());
        // First: a slice whose subscriber panics is not served again.
        round.seat = slice.end;
        let closed = state.catch_up(slice, Some(&round.latest));
        for session in closed {
            state.remove(session);
        }
        self.seated.store(state.by_session.len(), Ordering::Relaxed);
        let over = round.seat >= state.seats.len();
        if over {
            state.forget(round.heard);
        }
        !over
    }

    /// Ends the fan-out task if nobody is left. True: it ended.
    pub(in crate::hub) fn stop_serving(&self) -> bool {
        let mut state = self.state.lock();
        let ends = state.by_session.is_empty();
        if ends {
            state.served = false;
            state.clear();
        }
        ends
    }

    pub(in crate::hub) fn waiting_bytes(&self) -> usize {
        self.state.lock().seats.iter().flatten().map(|viewer| viewer.subscriber.waiting_bytes()).sum()
    }
}

impl AudienceState {
    fn end(&self) -> u64 {
        self.begin + self.feed.len() as u64
    }

    fn here(&self) -> u32 {
        u32::try_from(self.by_session.len()).unwrap_or(u32::MAX)
    }

    fn total(&self) -> u32 {
        let others = self.others.values().map(|(part, _)| part.count);
        others.fold(self.here(), u32::saturating_add)
    }

    fn remove(&mut self, session: u64) -> Option<Viewer> {
        let place = self.by_session.remove(&session)?;
        self.free.push(place);
        self.seats[place].take()
    }

    fn tell_passed(&mut self, now: RoomTime) {
        if let Some((events, head)) = self.passed.take() {
            let body = NoticeBody::Passed { events, head };
            self.feed.push_back(FeedMessage::Notice(Notice { body, now, encoded: std::cell::OnceCell::new() }));
        }
    }

    /// Serves these seats; returns the sessions that have ended.
    fn catch_up(&mut self, seats: Range<usize>, latest: Option<&LatestReports>) -> Vec<u64> {
        let Self { seats: all, feed, begin, .. } = self;
        let mut closed = Vec::new();
        for viewer in all[seats].iter_mut().flatten() {
            if viewer.catch_up(feed, *begin) {
                closed.push(viewer.session.id);
            } else if let Some(latest) = latest {
                latest.tell(viewer);
            }
        }
        closed
    }

    /// Forgets what everybody has heard.
    fn forget(&mut self, heard: u64) {
        while self.begin < heard && self.feed.pop_front().is_some() {
            self.begin += 1;
        }
    }

    /// Gives the memory of an audience that has left back.
    fn clear(&mut self) {
        self.begin = self.end();
        (self.feed, self.passed, self.latest) = (VecDeque::new(), None, LatestReports::default());
        (self.seats, self.free, self.by_session) = (Vec::new(), Vec::new(), HashMap::new());
    }
}
