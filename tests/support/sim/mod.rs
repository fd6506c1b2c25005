//! Several nodes at one log, clients that come and go, and injected faults between them; all of it from one seed,
//! under tokio's paused time.

mod audit;
pub(crate) mod counting_log;
mod fault_plan;
#[path = "../faulty_log.rs"]
pub(crate) mod faulty_log;
mod final_checks;
mod node;
mod people;
pub(crate) mod rng;
mod sim_client;

use std::collections::{BTreeMap, BTreeSet};
use std::sync::Arc;
use std::time::Duration;

use crate::memory_transport::MemoryClient;
use bytes::Bytes;
use parking_lot::Mutex;
use tandem::commit::Entry;
use tandem::domain::{Head, Limits, NodeId, RoomId};
use tandem::log::{Followed, Log};
use tokio_util::task::TaskTracker;

pub(crate) use audit::Truth;
use counting_log::Tally;
use fault_plan::{AUDITOR, FaultPlan, FaultRates};
use faulty_log::{Faults, FaultyMemoryLog};
use node::Node;
pub(crate) use people::{Asked, Person, What as Asking};
use rng::Rng;
pub(crate) use sim_client::{Heard, SimClient};

pub(crate) const ROOMS: [&str; 2] = ["friday", "sunday"];
/// Members above which a room speaks in a digest, in every third world.
pub(crate) const LARGE_ABOVE: u64 = 3;
/// A node that is gone keeps its lease this long.
const LEASE: Duration = Duration::from_secs(3);

/// A commit as the auditor heard of it.
#[derive(Debug, Clone)]
pub(crate) struct Committed {
    pub(crate) room: RoomId,
    pub(crate) expected: Head,
    pub(crate) entries: Arc<[Entry]>,
}

pub(crate) struct World {
    pub(crate) rng: Rng,
    pub(crate) limits: Limits,
    pub(crate) log: FaultyMemoryLog,
    pub(crate) faults: Faults,
    pub(crate) plan: FaultPlan,
    /// Counts of faults and events, for the floors of the simulation.
    pub(crate) tally: Tally,
    /// By place; `None`: down.
    pub(crate) nodes: Vec<Option<Node>>,
    pub(crate) people: Vec<Person>,
    pub(crate) clients: Vec<SimClient>,
    /// Requests by reference. The reference is in the text, the payload or the position too.
    pub(crate) asked: BTreeMap<u64, Asked>,
    /// Names of nodes that are no more, and when their leases end.
    dead: BTreeMap<NodeId, Duration>,
    /// Nodes cut off from the log, and since when.
    cut: BTreeMap<NodeId, Duration>,
    /// Nodes that live and were taken for dead, and until when a late word of that may cost a new session its place.
    doubted: BTreeMap<NodeId, Duration>,
    incarnations: usize,
    truth: Arc<Mutex<Vec<Committed>>>,
    auditor: Arc<dyn Log>,
    began: tokio::time::Instant,
    tracker: TaskTracker,
    transcript: Vec<String>,
}

impl World {
    pub(crate) async fn new(seed: u64, nodes: usize, dialects: &[u8]) -> Self {
        let mut rng = Rng::new(seed);
        let tracker = TaskTracker::new();
        let log = FaultyMemoryLog::new(&tracker);
        let faults = log.faults();
        let tally = Tally::default();
        let plan = FaultPlan::over(&faults, rng.split(), &tally);
        let auditor = log.attach(NodeId::parse(AUDITOR).unwrap());
        let truth: Arc<Mutex<Vec<Committed>>> = Arc::default();
        for room in ROOMS {
            auditor.subscribe(&RoomId::parse(room).unwrap()).await.unwrap();
        }
        let (hears, writes) = (Arc::clone(&auditor), Arc::clone(&truth));
        tracker.spawn(async move {
            loop {
                match hears.follow().await {
                    Followed::Commit { room, expected, entries } => {
                        writes.lock().push(Committed { room, expected, entries });
                    }
                    Followed::Ephemeral { .. } => {}
                    Followed::Gap(_) => panic!("the auditor missed something"),
                }
            }
        });
        let mut limits =
            Limits { grace_secs: 8, room_keep_minutes: 1, room_members: 5, room_audience: 0, ..Limits::default() };
        if seed.is_multiple_of(3) {
            limits.full_presence_members = LARGE_ABOVE;
        }
        let mut world = Self {
            people: dialects.iter().enumerate().map(|(index, dialect)| Person::new(index, *dialect)).collect(),
            rng,
            limits,
            log,
            faults,
            plan,
            tally,
            nodes: (0..nodes).map(|_| None).collect(),
            clients: Vec::new(),
            asked: BTreeMap::new(),
            dead: BTreeMap::new(),
            cut: BTreeMap::new(),
            doubted: BTreeMap::new(),
            incarnations: 0,
            truth,
            auditor,
            began: tandem::clock::Clock::instant(),
            tracker,
            transcript: Vec::new(),
        };
        for place in 0..nodes {
            world.start(place, None);
        }
        world
    }

    pub(crate) fn elapsed(&self) -> Duration {
        self.began.elapsed()
    }

    pub(crate) fn note(&mut self, what: impl FnOnce() -> String) {
        let client = format!("{:>9.3} {}", self.elapsed().as_secs_f64(), what());
        self.transcript.push(client);
    }

    /// Actions so far and what every client received, equal for equal seeds; session ids and tokens are left out.
    pub(crate) fn transcript(&self) -> String {
        let mut transcript = self.transcript.join("\n");
        for (index, client) in self.clients.iter().enumerate() {
            transcript += &format!("\n\n== client {index} of {} to {}", self.people[client.person].name, client.node);
            for heard in &client.heard {
                let mut heard = heard.clone();
                if let Heard::State { json, .. } = &mut heard {
                    json["sessionId"] = "…".into();
                    json["resumeToken"] = "…".into();
                }
                transcript += &match heard {
                    Heard::State { json, .. } | Heard::Event { json, .. } | Heard::Notice(json) => format!("\n{json}"),
                    other => format!("\n{other:?}"),
                };
            }
        }
        transcript
    }

    pub(crate) fn truth(&self) -> Truth {
        Truth::of(&self.truth.lock(), self)
    }

    // ---- nodes

    /// Starts the node of a place, under a new name or the one given.
    pub(crate) fn start(&mut self, place: usize, name: Option<NodeId>) {
        self.incarnations += 1;
        let name = name.map_or_else(|| format!("node{place}-{}", self.incarnations), |name| name.to_string());
        // Clocks of nodes agree to some ms.
        let skew = self.rng.below(9) as i64 - 4;
        let node = Node::start(&name, &self.log, &self.limits, skew, self.elapsed(), &self.tally);
        self.note(|| format!("{name} starts"));
        self.nodes[place] = Some(node);
    }

    pub(crate) fn crash(&mut self, place: usize) -> Option<NodeId> {
        let name = self.nodes[place].take()?.crash(&self.log);
        for client in self.clients.iter_mut().filter(|client| client.node == name && client.is_open()) {
            client.listen();
            (client.wire, client.may_be_lost) = (None, true);
        }
        self.faults.heal(&name);
        self.cut.remove(&name);
        self.dead.insert(name.clone(), self.elapsed() + LEASE);
        self.tally.count("node: crash");
        self.note(|| format!("{name} dies"));
        Some(name)
    }

    pub(crate) fn is_doubted(&self, name: &NodeId) -> bool {
        self.doubted.get(name).is_some_and(|until| self.elapsed() < *until)
    }

    fn alive(&self) -> Vec<usize> {
        (0..self.nodes.len()).filter(|place| self.nodes[*place].is_some()).collect()
    }

    pub(crate) fn node(&self, place: usize) -> &Node {
        self.nodes[place].as_ref().unwrap()
    }

    /// The lease watchers of all nodes: members of nodes that are gone are disconnected, in rooms here and in
    /// rooms of which nobody here has heard.
    fn watch_leases(&mut self) {
        let now = self.elapsed();
        let mut gone: Vec<NodeId> =
            self.dead.iter().filter(|(_, at)| **at <= now).map(|(name, _)| name.clone()).collect();
        // One that is cut off for long can't keep its lease either.
        let cut: Vec<_> = self.cut.iter().filter(|(_, at)| **at + LEASE <= now).map(|(name, _)| name.clone()).collect();
        for client in self.clients.iter_mut().filter(|client| cut.contains(&client.node)) {
            client.may_be_lost = true;
        }
        self.doubted.extend(cut.iter().map(|name| (name.clone(), now + Duration::from_secs(10))));
        gone.extend(cut);
        for node in self.nodes.iter().flatten().filter(|node| !self.cut.contains_key(&node.name)) {
            for name in &gone {
                node.hub.lose_node(name);
                for room in ROOMS {
                    let (hub, name, room) = (node.hub.clone(), name.clone(), RoomId::parse(room).unwrap());
                    node.spawn(async move {
                        let _ = hub.lose_node_in(&room, &name).await;
                    });
                }
            }
        }
    }

    // ---- time

    /// Lets time pass, and everybody listen.
    pub(crate) async fn pass(&mut self, time: Duration) {
        tokio::time::sleep(time).await;
        self.listen();
    }

    fn listen(&mut self) {
        for client in &mut self.clients {
            if client.listen() > 0
                && !client.renamed
                && let Some(state) = client.last_state()
            {
                let person = &mut self.people[client.person];
                if let (3, Some(token)) = (person.dialect, state["resumeToken"].as_str()) {
                    person.tokens.insert(client.room.clone().unwrap(), token.to_owned());
                }
                person.last_seen = client.room.clone().zip(client.head());
            }
        }
    }

    /// Until nothing is on its way any more.
    pub(crate) async fn settle(&mut self, time: Duration) {
        let until = self.elapsed() + time;
        while self.elapsed() < until {
            self.watch_leases();
            self.pass(Duration::from_millis(250)).await;
        }
    }

    // ---- the trouble

    pub(crate) async fn step(&mut self) {
        match self.rng.below(100) {
            0..=3 => self.plan.becomes(FaultRates::some(&mut self.rng)),
            4..=5 => {
                let alive = self.alive();
                if alive.len() > 1
                    && let Some(place) = self.rng.pick(&alive)
                {
                    self.crash(place);
                }
            }
            6..=8 => self.restart_something(),
            9..=10 => self.cut_something_off(),
            11..=14 => self.heal_something(),
            15..=34 => self.somebody_connects().await,
            35..=38 => self.somebody_hangs_up().await,
            39 => self.somebody_falls_silent(),
            40 => self.somebody_leaves().await,
            41 => self.somebody_becomes_somebody_else().await,
            42..=43 => self.a_host_departs_from_its_room().await,
            _ => self.somebody_asks().await,
        }
        self.watch_leases();
        let pause = match self.rng.below(10) {
            0..=3 => Duration::ZERO,
            4..=7 => self.rng.millis(40),
            8 => self.rng.millis(700),
            _ => self.rng.millis(4000),
        };
        self.pass(pause).await;
    }

    /// People without trouble: only that nothing arrives at once.
    pub(crate) async fn fair_step(&mut self) {
        match self.rng.below(100) {
            0..=19 => self.somebody_connects().await,
            20..=23 => self.somebody_hangs_up().await,
            24..=25 => self.somebody_leaves().await,
            _ => self.somebody_asks().await,
        }
        let pause = if self.rng.percent(60) { Duration::ZERO } else { self.rng.millis(40) };
        self.pass(pause).await;
    }

    /// From now on everything that crosses between the nodes and the log takes its time, and nothing is lost.
    pub(crate) fn be_slow(&self) {
        self.plan.becomes(FaultRates::slow());
    }

    /// ROOM_STATEs that no client had asked for.
    pub(crate) fn resyncs(&self) -> usize {
        let of_client = |(index, client): (usize, &SimClient)| {
            let states = client.heard.iter().filter(|heard| matches!(heard, Heard::State { .. })).count();
            let v3 = self.people[client.person].dialect == 3;
            let asked = self.asked.iter().filter(|(reference, asked)| {
                let answered = asked.what == Asking::Join || (asked.what == Asking::Sync && v3);
                asked.client == index && answered && self.refused(**reference).is_none()
            });
            states.saturating_sub(asked.count())
        };
        self.clients.iter().enumerate().map(of_client).sum()
    }

    fn restart_something(&mut self) {
        let Some(place) = self.nodes.iter().position(Option::is_none) else { return };
        // Under its old name it comes back before anybody has missed it; what its old process held, it finds itself.
        let old = self.dead.iter().find(|(name, until)| {
            name.as_str().starts_with(&format!("node{place}-"))
                && **until > self.elapsed()
                && self.rng.clone().percent(50)
        });
        let old = old.map(|(name, _)| name.clone());
        if let Some(name) = &old {
            self.dead.remove(name);
            self.tally.count("node: back under its name");
        }
        self.start(place, old.clone());
        if let Some(name) = old {
            self.sweep(place, &name);
        }
    }

    /// Opens every room, as the sweep of the log's rooms does.
    fn sweep(&self, place: usize, name: &NodeId) {
        let node = self.node(place);
        for room in ROOMS {
            let (hub, room, name) = (node.hub.clone(), RoomId::parse(room).unwrap(), name.clone());
            node.spawn(async move {
                // Its own name: opening the room alone finds what an earlier process left behind.
                let nobody = NodeId::parse(&format!("{name}-before")).unwrap();
                while hub.lose_node_in(&room, &nobody).await.is_err() {
                    tokio::time::sleep(Duration::from_millis(500)).await;
                }
            });
        }
    }

    fn cut_something_off(&mut self) {
        let alive = self.alive();
        let Some(place) = self.rng.pick(&alive) else { return };
        let name = self.node(place).name.clone();
        if self.cut.len() + 1 < alive.len() && !self.cut.contains_key(&name) {
            self.note(|| format!("{name} is cut off"));
            self.tally.count("node: cut off");
            self.faults.partition(&name);
            self.cut.insert(name, self.elapsed());
        }
    }

    fn heal_something(&mut self) {
        if let Some((name, _)) = self.cut.pop_first() {
            self.note(|| format!("{name} is back"));
            self.faults.heal(&name);
        }
    }

    /// The end of all trouble.
    pub(crate) fn calm(&mut self) {
        self.note(|| "all is calm".to_owned());
        self.plan.becomes(FaultRates::default());
        self.cut.clear();
        let names: Vec<_> = self.nodes.iter().flatten().map(|node| node.name.clone()).collect();
        names.iter().for_each(|name| self.faults.heal(name));
        self.faults.calm();
        self.plan = FaultPlan::over(&self.faults, Rng::new(0), &self.tally);
        for until in self.dead.values_mut() {
            *until = Duration::ZERO;
        }
    }

    /// Ends the tasks of this world.
    pub(crate) fn end(mut self) {
        for place in self.alive() {
            self.crash(place);
        }
        drop(self.auditor);
        self.tracker.close();
    }

    pub(crate) fn replicas(&self, room: &str) -> BTreeSet<usize> {
        let room = RoomId::parse(room).unwrap();
        self.alive()
            .into_iter()
            .filter(|place| self.node(*place).hub.inspect(&room).is_some_and(|room| !room.is_vacant()))
            .collect()
    }

    pub(crate) fn connect(&mut self, place: usize) -> MemoryClient {
        self.nodes[place].as_mut().unwrap().connect()
    }

    pub(crate) fn publish_as(&self, node: &str, room: &str, message: &[u8]) {
        let door = self.log.attach(NodeId::parse(node).unwrap());
        door.publish(&RoomId::parse(room).unwrap(), None, Bytes::copy_from_slice(message));
    }
}
