//! The outbox of a session: messages, bounded by bytes, and ticks and statuses, of which a newer one replaces the
//! waiting one of its slot.
//!
//! The hub fills it under a room's lock, so filling never blocks; the session's writer empties it, a batch a flush.
//! Where the transport has datagrams, a tick or status that need not wait never wakes the writer. Compact messages that
//! wait together leave as one frame or datagram ([`protocol::bundles`]). A session is closed when messages beyond
//! `MAX_OUTBOX_BYTES` wait: a dropped message would break the room's order, and unbounded queues the server. Signals of
//! single members may fill half of it ([`SessionMeasurements::has_room`]); beyond that their sender is refused, and the
//! other half is left for the room's own events.
//!
//! The writer takes at most [`CHUNK`] bytes at a time. So a stalled write is one without progress, not one with a long
//! queue, and a ping waits for one chunk at most. The time for the answer to a probe runs from when the ping was passed
//! to the transport ([`Outbox::note_pinged`]).

use std::collections::VecDeque;
use std::future::{Future, pending};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use bytes::Bytes;
use parking_lot::Mutex;
use tokio::sync::Notify;
use tokio::time::Instant;

use super::transport::{DatagramSender, Outgoing};
use super::{Services, SessionExit};
use crate::clock::Clock;
use crate::domain::{CloseCode, CompactBytes, Head, MemberSlot};
use crate::hub::delivery::{
    DigestDelivery, EventDelivery, Joined, Notice, NoticeBody, Reply, RosterDelivery, StatusDelivery, TickDelivery,
};
use crate::hub::subscriber::{RoomDelivery, SessionControl, SessionMeasurements};
use crate::protocol::{self, EncodedState, Rules};
use crate::room::{ChatLine, Room};
use crate::telemetry::{HotCounter, names};

/// Bytes of messages that the writer takes at a time, unless a single message is longer.
const CHUNK: usize = 64 * 1024;
/// Messages that the writer takes at a time.
const CHUNK_MESSAGES: usize = 256;

static TICKS_COALESCED: HotCounter = HotCounter::new(names::TICKS_COALESCED, &[]);

pub(super) struct Outbox {
    queue: Mutex<OutboxQueue>,
    /// Wakes the writer.
    filled: Notify,
    /// Wakes the watchdog.
    alarm: Notify,
    datagrams: Option<Arc<dyn DatagramSender>>,
    rtt_micros: AtomicU64,
    /// Whether the last ROOM_STATE of a JOIN resumed a membership.
    resumed: AtomicBool,
    rules: Arc<Rules>,
    clock: Clock,
}

#[derive(Default)]
struct OutboxQueue {
    messages: VecDeque<QueuedFrame>,
    /// Of `messages`, and of those with the writer.
    bytes: usize,
    /// Of the messages with the writer.
    leaving: usize,
    latest: Vec<(LatestOf, CompactBytes)>,
    /// Messages of `latest` are with the writer: a newer one must not overtake them.
    latest_leave: bool,
    /// Ticks replaced since the last batch: added to the shared metric once a batch.
    coalesced: u32,
    /// The hub wants a ping.
    probe: bool,
    /// When the first unanswered ping of a probe was passed to the transport.
    probed_at: Option<Instant>,
    /// Nothing leaves before the second moment, unless the session ends. The first one is when that began.
    held: Option<(Instant, Instant)>,
    /// Set once; later messages are not queued.
    end: Option<SessionExit>,
    overflowed: bool,
}

impl OutboxQueue {
    fn is_held(&self) -> bool {
        self.end.is_none() && self.held.is_some_and(|(_, until)| Clock::instant() < until)
    }

    fn count_coalesced(&mut self) {
        if self.coalesced > 0 {
            TICKS_COALESCED.increment(u64::from(std::mem::take(&mut self.coalesced)));
        }
    }
}

impl Drop for OutboxQueue {
    fn drop(&mut self) {
        self.count_coalesced();
    }
}

/// A frame that waits for the writer.
enum QueuedFrame {
    Ready(Outgoing),
    /// ROOM_STATE, which is put together when it leaves: until then a crowd that comes in holds one copy of its shared
    /// part.
    State(EncodedState),
}

impl QueuedFrame {
    /// Bytes that count against the outbox.
    fn bytes(&self) -> usize {
        match self {
            Self::Ready(Outgoing::Message(message)) => message.len(),
            Self::Ready(_) => 0,
            Self::State(state) => state.bytes(),
        }
    }

    fn leave(self) -> Outgoing {
        match self {
            Self::Ready(frame) => frame,
            Self::State(state) => Outgoing::Message(state.join()),
        }
    }
}

/// A compact message of which only the latest counts: it replaces the one that waits.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
enum LatestOf {
    /// The tick of a member.
    Tick(MemberSlot),
    /// The status of a member.
    Status(MemberSlot),
    /// How a large room does.
    Digest,
}

pub(super) struct OutboxBatch {
    /// Ping the peer.
    pub(super) probe: bool,
    /// The session ends after this batch.
    pub(super) end: Option<SessionExit>,
}

impl Outbox {
    pub(super) fn new(services: &Services, datagrams: Option<Arc<dyn DatagramSender>>) -> Self {
        Self {
            queue: Mutex::default(),
            filled: Notify::new(),
            alarm: Notify::new(),
            datagrams,
            rtt_micros: AtomicU64::new(0),
            resumed: AtomicBool::new(false),
            rules: Arc::clone(&services.rules),
            clock: services.clock.clone(),
        }
    }

    pub(super) fn push(&self, message: Bytes) {
        self.push_frame(QueuedFrame::Ready(Outgoing::Message(message)));
    }

    fn push_frame(&self, frame: QueuedFrame) {
        let mut queue = self.queue.lock();
        if queue.end.is_some() || queue.overflowed {
            return;
        }
        queue.bytes += frame.bytes();
        if queue.bytes as u64 > self.rules.limits.outbox_bytes {
            queue.overflowed = true;
            queue.messages.clear();
            queue.latest.clear();
            drop(queue);
            metrics::counter!(names::OUTBOX_OVERFLOWS).increment(1);
            self.alarm.notify_one();
            return;
        }
        queue.messages.push_back(frame);
        drop(queue);
        self.filled.notify_one();
    }

    /// Queues a compact message that no other replaces: a clock reply.
    pub(super) fn push_compact(&self, message: CompactBytes) {
        /// Beyond this the peer doesn't read, and needs no clock.
        const WAITING: usize = 32;
        let mut queue = self.queue.lock();
        if queue.end.is_none() && self.datagrams.as_ref().is_some_and(|datagrams| datagrams.try_send(&message)) {
            return;
        }
        if queue.end.is_none() && queue.messages.len() < WAITING {
            queue.messages.push_back(QueuedFrame::Ready(Outgoing::Compact(message)));
            drop(queue);
            self.filled.notify_one();
        }
    }

    /// Sends a compact message at once where the transport has datagrams and nothing waits; else it waits, in place of
    /// an older one.
    fn push_latest(&self, of: LatestOf, message: &CompactBytes) {
        let mut queue = self.queue.lock();
        if queue.end.is_some() || queue.overflowed {
            return;
        }
        let first = queue.latest.is_empty() && !queue.latest_leave;
        if first && self.datagrams.as_ref().is_some_and(|datagrams| datagrams.try_send(message)) {
            return;
        }
        match queue.latest.iter_mut().find(|(waiting, _)| *waiting == of) {
            Some((_, waiting)) => {
                *waiting = message.clone();
                queue.coalesced += u32::from(matches!(of, LatestOf::Tick(_)));
            }
            None => queue.latest.push((of, message.clone())),
        }
        drop(queue);
        self.filled.notify_one();
    }

    /// Ends the session after what is queued. Never returns: the writer ends the session.
    pub(super) async fn end_in_order(&self, code: CloseCode, reason: &str) -> SessionExit {
        self.finish(code, reason);
        pending().await
    }

    fn finish(&self, code: CloseCode, reason: &str) {
        self.queue.lock().end.get_or_insert_with(|| SessionExit::with(code, reason));
        self.filled.notify_one();
    }

    /// When what is held back may leave.
    pub(super) fn held_until(&self) -> Option<Instant> {
        let queue = self.queue.lock();
        queue.held.map(|(_, until)| until).filter(|_| queue.is_held())
    }

    pub(super) fn filled(&self) -> impl Future<Output = ()> {
        self.filled.notified()
    }

    pub(super) fn alarm(&self) -> impl Future<Output = ()> {
        self.alarm.notified()
    }

    /// Moves queued frames into the batch, up to a chunk. The chunk taken before is with the transport by now.
    pub(super) fn take(&self, batch: &mut Vec<Outgoing>) -> OutboxBatch {
        let mut guard = self.queue.lock();
        let queue = &mut *guard;
        queue.bytes = queue.bytes.saturating_sub(std::mem::take(&mut queue.leaving));
        queue.count_coalesced();
        if queue.is_held() {
            return OutboxBatch { probe: std::mem::take(&mut queue.probe), end: None };
        }
        queue.held = None;
        let mut compact = Vec::new();
        for _ in 0..CHUNK_MESSAGES {
            let Some(front) = queue.messages.front() else { break };
            let length = front.bytes();
            if queue.leaving > 0 && queue.leaving + length > CHUNK {
                break;
            }
            queue.leaving += length;
            match queue.messages.pop_front().map(QueuedFrame::leave) {
                Some(Outgoing::Compact(message)) => compact.push(message),
                other => batch.extend(other),
            }
        }
        queue.latest_leave = !queue.latest.is_empty();
        compact.extend(queue.latest.drain(..).map(|(_, message)| message));
        let end = if queue.messages.is_empty() { queue.end.clone() } else { None };
        let probe = std::mem::take(&mut queue.probe);
        drop(guard);
        // Compact messages have no order among the others, and those of one batch leave as one frame.
        batch.extend(protocol::bundles(compact).into_iter().map(Outgoing::Compact));
        OutboxBatch { probe, end }
    }

    /// A probe's ping was passed to the transport. If an earlier one is unanswered (nothing `heard` since), that one's
    /// time counts: repeated probes don't extend it.
    pub(super) fn note_pinged(&self, heard: Instant) {
        let mut queue = self.queue.lock();
        if queue.probed_at.is_none_or(|probed| probed <= heard) {
            queue.probed_at = Some(Clock::instant());
        }
        drop(queue);
        self.alarm.notify_one();
    }

    pub(super) fn has_resumed(&self) -> bool {
        self.resumed.load(Ordering::Relaxed)
    }

    pub(super) fn probed_at(&self) -> Option<Instant> {
        self.queue.lock().probed_at
    }

    /// Makes the watchdog check again.
    pub(super) fn wake_watchdog(&self) {
        self.alarm.notify_one();
    }

    pub(super) fn has_overflowed(&self) -> bool {
        self.queue.lock().overflowed
    }

    /// Stores the round trip of an answered ping.
    pub(super) fn note_rtt(&self, rtt: Option<Duration>) {
        if let Some(rtt) = rtt {
            let kept = Duration::from_micros(self.rtt_micros.load(Ordering::Relaxed));
            // Zero means "not measured".
            self.rtt_micros.store((with_repair(kept, rtt).as_micros() as u64).max(1), Ordering::Relaxed);
        }
    }
}

impl RoomDelivery for Outbox {
    fn state(&self, room: &Room, joined: &Joined<'_>) {
        self.resumed.store(joined.resumed, Ordering::Relaxed);
        self.push_frame(QueuedFrame::State(protocol::encode_state(room, joined, &self.rules.limits)));
    }

    fn event(&self, delivery: &EventDelivery<'_>) {
        let encoded = delivery.encoded.get_or_init(|| protocol::encode_event(delivery));
        if let Some(message) = encoded {
            self.push(message.clone());
        }
    }

    fn roster(&self, delivery: &RosterDelivery<'_>) {
        self.push(delivery.encoded.get_or_init(|| protocol::encode_roster(delivery)).clone());
    }

    fn encode(&self, delivery: &EventDelivery<'_>) -> Option<Bytes> {
        delivery.encoded.get_or_init(|| protocol::encode_event(delivery)).clone()
    }

    fn encode_roster(&self, delivery: &RosterDelivery<'_>) -> Option<Bytes> {
        Some(delivery.encoded.get_or_init(|| protocol::encode_roster(delivery)).clone())
    }

    fn encode_state(&self, room: &Room, joined: &Joined<'_>) -> Option<Bytes> {
        Some(protocol::encode_state(room, joined, &self.rules.limits).join())
    }

    fn message(&self, message: &Bytes) {
        self.push(message.clone());
    }

    fn notice(&self, notice: &Notice<'_>) {
        let message = notice.encoded.get_or_init(|| protocol::encode_notice(notice)).clone();
        self.push(message);
        if matches!(notice.body, NoticeBody::Reconnect { .. }) {
            self.queue.lock().messages.push_back(QueuedFrame::Ready(Outgoing::Drain));
        }
    }

    fn tick(&self, report: &TickDelivery) {
        let encoded = report.encoded.get_or_init(|| protocol::encode_tick(&report.tick));
        self.push_latest(LatestOf::Tick(report.tick.slot), encoded);
    }

    fn status(&self, delivery: &StatusDelivery) {
        let encoded = delivery.encoded.get_or_init(|| protocol::encode_status(&delivery.status));
        self.push_latest(LatestOf::Status(delivery.status.slot), encoded);
    }

    fn digest(&self, delivery: &DigestDelivery) {
        let encoded = delivery.encoded.get_or_init(|| protocol::encode_digest(&delivery.digest));
        self.push_latest(LatestOf::Digest, encoded);
    }

    fn replay(&self, head: Head, line: &ChatLine) {
        self.push(protocol::encode_replay(head, line));
    }

    fn reply(&self, reply: Reply<'_>) {
        self.push(match reply {
            Reply::Ack { reference, head } => protocol::encode_reply_ack(reference, head, self.clock.now()),
            Reply::Refused { reference, request, refusal } => {
                let (code, retry_after) = protocol::refusal_code(refusal);
                metrics::counter!(names::MESSAGES_REFUSED, "code" => code.as_str()).increment(1);
                protocol::encode_error(code, &refusal.to_string(), reference, request, retry_after)
            }
        });
    }
}

impl SessionControl for Outbox {
    fn close(&self, code: CloseCode, reason: &str) {
        self.finish(code, reason);
    }

    fn hold(&self, time: Duration) {
        /// However often it is prolonged: commands of others must not keep a session from hearing anything.
        const LONGEST: Duration = Duration::from_secs(1);
        let now = Clock::instant();
        let mut queue = self.queue.lock();
        let (since, earlier) = queue.held.filter(|(_, until)| *until > now).unwrap_or((now, now));
        queue.held = Some((since, earlier.max(now + time).min(since + LONGEST)));
    }

    fn probe(&self) {
        self.queue.lock().probe = true;
        self.filled.notify_one();
    }
}

impl SessionMeasurements for Outbox {
    fn has_room(&self, bytes: usize) -> bool {
        let queue = self.queue.lock();
        // A session that is ending needs no protection.
        let ends = queue.end.is_some() || queue.overflowed;
        ends || queue.bytes == 0 || (queue.bytes + bytes) as u64 <= self.rules.limits.outbox_bytes / 2
    }

    fn waiting_bytes(&self) -> usize {
        let queue = self.queue.lock();
        queue.bytes + queue.latest.iter().map(|(_, message)| message.len()).sum::<usize>()
    }

    fn rtt(&self) -> Option<Duration> {
        if let Some(datagrams) = &self.datagrams {
            return Some(datagrams.rtt());
        }
        let micros = self.rtt_micros.load(Ordering::Relaxed);
        (micros > 0).then(|| Duration::from_micros(micros))
    }
}

/// The round trip to plan with, after another measurement. TCP hides its retransmissions; a ping that met one took a
/// few hundred ms longer. It is forgotten over the next pings, because the next lost packet will take as long. A peer
/// that slept answers later still, which says nothing of its line.
fn with_repair(kept: Duration, measured: Duration) -> Duration {
    /// The kernel's least retransmission timeout is 200 ms.
    const REPAIR: Duration = Duration::from_millis(300);
    const PINGS: u32 = 8;
    let fading = kept.saturating_sub(kept.saturating_sub(measured) / PINGS);
    fading.clamp(measured, measured + REPAIR)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_round_trip_with_a_retransmission_is_planned_with_until_it_is_long_ago() {
        let ms = Duration::from_millis;
        let mut planned = with_repair(Duration::ZERO, ms(50));
        assert_eq!(planned, ms(50), "the first one");
        planned = with_repair(planned, ms(320));
        assert_eq!(planned, ms(320));
        planned = with_repair(planned, ms(50));
        assert!(planned > ms(280), "{planned:?}");
        for _ in 0..40 {
            planned = with_repair(planned, ms(50));
        }
        assert!(planned < ms(60), "{planned:?}");
    }

    #[test]
    fn a_peer_that_slept_does_not_count_as_one_on_a_slow_line() {
        let ms = Duration::from_millis;
        let planned = with_repair(with_repair(ms(50), ms(600_000)), ms(50));
        assert!(planned <= ms(350), "{planned:?}");
    }
}
