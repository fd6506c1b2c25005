//! A member as the JavaScript client is one (`web-demo/client/connection.js`, `session.js`): it comes back with its
//! token, after a backoff with the same figures, or at the moment that the server told it; it asks for the whole state
//! when it misses something; once a question (a clock probe, a PING) is unanswered for two and a half seconds it opens
//! a connection to another node, and goes on there unless the first one speaks before. What it sees goes into its
//! record.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use serde_json::{Value, json};
use tandem::clock::Clock;
use tandem::domain::Head;
use tokio::sync::watch;
use tokio::time::{Instant, MissedTickBehavior, interval, sleep_until, timeout};

use super::member_record::{Asked, MemberRecord, Seen, What};
use super::rng::Rng;
use crate::support::client::{Carrier, Client, Incoming, Tick};
use crate::support::server::Place;

const PING_EVERY: Duration = Duration::from_secs(5);
const PROBE_EVERY: Duration = Duration::from_secs(1);
const UNANSWERED: Duration = Duration::from_millis(2500);
const MOST_SILENCE: Duration = Duration::from_secs(12);
const OTHER_WITHIN: Duration = Duration::from_secs(3);
const JOIN_WITHIN: Duration = Duration::from_secs(10);
const OPEN_WITHIN: Duration = Duration::from_secs(8);
const BACKOFF_FIRST: Duration = Duration::from_millis(300);
const BACKOFF_CAP: Duration = Duration::from_secs(10);
const TICK_EVERY: Duration = Duration::from_millis(500);

/// How many events of the room's order a message tells of.
fn told_by(message: &Value) -> u64 {
    message["events"].as_u64().filter(|_| message["type"] == "ROSTER").unwrap_or(1)
}

/// Orders to all members.
#[derive(Debug, Clone, Default)]
pub(crate) struct Orders {
    /// From one command to the next, on average; `None`: they are silent.
    pub(crate) pace: Option<Duration>,
    /// Now and then they hang up, and come back.
    pub(crate) restless: bool,
    /// Asks for the whole state when this grows.
    pub(crate) sync: u64,
    /// Everybody goes, without a word.
    pub(crate) over: bool,
}

/// Somebody with a place in a room.
pub(crate) struct Member {
    pub(crate) number: usize,
    pub(crate) carrier: Carrier,
    /// By which doors the nodes are reached.
    pub(crate) doors: Vec<Place>,
    /// The node for the first connection; afterwards it is chance, as a load balancer is.
    pub(crate) first: usize,
    pub(crate) orders: watch::Receiver<Orders>,
    pub(crate) record: Arc<Mutex<MemberRecord>>,
    pub(crate) rng: Rng,
    pub(crate) memory: Memory,
}

/// State that outlives a connection.
#[derive(Default)]
pub(crate) struct Memory {
    token: Option<String>,
    head: Option<Head>,
    references: u64,
    said: usize,
    moved: usize,
    ticks: u32,
    failures: u32,
    /// The server's clock, as ROOM_STATE told it, and when.
    room_time: Option<(f64, Instant)>,
}

enum End {
    Over,
    Soon,
    At(Instant),
    /// It goes on at another node, whose connection is open.
    Moved(Box<Client>, usize),
}

impl Member {
    pub(crate) async fn live(mut self) {
        let mut next = Some(self.first);
        let mut moved = None;
        while !self.orders.borrow().over {
            let end = if let Some((client, node)) = moved.take() {
                self.session(client, node).await
            } else {
                let node = next.take().unwrap_or_else(|| self.rng.below(self.doors.len()));
                let door = self.doors[node].clone();
                match timeout(OPEN_WITHIN, Client::connect(self.carrier, &door)).await {
                    Ok(Ok(client)) => self.session(client, node).await,
                    _ => End::Soon,
                }
            };
            let until = match end {
                End::Over => return,
                End::Moved(client, node) => {
                    moved = Some((*client, node));
                    continue;
                }
                End::At(moment) => moment,
                End::Soon => {
                    let ceiling = BACKOFF_FIRST.saturating_mul(1 << self.memory.failures.min(10)).min(BACKOFF_CAP);
                    self.memory.failures += 1;
                    Clock::instant() + ceiling.mul_f64(0.5 + self.rng.below(500) as f64 / 1000.0)
                }
            };
            let mut orders = self.orders.clone();
            tokio::select! {
                () = sleep_until(until) => {}
                _ = orders.wait_for(|orders| orders.over) => return,
            }
        }
    }

    /// One connection, from JOIN to its end.
    async fn session(&mut self, mut client: Client, node: usize) -> End {
        let mut session = Session { joined: false, node, planned: None, refused: false, syncs: 0 };
        let end = self.converse(&mut client, &mut session).await;
        let mut record = self.record.lock();
        for asked in record.asked.values_mut().filter(|asked| asked.answer.is_none()) {
            asked.lost = true;
        }
        if session.joined {
            record.node = None;
            record.losses += usize::from(record.dismissed || !matches!(end, End::Over));
            record.announced += usize::from(session.planned.is_some());
            if !matches!(end, End::Over) {
                record.struck(Clock::instant());
            }
        }
        match (end, session.planned) {
            (End::Soon, Some(moment)) => End::At(moment),
            (end, _) => end,
        }
    }

    async fn converse(&mut self, client: &mut Client, session: &mut Session) -> End {
        if !self.join(client).await {
            return End::Soon;
        }
        let began = Clock::instant();
        let (mut heard, mut orders) = (began, self.orders.clone());
        // The first question that nothing has answered, and the connection that is opened because of it.
        let mut asked: Option<Instant> = None;
        let mut opening: Option<BoxFuture<'static, Option<Client>>> = None;
        let other = (session.node + 1 + self.rng.below(self.doors.len().max(2) - 1)) % self.doors.len();
        let mut synced = orders.borrow().sync;
        let mut pings = interval(PING_EVERY);
        let mut probes = interval(PROBE_EVERY);
        let mut ticks = interval(TICK_EVERY);
        for every in [&mut pings, &mut probes, &mut ticks] {
            every.set_missed_tick_behavior(MissedTickBehavior::Delay);
        }
        let mut speak_at = began;
        loop {
            let pace = orders.borrow().pace.filter(|_| session.joined);
            let silent = heard + MOST_SILENCE;
            let join_by = if session.joined { silent } else { began + JOIN_WITHIN };
            let planned = session.planned.unwrap_or(silent);
            let doubt = asked.filter(|_| session.joined && opening.is_none()).map(|asked| asked + UNANSWERED);
            tokio::select! {
                incoming = client.hear() => {
                    heard = Clock::instant();
                    (asked, opening) = (None, None);
                    let joined = session.joined;
                    match incoming {
                        Incoming::Message(message) => {
                            if let Some(reply) = self.take(message, session)
                                && !client.send(reply).await
                            {
                                return End::Soon;
                            }
                        }
                        Incoming::Compact(_) => {}
                        Incoming::Closed(end) => return self.ended(end),
                    }
                    if session.refused {
                        return End::Soon;
                    }
                    if session.joined && !joined {
                        // A member that has come back sends at once.
                        speak_at = heard;
                    }
                }
                () = sleep_until(speak_at), if pace.is_some() => {
                    let pace = pace.unwrap_or_default();
                    speak_at = Clock::instant() + pace.mul_f64(0.5 + self.rng.below(1000) as f64 / 1000.0);
                    let restless = orders.borrow().restless;
                    if restless && self.rng.below(25) == 0 {
                        return End::Soon;
                    }
                    let command = self.command();
                    if !client.send(command).await {
                        return End::Soon;
                    }
                }
                _ = ticks.tick(), if pace.is_some() => {
                    let tick = self.tick();
                    if !client.try_send_compact(&tick).await {
                        return End::Soon;
                    }
                }
                _ = pings.tick() => {
                    asked = asked.or(Some(Clock::instant()));
                    if !client.send(json!({"type": "PING", "timestamp": 1})).await {
                        return End::Soon;
                    }
                }
                _ = probes.tick() => {
                    asked = asked.or(Some(Clock::instant()));
                    if !client.try_send_compact(&probe()).await {
                        return End::Soon;
                    }
                }
                () = sleep_until(doubt.unwrap_or(began)), if doubt.is_some() => {
                    let (carrier, door) = (self.carrier, self.doors[other].clone());
                    opening = Some(Box::pin(async move {
                        timeout(OTHER_WITHIN, Client::connect(carrier, &door)).await.ok()?.ok()
                    }));
                }
                opened = opened(&mut opening), if opening.is_some() => match opened {
                    Some(client) => return End::Moved(Box::new(client), other),
                    None => (asked, opening) = (Some(Clock::instant()), None),
                },
                () = sleep_until(silent.min(join_by).min(planned)) => return End::Soon,
                changed = orders.changed() => {
                    if changed.is_err() || orders.borrow().over {
                        return End::Over;
                    }
                    let asked = orders.borrow().sync;
                    if std::mem::replace(&mut synced, asked) != asked {
                        session.syncs += 1;
                        if !client.send(json!({"type": "REQUEST_SYNC"})).await {
                            return End::Soon;
                        }
                    }
                }
            }
        }
    }

    /// By its closing code, as `retryAfterClose` of `errors.js` reads it.
    fn ended(&self, end: Option<(u32, String)>) -> End {
        const NEVER: [u32; 6] = [1000, 4000, 4001, 4005, 4006, 4007];
        let Some(end) = end else { return End::Soon };
        let mut record = self.record.lock();
        record.dismissed = NEVER.contains(&end.0);
        record.ends.push(end);
        if record.dismissed { End::Over } else { End::Soon }
    }

    async fn join(&mut self, client: &mut Client) -> bool {
        let (room, user) = {
            let record = self.record.lock();
            (record.room.clone(), record.user.clone())
        };
        let mut join = json!({"type": "JOIN", "protocol": 3, "roomId": room, "userId": user});
        if let (Some(token), Some(head)) = (&self.memory.token, self.memory.head) {
            join["resumeToken"] = json!(token);
            join["epoch"] = json!(head.epoch);
            join["lastSeq"] = json!(head.seq);
        }
        client.send(join).await
    }

    /// Writes down what came; what has to be said to it.
    fn take(&mut self, message: Value, session: &mut Session) -> Option<Value> {
        let now = Clock::instant();
        let head = message["epoch"].as_u64().zip(message["seq"].as_u64()).map(|(epoch, seq)| Head { epoch, seq });
        let record = Arc::clone(&self.record);
        let mut record = record.lock();
        match message["type"].as_str().unwrap_or_default() {
            "ROOM_STATE" => {
                let head = head?;
                let fresh = !std::mem::replace(&mut session.joined, true);
                match session.syncs {
                    _ if fresh => {}
                    0 => record.resyncs += 1,
                    _ => session.syncs -= 1,
                }
                record.seen.push(Seen::State { head, fresh, seen: self.memory.head });
                record.node = Some(session.node);
                self.memory.failures = 0;
                self.memory.head = Some(head);
                self.memory.room_time = message["roomTime"].as_f64().map(|time| (time, now));
                if let Some(token) = message["resumeToken"].as_str() {
                    self.memory.token = Some(token.to_owned());
                }
                record.may_command = message["guestControlEnabled"] == true;
                let hosts = message["hostUserId"] == *record.user;
                record.synced = Some((self.orders.borrow().sync, message));
                let closed = hosts && !record.may_command;
                closed.then(|| json!({"type": "TOGGLE_GUEST_CONTROL", "enabled": true}))
            }
            "ACK" => {
                record.answered(message["ref"].as_u64()?, Ok(head?), now);
                None
            }
            "ERROR" => self.refused(&message, &mut record, session, now),
            "DEGRADED" => {
                record.degraded = message["degraded"] == true;
                record.times_degraded += usize::from(record.degraded);
                None
            }
            "RECONNECT" => {
                let after = Duration::from_millis(message["afterMs"].as_u64().unwrap_or_default());
                session.planned = Some(now + after);
                None
            }
            _ => {
                // Said before: the others have it in its place.
                if message["replayed"] == true {
                    return None;
                }
                let head = head?;
                if message["type"] == "GUEST_CONTROL" {
                    record.may_command = message["enabled"] == true;
                }
                let events = told_by(&message);
                record.seen.push(Seen::Event { head, json: message });
                let known = self.memory.head.unwrap_or_default();
                if head.epoch == known.epoch && head.seq <= known.seq {
                    return None;
                }
                self.memory.head = Some(head);
                let gap = head.epoch != known.epoch || head.seq > known.seq + events;
                session.syncs += usize::from(gap);
                gap.then(|| json!({"type": "REQUEST_SYNC"}))
            }
        }
    }

    fn refused(
        &mut self,
        message: &Value,
        record: &mut MemberRecord,
        session: &mut Session,
        now: Instant,
    ) -> Option<Value> {
        let code = message["code"].as_str().unwrap_or_default().to_owned();
        if let Some(reference) = message["ref"].as_u64() {
            record.answered(reference, Err(code), now);
            return None;
        }
        if session.joined {
            return None;
        }
        if code == "TOKEN_INVALID" && self.memory.token.take().is_some() {
            record.memberships_lost += 1;
        }
        session.refused = true;
        None
    }

    /// The next command, and a note of it.
    fn command(&mut self) -> Value {
        let memory = &mut self.memory;
        memory.references += 1;
        let mut position = || {
            memory.moved += 1;
            // Seconds that no other member uses.
            (self.number * 5000 + memory.moved) as f64 + 0.5
        };
        let what = match self.rng.below(10) {
            0 => What::Seek(position()),
            1 => What::Pause(position()),
            2 | 3 => {
                memory.said += 1;
                What::Custom(memory.said + 2)
            }
            _ => {
                memory.said += 1;
                What::Chat(memory.said)
            }
        };
        let mut message = match &what {
            What::Seek(position) => {
                json!({"type": "SEEK", "currentTime": position, "isPlaying": self.rng.below(5) == 0})
            }
            What::Pause(position) => json!({"type": "PLAY_PAUSE", "control": "pause", "currentTime": position}),
            // The payload is a text in quotation marks.
            What::Custom(bytes) => {
                json!({"type": "CUSTOM", "namespace": "org.example.chaos", "payload": "x".repeat(bytes - 2)})
            }
            What::Chat(chars) => json!({"type": "CHAT", "text": "x".repeat(*chars)}),
        };
        message["ref"] = json!(self.memory.references);
        let asked = Asked { what, answer: None, lost: false };
        self.record.lock().asked.insert(self.memory.references, asked);
        message
    }

    fn tick(&mut self) -> Vec<u8> {
        self.memory.ticks += 1;
        let now = self.memory.room_time.map(|(time, at)| time + at.elapsed().as_secs_f64() * 1000.0);
        Tick::write(self.memory.ticks, 1.0, now.unwrap_or_default(), false)
    }
}

async fn opened(opening: &mut Option<BoxFuture<'static, Option<Client>>>) -> Option<Client> {
    opening.as_mut()?.await
}

fn probe() -> Vec<u8> {
    let mut bytes = vec![1, 0, 0, 1];
    bytes.extend_from_slice(&1.0_f64.to_be_bytes());
    bytes
}

struct Session {
    joined: bool,
    node: usize,
    /// The time at which the server wants it back.
    planned: Option<Instant>,
    refused: bool,
    /// Requests for the whole state that are not answered yet.
    syncs: usize,
}
