//! The session: one loop for every transport.
//!
//! A transport turns bytes into frames and back; everything else (JOIN, rights, rates, heartbeats, idle limit, outbox,
//! end) is here, so nothing about rooms can differ by transport.
//!
//! ```text
//!           Inbound::next ─► rate ─► protocol::decode ─► hub.join / submit / tick / signal
//! transport                                                     │
//!           Outbound::send ◄─ writer ◄─ Outbox (messages by bytes, ticks by slot) ◄─ hub
//! ```
//! One task a session: reader, writer and watchdog are futures of it ([`tandem_wake`]), so nothing outlives the loop. An end in order
//! (LEAVE, a refusal to go on, a planned stop) goes through the outbox: what was queued before is written first. When the
//! connection is lost there is nothing to write; in both cases the membership is given back before the transport closes.
//!
//! PeerLiveness is asked of the page, not of its network stack: a browser answers WebSocket pings and QUIC keep-alives for a page
//! that is frozen or in the back/forward cache. A v3 page that is silent hears PROBE and answers ALIVE from its message
//! handler, which browsers don't throttle in hidden tabs. A v2 page has its PING every 15 s, which a throttled tab sends
//! once a minute; between these, pongs show that its connection stands.

mod budget;
mod counts;
mod dispatch;
mod message_rate;
mod outbox;
pub mod transport;

use std::pin::pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU8, AtomicU64, Ordering};
use std::task::Poll;
use std::time::Duration;

use tandem_wake::select_first;
use tokio::task::coop::consume_budget;
use tokio::time::{Instant, Interval, MissedTickBehavior, interval_at, sleep, sleep_until, timeout};
use tokio_util::sync::CancellationToken;
use tracing::Span;

use crate::clock::Clock;
use crate::domain::{CloseCode, Dialect, TransportKind};
use crate::hub::Hub;
use crate::protocol::{self, Rules};
use crate::quota::{AddressBudgets, Full};
use crate::telemetry::names;
pub use counts::SessionCounts;
use dispatch::{Dispatch, MessageWork};
use message_rate::{MessageRate, RateExceeded};
use outbox::Outbox;
use transport::{Frame, Inbound, Outbound, Outgoing, Transport, TransportError};

/// What every session of a node shares.
#[derive(Clone)]
pub struct Services {
    /// The rooms.
    pub hub: Hub,
    /// What clients may say.
    pub rules: Arc<Rules>,
    /// Room time.
    pub clock: Clock,
    /// Whether the per-session rates hold, and budgets (`RATE_LIMITS`).
    pub rates: bool,
    /// What the sessions of an address share.
    pub addresses: AddressBudgets,
    /// Cancelled: every session ends with GOING_AWAY.
    pub stop: CancellationToken,
    /// Sessions open now.
    pub counts: SessionCounts,
}

/// The time a live session has for its sign of life when somebody else claims its member.
const PROBE: Duration = Duration::from_millis(1500);
/// The time for the close itself.
const CLOSING: Duration = Duration::from_secs(2);

/// How a session ends. Without a code the connection was simply gone.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SessionEnd {
    code: Option<CloseCode>,
    reason: String,
}

impl SessionEnd {
    fn lost(reason: impl Into<String>) -> Self {
        Self { code: None, reason: reason.into() }
    }

    fn with(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code: Some(code), reason: reason.into() }
    }
}

/// Serves one connection until it ends, and has its place until then. Nothing a client sends makes it panic; its end is
/// counted here.
pub fn run<T: Transport>(transport: T, services: Services, place: impl Send) -> impl Future<Output = ()> + Send {
    let (kind, peer) = (transport.kind(), transport.peer());
    let (mut inbound, mut outbound) = transport.split();
    // Not an `async fn`: that would keep each argument twice, as it was handed over and as it is used.
    async move {
        let services = &services;
        let session = services.hub.new_session();
        let counted = services.counts.open(kind);
        let outbox = Arc::new(Outbox::new(services, outbound.datagrams()));
        let life = PeerLiveness::new(kind);
        // For the lines logged within; entered for JSON messages only, never for ticks.
        let span = tracing::info_span!(
            "session",
            sessionId = %session,
            correlationId = %session,
            transport = kind.as_str(),
            roomId = tracing::field::Empty,
            userId = tracing::field::Empty,
        );
        let mut dispatch = Dispatch::new(services, session, Arc::clone(&outbox), counted, peer);
        span.in_scope(|| tracing::debug!(address = %peer, "session begins"));

        let end = {
            let common = SessionContext { services, outbox: &outbox, life: &life, span: &span };
            let reader = pin!(read(&mut inbound, &mut dispatch, &common));
            let writer = pin!(write(&mut outbound, &common));
            let watchdog = pin!(watch(&common));
            let stop = pin!(announce_stop(&common));
            select_first([reader, writer, watchdog, stop]).await
        };

        // Given back before the close: the others need not wait for a peer that may not answer.
        drop(dispatch);
        let code = end.code.map_or("LOST", CloseCode::as_str);
        metrics::counter!(names::SESSIONS_ENDED, "transport" => kind.as_str(), "code" => code).increment(1);
        span.in_scope(|| tracing::debug!(code, reason = %end.reason, "session ended"));
        let _ = timeout(CLOSING, outbound.close(end.code.unwrap_or(CloseCode::Normal), &end.reason)).await;
        drop(place);
    }
}

/// What the parts of a session share: behind one reference, of which each part keeps two.
struct SessionContext<'a> {
    services: &'a Services,
    outbox: &'a Outbox,
    life: &'a PeerLiveness,
    /// For the lines of the session.
    span: &'a Span,
}

/// Ends a connection for which there is no place, in a way that its client can read.
pub async fn turn_away<T: Transport>(transport: T, full: Full) {
    let code = match full {
        Full::Draining => CloseCode::GoingAway,
        Full::Node | Full::Address => CloseCode::Overloaded,
    };
    let (_, outbound) = transport.split();
    let _ = timeout(CLOSING, outbound.close(code, &full.to_string())).await;
}

/// Frames in, one after the other: a message is dealt with before the next is read, so none overtakes another.
async fn read<I: Inbound>(inbound: &mut I, dispatch: &mut Dispatch, common: &SessionContext<'_>) -> SessionEnd {
    let SessionContext { services, outbox, life, span } = *common;
    let mut rate = MessageRate::new(&services.rules.limits, services.rates);
    loop {
        let frame = match inbound.next().await {
            Ok(Frame::Closed(code)) => return SessionEnd::lost(format!("closed by the client with {code}")),
            Ok(frame) => frame,
            Err(TransportError::Lost(reason)) => return SessionEnd::lost(reason),
            Err(TransportError::Violation { code, reason }) => return outbox.end_in_order(code, &reason).await,
        };
        let of_page = matches!(frame, Frame::Message(_) | Frame::Compact(_));
        life.set_busy(true, of_page);
        let allowed = match &frame {
            Frame::Message(_) => rate.message(),
            Frame::Compact(_) => rate.compact(),
            // Pings of the client's own; answers to ours come as often as we ask.
            Frame::Alive { rtt: None } => rate.compact(),
            Frame::Alive { rtt: Some(_) } | Frame::Closed(_) => Ok(Duration::ZERO),
        };
        match allowed {
            Ok(Duration::ZERO) => {}
            // In a box: few sessions ever pause, and each would have the place for it.
            Ok(pause) => Box::pin(sleep(pause)).await,
            Err(RateExceeded) => {
                return outbox.end_in_order(CloseCode::RateLimited, CloseCode::RateLimited.meaning()).await;
            }
        }
        match &frame {
            Frame::Message(text) => match dispatch.message(text, life, span) {
                MessageWork::Done(None) => {}
                MessageWork::Done(Some(end)) => return outbox.end_in_order(end, end.meaning()).await,
                MessageWork::Waits(work) => work.await,
            },
            Frame::Compact(bytes) => dispatch.compact(bytes),
            Frame::Alive { rtt } => outbox.note_rtt(*rtt),
            Frame::Closed(_) => {}
        }
        life.set_busy(false, of_page);
        // A peer that always has one more must not keep the others of its thread waiting.
        consume_budget().await;
    }
}

/// The outbox out, a batch a flush; and the heartbeat, where the transport has none of its own.
async fn write<O: Outbound>(outbound: &mut O, common: &SessionContext<'_>) -> SessionEnd {
    let SessionContext { services: Services { rules, clock, .. }, outbox, life, .. } = *common;
    let stall = Duration::from_secs(rules.limits.write_stall_secs);
    let period = Duration::from_secs(rules.limits.heartbeat_secs);
    let mut heartbeat = (!life.keeps_itself).then(|| {
        let mut heartbeat = interval_at(clock.coarse(Clock::instant() + period), period);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        heartbeat
    });
    // The first leaves with the first message: how far away the peer is should be known before it plays.
    let mut ping = !life.keeps_itself;
    let mut batch = Vec::new();
    loop {
        ping |= due(heartbeat.as_mut(), outbox).await;
        loop {
            if std::mem::take(&mut ping) {
                batch.push(Outgoing::Ping);
            }
            let taken = outbox.take(&mut batch);
            if let Some(SessionEnd { code: Some(code), reason }) = &taken.end
                && life.dialect() == Some(Dialect::V3)
            {
                batch.push(Outgoing::Message(protocol::encode_closing(*code, reason, clock.now())));
            }
            if taken.probe {
                // Before the messages: it is asked whether the peer lives, not whether its line is fast.
                batch.insert(0, Outgoing::Ping);
            }
            if !batch.is_empty() {
                if let Err(end) = deliver(outbound, &mut batch, stall, life).await {
                    return end;
                }
                if taken.probe {
                    outbox.note_pinged(life.heard());
                }
            } else if taken.end.is_none() {
                break;
            }
            if let Some(end) = taken.end {
                return end;
            }
        }
    }
}

/// Waits for something to write. True: a heartbeat.
async fn due(heartbeat: Option<&mut Interval>, outbox: &Outbox) -> bool {
    tokio::select! {
        biased;
        () = tick(heartbeat) => true,
        () = outbox.filled() => false,
    }
}

/// Writes a batch, unless that takes too long: a batch is a chunk of the outbox, so one that takes longer made no progress.
async fn deliver<O: Outbound>(
    outbound: &mut O,
    batch: &mut Vec<Outgoing>,
    stall: Duration,
    life: &PeerLiveness,
) -> Result<(), SessionEnd> {
    let mut work = pin!(outbound.send(batch));
    // Most of it is done at once, and then there is no timer at all.
    let done = if let Poll::Ready(done) = futures_util::poll!(work.as_mut()) {
        Ok(done)
    } else {
        /// A healthy connection under load waits for moments.
        const LONG: Duration = Duration::from_secs(1);
        let began = Clock::instant();
        life.set_blocked(true);
        let done = Box::pin(timeout(stall, work)).await;
        life.set_blocked(false);
        if began.elapsed() >= LONG {
            life.note_unblocked();
        }
        done
    };
    match done {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(SessionEnd::lost(error.to_string())),
        Err(_) => Err(SessionEnd::with(CloseCode::SlowConsumer, "a write stalled")),
    }
}

async fn tick(heartbeat: Option<&mut Interval>) {
    match heartbeat {
        Some(heartbeat) => drop(heartbeat.tick().await),
        None => std::future::pending().await,
    }
}

/// What no frame brings about: the JOIN that doesn't come, silence, an outbox that runs over.
async fn watch(common: &SessionContext<'_>) -> SessionEnd {
    let SessionContext { services: Services { rules, clock, .. }, outbox, life, .. } = *common;
    let limits = &rules.limits;
    let idle = Duration::from_secs(limits.idle_secs);
    let legacy_silence = Duration::from_secs(limits.legacy_silence_secs);
    let ask_after = Duration::from_secs(limits.heartbeat_secs);
    // The silence for which the page was asked, by its beginning, and when it was.
    let mut asked: Option<(Instant, Instant)> = None;
    let mut probes = 0;
    let join_by = life.started + Duration::from_secs(limits.join_timeout_secs);
    loop {
        let alarm = outbox.alarm();
        let now = Clock::instant();
        // While the reader is at work (a JOIN that waits for the log, a pause for the rate) nobody listens, and while a write
        // waits nobody asks: that the peer is not heard says nothing. A write that waits too long is the writer's to judge.
        let free = life.unblocked();
        let (heard, page) = if life.is_busy() || life.is_blocked() {
            (now, now)
        } else {
            (life.heard().max(free), life.page_heard().max(free))
        };
        let mut look_again = None;
        let mut until = |at: Instant| look_again = Some(look_again.map_or(at, |earlier: Instant| earlier.min(at)));
        match life.dialect() {
            None if now >= join_by => {
                return outbox.end_in_order(CloseCode::JoinTimeout, CloseCode::JoinTimeout.meaning()).await;
            }
            None => until(join_by),
            Some(Dialect::V2) if now >= page + legacy_silence => {
                return SessionEnd::with(CloseCode::Idle, "the page says nothing");
            }
            Some(Dialect::V2) => until(page + legacy_silence),
            Some(Dialect::V3) if now < page + ask_after => until(page + ask_after),
            Some(Dialect::V3) => {
                // Nobody is ended who wasn't asked: this look may be a late one.
                let since = match asked {
                    Some((silence, since)) if silence == page => since,
                    _ => {
                        probes += 1;
                        outbox.push(protocol::encode_probe(probes, clock.now()));
                        now
                    }
                };
                asked = Some((page, since));
                let answers_by = (page + idle).max(since + PROBE);
                if now >= answers_by {
                    return SessionEnd::with(CloseCode::Idle, CloseCode::Idle.meaning());
                }
                until(answers_by);
            }
        }
        if !life.keeps_itself {
            if now >= heard + idle {
                return SessionEnd::with(CloseCode::Idle, CloseCode::Idle.meaning());
            }
            until(heard + idle);
            if let Some(probed) = outbox.probed_at().filter(|probed| *probed > heard) {
                if now >= probed + PROBE {
                    return SessionEnd::with(CloseCode::Idle, "no sign of life when asked");
                }
                until(probed + PROBE);
            }
        }
        if outbox.has_overflowed() {
            return SessionEnd::with(CloseCode::SlowConsumer, CloseCode::SlowConsumer.meaning());
        }
        tokio::select! {
            biased;
            () = alarm => {}
            () = at(look_again.map(|look_again| clock.coarse(look_again))) => {}
        }
    }
}

async fn at(time: Option<Instant>) {
    match time {
        Some(time) => Box::pin(sleep_until(time)).await,
        None => std::future::pending().await,
    }
}

/// A planned stop: what is queued goes out, then GOING_AWAY. The writer ends the session.
async fn announce_stop(common: &SessionContext<'_>) -> SessionEnd {
    let SessionContext { services, outbox, .. } = *common;
    services.stop.cancelled().await;
    outbox.end_in_order(CloseCode::GoingAway, CloseCode::GoingAway.meaning()).await
}

/// Signs of life of one peer.
pub(crate) struct PeerLiveness {
    started: Instant,
    /// Any frame. µs since `started`: on one machine a pong is back within the millisecond of its probe.
    heard: AtomicU64,
    /// A message or a compact message, which only the page itself can have sent. µs since `started`.
    page: AtomicU64,
    /// The protocol of the last JOIN that succeeded; 0: none did.
    joined: AtomicU8,
    /// A frame is being dealt with, and the next one waits.
    busy: AtomicBool,
    /// A write waits for the peer.
    blocked: AtomicBool,
    /// µs since `started` at which the last write that waited long was done.
    unblocked: AtomicU64,
    /// QUIC has its own keep-alive and idle timeout below us.
    keeps_itself: bool,
}

impl PeerLiveness {
    fn new(kind: TransportKind) -> Self {
        let keeps_itself = kind == TransportKind::WebTransport;
        Self {
            started: Clock::instant(),
            heard: AtomicU64::new(0),
            page: AtomicU64::new(0),
            joined: AtomicU8::new(0),
            busy: AtomicBool::new(false),
            blocked: AtomicBool::new(false),
            unblocked: AtomicU64::new(0),
            keeps_itself,
        }
    }

    /// A frame came, or was dealt with: both are signs of life.
    fn set_busy(&self, busy: bool, of_page: bool) {
        self.busy.store(busy, Ordering::Relaxed);
        let now = self.started.elapsed().as_micros() as u64;
        self.heard.store(now, Ordering::Relaxed);
        if of_page {
            self.page.store(now, Ordering::Relaxed);
        }
    }

    fn heard(&self) -> Instant {
        self.started + Duration::from_micros(self.heard.load(Ordering::Relaxed))
    }

    fn page_heard(&self) -> Instant {
        self.started + Duration::from_micros(self.page.load(Ordering::Relaxed))
    }

    fn is_busy(&self) -> bool {
        self.busy.load(Ordering::Relaxed)
    }

    /// Pings and probes are behind a write that waits, so their answers can't be expected before it is done.
    fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// A write that waited long is done.
    fn note_unblocked(&self) {
        self.unblocked.store(self.started.elapsed().as_micros() as u64, Ordering::Relaxed);
    }

    fn is_blocked(&self) -> bool {
        self.blocked.load(Ordering::Relaxed)
    }

    fn unblocked(&self) -> Instant {
        self.started + Duration::from_micros(self.unblocked.load(Ordering::Relaxed))
    }

    fn note_join(&self, dialect: Dialect) {
        self.joined.store(dialect.number(), Ordering::Relaxed);
    }

    /// What the client speaks; `None` until a JOIN has succeeded.
    fn dialect(&self) -> Option<Dialect> {
        match self.joined.load(Ordering::Relaxed) {
            0 => None,
            number if number == Dialect::V2.number() => Some(Dialect::V2),
            _ => Some(Dialect::V3),
        }
    }
}
