//! The session: one loop for every transport.
//!
//! A transport turns bytes into frames and back. Everything else (JOIN, rights, rates, heartbeats, idle limit, outbox,
//! end) is here, so that nothing about rooms can differ by transport.
//!
//! ```text
//!           Inbound::next ─► rate ─► protocol::decode ─► hub.join / submit / tick / signal
//! transport                                                     │
//!           Outbound::send ◄─ writer ◄─ Outbox (messages by bytes, ticks by slot) ◄─ hub
//! ```
//! A session is one task with a reader, a writer and a watchdog as its futures ([`tandem_wake`]), so nothing outlives
//! the loop. An orderly end (LEAVE, a violation, a planned stop) goes through the outbox: queued messages are written
//! first. In either case the membership is given back before the transport closes.
//!
//! Liveness is the page's, not its network stack's: a browser answers WebSocket pings and QUIC keep-alives for a page
//! that is frozen or in the back/forward cache. A silent v3 page is sent PROBE and answers ALIVE from its message
//! handler, which browsers don't throttle in hidden tabs. A v2 page sends PING every 15 s, and in a throttled tab once
//! a minute; pongs bridge the time between.

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
use crate::quota::{AddressBudgets, CapsFull};
use crate::telemetry::names;
pub use counts::SessionCounts;
use dispatch::{Dispatch, MessageWork};
use message_rate::{MessageRate, RateExceeded};
use outbox::Outbox;
use transport::{Frame, Inbound, Outbound, Outgoing, Transport, TransportError};

/// Services that a node's sessions share.
#[derive(Clone)]
pub struct Services {
    pub hub: Hub,
    /// Limits and media hosts for decoding.
    pub rules: Arc<Rules>,
    pub clock: Clock,
    /// Whether message rates and byte budgets are enforced (`RATE_LIMITS`).
    pub rates: bool,
    /// The byte budgets of addresses.
    pub addresses: AddressBudgets,
    /// Cancelled: every session ends with GOING_AWAY.
    pub stop: CancellationToken,
    pub counts: SessionCounts,
}

/// How long a session may take to answer PROBE: a silent v3 page, or one whose member another session claims.
const PROBE: Duration = Duration::from_millis(1500);
/// How long the transport's close may take.
const CLOSING: Duration = Duration::from_secs(2);

/// How a session ends. Without a code the connection was lost.
#[derive(Debug, Clone, PartialEq, Eq)]
struct SessionExit {
    code: Option<CloseCode>,
    reason: String,
}

impl SessionExit {
    fn lost(reason: impl Into<String>) -> Self {
        Self { code: None, reason: reason.into() }
    }

    fn with(code: CloseCode, reason: impl Into<String>) -> Self {
        Self { code: Some(code), reason: reason.into() }
    }
}

/// Serves one connection until it ends, and holds its place until then. No input of a client makes it panic.
pub fn run<T: Transport>(transport: T, services: Services, place: impl Send) -> impl Future<Output = ()> + Send {
    let (kind, peer) = (transport.kind(), transport.peer());
    let (mut inbound, mut outbound) = transport.split();
    // Not an `async fn`: its future would hold each argument twice.
    async move {
        let services = &services;
        let session = services.hub.new_session();
        let counted = services.counts.open(kind);
        let outbox = Arc::new(Outbox::new(services, outbound.datagrams()));
        let life = PeerLiveness::new(kind);
        // For log lines; entered for JSON messages only, never for ticks.
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

        // Before the close: the other members need not wait for a peer that may not answer.
        drop(dispatch);
        let code = end.code.map_or("LOST", CloseCode::as_str);
        metrics::counter!(names::SESSIONS_ENDED, "transport" => kind.as_str(), "code" => code).increment(1);
        span.in_scope(|| tracing::debug!(code, reason = %end.reason, "session ended"));
        let _ = timeout(CLOSING, outbound.close(end.code.unwrap_or(CloseCode::Normal), &end.reason)).await;
        drop(place);
    }
}

/// State that the futures of a session share, behind one reference: each holds it twice.
struct SessionContext<'a> {
    services: &'a Services,
    outbox: &'a Outbox,
    life: &'a PeerLiveness,
    span: &'a Span,
}

/// Closes a connection for which there is no place, with a code that its client can read.
pub async fn turn_away<T: Transport>(transport: T, full: CapsFull) {
    let code = match full {
        CapsFull::Draining => CloseCode::GoingAway,
        CapsFull::Node | CapsFull::Address => CloseCode::Overloaded,
    };
    let (_, outbound) = transport.split();
    let _ = timeout(CLOSING, outbound.close(code, &full.to_string())).await;
}

/// Reads frames one after the other: a message is handled before the next is read, so none overtakes another.
async fn read<I: Inbound>(inbound: &mut I, dispatch: &mut Dispatch, common: &SessionContext<'_>) -> SessionExit {
    let SessionContext { services, outbox, life, span } = *common;
    let mut rate = MessageRate::new(&services.rules.limits, services.rates);
    loop {
        let frame = match inbound.next().await {
            Ok(Frame::Closed(code)) => return SessionExit::lost(format!("closed by the client with {code}")),
            Ok(frame) => frame,
            Err(TransportError::Lost(error)) => return SessionExit::lost(error.to_string()),
            Err(TransportError::Violation { code, reason }) => return outbox.end_in_order(code, &reason).await,
        };
        let of_page = matches!(frame, Frame::Message(_) | Frame::Compact(_));
        life.set_busy(true, of_page);
        let allowed = match &frame {
            Frame::Message(_) => rate.message(),
            Frame::Compact(_) => rate.compact(),
            // Pings of the client; pongs arrive as often as the server pings.
            Frame::Alive { rtt: None } => rate.compact(),
            Frame::Alive { rtt: Some(_) } | Frame::Closed(_) => Ok(Duration::ZERO),
        };
        match allowed {
            Ok(Duration::ZERO) => {}
            // Boxed: few sessions ever pause, and each future would reserve the space.
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
        // A peer that always has another frame must not starve the other tasks of its thread.
        consume_budget().await;
    }
}

/// Writes the outbox, a batch a flush, and pings if the transport has no keep-alive of its own.
async fn write<O: Outbound>(outbound: &mut O, common: &SessionContext<'_>) -> SessionExit {
    let SessionContext { services: Services { rules, clock, .. }, outbox, life, .. } = *common;
    let stall = Duration::from_secs(rules.limits.write_stall_secs);
    let period = Duration::from_secs(rules.limits.heartbeat_secs);
    let mut heartbeat = (!life.keeps_itself).then(|| {
        let mut heartbeat = interval_at(clock.coarse(Clock::instant() + period), period);
        heartbeat.set_missed_tick_behavior(MissedTickBehavior::Skip);
        heartbeat
    });
    // The first ping leaves with the first message: the round trip should be known before the member plays.
    let mut ping = !life.keeps_itself;
    let mut batch = Vec::new();
    loop {
        ping |= due(heartbeat.as_mut(), outbox).await;
        loop {
            if std::mem::take(&mut ping) {
                batch.push(Outgoing::Ping);
            }
            let taken = outbox.take(&mut batch);
            if let Some(SessionExit { code: Some(code), reason }) = &taken.end
                && life.dialect() == Some(Dialect::V3)
            {
                batch.push(Outgoing::Message(protocol::encode_closing(*code, reason, clock.now())));
            }
            if taken.probe {
                // Before the messages: the ping tests the peer's life, not the speed of its line.
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

/// Waits for something to write. True: a ping is due.
async fn due(heartbeat: Option<&mut Interval>, outbox: &Outbox) -> bool {
    tokio::select! {
        biased;
        () = tick(heartbeat) => true,
        () = outbox.filled() => false,
        () = at(outbox.held_until()) => false,
    }
}

/// Writes a batch within the stall time. A batch is a chunk of the outbox, so one that takes longer made no progress.
async fn deliver<O: Outbound>(
    outbound: &mut O,
    batch: &mut Vec<Outgoing>,
    stall: Duration,
    life: &PeerLiveness,
) -> Result<(), SessionExit> {
    let mut work = pin!(outbound.send(batch));
    // Most writes finish at once and need no timer.
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
        Ok(Err(error)) => Err(SessionExit::lost(error.to_string())),
        Err(_) => Err(SessionExit::with(CloseCode::SlowConsumer, "a write stalled")),
    }
}

async fn tick(heartbeat: Option<&mut Interval>) {
    match heartbeat {
        Some(heartbeat) => drop(heartbeat.tick().await),
        None => std::future::pending().await,
    }
}

/// Ends a session for what no frame causes: a missing JOIN, silence, an overflowing outbox.
async fn watch(common: &SessionContext<'_>) -> SessionExit {
    let SessionContext { services: Services { rules, clock, .. }, outbox, life, .. } = *common;
    let limits = &rules.limits;
    let idle = Duration::from_secs(limits.idle_secs);
    let legacy_silence = Duration::from_secs(limits.legacy_silence_secs);
    let ask_after = Duration::from_secs(limits.heartbeat_secs);
    // The beginning of the silence for which the page was sent PROBE, and when that was.
    let mut asked: Option<(Instant, Instant)> = None;
    let mut probes = 0;
    let join_by = life.started + Duration::from_secs(limits.join_timeout_secs);
    loop {
        let alarm = outbox.alarm();
        let now = Clock::instant();
        // While the reader is busy (a JOIN that waits for the log, a pause for the rate) no frame is read, and while a
        // write waits no ping leaves: silence means nothing then. The writer judges a write that waits too long.
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
                return SessionExit::with(CloseCode::Idle, "the page says nothing");
            }
            Some(Dialect::V2) => until(page + legacy_silence),
            Some(Dialect::V3) if now < page + ask_after => until(page + ask_after),
            Some(Dialect::V3) => {
                // A session is not ended without a PROBE: this check may be a late one.
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
                    return SessionExit::with(CloseCode::Idle, CloseCode::Idle.meaning());
                }
                until(answers_by);
            }
        }
        if !life.keeps_itself {
            if now >= heard + idle {
                return SessionExit::with(CloseCode::Idle, CloseCode::Idle.meaning());
            }
            until(heard + idle);
            if let Some(probed) = outbox.probed_at().filter(|probed| *probed > heard) {
                if now >= probed + PROBE {
                    return SessionExit::with(CloseCode::Idle, "no sign of life when asked");
                }
                until(probed + PROBE);
            }
        }
        if outbox.has_overflowed() {
            return SessionExit::with(CloseCode::SlowConsumer, CloseCode::SlowConsumer.meaning());
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

/// At a planned stop: queued messages are written, then GOING_AWAY. The writer ends the session.
async fn announce_stop(common: &SessionContext<'_>) -> SessionExit {
    let SessionContext { services, outbox, .. } = *common;
    services.stop.cancelled().await;
    outbox.end_in_order(CloseCode::GoingAway, CloseCode::GoingAway.meaning()).await
}

/// Liveness of one peer. Times are µs since `started`: on one machine a pong returns within the millisecond of its
/// ping.
pub(crate) struct PeerLiveness {
    started: Instant,
    /// The last frame.
    heard: AtomicU64,
    /// The last message or compact message, which only the page itself can have sent.
    page: AtomicU64,
    /// The protocol of the last successful JOIN; 0: there was none.
    joined: AtomicU8,
    /// The reader handles a frame and reads no other.
    busy: AtomicBool,
    /// A write waits for the peer.
    blocked: AtomicBool,
    /// The end of the last write that waited long.
    unblocked: AtomicU64,
    /// QUIC has its own keep-alive and idle timeout.
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

    /// Notes that a frame arrived, or was handled: both count as life.
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

    /// Pings leave only after a write that waits, so their answers can't be expected before it is done.
    fn set_blocked(&self, blocked: bool) {
        self.blocked.store(blocked, Ordering::Relaxed);
    }

    /// Notes the end of a write that waited long.
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

    /// The client's protocol; `None` until a JOIN has succeeded.
    fn dialect(&self) -> Option<Dialect> {
        match self.joined.load(Ordering::Relaxed) {
            0 => None,
            number if number == Dialect::V2.number() => Some(Dialect::V2),
            _ => Some(Dialect::V3),
        }
    }
}
