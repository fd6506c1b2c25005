//! Nodes that die, stop, and start.

use std::collections::BTreeSet;

use super::population::Size;
use super::scenario::{NODES, Report, Scenario};
use super::stores::{Url, database, redis};

/// No fault: members of all nodes command as chance has it, and come and go. Several seeds, each on a cluster of its
/// own.
pub(crate) async fn random_schedule(size: Size) -> Report {
    let mut report = one_schedule(size).await;
    for _ in 0..size.rounds {
        let another = one_schedule(size).await;
        report.row.add(&another.row);
    }
    report
}

async fn one_schedule(size: Size) -> Report {
    let (redis, database) = (redis().await, database().await);
    let scenario = Scenario::open(&redis.url(), &database.url(), size).await;
    let places: BTreeSet<_> = scenario.population.records.iter().map(|record| record.lock().node).collect();
    assert_eq!(places.len(), NODES, "members are on every node");
    scenario.population.be_restless(true);
    scenario.population.stretch().await;
    scenario.population.be_restless(false);
    scenario.close("none; members come and go").await.nobody_was_resynced()
}

pub(crate) async fn killed(size: Size) -> Report {
    let (redis, database) = (redis().await, database().await);
    let mut scenario = Scenario::open(&redis.url(), &database.url(), size).await;
    scenario.population.stretch().await;
    for round in 0..size.rounds {
        let victim = round % NODES;
        scenario.population.struck(|record| record.node == Some(victim));
        scenario.nodes[victim].kill().await;
        scenario.population.stretch().await;
        scenario.nodes[victim].start_again().await;
    }
    scenario.close("a node is killed (`kill -9`) under load").await.nobody_was_resynced()
}

pub(crate) async fn rolling_restart(size: Size) -> Report {
    let (redis, database) = (redis().await, database().await);
    let mut scenario = Scenario::open(&redis.url(), &database.url(), size).await;
    scenario.population.stretch().await;
    for number in 0..NODES {
        let node = &mut scenario.nodes[number];
        node.signal("TERM").await;
        let status = node.ended().await;
        assert_eq!(status.code(), Some(0), "node {number} did not end in order");
        node.start_again().await;
        scenario.population.until_each("all to be back", |record| record.node.is_some()).await;
    }
    scenario.population.stretch().await;
    let report = scenario.close("rolling restart of all nodes under load (SIGTERM)").await;
    let silent =
        |kind: &str| assert_eq!(report.findings.kinds.get(kind), None, "{kind} in {:?}", report.findings.kinds);
    silent("member_left");
    silent("host_changed");
    let losses: usize = report.records.iter().map(|record| record.losses).sum();
    let announced: usize = report.records.iter().map(|record| record.announced).sum();
    assert!(losses >= report.records.len(), "everybody had to move");
    assert_eq!(losses, announced, "everybody was told before");
    report.nobody_was_resynced()
}

/// Three processes meet on an empty database and an empty Redis.
pub(crate) async fn started_together(size: Size) -> Report {
    let (redis, database) = (redis().await, database().await);
    let scenario = Scenario::open(&redis.url(), &database.url(), size).await;
    assert_eq!(scenario.nodes.len(), NODES);
    scenario.population.stretch().await;
    scenario.close("three nodes start at the same instant on an empty database").await.nobody_was_resynced()
}
