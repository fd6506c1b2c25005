//! Rooms full of members: connected, joined, listening.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::Duration;

use anyhow::{Context, Result, bail};
use futures_util::stream::{self, StreamExt, TryStreamExt};
use hdrhistogram::Histogram;
use parking_lot::Mutex;
use tandem::protocol;
use tokio::sync::{Semaphore, oneshot};
use tokio_util::sync::{CancellationToken, DropGuard};
use tokio_util::task::TaskTracker;

use super::clock;
use super::link::{Carrier, Link, Place};
use super::quic::QuicClients;
use super::wire::{self, Incoming, Kind};

/// Rooms that fill at once, where nothing else is said.
pub(crate) const AT_ONCE: usize = 24;
/// A member that has not joined by then won't.
const JOINING: Duration = Duration::from_secs(30);
/// Longest latency told apart, µs.
const LONGEST: u64 = 60_000_000;

/// Members to be connected.
#[derive(Debug, Clone)]
pub(crate) struct Plan {
    pub(crate) carrier: Carrier,
    pub(crate) kind: Kind,
    pub(crate) rooms: usize,
    pub(crate) members: usize,
    /// Rooms that fill at once; in each of them one member after the other joins.
    pub(crate) at_once: usize,
}

/// Counts over all members.
#[derive(Debug)]
pub(crate) struct Tally {
    pub(crate) received: AtomicU64,
    pub(crate) disordered: AtomicU64,
    pub(crate) acks: AtomicU64,
    pub(crate) refusals: AtomicU64,
    pub(crate) ended: AtomicU64,
    /// Whether latencies count at the moment.
    pub(crate) measuring: AtomicBool,
    pub(crate) latencies: Mutex<Histogram<u64>>,
    /// Of members on another node than the sender.
    pub(crate) elsewhere: Mutex<Histogram<u64>>,
    pub(crate) ack_latencies: Mutex<Histogram<u64>>,
    /// The first thing that went wrong.
    pub(crate) trouble: Mutex<Option<String>>,
}

/// A histogram of microseconds.
pub(crate) fn histogram() -> Result<Histogram<u64>> {
    Ok(Histogram::new_with_bounds(1, LONGEST, 3)?)
}

impl Tally {
    fn new() -> Result<Self> {
        Ok(Self {
            received: AtomicU64::new(0),
            disordered: AtomicU64::new(0),
            acks: AtomicU64::new(0),
            refusals: AtomicU64::new(0),
            ended: AtomicU64::new(0),
            measuring: AtomicBool::new(false),
            latencies: Mutex::new(histogram()?),
            elsewhere: Mutex::new(histogram()?),
            ack_latencies: Mutex::new(histogram()?),
            trouble: Mutex::new(None),
        })
    }

    fn complain(&self, words: impl FnOnce() -> String) {
        self.trouble.lock().get_or_insert_with(words);
    }
}

/// A room as the load sees it; its first member is the sender.
#[derive(Debug)]
pub(crate) struct Room {
    pub(crate) name: String,
    pub(crate) index: usize,
    pub(crate) links: Vec<Arc<Link>>,
    pub(crate) voice: Arc<Voice>,
    /// By which each member takes its membership over; v2 members have none.
    tokens: Vec<Option<String>>,
}

/// State shared by a room's sender and its listeners.
#[derive(Debug)]
pub(crate) struct Voice {
    kind: Kind,
    receivers: u64,
    pub(crate) sent: AtomicU64,
    heard: AtomicU64,
    /// Messages that a closed loop may still send.
    pub(crate) credits: Semaphore,
    /// Times at which each PLAY_PAUSE left: they carry no mark of their own, but keep their order.
    pub(crate) plays: Mutex<Plays>,
}

/// The latest commands of a room.
#[derive(Debug, Default)]
pub(crate) struct Plays {
    first: u64,
    times: VecDeque<u64>,
}

impl Plays {
    const KEPT: usize = 4096;

    pub(crate) fn push(&mut self, now: u64) {
        self.times.push_back(now);
        if self.times.len() > Self::KEPT {
            self.times.pop_front();
            self.first += 1;
        }
    }

    pub(crate) fn nth(&self, index: u64) -> Option<u64> {
        self.times.get(usize::try_from(index.checked_sub(self.first)?).ok()?).copied()
    }
}

/// All of them.
pub(crate) struct Population {
    pub(crate) plan: Plan,
    pub(crate) rooms: Vec<Room>,
    pub(crate) tally: Arc<Tally>,
    /// From the first connection to the last ROOM_STATE.
    pub(crate) joining: Duration,
    /// From a member's first packet to its ROOM_STATE.
    pub(crate) join_latencies: Histogram<u64>,
    run: String,
    tasks: TaskTracker,
    _listening: DropGuard,
}

impl Population {
    /// Connects and joins all members, over the places in turn.
    pub(crate) async fn connect_all(plan: Plan, places: &[Place]) -> Result<Self> {
        // Names of earlier runs against the same server may still be members.
        let run = format!("load-{:x}", clock::wall_millis() as u64);
        Self::fill(plan, run, places, &[]).await
    }

    /// Everybody's connection breaks, and everybody comes back at once, with its token.
    pub(crate) async fn reconnect(self, places: &[Place]) -> Result<Self> {
        let (plan, run) = (self.plan.clone(), self.run.clone());
        let tokens: Vec<_> = self.rooms.iter().map(|room| (room.index, room.tokens.clone())).collect();
        self.disconnect_all().await;
        Self::fill(plan, run, places, &tokens).await
    }

    async fn fill(plan: Plan, run: String, places: &[Place], tokens: &[(usize, Vec<Option<String>>)]) -> Result<Self> {
        let tally = Arc::new(Tally::new()?);
        let (tasks, stop, clients) = (TaskTracker::new(), CancellationToken::new(), QuicClients::open()?);
        let latencies = Mutex::new(histogram()?);
        let entrance = Entrance {
            plan: &plan,
            run: &run,
            places,
            clients: &clients,
            tally: &tally,
            latencies: &latencies,
            tasks: &tasks,
            stop: &stop,
        };
        let started = clock::now();
        let known = |index| tokens.iter().find(|known| known.0 == index).map(|known| &known.1[..]).unwrap_or_default();
        let rooms = stream::iter(0..plan.rooms)
            .map(|index| entrance.room(index, known(index)))
            .buffer_unordered(plan.at_once)
            .try_collect()
            .await?;
        let joining = clock::now().duration_since(started);
        let join_latencies = latencies.into_inner();
        Ok(Self { plan, rooms, tally, joining, join_latencies, run, tasks, _listening: stop.drop_guard() })
    }

    /// Members in all.
    pub(crate) fn size(&self) -> usize {
        self.plan.rooms * self.plan.members
    }

    /// Messages that all members received so far.
    pub(crate) fn received(&self) -> u64 {
        self.tally.received.load(Ordering::Relaxed)
    }

    pub(crate) fn joins_per_second(&self) -> f64 {
        self.size() as f64 / self.joining.as_secs_f64()
    }

    /// Fails if something went wrong that makes figures worthless.
    pub(crate) fn check(&self) -> Result<()> {
        match self.tally.trouble.lock().take() {
            Some(trouble) => bail!("{trouble}"),
            None => Ok(()),
        }
    }

    /// Everybody leaves without a word.
    pub(crate) async fn disconnect_all(self) {
        let Self { rooms, tasks, _listening, .. } = self;
        drop((_listening, rooms));
        tasks.close();
        tasks.wait().await;
    }
}

struct Entrance<'a> {
    plan: &'a Plan,
    run: &'a str,
    places: &'a [Place],
    clients: &'a QuicClients,
    tally: &'a Arc<Tally>,
    latencies: &'a Mutex<Histogram<u64>>,
    tasks: &'a TaskTracker,
    stop: &'a CancellationToken,
}

impl Entrance<'_> {
    /// Fills a room; the first member becomes its host.
    async fn room(&self, index: usize, known: &[Option<String>]) -> Result<Room> {
        let kind = self.plan.kind;
        let name = wire::room_name(self.run, index);
        let voice = Arc::new(Voice {
            kind,
            receivers: kind.receivers(self.plan.members) as u64,
            sent: AtomicU64::new(0),
            heard: AtomicU64::new(0),
            credits: Semaphore::new(0),
            plays: Mutex::default(),
        });
        let (mut links, mut tokens) = (Vec::new(), Vec::new());
        for member in 0..self.plan.members {
            let started = clock::micros();
            let place = &self.places[member % self.places.len()];
            let link = Arc::new(Link::connect(self.plan.carrier, place, self.clients).await?);
            let joins = self.listen(&link, &voice, member, self.places.len());
            let token = known.get(member).and_then(Option::as_deref);
            link.message(&wire::join(&name, &wire::user_name(index, member), kind.protocol(), token)).await?;
            let answer = tokio::time::timeout(JOINING, joins).await;
            let token = answer.ok().and_then(Result::ok).with_context(|| {
                let why = self.tally.trouble.lock().take().unwrap_or_else(|| "no answer".to_owned());
                format!("member {member} of room {index} did not get in: {why}")
            })?;
            self.latencies.lock().saturating_record((clock::micros() - started).max(1));
            links.push(link);
            tokens.push(token);
        }
        Ok(Room { name, index, links, voice, tokens })
    }

    /// Lets a member hear until the end. Resolves with its token once it is in.
    fn listen(
        &self,
        link: &Arc<Link>,
        voice: &Arc<Voice>,
        member: usize,
        places: usize,
    ) -> oneshot::Receiver<Option<String>> {
        let (joined, joins) = oneshot::channel();
        let mut ear = Ear {
            tally: Arc::clone(self.tally),
            voice: Arc::clone(voice),
            closes_the_loop: member == self.plan.members - 1,
            is_elsewhere: !member.is_multiple_of(places),
            last: 0,
            last_seq: 0,
            played: 0,
            joined: Some(joined),
        };
        let (reading, tally) = (Arc::clone(link), Arc::clone(self.tally));
        self.tasks.spawn(self.stop.clone().run_until_cancelled_owned(async move {
            let ended = reading.read(|incoming| ear.hear(&incoming)).await;
            tally.ended.fetch_add(1, Ordering::Relaxed);
            if let Err(error) = ended {
                tally.complain(|| format!("a connection ended: {error:#}"));
            }
        }));
        joins
    }
}

/// One member's handling of what it receives.
struct Ear {
    tally: Arc<Tally>,
    voice: Arc<Voice>,
    closes_the_loop: bool,
    /// On another node than the sender.
    is_elsewhere: bool,
    last: u64,
    last_seq: u32,
    played: u64,
    joined: Option<oneshot::Sender<Option<String>>>,
}

impl Ear {
    fn hear(&mut self, incoming: &Incoming<'_>) {
        match incoming {
            Incoming::Compact(bytes) if self.voice.kind == Kind::Tick => {
                for (seq, sent) in protocol::unbundled(bytes).into_iter().filter_map(wire::read_tick) {
                    self.delivered(sent);
                    // Ticks may be lost or overtaken: the newest one that the last member has tells how far the room
                    // is.
                    if self.closes_the_loop && seq > self.last_seq {
                        self.voice.credits.add_permits((seq - self.last_seq) as usize);
                        self.last_seq = seq;
                    }
                }
            }
            Incoming::Compact(_) => {}
            Incoming::Message(message) => match (wire::kind_of(message), self.voice.kind) {
                (b"HOST_HEARTBEAT", Kind::Heartbeat) | (b"OFFER", Kind::Signal) => {
                    if let Some(sent) = wire::sent_at(message) {
                        self.delivered(sent);
                        self.voice.heard_by_one();
                    }
                }
                (b"PLAY_PAUSE", Kind::Play) => {
                    let sent = self.voice.plays.lock().nth(self.played);
                    self.played += 1;
                    if let Some(sent) = sent {
                        self.delivered(sent);
                        self.voice.heard_by_one();
                    }
                }
                (b"ACK", _) => self.acknowledged(message),
                (b"ROOM_STATE", _) => {
                    if let Some(joined) = self.joined.take() {
                        let _ = joined.send(wire::field(message, "resumeToken").map(str::to_owned));
                    }
                }
                (b"ERROR", _) => {
                    self.tally.refusals.fetch_add(1, Ordering::Relaxed);
                    self.tally.complain(|| format!("refused: {}", String::from_utf8_lossy(message)));
                }
                _ => {}
            },
        }
    }

    fn delivered(&mut self, sent: u64) {
        self.tally.received.fetch_add(1, Ordering::Relaxed);
        if sent < self.last {
            self.tally.disordered.fetch_add(1, Ordering::Relaxed);
        }
        self.last = self.last.max(sent);
        if self.tally.measuring.load(Ordering::Relaxed) {
            let latencies = if self.is_elsewhere { &self.tally.elsewhere } else { &self.tally.latencies };
            latencies.lock().saturating_record(clock::micros().saturating_sub(sent).max(1));
        }
    }

    fn acknowledged(&self, message: &[u8]) {
        self.tally.acks.fetch_add(1, Ordering::Relaxed);
        let reference = wire::field(message, "ref").and_then(|text| text.parse().ok());
        if let Some(sent) = reference.and_then(|reference| self.voice.plays.lock().nth(reference))
            && self.tally.measuring.load(Ordering::Relaxed)
        {
            self.tally.ack_latencies.lock().saturating_record(clock::micros().saturating_sub(sent).max(1));
        }
    }
}

impl Voice {
    /// A message counts as through when all have it.
    fn heard_by_one(&self) {
        let heard = self.heard.fetch_add(1, Ordering::Relaxed) + 1;
        if heard.is_multiple_of(self.receivers) {
            self.credits.add_permits(1);
        }
    }

    /// Messages that all members together should have received.
    pub(crate) fn expected(&self) -> u64 {
        self.sent.load(Ordering::Relaxed) * self.receivers
    }
}
