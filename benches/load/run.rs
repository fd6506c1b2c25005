//! One measurement: senders at a rate or in a closed loop, a time to warm up, a window in which everything is counted.

use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::Duration;

use anyhow::Result;
use futures_util::TryStreamExt;
use futures_util::stream::FuturesUnordered;
use hdrhistogram::Histogram;
use serde_json::{Value, json};

use super::clock;
use super::population::{Population, Room, histogram};
use super::proc::{Cpu, Pid};
use super::server::Server;
use super::wire::{self, Kind};

/// A closed loop that hears nothing for this long sends again: what was under way is lost.
const STALLED: Duration = Duration::from_millis(250);
/// A message under way at the end counts as lost after this long without any arrival.
const QUIET: Duration = Duration::from_millis(500);

/// A film starts at a moment that all members can reach; until then the server drops reports of where it is.
const SCHEDULED: Duration = Duration::from_millis(700);

/// Rooms that start their film together, and the pause before the next ones: thousands at once would be a burst of
/// commits, whose lost packets are still repeated when the measurement begins.
const STARTS: usize = 25;
const BETWEEN_STARTS: Duration = Duration::from_millis(20);

#[derive(Debug, Clone, Copy)]
pub(crate) enum Pace {
    /// Messages a second and room, whatever comes back.
    Rate(f64),
    /// So many under way, the next one when one is through.
    Closed(usize),
}

impl Pace {
    pub(crate) fn words(self) -> String {
        match self {
            Self::Rate(hz) => format!("{hz} Hz"),
            Self::Closed(window) => format!("closed loop, {window} under way"),
        }
    }
}

/// For how long.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Times {
    pub(crate) warmup: Duration,
    pub(crate) window: Duration,
}

/// The figures of one run.
#[derive(Debug, Clone)]
pub(crate) struct Outcome {
    pub(crate) seconds: f64,
    pub(crate) deliveries: u64,
    pub(crate) cpu: Cpu,
    pub(crate) client_cpu: Cpu,
    pub(crate) latencies: Histogram<u64>,
    /// Of members on another node than the sender.
    pub(crate) elsewhere: Histogram<u64>,
    pub(crate) ack_latencies: Histogram<u64>,
    /// By how much the sender's clockwork was late: a rate that can't be held hides latencies.
    pub(crate) late: Histogram<u64>,
    /// Over the whole run, warm-up included.
    pub(crate) sent: u64,
    pub(crate) lost: u64,
    pub(crate) coalesced: u64,
    pub(crate) disordered: u64,
}

impl Outcome {
    pub(crate) fn rate(&self) -> f64 {
        self.deliveries as f64 / self.seconds
    }

    /// Deliveries for each second of CPU time that the servers used.
    pub(crate) fn per_cpu_second(&self) -> f64 {
        self.deliveries as f64 / self.cpu.total()
    }

    /// A percentile of the latencies, ms.
    pub(crate) fn latency(&self, percent: f64) -> f64 {
        millis(&self.latencies, percent)
    }

    pub(crate) fn json(&self) -> Value {
        json!({
            "seconds": self.seconds, "deliveries": self.deliveries, "deliveriesPerSecond": self.rate(),
            "serverCpuSeconds": self.cpu.total(), "serverCpuUser": self.cpu.user, "serverCpuSystem": self.cpu.system,
            "clientCpuSeconds": self.client_cpu.total(), "deliveriesPerCpuSecond": self.per_cpu_second(),
            "latencyMs": percentiles(&self.latencies), "otherNodeMs": percentiles(&self.elsewhere), "ackMs": percentiles(&self.ack_latencies),
            "senderLateMs": percentiles(&self.late), "sent": self.sent, "lost": self.lost,
            "coalesced": self.coalesced, "outOfOrder": self.disordered,
        })
    }
}

/// A percentile of microseconds, in ms.
pub(crate) fn millis(of: &Histogram<u64>, percent: f64) -> f64 {
    of.value_at_percentile(percent) as f64 / 1000.0
}

/// Of microseconds, in ms.
pub(crate) fn percentiles(of: &Histogram<u64>) -> Value {
    let at = |percent| millis(of, percent);
    json!({"p50": at(50.0), "p99": at(99.0), "p999": at(99.9), "max": of.max() as f64 / 1000.0, "count": of.len()})
}

/// Lets the rooms' first members send, and counts.
pub(crate) async fn measure(population: &Population, servers: &[&Server], pace: Pace, times: Times) -> Result<Outcome> {
    let tally = &population.tally;
    let late = Arc::new(parking_lot::Mutex::new(histogram()?));
    if population.plan.kind != Kind::Play {
        for rooms in population.rooms.chunks(STARTS) {
            for room in rooms {
                room.links[0].message(&wire::play(clock::micros(), None, true)).await?;
            }
            clock::pause(BETWEEN_STARTS).await;
        }
        clock::pause(SCHEDULED).await;
    }
    let before = Counts::now(population, servers).await;
    let senders = async {
        match pace {
            Pace::Closed(window) => {
                // Polls only the loops that have something to do.
                let loops = population.rooms.iter().map(|room| closed_loop(room, population.plan.kind, window));
                FuturesUnordered::from_iter(loops).try_collect().await
            }
            Pace::Rate(hz) => at_rate(population, hz, &late).await,
        }
    };
    let window = async {
        clock::pause(times.warmup).await;
        tally.latencies.lock().reset();
        tally.elsewhere.lock().reset();
        tally.ack_latencies.lock().reset();
        late.lock().reset();
        tally.measuring.store(true, Ordering::Relaxed);
        let start = (clock::micros(), tally.received.load(Ordering::Relaxed), cpu(servers)?, Pid::own().cpu()?);
        clock::pause(times.window).await;
        let seconds = clock::as_seconds(clock::micros() - start.0);
        let deliveries = tally.received.load(Ordering::Relaxed) - start.1;
        let used = (cpu(servers)?.since(start.2), Pid::own().cpu()?.since(start.3));
        tally.measuring.store(false, Ordering::Relaxed);
        anyhow::Ok((seconds, deliveries, used))
    };
    // The senders have no end of their own.
    let (seconds, deliveries, (cpu, client_cpu)) = tokio::select! {
        ended = senders => { ended?; anyhow::bail!("the senders ended early") }
        window = window => window?,
    };
    settle(population, before.received, before.sent).await;
    population.check()?;
    let after = Counts::now(population, servers).await;
    let (sent, coalesced) = (after.sent - before.sent, after.coalesced - before.coalesced);
    let missing = (after.expected - before.expected).saturating_sub(after.received - before.received);
    let outcome = Outcome {
        seconds,
        deliveries,
        cpu,
        client_cpu,
        latencies: tally.latencies.lock().clone(),
        elsewhere: tally.elsewhere.lock().clone(),
        ack_latencies: tally.ack_latencies.lock().clone(),
        late: late.lock().clone(),
        sent,
        lost: missing.saturating_sub(coalesced),
        coalesced,
        disordered: after.disordered - before.disordered,
    };
    Ok(outcome)
}

fn cpu(servers: &[&Server]) -> Result<Cpu> {
    servers.iter().try_fold(Cpu::default(), |sum, server| Ok(sum.plus(server.cpu()?)))
}

struct Counts {
    sent: u64,
    expected: u64,
    received: u64,
    disordered: u64,
    coalesced: u64,
}

impl Counts {
    async fn now(population: &Population, servers: &[&Server]) -> Self {
        let mut coalesced = 0.0;
        if population.plan.kind == Kind::Tick {
            for server in servers {
                coalesced += server.counter(tandem::telemetry::names::TICKS_COALESCED).await;
            }
        }
        Self {
            sent: population.rooms.iter().map(|room| room.voice.sent.load(Ordering::Relaxed)).sum(),
            expected: population.rooms.iter().map(|room| room.voice.expected()).sum(),
            received: population.tally.received.load(Ordering::Relaxed),
            disordered: population.tally.disordered.load(Ordering::Relaxed),
            coalesced: coalesced as u64,
        }
    }
}

/// Waits for what is under way: until all is there, or nothing comes any more.
async fn settle(population: &Population, received: u64, sent: u64) {
    let sent = population.rooms.iter().map(|room| room.voice.sent.load(Ordering::Relaxed)).sum::<u64>() - sent;
    let expected = sent * population.plan.kind.receivers(population.plan.members) as u64;
    let (mut known, mut since) = (0, clock::now());
    while clock::now().duration_since(since) < QUIET {
        let now = population.tally.received.load(Ordering::Relaxed) - received;
        if now >= expected {
            return;
        }
        if now > known {
            (known, since) = (now, clock::now());
        }
        clock::pause(Duration::from_millis(10)).await;
    }
}

async fn closed_loop(room: &Room, kind: Kind, window: usize) -> Result<()> {
    let credits = &room.voice.credits;
    credits.forget_permits(usize::MAX >> 4);
    credits.add_permits(window);
    loop {
        match tokio::time::timeout(STALLED, credits.acquire()).await {
            Ok(credit) => credit?.forget(),
            Err(_) => credits.add_permits(window - 1),
        }
        send(room, kind).await?;
    }
}

/// All rooms at one rate, evenly spread over its period.
async fn at_rate(population: &Population, hz: f64, late: &parking_lot::Mutex<Histogram<u64>>) -> Result<()> {
    let start = tokio::time::Instant::from_std(clock::now());
    let step = Duration::from_secs_f64(1.0 / (hz * population.rooms.len() as f64));
    for count in 0_u32.. {
        let due = start + step * count;
        let now = clock::now();
        if due.into_std() > now {
            tokio::time::sleep_until(due).await;
        } else if count % 16 == 0 {
            // Behind: the listeners of this thread must get their turn.
            tokio::task::yield_now().await;
        }
        late.lock().saturating_record(clock::now().saturating_duration_since(due.into_std()).as_micros().max(1) as u64);
        let index = count as usize % population.rooms.len();
        send(&population.rooms[index], population.plan.kind).await?;
    }
    Ok(())
}

/// The room's next message.
async fn send(room: &Room, kind: Kind) -> Result<()> {
    let host = &room.links[0];
    let count = room.voice.sent.fetch_add(1, Ordering::Relaxed);
    match kind {
        Kind::Heartbeat => {
            let user = wire::user_name(room.index, 0);
            host.message(&wire::heartbeat(&room.name, &user, clock::micros())).await
        }
        Kind::Tick => host.compact(&wire::tick(count as u32 + 1, clock::micros(), clock::wall_millis())).await,
        Kind::Play => {
            let now = clock::micros();
            room.voice.plays.lock().push(now);
            host.message(&wire::play(now, Some(count), count.is_multiple_of(2))).await
        }
        Kind::Signal => {
            let members = room.links.len();
            let to = 1 + count as usize % (members - 1).max(1);
            host.message(&wire::signal(&wire::user_name(room.index, to), clock::micros())).await
        }
    }
}
