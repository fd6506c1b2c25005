//! Members of several rooms, spread over all nodes and both transports, and what is waited for when they speak.
//!
//! Nothing here sleeps for a while and hopes: the unit of time is a command that was acknowledged.

use std::collections::BTreeMap;
use std::fmt::Write;
use std::sync::Arc;
use std::time::Duration;

use parking_lot::Mutex;
use serde_json::Value;
use tandem::clock::Clock;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;

use super::member::{Member, Memory, Orders};
use super::member_record::MemberRecord;
use super::rng::Rng;
use crate::support::client::Carrier;
use crate::support::server::{Place, soon};

/// Nothing takes so long, on however slow a machine.
const PATIENCE: Duration = Duration::from_secs(90);

/// Size of a scenario.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Size {
    pub(crate) rooms: usize,
    /// Members of each room.
    pub(crate) members: usize,
    /// From one command of a member to its next.
    pub(crate) pace: Duration,
    /// Acknowledged commands that a member waits for between one part of a scenario and the next.
    pub(crate) stretch: usize,
    /// Repetitions of a fault where it can be repeated.
    pub(crate) rounds: usize,
}

impl Size {
    /// For every run of the tests.
    pub(crate) fn short() -> Self {
        Self { rooms: 3, members: 4, pace: Duration::from_millis(120), stretch: 6, rounds: 1 }
    }

    /// For the table.
    pub(crate) fn long() -> Self {
        Self { rooms: 6, members: 6, pace: Duration::from_millis(250), stretch: 20, rounds: 2 }
    }
}

/// All members of all rooms.
pub(crate) struct Population {
    pub(crate) records: Vec<Arc<Mutex<MemberRecord>>>,
    pub(crate) size: Size,
    orders: watch::Sender<Orders>,
    tasks: TaskTracker,
}

impl Population {
    /// They come, and each is in its room.
    pub(crate) async fn gather(doors: &[Place], size: Size, seed: u64) -> Self {
        println!("seed {seed}");
        let mut rng = Rng::new(seed);
        let orders = watch::Sender::new(Orders::default());
        let tasks = TaskTracker::new();
        let mut records = Vec::new();
        for room in 0..size.rooms {
            // The first member is the host, and lets guests control.
            let name = format!("room-{room}");
            for place in 0..size.members {
                let number = room * size.members + place;
                let carrier = if (room + place) % 2 == 0 { Carrier::WebSocket } else { Carrier::Quinn };
                let record = Arc::new(Mutex::new(MemberRecord::new(&format!("user-{room}-{place}"), &name, carrier)));
                let member = Member {
                    number,
                    carrier,
                    doors: doors.to_vec(),
                    first: (room + place / 2) % doors.len(),
                    orders: orders.subscribe(),
                    record: Arc::clone(&record),
                    rng: rng.split(),
                    memory: Memory::default(),
                };
                tasks.spawn(member.live());
                records.push(record);
                if place == 0 {
                    soon("a host", until_so(|| records[number].lock().node.is_some())).await;
                }
            }
        }
        let population = Self { records, size, orders, tasks };
        population
            .until_each("all to be in, and to command", |record| record.node.is_some() && record.may_command)
            .await;
        population
    }

    /// Everybody speaks, from now on.
    pub(crate) fn speak(&self) {
        self.orders.send_modify(|orders| orders.pace = Some(self.size.pace));
    }

    /// Everybody speaks until each has had a stretch of its commands acknowledged since now.
    pub(crate) async fn stretch(&self) {
        self.speak();
        let goal: Vec<usize> =
            self.records.iter().map(|record| record.lock().acknowledged() + self.size.stretch).collect();
        let reached = |(record, goal): (&Arc<Mutex<MemberRecord>>, &usize)| record.lock().acknowledged() >= *goal;
        self.until("a stretch of acknowledged commands", || self.records.iter().zip(&goal).all(reached)).await;
    }

    /// Whether members hang up now and then, and come back.
    pub(crate) fn be_restless(&self, restless: bool) {
        self.orders.send_modify(|orders| orders.restless = restless);
    }

    /// Something of every member.
    pub(crate) async fn until_each(&self, what: &str, is_so: impl Fn(&MemberRecord) -> bool) {
        self.until(what, || self.records.iter().all(|record| is_so(&record.lock()))).await;
    }

    /// From now on these wait for a command that is acknowledged.
    pub(crate) fn struck(&self, which: impl Fn(&MemberRecord) -> bool) {
        let now = Clock::instant();
        for record in &self.records {
            let mut record = record.lock();
            if which(&record) {
                record.waits_since = Some(now);
            }
        }
    }

    /// Stops all requests and waits for the answers. Each member's view of its room, by the server.
    pub(crate) async fn fall_silent(&self) -> BTreeMap<String, Vec<Value>> {
        self.until_each("whoever was in trouble to be heard again", |record| record.waits_since.is_none()).await;
        self.orders.send_modify(|orders| orders.pace = None);
        self.until_each("all to be in, and answered", |record| record.node.is_some() && record.open() == 0).await;
        // Gates and grace times may still be running: rooms have converged when two looks show the same.
        let mut before = self.look().await;
        loop {
            let now = self.look().await;
            let same = now.values().all(|views| views.iter().all(|view| essence(view) == essence(&views[0])));
            if same && now.iter().all(|(room, views)| essence(&before[room][0]) == essence(&views[0])) {
                return now;
            }
            before = now;
        }
    }

    async fn look(&self) -> BTreeMap<String, Vec<Value>> {
        self.orders.send_modify(|orders| orders.sync += 1);
        let number = self.orders.borrow().sync;
        let has = |record: &MemberRecord| {
            record.synced.as_ref().is_some_and(|(at, _)| *at == number) && record.node.is_some()
        };
        self.until_each("everybody's view", has).await;
        let mut rooms: BTreeMap<String, Vec<Value>> = BTreeMap::new();
        for record in &self.records {
            let record = record.lock();
            let view = record.synced.as_ref().map(|(_, view)| view.clone()).unwrap_or_default();
            rooms.entry(record.room.clone()).or_default().push(view);
        }
        rooms
    }

    /// Everybody goes, and leaves a record.
    pub(crate) async fn disperse(self) -> Vec<MemberRecord> {
        self.orders.send_modify(|orders| orders.over = true);
        self.tasks.close();
        self.tasks.wait().await;
        self.records
            .into_iter()
            .map(|record| Arc::into_inner(record).expect("nobody writes any more").into_inner())
            .collect()
    }

    async fn until(&self, what: &str, is_so: impl Fn() -> bool) {
        let dismissed = || self.records.iter().any(|record| record.lock().dismissed);
        let waiting = tokio::time::timeout(PATIENCE, until_so(|| is_so() || dismissed()));
        if waiting.await.is_err() || dismissed() {
            panic!("waited in vain for {what}:\n{}", self.describe());
        }
    }

    /// The members that still wait, for a panic's text.
    fn describe(&self) -> String {
        let mut text = String::new();
        for record in &self.records {
            let record = record.lock();
            let _ = writeln!(
                text,
                "{} ({:?}): node {:?}, at {:?}, {} acknowledged, {} open, {} losses, degraded {}, ends {:?}",
                record.user,
                record.carrier,
                record.node,
                record.head(),
                record.acknowledged(),
                record.open(),
                record.losses,
                record.degraded,
                record.ends,
            );
        }
        text
    }
}

async fn until_so(is_so: impl Fn() -> bool) {
    while !is_so() {
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
}

/// The part of a ROOM_STATE that is the same for every member.
fn essence(view: &Value) -> Value {
    let mut view = view.clone();
    for own in ["userId", "slot", "sessionId", "nodeId", "resumed", "resumeToken", "roomTime", "currentTime"] {
        view[own] = Value::Null;
    }
    view
}
