//! Nodes that die, stop, and start.

use std::collections::BTreeSet;

use super::crowd::Size;
use super::scene::{NODES, Report, Scene};
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
    let scene = Scene::open(&redis.url(), &database.url(), size).await;
    let places: BTreeSet<_> = scene.crowd.diaries.iter().map(|diary| diary.lock().node).collect();
    assert_eq!(places.len(), NODES, "members are on every node");
    scene.crowd.be_restless(true);
    scene.crowd.stretch().await;
    scene.crowd.be_restless(false);
    scene.close("none; members come and go").await.nobody_was_resynced()
}

pub(crate) async fn killed(size: Size) -> Report {
    let (redis, database) = (redis().await, database().await);
    let mut scene = Scene::open(&redis.url(), &database.url(), size).await;
    scene.crowd.stretch().await;
    for round in 0..size.rounds {
        let victim = round % NODES;
        scene.crowd.struck(|diary| diary.node == Some(victim));
        scene.nodes[victim].kill().await;
        scene.crowd.stretch().await;
        scene.nodes[victim].start_again().await;
    }
    scene.close("a node is killed (`kill -9`) under load").await.nobody_was_resynced()
}

pub(crate) async fn rolling_restart(size: Size) -> Report {
    let (redis, database) = (redis().await, database().await);
    let mut scene = Scene::open(&redis.url(), &database.url(), size).await;
    scene.crowd.stretch().await;
    for number in 0..NODES {
        let node = &mut scene.nodes[number];
        node.signal("TERM").await;
        let status = node.ended().await;
        assert_eq!(status.code(), Some(0), "node {number} did not end in order");
        node.start_again().await;
        scene.crowd.until_each("all to be back", |diary| diary.node.is_some()).await;
    }
    scene.crowd.stretch().await;
    let report = scene.close("rolling restart of all nodes under load (SIGTERM)").await;
    let silent =
        |kind: &str| assert_eq!(report.findings.kinds.get(kind), None, "{kind} in {:?}", report.findings.kinds);
    silent("member_left");
    silent("host_changed");
    let losses: usize = report.diaries.iter().map(|diary| diary.losses).sum();
    let announced: usize = report.diaries.iter().map(|diary| diary.announced).sum();
    assert!(losses >= report.diaries.len(), "everybody had to move");
    assert_eq!(losses, announced, "everybody was told before");
    report.nobody_was_resynced()
}

/// Three processes meet on an empty database and an empty Redis.
pub(crate) async fn started_together(size: Size) -> Report {
    let (redis, database) = (redis().await, database().await);
    let scene = Scene::open(&redis.url(), &database.url(), size).await;
    assert_eq!(scene.nodes.len(), NODES);
    scene.crowd.stretch().await;
    scene.close("three nodes start at the same instant on an empty database").await.nobody_was_resynced()
}
