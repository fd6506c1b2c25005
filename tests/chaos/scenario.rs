//! Real nodes, a population on them, and what is known when it is over.

use std::collections::BTreeMap;
use std::time::Duration;

use futures_util::future::join_all;
use serde_json::Value;
use tandem::domain::Head;

use super::audit::{Findings, audit};
use super::member_record::MemberRecord;
use super::population::{Population, Size};
use crate::support::server::{Place, TestProcess};

pub(crate) const NODES: usize = 3;

/// Three nodes and everybody on them.
pub(crate) struct Scenario {
    pub(crate) nodes: Nodes,
    pub(crate) population: Population,
    database: String,
}

/// The real binary, three times, started at the same instant.
pub(crate) async fn start_nodes(redis: &[String], databases: &[String]) -> Nodes {
    let start = |number: usize| {
        let name = format!("node-{}", number + 1);
        let (redis, database) = (redis[number % redis.len()].clone(), databases[number % databases.len()].clone());
        async move {
            let settings = [
                ("NODE_ID", &*name),
                ("REDIS_URL", &redis),
                ("DATABASE_URL", &database),
                ("POSTGRES_POOL_SIZE", "4"),
                ("RATE_LIMITS", "off"),
            ];
            TestProcess::start(&settings).await
        }
    };
    Nodes(join_all((0..NODES).map(start)).await)
}

impl Scenario {
    pub(crate) async fn open(redis: &str, database: &str, size: Size) -> Self {
        let nodes = start_nodes(&[redis.to_owned()], &[database.to_owned()]).await;
        Self::with(nodes, database, size).await
    }

    pub(crate) async fn with(nodes: Nodes, database: &str, size: Size) -> Self {
        let doors: Vec<Place> = nodes.iter().map(|node| node.place()).collect();
        Self::through(nodes, &doors, database, size).await
    }

    /// Members take these doors.
    pub(crate) async fn through(nodes: Nodes, doors: &[Place], database: &str, size: Size) -> Self {
        let population = Population::gather(doors, size, seed()).await;
        Self { nodes, population, database: database.to_owned() }
    }

    /// Everything calms down, and is compared.
    pub(crate) async fn close(self, fault: &'static str) -> Report {
        let Self { nodes, population, database } = self;
        let views = population.fall_silent().await;
        let members = population.records.len();
        let records = population.disperse().await;
        let findings = audit(&database, &heads_of(&views), &records).await;
        let row = Row {
            fault,
            members,
            acknowledged: findings.acknowledged,
            lost: findings.lost,
            duplicated: findings.duplicated,
            reordered: findings.reordered,
            resyncs: records.iter().map(|record| record.resyncs).sum(),
            waits: records.iter().flat_map(|record| record.waits.iter().copied()).collect(),
        };
        println!("{}\n{}{:?}", Row::HEAD, row.line(), findings.kinds);
        if row.resyncs > 0 {
            for node in &nodes.0 {
                let metrics = node.get("/metrics", &[]).await.text().await.unwrap();
                let gaps: Vec<_> = metrics.lines().filter(|line| line.starts_with("tandem_bus_gaps_total")).collect();
                println!("why rooms were read again: {gaps:?}");
            }
        }
        let report = Report { row, findings, records, views, _nodes: nodes };
        report.is_whole();
        report
    }
}

/// Of the members' choices: another one each time, or `CHAOS_SEED`.
fn seed() -> u64 {
    let given = std::env::vars().find(|(name, _)| name == "CHAOS_SEED");
    given.map_or_else(|| rand::random::<u32>().into(), |(_, seed)| seed.parse().expect("CHAOS_SEED is a number"))
}

/// Their logs are kept when a test fails.
pub(crate) struct Nodes(Vec<TestProcess>);

impl std::ops::Deref for Nodes {
    type Target = Vec<TestProcess>;

    fn deref(&self) -> &Self::Target {
        &self.0
    }
}

impl std::ops::DerefMut for Nodes {
    fn deref_mut(&mut self) -> &mut Self::Target {
        &mut self.0
    }
}

impl Drop for Nodes {
    fn drop(&mut self) {
        if !std::thread::panicking() {
            return;
        }
        let dir = std::env::temp_dir().join(format!("tandem-chaos-{}", std::process::id()));
        let _ = std::fs::create_dir_all(&dir);
        for (number, node) in self.0.iter().enumerate() {
            let _ = std::fs::write(dir.join(format!("node-{}.log", number + 1)), node.log());
        }
        eprintln!("the nodes' logs are in {}", dir.display());
    }
}

/// The last head of each room.
fn heads_of(views: &BTreeMap<String, Vec<Value>>) -> BTreeMap<String, Head> {
    let head = |view: &Value| Head { epoch: view["epoch"].as_u64().unwrap(), seq: view["seq"].as_u64().unwrap() };
    views.iter().map(|(room, views)| (room.clone(), head(&views[0]))).collect()
}

/// The result of one scenario.
pub(crate) struct Report {
    pub(crate) row: Row,
    pub(crate) findings: Findings,
    pub(crate) records: Vec<MemberRecord>,
    /// Each member's last view of its room.
    pub(crate) views: BTreeMap<String, Vec<Value>>,
    /// For their logs, should somebody find something wrong.
    _nodes: Nodes,
}

impl Report {
    /// Nothing acknowledged is lost, twice, or in another place; rooms and hosts are the same as before.
    fn is_whole(&self) {
        let Row { lost, duplicated, reordered, acknowledged, .. } = self.row;
        let notes = self.findings.notes.iter().take(40).cloned().collect::<Vec<_>>().join("\n");
        assert_eq!((lost, duplicated, reordered), (0, 0, 0), "\n{notes}");
        assert!(acknowledged > self.records.len(), "{acknowledged} commands are no load");
        for (room, views) in &self.views {
            let members = self.records.iter().filter(|record| record.room == *room).count();
            assert_eq!(views[0]["users"].as_array().map(Vec::len), Some(members), "{room}: {}", views[0]);
            assert_eq!(views[0]["hostUserId"], format!("user-{}-0", room.rsplit('-').next().unwrap()), "{room}");
        }
        assert_eq!(self.findings.kinds.get("member_left"), None, "nobody is seen to leave");
        assert_eq!(self.findings.kinds.get("room_ended"), None, "no room ends");
        let lost: usize = self.records.iter().map(|record| record.memberships_lost).sum();
        assert_eq!(lost, 0, "every token is good");
    }

    pub(crate) fn heads(&self) -> BTreeMap<String, Head> {
        heads_of(&self.views)
    }

    /// An outage of a store ends no session.
    pub(crate) fn nobody_was_disconnected(self) -> Self {
        for record in &self.records {
            assert_eq!(record.losses, 0, "{} lost its connection", record.user);
        }
        self
    }

    /// Nodes and Redis had no fault between them: every member heard every event.
    pub(crate) fn nobody_was_resynced(self) -> Self {
        for record in &self.records {
            assert_eq!(record.resyncs, 0, "{} was told the whole room instead of the events", record.user);
        }
        self
    }

    /// Everybody knew of the outage, and of its end.
    pub(crate) fn everybody_was_told_degraded(self) -> Self {
        for record in &self.records {
            assert!(record.times_degraded > 0, "{} was not told", record.user);
            assert!(!record.degraded, "{} was not told of the end", record.user);
        }
        self
    }

    /// An outage that members don't notice.
    pub(crate) fn nobody_was_told_degraded(self) -> Self {
        assert!(self.records.iter().all(|record| record.times_degraded == 0));
        self
    }
}

/// A line of the table.
pub(crate) struct Row {
    fault: &'static str,
    members: usize,
    acknowledged: usize,
    lost: usize,
    duplicated: usize,
    reordered: usize,
    /// Members told the whole room because their node had missed something.
    resyncs: usize,
    waits: Vec<Duration>,
}

impl Row {
    pub(crate) const HEAD: &str = "\
        | fault | members | events acknowledged | lost | duplicated | reordered | resyncs | time to resume p50 | p99 |\n\
        |---|--:|--:|--:|--:|--:|--:|--:|--:|";

    /// The same fault once more.
    pub(crate) fn add(&mut self, other: &Self) {
        self.acknowledged += other.acknowledged;
        self.lost += other.lost;
        self.duplicated += other.duplicated;
        self.reordered += other.reordered;
        self.resyncs += other.resyncs;
        self.waits.extend(&other.waits);
    }

    pub(crate) fn line(&self) -> String {
        let mut waits = self.waits.clone();
        waits.sort_unstable();
        let at = |share: f64| match waits.len() {
            0 => "–".to_owned(),
            count => {
                let index = ((count as f64 * share).ceil() as usize).clamp(1, count) - 1;
                format!("{:.2} s", waits[index].as_secs_f64())
            }
        };
        format!(
            "| {} | {} | {} | {} | {} | {} | {} | {} | {} |\n",
            self.fault,
            self.members,
            self.acknowledged,
            self.lost,
            self.duplicated,
            self.reordered,
            self.resyncs,
            at(0.5),
            at(0.99)
        )
    }
}
